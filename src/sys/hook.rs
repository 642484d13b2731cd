//! Hooks by which tests reach into a real daemon: points at which it dies, and marks that a tracer
//! sees between its system calls. Only in builds with debug assertions: a release build contains
//! nothing of this but calls of empty functions.
#![forbid(unsafe_code)]

#[cfg(debug_assertions)]
use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

/// `NAME:COUNT` kills the process, as SIGKILL does, when it comes to a [`Failpoint`] for the
/// COUNTth time.
#[cfg(debug_assertions)]
const FAILPOINT: &str = "RECSYNC_FAILPOINT";
/// If set, [`mark`] writes.
#[cfg(debug_assertions)]
const MARKS: &str = "RECSYNC_MARKS";

macro_rules! failpoints {
    ($($(#[doc = $doc:literal])* $point:ident = $name:literal,)*) => {
        /// A point at which tests have the process die: after each step of an operation that a
        /// crash may leave half done. Named here, all of them, so that a test can walk them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Failpoint { $($(#[doc = $doc])* $point,)* }

        impl Failpoint {
            /// All of them.
            pub const ALL: &[Failpoint] = &[$(Failpoint::$point,)*];

            /// Returns the name, as the environment gives it.
            pub fn name(self) -> &'static str {
                match self { $(Failpoint::$point => $name,)* }
            }
        }
    };
}

failpoints! {
    /// A complete transfer has the name under which it is handed on.
    TransferWhole = "transfer-whole",
    /// A batch is about to be applied.
    ApplyBegun = "apply-begun",
    /// A new object is written, and not synced.
    StageWritten = "stage-written",
    /// It is synced.
    StageSynced = "stage-synced",
    /// It has the name under which it is exchanged.
    StageNamed = "stage-named",
    /// A directory above the path is made.
    ParentMade = "parent-made",
    /// A new object is under its final name.
    Put = "put",
    /// The new object and the expected one are exchanged.
    Exchanged = "exchanged",
    /// What came out of an exchange, or was removed, is where it belongs.
    Displaced = "displaced",
    /// A directory is removed.
    DirRemoved = "dir-removed",
    /// A file is renamed.
    Renamed = "renamed",
    /// The mtime is set, and not the mode.
    MtimeSet = "mtime-set",
    /// The owner is set, if one is to be, and not the mode.
    OwnerSet = "owner-set",
    /// All of the metadata is set.
    Dressed = "dressed",
    /// Metadata is synced, and no names are.
    MetadataSynced = "metadata-synced",
    /// All names of a batch are synced.
    NamesSynced = "names-synced",
    /// The engine's writes are in the open transaction.
    CommitBegun = "commit-begun",
    /// They are committed, and nobody was told.
    Committed = "committed",
    /// What they led to was handed out.
    HandedOut = "handed-out",
    /// Recovery has settled an intent.
    RecoverSettled = "recover-settled",
    /// Recovery has removed or kept every temporary.
    RecoverSwept = "recover-swept",
    /// What recovery did is synced, and not noted in the index.
    RecoverSynced = "recover-synced",
}

impl Failpoint {
    /// Kills the process here, without any warning, if the environment says so.
    #[cfg(debug_assertions)]
    pub fn hit(self) {
        static CHOSEN: OnceLock<Option<(String, AtomicU32)>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| {
            let chosen = std::env::var(FAILPOINT).ok()?;
            let (name, count) = chosen.split_once(':')?;
            Some((name.to_owned(), AtomicU32::new(count.parse().ok()?)))
        });
        if let Some((name, left)) = chosen
            && name == self.name()
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL)
                .expect("a process may kill itself");
            loop {
                std::thread::park();
            }
        }
    }

    /// Does nothing.
    #[cfg(not(debug_assertions))]
    #[inline(always)]
    pub fn hit(self) {}
}

/// Writes a line to `/dev/null`, if the environment says so: a tracer of system calls sees then
/// what is said to peers, in the order in which it is said, which TLS hides on the wire.
#[cfg(debug_assertions)]
pub fn mark(line: impl FnOnce() -> String) {
    static NOWHERE: OnceLock<Option<std::fs::File>> = OnceLock::new();
    let nowhere = NOWHERE.get_or_init(|| {
        std::env::var_os(MARKS)?;
        std::fs::OpenOptions::new().write(true).open("/dev/null").ok()
    });
    if let Some(mut nowhere) = nowhere.as_ref() {
        use std::io::Write as _;
        let _nobody_reads_it = nowhere.write_all(line().as_bytes());
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn mark(_line: impl FnOnce() -> String) {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Failpoint;

    #[test]
    fn no_two_failpoints_have_one_name() {
        let names: BTreeSet<_> = Failpoint::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Failpoint::ALL.len());
    }
}
