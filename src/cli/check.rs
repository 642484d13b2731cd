//! `recsync check`: every mistake in the config, and what it would run.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::{Exit, Global, out};
use crate::config::{Config, Mistake, Mistakes, Source};
use crate::net::Identity;
use crate::tree::{self, Disk, RootError};

/// Reads the config as `run` would and reports every mistake with file, line and column
///
/// Starts nothing. Exit code 0 if the daemon would start, 1 if not.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(global: &Global, Args {}: Args) -> anyhow::Result<Exit> {
    let source = Source::read(&global.config_file())?;
    let config = match source.check() {
        Ok(config) => config,
        Err(mistakes) => {
            out::text(mistakes.to_string())?;
            return Ok(Exit::No);
        }
    };
    let found = Found::on_this_machine(&source, &config);
    let file = &config.file;
    if !found.errors.is_empty() {
        let mistakes = Mistakes { file: file.clone(), list: found.errors };
        out::text(format!("{mistakes}{}", warnings(&config, &found.warnings)))?;
        return Ok(Exit::No);
    }
    out::text(format!(
        "{} is valid. It runs:\n{}{}",
        file.display(),
        summary(&config, found.identity.as_ref()),
        warnings(&config, &found.warnings)
    ))?;
    Ok(Exit::Well)
}

/// What a look at this machine says about a valid config.
#[derive(Default)]
struct Found {
    identity: Option<Identity>,
    /// What `run` would stop at.
    errors: Vec<Mistake>,
    /// What it would not.
    warnings: Vec<Mistake>,
}

impl Found {
    fn on_this_machine(source: &Source, config: &Config) -> Self {
        let mut found = Found::default();
        found.look_at_key(source, config);
        found.look_at_shares(source, config);
        found.look_at_http(source, config);
        if config.peers.is_empty() {
            let why = "there is no peer, so nothing goes anywhere; add one with `recsync peer add`";
            found.warnings.push(source.finding("peer", 0, why.to_owned()));
        }
        found.errors.sort();
        found.warnings.sort();
        found
    }

    fn look_at_key(&mut self, source: &Source, config: &Config) {
        let dir = &config.node.state_dir;
        let identity = match Identity::load(dir) {
            Ok(identity) => identity,
            Err(error) => {
                self.errors.push(source.finding("node.state_dir", 0, error.to_string()));
                return;
            }
        };
        let own = identity.fingerprint();
        for (n, peer) in config.peers.iter().enumerate() {
            if peer.fingerprints.contains(&own) {
                let why = format!(
                    "this is the fingerprint of this node itself; take the one that \
                     `recsync identity` prints on {}",
                    peer.name
                );
                self.errors.push(source.finding("peer.fingerprint", n, why));
            }
        }
        self.identity = Some(identity);
    }

    fn look_at_shares(&mut self, source: &Source, config: &Config) {
        for (n, share) in config.shares.iter().enumerate() {
            let finding = |why| source.finding("share.path", n, why);
            match tree::read_marker(&share.path) {
                Ok(marker) if marker.share == share.name => {
                    let disk = Disk::open(&share.path, &share.name, None);
                    let weak = disk.ok().and_then(|disk| disk.weak_probe());
                    self.warnings.extend(weak.map(|why| finding(why.to_owned())));
                }
                Ok(marker) => self.errors.push(finding(format!(
                    "the marker in {} says that it belongs to share `{}`; correct the name or the path",
                    share.path.display(),
                    marker.share
                ))),
                Err(error @ RootError::NoMarker { .. }) => self.warnings.push(finding(format!(
                    "{error} The share waits until it is back; if this directory never had one, \
                     `recsync share add` makes it"
                ))),
                Err(error) => self.errors.push(finding(error.to_string())),
            }
        }
        if config.shares.is_empty() {
            let why = "there is no share, so there is nothing to keep in step; add one with \
                       `recsync share add`";
            self.warnings.push(source.finding("share", 0, why.to_owned()));
        }
    }

    fn look_at_http(&mut self, source: &Source, config: &Config) {
        let Some(http) = config.http.as_ref().filter(|http| http.api) else { return };
        if !http.listen.is_loopback() {
            let why = format!(
                "whoever reaches {} sees the status page and the API, without a password: the \
                 paths of recordings (names hold telephone numbers), peers, errors; leave it out \
                 unless a firewall or a proxy guards it",
                http.listen
            );
            self.warnings.push(source.finding("http.api", 0, why));
        }
    }
}

fn summary(config: &Config, identity: Option<&Identity>) -> String {
    let node = &config.node;
    let mut text = format!("  node   {}, peers connect to {}", node.name, node.listen);
    if let Some(identity) = identity {
        let _infallible = write!(text, ", {}", identity.fingerprint());
    }
    let _infallible = write!(
        text,
        "\n  state  {}, control socket {}",
        node.state_dir.display(),
        node.control.display()
    );
    if let Some(http) = &config.http {
        let all = http.api || http.listen.is_loopback();
        let what = if all { "all pages" } else { "only /metrics, /healthz and /readyz" };
        let _infallible = write!(text, "\n  http   {}, {what}", http.listen);
    }
    for peer in &config.peers {
        let _infallible = write!(text, "\n  peer   {} at {}", peer.name, peer.address);
    }
    for share in &config.shares {
        let _infallible = write!(
            text,
            "\n  share  {} in {}, settle {}, trash {}, max_delete {}, scan every {}, min_free {}",
            share.name,
            share.path.display(),
            humantime::format_duration(share.settle),
            humantime::format_duration(share.trash),
            share.max_delete,
            humantime::format_duration(share.scan_interval),
            share.min_free,
        );
    }
    text
}

fn warnings(config: &Config, list: &[Mistake]) -> String {
    let file = config.file.display();
    list.iter()
        .map(|Mistake { line, column, key, why }| {
            format!("\n{file}:{line}:{column}: warning: {key}: {why}")
        })
        .collect()
}
