//! What is wanted, what is answered, and the queue in between.
//!
//! **Invariant:** the newest is next, every fourth time the oldest.
//! **May not:** know who is being asked.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use recsync_proto::message::{FileRef, Lane, ShareMessage};
use recsync_proto::{Hash, NodeName, Seq, SharePath};
use thiserror::Error;

use crate::engine::{NotFetched, Source};
use crate::tree::TreeError;

/// Every so many starts the oldest waiting file is taken instead of the newest.
const OLDEST_EVERY: u64 = 4;

/// A file that is to be fetched: what [`crate::engine::Effect::Fetch`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The path they are for.
    pub path: SharePath,
    /// Which bytes, and where the peer has them.
    pub file: FileRef,
    /// Whom to ask.
    pub peer: NodeName,
    /// On which lane.
    pub lane: Lane,
    /// Greater is more urgent.
    pub seq: Seq,
    /// A file here that may share blocks with it.
    pub basis: Option<SharePath>,
}

/// What is to be done or told.
#[derive(Debug, Clone, PartialEq)]
pub enum FetchOutput {
    /// A question to a peer.
    Send {
        /// To whom.
        peer: NodeName,
        /// On which lane.
        lane: Lane,
        /// What.
        message: ShareMessage,
    },
    /// A want is answered: [`crate::engine::Input::Fetched`].
    Fetched {
        /// The path they are for.
        path: SharePath,
        /// Which bytes.
        hash: Hash,
        /// The bytes, or why there are none.
        source: Result<Source, FetchError>,
        /// Bytes that need not cross the wire, because the basis had them.
        reused: u64,
    },
}

/// Why the bytes were not had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FetchError {
    /// The peer has them no more.
    #[error("the peer has these bytes no more")]
    Gone,
    /// The block hashes do not combine to the announced hash.
    #[error("the peer's block hashes do not belong to the announced hash")]
    BadOutline,
    /// A block is not what its hash says, or was not asked for.
    #[error("the peer sent other bytes than it announced")]
    BadBlock,
    /// The link is down.
    #[error("the link to the peer is down")]
    PeerDown,
    /// This disk refused.
    #[error("cannot write to .recsync/tmp: {0}")]
    Disk(TreeError),
}

impl From<FetchError> for NotFetched {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Disk(error) => NotFetched::Disk(error),
            FetchError::Gone => NotFetched::Gone,
            other => NotFetched::Peer(other.to_string()),
        }
    }
}

/// Files that are not yet asked for, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) wants: BTreeMap<(Seq, SharePath), Want>,
    starts: u64,
}

impl Waiting {
    pub(super) fn insert(&mut self, want: Want) {
        self.wants.insert((want.seq, want.path.clone()), want);
    }

    pub(super) fn next(&self) -> Option<&Want> {
        let oldest = (self.starts + 1).is_multiple_of(OLDEST_EVERY);
        let wants = &self.wants;
        let next = if oldest { wants.first_key_value() } else { wants.last_key_value() };
        next.map(|(_, want)| want)
    }

    pub(super) fn take_next(&mut self) -> Option<Want> {
        let key = self.next().map(|want| (want.seq, want.path.clone()))?;
        self.starts += 1;
        self.wants.remove(&key)
    }
}
