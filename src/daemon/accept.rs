//! Takes another root in place of the one that the index knows, on an operator's word.
//!
//! **Invariant:** what is taken is what the operator saw. The marker is made before the index
//! forgets the old root, so that a stop in between leaves a share that is stopped. Of a root of
//! which the index knows nothing, nothing can be missing: no delete follows.
#![forbid(unsafe_code)]

use std::str::FromStr as _;
use std::time::Duration;

use recsync_proto::Epoch;
use thiserror::Error;

use super::share::Setup;
use crate::index::{IndexError, Store};
use crate::sys;
use crate::tree::{self, Disk, MarkerError, RootError, RootId};

/// How long an operator's word waits for the share's thread, which looks at the root every second.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Why a root was not taken.
#[derive(Debug, Error)]
pub(super) enum AcceptError {
    /// Meanwhile it is another one, or the right one is back.
    #[error("it has changed since; see recsync status")]
    Changed,
    /// The marker could not be made.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// The index did not forget.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The share's thread is busy or gone.
    #[error("the share did not answer; try again")]
    NoAnswer,
}

/// True if an operator can have the share go on with what is there.
pub(super) fn can_be(error: &RootError) -> bool {
    matches!(error, RootError::NoMarker { .. } | RootError::OtherRoot { .. })
}

/// Makes what is at the share's path its root, if it is still what was `seen`. The share must not
/// be running.
///
/// # Errors
/// If it is another one by now, or that cannot be done; the share stays stopped.
pub(super) fn accept(setup: &Setup, seen: &RootError) -> Result<(), AcceptError> {
    let mut store = Store::open(&setup.index, epoch)?;
    let expected = store.root_id()?.and_then(|id| RootId::from_str(&id).ok());
    match Disk::open(&setup.path, &setup.name, expected) {
        Err(found) if found == *seen => {}
        _ => return Err(AcceptError::Changed),
    }
    tree::take_root(&setup.path, &setup.name)?;
    Ok(store.start_over(epoch())?)
}

fn epoch() -> Epoch {
    Epoch(sys::random_u64())
}
