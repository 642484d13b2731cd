//! `recsync init`: a node's config, key and markers.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use recsync_proto::NodeName;

use super::named::{NamedPath, absolute, node_name};
use super::{Exit, Global, out};
use crate::config::{self, Config, ConfigError, HostPort, Source, Template};
use crate::net::{Identity, IdentityError};
use crate::tree::{self, MarkerError};

/// Makes this node's config file, its key and certificate, and each share's root marker
///
/// Prints the node's fingerprint and what to do next. Never overwrites anything: a key and markers
/// that are there already are kept.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What this node is to be called
    #[arg(long, value_parser = node_name)]
    name: NodeName,
    /// A directory to keep in step, under the name that it has on all nodes; may be repeated
    #[arg(long = "share", value_name = "NAME=PATH")]
    shares: Vec<NamedPath>,
    /// Where peers connect [default: 0.0.0.0:8730]
    #[arg(long, value_name = "ADDR")]
    listen: Option<HostPort>,
    /// Where metrics, health and the status page are served [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    http: Option<HostPort>,
    /// For key, certificate and index [default: /var/lib/recsync for a config under /etc, else
    /// `state` beside the config file]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    state_dir: Option<PathBuf>,
    /// The control socket [default: /run/recsync/control.sock for a config under /etc, else
    /// `control.sock` beside the config file]
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    control: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<Exit> {
    let file = std::path::absolute(global.config_file())?;
    if file.symlink_metadata().is_ok() {
        return Err(ConfigError::Exists { file }.into());
    }
    for share in &args.shares {
        share.require_directory()?;
    }
    let text = Template {
        name: args.name,
        listen: args.listen,
        state_dir: args.state_dir,
        control: args.control,
        http: args.http,
        shares: args.shares.into_iter().map(|share| (share.name, share.path)).collect(),
    }
    .text(&file);
    let config = Source::new(&file, &text)
        .check()
        .map_err(|mistakes| anyhow!("these arguments make no valid config:\n{mistakes}"))?;

    // The config comes last: without it, what is made here is found and kept by the next attempt.
    let identity = keep_or_create_identity(&config)?;
    for share in &config.shares {
        make_marker(share)?;
    }
    config::create(&file, &text)?;
    out::text(next_steps(global, &config, &identity))?;
    Ok(Exit::Well)
}

/// Makes the node's key, or takes the one that is there: from an attempt that ended half-way, or of
/// a node that lost its config.
fn keep_or_create_identity(config: &Config) -> anyhow::Result<Identity> {
    let dir = &config.node.state_dir;
    // `create` would make the directories above private too.
    if let Some(parent) = dir.parent() {
        DirBuilder::new().recursive(true).create(parent).with_context(|| {
            format!("cannot make {}, for the state directory", parent.display())
        })?;
    }
    match Identity::create(dir, &config.node.name) {
        Err(IdentityError::Exists(_)) => Ok(Identity::load(dir)?),
        made => Ok(made?),
    }
}

/// Makes a share's marker, or keeps the one that is there if it is this share's.
pub(super) fn make_marker(share: &config::Share) -> anyhow::Result<()> {
    match tree::create_marker(&share.path, &share.name) {
        Ok(_) => Ok(()),
        Err(MarkerError::Exists { .. })
            if tree::read_marker(&share.path).is_ok_and(|found| found.share == share.name) =>
        {
            Ok(())
        }
        Err(error @ MarkerError::Exists { .. }) => Err(anyhow!(
            "share {}: {error}; give the share that name, or, if this directory is no longer a \
             part of the other share, remove its .recsync",
            share.name
        )),
        Err(error) => Err(anyhow!("share {}: {error}", share.name)),
    }
}

fn next_steps(global: &Global, config: &Config, identity: &Identity) -> String {
    let me = &config.node.name;
    let fingerprint = identity.fingerprint();
    let here = global.invocation();
    let listen = &config.node.listen;
    let address = match listen.is_unspecified() {
        true => format!("ADDRESS-OF-{me}:{}", listen.port()),
        false => listen.to_string(),
    };
    let mut text = format!(
        "\
Node {me} is set up.
  config       {}
  state        {}
  fingerprint  {fingerprint}
",
        config.file.display(),
        config.node.state_dir.display(),
    );
    for share in &config.shares {
        let _infallible = writeln!(text, "  share        {} {}", share.name, share.path.display());
    }
    let start = match config.file == Path::new(super::CONFIG_FILE) {
        true => "systemctl enable --now recsync".to_owned(),
        false => format!("{here} run"),
    };
    let mut there = String::from("recsync init --name OTHER");
    for share in &config.shares {
        let pair = format!("{}={}", share.name, share.path.display());
        let _infallible = write!(there, " --share {}", out::shell_word(&pair));
    }
    let _infallible = write!(
        text,
        "
Next:
  1. On the other node, unless it is set up:
       {there}
  2. On the other node, make this one known:
       recsync peer add {me} --address {address} --fingerprint {fingerprint}
  3. Here, make the other one known, with the fingerprint that `recsync identity` prints there:
       {here} peer add OTHER --address ADDRESS-OF-OTHER:8730 --fingerprint sha256:...
  4. On both:
       {here} check
       {start}
"
    );
    text
}
