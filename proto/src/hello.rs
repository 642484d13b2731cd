//! How two nodes find a common version of the protocol.
//!
//! **Invariant:** only an empty overlap of versions is refused, with both ranges shown; an unknown
//! capability is ignored.

use std::fmt;

use bincode::{Decode, Encode};

use crate::message::Lane;
use crate::path::{Escaped, NodeName};

/// The versions of the protocol that this build speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// Longest [`Refusal::Protocol`] in bytes.
pub const REASON_LEN_MAX: usize = 1_024;

/// A range of protocol versions, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Versions {
    /// Returns the newest version in both ranges, if there is one.
    pub fn common(self, other: Versions) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

/// The first frame on each connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Versions of the protocol that the sender speaks.
    pub versions: Versions,
    /// Optional parts that the sender understands; both must name one for it to be used.
    pub capabilities: Vec<String>,
    /// The sender's own name.
    pub node: NodeName,
    /// Random, one for each start of the daemon: tells a restarted peer from a duplicate.
    pub instance: u64,
    /// Random, one for each dial: the two lanes of a connection set carry the same.
    pub set: u64,
    /// Which lane this connection is to be.
    pub lane: Lane,
}

/// Why a connection is ended by this side.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// No common version; the sender's range.
    Version(Versions),
    /// Another connection set between the two nodes is in use.
    Duplicate,
    /// The two nodes are one: a config that names itself as its peer, or a copied key.
    Myself,
    /// The daemon is stopping.
    Stopping,
    /// The other side broke the protocol; how, in at most [`REASON_LEN_MAX`] bytes.
    Protocol(String),
    /// Another node that is connected now has the same key.
    Twin,
}

impl Refusal {
    /// Returns [`Refusal::Protocol`] with as much of the reason as may be sent.
    pub fn protocol(how: &str) -> Self {
        Refusal::Protocol(how[..how.floor_char_boundary(REASON_LEN_MAX)].to_owned())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Version(theirs) => write!(
                f,
                "it speaks protocol version {theirs}, this node {VERSIONS}; upgrade the older of the two"
            ),
            Refusal::Duplicate => f.write_str("another connection between the two nodes is in use"),
            Refusal::Myself => f.write_str(
                "both ends have the same key; give each node its own with `recsync init`",
            ),
            Refusal::Twin => f.write_str(
                "another node that is connected to it has this node's key: one of the two was copied \
                 from the other; give one a key of its own (move its key.pem and cert.pem away, \
                 recsync init), and tell the peers",
            ),
            Refusal::Stopping => f.write_str("it is stopping"),
            Refusal::Protocol(how) => {
                let how = Escaped(how.as_bytes());
                write!(f, "it says that this node broke the protocol: {how}")
            }
        }
    }
}
