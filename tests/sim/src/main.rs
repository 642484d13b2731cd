//! Plays histories: `recsync-sim --seed S` one, told as a story; `--histories N` many, from a seed of
//! chance or on from `--seed`. Exit code 1 if anything is wrong.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the program's output")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use recsync::sys::Clock;
use recsync_sim::history::History;
use recsync_sim::shrink;
use recsync_sim::world::{End, play};

/// Whole recsync clusters on a simulated disk, network and clock, from one seed.
#[derive(Debug, Parser)]
#[command(name = "recsync-sim")]
struct Args {
    /// The history to play, or the first of several; chosen by chance if left out.
    #[arg(long)]
    seed: Option<u64>,
    /// How many histories to play, one seed after the other; without it one is played and told.
    #[arg(long)]
    histories: Option<u64>,
    /// Goes on after a failure, and lists all failing seeds at the end.
    #[arg(long)]
    keep_going: bool,
    /// Plays only these deeds of the users (numbers with commas), as a shrunk failure names them.
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<usize>>,
    /// Tells the whole story of a failure instead of one with as few deeds as possible.
    #[arg(long)]
    whole: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(recsync::sys::random_u64);
    match args.histories {
        None => tell(seed, &args),
        Some(count) => many(seed, count, &args),
    }
}

fn history(seed: u64, only: Option<&[usize]>) -> History {
    let mut history = History::new(seed);
    if let Some(only) = only {
        history.retain_deeds(|deed| only.contains(&deed));
    }
    history
}

/// Plays one history and tells its story.
fn tell(seed: u64, args: &Args) -> ExitCode {
    let end = play(history(seed, args.only.as_deref()), true);
    for line in &end.story {
        println!("{line}");
    }
    println!("seed {seed}: {} steps, trace {:016x}", end.steps, end.trace);
    verdict(&end)
}

fn verdict(end: &End) -> ExitCode {
    if end.wrongs.is_empty() {
        println!("all is well");
        return ExitCode::SUCCESS;
    }
    for wrong in &end.wrongs {
        println!("WRONG {wrong}");
    }
    ExitCode::FAILURE
}

/// Plays histories until one fails.
fn many(seed: u64, count: u64, args: &Args) -> ExitCode {
    println!("{count} histories from seed {seed}");
    let clock = Clock::start();
    let mut steps = Vec::new();
    let mut failed = Vec::new();
    let mut told = Duration::ZERO;
    for seed in (0..count).map(|n| seed.wrapping_add(n)) {
        let end = play(history(seed, None), false);
        steps.push(end.steps);
        if !end.wrongs.is_empty() {
            if args.keep_going {
                println!("seed {seed}: {}", end.wrongs[0]);
            }
            failed.push(seed);
            if !args.keep_going {
                break;
            }
        }
        let elapsed = clock.now().mono;
        if elapsed - told > Duration::from_secs(10) {
            told = elapsed;
            println!("{} histories, {} failed, {} s", steps.len(), failed.len(), elapsed.as_secs());
        }
    }
    summary(&mut steps, clock.now().mono, failed.len());
    let Some(&first) = failed.first() else { return ExitCode::SUCCESS };
    report(first, args.whole);
    ExitCode::FAILURE
}

fn summary(steps: &mut [u64], elapsed: Duration, failed: usize) {
    steps.sort_unstable();
    let total: u64 = steps.iter().sum();
    let seconds = elapsed.as_secs_f64().max(0.001);
    println!(
        "{} histories, {failed} failed, {total} steps in {seconds:.1} s: {:.0} histories/s, {:.0} steps/s, median {} steps",
        steps.len(),
        steps.len() as f64 / seconds,
        total as f64 / seconds,
        steps.get(steps.len() / 2).unwrap_or(&0)
    );
}

/// Tells a failure's story, with as few deeds as still show it.
fn report(seed: u64, whole: bool) {
    let all: Vec<usize> = (0..History::new(seed).deeds_len()).collect();
    let deeds = if whole { all.clone() } else { shrink::smallest(seed, all.clone()) };
    let end = play(history(seed, Some(&deeds)), true);
    for line in &end.story {
        println!("{line}");
    }
    verdict(&end);
    println!("replay: cargo run --release -p recsync-sim -- --seed {seed}");
    if deeds.len() < all.len() {
        let deeds: Vec<String> = deeds.iter().map(ToString::to_string).collect();
        println!(
            "shrunk: cargo run --release -p recsync-sim -- --seed {seed} --only {}",
            deeds.join(",")
        );
    }
}
