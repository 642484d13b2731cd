//! Files that are being written: shipped when they are whole, never before, never torn.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Pair, for_a_while, seen, unique, until};

/// Until this file is on fs2, all that came before it has been looked at on fs1.
fn write_and_wait(pair: &Pair, name: &str) {
    fs::write(pair.a.path(name), name).unwrap();
    pair.wait_for(&pair.b, name);
}

#[test]
fn a_file_open_for_writing_is_not_shipped_until_it_is_closed() {
    let pair = Pair::started();
    let mut call = File::create(pair.a.path("call.wav")).unwrap();
    let mut long = File::create(pair.a.path("long.wav")).unwrap();
    for part in 0..20 {
        call.write_all(&unique(1_000)).unwrap();
        long.write_all(&unique(40_000)).unwrap();
        if part % 5 == 0 {
            write_and_wait(&pair, &format!("other-{part}.wav"));
        }
        assert!(!pair.b.path("call.wav").exists() && !pair.b.path("long.wav").exists());
    }
    // Even a scan that finds them, and even when their names were linked or renamed.
    fs::rename(pair.a.path("call.wav"), pair.a.path("moved.wav")).unwrap();
    pair.a.run(&["rescan"]).ok();
    write_and_wait(&pair, "after-scan");
    for_a_while(Duration::from_millis(300), || {
        let early = ["call.wav", "moved.wav", "long.wav"].map(|name| pair.b.path(name).exists());
        assert_eq!(early, [false; 3], "shipped while open");
    });
    // An open file has no lag, and is no difference.
    let lag = pair.a.status()["peers"][0]["shares"][0]["lag_seconds"].as_f64().unwrap();
    assert!(lag < 0.3, "{lag} s of lag for open files");
    let verified = pair.a.run(&["verify", "--json", "--timeout", "1s"]);
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!(report["checks"][0]["differences"], serde_json::json!([]), "{verified:?}");
    assert_eq!(report["checks"][0]["in_flight"], 2, "{verified:?}");

    drop((call, long));
    let tree = pair.wait_until_consistent();
    assert!(tree.get("moved.wav").is_some() && tree.get("long.wav").is_some());
}

#[test]
fn a_file_open_for_writing_is_not_shipped_after_a_restart_either() {
    let mut pair = Pair::started();
    let mut call = File::create(pair.a.path("call.wav")).unwrap();
    call.write_all(&unique(50_000)).unwrap();
    pair.a.kill();
    pair.start();
    write_and_wait(&pair, "after");
    for_a_while(Duration::from_millis(200), || assert!(!pair.b.path("call.wav").exists()));
    call.write_all(&unique(50_000)).unwrap();
    drop(call);
    pair.wait_until_consistent();
}

#[test]
fn a_file_being_read_or_held_open_for_reading_is_shipped() {
    let pair = Pair::started();
    fs::write(pair.a.path("call.wav"), unique(5_000)).unwrap();
    let mut reader = File::open(pair.a.path("call.wav")).unwrap();
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    pair.wait_until_consistent();
    assert_eq!(fs::read(pair.b.path("call.wav")).unwrap(), bytes);
}

#[test]
fn the_daemon_never_makes_a_recorder_wait() {
    let pair = Pair::started();
    let path = pair.a.path("call.wav");
    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    // A recorder that reopens its file again and again, while the daemon looks whether it does.
    while begun.elapsed() < Duration::from_secs(2) {
        let opening = Instant::now();
        let mut file = File::options().append(true).create(true).open(&path).unwrap();
        slowest = slowest.max(opening.elapsed());
        file.write_all(&unique(500)).unwrap();
        drop(file);
        std::thread::sleep(Duration::from_millis(3));
    }
    // A lease that is held breaks after 45 s; one that is taken and dropped costs nothing.
    assert!(slowest < Duration::from_secs(1), "an open took {slowest:?}");
    pair.wait_until_consistent();
}

/// Bytes that show whether they belong together: each block of 16 holds the version's number.
fn version(number: u64, len: usize) -> Vec<u8> {
    let block = [number.to_le_bytes(), len.to_le_bytes()].concat();
    block.iter().copied().cycle().take(len).collect()
}

/// # Panics
/// If the bytes are not all of one version, or not all of it.
fn check_whole(bytes: &[u8], of: &str) {
    let [number, len] = [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()));
    assert_eq!(bytes.len() as u64, len, "{of}: version {number} is cut short");
    assert!(bytes == version(number, bytes.len()), "{of}: version {number} is mixed with others");
}

#[test]
fn a_file_that_changes_while_it_is_read_arrives_whole() {
    let pair = Pair::started();
    let stop = AtomicBool::new(false);
    let names = ["small.wav", "large.wav"];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Truncated and written anew: in between, it is torn here.
            for number in 1.. {
                for (name, len) in names.iter().zip([30_000, 2_500_000]) {
                    fs::write(pair.a.path(name), version(number, len + 16 * number as usize))
                        .unwrap();
                    std::thread::sleep(Duration::from_millis(7 + number % 60));
                }
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let mut versions = std::collections::BTreeSet::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            for name in names {
                if let Ok(bytes) = fs::read(pair.b.path(name)) {
                    check_whole(&bytes, name);
                    versions.insert((name, bytes.len()));
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(versions.len() > 2, "hardly a version came through: {versions:?}");
    });
    pair.wait_until_consistent();
    for name in names {
        check_whole(&fs::read(pair.b.path(name)).unwrap(), name);
    }
}

#[test]
fn a_reader_on_the_other_node_keeps_the_version_it_opened() {
    let pair = Pair::started();
    fs::write(pair.a.path("call.wav"), version(1, 600_000)).unwrap();
    pair.wait_until_consistent();
    let reader = File::open(pair.b.path("call.wav")).unwrap();
    fs::write(pair.a.path("call.wav"), version(2, 700_000)).unwrap();
    until("version 2 is there", || {
        seen(fs::metadata(pair.b.path("call.wav")).unwrap().size() == 700_000)
    });
    let mut bytes = vec![0; 600_000];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == version(1, 600_000));
    pair.wait_until_consistent();
}

#[test]
fn a_change_that_no_event_tells_is_found_by_rescan() {
    let pair = Pair::started();
    let names = ["rewritten.wav", "truncated.wav", "mtime.wav"];
    for name in names {
        fs::write(pair.a.path(name), unique(100_000)).unwrap();
    }
    pair.wait_until_consistent();

    // Through a link outside of the share, as through a mapping: nothing is heard of it.
    let open = |name: &str| {
        let outside = pair.dir.path().join(name);
        fs::hard_link(pair.a.path(name), &outside).unwrap();
        let file = File::options().write(true).open(&outside).unwrap();
        fs::remove_file(outside).unwrap();
        file
    };
    let rewritten = open("rewritten.wav");
    let before = rewritten.metadata().unwrap();
    rewritten.write_all_at(b"other bytes, the same size", 50_000).unwrap();
    // Not even the mtime tells.
    rewritten.set_modified(before.modified().unwrap()).unwrap();
    open("truncated.wav").set_len(99).unwrap();
    let touched = File::open(pair.a.path("mtime.wav")).unwrap();
    touched.set_modified(std::time::UNIX_EPOCH).unwrap();
    drop((rewritten, touched));

    let expected = pair.a.tree();
    let (stdout, share) = (pair.a.run(&["rescan"]).ok().stdout, "recordings");
    assert!(stdout.contains(share), "{stdout}");
    pair.wait_until_both_hold(&expected);
    let _used = pair.a.run(&["rescan", "--share", share]).ok();
    assert_eq!(pair.a.run(&["rescan", "--share", "nonesuch"]).code, Some(2));
}

#[test]
fn a_target_that_somebody_writes_on_the_other_node_is_not_torn_away() {
    let pair = Pair::started();
    fs::write(pair.a.path("call.wav"), unique(10_000)).unwrap();
    pair.wait_until_consistent();
    // fs2's user has it open for writing when fs1's change arrives.
    let mut writer = File::options().append(true).open(pair.b.path("call.wav")).unwrap();
    let inode = writer.metadata().unwrap().ino();
    let from_fs1 = unique(20_000);
    fs::write(pair.a.path("call.wav"), &from_fs1).unwrap();
    write_and_wait(&pair, "after");
    writer.write_all(b"written on fs2").unwrap();
    for_a_while(Duration::from_millis(200), || {
        assert_eq!(fs::metadata(pair.b.path("call.wav")).unwrap().ino(), inode, "replaced");
    });
    let from_fs2 = fs::read(pair.b.path("call.wav")).unwrap();
    drop(writer);
    let tree = pair.wait_until_consistent();
    for bytes in [from_fs1, from_fs2] {
        let hash = crate::support::hash(&bytes);
        assert!(tree.hashes().any(|found| found == hash), "a version is lost: {tree:?}");
    }
}
