//! When a dirty path is quiet enough to be looked at.
//!
//! Two lines: what the watcher saw; and what a scan found, or a directory brought along that was
//! moved here. The call that ended just now is looked at before the fifty thousand that ended while
//! the daemon was down. A part of the turns is the other line's, so that both always end.
//!
//! **Invariant:** one entry for each path however many events it had; a path comes due only when
//! it was quiet for its time, and leaves only through [`Settle::take_due`].
//! **May not:** read a clock; `now` is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use recsync_proto::SharePath;

use super::effect::{Hint, Noticed};
use super::slot;

/// What is known of a dirty path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirt {
    /// How closely it must be looked at: the most demanding hint since it became dirty.
    pub hint: Hint,
    /// The last event that tells the age of the change.
    pub noticed: Noticed,
    /// Whether the watcher saw it written, made, moved or removed: a mode, an owner or an mtime that is set tells
    /// nothing of its bytes.
    pub heard: bool,
    /// Looks in a row that found it busy.
    pub busy: u32,
}

/// Of so many turns one is the scan's, though the watcher's line is never empty.
const SCAN_TURN: u32 = 8;

/// Dirty paths and when each one is due.
#[derive(Debug, Default)]
pub struct Settle {
    paths: BTreeMap<SharePath, (Dirt, Duration)>,
    /// What the watcher saw, and what a scan found; see [`line`].
    due: [BTreeSet<(Duration, SharePath)>; 2],
    /// Counts what was taken out while both lines had something due.
    turn: u32,
}

fn line(noticed: Noticed) -> usize {
    slot(noticed.lane())
}

impl Settle {
    /// Notes an event: the path is due at `due`, whatever it was due at before.
    pub fn mark(&mut self, path: SharePath, hint: Hint, noticed: Noticed, due: Duration) {
        let heard = noticed != Noticed::Scan && hint != Hint::Attributes;
        let dirt = match self.paths.get(&path) {
            Some((dirt, _)) => Dirt {
                // A deleted path that was created again is looked at as a created one, so the
                // last of the two decides; within the kinds of writing the closest look does.
                hint: strongest(dirt.hint, hint),
                noticed: latest(dirt.noticed, noticed),
                heard: dirt.heard || heard,
                busy: 0,
            },
            None => Dirt { hint, noticed, heard, busy: 0 },
        };
        self.put(path, dirt, due);
    }

    /// Notes what a scan found: a path that is dirty already is looked at as closely as that asks
    /// for, but neither sooner nor later for it. A scan that was itself started by a look cannot
    /// bring the next look forward, and the two cannot chase each other.
    pub fn find(&mut self, path: SharePath, hint: Hint, due: Duration) {
        match self.paths.get_mut(&path) {
            Some((dirt, _)) => dirt.hint = strongest(dirt.hint, hint),
            None => self.mark(path, hint, Noticed::Scan, due),
        }
    }

    /// Puts a path back, to be looked at again at `due`; an event since then keeps its own time, but
    /// the look that it asks for is as close as the one that showed nothing had to be.
    pub fn put_back(&mut self, path: SharePath, dirt: Dirt, due: Duration) {
        let (dirt, due) = match self.paths.get(&path) {
            Some((since, due)) => {
                let hint = strongest(dirt.hint, since.hint);
                let noticed = latest(dirt.noticed, since.noticed);
                (Dirt { hint, noticed, heard: dirt.heard || since.heard, ..*since }, *due)
            }
            None => (dirt, due),
        };
        self.put(path, dirt, due);
    }

    fn put(&mut self, path: SharePath, dirt: Dirt, due: Duration) {
        if let Some((was, old)) = self.paths.insert(path.clone(), (dirt, due)) {
            self.due[line(was.noticed)].remove(&(old, path.clone()));
        }
        self.due[line(dirt.noticed)].insert((due, path));
    }

    /// Has a path that was put back looked at by `due` at the latest: what it waited for is there.
    pub fn hasten(&mut self, path: &SharePath, due: Duration) {
        if let Some(&(dirt, old)) = self.paths.get(path)
            && old > due
        {
            self.put(path.clone(), dirt, due);
        }
    }

    /// Returns and removes a path that is due and `ready`, if there is one: of the line whose turn
    /// it is the one that has been due longest.
    pub fn take_due(
        &mut self,
        now: Duration,
        mut ready: impl FnMut(&SharePath) -> bool,
    ) -> Option<(SharePath, Dirt)> {
        let mut first = |line: &BTreeSet<(Duration, SharePath)>| {
            line.iter().take_while(|(due, _)| *due <= now).find(|(_, path)| ready(path)).cloned()
        };
        let (due, path) = match (first(&self.due[0]), first(&self.due[1])) {
            (Some(seen), Some(found)) => {
                self.turn = (self.turn + 1) % SCAN_TURN;
                if self.turn == 0 { found } else { seen }
            }
            (seen, found) => seen.or(found)?,
        };
        let (dirt, _) = self.paths.remove(&path)?;
        self.due[line(dirt.noticed)].remove(&(due, path.clone()));
        Some((path, dirt))
    }

    /// Returns when the next path comes due, of those that are `ready`.
    pub fn next_due(&self, mut ready: impl FnMut(&SharePath) -> bool) -> Option<Duration> {
        let lines = self.due.iter();
        lines
            .filter_map(|line| line.iter().find(|(_, path)| ready(path)))
            .map(|(due, _)| *due)
            .min()
    }

    /// True if something that a scan found is due.
    pub fn has_findings(&self, now: Duration) -> bool {
        self.due[line(Noticed::Scan)].first().is_some_and(|(due, _)| *due <= now)
    }

    /// True if something that a scan found is dirty, due or not.
    pub fn has_found(&self) -> bool {
        !self.due[line(Noticed::Scan)].is_empty()
    }

    /// True if the path is dirty.
    pub fn contains(&self, path: &SharePath) -> bool {
        self.paths.contains_key(path)
    }

    /// Returns how it was noticed that a path is dirty, if it is.
    pub fn noticed(&self, path: &SharePath) -> Option<Noticed> {
        self.paths.get(path).map(|(dirt, _)| dirt.noticed)
    }

    /// True if a directory or something below it is dirty.
    pub fn has_at_or_below(&self, dir: &SharePath) -> bool {
        let next = self.paths.range::<SharePath, _>(dir..).next();
        next.is_some_and(|(path, _)| path.is_at_or_below(dir))
    }

    /// Returns the number of dirty paths.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// True if nothing is dirty.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

fn strongest(old: Hint, new: Hint) -> Hint {
    match (old, new) {
        // Where a name went away and came back, what is there now is what counts.
        (_, Hint::Written | Hint::Created) => new,
        (Hint::Written, Hint::Attributes) => Hint::Written,
        (Hint::Created, Hint::Attributes) => Hint::Created,
        (Hint::Deleted | Hint::MovedAway, Hint::Attributes) => Hint::Written,
        (_, new) => new,
    }
}

/// The watcher's word is more exact than a scan's.
fn latest(old: Noticed, new: Noticed) -> Noticed {
    match (old, new) {
        (Noticed::Watcher(_), Noticed::Along(_) | Noticed::Scan)
        | (Noticed::Along(_), Noticed::Scan) => old,
        (_, new) => new,
    }
}
