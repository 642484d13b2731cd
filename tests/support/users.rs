//! Users of two nodes at work, and a journal of all that they closed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Node, Pair, Tree, hash, unique};

/// For all that many faults leave to be caught up with, in a debug build on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// What every file that was ever closed held. Nobody destroys here what only he has: a user
/// overwrites and deletes on his node only what came from the other one, so that one has the
/// bytes, in its trash if no longer in the tree.
#[derive(Default)]
pub(crate) struct Journal(Mutex<BTreeMap<[u8; 32], String>>);

impl Journal {
    pub(crate) fn closed(&self, path: &Path, bytes: &[u8]) {
        self.0.lock().unwrap().insert(hash(bytes), path.display().to_string());
    }

    /// # Panics
    /// If any content is nowhere: in no tree and in no trash.
    pub(crate) fn check(&self, pair: &Pair) {
        let mut found: Vec<[u8; 32]> = Vec::new();
        for node in [&pair.a, &pair.b] {
            found.extend(node.tree().hashes());
            found.extend(node.trash().hashes());
        }
        found.sort_unstable();
        let journal = self.0.lock().unwrap();
        let lost: Vec<_> =
            journal.iter().filter(|(hash, _)| found.binary_search(hash).is_err()).collect();
        assert!(
            lost.is_empty(),
            "of {} contents, {} are lost: {lost:?}",
            journal.len(),
            lost.len()
        );
    }
}

/// Chance that replays.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// A node's users: calls are recorded, archived, appended to; what came from the other node is
/// overwritten and deleted now and then.
struct Users<'a> {
    me: String,
    root: PathBuf,
    journal: &'a Journal,
    dice: Dice,
    /// Ours: nobody else touches them until they are given away.
    ours: Vec<PathBuf>,
    made: usize,
}

impl<'a> Users<'a> {
    fn new(node: &Node, journal: &'a Journal) -> Self {
        let seed = u64::from_le_bytes(*b"recsync1")
            ^ node.name.len() as u64
            ^ u64::from(node.name.as_bytes()[2]);
        Users {
            me: node.name.clone(),
            root: node.root.clone(),
            journal,
            dice: Dice(seed),
            ours: Vec::new(),
            made: 0,
        }
    }

    fn act(&mut self) {
        match self.dice.roll(10) {
            0..6 => self.record(),
            6 => self.archive(),
            7 => self.append(),
            8 => self.with_theirs(|path| fs::remove_file(path).is_ok()),
            _ => self.overwrite_theirs(),
        }
    }

    fn record(&mut self) {
        let len = [200, 20_000, 90_000, 700_000][self.dice.roll(4)];
        let dir = self.root.join(format!("2026/{}", self.dice.roll(5)));
        let path = dir.join(format!("{}-{}.wav", self.me, self.made));
        self.made += 1;
        let bytes = unique(len);
        fs::create_dir_all(&dir).unwrap();
        fs::write(&path, &bytes).unwrap();
        self.journal.closed(&path, &bytes);
        self.ours.push(path);
    }

    /// Renames one of ours.
    fn archive(&mut self) {
        let Some(at) = self.choose() else { return };
        let dir = self.root.join("archive");
        fs::create_dir_all(&dir).unwrap();
        let to = dir.join(self.ours[at].file_name().unwrap());
        // It is the other one's to delete too, so it may be gone.
        if fs::rename(&self.ours[at], &to).is_ok() {
            self.ours[at] = to;
        }
    }

    /// Writes one of ours anew beside itself, longer: both contents live on.
    fn append(&mut self) {
        let Some(at) = self.choose() else { return };
        let Ok(mut bytes) = fs::read(&self.ours[at]) else { return };
        bytes.extend(unique(5_000));
        let path = self.ours[at].with_extension(format!("{}.wav", self.made));
        self.made += 1;
        fs::write(&path, &bytes).unwrap();
        self.journal.closed(&path, &bytes);
        self.ours.push(path);
    }

    fn choose(&mut self) -> Option<usize> {
        (!self.ours.is_empty()).then(|| self.dice.roll(self.ours.len()))
    }

    fn overwrite_theirs(&mut self) {
        let bytes = unique(15_000);
        let journal = self.journal;
        self.with_theirs(|path| {
            // In one step, as whoever does not want to lose the old version by a crash does it.
            let beside = path.with_extension("tmp-of-a-user");
            fs::write(&beside, &bytes).unwrap();
            let done = fs::rename(&beside, path).is_ok();
            if done {
                journal.closed(path, &bytes);
            }
            done
        });
    }

    /// Does something to a file that the other node recorded and that nobody here has touched.
    fn with_theirs(&mut self, act: impl FnOnce(&Path) -> bool) {
        let dir = self.root.join(format!("2026/{}", self.dice.roll(5)));
        let Ok(entries) = fs::read_dir(dir) else { return };
        let theirs = if self.me == "fs1" { "fs2-" } else { "fs1-" };
        let is_theirs = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            // Once each: what was overwritten here is ours.
            name.starts_with(theirs) && name.ends_with(".wav") && !name.contains(".conflict-")
        };
        let mut all: Vec<_> =
            entries.map(|entry| entry.unwrap().path()).filter(is_theirs).collect();
        all.retain(|path| !self.ours.contains(path));
        all.sort_unstable();
        if !all.is_empty() {
            let path = all.swap_remove(self.dice.roll(all.len()));
            if act(&path) {
                self.ours.push(path);
            }
        }
    }
}

/// Runs users on both nodes while `faults` go on; then both must agree, and nothing be lost.
pub(crate) fn under_load(pair: &mut Pair, faults: impl FnOnce(&mut Pair)) -> Tree {
    let journal = Journal::default();
    let stop = AtomicBool::new(false);
    let users = [Users::new(&pair.a, &journal), Users::new(&pair.b, &journal)];
    thread::scope(|scope| {
        for mut users in users {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    users.act();
                    thread::sleep(Duration::from_millis(6));
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| faults(pair)));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    pair.start();
    let tree = pair.wait_until_consistent_within(LONG);
    journal.check(pair);
    nothing_is_left(pair);
    tree
}

/// Checks the temporary directories: interrupted transfers are kept for a while, under their
/// hashes; nothing else is.
pub(crate) fn nothing_is_left(pair: &Pair) {
    for node in [&pair.a, &pair.b] {
        let entries = fs::read_dir(node.path(".recsync/tmp")).unwrap();
        let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left = names.find(|name| !(name.len() > 64 && name.ends_with(".part")));
        assert_eq!(left, None, "in the temporary directory of {}", node.name);
    }
}
