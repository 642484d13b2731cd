//! The thread that scans: whole trees, and directories that may have changed behind the watch.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use recsync_proto::message::Lane;
use recsync_proto::{Epoch, NodeName, SharePath};

use super::board::ShareBoard;
use super::share::{Common, ToShare, keep_as, tell_recovered};
use super::site::Site;
use crate::apply;
use crate::engine::{Event, Input, Noticed, conflict};
use crate::index::Intent;
use crate::observe::{self, ScanItem, ScanReport};
use crate::telemetry::events::Problem;
use crate::telemetry::metrics;
use crate::tree::TreeError;

/// What is said of a mount point below a share.
pub(super) const MOUNTED: &str = "another filesystem is mounted there; nothing of it is synced, and nothing is known of what \
                                  was there before";

/// Scans one directory after another, the ones asked for meanwhile once each.
#[derive(Debug)]
pub(super) struct Scanner {
    wanted: Arc<Wanted>,
    site: Arc<Site>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Wanted {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    dirs: BTreeSet<SharePath>,
    /// What operations have left since the scan before.
    left: Vec<Intent>,
    stop: bool,
}

impl Scanner {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub(super) fn start(
        site: Arc<Site>,
        common: Common,
        board: Arc<ShareBoard>,
        unsettled: Unsettled,
    ) -> std::io::Result<Self> {
        let wanted = Arc::new(Wanted::default());
        let worker =
            Worker { site: site.clone(), wanted: wanted.clone(), common, board, unsettled };
        let name = format!("scan-{}", site.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || worker.run())?;
        Ok(Scanner { wanted, site, thread })
    }

    /// Asks for a scan of a directory and all below it.
    pub(super) fn scan(&self, dir: SharePath) {
        self.wanted.lock().dirs.insert(dir);
        self.wanted.changed.notify_one();
    }

    /// Has settled what an operation left, with the next scans of its path.
    pub(super) fn settle(&self, left: Intent) {
        self.wanted.lock().left.push(left);
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        self.site.gate.stop();
        self.wanted.lock().stop = true;
        self.wanted.changed.notify_one();
        if self.thread.join().is_err() {
            tracing::error!("the scanner's thread panicked");
        }
    }
}

impl Wanted {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a directory to scan, and takes what operations have left; none if it is time to end. The
    /// root stands for all.
    fn next(&self) -> Option<(SharePath, Vec<Intent>)> {
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| state.dirs.is_empty() && !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        if state.stop {
            return None;
        }
        let next = state.dirs.pop_first()?;
        state.dirs.retain(|dir| !dir.is_below(&next));
        Some((next, std::mem::take(&mut state.left)))
    }
}

/// What a crash or an operation left and could not be settled at once, and by what names it may have to be kept.
#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) intents: Vec<Intent>,
    pub(super) node: NodeName,
    pub(super) epoch: Epoch,
}

struct Worker {
    site: Arc<Site>,
    wanted: Arc<Wanted>,
    common: Common,
    board: Arc<ShareBoard>,
    unsettled: Unsettled,
}

impl Worker {
    fn run(mut self) {
        while let Some((dir, left)) = self.wanted.next() {
            self.unsettled.intents.extend(left);
            self.settle(&dir);
            self.scan(&dir);
        }
    }

    /// Tries again to settle what could not be before.
    fn settle(&mut self, dir: &SharePath) {
        let Unsettled { intents, node, epoch } = &mut self.unsettled;
        let wall_ns = self.common.clock.now().wall_ns;
        let (tree, day) = (&*self.site.tree, conflict::utc_day(wall_ns));
        let keep_as = keep_as(node, *epoch, wall_ns);
        let report = apply::settle_again(tree, intents, dir, &day, keep_as);
        tell_recovered(&self.site.name, &report);
        for input in report.inputs() {
            self.site.input(Lane::Bulk, input);
        }
    }

    fn scan(&self, dir: &SharePath) {
        let share = &self.site.name;
        let label = metrics::Share::new(share.clone());
        let begun = self.common.clock.now();
        if dir.is_root() {
            self.common.events.scan_started(share);
        }
        let mut emit = |item: ScanItem| {
            if !self.site.gate.pass() {
                return ControlFlow::Break(());
            }
            let ScanItem { path, hint } = item;
            self.site.dirty(path, hint, Noticed::Scan);
            ControlFlow::Continue(())
        };
        let result = self
            .site
            .readers
            .with(|reader| Ok(observe::scan(&*self.site.tree, reader, dir, &mut emit)));
        let now = self.common.clock.now();
        match result {
            Ok(Ok(report)) => {
                self.tell(&report);
                for path in report.again(dir) {
                    self.site.input(Lane::Bulk, Input::Unreadable(path));
                }
                if dir.is_root() {
                    let swept = apply::sweep_transfers(&*self.site.tree, now.wall_ns);
                    tracing::debug!(%share, swept, "old interrupted transfers removed");
                    self.common.metrics.scans.with(label.clone()).inc();
                    let took = now.mono.saturating_sub(begun.mono).as_secs_f64();
                    self.common.metrics.scan_seconds.with(label).observe(took);
                    self.board.set_scan(report);
                }
                self.site.tell(ToShare::Scanned(dir.clone()));
            }
            Ok(Err(error)) => self.failed(dir, error.to_string()),
            Err(error) => self.failed(dir, error.to_string()),
        }
    }

    fn failed(&self, dir: &SharePath, why: String) {
        self.problem("scan", Some(dir.clone()), why);
        self.site.input(Lane::Bulk, Input::Unreadable(dir.clone()));
    }

    fn tell(&self, report: &ScanReport) {
        let known = self.board.get().scan.mounts();
        for unreadable in &report.unreadable_named {
            let is_mount = unreadable.why == TreeError::CrossDevice;
            if is_mount && known.contains(&unreadable.path) {
                continue;
            }
            let why = if is_mount { MOUNTED.to_owned() } else { unreadable.why.to_string() };
            self.problem("unreadable", Some(unreadable.path.clone()), why);
        }
        for path in &report.special_named {
            let why = "not a file, directory or symbolic link".to_owned();
            let skipped = Event::Skipped { path: path.clone(), why };
            self.common.events.record(self.common.clock.now(), &self.site.name, &skipped);
        }
        for dir in &report.unsyncable_in {
            let why = "it holds a name that is too long to be synced".to_owned();
            self.problem("name", Some(dir.clone()), why);
        }
    }

    fn problem(&self, kind: &'static str, path: Option<SharePath>, message: String) {
        let share = Some(self.site.name.clone());
        let problem = Problem { kind, share, peer: None, path, message };
        self.common.events.report(self.common.clock.now(), problem);
    }
}
