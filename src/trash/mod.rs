//! The trash: looks at what lies there, removes it, puts it back.
//!
//! What it holds is listed in the index ([`Trashed`]), in the order in which it came, so that nothing
//! here walks a directory: a trash of a million files costs what is removed from it. The files are
//! the truth: a row without its file is dropped, and files without a row (an index that was lost, a
//! crash between the removal and its commit) are found again by [`Walk`], a few at a time.
//!
//! **Invariant:** nothing is removed that was written to after it was displaced, or that somebody may
//! still write to, unless a person asked for it; nothing that is in the share is ever replaced.
//! **May not:** write the index; what is to be noted there is returned.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use recsync_proto::{Content, Dot, NodeName, SharePath};
use thiserror::Error;

use crate::apply::sync_names;
use crate::engine::{IMPLIED_DIR_MODE, conflict};
use crate::index::{IndexError, IndexRead, TrashKey, Trashed, Why, Write};
use crate::observe::hash;
use crate::tree::{Fingerprint, Kind, Place, Tree, TreeError, Writer};

/// Hex digits of the shortest number that counts as an operation's in a name: they begin at the wall
/// clock in nanoseconds, which has had so many since 1973.
const ID_DIGITS_MIN: usize = 15;

/// What a look at something in the trash shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It is as it was displaced, and the kernel knows of no writer.
    Same,
    /// As it was displaced; the kernel does not say whether somebody may write to it.
    Perhaps,
    /// Somebody has it open for writing.
    Writer,
    /// It was written to since, and has no writer now as far as is known.
    Changed,
    /// It is not there.
    Gone,
    /// It could not be looked at.
    Unknown(TreeError),
}

/// Looks at something in the trash.
///
/// A file with other names is never [`Seen::Changed`]: who writes to it may mean one of those.
pub fn look<T: Tree>(tree: &T, trashed: &Trashed) -> Seen {
    let place = trashed.place();
    let found = match writer_and_stat(tree, &place) {
        Ok(found) => found,
        Err(TreeError::NotFound) => return Seen::Gone,
        Err(error) => return Seen::Unknown(error),
    };
    // The writer first: one that is gone by now has left its mark in the stat.
    match found {
        (Writer::Some, _) => Seen::Writer,
        (_, stat) if !trashed.stat.same_bytes(&stat) && stat.nlink == 1 => Seen::Changed,
        (Writer::Unknown, stat) if stat.nlink == 1 => Seen::Perhaps,
        _ => Seen::Same,
    }
}

fn writer_and_stat<T: Tree>(tree: &T, place: &Place) -> Result<(Writer, Fingerprint), TreeError> {
    let stat = tree.stat(place)?;
    if stat.kind != Kind::File {
        return Ok((Writer::None, stat));
    }
    let writer = match tree.open(place) {
        Ok(file) => tree.writer(&file)?,
        Err(TreeError::Denied) => Writer::Unknown,
        Err(error) => return Err(error),
    };
    Ok((writer, tree.stat(place)?))
}

/// Returns how something stats whose bytes are, by their hash, those that were displaced: somebody
/// touched it and wrote nothing. None if they differ, or are not known.
pub fn unchanged<T: Tree>(tree: &T, trashed: &Trashed) -> Option<Fingerprint> {
    let Some(Content::File { size, hash: displaced }) = &trashed.content else { return None };
    let file = tree.open(&trashed.place()).ok()?;
    let stat = tree.stat_file(&file).ok().filter(|stat| stat.size == *size)?;
    let same = hash(tree, &file, *size).as_ref() == Ok(displaced);
    (same && tree.stat_file(&file).ok()? == stat).then_some(stat)
}

/// Why something was not displaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisplaceError {
    /// Somebody has it open for writing: it is where it was.
    Writer,
    /// The kernel refused.
    Refused(TreeError),
}

/// Moves a file or link of the share to a place in the trash, durably. Returns how it stats there.
///
/// # Errors
/// If somebody writes to it, or the kernel refuses; it is where it was, unless it could not be put back.
pub fn displace<T: Tree>(
    tree: &T,
    path: &SharePath,
    place: &Place,
) -> Result<Fingerprint, DisplaceError> {
    let from = Place::Share(path.clone());
    let writer = |place: &Place| match writer_and_stat(tree, place) {
        Ok((Writer::Some, _)) => Err(DisplaceError::Writer),
        Ok((_, stat)) => Ok(stat),
        Err(why) => Err(DisplaceError::Refused(why)),
    };
    writer(&from)?;
    tree.rename(&from, place).map_err(DisplaceError::Refused)?;
    let stat = match writer(place) {
        Ok(stat) => stat,
        Err(why) => {
            // If its name is taken again it stays in the trash, where a writer is noticed.
            return Err(if tree.rename(place, &from).is_ok() {
                why
            } else {
                DisplaceError::Refused(TreeError::Exists)
            });
        }
    };
    let mut dirs: Vec<Place> = from.parent().into_iter().collect();
    let mut next = place.parent();
    while let Some(dir) = next {
        next = dir.parent();
        dirs.push(dir);
    }
    for dir in dirs {
        sync_names(tree, &dir).map_err(DisplaceError::Refused)?;
    }
    Ok(stat)
}

/// Removes things for good, in order, and the directories that are empty then. Returns what the
/// index must forget, and what could not be removed.
pub fn remove<T: Tree>(tree: &T, trashed: &[Trashed]) -> (Vec<Write>, Vec<(Place, TreeError)>) {
    let (mut gone, mut failed) = (Vec::new(), Vec::new());
    let mut emptied = BTreeSet::new();
    for one in trashed {
        let place = one.place();
        match tree.remove_private(&place) {
            Ok(()) | Err(TreeError::NotFound) => {
                gone.push(Write::TrashGone(one.key()));
                emptied.extend(place.parent());
            }
            Err(error) => failed.push((place, error)),
        }
    }
    tidy(tree, emptied);
    (gone, failed)
}

/// Removes directories of the trash that are empty, and those above them that become so.
fn tidy<T: Tree>(tree: &T, mut dirs: BTreeSet<Place>) {
    // The deepest are the last in their order.
    while let Some(dir) = dirs.pop_last() {
        let Some(above) = dir.parent() else { continue };
        if tree.remove_dir(&dir).is_ok() {
            dirs.insert(above);
        }
    }
}

/// Why something was not put back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// There is something under that name.
    #[error("{0} is there already, and nothing is overwritten")]
    Taken(SharePath),
    /// It is not in the trash any more.
    #[error("it is no longer in the trash")]
    Gone,
    /// The kernel refused.
    #[error("cannot put it back as {path}: {why}")]
    Refused {
        /// The name that it was to have.
        path: SharePath,
        /// The refusal.
        why: TreeError,
    },
}

/// Puts something back under a free name of the share, durably, with the directories above it. To
/// the engine it is a change like anybody's.
///
/// # Errors
/// If the name is taken, the thing is gone, or the kernel refuses: then nothing was changed but that
/// directories may have been made.
pub fn restore<T: Tree>(
    tree: &T,
    trashed: &Trashed,
    to: &SharePath,
) -> Result<Write, RestoreError> {
    let refused = |why| RestoreError::Refused { path: to.clone(), why };
    let place = trashed.place();
    // A look first: the directories are not made for nothing.
    match (tree.stat(&place), tree.stat(&Place::Share(to.clone()))) {
        (Err(TreeError::NotFound), _) => return Err(RestoreError::Gone),
        (_, Ok(_)) => return Err(RestoreError::Taken(to.clone())),
        _ => {}
    }
    let mut touched = make_parents(tree, to).map_err(refused)?;
    let target = Place::Share(to.clone());
    match tree.rename(&place, &target) {
        Ok(()) => {}
        Err(TreeError::Exists) => return Err(RestoreError::Taken(to.clone())),
        Err(TreeError::NotFound) if tree.stat(&place) == Err(TreeError::NotFound) => {
            return Err(RestoreError::Gone);
        }
        Err(why) => return Err(refused(why)),
    }
    touched.extend(target.parent());
    touched.extend(place.parent());
    for dir in &touched {
        sync_names(tree, dir).map_err(refused)?;
    }
    tidy(tree, place.parent().into_iter().collect());
    Ok(Write::TrashGone(trashed.key()))
}

/// What became of something that somebody wrote to, or touched, after it was displaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// It was touched and holds what it held: it stays, and that is to be noted.
    Stays(Write),
    /// It is back in the share under this name, which is nobody's; what is to be noted.
    Back(SharePath, Write),
    /// It is where it was, and why it could not be put back.
    Not(Vec<RestoreError>),
}

/// Puts back what somebody wrote to after it was displaced, under the name of a conflict copy that `dot`, which is no
/// version's, makes; at the top of the share if it can have none beside its own.
pub fn bring_back<T: Tree>(tree: &T, trashed: &Trashed, node: &NodeName, dot: Dot) -> Returned {
    if let Some(stat) = unchanged(tree, trashed) {
        return Returned::Stays(Write::Trashed(Trashed { stat, ..trashed.clone() }));
    }
    let Ok(stat) = tree.stat(&trashed.place()) else { return Returned::Not(Vec::new()) };
    let copy = conflict::kept_path(&trashed.path, node, stat.mtime_ns, dot);
    let at_the_top = SharePath::root().join(copy.name()).unwrap_or_else(|_| copy.clone());
    let mut failed = Vec::new();
    for to in [copy, at_the_top] {
        match restore(tree, trashed, &to) {
            Ok(write) => return Returned::Back(to, write),
            Err(RestoreError::Gone) => break,
            Err(why) => failed.push(why),
        }
    }
    Returned::Not(failed)
}

/// Makes the directories above a path; returns those whose names changed.
fn make_parents<T: Tree>(tree: &T, path: &SharePath) -> Result<BTreeSet<Place>, TreeError> {
    let mut missing = Vec::new();
    for dir in path.ancestors() {
        match tree.stat(&Place::Share(dir.clone())) {
            Ok(found) if found.kind == Kind::Dir => break,
            Ok(_) => return Err(TreeError::WrongKind),
            Err(TreeError::NotFound) => missing.push(dir),
            Err(error) => return Err(error),
        }
    }
    let mut touched = BTreeSet::new();
    for dir in missing.into_iter().rev() {
        let place = Place::Share(dir);
        match tree.make_dir(&place, IMPLIED_DIR_MODE) {
            Ok(()) | Err(TreeError::Exists) => touched.extend(place.parent()),
            Err(error) => return Err(error),
        }
    }
    Ok(touched)
}

/// A walk through the files of the trash, to find those that the index does not know.
#[derive(Debug)]
pub struct Walk {
    dirs: Vec<Place>,
    /// Names of the directory that is being looked at.
    names: Option<(Place, Vec<Vec<u8>>)>,
}

impl Default for Walk {
    fn default() -> Self {
        let top = Place::Trash { day: String::new(), path: SharePath::root() };
        Walk { dirs: vec![top], names: None }
    }
}

impl Walk {
    /// Looks at up to `count` names. Returns what the index must note, or none once all is seen.
    ///
    /// # Errors
    /// If the index does not answer.
    pub fn step<T: Tree, I: IndexRead>(
        &mut self,
        tree: &T,
        index: &I,
        count: usize,
    ) -> Result<Option<Vec<Write>>, IndexError> {
        if self.names.as_ref().is_none_or(|(_, names)| names.is_empty()) {
            let Some(dir) = self.dirs.pop() else { return Ok(None) };
            // What cannot be listed is missed, and nothing else.
            let names = tree.list(&dir).unwrap_or_default();
            self.names = Some((dir, names.into_iter().map(|entry| entry.name).collect()));
        }
        let Some((dir, names)) = &mut self.names else { return Ok(Some(Vec::new())) };
        let mut found = Vec::new();
        for name in names.split_off(names.len().saturating_sub(count)) {
            let Some(place) = below(dir, &name) else { continue };
            let Ok(stat) = tree.stat(&place) else { continue };
            let Place::Trash { day, path: at } = &place else { continue };
            if stat.kind == Kind::Dir {
                self.dirs.push(place);
            } else if !at.is_root() && index.trash_at(day, at)?.is_none() {
                found.push(Write::Trashed(adopt(day, at, stat)));
            }
        }
        Ok(Some(found))
    }
}

fn below(dir: &Place, name: &[u8]) -> Option<Place> {
    match dir {
        Place::Trash { day, .. } if day.is_empty() => {
            let day = String::from_utf8(name.to_vec()).ok()?;
            Some(Place::Trash { day, path: SharePath::root() })
        }
        Place::Trash { day, path } => {
            Some(Place::Trash { day: day.clone(), path: path.join(name).ok()? })
        }
        Place::Share(_) | Place::Temp(_) => None,
    }
}

/// Returns what is known of a file that was found in the trash: a rename moved its ctime last.
fn adopt(day: &str, at: &SharePath, stat: Fingerprint) -> Trashed {
    let (name, id) = split_id(at.name());
    let path = at.parent().join(name).unwrap_or_else(|_| at.clone());
    Trashed {
        since_ns: stat.ctime_ns,
        // With the time, it is a key: the inode is nobody else's at that time.
        id: id.unwrap_or(stat.ino & (u64::MAX >> 1)),
        day: day.to_owned(),
        at: at.clone(),
        path,
        content: None,
        stat,
        why: Why::Found,
        peer: None,
    }
}

/// Splits a name in the trash, `NAME~ID` or `NAME~ID~N`, into the name that it was and the number.
fn split_id(name: &[u8]) -> (&[u8], Option<u64>) {
    let split = |name: &[u8]| {
        let at = name.iter().rposition(|&byte| byte == b'~')?;
        Some((at, str::from_utf8(&name[at + 1..]).ok()?.to_owned()))
    };
    let id_at = |name: &[u8]| {
        let (at, digits) = split(name)?;
        let id = u64::from_str_radix(&digits, 16).ok()?;
        (at > 0 && digits.len() >= ID_DIGITS_MIN).then_some((at, id))
    };
    let without_number = || match split(name) {
        Some((at, digits)) if digits.len() == 1 => id_at(&name[..at]),
        _ => None,
    };
    match id_at(name).or_else(without_number) {
        Some((at, id)) => (&name[..at], Some(id)),
        None => (name, None),
    }
}

/// Where a pass through what the index knows of the trash stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass(TrashKey);

impl Default for Pass {
    fn default() -> Self {
        Pass(TrashKey::FIRST)
    }
}

impl Pass {
    /// Returns the next things, the oldest first, at most `count`; none are left if there are fewer.
    ///
    /// # Errors
    /// If the index does not answer.
    pub fn next<I: IndexRead>(
        &mut self,
        index: &I,
        count: usize,
    ) -> Result<Vec<Trashed>, IndexError> {
        let next = index.trash_after(self.0, count)?;
        if let Some(last) = next.last() {
            self.0 = last.key();
        }
        Ok(next)
    }
}
