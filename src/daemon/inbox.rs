//! What waits for a share's loop: batches of new changes and of the backlog, turn about.
//!
//! **Invariant:** within a lane nothing is reordered; a new change waits for a few inputs of the backlog and
//! their commit at most, and the backlog for one batch of new changes.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use recsync_proto::message::Lane;

use super::share::ToShare;

/// What is taken together, and committed together.
const BATCH_MAX: usize = 256;
/// What is taken of the backlog at least, though a new change waits.
const BATCH_MIN: usize = 16;

/// The receiving end of a share's inbox.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Receiver<ToShare>,
    live: VecDeque<ToShare>,
    bulk: VecDeque<ToShare>,
    /// The lane of this batch, how much of it was taken and how much is left.
    lane: Lane,
    taken: usize,
    left: usize,
}

impl Inbox {
    pub(super) fn new(waiting: Receiver<ToShare>) -> Self {
        let (live, bulk) = (VecDeque::new(), VecDeque::new());
        Inbox { waiting, live, bulk, lane: Lane::Bulk, taken: 0, left: 0 }
    }

    /// Begins the next batch, of what waits in one lane: as soon as something is there, or an empty one
    /// after `wait`. False if nobody is left to send anything.
    pub(super) fn begin(&mut self, wait: Duration) -> bool {
        if self.live.is_empty() && self.bulk.is_empty() {
            match self.waiting.recv_timeout(wait) {
                Ok(first) => self.put(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        self.look();
        let was_live = self.lane == Lane::Live;
        let is_bulk = self.live.is_empty() || was_live && !self.bulk.is_empty();
        self.lane = if is_bulk { Lane::Bulk } else { Lane::Live };
        self.taken = 0;
        self.left = self.queue(self.lane).len().min(BATCH_MAX);
        true
    }

    /// Returns what comes next in this batch.
    pub(super) fn take(&mut self) -> Option<ToShare> {
        self.look();
        let yields = self.lane == Lane::Bulk && !self.live.is_empty() && self.taken >= BATCH_MIN;
        if yields || self.left == 0 {
            return None;
        }
        self.taken += 1;
        self.left -= 1;
        self.queue(self.lane).pop_front()
    }

    fn queue(&mut self, lane: Lane) -> &mut VecDeque<ToShare> {
        match lane {
            Lane::Live => &mut self.live,
            Lane::Bulk => &mut self.bulk,
        }
    }

    fn look(&mut self) {
        // A sender that is quicker than this must not keep it.
        for _ in 0..BATCH_MAX {
            let Ok(next) = self.waiting.try_recv() else { break };
            self.put(next);
        }
    }

    fn put(&mut self, what: ToShare) {
        self.queue(what.lane()).push_back(what);
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
    fn lanes_take_turns() {
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
        assert_eq!(batch(&mut inbox), (BATCH_MAX, 0), "what came last is next");
        assert_eq!(batch(&mut inbox), (0, BATCH_MIN), "and cannot hold the backlog up");
        assert_eq!(batch(&mut inbox), (BATCH_MAX, 0));
        assert_eq!(batch(&mut inbox), (0, BATCH_MAX - BATCH_MIN));
        assert_eq!(batch(&mut inbox), (0, 0), "time passed");
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
        assert_eq!(batch(&mut inbox), (1, 0));
        assert_eq!(batch(&mut inbox), (0, BATCH_MAX - 100));
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
