//! Keeps a watch on every directory: puts them, lists what they hold, starts over, tries again.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recsync_proto::SharePath;
use recsync_proto::path::PathError;

use super::dirs::{Dirs, State};
use super::limits::WatchError;
use super::source::{self, Refusal};
use super::{Event, Watcher, Why};
use crate::engine::Hint;
use crate::tree::{DirEntry, Kind, Place, Tree, TreeError};

/// Directories watched in one go: bounds the time in which a walk does not hear that it shall stop.
const BATCH: usize = 1_000;
/// How long to wait for the kernel's side of a closed instance, so that its watches are free again.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How what a listing finds is reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// When the directory was heard of.
    pub(super) at: Duration,
    /// True if it was moved here, with all that is in it.
    pub(super) came_along: bool,
}

impl<T: Tree, S: FnMut(Event)> Watcher<T, S> {
    /// Starts over: a fresh inotify instance, a watch for every directory, then a scan.
    pub(super) fn rebuild(&mut self, why: Why) {
        self.close();
        if !self.root_stands() {
            return;
        }
        self.full = false;
        self.problem = None;
        match (self.open)(self.queue.feed()) {
            Ok(source) => self.source = Some(source),
            Err(why) => {
                self.queue.close();
                self.problem = Some(why);
            }
        }
        self.cover(VecDeque::from([SharePath::root()]), None);
        if !self.queue.stopping() {
            self.tell_coverage();
            (self.sink)(Event::Scan { dir: SharePath::root(), why });
        }
    }

    /// Without its root, a share has nothing to watch.
    fn root_stands(&mut self) -> bool {
        let Err(why) = self.tree.check_root() else { return true };
        self.close();
        self.dirs.set(SharePath::root(), State::Unwatched);
        self.problem = Some(WatchError::Root(why));
        (self.sink)(Event::Root);
        self.tell_coverage();
        false
    }

    /// Tries to watch what is unwatched, and asks for a scan whether or not it worked: what
    /// happened there until now was not heard.
    pub(super) fn retry(&mut self) {
        self.retry_at = None;
        if self.source.is_none() {
            return self.rebuild(Why::Unwatched);
        }
        if !self.root_stands() {
            return;
        }
        self.full = false;
        let missing = self.dirs.unwatched();
        let mut found = VecDeque::new();
        for chunk in missing.chunks(BATCH) {
            self.watch(chunk);
            for dir in chunk {
                if self.dirs.state(dir).is_some_and(|state| state != State::Unwatched) {
                    self.list(dir, None, &mut found);
                }
            }
            if self.full || self.queue.stopping() {
                break;
            }
        }
        self.cover(found, None);
        if !self.queue.stopping() {
            self.tell_coverage();
            (self.sink)(Event::Scan { dir: SharePath::root(), why: Why::Unwatched });
        }
    }

    /// Gives the inotify instance back, with all its watches.
    pub(super) fn close(&mut self) {
        self.queue.close();
        if let Some(source) = self.source.take() {
            source.close();
            self.queue.wait_closed(CLOSE_WAIT);
        }
        self.dirs = Dirs::default();
        self.gauges.watched.store(0, Ordering::Relaxed);
    }

    /// Forgets what was watched at and below a name.
    pub(super) fn forget(&mut self, path: &SharePath) {
        let gone = self.dirs.take(path);
        self.unwatch(&gone);
    }

    /// Watches a directory and all below it anew, and reports all that is there, and that it is watched.
    pub(super) fn renew(&mut self, dir: &SharePath, found: Found) {
        self.forget(dir);
        if self.tree.ignored_by(dir, true).is_some() {
            return;
        }
        self.full = false;
        self.cover(VecDeque::from([dir.clone()]), Some(found));
        if self.dirs.state(dir) == Some(State::Watched) {
            (self.sink)(Event::Watched { dir: dir.clone() });
        }
    }

    /// Watches directories and all below them, each before it is listed; reports all that is found
    /// if it is said how.
    fn cover(&mut self, mut pending: VecDeque<SharePath>, report: Option<Found>) {
        while !pending.is_empty() && !self.queue.stopping() {
            let chunk: Vec<SharePath> = pending.drain(..pending.len().min(BATCH)).collect();
            self.watch(&chunk);
            for dir in &chunk {
                // One that vanished in between will be heard of if it comes back.
                if self.dirs.state(dir).is_some() {
                    self.list(dir, report, &mut pending);
                }
            }
        }
    }

    /// Watches directories, and notes for each how it went; the vanished are left out.
    fn watch(&mut self, mut dirs: &[SharePath]) {
        while !dirs.is_empty() {
            let source = self.source.as_mut().filter(|_| !self.full);
            let Some(source) = source else {
                self.dirs.set_all(dirs, State::Unwatched);
                return;
            };
            let Err(refused) = source.watch(dirs) else {
                self.dirs.set_all(dirs, State::Watched);
                return;
            };
            let (watched, rest) = dirs.split_at(refused.index);
            self.dirs.set_all(watched, State::Watched);
            let Some((dir, rest)) = rest.split_first() else { return };
            match refused.why {
                Refusal::Gone if !dir.is_root() => self.dirs.remove(dir),
                Refusal::Gone => self.no_watch(dir, TreeError::NotFound.to_string()),
                // The listing reports it.
                Refusal::Denied => self.dirs.set(dir.clone(), State::Denied),
                Refusal::Full => {
                    self.full = true;
                    self.dirs.set(dir.clone(), State::Unwatched);
                    self.problem = Some(WatchError::watches_used_up(&self.root));
                }
                Refusal::Other(why) => self.no_watch(dir, why),
            }
            dirs = rest;
        }
    }

    fn no_watch(&mut self, dir: &SharePath, why: String) {
        self.dirs.set(dir.clone(), State::Unwatched);
        self.problem = Some(WatchError::Other { dir: self.root.join(source::os_path(dir)), why });
    }

    pub(super) fn unwatch(&mut self, dirs: &[SharePath]) {
        if let Some(source) = self.source.as_mut().filter(|_| !dirs.is_empty()) {
            source.unwatch(dirs);
        }
    }

    /// Lists a directory: queues the directories in it that are not known, and reports all that is
    /// in it if it is said how.
    fn list(&mut self, dir: &SharePath, report: Option<Found>, pending: &mut VecDeque<SharePath>) {
        match self.tree.list(&Place::Share(dir.clone())) {
            Ok(entries) => {
                // The kernel let us list what it would not let us watch.
                if self.dirs.state(dir) == Some(State::Denied) {
                    self.no_watch(dir, TreeError::Denied.to_string());
                }
                for entry in entries {
                    self.found(dir, entry, report, pending);
                }
            }
            // What the watch is on, if it is on anything, is not this directory of the share.
            Err(why) if is_no_dir(&why) && !dir.is_root() => {
                self.unwatch(std::slice::from_ref(dir));
                self.dirs.remove(dir);
            }
            Err(TreeError::Denied) => {
                self.unwatch(std::slice::from_ref(dir));
                self.dirs.set(dir.clone(), State::Denied);
                (self.sink)(Event::Unreadable { dir: dir.clone() });
            }
            Err(why) => {
                self.unwatch(std::slice::from_ref(dir));
                self.no_watch(dir, why.to_string());
            }
        }
    }

    fn found(
        &mut self,
        dir: &SharePath,
        entry: DirEntry,
        report: Option<Found>,
        pending: &mut VecDeque<SharePath>,
    ) {
        let path = match dir.join(&entry.name) {
            Ok(path) => path,
            Err(PathError::Reserved) => return,
            Err(why) => {
                let name = entry.name;
                return (self.sink)(Event::Unsyncable { dir: dir.clone(), name, why });
            }
        };
        let is_dir = match entry.kind {
            Some(kind) => kind == Kind::Dir,
            None => self.may_be_dir(&path),
        };
        if self.tree.ignored_by(&path, is_dir).is_some() {
            return;
        }
        if let Some(Found { at, came_along }) = report {
            // A file may have been closed before its directory was watched: its bytes are new.
            let hint = if is_dir { Hint::Created } else { Hint::Written };
            (self.sink)(Event::Dirty { path: path.clone(), hint, at, came_along });
        }
        if is_dir && self.dirs.state(&path).is_none() {
            pending.push_back(path);
        }
    }

    /// Brings the gauges up to date, and reports when directories begin or cease to be unwatched.
    pub(super) fn tell_coverage(&mut self) {
        let (watched, unwatched) = self.dirs.counts();
        let before = self.gauges.unwatched.swap(unwatched, Ordering::Relaxed);
        self.gauges.watched.store(watched, Ordering::Relaxed);
        if unwatched == 0 {
            self.retry_at = None;
            self.problem = None;
            self.tries = 0;
        } else if self.retry_at.is_none() {
            self.retry_at = Some(self.clock.now().mono + self.retry_wait());
            self.tries += 1;
        }
        if (before == 0) != (unwatched == 0) {
            let why = self.problem.clone().map(|why| why.counted(watched, unwatched));
            (self.sink)(Event::Coverage { unwatched, why });
        }
    }

    fn retry_wait(&self) -> Duration {
        if self.full {
            return self.bounds.retry;
        }
        let soon = self.bounds.retry_soon.saturating_mul(2u32.pow(self.tries.min(16)));
        soon.min(self.bounds.retry)
    }

    pub(super) fn may_be_dir(&self, path: &SharePath) -> bool {
        match self.tree.stat(&Place::Share(path.clone())) {
            Ok(fingerprint) => fingerprint.kind == Kind::Dir,
            Err(why) => !is_no_dir(&why),
        }
    }
}

/// True if there is no such directory in the share, as far as the error can tell.
fn is_no_dir(why: &TreeError) -> bool {
    matches!(why, TreeError::NotFound | TreeError::WrongKind | TreeError::CrossDevice)
}
