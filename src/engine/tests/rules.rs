//! What is left alone, and deletes that stay at home.

use std::sync::Arc;
use std::time::Duration;

use recsync_proto::SharePath;

use super::harness::{World, path};
use crate::engine::DeletePolicy;
use crate::index::IndexRead as _;
use crate::tree::IgnoreRules;

const SECOND: Duration = Duration::from_secs(1);

fn ignore(world: &mut World, of: usize, patterns: &[&str]) {
    let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    let rules = Arc::new(IgnoreRules::new(patterns).unwrap());
    world.configure(of, |settings| settings.ignore = rules);
    world.nodes[of].engine.replan();
    world.scan(of);
    world.run_for(SECOND);
}

fn keep_deletes(world: &mut World, of: usize) {
    world.configure(of, |settings| settings.deletes = DeletePolicy::Keep);
}

fn is_there(world: &World, of: usize, name: &str) -> bool {
    world.nodes[of].disk.objects.contains_key(&path(name))
}

/// Nobody waits for anybody.
fn check_at_rest(world: &World) {
    for of in [0, 1] {
        world.check_at_rest(of);
        let peer = &world.nodes[1 - of].name;
        let index = &world.nodes[of].index;
        let through = index.acked_through(peer, index.peer(peer).unwrap().acked).unwrap();
        assert_eq!(through, index.head().unwrap(), "the cursor moves on");
    }
}

#[test]
fn what_is_ignored_is_neither_told_nor_taken() {
    let mut world = World::pair();
    ignore(&mut world, 0, &["*.tmp", "/scratch/**"]);
    world.write(0, "mine.tmp", "hello");
    world.write(0, "scratch/mine", "hello");
    world.write(1, "yours.tmp", "hello");
    world.write(1, "scratch/yours", "hello");
    world.write(1, "call.wav", "hello");
    world.run_for(SECOND);
    world.check_file(0, "call.wav", "hello");
    for (of, name) in [(1, "mine.tmp"), (1, "scratch/mine"), (0, "yours.tmp"), (0, "scratch/yours")]
    {
        assert!(!is_there(&world, of, name), "{name} on {of}");
    }
    check_at_rest(&world);
    // What is done to it on the side that syncs it, too.
    world.write(1, "yours.tmp", "hello, hello");
    world.remove(1, "scratch/yours");
    world.run_for(SECOND);
    check_at_rest(&world);
}

#[test]
fn what_is_ignored_from_now_on_stays_where_it_is() {
    let mut world = World::pair();
    world.write(0, "a.tmp", "hello");
    world.write(0, "b.tmp", "hello b");
    world.run_for(SECOND);
    ignore(&mut world, 0, &["*.tmp"]);
    assert!(is_there(&world, 0, "a.tmp") && is_there(&world, 1, "a.tmp"));
    // Neither node's deletes and changes reach the other.
    world.remove(0, "a.tmp");
    world.remove(1, "b.tmp");
    world.run_for(SECOND);
    world.check_file(0, "b.tmp", "hello b");
    world.check_file(1, "a.tmp", "hello");
    check_at_rest(&world);
    // Synced again, each is where either node has it: what is ignored is never deleted.
    ignore(&mut world, 0, &[]);
    world.run_for(SECOND);
    world.check_file(0, "a.tmp", "hello");
    check_at_rest(&world);
}

#[test]
fn what_is_no_longer_ignored_is_synced() {
    let mut world = World::pair();
    ignore(&mut world, 0, &["*.tmp"]);
    world.write(0, "mine.tmp", "hello");
    world.write(1, "yours.tmp", "hello, hello");
    world.run_for(SECOND);
    ignore(&mut world, 0, &[]);
    world.check_file(1, "mine.tmp", "hello");
    world.check_file(0, "yours.tmp", "hello, hello");
    world.check_quiet();
}

#[test]
fn a_recording_that_moves_into_what_is_ignored_is_gone_for_the_peer_and_comes_back_with_it() {
    let mut world = World::pair();
    ignore(&mut world, 0, &["/scratch/**"]);
    world.mkdir(0, "scratch");
    world.write(0, "call.wav", "hello");
    world.run_for(SECOND);
    world.rename(0, "call.wav", "scratch/call.wav");
    world.run_for(SECOND);
    world.check_absent(1, "call.wav");
    world.rename(0, "scratch/call.wav", "back.wav");
    world.run_for(SECOND);
    world.check_file(1, "back.wav", "hello");
    check_at_rest(&world);
}

#[test]
fn a_delete_that_is_kept_at_home_deletes_nothing_elsewhere_and_stays_deleted() {
    let mut world = World::pair();
    keep_deletes(&mut world, 0);
    for name in ["d/a", "d/b", "c"] {
        world.write(0, name, name);
    }
    world.run_for(SECOND);
    world.remove(0, "d");
    world.remove(0, "c");
    world.run_for(SECOND);
    for name in ["d", "d/a", "d/b", "c"] {
        assert!(!is_there(&world, 0, name) && is_there(&world, 1, name), "{name}");
    }
    check_at_rest(&world);
    // Over a restart, a new link and a scan.
    world.restart(0);
    world.link(0, 1);
    world.scan(0);
    world.run_for(SECOND);
    assert!(!is_there(&world, 0, "d/a") && is_there(&world, 1, "d/a"));
    check_at_rest(&world);
}

#[test]
fn what_was_let_go_comes_back_when_it_is_something_new() {
    let mut world = World::pair();
    keep_deletes(&mut world, 0);
    world.write(0, "a", "one");
    world.write(0, "b", "one");
    world.run_for(SECOND);
    world.remove(0, "a");
    world.remove(0, "b");
    world.run_for(SECOND);
    world.chmod(1, "b", 0o600);
    world.write(1, "a", "two");
    world.run_for(SECOND);
    world.check_file(0, "a", "two");
    assert!(!is_there(&world, 0, "b"), "another mode is nothing new");
    // And what is written here anew is a version like any other.
    world.write(0, "b", "three");
    world.run_for(SECOND);
    world.check_file(1, "b", "three");
    world.check_quiet();
    assert_eq!(world.nodes[0].conflicts() + world.nodes[1].conflicts(), 0);
}

#[test]
fn with_deletes_kept_a_rename_is_still_a_rename_and_the_peers_deletes_are_done() {
    let mut world = World::pair();
    keep_deletes(&mut world, 0);
    world.write(0, "a.part", "hello");
    world.write(0, "b", "hello b");
    world.run_for(SECOND);
    world.rename(0, "a.part", "a.wav");
    world.remove(1, "b");
    world.run_for(SECOND);
    world.check_file(1, "a.wav", "hello");
    world.check_absent(1, "a.part");
    world.check_absent(0, "b");
    world.check_quiet();
}

#[test]
fn the_root_is_never_ignored() {
    let rules = IgnoreRules::new(vec!["*".to_owned()]).unwrap();
    assert_eq!(rules.rule(&SharePath::root(), true), None);
}
