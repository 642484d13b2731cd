//! What happened, for a person to read and for a replay to be compared.
//! **Invariant:** told or not, the same history has the same trace.

use std::fmt;

/// The account of one history.
#[derive(Debug, Default)]
pub struct Story {
    told: bool,
    lines: Vec<String>,
    trace: u64,
    events: u64,
}

impl Story {
    /// Returns an empty story; only a told one keeps its lines.
    pub fn new(told: bool) -> Self {
        Story { told, ..Story::default() }
    }

    /// Adds an event at a simulated time in nanoseconds.
    pub fn tell(&mut self, at_ns: u64, who: &str, what: fmt::Arguments<'_>) {
        self.events += 1;
        self.mix(at_ns);
        self.mix(who.len() as u64);
        self.aside(at_ns, who, what);
    }

    /// Adds a line that is no event of its own: what is costly to describe, and only told.
    pub fn aside(&mut self, at_ns: u64, who: &str, what: fmt::Arguments<'_>) {
        if self.told {
            let (seconds, micros) = (at_ns / 1_000_000_000, at_ns / 1_000 % 1_000_000);
            self.lines.push(format!("{seconds:6}.{micros:06} {who:<6} {what}"));
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

    /// Returns how many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Returns the lines, if they were kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }

    /// True if lines are kept: what is costly to describe need not be otherwise.
    pub fn is_told(&self) -> bool {
        self.told
    }
}
