//! Operations on their way to the disk: a few workers take them in batches, so that many share
//! the waits for the disk under load and a single one waits for nothing. Those of the backlog go
//! in small steps while calls come, whose syncs would wait for all that they write.
//!
//! **Invariant:** nothing is switched before the index knows that it will be.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use recsync_proto::message::Lane;

use super::pool::PoolHandle;
use super::site::Site;
use crate::apply;
use crate::engine::{Action, Input, Op};

/// How much of a lane is applied at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    /// Batches.
    batches: usize,
    /// Operations in a batch.
    batch: usize,
}

/// The disk's queue is full enough with these.
const FULL: Pace = Pace { batches: 4, batch: 32 };
/// That of the backlog while calls come.
const SMALL_STEPS: Pace = Pace { batches: 1, batch: 8 };

/// Operations of one lane that wait for a worker.
#[derive(Debug)]
pub(super) struct Changes {
    lane: Lane,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each with the commit of the index that allows it.
    waiting: VecDeque<(u64, Op)>,
    running: usize,
}

impl Changes {
    pub(super) fn new(lane: Lane) -> Arc<Self> {
        Arc::new(Changes { lane, state: Mutex::default() })
    }

    /// Queues operations of the open transaction, and sets workers to them: what they stage needs no leave.
    pub(super) fn push(self: &Arc<Self>, ops: Vec<Op>, site: &Arc<Site>, pool: &PoolHandle) {
        // A directory may be of either.
        let is_call = |op: &Op| !matches!(op.action, Action::Dir { .. });
        if self.lane == Lane::Live && ops.iter().any(is_call) {
            pool.call_came();
        }
        let mut state = self.lock();
        let commit = site.commits.next();
        state.waiting.extend(ops.into_iter().map(|op| (commit, op)));
        let pace = self.pace(pool);
        let wanted = state.waiting.len().div_ceil(pace.batch).min(pace.batches);
        while state.running < wanted {
            state.running += 1;
            let (changes, site, crews) = (self.clone(), site.clone(), pool.clone());
            pool.run(self.lane, move || changes.work(&site, &crews));
        }
    }

    fn pace(&self, pool: &PoolHandle) -> Pace {
        match self.lane {
            Lane::Bulk if pool.calls_come() => SMALL_STEPS,
            Lane::Live | Lane::Bulk => FULL,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, site: &Site, pool: &PoolHandle) {
        loop {
            let batch: Vec<_> = {
                let pace = self.pace(pool);
                let mut state = self.lock();
                let count = state.waiting.len().min(pace.batch);
                // More begin again with the next that comes.
                if count == 0 || state.running > pace.batches || site.is_stopping() {
                    state.running -= 1;
                    return;
                }
                state.waiting.drain(..count).collect()
            };
            let last = batch.iter().map(|(commit, _)| *commit).max().unwrap_or_default();
            let ops = batch.into_iter().map(|(_, op)| op).collect();
            for (id, outcome) in apply::run_after(&*site.tree, ops, || site.commits.wait(last)) {
                site.input(self.lane, Input::Applied { id, outcome });
            }
        }
    }
}
