//! What lies in a directory, read without any help of the program under test.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// BLAKE3 of some bytes.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// Returns `len` bytes that no other call returns.
pub(crate) fn unique(len: usize) -> Vec<u8> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&CALLS.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// One object, by all that nodes must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    File {
        mode: u32,
        mtime_ns: i128,
        size: u64,
        hash: [u8; 32],
    },
    Dir {
        mode: u32,
    },
    Symlink {
        target: Vec<u8>,
        mtime_ns: i128,
    },
    /// FIFO, socket, device.
    Special,
}

/// All that lies in a share, without its `.recsync`.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Tree(pub(crate) BTreeMap<Vec<u8>, Object>);

impl Tree {
    /// Reads everything, the bytes too. Something that vanishes meanwhile is left out.
    pub(crate) fn read(root: &Path) -> Tree {
        Tree::walk(root, true)
    }

    /// Reads everything but the bytes: hashes are zero.
    pub(crate) fn glance(root: &Path) -> Tree {
        Tree::walk(root, false)
    }

    fn walk(root: &Path, with_bytes: bool) -> Tree {
        let mut tree = Tree::default();
        let mut to_enter = vec![Vec::new()];
        while let Some(dir) = to_enter.pop() {
            let entries = match fs::read_dir(join(root, &dir)) {
                Ok(entries) => entries,
                // Gone, or something else by now.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
                {
                    continue;
                }
                Err(error) => panic!("{}: {error}", join(root, &dir).display()),
            };
            for entry in entries {
                let name = entry.unwrap().file_name().into_vec();
                if dir.is_empty() && name == b".recsync" {
                    continue;
                }
                let path = if dir.is_empty() { name } else { [&dir, &b"/"[..], &name].concat() };
                let Some(object) = look(&join(root, &path), with_bytes) else { continue };
                if matches!(object, Object::Dir { .. }) {
                    to_enter.push(path.clone());
                }
                tree.0.insert(path, object);
            }
        }
        tree
    }

    /// Returns the same without what can not be synced.
    pub(crate) fn without_special(mut self) -> Tree {
        self.0.retain(|_, object| *object != Object::Special);
        self
    }

    /// Returns the paths, for people.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    pub(crate) fn get(&self, path: impl AsRef<[u8]>) -> Option<&Object> {
        self.0.get(path.as_ref())
    }

    /// Returns the hashes of all files.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = [u8; 32]> {
        self.0.values().filter_map(|object| match object {
            Object::File { hash, .. } => Some(*hash),
            _ => None,
        })
    }

    /// Returns how this one and another differ, a line each; empty if they do not.
    pub(crate) fn difference(&self, other: &Tree) -> String {
        let mut out = String::new();
        let paths: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differing = paths.into_iter().filter(|path| self.0.get(*path) != other.0.get(*path));
        for (count, path) in differing.enumerate() {
            if count == 20 {
                out.push_str("\n  …");
                break;
            }
            let (here, there) = (self.0.get(path), other.0.get(path));
            let name = String::from_utf8_lossy(path);
            write!(out, "\n  {name:.200}: {} | {}", Shown(here), Shown(there)).unwrap();
        }
        out
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, object) in &self.0 {
            writeln!(f, "{}: {}", String::from_utf8_lossy(path), Shown(Some(object)))?;
        }
        Ok(())
    }
}

struct Shown<'a>(Option<&'a Object>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("nothing"),
            Some(Object::File { mode, mtime_ns, size, hash }) => {
                let [a, b, ..] = hash;
                write!(f, "file {mode:o} {size} bytes #{a:02x}{b:02x} at {mtime_ns}")
            }
            Some(Object::Dir { mode }) => write!(f, "directory {mode:o}"),
            Some(Object::Symlink { target, mtime_ns }) => {
                write!(f, "-> {} at {mtime_ns}", String::from_utf8_lossy(target))
            }
            Some(Object::Special) => f.write_str("special"),
        }
    }
}

fn join(root: &Path, path: &[u8]) -> std::path::PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path))
}

/// None for what is not there any more.
fn look(path: &Path, with_bytes: bool) -> Option<Object> {
    let stat = fs::symlink_metadata(path).ok()?;
    let mtime_ns = i128::from(stat.mtime()) * 1_000_000_000 + i128::from(stat.mtime_nsec());
    let mode = stat.mode() & 0o7777;
    let kind = stat.file_type();
    Some(if kind.is_dir() {
        Object::Dir { mode }
    } else if kind.is_symlink() {
        Object::Symlink { target: fs::read_link(path).ok()?.into_os_string().into_vec(), mtime_ns }
    } else if kind.is_fifo() || kind.is_socket() || !kind.is_file() {
        Object::Special
    } else {
        let hash = if with_bytes { hash(&fs::read(path).ok()?) } else { [0; 32] };
        Object::File { mode, mtime_ns, size: stat.size(), hash }
    })
}
