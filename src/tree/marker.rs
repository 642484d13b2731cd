//! The root marker, `.recsync/share.toml`: it tells this root from an unmounted disk, an emptied
//! directory and every other root.
//!
//! **Invariant:** a marker is never overwritten; it is whole or absent, whenever the power fails.
//! **May not:** remember which marker is expected: the index does.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;

use recsync_proto::ShareName;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, fchown, fstat, fsync, mkdirat, openat, renameat,
    renameat_with, unlinkat,
};
use rustix::io::Errno;
use serde::Deserialize;
use thiserror::Error;

use super::beneath::Beneath;
use super::{RootError, TreeError};

/// recsync's own directory in the root.
pub(super) const PRIVATE: &[u8] = recsync_proto::path::RESERVED;
const MARKER: &[u8] = b".recsync/share.toml";
const WITNESS: &[u8] = b".recsync/witness";
/// A marker is some 70 bytes; room for keys of later versions.
const MARKER_LEN_MAX: u64 = 4096;

/// The random identity of one root directory: 128 bits, shown as 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId(u128);

impl RootId {
    fn random() -> Self {
        let half = || u128::from(crate::sys::random_u64());
        RootId(half() << 64 | half())
    }
}

impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why text is not a root's id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a root's id: 32 lower-case hex digits")]
pub struct RootIdError(pub String);

impl FromStr for RootId {
    type Err = RootIdError;

    fn from_str(text: &str) -> Result<Self, RootIdError> {
        let digits =
            text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(text, 16) {
            Ok(id) if digits => Ok(RootId(id)),
            _ => Err(RootIdError(text.to_owned())),
        }
    }
}

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The share to which this root belongs.
    pub share: ShareName,
    /// Which root it is.
    pub id: RootId,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "share `{}`, root {}", self.share, self.id)
    }
}

/// The file as written. Keys that later versions may add are left alone.
#[derive(Deserialize)]
struct Written {
    share: String,
    id: String,
}

/// Why no marker was made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MarkerError {
    /// The directory is not there, or the kernel is too old.
    #[error(transparent)]
    Root(#[from] RootError),
    /// There is one already; it is never overwritten.
    #[error("{path} has a marker already, .recsync/share.toml: {found}")]
    Exists {
        /// The root, as given.
        path: String,
        /// What it says.
        found: String,
    },
    /// It could not be written.
    #[error("{path}: cannot make the marker .recsync/share.toml: {why}")]
    Failed {
        /// The root, as given.
        path: String,
        /// The kernel's words.
        why: TreeError,
    },
}

/// Makes the marker of a root, with a new random id, durably.
///
/// `.recsync` is made too (0700). Where root makes them, they go to the owner of the directory,
/// as whom the daemon runs.
///
/// # Errors
/// If the directory cannot be opened, has a marker, or cannot be written.
pub fn create_marker(root: &Path, share: &ShareName) -> Result<RootId, MarkerError> {
    let beneath = open_root(root)?;
    let marker = Marker { share: share.clone(), id: RootId::random() };
    write_marker(&beneath, &marker).map_err(|errno| match errno {
        Errno::EXIST => MarkerError::Exists {
            path: root.display().to_string(),
            found: match read(&beneath, root) {
                Ok(found) => found.to_string(),
                Err(error) => error.to_string(),
            },
        },
        other => MarkerError::Failed { path: root.display().to_string(), why: other.into() },
    })?;
    Ok(marker.id)
}

/// Makes a root this share's, whatever it was: keeps a marker of this share, moves one of another
/// share aside (`.recsync/share.toml.of-NAME`), and makes one where there is none.
///
/// # Errors
/// As [`create_marker`]; and if the marker that is there cannot be read or moved.
pub fn take_root(root: &Path, share: &ShareName) -> Result<(), MarkerError> {
    match read_marker(root) {
        Ok(found) if found.share == *share => return Ok(()),
        Ok(found) => {
            let aside = format!("share.toml.of-{}", found.share);
            let failed = |errno: Errno| MarkerError::Failed {
                path: root.display().to_string(),
                why: errno.into(),
            };
            let beneath = open_root(root)?;
            let private =
                beneath.open(PRIVATE, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
            renameat(&private, "share.toml", &private, &*aside).map_err(failed)?;
        }
        Err(RootError::NoMarker { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    create_marker(root, share).map(drop)
}

/// Reads the marker of a root.
///
/// # Errors
/// If the directory cannot be opened, has no marker, or one that makes no sense.
pub fn read_marker(root: &Path) -> Result<Marker, RootError> {
    read(&open_root(root)?, root)
}

/// Opens a root as configured: the one path that is resolved in the ordinary way, symbolic links
/// and all.
pub(super) fn open_root(path: &Path) -> Result<Beneath, RootError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, path, flags, Mode::empty()).map_err(|errno| RootError::NoRoot {
        path: path.display().to_string(),
        why: errno.to_string(),
    })?;
    let beneath = Beneath::new(root);
    match beneath.open(b".", OFlags::PATH) {
        // Container runtimes answer EPERM for system calls that they do not know.
        Err(errno @ (Errno::NOSYS | Errno::PERM)) => Err(RootError::Unsupported {
            path: path.display().to_string(),
            why: format!("the system call openat2 (Linux 5.6 and later) is not available: {errno}"),
        }),
        _ => Ok(beneath),
    }
}

/// Reads the marker beneath an open root; `path` is for messages.
pub(super) fn read(beneath: &Beneath, path: &Path) -> Result<Marker, RootError> {
    let no_root = |why: String| RootError::NoRoot {
        path: path.display().to_string(),
        why: format!("its marker .recsync/share.toml cannot be read: {why}"),
    };
    let file = match beneath.open(MARKER, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => {
            return Err(RootError::NoMarker { path: path.display().to_string() });
        }
        Err(errno) => return Err(no_root(errno.to_string())),
    };
    let mut text = String::new();
    file.take(MARKER_LEN_MAX)
        .read_to_string(&mut text)
        .map_err(|error| no_root(error.to_string()))?;
    parse(&text).map_err(no_root)
}

fn parse(text: &str) -> Result<Marker, String> {
    let written: Written = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    Ok(Marker {
        share: ShareName::new(written.share).map_err(|error| error.to_string())?,
        id: written.id.parse().map_err(|error: RootIdError| error.to_string())?,
    })
}

fn write_marker(beneath: &Beneath, marker: &Marker) -> Result<(), Errno> {
    let owner = fstat(beneath.dir())?;
    let give = |made: &OwnedFd| {
        if rustix::process::geteuid().is_root() {
            let uid = rustix::process::Uid::from_raw(owner.st_uid);
            let gid = rustix::process::Gid::from_raw(owner.st_gid);
            return fchown(made, Some(uid), Some(gid));
        }
        Ok(())
    };
    let made = mkdirat(beneath.dir(), PRIVATE, Mode::RWXU);
    if let Err(errno) = made
        && errno != Errno::EXIST
    {
        return Err(errno);
    }
    let private = beneath.open(PRIVATE, OFlags::RDONLY | OFlags::DIRECTORY)?;
    if made.is_ok() {
        give(&private)?;
    }

    let text = format!("share = \"{}\"\nid = \"{}\"\n", marker.share, marker.id);
    write_whole(beneath, "share.toml", &text, RenameFlags::NOREPLACE, give)?;
    fsync(beneath.open(b".", OFlags::RDONLY | OFlags::DIRECTORY)?)
}

/// Writes a file of recsync's own, durably, under another name first: so that no crash leaves half
/// of it. `give` has the last word on the file before it gets its name.
fn write_whole(
    beneath: &Beneath,
    name: &str,
    text: &str,
    flags: RenameFlags,
    give: impl Fn(&OwnedFd) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let private = beneath.open(PRIVATE, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let draft = format!("{name}.{:016x}", crate::sys::random_u64());
    let file = beneath.create(&[PRIVATE, b"/", draft.as_bytes()].concat(), 0o644)?;
    let placed = give(&file)
        .and_then(|()| {
            File::from(file.try_clone().map_err(|error| errno_of(&error))?)
                .write_all(text.as_bytes())
                .map_err(|error| errno_of(&error))
        })
        .and_then(|()| fsync(&file))
        .and_then(|()| renameat_with(&private, &*draft, &private, name, flags));
    if let Err(errno) = placed {
        // It is of no use to anyone, and what stopped us matters more than whether it goes.
        let _kept = unlinkat(&private, &*draft, AtFlags::empty());
        return Err(errno);
    }
    fsync(&private)
}

/// Reads the number that [`write_witness`] left; none if there is none, or none that makes sense.
pub(super) fn read_witness(beneath: &Beneath) -> Result<Option<u64>, Errno> {
    let file = match beneath.open(WITNESS, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let mut text = Vec::new();
    file.take(MARKER_LEN_MAX).read_to_end(&mut text).map_err(|error| errno_of(&error))?;
    let number = str::from_utf8(&text).ok().map(str::trim);
    Ok(number.and_then(|number| u64::from_str_radix(number, 16).ok()))
}

/// Leaves a number in the root, durably, in place of the one before.
pub(super) fn write_witness(beneath: &Beneath, number: u64) -> Result<(), Errno> {
    let text = format!("{number:016x}\n");
    write_whole(beneath, "witness", &text, RenameFlags::empty(), |_| Ok(()))
}

fn errno_of(error: &std::io::Error) -> Errno {
    // write_all has one error of its own: that nothing was written.
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
