//! recsync beside lsyncd with rsyncd, Syncthing, rsync, and what the machine can do, on the same work in one
//! run.
//!
//! ```text
//! cargo bench --bench compare -- --write               all of it: docs/performance.md and its charts
//! cargo bench --bench compare -- --only idle,peak      some of it
//! cargo bench --bench compare -- --scale 0.05          smaller, to see that it works
//! ```
//!
//! Systems take turns, round after round; a table shows medians. Recordings are judged byte by byte in the
//! end, on both nodes. For recsync a recording has arrived when its own node has heard that it is durable
//! on the other; for the others when it stands there complete under its name, durable or not.
//! All traffic is on loopback, in a network namespace of its own where that can be had; otherwise bytes
//! on the wire are not measured.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "looks at daemons from outside, and plays their users"
)]
#![expect(clippy::print_stdout, reason = "prints what it measures")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of workloads")]

mod alone;
mod floor;
#[path = "../page/mod.rs"]
mod page;
mod peers;
mod process;
mod report;
mod systems;
mod workloads;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser as _;
use recsync::load::Scratch;

use report::{Row, Section};
use systems::System;
use workloads::{LIMIT, Run, Workload};

/// Measures recsync beside other systems on the same work
#[derive(Debug, clap::Parser)]
struct Args {
    /// Only these workloads
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Only these systems
    #[arg(long, value_delimiter = ',')]
    systems: Vec<System>,
    /// Rounds; a table shows their medians
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// All sizes and counts times this, but for those of the peak, under a limit, and of many files
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// The peak: recordings finished in a second on each node
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// The peak: calls that grow on each node
    #[arg(long, default_value_t = 800)]
    growing: usize,
    /// The peak: its length
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// How many files there are in the workload `many`
    #[arg(long, value_delimiter = ',', default_values_t = [100_000_u64, 1_000_000])]
    files: Vec<u64>,
    /// For how long an idle system is watched
    #[arg(long, default_value_t = 30)]
    idle_seconds: u32,
    /// Put the tables and charts into docs/performance.md
    #[arg(long)]
    write: bool,
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
        println!("nothing to do: run it with `cargo bench --bench compare -- --help`");
        return ExitCode::SUCCESS;
    }
    if let Some(code) = alone::run_inside() {
        return code;
    }
    if !alone::is_inside() {
        println!(
            "SKIPPED bytes on the wire: no network namespace of our own (unshare, ip) can be had"
        );
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
    use clap::ValueEnum as _;
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = Scratch::new(&dir)?;
    let machine = format!(
        "{} Both nodes, the recorders and this program share this machine.",
        page::machine(scratch.path())
    );
    println!("{machine}\n");
    let mut freed = Freed::default();
    for workload in Workload::value_variants() {
        if !args.only.is_empty() && !args.only.contains(workload) {
            continue;
        }
        let counts: &[u64] = if *workload == Workload::Many { &args.files } else { &[0] };
        for many in counts {
            let section = measure(args, *workload, *many, scratch.path(), &mut freed)?;
            let table = section.markdown();
            println!("{table}");
            if args.write {
                write(args, &section, &table, &machine)?;
            }
        }
    }
    Ok(())
}

fn measure(
    args: &Args,
    workload: Workload,
    many: u64,
    scratch: &Path,
    freed: &mut Freed,
) -> Result<Section> {
    let program = Path::new(env!("CARGO_BIN_EXE_recsync"));
    let mut section = Section {
        workload,
        many,
        what: what(args, workload, many),
        rows: Vec::new(),
        skipped: Vec::new(),
    };
    for system in workload.systems() {
        if !args.systems.is_empty() && !args.systems.contains(system) {
            continue;
        }
        match system.version() {
            Ok(version) => section.rows.push(Row { system: *system, version, rounds: Vec::new() }),
            Err(why) => section
                .skipped
                .push(format!("{}: {why}; tests/setup.sh installs it on Debian", system.name())),
        }
    }
    // Whatever it measures next to, a second round of a million files tells nothing new.
    let rounds = if workload == Workload::Many { 1 } else { args.rounds };
    for round in 0..rounds {
        let mut left = Vec::new();
        for row in &mut section.rows {
            println!("{} {:?}: round {} of {rounds}", row.system.name(), workload, round + 1);
            freed.wait();
            let dir = scratch.join(format!("run-{}", left.len()));
            fs::create_dir_all(&dir)?;
            let inodes = free_inodes(scratch)?;
            let run = Run { args, program, dir: dir.clone(), system: row.system, many };
            let figures = run.run(workload).map_err(|error| error.to_string());
            if let Err(why) = &figures {
                println!("  not measured: {why}");
            }
            row.rounds.push(figures);
            // Few large files need the room, and many small ones what `Freed` says.
            if inodes.saturating_sub(free_inodes(scratch)?) < MANY_INODES {
                fs::remove_dir_all(dir)?;
                rustix::fs::sync();
            } else {
                left.push(dir);
            }
        }
        if !left.is_empty() {
            left.iter().try_for_each(fs::remove_dir_all)?;
            rustix::fs::sync();
            *freed = Freed(Some(Instant::now()));
        }
    }
    Ok(section)
}

/// Files from which on a removal is waited for.
const MANY_INODES: u64 = 500;
/// ext4 without a journal does not use an inode again for a minute after its removal, or for six while its block is
/// dirty (`EXT4_RECENCY_MIN`, `EXT4_RECENCY_DIRTY`): who creates files meanwhile spends half of its time in the search
/// for others.
const RECENCY: Duration = Duration::from_secs(365);

/// When many inodes were freed last.
#[derive(Debug, Default)]
struct Freed(Option<Instant>);

impl Freed {
    /// Waits until that cannot be felt any more. No event tells: the kernel compares the time of the removal with
    /// the clock.
    fn wait(&self) {
        if let Some(at) = self.0 {
            std::thread::sleep((at + RECENCY).saturating_duration_since(Instant::now()));
        }
    }
}

fn free_inodes(dir: &Path) -> Result<u64> {
    Ok(rustix::fs::statvfs(dir)?.f_ffree)
}

/// Says what is done, with the numbers of this run.
fn what(args: &Args, workload: Workload, many: u64) -> String {
    let scaled = |full: f64| full * args.scale;
    let rounds = format!("{} rounds, medians.", args.rounds);
    match workload {
        Workload::Idle => {
            format!("One recording of 190 kB at a time, on either node in turn; {rounds}")
        }
        Workload::Peak => format!(
            "{} recordings finished a second on each node while {} grow on each, {} s; {rounds} p50, p99 and max are of the \
             recordings closed within that time; those that still grow then are closed together in the second after it, \
             and count in everything else.",
            args.rate, args.growing, args.seconds
        ),
        Workload::BulkSmall => format!(
            "{:.0} recordings of 100 kB that fs2 missed while it was down, from its start on; rsync and the floors copy \
             the same files once; {rounds}",
            scaled(10_000.0)
        ),
        Workload::BulkLarge => {
            format!("Two recordings of {:.0} MiB likewise; {rounds}", scaled(1024.0))
        }
        Workload::Rename => {
            format!(
                "A directory with 100 recordings, {:.0} MiB, is renamed; {rounds}",
                scaled(1024.0)
            )
        }
        Workload::Append => format!(
            "A recording of {:.0} MiB gets 64 KiB more, and its header is patched in place; {rounds}",
            scaled(1024.0)
        ),
        Workload::Identical => {
            format!("{:.0} copies of one recording of 100 kB; {rounds}", scaled(1_000.0))
        }
        Workload::CallsDuringLarge => format!(
            "Ten new recordings of 190 kB a second while a file of {:.0} MiB ships; {rounds}",
            scaled(4096.0)
        ),
        Workload::CallsDuringBacklog => format!(
            "Ten new recordings of 190 kB a second while {:.0} files of 50 kB ship; {rounds}",
            scaled(50_000.0)
        ),
        Workload::Limited => format!(
            "A file ships under a limit of {:.0} MB/s, and ten new recordings of 190 kB a second from the same node: \
             what crosses the wire in 10 s, both ways, and how late the recordings are; {rounds}",
            LIMIT as f64 / 1e6
        ),
        Workload::Many => format!(
            "{many} files of 8 bytes, the same on both nodes; once. Each node is started again with warm caches while \
             the other one runs: the longer of both; idle for {} s; rsync's verification is `rsync -an --delete \
             --itemize-changes`, which looks at sizes and mtimes.",
            args.idle_seconds
        ),
    }
}

/// Puts a section where it belongs in the docs.
fn write(args: &Args, section: &Section, table: &str, machine: &str) -> Result<()> {
    use clap::ValueEnum as _;
    let name = section
        .workload
        .to_possible_value()
        .map_or(String::new(), |value| value.get_name().to_owned());
    let marker = match section.workload {
        Workload::Many => format!("{name}-{}", section.many),
        _ => name.clone(),
    };
    let mut text = format!("{table}\n{machine}");
    if args.scale < 1.0 {
        text.push_str(&format!(" Scaled to {}.", args.scale));
    }
    if matches!(section.workload, Workload::Idle | Workload::Peak) {
        let chart = format!("{name}.svg");
        fs::write(page::document(&format!("docs/{chart}")), report::chart(section))?;
        text.push_str(&format!("\n\n![p50 (bar) and p99 (line), logarithmic]({chart})"));
    }
    if section.workload == Workload::Peak {
        page::write("README.md", &marker, table.trim_end())?;
    }
    Ok(page::write(page::TABLES, &marker, &text)?)
}
