//! What a user does to files and directories reaches the other node: while both run, and after
//! either was down.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::{Object, Pair, Tree, unique};

/// Makes the same change four times, each in a directory of its own that `prepare` has filled:
/// on either node while both run, while the other one is down, and while the own daemon is down.
/// Both nodes must end with what the change left where it was made.
fn everywhere(prepare: impl Fn(&Path), change: impl Fn(&Path)) {
    let dirs = ["on-fs1", "on-fs2", "other-down", "self-down"];
    let mut pair = Pair::started();
    for dir in dirs {
        fs::create_dir(pair.a.path(dir)).unwrap();
        prepare(&pair.a.path(dir));
    }
    pair.wait_until_consistent();

    let made = |dir: &str, at: &Path| {
        change(&at.join(dir));
        (dir.to_owned(), Tree::read(&at.join(dir)))
    };
    let mut expected = vec![made(dirs[0], &pair.a.root), made(dirs[1], &pair.b.root)];
    pair.wait_until_consistent();

    pair.b.stop();
    expected.push(made(dirs[2], &pair.a.root));
    pair.start();
    pair.wait_until_consistent();

    pair.a.stop();
    expected.push(made(dirs[3], &pair.a.root));
    pair.start();
    pair.wait_until_consistent();

    for (dir, expected) in expected {
        for node in [&pair.a, &pair.b] {
            let found = Tree::read(&node.path(&dir));
            assert_eq!(expected.difference(&found), "", "{dir} on {}: made | found", node.name);
        }
    }
    assert_eq!(fs::read_dir(&pair.a.root).unwrap().count(), dirs.len() + 1, "and nothing else");
}

fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).unwrap();
}

/// Three files, one of them large enough to travel in blocks.
fn some_files(dir: &Path) {
    write(dir.join("a.wav"), unique(20_000));
    write(dir.join("b.wav"), unique(700_000));
    write(dir.join("c.wav"), unique(3));
}

fn some_directories(dir: &Path) {
    fs::create_dir_all(dir.join("2026/11/23")).unwrap();
    fs::create_dir(dir.join("other")).unwrap();
    some_files(&dir.join("2026/11/23"));
    write(dir.join("2026/x.wav"), unique(1_000));
}

/// Returns the contents of all files below a directory, in an order that names do not change.
fn files_below(dir: &Path) -> Vec<Vec<u8>> {
    let mut contents = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            contents.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            contents.push(fs::read(entry.path()).unwrap());
        }
    }
    contents.sort();
    contents
}

/// As `touch -d`, `cp -p`, tar and rsync do it. (Setting the mtime alone is IN_MODIFY to the kernel,
/// which nobody listens to: see `a_change_that_no_event_tells_is_found_by_rescan`.)
fn set_mtime(path: &Path, seconds: i64, nanos: u64) {
    let since = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH - since } else { UNIX_EPOCH + since };
    let time = time + Duration::from_nanos(nanos);
    let times = FileTimes::new().set_accessed(time).set_modified(time);
    File::open(path).unwrap().set_times(times).unwrap();
}

#[test]
fn files_created() {
    everywhere(|_| {}, some_files);
}

#[test]
fn files_overwritten() {
    everywhere(some_files, |dir| {
        write(dir.join("a.wav"), unique(30_000));
        // The same size: nothing but the bytes and the times tell.
        write(dir.join("b.wav"), unique(700_000));
        write(dir.join("c.wav"), unique(400_000));
    });
}

#[test]
fn files_changed_in_place() {
    everywhere(some_files, |dir| {
        for (name, offset) in [("a.wav", 0), ("b.wav", 350_000), ("c.wav", 2)] {
            let mut file = File::options().write(true).open(dir.join(name)).unwrap();
            file.seek(SeekFrom::Start(offset)).unwrap();
            file.write_all(b"patch").unwrap();
        }
    });
}

#[test]
fn files_truncated() {
    everywhere(some_files, |dir| {
        File::create(dir.join("a.wav")).unwrap();
        File::options().write(true).open(dir.join("b.wav")).unwrap().set_len(300_001).unwrap();
        File::options().write(true).open(dir.join("c.wav")).unwrap().set_len(1).unwrap();
    });
}

#[test]
fn files_extended_with_a_hole() {
    everywhere(some_files, |dir| {
        File::options().write(true).open(dir.join("a.wav")).unwrap().set_len(1_000_000).unwrap();
    });
}

#[test]
fn files_appended() {
    everywhere(some_files, |dir| {
        for name in ["a.wav", "b.wav", "c.wav"] {
            let mut file = File::options().append(true).open(dir.join(name)).unwrap();
            file.write_all(&unique(70_000)).unwrap();
        }
    });
}

#[test]
fn files_renamed() {
    everywhere(some_files, |dir| {
        fs::rename(dir.join("a.wav"), dir.join("z.wav")).unwrap();
        fs::rename(dir.join("b.wav"), dir.join("b.wav.done")).unwrap();
    });
}

#[test]
fn files_renamed_over_others() {
    everywhere(some_files, |dir| {
        fs::rename(dir.join("a.wav"), dir.join("b.wav")).unwrap();
        // As editors save.
        write(dir.join(".c.wav.tmp"), unique(5_000));
        fs::rename(dir.join(".c.wav.tmp"), dir.join("c.wav")).unwrap();
    });
}

#[test]
fn names_of_two_files_exchanged() {
    everywhere(some_files, |dir| {
        fs::rename(dir.join("a.wav"), dir.join("t")).unwrap();
        fs::rename(dir.join("b.wav"), dir.join("a.wav")).unwrap();
        fs::rename(dir.join("t"), dir.join("b.wav")).unwrap();
    });
}

#[test]
fn files_renamed_and_changed() {
    everywhere(some_files, |dir| {
        fs::rename(dir.join("a.wav"), dir.join("z.wav")).unwrap();
        let mut file = File::options().append(true).open(dir.join("z.wav")).unwrap();
        file.write_all(b"more").unwrap();
        write(dir.join("a.wav"), b"another one under the old name");
    });
}

#[test]
fn files_moved_between_directories() {
    everywhere(some_directories, |dir| {
        fs::rename(dir.join("2026/11/23/a.wav"), dir.join("other/a.wav")).unwrap();
        fs::rename(dir.join("2026/11/23/b.wav"), dir.join("b.wav")).unwrap();
        fs::create_dir(dir.join("new")).unwrap();
        fs::rename(dir.join("2026/x.wav"), dir.join("new/y.wav")).unwrap();
    });
}

#[test]
fn files_deleted() {
    everywhere(some_files, |dir| {
        fs::remove_file(dir.join("a.wav")).unwrap();
        fs::remove_file(dir.join("b.wav")).unwrap();
    });
}

#[test]
fn files_deleted_and_made_again() {
    everywhere(some_files, |dir| {
        for name in ["a.wav", "b.wav"] {
            fs::remove_file(dir.join(name)).unwrap();
            write(dir.join(name), unique(40_000));
        }
    });
}

#[test]
fn directories_made() {
    everywhere(
        |_| {},
        |dir| {
            some_directories(dir);
            fs::create_dir_all(dir.join("empty/below/empty")).unwrap();
        },
    );
}

#[test]
fn directories_renamed() {
    everywhere(some_directories, |dir| {
        fs::rename(dir.join("2026/11"), dir.join("2026/12")).unwrap();
        fs::rename(dir.join("2026"), dir.join("other/2025")).unwrap();
    });
}

#[test]
fn directories_removed_with_content() {
    everywhere(some_directories, |dir| {
        fs::remove_dir_all(dir.join("2026")).unwrap();
        fs::remove_dir(dir.join("other")).unwrap();
    });
}

#[test]
fn directories_removed_and_made_again() {
    everywhere(some_directories, |dir| {
        fs::remove_dir_all(dir.join("2026")).unwrap();
        fs::create_dir_all(dir.join("2026/11")).unwrap();
        write(dir.join("2026/11/new.wav"), unique(900));
    });
}

#[test]
fn symlinks_as_links() {
    let prepare = |dir: &Path| {
        some_files(dir);
        symlink("a.wav", dir.join("retargeted")).unwrap();
        symlink("a.wav", dir.join("removed")).unwrap();
        symlink("a.wav", dir.join("renamed")).unwrap();
    };
    everywhere(prepare, |dir| {
        symlink("a.wav", dir.join("to-file")).unwrap();
        symlink("nowhere", dir.join("dangling")).unwrap();
        symlink("/etc/passwd", dir.join("to-outside")).unwrap();
        symlink("../..", dir.join("above")).unwrap();
        symlink(".", dir.join("loop")).unwrap();
        symlink("x".repeat(4_000), dir.join("long")).unwrap();
        fs::remove_file(dir.join("retargeted")).unwrap();
        symlink("b.wav", dir.join("retargeted")).unwrap();
        fs::remove_file(dir.join("removed")).unwrap();
        fs::rename(dir.join("renamed"), dir.join("renamed-now")).unwrap();
    });
}

#[test]
fn one_kind_in_place_of_another() {
    let prepare = |dir: &Path| {
        for name in ["file-to-dir", "file-to-link"] {
            write(dir.join(name), unique(100));
        }
        fs::create_dir(dir.join("dir-to-file")).unwrap();
        some_files(&dir.join("dir-to-file"));
        fs::create_dir(dir.join("empty-to-link")).unwrap();
        for name in ["link-to-file", "link-to-dir"] {
            symlink("target", dir.join(name)).unwrap();
        }
    };
    everywhere(prepare, |dir| {
        for name in ["file-to-dir", "file-to-link", "link-to-file", "link-to-dir"] {
            fs::remove_file(dir.join(name)).unwrap();
        }
        for name in ["dir-to-file", "empty-to-link"] {
            fs::remove_dir_all(dir.join(name)).unwrap();
        }
        for name in ["file-to-dir", "link-to-dir"] {
            fs::create_dir(dir.join(name)).unwrap();
            some_files(&dir.join(name));
        }
        for name in ["dir-to-file", "link-to-file"] {
            write(dir.join(name), unique(100));
        }
        for name in ["file-to-link", "empty-to-link"] {
            symlink("elsewhere", dir.join(name)).unwrap();
        }
    });
}

#[test]
fn a_directory_moved_away_and_linked_is_a_link_there_too_and_its_files_are_in_the_trash() {
    let mut pair = Pair::new();
    for node in [&pair.a, &pair.b] {
        node.set("max_delete", "\"100%\"");
    }
    pair.start();
    some_directories(&pair.a.root);
    pair.wait_until_consistent();
    let archive = pair.dir.path().join("archive");
    let files = files_below(&pair.a.path("2026"));
    fs::rename(pair.a.path("2026"), &archive).unwrap();
    symlink(&archive, pair.a.path("2026")).unwrap();
    pair.wait_until_consistent();

    // The link is synced, not what is behind it; that is touched by nobody.
    assert_eq!(fs::read_link(pair.b.path("2026")).unwrap(), archive);
    assert_eq!(files_below(&archive), files);
    assert_eq!(files_below(&pair.b.path(".recsync/trash")), files);

    // Back in its place, all is there again.
    fs::remove_file(pair.a.path("2026")).unwrap();
    fs::rename(&archive, pair.a.path("2026")).unwrap();
    pair.wait_until_consistent();
    assert_eq!(files_below(&pair.b.path("2026")), files);
}

#[test]
fn empty_files_and_directories() {
    let prepare = |dir: &Path| {
        write(dir.join("emptied"), b"full");
        write(dir.join("filled"), b"");
        write(dir.join("kept"), b"");
    };
    everywhere(prepare, |dir| {
        write(dir.join("new"), b"");
        write(dir.join("emptied"), b"");
        write(dir.join("filled"), b"full");
        fs::create_dir(dir.join("dir")).unwrap();
    });
}

#[test]
fn modes_changed() {
    let prepare = |dir: &Path| {
        some_files(dir);
        fs::create_dir(dir.join("dir")).unwrap();
        write(dir.join("dir/inside"), b"1");
    };
    everywhere(prepare, |dir| {
        for (name, mode) in [
            ("a.wav", 0o600),
            ("b.wav", 0o755),
            ("c.wav", 0o444),
            ("dir", 0o750),
            ("dir/inside", 0o664),
        ] {
            fs::set_permissions(dir.join(name), Permissions::from_mode(mode)).unwrap();
        }
        write(dir.join("new"), b"with a mode of its own");
        fs::set_permissions(dir.join("new"), Permissions::from_mode(0o640)).unwrap();
    });
}

#[test]
fn mtimes_to_the_nanosecond() {
    everywhere(some_files, |dir| {
        set_mtime(&dir.join("a.wav"), 1_700_000_000, 123_456_789);
        set_mtime(&dir.join("b.wav"), 1, 1);
        set_mtime(&dir.join("c.wav"), -86_400 * 365, 999_999_999);
        write(dir.join("future"), b"1");
        set_mtime(&dir.join("future"), 4_000_000_000, 987_654_321);
    });
}

#[test]
fn a_rename_moves_no_bytes() {
    let pair = Pair::started();
    let len = 3_000_000;
    write(pair.a.path("call.wav"), unique(len));
    fs::create_dir(pair.a.path("archive")).unwrap();
    pair.wait_until_consistent();

    let (_, before) = pair.b.traffic();
    fs::rename(pair.a.path("call.wav"), pair.a.path("archive/call-1.wav")).unwrap();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.paths(), ["archive", "archive/call-1.wav"]);
    let moved = pair.b.traffic().1 - before;
    assert!(moved < len as u64 / 20, "{moved} bytes came for a rename");
    assert_eq!(pair.b.applied("rename"), 1.0);
    assert!(pair.b.trash().hashes().next().is_none(), "a rename removes nothing");
}

/// A month of calls, small ones and large ones, in days. Returns their bytes.
fn a_month(dir: &Path) -> u64 {
    let mut bytes = 0;
    for day in 1..=3 {
        fs::create_dir_all(dir.join(format!("11/{day}"))).unwrap();
        for (call, len) in [100_000, 200_000, 400_000, 800_000].into_iter().enumerate() {
            write(dir.join(format!("11/{day}/{call}.wav")), unique(len));
            bytes += len as u64;
        }
    }
    bytes
}

/// The month becomes another one below a new directory, one of its days is renamed twice, and a
/// call moves along two names.
fn rearrange(dir: &Path) {
    let rename = |from: &str, to: &str| fs::rename(dir.join(from), dir.join(to)).unwrap();
    fs::create_dir(dir.join("archive")).unwrap();
    rename("11", "archive/2026-11");
    rename("archive/2026-11/1", "archive/2026-11/t");
    rename("archive/2026-11/t", "archive/2026-11/first");
    rename("archive/2026-11/2/3.wav", "archive/2026-11/2/t.wav");
    rename("archive/2026-11/2/t.wav", "archive/2026-11/3/moved.wav");
}

#[test]
fn renamed_directories_and_chains_move_no_bytes_live_and_after_downtime() {
    for down in ["nobody", "fs1", "fs2"] {
        let mut pair = Pair::started();
        let bytes = a_month(&pair.a.root);
        let before = pair.wait_until_consistent();
        match down {
            "fs1" => pair.a.stop(),
            "fs2" => pair.b.stop(),
            _ => {}
        }
        let received = if down == "fs2" { 0 } else { pair.b.traffic().1 };
        rearrange(&pair.a.root);
        if down != "nobody" {
            pair.start();
        }
        let tree = pair.wait_until_consistent();
        let hashes = |tree: &Tree| {
            let mut hashes: Vec<_> = tree.hashes().collect();
            hashes.sort_unstable();
            hashes
        };
        assert_eq!(hashes(&tree), hashes(&before), "{down} was down");
        assert!(tree.get("archive/2026-11/3/moved.wav").is_some(), "{tree:?}");
        let moved = pair.b.traffic().1 - received;
        assert!(moved < bytes / 20, "{down} was down: {moved} of {bytes} bytes came for renames");
        let saved = pair.b.metric("recsync_saved_bytes_total", &["how=\"rename\""]);
        assert!(saved >= bytes as f64, "{down} was down: renames saved {saved} of {bytes} bytes");
        assert_eq!(pair.b.trash().hashes().count(), 0, "a rename removes nothing");
    }
}

#[test]
fn a_change_of_metadata_moves_no_bytes() {
    let pair = Pair::started();
    let len = 3_000_000;
    write(pair.a.path("call.wav"), unique(len));
    pair.wait_until_consistent();

    let (_, before) = pair.b.traffic();
    fs::set_permissions(pair.a.path("call.wav"), Permissions::from_mode(0o600)).unwrap();
    set_mtime(&pair.a.path("call.wav"), 1_600_000_000, 5);
    let tree = pair.wait_until_consistent();
    let Some(Object::File { mode, mtime_ns, .. }) = tree.get("call.wav") else {
        panic!("{tree:?}")
    };
    assert_eq!((*mode, *mtime_ns), (0o600, 1_600_000_000_000_000_005));
    let moved = pair.b.traffic().1 - before;
    assert!(moved < len as u64 / 20, "{moved} bytes came for a change of metadata");
}

#[test]
fn what_a_peer_overwrites_or_deletes_is_in_the_trash() {
    let pair = Pair::started();
    write(pair.a.path("overwritten.wav"), unique(1_000));
    write(pair.a.path("deleted.wav"), unique(300_000));
    let before = pair.wait_until_consistent();

    write(pair.a.path("overwritten.wav"), unique(2_000));
    fs::remove_file(pair.a.path("deleted.wav")).unwrap();
    pair.wait_until_consistent();
    let mut lost: Vec<_> = before.hashes().collect();
    let mut trash: Vec<_> = pair.b.trash().hashes().collect();
    lost.sort_unstable();
    trash.sort_unstable();
    assert_eq!(trash, lost);
    assert!(pair.a.trash().hashes().next().is_none(), "whoever deletes keeps nothing");
}
