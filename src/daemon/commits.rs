//! Lets what rests on a commit begin before it: the step that may not come first waits here. And lets
//! what was read of the index be kept until a commit changes that, or be read again as soon as one does.
//!
//! **Invariant:** nobody passes before the commit that he waits for has succeeded; what is kept was read
//! after the last commit that wrote something.

use std::sync::{Condvar, Mutex, PoisonError};

use tokio::sync::watch;

/// The commits of a share's loop, counted.
#[derive(Debug, Default)]
pub(super) struct Commits {
    state: Mutex<State>,
    changed: Condvar,
    /// How many of them wrote something.
    wrote: watch::Sender<u64>,
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

    /// Notes that it succeeded, and whether it wrote anything.
    pub(super) fn done(&self, wrote: bool) {
        if wrote {
            self.wrote.send_modify(|count| *count += 1);
        }
        self.lock().done += 1;
        self.changed.notify_all();
    }

    /// Has nobody wait any more: there are no further commits.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
        self.wrote.send_modify(|_| {});
    }

    /// Returns what tells of each commit from now on that writes something, and of the end of them.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.wrote.subscribe()
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

/// Something that was read of the index, and is read again once that has changed: an idle share's
/// threads leave it alone.
#[derive(Debug)]
pub(super) struct Kept<T> {
    /// What it is, and how many commits had written something before it was read.
    read: Option<(u64, T)>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { read: None }
    }
}

impl<T: Clone> Kept<T> {
    /// Returns it, read anew if it has to be.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) fn get<E>(
        &mut self,
        commits: &Commits,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let wrote = *commits.wrote.borrow();
        match &self.read {
            Some((at, known)) if *at == wrote => Ok(known.clone()),
            _ => {
                let known = read()?;
                self.read = Some((wrote, known.clone()));
                Ok(known)
            }
        }
    }

    /// Has it read anew the next time.
    pub(super) fn forget(&mut self) {
        self.read = None;
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
            commits.done(false);
            assert!(this.join().unwrap());
            commits.stop();
            assert!(!next.join().unwrap(), "it never came");
        });
        assert!(commits.wait(number), "what is done stays done");
        assert!(!commits.wait(commits.next()));
    }

    #[test]
    fn who_waits_for_news_hears_of_commits_that_write_and_of_the_end() {
        let commits = Commits::default();
        commits.done(true);
        let mut changes = commits.changes();
        let mut has_changed = || {
            let changed = changes.has_changed().unwrap();
            changes.mark_unchanged();
            changed
        };
        assert!(!has_changed(), "that was before");
        commits.done(false);
        assert!(!has_changed());
        commits.done(true);
        assert!(has_changed());
        commits.stop();
        assert!(has_changed());
    }

    #[test]
    fn what_was_read_is_kept_until_something_is_written() {
        let (commits, mut kept) = (Commits::default(), Kept::default());
        let mut get = |now: u32| kept.get(&commits, || Ok::<_, ()>(now));
        assert_eq!([get(1), get(2)], [Ok(1); 2]);
        commits.done(false);
        assert_eq!(get(3), Ok(1));
        commits.done(true);
        assert_eq!([get(4), get(5)], [Ok(4); 2]);
        let mut failed = Kept::<u32>::default();
        assert_eq!(failed.get(&commits, || Err(())), Err(()));
        assert_eq!(failed.get(&commits, || Ok::<_, ()>(6)), Ok(6), "an error is not kept");
        failed.forget();
        assert_eq!(failed.get(&commits, || Ok::<_, ()>(7)), Ok(7));
    }
}
