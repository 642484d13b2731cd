//! Disks that fill up, turn read-only, vanish, and lose what was not synced, on real filesystems.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Disk, Object, Pair, Tree, hash, nothing_is_left, seen, unique, until};

/// What happens to the disk of a share: each is awaited to be noticed, with recordings of both
/// nodes under way, and taken back.
fn disk_fails(test: &str, kind: &str) {
    let mut pair = Pair::new();
    let root = pair.b.root.clone();
    let Some(mut disk) = Disk::below_share(test, kind, &root) else { return };
    pair.start();
    record(&pair, "before");
    pair.wait_until_consistent();

    disk.fill(4 << 20);
    record_much(&pair);
    until_told(&pair, "no space left");
    nothing_is_torn(&pair);
    disk.make_room();
    pair.wait_until_consistent();

    disk.read_only(true);
    record(&pair, "read-only");
    until_told(&pair, "read-only");
    disk.read_only(false);
    pair.wait_until_consistent();

    if disk.shut_down(test) {
        fs::write(pair.a.path("shut-down.wav"), unique(50_000)).unwrap();
        until("fs2 is not well", || seen(pair.b.get("/healthz").unwrap().0 == 503));
    }
    disk.unmount();
    fs::write(pair.a.path("vanished.wav"), unique(50_000)).unwrap();
    until("fs2 is not well", || seen(pair.b.get("/healthz").unwrap().0 == 503));
    assert!(fs::read_dir(&root).unwrap().next().is_none(), "something was put below the mount");
    let before = pair.a.tree();
    disk.mount();
    let tree = pair.wait_until_consistent();
    assert_eq!(before.difference(&tree), "", "before | now");
    nothing_is_left(&pair);
    drop(pair);
}

fn record(pair: &Pair, when: &str) {
    for number in 0..5 {
        let dir = pair.a.path(when);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("{number}.wav")), unique(30_000)).unwrap();
    }
}

/// More than there is room for; what is large, what is small, and what overwrites.
fn record_much(pair: &Pair) {
    let dir = pair.a.path("much");
    fs::create_dir_all(&dir).unwrap();
    for number in 0..40 {
        let len = if number % 2 == 0 { 400_000 } else { 100_000 };
        fs::write(dir.join(format!("{number}.wav")), unique(len)).unwrap();
        fs::write(pair.a.path("before/0.wav"), unique(len)).unwrap();
    }
}

fn until_told(pair: &Pair, words: &str) {
    until(&format!("fs2 tells of {words}"), || {
        let status = pair.b.status().to_string();
        if status.contains(words) { Ok(()) } else { Err(status) }
    });
}

/// What fs2 has is what fs1 has; the file that is overwritten again and again may be an older one.
fn nothing_is_torn(pair: &Pair) {
    let (a, b) = (pair.a.tree(), pair.b.tree());
    for (path, object) in &b.0 {
        let is_old = path == b"before/0.wav";
        assert!(is_old || a.get(path) == Some(object), "{}", String::from_utf8_lossy(path));
    }
}

#[test]
fn an_ext4_disk_fails_and_comes_back() {
    disk_fails("an_ext4_disk_fails_and_comes_back", "ext4");
}

#[test]
fn an_xfs_disk_fails_and_comes_back() {
    disk_fails("an_xfs_disk_fails_and_comes_back", "xfs");
}

#[test]
fn a_btrfs_disk_fails_and_comes_back() {
    disk_fails("a_btrfs_disk_fails_and_comes_back", "btrfs");
}

/// Power cuts of each test here, or as many as `RECSYNC_CUTS` says, for the long form.
fn cuts() -> usize {
    std::env::var("RECSYNC_CUTS").map_or(3, |count| count.parse().unwrap())
}

/// The share and the index of fs2 lose, again and again and under load, what was not synced, and
/// the daemon with it. What fs1's users closed, and what fs1 ever had of fs2's, must be there after.
fn power_cuts(test: &str, kind: &str) {
    let mut pair = Pair::new();
    let place = pair.dir.path().join("disk");
    fs::create_dir(&place).unwrap();
    let Some(mut disk) = Disk::new(test, kind, &place) else { return };
    // Both the share and the index lie on it.
    let state = pair.b.index().parent().unwrap().to_owned();
    for (dir, name) in [(pair.b.root.clone(), "recordings"), (state, "state")] {
        let mut copy = Command::new("cp");
        copy.arg("-a").args([&dir, &place.join(name)]);
        assert!(copy.status().unwrap().success());
        fs::remove_dir_all(&dir).unwrap();
        symlink(place.join(name), &dir).unwrap();
    }
    assert!(Command::new("sync").arg("-f").arg(&place).status().unwrap().success());
    pair.start();
    for cut in 0..cuts() {
        let stop = AtomicBool::new(false);
        let roots = [pair.a.root.clone(), pair.b.root.clone()];
        let (written, had, is_cut) = thread::scope(|scope| {
            let [a, b] = [("fs1", &roots[0]), ("fs2", &roots[1])]
                .map(|(me, root)| scope.spawn(|| overwrite(me, root, cut, &stop)));
            until("both have much of the other's", || {
                let counts = [("fs2", &roots[0]), ("fs1", &roots[1])]
                    .map(|(peer, root)| files(root, cut, peer).len());
                seen(counts.iter().all(|&count| count > 30 + cut % 10))
            });
            let had = files(&roots[0], cut, "fs2");
            let is_cut = disk.shut_down(test);
            pair.b.kill();
            stop.store(true, Ordering::Relaxed);
            ([a.join().unwrap(), b.join().unwrap()], had, is_cut)
        });
        if !is_cut {
            return;
        }
        disk.unmount();
        disk.mount();
        pair.start();
        pair.wait_until_consistent();
        let now = files(&roots[0], cut, "");
        let kept: BTreeSet<_> = [&pair.a, &pair.b]
            .iter()
            .flat_map(|node| node.tree().hashes().chain(node.trash().hashes()).collect::<Vec<_>>())
            .collect();
        for (path, versions) in &written[0] {
            // Under its name, or as a conflict copy: fs2 may have put the version before in place
            // just before the cut, and take that for a change of its own users (docs/testing.md).
            assert!(versions.last().is_some_and(|last| kept.contains(last)), "cut {cut}: {path}");
            if versions.len() == 1 {
                assert_eq!(now.get(path), versions.last(), "cut {cut}: {path} is another one");
            }
        }
        for (path, hash) in &had {
            // What fs2's user was overwriting without a sync may be another one now, or empty on
            // XFS; the one before is kept.
            assert!(kept.contains(hash), "cut {cut}: {path}, which fs1 had, is lost");
            if written[1][path].len() == 1 {
                assert_eq!(now.get(path), Some(hash), "cut {cut}: {path} is not what it was");
            }
        }
    }
    // While the disk is there.
    pair.b.kill();
}

/// What was written under each name, the last at the end.
type Versions = BTreeMap<String, Vec<[u8; 32]>>;

/// Writes and overwrites files of a node until told to stop, or until its disk is gone.
fn overwrite(me: &str, root: &Path, cut: usize, stop: &AtomicBool) -> Versions {
    let mut written = Versions::new();
    let dir = root.join(format!("{cut}"));
    for number in 0_usize.. {
        // One in three is new, and never touched again.
        let which = if number.is_multiple_of(3) { number } else { number % 60 };
        let name = format!("{me}-{which}.wav");
        let bytes = unique(if number.is_multiple_of(20) { 400_000 } else { 8_000 });
        let beside = dir.join("tmp-of-a-user").with_extension(me);
        // Noted before: what fails may be there all the same.
        written.entry(name.clone()).or_default().push(hash(&bytes));
        let done = fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&beside, &bytes))
            .and_then(|()| fs::rename(&beside, dir.join(name)));
        if done.is_err() || stop.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(Duration::from_millis(4));
    }
    written
}

/// The files of a node's users that are in a tree.
fn files(root: &Path, cut: usize, of: &str) -> BTreeMap<String, [u8; 32]> {
    let dir = root.join(format!("{cut}"));
    if !dir.is_dir() {
        return BTreeMap::new();
    }
    let files = Tree::read(&dir).0.into_iter().filter_map(|(path, object)| match object {
        Object::File { hash, .. } => Some((String::from_utf8(path).unwrap(), hash)),
        _ => None,
    });
    files.filter(|(path, _)| path.starts_with(of) && path.ends_with(".wav")).collect()
}

#[test]
fn power_cuts_on_ext4() {
    power_cuts("power_cuts_on_ext4", "ext4");
}

#[test]
fn power_cuts_on_xfs() {
    power_cuts("power_cuts_on_xfs", "xfs");
}
