//! What both nodes did while they did not see each other.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::{Pair, Tree, hash, unique};

/// Writes the same files, times and modes into each of `roots`.
fn fill(roots: &[&Path], files: usize) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 987_654_321);
    for number in 0..files {
        let bytes = unique(30_000);
        let bytes = if number == 0 { unique(3_000_000) } else { bytes };
        for root in roots {
            let dir = root.join(format!("2026/{}", number % 3));
            fs::create_dir_all(&dir).unwrap();
            let path = dir.join(format!("{number}.wav"));
            fs::write(&path, &bytes).unwrap();
            let times = FileTimes::new().set_accessed(time).set_modified(time);
            File::open(&path).unwrap().set_times(times).unwrap();
        }
    }
}

fn applied(pair: &Pair) -> f64 {
    [&pair.a, &pair.b].iter().map(|node| node.metric("recsync_files_applied_total", &[])).sum()
}

/// The conflict copies in a tree.
fn copies(tree: &Tree) -> Vec<String> {
    tree.paths().into_iter().filter(|path| path.contains(".conflict-")).collect()
}

/// Two nodes with some files, both down.
fn apart() -> Pair {
    let mut pair = Pair::new();
    fill(&[&pair.a.root], 5);
    pair.start();
    pair.wait_until_consistent();
    pair.a.stop();
    pair.b.stop();
    pair
}

#[test]
fn nodes_that_start_with_the_same_files_transfer_nothing() {
    let mut pair = Pair::new();
    fill(&[&pair.a.root, &pair.b.root], 200);
    pair.start();
    let tree = pair.wait_until_consistent();
    assert_eq!(copies(&tree), [""; 0]);
    assert_eq!(applied(&pair), 0.0);
    let size = 3_000_000 + 199 * 30_000;
    for node in [&pair.a, &pair.b] {
        let (_, received) = node.traffic();
        assert!(received < size / 20, "{} received {received} bytes", node.name);
        assert_eq!(node.trash().paths(), [""; 0]);
    }
}

#[test]
fn nodes_that_start_with_different_files_end_with_the_union() {
    let mut pair = Pair::new();
    fill(&[&pair.a.root, &pair.b.root], 10);
    fs::write(pair.a.path("2026/1/only-fs1.wav"), unique(5_000)).unwrap();
    fs::create_dir_all(pair.a.path("archive/deep/empty")).unwrap();
    fs::write(pair.b.path("2026/1/only-fs2.wav"), unique(900_000)).unwrap();
    symlink("1/only-fs2.wav", pair.b.path("2026/latest")).unwrap();
    let mut union = pair.a.tree();
    union.0.extend(pair.b.tree().0);

    pair.start();
    pair.wait_until_both_hold(&union);
    assert_eq!(pair.a.trash().paths(), [""; 0]);
    assert_eq!(pair.b.trash().paths(), [""; 0]);
}

#[test]
fn a_new_node_gets_everything() {
    let mut pair = Pair::new();
    fill(&[&pair.a.root], 60);
    let tree = pair.a.tree();
    pair.start();
    pair.wait_until_both_hold(&tree);
}

/// Has both nodes change the same path, and looks that both versions are on both nodes
/// afterwards, one under the name itself and the other one as its conflict copy.
fn both_versions_survive(mut pair: Pair, path: &str, change: impl Fn(&Path, &[u8])) {
    let versions = [unique(20_000), unique(21_000)];
    change(&pair.a.path(path), &versions[0]);
    change(&pair.b.path(path), &versions[1]);
    pair.start();
    let tree = pair.wait_until_consistent();

    let found: Vec<_> = copies(&tree);
    let [copy] = found.as_slice() else { panic!("not one copy: {tree:?}") };
    let (stem, extension) = path.rsplit_once('.').unwrap();
    assert!(
        copy.starts_with(&format!("{stem}.conflict-fs")) && copy.ends_with(extension),
        "{copy}"
    );
    let mut bytes = [path, copy].map(|path| fs::read(pair.a.path(path)).unwrap());
    if bytes[0] != versions[0] {
        bytes.reverse();
    }
    assert!(bytes == versions, "both versions, whole");
    let conflicts: u64 =
        [&pair.a, &pair.b].iter().map(|node| node.share()["conflicts"].as_u64().unwrap()).sum();
    assert!(conflicts > 0, "a conflict is counted");
}

#[test]
fn a_file_changed_on_both_sides_keeps_both_versions() {
    both_versions_survive(apart(), "2026/1/1.wav", |path, bytes| fs::write(path, bytes).unwrap());
}

#[test]
fn a_file_created_on_both_sides_keeps_both_versions() {
    both_versions_survive(apart(), "2026/new.wav", |path, bytes| fs::write(path, bytes).unwrap());
}

#[test]
fn a_file_that_differs_at_the_first_meeting_keeps_both_versions() {
    both_versions_survive(Pair::new(), "call.wav", |path, bytes| fs::write(path, bytes).unwrap());
}

#[test]
fn the_same_change_on_both_sides_is_no_conflict() {
    let mut pair = apart();
    let bytes = unique(20_000);
    for node in [&pair.a, &pair.b] {
        fs::write(node.path("2026/1/1.wav"), &bytes).unwrap();
        fs::write(node.path("2026/new.wav"), &bytes).unwrap();
    }
    pair.start();
    let tree = pair.wait_until_consistent();
    assert_eq!(copies(&tree), [""; 0]);
    assert_eq!(tree.hashes().filter(|found| *found == hash(&bytes)).count(), 2);
}

#[test]
fn a_file_deleted_on_one_side_and_changed_on_the_other_stays() {
    for deleter in ["fs1", "fs2"] {
        let mut pair = apart();
        let (deletes, changes) =
            if deleter == "fs1" { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
        let bytes = unique(40_000);
        fs::remove_file(deletes.path("2026/1/1.wav")).unwrap();
        fs::write(changes.path("2026/1/1.wav"), &bytes).unwrap();
        pair.start();
        let tree = pair.wait_until_consistent();
        assert_eq!(fs::read(pair.a.path("2026/1/1.wav")).unwrap(), bytes);
        assert_eq!(copies(&tree), [""; 0]);
    }
}

#[test]
fn a_directory_deleted_on_one_side_and_added_to_on_the_other_stays_with_what_is_new() {
    let mut pair = apart();
    fs::remove_dir_all(pair.a.path("2026/1")).unwrap();
    let bytes = unique(4_000);
    fs::write(pair.b.path("2026/1/new.wav"), &bytes).unwrap();
    pair.start();
    let tree = pair.wait_until_consistent();
    let in_it: Vec<_> =
        tree.paths().into_iter().filter(|path| path.starts_with("2026/1/")).collect();
    assert_eq!(in_it, ["2026/1/new.wav"]);
    assert_eq!(fs::read(pair.a.path("2026/1/new.wav")).unwrap(), bytes);
}

#[test]
fn a_file_deleted_on_both_sides_is_agreement() {
    let mut pair = apart();
    for node in [&pair.a, &pair.b] {
        fs::remove_file(node.path("2026/1/1.wav")).unwrap();
    }
    pair.start();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.get("2026/1/1.wav"), None);
    for node in [&pair.a, &pair.b] {
        assert_eq!(node.trash().paths(), [""; 0], "no trash entry");
    }
}

#[test]
fn a_file_renamed_on_both_sides_has_both_names() {
    let mut pair = apart();
    let bytes = fs::read(pair.a.path("2026/1/1.wav")).unwrap();
    fs::rename(pair.a.path("2026/1/1.wav"), pair.a.path("2026/1/by-fs1.wav")).unwrap();
    fs::rename(pair.b.path("2026/1/1.wav"), pair.b.path("2026/1/by-fs2.wav")).unwrap();
    pair.start();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.get("2026/1/1.wav"), None);
    for name in ["2026/1/by-fs1.wav", "2026/1/by-fs2.wav"] {
        assert_eq!(fs::read(pair.b.path(name)).unwrap(), bytes, "{name}");
    }
}

#[test]
fn a_directory_and_a_file_of_one_name_are_both_kept() {
    for dir_on in ["fs1", "fs2"] {
        let mut pair = apart();
        let (dir, file) = if dir_on == "fs1" { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
        let [inside, plain] = [unique(3_000), unique(4_000)];
        fs::create_dir(dir.path("clash.d")).unwrap();
        fs::write(dir.path("clash.d/inside.wav"), &inside).unwrap();
        fs::write(file.path("clash.d"), &plain).unwrap();
        pair.start();
        let tree = pair.wait_until_consistent();
        let found = copies(&tree);
        let [copy] = found.as_slice() else { panic!("not one copy: {tree:?}") };
        assert_eq!(fs::read(pair.a.path("clash.d/inside.wav")).unwrap(), inside);
        assert_eq!(fs::read(pair.a.path(copy)).unwrap(), plain);
    }
}

#[test]
fn edits_of_one_node_alone_are_no_conflict_however_many() {
    let mut pair = apart();
    let path = "2026/1/1.wav";
    for _ in 0..3 {
        fs::write(pair.a.path(path), unique(20_000)).unwrap();
        pair.a.start();
        pair.a.wait_for_log(&["changed here", path]);
        pair.a.stop();
    }
    let last = fs::read(pair.a.path(path)).unwrap();
    pair.start();
    let tree = pair.wait_until_consistent();
    assert_eq!(copies(&tree), [""; 0]);
    assert_eq!(fs::read(pair.b.path(path)).unwrap(), last);
}

#[test]
fn a_node_that_lost_its_index_adopts_what_is_there() {
    let mut pair = apart();
    let before = pair.a.tree();
    for node in [&pair.b] {
        for suffix in ["", "-wal", "-shm"] {
            let mut file = node.index().into_os_string();
            file.push(suffix);
            if Path::new(&file).exists() {
                fs::remove_file(file).unwrap();
            }
        }
    }
    fs::write(pair.b.path("2026/new-on-fs2.wav"), b"new").unwrap();
    pair.start();
    let mut tree = pair.wait_until_consistent();
    assert!(tree.0.remove(&b"2026/new-on-fs2.wav"[..]).is_some());
    assert_eq!(before.difference(&tree), "", "before | now");
    let (_, received) = pair.b.traffic();
    assert!(received < 300_000, "fs2 received {received} bytes that it had");
}

#[test]
fn a_node_set_back_to_an_older_disk_and_index_catches_up_and_deletes_nothing() {
    let mut pair = apart();
    let copy = |from: &Path, to: &Path| {
        let done = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
        assert!(done.success());
    };
    // A snapshot of all that fs2 has: share and state.
    let home = pair.b.root.parent().unwrap().to_owned();
    let snapshot = pair.dir.path().join("snapshot");
    copy(&home, &snapshot);
    pair.start();
    fs::write(pair.a.path("2026/later.wav"), unique(9_000)).unwrap();
    fs::write(pair.b.path("2026/later-on-fs2.wav"), unique(9_000)).unwrap();
    fs::remove_file(pair.a.path("2026/1/1.wav")).unwrap();
    let before = pair.wait_until_consistent();

    pair.b.stop();
    fs::remove_dir_all(&home).unwrap();
    fs::rename(&snapshot, &home).unwrap();
    pair.start();
    let mut tree = pair.wait_until_consistent();
    // What was deleted before may be back (a copy too many); nothing may be gone.
    tree.0.remove(&b"2026/1/1.wav"[..]);
    assert_eq!(before.difference(&tree), "", "before | now");
}
