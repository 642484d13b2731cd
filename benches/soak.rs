//! Hours of calls with faults: how lag and memory move, and whether the trees are the same.
//!
//! ```text
//! cargo bench --bench soak -- --minutes 5
//! cargo bench --bench soak -- --hours 8
//! ```
//!
//! Each round records calls on both nodes, with the scripts that rename, convert and delete them,
//! while one thing after the other goes wrong: a daemon is killed or stopped for a while, the line
//! between them is cut, silent, slow or spoiled. Then it must become quiet, and both trees are compared
//! byte for byte. One line a round; exit 1 at the first difference.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "looks at the daemons from outside")]
#![expect(clippy::print_stdout, reason = "prints what it measures")]
#![allow(clippy::unwrap_used, reason = "the line is one of tests/support")]

#[path = "../tests/support/loopback.rs"]
mod loopback;
#[path = "../tests/support/proxy.rs"]
mod proxy;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use clap::Parser as _;
use proxy::{Line, Proxy};
use recsync::load::{Ledger, Load, NAMES, Pair, Profile, Scratch, compare};
use recsync::serve::api::Status;
use recsync::sys::{self, Clock};
use rustix::process::{Pid, Signal, kill_process};

/// A round may take this long to become quiet.
const QUIET_MAX: Duration = Duration::from_secs(600);
const TICK: Duration = Duration::from_millis(100);

/// Plays calls to two nodes for hours, with faults, and compares their trees again and again
#[derive(Debug, clap::Parser)]
struct Args {
    /// How long, in minutes
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// How long, in hours, in place of minutes
    #[arg(long)]
    hours: Option<u64>,
    /// Seconds of load in each round
    #[arg(long, default_value_t = 40)]
    round: u64,
    /// Recordings finished in a second on each node
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// Calls that grow at any time on each node
    #[arg(long, default_value_t = 50)]
    growing: usize,
    /// The same seed plays the same faults
    #[arg(long)]
    seed: Option<u64>,
    /// Where to make the scratch directory [default: the system's temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Says that cargo bench runs this; without it there is nothing to do, as in cargo test
    #[arg(long, hide = true)]
    bench: bool,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        println!("nothing to do: run it with `cargo bench --bench soak -- --help`");
        return ExitCode::SUCCESS;
    }
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let done = Scratch::new(&dir).map_err(Into::into).and_then(|scratch| {
        let done = run(&args, scratch.path());
        if !matches!(done, Ok(true)) {
            println!("left for a look: {}", scratch.keep().display());
        }
        done
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args, dir: &Path) -> Result<bool> {
    let seed = args.seed.unwrap_or_else(sys::random_u64);
    let minutes = args.hours.map_or(args.minutes, |hours| hours * 60);
    println!("{minutes} minutes, --seed {seed}");
    Pair::set_up(dir)?;
    let lines = NAMES.map(|name| line_to(dir, name));
    let lines = lines.into_iter().collect::<Result<Vec<_>>>()?;
    let ledger = Arc::new(Ledger::new(Clock::start()));
    let program = PathBuf::from(env!("CARGO_BIN_EXE_recsync"));
    let pair = Pair::start(&program, dir, &ledger)?;
    let mut soak = Soak { dir, program, ledger, pair, lines, dice: seed | 1, faults: 0 };
    soak.wait("ready", Pair::is_ready)?;
    println!(
        "{:>8} {:>7} {:>7} {:>8} {:>8} {:>8} {:>9} {:>18} {:>12} {:>11}",
        "at",
        "faults",
        "files",
        "p50",
        "p99",
        "max lag",
        "quiet in",
        "RSS fs1, fs2",
        "in the tree",
        "differences"
    );
    let end = Duration::from_secs(minutes * 60);
    let mut round = 0;
    while soak.ledger.now() < end {
        let left = end.saturating_sub(soak.ledger.now());
        let length = Duration::from_secs(args.round).min(left);
        if !soak.round(args, round, length)? {
            return Ok(false);
        }
        round += 1;
    }
    println!("zero differences in {round} rounds, with {} faults", soak.faults);
    Ok(true)
}

/// Makes a node reachable for the other one by a line only, and settings for hours of scripts.
fn line_to(dir: &Path, name: &str) -> Result<Proxy> {
    let read = |name: &str| fs::read_to_string(dir.join(name).join("recsync.toml"));
    let own = read(name)?;
    let listen = own.lines().find_map(|line| line.strip_prefix("listen = \""));
    let listen = listen.and_then(|rest| rest.split('"').next()).ok_or("it listens nowhere")?;
    let line = Proxy::to(listen.parse()?);
    let other = if name == NAMES[0] { NAMES[1] } else { NAMES[0] };
    let theirs = read(other)?
        .replace(&format!("address = \"{listen}\""), &format!("address = \"{}\"", line.address));
    // Retention empties old directories at once, and the disk is to last for hours.
    let keys = "[[share]]\nmax_delete = \"100%\"\ntrash = \"0s\"\n";
    let theirs = theirs.replacen("[[share]]\n", keys, 1);
    fs::write(dir.join(other).join("recsync.toml"), theirs)?;
    Ok(line)
}

struct Soak<'a> {
    dir: &'a Path,
    program: PathBuf,
    ledger: Arc<Ledger>,
    pair: Pair,
    lines: Vec<Proxy>,
    dice: u64,
    faults: u32,
}

impl Soak<'_> {
    /// Load and faults, then quiet, then a comparison. False if there is a difference.
    fn round(&mut self, args: &Args, number: u64, length: Duration) -> Result<bool> {
        let profile = Profile {
            growing: args.growing,
            finished_per_s: args.rate,
            bytes_mean: 190_000,
            scripts: true,
            seed: self.dice.wrapping_add(number),
        };
        let begun = self.ledger.now();
        let load = Load::start(Pair::roots(self.dir), profile, length, &self.ledger)?;
        let mut lag_max = 0.0_f64;
        while self.ledger.now() < begun + length {
            self.fault()?;
            for _ in 0..30 {
                self.pair.check()?;
                lag_max = lag_max.max(self.pair.status().map_or(0.0, |nodes| lag(&nodes)));
                sleep(TICK);
            }
        }
        while !load.is_over() {
            self.pair.check()?;
            sleep(TICK);
        }
        load.finish()?;
        let over = self.ledger.now();
        self.wait("in step", |pair| pair.status().is_some_and(|nodes| nodes.iter().all(is_quiet)))?;
        let quiet = self.ledger.now() - over;
        // Deletes of what was made in the last instant are noticed after a look.
        let [one, other] = Pair::roots(self.dir);
        let mut compared = compare(&one, &other)?;
        let by = self.ledger.now() + Duration::from_secs(20);
        while !compared.differences.is_empty() && self.ledger.now() < by {
            sleep(TICK);
            compared = compare(&one, &other)?;
        }
        let lags = self.ledger.lags(|sample| sample.since >= begun);
        let ms = |percent| {
            let lag = lags.percentile(percent).unwrap_or_default();
            format!("{:.0}ms", lag.as_secs_f64() * 1e3)
        };
        let memory = [0, 1].map(|node| resident_kb(self.pair.process(node)) / 1024);
        println!(
            "{:>7.0}s {:>7} {:>7} {:>8} {:>8} {:>7.1}s {:>8.1}s {:>18} {:>12} {:>11}",
            self.ledger.now().as_secs_f64(),
            self.faults,
            lags.len(),
            ms(50),
            ms(99),
            lag_max,
            quiet.as_secs_f64(),
            format!("{} MiB, {} MiB", memory[0], memory[1]),
            compared.files,
            compared.differences.len()
        );
        for difference in compared.differences.iter().take(20) {
            println!("  {difference}");
        }
        Ok(compared.differences.is_empty())
    }

    /// One thing that goes wrong for a while, and is over when this returns.
    fn fault(&mut self) -> Result<()> {
        self.faults += 1;
        let node = self.roll(2);
        let time = Duration::from_millis(100 + self.roll(7_000) as u64);
        match self.roll(8) {
            0 => self.pair.kill_and_start(node, &self.program.clone(), &self.ledger.clone())?,
            1 => {
                self.pair.check()?;
                let pid = self.pair.process(node).cast_signed();
                let pid = Pid::from_raw(pid).ok_or("no process has this number")?;
                kill_process(pid, Signal::STOP)?;
                sleep(time);
                kill_process(pid, Signal::CONT)?;
            }
            2 => self.line(Line::Cut, time),
            3 => self.line(Line::Swallows, time),
            4 => self.line(Line::SwallowsAnswers, time),
            5 => self.line(Line::Delays(Duration::from_millis(150)), time),
            6 => self.line(Line::Throttles(300_000), time),
            _ => self.line(Line::Spoils(50_000), time),
        }
        Ok(())
    }

    fn line(&self, line: Line, time: Duration) {
        self.lines.iter().for_each(|proxy| proxy.set(line));
        sleep(time);
        self.lines.iter().for_each(|proxy| proxy.set(Line::Good));
    }

    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice % sides as u64) as usize
    }

    fn wait(&mut self, what: &str, is_so: impl Fn(&Pair) -> bool) -> Result<()> {
        let by = self.ledger.now() + QUIET_MAX;
        while !is_so(&self.pair) {
            if self.ledger.now() > by {
                let said = self.pair.said().join("\n");
                return Err(format!("not {what} after {QUIET_MAX:?}; they said:\n{said}").into());
            }
            self.pair.check()?;
            sleep(TICK);
        }
        Ok(())
    }
}

fn lag(nodes: &[Status; 2]) -> f64 {
    let shares = nodes.iter().flat_map(|node| &node.peers).flat_map(|peer| &peer.shares);
    shares.map(|share| share.lag_seconds).fold(0.0, f64::max)
}

fn is_quiet(node: &Status) -> bool {
    let mut of_peers = node.peers.iter().flat_map(|peer| &peer.shares);
    node.peers.iter().all(|peer| peer.connected)
        && node.shares.iter().all(|share| share.pending_files == 0)
        && of_peers.all(|share| share.pending_files == 0 && share.lag_seconds == 0.0)
}

fn resident_kb(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
