//! A daemon dies after each step of applying, committing and recovering, and is started again.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use recsync::sys::Failpoint;

use crate::support::{Journal, Node, Pair, nothing_is_left, unique, until};

const VARIABLE: &str = "RECSYNC_FAILPOINT";

/// Counts at which the process dies at each point: first and, of what happens often, later.
fn counts(point: Failpoint) -> &'static [u32] {
    match point {
        Failpoint::CommitBegun | Failpoint::Committed | Failpoint::HandedOut => &[1, 6, 12],
        Failpoint::StageSynced | Failpoint::Put | Failpoint::Displaced => &[1, 3],
        _ => &[1],
    }
}

fn is_of_recovery(point: Failpoint) -> bool {
    matches!(point, Failpoint::RecoverSettled | Failpoint::RecoverSwept | Failpoint::RecoverSynced)
}

/// What the first node's users do to what round `round - 1` has left, of everything that can be
/// done to a path; then round `round` is there.
struct Deeds<'a> {
    root: &'a Path,
    journal: &'a Journal,
}

impl Deeds<'_> {
    fn write(&self, path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("tmp-of-a-user");
        fs::write(&beside, bytes).unwrap();
        fs::rename(&beside, path).unwrap();
        self.journal.closed(path, bytes);
    }

    fn make(&self, round: usize) {
        let dir = self.root.join(format!("{round}"));
        for name in ["changed", "removed", "moved", "dressed", "becomes-dir", "stays"] {
            self.write(&dir.join(name), &unique(3_000));
        }
        self.write(&dir.join("large"), &unique(600_000));
        fs::create_dir(dir.join("empty")).unwrap();
        fs::create_dir(dir.join("becomes-file")).unwrap();
        symlink("stays", dir.join("link")).unwrap();
    }

    /// All that can be done to what `make` made. Closed contents are overwritten and removed by
    /// their owner while the other node has them: they are in its trash.
    fn act(&self, round: usize) {
        let dir = self.root.join(format!("{round}"));
        self.write(&dir.join("changed"), &unique(4_000));
        self.write(&dir.join("large"), &unique(700_000));
        fs::remove_file(dir.join("removed")).unwrap();
        fs::rename(dir.join("moved"), dir.join("empty/moved-here")).unwrap();
        let dressed = fs::File::options().write(true).open(dir.join("dressed")).unwrap();
        dressed.set_modified(std::time::UNIX_EPOCH).unwrap();
        dressed.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        drop(dressed);
        fs::remove_file(dir.join("becomes-dir")).unwrap();
        fs::create_dir(dir.join("becomes-dir")).unwrap();
        fs::remove_dir(dir.join("becomes-file")).unwrap();
        self.write(&dir.join("becomes-file"), &unique(2_000));
        fs::copy(dir.join("stays"), dir.join("copy")).unwrap();
        fs::remove_file(dir.join("link")).unwrap();
        symlink("copy", dir.join("link")).unwrap();
        self.write(&dir.join("new/deep/down.wav"), &unique(5_000));
        fs::create_dir_all(dir.join("made")).unwrap();
    }

    /// The last of a round before: its files, and its directories.
    fn remove(&self, round: usize) {
        fs::remove_dir_all(self.root.join(format!("{round}"))).unwrap();
    }
}

/// Starts a node so that it dies at a point, and waits until it has.
fn die_at(node: &mut Node, point: Failpoint, count: u32, deeds: impl FnOnce()) {
    node.set_env(VARIABLE, format!("{}:{count}", point.name()));
    node.launch();
    deeds();
    until(&format!("{} dies at {point:?}, time {count}", node.name), || {
        if node.was_killed() { Ok(()) } else { Err("it was never there") }
    });
    node.unset_env(VARIABLE);
}

/// Walks points; `dies` says who: the node that applies, or the one where it all begins.
fn walk(points: impl Iterator<Item = Failpoint>, receiver_dies: bool) {
    if !cfg!(debug_assertions) {
        eprintln!("SKIPPED failpoints: a release build has none");
        return;
    }
    let mut pair = Pair::new();
    for node in [&pair.a, &pair.b] {
        node.set("max_delete", "\"100%\"");
    }
    pair.start();
    let journal = Journal::default();
    let root = pair.a.root.clone();
    let deeds = Deeds { root: &root, journal: &journal };
    deeds.make(0);
    pair.wait_until_consistent();
    let mut round = 0;
    for point in points {
        for &count in counts(point) {
            let act = || {
                deeds.act(round);
                if round > 0 {
                    deeds.remove(round - 1);
                }
                deeds.make(round + 1);
            };
            let victim = if receiver_dies { &mut pair.b } else { &mut pair.a };
            victim.stop();
            if is_of_recovery(point) {
                die_at(victim, Failpoint::Exchanged, 1, act);
                die_at(victim, point, count, || ());
            } else if point == Failpoint::ParentMade {
                // The other node moves a file into it, and takes it for still there.
                fs::remove_dir(victim.path(format!("{round}/empty"))).unwrap();
                die_at(victim, point, count, act);
            } else {
                die_at(victim, point, count, act);
            }
            pair.start();
            pair.wait_until_consistent();
            journal.check(&pair);
            nothing_is_left(&pair);
            round += 1;
        }
    }
}

#[test]
fn a_receiver_dies_after_each_step_of_applying() {
    walk(Failpoint::ALL.iter().copied().filter(|point| !is_of_index(*point)), true);
}

#[test]
fn both_ends_die_around_commits() {
    for receiver in [true, false] {
        walk(Failpoint::ALL.iter().copied().filter(|point| is_of_index(*point)), receiver);
    }
}

fn is_of_index(point: Failpoint) -> bool {
    matches!(point, Failpoint::CommitBegun | Failpoint::Committed | Failpoint::HandedOut)
}
