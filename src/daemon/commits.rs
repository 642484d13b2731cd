//! Lets what rests on a commit begin before it: the step that may not come first waits here.
//!
//! **Invariant:** nobody passes before the commit that he waits for has succeeded.

use std::sync::{Condvar, Mutex, PoisonError};

/// The commits of a share's loop, counted.
#[derive(Debug, Default)]
pub(super) struct Commits {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    done: u64,
    stopped: bool,
}

impl Commits {
    /// Returns the number of the commit that comes next.
    pub(super) fn next(&self) -> u64 {
        self.lock().done + 1
    }

    /// Notes that it succeeded.
    pub(super) fn done(&self) {
        self.lock().done += 1;
        self.changed.notify_all();
    }

    /// Has nobody wait any more: there are no further commits.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits for the commit of this number; false if it did not come.
    pub(super) fn wait(&self, number: u64) -> bool {
        let state = self
            .changed
            .wait_while(self.lock(), |state| state.done < number && !state.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        state.done >= number
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_passes_before_his_commit() {
        let commits = Commits::default();
        let number = commits.next();
        std::thread::scope(|scope| {
            let [this, next] = [number, number + 1].map(|number| {
                let commits = &commits;
                scope.spawn(move || commits.wait(number))
            });
            commits.done();
            assert!(this.join().unwrap());
            commits.stop();
            assert!(!next.join().unwrap(), "it never came");
        });
        assert!(commits.wait(number), "what is done stays done");
        assert!(!commits.wait(commits.next()));
    }
}
