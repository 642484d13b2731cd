//! Many histories, on all cores, and what they add up to.
//! **Invariant:** which histories fail, and how, does not depend on the number of cores.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recsync::sys::Clock;

use crate::disk::lock;
use crate::history::History;
use crate::rows::Rows;
use crate::story::Telling;
use crate::world::{End, play};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What is to be played.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The first seed.
    pub first: u64,
    /// How many, one seed after the other.
    pub count: u64,
    /// Goes on after a failure.
    pub keep_going: bool,
}

/// What was played.
#[derive(Debug, Default)]
pub struct Tally {
    /// The first thing wrong with each history that failed, by seed.
    pub failed: BTreeMap<u64, String>,
    /// Steps of each history.
    steps: Vec<u64>,
    calls: u64,
    rows: Rows,
    elapsed: Duration,
    told: Duration,
    cores: usize,
}

/// Plays a campaign on all cores; `tell` is given a line every few seconds and, if it goes on after a
/// failure, one for each that failed.
pub fn run(campaign: &Campaign, tell: &(dyn Fn(&str) + Sync)) -> Tally {
    let clock = Clock::start();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let tally = Mutex::new(Tally { cores, ..Tally::default() });
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= campaign.count {
                        return;
                    }
                    let seed = campaign.first.wrapping_add(number);
                    let end = play_safely(History::new(seed));
                    let mut tally = lock(&tally);
                    tally.add(seed, &end);
                    tally.elapsed = clock.now().mono;
                    match end.wrongs.first() {
                        Some(wrong) if campaign.keep_going => {
                            tell(&format!("seed {seed}: {wrong}"))
                        }
                        Some(_) => next.store(campaign.count, Ordering::Relaxed),
                        None => {}
                    }
                    if tally.elapsed - tally.told > TELL_EVERY {
                        tally.told = tally.elapsed;
                        tell(&tally.progress());
                    }
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    tally.elapsed = clock.now().mono;
    tally.steps.sort_unstable();
    tally
}

/// Plays a history; a panic is a failure like others, and hides no seed.
pub fn play_safely(history: History) -> End {
    catch_unwind(AssertUnwindSafe(|| play(history, Telling::Silent)))
        .unwrap_or_else(|_| End { wrongs: vec!["panicked".to_owned()], ..End::default() })
}

impl Tally {
    fn add(&mut self, seed: u64, end: &End) {
        self.steps.push(end.steps);
        self.calls += end.calls;
        self.rows.add(&end.rows);
        if let Some(wrong) = end.wrongs.first() {
            self.failed.insert(seed, wrong.clone());
        }
    }

    fn progress(&self) -> String {
        let seconds = self.elapsed.as_secs();
        format!("{} histories, {} failed, {seconds} s", self.steps.len(), self.failed.len())
    }
}

/// The sum, once it is over.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        let count = self.steps.len();
        let steps: u64 = self.steps.iter().sum();
        let per_second = steps as f64 / seconds;
        let median = self.steps.get(count / 2).unwrap_or(&0);
        let (rows, used) = self.rows.used();
        writeln!(f, "{}rows: {used} of {rows} used", self.rows)?;
        writeln!(
            f,
            "{count} histories, {} failed, in {seconds:.1} s: {:.0} histories/s",
            self.failed.len(),
            count as f64 / seconds
        )?;
        write!(
            f,
            "{steps} steps, median {median} a history; {per_second:.0} steps/s on {} cores, {:.0} a core; {} system calls",
            self.cores,
            per_second / self.cores.max(1) as f64,
            self.calls
        )
    }
}
