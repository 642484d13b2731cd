//! Changes a share's tree, and cleans up after a crash: stage, switch, look at what came out.
//!
//! Temporaries in `.recsync/tmp` tell by their name what they may hold:
//!
//! | name | holds |
//! |---|---|
//! | `HASH.part` | a transfer ([`crate::transfer`]); kept, to go on where it stopped |
//! | `HASH-SEQ.part` | a complete transfer, waiting for its operation |
//! | `ID.part` | an object being staged by operation ID; ours, removed without a look |
//! | `ID` | what is exchanged with the object at the path: one or the other, never removed unseen |
//!
//! **Invariant:** no object is destroyed that was not expected, looked at, or made here; at every
//! instant a name holds the old object or the new one, whole.
//! **May not:** decide what to change.
#![forbid(unsafe_code)]

mod recover;
mod run;
mod stage;
mod switch;
#[cfg(test)]
mod tests;

pub use recover::{RecoverError, Recovered, recover, settle_again, sweep_transfers};
pub(crate) use run::sync_names;
pub use run::{run, run_after};

use crate::engine::Outcome;
use crate::tree::{Fingerprint, Kind, Place, Tree, TreeError, Writer};

/// Why an operation was not done: what an [`Outcome`] says, but for `Done`.
#[derive(Debug, Clone, PartialEq)]
enum Undone {
    Changed,
    Writer,
    BadSource,
    Failed(TreeError),
    Stuck,
}

impl From<Undone> for Outcome {
    fn from(why: Undone) -> Self {
        match why {
            Undone::Changed => Outcome::Changed,
            Undone::Writer => Outcome::Writer,
            Undone::BadSource => Outcome::BadSource,
            Undone::Failed(error) => Outcome::Failed(error),
            Undone::Stuck => Outcome::Stuck,
        }
    }
}

/// Returns the name of the temporary that is exchanged with the object at an operation's path.
pub fn exchanged_name(id: u64) -> String {
    format!("{id:016x}")
}

/// Returns the name of the temporary in which an operation's object is made.
pub fn part_name(id: u64) -> String {
    format!("{id:016x}.part")
}

/// Returns the operation whose exchanged temporary has this name.
fn exchanged_id(name: &str) -> Option<u64> {
    let id = u64::from_str_radix(name, 16).ok()?;
    (exchanged_name(id) == name).then_some(id)
}

/// True if a stat shows exactly what is expected. A directory's size, times and link count move
/// with what is in it, and say nothing.
fn is_expected(expect: &Fingerprint, found: &Fingerprint) -> bool {
    is_same_dir(expect, found) || expect == found
}

/// True if a stat shows the expected object after it was renamed, which moves the ctime.
fn is_same_object(expect: &Fingerprint, found: &Fingerprint) -> bool {
    is_same_dir(expect, found) || expect.same_bytes(found)
}

fn is_same_dir(expect: &Fingerprint, found: &Fingerprint) -> bool {
    expect.kind == Kind::Dir && found.kind == Kind::Dir && found.same_inode(expect)
}

/// Tells whether anyone has the object at a place open for writing. A file that may not even be
/// read says nothing: [`Writer::Unknown`].
fn writer_at<T: Tree>(tree: &T, place: &Place, kind: Kind) -> Result<Writer, TreeError> {
    if kind != Kind::File {
        return Ok(Writer::None);
    }
    match tree.open(place) {
        Ok(file) => tree.writer(&file),
        Err(TreeError::Denied) => Ok(Writer::Unknown),
        Err(error) => Err(error),
    }
}
