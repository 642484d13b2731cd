//! Deliberate bugs, by which the simulator is tested: it must find each of them (docs/testing.md).
//!
//! They exist only with the cargo feature `mutants`; without it `mutant!` is `false`, and nothing of them
//! is compiled.
//! **Invariant:** at most one is on in a thread, none unless it was switched on.
#![forbid(unsafe_code)]

/// True if the deliberate bug of this name is on: never without the feature `mutants`.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::is_on($crate::mutants::Mutant::$name)
    };
}

/// True if the deliberate bug of this name is on: never without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

#[cfg(feature = "mutants")]
pub use list::{Mutant, is_on, switch, wrongly_merged, wrongly_planned, wrongly_resolved};

#[cfg(feature = "mutants")]
mod list {
    use std::cell::Cell;

    use recsync_proto::{Content, Record};

    use crate::engine::plan::Step;
    use crate::engine::version;
    use crate::index::Entry;

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Switches a bug of this thread on, or all off.
    pub fn switch(mutant: Option<Mutant>) {
        ON.set(mutant);
    }

    /// True if this bug is on in this thread.
    pub fn is_on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }

    /// Returns what a wrong rule makes of two records, if one is on.
    pub fn wrongly_merged(one: &Record, other: &Record) -> Option<Record> {
        let mut context = one.context.clone();
        context.join(&other.context);
        let under_both =
            |winner: &Record| Some(Record { context: context.clone(), ..winner.clone() });
        let concurrent = !one.context.covers(&other.context) && !other.context.covers(&one.context);
        let latest = |record: &Record| record.values.iter().map(|value| value.stamp.clone()).max();
        let mtime = |record: &Record| record.values.iter().map(|value| value.mtime_ns.value).max();
        if mutant!(MtimeDecides) {
            return under_both(if mtime(one) >= mtime(other) { one } else { other });
        }
        if mutant!(JoinedVectors) && concurrent {
            return under_both(if latest(one) >= latest(other) { one } else { other });
        }
        if mutant!(LastDeleteWins) && concurrent {
            let deletes = [one, other].into_iter().find(|record| record.values.is_empty());
            return deletes.and_then(under_both);
        }
        None
    }

    /// Returns what a wrong rule leaves of a merged record, if one is on.
    pub fn wrongly_resolved(
        mut merged: Record,
        installed: Option<&Content>,
        live_below: bool,
    ) -> Record {
        let winner = version::winner(&merged, live_below).map(|winner| winner.content);
        let here = mutant!(AnyoneResolves) && winner.as_ref() == installed;
        if mutant!(CollapseInMerge) || here {
            merged.values.retain(|value| Some(&value.content) == winner.as_ref());
        }
        merged
    }

    /// Returns what a wrong rule makes of the next step for a path, if one is on.
    pub fn wrongly_planned(step: Step, entry: &Entry) -> Step {
        let here = entry.installed.as_ref().map(|installed| &installed.content);
        let is_file = matches!(here, Some(Content::File { .. }));
        let twins = entry.record.values.iter().filter(|value| Some(&value.content) == here).count();
        let stays = matches!(step, Step::Nothing | Step::Metadata { .. });
        if mutant!(CompareDots) && is_file && stays && twins > 1 {
            return Step::Replace { keep: true };
        }
        step
    }

    macro_rules! mutants {
        ($($name:ident: $what:literal,)*) => {
            /// A deliberate bug.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Mutant {
                $(#[doc = $what] $name,)*
            }

            impl Mutant {
                /// All of them.
                pub const ALL: &[Mutant] = &[$(Mutant::$name,)*];

                /// Returns what is wrong, in words.
                pub fn what(self) -> &'static str {
                    match self {
                        $(Mutant::$name => $what,)*
                    }
                }
            }
        };
    }

    mutants! {
        SkipFileSync: "a staged file is not synced",
        SkipDirSync: "directories are not synced after a change",
        SkipLookSync: "a file is announced before it is synced",
        AckBeforeDurable: "a record is acknowledged as durable when it is merged",
        CommitLate: "effects leave before the index commit",
        ReuseSeq: "an index that is put back to a copy goes on with its epoch and numbers",
        ForgetTombstones: "tombstones go before all peers have acknowledged them",
        IgnoreUnknownTombstones: "a tombstone of an unknown path is not kept",
        LastDeleteWins: "a delete beats a change that it did not know of",
        BlindDelete: "a delete removes versions that its author did not see",
        CompareDots: "versions are compared by dot, not by content",
        MtimeDecides: "the newest mtime decides, not the causal context",
        JoinedVectors: "concurrent versions are settled under the joined vector",
        CollapseInMerge: "merging keeps the winner only",
        AnyoneResolves: "a conflict is resolved where the losing bytes are not",
        NoConflictCopy: "what loses a conflict is not kept",
        DeleteUnseen: "what is deleted is not looked at",
        ReplaceUnseen: "what is replaced is not looked at",
        OverwriteNewName: "a new name replaces what came there meanwhile",
        AnnounceOpenFile: "a file is announced while it is written",
        UnreadableIsAbsent: "what cannot be read counts as deleted",
        SkipIntentRecovery: "intents are dropped at start",
        IgnoreOverflow: "an overflow of the event queue is ignored",
        MuteEcho: "events are ignored for a second after a change of recsync's own",
        ScanForgetsAbsent: "a scan does not tell what is gone",
        SkipBacklog: "what changed while a link was down is not sent",
        NoGuard: "mass deletes are not held",
    }
}
