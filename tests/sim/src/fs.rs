//! A filesystem in memory that forgets what was not synced: objects, names, open handles, what is
//! in the page cache and what would survive a power cut.
//!
//! Model: file bytes and attributes become durable by [`Fs::sync`]; changes of names go through one
//! ordered journal (ext4, XFS). [`Fs::sync_dir`] commits it up to the directory's last change,
//! `fsync` of a file up to the last change of its inode, a rename too, and `fdatasync` only up to
//! its creation or last change of size (ext4's `i_sync_tid` and `i_datasync_tid`).
//! [`Fs::crash`] keeps a random prefix of the rest of the journal, and of each unsynced file the old
//! bytes, the new ones, a part of them, or zeros.
//!
//! **Invariant:** an object outlives its last name while a handle or the durable state needs it;
//! inode numbers are reused as soon as no name and no handle has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use recsync::tree::{Fingerprint, Kind, TreeError};

use crate::rng::Rng;

/// Names an object for ever, unlike its inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u64);

/// The share's root directory.
pub const ROOT: Id = Id(0);

/// What kind of object, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A regular file's bytes.
    File(Arc<Vec<u8>>),
    /// A directory's names.
    Dir(BTreeMap<Vec<u8>, Id>),
    /// A symbolic link's target.
    Symlink(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attributes {
    mode: u32,
    mtime_ns: i64,
    ctime_ns: i64,
    uid: u32,
    gid: u32,
}

#[derive(Debug, Clone)]
struct Object {
    ino: u64,
    body: Body,
    attributes: Attributes,
    /// What a power cut leaves of a file's bytes and of the attributes.
    durable_bytes: Arc<Vec<u8>>,
    durable_attributes: Attributes,
    /// What the last sync that did not fail said is on the disk.
    told_bytes: Arc<Vec<u8>>,
    /// How far a sync commits the journal, with and without the inode's own changes.
    sync_through: u64,
    datasync_through: u64,
    /// Its size has changed since the last sync: the new one is on the disk with the new times, for both
    /// are in one inode.
    resized: bool,
    /// A failed fsync has dropped the dirty pages: later ones succeed and keep nothing.
    poisoned: bool,
    /// The last power cut left other bytes than a sync said are on the disk, and the stat that was.
    rotten: bool,
    /// The name it has, or had last.
    parent: Option<(Id, Vec<u8>)>,
    linked: bool,
    handles: u32,
    writers: u32,
    /// A user made it or wrote to it last.
    by_user: bool,
    /// A user gave it the name that it has.
    named_by_user: bool,
}

/// What changed, as the kernel tells a watcher of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// `IN_CREATE`.
    Created,
    /// `IN_CLOSE_WRITE`.
    Closed,
    /// `IN_ATTRIB`.
    Attributes,
    /// `IN_DELETE`.
    Deleted,
    /// `IN_MOVED_FROM`.
    MovedFrom,
    /// `IN_MOVED_TO`.
    MovedTo,
}

/// One notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The watched directory.
    pub dir: Id,
    /// The name in it.
    pub name: Vec<u8>,
    /// What happened to it.
    pub change: Change,
    /// True if the name is a directory's.
    pub is_dir: bool,
}

/// How a rename treats a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameHow {
    /// As `rename(2)`: a file or an empty directory there goes away.
    Replace,
    /// `RENAME_NOREPLACE`.
    NoReplace,
    /// `RENAME_EXCHANGE`.
    Exchange,
}

/// Changes of names that happen together or not at all: directory, name, what it holds now.
type Transaction = Vec<(Id, Vec<u8>, Option<Id>)>;

/// The filesystem.
#[derive(Debug)]
pub struct Fs {
    /// The wall clock of the machine, nanoseconds since 1970; the owner moves it.
    pub wall_ns: i64,
    /// The tick of timestamps in nanoseconds.
    pub tick_ns: i64,
    /// True while a user acts; what is made or written then is the user's.
    pub user_acts: bool,
    objects: BTreeMap<Id, Object>,
    next_id: u64,
    inos: BTreeSet<u64>,
    durable_names: BTreeMap<Id, BTreeMap<Vec<u8>, Id>>,
    journal: Vec<Transaction>,
    /// Transactions committed before those of the journal.
    committed: u64,
    watched: BTreeSet<Id>,
    notices: Vec<Notice>,
}

impl Fs {
    /// Returns an empty filesystem with a durable root.
    pub fn new(wall_ns: i64, tick_ns: i64) -> Self {
        let mut fs = Fs {
            wall_ns,
            tick_ns,
            user_acts: false,
            objects: BTreeMap::new(),
            next_id: 0,
            inos: BTreeSet::new(),
            durable_names: BTreeMap::new(),
            journal: Vec::new(),
            committed: 0,
            watched: BTreeSet::new(),
            notices: Vec::new(),
        };
        let root = fs.make(Body::Dir(BTreeMap::new()), 0o755);
        debug_assert_eq!(root, ROOT);
        fs.object_mut(root).linked = true;
        fs
    }

    // Looking.

    /// Finds the object at a path of components below the root, following nothing.
    pub fn resolve(&self, components: &[&[u8]]) -> Result<Id, TreeError> {
        components.iter().try_fold(ROOT, |dir, name| self.lookup(dir, name))
    }

    /// Finds a name in a directory.
    pub fn lookup(&self, dir: Id, name: &[u8]) -> Result<Id, TreeError> {
        self.names(dir)?.get(name).copied().ok_or(TreeError::NotFound)
    }

    /// Returns the names of a directory.
    pub fn names(&self, dir: Id) -> Result<&BTreeMap<Vec<u8>, Id>, TreeError> {
        match &self.object(dir).body {
            Body::Dir(names) => Ok(names),
            _ => Err(TreeError::WrongKind),
        }
    }

    /// Returns what an object holds.
    pub fn body(&self, id: Id) -> &Body {
        &self.object(id).body
    }

    /// Returns a regular file's bytes.
    pub fn bytes(&self, id: Id) -> Result<&Arc<Vec<u8>>, TreeError> {
        match &self.object(id).body {
            Body::File(bytes) => Ok(bytes),
            _ => Err(TreeError::WrongKind),
        }
    }

    /// True if a directory.
    pub fn is_dir(&self, id: Id) -> bool {
        matches!(self.object(id).body, Body::Dir(_))
    }

    /// Returns how many handles are open for writing.
    pub fn writers(&self, id: Id) -> u32 {
        self.object(id).writers
    }

    /// True if a user made the object or wrote to it last.
    pub fn is_users(&self, id: Id) -> bool {
        self.object(id).by_user
    }

    /// Returns an object's directory and name, if it has one.
    pub fn name_of(&self, id: Id) -> Option<(Id, &[u8])> {
        let object = self.objects.get(&id)?;
        let (dir, name) = object.parent.as_ref().filter(|_| object.linked)?;
        Some((*dir, name))
    }

    /// Returns an object's path, if it has a name beneath the root.
    pub fn path_of(&self, id: Id) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT {
            let (dir, name) = self.name_of(at)?;
            names.push(name);
            at = dir;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }

    /// Returns an object's state as a stat tells it.
    pub fn stat(&self, id: Id) -> Fingerprint {
        let object = self.object(id);
        let (kind, size) = match &object.body {
            Body::File(bytes) => (Kind::File, bytes.len() as u64),
            Body::Dir(_) => (Kind::Dir, 4096),
            Body::Symlink(target) => (Kind::Symlink, target.len() as u64),
        };
        Fingerprint {
            kind,
            fs: 1,
            ino: object.ino,
            size,
            mtime_ns: object.attributes.mtime_ns,
            ctime_ns: object.attributes.ctime_ns,
            mode: object.attributes.mode,
            uid: object.attributes.uid,
            gid: object.attributes.gid,
            nlink: u32::from(object.linked),
        }
    }

    // Handles.

    /// Opens an object; every open needs its [`Fs::close`].
    pub fn open(&mut self, id: Id, writing: bool) {
        let object = self.object_mut(id);
        object.handles += 1;
        object.writers += u32::from(writing);
    }

    /// Closes a handle.
    pub fn close(&mut self, id: Id, writing: bool) {
        let object = self.object_mut(id);
        object.handles -= 1;
        object.writers -= u32::from(writing);
        if writing {
            self.notify(id, Change::Closed);
        }
        self.collect(id);
    }

    // Bytes and attributes.

    /// Writes at an offset, filling a gap with zeros.
    pub fn write_at(&mut self, id: Id, offset: u64, bytes: &[u8]) -> Result<(), TreeError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset as usize + bytes.len();
        self.change_bytes(id, |data| {
            if data.len() < end {
                data.resize(end, 0);
            }
            data[offset as usize..end].copy_from_slice(bytes);
        })
    }

    /// Cuts or extends a file.
    pub fn set_len(&mut self, id: Id, len: u64) -> Result<(), TreeError> {
        self.change_bytes(id, |data| data.resize(len as usize, 0))
    }

    fn change_bytes(&mut self, id: Id, change: impl FnOnce(&mut Vec<u8>)) -> Result<(), TreeError> {
        let (now, by_user, through) = (self.stamp(), self.user_acts, self.position());
        let object = self.object_mut(id);
        let Body::File(bytes) = &mut object.body else { return Err(TreeError::WrongKind) };
        let len = bytes.len();
        change(Arc::make_mut(bytes));
        if bytes.len() != len {
            object.datasync_through = through;
            object.resized = true;
        }
        object.by_user = by_user;
        object.sync_through = through;
        object.attributes.mtime_ns = now;
        object.attributes.ctime_ns = now;
        object.poisoned = false;
        Ok(())
    }

    /// Sets owner and group; a file loses its set-id bits.
    pub fn set_owner(&mut self, id: Id, uid: u32, gid: u32) {
        let now = self.stamp();
        let is_file = matches!(self.body(id), Body::File(_));
        let attributes = &mut self.object_mut(id).attributes;
        (attributes.uid, attributes.gid) = (uid, gid);
        if is_file {
            attributes.mode &= 0o1777;
        }
        attributes.ctime_ns = now;
        self.notify(id, Change::Attributes);
    }

    /// Sets permission bits.
    pub fn set_mode(&mut self, id: Id, mode: u32) {
        let now = self.stamp();
        let attributes = &mut self.object_mut(id).attributes;
        attributes.mode = mode;
        attributes.ctime_ns = now;
        self.notify(id, Change::Attributes);
    }

    /// Sets the modification time.
    pub fn set_mtime(&mut self, id: Id, mtime_ns: i64) {
        let now = self.stamp();
        let attributes = &mut self.object_mut(id).attributes;
        attributes.mtime_ns = mtime_ns;
        attributes.ctime_ns = now;
        self.notify(id, Change::Attributes);
    }

    // Names.

    /// Makes a file.
    pub fn create(&mut self, dir: Id, name: &[u8], mode: u32) -> Result<Id, TreeError> {
        self.add(dir, name, Body::File(Arc::default()), mode)
    }

    /// Makes a directory.
    pub fn make_dir(&mut self, dir: Id, name: &[u8], mode: u32) -> Result<Id, TreeError> {
        self.add(dir, name, Body::Dir(BTreeMap::new()), mode)
    }

    /// Makes a symbolic link.
    pub fn make_link(&mut self, dir: Id, name: &[u8], target: &[u8]) -> Result<Id, TreeError> {
        self.add(dir, name, Body::Symlink(target.to_vec()), 0o777)
    }

    fn add(&mut self, dir: Id, name: &[u8], body: Body, mode: u32) -> Result<Id, TreeError> {
        if self.names(dir)?.contains_key(name) {
            return Err(TreeError::Exists);
        }
        let id = self.make(body, mode);
        self.commit_later(vec![(dir, name.to_vec(), Some(id))]);
        let through = self.position();
        self.object_mut(id).datasync_through = through;
        self.notify(id, Change::Created);
        Ok(id)
    }

    /// Removes a file or link.
    pub fn unlink(&mut self, dir: Id, name: &[u8]) -> Result<(), TreeError> {
        let id = self.lookup(dir, name)?;
        if self.is_dir(id) {
            return Err(TreeError::WrongKind);
        }
        self.drop_name(dir, name, id);
        Ok(())
    }

    /// Removes an empty directory.
    pub fn remove_dir(&mut self, dir: Id, name: &[u8]) -> Result<(), TreeError> {
        let id = self.lookup(dir, name)?;
        if !self.names(id)?.is_empty() {
            return Err(TreeError::NotEmpty);
        }
        self.drop_name(dir, name, id);
        Ok(())
    }

    fn drop_name(&mut self, dir: Id, name: &[u8], id: Id) {
        self.notify(id, Change::Deleted);
        self.commit_later(vec![(dir, name.to_vec(), None)]);
        self.collect(id);
    }

    /// Renames.
    pub fn rename(
        &mut self,
        from: (Id, &[u8]),
        to: (Id, &[u8]),
        how: RenameHow,
    ) -> Result<(), TreeError> {
        let moved = self.lookup(from.0, from.1)?;
        let target = self.names(to.0)?.get(to.1).copied();
        if self.is_within(to.0, moved) {
            return Err(TreeError::Io("invalid argument".into()));
        }
        match (how, target) {
            (RenameHow::Exchange, None) => Err(TreeError::NotFound),
            (RenameHow::NoReplace, Some(_)) => Err(TreeError::Exists),
            (_, Some(target)) if target == moved => Ok(()),
            (RenameHow::Exchange, Some(target)) => self.swap(from, to, moved, target),
            (RenameHow::Replace, Some(target)) => {
                self.check_replaceable(moved, target)?;
                self.move_name(from, to, moved);
                self.forget_name(target);
                Ok(())
            }
            (_, None) => {
                self.move_name(from, to, moved);
                Ok(())
            }
        }
    }

    fn check_replaceable(&self, moved: Id, target: Id) -> Result<(), TreeError> {
        match (self.is_dir(moved), &self.object(target).body) {
            (true, Body::Dir(names)) if names.is_empty() => Ok(()),
            (true, Body::Dir(_)) => Err(TreeError::NotEmpty),
            (false, Body::File(_) | Body::Symlink(_)) => Ok(()),
            _ => Err(TreeError::WrongKind),
        }
    }

    fn move_name(&mut self, from: (Id, &[u8]), to: (Id, &[u8]), moved: Id) {
        self.notify(moved, Change::MovedFrom);
        self.commit_later(vec![
            (from.0, from.1.to_vec(), None),
            (to.0, to.1.to_vec(), Some(moved)),
        ]);
        self.touch_ctime(moved);
        self.notify(moved, Change::MovedTo);
    }

    fn swap(
        &mut self,
        one: (Id, &[u8]),
        other: (Id, &[u8]),
        first: Id,
        second: Id,
    ) -> Result<(), TreeError> {
        if self.is_within(one.0, second) {
            return Err(TreeError::Io("invalid argument".into()));
        }
        self.notify(first, Change::MovedFrom);
        self.notify(second, Change::MovedFrom);
        self.commit_later(vec![
            (one.0, one.1.to_vec(), Some(second)),
            (other.0, other.1.to_vec(), Some(first)),
        ]);
        self.touch_ctime(first);
        self.touch_ctime(second);
        self.notify(first, Change::MovedTo);
        self.notify(second, Change::MovedTo);
        Ok(())
    }

    fn touch_ctime(&mut self, id: Id) {
        let now = self.stamp();
        self.object_mut(id).attributes.ctime_ns = now;
    }

    /// True if `id` is `dir` or lies below it.
    fn is_within(&self, id: Id, dir: Id) -> bool {
        let mut at = Some(id);
        while let Some(id) = at {
            if id == dir {
                return true;
            }
            at = self.name_of(id).map(|(parent, _)| parent);
        }
        false
    }

    // Durability.

    /// Makes a file's bytes (and size) durable.
    pub fn sync_data(&mut self, id: Id) {
        let object = self.object_mut(id);
        if let Body::File(bytes) = &object.body {
            object.told_bytes = Arc::clone(bytes);
            if !object.poisoned {
                object.durable_bytes = Arc::clone(bytes);
                if std::mem::take(&mut object.resized) {
                    object.durable_attributes = object.attributes;
                }
            }
        }
        let through = object.datasync_through;
        self.commit_through(through);
    }

    /// Makes a file's bytes and attributes durable, or a directory's attributes.
    pub fn sync(&mut self, id: Id) {
        self.sync_data(id);
        let object = self.object_mut(id);
        object.durable_attributes = object.attributes;
        let through = object.sync_through;
        self.commit_through(through);
    }

    /// A sync that failed: the kernel drops the dirty pages and forgets it.
    pub fn fail_sync(&mut self, id: Id) {
        self.object_mut(id).poisoned = true;
    }

    /// True if a sync of this file has failed, and what later ones said is not true.
    pub fn is_poisoned(&self, id: Id) -> bool {
        self.object(id).poisoned
    }

    /// True if the last power cut left a file that has other bytes than a sync said are on the disk, and looks as it
    /// did then: its bytes, overwritten in place, were on the disk and its new times were not, or an earlier sync had
    /// failed and dropped them.
    pub fn is_rotten(&self, id: Id) -> bool {
        self.object(id).rotten
    }

    /// Makes the names of a directory durable, with all that was changed before them.
    pub fn sync_dir(&mut self, dir: Id) {
        let touches = |transaction: &Transaction| transaction.iter().any(|(at, ..)| *at == dir);
        let end = self.journal.iter().rposition(touches).map_or(0, |last| last + 1);
        self.commit(end);
        let object = self.object_mut(dir);
        object.durable_attributes = object.attributes;
    }

    /// True if a power cut now would leave this file, whole, under this name, as far as anyone can
    /// know: after a sync that failed later ones succeed and keep nothing.
    pub fn is_durable(&self, components: &[&[u8]], id: Id) -> bool {
        let mut at = ROOT;
        for name in components {
            let found = self.durable_names.get(&at).and_then(|names| names.get(*name));
            let Some(&next) = found else { return false };
            at = next;
        }
        at == id && self.has_durable_bytes(id)
    }

    /// True if a power cut now would leave this file, whole, under another name, and all that keeps it from the
    /// one that it has is that users gave it, or a directory above it, that name since.
    pub fn is_durable_elsewhere(&self, id: Id) -> bool {
        let mut at = id;
        while let Some((dir, name)) = self.name_of(at) {
            let durable = self.durable_names.get(&dir).and_then(|names| names.get(name));
            if durable != Some(&at) && !self.object(at).named_by_user {
                return false;
            }
            at = dir;
        }
        self.has_durable_name_below(ROOT, id) && self.has_durable_bytes(id)
    }

    fn has_durable_bytes(&self, id: Id) -> bool {
        let object = self.object(id);
        let whole = self.bytes(id).is_ok_and(|bytes| *bytes == object.durable_bytes);
        whole || object.poisoned
    }

    fn has_durable_name_below(&self, dir: Id, id: Id) -> bool {
        let names = self.durable_names.get(&dir).into_iter().flatten();
        let mut of_users = names.filter(|(name, _)| dir != ROOT || name.as_slice() != b".recsync");
        of_users.any(|(_, &at)| at == id || self.has_durable_name_below(at, id))
    }

    fn commit_through(&mut self, position: u64) {
        let end = position.saturating_sub(self.committed) as usize;
        self.commit(end.min(self.journal.len()));
    }

    /// Returns the position behind the last transaction, which a sync must reach to cover it.
    fn position(&self) -> u64 {
        self.committed + self.journal.len() as u64
    }

    fn commit(&mut self, end: usize) {
        self.committed += end as u64;
        for transaction in self.journal.drain(..end) {
            for (dir, name, id) in transaction {
                let names = self.durable_names.entry(dir).or_default();
                match id {
                    Some(id) => drop(names.insert(name, id)),
                    None => drop(names.remove(&name)),
                }
            }
        }
        if self.journal.is_empty() {
            self.collect_all();
        }
    }

    /// Cuts the power: what was not synced is lost, kept or kept in part, by chance.
    pub fn crash(&mut self, rng: &mut Rng) {
        let kept = rng.index(self.journal.len() + 1);
        self.commit(kept);
        self.committed += self.journal.len() as u64;
        self.journal.clear();
        self.watched.clear();
        self.notices.clear();
        for (id, object) in &mut self.objects {
            object.linked = *id == ROOT;
            object.handles = 0;
            object.writers = 0;
            object.poisoned = false;
            let is_old = rng.chance(500_000);
            if is_old {
                object.attributes = object.durable_attributes;
            }
            let is_old_size = std::mem::take(&mut object.resized) && is_old;
            match &mut object.body {
                Body::File(bytes) => {
                    let left = survivor(bytes, &object.durable_bytes, rng);
                    *bytes = if is_old_size { Arc::clone(&object.durable_bytes) } else { left };
                    object.rotten = object.attributes == object.durable_attributes
                        && bytes.len() == object.told_bytes.len()
                        && *bytes != object.told_bytes;
                }
                Body::Dir(names) => {
                    *names = self.durable_names.get(id).cloned().unwrap_or_default();
                }
                Body::Symlink(_) => {}
            }
        }
        self.relink(ROOT);
        self.collect_all();
        for object in self.objects.values_mut() {
            if let Body::File(bytes) = &object.body {
                object.durable_bytes = Arc::clone(bytes);
                object.told_bytes = Arc::clone(bytes);
            }
            object.durable_attributes = object.attributes;
        }
        self.inos = self.objects.values().map(|object| object.ino).collect();
    }

    fn relink(&mut self, dir: Id) {
        let Ok(names) = self.names(dir) else { return };
        for (name, id) in names.clone() {
            let object = self.object_mut(id);
            object.parent = Some((dir, name));
            object.linked = true;
            self.relink(id);
        }
    }

    // Watching.

    /// Watches a directory's names from now on.
    pub fn watch(&mut self, dir: Id) {
        self.watched.insert(dir);
    }

    /// Watches a directory no more.
    pub fn unwatch(&mut self, dir: Id) {
        self.watched.remove(&dir);
    }

    /// Watches nothing any more and forgets what was noticed.
    pub fn unwatch_all(&mut self) {
        self.watched.clear();
        self.notices.clear();
    }

    /// True if something was noticed since the last [`Fs::take_notices`].
    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// Takes what was noticed since the last call, oldest first.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn notify(&mut self, id: Id, change: Change) {
        let Some((dir, name)) = self.name_of(id) else { return };
        if self.watched.contains(&dir) {
            let notice = Notice { dir, name: name.to_vec(), change, is_dir: self.is_dir(id) };
            // The kernel merges a notification with an equal one just before it.
            if self.notices.last() != Some(&notice) {
                self.notices.push(notice);
            }
        }
    }

    // Objects.

    fn make(&mut self, body: Body, mode: u32) -> Id {
        let id = Id(self.next_id);
        self.next_id += 1;
        let ino = (2..).find(|ino| !self.inos.contains(ino)).expect("numbers do not end");
        self.inos.insert(ino);
        let now = self.stamp();
        let attributes = Attributes { mode, mtime_ns: now, ctime_ns: now, uid: 1000, gid: 1000 };
        self.objects.insert(
            id,
            Object {
                ino,
                body,
                attributes,
                durable_bytes: Arc::default(),
                told_bytes: Arc::default(),
                durable_attributes: attributes,
                sync_through: 0,
                datasync_through: 0,
                resized: false,
                poisoned: false,
                rotten: false,
                parent: None,
                linked: false,
                handles: 0,
                writers: 0,
                by_user: self.user_acts,
                named_by_user: self.user_acts,
            },
        );
        id
    }

    /// Changes names now and notes them for the journal.
    fn commit_later(&mut self, transaction: Transaction) {
        let now = self.stamp();
        for (dir, name, id) in &transaction {
            let attributes = &mut self.object_mut(*dir).attributes;
            attributes.mtime_ns = now;
            attributes.ctime_ns = now;
            let Body::Dir(names) = &mut self.object_mut(*dir).body else {
                unreachable!("only directories have names")
            };
            let before = match id {
                Some(id) => names.insert(name.clone(), *id),
                None => names.remove(name),
            };
            if let Some(before) = before {
                let object = self.object_mut(before);
                if object.parent.as_ref() == Some(&(*dir, name.clone())) {
                    object.linked = false;
                }
            }
            if let Some(id) = id {
                let by_user = self.user_acts;
                let object = self.object_mut(*id);
                object.parent = Some((*dir, name.clone()));
                object.linked = true;
                object.named_by_user = by_user;
            }
        }
        let position = self.position() + 1;
        for (_, _, id) in &transaction {
            if let Some(id) = id {
                self.object_mut(*id).sync_through = position;
            }
        }
        self.journal.push(transaction);
    }

    fn forget_name(&mut self, id: Id) {
        self.object_mut(id).linked = false;
        self.collect(id);
    }

    /// Frees the inode number of an object without name and handle; the object itself goes when
    /// the durable state does not need it any more.
    fn collect(&mut self, id: Id) {
        let object = self.object(id);
        if !object.linked && object.handles == 0 {
            let ino = object.ino;
            self.inos.remove(&ino);
            self.watched.remove(&id);
        }
    }

    fn collect_all(&mut self) {
        let durable: BTreeSet<Id> =
            self.durable_names.values().flat_map(|names| names.values().copied()).collect();
        self.objects
            .retain(|id, object| object.linked || object.handles > 0 || durable.contains(id));
        let objects = &self.objects;
        self.durable_names.retain(|dir, _| objects.contains_key(dir));
    }

    fn stamp(&self) -> i64 {
        // Ticks do not begin with the second: a time of a whole second means another filesystem.
        let phase = 123_457 % self.tick_ns;
        self.wall_ns - (self.wall_ns - phase).rem_euclid(self.tick_ns)
    }

    fn object(&self, id: Id) -> &Object {
        &self.objects[&id]
    }

    fn object_mut(&mut self, id: Id) -> &mut Object {
        self.objects.get_mut(&id).expect("an object that is named or open exists")
    }
}

/// What a power cut leaves of a file whose bytes on disk are `durable`.
fn survivor(cached: &Arc<Vec<u8>>, durable: &Arc<Vec<u8>>, rng: &mut Rng) -> Arc<Vec<u8>> {
    if cached == durable {
        return Arc::clone(cached);
    }
    match rng.below(6) {
        0 | 1 => Arc::clone(durable),
        2 => Arc::clone(cached),
        3 => Arc::new(cached[..rng.index(cached.len() + 1)].to_vec()),
        // The new size is on disk, the new bytes are not.
        4 => Arc::new(vec![0; cached.len()]),
        _ => Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fs() -> Fs {
        Fs::new(1_000_000_000, 1)
    }

    /// Runs a crash with many seeds and returns the bytes that `name` may hold afterwards.
    fn after_crash(name: &[u8], steps: impl Fn(&mut Fs)) -> BTreeSet<Option<Vec<u8>>> {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let mut fs = fs();
            steps(&mut fs);
            fs.crash(&mut Rng::new(seed));
            let found = fs.resolve(&[name]).ok();
            seen.insert(found.map(|id| fs.bytes(id).unwrap().to_vec()));
        }
        seen
    }

    #[test]
    fn what_is_synced_survives() {
        let seen = after_crash(b"a", |fs| {
            let file = fs.create(ROOT, b"a", 0o644).unwrap();
            fs.write_at(file, 0, b"call").unwrap();
            fs.sync(file);
            fs.sync_dir(ROOT);
        });
        assert_eq!(seen, BTreeSet::from([Some(b"call".to_vec())]));
    }

    #[test]
    fn a_data_sync_keeps_a_new_name_but_not_a_later_rename() {
        let new = after_crash(b"a", |fs| {
            let file = fs.create(ROOT, b"a", 0o644).unwrap();
            fs.write_at(file, 0, b"call").unwrap();
            fs.sync_data(file);
        });
        assert_eq!(new, BTreeSet::from([Some(b"call".to_vec())]));
        let renamed = |sync: fn(&mut Fs, Id)| {
            after_crash(b"b", move |fs| {
                let file = fs.create(ROOT, b"a", 0o644).unwrap();
                fs.write_at(file, 0, b"call").unwrap();
                fs.sync_data(file);
                fs.rename((ROOT, b"a"), (ROOT, b"b"), RenameHow::Replace).unwrap();
                sync(fs, file);
            })
        };
        assert_eq!(renamed(Fs::sync_data), BTreeSet::from([None, Some(b"call".to_vec())]));
        assert_eq!(renamed(Fs::sync), BTreeSet::from([Some(b"call".to_vec())]));
    }

    #[test]
    fn unsynced_bytes_may_be_gone_cut_or_zero() {
        let seen = after_crash(b"a", |fs| {
            let file = fs.create(ROOT, b"a", 0o644).unwrap();
            fs.write_at(file, 0, b"call").unwrap();
            fs.sync_dir(ROOT);
        });
        for expected in [&b""[..], b"ca", b"call", &[0; 4]] {
            assert!(seen.contains(&Some(expected.to_vec())), "{expected:?} never happened");
        }
    }

    #[test]
    fn a_rename_is_kept_whole_or_not_at_all() {
        for seed in 0..100 {
            let mut fs = fs();
            let dir = fs.make_dir(ROOT, b"d", 0o755).unwrap();
            fs.create(ROOT, b"a", 0o644).unwrap();
            fs.sync_dir(ROOT);
            fs.rename((ROOT, b"a"), (dir, b"b"), RenameHow::NoReplace).unwrap();
            fs.crash(&mut Rng::new(seed));
            let (old, new) = (fs.resolve(&[b"a"]).is_ok(), fs.resolve(&[b"d", b"b"]).is_ok());
            assert!(old != new, "one of the two names");
        }
    }

    #[test]
    fn a_failed_sync_poisons_the_next() {
        let seen = after_crash(b"a", |fs| {
            let file = fs.create(ROOT, b"a", 0o644).unwrap();
            fs.sync_dir(ROOT);
            fs.write_at(file, 0, b"call").unwrap();
            fs.fail_sync(file);
            fs.sync(file);
        });
        assert!(seen.contains(&Some(Vec::new())));
    }

    #[test]
    fn a_file_that_was_cut_and_written_anew_does_not_look_as_before() {
        for seed in 0..200 {
            let mut fs = fs();
            let file = fs.create(ROOT, b"a", 0o644).unwrap();
            fs.write_at(file, 0, b"call").unwrap();
            fs.sync_data(file);
            fs.sync_dir(ROOT);
            let before = fs.stat(file);
            fs.wall_ns += 1_000_000_000;
            fs.set_len(file, 0).unwrap();
            fs.write_at(file, 0, b"word").unwrap();
            fs.crash(&mut Rng::new(seed));
            let is_old = fs.bytes(file).unwrap().as_slice() == b"call";
            assert!(is_old || fs.stat(file) != before, "seed {seed}");
        }
    }

    #[test]
    fn a_file_overwritten_in_place_may_look_as_before() {
        let mut rotten = 0;
        for seed in 0..200 {
            let mut fs = fs();
            let file = fs.create(ROOT, b"a", 0o644).unwrap();
            fs.write_at(file, 0, b"call").unwrap();
            fs.sync(file);
            fs.sync_dir(ROOT);
            let before = fs.stat(file);
            fs.wall_ns += 1_000_000_000;
            fs.write_at(file, 0, b"word").unwrap();
            fs.crash(&mut Rng::new(seed));
            let is_old = fs.bytes(file).unwrap().as_slice() == b"call";
            assert_eq!(fs.is_rotten(file), !is_old && fs.stat(file) == before, "seed {seed}");
            rotten += usize::from(fs.is_rotten(file));
        }
        assert!(rotten > 0);
    }

    #[test]
    fn what_a_user_takes_away_and_back_while_it_is_synced_is_durable_under_the_other_name() {
        for by_user in [true, false] {
            let mut fs = fs();
            fs.make_dir(ROOT, b".recsync", 0o755).unwrap();
            let own = fs.resolve(&[b".recsync"]).unwrap();
            let file = fs.create(own, b"temp", 0o644).unwrap();
            fs.write_at(file, 0, b"call").unwrap();
            fs.sync(file);
            fs.rename((own, b"temp"), (ROOT, b"a"), RenameHow::NoReplace).unwrap();
            assert!(!fs.is_durable_elsewhere(file), "recsync has named it");
            fs.user_acts = by_user;
            fs.rename((ROOT, b"a"), (ROOT, b"b"), RenameHow::NoReplace).unwrap();
            assert!(!fs.is_durable_elsewhere(file), "it has no name of the share's yet");
            fs.sync_dir(ROOT);
            fs.rename((ROOT, b"b"), (ROOT, b"a"), RenameHow::NoReplace).unwrap();
            assert!(!fs.is_durable(&[b"a"], file));
            assert_eq!(fs.is_durable_elsewhere(file), by_user);
        }
    }

    #[test]
    fn an_inode_number_is_reused_while_the_old_object_is_durable() {
        let mut fs = fs();
        let old = fs.create(ROOT, b"a", 0o644).unwrap();
        fs.sync_dir(ROOT);
        let ino = fs.stat(old).ino;
        fs.unlink(ROOT, b"a").unwrap();
        let new = fs.create(ROOT, b"b", 0o644).unwrap();
        assert_eq!(fs.stat(new).ino, ino);
        assert_ne!(new, old);
    }

    #[test]
    fn an_open_file_outlives_its_name() {
        let mut fs = fs();
        let file = fs.create(ROOT, b"a", 0o644).unwrap();
        fs.open(file, true);
        fs.unlink(ROOT, b"a").unwrap();
        fs.write_at(file, 0, b"late").unwrap();
        assert_eq!(fs.stat(file).nlink, 0);
        fs.sync_dir(ROOT);
        assert_eq!(fs.bytes(file).unwrap().as_slice(), b"late");
        fs.close(file, true);
    }
}
