//! The demo in the end, on one screen.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::show::{Style, bytes, count, plain, seconds, things};
use crate::load::{Act, Compared, Lags, NAMES, Sample, Tally};
use crate::serve::api::VerifyReport;

/// Differences that are shown.
const SHOWN_MAX: usize = 5;

/// What the demo found.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) tallies: [Tally; 2],
    pub(super) samples: Vec<Sample>,
    /// Bytes on the wire that each node sent, if it still answered.
    pub(super) sent: Option<[u64; 2]>,
    /// What did not arrive in time.
    pub(super) late: Vec<(String, Duration)>,
    /// Warnings of the daemons.
    pub(super) said: Vec<String>,
    /// Whether both daemons ended well.
    pub(super) stopped: bool,
    pub(super) report: VerifyReport,
    pub(super) compared: Compared,
}

impl Summary {
    /// True if all is well: for recsync, for the comparison that knows nothing of it, and for who
    /// waited for each file.
    pub(super) fn is_consistent(&self) -> bool {
        let VerifyReport { consistent, checks } = &self.report;
        let in_step = checks.iter().all(|check| check.in_flight == 0);
        *consistent
            && !checks.is_empty()
            && in_step
            && self.compared.differences.is_empty()
            && self.late.is_empty()
            && self.stopped
    }

    pub(super) fn text(&self) -> String {
        format!("\n{}\n{}\n{}", self.table(), self.lag(), self.verdict())
    }

    fn table(&self) -> String {
        let row = |name: &str, cell: &dyn Fn(usize) -> String| {
            [plain(name), plain(cell(0)), plain(cell(1))]
        };
        let of = |number: fn(&Tally) -> u64| move |node: usize| number(&self.tallies[node]);
        let counted = |name, number: fn(&Tally) -> u64| row(name, &|node| count(of(number)(node)));
        let carried = |name, done: fn(&Tally) -> u64, carried: fn(&Tally) -> u64| {
            row(name, &|node| format!("{} of {}", count(of(carried)(node)), count(of(done)(node))))
        };
        let mut rows = vec![
            counted("calls recorded", |tally| tally.recorded),
            counted("too short, not kept", |tally| tally.discarded),
            row("bytes recorded", &|node| bytes(self.tallies[node].bytes)),
            carried("renames carried", |tally| tally.renamed, |tally| tally.renames_carried),
            row("  without moving bytes", &|node| count(self.tallies[1 - node].applied_as_renames)),
            carried(
                "conversions carried",
                |tally| tally.converted,
                |tally| tally.conversions_carried,
            ),
            counted("deletes by retention", |tally| tally.deleted),
            counted("deletes carried", |tally| tally.deletes_carried),
        ];
        if let Some(sent) = self.sent {
            rows.push(row("sent on the wire", &|node| bytes(sent[node])));
        }
        let style = Style { colours: false };
        style.table(["", NAMES[0], NAMES[1]], &rows)
    }

    fn lag(&self) -> String {
        let line = |name: &str, wanted: fn(Act) -> bool| {
            let lags = self.samples.iter().filter(|sample| wanted(sample.act));
            let lags = Lags::new(lags.map(|sample| sample.lag));
            let at = |percent| {
                lags.percentile(percent).map_or("-".to_owned(), |lag| seconds(lag.as_secs_f64()))
            };
            [name.to_owned(), count(lags.len() as u64), at(50), at(90), at(99), at(100)].map(plain)
        };
        let rows = [
            line("recordings", |act| act == Act::Record),
            line("renames, conversions, deletes", |act| act != Act::Record),
        ];
        let style = Style { colours: false };
        let table = style.table(["LAG OF", "MEASURED", "P50", "P90", "P99", "MAX"], &rows);
        format!(
            "{table}From the close, rename or delete until its node has heard that it is durable on\n\
             the other. Not measured: what was renamed or deleted before it got there.\n"
        )
    }

    fn verdict(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all");
        for check in &self.report.checks {
            let found = match check.differences.len() as u64 {
                0 => "no differences".to_owned(),
                some => things(some, "difference"),
            };
            let (files, size) = (things(check.files, "file"), bytes(check.bytes));
            let took = seconds(check.seconds);
            line(format!("recsync verify: {found}, {files}, {size} compared in {took}"));
            for difference in check.differences.iter().take(SHOWN_MAX) {
                line(format!("  {}: {:?}", difference.path, difference.kind));
            }
            if check.in_flight > 0 {
                line(format!("  {} still on the way", things(check.in_flight, "path")));
            }
        }
        let Compared { files, bytes: size, differences } = &self.compared;
        let found = match differences.len() as u64 {
            0 => "no differences".to_owned(),
            some => things(some, "difference"),
        };
        line(format!(
            "byte for byte, without recsync: {found}, {}, {}",
            things(*files, "file"),
            bytes(*size)
        ));
        for difference in differences.iter().take(SHOWN_MAX) {
            line(format!("  {difference}"));
        }
        for (path, age) in &self.late {
            line(format!("not there after {}: {path}", seconds(age.as_secs_f64())));
        }
        if !self.stopped {
            line("a daemon did not end well".to_owned());
        }
        if !self.is_consistent() {
            self.said.iter().for_each(|said| line(said.clone()));
        }
        let verdict = if self.is_consistent() { "consistent" } else { "NOT CONSISTENT" };
        line(format!("Result: {verdict}"));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::testing;

    fn summary() -> Summary {
        let tally = Tally {
            recorded: 211,
            bytes: 40_100_000,
            discarded: 17,
            renamed: 25,
            converted: 24,
            deleted: 26,
            shipped: 250,
            renames_carried: 25,
            conversions_carried: 24,
            deletes_carried: 50,
            applied_as_renames: 23,
            growing: 0,
        };
        let sample = |act, ms| {
            let (since, lag) = (Duration::ZERO, Duration::from_millis(ms));
            Sample { node: 0, act, since, lag }
        };
        Summary {
            tallies: [tally, Tally { applied_as_renames: 25, ..tally }],
            samples: (30..130)
                .map(|ms| sample(Act::Record, ms))
                .chain([sample(Act::Delete, 31)])
                .collect(),
            sent: Some([41_000_000, 41_200_000]),
            late: vec![],
            said: vec![],
            stopped: true,
            report: VerifyReport { consistent: true, checks: vec![testing::check()] },
            compared: Compared { files: 120_345, bytes: 9_182_736_455, differences: vec![] },
        }
    }

    #[test]
    fn one_screen() {
        assert!(summary().is_consistent());
        insta::assert_snapshot!(summary().text(), @"

                                fs1       fs2
        calls recorded          211       211
        too short, not kept     17        17
        bytes recorded          40.1 MB   40.1 MB
        renames carried         25 of 25  25 of 25
          without moving bytes  25        23
        conversions carried     24 of 24  24 of 24
        deletes by retention    26        26
        deletes carried         50        50
        sent on the wire        41.0 MB   41.2 MB

        LAG OF                         MEASURED  P50    P90     P99     MAX
        recordings                     100       79 ms  119 ms  128 ms  129 ms
        renames, conversions, deletes  1         31 ms  31 ms   31 ms   31 ms
        From the close, rename or delete until its node has heard that it is durable on
        the other. Not measured: what was renamed or deleted before it got there.

        recsync verify: no differences, 120,345 files, 9.2 GB compared in 1.8 s
        byte for byte, without recsync: no differences, 120,345 files, 9.2 GB
        Result: consistent
        ");
    }

    #[test]
    fn every_doubt_is_told_and_is_no_success() {
        let doubts = [
            Summary { report: VerifyReport { consistent: true, checks: vec![] }, ..summary() },
            Summary {
                late: vec![("a.wav".into(), Duration::from_secs(120))],
                said: vec!["fs1: no room".into()],
                ..summary()
            },
            Summary { stopped: false, ..summary() },
            Summary {
                compared: Compared {
                    differences: vec!["b.wav: other bytes".into()],
                    ..Compared::default()
                },
                ..summary()
            },
        ];
        let told: String = doubts.iter().map(Summary::verdict).collect();
        assert!(doubts.iter().all(|doubt| !doubt.is_consistent()));
        insta::assert_snapshot!(told, @"
        byte for byte, without recsync: no differences, 120,345 files, 9.2 GB
        Result: NOT CONSISTENT
        recsync verify: no differences, 120,345 files, 9.2 GB compared in 1.8 s
        byte for byte, without recsync: no differences, 120,345 files, 9.2 GB
        not there after 2 min 0 s: a.wav
        fs1: no room
        Result: NOT CONSISTENT
        recsync verify: no differences, 120,345 files, 9.2 GB compared in 1.8 s
        byte for byte, without recsync: no differences, 120,345 files, 9.2 GB
        a daemon did not end well
        Result: NOT CONSISTENT
        recsync verify: no differences, 120,345 files, 9.2 GB compared in 1.8 s
        byte for byte, without recsync: 1 difference, 0 files, 0 B
          b.wav: other bytes
        Result: NOT CONSISTENT
        ");
    }
}
