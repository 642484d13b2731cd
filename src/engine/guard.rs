//! Holds back deletes when too many files vanish at once.
//!
//! **Invariant:** fewer than [`NEVER_BELOW`] files are never held; once tripped, nothing passes
//! until the operator decides.
//! **May not:** read a clock; `now` is an argument.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use recsync_proto::SharePath;
use recsync_proto::record::hash_of;

/// Deletes within this time count together (contract, `max_delete`).
pub const WINDOW: Duration = Duration::from_secs(600);
/// Fewer deletes than this never wait (contract, `max_delete`).
pub const NEVER_BELOW: u64 = 20;
/// Held deletes that are known apart: a few megabytes.
const HELD_MAX: usize = 100_000;

/// How many files of a share may vanish at once: whichever bound is smaller. At least one is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxDelete {
    /// Of the share's files, 0 to 100.
    pub percent: Option<u8>,
    /// Files.
    pub count: Option<u64>,
}

impl MaxDelete {
    /// Returns how many of `files` may vanish, rounded down.
    pub fn limit(&self, files: u64) -> u64 {
        let share = self.percent.map_or(u64::MAX, |percent| {
            let part = u128::from(files) * u128::from(percent) / 100;
            u64::try_from(part).unwrap_or(u64::MAX)
        });
        share.min(self.count.unwrap_or(u64::MAX))
    }
}

impl Default for MaxDelete {
    /// Half of the files.
    fn default() -> Self {
        MaxDelete { percent: Some(50), count: None }
    }
}

/// As it is written in the file.
impl fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.percent, self.count) {
            (Some(percent), Some(count)) => write!(f, "[\"{percent}%\", {count}]"),
            (Some(percent), None) => write!(f, "\"{percent}%\""),
            (None, Some(count)) => write!(f, "{count}"),
            (None, None) => f.write_str("[]"),
        }
    }
}

/// Counts deletes in a sliding window and says when they must wait.
#[derive(Debug)]
pub struct DeleteGuard {
    limit: MaxDelete,
    /// When each delete of the window passed, in whole seconds with a count.
    passed: VecDeque<(Duration, u64)>,
    state: State,
    /// The beginnings of hashes of the paths whose deletes wait: each is judged again whenever
    /// somebody looks at it, and counts once.
    held: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Watching,
    Tripped { of: u64 },
    Released,
}

/// What the guard says to a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may go.
    Pass,
    /// It must wait, and is the first that must.
    Trips {
        /// How many vanished within the window, with this one.
        gone: u64,
        /// Of how many files.
        of: u64,
    },
    /// It must wait.
    Held,
}

impl DeleteGuard {
    /// Returns a guard with this limit.
    pub fn new(limit: MaxDelete) -> Self {
        DeleteGuard {
            limit,
            passed: VecDeque::new(),
            state: State::Watching,
            held: BTreeSet::new(),
        }
    }

    /// Judges one file's delete, when `files` are installed including it.
    pub fn judge(&mut self, now: Duration, path: &SharePath, files: u64) -> Verdict {
        match self.state {
            State::Released => return Verdict::Pass,
            State::Tripped { .. } => {
                self.hold(path);
                return Verdict::Held;
            }
            State::Watching => {}
        }
        while self.passed.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.passed.pop_front();
        }
        let before: u64 = self.passed.iter().map(|(_, count)| count).sum();
        let gone = before + 1;
        let of = files + before;
        if gone >= NEVER_BELOW && gone > self.limit.limit(of) {
            self.state = State::Tripped { of };
            self.hold(path);
            return Verdict::Trips { gone, of };
        }
        // Whole seconds bound the queue to the window's length.
        let second = Duration::from_secs(now.as_secs());
        match self.passed.back_mut() {
            Some((at, count)) if *at == second => *count += 1,
            _ => self.passed.push_back((second, 1)),
        }
        Verdict::Pass
    }

    fn hold(&mut self, path: &SharePath) {
        if self.held.len() < HELD_MAX {
            let [a, b, c, d, e, f, g, h, ..] = hash_of(path.as_bytes()).0;
            self.held.insert(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        }
    }

    /// Counts out one delete that passed and then could not be made: it is judged again.
    pub fn take_back(&mut self) {
        if let Some((_, count)) = self.passed.back_mut() {
            *count -= 1;
            if *count == 0 {
                self.passed.pop_back();
            }
        }
    }

    /// Returns how many deletes wait (counted up to 100,000) and of how many files, if the guard
    /// has tripped.
    pub fn held(&self) -> Option<(u64, u64)> {
        match self.state {
            State::Tripped { of } => Some((self.held.len() as u64, of)),
            State::Watching | State::Released => None,
        }
    }

    /// Lets everything go until [`DeleteGuard::watch_again`].
    pub fn release(&mut self) {
        self.state = State::Released;
        self.held.clear();
    }

    /// Counts from nothing again.
    pub fn watch_again(&mut self) {
        self.state = State::Watching;
        self.passed.clear();
        self.held.clear();
    }

    /// Ends a release: counts from nothing again. Does nothing otherwise.
    pub fn watch_again_after_release(&mut self) {
        if self.state == State::Released {
            self.watch_again();
        }
    }

    /// Changes the limit.
    pub fn set_limit(&mut self, limit: MaxDelete) {
        self.limit = limit;
    }
}
