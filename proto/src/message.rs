//! Every frame that may pass between two nodes, one variant each.
//!
//! **Invariant:** no recursive type, no zero-sized element, no map or `usize` in here: a decoder
//! with a byte limit is then bounded in memory and time (PROTOCOL.md, "Hostile bytes").

use bincode::{Decode, Encode};

use crate::hello::{Hello, Refusal};
use crate::owner::Owner;
use crate::path::{ShareName, SharePath};
use crate::record::{Hash, Record};
use crate::version::{Epoch, Seq};

/// Largest file whose bytes travel inside its announcement: 256 KiB.
pub const INLINE_LEN_MAX: u64 = 256 << 10;
/// Most announcements in one frame.
pub const ANNOUNCEMENTS_MAX: usize = 512;
/// Most block hashes in one [`ShareMessage::Outline`]: 512 KiB of them.
pub const OUTLINE_PAGE_MAX: u32 = 16_384;
/// Most blocks that one [`ShareMessage::GetBlocks`] asks for.
pub const BLOCKS_MAX: u32 = 16;
/// Largest file that can be synced: 1 TiB.
pub const FILE_SIZE_MAX: u64 = 1 << 40;
/// Longest block in bytes: 1 MiB.
pub const BLOCK_LEN_MAX: usize = 1 << 20;
/// Most acks in one frame.
pub const ACKS_MAX: usize = 65_536;
/// Most entries in one [`ShareMessage::Digests`].
pub const DIGESTS_MAX: usize = 2_048;
/// From here on the ids of questions for digests are about one name alone, which costs nobody a walk.
pub const ONE_NAME: u32 = 1 << 31;
/// Most epochs in a record's context, and most concurrent values in it.
pub const VERSIONS_MAX: usize = 256;
/// Most entries in a value's [`lacks`](crate::Value::lacks): all pairs of six nodes that are each other's
/// peers are 30.
pub const LACKS_MAX: usize = 32;
/// Most dots in a record's [`lost`](crate::Record::lost).
pub const LOST_MAX: usize = 64;
/// Longest target of a symbolic link in bytes (`PATH_MAX` less the NUL, limits.h).
pub const SYMLINK_LEN_MAX: usize = 4_095;
/// Most shares that one [`Ping`] tells of.
pub const LAGS_MAX: usize = 1_024;
/// Most capabilities in a hello.
pub const CAPABILITIES_MAX: usize = 64;

/// Returns the block size in bytes of a file of `size` bytes: 256 KiB up to 16 GiB, then 1 MiB.
/// A power of two and a multiple of BLAKE3's chunk, so that each block is a subtree.
pub fn block_size(size: u64) -> u64 {
    if size <= 16 << 30 { 256 << 10 } else { 1 << 20 }
}

/// Returns the number of blocks of a file of `size` bytes; the empty file has one empty block.
pub fn block_count(size: u64) -> u64 {
    size.div_ceil(block_size(size)).max(1)
}

/// One of a peer's two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Lane {
    /// Records of new changes, small files, acks, requests: never behind the bulk of the backlog.
    Live,
    /// The backlog's records and the blocks of files.
    Bulk,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// The first frame of each connection, both ways.
    Hello(Hello),
    /// Instead of a hello's answer, or at any time: this connection ends, and why.
    Refuse(Refusal),
    /// Keep-alive: each second, on each lane.
    Ping(Ping),
    /// Something about one share.
    Share {
        /// Which.
        share: ShareName,
        /// What.
        body: ShareMessage,
    },
}

/// A keep-alive and what rides on it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ping {
    /// The sender's wall clock, milliseconds since 1970: for the clock skew metric only.
    pub wall_ms: i64,
    /// The sender's lag towards the receiver, by share, in milliseconds, at most [`LAGS_MAX`]; none on
    /// the bulk lane.
    pub lag_ms: Vec<(ShareName, u64)>,
}

/// One frame about one share.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ShareMessage {
    /// Opens the share on a new link; nothing else about the share comes before it.
    Open(Open),
    /// Records, ascending by sequence number within a lane.
    Announce(Vec<Announcement>),
    /// The records of the log up to a position, as it was when the link came up, have all been
    /// announced: what needs the whole picture (a clash of kinds) may now be decided.
    CaughtUp {
        /// The position, inclusive.
        through: Seq,
    },
    /// What became of announced records.
    Acks(Vec<Ack>),
    /// Asks for block hashes of a file: answered by `Outline` or `Gone`.
    GetOutline {
        /// The asker's name for this question.
        id: u32,
        /// The bytes meant.
        file: FileRef,
        /// The first block.
        first: u32,
        /// How many blocks, at most [`OUTLINE_PAGE_MAX`].
        count: u32,
    },
    /// Asks for blocks of a file: answered by that many `Block`s in order, or `Gone`.
    GetBlocks {
        /// The asker's name for this question.
        id: u32,
        /// The bytes meant.
        file: FileRef,
        /// The first block.
        first: u32,
        /// How many blocks, at most [`BLOCKS_MAX`].
        count: u32,
    },
    /// Block hashes: BLAKE3 chaining values of the blocks as subtrees, in order.
    Outline {
        /// The question.
        id: u32,
        /// One for each block asked for.
        blocks: Vec<Hash>,
    },
    /// One block's bytes.
    Block {
        /// The question.
        id: u32,
        /// Which block of the file.
        index: u32,
        /// Its bytes, [`block_size`] of them but for the last block.
        bytes: Bytes,
    },
    /// The bytes asked for are not here any more (the path has been looked at again and, where it
    /// changed, will be announced).
    Gone {
        /// The question.
        id: u32,
    },
    /// Asks for a directory's digest list, of the tree as it is on disk now.
    GetDigests {
        /// The asker's name for this verification; from [`ONE_NAME`] on, for this question.
        id: u32,
        /// The directory, as bytes without a leading slash; empty is the share's root.
        dir: Vec<u8>,
        /// Entries after this name; empty is from the start. With an id from [`ONE_NAME`] on, the name that
        /// is asked for.
        after: Vec<u8>,
    },
    /// A page of a directory's digest list, ascending by name.
    Digests {
        /// The question.
        id: u32,
        /// The directory, as asked.
        dir: Vec<u8>,
        /// Its entries, at most [`DIGESTS_MAX`].
        entries: Vec<DigestEntry>,
        /// True if entries follow after the last one here.
        more: bool,
    },
}

/// One name in a directory, for verification.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DigestEntry {
    /// The name: one path component.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: DigestKind,
}

/// What verification compares of one name.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum DigestKind {
    /// A directory.
    Dir {
        /// Permission bits.
        mode: u32,
        /// Owner and group that it stands for, if they are synced.
        owner: Option<Owner>,
        /// BLAKE3 over its entries, recursively (PROTOCOL.md, "Verify").
        digest: Hash,
        /// Regular files in it, recursively.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Owner and group that it stands for, if they are synced.
        owner: Option<Owner>,
        /// Bytes.
        size: u64,
        /// Nanoseconds since 1970.
        mtime_ns: i64,
        /// The hash that the index holds for exactly this state of the file; none if it has
        /// changed since or was never hashed.
        hash: Option<Hash>,
    },
    /// A symbolic link.
    Symlink {
        /// Its target.
        target: Vec<u8>,
        /// Nanoseconds since 1970.
        mtime_ns: i64,
        /// Owner and group that it stands for, if they are synced.
        owner: Option<Owner>,
    },
    /// It could not be read.
    Unreadable,
}

/// The state of a share's log, exchanged when a link comes up.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Open {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The last sequence number that the sender has used.
    pub head: Seq,
    /// The receiver's epoch and head as the sender last saw them: if the receiver's are behind,
    /// its index was rolled back.
    pub seen: Option<(Epoch, Seq)>,
    /// The sender's name for this opening: another one whenever a link comes up, and when a share
    /// is started again on a link that is up.
    pub number: u64,
    /// The receiver's opening that this one answers; none if the sender knows of none.
    pub answers: Option<u64>,
}

/// The bytes of a file, or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub struct Bytes(pub Vec<u8>);

/// One record of the sender's log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Announcement {
    /// Its position in the sender's log.
    pub seq: Seq,
    /// The path.
    pub path: SharePath,
    /// All that the sender knows of the path.
    pub record: Record,
    /// The bytes of the winning file, if at most [`INLINE_LEN_MAX`].
    pub inline: Option<Bytes>,
    /// The path that it was renamed from.
    pub moved_from: Option<Moved>,
}

/// The other half of a rename: the old name's record, to be taken in together with the new one's.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Moved {
    /// The old name's position in the sender's log.
    pub seq: Seq,
    /// The old name.
    pub path: SharePath,
    /// All that the sender knows of the old name.
    pub record: Record,
}

/// What became of one announced record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// The record's position in the log of the ack's receiver.
    pub seq: Seq,
    /// How far it came.
    pub state: AckState,
}

/// How far an announced record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum AckState {
    /// Merged durably, but a guard, a failing path or a directory under its name keeps it from the tree for now.
    Held,
    /// On disk under its final name, synced (file and directory), and in the index.
    Durable,
}

/// The bytes of one file, as a record names them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct FileRef {
    /// Where the announcing node has them.
    pub path: SharePath,
    /// Bytes, at most [`FILE_SIZE_MAX`].
    pub size: u64,
    /// BLAKE3 of them.
    pub hash: Hash,
}
