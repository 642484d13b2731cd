//! The thread that looks after a share's trash, which it expires a little at a time, and counts the
//! conflict copies.
//!
//! **Invariant:** one step looks at no more than [`STEP`] objects and is followed by a rest, so that a
//! large trash is no load; what is not in the index yet is not touched, for its switch is not done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use recsync_proto::message::Lane;
use recsync_proto::{Dot, NodeName, Seq, SharePath};

use super::board::ShareBoard;
use super::commits::Kept;
use super::service::crowded;
use super::share::{Common, ToShare};
use super::site::Site;
use crate::config::MinFree;
use crate::engine::conflict::{Copy, parse_copy};
use crate::engine::{Hint, Input, Noticed};
use crate::index::{IndexError, IndexRead as _, TrashKey, Trashed, Why, Write};
use crate::sys;
use crate::telemetry::events::Problem;
use crate::telemetry::metrics::{self, PauseReason};
use crate::trash::{self, Pass, Returned, Seen, Walk};
use crate::tree::{Place, Space, Tree as _, TreeError};

/// Objects looked at in one step.
const STEP: usize = 256;
/// Rest after a step when there is more to do.
const REST: Duration = Duration::from_millis(50);
/// Time between two looks whether there is something to do: every second they were a third of what
/// an idle node cost.
const TICK: Duration = Duration::from_secs(2);
/// How often everything in the trash is looked at, for what people do there by hand.
const AUDIT_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// Where the kernel does not say who writes to a file, it is kept at least this long, in case that
/// somebody still does: as a file of the share waits.
const DOUBT: Duration = Duration::from_secs(600);

/// When what came into the trash lately is looked at, each after the one before: somebody who opened
/// it in the instant of its displacement is the exception, and writes soon.
const YOUNG_LOOKS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60)];
/// How many of those are remembered.
const YOUNG_MAX: usize = 4_096;
/// Objects that go at once when the disk is short of room.
const ROOM_STEP: usize = 32;
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
        node: NodeName,
        search: bool,
    ) -> std::io::Result<Self> {
        let (wake, asleep) = channel();
        let name = format!("trash-{}", site.name);
        let mut worker = Worker {
            site,
            copies: Copies::default(),
            low: None,
            room: None,
            young: VecDeque::new(),
            seen: TrashKey { since_ns: common.clock.now().wall_ns, id: 0 },
            board,
            node,
            common,
            walk: search.then(Walk::default),
            audit: Some(Pass::default()),
            audit_due: AUDIT_EVERY,
            expiry: Pass::default(),
            oldest: Kept::default(),
            new: Kept::default(),
            trash_bytes: Kept::default(),
            copies_count: Kept::default(),
        };
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            sys::step_back();
            worker.run(&asleep);
        })?;
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
    node: NodeName,
    copies: Copies,
    /// Why nothing new is received, while that is so.
    low: Option<String>,
    /// What the engine was last told of the room, if it was.
    room: Option<Option<u64>>,
    /// What came into the trash lately and is to be looked at again: somebody may still write to it.
    young: VecDeque<Young>,
    /// What came after this has not been taken into `young`.
    seen: TrashKey,
    /// The search for files that the index does not know.
    walk: Option<Walk>,
    /// The look at everything that it knows.
    audit: Option<Pass>,
    audit_due: Duration,
    /// What has expired and could not be removed lies before this, until the next round.
    expiry: Pass,
    /// Since when the oldest in the trash is there, if there is any.
    oldest: Kept<Option<i64>>,
    /// What came into the trash after `seen`.
    new: Kept<Vec<Trashed>>,
    trash_bytes: Kept<u64>,
    copies_count: Kept<u64>,
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
        let more = [
            self.search()?,
            self.expire()?,
            self.make_room()?,
            self.watch_young()?,
            self.audit()?,
            self.count_copies()?,
        ];
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
        let Site { readers, commits, .. } = &*self.site;
        let oldest = || readers.with(|reader| reader.trash_after(TrashKey::FIRST, 1));
        let oldest = self.oldest.get(commits, || Ok(oldest()?.first().map(|one| one.since_ns)))?;
        if oldest.is_none_or(|since_ns| since_ns > until) {
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
        expired.retain(|one| self.may_go(one, now));
        self.remove(&expired);
        Ok(more)
    }

    /// True if nobody wrote to it since it was displaced, or may still; what somebody did write to
    /// goes back into the share.
    fn may_go(&self, one: &Trashed, now: i64) -> bool {
        match trash::look(&*self.site.tree, one) {
            Seen::Same | Seen::Gone => true,
            Seen::Perhaps => one.since_ns <= before(now, DOUBT),
            Seen::Changed => {
                self.bring_back(one);
                false
            }
            Seen::Writer | Seen::Unknown(_) => false,
        }
    }

    /// Keeps `min_free` of the disk free: by emptying the trash, then by receiving nothing new.
    fn make_room(&mut self) -> Result<bool, IndexError> {
        let min_free = self.site.min_free();
        let Ok(mut space) = self.site.tree.space() else { return Ok(false) };
        let (floor, enough) = (min_free.floor(space.total), min_free.enough(space.total));
        let wanted = if self.low.is_some() { enough } else { floor };
        let now = self.common.clock.now().wall_ns;
        let mut pass = Pass::default();
        while space.available < wanted && !self.site.is_stopping() {
            let mut oldest = self.site.readers.with(|reader| pass.next(reader, ROOM_STEP))?;
            if oldest.is_empty() {
                break;
            }
            oldest.retain(|one| self.may_go(one, now));
            if !oldest.is_empty() {
                tracing::info!(share = %self.site.name, count = oldest.len(), "the disk is short of room: the oldest in the trash go");
            }
            self.remove(&oldest);
            match self.site.tree.space() {
                Ok(found) => space = found,
                Err(_) => return Ok(false),
            }
        }
        let low = space.available < wanted;
        if low != self.low.is_some() {
            self.tell_low(low, space, min_free);
        }
        // The trash gives way to what comes, as it comes.
        let Site { readers, commits, .. } = &*self.site;
        let total = || readers.with(|reader| reader.trash_total());
        let trash = self.trash_bytes.get(commits, || Ok(total()?.1))?;
        let free = space.available.saturating_add(trash);
        let bytes = (!low).then(|| free.saturating_sub(floor));
        // The engine remembers it; a share where nothing happens is let sleep.
        if self.room != Some(bytes) {
            self.room = Some(bytes);
            self.site.input(Lane::Live, Input::Room { bytes });
        }
        Ok(false)
    }

    fn tell_low(&mut self, low: bool, space: Space, min_free: MinFree) {
        let name = &self.site.name;
        let size = |bytes: u64| bytesize::ByteSize(bytes).display().si().to_string();
        self.low = low.then(|| {
            format!(
                "no space left: {} of {} are free, less than min_free = \"{min_free}\": nothing new is received, while \
                 local changes are sent and deletes applied; it goes on by itself once {} are free",
                size(space.available),
                size(space.total),
                size(min_free.enough(space.total)),
            )
        });
        match &self.low {
            Some(why) => {
                let (share, message) = (Some(name.clone()), why.clone());
                let problem = Problem { kind: "no_space", share, peer: None, path: None, message };
                self.common.events.report(self.common.clock.now(), problem);
            }
            None => {
                tracing::info!(share = %name, free = size(space.available), "there is room again: receiving goes on")
            }
        }
        self.common.metrics.set_paused(name, PauseReason::NoSpace, low);
        self.board.set_no_space(self.low.clone());
    }

    /// Looks again and again at what came into the trash lately, until nobody can write to it.
    fn watch_young(&mut self) -> Result<bool, IndexError> {
        let now = self.common.clock.now().mono;
        let (Site { readers, commits, .. }, seen) = (&*self.site, self.seen);
        let new = || readers.with(|reader| reader.trash_after(seen, STEP));
        let new = self.new.get(commits, new)?;
        if let Some(last) = new.last() {
            self.seen = last.key();
            self.new.forget();
        }
        let more = new.len() == STEP;
        // What finds no room here is looked at when everything is, and before it expires.
        let room = YOUNG_MAX.saturating_sub(self.young.len());
        let young = |trashed| Young { trashed, looks: 0, due: now + YOUNG_LOOKS[0] };
        self.young.extend(new.into_iter().take(room).map(young));
        for _ in 0..self.young.len().min(STEP) {
            let Some(mut one) = self.young.pop_front() else { break };
            if one.due > now {
                self.young.push_back(one);
                continue;
            }
            match trash::look(&*self.site.tree, &one.trashed) {
                Seen::Same => one.looks += 1,
                Seen::Perhaps | Seen::Writer | Seen::Unknown(_) => {
                    // With the kernel's word it will be known soon; without it is let be in time.
                    one.looks = one.looks.min(YOUNG_LOOKS.len() - 1);
                    let doubt = before(self.common.clock.now().wall_ns, 2 * DOUBT);
                    if one.trashed.since_ns < doubt {
                        continue;
                    }
                }
                Seen::Changed => {
                    self.bring_back(&one.trashed);
                    continue;
                }
                Seen::Gone => continue,
            }
            if let Some(wait) = YOUNG_LOOKS.get(one.looks) {
                one.due = now + *wait;
                self.young.push_back(one);
            }
        }
        Ok(more)
    }

    /// Puts back what somebody wrote to after it was displaced, as a conflict copy; if only its stat
    /// changed, that is noted.
    fn bring_back(&self, one: &Trashed) {
        let wall_ns = self.common.clock.now().wall_ns;
        let Ok(epoch) = self.site.readers.with(|reader| Ok(reader.epoch())) else { return };
        let dot = Dot { epoch, seq: Seq(u64::try_from(wall_ns).unwrap_or(0)) };
        match trash::bring_back(&*self.site.tree, one, &self.node, dot) {
            Returned::Stays(write) => self.note(vec![write]),
            Returned::Back(to, write) => {
                self.note(vec![write]);
                let now = self.common.clock.now();
                let share = Some(self.site.name.clone());
                let message = format!(
                    "somebody went on writing to it after it had been {} from elsewhere: what was \
                     written is kept as {to}",
                    if one.why == Why::Deleted { "deleted" } else { "replaced" }
                );
                self.site.dirty(to, Hint::Created, Noticed::Watcher(now.mono));
                let path = Some(one.path.clone());
                let problem = Problem { kind: "late", share, peer: None, path, message };
                self.common.events.report(now, problem);
            }
            Returned::Not(failed) => {
                for why in failed {
                    self.problem(Some(&one.place()), why.to_string());
                }
            }
        }
    }

    /// Looks at what the index knows, to forget what is there no more.
    fn audit(&mut self) -> Result<bool, IndexError> {
        let now = self.common.clock.now().mono;
        if self.audit.is_none() && now >= self.audit_due {
            self.audit = Some(Pass::default());
        }
        let Some(pass) = &mut self.audit else { return Ok(false) };
        let some = self.site.readers.with(|reader| pass.next(reader, STEP))?;
        let ended = some.len() < STEP;
        let mut gone = Vec::new();
        for one in some {
            match trash::look(&*self.site.tree, &one) {
                Seen::Gone => gone.push(Write::TrashGone(one.key())),
                Seen::Changed => self.bring_back(&one),
                Seen::Same | Seen::Perhaps | Seen::Writer | Seen::Unknown(_) => {}
            }
        }
        self.note(gone);
        if ended {
            self.audit = None;
            self.audit_due = now + AUDIT_EVERY;
        }
        Ok(self.audit.is_some())
    }

    /// Counts the conflict copies, and says once where there are many of one path.
    fn count_copies(&mut self) -> Result<bool, IndexError> {
        let now = self.common.clock.now().mono;
        let Site { readers, commits, .. } = &*self.site;
        let count = || readers.with(|reader| reader.copies_count());
        let total = self.copies_count.get(commits, count)?;
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

/// Something that came into the trash lately.
#[derive(Debug)]
struct Young {
    trashed: Trashed,
    looks: usize,
    due: Duration,
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
