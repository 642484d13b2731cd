//! Counts how often each row of the engine's two decision tables was used.
//!
//! The engine is not asked: what it was given and what it answered are classified by the same pure
//! functions that it decides with.
//! **Invariant:** counting changes nothing.

use std::fmt;

use recsync::engine::absorb::{self, Row as AbsorbRow};
use recsync::engine::plan::{self, Circumstances, Row as PlanRow};
use recsync::engine::{Effect, Input, version};
use recsync::index::{IndexRead, Memory};
use recsync_proto::SharePath;
use recsync_proto::message::ShareMessage;

/// How often each row was used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows {
    absorb: [u64; AbsorbRow::ALL.len()],
    plan: [u64; PlanRow::ALL.len()],
}

impl Rows {
    /// Counts what an input is about to tell the engine.
    pub fn before(&mut self, index: &Memory, input: &Input) {
        if let Input::Looked { path, look } = input {
            let entry = index.entry(path).ok().flatten();
            let installed = entry.and_then(|entry| entry.installed);
            self.absorb[absorb::row(installed.as_ref(), look) as usize] += 1;
        }
    }

    /// Counts what the engine decided, and for each record that it was told of, that it decided
    /// to do nothing.
    pub fn after(&mut self, index: &Memory, told: &[SharePath], effects: &[Effect]) {
        for effect in effects {
            if let Effect::Apply { op, .. } = effect
                && let Some(row) = plan_row(index, &op.path)
            {
                self.plan[row as usize] += 1;
            }
        }
        for path in told {
            if let Some(row @ (PlanRow::NothingWanted | PlanRow::Same | PlanRow::Wait)) =
                plan_row(index, path)
            {
                self.plan[row as usize] += 1;
            }
        }
    }

    /// Adds what another history used.
    pub fn add(&mut self, other: &Rows) {
        for (sum, count) in self.absorb.iter_mut().zip(other.absorb) {
            *sum += count;
        }
        for (sum, count) in self.plan.iter_mut().zip(other.plan) {
            *sum += count;
        }
    }

    /// Returns how many rows there are, and how many were used.
    pub fn used(&self) -> (usize, usize) {
        let counts = || self.absorb.iter().chain(&self.plan);
        (counts().count(), counts().filter(|&&count| count > 0).count())
    }
}

/// One line a row.
impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (row, count) in AbsorbRow::ALL.iter().zip(self.absorb) {
            writeln!(f, "  absorb {:<14} {count:>12}", format!("{row:?}"))?;
        }
        for (row, count) in PlanRow::ALL.iter().zip(self.plan) {
            writeln!(f, "  plan   {:<14} {count:>12}", format!("{row:?}"))?;
        }
        Ok(())
    }
}

/// Returns the paths of the records that an input tells.
pub fn told(input: &Input) -> Vec<SharePath> {
    match input {
        Input::Message { message: ShareMessage::Announce(announcements), .. } => {
            announcements.iter().map(|one| one.path.clone()).collect()
        }
        _ => Vec::new(),
    }
}

fn plan_row(index: &Memory, path: &SharePath) -> Option<PlanRow> {
    let entry = index.entry(path).ok()??;
    let winner = version::winner(&entry.record, index.has_live_below(path).ok()?);
    let installed = entry.installed.as_ref();
    let circumstances = Circumstances {
        installed_is_version: installed
            .is_some_and(|installed| version::holds(&entry.record, &installed.content)),
        installed_below: index.has_installed_below(path).ok()?,
    };
    Some(plan::row(winner.as_ref(), installed, circumstances))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_counted_in_its_place() {
        for (place, row) in AbsorbRow::ALL.into_iter().enumerate() {
            assert_eq!(row as usize, place);
        }
        for (place, row) in PlanRow::ALL.into_iter().enumerate() {
            assert_eq!(row as usize, place);
        }
    }
}
