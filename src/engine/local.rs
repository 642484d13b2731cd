//! From a dirty path to a record: what happens on this node's own disk.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use recsync_proto::message::AckState;
use recsync_proto::{Content, Dot, Owner, Record, Register, SharePath, Stamp, Value};

use super::absorb::{Local, absorb, is_suspect};
use super::effect::{Effect, Event, GuardEvent, Hint, Look, Noticed, Now};
use super::guard::Verdict;
use super::settle::Dirt;
use super::{Cx, DeletePolicy, Engine, LOOKS_MAX, MOVE_WAIT, OwnerPolicy, Recent, version};
use crate::index::{Entry, IndexError, Installed};
use crate::tree::{Fingerprint, Kind};

/// First and last time between two looks at a file that someone writes: only the close tells,
/// these looks are for the case that the close was lost.
const BUSY_MIN: Duration = Duration::from_secs(4);
const BUSY_MAX: Duration = Duration::from_secs(60);
/// A file that changed while it was read is looked at again after at least this.
const UNSTABLE_WAIT: Duration = Duration::from_millis(10);
/// How often something found waits for the look at the directory above it.
const PARENT_TRIES: u32 = 16;
/// How long a vanished directory waits for the looks at what it held, at first.
const CHILDREN_WAIT: Duration = Duration::from_millis(100);
/// Looks at a new directory, about 3 s in all, after which it counts as made by somebody else than
/// the operations that are still under way below it.
const MADE_LOOKS_MAX: u32 = 5;

/// Other names of a changed file that are looked at with it; a scan finds the rest.
const NAMES_MAX: usize = 64;

/// A new name that waits for the look at the name it may have had.
#[derive(Debug)]
pub(super) struct Rename {
    to: SharePath,
    object: Installed,
    dirt: Dirt,
}

/// Returns what is known of the other names under which the object that was found is installed with these bytes.
pub(super) fn other_names(
    cx: &Cx<'_>,
    path: &SharePath,
    content: &Content,
    found: &Fingerprint,
) -> Result<Vec<Entry>, IndexError> {
    let mut names = Vec::new();
    for other in cx.index.installed_inode(found.fs, found.ino, NAMES_MAX)? {
        let entry = cx.entry(&other)?;
        let is_it = entry.installed.as_ref().is_some_and(|there| there.content == *content);
        if other != *path && is_it {
            names.push(entry);
        }
    }
    Ok(names)
}

impl Engine {
    /// Takes what the watcher or a scan tells.
    pub(super) fn noticed(
        &mut self,
        cx: &mut Cx<'_>,
        path: SharePath,
        hint: Hint,
        noticed: Noticed,
    ) -> Result<(), IndexError> {
        if hint == Hint::MovedAway && noticed != Noticed::Scan {
            // By the time of the look another directory may have the name.
            self.doubt_below(cx, &path)?;
        }
        let noticed = match noticed {
            // Most likely the echo of what is being done there: a new change does not wait for it.
            Noticed::Watcher(at) if self.locked.contains(&path) => Noticed::Along(at),
            noticed => noticed,
        };
        self.dirty(cx, path, hint, noticed);
        Ok(())
    }

    pub(super) fn dirty(&mut self, cx: &Cx<'_>, path: SharePath, hint: Hint, noticed: Noticed) {
        let settle = self.settings.settle;
        let wait = match (hint, noticed) {
            (Hint::MovedAway, _) => settle + MOVE_WAIT,
            (_, Noticed::Watcher(_) | Noticed::Along(_)) => settle,
            (_, Noticed::Scan) => Duration::ZERO,
        };
        match noticed {
            Noticed::Watcher(at) | Noticed::Along(at) => {
                self.settle.mark(path, hint, noticed, at + wait)
            }
            Noticed::Scan => self.settle.find(path, hint, cx.now.mono + wait),
        }
    }

    /// Has a directory compared with the index. What is under way there may have been seen before,
    /// and enters the index behind the comparison, which misses that it is gone by then: so it is
    /// looked at again.
    pub(super) fn scan(&mut self, cx: &mut Cx<'_>, dir: SharePath) {
        self.doubt(cx, Bound::Included(&dir), &dir);
        cx.effects.push(Effect::Scan(dir));
    }

    /// What the looks under way in a directory find, and what the operations under way there leave,
    /// may be gone by now. A subtree is contiguous in path order; `from` says whether the directory itself is in it.
    fn doubt(&mut self, cx: &Cx<'_>, from: Bound<&SharePath>, dir: &SharePath) {
        let there = (from, Bound::Unbounded);
        let looking = self.looking.range::<SharePath, _>(there).map(|(path, _)| path);
        self.doubted.extend(looking.take_while(|path| path.is_at_or_below(dir)).cloned());
        let locked = self.locked.range::<SharePath, _>(there);
        for path in locked.take_while(|path| path.is_at_or_below(dir)) {
            self.settle.find(path.clone(), Hint::Attributes, cx.now.mono);
        }
    }

    /// Looks below a directory that is gone or gave its name to another one: what was in it is gone too,
    /// of which no event tells if it was moved away. What is being looked at there may have been seen
    /// before.
    pub(super) fn look_below(
        &mut self,
        cx: &mut Cx<'_>,
        dir: &SharePath,
        was: Option<&Installed>,
        now: Option<&Fingerprint>,
    ) -> Result<(), IndexError> {
        let object = |stat: &Fingerprint| (stat.kind, stat.fs, stat.ino);
        let was = was.filter(|was| was.content.is_dir());
        let now = now.filter(|now| now.kind == Kind::Dir);
        match (was, now) {
            (_, None) => self.doubt(cx, Bound::Excluded(dir), dir),
            (Some(was), Some(now)) if object(&was.fingerprint) != object(now) => {
                self.doubt_below(cx, dir)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// What is known below a name may be gone, and nobody tells: it was in a directory that has the name no
    /// more, or in one that had no watch.
    pub(super) fn doubt_below(
        &mut self,
        cx: &mut Cx<'_>,
        dir: &SharePath,
    ) -> Result<(), IndexError> {
        if cx.index.has_installed_below(dir)? {
            self.scan(cx, dir.clone());
        } else {
            self.doubt(cx, Bound::Excluded(dir), dir);
        }
        Ok(())
    }

    /// A directory is watched from now on: what went out of it before was heard by nobody. Of one that users made
    /// nothing is known yet that could be missed.
    pub(super) fn watched(&mut self, cx: &Cx<'_>, dir: SharePath) -> Result<(), IndexError> {
        let is_changing = self.ops.values().any(|running| running.path.is_at_or_below(&dir));
        if is_changing || cx.index.has_installed_below(&dir)? {
            self.watched.insert(dir);
        }
        Ok(())
    }

    /// Looks for what went out of directories before they were watched, once nothing is under way there: what is
    /// on its way to a new name is not to wait for that.
    pub(super) fn miss_unheard(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        let calm: Vec<_> = self.watched.iter().filter(|dir| self.is_calm(dir)).cloned().collect();
        for dir in calm {
            self.watched.remove(&dir);
            self.doubt_below(cx, &dir)?;
        }
        Ok(())
    }

    /// True if nothing is under way at or below a directory.
    fn is_calm(&self, dir: &SharePath) -> bool {
        let from = (Bound::Included(dir), Bound::Unbounded);
        let is_in = |next: Option<&SharePath>| next.is_some_and(|next| next.is_at_or_below(dir));
        let is_busy = is_in(self.locked.range::<SharePath, _>(from).next())
            || is_in(self.looking.range::<SharePath, _>(from).map(|(path, _)| path).next())
            || is_in(self.fetching.range::<SharePath, _>(from).map(|(path, _)| path).next())
            || self.settle.has_at_or_below(dir);
        !is_busy
    }

    /// A scan could not look at a path, and knows nothing of what is below: it is scanned again later.
    pub(super) fn unreadable(&mut self, cx: &Cx<'_>, path: &SharePath) {
        self.unreadable.backoff(path, cx.now.mono);
    }

    /// Starts looks at what is due.
    pub(super) fn start_looks(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        while self.looking.len() < LOOKS_MAX {
            let (locked, looking) = (&self.locked, &self.looking);
            let ready = |path: &SharePath| !locked.contains(path) && !looking.contains_key(path);
            let due = self.settle.take_due(cx.now.mono, ready);
            let Some((path, dirt)) = due else { break };
            let installed = cx.entry(&path)?.installed;
            let lane = dirt.noticed.lane();
            cx.effects.push(Effect::Look { path: path.clone(), installed, hint: dirt.hint, lane });
            self.looking.insert(path, dirt);
        }
        Ok(())
    }

    pub(super) fn looked(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        mut look: Look,
    ) -> Result<(), IndexError> {
        if let (OwnerPolicy::Ignore, Look::Found { owner, .. }) = (self.settings.owner, &mut look) {
            *owner = None;
        }
        let Some(dirt) = self.looking.remove(path) else { return Ok(()) };
        let now = cx.now.mono;
        let rename = self.renames.remove(path);
        let is_doubted = self.doubted.remove(path) && look != Look::Absent;
        if is_doubted || self.settle.contains(path) {
            // Something happened since: the next look decides. That the name was free while
            // another had its file stays true.
            self.settle.put_back(path.clone(), dirt, now);
            return match (look, rename) {
                (Look::Absent, Some(rename)) => self.renamed(cx, path, rename),
                (_, rename) => self.rename_off(cx, rename),
            };
        }
        self.be_sure(cx, path, &look)?;
        match &look {
            Look::Busy => {
                let wait = match dirt.busy {
                    // The kernel tells of a close a moment before the writer is gone.
                    0 if dirt.hint != Hint::Created => self.settings.settle.max(UNSTABLE_WAIT),
                    looks => (BUSY_MIN * 2u32.pow(looks.min(5))).min(BUSY_MAX),
                };
                let dirt = Dirt { busy: dirt.busy + 1, ..dirt };
                self.settle.put_back(path.clone(), dirt, now + wait);
                // What a peer wants here waits for the writer, perhaps for an hour.
                self.settle_owed(path, AckState::Held);
            }
            Look::Unstable => {
                let wait = self.settings.settle.max(UNSTABLE_WAIT);
                self.settle.put_back(path.clone(), dirt, now + wait);
            }
            Look::TooFresh(wait) => self.settle.put_back(path.clone(), dirt, now + *wait),
            Look::Ignored => self.leave_alone(cx, path)?,
            Look::Special => self.skip(cx, path, "not a file, directory or symbolic link")?,
            Look::Unsyncable(why) => self.skip(cx, path, why)?,
            Look::Unknown(error) => {
                let retry = self.retries.backoff(path, cx.now.mono);
                self.settle.put_back(path.clone(), dirt, now + retry);
                let (why, kind) = (error.to_string(), super::install::kind_of(error));
                cx.event(Event::Trouble { path: path.clone(), why, retry, kind });
                self.settle_owed(path, AckState::Held);
            }
            Look::Unchanged => {
                if dirt.noticed != Noticed::Scan {
                    cx.event(Event::EchoSuppressed);
                }
                self.reconsider(cx, path)?;
            }
            Look::Absent if rename.is_some() => {
                if let Some(rename) = rename {
                    self.renamed(cx, path, rename)?;
                }
                return self.wake(cx, path);
            }
            Look::Found { content, .. } if self.has_rule(path, content.is_dir()) => {
                self.leave_alone(cx, path)?;
            }
            Look::Hollow(_) if self.has_rule(path, false) => self.leave_alone(cx, path)?,
            Look::Absent if self.is_forgotten(cx, path)? => {}
            Look::Absent | Look::Found { .. } | Look::Hollow(_) => {
                self.absorb_look(cx, path, &look, dirt)?;
            }
        }
        if matches!(look, Look::Absent | Look::Found { content: Content::Dir, .. }) {
            self.wake(cx, path)?;
        }
        self.rename_off(cx, rename)
    }

    /// True if an operation has put something there that is not noted as installed yet.
    pub(super) fn is_unsure(&self, path: &SharePath) -> bool {
        self.unsure.contains_key(path) || self.exchanged.contains_key(path)
    }

    /// Notes as installed what an operation has put there that ended in doubt, or with its run: what the
    /// look shows is compared with that.
    fn be_sure(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        look: &Look,
    ) -> Result<(), IndexError> {
        match look {
            Look::Busy | Look::Unstable | Look::TooFresh(_) | Look::Unknown(_) => return Ok(()),
            _ => {}
        }
        let exchanged = self.put_by_exchange(cx, path, look)?.map(|put| (put, Vec::new()));
        let unsure = self.end_unsure(cx, path)?.map(|unsure| (unsure.put, unsure.versions));
        let Some((put, versions)) = unsure.or(exchanged) else { return Ok(()) };
        if matches!(look, Look::Absent | Look::Found { .. } | Look::Hollow(_)) {
            self.note_put(cx, path, put, &versions)?;
        }
        Ok(())
    }

    /// Notes as installed what this node has put at a path without noting it, for these versions.
    pub(super) fn note_put(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        put: Installed,
        versions: &[Dot],
    ) -> Result<(), IndexError> {
        let mut entry = cx.entry(path)?;
        (entry.installed, entry.let_go) = (Some(put), false);
        cx.put(path, entry)?;
        self.keep_found(cx, path, versions)
    }

    /// A vanished directory waits for the looks at what it held, level by level: the last of
    /// them ends its wait, which would else double with each level. And what is to be put below a
    /// name waits until no file or link has it.
    fn wake(&mut self, cx: &Cx<'_>, path: &SharePath) -> Result<(), IndexError> {
        if cx.index.has_live_below(path)? {
            self.start_sweep();
        }
        let parent = path.parent();
        if self.settle.contains(&parent) && !cx.index.has_installed_below(&parent)? {
            self.settle.hasten(&parent, cx.now.mono);
        }
        Ok(())
    }

    /// What a rule has left alone keeps the state in which it was last synced, if it ever was.
    fn leave_alone(&mut self, cx: &mut Cx<'_>, path: &SharePath) -> Result<(), IndexError> {
        self.retries.forgive(path);
        self.reconsider(cx, path)
    }

    fn has_rule(&self, path: &SharePath, is_dir: bool) -> bool {
        self.settings.ignore.rule(path, is_dir).is_some()
    }

    /// If a rule has a path left alone that is gone, forgets that it was here: no delete. True if so.
    fn is_forgotten(&mut self, cx: &mut Cx<'_>, path: &SharePath) -> Result<bool, IndexError> {
        let mut entry = cx.entry(path)?;
        let was_dir = entry.installed.as_ref().is_some_and(|was| was.content.is_dir());
        if !self.has_rule(path, was_dir) {
            return Ok(false);
        }
        if entry.installed.take().is_some() {
            cx.put(path, entry)?;
        }
        self.leave_alone(cx, path)?;
        Ok(true)
    }

    /// What is there is never synced; what a peer wants in its place waits until it is gone.
    fn skip(&mut self, cx: &mut Cx<'_>, path: &SharePath, why: &str) -> Result<(), IndexError> {
        cx.event(Event::Skipped { path: path.clone(), why: why.to_owned() });
        self.settle_owed(path, AckState::Held);
        if !cx.entry(path)?.pending {
            self.retries.forgive(path);
        }
        Ok(())
    }

    /// The supposed old name is still there, or in doubt: the new name is a file of its own.
    fn rename_off(&mut self, cx: &mut Cx<'_>, rename: Option<Rename>) -> Result<(), IndexError> {
        let Some(Rename { to, object, dirt }) = rename else { return Ok(()) };
        self.locked.remove(&to);
        // Its directory may be gone since it was looked at: then it is looked at again.
        if !self.parent_first(cx, &to, dirt)? {
            self.written(cx, &to, object, dirt)?;
            self.reconsider(cx, &to)?;
        }
        self.wake_below(cx, &to)
    }

    /// The old name is gone and the new name holds its inode and its bytes: a rename.
    fn renamed(
        &mut self,
        cx: &mut Cx<'_>,
        from: &SharePath,
        rename: Rename,
    ) -> Result<(), IndexError> {
        let Rename { to, mut object, dirt } = rename;
        self.locked.remove(&to);
        if self.parent_first(cx, &to, dirt)? {
            self.deleted(cx, from, dirt)?;
            self.reconsider(cx, from)?;
            return self.wake_below(cx, &to);
        }
        if let Some(was) = cx.entry(from)?.installed
            && was.fingerprint.same_owner(&object.fingerprint)
        {
            object.owner = was.owner;
        }
        let seq = self.written(cx, &to, object, dirt)?;
        self.deleted(cx, from, dirt)?;
        self.moves.insert(seq, from.clone());
        self.reconsider(cx, &to)?;
        self.reconsider(cx, from)?;
        self.wake_below(cx, &to)
    }

    fn absorb_look(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        look: &Look,
        dirt: Dirt,
    ) -> Result<(), IndexError> {
        let mut entry = cx.entry(path)?;
        let may_be_elsewhere = entry.via.is_some() || !self.peers.is_empty();
        let is_suspect = || is_suspect(entry.installed.as_ref(), look, self.doubting);
        if !dirt.heard && may_be_elsewhere && is_suspect() {
            return self.suspect(cx, path, entry, look, dirt);
        }
        let look = look.found();
        let now = match look {
            Look::Found { fingerprint, .. } => Some(fingerprint),
            _ => None,
        };
        self.look_below(cx, path, entry.installed.as_ref(), now)?;
        match (absorb(entry.installed.as_ref(), look), look) {
            (Local::Nothing, _) => {}
            (
                Local::Refresh | Local::Metadata { .. },
                Look::Found { content, fingerprint, owner },
            ) if self.has_another_name(cx, path, &entry, content, fingerprint)?
                || is_chosen(cx, path, &entry, fingerprint, dirt)? =>
            {
                // Whoever takes the other name away has put its bytes here, and knows of no other
                // version: that is a change, though the bytes are the same.
                let object = installed(content.clone(), fingerprint, owner.as_ref());
                if self.await_rename(cx, path, &object, dirt)? {
                    return Ok(());
                }
                self.written(cx, path, object, dirt)?;
            }
            (Local::Refresh, Look::Found { fingerprint, .. }) => {
                if let Some(installed) = &mut entry.installed {
                    installed.fingerprint = *fingerprint;
                    cx.put(path, entry)?;
                }
            }
            (Local::Metadata { mode, mtime_ns, owner }, Look::Found { fingerprint, .. }) => {
                let change = Change { mode, mtime_ns, owner };
                self.metadata(cx, path, entry, fingerprint, change, dirt)?;
            }
            (Local::Written(content), Look::Found { fingerprint, owner, .. }) => {
                if self.parent_first(cx, path, dirt)? {
                    return Ok(());
                }
                // Whatever was known there was below a directory, seen or not, that is gone.
                if !content.is_dir() && self.children_first(cx, path, dirt)? {
                    return Ok(());
                }
                // A directory that is only implied by what it holds is nobody's yet: unless an
                // operation below is making it, somebody made it here, and it is to stay.
                let unclaimed = content.is_dir() && !version::holds(&entry.record, &content);
                if unclaimed && self.is_changing_below(path) && dirt.busy < MADE_LOOKS_MAX {
                    self.look_later(cx, path, dirt);
                    return Ok(());
                }
                let wanted = version::winner(&entry.record, cx.index.has_live_below(path)?);
                let is_wanted = wanted.is_some_and(|wanted| wanted.content == content);
                let is_nobodys = self.may_have_moved(cx, path, &content, fingerprint, dirt)?
                    || !self.has_another_name(cx, path, &entry, &content, fingerprint)?;
                if is_wanted && !unclaimed && is_nobodys {
                    // It is what the cluster wants here anyway: after a crash, or made twice.
                    let found = installed(content, fingerprint, owner.as_ref());
                    if let Some(was) = entry.installed.replace(found)
                        && version::holds(&entry.record, &was.content)
                    {
                        // What lost to it was taken away by somebody who saw it.
                        version::drop_content(&mut entry.record, &was.content);
                        (entry.seq, entry.via) = (self.take_seq(), None);
                        entry.changed_ns = cx.now.wall_ns;
                    }
                    self.say_found(cx, &mut entry);
                    cx.put(path, entry)?;
                    self.forget_wanted(cx, path)?;
                } else {
                    let object = installed(content, fingerprint, owner.as_ref());
                    if !is_nobodys || !self.recall(cx, path, &object, dirt)? {
                        if self.await_rename(cx, path, &object, dirt)? {
                            return Ok(());
                        }
                        self.written(cx, path, object, dirt)?;
                    }
                }
            }
            (Local::Deleted, _) => {
                let was = entry.installed.as_ref().map(|installed| &installed.content);
                let winner = version::winner(&entry.record, cx.index.has_live_below(path)?);
                // A file or link that is no version any more was to be replaced.
                let is_superseded =
                    was.is_some_and(|was| !was.is_dir() && !version::holds(&entry.record, was));
                if winner.is_none() || is_superseded || self.local_guard.is_restoring() {
                    // The cluster does not want it here anyway: after a crash, or deleted twice. Or it
                    // is to be put back.
                    entry.installed = None;
                    cx.put(path, entry)?;
                    self.reconsider(cx, path)?;
                    return self.reconsider_above(cx, path);
                } else if self.settings.deletes == DeletePolicy::Keep {
                    if was.is_some_and(Content::is_dir) && self.children_first(cx, path, dirt)? {
                        return Ok(());
                    }
                    // The others keep theirs, and this one is not put back here.
                    (entry.installed, entry.let_go) = (None, true);
                    cx.put(path, entry)?;
                    return self.reconsider(cx, path);
                } else if was.is_some_and(Content::is_dir) {
                    // What the guard holds keeps the directories above it too.
                    let held = self.local_guard.held().is_some();
                    if held || self.children_first(cx, path, dirt)? {
                        return Ok(());
                    }
                } else if matches!(was, Some(Content::File { .. })) && !self.may_vanish(cx, path)? {
                    return Ok(());
                }
                self.deleted(cx, path, dirt)?;
            }
            (Local::Refresh | Local::Metadata { .. } | Local::Written(_), _) => {}
        }
        self.reconsider(cx, path)?;
        self.reconsider_original(cx, path)
    }

    /// True if a peer has what the record says, as far as is known: it told of it, or has acknowledged
    /// it as installed.
    fn is_elsewhere(&self, cx: &Cx<'_>, entry: &Entry) -> Result<bool, IndexError> {
        if entry.via.is_some() {
            return Ok(true);
        }
        for (name, peer) in &self.peers {
            if cx.index.is_durable(name, peer.cursor.acked, entry.seq)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is there is no version of anybody's: the recorded one takes its place again, or is given up
    /// if no peer has it either.
    fn suspect(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        mut entry: Entry,
        look: &Look,
        dirt: Dirt,
    ) -> Result<(), IndexError> {
        let Look::Found { content, fingerprint, owner } = look.found() else { return Ok(()) };
        let had = entry.installed.as_ref().map_or(0, |installed| installed.content.size());
        let has = content.size();
        entry.installed = Some(installed(content.clone(), fingerprint, owner.as_ref()));
        if has > 0 || !self.is_elsewhere(cx, &entry)? {
            // Somebody may have meant it so, and perhaps there is nothing else: it is kept, as the version that loses.
            let seq = self.take_seq();
            let stamp = Stamp { hlc: 0, node: self.settings.node.clone() };
            let mtime_ns = Register { value: fingerprint.mtime_ns, stamp: stamp.clone() };
            let (dot, content, lacks) = (self.dot(seq), content.clone(), BTreeSet::new());
            let value = Value { dot, stamp, content, mtime_ns, lacks };
            let was_dead = entry.record.is_tombstone();
            version::write(&mut entry.record, None, value);
            self.log(cx, path, entry, seq, dirt, Some(fingerprint.ctime_ns))?;
            if was_dead {
                self.reconsider_above(cx, path)?;
            }
        } else {
            cx.put(path, entry)?;
        }
        cx.event(Event::Suspect { path: path.clone(), had, has });
        self.reconsider(cx, path)
    }

    /// What a machine that went down left of what is installed is not known before a scan has seen it: what
    /// a peer announces is looked at before it is acknowledged as there.
    pub(super) fn doubt_installed(
        &mut self,
        cx: &Cx<'_>,
        path: &SharePath,
    ) -> Result<(), IndexError> {
        if self.doubting && !self.settle.contains(path) && !self.locked.contains(path) {
            let entry = cx.entry(path)?;
            if entry.installed.is_some() && !entry.pending {
                self.settle.find(path.clone(), Hint::Created, cx.now.mono);
            }
        }
        Ok(())
    }

    /// Before something counts as found in a directory, the directory counts as one: where the
    /// index has a file there, it is looked at first. True if that is still to be done.
    fn parent_first(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        dirt: Dirt,
    ) -> Result<bool, IndexError> {
        if dirt.busy >= PARENT_TRIES {
            return Ok(false);
        }
        let mut nearest = None;
        for above in path.ancestors() {
            if let Some(known) = cx.entry(&above)?.installed {
                nearest = Some((above, known.content));
                break;
            }
        }
        let Some((parent, known)) = nearest else { return Ok(false) };
        if known.is_dir() {
            return Ok(false);
        }
        if !self.looking.contains_key(&parent) {
            self.settle.mark(parent, Hint::Written, dirt.noticed, cx.now.mono);
        }
        let dirt = Dirt { busy: dirt.busy + 1, ..dirt };
        self.settle.put_back(path.clone(), dirt, cx.now.mono + UNSTABLE_WAIT);
        Ok(true)
    }

    /// Before a directory counts as gone, or as replaced, everything that was in it is looked at. True if
    /// that is still to be done.
    fn children_first(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        dirt: Dirt,
    ) -> Result<bool, IndexError> {
        if !cx.index.has_installed_below(path)? {
            return Ok(false);
        }
        // Mostly they are under way; where nobody told of them, or the word was lost, a scan does.
        if dirt.busy % 4 == 1 {
            self.scan(cx, path.clone());
        }
        self.look_later(cx, path, dirt);
        Ok(true)
    }

    /// Has a path looked at again, after a time that doubles from look to look.
    fn look_later(&mut self, cx: &Cx<'_>, path: &SharePath, dirt: Dirt) {
        let wait = (CHILDREN_WAIT * 2u32.pow(dirt.busy.min(9))).min(BUSY_MAX);
        let dirt = Dirt { busy: dirt.busy + 1, ..dirt };
        self.settle.put_back(path.clone(), dirt, cx.now.mono + wait);
    }

    /// True if an operation under way changes something below a path.
    pub(super) fn is_changing_below(&self, path: &SharePath) -> bool {
        let after = (Bound::Excluded(path), Bound::Unbounded);
        self.locked.range::<SharePath, _>(after).next().is_some_and(|next| next.is_below(path))
    }

    fn may_vanish(&mut self, cx: &mut Cx<'_>, path: &SharePath) -> Result<bool, IndexError> {
        let (files, _) = cx.index.installed_files()?;
        match self.local_guard.judge(cx.now, path, files) {
            Verdict::Pass => Ok(true),
            Verdict::Held => Ok(false),
            Verdict::Trips { gone, of } => {
                cx.event(Event::Guard(GuardEvent::DeletesHeld { gone, of }));
                Ok(false)
            }
        }
    }

    /// True if the object found is another one than was installed there, and is installed with the bytes
    /// that it has under another name.
    fn has_another_name(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        entry: &Entry,
        content: &Content,
        found: &Fingerprint,
    ) -> Result<bool, IndexError> {
        if content.is_dir() || is_same_object(entry, found) {
            return Ok(false);
        }
        Ok(!other_names(cx, path, content, found)?.is_empty())
    }

    /// If the object found has the inode and the content of one installed under another name,
    /// that name is looked at first. True if the new name waits for it.
    fn await_rename(
        &mut self,
        cx: &mut Cx<'_>,
        to: &SharePath,
        object: &Installed,
        dirt: Dirt,
    ) -> Result<bool, IndexError> {
        let Installed { content, fingerprint, .. } = object;
        if content.is_dir() {
            return Ok(false);
        }
        for from in cx.index.installed_inode(fingerprint.fs, fingerprint.ino, 4)? {
            let free = !self.locked.contains(&from) && !self.renames.contains_key(&from);
            let same = cx.entry(&from)?.installed.is_some_and(|i| i.content == *content);
            if from == *to || !free || !same {
                continue;
            }
            if !self.looking.contains_key(&from) {
                // Whatever hint it had, one look tells both names' story.
                let noticed = dirt.noticed;
                self.settle.mark(from.clone(), Hint::MovedAway, noticed, cx.now.mono);
            }
            self.locked.insert(to.clone());
            self.renames.insert(from, Rename { to: to.clone(), object: object.clone(), dirt });
            return Ok(true);
        }
        Ok(false)
    }

    /// Notes that `object` was written at `path`.
    fn written(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        mut object: Installed,
        dirt: Dirt,
    ) -> Result<recsync_proto::Seq, IndexError> {
        let fingerprint = object.fingerprint;
        let mut entry = cx.entry(path)?;
        let seq = self.take_seq();
        let stamp = if self.adopting && dirt.noticed == Noticed::Scan {
            Stamp::at(fingerprint.mtime_ns / 1_000_000, self.settings.node.clone())
        } else {
            self.stamp(cx.now)
        };
        // What was let go here is what this takes the place of.
        let let_go = version::winner(&entry.record, false).filter(|_| entry.let_go);
        let let_go = let_go.map(|winner| winner.content);
        let seen = entry.installed.as_ref().map(|installed| &installed.content);
        let seen = seen.or(let_go.as_ref());
        let mtime_ns = Register { value: fingerprint.mtime_ns, stamp: stamp.clone() };
        let value = Value {
            dot: self.dot(seq),
            stamp: stamp.clone(),
            content: object.content.clone(),
            mtime_ns,
            lacks: BTreeSet::new(),
        };
        let was_dead = entry.record.is_tombstone();
        version::write(&mut entry.record, seen, value);
        let known_mode = entry.record.mode.as_ref().map(|mode| mode.value);
        let is_link = matches!(object.content, Content::Symlink { .. });
        if !is_link && known_mode != Some(fingerprint.mode) {
            version::set(&mut entry.record.mode, fingerprint.mode, &stamp);
        }
        match entry.installed.take() {
            // Nobody gave it away: where the owner wanted could not be set, it goes on standing
            // for that one.
            Some(before)
                if before.owner.is_some() && before.fingerprint.same_owner(&fingerprint) =>
            {
                object.owner = before.owner;
            }
            _ => {
                set_owner(&mut entry.record, object.owner.as_ref(), &stamp);
            }
        }
        (entry.installed, entry.let_go) = (Some(object), false);
        self.log(cx, path, entry, seq, dirt, Some(fingerprint.ctime_ns))?;
        self.mark_other_names(cx, path, &fingerprint, Hint::Written)?;
        if was_dead {
            self.reconsider_above(cx, path)?;
        }
        Ok(seq)
    }

    /// What changed through one of several hard links changed under the others too, be it only the
    /// ctime, and no event tells of those.
    pub(super) fn mark_other_names(
        &mut self,
        cx: &Cx<'_>,
        path: &SharePath,
        fingerprint: &Fingerprint,
        hint: Hint,
    ) -> Result<(), IndexError> {
        let several = fingerprint.kind == Kind::File && fingerprint.nlink > 1;
        if !several {
            return Ok(());
        }
        let names = cx.index.installed_inode(fingerprint.fs, fingerprint.ino, NAMES_MAX)?;
        for other in names.into_iter().filter(|other| other != path) {
            let known = cx.entry(&other)?.installed;
            let is_news = hint == Hint::Attributes
                || known.is_some_and(|known| known.fingerprint != *fingerprint);
            if is_news {
                self.settle.find(other, hint, cx.now.mono);
            }
        }
        Ok(())
    }

    fn deleted(&mut self, cx: &mut Cx<'_>, path: &SharePath, dirt: Dirt) -> Result<(), IndexError> {
        let mut entry = cx.entry(path)?;
        let Some(was) = entry.installed.take() else { return Ok(()) };
        let seq = self.take_seq();
        let dot = self.dot(seq);
        version::delete(&mut entry.record, &was.content, dot);
        self.log(cx, path, entry, seq, dirt, None)?;
        self.mark_other_names(cx, path, &was.fingerprint, Hint::Attributes)?;
        self.reconsider_above(cx, path)
    }

    fn metadata(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        mut entry: Entry,
        fingerprint: &Fingerprint,
        Change { mode, mtime_ns, owner }: Change,
        dirt: Dirt,
    ) -> Result<(), IndexError> {
        let Some(installed) = &mut entry.installed else { return Ok(()) };
        installed.fingerprint = *fingerprint;
        installed.mode = mode.unwrap_or(installed.mode);
        installed.mtime_ns = mtime_ns.unwrap_or(installed.mtime_ns);
        installed.owner = owner.clone().or(installed.owner.take());
        let content = installed.content.clone();
        let stamp = self.stamp(cx.now);
        let mut news = set_owner(&mut entry.record, owner.as_ref(), &stamp);
        if let Some(mode) = mode.filter(|&mode| {
            entry.record.mode.as_ref().is_none_or(|register| register.value != mode)
        }) {
            version::set(&mut entry.record.mode, mode, &stamp);
            news = true;
        }
        if let Some(mtime_ns) = mtime_ns {
            let of_it = entry.record.values.iter_mut().filter(|value| value.content == content);
            for value in of_it.filter(|value| value.mtime_ns.value != mtime_ns) {
                version::overwrite(&mut value.mtime_ns, mtime_ns, &stamp);
                news = true;
            }
        }
        self.mark_other_names(cx, path, fingerprint, Hint::Written)?;
        if news {
            let seq = self.take_seq();
            self.log(cx, path, entry, seq, dirt, Some(fingerprint.ctime_ns))
        } else {
            cx.put(path, entry)
        }
    }

    /// Stores a record with a local change at its new position.
    fn log(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        mut entry: Entry,
        seq: recsync_proto::Seq,
        dirt: Dirt,
        ctime_ns: Option<i64>,
    ) -> Result<(), IndexError> {
        entry.seq = seq;
        entry.via = None;
        entry.changed_ns = changed_ns(cx.now, dirt.noticed, ctime_ns, self.adopting);
        match dirt.noticed {
            Noticed::Watcher(at) => self.remember(seq, Recent::Seen(at)),
            Noticed::Along(_) => self.remember(seq, Recent::Along),
            Noticed::Scan => {}
        }
        cx.put(path, entry)?;
        cx.event(Event::Noted { path: path.clone(), seq });
        Ok(())
    }

    pub(super) fn scanned(&mut self, cx: &Cx<'_>, dir: &SharePath) {
        self.unreadable.forgive_tried(dir);
        if dir.is_root() {
            self.scan_ended = Some(cx.now.mono);
            self.start_sweep();
        }
    }

    /// Ends what lasts until a scan's findings are absorbed, once the last of them is.
    pub(super) fn end_scan(&mut self) {
        let Some(ended) = self.scan_ended else { return };
        let last_due = ended + self.settings.settle + MOVE_WAIT;
        let absorbed = self.settle.next_due(|_| true).is_none_or(|due| due > last_due);
        if absorbed && self.looking.is_empty() && self.renames.is_empty() {
            self.scan_ended = None;
            self.searched = true;
            self.adopting = false;
            // What could not be looked at yet stays in doubt, and all with it until the next scan.
            self.doubting &= self.unreadable.len() > 0 || self.settle.has_found();
            self.local_guard.watch_again_after_decision();
        }
    }

    /// The operator lets the held deletes go, or has the files put back.
    pub(super) fn decide(&mut self, cx: &mut Cx<'_>, confirm: bool) -> Result<(), IndexError> {
        let [local, remote] = self.held();
        if local.is_some() {
            if confirm {
                self.local_guard.release();
            } else {
                self.local_guard.restore();
            }
            self.scan(cx, SharePath::root());
        }
        if remote.is_some() {
            if confirm {
                self.remote_guard.release();
                self.start_sweep();
            } else {
                self.reassert(cx)?;
                self.remote_guard.watch_again();
            }
        }
        if local.is_some() || remote.is_some() {
            cx.event(Event::Guard(GuardEvent::DeletesReleased { confirmed: confirm }));
        }
        Ok(())
    }

    /// Writes every file that peers want gone anew, so that it lives everywhere again.
    fn reassert(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        let mut below = recsync_proto::Seq(u64::MAX >> 2);
        loop {
            let batch = cx.index.pending(below, 256)?;
            let Some(last) = batch.last() else { return Ok(()) };
            below = last.entry.seq;
            for logged in batch {
                let Some(here) = logged.entry.installed.clone() else { continue };
                if logged.entry.record.is_tombstone() && !self.locked.contains(&logged.path) {
                    let dirt =
                        Dirt { hint: Hint::Written, noticed: Noticed::Scan, heard: false, busy: 0 };
                    self.written(cx, &logged.path, here, dirt)?;
                    self.reconsider(cx, &logged.path)?;
                }
            }
        }
    }
}

/// True if the object found is the one that was installed.
fn is_same_object(entry: &Entry, found: &Fingerprint) -> bool {
    entry.installed.as_ref().is_some_and(|known| known.fingerprint.same_inode(found))
}

/// True if users were seen to put another file or link, found with the same content, in the place of what is
/// installed and is to make room for something else: they want this content.
fn is_chosen(
    cx: &Cx<'_>,
    path: &SharePath,
    entry: &Entry,
    found: &Fingerprint,
    dirt: Dirt,
) -> Result<bool, IndexError> {
    let Some(known) = entry.installed.as_ref().filter(|known| !known.content.is_dir()) else {
        return Ok(false);
    };
    if dirt.noticed == Noticed::Scan || is_same_object(entry, found) {
        return Ok(false);
    }
    let wanted = version::winner(&entry.record, cx.index.has_live_below(path)?);
    Ok(wanted.is_none_or(|wanted| wanted.content != known.content))
}

/// Writes an owner that is another than the record's. True if it is.
fn set_owner(record: &mut Record, owner: Option<&Owner>, stamp: &Stamp) -> bool {
    let known = record.owner.as_ref().map(|register| &register.value);
    let Some(owner) = owner.filter(|owner| Some(*owner) != known).cloned() else { return false };
    version::set(&mut record.owner, owner, stamp);
    true
}

/// What changed of an object but its content.
struct Change {
    mode: Option<u32>,
    mtime_ns: Option<i64>,
    owner: Option<Owner>,
}

pub(super) fn installed(
    content: Content,
    fingerprint: &Fingerprint,
    owner: Option<&Owner>,
) -> Installed {
    Installed {
        content,
        fingerprint: *fingerprint,
        mtime_ns: fingerprint.mtime_ns,
        mode: fingerprint.mode,
        owner: owner.cloned(),
    }
}

/// When the change happened, nanoseconds since 1970: as the watcher saw it; for what a scan
/// found, its ctime; now, if neither is known or the index is being built.
fn changed_ns(now: Now, noticed: Noticed, ctime_ns: Option<i64>, adopting: bool) -> i64 {
    match noticed {
        Noticed::Watcher(at) | Noticed::Along(at) => {
            let ago = i64::try_from(now.mono.saturating_sub(at).as_nanos()).unwrap_or(0);
            now.wall_ns - ago
        }
        Noticed::Scan if adopting => now.wall_ns,
        Noticed::Scan => ctime_ns.unwrap_or(now.wall_ns).min(now.wall_ns),
    }
}
