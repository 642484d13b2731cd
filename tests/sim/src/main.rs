//! Plays histories: `recsync-sim --seed S` one, told as a story; `--histories N` many, from a seed of
//! chance or on from `--seed`, on all cores. Exit code 1 if anything is wrong.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the program's output")]

use std::process::ExitCode;

use clap::Parser;
use recsync_sim::campaign::{self, Campaign};
use recsync_sim::history::{History, Part};
use recsync_sim::shrink;
use recsync_sim::story::Telling;
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
    /// Goes on after a failure, and lists all failing seeds.
    #[arg(long)]
    keep_going: bool,
    /// Plays only these parts of the history, as a shrunk failure names them: deeds (4), blows
    /// (b2) and kinds of faults (race).
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<Part>>,
    /// Tells the whole story of a failure instead of one with as few parts as possible.
    #[arg(long)]
    whole: bool,
    /// Tells each system call too, and what goes into the engines and comes out.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(recsync::sys::random_u64);
    match args.histories {
        None => tell(seed, args.only.as_deref(), &args),
        Some(count) => many(seed, count, &args),
    }
}

/// Plays one history and tells its story.
fn tell(seed: u64, only: Option<&[Part]>, args: &Args) -> ExitCode {
    let mut history = History::new(seed);
    if let Some(only) = only {
        history.retain(only);
    }
    println!("{}", history.describe());
    let telling = if args.verbose { Telling::Everything } else { Telling::Story };
    let end = play(history, telling);
    for line in &end.story {
        println!("{line}");
    }
    println!("seed {seed}: {} steps, {} system calls", end.steps, end.calls);
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
fn many(first: u64, count: u64, args: &Args) -> ExitCode {
    println!("{count} histories from seed {first}");
    let campaign = Campaign { first, count, keep_going: args.keep_going };
    let tally = campaign::run(&campaign, &|line| println!("{line}"));
    println!("{tally}");
    let Some((&first, _)) = tally.failed.first_key_value() else { return ExitCode::SUCCESS };
    report(first, args);
    ExitCode::FAILURE
}

/// Tells a failure's story, with as few parts as still show it.
fn report(seed: u64, args: &Args) {
    let all = History::new(seed).parts();
    let parts = if args.whole { all.clone() } else { shrink::smallest(seed, all.clone()) };
    tell(seed, Some(&parts), args);
    println!("replay: cargo run --release -p recsync-sim -- --seed {seed}");
    if parts.len() < all.len() {
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        println!(
            "shrunk: cargo run --release -p recsync-sim -- --seed {seed} --only {}",
            parts.join(",")
        );
    }
}
