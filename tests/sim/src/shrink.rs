//! Finds the fewest deeds, blows and faults that still make a history fail, by leaving out ever smaller
//! parts (delta debugging: Zeller, Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
//! 2002).

use crate::history::{History, Part};
use crate::story::Telling;
use crate::world::play;

/// Runs at most.
const TRIES_MAX: usize = 2_000;

/// Returns parts of a failing history that still make it fail in the same way, as few as can be
/// found.
pub fn smallest(seed: u64, all: Vec<Part>) -> Vec<Part> {
    let failure = failure(seed, &all);
    let mut tries = 0;
    let mut fails = |parts: &[Part]| {
        tries += 1;
        tries <= TRIES_MAX && self::failure(seed, parts) == failure
    };
    let mut kept = all;
    let mut size = kept.len().div_ceil(2);
    while size > 0 {
        let before = kept.len();
        let mut start = 0;
        while start < kept.len() {
            let end = (start + size).min(kept.len());
            let rest = [&kept[..start], &kept[end..]].concat();
            if fails(&rest) {
                kept = rest;
            } else {
                start = end;
            }
        }
        size = match size {
            // What was needed before something else was left out may not be needed now.
            1 if kept.len() < before => 1,
            1 => 0,
            larger => larger.div_ceil(2),
        };
    }
    kept
}

/// Returns in which way a history fails, if it does.
fn failure(seed: u64, parts: &[Part]) -> Option<String> {
    let mut history = History::new(seed);
    history.retain(parts);
    let end = play(history, Telling::Silent);
    let kind = |wrong: &String| wrong.split(": ").take_while(|word| word.len() < 14).collect();
    end.wrongs.first().map(kind)
}
