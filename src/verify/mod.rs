//! Compares a share with a peer's, as both are on disk now, by digests of directories.
//!
//! Each side walks its own tree once and keeps one digest for each directory; the asker compares
//! top-down and descends only where digests differ. What differs may be on its way: it is looked
//! at again until it is the same, or the time is over.
//!
//! **Invariant:** reads only; memory grows with the number of directories, not of files.
//! **May not:** change anything, or trust the index for more than a file's hash.
#![forbid(unsafe_code)]

mod compare;
mod digest;
#[cfg(test)]
mod tests;

use recsync_proto::SharePath;
use recsync_proto::message::DigestEntry;
use recsync_proto::message::DigestKind;
use thiserror::Error;

use crate::index::IndexError;

pub use compare::{Comparison, Far, compare, recheck};
pub use digest::{Digests, Page, look_at};

/// Why two trees could not be compared.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// This side's tree or index could not be read.
    #[error("cannot read this node's tree: {0}")]
    Here(String),
    /// The peer did not answer.
    #[error("the peer does not answer: {0}")]
    There(String),
}

impl From<IndexError> for VerifyError {
    fn from(error: IndexError) -> Self {
        VerifyError::Here(error.to_string())
    }
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DifferenceKind {
    /// The peer has it, this node does not.
    MissingHere,
    /// This node has it, the peer does not.
    MissingOnPeer,
    /// Other bytes, or another link target.
    Content,
    /// Same bytes, other mode or mtime.
    Metadata,
    /// A file here, a directory or a link there.
    Type,
    /// It cannot be read on one side.
    Unreadable,
}

impl DifferenceKind {
    /// Returns the word that `verify --json` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            DifferenceKind::MissingHere => "missing_here",
            DifferenceKind::MissingOnPeer => "missing_on_peer",
            DifferenceKind::Content => "content",
            DifferenceKind::Metadata => "metadata",
            DifferenceKind::Type => "type",
            DifferenceKind::Unreadable => "unreadable",
        }
    }
}

/// A path that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub path: SharePath,
    /// How.
    pub kind: DifferenceKind,
    /// What this node has.
    pub here: Option<DigestEntry>,
    /// What the peer has.
    pub there: Option<DigestEntry>,
}

impl Difference {
    /// True if one side's file has changed since it was indexed, or is being written: no lasting
    /// difference, whatever it holds in the end will be shipped.
    pub fn is_in_flight(&self) -> bool {
        [&self.here, &self.there]
            .into_iter()
            .flatten()
            .any(|entry| matches!(entry.kind, DigestKind::File { hash: None, .. }))
    }
}
