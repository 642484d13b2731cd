//! What an earlier run may have put in place and not noted.
//!
//! A run that ends between an operation and its commit leaves on the disk what its index only wants. A scan
//! finds it, and as long as it is wanted that is all there is to it. But a peer may tell of the next version, or of a
//! delete, before the scan comes there. So what was wanted until then is remembered: a look that finds it finds
//! what this node did, and no version of its users'.
//!
//! What has replaced something has its intent, and recovery sees that the exchange was made: then whoever changed
//! or removed it since knew it. So has what ended in doubt and nobody has looked at since.
//!
//! **Invariant:** only what a peer has told of and this node was to put there, found by a scan with the
//! bytes and the mtime that it was to have, where the watcher saw nobody; forgotten when the first
//! scan is absorbed and could look at everything. In doubt it is the users'.
//! **May not:** touch disk, network, clock, randomness or logs.

use std::collections::btree_map::Entry as Slot;

use recsync_proto::{Content, Dot, Record, SharePath};

use super::effect::{Look, Noticed};
use super::local::{installed, other_names};
use super::retry::RETRIES_MAX;
use super::settle::Dirt;
use super::{Cx, Engine, version};
use crate::index::{IndexError, Installed, Intent};
use crate::tree::Fingerprint;

/// What was wanted at a path when this run began.
#[derive(Debug)]
pub(super) struct Wanted {
    content: Content,
    mtime_ns: Option<i64>,
    versions: Vec<Dot>,
}

impl Engine {
    /// Remembers what was wanted at a path by the record `before`, in whose place a peer's has come. Only
    /// where the index knows of nothing: whatever replaces has its intent.
    pub(super) fn remember_wanted(
        &mut self,
        cx: &Cx<'_>,
        path: &SharePath,
        before: &Record,
    ) -> Result<(), IndexError> {
        let is_known = self.searched && !self.settle.contains(path);
        if is_known || self.wanted.len() >= RETRIES_MAX || self.wanted.contains_key(path) {
            return Ok(());
        }
        let winner = version::winner(before, cx.index.has_live_below(path)?);
        let Some(winner) = winner.filter(|winner| !winner.content.is_dir()) else {
            return Ok(());
        };
        let of_it = before.values.iter().filter(|value| value.content == winner.content);
        let versions = of_it.map(|value| value.dot).collect();
        let wanted = Wanted { content: winner.content, mtime_ns: winner.mtime_ns, versions };
        self.wanted.insert(path.clone(), wanted);
        Ok(())
    }

    /// Notes what a look has found as installed, if an earlier run has put it there. True if so.
    pub(super) fn recall(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        found: &Installed,
        dirt: Dirt,
    ) -> Result<bool, IndexError> {
        let is_it = |wanted: &Wanted| {
            wanted.content == found.content && wanted.mtime_ns == Some(found.fingerprint.mtime_ns)
        };
        let versions = match self.wanted.entry(path.clone()) {
            Slot::Occupied(slot) if dirt.noticed == Noticed::Scan && is_it(slot.get()) => {
                slot.remove().versions
            }
            _ => return Ok(false),
        };
        self.note_put(cx, path, found.clone(), &versions)?;
        Ok(true)
    }

    /// True if an earlier run may have renamed what a look has found: it is known under a name for which its
    /// bytes are wanted no more.
    pub(super) fn may_have_moved(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        content: &Content,
        found: &Fingerprint,
        dirt: Dirt,
    ) -> Result<bool, IndexError> {
        if self.searched || dirt.noticed != Noticed::Scan || content.is_dir() {
            return Ok(false);
        }
        let names = other_names(cx, path, content, found)?;
        Ok(names.iter().any(|from| !version::holds(&from.record, content)))
    }

    /// Returns what an earlier run has put at a path in the place of what the index knows, for the look that
    /// is to be compared with it; none if the index knows of something later.
    pub(super) fn put_by_exchange(
        &mut self,
        cx: &Cx<'_>,
        path: &SharePath,
        look: &Look,
    ) -> Result<Option<Installed>, IndexError> {
        let Some(Intent { expect, staged: Some(put), .. }) = self.exchanged.remove(path) else {
            return Ok(None);
        };
        let before = cx.entry(path)?.installed;
        if before.as_ref().is_some_and(|before| before.fingerprint != expect) {
            return Ok(None);
        }
        Ok(match look.found() {
            Look::Found { content, fingerprint, owner } if *content == put => {
                Some(installed(put, fingerprint, owner.as_ref()))
            }
            // How it was is not known, and of no account: its content is another one, or gone.
            _ => before.map(|before| Installed { content: put, ..before }),
        })
    }

    /// Forgets what was wanted, once the disk is known: but where a look is still to come.
    pub(super) fn forget_wanted(&mut self) {
        if self.wanted.is_empty() || !self.searched || self.unreadable.len() > 0 {
            return;
        }
        let Engine { wanted, settle, looking, .. } = self;
        wanted.retain(|path, _| settle.contains(path) || looking.contains_key(path));
    }
}
