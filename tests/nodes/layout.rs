//! How files lie on a disk: other disks below the share, hard links, holes, and several shares.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Pair, seen, unique, until};

/// A filesystem in memory over a directory; gone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// None, said loudly, where nobody may mount.
    fn over(test: &str, dir: &Path) -> Option<Mounted> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(dir).output();
        match mounted {
            Ok(done) if done.status.success() => Some(Mounted(dir.to_owned())),
            refused => {
                eprintln!("SKIPPED {test}: nothing can be mounted here: {refused:?}");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(gone.unwrap().success());
    }
}

#[test]
fn a_disk_mounted_over_a_directory_of_the_share_deletes_nothing_and_is_said_once() {
    let pair = Pair::started();
    fs::create_dir(pair.a.path("archive")).unwrap();
    for n in 0..30 {
        fs::write(pair.a.path(format!("archive/{n}.wav")), unique(100)).unwrap();
    }
    fs::write(pair.a.path("call.wav"), unique(100)).unwrap();
    let before = pair.wait_until_consistent();
    let test = "a_disk_mounted_over_a_directory_of_the_share_deletes_nothing_and_is_said_once";
    let Some(mounted) = Mounted::over(test, &pair.a.path("archive")) else { return };
    fs::write(pair.a.path("archive/of the other disk"), unique(100)).unwrap();
    for _ in 0..2 {
        let scans = pair.a.metric("recsync_scans_total", &[]);
        pair.a.run(&["rescan"]).ok();
        until("the scan is done", || seen(pair.a.metric("recsync_scans_total", &[]) > scans));
    }
    fs::write(pair.a.path("later.wav"), unique(100)).unwrap();
    pair.wait_for(&pair.b, "later.wav");
    // What is changed below it on the other node waits; nothing else does.
    fs::write(pair.b.path("archive/new.wav"), unique(100)).unwrap();
    fs::write(pair.b.path("more.wav"), unique(100)).unwrap();
    pair.wait_for(&pair.a, "more.wav");
    assert_eq!(fs::read_dir(pair.b.path("archive")).unwrap().count(), 31, "nothing was deleted");
    assert!(!pair.b.path("archive/of the other disk").exists(), "and nothing came from there");
    let notes = pair.a.share()["notes"].to_string();
    assert_eq!(notes.matches("archive").count(), 1, "{notes}");
    assert_eq!(pair.a.log().matches("another filesystem is mounted there").count(), 1);
    drop(mounted);
    pair.a.run(&["rescan"]).ok();
    pair.wait_for(&pair.a, "archive/new.wav");
    let after = pair.wait_until_consistent();
    for (path, object) in before.0.iter().filter(|(path, _)| path.ends_with(b".wav")) {
        assert_eq!(after.get(path), Some(object));
    }
}

#[test]
fn a_write_through_one_hard_link_reaches_the_other_name_too() {
    let pair = Pair::started();
    fs::write(pair.a.path("one.wav"), unique(1_000)).unwrap();
    pair.wait_until_consistent();
    fs::create_dir(pair.a.path("d")).unwrap();
    fs::hard_link(pair.a.path("one.wav"), pair.a.path("d/two.wav")).unwrap();
    pair.wait_until_consistent();
    let bytes = unique(2_000);
    // Only this name's directory tells of it.
    File::create(pair.a.path("one.wav")).unwrap().write_all(&bytes).unwrap();
    for name in ["one.wav", "d/two.wav"] {
        until(&format!("{name} is as it was written"), || {
            seen(fs::read(pair.b.path(name)).unwrap() == bytes)
        });
    }
    pair.wait_until_consistent();
    assert_eq!(pair.b.path("one.wav").metadata().unwrap().nlink(), 1);
    // From the other node, where they are two files: each name has what was written to it.
    let bytes = unique(3_000);
    fs::write(pair.b.path("d/two.wav"), &bytes).unwrap();
    until("it is there", || seen(fs::read(pair.a.path("d/two.wav")).unwrap() == bytes));
    pair.wait_until_consistent();
}

#[test]
fn a_sparse_file_keeps_its_holes() {
    let pair = Pair::started();
    let file = File::create(pair.a.path("sparse.img")).unwrap();
    file.write_all_at(&unique(10_000), 0).unwrap();
    file.write_all_at(&unique(10_000), 32 << 20).unwrap();
    file.set_len(64 << 20).unwrap();
    drop(file);
    pair.wait_for(&pair.b, "sparse.img");
    pair.wait_until_consistent();
    let allocated = |path: &Path| path.metadata().unwrap().blocks() * 512;
    let [here, there] = [&pair.a, &pair.b].map(|node| allocated(&node.path("sparse.img")));
    assert!(here < 1 << 20, "{here}: this filesystem has no holes");
    assert!(there < 8 << 20, "{there} bytes are allocated, {here} at the origin");
}

#[test]
fn several_shares_have_their_own_settings_and_one_that_fails_costs_the_others_nothing() {
    let mut pair = Pair::new();
    for node in [&pair.a, &pair.b] {
        for name in ["voicemail", "faxes"] {
            let root = node.root.with_file_name(name);
            fs::create_dir_all(&root).unwrap();
            node.run(&["share", "add", &format!("{name}={}", root.display())]).ok();
        }
        let config = fs::read_to_string(node.config()).unwrap();
        let own = config.replace("name = \"faxes\"", "name = \"faxes\"\nignore = [\"*.tmp\"]");
        fs::write(node.config(), own).unwrap();
    }
    pair.start();
    let of = |node: &crate::support::Node, share: &str, file: &str| {
        node.root.with_file_name(share).join(file)
    };
    let (a, b) = (&pair.a, &pair.b);
    for share in ["voicemail", "faxes"] {
        fs::write(of(a, share, "a.tmp"), unique(100)).unwrap();
        fs::write(of(a, share, "a.wav"), unique(100)).unwrap();
        until(share, || seen(of(b, share, "a.wav").exists()));
    }
    until("each share has its own rules", || seen(of(b, "voicemail", "a.tmp").exists()));
    assert!(!of(b, "faxes", "a.tmp").exists());
    // One loses its disk.
    let marker = of(b, "voicemail", ".recsync/share.toml");
    fs::rename(&marker, marker.with_extension("away")).unwrap();
    until("it stops", || seen(b.share_named("voicemail")["state"] == "paused"));
    fs::write(of(a, "voicemail", "held.wav"), unique(100)).unwrap();
    for share in ["recordings", "faxes"] {
        let root = |node: &crate::support::Node| node.root.with_file_name(share);
        let root = |node| if share == "recordings" { node_root(node) } else { root(node) };
        fs::write(root(a).join("b.wav"), unique(100)).unwrap();
        until(share, || seen(root(b).join("b.wav").exists()));
        fs::write(root(b).join("c.wav"), unique(100)).unwrap();
        until(share, || seen(root(a).join("c.wav").exists()));
    }
    assert!(!of(b, "voicemail", "held.wav").exists());
    fs::rename(marker.with_extension("away"), &marker).unwrap();
    until("it goes on", || seen(of(b, "voicemail", "held.wav").exists()));
}

fn node_root(node: &crate::support::Node) -> PathBuf {
    node.root.clone()
}
