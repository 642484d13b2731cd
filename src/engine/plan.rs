//! Plan: what is to be done so that the winner of the merged record is what is installed.
//!
//! The second of the two decision tables (`docs/semantics.md`). Total: every pair has one answer.
//!
//! **Invariant:** content that the cluster still counts as a version is never replaced without
//! keeping it; a directory goes only when nothing is installed below it.
//! **May not:** touch disk, network, clock, randomness or logs.

use recsync_proto::{Content, Owner};

use super::version::Winner;
use crate::index::Installed;

/// The next step for one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The winner is installed.
    Nothing,
    /// Set mode, mtime or owner.
    Metadata {
        /// Permission bits, if they differ.
        mode: Option<u32>,
        /// Modification time, if it differs.
        mtime_ns: Option<i64>,
        /// Owner and group, if they differ.
        owner: Option<Owner>,
    },
    /// Put the winner under a free name.
    Install,
    /// Put the winner in the place of what is there.
    Replace {
        /// True if what is there lost a conflict and must be kept as a copy.
        keep: bool,
    },
    /// Take away what is there.
    Remove,
    /// Something is installed below the directory that is to go: that comes first.
    Wait,
}

/// What the plan must know besides the winner and the installed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// The installed content is one of the record's values (and is not the winner: it lost).
    pub installed_is_version: bool,
    /// Something is installed below the path.
    pub installed_below: bool,
}

/// Returns the next step for a path.
pub fn plan(
    winner: Option<&Winner>,
    installed: Option<&Installed>,
    circumstances: Circumstances,
) -> Step {
    match (winner, installed) {
        (None, None) => Step::Nothing,
        // A directory that is only implied is made together with what it holds.
        (Some(winner), None) if winner.content.is_dir() && winner.mtime_ns.is_none() => {
            Step::Nothing
        }
        (Some(_), None) => Step::Install,
        (Some(winner), Some(installed)) if winner.content == installed.content => {
            metadata(winner, installed)
        }
        (_, Some(installed)) if installed.content.is_dir() && circumstances.installed_below => {
            Step::Wait
        }
        (None, Some(_)) => Step::Remove,
        (Some(_), Some(_)) => Step::Replace { keep: circumstances.installed_is_version },
    }
}

/// The rows of the table, as `docs/semantics.md` has them, for whoever counts which ones were used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// Nothing is wanted, nothing is installed.
    NothingWanted,
    /// The winner is installed.
    Same,
    /// The winner's content is installed with other metadata.
    Metadata,
    /// A file under a free name.
    InstallFile,
    /// A directory under a free name.
    InstallDir,
    /// A symbolic link under a free name.
    InstallLink,
    /// A file or link goes.
    Remove,
    /// An empty directory goes.
    RemoveDir,
    /// A directory would go, but for what is in it.
    Wait,
    /// In the place of what was superseded.
    Supersede,
    /// In the place of what lost a conflict, which is kept.
    KeepLoser,
}

impl Row {
    /// All rows, in order.
    pub const ALL: [Row; 11] = [
        Row::NothingWanted,
        Row::Same,
        Row::Metadata,
        Row::InstallFile,
        Row::InstallDir,
        Row::InstallLink,
        Row::Remove,
        Row::RemoveDir,
        Row::Wait,
        Row::Supersede,
        Row::KeepLoser,
    ];
}

/// Returns the row by which [`plan`] answers.
pub fn row(
    winner: Option<&Winner>,
    installed: Option<&Installed>,
    circumstances: Circumstances,
) -> Row {
    match plan(winner, installed, circumstances) {
        Step::Nothing if winner.is_none() => Row::NothingWanted,
        Step::Nothing => Row::Same,
        Step::Metadata { .. } => Row::Metadata,
        Step::Install => match winner.map(|winner| &winner.content) {
            Some(Content::Dir) => Row::InstallDir,
            Some(Content::Symlink { .. }) => Row::InstallLink,
            _ => Row::InstallFile,
        },
        Step::Remove if installed.is_some_and(|installed| installed.content.is_dir()) => {
            Row::RemoveDir
        }
        Step::Remove => Row::Remove,
        Step::Wait => Row::Wait,
        Step::Replace { keep: false } => Row::Supersede,
        Step::Replace { keep: true } => Row::KeepLoser,
    }
}

fn metadata(winner: &Winner, installed: &Installed) -> Step {
    let mode = winner.mode.filter(|&mode| mode != installed.mode);
    let mtime_ns = winner.mtime_ns.filter(|&mtime_ns| mtime_ns != installed.mtime_ns);
    let (mode, mtime_ns) = match installed.content {
        Content::File { .. } => (mode, mtime_ns),
        Content::Dir => (mode, None),
        Content::Symlink { .. } => (None, mtime_ns),
    };
    let owner = winner.owner.clone().filter(|owner| Some(owner) != installed.owner.as_ref());
    if mode.is_none() && mtime_ns.is_none() && owner.is_none() {
        Step::Nothing
    } else {
        Step::Metadata { mode, mtime_ns, owner }
    }
}
