//! What other tools got wrong, where no other test shows it: docs/semantics.md has the list.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use crate::support::{Node, Pair, Tree, hash, seen, unique, until};

fn copies(tree: &Tree) -> Vec<String> {
    tree.paths().into_iter().filter(|path| path.contains(".conflict-")).collect()
}

/// lsyncd 290: the files behind the link were deleted on the other node.
#[test]
fn a_directory_copied_removed_and_linked_in_one_burst_keeps_the_original() {
    let mut pair = Pair::new();
    for node in [&mut pair.a, &mut pair.b] {
        // Half of all files go, once the copies were noticed.
        node.set("max_delete", "\"100%\"");
    }
    pair.start();
    fs::create_dir_all(pair.a.path("one")).unwrap();
    fs::create_dir_all(pair.a.path("two")).unwrap();
    for number in 0..20 {
        fs::write(pair.a.path(format!("one/{number}.wav")), unique(2_000)).unwrap();
    }
    pair.wait_until_consistent();
    for _ in 0..5 {
        let burst = "cp -r one two/ && rm -r two/one && ln -s ../one two/one";
        let done = Command::new("sh").args(["-c", burst]).current_dir(&pair.a.root).status();
        assert!(done.unwrap().success());
        let tree = pair.wait_until_consistent();
        assert_eq!(tree.hashes().count(), 20, "{tree:?}");
        assert_eq!(copies(&tree), [""; 0]);
        fs::remove_file(pair.a.path("two/one")).unwrap();
        let tree = pair.wait_until_consistent();
        assert_eq!(tree.hashes().count(), 20, "{tree:?}");
    }
}

/// Syncthing 492: what was under way kept the directory, which then came back to its deleter.
#[test]
fn a_directory_deleted_while_a_file_of_it_travels_stays_deleted() {
    let pair = Pair::started();
    for round in 0..3 {
        fs::create_dir(pair.a.path("day")).unwrap();
        fs::write(pair.a.path("day/small.wav"), unique(1_000)).unwrap();
        fs::write(pair.a.path("day/large.wav"), unique(30_000_000)).unwrap();
        // Sooner and later in the transfer.
        pair.wait_for(&pair.b, "day/small.wav");
        let until_size = round * 8_000_000;
        until("some of it is there", || {
            let tmp = fs::read_dir(pair.b.path(".recsync/tmp")).unwrap();
            let sizes = tmp.filter_map(|file| file.ok()?.metadata().ok()).map(|stat| stat.len());
            let done = pair.b.path("day/large.wav").exists();
            seen(done || sizes.max().unwrap_or(0) >= until_size)
        });
        fs::remove_dir_all(pair.a.path("day")).unwrap();
        let tree = pair.wait_until_consistent();
        assert_eq!(tree.paths(), [""; 0]);
        pair.stays(Duration::from_millis(300));
    }
}

/// Syncthing 6605: an index that is lost forgets that a file was deleted, and the delete struck again.
#[test]
fn a_file_made_again_after_its_delete_was_forgotten_lives() {
    let mut pair = Pair::started();
    let [first, second] = [unique(3_000), unique(4_000)];
    for name in ["same.wav", "other.wav"] {
        fs::write(pair.a.path(name), &first).unwrap();
    }
    pair.wait_until_consistent();
    for name in ["same.wav", "other.wav"] {
        fs::remove_file(pair.b.path(name)).unwrap();
    }
    pair.wait_until_consistent();
    pair.a.stop();
    for suffix in ["", "-wal", "-shm"] {
        let mut file = pair.a.index().into_os_string();
        file.push(suffix);
        if fs::exists(&file).unwrap() {
            fs::remove_file(file).unwrap();
        }
    }
    fs::write(pair.a.path("same.wav"), &first).unwrap();
    fs::write(pair.a.path("other.wav"), &second).unwrap();
    pair.start();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.paths(), ["other.wav", "same.wav"]);
    assert_eq!(fs::read(pair.b.path("other.wav")).unwrap(), second);
}

/// rclone 9939: what was equal at the first meeting was never noted, so that a delete was reverted.
#[test]
fn what_was_equal_at_the_first_meeting_can_be_deleted() {
    let mut pair = Pair::new();
    let bytes = [unique(3_000), unique(400_000)];
    for node in [&pair.a, &pair.b] {
        for (number, bytes) in bytes.iter().enumerate() {
            fs::write(node.path(format!("{number}.wav")), bytes).unwrap();
        }
    }
    pair.start();
    pair.wait_until_consistent();
    fs::remove_file(pair.a.path("0.wav")).unwrap();
    fs::remove_file(pair.b.path("1.wav")).unwrap();
    assert_eq!(pair.wait_until_consistent().paths(), [""; 0]);
    pair.b.restart();
    pair.start();
    assert_eq!(pair.wait_until_consistent().paths(), [""; 0]);
}

/// Syncthing 2619: every node that held the loser made a copy of its own.
#[test]
fn one_loser_on_two_nodes_becomes_one_copy() {
    let pair = Pair::new();
    let mut third = Node::new(pair.dir.path(), "fs3");
    let mut pair = pair;
    for node in [&pair.a, &pair.b] {
        node.pair_with(&third);
        third.pair_with(node);
    }
    third.spawn();
    pair.start();
    let [old, lost, won] = [unique(1_000), unique(2_000), unique(3_000)];
    fs::write(pair.a.path("call.wav"), old).unwrap();
    let all = |pair: &Pair, third: &Node, len: usize| {
        until("all three are the same", || {
            let [a, b, c] = [&pair.a, &pair.b, third].map(Node::tree);
            let difference = format!("{}{}", a.difference(&b), a.difference(&c));
            if difference.is_empty() && a.0.len() == len { Ok(a) } else { Err(difference) }
        })
    };
    all(&pair, &third, 1);
    third.stop();
    fs::write(pair.a.path("call.wav"), &lost).unwrap();
    pair.wait_for(&pair.b, "call.wav");
    until("fs1 and fs2 have one version", || {
        seen(fs::read(pair.b.path("call.wav")).unwrap() == lost)
    });
    // Later, so that it keeps the name; fs1 and fs2 both hold the loser.
    fs::write(third.path("call.wav"), &won).unwrap();
    third.start();
    let tree = all(&pair, &third, 2);
    let found = copies(&tree);
    assert!(found.len() == 1 && found[0].contains("conflict-fs1"), "{tree:?}");
    assert_eq!(fs::read(pair.b.path("call.wav")).unwrap(), won);
    assert_eq!(fs::read(pair.b.path(&found[0])).unwrap(), lost);
}

/// Syncthing 2282: copies of copies without end.
#[test]
fn a_conflict_of_a_conflict_copy_is_named_from_the_first_name() {
    let mut pair = Pair::started();
    fs::write(pair.a.path("call.wav"), unique(1_000)).unwrap();
    pair.wait_until_consistent();
    let mut known = vec![];
    let mut path = "call.wav".to_owned();
    for round in 0..3 {
        pair.a.stop();
        pair.b.stop();
        for node in [&pair.a, &pair.b] {
            let bytes = unique(2_000);
            fs::write(node.path(&path), &bytes).unwrap();
            known.push(hash(&bytes));
        }
        pair.start();
        let tree = pair.wait_until_consistent();
        let found = copies(&tree);
        assert_eq!(found.len(), round + 1, "{tree:?}");
        for name in &found {
            assert_eq!(name.matches(".conflict-").count(), 1, "{name}");
            assert!(name.starts_with("call.conflict-fs") && name.ends_with(".wav"), "{name}");
        }
        // What the last round fought over was given up by whoever wrote it anew.
        let live: Vec<_> = tree.hashes().collect();
        let [one, two] = [known[known.len() - 2], known[known.len() - 1]];
        assert!(live.contains(&one) && live.contains(&two), "{tree:?}");
        path = found[0].clone();
    }
    // One deletes a copy, the other one changes it: it stays. Both delete the rest: it is gone.
    pair.a.stop();
    pair.b.stop();
    let found = copies(&pair.a.tree());
    let last = unique(5_000);
    fs::remove_file(pair.a.path(&found[0])).unwrap();
    fs::write(pair.b.path(&found[0]), &last).unwrap();
    for node in [&pair.a, &pair.b] {
        for name in &found[1..] {
            fs::remove_file(node.path(name)).unwrap();
        }
    }
    pair.start();
    let tree = pair.wait_until_consistent();
    assert_eq!(copies(&tree), [found[0].as_str()]);
    assert_eq!(fs::read(pair.a.path(&found[0])).unwrap(), last);
}

/// Syncthing 276: the root is a link.
#[test]
fn a_share_whose_path_is_a_link_is_a_share_like_any_other() {
    let mut pair = Pair::new();
    let real = pair.a.root.with_file_name("real");
    fs::rename(&pair.a.root, &real).unwrap();
    symlink(&real, &pair.a.root).unwrap();
    fs::write(pair.b.path("from-fs2.wav"), unique(1_000)).unwrap();
    pair.start();
    fs::write(pair.a.path("from-fs1.wav"), unique(1_000)).unwrap();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.paths(), ["from-fs1.wav", "from-fs2.wav"]);
    fs::remove_file(pair.b.path("from-fs1.wav")).unwrap();
    assert_eq!(pair.wait_until_consistent().paths(), ["from-fs2.wav"]);
}
