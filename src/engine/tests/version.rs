//! The laws of the algebra of records, over records that histories can make.

use std::collections::BTreeSet;

use proptest::prelude::*;
use recsync_proto::{Content, Dot, Epoch, Lack, Record, Register, Seq, Stamp, Value};

use super::harness::{file, node};
use crate::engine::version::{
    Winner, delete, drop_content, give_up, holds, loser, merge, winner, write,
};

/// What happens to one path at a few nodes.
#[derive(Debug, Clone)]
enum Act {
    /// A node's user writes a content over the one that is seen there.
    Write { at: usize, content: u8, ms: u64 },
    /// A node's user deletes what is seen there.
    Delete { at: usize },
    /// A node's user changes the mtime of what is seen there.
    Touch { at: usize, mtime_ns: i64, ms: u64 },
    /// A node's user changes the mode.
    Mode { at: usize, mode: u32, ms: u64 },
    /// A node finds that it has not got the bytes of what is to be seen there.
    Lack { at: usize },
    /// A node gives up what is to be seen there.
    GiveUp { at: usize },
    /// One node learns all that another one knows.
    Tell { from: usize, to: usize },
}

const NODES: usize = 3;
const NAMES: [&str; NODES] = ["fs1", "fs2", "fs3"];

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let at = 0..NODES;
    let ms = 0_u64..20;
    let act = prop_oneof![
        4 => (at.clone(), 0_u8..7, ms.clone()).prop_map(|(at, content, ms)| Act::Write { at, content, ms }),
        2 => at.clone().prop_map(|at| Act::Delete { at }),
        1 => (at.clone(), 0_i64..5, ms.clone())
            .prop_map(|(at, mtime_ns, ms)| Act::Touch { at, mtime_ns, ms }),
        1 => (at.clone(), 0_u32..3, ms).prop_map(|(at, mode, ms)| Act::Mode { at, mode, ms }),
        1 => at.clone().prop_map(|at| Act::Lack { at }),
        1 => at.clone().prop_map(|at| Act::GiveUp { at }),
        3 => (at.clone(), at).prop_map(|(from, to)| Act::Tell { from, to }),
    ];
    prop::collection::vec(act, 0..30)
}

fn content(tag: u8) -> Content {
    match tag {
        0 => Content::Dir,
        1 | 2 => Content::Symlink { target: vec![b'a' + tag] },
        _ => file(&[tag]),
    }
}

fn stamp(at: usize, ms: u64) -> Stamp {
    Stamp { hlc: ms << 16, node: node(NAMES[at]) }
}

fn seen(record: &Record) -> Option<Content> {
    winner(record, false).map(|winner| winner.content)
}

/// Plays a history and returns what each node knows in the end.
fn play(acts: &[Act]) -> Vec<Record> {
    let mut records = vec![Record::default(); NODES];
    for (seq, act) in (1..).zip(acts) {
        let dot = |at: usize| Dot { epoch: Epoch(at as u64), seq: Seq(seq) };
        match *act {
            Act::Write { at, content: tag, ms } => {
                let over = seen(&records[at]);
                if over == Some(content(tag)) {
                    continue;
                }
                let stamp = stamp(at, ms);
                let mtime_ns = Register { value: 0, stamp: stamp.clone() };
                let value = Value {
                    dot: dot(at),
                    stamp,
                    content: content(tag),
                    mtime_ns,
                    lacks: BTreeSet::new(),
                };
                write(&mut records[at], over.as_ref(), value);
            }
            Act::Delete { at } => {
                if let Some(over) = seen(&records[at]) {
                    delete(&mut records[at], &over, dot(at));
                }
            }
            Act::Touch { at, mtime_ns: value, ms } => {
                let touched = seen(&records[at]);
                let register = Register { value, stamp: stamp(at, ms) };
                for value in &mut records[at].values {
                    if Some(&value.content) == touched.as_ref() {
                        value.mtime_ns.join(&register);
                    }
                }
            }
            Act::Mode { at, mode: value, ms } => {
                let mut register = Register { value, stamp: stamp(at, ms) };
                if let Some(old) = &records[at].mode {
                    register.join(old);
                }
                records[at].mode = Some(register);
            }
            Act::Lack { at } => {
                let lack = Lack { node: node(NAMES[at]), peer: node(NAMES[(at + 1) % NODES]) };
                let wanted = seen(&records[at]);
                for value in &mut records[at].values {
                    if Some(&value.content) == wanted.as_ref() {
                        value.join_lacks(&[lack.clone()].into());
                    }
                }
            }
            Act::GiveUp { at } => {
                let wanted = seen(&records[at]);
                let of_it = |value: &&Value| Some(&value.content) == wanted.as_ref();
                if let Some(dot) = records[at].values.iter().find(of_it).map(|value| value.dot) {
                    give_up(&mut records[at], dot);
                }
            }
            Act::Tell { from, to } => records[to] = merge(&records[to], &records[from]),
        }
    }
    records
}

/// True if all that one knows the other knows too.
fn covers(more: &Record, less: &Record) -> bool {
    let values_known = less.values.iter().all(|value| {
        let kept = more.values.iter().find(|kept| kept.dot == value.dot);
        kept.is_none_or(|kept| {
            (&kept.mtime_ns.stamp, kept.mtime_ns.value)
                >= (&value.mtime_ns.stamp, value.mtime_ns.value)
                && kept.lacks.is_superset(&value.lacks)
        })
    });
    // What the other superseded does not come back.
    let gone_stays = more.values.iter().all(|value| {
        !less.context.contains(value.dot) || less.values.iter().any(|v| v.dot == value.dot)
    });
    let mode = match (&more.mode, &less.mode) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(more), Some(less)) => (&more.stamp, more.value) >= (&less.stamp, less.value),
    };
    let lost = more.lost.is_superset(&less.lost);
    more.context.covers(&less.context) && lost && values_known && gone_stays && mode
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn merging_is_commutative(acts in acts()) {
        let known = play(&acts);
        prop_assert_eq!(merge(&known[0], &known[1]), merge(&known[1], &known[0]));
    }

    #[test]
    fn merging_is_associative(acts in acts()) {
        let known = play(&acts);
        let left = merge(&merge(&known[0], &known[1]), &known[2]);
        let right = merge(&known[0], &merge(&known[1], &known[2]));
        prop_assert_eq!(left, right);
    }

    #[test]
    fn merging_is_idempotent(acts in acts()) {
        let known = play(&acts);
        prop_assert_eq!(merge(&known[0], &known[0]), known[0].clone());
        let merged = merge(&known[0], &known[1]);
        prop_assert_eq!(merge(&merged, &known[1]), merged.clone());
        prop_assert_eq!(merge(&merged, &known[0]), merged);
    }

    #[test]
    fn merging_forgets_nothing_and_brings_nothing_back(acts in acts()) {
        let known = play(&acts);
        let merged = merge(&known[0], &known[1]);
        prop_assert!(covers(&merged, &known[0]), "{:?}", merged);
        prop_assert!(covers(&merged, &known[1]), "{:?}", merged);
    }

    #[test]
    fn every_record_of_every_history_is_sound(acts in acts()) {
        for record in play(&acts) {
            prop_assert!(record.is_sound(), "{:?}", record);
            prop_assert!(merge(&record, &Record::default()) == record);
        }
    }

    #[test]
    fn a_write_takes_the_place_of_what_its_author_saw_and_of_nothing_else(
        acts in acts(),
        tag in 0_u8..7,
    ) {
        let mut record = merge(&play(&acts)[0], &play(&acts)[1]);
        let before = record.clone();
        let over = seen(&record);
        let dot = Dot { epoch: Epoch(9), seq: Seq(1) };
        let stamp = stamp(0, 99);
        let mtime_ns = Register { value: 0, stamp: stamp.clone() };
        write(&mut record, over.as_ref(), Value { dot, stamp, content: content(tag), mtime_ns, lacks: BTreeSet::new() });
        prop_assert!(record.is_sound());
        prop_assert!(record.context.contains(dot));
        prop_assert!(covers(&record, &before));
        for value in &before.values {
            let kept = record.values.contains(value);
            prop_assert_eq!(kept, Some(&value.content) != over.as_ref(), "{:?}", value);
        }
        prop_assert_eq!(record.values.iter().filter(|value| value.dot == dot).count(), 1);
    }

    #[test]
    fn a_delete_takes_what_its_author_saw_and_nothing_else(acts in acts()) {
        let mut record = merge(&play(&acts)[0], &play(&acts)[1]);
        let before = record.clone();
        let Some(over) = seen(&record) else { return Ok(()) };
        let dot = Dot { epoch: Epoch(9), seq: Seq(1) };
        delete(&mut record, &over, dot);
        prop_assert!(record.is_sound());
        prop_assert!(record.context.contains(dot));
        prop_assert!(!holds(&record, &over));
        for value in before.values.iter().filter(|value| value.content != over) {
            prop_assert!(record.values.contains(value));
        }
        // Whoever merges the delete loses what it covered, and keeps what its author did not see.
        let elsewhere = merge(&before, &record);
        prop_assert_eq!(elsewhere, record);
    }

    #[test]
    fn a_write_that_a_delete_did_not_see_lives(acts in acts(), tag in 0_u8..7) {
        let base = play(&acts)[0].clone();
        let Some(over) = seen(&base) else { return Ok(()) };
        prop_assume!(over != content(tag));
        let (mut written, mut deleted) = (base.clone(), base);
        let dot = Dot { epoch: Epoch(8), seq: Seq(1) };
        let stamp = stamp(1, 99);
        let mtime_ns = Register { value: 0, stamp: stamp.clone() };
        write(&mut written, Some(&over), Value { dot, stamp, content: content(tag), mtime_ns, lacks: BTreeSet::new() });
        delete(&mut deleted, &over, Dot { epoch: Epoch(9), seq: Seq(1) });
        prop_assert!(holds(&merge(&written, &deleted), &content(tag)));
    }

    #[test]
    fn a_dropped_content_stays_known(acts in acts()) {
        let mut record = merge(&play(&acts)[0], &play(&acts)[1]);
        let before = record.clone();
        let Some(value) = before.values.first() else { return Ok(()) };
        drop_content(&mut record, &value.content);
        prop_assert!(!holds(&record, &value.content));
        prop_assert_eq!(merge(&record, &before), record);
    }

    #[test]
    fn there_is_a_winner_exactly_if_something_lives(acts in acts(), live_below: bool) {
        for record in play(&acts) {
            let winner = winner(&record, live_below);
            prop_assert_eq!(winner.is_some(), live_below || !record.values.is_empty());
            let Some(Winner { content, mtime_ns, mode, .. }) = winner else { continue };
            let told = record.mode.as_ref().map(|mode| mode.value);
            // A directory may be entered by whoever may read it, whatever a file there had.
            let kept = |bits: u32| mode.is_some_and(|mode| mode & bits == bits);
            prop_assert!(told.map_or(mode.is_none(), kept), "no bit that was told is lost");
            let has_dir = holds(&record, &Content::Dir);
            if has_dir || live_below {
                prop_assert_eq!(&content, &Content::Dir);
            }
            prop_assert_eq!(mtime_ns.is_some(), holds(&record, &content));
        }
    }

    #[test]
    fn the_winner_does_not_depend_on_the_order_of_merging(acts in acts(), live_below: bool) {
        let known = play(&acts);
        let mut orders = Vec::new();
        for [a, b, c] in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            orders.push(winner(&merge(&merge(&known[a], &known[b]), &known[c]), live_below));
        }
        orders.dedup();
        prop_assert_eq!(orders.len(), 1);
    }

    #[test]
    fn the_value_that_names_a_copy_does_not_depend_on_the_order_of_merging(acts in acts()) {
        let known = play(&acts);
        let (one, other) = (merge(&known[0], &known[1]), merge(&known[1], &known[0]));
        for value in &one.values {
            prop_assert_eq!(loser(&one, &value.content), loser(&other, &value.content));
            let named = loser(&one, &value.content).unwrap();
            prop_assert!((&named.stamp, named.dot) >= (&value.stamp, value.dot));
        }
    }
}

/// A record of these contents, each written by a node of its own that saw nothing.
fn concurrent(contents: &[(Content, u64)]) -> Record {
    let mut record = Record::default();
    for (number, (content, ms)) in contents.iter().enumerate() {
        let stamp = stamp(number % NODES, *ms);
        let mtime_ns = Register { value: i64::try_from(*ms).unwrap(), stamp: stamp.clone() };
        let dot = Dot { epoch: Epoch(number as u64), seq: Seq(1) };
        let value =
            Value { dot, stamp, content: content.clone(), mtime_ns, lacks: BTreeSet::new() };
        write(&mut record, None, value);
    }
    record
}

#[test]
fn who_keeps_the_name() {
    let (old, new) = (file(b"old"), file(b"new"));
    let link = Content::Symlink { target: b"there".to_vec() };
    let other_link = Content::Symlink { target: b"elsewhere".to_vec() };
    for (name, contents, live_below, expected) in [
        ("nothing", vec![], false, None),
        ("a directory that is implied", vec![], true, Some(Content::Dir)),
        ("the only file", vec![(old.clone(), 1)], false, Some(old.clone())),
        ("the later file", vec![(old.clone(), 2), (new.clone(), 3)], false, Some(new.clone())),
        (
            "the later file, told first",
            vec![(new.clone(), 3), (old.clone(), 2)],
            false,
            Some(new.clone()),
        ),
        (
            "of one instant, the greater node's",
            vec![(old.clone(), 1), (new.clone(), 1)],
            false,
            Some(new),
        ),
        (
            "a file before a later link",
            vec![(old.clone(), 1), (link.clone(), 9)],
            false,
            Some(old.clone()),
        ),
        (
            "the later link",
            vec![(link.clone(), 1), (other_link.clone(), 2)],
            false,
            Some(other_link),
        ),
        (
            "a directory before later others",
            vec![(Content::Dir, 1), (old.clone(), 9), (link, 9)],
            false,
            Some(Content::Dir),
        ),
        ("an implied directory before a file", vec![(old, 9)], true, Some(Content::Dir)),
    ] {
        let found = winner(&concurrent(&contents), live_below).map(|winner| winner.content);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn equal_contents_are_one_file_with_the_latest_mtime() {
    let record = concurrent(&[(file(b"same"), 5), (file(b"same"), 7), (file(b"same"), 6)]);
    assert_eq!(record.values.len(), 3, "merging collapses nothing");
    let found = winner(&record, false).unwrap();
    assert_eq!((found.content, found.mtime_ns), (file(b"same"), Some(7)));
}

#[test]
fn an_implied_directory_takes_the_mode_that_was_told_and_can_be_entered() {
    let mut record = concurrent(&[(file(b"lost"), 5)]);
    record.mode = Some(Register { value: 0o600, stamp: stamp(0, 5) });
    let implied = Winner { content: Content::Dir, mtime_ns: None, mode: Some(0o700), owner: None };
    assert_eq!(winner(&record, true), Some(implied));
}
