//! Holds back deletes when too many files vanish at once.
//!
//! **Invariant:** fewer than [`NEVER_BELOW`] files are never held; once tripped, nothing passes
//! until the operator decides; a restart changes neither what is counted nor what waits.
//! **May not:** read a clock; `now` is an argument.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use recsync_proto::SharePath;
use recsync_proto::record::hash_of;

use super::effect::Now;
use crate::index::{Guard, GuardState, Stand, Write};

/// Deletes within this time count together (contract, `max_delete`).
pub const WINDOW: Duration = Duration::from_secs(600);
/// Fewer deletes than this never wait (contract, `max_delete`).
pub const NEVER_BELOW: u64 = 20;
/// Held deletes that are known apart: a few megabytes.
const HELD_MAX: usize = 100_000;
const NS: i64 = 1_000_000_000;

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
    /// What passed before this start, by the wall clock: taken in with the first judgement.
    before: Vec<(i64, u64)>,
    passed: VecDeque<Passed>,
    stand: Stand,
    /// The beginnings of hashes of the paths whose deletes wait: each is judged again whenever
    /// somebody looks at it, and counts once. After a start the first scan fills it again.
    held: BTreeSet<u64>,
    /// What the index does not know yet: whether the stand, and which seconds.
    stand_changed: bool,
    changed: BTreeSet<i64>,
}

/// Deletes that passed in one second.
#[derive(Debug, Clone, Copy)]
struct Passed {
    /// Monotonic, whole seconds, [`WINDOW`] late: what passed before the start has room.
    at: Duration,
    /// By the wall clock; distinct and ascending even where that was set back.
    second: i64,
    count: u64,
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
    /// Returns a guard with this limit that remembers what the index has of it.
    pub fn new(limit: MaxDelete, state: GuardState) -> Self {
        DeleteGuard {
            limit,
            before: state.passed,
            passed: VecDeque::new(),
            stand: state.stand,
            held: BTreeSet::new(),
            stand_changed: false,
            changed: BTreeSet::new(),
        }
    }

    /// Judges one file's delete, when `files` are installed including it.
    pub fn judge(&mut self, now: Now, path: &SharePath, files: u64) -> Verdict {
        if mutant!(NoGuard) {
            return Verdict::Pass;
        }
        match self.stand {
            Stand::Released | Stand::Restoring => return Verdict::Pass,
            Stand::Tripped { .. } => {
                self.hold(path);
                return Verdict::Held;
            }
            Stand::Watching => {}
        }
        let at = now.mono + WINDOW;
        self.remember(at, now.wall_ns.div_euclid(NS));
        while let Some(oldest) = self.passed.front().filter(|oldest| oldest.at + WINDOW < at) {
            self.changed.insert(oldest.second);
            self.passed.pop_front();
        }
        let before: u64 = self.passed.iter().map(|passed| passed.count).sum();
        let gone = before + 1;
        let of = files + before;
        if gone >= NEVER_BELOW && gone > self.limit.limit(of) {
            self.take_stand(Stand::Tripped { gone, of });
            self.hold(path);
            return Verdict::Trips { gone, of };
        }
        self.pass(at, now.wall_ns.div_euclid(NS));
        Verdict::Pass
    }

    /// Takes in what passed before this start: as old as the wall clock has it, but not younger
    /// than now where that was set back.
    fn remember(&mut self, at: Duration, now: i64) {
        for (second, count) in std::mem::take(&mut self.before) {
            let age = Duration::from_secs(u64::try_from(now - second).unwrap_or(0));
            if age > WINDOW {
                self.changed.insert(second);
            } else {
                let at = Duration::from_secs((at - age).as_secs());
                self.passed.push_back(Passed { at, second, count });
            }
        }
    }

    fn pass(&mut self, at: Duration, now: i64) {
        // Whole seconds bound the queue to the window's length.
        let at = Duration::from_secs(at.as_secs());
        let last = self.passed.back().map(|last| last.second);
        match self.passed.back_mut() {
            Some(last) if last.at == at => last.count += 1,
            _ => {
                let second = last.map_or(now, |last| now.max(last + 1));
                self.passed.push_back(Passed { at, second, count: 1 });
            }
        }
        self.changed.extend(self.passed.back().map(|last| last.second));
    }

    fn hold(&mut self, path: &SharePath) {
        if self.held.len() < HELD_MAX {
            let [a, b, c, d, e, f, g, h, ..] = hash_of(path.as_bytes()).0;
            self.held.insert(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        }
    }

    /// Counts out one delete that passed and then could not be made: it is judged again.
    pub fn take_back(&mut self) {
        if let Some(last) = self.passed.back_mut() {
            last.count -= 1;
            self.changed.insert(last.second);
            if last.count == 0 {
                self.passed.pop_back();
            }
        }
    }

    /// Returns how many deletes wait (counted up to 100,000) and of how many files, if the guard
    /// has tripped.
    pub fn held(&self) -> Option<(u64, u64)> {
        self.tripped().map(|(_, of)| (self.held.len() as u64, of))
    }

    /// Returns how many files had vanished when the guard tripped, if it has, and of how many.
    pub fn tripped(&self) -> Option<(u64, u64)> {
        match self.stand {
            Stand::Tripped { gone, of } => Some((gone, of)),
            Stand::Watching | Stand::Released | Stand::Restoring => None,
        }
    }

    /// Lets everything go until [`DeleteGuard::watch_again_after_decision`].
    pub fn release(&mut self) {
        self.take_stand(Stand::Released);
        self.held.clear();
    }

    /// Says that what vanished is to be put back, until
    /// [`DeleteGuard::watch_again_after_decision`].
    pub fn restore(&mut self) {
        self.take_stand(Stand::Restoring);
        self.held.clear();
    }

    /// True if what vanished is to be put back.
    pub fn is_restoring(&self) -> bool {
        self.stand == Stand::Restoring
    }

    /// Counts from nothing again.
    pub fn watch_again(&mut self) {
        self.take_stand(Stand::Watching);
        self.changed.extend(self.before.drain(..).map(|(second, _)| second));
        self.changed.extend(self.passed.drain(..).map(|passed| passed.second));
        self.held.clear();
    }

    /// Ends what the operator decided: counts from nothing again. Does nothing otherwise.
    pub fn watch_again_after_decision(&mut self) {
        if matches!(self.stand, Stand::Released | Stand::Restoring) {
            self.watch_again();
        }
    }

    fn take_stand(&mut self, stand: Stand) {
        self.stand_changed |= stand != self.stand;
        self.stand = stand;
    }

    /// Returns what the index is to remember of this guard, which is `which` there.
    pub fn changes(&mut self, which: Guard) -> Vec<Write> {
        let stand =
            std::mem::take(&mut self.stand_changed).then_some(Write::Stand(which, self.stand));
        let count = |second: i64| {
            let at = self.passed.binary_search_by_key(&second, |passed| passed.second);
            at.map_or(0, |at| self.passed[at].count)
        };
        let passed = std::mem::take(&mut self.changed).into_iter().map(|second| Write::Passed {
            guard: which,
            second,
            count: count(second),
        });
        stand.into_iter().chain(passed).collect()
    }

    /// Changes the limit.
    pub fn set_limit(&mut self, limit: MaxDelete) {
        self.limit = limit;
    }
}
