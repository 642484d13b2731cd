//! The thread that looks after a share's trash: expires it, a little at a time.
//!
//! **Invariant:** one step looks at no more than [`STEP`] objects and is followed by a rest, so that a
//! large trash is no load; what is not in the index yet is not touched, for its switch is not done.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::share::{Common, ToShare};
use super::site::Site;
use crate::index::{IndexError, IndexRead as _, TrashKey, Trashed, Write};
use crate::telemetry::events::Problem;
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
    pub(super) fn start(site: Arc<Site>, common: Common, search: bool) -> std::io::Result<Self> {
        let (wake, asleep) = channel();
        let name = format!("trash-{}", site.name);
        let mut worker = Worker {
            site,
            common,
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
        let more = [self.search()?, self.expire()?, self.audit()?];
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

/// Returns the time that lies so long before another, nanoseconds since 1970.
fn before(wall_ns: i64, span: Duration) -> i64 {
    wall_ns.saturating_sub(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}
