//! The world: nodes, links and time, one event after the other, until everything is at rest.
//! **Invariant:** a history is played by one thread in one order that follows from its seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recsync::engine::{DeletePolicy, Input, Load, OwnerPolicy, Settings};
use recsync::index::IndexRead;
use recsync_proto::message::{Lane, ShareMessage};
use recsync_proto::{Content, NodeName, Seq, SharePath};

use crate::disk::{Disk, lock};
use crate::fs::Fs;
use crate::history::{Blow, History};
use crate::invariants::{Said, acked};
use crate::machine::{Chronicle, Faults, Machine, SharedChronicle};
use crate::net::{Net, Sending, Way};
use crate::node::{Node, SETTLE, Task, Wants};
use crate::oracle::{Picture, SeenBody, hidden, picture, shown};
use crate::rng::Rng;
use crate::rows::Rows;
use crate::story::{Story, Telling};
use crate::user::{TRUNCATE, Users};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// A history that has not come to rest so long after it was healed never will: the longest delay
/// of a retry is an hour.
const REST_MAX_NS: u64 = 4 * 3_600 * SECOND;
/// Most events of one history.
const STEPS_MAX: u64 = 400_000;
/// What comes into the trash is looked at again so soon.
const TRASH_LOOK: Duration = Duration::from_secs(1);
/// How often operators decide at the end before it counts as endless.
const DECISIONS_MAX: usize = 20;

/// How a history ended.
#[derive(Debug, Default)]
pub struct End {
    /// What was found wrong; nothing if all is well.
    pub wrongs: Vec<String>,
    /// Events of the world.
    pub steps: u64,
    /// System calls of the nodes' processes: between any two of them users may act.
    pub calls: u64,
    /// How often which rule decided.
    pub rows: Rows,
    /// Differs where two runs differ.
    pub trace: u64,
    /// What happened, if it was to be told.
    pub story: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Event {
    /// Users of a node act.
    Users(usize),
    /// A share's loop takes its inputs.
    Turn(usize),
    /// A worker of a life takes a task.
    Work(usize, u64),
    /// A thread's answer reaches the loop.
    Answer(usize, u64, Vec<Input>),
    /// A message arrives.
    Arrive(Way),
    /// Someone dials.
    Dial(usize, usize),
    /// An end learns of its connection.
    ComeUp { at: usize, peer: usize, dial: u64 },
    /// An end learns that it is gone.
    GoDown { at: usize, peer: usize },
    /// A process starts.
    Start(usize),
    /// Something happens from outside.
    Blow(Blow),
}

/// What the world keeps of a node beside the node.
#[derive(Debug, Default)]
struct Desk {
    /// When its next turn and its users' next call are scheduled; others are void.
    turn_at: Option<u64>,
    users_at: Option<u64>,
    /// How many workers are on their way to a task.
    workers: usize,
    /// It is to start at a scheduled time.
    starting: bool,
}

/// A cluster and all that happens to it.
#[derive(Debug)]
pub struct World {
    history: History,
    nodes: Vec<Node>,
    desks: Vec<Desk>,
    net: Net,
    agenda: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    now_ns: u64,
    steps: u64,
    healed: bool,
    /// An operator undid deletes: what was deleted came back.
    rejected: bool,
    said: Said,
    rng: Rng,
    chronicle: SharedChronicle,
}

/// Plays a history from its beginning to its judgement.
pub fn play(history: History, telling: Telling) -> End {
    let mut world = World::new(history, telling);
    world.live();
    world.end()
}

fn name(index: usize) -> NodeName {
    NodeName::new(format!("fs{}", index + 1)).expect("a legal name")
}

impl World {
    fn new(history: History, telling: Telling) -> Self {
        let chronicle: SharedChronicle =
            Arc::new(Mutex::new(Chronicle { story: Story::new(telling), ..Chronicle::default() }));
        let count = history.nodes;
        let mut world = World {
            nodes: Vec::new(),
            desks: (0..count).map(|_| Desk::default()).collect(),
            net: Net::default(),
            agenda: BTreeMap::new(),
            scheduled: 0,
            now_ns: 0,
            steps: 0,
            healed: false,
            rejected: false,
            said: Said::default(),
            rng: Rng::stream(history.seed, 2),
            chronicle,
            history,
        };
        for index in 0..count {
            world.nodes.push(world.make_node(index));
            world.schedule(0, Event::Start(index));
        }
        for (at, blow) in world.history.blows.clone() {
            world.schedule(at, Event::Blow(blow));
        }
        world
    }

    fn make_node(&self, index: usize) -> Node {
        let history = &self.history;
        let stream = |label: u64| Rng::stream(history.seed, 10 * (index as u64 + 1) + label);
        let users = Users::new(history.style.clone(), history.deeds[index].clone());
        let chronicle = Arc::clone(&self.chronicle);
        let mut machine = Machine::new(name(index).to_string(), users, stream(0), chronicle);
        machine.faults = history.faults;
        machine.skew_ns = history.skews_ns[index];
        let fs = Fs::new(machine.wall_ns(), history.tick_ns);
        let disk = Disk::new(fs, machine, stream(1));
        let settings = Settings {
            node: name(index),
            settle: SETTLE,
            max_delete: history.max_delete,
            peers: history.peers(index).map(name).collect(),
            owner: OwnerPolicy::Name,
            deletes: DeletePolicy::Propagate,
            ignore: Arc::default(),
        };
        Node::new(settings, disk, Arc::clone(&self.chronicle), stream(2))
    }

    // The course of a history.

    fn live(&mut self) {
        self.run_until(self.history.end_ns);
        self.heal();
        if !self.rest() || !self.decide_all() {
            return;
        }
        if self.look_at_trash() && !self.rest() {
            return;
        }
        self.judge();
        self.check_quiet();
        if self.history.seed.is_multiple_of(2) {
            self.check_restart();
        }
    }

    fn run_until(&mut self, end_ns: u64) {
        while let Some((&(at, _), _)) = self.agenda.first_key_value()
            && at <= end_ns
            && self.steps < STEPS_MAX
        {
            self.step();
        }
        self.now_ns = self.now_ns.max(end_ns);
    }

    /// Ends all faults and lets every user finish.
    fn heal(&mut self) {
        self.healed = true;
        self.tell(format_args!("the world heals"));
        self.agenda.retain(|_, event| !matches!(event, Event::Blow(_)));
        for index in 0..self.nodes.len() {
            self.nodes[index].disk().meanwhile.faults =
                Faults { race: self.history.faults.race, ..Faults::default() };
        }
        for (one, other) in self.history.links.clone() {
            self.net.part(one, other, false);
            if self.net.is_mute(one, other) {
                self.cut(one, other);
            }
            self.schedule(self.now_ns, Event::Dial(one, other));
        }
        while self.nodes.iter().any(|node| node.disk().meanwhile.users.next_at().is_some()) {
            if self.steps >= STEPS_MAX || !self.step() {
                break;
            }
        }
        // `truncate` by path is heard by nobody: the next scan finds it. All else must be noticed
        // without one.
        if self.history.style.weights[TRUNCATE] > 0 {
            self.rescan();
        }
    }

    fn rescan(&mut self) {
        for index in 0..self.nodes.len() {
            if let Some(life) = &mut self.nodes[index].life {
                life.inputs.push_back(Input::Scan(SharePath::root()));
            }
            self.tidy(index);
        }
    }

    /// Has the operators decide on what is held until nothing is. False if that has no end.
    fn decide_all(&mut self) -> bool {
        for _ in 0..DECISIONS_MAX {
            let held: Vec<usize> =
                (0..self.nodes.len()).filter(|node| self.nodes[*node].holds_deletes()).collect();
            if held.is_empty() {
                return true;
            }
            for node in held {
                let confirm = self.rng.chance(500_000);
                self.decide(node, confirm);
            }
            if !self.rest() {
                return false;
            }
        }
        self.wrong(format!("restless: deletes are held after {DECISIONS_MAX} decisions"));
        false
    }

    /// The nodes look at what lies in their trash, as they do again and again: what was written to there comes back. True
    /// if anything does.
    fn look_at_trash(&mut self) -> bool {
        let mut any = false;
        for node in 0..self.nodes.len() {
            any |= self.nodes[node].look_at_trash(Duration::ZERO);
            self.tidy(node);
        }
        any
    }

    fn decide(&mut self, node: usize, confirm: bool) {
        if !self.nodes[node].holds_deletes() {
            return;
        }
        let word = if confirm { "lets the held deletes go" } else { "undoes the held deletes" };
        self.nodes[node].tell(format_args!("the operator {word}"));
        self.rejected |= !confirm;
        if let Some(life) = &mut self.nodes[node].life {
            life.inputs.push_back(Input::Decide { confirm });
        }
        self.tidy(node);
    }

    /// Goes on until nothing is left to be done, or for long if the operators have deletes to decide
    /// on: what hangs on those is tried again until then. False if neither happens.
    fn rest(&mut self) -> bool {
        let latest = self.now_ns + REST_MAX_NS;
        while !self.is_at_rest() {
            if self.now_ns > latest && self.nodes.iter().any(Node::holds_deletes) {
                return true;
            }
            if self.steps >= STEPS_MAX || self.now_ns > latest || !self.step() {
                let loads: Vec<String> = self.nodes.iter().map(load).collect();
                let scheduled = self.agenda.len();
                self.wrong(format!(
                    "restless: after {} steps and {} s {scheduled} events wait; {}",
                    self.steps,
                    self.now_ns / SECOND,
                    loads.join(", ")
                ));
                return false;
            }
        }
        true
    }

    fn is_at_rest(&self) -> bool {
        let idle = |node: &Node| {
            node.life.as_ref().is_some_and(|life| {
                life.inputs.is_empty()
                    && life.tasks.is_empty()
                    && life.engine.load() == Load::default()
                    && !life.engine.wants_pump()
            })
        };
        let linked = |&(one, other): &(usize, usize)| {
            self.net.is_up(one, other) && self.net.is_up(other, one)
        };
        let timer = |event: &Event| matches!(event, Event::Turn(_) | Event::Dial(..));
        self.net.is_quiet()
            && self.nodes.iter().all(idle)
            && self.history.links.iter().all(linked)
            && self.agenda.values().all(|event| timer(event) || self.is_void(event))
    }

    fn is_void(&self, event: &Event) -> bool {
        match event {
            Event::Work(node, life) | Event::Answer(node, life, _) => {
                self.nodes[*node].lives != *life || matches!(event, Event::Work(..))
            }
            _ => false,
        }
    }

    /// Does the next thing on the agenda. False if there is none.
    fn step(&mut self) -> bool {
        let Some(((at, _), event)) = self.agenda.pop_first() else { return false };
        self.now_ns = self.now_ns.max(at);
        self.steps += 1;
        match event {
            Event::Users(node) => self.users(node, at),
            Event::Turn(node) => self.turn(node, at),
            Event::Work(node, life) => self.work(node, life),
            Event::Answer(node, life, inputs) => {
                if self.nodes[node].lives == life
                    && let Some(life) = &mut self.nodes[node].life
                {
                    life.inputs.extend(inputs);
                }
                self.tidy(node);
            }
            Event::Arrive(way) => self.arrive(way),
            Event::Dial(one, other) => self.dial(one, other),
            Event::ComeUp { at, peer, dial } => self.come_up(at, peer, dial),
            Event::GoDown { at, peer } => self.go_down(at, peer),
            Event::Start(node) => self.start(node),
            Event::Blow(blow) => self.blow(blow),
        }
        true
    }

    fn schedule(&mut self, at_ns: u64, event: Event) {
        self.scheduled += 1;
        self.agenda.insert((at_ns.max(self.now_ns), self.scheduled), event);
    }

    // A node's own affairs.

    fn users(&mut self, node: usize, at: u64) {
        if self.desks[node].users_at != Some(at) {
            return;
        }
        self.desks[node].users_at = None;
        self.nodes[node].sync_time(self.now_ns);
        {
            let disk = &mut *self.nodes[node].disk();
            disk.meanwhile.run_users(&mut disk.fs);
        }
        self.tidy(node);
    }

    fn turn(&mut self, node: usize, at: u64) {
        if self.desks[node].turn_at != Some(at) {
            return;
        }
        self.desks[node].turn_at = None;
        self.nodes[node].sync_time(self.now_ns);
        match self.nodes[node].turn() {
            // Stopped between the commit and what follows from it.
            Ok(_) if self.strikes(node) => self.nodes[node].disk().kill(),
            Ok(wants) => {
                self.settle(node);
                self.grant(node, wants);
            }
            Err(error) => {
                self.wrong(format!("the index of {} fails: {error}", name(node)));
                self.restart_share(node);
            }
        }
        self.tidy(node);
    }

    /// What the index has noted as installed, users may be expected to know.
    fn settle(&mut self, node: usize) {
        let index = &self.nodes[node].index;
        if !self.nodes[node].in_doubt {
            lock(&self.chronicle).oracle.trust(name(node).as_str());
        }
        lock(&self.chronicle).oracle.settle(name(node).as_str(), |path, hash| {
            let path = SharePath::new(path).ok();
            let entry = path.and_then(|path| index.entry(&path).ok().flatten());
            let content = entry.and_then(|entry| entry.installed).map(|there| there.content);
            matches!(content, Some(Content::File { hash: there, .. }) if there == *hash)
        });
    }

    fn strikes(&mut self, node: usize) -> bool {
        let kill = self.nodes[node].disk().meanwhile.faults.kill;
        self.rng.chance(kill)
    }

    fn work(&mut self, node: usize, life: u64) {
        if self.nodes[node].lives != life {
            return;
        }
        self.desks[node].workers = self.desks[node].workers.saturating_sub(1);
        self.nodes[node].sync_time(self.now_ns);
        let wants = self.nodes[node].work();
        // What a process does after its last call is not seen by anyone.
        if !self.is_stopped(node) {
            self.grant(node, wants);
        }
        self.tidy(node);
    }

    fn is_stopped(&self, node: usize) -> bool {
        self.nodes[node].life.as_ref().is_none_or(|life| life.tree.is_stopped())
    }

    fn grant(&mut self, node: usize, wants: Wants) {
        let now_ns = self.nodes[node].sync_time(self.now_ns);
        let life = self.nodes[node].lives;
        self.check_wants(node, &wants);
        if !wants.answers.is_empty() {
            let at = now_ns + self.rng.delay(self.history.work_ns / 4);
            self.schedule(at, Event::Answer(node, life, wants.answers));
        }
        for (peer, lane, message) in wants.sends {
            let Some(to) = self.nodes.iter().position(|node| node.name == peer) else { continue };
            let way = Way { from: node, to, lane };
            let at = now_ns + self.rng.delay(self.history.link_ns);
            let asks = Node::asks_for_bytes(&message);
            match self.net.send(way, at, message) {
                Sending::Arrives(at) => self.schedule(at, Event::Arrive(way)),
                // A question that could not be sent is answered at once, as in the daemon.
                Sending::NoLink if asks => {
                    let wants = self.nodes[node].unasked(&peer);
                    self.grant(node, wants);
                }
                Sending::Lost | Sending::NoLink => {}
            }
        }
    }

    /// Notices what became of a node and schedules what comes next for it.
    fn tidy(&mut self, node: usize) {
        let now_ns = self.nodes[node].sync_time(self.now_ns);
        let users_at = self.nodes[node].disk().meanwhile.users.next_at();
        if let Some(at) = users_at.map(|at| at.max(self.now_ns))
            && self.desks[node].users_at.is_none_or(|known| known > at)
        {
            self.desks[node].users_at = Some(at);
            self.schedule(at, Event::Users(node));
        }
        if self.nodes[node].life.is_none() {
            return;
        }
        if self.is_stopped(node) {
            return self.died(node);
        }
        let has_notices = self.nodes[node].disk().fs.has_notices();
        let booted_ns = self.nodes[node].disk().meanwhile.booted_ns;
        let Some(life) = &mut self.nodes[node].life else { return };
        let unwatched = life.watcher.is_incomplete();
        if (has_notices || unwatched) && !life.tasks.iter().any(|task| matches!(task, Task::Watch))
        {
            life.tasks.push(Task::Watch);
        }
        let missing = life.tasks.len().saturating_sub(self.desks[node].workers);
        let soon = !life.inputs.is_empty() || life.engine.wants_pump();
        let due = life.engine.next_due().map(|due| booted_ns + due.as_nanos() as u64);
        for _ in 0..missing {
            let at = now_ns + self.rng.delay(self.history.work_ns);
            self.desks[node].workers += 1;
            let life = self.nodes[node].lives;
            self.schedule(at, Event::Work(node, life));
        }
        let at = if soon { Some(now_ns + 1 + self.rng.below(MS / 10)) } else { due };
        if let Some(at) = at.map(|at| at.max(self.now_ns))
            && self.desks[node].turn_at.is_none_or(|known| known > at)
        {
            self.desks[node].turn_at = Some(at);
            self.schedule(at, Event::Turn(node));
        }
    }

    fn died(&mut self, node: usize) {
        self.nodes[node].tell(format_args!("is dead"));
        self.nodes[node].bury();
        self.check_survivors(node);
        self.desks[node].workers = 0;
        self.desks[node].turn_at = None;
        for peer in self.peers(node) {
            self.net.cut(node, peer);
            self.net.go_down(node, peer);
            let at = self.now_ns + self.rng.delay(20 * MS);
            self.schedule(at, Event::GoDown { at: peer, peer: node });
        }
        self.start_later(node);
    }

    fn start_later(&mut self, node: usize) {
        if !std::mem::replace(&mut self.desks[node].starting, true) {
            let at = self.now_ns + self.rng.delay(500 * MS);
            self.schedule(at, Event::Start(node));
        }
    }

    fn start(&mut self, node: usize) {
        self.desks[node].starting = false;
        if self.nodes[node].life.is_some() {
            return;
        }
        self.nodes[node].sync_time(self.now_ns);
        // The power may have failed while the process was not running.
        self.check_survivors(node);
        if self.nodes[node].start(self.history.watch_room) {
            self.dial_all(node);
            self.tidy(node);
        } else {
            self.nodes[node].disk().kill();
            self.nodes[node].bury();
            self.check_survivors(node);
            self.start_later(node);
        }
    }

    fn restart_share(&mut self, node: usize) {
        self.desks[node].workers = 0;
        self.desks[node].turn_at = None;
        if !self.nodes[node].restart_share(self.history.watch_room) {
            self.nodes[node].disk().kill();
            return self.died(node);
        }
        for peer in self.peers(node) {
            if self.net.is_up(node, peer) {
                let wants = self.nodes[node].link(&name(peer), true);
                self.grant(node, wants);
            }
        }
    }

    // Links.

    fn peers(&self, node: usize) -> Vec<usize> {
        self.history.peers(node).collect()
    }

    fn dial_all(&mut self, node: usize) {
        for peer in self.peers(node) {
            let at = self.now_ns + self.rng.delay(5 * MS);
            self.schedule(at, Event::Dial(node.min(peer), node.max(peer)));
        }
    }

    fn dial(&mut self, one: usize, other: usize) {
        if self.is_stopped(one) || self.is_stopped(other) {
            return;
        }
        let Some(dial) = self.net.dial(one, other) else {
            // An end that has not noticed yet that its connection is gone is asked again.
            let gone = !self.net.is_up(one, other) || !self.net.is_up(other, one);
            if gone && !self.agenda.values().any(|event| *event == Event::Dial(one, other)) {
                self.schedule(self.now_ns + SECOND, Event::Dial(one, other));
            }
            return;
        };
        for (at, peer) in [(one, other), (other, one)] {
            let when = self.now_ns + self.rng.delay(self.history.link_ns);
            self.schedule(when, Event::ComeUp { at, peer, dial });
        }
    }

    fn come_up(&mut self, at: usize, peer: usize, dial: u64) {
        if self.is_stopped(at) || !self.net.come_up(at, peer, dial) {
            return;
        }
        self.nodes[at].sync_time(self.now_ns);
        self.nodes[at].tell(format_args!("link to {} is up", name(peer)));
        let wants = self.nodes[at].link(&name(peer), true);
        self.grant(at, wants);
        for lane in [Lane::Live, Lane::Bulk] {
            // What the other end sent while this one was still coming up.
            self.schedule(self.now_ns, Event::Arrive(Way { from: peer, to: at, lane }));
        }
        self.tidy(at);
    }

    fn go_down(&mut self, at: usize, peer: usize) {
        if self.net.go_down(at, peer) && !self.is_stopped(at) {
            self.nodes[at].sync_time(self.now_ns);
            self.nodes[at].tell(format_args!("link to {} is down", name(peer)));
            let wants = self.nodes[at].link(&name(peer), false);
            self.grant(at, wants);
            self.tidy(at);
        }
        let when = self.now_ns + self.rng.delay(50 * MS);
        self.schedule(when, Event::Dial(at.min(peer), at.max(peer)));
    }

    fn cut(&mut self, one: usize, other: usize) {
        if self.net.cut(one, other) {
            self.tell(format_args!("the link between {} and {} is cut", name(one), name(other)));
        }
        for (at, peer) in [(one, other), (other, one)] {
            let when = self.now_ns + self.rng.delay(100 * MS);
            self.schedule(when, Event::GoDown { at, peer });
        }
    }

    fn arrive(&mut self, way: Way) {
        while let Some(message) = self.net.receive(way, self.now_ns) {
            self.nodes[way.to].sync_time(self.now_ns);
            let wants = self.nodes[way.to].hear(&name(way.from), way.lane, message);
            self.grant(way.to, wants);
        }
        self.tidy(way.to);
    }

    // What happens from outside.

    fn blow(&mut self, blow: Blow) {
        self.tell(format_args!("{blow:?}"));
        match blow {
            Blow::Kill(node) => self.nodes[node].disk().kill(),
            Blow::PowerCut(node) => self.nodes[node].disk().cut_power(),
            Blow::Cut(one, other) => self.cut(one, other),
            Blow::Part(one, other) => {
                self.net.part(one, other, true);
                self.cut(one, other);
            }
            Blow::Mend(one, other) => {
                self.net.part(one, other, false);
                self.schedule(self.now_ns, Event::Dial(one, other));
            }
            Blow::SetClock(node, by) => self.nodes[node].disk().meanwhile.skew_ns += by,
            Blow::RestartShare(node) => {
                if !self.is_stopped(node) {
                    self.restart_share(node);
                }
            }
            Blow::Rescan(node) => {
                if let Some(life) = &mut self.nodes[node].life {
                    life.inputs.push_back(Input::Scan(SharePath::root()));
                }
            }
            Blow::Mute(from, to) => self.net.mute(from, to),
            Blow::LoseIndex(node) => {
                self.nodes[node].look_at_trash(TRASH_LOOK);
                self.nodes[node].disk().kill();
                self.nodes[node].lose_index();
            }
            Blow::CopyIndex(node) => self.nodes[node].copy_index(),
            Blow::RestoreIndex(node) => {
                self.nodes[node].look_at_trash(TRASH_LOOK);
                self.nodes[node].disk().kill();
                self.nodes[node].restore_index();
            }
            Blow::Decide(node, confirm) => self.decide(node, confirm),
            Blow::Fill(node) => self.nodes[node].disk().meanwhile.faults.no_space = 1_000_000,
            Blow::Empty(node) => {
                self.nodes[node].disk().meanwhile.faults.no_space = self.history.faults.no_space;
            }
        }
        for node in 0..self.nodes.len() {
            self.tidy(node);
        }
    }

    // Judgement.

    /// What a node is about to say must be true.
    fn check_wants(&mut self, node: usize, wants: &Wants) {
        let mut wrongs = wants.wrongs.clone();
        for (peer, _, message) in &wants.sends {
            match message {
                ShareMessage::Announce(announcements) => {
                    let oracle = &lock(&self.chronicle).oracle;
                    for one in announcements {
                        wrongs.extend(self.said.announced(&self.nodes[node], one, oracle));
                    }
                }
                ShareMessage::Acks(acks) => {
                    let peer = self.nodes.iter().find(|other| other.name == *peer);
                    let Some(peer) = peer else { continue };
                    let checked = acks.iter();
                    wrongs.extend(checked.filter_map(|ack| acked(&self.nodes[node], peer, ack)));
                }
                _ => {}
            }
        }
        for wrong in wrongs {
            self.wrong(wrong);
        }
    }

    /// After a power cut: what the index says was put there by recsync must still be there.
    fn check_survivors(&mut self, node: usize) {
        let Some(cut) = self.nodes[node].disk().meanwhile.cut.take() else { return };
        self.nodes[node].in_doubt = true;
        let mut wrongs = Vec::new();
        for (path, before) in &cut.placed {
            let Ok(path) = recsync_proto::SharePath::new(path.clone()) else { continue };
            let entry = self.nodes[node].index.entry(&path);
            let Ok(Some(entry)) = entry else { continue };
            let Some(installed) = entry.installed else { continue };
            let after = cut.after.get(path.as_bytes()).map(|seen| &seen.what);
            if installed.fingerprint == before.1 && after != Some(&before.0) {
                wrongs.push(format!(
                    "not durable: {} committed that {path} is installed; the power cut left {after:?}",
                    name(node)
                ));
            }
        }
        for wrong in wrongs {
            self.wrong(wrong);
        }
    }

    fn pictures(&self) -> Vec<(String, Picture)> {
        let picture = |node: &Node| (node.name.to_string(), picture(&node.disk().fs));
        self.nodes.iter().map(picture).collect()
    }

    fn judge(&mut self) {
        let pictures = self.pictures();
        let forgets = self.history.forgets() || self.rejected;
        let hidden = self.nodes.iter().flat_map(|node| hidden(node.name.as_str(), &node.disk().fs));
        let hidden = hidden.collect();
        lock(&self.chronicle).oracle.judge(&pictures, &hidden, forgets);
        for (index, (_, picture)) in pictures.iter().enumerate() {
            self.check_index(index, picture);
        }
        // What an operator undid on another node comes back, and so does what one had to keep beside its name.
        let kept_unseen = self.nodes.iter().any(|node| node.disk().meanwhile.kept_unseen);
        if self.history.is_solo() && !self.rejected && !kept_unseen {
            let placed = self.nodes[0].disk().meanwhile.placed;
            if placed > 0 {
                self.wrong(format!(
                    "meddled: only {} has users, and recsync put {placed} objects there",
                    name(0)
                ));
            }
        }
    }

    /// The index says what is on the disk, and owes nobody anything.
    fn check_index(&mut self, node: usize, picture: &Picture) {
        let mut wrongs = Vec::new();
        let index = &self.nodes[node].index;
        for (path, seen) in picture {
            let Ok(path) = recsync_proto::SharePath::new(path.clone()) else { continue };
            let entry = index.entry(&path).ok().flatten().unwrap_or_default();
            let content = entry.installed.map(|installed| installed.content);
            let fits = match (&seen.what, &content) {
                (SeenBody::Dir, Some(Content::Dir)) => true,
                (SeenBody::File(_, len), Some(Content::File { size, .. })) => *len as u64 == *size,
                (SeenBody::Symlink(at), Some(Content::Symlink { target })) => at == target,
                _ => false,
            };
            if !fits {
                wrongs.push(format!("index: {path} is {:?}, installed as {content:?}", seen.what));
            }
        }
        for logged in index.pending(Seq(u64::MAX >> 2), 5).unwrap_or_default() {
            wrongs.push(format!("index: {} is pending: {:?}", logged.path, logged.entry));
        }
        for peer in self.history.peers(node) {
            let backlog = index.backlog(&name(peer)).unwrap_or_default();
            if backlog.files > 0 {
                wrongs.push(format!("index: {} lacks {} records", name(peer), backlog.files));
            }
        }
        for wrong in wrongs {
            let node = name(node);
            self.wrong(format!("{node}: {wrong}"));
        }
    }

    /// A scan of quiet nodes finds nothing and says nothing.
    fn check_quiet(&mut self) {
        let heads = self.heads();
        let sent = self.net.sent;
        self.rescan();
        if !self.rest() {
            return;
        }
        self.run_until(self.now_ns + 30 * SECOND);
        if !self.rest() {
            return;
        }
        let (heads_now, sent_now) = (self.heads(), self.net.sent);
        if heads_now != heads {
            self.wrong(format!("echo: at rest the logs grow from {heads:?} to {heads_now:?}"));
        }
        if sent_now != sent {
            self.wrong(format!("echo: at rest {} messages are sent", sent_now - sent));
        }
    }

    /// Nodes that start again change nothing.
    fn check_restart(&mut self) {
        let (heads, before) = (self.heads(), self.pictures());
        for node in 0..self.nodes.len() {
            self.nodes[node].disk().kill();
            self.tidy(node);
        }
        if !self.rest() {
            return;
        }
        if self.heads() != heads {
            let now = self.heads();
            self.wrong(format!("echo: a restart makes the logs grow from {heads:?} to {now:?}"));
        }
        if self.pictures() != before {
            self.wrong("echo: a restart changes the trees".to_owned());
        }
        for node in 0..self.nodes.len() {
            self.check_tidied(node);
        }
    }

    /// After a start without faults nothing is left of what was under way.
    fn check_tidied(&mut self, node: usize) {
        let mut left: Vec<String> = Vec::new();
        for intent in self.nodes[node].index.intents().unwrap_or_default() {
            left.push(format!("{intent:?}"));
        }
        {
            let disk = self.nodes[node].disk();
            let temp = disk.fs.resolve(&[b".recsync", b"tmp"]);
            let names = temp.and_then(|temp| disk.fs.names(temp));
            let names = names.into_iter().flat_map(|names| names.keys());
            // Interrupted transfers are kept, to go on where they stopped.
            left.extend(names.filter(|name| !name.ends_with(b".part")).map(|name| shown(name)));
        }
        for left in left {
            self.wrong(format!("left: {} has {left}", name(node)));
        }
    }

    fn heads(&self) -> Vec<Seq> {
        self.nodes.iter().map(|node| node.index.head().unwrap_or_default()).collect()
    }

    fn wrong(&mut self, what: String) {
        self.tell(format_args!("WRONG {what}"));
        lock(&self.chronicle).oracle.wrong(what);
    }

    fn tell(&self, what: std::fmt::Arguments<'_>) {
        lock(&self.chronicle).story.tell(self.now_ns, "world", what);
    }

    fn end(self) -> End {
        let World { chronicle, steps, nodes, .. } = self;
        let calls = nodes.iter().map(|node| node.disk().meanwhile.calls).sum();
        let mut rows = Rows::default();
        nodes.iter().for_each(|node| rows.add(&node.rows));
        drop(nodes);
        let Chronicle { story, oracle } = std::mem::take(&mut *lock(&chronicle));
        let trace = story.trace();
        let wrongs = oracle.wrongs().to_vec();
        End { wrongs, steps, calls, rows, trace, story: story.into_lines() }
    }
}

fn load(node: &Node) -> String {
    match &node.life {
        Some(life) => format!(
            "{}: {:?}, {} inputs, {} tasks, pump {}",
            node.name,
            life.engine.load(),
            life.inputs.len(),
            life.tasks.len(),
            life.engine.wants_pump()
        ),
        None => format!("{}: not running", node.name),
    }
}
