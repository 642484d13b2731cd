//! Absorb: what the difference between the installed state and a look at the disk means.
//!
//! The first of the two decision tables (`docs/semantics.md`). Total: every pair has one answer.
//!
//! **Invariant:** absence counts only as [`Look::Absent`]; any doubt means nothing happened.
//! **May not:** touch disk, network, clock, randomness or logs.

use recsync_proto::{Content, Owner};

use super::effect::Look;
use crate::index::Installed;
use crate::tree::Fingerprint;

/// What happened locally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// Nothing that the index does not say already.
    Nothing,
    /// The same object in the same state under another fingerprint (ctime, inode).
    Refresh,
    /// Mode, mtime or owner alone.
    Metadata {
        /// New permission bits.
        mode: Option<u32>,
        /// New modification time, nanoseconds since 1970.
        mtime_ns: Option<i64>,
        /// New owner and group.
        owner: Option<Owner>,
    },
    /// Another content, or the first.
    Written(Content),
    /// The name is gone.
    Deleted,
}

/// True if a look may show what became of a file on the disk, rather than what somebody did to it.
/// It has other bytes than were known to be there, under the very stat; and, if the machine `went_down`,
/// it became empty or shorter, or its end is zeros, or it has other bytes under the mtime that it had.
/// To be asked only of files that nobody was seen to write.
pub fn is_suspect(installed: Option<&Installed>, look: &Look, went_down: bool) -> bool {
    let (look, hollow) = match look {
        Look::Hollow(found) => (&**found, true),
        look => (look, false),
    };
    let (
        Some(Installed {
            content: Content::File { size: had, hash: known }, fingerprint: was, ..
        }),
        Look::Found { content: Content::File { size, hash }, fingerprint: now, .. },
    ) = (installed, look)
    else {
        return false;
    };
    let lost = || size < had || hollow || was.mtime_ns == now.mtime_ns;
    known != hash && *had > 0 && (was == now || went_down && lost())
}

/// Returns the local event that `look` shows against what is installed.
pub fn absorb(installed: Option<&Installed>, look: &Look) -> Local {
    match (installed, look) {
        (None, Look::Absent) | (_, Look::Unchanged) => Local::Nothing,
        (Some(_), Look::Absent) => Local::Deleted,
        (None, Look::Found { content, .. }) => Local::Written(content.clone()),
        (Some(installed), Look::Found { content, fingerprint, owner }) => {
            if installed.content == *content {
                same_content(installed, fingerprint, owner.as_ref())
            } else {
                Local::Written(content.clone())
            }
        }
        (_, Look::Hollow(found)) => absorb(installed, found),
        // Doubt: no evidence of anything.
        (
            _,
            Look::Busy
            | Look::Unstable
            | Look::TooFresh(_)
            | Look::Ignored
            | Look::Special
            | Look::Unsyncable(_)
            | Look::Unknown(_),
        ) => Local::Nothing,
    }
}

/// The rows of the table, as `docs/semantics.md` has them, for whoever counts which ones were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// Nothing installed, nothing there.
    NothingThere,
    /// Nothing installed, an object.
    New,
    /// The same object, stat and all.
    Unchanged,
    /// The same content, other mode or mtime.
    Metadata,
    /// The same content under another stat.
    Refresh,
    /// Other content of the same kind.
    Changed,
    /// An object of another kind.
    OtherKind,
    /// A file or link is gone.
    Gone,
    /// A directory is gone.
    DirGone,
    /// Someone writes it.
    Busy,
    /// It changes while it is looked at.
    Unstable,
    /// It could not be looked at.
    Unreadable,
    /// Too young to be trusted where the kernel does not tell of writers.
    TooFresh,
    /// Of a kind, size or name that is never synced.
    NeverSynced,
}

impl Row {
    /// All rows, in order.
    pub const ALL: [Row; 14] = [
        Row::NothingThere,
        Row::New,
        Row::Unchanged,
        Row::Metadata,
        Row::Refresh,
        Row::Changed,
        Row::OtherKind,
        Row::Gone,
        Row::DirGone,
        Row::Busy,
        Row::Unstable,
        Row::Unreadable,
        Row::TooFresh,
        Row::NeverSynced,
    ];
}

/// Returns the row by which [`absorb`] answers.
pub fn row(installed: Option<&Installed>, look: &Look) -> Row {
    match (absorb(installed, look), look) {
        (Local::Refresh, _) => Row::Refresh,
        (Local::Metadata { .. }, _) => Row::Metadata,
        (Local::Written(content), _) => installed.map_or(Row::New, |installed| {
            let same_kind =
                std::mem::discriminant(&installed.content) == std::mem::discriminant(&content);
            if same_kind { Row::Changed } else { Row::OtherKind }
        }),
        (Local::Deleted, _) => match installed {
            Some(installed) if installed.content.is_dir() => Row::DirGone,
            _ => Row::Gone,
        },
        (Local::Nothing, look) => match look {
            Look::Absent => Row::NothingThere,
            Look::Unchanged | Look::Found { .. } | Look::Hollow(_) => Row::Unchanged,
            Look::Busy => Row::Busy,
            Look::Unstable => Row::Unstable,
            Look::TooFresh(_) => Row::TooFresh,
            Look::Special | Look::Unsyncable(_) | Look::Ignored => Row::NeverSynced,
            Look::Unknown(_) => Row::Unreadable,
        },
    }
}

fn same_content(installed: &Installed, now: &Fingerprint, owner: Option<&Owner>) -> Local {
    let before = &installed.fingerprint;
    let mode = (now.mode != before.mode).then_some(now.mode);
    let mtime = (now.mtime_ns != before.mtime_ns).then_some(now.mtime_ns);
    let (mode, mtime_ns) = match installed.content {
        Content::File { .. } => (mode, mtime),
        // A directory's times move with its entries, a link's mode is always 0777.
        Content::Dir => (mode, None),
        Content::Symlink { .. } => (None, mtime),
    };
    // Numbers that others stand for now are no change: the names are looked at only where the
    // object itself was given away.
    let owner = owner.filter(|_| !before.same_owner(now)).cloned();
    if mode.is_some() || mtime_ns.is_some() || owner.is_some() {
        return Local::Metadata { mode, mtime_ns, owner };
    }
    let unchanged = match installed.content {
        Content::Dir => before.same_inode(now) && before.same_owner(now),
        Content::File { .. } | Content::Symlink { .. } => before == now,
    };
    if unchanged { Local::Nothing } else { Local::Refresh }
}
