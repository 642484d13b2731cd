//! What a seed stands for: how many nodes, what their users do, and what goes wrong when.
//! **Invariant:** a history follows from its seed and the deeds left out, from nothing else.

use crate::machine::Faults;
use crate::rng::Rng;
use crate::user::{Deed, KINDS, REWRITE, Style};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Something that happens to a node or a link from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// The process is killed; it starts again after a while.
    Kill(usize),
    /// The machine loses power; it comes back after a while.
    PowerCut(usize),
    /// The link between two nodes is cut; it is dialled again at once.
    Cut(usize, usize),
    /// The link between two nodes is cut and stays so until [`Blow::Mend`].
    Part(usize, usize),
    /// The link between two nodes can be dialled again.
    Mend(usize, usize),
    /// A wall clock is set, by so many nanoseconds.
    SetClock(usize, i64),
    /// The share is stopped and started again from its index; the links stay up.
    RestartShare(usize),
    /// A full scan is asked for.
    Rescan(usize),
    /// The index is lost: the node starts again with an empty one.
    LoseIndex(usize),
    /// The disk is full.
    Fill(usize),
    /// It has room again.
    Empty(usize),
}

/// A history before it happens.
#[derive(Debug, Clone)]
pub struct History {
    /// Its seed.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// What the users are like.
    pub style: Style,
    /// What the users of each node set out to do.
    pub deeds: Vec<Vec<Deed>>,
    /// What happens from outside, by time.
    pub blows: Vec<(u64, Blow)>,
    /// What goes wrong by itself.
    pub faults: Faults,
    /// The tick of timestamps.
    pub tick_ns: i64,
    /// Notices that the kernel queues.
    pub watch_room: usize,
    /// A typical delay of a message.
    pub link_ns: u64,
    /// A typical delay of a worker.
    pub work_ns: u64,
    /// Clocks' differences from the simulated time.
    pub skews_ns: Vec<i64>,
    /// When the last deed and blow are over.
    pub end_ns: u64,
}

impl History {
    /// Returns the history of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, 1);
        let nodes = if rng.chance(150_000) { 3 } else { 2 };
        let deeds_max = *rng.pick(&[4, 10, 25, 60]);
        let count = rng.between(1, deeds_max) as usize;
        let end_ns = rng.between(1, 1 + count as u64 / 2) * SECOND;
        let solo = rng.chance(200_000);
        let tick_ns = *rng.pick(&[1, 1, 4_000_000, 10_000_000]);
        let mut style = style(&mut rng);
        let deeds = deeds(seed, &mut rng, if solo { 1 } else { nodes }, nodes, count, end_ns);
        let calm = rng.chance(150_000);
        let faults = if calm { Faults::default() } else { faults(&mut rng) };
        if tick_ns > 1 || faults.race > 0 {
            // Other bytes of the same number and the old mtime, within one tick of another change or
            // in the instant of an exchange, which moves the ctime: no stat tells of that.
            style.weights[REWRITE] = 0;
        }
        let blows = if calm { Vec::new() } else { blows(&mut rng, nodes, end_ns) };
        let skew = if rng.chance(300_000) { 3_600 * SECOND } else { 50 * MS };
        History {
            seed,
            nodes,
            style,
            deeds,
            blows,
            faults,
            tick_ns,
            watch_room: *rng.pick(&[4, 16_384, 16_384, 16_384]),
            link_ns: *rng.pick(&[MS / 5, 2 * MS, 40 * MS]),
            work_ns: *rng.pick(&[MS / 20, MS, 20 * MS]),
            skews_ns: (0..nodes).map(|_| rng.below(2 * skew) as i64 - skew as i64).collect(),
            end_ns,
        }
    }

    /// Returns the number of deeds of all nodes.
    pub fn deeds_len(&self) -> usize {
        self.deeds.iter().map(Vec::len).sum()
    }

    /// Leaves out the deeds for which `keep` is false.
    pub fn retain_deeds(&mut self, keep: impl Fn(usize) -> bool) {
        for deeds in &mut self.deeds {
            deeds.retain(|deed| keep(deed.index));
        }
    }

    /// True if an index may be lost: what was deleted meanwhile comes back then.
    pub fn forgets(&self) -> bool {
        self.blows.iter().any(|(_, blow)| matches!(blow, Blow::LoseIndex(_)))
    }

    /// True if only the first node has users and nothing takes back what they did: then the tree
    /// must end as they left it, and recsync may put nothing there.
    pub fn is_solo(&self) -> bool {
        let harmless =
            |blow: &(u64, Blow)| !matches!(blow.1, Blow::PowerCut(_) | Blow::LoseIndex(_));
        self.deeds[1..].iter().all(Vec::is_empty)
            && self.faults.power == 0
            && self.blows.iter().all(harmless)
    }
}

fn style(rng: &mut Rng) -> Style {
    let names = [&b"a"[..], b"b", b"c"];
    let mut paths: Vec<Vec<u8>> = Vec::new();
    for _ in 0..rng.between(1, 8) {
        let depth = rng.between(1, 3);
        let parts: Vec<&[u8]> = (0..depth).map(|_| *rng.pick(&names)).collect();
        let mut path = parts.join(&b'/');
        if rng.chance(300_000) {
            path.extend_from_slice(b".wav");
        }
        paths.push(path);
    }
    // Each history has its own habits: some kinds of deeds often, some never.
    let mut weights: [u64; KINDS] = [6, 5, 4, 4, 2, 5, 5, 2, 2, 1, 2, 2, 2];
    for weight in &mut weights[1..] {
        *weight *= *rng.pick(&[0, 1, 1, 3]);
    }
    let large = if rng.chance(60_000) { 300_000 } else { 0 };
    Style { paths, weights, large }
}

fn deeds(
    seed: u64,
    rng: &mut Rng,
    active: usize,
    nodes: usize,
    count: usize,
    end_ns: u64,
) -> Vec<Vec<Deed>> {
    let mut deeds = vec![Vec::new(); nodes];
    // Bursts: deeds that hit one another are the interesting ones.
    let mut burst_ns = 0;
    for index in 0..count {
        if rng.chance(400_000) {
            burst_ns = rng.below(end_ns);
        }
        let at_ns = burst_ns + rng.below(*rng.clone().pick(&[MS, 50 * MS, SECOND]));
        let node = rng.index(active);
        deeds[node].push(Deed { index, at_ns, rng: Rng::stream(seed, 1_000 + index as u64) });
    }
    deeds
}

fn faults(rng: &mut Rng) -> Faults {
    let mut some = |often: u64, rates: &[u64]| {
        if rng.chance(often) { *rng.pick(rates) } else { 0 }
    };
    Faults {
        race: some(700_000, &[2_000, 20_000, 100_000]),
        kill: some(250_000, &[200, 2_000]),
        power: some(200_000, &[200, 2_000]),
        io: some(200_000, &[1_000, 20_000]),
        denied: some(150_000, &[1_000, 20_000]),
        no_space: some(150_000, &[1_000, 20_000]),
    }
}

fn blows(rng: &mut Rng, nodes: usize, end_ns: u64) -> Vec<(u64, Blow)> {
    let mut kinds: Vec<u64> = (0..8).map(|_| rng.below(2)).collect();
    // Indexes are lost seldom: much that is lost with one cannot be told from what is new.
    kinds[6] = u64::from(rng.chance(80_000));
    let mut blows = Vec::new();
    if kinds.iter().all(|&weight| weight == 0) {
        return blows;
    }
    for _ in 0..rng.below(6) {
        let at = rng.below(end_ns + SECOND);
        let one = rng.index(nodes);
        let other = (one + 1 + rng.index(nodes - 1)) % nodes;
        let (a, b) = (one.min(other), one.max(other));
        let later = at + rng.below(5 * SECOND);
        match rng.weighted(&kinds) {
            0 => blows.push((at, Blow::Kill(one))),
            1 => blows.push((at, Blow::PowerCut(one))),
            2 => blows.push((at, Blow::Cut(a, b))),
            3 => blows.extend([(at, Blow::Part(a, b)), (later, Blow::Mend(a, b))]),
            4 => {
                let by = rng.below(7_200 * SECOND) as i64 - 3_600 * SECOND as i64;
                blows.push((at, Blow::SetClock(one, by)));
            }
            5 => blows.push((at, *rng.pick(&[Blow::RestartShare(one), Blow::Rescan(one)]))),
            6 => blows.push((at, Blow::LoseIndex(one))),
            _ => blows.extend([(at, Blow::Fill(one)), (later, Blow::Empty(one))]),
        }
    }
    blows.sort_by_key(|(at, _)| *at);
    blows
}
