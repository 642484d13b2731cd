//! Who owns a recording: FreeSWITCH's `chown`, and nodes that may not give files away.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;

use crate::support::{Node, Pair, seen, unique, until};

/// Accounts of the tests: numbers, because no name is on every machine.
const FREESWITCH: u32 = 64_111;
const OTHER: u32 = 64_222;

/// True if this user may give files away. Says so if not.
fn may_chown(test: &str) -> bool {
    let may = rustix::process::geteuid().is_root();
    if !may {
        eprintln!("SKIPPED {test}: only root may give files away");
    }
    may
}

fn owner(path: &Path) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid())
}

fn chown_all(root: &Path, account: u32) {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == ".recsync") {
            continue;
        }
        lchown(&path, Some(account), Some(account)).unwrap();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            chown_all(&path, account);
        }
    }
}

fn wait_for_owner(node: &Node, path: &str, account: (u32, u32)) {
    until(&format!("{path} belongs to {account:?} on {}", node.name), || {
        seen(node.path(path).symlink_metadata().is_ok() && owner(&node.path(path)) == account)
    });
}

fn some_recordings(dir: &Path) {
    fs::create_dir_all(dir.join("2026/11")).unwrap();
    fs::write(dir.join("2026/11/a.wav"), unique(20_000)).unwrap();
    fs::write(dir.join("2026/11/b.wav"), unique(400_000)).unwrap();
    symlink("a.wav", dir.join("2026/11/latest")).unwrap();
}

const PATHS: [&str; 5] = ["2026", "2026/11", "2026/11/a.wav", "2026/11/b.wav", "2026/11/latest"];

#[test]
fn chown_r_goes_over_without_any_content() {
    if !may_chown("chown_r_goes_over_without_any_content") {
        return;
    }
    let pair = Pair::started();
    some_recordings(&pair.a.root);
    pair.wait_until_consistent();
    until("the recordings are counted", || seen(pair.a.traffic().0 > 420_000));
    let (before, done) = (pair.a.traffic().0, pair.b.applied("metadata"));
    let inodes = |node: &Node| PATHS.map(|path| node.path(path).symlink_metadata().unwrap().ino());
    let inodes_before = inodes(&pair.b);
    chown_all(&pair.a.root, FREESWITCH);
    for path in PATHS {
        wait_for_owner(&pair.b, path, (FREESWITCH, FREESWITCH));
    }
    pair.wait_until_consistent();
    let sent = pair.a.traffic().0 - before;
    assert!(sent < 20_000, "{sent} bytes: content was sent");
    assert_eq!(inodes(&pair.b), inodes_before, "nothing was replaced");
    assert_eq!(pair.b.applied("metadata") - done, 5.0);
}

#[test]
fn chown_r_while_the_daemon_was_down_is_found_at_its_start() {
    if !may_chown("chown_r_while_the_daemon_was_down_is_found_at_its_start") {
        return;
    }
    let mut pair = Pair::started();
    some_recordings(&pair.a.root);
    pair.wait_until_consistent();
    pair.a.stop();
    chown_all(&pair.a.root, FREESWITCH);
    pair.a.start();
    for path in PATHS {
        wait_for_owner(&pair.b, path, (FREESWITCH, FREESWITCH));
    }
    pair.wait_until_consistent();
}

#[test]
fn freeswitch_s_chown_at_the_start_of_both_nodes_settles_silently() {
    if !may_chown("freeswitch_s_chown_at_the_start_of_both_nodes_settles_silently") {
        return;
    }
    let pair = Pair::started();
    some_recordings(&pair.a.root);
    pair.wait_until_consistent();
    std::thread::scope(|scope| {
        for node in [&pair.a, &pair.b] {
            scope.spawn(|| chown_all(&node.root, FREESWITCH));
        }
    });
    pair.wait_until_consistent();
    for (node, path) in [&pair.a, &pair.b].into_iter().flat_map(|node| PATHS.map(|p| (node, p))) {
        assert_eq!(owner(&node.path(path)), (FREESWITCH, FREESWITCH), "{path} on {}", node.name);
    }
    assert_eq!(pair.a.share()["conflicts"], 0);
    assert_eq!(pair.b.share()["conflicts"], 0);
}

#[test]
fn a_new_recording_comes_with_its_owner_and_its_set_id_bits() {
    if !may_chown("a_new_recording_comes_with_its_owner_and_its_set_id_bits") {
        return;
    }
    let mut pair = Pair::started();
    pair.b.stop();
    fs::create_dir(pair.a.path("d")).unwrap();
    lchown(pair.a.path("d"), Some(FREESWITCH), Some(OTHER)).unwrap();
    fs::write(pair.a.path("d/tool"), unique(1_000)).unwrap();
    lchown(pair.a.path("d/tool"), Some(FREESWITCH), Some(OTHER)).unwrap();
    fs::set_permissions(pair.a.path("d/tool"), Permissions::from_mode(0o6755)).unwrap();
    pair.start();
    pair.wait_for(&pair.b, "d/tool");
    pair.wait_until_consistent();
    let tool = pair.b.path("d/tool").metadata().unwrap();
    assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o7777), (FREESWITCH, OTHER, 0o6755));
    assert_eq!(owner(&pair.b.path("d")), (FREESWITCH, OTHER));
    // Giving it away takes the bits; the record says what they are to be.
    lchown(pair.a.path("d/tool"), Some(OTHER), Some(OTHER)).unwrap();
    fs::set_permissions(pair.a.path("d/tool"), Permissions::from_mode(0o6755)).unwrap();
    wait_for_owner(&pair.b, "d/tool", (OTHER, OTHER));
    pair.wait_until_consistent();
    assert_eq!(pair.b.path("d/tool").metadata().unwrap().mode() & 0o7777, 0o6755);
}

#[test]
fn a_node_that_may_not_give_files_away_says_so_once_and_verifies_all_the_same() {
    if !may_chown("a_node_that_may_not_give_files_away_says_so_once_and_verifies_all_the_same") {
        return;
    }
    let mut pair = Pair::new();
    // Its state and share must be reached by that user.
    fs::set_permissions(pair.dir.path(), Permissions::from_mode(0o755)).unwrap();
    pair.b.set_user(OTHER);
    pair.start();
    some_recordings(&pair.a.root);
    chown_all(&pair.a.root, FREESWITCH);
    pair.wait_until_consistent();
    for path in PATHS {
        assert_eq!(owner(&pair.a.path(path)), (FREESWITCH, FREESWITCH), "{path} on fs1");
        assert_eq!(owner(&pair.b.path(path)), (OTHER, OTHER), "{path} on fs2");
    }
    let notes = pair.b.share()["notes"].to_string();
    assert_eq!(notes.matches("64111:64111").count(), 1, "{notes}");
    assert!(notes.contains("CAP_CHOWN"), "{notes}");
    assert_eq!(pair.b.log().matches("64111:64111 keep another owner").count(), 1);
    // What is changed there does not take the owner away from the other node.
    fs::write(pair.b.path("2026/11/a.wav"), unique(30_000)).unwrap();
    fs::rename(pair.b.path("2026/11/b.wav"), pair.b.path("2026/11/kept.wav")).unwrap();
    pair.wait_for(&pair.a, "2026/11/kept.wav");
    pair.wait_until_consistent();
    for path in ["2026/11/a.wav", "2026/11/kept.wav"] {
        assert_eq!(owner(&pair.a.path(path)), (FREESWITCH, FREESWITCH), "{path} on fs1");
    }
}

#[test]
fn owners_that_are_to_be_ignored_stay_as_they_are() {
    if !may_chown("owners_that_are_to_be_ignored_stay_as_they_are") {
        return;
    }
    let mut pair = Pair::new();
    pair.b.set("owner", "\"ignore\"");
    pair.start();
    some_recordings(&pair.a.root);
    pair.wait_until_consistent();
    chown_all(&pair.a.root, FREESWITCH);
    chown_all(&pair.b.root, OTHER);
    pair.wait_until_consistent();
    for path in PATHS {
        assert_eq!(owner(&pair.a.path(path)), (FREESWITCH, FREESWITCH), "{path} on fs1");
        assert_eq!(owner(&pair.b.path(path)), (OTHER, OTHER), "{path} on fs2");
    }
}
