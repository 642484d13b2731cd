//! Links between nodes: for each direction and lane an ordered queue, which a cut empties.
//!
//! The two ends learn of a link's coming and going at times of their own; what is sent into a link
//! that has been cut is lost without a word, and a link may swallow what one end sends for a while
//! before anybody notices.
//! **Invariant:** within one lane of one link messages arrive in order, or not at all.

use std::collections::{BTreeMap, VecDeque};

use recsync_proto::message::{Lane, ShareMessage};

/// One direction of a lane: who sends, who receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The sender.
    pub from: usize,
    /// The receiver.
    pub to: usize,
    /// The lane.
    pub lane: Lane,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// It arrives then, if nothing happens before.
    Arrives(u64),
    /// It is lost, and its sender does not know.
    Lost,
    /// Its sender knows that there is no link.
    NoLink,
}

/// The link between two nodes.
#[derive(Debug, Default)]
struct Link {
    /// Which connection this is; each dial has its own.
    dial: u64,
    /// Messages can pass.
    live: bool,
    /// Nobody may dial.
    parted: bool,
    /// Which ends think that it is up.
    up: [bool; 2],
    /// Which ends' messages are swallowed.
    mute: [bool; 2],
    queues: BTreeMap<Way, VecDeque<(u64, ShareMessage)>>,
}

/// All links.
#[derive(Debug, Default)]
pub struct Net {
    links: BTreeMap<(usize, usize), Link>,
    /// Messages that were handed to a live link.
    pub sent: u64,
}

fn key(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

impl Net {
    fn link(&mut self, one: usize, other: usize) -> &mut Link {
        self.links.entry(key(one, other)).or_default()
    }

    /// Makes a new connection, if none is there and nothing parts the two. Returns its number.
    pub fn dial(&mut self, one: usize, other: usize) -> Option<u64> {
        let link = self.link(one, other);
        if link.live || link.parted || link.up != [false; 2] {
            return None;
        }
        link.live = true;
        link.mute = [false; 2];
        link.dial += 1;
        Some(link.dial)
    }

    /// An end learns that the connection is up. False if it is gone already.
    pub fn come_up(&mut self, at: usize, peer: usize, dial: u64) -> bool {
        let link = self.link(at, peer);
        let fits = link.live && link.dial == dial;
        if fits {
            link.up[usize::from(at > peer)] = true;
        }
        fits
    }

    /// Cuts a connection; what is on its way is lost. False if there is none.
    pub fn cut(&mut self, one: usize, other: usize) -> bool {
        let link = self.link(one, other);
        link.queues.clear();
        std::mem::take(&mut link.live)
    }

    /// An end learns that its connection is gone. False if it did not have one.
    pub fn go_down(&mut self, at: usize, peer: usize) -> bool {
        let link = self.link(at, peer);
        !link.live && std::mem::take(&mut link.up[usize::from(at > peer)])
    }

    /// Swallows what is sent one way from now on; what is on its way is swallowed too.
    pub fn mute(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        link.mute[usize::from(from > to)] = true;
        link.queues.retain(|way, _| way.from != from);
    }

    /// True if a link swallows what is sent.
    pub fn is_mute(&self, one: usize, other: usize) -> bool {
        self.links.get(&key(one, other)).is_some_and(|link| link.mute != [false; 2])
    }

    /// Keeps two nodes apart, or lets them dial again.
    pub fn part(&mut self, one: usize, other: usize, parted: bool) {
        self.link(one, other).parted = parted;
    }

    /// True if this end thinks that the connection is up.
    pub fn is_up(&self, at: usize, peer: usize) -> bool {
        self.links.get(&key(at, peer)).is_some_and(|link| link.up[usize::from(at > peer)])
    }

    /// Sends a message that arrives at `ready_ns` or after those before it.
    pub fn send(&mut self, way: Way, ready_ns: u64, message: ShareMessage) -> Sending {
        let link = self.link(way.from, way.to);
        let end = usize::from(way.from > way.to);
        if !link.up[end] {
            return Sending::NoLink;
        }
        if !link.live || link.mute[end] {
            return Sending::Lost;
        }
        let queue = link.queues.entry(way).or_default();
        let ready_ns = queue.back().map_or(ready_ns, |(last, _)| ready_ns.max(*last));
        queue.push_back((ready_ns, message));
        self.sent += 1;
        Sending::Arrives(ready_ns)
    }

    /// Takes the next message of a way that has arrived by `now_ns`, if its receiver is up.
    pub fn receive(&mut self, way: Way, now_ns: u64) -> Option<ShareMessage> {
        let link = self.link(way.from, way.to);
        if !link.live || !link.up[usize::from(way.to > way.from)] {
            return None;
        }
        let queue = link.queues.get_mut(&way)?;
        queue.front().filter(|(ready_ns, _)| *ready_ns <= now_ns)?;
        queue.pop_front().map(|(_, message)| message)
    }

    /// True if nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        self.links.values().all(|link| link.queues.values().all(VecDeque::is_empty))
    }
}
