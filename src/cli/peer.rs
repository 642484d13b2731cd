//! `recsync peer`: the nodes that this one is paired with.
#![forbid(unsafe_code)]

use anyhow::bail;
use recsync_proto::NodeName;

use super::named::node_name;
use super::{Exit, Global, out};
use crate::config::{self, Config, Fingerprint, HostPort};
use crate::net::Identity;

/// Adds, removes or lists the nodes that this one is paired with
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Adds a peer to the config file, keeping its comments and order
    Add(Add),
    /// Removes a peer from the config file
    Remove {
        /// The peer's name
        #[arg(value_parser = node_name)]
        name: NodeName,
    },
    /// Lists the peers in the config file
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// The peer's name, as its own config has it
    #[arg(value_parser = node_name)]
    name: NodeName,
    /// Where it listens
    #[arg(long, value_name = "HOST:PORT")]
    address: HostPort,
    /// What `recsync identity` prints there; repeated while it changes its key
    #[arg(long = "fingerprint", value_name = "FP", required = true)]
    fingerprints: Vec<Fingerprint>,
}

pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<Exit> {
    match args.action {
        Action::Add(peer) => add(global, &peer)?,
        Action::Remove { name } => remove(global, &name)?,
        Action::List { json } => list(&config::load(&global.config_file())?, json)?,
    }
    Ok(Exit::Well)
}

fn add(global: &Global, peer: &Add) -> anyhow::Result<()> {
    let file = global.config_file();
    let state_dir = config::load(&file)?.node.state_dir;
    // Without a key of its own, or the right to read it, this node cannot tell.
    if let Ok(own) = Identity::load(&state_dir)
        && peer.fingerprints.contains(&own.fingerprint())
    {
        bail!(
            "peer {}: this is the fingerprint of this node itself; give the one that \
             `recsync identity` prints on {0}",
            peer.name
        );
    }
    config::edit(&file, |text, config| {
        config::edit::add_peer(text, config, &peer.name, &peer.address, &peer.fingerprints)
    })?;
    out::text(format!("Peer {} is in {}.\n{RELOAD}", peer.name, file.display()))
}

fn remove(global: &Global, name: &NodeName) -> anyhow::Result<()> {
    let file = global.config_file();
    config::edit(&file, |text, config| config::edit::remove_peer(text, config, name))?;
    out::text(format!("Peer {name} is no longer in {}.\n{RELOAD}", file.display()))
}

/// What to do after any edit.
pub(super) const RELOAD: &str =
    "A running daemon takes it up with: systemctl reload recsync (or SIGHUP)";

fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    if json {
        let peers = config.peers.iter().map(|peer| {
            serde_json::json!({
                "name": peer.name.as_str(),
                "address": peer.address.as_str(),
                "fingerprints": texts(&peer.fingerprints),
                "allow_from": texts(&peer.allow_from),
            })
        });
        return out::json(&serde_json::json!({ "peers": peers.collect::<Vec<_>>() }));
    }
    if config.peers.is_empty() {
        return out::text("No peers; add one with `recsync peer add`.");
    }
    let rows: Vec<_> = config
        .peers
        .iter()
        .map(|peer| {
            let fingerprints = texts(&peer.fingerprints).join(",");
            [peer.name.to_string(), peer.address.to_string(), fingerprints]
        })
        .collect();
    out::text(out::table(["NAME", "ADDRESS", "FINGERPRINT"], &rows))
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}
