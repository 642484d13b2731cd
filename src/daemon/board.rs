//! What is known of a share from outside of its loop: for status, health, metrics and commands.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recsync_proto::SharePath;

use super::desk::Desk;
use super::site::Site;
use crate::engine::Load;
use crate::observe::ScanReport;
use crate::tree::RootError;
use crate::watch;

/// How far a share is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    /// Not running yet, or being started again.
    Starting,
    /// Running; the first scan has not ended.
    Scanning,
    /// Running, scanned and watched.
    Watching,
    /// Its root is not fit to be touched.
    NoRoot(RootError),
    /// It cannot run; tried again with growing delays.
    Failed(String),
}

/// The parts of a running share that others may use.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) site: Arc<Site>,
    pub(super) watch: watch::Handle,
    pub(super) desk: Arc<Desk>,
}

/// One share as seen from outside.
#[derive(Debug)]
pub(super) struct ShareBoard {
    state: Mutex<BoardState>,
    /// Batches done: the watchdog's proof of progress.
    batches: AtomicU64,
}

/// See [`ShareBoard`].
#[derive(Debug, Clone)]
pub(super) struct BoardState {
    pub(super) stage: Stage,
    pub(super) running: Option<Running>,
    pub(super) load: Load,
    pub(super) held: [Option<(u64, u64)>; 2],
    /// When something began to wait for the operator, nanoseconds since 1970.
    pub(super) held_since_ns: Option<i64>,
    /// Since when the root is not fit to be touched, nanoseconds since 1970.
    pub(super) root_lost_ns: Option<i64>,
    pub(super) unwatched: usize,
    pub(super) unwatched_why: Option<String>,
    pub(super) scan: ScanReport,
    /// Paths with many conflict copies, a few of them, and how many each has.
    pub(super) crowded: Vec<(SharePath, u64)>,
    /// Why nothing new is received, if that is so.
    pub(super) no_space: Option<String>,
}

impl ShareBoard {
    pub(super) fn new() -> Self {
        let state = BoardState {
            stage: Stage::Starting,
            running: None,
            load: Load::default(),
            held: [None; 2],
            held_since_ns: None,
            root_lost_ns: None,
            unwatched: 0,
            unwatched_why: None,
            scan: ScanReport::default(),
            crowded: Vec::new(),
            no_space: None,
        };
        ShareBoard { state: Mutex::new(state), batches: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns everything as it is now.
    pub(super) fn get(&self) -> BoardState {
        self.lock().clone()
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.lock().stage = stage;
    }

    /// The root is not fit to be touched, as seen at this wall clock time.
    pub(super) fn lost_root(&self, error: RootError, wall_ns: i64) {
        let mut state = self.lock();
        state.stage = Stage::NoRoot(error);
        state.root_lost_ns.get_or_insert(wall_ns);
    }

    pub(super) fn started(&self, running: Running) {
        let mut state = self.lock();
        state.stage = Stage::Scanning;
        state.root_lost_ns = None;
        state.running = Some(running);
    }

    pub(super) fn stopped(&self) {
        let mut state = self.lock();
        state.running = None;
        state.load = Load::default();
    }

    /// Takes what a batch left, at this wall clock time.
    pub(super) fn progress(&self, load: Load, held: [Option<(u64, u64)>; 2], wall_ns: i64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        (state.load, state.held) = (load, held);
        let is_held = held.iter().any(Option::is_some);
        state.held_since_ns = is_held.then(|| state.held_since_ns.unwrap_or(wall_ns));
    }

    pub(super) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    pub(super) fn set_unwatched(&self, unwatched: usize, why: Option<String>) {
        let mut state = self.lock();
        (state.unwatched, state.unwatched_why) = (unwatched, why);
    }

    pub(super) fn set_no_space(&self, why: Option<String>) {
        self.lock().no_space = why;
    }

    pub(super) fn set_crowded(&self, crowded: Vec<(SharePath, u64)>) {
        self.lock().crowded = crowded;
    }

    pub(super) fn set_scan(&self, scan: ScanReport) {
        self.lock().scan = scan;
    }
}
