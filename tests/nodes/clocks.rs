//! Clocks that are wrong or jump, and file systems that keep coarse times.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::support::{Disk, Node, Object, Pair, Tree, for_a_while, unique, until};

/// A clock of fs2's own, that can be set while its daemon runs.
struct Clock(PathBuf);

impl Clock {
    /// None, and a line that says so, where `libfaketime` is missing.
    fn of(test: &str, node: &mut Node, dir: &Path) -> Option<Clock> {
        let places = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let library = places
            .map(|place| place.path().join("faketime/libfaketime.so.1"))
            .find(|library| library.exists());
        let Some(library) = library else {
            eprintln!("SKIPPED {test}: there is no libfaketime (tests/setup.sh)");
            return None;
        };
        let clock = Clock(dir.join("clock"));
        clock.set("+0");
        node.set_env("LD_PRELOAD", library.to_str().unwrap());
        node.set_env("FAKETIME_TIMESTAMP_FILE", clock.0.to_str().unwrap());
        node.set_env("FAKETIME_NO_CACHE", "1");
        // The wall clock jumps, not time itself, nor what the kernel says of files.
        node.set_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        node.set_env("NO_FAKE_STAT", "1");
        Some(clock)
    }

    fn set(&self, offset: &str) {
        // Whole at any moment, as the library reads it all the time.
        let draft = self.0.with_extension("draft");
        fs::write(&draft, offset).unwrap();
        fs::rename(draft, &self.0).unwrap();
    }
}

#[test]
fn a_clock_that_jumps_by_years_decides_nothing() {
    let mut pair = Pair::new();
    let test = "a_clock_that_jumps_by_years_decides_nothing";
    let Some(clock) = Clock::of(test, &mut pair.b, pair.dir.path()) else { return };
    pair.start();
    let skew = |node: &Node| node.metric("recsync_peer_clock_skew_seconds", &[]);
    let year = 365.0 * 86_400.0;
    for (offset, years) in [("+0", 0.0), ("+3y", 3.0), ("-3y", -3.0), ("+40y", 40.0), ("+0", 0.0)] {
        clock.set(offset);
        until("fs1 tells how far the clock of fs2 is off", || {
            let found = skew(&pair.a);
            if (found - years * year).abs() < 60.0 { Ok(()) } else { Err(found) }
        });
        let name = format!("{years}-{}.wav", offset.len());
        fs::write(pair.a.path(format!("a-{name}")), unique(5_000)).unwrap();
        fs::write(pair.b.path(format!("b-{name}")), unique(5_000)).unwrap();
        // One after the other, each knowing what the other one wrote: no clock makes that a conflict.
        let mut last = Vec::new();
        for node in [&pair.b, &pair.a, &pair.b, &pair.a] {
            last = unique(7_000);
            fs::write(node.path("shared.wav"), &last).unwrap();
            pair.wait_until_consistent();
        }
        assert_eq!(fs::read(pair.b.path("shared.wav")).unwrap(), last, "at {offset}");
        for node in [&pair.a, &pair.b] {
            assert_eq!(node.metric("recsync_lag_seconds", &[]), 0.0);
            assert_eq!(node.metric("recsync_conflicts_total", &[]), 0.0);
            node.run(&["health", "--max-lag", "60s"]).ok();
        }
    }
    // A restart in another year, too, and a delete by the node that lives in the past.
    clock.set("-30y");
    pair.b.restart();
    fs::remove_file(pair.b.path("shared.wav")).unwrap();
    pair.start();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.get("shared.wav"), None);
    assert_eq!(tree.0.len(), 5 + 5 - 2, "the second +0 wrote over the first: {tree:?}");
}

fn set_mtime(path: &Path, seconds: u64, nanos: u32) {
    let time = UNIX_EPOCH + Duration::new(seconds, nanos);
    let times = FileTimes::new().set_accessed(time).set_modified(time);
    File::open(path).unwrap().set_times(times).unwrap();
}

fn mtime(tree: &Tree, path: &str) -> i128 {
    match tree.get(path) {
        Some(Object::File { mtime_ns, .. }) => *mtime_ns,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn a_disk_that_keeps_whole_seconds_changes_no_times_elsewhere() {
    let mut pair = Pair::new();
    let test = "a_disk_that_keeps_whole_seconds_changes_no_times_elsewhere";
    // Inodes of 128 bytes have no room for more.
    let options = ["-I", "128"];
    let disk = Disk::below_share_with_options(test, "ext4", &options, &pair.b.root);
    let Some(_disk) = disk else { return };
    pair.start();
    fs::write(pair.a.path("1.wav"), unique(30_000)).unwrap();
    fs::write(pair.a.path("2.wav"), unique(700_000)).unwrap();
    set_mtime(&pair.a.path("1.wav"), 1_700_000_000, 123_456_789);
    let same = |pair: &Pair| {
        until("both hold the same bytes", || {
            let [a, b] = [&pair.a, &pair.b].map(Node::tree);
            let same = a.paths() == b.paths() && a.hashes().eq(b.hashes());
            if same && pair.a.unfinished().is_none() && pair.b.unfinished().is_none() {
                Ok([a, b])
            } else {
                Err(a.difference(&b))
            }
        })
    };
    let [a, b] = same(&pair);
    assert_eq!(mtime(&a, "1.wav"), 1_700_000_000_123_456_789);
    assert_eq!(mtime(&b, "1.wav"), 1_700_000_000_000_000_000);

    // Twice in one second, with the same length: only the bytes tell.
    let mut last = Vec::new();
    for _ in 0..6 {
        last = unique(30_000);
        fs::write(pair.b.path("1.wav"), &last).unwrap();
        until("fs1 has it", || {
            let found = fs::read(pair.a.path("1.wav")).unwrap();
            if found == last { Ok(()) } else { Err("not yet") }
        });
    }
    let [before, _] = same(&pair);
    assert_eq!(fs::read(pair.a.path("1.wav")).unwrap(), last);
    // A scan, and a restart, find nothing new, and give nobody the coarse time.
    pair.b.run(&["rescan"]).ok();
    pair.b.restart();
    pair.start();
    let [after, _] = same(&pair);
    assert_eq!(before.difference(&after), "", "before | now");
    for_a_while(Duration::from_millis(500), || {
        assert_eq!(pair.a.tree().difference(&after), "", "now | later");
    });
    assert_eq!(pair.a.metric("recsync_conflicts_total", &[]), 0.0);
}
