//! The thread that looks after a share's trash, which it expires a little at a time, and counts the
//! conflict copies.
//!
//! **Invariant:** one step looks at no more than [`STEP`] objects and is followed by a rest, so that a
//! large trash is no load; what is not in the index yet is not touched, for its switch is not done.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use recsync_proto::SharePath;

use super::board::ShareBoard;
use super::service::crowded;
use super::share::{Common, ToShare};
use super::site::Site;
use crate::engine::conflict::{Copy, parse_copy};
use crate::index::{IndexError, IndexRead as _, TrashKey, Trashed, Write};
use crate::telemetry::events::Problem;
use crate::telemetry::metrics;
use crate::trash::{self, Pass, Seen, Walk};
use crate::tree::{Place, Tree as _, TreeError};

/// Objects looked at in one step.
const STEP: usize = 256;
/// Rest after a step when there is more to do.
const REST: Duration = Duration::from_millis(50);
/// Time between two looks whether there is something to do.
const TICK: Duration = Duration::from_secs(1);
/// How often everything in the trash is looked at, for what people do there by hand.
const AUDIT_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// Where the kernel does not say who writes to a file, it is kept at least this long, in case that
/// somebody still does: as a file of the share waits.
const DOUBT: Duration = Duration::from_secs(600);

/// How many copies of one path are worth a word (contract).
const CROWDED: u64 = 10;
/// Such paths that are named.
const CROWDED_NAMED: usize = 5;
/// Such paths that were named in the log, and are not again.
const SAID_MAX: usize = 1_000;
/// Conflict copies are counted anew when their number changes, and this often, as one may have come
/// while another went.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// The thread, while a share runs.
#[derive(Debug)]
pub(super) struct Keeper {
    wake: Sender<Infallible>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Starts the thread; `search` has it look for files that the index does not know.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub(super) fn start(
        site: Arc<Site>,
        common: Common,
        board: Arc<ShareBoard>,
        search: bool,
    ) -> std::io::Result<Self> {
        let (wake, asleep) = channel();
        let name = format!("trash-{}", site.name);
        let mut worker = Worker {
            site,
            common,
            board,
            copies: Copies::default(),
            walk: search.then(Walk::default),
            audit: Some(Pass::default()),
            audit_due: AUDIT_EVERY,
            expiry: Pass::default(),
        };
        let thread = std::thread::Builder::new().name(name).spawn(move || worker.run(&asleep))?;
        Ok(Keeper { wake, thread })
    }

    /// Ends the thread after its step.
    pub(super) fn stop(self) {
        drop(self.wake);
        if self.thread.join().is_err() {
            tracing::error!("the trash's thread panicked");
        }
    }
}

struct Worker {
    site: Arc<Site>,
    common: Common,
    board: Arc<ShareBoard>,
    copies: Copies,
    /// The search for files that the index does not know.
    walk: Option<Walk>,
    /// The look at everything that it knows.
    audit: Option<Pass>,
    audit_due: Duration,
    /// What has expired and could not be removed lies before this, until the next round.
    expiry: Pass,
}

impl Worker {
    fn run(&mut self, asleep: &Receiver<Infallible>) {
        let mut rest = Duration::ZERO;
        while let Err(RecvTimeoutError::Timeout) = asleep.recv_timeout(rest) {
            if self.site.is_stopping() {
                return;
            }
            rest = match self.step() {
                Ok(true) => REST,
                Ok(false) => TICK,
                Err(error) => {
                    self.problem(None, error.to_string());
                    TICK
                }
            };
        }
    }

    /// Does a bounded piece of what there is to do; true if there is more.
    fn step(&mut self) -> Result<bool, IndexError> {
        // The share's loop tells why.
        if self.site.tree.check_root().is_err() {
            return Ok(false);
        }
        let more = [self.search()?, self.expire()?, self.audit()?, self.count_copies()?];
        Ok(more.contains(&true))
    }

    /// Takes up files that the index does not know.
    fn search(&mut self) -> Result<bool, IndexError> {
        let Some(walk) = &mut self.walk else { return Ok(false) };
        let site = &self.site;
        let found = site.readers.with(|reader| walk.step(&*site.tree, reader, STEP))?;
        if found.is_none() {
            self.walk = None;
        }
        self.note(found.unwrap_or_default());
        Ok(self.walk.is_some())
    }

    /// Removes what has been there for its time, the oldest first.
    fn expire(&mut self) -> Result<bool, IndexError> {
        let now = self.common.clock.now().wall_ns;
        let until = before(now, self.site.trash());
        let first = self.site.readers.with(|reader| reader.trash_after(TrashKey::FIRST, 1))?;
        if first.first().is_none_or(|first| first.since_ns > until) {
            self.expiry = Pass::default();
            return Ok(false);
        }
        let pass = &mut self.expiry;
        let mut expired = self.site.readers.with(|reader| pass.next(reader, STEP))?;
        let asked = expired.len();
        expired.retain(|one| one.since_ns <= until);
        let more = asked == STEP && expired.len() == asked;
        if !more {
            self.expiry = Pass::default();
        }
        expired.retain(|one| match trash::look(&*self.site.tree, one) {
            Seen::Same | Seen::Gone => true,
            Seen::Perhaps => one.since_ns <= before(now, DOUBT),
            Seen::Writer | Seen::Changed | Seen::Unknown(_) => false,
        });
        self.remove(&expired);
        Ok(more)
    }

    /// Looks at what the index knows, to forget what is there no more.
    fn audit(&mut self) -> Result<bool, IndexError> {
        let now = self.common.clock.now().mono;
        if self.audit.is_none() && now >= self.audit_due {
            self.audit = Some(Pass::default());
        }
        let Some(pass) = &mut self.audit else { return Ok(false) };
        let some = self.site.readers.with(|reader| pass.next(reader, STEP))?;
        let gone = some.iter().filter(|one| trash::look(&*self.site.tree, one) == Seen::Gone);
        let gone = gone.map(|one| Write::TrashGone(one.key())).collect();
        self.note(gone);
        if some.len() < STEP {
            self.audit = None;
            self.audit_due = now + AUDIT_EVERY;
        }
        Ok(self.audit.is_some())
    }

    /// Counts the conflict copies, and says once where there are many of one path.
    fn count_copies(&mut self) -> Result<bool, IndexError> {
        let now = self.common.clock.now().mono;
        let total = self.site.readers.with(|reader| reader.copies_count())?;
        let label = metrics::Share::new(self.site.name.clone());
        self.common.metrics.conflict_copies.with(label.clone()).set(total);
        let copies = &mut self.copies;
        if copies.tally.is_none() && (copies.total != Some(total) || now >= copies.due) {
            copies.total = Some(total);
            copies.due = now + COUNT_EVERY;
            copies.tally = Some(Tally::default());
        }
        let Some(tally) = &mut copies.tally else { return Ok(false) };
        let after = tally.after.clone().unwrap_or(SharePath::root());
        let some = self.site.readers.with(|reader| reader.copies(&after, STEP))?;
        for copy in &some {
            tally.add(&copy.path);
        }
        if some.len() == STEP {
            return Ok(true);
        }
        tally.close_all();
        let (paths, many) = (tally.crowded, std::mem::take(&mut tally.named));
        copies.tally = None;
        self.common.metrics.crowded_paths.with(label).set(paths);
        for (path, count) in &many {
            if copies.said.len() < SAID_MAX && copies.said.insert(path.clone()) {
                let message = crowded(path, *count);
                let (share, path) = (Some(self.site.name.clone()), Some(path.clone()));
                let problem = Problem { kind: "conflicts", share, peer: None, path, message };
                self.common.events.report(self.common.clock.now(), problem);
            }
        }
        self.board.set_crowded(many);
        Ok(false)
    }

    fn remove(&self, expired: &[Trashed]) {
        let (gone, failed) = trash::remove(&*self.site.tree, expired);
        if !gone.is_empty() {
            tracing::debug!(share = %self.site.name, count = gone.len(), "removed from the trash");
        }
        self.note(gone);
        self.failed(&failed);
    }

    fn failed(&self, failed: &[(Place, TreeError)]) {
        for (place, why) in failed {
            self.problem(Some(place), format!("cannot be removed from the trash: {why}"));
        }
    }

    fn note(&self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.site.tell(ToShare::Note(writes));
        }
    }

    fn problem(&self, place: Option<&Place>, message: String) {
        let share = Some(self.site.name.clone());
        let message = match place {
            Some(place) => format!("{place}: {message}"),
            None => message,
        };
        let problem = Problem { kind: "trash", share, peer: None, path: None, message };
        self.common.events.report(self.common.clock.now(), problem);
    }
}

/// What is known of the conflict copies.
#[derive(Debug, Default)]
struct Copies {
    total: Option<u64>,
    due: Duration,
    tally: Option<Tally>,
    said: BTreeSet<SharePath>,
}

/// A count of the copies of each path, as they come by directory and name: only those of names with
/// one beginning are open at a time.
#[derive(Debug, Default)]
struct Tally {
    after: Option<SharePath>,
    open: BTreeMap<SharePath, u64>,
    crowded: u64,
    named: Vec<(SharePath, u64)>,
}

impl Tally {
    fn add(&mut self, copy: &SharePath) {
        self.after = Some(copy.clone());
        let Some(Copy { of, .. }) = parse_copy(copy) else { return };
        let begins = |known: &SharePath| {
            known.parent() == of.parent() && stem(known.name()) == stem(of.name())
        };
        if self.open.keys().next().is_some_and(|known| !begins(known)) {
            self.close_all();
        }
        *self.open.entry(of).or_default() += 1;
    }

    fn close_all(&mut self) {
        for (path, count) in std::mem::take(&mut self.open) {
            if count >= CROWDED {
                self.crowded += 1;
                if self.named.len() < CROWDED_NAMED {
                    self.named.push((path, count));
                }
            }
        }
    }
}

fn stem(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0);
    &name[..end.unwrap_or(name.len())]
}

/// Returns the time that lies so long before another, nanoseconds since 1970.
fn before(wall_ns: i64, span: Duration) -> i64 {
    wall_ns.saturating_sub(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}
