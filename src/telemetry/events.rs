//! What happens, as log lines and as the short memory that `recsync status` shows.
//!
//! Fields of log lines are `share`, `peer` and `path`, which journald shows as SHARE=, PEER= and
//! PATH=. What people must know is a warning or an error, at most
//! 10 lines a minute for each kind and share; every single file is told at level debug.
//!
//! **Invariant:** memory is bounded, however long and whatever happens.
//! **May not:** count; that is for `metrics`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use recsync_proto::{NodeName, Owner, ShareName, SharePath};
use serde::{Deserialize, Serialize};
use tracing::{debug, error, info, trace, warn};

use super::Timestamp;
use super::limit::Limit;
use crate::engine::effect::{AppliedKind, Event, GuardEvent, Now};
use crate::tree::OwnerLeft;

/// Errors that are remembered; more would not fit a screen.
pub const ERRORS_MAX: usize = 50;

/// Objects that are never synced and are remembered for each share, so that each is told once.
pub const SKIPPED_MAX: usize = 1000;

/// Objects that are never synced and are shown with their names.
pub const SKIPPED_SHOWN: usize = 10;

/// The target of the lines that `recsync demo` and the benches look for: nothing else is written for them.
pub const LOOKED_FOR: &str = "recsync::telemetry::events::looked_for";

/// The log line of a change of ours that has reached a peer.
pub const DURABLE: &str = "durable on the peer";

/// How the log line of a change of a peer's begins that was made here; its kind follows.
pub const APPLIED: &str = "applied";

/// Owners that could not be set and are shown, for each share.
const OWNERS_LEFT_MAX: usize = 10;

/// Something that went wrong, as far as it is known where.
#[derive(Debug, Clone)]
pub struct Problem {
    /// One word that is part of the program: what kind of thing went wrong.
    pub kind: &'static str,
    /// The share.
    pub share: Option<ShareName>,
    /// The peer.
    pub peer: Option<NodeName>,
    /// The path.
    pub path: Option<SharePath>,
    /// What, why, and what to do, for a person.
    pub message: String,
}

/// An error of the recent past. Equal errors (all but the message) are one, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentError {
    /// When it happened last.
    pub time: Timestamp,
    /// How often it has happened.
    pub count: u64,
    /// One word.
    pub kind: String,
    /// The share, if it is about one.
    pub share: Option<String>,
    /// The peer, if it is about one.
    pub peer: Option<String>,
    /// The path, if it is about one.
    pub path: Option<String>,
    /// What, why, and what to do, for a person.
    pub message: String,
}

/// Objects of a share that are never synced: sockets, FIFOs, devices, names that cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// How many, at most [`SKIPPED_MAX`].
    pub count: usize,
    /// The first [`SKIPPED_SHOWN`].
    pub first: Vec<SkippedPath>,
}

/// An object that is never synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedPath {
    /// The path.
    pub path: String,
    /// Why it is not synced.
    pub why: String,
}

/// The short memory, shared by all threads of the daemon.
#[derive(Debug, Default)]
pub struct Events {
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Oldest first.
    errors: VecDeque<RecentError>,
    skipped: BTreeMap<ShareName, SkippedHere>,
    /// Owners that could not be set, each told once.
    owners_left: BTreeMap<ShareName, BTreeMap<(Owner, OwnerLeft), SharePath>>,
    limits: BTreeMap<(Option<ShareName>, &'static str), Limit>,
}

#[derive(Debug, Default)]
struct SkippedHere {
    seen: BTreeSet<SharePath>,
    first: Vec<SkippedPath>,
}

impl Events {
    /// Makes an empty memory.
    pub fn new() -> Self {
        Events::default()
    }

    /// Logs what a share's engine tells of, and remembers what went wrong.
    pub fn record(&self, now: Now, share: &ShareName, event: &Event) {
        match event {
            Event::Noted { path, seq } => debug!(%share, %path, %seq, "changed here"),
            Event::EchoSuppressed => trace!(%share, "an event of our own making"),
            Event::Replicated { peer, path, took } => {
                let seconds = took.map(|took| took.as_secs_f64());
                debug!(target: LOOKED_FOR, %share, %peer, %path, seconds, "{DURABLE}");
            }
            Event::Applied { peer, path, kind, saved: _ } => {
                let peer = peer.as_ref().map(tracing::field::display);
                let what = format_args!("{APPLIED}: {}", kind.as_str());
                match kind {
                    AppliedKind::Rename => {
                        debug!(target: LOOKED_FOR, %share, peer, %path, "{what}")
                    }
                    _ => debug!(%share, peer, %path, "{what}"),
                }
            }
            Event::Conflict { path, copy } => {
                if let Some(left_out) = self.pass(now, Some(share), "conflict") {
                    warn!(
                        %share, %path, left_out,
                        "changed on two nodes at once: both are kept, the other version as {copy}"
                    );
                }
            }
            Event::Suspect { path, had, has } => {
                let message = format!(
                    "its bytes are others than recorded, and nobody changed them: the machine went \
                     down, or the disk decays ({had} bytes recorded, {has} there): the recorded \
                     version is fetched back from a peer, and what is there is kept as a conflict \
                     copy, or in the trash if it is empty"
                );
                let (share, path) = (Some(share.clone()), Some(path.clone()));
                self.report(now, Problem { kind: "suspect", share, peer: None, path, message });
            }
            Event::GivenUp { path, version, size, node } => {
                let message = format!(
                    "the {size} bytes of version {version}, written by {node}, are on no node any \
                     more: given up; a node that finds them after all brings them back"
                );
                let (share, path) = (Some(share.clone()), Some(path.clone()));
                self.report(now, Problem { kind: "lost", share, peer: None, path, message });
            }
            Event::Trouble { path, why, retry, kind } => {
                let wait = humantime::format_duration(*retry);
                self.report(
                    now,
                    Problem {
                        kind,
                        share: Some(share.clone()),
                        peer: None,
                        path: Some(path.clone()),
                        message: format!("{why}; trying again in {wait}"),
                    },
                );
            }
            Event::Skipped { path, why } => self.skip(now, share, path, why),
            Event::OwnerLeft { path, owner, why } => self.owner_left(share, path, owner, *why),
            Event::Guard(guard) => self.guard(now, share, guard),
            Event::PeerReset { peer, why } => self.report(
                now,
                Problem {
                    kind: "peer_reset",
                    share: Some(share.clone()),
                    peer: Some(peer.clone()),
                    path: None,
                    message: why.clone(),
                },
            ),
        }
    }

    /// Logs a warning and remembers it; for what is not an engine's to tell (links, scans).
    pub fn report(&self, now: Now, problem: Problem) {
        if let Some(left_out) = self.pass(now, problem.share.as_ref(), problem.kind) {
            let share = problem.share.as_ref().map(tracing::field::display);
            let peer = problem.peer.as_ref().map(tracing::field::display);
            let path = problem.path.as_ref().map(tracing::field::display);
            warn!(share, peer, path, left_out, "{}", problem.message);
        }
        self.remember(now, problem);
    }

    /// Forgets which objects of a share are never synced; a full scan is about to see them anew.
    pub fn scan_started(&self, share: &ShareName) {
        self.memory().skipped.remove(share);
    }

    /// Returns the recent errors, the latest first.
    pub fn errors(&self) -> Vec<RecentError> {
        self.memory().errors.iter().rev().cloned().collect()
    }

    /// Returns which objects of a share are never synced.
    pub fn skipped(&self, share: &ShareName) -> Skipped {
        match self.memory().skipped.get(share) {
            Some(here) => Skipped { count: here.seen.len(), first: here.first.clone() },
            None => Skipped::default(),
        }
    }

    /// Returns which owners could not be set in a share, a line each, for a person.
    pub fn owners_left(&self, share: &ShareName) -> Vec<String> {
        let memory = self.memory();
        let left = memory.owners_left.get(share).into_iter().flatten();
        left.map(|((owner, why), path)| left_alone(owner, *why, path)).collect()
    }

    fn owner_left(&self, share: &ShareName, path: &SharePath, owner: &Owner, why: OwnerLeft) {
        let mut memory = self.memory();
        let here = memory.owners_left.entry(share.clone()).or_default();
        let key = (owner.clone(), why);
        if here.len() == OWNERS_LEFT_MAX || here.contains_key(&key) {
            return;
        }
        here.insert(key, path.clone());
        drop(memory);
        warn!(%share, %path, "{}", left_alone(owner, why, path));
    }

    fn skip(&self, now: Now, share: &ShareName, path: &SharePath, why: &str) {
        let mut memory = self.memory();
        let here = memory.skipped.entry(share.clone()).or_default();
        if here.seen.len() == SKIPPED_MAX || !here.seen.insert(path.clone()) {
            return;
        }
        if here.first.len() < SKIPPED_SHOWN {
            here.first.push(SkippedPath { path: path.to_string(), why: why.to_owned() });
        }
        drop(memory);
        if let Some(left_out) = self.pass(now, Some(share), "skipped") {
            info!(%share, %path, left_out, "never synced: {why}");
        }
    }

    fn guard(&self, now: Now, share: &ShareName, event: &GuardEvent) {
        match event {
            GuardEvent::RootLost(why) => {
                let message = format!(
                    "the share is stopped (nothing of it is sent, applied or deleted; recsync \
                     confirm shows what waits for you): {why}"
                );
                if let Some(left_out) = self.pass(now, Some(share), "root_lost") {
                    error!(%share, left_out, "{message}");
                }
                self.remember(
                    now,
                    Problem {
                        kind: "root_lost",
                        share: Some(share.clone()),
                        peer: None,
                        path: None,
                        message,
                    },
                );
            }
            GuardEvent::RootBack => {
                if let Some(left_out) = self.pass(now, Some(share), "root_back") {
                    info!(%share, left_out, "the share's directory is there and goes on");
                }
            }
            GuardEvent::DeletesHeld { gone, of } => {
                if let Some(left_out) = self.pass(now, Some(share), "deletes_held") {
                    error!(
                        %share, left_out,
                        "{gone} of {of} files vanished: their deletes wait for `recsync confirm`"
                    );
                }
            }
            GuardEvent::DeletesReleased { confirmed } => {
                let decision = if *confirmed { "may go" } else { "are undone" };
                info!(%share, "the deletes that were held back {decision}");
            }
        }
    }

    /// Asks to write a log line. Returns the number of lines left out before it, if any.
    fn pass(&self, now: Now, share: Option<&ShareName>, kind: &'static str) -> Option<Option<u64>> {
        let mut memory = self.memory();
        let limit = memory.limits.entry((share.cloned(), kind)).or_default();
        let left_out = limit.pass(now.mono)?;
        Some((left_out > 0).then_some(left_out))
    }

    fn remember(&self, now: Now, problem: Problem) {
        let mut error = RecentError {
            time: Timestamp::from_ns(now.wall_ns),
            count: 1,
            kind: problem.kind.to_owned(),
            share: problem.share.map(|share| share.to_string()),
            peer: problem.peer.map(|peer| peer.to_string()),
            path: problem.path.map(|path| path.to_string()),
            message: problem.message,
        };
        let mut memory = self.memory();
        let same = |old: &RecentError| {
            (&old.kind, &old.share, &old.peer, &old.path)
                == (&error.kind, &error.share, &error.peer, &error.path)
        };
        if let Some(at) = memory.errors.iter().position(same) {
            error.count += memory.errors.remove(at).map_or(0, |old| old.count);
        } else if memory.errors.len() == ERRORS_MAX {
            memory.errors.pop_front();
        }
        memory.errors.push_back(error);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing in here is left half done by a panic.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn left_alone(owner: &Owner, why: OwnerLeft, path: &SharePath) -> String {
    format!("files of {owner} keep another owner here ({path} is the first): {why}")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::tree::RootError;

    fn at(seconds: u64) -> Now {
        let wall_ns = 1_795_338_000_000_000_000 + i64::try_from(seconds).unwrap() * 1_000_000_000;
        Now { wall_ns, mono: Duration::from_secs(seconds) }
    }

    fn share() -> ShareName {
        ShareName::new("recordings").unwrap()
    }

    fn path(name: &str) -> SharePath {
        SharePath::new(name).unwrap()
    }

    fn trouble(name: &str) -> Event {
        Event::Trouble {
            path: path(name),
            why: "permission denied".into(),
            retry: Duration::from_secs(30),
            kind: "denied",
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;
        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn log_of(act: impl FnOnce()) -> String {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(lines.clone())
            .without_time()
            .with_ansi(false)
            .with_target(false)
            .with_max_level(tracing::Level::DEBUG)
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn log_lines() {
        let fs2 = NodeName::new("fs2").unwrap();
        let log = log_of(|| {
            let events = Events::new();
            for event in [
                Event::Replicated {
                    peer: fs2.clone(),
                    path: path("a.wav"),
                    took: Some(Duration::from_millis(40)),
                },
                Event::Conflict { path: path("a.wav"), copy: path("a.conflict-fs2.wav") },
                trouble("b.wav"),
                Event::Skipped { path: path("run/sock"), why: "a socket".into() },
                Event::Guard(GuardEvent::RootLost(RootError::NoMarker { path: "/s".into() })),
                Event::Guard(GuardEvent::RootBack),
                Event::Guard(GuardEvent::DeletesHeld { gone: 60, of: 100 }),
                Event::Guard(GuardEvent::DeletesReleased { confirmed: false }),
                Event::PeerReset { peer: fs2, why: "its index is new".into() },
                Event::Suspect { path: path("c.wav"), had: 300_000, has: 0 },
                Event::GivenUp {
                    path: path("d.wav"),
                    version: "0123abcd".into(),
                    size: 300_000,
                    node: NodeName::new("fs1").unwrap(),
                },
            ] {
                events.record(at(100), &share(), &event);
            }
        });
        insta::assert_snapshot!(log, @"
        DEBUG durable on the peer share=recordings peer=fs2 path=a.wav seconds=0.04
         WARN changed on two nodes at once: both are kept, the other version as a.conflict-fs2.wav share=recordings path=a.wav
         WARN permission denied; trying again in 30s share=recordings path=b.wav
         INFO never synced: a socket share=recordings path=run/sock
        ERROR the share is stopped (nothing of it is sent, applied or deleted; recsync confirm shows what waits for you): /s has no marker .recsync/share.toml: is the disk mounted? share=recordings
         INFO the share's directory is there and goes on share=recordings
        ERROR 60 of 100 files vanished: their deletes wait for `recsync confirm` share=recordings
         INFO the deletes that were held back are undone share=recordings
         WARN its index is new share=recordings peer=fs2
         WARN its bytes are others than recorded, and nobody changed them: the machine went down, or the disk decays (300000 bytes recorded, 0 there): the recorded version is fetched back from a peer, and what is there is kept as a conflict copy, or in the trash if it is empty share=recordings path=c.wav
         WARN the 300000 bytes of version 0123abcd, written by fs1, are on no node any more: given up; a node that finds them after all brings them back share=recordings path=d.wav
        ");
    }

    #[test]
    fn a_flood_is_a_few_lines_and_one_memory() {
        let events = Events::new();
        let log = log_of(|| {
            for second in 100..160 {
                events.record(at(second), &share(), &trouble("a.wav"));
            }
            events.record(at(161), &share(), &trouble("a.wav"));
        });
        assert_eq!(log.lines().count(), 11);
        assert!(log.lines().last().unwrap().contains("left_out=50"), "{log}");

        let errors = events.errors();
        assert_eq!(errors.len(), 1);
        assert_eq!((errors[0].count, errors[0].time), (61, Timestamp::from_ns(at(161).wall_ns)));
    }

    #[test]
    fn remembers_the_latest_errors() {
        let events = Events::new();
        for number in 0..ERRORS_MAX + 10 {
            events.record(at(100), &share(), &trouble(&format!("{number}.wav")));
        }
        let errors = events.errors();
        assert_eq!(errors.len(), ERRORS_MAX);
        assert_eq!(errors[0].path.as_deref(), Some("59.wav"));
        assert_eq!(errors[ERRORS_MAX - 1].path.as_deref(), Some("10.wav"));
        assert_eq!(errors[0].message, "permission denied; trying again in 30s");
    }

    #[test]
    fn counts_each_skipped_object_once_until_the_next_scan() {
        let events = Events::new();
        let skip = |number: usize| Event::Skipped {
            path: path(&format!("{number:04}.sock")),
            why: "a socket".into(),
        };
        for number in (0..20).chain(0..20) {
            events.record(at(100), &share(), &skip(number));
        }
        let skipped = events.skipped(&share());
        assert_eq!((skipped.count, skipped.first.len()), (20, SKIPPED_SHOWN));
        assert_eq!(skipped.first[0].path, "0000.sock");

        for number in 0..2 * SKIPPED_MAX {
            events.record(at(100), &share(), &skip(number));
        }
        assert_eq!(events.skipped(&share()).count, SKIPPED_MAX);
        events.scan_started(&share());
        assert_eq!(events.skipped(&share()), Skipped::default());
    }
}
