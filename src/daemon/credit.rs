//! Lets a peer's messages into a share only as fast as they are dealt with.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// How many messages of one lane may wait.
#[derive(Debug)]
pub(super) struct Credit {
    free: Mutex<usize>,
    changed: Condvar,
}

/// The right of one message to wait; given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    credit: Arc<Credit>,
}

impl Credit {
    /// Returns credit for `free` messages.
    pub(super) fn new(free: usize) -> Arc<Self> {
        Arc::new(Credit { free: Mutex::new(free), changed: Condvar::new() })
    }

    /// Waits until one more message may wait.
    pub(super) fn take(self: &Arc<Self>) -> Pass {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .changed
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Pass { credit: self.clone() }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        *self.credit.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.credit.changed.notify_one();
    }
}
