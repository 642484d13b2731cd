//! The comparison itself: top-down, by names, descending where digests differ.

use std::collections::BTreeSet;

use recsync_proto::message::{DigestEntry, DigestKind};
use recsync_proto::{Owner, SharePath};

use super::digest::{Digests, Page};
use super::{Difference, DifferenceKind, VerifyError};
use crate::index::IndexRead;
use crate::tree::Tree;

/// The other side of a comparison.
pub trait Far {
    /// Returns a page of one of its directories, see [`Digests::page`].
    ///
    /// # Errors
    /// If it does not answer.
    fn page(&mut self, dir: &SharePath, after: &[u8]) -> Result<Page, VerifyError>;
}

/// This side of a comparison, and what was found.
#[derive(Debug)]
pub struct Comparison<'a, T, I> {
    /// This side's tree.
    pub tree: &'a T,
    /// This side's index.
    pub index: &'a I,
    /// This side's walk.
    pub digests: &'a Digests,
}

/// Returns all paths that differ now between this side and the other.
///
/// # Errors
/// If either side cannot be read or asked.
pub fn compare<T: Tree, I: IndexRead>(
    near: &Comparison<'_, T, I>,
    far: &mut dyn Far,
) -> Result<Vec<Difference>, VerifyError> {
    let mut found = Vec::new();
    compare_dir(near, far, &SharePath::root(), Trust::Digests, &mut found)?;
    Ok(found)
}

/// Looks again at paths that differed; returns those that still do.
///
/// # Errors
/// If either side cannot be read or asked.
pub fn recheck<T: Tree, I: IndexRead>(
    near: &Comparison<'_, T, I>,
    far: &mut dyn Far,
    suspects: &[Difference],
) -> Result<Vec<Difference>, VerifyError> {
    let dirs: BTreeSet<SharePath> = suspects.iter().map(|one| one.path.parent()).collect();
    let mut found = Vec::new();
    for dir in &dirs {
        // A directory above was looked at whole, and this one with it.
        if dirs.iter().any(|above| !above.is_root() && dir.is_below(above)) {
            continue;
        }
        compare_dir(near, far, dir, Trust::Only(suspects), &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    Ok(found)
}

/// Which directories need not be entered.
#[derive(Clone, Copy)]
enum Trust<'a> {
    /// Those with equal digests.
    Digests,
    /// Those that hold none of these suspects: the digests are old.
    Only(&'a [Difference]),
}

fn compare_dir<T: Tree, I: IndexRead>(
    near: &Comparison<'_, T, I>,
    far: &mut dyn Far,
    dir: &SharePath,
    trust: Trust<'_>,
    found: &mut Vec<Difference>,
) -> Result<(), VerifyError> {
    let mut here = Side::default();
    let mut there = Side::default();
    loop {
        if here.is_spent() {
            let page = near.digests.page(near.tree, near.index, dir, &here.last)?;
            here.turn(page);
        }
        if there.is_spent() {
            let page = far.page(dir, &there.last)?;
            there.turn(page);
        }
        let (left, right) = match (here.peek(), there.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => (here.take(), None),
            (None, Some(_)) => (None, there.take()),
            (Some(left), Some(right)) => match left.name.cmp(&right.name) {
                std::cmp::Ordering::Less => (here.take(), None),
                std::cmp::Ordering::Greater => (None, there.take()),
                std::cmp::Ordering::Equal => (here.take(), there.take()),
            },
        };
        let name = left.as_ref().or(right.as_ref()).map_or(&[][..], |entry| &entry.name);
        let Ok(path) = dir.join(name) else { continue };
        compare_entry(near, far, path, left, right, trust, found)?;
    }
}

fn compare_entry<T: Tree, I: IndexRead>(
    near: &Comparison<'_, T, I>,
    far: &mut dyn Far,
    path: SharePath,
    here: Option<DigestEntry>,
    there: Option<DigestEntry>,
    trust: Trust<'_>,
    found: &mut Vec<Difference>,
) -> Result<(), VerifyError> {
    let is_dir = |side: &Option<DigestEntry>| {
        side.as_ref().is_some_and(|entry| matches!(entry.kind, DigestKind::Dir { .. }))
    };
    if is_left_alone(near, &path, is_dir(&there), here.as_ref())? {
        return Ok(());
    }
    let enter = (is_dir(&here) || is_dir(&there))
        && match trust {
            Trust::Digests => here.as_ref().map(|e| &e.kind) != there.as_ref().map(|e| &e.kind),
            Trust::Only(suspects) => suspects.iter().any(|one| one.path.is_below(&path)),
        };
    if let Some(kind) = difference(here.as_ref(), there.as_ref()) {
        found.push(Difference { path: path.clone(), kind, here, there });
    }
    if enter { compare_dir(near, far, &path, trust, found) } else { Ok(()) }
}

/// True for what the other side has and this one wants not: by its ignore rules, or because it was
/// deleted here alone.
fn is_left_alone<T: Tree, I: IndexRead>(
    near: &Comparison<'_, T, I>,
    path: &SharePath,
    is_dir: bool,
    here: Option<&DigestEntry>,
) -> Result<bool, VerifyError> {
    if here.is_some() {
        return Ok(false);
    }
    if near.tree.ignored_by(path, is_dir).is_some() {
        return Ok(true);
    }
    let entry = near.index.entry(path).map_err(|error| VerifyError::Here(error.to_string()))?;
    Ok(entry.is_some_and(|entry| entry.let_go))
}

/// Returns how two entries of one name differ, what is below a directory left aside.
fn difference(here: Option<&DigestEntry>, there: Option<&DigestEntry>) -> Option<DifferenceKind> {
    let (here, there) = match (here, there) {
        (None, None) => return None,
        (Some(_), None) => return Some(DifferenceKind::MissingOnPeer),
        (None, Some(_)) => return Some(DifferenceKind::MissingHere),
        (Some(here), Some(there)) => (&here.kind, &there.kind),
    };
    match (here, there) {
        (DigestKind::Unreadable, _) | (_, DigestKind::Unreadable) => {
            Some(DifferenceKind::Unreadable)
        }
        (DigestKind::Dir { mode, owner, .. }, DigestKind::Dir { mode: m, owner: o, .. }) => {
            (mode != m || is_other(owner, o)).then_some(DifferenceKind::Metadata)
        }
        (DigestKind::Symlink { target, .. }, DigestKind::Symlink { target: other, .. })
            if target != other =>
        {
            Some(DifferenceKind::Content)
        }
        (
            DigestKind::Symlink { mtime_ns, owner, .. },
            DigestKind::Symlink { mtime_ns: m, owner: o, .. },
        ) => (mtime_ns != m || is_other(owner, o)).then_some(DifferenceKind::Metadata),
        (
            DigestKind::File { mode, owner, size, mtime_ns, hash },
            DigestKind::File {
                mode: mode_there,
                owner: owner_there,
                size: size_there,
                mtime_ns: mtime_there,
                hash: hash_there,
            },
        ) => {
            // A file without a hash may hold anything: it is in flight, not the same.
            let same = hash.is_some() && hash == hash_there && size == size_there;
            if !same {
                Some(DifferenceKind::Content)
            } else {
                let other = (mode, mtime_ns) != (mode_there, mtime_there);
                (other || is_other(owner, owner_there)).then_some(DifferenceKind::Metadata)
            }
        }
        _ => Some(DifferenceKind::Type),
    }
}

/// True if both sides know whose it is, and differ.
fn is_other(here: &Option<Owner>, there: &Option<Owner>) -> bool {
    here.as_ref().zip(there.as_ref()).is_some_and(|(here, there)| here != there)
}

/// One side's pages of a directory while they are walked through.
#[derive(Default)]
struct Side {
    entries: std::collections::VecDeque<DigestEntry>,
    last: Vec<u8>,
    begun: bool,
    more: bool,
}

impl Side {
    fn is_spent(&self) -> bool {
        self.entries.is_empty() && (!self.begun || self.more)
    }

    fn turn(&mut self, page: Page) {
        self.begun = true;
        // A page without entries ends the directory, whatever it says.
        self.more = page.more && !page.entries.is_empty();
        self.entries = page.entries.into();
    }

    fn peek(&self) -> Option<&DigestEntry> {
        self.entries.front()
    }

    fn take(&mut self) -> Option<DigestEntry> {
        let entry = self.entries.pop_front()?;
        self.last.clone_from(&entry.name);
        Some(entry)
    }
}
