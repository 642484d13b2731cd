//! Lets a scan run only as fast as its findings are dealt with.

use std::sync::{Condvar, Mutex, PoisonError};

/// Closed while the share's loop has enough to do.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    busy: bool,
    stopped: bool,
}

impl Gate {
    /// Opens or closes the gate.
    pub(super) fn set_busy(&self, busy: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.busy != busy {
            state.busy = busy;
            self.changed.notify_all();
        }
    }

    /// Opens the gate for good: what waits at it is to end.
    pub(super) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.changed.notify_all();
    }

    /// Waits until the gate is open; false if all is to end.
    pub(super) fn pass(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self
            .changed
            .wait_while(state, |state| state.busy && !state.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        !state.stopped
    }
}
