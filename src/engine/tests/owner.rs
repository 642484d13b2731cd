//! Files that are given away, and nodes that may not do so.

use std::time::Duration;

use super::harness::{World, owner, path};
use crate::engine::{Action, Event, OwnerPolicy};
use crate::tree::OwnerLeft;

const SECOND: Duration = Duration::from_secs(1);

fn with_file() -> World {
    let mut world = World::pair();
    world.write(0, "d/call.wav", "hello");
    world.settle();
    world.check_quiet();
    world.forget();
    world
}

fn accounts(world: &World, name: &str) -> [u32; 2] {
    [0, 1].map(|of| world.nodes[of].disk.objects[&path(name)].account)
}

fn left(world: &World, of: usize) -> Vec<(String, OwnerLeft)> {
    let left = world.nodes[of].events().filter_map(|event| match event {
        Event::OwnerLeft { path, owner, why } => Some((format!("{path} {owner}"), *why)),
        _ => None,
    });
    left.collect()
}

#[test]
fn a_file_given_away_is_given_away_on_the_peer_and_moves_no_content() {
    let mut world = with_file();
    world.chown(0, "d/call.wav", 33);
    world.chown(0, "d", 34);
    world.run_for(SECOND);
    world.check_quiet();
    assert_eq!((accounts(&world, "d/call.wav"), accounts(&world, "d")), ([33; 2], [34; 2]));
    assert_eq!(world.nodes[1].fetches(), 0);
    assert!(world.nodes[0].announced().iter().all(|told| told.inline.is_none()));
    let metadata = |op: &&crate::engine::Op| matches!(op.action, Action::Metadata { .. });
    assert!(world.nodes[1].ops().iter().all(metadata), "{:?}", world.nodes[1].ops());
}

#[test]
fn the_same_owner_given_on_both_nodes_at_once_settles_silently() {
    let mut world = with_file();
    for of in [0, 1] {
        world.chown(of, "d/call.wav", 33);
    }
    world.run_for(SECOND);
    world.check_quiet();
    assert!(world.nodes.iter().all(|node| node.ops().is_empty()), "there was nothing to do");
    world.forget();
    // And again: numbers that are set already are no change.
    for of in [0, 1] {
        world.chown(of, "d/call.wav", 33);
    }
    world.run_for(SECOND);
    world.check_quiet();
    assert!(world.nodes.iter().all(|node| node.announced().is_empty()), "nothing is said");
}

#[test]
fn two_owners_given_at_once_end_as_one() {
    let mut world = with_file();
    world.chown(0, "d/call.wav", 33);
    world.chown(1, "d/call.wav", 34);
    world.run_for(SECOND);
    world.check_quiet();
    assert_eq!(world.nodes[0].conflicts() + world.nodes[1].conflicts(), 0);
}

#[test]
fn a_new_owner_and_a_new_content_at_once_end_in_one_file() {
    let mut world = with_file();
    world.cut(0, 1);
    world.chown(0, "d/call.wav", 33);
    world.write(1, "d/call.wav", "hello, hello");
    world.run_for(SECOND);
    world.link(0, 1);
    world.run_for(SECOND);
    world.check_quiet();
    world.check_file(0, "d/call.wav", "hello, hello");
    assert_eq!(accounts(&world, "d/call.wav"), [33; 2]);
    assert_eq!(world.nodes[0].conflicts() + world.nodes[1].conflicts(), 0);
}

#[test]
fn where_an_owner_may_not_be_set_the_file_stands_for_it_all_the_same() {
    let mut world = with_file();
    world.nodes[1].disk.bound_to = Some(0);
    world.chown(0, "d/call.wav", 33);
    world.run_for(SECOND);
    assert_eq!(left(&world, 1), [("d/call.wav 33:33".to_owned(), OwnerLeft::NotAllowed)]);
    world.check_index(1);
    world.check_at_rest(1);
    let stands_for = |world: &World, name| world.nodes[1].entry(name).installed.unwrap().owner;
    assert_eq!(stands_for(&world, "d/call.wav"), Some(owner(33)));
    world.forget();
    // What is done to it there says nothing of its owner.
    world.rename(1, "d/call.wav", "d/kept.wav");
    world.run_for(SECOND);
    world.write(1, "d/kept.wav", "hello, hello");
    world.run_for(SECOND);
    assert_eq!(stands_for(&world, "d/kept.wav"), Some(owner(33)));
    assert_eq!(accounts(&world, "d/kept.wav"), [33, 0]);
    // But giving it to another one is.
    world.nodes[1].disk.bound_to = None;
    world.chown(1, "d/kept.wav", 34);
    world.run_for(SECOND);
    assert_eq!(accounts(&world, "d/kept.wav"), [34; 2]);
    world.check_quiet();
}

#[test]
fn a_new_file_of_an_owner_that_may_not_be_set_comes_all_the_same() {
    let mut world = World::pair();
    world.nodes[1].disk.bound_to = Some(7);
    world.write(0, "call.wav", "hello");
    world.chown(0, "call.wav", 33);
    world.run_for(SECOND);
    world.check_file(1, "call.wav", "hello");
    assert_eq!(accounts(&world, "call.wav"), [33, 7]);
    assert_eq!(left(&world, 1).len(), 1);
    world.forget();
    world.run_for(Duration::from_secs(3_600));
    assert!(world.nodes.iter().all(|node| node.log.is_empty()), "nobody tries again");
}

#[test]
fn a_node_that_ignores_owners_neither_takes_nor_tells_any() {
    let mut world = World::pair();
    world.configure(1, |settings| settings.owner = OwnerPolicy::Ignore);
    world.write(0, "a", "hello");
    world.chown(0, "a", 33);
    world.write(1, "b", "hello");
    world.chown(1, "b", 34);
    world.run_for(SECOND);
    assert_eq!((accounts(&world, "a"), accounts(&world, "b")), ([33, 0], [0, 34]));
    world.chown(1, "a", 35);
    world.run_for(SECOND);
    assert_eq!(accounts(&world, "a"), [33, 35]);
    assert!(left(&world, 0).is_empty() && left(&world, 1).is_empty());
    for of in [0, 1] {
        world.check_at_rest(of);
        world.check_index(of);
    }
}
