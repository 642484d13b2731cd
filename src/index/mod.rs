//! The durable index of one share: what the cluster knows of each path (G), what this node last
//! saw or put there (I), the log that peers follow, and the intents of the apply under way.
//!
//! Outstanding work is derived, not stored: `pending` marks an entry whose winner is not
//! installed, and what a peer lacks is the log after its acknowledged position.
//!
//! Two implementations, one suite (`tests`): [`Store`] on SQLite (WAL, synchronous=FULL, one
//! writer, group commit by the caller), [`Memory`] for tests and the simulator.
//!
//! **Invariant:** what a committed transaction wrote survives a power cut; a sequence number is
//! never used twice within an epoch; an entry's log position is readable no earlier than the entry.
//! **May not:** decide what to write.
#![forbid(unsafe_code)]

mod error;
mod memory;
mod migrate;
mod reader;
mod row;
mod rules;
mod store;
#[cfg(test)]
mod tests;

use recsync_proto::{Content, Epoch, Hash, NodeName, Owner, Record, Seq, SharePath};
use thiserror::Error;

use crate::tree::Fingerprint;

pub use memory::Memory;
pub use reader::Reader;
pub use store::Store;

/// Why the index did not answer or store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IndexError {
    /// The state directory's filesystem is full.
    #[error("the index at {path} cannot grow: no space left; free space there")]
    NoSpace {
        /// The database file.
        path: String,
    },
    /// The file is damaged, or no index.
    #[error(
        "the index at {path} is damaged ({why}); move it away, recsync will build it again from the share"
    )]
    Damaged {
        /// The database file.
        path: String,
        /// The database's words.
        why: String,
    },
    /// It was made by a newer recsync.
    #[error(
        "the index at {path} has schema {found}, this recsync knows up to {known}; upgrade recsync"
    )]
    Newer {
        /// The database file.
        path: String,
        /// Its schema version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Another process has it open.
    #[error("the index at {path} is in use by another recsync")]
    InUse {
        /// The database file.
        path: String,
    },
    /// Anything else, with the database's words.
    #[error("the index at {path}: {why}")]
    Other {
        /// The database file.
        path: String,
        /// The database's words.
        why: String,
    },
}

/// What this node last saw or put at a path (I).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What it held.
    pub content: Content,
    /// How a stat showed it then.
    pub fingerprint: Fingerprint,
    /// The modification time that it stands for, nanoseconds since 1970: the record's, even where
    /// the filesystem stores it coarser.
    pub mtime_ns: i64,
    /// The permission bits that it stands for.
    pub mode: u32,
    /// The owner and group that it stands for: the record's, even where they may not be set here;
    /// none if they are not known.
    pub owner: Option<Owner>,
}

/// Everything that this node knows of one path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// G: the cluster's merged record.
    pub record: Record,
    /// I: what is on this disk as far as known; none if nothing is.
    pub installed: Option<Installed>,
    /// The record's position in this node's log; zero if it is not in the log (only `installed`
    /// is known, or nothing).
    pub seq: Seq,
    /// The peer from which the record came exactly as it is; that peer need not be told of it.
    /// None for a record that holds something of this node's or of several peers.
    pub via: Option<NodeName>,
    /// When the change was noticed, nanoseconds since 1970: lag counts from here.
    pub changed_ns: i64,
    /// True if the winner of `record` is not what is installed: there is something to do.
    pub pending: bool,
    /// True if it was deleted here and lives on elsewhere (`deletes = "keep"`): the winner is not
    /// put here until it is another one.
    pub let_go: bool,
}

/// One position of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The path; the entry says the rest.
    pub path: SharePath,
    /// Its entry.
    pub entry: Entry,
}

/// A file-system mutation that replaces or removes, written down before it happens; or one under a free name that
/// ended in doubt, and displaced nothing: it has its own path as the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The operation's number; also the name of its temporary file.
    pub id: u64,
    /// The path it acts on.
    pub path: SharePath,
    /// What is expected there.
    pub expect: Fingerprint,
    /// Where the expected object is to go.
    pub displaced: crate::tree::Place,
    /// The new content's hash if a file is installed: tells the staged object from the displaced.
    pub staged: Option<Content>,
    /// True once recovery has seen that the mutation was made: what is left to do is to look at the path.
    pub made: bool,
}

/// What this node may have put under a free name, though the index says that nothing is installed there: written down
/// where nothing else would tell, once the winner of the path's record is another one, or before a directory is
/// made that no record tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unnoted {
    /// The path.
    pub path: SharePath,
    /// The position that the record had in the log; zero for a directory that was to be made for what is below it.
    pub seq: Seq,
    /// The record whose winner was to be put there.
    pub record: Record,
}

/// What the name of every conflict copy holds; the index finds them by it.
pub const COPY_MARK: &[u8] = b".conflict-";

/// Why something lies in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Somebody deleted it elsewhere.
    Deleted,
    /// Another version took its name.
    Replaced,
    /// A person resolved a conflict, and chose the other version.
    Resolved,
    /// It was found there: the index that knew is lost, or a crash came between.
    Found,
}

/// Something that lies in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// When it was displaced, nanoseconds since 1970.
    pub since_ns: i64,
    /// The operation that displaced it; with the time, what to call it by.
    pub id: u64,
    /// Its day's directory.
    pub day: String,
    /// Where it lies below that.
    pub at: SharePath,
    /// The name that it had.
    pub path: SharePath,
    /// What it held, if that is known.
    pub content: Option<Content>,
    /// How it stood in the trash then: one that differs now was written to since.
    pub stat: Fingerprint,
    /// Why it is there.
    pub why: Why,
    /// Whose doing it was, if that is known.
    pub peer: Option<NodeName>,
}

impl Trashed {
    /// Returns where it lies.
    pub fn place(&self) -> crate::tree::Place {
        crate::tree::Place::Trash { day: self.day.clone(), path: self.at.clone() }
    }

    /// Returns its place in the order of displacement.
    pub fn key(&self) -> TrashKey {
        TrashKey { since_ns: self.since_ns, id: self.id }
    }
}

/// A place in the order in which things came into the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrashKey {
    /// When, nanoseconds since 1970.
    pub since_ns: i64,
    /// By which operation.
    pub id: u64,
}

impl TrashKey {
    /// Before everything.
    pub const FIRST: TrashKey = TrashKey { since_ns: i64::MIN, id: 0 };
    /// After everything.
    pub const LAST: TrashKey = TrashKey { since_ns: i64::MAX, id: u64::MAX };
}

/// How the run before this one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastStop {
    /// It was told to, or there was none.
    Clean,
    /// The process died; what it and others had written is in the kernel's hands still.
    Killed,
    /// The machine went down, or may have: what was not synced may be lost. It stays so until the
    /// files were looked at and this boot is set.
    Down,
}

impl LastStop {
    fn of(clean: bool, boot_then: Option<&str>, boot_now: &str) -> Self {
        match (clean, boot_then == Some(boot_now)) {
            (true, _) => LastStop::Clean,
            (false, true) => LastStop::Killed,
            (false, false) => LastStop::Down,
        }
    }
}

/// What is known of one peer in one share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerCursor {
    /// The peer's epoch and the last head that it told.
    pub seen: Option<(Epoch, Seq)>,
    /// Everything in our log up to here is acknowledged by that epoch.
    pub acked: Seq,
}

/// One of the two mass-delete guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// Files that vanish here.
    Local,
    /// Files that peers delete here.
    Remote,
}

/// What a guard is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stand {
    /// It counts.
    #[default]
    Watching,
    /// Too many: the rest waits for the operator.
    Tripped {
        /// How many vanished within the window, with the first that waits.
        gone: u64,
        /// Of how many files.
        of: u64,
    },
    /// The operator confirmed: those that wait may go.
    Released,
    /// The operator rejected: those that wait are put back.
    Restoring,
}

/// What a guard remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuardState {
    /// What it is about to do.
    pub stand: Stand,
    /// Deletes that passed, by the wall clock's second, ascending.
    pub passed: Vec<(i64, u64)>,
}

/// What a peer lacks of our log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Records (held ones too are counted no more).
    pub files: u64,
    /// Bytes of their winning files.
    pub bytes: u64,
    /// When the oldest was noticed, nanoseconds since 1970.
    pub oldest_ns: Option<i64>,
}

/// One durable fact to store. The engine returns them as effects; nothing else writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Replaces a path's entry; one with an empty record and nothing installed is removed. The
    /// acks of a log position that the path leaves are forgotten; `head` never falls.
    ///
    /// Refused: the root, a record over the codec's limits, a position beyond 2^62 or of another
    /// path.
    Entry(SharePath, Entry),
    /// Notes a mutation before it happens.
    Intent(Intent),
    /// Forgets it.
    IntentDone(u64),
    /// Notes what may be at a path that is not noted as installed. Replaces what is known of its position.
    Unnoted(Unnoted),
    /// Forgets all that may be at a path.
    Noted(SharePath),
    /// A peer acknowledged one position out of order. `held`: merged there, not installed; this is
    /// remembered below the cursor too, until an ack says otherwise. An ack for a position that
    /// is nobody's (any more), or a plain one at or below the cursor, leaves nothing behind.
    Acked {
        /// Who.
        peer: NodeName,
        /// Which position of our log.
        seq: Seq,
        /// Merged but not installed.
        held: bool,
    },
    /// Replaces a peer's cursor; acks out of order at or below `acked` are forgotten but for held
    /// ones. Refused: an `acked` beyond 2^62.
    Peer(NodeName, PeerCursor),
    /// A peer has another index than before: nothing counts any more as having come from it, or as
    /// acknowledged by it out of order.
    /// Takes time in proportion to the number of entries.
    Unlearned(NodeName),
    /// A hybrid logical clock reading that was used; the highest is kept.
    Clock(u64),
    /// What a guard is about to do.
    Stand(Guard, Stand),
    /// So many deletes passed a guard in a second of the wall clock; none: the second is forgotten.
    Passed {
        /// Which guard.
        guard: Guard,
        /// Seconds since 1970.
        second: i64,
        /// Deletes.
        count: u64,
    },
    /// Something came into the trash. Replaces what is known of its key and of its place.
    Trashed(Trashed),
    /// It lies there no more.
    TrashGone(TrashKey),
}

/// Reads of the index. A reader within a transaction sees its writes.
pub trait IndexRead {
    /// Returns this index's epoch.
    fn epoch(&self) -> Epoch;
    /// Returns the last sequence number used.
    fn head(&self) -> Result<Seq, IndexError>;
    /// Returns the highest hybrid logical clock reading used.
    fn clock(&self) -> Result<u64, IndexError>;
    /// Returns a path's entry.
    fn entry(&self, path: &SharePath) -> Result<Option<Entry>, IndexError>;
    /// Returns what is installed directly in a directory under names after `after` (empty: all), by
    /// name, at most `limit`; an owner that is not known of it is the one that its record tells.
    fn installed_in(
        &self,
        dir: &SharePath,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Installed)>, IndexError>;
    /// True if a path below `dir` has a record with a value: the directory is implied.
    fn has_live_below(&self, dir: &SharePath) -> Result<bool, IndexError>;
    /// True if something is installed below `dir`.
    fn has_installed_below(&self, dir: &SharePath) -> Result<bool, IndexError>;
    /// Returns the first directory in which something is installed directly, among those below `dir`
    /// whose bytes are not less than `from`. Bytes are not path order: `a-b` comes before `a/b`.
    fn next_installed_dir(
        &self,
        dir: &SharePath,
        from: &[u8],
    ) -> Result<Option<SharePath>, IndexError>;
    /// Returns paths where a file with these bytes is installed, in no particular order, at most
    /// `limit`.
    fn installed_with(&self, hash: &Hash, limit: usize) -> Result<Vec<SharePath>, IndexError>;
    /// Returns paths whose installed object has this inode, in no particular order, at most `limit`.
    fn installed_inode(
        &self,
        fs: u64,
        ino: u64,
        limit: usize,
    ) -> Result<Vec<SharePath>, IndexError>;
    /// Returns the log from `from` (inclusive) to `until` (inclusive), ascending, at most `limit`.
    fn log(&self, from: Seq, until: Seq, limit: usize) -> Result<Vec<Logged>, IndexError>;
    /// Returns the path at a log position, if the position is still somebody's.
    fn at(&self, seq: Seq) -> Result<Option<SharePath>, IndexError>;
    /// Returns pending paths with log positions below `below`, descending (newest first), at most `limit`.
    fn pending(&self, below: Seq, limit: usize) -> Result<Vec<Logged>, IndexError>;
    /// Returns the number of pending paths.
    fn pending_files(&self) -> Result<u64, IndexError>;
    /// Returns the number of paths with a file installed, and of their bytes.
    fn installed_files(&self) -> Result<(u64, u64), IndexError>;
    /// Returns all intents, by number.
    fn intents(&self) -> Result<Vec<Intent>, IndexError>;
    /// Returns all that may be in place and is not noted as installed, by path, then position.
    fn unnoted(&self) -> Result<Vec<Unnoted>, IndexError>;
    /// Returns what a guard remembers.
    fn guard(&self, guard: Guard) -> Result<GuardState, IndexError>;
    /// Returns what is known of a peer.
    fn peer(&self, peer: &NodeName) -> Result<PeerCursor, IndexError>;
    /// True if the peer acknowledged this position out of order (above its cursor), held or not.
    fn is_acked(&self, peer: &NodeName, seq: Seq) -> Result<bool, IndexError>;
    /// True if the peer merged this position but keeps it from its tree, above its cursor or not.
    fn is_held(&self, peer: &NodeName, seq: Seq) -> Result<bool, IndexError>;
    /// True if a peer whose cursor stands at `acked` acknowledged this position as durable there: not merged
    /// only. Says nothing of a record that came from this peer, which acknowledges none.
    fn is_durable(&self, peer: &NodeName, acked: Seq, seq: Seq) -> Result<bool, IndexError> {
        let told = seq <= acked || self.is_acked(peer, seq)?;
        Ok(told && !self.is_held(peer, seq)?)
    }
    /// Returns how far the cursor may move: the position before the first one after `acked` that
    /// is neither acknowledged by the peer nor came from it; the head if there is none.
    fn acked_through(&self, peer: &NodeName, acked: Seq) -> Result<Seq, IndexError>;
    /// Returns what the peer lacks: positions after its cursor, neither acknowledged nor from it.
    fn backlog(&self, peer: &NodeName) -> Result<Backlog, IndexError>;
    /// Returns tombstones at positions up to `through` with nothing installed, by position, at
    /// most `limit`.
    fn tombstones(&self, through: Seq, limit: usize) -> Result<Vec<SharePath>, IndexError>;
    /// Returns what is installed under a name that holds [`COPY_MARK`], by directory and then name,
    /// after a path (the root: all), at most `limit`.
    fn copies(&self, after: &SharePath, limit: usize) -> Result<Vec<Logged>, IndexError>;
    /// Returns how many there are.
    fn copies_count(&self) -> Result<u64, IndexError>;
    /// Returns what lies in the trash after a key, the oldest first, at most `limit`.
    fn trash_after(&self, after: TrashKey, limit: usize) -> Result<Vec<Trashed>, IndexError>;
    /// Returns what lies in the trash before a key, the newest first, at most `limit`.
    fn trash_before(&self, before: TrashKey, limit: usize) -> Result<Vec<Trashed>, IndexError>;
    /// Returns what is known to lie at a place in the trash.
    fn trash_at(&self, day: &str, at: &SharePath) -> Result<Option<Trashed>, IndexError>;
    /// Returns the number of objects in the trash, and of their bytes.
    fn trash_total(&self) -> Result<(u64, u64), IndexError>;
}

/// An index that can be written: writes are visible to reads at once and durable at `commit`.
///
/// After an error of either call everything written since the last commit is gone, from reads
/// too: what was decided on it (an engine's state in memory) must be dropped with it.
pub trait Index: IndexRead {
    /// Stores a fact in the open transaction.
    ///
    /// # Errors
    /// If the fact breaks a rule told at [`Write`], or the database fails.
    fn write(&mut self, write: &Write) -> Result<(), IndexError>;
    /// Makes everything written since the last commit durable.
    ///
    /// # Errors
    /// If the database fails. A power cut right after such an error may still bring the whole of
    /// the transaction back, never a part of it.
    fn commit(&mut self) -> Result<(), IndexError>;
}
