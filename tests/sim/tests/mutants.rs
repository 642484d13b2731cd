//! The test of the simulator: each deliberate bug of `recsync::mutants` must be found.
//! `cargo test --release -p recsync-sim --features mutants --test mutants -- --nocapture`
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
/// So many standard deviations are no chance: with some 200 looks at ten ways to fail, once in a thousand runs.
const SIGMAS: f64 = 5.0;

#[test]
fn each_deliberate_bug_is_found() {
    // A bug may make the code under test panic: that is one way to be found.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    let mut without = Failures::default();
    println!("| bug | histories | fail | without it | mostly |\n|---|---|---|---|---|");
    for &mutant in Mutant::ALL.iter().filter(|mutant| !Mutant::FAINT.contains(mutant)) {
        let mut with = Failures::default();
        let mut found = None;
        for count in LOOKS {
            with.play_up_to(count, Some(mutant));
            without.play_up_to(count, None);
            found = with.found(&without, count);
            if found.is_some() {
                break;
            }
        }
        let Some((kind, f, b)) = found else {
            println!("| {} | not within {} | | | |", mutant.what(), with.played);
            missed.push(mutant);
            continue;
        };
        println!("| {} | {} | {f} | {b} | {kind} |", mutant.what(), with.played);
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// The histories that failed, from seed 0 on, and in which ways.
#[derive(Default)]
struct Failures {
    played: u64,
    failed: BTreeMap<u64, BTreeSet<String>>,
}

impl Failures {
    fn play_up_to(&mut self, count: u64, mutant: Option<Mutant>) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicU64::new(self.played);
        let failed = Mutex::new(&mut self.failed);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    switch(mutant);
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= count {
                            return;
                        }
                        let end = play_safely(History::new(seed));
                        let kinds: BTreeSet<String> = end.wrongs.iter().map(|w| kind(w)).collect();
                        if !kinds.is_empty() {
                            lock(&failed).insert(seed, kinds);
                        }
                    }
                });
            }
        });
        self.played = self.played.max(count);
    }

    /// Returns a way to fail that is no chance, and how many histories do with the bug and without.
    fn found(&self, without: &Failures, count: u64) -> Option<(String, usize, usize)> {
        let [with, without] = [self, without].map(|failures| failures.ways(count));
        with.into_iter().find_map(|(kind, f)| {
            let b = without.get(&kind).copied().unwrap_or(0);
            let chance = SIGMAS * ((f + b) as f64 / 2.0).sqrt();
            (f as f64 - b as f64 > 3.0 + chance).then_some((kind, f, b))
        })
    }

    fn ways(&self, count: u64) -> BTreeMap<String, usize> {
        let mut ways = BTreeMap::new();
        for kind in self.failed.range(..count).flat_map(|(_, kinds)| kinds) {
            *ways.entry(kind.clone()).or_default() += 1;
        }
        ways
    }
}

/// Returns the kind of a wrong, whichever node it is told of.
fn kind(wrong: &str) -> String {
    let words = wrong.split(": ").find(|word| !word.starts_with("fs"));
    words.unwrap_or_default().chars().take(14).collect()
}
