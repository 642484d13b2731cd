//! The algebra of versions, model-checked: random histories on 2 to 4 nodes over the production
//! `engine::version`, with partial delivery, forgotten tombstones, reused contents and lost indexes,
//! and nothing else: no disk, no network, no engine.
//!
//! Afterwards everything is delivered, and all nodes must show the same names with the same contents,
//! with no version unresolved and none lost that no user overwrote or deleted with knowledge of it.
//! The broken variants show that the model can tell.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use recsync::engine::conflict::{Digits, copy_path};
use recsync::engine::version;
use recsync_proto::{
    Content, Dot, Epoch, Hash, NodeName, Record, Register, Seq, SharePath, Stamp, Value,
};
use recsync_sim::rng::Rng;

const STEPS: usize = 60;

/// Which algebra runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// As in production.
    Production,
    /// One version vector for each file: whoever sees a conflict keeps the winner of the two and
    /// publishes it under the joined vector.
    EagerJoin,
    /// Whoever sees a conflict drops the losers, whether it holds their bytes or not.
    AnyoneResolves,
    /// A local event removes all values of a path, not only the one that its author saw.
    BlindUsers,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    record: Record,
    installed: Option<Content>,
    logged: u64,
}

#[derive(Debug)]
struct Node {
    name: NodeName,
    epoch: Epoch,
    seq: u64,
    hlc: u64,
    entries: BTreeMap<SharePath, Entry>,
    /// How far each other node's log was read, for its epoch.
    read: BTreeMap<usize, (Epoch, u64)>,
}

struct Model {
    variant: Variant,
    rng: Rng,
    nodes: Vec<Node>,
    next_content: u64,
    written: BTreeSet<Content>,
    /// Contents that a user overwrote or deleted where they were to be seen.
    superseded: BTreeSet<Content>,
}

/// What a history left.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Sound,
    Lost,
    Diverged,
    Unresolved,
}

fn content(id: u64) -> Content {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&id.to_le_bytes());
    Content::File { size: 1, hash: Hash(hash) }
}

impl Model {
    fn new(variant: Variant, nodes: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let node = |index| Node {
            name: NodeName::new(format!("n{index}")).unwrap(),
            epoch: Epoch(rng.next()),
            seq: 0,
            hlc: rng.below(5),
            entries: BTreeMap::new(),
            read: BTreeMap::new(),
        };
        let nodes = (0..nodes).map(node).collect();
        Model {
            variant,
            rng,
            nodes,
            next_content: 0,
            written: BTreeSet::new(),
            superseded: BTreeSet::new(),
        }
    }

    fn run(&mut self, losses: bool) -> Verdict {
        for _ in 0..STEPS {
            let node = self.rng.index(self.nodes.len());
            match self.rng.below(if losses { 41 } else { 40 }) {
                0..12 => self.user_writes(node),
                12..17 => self.user_deletes(node),
                17..19 => self.forget_deletes(node),
                19..40 => {
                    let from = self.rng.index(self.nodes.len());
                    let most = self.rng.between(1, 4);
                    self.deliver(from, node, most);
                }
                _ => self.lose_index(node),
            }
        }
        self.deliver_all();
        self.verdict()
    }

    fn mint(&mut self, node: usize) -> (Dot, Stamp) {
        // Clocks tick at different speeds; the hybrid clock only keeps each one monotonic.
        let tick = self.rng.below(4);
        let node = &mut self.nodes[node];
        node.seq += 1;
        node.hlc += 1 + tick;
        let dot = Dot { epoch: node.epoch, seq: Seq(node.seq) };
        (dot, Stamp { hlc: node.hlc, node: node.name.clone() })
    }

    fn some_path(&mut self, node: usize) -> SharePath {
        let copies = self.nodes[node].entries.len();
        if self.rng.chance(200_000) && copies > 0 {
            let index = self.rng.index(copies);
            return self.nodes[node].entries.keys().nth(index).unwrap().clone();
        }
        SharePath::new(*self.rng.pick(&["a.wav", "b.wav"])).unwrap()
    }

    fn user_writes(&mut self, node: usize) {
        let path = self.some_path(node);
        let content = if self.rng.chance(100_000) && self.next_content > 0 {
            content(self.rng.below(self.next_content))
        } else {
            self.next_content += 1;
            content(self.next_content - 1)
        };
        let seen = self.nodes[node].entries.get(&path).and_then(|entry| entry.installed.clone());
        if seen.as_ref() == Some(&content) {
            return;
        }
        self.superseded.extend(seen);
        // Written again on purpose: wanted again.
        self.superseded.remove(&content);
        self.written.insert(content.clone());
        self.write(node, path, content);
    }

    /// Notes that `content` is now at `path`, as absorb does.
    fn write(&mut self, node: usize, path: SharePath, content: Content) {
        let (dot, stamp) = self.mint(node);
        let mtime_ns = Register { value: dot.seq.0 as i64, stamp: stamp.clone() };
        let value =
            Value { dot, stamp, content: content.clone(), mtime_ns, lacks: BTreeSet::new() };
        let variant = self.variant;
        let entry = self.nodes[node].entries.entry(path).or_default();
        if matches!(variant, Variant::BlindUsers | Variant::EagerJoin) {
            entry.record.values.clear();
        }
        version::write(&mut entry.record, entry.installed.as_ref(), value);
        entry.installed = Some(content);
        entry.logged = dot.seq.0;
    }

    fn user_deletes(&mut self, node: usize) {
        let path = self.some_path(node);
        let Some(seen) =
            self.nodes[node].entries.get(&path).and_then(|entry| entry.installed.clone())
        else {
            return;
        };
        let (dot, _) = self.mint(node);
        let variant = self.variant;
        let entry = self.nodes[node].entries.get_mut(&path).unwrap();
        if matches!(variant, Variant::BlindUsers | Variant::EagerJoin) {
            entry.record.values.clear();
        }
        version::delete(&mut entry.record, &seen, dot);
        entry.installed = None;
        entry.logged = dot.seq.0;
        self.superseded.insert(seen);
    }

    /// Delivers up to `most` records that `to` has not read from the log of `from`. Returns whether
    /// there were any.
    fn deliver(&mut self, from: usize, to: usize, most: u64) -> bool {
        let epoch = self.nodes[from].epoch;
        let read = self.nodes[to].read.get(&from).filter(|(known, _)| *known == epoch);
        let read = read.map_or(0, |(_, seq)| *seq);
        let entries = self.nodes[from].entries.iter();
        let mut news: Vec<(u64, SharePath, Record)> = entries
            .filter(|(_, entry)| entry.logged > read)
            .map(|(path, entry)| (entry.logged, path.clone(), entry.record.clone()))
            .collect();
        news.sort_by_key(|(seq, ..)| *seq);
        news.truncate(most as usize);
        let any = from != to && !news.is_empty();
        for (seq, path, record) in news.into_iter().filter(|_| from != to) {
            self.nodes[to].read.insert(from, (epoch, seq));
            self.receive(to, &path, &record);
        }
        any
    }

    fn receive(&mut self, node: usize, path: &SharePath, theirs: &Record) {
        let ours = self.nodes[node].entries.entry(path.clone()).or_default().record.clone();
        let merged = match self.variant {
            Variant::EagerJoin => eager_join(&ours, theirs),
            _ => version::merge(&ours, theirs),
        };
        let greatest = merged.values.iter().map(|value| value.stamp.hlc).max().unwrap_or(0);
        let this = &mut self.nodes[node];
        this.hlc = this.hlc.max(greatest);
        if merged != ours {
            this.seq += 1;
            let entry = this.entries.get_mut(path).unwrap();
            entry.record = merged;
            entry.logged = this.seq;
        }
        self.install(node, path, &ours, theirs);
    }

    /// Makes the winner of a record what is installed; keeps a loser that is installed as a copy.
    fn install(&mut self, node: usize, path: &SharePath, before: &Record, theirs: &Record) {
        let entry = self.nodes[node].entries[path].clone();
        let winner = version::winner(&entry.record, false).map(|winner| winner.content);
        if let Some(installed) = &entry.installed
            && winner.as_ref() != Some(installed)
        {
            let loser = match self.variant {
                // All that shows a conflict is that neither vector covers the other.
                Variant::EagerJoin => version::loser(before, installed)
                    .filter(|value| !theirs.context.contains(value.dot)),
                _ => version::loser(&entry.record, installed),
            };
            if let Some(loser) = loser.cloned() {
                self.keep_copy(node, path, &loser);
                self.drop_loser(node, path, installed);
            }
        }
        if self.variant == Variant::AnyoneResolves {
            let contents = entry.record.values.iter().map(|value| value.content.clone());
            for loser in contents.filter(|content| Some(content) != winner.as_ref()) {
                self.drop_loser(node, path, &loser);
            }
        }
        self.nodes[node].entries.get_mut(path).unwrap().installed = winner;
    }

    fn keep_copy(&mut self, node: usize, path: &SharePath, loser: &Value) {
        let copy = copy_path(path, loser, Digits::Eight);
        // Whoever had it before, or deleted it: it is an ordinary path with a record of its own.
        let known = self.nodes[node].entries.get(&copy);
        if known.is_none_or(|entry| entry.record.context.is_empty()) {
            self.write(node, copy, loser.content.clone());
        }
    }

    fn drop_loser(&mut self, node: usize, path: &SharePath, content: &Content) {
        let node = &mut self.nodes[node];
        let entry = node.entries.get_mut(path).unwrap();
        if version::holds(&entry.record, content) {
            version::drop_content(&mut entry.record, content);
            node.seq += 1;
            entry.logged = node.seq;
        }
    }

    /// Drops the tombstones that every other node has read, as `Engine::tidy` does.
    fn forget_deletes(&mut self, node: usize) {
        let epoch = self.nodes[node].epoch;
        let others = self.nodes.iter().enumerate().filter(|(index, _)| *index != node);
        let read = others.map(|(_, other)| other.read.get(&node));
        let read =
            read.map(|read| read.filter(|(known, _)| *known == epoch).map_or(0, |(_, seq)| *seq));
        let through = read.min().unwrap_or(0);
        self.nodes[node].entries.retain(|_, entry| {
            entry.installed.is_some() || !entry.record.is_tombstone() || entry.logged > through
        });
    }

    /// A node starts again with an empty index: what is on its disk is found as if new.
    fn lose_index(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        this.epoch = Epoch(self.rng.next());
        this.seq = 0;
        this.read.clear();
        let found = std::mem::take(&mut this.entries);
        for (path, entry) in found {
            if let Some(content) = entry.installed {
                self.write(node, path, content);
            }
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..100 {
            let mut any = false;
            for from in 0..self.nodes.len() {
                for to in 0..self.nodes.len() {
                    any |= self.deliver(from, to, u64::MAX);
                }
            }
            if !any {
                return;
            }
        }
    }

    fn verdict(&self) -> Verdict {
        let tree = |node: &Node| -> BTreeMap<SharePath, Content> {
            let installed = |(path, entry): (&SharePath, &Entry)| {
                Some((path.clone(), entry.installed.clone()?))
            };
            node.entries.iter().filter_map(installed).collect()
        };
        let trees: Vec<_> = self.nodes.iter().map(tree).collect();
        if trees.iter().any(|tree| *tree != trees[0]) {
            return Verdict::Diverged;
        }
        let kept: BTreeSet<&Content> = trees[0].values().collect();
        let wanted = self.written.iter().filter(|content| !self.superseded.contains(content));
        if wanted.into_iter().any(|content| !kept.contains(content)) {
            return Verdict::Lost;
        }
        let unresolved = |entry: &Entry| {
            let mut contents = entry.record.values.iter().map(|value| &value.content);
            contents.any(|content| Some(content) != entry.installed.as_ref())
        };
        if self.nodes.iter().any(|node| node.entries.values().any(unresolved)) {
            return Verdict::Unresolved;
        }
        Verdict::Sound
    }
}

/// The merge of plain version vectors, conflicts settled at once.
fn eager_join(ours: &Record, theirs: &Record) -> Record {
    if ours.context.covers(&theirs.context) {
        return ours.clone();
    }
    if theirs.context.covers(&ours.context) {
        return theirs.clone();
    }
    let values = ours.values.iter().chain(&theirs.values);
    let best = values.max_by_key(|value| (value.stamp.clone(), value.dot)).cloned();
    let mut context = ours.context.clone();
    context.join(&theirs.context);
    Record { context, values: best.into_iter().collect(), ..Record::default() }
}

/// Runs `histories` and returns how many of them ended in each way.
fn run(variant: Variant, nodes: usize, histories: u64, losses: bool) -> BTreeMap<String, u64> {
    let mut ends = BTreeMap::new();
    for seed in 0..histories {
        let verdict = Model::new(variant, nodes, seed).run(losses);
        *ends.entry(format!("{verdict:?}")).or_default() += 1;
    }
    ends
}

fn check_sound(nodes: usize, losses: bool) {
    let ends = run(Variant::Production, nodes, 2_000, losses);
    let sound = BTreeMap::from([("Sound".to_owned(), 2_000)]);
    assert_eq!(ends, sound, "{nodes} nodes, index losses: {losses}");
}

#[test]
fn two_nodes_lose_nothing_and_agree() {
    check_sound(2, false);
}

#[test]
fn three_nodes_lose_nothing_and_agree() {
    check_sound(3, false);
}

#[test]
fn four_nodes_lose_nothing_and_agree() {
    check_sound(4, false);
}

#[test]
fn a_history_follows_from_its_seed() {
    let trace = |seed| {
        let mut model = Model::new(Variant::Production, 3, seed);
        let verdict = model.run(true);
        (verdict, format!("{:?}", model.nodes))
    };
    assert_eq!(trace(7), trace(7));
}

#[test]
fn lost_indexes_lose_no_content_and_leave_no_difference() {
    for nodes in 2..=4 {
        let ends = run(Variant::Production, nodes, 2_000, true);
        // A version whose only holder forgot it and overwrote it stays unresolved: nobody has its
        // bytes, and no user counts on them.
        assert!(!ends.contains_key("Lost") && !ends.contains_key("Diverged"), "{nodes}: {ends:?}");
    }
}

#[test]
fn the_model_sees_that_an_eager_join_loses() {
    let ends = run(Variant::EagerJoin, 3, 500, false);
    assert!(ends.get("Lost").is_some_and(|&lost| lost > 50), "{ends:?}");
}

#[test]
fn the_model_sees_that_only_the_holder_may_resolve() {
    let ends = run(Variant::AnyoneResolves, 3, 500, false);
    assert!(ends.get("Lost").is_some_and(|&lost| lost > 10), "{ends:?}");
}

#[test]
fn the_model_sees_that_a_user_removes_only_what_it_saw() {
    let ends = run(Variant::BlindUsers, 3, 500, false);
    assert!(ends.get("Lost").is_some_and(|&lost| lost > 10), "{ends:?}");
}
