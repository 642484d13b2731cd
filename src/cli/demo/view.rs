//! The demo while it runs: a few lines that change on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::out;
use crate::cli::show::{bytes, count, seconds};
use crate::load::{Act, Lags, Ledger, NAMES, Tally};

/// Time between two lines where they stay.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// What shows the demo; never in colours.
#[derive(Debug)]
pub(super) struct View {
    begun: Duration,
    length: Duration,
    /// On a terminal only.
    bar: Option<ProgressBar>,
    next_line: Duration,
}

impl View {
    /// `begun` and what follows are by the ledger's clock.
    pub(super) fn new(begun: Duration, length: Duration) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let bar = (io::stdout().is_terminal() && !dumb).then(|| bar(length));
        View { begun, length, bar, next_line: begun + LINE_EVERY }
    }

    /// Shows how it is now.
    ///
    /// # Errors
    /// If stdout is closed.
    pub(super) fn show(&mut self, ledger: &Ledger) -> anyhow::Result<()> {
        let now = ledger.now();
        let elapsed = now.saturating_sub(self.begun);
        if let Some(bar) = &self.bar {
            bar.set_position(millis(elapsed.min(self.length)));
            bar.set_message(lines(ledger));
        } else if now >= self.next_line {
            self.next_line = now + LINE_EVERY;
            out::text(line(elapsed, ledger))?;
        }
        Ok(())
    }

    /// Takes what changes off the terminal.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.end();
    }
}

fn bar(length: Duration) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(millis(length)), ProgressDrawTarget::stdout());
    let style = ProgressStyle::with_template("[{bar:40}] {percent} %\n{msg}")
        .expect("the template is a part of the program")
        .progress_chars("=> ");
    bar.with_style(style)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the lines for a terminal, none longer than 80 characters.
fn lines(ledger: &Ledger) -> String {
    let mut text = String::new();
    for (name, tally) in NAMES.iter().zip(ledger.tallies()) {
        text += &format!(
            "  {name}   {:>3} calls growing {:>6} finished {:>6} shipped {:>10}\n",
            tally.growing,
            count(tally.recorded),
            count(tally.shipped),
            bytes(tally.bytes)
        );
    }
    let lags = ledger.lags(|sample| sample.act == Act::Record);
    text + &format!(
        "  lag   {}, {} on the way",
        quantiles(&lags),
        count(ledger.outstanding() as u64)
    )
}

/// Returns the line for a file or a pipe.
fn line(elapsed: Duration, ledger: &Ledger) -> String {
    let tallies = ledger.tallies();
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    format!(
        "{:>3} s: {} calls growing, {} finished, {} shipped, {}, lag {}, {} on the way",
        elapsed.as_secs(),
        count(sum(|tally| tally.growing)),
        count(sum(|tally| tally.recorded)),
        count(sum(|tally| tally.shipped)),
        bytes(sum(|tally| tally.bytes)),
        quantiles(&ledger.lags(|sample| sample.act == Act::Record)),
        count(ledger.outstanding() as u64),
    )
}

/// Returns the middle and the tail of a distribution.
pub(super) fn quantiles(lags: &Lags) -> String {
    let at = |percent| lags.percentile(percent).map(|lag| seconds(lag.as_secs_f64()));
    match (at(50), at(99)) {
        (Some(p50), Some(p99)) => format!("p50 {p50}, p99 {p99}"),
        _ => "not yet known".to_owned(),
    }
}
