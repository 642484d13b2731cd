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
use crate::index::{IndexRead, Installed};
use crate::observe::{Named, Names, list};
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
        let listed = list(tree, dir).unwrap_or_default();
        let mut page = Page::default();
        let mut len = 0;
        for named in Names::new(tree, index, dir, &listed, after) {
            let Some((path, seen)) = look(tree, named?) else { continue };
            if len > PAGE_LEN_TARGET || page.entries.len() == DIGESTS_MAX {
                page.more = true;
                break;
            }
            let kind = match seen {
                Seen::Leaf(kind) => kind,
                Seen::Dir { mode, owner } => {
                    let summary = self.dirs.get(&path).copied().unwrap_or(EMPTY);
                    dir_kind(mode, owner, summary)
                }
            };
            let name = path.name().to_vec();
            len += 128 + name.len();
            if let DigestKind::Symlink { target, .. } = &kind {
                len += target.len();
            }
            page.entries.push(DigestEntry { name, kind });
        }
        Ok(page)
    }

    fn summarise<T: Tree, I: IndexRead>(
        &mut self,
        tree: &T,
        index: &I,
        dir: &SharePath,
    ) -> Result<Option<Summary>, VerifyError> {
        let Ok(listed) = list(tree, dir) else { return Ok(None) };
        let mut hasher = blake3::Hasher::new();
        let mut summary = EMPTY;
        for named in Names::new(tree, index, dir, &listed, b"") {
            let Some((path, seen)) = look(tree, named?) else { continue };
            let kind = match seen {
                Seen::Leaf(kind) => {
                    if let DigestKind::File { size, .. } = kind {
                        summary.files += 1;
                        summary.bytes += size;
                    }
                    kind
                }
                Seen::Dir { mode, owner } => match self.summarise(tree, index, &path)? {
                    Some(below) => {
                        summary.files += below.files;
                        summary.bytes += below.bytes;
                        dir_kind(mode, owner, below)
                    }
                    None => DigestKind::Unreadable,
                },
            };
            let entry = DigestEntry { name: path.name().to_vec(), kind };
            hasher.update(&codec::encode_digest_entry(&entry));
        }
        summary.digest = Hash(*hasher.finalize().as_bytes());
        self.dirs.insert(dir.clone(), summary);
        Ok(Some(summary))
    }
}

/// Returns what is at a path now, as a page of its directory has it; a directory without its digest.
///
/// # Errors
/// If the index cannot be read.
pub fn look_at<T: Tree, I: IndexRead>(
    tree: &T,
    index: &I,
    path: SharePath,
) -> Result<Option<DigestEntry>, VerifyError> {
    let installed = index.entry(&path)?.and_then(|entry| entry.installed);
    let found = Some(tree.stat(&Place::Share(path.clone())));
    let seen = look(tree, Named { path, found, installed });
    Ok(seen.map(|(path, seen)| {
        let kind = match seen {
            Seen::Leaf(kind) => kind,
            Seen::Dir { mode, owner } => dir_kind(mode, owner, EMPTY),
        };
        DigestEntry { name: path.name().to_vec(), kind }
    }))
}

const EMPTY: Summary = Summary { digest: Hash([0; 32]), files: 0, bytes: 0 };

fn dir_kind(mode: u32, owner: Option<Owner>, summary: Summary) -> DigestKind {
    let Summary { digest, files, bytes } = summary;
    DigestKind::Dir { mode, owner, digest, files, bytes }
}

enum Seen {
    Leaf(DigestKind),
    Dir { mode: u32, owner: Option<Owner> },
}

/// Tells what a name holds; none if it is gone or never synced.
fn look<T: Tree>(tree: &T, named: Named) -> Option<(SharePath, Seen)> {
    let Named { path, found, installed } = named;
    let found = match found? {
        Ok(found) => found,
        Err(TreeError::NotFound) => return None,
        Err(_) => return Some((path, Seen::Leaf(DigestKind::Unreadable))),
    };
    if found.kind == Kind::Special || tree.ignored_by(&path, found.kind == Kind::Dir).is_some() {
        return None;
    }
    let owner = owner(tree, installed.as_ref(), &found);
    let seen = match found.kind {
        Kind::Special => return None,
        Kind::Dir => Seen::Dir { mode: found.mode, owner },
        Kind::Symlink => Seen::Leaf(match tree.read_link(&Place::Share(path.clone())) {
            Ok(target) => DigestKind::Symlink { target, mtime_ns: found.mtime_ns, owner },
            Err(_) => DigestKind::Unreadable,
        }),
        Kind::File => Seen::Leaf(file(installed, owner, &found)),
    };
    Some((path, seen))
}

/// The owner that an object stands for, where nobody gave it away since: what could not be set
/// here is no difference. A node that leaves owners alone passes on what the others say.
fn owner<T: Tree>(tree: &T, known: Option<&Installed>, found: &Fingerprint) -> Option<Owner> {
    match known {
        Some(known) if known.fingerprint.same_owner(found) => known.owner.clone(),
        _ => tree.owner(found),
    }
}

/// The index's hash counts only for exactly the state that is on disk. The modification time is
/// the one that the file stands for, where its filesystem stores it coarser.
fn file(known: Option<Installed>, owner: Option<Owner>, found: &Fingerprint) -> DigestKind {
    let known = known.filter(|known| known.fingerprint == *found);
    let hash = known.as_ref().and_then(|known| match known.content {
        Content::File { hash, .. } => Some(hash),
        Content::Dir | Content::Symlink { .. } => None,
    });
    let mtime_ns = known.map_or(found.mtime_ns, |known| known.mtime_ns);
    DigestKind::File { mode: found.mode, owner, size: found.size, mtime_ns, hash }
}
