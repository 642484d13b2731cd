//! The suite on the real disk, and what only a real disk has: mounts, permissions, races.
//!
//! What needs root or a tool of the system says so in a line and passes without it.
#![expect(clippy::disallowed_methods, reason = "the tests are the users, who act without the tree")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use recsync_proto::{ShareName, SharePath};
use rustix::fs::{CWD, FileType, IFlags, Mode, OFlags, mknodat, openat};

use super::suite::{Outside, cases, outside_cases};
use super::*;

const DAY: &str = "2026-11-22";

struct Bed {
    dir: tempfile::TempDir,
    tree: Disk,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        create_marker(&root, &share()).unwrap();
        Bed { tree: Disk::open(&root, &share(), None).unwrap(), dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        fs::write(self.root().join(path), bytes).unwrap();
    }
}

impl Outside for Bed {
    type Tree = Disk;
    type Writer = fs::File;

    fn tree(&self) -> &Disk {
        &self.tree
    }

    fn open_for_writing(&self, path: &SharePath) -> fs::File {
        fs::File::options().append(true).open(self.root().join(path.to_string())).unwrap()
    }

    fn make_fifo(&self, path: &SharePath) {
        let path = self.root().join(path.to_string());
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    fn set_marker(&self, text: Option<&str>) {
        let marker = self.root().join(".recsync/share.toml");
        match text {
            Some(text) => {
                fs::create_dir_all(marker.parent().unwrap()).unwrap();
                fs::write(marker, text).unwrap();
            }
            None => fs::remove_file(marker).unwrap(),
        }
    }

    fn marker(&self) -> String {
        fs::read_to_string(self.root().join(".recsync/share.toml")).unwrap()
    }

    fn move_root_away(&self, leave_empty: bool) {
        fs::rename(self.root(), self.dir.path().join("away")).unwrap();
        if leave_empty {
            fs::create_dir(self.root()).unwrap();
        }
    }

    fn move_root_back(&self) {
        if self.root().exists() {
            // Never deleted recursively, not even here: it is moved out of the way.
            let aside = format!("aside-{}", crate::sys::random_u64());
            fs::rename(self.root(), self.dir.path().join(aside)).unwrap();
        }
        fs::rename(self.dir.path().join("away"), self.root()).unwrap();
    }
}

fn share() -> ShareName {
    ShareName::new("recordings").unwrap()
}

fn at(path: &str) -> Place {
    Place::Share(SharePath::new(path).unwrap())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_disk_passes_the_suite() {
    for case in cases::<Disk>() {
        println!("{}", case.name);
        (case.run)(&Bed::new().tree);
    }
}

#[test]
fn the_disk_passes_the_suite_of_what_others_do() {
    for case in outside_cases::<Bed>() {
        println!("{}", case.name);
        (case.run)(&Bed::new());
    }
}

#[test]
fn a_marker_is_made_once_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(read_marker(dir.path()), Err(RootError::NoMarker { .. })));
    let id = create_marker(dir.path(), &share()).unwrap();
    let marker = Marker { share: share(), id };
    assert_eq!(read_marker(dir.path()), Ok(marker.clone()));
    assert_eq!(
        fs::read_to_string(dir.path().join(".recsync/share.toml")).unwrap(),
        format!("share = \"recordings\"\nid = \"{id}\"\n")
    );
    let private = dir.path().join(".recsync");
    assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o7777, 0o700);

    let again = create_marker(dir.path(), &ShareName::new("other").unwrap());
    let path = dir.path().display().to_string();
    assert_eq!(again, Err(MarkerError::Exists { path, found: marker.to_string() }));
    assert_eq!(read_marker(dir.path()), Ok(marker));
    assert_eq!(fs::read_dir(private).unwrap().count(), 1, "no draft is left");

    let other = tempfile::tempdir().unwrap();
    assert_ne!(create_marker(other.path(), &share()), Ok(id));
}

#[test]
fn a_root_is_taken_with_whatever_marker_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let other = ShareName::new("other").unwrap();
    take_root(dir.path(), &share()).unwrap();
    let made = read_marker(dir.path()).unwrap();
    assert_eq!(made.share, share());
    take_root(dir.path(), &share()).unwrap();
    assert_eq!(read_marker(dir.path()), Ok(made.clone()), "its own is kept");
    take_root(dir.path(), &other).unwrap();
    let taken = read_marker(dir.path()).unwrap();
    assert!(taken.share == other && taken.id != made.id, "{taken}");
    let aside = fs::read_to_string(dir.path().join(".recsync/share.toml.of-recordings")).unwrap();
    assert!(aside.contains(&made.id.to_string()), "{aside}");
    let missing = take_root(&dir.path().join("missing"), &share());
    assert!(matches!(missing, Err(MarkerError::Root(RootError::NoRoot { .. }))), "{missing:?}");
}

#[test]
fn a_marker_made_by_root_belongs_to_the_owner_of_the_directory() {
    if !is_root() {
        return println!("skipped: gives files away, which needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(12345), Some(23456)).unwrap();
    create_marker(dir.path(), &share()).unwrap();
    for name in [".recsync", ".recsync/share.toml"] {
        let made = fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!((made.uid(), made.gid()), (12345, 23456), "{name}");
    }
}

#[test]
fn an_id_is_32_lower_case_hex_digits() {
    let id: RootId = "00112233445566778899aabbccddeeff".parse().unwrap();
    assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
    for wrong in ["", "0", "00112233445566778899AABBCCDDEEFF", "+0112233445566778899aabbccddeeff"] {
        assert_eq!(wrong.parse::<RootId>(), Err(RootIdError(wrong.to_owned())));
    }
}

#[test]
fn a_root_is_opened_only_if_it_is_the_expected_one() {
    let bed = Bed::new();
    let id = bed.tree.root_id();
    assert_eq!(Disk::open(&bed.root(), &share(), Some(id)).unwrap().root_id(), id);

    let open = |root: &Path, share: &str, id| {
        Disk::open(root, &ShareName::new(share).unwrap(), id).map(|_| ()).unwrap_err()
    };
    let path = bed.root().display().to_string();
    let other: RootId = "0123456789abcdef0123456789abcdef".parse().unwrap();
    assert_eq!(
        open(&bed.root(), "recordings", Some(other)).to_string(),
        format!(
            "{path} is another disk: its marker says share `recordings`, root {id}, the index \
             expects share `recordings`, root {other}"
        )
    );
    assert!(matches!(open(&bed.root(), "other", None), RootError::OtherRoot { .. }));
    assert!(matches!(open(bed.dir.path(), "recordings", None), RootError::NoMarker { .. }));
    let absent = bed.dir.path().join("absent");
    assert!(matches!(open(&absent, "recordings", None), RootError::NoRoot { .. }));
    bed.put("file", b"");
    let file = bed.root().join("file");
    assert!(matches!(open(&file, "recordings", None), RootError::NoRoot { .. }));
}

#[test]
fn a_marker_that_is_no_plain_file_is_refused() {
    let bed = Bed::new();
    let marker = bed.root().join(".recsync/share.toml");
    let kept = bed.dir.path().join("kept");
    fs::rename(&marker, &kept).unwrap();
    let refused = |what: &str| {
        let answer = bed.tree.check_root();
        assert!(matches!(answer, Err(RootError::NoRoot { .. })), "{what}: {answer:?}");
    };
    fs::create_dir(&marker).unwrap();
    refused("a directory");
    fs::remove_dir(&marker).unwrap();
    symlink(&kept, &marker).unwrap();
    refused("a link to the real one");
    fs::remove_file(&marker).unwrap();
    mknodat(CWD, &marker, FileType::Fifo, Mode::RUSR, 0).unwrap();
    refused("a FIFO");
    fs::remove_file(&marker).unwrap();
    for text in ["", "\0", "share = 1", "share = \"recordings\"\nid = \"x\"", "\u{fffd}"] {
        fs::write(&marker, text).unwrap();
        refused(text);
    }
    fs::write(&marker, b"\xff").unwrap();
    refused("no UTF-8");
}

#[test]
fn a_linked_root_is_resolved_at_the_start() {
    let bed = Bed::new();
    let link = bed.dir.path().join("link");
    symlink(bed.root(), &link).unwrap();
    let tree = Disk::open(&link, &share(), None).unwrap();
    assert_eq!(tree.check_root(), Ok(()));
    fs::remove_file(&link).unwrap();
    assert!(matches!(tree.check_root(), Err(RootError::NoRoot { .. })));
    symlink(bed.dir.path(), &link).unwrap();
    assert!(matches!(tree.check_root(), Err(RootError::NoMarker { .. })));
    bed.put("file", b"");
    assert!(tree.stat(&at("file")).is_ok(), "the tree stays with what it opened");
}

#[test]
fn recsyncs_own_directory_is_not_reached_through_links() {
    let bed = Bed::new();
    let elsewhere = bed.dir.path().join("elsewhere");
    fs::rename(bed.root().join(".recsync"), &elsewhere).unwrap();
    symlink(&elsewhere, bed.root().join(".recsync")).unwrap();
    assert!(matches!(bed.tree.check_root(), Err(RootError::NoRoot { .. })));
    assert_eq!(bed.tree.create_temp("x").err(), Some(TreeError::WrongKind));
    assert_eq!(fs::read_dir(elsewhere.join("tmp")).unwrap().count(), 0);
}

#[test]
fn recsyncs_directories_are_made_again_where_the_marker_is() {
    let bed = Bed::new();
    fs::remove_dir(bed.root().join(".recsync/tmp")).unwrap();
    fs::remove_dir(bed.root().join(".recsync/trash")).unwrap();
    drop(bed.tree.create_temp("file").unwrap());
    bed.tree.rename(&Place::Temp("file".to_owned()), &trash_place(DAY, &path("file"), 1)).unwrap();
    assert_eq!(fs::read_dir(bed.root().join(".recsync/trash").join(DAY)).unwrap().count(), 1);

    fs::rename(bed.root().join(".recsync"), bed.dir.path().join("gone")).unwrap();
    assert_eq!(bed.tree.create_temp("file").err(), Some(TreeError::NotFound));
    assert!(!bed.root().join(".recsync").exists(), "an unmounted disk is not written to");
}

fn path(text: &str) -> SharePath {
    SharePath::new(text).unwrap()
}

#[test]
fn a_rename_changes_ctime() {
    let bed = Bed::new();
    bed.put("one", b"bytes");
    let before = bed.tree.stat(&at("one")).unwrap();
    // Kernels before 6.13 tick every few milliseconds only.
    let changed = (0..1_000_000).any(|_| {
        bed.tree.rename(&at("one"), &at("two")).unwrap();
        bed.tree.rename(&at("two"), &at("one")).unwrap();
        let after = bed.tree.stat(&at("one")).unwrap();
        assert!(after.same_bytes(&before));
        after.ctime_ns > before.ctime_ns
    });
    assert!(changed);
}

#[test]
fn no_race_leads_out_of_the_root() {
    let bed = Bed::new();
    let outside = bed.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(bed.root().join("dir")).unwrap();
    symlink(&outside, bed.root().join("link")).unwrap();
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            for _ in 0..20_000 {
                bed.tree.exchange(&at("dir"), &at("link")).unwrap();
            }
        });
        for number in (0..).take_while(|_| !swapper.is_finished()) {
            let made = bed.tree.make_dir(&at(&format!("dir/{number}")), 0o755);
            assert!(matches!(made, Ok(()) | Err(TreeError::WrongKind)), "{made:?}");
            let looked = bed.tree.stat(&at(&format!("dir/{number}")));
            assert!(!matches!(looked, Err(TreeError::CrossDevice | TreeError::Io(_))));
        }
    });
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn a_fifo_is_not_opened_even_without_waiting() {
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    let bed = Bed::new();
    bed.make_fifo(&path("fifo"));
    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, bed.root().join("fifo"), WatchFlags::OPEN).unwrap();
    assert_eq!(bed.tree.open(&at("fifo")).err(), Some(TreeError::WrongKind));
    assert_eq!(bed.tree.open_for_metadata(&at("fifo")).err(), Some(TreeError::WrongKind));
    let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
    let event = inotify::Reader::new(&watch, &mut buffer).next().map(|_| ());
    assert_eq!(event, Err(rustix::io::Errno::AGAIN), "who waits for a reader goes on waiting");
}

#[test]
fn opening_leaves_no_access_time() {
    let bed = Bed::new();
    bed.put("file", b"bytes");
    let long_ago = fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
    let file = fs::File::options().write(true).open(bed.root().join("file")).unwrap();
    file.set_times(long_ago).unwrap();
    let open = bed.tree.open(&at("file")).unwrap();
    assert_eq!(bed.tree.read_at(&open, 0, &mut [0; 5]), Ok(5));
    assert_eq!(file.metadata().unwrap().atime(), 0);
    bed.tree.set_mtime(&open, 7).unwrap();
    assert_eq!(file.metadata().unwrap().atime(), 0, "setting mtime alone");
}

#[test]
fn a_mapping_made_through_a_closed_file_is_a_writer() {
    let Some(python) = tool("python3") else {
        return println!("skipped: maps a file with python3, which is not there");
    };
    let bed = Bed::new();
    bed.put("file", &[0; 4096]);
    let script = "import mmap, os, sys\n\
        fd = os.open(sys.argv[1], os.O_RDWR)\n\
        m = mmap.mmap(fd, 4096)\n\
        os.close(fd)\n\
        print('mapped', flush=True)\n\
        sys.stdin.read()\n";
    let mut mapper = Command::new(python)
        .args(["-c", script])
        .arg(bed.root().join("file"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(mapper.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "mapped\n");
    let file = bed.tree.open(&at("file")).unwrap();
    assert_ne!(bed.tree.writer(&file), Ok(Writer::None));
    drop(mapper.stdin.take());
    mapper.wait().unwrap();
    assert_ne!(bed.tree.writer(&file), Ok(Writer::Some));
}

/// Makes a directory that this process may not write to: its owner by the mode, root by a flag.
fn forbid_writing(dir: &Path) -> Option<impl Drop + use<>> {
    struct Allow(PathBuf);
    impl Drop for Allow {
        fn drop(&mut self) {
            if is_root() {
                set_flags(&self.0, IFlags::empty()).unwrap();
            } else {
                fs::set_permissions(&self.0, PermissionsExt::from_mode(0o700)).unwrap();
            }
        }
    }
    fn set_flags(path: &Path, flags: IFlags) -> rustix::io::Result<()> {
        let dir = openat(CWD, path, OFlags::RDONLY, Mode::empty()).unwrap();
        rustix::fs::ioctl_setflags(dir, flags)
    }
    if !is_root() {
        fs::set_permissions(dir, PermissionsExt::from_mode(0o500)).unwrap();
    } else if let Err(errno) = set_flags(dir, IFlags::IMMUTABLE) {
        println!("skipped: not even chattr +i keeps root out here: {errno}");
        return None;
    }
    Some(Allow(dir.to_owned()))
}

#[test]
fn what_is_not_permitted_is_denied() {
    let bed = Bed::new();
    fs::create_dir(bed.root().join("dir")).unwrap();
    bed.put("dir/file", b"bytes");
    bed.put("file", b"");
    let Some(_allow) = forbid_writing(&bed.root().join("dir")) else { return };
    let denied = Err(TreeError::Denied);
    assert_eq!(bed.tree.make_dir(&at("dir/new"), 0o755), denied);
    assert_eq!(bed.tree.make_link(&at("dir/new"), b"x"), denied);
    assert_eq!(bed.tree.rename(&at("dir/file"), &at("free")), denied);
    assert_eq!(bed.tree.rename(&at("file"), &at("dir/free")), denied);
    assert_eq!(bed.tree.exchange(&at("file"), &at("dir/file")), denied);
    assert_eq!(bed.tree.stat(&at("dir/file")).unwrap().size, 5);
}

#[test]
fn what_may_not_be_searched_is_not_absent() {
    if is_root() {
        return println!("skipped: root may search everything");
    }
    let bed = Bed::new();
    let dir = bed.root().join("dir");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o000)).unwrap();
    assert_eq!(bed.tree.stat(&at("dir/absent")), Err(TreeError::Denied));
    assert_eq!(bed.tree.list(&at("dir")), Err(TreeError::Denied));
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
}

/// Says in the environment of a test that it runs again inside a wrapper, and where.
const INSIDE: &str = "RECSYNC_TEST_INSIDE";

/// Runs a test of this file again, under another program. False if that program refuses.
fn run_inside(wrapper: &[&str], test: &str, dir: &Path) {
    let Some(program) = tool(wrapper[0]) else {
        return println!("skipped: {} is not there", wrapper[0]);
    };
    let wrapped = |command: &mut Command| command.output().unwrap();
    let tried = wrapped(Command::new(&program).args(&wrapper[1..]).arg("true"));
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr).into_owned();
        return println!("skipped: {wrapper:?} is not permitted here: {why}");
    }
    let output = wrapped(
        Command::new(program)
            .args(&wrapper[1..])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("tree::tests::{test}"), "--nocapture"])
            .env(INSIDE, dir),
    );
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

#[test]
fn mounts_are_boundaries_and_full_or_read_only_disks_say_so() {
    let Some(dir) = std::env::var_os(INSIDE) else {
        let dir = tempfile::tempdir().unwrap();
        // A mount namespace of its own: the mounts go with the process. `-r` makes an ordinary
        // user root there.
        let flags = if is_root() { "-m" } else { "-rm" };
        let name = "mounts_are_boundaries_and_full_or_read_only_disks_say_so";
        return run_inside(&["unshare", flags], name, dir.path());
    };
    let root = PathBuf::from(dir);
    let mount = |arguments: &[&str], at: &Path| {
        let status = Command::new("mount").args(arguments).arg(at).status().unwrap();
        assert!(status.success(), "mount {arguments:?}");
    };
    mount(&["-t", "tmpfs", "-o", "size=256k", "none"], &root);
    create_marker(&root, &share()).unwrap();
    let tree = Disk::open(&root, &share(), None).unwrap();

    fs::create_dir(root.join("mounted")).unwrap();
    fs::write(root.join("file"), b"bytes").unwrap();
    mount(&["-t", "tmpfs", "none"], &root.join("mounted"));
    fs::write(root.join("mounted/file"), b"foreign").unwrap();
    for place in [at("mounted"), at("mounted/file"), at("mounted/absent")] {
        assert_eq!(tree.stat(&place), Err(TreeError::CrossDevice));
        assert_eq!(tree.open(&place).err(), Some(TreeError::CrossDevice));
        assert_eq!(tree.list(&place), Err(TreeError::CrossDevice));
        assert_eq!(tree.set_mtime_of(&place, 0), Err(TreeError::CrossDevice));
    }
    let paths = ["file", "mounted", "mounted/absent", "mounted/file"].map(path);
    assert_eq!(tree.stat_all(&paths), paths.map(|path| tree.stat(&Place::Share(path))));
    assert_eq!(tree.make_dir(&at("mounted/dir"), 0o755), Err(TreeError::CrossDevice));
    assert_eq!(tree.rename(&at("file"), &at("mounted/free")), Err(TreeError::CrossDevice));
    assert_eq!(tree.remove_dir(&at("mounted/dir")), Err(TreeError::CrossDevice));
    assert!(matches!(tree.rename(&at("mounted"), &at("free")), Err(TreeError::Io(_))));
    assert!(matches!(tree.remove_dir(&at("mounted")), Err(TreeError::Io(_))));

    let file = tree.create_temp("large").unwrap();
    assert_eq!(tree.write_at(&file, 0, &[1; 1 << 20]), Err(TreeError::NoSpace));
    tree.set_len(&file, 0).unwrap();
    let source = tree.create_temp("sparse").unwrap();
    tree.set_len(&source, 1 << 20).unwrap();
    assert_eq!(tree.copy_range(&source, &file, 0, 1 << 20), Err(TreeError::NoSpace));
    tree.set_len(&file, 0).unwrap();
    assert_eq!(tree.space().unwrap().total, 256 << 10);
    drop((file, source));
    tree.remove_private(&Place::Temp("large".to_owned())).unwrap();

    // A file of another filesystem can still be copied from.
    let other = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    create_marker(other.path(), &share()).unwrap();
    let other = Disk::open(other.path(), &share(), None).unwrap();
    let foreign = other.create_temp("file").unwrap();
    other.write_at(&foreign, 0, b"0123456789").unwrap();
    let target = tree.create_temp("target").unwrap();
    assert_eq!(tree.copy_range(&foreign, &target, 4, 100), Ok(6));
    let mut bytes = [b'.'; 10];
    assert_eq!(tree.read_at(&target, 0, &mut bytes), Ok(10));
    assert_eq!(&bytes, b"\0\0\0\x00456789");
    drop(target);

    mount(&["-o", "remount,bind,ro"], &root);
    let tree = Disk::open(&root, &share(), None).unwrap();
    assert_eq!(tree.check_root(), Ok(()));
    assert_eq!(tree.stat(&at("file")).unwrap().size, 5);
    assert_eq!(tree.create_temp("x").err(), Some(TreeError::ReadOnly));
    assert_eq!(tree.make_dir(&at("dir"), 0o755), Err(TreeError::ReadOnly));
    assert_eq!(tree.rename(&at("file"), &at("free")), Err(TreeError::ReadOnly));
    assert_eq!(tree.set_mtime_of(&at("file"), 0), Err(TreeError::ReadOnly));

    // Another disk over the root is not the root, even with a copy of the marker.
    let marker = fs::read_to_string(root.join(".recsync/share.toml")).unwrap();
    mount(&["-t", "tmpfs", "none"], &root);
    assert!(matches!(tree.check_root(), Err(RootError::NoMarker { .. })));
    fs::create_dir(root.join(".recsync")).unwrap();
    fs::write(root.join(".recsync/share.toml"), marker).unwrap();
    assert!(matches!(tree.check_root(), Err(RootError::OtherRoot { .. })));
    assert!(tree.stat(&at("file")).is_ok(), "the tree stays with what it opened");
}

#[test]
fn writers_are_found_without_the_right_to_leases() {
    let Some(dir) = std::env::var_os(INSIDE) else {
        if !is_root() {
            return println!("skipped: looks into all processes, which needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let name = "writers_are_found_without_the_right_to_leases";
        return run_inside(&["setpriv", "--bounding-set", "-lease"], name, dir.path());
    };
    let root = PathBuf::from(dir);
    create_marker(&root, &share()).unwrap();
    fs::write(root.join("file"), b"bytes").unwrap();
    std::os::unix::fs::chown(root.join("file"), Some(12345), None).unwrap();
    let tree = Disk::open(&root, &share(), None).unwrap();
    let file = tree.open(&at("file")).unwrap();
    assert_eq!(
        crate::sys::probe_read_lease(
            openat(CWD, root.join("file"), OFlags::RDONLY, Mode::empty())
                .as_ref()
                .map(std::os::fd::AsFd::as_fd)
                .unwrap()
        ),
        Err(rustix::io::Errno::ACCESS)
    );
    let quiet = tree.writer(&file).unwrap();
    if quiet == Writer::Unknown {
        return println!("skipped: this is a container, whose /proc does not show all processes");
    }
    assert_eq!(quiet, Writer::None);
    let writer = fs::File::options().append(true).open(root.join("file")).unwrap();
    assert_eq!(tree.writer(&file), Ok(Writer::Some));
    drop(writer);
    assert_eq!(tree.writer(&file), Ok(Writer::None));
}
