//! Indexes, keys and nodes that were put back from a backup, or copied.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Node, Pair, Tree, for_a_while, hash, seen, unique, until};

/// Copies a file or a tree with all times and modes.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-aT").args([from, to]).status().unwrap();
    assert!(done.success());
}

/// Two nodes with ten files on both; fs2 is down.
fn with_files() -> Pair {
    let mut pair = Pair::started();
    for number in 0..10 {
        fs::write(pair.a.path(format!("{number}.wav")), unique(20_000)).unwrap();
    }
    pair.wait_until_consistent();
    pair.b.stop();
    pair
}

fn state_dir(node: &Node) -> PathBuf {
    node.index().parent().unwrap().to_owned()
}

/// The state directory of fs2 as it is now, to be put back later.
fn backup(pair: &Pair) -> PathBuf {
    let backup = pair.dir.path().join("backup");
    copy(&state_dir(&pair.b), &backup);
    backup
}

fn put_back(pair: &Pair, backup: &Path) {
    fs::remove_dir_all(state_dir(&pair.b)).unwrap();
    copy(backup, &state_dir(&pair.b));
}

fn holds(tree: &Tree, bytes: &[u8]) -> bool {
    tree.hashes().any(|found| found == hash(bytes))
}

#[test]
fn an_index_put_back_from_a_backup_loses_no_change_made_since() {
    let mut pair = with_files();
    let backup = backup(&pair);
    pair.start();
    // Known to both, and to the index that is lost.
    fs::write(pair.b.path("1.wav"), unique(21_000)).unwrap();
    fs::write(pair.b.path("between.wav"), unique(5_000)).unwrap();
    fs::remove_file(pair.a.path("2.wav")).unwrap();
    pair.wait_until_consistent();
    pair.b.stop();
    put_back(&pair, &backup);
    // Made while no index knew of it, on both nodes.
    let [changed, new, on_fs1] = [22_000, 6_000, 7_000].map(unique);
    fs::write(pair.b.path("1.wav"), &changed).unwrap();
    fs::write(pair.b.path("new.wav"), &new).unwrap();
    fs::write(pair.a.path("on-fs1.wav"), &on_fs1).unwrap();
    pair.start();
    let tree = pair.wait_until_consistent();
    for bytes in [&changed, &new, &on_fs1] {
        assert!(holds(&tree, bytes), "{tree:?}");
    }
    for name in ["0.wav", "9.wav", "between.wav"] {
        assert!(tree.get(name).is_some(), "{name}: {tree:?}");
    }
}

#[test]
fn an_index_put_back_that_ran_ahead_alone_loses_no_change_made_since() {
    let mut pair = with_files();
    let backup = backup(&pair);
    pair.start();
    let seen = unique(21_000);
    fs::write(pair.b.path("1.wav"), &seen).unwrap();
    pair.wait_until_consistent();
    pair.b.stop();
    pair.a.stop();
    put_back(&pair, &backup);
    // fs2 numbers its changes while it is alone, with numbers that fs1 has seen.
    let changed = unique(22_000);
    fs::write(pair.b.path("1.wav"), &changed).unwrap();
    pair.b.start();
    pair.b.wait_for_log(&["changed here", "1.wav"]);
    for number in 20..30 {
        fs::write(pair.b.path(format!("{number}.wav")), unique(1_000)).unwrap();
    }
    until("they are noted", || {
        let noted = &pair.b.status()["peers"][0]["shares"][0]["pending_files"];
        if noted.as_u64() >= Some(11) { Ok(()) } else { Err(noted.to_string()) }
    });
    pair.start();
    let tree = pair.wait_until_consistent();
    assert!(holds(&tree, &changed), "{tree:?}");
    assert_eq!(tree.paths().iter().filter(|path| !path.contains(".conflict-")).count(), 20);
}

#[test]
fn a_disk_put_back_from_a_backup_deletes_nothing_on_the_peer() {
    let mut pair = with_files();
    let old = pair.dir.path().join("old");
    copy(&pair.b.root, &old);
    pair.start();
    let later = unique(5_000);
    fs::write(pair.b.path("later.wav"), &later).unwrap();
    fs::write(pair.b.path("0.wav"), unique(20_001)).unwrap();
    let before = pair.wait_until_consistent();
    let trash = pair.a.trash();
    pair.b.stop();
    // The disk of last night, marker and all, under the index of today.
    fs::remove_dir_all(&pair.b.root).unwrap();
    fs::rename(&old, &pair.b.root).unwrap();
    pair.start();
    let line = pair.b.wait_for_log(&["put back from a backup"]);
    assert!(line.contains("nothing is deleted"), "{line}");
    let tree = pair.wait_until_consistent();
    for bytes in before.hashes() {
        assert!(tree.hashes().any(|found| found == bytes), "{before:?}\n{tree:?}");
    }
    assert_eq!(fs::read(pair.b.path("later.wav")).unwrap(), later);
    assert_eq!(trash.difference(&pair.a.trash()), "", "before | now");
}

#[test]
fn a_machine_put_back_whole_that_ran_ahead_alone_loses_no_change_made_since() {
    let mut pair = with_files();
    let home = pair.b.root.parent().unwrap().to_owned();
    let snapshot = pair.dir.path().join("snapshot");
    copy(&home, &snapshot);
    pair.start();
    let seen = unique(21_000);
    fs::write(pair.b.path("1.wav"), &seen).unwrap();
    pair.wait_until_consistent();
    pair.b.stop();
    pair.a.stop();
    // Disk and index of one time, both of the past: nothing on fs2 tells.
    fs::remove_dir_all(&home).unwrap();
    copy(&snapshot, &home);
    let changed = unique(22_000);
    fs::write(pair.b.path("1.wav"), &changed).unwrap();
    pair.b.start();
    pair.b.wait_for_log(&["changed here", "1.wav"]);
    pair.start();
    let tree = pair.wait_until_consistent();
    for bytes in [&seen, &changed] {
        assert!(holds(&tree, bytes), "{tree:?}");
    }
    assert_eq!(tree.0.len(), 10 + 1, "{tree:?}");
    // Once, not at every new link.
    let said = |node: &Node| node.log().matches("the index starts over").count();
    assert_eq!(said(&pair.b), 1);
    for _ in 0..2 {
        pair.a.restart();
        fs::write(pair.b.path("later.wav"), unique(1_000)).unwrap();
        pair.wait_until_consistent();
    }
    assert_eq!((said(&pair.a), said(&pair.b)), (0, 1));
}

#[test]
fn a_node_cloned_from_another_with_its_index_loses_nothing() {
    let mut pair = Pair::started();
    for number in 0..10 {
        fs::write(pair.a.path(format!("{number}.wav")), unique(20_000)).unwrap();
    }
    pair.wait_until_consistent();
    pair.a.stop();
    pair.b.stop();
    // fs2 becomes a clone of fs1 in all but its key: disk, marker, index.
    fs::remove_dir_all(&pair.b.root).unwrap();
    copy(&pair.a.root, &pair.b.root);
    for suffix in ["", "-wal", "-shm"] {
        let [from, to] = [&pair.a, &pair.b].map(|node| {
            let mut file = node.index().into_os_string();
            file.push(suffix);
            PathBuf::from(file)
        });
        match from.exists() {
            true => copy(&from, &to),
            false => drop(fs::remove_file(to)),
        }
    }
    // Each numbers its next change alike.
    let versions = [unique(21_000), unique(22_000)];
    for (node, bytes) in [&mut pair.a, &mut pair.b].into_iter().zip(&versions) {
        fs::write(node.path("1.wav"), bytes).unwrap();
        fs::write(node.path(format!("by-{}.wav", node.name)), bytes).unwrap();
        node.start();
        node.wait_for_log(&["changed here", "1.wav"]);
        node.stop();
    }
    pair.start();
    // Whichever hears of the other first starts over, and the other then has no reason to.
    until("one of them notices", || {
        let notices = |node: &Node| node.log().contains("has a copy of this share's index");
        seen(notices(&pair.a) || notices(&pair.b))
    });
    let tree = pair.wait_until_consistent();
    for bytes in &versions {
        let found = tree.hashes().filter(|found| *found == hash(bytes)).count();
        assert_eq!(found, 2, "{tree:?}");
    }
    assert_eq!(tree.0.len(), 10 + 2 + 1, "{tree:?}");
    pair.stays(std::time::Duration::from_millis(300));
}

#[test]
fn two_nodes_with_one_key_are_told_apart_from_one_node() {
    let pair = Pair::started();
    fs::write(pair.a.path("1.wav"), unique(1_000)).unwrap();
    pair.wait_until_consistent();
    // fs3 was made from a copy of fs2's key.
    let mut copied = Node::new(pair.dir.path(), "fs3");
    for file in ["key.pem", "cert.pem"] {
        copy(&state_dir(&pair.b).join(file), &state_dir(&copied).join(file));
    }
    copied.pair_with(&pair.a);
    fs::write(copied.path("strange.wav"), b"strange").unwrap();
    copied.start();
    pair.a.wait_for_log(&["WARN", "two nodes have the key of this peer", "recsync init"]);
    // One of the two is told, whoever it is; the other one keeps the link.
    let refused = until("one of the two is refused", || {
        let told = |node: &&Node| {
            node.status()["peers"][0]["error"].to_string().contains("has this node's key")
        };
        [&pair.b, &copied].into_iter().find(told).map(|node| node.name.clone()).ok_or("not yet")
    });
    let connects = pair.a.log().matches("connected: ").count();
    let linked = if refused == "fs2" { &copied } else { &pair.b };
    fs::write(linked.path("2.wav"), unique(1_000)).unwrap();
    pair.wait_for(&pair.a, "2.wav");
    for_a_while(std::time::Duration::from_millis(1_500), || {
        let now = pair.a.log().matches("connected: ").count();
        assert!(now <= connects + 1, "they take the link from each other");
    });
    // When that one is gone, there is one node of that key again.
    copied.stop();
    fs::write(pair.b.path("3.wav"), unique(1_000)).unwrap();
    pair.wait_for(&pair.a, "3.wav");
    pair.wait_until_consistent();
}
