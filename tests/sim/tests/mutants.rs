//! The test of the simulator: each deliberate bug of `recsync::mutants` must be found.
//!
//! A bug also changes the order of things, and some histories end wrong by themselves: open defects. So
//! one failure shows nothing. A bug is found once so many more histories fail in some way with it than
//! without it that chance does not explain it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use recsync::mutants::{Mutant, switch};
use recsync_sim::campaign::play_safely;
use recsync_sim::disk::lock;
use recsync_sim::history::History;

/// How many histories are played before it is asked again whether the bug is found.
const LOOKS: [u64; 8] = [10, 30, 100, 300, 1_000, 3_000, 8_000, 20_000];
/// How many are played without any bug for the table.
const WITHOUT: u64 = 60_000;
/// So many from seed 0 on end well without a bug: `histories.rs` and `.ci/run` play them.
const KNOWN_TO_END_WELL: u64 = 5_000;
/// How many are played with each bug in every run.
const SOON: u64 = 300;
/// What is no chance: with 30 bugs, 8 looks and 10 ways to fail, one that is not there is found once in a
/// thousand runs.
const CHANCE: f64 = 4e-7;
/// Bugs that show more rarely.
const RARE: [Mutant; 10] = [
    Mutant::CommitLate,
    Mutant::ReuseSeq,
    Mutant::ForgetTombstones,
    Mutant::IgnoreUnknownTombstones,
    Mutant::CompareDots,
    Mutant::UnreadableIsAbsent,
    Mutant::SkipIntentRecovery,
    Mutant::IgnoreOverflow,
    Mutant::ScanForgetsAbsent,
    Mutant::NoGuard,
];

/// The first histories with the bugs that show soon; with `RECSYNC_BUGS=all` every bug, until it is found, and
/// the table of `docs/testing.md`; with a bug's name that one.
#[test]
fn deliberate_bugs_are_found() {
    let which = std::env::var("RECSYNC_BUGS").unwrap_or_default();
    let is_wanted = |bug: &Mutant| match &which[..] {
        "" => !RARE.contains(bug),
        "all" => true,
        name => format!("{bug:?}") == name,
    };
    let mut without = Failures { played: KNOWN_TO_END_WELL, ..Failures::default() };
    if which == "all" {
        without.played = 0;
        without.play_up_to(WITHOUT, None);
    }
    let at_most = if which.is_empty() { SOON } else { u64::MAX };
    assert!(Mutant::ALL.iter().any(is_wanted), "RECSYNC_BUGS={which}: there is none of that name");
    let of = without.played;
    println!(
        "| bug | histories played | fail so | of {of} without it | how |\n|---|---|---|---|---|"
    );
    let mut missed = Vec::new();
    for &bug in Mutant::ALL.iter().filter(|bug| is_wanted(bug)) {
        match find(bug, at_most, &without) {
            Some(Found { played, way, with, without }) => {
                println!("| {} | {played} | {with} | {without} | {way} |", bug.what());
            }
            None => {
                println!("| {} | not found | | | |", bug.what());
                missed.push(bug);
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// How a bug was found.
struct Found {
    played: u64,
    /// In which way histories fail.
    way: String,
    /// How many, with the bug and without.
    with: usize,
    without: usize,
}

/// Plays histories with a bug until it is found, at most so many.
fn find(bug: Mutant, at_most: u64, without: &Failures) -> Option<Found> {
    // A bug may make the code under test panic: that is one way to be found, and need not be told.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut with = Failures::default();
    let found = LOOKS.into_iter().take_while(|count| *count <= at_most).find_map(|count| {
        with.play_up_to(count, Some(bug));
        with.more_than(without)
    });
    std::panic::set_hook(hook);
    found
}

/// The histories that failed, from seed 0 on, and in which ways.
#[derive(Default)]
struct Failures {
    played: u64,
    ways: BTreeMap<String, usize>,
}

impl Failures {
    fn play_up_to(&mut self, count: u64, bug: Option<Mutant>) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicU64::new(self.played);
        let ways = Mutex::new(&mut self.ways);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    switch(bug);
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= count {
                            return;
                        }
                        let end = play_safely(History::new(seed));
                        let of_this: BTreeSet<String> = end.wrongs.iter().map(|w| way(w)).collect();
                        for way in of_this {
                            *lock(&ways).entry(way).or_default() += 1;
                        }
                    }
                });
            }
        });
        self.played = self.played.max(count);
    }

    /// Returns a way in which histories fail so often that it is no chance, if there is one.
    fn more_than(&self, without: &Failures) -> Option<Found> {
        let share = self.played as f64 / (self.played + without.played) as f64;
        self.ways.iter().find_map(|(way, &with)| {
            let others = without.ways.get(way).copied().unwrap_or(0);
            let played = self.played;
            (chance(with, with + others, share) < CHANCE).then(|| Found {
                played,
                way: way.clone(),
                with,
                without: others,
            })
        })
    }
}

/// How likely it is that `with` or more of `all` failures fall among this share of the histories by chance
/// (the binomial distribution's upper tail).
fn chance(with: usize, all: usize, share: f64) -> f64 {
    let exactly = |count: usize| {
        let among = (0..count).map(|at| (all - at) as f64 / (count - at) as f64 * share);
        let others = std::iter::repeat_n(1.0 - share, all - count);
        among.chain(others).product::<f64>()
    };
    (with..=all).map(exactly).sum()
}

/// Returns the way in which a history failed, whichever node it is told of.
fn way(wrong: &str) -> String {
    let words = wrong.split(": ").find(|word| !word.starts_with("fs"));
    words.unwrap_or_default().chars().take(14).collect()
}

#[test]
fn chances_are_those_of_a_coin() {
    for (with, all, expected) in [(0, 5, 1.0), (5, 5, 1.0 / 32.0), (4, 5, 6.0 / 32.0), (1, 1, 0.5)]
    {
        assert!((chance(with, all, 0.5) - expected).abs() < 1e-12, "{with} of {all}");
    }
    assert!((chance(2, 2, 0.1) - 0.01).abs() < 1e-12);
}
