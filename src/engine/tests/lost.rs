//! Versions whose bytes are nowhere: who gives them up and when, and that it costs nobody a byte.

use std::collections::BTreeSet;
use std::time::Duration;

use recsync_proto::{Dot, Epoch, Record, Register, Seq, Stamp, Value};

use super::harness::{START_NS, What, World, file, node, path};
use crate::engine::{Effect, Event, Input, version};
use crate::index::{Index as _, IndexRead as _, Write};

const HOUR: Duration = Duration::from_secs(3_600);

/// Nodes that know the peers named by number, linked and quiet, and one more that is alone and has
/// a file `a` with these bytes.
fn with_stranger(count: usize, links: &[(usize, usize)], bytes: &str) -> World {
    let mut world = World::new(&["fs1", "fs2", "fs3", "fs4"][..=count]);
    for of in 0..=count {
        let knows = |to: usize| links.contains(&(of, to)) || links.contains(&(to, of));
        let peers = (0..count).filter(|&to| knows(to));
        let peers: Vec<_> = peers.map(|to| world.nodes[to].name.clone()).collect();
        world.configure(of, |settings| settings.peers = peers);
        world.scan(of);
    }
    for &(one, other) in links {
        world.link(one, other);
    }
    world.write(count, "a", bytes);
    world.settle();
    world.forget();
    world
}

/// Has a node know of versions of `a` whose bytes it never had.
fn tell(world: &mut World, of: usize, record: &Record) {
    world.restart_with(of, |mut index| {
        let mut entry = index.entry(&path("a")).unwrap().unwrap_or_default();
        entry.record = version::merge(&entry.record, record);
        (entry.seq, entry.via, entry.pending) = (index.head().unwrap().next(), None, true);
        index.write(&Write::Entry(path("a"), entry)).unwrap();
        index.commit().unwrap();
        index
    });
}

/// The version that the lone node has is on record at the others, who cannot ask it.
fn tell_of_stranger(world: &mut World, of: usize) -> Dot {
    let record = world.nodes.last().unwrap().entry("a").record;
    tell(world, of, &record);
    record.values[0].dot
}

/// Makes the first node of two and the lone one peers of each other.
fn meet_stranger(world: &mut World) {
    for (of, peers) in [(0, &[1, 2][..]), (2, &[0])] {
        let peers: Vec<_> = peers.iter().map(|&to| world.nodes[to].name.clone()).collect();
        world.configure(of, |settings| settings.peers = peers);
    }
    world.link(0, 2);
}

fn given_up(world: &World, of: usize) -> usize {
    world.nodes[of].events().filter(|event| matches!(event, Event::GivenUp { .. })).count()
}

/// How many nodes are on the list of the only version of `a`, as a node knows it.
fn listed(world: &World, of: usize) -> usize {
    let record = world.nodes[of].entry("a").record;
    let lacks = &record.values[0].lacks;
    lacks.iter().map(|lack| &lack.node).collect::<BTreeSet<_>>().len()
}

/// Goes on until the first node has such a job, for two hours at most, and returns its number.
fn wait_for(world: &mut World, is_it: impl Fn(&Effect) -> bool) -> usize {
    let until = world.now + 2 * HOUR;
    loop {
        if let Some(number) = world.nodes[0].jobs.iter().position(&is_it) {
            return number;
        }
        assert!(world.step(until), "there was no such job");
    }
}

/// Checks that the nodes but the lone one are at rest and equal.
fn check_quiet(world: &World) {
    let nodes = world.nodes.len() - 1;
    for of in 0..nodes {
        assert_eq!(world.nodes[of].tree(), world.nodes[0].tree());
        world.check_at_rest(of);
        world.check_index(of);
    }
}

#[test]
fn a_version_that_no_node_has_is_given_up() {
    let mut world = with_stranger(2, &[(0, 1)], "a call");
    tell_of_stranger(&mut world, 0);
    world.run_for(HOUR);
    for of in [0, 1] {
        assert_eq!(given_up(&world, of), 1);
        assert!(world.nodes[of].fetches() <= 10, "{} fetches", world.nodes[of].fetches());
        assert_eq!(world.nodes[of].index.entry(&path("a")), Ok(None), "and forgotten by all");
    }
    check_quiet(&world);
    world.forget();
    world.run_for(HOUR);
    assert!(world.nodes.iter().all(|node| node.announced().is_empty()));
}

#[test]
fn in_a_line_the_last_one_is_asked_too() {
    let mut world = with_stranger(3, &[(0, 1), (1, 2)], "a call");
    world.cut(1, 2);
    tell_of_stranger(&mut world, 0);
    world.run_for(10 * HOUR);
    for of in [0, 1] {
        assert!(world.nodes[of].entry("a").pending, "the third may have it");
        assert_eq!(listed(&world, of), 2);
    }
    world.link(1, 2);
    world.run_for(2 * HOUR);
    for of in 0..3 {
        assert_eq!(given_up(&world, of), 1, "{of}");
    }
    check_quiet(&world);
}

#[test]
fn who_may_still_find_it_is_waited_for() {
    let mut world = with_stranger(2, &[(0, 1)], "a call");
    tell_of_stranger(&mut world, 0);
    // The scan of fs2 does not end: a directory cannot be read.
    world.restart(1);
    world.nodes[1].inbox.retain(|input| !matches!(input, Input::Scan(_)));
    world.run_for(10 * HOUR);
    assert!(world.nodes[0].entry("a").pending && world.nodes[1].entry("a").pending);
    assert_eq!((listed(&world, 0), listed(&world, 1)), (1, 1), "fs1 has looked everywhere");
    assert_eq!(given_up(&world, 0) + given_up(&world, 1), 0);
    world.scan(1);
    world.run_for(2 * HOUR);
    assert_eq!((given_up(&world, 0), given_up(&world, 1)), (1, 1));
    check_quiet(&world);
}

/// The scan of the one place that could not be looked at before is enough: a full one comes in a day.
#[test]
fn a_place_that_cannot_be_looked_at_is_waited_for() {
    let mut world = with_stranger(2, &[(0, 1)], "a call");
    tell_of_stranger(&mut world, 0);
    world.nodes[1].disk.unreadable.insert(path("d"));
    world.restart(1);
    world.run_for(10 * HOUR);
    assert_eq!((listed(&world, 0), listed(&world, 1)), (1, 1), "fs1 has looked everywhere");
    assert_eq!(given_up(&world, 0) + given_up(&world, 1), 0);
    world.nodes[1].disk.unreadable.clear();
    world.run_for(3 * HOUR);
    assert_eq!((given_up(&world, 0), given_up(&world, 1)), (1, 1));
    check_quiet(&world);
}

#[test]
fn a_link_that_is_down_says_nothing() {
    let mut world = with_stranger(2, &[(0, 1)], "a call");
    world.cut(0, 1);
    tell_of_stranger(&mut world, 0);
    for _ in 0..12 {
        world.link(0, 1);
        wait_for(&mut world, |job| matches!(job, Effect::Fetch { .. }));
        world.cut(0, 1);
        world.settle();
    }
    world.run_for(10 * HOUR);
    assert!(world.nodes[0].entry("a").pending);
    let lacks = &world.nodes[0].entry("a").record.values[0].lacks;
    assert!(lacks.iter().all(|lack| lack.node != world.nodes[0].name), "fs2 may say so: {lacks:?}");
}

#[test]
fn bytes_that_come_back_are_a_version_of_their_own() {
    let mut world = with_stranger(2, &[(0, 1)], "a call");
    let lost = tell_of_stranger(&mut world, 0);
    // An older one that was written meanwhile stays, and so does the memory of what was given up.
    world.cut(0, 1);
    world.nodes[1].skew_ns = -1_000_000_000_000;
    world.write(1, "a", "older");
    world.settle();
    world.link(0, 1);
    world.run_for(HOUR);
    assert_eq!((given_up(&world, 0), given_up(&world, 1)), (1, 1));
    for of in [0, 1] {
        world.check_file(of, "a", "older");
        assert!(world.nodes[of].entry("a").record.lost.contains(&lost));
    }
    // The node that has it is found.
    meet_stranger(&mut world);
    world.run_for(HOUR);
    world.check_quiet();
    for of in 0..3 {
        world.check_file(of, "a", "a call");
        assert_eq!(world.nodes[of].conflicts(), 1);
        let mut objects = world.nodes[of].disk.objects.values();
        assert!(objects.any(|object| object.what == What::File("older".into())));
        assert!(world.nodes[of].disk.trash.is_empty(), "{:?}", world.nodes[of].disk.trash);
    }
}

#[test]
fn a_node_on_the_list_that_gets_the_bytes_says_so() {
    for restored in [true, false] {
        let mut world = with_stranger(2, &[(0, 1)], "a call");
        let lost = tell_of_stranger(&mut world, 0);
        world.restart(1);
        world.nodes[1].inbox.retain(|input| !matches!(input, Input::Scan(_)));
        world.run_for(HOUR);
        assert_eq!(listed(&world, 0), 1);
        if restored {
            // From a backup, by its user.
            world.write(0, "a", "a call");
        } else {
            // From the node that has it.
            meet_stranger(&mut world);
        }
        world.run_for(2 * HOUR);
        world.scan(1);
        world.run_for(2 * HOUR);
        let nodes = if restored { 2 } else { 3 };
        for of in 0..nodes {
            world.check_file(of, "a", "a call");
            assert_eq!(given_up(&world, of), 0);
            let values = world.nodes[of].entry("a").record.values;
            assert!(values.iter().all(|value| value.dot == lost), "it is no new version");
        }
        check_quiet(&world);
    }
}

#[test]
fn who_has_found_the_bytes_and_is_away_is_waited_for() {
    let mut world = with_stranger(3, &[(0, 1), (1, 2), (0, 2)], "a call");
    tell_of_stranger(&mut world, 0);
    for of in [1, 2] {
        world.restart(of);
        world.nodes[of].inbox.retain(|input| !matches!(input, Input::Scan(_)));
    }
    world.run_for(HOUR);
    assert_eq!(listed(&world, 0), 1);
    world.write(0, "a", "a call");
    world.run_for(Duration::from_secs(1));
    for of in [1, 2] {
        world.check_absent(of, "a");
        world.cut(0, of);
        world.scan(of);
    }
    world.run_for(10 * HOUR);
    assert_eq!((listed(&world, 1), listed(&world, 2)), (3, 3));
    assert_eq!(given_up(&world, 1) + given_up(&world, 2), 0);
    world.link(0, 1);
    world.link(0, 2);
    world.run_for(2 * HOUR);
    for of in 0..3 {
        world.check_file(of, "a", "a call");
    }
    check_quiet(&world);
}

#[test]
fn bytes_that_are_being_put_in_place_while_others_give_them_up_stay() {
    let mut world = with_stranger(2, &[(0, 1)], "a call");
    let lost = tell_of_stranger(&mut world, 0);
    world.restart(1);
    world.nodes[1].inbox.retain(|input| !matches!(input, Input::Scan(_)));
    world.run_for(HOUR);
    assert_eq!(listed(&world, 0), 1);
    // The node that has it is found before anyone says again that it is gone; and the disk is slow.
    world.cut(0, 1);
    meet_stranger(&mut world);
    let number = wait_for(&mut world, |job| matches!(job, Effect::Apply { .. }));
    let put = world.nodes[0].jobs.remove(number);
    world.cut(0, 2);
    world.link(0, 1);
    world.scan(1);
    world.run_for(2 * HOUR);
    assert_eq!(given_up(&world, 1), 1);
    let record = world.nodes[0].entry("a").record;
    assert!(record.lost.contains(&lost) && record.is_tombstone());
    world.nodes[0].jobs.push(put);
    world.run_for(2 * HOUR);
    check_quiet(&world);
    for of in [0, 1] {
        world.check_file(of, "a", "a call");
        assert!(world.nodes[of].disk.trash.is_empty());
    }
}

#[test]
fn an_older_version_that_was_to_make_room_stays() {
    let mut world = with_stranger(2, &[(0, 1)], "of no matter");
    world.write(0, "a", "older");
    world.settle();
    let mut record = world.nodes[0].entry("a").record;
    let stamp = Stamp::at(START_NS / 1_000_000 + 999_999, node("fs9"));
    let value = Value {
        dot: Dot { epoch: Epoch(99), seq: Seq(1) },
        mtime_ns: Register { value: 0, stamp: stamp.clone() },
        stamp,
        content: file(b"newer"),
        lacks: BTreeSet::new(),
    };
    version::write(&mut record, Some(&file(b"older")), value);
    world.forget();
    tell(&mut world, 0, &record);
    world.run_for(2 * HOUR);
    for of in [0, 1] {
        assert_eq!(given_up(&world, of), 1);
        world.check_file(of, "a", "older");
        assert!(world.nodes[of].disk.trash.is_empty());
        let replaced = |op: &&crate::engine::Op| op.displaced.is_some();
        assert_eq!(world.nodes[of].ops().into_iter().find(replaced), None);
    }
    check_quiet(&world);
    // It is a version like any other: a delete is one.
    world.remove(1, "a");
    world.settle();
    world.check_absent(0, "a");
}
