//! When what failed is tried again: after 1 s at first, then with delays that double, up to 1 h.
//!
//! **Invariant:** bounded; a path that finds no room is not remembered, and is tried again with
//! whatever brings it up next.
//! **May not:** read a clock; `now` is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recsync_proto::SharePath;

use super::lost::Gone;

/// First and last delay.
pub(super) const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(3_600);
/// Paths that are remembered.
pub(super) const RETRIES_MAX: usize = 10_000;

/// Paths that failed.
#[derive(Debug, Default)]
pub(super) struct Retries {
    by_path: BTreeMap<SharePath, Retry>,
    due: BTreeSet<(Duration, SharePath)>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    failures: u32,
    due: Duration,
    /// Peers said, one time after the other, that they have these bytes no more.
    gone: Option<Gone>,
}

impl Retries {
    /// Notes a failure and returns after how long the path is tried again.
    pub(super) fn backoff(&mut self, path: &SharePath, now: Duration) -> Duration {
        let failures = self.failures(path);
        let wait = (RETRY_MIN * 2u32.pow(failures.min(12))).min(RETRY_MAX);
        self.try_at(path, now + wait, failures + 1);
        wait
    }

    /// Has a path tried at `due`, with so many failures behind it.
    pub(super) fn try_at(&mut self, path: &SharePath, due: Duration, failures: u32) {
        self.forgive(path);
        if self.by_path.len() < RETRIES_MAX {
            self.by_path.insert(path.clone(), Retry { failures, due, gone: None });
            self.due.insert((due, path.clone()));
        }
    }

    /// Forgets that a path failed.
    pub(super) fn forgive(&mut self, path: &SharePath) {
        if let Some(retry) = self.by_path.remove(path) {
            self.due.remove(&(retry.due, path.clone()));
        }
    }

    /// Forgets the paths at and below `dir` that have been tried since they failed last.
    pub(super) fn forgive_tried(&mut self, dir: &SharePath) {
        let due = &self.due;
        self.by_path.retain(|path, retry| {
            !path.is_at_or_below(dir) || due.contains(&(retry.due, path.clone()))
        });
    }

    /// True if the path failed when it was tried last.
    pub(super) fn has_failed(&self, path: &SharePath) -> bool {
        self.by_path.contains_key(path)
    }

    /// Returns how often in a row the path failed.
    pub(super) fn failures(&self, path: &SharePath) -> u32 {
        self.by_path.get(path).map_or(0, |retry| retry.failures)
    }

    /// Returns what peers said of the bytes that the path waits for.
    pub(super) fn gone(&self, path: &SharePath) -> Option<Gone> {
        self.by_path.get(path).and_then(|retry| retry.gone)
    }

    /// Notes it, for a path that has failed.
    pub(super) fn set_gone(&mut self, path: &SharePath, gone: Gone) {
        if let Some(retry) = self.by_path.get_mut(path) {
            retry.gone = Some(gone);
        }
    }

    /// True if the path failed and is not to be tried yet.
    pub(super) fn waits(&self, path: &SharePath, now: Duration) -> bool {
        self.by_path.get(path).is_some_and(|retry| retry.due > now)
    }

    /// Returns a path that is to be tried now: once, though its failures are remembered.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<SharePath> {
        if self.due.first()?.0 > now {
            return None;
        }
        self.due.pop_first().map(|(_, path)| path)
    }

    /// Returns when the next path is to be tried.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Returns how many paths are remembered.
    pub(super) fn len(&self) -> usize {
        self.by_path.len()
    }

    /// Returns how many wait to be tried.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.due.len()
    }
}
