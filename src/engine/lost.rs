//! Versions whose bytes no node has any more: how the nodes find out, and give them up.
//!
//! A lost index, or one put back to an older state, can leave a version on record whose last holder has
//! forgotten it and written something else: each node would ask the others for its bytes for ever.
//!
//! So a node joins the version's list ([`Value::lacks`](recsync_proto::Value::lacks)) when it has looked at
//! all its own files in this run, has the bytes under no name, has failed to get them for two minutes,
//! and its peers have said twice in a row that they have them no more; with itself it names its peers.
//! The list travels with the record and only grows: a node of it that gets the bytes adds that it has
//! found them. It is *closed* once every peer that it names is in it too, and nobody has found
//! them: all who could be asked have looked then, in a line of nodes as in a mesh. A node of a closed
//! list drops the version. Until then the path is tried again ever more rarely, as after any failure.
//!
//! What is dropped stays known to the record's context, so it would count as superseded where its
//! bytes turn up after all: on a disk that was away, in a backup. Therefore it is listed in
//! [`Record::lost`](recsync_proto::Record::lost): nobody wanted it gone.
//!
//! **Invariant:** no bytes are removed, replaced or moved because a version was given up. What is
//! installed when that is heard, be it the version itself or an older one that was to make room for
//! it, is a version of its own from then on, with a new dot.
//! **May not:** touch the tree, or conclude anything from a link that is down.

use std::collections::BTreeSet;

use recsync_proto::message::{LACKS_MAX, LOST_MAX};
use recsync_proto::{
    Content, Dot, Hash, Lack, NodeName, Record, Register, SharePath, Stamp, Value,
};

use super::conflict::{self, Digits};
use super::effect::{Event, Noticed, Now};
use super::settle::Dirt;
use super::{Cx, Engine, version};
use crate::index::{Entry, IndexError};

/// So often in a row peers must have said that they have the bytes no more: news of another version
/// may have been on its way the first time.
const GONE_TIMES: u32 = 2;
/// So often it must have failed: about two minutes with growing delays, in which bytes that are on
/// their way over several nodes mostly come.
const FAILURES_MIN: u32 = 8;

/// What peers said of the bytes that a path waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone {
    hash: Hash,
    times: u32,
}

impl Engine {
    /// Counts that a peer has the bytes of a path no more.
    pub(super) fn gone_again(&self, path: &SharePath, hash: Hash) -> Gone {
        let before = self.retries.gone(path);
        let times = before.filter(|gone| gone.hash == hash).map_or(0, |gone| gone.times);
        Gone { hash, times: times + 1 }
    }

    /// Joins the list of those who lack what a path waits for, if that is sure enough.
    pub(super) fn lack(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        gone: Gone,
    ) -> Result<(), IndexError> {
        self.retries.set_gone(path, gone);
        let is_early = gone.times < GONE_TIMES || self.retries.failures(path) < FAILURES_MIN;
        if is_early || !self.is_nowhere_here(cx, path, gone.hash)? {
            return Ok(());
        }
        let mut entry = cx.entry(path)?;
        let node = &self.settings.node;
        let peers = self.settings.peers.iter().cloned();
        let lacks = peers.map(|peer| Lack { node: node.clone(), peer }).collect();
        let is_it = |value: &&mut Value| matches!(&value.content, Content::File { hash, .. } if *hash == gone.hash);
        let mut news = false;
        for value in entry.record.values.iter_mut().filter(is_it) {
            let before = value.lacks.clone();
            value.join_lacks(&lacks);
            news |= value.lacks != before;
        }
        if !news {
            return Ok(());
        }
        (entry.seq, entry.via, entry.changed_ns) = (self.take_seq(), None, cx.now.wall_ns);
        cx.put(path, entry)?;
        self.give_up(cx, path)
    }

    /// True if this node surely has these bytes nowhere in the share.
    fn is_nowhere_here(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        hash: Hash,
    ) -> Result<bool, IndexError> {
        let is_known = self.searched
            && self.scan_ended.is_none()
            && self.unreadable.len() == 0
            && !self.awaits_findings(cx.now)
            && !self.settle.contains(path)
            && !self.looking.contains_key(path)
            && !self.locked.contains(path);
        let comes = |content: &Content| matches!(content, Content::File { hash: coming, .. } if *coming == hash);
        let mut coming = self.ops.values().filter_map(|op| op.installs.as_ref());
        Ok(is_known && !coming.any(comes) && cx.index.installed_with(&hash, 1)?.is_empty())
    }

    /// True if something that a scan found has yet to be looked at.
    fn awaits_findings(&self, now: Now) -> bool {
        let is_finding = |dirt: &Dirt| dirt.noticed == Noticed::Scan;
        self.settle.has_findings(now.mono) || self.looking.values().any(is_finding)
    }

    /// Gives up the versions of a path that are nowhere: this node and all others on their lists have
    /// said so. Then the path is planned anew.
    pub(super) fn give_up(&mut self, cx: &mut Cx<'_>, path: &SharePath) -> Result<(), IndexError> {
        let mut entry = cx.entry(path)?;
        let here = entry.installed.as_ref().map(|installed| &installed.content);
        let is_nowhere = |value: &&Value| {
            is_closed(&value.lacks, &self.settings.node) && Some(&value.content) != here
        };
        let nowhere: Vec<Dot> =
            entry.record.values.iter().filter(is_nowhere).map(|value| value.dot).collect();
        // A full list would stand for every version.
        if nowhere.is_empty() || entry.record.lost.len() + nowhere.len() >= LOST_MAX {
            return Ok(());
        }
        let before = entry.record.clone();
        for dot in nowhere {
            version::give_up(&mut entry.record, dot);
        }
        entry.let_go = entry.let_go && version::same_values(&before, &entry.record);
        (entry.seq, entry.via, entry.changed_ns) = (self.take_seq(), None, cx.now.wall_ns);
        self.keep_what_is_here(cx, path, &before, &mut entry);
        entry.pending = self.is_pending(cx, path, &entry)?;
        let is_dead = entry.record.is_tombstone();
        cx.put(path, entry)?;
        self.tell_given_up(cx, path, &before)?;
        if is_dead {
            self.reconsider_above(cx, path)?;
        }
        self.reconsider(cx, path)
    }

    /// Tells of the versions that a path lost since, because they were given up here or elsewhere.
    pub(super) fn tell_given_up(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        before: &Record,
    ) -> Result<(), IndexError> {
        let now = cx.entry(path)?.record;
        for value in before.values.iter().filter(|value| now.lost.contains(&value.dot)) {
            // Another content is to come now: it has not failed yet.
            self.retries.forgive(path);
            if !version::holds(&now, &value.content) {
                cx.event(Event::GivenUp {
                    path: path.clone(),
                    version: conflict::version(value.dot, Digits::Eight),
                    size: value.content.size(),
                    node: value.stamp.node.clone(),
                });
            }
        }
        Ok(())
    }

    /// Writes what is installed anew if it would go because versions were given up since `before`; and
    /// says so if this node is listed as one that has it not. To be stored by the caller.
    pub(super) fn keep_what_is_here(
        &mut self,
        cx: &Cx<'_>,
        path: &SharePath,
        before: &Record,
        entry: &mut Entry,
    ) {
        let Some(here) = entry.installed.as_ref().map(|installed| &installed.content) else {
            return;
        };
        let given_up = entry.record.lost != before.lost || entry.record.lost.len() >= LOST_MAX;
        let was_version = version::holds(before, here);
        // One that was superseded before, and is being replaced now, has its successor's bytes there.
        let stayed = was_version || !before.is_tombstone() && !self.locked.contains(path);
        let goes = given_up && stayed && !version::holds(&entry.record, here);
        if goes {
            let stamp = version::loser(before, here).map(|value| value.stamp.clone());
            self.write_anew(cx, entry, stamp);
        }
        self.say_found(cx, entry);
    }

    /// Writes what an operation has just installed anew if these versions, for which it was, were given up
    /// meanwhile; and says so if this node is listed as one that has it not.
    pub(super) fn keep_found(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        versions: &[Dot],
    ) -> Result<(), IndexError> {
        let mut entry = cx.entry(path)?;
        let Some(here) = entry.installed.as_ref().map(|installed| &installed.content) else {
            return Ok(());
        };
        let given_up = !version::holds(&entry.record, here)
            && versions.iter().any(|&dot| entry.record.may_be_lost(dot));
        let was_dead = entry.record.is_tombstone();
        if given_up {
            self.write_anew(cx, &mut entry, None);
        }
        if !self.say_found(cx, &mut entry) && !given_up {
            return Ok(());
        }
        cx.put(path, entry)?;
        if was_dead { self.reconsider_above(cx, path) } else { Ok(()) }
    }

    /// Says that this node has found what is installed, if it is listed as one that has it not. True if
    /// so: to be stored by the caller.
    pub(super) fn say_found(&mut self, cx: &Cx<'_>, entry: &mut Entry) -> bool {
        let node = &self.settings.node;
        let Some(here) = &entry.installed else { return false };
        let found = BTreeSet::from([Lack { node: node.clone(), peer: node.clone() }]);
        let is_listed = |value: &&mut Value| {
            value.content == here.content && value.lacks.iter().any(|lack| lack.node == *node)
        };
        let mut news = false;
        for value in entry.record.values.iter_mut().filter(is_listed) {
            let before = value.lacks.clone();
            value.join_lacks(&found);
            news |= value.lacks != before;
        }
        if news {
            (entry.seq, entry.via, entry.changed_ns) = (self.take_seq(), None, cx.now.wall_ns);
        }
        news
    }

    /// Makes what is installed a version of its own, with the stamp that it had, if that is known: what
    /// was written later keeps the name.
    fn write_anew(&mut self, cx: &Cx<'_>, entry: &mut Entry, stamp: Option<Stamp>) {
        let Some(here) = entry.installed.as_ref().filter(|here| !here.content.is_dir()) else {
            return;
        };
        let seq = self.take_seq();
        let stamp = stamp.unwrap_or(Stamp { hlc: 0, node: self.settings.node.clone() });
        let value = Value {
            dot: self.dot(seq),
            stamp: stamp.clone(),
            content: here.content.clone(),
            mtime_ns: Register { value: here.mtime_ns, stamp },
            lacks: BTreeSet::new(),
        };
        version::write(&mut entry.record, Some(&here.content), value);
        (entry.seq, entry.via, entry.changed_ns) = (seq, None, cx.now.wall_ns);
    }
}

/// True if everyone whom the nodes of a list may ask is a node of the list, and so is this one, and
/// none has found the bytes since. A full list may be cut short, and says nothing.
fn is_closed(lacks: &BTreeSet<Lack>, node: &NodeName) -> bool {
    let listed = |name: &NodeName| lacks.iter().any(|lack| lack.node == *name);
    let lacked = |lack: &Lack| listed(&lack.peer) && lack.node != lack.peer;
    lacks.len() < LACKS_MAX && listed(node) && lacks.iter().all(lacked)
}
