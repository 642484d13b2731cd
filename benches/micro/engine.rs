//! Two engines that play two nodes with a link: what the loop of a share does for a recording, on either side.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use recsync::engine::{
    Action, Announce, DeletePolicy, Done, Effect, Engine, Hint, Input, Look, MaxDelete, Noticed,
    Now, Op, Outcome, OwnerPolicy, Settings, version,
};
use recsync::index::{Index, Memory};
use recsync::tree::Fingerprint;
use recsync_proto::message::{Announcement, Bytes, Lane, ShareMessage};
use recsync_proto::{Content, Epoch, NodeName, Seq, SharePath};

use crate::{Case, Result, Run, Work, sample, timed};

const SETTLE: Duration = Duration::from_millis(20);
/// Looks that the engine has under way at most: more recordings at once are no larger batch.
const AT_ONCE: usize = 64;

/// The node whose recorder makes the recordings, and the one that gets them.
const ORIGIN: usize = 0;
const PEER: usize = 1;

pub(crate) fn cases(scratch: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    let sides =
        [(ORIGIN, "closed: Dirty to Announce"), (PEER, "announced: Message to Apply to Ack")];
    for (side, does) in sides {
        for (at_once, on_disk) in [(1, false), (1, true), (AT_ONCE, true)] {
            let index = if on_disk { "SQLite" } else { "memory" };
            let recordings = match at_once {
                1 => "a recording".to_owned(),
                _ => format!("{at_once} recordings"),
            };
            let run = indexes(scratch, side, at_once, on_disk)
                .and_then(Pair::new)
                .map(|pair| recordings_of(pair, side, at_once));
            let name = format!("{recordings} {does}, index in {index}");
            cases.push(Case::new(name, Work::Items(at_once, "recordings"), run));
        }
    }
    cases.push(Case::new("merge of two concurrent records", Work::Items(1, "merges"), merges()));
    cases
}

/// Returns the indexes of both nodes; only that of the side that is measured may be on the disk.
fn indexes(
    scratch: &Path,
    side: usize,
    at_once: usize,
    on_disk: bool,
) -> Result<[Box<dyn Index>; 2]> {
    let in_memory = |number| Box::new(Memory::new(Epoch(number))) as Box<dyn Index>;
    let mut indexes = [in_memory(1), in_memory(2)];
    if on_disk {
        let name = format!("engine-{side}-{at_once}");
        indexes[side] = Box::new(sample::store(scratch, &name, Epoch(side as u64 + 1))?);
    }
    Ok(indexes)
}

fn recordings_of(mut pair: Pair, side: usize, at_once: usize) -> Run {
    Box::new(move |count| {
        let before = pair.nodes[side].spent;
        for _ in 0..count {
            pair.record(at_once)?;
        }
        Ok(pair.nodes[side].spent - before)
    })
}

fn merges() -> Result<Run> {
    let path = sample::path(1)?;
    let one = sample::record(ORIGIN, &path, Seq(1_000))?;
    let other = sample::record(PEER, &path, Seq(2_000))?;
    Ok(Box::new(move |count| timed(count, || Ok(version::merge(&one, &other)))))
}

/// A node without a disk: what its engine asks for, the pair answers.
struct Node {
    name: NodeName,
    engine: Engine,
    index: Box<dyn Index>,
    /// Time spent in turns that are measured.
    spent: Duration,
}

impl Node {
    fn new(number: usize, index: Box<dyn Index>) -> Result<Node> {
        let settings = Settings {
            node: sample::node(number)?,
            settle: SETTLE,
            max_delete: MaxDelete { percent: Some(100), count: None },
            peers: vec![sample::node(1 - number)?],
            owner: OwnerPolicy::Name,
            deletes: DeletePolicy::Propagate,
            ignore: Arc::default(),
        };
        let name = settings.node.clone();
        let engine = Engine::new(settings, &*index, 1, true)?;
        Ok(Node { name, engine, index, spent: Duration::ZERO })
    }

    /// Takes inputs in, as the loop of a share does with a batch.
    fn turn(&mut self, now: Now, inputs: Vec<Input>) -> Result<Vec<Effect>> {
        let mut effects = Vec::new();
        for input in inputs {
            effects.extend(self.engine.step(now, input, &mut *self.index)?);
        }
        effects.extend(self.engine.pump(now, &mut *self.index)?);
        self.index.commit()?;
        Ok(effects)
    }

    /// Likewise, and counts the time.
    fn timed_turn(&mut self, now: Now, inputs: Vec<Input>) -> Result<Vec<Effect>> {
        let begun = Instant::now();
        let effects = self.turn(now, inputs)?;
        self.spent += begun.elapsed();
        Ok(effects)
    }
}

struct Pair {
    nodes: [Node; 2],
    now: Now,
    /// Recordings, and objects of all kinds, so far.
    made: u64,
    objects: u64,
    dirs: BTreeSet<SharePath>,
    /// What a file holds does not matter to the engine: the bytes of all of them.
    bytes: Vec<u8>,
}

impl Pair {
    /// Two nodes that have scanned their empty shares and are linked.
    fn new([one, other]: [Box<dyn Index>; 2]) -> Result<Pair> {
        let nodes = [Node::new(ORIGIN, one)?, Node::new(PEER, other)?];
        let now = Now { wall_ns: sample::START_NS, mono: Duration::from_secs(1) };
        let bytes = vec![7; usize::try_from(sample::RECORDING)?];
        let mut pair = Pair { nodes, now, made: 0, objects: 0, dirs: BTreeSet::new(), bytes };
        for (node, peer) in [(ORIGIN, PEER), (PEER, ORIGIN)] {
            let peer = pair.nodes[peer].name.clone();
            let said = pair.nodes[node]
                .turn(pair.now, vec![Input::Scanned(SharePath::root()), Input::PeerUp(peer)])?;
            pair.talk(node, said)?;
        }
        Ok(pair)
    }

    /// Lets a node's words reach the other one, and so on until nothing more is said.
    fn talk(&mut self, from: usize, said: Vec<Effect>) -> Result<()> {
        let mut said: VecDeque<_> = said.into_iter().map(|effect| (from, effect)).collect();
        while let Some((from, effect)) = said.pop_front() {
            let Effect::Send { lane, message, .. } = effect else { continue };
            let input = Input::Message { peer: self.nodes[from].name.clone(), lane, message };
            let answers = self.nodes[1 - from].turn(self.now, vec![input])?;
            said.extend(answers.into_iter().map(|effect| (1 - from, effect)));
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> Result<()> {
        self.now.mono += time;
        self.now.wall_ns += i64::try_from(time.as_nanos())?;
        Ok(())
    }

    /// Plays new recordings that are closed at the same time, until the origin knows that they are durable at
    /// the peer.
    fn record(&mut self, count: usize) -> Result<()> {
        let paths =
            (self.made..self.made + count as u64).map(sample::path).collect::<Result<Vec<_>>>()?;
        let dirs = paths.iter().flat_map(SharePath::ancestors).filter(|dir| !dir.is_root());
        let new: BTreeSet<_> = dirs.filter(|dir| !self.dirs.contains(dir)).collect();
        for dir in new {
            self.sync(vec![dir.clone()], Hint::Created)?;
            self.dirs.insert(dir);
        }
        self.made += count as u64;
        self.sync(paths, Hint::Written)
    }

    fn sync(&mut self, paths: Vec<SharePath>, hint: Hint) -> Result<()> {
        let wanted = paths.len();
        let noticed = Noticed::Watcher(self.now.mono);
        let dirty = paths.into_iter().map(|path| Input::Dirty { path, hint, noticed }).collect();
        self.nodes[ORIGIN].timed_turn(self.now, dirty)?;
        self.pass(SETTLE)?;
        let looks = self.nodes[ORIGIN].timed_turn(self.now, vec![Input::Tick])?;
        let looked = self.answers(looks, wanted, Pair::look)?;
        let announces = self.nodes[ORIGIN].timed_turn(self.now, looked)?;
        let announced = self.answers(announces, wanted, Pair::announce)?;
        let peer = self.nodes[ORIGIN].name.clone();
        let message = ShareMessage::Announce(announced);
        let heard = vec![Input::Message { peer, lane: Lane::Live, message }];
        let ops = self.nodes[PEER].timed_turn(self.now, heard)?;
        let applied = self.answers(ops, wanted, Pair::apply)?;
        let acks = self.nodes[PEER].timed_turn(self.now, applied)?;
        if !acks.iter().any(|effect| matches!(effect, Effect::Send { .. })) {
            return Err("nothing was acknowledged".into());
        }
        self.talk(PEER, acks)
    }

    /// Answers the effects that have an answer: as many as are wanted.
    fn answers<T>(
        &mut self,
        effects: Vec<Effect>,
        wanted: usize,
        answer: fn(&mut Pair, Effect) -> Option<T>,
    ) -> Result<Vec<T>> {
        let answers: Vec<_> =
            effects.into_iter().filter_map(|effect| answer(self, effect)).collect();
        if answers.len() == wanted {
            Ok(answers)
        } else {
            Err(format!("{} of {wanted} recordings went on", answers.len()).into())
        }
    }

    fn look(&mut self, effect: Effect) -> Option<Input> {
        let Effect::Look { path, .. } = effect else { return None };
        let is_file = path.as_bytes().ends_with(b".wav");
        let content = if is_file { sample::content(&path) } else { Content::Dir };
        let fingerprint = self.put(&content, self.now.wall_ns);
        Some(Input::Looked {
            path,
            look: Look::Found { content, fingerprint, owner: sample::owner().ok() },
        })
    }

    fn announce(&mut self, effect: Effect) -> Option<Announcement> {
        let Effect::Announce(announce) = effect else { return None };
        let Announce { seq, path, record, inline, .. } = *announce;
        let inline = inline.map(|_| self.bytes.clone());
        Some(Announcement { seq, path, record, inline: inline.map(Bytes), moved_from: None })
    }

    fn apply(&mut self, effect: Effect) -> Option<Input> {
        let Effect::Apply { op: Op { id, action, .. }, .. } = effect else { return None };
        let (content, mtime_ns) = match action {
            Action::File { size, hash, mtime_ns, .. } => (Content::File { size, hash }, mtime_ns),
            _ => (Content::Dir, self.now.wall_ns),
        };
        let fingerprint = Some(self.put(&content, mtime_ns));
        Some(Input::Applied { id, outcome: Outcome::Done(Done { fingerprint, ..Done::default() }) })
    }

    /// Returns how a new object stands on a disk.
    fn put(&mut self, content: &Content, mtime_ns: i64) -> Fingerprint {
        self.objects += 1;
        sample::fingerprint(content, self.objects, mtime_ns)
    }
}
