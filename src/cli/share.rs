//! `recsync share`: the directory trees that are kept in step.
#![forbid(unsafe_code)]

use super::named::NamedPath;
use super::{Exit, Global, init, out, peer};
use crate::config::{self, Config, edit};

/// Adds or lists the directory trees that are kept in step
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Adds a share to the config file, unless it is there, and makes its root marker
    Add {
        /// The name that it has on all nodes, and its directory here, which must exist
        #[arg(value_name = "NAME=PATH")]
        share: NamedPath,
    },
    /// Lists the shares in the config file
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<Exit> {
    match args.action {
        Action::Add { share } => add(global, &share)?,
        Action::List { json } => list(&config::load(&global.config_file())?, json)?,
    }
    Ok(Exit::Well)
}

fn add(global: &Global, share: &NamedPath) -> anyhow::Result<()> {
    share.require_directory()?;
    let file = global.config_file();
    let (name, path) = (&share.name, share.path.display());
    let is_it = |known: &&config::Share| known.name == share.name && known.path == share.path;
    if let Some(known) = config::load(&file)?.shares.iter().find(is_it) {
        // Written by hand, or by an attempt that got no further than this.
        init::make_marker(known)?;
        let done = format!("Share {name}, {path}, was in {} already", file.display());
        return out::text(format!("{done}; its marker is in place."));
    }
    let config =
        config::edit(&file, |text, config| edit::add_share(text, config, name, &share.path))?;
    // The marker comes after the edit, which may be refused; a share without one waits for it.
    for added in config.shares.iter().filter(is_it) {
        init::make_marker(added)?;
    }
    out::text(format!("Share {name}, {path}, is in {}.\n{}", file.display(), peer::RELOAD))
}

fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    if json {
        let shares = config.shares.iter().map(|share| {
            serde_json::json!({
                "name": share.name.as_str(),
                "path": share.path,
                "settle_seconds": share.settle.as_secs_f64(),
                "trash_seconds": share.trash.as_secs_f64(),
                "max_delete": {
                    "percent": share.max_delete.percent,
                    "count": share.max_delete.count,
                },
                "min_free": share.min_free.to_string(),
                "scan_interval_seconds": share.scan_interval.as_secs_f64(),
            })
        });
        return out::json(&serde_json::json!({ "shares": shares.collect::<Vec<_>>() }));
    }
    if config.shares.is_empty() {
        return out::text("No shares; add one with `recsync share add`.");
    }
    let rows: Vec<_> = config
        .shares
        .iter()
        .map(|share| [share.name.to_string(), share.path.display().to_string()])
        .collect();
    out::text(out::table(["NAME", "PATH"], &rows))
}
