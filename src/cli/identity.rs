//! `recsync identity`: who this node is to its peers.
#![forbid(unsafe_code)]

use super::{Exit, Global, out};
use crate::config;
use crate::net::Identity;

/// Prints this node's name and fingerprint, for `recsync peer add` on the other nodes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<Exit> {
    let config = config::load(&global.config_file())?;
    let fingerprint = Identity::load(&config.node.state_dir)?.fingerprint();
    let name = &config.node.name;
    if args.json {
        out::json(&serde_json::json!({
            "name": name.as_str(),
            "fingerprint": fingerprint.to_string(),
        }))?;
    } else {
        out::text(format!("{name} {fingerprint}"))?;
    }
    Ok(Exit::Well)
}
