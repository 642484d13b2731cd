//! The real tree: a share's root on a Linux filesystem.
//!
//! **Invariant:** whatever is opened or changed lies beneath the root that was opened at the start
//! (see [`beneath`](super::beneath)), and is of the kind that the call is about.
//! **May not:** retry, or remember anything about paths between two calls.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use recsync_proto::{Owner, ShareName, SharePath};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Statx, StatxAttributes, StatxFlags,
    StatxTimestamp, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, copy_file_range, fchmod,
    fchown, fdatasync, fstat, fstatvfs, fsync, ftruncate, futimens, mkdirat, readlinkat,
    renameat_with, statx, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use rustix::thread::CapabilitySet;

use super::beneath::{Beneath, kind_of, split};
use super::marker::{self, Marker, PRIVATE, RootId};
use super::writer::{self, Leases};
use super::{
    DirEntry, Fingerprint, IgnoreRules, OwnerLeft, Place, RootError, Space, Tree, TreeError, Writer,
};
use crate::sys::{self, Accounts};

const TEMP: &[u8] = b".recsync/tmp";
const TRASH: &[u8] = b".recsync/trash";
const HERE: &[u8] = b".";
const PERMISSIONS: u32 = 0o7777;
const COPY_BUFFER_LEN: usize = 128 * 1024;
/// One call of copy_file_range(2) should not keep a stop of the daemon waiting.
const COPY_STEP_MAX: u64 = 64 * 1024 * 1024;
const NS_PER_S: i64 = 1_000_000_000;

/// A share's root on this machine's disk.
#[derive(Debug)]
pub struct Disk {
    beneath: Beneath,
    /// As configured, to see whether it still leads to the same directory.
    path: PathBuf,
    /// Device and inode of the root.
    root: (u64, u64),
    marker: Marker,
    /// See [`Fingerprint::fs`].
    fs: u64,
    leases: Leases,
    accounts: Accounts,
    ignore: IgnoreRules,
    exact_times: bool,
}

/// An open file or directory of a [`Disk`].
#[derive(Debug)]
pub struct Open(OwnedFd);

impl Disk {
    /// Opens the root of a share; a symbolic link at `root` is resolved now, once.
    ///
    /// `expected` is the id that the index knows; none accepts the one that is found. Makes
    /// `.recsync/tmp` and `.recsync/trash` (0700) if it can; what it cannot make is missed, with
    /// the reason, when it is first needed.
    ///
    /// # Errors
    /// If the directory is not there, its marker is missing or another than expected, or the kernel or
    /// the filesystem lacks what recsync needs (openat2, `RENAME_EXCHANGE`, `RENAME_NOREPLACE`).
    pub fn open(
        root: &Path,
        share: &ShareName,
        expected: Option<RootId>,
    ) -> Result<Disk, RootError> {
        let beneath = marker::open_root(root)?;
        let found = marker::read(&beneath, root)?;
        let id = expected.unwrap_or(found.id);
        let marker = Marker { share: share.clone(), id };
        expect_marker(root, &marker, &found)?;
        let (stat, fs, leases) = describe(&beneath).map_err(|errno| no_root(root, errno))?;
        let mut disk = Disk {
            exact_times: false,
            root: (stat.st_dev, stat.st_ino),
            path: root.to_owned(),
            beneath,
            marker,
            fs,
            leases,
            accounts: Accounts::default(),
            ignore: IgnoreRules::default(),
        };
        // A full or read-only disk can still be read, and says no again when it is written to.
        let _not_made = disk.make_private();
        disk.exact_times = disk.try_times().unwrap_or(false);
        match disk.try_renames() {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(RootError::Unsupported {
                path: root.display().to_string(),
                why: "the filesystem cannot exchange two names (RENAME_EXCHANGE, as ext4, XFS, \
                      Btrfs and tmpfs can)"
                    .to_owned(),
            }),
            _ => Ok(disk),
        }
    }

    /// Has names left alone by these rules.
    #[must_use]
    pub fn with_ignore(self, ignore: IgnoreRules) -> Disk {
        Disk { ignore, ..self }
    }

    /// Returns the id of this root, as its marker says.
    pub fn root_id(&self) -> RootId {
        self.marker.id
    }

    /// Returns the number that was last left in this root; none if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn witness(&self) -> Result<Option<u64>, TreeError> {
        marker::read_witness(&self.beneath).map_err(TreeError::from)
    }

    /// Leaves a number in this root, durably: by it an index and a disk of two different times are
    /// told apart.
    ///
    /// # Errors
    /// If it cannot be written; then the one before is still there.
    pub fn set_witness(&self, number: u64) -> Result<(), TreeError> {
        marker::write_witness(&self.beneath, number).map_err(TreeError::from)
    }

    /// Tells why the kernel may not say here whether a file is being written, if that is so; the
    /// gate that keeps half a recording from being shipped is weaker then.
    pub fn weak_probe(&self) -> Option<&'static str> {
        let owner = fstat(self.beneath.dir()).ok()?.st_uid;
        let ours = owner == rustix::process::geteuid().as_raw();
        let may = rustix::thread::capabilities(None)
            .is_ok_and(|held| held.effective.contains(CapabilitySet::LEASE));
        if ours || may {
            return None;
        }
        Some(
            "its files belong to another user and recsync has no CAP_LEASE, so the kernel does \
             not tell who writes them: files are shipped some time after their last change \
             instead; run recsync as their owner, or with AmbientCapabilities=CAP_LEASE",
        )
    }

    /// Makes recsync's directories, durably. Never `.recsync` itself: where that is missing, the
    /// root is not ours to touch.
    fn make_private(&self) -> Result<(), Errno> {
        let private = self.beneath.open(PRIVATE, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut made = false;
        for dir in [TEMP, TRASH] {
            made |= make_if_missing(&private, split(dir).1)?;
        }
        if made { fsync(&private) } else { Ok(()) }
    }

    /// Exchanges two empty files and moves one to a free name, to see whether that works here.
    fn try_renames(&self) -> Result<(), Errno> {
        let dir = self.beneath.open(TEMP, OFlags::PATH | OFlags::DIRECTORY)?;
        let stem = format!("probe-{:016x}", sys::random_u64());
        let names = ["a", "b", "c"].map(|end| format!("{stem}-{end}"));
        let tried = (|| {
            for name in &names[..2] {
                self.beneath.create(&[TEMP, b"/", name.as_bytes()].concat(), 0o600)?;
            }
            renameat_with(&dir, &*names[0], &dir, &*names[1], RenameFlags::EXCHANGE)?;
            renameat_with(&dir, &*names[1], &dir, &*names[2], RenameFlags::NOREPLACE)
        })();
        for name in &names {
            // At least one is not there; what cannot be removed is swept out with old temporaries.
            let _absent = unlinkat(&dir, &**name, AtFlags::empty());
        }
        tried
    }

    /// Changes a file and looks at it in quick succession, to see whether each change shows.
    fn try_times(&self) -> Result<bool, Errno> {
        // By chance, a coarse clock ticks between two of them once in a while, not between all.
        const TRIES: u64 = 16;
        let name = format!("probe-{:016x}", sys::random_u64());
        let file = self.beneath.create(&[TEMP, b"/", name.as_bytes()].concat(), 0o600)?;
        let tried = (0..TRIES).try_fold((true, None), |(exact, before), at| {
            pwrite(&file, b"x", at)?;
            let stat = fstat(&file)?;
            let now = Some((stat.st_ctime, stat.st_ctime_nsec));
            Ok((exact && now != before, now))
        });
        let dir = self.beneath.open(TEMP, OFlags::PATH | OFlags::DIRECTORY)?;
        // What cannot be removed is swept out with old temporaries.
        let _kept = unlinkat(&dir, &*name, AtFlags::empty());
        tried.map(|(exact, _)| exact)
    }

    /// Makes the directories above a place in the trash.
    fn make_trash_dirs(&self, path: &[u8]) -> Result<(), Errno> {
        self.make_private()?;
        for (end, _) in path.iter().enumerate().filter(|&(at, &b)| b == b'/' && at > TRASH.len()) {
            let (parent, name) = self.beneath.open_parent(&path[..end])?;
            make_if_missing(&parent, name)?;
        }
        Ok(())
    }

    fn fingerprint(&self, stat: &Stat) -> Fingerprint {
        Fingerprint {
            kind: kind_of(FileType::from_raw_mode(stat.st_mode)),
            fs: self.fs,
            ino: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            mode: stat.st_mode & PERMISSIONS,
            uid: stat.st_uid,
            gid: stat.st_gid,
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        }
    }

    /// Looks at what a path names, be it a symbolic link or a device; fails on a mount point.
    fn look(&self, path: &[u8]) -> Result<Stat, Errno> {
        fstat(self.beneath.open(path, OFlags::PATH)?)
    }

    /// Looks at a path whose directory is open: one call of the kernel for three.
    fn look_in(&self, dir: &OwnedFd, path: &SharePath) -> Result<Fingerprint, TreeError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let boundary = StatxAttributes::MOUNT_ROOT;
        match statx(dir, path.name(), flags, StatxFlags::BASIC_STATS) {
            // A kernel before 5.8 does not tell what is a mount point: that is looked at the long way.
            Ok(stat) if (stat.stx_attributes_mask & !stat.stx_attributes).contains(boundary) => {
                Ok(self.fingerprint_of(&stat))
            }
            Err(Errno::NOENT) => Err(TreeError::NotFound),
            Ok(_) | Err(_) => Ok(self.fingerprint(&self.look(path.as_bytes())?)),
        }
    }

    fn fingerprint_of(&self, stat: &Statx) -> Fingerprint {
        let time = |time: StatxTimestamp| nanoseconds(time.tv_sec, time.tv_nsec.into());
        Fingerprint {
            kind: kind_of(FileType::from_raw_mode(stat.stx_mode.into())),
            fs: self.fs,
            ino: stat.stx_ino,
            size: stat.stx_size,
            mtime_ns: time(stat.stx_mtime),
            ctime_ns: time(stat.stx_ctime),
            mode: u32::from(stat.stx_mode) & PERMISSIONS,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            nlink: stat.stx_nlink,
        }
    }

    /// Opens an object that is of one of the given kinds. It is looked at before it is opened, since
    /// to open a FIFO or a device may have effects, and again after, since it may have changed.
    fn open_kind(
        &self,
        place: &Place,
        kinds: &[FileType],
        open: impl FnOnce(&[u8]) -> Result<OwnedFd, Errno>,
    ) -> Result<Open, TreeError> {
        let path = path_of(place)?;
        let fits = |stat: Stat| {
            let fits = kinds.contains(&FileType::from_raw_mode(stat.st_mode));
            if fits { Ok(()) } else { Err(TreeError::WrongKind) }
        };
        fits(self.look(&path)?)?;
        let file = open(&path)?;
        fits(fstat(&file)?)?;
        Ok(Open(file))
    }
}

impl Tree for Disk {
    type File = Open;

    fn check_root(&self) -> Result<(), RootError> {
        let now = marker::open_root(&self.path)?;
        let stat = fstat(now.dir()).map_err(|errno| no_root(&self.path, errno))?;
        let found = marker::read(&now, &self.path)?;
        expect_marker(&self.path, &self.marker, &found)?;
        if (stat.st_dev, stat.st_ino) != self.root {
            return Err(RootError::OtherRoot {
                path: self.path.display().to_string(),
                found: format!("{found}, but in another directory than was opened"),
                expected: self.marker.to_string(),
            });
        }
        Ok(())
    }

    fn ignored_by(&self, path: &SharePath, is_dir: bool) -> Option<String> {
        self.ignore.rule(path, is_dir).map(str::to_owned)
    }

    fn stat(&self, place: &Place) -> Result<Fingerprint, TreeError> {
        Ok(self.fingerprint(&self.look(&path_of(place)?)?))
    }

    fn stat_all(&self, paths: &[SharePath]) -> Vec<Result<Fingerprint, TreeError>> {
        let mut all = Vec::with_capacity(paths.len());
        let siblings =
            paths.chunk_by(|one, next| !one.is_root() && one.split().0 == next.split().0);
        for siblings in siblings {
            let dir = self.beneath.open_parent(siblings[0].as_bytes()).map(|(dir, _)| dir);
            all.extend(siblings.iter().map(|path| match (path.is_root(), &dir) {
                (true, _) => self.stat(&Place::Share(path.clone())),
                (false, Ok(dir)) => self.look_in(dir, path),
                (false, Err(errno)) => Err((*errno).into()),
            }));
        }
        all
    }

    fn has_exact_times(&self) -> bool {
        self.exact_times
    }

    fn list(&self, dir: &Place) -> Result<Vec<DirEntry>, TreeError> {
        let mut entries = self.beneath.list(&path_of(dir)?)?;
        if matches!(dir, Place::Share(path) if path.is_root()) {
            entries.retain(|entry| entry.name != PRIVATE);
        }
        Ok(entries)
    }

    fn read_link(&self, place: &Place) -> Result<Vec<u8>, TreeError> {
        let path = entry_path(place)?;
        let (dir, name) = self.beneath.open_parent(&path)?;
        match readlinkat(&dir, name, Vec::new()) {
            Ok(target) => Ok(target.into_bytes()),
            // readlink(2): not a symbolic link.
            Err(Errno::INVAL) => Err(TreeError::WrongKind),
            Err(errno) => Err(errno.into()),
        }
    }

    fn open(&self, place: &Place) -> Result<Open, TreeError> {
        self.open_kind(place, &[FileType::RegularFile], |path| {
            self.beneath.open_to_read(path, OFlags::NONBLOCK)
        })
    }

    fn stat_file(&self, file: &Open) -> Result<Fingerprint, TreeError> {
        Ok(self.fingerprint(&fstat(&file.0)?))
    }

    fn writer(&self, file: &Open) -> Result<Writer, TreeError> {
        writer::probe(&file.0, self.leases)
    }

    fn read_at(&self, file: &Open, offset: u64, buffer: &mut [u8]) -> Result<usize, TreeError> {
        Ok(retry_on_intr(|| pread(&file.0, &mut *buffer, offset))?)
    }

    fn sync_data(&self, file: &Open) -> Result<(), TreeError> {
        Ok(fdatasync(&file.0)?)
    }

    fn create_temp(&self, name: &str) -> Result<Open, TreeError> {
        let place = Place::Temp(name.to_owned());
        let path = entry_path(&place)?;
        let created = match self.beneath.create(&path, 0o600) {
            // Someone tidied up `.recsync/tmp`.
            Err(Errno::NOENT) => {
                self.make_private()?;
                self.beneath.create(&path, 0o600)
            }
            other => other,
        };
        Ok(Open(created?))
    }

    fn open_temp(&self, name: &str) -> Result<Open, TreeError> {
        self.open_kind(&Place::Temp(name.to_owned()), &[FileType::RegularFile], |path| {
            self.beneath.open(path, OFlags::RDWR | OFlags::NONBLOCK)
        })
    }

    fn write_at(&self, file: &Open, offset: u64, bytes: &[u8]) -> Result<(), TreeError> {
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            match retry_on_intr(|| pwrite(&file.0, rest, at))? {
                0 => return Err(Errno::IO.into()),
                written => {
                    rest = &rest[written..];
                    at += written as u64;
                }
            }
        }
        Ok(())
    }

    fn copy_range(&self, from: &Open, to: &Open, offset: u64, len: u64) -> Result<u64, TreeError> {
        let copied = copy_in_kernel(from, to, offset, len)?;
        // At the source's end this finds it; where the kernel cannot copy it does the work.
        Ok(copied + self.copy_by_hand(from, to, offset + copied, len - copied)?)
    }

    fn set_len(&self, file: &Open, len: u64) -> Result<(), TreeError> {
        Ok(retry_on_intr(|| ftruncate(&file.0, len))?)
    }

    fn start_sync(&self, file: &Open) {
        sys::start_writeback(file.0.as_fd());
    }

    fn sync(&self, file: &Open) -> Result<(), TreeError> {
        Ok(fsync(&file.0)?)
    }

    fn set_mode(&self, file: &Open, mode: u32) -> Result<(), TreeError> {
        Ok(fchmod(&file.0, Mode::from_raw_mode(mode & PERMISSIONS))?)
    }

    fn owner(&self, stat: &Fingerprint) -> Option<Owner> {
        self.accounts.owner(stat.uid, stat.gid)
    }

    fn set_owner(&self, file: &Open, owner: &Owner) -> Result<Option<OwnerLeft>, TreeError> {
        self.give(owner, |user, group| fchown(&file.0, user, group))
    }

    fn set_owner_of(&self, place: &Place, owner: &Owner) -> Result<Option<OwnerLeft>, TreeError> {
        let path = entry_path(place)?;
        // As in `set_mtime_of`.
        self.look(&path)?;
        let (dir, name) = self.beneath.open_parent(&path)?;
        self.give(owner, |user, group| chownat(&dir, name, user, group, AtFlags::SYMLINK_NOFOLLOW))
    }

    fn set_mtime(&self, file: &Open, mtime_ns: i64) -> Result<(), TreeError> {
        Ok(futimens(&file.0, &mtime_alone(mtime_ns))?)
    }

    fn open_for_metadata(&self, place: &Place) -> Result<Open, TreeError> {
        self.open_kind(place, &[FileType::RegularFile, FileType::Directory], |path| {
            self.beneath.open_to_read(path, OFlags::NONBLOCK)
        })
    }

    fn set_mtime_of(&self, place: &Place, mtime_ns: i64) -> Result<(), TreeError> {
        let path = entry_path(place)?;
        // The call below would follow a mount point, as every path ends in what is mounted there.
        self.look(&path)?;
        let (dir, name) = self.beneath.open_parent(&path)?;
        Ok(utimensat(&dir, name, &mtime_alone(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn make_dir(&self, place: &Place, mode: u32) -> Result<(), TreeError> {
        let path = entry_path(place)?;
        let (dir, name) = self.beneath.open_parent(&path)?;
        // No one may use it before it has its mode, which mkdir(2) would pass through the umask.
        mkdirat(&dir, name, Mode::RWXU)?;
        let finished = self
            .beneath
            .open(&path, OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(|made| fchmod(made, Mode::from_raw_mode(mode & PERMISSIONS)));
        if let Err(errno) = finished {
            // Nothing was done, then; if it cannot be removed it is in use, and no longer ours.
            let _in_use = unlinkat(&dir, name, AtFlags::REMOVEDIR);
            return Err(errno.into());
        }
        Ok(())
    }

    fn make_link(&self, place: &Place, target: &[u8]) -> Result<(), TreeError> {
        let path = entry_path(place)?;
        let (dir, name) = self.beneath.open_parent(&path)?;
        Ok(symlinkat(target, &dir, name)?)
    }

    fn rename(&self, from: &Place, to: &Place) -> Result<(), TreeError> {
        let (old, new) = (entry_path(from)?, entry_path(to)?);
        let (old_dir, old_name) = self.beneath.open_parent(&old)?;
        let (new_dir, new_name) = match self.beneath.open_parent(&new) {
            Err(Errno::NOENT) if matches!(to, Place::Trash { .. }) => {
                self.make_trash_dirs(&new)?;
                self.beneath.open_parent(&new)?
            }
            other => other?,
        };
        Ok(renameat_with(&old_dir, old_name, &new_dir, new_name, RenameFlags::NOREPLACE)?)
    }

    fn exchange(&self, one: &Place, other: &Place) -> Result<(), TreeError> {
        let (one, other) = (entry_path(one)?, entry_path(other)?);
        let (one_dir, one_name) = self.beneath.open_parent(&one)?;
        let (other_dir, other_name) = self.beneath.open_parent(&other)?;
        Ok(renameat_with(&one_dir, one_name, &other_dir, other_name, RenameFlags::EXCHANGE)?)
    }

    fn remove_dir(&self, place: &Place) -> Result<(), TreeError> {
        let path = entry_path(place)?;
        let (dir, name) = self.beneath.open_parent(&path)?;
        Ok(unlinkat(&dir, name, AtFlags::REMOVEDIR)?)
    }

    fn remove_private(&self, place: &Place) -> Result<(), TreeError> {
        if matches!(place, Place::Share(_)) {
            return Err(TreeError::Denied);
        }
        let path = entry_path(place)?;
        let (dir, name) = self.beneath.open_parent(&path)?;
        Ok(unlinkat(&dir, name, AtFlags::empty())?)
    }

    fn sync_dir(&self, dir: &Place) -> Result<(), TreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Ok(fsync(self.beneath.open(&path_of(dir)?, flags)?)?)
    }

    fn list_temp(&self) -> Result<Vec<String>, TreeError> {
        let entries = self.beneath.list(TEMP)?;
        // What is no UTF-8 was not made by recsync.
        Ok(entries.into_iter().filter_map(|entry| String::from_utf8(entry.name).ok()).collect())
    }

    fn space(&self) -> Result<Space, TreeError> {
        let room = fstatvfs(self.beneath.dir())?;
        Ok(Space {
            available: room.f_bavail.saturating_mul(room.f_frsize),
            total: room.f_blocks.saturating_mul(room.f_frsize),
        })
    }
}

impl Disk {
    /// Sets what can be set of an owner: who may not give a file away may still have a group to
    /// give it to.
    fn give(
        &self,
        owner: &Owner,
        chown: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    ) -> Result<Option<OwnerLeft>, TreeError> {
        let user = self.accounts.uid(&owner.user).map(Uid::from_raw);
        let group = self.accounts.gid(&owner.group).map(Gid::from_raw);
        let unknown = (user.is_none() || group.is_none()).then_some(OwnerLeft::NoAccount);
        match chown(user, group) {
            Ok(()) => Ok(unknown),
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS) => {
                let _not_ours = group.is_some_and(|group| chown(None, Some(group)).is_ok());
                Ok(Some(OwnerLeft::NotAllowed))
            }
            // A number that this user namespace does not map, chown(2).
            Err(Errno::INVAL | Errno::OVERFLOW) => Ok(Some(OwnerLeft::NoAccount)),
            Err(errno) => Err(errno.into()),
        }
    }

    fn copy_by_hand(
        &self,
        from: &Open,
        to: &Open,
        offset: u64,
        len: u64,
    ) -> Result<u64, TreeError> {
        let mut buffer = vec![0; COPY_BUFFER_LEN.min(usize::try_from(len).unwrap_or(usize::MAX))];
        let mut copied = 0;
        while copied < len {
            let wanted = buffer.len().min(usize::try_from(len - copied).unwrap_or(usize::MAX));
            let count = self.read_at(from, offset + copied, &mut buffer[..wanted])?;
            if count == 0 {
                break;
            }
            self.write_at(to, offset + copied, &buffer[..count])?;
            copied += count as u64;
        }
        Ok(copied)
    }
}

/// Copies until the length, the end of the source, or a refusal that another way may get round.
fn copy_in_kernel(from: &Open, to: &Open, offset: u64, len: u64) -> Result<u64, TreeError> {
    let mut copied = 0;
    while copied < len {
        let (mut source, mut target) = (offset + copied, offset + copied);
        let step = usize::try_from((len - copied).min(COPY_STEP_MAX)).unwrap_or(usize::MAX);
        let answer = copy_file_range(&from.0, Some(&mut source), &to.0, Some(&mut target), step);
        match answer {
            // The end, or a filesystem that says so of files it makes up while they are read.
            Ok(0) => break,
            Ok(count) => copied += count as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(copied)
}

fn describe(beneath: &Beneath) -> Result<(Stat, u64, Leases), Errno> {
    let stat = fstat(beneath.dir())?;
    let fs = match fstatvfs(beneath.dir())?.f_fsid {
        0 => stat.st_dev,
        id => id,
    };
    Ok((stat, fs, writer::leases_of(beneath.dir())?))
}

fn no_root(path: &Path, errno: Errno) -> RootError {
    RootError::NoRoot { path: path.display().to_string(), why: errno.to_string() }
}

fn expect_marker(path: &Path, expected: &Marker, found: &Marker) -> Result<(), RootError> {
    if found == expected {
        return Ok(());
    }
    Err(RootError::OtherRoot {
        path: path.display().to_string(),
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

/// Returns a place's path beneath the root.
fn path_of(place: &Place) -> Result<Cow<'_, [u8]>, TreeError> {
    Ok(match place {
        Place::Share(path) if path.is_root() => HERE.into(),
        Place::Share(path) => path.as_bytes().into(),
        Place::Temp(name) if name.is_empty() => TEMP.into(),
        Place::Temp(name) => [TEMP, b"/", component(name)?].concat().into(),
        Place::Trash { day, path } if day.is_empty() && path.is_root() => TRASH.into(),
        Place::Trash { day, path } if path.is_root() => {
            [TRASH, b"/", component(day)?].concat().into()
        }
        Place::Trash { day, path } => {
            [TRASH, b"/", component(day)?, b"/", path.as_bytes()].concat().into()
        }
    })
}

/// Returns the path of a place that is a name in a directory, not one of those at the top.
fn entry_path(place: &Place) -> Result<Cow<'_, [u8]>, TreeError> {
    let path = path_of(place)?;
    if place.parent().is_none() { Err(TreeError::Denied) } else { Ok(path) }
}

/// Checks a name that no type has checked: `..` or a slash would lead elsewhere.
fn component(name: &str) -> Result<&[u8], TreeError> {
    match SharePath::root().join(name.as_bytes()) {
        Ok(_) => Ok(name.as_bytes()),
        Err(_) => Err(TreeError::BadName),
    }
}

fn make_if_missing(dir: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    match mkdirat(dir, name, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Joins the halves of a time; those beyond the years 1677 and 2262 are cut to fit.
fn nanoseconds(seconds: i64, nanoseconds: u64) -> i64 {
    let nanoseconds = i64::try_from(nanoseconds).unwrap_or(0);
    seconds.saturating_mul(NS_PER_S).saturating_add(nanoseconds)
}

/// Returns what sets the modification time and leaves the access time.
fn mtime_alone(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(NS_PER_S),
            tv_nsec: mtime_ns.rem_euclid(NS_PER_S),
        },
    }
}
