//! Operations on their way to the disk: a few workers take them in batches, so that many share
//! the waits for the disk under load and a single one waits for nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use recsync_proto::message::Lane;

use super::pool::PoolHandle;
use super::site::Site;
use crate::apply;
use crate::engine::{Input, Op};

/// Batches of a lane applied at the same time: the disk's queue is full enough with these.
const BATCHES_MAX: usize = 4;
/// Operations in a batch.
const BATCH_MAX: usize = 32;

/// Operations of one lane that wait for a worker.
#[derive(Debug)]
pub(super) struct Changes {
    lane: Lane,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Op>,
    running: usize,
}

impl Changes {
    pub(super) fn new(lane: Lane) -> Arc<Self> {
        Arc::new(Changes { lane, state: Mutex::default() })
    }

    /// Queues operations, and sets workers to them.
    pub(super) fn push(self: &Arc<Self>, ops: Vec<Op>, site: &Arc<Site>, pool: &PoolHandle) {
        let mut state = self.lock();
        state.waiting.extend(ops);
        let wanted = state.waiting.len().div_ceil(BATCH_MAX).min(BATCHES_MAX);
        while state.running < wanted {
            state.running += 1;
            let (changes, site) = (self.clone(), site.clone());
            pool.run(self.lane, move || changes.work(&site));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, site: &Site) {
        loop {
            let batch: Vec<Op> = {
                let mut state = self.lock();
                let count = state.waiting.len().min(BATCH_MAX);
                if count == 0 || site.is_stopping() {
                    state.running -= 1;
                    return;
                }
                state.waiting.drain(..count).collect()
            };
            for (id, outcome) in apply::run(&*site.tree, batch) {
                site.input(self.lane, Input::Applied { id, outcome });
            }
        }
    }
}
