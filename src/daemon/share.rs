//! One share at run time: the loop that owns the engine and the index, and the threads around it.
//!
//! **Invariant:** effects leave the loop only after the commit of what the engine wrote before
//! them; a run that fails leaves nothing behind but the index, from which the next one begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use recsync_proto::message::{Lane, ShareMessage};
use recsync_proto::path::Escaped;
use recsync_proto::{Epoch, Message, NodeName, ShareName, SharePath};
use thiserror::Error;

use super::changes::Changes;
use super::desk::Desk;
use super::lane::{LaneThread, Outgoing};
use super::pool::PoolHandle;
use super::scanner::Scanner;
use super::site::{Readers, Site};
use super::board::{Running, ShareBoard, Stage};
use crate::apply;
use crate::engine::{
    self, Effect, Engine, Hint, Input, Look, Noticed, Now, conflict,
};
use crate::index::{Index as _, IndexError, IndexRead as _, Installed, Store, Write};
use crate::net::Links;
use crate::observe;
use crate::sys::{self, Clock};
use crate::telemetry::events::Problem;
use crate::telemetry::metrics::labels;
use crate::telemetry::{Events, Metrics};
use crate::transfer::{Fetcher, FetcherInput, FetcherOutput, Outlines};
use crate::tree::{Disk, RootError, Tree as _};
use crate::watch::{self, Watcher};

/// Inputs taken together, and committed together.
const BATCH_MAX: usize = 256;
/// How often the root is checked when nothing else asks for it.
const ROOT_CHECK: Duration = Duration::from_secs(1);

/// What the share's loop can be told.
pub(super) enum ToShare {
    /// Something for the engine.
    Input(Input),
    /// The watcher's word.
    Watch(watch::Event),
    /// A full scan ended.
    Scanned,
    /// Look through the whole tree.
    Rescan,
    /// Run something between two batches: questions that only the loop can answer.
    Ask(Box<dyn FnOnce(&Engine, &Store) + Send>),
    /// Changed settings.
    Settings(engine::Settings, Duration),
    /// End.
    Stop,
}

impl std::fmt::Debug for ToShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ToShare::Input(input) => write!(f, "Input({input:?})"),
            ToShare::Watch(event) => write!(f, "Watch({event:?})"),
            ToShare::Scanned => f.write_str("Scanned"),
            ToShare::Rescan => f.write_str("Rescan"),
            ToShare::Ask(_) => f.write_str("Ask"),
            ToShare::Settings(..) => f.write_str("Settings"),
            ToShare::Stop => f.write_str("Stop"),
        }
    }
}

/// Why a run of a share ended without being told to.
#[derive(Debug, Error)]
pub(super) enum ShareError {
    /// The root is not fit to be touched.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The kernel refused a thread or a directory.
    #[error("{0}")]
    System(String),
}

/// What a share needs to run.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) name: ShareName,
    pub(super) path: std::path::PathBuf,
    pub(super) index: std::path::PathBuf,
    pub(super) settings: engine::Settings,
    pub(super) scan_interval: Duration,
}

/// What all shares of a node use.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) clock: Clock,
    pub(super) pool: PoolHandle,
    pub(super) links: Arc<Links>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Arc<Events>,
}

/// Runs a share until it is told to stop or cannot go on. `connected` gives the inbox to the
/// outside once the run can take it in, and returns the peers that are up.
///
/// # Errors
/// If the root or the index is not fit to be used, or becomes so.
pub(super) fn run(
    setup: &Setup,
    common: &Common,
    board: &Arc<ShareBoard>,
    connected: impl FnOnce(Sender<ToShare>) -> Vec<NodeName>,
) -> Result<(), ShareError> {
    let tree = Arc::new(Disk::open(&setup.path, &setup.name)?);
    let mut fresh = false;
    let mut store = Store::open(&setup.index, || {
        fresh = true;
        Epoch(sys::random_u64())
    })?;
    check_root_id(&mut store, &tree, setup)?;
    let was_clean = store.begin_run()?;
    if !was_clean && !fresh {
        tracing::info!(share = %setup.name, "the last stop was not a clean one: looking for what it left");
    }

    let (inbox, waiting) = channel();
    let (fetcher_inbox, fetcher_waiting) = channel();
    let site = Arc::new(Site::new(
        setup.name.clone(),
        tree,
        common.clock,
        Readers::new(&store),
        setup.settings.settle,
        inbox.clone(),
    ));
    let dirty = recover(&site, &mut store)?;
    let now = common.clock.now();
    let first_op = u64::try_from(now.wall_ns).unwrap_or(0);
    let engine = Engine::new(setup.settings.clone(), &store, first_op, fresh)?;
    for path in dirty {
        site.input(Input::Dirty { path, hint: Hint::Written, noticed: Noticed::Scan });
    }

    let scanner = Scanner::start(site.clone(), common.clone(), board.clone())
        .map_err(system)?;
    let fetcher = spawn_fetcher(&site, common.links.clone(), fetcher_waiting).map_err(system)?;
    let desk = Desk::start(site.clone(), common.links.clone()).map_err(system)?;
    let (watcher, watch_handle) = spawn_watcher(&site, setup).map_err(system)?;
    board.started(Running {
        site: site.clone(),
        watch: watch_handle.clone(),
        desk: desk.clone(),
    });

    let mut share = Loop {
        site: site.clone(),
        common: common.clone(),
        board: board.clone(),
        store,
        engine,
        changes: Arc::default(),
        lanes: BTreeMap::new(),
        outlines: Arc::default(),
        desk,
        fetcher: fetcher_inbox,
        scanner,
        scan_interval: setup.scan_interval,
        scan_due: now.mono + setup.scan_interval,
        root_due: now.mono + ROOT_CHECK,
    };
    for peer in connected(inbox) {
        site.input(Input::PeerUp(peer));
    }
    let result = share.run(&waiting);

    board.stopped();
    site.stop();
    watch_handle.stop();
    let Loop { mut store, lanes, fetcher: fetcher_inbox, scanner, .. } = share;
    for lane in lanes.into_values() {
        lane.stop();
    }
    scanner.stop();
    desk.stop();
    drop(fetcher_inbox);
    for thread in [fetcher, watcher] {
        if thread.join().is_err() {
            tracing::error!(share = %setup.name, "a thread panicked");
        }
    }
    if result.is_ok() {
        store.end_run()?;
    }
    result
}

fn system(error: std::io::Error) -> ShareError {
    ShareError::System(format!("the kernel refused a thread: {error}"))
}

/// The marker's id must be the one that the index was made for.
fn check_root_id(store: &mut Store, tree: &Disk, setup: &Setup) -> Result<(), ShareError> {
    let found = tree.root_id().to_string();
    match store.root_id()? {
        None => Ok(store.set_root_id(&found)?),
        Some(expected) if expected == found => Ok(()),
        Some(expected) => Err(ShareError::Root(RootError::OtherRoot {
            path: setup.path.display().to_string(),
            found: format!("{} {found}", setup.name),
            expected: format!("{} {expected}", setup.name),
        })),
    }
}

/// Finishes or undoes what a stop interrupted; returns the paths to be looked at.
fn recover(site: &Site, store: &mut Store) -> Result<Vec<SharePath>, ShareError> {
    let intents = store.intents()?;
    let now = site.clock.now();
    let report = apply::recover(&*site.tree, &intents, now.wall_ns, |path, fingerprint| {
        conflict::recovered_path(path, fingerprint.mtime_ns, fingerprint.ino)
    });
    for id in &report.done {
        store.write(&Write::IntentDone(*id))?;
    }
    store.commit()?;
    Ok(report.dirty)
}

fn spawn_watcher(
    site: &Arc<Site>,
    setup: &Setup,
) -> std::io::Result<(JoinHandle<()>, watch::Handle)> {
    let sink = {
        let site = site.clone();
        move |event| site.tell(ToShare::Watch(event))
    };
    let (watcher, handle) =
        Watcher::new(setup.path.clone(), site.tree.clone(), site.clock, sink);
    let name = format!("watch-{}", site.name);
    let thread = std::thread::Builder::new().name(name).spawn(move || watcher.run())?;
    Ok((thread, handle))
}

fn spawn_fetcher(
    site: &Arc<Site>,
    links: Arc<Links>,
    waiting: Receiver<FetcherInput>,
) -> std::io::Result<JoinHandle<()>> {
    let site = site.clone();
    let mut fetcher = Fetcher::new(site.tree.clone());
    std::thread::Builder::new().name(format!("fetch-{}", site.name)).spawn(move || {
        for input in waiting {
            for output in fetcher.step(input) {
                match output {
                    FetcherOutput::Send { peer, lane, message } => {
                        let share = site.name.clone();
                        let message = Message::Share { share, body: message };
                        if let Err(error) = links.send(&peer, lane, message) {
                            // The link is down, and the fetcher hears of that too.
                            tracing::trace!(%peer, %error, "not sent");
                        }
                    }
                    FetcherOutput::Fetched { path, hash, source } => {
                        site.input(Input::Fetched { path, hash, source });
                    }
                }
            }
        }
    })
}

struct Loop {
    site: Arc<Site>,
    common: Common,
    board: Arc<ShareBoard>,
    store: Store,
    engine: Engine,
    changes: Arc<Changes>,
    lanes: BTreeMap<(NodeName, Lane), LaneThread>,
    outlines: Arc<Outlines>,
    desk: Arc<Desk>,
    fetcher: Sender<FetcherInput>,
    scanner: Scanner,
    scan_interval: Duration,
    scan_due: Duration,
    root_due: Duration,
}

impl Loop {
    fn run(&mut self, waiting: &Receiver<ToShare>) -> Result<(), ShareError> {
        loop {
            let now = self.common.clock.now();
            let due = self.engine.next_due().unwrap_or(self.root_due);
            let due = due.min(self.scan_due).min(self.root_due);
            let wait = if self.engine.wants_pump() {
                Duration::ZERO
            } else {
                due.saturating_sub(now.mono)
            };
            let first = match waiting.recv_timeout(wait) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let rest = std::iter::from_fn(|| waiting.try_recv().ok());
            let batch: Vec<ToShare> = first.into_iter().chain(rest).take(BATCH_MAX).collect();
            if !self.batch(batch)? {
                return Ok(());
            }
        }
    }

    /// Steps the engine through a batch, commits, and hands the effects out. False to stop.
    fn batch(&mut self, batch: Vec<ToShare>) -> Result<bool, ShareError> {
        let now = self.common.clock.now();
        let absence = |what: &ToShare| {
            matches!(what, ToShare::Input(Input::Looked { look: Look::Absent, .. }))
        };
        // Nothing counts as gone from a root that is itself not there.
        if now.mono >= self.root_due || batch.iter().any(absence) {
            self.site.tree.check_root()?;
            self.root_due = now.mono + ROOT_CHECK;
        }
        if now.mono >= self.scan_due {
            self.rescan(now);
        }
        let mut effects = Vec::new();
        let mut inputs = 0_usize;
        for what in batch {
            match what {
                ToShare::Input(input) => {
                    inputs += 1;
                    effects.extend(self.input(now, input)?);
                }
                ToShare::Watch(event) => {
                    if let Some(input) = self.watched(now, event)? {
                        inputs += 1;
                        effects.extend(self.engine.step(now, input, &mut self.store)?);
                    }
                }
                ToShare::Scanned => {
                    effects.extend(self.engine.step(now, Input::Scanned, &mut self.store)?);
                    self.board.set_stage(Stage::Watching);
                }
                ToShare::Rescan => self.rescan(now),
                ToShare::Ask(ask) => ask(&self.engine, &self.store),
                ToShare::Settings(settings, scan_interval) => {
                    self.site.set_settle(settings.settle);
                    self.scan_due = self.scan_due.min(now.mono + scan_interval);
                    self.scan_interval = scan_interval;
                    self.engine.reconfigure(settings, &self.store)?;
                }
                ToShare::Stop => return Ok(false),
            }
        }
        if inputs == 0 {
            effects.extend(self.engine.step(now, Input::Tick, &mut self.store)?);
        }
        effects.extend(self.engine.pump(now, &mut self.store)?);
        self.store.commit()?;
        self.site.gate.set_busy(self.engine.is_busy());
        self.board.progress(self.engine.load(), self.engine.held());
        self.hand_out(now, effects)?;
        Ok(true)
    }

    fn input(&mut self, now: Now, input: Input) -> Result<Vec<Effect>, ShareError> {
        if let Input::PeerDown(peer) = &input {
            self.to_fetcher(FetcherInput::PeerDown(peer.clone()));
            self.desk.peer_down(peer);
        }
        match input {
            Input::Message { peer, lane, message } => match message {
                ShareMessage::GetOutline { id, file, first, count } => {
                    self.push(&peer, lane, Outgoing::Outline { id, file, first, count })?;
                    Ok(Vec::new())
                }
                ShareMessage::GetBlocks { id, file, first, count } => {
                    self.push(&peer, lane, Outgoing::Blocks { id, file, first, count })?;
                    Ok(Vec::new())
                }
                ShareMessage::Outline { .. }
                | ShareMessage::Block { .. }
                | ShareMessage::Gone { .. } => {
                    self.to_fetcher(FetcherInput::Message { peer, message });
                    Ok(Vec::new())
                }
                ShareMessage::GetDigests { .. } | ShareMessage::Digests { .. } => {
                    self.desk.take(peer, message);
                    Ok(Vec::new())
                }
                _ => {
                    let input = Input::Message { peer, lane, message };
                    Ok(self.engine.step(now, input, &mut self.store)?)
                }
            },
            input => Ok(self.engine.step(now, input, &mut self.store)?),
        }
    }

    /// Takes the watcher's word; returns what of it is the engine's business.
    fn watched(&mut self, now: Now, event: watch::Event) -> Result<Option<Input>, ShareError> {
        let share = &self.site.name;
        match event {
            watch::Event::Dirty { path, hint, at } => {
                let noticed = Noticed::Watcher(at);
                return Ok(Some(Input::Dirty { path, hint, noticed }));
            }
            watch::Event::Scan { dir, why } => {
                if why == watch::Why::Overflow {
                    self.common.metrics.watch_overflows.with(labels::Share::new(share.clone())).inc();
                    tracing::warn!(%share, "more changed at once than could be heard: scanning all of it");
                }
                self.scanner.scan(dir);
            }
            watch::Event::Coverage { unwatched, why } => {
                if let Some(why) = &why {
                    self.problem(now, "watch", None, why.to_string());
                }
                self.board.set_unwatched(unwatched, why.map(|why| why.to_string()));
            }
            watch::Event::Unreadable { dir } => {
                let why = "permission denied; give recsync's user access to it".to_owned();
                self.problem(now, "unreadable", Some(dir), why);
            }
            watch::Event::Unsyncable { dir, name, why } => {
                let why = format!("{}: {why}; it is not synced", Escaped(&name));
                self.problem(now, "name", Some(dir), why);
            }
            watch::Event::Root => self.site.tree.check_root()?,
        }
        Ok(None)
    }

    fn problem(&self, now: Now, kind: &'static str, path: Option<SharePath>, why: String) {
        let share = Some(self.site.name.clone());
        self.common.events.report(now, Problem { kind, share, peer: None, path, why });
    }

    fn rescan(&mut self, now: Now) {
        self.scan_due = now.mono + self.scan_interval;
        self.scanner.scan(SharePath::root());
    }

    fn hand_out(&mut self, now: Now, effects: Vec<Effect>) -> Result<(), ShareError> {
        let mut ops = Vec::new();
        for effect in effects {
            match effect {
                Effect::Look { path, installed, hint } => self.look(path, installed, hint),
                Effect::Apply(op) => ops.push(op),
                Effect::Fetch { path, file, peer, lane, seq, basis } => {
                    self.to_fetcher(FetcherInput::Start { path, file, peer, lane, seq, basis });
                }
                Effect::Announce(announce) => {
                    let (peer, lane) = (announce.peer.clone(), announce.lane);
                    self.push(&peer, lane, Outgoing::Announce(announce))?;
                }
                Effect::Send { peer, lane, message } => {
                    self.push(&peer, lane, Outgoing::Say(message))?;
                }
                Effect::Scan(dir) => self.scanner.scan(dir),
                Effect::Event(event) => {
                    self.common.metrics.record(&self.site.name, &event);
                    self.common.events.record(now, &self.site.name, &event);
                }
            }
        }
        if !ops.is_empty() {
            self.changes.push(ops, &self.site, &self.common.pool);
        }
        Ok(())
    }

    fn look(&self, path: SharePath, installed: Option<Installed>, hint: Hint) {
        let site = self.site.clone();
        self.common.pool.run(move || {
            if site.is_stopping() {
                return;
            }
            let wall_ns = site.clock.now().wall_ns;
            let installed = installed.as_ref();
            let look = observe::look(&*site.tree, &path, installed, hint, site.settle(), wall_ns);
            site.input(Input::Looked { path, look });
        });
    }

    fn push(&mut self, peer: &NodeName, lane: Lane, what: Outgoing) -> Result<(), ShareError> {
        let key = (peer.clone(), lane);
        if let Some(thread) = self.lanes.get(&key) {
            thread.push(what);
            return Ok(());
        }
        let (site, links) = (self.site.clone(), self.common.links.clone());
        let thread = LaneThread::start(site, links, self.outlines.clone(), peer.clone(), lane)
            .map_err(system)?;
        thread.push(what);
        self.lanes.insert(key, thread);
        Ok(())
    }

    fn to_fetcher(&self, input: FetcherInput) {
        if self.fetcher.send(input).is_err() {
            tracing::error!(share = %self.site.name, "the fetcher has ended");
        }
    }
}
