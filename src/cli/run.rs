//! `recsync run`: the daemon, in the foreground.

use super::{Exit, Global};
use crate::daemon;

/// Run the daemon in the foreground, until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Runs it.
///
/// # Errors
/// If it cannot start.
pub(super) fn run(global: &Global, Args {}: Args) -> anyhow::Result<Exit> {
    daemon::run(&global.config_file())?;
    Ok(Exit::Well)
}
