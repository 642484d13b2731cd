//! How long a recording takes to be durable on the other node, and what that costs.
//!
//! ```text
//! cargo bench --bench latency -- --rate 50 --growing 200 --seconds 60
//! cargo bench --bench latency -- --idle               one file at a time on an idle system
//! cargo bench --bench latency -- --quiet 30           what two daemons do with nothing to do
//! cargo bench --bench latency -- --idle-files 100000  their memory with many files
//! ```
//!
//! Latency is measured for each file by one clock, from just before its close until the line of
//! the origin's log is read that says "durable on the peer". Recorders, both daemons and this
//! program share the machine; their CPU time is told apart.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "looks at the daemons from outside")]
#![expect(clippy::print_stdout, reason = "prints what it measures")]

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use clap::Parser as _;
use recsync::load::{Act, Lags, Ledger, Load, NAMES, Pair, Profile, Sample, Scratch, record};
use recsync::serve::api::Status;
use recsync::sys::Clock;

/// The daemons' default, `share.settle`.
const SETTLE: Duration = Duration::from_millis(20);
/// Targets of `--idle`.
const P50_MAX: Duration = Duration::from_millis(25).saturating_add(SETTLE);
const P99_MAX: Duration = Duration::from_millis(100).saturating_add(SETTLE);
/// Target of `--idle-files`.
const MEMORY_MAX_KB: u64 = 60_000;
/// Targets of `--quiet`: of one CPU, and on the wire each way (keep-alives).
const QUIET_CPU_MAX: f64 = 0.01;
const QUIET_BYTES_PER_S_MAX: f64 = 500.0;
/// What does not happen within this time does not happen.
const WAIT_MAX: Duration = Duration::from_secs(600);
const TICK: Duration = Duration::from_millis(5);
/// The unit of CPU time in `/proc`: 100 on every Linux that recsync runs on (proc(5), USER_HZ).
const USER_HZ: f64 = 100.0;
/// Lines that a run under load is told in.
const INTERVALS: u32 = 10;

/// A file of an index: its path, size, and mtime in seconds and nanoseconds.
type IndexFile = (PathBuf, u64, i64, i64);

/// Measures how long recordings take to be durable on the other of two nodes
#[derive(Debug, clap::Parser)]
struct Args {
    /// Recordings finished in a second on each node
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Calls that grow at any time on each node
    #[arg(long, default_value_t = 200)]
    growing: usize,
    /// Length of the load
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Mean size of a recording
    #[arg(long, default_value_t = 190_000)]
    bytes: u64,
    /// Also rename, convert and delete recordings
    #[arg(long)]
    scripts: bool,
    /// One file at a time on an idle system instead
    #[arg(long)]
    idle: bool,
    /// How many of them
    #[arg(long, default_value_t = 100)]
    count: u32,
    /// What two daemons do in so many seconds with nothing to do instead
    #[arg(long, value_name = "SECONDS")]
    quiet: Option<u32>,
    /// How much memory they take with so many files instead
    #[arg(long, value_name = "FILES")]
    idle_files: Option<u32>,
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
        println!("nothing to do: run it with `cargo bench --bench latency -- --help`");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&dir)?;
    Pair::set_up(scratch.path())?;
    let mut bench = Bench::new(&scratch);
    match args {
        Args { idle: true, .. } => bench.idle(args.count),
        Args { quiet: Some(seconds), .. } => bench.quiet(*seconds),
        Args { idle_files: Some(files), .. } => bench.idle_files(*files),
        _ => bench.load(args),
    }
}

struct Bench<'a> {
    dir: &'a Path,
    ledger: Arc<Ledger>,
}

impl<'a> Bench<'a> {
    fn new(scratch: &'a Scratch) -> Self {
        Bench { dir: scratch.path(), ledger: Arc::new(Ledger::new(Clock::start())) }
    }

    fn start(&self) -> Result<Pair> {
        let program = Path::new(env!("CARGO_BIN_EXE_recsync"));
        let mut pair = Pair::start(program, self.dir, &self.ledger)?;
        self.wait(&mut pair, "ready", |pair| pair.is_ready())?;
        Ok(pair)
    }

    fn wait(
        &self,
        pair: &mut Pair,
        what: &str,
        mut is_so: impl FnMut(&Pair) -> bool,
    ) -> Result<()> {
        let by = self.ledger.now() + WAIT_MAX;
        while !is_so(pair) {
            if self.ledger.now() > by {
                let said = pair.said().join("\n");
                return Err(
                    format!("not {what} after {WAIT_MAX:?}; the daemons said:\n{said}").into()
                );
            }
            pair.check()?;
            sleep(TICK);
        }
        Ok(())
    }

    fn wait_until_durable(&self, pair: &mut Pair) -> Result<()> {
        self.wait(pair, "durable", |_| self.ledger.is_settled())
    }

    /// N finished files a second each way, with M that grow.
    fn load(&mut self, args: &Args) -> Result<bool> {
        let mut pair = self.start()?;
        let profile = Profile {
            growing: args.growing,
            finished_per_s: args.rate,
            bytes_mean: args.bytes,
            scripts: args.scripts,
            seed: 1,
        };
        println!(
            "{} files/s finished and {} growing on each node, {} bytes on average, {} s",
            args.rate, args.growing, args.bytes, args.seconds
        );
        let begun = self.ledger.now();
        let length = Duration::from_secs(args.seconds.into());
        let load = Load::start(Pair::roots(self.dir), profile, length, &self.ledger)?;
        println!(
            "{:>10} {:>7} {:>8} {:>8} {:>8} {:>8} {:>10} {:>13}",
            "closed at", "files", "p50", "p90", "p99", "max", "on the way", "CPU fs1, fs2"
        );
        let interval = length / INTERVALS;
        let mut cpu = Cost::of_both(&pair)?;
        let mut tails = Vec::new();
        for number in 0..INTERVALS {
            let from = begun + interval * number;
            self.sleep_until(from + interval, &mut pair)?;
            let on_the_way = self.ledger.outstanding();
            let now = Cost::of_both(&pair)?;
            tails.push((
                from,
                on_the_way,
                [0, 1].map(|node| (now[node].cpu - cpu[node].cpu) / interval.as_secs_f64()),
            ));
            cpu = now;
        }
        let cost = Cost::of_both(&pair)?;
        while !load.is_over() {
            pair.check()?;
            sleep(TICK);
        }
        load.finish()?;
        let over = self.ledger.now();
        self.wait_until_durable(&mut pair)?;
        let drained = self.ledger.now() - over;

        // By the time of the close: what came late is not hidden in a later line.
        let samples = self.ledger.samples();
        for (from, on_the_way, cpu) in &tails {
            let closed = |sample: &&Sample| (*from..*from + interval).contains(&sample.since);
            let lags = Lags::new(samples.iter().filter(closed).map(|sample| sample.lag));
            let at = format!("{:.1} s", (*from - begun).as_secs_f64());
            println!(
                "{at:>10} {} {on_the_way:>10} {:>5.0} %, {:.0} %",
                row(&lags),
                cpu[0] * 100.0,
                cpu[1] * 100.0
            );
        }
        let steady = |sample: &&Sample| sample.since < begun + length;
        let of = |wanted: fn(Act) -> bool| {
            Lags::new(
                samples
                    .iter()
                    .filter(steady)
                    .filter(|sample| wanted(sample.act))
                    .map(|sample| sample.lag),
            )
        };
        println!("{:>10} {}", "recordings", row(&of(|act| act == Act::Record)));
        if args.scripts {
            println!("{:>10} {}", "the rest", row(&of(|act| act != Act::Record)));
        }
        println!("all durable {} after the last close", ms(drained));
        for (name, cost) in NAMES.iter().zip(&cost) {
            println!("{name}: {cost}");
        }
        let third = length / 3;
        let p50 = |from: Duration| {
            let closed = |sample: &&Sample| (from..from + third).contains(&sample.since);
            Lags::new(samples.iter().filter(closed).map(|sample| sample.lag))
                .percentile(50)
                .unwrap_or_default()
        };
        let (first, last) = (p50(begun), p50(begun + third * 2));
        let grows = last > first * 2 + SETTLE;
        println!(
            "p50 of the first third {}, of the last {}: lag {}",
            ms(first),
            ms(last),
            if grows { "GROWS" } else { "does not grow" }
        );
        pair.stop();
        Ok(!grows)
    }

    /// One file at a time.
    fn idle(&mut self, count: u32) -> Result<bool> {
        let mut pair = self.start()?;
        let mut well = true;
        for bytes in [44, 190_000, 1_000_000] {
            let begun = self.ledger.now();
            for number in 0..count {
                let node = number as usize % 2;
                let root = &Pair::roots(self.dir)[node];
                let path = format!("2026/11/23/{}-{bytes}-{number:05}.wav", NAMES[node]);
                record(root, node, &path, bytes, &self.ledger)?;
                self.wait_until_durable(&mut pair)?;
                // Not in step with anything that the daemons do every so often.
                sleep(Duration::from_millis(100 + u64::from(number * 7 % 50)));
            }
            let lags = self.ledger.lags(|sample| sample.since >= begun);
            let reached = |percent, most| lags.percentile(percent).is_some_and(|lag| lag <= most);
            let targets = [reached(50, P50_MAX), reached(99, P99_MAX)];
            well &= targets == [true, true];
            println!("{bytes:>8} bytes: {}", named(&lags));
            println!(
                "                p50 at most {}: {}; p99 at most {}: {}",
                ms(P50_MAX),
                yes(targets[0]),
                ms(P99_MAX),
                yes(targets[1])
            );
        }
        for (name, cost) in NAMES.iter().zip(Cost::of_both(&pair)?) {
            println!("{name}: {cost}");
        }
        pair.stop();
        Ok(well)
    }

    /// Nothing at all, after a little load.
    fn quiet(&mut self, seconds: u32) -> Result<bool> {
        let mut pair = self.start()?;
        let profile = Profile {
            growing: 20,
            finished_per_s: 10,
            bytes_mean: 190_000,
            scripts: true,
            seed: 1,
        };
        Load::start(Pair::roots(self.dir), profile, Duration::from_secs(5), &self.ledger)?
            .finish()?;
        self.wait_until_durable(&mut pair)?;
        sleep(Duration::from_secs(3));
        let well = self.watch_quiet(&mut pair, seconds)?;
        pair.stop();
        Ok(well)
    }

    fn watch_quiet(&self, pair: &mut Pair, seconds: u32) -> Result<bool> {
        let (cost, wire, index) = (Cost::of_both(pair)?, wire(pair)?, self.index()?);
        let begun = self.ledger.now();
        self.sleep_until(begun + Duration::from_secs(seconds.into()), pair)?;
        let took = (self.ledger.now() - begun).as_secs_f64();
        let (cost_after, index_after) = (Cost::of_both(pair)?, self.index()?);
        let wire_after = self::wire(pair)?;
        let mut well = true;
        for node in 0..2 {
            let cpu = (cost_after[node].cpu - cost[node].cpu) / took;
            let switches = (cost_after[node].switches - cost[node].switches) as f64 / took;
            let sent = (wire_after[node] - wire[node]) as f64 / took;
            let written = index[node] != index_after[node];
            well &= cpu <= QUIET_CPU_MAX && sent <= QUIET_BYTES_PER_S_MAX && !written;
            println!(
                "{}: quiet for {took:.0} s: CPU {:.2} %, {switches:.0} wake-ups/s, {sent:.0} bytes/s sent, index {}",
                NAMES[node],
                cpu * 100.0,
                if written { "WRITTEN" } else { "not written" }
            );
        }
        println!(
            "targets (1 % of a CPU, {QUIET_BYTES_PER_S_MAX} bytes/s, no index write): {}",
            yes(well)
        );
        Ok(well)
    }

    /// Many files that are there from the start, and after a restart.
    fn idle_files(&mut self, files: u32) -> Result<bool> {
        let root = &Pair::roots(self.dir)[0];
        for number in 0..files {
            let dir = root.join(format!("2026/{:04}", number / 100));
            if number % 100 == 0 {
                fs::create_dir_all(&dir)?;
            }
            // A name as long as FusionPBX's.
            let name = format!("{number:08x}-e29b-41d4-a716-446655440000.wav");
            fs::write(dir.join(name), number.to_le_bytes())?;
        }
        let begun = self.ledger.now();
        let mut pair = self.start()?;
        self.wait(&mut pair, "in step", |pair| {
            sleep(Duration::from_millis(200));
            pair.status()
                .is_some_and(|nodes| nodes.iter().all(|node| in_step(node, u64::from(files))))
        })?;
        let took = (self.ledger.now() - begun).as_secs_f64();
        println!("{files} files in step after {took:.1} s, {:.0} files/s", f64::from(files) / took);
        println!("after the first copy:");
        let first = self.memory(&mut pair)?;
        pair.stop();
        let mut pair = self.start()?;
        println!("after a restart of both:");
        let second = self.memory(&mut pair)?;
        pair.stop();
        Ok(first && second)
    }

    fn memory(&self, pair: &mut Pair) -> Result<bool> {
        sleep(Duration::from_secs(2));
        let cost = Cost::of_both(pair)?;
        for (name, cost) in NAMES.iter().zip(&cost) {
            println!("{name}: {cost}");
        }
        let small = cost.iter().all(|cost| cost.memory_kb <= MEMORY_MAX_KB);
        println!("target ({MEMORY_MAX_KB} kB resident): {}", yes(small));
        Ok(self.watch_quiet(pair, 10)? && small)
    }

    fn sleep_until(&self, at: Duration, pair: &mut Pair) -> Result<()> {
        pair.check()?;
        sleep(at.saturating_sub(self.ledger.now()));
        Ok(pair.check()?)
    }

    /// Returns name, size and mtime of every file of each index; the lock file is no part of it.
    fn index(&self) -> Result<[Vec<IndexFile>; 2]> {
        let list = |name: &str| -> Result<Vec<_>> {
            let mut files = Vec::new();
            for entry in fs::read_dir(self.dir.join(name).join("state"))? {
                let path = entry?.path();
                let stat = fs::metadata(&path)?;
                files.push((path, stat.len(), stat.mtime(), stat.mtime_nsec()));
            }
            files.sort();
            Ok(files)
        };
        Ok([list(NAMES[0])?, list(NAMES[1])?])
    }
}

fn in_step(node: &Status, files: u64) -> bool {
    node.shares.iter().all(|share| share.files == files && share.pending_files == 0)
        && node.peers.iter().all(|peer| peer.shares.iter().all(|share| share.pending_files == 0))
}

/// Returns the bytes that each node has sent.
fn wire(pair: &Pair) -> Result<[u64; 2]> {
    let status = pair.status().ok_or("the daemons do not answer")?;
    Ok(status.map(|node| node.peers.iter().map(|peer| peer.sent_bytes).sum()))
}

/// What a process has cost so far, from `/proc`.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Seconds.
    cpu: f64,
    /// Context switches of all threads, voluntary or not.
    switches: u64,
    /// Resident now, and at most so far.
    memory_kb: u64,
    peak_kb: u64,
}

impl Cost {
    fn of_both(pair: &Pair) -> Result<[Cost; 2]> {
        Ok([Cost::of(pair.process(0))?, Cost::of(pair.process(1))?])
    }

    fn of(process: u32) -> Result<Cost> {
        let dir = PathBuf::from(format!("/proc/{process}"));
        let stat = fs::read_to_string(dir.join("stat"))?;
        // The name in parentheses may hold anything; utime and stime are fields 14 and 15.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.map(|field| field.parse::<f64>().unwrap_or(0.0)).sum();
        let mut switches = 0;
        for task in fs::read_dir(dir.join("task"))? {
            let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
            switches += field(&status, "voluntary_ctxt_switches:");
            switches += field(&status, "nonvoluntary_ctxt_switches:");
        }
        let status = fs::read_to_string(dir.join("status"))?;
        Ok(Cost {
            cpu: ticks / USER_HZ,
            switches,
            memory_kb: field(&status, "VmRSS:"),
            peak_kb: field(&status, "VmHWM:"),
        })
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Cost { cpu, memory_kb, peak_kb, switches } = self;
        write!(
            f,
            "CPU {cpu:.2} s, resident {memory_kb} kB, peak {peak_kb} kB, {switches} context switches"
        )
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn row(lags: &Lags) -> String {
    let cells =
        [50, 90, 99, 100].map(|percent| lags.percentile(percent).map_or("-".to_owned(), ms));
    let [p50, p90, p99, max] = cells;
    format!("{:>7} {p50:>8} {p90:>8} {p99:>8} {max:>8}", lags.len())
}

fn named(lags: &Lags) -> String {
    let [p50, p90, p99, max] =
        [50, 90, 99, 100].map(|percent| lags.percentile(percent).map_or("-".to_owned(), ms));
    format!("{} files, p50 {p50}, p90 {p90}, p99 {p99}, max {max}", lags.len())
}

fn ms(time: Duration) -> String {
    format!("{:.1}ms", time.as_secs_f64() * 1e3)
}

fn yes(reached: bool) -> &'static str {
    if reached { "reached" } else { "MISSED" }
}
