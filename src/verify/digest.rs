//! One side's digests: a walk over the tree as it is on disk, and pages of directories for the
//! comparison.
//!
//! A directory's digest is BLAKE3 over its entries' encodings in the order of their names
//! (`recsync_proto::codec::encode_digest_entry`), so two directories have equal digests exactly
//! if all that is compared below them is equal.

use std::collections::{BTreeMap, VecDeque};

use recsync_proto::message::{DIGESTS_MAX, DigestEntry, DigestKind};
use recsync_proto::{Content, Hash, Owner, SharePath, codec};

use super::VerifyError;
use crate::index::{IndexRead, Installed};
use crate::tree::{Fingerprint, Kind, Place, Tree, TreeError};

/// A page ends when it has about this many bytes, well below the longest frame.
const PAGE_LEN_TARGET: usize = 1 << 20;
/// Names of a directory that are looked at, and asked of the index, at once; each directory on the
/// way down holds so many.
const LOOKS_LEN: usize = 256;

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
        let mut looks = Looks::new(tree, index, dir, names, after);
        let mut page = Page::default();
        let mut len = 0;
        while let Some((path, seen)) = looks.next()? {
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
        let Some(names) = names(tree, dir) else { return Ok(None) };
        let mut looks = Looks::new(tree, index, dir, names, b"");
        let mut hasher = blake3::Hasher::new();
        let mut summary = EMPTY;
        while let Some((path, seen)) = looks.next()? {
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

/// What the names of a directory hold, in their order, a page of them at a time: a call of the
/// kernel and a question to the index for each by itself would cost more than all the rest.
struct Looks<'a, T, I> {
    tree: &'a T,
    names: std::vec::IntoIter<Vec<u8>>,
    found: std::vec::IntoIter<(SharePath, Result<Fingerprint, TreeError>)>,
    known: Known<'a, I>,
}

impl<'a, T: Tree, I: IndexRead> Looks<'a, T, I> {
    /// Begins with names in their order, all of them after `after`.
    fn new(
        tree: &'a T,
        index: &'a I,
        dir: &'a SharePath,
        names: Vec<Vec<u8>>,
        after: &[u8],
    ) -> Self {
        let known = Known::new(index, dir, after);
        Looks { tree, names: names.into_iter(), found: Vec::new().into_iter(), known }
    }

    /// Looks at the next name that is there and is synced.
    fn next(&mut self) -> Result<Option<(SharePath, Seen)>, VerifyError> {
        loop {
            let Some((path, found)) = self.found.next() else {
                if self.names.len() == 0 {
                    return Ok(None);
                }
                let names = self.names.by_ref().take(LOOKS_LEN);
                let paths = names.filter_map(|name| self.known.dir.join(&name).ok());
                let paths: Vec<SharePath> = paths.collect();
                let found = self.tree.stat_all(&paths);
                self.found = paths.into_iter().zip(found).collect::<Vec<_>>().into_iter();
                continue;
            };
            let known = self.known.take(path.name())?;
            if let Some(seen) = look(self.tree, &path, found, known) {
                return Ok(Some((path, seen)));
            }
        }
    }
}

/// Tells what a look at a path found, of which the index holds `known`; none if it is gone or never
/// synced.
fn look<T: Tree>(
    tree: &T,
    path: &SharePath,
    found: Result<Fingerprint, TreeError>,
    known: Option<Installed>,
) -> Option<Seen> {
    let found = match found {
        Ok(found) => found,
        Err(TreeError::NotFound) => return None,
        Err(_) => return Some(Seen::Leaf(DigestKind::Unreadable)),
    };
    if found.kind == Kind::Special || tree.ignored_by(path, found.kind == Kind::Dir).is_some() {
        return None;
    }
    let owner = owner(tree, known.as_ref(), &found);
    Some(Seen::Leaf(match found.kind {
        Kind::Special => return None,
        Kind::Dir => return Some(Seen::Dir { mode: found.mode, owner }),
        Kind::Symlink => match tree.read_link(&Place::Share(path.clone())) {
            Ok(target) => DigestKind::Symlink { target, mtime_ns: found.mtime_ns, owner },
            Err(_) => DigestKind::Unreadable,
        },
        Kind::File => file(known, owner, &found),
    }))
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

/// What the index holds installed in a directory, by name.
struct Known<'a, I> {
    index: &'a I,
    dir: &'a SharePath,
    page: VecDeque<(Vec<u8>, Installed)>,
    /// The page ends with this name.
    until: Vec<u8>,
    /// True if the page is the last one.
    last: bool,
}

impl<'a, I: IndexRead> Known<'a, I> {
    /// Begins behind a name.
    fn new(index: &'a I, dir: &'a SharePath, after: &[u8]) -> Self {
        Known { index, dir, page: VecDeque::new(), until: after.to_vec(), last: false }
    }

    /// Returns what is installed under a name; names are asked for in their order.
    fn take(&mut self, name: &[u8]) -> Result<Option<Installed>, VerifyError> {
        loop {
            while self.page.pop_front_if(|(known, _)| known.as_slice() < name).is_some() {}
            if !self.page.is_empty() || self.last {
                let found = self.page.pop_front_if(|(known, _)| known == name);
                return Ok(found.map(|(_, installed)| installed));
            }
            let page = self.index.installed_in(self.dir, &self.until, LOOKS_LEN);
            let page = page.map_err(|error| VerifyError::Here(error.to_string()))?;
            self.last = page.len() < LOOKS_LEN;
            if let Some((name, _)) = page.last() {
                self.until.clone_from(name);
            }
            self.page = page.into();
        }
    }
}
