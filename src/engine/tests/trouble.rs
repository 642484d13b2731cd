//! What goes wrong: paths that cannot be looked at or changed, guards that hold, clocks that jump.
//! Nothing of it may lose data, spin, or keep anything else from moving.

use std::time::Duration;

use super::harness::World;
use crate::engine::{Effect, MaxDelete};

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
fn a_deep_directory_that_vanished_is_gone_at_once_level_by_level() {
    let deep = ["d"; 15].join("/");
    let mut world = World::pair();
    world.write(0, &format!("{deep}/1.wav"), "call");
    world.settle();
    world.vanish(0, "d");
    world.run_for(2 * SECOND);
    assert_eq!(world.nodes[1].tree(), [""; 0]);
}
