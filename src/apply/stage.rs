//! Makes the new objects of a batch in `.recsync/tmp`: verified, with their metadata, durable.
//!
//! **Invariant:** what is staged is complete, holds the bytes it should, and is synced.
//! **May not:** touch a name of the share, but to read a file's bytes.
#![forbid(unsafe_code)]

use recsync_proto::{Hash, Owner, SharePath};

use super::{Undone, exchanged_name, part_name};
use crate::engine::{Action, Op, Source};
use crate::observe::{ReadError, hash, is_hash_of};
use crate::sys::Failpoint;
use crate::tree::{Fingerprint, Kind, OwnerLeft, Place, Tree, TreeError};

/// An object that is ready to be switched in.
#[derive(Debug)]
pub(super) struct Staged {
    /// Its name in `.recsync/tmp`.
    pub(super) name: String,
    /// How it stats.
    pub(super) stat: Fingerprint,
    /// Why its owner could not be set, if so.
    pub(super) owner_left: Option<OwnerLeft>,
    /// The name that a transfer's file had: it gets it back if it is not used.
    transfer: Option<String>,
}

/// A file that is written but not yet synced.
struct Written<F> {
    name: String,
    file: F,
    owner_left: Option<OwnerLeft>,
    transfer: Option<String>,
}

/// An object on its way to being staged.
enum Making<F> {
    Written(Written<F>),
    Staged(Staged),
}

/// Stages what each operation puts in place: none for one that puts nothing. The files' syncs
/// are started together, so that they wait for the disk once.
pub(super) fn stage<T: Tree>(tree: &T, ops: &[Op]) -> Vec<Result<Option<Staged>, Undone>> {
    let making: Vec<_> = ops.iter().map(|op| make(tree, op)).collect();
    let staged = making.into_iter().map(|making| match making? {
        None => Ok(None),
        Some(Making::Staged(staged)) => Ok(Some(staged)),
        Some(Making::Written(written)) => finish(tree, written).map(Some),
    });
    let staged: Vec<_> = staged.collect();
    ops.iter().zip(staged).map(|(op, staged)| name_for_exchange(tree, op, staged?)).collect()
}

/// Removes a staged object that is not used, or gives a transfer its file back. Best effort: what
/// stays is found at the next start.
pub(super) fn discard<T: Tree>(tree: &T, staged: &Staged) {
    let place = Place::Temp(staged.name.clone());
    let _left = match &staged.transfer {
        Some(transfer) if *transfer == staged.name => Ok(()),
        Some(transfer) => tree.rename(&place, &Place::Temp(transfer.clone())),
        None if staged.stat.kind == Kind::Dir => tree.remove_dir(&place),
        None => tree.remove_private(&place),
    };
}

fn make<T: Tree>(tree: &T, op: &Op) -> Result<Option<Making<T::File>>, Undone> {
    let name = part_name(op.id);
    match &op.action {
        Action::File { size, hash, mtime_ns, mode, owner, source } => {
            let mut written = match source {
                Source::Staged(transfer) => take_transfer(tree, transfer, *size)?,
                Source::Inline(bytes) => write_inline(tree, name, bytes, *size, *hash)?,
                Source::Local(from) => copy_local(tree, name, from, *size, *hash)?,
            };
            // The owner first: giving a file away takes its set-id bits.
            let dressed = give(owner.as_ref(), |owner| tree.set_owner(&written.file, owner))
                .and_then(|left| tree.set_mode(&written.file, *mode).map(|()| left))
                .and_then(|left| tree.set_mtime(&written.file, *mtime_ns).map(|()| left));
            match dressed {
                Ok(left) => written.owner_left = left,
                Err(error) => {
                    drop_written(tree, written);
                    return Err(Undone::Failed(error));
                }
            }
            Failpoint::StageWritten.hit();
            tree.start_sync(&written.file);
            Ok(Some(Making::Written(written)))
        }
        Action::Symlink { target, mtime_ns, owner } => {
            let place = Place::Temp(name.clone());
            or_again(|| tree.make_link(&place, target), || tree.remove_private(&place))?;
            let stat = give(owner.as_ref(), |owner| tree.set_owner_of(&place, owner))
                .and_then(|left| tree.set_mtime_of(&place, *mtime_ns).map(|()| left))
                .and_then(|left| Ok((tree.stat(&place)?, left)));
            staged_now(name, stat, || tree.remove_private(&place))
        }
        // Made where nobody can change its mode in the instant before it is looked at, nor write in
        // it before it is given to whose it is.
        Action::Dir { mode, owner } if op.expect.is_none_or(|expect| expect.kind != Kind::Dir) => {
            let place = Place::Temp(name.clone());
            or_again(|| tree.make_dir(&place, *mode), || tree.remove_dir(&place))?;
            let stat = give(owner.as_ref(), |owner| tree.set_owner_of(&place, owner))
                .and_then(|left| Ok((tree.stat(&place)?, left)));
            staged_now(name, stat, || tree.remove_dir(&place))
        }
        Action::Dir { .. } | Action::Remove | Action::Move { .. } | Action::Metadata { .. } => {
            Ok(None)
        }
    }
}

/// Gives an object to its owner, if there is one to give it to.
pub(super) fn give(
    owner: Option<&Owner>,
    set: impl FnOnce(&Owner) -> Result<Option<OwnerLeft>, TreeError>,
) -> Result<Option<OwnerLeft>, TreeError> {
    owner.map_or(Ok(None), set)
}

/// Makes something; if an earlier attempt left its name behind, removes that first.
fn or_again<R>(
    make: impl Fn() -> Result<R, TreeError>,
    remove: impl Fn() -> Result<(), TreeError>,
) -> Result<R, Undone> {
    let made = match make() {
        Err(TreeError::Exists) => remove().and_then(|()| make()),
        made => made,
    };
    made.map_err(Undone::Failed)
}

fn staged_now<F>(
    name: String,
    stat: Result<(Fingerprint, Option<OwnerLeft>), TreeError>,
    remove: impl Fn() -> Result<(), TreeError>,
) -> Result<Option<Making<F>>, Undone> {
    match stat {
        Ok((stat, owner_left)) => {
            Ok(Some(Making::Staged(Staged { name, stat, owner_left, transfer: None })))
        }
        Err(error) => {
            let _left = remove();
            Err(Undone::Failed(error))
        }
    }
}

fn take_transfer<T: Tree>(tree: &T, name: &str, size: u64) -> Result<Written<T::File>, Undone> {
    let file = match tree.open_temp(name) {
        Ok(file) => file,
        Err(TreeError::NotFound | TreeError::WrongKind) => return Err(Undone::BadSource),
        Err(error) => return Err(Undone::Failed(error)),
    };
    match tree.stat_file(&file) {
        Ok(stat) if stat.size == size => {
            let transfer = Some(name.to_owned());
            Ok(Written { name: name.to_owned(), file, owner_left: None, transfer })
        }
        Ok(_) => Err(Undone::BadSource),
        Err(error) => Err(Undone::Failed(error)),
    }
}

fn write_inline<T: Tree>(
    tree: &T,
    name: String,
    bytes: &[u8],
    size: u64,
    hash: Hash,
) -> Result<Written<T::File>, Undone> {
    if bytes.len() as u64 != size || !is_hash_of(hash, bytes) {
        return Err(Undone::BadSource);
    }
    let written = create(tree, name)?;
    match tree.write_at(&written.file, 0, bytes) {
        Ok(()) => Ok(written),
        Err(error) => {
            drop_written(tree, written);
            Err(Undone::Failed(error))
        }
    }
}

fn copy_local<T: Tree>(
    tree: &T,
    name: String,
    from: &SharePath,
    size: u64,
    expected: Hash,
) -> Result<Written<T::File>, Undone> {
    // Whatever keeps the other file from being read, the bytes can be had elsewhere.
    let Ok(source) = tree.open(&Place::Share(from.clone())) else {
        return Err(Undone::BadSource);
    };
    if tree.stat_file(&source).map(|stat| stat.size) != Ok(size) {
        return Err(Undone::BadSource);
    }
    let written = create(tree, name)?;
    let copied = tree.copy_range(&source, &written.file, 0, size);
    let why = match copied.map(|copied| copied == size) {
        // The source may have changed while it was copied: what counts is the copy.
        Ok(true) => match hash(tree, &written.file, size) {
            Ok(found) if found == expected => return Ok(written),
            Ok(_) | Err(ReadError::Short) => Undone::BadSource,
            Err(ReadError::Tree(error)) => Undone::Failed(error),
        },
        Ok(false) => Undone::BadSource,
        Err(error @ (TreeError::NoSpace | TreeError::ReadOnly)) => Undone::Failed(error),
        Err(_) => Undone::BadSource,
    };
    drop_written(tree, written);
    Err(why)
}

fn create<T: Tree>(tree: &T, name: String) -> Result<Written<T::File>, Undone> {
    let place = Place::Temp(name.clone());
    let file = or_again(|| tree.create_temp(&name), || tree.remove_private(&place))?;
    Ok(Written { name, file, owner_left: None, transfer: None })
}

/// Syncs a file and closes it: with it open for writing, the probe for writers would find us.
fn finish<T: Tree>(tree: &T, written: Written<T::File>) -> Result<Staged, Undone> {
    let synced = if mutant!(SkipFileSync) { Ok(()) } else { tree.sync(&written.file) };
    match synced.and_then(|()| tree.stat_file(&written.file)) {
        Ok(stat) => {
            Failpoint::StageSynced.hit();
            let Written { name, owner_left, transfer, .. } = written;
            Ok(Staged { name, stat, owner_left, transfer })
        }
        Err(error) => {
            // After a failed sync the kernel may call lost pages clean: these bytes are done for,
            // a transfer's too.
            let _left = tree.remove_private(&Place::Temp(written.name));
            Err(Undone::Failed(error))
        }
    }
}

/// Removes a file that is not to be used, but for a transfer's.
fn drop_written<T: Tree>(tree: &T, written: Written<T::File>) {
    if written.transfer.is_none() {
        let _left = tree.remove_private(&Place::Temp(written.name));
    }
}

/// Gives the object that is to be exchanged the name under which recovery looks at it first.
fn name_for_exchange<T: Tree>(
    tree: &T,
    op: &Op,
    staged: Option<Staged>,
) -> Result<Option<Staged>, Undone> {
    let Some(mut staged) = staged else { return Ok(None) };
    if op.expect.is_some() {
        let name = exchanged_name(op.id);
        let (from, to) = (Place::Temp(staged.name.clone()), Place::Temp(name.clone()));
        if let Err(error) = tree.rename(&from, &to) {
            discard(tree, &staged);
            return Err(Undone::Failed(error));
        }
        Failpoint::StageNamed.hit();
        staged.name = name;
    }
    Ok(Some(staged))
}
