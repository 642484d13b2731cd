//! Directories whose names are known to be durable, so that one that did not change since its last
//! `fsync` costs a stat instead of another flush of the disk's cache.
//!
//! **Invariant:** a directory counts as synced only while it is the one that was synced, unchanged.
//! **May not:** outlive its tree: what a power cut takes, this must not remember.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use recsync_proto::SharePath;

use super::look::is_racy;
use crate::tree::{Fingerprint, Place, Tree, TreeError};

/// Directories remembered at most; recordings go to a few at a time.
const DIRS_MAX: usize = 4_096;

/// What was synced, by path: filesystem, inode and ctime as they were just before.
#[derive(Debug, Default)]
pub struct Synced {
    dirs: Mutex<BTreeMap<SharePath, (u64, u64, i64)>>,
}

impl Synced {
    /// Makes the names of a directory durable, unless they are.
    pub(super) fn sync_dir<T: Tree>(
        &self,
        tree: &T,
        dir: SharePath,
        wall_ns: impl Fn() -> i64,
    ) -> Result<(), TreeError> {
        let place = Place::Share(dir.clone());
        let Fingerprint { fs, ino, ctime_ns, .. } = tree.stat(&place)?;
        let found = (fs, ino, ctime_ns);
        if self.lock().get(&dir) == Some(&found) {
            return Ok(());
        }
        let may_change_unseen = !tree.has_exact_times() && is_racy(ctime_ns, wall_ns());
        tree.sync_dir(&place)?;
        // A change after the stat has another ctime: the next call finds it.
        if !may_change_unseen {
            let mut dirs = self.lock();
            if dirs.len() >= DIRS_MAX {
                dirs.clear();
            }
            dirs.insert(dir, found);
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SharePath, (u64, u64, i64)>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
