//! A small world for the engine: nodes with a disk of plain maps, links that are queues, and a
//! clock that jumps to the next due time.
//!
//! The engine and the index are the production ones. The fake shell around them does what the
//! effects say, in order or in a random one, and checks after each turn that the engine neither
//! asks for a tick in the past nor leaves anything unfinished.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use recsync_proto::message::{Announcement, Bytes, Lane, ShareMessage};
use recsync_proto::record::hash_of;
use recsync_proto::{Account, Content, Dot, Epoch, Hash, NodeName, Owner, SharePath};

use crate::engine::plan::{Circumstances, Step, plan};
use crate::engine::{
    Action, Announce, DeletePolicy, Done, Effect, Engine, Event, Hint, IMPLIED_DIR_MODE, Input,
    Load, Look, MaxDelete, NotFetched, Noticed, Now, Op, Outcome, OwnerPolicy, Settings, Source,
    version,
};
use crate::index::{Entry, Index as _, IndexRead as _, Installed, Intent, Memory, Write};
use crate::tree::{Fingerprint, Kind, OwnerLeft, Place, TreeError};

/// 2026-11-22T10:00:00Z: where every world's wall clock starts.
pub(super) const START_NS: i64 = 1_795_341_600 * 1_000_000_000;
/// Actions in one run beyond which it is a storm.
const STORM: u64 = 200_000;

pub(super) fn path(text: &str) -> SharePath {
    SharePath::new(text).unwrap()
}

pub(super) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(super) fn file(bytes: &[u8]) -> Content {
    Content::File { size: bytes.len() as u64, hash: hash_of(bytes) }
}

/// What the watcher tells of an operation.
type Seen = Vec<(SharePath, Hint)>;

/// What a name of a fake disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Dir,
    File(Vec<u8>),
    Link(Vec<u8>),
    Special,
}

#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) what: What,
    pub(super) ino: u64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
    pub(super) mode: u32,
    /// Owner and group, both with this number, which is their name too.
    pub(super) account: u32,
    /// Someone has it open for writing.
    pub(super) writer: bool,
}

impl Object {
    fn fingerprint(&self) -> Fingerprint {
        let (kind, size) = match &self.what {
            What::Dir => (Kind::Dir, 4_096),
            What::File(bytes) => (Kind::File, bytes.len() as u64),
            What::Link(target) => (Kind::Symlink, target.len() as u64),
            What::Special => (Kind::Special, 0),
        };
        Fingerprint {
            kind,
            fs: 1,
            ino: self.ino,
            size,
            mtime_ns: self.mtime_ns,
            ctime_ns: self.ctime_ns,
            mode: self.mode,
            uid: self.account,
            gid: self.account,
            nlink: 1,
        }
    }
}

/// Returns an owner whose account and group are a number.
pub(super) fn owner(account: u32) -> Owner {
    Owner { user: Account::of_number(account), group: Account::of_number(account) }
}

/// A share's files.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) objects: BTreeMap<SharePath, Object>,
    /// What was displaced, with the path it had.
    pub(super) trash: Vec<(SharePath, What)>,
    next_ino: u64,
    time_ns: i64,
    /// What looks at some paths show, whatever is there.
    pub(super) shows: BTreeMap<SharePath, Look>,
    /// Paths where operations fail.
    pub(super) refuses: BTreeMap<SharePath, TreeError>,
    /// Paths where the next operation is made and not known to be durable.
    pub(super) unsure: BTreeSet<SharePath>,
    /// Operations that have put something in the place of something else.
    exchanged: BTreeSet<u64>,
    /// Places that a scan cannot look at.
    pub(super) unreadable: BTreeSet<SharePath>,
    /// Whether an exchange was made cannot be seen at a start.
    pub(super) hides_temp: bool,
    /// What came out of exchanges is gone: nothing tells a start whether they were made.
    pub(super) tells_nothing: bool,
    /// It may not give files away: new ones belong to this account.
    pub(super) bound_to: Option<u32>,
}

impl Disk {
    /// Returns a time later than every one before: no two changes have the same.
    fn tick(&mut self) -> i64 {
        self.time_ns += 1;
        self.time_ns
    }

    fn put(&mut self, path: &SharePath, what: What, mode: u32) {
        let now = self.tick();
        self.next_ino += 1;
        let ino = self.next_ino;
        let account = self.bound_to.unwrap_or(0);
        let object =
            Object { what, ino, mtime_ns: now, ctime_ns: now, mode, account, writer: false };
        self.objects.insert(path.clone(), object);
    }

    fn stat(&self, path: &SharePath) -> Option<Fingerprint> {
        self.objects.get(path).map(Object::fingerprint)
    }

    fn is_dir(&self, path: &SharePath) -> bool {
        path.is_root() || self.objects.get(path).is_some_and(|object| object.what == What::Dir)
    }

    fn below(&self, dir: &SharePath) -> Vec<SharePath> {
        self.objects.keys().filter(|path| path.is_below(dir)).cloned().collect()
    }

    /// Moves one object with all below it.
    fn rename(&mut self, from: &SharePath, to: &SharePath) {
        let moved: Vec<_> = self.below(from).into_iter().chain([from.clone()]).collect();
        for old in moved {
            let tail = &old.as_bytes()[from.as_bytes().len()..];
            let new = SharePath::new([to.as_bytes(), tail].concat()).unwrap();
            let mut object = self.objects.remove(&old).unwrap();
            if old == *from {
                object.ctime_ns = self.tick();
            }
            self.objects.insert(new, object);
        }
    }

    /// As `observe::look` does.
    fn look(&self, path: &SharePath, installed: Option<&Installed>, hint: Hint) -> Look {
        if let Some(look) = self.shows.get(path) {
            return look.clone();
        }
        let Some(object) = self.objects.get(path) else { return Look::Absent };
        let fingerprint = object.fingerprint();
        let closed = hint == Hint::Written && matches!(object.what, What::File(_));
        if !closed && installed.is_some_and(|installed| installed.fingerprint == fingerprint) {
            return Look::Unchanged;
        }
        let content = match &object.what {
            What::Special => return Look::Special,
            What::File(_) if object.writer => return Look::Busy,
            What::Dir => Content::Dir,
            What::File(bytes) => file(bytes),
            What::Link(target) => Content::Symlink { target: target.clone() },
        };
        Look::Found { content, fingerprint, owner: Some(owner(object.account)) }
    }

    fn is_expected(&self, path: &SharePath, expect: &Fingerprint) -> bool {
        self.stat(path).is_some_and(|found| {
            found == *expect
                || expect.kind == Kind::Dir && (found.kind, found.ino) == (Kind::Dir, expect.ino)
        })
    }

    /// As `apply::run` does. Returns the paths that the watcher will tell of too.
    fn apply(&mut self, op: &Op) -> Result<(Done, Seen), Box<Outcome>> {
        if let Some(error) = self.refuses.get(&op.path) {
            return Err(Outcome::Failed(error.clone()).into());
        }
        let expected = match &op.expect {
            Some(expect) => self.is_expected(&op.path, expect),
            None => !self.objects.contains_key(&op.path),
        };
        if !expected {
            return Err(Outcome::Changed.into());
        }
        if self.objects.get(&op.path).is_some_and(|object| object.writer) {
            return Err(Outcome::Writer.into());
        }
        let mut done = Done::default();
        let mut seen = Seen::new();
        let makes = |what, mtime_ns, mode| Some((what, mtime_ns, mode));
        let new = match &op.action {
            Action::File { size, hash, mtime_ns, mode, source, .. } => {
                let bytes = self.bytes(source).filter(|bytes| hash_of(bytes) == *hash);
                let bytes = bytes.filter(|bytes| bytes.len() as u64 == *size);
                let bytes = bytes.ok_or(Outcome::BadSource)?;
                makes(What::File(bytes), *mtime_ns, *mode)
            }
            Action::Dir { mode, .. } => makes(What::Dir, self.time_ns, *mode),
            Action::Symlink { target, mtime_ns, .. } => {
                makes(What::Link(target.clone()), *mtime_ns, 0o777)
            }
            Action::Remove | Action::Move { .. } | Action::Metadata { .. } => None,
        };
        if let Action::Move { from, from_expect, .. } = &op.action {
            if !self.is_expected(from, from_expect) {
                return Err(Outcome::Changed.into());
            }
            if self.objects[from].writer {
                return Err(Outcome::Writer.into());
            }
        }
        if op.expect.is_none() {
            self.make_parents(op, &mut done, &mut seen)?;
        }
        let replaces = new.is_some() || op.action == Action::Remove;
        if replaces && op.expect.is_some() {
            done.displaced = self.displace(op, &mut seen)?;
            self.exchanged.extend(new.is_some().then_some(op.id));
        }
        match &op.action {
            Action::Remove => seen.push((op.path.clone(), Hint::Deleted)),
            Action::Move { from, mtime_ns, mode, .. } => {
                self.rename(from, &op.path);
                self.dress(&op.path, Some(*mtime_ns), *mode);
                seen.extend([(from.clone(), Hint::MovedAway), (op.path.clone(), Hint::Created)]);
            }
            Action::Metadata { mode, mtime_ns, .. } => {
                self.dress(&op.path, *mtime_ns, *mode);
                seen.push((op.path.clone(), Hint::Attributes));
            }
            Action::File { .. } | Action::Dir { .. } | Action::Symlink { .. } => {}
        }
        if let Some((what, mtime_ns, mode)) = new {
            self.put(&op.path, what, mode);
            self.dress(&op.path, Some(mtime_ns), None);
            seen.push((op.path.clone(), Hint::Created));
        }
        done.owner_left = self.give(op);
        done.fingerprint = self.stat(&op.path);
        Ok((done, seen))
    }

    fn give(&mut self, op: &Op) -> Option<OwnerLeft> {
        let (Action::File { owner, .. }
        | Action::Dir { owner, .. }
        | Action::Symlink { owner, .. }
        | Action::Move { owner, .. }
        | Action::Metadata { owner, .. }) = &op.action
        else {
            return None;
        };
        let number = owner.as_ref()?.user.as_str().parse().unwrap();
        if self.bound_to.is_some_and(|account| account != number) {
            return Some(OwnerLeft::NotAllowed);
        }
        self.chown(&op.path, number);
        None
    }

    fn chown(&mut self, path: &SharePath, account: u32) {
        let now = self.tick();
        let object = self.objects.get_mut(path).unwrap();
        (object.account, object.ctime_ns) = (account, now);
    }

    fn dress(&mut self, path: &SharePath, mtime_ns: Option<i64>, mode: Option<u32>) {
        let now = self.tick();
        let object = self.objects.get_mut(path).unwrap();
        object.ctime_ns = now;
        object.mtime_ns = mtime_ns.unwrap_or(object.mtime_ns);
        object.mode = mode.unwrap_or(object.mode);
    }

    fn bytes(&self, source: &Source) -> Option<Vec<u8>> {
        match source {
            Source::Inline(bytes) => Some(bytes.to_vec()),
            Source::Staged(name) => panic!("nobody staged {name}"),
            Source::Local(path) => match &self.objects.get(path)?.what {
                What::File(bytes) => Some(bytes.clone()),
                _ => None,
            },
        }
    }

    fn make_parents(
        &mut self,
        op: &Op,
        done: &mut Done,
        seen: &mut Seen,
    ) -> Result<(), Box<Outcome>> {
        let mut missing: Vec<_> = op.path.ancestors().collect();
        missing.retain(|dir| !self.is_dir(dir));
        if missing.iter().any(|dir| self.objects.contains_key(dir)) {
            return Err(Outcome::Changed.into());
        }
        for dir in missing.into_iter().rev() {
            self.put(&dir, What::Dir, IMPLIED_DIR_MODE);
            done.made.push((dir.clone(), self.stat(&dir).unwrap()));
            seen.push((dir, Hint::Created));
        }
        Ok(())
    }

    fn displace(
        &mut self,
        op: &Op,
        seen: &mut Seen,
    ) -> Result<Option<(Place, Fingerprint)>, Box<Outcome>> {
        let is_dir = self.is_dir(&op.path);
        if is_dir && !self.below(&op.path).is_empty() {
            return Err(Outcome::Changed.into());
        }
        match &op.displaced {
            _ if is_dir => drop(self.objects.remove(&op.path)),
            Some(Place::Share(copy)) => {
                if self.objects.contains_key(copy) {
                    return Err(Outcome::Changed.into());
                }
                self.rename(&op.path.clone(), copy);
                seen.push((copy.clone(), Hint::Created));
                return Ok(self.stat(copy).map(|stat| (Place::Share(copy.clone()), stat)));
            }
            Some(place @ Place::Trash { .. }) => {
                let object = self.objects.remove(&op.path).unwrap();
                let stat = object.fingerprint();
                self.trash.push((op.path.clone(), object.what));
                return Ok(Some((place.clone(), stat)));
            }
            other => panic!("{op:?} has no place for what it displaces: {other:?}"),
        }
        Ok(None)
    }
}

/// One node.
pub(super) struct Node {
    pub(super) name: NodeName,
    pub(super) disk: Disk,
    pub(super) index: Memory,
    pub(super) engine: Engine,
    pub(super) settings: Settings,
    pub(super) inbox: VecDeque<Input>,
    pub(super) jobs: Vec<Effect>,
    /// All effects since the last [`World::forget`].
    pub(super) log: Vec<Effect>,
    /// Dots minted for changes made here, since the beginning.
    minted: BTreeSet<Dot>,
    /// What the wall clock is off by, nanoseconds.
    pub(super) skew_ns: i64,
    next_op: u64,
}

impl Node {
    fn new(name: &NodeName, number: u64, peers: Vec<NodeName>) -> Self {
        let settings = Settings {
            node: name.clone(),
            settle: Duration::from_millis(20),
            max_delete: MaxDelete { percent: Some(100), count: None },
            peers,
            owner: OwnerPolicy::Name,
            deletes: DeletePolicy::Propagate,
            ignore: Arc::default(),
        };
        let index = Memory::new(Epoch(number));
        let engine = Engine::new(settings.clone(), &index, 1, true).unwrap();
        let disk = Disk { time_ns: START_NS, next_ino: number << 32, ..Disk::default() };
        Node {
            name: name.clone(),
            disk,
            index,
            engine,
            settings,
            inbox: VecDeque::new(),
            jobs: Vec::new(),
            log: Vec::new(),
            minted: BTreeSet::new(),
            skew_ns: 0,
            next_op: 1,
        }
    }

    pub(super) fn entry(&self, text: &str) -> Entry {
        self.index.entry(&path(text)).unwrap().unwrap_or_default()
    }

    /// All paths that the index knows.
    pub(super) fn entries(&self) -> Vec<(SharePath, Entry)> {
        self.index.entries()
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.log.iter().filter_map(|effect| match effect {
            Effect::Event(event) => Some(event),
            _ => None,
        })
    }

    pub(super) fn announced(&self) -> Vec<&Announce> {
        self.log
            .iter()
            .filter_map(|effect| match effect {
                Effect::Announce(announce) => Some(&**announce),
                _ => None,
            })
            .collect()
    }

    pub(super) fn fetches(&self) -> usize {
        self.log.iter().filter(|effect| matches!(effect, Effect::Fetch { .. })).count()
    }

    pub(super) fn looks(&self) -> usize {
        self.log.iter().filter(|effect| matches!(effect, Effect::Look { .. })).count()
    }

    pub(super) fn ops(&self) -> Vec<&Op> {
        self.log
            .iter()
            .filter_map(|effect| match effect {
                Effect::Apply { op, .. } => Some(op),
                _ => None,
            })
            .collect()
    }

    pub(super) fn conflicts(&self) -> usize {
        self.disk.objects.keys().filter(|path| path.to_string().contains(".conflict-")).count()
    }

    /// The tree as people see it.
    pub(super) fn tree(&self) -> Vec<String> {
        self.disk.objects.iter().map(|(path, object)| show(path, object)).collect()
    }
}

fn show(path: &SharePath, object: &Object) -> String {
    let account = match object.account {
        0 => String::new(),
        account => format!(" of {account}"),
    };
    match &object.what {
        What::Dir => format!("{path}/{account}"),
        What::File(bytes) => format!(
            "{path} = {} {:o} {}{account}",
            String::from_utf8_lossy(bytes),
            object.mode,
            object.mtime_ns
        ),
        What::Link(target) => {
            let target = String::from_utf8_lossy(target);
            format!("{path} -> {target} {}{account}", object.mtime_ns)
        }
        What::Special => format!("{path} special"),
    }
}

/// Numbers from a seed: splitmix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % sides as u64).unwrap()
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Turn(usize),
    Job(usize, usize),
    Deliver(usize, usize, Lane),
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Duration,
    up: BTreeSet<(usize, usize)>,
    wires: BTreeMap<(usize, usize, Lane), VecDeque<ShareMessage>>,
    held_up: Option<(usize, usize, Lane)>,
    /// With dice, what happens next is thrown; without, everything happens in its order.
    pub(super) dice: Option<Dice>,
    /// Inputs taken in one turn, at most.
    pub(super) batch: usize,
}

impl World {
    /// Nodes that know each other; nothing is linked, scanned or said yet.
    pub(super) fn new(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| node(name)).collect();
        let peers_of = |name: &NodeName| names.iter().filter(|n| *n != name).cloned().collect();
        let nodes = names.iter().zip(1..).map(|(name, n)| Node::new(name, n, peers_of(name)));
        World {
            nodes: nodes.collect(),
            now: Duration::from_secs(1),
            up: BTreeSet::new(),
            wires: BTreeMap::new(),
            held_up: None,
            dice: None,
            batch: 256,
        }
    }

    /// Two nodes, linked, empty and quiet.
    pub(super) fn pair() -> Self {
        let mut world = World::new(&["fs1", "fs2"]);
        world.scan(0);
        world.scan(1);
        world.link(0, 1);
        world.settle();
        world.forget();
        world
    }

    pub(super) fn time(&self, of: usize) -> Now {
        let since = i64::try_from(self.now.as_nanos()).unwrap();
        Now { wall_ns: START_NS + since + self.nodes[of].skew_ns, mono: self.now }
    }

    /// Forgets the logged effects.
    pub(super) fn forget(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.log.clear());
    }

    // ---- what users do -----------------------------------------------------------------------

    pub(super) fn notice(&mut self, of: usize, path: &SharePath, hint: Hint) {
        let noticed = Noticed::Watcher(self.now);
        self.nodes[of].inbox.push_back(Input::Dirty { path: path.clone(), hint, noticed });
    }

    fn advance_disk_clock(&mut self, of: usize) {
        let now = self.time(of).wall_ns;
        let disk = &mut self.nodes[of].disk;
        disk.time_ns = disk.time_ns.max(now);
    }

    fn mkparents(&mut self, of: usize, path: &SharePath) {
        let mut missing: Vec<_> = path.ancestors().collect();
        missing.retain(|dir| !self.nodes[of].disk.is_dir(dir));
        for dir in missing.into_iter().rev() {
            self.nodes[of].disk.put(&dir, What::Dir, 0o755);
            self.notice(of, &dir, Hint::Created);
        }
    }

    fn clear_way(&mut self, of: usize, path: &SharePath) {
        let in_way: Vec<_> = path
            .ancestors()
            .filter(|dir| self.nodes[of].disk.objects.contains_key(dir))
            .filter(|dir| !self.nodes[of].disk.is_dir(dir))
            .collect();
        for object in in_way {
            self.remove_path(of, &object);
        }
    }

    /// Puts something new under a name, in place of what was there.
    pub(super) fn make(&mut self, of: usize, text: &str, what: What) {
        let path = path(text);
        self.advance_disk_clock(of);
        self.clear_way(of, &path);
        self.mkparents(of, &path);
        if self.nodes[of].disk.is_dir(&path) {
            if what == What::Dir {
                return;
            }
            self.remove_path(of, &path);
        }
        let mode = if what == What::Dir { 0o755 } else { 0o644 };
        let hint = if matches!(what, What::File(_)) { Hint::Written } else { Hint::Created };
        self.nodes[of].disk.put(&path, what, mode);
        self.notice(of, &path, hint);
    }

    /// Makes a file of which the watcher does not tell.
    pub(super) fn make_unheard(&mut self, of: usize, text: &str, bytes: &str) {
        let heard = self.nodes[of].inbox.len();
        self.make(of, text, What::File(bytes.into()));
        self.nodes[of].inbox.truncate(heard);
    }

    pub(super) fn mkdir(&mut self, of: usize, text: &str) {
        self.make(of, text, What::Dir);
    }

    /// Writes a file: in place if one is there, else a new one. Closed at the end.
    pub(super) fn write(&mut self, of: usize, text: &str, bytes: &str) {
        let at = path(text);
        self.advance_disk_clock(of);
        let disk = &mut self.nodes[of].disk;
        let now = disk.tick();
        match disk.objects.get_mut(&at) {
            Some(object) if matches!(object.what, What::File(_)) => {
                object.what = What::File(bytes.into());
                (object.mtime_ns, object.ctime_ns) = (now, now);
                self.notice(of, &at, Hint::Written);
            }
            _ => self.make(of, text, What::File(bytes.into())),
        }
    }

    /// Opens a file for writing, and keeps it open.
    pub(super) fn open(&mut self, of: usize, text: &str) {
        self.nodes[of].disk.objects.get_mut(&path(text)).unwrap().writer = true;
    }

    /// Closes it.
    pub(super) fn close(&mut self, of: usize, text: &str) {
        self.nodes[of].disk.objects.get_mut(&path(text)).unwrap().writer = false;
        self.notice(of, &path(text), Hint::Written);
    }

    /// Removes a name with all below it, the deepest first.
    pub(super) fn remove(&mut self, of: usize, text: &str) {
        self.remove_path(of, &path(text));
    }

    fn remove_path(&mut self, of: usize, path: &SharePath) {
        let below = self.nodes[of].disk.below(path);
        for gone in below.into_iter().rev().chain([path.clone()]) {
            if self.nodes[of].disk.objects.remove(&gone).is_some() {
                self.notice(of, &gone, Hint::Deleted);
            }
        }
    }

    /// Takes a name with all below it away, and the watcher tells only of the name.
    pub(super) fn vanish(&mut self, of: usize, text: &str) {
        let disk = &mut self.nodes[of].disk;
        for gone in disk.below(&path(text)) {
            disk.objects.remove(&gone);
        }
        disk.objects.remove(&path(text));
        self.notice(of, &path(text), Hint::MovedAway);
    }

    /// Renames as `mv` does, over what is there.
    pub(super) fn rename(&mut self, of: usize, from: &str, to: &str) {
        let (from, to) = (path(from), path(to));
        self.advance_disk_clock(of);
        self.mkparents(of, &to);
        let disk = &mut self.nodes[of].disk;
        if disk.objects.contains_key(&to) {
            disk.objects.remove(&to);
        }
        disk.rename(&from, &to);
        self.notice(of, &from, Hint::MovedAway);
        self.notice(of, &to, Hint::Created);
        // The watcher scans a directory that comes in.
        for below in self.nodes[of].disk.below(&to) {
            let input = Input::Dirty { path: below, hint: Hint::Written, noticed: Noticed::Scan };
            self.nodes[of].inbox.push_back(input);
        }
    }

    pub(super) fn chmod(&mut self, of: usize, text: &str, mode: u32) {
        self.advance_disk_clock(of);
        self.nodes[of].disk.dress(&path(text), None, Some(mode));
        self.notice(of, &path(text), Hint::Attributes);
    }

    pub(super) fn chown(&mut self, of: usize, text: &str, account: u32) {
        self.advance_disk_clock(of);
        self.nodes[of].disk.chown(&path(text), account);
        self.notice(of, &path(text), Hint::Attributes);
    }

    pub(super) fn touch(&mut self, of: usize, text: &str, mtime_ns: i64) {
        self.advance_disk_clock(of);
        self.nodes[of].disk.dress(&path(text), Some(mtime_ns), None);
        self.notice(of, &path(text), Hint::Attributes);
    }

    // ---- what happens to nodes and links -----------------------------------------------------

    pub(super) fn scan(&mut self, of: usize) {
        self.input(of, Input::Scan(SharePath::root()));
    }

    pub(super) fn link(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            if self.up.insert((from, to)) {
                let peer = self.nodes[to].name.clone();
                self.nodes[from].inbox.push_back(Input::PeerUp(peer));
            }
        }
    }

    /// As [`World::link`], but the first one's share runs before the other one's: what it says at
    /// once is heard by nobody.
    pub(super) fn link_early(&mut self, one: usize, other: usize) {
        self.link(one, other);
        self.turn(one);
        self.wires.retain(|(from, to, _), _| (*from, *to) != (one, other));
    }

    pub(super) fn cut(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            if !self.up.remove(&(from, to)) {
                continue;
            }
            for lane in [Lane::Live, Lane::Bulk] {
                self.wires.remove(&(from, to, lane));
            }
            let peer = self.nodes[to].name.clone();
            self.nodes[from].inbox.push_back(Input::PeerDown(peer));
        }
    }

    pub(super) fn is_linked(&self, one: usize, other: usize) -> bool {
        self.up.contains(&(one, other))
    }

    /// Kills a node and starts it again: its engine, what it had under way and what was not
    /// committed are lost; its links come up anew if they were up.
    pub(super) fn restart(&mut self, of: usize) {
        self.restart_with(of, |index| index);
    }

    /// As [`World::restart`], from a changed index.
    pub(super) fn restart_with(&mut self, of: usize, change: impl FnOnce(Memory) -> Memory) {
        let linked: Vec<_> = (0..self.nodes.len()).filter(|&to| self.is_linked(of, to)).collect();
        for &to in &linked {
            self.cut(of, to);
        }
        self.revive(of, change);
        for to in linked {
            self.link(of, to);
        }
    }

    /// Kills a node's share alone and starts it again: its links stay up, and what was on the
    /// wires arrives.
    pub(super) fn restart_share(&mut self, of: usize) {
        self.revive(of, |index| index);
        let linked: Vec<_> = (0..self.nodes.len()).filter(|&to| self.is_linked(of, to)).collect();
        for to in linked {
            let peer = self.nodes[to].name.clone();
            self.nodes[of].inbox.push_back(Input::PeerUp(peer));
        }
    }

    /// Links two nodes while the share of one is not running: what it is told meanwhile is lost.
    pub(super) fn link_before_start(&mut self, one: usize, late: usize) {
        self.link(one, late);
        let up = self.nodes[late].inbox.pop_back();
        self.turn(one);
        for lane in [Lane::Live, Lane::Bulk] {
            self.wires.remove(&(one, late, lane));
        }
        self.nodes[late].inbox.extend(up);
    }

    fn revive(&mut self, of: usize, change: impl FnOnce(Memory) -> Memory) {
        let next_op = 1_000_000 + self.now.as_nanos() as u64;
        let node = &mut self.nodes[of];
        node.index.crash();
        node.index = change(node.index.clone());
        node.inbox.clear();
        node.jobs.clear();
        let fresh = node.index.head().unwrap() == recsync_proto::Seq::ZERO;
        node.next_op = next_op.max(node.next_op + 1);
        let was_made = |Intent { id, path, expect, displaced, made, .. }: &Intent| match displaced {
            _ if *made => true,
            Place::Share(put) if put == path => node.disk.is_expected(path, expect),
            _ => node.disk.exchanged.contains(id),
        };
        let [mut exchanged, mut perhaps, mut unsettled] = [const { Vec::new() }; 3];
        for mut intent in node.index.intents().unwrap() {
            let (path, hint, noticed) = (intent.path.clone(), Hint::Written, Noticed::Scan);
            node.inbox.push_back(Input::Dirty { path, hint, noticed });
            if node.disk.hides_temp && !intent.made {
                unsettled.push(intent);
            } else if node.disk.tells_nothing && !intent.made {
                perhaps.push(intent);
            } else if was_made(&intent) {
                intent.made = true;
                node.index.write(&Write::Intent(intent.clone())).unwrap();
                exchanged.push(intent);
            } else {
                node.index.write(&Write::IntentDone(intent.id)).unwrap();
            }
        }
        node.index.commit().unwrap();
        let engine = Engine::new(node.settings.clone(), &node.index, node.next_op, fresh);
        node.engine = engine.unwrap();
        node.engine.take_exchanged(exchanged, perhaps, unsettled);
        self.scan(of);
    }

    /// Takes changed settings.
    pub(super) fn configure(&mut self, of: usize, change: impl FnOnce(&mut Settings)) {
        let node = &mut self.nodes[of];
        change(&mut node.settings);
        node.engine.reconfigure(node.settings.clone(), &node.index).unwrap();
    }

    pub(super) fn limit_deletes(&mut self, of: usize, max_delete: MaxDelete) {
        self.configure(of, |settings| settings.max_delete = max_delete);
    }

    pub(super) fn input(&mut self, of: usize, input: Input) {
        self.nodes[of].inbox.push_back(input);
    }

    // ---- running -----------------------------------------------------------------------------

    /// Gives a node a batch of what waits for it, and hands out what it answers.
    pub(super) fn turn(&mut self, of: usize) {
        let now = self.time(of);
        let mut most = self.nodes[of].inbox.len().min(self.batch);
        if most > 1
            && let Some(dice) = &mut self.dice
        {
            most = 1 + dice.roll(most);
        }
        let node = &mut self.nodes[of];
        let inputs: Vec<_> =
            if most == 0 { vec![Input::Tick] } else { node.inbox.drain(..most).collect() };
        let mut effects = Vec::new();
        for input in inputs {
            effects.extend(node.engine.step(now, input, &mut node.index).unwrap());
        }
        effects.extend(node.engine.pump(now, &mut node.index).unwrap());
        node.index.commit().unwrap();
        if !node.engine.wants_pump() {
            let due = node.engine.next_due();
            assert!(due.is_none_or(|due| due > now.mono), "a tick is due in the past: {due:?}");
        }
        for effect in effects {
            self.hand_out(of, effect);
        }
    }

    fn hand_out(&mut self, of: usize, effect: Effect) {
        let node = &mut self.nodes[of];
        node.log.push(effect.clone());
        match effect {
            Effect::Look { .. } | Effect::Apply { .. } | Effect::Fetch { .. } | Effect::Scan(_) => {
                node.jobs.push(effect);
            }
            Effect::Announce(announce) => {
                let Announce { peer, lane, seq, path, record, inline, moved_from } = *announce;
                let bytes = inline.map(|installed| match node.disk.objects.get(&path) {
                    Some(object) if object.fingerprint() == installed.fingerprint => {
                        match &object.what {
                            What::File(bytes) => Some(bytes.clone()),
                            other => panic!("{path} is said to hold bytes and is {other:?}"),
                        }
                    }
                    _ => None,
                });
                if bytes == Some(None) {
                    let (hint, noticed) = (Hint::Written, Noticed::Scan);
                    node.inbox.push_back(Input::Dirty { path: path.clone(), hint, noticed });
                }
                let inline = bytes.flatten();
                let one = Announcement { seq, path, record, inline: inline.map(Bytes), moved_from };
                self.send(of, &peer, lane, ShareMessage::Announce(vec![one]));
            }
            Effect::Send { peer, lane, message } => self.send(of, &peer, lane, message),
            Effect::Event(Event::Noted { seq, .. }) => {
                let dot = Dot { epoch: node.index.epoch(), seq };
                assert!(node.minted.insert(dot), "{dot:?} was minted twice");
            }
            Effect::Settle(_) | Effect::Event(_) => {}
        }
    }

    pub(super) fn number(&self, name: &NodeName) -> usize {
        self.nodes.iter().position(|node| node.name == *name).unwrap()
    }

    pub(super) fn send(&mut self, from: usize, to: &NodeName, lane: Lane, message: ShareMessage) {
        let to = self.number(to);
        if self.is_linked(from, to) {
            self.wires.entry((from, to, lane)).or_default().push_back(message);
        }
    }

    /// Holds up what is sent on a lane from one node to another until [`World::let_go`].
    pub(super) fn hold_up(&mut self, from: usize, to: usize, lane: Lane) {
        self.held_up = Some((from, to, lane));
    }

    /// Lets go what was held up.
    pub(super) fn let_go(&mut self) {
        self.held_up = None;
    }

    /// Lanes on which something waits to be delivered.
    fn waiting(&self) -> impl Iterator<Item = (usize, usize, Lane)> {
        let held_up = |way: &(usize, usize, Lane)| self.held_up.as_ref() == Some(way);
        let wires = self.wires.iter().filter(move |(way, wire)| !wire.is_empty() && !held_up(way));
        wires.map(|(way, _)| *way)
    }

    /// What waits on the wires, from one node to another.
    pub(super) fn on_wire(&self, from: usize, to: usize) -> Vec<&ShareMessage> {
        [Lane::Live, Lane::Bulk]
            .iter()
            .filter_map(|lane| self.wires.get(&(from, to, *lane)))
            .flatten()
            .collect()
    }

    pub(super) fn job(&mut self, of: usize, number: usize) {
        let job = self.nodes[of].jobs.remove(number);
        self.advance_disk_clock(of);
        match job {
            Effect::Look { path, installed, hint, .. } => {
                let look = self.nodes[of].disk.look(&path, installed.as_ref(), hint);
                self.input(of, Input::Looked { path, look });
            }
            Effect::Apply { op, .. } => {
                let outcome = match self.nodes[of].disk.apply(&op) {
                    Ok((done, seen)) => {
                        for (path, hint) in seen {
                            self.notice(of, &path, hint);
                        }
                        match self.nodes[of].disk.unsure.remove(&op.path) {
                            true => Outcome::Unsure(done),
                            false => Outcome::Done(done),
                        }
                    }
                    Err(outcome) => *outcome,
                };
                self.input(of, Input::Applied { id: op.id, outcome });
            }
            Effect::Fetch { path, file, peer, .. } => {
                let source = self.fetch(of, &peer, &file.path, file.hash);
                let source = source.ok_or_else(|| self.not_fetched(of, &peer));
                self.input(of, Input::Fetched { path, hash: file.hash, source });
            }
            Effect::Scan(dir) => self.do_scan(of, &dir),
            Effect::Announce(_) | Effect::Send { .. } | Effect::Settle(_) | Effect::Event(_) => {}
        }
    }

    fn not_fetched(&self, of: usize, peer: &NodeName) -> NotFetched {
        match self.is_linked(of, self.number(peer)) {
            true => NotFetched::Gone,
            false => NotFetched::Peer("the link is down".to_owned()),
        }
    }

    fn fetch(&self, of: usize, peer: &NodeName, path: &SharePath, hash: Hash) -> Option<Source> {
        let from = self.number(peer);
        if !self.is_linked(of, from) {
            return None;
        }
        match &self.nodes[from].disk.objects.get(path)?.what {
            What::File(bytes) if hash_of(bytes) == hash => {
                Some(Source::Inline(Arc::new(bytes.clone())))
            }
            _ => None,
        }
    }

    /// As `observe::scan` does: what is there first, then what is not.
    fn do_scan(&mut self, of: usize, dir: &SharePath) {
        let node = &mut self.nodes[of];
        let here = |path: &SharePath| path.is_at_or_below(dir);
        let known: BTreeMap<_, _> = node.entries().into_iter().collect();
        let installed = |path: &SharePath| known.get(path).and_then(|e| e.installed.as_ref());
        let differs =
            |path: &SharePath| match node.disk.look(path, installed(path), Hint::Attributes) {
                Look::Unchanged => false,
                Look::Special | Look::Unknown(_) => installed(path).is_some(),
                _ => true,
            };
        let found = node.disk.objects.keys().filter(|path| here(path) && differs(path));
        let found = found.map(|path| (path.clone(), Hint::Written));
        let gone = known.iter().filter(|(path, entry)| {
            here(path) && entry.installed.is_some() && !node.disk.objects.contains_key(path)
        });
        let gone = gone.map(|(path, _)| (path.clone(), Hint::MovedAway));
        let dirty: Vec<_> = found.chain(gone).collect();
        for (path, hint) in dirty {
            node.inbox.push_back(Input::Dirty { path, hint, noticed: Noticed::Scan });
        }
        for path in node.disk.unreadable.iter().filter(|path| here(path)) {
            node.inbox.push_back(Input::Unreadable(path.clone()));
        }
        node.inbox.push_back(Input::Scanned(dir.clone()));
    }

    fn deliver(&mut self, from: usize, to: usize, lane: Lane) {
        let wire = self.wires.get_mut(&(from, to, lane)).unwrap();
        let message = wire.pop_front().unwrap();
        let peer = self.nodes[from].name.clone();
        self.input(to, Input::Message { peer, lane, message });
    }

    /// What happens next without time passing, if everything happens in its order.
    fn first_act(&self) -> Option<Act> {
        let numbered = || self.nodes.iter().enumerate();
        let turn = numbered().find(|(_, node)| !node.inbox.is_empty());
        let job = || numbered().find(|(_, node)| !node.jobs.is_empty());
        let wire = || self.waiting().next();
        turn.map(|(of, _)| Act::Turn(of))
            .or_else(|| job().map(|(of, _)| Act::Job(of, 0)))
            .or_else(|| wire().map(|(from, to, lane)| Act::Deliver(from, to, lane)))
    }

    /// What could happen next without time passing.
    fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if !node.inbox.is_empty() {
                acts.push(Act::Turn(number));
            }
        }
        for (number, node) in self.nodes.iter().enumerate() {
            acts.extend((0..node.jobs.len()).map(|job| Act::Job(number, job)));
        }
        acts.extend(self.waiting().map(|(from, to, lane)| Act::Deliver(from, to, lane)));
        acts
    }

    /// Does the next thing that needs no time. False if there is none.
    pub(super) fn act(&mut self) -> bool {
        let act = match &mut self.dice {
            Some(dice) => {
                let mut dice = dice.clone();
                let acts = self.acts();
                let act = (!acts.is_empty()).then(|| acts[dice.roll(acts.len())]);
                self.dice = Some(dice);
                act
            }
            None => self.first_act(),
        };
        match act {
            Some(Act::Turn(of)) => self.turn(of),
            Some(Act::Job(of, number)) => self.job(of, number),
            Some(Act::Deliver(from, to, lane)) => self.deliver(from, to, lane),
            None => {
                let idle = self.nodes.iter().position(|node| node.engine.wants_pump());
                let Some(of) = idle else { return false };
                self.turn(of);
            }
        }
        true
    }

    /// Goes on to the next thing that happens, waiting for it if need be. False if nothing does
    /// before `until`.
    pub(super) fn step(&mut self, until: Duration) -> bool {
        if self.act() {
            return true;
        }
        let due = |node: &Node| node.engine.next_due();
        let next = self.nodes.iter().filter_map(due).min();
        let Some(next) = next.filter(|next| *next <= until) else { return false };
        self.now = self.now.max(next);
        for of in 0..self.nodes.len() {
            if due(&self.nodes[of]).is_some_and(|due| due <= self.now) {
                self.turn(of);
            }
        }
        true
    }

    /// Does what one node has to do by itself until `until`: nothing is delivered, and the other
    /// nodes stand still.
    pub(super) fn run_only(&mut self, of: usize, until: Duration) {
        loop {
            let node = &self.nodes[of];
            if !node.inbox.is_empty() || node.engine.wants_pump() {
                self.turn(of);
            } else if !node.jobs.is_empty() {
                self.job(of, 0);
            } else if let Some(due) = node.engine.next_due().filter(|due| *due <= until) {
                self.now = self.now.max(due);
                self.turn(of);
            } else {
                self.now = until;
                return;
            }
        }
    }

    /// Lets `time` pass with all that happens in it.
    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        let mut acts = 0;
        loop {
            acts += 1;
            let log = || self.nodes.iter().flat_map(|node| node.log.iter().rev().take(8));
            assert!(
                acts < STORM,
                "a storm: {acts} acts in {time:?}: {:#?}",
                log().collect::<Vec<_>>()
            );
            if !self.step(until) {
                self.now = until;
                return;
            }
        }
    }

    /// Lets everything come to rest.
    pub(super) fn settle(&mut self) {
        self.run_for(Duration::from_secs(30));
    }

    // ---- what must be true -------------------------------------------------------------------

    /// Checks all that must be true when nothing is left to do, links are up and nothing is held.
    pub(super) fn check_quiet(&self) {
        let tree = self.nodes[0].tree();
        for (number, node) in self.nodes.iter().enumerate() {
            assert_eq!(node.tree(), tree, "{} and {} differ", node.name, self.nodes[0].name);
            self.check_at_rest(number);
            self.check_index(number);
        }
    }

    /// Checks that nothing is under way at a node.
    pub(super) fn check_at_rest(&self, of: usize) {
        let node = &self.nodes[of];
        let (load, left) = (node.engine.load(), node.engine.leftovers());
        assert_eq!((load, &left[..]), (Load::default(), &[][..]), "{}", node.name);
        assert!(node.jobs.is_empty() && node.inbox.is_empty());
        assert_eq!(node.index.intents().unwrap(), []);
        assert_eq!(node.index.unnoted().unwrap(), []);
        for to in 0..self.nodes.len() {
            if self.is_linked(of, to) {
                let backlog = node.index.backlog(&self.nodes[to].name).unwrap();
                assert_eq!(
                    backlog.files, 0,
                    "{} lacks records of {}",
                    self.nodes[to].name, node.name
                );
            }
        }
    }

    /// Checks that a node's index says what is on its disk, and that nothing is left to do.
    pub(super) fn check_index(&self, of: usize) {
        let node = &self.nodes[of];
        for (path, entry) in node.entries() {
            assert!(entry.record.is_sound(), "{path}: {:?}", entry.record);
            self.check_pending_flag(of, &path, &entry);
            assert!(!entry.pending, "{}: {path} is pending: {entry:#?}", node.name);
            let mut contents: Vec<_> = entry.record.values.iter().map(|v| &v.content).collect();
            contents.sort();
            contents.dedup();
            assert!(
                contents.len() <= 1,
                "{}: {path} has versions left over: {contents:?}",
                node.name
            );
            let stat = entry.installed.as_ref().map(|installed| installed.fingerprint);
            let found = node.disk.stat(&path);
            let same = match (stat, found) {
                (Some(stat), Some(found)) if stat.kind == Kind::Dir => stat.ino == found.ino,
                (stat, found) => stat == found,
            };
            assert!(same, "{}: {path} is not what is installed: {entry:#?}, {found:?}", node.name);
        }
        for path in node.disk.objects.keys() {
            assert!(
                node.index.entry(path).unwrap().is_some(),
                "{}: {path} is not known",
                node.name
            );
        }
    }

    /// Checks that an entry which has something to do says so.
    pub(super) fn check_pending_flag(&self, of: usize, path: &SharePath, entry: &Entry) {
        let index = &self.nodes[of].index;
        let mut winner = version::winner(&entry.record, index.has_live_below(path).unwrap());
        if self.nodes[of].settings.owner == OwnerPolicy::Ignore {
            winner.iter_mut().for_each(|winner| winner.owner = None);
        }
        let installed = entry.installed.as_ref();
        let circumstances = Circumstances {
            installed_is_version: installed
                .is_some_and(|installed| version::holds(&entry.record, &installed.content)),
            installed_below: index.has_installed_below(path).unwrap(),
        };
        let content = winner.as_ref().map(|winner| &winner.content);
        let content = content.or(installed.map(|installed| &installed.content));
        let is_dir = content.is_some_and(Content::is_dir);
        let ignored = self.nodes[of].settings.ignore.rule(path, is_dir).is_some();
        if ignored || entry.let_go && installed.is_none() {
            return assert!(!entry.pending, "{path}: {entry:#?}");
        }
        let todo = plan(winner.as_ref(), installed, circumstances) != Step::Nothing;
        assert_eq!(entry.pending, todo, "{path} at {}: {entry:#?}", self.nodes[of].name);
    }

    /// Checks that a name holds a file with these bytes at a node.
    pub(super) fn check_file(&self, of: usize, text: &str, bytes: &str) {
        let found = self.nodes[of].disk.objects.get(&path(text)).map(|object| &object.what);
        assert_eq!(found, Some(&What::File(bytes.into())), "{text} at {}", self.nodes[of].name);
    }

    /// Checks that a name is free at a node.
    pub(super) fn check_absent(&self, of: usize, text: &str) {
        assert!(!self.nodes[of].disk.objects.contains_key(&path(text)), "{text} is there");
    }
}
