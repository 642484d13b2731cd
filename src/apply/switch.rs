//! Makes one guarded change under the names of the share: look, switch, look at what came out.
//!
//! **Invariant:** an object leaves its name only if it is the expected one and has no writer; what
//! came out otherwise goes back, and what cannot go back is kept.
//! **May not:** wait for the disk; that is done for the whole batch.
#![forbid(unsafe_code)]

use recsync_proto::path::COMPONENT_LEN_MAX;
use recsync_proto::{Owner, SharePath};

use super::stage::{Staged, discard, give};
use super::{Undone, is_expected, is_same_object, writer_at};
use crate::engine::{Action, IMPLIED_DIR_MODE, Op};
use crate::sys::Failpoint;
use crate::tree::{Fingerprint, Kind, OwnerLeft, Place, Tree, TreeError, Writer};

/// Names tried in the trash for one object.
const TRASH_NAMES_MAX: u32 = 8;

/// A directory that had to be made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) dir: SharePath,
    /// How it was then, if it could be looked at.
    pub(super) stat: Option<Fingerprint>,
}

/// A change that was made and is not yet durable.
#[derive(Debug)]
pub(super) struct Switched<F> {
    /// What must be at the path when all is done.
    pub(super) left: Left,
    /// Directories made above the path, the highest first.
    pub(super) made: Vec<Made>,
    /// Where the displaced object is.
    pub(super) displaced: Option<Place>,
    /// Directories whose names changed.
    pub(super) touched: Vec<Place>,
    /// The object, if its metadata changed in place.
    pub(super) metadata: Option<F>,
    /// Why the object's owner could not be set, if so.
    pub(super) owner_left: Option<OwnerLeft>,
}

/// What a change leaves at the path.
#[derive(Debug)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// This object.
    Object(Fingerprint),
}

impl<F> Switched<F> {
    fn new(left: Left) -> Self {
        Switched {
            left,
            made: Vec::new(),
            displaced: None,
            touched: Vec::new(),
            metadata: None,
            owner_left: None,
        }
    }

    /// Notes that a name was added or removed: its directory, and in the trash those above it,
    /// which may be new.
    fn touch(&mut self, place: &Place) {
        let mut next = place.parent();
        while let Some(dir) = next {
            next = match dir {
                Place::Trash { .. } => dir.parent(),
                Place::Share(_) | Place::Temp(_) => None,
            };
            self.touched.push(dir);
        }
    }
}

/// Makes an operation's change. After an error the tree is as the outcome says, but for `staged`,
/// which is where it was unless it was lost to somebody.
pub(super) fn switch<T: Tree>(
    tree: &T,
    op: &Op,
    staged: Option<&Staged>,
) -> Result<Switched<T::File>, Undone> {
    let mut made = Vec::new();
    let switched = match (&op.action, staged) {
        (Action::Remove, _) => remove(tree, op),
        (Action::Move { from, from_expect, mtime_ns, mode, owner }, _) => {
            let dress = Dress { mode: *mode, mtime_ns: Some(*mtime_ns), owner: owner.as_ref() };
            rename(tree, op, from, from_expect, dress, &mut made)
        }
        (Action::Metadata { mode, mtime_ns, owner }, _) => {
            let dress = Dress { mode: *mode, mtime_ns: *mtime_ns, owner: owner.as_ref() };
            metadata(tree, op, dress)
        }
        (Action::Dir { mode, owner }, None) if op.expect.is_some() => {
            let dress = Dress { mode: Some(*mode), mtime_ns: None, owner: owner.as_ref() };
            metadata(tree, op, dress)
        }
        (Action::File { .. } | Action::Symlink { .. } | Action::Dir { .. }, Some(staged)) => {
            match &op.expect {
                None => put(tree, op, staged, &mut made),
                Some(expect) => replace(tree, op, expect, staged),
            }
        }
        (Action::File { .. } | Action::Symlink { .. } | Action::Dir { .. }, None) => {
            Err(bug("nothing was staged for it"))
        }
    };
    match switched {
        Ok(mut switched) => {
            let staged = staged.and_then(|staged| staged.owner_left);
            switched.owner_left = switched.owner_left.or(staged);
            for Made { dir, .. } in &made {
                switched.touch(&Place::Share(dir.clone()));
            }
            switched.made = made;
            Ok(switched)
        }
        Err(why) => {
            for Made { dir, .. } in made.into_iter().rev() {
                // Somebody may use it already.
                let _in_use = tree.remove_dir(&Place::Share(dir));
            }
            Err(why)
        }
    }
}

/// Makes the directories above a path that are not there.
pub(super) fn make_above<T: Tree>(
    tree: &T,
    path: &SharePath,
    made: &mut Vec<Made>,
) -> Result<(), Undone> {
    let mut missing = Vec::new();
    let mut above = None;
    for dir in path.ancestors() {
        match tree.stat(&Place::Share(dir.clone())) {
            Ok(found) if found.kind == Kind::Dir => {
                above = Some(found);
                break;
            }
            Ok(_) => return Err(Undone::Changed),
            Err(TreeError::NotFound) => missing.push(dir),
            Err(error) => return Err(refused(error)),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let above = match above {
        Some(found) => found,
        None => tree.stat(&Place::Share(SharePath::root())).map_err(refused)?,
    };
    for dir in missing.into_iter().rev() {
        let place = Place::Share(dir.clone());
        match tree.make_dir(&place, IMPLIED_DIR_MODE) {
            Ok(()) => {
                Failpoint::ParentMade.hit();
                made.push(Made { stat: inherit(tree, &place, &above), dir });
            }
            // Somebody made it in this instant; if it is no directory, the next call says so.
            Err(TreeError::Exists) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Ok(())
}

/// Gives a directory that only had to be there to the owner of the one above, who may want to
/// write in it before its own record comes. Best effort: that record brings the real one. Returns how it
/// stats then, if it could be looked at.
fn inherit<T: Tree>(tree: &T, place: &Place, above: &Fingerprint) -> Option<Fingerprint> {
    let made = tree.stat(place).ok()?;
    let owner = tree.owner(above).filter(|_| !made.same_owner(above));
    let given = owner.is_some_and(|owner| matches!(tree.set_owner_of(place, &owner), Ok(None)));
    let (uid, gid) = if given { (above.uid, above.gid) } else { (made.uid, made.gid) };
    Some(Fingerprint { uid, gid, ..made })
}

/// Puts a staged object under a free name, and makes the directories above it if they are not there.
fn put<T: Tree>(
    tree: &T,
    op: &Op,
    staged: &Staged,
    made: &mut Vec<Made>,
) -> Result<Switched<T::File>, Undone> {
    let (path, temp) = (Place::Share(op.path.clone()), Place::Temp(staged.name.clone()));
    let mut put = tree.rename(&temp, &path);
    if put == Err(TreeError::NotFound) {
        make_above(tree, &op.path, made)?;
        put = tree.rename(&temp, &path);
    }
    if mutant!(OverwriteNewName) && put == Err(TreeError::Exists) {
        put = tree.exchange(&temp, &path);
    }
    put.map_err(refused)?;
    Failpoint::Put.hit();
    let mut switched = Switched::new(Left::Object(staged.stat));
    switched.touch(&path);
    Ok(switched)
}

/// Exchanges a staged object with the expected one.
fn replace<T: Tree>(
    tree: &T,
    op: &Op,
    expect: &Fingerprint,
    staged: &Staged,
) -> Result<Switched<T::File>, Undone> {
    let (path, temp) = (Place::Share(op.path.clone()), Place::Temp(staged.name.clone()));
    expect_at(tree, &path, expect)?;
    if expect.kind == Kind::Dir {
        // The last word is had after the exchange; this keeps a directory in use from vanishing
        // for that instant.
        if !tree.list(&path).map_err(refused)?.is_empty() {
            return Err(Undone::Changed);
        }
    } else {
        place_for_displaced(op)?;
    }
    tree.exchange(&temp, &path).map_err(refused)?;
    Failpoint::Exchanged.hit();
    let displaced = move_displaced(tree, op, expect, &temp)
        .or_else(|why| put_back(tree, op, expect, staged, why))?;
    let mut switched = Switched::new(Left::Object(staged.stat));
    switched.touch(&path);
    if let Some(place) = &displaced {
        switched.touch(place);
    }
    switched.displaced = displaced;
    Ok(switched)
}

/// Looks at what came out of an exchange and moves it on to where it belongs: nowhere for an empty
/// directory, which is removed.
fn move_displaced<T: Tree>(
    tree: &T,
    op: &Op,
    expect: &Fingerprint,
    temp: &Place,
) -> Result<Option<Place>, Undone> {
    expect_object_at(tree, temp, expect)?;
    if expect.kind == Kind::Dir {
        tree.remove_dir(temp).map_err(refused)?;
        return Ok(None);
    }
    let place = move_to(tree, temp, place_for_displaced(op)?)?;
    Failpoint::Displaced.hit();
    Ok(Some(place))
}

/// Takes back an exchange whose other half was not what it should be, or could not be moved on: where there
/// is no way back, that is tried once more, and what is displaced then returned; where somebody has written to the new
/// object by then, it stays, and the other one is kept. What is left under the temporary name is [`clear`]'s.
fn put_back<T: Tree>(
    tree: &T,
    op: &Op,
    expect: &Fingerprint,
    staged: &Staged,
    why: Undone,
) -> Result<Option<Place>, Undone> {
    let (path, temp) = (Place::Share(op.path.clone()), Place::Temp(staged.name.clone()));
    match tree.exchange(&temp, &path) {
        // Somebody removed the new object at once, perhaps with its directory: the name is free.
        Err(TreeError::NotFound) => {
            return Err(bring(tree, &temp, &path).map_or(Undone::Changed, |_| why));
        }
        Err(_) => {
            return move_displaced(tree, op, expect, &temp)
                .or_else(|_| if keep(tree, op, &temp) { Ok(None) } else { Err(Undone::Changed) });
        }
        Ok(()) => {}
    }
    match tree.stat(&temp) {
        Ok(found) if is_untouched(tree, staged, &found) => Err(why),
        Ok(found) => {
            // Somebody put a third object under the name in that instant, or wrote to ours there:
            // the latest, so it belongs there, and the other one is kept.
            let is_back = tree.exchange(&temp, &path).is_ok();
            // Whoever wrote to ours knew it: it has been put there.
            let is_ours = found.same_inode(&staged.stat);
            let made = is_ours && is_back && keep(tree, op, &temp);
            if made { Ok(None) } else { Err(Undone::Changed) }
        }
        Err(_) => Err(Undone::Changed),
    }
}

/// Clears away what an operation that was not done has left under its temporary name: the staged
/// object is discarded, one that came out and has no way back is kept. False if one that came out may
/// have stayed there: the next start deals with it.
pub(super) fn clear<T: Tree>(tree: &T, op: &Op, staged: &Staged) -> bool {
    let temp = Place::Temp(staged.name.clone());
    // What was to have a free name has had none in the share.
    let is_ours = |found| op.expect.is_none() || is_untouched(tree, staged, &found);
    match tree.stat(&temp) {
        // Whether somebody has put something into it is told best by the kernel.
        Ok(found) if found.kind == Kind::Dir && is_same_object(&staged.stat, &found) => {
            match tree.remove_dir(&temp) {
                Err(TreeError::NotEmpty) => keep(tree, op, &temp),
                removed => removed.is_ok(),
            }
        }
        Ok(found) if is_ours(found) => {
            discard(tree, staged);
            true
        }
        Ok(_) => keep(tree, op, &temp),
        Err(error) => error == TreeError::NotFound,
    }
}

/// True if a stat of the temporary shows the staged object, and nobody has written to it or put
/// something into it while it had its name in the share.
fn is_untouched<T: Tree>(tree: &T, staged: &Staged, found: &Fingerprint) -> bool {
    let temp = Place::Temp(staged.name.clone());
    is_same_object(&staged.stat, found)
        && match found.kind {
            Kind::Dir => tree.list(&temp).map_or(true, |names| names.is_empty()),
            kind => writer_at(tree, &temp, kind) != Ok(Writer::Some),
        }
}

/// Keeps an object that came out and has no way back: the expected one where it was to go, one of
/// somebody's beside the name that it had, where a look finds it; and if that cannot be, anywhere.
/// False if it stays where it is.
fn keep<T: Tree>(tree: &T, op: &Op, from: &Place) -> bool {
    let beside = Place::Share(op.beside.clone());
    let is_expected = op.expect.is_some_and(|expect| expect_object_at(tree, from, &expect).is_ok());
    let mut places: Vec<&Place> = std::iter::once(&beside).chain(&op.displaced).collect();
    if is_expected {
        places.reverse();
    }
    places.into_iter().any(|place| place == from || bring(tree, from, place).is_ok())
}

fn remove<T: Tree>(tree: &T, op: &Op) -> Result<Switched<T::File>, Undone> {
    let path = Place::Share(op.path.clone());
    let Some(expect) = &op.expect else { return Err(Undone::Changed) };
    if mutant!(DeleteUnseen) && expect.kind != Kind::Dir {
        move_to(tree, &path, place_for_displaced(op)?)?;
        return Ok(Switched::new(Left::Nothing));
    }
    expect_at(tree, &path, expect)?;
    let mut switched = Switched::new(Left::Nothing);
    switched.touch(&path);
    if expect.kind == Kind::Dir {
        tree.remove_dir(&path).map_err(refused)?;
        Failpoint::DirRemoved.hit();
        return Ok(switched);
    }
    let place = move_to(tree, &path, place_for_displaced(op)?)?;
    Failpoint::Displaced.hit();
    if let Err(why) = expect_object_at(tree, &place, expect) {
        if tree.rename(&place, &path).is_ok() {
            return Err(why);
        }
        // Its name is taken again.
        keep(tree, op, &place);
        return Err(Undone::Changed);
    }
    switched.touch(&place);
    switched.displaced = Some(place);
    Ok(switched)
}

fn rename<T: Tree>(
    tree: &T,
    op: &Op,
    from: &SharePath,
    from_expect: &Fingerprint,
    dress: Dress<'_>,
    made: &mut Vec<Made>,
) -> Result<Switched<T::File>, Undone> {
    if op.expect.is_some() {
        return Err(bug("a rename cannot replace"));
    }
    make_above(tree, &op.path, made)?;
    let (from, path) = (Place::Share(from.clone()), Place::Share(op.path.clone()));
    expect_at(tree, &from, from_expect)?;
    tree.rename(&from, &path).map_err(refused)?;
    Failpoint::Renamed.hit();
    let moved = tree.stat(&path).unwrap_or(*from_expect);
    let dressed = expect_object_at(tree, &path, from_expect)
        .and_then(|()| dress.put_on(tree, &path, from_expect));
    let Dressed { stat, object, owner_left } = match dressed {
        Ok(dressed) => dressed,
        Err(why) => {
            // What somebody put under the new name since stays there. If the old name is taken again,
            // or the way back refused, what was moved keeps the new one.
            match tree.stat(&path) {
                Ok(found) if found.same_inode(&moved) => {
                    if tree.rename(&path, &from).is_ok() {
                        return Err(why);
                    }
                }
                Ok(_) | Err(TreeError::NotFound) => return Err(Undone::Changed),
                Err(_) => {}
            }
            if !moved.same_inode(from_expect) {
                return Err(Undone::Changed);
            }
            let mtime_ns = dress.mtime_ns.unwrap_or(from_expect.mtime_ns);
            let mode = dress.mode.unwrap_or(from_expect.mode);
            let stat = Fingerprint { mtime_ns, mode, ..*from_expect };
            Dressed { stat, object: None, owner_left: None }
        }
    };
    let mut switched = Switched::new(Left::Object(stat));
    switched.touch(&from);
    switched.touch(&path);
    switched.metadata = object;
    switched.owner_left = owner_left;
    Ok(switched)
}

fn metadata<T: Tree>(tree: &T, op: &Op, dress: Dress<'_>) -> Result<Switched<T::File>, Undone> {
    let path = Place::Share(op.path.clone());
    let Some(expect) = &op.expect else { return Err(Undone::Changed) };
    expect_at(tree, &path, expect)?;
    let Dressed { stat, object, owner_left } = dress.put_on(tree, &path, expect)?;
    let mut switched = Switched::new(Left::Object(stat));
    if object.is_none() {
        switched.touch(&path);
    }
    switched.metadata = object;
    switched.owner_left = owner_left;
    Ok(switched)
}

/// The metadata that an object is to have: none leaves what is there.
#[derive(Debug, Clone, Copy)]
struct Dress<'a> {
    mode: Option<u32>,
    mtime_ns: Option<i64>,
    owner: Option<&'a Owner>,
}

/// An object whose metadata was set.
struct Dressed<F> {
    /// How it stats then.
    stat: Fingerprint,
    /// To be synced; none for a symbolic link, which has no descriptor to sync.
    object: Option<F>,
    owner_left: Option<OwnerLeft>,
}

impl Dress<'_> {
    /// Sets the metadata of an expected object, all or nothing but for an owner that may not be
    /// set here.
    fn put_on<T: Tree>(
        self,
        tree: &T,
        place: &Place,
        expect: &Fingerprint,
    ) -> Result<Dressed<T::File>, Undone> {
        if expect.kind == Kind::Symlink {
            let owner_left =
                give(self.owner, |owner| tree.set_owner_of(place, owner)).map_err(refused)?;
            if let Some(mtime_ns) = self.mtime_ns {
                tree.set_mtime_of(place, mtime_ns).map_err(refused)?;
            }
            let stat = tree.stat(place).map_err(|_| Undone::Changed)?;
            let mtime_ns = self.mtime_ns.unwrap_or(expect.mtime_ns);
            let is_it = stat.kind == expect.kind && stat.same_inode(expect);
            // By its name: somebody may have put something else there in that instant.
            if !is_it || !is_dressed(&Fingerprint { mtime_ns, ..*expect }, &stat) {
                return Err(Undone::Changed);
            }
            return Ok(Dressed { stat, object: None, owner_left });
        }
        let object = tree.open_for_metadata(place).map_err(refused)?;
        // Looked at through the descriptor and just before: a write that came between would be
        // hidden by the time that is set now.
        let before = tree.stat_file(&object).map_err(refused)?;
        // So would be a mode or an owner that somebody set and nobody has looked at.
        let is_known = before.mode == expect.mode && before.same_owner(expect);
        if !is_same_object(expect, &before) || !is_known {
            return Err(Undone::Changed);
        }
        // Setting what is set already would only hide a write.
        let mtime_ns = self.mtime_ns.filter(|&mtime_ns| mtime_ns != before.mtime_ns);
        if let Some(mtime_ns) = mtime_ns {
            tree.set_mtime(&object, mtime_ns).map_err(refused)?;
            Failpoint::MtimeSet.hit();
        }
        let mode = self.mode.unwrap_or(before.mode);
        // The owner first: giving a file away takes its set-id bits.
        let given = give(self.owner, |owner| tree.set_owner(&object, owner)).and_then(|left| {
            Failpoint::OwnerSet.hit();
            if self.mode.is_some() || self.owner.is_some() {
                tree.set_mode(&object, mode)?;
            }
            Ok(left)
        });
        let owner_left = match given {
            Ok(owner_left) => owner_left,
            Err(error) => {
                let undone = mtime_ns.is_none() || tree.set_mtime(&object, before.mtime_ns).is_ok();
                return Err(if undone { refused(error) } else { Undone::Changed });
            }
        };
        let wanted = Fingerprint { mtime_ns: mtime_ns.unwrap_or(before.mtime_ns), mode, ..before };
        let is_given = |stat: &Fingerprint| match self.owner.filter(|_| owner_left.is_none()) {
            None => self.owner.is_some() || stat.same_owner(&before),
            Some(owner) => tree.owner(stat).is_none_or(|found| found == *owner),
        };
        match tree.stat_file(&object) {
            Ok(stat) if is_dressed(&wanted, &stat) && is_given(&stat) => {
                Failpoint::Dressed.hit();
                Ok(Dressed { stat, object: Some(object), owner_left })
            }
            _ => Err(Undone::Changed),
        }
    }
}

/// True if nobody changed an object while its metadata was set. A filesystem may store a time
/// coarser, down to two seconds, and the kernel may drop the bits beyond the permissions.
fn is_dressed(wanted: &Fingerprint, after: &Fingerprint) -> bool {
    const COARSEST_NS: i64 = 2_000_000_000;
    let permissions = wanted.mode & 0o777 == after.mode & 0o777;
    let lost_ns = wanted.mtime_ns.saturating_sub(after.mtime_ns);
    let same_file = after.size == wanted.size && (0..COARSEST_NS).contains(&lost_ns);
    permissions && (wanted.kind == Kind::Dir || same_file)
}

/// Checks that a name holds the expected object, and that nobody writes to it.
fn expect_at<T: Tree>(tree: &T, place: &Place, expect: &Fingerprint) -> Result<(), Undone> {
    expect_by(tree, place, expect, is_expected)
}

/// Checks that what was just moved is the expected object, and that nobody writes to it.
fn expect_object_at<T: Tree>(tree: &T, place: &Place, expect: &Fingerprint) -> Result<(), Undone> {
    expect_by(tree, place, expect, is_same_object)
}

/// First the writers, for one that is gone then has left its mark in the stat; and the stat last, for
/// whoever comes after it and puts the mtime back is not seen any more.
fn expect_by<T: Tree>(
    tree: &T,
    place: &Place,
    expect: &Fingerprint,
    is_it: fn(&Fingerprint, &Fingerprint) -> bool,
) -> Result<(), Undone> {
    if mutant!(ReplaceUnseen) {
        return Ok(());
    }
    let writer = writer_at(tree, place, expect.kind).map_err(refused)?;
    if !is_it(expect, &tree.stat(place).map_err(refused)?) {
        return Err(Undone::Changed);
    }
    if writer == Writer::Some { Err(Undone::Writer) } else { Ok(()) }
}

fn place_for_displaced(op: &Op) -> Result<&Place, Undone> {
    op.displaced.as_ref().ok_or_else(|| bug("there is no place for what it displaces"))
}

/// Moves an object to a free name, into directories that are made if they are gone. Returns where.
fn bring<T: Tree>(tree: &T, from: &Place, to: &Place) -> Result<Place, Undone> {
    if let Place::Share(path) = to {
        make_above(tree, path, &mut Vec::new())?;
    }
    move_to(tree, from, to)
}

/// Moves an object to a free name: in the trash another one if the name is taken. Returns where.
pub(super) fn move_to<T: Tree>(tree: &T, from: &Place, to: &Place) -> Result<Place, Undone> {
    let mut tried = to.clone();
    let mut attempt = 1;
    loop {
        match (tree.rename(from, &tried), to) {
            (Ok(()), _) => return Ok(tried),
            (Err(TreeError::Exists), Place::Trash { day, path }) if attempt < TRASH_NAMES_MAX => {
                tried = Place::Trash { day: day.clone(), path: suffixed(path, attempt) };
                attempt += 1;
            }
            (Err(error), _) => return Err(refused(error)),
        }
    }
}

/// Returns a path with `~NUMBER` after its name, which is cut to fit.
fn suffixed(path: &SharePath, number: u32) -> SharePath {
    let suffix = format!("~{number}");
    let name = path.name();
    let kept = &name[..name.len().min(COMPONENT_LEN_MAX - suffix.len())];
    let name = [kept, suffix.as_bytes()].concat();
    // A path at the very limit has no room for the suffix: it loses its directories.
    path.parent().join(&name).or_else(|_| SharePath::new(name)).unwrap_or_else(|_| path.clone())
}

/// Tells what a refusal means: the tree is not what it was thought to be, or it cannot be done.
fn refused(error: TreeError) -> Undone {
    match error {
        TreeError::NotFound | TreeError::Exists | TreeError::NotEmpty | TreeError::WrongKind => {
            Undone::Changed
        }
        error => Undone::Failed(error),
    }
}

/// An operation that makes no sense: nothing is done.
fn bug(what: &str) -> Undone {
    Undone::Failed(TreeError::Io(format!("recsync planned what cannot be done: {what}")))
}
