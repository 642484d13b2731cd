//! Tells whether the index and the disk are of the same time. If one of them was put back from a
//! backup, the index does not know the disk: what is missing on it was not deleted, and numbers
//! that peers have seen would be used again.
//!
//! A random number lies in the root (`.recsync/witness`) and in the index. It changes with every
//! run of the share, and every hour in which something happened.
//!
//! A machine that was put back whole shows no such thing; there the peers tell ([`Past`]).
//!
//! **Invariant:** unless one of them was put back, the root shows one of the two numbers that the
//! index knows, wherever a crash falls.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use recsync_proto::message::Open;
use recsync_proto::{NodeName, Seq};

use super::share::ShareError;
use crate::index::{IndexError, IndexRead as _, Store};
use crate::sys;
use crate::tree::Disk;

/// How old a backup of a node that runs without a pause may be and still pass for the present.
pub(super) const RENEW: Duration = Duration::from_secs(3_600);

/// True if the index and the disk are of the same time, as far as can be told.
///
/// # Errors
/// If one of them cannot be read.
pub(super) fn agree(store: &Store, disk: &Disk) -> Result<bool, ShareError> {
    let known = store.witnesses()?;
    let found = disk.witness().map_err(unreadable)?;
    Ok(known == [None; 2] || known.contains(&found))
}

/// Gives both a new number.
///
/// # Errors
/// If the index fails. A disk that cannot be written keeps the number that it has, which stays
/// valid.
pub(super) fn renew(store: &mut Store, disk: &Disk) -> Result<(), ShareError> {
    let next = sys::random_u64();
    let now = disk.witness().map_err(unreadable)?;
    store.set_witnesses([now, Some(next)])?;
    match disk.set_witness(next) {
        // The one before counts no more.
        Ok(()) => store.set_witnesses([Some(next); 2])?,
        Err(error) => tracing::debug!(%error, "the witness in .recsync stays as it is"),
    }
    Ok(())
}

/// What peers may have seen of the log before this run, and of it: tells a machine that was put back
/// whole, index and disk alike, and has numbered changes of its own before it met anyone.
#[derive(Debug)]
pub(super) struct Past {
    /// Where the log stood when this run began.
    begun: Seq,
    /// Where it stood when the last link of this run to each peer went down.
    told: BTreeMap<NodeName, Seq>,
    /// Links that the peer has not opened yet, with what it can have seen before.
    unopened: BTreeMap<NodeName, Seq>,
}

impl Past {
    /// A run begins, with the log standing here.
    pub(super) fn new(begun: Seq) -> Self {
        Past { begun, told: BTreeMap::new(), unopened: BTreeMap::new() }
    }

    pub(super) fn link_up(&mut self, peer: &NodeName) {
        let seen = self.told.get(peer).copied().unwrap_or(self.begun);
        self.unopened.insert(peer.clone(), seen);
    }

    pub(super) fn link_down(&mut self, peer: &NodeName, head: Seq) {
        self.unopened.remove(peer);
        self.told.insert(peer.clone(), head);
    }

    /// True if the peer's first word on a link shows that it has seen positions of this log that
    /// this index does not remember, and this run has used positions since. If it has used none,
    /// the engine goes on behind those that were seen.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub(super) fn is_behind(
        &mut self,
        peer: &NodeName,
        open: &Open,
        store: &Store,
    ) -> Result<bool, IndexError> {
        // An answer was given after this run had told where the log stands.
        let None = open.answers else { return Ok(false) };
        let Some(before) = self.unopened.remove(peer) else { return Ok(false) };
        match open.seen {
            Some((epoch, seen)) if epoch == store.epoch() && seen > before => {
                let ran_ahead = store.head()? > self.begun;
                self.begun = self.begun.max(seen);
                Ok(ran_ahead)
            }
            _ => Ok(false),
        }
    }
}

fn unreadable(error: crate::tree::TreeError) -> ShareError {
    ShareError::System(format!(".recsync/witness cannot be read: {error}"))
}
