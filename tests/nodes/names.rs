//! Names that not everybody thinks of, and what is not synced.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat, unlinkat};

use crate::support::{Pair, unique, until};

#[test]
fn names_of_any_bytes() {
    let pair = Pair::started();
    let odd: [&[u8]; 12] = [
        b"\xff\xfe\x80.wav",
        b"line\nbreak \t tab \x01\x1b[31m",
        b"+49 (40) <sip:1@x>:5060 'quoted\" \\ $HOME `x` *?[a]",
        "Ünïcödé e\u{301} \u{e9} 录音".as_bytes(),
        b" leading and trailing ",
        b"-rf",
        b"...",
        b"..a",
        b".recsync2",
        b"recsync",
        b"a.conflict-fs1-20260101T000000Z-00000000.wav",
        b"CON",
    ];
    for name in odd {
        let name = OsStr::from_bytes(name);
        fs::write(pair.a.path(name), unique(100)).unwrap();
        let dir = pair.b.path("dirs").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), unique(100)).unwrap();
    }
    // Two names that some file systems take for one.
    fs::write(pair.a.path("case.wav"), b"1").unwrap();
    fs::write(pair.a.path("CASE.wav"), b"2").unwrap();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.0.len(), odd.len() * 3 + 1 + 2);

    for name in odd {
        let name = OsStr::from_bytes(name);
        fs::rename(pair.a.path("dirs").join(name), pair.a.path("dirs").join("renamed")).unwrap();
        fs::remove_dir_all(pair.a.path("dirs/renamed")).unwrap();
        fs::write(pair.b.path(name), unique(50)).unwrap();
    }
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.0.len(), odd.len() + 1 + 2);
}

#[test]
fn names_of_255_bytes() {
    let mut pair = Pair::started();
    let names = ["x".repeat(255), "ä".repeat(127), format!("{}.wav", "y".repeat(251))];
    for name in &names {
        fs::write(pair.a.path(name), unique(1_000)).unwrap();
        let dir = pair.b.path("d").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), unique(400_000)).unwrap();
    }
    pair.wait_until_consistent();

    // Overwritten and deleted (the trash needs a name for them), and in conflict (so does the copy).
    fs::write(pair.a.path(&names[0]), unique(1_000)).unwrap();
    fs::remove_file(pair.a.path(&names[1])).unwrap();
    pair.wait_until_consistent();
    pair.a.stop();
    pair.b.stop();
    let versions = [unique(2_000), unique(2_001)];
    fs::write(pair.a.path(&names[2]), &versions[0]).unwrap();
    fs::write(pair.b.path(&names[2]), &versions[1]).unwrap();
    pair.start();
    let tree = pair.wait_until_consistent();
    for version in &versions {
        let hash = crate::support::hash(version);
        assert!(tree.hashes().any(|found| found == hash), "a version is lost: {tree:?}");
    }
}

#[test]
fn paths_as_long_as_they_can_be_and_longer() {
    let pair = Pair::started();
    let name = OsStr::from_bytes(&[b'd'; 250]);
    // 15 × 251 + 230 bytes fit into the 4,000 that are synced; with the root they are more than
    // one call of the kernel takes, and one level deeper they are more than are synced.
    let mut dir = openat(CWD, &pair.a.root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut dirs = Vec::new();
    for _ in 0..15 {
        mkdirat(dir.as_fd(), name, Mode::from(0o755)).unwrap();
        let next = openat(dir.as_fd(), name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        dirs.push(std::mem::replace(&mut dir, next));
    }
    let write = |dir: &std::os::fd::OwnedFd, name: &str| {
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let file = openat(dir.as_fd(), name, flags, Mode::from(0o644)).unwrap();
        std::io::Write::write_all(&mut File::from(file), name.as_bytes()).unwrap();
    };
    let (fits, too_long) = ("f".repeat(230), "t".repeat(250));
    write(&dir, &fits);
    write(&dir, &too_long);
    fs::write(pair.a.path("after"), b"").unwrap();
    pair.wait_for(&pair.b, "after");

    let mut there = openat(CWD, &pair.b.root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..15 {
        there = until("the directories are on fs2", || {
            openat(there.as_fd(), name, OFlags::DIRECTORY, Mode::empty())
        });
    }
    until("the file that fits is on fs2", || {
        openat(there.as_fd(), &*fits, OFlags::RDONLY, Mode::empty())
    });
    let absent = openat(there.as_fd(), &*too_long, OFlags::RDONLY, Mode::empty());
    assert_eq!(absent.unwrap_err(), rustix::io::Errno::NOENT);
    until("fs1 says which is too long", || {
        let errors = pair.a.status()["errors"].to_string();
        // In the words of the look, or of the scan if that was first.
        let told = ["4000 can be synced", "it holds a name that is too long to be synced"];
        if told.iter().any(|words| errors.contains(words)) { Ok(()) } else { Err(errors) }
    });

    // Tear down what `rm` could not name, and the removal goes through too.
    unlinkat(dir.as_fd(), &*fits, AtFlags::empty()).unwrap();
    unlinkat(dir.as_fd(), &*too_long, AtFlags::empty()).unwrap();
    while let Some(above) = dirs.pop() {
        unlinkat(above.as_fd(), name, AtFlags::REMOVEDIR).unwrap();
    }
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.paths(), ["after"]);
}

#[test]
fn fifos_and_sockets_are_left_out_and_said_so_once() {
    let mut pair = Pair::new();
    mknodat(CWD, pair.a.path("early.fifo"), FileType::Fifo, Mode::from(0o644), 0).unwrap();
    pair.start();
    mknodat(CWD, pair.a.path("late.fifo"), FileType::Fifo, Mode::from(0o644), 0).unwrap();
    // A relative path: a socket's may be 108 bytes long only.
    let socket = UnixListener::bind(pair.a.path("run.sock")).unwrap();
    fs::write(pair.a.path("after"), b"1").unwrap();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.paths(), ["after"]);
    assert_eq!(pair.b.tree().paths(), ["after"], "none of them is on fs2");

    let skipped = until("all three are counted", || {
        let share = pair.a.share();
        let skipped = share["skipped"].clone();
        if skipped["count"] == 3 { Ok(skipped) } else { Err(share.to_string()) }
    });
    for path in ["early.fifo", "late.fifo", "run.sock"] {
        assert_eq!(skipped.to_string().matches(path).count(), 1, "{path}: {skipped}");
    }
    // A scan finds them again and counts them no second time.
    pair.a.run(&["rescan"]).ok();
    fs::write(pair.a.path("after"), b"2").unwrap();
    pair.wait_until_consistent();
    assert_eq!(pair.a.share()["skipped"]["count"], 3);
    // A file in their place is a file like any other.
    drop(socket);
    fs::remove_file(pair.a.path("run.sock")).unwrap();
    fs::write(pair.a.path("run.sock"), b"plain").unwrap();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.paths(), ["after", "run.sock"]);
}

#[test]
fn what_lies_behind_a_link_is_never_touched() {
    let mut pair = Pair::started();
    let outside = pair.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), b"secret").unwrap();
    fs::create_dir(pair.a.path("dir")).unwrap();
    fs::write(pair.a.path("dir/file"), b"1").unwrap();
    pair.wait_until_consistent();

    // fs2's user puts a link to the outside where fs1 goes on to write.
    pair.b.stop();
    fs::remove_dir_all(pair.b.path("dir")).unwrap();
    symlink(&outside, pair.b.path("dir")).unwrap();
    fs::write(pair.a.path("dir/file"), b"2").unwrap();
    fs::write(pair.a.path("dir/secret"), b"overwritten").unwrap();
    fs::write(pair.a.path("after"), b"1").unwrap();
    pair.start();
    pair.wait_for(&pair.b, "after");
    // What fs1 changed keeps its directory; the link that lost the name is kept beside it.
    let tree = pair.wait_until_consistent();
    let found: Vec<_> = fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(found, ["secret"]);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");

    let (copies, rest): (Vec<_>, Vec<_>) =
        tree.paths().into_iter().partition(|path| path.starts_with("dir.conflict-fs2-"));
    assert_eq!(rest, ["after", "dir", "dir/file", "dir/secret"]);
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(fs::read_link(pair.a.path(&copies[0])).unwrap(), outside);
    assert_eq!(fs::read(pair.b.path("dir/secret")).unwrap(), b"overwritten");
}

#[test]
fn an_unreadable_directory_is_told_and_the_rest_goes_on() {
    let mut pair = Pair::new();
    for node in [&pair.a, &pair.b] {
        fs::create_dir(node.path("private")).unwrap();
        fs::write(node.path("private/kept.wav"), b"kept").unwrap();
    }
    // Root reads everything: the daemon runs as somebody else.
    if rustix::process::getuid().is_root() {
        fs::set_permissions(pair.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        pair.a.set_user(65_534);
    }
    pair.start();
    pair.wait_until_consistent();
    fs::set_permissions(pair.a.path("private"), fs::Permissions::from_mode(0o000)).unwrap();
    pair.a.run(&["rescan"]).ok();
    fs::write(pair.b.path("private/new.wav"), b"new").unwrap();
    fs::write(pair.b.path("after"), b"1").unwrap();
    pair.wait_for(&pair.a, "after");
    until("fs1 says what it cannot read", || {
        let errors = pair.a.status()["errors"].to_string();
        if errors.contains("private") { Ok(()) } else { Err(errors) }
    });
    assert_eq!(fs::read(pair.b.path("private/kept.wav")).unwrap(), b"kept", "nothing is deleted");

    fs::set_permissions(pair.a.path("private"), fs::Permissions::from_mode(0o755)).unwrap();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.paths(), ["after", "private", "private/kept.wav", "private/new.wav"]);
}
