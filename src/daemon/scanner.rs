//! The thread that scans: whole trees, and directories that may have changed behind the watch.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use recsync_proto::SharePath;
use recsync_proto::message::Lane;

use super::board::ShareBoard;
use super::share::{Common, ToShare};
use super::site::Site;
use crate::apply;
use crate::engine::{Event, Input, Noticed};
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
    dirs: Mutex<(BTreeSet<SharePath>, bool)>,
    changed: Condvar,
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
    ) -> std::io::Result<Self> {
        let wanted = Arc::new(Wanted::default());
        let worker = Worker { site: site.clone(), wanted: wanted.clone(), common, board };
        let name = format!("scan-{}", site.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || worker.run())?;
        Ok(Scanner { wanted, site, thread })
    }

    /// Asks for a scan of a directory and all below it.
    pub(super) fn scan(&self, dir: SharePath) {
        let mut wanted = self.wanted.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.0.insert(dir);
        self.wanted.changed.notify_one();
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        self.site.gate.stop();
        self.wanted.dirs.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.wanted.changed.notify_one();
        if self.thread.join().is_err() {
            tracing::error!("the scanner's thread panicked");
        }
    }
}

impl Wanted {
    /// Waits for a directory to scan; none if it is time to end. The root stands for all.
    fn next(&self) -> Option<SharePath> {
        let wanted = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = self
            .changed
            .wait_while(wanted, |(dirs, stop)| dirs.is_empty() && !*stop)
            .unwrap_or_else(PoisonError::into_inner);
        if wanted.1 {
            return None;
        }
        let next = wanted.0.pop_first()?;
        wanted.0.retain(|dir| !dir.is_below(&next));
        Some(next)
    }
}

struct Worker {
    site: Arc<Site>,
    wanted: Arc<Wanted>,
    common: Common,
    board: Arc<ShareBoard>,
}

impl Worker {
    fn run(&self) {
        while let Some(dir) = self.wanted.next() {
            self.scan(&dir);
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
