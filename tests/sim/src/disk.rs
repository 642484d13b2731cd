//! The simulated disk of one node: [`Tree`] over [`Fs`], where before every call a user may act,
//! the call may fail, or the node may be stopped.
//!
//! **Invariant:** once a node is stopped, every call through its [`SimTree`] fails and changes
//! nothing; a handle never outlives its boot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recsync::tree::{
    DirEntry, Fingerprint, Kind, OwnerLeft, Place, RootError, Space, Tree, TreeError, Writer,
};

use recsync_proto::{Account, Owner};

use crate::fs::{Body, Fs, Id, ROOT, RenameHow};
use crate::rng::Rng;

const RECSYNC: &[u8] = b".recsync";
const TMP: &[u8] = b"tmp";
const TRASH: &[u8] = b"trash";

/// What a call is about to do; decides which faults can hit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKind {
    /// Looks at the root's marker.
    Root,
    /// Looks at a name, an object or a directory.
    Look,
    /// Reads bytes.
    Read,
    /// Needs room: makes an object or writes bytes.
    Write,
    /// Changes names or metadata.
    Change,
    /// Makes something durable.
    Sync,
}

/// One call of a [`Tree`], as [`Meanwhile`] sees it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The method.
    pub name: &'static str,
    /// What it is about to do.
    pub kind: CallKind,
    /// Where, if it names a place.
    pub place: Option<&'a Place>,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Go,
    /// It fails with this error and changes nothing (a failed sync loses the dirty pages).
    Fail(TreeError),
    /// The process dies before it.
    Kill,
    /// The machine loses power before it.
    PowerCut,
}

/// What happens on a machine between two system calls of its recsync.
pub trait Meanwhile: Send {
    /// Lets time pass and users act, then judges the call.
    fn before(&mut self, fs: &mut Fs, call: Call<'_>) -> Verdict;
    /// Told of every object that recsync has put under a name of the share, and where it was before.
    fn placed(&mut self, fs: &Fs, id: Id, from: &Place);
    /// Told before a power cut, and after it.
    fn power(&mut self, fs: &Fs, cut: bool);
}

/// A machine where nothing else happens.
#[derive(Debug)]
pub struct Quiet;

impl Meanwhile for Quiet {
    fn before(&mut self, fs: &mut Fs, _: Call<'_>) -> Verdict {
        fs.wall_ns += 1_000;
        Verdict::Go
    }
    fn placed(&mut self, _: &Fs, _: Id, _: &Place) {}
    fn power(&mut self, _: &Fs, _: bool) {}
}

/// The disk, whoever runs on the machine.
#[derive(Debug)]
pub struct Disk<M> {
    /// What it holds.
    pub fs: Fs,
    /// What happens besides recsync.
    pub meanwhile: M,
    /// Why the share may not be touched, if so.
    pub root_error: Option<RootError>,
    /// How often the process ended, and how often the machine lost power.
    boot: u64,
    cuts: u64,
    rng: Rng,
}

impl<M: Meanwhile> Disk<M> {
    /// Returns a disk with a share made by `recsync init`.
    pub fn new(mut fs: Fs, meanwhile: M, rng: Rng) -> Self {
        let private = fs.make_dir(ROOT, RECSYNC, 0o700).expect("the root is empty");
        fs.make_dir(private, TMP, 0o700).expect("a new directory is empty");
        fs.make_dir(private, TRASH, 0o700).expect("a new directory is empty");
        fs.sync_dir(ROOT);
        fs.sync_dir(private);
        Disk { fs, meanwhile, root_error: None, boot: 0, cuts: 0, rng }
    }

    /// Ends the process that runs on this disk; its handles are closed.
    pub fn kill(&mut self) {
        self.boot += 1;
        self.fs.unwatch_all();
    }

    /// Cuts the machine's power: the process and the users' handles are gone, and with them what
    /// was not synced.
    pub fn cut_power(&mut self) {
        self.kill();
        self.cuts += 1;
        self.meanwhile.power(&self.fs, true);
        self.fs.crash(&mut self.rng);
        self.meanwhile.power(&self.fs, false);
    }
}

/// A [`Tree`] on a simulated disk, for one life of the process.
#[derive(Debug)]
pub struct SimTree<M: Meanwhile> {
    disk: Arc<Mutex<Disk<M>>>,
    boot: u64,
}

impl<M: Meanwhile> Clone for SimTree<M> {
    fn clone(&self) -> Self {
        SimTree { disk: Arc::clone(&self.disk), boot: self.boot }
    }
}

/// An open object of a [`SimTree`]; closed when dropped.
#[derive(Debug)]
pub struct Handle<M: Meanwhile> {
    disk: Arc<Mutex<Disk<M>>>,
    boot: u64,
    cuts: u64,
    id: Id,
    writing: bool,
}

impl<M: Meanwhile> Drop for Handle<M> {
    fn drop(&mut self) {
        let mut disk = lock(&self.disk);
        // A power cut has closed it already; a kill closes it when its owner is dropped.
        if disk.cuts == self.cuts {
            disk.fs.close(self.id, self.writing);
        }
    }
}

/// Locks a disk. One thread runs the simulation, so the lock is never contended.
pub fn lock<M>(disk: &Mutex<M>) -> MutexGuard<'_, M> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Meanwhile> SimTree<M> {
    /// Returns the tree of a process that starts now.
    pub fn boot(disk: &Arc<Mutex<Disk<M>>>) -> Self {
        SimTree { disk: Arc::clone(disk), boot: lock(disk).boot }
    }

    /// True if the process of this tree has ended.
    pub fn is_stopped(&self) -> bool {
        lock(&self.disk).boot != self.boot
    }

    /// Returns the disk beneath, for another boot.
    pub fn shared(&self) -> Arc<Mutex<Disk<M>>> {
        Arc::clone(&self.disk)
    }

    /// Returns the disk beneath.
    pub fn disk(&self) -> MutexGuard<'_, Disk<M>> {
        lock(&self.disk)
    }

    /// Lets the world act, then returns the disk if the call is to be done.
    fn enter(
        &self,
        name: &'static str,
        kind: CallKind,
        place: Option<&Place>,
    ) -> Result<MutexGuard<'_, Disk<M>>, TreeError> {
        let mut guard = lock(&self.disk);
        let disk = &mut *guard;
        if disk.boot != self.boot {
            return Err(stopped());
        }
        match disk.meanwhile.before(&mut disk.fs, Call { name, kind, place }) {
            Verdict::Go => Ok(guard),
            Verdict::Fail(error) => Err(error),
            Verdict::Kill => {
                disk.kill();
                Err(stopped())
            }
            Verdict::PowerCut => {
                disk.cut_power();
                Err(stopped())
            }
        }
    }

    fn handle(&self, disk: &mut Disk<M>, id: Id, writing: bool) -> Handle<M> {
        disk.fs.open(id, writing);
        let (boot, cuts) = (self.boot, disk.cuts);
        Handle { disk: Arc::clone(&self.disk), boot, cuts, id, writing }
    }

    fn enter_file(
        &self,
        name: &'static str,
        kind: CallKind,
        file: &Handle<M>,
    ) -> Result<MutexGuard<'_, Disk<M>>, TreeError> {
        if file.boot != self.boot {
            return Err(stopped());
        }
        self.enter(name, kind, None)
    }

    fn sync_with(
        &self,
        name: &'static str,
        file: &Handle<M>,
        sync: impl FnOnce(&mut Fs, Id),
    ) -> Result<(), TreeError> {
        match self.enter_file(name, CallKind::Sync, file) {
            Ok(mut disk) => {
                sync(&mut disk.fs, file.id);
                Ok(())
            }
            Err(error) => {
                if !self.is_stopped() {
                    self.disk().fs.fail_sync(file.id);
                }
                Err(error)
            }
        }
    }

    fn placed(disk: &mut Disk<M>, place: &Place, from: &Place) {
        if let Place::Share(_) = place
            && let Ok(id) = find(&disk.fs, place)
        {
            disk.meanwhile.placed(&disk.fs, id, from);
        }
    }
}

fn stopped() -> TreeError {
    TreeError::Io("the node is stopped".into())
}

/// Returns the components of a place below the root.
fn components(place: &Place) -> Result<Vec<&[u8]>, TreeError> {
    let one = |name: &'_ str| {
        let legal = !matches!(name, "." | "..") && !name.contains(['/', '\0']) && name.len() <= 255;
        if legal { Ok(()) } else { Err(TreeError::BadName) }
    };
    let (dirs, path): ([&[u8]; 3], &[u8]) = match place {
        Place::Share(path) => ([b"", b"", b""], path.as_bytes()),
        Place::Temp(name) => {
            one(name)?;
            ([RECSYNC, TMP, b""], name.as_bytes())
        }
        Place::Trash { day, path } => {
            one(day)?;
            if day.is_empty() && !path.is_root() {
                return Err(TreeError::BadName);
            }
            ([RECSYNC, TRASH, day.as_bytes()], path.as_bytes())
        }
    };
    let names = path.split(|&byte| byte == b'/');
    Ok(dirs.into_iter().chain(names).filter(|name| !name.is_empty()).collect())
}

/// Returns the object at a place.
pub fn find(fs: &Fs, place: &Place) -> Result<Id, TreeError> {
    fs.resolve(&components(place)?)
}

/// Returns the directory and name of a place that can be acted on.
fn find_parent(fs: &Fs, place: &Place) -> Result<(Id, Vec<u8>), TreeError> {
    let components = components(place)?;
    if place.parent().is_none() {
        return Err(TreeError::Denied);
    }
    let (name, dirs) = components.split_last().ok_or(TreeError::Denied)?;
    let dir = fs.resolve(dirs)?;
    fs.names(dir)?;
    Ok((dir, name.to_vec()))
}

/// Makes the directories above a place in the trash.
fn make_parents(fs: &mut Fs, place: &Place) -> Result<(), TreeError> {
    let components = components(place)?;
    let Some((_, dirs)) = components.split_last() else { return Ok(()) };
    dirs.iter().try_fold(ROOT, |dir, name| match fs.lookup(dir, name) {
        Err(TreeError::NotFound) => fs.make_dir(dir, name, 0o700),
        found => found,
    })?;
    Ok(())
}

impl<M: Meanwhile> Tree for SimTree<M> {
    type File = Handle<M>;

    fn check_root(&self) -> Result<(), RootError> {
        let no_root =
            |why: TreeError| RootError::NoRoot { path: "/share".into(), why: why.to_string() };
        let disk = self.enter("check_root", CallKind::Root, None).map_err(no_root)?;
        disk.root_error.clone().map_or(Ok(()), Err)
    }

    fn stat(&self, place: &Place) -> Result<Fingerprint, TreeError> {
        let disk = self.enter("stat", CallKind::Look, Some(place))?;
        Ok(disk.fs.stat(find(&disk.fs, place)?))
    }

    fn list(&self, dir: &Place) -> Result<Vec<DirEntry>, TreeError> {
        let mut disk = self.enter("list", CallKind::Look, Some(dir))?;
        let disk = &mut *disk;
        let id = find(&disk.fs, dir)?;
        let mut entries: Vec<DirEntry> = disk
            .fs
            .names(id)?
            .iter()
            .filter(|(name, _)| id != ROOT || name.as_slice() != RECSYNC)
            .map(|(name, id)| DirEntry { name: name.clone(), kind: Some(kind(&disk.fs, *id)) })
            .collect();
        // In no order, and not every filesystem tells the kind.
        for index in (1..entries.len()).rev() {
            entries.swap(index, disk.rng.index(index + 1));
        }
        for entry in &mut entries {
            if disk.rng.chance(100_000) {
                entry.kind = None;
            }
        }
        Ok(entries)
    }

    fn read_link(&self, place: &Place) -> Result<Vec<u8>, TreeError> {
        let disk = self.enter("read_link", CallKind::Read, Some(place))?;
        match disk.fs.body(find(&disk.fs, place)?) {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(TreeError::WrongKind),
        }
    }

    fn open(&self, place: &Place) -> Result<Handle<M>, TreeError> {
        let mut disk = self.enter("open", CallKind::Look, Some(place))?;
        let id = find(&disk.fs, place)?;
        disk.fs.bytes(id)?;
        Ok(self.handle(&mut disk, id, false))
    }

    fn stat_file(&self, file: &Handle<M>) -> Result<Fingerprint, TreeError> {
        let disk = self.enter_file("stat_file", CallKind::Look, file)?;
        Ok(disk.fs.stat(file.id))
    }

    fn writer(&self, file: &Handle<M>) -> Result<Writer, TreeError> {
        let disk = self.enter_file("writer", CallKind::Look, file)?;
        Ok(if disk.fs.writers(file.id) == 0 { Writer::None } else { Writer::Some })
    }

    fn read_at(
        &self,
        file: &Handle<M>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, TreeError> {
        let disk = self.enter_file("read_at", CallKind::Read, file)?;
        let bytes = disk.fs.bytes(file.id)?;
        let start = (offset as usize).min(bytes.len());
        let len = buffer.len().min(bytes.len() - start);
        buffer[..len].copy_from_slice(&bytes[start..start + len]);
        Ok(len)
    }

    fn sync_data(&self, file: &Handle<M>) -> Result<(), TreeError> {
        self.sync_with("sync_data", file, Fs::sync_data)
    }

    fn create_temp(&self, name: &str) -> Result<Handle<M>, TreeError> {
        let place = Place::Temp(name.to_owned());
        let mut disk = self.enter("create_temp", CallKind::Write, Some(&place))?;
        let (dir, name) = find_parent(&disk.fs, &place)?;
        let id = disk.fs.create(dir, &name, 0o600)?;
        Ok(self.handle(&mut disk, id, true))
    }

    fn open_temp(&self, name: &str) -> Result<Handle<M>, TreeError> {
        let place = Place::Temp(name.to_owned());
        let mut disk = self.enter("open_temp", CallKind::Look, Some(&place))?;
        let id = find(&disk.fs, &place)?;
        disk.fs.bytes(id)?;
        Ok(self.handle(&mut disk, id, true))
    }

    fn write_at(&self, file: &Handle<M>, offset: u64, bytes: &[u8]) -> Result<(), TreeError> {
        let mut disk = self.enter_file("write_at", CallKind::Write, file)?;
        disk.fs.write_at(file.id, offset, bytes)
    }

    fn copy_range(
        &self,
        from: &Handle<M>,
        to: &Handle<M>,
        offset: u64,
        len: u64,
    ) -> Result<u64, TreeError> {
        let mut disk = self.enter_file("copy_range", CallKind::Write, from)?;
        let source = Arc::clone(disk.fs.bytes(from.id)?);
        let start = (offset as usize).min(source.len());
        let end = (offset.saturating_add(len) as usize).min(source.len());
        disk.fs.write_at(to.id, offset, &source[start..end])?;
        Ok((end - start) as u64)
    }

    fn set_len(&self, file: &Handle<M>, len: u64) -> Result<(), TreeError> {
        let mut disk = self.enter_file("set_len", CallKind::Write, file)?;
        disk.fs.set_len(file.id, len)
    }

    fn start_sync(&self, _: &Handle<M>) {}

    fn sync(&self, file: &Handle<M>) -> Result<(), TreeError> {
        self.sync_with("sync", file, Fs::sync)
    }

    fn set_mode(&self, file: &Handle<M>, mode: u32) -> Result<(), TreeError> {
        let mut disk = self.enter_file("set_mode", CallKind::Change, file)?;
        disk.fs.set_mode(file.id, mode);
        Ok(())
    }

    fn owner(&self, stat: &Fingerprint) -> Option<Owner> {
        let account = |number| Account::of_number(number);
        Some(Owner { user: account(stat.uid), group: account(stat.gid) })
    }

    fn set_owner(&self, file: &Handle<M>, owner: &Owner) -> Result<Option<OwnerLeft>, TreeError> {
        let mut disk = self.enter_file("set_owner", CallKind::Change, file)?;
        let (uid, gid) = numbers(owner)?;
        disk.fs.set_owner(file.id, uid, gid);
        Ok(None)
    }

    fn set_owner_of(&self, place: &Place, owner: &Owner) -> Result<Option<OwnerLeft>, TreeError> {
        let mut disk = self.enter("set_owner_of", CallKind::Change, Some(place))?;
        let id = find(&disk.fs, place)?;
        let (uid, gid) = numbers(owner)?;
        disk.fs.set_owner(id, uid, gid);
        Ok(None)
    }

    fn set_mtime(&self, file: &Handle<M>, mtime_ns: i64) -> Result<(), TreeError> {
        let mut disk = self.enter_file("set_mtime", CallKind::Change, file)?;
        disk.fs.set_mtime(file.id, mtime_ns);
        Ok(())
    }

    fn open_for_metadata(&self, place: &Place) -> Result<Handle<M>, TreeError> {
        let mut disk = self.enter("open_for_metadata", CallKind::Look, Some(place))?;
        let id = find(&disk.fs, place)?;
        match disk.fs.body(id) {
            Body::File(_) | Body::Dir(_) => Ok(self.handle(&mut disk, id, false)),
            Body::Symlink(_) => Err(TreeError::WrongKind),
        }
    }

    fn set_mtime_of(&self, place: &Place, mtime_ns: i64) -> Result<(), TreeError> {
        let mut disk = self.enter("set_mtime_of", CallKind::Change, Some(place))?;
        let id = find(&disk.fs, place)?;
        disk.fs.set_mtime(id, mtime_ns);
        Ok(())
    }

    fn make_dir(&self, place: &Place, mode: u32) -> Result<(), TreeError> {
        let mut disk = self.enter("make_dir", CallKind::Write, Some(place))?;
        let (dir, name) = find_parent(&disk.fs, place)?;
        disk.fs.make_dir(dir, &name, mode)?;
        Ok(())
    }

    fn make_link(&self, place: &Place, target: &[u8]) -> Result<(), TreeError> {
        let mut disk = self.enter("make_link", CallKind::Write, Some(place))?;
        let (dir, name) = find_parent(&disk.fs, place)?;
        disk.fs.make_link(dir, &name, target)?;
        Ok(())
    }

    fn rename(&self, from: &Place, to: &Place) -> Result<(), TreeError> {
        let mut disk = self.enter("rename", CallKind::Change, Some(to))?;
        let (from_dir, from_name) = find_parent(&disk.fs, from)?;
        disk.fs.lookup(from_dir, &from_name)?;
        if let (Place::Trash { .. }, Some(_)) = (to, to.parent()) {
            make_parents(&mut disk.fs, to)?;
        }
        let (to_dir, to_name) = find_parent(&disk.fs, to)?;
        disk.fs.rename((from_dir, &from_name), (to_dir, &to_name), RenameHow::NoReplace)?;
        Self::placed(&mut disk, to, from);
        Ok(())
    }

    fn exchange(&self, one: &Place, other: &Place) -> Result<(), TreeError> {
        let mut disk = self.enter("exchange", CallKind::Change, Some(other))?;
        let (one_dir, one_name) = find_parent(&disk.fs, one)?;
        let (other_dir, other_name) = find_parent(&disk.fs, other)?;
        disk.fs.rename((one_dir, &one_name), (other_dir, &other_name), RenameHow::Exchange)?;
        Self::placed(&mut disk, one, other);
        Self::placed(&mut disk, other, one);
        Ok(())
    }

    fn remove_dir(&self, place: &Place) -> Result<(), TreeError> {
        let mut disk = self.enter("remove_dir", CallKind::Change, Some(place))?;
        let (dir, name) = find_parent(&disk.fs, place)?;
        disk.fs.remove_dir(dir, &name)
    }

    fn remove_private(&self, place: &Place) -> Result<(), TreeError> {
        let mut disk = self.enter("remove_private", CallKind::Change, Some(place))?;
        if let Place::Share(_) = place {
            return Err(TreeError::Denied);
        }
        let (dir, name) = find_parent(&disk.fs, place)?;
        disk.fs.unlink(dir, &name)
    }

    fn sync_dir(&self, dir: &Place) -> Result<(), TreeError> {
        let mut disk = self.enter("sync_dir", CallKind::Sync, Some(dir))?;
        let id = find(&disk.fs, dir)?;
        disk.fs.names(id)?;
        disk.fs.sync_dir(id);
        Ok(())
    }

    fn list_temp(&self) -> Result<Vec<String>, TreeError> {
        let disk = self.enter("list_temp", CallKind::Look, None)?;
        let dir = disk.fs.resolve(&[RECSYNC, TMP])?;
        let names = disk.fs.names(dir)?.keys();
        Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    fn space(&self) -> Result<Space, TreeError> {
        drop(self.enter("space", CallKind::Look, None)?);
        Ok(Space { available: 1 << 40, total: 1 << 41 })
    }
}

fn kind(fs: &Fs, id: Id) -> Kind {
    fs.stat(id).kind
}

/// Accounts have no names in the simulation.
fn numbers(owner: &Owner) -> Result<(u32, u32), TreeError> {
    let number = |account: &Account| {
        account.as_str().parse().map_err(|_| TreeError::Io(format!("{account} is no number")))
    };
    Ok((number(&owner.user)?, number(&owner.group)?))
}
