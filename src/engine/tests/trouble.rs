//! What goes wrong: paths that cannot be looked at or changed, guards that hold, clocks that jump.
//! Nothing of it may lose data, spin, or keep anything else from moving.

use std::time::Duration;

use recsync_proto::message::{Ack, AckState, Announcement, Bytes, Lane, ShareMessage};

use super::harness::{Dice, START_NS, What, World, file, node, path};
use crate::engine::conflict::{Digits, copy_path};
use crate::engine::version;
use crate::engine::{
    Action, Effect, Event, GuardEvent, Hint, Input, Look, MaxDelete, Noticed, Outcome,
};
use crate::index::{Index as _, IndexRead as _, Intent, PeerCursor, Write};
use crate::tree::TreeError;

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

/// Two nodes with 40 files, all of which vanished from the first: half of the deletes are held there.
fn with_held_calls() -> World {
    let mut world = with_calls(40);
    world.limit_deletes(0, half());
    world.vanish(0, "d");
    world.settle();
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

/// Goes on until a node has such a job, does it, and holds back what it answers.
fn hold(world: &mut World, of: usize, is_it: impl Fn(&Effect) -> bool) -> Input {
    loop {
        if let Some(number) = world.nodes[of].jobs.iter().position(&is_it) {
            let before = world.nodes[of].inbox.len();
            world.job(of, number);
            let mut said = world.nodes[of].inbox.split_off(before);
            let is_answer = |input: &Input| !matches!(input, Input::Dirty { .. });
            said.retain(is_answer);
            return said.pop_front().unwrap();
        }
        assert!(world.step(world.now + SECOND), "there was no such job");
    }
}

/// The kernel refuses an exchange, and every way back from it: what came out lies under the operation's temporary
/// name, and does not stay there until the next start.
#[test]
fn what_an_operation_could_neither_do_nor_undo_is_settled_while_the_node_runs() {
    let mut world = World::pair();
    world.write(0, "call.wav", "hello");
    world.settle();
    world.write(0, "call.wav", "hello again");
    let replaces = |job: &Effect| matches!(job, Effect::Apply { op, .. } if op.expect.is_some());
    let op = loop {
        if let Some(at) = world.nodes[1].jobs.iter().position(replaces)
            && let Effect::Apply { op, .. } = world.nodes[1].jobs.remove(at)
        {
            break op;
        }
        assert!(world.step(world.now + SECOND), "nothing is replaced");
    };
    let intents = world.nodes[1].index.intents().unwrap();
    world.forget();
    world.input(1, Input::Applied { id: op.id, outcome: Outcome::Stuck });
    world.run_for(2 * SECOND);
    let log = &world.nodes[1].log;
    assert!(log.contains(&Effect::Settle(intents[0].clone())) && intents[0].id == op.id);
    assert!(log.contains(&Effect::Scan(op.path.clone())), "it is settled by a scan of its path");
    assert_eq!(world.nodes[1].index.intents().unwrap(), intents, "the next start needs it");
    world.check_file(1, "call.wav", "hello again");

    world.input(1, Input::Settled { exchanged: vec![], perhaps: vec![], done: vec![op.id] });
    world.settle();
    assert_eq!(world.nodes[1].index.intents().unwrap(), vec![]);
    world.check_file(1, "call.wav", "hello again");
    world.check_quiet();
}

#[test]
fn bytes_that_come_for_a_name_that_wants_others_by_now_keep_no_other_name_waiting() {
    let call = "x".repeat(300 << 10);
    let mut world = World::pair();
    world.write(0, "a", &call);
    let fetched = hold(&mut world, 1, |job| matches!(job, Effect::Fetch { .. }));
    world.write(0, "b", &call);
    world.run_for(SECOND);
    world.check_absent(1, "b");
    world.mkdir(0, "a");
    world.run_for(SECOND);
    world.input(1, fetched);
    world.run_for(SECOND);
    world.check_quiet();
    world.check_file(1, "b", &call);
}

/// Three nodes, the second linked to the others.
fn line() -> World {
    let mut world = World::new(&["fs1", "fs2", "fs3"]);
    (0..3).for_each(|of| world.scan(of));
    world.link(0, 1);
    world.link(1, 2);
    world.settle();
    world.forget();
    world
}

#[test]
fn a_fetch_in_whose_place_another_one_has_come_keeps_no_other_name_waiting() {
    let call = "x".repeat(300 << 10);
    let mut world = line();
    world.write(0, "a", &call);
    let fetched = hold(&mut world, 1, |job| matches!(job, Effect::Fetch { .. }));
    world.write(0, "b", &call);
    world.run_for(SECOND);
    world.check_absent(1, "b");
    // Nor does a conflict copy bring them.
    world.hold_up(0, 1, Lane::Bulk);
    let other = "y".repeat(300 << 10);
    world.write(2, "a", &other);
    world.run_for(SECOND);
    world.check_file(1, "a", &other);
    world.check_file(1, "b", &call);
    world.let_go();
    world.input(1, fetched);
    world.settle();
    world.check_quiet();
}

/// What came along with an older version is no use for the one that is wanted by now.
#[test]
fn bytes_that_come_late_are_not_taken_for_those_of_a_newer_version() {
    let mut world = line();
    world.link(0, 2);
    world.hold_up(0, 1, Lane::Live);
    world.write(0, "a", "hello");
    world.run_for(SECOND);
    let next = "y".repeat(300 << 10);
    world.write(2, "a", &next);
    let fetched = hold(&mut world, 1, |job| matches!(job, Effect::Fetch { .. }));
    world.let_go();
    world.run_for(SECOND);
    assert_eq!(troubles(&world, 1), 0);
    world.input(1, fetched);
    world.settle();
    world.check_file(1, "a", &next);
    world.check_quiet();
}

#[test]
fn what_was_seen_before_its_directory_was_gone_does_not_enter_the_index_behind_that() {
    let mut world = World::pair();
    world.write(0, "d/1.wav", "a call");
    let is_it = |job: &Effect| matches!(job, Effect::Look { path, .. } if path.name() == b"1.wav");
    let answer = hold(&mut world, 0, is_it);
    world.vanish(0, "d");
    world.run_for(SECOND);
    world.input(0, answer);
    world.run_for(5 * SECOND);
    world.check_quiet();
    assert!(world.nodes[1].disk.objects.is_empty());
}

#[test]
fn what_was_seen_before_a_scan_does_not_enter_the_index_behind_it() {
    // A look, and the end of a change for a peer; what happens then is heard by nobody.
    for writer in [0, 1] {
        let mut world = World::pair();
        world.write(writer, "d/1.wav", "a call");
        let is_it = |job: &Effect| match job {
            Effect::Look { path, .. } => writer == 0 && path.name() == b"1.wav",
            Effect::Apply { op, .. } => op.path.name() == b"1.wav",
            _ => false,
        };
        let answer = hold(&mut world, 0, is_it);
        world.nodes[0].disk.objects.remove(&path("d/1.wav"));
        world.scan(0);
        world.settle();
        world.input(0, answer);
        world.settle();
        world.check_quiet();
        world.check_absent(1, "d/1.wav");
    }
}

#[test]
fn what_went_before_its_directory_was_watched_is_gone() {
    // Before the end of the change that made the directory is known, and after it.
    for is_known in [false, true] {
        let mut world = World::pair();
        world.write(0, "d/e/1.wav", "a call");
        // The directories are only implied: they are made with the file.
        world.nodes[0]
            .inbox
            .retain(|input| matches!(input, Input::Dirty { path, .. } if path.name() == b"1.wav"));
        let is_it = |job: &Effect| matches!(job, Effect::Apply { .. });
        let applied = hold(&mut world, 1, is_it);
        world.nodes[1].disk.objects.remove(&path("d/e/1.wav"));
        world.nodes[1].disk.objects.remove(&path("d/e"));
        if is_known {
            world.input(1, applied.clone());
            world.settle();
        }
        world.input(1, Input::Watched(path("d")));
        world.turn(1);
        world.forget();
        world.input(1, applied);
        world.settle();
        world.check_absent(0, "d/e/1.wav");
        let is_looked_at = |text: &str| {
            let is_it =
                |job: &Effect| matches!(job, Effect::Look { path: at, .. } if *at == path(text));
            world.nodes[1].log.iter().any(is_it)
        };
        assert!(is_looked_at("d/e") && is_looked_at("d/e/1.wav"), "{:#?}", world.nodes[1].log);
    }
}

#[test]
fn a_directory_that_its_users_made_is_not_scanned_when_it_is_watched() {
    let mut world = World::pair();
    world.write(0, "d/1.wav", "a call");
    world.input(0, Input::Watched(path("d")));
    world.settle();
    world.check_quiet();
    assert_eq!(scans(&world, 0), 0);
}

#[test]
fn what_changes_while_it_is_looked_at_is_looked_at_as_closely_again() {
    let mut world = with_calls(1);
    world.write(0, "d/0.wav", "another");
    let is_look = |job: &Effect| matches!(job, Effect::Look { .. });
    let looked = hold(&mut world, 0, is_look);
    world.chmod(0, "d/0.wav", 0o600);
    world.forget();
    world.input(0, looked);
    world.settle();
    world.check_quiet();
    let hints: Vec<_> = world.nodes[0]
        .log
        .iter()
        .filter_map(|effect| match effect {
            Effect::Look { hint, .. } => Some(*hint),
            _ => None,
        })
        .collect();
    assert_eq!(hints, [Hint::Written]);
}

#[test]
fn a_rename_is_one_though_a_scan_misses_the_old_name_meanwhile() {
    let mut world = with_calls(1);
    let old = path("d/0.wav");
    world.rename(0, "d/0.wav", "d/1.wav");
    let answer =
        hold(&mut world, 0, |job| matches!(job, Effect::Look { path, .. } if *path == old));
    world.scan(0);
    world.settle();
    world.input(0, answer);
    world.settle();
    world.check_quiet();
    let ops = world.nodes[1].ops();
    assert!(ops.iter().any(|op| matches!(op.action, Action::Move { .. })), "{ops:?}");
}

/// What is to be put below a name waits as long as it may be the new one of a renamed file.
#[test]
fn what_waits_below_a_name_that_may_be_a_renamed_files_goes_on_when_that_is_known() {
    for (is_renamed, is_replaced) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut world = with_calls(1);
        world.cut(0, 1);
        world.mkdir(0, "new");
        world.write(0, "new/b.wav", "another call");
        world.run_only(0, world.now + SECOND);
        world.rename(1, "d/0.wav", "new");
        let old = path("d/0.wav");
        let looks_at_old = |job: &Effect| matches!(job, Effect::Look { path, .. } if *path == old);
        let answer = hold(&mut world, 1, looks_at_old);
        if !is_renamed {
            world.write(1, "d/0.wav", "call 0");
        }
        world.link(0, 1);
        world.run_for(SECOND);
        if is_replaced {
            // Then nothing has to be changed at the name itself.
            world.remove(1, "new");
            world.mkdir(1, "new");
        }
        world.input(1, answer);
        world.settle();
        world.check_quiet();
        [0, 1].iter().for_each(|of| world.check_file(*of, "new/b.wav", "another call"));
    }
}

/// A new name that waited for the look at the old one may be gone by then, with its directory.
#[test]
fn what_waited_to_be_known_as_renamed_is_not_found_below_a_file() {
    for is_renamed in [false, true] {
        let mut world = with_calls(1);
        world.mkdir(0, "new");
        world.settle();
        world.rename(0, "d/0.wav", "new/b");
        if !is_renamed {
            world.write(0, "d/0.wav", "call 0");
        }
        let old = path("d/0.wav");
        let looks_at_old = |job: &Effect| matches!(job, Effect::Look { path, .. } if *path == old);
        let answer = hold(&mut world, 0, looks_at_old);
        world.remove(0, "new/b");
        world.remove(0, "new");
        world.write(0, "new", "a file");
        world.run_for(SECOND);
        world.input(0, answer);
        world.settle();
        world.check_quiet();
        for of in [0, 1] {
            world.check_file(of, "new", "a file");
            assert_eq!(world.nodes[of].conflicts(), 0, "renamed: {is_renamed}");
        }
    }
}

/// Leaves of the first node's file what a power cut may: unheard.
fn cut_short(world: &mut World, text: &str, left: &str) {
    let now = world.nodes[0].disk.objects.get_mut(&path(text)).unwrap();
    now.what = What::File(left.into());
    now.mtime_ns += 1;
}

#[test]
fn files_that_lost_bytes_when_the_machine_went_down_are_fetched_back() {
    for (down, there) in [(true, "call 0"), (false, "")] {
        let mut world = with_calls(2);
        // The power goes: a rewrite of the file had been begun, and is not on the disk.
        cut_short(&mut world, "d/0.wav", "");
        world.restart(0);
        if down {
            world.nodes[0].engine.doubt_files();
        }
        world.settle();
        world.check_quiet();
        for of in [0, 1] {
            world.check_file(of, "d/0.wav", there);
            world.check_file(of, "d/1.wav", "call 1");
        }
        assert!(!world.nodes[0].engine.doubts_files(), "until the scan is absorbed");
        let trash = &world.nodes[usize::from(!down)].disk.trash;
        let kept = if down { Vec::new() } else { b"call 0".to_vec() };
        assert!(trash.contains(&(path("d/0.wav"), What::File(kept))), "{trash:?}");
        // From then on it is news again.
        world.write(0, "d/1.wav", "");
        world.settle();
        world.check_file(1, "d/1.wav", "");
    }
}

/// A read for a peer finds other bytes than the index says, under the very stat: of a disk that decays, or
/// that lied about a sync before the power went.
#[test]
fn what_the_disk_made_of_a_file_is_no_version() {
    for (is_heard, there) in [(false, "call 0"), (true, "caII 0")] {
        let mut world = with_calls(1);
        let noticed = if is_heard { Noticed::Watcher(world.now) } else { Noticed::Scan };
        let call = path("d/0.wav");
        world.nodes[0].disk.objects.get_mut(&call).unwrap().what = What::File("caII 0".into());
        world.input(0, Input::Dirty { path: call, hint: Hint::Written, noticed });
        world.settle();
        world.check_quiet();
        [0, 1].iter().for_each(|of| world.check_file(*of, "d/0.wav", there));
        let kept = usize::from(!is_heard);
        assert_eq!([0, 1].map(|of| world.nodes[of].conflicts()), [kept; 2]);
    }
}

/// Who sets its mode has not written to it.
#[test]
fn what_the_power_cut_left_is_no_version_though_its_mode_was_set_since() {
    for runs_before in [0, 1, 2, 3, 4] {
        let mut world = with_calls(1);
        cut_short(&mut world, "d/0.wav", "ca");
        world.restart(0);
        world.nodes[0].engine.doubt_files();
        for _ in 0..runs_before {
            world.act();
        }
        world.chmod(0, "d/0.wav", 0o600);
        world.settle();
        world.check_quiet();
        [0, 1].iter().for_each(|of| world.check_file(*of, "d/0.wav", "call 0"));
        assert_eq!([0, 1].map(|of| world.nodes[of].conflicts()), [1, 1]);
    }
}

/// A peer that knows of no acknowledgement tells again while the scan is under way.
#[test]
fn what_may_have_gone_with_the_machine_is_acknowledged_only_once_it_was_looked_at() {
    let call = path("d/0.wav");
    for seed in 0..50 {
        let mut world = with_calls(1);
        world.dice = Some(Dice(seed));
        world.cut(0, 1);
        world.restart_with(1, |mut index| {
            index.write(&Write::Peer(node("fs1"), PeerCursor::default())).unwrap();
            index
        });
        cut_short(&mut world, "d/0.wav", "");
        world.restart(0);
        world.nodes[0].engine.doubt_files();
        world.link(0, 1);
        while world.nodes[0].disk.objects[&call].what == What::File(Vec::new()) {
            for message in world.on_wire(0, 1) {
                let ShareMessage::Acks(acks) = message else { continue };
                let durable = acks.iter().filter(|ack| ack.state == AckState::Durable);
                let mut paths = durable.map(|ack| world.nodes[1].index.at(ack.seq).unwrap());
                assert!(paths.all(|path| path.as_ref() != Some(&call)), "seed {seed}");
            }
            assert!(world.step(world.now + HOUR), "seed {seed}: it does not come back");
        }
        world.settle();
        world.check_quiet();
        world.check_file(0, "d/0.wav", "call 0");
    }
}

/// A node that dies after it removed a file, and hears that the same bytes are back before it sees that.
#[test]
fn what_is_gone_was_not_the_version_that_came_after_it() {
    let mut world = with_calls(1);
    world.remove(1, "d/0.wav");
    hold(&mut world, 0, |job| matches!(job, Effect::Apply { .. }));
    world.nodes[0].disk.shows.insert(path("d/0.wav"), Look::Busy);
    world.restart(0);
    world.write(1, "d/0.wav", "call 0");
    world.run_for(SECOND);
    world.nodes[0].disk.shows.clear();
    world.settle();
    world.check_quiet();
    world.check_file(0, "d/0.wav", "call 0");
    world.check_file(1, "d/0.wav", "call 0");
}

/// What stayed as it could not be replaced is no version of this node's own, though it has the bytes of one that
/// came and went meanwhile.
#[test]
fn what_stayed_is_no_version_of_its_own() {
    for is_restarted in [false, true] {
        let mut world = with_calls(1);
        let call = path("d/0.wav");
        world.nodes[0].disk.shows.insert(call.clone(), denied());
        world.notice(0, &call, Hint::Written);
        for text in ["another call", "call 0", "the last call"] {
            world.write(1, "d/0.wav", text);
            world.run_for(600 * SECOND);
        }
        world.nodes[0].disk.shows.clear();
        if is_restarted {
            world.restart(0);
        }
        world.run_for(HOUR);
        world.check_quiet();
        assert_eq!([world.nodes[0].conflicts(), world.nodes[1].conflicts()], [0, 0]);
        world.check_file(0, "d/0.wav", "the last call");
        world.check_file(1, "d/0.wav", "the last call");
    }
}

/// A passing error must not make news of what the power cut did.
#[test]
fn files_that_lost_bytes_are_fetched_back_though_they_cannot_be_looked_at_at_first() {
    let call = path("d/0.wav");
    for in_scan in [true, false] {
        let mut world = with_calls(2);
        cut_short(&mut world, "d/0.wav", "");
        let disk = &mut world.nodes[0].disk;
        if in_scan {
            disk.unreadable.insert(call.clone());
            disk.shows.insert(call.clone(), Look::Unchanged);
        } else {
            disk.shows.insert(call.clone(), Look::Unknown(TreeError::Io("sick".to_owned())));
        }
        world.restart(0);
        world.nodes[0].engine.doubt_files();
        world.run_for(SECOND / 2);
        let disk = &mut world.nodes[0].disk;
        disk.unreadable.clear();
        disk.shows.clear();
        world.settle();
        assert!(world.nodes[0].engine.doubts_files(), "until the next scan");
        world.scan(0);
        world.settle();
        world.check_quiet();
        world.check_file(0, "d/0.wav", "call 0");
        assert!(!world.nodes[0].engine.doubts_files());
    }
}

/// Whether the peer has it is not known here: its acknowledgement was lost with the link, or there was none.
#[test]
fn what_is_left_of_a_file_wins_only_if_nobody_has_more_of_it() {
    for arrived in [true, false] {
        let mut world = with_calls(1);
        if !arrived {
            world.cut(0, 1);
        }
        world.write(0, "new.wav", "a new call");
        let new = path("new.wav");
        while arrived && !world.nodes[1].disk.objects.contains_key(&new) {
            assert!(world.step(world.now + SECOND), "it does not come");
        }
        world.run_only(0, world.now + SECOND / 10);
        world.cut(0, 1);
        cut_short(&mut world, "new.wav", "a new");
        world.restart(0);
        world.nodes[0].engine.doubt_files();
        world.run_for(SECOND);
        world.link(0, 1);
        world.run_for(HOUR);
        world.check_quiet();
        let left = if arrived { "a new call" } else { "a new" };
        [0, 1].iter().for_each(|of| world.check_file(*of, "new.wav", left));
    }
}

/// What lost bytes here and was deleted elsewhere meanwhile is kept, and so is the directory that was to go with it.
#[test]
fn what_is_left_of_a_file_that_was_deleted_elsewhere_keeps_its_directory() {
    let mut world = with_calls(1);
    world.cut(0, 1);
    world.remove(1, "d");
    world.run_only(1, world.now + SECOND);
    cut_short(&mut world, "d/0.wav", "ca");
    world.restart(0);
    world.nodes[0].engine.doubt_files();
    let disk = &mut world.nodes[0].disk;
    disk.shows.insert(path("d/0.wav"), denied());
    disk.unreadable.insert(path("d/0.wav"));
    world.link(0, 1);
    world.run_for(SECOND);
    let disk = &mut world.nodes[0].disk;
    disk.shows.clear();
    disk.unreadable.clear();
    world.settle();
    world.check_quiet();
    [0, 1].iter().for_each(|of| world.check_file(*of, "d/0.wav", "ca"));
}

#[test]
fn a_node_without_room_takes_nothing_new_and_goes_on_with_all_else() {
    let mut world = with_calls(4);
    world.input(1, Input::Room { bytes: None });
    world.write(0, "new.wav", "a new call");
    world.write(0, "d/0.wav", "another content");
    world.rename(0, "d/1.wav", "d/renamed.wav");
    world.chmod(0, "d/2.wav", 0o600);
    world.remove(0, "d/3.wav");
    world.write(1, "local.wav", "recorded here");
    world.run_for(HOUR);
    world.check_absent(1, "new.wav");
    world.check_file(1, "d/0.wav", "call 0");
    world.check_file(1, "d/renamed.wav", "call 1");
    world.check_absent(1, "d/3.wav");
    world.check_file(0, "local.wav", "recorded here");
    assert_eq!(world.nodes[1].entry("d/2.wav").installed.unwrap().mode, 0o600);
    assert_eq!(world.nodes[0].engine.load(), crate::engine::Load::default(), "nothing spins");
    let backlog = world.nodes[0].index.backlog(&node("fs2")).unwrap();
    assert_eq!(backlog.files, 0, "what is held is no lag");

    world.input(1, Input::Room { bytes: Some(u64::MAX) });
    world.settle();
    world.check_quiet();
    world.check_file(1, "new.wav", "a new call");
    world.check_file(1, "d/0.wav", "another content");
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
    let mut world = with_held_calls();
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

#[test]
fn a_share_that_starts_again_while_answers_are_on_the_wire_loses_no_acknowledgement() {
    for seed in 0..300 {
        let mut world = with_calls(3);
        let mut dice = Dice(seed);
        world.dice = Some(Dice(seed));
        for round in 0..4 {
            world.write(0, &format!("a{round}"), "from one");
            world.write(1, &format!("b{round}"), "from the other");
            world.remove(round % 2, &format!("d/{round}.wav"));
            for _ in 0..dice.roll(30) {
                world.act();
            }
            world.restart_share(dice.roll(2));
        }
        world.settle();
        world.check_quiet();
    }
}

// ---- paths that cannot be looked at ----------------------------------------------------------

fn denied() -> Look {
    Look::Unknown(TreeError::Denied)
}

fn troubles(world: &World, of: usize) -> usize {
    world.nodes[of].events().filter(|event| matches!(event, Event::Trouble { .. })).count()
}

/// The delays before the next try that a node told of.
fn delays(world: &World, of: usize) -> Vec<Duration> {
    let delays = world.nodes[of].events().filter_map(|event| match event {
        Event::Trouble { retry, .. } => Some(*retry),
        _ => None,
    });
    delays.collect()
}

#[test]
fn a_path_that_cannot_be_looked_at_is_tried_ever_more_rarely_and_is_no_delete() {
    for (name, known) in [("d/0.wav", true), ("new.wav", false)] {
        let mut world = with_calls(1);
        world.nodes[0].disk.shows.insert(path(name), denied());
        world.notice(0, &path(name), Hint::Written);
        world.run_for(4 * HOUR);
        assert_eq!(world.nodes[0].engine.load().failing, 1);
        assert!(world.nodes[0].announced().is_empty());
        let expected = (0..12).map(|power| SECOND * 2_u32.pow(power)).chain([HOUR; 3]);
        assert_eq!(delays(&world, 0), expected.collect::<Vec<_>>(), "{name}");
        world.nodes[0].disk.shows.clear();
        world.run_for(HOUR);
        assert_eq!(world.nodes[1].disk.objects.contains_key(&path(name)), known);
        world.check_quiet();
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again() {
    for look in [Look::Unstable, Look::TooFresh(SECOND)] {
        let mut world = World::pair();
        world.write(0, "a", "hello");
        world.nodes[0].disk.shows.insert(path("a"), look);
        world.run_for(60 * SECOND);
        assert!(world.nodes[0].announced().is_empty());
        let looks = world.nodes[0].looks();
        assert!((50..=60 * 50).contains(&looks), "{looks} looks");
        world.nodes[0].disk.shows.clear();
        world.settle();
        world.check_file(1, "a", "hello");
        world.check_quiet();
    }
}

/// IN_CLOSE_WRITE comes from fput(), which counts the writer out a moment later.
#[test]
fn a_writer_that_is_just_leaving_costs_one_more_settle_time() {
    let mut world = World::pair();
    world.write(0, "a", "hello");
    world.nodes[0].disk.shows.insert(path("a"), Look::Busy);
    world.run_for(Duration::from_millis(25));
    assert_eq!(world.nodes[0].looks(), 1);
    world.nodes[0].disk.shows.clear();
    world.run_for(Duration::from_millis(100));
    world.check_file(1, "a", "hello");
}

#[test]
fn what_a_peer_wants_where_nobody_can_look_is_held() {
    let tree = |error| Look::Unknown(error);
    for look in [
        denied(),
        tree(TreeError::Io("EIO".to_owned())),
        Look::Special,
        Look::Unsyncable("too long".to_owned()),
        Look::Busy,
    ] {
        let mut world = with_calls(1);
        world.nodes[1].disk.shows.insert(path("d/0.wav"), look.clone());
        world.notice(1, &path("d/0.wav"), Hint::Written);
        world.settle();
        // The operation finds something else than expected, too.
        world.nodes[1].disk.objects.get_mut(&path("d/0.wav")).unwrap().ctime_ns += 1;
        world.write(0, "d/0.wav", "new");
        world.run_for(60 * SECOND);
        let peer = world.nodes[1].name.clone();
        let seq = world.nodes[0].entry("d/0.wav").seq;
        assert!(world.nodes[0].index.is_held(&peer, seq).unwrap(), "{look:?}");
        assert_eq!(world.nodes[0].index.backlog(&peer).unwrap().files, 0);
        world.nodes[1].disk.shows.clear();
        world.notice(1, &path("d/0.wav"), Hint::Written);
        world.run_for(2 * HOUR);
        world.check_quiet();
        world.check_file(1, "d/0.wav", "new");
        assert!(!world.nodes[0].index.is_held(&peer, seq).unwrap());
    }
}

#[test]
fn a_fifo_in_the_way_of_a_peers_file_holds_it() {
    let mut world = World::pair();
    world.make(1, "a", What::Special);
    world.settle();
    world.write(0, "a", "hello");
    world.run_for(4 * HOUR);
    let peer = world.nodes[1].name.clone();
    let seq = world.nodes[0].entry("a").seq;
    assert!(world.nodes[0].index.is_held(&peer, seq).unwrap());
    assert!(world.nodes[1].ops().len() < 20, "{} operations", world.nodes[1].ops().len());
    world.remove(1, "a");
    world.run_for(HOUR);
    world.check_file(1, "a", "hello");
    world.check_quiet();
}

#[test]
fn a_directory_that_holds_what_is_not_synced_stays_and_is_held() {
    let mut world = with_calls(3);
    world.make(1, "d/fifo", What::Special);
    world.settle();
    world.remove(0, "d");
    world.run_for(4 * HOUR);
    assert_eq!(world.nodes[1].tree(), ["d/", "d/fifo special"]);
    let peer = world.nodes[1].name.clone();
    assert_eq!(world.nodes[0].index.backlog(&peer).unwrap().files, 0);
    assert!(world.nodes[1].ops().len() < 24, "{} operations", world.nodes[1].ops().len());
    world.remove(1, "d/fifo");
    world.run_for(HOUR);
    world.check_quiet();
    assert!(world.nodes[1].disk.objects.is_empty());
}

// ---- paths that cannot be changed ------------------------------------------------------------

#[test]
fn a_failing_operation_is_tried_ever_more_rarely_and_keeps_nothing_else() {
    let mut world = World::pair();
    world.nodes[1].disk.refuses.insert(path("full.wav"), TreeError::NoSpace);
    world.write(0, "full.wav", "too much");
    world.run_for(4 * HOUR);
    assert_eq!(delays(&world, 1).len(), 15, "{:?}", delays(&world, 1));
    assert!(world.nodes[1].log.len() < 100, "{} effects in four hours", world.nodes[1].log.len());
    for state in ["one", "two", "three"] {
        world.write(0, "full.wav", state);
        world.write(0, "other.wav", state);
        world.run_for(SECOND);
        world.check_file(1, "other.wav", state);
    }
    world.nodes[1].disk.refuses.clear();
    world.run_for(2 * HOUR);
    world.check_file(1, "full.wav", "three");
    world.check_quiet();
}

#[test]
fn thousands_of_failing_paths_keep_a_new_recording_from_nothing() {
    let mut world = World::pair();
    for call in 0..1_200 {
        let name = format!("{call}.wav");
        world.nodes[1].disk.refuses.insert(path(&name), TreeError::NoSpace);
        world.write(0, &name, &name);
    }
    world.run_for(60 * SECOND);
    world.write(0, "new.wav", "new");
    world.run_for(SECOND);
    world.check_file(1, "new.wav", "new");
    world.nodes[1].disk.refuses.clear();
    world.run_for(2 * HOUR);
    world.check_quiet();
    assert_eq!(world.nodes[1].disk.objects.len(), 1_201);
}

#[test]
fn bytes_that_are_not_what_they_should_be_are_fetched() {
    let mut world = World::pair();
    world.cut(0, 1);
    world.write(0, "a", "hello");
    world.settle();
    world.link(0, 1);
    // Only the links' openings are delivered.
    while world.nodes[0].announced().is_empty() {
        assert!(world.act());
    }
    let announce = world.nodes[0].announced()[0].clone();
    let (peer, lane) = (world.nodes[0].name.clone(), Lane::Live);
    let message = ShareMessage::Announce(vec![Announcement {
        seq: announce.seq,
        path: announce.path,
        record: announce.record,
        inline: Some(Bytes(b"jello".to_vec())),
        moved_from: None,
    }]);
    world.input(1, Input::Message { peer, lane, message });
    world.settle();
    world.check_file(1, "a", "hello");
    world.check_quiet();
}

#[test]
fn a_file_that_the_peer_cannot_send_any_more_is_asked_for_ever_more_rarely() {
    let mut world = World::pair();
    let bytes = "x".repeat(300 << 10);
    world.write(0, "a", &bytes);
    // It vanishes before it is fetched, and nobody tells.
    while world.nodes[1].jobs.is_empty() {
        if !world.act() {
            world.now = world.nodes[0].engine.next_due().unwrap();
            world.turn(0);
        }
    }
    let gone = world.nodes[0].disk.objects.remove(&path("a")).unwrap();
    world.run_for(4 * HOUR);
    assert_eq!(world.nodes[1].fetches(), 15);
    assert_eq!(troubles(&world, 1), 15);
    world.nodes[0].disk.objects.insert(path("a"), gone);
    world.run_for(HOUR);
    world.check_file(1, "a", &bytes);
    world.check_quiet();
}

#[test]
fn bytes_that_no_peer_has_any_more_are_taken_from_a_file_here_that_came_to_have_them() {
    let mut world = World::pair();
    let call = "x".repeat(300 << 10);
    world.write(0, "a", &call);
    let announced = |world: &World| world.nodes[1].fetches() > 0;
    while !announced(&world) {
        assert!(world.step(world.now + SECOND));
    }
    world.nodes[0].disk.objects.remove(&path("a"));
    world.run_for(10 * SECOND);
    assert!(world.nodes[1].fetches() > 2, "it asks in vain");
    world.write(1, "b", &call);
    world.run_for(Duration::from_secs(120));
    world.check_file(1, "a", &call);
}

#[test]
fn files_that_cannot_be_fetched_do_not_starve_those_that_can() {
    let mut world = World::pair();
    let bytes = |name: usize| format!("{name}").repeat(100 << 10);
    world.cut(0, 1);
    for name in 0..300 {
        world.write(0, &format!("{name}"), &bytes(name));
    }
    world.settle();
    // The newest two hundred are gone from the disk, and nobody tells.
    for name in 100..300 {
        world.nodes[0].disk.objects.remove(&path(&format!("{name}")));
    }
    world.link(0, 1);
    world.run_for(60 * SECOND);
    assert_eq!(world.nodes[1].disk.objects.len(), 100);
}

// ---- guards ----------------------------------------------------------------------------------

/// A share of `count` directories with a call in each.
fn with_days(count: usize) -> World {
    let mut world = World::pair();
    for day in 0..count {
        world.write(0, &format!("day/{day}/call.wav"), &format!("call {day}"));
    }
    world.settle();
    world.check_quiet();
    world.forget();
    world
}

#[test]
fn what_the_guard_holds_keeps_nothing_else() {
    let mut world = with_days(1_200);
    world.limit_deletes(1, half());
    world.remove(0, "day");
    world.settle();
    assert!(world.nodes[1].engine.held()[1].is_some());
    world.write(0, "new.wav", "new");
    world.run_for(SECOND);
    world.check_file(1, "new.wav", "new");
    let peer = world.nodes[1].name.clone();
    assert_eq!(world.nodes[0].index.backlog(&peer).unwrap().files, 0, "held is no lag");
    world.input(1, Input::Decide { confirm: true });
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[1].tree().len(), 1);
}

#[test]
fn many_clashes_of_kinds_do_not_fill_the_lanes() {
    let mut world = World::pair();
    world.cut(0, 1);
    for name in 0..1_100 {
        world.write(1, &format!("{name}"), "a file");
        world.mkdir(0, &format!("{name}"));
    }
    world.settle();
    world.link(0, 1);
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[0].conflicts(), 1_100);
}

#[test]
fn vanished_files_are_held_and_go_when_confirmed() {
    let mut world = with_held_calls();
    let held = world.nodes[0].events().filter(|event| matches!(event, Event::Guard(_))).count();
    assert_eq!(held, 1, "told once");
    assert_eq!(world.nodes[1].disk.objects.len(), 1 + 40 - 20);
    world.write(0, "new.wav", "new");
    world.run_for(SECOND);
    world.check_file(1, "new.wav", "new");
    world.input(0, Input::Decide { confirm: true });
    world.run_for(120 * SECOND);
    assert_eq!(world.nodes[0].engine.held(), [None, None]);
    world.check_quiet();
    assert_eq!(world.nodes[1].tree().len(), 1);
    // And the guard is on again.
    for call in 0..40 {
        world.write(0, &format!("d/{call}.wav"), "again");
    }
    world.settle();
    world.vanish(0, "d");
    world.settle();
    assert!(world.nodes[0].engine.held()[0].is_some());
}

#[test]
fn vanished_files_are_held_and_come_back_when_refused() {
    let mut world = with_calls(40);
    world.mkdir(0, "d/empty");
    world.settle();
    world.limit_deletes(0, half());
    world.vanish(0, "d");
    world.settle();
    assert!(world.nodes[0].engine.held()[0].is_some());
    world.input(0, Input::Decide { confirm: false });
    world.run_for(120 * SECOND);
    world.check_quiet();
    assert!(world.nodes[0].disk.objects.contains_key(&path("d/empty")));
    assert_eq!(world.nodes[0].disk.objects.len(), 2 + 40 - 20, "20 were gone before it tripped");
    // What is deleted from now on is deleted.
    world.remove(0, "d/39.wav");
    world.remove(0, "d/38.wav");
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[1].disk.objects.len(), 2 + 40 - 20 - 2);
}

/// What vanished was no version any more: its successor is not kept waiting for the operator.
#[test]
fn what_vanished_and_was_replaced_elsewhere_is_not_held() {
    let mut world = with_held_calls();
    let kept = (0..40).map(|call| format!("d/{call}.wav"));
    let kept = kept.filter(|call| world.nodes[1].disk.objects.contains_key(&path(call)));
    let kept: Vec<String> = kept.collect();
    world.write(1, &kept[0], "newer");
    world.settle();
    world.check_file(0, &kept[0], "newer");
    world.check_at_rest(0);
    assert!(world.nodes[0].engine.held()[0].is_some());
    assert_eq!(world.nodes[1].disk.objects.len(), 1 + 40 - 20, "the others wait as before");
    world.input(0, Input::Decide { confirm: true });
    world.run_for(120 * SECOND);
    world.check_quiet();
    assert_eq!(world.nodes[1].disk.objects.len(), 2, "the directory and the newer one");
}

#[test]
fn a_peers_deletes_are_held_and_undone_when_refused() {
    let mut world = with_calls(40);
    world.limit_deletes(1, half());
    world.remove(0, "d");
    world.settle();
    assert_eq!(world.nodes[1].disk.objects.len(), 1 + 40 - 20);
    world.input(1, Input::Decide { confirm: false });
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[0].disk.objects.len(), 1 + 40 - 20, "they live again everywhere");
    assert_eq!(world.nodes[1].engine.held(), [None, None]);
}

/// How many deletes were held when it was told last, and of how many files.
fn told_held(world: &World, of: usize) -> Vec<(u64, u64)> {
    let held = |event: &Event| match event {
        Event::Guard(GuardEvent::DeletesHeld { gone, of }) => Some((*gone, *of)),
        _ => None,
    };
    world.nodes[of].events().filter_map(held).collect()
}

#[test]
fn vanished_files_that_are_held_stay_so_over_restarts() {
    for confirm in [true, false] {
        let mut world = with_held_calls();
        for _ in 0..3 {
            world.forget();
            world.restart(0);
            world.settle();
            assert_eq!(world.nodes[0].engine.held()[0], Some((20, 40)));
            assert_eq!(told_held(&world, 0), [(21, 40)], "told again once");
            assert_eq!(world.nodes[1].disk.objects.len(), 1 + 40 - 20, "nothing more went");
        }
        world.input(0, Input::Decide { confirm });
        world.act();
        // The decision outlives a restart too.
        world.restart(0);
        world.run_for(120 * SECOND);
        world.check_quiet();
        assert_eq!(world.nodes[0].engine.held(), [None, None]);
        assert_eq!(world.nodes[1].disk.objects.len(), if confirm { 0 } else { 1 + 20 });
    }
}

#[test]
fn a_peers_deletes_that_are_held_stay_so_over_restarts_of_either_node() {
    for (of, confirm) in [(0, true), (0, false), (1, true), (1, false)] {
        let mut world = with_calls(40);
        world.limit_deletes(1, half());
        world.remove(0, "d");
        world.settle();
        for _ in 0..3 {
            world.restart(of);
            world.settle();
            assert_eq!(world.nodes[1].engine.held()[1], Some((20, 40)));
            assert_eq!(world.nodes[1].disk.objects.len(), 1 + 40 - 20, "nothing more went");
        }
        world.input(1, Input::Decide { confirm });
        world.settle();
        world.check_quiet();
        assert_eq!(world.nodes[1].engine.held(), [None, None]);
        assert_eq!(world.nodes[0].disk.objects.len(), if confirm { 0 } else { 1 + 20 });
    }
}

#[test]
fn a_restart_does_not_count_from_nothing() {
    let mut world = with_calls(40);
    world.limit_deletes(0, half());
    for call in 0..20 {
        world.remove(0, &format!("d/{call}.wav"));
    }
    world.settle();
    assert_eq!(world.nodes[0].engine.held(), [None, None]);
    world.restart(0);
    for call in 20..30 {
        world.remove(0, &format!("d/{call}.wav"));
    }
    world.settle();
    assert_eq!(world.nodes[0].engine.held()[0], Some((10, 40)));
    assert_eq!(world.nodes[1].disk.objects.len(), 1 + 20);
}

#[test]
fn a_directory_that_comes_back_has_its_own_mode() {
    // Whatever is looked at first: the directory's look may come after its files are back.
    for seed in 0..40 {
        let mut world = with_calls(40);
        world.chmod(0, "d", 0o2775);
        world.mkdir(0, "d/deep");
        world.chmod(0, "d/deep", 0o700);
        for call in 0..40 {
            world.write(0, &format!("d/deep/{call}.wav"), &format!("deep {call}"));
        }
        world.settle();
        world.limit_deletes(0, half());
        world.vanish(0, "d");
        world.settle();
        world.dice = Some(Dice(seed));
        world.input(0, Input::Decide { confirm: false });
        world.run_for(200 * SECOND);
        world.check_quiet();
        assert_eq!(world.nodes[0].disk.objects[&path("d")].mode, 0o2775, "seed {seed}");
        assert_eq!(world.nodes[0].disk.objects[&path("d/deep")].mode, 0o700, "seed {seed}");
    }
}

/// Made above a path, and in the place of what had the name.
#[test]
fn a_directory_that_is_only_implied_has_one_mode() {
    let mut world = World::pair();
    world.write(1, "b/c", "a call");
    world.nodes[1]
        .inbox
        .retain(|input| matches!(input, Input::Dirty { path, .. } if path.name() == b"c"));
    world.make(0, "b", What::Link(b"elsewhere".to_vec()));
    world.settle();
    let made = &world.nodes[0].disk.objects[&path("b")];
    assert_eq!((&made.what, made.mode), (&What::Dir, crate::engine::IMPLIED_DIR_MODE));
}

#[test]
fn a_rename_is_no_delete() {
    let mut world = with_calls(100);
    world.limit_deletes(0, half());
    world.limit_deletes(1, half());
    world.rename(0, "d", "e");
    world.settle();
    world.check_quiet();
    assert_eq!(world.nodes[1].disk.objects.len(), 101);
    assert_eq!(world.nodes[1].disk.trash, []);
}

#[test]
fn a_rename_while_the_node_was_down_is_no_delete() {
    for (from, to) in [("d", "e"), ("d", "c")] {
        let mut world = with_calls(100);
        world.limit_deletes(0, half());
        world.limit_deletes(1, half());
        world.rename(0, from, to);
        world.nodes[0].inbox.clear();
        world.restart(0);
        world.settle();
        world.check_quiet();
        assert_eq!(world.nodes[0].engine.held(), [None, None]);
        assert_eq!(world.nodes[1].disk.objects.len(), 101);
        assert_eq!(world.nodes[1].disk.trash, []);
    }
}

// ---- clocks ----------------------------------------------------------------------------------

#[test]
fn clocks_that_jump_change_who_wins_and_nothing_else() {
    const DAY_NS: i64 = 86_400_000_000_000;
    for skew_ns in [DAY_NS, -DAY_NS, i64::MIN / 2, -START_NS - DAY_NS] {
        let mut world = with_calls(2);
        world.nodes[1].skew_ns = skew_ns;
        world.cut(0, 1);
        world.write(0, "d/0.wav", "from fs1");
        world.write(1, "d/0.wav", "from fs2");
        world.write(1, "d/1.wav", "seen and changed");
        world.settle();
        world.link(0, 1);
        world.settle();
        world.check_quiet();
        assert_eq!(world.nodes[0].conflicts(), 1);
        // A change of what is there wins, whatever its author's clock says.
        for (of, bytes) in [(0, "first"), (1, "second"), (0, "third")] {
            world.write(of, "d/1.wav", bytes);
            world.settle();
            world.check_file(1 - of, "d/1.wav", bytes);
        }
        world.nodes[1].skew_ns = 0;
        world.write(1, "d/1.wav", "the clock is set");
        world.settle();
        world.check_file(0, "d/1.wav", "the clock is set");
        world.check_quiet();
        assert_eq!(world.nodes[0].conflicts(), 1);
    }
}

#[test]
fn a_conflict_copy_that_was_made_but_not_noted_ends_the_conflict() {
    let mut world = World::pair();
    world.cut(0, 1);
    world.write(0, "c.wav", "mine");
    world.settle();
    world.write(1, "c.wav", "yours");
    world.settle();
    // The file is in use, so that the exchange waits, and is then made as a crash leaves it.
    world.open(0, "c.wav");
    world.link(0, 1);
    world.run_for(SECOND);
    let record = world.nodes[0].entry("c.wav").record;
    let loser = version::loser(&record, &file(b"mine")).unwrap();
    let copy = copy_path(&path("c.wav"), loser, Digits::Eight).to_string();
    world.close(0, "c.wav");
    world.rename(0, "c.wav", &copy);
    world.write(0, "c.wav", "yours");
    world.settle();
    world.check_quiet();
    world.remove(1, "c.wav");
    world.settle();
    world.check_quiet();
    for of in [0, 1] {
        world.check_absent(of, "c.wav");
        world.check_file(of, &copy, "mine");
    }
}

/// What was kept by an exchange that ended in doubt does not come back under the name it lost, be the winner gone
/// before the copy was looked at.
#[test]
fn a_loser_that_was_kept_in_doubt_does_not_come_back_with_the_winners_end() {
    let mut world = World::pair();
    world.cut(0, 1);
    world.write(0, "c.wav", "mine");
    world.settle();
    world.write(1, "c.wav", "yours");
    world.settle();
    let call = path("c.wav");
    let copy = copy_path(&call, &world.nodes[0].entry("c.wav").record.values[0], Digits::Eight);
    // Nobody can look at the copy until the delete was noted.
    world.nodes[0].disk.unsure.insert(call.clone());
    world.nodes[0].disk.shows.insert(call.clone(), denied());
    world.nodes[0].disk.shows.insert(copy.clone(), denied());
    world.link(0, 1);
    world.run_for(SECOND);
    world.remove(0, "c.wav");
    world.nodes[0].disk.shows.remove(&call);
    world.run_for(10 * SECOND);
    world.nodes[0].disk.shows.clear();
    world.settle();
    world.check_quiet();
    for of in [0, 1] {
        world.check_absent(of, "c.wav");
        world.check_file(of, &copy.to_string(), "mine");
    }
}

#[test]
fn a_directory_in_place_of_a_file_is_looked_at_before_what_is_deep_in_it() {
    let mut world = World::pair();
    world.write(0, "a", "a file");
    world.settle();
    world.remove(0, "a");
    world.write(0, "a/b/c.wav", "a call");
    // The deepest is due first.
    world.nodes[0].inbox.make_contiguous().reverse();
    world.settle();
    world.check_quiet();
    assert_eq!([0, 1].map(|of| world.nodes[of].conflicts()), [0, 0]);
}

#[test]
fn what_is_on_its_way_out_is_not_acknowledged_as_there() {
    let mut world = World::new(&["fs1", "fs2", "fs3"]);
    (0..3).for_each(|of| world.scan(of));
    world.link(0, 1);
    world.link(1, 2);
    world.write(0, "a.wav", "one");
    world.settle();
    world.cut(1, 2);
    world.remove(2, "a.wav");
    world.settle();
    world.write(2, "a.wav", "one");
    world.touch(2, "a.wav", world.nodes[1].entry("a.wav").installed.unwrap().mtime_ns);
    world.settle();
    world.hold_up(2, 1, Lane::Bulk);
    world.link(1, 2);
    world.settle();
    world.forget();
    world.remove(0, "a.wav");
    let is_removal =
        |effect: &Effect| matches!(effect, Effect::Apply { op, .. } if op.action == Action::Remove);
    let removed = hold(&mut world, 1, is_removal);
    // Meanwhile a peer tells of the same bytes, which the index still has as installed.
    world.let_go();
    while world.nodes[1].entry("a.wav").record.is_tombstone() {
        assert!(world.act(), "the peer's file is heard of");
    }
    let said_durable = |world: &World| {
        world.nodes[1].log.iter().any(|effect| {
            matches!(effect, Effect::Send { peer, message: ShareMessage::Acks(acks), .. }
                if peer.as_str() == "fs3" && acks.iter().any(|ack| ack.state == AckState::Durable))
        })
    };
    assert!(!said_durable(&world), "it is about to be in the trash");
    world.input(1, removed);
    world.settle();
    assert!(said_durable(&world));
    world.check_file(1, "a.wav", "one");
    world.check_quiet();
}

#[test]
fn a_file_that_a_directory_keeps_from_its_name_is_not_acknowledged_as_there() {
    let mut world = World::pair();
    world.write(0, "b/a", "one");
    world.settle();
    world.remove(0, "b");
    world.write(0, "b", "two");
    world.run_only(0, world.now + SECOND);
    // The new file is heard of before it is heard that the directory is empty.
    let of_b = |message: &&ShareMessage| matches!(message, ShareMessage::Announce(told) if told[0].path == path("b"));
    let told: Vec<_> = world.on_wire(0, 1).into_iter().filter(of_b).cloned().collect();
    assert!(!told.is_empty());
    world.forget();
    for message in told {
        let peer = world.nodes[0].name.clone();
        world.input(1, Input::Message { peer, lane: Lane::Live, message });
    }
    world.turn(1);
    let states = |world: &World| {
        let sent = world.nodes[1].log.iter().filter_map(|effect| match effect {
            Effect::Send { message: ShareMessage::Acks(acks), .. } => Some(acks.clone()),
            _ => None,
        });
        sent.flatten().map(|ack| ack.state).collect::<Vec<_>>()
    };
    assert_eq!(states(&world), [AckState::Held]);
    world.settle();
    assert!(states(&world).contains(&AckState::Durable));
    world.check_file(1, "b", "two");
    world.check_quiet();
}

/// What was put in place and could not be synced is there: it is no version of this node's own.
#[test]
fn what_was_put_in_doubt_does_not_come_back_when_it_was_deleted_meanwhile() {
    for deleted_at in [0, 1] {
        let mut world = World::pair();
        let call = path("call.wav");
        world.nodes[1].disk.unsure.insert(call.clone());
        let cannot = Look::Unknown(TreeError::Io("Input/output error".to_owned()));
        world.nodes[1].disk.shows.insert(call.clone(), cannot);
        world.write(0, "call.wav", "hello");
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.nodes[0].index.entry(&call).unwrap().unwrap().record.values.len(), 1);
        let durable = |event: &&Event| matches!(event, Event::Replicated { .. });
        assert_eq!(world.nodes[0].events().filter(durable).count(), 0, "nobody knows that it is");
        world.remove(deleted_at, "call.wav");
        world.run_for(Duration::from_secs(1));
        world.nodes[1].disk.shows.clear();
        world.settle();
        world.check_absent(0, "call.wav");
        world.check_absent(1, "call.wav");
        world.check_quiet();
    }
}

/// Nor is it in the next run, if this one ends before it could be looked at.
#[test]
fn what_was_put_in_doubt_by_an_earlier_run_does_not_come_back_when_it_was_deleted_meanwhile() {
    for replaces in [false, true] {
        let mut world = World::pair();
        if replaces {
            world.write(0, "call.wav", "hello");
            world.settle();
        }
        let call = path("call.wav");
        world.nodes[1].disk.unsure.insert(call.clone());
        world.nodes[1].disk.shows.insert(call, denied());
        world.write(0, "call.wav", "goodbye");
        world.run_for(SECOND);
        world.remove(0, "call.wav");
        world.run_for(SECOND);
        world.restart(1);
        world.nodes[1].disk.shows.clear();
        world.settle();
        world.check_absent(0, "call.wav");
        world.check_absent(1, "call.wav");
        world.check_quiet();
    }
}

/// Nor is what it replaced acknowledged as there.
#[test]
fn what_was_replaced_in_doubt_is_not_acknowledged_as_there() {
    let mut world = World::pair();
    world.settle();
    world.cut(0, 1);
    world.write(1, "call.wav", "hello");
    world.settle();
    world.write(0, "call.wav", "goodbye");
    world.settle();
    let call = path("call.wav");
    world.nodes[1].disk.unsure.insert(call.clone());
    world.nodes[1].disk.shows.insert(call.clone(), denied());
    let copy = copy_path(&call, &world.nodes[1].entry("call.wav").record.values[0], Digits::Eight);
    world.nodes[0].disk.refuses.insert(copy.clone(), TreeError::Denied);
    world.link(0, 1);
    world.run_for(SECOND);
    assert_eq!(world.nodes[1].entry("call.wav").installed.unwrap().content, file(b"hello"));
    world.forget();
    world.remove(0, "call.wav");
    world.run_for(10 * SECOND);
    let told = world.nodes[0].entry("call.wav").seq;
    let durable = |world: &World| {
        world.nodes[1].log.iter().any(|effect| {
            matches!(effect, Effect::Send { message: ShareMessage::Acks(acks), .. }
                if acks.contains(&Ack { seq: told, state: AckState::Durable }))
        })
    };
    assert!(!durable(&world), "the other one has its name");
    world.nodes[1].disk.shows.clear();
    world.nodes[0].disk.refuses.clear();
    world.run_for(Duration::from_secs(120));
    world.check_absent(0, "call.wav");
    world.check_file(0, &copy.to_string(), "hello");
    world.check_quiet();
}

/// A receiver that dies after it has put a version in place and before its index says so must not take that
/// version for one of its users' when it hears of what came after it before it looks.
#[test]
fn what_an_earlier_run_put_in_place_is_no_version_of_this_nodes_own() {
    let put = |next: &dyn Fn(&mut World), is_dressed: bool| {
        let mut world = World::pair();
        world.write(0, "call.wav", "hello");
        let call = path("call.wav");
        hold(&mut world, 1, |job| matches!(job, Effect::Apply { op, .. } if op.path == call));
        world.cut(0, 1);
        next(&mut world);
        world.run_only(0, world.now + SECOND);
        world.restart(1);
        // The scan is slow: all news are in before it comes to the path.
        world.turn(1);
        let is_scan = |job: &Effect| matches!(job, Effect::Scan(_));
        let scan = world.nodes[1].jobs.iter().position(is_scan).unwrap();
        let scan = world.nodes[1].jobs.remove(scan);
        if is_dressed {
            world.chmod(1, "call.wav", 0o600);
        }
        world.link(0, 1);
        world.run_for(SECOND);
        world.nodes[1].jobs.push(scan);
        world.settle();
        world
    };
    // Nor if its users give it another mode before the scan comes there.
    for is_dressed in [false, true] {
        let world = put(&|world| world.remove(0, "call.wav"), is_dressed);
        world.check_absent(0, "call.wav");
        world.check_absent(1, "call.wav");
        world.check_quiet();
        let world = put(&|world| world.write(0, "call.wav", "hello again"), is_dressed);
        assert_eq!(world.nodes[1].conflicts(), 0);
        world.check_file(1, "call.wav", "hello again");
        world.check_quiet();
    }
    // With another mtime it may be its users'.
    let next = |world: &mut World| {
        world.remove(0, "call.wav");
        world.touch(1, "call.wav", 7);
    };
    let world = put(&next, false);
    world.check_file(0, "call.wav", "hello");
    world.check_quiet();
}

/// The second node cannot look at a name.
fn blind(world: &mut World, name: &str) {
    let disk = &mut world.nodes[1].disk;
    disk.shows.insert(path(name), denied());
    disk.unreadable.insert(path(name));
}

/// It can look at everything again.
fn see(world: &mut World) {
    let disk = &mut world.nodes[1].disk;
    disk.shows.clear();
    disk.unreadable.clear();
}

/// Nor when it had heard of what came after it before it died, and however often it dies before it has looked.
#[test]
fn what_an_earlier_run_put_in_place_is_known_however_often_it_dies() {
    let put = |make: &dyn Fn(&mut World), news: &[&dyn Fn(&mut World)]| {
        let mut world = World::pair();
        make(&mut world);
        hold(
            &mut world,
            1,
            |job| matches!(job, Effect::Apply { op, .. } if op.path == path("call")),
        );
        blind(&mut world, "call");
        for next in news {
            next(&mut world);
            world.run_for(SECOND);
            world.restart(1);
            world.run_for(SECOND);
        }
        see(&mut world);
        world.settle();
        world.check_quiet();
        assert_eq!(world.nodes[1].conflicts(), 0);
        world
    };
    let write = |world: &mut World| world.write(0, "call", "hello");
    let write_again = |world: &mut World| world.write(0, "call", "hello again");
    let mkdir = |world: &mut World| world.mkdir(0, "call");
    let remove = |world: &mut World| world.remove(0, "call");
    let makes: [&dyn Fn(&mut World); 2] = [&write, &mkdir];
    for make in makes {
        for times in [1, 2] {
            let world = put(make, &vec![&remove as &dyn Fn(&mut World); times]);
            world.check_absent(0, "call");
            world.check_absent(1, "call");
        }
        let world = put(make, &[&remove, &write_again]);
        world.check_file(1, "call", "hello again");
    }
}

/// Nor is a directory that it had to make for what is below one that its users made.
#[test]
fn a_directory_that_an_earlier_run_made_for_what_is_below_is_nobodys() {
    for died in [1, 2] {
        let mut world = World::pair();
        world.write(0, "a/b/call", "hello");
        let is_put =
            |job: &Effect| matches!(job, Effect::Apply { op, .. } if op.path == path("a/b/call"));
        world.hold_up(0, 1, Lane::Bulk);
        for dir in ["a", "a/b"] {
            // Of these it does not hear.
            world.nodes[0].disk.shows.insert(path(dir), denied());
        }
        hold(&mut world, 1, is_put);
        world.cut(0, 1);
        for dir in ["a", "a/b"] {
            blind(&mut world, dir);
        }
        world.remove(0, "a");
        world.nodes[0].disk.shows.clear();
        world.settle();
        for _ in 0..died {
            world.restart(1);
            world.run_for(SECOND);
        }
        see(&mut world);
        world.let_go();
        world.link(0, 1);
        world.settle();
        world.check_quiet();
        world.check_absent(1, "a");
        let noted = world.nodes[1].events().filter(|event| matches!(event, Event::Noted { .. }));
        assert_eq!(noted.count(), 0);
    }
}

/// Likewise one that dies after it has renamed what a peer renamed: its users did not.
#[test]
fn what_an_earlier_run_renamed_is_no_rename_of_this_nodes_own() {
    for heard_first in [false, true] {
        let mut world = World::pair();
        world.write(0, "a", "hello");
        world.settle();
        world.rename(0, "a", "b");
        hold(&mut world, 1, |job| matches!(job, Effect::Apply { op, .. } if op.path == path("b")));
        world.cut(0, 1);
        world.remove(0, "b");
        world.run_only(0, world.now + SECOND);
        world.restart(1);
        world.turn(1);
        let is_scan = |job: &Effect| matches!(job, Effect::Scan(_));
        let scan = world.nodes[1].jobs.iter().position(is_scan).unwrap();
        if heard_first {
            let scan = world.nodes[1].jobs.remove(scan);
            world.link(0, 1);
            world.run_for(SECOND);
            world.nodes[1].jobs.push(scan);
        } else {
            world.run_only(1, world.now + SECOND);
            world.link(0, 1);
        }
        world.settle();
        for (of, name) in [(0, "a"), (0, "b"), (1, "a"), (1, "b")] {
            world.check_absent(of, name);
        }
        world.check_quiet();
    }
}

/// Likewise one that dies after an exchange, which recovery sees: whatever was done to the new version since,
/// here or elsewhere, and heard before it looks or before it died, its author knew it.
#[test]
fn what_an_earlier_run_exchanged_is_no_version_of_this_nodes_own() {
    let replaced = |heard_before: bool, next: &dyn Fn(&mut World)| {
        let mut world = World::pair();
        world.write(0, "call.wav", "hello");
        world.settle();
        world.write(0, "call.wav", "hello again");
        let call = path("call.wav");
        hold(&mut world, 1, |job| matches!(job, Effect::Apply { op, .. } if op.path == call));
        if heard_before {
            next(&mut world);
            world.run_for(SECOND);
        } else {
            world.cut(0, 1);
            next(&mut world);
            world.run_only(0, world.now + SECOND);
        }
        world.nodes[1].disk.shows.insert(call, denied());
        for _ in 0..2 {
            // It dies again before it could look.
            world.restart(1);
            world.link(0, 1);
            world.run_for(SECOND);
        }
        world.nodes[1].disk.shows.clear();
        world.settle();
        assert_eq!(world.nodes[1].conflicts(), 0);
        world.check_quiet();
        world
    };
    for heard_before in [false, true] {
        let world = replaced(heard_before, &|world| world.write(0, "call.wav", "goodbye"));
        world.check_file(1, "call.wav", "goodbye");
        let world = replaced(heard_before, &|world| world.remove(0, "call.wav"));
        world.check_absent(0, "call.wav");
        world.check_absent(1, "call.wav");
    }
    let world = replaced(false, &|world| world.make_unheard(1, "call.wav", "mine"));
    world.check_file(0, "call.wav", "mine");
    let world = replaced(false, &|world| world.vanish(1, "call.wav"));
    world.check_absent(0, "call.wav");
}

/// Whether the exchange was made may be seen only later than the start.
#[test]
fn an_exchange_that_recovery_sees_late_is_told_until_its_path_was_looked_at() {
    for is_looked_at_first in [false, true] {
        let mut world = World::pair();
        world.write(0, "call.wav", "hello");
        world.settle();
        world.write(0, "call.wav", "hello again");
        let call = path("call.wav");
        hold(&mut world, 1, |job| matches!(job, Effect::Apply { op, .. } if op.path == call));
        let intents = |world: &World| world.nodes[1].index.intents().unwrap();
        let intent = intents(&world).remove(0);
        let made = Intent { made: true, ..intent.clone() };
        if !is_looked_at_first {
            blind(&mut world, "call.wav");
        }
        world.nodes[1].disk.hides_temp = true;
        world.restart(1);
        world.run_for(SECOND);
        assert_eq!(intents(&world), [intent]);
        world.input(
            1,
            Input::Settled { exchanged: vec![made.clone()], perhaps: vec![], done: vec![] },
        );
        world.run_for(SECOND);
        assert_eq!(intents(&world), if is_looked_at_first { vec![] } else { vec![made] });
        see(&mut world);
        // Whoever removes it knew it, whether or not that was looked at before.
        world.vanish(1, "call.wav");
        world.restart(1);
        world.settle();
        world.check_quiet();
        world.check_absent(0, "call.wav");
        assert!(intents(&world).is_empty());
    }
}

/// What came out was taken away before the next start, so that nothing tells of the exchange but what is at the path.
#[test]
fn what_an_exchange_that_nobody_can_tell_of_has_put_is_no_version_of_the_users() {
    for (is_made, is_settled_late) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut world = World::pair();
        world.write(0, "call.wav", "hello");
        world.settle();
        world.write(0, "call.wav", "hello again");
        let call = path("call.wav");
        let of_call = |job: &Effect| matches!(job, Effect::Apply { op, .. } if op.path == call);
        if is_made {
            hold(&mut world, 1, of_call);
        } else {
            while !world.nodes[1].ops().iter().any(|op| op.path == call && op.expect.is_some()) {
                assert!(world.step(world.now + SECOND), "it does not come");
            }
        }
        let intent = world.nodes[1].index.intents().unwrap().remove(0);
        let disk = &mut world.nodes[1].disk;
        (disk.hides_temp, disk.tells_nothing) = (is_settled_late, !is_settled_late);
        blind(&mut world, "call.wav");
        world.restart(1);
        world.run_for(SECOND);
        world.remove(0, "call.wav");
        world.run_for(SECOND);
        if is_settled_late {
            let settled = Input::Settled { exchanged: vec![], perhaps: vec![intent], done: vec![] };
            world.input(1, settled);
        }
        see(&mut world);
        world.settle();
        world.check_quiet();
        [0, 1].iter().for_each(|of| world.check_absent(*of, "call.wav"));
        assert_eq!(world.nodes[1].index.intents(), Ok(vec![]));
    }
}

/// Whoever put by himself what the cluster wants in the place of a version that lost took that one away.
#[test]
fn a_version_that_lost_does_not_come_back_where_it_was_replaced_by_hand() {
    let mut world = World::pair();
    world.mkdir(0, "call");
    world.write(1, "call", "hello");
    world.nodes[1].disk.refuses.insert(path("call"), TreeError::Denied);
    world.run_for(SECOND);
    world.rename(1, "call", "kept");
    world.mkdir(1, "call");
    world.nodes[1].disk.refuses.clear();
    world.settle();
    world.remove(0, "call");
    world.settle();
    for node in [0, 1] {
        world.check_absent(node, "call");
        world.check_file(node, "kept", "hello");
    }
    world.check_quiet();
}

/// The second node's user puts the copy in the call's place: that the old name is gone is known before the new one
/// can be looked at.
fn rename_copy_unseen(world: &mut World) {
    blind(world, "call");
    world.rename(1, "copy", "call");
    world.run_for(SECOND);
    see(world);
}

/// The first node has these bytes under some name.
fn check_somewhere(world: &World, bytes: &str) {
    let what = What::File(bytes.into());
    assert!(world.nodes[0].disk.objects.values().any(|object| object.what == what), "{bytes}");
}

/// Who renames a conflict copy over the name that its bytes are still wanted for, by what is known here, puts
/// them there: they have no other name then.
#[test]
fn a_copy_renamed_to_where_its_bytes_are_wanted_is_a_change() {
    let mut world = World::pair();
    world.write(1, "call", "hello");
    world.settle();
    world.nodes[1].disk.refuses.insert(path("call"), TreeError::Denied);
    world.write(0, "call", "goodbye");
    world.write(1, "copy", "goodbye");
    world.settle();
    world.cut(0, 1);
    world.write(0, "call", "something else");
    world.settle();
    world.rename(1, "copy", "call");
    world.nodes[1].disk.refuses.clear();
    world.settle();
    world.link(0, 1);
    world.settle();
    world.check_quiet();
    check_somewhere(&world, "goodbye");
}

/// Nor do bytes that were to be put somewhere, and never were, make what users put there this node's own: somebody was
/// writing to that name until then.
#[test]
fn a_copy_renamed_to_a_name_that_waited_for_its_bytes_is_a_change() {
    let mut world = World::pair();
    world.write(1, "call", "mine");
    world.open(1, "call");
    for name in ["call", "copy"] {
        world.write(0, name, "hello");
        world.touch(0, name, 7);
    }
    world.run_for(SECOND);
    world.write(0, "call", "goodbye");
    world.run_for(SECOND);
    world.check_file(1, "copy", "hello");
    world.check_file(1, "call", "mine");
    rename_copy_unseen(&mut world);
    world.settle();
    world.check_quiet();
    check_somewhere(&world, "hello");
}

/// Who puts a conflict copy in the place of the version that it keeps has chosen that one, though the bytes are the same
/// and a newer version was to come there: they have no other name then.
#[test]
fn a_copy_renamed_over_its_own_bytes_that_were_to_go_is_a_change() {
    for is_dressed in [false, true] {
        let mut world = World::pair();
        for name in ["call", "copy"] {
            world.write(1, name, "hello");
            if !is_dressed {
                world.touch(1, name, 7);
            }
        }
        world.settle();
        world.nodes[1].disk.refuses.insert(path("call"), TreeError::Denied);
        world.write(0, "call", "goodbye");
        world.run_for(SECOND);
        rename_copy_unseen(&mut world);
        world.nodes[1].disk.refuses.clear();
        world.settle();
        world.check_quiet();
        world.check_file(0, "call", "hello");
        assert_eq!(world.nodes[0].conflicts(), 1, "he knew nothing of the newer one");
    }
}

/// A passing error in a scan must not hide a file until the next one, a day later.
#[test]
fn what_a_scan_could_not_look_at_is_scanned_again_ever_more_rarely() {
    let mut world = World::pair();
    world.run_for(SECOND);
    world.forget();
    let scans = |world: &World| {
        let log = &world.nodes[0].log;
        log.iter().filter(|effect| matches!(effect, Effect::Scan(_))).count()
    };
    world.nodes[0].disk.unreadable.insert(path("d"));
    world.input(0, Input::Unreadable(path("d")));
    for (failures, wait) in [(1, 1), (2, 2), (3, 4)] {
        world.run_for(Duration::from_secs(wait) - Duration::from_millis(1));
        assert_eq!(scans(&world), failures - 1);
        if failures == 3 {
            world.nodes[0].disk.unreadable.clear();
        }
        world.run_for(Duration::from_millis(1));
        assert_eq!(scans(&world), failures);
    }
    world.settle();
    world.check_quiet();
    assert_eq!(scans(&world), 3, "the last one could");
}
