//! The label sets: each a struct, so that no series can have a wrong or a missing label.

use std::fmt::{self, Display, Write};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use recsync_proto::{NodeName, ShareName};
use serde::{Deserialize, Serialize};

use crate::engine::effect::{AppliedKind, Saved};

/// Why a share is not synced, wholly or in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// No root marker: not mounted, emptied, or never made.
    NoMarker,
    /// The marker is not the one that the index knows.
    OtherDisk,
    /// Deletes wait for a person.
    MassDelete,
    /// Too little space to receive.
    NoSpace,
    /// The filesystem is read-only.
    ReadOnly,
    /// A person asked for it.
    Operator,
}

impl PauseReason {
    /// All of them.
    pub const ALL: [PauseReason; 6] = [
        PauseReason::NoMarker,
        PauseReason::OtherDisk,
        PauseReason::MassDelete,
        PauseReason::NoSpace,
        PauseReason::ReadOnly,
        PauseReason::Operator,
    ];

    /// Returns the word for it, in metrics and JSON alike.
    pub fn as_str(self) -> &'static str {
        match self {
            PauseReason::NoMarker => "no_marker",
            PauseReason::OtherDisk => "other_disk",
            PauseReason::MassDelete => "mass_delete",
            PauseReason::NoSpace => "no_space",
            PauseReason::ReadOnly => "read_only",
            PauseReason::Operator => "operator",
        }
    }
}

impl AppliedKind {
    pub(super) const ALL: [AppliedKind; 5] = [
        AppliedKind::Create,
        AppliedKind::Update,
        AppliedKind::Delete,
        AppliedKind::Rename,
        AppliedKind::Metadata,
    ];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            AppliedKind::Create => "create",
            AppliedKind::Update => "update",
            AppliedKind::Delete => "delete",
            AppliedKind::Rename => "rename",
            AppliedKind::Metadata => "metadata",
        }
    }
}

impl Saved {
    pub(super) const ALL: [Saved; 3] = [Saved::Dedup, Saved::Rename, Saved::Delta];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Saved::Dedup => "dedup",
            Saved::Rename => "rename",
            Saved::Delta => "delta",
        }
    }
}

macro_rules! word_is_label_value {
    ($($type:ty),*) => {$(
        impl EncodeLabelValue for $type {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                encoder.write_str(self.as_str())
            }
        }
    )*};
}
word_is_label_value!(PauseReason, AppliedKind, Saved);

/// A name as a label's value; names are checked and hold nothing that needs escaping.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name<T>(T);

impl<T: Display> EncodeLabelValue for Name<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        write!(encoder, "{}", self.0)
    }
}

/// The labels of what is counted for each share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct Share {
    share: Name<ShareName>,
}

impl Share {
    /// Makes the labels.
    pub fn new(share: ShareName) -> Self {
        Share { share: Name(share) }
    }

    pub(super) fn share(&self) -> &ShareName {
        &self.share.0
    }
}

/// The labels of what is counted for each peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct Peer {
    peer: Name<NodeName>,
}

impl Peer {
    /// Makes the labels.
    pub fn new(peer: NodeName) -> Self {
        Peer { peer: Name(peer) }
    }

    pub(super) fn peer(&self) -> &NodeName {
        &self.peer.0
    }
}

/// The labels of what is counted for each share and peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct SharePeer {
    share: Name<ShareName>,
    peer: Name<NodeName>,
}

impl SharePeer {
    /// Makes the labels.
    pub fn new(share: ShareName, peer: NodeName) -> Self {
        SharePeer { share: Name(share), peer: Name(peer) }
    }

    pub(super) fn share(&self) -> &ShareName {
        &self.share.0
    }

    pub(super) fn peer(&self) -> &NodeName {
        &self.peer.0
    }
}

/// The labels of `recsync_files_applied_total`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct Applied {
    share: Name<ShareName>,
    peer: Option<Name<NodeName>>,
    kind: AppliedKind,
}

impl Applied {
    /// Makes the labels; without a peer, the value is empty, which Prometheus takes for none.
    pub fn new(share: ShareName, peer: Option<NodeName>, kind: AppliedKind) -> Self {
        Applied { share: Name(share), peer: peer.map(Name), kind }
    }

    pub(super) fn share(&self) -> &ShareName {
        &self.share.0
    }

    pub(super) fn peer(&self) -> Option<&NodeName> {
        self.peer.as_ref().map(|peer| &peer.0)
    }
}

/// The labels of `recsync_saved_bytes_total`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct SavedBy {
    share: Name<ShareName>,
    how: Saved,
}

impl SavedBy {
    /// Makes the labels.
    pub fn new(share: ShareName, how: Saved) -> Self {
        SavedBy { share: Name(share), how }
    }

    pub(super) fn share(&self) -> &ShareName {
        &self.share.0
    }
}

/// The labels of `recsync_errors_total`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct Errors {
    share: Name<ShareName>,
    kind: &'static str,
}

impl Errors {
    /// Makes the labels; `kind` is one word, part of the program.
    pub fn new(share: ShareName, kind: &'static str) -> Self {
        Errors { share: Name(share), kind }
    }

    pub(super) fn share(&self) -> &ShareName {
        &self.share.0
    }
}

/// The labels of `recsync_paused`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct Paused {
    share: Name<ShareName>,
    reason: PauseReason,
}

impl Paused {
    /// Makes the labels.
    pub fn new(share: ShareName, reason: PauseReason) -> Self {
        Paused { share: Name(share), reason }
    }

    pub(super) fn share(&self) -> &ShareName {
        &self.share.0
    }
}

/// The labels of `recsync_build_info`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct Build {
    version: &'static str,
}

impl Build {
    pub(super) fn this() -> Self {
        Build { version: env!("CARGO_PKG_VERSION") }
    }
}
