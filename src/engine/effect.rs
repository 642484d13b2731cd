//! What goes into the engine and what comes out of it: plain data, both ways.

use std::sync::Arc;
use std::time::Duration;

use recsync_proto::message::{FileRef, Lane, Moved, ShareMessage};
use recsync_proto::{Content, Hash, NodeName, Owner, Record, Seq, SharePath};

use crate::index::{Installed, Intent};
use crate::tree::{Fingerprint, OwnerLeft, Place, RootError, TreeError};

/// The time, as an argument: the engine reads no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, nanoseconds since 1970. May jump.
    pub wall_ns: i64,
    /// Monotonic clock, since the daemon's start.
    pub mono: Duration,
}

/// Why a path may have changed: decides how long it must be quiet and how closely it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// Attributes changed (`IN_ATTRIB`): a stat will do if size, mtime and inode are the same.
    Attributes,
    /// Created, or moved here.
    Created,
    /// Closed after writing, found different by a scan, or unknown: the bytes are read.
    Written,
    /// Deleted.
    Deleted,
    /// Moved away: its new name may be about to be found.
    MovedAway,
}

/// Who noticed a change, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// The watcher, at this monotonic time.
    Watcher(Duration),
    /// The watcher, at this monotonic time: in a directory that was moved here with it, or where an
    /// operation is under way.
    Along(Duration),
    /// A scan; the change is as old as the object's ctime.
    Scan,
}

impl Noticed {
    /// Returns the lane of such a change: what the watcher saw itself is new, the rest was there.
    pub fn lane(self) -> Lane {
        match self {
            Noticed::Watcher(_) => Lane::Live,
            Noticed::Along(_) | Noticed::Scan => Lane::Bulk,
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A path may have changed.
    Dirty {
        /// Which.
        path: SharePath,
        /// How.
        hint: Hint,
        /// By whom.
        noticed: Noticed,
    },
    /// A look asked for by [`Effect::Look`] is done.
    Looked {
        /// Which path.
        path: SharePath,
        /// What it showed.
        look: Look,
    },
    /// An operation asked for by [`Effect::Apply`] is done.
    Applied {
        /// Its number.
        id: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// The bytes asked for by [`Effect::Fetch`] are here, or cannot be had.
    Fetched {
        /// The path they are for.
        path: SharePath,
        /// Which bytes.
        hash: Hash,
        /// The bytes, or why there are none.
        source: Result<Source, NotFetched>,
    },
    /// A link to a peer is up; both lanes.
    PeerUp(NodeName),
    /// It is down.
    PeerDown(NodeName),
    /// A peer said something about this share.
    Message {
        /// Who.
        peer: NodeName,
        /// On which lane.
        lane: Lane,
        /// What. `GetOutline`, `GetBlocks`, `Outline`, `Block`, `Gone` and the digests go elsewhere.
        message: ShareMessage,
    },
    /// A directory is watched from now on: what went out of it before was heard by nobody.
    Watched(SharePath),
    /// A directory and all below it are to be compared with the index: answered with
    /// [`Effect::Scan`], once nothing of what was seen of them before is yet to enter the index.
    Scan(SharePath),
    /// A scan of this directory ended; what of it could not be looked at has been told.
    Scanned(SharePath),
    /// A scan could not look at a path and all below it, or could not be made there: it is asked for
    /// again, with growing delays.
    Unreadable(SharePath),
    /// Intents of earlier runs that could not be settled at the start are settled now.
    Settled {
        /// Those whose exchange was made, durably.
        exchanged: Vec<Intent>,
        /// Those of which nobody can tell that any more.
        perhaps: Vec<Intent>,
        /// Numbers of the others.
        done: Vec<u64>,
    },
    /// The operator lets go what the mass-delete guard holds (true) or undoes it (false).
    Decide {
        /// True to let the deletes go.
        confirm: bool,
    },
    /// How much may be received before the disk is as full as it may be.
    Room {
        /// Bytes; none: nothing new is received until this is said again.
        bytes: Option<u64>,
    },
    /// Time passed; sent at or after [`crate::engine::Engine::next_due`].
    Tick,
}

/// What a look at a path showed.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// Nothing there, under a readable parent.
    Absent,
    /// Exactly what is installed, ctime included: nothing to do, nothing was read.
    Unchanged,
    /// A stable object. A file had no writer, was read whole between two equal stats, and its
    /// bytes are durable; one whose bytes cannot have changed keeps its installed content unread.
    Found {
        /// What it holds.
        content: Content,
        /// How it stats.
        fingerprint: Fingerprint,
        /// Its owner and group by name, if the names can be had.
        owner: Option<Owner>,
    },
    /// A [`Look::Found`] file whose last bytes are all zero: so a file may look whose blocks did not
    /// reach the disk before the machine went down.
    Hollow(Box<Look>),
    /// Open for writing: the close will tell.
    Busy,
    /// It changed while it was read, or changes too fast to be told apart: look again soon.
    Unstable,
    /// Without the kernel's word on writers: too young to be trusted, look again after this long.
    TooFresh(Duration),
    /// A rule has it left alone.
    Ignored,
    /// A socket, FIFO or device; never synced.
    Special,
    /// Larger than the protocol can carry, or a name that cannot be synced.
    Unsyncable(String),
    /// It could not be looked at; no evidence of anything.
    Unknown(TreeError),
}

impl Look {
    /// Returns what a hollow file is found to be, and any other look as it is.
    pub fn found(&self) -> &Look {
        match self {
            Look::Hollow(found) => found,
            look => look,
        }
    }
}

/// One guarded change to the tree: done only if the path still holds what is expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Op {
    /// Unique for ever within an index; names temporary files.
    pub id: u64,
    /// Where.
    pub path: SharePath,
    /// What must be there: this object, or nothing.
    pub expect: Option<Fingerprint>,
    /// What to do.
    pub action: Action,
    /// Where an expected object goes that is replaced or removed (not for an empty directory).
    pub displaced: Option<Place>,
    /// Where another object is kept that came out in its place and has no way back.
    pub beside: SharePath,
}

/// Mode of directories that are made only because something is to be below them, alike on all nodes; their
/// own record brings the real one. FreeSWITCH makes its directories so.
pub const IMPLIED_DIR_MODE: u32 = 0o750;

/// What an operation does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Puts a file there.
    File {
        /// Bytes.
        size: u64,
        /// BLAKE3 of them, checked again for every source but verified staging.
        hash: Hash,
        /// Modification time to set.
        mtime_ns: i64,
        /// Permission bits to set.
        mode: u32,
        /// Owner and group to set, if any.
        owner: Option<Owner>,
        /// Where the bytes come from.
        source: Source,
    },
    /// Makes a directory.
    Dir {
        /// Permission bits to set.
        mode: u32,
        /// Owner and group to set, if any.
        owner: Option<Owner>,
    },
    /// Makes a symbolic link.
    Symlink {
        /// Its target.
        target: Vec<u8>,
        /// Modification time to set.
        mtime_ns: i64,
        /// Owner and group to set, if any.
        owner: Option<Owner>,
    },
    /// Takes away what is there: a file or link to `displaced`, a directory only if empty.
    Remove,
    /// Renames the object at `from` to here and sets its metadata.
    Move {
        /// The old name.
        from: SharePath,
        /// What must be there.
        from_expect: Fingerprint,
        /// Modification time to set.
        mtime_ns: i64,
        /// Permission bits to set; none leaves them (symbolic links).
        mode: Option<u32>,
        /// Owner and group to set, if any.
        owner: Option<Owner>,
    },
    /// Sets metadata alone.
    Metadata {
        /// Permission bits, if they differ.
        mode: Option<u32>,
        /// Modification time, if it differs.
        mtime_ns: Option<i64>,
        /// Owner and group, if they differ.
        owner: Option<Owner>,
    },
}

/// Why bytes were not had from a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFetched {
    /// The peer says that it does not have them (any more).
    Gone,
    /// Its link is down, or it sent something else: in words.
    Peer(String),
    /// This disk does not take them.
    Disk(TreeError),
}

/// Where a file's bytes come from.
#[derive(Clone, PartialEq)]
pub enum Source {
    /// Memory.
    Inline(Arc<Vec<u8>>),
    /// A complete file in `.recsync/tmp`, every block of it verified, not yet synced.
    Staged(String),
    /// Another file of this share that is believed to hold the same bytes.
    Local(SharePath),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Inline(bytes) => write!(f, "Inline({} B)", bytes.len()),
            Source::Staged(name) => write!(f, "Staged({name})"),
            Source::Local(path) => write!(f, "Local({path})"),
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Done and durable: file, directory and names synced.
    Done(Done),
    /// Done, but perhaps not durable, or no longer to be seen: the next look tells. What it left is how
    /// it should stat.
    Unsure(Done),
    /// The path, or the source of a move, holds something else than expected; the tree is as it was.
    Changed,
    /// The object to be replaced or removed is open for writing; the tree is as it was.
    Writer,
    /// The bytes to be put there are not what they should be; the tree is as it was.
    BadSource,
    /// The kernel refused; the tree is as it was.
    Failed(TreeError),
    /// The kernel refused the way back too: what came out may still have the operation's temporary
    /// name, which its intent accounts for, until it is settled ([`Effect::Settle`]).
    Stuck,
}

/// What a completed operation left.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Done {
    /// How the path stats now; none if it was removed.
    pub fingerprint: Option<Fingerprint>,
    /// Directories that had to be made above the path, and how they stat.
    pub made: Vec<(SharePath, Fingerprint)>,
    /// Where the displaced object is now, and how it stats there; in the trash, how it did before
    /// somebody wrote to it there.
    pub displaced: Option<(Place, Fingerprint)>,
    /// Why its owner could not be set, if so: all else was.
    pub owner_left: Option<OwnerLeft>,
}

/// One thing to be done, once what the step wrote to the index is committed.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Look at a path, and answer with [`Input::Looked`].
    Look {
        /// Which.
        path: SharePath,
        /// What is installed there.
        installed: Option<Installed>,
        /// How closely.
        hint: Hint,
        /// For a new change or for the backlog.
        lane: Lane,
    },
    /// Change the tree, and answer with [`Input::Applied`].
    Apply {
        /// What to do.
        op: Op,
        /// For a new change or for the backlog.
        lane: Lane,
    },
    /// Get a file's bytes, and answer with [`Input::Fetched`].
    Fetch {
        /// The path they are for.
        path: SharePath,
        /// Which bytes, and where the peer has them.
        file: FileRef,
        /// Whom to ask.
        peer: NodeName,
        /// On which lane.
        lane: Lane,
        /// The sequence number of the record here: newer is more urgent.
        seq: Seq,
        /// A file here that may share blocks with it (its older version).
        basis: Option<SharePath>,
    },
    /// Tell a peer of a record, with its bytes read from the tree if `inline` is set.
    Announce(Box<Announce>),
    /// Say something to a peer.
    Send {
        /// To whom.
        peer: NodeName,
        /// On which lane.
        lane: Lane,
        /// What.
        message: ShareMessage,
    },
    /// Scan a directory and all below it.
    Scan(SharePath),
    /// Settle, with each scan that its path is in, what an operation of this run left under its temporary name, as
    /// what a crash left and recovery could not settle.
    Settle(Intent),
    /// Something worth counting or telling.
    Event(Event),
}

/// A record on its way to a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct Announce {
    /// To whom.
    pub peer: NodeName,
    /// On which lane.
    pub lane: Lane,
    /// Position in our log.
    pub seq: Seq,
    /// The path.
    pub path: SharePath,
    /// Its record.
    pub record: Record,
    /// The installed object whose bytes are to travel inside, if they still match.
    pub inline: Option<Installed>,
    /// The other half of a rename.
    pub moved_from: Option<Moved>,
}

/// Something worth counting, logging or telling a person.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A change made here was noted in the index.
    Noted {
        /// The path.
        path: SharePath,
        /// Its position in the log.
        seq: Seq,
    },
    /// A look found what recsync itself had put there.
    EchoSuppressed,
    /// A peer has it, durable.
    Replicated {
        /// Who.
        peer: NodeName,
        /// The path.
        path: SharePath,
        /// Since the watcher noticed, if it did in this run.
        took: Option<Duration>,
    },
    /// A change of a peer's was applied here.
    Applied {
        /// Whose, if it is known which peer told.
        peer: Option<NodeName>,
        /// The path.
        path: SharePath,
        /// What was done.
        kind: AppliedKind,
        /// Bytes that need not cross the wire for it, and why.
        saved: Option<(Saved, u64)>,
    },
    /// A file whose bytes the disk changed, or the machine that went down: the recorded version is
    /// fetched back, and what is there is kept as a conflict copy; in the trash if it is empty.
    Suspect {
        /// The path.
        path: SharePath,
        /// How many bytes it had.
        had: u64,
        /// How many it has.
        has: u64,
    },
    /// A version was given up: no node has its bytes any more.
    GivenUp {
        /// The path.
        path: SharePath,
        /// The version, as the name of a conflict copy shows it.
        version: String,
        /// How many bytes it had.
        size: u64,
        /// Who wrote it.
        node: NodeName,
    },
    /// Two versions clashed; both are kept.
    Conflict {
        /// The name that both wanted.
        path: SharePath,
        /// Where the losing version is now.
        copy: SharePath,
    },
    /// A path could not be looked at or changed; it is tried again with growing delays.
    Trouble {
        /// The path.
        path: SharePath,
        /// Why, for a person.
        why: String,
        /// When next.
        retry: Duration,
        /// For the error counter's `kind`: io, space, denied, name, source.
        kind: &'static str,
    },
    /// An object that is never synced (socket, FIFO, device, unsyncable name).
    Skipped {
        /// The path.
        path: SharePath,
        /// Why, for a person.
        why: String,
    },
    /// An owner that a peer told could not be set here: the object keeps another, and stands for
    /// that one.
    OwnerLeft {
        /// The path.
        path: SharePath,
        /// The owner wanted.
        owner: Owner,
        /// Why it could not be set.
        why: OwnerLeft,
    },
    /// The share stopped or goes on.
    Guard(GuardEvent),
    /// A peer's index is another than before, or was rolled back.
    PeerReset {
        /// Who.
        peer: NodeName,
        /// What was found, for a person.
        why: String,
    },
}

/// What a change by a peer did here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppliedKind {
    /// A new name.
    Create,
    /// Other content under a name.
    Update,
    /// A name gone.
    Delete,
    /// A name changed.
    Rename,
    /// Mode, mtime or owner alone.
    Metadata,
}

/// Why bytes did not have to cross the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Saved {
    /// The same content was here under another name.
    Dedup,
    /// It was a rename.
    Rename,
    /// Blocks of the older version were reused.
    Delta,
}

/// A guard's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardEvent {
    /// The share stopped: its root is not fit to be touched.
    RootLost(RootError),
    /// The root is back.
    RootBack,
    /// Deletes are held back until the operator decides.
    DeletesHeld {
        /// How many vanished within the window.
        gone: u64,
        /// Of how many.
        of: u64,
    },
    /// The operator decided.
    DeletesReleased {
        /// True if the deletes may go, false if they were undone.
        confirmed: bool,
    },
}
