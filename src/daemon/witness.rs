//! Tells whether the index and the disk are of the same time. If one of them was put back from a
//! backup, the index does not know the disk: what is missing on it was not deleted, and numbers
//! that peers have seen would be used again.
//!
//! A random number lies in the root (`.recsync/witness`) and in the index. It changes with every
//! run of the share, and every hour in which something happened.
//!
//! **Invariant:** unless one of them was put back, the root shows one of the two numbers that the
//! index knows, wherever a crash falls.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::share::ShareError;
use crate::index::Store;
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

fn unreadable(error: crate::tree::TreeError) -> ShareError {
    ShareError::System(format!(".recsync/witness cannot be read: {error}"))
}
