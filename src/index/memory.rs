//! The in-memory twin of the durable index, for tests and the simulator: plain maps, and an undo
//! log in place of a write-ahead log.
//!
//! **Invariant:** every answer is the one that [`super::Store`] gives after the same calls.
//! **May not:** do input or output.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use recsync_proto::{Content, Epoch, Hash, NodeName, Record, Seq, SharePath};

use super::{
    Backlog, COPY_MARK, Entry, Guard, GuardState, Index, IndexError, IndexRead, Installed, Intent,
    LastStop, Logged, PeerCursor, Stand, TrashKey, Trashed, Unnoted, Write, rules,
};

/// An index in memory. "Durable" is what [`Memory::crash`] leaves: the state at the last commit.
#[derive(Debug, Clone)]
pub struct Memory {
    epoch: Epoch,
    root_id: Option<String>,
    clean: bool,
    boot: Option<String>,
    head: Seq,
    clock: u64,
    entries: Entries,
    intents: BTreeMap<u64, Intent>,
    unnoted: BTreeMap<(SharePath, Seq), Record>,
    trash: BTreeMap<TrashKey, Trashed>,
    peers: BTreeMap<NodeName, PeerCursor>,
    stands: BTreeMap<Guard, Stand>,
    /// By guard and second.
    passed: BTreeMap<(Guard, i64), u64>,
    /// By position, then peer: whether it is held.
    acks: BTreeMap<Seq, BTreeMap<NodeName, bool>>,
    /// What takes back the writes since the last commit, the latest last.
    undo: Vec<Undo>,
}

/// The value before a write.
#[derive(Debug, Clone)]
enum Undo {
    Entry(SharePath, Option<Entry>),
    Intent(u64, Option<Intent>),
    Unnoted((SharePath, Seq), Option<Record>),
    Peer(NodeName, Option<PeerCursor>),
    Stand(Guard, Option<Stand>),
    Passed((Guard, i64), Option<u64>),
    Ack(Seq, NodeName, Option<bool>),
    Head(Seq),
    Clock(u64),
    Trashed(TrashKey, Option<Trashed>),
}

impl Memory {
    /// Returns an empty index.
    pub fn new(epoch: Epoch) -> Self {
        Memory {
            epoch,
            root_id: None,
            clean: true,
            boot: None,
            head: Seq::ZERO,
            clock: 0,
            entries: Entries::default(),
            intents: BTreeMap::new(),
            unnoted: BTreeMap::new(),
            trash: BTreeMap::new(),
            peers: BTreeMap::new(),
            stands: BTreeMap::new(),
            passed: BTreeMap::new(),
            acks: BTreeMap::new(),
            undo: Vec::new(),
        }
    }

    /// Returns all that it knows.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> Vec<(SharePath, Entry)> {
        let path = |dir: &[u8], name: &[u8]| [dir, name].join(&b"/"[..]);
        let dirs = self.entries.dirs.iter();
        let all = dirs.flat_map(|(dir, names)| {
            names.iter().map(move |(name, entry)| {
                let bytes = if dir.is_empty() { name.clone() } else { path(dir, name) };
                (SharePath::new(bytes).expect("it was a path before it was split"), entry.clone())
            })
        });
        all.collect()
    }

    /// Drops everything written since the last commit, as a power cut does.
    pub fn crash(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Entry(path, before) => drop(self.entries.replace(&path, before)),
                Undo::Intent(id, before) => drop(put(&mut self.intents, id, before)),
                Undo::Unnoted(key, before) => drop(put(&mut self.unnoted, key, before)),
                Undo::Peer(peer, before) => drop(put(&mut self.peers, peer, before)),
                Undo::Stand(guard, before) => drop(put(&mut self.stands, guard, before)),
                Undo::Passed(key, before) => drop(put(&mut self.passed, key, before)),
                Undo::Ack(seq, peer, before) => drop(self.put_ack(seq, &peer, before)),
                Undo::Head(before) => self.head = before,
                Undo::Clock(before) => self.clock = before,
                Undo::Trashed(key, before) => drop(put(&mut self.trash, key, before)),
            }
        }
    }

    /// Returns the id of the share's root as last set.
    ///
    /// # Errors
    /// None; as the durable index has it.
    pub fn root_id(&self) -> Result<Option<String>, IndexError> {
        Ok(self.root_id.clone())
    }

    /// Stores the id of the share's root, durably, together with what was written before.
    ///
    /// # Errors
    /// None; as the durable index has it.
    pub fn set_root_id(&mut self, id: &str) -> Result<(), IndexError> {
        self.root_id = Some(id.to_owned());
        self.commit()
    }

    /// Notes, durably, that a run began on this boot of the machine, and tells how the one before
    /// ended.
    ///
    /// # Errors
    /// None; as the durable index has it.
    pub fn begin_run(&mut self, boot: &str) -> Result<LastStop, IndexError> {
        let clean = std::mem::replace(&mut self.clean, false);
        let last = LastStop::of(clean, self.boot.as_deref(), boot);
        if last != LastStop::Down {
            self.boot = Some(boot.to_owned());
        }
        self.commit()?;
        Ok(last)
    }

    /// Notes that after [`LastStop::Down`] all files were looked at on this boot.
    ///
    /// # Errors
    /// None; as the durable index has it.
    pub fn set_boot(&mut self, boot: &str) -> Result<(), IndexError> {
        self.boot = Some(boot.to_owned());
        Ok(())
    }

    /// Notes, durably, that the run ended properly.
    ///
    /// # Errors
    /// None; as the durable index has it.
    pub fn end_run(&mut self) -> Result<(), IndexError> {
        self.clean = true;
        self.commit()
    }

    /// Gives a rolled-back or cloned index another epoch, durably: contents and head stay, every
    /// peer's cursor goes back to zero.
    ///
    /// # Errors
    /// None; as the durable index has it.
    pub fn renew_epoch(&mut self, epoch: Epoch) -> Result<(), IndexError> {
        self.epoch = epoch;
        self.acks.clear();
        for cursor in self.peers.values_mut() {
            cursor.acked = Seq::ZERO;
        }
        self.commit()
    }

    fn put_entry(&mut self, path: &SharePath, entry: &Entry) -> Result<(), String> {
        rules::check_entry(path, entry)?;
        if self.entries.log.get(&entry.seq).is_some_and(|owner| owner != path) {
            return Err(rules::position_taken(entry.seq, path));
        }
        let after = (!rules::says_nothing(entry)).then(|| entry.clone());
        let seq_after = after.as_ref().map_or(Seq::ZERO, |after| after.seq);
        let before = self.entries.replace(path, after);
        let seq_before = before.as_ref().map_or(Seq::ZERO, |before| before.seq);
        self.undo.push(Undo::Entry(path.clone(), before));
        if seq_before != seq_after {
            for (peer, held) in self.acks.remove(&seq_before).unwrap_or_default() {
                self.undo.push(Undo::Ack(seq_before, peer, Some(held)));
            }
        }
        if entry.seq > self.head {
            self.undo.push(Undo::Head(self.head));
            self.head = entry.seq;
        }
        Ok(())
    }

    fn set_trashed(&mut self, key: TrashKey, trashed: Option<Trashed>) {
        let before = put(&mut self.trash, key, trashed);
        self.undo.push(Undo::Trashed(key, before));
    }

    fn put_trashed(&mut self, trashed: &Trashed) {
        let same_place = |known: &&Trashed| (&known.day, &known.at) == (&trashed.day, &trashed.at);
        if let Some(before) = self.trash.values().find(same_place).map(Trashed::key) {
            self.set_trashed(before, None);
        }
        self.set_trashed(trashed.key(), Some(trashed.clone()));
    }

    fn unlearn(&mut self, peer: &NodeName) -> Result<(), String> {
        let told: Vec<_> = self
            .entries
            .all()
            .filter(|(_, entry)| entry.via.as_ref() == Some(peer))
            .map(|(path, entry)| (path, Entry { via: None, ..entry.clone() }))
            .collect();
        told.iter().try_for_each(|(path, entry)| self.put_entry(path, entry))?;
        self.forget_acks(peer, Seq(u64::MAX), |_| true);
        Ok(())
    }

    fn put_cursor(&mut self, peer: &NodeName, cursor: &PeerCursor) -> Result<(), String> {
        rules::check_position(cursor.acked)?;
        let before = self.peers.insert(peer.clone(), cursor.clone());
        self.undo.push(Undo::Peer(peer.clone(), before));
        self.forget_acks(peer, cursor.acked, |held| !held);
        Ok(())
    }

    fn forget_acks(&mut self, peer: &NodeName, last: Seq, which: impl Fn(bool) -> bool) {
        let of_it = self.acks.range(..=last);
        let forgotten: Vec<Seq> = of_it
            .filter(|(_, by)| by.get(peer).is_some_and(|&held| which(held)))
            .map(|(&seq, _)| seq)
            .collect();
        for seq in forgotten {
            self.set_ack(seq, peer, None);
        }
    }

    fn note_ack(&mut self, peer: &NodeName, seq: Seq, held: bool) -> Result<(), String> {
        rules::check_position(seq)?;
        let told = self.entries.log.contains_key(&seq);
        let passed = seq <= self.cursor(peer).acked;
        self.set_ack(seq, peer, (told && (held || !passed)).then_some(held));
        Ok(())
    }

    fn set_unnoted(&mut self, key: (SharePath, Seq), record: Option<Record>) {
        let before = put(&mut self.unnoted, key.clone(), record);
        self.undo.push(Undo::Unnoted(key, before));
    }

    fn set_ack(&mut self, seq: Seq, peer: &NodeName, held: Option<bool>) {
        let before = self.put_ack(seq, peer, held);
        self.undo.push(Undo::Ack(seq, peer.clone(), before));
    }

    fn put_ack(&mut self, seq: Seq, peer: &NodeName, held: Option<bool>) -> Option<bool> {
        let by = self.acks.entry(seq).or_default();
        let before = put(by, peer.clone(), held);
        if by.is_empty() {
            self.acks.remove(&seq);
        }
        before
    }

    fn cursor(&self, peer: &NodeName) -> PeerCursor {
        self.peers.get(peer).cloned().unwrap_or_default()
    }

    fn ack(&self, peer: &NodeName, seq: Seq) -> Option<bool> {
        self.acks.get(&seq)?.get(peer).copied()
    }

    /// Returns what the peer lacks of the log after a position, ascending.
    fn lacked(&self, peer: &NodeName, after: Seq) -> impl Iterator<Item = (Seq, &Entry)> {
        self.entries
            .log
            .range((Bound::Excluded(after), Bound::Unbounded))
            .map(|(&seq, path)| (seq, self.entries.at(path)))
            .filter(move |(seq, entry)| {
                entry.via.as_ref() != Some(peer) && self.ack(peer, *seq).is_none()
            })
    }
}

impl IndexRead for Memory {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn head(&self) -> Result<Seq, IndexError> {
        Ok(self.head)
    }

    fn clock(&self) -> Result<u64, IndexError> {
        Ok(self.clock)
    }

    fn entry(&self, path: &SharePath) -> Result<Option<Entry>, IndexError> {
        Ok(self.entries.get(path).cloned())
    }

    fn installed_in(
        &self,
        dir: &SharePath,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Installed)>, IndexError> {
        let Some(names) = self.entries.dirs.get(dir.as_bytes()) else { return Ok(Vec::new()) };
        let later = names.range::<[u8], _>((Bound::Excluded(after), Bound::Unbounded));
        let installed = later.filter_map(|(name, entry)| {
            let mut installed = entry.installed.clone()?;
            installed.owner = installed.owner.or_else(|| rules::told_owner(&entry.record));
            Some((name.clone(), installed))
        });
        Ok(installed.take(limit).collect())
    }

    fn has_live_below(&self, dir: &SharePath) -> Result<bool, IndexError> {
        Ok(any_below(&self.entries.live, dir))
    }

    fn has_installed_below(&self, dir: &SharePath) -> Result<bool, IndexError> {
        Ok(any_below(&self.entries.installed, dir))
    }

    fn next_installed_dir(
        &self,
        dir: &SharePath,
        from: &[u8],
    ) -> Result<Option<SharePath>, IndexError> {
        let later = self.entries.dirs.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let holding = later.filter(|(_, names)| names.values().any(|it| it.installed.is_some()));
        Ok(holding.map(|(at, _)| known(at)).find(|at| at.is_below(dir)))
    }

    fn installed_with(&self, hash: &Hash, limit: usize) -> Result<Vec<SharePath>, IndexError> {
        let paths = self.entries.by_hash.range((*hash, SharePath::root())..);
        let same = paths.take_while(|(found, _)| found == hash);
        Ok(same.take(limit).map(|(_, path)| path.clone()).collect())
    }

    fn installed_inode(
        &self,
        fs: u64,
        ino: u64,
        limit: usize,
    ) -> Result<Vec<SharePath>, IndexError> {
        let paths = self.entries.by_inode.range((fs, ino, SharePath::root())..);
        let same =
            paths.take_while(|(found_fs, found_ino, _)| (*found_fs, *found_ino) == (fs, ino));
        Ok(same.take(limit).map(|(_, _, path)| path.clone()).collect())
    }

    fn log(&self, from: Seq, until: Seq, limit: usize) -> Result<Vec<Logged>, IndexError> {
        if from > until {
            return Ok(Vec::new());
        }
        let log = self.entries.log.range(from..=until).take(limit);
        Ok(log.map(|(_, path)| self.entries.logged(path)).collect())
    }

    fn at(&self, seq: Seq) -> Result<Option<SharePath>, IndexError> {
        Ok(self.entries.log.get(&seq).cloned())
    }

    fn pending(&self, below: Seq, limit: usize) -> Result<Vec<Logged>, IndexError> {
        let newest_first = self.entries.pending.range(..below).rev().take(limit);
        Ok(newest_first.map(|seq| self.entries.logged(&self.entries.log[seq])).collect())
    }

    fn pending_files(&self) -> Result<u64, IndexError> {
        Ok(self.entries.pending.len() as u64)
    }

    fn installed_files(&self) -> Result<(u64, u64), IndexError> {
        Ok((self.entries.files, self.entries.bytes))
    }

    fn intents(&self) -> Result<Vec<Intent>, IndexError> {
        Ok(self.intents.values().cloned().collect())
    }

    fn unnoted(&self) -> Result<Vec<Unnoted>, IndexError> {
        let all = self.unnoted.iter();
        let unnoted = all.map(|((path, seq), record)| Unnoted {
            path: path.clone(),
            seq: *seq,
            record: record.clone(),
        });
        Ok(unnoted.collect())
    }

    fn guard(&self, guard: Guard) -> Result<GuardState, IndexError> {
        let stand = self.stands.get(&guard).copied().unwrap_or_default();
        let seconds = self.passed.range((guard, i64::MIN)..=(guard, i64::MAX));
        let passed = seconds.map(|(&(_, second), &count)| (second, count)).collect();
        Ok(GuardState { stand, passed })
    }

    fn peer(&self, peer: &NodeName) -> Result<PeerCursor, IndexError> {
        Ok(self.cursor(peer))
    }

    fn is_acked(&self, peer: &NodeName, seq: Seq) -> Result<bool, IndexError> {
        Ok(seq > self.cursor(peer).acked && self.ack(peer, seq).is_some())
    }

    fn is_held(&self, peer: &NodeName, seq: Seq) -> Result<bool, IndexError> {
        Ok(self.ack(peer, seq) == Some(true))
    }

    fn acked_through(&self, peer: &NodeName, acked: Seq) -> Result<Seq, IndexError> {
        let first = self.lacked(peer, acked).next();
        Ok(first.map_or(self.head, |(seq, _)| Seq(seq.0 - 1)))
    }

    fn backlog(&self, peer: &NodeName) -> Result<Backlog, IndexError> {
        let mut backlog = Backlog::default();
        for (_, entry) in self.lacked(peer, self.cursor(peer).acked) {
            backlog.add(rules::winner_bytes(&entry.record), entry.changed_ns);
        }
        Ok(backlog)
    }

    fn tombstones(&self, through: Seq, limit: usize) -> Result<Vec<SharePath>, IndexError> {
        let spent = self.entries.spent.range(..=through).take(limit);
        Ok(spent.map(|seq| self.entries.log[seq].clone()).collect())
    }

    fn copies(&self, after: &SharePath, limit: usize) -> Result<Vec<Logged>, IndexError> {
        let after = after.split();
        let copies = self.entries.copies().filter(|(path, _)| path.split() > after);
        Ok(copies.take(limit).map(|(path, _)| self.entries.logged(&path)).collect())
    }

    fn copies_count(&self) -> Result<u64, IndexError> {
        Ok(self.entries.copies().count() as u64)
    }

    fn trash_after(&self, after: TrashKey, limit: usize) -> Result<Vec<Trashed>, IndexError> {
        let later = self.trash.range((Bound::Excluded(after), Bound::Unbounded));
        Ok(later.take(limit).map(|(_, trashed)| trashed.clone()).collect())
    }

    fn trash_before(&self, before: TrashKey, limit: usize) -> Result<Vec<Trashed>, IndexError> {
        let earlier = self.trash.range(..before).rev();
        Ok(earlier.take(limit).map(|(_, trashed)| trashed.clone()).collect())
    }

    fn trash_at(&self, day: &str, at: &SharePath) -> Result<Option<Trashed>, IndexError> {
        let there = self.trash.values().find(|known| known.day == day && known.at == *at);
        Ok(there.cloned())
    }

    fn trash_total(&self) -> Result<(u64, u64), IndexError> {
        let bytes = self.trash.values().map(|trashed| trashed.stat.size).sum();
        Ok((self.trash.len() as u64, bytes))
    }
}

impl Index for Memory {
    fn write(&mut self, write: &Write) -> Result<(), IndexError> {
        let done = match write {
            Write::Entry(path, entry) => self.put_entry(path, entry),
            Write::Intent(intent) => {
                let before = self.intents.insert(intent.id, intent.clone());
                self.undo.push(Undo::Intent(intent.id, before));
                Ok(())
            }
            Write::IntentDone(id) => {
                let before = self.intents.remove(id);
                self.undo.push(Undo::Intent(*id, before));
                Ok(())
            }
            Write::Unnoted(Unnoted { path, seq, record }) => {
                self.set_unnoted((path.clone(), *seq), Some(record.clone()));
                Ok(())
            }
            Write::Noted(path) => {
                let all = (path.clone(), Seq::ZERO)..=(path.clone(), Seq(u64::MAX));
                let known: Vec<_> = self.unnoted.range(all).map(|(key, _)| key.clone()).collect();
                known.into_iter().for_each(|key| self.set_unnoted(key, None));
                Ok(())
            }
            Write::Acked { peer, seq, held } => self.note_ack(peer, *seq, *held),
            Write::Peer(peer, cursor) => self.put_cursor(peer, cursor),
            Write::Unlearned(peer) => self.unlearn(peer),
            Write::Clock(reading) => {
                self.undo.push(Undo::Clock(self.clock));
                self.clock = self.clock.max(*reading);
                Ok(())
            }
            Write::Stand(guard, stand) => {
                let before = self.stands.insert(*guard, *stand);
                self.undo.push(Undo::Stand(*guard, before));
                Ok(())
            }
            Write::Passed { guard, second, count } => {
                let key = (*guard, *second);
                let before = put(&mut self.passed, key, (*count > 0).then_some(*count));
                self.undo.push(Undo::Passed(key, before));
                Ok(())
            }
            Write::Trashed(trashed) => {
                self.put_trashed(trashed);
                Ok(())
            }
            Write::TrashGone(key) => {
                self.set_trashed(*key, None);
                Ok(())
            }
        };
        done.map_err(|why| {
            self.crash();
            IndexError::Other { path: "memory".to_owned(), why }
        })
    }

    fn commit(&mut self) -> Result<(), IndexError> {
        self.undo.clear();
        Ok(())
    }
}

fn known(dir: &[u8]) -> SharePath {
    if dir.is_empty() {
        return SharePath::root();
    }
    SharePath::new(dir).expect("it was a path when it was stored")
}

/// The entries, and what is derived from them to find them again.
#[derive(Debug, Clone, Default)]
struct Entries {
    /// By directory, then name.
    dirs: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Entry>>,
    live: BTreeSet<SharePath>,
    installed: BTreeSet<SharePath>,
    by_hash: BTreeSet<(Hash, SharePath)>,
    by_inode: BTreeSet<(u64, u64, SharePath)>,
    log: BTreeMap<Seq, SharePath>,
    pending: BTreeSet<Seq>,
    spent: BTreeSet<Seq>,
    files: u64,
    /// Modulo 2^64, so that taking away undoes adding whatever the sizes are.
    bytes: u64,
}

impl Entries {
    fn get(&self, path: &SharePath) -> Option<&Entry> {
        let (dir, name) = path.split();
        self.dirs.get(dir)?.get(name)
    }

    /// Returns every path with its entry.
    fn all(&self) -> impl Iterator<Item = (SharePath, &Entry)> {
        self.dirs.iter().flat_map(|(dir, names)| {
            names.iter().map(move |(name, entry)| {
                (known(dir).join(name).expect("it was a path when it was stored"), entry)
            })
        })
    }

    /// Returns the installed objects that have a conflict copy's mark in their names.
    fn copies(&self) -> impl Iterator<Item = (SharePath, &Entry)> {
        let marked = |name: &[u8]| name.windows(COPY_MARK.len()).any(|part| part == COPY_MARK);
        self.all().filter(move |(path, entry)| entry.installed.is_some() && marked(path.name()))
    }

    /// Returns the entry of a path that one of the derived sets names.
    fn at(&self, path: &SharePath) -> &Entry {
        self.get(path).expect("derived sets name only paths that have an entry")
    }

    fn logged(&self, path: &SharePath) -> Logged {
        Logged { path: path.clone(), entry: self.at(path).clone() }
    }

    /// Sets or removes a path's entry and returns the one before.
    fn replace(&mut self, path: &SharePath, after: Option<Entry>) -> Option<Entry> {
        let (dir, name) = path.split();
        let before = self.dirs.get_mut(dir).and_then(|names| names.remove(name));
        if let Some(before) = &before {
            self.forget(path, before);
        }
        if let Some(after) = after {
            self.derive(path, &after);
            self.dirs.entry(dir.to_vec()).or_default().insert(name.to_vec(), after);
        } else if self.dirs.get(dir).is_some_and(BTreeMap::is_empty) {
            self.dirs.remove(dir);
        }
        before
    }

    fn derive(&mut self, path: &SharePath, entry: &Entry) {
        if !entry.record.is_tombstone() {
            self.live.insert(path.clone());
        }
        if let Some(installed) = &entry.installed {
            self.installed.insert(path.clone());
            let stat = &installed.fingerprint;
            self.by_inode.insert((stat.fs, stat.ino, path.clone()));
            if let Content::File { size, hash } = &installed.content {
                self.by_hash.insert((*hash, path.clone()));
                self.files += 1;
                self.bytes = self.bytes.wrapping_add(*size);
            }
        }
        if entry.seq > Seq::ZERO {
            self.log.insert(entry.seq, path.clone());
            if entry.pending {
                self.pending.insert(entry.seq);
            }
            if rules::is_spent(entry) {
                self.spent.insert(entry.seq);
            }
        }
    }

    fn forget(&mut self, path: &SharePath, entry: &Entry) {
        self.live.remove(path);
        self.installed.remove(path);
        if let Some(installed) = &entry.installed {
            let stat = &installed.fingerprint;
            self.by_inode.remove(&(stat.fs, stat.ino, path.clone()));
            if let Content::File { size, hash } = &installed.content {
                self.by_hash.remove(&(*hash, path.clone()));
                self.files -= 1;
                self.bytes = self.bytes.wrapping_sub(*size);
            }
        }
        self.log.remove(&entry.seq);
        self.pending.remove(&entry.seq);
        self.spent.remove(&entry.seq);
    }
}

/// Sets or removes a key and returns the value before.
fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

/// True if a path of the set lies below the directory: a subtree is contiguous in path order.
fn any_below(paths: &BTreeSet<SharePath>, dir: &SharePath) -> bool {
    let after = (Bound::Excluded(dir), Bound::Unbounded);
    paths.range::<SharePath, _>(after).next().is_some_and(|path| path.is_below(dir))
}
