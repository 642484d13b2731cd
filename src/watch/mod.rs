//! Turns what the kernel tells of a share's directories into paths to look at.
//!
//! One inotify watch for each directory, never for a file. The recursion is ours: a new directory
//! is watched first and listed second, so that nothing created in between is lost. The mask has no
//! IN_MODIFY and no IN_OPEN: a growing recording costs nothing until it is closed.
//!
//! ```text
//! kernel ─▶ notify's thread ─▶ queue (bounded) ─▶ Watcher::run ─▶ sink
//! ```
//!
//! The watches are kept by name, and names move. So whatever happens to a directory's name
//! (created, moved here, moved away, deleted) has one answer: forget the watches at and below the
//! name, and if a directory is there now, watch and list it anew. That holds for every order of
//! events, for exchanges and for names that are used again. When events were lost, no watch's name
//! can be trusted any more, and all are made anew in a fresh inotify instance.
//!
//! **Invariant:** an event is a hint; a lost one becomes a scan. Once a [`Scan`](Event::Scan) is
//! reported, what happens from then on in a watched directory is heard.
//! **May not:** read a file, decide what changed, or start a thread; `.recsync` is never watched.
#![forbid(unsafe_code)]

mod dirs;
mod limits;
mod queue;
mod raw;
mod source;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use recsync_proto::SharePath;
use recsync_proto::path::PathError;

use crate::engine::Hint;
use crate::sys::Clock;
use crate::tree::{DirEntry, Kind, Place, Tree, TreeError};

pub use limits::{WatchError, watch_limit};

use dirs::{Dirs, State};
use queue::{Next, Queue};
use raw::{Raw, What};
use source::{Inotify, Open, Refusal, Source};

/// Directories watched in one go: bounds the time in which a walk does not hear that it shall stop.
const BATCH: usize = 1_000;
/// How long to wait for the kernel's side of a closed instance, so that its watches are free again.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// What the watcher reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A path may have changed. Repeated as often as it is heard.
    Dirty {
        /// Which; never the root.
        path: SharePath,
        /// How.
        hint: Hint,
        /// When it was heard, by the monotonic clock.
        at: Duration,
    },
    /// Compare all that is below a directory, known or found, with each other.
    Scan {
        /// The directory, or the root.
        dir: SharePath,
        /// Why.
        why: Why,
    },
    /// Some directories began or ceased to be unwatched. While any is, [`Why::Unwatched`] scans
    /// are asked for at intervals.
    Coverage {
        /// Directories whose changes are not heard; 0: all is well again.
        unwatched: usize,
        /// What stands in the way, for a person; none when all is well.
        why: Option<WatchError>,
    },
    /// This process may not read a directory; it is tried again when its attributes change.
    Unreadable {
        /// Which.
        dir: SharePath,
    },
    /// A name that cannot be synced.
    Unsyncable {
        /// The directory that holds it.
        dir: SharePath,
        /// The name's bytes.
        name: Vec<u8>,
        /// The rule that it breaks.
        why: PathError,
    },
    /// The root was moved, deleted or unmounted, or its marker's directory was: check the root.
    /// Without its root nothing is watched; it is tried again like unwatched directories.
    Root,
}

/// Why a scan is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Every directory is watched now, for the first time.
    Start,
    /// Every directory is watched anew, because [`Handle::rewatch`] asked for it or the root moved.
    Rewatched,
    /// Events were lost, in the kernel's queue or in ours; every directory is watched anew.
    Overflow,
    /// Changes in some directories are not heard.
    Unwatched,
    /// The directory was moved away from this name: what was known below may be found elsewhere.
    MovedAway,
    /// The directory was deleted.
    Deleted,
}

/// Bounds that tests narrow.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Raw events that may wait; one takes about 50 bytes and its path.
    queue: usize,
    /// How often unwatched directories are tried again, and a scan asked for.
    retry: Duration,
}

const BOUNDS: Bounds = Bounds { queue: 262_144, retry: Duration::from_secs(60) };

/// Asks a running [`Watcher`] to do something and tells how it does; clones share one watcher.
#[derive(Debug, Clone)]
pub struct Handle {
    queue: Arc<Queue>,
    gauges: Arc<Gauges>,
}

#[derive(Debug, Default)]
struct Gauges {
    watched: AtomicUsize,
    unwatched: AtomicUsize,
}

impl Handle {
    /// Lets [`Watcher::run`] return, soon.
    pub fn stop(&self) {
        self.queue.stop();
    }

    /// Has every directory watched anew, which ends with a [`Why::Rewatched`] scan: for when the
    /// root is back. A root that was opened anew ([`Tree`]) needs a new watcher.
    pub fn rewatch(&self) {
        self.queue.rewatch();
    }

    /// Returns the number of inotify watches held, one a directory.
    pub fn watched(&self) -> usize {
        self.gauges.watched.load(Ordering::Relaxed)
    }

    /// Returns the number of directories whose changes are not heard.
    pub fn unwatched(&self) -> usize {
        self.gauges.unwatched.load(Ordering::Relaxed)
    }
}

/// Watches one share.
///
/// Memory grows with the number of directories, by about 0.7 KiB for each.
pub struct Watcher<T, S> {
    root: PathBuf,
    tree: Arc<T>,
    clock: Clock,
    sink: S,
    bounds: Bounds,
    queue: Arc<Queue>,
    gauges: Arc<Gauges>,
    open: Open,
    /// None while no inotify instance can be had, or the root is gone.
    source: Option<Box<dyn Source>>,
    dirs: Dirs,
    /// The kernel refused a watch for want of room: no use asking on in this walk.
    full: bool,
    /// What stood in the way of a watch last.
    problem: Option<WatchError>,
    /// When to try the unwatched directories again; none if there is none.
    retry_at: Option<Duration>,
}

impl<T: Tree, S: FnMut(Event)> Watcher<T, S> {
    /// Returns a watcher of the share at `root`, an absolute path, and a handle to it. Nothing
    /// happens before [`run`](Watcher::run).
    ///
    /// `root` is shown to people and given to inotify; all else goes through `tree`.
    /// `sink` may block: up to 262,144 events wait meanwhile, more become a scan.
    pub fn new(root: PathBuf, tree: Arc<T>, clock: Clock, sink: S) -> (Self, Handle) {
        Self::bounded(root, tree, clock, sink, BOUNDS)
    }

    fn bounded(
        root: PathBuf,
        tree: Arc<T>,
        clock: Clock,
        sink: S,
        bounds: Bounds,
    ) -> (Self, Handle) {
        // With no slash at its end, the paths below it have one form.
        let root: PathBuf = root.components().collect();
        let open: Open = {
            let root = root.clone();
            Box::new(move |feed| Inotify::open(&root, clock, feed))
        };
        Self::with_source(root, tree, clock, sink, bounds, open)
    }

    fn with_source(
        root: PathBuf,
        tree: Arc<T>,
        clock: Clock,
        sink: S,
        bounds: Bounds,
        open: Open,
    ) -> (Self, Handle) {
        let queue = Arc::new(Queue::new(bounds.queue));
        let gauges = Arc::new(Gauges::default());
        let handle = Handle { queue: queue.clone(), gauges: gauges.clone() };
        let watcher = Watcher {
            root,
            tree,
            clock,
            sink,
            bounds,
            queue,
            gauges,
            open,
            source: None,
            dirs: Dirs::default(),
            full: false,
            problem: None,
            retry_at: None,
        };
        (watcher, handle)
    }

    /// Watches every directory, asks for the first scan, and then reports until
    /// [`Handle::stop`] is called. Blocks; runs on a thread of its own.
    ///
    /// No failure ends it: what cannot be watched is reported, scanned at intervals, and tried
    /// again.
    pub fn run(mut self) {
        let mut batch = Vec::new();
        self.rebuild(Why::Start);
        loop {
            let due = self.retry_at.map(|at| at.saturating_sub(self.clock.now().mono));
            match self.queue.next(&mut batch, due) {
                Next::Stop => break,
                Next::Events => {
                    for raw in batch.drain(..) {
                        // Without a source, the root is gone, and no name means anything.
                        if self.source.is_some() {
                            self.take(raw);
                            self.tell_coverage();
                        }
                    }
                }
                Next::Lost => self.rebuild(Why::Overflow),
                Next::Rewatch => self.rebuild(Why::Rewatched),
                Next::Due => self.retry(),
            }
        }
        self.close();
    }

    /// Turns one raw event into reports, and follows the directories.
    fn take(&mut self, raw: Raw) {
        let Raw { what, path, at } = raw;
        let path = match SharePath::new(path.as_ref()) {
            Ok(path) => path,
            Err(PathError::Empty) => return self.take_root(what, at),
            Err(PathError::Reserved) => {
                if matches!(what, What::Deleted | What::MovedAway) {
                    (self.sink)(Event::Root);
                }
                return;
            }
            Err(why) => return self.unsyncable(&path, why),
        };
        let hint = match what {
            What::Attributes => Hint::Attributes,
            What::Created | What::DirCreated | What::MovedHere => Hint::Created,
            What::Written => Hint::Written,
            What::Deleted => Hint::Deleted,
            What::MovedAway => Hint::MovedAway,
        };
        (self.sink)(Event::Dirty { path: path.clone(), hint, at });

        let known = self.dirs.state(&path);
        match what {
            // A directory that is watched already was found by a listing before its event came.
            What::DirCreated if known != Some(State::Watched) => self.renew(&path, at),
            What::MovedHere | What::MovedAway if known.is_some() => {
                self.check(&path, at);
                (self.sink)(Event::Scan { dir: path, why: Why::MovedAway });
            }
            What::MovedHere => self.check(&path, at),
            What::Deleted if known.is_some() => {
                self.check_deleted(&path, at);
                (self.sink)(Event::Scan { dir: path, why: Why::Deleted });
            }
            What::Attributes if known == Some(State::Denied) => self.renew(&path, at),
            _ => {}
        }
    }

    fn take_root(&mut self, what: What, at: Duration) {
        match what {
            // It may be back already, or have been exchanged.
            What::Deleted | What::MovedAway => self.rebuild(Why::Rewatched),
            What::Attributes if self.dirs.state(&SharePath::root()) == Some(State::Denied) => {
                self.renew(&SharePath::root(), at);
            }
            _ => {}
        }
    }

    fn unsyncable(&mut self, path: &[u8], why: PathError) {
        let slash = path.iter().rposition(|&byte| byte == b'/');
        let (dir, name) = match slash {
            Some(slash) => (SharePath::new(&path[..slash]), &path[slash + 1..]),
            None => (Ok(SharePath::root()), path),
        };
        // A directory whose own path cannot be synced is never watched.
        if let Ok(dir) = dir {
            (self.sink)(Event::Unsyncable { dir, name: name.to_vec(), why });
        }
    }

    /// Something happened to a name that was, or may be now, a directory's.
    fn check(&mut self, path: &SharePath, at: Duration) {
        if self.may_be_dir(path) {
            self.renew(path, at);
        } else {
            self.forget(path);
        }
    }

    /// As [`check`](Self::check), without asking for the removal of the one watch that a removed
    /// directory takes with it: notify looks through all its watches for each such request.
    fn check_deleted(&mut self, path: &SharePath, at: Duration) {
        if self.may_be_dir(path) {
            return self.renew(path, at);
        }
        let mut gone = self.dirs.take(path);
        gone.retain(|dir| dir != path);
        self.unwatch(&gone);
    }

    fn may_be_dir(&self, path: &SharePath) -> bool {
        match self.tree.stat(&Place::Share(path.clone())) {
            Ok(fingerprint) => fingerprint.kind == Kind::Dir,
            Err(why) => !is_no_dir(&why),
        }
    }

    /// Forgets what was watched at and below a name.
    fn forget(&mut self, path: &SharePath) {
        let gone = self.dirs.take(path);
        self.unwatch(&gone);
    }

    /// Watches a directory and all below it anew, and reports all that is there.
    fn renew(&mut self, dir: &SharePath, at: Duration) {
        self.forget(dir);
        self.full = false;
        self.cover(VecDeque::from([dir.clone()]), Some(at));
    }

    /// Starts over: a fresh inotify instance, a watch for every directory, then a scan.
    fn rebuild(&mut self, why: Why) {
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
    fn retry(&mut self) {
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
    fn close(&mut self) {
        self.queue.close();
        if let Some(source) = self.source.take() {
            source.close();
            self.queue.wait_closed(CLOSE_WAIT);
        }
        self.dirs = Dirs::default();
    }

    /// Watches directories and all below them, each before it is listed. With a time, all that
    /// is found is reported as noticed then.
    fn cover(&mut self, mut pending: VecDeque<SharePath>, noticed: Option<Duration>) {
        while !pending.is_empty() && !self.queue.stopping() {
            let chunk: Vec<SharePath> = pending.drain(..pending.len().min(BATCH)).collect();
            self.watch(&chunk);
            for dir in &chunk {
                // One that vanished in between will be heard of if it comes back.
                if self.dirs.state(dir).is_some() {
                    self.list(dir, noticed, &mut pending);
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

    fn unwatch(&mut self, dirs: &[SharePath]) {
        if let Some(source) = self.source.as_mut().filter(|_| !dirs.is_empty()) {
            source.unwatch(dirs);
        }
    }

    /// Lists a directory: queues the directories in it that are not known, and with a time
    /// reports all that is in it.
    fn list(
        &mut self,
        dir: &SharePath,
        noticed: Option<Duration>,
        pending: &mut VecDeque<SharePath>,
    ) {
        match self.tree.list(&Place::Share(dir.clone())) {
            Ok(entries) => {
                // The kernel let us list what it would not let us watch.
                if self.dirs.state(dir) == Some(State::Denied) {
                    self.no_watch(dir, TreeError::Denied.to_string());
                }
                for entry in entries {
                    self.found(dir, entry, noticed, pending);
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
        noticed: Option<Duration>,
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
        if let Some(at) = noticed {
            // A file may have been closed before its directory was watched: its bytes are new.
            let hint = if is_dir { Hint::Created } else { Hint::Written };
            (self.sink)(Event::Dirty { path: path.clone(), hint, at });
        }
        if is_dir && self.dirs.state(&path).is_none() {
            pending.push_back(path);
        }
    }

    /// Brings the gauges up to date, and reports when directories begin or cease to be unwatched.
    fn tell_coverage(&mut self) {
        let (watched, unwatched) = self.dirs.counts();
        let before = self.gauges.unwatched.swap(unwatched, Ordering::Relaxed);
        self.gauges.watched.store(watched, Ordering::Relaxed);
        if unwatched == 0 {
            self.retry_at = None;
            self.problem = None;
        } else if self.retry_at.is_none() {
            self.retry_at = Some(self.clock.now().mono + self.bounds.retry);
        }
        if (before == 0) != (unwatched == 0) {
            let why = self.problem.clone().map(|why| why.counted(watched, unwatched));
            (self.sink)(Event::Coverage { unwatched, why });
        }
    }
}

/// True if there is no such directory in the share, as far as the error can tell.
fn is_no_dir(why: &TreeError) -> bool {
    matches!(why, TreeError::NotFound | TreeError::WrongKind | TreeError::CrossDevice)
}
