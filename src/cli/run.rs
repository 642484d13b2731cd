//! `recsync run`: the daemon, in the foreground.

use super::{Exit, Global};
use crate::daemon::{self, DaemonError};

/// Run the daemon in the foreground, until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Runs it.
///
/// # Errors
/// If it cannot start.
pub(super) fn run(global: &Global, Args {}: Args) -> anyhow::Result<Exit> {
    match daemon::run(&global.config_file()) {
        Ok(()) => Ok(Exit::Well),
        // An invalid config has an exit code of its own: trying again does not make it valid.
        Err(DaemonError::Config(error)) => Err(error.into()),
        Err(error) => Err(error.into()),
    }
}
