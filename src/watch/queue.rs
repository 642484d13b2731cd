//! The bounded queue between the thread that hears and the thread that reports, and the watcher's
//! inbox for what its [`Handle`](super::Handle) asks.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::raw::Raw;

/// Raw events handed out at a time: with the queue, all that is held in memory.
const CHUNK: usize = 1_024;
/// Room kept in an empty queue.
const KEPT: usize = 4_096;

/// Raw events that wait, at most `capacity`.
///
/// From the first loss on, all that comes is dropped until a new [`Feed`] is made: the scan that
/// follows sees it anyway. What came before the loss is still handed out.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Raw>,
    lost: bool,
    stop: bool,
    rewatch: bool,
    /// Feeds of an earlier generation are not listened to.
    generation: u64,
    /// Feeds that still exist.
    feeds: usize,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The batch was filled.
    Events,
    /// Events were lost, and those before the loss were handed out.
    Lost,
    /// The handle asks for all watches to be made anew.
    Rewatch,
    /// The handle asks to stop.
    Stop,
    /// The time to wait is over.
    Due,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Queue { state: Mutex::default(), ready: Condvar::new(), capacity }
    }

    /// Waits for something to do, for the given time or for ever; fills the empty `batch`.
    pub(super) fn next(&self, batch: &mut Vec<Raw>, wait: Option<Duration>) -> Next {
        let idle = |state: &mut State| {
            !state.stop && !state.rewatch && !state.lost && state.events.is_empty()
        };
        let state = self.lock();
        let mut state = match wait {
            None => self.ready.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
            Some(wait) => {
                let waited = self.ready.wait_timeout_while(state, wait, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if state.stop {
            return Next::Stop;
        }
        if state.rewatch {
            return Next::Rewatch;
        }
        if !state.events.is_empty() {
            let count = state.events.len().min(CHUNK);
            batch.extend(state.events.drain(..count));
            if state.events.is_empty() {
                state.events.shrink_to(KEPT);
            }
            return Next::Events;
        }
        if state.lost { Next::Lost } else { Next::Due }
    }

    /// Returns the entrance for a new source's events.
    pub(super) fn feed(self: &Arc<Self>) -> Feed {
        let mut state = self.lock();
        state.feeds += 1;
        Feed { queue: self.clone(), generation: state.generation }
    }

    /// Stops listening to the feeds there are; drops what waits, a loss and a wish for new watches:
    /// whoever calls this makes them anew or gives up.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.generation += 1;
        state.events = VecDeque::new();
        state.lost = false;
        state.rewatch = false;
    }

    /// Waits until every feed is dropped, at most for the given time.
    pub(super) fn wait_closed(&self, wait: Duration) {
        let state = self.lock();
        drop(self.ready.wait_timeout_while(state, wait, |state| state.feeds > 0));
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.ready.notify_all();
    }

    pub(super) fn stopping(&self) -> bool {
        self.lock().stop
    }

    pub(super) fn rewatch(&self) {
        self.lock().rewatch = true;
        self.ready.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a source puts what it hears. Never waits. Its unexpected end is a loss.
#[derive(Debug)]
pub(super) struct Feed {
    queue: Arc<Queue>,
    generation: u64,
}

impl Feed {
    pub(super) fn push(&self, raw: Raw) {
        let mut state = self.queue.lock();
        if state.generation != self.generation || state.lost {
            return;
        }
        if state.events.len() >= self.queue.capacity {
            state.lost = true;
        } else {
            state.events.push_back(raw);
        }
        drop(state);
        self.queue.ready.notify_all();
    }

    /// Notes that events were lost.
    pub(super) fn lose(&self) {
        let mut state = self.queue.lock();
        state.lost |= state.generation == self.generation;
        drop(state);
        self.queue.ready.notify_all();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.lose();
        self.queue.lock().feeds -= 1;
        self.queue.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::What;
    use super::*;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn raw(path: &str) -> Raw {
        Raw { what: What::Written, path: path.as_bytes().into(), at: Duration::ZERO }
    }

    #[test]
    fn what_came_before_a_loss_is_handed_out_and_then_the_loss() {
        let queue = Arc::new(Queue::new(2));
        let feed = queue.feed();
        for path in ["a", "b", "c"] {
            feed.push(raw(path));
        }
        let mut batch = Vec::new();
        assert_eq!(queue.next(&mut batch, NOW), Next::Events);
        assert_eq!(batch, [raw("a"), raw("b")]);
        feed.push(raw("d"));
        assert_eq!(queue.next(&mut batch, NOW), Next::Lost);

        queue.close();
        feed.push(raw("old"));
        let fresh = queue.feed();
        fresh.push(raw("e"));
        drop(feed);
        batch.clear();
        assert_eq!(queue.next(&mut batch, NOW), Next::Events);
        assert_eq!(batch, [raw("e")]);
        assert_eq!(queue.next(&mut batch, NOW), Next::Due);
    }

    #[test]
    fn the_unexpected_end_of_a_feed_is_a_loss() {
        let queue = Arc::new(Queue::new(2));
        let mut batch = Vec::new();
        drop(queue.feed());
        assert_eq!(queue.next(&mut batch, NOW), Next::Lost);
        queue.close();
        assert_eq!(queue.next(&mut batch, NOW), Next::Due);
        queue.wait_closed(Duration::MAX);
    }

    #[test]
    fn to_stop_goes_before_all_else() {
        let queue = Arc::new(Queue::new(2));
        let feed = queue.feed();
        feed.push(raw("a"));
        queue.rewatch();
        let mut batch = Vec::new();
        assert_eq!(queue.next(&mut batch, None), Next::Rewatch);
        queue.stop();
        assert_eq!(queue.next(&mut batch, None), Next::Stop);
        assert!(queue.stopping());
    }
}
