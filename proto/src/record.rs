//! What the cluster knows of one path: a dotted version vector set of values, and its metadata.

use std::collections::BTreeSet;
use std::fmt;

use bincode::{Decode, Encode};

use crate::message::{LACKS_MAX, LOST_MAX};
use crate::owner::Owner;
use crate::path::NodeName;
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

/// A node's word that it has not got the bytes of a version, and one of the nodes that it may ask for
/// them: there is one entry for each of its peers, and one that names itself if it found them later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Lack {
    /// Who has not got them.
    pub node: NodeName,
    /// A peer of that node's; the node itself: it has them after all.
    pub peer: NodeName,
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
    /// Who was found to have its bytes no more, at most [`LACKS_MAX`]; only ever added to.
    pub lacks: BTreeSet<Lack>,
}

impl Value {
    /// Adds what another record says of who lacks the same version's bytes. Of too many the
    /// greatest stay, whatever order they come in; what is full may say too little.
    pub fn join_lacks(&mut self, lacks: &BTreeSet<Lack>) {
        join_bounded(&mut self.lacks, lacks, LACKS_MAX);
    }
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
    /// Versions that were given up because no node had their bytes, at most [`LOST_MAX`]; each is in
    /// `context`, and none is one of the values. Nobody wanted these gone: who has such bytes after
    /// all writes them anew.
    pub lost: BTreeSet<Dot>,
}

impl Record {
    /// True if nothing lives at this path.
    pub fn is_tombstone(&self) -> bool {
        self.values.is_empty()
    }

    /// True if the parts fit together: every value's dot is in the context, values are sorted by
    /// dot without repetition, what was given up is known and no value. Decoders refuse a record for which it does not hold.
    pub fn is_sound(&self) -> bool {
        self.values.iter().all(|value| self.context.contains(value.dot))
            && self.values.is_sorted_by(|a, b| a.dot < b.dot)
            && self.lost.iter().all(|&dot| self.context.contains(dot))
            && self.values.iter().all(|value| !self.lost.contains(&value.dot))
    }

    /// Adds versions that were given up, as another record has them; of too many the greatest stay.
    pub fn join_lost(&mut self, lost: &BTreeSet<Dot>) {
        join_bounded(&mut self.lost, lost, LOST_MAX);
    }

    /// True if a version that is known and no value may have been given up: where the list is full,
    /// every one may.
    pub fn may_be_lost(&self, dot: Dot) -> bool {
        self.lost.contains(&dot) || self.lost.len() >= LOST_MAX
    }
}

/// Joins two sets and keeps the greatest `most`: commutative, associative and idempotent like the union.
fn join_bounded<T: Ord + Clone>(set: &mut BTreeSet<T>, other: &BTreeSet<T>, most: usize) {
    set.extend(other.iter().cloned());
    while set.len() > most {
        set.pop_first();
    }
}

/// Returns BLAKE3 of bytes in memory.
pub fn hash_of(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::{Epoch, Seq};

    #[test]
    fn bounded_sets_join_in_any_order_and_any_grouping() {
        let set = |from: u64, to: u64| (from..to).collect::<BTreeSet<u64>>();
        let join = |mut one: BTreeSet<u64>, other: &BTreeSet<u64>| {
            join_bounded(&mut one, other, 4);
            one
        };
        let (a, b, c) = (set(0, 4), set(2, 5), set(9, 12));
        let expected = BTreeSet::from([4, 9, 10, 11]);
        assert_eq!(join(join(a.clone(), &b), &c), expected);
        assert_eq!(join(c.clone(), &join(b.clone(), &a)), expected);
        assert_eq!(join(b.clone(), &join(c, &a)), expected);
        assert_eq!(join(expected.clone(), &a), expected);
        assert_eq!(join(b.clone(), &b), b);
    }

    #[test]
    fn a_full_list_of_what_was_given_up_names_everything() {
        let dot = |seq| Dot { epoch: Epoch(1), seq: Seq(seq) };
        let mut record = Record::default();
        record.join_lost(&(2..=LOST_MAX as u64).map(dot).collect());
        assert!(record.may_be_lost(dot(2)) && !record.may_be_lost(dot(1)));
        record.join_lost(&[dot(LOST_MAX as u64 + 1)].into());
        assert!(record.may_be_lost(dot(1)));
        record.join_lost(&[dot(LOST_MAX as u64 + 2)].into());
        assert_eq!(record.lost.len(), LOST_MAX);
        assert!(record.may_be_lost(dot(2)), "it fell out");
    }
}
