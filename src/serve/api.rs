//! What travels as JSON between the daemon and those who ask it: part of the contract.
//!
//! Durations are seconds, times RFC 3339 in UTC, sizes bytes. Keys are added, never renamed or
//! removed; a reader must ignore those that it does not know.

use serde::{Deserialize, Serialize};

use crate::telemetry::Timestamp;
pub use crate::telemetry::events::{RecentError, Skipped, SkippedPath};
pub use crate::telemetry::metrics::PauseReason;

/// How everything is: `GET /api/v1/status`, `recsync status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This node's name.
    pub node: String,
    /// The version of recsync that runs.
    pub version: String,
    /// Time since its start.
    pub uptime_seconds: f64,
    /// Of this node's key: `sha256:` and 64 hex digits.
    pub fingerprint: String,
    /// When this was so.
    pub time: Timestamp,
    /// Whether the daemon does its job.
    pub health: Health,
    /// The shares, in the order of the config.
    pub shares: Vec<ShareStatus>,
    /// The peers, in the order of the config.
    pub peers: Vec<PeerStatus>,
    /// What waits for `recsync confirm`.
    pub held: Vec<Held>,
    /// Recent errors, the latest first.
    pub errors: Vec<RecentError>,
}

/// What a share is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareState {
    /// The first full scan since the start is under way.
    Scanning,
    /// Scanned and watched: changes are noticed as they happen.
    Watching,
    /// Something keeps it from being synced, wholly or in part: see `paused`.
    Paused,
}

/// How a share is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareStatus {
    /// Its name.
    pub name: String,
    /// Its directory here.
    pub path: String,
    /// What it is doing.
    pub state: ShareState,
    /// Why it is paused; empty otherwise.
    pub paused: Vec<Pause>,
    /// Files, as the index knows them.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Directories that are not watched: changes there are found by scans only.
    pub unwatched_dirs: u64,
    /// Paths whose version from a peer is not yet installed here.
    pub pending_files: u64,
    /// Paths that keep failing and are tried again with growing delays.
    pub quarantined_files: u64,
    /// Conflicts since the start.
    pub conflicts: u64,
    /// Conflict copies that nobody has resolved.
    #[serde(default)]
    pub conflict_copies: u64,
    /// What is never synced.
    pub skipped: Skipped,
    /// What an operator should know once: a weak writer probe, owners that cannot be set.
    pub notes: Vec<String>,
}

/// Why a share is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The reason, as `recsync_paused` has it.
    pub reason: PauseReason,
    /// What it is and what to do, for a person.
    pub why: String,
}

/// How a peer is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Where it is dialled, `host:port`.
    pub address: String,
    /// Whether there is a link.
    pub connected: bool,
    /// When it was last heard; none for never since the start.
    pub last_seen: Option<Timestamp>,
    /// Why there is no link.
    pub error: Option<String>,
    /// Bytes sent since the start, on the wire.
    pub sent_bytes: u64,
    /// Bytes received since the start, on the wire.
    pub received_bytes: u64,
    /// How far its clock is ahead of the one here, if it is known.
    pub clock_skew_seconds: Option<f64>,
    /// What there is between the two nodes, for each share.
    pub shares: Vec<PeerShare>,
}

/// How a share is between this node and a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerShare {
    /// The share.
    pub share: String,
    /// Age of the oldest change made here that is not yet durable there, 0 if there is none.
    pub lag_seconds: f64,
    /// The same the other way, as last heard; none if never.
    pub peer_lag_seconds: Option<f64>,
    /// Paths that are not yet durable there.
    pub pending_files: u64,
    /// Size of their files.
    pub pending_bytes: u64,
}

/// Whether the daemon does its job: `GET /healthz` (200, or 503 if not healthy).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it does. No lag and no dead peer makes it unhealthy.
    pub healthy: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// What a stricter probe may want to look at.
    pub peers: Vec<PeerHealth>,
}

/// How a peer looks to a probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerHealth {
    /// Its name.
    pub name: String,
    /// Whether there is a link.
    pub connected: bool,
    /// The greatest lag of a share to it.
    pub lag_seconds: f64,
    /// The greatest lag of a share from it, as last heard; none if never.
    pub peer_lag_seconds: Option<f64>,
}

/// Whether every share is scanned and watched: `GET /readyz` (200, or 503 if not).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether it is so.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
}

/// Something that a guard holds back until a person decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What to call it by.
    pub id: String,
    /// The share.
    pub share: String,
    /// Which guard.
    pub reason: PauseReason,
    /// Since when.
    pub since: Timestamp,
    /// What is held, and what confirming and rejecting would do, for a person.
    pub message: String,
}

/// The body of `POST /api/v1/confirm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideRequest {
    /// [`Held::id`].
    pub id: String,
    /// True to undo it instead of letting it go.
    #[serde(default)]
    pub reject: bool,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// What happens now, for a person.
    pub message: String,
}

/// The body of `POST /api/v1/rescan`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RescanRequest {
    /// One share; none for all.
    #[serde(default)]
    pub share: Option<String>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescan {
    /// The shares of which a scan begins now.
    pub shares: Vec<String>,
}

/// The answer to `POST /api/v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What changed, a line each, for a person.
    pub changes: Vec<String>,
    /// What was changed in the file but takes effect with the next start only, a line each.
    pub at_next_start: Vec<String>,
}

/// The body of `POST /api/v1/verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// One share; none for all.
    #[serde(default)]
    pub share: Option<String>,
    /// Against one peer; none for all.
    #[serde(default)]
    pub peer: Option<String>,
    /// How long to wait for what is in flight, milliseconds.
    pub timeout_ms: u64,
}

/// The answer to it, and what `recsync verify --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Whether every check found the two trees the same.
    pub consistent: bool,
    /// One for each share and peer.
    pub checks: Vec<VerifyCheck>,
}

/// The comparison of one share with one peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyCheck {
    /// The share.
    pub share: String,
    /// The peer.
    pub peer: String,
    /// Files compared.
    pub files: u64,
    /// Their size here.
    pub bytes: u64,
    /// Paths that were still on their way when the time was over; no differences.
    pub in_flight: u64,
    /// How long it took.
    pub seconds: f64,
    /// The differences.
    pub differences: Vec<Difference>,
}

/// A path that is not the same here and there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The path.
    pub path: String,
    /// How it differs.
    pub kind: DifferenceKind,
    /// What is here; none if nothing.
    pub local: Option<VerifySide>,
    /// What is there; none if nothing.
    pub peer: Option<VerifySide>,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// It is there only.
    MissingHere,
    /// It is here only.
    MissingOnPeer,
    /// The bytes differ.
    Content,
    /// Mtime, mode or owner differ.
    Metadata,
    /// A file here is a directory there, or the like.
    Type,
    /// It could not be read on one side.
    Unreadable,
}

/// What one node has at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifySide {
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group by name that it stands for; none if they are not known or not synced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// BLAKE3 in hex; none for what is no file, or could not be read.
    pub hash: Option<String>,
}

/// The body of `POST /api/v1/wait`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitRequest {
    /// The file.
    pub path: Named,
    /// On this peer; none for any.
    #[serde(default)]
    pub peer: Option<String>,
    /// On all peers.
    #[serde(default)]
    pub all_peers: bool,
    /// For how long, milliseconds.
    pub timeout_ms: u64,
}

/// The answer to it: how the file was when it was durable, or when the time was over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// Its share.
    pub share: String,
    /// The path.
    pub path: String,
    /// Whether it is durable where it was to be, as it is here.
    pub durable: bool,
    /// Bytes, once it is durable here.
    pub size: Option<u64>,
    /// BLAKE3 in hex, once it is durable here; none for what is no file.
    pub hash: Option<String>,
    /// Why it is not durable here, if it is not.
    pub why: Option<String>,
    /// How it is on the peers that were asked for.
    pub peers: Vec<WaitedPeer>,
}

/// How a file is on one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitedPeer {
    /// The peer.
    pub peer: String,
    /// Whether it is durable there, as it is here.
    pub durable: bool,
    /// Why not, as far as this node knows.
    pub why: Option<String>,
}

/// A path as a person gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Absolute, or relative to `from` if it lies in a share so, else to the share.
    pub path: String,
    /// The directory that the person is in.
    #[serde(default)]
    pub from: Option<String>,
}

/// The body of `POST /api/v1/trash/list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrashRequest {
    /// One share; none for all.
    #[serde(default)]
    pub share: Option<String>,
    /// What was this, or lay below it.
    #[serde(default)]
    pub path: Option<Named>,
    /// [`TrashPage::next`] of the answer before.
    #[serde(default)]
    pub after: Option<TrashCursor>,
}

/// Where a list of the trash goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrashCursor {
    /// In this share.
    pub share: String,
    /// Before this time, nanoseconds since 1970.
    pub since_ns: i64,
    /// Before this number.
    pub id: u64,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashPage {
    /// A part of the trash, the newest first; it may be empty although there is more.
    pub entries: Vec<TrashEntry>,
    /// Where it goes on; none at the end.
    pub next: Option<TrashCursor>,
}

/// Something in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashEntry {
    /// What to call it by, among those that had the same path.
    pub id: String,
    /// The share.
    pub share: String,
    /// The path that it had.
    pub path: String,
    /// What it is.
    pub kind: TrashKind,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 in hex, if it is known.
    pub hash: Option<String>,
    /// When it was displaced.
    pub time: Timestamp,
    /// Why.
    pub why: TrashWhy,
    /// By which node, if it is known.
    pub by: Option<String>,
    /// Where it lies, below the share's root.
    pub file: String,
}

/// What something in the trash is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrashKind {
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// Why something is in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrashWhy {
    /// A peer deleted it.
    Deleted,
    /// A peer's version took its place.
    Replaced,
    /// A person resolved a conflict here, and chose the other version.
    Resolved,
    /// Not known: it was found there.
    Found,
}

/// The body of `POST /api/v1/trash/restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// Its share, if the path does not say.
    #[serde(default)]
    pub share: Option<String>,
    /// The file or directory that it was.
    pub path: Named,
    /// [`TrashEntry::id`]; none for the one displaced last.
    #[serde(default)]
    pub at: Option<String>,
    /// Another name for it.
    #[serde(default)]
    pub to: Option<Named>,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// How many are back.
    pub count: u64,
    /// Where; the first thousand.
    pub paths: Vec<String>,
    /// How many are not.
    pub failed_count: u64,
    /// Which and why; the first thousand.
    pub failed: Vec<NotRestored>,
}

/// Something that stays in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRestored {
    /// The path that it had.
    pub path: String,
    /// Which one.
    pub id: String,
    /// Why it is not back.
    pub why: String,
}

/// The body of `POST /api/v1/trash/purge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// One share; none for all.
    #[serde(default)]
    pub share: Option<String>,
    /// What was this, or lay below it. Without it, `all` or `older_than_seconds` is required.
    #[serde(default)]
    pub path: Option<Named>,
    /// [`TrashEntry::id`]; none for all that had the path.
    #[serde(default)]
    pub at: Option<String>,
    /// What has been there for so long.
    #[serde(default)]
    pub older_than_seconds: Option<u64>,
    /// Everything.
    #[serde(default)]
    pub all: bool,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// How many are gone.
    pub count: u64,
    /// Their size.
    pub bytes: u64,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
}

/// The body of `POST /api/v1/conflicts/list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictsRequest {
    /// One share; none for all.
    #[serde(default)]
    pub share: Option<String>,
    /// A file, a copy, or a directory.
    #[serde(default)]
    pub path: Option<Named>,
    /// [`ConflictPage::next`] of the answer before.
    #[serde(default)]
    pub after: Option<String>,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictPage {
    /// A part of the copies, by directory and name; it may be empty although there are more.
    pub copies: Vec<ConflictCopy>,
    /// Where it goes on; none at the end.
    pub next: Option<String>,
}

/// A conflict copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictCopy {
    /// The share.
    pub share: String,
    /// The name that it lost.
    pub path: String,
    /// Its own.
    pub copy: String,
    /// Who wrote it.
    pub node: String,
    /// Bytes.
    pub size: u64,
    /// When it was written.
    pub mtime: Timestamp,
    /// BLAKE3 in hex; none for a symbolic link.
    pub hash: Option<String>,
}

/// The body of `POST /api/v1/conflicts/show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictRequest {
    /// The file, or a copy of it.
    pub path: Named,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictView {
    /// The share.
    pub share: String,
    /// The name that all of them wanted.
    pub path: String,
    /// The winner, if it is there still, and the copies.
    pub sides: Vec<ConflictSide>,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictSide {
    /// Whether it has the name.
    pub role: ConflictRole,
    /// Its own name.
    pub path: String,
    /// Who wrote it, if that is known.
    pub node: Option<String>,
    /// Bytes.
    pub size: u64,
    /// When it was written.
    pub mtime: Timestamp,
    /// BLAKE3 in hex; none for what is no file.
    pub hash: Option<String>,
    /// For a copy, whether its content is the winner's; none if there is no winner.
    pub same: Option<bool>,
}

/// Which side of a conflict a version is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictRole {
    /// It has the name.
    Winner,
    /// It lost it.
    Copy,
}

/// What is to be kept of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// What has the name; the copies go to the trash.
    Winner,
    /// The copy: it gets the name, and what has it goes to the trash.
    Copy,
    /// Both: the copies get ordinary names.
    Both,
}

/// The body of `POST /api/v1/conflicts/resolve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// Its share, if the path does not say.
    #[serde(default)]
    pub share: Option<String>,
    /// One copy; or a file, for all of its copies; or a directory, for all below it.
    pub path: Named,
    /// What is kept.
    pub keep: Keep,
}

/// The answer to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Names that a copy has got back.
    pub kept: Vec<String>,
    /// What went to the trash of this node.
    pub trashed: Vec<String>,
    /// Copies that have ordinary names now.
    pub renamed: Vec<Renamed>,
    /// Copies that are as they were, and why.
    pub failed: Vec<NotResolved>,
}

/// A copy that has another name now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The name that it had.
    pub from: String,
    /// Its name.
    pub to: String,
}

/// A copy that is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotResolved {
    /// Which.
    pub path: String,
    /// Why.
    pub why: String,
}

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What, why, and what to do.
    pub error: String,
}
