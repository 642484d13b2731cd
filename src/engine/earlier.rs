//! What this node may have put in place and not noted.
//!
//! A run that ends between an operation and its commit leaves on the disk what its index only wants. A scan
//! finds it, and as long as it is wanted that is all there is to it. But a peer may tell of the next version, or of a
//! delete, while the operation is under way or before the scan comes there. So what was wanted until then is kept,
//! in the index ([`Unnoted`]) and so beyond the end of any run: a look that finds it finds what this node did, and no
//! version of its users'. So is a directory that has to be made for what is below it, of which no record tells.
//!
//! What has replaced something has its intent, and recovery sees that the exchange was made: then whoever changed
//! or removed it since knew it. So has what ended in doubt and nobody has looked at since, and what could neither be
//! done nor undone. Where recovery cannot see it, the bytes of what was to be put there tell, in another inode than it
//! was to replace.
//!
//! **Invariant:** only what a peer has told of and this node was to put there, found with the bytes and the mtime that
//! it was to have (a directory with the mode, by a scan, where the watcher saw nobody); forgotten when it
//! is noted, and once the first scan is absorbed and could look at everything. In doubt it is the users'.
//! **May not:** touch disk, network, clock, randomness or logs.

use recsync_proto::{Content, Dot, Record, Seq, SharePath};

use super::effect::{Effect, IMPLIED_DIR_MODE, Look, Noticed};
use super::local::{installed, other_names};
use super::retry::RETRIES_MAX;
use super::settle::Dirt;
use super::{Cx, Engine, version};
use crate::index::{Entry, IndexError, Installed, Intent, Unnoted, Write};
use crate::tree::{Fingerprint, Place};

/// What is remembered of one path, at most.
const WANTED_MAX: usize = 8;

/// What may be at a path.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    content: Content,
    /// Of a file or link.
    mtime_ns: Option<i64>,
    /// Of a directory.
    mode: Option<u32>,
    /// None where it is a directory for what is below it.
    versions: Vec<Dot>,
}

impl Wanted {
    /// Returns what was to be put somewhere by a record at this position of the log.
    pub(super) fn by(seq: Seq, record: &Record) -> Option<Self> {
        if seq == Seq::ZERO {
            let (content, mode) = (Content::Dir, Some(IMPLIED_DIR_MODE));
            return Some(Wanted { content, mtime_ns: None, mode, versions: Vec::new() });
        }
        let winner = version::winner(record, false)?;
        let of_it = record.values.iter().filter(|value| value.content == winner.content);
        let versions = of_it.map(|value| value.dot).collect();
        let is_dir = winner.content.is_dir();
        let mode = is_dir.then_some(winner.mode.unwrap_or(IMPLIED_DIR_MODE));
        let mtime_ns = winner.mtime_ns.filter(|_| !is_dir);
        Some(Wanted { content: winner.content, mtime_ns, mode, versions })
    }

    fn is_it(&self, found: &Installed) -> bool {
        let stat = &found.fingerprint;
        self.content == found.content
            && self.mtime_ns.is_none_or(|mtime_ns| mtime_ns == stat.mtime_ns)
            && self.mode.is_none_or(|mode| mode == stat.mode)
    }
}

/// What an earlier run has put, or may have put, in the place of something else.
#[derive(Debug)]
pub(super) struct Exchanged {
    intent: Intent,
    known: Known,
}

/// What recovery knows of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It was made; if that is durable, its intent says so, and goes with the look at the path.
    Made,
    /// Nothing is left to be done, and nothing but the path tells whether it was made.
    Perhaps,
    /// Something may be left under its temporary name.
    Unsettled,
}

impl Engine {
    /// Notes what the runs before this one have exchanged, and may have, by the intents that they left; each path
    /// is to be looked at.
    pub fn take_exchanged(
        &mut self,
        exchanged: Vec<Intent>,
        perhaps: Vec<Intent>,
        unsettled: Vec<Intent>,
    ) {
        let all =
            [(unsettled, Known::Unsettled), (perhaps, Known::Perhaps), (exchanged, Known::Made)];
        for (intents, known) in all {
            for intent in intents {
                // The latest tells what is there.
                let later = |it: &Exchanged| it.intent.id > intent.id;
                if !self.exchanged.get(&intent.path).is_some_and(later) {
                    self.exchanged.insert(intent.path.clone(), Exchanged { intent, known });
                }
            }
        }
    }

    /// Has settled what an operation of this run left under its temporary name, as if an earlier run had left it.
    pub(super) fn settle_later(&mut self, cx: &mut Cx<'_>, id: u64) -> Result<(), IndexError> {
        let intent = cx.index.intents()?.into_iter().find(|intent| intent.id == id);
        if let Some(intent) = intent {
            self.take_exchanged(Vec::new(), Vec::new(), vec![intent.clone()]);
            // So that it is scanned, and again for as long as that settles nothing.
            self.unreadable(cx, &intent.path);
            cx.effects.push(Effect::Settle(intent));
        }
        Ok(())
    }

    /// Notes what has become of unsettled intents: whether the exchange of one was made is
    /// known now, or will never be. It stays until its path was looked at.
    pub(super) fn settled(
        &mut self,
        cx: &mut Cx<'_>,
        exchanged: Vec<Intent>,
        perhaps: Vec<Intent>,
        done: &[u64],
    ) -> Result<(), IndexError> {
        let made = exchanged.into_iter().map(|intent| (intent, Known::Made));
        for (intent, known) in made.chain(perhaps.into_iter().map(|it| (it, Known::Perhaps))) {
            let id = intent.id;
            let waiting = self.exchanged.get_mut(&intent.path).filter(|it| it.intent.id == id);
            let write = match waiting {
                Some(waiting) => {
                    *waiting = Exchanged { intent: intent.clone(), known };
                    Write::Intent(intent)
                }
                None => Write::IntentDone(id),
            };
            cx.index.write(&write)?;
        }
        self.exchanged.retain(|_, waiting| !done.contains(&waiting.intent.id));
        done.iter().try_for_each(|id| cx.index.write(&Write::IntentDone(*id)))
    }

    /// Remembers what was wanted at a path by the entry in whose record's place a peer's comes now, if it may be
    /// there already. Only where the index knows of nothing: whatever replaces has its intent.
    pub(super) fn remember_wanted(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        before: &Entry,
    ) -> Result<(), IndexError> {
        let is_free = before.pending && before.installed.is_none();
        if !is_free || self.knows_disk() && !self.may_be_put(path) {
            return Ok(());
        }
        let winner = version::winner(&before.record, cx.index.has_live_below(path)?);
        // A directory that is only implied is made with what it holds.
        let is_put = winner.is_some_and(|it| version::holds(&before.record, &it.content));
        if is_put { self.write_down(cx, path, before.seq, &before.record) } else { Ok(()) }
    }

    /// Remembers the directories that have to be made for what is to be put at a path.
    pub(super) fn remember_above(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
    ) -> Result<(), IndexError> {
        for dir in path.ancestors() {
            if cx.entry(&dir)?.installed.is_some() {
                break;
            }
            self.write_down(cx, &dir, Seq::ZERO, &Record::default())?;
        }
        Ok(())
    }

    /// Remembers what was installed at a path and is to be looked at, as if one of these versions had been put
    /// there with its mtime: they have its bytes. It is written down at the position that the record had before,
    /// as the new one's is that record's own.
    pub(super) fn remember_left(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        (was_at, record): (Seq, &Record),
        left: &Installed,
    ) -> Result<(), IndexError> {
        let mut record = record.clone();
        record.values.retain(|value| value.content == left.content);
        for value in &mut record.values {
            value.mtime_ns.value = left.fingerprint.mtime_ns;
        }
        self.write_down(cx, path, was_at, &record)
    }

    fn write_down(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        seq: Seq,
        record: &Record,
    ) -> Result<(), IndexError> {
        let Some(wanted) = Wanted::by(seq, record) else { return Ok(()) };
        let is_full = self.wanted.len() >= RETRIES_MAX;
        let known = self.wanted.get(path).map_or(&[][..], Vec::as_slice);
        if known.contains(&wanted) || known.len() >= WANTED_MAX || known.is_empty() && is_full {
            return Ok(());
        }
        self.wanted.entry(path.clone()).or_default().push(wanted);
        let (path, record) = (path.clone(), record.clone());
        cx.index.write(&Write::Unnoted(Unnoted { path, seq, record }))
    }

    /// Forgets what may be at a path: it is noted, or known not to be there.
    pub(super) fn forget_wanted(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
    ) -> Result<(), IndexError> {
        match self.wanted.remove(path) {
            Some(_) => cx.index.write(&Write::Noted(path.clone())),
            None => Ok(()),
        }
    }

    /// Notes what a look has found as installed, if this node has put it there. True if so.
    pub(super) fn recall(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        found: &Installed,
        dirt: Dirt,
    ) -> Result<bool, IndexError> {
        let mut wanted = self.wanted.get(path).into_iter().flatten();
        let Some(put) = wanted.find(|wanted| wanted.is_it(found)) else { return Ok(false) };
        // Bytes and mtime tell enough; a mode does not.
        let is_theirs = dirt.noticed != Noticed::Scan && found.content.is_dir();
        if is_theirs || cx.entry(path)?.installed.is_some() {
            return Ok(false);
        }
        let versions = put.versions.clone();
        self.forget_wanted(cx, path)?;
        if versions.is_empty() {
            self.note_made(cx, path, vec![(path.clone(), found.fingerprint)])?;
        } else {
            self.note_put(cx, path, found.clone(), &versions)?;
        }
        Ok(true)
    }

    /// True if an earlier run may have renamed what a look has found: it is known under a name for which its
    /// bytes are wanted no more.
    pub(super) fn may_have_moved(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        content: &Content,
        found: &Fingerprint,
        dirt: Dirt,
    ) -> Result<bool, IndexError> {
        if self.searched || dirt.noticed != Noticed::Scan || content.is_dir() {
            return Ok(false);
        }
        let names = other_names(cx, path, content, found)?;
        Ok(names.iter().any(|from| !version::holds(&from.record, content)))
    }

    /// Returns what an earlier run has put at a path in the place of what the index knows, for the look that
    /// is to be compared with it; none if the index knows of something later.
    pub(super) fn put_by_exchange(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        look: &Look,
    ) -> Result<Option<Installed>, IndexError> {
        let Some(Exchanged { intent, known }) = self.exchanged.remove(path) else {
            return Ok(None);
        };
        if intent.made || known == Known::Perhaps {
            cx.index.write(&Write::IntentDone(intent.id))?;
        }
        let Intent { expect, displaced, staged: Some(put), .. } = intent else { return Ok(None) };
        let before = cx.entry(path)?.installed;
        if before.as_ref().is_some_and(|before| before.fingerprint != expect) {
            return Ok(None);
        }
        // What is staged is made anew: in the inode that it was to replace it is somebody's own.
        let replaces = displaced != Place::Share(path.clone());
        let is_theirs = |found: &Fingerprint| replaces && found.same_inode(&expect);
        Ok(match look.found() {
            Look::Found { content, fingerprint, owner }
                if *content == put && !is_theirs(fingerprint) =>
            {
                Some(installed(put, fingerprint, owner.as_ref()))
            }
            // How it was is not known, and of no account: its content is another one, or gone.
            _ => before
                .filter(|_| known == Known::Made)
                .map(|before| Installed { content: put, ..before }),
        })
    }

    /// Forgets what may be somewhere, once the disk is known: but where a look or an operation is still to end.
    pub(super) fn forget_all_wanted(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        if self.wanted.is_empty() || !self.knows_disk() {
            return Ok(());
        }
        let known: Vec<_> =
            self.wanted.keys().filter(|path| !self.is_under_way(path)).cloned().collect();
        known.iter().try_for_each(|path| self.forget_wanted(cx, path))
    }

    /// True if the first scan is absorbed, and could look at everything.
    fn knows_disk(&self) -> bool {
        self.searched && self.unreadable.len() == 0
    }

    /// True if what is at a path may be another thing than what is noted: an operation is under way there or
    /// below, or a look to come.
    fn is_under_way(&self, path: &SharePath) -> bool {
        self.settle.contains(path) || self.looking.contains_key(path) || self.is_changing_at(path)
    }

    /// True if this node may have put something at a path of a disk that is known: an operation is under way there or
    /// below, or what a scan found there is still to be looked at. Where the watcher saw users, they did it.
    fn may_be_put(&self, path: &SharePath) -> bool {
        let looked_at = self.looking.get(path).map(|dirt| dirt.noticed);
        let noticed = looked_at.or(self.settle.noticed(path));
        noticed == Some(Noticed::Scan) || self.is_changing_at(path)
    }

    fn is_changing_at(&self, path: &SharePath) -> bool {
        self.locked.contains(path) || self.is_changing_below(path)
    }
}
