//! What happened, for a person to read and for a replay to be compared.
//! **Invariant:** told or not, the same history has the same trace.

use std::fmt;

use recsync::engine::Event;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Telling {
    /// Nothing.
    #[default]
    Silent,
    /// What users, nodes and the world do.
    Story,
    /// Also each system call, and what goes into the engines and comes out.
    Everything,
}

/// The account of one history.
#[derive(Debug, Default)]
pub struct Story {
    telling: Telling,
    lines: Vec<String>,
    trace: u64,
}

impl Story {
    /// Returns an empty story.
    pub fn new(telling: Telling) -> Self {
        Story { telling, ..Story::default() }
    }

    /// Adds an event at a simulated time in nanoseconds.
    pub fn tell(&mut self, at_ns: u64, who: &str, what: fmt::Arguments<'_>) {
        self.mix(at_ns);
        self.mix(who.len() as u64);
        self.note(at_ns, who, what);
    }

    /// Adds a line that is no event of its own.
    pub fn note(&mut self, at_ns: u64, who: &str, what: fmt::Arguments<'_>) {
        if self.telling >= Telling::Story {
            let (seconds, micros) = (at_ns / 1_000_000_000, at_ns / 1_000 % 1_000_000);
            self.lines.push(format!("{seconds:6}.{micros:06} {who:<6} {what}"));
        }
    }

    /// Adds a line only if everything is told.
    pub fn aside(&mut self, at_ns: u64, who: &str, what: fmt::Arguments<'_>) {
        if self.tells_everything() {
            self.note(at_ns, who, what);
        }
    }

    /// Takes a number into the trace.
    pub fn mix(&mut self, number: u64) {
        self.trace = (self.trace ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    /// Returns a number that differs where two histories differ.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Returns the lines, if they were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }

    /// True if lines are kept: what is costly to describe need not be otherwise.
    pub fn is_told(&self) -> bool {
        self.telling >= Telling::Story
    }

    /// True if all lines are kept.
    pub fn tells_everything(&self) -> bool {
        self.telling == Telling::Everything
    }
}

/// Returns an event of an engine in words, if it is worth a line.
pub fn words(event: &Event) -> Option<String> {
    Some(match event {
        Event::Noted { path, seq } => format!("notes {path} at {seq}"),
        Event::Replicated { peer, path, .. } => format!("hears that {peer} has {path}, durable"),
        Event::Applied { path, kind, .. } => format!("applied: {kind:?} {path}"),
        Event::Conflict { path, copy } => format!("keeps what lost {path} as {copy}"),
        Event::Trouble { path, why, retry, .. } => {
            format!("trouble with {path}: {why}; again in {retry:?}")
        }
        Event::Suspect { path, had, has } => {
            format!("suspects {path}, which has {has} bytes and had {had}")
        }
        Event::GivenUp { path, version, size, .. } => {
            format!("gives up version {version} of {path} ({size} bytes): no node has it")
        }
        Event::Skipped { path, why } => format!("skips {path}: {why}"),
        Event::Guard(guard) => format!("guard: {guard:?}"),
        Event::PeerReset { peer, why } => format!("begins anew with {peer}: {why}"),
        Event::EchoSuppressed | Event::OwnerLeft { .. } => return None,
    })
}
