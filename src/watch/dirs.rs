//! The directories of a share, and which of them are watched.

use std::collections::BTreeMap;

use recsync_proto::SharePath;

/// How a directory stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its changes are heard.
    Watched,
    /// They are not, and it is tried again at intervals.
    Unwatched,
    /// This process may not read it; it is tried again when its attributes change.
    Denied,
}

/// The directories known to be there; a name that is none is left out.
#[derive(Debug, Default)]
pub(super) struct Dirs {
    states: BTreeMap<SharePath, State>,
    watched: usize,
    unwatched: usize,
}

impl Dirs {
    pub(super) fn state(&self, dir: &SharePath) -> Option<State> {
        self.states.get(dir).copied()
    }

    pub(super) fn set(&mut self, dir: SharePath, state: State) {
        let before = self.states.insert(dir, state);
        self.count(before, Some(state));
    }

    pub(super) fn set_all(&mut self, dirs: &[SharePath], state: State) {
        for dir in dirs {
            self.set(dir.clone(), state);
        }
    }

    pub(super) fn remove(&mut self, dir: &SharePath) {
        let before = self.states.remove(dir);
        self.count(before, None);
    }

    /// Forgets a directory and all below it; returns those that were watched, parents first.
    pub(super) fn take(&mut self, dir: &SharePath) -> Vec<SharePath> {
        let mut taken: Vec<(SharePath, State)> = self
            .states
            .range(dir.clone()..)
            .take_while(|(path, _)| path.is_at_or_below(dir))
            .map(|(path, state)| (path.clone(), *state))
            .collect();
        for (path, _) in &taken {
            self.remove(path);
        }
        taken.retain(|(_, state)| *state == State::Watched);
        taken.into_iter().map(|(path, _)| path).collect()
    }

    /// Returns the unwatched directories, parents first.
    pub(super) fn unwatched(&self) -> Vec<SharePath> {
        let unwatched = self.states.iter().filter(|(_, state)| **state == State::Unwatched);
        unwatched.map(|(path, _)| path.clone()).collect()
    }

    /// Returns how many are watched and how many unwatched.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.watched, self.unwatched)
    }

    fn count(&mut self, before: Option<State>, after: Option<State>) {
        let is = |state, wanted| usize::from(state == Some(wanted));
        self.watched += is(after, State::Watched);
        self.watched -= is(before, State::Watched);
        self.unwatched += is(after, State::Unwatched);
        self.unwatched -= is(before, State::Unwatched);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> SharePath {
        SharePath::new(text).unwrap()
    }

    #[test]
    fn a_subtree_is_taken_whole_and_nothing_beside_it() {
        let mut dirs = Dirs::default();
        dirs.set(SharePath::root(), State::Watched);
        for name in ["a", "a/b", "a/b/c", "a.b", "a-", "ab", "b"] {
            dirs.set(path(name), State::Watched);
        }
        dirs.set(path("a/b"), State::Unwatched);
        dirs.set(path("a/d"), State::Denied);
        assert_eq!(dirs.counts(), (7, 1));
        assert_eq!(dirs.take(&path("a")), [path("a"), path("a/b/c")]);
        assert_eq!(dirs.counts(), (5, 0));
        assert_eq!(dirs.state(&path("a/d")), None);
        assert_eq!(dirs.state(&path("a.b")), Some(State::Watched));
        assert_eq!(dirs.take(&SharePath::root()).len(), 5);
        assert_eq!(dirs.counts(), (0, 0));
    }
}
