//! Holds back deletes when too many files vanish at once.
//!
//! **Invariant:** fewer than [`NEVER_BELOW`] files are never held; once tripped, nothing passes
//! until the operator decides.
//! **May not:** read a clock; `now` is an argument.

use std::collections::VecDeque;
use std::time::Duration;

/// Deletes within this time count together (contract, `max_delete`).
pub const WINDOW: Duration = Duration::from_secs(600);
/// Fewer deletes than this never wait (contract, `max_delete`).
pub const NEVER_BELOW: u64 = 20;

/// How many files may vanish within [`WINDOW`]: the smaller of the two where both are given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaxDelete {
    /// Of the files that there were, in percent.
    pub percent: Option<f64>,
    /// Files.
    pub count: Option<u64>,
}

/// Counts deletes in a sliding window and says when they must wait.
#[derive(Debug)]
pub struct DeleteGuard {
    limit: MaxDelete,
    /// When each delete of the window passed, in whole seconds with a count.
    passed: VecDeque<(Duration, u64)>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Watching,
    Tripped { held: u64, of: u64 },
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
        DeleteGuard { limit, passed: VecDeque::new(), state: State::Watching }
    }

    /// Judges one file's delete, when `files` are installed including it.
    pub fn judge(&mut self, now: Duration, files: u64) -> Verdict {
        match &mut self.state {
            State::Released => return Verdict::Pass,
            State::Tripped { held, .. } => {
                *held += 1;
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
        if gone >= NEVER_BELOW && gone > self.allowed(of) {
            self.state = State::Tripped { held: 1, of };
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

    fn allowed(&self, of: u64) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a percentage of a file count below 2^53"
        )]
        let by_percent = self.limit.percent.map(|percent| (of as f64 * percent / 100.0) as u64);
        let by_count = self.limit.count;
        match (by_percent, by_count) {
            (Some(percent), Some(count)) => percent.min(count),
            (Some(limit), None) | (None, Some(limit)) => limit,
            (None, None) => u64::MAX,
        }
    }

    /// Returns how many deletes wait and of how many files, if the guard has tripped.
    pub fn held(&self) -> Option<(u64, u64)> {
        match self.state {
            State::Tripped { held, of } => Some((held, of)),
            State::Watching | State::Released => None,
        }
    }

    /// Lets everything go until [`DeleteGuard::watch_again`].
    pub fn release(&mut self) {
        self.state = State::Released;
    }

    /// Counts from nothing again.
    pub fn watch_again(&mut self) {
        self.state = State::Watching;
        self.passed.clear();
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
