//! What users do on one node or two, and what must come of it.

use std::collections::BTreeMap;
use std::time::Duration;

use recsync_proto::message::{AckState, Lane, ShareMessage};
use recsync_proto::{Content, Seq};

use super::harness::{START_NS, What, World, file, path};
use crate::engine::{Action, Announce, AppliedKind, Effect, Event, Hint, Input, Noticed, Saved};
use crate::index::IndexRead as _;
use crate::tree::TreeError;

const SECOND: Duration = Duration::from_secs(1);

/// Two linked nodes that both hold these files.
fn with_files(files: &[(&str, &str)]) -> World {
    let mut world = World::pair();
    for (name, bytes) in files {
        world.write(0, name, bytes);
    }
    world.settle();
    world.check_quiet();
    world.forget();
    world
}

fn applied(world: &World, of: usize) -> Vec<AppliedKind> {
    let kinds = world.nodes[of].events().filter_map(|event| match event {
        Event::Applied { kind, .. } => Some(*kind),
        _ => None,
    });
    kinds.collect()
}

fn noted(world: &World, of: usize) -> usize {
    world.nodes[of].events().filter(|event| matches!(event, Event::Noted { .. })).count()
}

fn replicated(world: &World, of: usize) -> usize {
    world.nodes[of].events().filter(|event| matches!(event, Event::Replicated { .. })).count()
}

#[test]
fn a_new_recording_reaches_the_peer_and_is_acknowledged() {
    let mut world = World::pair();
    world.write(0, "call.wav", "hello");
    world.run_for(SECOND);
    world.check_file(1, "call.wav", "hello");
    world.check_quiet();
    assert_eq!(applied(&world, 1), [AppliedKind::Create]);
    assert_eq!(replicated(&world, 0), 1);
    let took = world.nodes[0].events().find_map(|event| match event {
        Event::Replicated { took, .. } => *took,
        _ => None,
    });
    assert_eq!(took, Some(Duration::from_millis(20)), "settle, and nothing else takes time here");
    assert_eq!(world.nodes[1].fetches(), 0, "a small file travels inside its announcement");
    let cursor = world.nodes[0].index.peer(&world.nodes[1].name).unwrap();
    assert_eq!(cursor.acked, world.nodes[0].index.head().unwrap());
}

#[test]
fn a_large_recording_is_fetched() {
    let mut world = World::pair();
    world.write(0, "call.wav", &"x".repeat((256 << 10) + 1));
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].fetches(), 1);
    world.check_quiet();
}

#[test]
fn a_recording_of_the_longest_inline_length_is_not_fetched() {
    let mut world = World::pair();
    world.write(0, "call.wav", &"x".repeat(256 << 10));
    world.write(0, "empty.wav", "");
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].fetches(), 0);
    world.check_quiet();
}

#[test]
fn the_echo_of_an_own_change_is_suppressed() {
    let mut world = World::pair();
    world.write(0, "d/call.wav", "hello");
    world.run_for(SECOND);
    assert_eq!(noted(&world, 1), 0);
    let echoes = world.nodes[1].events().filter(|event| **event == Event::EchoSuppressed).count();
    assert!(echoes > 0, "the watcher saw the change");
    world.forget();
    // And neither node has anything to say from then on.
    world.run_for(Duration::from_secs(600));
    for node in &world.nodes {
        assert_eq!(node.log, [], "{}", node.name);
    }
}

#[test]
fn a_recording_that_is_still_being_written_is_never_announced() {
    let mut world = World::pair();
    world.write(0, "call.wav", "hel");
    world.open(0, "call.wav");
    world.run_for(Duration::from_secs(3_600));
    assert!(world.nodes[0].announced().is_empty());
    assert!(world.nodes[0].looks() < 80, "only the close tells: {}", world.nodes[0].looks());
    world.write(0, "call.wav", "hello");
    world.close(0, "call.wav");
    world.run_for(SECOND);
    world.check_file(1, "call.wav", "hello");
    world.check_quiet();
}

#[test]
fn a_lost_close_is_found_out() {
    let mut world = World::pair();
    world.write(0, "call.wav", "hello");
    world.open(0, "call.wav");
    world.run_for(Duration::from_secs(600));
    // Closed, and the event is lost.
    world.nodes[0].disk.objects.get_mut(&path("call.wav")).unwrap().writer = false;
    world.run_for(Duration::from_secs(61));
    world.check_quiet();
    world.check_file(1, "call.wav", "hello");
}

#[test]
fn a_directory_and_a_file_in_it_made_in_one_burst_both_arrive() {
    let mut world = World::pair();
    world.mkdir(0, "d");
    world.write(0, "d/e/call.wav", "hello");
    world.run_for(SECOND);
    world.check_quiet();
    assert_eq!(noted(&world, 1), 0);
}

#[test]
fn the_echo_of_a_directory_is_suppressed_whatever_comes_first() {
    for seed in 0..200 {
        let mut world = World::pair();
        world.dice = Some(super::harness::Dice(seed));
        world.write(0, "d/e/call.wav", "hello");
        world.write(0, "d/e/f/call.wav", "hello too");
        world.settle();
        world.check_quiet();
        assert_eq!(noted(&world, 1), 0, "seed {seed}");
    }
}

#[test]
fn a_modified_file_is_replaced_and_the_old_one_goes_to_trash() {
    let mut world = with_files(&[("a", "old")]);
    world.write(0, "a", "new");
    world.run_for(SECOND);
    world.check_file(1, "a", "new");
    world.check_quiet();
    assert_eq!(applied(&world, 1), [AppliedKind::Update]);
    assert_eq!(world.nodes[1].disk.trash, [(path("a"), What::File("old".into()))]);
}

#[test]
fn a_file_replaced_by_temp_and_rename_is_one_modification() {
    let mut world = with_files(&[("a", "old")]);
    world.write(0, ".a.tmp", "new");
    world.rename(0, ".a.tmp", "a");
    world.run_for(SECOND);
    world.check_file(1, "a", "new");
    world.check_quiet();
    assert_eq!(applied(&world, 1), [AppliedKind::Update], "the temporary name was never seen");
}

#[test]
fn a_rename_moves_no_content() {
    let mut world = with_files(&[("a", "hello")]);
    world.rename(0, "a", "b");
    world.run_for(SECOND);
    world.check_quiet();
    world.check_file(1, "b", "hello");
    world.check_absent(1, "a");
    let announced = world.nodes[0].announced();
    assert_eq!(announced.len(), 1, "{announced:?}");
    assert_eq!(announced[0].moved_from.as_ref().map(|moved| &moved.path), Some(&path("a")));
    assert_eq!(announced[0].inline, None);
    let ops = world.nodes[1].ops();
    assert!(
        matches!(ops[..], [op] if matches!(&op.action, Action::Move { from, .. } if *from == path("a")))
    );
    assert_eq!(world.nodes[1].disk.trash, []);
    let saved = world.nodes[1].events().find_map(|event| match event {
        Event::Applied { saved, .. } => *saved,
        _ => None,
    });
    assert_eq!(saved, Some((Saved::Rename, 5)));
}

#[test]
fn a_rename_into_a_new_directory_moves_no_content() {
    let mut world = with_files(&[("a", "hello")]);
    world.rename(0, "a", "archive/2026/a");
    world.run_for(SECOND);
    world.check_quiet();
    assert_eq!(world.nodes[1].disk.trash, []);
    assert!(applied(&world, 1).contains(&AppliedKind::Rename));
}

#[test]
fn a_renamed_directory_moves_no_content() {
    let mut world = with_files(&[("d/1", "one"), ("d/2", "two"), ("d/e/3", "three")]);
    world.rename(0, "d", "x");
    world.run_for(2 * SECOND);
    world.check_quiet();
    world.check_file(1, "x/e/3", "three");
    world.check_absent(1, "d");
    assert_eq!(world.nodes[1].disk.trash, []);
    let renames = applied(&world, 1).iter().filter(|kind| **kind == AppliedKind::Rename).count();
    assert_eq!(renames, 3);
}

#[test]
fn a_chain_of_renames_ends_with_the_last_name() {
    let mut world = with_files(&[("a", "hello")]);
    world.rename(0, "a", "b");
    world.rename(0, "b", "c");
    world.run_for(SECOND);
    world.check_quiet();
    world.check_file(1, "c", "hello");
    world.check_absent(1, "b");
    assert_eq!(applied(&world, 1), [AppliedKind::Rename]);
}

#[test]
fn a_chain_of_renames_with_pauses_ends_with_the_last_name() {
    for pause in [25, 100, 275, 400] {
        let mut world = with_files(&[("a", "hello")]);
        world.rename(0, "a", "b");
        world.run_for(Duration::from_millis(pause));
        world.rename(0, "b", "c");
        world.run_for(Duration::from_millis(pause));
        world.rename(0, "c", "a");
        world.settle();
        world.check_quiet();
        world.check_file(1, "a", "hello");
        assert_eq!(world.nodes[1].tree().len(), 1);
    }
}

#[test]
fn two_names_can_be_swapped() {
    let mut world = with_files(&[("a", "first"), ("b", "second")]);
    world.rename(0, "a", "t");
    world.rename(0, "b", "a");
    world.rename(0, "t", "b");
    world.run_for(2 * SECOND);
    world.check_quiet();
    world.check_file(1, "a", "second");
    world.check_file(1, "b", "first");
    assert_eq!(world.nodes[1].conflicts(), 0);
}

#[test]
fn a_deleted_file_goes_to_the_peers_trash() {
    let mut world = with_files(&[("a", "hello")]);
    world.remove(0, "a");
    world.run_for(SECOND);
    world.check_absent(1, "a");
    world.check_quiet();
    assert_eq!(applied(&world, 1), [AppliedKind::Delete]);
    assert_eq!(world.nodes[1].disk.trash, [(path("a"), What::File("hello".into()))]);
}

#[test]
fn a_directory_is_deleted_after_what_it_holds() {
    let mut world = with_files(&[("d/1", "one"), ("d/e/2", "two"), ("d/e/f/3", "three")]);
    world.remove(0, "d");
    world.run_for(2 * SECOND);
    world.check_quiet();
    assert!(world.nodes[1].disk.objects.is_empty());
}

#[test]
fn a_directory_that_vanished_whole_is_deleted_after_what_it_held() {
    let mut world = with_files(&[("d/1", "one"), ("d/e/2", "two"), ("d/e/f/3", "three")]);
    world.vanish(0, "d");
    world.run_for(5 * SECOND);
    world.check_quiet();
    assert!(world.nodes[1].disk.objects.is_empty());
    let order: Vec<_> = world.nodes[0].announced().iter().map(|a| a.path.to_string()).collect();
    let at = |name: &str| order.iter().position(|path| path == name).unwrap();
    assert!(at("d/e/f/3") < at("d/e/f") && at("d/e/f") < at("d/e") && at("d/e") < at("d"));
}

#[test]
fn what_was_in_a_directory_that_was_moved_away_is_gone_though_another_has_its_name() {
    // Another directory is moved there, or made; within settle, so that no look finds the name free.
    let moved = |world: &mut World| world.rename(0, "a", "d");
    let made = |world: &mut World| world.mkdir(0, "d");
    let deeds: [&dyn Fn(&mut World); 2] = [&moved, &made];
    for deed in deeds {
        let mut world = with_files(&[("a/x/0", "zero"), ("d/1", "one"), ("d/e/2", "two")]);
        world.vanish(0, "d");
        deed(&mut world);
        world.run_for(5 * SECOND);
        world.check_quiet();
        let gone = ["d/1", "d/e", "d/e/2"];
        gone.iter().for_each(|name| world.check_absent(1, name));
    }
}

/// Looked at before what is above it, which then is moved away before it is looked at.
#[test]
fn what_was_below_a_name_that_no_look_found_is_gone_with_it() {
    let free = |_: &mut World| {};
    let made = |world: &mut World| world.mkdir(0, "d");
    let filled = |world: &mut World| world.write(0, "d/e", "a file");
    let written = |world: &mut World| world.write(0, "d", "a file");
    let deeds: [&dyn Fn(&mut World); 4] = [&free, &made, &filled, &written];
    for deed in deeds {
        let mut world = World::pair();
        world.mkdir(0, "d/e/f");
        let is_heard =
            |input: &Input| matches!(input, Input::Dirty { path: at, .. } if *at == path("d/e/f"));
        world.nodes[0].inbox.retain(is_heard);
        world.run_for(SECOND);
        assert!(world.nodes[0].entry("d/e/f").installed.is_some());
        world.vanish(0, "d");
        deed(&mut world);
        world.run_for(5 * SECOND);
        world.check_quiet();
        world.check_absent(1, "d/e/f");
    }
}

#[test]
fn what_was_in_a_directory_that_was_moved_away_is_gone_though_a_peer_puts_something_there() {
    let mut world = with_files(&[("d/1", "one"), ("d/e/2", "two")]);
    world.vanish(1, "d");
    world.write(0, "d/3", "three");
    world.run_for(5 * SECOND);
    world.check_quiet();
    assert_eq!(world.nodes[1].tree().len(), 2, "{:?}", world.nodes[1].tree());
    world.check_file(1, "d/3", "three");
}

#[test]
fn an_empty_directory_travels_and_goes() {
    let mut world = World::pair();
    world.mkdir(0, "empty");
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].tree(), ["empty/"]);
    world.remove(0, "empty");
    world.run_for(SECOND);
    assert!(world.nodes[1].disk.objects.is_empty());
    world.check_quiet();
}

#[test]
fn a_directory_stays_when_its_last_file_goes() {
    let mut world = with_files(&[("d/call.wav", "hello")]);
    world.remove(0, "d/call.wav");
    world.settle();
    assert_eq!(world.nodes[0].tree(), ["d/"]);
    world.check_quiet();
}

#[test]
fn a_file_becomes_a_directory() {
    let mut world = with_files(&[("x", "a file")]);
    world.remove(0, "x");
    world.write(0, "x/1", "one");
    world.run_for(5 * SECOND);
    world.check_quiet();
    world.check_file(1, "x/1", "one");
}

#[test]
fn a_symbolic_link_travels_changes_and_becomes_a_file() {
    let mut world = World::pair();
    world.make(0, "l", What::Link(b"there".to_vec()));
    world.run_for(SECOND);
    world.check_quiet();
    world.make(0, "l", What::Link(b"elsewhere".to_vec()));
    world.run_for(SECOND);
    world.check_quiet();
    world.make(0, "l", What::File(b"bytes".to_vec()));
    world.run_for(SECOND);
    world.check_quiet();
    world.check_file(1, "l", "bytes");
}

#[test]
fn a_change_of_mode_moves_no_content() {
    let mut world = with_files(&[("a", "hello"), ("d/b", "hi")]);
    world.chmod(0, "a", 0o600);
    world.chmod(0, "d", 0o700);
    world.run_for(SECOND);
    world.check_quiet();
    assert_eq!(world.nodes[1].disk.objects[&path("a")].mode, 0o600);
    assert_eq!(world.nodes[1].disk.objects[&path("d")].mode, 0o700);
    assert_eq!(applied(&world, 1), [AppliedKind::Metadata; 2]);
    assert_eq!(world.nodes[1].fetches(), 0);
    assert_eq!(world.nodes[1].disk.trash, []);
}

#[test]
fn a_touched_file_moves_no_content_even_back_in_time() {
    let mut world = with_files(&[("a", "hello")]);
    world.touch(0, "a", START_NS - 1_000_000_000);
    world.run_for(SECOND);
    world.check_quiet();
    assert_eq!(applied(&world, 1), [AppliedKind::Metadata]);
}

#[test]
fn a_file_rewritten_with_the_same_bytes_moves_no_content() {
    let mut world = with_files(&[("a", "hello")]);
    world.make(0, "a", What::File(b"hello".to_vec()));
    world.run_for(SECOND);
    world.check_quiet();
    assert_eq!(applied(&world, 1), [AppliedKind::Metadata]);
}

#[test]
fn a_copy_of_a_file_that_the_peer_has_is_taken_from_its_own_disk() {
    let mut world = with_files(&[("a", &"x".repeat(300 << 10))]);
    world.write(0, "b", &"x".repeat(300 << 10));
    world.run_for(SECOND);
    world.check_quiet();
    assert_eq!(world.nodes[1].fetches(), 0);
}

// ---- both at the same time -------------------------------------------------------------------

/// Two nodes with these files, cut from each other.
fn apart(files: &[(&str, &str)]) -> World {
    let mut world = with_files(files);
    world.cut(0, 1);
    world.settle();
    world.forget();
    world
}

fn meet(world: &mut World) {
    world.settle();
    world.link(0, 1);
    world.settle();
    world.check_quiet();
}

#[test]
fn both_modify_a_file_and_the_later_one_keeps_the_name() {
    let mut world = apart(&[("call.wav", "old")]);
    world.write(0, "call.wav", "earlier");
    world.run_for(SECOND);
    world.write(1, "call.wav", "later");
    meet(&mut world);
    for of in [0, 1] {
        world.check_file(of, "call.wav", "later");
        assert_eq!(world.nodes[of].conflicts(), 1, "{:?}", world.nodes[of].tree());
        let entry = world.nodes[of].entry("call.wav");
        assert_eq!(entry.record.values.len(), 1, "the loser left the record");
    }
    let copy = world.nodes[0].tree().into_iter().find(|line| line.contains(".conflict-")).unwrap();
    assert!(copy.starts_with("call.conflict-fs1-20261122T100"), "{copy}");
    assert!(copy.contains(".wav = earlier"), "{copy}");
    let told = |of: usize| {
        world.nodes[of].events().filter(|event| matches!(event, Event::Conflict { .. })).count()
    };
    assert_eq!((told(0), told(1)), (1, 0), "who held the losing bytes made the copy");
}

#[test]
fn both_write_the_same_bytes_and_there_is_no_conflict() {
    let mut world = apart(&[("a", "old")]);
    world.write(0, "a", "same");
    world.write(1, "a", "same");
    world.write(0, "b", "new");
    world.write(1, "b", "new");
    meet(&mut world);
    assert_eq!(world.nodes[0].conflicts(), 0);
    assert_eq!(world.nodes[0].fetches() + world.nodes[1].fetches(), 0);
}

#[test]
fn one_modifies_the_other_deletes_and_the_file_lives() {
    for (writer, deleter) in [(0, 1), (1, 0)] {
        let mut world = apart(&[("a", "old")]);
        world.write(writer, "a", "new");
        world.run_for(SECOND);
        world.remove(deleter, "a");
        meet(&mut world);
        world.check_file(deleter, "a", "new");
        assert_eq!(world.nodes[0].conflicts(), 0);
    }
}

#[test]
fn one_touches_the_other_deletes_and_the_file_goes() {
    let mut world = apart(&[("a", "old")]);
    world.touch(0, "a", START_NS);
    world.chmod(0, "a", 0o600);
    world.remove(1, "a");
    meet(&mut world);
    world.check_absent(0, "a");
}

#[test]
fn one_changes_the_mode_the_other_the_bytes_and_both_stay() {
    let mut world = apart(&[("a", "old")]);
    world.chmod(0, "a", 0o600);
    world.write(1, "a", "new");
    meet(&mut world);
    world.check_file(0, "a", "new");
    assert_eq!(world.nodes[0].disk.objects[&path("a")].mode, 0o600);
}

#[test]
fn both_delete_and_nothing_is_said_of_it() {
    let mut world = apart(&[("a", "old"), ("d/b", "old")]);
    for of in [0, 1] {
        world.remove(of, "a");
        world.remove(of, "d");
    }
    meet(&mut world);
    for of in [0, 1] {
        assert_eq!(applied(&world, of), []);
        assert!(world.nodes[of].disk.trash.is_empty());
        assert!(world.nodes[of].disk.objects.is_empty());
    }
}

#[test]
fn a_file_and_a_link_want_one_name() {
    let mut world = apart(&[]);
    world.write(0, "x", "a file");
    world.make(1, "x", What::Link(b"there".to_vec()));
    meet(&mut world);
    world.check_file(1, "x", "a file");
    assert_eq!(world.nodes[0].conflicts(), 1);
}

#[test]
fn a_deleted_directory_comes_back_with_what_was_put_into_it_meanwhile() {
    let mut world = apart(&[("d/old", "old")]);
    world.remove(0, "d");
    world.write(1, "d/new", "new");
    meet(&mut world);
    world.check_file(0, "d/new", "new");
    world.check_absent(1, "d/old");
}

#[test]
fn a_renamed_file_and_a_modified_one_both_stay() {
    let mut world = apart(&[("a", "old")]);
    world.rename(0, "a", "b");
    world.write(1, "a", "new");
    meet(&mut world);
    world.check_file(0, "a", "new");
    world.check_file(1, "b", "old");
    assert_eq!(world.nodes[0].conflicts(), 0);
}

#[test]
fn one_file_renamed_to_two_names_has_both() {
    let mut world = apart(&[("a", "old")]);
    world.rename(0, "a", "b");
    world.rename(1, "a", "c");
    meet(&mut world);
    assert_eq!(world.nodes[0].tree().len(), 2);
    world.check_file(0, "c", "old");
    world.check_file(1, "b", "old");
}

#[test]
fn a_deleted_conflict_copy_stays_deleted() {
    let mut world = apart(&[("a", "old")]);
    world.write(0, "a", "earlier");
    world.write(1, "a", "later");
    meet(&mut world);
    let copies = |world: &World| world.nodes[1].conflicts();
    assert_eq!(copies(&world), 1);
    let copy = world.nodes[1].disk.objects.keys().find(|path| path.to_string().contains("conf"));
    let copy = copy.unwrap().to_string();
    world.remove(1, &copy);
    world.settle();
    world.cut(0, 1);
    world.settle();
    meet(&mut world);
    assert_eq!(copies(&world), 0);
}

// ---- first meetings and reunions -------------------------------------------------------------

#[test]
fn two_nodes_that_hold_different_files_get_the_union() {
    let mut world = World::new(&["fs1", "fs2"]);
    world.write(0, "a", "one");
    world.write(0, "d/b", "two");
    world.write(1, "c", "three");
    world.write(1, "d/e", "four");
    world.nodes.iter_mut().for_each(|node| node.inbox.clear());
    world.scan(0);
    world.scan(1);
    world.link(0, 1);
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[0].disk.objects.len(), 5);
    assert_eq!(world.nodes[0].conflicts(), 0);
}

#[test]
fn at_the_first_meeting_the_file_written_later_keeps_its_name() {
    let mut world = World::new(&["fs1", "fs2"]);
    // Whoever is indexed first: what counts is when the file was written.
    world.write(0, "a", "later");
    world.write(1, "a", "earlier");
    world.nodes[0].disk.objects.get_mut(&path("a")).unwrap().mtime_ns = START_NS - 5_000_000_000;
    world.nodes[1].disk.objects.get_mut(&path("a")).unwrap().mtime_ns = START_NS - 9_000_000_000;
    world.nodes.iter_mut().for_each(|node| node.inbox.clear());
    world.scan(0);
    world.settle();
    world.scan(1);
    world.link(0, 1);
    world.settle();
    world.check_quiet();
    world.check_file(1, "a", "later");
    assert_eq!(world.nodes[1].conflicts(), 1);
}

#[test]
fn a_reunion_costs_only_what_changed() {
    let mut world = apart(&[("a", "one"), ("b", "two"), ("c", "three")]);
    world.write(0, "b", "changed");
    world.settle();
    world.link(0, 1);
    world.settle();
    world.check_quiet();
    let names: Vec<_> = world.nodes[0].announced().iter().map(|a| a.path.to_string()).collect();
    assert_eq!(names, ["b"]);
    assert_eq!(world.nodes[1].announced().len(), 0);
}

#[test]
fn a_peer_with_a_new_index_is_told_everything_and_loses_nothing() {
    let mut world = with_files(&[("a", "one"), ("d/b", "two")]);
    world.remove(0, "a");
    world.settle();
    world.restart_with(1, |_| crate::index::Memory::new(recsync_proto::Epoch(77)));
    world.settle();
    world.check_quiet();
    world.check_file(1, "d/b", "two");
    let resets =
        world.nodes[0].events().filter(|event| matches!(event, Event::PeerReset { .. })).count();
    assert_eq!(resets, 1);
    assert_eq!(world.nodes[1].fetches(), 0);
    assert_eq!(world.nodes[1].conflicts(), 0);
}

#[test]
fn tombstones_wait_for_a_peer_that_is_away() {
    let mut world = apart(&[("a", "one")]);
    world.remove(0, "a");
    world.run_for(Duration::from_secs(3_600));
    assert!(world.nodes[0].entry("a").record.is_tombstone());
    assert_eq!(world.nodes[0].entries().len(), 1);
    world.link(0, 1);
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[0].entries(), []);
}

#[test]
fn three_nodes_agree() {
    let mut world = World::new(&["fs1", "fs2", "fs3"]);
    for of in 0..3 {
        world.scan(of);
    }
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        world.link(one, other);
    }
    world.settle();
    world.write(0, "a", "one");
    world.write(1, "b/c", "two");
    world.settle();
    world.check_quiet();
    world.cut(0, 1);
    world.cut(1, 2);
    world.cut(0, 2);
    world.write(0, "a", "from fs1");
    world.write(1, "a", "from fs2");
    world.write(2, "a", "from fs3");
    world.remove(2, "b");
    world.settle();
    for (one, other) in [(0, 1), (1, 2), (0, 2)] {
        world.link(one, other);
        world.settle();
    }
    world.check_quiet();
    assert_eq!(world.nodes[2].conflicts(), 2, "{:?}", world.nodes[2].tree());
}

#[test]
fn nothing_is_left_in_memory_after_much_work() {
    let mut world = World::pair();
    for round in 0..20 {
        for call in 0..40 {
            world.write(call % 2, &format!("{round}/call-{call}.wav"), &format!("{round} {call}"));
        }
        world.run_for(SECOND);
        for call in 0..20 {
            world.rename(
                call % 2,
                &format!("{round}/call-{call}.wav"),
                &format!("old/{round}-{call}"),
            );
        }
        world.run_for(SECOND);
        world.remove(round % 2, &format!("{round}"));
        world.run_for(SECOND);
    }
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[0].disk.objects.len(), 401);
}

// ---- what is said, word by word --------------------------------------------------------------

#[test]
fn the_peer_says_when_everything_has_been_told() {
    let mut world = apart(&[("a", "one")]);
    world.write(0, "b", "two");
    world.settle();
    world.forget();
    world.link(0, 1);
    world.settle();
    let said: Vec<_> = world.nodes[0]
        .log
        .iter()
        .filter_map(|effect| match effect {
            Effect::Announce(announce) => Some((announce.lane, format!("{}", announce.path))),
            Effect::Send { lane, message: ShareMessage::CaughtUp { .. }, .. } => {
                Some((*lane, "caught up".to_owned()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(said, [(Lane::Bulk, "b".to_owned()), (Lane::Bulk, "caught up".to_owned())]);
}

#[test]
fn an_acknowledgement_of_what_was_never_said_is_ignored() {
    let mut world = with_files(&[("a", "old")]);
    let peer = world.nodes[1].name.clone();
    let before = world.nodes[0].index.peer(&peer).unwrap();
    for seq in [u64::MAX, before.acked.0 + 1, 1, 0] {
        let ack = recsync_proto::message::Ack { seq: Seq(seq), state: AckState::Held };
        let message = ShareMessage::Acks(vec![ack]);
        world.input(0, Input::Message { peer: peer.clone(), lane: Lane::Live, message });
    }
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[0].index.peer(&peer).unwrap().acked, before.acked);
}

#[test]
fn a_change_that_a_scan_found_is_as_old_as_its_ctime() {
    let mut world = apart(&[("a", "old")]);
    world.write(0, "a", "new");
    world.nodes[0].inbox.clear();
    let written = world.nodes[0].disk.objects[&path("a")].ctime_ns;
    world.run_for(Duration::from_secs(100));
    world.scan(0);
    world.settle();
    assert_eq!(world.nodes[0].entry("a").changed_ns, written);
    let found = Input::Dirty { path: path("a"), hint: Hint::Written, noticed: Noticed::Scan };
    world.input(0, found);
    meet(&mut world);
    assert_eq!(world.nodes[0].entry("a").record.values[0].content, file(b"new"));
    assert!(!matches!(world.nodes[0].entry("a").record.values[0].content, Content::Dir));
}

#[test]
fn a_directory_becomes_a_file() {
    let mut world = with_files(&[("x/1", "one"), ("x/y/2", "two")]);
    world.remove(0, "x");
    world.write(0, "x", "now a file");
    world.run_for(5 * SECOND);
    world.check_quiet();
    world.check_file(1, "x", "now a file");
}

#[test]
fn a_directory_stays_when_its_last_file_goes_whatever_was_looked_at_first() {
    for seed in 0..50 {
        let mut world = World::pair();
        world.dice = Some(super::harness::Dice(seed));
        world.write(0, "d/call.wav", "hello");
        world.settle();
        world.remove(0, "d/call.wav");
        world.settle();
        assert_eq!(world.nodes[0].tree(), ["d/"], "seed {seed}");
        world.check_quiet();
    }
}

#[test]
fn a_file_and_a_directory_want_one_name() {
    for (file, dir) in [(0, 1), (1, 0)] {
        let mut world = apart(&[]);
        world.write(file, "x", "a file");
        world.write(dir, "x/1", "one");
        meet(&mut world);
        world.check_file(file, "x/1", "one");
        assert_eq!(world.nodes[dir].conflicts(), 1, "{:?}", world.nodes[dir].tree());
    }
}

#[test]
fn a_file_in_place_of_a_directory_meets_a_new_file_in_it() {
    for (file, dir) in [(0, 1), (1, 0)] {
        let mut world = apart(&[("x/old", "old")]);
        world.remove(file, "x");
        world.write(file, "x", "a file");
        world.write(dir, "x/new", "new");
        meet(&mut world);
        world.check_file(file, "x/new", "new");
        world.check_absent(dir, "x/old");
        assert_eq!(world.nodes[dir].conflicts(), 1, "{:?}", world.nodes[dir].tree());
    }
}

#[test]
fn a_conflict_copy_without_extension_is_not_named_twice() {
    let mut world = apart(&[("a", "old")]);
    world.write(0, "a", "one");
    world.write(1, "a", "two");
    meet(&mut world);
    let copy = world.nodes[1].disk.objects.keys().find(|path| path.to_string().contains("conf"));
    let copy = copy.unwrap().to_string();
    world.cut(0, 1);
    world.settle();
    world.write(0, &copy, "three");
    world.write(1, &copy, "four");
    meet(&mut world);
    let names: Vec<_> = world.nodes[0].disk.objects.keys().map(ToString::to_string).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in names {
        assert!(name.matches(".conflict-").count() <= 1, "{name}");
    }
}

#[test]
fn held_is_said_once() {
    let mut world = with_files(&[("a", "old")]);
    world.open(1, "a");
    world.write(0, "a", "new");
    world.run_for(Duration::from_secs(600));
    let held = world.nodes[1].log.iter().filter(|effect| {
        matches!(effect, Effect::Send { message: ShareMessage::Acks(acks), .. }
            if acks.iter().any(|ack| ack.state == AckState::Held))
    });
    assert_eq!(held.count(), 1);
    world.close(1, "a");
    world.settle();
    world.check_quiet();
}

#[test]
fn what_waits_for_a_writer_at_the_peer_is_acknowledged_as_held_and_then_as_durable() {
    let mut world = with_files(&[("a", "old")]);
    world.open(1, "a");
    world.write(0, "a", "new");
    world.run_for(SECOND);
    world.check_file(1, "a", "old");
    let seq = world.nodes[0].entry("a").seq;
    let peer = world.nodes[1].name.clone();
    assert!(world.nodes[0].index.is_held(&peer, seq).unwrap());
    assert_eq!(replicated(&world, 0), 0);
    assert_eq!(world.nodes[0].index.backlog(&peer).unwrap().files, 0, "held is no lag");
    world.close(1, "a");
    world.run_for(5 * SECOND);
    world.check_file(1, "a", "new");
    assert!(!world.nodes[0].index.is_held(&peer, seq).unwrap());
    assert_eq!(replicated(&world, 0), 1);
    world.settle();
    world.check_quiet();
}

#[test]
fn a_newer_state_of_a_path_waits_for_the_acknowledgement_of_the_older() {
    let mut world = with_files(&[("a", "zero")]);
    let on_wire = |world: &World| {
        let announced = world.on_wire(0, 1).into_iter().filter_map(|message| match message {
            ShareMessage::Announce(all) => Some(all[0].seq),
            _ => None,
        });
        announced.collect::<Vec<_>>()
    };
    let write = |world: &mut World, bytes: &str| {
        world.write(0, "a", bytes);
        world.run_only(0, world.now + SECOND);
    };
    write(&mut world, "one");
    let first = on_wire(&world);
    assert_eq!(first.len(), 1);
    write(&mut world, "two");
    write(&mut world, "three");
    assert_eq!(on_wire(&world), first, "one announcement of a path at a time");
    world.settle();
    world.check_quiet();
    world.check_file(1, "a", "three");
    assert_eq!(world.nodes[0].announced().len(), 2, "the state in between was never sent");
}

#[test]
fn a_live_lane_that_falls_behind_hands_over_to_the_bulk_lane() {
    let mut world = World::pair();
    let lanes = |world: &World| {
        let announced = world.nodes[0].announced();
        let live = announced.iter().filter(|announce| announce.lane == Lane::Live).count();
        (live, announced.len() - live)
    };
    // No acknowledgement comes: a lane takes 512, and 256 more may wait for it.
    for call in 0..512 + 200 {
        world.write(0, &format!("{call}"), "call");
    }
    world.run_only(0, world.now + SECOND);
    assert_eq!(lanes(&world), (512, 0));
    for call in 0..512 {
        world.write(0, &format!("more-{call}"), "call");
    }
    world.run_only(0, world.now + SECOND);
    assert_eq!(lanes(&world), (512, 512), "the backlog has a lane of its own");
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[1].disk.objects.len(), 512 + 200 + 512);
}

/// Moves a directory with so many files in.
fn bring_along(world: &mut World, of: usize, dir: &str, files: usize) {
    world.mkdir(of, dir);
    for call in 0..files {
        let text = format!("{dir}/{call:04}");
        world.make_unheard(of, &text, &format!("call {call}"));
        let noticed = Noticed::Along(world.now);
        let input = Input::Dirty { path: path(&text), hint: Hint::Written, noticed };
        world.nodes[of].inbox.push_back(input);
    }
}

#[test]
fn a_call_is_told_of_at_once_while_a_backlog_waits() {
    let mut world = World::pair();
    world.mkdir(0, "backlog");
    world.settle();
    // More than both lanes take.
    bring_along(&mut world, 0, "backlog", 1_500);
    // No acknowledgement comes: all room of the backlog is taken.
    world.run_only(0, world.now + SECOND);
    let count = world.nodes[0].announced().len();
    assert!(count < 1_500, "{count}");
    let old = |announce: &&&Announce| announce.path != path("backlog");
    let announced = world.nodes[0].announced();
    assert!(announced.iter().filter(old).all(|announce| announce.lane == Lane::Bulk));
    world.write(0, "call", "a call");
    world.run_only(0, world.now + SECOND);
    let announced = world.nodes[0].announced();
    let new: Vec<_> = announced[count..].iter().map(|one| (one.lane, one.path.clone())).collect();
    assert_eq!(new, [(Lane::Live, path("call"))]);
    let inline = announced.iter().filter(|announce| announce.inline.is_some()).count();
    assert_eq!(inline, 512 + 1, "what came along is new to the peer, small, and travels inside");
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[1].disk.objects.len(), 1_500 + 2);
}

#[test]
fn a_directory_is_told_of_before_what_came_along_with_it() {
    let mut world = with_files(&[("d", "a file")]);
    // It takes the file's name, and its own lane is slow.
    world.hold_up(0, 1, Lane::Live);
    world.remove(0, "d");
    bring_along(&mut world, 0, "d", 3);
    world.settle();
    world.let_go();
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[1].disk.objects.len(), 1 + 3, "no copy of the file, which has no rival");
}

#[test]
fn a_call_is_put_in_place_as_one_and_a_backlog_as_one() {
    let mut world = World::pair();
    // More than both lanes take.
    bring_along(&mut world, 0, "backlog", 1_500);
    world.write(0, "new/call", "a call");
    world.settle();
    world.check_quiet();
    let is_live = |effect: &Effect| match effect {
        Effect::Apply { op, lane } => Some((op.path.clone(), *lane == Lane::Live)),
        _ => None,
    };
    let lanes: BTreeMap<_, _> = world.nodes[1].log.iter().filter_map(is_live).collect();
    assert!(lanes[&path("new/call")]);
    assert!(lanes[&path("backlog")], "a call may be in the directory");
    assert!((0..1_500).all(|call| !lanes[&path(&format!("backlog/{call:04}"))]));
}

#[test]
fn a_restart_at_any_moment_changes_nothing_in_the_end() {
    let prepare = || {
        let mut world = with_files(&[("a", "one"), ("b", "two"), ("d/e", "three")]);
        world.write(0, "a", "changed");
        world.rename(0, "b", "c");
        world.write(1, "new/call.wav", "hello");
        world.remove(1, "d");
        world
    };
    let mut world = prepare();
    let quiet = world.now + 5 * SECOND;
    let mut steps = 0;
    while world.step(quiet) {
        steps += 1;
    }
    assert!(steps > 50, "{steps} moments");
    for (moment, of) in (0..=steps).flat_map(|moment| [(moment, 0), (moment, 1)]) {
        let mut world = prepare();
        for _ in 0..moment {
            world.step(quiet);
        }
        world.restart(of);
        world.settle();
        world.check_quiet();
        let tree = world.nodes[0].tree();
        assert_eq!(tree.len(), 4, "{} after {moment}: {tree:?}", world.nodes[of].name);
        world.check_file(1, "a", "changed");
        world.check_file(1, "c", "two");
        world.check_file(0, "new/call.wav", "hello");
    }
}

#[test]
fn tombstones_are_dropped_once_the_peer_has_acknowledged_them() {
    let mut world = with_files(&[("a", "one"), ("b", "two"), ("d/c", "three")]);
    world.remove(0, "a");
    world.remove(1, "b");
    world.remove(0, "d");
    world.settle();
    world.check_quiet();
    for node in &world.nodes {
        assert_eq!(node.entries(), [], "{}", node.name);
    }
}

#[test]
fn two_nodes_that_hold_the_same_files_fetch_nothing() {
    let mut world = World::new(&["fs1", "fs2"]);
    for (name, bytes) in [("a", "one"), ("d/b", "two"), ("d/e/c", "three")] {
        world.write(0, name, bytes);
    }
    let same = world.nodes[0].disk.objects.clone();
    world.nodes[1].disk.objects = same;
    world.nodes.iter_mut().for_each(|node| node.inbox.clear());
    world.scan(0);
    world.scan(1);
    world.link(0, 1);
    world.settle();
    world.check_quiet();
    for node in &world.nodes {
        assert_eq!(node.fetches(), 0);
        assert_eq!(node.conflicts(), 0);
        assert!(node.announced().iter().all(|announce| announce.inline.is_none()));
        assert_eq!(node.disk.trash, []);
    }
}

#[test]
fn the_same_bytes_under_many_names_cross_once() {
    let bytes = "x".repeat(100 << 10);
    let mut world = World::pair();
    for name in 0..20 {
        world.write(0, &format!("{name}.wav"), &bytes);
    }
    world.run_for(SECOND);
    let told = world.nodes[0].announced();
    assert_eq!(told.iter().filter(|announce| announce.inline.is_some()).count(), 1);
    assert_eq!(world.nodes[1].fetches(), 0, "the others are copied from the first one");
    world.check_quiet();
    // And later they are known to be there.
    world.forget();
    world.write(0, "late.wav", &bytes);
    world.run_for(SECOND);
    assert!(world.nodes[0].announced().iter().all(|announce| announce.inline.is_none()));
    assert_eq!(world.nodes[1].fetches(), 0);
    world.check_quiet();
}

#[test]
fn the_same_large_file_under_many_names_is_fetched_once() {
    let bytes = "x".repeat(300 << 10);
    let mut world = World::pair();
    for name in 0..20 {
        world.write(0, &format!("{name}.wav"), &bytes);
    }
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].fetches(), 1);
    world.check_quiet();
}

#[test]
fn names_that_wait_for_bytes_of_another_go_on_when_these_do_not_come() {
    let bytes = "x".repeat(100 << 10);
    let mut world = World::pair();
    world.nodes[1].disk.refuses.insert(path("0.wav"), TreeError::Denied);
    for name in 0..3 {
        world.write(0, &format!("{name}.wav"), &bytes);
    }
    world.run_for(SECOND);
    world.check_file(1, "1.wav", &bytes);
    world.check_file(1, "2.wav", &bytes);
    assert_eq!(world.nodes[1].fetches(), 1);
    world.nodes[1].disk.refuses.clear();
    world.settle();
    world.check_quiet();
}
