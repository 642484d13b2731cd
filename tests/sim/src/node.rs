//! One node: the production engine, index, observe, apply and transfer code, and the little shell
//! that runs the engine's effects, in the order that ARCHITECTURE.md lays down for the daemon's.
//!
//! **Invariant:** effects are handed out only after the commit of what they rest on; a stopped
//! process leaves nothing but its disk and what its index committed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use recsync::engine::{
    Action, Announce, Effect, Engine, Event, Hint, Input, Noticed, Now, Op, Outcome, Settings,
};
use recsync::index::{Index, IndexError, IndexRead, Installed, Intent, Memory, TrashKey};
use recsync::observe::ScanItem;
use recsync::transfer::FetchOutput;
use recsync::trash::{Returned, Seen};
use recsync::tree::Kind;
use recsync::{apply, observe, transfer, trash};
use recsync_proto::message::{Announcement, Bytes, Lane, ShareMessage};
use recsync_proto::{Dot, Epoch, NodeName, Seq, SharePath};

use crate::disk::{Disk, SimTree, find, lock};
use crate::invariants::{self, Removals};
use crate::machine::{Machine, SharedChronicle};
use crate::rng::Rng;
use crate::rows::{self, Rows};
use crate::story::words;
use crate::watcher::{Report, Watcher};

/// The share's settle time (contract: `settle`).
pub const SETTLE: Duration = Duration::from_millis(20);
/// Operations that one worker takes at once.
const BATCH_MAX: u64 = 32;
/// Inputs that one turn of the share's loop takes.
const INPUTS_MAX: usize = 256;

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its machine and what is on its disk.
    pub disk: Arc<Mutex<Disk<Machine>>>,
    /// Its index: what is committed survives everything.
    pub index: Memory,
    /// The index was just created.
    pub fresh: bool,
    /// The machine lost power, and the files have not all been looked at since.
    pub in_doubt: bool,
    /// The process, while it runs.
    pub life: Option<Life>,
    /// How often it was started: what belongs to an earlier life is void.
    pub lives: u64,
    /// How often which rule decided.
    pub rows: Rows,
    settings: Settings,
    /// A copy of the index that was made once.
    copy: Option<Memory>,
    chronicle: SharedChronicle,
    rng: Rng,
}

/// A running process.
#[derive(Debug)]
pub struct Life {
    /// Its view of the disk.
    pub tree: SimTree<Machine>,
    /// The share's engine.
    pub engine: Engine,
    /// Its watches.
    pub watcher: Watcher,
    /// What waits for the share's loop.
    pub inputs: VecDeque<Input>,
    /// What waits for a worker.
    pub tasks: Vec<Task>,
    lanes: BTreeMap<(NodeName, Lane), VecDeque<Outgoing>>,
    /// The number of the opening that was heard last on each link.
    openings: BTreeMap<NodeName, u64>,
    scans: BTreeSet<SharePath>,
    /// What could not be settled by recovery, or by an operation.
    unsettled: Vec<Intent>,
    /// Operations under way that delete a file, and those that were done.
    removing: BTreeSet<u64>,
    removals: Removals,
    /// Until when events of a path are ignored, where that bug is on.
    muted: BTreeMap<SharePath, Duration>,
    fetcher: transfer::Fetcher<SimTree<Machine>>,
    outlines: transfer::Outlines,
    synced: observe::Synced,
}

/// Work for one of the process's threads.
#[derive(Debug)]
pub enum Task {
    /// Look at a path.
    Look(SharePath, Option<Installed>, Hint),
    /// Change the tree, with some of what else waits for that.
    Apply(Op),
    /// Send what comes next on a lane.
    Lane(NodeName, Lane),
    /// Compare a directory that waits for it with the index.
    Scan,
    /// Look for blocks of a large file that are on this disk already.
    Fetch,
    /// Read what the kernel has queued.
    Watch,
}

/// What waits for its turn on a lane.
#[derive(Debug)]
enum Outgoing {
    /// A record, with a small file's bytes.
    Announce(Box<Announce>),
    /// A message as it is.
    Say(ShareMessage),
    /// The answer to a peer's question for bytes.
    Answer(ShareMessage),
}

/// What a node wants of the world.
#[derive(Debug, Default)]
pub struct Wants {
    /// Messages to be sent.
    pub sends: Vec<(NodeName, Lane, ShareMessage)>,
    /// Answers of a thread, to arrive together and in this order.
    pub answers: Vec<Input>,
    /// What was found wrong.
    pub wrongs: Vec<String>,
}

impl Node {
    /// Returns a node that is not running yet, with an empty index.
    pub fn new(
        settings: Settings,
        disk: Disk<Machine>,
        chronicle: SharedChronicle,
        mut rng: Rng,
    ) -> Self {
        Node {
            name: settings.node.clone(),
            disk: Arc::new(Mutex::new(disk)),
            index: Memory::new(Epoch(rng.next())),
            fresh: true,
            in_doubt: false,
            life: None,
            lives: 0,
            rows: Rows::default(),
            settings,
            copy: None,
            chronicle,
            rng,
        }
    }

    /// Returns the machine and its disk.
    pub fn disk(&self) -> MutexGuard<'_, Disk<Machine>> {
        lock(&self.disk)
    }

    /// Returns the machine's own time in simulated nanoseconds, brought up to the world's.
    pub fn sync_time(&self, world_ns: u64) -> u64 {
        let machine = &mut self.disk().meanwhile;
        machine.now_ns = machine.now_ns.max(world_ns);
        machine.now_ns
    }

    fn now(&self) -> Now {
        self.disk().meanwhile.now()
    }

    /// Tells something in the node's name.
    pub fn tell(&self, what: std::fmt::Arguments<'_>) {
        let now_ns = self.disk().meanwhile.now_ns;
        lock(&self.chronicle).story.tell(now_ns, self.name.as_str(), what);
    }

    /// Empties the index: its next life begins with another epoch.
    pub fn lose_index(&mut self) {
        self.index = Memory::new(Epoch(self.rng.next()));
        self.fresh = true;
    }

    /// Copies what the index has committed.
    pub fn copy_index(&mut self) {
        self.copy = Some(self.index.clone());
    }

    /// Puts the index back to its copy, if there is one. The daemon notices that by its witness
    /// (`daemon/witness.rs`), and the index starts over.
    pub fn restore_index(&mut self) {
        match self.copy.take() {
            Some(copy) if recsync::mutant!(ReuseSeq) => self.index = copy,
            Some(_) => self.lose_index(),
            None => {}
        }
    }

    /// True if deletes wait for the operator.
    pub fn holds_deletes(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.engine.held().iter().any(Option::is_some))
    }

    /// Starts the process: recovery, engine, watches, scan. False if it does not come up, because
    /// it was stopped or could not do without what failed.
    pub fn start(&mut self, watch_room: usize) -> bool {
        self.lives += 1;
        {
            let machine = &mut self.disk().meanwhile;
            machine.booted_ns = machine.now_ns;
        }
        let tree = SimTree::boot(&self.disk);
        self.tell(format_args!("starts{}", if self.fresh { " with an empty index" } else { "" }));
        self.start_share(tree, watch_room).unwrap_or_else(|why| {
            self.tell(format_args!("does not start: {why}"));
            false
        })
    }

    fn start_share(&mut self, tree: SimTree<Machine>, watch_room: usize) -> Result<bool, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let wall_ns = self.now().wall_ns;
        let day = recsync::engine::conflict::utc_day(wall_ns);
        let recovered = apply::recover(&tree, &self.index, wall_ns, &day, recovered_name)
            .map_err(|error| words(&error))?;
        for write in recovered.writes() {
            self.index.write(&write).map_err(|error| words(&error))?;
        }
        self.index.commit().map_err(|error| words(&error))?;
        self.tell(format_args!("recovered: {recovered:?}"));
        let settings = self.settings.clone();
        let first_op = u64::try_from(self.now().wall_ns).expect("after 1970");
        let mut engine = Engine::new(settings, &self.index, first_op, self.fresh)
            .map_err(|error| words(&error))?;
        if self.in_doubt {
            engine.doubt_files();
        }
        let unsettled = recovered.unsettled.clone();
        engine.take_exchanged(recovered.exchanged, recovered.perhaps, recovered.unsettled);
        let (watcher, reports) = Watcher::start(&tree, watch_room);
        let mut life = Life {
            tree,
            engine,
            watcher,
            inputs: VecDeque::new(),
            tasks: Vec::new(),
            lanes: BTreeMap::new(),
            openings: BTreeMap::new(),
            scans: BTreeSet::new(),
            unsettled,
            removing: BTreeSet::new(),
            removals: Removals::default(),
            muted: BTreeMap::new(),
            fetcher: transfer::Fetcher::new(),
            outlines: transfer::Outlines::default(),
            synced: observe::Synced::default(),
        };
        for path in recovered.dirty {
            let (hint, noticed) = (Hint::Written, Noticed::Scan);
            life.inputs.push_back(Input::Dirty { path, hint, noticed });
        }
        life.report(reports, Duration::ZERO);
        if life.tree.is_stopped() {
            return Ok(false);
        }
        self.life = Some(life);
        Ok(true)
    }

    /// Drops the share's engine and begins anew from the index, as after an error of the index.
    pub fn restart_share(&mut self, watch_room: usize) -> bool {
        let Some(life) = self.life.take() else { return false };
        self.lives += 1;
        self.index.crash();
        self.tell(format_args!("restarts the share"));
        let Life { tree, .. } = life;
        tree.disk().fs.unwatch_all();
        self.start_share(tree, watch_room).unwrap_or_else(|why| {
            self.tell(format_args!("does not start: {why}"));
            false
        })
    }

    /// Forgets the process that was stopped. False if none was running.
    pub fn bury(&mut self) -> bool {
        self.index.crash();
        self.life.take().is_some()
    }

    /// Looks at what has lain in the trash for so long and is not as it was displaced, as the daemon's keeper looks at
    /// everything there. True if something comes back.
    pub fn look_at_trash(&mut self, age: Duration) -> bool {
        let now = self.now();
        let Some(life) = &mut self.life else { return false };
        let dot = Dot { epoch: self.index.epoch(), seq: Seq(now.wall_ns.unsigned_abs()) };
        let mut trashed = self.index.trash_after(TrashKey::FIRST, usize::MAX).unwrap_or_default();
        let until = now.wall_ns - i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        trashed.retain(|one| {
            let fs = &lock(&self.disk).fs;
            let found = find(fs, &one.place());
            one.since_ns <= until && found.is_ok_and(|id| !one.stat.same_bytes(&fs.stat(id)))
        });
        let mut any = false;
        for one in trashed {
            if trash::look(&life.tree, &one) != Seen::Changed {
                continue;
            }
            let write = match trash::bring_back(&life.tree, &one, &self.name, dot) {
                Returned::Stays(write) => write,
                Returned::Back(path, write) => {
                    any = true;
                    let (hint, noticed) = (Hint::Created, Noticed::Watcher(now.mono));
                    life.inputs.push_back(Input::Dirty { path, hint, noticed });
                    write
                }
                Returned::Not(_) => continue,
            };
            self.index.write(&write).expect("a row of the trash can be written");
        }
        self.index.commit().expect("the simulator's index does not fail here");
        any
    }

    /// Takes what waits, commits, and hands out what follows.
    ///
    /// # Errors
    /// If the index fails: the share is to be started again.
    pub fn turn(&mut self) -> Result<Wants, IndexError> {
        let now = self.now();
        let mut wants = Wants::default();
        let Some(life) = &mut self.life else { return Ok(wants) };
        let told = lock(&self.chronicle).story.tells_everything();
        if recsync::mutant!(CommitLate) {
            self.index.commit()?;
        }
        let mut effects = Vec::new();
        let count = life.inputs.len().min(INPUTS_MAX);
        let tick = (count == 0).then_some(Input::Tick);
        let inputs: Vec<Input> = life.inputs.drain(..count).chain(tick).collect();
        for input in inputs {
            if told && input != Input::Tick {
                let now_ns = lock(&self.disk).meanwhile.now_ns;
                let story = &mut lock(&self.chronicle).story;
                story.aside(now_ns, self.name.as_str(), format_args!("-> {input:?}"));
            }
            self.rows.before(&self.index, &input);
            let removed = life.is_removal(&input);
            let paths = rows::told(&input);
            let step = life.engine.step(now, input, &mut self.index)?;
            self.rows.after(&self.index, &paths, &step);
            if removed {
                let (files, _) = self.index.installed_files()?;
                let now_ns = lock(&self.disk).meanwhile.now_ns;
                let limit = self.settings.max_delete;
                wants.wrongs.extend(life.removals.one_more(now_ns, files, limit));
            }
            effects.extend(step);
        }
        let pumped = life.engine.pump(now, &mut self.index)?;
        self.rows.after(&self.index, &[], &pumped);
        effects.extend(pumped);
        self.in_doubt &= life.engine.doubts_files();
        if !recsync::mutant!(CommitLate) {
            self.index.commit()?;
        }
        if !invariants::is_bounded(life.engine.load()) {
            wants.wrongs.push(format!("unbounded: {:?}", life.engine.load()));
        }
        for effect in effects {
            if told {
                let now_ns = lock(&self.disk).meanwhile.now_ns;
                let story = &mut lock(&self.chronicle).story;
                story.aside(now_ns, self.name.as_str(), format_args!("<- {effect:?}"));
            }
            if let Effect::Event(Event::GivenUp { path, .. }) = &effect {
                lock(&self.chronicle).oracle.given_up(path.as_bytes());
            }
            if let Effect::Event(event) = &effect
                && lock(&self.chronicle).story.is_told()
                && let Some(words) = words(event)
            {
                let now_ns = lock(&self.disk).meanwhile.now_ns;
                let story = &mut lock(&self.chronicle).story;
                story.note(now_ns, self.name.as_str(), format_args!("{words}"));
            }
            life.hand_out(effect, now.mono, &mut wants);
        }
        Ok(wants)
    }

    /// Does a task that waits, or a batch of operations; which one is chance.
    pub fn work(&mut self) -> Wants {
        let mut wants = Wants::default();
        let now = self.now();
        let Some(life) = &mut self.life else { return wants };
        if life.tasks.is_empty() {
            return wants;
        }
        let task = life.tasks.swap_remove(self.rng.index(life.tasks.len()));
        match task {
            Task::Look(path, installed, hint) => {
                let disk = &self.disk;
                let wall = || lock(disk).meanwhile.wall_ns();
                let installed = installed.as_ref();
                let (tree, synced) = (&life.tree, &life.synced);
                let look = observe::look(tree, synced, &path, installed, hint, SETTLE, wall);
                if let Some(bytes) =
                    invariants::overlooked(&lock(disk).fs, &path, installed, hint, &look)
                {
                    let oracle = &mut lock(&self.chronicle).oracle;
                    oracle.overlooked(self.name.as_str(), path.as_bytes(), bytes);
                }
                wants.answers.push(Input::Looked { path, look });
            }
            Task::Apply(op) => {
                let ops = life.batch(op, &mut self.rng);
                for (id, outcome) in apply::run(&life.tree, ops) {
                    wants.answers.push(Input::Applied { id, outcome });
                }
            }
            Task::Lane(peer, lane) => {
                for _ in 0..self.rng.between(1, 4) {
                    life.send_next(&peer, lane, &self.index, &mut wants);
                }
                life.ensure_lane(&peer, lane);
            }
            Task::Scan => life.scan_next(&self.index, now.wall_ns, &mut wants),
            Task::Fetch => {
                let mut out = Vec::new();
                life.fetcher.work(&life.tree, &mut out);
                life.fetched(out, &mut wants);
            }
            Task::Watch => {
                let reports = life.watcher.read(&life.tree);
                life.report(reports, now.mono);
            }
        }
        wants
    }

    /// Takes a message of a peer.
    pub fn hear(&mut self, peer: &NodeName, lane: Lane, message: ShareMessage) -> Wants {
        let mut wants = Wants::default();
        let Some(life) = &mut self.life else { return wants };
        match message {
            ShareMessage::GetOutline { .. } | ShareMessage::GetBlocks { .. } => {
                life.queue(peer, lane, Outgoing::Answer(message));
            }
            ShareMessage::Outline { .. }
            | ShareMessage::Block { .. }
            | ShareMessage::Gone { .. } => {
                let mut out = Vec::new();
                life.fetcher.message(&life.tree, peer, message, &mut out);
                life.fetched(out, &mut wants);
            }
            ShareMessage::GetDigests { .. } | ShareMessage::Digests { .. } => {}
            ShareMessage::Open(ref open) => {
                // A share that was started again there knows nothing of what it was asked before.
                let heard = life.openings.insert(peer.clone(), open.number);
                if heard.is_some_and(|heard| heard != open.number) {
                    life.lose_questions(peer, &mut wants);
                }
                life.inputs.push_back(Input::Message { peer: peer.clone(), lane, message });
            }
            ShareMessage::Announce(_) | ShareMessage::CaughtUp { .. } | ShareMessage::Acks(_) => {
                life.inputs.push_back(Input::Message { peer: peer.clone(), lane, message });
            }
        }
        wants
    }

    /// True for a question to which an answer is awaited.
    pub fn asks_for_bytes(message: &ShareMessage) -> bool {
        matches!(message, ShareMessage::GetOutline { .. } | ShareMessage::GetBlocks { .. })
    }

    /// Gives up what is fetched from a peer: a question could not be sent.
    pub fn unasked(&mut self, peer: &NodeName) -> Wants {
        let mut wants = Wants::default();
        if let Some(life) = &mut self.life {
            life.lose_questions(peer, &mut wants);
        }
        wants
    }

    /// Learns that a link is up or down.
    pub fn link(&mut self, peer: &NodeName, up: bool) -> Wants {
        let mut wants = Wants::default();
        let Some(life) = &mut self.life else { return wants };
        if up {
            life.inputs.push_back(Input::PeerUp(peer.clone()));
        } else {
            life.inputs.push_back(Input::PeerDown(peer.clone()));
            life.lanes.retain(|(to, _), _| to != peer);
            life.openings.remove(peer);
            life.lose_questions(peer, &mut wants);
        }
        wants
    }
}

impl Life {
    fn hand_out(&mut self, effect: Effect, now: Duration, wants: &mut Wants) {
        match effect {
            Effect::Look { path, installed, hint, .. } => {
                self.tasks.push(Task::Look(path, installed, hint));
            }
            Effect::Apply { op, .. } => {
                let is_file = op.expect.is_some_and(|expect| expect.kind == Kind::File);
                if op.action == Action::Remove && is_file {
                    self.removing.insert(op.id);
                }
                if recsync::mutant!(MuteEcho) {
                    let until = Duration::from_secs(1) + now;
                    self.muted.insert(op.path.clone(), until);
                }
                self.tasks.push(Task::Apply(op));
            }
            Effect::Fetch { path, file, peer, lane, seq, basis } => {
                let want = transfer::Want { path, file, peer, lane, seq, basis };
                let mut out = Vec::new();
                self.fetcher.start(&self.tree, want, &mut out);
                self.fetched(out, wants);
            }
            Effect::Announce(announce) => {
                let (peer, lane) = (announce.peer.clone(), announce.lane);
                self.queue(&peer, lane, Outgoing::Announce(announce));
            }
            Effect::Send { peer, lane, message } => {
                self.queue(&peer, lane, Outgoing::Say(message));
            }
            Effect::Scan(dir) => self.scan(dir),
            Effect::Settle(left) => self.unsettled.push(left),
            Effect::Event(_) => {}
        }
    }

    /// True if an input says that a file was deleted for a peer.
    fn is_removal(&mut self, input: &Input) -> bool {
        match input {
            Input::Decide { confirm } => {
                self.removals.decided(*confirm);
                false
            }
            Input::Applied { id, outcome } => {
                self.removing.remove(id) && matches!(outcome, Outcome::Done(_))
            }
            _ => false,
        }
    }

    /// What a peer was asked for is not coming.
    fn lose_questions(&mut self, peer: &NodeName, wants: &mut Wants) {
        let mut out = Vec::new();
        self.fetcher.peer_down(&self.tree, peer, &mut out);
        self.fetched(out, wants);
    }

    fn fetched(&mut self, out: Vec<FetchOutput>, wants: &mut Wants) {
        for output in out {
            match output {
                FetchOutput::Send { peer, lane, message } => {
                    wants.sends.push((peer, lane, message));
                }
                FetchOutput::Fetched { path, hash, source, .. } => {
                    wants.answers.push(Input::Fetched {
                        path,
                        hash,
                        source: source.map_err(Into::into),
                    });
                }
            }
        }
        if self.fetcher.has_work() && !self.tasks.iter().any(|task| matches!(task, Task::Fetch)) {
            self.tasks.push(Task::Fetch);
        }
    }

    fn queue(&mut self, peer: &NodeName, lane: Lane, what: Outgoing) {
        self.lanes.entry((peer.clone(), lane)).or_default().push_back(what);
        self.ensure_lane(peer, lane);
    }

    /// A lane with something to send has its thread at work, one.
    fn ensure_lane(&mut self, peer: &NodeName, lane: Lane) {
        let waits = self.lanes.get(&(peer.clone(), lane)).is_some_and(|queue| !queue.is_empty());
        let works = |task: &Task| matches!(task, Task::Lane(to, on) if to == peer && *on == lane);
        if waits && !self.tasks.iter().any(works) {
            self.tasks.push(Task::Lane(peer.clone(), lane));
        }
    }

    fn send_next(&mut self, peer: &NodeName, lane: Lane, index: &Memory, wants: &mut Wants) {
        let queue = self.lanes.get_mut(&(peer.clone(), lane));
        let mut say = |message| wants.sends.push((peer.clone(), lane, message));
        // A file that is not as the index says is looked at again.
        let mut look_again = |path: SharePath| {
            let noticed = Noticed::Scan;
            wants.answers.push(Input::Dirty { path, hint: Hint::Written, noticed });
        };
        match queue.and_then(VecDeque::pop_front) {
            None => {}
            Some(Outgoing::Say(message)) => say(message),
            Some(Outgoing::Answer(question)) => {
                let mut send = |answer| {
                    say(answer);
                    ControlFlow::Continue(())
                };
                let gone = transfer::serve(&self.tree, index, &self.outlines, &question, &mut send);
                if let Some(path) = gone {
                    look_again(path);
                }
            }
            Some(Outgoing::Announce(announce)) => {
                let Announce { seq, path, record, inline, moved_from, .. } = *announce;
                let inline = inline.and_then(|installed| {
                    // If it has changed since, the record goes alone.
                    let bytes = transfer::read_inline(&self.tree, &path, &installed);
                    if bytes.is_none() {
                        look_again(path.clone());
                    }
                    bytes
                });
                let announcement =
                    Announcement { seq, path, record, inline: inline.map(Bytes), moved_from };
                say(ShareMessage::Announce(vec![announcement]));
            }
        }
    }

    /// Asks for a scan; one of the same directory that waits will do.
    fn scan(&mut self, dir: SharePath) {
        self.scans.insert(dir);
        if !self.tasks.iter().any(|task| matches!(task, Task::Scan)) {
            self.tasks.push(Task::Scan);
        }
    }

    fn scan_next(&mut self, index: &Memory, wall_ns: i64, wants: &mut Wants) {
        let Some(dir) = self.scans.pop_first() else { return };
        self.scans.retain(|other| !other.is_below(&dir));
        if !self.scans.is_empty() {
            self.tasks.push(Task::Scan);
        }
        let day = recsync::engine::conflict::utc_day(wall_ns);
        let recovered =
            apply::settle_again(&self.tree, &mut self.unsettled, &dir, &day, recovered_name);
        wants.answers.extend(recovered.inputs());
        let mut emit = |item: ScanItem| {
            let ScanItem { path, hint } = item;
            wants.answers.push(Input::Dirty { path, hint, noticed: Noticed::Scan });
            ControlFlow::Continue(())
        };
        let report = observe::scan(&self.tree, index, &dir, &mut emit);
        let again = report.as_ref().map_or_else(|_| vec![dir.clone()], |report| report.again(&dir));
        wants.answers.extend(again.into_iter().map(Input::Unreadable));
        if report.is_ok() {
            wants.answers.push(Input::Scanned(dir));
        }
    }

    /// Takes some of the other operations that wait along with this one, in any order.
    fn batch(&mut self, op: Op, rng: &mut Rng) -> Vec<Op> {
        let mut ops = vec![op];
        let most = rng.between(1, BATCH_MAX) as usize;
        while ops.len() < most {
            let others = self.tasks.iter().enumerate();
            let waiting: Vec<usize> = others
                .filter(|(_, task)| matches!(task, Task::Apply(_)))
                .map(|(index, _)| index)
                .collect();
            if waiting.is_empty() {
                break;
            }
            if let Task::Apply(op) = self.tasks.swap_remove(*rng.pick(&waiting)) {
                ops.push(op);
            }
        }
        ops
    }

    fn report(&mut self, reports: Vec<Report>, at: Duration) {
        for report in reports {
            let (path, hint, noticed) = match report {
                Report::Dirty(path, hint) => (path, hint, Noticed::Watcher(at)),
                Report::Along(path, hint) => (path, hint, Noticed::Along(at)),
                Report::Watched(dir) => {
                    self.inputs.push_back(Input::Watched(dir));
                    continue;
                }
                Report::Scan(dir) => {
                    self.inputs.push_back(Input::Scan(dir));
                    continue;
                }
            };
            if self.muted.get(&path).is_none_or(|&until| at >= until) {
                self.inputs.push_back(Input::Dirty { path, hint, noticed });
            }
        }
    }
}

/// Returns how recovery names what it keeps, if the name that it had is taken.
fn recovered_name(path: &SharePath) -> SharePath {
    let name = [path.name(), b".recovered"].concat();
    path.parent().join(&name).expect("short names stay legal")
}
