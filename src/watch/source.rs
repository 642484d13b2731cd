//! What puts the watches: notify's inotify watcher, or a stand-in that refuses on demand.
//!
//! Both calls wait for notify's thread, so they may not be made from its handler; the handler only
//! fills the queue and never waits.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use notify::event::EventKindMask;
use notify::{
    Config, ErrorKind, INotifyWatcher, PathOp, RecursiveMode, WatchPathConfig, Watcher as _,
};
use recsync_proto::SharePath;

use super::limits::WatchError;
use super::queue::Feed;
use super::raw::{Heard, Raw, translate};
use crate::sys::Clock;

/// Watches directories, each for itself.
pub(super) trait Source: Send {
    /// Watches directories in their order, up to the first that is refused.
    fn watch(&mut self, dirs: &[SharePath]) -> Result<(), Refused>;
    /// Stops watching directories; those that are not watched are passed over.
    fn unwatch(&mut self, dirs: &[SharePath]);
    /// Gives all watches back; the feed is dropped soon after.
    fn close(self: Box<Self>);
}

/// Makes a source that puts what it hears into the feed, and drops the feed at its end.
pub(super) type Open = Box<dyn FnMut(Feed) -> Result<Box<dyn Source>, WatchError> + Send>;

/// A watch was refused; those before it are in place, those after it were not tried.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) index: usize,
    pub(super) why: Refusal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No such directory.
    Gone,
    /// No right to read it.
    Denied,
    /// No more watches are to be had.
    Full,
    /// Anything else, in the kernel's words.
    Other(String),
}

/// One inotify instance.
///
/// notify 9.0.0-rc.7 compares every watch's path when one is removed: of 10,000 directories about
/// 1.4 ms for each deleted one (measured), in which nothing is heard. Deleting many thousands at
/// once so ends in an overflow and a scan.
pub(super) struct Inotify {
    root: PathBuf,
    watcher: INotifyWatcher,
}

impl Inotify {
    /// Makes an inotify instance without a watch.
    ///
    /// # Errors
    /// Where no more instances are to be had.
    pub(super) fn open(
        root: &Path,
        clock: Clock,
        feed: Feed,
    ) -> Result<Box<dyn Source>, WatchError> {
        // No MODIFY_DATA and no ACCESS_OPEN: the kernel is asked for neither. MODIFY_NAME lets
        // moves pass notify's own filter. ACCESS_CLOSE is IN_CLOSE_WRITE alone.
        let kinds = EventKindMask::CREATE
            | EventKindMask::REMOVE
            | EventKindMask::MODIFY_NAME
            | EventKindMask::MODIFY_META
            | EventKindMask::ACCESS_CLOSE;
        let config = Config::default().with_event_kinds(kinds).with_follow_symlinks(false);
        let root = root.to_path_buf();
        let handler = {
            let root = root.clone();
            move |event| match translate(&root, &event) {
                Heard::Change(what, path) => {
                    feed.push(Raw { what, path, at: clock.now().mono });
                }
                Heard::Lost => feed.lose(),
                Heard::Nothing => {}
            }
        };
        match INotifyWatcher::new(handler, config) {
            Ok(watcher) => Ok(Box::new(Inotify { root, watcher })),
            Err(why) => Err(WatchError::no_instance(&root, &why)),
        }
    }

    fn absolute(&self, dir: &SharePath) -> PathBuf {
        // Joining nothing would add a slash.
        if dir.is_root() { self.root.clone() } else { self.root.join(os_path(dir)) }
    }
}

impl Source for Inotify {
    fn watch(&mut self, dirs: &[SharePath]) -> Result<(), Refused> {
        let op = |dir: &SharePath| {
            // The root may be configured through a symbolic link; nothing below it may be one.
            let config = WatchPathConfig::new(RecursiveMode::NonRecursive)
                .with_dereference_symlinks(dir.is_root());
            PathOp::Watch(self.absolute(dir), config)
        };
        let ops = dirs.iter().map(op).collect();
        self.watcher.update_paths(ops).map_err(|failed| {
            let known = failed.origin.is_some();
            let index = if known { dirs.len() - failed.remaining.len() - 1 } else { 0 };
            Refused { index, why: refusal(&failed.source) }
        })
    }

    fn unwatch(&mut self, dirs: &[SharePath]) {
        let mut paths: Vec<PathBuf> = dirs.iter().map(|dir| self.absolute(dir)).collect();
        // notify has already removed what it heard to be moved or deleted. It looks through all
        // its watches for each path to be removed, so it is asked once which of many it has.
        if paths.len() > 1
            && let Ok(held) = self.watcher.watched_paths()
        {
            let held: HashSet<PathBuf> = held.into_iter().map(|(path, _)| path).collect();
            paths.retain(|path| held.contains(path));
        }
        let mut ops: Vec<PathOp> = paths.into_iter().map(PathOp::Unwatch).collect();
        // It stops at each path that it does not have.
        while !ops.is_empty() {
            match self.watcher.update_paths(ops) {
                Ok(()) => break,
                Err(failed) => ops = failed.remaining,
            }
        }
    }

    fn close(self: Box<Self>) {
        // Its thread answers if it is alive; to drop the watcher of a dead one would panic.
        if self.watcher.watched_paths().is_err() {
            std::mem::forget(self.watcher);
        }
    }
}

fn refusal(error: &notify::Error) -> Refusal {
    match &error.kind {
        ErrorKind::PathNotFound => Refusal::Gone,
        ErrorKind::MaxFilesWatch => Refusal::Full,
        ErrorKind::Io(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Refusal::Gone,
            io::ErrorKind::PermissionDenied => Refusal::Denied,
            _ => Refusal::Other(error.to_string()),
        },
        _ => Refusal::Other(error.to_string()),
    }
}

/// Returns a path of the share as the operating system takes it.
pub(super) fn os_path(path: &SharePath) -> &OsStr {
    OsStr::from_bytes(path.as_bytes())
}
