//! Too little of what the kernel gives: room for events, descriptors, memory; and writers that never
//! close.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{LONG, Node, Pair, seen, under_load, unique, until, within};

const QUEUE: &str = "/proc/sys/fs/inotify/max_queued_events";

/// A short event queue for daemons that start while this lives; for the whole machine, so shortly.
struct ShortQueue(String);

impl ShortQueue {
    fn new(test: &str) -> Option<ShortQueue> {
        let before = fs::read_to_string(QUEUE).ok()?;
        match fs::write(QUEUE, "32") {
            Ok(()) => Some(ShortQueue(before)),
            Err(why) => {
                eprintln!("SKIPPED {test}: {QUEUE} cannot be written: {why}");
                None
            }
        }
    }
}

impl Drop for ShortQueue {
    fn drop(&mut self) {
        fs::write(QUEUE, &self.0).unwrap();
    }
}

#[test]
fn an_event_queue_that_overflows_under_load_loses_nothing() {
    let test = "an_event_queue_that_overflows_under_load_loses_nothing";
    let mut pair = Pair::new();
    {
        let Some(_short) = ShortQueue::new(test) else { return };
        pair.start();
    }
    let overflows = |node: &Node| node.metric("recsync_watch_overflows_total", &[]);
    under_load(&mut pair, |pair| {
        // A burst beside the load, that comes while nobody takes the events. The queue after the
        // overflow is a new one, and long.
        for node in [&pair.a, &pair.b] {
            node.signal(Signal::STOP);
            let dir = node.path(format!("storm-{}", node.name));
            fs::create_dir_all(&dir).unwrap();
            for number in 0..60 {
                fs::write(dir.join(format!("{number}.wav")), unique(300)).unwrap();
                fs::write(node.path(format!("{}-{number}.wav", node.name)), unique(300)).unwrap();
            }
            fs::rename(&dir, dir.with_extension("done")).unwrap();
            node.signal(Signal::CONT);
            until("events are lost", || seen(overflows(node) > 0.0));
        }
    });
}

#[test]
fn writers_that_never_close_hold_nothing_up() {
    let mut pair = Pair::started();
    under_load(&mut pair, |pair| {
        let dir = pair.a.path("growing");
        fs::create_dir(&dir).unwrap();
        let open = |number| File::create(dir.join(format!("{number}.wav"))).unwrap();
        let mut writers: Vec<File> = (0..300).map(open).collect();
        for restart in [false, true] {
            if restart {
                pair.a.restart();
                pair.a.wait_until_connected();
            }
            let before = pair.b.metric("recsync_files_applied_total", &[]);
            until("the others are applied", || {
                for writer in &mut writers {
                    writer.write_all(&[7; 320]).unwrap();
                }
                seen(pair.b.metric("recsync_files_applied_total", &[]) > before + 50.0)
            });
            let there = fs::read_dir(pair.b.path("growing")).map_or(0, Iterator::count);
            assert_eq!(there, 0, "files that are written are on the other node");
        }
    });
}

/// Runs a node with this limit from its next start on. False, and a line that says so, if the
/// tool for it is not there.
fn limit(test: &str, node: &mut Node, limit: &str) -> bool {
    if let Err(why) = Command::new("prlimit").arg("--version").output() {
        eprintln!("SKIPPED {test}: prlimit (util-linux) cannot be run: {why}");
        return false;
    }
    node.set_wrapper(&["prlimit", limit]);
    true
}

#[test]
fn a_daemon_short_of_descriptors_goes_on() {
    let test = "a_daemon_short_of_descriptors_goes_on";
    let mut pair = Pair::new();
    if !limit(test, &mut pair.a, "--nofile=1024") || !limit(test, &mut pair.b, "--nofile=1024") {
        return;
    }
    pair.start();
    under_load(&mut pair, |pair| {
        for node in [&pair.a, &pair.b] {
            // No more than it has, and soon less than it wants; not on one of them alone.
            let open = fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count();
            set_descriptors(node, open + 1);
        }
        for node in [&pair.a, &pair.b] {
            node.wait_for_log(&["WARN", "Too many open files"]);
        }
        for node in [&pair.a, &pair.b] {
            set_descriptors(node, 1_024);
        }
    });
}

fn set_descriptors(node: &Node, count: usize) {
    let args = [format!("--pid={}", node.pid()), format!("--nofile={count}:1024")];
    assert!(Command::new("prlimit").args(args).status().unwrap().success());
}

#[test]
fn a_daemon_with_little_memory_ships_what_is_larger() {
    let test = "a_daemon_with_little_memory_ships_what_is_larger";
    let mut pair = Pair::new();
    // Bytes of memory that can be written: heap, stacks of all threads, SQLite's caches.
    if !limit(test, &mut pair.a, "--data=200000000")
        || !limit(test, &mut pair.b, "--data=200000000")
    {
        return;
    }
    pair.start();
    for number in 0..3 {
        fs::write(pair.a.path(format!("large-{number}.wav")), unique(150_000_000)).unwrap();
    }
    under_load(&mut pair, |pair| {
        // Half a gigabyte, hashed without optimization on a disk that others keep busy.
        within(LONG, "large-2.wav is on fs2", || {
            seen(pair.b.path("large-2.wav").symlink_metadata().is_ok())
        });
    });
}
