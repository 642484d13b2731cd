//! Finds the fewest deeds that still make a history fail, by leaving out ever smaller parts (delta
//! debugging: Zeller, Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).

use crate::history::History;
use crate::world::play;

/// Runs at most.
const TRIES_MAX: usize = 400;

/// Returns deeds of a failing history that still make it fail in the same way, as few as can be
/// found.
pub fn smallest(seed: u64, all: Vec<usize>) -> Vec<usize> {
    let failure = failure(seed, &all);
    let mut tries = 0;
    let mut fails = |deeds: &[usize]| {
        tries += 1;
        tries <= TRIES_MAX && self::failure(seed, deeds) == failure
    };
    let mut kept = all;
    let mut part = kept.len().div_ceil(2);
    while part > 0 {
        let mut start = 0;
        while start < kept.len() {
            let end = (start + part).min(kept.len());
            let rest = [&kept[..start], &kept[end..]].concat();
            if fails(&rest) {
                kept = rest;
            } else {
                start = end;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
    kept
}

/// Returns in which way a history fails, if it does.
fn failure(seed: u64, deeds: &[usize]) -> Option<String> {
    let mut history = History::new(seed);
    history.retain_deeds(|deed| deeds.contains(&deed));
    let end = play(history, false);
    let kind = |wrong: &String| wrong.split(": ").take_while(|word| word.len() < 14).collect();
    end.wrongs.first().map(kind)
}
