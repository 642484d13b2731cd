//! Opens what lies beneath a directory, and nothing else.
//!
//! Every path is resolved by `openat2` in one call of the kernel: no symbolic link, magic link,
//! `..` or mount point on the way is followed, whoever changes the tree at the same time. A call
//! that acts on a name opens the name's directory so and passes the kernel that one component.
//! Descriptors of directories are not kept between calls: one that was renamed away would go on
//! working, on a path that is no longer the one asked for.
//!
//! **Invariant:** a descriptor made here lies beneath the root, on the root's mount.
//! **May not:** know what the paths mean.
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags, openat2};
use rustix::io::{Errno, retry_on_intr};

use super::{DirEntry, Kind, TreeError};

/// Room for about a thousand names of recordings; getdents(2) wants at least one.
const LISTING_LEN: usize = 64 * 1024;

/// A directory beneath which paths are resolved.
#[derive(Debug)]
pub(super) struct Beneath(OwnedFd);

impl Beneath {
    /// Takes the directory, opened with `O_PATH` or more.
    pub(super) fn new(dir: OwnedFd) -> Self {
        Beneath(dir)
    }

    /// Returns the directory itself.
    pub(super) fn dir(&self) -> &OwnedFd {
        &self.0
    }

    /// Opens a path; the last component is not followed either (with `O_PATH` a symbolic link
    /// is opened itself).
    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_with(path, flags, Mode::empty())
    }

    /// Creates a file for reading and writing.
    pub(super) fn create(&self, path: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.open_with(path, flags, Mode::from_raw_mode(mode))
    }

    /// Opens a path for reading without leaving a trace in its access time, where that is allowed
    /// (to the owner, open(2)).
    pub(super) fn open_to_read(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | flags;
        match self.open(path, flags | OFlags::NOATIME) {
            Err(Errno::PERM) => self.open(path, flags),
            other => other,
        }
    }

    /// Opens the directory that holds the last component of a path, and returns that component.
    pub(super) fn open_parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), Errno> {
        let (dir, name) = split(path);
        Ok((self.open(dir, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    /// Lists a directory, `.` and `..` left out.
    pub(super) fn list(&self, path: &[u8]) -> Result<Vec<DirEntry>, Errno> {
        let dir = self.open_to_read(path, OFlags::DIRECTORY)?;
        let mut buffer = [MaybeUninit::uninit(); LISTING_LEN];
        let mut listing = RawDir::new(&dir, &mut buffer);
        let mut entries = Vec::new();
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                entries.push(DirEntry { name: name.to_vec(), kind: told(entry.file_type()) });
            }
        }
        Ok(entries)
    }

    fn open_with(&self, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        retry_on_intr(|| openat2(&self.0, path, flags, mode, resolve))
    }
}

/// Splits a path into its directory (`.` if it has none) and its last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b".", path),
    }
}

/// Returns the kind that a mode or a listing tells.
pub(super) fn kind_of(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Special,
    }
}

fn told(file_type: FileType) -> Option<Kind> {
    (file_type != FileType::Unknown).then(|| kind_of(file_type))
}

impl From<Errno> for TreeError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => TreeError::NotFound,
            Errno::EXIST => TreeError::Exists,
            Errno::NOTEMPTY => TreeError::NotEmpty,
            // RESOLVE_NO_SYMLINKS answers ELOOP, unlink(2) of a directory EISDIR.
            Errno::NOTDIR | Errno::LOOP | Errno::ISDIR => TreeError::WrongKind,
            Errno::NOSPC | Errno::DQUOT => TreeError::NoSpace,
            Errno::ROFS => TreeError::ReadOnly,
            Errno::ACCESS | Errno::PERM => TreeError::Denied,
            Errno::NAMETOOLONG | Errno::ILSEQ => TreeError::BadName,
            Errno::XDEV => TreeError::CrossDevice,
            other => TreeError::Io(other.to_string()),
        }
    }
}
