//! The only door to a share's files: every path is resolved beneath the share's root, no symlink
//! is followed, and nothing else in the program takes a path string to the kernel for a share.
//!
//! [`Tree`] is what `observe`, `apply` and `transfer` are written over; [`Disk`] is the real one,
//! the simulator has its own. Both pass the same suite (`suite`; other crates get it with the
//! feature of that name).
//!
//! **Invariant:** no call reaches outside the root, through a symbolic link or a magic link.
//! **May not:** decide anything; it does what it is told or says why not.
#![forbid(unsafe_code)]

mod beneath;
mod disk;
mod ignore;
mod marker;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
#[cfg(test)]
mod tests;
mod writer;

use recsync_proto::{Owner, SharePath};
use thiserror::Error;

pub use disk::{Disk, Open};
pub use ignore::{IgnoreRules, temporary_of};
pub use marker::{Marker, MarkerError, RootId, RootIdError, create_marker, read_marker, take_root};

/// Why the tree did not do it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TreeError {
    /// No such name, under a readable parent: the only evidence of absence there is.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken (NOREPLACE, `mkdir`).
    #[error("the name is taken")]
    Exists,
    /// A directory is not empty.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A component is no directory, is a symbolic link, or the object has another kind.
    #[error("a part of the path is not of the expected kind")]
    WrongKind,
    /// No space or quota left.
    #[error("no space left")]
    NoSpace,
    /// The filesystem is read-only.
    #[error("the filesystem is read-only")]
    ReadOnly,
    /// Permission denied.
    #[error("permission denied")]
    Denied,
    /// The name is too long or holds bytes that this filesystem refuses.
    #[error("the filesystem refuses the name")]
    BadName,
    /// The path crosses into another filesystem.
    #[error("the path lies on another filesystem")]
    CrossDevice,
    /// Anything else, with the kernel's words.
    #[error("{0}")]
    Io(String),
}

/// What kind of object a name holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Anything else: socket, FIFO, device. Never synced.
    Special,
}

/// The state of an object, as `lstat` and `fstat` tell it: enough to notice any ordinary change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// The kind.
    pub kind: Kind,
    /// Identifies the filesystem across reboots as far as possible (`statfs` fsid), not `st_dev`.
    pub fs: u64,
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub nlink: u32,
}

impl Fingerprint {
    /// True if the two are the same object with the same bytes as far as a stat can tell: all
    /// but ctime, mode, owner and link count, which change without the bytes.
    pub fn same_bytes(&self, other: &Fingerprint) -> bool {
        (self.kind, self.fs, self.ino, self.size, self.mtime_ns)
            == (other.kind, other.fs, other.ino, other.size, other.mtime_ns)
    }

    /// True if the two are the same inode, whatever became of it.
    pub fn same_inode(&self, other: &Fingerprint) -> bool {
        (self.fs, self.ino) == (other.fs, other.ino)
    }

    /// True if the two have the same owner and group.
    pub fn same_owner(&self, other: &Fingerprint) -> bool {
        (self.uid, self.gid) == (other.uid, other.gid)
    }
}

/// Where an object is: under its name in the share, or in recsync's own directory.
///
/// Three directories stand at the top and have no name of their own to act on (`Denied`); they can
/// be listed, looked at and synced: the share's root, `Share(SharePath::root())`; `.recsync/tmp`,
/// `Temp("")`; and `.recsync/trash`, `Trash { day: "", path: root }`. A day's directory is
/// `Trash { day, path: root }`. A `Temp` or a day that is no path component is `BadName`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A path of the share (the root too, where a directory is meant).
    Share(SharePath),
    /// `.recsync/tmp/NAME`; one path component, or none for the directory itself.
    Temp(String),
    /// `.recsync/trash/DAY/PATH~ID`; see [`trash_place`].
    Trash {
        /// UTC day of the removal, `YYYY-MM-DD`; none for the directory of all days.
        day: String,
        /// Path of the object below the day's directory.
        path: SharePath,
    },
}

impl Place {
    /// Returns the directory that holds this place; none for the three at the top.
    ///
    /// After a rename into the trash, [`Tree::sync_dir`] of the parent, its parent, and so on to the
    /// top makes durable the name and the directories that were made for it.
    pub fn parent(&self) -> Option<Place> {
        match self {
            Place::Share(path) if path.is_root() => None,
            Place::Share(path) => Some(Place::Share(path.parent())),
            Place::Temp(name) if name.is_empty() => None,
            Place::Temp(_) => Some(Place::Temp(String::new())),
            Place::Trash { day, .. } if day.is_empty() => None,
            Place::Trash { path, .. } if path.is_root() => {
                Some(Place::Trash { day: String::new(), path: SharePath::root() })
            }
            Place::Trash { day, path } => {
                Some(Place::Trash { day: day.clone(), path: path.parent() })
            }
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Share(path) => path.fmt(f),
            Place::Temp(name) => write!(f, ".recsync/tmp/{name}"),
            Place::Trash { day, path } => write!(f, ".recsync/trash/{day}/{path}"),
        }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name's bytes.
    pub name: Vec<u8>,
    /// The kind that the directory tells, if it does.
    pub kind: Option<Kind>,
}

/// Whether anyone has a file open for writing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// No one has.
    None,
    /// Someone has, or maps it writable.
    Some,
    /// The kernel does not say here (not our file and no CAP_LEASE; no leases on this
    /// filesystem): a weaker gate must do.
    Unknown,
}

/// Why an object's owner or group is not the one that was to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerLeft {
    /// The process may not give files away (no `CAP_CHOWN`, another user's group).
    NotAllowed,
    /// There is no account or group of that name here.
    NoAccount,
}

impl std::fmt::Display for OwnerLeft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            OwnerLeft::NotAllowed => {
                "recsync may not give files away here; run it with CAP_CHOWN, or as their owner"
            }
            OwnerLeft::NoAccount => "there is no such account here; make it",
        })
    }
}

/// The files of one share.
///
/// Every method is one step towards the disk (at most a few system calls), so that the simulator
/// can let a user act, fail a call or stop the node between any two.
pub trait Tree: Send + Sync {
    /// An open file or directory object, independent of its name from then on.
    type File: Send;

    /// Tells whether the share may be touched: the root is still the directory that was opened,
    /// and its marker is in place with the expected name and id.
    fn check_root(&self) -> Result<(), RootError>;

    /// Returns the rule by which a name is to be left alone, if there is one.
    fn ignored_by(&self, _path: &SharePath, _is_dir: bool) -> Option<String> {
        None
    }

    /// Looks at a name without following it. `NotFound` only if the parent could be searched.
    fn stat(&self, place: &Place) -> Result<Fingerprint, TreeError>;
    /// Looks at each of some paths as [`Tree::stat`] does; costs least where those of a directory
    /// follow each other.
    fn stat_all(&self, paths: &[SharePath]) -> Vec<Result<Fingerprint, TreeError>> {
        paths.iter().map(|path| self.stat(&Place::Share(path.clone()))).collect()
    }
    /// True if two changes of an object never leave the same ctime when it was looked at in between,
    /// however close they are (multigrain timestamps, Linux 6.13).
    fn has_exact_times(&self) -> bool {
        false
    }
    /// Lists a directory, `.recsync` left out at the share's root, in no order.
    fn list(&self, dir: &Place) -> Result<Vec<DirEntry>, TreeError>;
    /// Returns a symbolic link's target.
    fn read_link(&self, place: &Place) -> Result<Vec<u8>, TreeError>;

    /// Opens a regular file for reading, without waiting for a FIFO's writer or a lease.
    fn open(&self, place: &Place) -> Result<Self::File, TreeError>;
    /// Looks at an open file.
    fn stat_file(&self, file: &Self::File) -> Result<Fingerprint, TreeError>;
    /// Asks the kernel whether anyone writes to a file from [`Tree::open`] (one that is open for
    /// writing here has a writer: us); never waits, holds nothing afterwards.
    fn writer(&self, file: &Self::File) -> Result<Writer, TreeError>;
    /// Reads up to `buffer.len()` bytes at an offset; 0 only at the end.
    fn read_at(
        &self,
        file: &Self::File,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, TreeError>;
    /// Makes a file's bytes and size durable (`fdatasync`).
    fn sync_data(&self, file: &Self::File) -> Result<(), TreeError>;

    /// Creates `.recsync/tmp/NAME` for reading and writing, mode 0600; `Exists` if it is there.
    fn create_temp(&self, name: &str) -> Result<Self::File, TreeError>;
    /// Opens an existing `.recsync/tmp/NAME` for reading and writing.
    fn open_temp(&self, name: &str) -> Result<Self::File, TreeError>;
    /// Writes all bytes at an offset.
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> Result<(), TreeError>;
    /// Copies bytes between files, at the same offset in both, within the kernel (reflink,
    /// `copy_file_range`) or by hand. Returns the number of bytes copied, less than `len` only at
    /// the source's end.
    fn copy_range(
        &self,
        from: &Self::File,
        to: &Self::File,
        offset: u64,
        len: u64,
    ) -> Result<u64, TreeError>;
    /// Cuts a file or fills it with a hole up to a length.
    fn set_len(&self, file: &Self::File, len: u64) -> Result<(), TreeError>;
    /// Starts writing a file's dirty pages, so that a later sync of many waits once.
    fn start_sync(&self, file: &Self::File);
    /// Makes everything of a file durable (`fsync`).
    fn sync(&self, file: &Self::File) -> Result<(), TreeError>;
    /// Sets an open file's mode.
    fn set_mode(&self, file: &Self::File, mode: u32) -> Result<(), TreeError>;
    /// Returns the names of an object's owner and group; none if they are not to be had now.
    fn owner(&self, stat: &Fingerprint) -> Option<Owner>;
    /// Sets an open file's owner and group as far as it may: what it may not set is left, and
    /// told. The kernel drops the set-id bits of a file: the mode is to be set after this.
    fn set_owner(&self, file: &Self::File, owner: &Owner) -> Result<Option<OwnerLeft>, TreeError>;
    /// Sets owner and group of a name that may be a symbolic link, without following it.
    fn set_owner_of(&self, place: &Place, owner: &Owner) -> Result<Option<OwnerLeft>, TreeError>;
    /// Sets an open file's modification time.
    fn set_mtime(&self, file: &Self::File, mtime_ns: i64) -> Result<(), TreeError>;
    /// Opens a file or directory of the share so that its mode and mtime can be set.
    fn open_for_metadata(&self, place: &Place) -> Result<Self::File, TreeError>;
    /// Sets the modification time of a name that may be a symbolic link, without following it.
    fn set_mtime_of(&self, place: &Place, mtime_ns: i64) -> Result<(), TreeError>;

    /// Makes a directory; the parent must exist. Mode as given, whatever the umask.
    fn make_dir(&self, place: &Place, mode: u32) -> Result<(), TreeError>;
    /// Makes a symbolic link.
    fn make_link(&self, place: &Place, target: &[u8]) -> Result<(), TreeError>;
    /// Moves an object to a free name (`RENAME_NOREPLACE`): `Exists` if it is taken. Directories
    /// above a place in the trash are made as needed (0700).
    fn rename(&self, from: &Place, to: &Place) -> Result<(), TreeError>;
    /// Exchanges two objects in one instant (`RENAME_EXCHANGE`).
    fn exchange(&self, one: &Place, other: &Place) -> Result<(), TreeError>;
    /// Removes an empty directory.
    fn remove_dir(&self, place: &Place) -> Result<(), TreeError>;
    /// Removes a file or link from recsync's own directory; a place in the share is `Denied`.
    fn remove_private(&self, place: &Place) -> Result<(), TreeError>;
    /// Makes the names of a directory durable; `place` names the directory itself.
    fn sync_dir(&self, dir: &Place) -> Result<(), TreeError>;
    /// Lists `.recsync/tmp`.
    fn list_temp(&self) -> Result<Vec<String>, TreeError>;
    /// Returns free and total bytes of the filesystem, as an unprivileged writer sees them.
    fn space(&self) -> Result<Space, TreeError>;
}

/// Room on a filesystem, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Available to an unprivileged writer.
    pub available: u64,
    /// In all.
    pub total: u64,
}

/// Why a share may not be touched now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootError {
    /// The root directory is not there or cannot be opened.
    #[error("the share's directory {path} cannot be opened: {why}")]
    NoRoot {
        /// As configured.
        path: String,
        /// The kernel's words.
        why: String,
    },
    /// No `.recsync/share.toml`: not mounted, emptied, or never made.
    #[error("{path} has no marker .recsync/share.toml: is the disk mounted?")]
    NoMarker {
        /// As configured.
        path: String,
    },
    /// The marker names another share or another root than the index knows.
    #[error("{path} is another disk: its marker says {found}, the index expects {expected}")]
    OtherRoot {
        /// As configured.
        path: String,
        /// Share and id found.
        found: String,
        /// Share and id expected.
        expected: String,
    },
    /// The kernel refused kernel features that are needed (openat2, Linux 5.6).
    #[error("{path}: {why}")]
    Unsupported {
        /// As configured.
        path: String,
        /// What is missing.
        why: String,
    },
}

/// Returns where an object that is removed from `path` on `day` goes: the same path below the
/// day's directory, its name followed by `~` and the operation's number in hex (cut to fit).
pub fn trash_place(day: &str, path: &SharePath, id: u64) -> Place {
    let (dir, name) = path.split();
    let suffix = format!("~{id:x}");
    let kept = name.len().min(recsync_proto::path::COMPONENT_LEN_MAX - suffix.len());
    let mut bytes = Vec::with_capacity(path.as_bytes().len() + suffix.len() + 1);
    if !dir.is_empty() {
        bytes.extend_from_slice(dir);
        bytes.push(b'/');
    }
    bytes.extend_from_slice(&name[..kept]);
    bytes.extend_from_slice(suffix.as_bytes());
    // A path at the very limit has no room for the suffix: it loses its directories.
    let path = SharePath::new(bytes).unwrap_or_else(|_| {
        SharePath::new([&name[..kept], suffix.as_bytes()].concat()).expect("one legal component")
    });
    Place::Trash { day: day.to_owned(), path }
}
