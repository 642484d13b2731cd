//! More at once than usual: nothing may be lost.

use std::fs::{self, File};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Pair, unique};

/// For what takes its time in a debug build on a busy machine.
const LONG: Duration = Duration::from_secs(90);

#[test]
fn two_thousand_directories_made_and_filled_at_once() {
    let pair = Pair::started();
    for number in 0..2_000 {
        // Twenty trees, ten levels deep, ten wide at the bottom, and a file in each directory.
        let dir = format!("{}/a/b/c/d/{}/f/g/h/{}", number / 100, number / 10 % 10, number % 10);
        let dir = pair.a.path(dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("call.wav"), number.to_string()).unwrap();
    }
    let made = pair.a.tree();
    let tree = pair.wait_until_consistent_within(LONG);
    assert_eq!(made.difference(&tree), "", "made | there is");
    assert_eq!(tree.hashes().count(), 2_000);
}

#[test]
fn a_tree_copied_in_and_renamed_while_it_is_noticed() {
    let pair = Pair::started();
    for round in 0..10 {
        let dir = pair.a.path(format!("new-{round}/deep/er"));
        fs::create_dir_all(&dir).unwrap();
        for number in 0..20 {
            fs::write(dir.join(format!("{number}.wav")), unique(500)).unwrap();
        }
        let from = pair.a.path(format!("new-{round}"));
        fs::rename(from, pair.a.path(format!("done-{round}"))).unwrap();
        fs::create_dir(pair.a.path(format!("new-{round}"))).unwrap();
        fs::write(pair.a.path(format!("new-{round}/again.wav")), unique(500)).unwrap();
    }
    let made = pair.a.tree();
    pair.wait_until_both_hold(&made);
}

#[test]
fn an_overflow_of_the_event_queue_loses_nothing() {
    let pair = Pair::started();
    for name in ["deleted.wav", "changed.wav", "dir/renamed.wav"] {
        fs::create_dir_all(pair.a.path("dir")).unwrap();
        fs::write(pair.a.path(name), unique(1_000)).unwrap();
    }
    pair.wait_until_consistent();
    let max: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .map_or(16_384, |max| max.trim().parse().unwrap());

    // A daemon that gets no time hears nothing; two files in turn, so that no two events merge,
    // and twice as many as there is room for, as it does not stop at once.
    pair.a.signal(Signal::STOP);
    let files = ["x.wav", "y.wav"].map(|name| pair.a.path(name));
    for _ in 0..max {
        for file in &files {
            drop(File::create(file).unwrap());
        }
    }
    fs::write(pair.a.path("unheard.wav"), unique(1_000)).unwrap();
    fs::create_dir_all(pair.a.path("unheard/dir")).unwrap();
    fs::write(pair.a.path("unheard/dir/1.wav"), unique(1_000)).unwrap();
    fs::remove_file(pair.a.path("deleted.wav")).unwrap();
    fs::write(pair.a.path("changed.wav"), unique(2_000)).unwrap();
    fs::rename(pair.a.path("dir"), pair.a.path("moved")).unwrap();
    pair.a.signal(Signal::CONT);

    let made = pair.a.tree();
    pair.wait_until_both_hold(&made);
    assert!(pair.a.metric("recsync_watch_overflows_total", &[]) >= 1.0, "there was no overflow");
    // And it hears again, in directories that it had not seen too.
    fs::write(pair.a.path("unheard/dir/2.wav"), unique(1_000)).unwrap();
    pair.wait_for(&pair.b, "unheard/dir/2.wav");
    pair.wait_until_consistent();
}

#[test]
fn a_thousand_calls_on_both_nodes_at_once() {
    let pair = Pair::started();
    std::thread::scope(|scope| {
        for node in [&pair.a, &pair.b] {
            scope.spawn(move || {
                for number in 0..500 {
                    let dir = node.path(format!("2026/{}", number % 7));
                    fs::create_dir_all(&dir).unwrap();
                    fs::write(dir.join(format!("{}-{number}.wav", node.name)), unique(4_000))
                        .unwrap();
                }
            });
        }
    });
    let tree = pair.wait_until_consistent_within(LONG);
    assert_eq!(tree.hashes().count(), 1_000);
}

#[test]
fn both_nodes_write_the_same_names_at_once() {
    let pair = Pair::started();
    let versions = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for node in [&pair.a, &pair.b] {
            let versions = &versions;
            scope.spawn(move || {
                for number in 0..30 {
                    let bytes = unique(3_000);
                    // Written aside and linked into place: what was there before is not touched.
                    let temporary = node.path(format!("{number}.tmp"));
                    fs::write(&temporary, &bytes).unwrap();
                    if fs::hard_link(&temporary, node.path(format!("{number}.wav"))).is_ok() {
                        versions.lock().unwrap().push(crate::support::hash(&bytes));
                    }
                    fs::remove_file(temporary).unwrap();
                }
            });
        }
    });
    let tree = pair.wait_until_consistent_within(LONG);
    let there: Vec<_> = tree.hashes().collect();
    let versions = versions.into_inner().unwrap();
    let lost = versions.iter().filter(|version| !there.contains(version)).count();
    assert_eq!(lost, 0, "of {} versions: {tree:?}", versions.len());
}
