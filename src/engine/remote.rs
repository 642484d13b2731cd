//! The two directions of a link: our log towards a peer, and a peer's records into ours.
//!
//! Each lane is a cursor over our log: `bulk` from what the peer had acknowledged to where the
//! log stood when the link came up, `live` from there on. Of what comes then only the new changes
//! go by the live lane, not what a scan found or a directory brought along; that is left to the
//! bulk lane, as is what the live lane misses if it cannot keep up. So the newest change is never
//! behind old ones.
//!
//! **Invariant:** at most one announcement of a path is under way to a peer, so a peer sees the
//! states of a path in their order, whatever lane they took; what is under way is bounded. A peer
//! that hears that we know of a delete has nothing older of that path to come from us. Of a name it
//! hears before it hears of what is below: else what was a file there and has become a directory
//! would clash with it. And of a file where there was a directory it hears after what was in that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use recsync_proto::message::{
    Ack, AckState, Announcement, Bytes, INLINE_LEN_MAX, Lane, Moved, Open, ShareMessage,
};
use recsync_proto::{Content, Dot, Epoch, Hash, NodeName, Record, Seq, SharePath, Value};

use super::effect::{Announce, Effect, Event, Hint, Source};
use super::install::Owed;
use super::{Cx, Engine, Recent, slot, version};
use crate::index::{Entry, IndexError, Logged, PeerCursor, Write};

/// Announcements under way in one lane, and their inline bytes.
const FLIGHTS_MAX: usize = 512;
const FLIGHT_BYTES_MAX: u64 = 16 << 20;
/// A live lane this many positions behind, and full, leaves them to the bulk lane.
const LIVE_BEHIND_MAX: u64 = 256;
/// Positions that an index put back to an older state may have lost.
const SEQ_LOST_MAX: u64 = 1 << 32;
/// Smaller files travel inside their announcement though the peer has their bytes, or is about to:
/// to copy them there costs more.
const TWIN_LEN_MIN: u64 = 4 << 10;
/// Names of the same bytes that are looked through for one which the peer has.
const TWINS_ASKED: usize = 4;
/// Log positions read at once, at first and at most.
const LOG_CHUNK_MIN: usize = 8;
const LOG_CHUNK: usize = 128;

/// What the engine keeps of one configured peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) cursor: PeerCursor,
    link: Option<Link>,
}

impl Peer {
    pub(super) fn new(cursor: PeerCursor) -> Self {
        Peer { cursor, link: None }
    }

    /// Has the next pump move the cursor: over what came from this peer it moves without an
    /// acknowledgement, and none comes to a node that only receives.
    pub(super) fn move_cursor(&mut self) {
        if let Some(link) = &mut self.link {
            link.acked = true;
        }
    }

    /// Returns what is under way on the link, by name.
    #[cfg(test)]
    pub(super) fn leftovers(&self) -> Vec<(&'static str, usize)> {
        let Some(link) = &self.link else { return Vec::new() };
        vec![
            ("flights", link.flights.len()),
            ("flying", link.flying.len()),
            ("counted", link.under_way.iter().map(|lane| lane.count).sum()),
            ("again", link.again.len()),
            ("waiting", link.waiting.len()),
            ("acks", link.acks.len()),
            ("deferred", link.deferred.len()),
            ("unheard", usize::from(!link.heard_all)),
        ]
    }
}

/// What is under way on a link that is up.
#[derive(Debug)]
struct Link {
    /// The number of our opening of the share on this link.
    mine: u64,
    /// The number of the peer's opening, once it has come: its cursor is known.
    theirs: Option<u64>,
    /// The peer has answered our opening: what is sent on any lane from now on counts there.
    confirmed: bool,
    bulk: Bulk,
    live_next: Seq,
    flights: BTreeMap<Seq, Flight>,
    flying: BTreeMap<SharePath, Seq>,
    /// The bytes inside announcements under way: those of a twin need not cross beside them.
    carried: BTreeSet<(Hash, usize)>,
    under_way: [UnderWay; 2],
    /// Paths whose newer state waited for the acknowledgement of an older one.
    again: Vec<SharePath>,
    /// What waits to be told until a state of a name above or below it has arrived: by that name.
    waiting: BTreeMap<SharePath, Vec<SharePath>>,
    acks: Vec<Ack>,
    /// Acknowledgements of deletes that wait for an announcement of ours, by path: a peer that has
    /// them all may forget the delete, and must not hear of the file after that.
    deferred: BTreeMap<SharePath, Vec<Ack>>,
    /// Acknowledgements came that may move the cursor.
    acked: bool,
    /// The peer announced something behind what was seen of its log.
    saw_more: bool,
    /// The peer has announced all that there was when the link came up.
    heard_all: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bulk {
    next: Seq,
    until: Seq,
    /// Where the log stood when the link came up, until the peer is told that it has heard all of that.
    untold: Option<Seq>,
    /// Small files travel inside: not at the first exchange, when the peer may have them all.
    inline: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct UnderWay {
    count: usize,
    bytes: u64,
}

impl UnderWay {
    fn is_full(self) -> bool {
        self.count >= FLIGHTS_MAX || self.bytes >= FLIGHT_BYTES_MAX
    }
}

#[derive(Debug)]
struct Flight {
    path: SharePath,
    lane: Lane,
    bytes: u64,
    /// What the bytes inside are.
    carries: Option<Hash>,
    /// What is announced has a value: it is no tombstone.
    live: bool,
}

impl Link {
    fn new(mine: u64) -> Self {
        let bulk = Bulk { next: Seq::ZERO, until: Seq::ZERO, untold: None, inline: false };
        Link {
            mine,
            theirs: None,
            confirmed: false,
            bulk,
            live_next: Seq::ZERO,
            flights: BTreeMap::new(),
            flying: BTreeMap::new(),
            carried: BTreeSet::new(),
            under_way: [UnderWay::default(); 2],
            again: Vec::new(),
            waiting: BTreeMap::new(),
            acks: Vec::new(),
            deferred: BTreeMap::new(),
            acked: false,
            saw_more: false,
            heard_all: false,
        }
    }

    fn take_off(&mut self, seq: Seq, flight: Flight) {
        let under_way = &mut self.under_way[slot(flight.lane)];
        under_way.count += 1;
        under_way.bytes += flight.bytes;
        self.carried.extend(flight.carries.map(|hash| (hash, slot(flight.lane))));
        self.flying.insert(flight.path.clone(), seq);
        self.flights.insert(seq, flight);
    }

    /// Returns the lane in which something of a path is under way that an announcement in `lane` of what
    /// is below must not overtake: an older state than this, or this one in the other lane.
    fn flies_apart(&self, path: &SharePath, seq: Seq, lane: Lane) -> Option<Lane> {
        let flying = self.flying.get(path)?;
        let flight = self.flights.get(flying)?;
        (*flying < seq || flight.lane != lane).then_some(flight.lane)
    }

    /// Returns a path below this one of which something is under way that a file or link of this name, announced in
    /// `lane`, must not overtake: a state in which it is not deleted, or any in the other lane.
    fn flies_below(&self, path: &SharePath, lane: Lane) -> Option<SharePath> {
        let after = (Bound::Excluded(path), Bound::Unbounded);
        let below =
            self.flying.range::<SharePath, _>(after).take_while(|(it, _)| it.is_below(path));
        let overtaken = |flight: &Flight| flight.live || flight.lane != lane;
        let mut below = below.filter(|(_, seq)| self.flights.get(seq).is_some_and(overtaken));
        below.next().map(|(below, _)| below.clone())
    }

    /// True if a state of the path in which it is not deleted is under way to the peer.
    fn flies_alive(&self, path: &SharePath) -> bool {
        let flight = self.flying.get(path).and_then(|seq| self.flights.get(seq));
        flight.is_some_and(|flight| flight.live)
    }

    fn land(&mut self, seq: Seq) -> Option<SharePath> {
        let flight = self.flights.remove(&seq)?;
        let under_way = &mut self.under_way[slot(flight.lane)];
        under_way.count -= 1;
        under_way.bytes -= flight.bytes;
        if let Some(hash) = flight.carries {
            self.carried.remove(&(hash, slot(flight.lane)));
        }
        self.flying.remove(&flight.path);
        self.acks.extend(self.deferred.remove(&flight.path).unwrap_or_default());
        self.again.push(flight.path.clone());
        self.again.extend(self.waiting.remove(&flight.path).unwrap_or_default());
        Some(flight.path)
    }
}

impl Engine {
    pub(super) fn peer_up(&mut self, cx: &mut Cx<'_>, name: &NodeName) {
        let number = self.next_op;
        let Some(peer) = self.peers.get_mut(name) else { return };
        self.next_op += 1;
        peer.link = Some(Link::new(number));
        self.open(cx, name);
    }

    /// Tells where our log stands, and which opening of the peer's we know of.
    fn open(&self, cx: &mut Cx<'_>, name: &NodeName) {
        let Some(peer) = self.peers.get(name) else { return };
        let Some(link) = &peer.link else { return };
        let open = Open {
            epoch: self.epoch,
            head: self.head,
            seen: peer.cursor.seen,
            number: link.mine,
            answers: link.theirs,
        };
        cx.effects.push(Effect::Send {
            peer: name.clone(),
            lane: Lane::Live,
            message: ShareMessage::Open(open),
        });
    }

    pub(super) fn peer_down(&mut self, name: &NodeName) {
        if let Some(peer) = self.peers.get_mut(name) {
            peer.link = None;
        }
        self.forget_owed(name);
        self.start_sweep();
    }

    pub(super) fn message(
        &mut self,
        cx: &mut Cx<'_>,
        name: &NodeName,
        lane: Lane,
        message: ShareMessage,
    ) -> Result<(), IndexError> {
        let link = self.peers.get(name).and_then(|peer| peer.link.as_ref());
        let Some(link) = link else { return Ok(()) };
        match message {
            ShareMessage::Open(open) => self.opened(cx, name, open),
            // Nothing counts before the peer has opened the share.
            _ if link.theirs.is_none() => Ok(()),
            ShareMessage::Announce(announcements) => {
                announcements.into_iter().try_for_each(|one| self.announced(cx, name, lane, one))
            }
            ShareMessage::CaughtUp { .. } => {
                if let Some(link) = self.peers.get_mut(name).and_then(|peer| peer.link.as_mut()) {
                    link.heard_all = true;
                }
                self.start_sweep();
                Ok(())
            }
            ShareMessage::Acks(acks) => {
                acks.into_iter().try_for_each(|ack| self.acked(cx, name, ack))
            }
            ShareMessage::GetOutline { .. }
            | ShareMessage::GetBlocks { .. }
            | ShareMessage::Outline { .. }
            | ShareMessage::Block { .. }
            | ShareMessage::Gone { .. }
            | ShareMessage::GetDigests { .. }
            | ShareMessage::Digests { .. } => Ok(()),
        }
    }

    fn opened(&mut self, cx: &mut Cx<'_>, name: &NodeName, open: Open) -> Result<(), IndexError> {
        let Some(peer) = self.peers.get_mut(name) else { return Ok(()) };
        let Some(link) = &mut peer.link else { return Ok(()) };
        let answered = open.answers == Some(link.mine);
        if link.theirs == Some(open.number) {
            link.confirmed |= answered;
            return Ok(());
        }
        // A share that was restarted at the peer opens again on the same link: what was under
        // way to it is lost, and begins anew.
        let mut link = Link::new(link.mine);
        link.theirs = Some(open.number);
        link.confirmed = answered;
        self.skip_lost(cx, name, &open);
        self.know(cx, name, &open)?;
        let head = self.head;
        let Some(peer) = self.peers.get_mut(name) else { return Ok(()) };
        let acked = peer.cursor.acked;
        link.bulk =
            Bulk { next: acked.next(), until: head, untold: Some(head), inline: acked > Seq::ZERO };
        link.live_next = head.next();
        if mutant!(SkipBacklog) {
            link.bulk.next = head.next();
        }
        peer.link = Some(link);
        self.open(cx, name);
        self.forget_owed(name);
        self.start_sweep();
        Ok(())
    }

    /// Goes on after the last position that the peer has seen of our log: if ours ends before it,
    /// our index was put back to an older state, and positions that the peer knows must not be
    /// used again for other events.
    fn skip_lost(&mut self, cx: &mut Cx<'_>, name: &NodeName, open: &Open) {
        if let Some((epoch, seen)) = open.seen
            && epoch == self.epoch
            && seen > self.head
            // More than any index loses: a peer must not use up our numbers.
            && seen.0 - self.head.0 < SEQ_LOST_MAX
        {
            let why = format!(
                "it has seen position {seen} of this index, which stands at {}: the index was restored from an older copy",
                self.head
            );
            self.head = seen;
            cx.event(Event::PeerReset { peer: name.clone(), why });
        }
    }

    /// Notes where the peer's log stands; its cursor goes back to zero if its index is another one
    /// than before, or an older state of it.
    fn know(&mut self, cx: &mut Cx<'_>, name: &NodeName, open: &Open) -> Result<(), IndexError> {
        let Some(peer) = self.peers.get_mut(name) else { return Ok(()) };
        let mut reset = true;
        match peer.cursor.seen {
            Some((epoch, seen)) if epoch == open.epoch && open.head < seen => {
                let why = format!(
                    "its index stands at {}, {seen} was seen: it was restored from an older copy",
                    open.head
                );
                cx.event(Event::PeerReset { peer: name.clone(), why });
            }
            Some((epoch, _)) if epoch == open.epoch => reset = false,
            Some((epoch, _)) => {
                let why = format!("its index is new (epoch {}, was {epoch})", open.epoch);
                cx.event(Event::PeerReset { peer: name.clone(), why });
            }
            None => {}
        }
        if reset {
            // It knows nothing of what it was told, nor of what it told.
            peer.cursor.acked = Seq::ZERO;
            cx.index.write(&Write::Unlearned(name.clone()))?;
        }
        peer.cursor.seen = Some((open.epoch, open.head));
        cx.index.write(&Write::Peer(name.clone(), peer.cursor.clone()))
    }

    /// Takes a peer's record in.
    fn announced(
        &mut self,
        cx: &mut Cx<'_>,
        name: &NodeName,
        lane: Lane,
        one: Announcement,
    ) -> Result<(), IndexError> {
        let Announcement { seq, path, record, inline, moved_from } = one;
        let owed = |seq, record: &Record| {
            let dead = record.is_tombstone();
            Owed { peer: name.clone(), seq, held: false, dead, lane }
        };
        self.merge_in(cx, &path, owed(seq, &record), &record)?;
        if let Some(Moved { seq, path: from, record }) = &moved_from {
            self.merge_in(cx, from, owed(*seq, record), record)?;
        }
        // A newer version, which another peer has told of, needs other bytes.
        let told = version::winner(&record, false).map(|told| told.content);
        let bytes = match (inline, told) {
            (Some(Bytes(bytes)), Some(Content::File { hash, .. }))
                if self.wants(cx, &path, hash)? =>
            {
                Some(Source::Inline(bytes.into()))
            }
            _ => None,
        };
        match moved_from {
            Some(Moved { path: from, .. }) => self.move_or_put(cx, &from, &path, bytes),
            None => self.reconsider_with(cx, &path, bytes),
        }
    }

    /// Joins a peer's record with ours and owes the peer an acknowledgement.
    fn merge_in(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        owed: Owed,
        record: &Record,
    ) -> Result<(), IndexError> {
        let (name, seq) = (&owed.peer, owed.seq);
        self.observe_stamps(cx.now, record);
        if let Some(peer) = self.peers.get_mut(name)
            && let Some((_, seen)) = &mut peer.cursor.seen
        {
            if let Some(link) = peer.link.as_mut().filter(|_| *seen < seq) {
                link.saw_more = true;
            }
            *seen = (*seen).max(seq);
        }
        let mut entry = cx.entry(path)?;
        if mutant!(AckBeforeDurable) {
            self.ack(path, &owed, AckState::Durable);
        }
        let unknown = entry.record.context.is_empty();
        if mutant!(IgnoreUnknownTombstones) && unknown && record.is_tombstone() {
            self.owe(path, owed);
            return Ok(());
        }
        let merged = version::merge(&entry.record, record);
        #[cfg(feature = "mutants")]
        let merged = crate::mutants::wrongly_resolved(
            merged,
            entry.installed.as_ref().map(|installed| &installed.content),
            cx.index.has_live_below(path)?,
        );
        if merged == entry.record {
            self.tell_again(cx, name, path, entry, record)?;
        } else {
            self.remember_wanted(cx, path, &entry)?;
            let (before, was_at) = (std::mem::take(&mut entry.record), entry.seq);
            // What was let go is another object now: that one is wanted here.
            entry.let_go = entry.let_go && version::same_values(&before, &merged);
            entry.via = (merged == *record).then(|| name.clone());
            entry.record = merged;
            entry.seq = self.take_seq();
            entry.changed_ns = cx.now.wall_ns;
            if owed.lane == Lane::Live && self.peers.len() > 1 {
                self.remember(entry.seq, Recent::Relayed);
            }
            self.keep_what_is_here(cx, path, &before, &mut entry);
            self.unsee(cx, path, (was_at, &before), &mut entry)?;
            entry.pending = self.is_pending(cx, path, &entry)?;
            let is_dead = entry.record.is_tombstone();
            cx.put(path, entry)?;
            if is_dead != before.is_tombstone() {
                self.reconsider_above(cx, path)?;
            }
            self.tell_given_up(cx, path, &before)?;
            self.give_up(cx, path)?;
        }
        self.doubt_installed(cx, path)?;
        self.owe(path, owed);
        Ok(())
    }

    /// Forgets what is installed if it is none of the versions that `before` knew, and a new one has the same
    /// bytes: should it be gone by now, that was no delete of the new one. To be stored by the caller.
    fn unsee(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        (was_at, before): (Seq, &Record),
        entry: &mut Entry,
    ) -> Result<(), IndexError> {
        if self.locked.contains(path) {
            return Ok(());
        }
        let leftover = entry.installed.take_if(|here| {
            let here = &here.content;
            !here.is_dir() && !version::holds(before, here) && version::holds(&entry.record, here)
        });
        let Some(leftover) = leftover else { return Ok(()) };
        self.settle.find(path.clone(), Hint::Written, cx.now.mono);
        self.remember_left(cx, path, (was_at, &entry.record), &leftover)
    }

    /// Tells a peer again of a delete that it has acknowledged, if it shows to know less: it has
    /// forgotten it. Likewise of anything of which it shows to know nothing.
    fn tell_again(
        &mut self,
        cx: &mut Cx<'_>,
        name: &NodeName,
        path: &SharePath,
        mut entry: Entry,
        shown: &Record,
    ) -> Result<(), IndexError> {
        let Some(peer) = self.peers.get(name) else { return Ok(()) };
        let forgettable = entry.record.is_tombstone() || *shown == Record::default();
        if entry.record == *shown || !forgettable || entry.seq == Seq::ZERO {
            return Ok(());
        }
        let told = entry.via.as_ref() == Some(name)
            || entry.seq <= peer.cursor.acked
            || cx.index.is_acked(name, entry.seq)?;
        if !told {
            return Ok(());
        }
        (entry.seq, entry.via, entry.changed_ns) = (self.take_seq(), None, cx.now.wall_ns);
        cx.put(path, entry)
    }

    /// Tells a peer what became of a record of its.
    pub(super) fn ack(&mut self, path: &SharePath, owed: &Owed, state: AckState) {
        let link = self.peers.get_mut(&owed.peer).and_then(|peer| peer.link.as_mut());
        let Some(link) = link else { return };
        let ack = Ack { seq: owed.seq, state };
        if owed.dead && link.flies_alive(path) {
            link.deferred.entry(path.clone()).or_default().push(ack);
        } else {
            link.acks.push(ack);
        }
    }

    /// Notes what became of a record of ours at a peer.
    fn acked(&mut self, cx: &mut Cx<'_>, name: &NodeName, ack: Ack) -> Result<(), IndexError> {
        if ack.seq > self.head {
            return Ok(());
        }
        let Some(peer) = self.peers.get_mut(name) else { return Ok(()) };
        let Some(link) = &mut peer.link else { return Ok(()) };
        let flown = link.land(ack.seq);
        link.acked = true;
        let held = ack.state == AckState::Held;
        // A held one is remembered below the cursor too, until it is durable.
        if ack.seq > peer.cursor.acked || cx.index.is_held(name, ack.seq)? {
            cx.index.write(&Write::Acked { peer: name.clone(), seq: ack.seq, held })?;
        }
        if !held && let Some(path) = flown.or(cx.index.at(ack.seq)?) {
            let took = match self.recent.get(&ack.seq) {
                Some(Recent::Seen(at)) => Some(cx.now.mono.saturating_sub(*at)),
                _ => None,
            };
            cx.event(Event::Replicated { peer: name.clone(), path, took });
        }
        Ok(())
    }

    /// True if this peer has announced everything that there was when the link came up, or is
    /// not connected.
    pub(super) fn heard_all(&self) -> bool {
        let mut links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        links.all(|link| link.heard_all)
    }

    /// Returns a connected peer to ask for bytes: the one that told of them first, after each
    /// failure the next one.
    pub(super) fn source_for(&self, via: Option<&NodeName>, failures: u32) -> Option<NodeName> {
        let up = |name: &&NodeName| {
            self.peers
                .get(*name)
                .and_then(|peer| peer.link.as_ref())
                .is_some_and(|link| link.theirs.is_some())
        };
        let others = self.peers.keys().filter(|name| Some(*name) != via);
        let candidates: Vec<_> = via.into_iter().chain(others).filter(up).collect();
        let turn = failures as usize % candidates.len().max(1);
        candidates.get(turn).copied().cloned()
    }

    /// Moves a peer's cursor, sends it what is owed, and fills both lanes.
    pub(super) fn pump_peer(&mut self, cx: &mut Cx<'_>, name: &NodeName) -> Result<(), IndexError> {
        let Some(mut peer) = self.peers.remove(name) else { return Ok(()) };
        let result = self.pump_link(cx, name, &mut peer);
        self.peers.insert(name.clone(), peer);
        result
    }

    fn pump_link(
        &mut self,
        cx: &mut Cx<'_>,
        name: &NodeName,
        peer: &mut Peer,
    ) -> Result<(), IndexError> {
        let Some(link) = peer.link.as_mut().filter(|link| link.confirmed) else { return Ok(()) };
        if !link.acks.is_empty() {
            let message = ShareMessage::Acks(std::mem::take(&mut link.acks));
            cx.effects.push(Effect::Send { peer: name.clone(), lane: Lane::Live, message });
        }
        // Before anything of it is acknowledged: a peer whose machine is put back to an older state
        // is known by it, and would use its positions again.
        let mut moved = std::mem::take(&mut link.saw_more);
        if std::mem::take(&mut link.acked) {
            let through = cx.index.acked_through(name, peer.cursor.acked)?;
            moved |= through > peer.cursor.acked;
            peer.cursor.acked = peer.cursor.acked.max(through);
        }
        if moved {
            cx.index.write(&Write::Peer(name.clone(), peer.cursor.clone()))?;
        }
        let told = Default::default();
        let mut lanes = Lanes { engine: self, name, link, acked: peer.cursor.acked, told };
        lanes.again(cx)?;
        lanes.live(cx)?;
        lanes.bulk(cx)
    }

    /// Returns the lane on which peers are told of a change that was noted while they were connected.
    fn lane_to_tell(&self, seq: Seq) -> Lane {
        match self.recent.get(&seq) {
            Some(Recent::Seen(_) | Recent::Relayed) => Lane::Live,
            Some(Recent::Along) | None => Lane::Bulk,
        }
    }

    /// Returns the epoch and head of a peer as last seen.
    pub fn peer_seen(&self, name: &NodeName) -> Option<(Epoch, Seq)> {
        self.peers.get(name).and_then(|peer| peer.cursor.seen)
    }
}

/// The lanes of one link while they are filled.
struct Lanes<'a> {
    engine: &'a Engine,
    name: &'a NodeName,
    link: &'a mut Link,
    acked: Seq,
    /// Names of which the peer knows, or hears before all that is announced now in the same lane.
    told: [BTreeSet<SharePath>; 2],
}

impl Lanes<'_> {
    /// Announces the newer states that waited for the acknowledgement of an older one.
    fn again(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        for path in std::mem::take(&mut self.link.again) {
            let Some(entry) = cx.index.entry(&path)? else { continue };
            let lane = self.engine.lane_to_tell(entry.seq);
            let Bulk { next, until, .. } = self.link.bulk;
            let comes = lane == Lane::Bulk && (next..=until).contains(&entry.seq);
            let passed = entry.seq > Seq::ZERO && entry.seq < self.link.live_next && !comes;
            if passed && !self.announce(cx, Logged { path: path.clone(), entry }, lane)? {
                self.link.again.push(path);
            }
        }
        Ok(())
    }

    fn live(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        let head = self.engine.head;
        while self.link.live_next <= head {
            if self.link.under_way[slot(Lane::Live)].is_full() {
                if head.0 - self.link.live_next.0 > LIVE_BEHIND_MAX {
                    self.link.bulk.until = head;
                    self.link.live_next = head.next();
                }
                return Ok(());
            }
            let chunk = cx.index.log(self.link.live_next, head, LOG_CHUNK)?;
            if chunk.is_empty() {
                self.link.live_next = head.next();
            }
            for logged in chunk {
                let seq = logged.entry.seq;
                if self.engine.lane_to_tell(seq) == Lane::Live {
                    if self.link.under_way[slot(Lane::Live)].is_full() {
                        break;
                    }
                    self.announce(cx, logged, Lane::Live)?;
                } else if self.is_news(cx, &logged.path, &logged.entry)? {
                    self.link.bulk.until = seq;
                }
                self.link.live_next = seq.next();
            }
        }
        Ok(())
    }

    fn bulk(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        self.fill_bulk(cx)?;
        if let Some(through) = self.link.bulk.untold.take_if(|head| *head < self.link.bulk.next) {
            cx.effects.push(Effect::Send {
                peer: self.name.clone(),
                lane: Lane::Bulk,
                message: ShareMessage::CaughtUp { through },
            });
        }
        Ok(())
    }

    fn fill_bulk(&mut self, cx: &mut Cx<'_>) -> Result<(), IndexError> {
        // Mostly there is room for few.
        let mut len = LOG_CHUNK_MIN;
        while self.link.bulk.next <= self.link.bulk.until {
            if self.link.under_way[slot(Lane::Bulk)].is_full() {
                return Ok(());
            }
            let Bulk { next, until, .. } = self.link.bulk;
            let chunk = cx.index.log(next, until, len)?;
            len = LOG_CHUNK.min(len * 2);
            if chunk.is_empty() {
                self.link.bulk.next = until.next();
            }
            for logged in chunk {
                if self.link.under_way[slot(Lane::Bulk)].is_full() {
                    break;
                }
                let next = logged.entry.seq.next();
                if !self.announce(cx, logged, Lane::Bulk)? {
                    return Ok(());
                }
                self.link.bulk.next = next;
            }
        }
        Ok(())
    }

    /// Tells the peer of a path, after the names above it. False if the bulk lane has to wait with it for
    /// the live one.
    fn announce(
        &mut self,
        cx: &mut Cx<'_>,
        logged: Logged,
        lane: Lane,
    ) -> Result<bool, IndexError> {
        if !self.is_news(cx, &logged.path, &logged.entry)? {
            return Ok(true);
        }
        if !logged.entry.record.is_tombstone() {
            match self.tell_above(cx, &logged.path, lane)? {
                None => {}
                Some((_, Lane::Live)) if lane == Lane::Bulk => return Ok(false),
                Some((above, _)) => {
                    self.link.waiting.entry(above).or_default().push(logged.path);
                    return Ok(true);
                }
            }
        }
        let is_leaf = |value: &Value| !value.content.is_dir();
        if logged.entry.record.values.iter().any(is_leaf)
            && let Some(below) = self.link.flies_below(&logged.path, lane)
        {
            self.link.waiting.entry(below).or_default().push(logged.path);
            return Ok(true);
        }
        self.tell(cx, logged, lane)?;
        Ok(true)
    }

    /// Tells of all names above a path that the peer does not know as they are. Returns the name that the
    /// path has to wait for, and the lane in which that is under way, if there is one.
    fn tell_above(
        &mut self,
        cx: &mut Cx<'_>,
        path: &SharePath,
        lane: Lane,
    ) -> Result<Option<(SharePath, Lane)>, IndexError> {
        let told = &self.told[slot(lane)];
        let above: Vec<_> = path.ancestors().take_while(|above| !told.contains(above)).collect();
        for above in above.into_iter().rev() {
            if let Some(entry) = cx.index.entry(&above)?.filter(|entry| entry.seq > Seq::ZERO) {
                if let Some(flies_in) = self.link.flies_apart(&above, entry.seq, lane) {
                    return Ok(Some((above, flies_in)));
                }
                if self.is_news(cx, &above, &entry)? {
                    self.tell(cx, Logged { path: above.clone(), entry }, lane)?;
                }
            }
            self.told[slot(lane)].insert(above);
        }
        Ok(None)
    }

    fn tell(&mut self, cx: &mut Cx<'_>, logged: Logged, lane: Lane) -> Result<(), IndexError> {
        let Logged { path, entry } = logged;
        let moved_from = self.moved_from(cx, entry.seq, lane)?;
        let inline = self.inline(cx, &path, &entry, lane, moved_from.is_some())?;
        let (bytes, carries) = match inline.as_ref().map(|installed| &installed.content) {
            Some(Content::File { size, hash }) => (*size, Some(*hash)),
            _ => (0, None),
        };
        let live = !entry.record.is_tombstone();
        self.link.take_off(entry.seq, Flight { path: path.clone(), lane, bytes, carries, live });
        let announce = Announce {
            peer: self.name.clone(),
            lane,
            seq: entry.seq,
            path,
            record: entry.record,
            inline,
            moved_from,
        };
        cx.effects.push(Effect::Announce(Box::new(announce)));
        Ok(())
    }

    /// True if the peer is to be told of this state of the path now.
    fn is_news(&self, cx: &Cx<'_>, path: &SharePath, entry: &Entry) -> Result<bool, IndexError> {
        let known = entry.via.as_ref() == Some(self.name)
            || entry.seq <= self.acked
            // An older state is under way: its acknowledgement brings the path up again.
            || self.link.flying.contains_key(path)
            || cx.index.is_acked(self.name, entry.seq)?;
        Ok(!known)
    }

    /// Returns the old name's record to travel with the new name's, if that was a rename.
    fn moved_from(
        &mut self,
        cx: &Cx<'_>,
        seq: Seq,
        lane: Lane,
    ) -> Result<Option<Moved>, IndexError> {
        let Some(from) = self.engine.moves.get(&seq) else { return Ok(None) };
        let Some(entry) = cx.index.entry(from)? else { return Ok(None) };
        if !entry.record.is_tombstone() || !self.is_news(cx, from, &entry)? {
            return Ok(None);
        }
        let flight = Flight { path: from.clone(), lane, bytes: 0, carries: None, live: false };
        self.link.take_off(entry.seq, flight);
        Ok(Some(Moved { seq: entry.seq, path: from.clone(), record: entry.record }))
    }

    /// True if the peer has these bytes under another name, or they are on their way to it.
    fn has_twin(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        hash: Hash,
        lane: Lane,
    ) -> Result<bool, IndexError> {
        // A call does not wait for what the backlog brings.
        let lanes = [slot(Lane::Live), slot(lane)];
        if lanes.iter().any(|lane| self.link.carried.contains(&(hash, *lane))) {
            return Ok(true);
        }
        for twin in cx.index.installed_with(&hash, TWINS_ASKED)? {
            let entry = cx.entry(&twin)?;
            let theirs = entry.via.as_ref() == Some(self.name);
            if twin != *path && (theirs || cx.index.is_durable(self.name, self.acked, entry.seq)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn inline(
        &self,
        cx: &Cx<'_>,
        path: &SharePath,
        entry: &Entry,
        lane: Lane,
        moved: bool,
    ) -> Result<Option<crate::index::Installed>, IndexError> {
        let Some(installed) = &entry.installed else { return Ok(None) };
        // At the first exchange the peer may have what a scan finds here, while the link is up
        // too; what the watcher saw is new.
        let is_new = || self.engine.recent.contains_key(&entry.seq);
        let allowed = !moved && (self.link.bulk.inline || is_new());
        let Content::File { size, hash } = installed.content else { return Ok(None) };
        let small = size <= INLINE_LEN_MAX && size > 0;
        // A version of somebody else's with the same bytes, or one that this peer has: they are
        // there already, and what is new is a mode, a time or an owner.
        let known = |dot: Dot| dot.epoch != self.engine.epoch || dot.seq <= self.acked;
        let mut twins = entry.record.values.iter().filter(|v| v.content == installed.content);
        if !allowed || !small || twins.any(|value| known(value.dot)) {
            return Ok(None);
        }
        if size >= TWIN_LEN_MIN && self.has_twin(cx, path, hash, lane)? {
            return Ok(None);
        }
        let winner = version::winner(&entry.record, cx.index.has_live_below(path)?);
        let wanted = winner.is_some_and(|winner| winner.content == installed.content);
        Ok(wanted.then(|| installed.clone()))
    }
}
