//! What waits for a share's loop: batches of new changes and of the backlog, new changes first.
//!
//! **Invariant:** within a lane nothing is reordered; a new change waits for a few inputs of the backlog and
//! their commit at most, and no batch leaves the backlog out.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use recsync_proto::message::Lane;

use super::share::ToShare;

/// What is taken together, and committed together.
const BATCH_MAX: usize = 256;
/// What is taken of the backlog though new changes wait, or have been taken.
const BATCH_MIN: usize = 16;

/// The receiving end of a share's inbox.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Receiver<ToShare>,
    live: VecDeque<ToShare>,
    bulk: VecDeque<ToShare>,
    /// What may still be taken of new changes in this batch.
    left: usize,
    /// What was taken of the backlog, and what may be.
    taken: usize,
    bulk_max: usize,
}

impl Inbox {
    pub(super) fn new(waiting: Receiver<ToShare>) -> Self {
        let (live, bulk) = (VecDeque::new(), VecDeque::new());
        Inbox { waiting, live, bulk, left: 0, taken: 0, bulk_max: 0 }
    }

    /// Begins the next batch, of what waits now: as soon as something is there, or an empty one after `wait`.
    /// False if nobody is left to send anything.
    pub(super) fn begin(&mut self, wait: Duration) -> bool {
        if self.live.is_empty() && self.bulk.is_empty() {
            match self.waiting.recv_timeout(wait) {
                Ok(first) => self.put(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        self.look();
        self.left = self.live.len().min(BATCH_MAX);
        self.taken = 0;
        let bulk_max = if self.live.is_empty() { BATCH_MAX } else { BATCH_MIN };
        self.bulk_max = self.bulk.len().min(bulk_max);
        true
    }

    /// Returns what comes next in this batch.
    pub(super) fn take(&mut self) -> Option<ToShare> {
        self.look();
        if self.left > 0 {
            self.left -= 1;
            return self.live.pop_front();
        }
        let yields = !self.live.is_empty() && self.taken >= BATCH_MIN;
        if yields || self.taken == self.bulk_max {
            return None;
        }
        self.taken += 1;
        self.bulk.pop_front()
    }

    fn look(&mut self) {
        // A sender that is quicker than this must not keep it.
        for _ in 0..BATCH_MAX {
            let Ok(next) = self.waiting.try_recv() else { break };
            self.put(next);
        }
    }

    fn put(&mut self, what: ToShare) {
        match what.lane() {
            Lane::Live => self.live.push_back(what),
            Lane::Bulk => self.bulk.push_back(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::engine::Input;

    /// Takes a batch: so much of each lane.
    fn batch(inbox: &mut Inbox) -> (usize, usize) {
        assert!(inbox.begin(Duration::ZERO));
        let batch: Vec<_> = std::iter::from_fn(|| inbox.take()).collect();
        let live = batch.iter().filter(|what| what.lane() == Lane::Live).count();
        (live, batch.len() - live)
    }

    #[test]
    fn a_batch_is_of_both_lanes() {
        let (send, waiting) = channel();
        let mut inbox = Inbox::new(waiting);
        let tell = |lane, count| {
            for _ in 0..count {
                send.send(ToShare::Input(lane, Input::Tick)).unwrap();
            }
        };
        tell(Lane::Bulk, 2 * BATCH_MAX);
        assert_eq!(batch(&mut inbox), (0, BATCH_MAX));
        tell(Lane::Live, 2 * BATCH_MAX);
        assert_eq!(batch(&mut inbox), (BATCH_MAX, BATCH_MIN), "calls cannot hold the backlog up");
        assert_eq!(batch(&mut inbox), (BATCH_MAX, BATCH_MIN));
        assert_eq!(batch(&mut inbox), (0, BATCH_MAX - 2 * BATCH_MIN));
        assert_eq!(batch(&mut inbox), (0, 0), "time passed");
    }

    #[test]
    fn new_changes_come_first() {
        let (send, waiting) = channel();
        let mut inbox = Inbox::new(waiting);
        for lane in [Lane::Bulk, Lane::Live, Lane::Bulk, Lane::Live] {
            send.send(ToShare::Input(lane, Input::Tick)).unwrap();
        }
        assert!(inbox.begin(Duration::ZERO));
        let lanes: Vec<_> = std::iter::from_fn(|| inbox.take()).map(|what| what.lane()).collect();
        assert_eq!(lanes, [Lane::Live, Lane::Live, Lane::Bulk, Lane::Bulk]);
    }

    #[test]
    fn the_backlog_yields_to_what_comes_while_it_is_worked_off() {
        let (send, waiting) = channel();
        let mut inbox = Inbox::new(waiting);
        let tell = |lane| send.send(ToShare::Input(lane, Input::Tick)).unwrap();
        (0..BATCH_MAX).for_each(|_| tell(Lane::Bulk));
        assert!(inbox.begin(Duration::ZERO));
        assert!((0..100).all(|_| inbox.take().is_some()));
        tell(Lane::Live);
        assert!(inbox.take().is_none());
        assert_eq!(batch(&mut inbox), (1, BATCH_MIN));
        assert_eq!(batch(&mut inbox), (0, BATCH_MAX - 100 - BATCH_MIN));
    }

    #[test]
    fn it_ends_when_all_that_was_sent_is_taken() {
        let (send, waiting) = channel();
        let mut inbox = Inbox::new(waiting);
        send.send(ToShare::Rescan).unwrap();
        drop(send);
        assert_eq!(batch(&mut inbox), (1, 0));
        assert!(!inbox.begin(Duration::ZERO));
    }
}
