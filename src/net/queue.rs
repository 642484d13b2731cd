//! A queue counted in bytes, between plain threads on one side and tasks on the other.
//!
//! There is room while the queue holds less than its limit, so that an item of any size fits into
//! an empty queue; the queue exceeds its limit by one item at most, and by what is pushed with
//! [`Queue::post`], which asks for no room and has a limit of its own.
//!
//! **Invariant:** after [`Queue::close`] nothing goes in or comes out, and nobody waits.
//! **May not:** lose or reorder items before that.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What became of an item that was pushed without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It is in the queue.
    Yes,
    /// There is no room now.
    Full,
    /// Nothing goes in any more.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    /// Bytes from which on there is no room.
    limit: usize,
    /// Wakes threads at every change.
    threads: Condvar,
    /// Wakes the one task that waits on this queue.
    task: Notify,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(limit: usize) -> Self {
        let state = State { items: VecDeque::new(), bytes: 0, closed: false };
        Queue { state: Mutex::new(state), limit, threads: Condvar::new(), task: Notify::new() }
    }

    /// Adds an item of `len` bytes if there is room.
    pub(super) fn try_push(&self, item: T, len: usize) -> Pushed {
        let state = self.lock();
        if state.bytes >= self.limit && !state.closed {
            return Pushed::Full;
        }
        self.add(state, item, len)
    }

    /// Adds an item as soon as there is room; blocks the thread.
    pub(super) fn push_blocking(&self, item: T, len: usize) -> Pushed {
        let full = |state: &mut State<T>| state.bytes >= self.limit && !state.closed;
        let state = self.threads.wait_while(self.lock(), full);
        self.add(state.unwrap_or_else(PoisonError::into_inner), item, len)
    }

    /// Adds an item as soon as there is room; waits as a task. Only one task may wait at a time.
    pub(super) async fn push(&self, item: T, len: usize) -> Pushed {
        loop {
            {
                let state = self.lock();
                if state.bytes < self.limit || state.closed {
                    return self.add(state, item, len);
                }
            }
            self.task.notified().await;
        }
    }

    /// Adds an item whether there is room or not, up to `limit` bytes in the queue.
    pub(super) fn post(&self, item: T, len: usize, limit: usize) -> Pushed {
        let state = self.lock();
        if state.bytes >= limit && !state.closed {
            return Pushed::Full;
        }
        self.add(state, item, len)
    }

    /// Returns the next item as soon as there is one; blocks the thread. None once closed.
    pub(super) fn pop_blocking(&self) -> Option<T> {
        let empty = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        let state = self.threads.wait_while(self.lock(), empty);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let (item, len) = state.items.pop_front()?;
        state.bytes -= len;
        drop(state);
        self.changed();
        Some(item)
    }

    /// Moves at least one item and then as many as `max` bytes allow into `batch`, as soon as
    /// there is one; waits as a task. Returns false once closed. If dropped while it waits, no item is lost.
    pub(super) async fn pop_batch(&self, batch: &mut Vec<T>, max: usize) -> bool {
        loop {
            if let Some(open) = self.take(batch, max) {
                return open;
            }
            self.task.notified().await;
        }
    }

    /// Lets nothing in or out from now on, drops what is queued and wakes all who wait.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.bytes = 0;
        let dropped = std::mem::take(&mut state.items);
        drop(state);
        self.changed();
        drop(dropped);
    }

    /// Returns the bytes in the queue.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn take(&self, batch: &mut Vec<T>, max: usize) -> Option<bool> {
        let mut state = self.lock();
        if state.closed {
            return Some(false);
        }
        let (before, mut taken) = (batch.len(), 0);
        while let Some((item, len)) =
            state.items.pop_front_if(|(_, len)| taken == 0 || taken + *len <= max)
        {
            state.bytes -= len;
            taken += len;
            batch.push(item);
        }
        drop(state);
        if batch.len() == before {
            return None;
        }
        self.changed();
        Some(true)
    }

    fn add(&self, mut state: MutexGuard<'_, State<T>>, item: T, len: usize) -> Pushed {
        if state.closed {
            return Pushed::Closed;
        }
        state.bytes += len;
        state.items.push_back((item, len));
        drop(state);
        self.changed();
        Pushed::Yes
    }

    fn changed(&self) {
        self.threads.notify_all();
        self.task.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn room_is_counted_in_bytes() {
        let queue = Queue::new(10);
        assert_eq!(queue.try_push('a', 9), Pushed::Yes);
        assert_eq!(queue.try_push('b', 100), Pushed::Yes, "one item may pass the limit");
        assert_eq!(queue.try_push('c', 1), Pushed::Full);
        assert_eq!(queue.post('c', 1, 110), Pushed::Yes);
        assert_eq!(queue.post('d', 1, 110), Pushed::Full);
        assert_eq!((queue.pop_blocking(), queue.bytes()), (Some('a'), 101));
        let mut batch = Vec::new();
        assert!(block_on(queue.pop_batch(&mut batch, 5)), "at least one, whatever its size");
        assert_eq!((batch.as_slice(), queue.bytes()), (&['b'][..], 1));
    }

    #[test]
    fn a_batch_takes_what_fits() {
        let queue = Queue::new(100);
        for item in 0..5 {
            assert_eq!(queue.try_push(item, 10), Pushed::Yes);
        }
        let mut batch = Vec::new();
        assert!(block_on(queue.pop_batch(&mut batch, 35)));
        assert_eq!(batch, [0, 1, 2]);
    }

    #[test]
    fn who_waits_for_room_gets_it_in_the_end() {
        let queue = Arc::new(Queue::new(1));
        let (done, waits) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for item in 0..100 {
                    assert_eq!(queue.push_blocking(item, 1), Pushed::Yes);
                }
                done.send(()).unwrap();
            });
            for item in 0..100 {
                assert_eq!(queue.pop_blocking(), Some(item));
                assert!(queue.bytes() <= 1);
            }
            waits.recv().unwrap();
        });
    }

    #[test]
    fn closing_frees_all_who_wait() {
        let full = Queue::new(1);
        let empty: Queue<()> = Queue::new(1);
        assert_eq!(full.try_push((), 1), Pushed::Yes);
        std::thread::scope(|scope| {
            let waiters = [
                scope.spawn(|| full.push_blocking((), 1) == Pushed::Closed),
                scope.spawn(|| empty.pop_blocking().is_none()),
                scope.spawn(|| block_on(full.push((), 1)) == Pushed::Closed),
                scope.spawn(|| !block_on(empty.pop_batch(&mut Vec::new(), 1))),
            ];
            full.close();
            empty.close();
            assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        });
        assert_eq!(full.pop_blocking(), None, "what was queued is gone");
        assert_eq!(full.try_push((), 1), Pushed::Closed);
    }
}
