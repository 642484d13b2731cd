//! What was closed, renamed or deleted when, and when it was durable on the other node.
//!
//! Lag is measured by one clock, that of this process: from just before the recorder's `close`,
//! `rename` or `unlink` until a line of the origin's log is read that says "durable on the peer".
//! So it holds everything: the kernel's event, settle, hashing, both disks, both ways over the
//! link, and the way of the line through the pipe.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys::Clock;

/// What was done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// A recording was closed for the last time.
    Record,
    /// A file was moved to another name.
    Rename,
    /// A converter renamed its finished output to its final name.
    Convert,
    /// A file was deleted.
    Delete,
}

/// How long one act took to be durable on the other node.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// On which node it was done.
    pub node: usize,
    /// What it was.
    pub act: Act,
    /// When it was done, by the ledger's clock.
    pub since: Duration,
    /// How long it took.
    pub lag: Duration,
}

/// What one node's recorder did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that are being recorded now.
    pub growing: u64,
    /// Recordings closed and kept.
    pub recorded: u64,
    /// Their bytes, and those of conversions.
    pub bytes: u64,
    /// Recordings that the recorder itself deleted at once: too short.
    pub discarded: u64,
    /// Files renamed.
    pub renamed: u64,
    /// Recordings converted, and the originals deleted.
    pub converted: u64,
    /// Files deleted by retention.
    pub deleted: u64,
    /// Files of this node that are durable on the other one, under each name that they had.
    pub shipped: u64,
    /// Renames of this node that are durable on the other one.
    pub renames_carried: u64,
    /// Conversions likewise.
    pub conversions_carried: u64,
    /// Deletes likewise, those of originals after a conversion included.
    pub deletes_carried: u64,
    /// Changes of the other node that were applied here as a rename, without moving bytes.
    pub applied_as_renames: u64,
}

/// A recording that was closed and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// On which node it was made.
    pub node: usize,
    /// Its path in the share.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    clock: Clock,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// By path: no two nodes record under one name.
    waiting: BTreeMap<String, Waiting>,
    tallies: [Tally; 2],
    samples: Vec<Sample>,
    recordings: Vec<Recording>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    node: usize,
    act: Act,
    since: Duration,
    /// A file that may have gone before anyone was told of it: then its delete is no news.
    untold: bool,
}

impl Ledger {
    /// Makes an empty one.
    pub fn new(clock: Clock) -> Self {
        Ledger { clock, book: Mutex::default() }
    }

    /// Returns the time of all samples.
    pub fn now(&self) -> Duration {
        self.clock.now().mono
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Notes that a call begins.
    pub(super) fn begun(&self, node: usize) {
        self.book().tallies[node].growing += 1;
    }

    /// Notes that a recording is about to be closed for the last time.
    pub(super) fn closing(&self, node: usize, path: &str, bytes: u64) {
        let since = self.now();
        let mut book = self.book();
        let tally = &mut book.tallies[node];
        tally.growing -= 1;
        tally.recorded += 1;
        tally.bytes += bytes;
        book.recordings.push(Recording { node, path: path.to_owned(), bytes });
        book.wait_for(path, Waiting { node, act: Act::Record, since, untold: false });
    }

    /// Notes that a recording was too short and deleted in the moment of its close.
    pub(super) fn discarded(&self, node: usize) {
        let tally = &mut self.book().tallies[node];
        tally.growing -= 1;
        tally.discarded += 1;
    }

    /// Notes that a file is about to be renamed.
    pub(super) fn renaming(&self, node: usize, from: &str, to: &str) {
        let since = self.now();
        let mut book = self.book();
        book.tallies[node].renamed += 1;
        book.waiting.remove(from);
        book.wait_for(to, Waiting { node, act: Act::Rename, since, untold: false });
    }

    /// Notes that a converter is about to rename its output to its final name.
    pub(super) fn converting(&self, node: usize, to: &str, bytes: u64) {
        let since = self.now();
        let mut book = self.book();
        let tally = &mut book.tallies[node];
        tally.converted += 1;
        tally.bytes += bytes;
        book.wait_for(to, Waiting { node, act: Act::Convert, since, untold: false });
    }

    /// Notes that a file is about to be deleted, by retention or after its conversion.
    pub(super) fn deleting(&self, node: usize, path: &str, by_retention: bool) {
        let since = self.now();
        let mut book = self.book();
        book.tallies[node].deleted += u64::from(by_retention);
        let untold = book.waiting.contains_key(path);
        book.wait_for(path, Waiting { node, act: Act::Delete, since, untold });
    }

    /// Notes that a node's daemon says: the path, as it is now, is durable on the other node.
    pub(super) fn durable(&self, node: usize, path: &str) {
        self.arrived(node, path, self.now());
    }

    /// Notes that a path of a node has arrived on the other one at that time, for those who look for it there
    /// themselves.
    pub fn arrived(&self, node: usize, path: &str, now: Duration) {
        let mut book = self.book();
        // Between its two opens a recording is empty, and a slow machine may ship it so: that is
        // before its close, and nothing waits. Neither for the old names of renames.
        let Some(&done) = book.waiting.get(path).filter(|waiting| waiting.node == node) else {
            return;
        };
        book.waiting.remove(path);
        let tally = &mut book.tallies[node];
        match done.act {
            Act::Record => {}
            Act::Rename => tally.renames_carried += 1,
            Act::Convert => tally.conversions_carried += 1,
            Act::Delete => tally.deletes_carried += 1,
        }
        tally.shipped += u64::from(done.act != Act::Delete);
        let Waiting { act, since, untold, .. } = done;
        // The word on a file that was deleted before it came may be on the file.
        if !untold {
            book.samples.push(Sample { node, act, since, lag: now.saturating_sub(since) });
        }
    }

    /// Notes that a node applied a rename as a rename.
    pub(super) fn applied_rename(&self, node: usize) {
        self.book().tallies[node].applied_as_renames += 1;
    }

    /// Returns how many acts are not yet durable on the other node, but for deletes of files that
    /// may never have been told of.
    pub fn outstanding(&self) -> usize {
        self.book().waiting.values().filter(|waiting| !waiting.untold).count()
    }

    /// True if none is.
    pub fn is_settled(&self) -> bool {
        self.book().waiting.values().all(|waiting| waiting.untold)
    }

    /// Calls `look` with the path, the node and the time of each of them.
    pub fn each_outstanding(&self, mut look: impl FnMut(&str, usize, Duration)) {
        for (path, waiting) in self.book().waiting.iter().filter(|(_, waiting)| !waiting.untold) {
            look(path, waiting.node, waiting.since);
        }
    }

    /// Returns every recording that was kept, in the order of the closes.
    pub fn recordings(&self) -> Vec<Recording> {
        self.recordings_from(0)
    }

    /// Likewise, without so many that are known already.
    pub fn recordings_from(&self, known: usize) -> Vec<Recording> {
        self.book().recordings.get(known..).unwrap_or_default().to_vec()
    }

    /// Returns the age of the oldest of them; zero if there is none.
    pub fn oldest(&self) -> Duration {
        let now = self.now();
        let book = self.book();
        let told = book.waiting.values().filter(|waiting| !waiting.untold);
        told.map(|waiting| now.saturating_sub(waiting.since)).max().unwrap_or_default()
    }

    /// Returns some paths that wait, with their ages: for a word on what is stuck.
    pub fn stuck(&self, at_most: usize) -> Vec<(String, Duration)> {
        let now = self.now();
        let book = self.book();
        let told = book.waiting.iter().filter(|(_, waiting)| !waiting.untold);
        let aged = told.map(|(path, waiting)| (path.clone(), now.saturating_sub(waiting.since)));
        aged.take(at_most).collect()
    }

    /// Returns what each node did.
    pub fn tallies(&self) -> [Tally; 2] {
        self.book().tallies
    }

    /// Returns every sample so far, in the order in which they became durable.
    pub fn samples(&self) -> Vec<Sample> {
        self.book().samples.clone()
    }

    /// Returns the lags of the samples that are wanted.
    pub fn lags(&self, wanted: impl FnMut(&&Sample) -> bool) -> Lags {
        Lags::new(self.book().samples.iter().filter(wanted).map(|sample| sample.lag))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn wait_for(&mut self, path: &str, waiting: Waiting) {
        self.waiting.insert(path.to_owned(), waiting);
    }
}

/// A distribution of lags; every one is kept, nothing is rounded into buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lags(Vec<Duration>);

impl Lags {
    /// Takes lags in any order.
    pub fn new(lags: impl IntoIterator<Item = Duration>) -> Self {
        let mut lags: Vec<_> = lags.into_iter().collect();
        lags.sort_unstable();
        Lags(lags)
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the smallest lag that `percent` of all are not above (nearest rank); none if there
    /// are no lags.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.0.len() * percent.min(100)).div_ceil(100).max(1);
        self.0.get(rank - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(Clock::start())
    }

    #[test]
    fn percentiles_are_samples() {
        let ms = Duration::from_millis;
        let lags = Lags::new((1..=200).rev().map(ms));
        let shown = [0, 1, 50, 99, 100].map(|percent| lags.percentile(percent));
        assert_eq!(shown, [1, 2, 100, 198, 200].map(|of| Some(ms(of))));
        assert_eq!(Lags::new([ms(7)]).percentile(50), Some(ms(7)));
        assert_eq!(Lags::default().percentile(50), None);
    }

    #[test]
    fn a_recording_waits_until_its_own_node_says_durable() {
        let ledger = ledger();
        ledger.begun(0);
        ledger.durable(0, "a.wav");
        ledger.closing(0, "a.wav", 100);
        ledger.durable(1, "a.wav");
        assert_eq!((ledger.outstanding(), ledger.samples().len()), (1, 0));
        ledger.durable(0, "a.wav");
        ledger.durable(0, "a.wav");
        assert_eq!((ledger.outstanding(), ledger.samples().len()), (0, 1));
        let expected = Tally { recorded: 1, bytes: 100, shipped: 1, ..Tally::default() };
        assert_eq!(ledger.tallies(), [expected, Tally::default()]);
    }

    #[test]
    fn a_rename_waits_under_the_new_name_only() {
        let ledger = ledger();
        ledger.begun(1);
        ledger.closing(1, "a.wav", 1);
        ledger.renaming(1, "a.wav", "b.wav");
        ledger.durable(1, "a.wav");
        assert_eq!(ledger.outstanding(), 1);
        ledger.durable(1, "b.wav");
        assert_eq!(ledger.outstanding(), 0);
        assert_eq!(ledger.tallies()[1].renames_carried, 1);
    }

    #[test]
    fn a_delete_of_what_may_never_have_been_told_is_not_waited_for() {
        let ledger = ledger();
        ledger.begun(0);
        ledger.closing(0, "a.wav", 1);
        ledger.deleting(0, "a.wav", true);
        assert_eq!(ledger.outstanding(), 0);
        ledger.begun(0);
        ledger.closing(0, "b.wav", 1);
        ledger.durable(0, "b.wav");
        ledger.deleting(0, "b.wav", true);
        assert_eq!(ledger.outstanding(), 1);
        assert_eq!(ledger.stuck(9).len(), 1);
        ledger.durable(0, "b.wav");
        assert_eq!((ledger.outstanding(), ledger.tallies()[0].deletes_carried), (0, 1));
    }
}
