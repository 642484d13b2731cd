//! What must hold at every step (docs/semantics.md, Invariants), checked where it could be broken: as a
//! node speaks, and as its engine has taken its inputs.
//!
//! Looks at the disks, the indexes and what was said; what the users did is the oracle's.
//! **Invariant:** looking changes nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use recsync::engine::conflict::copy_paths;
use recsync::engine::{Hint, Load, Look, MaxDelete, version};
use recsync::index::{Entry, IndexRead, Installed, Memory};
use recsync_proto::message::{Ack, AckState, Announcement};
use recsync_proto::record::hash_of;
use recsync_proto::{Content, Dot, SharePath};

use crate::fs::Fs;
use crate::node::Node;
use crate::oracle::Oracle;

/// Looks, operations and fetches under way at most (`engine`).
const LOOKS_MAX: usize = 64;
const OPS_MAX: usize = 512;
const FETCHES_MAX: usize = 192;
/// Deletes within this time count together, and fewer never wait (contract, `max_delete`).
const WINDOW_NS: u64 = 600_000_000_000;
const NEVER_BELOW: u64 = 20;

/// What was said so far.
#[derive(Debug, Default)]
pub struct Said {
    contents: HashMap<Dot, Content>,
}

impl Said {
    /// A node tells of a record.
    pub fn announced(
        &mut self,
        node: &Node,
        announcement: &Announcement,
        oracle: &Oracle,
    ) -> Vec<String> {
        let Announcement { path, record, .. } = announcement;
        let mut wrongs = Vec::new();
        for value in &record.values {
            let first = self.contents.entry(value.dot).or_insert_with(|| value.content.clone());
            if *first != value.content {
                let (dot, now) = (value.dot, &value.content);
                wrongs.push(format!("reused: {dot:?} of {path} was {first:?} and is {now:?}"));
            }
        }
        let epoch = node.index.epoch();
        let Some(installed) = entry(&node.index, path).installed else { return wrongs };
        let mut own = record.values.iter().filter(|value| value.dot.epoch == epoch);
        if own.any(|value| value.content == installed.content) {
            let fs = &node.disk().fs;
            let Some(id) = still_there(fs, path, &installed) else { return wrongs };
            // As in `acked`.
            if !fs.is_durable(&names(path), id) && !fs.is_durable_elsewhere(id) {
                wrongs.push(format!("early: {} announces {path}, which is not durable", node.name));
            }
            if fs.bytes(id).is_ok_and(|bytes| !oracle.is_closed(bytes)) {
                wrongs
                    .push(format!("torn: {} announces {path}, which nobody closed so", node.name));
            }
        }
        wrongs
    }
}

/// A node tells a peer what became of a record of the peer's.
pub fn acked(node: &Node, peer: &Node, ack: &Ack) -> Option<String> {
    let path = peer.index.at(ack.seq).ok()??;
    // What is said to an index that is gone is lost with its link.
    let seen = node.index.peer(&peer.name).ok()?.seen;
    let is_gone = seen.is_some_and(|(epoch, _)| epoch != peer.index.epoch());
    if ack.state != AckState::Durable || is_gone {
        return None;
    }
    let told = entry(&peer.index, &path).record;
    let here = entry(&node.index, &path);
    if !here.record.context.covers(&told.context) && !told.is_tombstone() {
        return Some(format!("ack: {} has {path} of {}, unmerged", node.name, peer.name));
    }
    if here.pending && here.record == told {
        let winner = version::winner(&told, node.index.has_live_below(&path).ok()?);
        let wanted = winner.map(|winner| winner.content);
        let held = here.installed.as_ref().map(|installed| installed.content.clone());
        if wanted != held && matches!(wanted, Some(Content::File { .. })) {
            return Some(format!("ack: {} calls {path} durable, and has not got it", node.name));
        }
    }
    let installed = here.installed.filter(|_| !here.pending)?;
    // A version that lost is durable here once its copy is.
    let lost = told.values.iter().find(|value| {
        let lives = here.record.values.iter().any(|known| known.dot == value.dot);
        let holds = |path: &SharePath| {
            entry(&node.index, path).installed.is_some_and(|there| there.content == value.content)
        };
        let loser = version::loser(&here.record, &value.content).unwrap_or(value);
        // One that was there may be gone by the time that this is said.
        let was_kept = |copy: &SharePath| {
            let there = entry(&node.index, copy);
            holds(copy) || !there.record.context.is_empty() && !there.pending
        };
        lives
            && !value.content.is_dir()
            && !holds(&path)
            && !copy_paths(&path, loser).iter().any(was_kept)
    });
    if lost.is_some() {
        return Some(format!("ack: {} calls {path} durable, and lacks a loser", node.name));
    }
    let fs = &node.disk().fs;
    let id = still_there(fs, &path, &installed)?;
    // A user may have taken it to another name and back in the instant in which it was made durable.
    let durable = fs.is_durable(&names(&path), id) || fs.is_durable_elsewhere(id);
    (!durable).then(|| format!("ack: {} calls {path} durable, and it is not", node.name))
}

/// True if nothing has outgrown its limit.
pub fn is_bounded(load: Load) -> bool {
    load.looking <= LOOKS_MAX && load.applying <= OPS_MAX && load.fetching <= FETCHES_MAX
}

/// Counts the files that a node deletes for its peers.
#[derive(Debug, Default)]
pub struct Removals {
    /// When, and of how many files.
    within: VecDeque<(u64, u64)>,
    /// An operator has let go what was held: how much that is, only the guard knows.
    released: bool,
}

impl Removals {
    /// An operator decided.
    pub fn decided(&mut self, confirm: bool) {
        self.within.clear();
        self.released |= confirm;
    }

    /// A file was deleted, of `files` and itself. Says what is wrong about that.
    pub fn one_more(&mut self, now_ns: u64, files: u64, limit: MaxDelete) -> Option<String> {
        while self.within.front().is_some_and(|(at, _)| at + WINDOW_NS < now_ns) {
            self.within.pop_front();
        }
        self.within.push_back((now_ns, files + 1 + self.within.len() as u64));
        let gone = self.within.len() as u64;
        let of = self.within.iter().map(|(_, of)| *of).max().unwrap_or(0);
        let too_many = gone >= NEVER_BELOW && gone > limit.limit(of) && !self.released;
        too_many.then(|| format!("guard: {gone} of {of} files are deleted with no word of anyone"))
    }
}

/// Returns what a file holds if a look did not read it, as only its mode or owner and the ctime, or the ctime
/// alone, seemed to have changed, and it holds something else than is known.
pub fn overlooked<'a>(
    fs: &'a Fs,
    path: &SharePath,
    installed: Option<&Installed>,
    hint: Hint,
    look: &Look,
) -> Option<&'a [u8]> {
    let Look::Found { content, fingerprint, .. } = look else { return None };
    let Content::File { hash, .. } = content else { return None };
    let is_known = installed.is_some_and(|known| known.content == *content);
    if hint != Hint::Attributes || !is_known {
        return None;
    }
    let id = fs.resolve(&names(path)).ok().filter(|id| fs.stat(*id) == *fingerprint)?;
    fs.bytes(id).ok().filter(|bytes| hash_of(bytes) != *hash).map(|bytes| bytes.as_slice())
}

fn names(path: &SharePath) -> Vec<&[u8]> {
    path.as_bytes().split(|byte| *byte == b'/').collect()
}

fn entry(index: &Memory, path: &SharePath) -> Entry {
    index.entry(path).ok().flatten().unwrap_or_default()
}

/// Returns the file that is installed at a path, if nobody has changed it since: by its bytes too, for
/// whoever puts the mtime back leaves a stat that may be taken for the old one.
fn still_there(fs: &Fs, path: &SharePath, installed: &Installed) -> Option<crate::fs::Id> {
    let Content::File { hash, .. } = &installed.content else { return None };
    let id = fs.resolve(&names(path)).ok()?;
    let is_same = |bytes: &Arc<Vec<u8>>| hash_of(bytes) == *hash;
    (fs.stat(id) == installed.fingerprint && fs.bytes(id).is_ok_and(is_same)).then_some(id)
}
