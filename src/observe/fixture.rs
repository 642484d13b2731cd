//! A share in a scratch directory, for tests: the tree under test, and users who act on the same
//! files behind its back.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "users do not go through the tree")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use recsync_proto::{Content, Hash, ShareName, SharePath};

use crate::index::Installed;
use crate::tree::{Disk, Fingerprint, IgnoreRules, Place, Tree as _, create_marker};

/// A share.
pub(crate) struct Share {
    dir: tempfile::TempDir,
    pub(crate) tree: Disk,
}

/// What a name holds, with what a sync keeps of its metadata.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    Dir { mode: u32 },
    File { bytes: Vec<u8>, mode: u32, mtime_ns: i64 },
    Link { target: Vec<u8>, mtime_ns: i64 },
    Special,
}

impl Held {
    /// The kind and the bytes alone.
    pub(crate) fn content(&self) -> Vec<u8> {
        match self {
            Held::Dir { .. } => b"dir".to_vec(),
            Held::File { bytes, .. } => [b"file ", &bytes[..]].concat(),
            Held::Link { target, .. } => [b"link ", &target[..]].concat(),
            Held::Special => b"special".to_vec(),
        }
    }
}

/// What somebody does to a share.
pub(crate) type Act = fn(&Share);

/// Everything below a directory, by path relative to it.
pub(crate) type World = BTreeMap<String, Held>;

impl Share {
    pub(crate) fn new() -> Self {
        let dir = if has_room(MEMORY) { tempfile::tempdir_in(MEMORY) } else { tempfile::tempdir() };
        let dir = dir.unwrap();
        let name = ShareName::new("recordings").unwrap();
        create_marker(dir.path(), &name).unwrap();
        let tree = Disk::open(dir.path(), &name, None).unwrap();
        Share { dir, tree }
    }

    pub(crate) fn with_ignore(self, rules: IgnoreRules) -> Self {
        Share { tree: self.tree.with_ignore(rules), ..self }
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Someone writes a file, in place if it is there, and makes the directories above it.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        self.put_dir(Path::new(path).parent().unwrap().to_str().unwrap());
        fs::write(self.at(path), bytes).unwrap();
    }

    /// Someone saves a file as editors do: another one, renamed over it.
    pub(crate) fn put_anew(&self, path: &str, bytes: &[u8]) {
        let beside = self.at(&format!("{path}.new"));
        fs::write(&beside, bytes).unwrap();
        fs::rename(beside, self.at(path)).unwrap();
    }

    pub(crate) fn put_dir(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    pub(crate) fn put_link(&self, path: &str, target: &str) {
        symlink(target, self.at(path)).unwrap();
    }

    pub(crate) fn put_fifo(&self, path: &str) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, self.at(path), FileType::Fifo, Mode::RWXU, 0).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).unwrap();
    }

    pub(crate) fn remove_dir(&self, path: &str) {
        fs::remove_dir(self.at(path)).unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    pub(crate) fn set_mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn open_for_writing(&self, path: &str) -> fs::File {
        OpenOptions::new().append(true).open(self.at(path)).unwrap()
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.at(path)).unwrap()
    }

    pub(crate) fn stat(&self, path: &str) -> Fingerprint {
        self.tree.stat(&Place::Share(share_path(path))).unwrap()
    }

    /// Returns what the index would hold of a path as it is now.
    pub(crate) fn installed(&self, path: &str) -> Installed {
        let fingerprint = self.stat(path);
        let content = match fs::symlink_metadata(self.at(path)).unwrap() {
            meta if meta.is_dir() => Content::Dir,
            meta if meta.is_symlink() => {
                let target = fs::read_link(self.at(path)).unwrap();
                Content::Symlink { target: target.as_os_str().as_bytes().to_vec() }
            }
            meta => Content::File { size: meta.len(), hash: hash_of(&self.read(path)) },
        };
        let (mtime_ns, mode) = (fingerprint.mtime_ns, fingerprint.mode);
        let owner = self.tree.owner(&fingerprint);
        Installed { content, fingerprint, mtime_ns, mode, owner }
    }

    /// Everything in the share.
    pub(crate) fn world(&self) -> World {
        let mut world = self.below("");
        world.retain(|path, _| path != ".recsync" && !path.starts_with(".recsync/"));
        world
    }

    /// Everything below a directory, `.recsync` too.
    pub(crate) fn below(&self, dir: &str) -> World {
        let mut world = World::new();
        let mut to_enter = vec![self.at(dir)];
        while let Some(next) = to_enter.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.at(dir)).unwrap().to_str().unwrap().to_owned();
                let meta = fs::symlink_metadata(&path).unwrap();
                let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
                let mode = meta.mode() & 0o7777;
                let held = if meta.is_dir() {
                    to_enter.push(path);
                    Held::Dir { mode }
                } else if meta.is_symlink() {
                    let target = fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec();
                    Held::Link { target, mtime_ns }
                } else if meta.is_file() {
                    Held::File { bytes: fs::read(&path).unwrap(), mode, mtime_ns }
                } else {
                    Held::Special
                };
                world.insert(name, held);
            }
        }
        world
    }
}

/// Where shares are made if there is room: hundreds are, each with a few syncs.
const MEMORY: &str = "/dev/shm";

fn has_room(dir: &str) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|room| room.f_bavail * room.f_frsize > 512 << 20)
}

pub(crate) fn share_path(path: &str) -> SharePath {
    if path.is_empty() { SharePath::root() } else { SharePath::new(path).unwrap() }
}

pub(crate) fn hash_of(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

/// The wall clock, nanoseconds since 1970.
pub(crate) fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

/// Bytes that are all different from one seed to the next.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
