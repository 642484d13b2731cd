//! Settling paths, against a model that is a plain list.

use std::time::Duration;

use proptest::prelude::*;
use recsync_proto::SharePath;

use super::harness::path;
use crate::engine::settle::{Dirt, Settle};
use crate::engine::{Hint, Noticed};

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

fn seen(at: u64) -> Noticed {
    Noticed::Watcher(ms(at))
}

fn all(settle: &mut Settle, now: u64) -> Vec<SharePath> {
    std::iter::from_fn(|| settle.take_due(ms(now), |_| true)).map(|(path, _)| path).collect()
}

#[test]
fn a_path_comes_due_when_it_was_quiet_for_its_time() {
    let mut settle = Settle::default();
    settle.mark(path("a"), Hint::Written, seen(0), ms(20));
    settle.mark(path("a"), Hint::Written, seen(15), ms(35));
    assert_eq!(all(&mut settle, 34), []);
    assert_eq!(settle.next_due(|_| true), Some(ms(35)));
    assert_eq!(all(&mut settle, 35), [path("a")]);
    assert!(settle.is_empty());
    assert_eq!(settle.next_due(|_| true), None);
}

#[test]
fn who_waited_longest_is_first_and_who_is_not_ready_is_passed_over() {
    let mut settle = Settle::default();
    for (name, due) in [("c", 1), ("b", 2), ("a", 3)] {
        settle.mark(path(name), Hint::Written, seen(0), ms(due));
    }
    let ready = |other: &SharePath| *other != path("c");
    assert_eq!(settle.next_due(ready), Some(ms(2)));
    assert_eq!(settle.take_due(ms(9), ready).map(|(path, _)| path), Some(path("b")));
    assert_eq!(all(&mut settle, 9), [path("c"), path("a")]);
}

#[test]
fn what_the_watcher_saw_is_before_what_a_scan_found() {
    let mut settle = Settle::default();
    for name in 0..20 {
        settle.find(path(&format!("found{name:02}")), Hint::Written, ms(0));
    }
    settle.mark(path("call"), Hint::Written, seen(1), ms(21));
    assert_eq!(settle.take_due(ms(20), |_| true).unwrap().0, path("found00"));
    assert_eq!(settle.take_due(ms(21), |_| true).unwrap().0, path("call"));
    // What was found and then seen is seen.
    settle.mark(path("found19"), Hint::Written, seen(2), ms(22));
    assert_eq!(settle.take_due(ms(22), |_| true).unwrap().0, path("found19"));
    assert_eq!(all(&mut settle, 22).len(), 18);
}

#[test]
fn a_call_does_not_wait_for_what_came_along_with_a_directory() {
    let mut settle = Settle::default();
    for name in 0..20 {
        let noticed = Noticed::Along(ms(0));
        settle.mark(path(&format!("old{name:02}")), Hint::Written, noticed, ms(20));
    }
    settle.mark(path("call"), Hint::Written, seen(1), ms(21));
    assert_eq!(all(&mut settle, 21).first(), Some(&path("call")));
}

#[test]
fn what_a_scan_found_has_its_turns_in_a_storm_of_events() {
    let mut settle = Settle::default();
    settle.find(path("found"), Hint::Written, ms(0));
    for name in 0..20 {
        settle.mark(path(&format!("call{name:02}")), Hint::Written, seen(1), ms(21));
    }
    let before = all(&mut settle, 21).iter().position(|one| *one == path("found"));
    assert_eq!(before, Some(7));
}

#[test]
fn an_event_makes_a_path_that_was_put_back_due_sooner() {
    let mut settle = Settle::default();
    let dirt = Dirt { hint: Hint::Written, noticed: seen(0), heard: true, busy: 3 };
    settle.put_back(path("a"), dirt, ms(60_000));
    settle.mark(path("a"), Hint::Attributes, seen(100), ms(120));
    let (_, dirt) = settle.take_due(ms(120), |_| true).unwrap();
    assert_eq!(dirt, Dirt { hint: Hint::Written, noticed: seen(100), heard: true, busy: 0 });
}

#[test]
fn a_scan_finds_a_dirty_path_as_it_is() {
    let mut settle = Settle::default();
    let dirt = Dirt { hint: Hint::Attributes, noticed: seen(0), heard: true, busy: 3 };
    settle.put_back(path("a"), dirt, ms(60_000));
    settle.find(path("a"), Hint::Written, ms(0));
    settle.find(path("b"), Hint::Written, ms(0));
    assert_eq!(all(&mut settle, 59_999), [path("b")]);
    let (_, dirt) = settle.take_due(ms(60_000), |_| true).unwrap();
    assert_eq!(dirt, Dirt { hint: Hint::Written, noticed: seen(0), heard: true, busy: 3 });
}

#[test]
fn what_is_put_back_yields_to_an_event_since() {
    let mut settle = Settle::default();
    settle.mark(path("a"), Hint::Created, seen(5), ms(25));
    let dirt = Dirt { hint: Hint::Written, noticed: seen(0), heard: true, busy: 1 };
    settle.put_back(path("a"), dirt, ms(2_000));
    let (_, dirt) = settle.take_due(ms(25), |_| true).unwrap();
    assert_eq!((dirt.hint, dirt.busy), (Hint::Created, 0));
}

/// A look that showed nothing may have been the only one to read the bytes.
#[test]
fn what_is_put_back_has_an_event_since_look_as_closely() {
    let mut settle = Settle::default();
    let dirt = Dirt { hint: Hint::Written, noticed: seen(0), heard: true, busy: 1 };
    settle.mark(path("a"), Hint::Attributes, seen(5), ms(25));
    settle.find(path("b"), Hint::Attributes, ms(25));
    settle.put_back(path("a"), dirt, ms(2_000));
    settle.put_back(path("b"), dirt, ms(2_000));
    let mut next = || settle.take_due(ms(25), |_| true).unwrap();
    let expected = |at| Dirt { hint: Hint::Written, noticed: seen(at), heard: true, busy: 0 };
    assert_eq!([next(), next()], [(path("a"), expected(5)), (path("b"), expected(0))]);
}

/// The hint that counts after two, for every pair.
#[test]
fn of_two_hints_the_one_counts_that_cannot_miss_a_change() {
    use Hint::{Attributes, Created, Deleted, MovedAway, Written};
    let all = [Attributes, Created, Written, Deleted, MovedAway];
    let expected = |old: Hint, new: Hint| match (old, new) {
        (_, Written) => Written,
        (_, Created) => Created,
        (_, Deleted) => Deleted,
        (_, MovedAway) => MovedAway,
        (Attributes, Attributes) => Attributes,
        (Created, Attributes) => Created,
        (Written | Deleted | MovedAway, Attributes) => Written,
    };
    for old in all {
        for new in all {
            let mut settle = Settle::default();
            settle.mark(path("a"), old, seen(0), ms(1));
            settle.mark(path("a"), new, seen(0), ms(1));
            let (_, dirt) = settle.take_due(ms(1), |_| true).unwrap();
            assert_eq!(dirt.hint, expected(old, new), "{old:?} then {new:?}");
        }
    }
}

#[test]
fn the_watchers_time_outlives_a_scans_word() {
    for (first, second, expected) in [
        (seen(5), Noticed::Scan, seen(5)),
        (Noticed::Scan, seen(5), seen(5)),
        (seen(5), seen(7), seen(7)),
        (Noticed::Scan, Noticed::Scan, Noticed::Scan),
    ] {
        let mut settle = Settle::default();
        settle.mark(path("a"), Hint::Written, first, ms(1));
        settle.mark(path("a"), Hint::Written, second, ms(1));
        let (_, dirt) = settle.take_due(ms(1), |_| true).unwrap();
        assert_eq!(dirt.noticed, expected, "{first:?} then {second:?}");
    }
}

#[derive(Debug, Clone)]
enum Move {
    Mark(u8, u64),
    Find(u8, u64),
    PutBack(u8, u64),
    Take(u64),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        3 => (0..6_u8, 0..50_u64).prop_map(|(name, wait)| Move::Mark(name, wait)),
        1 => (0..6_u8, 0..50_u64).prop_map(|(name, wait)| Move::Find(name, wait)),
        1 => (0..6_u8, 0..50_u64).prop_map(|(name, wait)| Move::PutBack(name, wait)),
        3 => (0..30_u64).prop_map(Move::Take),
    ]
}

proptest! {
    #[test]
    fn it_does_what_a_list_does(moves in prop::collection::vec(moves(), 1..100)) {
        let mut settle = Settle::default();
        // Name, when it is due and whether a scan found it.
        let mut model: Vec<(SharePath, Duration, bool)> = Vec::new();
        let (mut now, mut turn) = (0, 0);
        let name = |name: u8| path(&format!("{name}"));
        for one in moves {
            match one {
                Move::Mark(of, wait) => {
                    settle.mark(name(of), Hint::Written, seen(now), ms(now + wait));
                    model.retain(|(path, ..)| *path != name(of));
                    model.push((name(of), ms(now + wait), false));
                }
                Move::Find(of, wait) => {
                    settle.find(name(of), Hint::Written, ms(now + wait));
                    if !model.iter().any(|(path, ..)| *path == name(of)) {
                        model.push((name(of), ms(now + wait), true));
                    }
                }
                Move::PutBack(of, wait) => {
                    let dirt = Dirt { hint: Hint::Written, noticed: seen(now), heard: true, busy: 1 };
                    settle.put_back(name(of), dirt, ms(now + wait));
                    match model.iter_mut().find(|(path, ..)| *path == name(of)) {
                        Some((.., found)) => *found = false,
                        None => model.push((name(of), ms(now + wait), false)),
                    }
                }
                Move::Take(time) => {
                    now += time;
                    // Even names are not ready.
                    let ready = |path: &SharePath| path.name()[0] % 2 == 1;
                    model.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
                    let first = |scan: bool| {
                        model.iter().position(|(path, due, found)| {
                            ready(path) && *due <= ms(now) && *found == scan
                        })
                    };
                    let at = match (first(false), first(true)) {
                        (Some(seen), Some(found)) => {
                            turn += 1;
                            Some(if turn % 8 == 0 { found } else { seen })
                        }
                        (seen, found) => seen.or(found),
                    };
                    let expected = at.map(|at| model.remove(at).0);
                    let taken = settle.take_due(ms(now), ready).map(|(path, _)| path);
                    prop_assert_eq!(taken, expected);
                }
            }
            prop_assert_eq!(settle.len(), model.len());
            prop_assert_eq!(settle.next_due(|_| true), model.iter().map(|(_, due, _)| *due).min());
            for of in 0..6 {
                prop_assert_eq!(settle.contains(&name(of)), model.iter().any(|(p, ..)| *p == name(of)));
            }
        }
    }
}
