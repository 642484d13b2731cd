//! The mass-delete guard: its limits, its window, and what the operator does.

use std::time::Duration;

use proptest::prelude::*;

use super::harness::{START_NS, path};
use crate::engine::Now;
use crate::engine::guard::{DeleteGuard, MaxDelete, NEVER_BELOW, Verdict, WINDOW};
use crate::index::{Guard, GuardState, Index, IndexRead, Memory};
use recsync_proto::Epoch;

const START: Duration = Duration::from_secs(1_000);

fn guard(percent: Option<u8>, count: Option<u64>) -> DeleteGuard {
    DeleteGuard::new(MaxDelete { percent, count }, GuardState::default())
}

/// Both clocks at a monotonic time.
fn at(mono: Duration) -> Now {
    Now { wall_ns: START_NS + i64::try_from(mono.as_nanos()).unwrap(), mono }
}

/// Judges deletes of different files at one time, out of a share with `files`, until one is not
/// let go. Returns how many were.
fn pass(guard: &mut DeleteGuard, now: Duration, files: u64) -> u64 {
    let mut passed = 0;
    while passed < files {
        let name = path(&format!("{}-{passed}", now.as_millis()));
        if guard.judge(at(now), &name, files - passed) != Verdict::Pass {
            break;
        }
        passed += 1;
    }
    passed
}

#[test]
fn the_smaller_bound_counts() {
    for (percent, count, files, limit) in [
        (Some(50), None, 100, 50),
        (Some(50), None, 101, 50),
        (Some(0), None, 100, 0),
        (Some(100), None, 100, 100),
        (None, Some(7), 100, 7),
        (Some(50), Some(7), 100, 7),
        (Some(5), Some(7), 100, 5),
        (Some(50), None, u64::MAX, u64::MAX / 2),
        (None, None, 100, u64::MAX),
    ] {
        assert_eq!(
            MaxDelete { percent, count }.limit(files),
            limit,
            "{percent:?} {count:?} {files}"
        );
    }
}

#[test]
fn it_reads_as_the_config_file_has_it() {
    let shown = |percent, count| MaxDelete { percent, count }.to_string();
    assert_eq!(shown(Some(50), None), "\"50%\"");
    assert_eq!(shown(None, Some(100_000)), "100000");
    assert_eq!(shown(Some(50), Some(100_000)), "[\"50%\", 100000]");
    assert_eq!(MaxDelete::default().to_string(), "\"50%\"");
}

#[test]
fn half_of_the_files_may_vanish_and_not_one_more() {
    assert_eq!(pass(&mut guard(Some(50), None), START, 1_000), 500);
    assert_eq!(pass(&mut guard(None, Some(100)), START, 1_000), 100);
    assert_eq!(pass(&mut guard(Some(50), Some(30)), START, 1_000), 30);
}

#[test]
fn fewer_than_twenty_never_wait() {
    assert_eq!(pass(&mut guard(Some(0), None), START, 19), 19);
    assert_eq!(pass(&mut guard(None, Some(0)), START, 1_000), NEVER_BELOW - 1);
    assert_eq!(pass(&mut guard(Some(1), None), START, 100), NEVER_BELOW - 1);
}

#[test]
fn all_of_a_share_may_go_if_all_is_the_limit() {
    assert_eq!(pass(&mut guard(Some(100), None), START, 1_000), 1_000);
}

#[test]
fn once_tripped_nothing_passes_until_the_operator_decides() {
    let mut guard = guard(None, Some(30));
    assert_eq!(pass(&mut guard, START, 100), 30);
    assert_eq!(guard.held(), Some((1, 100)), "the one that tripped it");
    for later in [Duration::ZERO, WINDOW * 2] {
        assert_eq!(guard.judge(at(START + later), &path("later"), 70), Verdict::Held);
    }
    assert_eq!(guard.held(), Some((2, 100)), "a file counts once");
    guard.release();
    assert_eq!(guard.held(), None);
    assert_eq!(pass(&mut guard, START, 70), 70);
    guard.watch_again_after_decision();
    assert_eq!(pass(&mut guard, START, 100), 30);
}

#[test]
fn the_first_that_must_wait_is_told_with_the_numbers() {
    let mut guard = guard(Some(50), None);
    assert_eq!(pass(&mut guard, START, 100), 50);
    let mut again = self::guard(Some(50), None);
    for gone in 0..50 {
        assert_eq!(again.judge(at(START), &path(&format!("{gone}")), 100 - gone), Verdict::Pass);
    }
    assert_eq!(again.judge(at(START), &path("last"), 50), Verdict::Trips { gone: 51, of: 100 });
}

#[test]
fn deletes_count_together_for_ten_minutes() {
    let mut one = guard(None, Some(30));
    assert_eq!(pass(&mut one, START, 30), 30);
    assert_eq!(
        one.judge(at(START + WINDOW), &path("x"), 100),
        Verdict::Trips { gone: 31, of: 130 }
    );
    let mut other = guard(None, Some(30));
    assert_eq!(pass(&mut other, START, 30), 30);
    let later = START + WINDOW + Duration::from_secs(1);
    assert_eq!(pass(&mut other, later, 100), 30, "counted from nothing");
}

#[test]
fn a_delete_that_could_not_be_made_does_not_count() {
    let mut guard = guard(None, Some(30));
    for attempt in 0..1_000 {
        let now = START + Duration::from_secs(attempt);
        assert_eq!(guard.judge(at(now), &path("in use"), 100), Verdict::Pass);
        guard.take_back();
    }
    assert_eq!(pass(&mut guard, START + Duration::from_secs(1_000), 100), 30);
    guard.take_back();
}

#[test]
fn a_refusal_counts_from_nothing_again() {
    let mut guard = guard(None, Some(30));
    assert_eq!(pass(&mut guard, START, 100), 30);
    guard.watch_again_after_decision();
    assert!(guard.held().is_some(), "nothing was released");
    guard.watch_again();
    assert_eq!(guard.held(), None);
    assert_eq!(pass(&mut guard, START, 100), 30);
}

#[test]
fn a_changed_limit_counts_from_then_on() {
    let mut guard = guard(None, Some(30));
    assert_eq!(pass(&mut guard, START, 30), 30);
    guard.set_limit(MaxDelete { percent: None, count: Some(40) });
    assert_eq!(pass(&mut guard, START, 1_000), 10);
}

/// Starts a guard again from what it had the index remember; the monotonic clock begins anew.
fn restarted(guard: &mut DeleteGuard, limit: MaxDelete, index: &mut Memory) -> DeleteGuard {
    for write in guard.changes(Guard::Local) {
        index.write(&write).unwrap();
    }
    assert_eq!(guard.changes(Guard::Local), []);
    DeleteGuard::new(limit, index.guard(Guard::Local).unwrap())
}

/// The wall clock goes on where it stood after `down`; the monotonic one begins at zero.
fn after(down: Duration) -> Now {
    Now { mono: Duration::from_millis(5), ..at(START + down) }
}

#[test]
fn a_restart_lets_no_more_go() {
    let limit = MaxDelete { percent: None, count: Some(30) };
    for (down, passes) in [
        (Duration::ZERO, 5),
        (Duration::from_secs(500), 5),
        (WINDOW - Duration::from_secs(1), 5),
        (WINDOW + Duration::from_secs(1), 30),
    ] {
        let mut index = Memory::new(Epoch(1));
        let mut guard = guard(None, Some(30));
        for number in 0..25 {
            assert_eq!(guard.judge(at(START), &path(&format!("{number}")), 100), Verdict::Pass);
        }
        let mut guard = restarted(&mut guard, limit, &mut index);
        let passed = (0..100)
            .take_while(|number| {
                let name = path(&format!("later-{number}"));
                guard.judge(after(down), &name, 1_000) == Verdict::Pass
            })
            .count();
        assert_eq!(passed, passes, "{down:?}");
        let guard = restarted(&mut guard, limit, &mut index);
        assert_eq!(guard.tripped().map(|(gone, _)| gone), Some(31), "{down:?}");
        assert_eq!(guard.held().map(|(held, _)| held), Some(0), "until they are looked at again");
    }
}

#[test]
fn a_clock_that_is_set_back_lets_no_more_go() {
    let limit = MaxDelete { percent: None, count: Some(30) };
    let mut index = Memory::new(Epoch(1));
    let mut guard = guard(None, Some(30));
    for second in 0..15 {
        // A minute back with each second.
        let mono = START + Duration::from_secs(second);
        let wall_ns = START_NS - i64::try_from(second).unwrap() * 60_000_000_000;
        assert_eq!(guard.judge(Now { wall_ns, mono }, &path("x"), 100), Verdict::Pass);
    }
    let mut guard = restarted(&mut guard, limit, &mut index);
    let now = Now { wall_ns: START_NS - 86_400_000_000_000, mono: Duration::ZERO };
    for number in 0..15 {
        assert_eq!(guard.judge(now, &path(&format!("{number}")), 100), Verdict::Pass);
    }
    assert_eq!(guard.judge(now, &path("last"), 70), Verdict::Trips { gone: 31, of: 100 });
}

#[test]
fn what_the_operator_decided_survives_a_restart() {
    let limit = MaxDelete { percent: None, count: Some(30) };
    let tripped = || {
        let mut guard = guard(None, Some(30));
        assert_eq!(pass(&mut guard, START, 100), 30);
        guard
    };
    let mut index = Memory::new(Epoch(1));
    let mut confirmed = tripped();
    confirmed.release();
    let mut confirmed = restarted(&mut confirmed, limit, &mut index);
    assert_eq!(pass(&mut confirmed, START, 100), 100);
    confirmed.watch_again_after_decision();
    let mut confirmed = restarted(&mut confirmed, limit, &mut index);
    assert_eq!(pass(&mut confirmed, START, 100), 30, "it counts from nothing again");

    let mut index = Memory::new(Epoch(1));
    let mut rejected = tripped();
    rejected.restore();
    let mut rejected = restarted(&mut rejected, limit, &mut index);
    assert!(rejected.is_restoring() && rejected.held().is_none());
    rejected.watch_again_after_decision();
    let rejected = restarted(&mut rejected, limit, &mut index);
    assert!(!rejected.is_restoring());
    assert_eq!(index.guard(Guard::Local), Ok(GuardState::default()));
}

proptest! {
    /// Against a model that remembers every delete and its second.
    #[test]
    fn it_counts_as_a_list_of_times_does(
        count in 0_u64..60,
        waits in prop::collection::vec(0_u64..90_000, 1..200),
    ) {
        let mut guard = guard(None, Some(count));
        let mut now = START;
        let mut passed: Vec<Duration> = Vec::new();
        let mut tripped = false;
        for (number, wait) in waits.into_iter().enumerate() {
            now += Duration::from_millis(wait);
            passed.retain(|at| *at + WINDOW >= now);
            let gone = passed.len() as u64 + 1;
            tripped |= gone >= NEVER_BELOW && gone > count;
            let verdict = guard.judge(at(now), &path(&format!("{number}")), 10_000);
            prop_assert_eq!(verdict == Verdict::Pass, !tripped, "{} at {:?}", number, now);
            passed.push(Duration::from_secs(now.as_secs()));
        }
    }
}
