//! The test of the simulator: each deliberate bug of `recsync::mutants` must be found.
//! `cargo test --release -p recsync-sim --features mutants --test mutants -- --nocapture`

use std::sync::atomic::{AtomicU64, Ordering};

use recsync::mutants::{Mutant, switch};
use recsync_sim::campaign::play_safely;
use recsync_sim::history::History;

/// Within so many histories a bug must be found.
const HISTORIES: u64 = 20_000;
/// The first of them: those that fail by themselves, if any, are before it.
const FIRST: u64 = 1;

#[test]
fn each_deliberate_bug_is_found() {
    // A bug may make the code under test panic: that is one way to be found.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    println!("| bug | found by seed | how |\n|---|---|---|");
    for &mutant in Mutant::ALL {
        match find(mutant) {
            Some((seed, wrong)) => {
                let kind = wrong.split(':').next().unwrap_or_default();
                println!("| {} | {} | {kind} |", mutant.what(), seed - FIRST + 1);
            }
            None => {
                println!("| {} | never | |", mutant.what());
                missed.push(mutant);
            }
        }
    }
    assert!(missed.is_empty(), "not found within {HISTORIES} histories: {missed:?}");
}

/// Returns the first seed that fails with a bug but not without it, and what was wrong.
fn find(mutant: Mutant) -> Option<(u64, String)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(FIRST);
    let found = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= FIRST + HISTORIES || seed > found.load(Ordering::Relaxed) {
                        return;
                    }
                    if fails(mutant, seed).is_some()
                        && play_safely(History::new(seed)).wrongs.is_empty()
                    {
                        found.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = found.into_inner();
    (seed < u64::MAX).then(|| (seed, fails(mutant, seed).unwrap_or_default()))
}

/// Returns what is wrong with a history while a bug is on.
fn fails(mutant: Mutant, seed: u64) -> Option<String> {
    switch(Some(mutant));
    let end = play_safely(History::new(seed));
    switch(None);
    end.wrongs.into_iter().next()
}
