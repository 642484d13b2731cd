//! Tables and a chart of what was measured. What was not measured is a dash, or a sentence.

use std::fmt::Write as _;

use recsync::load::Lags;

use crate::page::seconds;
use crate::systems::System;
use crate::workloads::{Damage, Figures, LIMIT, Workload};

/// All rounds of one system in one workload.
pub(crate) struct Row {
    pub(crate) system: System,
    pub(crate) version: String,
    /// A round that did not measure what it should says why.
    pub(crate) rounds: Vec<std::result::Result<Figures, String>>,
}

/// One workload.
pub(crate) struct Section {
    pub(crate) workload: Workload,
    /// Files of [`Workload::Many`].
    pub(crate) many: u64,
    /// What was done, with the numbers of this run.
    pub(crate) what: String,
    pub(crate) rows: Vec<Row>,
    /// Systems that are not there, and why.
    pub(crate) skipped: Vec<String>,
}

#[derive(Clone, Copy)]
enum Column {
    Files,
    P50,
    P99,
    Max,
    Never,
    Drained,
    /// p50 as a multiple of recsync's.
    TimesRecsync,
    Took,
    FilesPerS,
    MbPerS,
    /// Rate as a part of the floor's.
    OfFloor,
    Wire,
    WirePercent,
    /// Bytes on the wire as a part of what the limit allows one way.
    OfLimit,
    Cpu,
    CpuPerFile,
    Peak,
    Resident,
    IdleCpu,
    StartUp,
    Verify,
    VerifyWire,
    Damage,
}

use Column as C;

impl Section {
    fn columns(&self) -> &'static [Column] {
        match self.workload {
            Workload::Idle => &[
                C::Files,
                C::P50,
                C::P99,
                C::Max,
                C::TimesRecsync,
                C::CpuPerFile,
                C::Peak,
                C::Damage,
            ],
            Workload::Peak => &[
                C::Files,
                C::P50,
                C::P99,
                C::Max,
                C::Never,
                C::Drained,
                C::TimesRecsync,
                C::Cpu,
                C::CpuPerFile,
                C::Peak,
                C::Damage,
            ],
            Workload::BulkSmall => &[
                C::Took,
                C::FilesPerS,
                C::MbPerS,
                C::OfFloor,
                C::Never,
                C::Cpu,
                C::Peak,
                C::Damage,
            ],
            Workload::BulkLarge => {
                &[C::Took, C::MbPerS, C::OfFloor, C::Never, C::Cpu, C::Peak, C::Damage]
            }
            Workload::Rename | Workload::Append | Workload::Identical => {
                &[C::Took, C::Wire, C::WirePercent, C::Never, C::Cpu, C::Peak]
            }
            Workload::CallsDuringLarge | Workload::CallsDuringBacklog => {
                &[C::Files, C::P50, C::P99, C::Max, C::Never, C::Took, C::Cpu, C::Peak, C::Damage]
            }
            Workload::Limited => &[
                C::Wire,
                C::OfLimit,
                C::Files,
                C::P50,
                C::P99,
                C::Max,
                C::Never,
                C::Cpu,
                C::Peak,
                C::Damage,
            ],
            Workload::Many => {
                &[C::Resident, C::IdleCpu, C::StartUp, C::Verify, C::VerifyWire, C::Peak]
            }
        }
    }

    /// Returns the section as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("{}\n\n| system | version | settings |", self.what);
        for column in self.columns() {
            let _infallible = write!(out, " {} |", column.title());
        }
        out.push_str("\n|---|---|---|");
        out.push_str(&"---:|".repeat(self.columns().len()));
        out.push('\n');
        for row in &self.rows {
            let _infallible = write!(
                out,
                "| {} | {} | {} |",
                row.system.name(),
                row.version,
                row.system.settings()
            );
            if row.measured().next().is_none() {
                let why = row.rounds.iter().find_map(|round| round.as_ref().err());
                let _infallible = write!(
                    out,
                    " not measured: {} |",
                    why.map_or("no round ended", String::as_str).replace(['\n', '|'], " ")
                );
                out.push_str(&" - |".repeat(self.columns().len() - 1));
            } else {
                for column in self.columns() {
                    let cell = column.cell(row, self);
                    let _infallible = write!(out, " {} |", cell.as_deref().unwrap_or("-"));
                }
            }
            out.push('\n');
        }
        for row in &self.rows {
            let failed = row.rounds.iter().filter(|round| round.is_err()).count();
            if failed > 0 && row.measured().next().is_some() {
                let _infallible = writeln!(
                    out,
                    "\n{}: {failed} of {} rounds did not measure anything and are left out.",
                    row.system.name(),
                    row.rounds.len()
                );
            }
        }
        for skipped in &self.skipped {
            let _infallible = writeln!(out, "\nSKIPPED {skipped}");
        }
        out
    }

    fn row(&self, system: System) -> Option<&Row> {
        self.rows.iter().find(|row| row.system == system)
    }
}

impl Row {
    fn measured(&self) -> impl Iterator<Item = &Figures> {
        self.rounds.iter().flatten()
    }

    fn median(&self, of: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        let mut all: Vec<f64> = self.measured().filter_map(of).collect();
        all.sort_by(f64::total_cmp);
        (!all.is_empty()).then(|| all[(all.len() - 1) / 2])
    }

    /// Both nodes, each the median of all rounds.
    fn both(&self, of: impl Fn(&Figures) -> Option<[f64; 2]>) -> Option<[f64; 2]> {
        let [one, other] = [0, 1].map(|node| self.median(|figures| Some(of(figures)?[node])));
        Some([one?, other?])
    }

    /// The median of a percentile in seconds. A recording that never came is later than any other.
    fn percentile(&self, percent: usize) -> Option<f64> {
        self.median(|figures| {
            let lags = Lags::new(figures.lags.iter().copied());
            Some(lags.percentile(percent)?.as_secs_f64())
        })
    }

    /// Bytes a second.
    fn rate(&self) -> Option<f64> {
        self.median(|figures| Some(figures.bytes as f64 / figures.took?.as_secs_f64()))
    }
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            C::Files => "recordings",
            C::P50 => "p50",
            C::P99 => "p99",
            C::Max => "max",
            C::Never => "not there in time",
            C::Drained => "all there after the last close",
            C::TimesRecsync => "p50 / recsync's",
            C::Took => "time",
            C::FilesPerS => "files/s",
            C::MbPerS => "MB/s",
            C::OfFloor => "rate / floor's",
            C::Wire => "bytes on the wire",
            C::WirePercent => "of the content",
            C::OfLimit => "of the limit",
            C::Cpu => "CPU s, fs1 + fs2",
            C::CpuPerFile => "CPU a file",
            C::Peak => "peak MB, fs1 + fs2",
            C::Resident => "idle: resident MB, fs1 + fs2",
            C::IdleCpu => "idle: CPU, fs1 + fs2",
            C::StartUp => "start-up to watching",
            C::Verify => "verify",
            C::VerifyWire => "verify: bytes on the wire",
            C::Damage => "lost / vanished / damaged at origin / damaged at peer",
        }
    }

    fn cell(self, row: &Row, section: &Section) -> Option<String> {
        let per_cent = |part: f64| format!("{:.2} %", part * 100.0);
        let mb = |kb: [u64; 2]| Some(kb.map(|kb| kb as f64 * 1024.0 / 1e6));
        Some(match self {
            C::Files => format!("{:.0}", row.median(|figures| Some(figures.files as f64))?),
            C::P50 => seconds(row.percentile(50)?),
            C::P99 => seconds(row.percentile(99)?),
            C::Max => seconds(row.percentile(100)?),
            C::Never => format!("{}", row.measured().map(|figures| figures.never).sum::<u64>()),
            C::Drained => seconds(row.median(|figures| Some(figures.drained?.as_secs_f64()))?),
            C::TimesRecsync => {
                let own = section.row(System::Recsync)?.percentile(50)?;
                times(row.percentile(50)? / own)
            }
            C::Took => seconds(row.median(|figures| Some(figures.took?.as_secs_f64()))?),
            C::FilesPerS => {
                let rate =
                    |figures: &Figures| Some(figures.files as f64 / figures.took?.as_secs_f64());
                format!("{:.0}", row.median(rate)?)
            }
            C::MbPerS => format!("{:.1}", row.rate()? / 1e6),
            C::OfFloor => format!("{:.2}", row.rate()? / section.row(System::Floor)?.rate()?),
            C::Wire => bytes(row.median(|figures| Some(figures.wire? as f64))?),
            C::WirePercent => {
                per_cent(row.median(|figures| Some(figures.wire? as f64 / figures.bytes as f64))?)
            }
            C::OfLimit => per_cent(row.median(|figures| {
                Some(figures.wire? as f64 / (LIMIT as f64 * figures.took?.as_secs_f64()))
            })?),
            C::Cpu => pair(row.both(|figures| figures.cpu)?),
            C::CpuPerFile => {
                let a_file = |figures: &Figures| {
                    let arrived = figures.files.saturating_sub(figures.never);
                    let [one, other] = figures.cpu?;
                    (arrived > 0).then(|| (one + other) / arrived as f64)
                };
                seconds(row.median(a_file)?)
            }
            C::Peak => pair(row.both(|figures| mb(figures.peak_kb?))?),
            C::Resident => pair(row.both(|figures| mb(figures.resident_kb?))?),
            C::IdleCpu => {
                let [one, other] = row.both(|figures| figures.idle_cpu_percent)?;
                format!("{one:.2} % + {other:.2} %")
            }
            C::StartUp => seconds(row.median(|figures| Some(figures.start_up?.as_secs_f64()))?),
            C::Verify => seconds(row.median(|figures| Some(figures.verify?.0.as_secs_f64()))?),
            C::VerifyWire => bytes(row.median(|figures| Some(figures.verify?.1? as f64))?),
            C::Damage => {
                let mut sum = None::<Damage>;
                for damage in row.measured().filter_map(|figures| figures.damage) {
                    let all = sum.get_or_insert_default();
                    all.lost += damage.lost;
                    all.vanished += damage.vanished;
                    all.damaged[0] += damage.damaged[0];
                    all.damaged[1] += damage.damaged[1];
                }
                let Damage { lost, vanished, damaged: [origin, peer] } = sum?;
                let cell = format!("{lost} / {vanished} / {origin} / {peer}");
                if lost + vanished + origin + peer > 0 { format!("**{cell}**") } else { cell }
            }
        })
    }
}

fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio > 1e9 => "-".to_owned(),
        ratio if ratio < 10.0 => format!("{ratio:.2}"),
        ratio => format!("{ratio:.0}"),
    }
}

fn bytes(count: f64) -> String {
    match count {
        count if count < 1e6 => format!("{:.1} kB", count / 1e3),
        count => format!("{:.1} MB", count / 1e6),
    }
}

fn pair([one, other]: [f64; 2]) -> String {
    format!("{one:.1} + {other:.1}")
}

/// Returns a chart of the p50 and p99 of each system, on a logarithmic scale, as SVG.
pub(crate) fn chart(section: &Section) -> String {
    const LEFT: f64 = 190.0;
    const DECADE: f64 = 105.0;
    const LINE: f64 = 30.0;
    // From 1 ms to 100 s.
    let at = |time: f64| LEFT + (time.clamp(1e-3, 1e2).log10() + 3.0) * DECADE;
    let rows: Vec<_> = section
        .rows
        .iter()
        .filter_map(|row| Some((row, row.percentile(50)?, row.percentile(99)?)))
        .collect();
    let height = LINE * (rows.len() as f64 + 2.0);
    let width = LEFT + 5.0 * DECADE + 90.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (decade, label) in ["1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"].iter().enumerate() {
        let x = LEFT + decade as f64 * DECADE;
        let _infallible = writeln!(
            out,
            "<line x1=\"{x}\" y1=\"{LINE}\" x2=\"{x}\" y2=\"{}\" stroke=\"#ddd\"/>\
             <text x=\"{x}\" y=\"20\" text-anchor=\"middle\" fill=\"#555\">{label}</text>",
            height - LINE / 2.0
        );
    }
    for (index, (row, p50, p99)) in rows.iter().enumerate() {
        let y = LINE * (index as f64 + 1.2);
        let is_ours = matches!(row.system, System::Recsync | System::Recsync0);
        let colour = if is_ours { "#1a7f37" } else { "#8c959f" };
        let _infallible = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{}\" height=\"18\" fill=\"{colour}\"/>\
             <line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            LEFT - 8.0,
            y + 14.0,
            row.system.name(),
            at(*p50) - LEFT,
            at(*p50),
            y + 9.0,
            at(*p99),
            y + 9.0,
            at(*p99) + 6.0,
            y + 14.0,
            seconds(*p50)
        );
    }
    out.push_str("</svg>\n");
    out
}
