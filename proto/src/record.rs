//! What the cluster knows of one path: a dotted version vector set of values, and its metadata.

use std::fmt;

use bincode::{Decode, Encode};

use crate::owner::Owner;
use crate::version::{Context, Dot, Stamp};

/// BLAKE3 of a file's bytes, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a name holds. Two contents are the same exactly if they are equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Content {
    /// A directory; all directories are the same content.
    Dir,
    /// A regular file's bytes.
    File {
        /// Bytes.
        size: u64,
        /// BLAKE3 of all of them.
        hash: Hash,
    },
    /// A symbolic link's target, as bytes; never followed.
    Symlink {
        /// What `readlink` gives, 1 to 4,095 bytes.
        target: Vec<u8>,
    },
}

impl Content {
    /// Returns the size in bytes of a file's content, 0 for other kinds.
    pub fn size(&self) -> u64 {
        match self {
            Content::File { size, .. } => *size,
            Content::Dir | Content::Symlink { .. } => 0,
        }
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self, Content::Dir)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Dir => f.write_str("dir"),
            Content::File { size, hash } => write!(f, "file {hash:?} ({size} B)"),
            Content::Symlink { target } => {
                write!(f, "symlink to {}", crate::path::Escaped(target))
            }
        }
    }
}

/// A last-writer register: of two writes the one with the greater stamp stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Register<T> {
    /// What was written.
    pub value: T,
    /// When and where.
    pub stamp: Stamp,
}

impl<T: Clone + Ord> Register<T> {
    /// Keeps the later of the two writes (equal stamps: the greater value, so that all agree).
    pub fn join(&mut self, other: &Register<T>) {
        if (&other.stamp, &other.value) > (&self.stamp, &self.value) {
            *self = other.clone();
        }
    }
}

/// One version of what a name holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Value {
    /// The event that wrote it.
    pub dot: Dot,
    /// Orders values; see [`Stamp`].
    pub stamp: Stamp,
    /// What it holds.
    pub content: Content,
    /// Modification time in nanoseconds since 1970, with the stamp of the last `touch`.
    /// For a directory it is best effort, for a symlink it is the link's own.
    pub mtime_ns: Register<i64>,
}

/// Everything the cluster knows of one path.
///
/// No value is a tombstone, one is the normal case, several are concurrent versions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Record {
    /// Every dot ever seen for this path.
    pub context: Context,
    /// The surviving values, by dot; each one's dot is in `context`.
    pub values: Vec<Value>,
    /// Permission bits (0o7777), apart from the values: metadata never conflicts with content.
    pub mode: Option<Register<u32>>,
    /// Owner and group, likewise; none if no node that syncs them has told them.
    pub owner: Option<Register<Owner>>,
}

impl Record {
    /// True if nothing lives at this path.
    pub fn is_tombstone(&self) -> bool {
        self.values.is_empty()
    }

    /// True if the parts fit together: every value's dot is in the context, values are sorted by
    /// dot without repetition. Decoders refuse a record for which it does not hold.
    pub fn is_sound(&self) -> bool {
        self.values.iter().all(|value| self.context.contains(value.dot))
            && self.values.is_sorted_by(|a, b| a.dot < b.dot)
    }
}

/// Returns BLAKE3 of bytes in memory.
pub fn hash_of(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}
