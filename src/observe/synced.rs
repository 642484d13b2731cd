//! Directories whose names are known to be durable, so that one that did not change since its last
//! `fsync` costs a stat instead of another flush of the disk's cache.
//!
//! **Invariant:** a directory counts as synced only while it is the one that was synced, unchanged.
//! **May not:** outlive its tree: what a power cut takes, this must not remember.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use recsync_proto::SharePath;

use super::look::is_racy;
use crate::tree::{Fingerprint, Place, Tree, TreeError};

/// Directories remembered at most; recordings go to a few at a time.
const DIRS_MAX: usize = 4_096;

/// Does two things, in turn or at the same time: to wait for the disk twice at once is to wait once.
pub type Both = fn(&mut (dyn FnMut() + Send), &mut dyn FnMut());

/// What was synced, by path, as it was just before.
#[derive(Debug)]
pub struct Synced {
    dirs: Mutex<BTreeMap<SharePath, State>>,
    both: Both,
}

/// Filesystem, inode and ctime of a directory.
type State = (u64, u64, i64);

impl Default for Synced {
    /// One that does everything in turn.
    fn default() -> Self {
        Synced::new(|one, other| {
            one();
            other();
        })
    }
}

impl Synced {
    /// Knows of nothing that was synced yet.
    pub fn new(both: Both) -> Self {
        Synced { dirs: Mutex::default(), both }
    }

    /// Makes a file's bytes durable by `sync_bytes`, and all names above it that may not be.
    pub(super) fn sync<T: Tree>(
        &self,
        tree: &T,
        path: &SharePath,
        wall_ns: impl Fn() -> i64 + Sync,
        mut sync_bytes: impl FnMut() -> Result<(), TreeError>,
    ) -> Result<(), TreeError> {
        let stale = self.stale(tree, path)?;
        if stale.is_empty() {
            return sync_bytes();
        }
        let (mut names, mut bytes) = (Ok(()), Ok(()));
        (self.both)(
            &mut || {
                let mut dirs = stale.iter();
                names = dirs.try_for_each(|dir| self.sync_dir(tree, dir, &wall_ns));
            },
            &mut || bytes = sync_bytes(),
        );
        names.and(bytes)
    }

    /// Returns the directories above a path, from the root on, whose names may not be durable.
    fn stale<T: Tree>(&self, tree: &T, path: &SharePath) -> Result<Vec<SharePath>, TreeError> {
        let mut stale = Vec::new();
        for dir in std::iter::once(SharePath::root()).chain(path.ancestors()) {
            let found = state(&tree.stat(&Place::Share(dir.clone()))?);
            if self.lock().get(&dir) != Some(&found) {
                stale.push(dir);
            }
        }
        Ok(stale)
    }

    fn sync_dir<T: Tree>(
        &self,
        tree: &T,
        dir: &SharePath,
        wall_ns: impl Fn() -> i64,
    ) -> Result<(), TreeError> {
        let place = Place::Share(dir.clone());
        let found = tree.stat(&place)?;
        let may_change_unseen = !tree.has_exact_times() && is_racy(found.ctime_ns, wall_ns());
        tree.sync_dir(&place)?;
        // A change after the stat has another ctime: the next call finds it.
        if !may_change_unseen {
            let mut dirs = self.lock();
            if dirs.len() >= DIRS_MAX {
                dirs.clear();
            }
            dirs.insert(dir.clone(), state(&found));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SharePath, State>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn state(found: &Fingerprint) -> State {
    (found.fs, found.ino, found.ctime_ns)
}
