//! What a seed stands for: how many nodes, what their users do, and what goes wrong when.
//! **Invariant:** a history follows from its seed and the deeds left out, from nothing else.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use recsync::engine::MaxDelete;

use crate::machine::Faults;
use crate::rng::Rng;
use crate::user::{Deed, KINDS, REWRITE, Style};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Fewest and most deeds of a history.
const DEEDS_MIN: u64 = 30;
const DEEDS_MAX: u64 = 300;

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
    /// One direction of a link, the one from the first node, swallows what is sent; nobody is told.
    Mute(usize, usize),
    /// The index is lost: the node starts again with an empty one.
    LoseIndex(usize),
    /// Somebody makes a copy of the index.
    CopyIndex(usize),
    /// The node starts again with the copy of its index that was made last, if one was.
    RestoreIndex(usize),
    /// The operator lets go what the mass-delete guard holds (true), or undoes it.
    Decide(usize, bool),
    /// The disk is full.
    Fill(usize),
    /// It has room again.
    Empty(usize),
}

/// Something that can be left out of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A deed, by its number.
    Deed(usize),
    /// A blow, by its place.
    Blow(usize),
    /// A kind of fault, by its place in [`Faults::NAMES`].
    Fault(usize),
}

/// As it is written on the command line: `4`, `b2`, `race`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Deed(index) => write!(f, "{index}"),
            Part::Blow(index) => write!(f, "b{index}"),
            Part::Fault(kind) => f.write_str(Faults::NAMES[*kind]),
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if let Some(kind) = Faults::NAMES.iter().position(|name| *name == word) {
            return Ok(Part::Fault(kind));
        }
        let (make, number): (fn(usize) -> Part, _) = match word.strip_prefix('b') {
            Some(number) => (Part::Blow, number),
            None => (Part::Deed, word),
        };
        number.parse().map(make).map_err(|_| {
            format!("{word} is no deed (4), blow (b2) or fault ({})", Faults::NAMES.join(", "))
        })
    }
}

/// A history before it happens.
#[derive(Debug, Clone)]
pub struct History {
    /// Its seed.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// Which of them are peers, the lower number first: all pairs, or each one and the next.
    pub links: Vec<(usize, usize)>,
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
    /// When vanishing files wait for the operator.
    pub max_delete: MaxDelete,
    /// When the last deed and blow are over.
    pub end_ns: u64,
}

impl History {
    /// Returns the history of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, 1);
        let nodes = [2, 3, 4][rng.weighted(&[55, 30, 15])];
        let is_line = nodes > 2 && rng.chance(300_000);
        let links = links(nodes, is_line);
        let deeds_max = [40, 60, 100, DEEDS_MAX][rng.weighted(&[40, 35, 20, 5])];
        let count = rng.between(DEEDS_MIN, deeds_max) as usize;
        let end_ns = rng.between(1, 1 + count as u64 / 3) * SECOND;
        let solo = rng.chance(100_000);
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
        let blows = if calm { Vec::new() } else { blows(&mut rng, nodes, &links, end_ns) };
        let skew = if rng.chance(300_000) { 3_600 * SECOND } else { 50 * MS };
        History {
            seed,
            nodes,
            links,
            style,
            deeds,
            blows,
            faults,
            tick_ns,
            watch_room: *rng.pick(&[4, 64, 16_384, 16_384, 16_384]),
            link_ns: *rng.pick(&[MS / 5, 2 * MS, 40 * MS]),
            work_ns: *rng.pick(&[MS / 20, MS, 20 * MS]),
            skews_ns: (0..nodes).map(|_| rng.below(2 * skew) as i64 - skew as i64).collect(),
            max_delete: *rng.pick(&[percent(50), percent(50), percent(10), percent(100)]),
            end_ns,
        }
    }

    /// Returns the peers of a node.
    pub fn peers(&self, node: usize) -> impl Iterator<Item = usize> {
        self.links.iter().filter_map(move |&(one, other)| match node {
            _ if node == one => Some(other),
            _ if node == other => Some(one),
            _ => None,
        })
    }

    /// Returns what it is like, in a few words.
    pub fn describe(&self) -> String {
        let shape = if self.links.len() + 1 == self.nodes { "in a line" } else { "all linked" };
        let mut faults = self.faults;
        let rates = faults.rates().into_iter().zip(Faults::NAMES);
        let faults: Vec<&str> =
            rates.filter(|(rate, _)| **rate > 0).map(|(_, name)| name).collect();
        format!(
            "{} nodes {shape}, {} deeds, {} blows, faults: {}",
            self.nodes,
            self.deeds.iter().map(Vec::len).sum::<usize>(),
            self.blows.len(),
            if faults.is_empty() { "none".to_owned() } else { faults.join(", ") }
        )
    }

    /// Returns everything that can be left out of it.
    pub fn parts(&self) -> Vec<Part> {
        let deeds = self.deeds.iter().flatten().map(|deed| Part::Deed(deed.index));
        let blows = (0..self.blows.len()).map(Part::Blow);
        let mut faults = self.faults;
        let rates = faults.rates().into_iter().enumerate();
        let faults = rates.filter(|(_, rate)| **rate > 0).map(|(kind, _)| Part::Fault(kind));
        deeds.chain(blows).chain(faults).collect()
    }

    /// Leaves out all but these parts of a whole history.
    pub fn retain(&mut self, parts: &[Part]) {
        let parts: BTreeSet<Part> = parts.iter().copied().collect();
        for deeds in &mut self.deeds {
            deeds.retain(|deed| parts.contains(&Part::Deed(deed.index)));
        }
        let blows = std::mem::take(&mut self.blows).into_iter().enumerate();
        let kept = blows.filter(|(index, _)| parts.contains(&Part::Blow(*index)));
        self.blows = kept.map(|(_, blow)| blow).collect();
        for (kind, rate) in self.faults.rates().into_iter().enumerate() {
            if !parts.contains(&Part::Fault(kind)) {
                *rate = 0;
            }
        }
    }

    /// True if an index may be lost or put back: what was deleted meanwhile may come back then.
    pub fn forgets(&self) -> bool {
        let loses = |blow: &Blow| matches!(blow, Blow::LoseIndex(_) | Blow::RestoreIndex(_));
        self.blows.iter().any(|(_, blow)| loses(blow))
    }

    /// True if only the first node has users and nothing takes back what they did: then the tree
    /// must end as they left it, and recsync may put nothing there.
    pub fn is_solo(&self) -> bool {
        let harmless = |(_, blow): &(u64, Blow)| {
            !matches!(blow, Blow::PowerCut(_) | Blow::LoseIndex(_) | Blow::RestoreIndex(_))
        };
        self.deeds[1..].iter().all(Vec::is_empty)
            && self.faults.power == 0
            && self.blows.iter().all(harmless)
    }
}

fn percent(percent: u8) -> MaxDelete {
    MaxDelete { percent: Some(percent), count: None }
}

fn links(nodes: usize, is_line: bool) -> Vec<(usize, usize)> {
    let pairs = (0..nodes).flat_map(|one| (one + 1..nodes).map(move |other| (one, other)));
    pairs.filter(|(one, other)| !is_line || one + 1 == *other).collect()
}

fn style(rng: &mut Rng) -> Style {
    let names = [&b"a"[..], b"b", b"c"];
    let mut paths: Vec<Vec<u8>> = Vec::new();
    if rng.chance(80_000) {
        // An archive: so many files that its going is for the operator to decide.
        paths.extend((0..rng.between(22, 40)).map(|number| format!("c/{number}").into_bytes()));
    }
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
        pause: some(150_000, &[500, 5_000]),
        kill: some(250_000, &[200, 2_000]),
        power: some(200_000, &[200, 2_000]),
        io: some(200_000, &[1_000, 20_000]),
        denied: some(150_000, &[1_000, 20_000]),
        no_space: some(150_000, &[1_000, 20_000]),
    }
}

/// Number of kinds of blows.
const BLOWS: usize = 11;

fn blows(rng: &mut Rng, nodes: usize, links: &[(usize, usize)], end_ns: u64) -> Vec<(u64, Blow)> {
    let mut kinds: Vec<u64> = (0..BLOWS).map(|_| rng.below(2)).collect();
    // Indexes are lost seldom: much that is lost with one cannot be told from what is new.
    kinds[6] = u64::from(rng.chance(80_000));
    kinds[7] = u64::from(rng.chance(80_000));
    let mut blows = Vec::new();
    if kinds.iter().all(|&weight| weight == 0) {
        return blows;
    }
    for _ in 0..rng.below(10) {
        let at = rng.below(end_ns + SECOND);
        let one = rng.index(nodes);
        let (a, b) = *rng.pick(links);
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
            7 => blows.extend([(at, Blow::CopyIndex(one)), (later, Blow::RestoreIndex(one))]),
            8 => blows.extend([(at, Blow::Fill(one)), (later, Blow::Empty(one))]),
            9 => {
                let (from, to) = *rng.pick(&[(a, b), (b, a)]);
                // Keep-alives find it out.
                blows.extend([(at, Blow::Mute(from, to)), (later, Blow::Cut(a, b))]);
            }
            _ => blows.push((at, Blow::Decide(one, rng.chance(500_000)))),
        }
    }
    blows.sort_by_key(|(at, _)| *at);
    blows
}
