//! The config as the rest of the program sees it: valid by type.
//!
//! **Invariant:** no value of a type here needs a check where it is used.
//! **May not:** resolve names or look at the disk.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use recsync_proto::{NodeName, ShareName};
use thiserror::Error;

pub use crate::engine::{DeletePolicy, MaxDelete, OwnerPolicy};
pub use crate::net::{Cidr, Fingerprint};
pub use crate::tree::IgnoreRules;

/// A valid config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it was read from, absolute.
    pub file: PathBuf,
    /// This node.
    pub node: Node,
    /// The HTTP listener, if there is to be one.
    pub http: Option<Http>,
    /// What it may use.
    pub limits: Limits,
    /// The nodes this one is paired with; names and fingerprints are unique.
    pub peers: Vec<Peer>,
    /// What is kept in step; names are unique, no path lies in another.
    pub shares: Vec<Share>,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name; no peer has the same.
    pub name: NodeName,
    /// Where peers connect.
    pub listen: HostPort,
    /// Directory of key, certificate and index; absolute, in no share.
    pub state_dir: PathBuf,
    /// The control socket; absolute, in no share.
    pub control: PathBuf,
}

/// The HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where it listens; not where peers connect.
    pub listen: HostPort,
    /// Serve the page and the API beyond loopback too.
    pub api: bool,
}

/// What the node may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second on the wire for each peer, each way; none for no limit.
    pub bandwidth: Option<NonZeroU64>,
}

/// A node that this one is paired with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: NodeName,
    /// Where it is dialled.
    pub address: HostPort,
    /// The keys it may have: at least one, more while it changes its key.
    pub fingerprints: Vec<Fingerprint>,
    /// Networks it may connect from; empty for any.
    pub allow_from: Vec<Cidr>,
}

/// A directory tree that is kept the same on all nodes that have a share of this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its name.
    pub name: ShareName,
    /// Its root, absolute.
    pub path: PathBuf,
    /// How long a path must be quiet before it is shipped; at least 1 ms.
    pub settle: Duration,
    /// What is left alone.
    pub ignore: Arc<IgnoreRules>,
    /// Whether a delete here is a delete elsewhere.
    pub deletes: DeletePolicy,
    /// Whether owner and group are synced.
    pub owner: OwnerPolicy,
    /// How long what peers delete and replace here is kept; zero for not at all.
    pub trash: Duration,
    /// More than this vanishing at once waits for `recsync confirm`.
    pub max_delete: MaxDelete,
    /// Below this, nothing new is received.
    pub min_free: MinFree,
    /// Time between full scans; at least 1 s.
    pub scan_interval: Duration,
}

/// How much of a filesystem is left to those who record on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinFree {
    /// Of its size, 0 to 100.
    Percent(u8),
    /// Bytes.
    Bytes(u64),
}

impl MinFree {
    /// Returns how many bytes must stay free on a filesystem of this size.
    pub fn floor(self, total: u64) -> u64 {
        match self {
            MinFree::Percent(percent) => {
                let part = u128::from(total) * u128::from(percent) / 100;
                u64::try_from(part).unwrap_or(u64::MAX)
            }
            MinFree::Bytes(bytes) => bytes,
        }
    }

    /// Returns how many must be free before receiving goes on: a quarter more, so that it does not
    /// stop and go on with each file.
    pub fn enough(self, total: u64) -> u64 {
        let floor = self.floor(total);
        floor.saturating_add(floor / 4)
    }
}

impl FromStr for MinFree {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let example = "write \"2%\" of the disk, or a size such as \"50GB\"; \"0%\" for none";
        if let Some(digits) = text.strip_suffix('%') {
            let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
            return match digits.parse() {
                Ok(percent @ 0..=100) if whole => Ok(MinFree::Percent(percent)),
                _ => {
                    Err(ValueError(format!("`{text}` is no percentage from 0% to 100%; {example}")))
                }
            };
        }
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) => Ok(MinFree::Bytes(size.as_u64())),
            Err(_) => Err(ValueError(format!("`{text}` is no size; {example}"))),
        }
    }
}

/// As it is written in the file.
impl fmt::Display for MinFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MinFree::Percent(percent) => write!(f, "{percent}%"),
            MinFree::Bytes(bytes) => bytesize::ByteSize(*bytes).display().si().fmt(f),
        }
    }
}

/// Why a text is not a value of its type, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ValueError(String);

/// `HOST:PORT`: a name or an address (IPv6 in brackets) and a port from 1, as it was written. Names
/// are resolved where it is used, because what they mean changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    text: String,
    host_len: usize,
    port: u16,
}

impl HostPort {
    /// Returns the text as the socket functions of the standard library and tokio take it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name or address, without brackets.
    pub fn host(&self) -> &str {
        self.text[..self.host_len].trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the port, at least 1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address, if no name has to be resolved for it.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// True if only this machine can connect there.
    pub fn is_loopback(&self) -> bool {
        self.host() == "localhost" || self.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
    }

    /// True if it stands for every address of this machine.
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }
}

impl FromStr for HostPort {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let example = "write HOST:PORT, for example \"192.168.1.108:8730\" or \"[fd00::8]:8730\"";
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(ValueError(format!("`{text}` has no port; {example}")));
        };
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host_is_valid = match bracketed {
            Some(inside) => inside.parse::<Ipv6Addr>().is_ok(),
            None => is_name_or_ipv4(host),
        };
        if host.parse::<Ipv6Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
            let way_out = "put an IPv6 address in brackets, for example \"[fd00::8]:8730\"";
            return Err(ValueError(format!("`{text}` is ambiguous; {way_out}")));
        }
        if !host_is_valid {
            return Err(ValueError(format!(
                "`{host}` is neither a name nor an address; {example}"
            )));
        }
        // `parse` alone would take a sign.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse::<u16>() {
            Ok(number @ 1..) if digits => {
                Ok(HostPort { text: text.to_owned(), host_len: host.len(), port: number })
            }
            _ => Err(ValueError(format!("`{port}` is no port; choose one from 1 to 65535"))),
        }
    }
}

/// A host name by RFC 1123 (underscores are met in practice), or an IPv4 address: what ends in a
/// number can only be an address (RFC 3696), so that `192.168.1.300` is a mistake and not a name.
fn is_name_or_ipv4(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let last = host.rsplit('.').next().unwrap_or(host);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        host.parse::<Ipv4Addr>().is_ok()
    } else {
        host.len() <= 253 && host.split('.').all(label)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
