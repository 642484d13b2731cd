//! Cleans up after a crash, before anything else touches the share.
//!
//! For each intent: what lies under the operation's temporary name is the staged object (dropped),
//! the expected object (moved on to where it was to go), or a local change that came out of the
//! exchange in that instant (kept). Then whatever else is in `.recsync/tmp`.
//!
//! **Invariant:** may itself be stopped anywhere and run again; an intent is reported as done only
//! when its names are durable; nothing but what recsync made is removed.
//! **May not:** write the index.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use recsync_proto::message::INLINE_LEN_MAX;
use recsync_proto::{Content, SharePath};
use thiserror::Error;

use super::run::sync_names;
use super::switch::{Made, make_above, move_to};
use super::{exchanged_id, exchanged_name, is_same_object, writer_at};
use crate::engine::{Hint, Input, Noticed};
use crate::index::{IndexError, IndexRead, Intent, Write};
use crate::observe::{ReadError, hash};
use crate::sys::Failpoint;
use crate::transfer::{transfer_name, transfer_of};
use crate::tree::{Fingerprint, Kind, Place, RootError, Tree, TreeError, Writer, trash_place};

/// Interrupted transfers are kept this long, by their ctime: whoever fetches the same bytes again
/// goes on from there.
const TRANSFER_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How many names are tried for a local change that is to be kept in the share.
const NAMES_MAX: usize = 8;

/// What recovery found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Numbers of the intents that are settled.
    pub done: Vec<u64>,
    /// Intents whose exchange was made: what was staged has been at their paths. Those that say so, as it is
    /// durable, stay until the path was looked at.
    pub exchanged: Vec<Intent>,
    /// Intents of which nobody can tell any more whether their exchange was made: what it displaced is neither under
    /// the temporary name nor where it was to go, nor at the path, or it is another object by now. They stay until the
    /// path was looked at: its bytes tell.
    pub perhaps: Vec<Intent>,
    /// Intents that could not be settled, and are to be tried again ([`settle_again`]).
    pub unsettled: Vec<Intent>,
    /// Paths that may hold something else than the index knows: to be looked at.
    pub dirty: Vec<SharePath>,
    /// Temporaries removed.
    pub removed: u64,
    /// Objects that nothing accounts for, and where they are kept.
    pub kept: Vec<Place>,
    /// What could not be done, and why.
    pub troubles: Vec<(Place, TreeError)>,
}

impl Recovered {
    /// Returns what is to be stored of it before anything else is done.
    pub fn writes(&self) -> impl Iterator<Item = Write> {
        let made = self.exchanged.iter().filter(|intent| intent.made).cloned();
        self.done.iter().copied().map(Write::IntentDone).chain(made.map(Write::Intent))
    }

    /// Returns what the engine of a running share is to be told of it ([`settle_again`]).
    pub fn inputs(self) -> Vec<Input> {
        let Recovered { done, exchanged, perhaps, unsettled, dirty, .. } = self;
        let unread = unsettled.into_iter().map(|intent| Input::Unreadable(intent.path));
        let is_any = !exchanged.is_empty() || !perhaps.is_empty() || !done.is_empty();
        let settled = is_any.then_some(Input::Settled { exchanged, perhaps, done });
        let (hint, noticed) = (Hint::Written, Noticed::Scan);
        let dirty = dirty.into_iter().map(|path| Input::Dirty { path, hint, noticed });
        unread.chain(settled).chain(dirty).collect()
    }
}

/// Why recovery could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecoverError {
    /// The share may not be touched.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The index did not answer.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// `.recsync/tmp` cannot be listed.
    #[error("cannot list .recsync/tmp: {0}")]
    Temp(TreeError),
}

/// Settles what a crash left between the intents of the index and the tree.
///
/// `wall_ns` is the wall clock now and `day` its UTC day (`YYYY-MM-DD`), for what goes to the trash;
/// `keep_as` names the file in the share in which a local change at a path is kept if the path itself is
/// taken; asked again with the name it gave, it gives another.
///
/// # Errors
/// If the root is not fit to be touched, the index does not answer, or the temporaries cannot be
/// listed. Trouble with a single object is told in the report instead.
pub fn recover<T: Tree, I: IndexRead>(
    tree: &T,
    index: &I,
    wall_ns: i64,
    day: &str,
    keep_as: impl Fn(&SharePath) -> SharePath,
) -> Result<Recovered, RecoverError> {
    tree.check_root()?;
    let mut recovery = Recovery::new(tree, day, &keep_as);
    recovery.settle_all(index.intents()?);
    let unsettled: BTreeSet<u64> =
        recovery.report.unsettled.iter().map(|intent| intent.id).collect();
    for name in tree.list_temp().map_err(RecoverError::Temp)? {
        if exchanged_id(&name).is_none_or(|id| !unsettled.contains(&id))
            && let Err(error) = recovery.sweep(&name, wall_ns)
        {
            recovery.trouble(Place::Temp(name), error);
        }
    }
    Failpoint::RecoverSwept.hit();
    recovery.make_durable();
    Failpoint::RecoverSynced.hit();
    Ok(recovery.report)
}

/// Tries again to settle the intents of `left` at and below `dir`; to be called with each scan of the running daemon.
/// What is settled is taken out of `left`. What is moved takes free names only: operations under way meet it as they
/// meet what users do.
pub fn settle_again<T: Tree>(
    tree: &T,
    left: &mut Vec<Intent>,
    dir: &SharePath,
    day: &str,
    keep_as: impl Fn(&SharePath) -> SharePath,
) -> Recovered {
    let mut recovery = Recovery::new(tree, day, &keep_as);
    let tried: Vec<_> = left.extract_if(.., |intent| intent.path.is_at_or_below(dir)).collect();
    if !tried.is_empty() && tree.check_root().is_ok() {
        recovery.settle_all(tried.clone());
        recovery.make_durable();
    }
    let mut report = recovery.report;
    report.exchanged.retain(|intent| intent.made);
    let settled = report.exchanged.iter().chain(&report.perhaps).map(|intent| intent.id);
    let settled: BTreeSet<u64> = settled.chain(report.done.iter().copied()).collect();
    report.unsettled = tried;
    report.unsettled.retain(|intent| !settled.contains(&intent.id));
    left.extend(report.unsettled.iter().cloned());
    report
}

/// Removes transfers that nobody took up again for seven days; to be called now and then while
/// the daemon runs. Returns how many. Best effort.
pub fn sweep_transfers<T: Tree>(tree: &T, wall_ns: i64) -> u64 {
    let names = tree.list_temp().unwrap_or_default();
    let old =
        names.iter().filter(|name| transfer_of(name).is_some() && is_old(tree, name, wall_ns));
    old.map(|name| u64::from(tree.remove_private(&Place::Temp(name.clone())).is_ok())).sum()
}

/// By ctime: the mtime of a complete transfer may have been set to the recording's own.
fn is_old<T: Tree>(tree: &T, name: &str, wall_ns: i64) -> bool {
    tree.stat(&Place::Temp(name.to_owned())).is_ok_and(|found| {
        let age = wall_ns.saturating_sub(found.ctime_ns);
        u128::try_from(age).is_ok_and(|age| age > TRANSFER_AGE_MAX.as_nanos())
    })
}

/// What is known of an operation's exchange.
enum Exchange {
    Made,
    NotMade,
    PerhapsMade,
}

struct Recovery<'a, T> {
    tree: &'a T,
    day: &'a str,
    keep_as: &'a dyn Fn(&SharePath) -> SharePath,
    report: Recovered,
    /// Directories whose names changed.
    touched: BTreeSet<Place>,
}

impl<'a, T: Tree> Recovery<'a, T> {
    fn new(tree: &'a T, day: &'a str, keep_as: &'a dyn Fn(&SharePath) -> SharePath) -> Self {
        let (report, touched) = (Recovered::default(), BTreeSet::new());
        Recovery { tree, day, keep_as, report, touched }
    }

    fn settle_all(&mut self, intents: Vec<Intent>) {
        for intent in intents {
            if mutant!(SkipIntentRecovery) {
                self.report.done.push(intent.id);
                continue;
            }
            let settled = if intent.made { Ok(Exchange::Made) } else { self.settle(&intent) };
            self.report.dirty.push(intent.path.clone());
            match settled {
                Ok(Exchange::Made) => self.report.exchanged.push(intent),
                Ok(Exchange::PerhapsMade) => self.report.perhaps.push(intent),
                Ok(Exchange::NotMade) => self.report.done.push(intent.id),
                Err(error) => {
                    self.trouble(Place::Share(intent.path.clone()), error);
                    self.report.unsettled.push(intent);
                    continue;
                }
            }
            Failpoint::RecoverSettled.hit();
        }
    }

    /// Puts what an operation left where it belongs, and tells whether what is staged took the place of the
    /// expected object before the crash.
    fn settle(&mut self, intent: &Intent) -> Result<Exchange, TreeError> {
        // Everything that an operation may have done before the crash is made durable too.
        self.touch(&Place::Share(intent.path.clone()));
        let temp = Place::Temp(exchanged_name(intent.id));
        let (left, displaced) = (self.stat(&temp)?, self.stat(&intent.displaced)?);
        if displaced.is_some() {
            self.touch(&intent.displaced);
        }
        let is_expected = |it: &Fingerprint| is_same_object(&intent.expect, it);
        let exchange = match left {
            None => {
                self.check_displaced(intent)?;
                let at_path = || self.stat(&Place::Share(intent.path.clone()));
                match displaced.filter(is_expected) {
                    Some(_) => Exchange::Made,
                    None if at_path()?.as_ref().is_some_and(is_expected) => Exchange::NotMade,
                    None => Exchange::PerhapsMade,
                }
            }
            Some(found) if is_expected(&found) => {
                self.finish(intent, &temp, found.kind)?;
                Exchange::Made
            }
            // It may have been in the share, and have been opened there: once it is closed its bytes tell.
            Some(found) if writer_at(self.tree, &temp, found.kind)? == Writer::Some => {
                return Err(TreeError::Io("somebody writes to what was staged".to_owned()));
            }
            Some(found) if self.holds(&temp, intent.staged.as_ref())? => {
                if self.stat(&temp)? != Some(found) {
                    return Err(TreeError::Io("what was staged has changed just now".to_owned()));
                }
                self.drop_staged(intent, &temp)?;
                Exchange::NotMade
            }
            // It came out of an exchange, which may have been taken back.
            Some(found) => {
                match found.kind {
                    Kind::Dir => self.keep_in_trash(&temp, intent)?,
                    _ => self.keep_in_share(&temp, &intent.path, intent.id)?,
                }
                Exchange::PerhapsMade
            }
        };
        Ok(if intent.staged.is_some() { exchange } else { Exchange::NotMade })
    }

    /// The exchange was made: moves the expected object on to where it was to go.
    fn finish(&mut self, intent: &Intent, temp: &Place, kind: Kind) -> Result<(), TreeError> {
        if kind == Kind::Dir {
            return match self.tree.remove_dir(temp) {
                Err(TreeError::NotEmpty) => self.keep_in_trash(temp, intent),
                removed => removed,
            };
        }
        match move_to(self.tree, temp, &intent.displaced) {
            Ok(place) => {
                self.moved(temp, &place);
                Ok(())
            }
            Err(_) => match &intent.displaced {
                // The conflict copy's name is taken.
                Place::Share(copy) => self.keep_in_share(temp, copy, intent.id),
                Place::Temp(_) | Place::Trash { .. } => self.keep_in_trash(temp, intent),
            },
        }
    }

    /// Nothing is left under the temporary name. If an object went straight to the trash and is not
    /// the expected one, it goes back: the crash came before it was looked at.
    fn check_displaced(&mut self, intent: &Intent) -> Result<(), TreeError> {
        // A name in the share may be anybody's, and is seen by the scan; one in the trash is ours.
        if !matches!(intent.displaced, Place::Trash { .. }) {
            return Ok(());
        }
        match self.stat(&intent.displaced)? {
            Some(found) if !is_same_object(&intent.expect, &found) => {}
            _ => return Ok(()),
        }
        let path = Place::Share(intent.path.clone());
        match self.tree.rename(&intent.displaced, &path) {
            Ok(()) => {
                self.moved(&intent.displaced, &path);
                Ok(())
            }
            // The name was given to something new, or its directory is gone.
            Err(TreeError::Exists | TreeError::NotFound | TreeError::WrongKind) => {
                self.keep_in_share(&intent.displaced, &intent.path, intent.id)
            }
            Err(error) => Err(error),
        }
    }

    /// Drops what was staged; the larger files go back to the transfers, which need not be made
    /// again.
    fn drop_staged(&mut self, intent: &Intent, temp: &Place) -> Result<(), TreeError> {
        match &intent.staged {
            Some(Content::Dir) => match self.tree.remove_dir(temp) {
                Err(TreeError::NotEmpty) => return self.keep_in_trash(temp, intent),
                removed => removed?,
            },
            Some(Content::File { size, hash })
                if *size > INLINE_LEN_MAX
                    && self.tree.rename(temp, &Place::Temp(transfer_name(hash))).is_ok() => {}
            _ => self.tree.remove_private(temp)?,
        }
        self.report.removed += 1;
        Ok(())
    }

    /// True if the object at a place holds this content.
    fn holds(&self, place: &Place, content: Option<&Content>) -> Result<bool, TreeError> {
        let found = self.tree.stat(place)?;
        Ok(match content {
            None => false,
            Some(Content::Dir) => found.kind == Kind::Dir,
            Some(Content::Symlink { target }) => {
                found.kind == Kind::Symlink && self.tree.read_link(place)? == *target
            }
            Some(Content::File { size, hash: expected }) => {
                if found.kind != Kind::File || found.size != *size {
                    return Ok(false);
                }
                match hash(self.tree, &self.tree.open(place)?, *size) {
                    Ok(hash) => hash == *expected,
                    Err(ReadError::Short) => false,
                    // Unread it may be either.
                    Err(ReadError::Tree(error)) => return Err(error),
                }
            }
        })
    }

    /// Keeps a local change: under its own name if that is free, else beside it, in its directory,
    /// which is made again if it is gone.
    fn keep_in_share(&mut self, temp: &Place, path: &SharePath, id: u64) -> Result<(), TreeError> {
        let mut made = Vec::new();
        // Where that cannot be, the rename says so.
        let _as_far_as_it_went = make_above(self.tree, path, &mut made);
        for Made { dir, .. } in made {
            self.touch(&Place::Share(dir.clone()));
            self.report.dirty.push(dir);
        }
        let mut name = path.clone();
        for _ in 0..NAMES_MAX {
            let place = Place::Share(name.clone());
            match self.tree.rename(temp, &place) {
                Ok(()) => {
                    self.moved(temp, &place);
                    self.report.kept.push(place);
                    return Ok(());
                }
                Err(TreeError::Exists) => name = (self.keep_as)(&name),
                Err(TreeError::NotFound | TreeError::WrongKind) => break,
                Err(error) => return Err(error),
            }
        }
        // There can be no such directory, or no name is free: better in the trash than nowhere.
        self.move_to_trash(temp, &trash_place(self.day, path, id))
    }

    fn keep_in_trash(&mut self, temp: &Place, intent: &Intent) -> Result<(), TreeError> {
        self.move_to_trash(temp, &trash_place(self.day, &intent.path, intent.id))
    }

    fn move_to_trash(&mut self, temp: &Place, trash: &Place) -> Result<(), TreeError> {
        let place = move_to(self.tree, temp, trash)
            .map_err(|_| TreeError::Io(format!("it cannot be moved to {trash}")))?;
        self.moved(temp, &place);
        self.report.kept.push(place);
        Ok(())
    }

    /// Deals with a temporary that no unsettled intent claims.
    fn sweep(&mut self, name: &str, wall_ns: i64) -> Result<(), TreeError> {
        let place = Place::Temp(name.to_owned());
        if let Some(transfer) = transfer_of(name) {
            if !is_old(self.tree, name, wall_ns) {
                // A complete one is taken up again as if it had been interrupted.
                let again =
                    *name == transfer || self.tree.rename(&place, &Place::Temp(transfer)).is_ok();
                if again {
                    return Ok(());
                }
            }
        } else if let Some(id) = exchanged_id(name) {
            // Only operations with an intent use such a name, and this one's is settled: an object
            // that could not be put back then.
            let lost = SharePath::new("lost").expect("it is a legal path");
            return match self.tree.remove_dir(&place) {
                Ok(()) => {
                    self.report.removed += 1;
                    Ok(())
                }
                Err(_) => self.move_to_trash(&place, &trash_place(self.day, &lost, id)),
            };
        }
        // A stage, a copy of a transfer, a probe of the filesystem: ours.
        match self.tree.remove_private(&place) {
            Err(TreeError::WrongKind) => self.tree.remove_dir(&place)?,
            removed => removed?,
        }
        self.report.removed += 1;
        Ok(())
    }

    /// Looks at a place; none if there is nothing, be it that a name above it is no directory by now.
    fn stat(&self, place: &Place) -> Result<Option<Fingerprint>, TreeError> {
        match self.tree.stat(place) {
            Ok(found) => Ok(Some(found)),
            Err(TreeError::NotFound | TreeError::WrongKind) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn moved(&mut self, from: &Place, to: &Place) {
        self.touch(from);
        self.touch(to);
        if let Place::Share(path) = to {
            self.report.dirty.push(path.clone());
        }
    }

    fn touch(&mut self, place: &Place) {
        let mut next = place.parent();
        while let Some(dir) = next {
            next = match dir {
                Place::Trash { .. } => dir.parent(),
                Place::Share(_) | Place::Temp(_) => None,
            };
            self.touched.insert(dir);
        }
    }

    fn trouble(&mut self, place: Place, error: TreeError) {
        self.report.troubles.push((place, error));
    }

    /// Syncs every directory touched. If one fails no intent is settled: a power cut may still
    /// take the moves back.
    fn make_durable(&mut self) {
        let mut durable = true;
        for dir in std::mem::take(&mut self.touched) {
            if let Err(error) = sync_names(self.tree, &dir) {
                durable = false;
                self.trouble(dir, error);
            }
        }
        if durable {
            self.report.exchanged.iter_mut().for_each(|intent| intent.made = true);
        } else {
            self.report.done.clear();
            self.report.unsettled.append(&mut self.report.perhaps);
        }
    }
}
