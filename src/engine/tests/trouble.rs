//! What goes wrong: paths that cannot be looked at or changed, guards that hold, clocks that jump.
//! Nothing of it may lose data, spin, or keep anything else from moving.

use std::time::Duration;

use super::harness::{Dice, World};
use crate::engine::{Effect, Input, MaxDelete};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// Two linked nodes with `count` files `N.wav` in a directory `d`.
fn with_calls(count: usize) -> World {
    let mut world = World::pair();
    for call in 0..count {
        world.write(0, &format!("d/{call}.wav"), &format!("call {call}"));
    }
    world.settle();
    world.check_quiet();
    world.forget();
    world
}

fn half() -> MaxDelete {
    MaxDelete { percent: Some(50), count: None }
}

fn scans(world: &World, of: usize) -> usize {
    world.nodes[of].log.iter().filter(|effect| matches!(effect, Effect::Scan(_))).count()
}

#[test]
fn a_vanished_directory_that_the_guard_holds_is_looked_at_ever_more_rarely() {
    let mut world = with_calls(30);
    world.limit_deletes(0, half());
    world.vanish(0, "d");
    world.run_for(HOUR);
    assert!(scans(&world, 0) <= 20, "{} scans", scans(&world, 0));
    assert!(world.nodes[0].looks() <= 30 * 20, "{} looks", world.nodes[0].looks());
    assert_eq!(world.nodes[1].disk.objects.len(), 31 - 19, "the 20th waits, and all after it");
}

#[test]
fn many_clashes_of_kinds_are_settled_once_all_is_told() {
    for seed in 0..5 {
        let mut world = World::pair();
        world.cut(0, 1);
        for name in 0..200 {
            world.write(0, &format!("{name}"), "a file");
            world.write(1, &format!("{name}/1"), "in a directory");
        }
        world.settle();
        world.dice = Some(Dice(seed));
        world.link(0, 1);
        world.settle();
        world.check_quiet();
        assert_eq!(world.nodes[1].conflicts(), 200);
    }
}

#[test]
fn a_sweep_that_is_asked_for_during_another_is_made_after_it() {
    let mut world = with_calls(100);
    let peer = world.nodes[0].name.clone();
    // Everything that the peer deletes is held, so that there is enough to walk through.
    world.limit_deletes(1, MaxDelete { percent: None, count: Some(0) });
    world.remove(0, "d");
    world.settle();
    assert_eq!(world.nodes[1].disk.objects.len(), 101 - 19);
    world.turn(1);
    world.input(1, Input::PeerDown(peer));
    world.turn(1);
    assert!(world.nodes[1].engine.wants_pump(), "a sweep is under way");
    world.input(1, Input::Decide { confirm: true });
    world.settle();
    assert_eq!(world.nodes[1].disk.objects.len(), 0, "all of them were let go");
}

#[test]
fn one_file_in_use_that_the_peer_deleted_does_not_trip_the_guard() {
    let mut world = with_calls(30);
    world.limit_deletes(1, half());
    world.open(1, "d/0.wav");
    world.remove(0, "d/0.wav");
    world.run_for(HOUR);
    assert_eq!(world.nodes[1].engine.held(), [None, None]);
    world.close(1, "d/0.wav");
    world.settle();
    world.check_quiet();
    world.check_absent(1, "d/0.wav");
}

#[test]
fn deletes_that_the_guard_holds_here_are_counted_once() {
    let mut world = with_calls(40);
    world.limit_deletes(0, half());
    world.vanish(0, "d");
    world.settle();
    assert_eq!(world.nodes[0].engine.held(), [Some((40 - 20, 40)), None]);
    world.scan(0);
    world.run_for(HOUR);
    assert_eq!(world.nodes[0].engine.held(), [Some((40 - 20, 40)), None]);
}

#[test]
fn deletes_that_the_guard_holds_back_from_a_peer_are_counted_once() {
    let mut world = with_calls(40);
    world.limit_deletes(1, half());
    world.remove(0, "d");
    world.settle();
    assert_eq!(world.nodes[1].engine.held(), [None, Some((40 - 20, 40))]);
    for _ in 0..3 {
        world.cut(0, 1);
        world.settle();
        world.link(0, 1);
        world.settle();
    }
    assert_eq!(world.nodes[1].engine.held(), [None, Some((40 - 20, 40))]);
    assert_eq!(world.nodes[1].disk.objects.len(), 1 + 40 - 20);
}

#[test]
fn a_share_that_starts_after_its_peer_s_hears_of_everything() {
    for (early, late) in [(0, 1), (1, 0)] {
        let mut world = with_calls(3);
        world.cut(0, 1);
        world.write(0, "from-0", "0");
        world.write(1, "from-1", "1");
        world.settle();
        world.link_early(early, late);
        world.settle();
        world.check_quiet();
        world.check_file(1, "from-0", "0");
        world.check_file(0, "from-1", "1");
    }
}

#[test]
fn deletes_under_way_are_not_counted_among_the_files_that_stay() {
    for seed in 0..5 {
        let mut world = with_calls(60);
        world.limit_deletes(0, MaxDelete { percent: Some(100), count: None });
        world.limit_deletes(1, half());
        world.remove(0, "d");
        world.dice = Some(Dice(seed));
        world.settle();
        assert_eq!(world.nodes[1].engine.held(), [None, Some((30, 60))]);
        assert_eq!(world.nodes[1].disk.objects.len(), 1 + 30);
    }
}

#[test]
fn a_deep_directory_that_vanished_is_gone_at_once_level_by_level() {
    let deep = ["d"; 15].join("/");
    let mut world = World::pair();
    world.write(0, &format!("{deep}/1.wav"), "call");
    world.settle();
    world.vanish(0, "d");
    world.run_for(2 * SECOND);
    assert_eq!(world.nodes[1].tree(), [""; 0]);
}

#[test]
fn a_share_that_starts_after_the_link_is_opened_both_ways() {
    let mut world = World::new(&["fs1", "fs2"]);
    world.scan(0);
    world.scan(1);
    world.write(0, "a", "from the one that was there");
    world.write(1, "b", "from the late one");
    world.link_before_start(0, 1);
    world.settle();
    world.check_quiet();
    world.write(0, "c", "later");
    world.write(1, "d", "later");
    world.settle();
    world.check_quiet();
}

#[test]
fn a_share_that_starts_again_on_a_link_is_opened_both_ways() {
    for seed in 0..200 {
        let mut world = with_calls(3);
        world.dice = Some(Dice(seed));
        world.write(0, "a", "from the one that stays");
        world.write(1, "b", "from the other");
        world.rename(1, "d/1.wav", "d/renamed.wav");
        for _ in 0..seed % 50 {
            world.act();
        }
        world.restart_share(1);
        world.settle();
        world.check_quiet();
    }
}
