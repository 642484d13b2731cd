//! Two daemons on loopback, recorders that play calls to them, and a ledger of how long each
//! recording took: what `recsync demo` shows and the benches measure.
//!
//! ```text
//!  Recorder (one a node) ─▶ share of fs1 ─▶ daemon fs1 ═TLS═ daemon fs2 ◀─ share of fs2 ◀─ Recorder
//!      └─ "closed at" ─▶ Ledger ◀─ "durable on the peer" ─┘ (each daemon's log)
//! ```
//!
//! **Invariant:** what is started here ends when its owner is dropped, whatever happened.
//! **May not:** be used by the daemon, or reach into one: it sees what any user of it sees.
#![forbid(unsafe_code)]

mod calls;
mod compare;
mod ledger;
mod pair;
mod random;
mod scratch;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use calls::{Found, Load, Profile, judge, record};
pub use compare::{Compared, compare};
pub use ledger::{Act, Lags, Ledger, Recording, Sample, Tally};
pub use pair::{NAMES, Pair, SHARE};
pub use scratch::Scratch;

/// Why a load cannot be played.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file or directory.
    #[error("cannot {action} {}: {why}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's words.
        why: std::io::Error,
    },
    /// The kernel refused a thread, a process or a port.
    #[error("cannot start {what}: {why}")]
    System {
        /// What was to be started.
        what: &'static str,
        /// The kernel's words.
        why: std::io::Error,
    },
    /// A node could not be set up.
    #[error("cannot set up node {node}: {why}")]
    SetUp {
        /// Which one.
        node: &'static str,
        /// Why.
        why: String,
    },
    /// A daemon ended by itself.
    #[error("the daemon of {node} ended by itself ({status}); it said last:\n{said}")]
    Ended {
        /// Which one.
        node: &'static str,
        /// How.
        status: String,
        /// Its last words.
        said: String,
    },
    /// A recorder's thread panicked: a bug.
    #[error("the recorder of {0} panicked")]
    Panicked(&'static str),
}

impl LoadError {
    fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |why| LoadError::File { action, path, why }
    }

    fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |why| LoadError::System { what, why }
    }
}
