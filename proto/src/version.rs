//! Who wrote a version, and what was known then: the identifiers of dotted version vectors.
//!
//! Source: Preguiça, Baquero, Almeida et al., "Dotted version vectors" (2010); hybrid logical
//! clocks after Kulkarni et al., "Logical physical clocks" (2014). The algebra over these types
//! is the engine's (`recsync::engine::version`).

use std::collections::BTreeMap;
use std::fmt;

use bincode::{Decode, Encode};

use crate::path::NodeName;

/// One life of one node's index of one share: random, minted whenever an index is created.
///
/// A dot's first half. Two epochs never share a sequence, so a lost, restored or cloned index
/// cannot reuse a dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A position in one epoch's log: 1, 2, 3 …; 0 is before the first. Every index commit of a
/// record takes the next one; gaps are fine, reuse is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first entry of a log.
    pub const ZERO: Seq = Seq(0);
    /// The greatest that is decoded, 2^62: no index stores more, and it has a next one.
    pub const MAX: Seq = Seq(1 << 62);

    /// Returns the next position.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl<C> Decode<C> for Seq {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let seq = Seq(u64::decode(decoder)?);
        if seq <= Seq::MAX {
            Ok(seq)
        } else {
            Err(bincode::error::DecodeError::Other("a sequence number over 2^62"))
        }
    }
}

bincode::impl_borrow_decode!(Seq);

/// The name of one local event: the epoch that minted it and its place in that epoch's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Dot {
    /// Which index wrote it.
    pub epoch: Epoch,
    /// The sequence number that the event's record took.
    pub seq: Seq,
}

/// A causal context: for each epoch, all dots up to a sequence number are known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Context(BTreeMap<Epoch, Seq>);

impl Context {
    /// Returns the context that knows nothing.
    pub fn new() -> Self {
        Context::default()
    }

    /// True if the dot is known here.
    pub fn contains(&self, dot: Dot) -> bool {
        self.0.get(&dot.epoch).is_some_and(|&known| dot.seq <= known)
    }

    /// Adds a dot and, as contexts are dense, all before it of the same epoch.
    pub fn insert(&mut self, dot: Dot) {
        let known = self.0.entry(dot.epoch).or_default();
        *known = (*known).max(dot.seq);
    }

    /// Adds all that the other context knows.
    pub fn join(&mut self, other: &Context) {
        for (&epoch, &seq) in &other.0 {
            self.insert(Dot { epoch, seq });
        }
    }

    /// True if everything known to `other` is known here.
    pub fn covers(&self, other: &Context) -> bool {
        other.0.iter().all(|(&epoch, &seq)| self.contains(Dot { epoch, seq }))
    }

    /// Returns the number of epochs named.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// When and where something was written: a total order on values, used only to choose who keeps
/// a name and which of two metadata writes is the last. Convergence does not depend on it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Stamp {
    /// Hybrid logical clock: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
    pub hlc: u64,
    /// The writer; breaks ties.
    pub node: NodeName,
}

impl Stamp {
    /// Returns the stamp of a wall clock reading in milliseconds since 1970, counter 0.
    pub fn at(wall_ms: i64, node: NodeName) -> Self {
        let ms = u64::try_from(wall_ms).unwrap_or(0).min((1 << 48) - 1);
        Stamp { hlc: ms << 16, node }
    }

    /// Returns the wall clock part in milliseconds since 1970.
    pub fn wall_ms(&self) -> i64 {
        i64::try_from(self.hlc >> 16).expect("48 bits fit")
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.hlc >> 16, self.hlc & 0xffff, self.node)
    }
}
