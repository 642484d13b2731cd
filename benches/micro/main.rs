//! What single operations cost, in this process alone: the engine, the index, the codec, hashing.
//!
//! ```text
//! cargo bench --bench micro                           all of it, in less than a minute
//! cargo bench --bench micro -- --only index,codec     some of it
//! cargo bench --bench micro -- --write                puts the tables into docs/performance.md
//! ```
//!
//! A sample is as many operations in a row as take 10 ms, at least one. The cases take turns, a sample
//! each, so that whatever else the machine does meets them all; a table shows the median, and
//! between which times nine of ten samples lie.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "reads the clock around what it measures, and the machine's description"
)]
#![expect(clippy::print_stdout, reason = "prints what it measures")]

mod bytes;
mod engine;
mod index;
#[path = "../page/mod.rs"]
mod page;
mod sample;

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser as _, ValueEnum as _};
use recsync::load::{Lags, Scratch};

/// Measures what single operations of the engine, the index, the codec and hashing cost
#[derive(Debug, clap::Parser)]
struct Args {
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Samples of each operation
    #[arg(long, default_value_t = 50)]
    samples: u32,
    /// Put the tables into docs/performance.md
    #[arg(long)]
    write: bool,
    /// Where to make the scratch directory [default: the system's temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Says that cargo bench runs this; without it there is nothing to do, as in cargo test
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured together, a table each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What a share's loop does for one recording, on either node.
    Engine,
    /// The durable index.
    Index,
    /// Frames.
    Codec,
    /// BLAKE3 over files in the page cache.
    Hashing,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;
/// Does an operation so many times and returns how long that took; what it only needs for it is
/// not counted.
type Run = Box<dyn FnMut(u32) -> Result<Duration>>;

/// How long a sample is at least.
const SAMPLE: Duration = Duration::from_millis(10);
/// Operations in a sample at most.
const COUNT_MAX: u32 = 1 << 24;

/// How much one operation works off.
#[derive(Debug, Clone, Copy)]
enum Work {
    Items(usize, &'static str),
    Bytes(u64),
}

/// One operation, and what it took.
struct Case {
    name: String,
    work: Work,
    /// One that cannot be measured says why.
    run: Result<Run>,
    /// Operations in a sample.
    count: u32,
    /// The time of one operation, a sample each.
    samples: Vec<Duration>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        println!("nothing to do: run it with `cargo bench --bench micro -- --help`");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&dir)?;
    let machine = page::machine(scratch.path());
    println!("{machine}\n");
    let wanted = |part: &&Part| args.only.is_empty() || args.only.contains(part);
    let parts: Vec<_> = Part::value_variants().iter().filter(wanted).collect();
    let mut tables: Vec<_> =
        parts.into_iter().map(|part| (part, part.cases(scratch.path()))).collect();
    tables.iter_mut().flat_map(|(_, cases)| cases).for_each(Case::warm_up);
    for _ in 0..args.samples {
        tables.iter_mut().flat_map(|(_, cases)| cases).for_each(Case::sample);
    }
    for (part, cases) in &tables {
        let table = markdown(part.what(), args.samples, cases);
        println!("{table}");
        if args.write {
            page::write(page::TABLES, part.marker(), &format!("{table}\n{machine}"))?;
        }
    }
    Ok(())
}

impl Part {
    fn cases(self, scratch: &Path) -> Vec<Case> {
        match self {
            Part::Engine => engine::cases(scratch),
            Part::Index => index::cases(scratch),
            Part::Codec => bytes::codec(),
            Part::Hashing => bytes::hashing(scratch),
        }
    }

    /// Returns the name of its place in docs/performance.md.
    fn marker(self) -> &'static str {
        match self {
            Part::Engine => "micro-engine",
            Part::Index => "micro-index",
            Part::Codec => "micro-codec",
            Part::Hashing => "micro-hashing",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Part::Engine => {
                "What the loop of a share does for a recording of 100 kB: steps, pumps and commits of the index; looks, \
                 reads and writes of files are not in it. SQLite syncs each commit."
            }
            Part::Index => {
                "The index on SQLite; each transaction is synced (`synchronous=FULL`). Reads are of one with 100,000 \
                 recordings, a tenth of them pending, in chunks as the engine reads them."
            }
            Part::Codec => "A frame with one announcement, from the types to bytes and back.",
            Part::Hashing => {
                "BLAKE3 over recordings in the page cache, on one core: their hash, as each look takes it, and in the same \
                 pass the hashes of their blocks, as who serves them does."
            }
        }
    }
}

impl Case {
    fn new(name: impl Into<String>, work: Work, run: Result<Run>) -> Case {
        Case { name: name.into(), work, run, count: 1, samples: Vec::new() }
    }

    /// Finds out how many operations make a sample.
    fn warm_up(&mut self) {
        while self.count < COUNT_MAX && self.go().is_some_and(|took| took < SAMPLE) {
            self.count *= 2;
        }
    }

    fn sample(&mut self) {
        let one = self.go().map(|took| took / self.count);
        self.samples.extend(one);
    }

    /// One that fails is not tried again.
    fn go(&mut self) -> Option<Duration> {
        let took = self.run.as_mut().ok()?(self.count);
        took.map_err(|why| self.run = Err(why)).ok()
    }

    fn row(&self) -> String {
        let lags = Lags::new(self.samples.iter().copied());
        let at = |percent| lags.percentile(percent).unwrap_or_default().as_secs_f64();
        match &self.run {
            Err(why) => {
                let why = why.to_string().replace(['\n', '|'], " ");
                format!("| {} | not measured: {why} | - | - |", self.name)
            }
            Ok(_) => format!(
                "| {} | {} | {} to {} | {} |",
                self.name,
                page::seconds(at(50)),
                page::seconds(at(5)),
                page::seconds(at(95)),
                self.work.rate(at(50))
            ),
        }
    }
}

impl Work {
    fn rate(self, time: f64) -> String {
        match self {
            Work::Items(count, items) => {
                format!("{:.0} {items}/s", three_digits(count as f64 / time))
            }
            Work::Bytes(bytes) => match bytes as f64 / time {
                rate if rate < 1e9 => format!("{:.0} MB/s", rate / 1e6),
                rate => format!("{:.2} GB/s", rate / 1e9),
            },
        }
    }
}

/// More of them are noise.
fn three_digits(rate: f64) -> f64 {
    let unit = 10_f64.powf(rate.log10().floor() - 2.0).max(1.0);
    (rate / unit).round() * unit
}

fn markdown(what: &str, samples: u32, cases: &[Case]) -> String {
    let mut out = format!("{what} {samples} samples of each operation.\n\n");
    out.push_str("| operation | median | nine of ten samples | rate |\n|---|---:|---:|---:|\n");
    for case in cases {
        let _infallible = writeln!(out, "{}", case.row());
    }
    out
}

/// Times so many calls.
fn timed<T>(count: u32, mut act: impl FnMut() -> Result<T>) -> Result<Duration> {
    let begun = Instant::now();
    for _ in 0..count {
        black_box(act()?);
    }
    Ok(begun.elapsed())
}
