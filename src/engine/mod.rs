//! Decides what one share does: the functional core that the daemon and the simulator both run.
//!
//! [`Engine::step`] takes one input and the time, reads and writes the index within the caller's
//! open transaction, and returns effects. [`Engine::pump`] fills the lanes towards the peers and
//! is called once after a batch of steps. The caller commits, and only then hands out the effects:
//! so nothing is said or done on the strength of what a crash could take back.
//!
//! ```text
//! Dirty ─▶ settle ─▶ Look ─▶ absorb ─▶ record ─▶ log ─▶ Announce ─▶ peer
//! peer ─▶ Announce ─▶ merge ─▶ plan ─▶ Apply | Fetch ─▶ installed ─▶ Ack ─▶ peer
//! ```
//!
//! **Invariant:** equal inputs, equal effects. A path with an operation, a look or dirt pending is
//! not touched by another operation: what is on disk is absorbed first, always. Memory is bounded
//! by what is in motion, never by the number of files.
//! **May not:** do input or output of its own, read a clock, draw randomness, write logs, be async.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_types)]

pub mod absorb;
pub mod conflict;
mod earlier;
pub mod effect;
pub mod guard;
mod install;
mod local;
mod lost;
pub mod plan;
mod remote;
mod retry;
pub mod settle;
#[cfg(test)]
mod tests;
pub mod version;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use recsync_proto::message::{FileRef, Lane};
use recsync_proto::{Dot, Epoch, Hash, NodeName, Record, Seq, SharePath, Stamp};

use crate::index::{Entry, Guard, Index, IndexError, Unnoted, Write};
use crate::tree::IgnoreRules;

pub use effect::{
    Action, Announce, AppliedKind, Done, Effect, Event, GuardEvent, Hint, IMPLIED_DIR_MODE, Input,
    Look, NotFetched, Noticed, Now, Op, Outcome, Saved, Source,
};
pub use guard::MaxDelete;

use earlier::Wanted;
use guard::DeleteGuard;
use local::Rename;
use remote::Peer;
use retry::Retries;
use settle::{Dirt, Settle};

/// Looks under way at most: enough to keep every worker busy.
const LOOKS_MAX: usize = 64;
/// Operations under way at most, beyond which pending paths stay in the index.
const OPS_MAX: usize = 512;
/// Fetches asked for at most.
const FETCHES_MAX: usize = 96;
/// Names that wait for bytes on their way to another name, beyond which the walk through pending
/// paths stands still.
const TWINS_MAX: usize = 1_024;
/// Positions for which a rename is remembered as one: a renamed directory of 32,000 files.
const MOVES_KEPT: u64 = 65_536;
/// Recent changes of which it is remembered how they came.
const RECENT_MAX: usize = 65_536;
/// A name that went away waits this much longer than settle for its new name to be found.
const MOVE_WAIT: Duration = Duration::from_millis(250);
/// How often tombstones that everyone has acknowledged are dropped, and how soon more of them where
/// there were too many for once.
const TIDY_EVERY: Duration = Duration::from_secs(10);
const TIDY_SOON: Duration = Duration::from_millis(250);
/// Tombstones dropped at once.
const TIDY_CHUNK: usize = 1_024;

/// Whether owner and group are a part of what is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum OwnerPolicy {
    /// By name, as far as the process may set them.
    #[default]
    Name,
    /// Not at all: what peers tell of them is passed on.
    Ignore,
}

/// What a delete here means elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DeletePolicy {
    /// It is a delete everywhere.
    #[default]
    Propagate,
    /// Nothing: the others keep theirs. A rename is still a rename.
    Keep,
}

/// What the engine must know beforehand.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node's name, as conflict copies show it.
    pub node: NodeName,
    /// How long a path must be quiet before it is looked at.
    pub settle: Duration,
    /// When vanishing files wait for the operator.
    pub max_delete: MaxDelete,
    /// All configured peers: tombstones wait for each.
    pub peers: Vec<NodeName>,
    /// Whether owners are synced.
    pub owner: OwnerPolicy,
    /// Whether deletes here are deletes elsewhere.
    pub deletes: DeletePolicy,
    /// What is left alone.
    pub ignore: Arc<IgnoreRules>,
}

impl Settings {
    /// Returns the settings by which it is worked out what is pending: after a change of these
    /// everything is planned anew ([`Engine::replan`]).
    pub fn rules(&self) -> String {
        format!("{:?} {:?}", self.owner, self.ignore.patterns())
    }
}

/// The state machine of one share.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    epoch: Epoch,
    head: Seq,
    /// Hybrid logical clock: the greatest reading used or seen, and the one last stored.
    hlc: u64,
    hlc_stored: u64,
    next_op: u64,
    /// Until the first full scan of a fresh index, a file's own mtime orders its first version:
    /// who was written later keeps the name, not who was indexed later.
    adopting: bool,
    /// The machine went down before this start: until the first full scan is absorbed, a file that
    /// lost bytes is suspect, not news.
    doubting: bool,
    /// A full scan of this run is absorbed: what is on this disk is known.
    searched: bool,
    settle: Settle,
    looking: BTreeMap<SharePath, Dirt>,
    /// Looks under way that may have seen what is gone by now: only that there is nothing counts.
    doubted: BTreeSet<SharePath>,
    /// A new name found with the inode of an old one waits for the look at the old name.
    renames: BTreeMap<SharePath, Rename>,
    ops: BTreeMap<u64, install::Running>,
    /// Paths that an operation under way may change.
    locked: BTreeSet<SharePath>,
    /// Acknowledgements that peers wait for; bounded by their windows.
    owed: install::OwedByPath,
    /// What waits for an operation above it.
    blocked: install::BlockedBelow,
    fetching: BTreeMap<SharePath, FileRef>,
    /// Names whose bytes are on their way to another one, which they are then copied from; bounded
    /// by the peers' windows and the sweep's chunks.
    twins: BTreeSet<(Hash, SharePath)>,
    /// Bytes that may be fetched; none while the disk is too full to receive anything.
    room: Option<u64>,
    /// What operations have put in place that may not be durable, or was not to be seen when they
    /// ended: whoever changes or removes it knew it. Until the next look.
    unsure: BTreeMap<SharePath, install::Unsure>,
    /// Directories that are watched since a moment ago, of which is yet to be found what went before.
    watched: BTreeSet<SharePath>,
    /// What may be somewhere though it is not noted, as the index has it too.
    wanted: BTreeMap<SharePath, Vec<Wanted>>,
    /// What an earlier run has put in the place of something else and not noted, until the next look.
    exchanged: BTreeMap<SharePath, earlier::Exchanged>,
    /// Paths that could not be looked at or changed.
    retries: Retries,
    /// Places that a scan could not look at, with all below them.
    unreadable: Retries,
    /// Where the walk through pending paths stands: positions below are still to be visited.
    sweep: Option<Seq>,
    /// Another walk is to follow: something changed, or a path was left for want of room.
    sweep_again: bool,
    local_guard: DeleteGuard,
    remote_guard: DeleteGuard,
    /// What waited for the operator before this start has been told again.
    held_told: bool,
    /// When the last full scan ended, until what it found is absorbed.
    scan_ended: Option<Duration>,
    peers: BTreeMap<NodeName, Peer>,
    /// Renames found lately: position of the new name → the old name.
    moves: BTreeMap<Seq, SharePath>,
    /// How recent changes came into the log, by position; the queue bounds it.
    recent: BTreeMap<Seq, Recent>,
    recent_order: VecDeque<Seq>,
    tidy: Tidy,
    /// Positions from here on are still to be planned anew after a change of the rules.
    replan: Option<Seq>,
}

/// Returns the place of a lane among what is kept for each.
fn slot(lane: Lane) -> usize {
    match lane {
        Lane::Live => 0,
        Lane::Bulk => 1,
    }
}

/// How a recent change came into the log; of one that a scan found nothing is kept.
#[derive(Debug, Clone, Copy)]
enum Recent {
    /// The watcher noticed it at this time.
    Seen(Duration),
    /// The watcher noticed it, and it is not urgent: [`Noticed::Along`].
    Along,
    /// A peer told of it on its live lane.
    Relayed,
}

/// The dropping of tombstones.
#[derive(Debug)]
struct Tidy {
    due: Duration,
    /// What everyone had acknowledged in the last round.
    acked: Seq,
    /// Up to where tombstones are dropped in this one.
    through: Seq,
    /// There were more than one chunk of them.
    more: bool,
}

/// What a step works on.
struct Cx<'a> {
    now: Now,
    index: &'a mut dyn Index,
    effects: Vec<Effect>,
}

impl Cx<'_> {
    fn event(&mut self, event: Event) {
        self.effects.push(Effect::Event(event));
    }

    fn entry(&self, path: &SharePath) -> Result<Entry, IndexError> {
        Ok(self.index.entry(path)?.unwrap_or_default())
    }

    fn put(&mut self, path: &SharePath, entry: Entry) -> Result<(), IndexError> {
        self.index.write(&Write::Entry(path.clone(), entry))
    }
}

impl Engine {
    /// Returns the engine of a share in the state that its index holds.
    ///
    /// `first_op` must be greater than any operation number used before with this index; the
    /// wall clock in nanoseconds at start serves. `fresh` tells that the index was just created.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn new(
        settings: Settings,
        index: &dyn Index,
        first_op: u64,
        fresh: bool,
    ) -> Result<Self, IndexError> {
        let hlc = index.clock()?;
        let mut engine = Engine {
            epoch: index.epoch(),
            head: index.head()?,
            hlc,
            hlc_stored: hlc,
            next_op: first_op,
            adopting: fresh,
            doubting: false,
            searched: false,
            settle: Settle::default(),
            looking: BTreeMap::new(),
            doubted: BTreeSet::new(),
            renames: BTreeMap::new(),
            ops: BTreeMap::new(),
            locked: BTreeSet::new(),
            owed: BTreeMap::new(),
            blocked: BTreeMap::new(),
            fetching: BTreeMap::new(),
            twins: BTreeSet::new(),
            room: Some(u64::MAX),
            unsure: BTreeMap::new(),
            watched: BTreeSet::new(),
            wanted: BTreeMap::new(),
            exchanged: BTreeMap::new(),
            retries: Retries::default(),
            unreadable: Retries::default(),
            sweep: None,
            sweep_again: false,
            local_guard: DeleteGuard::new(settings.max_delete, index.guard(Guard::Local)?),
            remote_guard: DeleteGuard::new(settings.max_delete, index.guard(Guard::Remote)?),
            held_told: false,
            scan_ended: None,
            peers: BTreeMap::new(),
            moves: BTreeMap::new(),
            recent: BTreeMap::new(),
            recent_order: VecDeque::new(),
            tidy: Tidy { due: TIDY_EVERY, acked: Seq::ZERO, through: Seq::ZERO, more: false },
            replan: None,
            settings,
        };
        for Unnoted { path, seq, record } in index.unnoted()? {
            engine.wanted.entry(path).or_default().extend(Wanted::by(seq, &record));
        }
        for peer in engine.settings.peers.clone() {
            engine.peers.insert(peer.clone(), Peer::new(index.peer(&peer)?));
        }
        Ok(engine)
    }

    /// Notes that the machine went down, or may have, since this index was last in use: what it had not
    /// written to the disk is lost.
    pub fn doubt_files(&mut self) {
        self.doubting = true;
    }

    /// True until a scan found, and could look at, all files after [`Engine::doubt_files`].
    pub fn doubts_files(&self) -> bool {
        self.doubting
    }

    /// Takes one input.
    ///
    /// # Errors
    /// If the index fails: nothing of the batch may be handed out, the transaction is void, and
    /// the engine must be made anew from the index.
    pub fn step(
        &mut self,
        now: Now,
        input: Input,
        index: &mut dyn Index,
    ) -> Result<Vec<Effect>, IndexError> {
        let mut cx = Cx { now, index, effects: Vec::new() };
        match input {
            Input::Dirty { path, hint, noticed } => self.noticed(&mut cx, path, hint, noticed)?,
            Input::Looked { path, look } => self.looked(&mut cx, &path, look)?,
            Input::Applied { id, outcome } => self.applied(&mut cx, id, outcome)?,
            Input::Fetched { path, hash, source } => self.fetched(&mut cx, &path, hash, source)?,
            Input::PeerUp(peer) => self.peer_up(&mut cx, &peer),
            Input::PeerDown(peer) => self.peer_down(&peer),
            Input::Message { peer, lane, message } => {
                self.message(&mut cx, &peer, lane, message)?
            }
            Input::Watched(dir) => self.watched(&cx, dir)?,
            Input::Scan(dir) => self.scan(&mut cx, dir),
            Input::Scanned(dir) => self.scanned(&cx, &dir),
            Input::Unreadable(path) => self.unreadable(&cx, &path),
            Input::Settled { exchanged, perhaps, done } => {
                self.settled(&mut cx, exchanged, perhaps, &done)?;
            }
            Input::Decide { confirm } => self.decide(&mut cx, confirm)?,
            Input::Room { bytes } => self.room(bytes),
            Input::Tick => {}
        }
        self.start_looks(&mut cx)?;
        Ok(cx.effects)
    }

    /// Fills the lanes with records and acks, carries on with pending paths, and tidies up.
    /// To be called after each batch of steps, before the commit.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn pump(&mut self, now: Now, index: &mut dyn Index) -> Result<Vec<Effect>, IndexError> {
        let mut cx = Cx { now, index, effects: Vec::new() };
        self.tell_held(&mut cx);
        self.miss_unheard(&mut cx)?;
        self.end_scan();
        self.forget_all_wanted(&mut cx)?;
        self.retry_due(&mut cx)?;
        self.carry_on_replanning(&mut cx)?;
        self.sweep(&mut cx)?;
        self.tidy(&mut cx)?;
        for peer in self.peers.keys().cloned().collect::<Vec<_>>() {
            self.pump_peer(&mut cx, &peer)?;
        }
        for (guard, which) in
            [(&mut self.local_guard, Guard::Local), (&mut self.remote_guard, Guard::Remote)]
        {
            guard.changes(which).iter().try_for_each(|write| cx.index.write(write))?;
        }
        if self.hlc != self.hlc_stored {
            self.hlc_stored = self.hlc;
            cx.index.write(&Write::Clock(self.hlc))?;
        }
        Ok(cx.effects)
    }

    /// Returns the monotonic time at which [`Input::Tick`] is wanted, if nothing else comes.
    pub fn next_due(&self) -> Option<Duration> {
        let ready =
            |path: &SharePath| !self.locked.contains(path) && !self.looking.contains_key(path);
        let room = self.looking.len() < LOOKS_MAX;
        let settle = if room { self.settle.next_due(ready) } else { None };
        let (retry, scan) = (self.retries.next_due(), self.unreadable.next_due());
        [settle, retry, scan, Some(self.tidy.due)].into_iter().flatten().min()
    }

    /// Returns how many paths wait to be looked at, are being looked at, changed and fetched.
    pub fn load(&self) -> Load {
        Load {
            dirty: self.settle.len() + self.renames.len(),
            looking: self.looking.len(),
            applying: self.ops.len(),
            fetching: self.fetching.len(),
            failing: self.retries.len(),
            unread: self.unreadable.len(),
        }
    }

    /// Says once after a start that deletes wait for the operator, as when they began to.
    fn tell_held(&mut self, cx: &mut Cx<'_>) {
        if std::mem::replace(&mut self.held_told, true) {
            return;
        }
        let tripped = [self.local_guard.tripped(), self.remote_guard.tripped()];
        for (gone, of) in tripped.into_iter().flatten() {
            cx.event(Event::Guard(GuardEvent::DeletesHeld { gone, of }));
        }
    }

    /// Plans everything anew, a part with each pump: the rules by which it was planned have changed.
    pub fn replan(&mut self) {
        self.replan = Some(Seq::ZERO);
    }

    /// True until [`Engine::replan`] is done.
    pub fn is_replanning(&self) -> bool {
        self.replan.is_some()
    }

    /// Returns how many deletes wait for the operator, and of how many files: those found here,
    /// and those that peers ask for.
    pub fn held(&self) -> [Option<(u64, u64)>; 2] {
        [self.local_guard.held(), self.remote_guard.held()]
    }

    /// True if a scan or a storm of events should wait: too many paths are dirty.
    pub fn is_busy(&self) -> bool {
        self.settle.len() > 4_096
    }

    /// Takes changed settings; peers that are new or gone are added and forgotten.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn reconfigure(&mut self, settings: Settings, index: &dyn Index) -> Result<(), IndexError> {
        self.peers.retain(|name, _| settings.peers.contains(name));
        for name in &settings.peers {
            if !self.peers.contains_key(name) {
                self.peers.insert(name.clone(), Peer::new(index.peer(name)?));
            }
        }
        self.local_guard.set_limit(settings.max_delete);
        self.remote_guard.set_limit(settings.max_delete);
        self.settings = settings;
        Ok(())
    }

    fn remember(&mut self, seq: Seq, recent: Recent) {
        self.recent.insert(seq, recent);
        self.recent_order.push_back(seq);
        if self.recent_order.len() > RECENT_MAX
            && let Some(oldest) = self.recent_order.pop_front()
        {
            self.recent.remove(&oldest);
        }
    }

    /// Takes the next position of the log.
    fn take_seq(&mut self) -> Seq {
        self.head = self.head.next();
        self.head
    }

    fn dot(&self, seq: Seq) -> Dot {
        Dot { epoch: self.epoch, seq }
    }

    /// Returns a stamp later than every one used or seen here.
    fn stamp(&mut self, now: Now) -> Stamp {
        let wall = Stamp::at(now.wall_ns / 1_000_000, self.settings.node.clone());
        self.hlc = wall.hlc.max(self.hlc + 1);
        Stamp { hlc: self.hlc, node: self.settings.node.clone() }
    }

    /// Lets the clock run past what a peer's record carries, but not past five minutes from now:
    /// a peer with a clock of the future must not drag this one along.
    fn observe_stamps(&mut self, now: Now, record: &Record) {
        let ceiling = u64::try_from(now.wall_ns / 1_000_000 + 300_000).unwrap_or(0) << 16;
        let values = record.values.iter().map(|value| value.stamp.hlc);
        let mode = record.mode.iter().map(|mode| mode.stamp.hlc);
        let owner = record.owner.iter().map(|owner| owner.stamp.hlc);
        if let Some(greatest) = values.chain(mode).chain(owner).filter(|&hlc| hlc <= ceiling).max()
        {
            self.hlc = self.hlc.max(greatest);
        }
    }

    /// Drops tombstones that every configured peer had acknowledged when this was done last.
    ///
    /// Each peer has merged the delete then, and has nothing older of the path on its way to us (its
    /// acknowledgement would have waited for that): what we forget, nobody can bring back. A round
    /// is waited so that the peers' own announcements of the same delete, which may still be on
    /// their way, find it known: else each of three nodes could teach it again to the next one.
    fn tidy(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        if cx.now.mono < self.tidy.due {
            return Ok(());
        }
        let acked = self.peers.values().map(|peer| peer.cursor.acked).min().unwrap_or(self.head);
        let acked = if mutant!(ForgetTombstones) { self.head } else { acked };
        if !self.tidy.more {
            self.tidy.through = std::mem::replace(&mut self.tidy.acked, acked);
            self.moves.retain(|seq, _| seq.0 + MOVES_KEPT > self.head.0);
            self.peers.values_mut().for_each(Peer::move_cursor);
        }
        let through = if mutant!(ForgetTombstones) { acked } else { self.tidy.through.min(acked) };
        let spent = cx.index.tombstones(through, TIDY_CHUNK)?;
        let mut dropped = 0;
        for path in spent {
            if !self.locked.contains(&path) && !self.looking.contains_key(&path) {
                cx.put(&path, Entry::default())?;
                dropped += 1;
            }
        }
        self.tidy.more = dropped == TIDY_CHUNK;
        self.tidy.due = cx.now.mono + if self.tidy.more { TIDY_SOON } else { TIDY_EVERY };
        Ok(())
    }
}

#[cfg(test)]
impl Engine {
    /// Returns what is left in memory when nothing is in motion, by name: a leak.
    fn leftovers(&self) -> Vec<(&'static str, usize)> {
        let mut found = vec![
            ("locked", self.locked.len()),
            ("doubted", self.doubted.len()),
            ("owed", self.owed.len()),
            ("blocked", self.blocked.len()),
            ("twins", self.twins.len()),
            ("unsure", self.unsure.len()),
            ("wanted", self.wanted.len()),
            ("exchanged", self.exchanged.len()),
            ("retries", self.retries.waiting()),
            ("unreadable", self.unreadable.waiting()),
            ("sweep", usize::from(self.sweep.is_some())),
            ("sweep_again", usize::from(self.sweep_again)),
            ("scan_ended", usize::from(self.scan_ended.is_some())),
        ];
        found.extend(self.peers.values().flat_map(Peer::leftovers));
        found.retain(|(_, count)| *count > 0);
        found
    }
}

/// What is in motion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Paths that are to be looked at.
    pub dirty: usize,
    /// Looks under way.
    pub looking: usize,
    /// Operations under way.
    pub applying: usize,
    /// Fetches asked for.
    pub fetching: usize,
    /// Paths that failed and are tried again later.
    pub failing: usize,
    /// Places that a scan could not look at, and that are scanned again later.
    pub unread: usize,
}
