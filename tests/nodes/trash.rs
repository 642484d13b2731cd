//! What a peer's delete or overwrite removed: kept, listed, put back, erased, expired.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use crate::support::{Node, Pair, seen, unique, until};

/// Returns what `trash list --json` shows, the newest first.
fn listed(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let ran = node.run(&[&["trash", "list", "--json"], arguments].concat()).ok();
    let list: Value = serde_json::from_str(&ran.stdout).unwrap();
    list["entries"].as_array().unwrap().clone()
}

fn trash_bytes(node: &Node) -> f64 {
    node.metric("recsync_trash_bytes", &["share=\"recordings\""])
}

/// Two nodes on which fs2 has overwritten `2026/a.wav` and then deleted it; and its two versions,
/// which lie in the trash of fs1.
fn overwritten_and_deleted(settings: &[(&str, &str)]) -> (Pair, [Vec<u8>; 2]) {
    let mut pair = Pair::new();
    for (key, value) in settings {
        pair.a.set(key, value);
    }
    pair.start();
    let versions = [unique(3_000), unique(400_000)];
    fs::create_dir(pair.a.path("2026")).unwrap();
    fs::write(pair.a.path("2026/a.wav"), &versions[0]).unwrap();
    pair.wait_until_consistent();
    fs::write(pair.b.path("2026/a.wav"), &versions[1]).unwrap();
    pair.wait_until_consistent();
    fs::remove_file(pair.b.path("2026/a.wav")).unwrap();
    pair.wait_until_consistent();
    (pair, versions)
}

#[test]
fn a_recording_that_the_peer_deleted_is_listed_and_comes_back_when_restored() {
    let (pair, versions) = overwritten_and_deleted(&[]);
    let list = listed(&pair.a, &[]);
    assert_eq!(list.len(), 2, "{list:?}");
    for (entry, (why, version)) in list.iter().zip([("deleted", 1), ("replaced", 0)]) {
        assert_eq!(entry["path"], "2026/a.wav");
        assert_eq!(entry["share"], "recordings");
        assert_eq!((&entry["why"], &entry["by"]), (&why.into(), &"fs2".into()));
        assert_eq!(entry["size"], versions[version].len());
        let lies = pair.a.path(entry["file"].as_str().unwrap());
        assert_eq!(fs::read(lies).unwrap(), versions[version]);
    }
    let shown = pair.a.run(&["trash", "list"]).ok().stdout;
    assert!(shown.contains("deleted by fs2") && shown.contains("2 files, 403.0 kB"), "{shown}");
    until("the metric tells", || seen(trash_bytes(&pair.a) == 403_000.0));
    assert_eq!(listed(&pair.b, &[]), [Value::Null; 0], "fs2 removed it by itself");

    // By the whole path, which is how people have it at hand.
    let path = pair.a.path("2026/a.wav");
    let back = pair.a.run(&["trash", "restore", path.to_str().unwrap()]).ok();
    assert!(back.stdout.contains("2026/a.wav"), "{back:?}");
    let mtime = path.metadata().unwrap().mtime_nsec();
    let tree = pair.wait_until_consistent();
    assert!(tree.get("2026/a.wav").is_some(), "{tree:?}");
    assert_eq!(fs::read(pair.b.path("2026/a.wav")).unwrap(), versions[1]);
    assert_eq!(pair.b.path("2026/a.wav").metadata().unwrap().mtime_nsec(), mtime);
    assert_eq!(listed(&pair.a, &["2026"]).len(), 1);
}

#[test]
fn restoring_overwrites_nothing_and_finds_an_older_version_by_its_id() {
    let (pair, versions) = overwritten_and_deleted(&[]);
    fs::write(pair.a.path("2026/a.wav"), b"a new call").unwrap();
    let refused = pair.a.run(&["trash", "restore", "2026/a.wav"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.contains("is there already"), "{refused:?}");
    assert_eq!(fs::read(pair.a.path("2026/a.wav")).unwrap(), b"a new call");

    let id = listed(&pair.a, &[])[1]["id"].as_str().unwrap().to_owned();
    let beside = ["trash", "restore", "2026/a.wav", "--at", &id, "--to", "old/first.wav"];
    pair.a.run(&beside).ok();
    pair.wait_for(&pair.b, "old/first.wav");
    pair.wait_until_consistent();
    assert_eq!(fs::read(pair.b.path("old/first.wav")).unwrap(), versions[0]);
    let gone = pair.a.run(&beside);
    assert!(gone.code == Some(2) && gone.stderr.contains("nothing that was"), "{gone:?}");
    let nothing = pair.a.run(&["trash", "restore", "2026/none.wav"]);
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
}

#[test]
fn a_deleted_directory_comes_back_whole() {
    let pair = Pair::started();
    fs::create_dir_all(pair.a.path("2026/11")).unwrap();
    for number in 0..15 {
        fs::write(pair.a.path(format!("2026/11/{number}.wav")), unique(2_000)).unwrap();
    }
    let before = pair.wait_until_consistent();
    fs::remove_dir_all(pair.b.path("2026")).unwrap();
    until("it is gone", || seen(!pair.a.path("2026").exists()));
    pair.a.run(&["trash", "restore", "2026"]).ok();
    until("the directory is on fs2", || seen(pair.b.path("2026/11/14.wav").exists()));
    let tree = pair.wait_until_consistent();
    let files =
        |tree: &crate::support::Tree| tree.hashes().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(files(&tree), files(&before));
    assert_eq!(listed(&pair.a, &[]), [Value::Null; 0]);
}

#[test]
fn purged_data_is_erased() {
    let (pair, _) = overwritten_and_deleted(&[]);
    fs::write(pair.a.path("b.wav"), b"another").unwrap();
    pair.wait_until_consistent();
    fs::remove_file(pair.b.path("b.wav")).unwrap();
    pair.wait_until_consistent();
    let purged = pair.a.run(&["trash", "purge", "2026/a.wav"]).ok();
    assert_eq!(purged.stdout.trim(), "erased on this node: 2 files, 403.0 kB");
    let left = pair.a.trash();
    assert_eq!(left.hashes().count(), 1, "{left:?}");
    let again = pair.a.run(&["trash", "purge", "2026/a.wav"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(
        pair.a.run(&["trash", "purge", "--older-than", "1h"]).ok().stdout.trim(),
        "nothing of it is in the trash of this node"
    );
    pair.a.run(&["trash", "purge", "--all"]).ok();
    assert_eq!(pair.a.trash().paths(), [""; 0], "the day's directory goes too");
    until("the metric tells", || seen(trash_bytes(&pair.a) == 0.0));
}

#[test]
fn the_trash_empties_itself_in_time() {
    let (pair, _) = overwritten_and_deleted(&[("trash", "\"1s\"")]);
    // Nothing happens in the share meanwhile.
    until("it is empty", || seen(pair.a.trash().paths().is_empty()));
    until("the metric tells", || seen(trash_bytes(&pair.a) == 0.0));
}

#[test]
fn without_trash_what_peers_remove_is_gone() {
    let (pair, _) = overwritten_and_deleted(&[("trash", "\"0s\"")]);
    until("it is empty", || seen(pair.a.trash().paths().is_empty()));
    assert_eq!(listed(&pair.a, &[]), [Value::Null; 0]);
}

#[test]
fn what_is_written_into_a_deleted_file_comes_back_as_a_conflict_copy() {
    let pair = Pair::started();
    let path = pair.a.path("a.wav");
    fs::write(&path, b"the call").unwrap();
    pair.wait_until_consistent();
    // Open for reading, which keeps nobody from deleting it, and for writing only afterwards.
    let open = fs::File::open(&path).unwrap();
    fs::remove_file(pair.b.path("a.wav")).unwrap();
    // Not only out of the way: who writes in the instant of the delete has his file back under its name.
    until("it is deleted", || seen(!path.exists() && !listed(&pair.a, &[]).is_empty()));
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    let mut late = fs::OpenOptions::new().append(true).open(again).unwrap();
    std::io::Write::write_all(&mut late, b" goes on").unwrap();
    // Not while it is written.
    crate::support::for_a_while(std::time::Duration::from_millis(1500), || {
        assert_eq!(pair.b.tree().paths(), [""; 0]);
    });
    drop(late);
    let copy = until("what was written is on fs2", || {
        let paths = pair.b.tree().paths();
        paths.first().cloned().ok_or("nothing is there")
    });
    assert!(copy.starts_with("a.conflict-fs1-"), "{copy}");
    pair.wait_until_consistent();
    assert_eq!(fs::read(pair.b.path(&copy)).unwrap(), b"the call goes on");
    assert_eq!(pair.a.trash().paths(), [""; 0]);
    pair.a.wait_for_log(&["somebody went on writing to it", &copy]);
}

#[test]
fn a_file_that_is_written_to_in_the_trash_does_not_expire() {
    let mut pair = Pair::new();
    pair.a.set("trash", "\"0s\"");
    pair.start();
    fs::write(pair.a.path("a.wav"), b"the call").unwrap();
    pair.wait_until_consistent();
    let open = fs::File::open(pair.a.path("a.wav")).unwrap();
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
    // A writer that comes in the instant of the replacement, or thereabouts.
    fs::write(pair.b.path("a.wav"), b"replaced").unwrap();
    until("it is replaced", || seen(fs::read(pair.a.path("a.wav")).unwrap() == b"replaced"));
    let mut late = fs::OpenOptions::new().append(true).open(again).unwrap();
    std::io::Write::write_all(&mut late, b" goes on").unwrap();
    drop(late);
    if pair.a.trash().hashes().next().is_none() && open.metadata().unwrap().nlink() == 0 {
        eprintln!(
            "skipped: a_file_that_is_written_to_in_the_trash_does_not_expire: it had expired"
        );
        return;
    }
    until("what was written is on fs2", || {
        seen(pair.b.tree().hashes().any(|hash| hash == crate::support::hash(b"the call goes on")))
    });
}

#[test]
fn the_trash_outlives_a_restart_and_the_index() {
    let (mut pair, _) = overwritten_and_deleted(&[]);
    let before = listed(&pair.a, &[]);
    pair.a.stop();
    pair.start();
    assert_eq!(listed(&pair.a, &[]), before);

    pair.a.stop();
    for suffix in ["", "-wal", "-shm"] {
        // Not all are there after a clean stop.
        let _gone = fs::remove_file(format!("{}{suffix}", pair.a.index().display())).is_ok();
    }
    pair.start();
    let found = until("it is found again", || {
        let list = listed(&pair.a, &[]);
        if list.len() == 2 { Ok(list) } else { Err(format!("{list:?}")) }
    });
    for entry in found {
        assert_eq!((&entry["path"], &entry["why"]), (&"2026/a.wav".into(), &"found".into()));
        assert!(before.iter().any(|was| was["id"] == entry["id"]), "{entry}");
    }
    // An age that is short takes effect at once.
    pair.a.set("trash", "\"1s\"");
    pair.a.run(&["reload"]).ok();
    until("it is empty", || seen(pair.a.trash().paths().is_empty()));
}
