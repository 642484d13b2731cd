//! Recordings as a real FreeSWITCH makes them: its system calls, replayed on one of two nodes.
//!
//! `tests/data/freeswitch-trace.md` tells what was recorded. Long waits are cut, short ones kept:
//! a file that was closed and reopened within a millisecond is so here too. All the time somebody
//! looks at the other node: whatever is there under any name must be what a closed file held.
#![expect(clippy::disallowed_methods, reason = "tests are the users: they work on the files")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, not what they call"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use support::{Mount, Pair, Tree, hash, seen, unique, until};

const TRACE: &str = include_str!("data/freeswitch-trace.jsonl");
/// Waits longer than this are cut to it: well above settle, so that the daemon has its looks.
const WAIT_MAX: Duration = Duration::from_millis(30);
/// What was not left alone for at least half of settle after it was closed must never be seen.
const CLOSED_MIN: Duration = Duration::from_millis(10);

/// One system call.
#[derive(Debug, Clone, Deserialize)]
struct Line {
    scenario: String,
    t: f64,
    call: String,
    #[serde(default)]
    path: Paths,
    #[serde(default)]
    flags: String,
    #[serde(default)]
    mode: u32,
    #[serde(default)]
    fd: u32,
    #[serde(default)]
    offset: serde_json::Value,
    #[serde(default)]
    len: u64,
    #[serde(default)]
    length: u64,
    #[serde(default)]
    riff: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Paths {
    One(String),
    Two([String; 2]),
}

impl Default for Paths {
    fn default() -> Self {
        Paths::One(String::new())
    }
}

impl Line {
    fn path(&self) -> &str {
        match &self.path {
            Paths::One(path) | Paths::Two([path, _]) => path,
        }
    }

    fn key(&self) -> (String, u32) {
        (self.scenario.clone(), self.fd)
    }

    fn writes(&self) -> bool {
        self.flags.contains("WR")
    }
}

/// A file that the recorder has open.
struct Open {
    file: File,
    path: PathBuf,
    writes: bool,
}

/// What a file held when it was closed.
#[derive(Debug, Clone)]
struct Closed {
    hash: [u8; 32],
    at: Instant,
    /// How long it stayed so.
    lasted: Option<Duration>,
}

/// A recorder at work.
struct Recorder {
    share: PathBuf,
    spool: PathBuf,
    shm: Option<tempfile::TempDir>,
    open: BTreeMap<(String, u32), Open>,
    /// All that was ever closed, by the name it had or got later.
    closed: BTreeMap<PathBuf, Vec<Closed>>,
}

impl Recorder {
    fn new(pair: &Pair) -> Recorder {
        let spool = pair.dir.path().join("spool");
        fs::create_dir(&spool).unwrap();
        let share = pair.a.root.clone();
        Recorder { share, spool, shm: None, open: BTreeMap::new(), closed: BTreeMap::new() }
    }

    fn place(&self, path: &str) -> PathBuf {
        match path.split_once('/') {
            Some(("@spool", name)) => self.spool.join(name),
            Some(("@shm", name)) => self.shm.as_ref().unwrap().path().join(name),
            Some(("@full", name)) => self.share.join(name),
            _ => self.share.join(path),
        }
    }

    /// Makes the directories that were there before the recording began; those of the first call
    /// of the day were not.
    fn make_directories(&self, lines: &[Line]) {
        for line in lines {
            let both = match &line.path {
                Paths::One(path) => std::slice::from_ref(path),
                Paths::Two(both) => both,
            };
            for path in
                both.iter().filter(|path| !path.starts_with("lab.local") && !path.is_empty())
            {
                fs::create_dir_all(self.place(path).parent().unwrap()).unwrap();
            }
        }
    }

    fn play(&mut self, lines: &[Line]) {
        let mut last = lines[0].t;
        for (at, line) in lines.iter().enumerate() {
            thread::sleep(Duration::from_secs_f64((line.t - last).max(0.0)).min(WAIT_MAX));
            last = line.t;
            self.call(line, &lines[at..]);
        }
        assert!(self.open.values().all(|open| !open.writes), "the trace leaves a file open");
    }

    fn call(&mut self, line: &Line, rest: &[Line]) {
        let path = self.place(line.path());
        match line.call.as_str() {
            "mkdir" => match fs::DirBuilder::new().mode(line.mode).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    panic!("{path:?}: {error}")
                }
                _ => {}
            },
            "open" => self.open(line, path),
            "write" => self.write(line, rest),
            "ftruncate" => {
                // The header of a new file on a full disk was not written before.
                self.open[&line.key()].file.set_len(line.length).unwrap();
            }
            "close" => self.close(&line.key()),
            "kill" => {
                let of_it = |key: &&(String, u32)| key.0 == line.scenario;
                let keys: Vec<_> = self.open.keys().filter(of_it).cloned().collect();
                keys.iter().for_each(|key| self.close(key));
            }
            "rename" => {
                let Paths::Two([_, to]) = &line.path else { panic!("{line:?}") };
                let to = self.place(to);
                fs::rename(&path, &to).unwrap();
                for open in self.open.values_mut().filter(|open| open.path == path) {
                    open.path.clone_from(&to);
                }
                let contents = self.closed.get(&path).cloned().unwrap_or_default();
                self.closed.entry(to).or_default().extend(contents);
            }
            "unlink" => match fs::remove_file(&path) {
                Ok(()) => self.disturbed(&path),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path:?}"),
            },
            other => panic!("{other}?"),
        }
    }

    fn open(&mut self, line: &Line, path: PathBuf) {
        let writes = line.writes();
        let file = OpenOptions::new()
            .read(true)
            .write(writes)
            .create(line.flags.contains("O_CREAT"))
            .truncate(line.flags.contains("O_TRUNC"))
            .mode(line.mode)
            .open(&path)
            .unwrap_or_else(|error| panic!("{path:?}: {error}"));
        if writes {
            self.disturbed(&path);
        }
        self.open.insert(line.key(), Open { file, path, writes });
    }

    fn write(&self, line: &Line, rest: &[Line]) {
        let file = &self.open[&line.key()].file;
        let size = file.metadata().unwrap().len();
        let mut bytes = unique(line.len as usize);
        if line.riff {
            // Only the last header that is written before the close tells how much there is.
            let of_it = |other: &&Line| other.key() == line.key();
            let mut coming =
                rest[1..].iter().filter(of_it).take_while(|other| other.call != "open");
            let is_last = coming.clone().all(|other| !other.riff);
            let is_closed = coming.clone().any(|other| other.call == "close");
            let end = coming.try_fold(size.max(line.len), |end, other| match other.call.as_str() {
                "close" => Err(end),
                "write" => Ok(end.max(other.offset.as_u64().unwrap_or(0) + other.len)),
                _ => Ok(end),
            });
            let end = end.unwrap_or_else(|end| end);
            let told = if is_last && is_closed { u32::try_from(end).unwrap() - 8 } else { 8 };
            bytes[..4].copy_from_slice(b"RIFF");
            bytes[4..8].copy_from_slice(&told.to_le_bytes());
        }
        let offset = line.offset.as_u64().unwrap_or(size);
        // A full disk takes a part, or nothing, and the recorder goes on.
        match file.write_at(&bytes, offset) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{line:?}"),
        }
    }

    fn close(&mut self, key: &(String, u32)) {
        let Open { file, path, writes } = self.open.remove(key).unwrap();
        let id = |stat: &fs::Metadata| (stat.dev(), stat.ino());
        let stat = file.metadata().unwrap();
        let mut others = self.open.values().filter(|open| open.writes);
        let is_last = !others.any(|open| id(&open.file.metadata().unwrap()) == id(&stat));
        let mut bytes = vec![0; stat.len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        drop(file);
        let has_name = fs::symlink_metadata(&path).is_ok_and(|there| id(&there) == id(&stat));
        if writes && is_last && has_name {
            let closed = Closed { hash: hash(&bytes), at: Instant::now(), lasted: None };
            self.closed.entry(path).or_default().push(closed);
        }
    }

    /// What was closed under this name is about to change, or has gone.
    fn disturbed(&mut self, path: &Path) {
        if let Some(last) = self.closed.get_mut(path).and_then(|all| all.last_mut()) {
            last.lasted.get_or_insert(last.at.elapsed());
        }
    }

    /// True if a file may be seen so under this name elsewhere.
    fn may_be_seen(&self, name: &Path, content: [u8; 32]) -> bool {
        let all = self.closed.get(&self.share.join(name));
        all.into_iter().flatten().any(|closed| {
            closed.hash == content && closed.lasted.is_none_or(|lasted| lasted >= CLOSED_MIN)
        })
    }
}

/// Looks at a share again and again, and remembers every file that it ever saw there.
fn watch(root: &Path, stop: &AtomicBool) -> BTreeSet<(PathBuf, [u8; 32], u64)> {
    let mut all = BTreeSet::new();
    let mut known = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let mut dirs = vec![root.to_owned()];
        while let Some(dir) = dirs.pop() {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries {
                let path = entry.unwrap().path();
                let Ok(stat) = fs::symlink_metadata(&path) else { continue };
                if stat.is_dir() && !path.ends_with(".recsync") {
                    dirs.push(path);
                } else if stat.is_file() {
                    // A file that was not replaced is not read again.
                    let id = (stat.ino(), stat.size(), stat.ctime(), stat.ctime_nsec());
                    if known.insert(path.clone(), id) != Some(id)
                        && let Ok(bytes) = fs::read(&path)
                    {
                        let name = path.strip_prefix(root).unwrap().to_owned();
                        all.insert((name, hash(&bytes), bytes.len() as u64));
                    }
                }
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    all
}

/// What came of a replay.
struct Replayed {
    pair: Pair,
    /// Everything, on both nodes.
    tree: Tree,
    /// Every file that was ever seen on fs2, with its size.
    seen: Vec<(PathBuf, u64)>,
}

impl Replayed {
    /// Returns the names of the files, directories left out, with the place of a uuid held by `*`.
    fn names(&self) -> Vec<String> {
        let files =
            self.tree.0.iter().filter(|(_, object)| matches!(object, support::Object::File { .. }));
        let names = files.map(|(path, _)| without_uuid(&String::from_utf8_lossy(path)));
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns which sizes a file was seen with on fs2, smallest first.
    fn sizes(&self, name: &str) -> Vec<u64> {
        let of_it =
            self.seen.iter().filter(|(path, _)| without_uuid(&path.to_string_lossy()) == name);
        let mut sizes: Vec<_> = of_it.map(|(_, size)| *size).collect();
        sizes.sort_unstable();
        sizes
    }
}

fn without_uuid(path: &str) -> String {
    let is_uuid = |text: &str| {
        text.len() == 36 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
    };
    match (0..path.len().saturating_sub(35)).find(|&at| path.get(at..at + 36).is_some_and(is_uuid))
    {
        Some(at) => format!("{}*{}", &path[..at], &path[at + 36..]),
        None => path.to_owned(),
    }
}

/// Replays what these scenarios recorded, those whose names begin so, on fs1.
fn replay(scenarios: &[&str]) -> Replayed {
    replay_on(Pair::started(), scenarios)
}

fn replay_on(pair: Pair, scenarios: &[&str]) -> Replayed {
    replay_after(pair, scenarios, &[])
}

/// As [`replay_on`], with files that are on both nodes already.
fn replay_after(pair: Pair, scenarios: &[&str], before: &[(&str, &[u8])]) -> Replayed {
    let all = TRACE.lines().map(|line| serde_json::from_str::<Line>(line).unwrap());
    let chosen = |line: &Line| {
        scenarios.iter().any(|name| line.scenario.split(['_', '/']).any(|part| part == *name))
    };
    let lines: Vec<Line> = all.filter(chosen).collect();
    assert!(lines.len() > 4, "nothing is known of {scenarios:?}");

    let mut recorder = Recorder::new(&pair);
    if lines.iter().any(|line| line.path().starts_with("@shm")) {
        recorder.shm = Some(tempfile::tempdir_in("/dev/shm").unwrap());
    }
    recorder.make_directories(&lines);
    for (name, bytes) in before {
        let lasted = Some(Duration::MAX);
        let closed = Closed { hash: hash(bytes), at: Instant::now(), lasted };
        recorder.closed.entry(recorder.place(name)).or_default().push(closed);
    }
    let (root, stop) = (pair.b.root.clone(), AtomicBool::new(false));
    let (tree, all_seen) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&root, &stop));
        // Whatever fails, the one who watches must end, or the test never does.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            recorder.play(&lines);
            let made = pair.a.tree();
            pair.wait_until_both_hold(&made);
            made
        }));
        stop.store(true, Ordering::Relaxed);
        let all_seen = watching.join().unwrap();
        match result {
            Ok(tree) => (tree, all_seen),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    for (name, content, size) in &all_seen {
        assert!(
            recorder.may_be_seen(name, *content),
            "{} was seen on fs2 with {size} bytes that no closed file held: {:#?}",
            name.display(),
            recorder.closed.get(&recorder.share.join(name)),
        );
    }
    let seen = all_seen.into_iter().map(|(name, _, size)| (name, size)).collect();
    Replayed { pair, tree, seen }
}

/// What the header of a wav says of the file's size, and that size.
fn riff(path: &Path) -> (u64, u64) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..4], b"RIFF", "{}", path.display());
    (u64::from(u32::from_le_bytes(bytes[4..8].try_into().unwrap())) + 8, bytes.len() as u64)
}

/// All wavs on fs2 have a header that tells their size.
fn check_wavs(replayed: &Replayed, expected: usize) {
    let wavs = replayed.tree.paths().into_iter().filter(|path| path.ends_with(".wav"));
    let wavs: Vec<_> = wavs.map(|path| (riff(&replayed.pair.b.path(&path)), path)).collect();
    for ((told, size), path) in &wavs {
        assert_eq!(told, size, "{path}");
    }
    assert_eq!(wavs.len(), expected, "{wavs:?}");
}

#[test]
fn a_wav_with_two_close_writes_is_shipped_once_and_whole() {
    let replayed = replay(&["s01", "s03"]);
    check_wavs(&replayed, 2);
    assert_eq!(replayed.sizes("s01/*.wav"), [208_364], "never empty, never half");
    assert_eq!(replayed.pair.b.metric("recsync_files_applied_total", &["kind=\"update\""]), 0.0);
}

#[test]
fn a_header_patched_in_place_before_the_close() {
    // Unbuffered: a write each 20 ms; with tags; of a conference; of a voicemail; paused.
    let replayed = replay(&["s04", "s21", "s12", "s10", "s20"]);
    check_wavs(&replayed, 5);
    assert_eq!(replayed.sizes("s04/*.wav"), [48_364]);
}

#[test]
fn a_recording_below_record_min_sec_is_closed_and_unlinked_and_never_seen() {
    let replayed = replay(&["s07", "s10b", "s19"]);
    assert_eq!(replayed.names(), [""; 0]);
    assert_eq!(replayed.seen, []);
}

#[test]
fn record_append_opens_a_finished_file_again() {
    let replayed = replay(&["s05", "e4"]);
    check_wavs(&replayed, 2);
    let sizes = replayed.sizes("s05/*.wav");
    assert!(sizes == [100_844, 201_644] || sizes == [201_644], "{sizes:?}");
}

#[test]
fn the_same_file_again_without_append_is_truncated_and_written_anew() {
    let replayed = replay(&["s06"]);
    check_wavs(&replayed, 1);
    assert!(replayed.sizes("s06/*.wav").iter().all(|&size| size == 100_844));
}

#[test]
fn two_calls_with_one_name() {
    let replayed = replay(&["s17"]);
    check_wavs(&replayed, 1);
    assert_eq!(replayed.names(), ["s17/same.wav"]);
    assert!(replayed.sizes("s17/same.wav").iter().all(|&size| size == 96_364));
}

#[test]
fn a_killed_recorder_leaves_files_whose_headers_say_nothing() {
    let replayed = replay(&["c1"]);
    assert_eq!(replayed.names(), ["c1/a_*.wav", "c1/b_*.wav", "c1/c_*.mp3"]);
    for path in replayed.tree.paths().iter().filter(|path| path.ends_with(".wav")) {
        let (told, size) = riff(&replayed.pair.b.path(path));
        assert!(told == 16 && size > 100_000, "{path}: {told} of {size}");
    }
}

#[test]
fn a_killed_recorder_s_file_is_appended_to() {
    let pair = Pair::started();
    // As it was left: 131,116 bytes, of which the header says nothing.
    let mut crashed = unique(131_116);
    crashed[..8].copy_from_slice(b"RIFF\x08\0\0\0");
    fs::create_dir(pair.a.path("e3")).unwrap();
    fs::write(pair.a.path("e3/crashed.wav"), &crashed).unwrap();
    pair.wait_until_consistent();
    let replayed = replay_after(pair, &["e3"], &[("e3/crashed.wav", &crashed)]);
    check_wavs(&replayed, 1);
    assert_eq!(replayed.sizes("e3/crashed.wav"), [131_116, 227_756]);
}

#[test]
fn a_terminated_recorder_finishes_its_files() {
    let replayed = replay(&["c2"]);
    check_wavs(&replayed, 2);
    assert_eq!(replayed.names().len(), 3);
}

#[test]
fn the_first_call_of_the_day_makes_its_directories() {
    let replayed = replay(&["s02", "s08b"]);
    check_wavs(&replayed, 1);
    let day = "lab.local/archive/2026/Nov/22";
    assert_eq!(
        replayed.names(),
        [format!("{day}/*.mp3"), format!("{day}/*.wav")].map(String::from)
    );
    let is_dir =
        |path: &str| replayed.tree.get(path) == Some(&support::Object::Dir { mode: 0o750 });
    assert!(Path::new(day).ancestors().take(5).all(|dir| is_dir(dir.to_str().unwrap())));
}

#[test]
fn mp3s_and_raw_files_are_closed_once() {
    let replayed = replay(&["s08", "e1", "s14"]);
    assert_eq!(replayed.names(), ["e1/x.mp3", "s08/*.mp3", "s14/*-in.L16", "s14/*-out.L16"]);
    assert_eq!(replayed.sizes("s08/*.mp3"), [26_928]);
}

#[test]
fn a_converter_that_deletes_its_source_in_place() {
    let replayed = replay(&["s09"]);
    assert_eq!(replayed.names(), ["s09/*.mp3"]);
}

#[test]
fn a_converter_that_deletes_its_source_by_temporary_and_rename() {
    let replayed = replay(&["s09b"]);
    assert_eq!(replayed.names(), ["s09b/*.mp3"]);
    assert_eq!(replayed.sizes("s09b/*.mp3"), [41_184]);
}

#[test]
fn a_spool_on_the_same_file_system_then_mv() {
    let replayed = replay(&["s15"]);
    check_wavs(&replayed, 1);
    assert_eq!(replayed.sizes("s15/spooled.wav"), [112_364]);
}

#[test]
fn a_spool_on_another_file_system_then_mv() {
    let other = |path: &Path| fs::metadata(path).map(|stat| stat.dev()).ok();
    if other(Path::new("/dev/shm")).is_none_or(|dev| Some(dev) == other(&std::env::temp_dir())) {
        eprintln!("skipped: a_spool_on_another_file_system_then_mv: /dev/shm is not another one");
        return;
    }
    let replayed = replay(&["s15b"]);
    check_wavs(&replayed, 1);
    assert_eq!(replayed.sizes("s15b/spooled.wav"), [208_364]);
}

#[test]
fn a_recording_moved_while_it_is_recorded() {
    let replayed = replay(&["s23"]);
    check_wavs(&replayed, 1);
    assert_eq!(replayed.names(), ["s23/moved/*.wav"]);
    assert_eq!(replayed.sizes("s23/*.wav"), [0; 0]);
}

#[test]
fn a_recording_deleted_while_it_is_recorded() {
    let replayed = replay(&["s24"]);
    assert_eq!(replayed.names(), [""; 0]);
    assert_eq!(replayed.seen, []);
}

#[test]
fn an_orphan_in_a_directory_named_8000() {
    let replayed = replay(&["s18"]);
    assert_eq!(replayed.names(), ["s18/8000/*.wav"]);
    assert_eq!(replayed.sizes("s18/8000/*.wav"), [44]);
}

#[test]
fn everything_of_a_run_at_once() {
    let replayed = replay(&[
        "s01", "s02", "s03", "s04", "s05", "s06", "s07", "s08", "s08b", "s09", "s09b", "s10",
        "s10b", "s11", "s12", "s13", "s14", "s15", "s17", "s18", "s19", "s20", "s21", "s23", "s24",
    ]);
    assert!(replayed.names().len() > 20, "{:?}", replayed.names());
    for path in replayed.tree.paths().iter().filter(|path| path.ends_with(".wav")) {
        let (told, size) = riff(&replayed.pair.b.path(path));
        assert!(told == size, "{path}: {told} of {size}");
    }
}

#[test]
fn a_disk_that_fills_up_during_the_call() {
    let mut pair = Pair::new();
    let marker = fs::read(pair.a.marker()).unwrap();
    let test = "a_disk_that_fills_up_during_the_call";
    let Some(_disk) = Mount::tmpfs(test, &pair.a.root, "420k") else { return };
    fs::create_dir(pair.a.path(".recsync")).unwrap();
    fs::write(pair.a.marker(), marker).unwrap();
    pair.start();
    let replayed = replay_on(pair, &["d2", "d4"]);
    let sizes = replayed.tree.0.values().map(|object| match object {
        support::Object::File { size, .. } => *size,
        _ => 0,
    });
    let sizes: Vec<_> = sizes.collect();
    assert!(sizes.len() == 2 && sizes[0] > 300_000 && sizes[1] == 0, "{sizes:?}");
    // It receives nothing that it has no room for, and says so; what fits goes on.
    let pair = replayed.pair;
    fs::write(pair.b.path("from-fs2.wav"), unique(100_000)).unwrap();
    fs::write(pair.a.path("d4-renamed"), b"").unwrap();
    pair.wait_for(&pair.b, "d4-renamed");
    until("fs1 says that there is no room", || {
        let status = pair.a.status();
        seen(status.to_string().contains("no space left"))
    });
    assert!(!pair.a.path("from-fs2.wav").exists());
    // Room is made, by retention.
    let full = replayed.tree.paths().into_iter().find(|path| path.starts_with("d2")).unwrap();
    fs::remove_file(pair.a.path(full)).unwrap();
    pair.wait_until_consistent();
    assert!(pair.a.path("from-fs2.wav").exists());
}

#[test]
fn a_receiver_whose_disk_is_full_catches_up_when_there_is_room() {
    let mut pair = Pair::new();
    let marker = fs::read(pair.b.marker()).unwrap();
    let test = "a_receiver_whose_disk_is_full_catches_up_when_there_is_room";
    let Some(disk) = Mount::tmpfs(test, &pair.b.root, "2m") else { return };
    fs::create_dir(pair.b.path(".recsync")).unwrap();
    fs::write(pair.b.marker(), marker).unwrap();
    pair.start();
    fs::write(pair.a.path("large.wav"), unique(5_000_000)).unwrap();
    fs::write(pair.a.path("small.wav"), unique(50_000)).unwrap();
    pair.wait_for(&pair.b, "small.wav");
    until("fs2 says that there is no room", || {
        seen(pair.b.status().to_string().contains("no space left"))
    });
    assert_eq!(pair.b.metric("recsync_quarantined_files", &[]), 1.0);
    assert!(pair.b.metric("recsync_errors_total", &["kind=\"space\""]) > 0.0);
    assert!(!pair.b.path("large.wav").exists());
    disk.resize("20m");
    pair.wait_until_consistent();
    assert!(pair.b.path("large.wav").exists());
}
