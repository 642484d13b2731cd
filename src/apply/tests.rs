//! Every action, with a failure, a crash or somebody's hand at every step.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex};

use recsync_proto::{Content, Epoch, Seq, SharePath};

use super::{Recovered, exchanged_name, recover, run, settle_again};
use crate::engine::{Action, Done, Op, Outcome, Source};
use crate::index::{Index as _, IndexRead as _, Intent, Memory, Write};
use crate::observe::faults::{Fault, Faulty};
use crate::observe::fixture::{Held, Share, World, hash_of, noise, share_path, wall_ns};
use crate::transfer::whole_name;
use crate::tree::{Fingerprint, Place, Tree, TreeError, trash_place};

const OLD: &[u8] = b"the old recording";
const NEW: &[u8] = b"the new one";
const USER: &[u8] = b"what somebody else wrote meanwhile, at length";
const MTIME: i64 = 1_700_000_000_123_456_789;
const MODE: u32 = 0o640;
const DAY: &str = "2026-11-22";
const ID: u64 = 0xabc;

/// One kind of change.
struct Scenario {
    name: &'static str,
    setup: fn(&Share),
    /// The path; what is there is what is expected.
    path: &'static str,
    action: fn(&Share) -> Action,
    displaced: Option<fn(&SharePath) -> Place>,
    /// Names and contents in the share afterwards.
    after: &'static [(&'static str, &'static str)],
}

fn file(source: Source, bytes: &[u8]) -> Action {
    let (size, hash) = (bytes.len() as u64, hash_of(bytes));
    Action::File { size, hash, mtime_ns: MTIME, mode: MODE, owner: None, source }
}

fn held(bytes: &[u8]) -> Source {
    Source::Inline(Arc::new(bytes.to_vec()))
}

fn inline(_: &Share) -> Action {
    file(held(NEW), NEW)
}

fn transferred(share: &Share) -> Action {
    let name = whole_name(&hash_of(NEW), Seq(5));
    let temp = share.tree.create_temp(&name).unwrap();
    share.tree.write_at(&temp, 0, NEW).unwrap();
    file(Source::Staged(name), NEW)
}

fn link(_: &Share) -> Action {
    Action::Symlink { target: b"elsewhere".to_vec(), mtime_ns: MTIME, owner: None }
}

fn moved(share: &Share) -> Action {
    let mode = (!share.at("a").is_symlink()).then_some(MODE);
    let mode = mode.map(|mode| if share.at("a").is_dir() { 0o750 } else { mode });
    let from_expect = share.stat("a");
    Action::Move { from: share_path("a"), from_expect, mtime_ns: MTIME, mode, owner: None }
}

fn trash(path: &SharePath) -> Place {
    trash_place(DAY, path, ID)
}

fn copy(path: &SharePath) -> Place {
    Place::Share(path.parent().join(&[path.name(), b".conflict"].concat()).unwrap())
}

fn beside(path: &SharePath) -> SharePath {
    path.parent().join(&[path.name(), b".beside"].concat()).unwrap()
}

fn old_file(share: &Share) {
    share.put("a", OLD);
}

fn scenarios() -> Vec<Scenario> {
    let dir = |_: &Share| Action::Dir { mode: 0o755, owner: None };
    let remove = |_: &Share| Action::Remove;
    vec![
        Scenario {
            name: "a new file and the directories above it",
            setup: |_| {},
            path: "2026/11/a",
            action: inline,
            displaced: None,
            after: &[("2026", "dir"), ("2026/11", "dir"), ("2026/11/a", "file the new one")],
        },
        Scenario {
            name: "a new file that was transferred",
            setup: |_| {},
            path: "a",
            action: transferred,
            displaced: None,
            after: &[("a", "file the new one")],
        },
        Scenario {
            name: "a new file with the bytes of another",
            setup: |share| share.put("b", NEW),
            path: "a",
            action: |_| file(Source::Local(share_path("b")), NEW),
            displaced: None,
            after: &[("a", "file the new one"), ("b", "file the new one")],
        },
        Scenario {
            name: "a new directory",
            setup: |_| {},
            path: "2026/11",
            action: dir,
            displaced: None,
            after: &[("2026", "dir"), ("2026/11", "dir")],
        },
        Scenario {
            name: "a new link",
            setup: |_| {},
            path: "a",
            action: link,
            displaced: None,
            after: &[("a", "link elsewhere")],
        },
        Scenario {
            name: "a file for a file",
            setup: old_file,
            path: "a",
            action: inline,
            displaced: Some(trash),
            after: &[("a", "file the new one")],
        },
        Scenario {
            name: "a transferred file for a file",
            setup: old_file,
            path: "a",
            action: transferred,
            displaced: Some(trash),
            after: &[("a", "file the new one")],
        },
        Scenario {
            name: "a file for a file that becomes a conflict copy",
            setup: old_file,
            path: "a",
            action: inline,
            displaced: Some(copy),
            after: &[("a", "file the new one"), ("a.conflict", "file the old recording")],
        },
        Scenario {
            name: "a file for a link",
            setup: |share| share.put_link("a", "somewhere"),
            path: "a",
            action: inline,
            displaced: Some(trash),
            after: &[("a", "file the new one")],
        },
        Scenario {
            name: "a link for a file",
            setup: old_file,
            path: "a",
            action: link,
            displaced: Some(trash),
            after: &[("a", "link elsewhere")],
        },
        Scenario {
            name: "a directory for a file",
            setup: old_file,
            path: "a",
            action: dir,
            displaced: Some(trash),
            after: &[("a", "dir")],
        },
        Scenario {
            name: "a file for an empty directory",
            setup: |share| share.put_dir("a"),
            path: "a",
            action: inline,
            displaced: Some(trash),
            after: &[("a", "file the new one")],
        },
        Scenario {
            name: "a file removed",
            setup: old_file,
            path: "a",
            action: remove,
            displaced: Some(trash),
            after: &[],
        },
        Scenario {
            name: "a file made a conflict copy",
            setup: old_file,
            path: "a",
            action: remove,
            displaced: Some(copy),
            after: &[("a.conflict", "file the old recording")],
        },
        Scenario {
            name: "a link removed",
            setup: |share| share.put_link("a", "somewhere"),
            path: "a",
            action: remove,
            displaced: Some(trash),
            after: &[],
        },
        Scenario {
            name: "a directory removed",
            setup: |share| share.put_dir("a"),
            path: "a",
            action: remove,
            displaced: None,
            after: &[],
        },
        Scenario {
            name: "a file moved into a new directory",
            setup: old_file,
            path: "archive/b",
            action: moved,
            displaced: None,
            after: &[("archive", "dir"), ("archive/b", "file the old recording")],
        },
        Scenario {
            name: "a link moved",
            setup: |share| share.put_link("a", "somewhere"),
            path: "b",
            action: moved,
            displaced: None,
            after: &[("b", "link somewhere")],
        },
        Scenario {
            name: "a directory moved",
            setup: |share| share.put("a/c", OLD),
            path: "b",
            action: moved,
            displaced: None,
            after: &[("b", "dir"), ("b/c", "file the old recording")],
        },
        Scenario {
            name: "a file's metadata",
            setup: old_file,
            path: "a",
            action: |_| Action::Metadata { mode: Some(MODE), mtime_ns: Some(MTIME), owner: None },
            displaced: None,
            after: &[("a", "file the old recording")],
        },
        Scenario {
            name: "a directory's metadata",
            setup: |share| share.put("a/b", OLD),
            path: "a",
            action: |_| Action::Metadata { mode: Some(0o711), mtime_ns: Some(MTIME), owner: None },
            displaced: None,
            after: &[("a", "dir"), ("a/b", "file the old recording")],
        },
        Scenario {
            name: "a link's time",
            setup: |share| share.put_link("a", "somewhere"),
            path: "a",
            action: |_| Action::Metadata { mode: None, mtime_ns: Some(MTIME), owner: None },
            displaced: None,
            after: &[("a", "link somewhere")],
        },
    ]
}

impl Scenario {
    fn begin(&self) -> (Share, Op) {
        let share = Share::new();
        (self.setup)(&share);
        let path = share_path(self.path);
        let op = Op {
            id: ID,
            expect: share.tree.stat(&Place::Share(path.clone())).ok(),
            action: (self.action)(&share),
            displaced: self.displaced.map(|displaced| displaced(&path)),
            beside: beside(&path),
            path,
        };
        (share, op)
    }

    /// Names and contents that the share has before and after.
    fn ends(&self) -> [BTreeSet<(String, Vec<u8>)>; 2] {
        let after = self.after.iter().map(|(name, held)| ((*name).into(), held.as_bytes().into()));
        [contents(&self.begin().0.world()), after.collect()]
    }

    /// Checks that each name holds what it held before or what it holds after.
    fn check_old_or_new(&self, share: &Share, why: &str) {
        let ends = self.ends();
        let world = contents(&share.world());
        for (name, held) in &world {
            let legal = ends.iter().any(|end| end.contains(&(name.clone(), held.clone())));
            assert!(legal, "{}: {why}: {name} holds {}", self.name, held.escape_ascii());
        }
        // A name that is there before and after never is not.
        for (name, _) in &ends[0] {
            if ends[1].iter().any(|(after, _)| after == name) {
                let there = world.iter().any(|(found, _)| found == name);
                assert!(there, "{}: {why}: {name} is gone", self.name);
            }
        }
    }

    /// Checks that what was there before is somewhere still; directories apart.
    fn check_nothing_lost(&self, share: &Share, why: &str) {
        for (name, held) in &self.ends()[0] {
            let kept = *held == b"dir" || everywhere(share).contains(held);
            assert!(kept, "{}: {why}: what {name} held is lost", self.name);
        }
    }
}

fn contents(world: &World) -> BTreeSet<(String, Vec<u8>)> {
    world.iter().map(|(name, held)| (name.clone(), held.content())).collect()
}

/// The contents of all objects, `.recsync` too.
fn everywhere(share: &Share) -> BTreeSet<Vec<u8>> {
    share.below("").values().map(Held::content).collect()
}

/// True if a name holds these bytes.
fn holds(share: &Share, name: &str, bytes: &[u8]) -> bool {
    share.world().get(name).is_some_and(|held| held.content() == [b"file ", bytes].concat())
}

fn one(outcomes: Vec<(u64, Outcome)>, id: u64) -> Outcome {
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].0, id);
    outcomes.into_iter().next().unwrap().1
}

fn done(outcome: Outcome) -> Done {
    match outcome {
        Outcome::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

/// The index as it is while an operation runs.
fn index_during(op: &Op) -> Memory {
    let mut index = Memory::new(Epoch(1));
    let replaces = !matches!(op.action, Action::Metadata { .. } | Action::Move { .. });
    if let Some(expect) = op.expect.filter(|_| replaces) {
        let staged = match &op.action {
            Action::File { size, hash, .. } => Some(Content::File { size: *size, hash: *hash }),
            Action::Dir { .. } => Some(Content::Dir),
            Action::Symlink { target, .. } => Some(Content::Symlink { target: target.clone() }),
            _ => None,
        };
        let displaced = op.displaced.clone().unwrap_or_else(|| trash(&op.path));
        let path = op.path.clone();
        let intent = Intent { id: op.id, path, expect, displaced, staged, made: false };
        index.write(&Write::Intent(intent)).unwrap();
    }
    index
}

fn recover_with<T: Tree>(tree: &T, index: &Memory) -> Result<Recovered, super::RecoverError> {
    let beside =
        |path: &SharePath| path.parent().join(&[path.name(), b".conflict-x"].concat()).unwrap();
    recover(tree, index, wall_ns(), DAY, beside)
}

/// Names in `.recsync/tmp` that are not an interrupted transfer's.
fn left_over(share: &Share) -> Vec<String> {
    let names = share.tree.list_temp().unwrap();
    names.into_iter().filter(|name| crate::transfer::transfer_of(name).is_none()).collect()
}

#[test]
fn every_change_is_made_whole() {
    for scenario in scenarios() {
        let (share, op) = scenario.begin();
        let done = done(one(run(&share.tree, vec![op.clone()]), op.id));
        let [_, after] = scenario.ends();
        assert_eq!(contents(&share.world()), after, "{}", scenario.name);
        scenario.check_nothing_lost(&share, "no fault");
        assert_eq!(share.tree.list_temp().unwrap(), Vec::<String>::new(), "{}", scenario.name);
        let found = share.tree.stat(&Place::Share(op.path.clone())).ok();
        assert_eq!(done.fingerprint, found, "{}", scenario.name);
        let sets_mtime = !matches!(op.action, Action::Dir { .. } | Action::Remove);
        if sets_mtime {
            assert_eq!(found.unwrap().mtime_ns, MTIME, "{}", scenario.name);
        }
        if let Action::File { mode, .. } = op.action {
            assert_eq!(found.unwrap().mode, mode, "{}", scenario.name);
        }
        match &op.displaced {
            Some(place) if op.expect.unwrap().kind != crate::tree::Kind::Dir => {
                assert_eq!(done.displaced, Some((place.clone(), share.tree.stat(place).unwrap())));
            }
            _ => assert_eq!(done.displaced, None, "{}", scenario.name),
        }
        for (dir, stat) in &done.made {
            assert_eq!(share.tree.stat(&Place::Share(dir.clone())).as_ref(), Ok(stat));
        }
        let made: Vec<_> = done.made.iter().map(|(dir, _)| dir.to_string()).collect();
        let expected: &[&str] = match scenario.path {
            "2026/11/a" => &["2026", "2026/11"],
            "2026/11" => &["2026"],
            "archive/b" => &["archive"],
            _ => &[],
        };
        assert_eq!(made, expected, "{}", scenario.name);
    }
}

#[test]
fn a_failure_at_any_step_is_told_truthfully() {
    let mut unsure = 0;
    for scenario in scenarios() {
        let [_, after] = scenario.ends();
        for step in 0.. {
            let (share, op) = scenario.begin();
            let before = share.world();
            let faulty = Faulty::new(&share.tree, step, Fault::Fail(1));
            let outcome = one(run(&faulty, vec![op.clone()]), op.id);
            let why = format!("step {step} fails, {outcome:?}");
            scenario.check_old_or_new(&share, &why);
            scenario.check_nothing_lost(&share, &why);
            match outcome {
                Outcome::Done(done) => {
                    assert_eq!(contents(&share.world()), after, "{}: {why}", scenario.name);
                    let found = share.tree.stat(&Place::Share(op.path.clone())).ok();
                    assert_eq!(done.fingerprint, found, "{}: {why}", scenario.name);
                }
                // Directory times apart, which a world does not hold, nothing has changed.
                Outcome::Failed(_) | Outcome::BadSource | Outcome::Writer => {
                    assert_eq!(share.world(), before, "{}: {why}", scenario.name);
                }
                // It is there all the same, and whoever changes it now has seen it.
                Outcome::Unsure(done) => {
                    assert_eq!(contents(&share.world()), after, "{}: {why}", scenario.name);
                    let found = share.tree.stat(&Place::Share(op.path.clone())).ok();
                    let ino = |stat: Option<Fingerprint>| stat.map(|stat| (stat.ino, stat.mode));
                    assert_eq!(ino(done.fingerprint), ino(found), "{}: {why}", scenario.name);
                    unsure += 1;
                }
                Outcome::Changed => {}
                Outcome::Stuck => panic!("{}: {why}", scenario.name),
            }
            // The engine has an answer, so the intent is settled: what is left must not be lost.
            let recovered = recover_with(&share.tree, &Memory::new(Epoch(1))).unwrap();
            assert_eq!(recovered.troubles, vec![], "{}: {why}", scenario.name);
            scenario.check_nothing_lost(&share, &why);
            assert_eq!(left_over(&share), Vec::<String>::new(), "{}: {why}", scenario.name);
            if !faulty.was_met() {
                break;
            }
        }
    }
    assert!(unsure > 0, "a sync that fails after the switch");
}

#[test]
fn what_came_out_is_never_among_the_lost_though_all_ways_back_fail() {
    let mut stuck = 0;
    for scenario in scenarios().into_iter().filter(|scenario| scenario.displaced.is_some()) {
        for step in 0.. {
            let mut met = false;
            for count in 2..8 {
                let (share, op) = scenario.begin();
                let faulty = Faulty::new(&share.tree, step, Fault::Fail(count));
                let outcome = one(run(&faulty, vec![op.clone()]), op.id);
                met |= faulty.was_met();
                let why = format!("steps {step} and so on fail, {count} in all, {outcome:?}");
                let is_stuck = outcome == Outcome::Stuck;
                stuck += usize::from(is_stuck);
                let index = if is_stuck { index_during(&op) } else { Memory::new(Epoch(1)) };
                let recovered = recover_with(&share.tree, &index).unwrap();
                let name = scenario.name;
                scenario.check_nothing_lost(&share, &why);
                let thrown = recovered.kept.iter().find(|at| matches!(at, Place::Trash { .. }));
                assert_eq!(thrown, None, "{name}: {why}");
                assert_eq!(recovered.troubles, vec![], "{name}: {why}");
                assert_eq!(left_over(&share), Vec::<String>::new(), "{name}: {why}");
            }
            if !met {
                break;
            }
        }
    }
    assert!(stuck > 0);
}

/// An empty directory of ours that was to be exchanged is not kept, though it cannot be looked at.
#[test]
fn a_directory_that_is_taken_back_is_in_no_ones_way() {
    let scenario = &scenarios()[10];
    for first in 0.. {
        let mut met = false;
        for second in first.. {
            let (share, op) = scenario.begin();
            let later = Faulty::new(&share.tree, second, Fault::Fail(1));
            let faulty = Faulty::new(&later, first, Fault::Fail(1));
            let _either_way = run(&faulty, vec![op]);
            scenario.check_old_or_new(&share, &format!("steps {first} and then {second} fail"));
            met |= faulty.was_met();
            if !later.was_met() {
                break;
            }
        }
        if !met {
            break;
        }
    }
}

#[test]
fn a_crash_at_any_step_leaves_old_or_new() {
    for scenario in scenarios() {
        for step in 0.. {
            let (share, op) = scenario.begin();
            let faulty = Faulty::new(&share.tree, step, Fault::Stop);
            let _unheard = run(&faulty, vec![op.clone()]);
            let why = format!("stopped at step {step}");
            scenario.check_old_or_new(&share, &why);
            scenario.check_nothing_lost(&share, &why);
            let index = index_during(&op);
            let recovered = recover_with(&share.tree, &index).unwrap();
            check_recovered(&scenario, &share, &recovered, &why);
            let is_new = contents(&share.world()) == scenario.ends()[1];
            let replaces = op.action != Action::Remove && op.displaced.is_some();
            // A directory that came out may be gone by then.
            if !replaces || op.expect.unwrap().kind != crate::tree::Kind::Dir {
                let told = !recovered.exchanged.is_empty();
                assert_eq!(told, replaces && is_new, "{}: {why}", scenario.name);
            }
            let settled = share.below("");
            let again = recover_with(&share.tree, &index).unwrap();
            assert_eq!(again.troubles, vec![], "{}: {why}", scenario.name);
            assert_eq!(share.below(""), settled, "{}: {why}: twice", scenario.name);
            if !faulty.was_met() {
                break;
            }
        }
    }
}

#[test]
fn a_crash_of_recovery_at_any_step_loses_nothing() {
    // Those with an intent; the others leave nothing to decide.
    for scenario in scenarios().into_iter().filter(|scenario| scenario.displaced.is_some()) {
        for step in 0.. {
            let mut met = false;
            for second in 0.. {
                let (share, op) = scenario.begin();
                let faulty = Faulty::new(&share.tree, step, Fault::Stop);
                let _unheard = run(&faulty, vec![op.clone()]);
                met |= faulty.was_met();
                let index = index_during(&op);
                let faulty = Faulty::new(&share.tree, second, Fault::Stop);
                let _unheard = recover_with(&faulty, &index);
                let why = format!("stopped at step {step}, recovery at step {second}");
                scenario.check_old_or_new(&share, &why);
                scenario.check_nothing_lost(&share, &why);
                let recovered = recover_with(&share.tree, &index).unwrap();
                check_recovered(&scenario, &share, &recovered, &why);
                if !faulty.was_met() {
                    break;
                }
            }
            if !met {
                break;
            }
        }
    }
}

fn check_recovered(scenario: &Scenario, share: &Share, recovered: &Recovered, why: &str) {
    let name = scenario.name;
    scenario.check_old_or_new(share, why);
    scenario.check_nothing_lost(share, why);
    assert_eq!(recovered.troubles, vec![], "{name}: {why}");
    assert_eq!(recovered.kept, vec![], "{name}: {why}");
    assert_eq!(left_over(share), Vec::<String>::new(), "{name}: {why}");
}

/// What somebody does to a name, just before some step.
struct Hand {
    name: &'static str,
    act: fn(&Share, &str),
}

const HANDS: &[Hand] = &[
    Hand { name: "saves another file", act: |share, path| share.put_anew(path, USER) },
    Hand { name: "writes in place", act: |share, path| share.put(path, USER) },
    Hand {
        name: "removes it, writes anew",
        act: |share, path| {
            share.remove(path);
            share.put(path, USER);
        },
    },
    Hand {
        name: "puts a file into it",
        act: |share, path| share.put(&format!("{path}/user"), USER),
    },
    Hand {
        name: "takes the conflict copy's name",
        act: |share, path| share.put(&format!("{path}.conflict"), USER),
    },
];

/// Does what the hand does, if that can be done to what is there.
fn try_hand(hand: &Hand, share: &Share, path: &str) -> bool {
    let act = std::panic::AssertUnwindSafe(|| (hand.act)(share, path));
    let at = share.at(path);
    let into = hand.name == "puts a file into it";
    let beside = hand.name == "takes the conflict copy's name";
    let fits = beside || if into { at.is_dir() } else { !at.is_dir() && !at.is_symlink() };
    let there =
        beside || at.exists() || hand.name == "writes in place" && at.parent().unwrap().exists();
    fits && there && std::panic::catch_unwind(act).is_ok()
}

#[test]
fn what_somebody_does_at_any_step_is_not_lost() {
    for scenario in scenarios() {
        for hand in HANDS {
            for name in ["a", scenario.path] {
                for step in 0.. {
                    let (share, op) = scenario.begin();
                    let acted = Mutex::new(false);
                    let faulty = Faulty::act(&share.tree, step, || {
                        *acted.lock().unwrap() = try_hand(hand, &share, name);
                    });
                    let outcome = one(run(&faulty, vec![op.clone()]), op.id);
                    let was_met = faulty.was_met();
                    drop(faulty);
                    let why = format!("{} at {name} before step {step}, {outcome:?}", hand.name);
                    // The engine is told, so the intent is settled.
                    let recovered = recover_with(&share.tree, &Memory::new(Epoch(1))).unwrap();
                    assert_eq!(recovered.troubles, vec![], "{}: {why}", scenario.name);
                    if *acted.lock().unwrap() {
                        let user = [b"file ", USER].concat();
                        let kept = share.world().values().any(|held| held.content() == user);
                        assert!(kept, "{}: {why}: it is lost", scenario.name);
                    }
                    if !was_met {
                        break;
                    }
                }
            }
        }
    }
}

/// Who put it there need not know of the old name, nor who puts something there next.
#[test]
fn what_somebody_puts_under_a_renames_new_name_stays_there_but_in_one_instant() {
    let is_rename = |scenario: &Scenario| {
        let (share, op) = scenario.begin();
        matches!(op.action, Action::Move { .. }) && !share.at("a").is_dir()
    };
    for scenario in scenarios().into_iter().filter(is_rename) {
        let (mut acts, mut elsewhere) = (0, Vec::new());
        for step in 0.. {
            let (share, op) = scenario.begin();
            let acted = Mutex::new(false);
            let faulty = Faulty::act(&share.tree, step, || {
                let is_moved = share.world().contains_key(scenario.path);
                *acted.lock().unwrap() = is_moved;
                if is_moved {
                    share.put_anew(scenario.path, USER);
                }
            });
            let _either = run(&faulty, vec![op]);
            let was_met = faulty.was_met();
            drop(faulty);
            if *acted.lock().unwrap() {
                acts += 1;
                if !holds(&share, scenario.path, USER) {
                    elsewhere.push(step);
                }
            }
            if !was_met {
                break;
            }
        }
        assert!(acts > 1, "{}", scenario.name);
        assert!(elsewhere.len() <= 1, "{}: at steps {elsewhere:?}", scenario.name);
    }
}

/// Between the last look and the change itself nothing tells of it.
#[test]
fn a_rewrite_that_puts_the_mtime_back_is_seen_but_in_one_instant() {
    let rewritten = b"the bad recording";
    let takes_file = |scenario: &Scenario| {
        let (share, op) = scenario.begin();
        scenario.displaced.is_some_and(|displaced| displaced(&op.path) == trash(&op.path))
            && holds(&share, "a", OLD)
    };
    for scenario in scenarios().into_iter().filter(takes_file) {
        let mut unseen = Vec::new();
        for step in 0.. {
            let (share, op) = scenario.begin();
            let faulty = Faulty::act(&share.tree, step, || {
                if holds(&share, "a", OLD) {
                    let mtime_ns = share.stat("a").mtime_ns;
                    share.put("a", rewritten);
                    let place = Place::Share(share_path("a"));
                    let file = share.tree.open_for_metadata(&place).unwrap();
                    share.tree.set_mtime(&file, mtime_ns).unwrap();
                }
            });
            let outcome = one(run(&faulty, vec![op]), ID);
            let was_met = faulty.was_met();
            drop(faulty);
            let is_there = holds(&share, "a", OLD) || holds(&share, "a", rewritten);
            if matches!(outcome, Outcome::Done(_))
                && !is_there
                && everywhere(&share).contains(&[b"file ", &rewritten[..]].concat())
            {
                unseen.push(step);
            }
            if !was_met {
                break;
            }
        }
        assert_eq!(unseen.len(), 1, "{}: at steps {unseen:?}", scenario.name);
    }
}

#[test]
fn what_somebody_does_is_not_lost_though_the_way_back_fails() {
    for scenario in scenarios().into_iter().filter(|scenario| scenario.displaced.is_some()) {
        for step in 0.. {
            let mut met = false;
            for (failing, count) in (step + 1..step + 8).flat_map(|at| [(at, 1), (at, 2), (at, 3)])
            {
                let (share, op) = scenario.begin();
                let acted = Mutex::new(false);
                let failing = Faulty::new(&share.tree, failing, Fault::Fail(count));
                let faulty = Faulty::act(&failing, step, || {
                    *acted.lock().unwrap() = try_hand(&HANDS[0], &share, scenario.path);
                });
                let outcome = one(run(&faulty, vec![op.clone()]), op.id);
                met |= faulty.was_met();
                drop(faulty);
                let why = format!("acted before step {step}, a later one fails, {outcome:?}");
                let recovered = recover_with(&share.tree, &Memory::new(Epoch(1))).unwrap();
                assert_eq!(recovered.troubles, vec![], "{}: {why}", scenario.name);
                let kept = everywhere(&share).contains(&[b"file ", USER].concat());
                assert!(kept || !*acted.lock().unwrap(), "{}: {why}", scenario.name);
            }
            if !met {
                break;
            }
        }
    }
}

/// Else what was put would be taken for somebody's here.
#[test]
fn what_is_said_not_to_be_replaced_is_not_though_the_way_back_fails() {
    let puts = |scenario: &Scenario| {
        let (_, op) = scenario.begin();
        let is_move = matches!(op.action, Action::Move { .. });
        is_move || op.displaced.is_some() && op.action != Action::Remove
    };
    for scenario in scenarios().into_iter().filter(puts) {
        for (step, count) in (0..).flat_map(|step| [(step, 1), (step, 2), (step, 3)]) {
            let (share, op) = scenario.begin();
            let faulty = Faulty::new(&share.tree, step, Fault::Fail(count));
            let outcome = one(run(&faulty, vec![op]), ID);
            let was_met = faulty.was_met();
            drop(faulty);
            let said = matches!(outcome, Outcome::Done(_) | Outcome::Unsure(_) | Outcome::Stuck);
            let is_new = contents(&share.world()) == scenario.ends()[1];
            let same = scenario.ends()[0] == scenario.ends()[1];
            assert!(said || !is_new || same, "{}: {count} from {step}: {outcome:?}", scenario.name);
            if !was_met {
                break;
            }
        }
    }
}

#[test]
fn who_saves_last_has_the_name_and_the_other_is_beside() {
    let last = b"what was saved last";
    for scenario in scenarios().into_iter().filter(|scenario| scenario.displaced.is_some()) {
        for step in 0.. {
            let mut met = false;
            for second in step + 1..step + 8 {
                let (share, op) = scenario.begin();
                let (acted, over) = (Mutex::new(false), Mutex::new(false));
                let later = Faulty::act(&share.tree, second, || {
                    let mut acted = acted.lock().unwrap();
                    *acted &= !share.at("a").is_dir();
                    if *acted {
                        // Who saves over what was saved before has no more use for that.
                        *over.lock().unwrap() = holds(&share, "a", USER);
                        share.put_anew("a", last);
                    }
                });
                let faulty = Faulty::act(&later, step, || {
                    *acted.lock().unwrap() = try_hand(&HANDS[0], &share, "a");
                });
                let _either = run(&faulty, vec![op.clone()]);
                met |= faulty.was_met();
                let both = later.was_met();
                drop(faulty);
                drop(later);
                if both && *acted.lock().unwrap() {
                    let why = format!("{}: at steps {step} and {second}", scenario.name);
                    assert_eq!(share.read("a"), last, "{why}");
                    let user = [b"file ", USER].concat();
                    let kept = share.world().values().any(|held| held.content() == user);
                    assert!(kept || *over.lock().unwrap(), "{why}: the first is in no tree");
                }
            }
            if !met {
                break;
            }
        }
    }
}

#[test]
fn what_is_written_to_the_new_object_is_kept_though_it_is_taken_back() {
    let mut met = 0;
    for scenario in scenarios().into_iter().filter(|scenario| scenario.displaced.is_some()) {
        for step in 0.. {
            let mut was_met = false;
            for (failing, count) in (step..step + 4).flat_map(|at| [(at, 1), (at, 2)]) {
                let (share, op) = scenario.begin();
                let acted = Mutex::new(false);
                let failing = Faulty::new(&share.tree, failing, Fault::Fail(count));
                let faulty = Faulty::act(&failing, step, || {
                    let is_dir =
                        share.at("a").is_dir() && scenario.name == "a directory for a file";
                    let name = if is_dir { "a/user" } else { "a" };
                    if is_dir || holds(&share, "a", NEW) {
                        share.put(name, USER);
                        *acted.lock().unwrap() = true;
                    }
                });
                let outcome = one(run(&faulty, vec![op.clone()]), op.id);
                was_met |= faulty.was_met();
                drop(faulty);
                let why = format!("{}: before step {step}, {outcome:?}", scenario.name);
                let user = [b"file ", USER].concat();
                let kept = share.world().values().any(|held| held.content() == user);
                let acted = *acted.lock().unwrap();
                let met_it = matches!(outcome, Outcome::Changed | Outcome::Unsure(_));
                met += u32::from(acted && met_it);
                assert!(kept || !acted, "{why}");
                // Whoever wrote to it knew it, and not only what was there before.
                let over_it = acted && (holds(&share, "a", USER) || share.at("a/user").exists());
                let is_told = matches!(outcome, Outcome::Done(_) | Outcome::Unsure(_));
                assert!(is_told || !over_it, "{why}: {:?}", contents(&share.world()));
            }
            if !was_met {
                break;
            }
        }
    }
    assert!(met > 0, "nothing was taken back");
}

#[test]
fn a_directory_that_goes_away_takes_nothing_with_it() {
    for removes in [false, true] {
        for step in 0.. {
            let share = Share::new();
            share.put("d/a", OLD);
            let path = share_path("d/a");
            let (expect, beside) = (Some(share.stat("d/a")), beside(&path));
            let (action, displaced) = (inline(&share), Some(copy(&path)));
            let op = Op { id: ID, path, expect, action, displaced, beside };
            let deleted = Mutex::new(false);
            let faulty = Faulty::act(&share.tree, step, || {
                if removes {
                    let below = share.below("d");
                    let old = [b"file ", OLD].concat();
                    *deleted.lock().unwrap() = below.values().any(|held| held.content() == old);
                    below.keys().for_each(|name| share.remove(&format!("d/{name}")));
                    share.remove_dir("d");
                } else {
                    share.rename("d", "e");
                }
            });
            let outcome = one(run(&faulty, vec![op.clone()]), op.id);
            let was_met = faulty.was_met();
            drop(faulty);
            let why = format!("removed: {removes}, before step {step}, {outcome:?}");
            let old = [b"file ", OLD].concat();
            let kept = share.world().values().any(|held| held.content() == old);
            assert!(kept || *deleted.lock().unwrap(), "{why}");
            assert_eq!(left_over(&share), Vec::<String>::new(), "{why}");
            if !was_met {
                break;
            }
        }
    }
}

#[test]
fn a_change_before_the_last_look_is_never_taken_for_ours() {
    for scenario in scenarios() {
        for step in 0.. {
            let (share, op) = scenario.begin();
            let acted = Mutex::new(false);
            let faulty = Faulty::act(&share.tree, step, || {
                *acted.lock().unwrap() = try_hand(&HANDS[1], &share, scenario.path);
            });
            let outcome = one(run(&faulty, vec![op.clone()]), op.id);
            if let (true, Outcome::Done(Done { fingerprint: Some(told), .. })) =
                (*acted.lock().unwrap(), outcome)
                && told.kind == crate::tree::Kind::File
            {
                let bytes: &[u8] = match op.action {
                    Action::File { .. } => NEW,
                    _ => OLD,
                };
                assert_eq!(told.size, bytes.len() as u64, "{}: step {step}", scenario.name);
            }
            if !faulty.was_met() {
                break;
            }
        }
    }
}

#[test]
fn a_file_that_takes_the_place_of_a_link_is_never_taken_for_it() {
    let links = ["a link moved", "a link's time"];
    for scenario in scenarios().into_iter().filter(|scenario| links.contains(&scenario.name)) {
        for step in 0.. {
            let (share, op) = scenario.begin();
            let faulty = Faulty::act(&share.tree, step, || {
                if share.at(scenario.path).is_symlink() {
                    share.put_anew(scenario.path, USER);
                }
            });
            let outcome = one(run(&faulty, vec![op.clone()]), op.id);
            if let Outcome::Done(Done { fingerprint: Some(told), .. }) = outcome {
                let link = crate::tree::Kind::Symlink;
                assert_eq!(told.kind, link, "{}: before step {step}", scenario.name);
            }
            if !faulty.was_met() {
                break;
            }
        }
    }
}

#[test]
fn a_write_into_what_lies_in_the_trash_is_never_taken_for_what_was_displaced() {
    let mut told_of = 0;
    for scenario in scenarios() {
        for step in 0.. {
            let (share, op) = scenario.begin();
            // Open for reading, which keeps nobody from displacing it.
            let open = std::fs::OpenOptions::new().read(true).open(share.at("a"));
            let acted = Mutex::new(false);
            let faulty = Faulty::act(&share.tree, step, || {
                let Ok(open) = &open else { return };
                let again = format!("/proc/self/fd/{}", open.as_raw_fd());
                let late = std::fs::OpenOptions::new().append(true).open(again);
                *acted.lock().unwrap() = late.is_ok_and(|mut late| late.write_all(USER).is_ok());
            });
            let outcome = one(run(&faulty, vec![op.clone()]), op.id);
            let was_met = faulty.was_met();
            drop(faulty);
            if let (true, Outcome::Done(Done { displaced: Some((place, told)), .. })) =
                (*acted.lock().unwrap(), outcome)
            {
                let found = share.tree.stat(&place).unwrap();
                assert!(!told.same_bytes(&found), "{}: before step {step}", scenario.name);
                told_of += 1;
            }
            if !was_met {
                break;
            }
        }
    }
    assert!(told_of > 0, "no write came after the displacement");
}

#[test]
fn a_mode_that_somebody_sets_on_a_new_directory_is_never_taken_for_ours() {
    for step in 0.. {
        let share = Share::new();
        let (path, action) = (share_path("d"), Action::Dir { mode: 0o755, owner: None });
        let beside = beside(&path);
        let op = Op { id: ID, path: path.clone(), expect: None, action, displaced: None, beside };
        let set = Mutex::new(false);
        let faulty = Faulty::act(&share.tree, step, || {
            if let Ok(dir) = share.tree.open_for_metadata(&Place::Share(path.clone())) {
                share.tree.set_mode(&dir, 0o700).unwrap();
                *set.lock().unwrap() = true;
            }
        });
        let outcome = one(run(&faulty, vec![op]), ID);
        if let (true, Outcome::Done(done)) = (*set.lock().unwrap(), outcome) {
            assert_eq!(done.fingerprint.unwrap().mode, 0o755, "step {step}");
        }
        if !faulty.was_met() {
            break;
        }
    }
}

#[test]
fn a_writer_at_any_step_writes_into_a_file_that_is_kept() {
    for scenario in scenarios() {
        for step in 0.. {
            let (share, op) = scenario.begin();
            let writer = Mutex::new(None);
            let faulty = Faulty::act(&share.tree, step, || {
                if share.at("a").is_file() && !share.at("a").is_symlink() {
                    *writer.lock().unwrap() = Some(share.open_for_writing("a"));
                }
            });
            let outcome = one(run(&faulty, vec![op.clone()]), op.id);
            let was_met = faulty.was_met();
            drop(faulty);
            let why = format!("{}: a writer from step {step}, {outcome:?}", scenario.name);
            if let Some(mut writer) = writer.into_inner().unwrap() {
                writer.write_all(USER).unwrap();
                let kept = everywhere(&share).iter().any(|held| held.ends_with(USER));
                assert!(kept, "{why}: what it writes is lost");
            }
            if outcome == Outcome::Writer {
                scenario.check_nothing_lost_but_appended(&share, &why);
            }
            if !was_met {
                break;
            }
        }
    }
}

impl Scenario {
    /// After a refusal each name is there as before; files may have grown by what was appended.
    fn check_nothing_lost_but_appended(&self, share: &Share, why: &str) {
        let world = contents(&share.world());
        let [before, _] = self.ends();
        assert_eq!(world.len(), before.len(), "{why}");
        for ((name, held), (was, old)) in world.iter().zip(&before) {
            assert_eq!(name, was, "{why}");
            assert!(held.starts_with(old), "{why}");
        }
    }
}

#[test]
fn a_file_that_is_being_written_is_neither_replaced_nor_removed_nor_moved() {
    for scenario in scenarios() {
        let (share, op) = scenario.begin();
        if !share.at("a").is_file() || share.at("a").is_symlink() {
            continue;
        }
        let before = share.world();
        let _writer = share.open_for_writing("a");
        let outcome = one(run(&share.tree, vec![op]), ID);
        assert_eq!(outcome, Outcome::Writer, "{}", scenario.name);
        assert_eq!(share.world(), before, "{}", scenario.name);
    }
}

#[test]
fn what_is_not_expected_is_left_alone() {
    for scenario in scenarios() {
        let (share, mut op) = scenario.begin();
        match &mut op.action {
            Action::Move { from_expect, .. } => from_expect.ino += 1,
            _ => match &mut op.expect {
                Some(expect) => expect.ino += 1,
                None => share.put(scenario.path, USER),
            },
        }
        let before = share.world();
        let outcome = one(run(&share.tree, vec![op]), ID);
        assert_eq!(outcome, Outcome::Changed, "{}", scenario.name);
        assert_eq!(share.world(), before, "{}", scenario.name);
        assert_eq!(left_over(&share), Vec::<String>::new(), "{}", scenario.name);
    }
}

/// What a directory holds moves its stat: its mode and its owner are looked at by themselves.
#[test]
fn a_directorys_mode_that_somebody_set_is_not_replaced_unseen() {
    let share = Share::new();
    share.put("a/b", OLD);
    let mut expect = share.stat("a");
    let action = Action::Metadata { mode: Some(0o711), mtime_ns: None, owner: None };
    let beside = beside(&share_path("a"));
    let op = Op { id: ID, path: share_path("a"), expect: None, action, displaced: None, beside };
    for change in ["mode", "owner"] {
        let there = share.stat("a");
        match change {
            "mode" => expect.mode ^= 0o050,
            _ => (expect.mode, expect.gid) = (there.mode, there.gid + 1),
        }
        let op = Op { expect: Some(expect), ..op.clone() };
        assert_eq!(one(run(&share.tree, vec![op]), ID), Outcome::Changed, "{change}");
        assert_eq!(share.stat("a").mode, there.mode, "{change}");
    }
}

type MakeSource = fn(&Share) -> Source;

#[test]
fn wrong_bytes_are_refused() {
    fn other(share: &Share, bytes: &[u8]) -> Source {
        share.put("b", bytes);
        Source::Local(share_path("b"))
    }
    let sources: [(&str, MakeSource); 6] = [
        ("other bytes", |_| held(OLD)),
        ("a short transfer", |share| {
            let name = whole_name(&hash_of(NEW), Seq(5));
            drop(share.tree.create_temp(&name).unwrap());
            Source::Staged(name)
        }),
        ("no transfer", |_| Source::Staged("none.part".to_owned())),
        ("no other file", |_| Source::Local(share_path("none"))),
        ("another file", |share| other(share, USER)),
        ("a short file", |share| other(share, b"x")),
    ];
    for (name, source) in sources {
        let share = Share::new();
        let action = file(source(&share), NEW);
        let path = share_path("a");
        let beside = beside(&path);
        let op = Op { id: ID, path, expect: None, action, displaced: None, beside };
        let outcome = one(run(&share.tree, vec![op]), ID);
        assert_eq!(outcome, Outcome::BadSource, "{name}");
        assert!(!share.at("a").exists(), "{name}");
        assert_eq!(left_over(&share), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_transfer_that_is_not_used_is_given_back() {
    for expect in [false, true] {
        let share = Share::new();
        share.put("a", OLD);
        let mut stale = share.stat("a");
        stale.size += 1;
        let op = Op {
            id: ID,
            path: share_path("a"),
            expect: expect.then_some(stale),
            action: transferred(&share),
            displaced: Some(trash(&share_path("a"))),
            beside: share_path("a.beside"),
        };
        assert_eq!(one(run(&share.tree, vec![op]), ID), Outcome::Changed);
        assert_eq!(share.tree.list_temp().unwrap(), [whole_name(&hash_of(NEW), Seq(5))]);
    }
}

#[test]
fn one_batch_makes_many_changes_and_answers_each() {
    let share = Share::new();
    share.put("old/a", OLD);
    share.put("old/b", OLD);
    let new = |id: u64, path: &str| Op {
        id,
        path: share_path(path),
        expect: None,
        action: inline(&share),
        displaced: None,
        beside: share_path("beside"),
    };
    let gone = |id: u64, path: &str, displaced: bool| Op {
        id,
        path: share_path(path),
        expect: Some(share.stat(path)),
        action: Action::Remove,
        displaced: displaced.then(|| trash_place(DAY, &share_path(path), id)),
        beside: share_path("beside"),
    };
    let bad = Op { action: file(held(OLD), NEW), ..new(5, "new/bad") };
    let ops = vec![
        new(1, "new/x/a"),
        new(2, "new/x/b"),
        gone(3, "old/a", true),
        new(4, "old/b"),
        bad,
        gone(6, "old/b", true),
        gone(7, "old", false),
    ];
    let outcomes = run(&share.tree, ops);
    let told: Vec<_> = outcomes
        .iter()
        .map(|(id, outcome)| match outcome {
            Outcome::Done(done) => format!("{id} done, made {}", done.made.len()),
            other => format!("{id} {other:?}"),
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    1 done, made 2
    2 done, made 0
    3 done, made 0
    4 Changed
    5 BadSource
    6 done, made 0
    7 done, made 0
    ");
    let names: Vec<_> = share.world().into_keys().collect();
    assert_eq!(names, ["new", "new/x", "new/x/a", "new/x/b"]);
}

#[test]
fn a_share_without_its_marker_is_not_touched() {
    let (share, op) = scenarios()[5].begin();
    let before = share.world();
    share.remove(".recsync/share.toml");
    let outcomes = run(&share.tree, vec![op.clone(), Op { id: 9, ..op }]);
    assert!(matches!(
        &outcomes[..],
        [(ID, Outcome::Failed(TreeError::Io(_))), (9, Outcome::Failed(TreeError::Io(_)))]
    ));
    assert_eq!(share.world(), before);
    assert!(recover_with(&share.tree, &Memory::new(Epoch(1))).is_err());
}

#[test]
fn a_local_change_that_came_out_in_a_crash_is_kept_beside() {
    let (share, op) = scenarios()[5].begin();
    let index = index_during(&op);
    // As after a crash between the exchange and the look at what came out.
    share.put_anew("a", USER);
    let temp = share.tree.create_temp(&exchanged_name(ID)).unwrap();
    share.tree.write_at(&temp, 0, NEW).unwrap();
    drop(temp);
    let (one, other) = (Place::Temp(exchanged_name(ID)), Place::Share(share_path("a")));
    share.tree.exchange(&one, &other).unwrap();
    let recovered = recover_with(&share.tree, &index).unwrap();
    assert_eq!(share.read("a"), NEW);
    assert_eq!(share.read("a.conflict-x"), USER);
    // What is at the path may have been put there by the exchange.
    assert_eq!((recovered.done, recovered.perhaps), (vec![], index.intents().unwrap()));
    assert_eq!(recovered.dirty, [share_path("a.conflict-x"), share_path("a")]);
    assert_eq!(recovered.kept, [Place::Share(share_path("a.conflict-x"))]);
}

/// What was staged and not put in place is nobody's change, though it cannot be read for once.
#[test]
fn what_was_staged_is_never_taken_for_a_local_change() {
    for step in 0.. {
        let (share, op) = scenarios()[5].begin();
        let index = index_during(&op);
        let temp = share.tree.create_temp(&exchanged_name(ID)).unwrap();
        share.tree.write_at(&temp, 0, NEW).unwrap();
        drop(temp);
        let before = share.world();
        let faulty = Faulty::new(&share.tree, step, Fault::Fail(1));
        if let Ok(recovered) = recover_with(&faulty, &index) {
            assert_eq!(recovered.kept, vec![], "failed at step {step}");
        }
        assert_eq!(share.world(), before, "failed at step {step}");
        let recovered = recover_with(&share.tree, &index).unwrap();
        assert_eq!((recovered.done, recovered.kept), (vec![ID], vec![]), "failed at step {step}");
        assert_eq!((share.world(), left_over(&share)), (before, vec![]));
        if !faulty.was_met() {
            break;
        }
    }
}

#[test]
fn a_local_change_that_was_removed_in_a_crash_comes_back() {
    let (share, op) = scenarios()[12].begin();
    let index = index_during(&op);
    share.put_anew("a", USER);
    share.tree.rename(&Place::Share(share_path("a")), &trash(&share_path("a"))).unwrap();
    let recovered = recover_with(&share.tree, &index).unwrap();
    assert_eq!(share.read("a"), USER);
    assert_eq!((recovered.done, recovered.kept), (vec![ID], vec![]));
}

/// The intent of what was put under a free name and may not be durable: its object went nowhere.
#[test]
fn what_was_put_in_doubt_before_a_crash_is_told_while_it_is_there() {
    let share = Share::new();
    share.put("a", NEW);
    let (path, expect) = (share_path("a"), share.stat("a"));
    let displaced = Place::Share(path.clone());
    let staged = Some(Content::File { size: NEW.len() as u64, hash: hash_of(NEW) });
    let intent = Intent { id: ID, path, expect, displaced, staged, made: false };
    let mut index = Memory::new(Epoch(1));
    index.write(&Write::Intent(intent.clone())).unwrap();
    let recovered = recover_with(&share.tree, &index).unwrap();
    let made = Intent { made: true, ..intent };
    assert_eq!((recovered.done, recovered.exchanged), (vec![], vec![made.clone()]));
    assert_eq!(recovered.dirty, [share_path("a")]);
    // Afterwards only the path itself can tell.
    let intent = Intent { made: false, ..made };
    let perhaps = |share: &Share| {
        let recovered = recover_with(&share.tree, &index).unwrap();
        assert_eq!((recovered.done, recovered.exchanged), (vec![], vec![]));
        assert_eq!(recovered.perhaps, std::slice::from_ref(&intent));
    };
    share.put_anew("a", USER);
    perhaps(&share);
    share.remove("a");
    perhaps(&share);
}

/// A start that is cut short before the path was looked at leaves the next one to tell of the exchange, whatever
/// has become of the path and of what came out.
#[test]
fn an_exchange_is_told_at_each_start_until_its_intent_is_done() {
    let (share, op) = scenarios()[5].begin();
    let mut index = index_during(&op);
    done(one(run(&share.tree, vec![op.clone()]), ID));
    let recovered = recover_with(&share.tree, &index).unwrap();
    let made = Intent { made: true, ..index.intents().unwrap().remove(0) };
    recovered.writes().for_each(|write| index.write(&write).unwrap());
    assert_eq!(index.intents(), Ok(vec![made.clone()]));
    share.remove("a");
    share.tree.remove_private(&op.displaced.unwrap()).unwrap();
    let recovered = recover_with(&share.tree, &index).unwrap();
    assert_eq!((recovered.done, recovered.exchanged), (vec![], vec![made]));
    assert_eq!(recovered.dirty, [share_path("a")]);
}

/// Nor that it was not: what is at the path tells.
#[test]
fn what_came_out_and_was_taken_away_since_does_not_tell_of_the_exchange() {
    let (share, op) = scenarios()[5].begin();
    let index = index_during(&op);
    done(one(run(&share.tree, vec![op.clone()]), ID));
    share.tree.remove_private(&op.displaced.unwrap()).unwrap();
    let recovered = recover_with(&share.tree, &index).unwrap();
    assert_eq!((recovered.done, recovered.exchanged), (vec![], vec![]));
    assert_eq!(recovered.perhaps, index.intents().unwrap());
    assert_eq!(recovered.dirty, [share_path("a")]);
}

#[test]
fn an_intent_whose_directory_has_become_a_file_is_settled() {
    let (share, op) = scenarios()[5].begin();
    share.put("d/a", USER);
    let (path, expect) = (share_path("d/a"), Some(share.stat("d/a")));
    let op = Op { path: path.clone(), expect, displaced: Some(trash(&path)), ..op };
    let index = index_during(&op);
    share.remove("d/a");
    share.remove_dir("d");
    share.put("d", USER);
    let recovered = recover_with(&share.tree, &index).unwrap();
    assert_eq!((recovered.unsettled, recovered.done), (vec![], vec![]));
    assert_eq!(recovered.perhaps, index.intents().unwrap());
}

/// Whether the exchange was made cannot be told while what came out cannot be looked at.
#[test]
fn an_intent_that_cannot_be_settled_is_told() {
    let (share, op) = scenarios()[5].begin();
    let index = index_during(&op);
    done(one(run(&share.tree, vec![op]), ID));
    let faulty = Faulty::new(&share.tree, 1, Fault::Fail(1));
    let recovered = recover_with(&faulty, &index).unwrap();
    assert_eq!((recovered.done, recovered.exchanged), (vec![], vec![]));
    assert_eq!(recovered.unsettled, index.intents().unwrap());
}

/// What came out is no use to anybody in `.recsync/tmp`, and the next start may be a year away.
#[test]
fn what_could_not_be_settled_at_the_start_is_settled_later() {
    let (share, op) = scenarios()[5].begin();
    let index = index_during(&op);
    let temp = share.tree.create_temp(&exchanged_name(ID)).unwrap();
    share.tree.write_at(&temp, 0, NEW).unwrap();
    drop(temp);
    let (one, other) = (Place::Temp(exchanged_name(ID)), Place::Share(share_path("a")));
    share.tree.exchange(&one, &other).unwrap();
    let faulty = Faulty::new(&share.tree, 1, Fault::Fail(1));
    let mut left = recover_with(&faulty, &index).unwrap().unsettled;
    let intent = left[0].clone();
    let again = |step, left: &mut Vec<Intent>, dir: &SharePath| {
        let faulty = Faulty::new(&share.tree, step, Fault::Fail(1));
        let recovered = settle_again(&faulty, left, dir, DAY, Clone::clone);
        assert!(recovered.done.is_empty());
        (recovered.exchanged, recovered.unsettled)
    };
    assert_eq!(again(1, &mut left, &share_path("b")), (vec![], vec![]));
    assert_eq!(again(1, &mut left, &SharePath::root()), (vec![], vec![intent.clone()]));
    assert_eq!(left, std::slice::from_ref(&intent));
    let made = Intent { made: true, ..intent };
    assert_eq!(again(1_000, &mut left, &share_path("a")), (vec![made], vec![]));
    assert_eq!((left, left_over(&share)), (vec![], vec![]));
    assert!(share.tree.stat(&op.displaced.unwrap()).is_ok());
}

/// What was staged had the name for an instant, came back out, and was opened there.
#[test]
fn what_somebody_writes_to_is_not_dropped_as_staged() {
    let (share, op) = scenarios()[5].begin();
    let index = index_during(&op);
    let temp = share.tree.create_temp(&exchanged_name(ID)).unwrap();
    share.tree.write_at(&temp, 0, NEW).unwrap();
    let recovered = recover_with(&share.tree, &index).unwrap();
    assert_eq!(recovered.unsettled, index.intents().unwrap(), "it has a writer");
    share.tree.write_at(&temp, 0, USER).unwrap();
    drop(temp);
    let mut left = recovered.unsettled;
    let recovered = settle_again(&share.tree, &mut left, &SharePath::root(), DAY, beside);
    assert_eq!((recovered.perhaps, left), (index.intents().unwrap(), vec![]));
    let [Place::Share(kept)] = &recovered.kept[..] else { panic!("{:?}", recovered.kept) };
    assert_eq!(share.read(&kept.to_string()), USER);
}

#[test]
fn a_local_change_that_came_out_in_a_crash_is_kept_though_its_directory_is_gone() {
    for removed in [false, true] {
        let share = Share::new();
        share.put("d/a", OLD);
        let path = share_path("d/a");
        let (expect, beside) = (Some(share.stat("d/a")), beside(&path));
        let action = if removed { Action::Remove } else { inline(&share) };
        let displaced = Some(trash(&path));
        let op = Op { id: ID, path: path.clone(), expect, action, displaced, beside };
        let index = index_during(&op);
        share.put_anew("d/a", USER);
        let out = if removed { trash(&path) } else { Place::Temp(exchanged_name(ID)) };
        share.tree.rename(&Place::Share(path), &out).unwrap();
        share.remove_dir("d");
        let recovered = recover_with(&share.tree, &index).unwrap();
        assert_eq!(share.read("d/a"), USER, "removed: {removed}");
        let done = if removed { vec![ID] } else { vec![] };
        assert_eq!((recovered.done, recovered.troubles), (done, vec![]));
        assert_eq!(recovered.perhaps.is_empty(), removed);
        assert!(recovered.dirty.contains(&share_path("d")), "removed: {removed}");
    }
}

#[test]
fn a_local_change_that_was_removed_in_a_crash_is_kept_beside_what_has_its_name_now() {
    let (share, op) = scenarios()[12].begin();
    let index = index_during(&op);
    share.put_anew("a", USER);
    share.tree.rename(&Place::Share(share_path("a")), &trash(&share_path("a"))).unwrap();
    share.put("a", NEW);
    let recovered = recover_with(&share.tree, &index).unwrap();
    assert_eq!((&*share.read("a"), &*share.read("a.conflict-x")), (NEW, USER));
    assert_eq!(recovered.kept, [Place::Share(share_path("a.conflict-x"))]);
}

#[test]
fn interrupted_transfers_are_kept_for_a_week() {
    let share = Share::new();
    let hash = hash_of(&noise(10, 1));
    let (whole, other) = (whole_name(&hash, Seq(7)), format!("{}.part", hash_of(b"")));
    for name in [&whole, &other, "0000000000000abc.part", "probe-1-a"] {
        drop(share.tree.create_temp(name).unwrap());
    }
    let index = Memory::new(Epoch(1));
    let recovered = recover_with(&share.tree, &index).unwrap();
    assert_eq!(recovered.removed, 2);
    let mut left = share.tree.list_temp().unwrap();
    let mut expected = vec![format!("{hash}.part"), other];
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
    let week = 7 * 24 * 3_600 * 1_000_000_000;
    assert_eq!(super::sweep_transfers(&share.tree, wall_ns()), 0);
    assert_eq!(super::sweep_transfers(&share.tree, wall_ns() + week + 1), 2);
}
