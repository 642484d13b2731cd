//! Turns what the kernel tells of a share's directories into paths to look at.
//!
//! One inotify watch for each directory, never for a file. The recursion is ours: a new directory
//! is watched first and listed second, so that nothing created in between is lost; then it is reported as
//! [`Watched`](Event::Watched), so that what recsync itself had put there is missed if it is gone. The mask has no
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

mod cover;
mod dirs;
mod event;
mod hear;
mod limits;
mod queue;
mod raw;
mod source;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::sys::Clock;
use crate::tree::Tree;

pub use event::{Event, Why};
pub use limits::{Setting, WatchError, watch_limit};

use dirs::Dirs;
use queue::{Next, Queue};
use source::{Inotify, Open, Source};

/// Bounds that tests narrow.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Raw events that may wait; one takes about 50 bytes and its path.
    queue: usize,
    /// How often unwatched directories are tried again, and a scan asked for.
    retry: Duration,
    /// When they are tried again first, and from then on after twice the time, if there was room:
    /// want of descriptors or memory, or an error of the disk, may be over at once.
    retry_soon: Duration,
}

const BOUNDS: Bounds =
    Bounds { queue: 262_144, retry: Duration::from_secs(60), retry_soon: Duration::from_secs(1) };

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
    /// How often they were tried since all were watched.
    tries: u32,
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
            tries: 0,
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
                    // A share that is never quiet has its unwatched directories tried too.
                    if self.retry_at.is_some_and(|at| at <= self.clock.now().mono) {
                        self.retry();
                    }
                }
                Next::Lost => self.rebuild(Why::Overflow),
                Next::Rewatch => self.rebuild(Why::Rewatched),
                Next::Due => self.retry(),
            }
        }
        self.close();
    }
}

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
