//! One side's digests: a walk over the tree as it is on disk, and pages of directories for the
//! comparison.
//!
//! A directory's digest is BLAKE3 over its entries' encodings in the order of their names
//! (`recsync_proto::codec::encode_digest_entry`), so two directories have equal digests exactly
//! if all that is compared below them is equal.

use std::collections::BTreeMap;

use recsync_proto::message::{DIGESTS_MAX, DigestEntry, DigestKind};
use recsync_proto::{Content, Hash, Owner, SharePath, codec};

use super::VerifyError;
use crate::index::{Entry, IndexRead};
use crate::tree::{Fingerprint, Kind, Place, Tree, TreeError};

/// A page ends when it has about this many bytes, well below the longest frame.
const PAGE_LEN_TARGET: usize = 1 << 20;

/// What is known of a directory and all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Summary {
    digest: Hash,
    files: u64,
    bytes: u64,
}

/// The digests of every directory of a share at the time of a walk.
#[derive(Debug, Default)]
pub struct Digests {
    dirs: BTreeMap<SharePath, Summary>,
}

/// A page of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Its entries, ascending by name.
    pub entries: Vec<DigestEntry>,
    /// True if entries follow.
    pub more: bool,
}

impl Digests {
    /// Walks the whole tree.
    ///
    /// # Errors
    /// If the index cannot be read; what cannot be read of the tree is part of the digests.
    pub fn walk<T: Tree, I: IndexRead>(tree: &T, index: &I) -> Result<Self, VerifyError> {
        let mut digests = Digests::default();
        digests.summarise(tree, index, &SharePath::root())?;
        Ok(digests)
    }

    /// Returns the number of files in the tree, and of their bytes.
    pub fn totals(&self) -> (u64, u64) {
        self.dirs.get(&SharePath::root()).map_or((0, 0), |root| (root.files, root.bytes))
    }

    /// Returns a directory's entries with names after `after`, as they are now; digests of
    /// directories are those of the walk. A directory that is not there has no entries.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn page<T: Tree, I: IndexRead>(
        &self,
        tree: &T,
        index: &I,
        dir: &SharePath,
        after: &[u8],
    ) -> Result<Page, VerifyError> {
        let mut names = names(tree, dir).unwrap_or_default();
        names.retain(|name| name.as_slice() > after);
        let mut more = names.len() > DIGESTS_MAX;
        names.truncate(DIGESTS_MAX);
        let mut entries = Vec::with_capacity(names.len());
        let mut len = 0;
        for name in names {
            if len > PAGE_LEN_TARGET {
                more = true;
                break;
            }
            let Ok(path) = dir.join(&name) else { continue };
            let Some(kind) = look(tree, index, &path)? else { continue };
            let kind = match kind {
                Seen::Leaf(kind) => kind,
                Seen::Dir { mode, owner } => {
                    let summary = self.dirs.get(&path).copied().unwrap_or(EMPTY);
                    dir_kind(mode, owner, summary)
                }
            };
            len += 128 + name.len();
            if let DigestKind::Symlink { target, .. } = &kind {
                len += target.len();
            }
            entries.push(DigestEntry { name, kind });
        }
        Ok(Page { entries, more })
    }

    fn summarise<T: Tree, I: IndexRead>(
        &mut self,
        tree: &T,
        index: &I,
        dir: &SharePath,
    ) -> Result<Option<Summary>, VerifyError> {
        let Some(names) = names(tree, dir) else { return Ok(None) };
        let mut hasher = blake3::Hasher::new();
        let mut summary = EMPTY;
        for name in names {
            let Ok(path) = dir.join(&name) else { continue };
            let kind = match look(tree, index, &path)? {
                None => continue,
                Some(Seen::Leaf(kind)) => {
                    if let DigestKind::File { size, .. } = kind {
                        summary.files += 1;
                        summary.bytes += size;
                    }
                    kind
                }
                Some(Seen::Dir { mode, owner }) => match self.summarise(tree, index, &path)? {
                    Some(below) => {
                        summary.files += below.files;
                        summary.bytes += below.bytes;
                        dir_kind(mode, owner, below)
                    }
                    None => DigestKind::Unreadable,
                },
            };
            hasher.update(&codec::encode_digest_entry(&DigestEntry { name, kind }));
        }
        summary.digest = Hash(*hasher.finalize().as_bytes());
        self.dirs.insert(dir.clone(), summary);
        Ok(Some(summary))
    }
}

const EMPTY: Summary = Summary { digest: Hash([0; 32]), files: 0, bytes: 0 };

fn dir_kind(mode: u32, owner: Option<Owner>, summary: Summary) -> DigestKind {
    let Summary { digest, files, bytes } = summary;
    DigestKind::Dir { mode, owner, digest, files, bytes }
}

/// Returns a directory's names in order; none if it cannot be read.
fn names<T: Tree>(tree: &T, dir: &SharePath) -> Option<Vec<Vec<u8>>> {
    let entries = tree.list(&Place::Share(dir.clone())).ok()?;
    let mut names: Vec<Vec<u8>> = entries.into_iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    Some(names)
}

enum Seen {
    Leaf(DigestKind),
    Dir { mode: u32, owner: Option<Owner> },
}

/// Looks at one name; none if it is gone or never synced.
fn look<T: Tree, I: IndexRead>(
    tree: &T,
    index: &I,
    path: &SharePath,
) -> Result<Option<Seen>, VerifyError> {
    let place = Place::Share(path.clone());
    let found = match tree.stat(&place) {
        Ok(found) => found,
        Err(TreeError::NotFound) => return Ok(None),
        Err(_) => return Ok(Some(Seen::Leaf(DigestKind::Unreadable))),
    };
    if found.kind == Kind::Special || tree.ignored_by(path, found.kind == Kind::Dir).is_some() {
        return Ok(None);
    }
    let entry = index.entry(path).map_err(|error| VerifyError::Here(error.to_string()))?;
    let owner = owner(tree, entry.as_ref(), &found);
    let leaf = match found.kind {
        Kind::Special => return Ok(None),
        Kind::Dir => return Ok(Some(Seen::Dir { mode: found.mode, owner })),
        Kind::Symlink => match tree.read_link(&place) {
            Ok(target) => DigestKind::Symlink { target, mtime_ns: found.mtime_ns, owner },
            Err(_) => DigestKind::Unreadable,
        },
        Kind::File => file(entry, owner, &found),
    };
    Ok(Some(Seen::Leaf(leaf)))
}

/// The owner that an object stands for, where nobody gave it away since: what could not be set
/// here is no difference.
fn owner<T: Tree>(tree: &T, entry: Option<&Entry>, found: &Fingerprint) -> Option<Owner> {
    let known = entry.and_then(|entry| entry.installed.as_ref());
    match known {
        Some(known) if known.fingerprint.same_owner(found) => {
            // A node that leaves owners alone passes on what the others say.
            let told = || Some(entry?.record.owner.as_ref()?.value.clone());
            known.owner.clone().or_else(told)
        }
        _ => tree.owner(found),
    }
}

/// The index's hash counts only for exactly the state that is on disk. The modification time is
/// the one that the file stands for, where its filesystem stores it coarser.
fn file(entry: Option<Entry>, owner: Option<Owner>, found: &Fingerprint) -> DigestKind {
    let known = entry.and_then(|entry| entry.installed).filter(|known| known.fingerprint == *found);
    let hash = known.as_ref().and_then(|known| match known.content {
        Content::File { hash, .. } => Some(hash),
        Content::Dir | Content::Symlink { .. } => None,
    });
    let mtime_ns = known.map_or(found.mtime_ns, |known| known.mtime_ns);
    DigestKind::File { mode: found.mode, owner, size: found.size, mtime_ns, hash }
}
