//! Runs a batch of operations: stage all, switch each, then make all durable together.
//!
//! **Invariant:** each operation gets exactly one outcome; `Done` means durable, and still there
//! when it was looked at last; `Unsure` that it was made; every other outcome but `Changed` and
//! `Stuck` means that nothing was done.
//! **May not:** retry; the engine decides again.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::stage::stage;
use super::switch::{Left, Made, Switched, clear, switch};
use super::{Undone, is_same_object};
use crate::engine::{Done, Op, Outcome};
use crate::sys::Failpoint;
use crate::tree::{Fingerprint, Place, Tree, TreeError};

/// Makes a batch of guarded changes, in order, and returns how each ended, by its number.
///
/// Operations that replace or remove must have their intents in the index, durably, before.
pub fn run<T: Tree>(tree: &T, ops: Vec<Op>) -> Vec<(u64, Outcome)> {
    run_after(tree, ops, || true)
}

/// As [`run`], of a batch whose commit may still be under way: `committed` is asked once all is staged, and waits
/// for it. If it did not come, nothing is returned: what was staged is what a stop leaves.
pub fn run_after<T: Tree>(
    tree: &T,
    ops: Vec<Op>,
    committed: impl FnOnce() -> bool,
) -> Vec<(u64, Outcome)> {
    if let Err(error) = tree.check_root() {
        let failed = Outcome::Failed(TreeError::Io(error.to_string()));
        return ops.iter().map(|op| (op.id, failed.clone())).collect();
    }
    Failpoint::ApplyBegun.hit();
    let staged = stage(tree, &ops);
    if !committed() {
        return Vec::new();
    }
    let mut switched = Vec::with_capacity(ops.len());
    for (op, staged) in ops.iter().zip(staged) {
        switched.push(staged.and_then(|staged| {
            let switched = switch(tree, op, staged.as_ref());
            match (switched, &staged) {
                (Err(_), Some(staged)) if !clear(tree, op, staged) && op.expect.is_some() => {
                    Err(Undone::Stuck)
                }
                (switched, _) => switched,
            }
        }));
    }
    let durable = sync(tree, &switched);
    let found = look(tree, &ops, &switched);
    let outcomes = ops.iter().zip(switched).zip(durable.into_iter().zip(found));
    outcomes
        .map(|((op, switched), (durable, found))| match switched {
            Err(why) => (op.id, why.into()),
            Ok(switched) => (op.id, tell(tree, op, switched, durable, found)),
        })
        .collect()
}

/// Makes the changes durable, each directory synced once. Returns for each whether that worked.
fn sync<T: Tree>(tree: &T, switched: &[Result<Switched<T::File>, Undone>]) -> Vec<bool> {
    let changes = || switched.iter().map(|switched| switched.as_ref().ok());
    for object in changes().flatten().filter_map(|change| change.metadata.as_ref()) {
        tree.start_sync(object);
    }
    let mut durable: Vec<bool> = changes()
        .map(|change| {
            let object = change.and_then(|change| change.metadata.as_ref());
            object.is_none_or(|object| tree.sync(object).is_ok())
        })
        .collect();
    if changes().flatten().any(|change| change.metadata.is_some()) {
        Failpoint::MetadataSynced.hit();
    }
    let mut by_dir = BTreeMap::<&Place, Vec<usize>>::new();
    for (number, change) in changes().enumerate() {
        for dir in change.into_iter().flat_map(|change| &change.touched) {
            by_dir.entry(dir).or_default().push(number);
        }
    }
    for (dir, numbers) in by_dir {
        if sync_names(tree, dir).is_err() {
            for number in numbers {
                durable[number] = false;
            }
        }
    }
    Failpoint::NamesSynced.hit();
    durable
}

/// Makes the names in a directory durable: if it is gone itself (the batch may have removed it
/// last), that it is gone.
pub(crate) fn sync_names<T: Tree>(tree: &T, dir: &Place) -> Result<(), TreeError> {
    if mutant!(SkipDirSync) {
        return Ok(());
    }
    let mut dir = dir.clone();
    loop {
        match (tree.sync_dir(&dir), dir.parent()) {
            (Err(TreeError::NotFound | TreeError::WrongKind), Some(above)) => dir = above,
            (synced, _) => return synced,
        }
    }
}

/// Looks at what the changes left: none where nothing is left, or nothing to be seen.
fn look<T: Tree>(
    tree: &T,
    ops: &[Op],
    switched: &[Result<Switched<T::File>, Undone>],
) -> Vec<Option<Fingerprint>> {
    let leaves = |switched: &Result<Switched<T::File>, Undone>| {
        switched.as_ref().is_ok_and(|switched| matches!(switched.left, Left::Object(_)))
    };
    let left = ops.iter().zip(switched).filter(|(_, switched)| leaves(switched));
    let paths: Vec<_> = left.map(|(op, _)| op.path.clone()).collect();
    let mut found = tree.stat_all(&paths).into_iter();
    let next = |switched| if leaves(switched) { found.next()?.ok() } else { None };
    switched.iter().map(next).collect()
}

/// Tells what a change left, with the fingerprints by which the watcher's echo is known. What is not
/// durable, or not to be seen, was made all the same: whoever changes it from here on knew it.
fn tell<T: Tree>(
    tree: &T,
    op: &Op,
    switched: Switched<T::File>,
    durable: bool,
    found: Option<Fingerprint>,
) -> Outcome {
    let (left, is_there) = match switched.left {
        Left::Nothing => (None, true),
        Left::Object(left) => match found {
            Some(found) if is_left(&left, &found) => (Some(found), true),
            _ => (Some(left), false),
        },
    };
    // One that cannot be looked at now is this node's work all the same, as it was when it was made.
    let stat = |Made { dir, stat }: Made| match tree.stat(&Place::Share(dir.clone())) {
        Ok(found) => Some((dir, found)),
        Err(TreeError::NotFound | TreeError::WrongKind) => None,
        Err(_) => Some((dir, stat?)),
    };
    let done = Done {
        fingerprint: left,
        made: switched.made.into_iter().filter_map(stat).collect(),
        displaced: switched.displaced.and_then(|place| {
            let found = tree.stat(&place).ok()?;
            let unseen = mutant!(ReplaceUnseen);
            let expected = op.expect.filter(|expect| !unseen && !is_same_object(expect, &found));
            match (place, expected) {
                (place, None) => Some((place, found)),
                // Somebody wrote to it since it came out. In the trash that is told by the stat
                // that it should have; in the share it is what a look shows.
                (place @ Place::Trash { .. }, Some(expected)) => Some((place, expected)),
                (Place::Share(_) | Place::Temp(_), Some(_)) => None,
            }
        }),
        owner_left: switched.owner_left,
    };
    if durable && is_there { Outcome::Done(done) } else { Outcome::Unsure(done) }
}

/// True if a stat shows what was left.
fn is_left(left: &Fingerprint, found: &Fingerprint) -> bool {
    is_same_object(left, found) && left.mode == found.mode && left.same_owner(found)
}
