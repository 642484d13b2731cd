//! The text that `init` and the editing commands write, and the defaults in it.
//!
//! **Invariant:** what is commented out is the default, and every key of this version is there.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use recsync_proto::{NodeName, ShareName};

use super::checked::{Fingerprint, HostPort};

/// `node.listen`
pub(super) const NODE_LISTEN: &str = "0.0.0.0:8730";
/// `http.listen`
pub(super) const HTTP_LISTEN: &str = "127.0.0.1:9873";
/// `share.settle`
pub(super) const SETTLE: &str = "20ms";
/// `share.trash`
pub(super) const TRASH: &str = "7d";
/// `share.min_free`
pub(super) const MIN_FREE: &str = "2%";
/// `share.scan_interval`
pub(super) const SCAN_INTERVAL: &str = "1d";

/// Where a node keeps its own files if its config does not say.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) state_dir: PathBuf,
    pub(super) control: PathBuf,
}

impl Places {
    /// Those of a system service for a config under `/etc`, else beside the config file.
    pub(super) fn of(file: &Path) -> Self {
        match file.parent() {
            Some(dir) if !file.starts_with("/etc") => {
                Places { state_dir: dir.join("state"), control: dir.join("control.sock") }
            }
            _ => Places {
                state_dir: "/var/lib/recsync".into(),
                control: "/run/recsync/control.sock".into(),
            },
        }
    }
}

/// What a new config file says; `None` leaves a key at its default, commented out.
#[derive(Debug, Clone)]
pub struct Template {
    /// `node.name`
    pub name: NodeName,
    /// `node.listen`
    pub listen: Option<HostPort>,
    /// `node.state_dir`
    pub state_dir: Option<PathBuf>,
    /// `node.control`
    pub control: Option<PathBuf>,
    /// `http.listen`; `None` for no HTTP at all.
    pub http: Option<HostPort>,
    /// Each share's name and path.
    pub shares: Vec<(ShareName, PathBuf)>,
}

impl Template {
    /// Returns the text of a config file that is to lie at `file` (absolute): every key with a line
    /// of explanation.
    pub fn text(&self, file: &Path) -> String {
        let places = Places::of(file);
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let listen = self.listen.as_ref().map(HostPort::to_string);
        let mut out = format!(
            "\
# recsync on {name}. What is commented out is the default. `recsync check` finds every mistake here;
# a running daemon takes changes up on SIGHUP (`systemctl reload recsync`).

[node]
# What this node is called; it appears in the names of conflict copies.
name = \"{name}\"
# Where peers connect (TLS 1.3 only).
{listen}
# Key, certificate and index.
{state_dir}
# The socket that `recsync status` and the other commands talk to.
{control}
",
            name = self.name,
            listen = key("listen", listen.as_deref(), NODE_LISTEN),
            state_dir = key(
                "state_dir",
                self.state_dir.as_deref().map(shown).as_deref(),
                &shown(&places.state_dir)
            ),
            control = key(
                "control",
                self.control.as_deref().map(shown).as_deref(),
                &shown(&places.control)
            ),
        );
        let http = self.http.as_ref().map(HostPort::to_string);
        let header = if http.is_some() { "[http]" } else { "# [http]" };
        let _infallible = write!(
            out,
            "
# Metrics, health and a status page; without this section there is no HTTP.
{header}
{listen}
# Serve the page and the API beyond loopback too: they show paths, and names hold telephone numbers.
# api = false

# [limits]
# What is sent to each peer, and what is received from it, at most. New calls go before the backlog.
# bandwidth = \"50MB/s\"

# One such block for each other node; `recsync peer add` writes it.
# [[peer]]
# name = \"NAME\"
# address = \"HOST:PORT\"
# Networks it may connect from; empty for any.
# allow_from = []
# What `recsync identity` prints there. A list while it changes its key.
# fingerprint = \"sha256:...\"
",
            listen = key("listen", http.as_deref(), HTTP_LISTEN),
        );
        for (name, path) in &self.shares {
            out.push('\n');
            out.push_str(&share_block(name, path));
        }
        out
    }
}

/// Returns a `[[share]]` block.
pub(super) fn share_block(name: &ShareName, path: &Path) -> String {
    format!(
        "\
[[share]]
# Shares of different nodes pair by their names.
name = \"{name}\"
path = {path}
# How long a path must be quiet before it is shipped.
# settle = \"{SETTLE}\"
# What is left alone here, in gitignore syntax, for example [\"/scratch/**\", \"*.tmp\"]; set it alike on all nodes.
# ignore = []
# What a delete here means on the peers: \"propagate\", or \"keep\": nothing.
# deletes = \"propagate\"
# Owner and group, by name: \"name\" where this process may set them, \"ignore\" to leave them alone.
# owner = \"name\"
# How long what peers delete and replace here is kept in .recsync/trash; \"0s\" for not at all.
# trash = \"{TRASH}\"
# More than this vanishing within 10 minutes waits for `recsync confirm`: a part, a count of files,
# or both as [\"50%\", 100000] for whichever is smaller.
# max_delete = {max_delete}
# A full scan, beside the watcher.
# scan_interval = \"{SCAN_INTERVAL}\"
# With less of the disk free than this nothing new is received, once the trash is empty: a part or a
# size such as \"50GB\".
# min_free = \"{MIN_FREE}\"
",
        path = quoted(&path.to_string_lossy()),
        max_delete = super::checked::MaxDelete::default(),
    )
}

/// Returns a `[[peer]]` block. Its last line is a key, so that removing the block leaves nothing.
pub(super) fn peer_block(
    name: &NodeName,
    address: &HostPort,
    fingerprints: &[Fingerprint],
) -> String {
    let texts: Vec<_> = fingerprints.iter().map(|print| format!("\"{print}\"")).collect();
    let fingerprint = match &texts[..] {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    format!(
        "\
[[peer]]
name = \"{name}\"
address = \"{address}\"
# Networks it may connect from; empty for any.
# allow_from = []
fingerprint = {fingerprint}
"
    )
}

fn key(name: &str, value: Option<&str>, default: &str) -> String {
    match value {
        Some(value) => format!("{name} = {}", quoted(value)),
        None => format!("# {name} = {}", quoted(default)),
    }
}

/// Returns a text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
