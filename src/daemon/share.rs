//! One share at run time: the loop that owns the engine and the index, and the threads around it.
//!
//! **Invariant:** effects leave the loop only after the commit of what the engine wrote before
//! them, but for looks, and for operations, which wait for it before they touch the tree; a run that
//! fails leaves nothing behind but the index, from which the next one begins.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use recsync_proto::message::{Lane, ONE_NAME, ShareMessage};
use recsync_proto::path::Escaped;
use recsync_proto::{Content, Dot, Epoch, Message, NodeName, Seq, ShareName, SharePath};
use thiserror::Error;

use super::board::{Running, ShareBoard, Stage};
use super::changes::Changes;
use super::credit::Pass;
use super::desk::Desk;
use super::inbox::Inbox;
use super::keeper::Keeper;
use super::lane::{LaneThread, Outgoing};
use super::pool::PoolHandle;
use super::scanner::{Scanner, Unsettled};
use super::site::{Readers, Site};
use super::witness::{self, Past};
use crate::apply;
use crate::config::MinFree;
use crate::engine::{self, Effect, Engine, Hint, Input, Look, Noticed, Now, Saved, conflict};
use crate::index::{Index as _, IndexError, IndexRead as _, Installed, LastStop, Store, Write};
use crate::net::Link;
use crate::observe;
use crate::sys::{self, Clock, Failpoint};
use crate::telemetry::events::Problem;
use crate::telemetry::metrics;
use crate::telemetry::{Events, Metrics};
use crate::transfer::{FetchOutput, Fetcher, Outlines, Want};
use crate::tree::{Disk, RootError, RootId, Tree as _};
use crate::watch::{self, Watcher};

/// How often the root is checked when nothing else asks for it.
const ROOT_CHECK: Duration = Duration::from_secs(1);

/// What is said of an index and a disk of two different times.
const RESTORED: &str = "the index and the share's disk are not of the same time: one of them was put back from a backup";
/// What happens then.
const STARTS_OVER: &str = "the index starts over: the share is compared with the peers by content, nothing is deleted, and \
    files that were deleted since the backup may come back";

/// What the share's loop can be told.
pub(super) enum ToShare {
    /// Something for the engine, and whether it is of a new change or of the backlog.
    Input(Lane, Input),
    /// A link to a peer came up.
    LinkUp(Link),
    /// The link with this number went down.
    LinkDown(NodeName, u64),
    /// A peer said something on the link with this number.
    Heard {
        /// Which link.
        link: u64,
        /// Who.
        peer: NodeName,
        /// On which lane.
        lane: Lane,
        /// What.
        message: ShareMessage,
        /// Its right to wait here.
        pass: Pass,
    },
    /// The watcher's word.
    Watch(watch::Event),
    /// A scan of this directory ended.
    Scanned(SharePath),
    /// Look through the whole tree.
    Rescan,
    /// Changed settings.
    Settings(Box<Setup>),
    /// Facts of the trash for the index, from those who look after it.
    Note(Vec<Write>),
    /// End.
    Stop,
}

impl ToShare {
    /// Returns the lane in which it waits for the loop. What has to keep its order is in one.
    pub(super) fn lane(&self) -> Lane {
        match self {
            // Most are of the backlog, and nothing waits for the others.
            ToShare::Heard { message: ShareMessage::Acks(_), .. }
            | ToShare::Watch(watch::Event::Dirty { came_along: true, .. })
            | ToShare::Scanned(_) => Lane::Bulk,
            ToShare::Input(lane, _) | ToShare::Heard { lane, .. } => *lane,
            _ => Lane::Live,
        }
    }
}

impl std::fmt::Debug for ToShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ToShare::Input(lane, input) => write!(f, "Input({lane:?}, {input:?})"),
            ToShare::LinkUp(link) => write!(f, "LinkUp({link:?})"),
            ToShare::LinkDown(peer, link) => write!(f, "LinkDown({peer}, {link})"),
            ToShare::Heard { peer, message, .. } => write!(f, "Heard({peer}, {message:?})"),
            ToShare::Watch(event) => write!(f, "Watch({event:?})"),
            ToShare::Scanned(dir) => write!(f, "Scanned({dir})"),
            ToShare::Rescan => f.write_str("Rescan"),
            ToShare::Settings(_) => f.write_str("Settings"),
            ToShare::Note(writes) => write!(f, "Note({writes:?})"),
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
    /// A peer has a copy of this index.
    #[error("{0} has a copy of this share's index: one of the two nodes was cloned from the other")]
    Cloned(NodeName),
    /// The index was put back together with its disk, and has used numbers again since.
    #[error(
        "{0} has seen more of this share's index than there is: it was put back from a backup, and changes were made since"
    )]
    RanAhead(NodeName),
    /// What a crash left could not be put in order.
    #[error(transparent)]
    Recover(apply::RecoverError),
    /// The kernel refused a thread or a directory.
    #[error("{0}")]
    System(String),
}

impl From<apply::RecoverError> for ShareError {
    fn from(error: apply::RecoverError) -> Self {
        match error {
            apply::RecoverError::Root(error) => ShareError::Root(error),
            apply::RecoverError::Index(error) => ShareError::Index(error),
            apply::RecoverError::Temp(_) => ShareError::Recover(error),
        }
    }
}

/// Why a run of a share ended as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// Other rules say what is in the share: the next run begins with them.
    NewRules,
}

/// What a share needs to run.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) name: ShareName,
    pub(super) path: std::path::PathBuf,
    pub(super) index: std::path::PathBuf,
    pub(super) settings: engine::Settings,
    pub(super) scan_interval: Duration,
    pub(super) trash: Duration,
    pub(super) min_free: MinFree,
}

/// What all shares of a node use.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) clock: Clock,
    pub(super) pool: PoolHandle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: Arc<Events>,
}

/// True if a look has found a file that is not the echo of recsync's own work.
fn is_new_file(input: &Input) -> bool {
    let Input::Looked { look, .. } = input else { return false };
    matches!(look, Look::Found { content: Content::File { .. }, .. })
}

/// Runs a share until it is told to stop or cannot go on. `connect` gives the inbox to the
/// outside once the run can take it in, and returns the links that are up.
///
/// # Errors
/// If the root or the index is not fit to be used, or becomes so.
pub(super) fn run(
    setup: &Setup,
    common: &Common,
    board: &Arc<ShareBoard>,
    connect: impl FnOnce(Sender<ToShare>) -> Vec<Link>,
) -> Result<End, ShareError> {
    let mut store = Store::open(&setup.index, || Epoch(sys::random_u64()))?;
    let known = store.root_id()?;
    let expected = known.as_deref().and_then(|id| RootId::from_str(id).ok());
    let tree = Disk::open(&setup.path, &setup.name, expected)?;
    let tree = Arc::new(tree.with_ignore((*setup.settings.ignore).clone()));
    // An index that has never seen a root has never seen a file.
    let mut fresh = known.is_none();
    if !fresh && !witness::agree(&store, &tree)? {
        start_over(&mut store, setup, common, RESTORED)?;
        fresh = true;
    }
    witness::renew(&mut store, &tree)?;
    if fresh {
        store.set_root_id(&tree.root_id().to_string())?;
    }
    let last_stop = store.begin_run(&sys::boot_id())?;
    if last_stop != LastStop::Clean && !fresh {
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
    site.set_trash(setup.trash);
    site.set_min_free(setup.min_free);
    let recovered = recover(&site, &setup.settings.node, &mut store)?;
    let now = common.clock.now();
    let first_op = u64::try_from(now.wall_ns).unwrap_or(0);
    let head = store.head()?;
    let mut engine = Engine::new(setup.settings.clone(), &store, first_op, fresh)?;
    if last_stop == LastStop::Down && !fresh {
        engine.doubt_files();
    }
    let unsettled = Unsettled {
        intents: recovered.unsettled.clone(),
        node: setup.settings.node.clone(),
        epoch: store.epoch(),
    };
    engine.take_exchanged(recovered.exchanged, recovered.perhaps, recovered.unsettled);
    let rules = setup.settings.rules();
    let new_rules = store.rules()?.as_ref() != Some(&rules);
    if new_rules {
        engine.replan();
    }
    for path in recovered.dirty {
        site.dirty(path, Hint::Written, Noticed::Scan);
    }

    let scanner =
        Scanner::start(site.clone(), common.clone(), board.clone(), unsettled).map_err(system)?;
    let fetcher = spawn_fetcher(&site, common.metrics.clone(), fetcher_waiting).map_err(system)?;
    let desk = Desk::start(site.clone()).map_err(system)?;
    // Without an index, or after a crash, there may be files that it does not know.
    let search = fresh || last_stop != LastStop::Clean;
    let keeper = Keeper::start(
        site.clone(),
        common.clone(),
        board.clone(),
        setup.settings.node.clone(),
        search,
    )
    .map_err(system)?;
    let (watcher, watch_handle) = spawn_watcher(&site, setup).map_err(system)?;
    board.started(Running { site: site.clone(), watch: watch_handle.clone(), desk: desk.clone() });

    let mut share = Loop {
        end: End::Stopped,
        rules,
        new_rules,
        site: site.clone(),
        common: common.clone(),
        board: board.clone(),
        store,
        engine,
        live: Changes::new(Lane::Live),
        bulk: Changes::new(Lane::Bulk),
        lanes: BTreeMap::new(),
        outlines: Arc::default(),
        desk,
        fetcher: fetcher_inbox,
        scanner,
        scan_interval: setup.scan_interval,
        scan_due: now.mono + setup.scan_interval,
        root_due: now.mono + ROOT_CHECK,
        witness_due: now.mono + witness::RENEW,
        witness_head: head,
        past: Past::new(head),
    };
    for link in connect(inbox) {
        site.tell(ToShare::LinkUp(link));
    }
    let result = share.run(Inbox::new(waiting));

    board.stopped();
    site.stop();
    watch_handle.stop();
    // As long as files are in doubt, the next start has to look at them too.
    let settled = !share.engine.doubts_files();
    let Loop { mut store, lanes, fetcher: fetcher_inbox, scanner, desk, .. } = share;
    scanner.stop();
    desk.stop();
    keeper.stop();
    drop(fetcher_inbox);
    let lanes = lanes.into_values().flat_map(|Lanes { live, bulk, .. }| [live, bulk]);
    for thread in lanes.map(LaneThread::stop).chain([fetcher, watcher]) {
        if thread.join().is_err() {
            tracing::error!(share = %setup.name, "a thread panicked");
        }
    }
    if result.is_ok() && settled {
        store.end_run()?;
    }
    if let Err(error @ (ShareError::Cloned(_) | ShareError::RanAhead(_))) = &result {
        // Numbers that others know for something else are used no more.
        start_over(&mut store, setup, common, &error.to_string())?;
    }
    result
}

/// Has an index forget what does not fit what is there, and says so.
fn start_over(
    store: &mut Store,
    setup: &Setup,
    common: &Common,
    why: &str,
) -> Result<(), ShareError> {
    store.start_over(Epoch(sys::random_u64()))?;
    let share = Some(setup.name.clone());
    let message = format!("{why}; {STARTS_OVER}");
    let problem = Problem { kind: "index", share, peer: None, path: None, message };
    common.events.report(common.clock.now(), problem);
    Ok(())
}

fn system(error: std::io::Error) -> ShareError {
    ShareError::System(format!("the kernel refused a thread: {error}"))
}

/// Finishes or undoes what a stop interrupted.
fn recover(
    site: &Site,
    node: &NodeName,
    store: &mut Store,
) -> Result<apply::Recovered, ShareError> {
    let now = site.clock.now();
    let day = conflict::utc_day(now.wall_ns);
    let keep_as = keep_as(node, store.epoch(), now.wall_ns);
    let report = apply::recover(&*site.tree, store, now.wall_ns, &day, keep_as)?;
    tell_recovered(&site.name, &report);
    report.writes().try_for_each(|write| store.write(&write))?;
    store.commit()?;
    Ok(report)
}

/// Returns what names a local change that recovery keeps. Numbers that no operation of this index has had are in the names.
pub(super) fn keep_as(
    node: &NodeName,
    epoch: Epoch,
    wall_ns: i64,
) -> impl Fn(&SharePath) -> SharePath {
    let seq = Cell::new(u64::try_from(wall_ns).unwrap_or(0));
    move |path| {
        seq.set(seq.get() + 1);
        conflict::kept_path(path, node, wall_ns, Dot { epoch, seq: Seq(seq.get()) })
    }
}

pub(super) fn tell_recovered(share: &ShareName, report: &apply::Recovered) {
    for (place, why) in &report.troubles {
        tracing::warn!(%share, %place, %why, "left by a crash, and tried again");
    }
    for place in &report.kept {
        tracing::warn!(%share, %place, "kept: a file that was changed in the instant of a crash");
    }
}

fn spawn_watcher(
    site: &Arc<Site>,
    setup: &Setup,
) -> std::io::Result<(JoinHandle<()>, watch::Handle)> {
    let sink = {
        let site = site.clone();
        move |event| site.tell(ToShare::Watch(event))
    };
    let (watcher, handle) = Watcher::new(setup.path.clone(), site.tree.clone(), site.clock, sink);
    let name = format!("watch-{}", site.name);
    let thread = std::thread::Builder::new().name(name).spawn(move || watcher.run())?;
    Ok((thread, handle))
}

/// What the fetcher's thread can be told.
#[derive(Debug)]
enum ToFetcher {
    Start(Want),
    Heard(NodeName, ShareMessage),
    PeerDown(NodeName),
}

fn spawn_fetcher(
    site: &Arc<Site>,
    metrics: Arc<Metrics>,
    inbox: Receiver<ToFetcher>,
) -> std::io::Result<JoinHandle<()>> {
    let site = site.clone();
    std::thread::Builder::new().name(format!("fetch-{}", site.name)).spawn(move || {
        let tree = &*site.tree;
        let mut fetcher = Fetcher::new();
        let mut out = Vec::new();
        loop {
            // Looking for blocks on this disk fills the time in which nothing is heard.
            let next = if fetcher.has_work() {
                match inbox.try_recv() {
                    Err(TryRecvError::Disconnected) => return,
                    next => next.ok(),
                }
            } else {
                let Ok(next) = inbox.recv() else { return };
                Some(next)
            };
            if site.is_stopping() {
                return;
            }
            match next {
                Some(ToFetcher::Start(want)) => fetcher.start(tree, want, &mut out),
                Some(ToFetcher::Heard(peer, message)) => {
                    fetcher.message(tree, &peer, message, &mut out);
                }
                Some(ToFetcher::PeerDown(peer)) => {
                    fetcher.peer_down(tree, &peer, &mut out);
                }
                None => {
                    fetcher.work(tree, &mut out);
                }
            }
            while !out.is_empty() {
                let unsent: BTreeSet<NodeName> =
                    out.drain(..).filter_map(|output| fetched(&site, &metrics, output)).collect();
                // The word that the link is down may have come before this was asked for.
                for peer in unsent {
                    fetcher.peer_down(tree, &peer, &mut out);
                }
            }
        }
    })
}

/// Returns the peer that could not be asked.
fn fetched(site: &Site, metrics: &Metrics, output: FetchOutput) -> Option<NodeName> {
    match output {
        FetchOutput::Send { peer, lane, message } => {
            let share = site.name.clone();
            let sent = site.say(&peer, lane, &Message::Share { share, body: message });
            (!sent).then_some(peer)
        }
        FetchOutput::Fetched { path, hash, source, reused } => {
            if reused > 0 {
                let label = metrics::SavedBy::new(site.name.clone(), Saved::Delta);
                metrics.saved_bytes.with(label).inc_by(reused);
            }
            site.input(
                Lane::Bulk,
                Input::Fetched { path, hash, source: source.map_err(Into::into) },
            );
            None
        }
    }
}

/// Both lanes of the link in use to a peer.
struct Lanes {
    link: u64,
    /// The peer's opening of the share that was heard last.
    opening: Option<u64>,
    live: LaneThread,
    bulk: LaneThread,
}

struct Loop {
    end: End,
    /// By which it is worked out what is pending.
    rules: String,
    /// They are to be noted once everything is planned by them.
    new_rules: bool,
    site: Arc<Site>,
    common: Common,
    board: Arc<ShareBoard>,
    store: Store,
    engine: Engine,
    /// Operations of each lane on their way to the disk.
    live: Arc<Changes>,
    bulk: Arc<Changes>,
    lanes: BTreeMap<NodeName, Lanes>,
    outlines: Arc<Outlines>,
    desk: Arc<Desk>,
    fetcher: Sender<ToFetcher>,
    scanner: Scanner,
    scan_interval: Duration,
    scan_due: Duration,
    root_due: Duration,
    witness_due: Duration,
    /// Where the log stood when the witness was last renewed.
    witness_head: Seq,
    past: Past,
}

impl Loop {
    fn run(&mut self, mut inbox: Inbox) -> Result<End, ShareError> {
        loop {
            let now = self.common.clock.now();
            let due = self.engine.next_due().unwrap_or(self.root_due);
            let due = due.min(self.scan_due).min(self.root_due);
            let wait = if self.engine.wants_pump() {
                Duration::ZERO
            } else {
                due.saturating_sub(now.mono)
            };
            if !inbox.begin(wait) || !self.batch(&mut inbox)? {
                return Ok(self.end);
            }
        }
    }

    /// Steps the engine through a batch, commits, and hands the effects out. False to stop.
    fn batch(&mut self, inbox: &mut Inbox) -> Result<bool, ShareError> {
        let now = self.common.clock.now();
        if now.mono >= self.root_due {
            self.check_root(now)?;
        }
        let mut saw_absence = false;
        if now.mono >= self.witness_due {
            self.renew_witness(now)?;
        }
        let mut effects = Vec::new();
        if now.mono >= self.scan_due {
            effects.extend(self.rescan(now)?);
        }
        let mut inputs = 0_usize;
        while let Some(what) = inbox.take() {
            match what {
                ToShare::Input(lane, input) => {
                    inputs += 1;
                    if lane == Lane::Live && is_new_file(&input) {
                        self.common.pool.call_came();
                    }
                    // Nothing counts as gone from a root that is itself not there. All of the batch was
                    // looked at before this.
                    let is_absence = matches!(input, Input::Looked { look: Look::Absent, .. });
                    if is_absence && !std::mem::replace(&mut saw_absence, true) {
                        self.check_root(now)?;
                    }
                    effects.extend(self.step(now, input)?);
                }
                ToShare::LinkUp(link) => {
                    inputs += 1;
                    effects.extend(self.link_up(now, link)?);
                }
                ToShare::LinkDown(peer, link) => {
                    inputs += 1;
                    if self.lanes.get(&peer).is_some_and(|lanes| lanes.link == link) {
                        effects.extend(self.link_down(now, peer)?);
                    }
                }
                ToShare::Heard { link, peer, lane, message, pass } => {
                    inputs += 1;
                    if self.lanes.get(&peer).is_some_and(|lanes| lanes.link == link) {
                        effects.extend(self.heard(now, peer, lane, message)?);
                    }
                    drop(pass);
                }
                ToShare::Watch(event) => {
                    if let Some(input) = self.watched(now, event)? {
                        inputs += 1;
                        effects.extend(self.step(now, input)?);
                    }
                }
                ToShare::Scanned(dir) => {
                    let is_full = dir.is_root();
                    effects.extend(self.step(now, Input::Scanned(dir))?);
                    if is_full {
                        self.board.set_stage(Stage::Watching);
                    }
                }
                ToShare::Rescan => effects.extend(self.rescan(now)?),
                ToShare::Settings(setup) => {
                    let Setup { settings, scan_interval, trash, min_free, .. } = *setup;
                    self.site.set_settle(settings.settle);
                    self.site.set_trash(trash);
                    self.site.set_min_free(min_free);
                    self.scan_due = self.scan_due.min(now.mono + scan_interval);
                    self.scan_interval = scan_interval;
                    if settings.rules() != self.rules {
                        self.end = End::NewRules;
                        return Ok(false);
                    }
                    self.engine.reconfigure(settings, &self.store)?;
                }
                ToShare::Note(writes) => {
                    for write in &writes {
                        self.store.write(write)?;
                    }
                }
                ToShare::Stop => return Ok(false),
            }
        }
        if inputs == 0 {
            effects.extend(self.step(now, Input::Tick)?);
        }
        let doubted = self.engine.doubts_files();
        effects.extend(self.engine.pump(now, &mut self.store)?);
        if doubted && !self.engine.doubts_files() {
            self.store.set_boot(&sys::boot_id())?;
        }
        // Looks rest on nothing that is to be committed, nor does what operations stage.
        let (early, effects): (Vec<_>, Vec<_>) = effects
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Look { .. } | Effect::Apply { .. }));
        self.hand_out(now, early);
        Failpoint::CommitBegun.hit();
        let wrote = self.store.has_changes();
        self.store.commit()?;
        self.site.commits.done(wrote);
        Failpoint::Committed.hit();
        if self.new_rules && !self.engine.is_replanning() {
            self.store.set_rules(&self.rules)?;
            self.new_rules = false;
        }
        self.site.gate.set_busy(self.engine.is_busy());
        self.board.progress(self.engine.load(), self.engine.held(), now.wall_ns);
        self.hand_out(now, effects);
        Failpoint::HandedOut.hit();
        Ok(true)
    }

    fn check_root(&mut self, now: Now) -> Result<(), ShareError> {
        self.site.tree.check_root()?;
        self.root_due = now.mono + ROOT_CHECK;
        Ok(())
    }

    /// Two quiet nodes write nothing.
    fn renew_witness(&mut self, now: Now) -> Result<(), ShareError> {
        self.witness_due = now.mono + witness::RENEW;
        let head = self.store.head()?;
        if head != self.witness_head {
            self.witness_head = head;
            witness::renew(&mut self.store, &self.site.tree)?;
        }
        Ok(())
    }

    fn step(&mut self, now: Now, input: Input) -> Result<Vec<Effect>, ShareError> {
        Ok(self.engine.step(now, input, &mut self.store)?)
    }

    fn link_up(&mut self, now: Now, link: Link) -> Result<Vec<Effect>, ShareError> {
        let peer = link.peer().clone();
        let mut effects = Vec::new();
        if self.lanes.contains_key(&peer) {
            effects = self.link_down(now, peer.clone())?;
        }
        let start =
            |lane| LaneThread::start(self.site.clone(), link.clone(), self.outlines.clone(), lane);
        let lanes = Lanes {
            link: link.id(),
            opening: None,
            live: start(Lane::Live).map_err(system)?,
            bulk: start(Lane::Bulk).map_err(system)?,
        };
        self.lanes.insert(peer.clone(), lanes);
        self.past.link_up(&peer);
        self.site.set_link(&peer, Some(link));
        effects.extend(self.step(now, Input::PeerUp(peer))?);
        Ok(effects)
    }

    fn link_down(&mut self, now: Now, peer: NodeName) -> Result<Vec<Effect>, ShareError> {
        // Their threads end by themselves: the link takes nothing more.
        self.lanes.remove(&peer);
        self.past.link_down(&peer, self.store.head()?);
        self.site.set_link(&peer, None);
        self.to_fetcher(ToFetcher::PeerDown(peer.clone()));
        self.desk.peer_down(&peer);
        self.step(now, Input::PeerDown(peer))
    }

    /// Takes what a peer said to the one whose business it is.
    fn heard(
        &mut self,
        now: Now,
        peer: NodeName,
        lane: Lane,
        message: ShareMessage,
    ) -> Result<Vec<Effect>, ShareError> {
        match message {
            ShareMessage::GetOutline { .. } | ShareMessage::GetBlocks { .. } => {
                self.push(&peer, lane, Outgoing::Answer(message));
            }
            ShareMessage::Outline { .. }
            | ShareMessage::Block { .. }
            | ShareMessage::Gone { .. } => {
                self.to_fetcher(ToFetcher::Heard(peer, message));
            }
            ShareMessage::GetDigests { id, .. } if id >= ONE_NAME => {
                self.push(&peer, Lane::Live, Outgoing::Answer(message));
            }
            ShareMessage::GetDigests { .. } | ShareMessage::Digests { .. } => {
                self.desk.take(peer, message);
            }
            // An epoch is random: two nodes have one only if their indexes are copies.
            ShareMessage::Open(open) if open.epoch == self.store.epoch() => {
                return Err(ShareError::Cloned(peer));
            }
            ShareMessage::Open(open) if self.past.is_behind(&peer, &open, &self.store)? => {
                return Err(ShareError::RanAhead(peer));
            }
            ShareMessage::Open(ref open) => {
                // A share that was started again there knows nothing of what it was asked before.
                let lanes = self.lanes.get_mut(&peer);
                let heard = lanes.and_then(|lanes| lanes.opening.replace(open.number));
                if heard.is_some_and(|heard| heard != open.number) {
                    self.to_fetcher(ToFetcher::PeerDown(peer.clone()));
                }
                return self.step(now, Input::Message { peer, lane, message });
            }
            ShareMessage::Announce(_) | ShareMessage::CaughtUp { .. } | ShareMessage::Acks(_) => {
                return self.step(now, Input::Message { peer, lane, message });
            }
        }
        Ok(Vec::new())
    }

    /// Takes the watcher's word; returns what of it is the engine's business.
    fn watched(&mut self, now: Now, event: watch::Event) -> Result<Option<Input>, ShareError> {
        let share = &self.site.name;
        match event {
            watch::Event::Dirty { path, hint, at, came_along } => {
                let noticed = if came_along { Noticed::Along(at) } else { Noticed::Watcher(at) };
                return Ok(Some(Input::Dirty { path, hint, noticed }));
            }
            watch::Event::Scan { dir, why } => {
                if why == watch::Why::Overflow {
                    self.common
                        .metrics
                        .watch_overflows
                        .with(metrics::Share::new(share.clone()))
                        .inc();
                    tracing::warn!(%share, "more changed at once than could be heard: scanning all of it");
                }
                return Ok(Some(Input::Scan(dir)));
            }
            watch::Event::Watched { dir } => return Ok(Some(Input::Watched(dir))),
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

    fn problem(&self, now: Now, kind: &'static str, path: Option<SharePath>, message: String) {
        let share = Some(self.site.name.clone());
        self.common.events.report(now, Problem { kind, share, peer: None, path, message });
    }

    fn rescan(&mut self, now: Now) -> Result<Vec<Effect>, ShareError> {
        self.scan_due = now.mono + self.scan_interval;
        self.step(now, Input::Scan(SharePath::root()))
    }

    fn hand_out(&mut self, now: Now, effects: Vec<Effect>) {
        let (mut live, mut bulk) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Look { path, installed, hint, lane } => {
                    self.look(path, installed, hint, lane);
                }
                Effect::Apply { op, lane: Lane::Live } => live.push(op),
                Effect::Apply { op, lane: Lane::Bulk } => bulk.push(op),
                Effect::Fetch { path, file, peer, lane, seq, basis } => {
                    self.to_fetcher(ToFetcher::Start(Want { path, file, peer, lane, seq, basis }));
                }
                Effect::Announce(announce) => {
                    let (peer, lane) = (announce.peer.clone(), announce.lane);
                    self.push(&peer, lane, Outgoing::Announce(announce));
                }
                Effect::Send { peer, lane, message } => {
                    self.push(&peer, lane, Outgoing::Say(message));
                }
                Effect::Scan(dir) => self.scanner.scan(dir),
                Effect::Settle(left) => self.scanner.settle(left),
                Effect::Event(event) => {
                    self.common.metrics.record(&self.site.name, &event);
                    self.common.events.record(now, &self.site.name, &event);
                }
            }
        }
        self.live.push(live, &self.site, &self.common.pool);
        self.bulk.push(bulk, &self.site, &self.common.pool);
    }

    fn look(&self, path: SharePath, installed: Option<Installed>, hint: Hint, lane: Lane) {
        let site = self.site.clone();
        self.common.pool.run(lane, move || {
            if site.is_stopping() {
                return;
            }
            let wall_ns = || site.clock.now().wall_ns;
            let installed = installed.as_ref();
            let (tree, synced, settle) = (&*site.tree, &site.synced, site.settle());
            let look = observe::look(tree, synced, &path, installed, hint, settle, wall_ns);
            site.input(lane, Input::Looked { path, look });
        });
    }

    /// Queues something for a peer; dropped if its link is down.
    fn push(&self, peer: &NodeName, lane: Lane, what: Outgoing) {
        if let Some(lanes) = self.lanes.get(peer) {
            match lane {
                Lane::Live => lanes.live.push(what),
                Lane::Bulk => lanes.bulk.push(what),
            }
        }
    }

    fn to_fetcher(&self, input: ToFetcher) {
        if self.fetcher.send(input).is_err() {
            tracing::error!(share = %self.site.name, "the fetcher has ended");
        }
    }
}
