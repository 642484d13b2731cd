//! The watcher on a real directory, with the kernel's own events.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;
use recsync_proto::ShareName;
use recsync_proto::path::PathError;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with};
use tempfile::TempDir;

use super::*;
use crate::tree::{Disk, create_marker};

/// A share with a watcher, and a directory on the same filesystem beside it.
struct Share {
    // Before the directories, so that the watcher ends first.
    running: Running,
    root: PathBuf,
    outside: PathBuf,
    /// What was reported until all was watched.
    start: Vec<Event>,
    marks: AtomicUsize,
    _dir: TempDir,
}

impl Share {
    fn new() -> Self {
        Share::with(BOUNDS, |_| {})
    }

    /// Prepares the root, then watches it; returns when all of it is watched.
    fn with(bounds: Bounds, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("r"), dir.path().join("o"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        prepare(&root);
        let running = Running::start(|sink| watcher(&root, bounds, sink));
        let start = running.until_scan(Why::Start);
        Share { running, root, outside, start, marks: AtomicUsize::new(0), _dir: dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Creates, writes and closes a file.
    fn write(&self, path: &str) {
        fs::write(self.path(path), b"RIFF").unwrap();
    }

    fn make(&self, dir: &str) {
        fs::create_dir_all(self.path(dir)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn exchange(&self, one: &str, other: &str) {
        exchange(&self.path(one), &self.path(other));
    }

    /// Returns all that is reported of what was done until now.
    fn so_far(&self) -> Vec<Event> {
        let mark = format!("mark-{}", self.marks.fetch_add(1, Ordering::Relaxed));
        self.write(&mark);
        let of_mark = |event: &Event| matches!(event, Event::Dirty { path, .. } if path.as_bytes() == mark.as_bytes());
        let mut events = self.running.until(|event| {
            of_mark(event) && matches!(event, Event::Dirty { hint: Hint::Written, .. })
        });
        events.retain(|event| !of_mark(event));
        events
    }

    fn told(&self) -> Vec<String> {
        told(&self.so_far())
    }

    /// Returns how many watches the kernel holds for the instance that watches the root.
    fn kernel_watches(&self) -> usize {
        let ino = format!(" ino:{:x} ", fs::metadata(&self.root).unwrap().ino());
        let infos = fs::read_dir("/proc/self/fdinfo").unwrap();
        let infos = infos.filter_map(|info| fs::read_to_string(info.unwrap().path()).ok());
        let mut counts = infos
            .filter(|info| info.contains(&ino))
            .map(|info| info.lines().filter(|line| line.starts_with("inotify wd:")).count());
        counts.next().unwrap_or(0)
    }
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

fn watcher<S: FnMut(Event)>(root: &Path, bounds: Bounds, sink: S) -> (Watcher<Disk, S>, Handle) {
    let name = ShareName::new("recordings").unwrap();
    create_marker(root, &name).unwrap();
    let disk = Arc::new(Disk::open(root, &name, None).unwrap());
    // A slash at the end does no harm.
    Watcher::bounded(root.join(""), disk, Clock::start(), sink, bounds)
}

#[test]
fn a_file_is_reported_when_it_is_created_and_when_it_is_closed() {
    let share = Share::new();
    share.write("a.wav");
    assert_eq!(share.told(), ["a.wav Created", "a.wav Written"]);
    fs::write(share.path("a.wav"), b"longer").unwrap();
    assert_eq!(share.told(), ["a.wav Written"]);
    fs::remove_file(share.path("a.wav")).unwrap();
    assert_eq!(share.told(), ["a.wav Deleted"]);
}

#[test]
fn a_growing_file_is_silent_until_it_is_closed_and_so_are_readers() {
    let share = Share::new();
    let mut file = fs::File::create(share.path("a.wav")).unwrap();
    assert_eq!(share.told(), ["a.wav Created"]);
    for _ in 0..1_000 {
        file.write_all(&[0; 320]).unwrap();
    }
    assert_eq!(fs::read(share.path("a.wav")).unwrap().len(), 320_000);
    assert_eq!(fs::read_dir(&share.root).unwrap().count(), 3);
    assert!(share.told().is_empty());
    drop(file);
    assert_eq!(share.told(), ["a.wav Written"]);
}

#[test]
fn times_are_those_of_the_event() {
    let share = Share::new();
    share.write("a.wav");
    share.write("b.wav");
    let times = share.so_far().into_iter().map(|event| match event {
        Event::Dirty { at, .. } => at,
        other => panic!("{other:?}"),
    });
    assert!(times.is_sorted_by(|earlier, later| earlier <= later));
}

#[test]
fn renames_within_into_and_out_of_the_share() {
    let share = Share::new();
    share.write("a.wav");
    share.make("d");
    share.so_far();
    share.rename("a.wav", "d/b.wav");
    assert_eq!(share.told(), ["a.wav MovedAway", "d/b.wav Created"]);
    fs::rename(share.path("d/b.wav"), share.outside.join("b.wav")).unwrap();
    assert_eq!(share.told(), ["d/b.wav MovedAway"]);
    fs::rename(share.outside.join("b.wav"), share.path("c.wav")).unwrap();
    assert_eq!(share.told(), ["c.wav Created"]);
    fs::hard_link(share.path("c.wav"), share.path("e.wav")).unwrap();
    assert_eq!(share.told(), ["e.wav Created"]);
}

#[test]
fn attributes_are_told_from_bytes() {
    let share = Share::new();
    share.write("a.wav");
    share.make("d");
    share.so_far();
    fs::set_permissions(share.path("a.wav"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(share.told(), ["a.wav Attributes"]);
    fs::set_permissions(share.path("d"), fs::Permissions::from_mode(0o700)).unwrap();
    let events: BTreeSet<_> = share.told().into_iter().collect();
    assert_eq!(events, BTreeSet::from(["d Attributes".to_owned()]));
    fs::set_permissions(&share.root, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(share.told().is_empty(), "the root has no record");
}

#[test]
fn recsyncs_own_directory_is_silent_until_it_vanishes() {
    let share = Share::new();
    fs::write(share.path(".recsync/tmp/1"), b"staged").unwrap();
    fs::create_dir(share.path(".recsync/trash/2026-11-22")).unwrap();
    fs::set_permissions(share.path(".recsync"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(share.told().is_empty());
    fs::rename(share.path(".recsync/tmp/1"), share.path("a.wav")).unwrap();
    assert_eq!(share.told(), ["a.wav Created"]);
    fs::rename(share.path("a.wav"), share.path(".recsync/tmp/1")).unwrap();
    assert_eq!(share.told(), ["a.wav MovedAway"]);
    fs::rename(share.path(".recsync"), share.outside.join("gone")).unwrap();
    assert_eq!(share.told(), ["root"]);
    assert_eq!(share.running.handle.watched(), 1);
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let share = Share::new();
    fs::create_dir(share.outside.join("d")).unwrap();
    symlink(&share.outside, share.path("link")).unwrap();
    share.make("d");
    share.make("e/d");
    share.so_far();
    // A directory that becomes a link, at the top and on the way to a watched one.
    fs::remove_dir(share.path("d")).unwrap();
    symlink(&share.outside, share.path("d")).unwrap();
    share.rename("e", "f");
    symlink(&share.outside, share.path("e")).unwrap();
    share.so_far();
    fs::write(share.outside.join("x.wav"), b"x").unwrap();
    fs::write(share.outside.join("d/x.wav"), b"x").unwrap();
    assert!(share.told().is_empty());
    share.write("f/d/y.wav");
    assert_eq!(share.told(), ["f/d/y.wav Created", "f/d/y.wav Written"]);
    assert_eq!((share.running.handle.watched(), share.kernel_watches()), (3, 3));
}

#[test]
fn names_are_bytes() {
    let share = Share::new();
    let name = OsStr::from_bytes(b"\xff\xfe d");
    fs::create_dir(share.root.join(name)).unwrap();
    share.so_far();
    fs::write(share.root.join(name).join(OsStr::from_bytes(b"\x80\n.wav")), b"x").unwrap();
    let expected = r"\xff\xfe d/\x80\x0a.wav";
    assert_eq!(share.told(), [format!("{expected} Created"), format!("{expected} Written")]);
}

#[test]
fn a_path_too_long_to_be_synced_is_named() {
    let share = Share::new();
    // Beyond what one path can name, so step by step: 15 * 256 + 200 bytes.
    let mut dir = openat(CWD, &share.root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..15 {
        let name = "d".repeat(255);
        mkdirat(&dir, &name, Mode::RWXU).unwrap();
        dir = openat(&dir, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    share.so_far();
    let long = "f".repeat(200);
    drop(openat(&dir, &long, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap());
    mkdirat(&dir, "d".repeat(201), Mode::RWXU).unwrap();
    let mut kinds = Vec::new();
    for event in share.so_far() {
        let Event::Unsyncable { dir, name, why } = event else { panic!("{event:?}") };
        assert_eq!(dir.as_bytes().len(), 15 * 256 - 1);
        kinds.push((name.len(), why));
    }
    let [file, other] = [4_040, 4_041].map(PathError::TooLong);
    assert_eq!(kinds, [(200, file.clone()), (200, file), (201, other)]);
    assert_eq!(share.running.handle.watched(), 16);
}

#[test]
fn nothing_written_into_new_directories_is_lost() {
    let share = Share::new();
    let mut expected = BTreeSet::new();
    for round in 0..2_000 {
        share.make(&format!("{round}/b/c"));
        for path in [format!("{round}/b/c/x.wav"), format!("{round}/y.wav")] {
            share.write(&path);
            expected.insert(share_path(path));
        }
    }
    // What is reported without a time to come back to: the bytes are to be read.
    for event in share.so_far() {
        if let Event::Dirty { path, hint: Hint::Written, .. } = event {
            expected.remove(&path);
        }
    }
    assert!(expected.is_empty(), "{} of 4,000 lost: {expected:?}", expected.len());
    assert_eq!((share.running.handle.watched(), share.kernel_watches()), (6_001, 6_001));
}

#[test]
fn a_directory_tree_moved_in_is_reported_whole() {
    let share = Share::new();
    fs::create_dir_all(share.outside.join("d/e")).unwrap();
    fs::write(share.outside.join("d/e/1.wav"), b"1").unwrap();
    fs::write(share.outside.join("d/2.wav"), b"2").unwrap();
    symlink("e", share.outside.join("d/link")).unwrap();
    fs::rename(share.outside.join("d"), share.path("d")).unwrap();
    let events = share.so_far();
    let came_along =
        events.iter().filter(|event| matches!(event, Event::Dirty { came_along: true, .. }));
    assert_eq!(came_along.count(), 4, "all but the directory itself");
    let mut events = told(&events);
    assert_eq!(events.remove(0), "d Created");
    events.sort();
    let expected =
        ["d watched", "d/2.wav Written", "d/e Created", "d/e/1.wav Written", "d/link Written"];
    assert_eq!(events, expected);
    share.write("d/e/3.wav");
    assert_eq!(share.told(), ["d/e/3.wav Created", "d/e/3.wav Written"]);
    // What is found in a directory that was made here may have been written just now.
    fs::create_dir_all(share.path("new/dir")).unwrap();
    share.write("new/dir/4.wav");
    let is_along = |event: &Event| matches!(event, Event::Dirty { came_along: true, .. });
    assert!(!share.so_far().iter().any(is_along));
}

#[test]
fn a_renamed_directory_speaks_under_its_new_name_only() {
    let share = Share::new();
    share.make("old/sub");
    share.write("old/sub/1.wav");
    share.so_far();
    share.rename("old", "new");
    let expected = [
        "old MovedAway",
        "old scan MovedAway",
        "new Created",
        "new/sub Created",
        "new/sub/1.wav Written",
        "new watched",
    ];
    assert_eq!(share.told(), expected);
    share.write("new/sub/2.wav");
    assert_eq!(share.told(), ["new/sub/2.wav Created", "new/sub/2.wav Written"]);
    // The old name is free for another.
    share.make("old/sub");
    share.so_far();
    share.write("old/sub/3.wav");
    share.write("new/sub/4.wav");
    let expected = [
        "old/sub/3.wav Created",
        "old/sub/3.wav Written",
        "new/sub/4.wav Created",
        "new/sub/4.wav Written",
    ];
    assert_eq!(share.told(), expected);
    assert_eq!((share.running.handle.watched(), share.kernel_watches()), (5, 5));
}

#[test]
fn exchanged_directories_keep_being_heard() {
    let share = Share::new();
    share.make("a/x");
    share.make("b/y");
    share.write("f.wav");
    share.so_far();
    for _ in 0..100 {
        share.exchange("a", "b");
    }
    share.exchange("a", "b");
    share.so_far();
    share.write("a/y/1.wav");
    share.write("b/x/2.wav");
    let expected =
        ["a/y/1.wav Created", "a/y/1.wav Written", "b/x/2.wav Created", "b/x/2.wav Written"];
    assert_eq!(share.told(), expected);
    // A file and a directory.
    share.exchange("a", "f.wav");
    share.so_far();
    share.write("f.wav/y/3.wav");
    assert_eq!(share.told(), ["f.wav/y/3.wav Created", "f.wav/y/3.wav Written"]);
    assert_eq!((share.running.handle.watched(), share.kernel_watches()), (5, 5));
}

#[test]
fn directories_moved_out_and_in_leave_no_watch_behind() {
    let share = Share::new();
    share.make("d/e/f");
    share.so_far();
    let (inside, outside) = (share.path("d"), share.outside.join("d"));
    for round in 0..1_000 {
        fs::rename(&inside, &outside).unwrap();
        if round % 100 == 0 {
            share.so_far();
            assert_eq!((share.running.handle.watched(), share.kernel_watches()), (1, 1));
            fs::write(outside.join("e/f/x.wav"), b"x").unwrap();
            assert!(share.told().is_empty());
        }
        fs::rename(&outside, &inside).unwrap();
    }
    share.so_far();
    assert_eq!((share.running.handle.watched(), share.kernel_watches()), (4, 4));
    share.write("d/e/f/y.wav");
    assert_eq!(share.told(), ["d/e/f/y.wav Created", "d/e/f/y.wav Written"]);
}

#[test]
fn deleted_directories_are_forgotten_and_scanned() {
    let share = Share::new();
    share.make("a/b");
    share.write("a/b/1.wav");
    share.so_far();
    fs::remove_dir_all(share.path("a")).unwrap();
    let mut events = share.told();
    events.dedup();
    for expected in ["a/b/1.wav Deleted", "a/b Deleted", "a/b scan Deleted", "a scan Deleted"] {
        assert!(events.iter().any(|event| event == expected), "{expected} in {events:?}");
    }
    assert_eq!((share.running.handle.watched(), share.kernel_watches()), (1, 1));
}

#[test]
fn more_events_than_the_queue_holds_become_a_scan() {
    let gate = Arc::new(Mutex::new(()));
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    fs::create_dir(&root).unwrap();
    let bounds = Bounds { queue: 8, ..BOUNDS };
    let running = {
        let gate = gate.clone();
        Running::start(|mut sink| {
            watcher(&root, bounds, move |event| {
                drop(gate.lock().unwrap());
                sink(event);
            })
        })
    };
    running.until_scan(Why::Start);
    {
        let _closed = gate.lock().unwrap();
        for round in 0..100 {
            fs::write(root.join(format!("{round}.wav")), b"x").unwrap();
        }
        // Made while nobody hears: only the new watches know of it.
        fs::create_dir_all(root.join("a/b")).unwrap();
    }
    let events = told(&running.until_scan(Why::Overflow));
    assert_eq!(events[0], "0.wav Created", "what was heard before the loss is reported");
    assert!(!events.contains(&"99.wav Written".to_owned()), "{events:?}");
    fs::write(root.join("a/b/x.wav"), b"x").unwrap();
    let path = share_path("a/b/x.wav");
    let hint = Hint::Written;
    running.until(
        |event| matches!(event, Event::Dirty { path: p, hint: h, .. } if (p, h) == (&path, &hint)),
    );
    assert_eq!(running.handle.watched(), 3);
}

#[test]
fn the_whole_tree_is_watched_at_the_start() {
    let share = Share::with(BOUNDS, |root| {
        for day in 0..50 {
            for hour in 0..50 {
                fs::create_dir_all(root.join(format!("{day}/{hour}"))).unwrap();
            }
        }
    });
    assert_eq!((share.running.handle.watched(), share.kernel_watches()), (2_551, 2_551));
    assert_eq!(share.running.handle.unwatched(), 0);
    share.write("49/49/x.wav");
    assert_eq!(share.told(), ["49/49/x.wav Created", "49/49/x.wav Written"]);
}

#[test]
fn a_root_that_moves_away_is_told_and_watched_again_when_it_is_back() {
    let share = Share::with(BOUNDS, |root| fs::create_dir(root.join("d")).unwrap());
    let away = share.outside.join("r");
    fs::rename(&share.root, &away).unwrap();
    let is_told = |event: &Event| matches!(event, Event::Coverage { .. });
    let events = share.running.until(is_told);
    assert_eq!(told(&events), ["root", "1 unwatched"]);
    fs::write(away.join("d/x.wav"), b"x").unwrap();
    fs::rename(&away, &share.root).unwrap();
    share.running.handle.rewatch();
    assert_eq!(
        told(&share.running.until_scan(Why::Rewatched)),
        ["0 unwatched", ". scan Rewatched"]
    );
    share.write("d/y.wav");
    assert_eq!(share.told(), ["d/y.wav Created", "d/y.wav Written"]);
}

#[test]
fn a_stopped_watcher_gives_its_watches_back() {
    let mut share = Share::new();
    assert_eq!(share.kernel_watches(), 1);
    share.running.stop();
    assert_eq!((share.running.handle.watched(), share.kernel_watches()), (0, 0));
}

/// In a user namespace of its own, a process has its own limit of watches.
const LIMIT: &str = "/proc/sys/user/max_inotify_watches";

#[test]
fn the_kernels_own_watch_limit_is_met_and_overcome() {
    if std::env::var_os("RECSYNC_TEST_NAMESPACE").is_some() {
        return meet_the_limit();
    }
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-Ur", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
        command.env("RECSYNC_TEST_NAMESPACE", "1").output()
    };
    match unshare(&format!("echo 4 > {LIMIT}")) {
        Ok(output) if output.status.success() => {}
        refused => return eprintln!("SKIPPED: no user namespace to be had: {refused:?}"),
    }
    let name = "watch::tests::disk::the_kernels_own_watch_limit_is_met_and_overcome";
    let output = unshare(&format!(r#"echo 4 > {LIMIT} && "$0" --exact {name}"#)).unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{output:?}");
}

fn meet_the_limit() {
    let bounds = Bounds { retry: Duration::from_millis(1), ..BOUNDS };
    let share = Share::with(bounds, |root| {
        for dir in ["a/b", "c/d", "e/f"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
    });
    assert_eq!(told(&share.start), ["3 unwatched", ". scan Start"]);
    let Event::Coverage { why: Some(WatchError::WatchesUsedUp { setting, .. }), .. } =
        &share.start[0]
    else {
        panic!("{:?}", share.start)
    };
    assert_eq!(setting.to_string(), "user.max_inotify_watches = 4");
    assert_eq!(share.kernel_watches(), 4);
    fs::write(LIMIT, "100").unwrap();
    share.running.until(|event| matches!(event, Event::Coverage { unwatched: 0, .. }));
    assert_eq!(share.kernel_watches(), 7);
    share.running.until_scan(Why::Unwatched);
    share.write("e/f/x.wav");
    assert_eq!(share.told(), ["e/f/x.wav Created", "e/f/x.wav Written"]);
}

/// What users do to directories.
#[derive(Debug, Clone)]
enum Act {
    Make(usize),
    Write(usize),
    Rename(usize, usize),
    Exchange(usize, usize),
    MoveOut(usize),
    MoveIn(usize),
    RemoveAll(usize),
    Link(usize),
}

const NAMES: [&str; 9] = ["a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/b/a", "b/a/b"];

fn act() -> impl Strategy<Value = Act> {
    let name = || 0..NAMES.len();
    prop_oneof![
        4 => name().prop_map(Act::Make),
        2 => name().prop_map(Act::Write),
        4 => (name(), name()).prop_map(|(from, to)| Act::Rename(from, to)),
        3 => (name(), name()).prop_map(|(one, other)| Act::Exchange(one, other)),
        1 => name().prop_map(Act::MoveOut),
        1 => name().prop_map(Act::MoveIn),
        1 => name().prop_map(Act::RemoveAll),
        1 => name().prop_map(Act::Link),
    ]
}

impl Share {
    /// Does it if it can be done.
    fn act(&self, act: &Act) {
        let path = |name: &usize| self.root.join(NAMES[*name]);
        let out = self.outside.join("moved");
        let done = match act {
            Act::Make(name) => fs::create_dir_all(path(name)),
            Act::Write(name) => fs::write(path(name).join("f"), b"f"),
            Act::Rename(from, to) => fs::rename(path(from), path(to)),
            Act::Exchange(one, other) => {
                renameat_with(CWD, path(one), CWD, path(other), RenameFlags::EXCHANGE)
                    .map_err(Into::into)
            }
            Act::MoveOut(name) => fs::rename(path(name), out),
            Act::MoveIn(name) => fs::rename(out, path(name)),
            Act::RemoveAll(name) => fs::remove_dir_all(path(name)),
            Act::Link(name) => symlink(&self.outside, path(name)),
        };
        drop(done);
    }

    /// Returns every directory of the share, without the root.
    fn dirs(&self) -> Vec<String> {
        let mut dirs = Vec::new();
        let mut pending = vec![String::new()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(self.path(&dir)).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                if entry.file_type().unwrap().is_dir() && name != ".recsync" {
                    let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                    dirs.push(path.clone());
                    pending.push(path);
                }
            }
        }
        dirs
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is done, and however far the watcher lags behind it: in the end each directory is
    /// watched once, under its name, and nothing else is.
    #[test]
    fn after_any_history_every_directory_is_watched_under_its_name(
        acts in prop::collection::vec((act(), prop::bool::weighted(0.2)), 1..60),
    ) {
        let share = Share::new();
        for (act, wait) in &acts {
            share.act(act);
            if *wait {
                share.so_far();
            }
        }
        share.so_far();
        let dirs = share.dirs();
        prop_assert_eq!(share.running.handle.watched(), dirs.len() + 1);
        prop_assert_eq!(share.kernel_watches(), dirs.len() + 1);
        for dir in dirs {
            let path = format!("{dir}/probe");
            share.write(&path);
            prop_assert_eq!(share.told(), [format!("{path} Created"), format!("{path} Written")]);
        }
    }
}
