//! What the watcher reports.

use std::time::Duration;

use recsync_proto::SharePath;
use recsync_proto::path::PathError;

use super::limits::WatchError;
use crate::engine::Hint;

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
        /// True if it was found in a directory that was moved here: it was there before.
        came_along: bool,
    },
    /// Compare what is known at and below a directory with what is there now.
    Scan {
        /// The directory, or the root. It may not exist any more.
        dir: SharePath,
        /// Why.
        why: Why,
    },
    /// A directory that was made or moved here is watched from now on, with all below it, and what is in
    /// it has been told: what was in it before and is gone has been heard by nobody.
    Watched {
        /// Which.
        dir: SharePath,
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
    /// Without its root nothing is watched; it is looked for again at intervals, or as soon as
    /// [`Handle::rewatch`](super::Handle::rewatch) is called.
    Root,
}

/// Why a scan is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Every directory is watched now, for the first time.
    Start,
    /// Every directory is watched anew, because [`Handle::rewatch`](super::Handle::rewatch) asked for it or the root moved.
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
