//! Three nodes and more: what is forgotten stays forgotten, and contents pass through.

use std::time::Duration;

use recsync_proto::message::{Lane, ShareMessage};

use super::harness::{Dice, What, World, path};
use crate::engine::{Hint, Input, Noticed};
use crate::index::IndexRead as _;

const SECOND: Duration = Duration::from_secs(1);

/// Nodes of which each knows the peers named by number, linked, empty and quiet.
fn linked(names: &[&str], links: &[(usize, usize)]) -> World {
    let mut world = World::new(names);
    for of in 0..names.len() {
        let peers: Vec<_> = (0..names.len())
            .filter(|&to| links.contains(&(of, to)) || links.contains(&(to, of)))
            .map(|to| world.nodes[to].name.clone())
            .collect();
        world.configure(of, |settings| settings.peers = peers);
        world.scan(of);
    }
    for &(one, other) in links {
        world.link(one, other);
    }
    world.settle();
    world.forget();
    world
}

const MESH: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];
const LINE: [(usize, usize); 2] = [(0, 1), (1, 2)];

fn heads(world: &World) -> Vec<recsync_proto::Seq> {
    world.nodes.iter().map(|node| node.index.head().unwrap()).collect()
}

/// Checks that all is well, that nobody remembers anything of these paths, and that nobody says
/// anything more.
fn check_forgotten(world: &mut World, paths: &[&str]) {
    world.run_for(30 * SECOND);
    world.check_quiet();
    for node in &world.nodes {
        for text in paths {
            assert_eq!(node.index.entry(&path(text)), Ok(None), "{text} at {}", node.name);
        }
    }
    let before = heads(world);
    world.forget();
    world.run_for(600 * SECOND);
    assert_eq!(heads(world), before, "they teach one another what they forgot");
    assert!(world.nodes.iter().all(|node| node.announced().is_empty()));
}

#[test]
fn tombstones_go_once_all_peers_have_acknowledged_them() {
    for links in [&MESH[..], &LINE] {
        let mut world = linked(&["fs1", "fs2", "fs3"], links);
        for of in 0..3 {
            world.write(of, &format!("d/{of}"), "a call");
        }
        world.settle();
        world.check_quiet();
        world.remove(0, "d/0");
        world.remove(2, "d/1");
        world.settle();
        check_forgotten(&mut world, &["d/0", "d/1"]);
        world.remove(1, "d");
        check_forgotten(&mut world, &["d", "d/2"]);
    }
}

#[test]
fn tombstones_wait_for_each_peer_and_go_when_the_last_is_back() {
    let mut world = linked(&["fs1", "fs2", "fs3"], &MESH);
    world.write(0, "a", "a call");
    world.settle();
    world.cut(0, 2);
    world.cut(1, 2);
    world.remove(1, "a");
    world.run_for(3_600 * SECOND);
    for of in [0, 1] {
        assert!(!world.nodes[of].entry("a").record.context.is_empty(), "fs3 has not heard of it");
    }
    world.check_file(2, "a", "a call");
    // Only one link comes back: fs3 hears of it there, and the other one still waits.
    world.link(0, 2);
    world.run_for(60 * SECOND);
    world.check_absent(2, "a");
    assert!(!world.nodes[1].entry("a").record.context.is_empty(), "fs3 has not told it");
    world.link(1, 2);
    check_forgotten(&mut world, &["a"]);
}

#[test]
fn a_delete_is_not_acknowledged_while_the_file_is_on_its_way() {
    let mut world = linked(&["fs1", "fs2", "fs3"], &MESH);
    world.write(0, "a", "a call");
    world.settle();
    // fs3 has a newer state of the file from fs1, and tells fs2 of it on the bulk lane, which is
    // held up. Meanwhile fs2 has it from fs1 as well, and deletes it.
    world.cut(0, 1);
    world.cut(1, 2);
    world.write(0, "a", "longer");
    world.settle();
    world.hold_up(2, 1, Lane::Bulk);
    world.link(1, 2);
    world.settle();
    let on_its_way = |world: &World| {
        let announces = |message: &&ShareMessage| matches!(message, ShareMessage::Announce(_));
        world.on_wire(2, 1).into_iter().any(|message| announces(&message))
    };
    assert!(on_its_way(&world));
    world.link(0, 1);
    world.settle();
    world.check_file(1, "a", "longer");
    world.remove(1, "a");
    world.run_for(100 * SECOND);
    assert!(on_its_way(&world));
    assert!(world.nodes[2].entry("a").record.is_tombstone(), "fs3 has heard");
    world.check_absent(2, "a");
    // It could forget it, and then hear of the file.
    assert!(!world.nodes[1].entry("a").record.context.is_empty(), "fs2 has no word that fs3 has");
    world.let_go();
    check_forgotten(&mut world, &["a"]);
    world.check_absent(1, "a");
}

#[test]
fn a_peer_that_forgot_a_delete_is_told_again() {
    let mut world = linked(&["fs1", "fs2", "fs3"], &MESH);
    world.write(0, "a", "a call");
    world.settle();
    world.cut(0, 2);
    world.cut(1, 2);
    world.remove(0, "a");
    world.settle();
    // fs2 forgets it, as it may not; and fs3, which has not heard, brings the file back to it.
    world.restart_with(1, |mut index| {
        use crate::index::{Entry, Index as _, Write};
        index.write(&Write::Entry(path("a"), Entry::default())).unwrap();
        index.commit().unwrap();
        index
    });
    world.settle();
    world.write(2, "b", "b");
    world.touch(2, "a", 1);
    world.link(1, 2);
    world.settle();
    check_forgotten(&mut world, &[]);
    world.link(0, 2);
    check_forgotten(&mut world, &["a"]);
    for of in 0..3 {
        world.check_absent(of, "a");
    }
}

#[test]
fn contents_and_deletes_pass_along_a_line() {
    let mut world = linked(&["fs1", "fs2", "fs3", "fs4"], &[(0, 1), (1, 2), (2, 3)]);
    let long = "x".repeat(300_000);
    world.write(0, "short", "short");
    world.write(0, "d/long", &long);
    world.write(3, "back", "from the other end");
    world.settle();
    world.check_quiet();
    world.check_file(3, "d/long", &long);
    world.check_file(0, "back", "from the other end");
    world.rename(0, "d/long", "d/renamed");
    world.remove(3, "short");
    world.settle();
    check_forgotten(&mut world, &["short", "d/long"]);
    world.check_file(3, "d/renamed", &long);
    // An end that is away delays only its neighbour's forgetting.
    world.cut(2, 3);
    world.remove(0, "back");
    world.run_for(100 * SECOND);
    assert_eq!(world.nodes[0].index.entry(&path("back")), Ok(None));
    assert!(!world.nodes[2].entry("back").record.context.is_empty());
    world.link(2, 3);
    check_forgotten(&mut world, &["back"]);
}

#[test]
fn an_implied_directory_has_the_mode_that_others_remember() {
    let mut world = linked(&["fs1", "fs2", "fs3"], &MESH);
    world.mkdir(0, "d");
    world.chmod(0, "d", 0o2775);
    world.settle();
    // fs2 puts something into it while fs1 removes it: it stays where the file is, and elsewhere
    // its delete is forgotten before the file comes.
    world.cut(1, 0);
    world.cut(1, 2);
    world.write(1, "d/a", "a call");
    world.remove(0, "d");
    world.settle();
    for of in [0, 2] {
        world.restart_with(of, |mut index| {
            use crate::index::{Entry, Index as _, Write};
            index.write(&Write::Entry(path("d"), Entry::default())).unwrap();
            index.commit().unwrap();
            index
        });
    }
    world.link(1, 0);
    world.link(1, 2);
    world.settle();
    world.check_quiet();
    for node in &world.nodes {
        assert_eq!(node.disk.objects[&path("d")].mode, 0o2775, "{}", node.name);
    }
}

/// Whatever the order of events: nothing comes back, nothing is lost, nothing is remembered.
#[test]
fn histories_of_three_and_four_nodes_end_equal() {
    let square = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3)];
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let (names, links): (&[&str], &[(usize, usize)]) = match dice.roll(4) {
            0 => (&["fs1", "fs2", "fs3"], &LINE),
            1 => (&["fs1", "fs2", "fs3", "fs4"], &square),
            _ => (&["fs1", "fs2", "fs3"], &MESH),
        };
        let mut world = linked(names, links);
        world.dice = Some(Dice(seed));
        let mut last = 0;
        for event in 0..40 {
            let (of, name) =
                (dice.roll(names.len()), format!("d{}/{}", dice.roll(2), dice.roll(3)));
            match dice.roll(12) {
                0..4 => world.write(of, &name, &format!("{seed} {event}")),
                4..7 => world.remove(of, &name),
                7 => world.remove(of, "d0"),
                8 if world.nodes[of].disk.objects.contains_key(&path(&name)) => {
                    world.rename(of, &name, &format!("d1/renamed-{event}"));
                }
                9 => world.restart_share(of),
                10 => world.restart(of),
                _ => {
                    let (one, other) = links[dice.roll(links.len())];
                    if world.is_linked(one, other) {
                        world.cut(one, other);
                    } else {
                        world.link(one, other);
                    }
                }
            }
            last = event;
            if dice.roll(6) == 0 {
                world.run_for(11 * SECOND);
            }
            for _ in 0..dice.roll(60) {
                world.act();
            }
        }
        for &(one, other) in links {
            world.link(one, other);
        }
        world.write(0, "last", &format!("{seed} {last}"));
        world.run_for(300 * SECOND);
        world.dice = None;
        check_forgotten(&mut world, &[]);
        for node in &world.nodes {
            let dead = node
                .entries()
                .into_iter()
                .filter(|(_, entry)| entry.record.is_tombstone() && entry.installed.is_none());
            assert_eq!(dead.collect::<Vec<_>>(), [], "seed {seed}: {}", node.name);
        }
        assert!(world.nodes[0].disk.objects.values().any(|object| object.what != What::Dir));
    }
}

#[test]
fn a_call_is_passed_on_before_a_backlog() {
    let mut world = linked(&["fs1", "fs2", "fs3"], &LINE);
    world.write(0, "call", "a call");
    for backlog in 0..3 {
        let input = Input::Dirty {
            path: path(&format!("old{backlog}")),
            hint: Hint::Written,
            noticed: Noticed::Scan,
        };
        world.make_unheard(0, &format!("old{backlog}"), "an old call");
        world.nodes[0].inbox.push_back(input);
    }
    world.settle();
    world.check_quiet();
    let announced = world.nodes[1].announced();
    let live = announced.iter().filter(|announce| announce.lane == Lane::Live);
    assert_eq!(live.map(|announce| announce.path.clone()).collect::<Vec<_>>(), [path("call")]);
    assert_eq!(announced.len(), 4);
}
