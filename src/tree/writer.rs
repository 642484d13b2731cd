//! Asks whether anyone has a file open for writing: the kernel by a lease, else `/proc`.
//!
//! **Invariant:** [`Writer::None`] is said only if the kernel knows of no writer, or every
//! process that could write was looked into; what cannot be known is [`Writer::Unknown`].
//! **May not:** hold a lease: an opener would wait for us.
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FsWord, Mode, NFS_SUPER_MAGIC, OFlags, RawDir, Stat, fstat, fstatfs, openat,
    readlinkat, statat,
};
use rustix::io::Errno;

use super::{TreeError, Writer};
use crate::sys;

/// smb2, linux/magic.h.
const SMB2_SUPER_MAGIC: FsWord = 0xFE53_4D42_u32 as FsWord;
/// cifs, linux/magic.h.
const CIFS_SUPER_MAGIC: FsWord = 0xFF53_4D42_u32 as FsWord;
/// The inode of the first PID namespace, `PROC_PID_INIT_INO` in linux/proc_ns.h.
const FIRST_PID_NAMESPACE: &[u8] = b"pid:[4026531836]";
/// The link of a descriptor in `/proc` has this bit if it is open for writing, proc_pid_fd(5).
const OPEN_FOR_WRITING: u32 = 0o200;

/// What a filesystem knows of the writers to its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leases {
    /// The kernel gives leases and sees every writer.
    Kernel,
    /// Writers may sit on other machines, and a lease is refused for reasons of the protocol: NFS
    /// and SMB answer `EAGAIN`, as if there were a writer, while the server grants none.
    Remote,
}

/// Tells what to expect of the filesystem that holds `dir`.
pub(super) fn leases_of(dir: &OwnedFd) -> Result<Leases, Errno> {
    Ok(match fstatfs(dir)?.f_type {
        NFS_SUPER_MAGIC | SMB2_SUPER_MAGIC | CIFS_SUPER_MAGIC => Leases::Remote,
        _ => Leases::Kernel,
    })
}

/// Asks about a file that is open read-only.
pub(super) fn probe(file: &OwnedFd, leases: Leases) -> Result<Writer, TreeError> {
    let answer = match leases {
        Leases::Kernel => sys::probe_read_lease(file.as_fd()),
        Leases::Remote => Err(Errno::INVAL),
    };
    match answer {
        Ok(()) => Ok(Writer::None),
        Err(Errno::AGAIN) => Ok(Writer::Some),
        // Not our file, and no CAP_LEASE: whoever writes to it is a process of this machine.
        Err(Errno::ACCESS | Errno::PERM) => Ok(look_through_proc(&fstat(file)?)),
        // No leases here: a network or FUSE filesystem, whose writers may be elsewhere.
        Err(Errno::INVAL | Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => {
            Ok(match look_through_proc(&fstat(file)?) {
                Writer::Some => Writer::Some,
                Writer::None | Writer::Unknown => Writer::Unknown,
            })
        }
        Err(other) => Err(other.into()),
    }
}

/// Looks for a process that has this file open for writing, or maps it from such a descriptor.
///
/// Not one instant's picture: a descriptor that is handed to another process while this runs may be
/// missed. `Unknown` if there may be processes that are not seen: from within a PID namespace, or without
/// the right to look into every process (`CAP_SYS_PTRACE`; `CAP_CHECKPOINT_RESTORE` for mappings).
fn look_through_proc(wanted: &Stat) -> Writer {
    let found = first_namespace().and_then(|()| {
        let proc = open_dir(CWD, b"/proc")?;
        // The first process belongs to root and may be looked into only by who may look into all:
        // asked first, so that the answer "not permitted" is cheap, and not missed where /proc
        // hides other users' processes (hidepid).
        list(&open_dir(&proc, b"1/map_files")?)?;
        for pid in list(&proc)?.iter().filter(|name| name.iter().all(u8::is_ascii_digit)) {
            for links in [&b"/fd"[..], b"/map_files"] {
                match writes_through(&proc, &[pid, links].concat(), wanted) {
                    Ok(true) => return Ok(true),
                    // The process has ended, which closed its files.
                    Ok(false) | Err(Errno::NOENT | Errno::SRCH) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        Ok(false)
    });
    match found {
        Ok(true) => Writer::Some,
        Ok(false) => Writer::None,
        Err(_) => Writer::Unknown,
    }
}

fn first_namespace() -> Result<(), Errno> {
    let namespace = readlinkat(CWD, "/proc/self/ns/pid", Vec::new())?;
    if namespace.as_bytes() == FIRST_PID_NAMESPACE { Ok(()) } else { Err(Errno::PERM) }
}

/// True if one of the links in a directory of `/proc` leads to the file and is open for writing.
fn writes_through(proc: &OwnedFd, links: &[u8], wanted: &Stat) -> Result<bool, Errno> {
    let links = open_dir(proc, links)?;
    for name in list(&links)? {
        match leads_to(&links, &name, wanted) {
            Ok(true) => return Ok(true),
            // Closed while we looked: it no longer writes.
            Ok(false) | Err(Errno::NOENT | Errno::SRCH) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

fn leads_to(links: &OwnedFd, name: &[u8], wanted: &Stat) -> Result<bool, Errno> {
    if statat(links, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode & OPEN_FOR_WRITING == 0 {
        return Ok(false);
    }
    let object = statat(links, name, AtFlags::empty())?;
    Ok((object.st_dev, object.st_ino) == (wanted.st_dev, wanted.st_ino))
}

fn open_dir(at: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn list(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut listing = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = listing.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if !name.starts_with(b".") {
            names.push(name);
        }
    }
    Ok(names)
}
