//! `recsync demo`: two daemons, calls on both, and proof that nothing was lost.
//!
//! **Invariant:** whichever way it ends, no process and no file of it stays; only after a
//! difference the scratch directory is left for a look.
#![forbid(unsafe_code)]

mod signals;
mod summary;
mod view;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::show::bytes;
use super::{Exit, out};
use crate::load::{Compared, Ledger, Load, Pair, Profile, Scratch, compare};
use crate::serve::api::{VerifyReport, VerifyRequest};
use crate::sys::Clock;
use signals::{Interrupted, Signals};
use summary::Summary;
use view::View;

/// Even a small machine records as many calls at once, and finishes as many files a second.
const GROWING_MIN: usize = 20;
const RATE_MIN: u32 = 5;
/// A large machine shows no more by more.
const RATE_MAX_BY_DEFAULT: u32 = 50;
/// Mean length of a call in seconds: what makes `rate × length` calls grow at any time.
const CALL_SECONDS: usize = 4;
/// Mean size of a recording: a call of 12 s. They grow faster than real ones, to be of all sizes.
const BYTES_MEAN: u64 = 190_000;

const TICK: Duration = Duration::from_millis(100);
/// How long the daemons may take to be ready, and what is under way at the end to arrive.
const READY_MAX: Duration = Duration::from_secs(60);
const QUIET_MAX: Duration = Duration::from_secs(120);
const VERIFY_MAX: Duration = Duration::from_secs(60);

/// Shows two real daemons at work: calls are recorded on both sides, then both are compared
///
/// Two `recsync run` processes on loopback, with real TLS, in a scratch directory of their own.
/// Simulated calls grow and are closed on both nodes; some recordings are renamed, converted or
/// deleted afterwards. Lag is measured for each file, from its close until its own node has heard
/// that it is durable on the other one. Needs no set-up and leaves nothing behind. Exit code 0 only
/// if both nodes hold the same in the end.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to make the scratch directory [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// For how many seconds new calls begin
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Recordings finished in a second on each node, at least 5 [default: by the number of CPUs]
    #[arg(long, value_name = "FILES_PER_S", value_parser = clap::value_parser!(u32).range(i64::from(RATE_MIN)..=1000))]
    rate: Option<u32>,
}

/// Plays it.
///
/// # Errors
/// If a daemon or the load cannot be started, or ends by itself.
pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let signals = Signals::listen().context("cannot listen for Ctrl-C")?;
    match play(args, &signals) {
        Err(error) if error.is::<Interrupted>() => {
            writeln!(io::stderr(), "recsync: interrupted; nothing of the demo is left")?;
            Ok(Exit::Interrupted)
        }
        ended => ended,
    }
}

fn play(args: &Args, signals: &Signals) -> anyhow::Result<Exit> {
    let profile = profile(args);
    let length = Duration::from_secs(args.seconds.into());
    let scratch = Scratch::new(&args.dir.clone().unwrap_or_else(std::env::temp_dir))?;
    check_room(&scratch, profile, args.seconds)?;

    let ledger = Arc::new(Ledger::new(Clock::start()));
    let program = std::env::current_exe().context("cannot find this program")?;
    Pair::set_up(scratch.path())?;
    let mut pair = Pair::start(&program, scratch.path(), &ledger)?;
    out::text(format!(
        "Two nodes, fs1 and fs2, in {}: on each, {} calls grow and {} files are finished a second, \
         for {} s.",
        scratch.path().display(),
        profile.growing,
        profile.finished_per_s,
        args.seconds
    ))?;
    let starting = ledger.now();
    while !pair.is_ready() {
        signals.rest(TICK)?;
        pair.check()?;
        if ledger.now() > starting + READY_MAX {
            bail!("the daemons are not ready after {READY_MAX:?}:\n{}", pair.said().join("\n"));
        }
    }

    let mut view = View::new(ledger.now(), length);
    let load = Load::start(Pair::roots(scratch.path()), profile, length, &ledger)?;
    while !load.is_over() {
        signals.rest(TICK)?;
        pair.check()?;
        view.show(&ledger)?;
    }
    load.finish()?;
    let quiet_by = ledger.now() + QUIET_MAX;
    while !ledger.is_settled() && ledger.now() < quiet_by {
        signals.rest(TICK)?;
        pair.check()?;
        view.show(&ledger)?;
    }
    view.end();

    let report = verify(&mut pair, signals)?;
    let compared = compare_trees(&scratch, signals)?;
    let summary = Summary {
        tallies: ledger.tallies(),
        samples: ledger.samples(),
        sent: pair
            .status()
            .map(|nodes| nodes.map(|node| node.peers.iter().map(|peer| peer.sent_bytes).sum())),
        late: ledger.stuck(3),
        said: pair.said(),
        stopped: pair.stop(),
        report,
        compared,
    };
    out::text(summary.text())?;
    if summary.is_consistent() {
        return Ok(Exit::Well);
    }
    out::text(format!("Both nodes are left for a look: {}", scratch.keep().display()))?;
    Ok(Exit::No)
}

fn profile(args: &Args) -> Profile {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let by_cpus = u32::try_from(cpus).unwrap_or(u32::MAX).saturating_mul(RATE_MIN);
    let by_cpus = if cfg!(debug_assertions) { RATE_MIN } else { by_cpus };
    let rate = args.rate.unwrap_or(by_cpus.min(RATE_MAX_BY_DEFAULT));
    Profile {
        growing: GROWING_MIN.max(rate as usize * CALL_SECONDS),
        finished_per_s: rate,
        bytes_mean: BYTES_MEAN,
        scripts: true,
        seed: 1,
    }
}

/// Fails now rather than half-way with a full disk: each recording is on both nodes, and what is
/// deleted stays in the trash.
fn check_room(scratch: &Scratch, profile: Profile, seconds: u32) -> anyhow::Result<()> {
    let files = u64::from(profile.finished_per_s) * u64::from(seconds) + profile.growing as u64;
    let needed = 2 * 2 * 2 * files * profile.bytes_mean;
    let stat = rustix::fs::statvfs(scratch.path()).context("cannot tell the room on the disk")?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed {
        bail!(
            "there is too little room in {}: {} are free, {} may be needed; give fewer --seconds, a \
             lower --rate, or another --dir",
            scratch.path().display(),
            bytes(free),
            bytes(needed)
        );
    }
    Ok(())
}

/// Asks the first node to compare itself with the second.
fn verify(pair: &mut Pair, signals: &Signals) -> anyhow::Result<VerifyReport> {
    let timeout_ms = u64::try_from(VERIFY_MAX.as_millis()).unwrap_or(u64::MAX);
    let request = VerifyRequest { share: None, peer: None, timeout_ms };
    let client = pair.client(0).with_timeout(VERIFY_MAX * 10);
    let report = in_background(signals, move || client.post("/api/v1/verify", &request));
    pair.check()?;
    report?.context("cannot verify")
}

/// Compares the trees without recsync.
fn compare_trees(scratch: &Scratch, signals: &Signals) -> anyhow::Result<Compared> {
    let [one, other] = Pair::roots(scratch.path());
    Ok(in_background(signals, move || compare(&one, &other))??)
}

/// Does what takes a while without being deaf to Ctrl-C.
fn in_background<T: Send + 'static>(
    signals: &Signals,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (done, result) = channel();
    std::thread::Builder::new().name("demo".to_owned()).spawn(move || {
        if done.send(work()).is_err() {
            tracing::debug!("nobody waits for it any more");
        }
    })?;
    loop {
        match result.recv_timeout(TICK) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) => signals.rest(Duration::ZERO)?,
            Err(RecvTimeoutError::Disconnected) => bail!("the comparison panicked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_less_than_promised() {
        for rate in [None, Some(5), Some(100)] {
            let profile = profile(&Args { dir: None, seconds: 20, rate });
            assert!(profile.growing >= 20 && profile.finished_per_s >= 5, "{profile:?}");
            assert_eq!(rate.unwrap_or(profile.finished_per_s), profile.finished_per_s);
        }
    }

    #[test]
    fn does_not_begin_what_the_disk_cannot_hold() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(dir.path()).unwrap();
        let args = Args { dir: None, seconds: 1, rate: Some(5) };
        let huge = Profile { bytes_mean: 1 << 50, ..profile(&args) };
        let error = check_room(&scratch, huge, 1).unwrap_err().to_string();
        assert!(
            error.starts_with("there is too little room in ") && error.contains("--dir"),
            "{error}"
        );
    }

    #[test]
    fn help() {
        insta::assert_snapshot!(crate::cli::show::help::<Args>("demo"), @"
        Shows two real daemons at work: calls are recorded on both sides, then both are compared

        Two `recsync run` processes on loopback, with real TLS, in a scratch directory of their own.
        Simulated calls grow and are closed on both nodes; some recordings are renamed, converted or deleted
        afterwards. Lag is measured for each file, from its close until its own node has heard that it is
        durable on the other one. Needs no set-up and leaves nothing behind. Exit code 0 only if both nodes
        hold the same in the end.

        Usage: demo [OPTIONS]

        Options:
              --dir <DIR>
                  Where to make the scratch directory [default: the system's temporary directory]

              --seconds <N>
                  For how many seconds new calls begin

                  [default: 20]

              --rate <FILES_PER_S>
                  Recordings finished in a second on each node, at least 5 [default: by the number of CPUs]

          -h, --help
                  Print help (see a summary with '-h')
        ");
    }
}
