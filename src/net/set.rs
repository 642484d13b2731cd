//! Which connection set of two nodes is used: a pure rule, so that every race can be tested.
//!
//! A *set* is two connections, one for each lane, dialled by the same node under one random number.
//! Both nodes dial, because either may be unreachable from the other; one set survives.
//!
//! # The rule
//! The node with the smaller fingerprint is the *senior* of the two.
//! 1. A node dials while it has no set in use and no half of an incoming one. It connects both lanes first
//!    (TCP and TLS) and **asks** last: it sends its hellos only if that still holds then.
//! 2. An incoming set that is complete (both hellos are here) is **taken**: it is answered on both
//!    lanes, replaces any set in use, and ends a dial of one's own. So a newer set by the same dialler replaces the older.
//! 3. Except that the senior refuses it (`Duplicate`) if it has itself asked and waits for the
//!    answer, or uses a set that it has dialled to this same instance of the peer.
//! 4. A hello from another instance of the peer than that of the set in use ends that set at once.
//!
//! # Why one set survives, and one does
//! - *Both dial at once.* The senior's asking is the point of decision, at the senior alone. Before it, the
//!   peer's first hello stops the senior from asking (1): the peer's set is taken. After it, the senior
//!   refuses the peer's set (3) and the junior, which refuses nothing, takes the senior's (2). Never both, never neither.
//! - *Only one can reach the other.* What cannot connect never asks, so it never refuses (3).
//! - *A set is half-open*: one node has given it up, the other has not noticed. The first dials anew. The junior
//!   takes the new set (2). The senior takes it too if the old one was the junior's; if the old one is its own it
//!   refuses, until it notices by itself, within the time in which a silent peer is dead.
//! - *The peer restarted* and its old connections were not reset: the new instance voids the old set (4), even
//!   one that the senior dialled (3).
//! - *A half set that never completes* is dropped after the handshake's deadline; meanwhile nothing else is
//!   given up for it, but for rule 4.
//! - *An answer or a hello that arrives late*, of a dial long given up, never completes (its dialler has closed the other lane).
//!
//! **Invariant:** at most one set is in use, and what is in use is replaced only by a complete one or voided.
//! **May not:** know sockets, time or chance.

use recsync_proto::message::Lane;

/// Which of the two nodes dialled a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialler {
    Us,
    Peer,
}

/// The set in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InUse {
    pub(super) set: u64,
    pub(super) dialler: Dialler,
    /// The peer's.
    pub(super) instance: u64,
}

/// What a hello says about its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) set: u64,
    pub(super) lane: Lane,
    pub(super) instance: u64,
}

/// What is to be done with the connection of an [`Offer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Refuse it: another set is used.
    Duplicate,
    /// Keep it, without an answer, until the other lane is here; an older half is dropped.
    Half,
    /// Both lanes are here and the set is in use from now on: answer both, end what was in use and a dial of one's own.
    Taken,
    /// Refuse it: this lane of the set is here already.
    Repeated,
}

/// A dial of one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dial {
    None,
    Connecting,
    Asked(u64),
}

/// One node's view of its sets with one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sets {
    in_use: Option<InUse>,
    half: Option<Offer>,
    dial: Dial,
}

impl Sets {
    pub(super) fn new() -> Self {
        Sets { in_use: None, half: None, dial: Dial::None }
    }

    /// Returns the set in use.
    pub(super) fn in_use(&self) -> Option<InUse> {
        self.in_use
    }

    /// True if a dial may begin now.
    pub(super) fn may_dial(&self) -> bool {
        self.dial == Dial::None && self.in_use.is_none() && self.half.is_none()
    }

    /// A dial begins.
    pub(super) fn dialling(&mut self) {
        debug_assert!(self.may_dial(), "one dial at a time");
        self.dial = Dial::Connecting;
    }

    /// Both lanes are connected: returns true if the hellos may be sent; else the dial is over.
    pub(super) fn may_ask(&mut self, set: u64) -> bool {
        let clear = self.in_use.is_none() && self.half.is_none();
        self.dial = if clear { Dial::Asked(set) } else { Dial::None };
        clear
    }

    /// The dial failed or was given up.
    pub(super) fn dial_failed(&mut self) {
        self.dial = Dial::None;
    }

    /// Both lanes are answered, by this instance: the set is in use.
    pub(super) fn answered(&mut self, instance: u64) {
        if let Dial::Asked(set) = self.dial {
            self.in_use = Some(InUse { set, dialler: Dialler::Us, instance });
        }
        self.dial = Dial::None;
    }

    /// A hello is here. `senior`: this node's fingerprint is the smaller one.
    pub(super) fn offered(&mut self, offer: Offer, senior: bool) -> Verdict {
        if self.in_use.is_some_and(|used| used.instance != offer.instance) {
            self.in_use = None;
        }
        let ours_stands = matches!(self.dial, Dial::Asked(_))
            || self.in_use.is_some_and(|used| used.dialler == Dialler::Us);
        if senior && ours_stands {
            return Verdict::Duplicate;
        }
        match self.half {
            Some(half) if half.set == offer.set && half.lane == offer.lane => Verdict::Repeated,
            Some(half) if half.set == offer.set && half.instance == offer.instance => {
                let Offer { set, instance, .. } = offer;
                self.in_use = Some(InUse { set, dialler: Dialler::Peer, instance });
                (self.half, self.dial) = (None, Dial::None);
                Verdict::Taken
            }
            _ => {
                self.half = Some(offer);
                Verdict::Half
            }
        }
    }

    /// The other half did not come in time, or its connection ended.
    pub(super) fn half_dropped(&mut self) {
        self.half = None;
    }

    /// The set in use ended.
    pub(super) fn ended(&mut self) {
        self.in_use = None;
    }
}

#[cfg(test)]
mod tests;
