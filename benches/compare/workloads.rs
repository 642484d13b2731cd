//! What is done to each system, and what is measured.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use recsync::load::{Found, Ledger, Load, NAMES, Pair, Profile, Recording, judge, record};
use recsync::serve::Client;
use recsync::sys::Clock;
use serde_json::Value;

use crate::floor::{self, Tls};
use crate::process::Process;
use crate::systems::{Nodes, System};
use crate::{Args, Result};
use crate::{page, peers};

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Workload {
    /// One recording at a time on an idle system.
    Idle,
    /// 100 recordings a second on each node while 800 grow on each.
    Peak,
    /// 10,000 recordings of 100 KB that one node missed while it was down.
    BulkSmall,
    /// Two of 1 GiB likewise.
    BulkLarge,
    /// A directory with 1 GiB gets another name.
    Rename,
    /// 64 KiB more at the end of 1 GiB, and its header patched.
    Append,
    /// 1,000 files with the same bytes.
    Identical,
    /// New calls while a file of 4 GiB ships.
    CallsDuringLarge,
    /// New calls while a backlog of 50,000 files ships.
    CallsDuringBacklog,
    /// A file and new calls under a bandwidth limit.
    Limited,
    /// Many files: idle, start-up, verification.
    Many,
}

use System::{
    Cp, Floor, Limited, Lsyncd0, Lsyncd5, Recsync, Recsync0, Rsync, RsyncFsync, Syncthing,
};

impl Workload {
    /// Returns what is compared in it, in the order of the table.
    pub(crate) fn systems(self) -> &'static [System] {
        match self {
            Workload::Idle => &[Floor, Recsync0, Recsync, Syncthing, Lsyncd0, Lsyncd5],
            Workload::Peak => &[Recsync, Syncthing, Lsyncd0, Lsyncd5],
            Workload::BulkSmall | Workload::BulkLarge => {
                &[Floor, Cp, Recsync, RsyncFsync, Rsync, Syncthing, Lsyncd0, Lsyncd5]
            }
            Workload::Rename | Workload::Append | Workload::Identical => {
                &[Recsync, Syncthing, Lsyncd0]
            }
            Workload::CallsDuringLarge | Workload::CallsDuringBacklog => {
                &[Recsync, Syncthing, Lsyncd0]
            }
            Workload::Limited => &[Limited],
            Workload::Many => &[Recsync, Syncthing, Rsync],
        }
    }
}

/// What a run found; what it did not measure is not there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// From the close until a recording arrived, [`Duration::MAX`] if it never did; of the peak, those
    /// that were closed within it.
    pub(crate) lags: Vec<Duration>,
    /// Recordings, all of them, that had not arrived when the run's time was over.
    pub(crate) never: u64,
    /// From the last close until all had arrived.
    pub(crate) drained: Option<Duration>,
    /// How long the whole took.
    pub(crate) took: Option<Duration>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Bytes on the loopback interface, which is this program's own.
    pub(crate) wire: Option<u64>,
    /// Seconds of CPU of each node.
    pub(crate) cpu: Option<[f64; 2]>,
    pub(crate) peak_kb: Option<[u64; 2]>,
    pub(crate) resident_kb: Option<[u64; 2]>,
    pub(crate) damage: Option<Damage>,
    pub(crate) idle_cpu_percent: Option<[f64; 2]>,
    pub(crate) start_up: Option<Duration>,
    pub(crate) verify: Option<(Duration, Option<u64>)>,
}

/// What became of recordings, judged byte by byte in the end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Damage {
    /// Not at the peer, but at their origin.
    pub(crate) lost: u64,
    /// No more at their origin.
    pub(crate) vanished: u64,
    /// Other bytes than were recorded: at the origin, at the peer.
    pub(crate) damaged: [u64; 2],
}

/// The surroundings of a run.
pub(crate) struct Run<'a> {
    pub(crate) args: &'a Args,
    pub(crate) program: &'a Path,
    /// Empty, and removed afterwards.
    pub(crate) dir: PathBuf,
    pub(crate) system: System,
    /// Files of [`Workload::Many`].
    pub(crate) many: u64,
}

const PATIENCE: Duration = Duration::from_secs(300);
const TICK: Duration = Duration::from_millis(5);
const KB: u64 = 1_000;
const MIB: u64 = 1 << 20;
/// The recording of [`Workload::Idle`] and of new calls during bulk: two minutes would be 1.9 MB, most are short.
const CALL: u64 = 190 * KB;
/// From one of the new calls to the next.
const CALL_EVERY: Duration = Duration::from_millis(100);
/// Bytes a second of [`Workload::Limited`], each way.
pub(crate) const LIMIT: u64 = 20_000 * KB;
const LIMITED_FOR: Duration = Duration::from_secs(10);
const TOUCHED_MAX: u64 = 16 << 30;

impl Run<'_> {
    pub(crate) fn run(&self, workload: Workload) -> Result<Figures> {
        match workload {
            Workload::Idle => self.idle(),
            Workload::Peak => self.peak(),
            Workload::BulkSmall => self.bulk(self.scaled(10_000), 100 * KB),
            Workload::BulkLarge => self.bulk(2, self.scaled(1024 * MIB)),
            Workload::Rename => self.rename(),
            Workload::Append => self.append(),
            Workload::Identical => self.identical(),
            Workload::CallsDuringLarge => self.calls_during(|root| {
                record(root, 0, "large.wav", self.scaled(4096 * MIB), &scrap())?;
                Ok(vec![("large.wav".to_owned(), self.scaled(4096 * MIB))])
            }),
            Workload::CallsDuringBacklog => self.calls_during(|root| {
                let files = self.scaled(50_000);
                let mut made = Vec::new();
                for number in 0..files {
                    let path = format!("backlog/{:03}/{number:05}.wav", number / 100);
                    record(root, 0, &path, 50 * KB, &scrap())?;
                    made.push((path, 50 * KB));
                }
                Ok(made)
            }),
            Workload::Limited => self.limited(),
            Workload::Many => self.many(),
        }
    }

    fn scaled(&self, full: u64) -> u64 {
        ((full as f64 * self.args.scale) as u64).max(1)
    }

    /// Two nodes that know each other and have nothing to do.
    fn start(&self, files: u64) -> Result<Nodes> {
        rustix::fs::sync();
        let mut nodes = Nodes::start(self.system, self.program, &self.dir)?;
        self.wait(&mut nodes, "ready", PATIENCE * 4, |nodes| {
            sleep(TICK * 10);
            nodes.are_connected() && nodes.knows(0, files) && nodes.knows(1, files)
        })?;
        Ok(nodes)
    }

    fn wait(
        &self,
        nodes: &mut Nodes,
        what: &str,
        most: Duration,
        mut is_so: impl FnMut(&Nodes) -> bool,
    ) -> Result<()> {
        let begun = Instant::now();
        while !is_so(nodes) {
            if begun.elapsed() > most {
                return Err(format!("not {what} within {most:?}").into());
            }
            nodes.check()?;
            sleep(TICK);
        }
        Ok(())
    }

    fn idle(&self) -> Result<Figures> {
        let budget = Duration::from_secs_f64((40.0 * self.args.scale).max(8.0));
        let begun = Instant::now();
        let mut figures = Figures::default();
        let name =
            |number: u32| format!("2026/11/23/{}-{number:05}.wav", NAMES[number as usize % 2]);
        let pause = |number: u32| {
            // Not in step with anything that the daemons do every so often.
            sleep(Duration::from_millis(100 + u64::from(number * 7 % 50)));
        };
        if self.system == Floor {
            let roots = Pair::roots(&self.dir);
            let mut tls = Tls::open(&roots[1])?;
            for number in (0..100).take_while(|_| begun.elapsed() < budget) {
                record(&roots[0], 0, &name(number), CALL, &scrap())?;
                let since = Instant::now();
                tls.send(&roots[0], &name(number))?;
                tls.wait_for_one()?;
                figures.lags.push(since.elapsed());
                pause(number);
            }
            figures.files = figures.lags.len() as u64;
            return Ok(figures);
        }
        let mut nodes = self.start(0)?;
        let before = nodes.cost();
        for number in (0..100).take_while(|_| begun.elapsed() < budget) {
            let node = number as usize % 2;
            record(&nodes.roots()[node], node, &name(number), CALL, &nodes.ledger.clone())?;
            let arrived = self.wait(&mut nodes, "there", Duration::from_secs(30), |nodes| {
                nodes.ledger.is_settled()
            });
            if arrived.is_err() {
                nodes.check()?;
                break;
            }
            pause(number);
        }
        self.recordings(&nodes, &mut figures);
        self.costs(&nodes, before, &mut figures);
        figures.damage = Some(self.judge(&nodes)?);
        Ok(figures)
    }

    fn peak(&self) -> Result<Figures> {
        let Args { rate, growing, seconds, .. } = *self.args;
        let mut nodes = self.start(0)?;
        let before = nodes.cost();
        let profile =
            Profile { growing, finished_per_s: rate, bytes_mean: CALL, scripts: false, seed: 1 };
        let length = Duration::from_secs(seconds.into());
        let ends = nodes.ledger.now() + length;
        let load = Load::start(nodes.roots(), profile, length, &nodes.ledger)?;
        while !load.is_over() {
            nodes.check()?;
            sleep(TICK);
        }
        load.finish()?;
        let over = Instant::now();
        let drained = self.wait(&mut nodes, "there", length * 2 + self.system.delay(), |nodes| {
            nodes.ledger.is_settled()
        });
        let mut figures = Figures::default();
        if drained.is_ok() {
            figures.drained = Some(over.elapsed());
        }
        nodes.check()?;
        // What still grows then is closed at once, as no peak does.
        self.recordings_until(ends, &nodes, &mut figures);
        self.costs(&nodes, before, &mut figures);
        // What comes back over a recording comes a little later.
        sleep(self.system.delay() * 2);
        figures.damage = Some(self.judge(&nodes)?);
        Ok(figures)
    }

    /// Files that were made while one node was down, from its start on.
    fn bulk(&self, files: u64, bytes: u64) -> Result<Figures> {
        let path = |number: u64| format!("2026/11/{:02}/call-{number:05}.wav", number / 500);
        let paths: Vec<String> = (0..files).map(path).collect();
        let mut figures = Figures { files, bytes: files * bytes, ..Figures::default() };
        let roots = Pair::roots(&self.dir);
        let make = |ledger: &Ledger| {
            paths.iter().try_for_each(|path| record(&roots[0], 0, path, bytes, ledger))
        };
        if matches!(self.system, Floor | Cp | Rsync | RsyncFsync) {
            make(&scrap())?;
            fs::create_dir_all(&roots[1])?;
            rustix::fs::sync();
            touch_memory();
            let wire = self.wire();
            figures.took = Some(match self.system {
                Floor => {
                    let begun = Instant::now();
                    let mut tls = Tls::open(&roots[1])?;
                    for path in &paths {
                        tls.send(&roots[0], path)?;
                    }
                    tls.finish()?;
                    begun.elapsed()
                }
                Cp => floor::copy(&roots[0], &roots[1], &paths)?,
                _ => self.rsync(&roots)?,
            });
            figures.wire = self.wire_since(wire);
            let made: Vec<_> =
                paths.iter().map(|path| Recording { node: 0, path: path.clone(), bytes }).collect();
            figures.damage = Some(judge_all(&roots, &made)?);
            return Ok(figures);
        }
        let mut nodes = self.start(0)?;
        // They have known each other for a while.
        record(&roots[0], 0, "before.wav", bytes.min(100 * KB), &nodes.ledger.clone())?;
        self.wait(&mut nodes, "there", PATIENCE, |nodes| nodes.ledger.is_settled())?;
        nodes.stop_node(1);
        make(&nodes.ledger.clone())?;
        if self.system.is_lsyncd() {
            sleep(self.system.delay());
        } else {
            self.wait(&mut nodes, "noticed", PATIENCE, |nodes| {
                sleep(TICK * 20);
                nodes.knows(0, files + 1)
            })?;
        }
        rustix::fs::sync();
        touch_memory();
        let (before, wire) = (nodes.cost(), self.wire());
        let begun = Instant::now();
        nodes.start_node(1)?;
        let all = self.wait(&mut nodes, "there", PATIENCE, |nodes| nodes.ledger.is_settled());
        if all.is_ok() {
            figures.took = Some(begun.elapsed());
        }
        nodes.check()?;
        figures.wire = self.wire_since(wire);
        figures.never = nodes.ledger.outstanding() as u64;
        self.costs(&nodes, before, &mut figures);
        sleep(self.system.delay());
        figures.damage = Some(self.judge(&nodes)?);
        Ok(figures)
    }

    fn rsync(&self, roots: &[PathBuf; 2]) -> Result<Duration> {
        let [port] = peers::free_ports()?;
        let _daemon = self.rsyncd(&roots[1], port)?;
        let begun = Instant::now();
        let mut command = Command::new("rsync");
        command.arg("-a");
        if self.system == RsyncFsync {
            command.arg("--fsync");
        }
        let target = format!("rsync://127.0.0.1:{port}/{}/", recsync::load::SHARE);
        let out = command.arg(format!("{}/", roots[0].display())).arg(target).output()?;
        let took = begun.elapsed();
        if !out.status.success() {
            return Err(format!("rsync: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        Ok(took)
    }

    fn rsyncd(&self, root: &Path, port: u16) -> Result<Process> {
        let daemon = peers::start_rsyncd(&self.dir, root, port)?;
        peers::wait_for_port(port)?;
        Ok(daemon)
    }

    /// Two nodes with the same recordings, in step, and what was recorded.
    fn with_recordings(&self, made: &[(String, u64)]) -> Result<Nodes> {
        let [one, other] = Pair::roots(&self.dir);
        for (path, bytes) in made {
            record(&one, 0, path, *bytes, &scrap())?;
        }
        if let Some(parent) = other.parent() {
            fs::create_dir_all(parent)?;
        }
        let copied = Command::new("cp").arg("-a").arg(&one).arg(&other).status()?;
        if !copied.success() {
            return Err("cp -a failed".into());
        }
        self.start(made.len() as u64)
    }

    /// Does something on the first node and waits until the second shows it.
    fn act(
        &self,
        mut nodes: Nodes,
        figures: &mut Figures,
        act: impl FnOnce(&Path) -> Result<()>,
        is_there: impl Fn(&Path) -> bool,
    ) -> Result<()> {
        sleep(self.system.delay());
        let roots = nodes.roots();
        let (before, wire) = (nodes.cost(), self.wire());
        let begun = Instant::now();
        act(&roots[0])?;
        let done = self
            .wait(&mut nodes, "there", PATIENCE, |nodes| is_there(&roots[1]) && nodes.is_in_step());
        nodes.check()?;
        if done.is_ok() {
            figures.took = Some(begun.elapsed());
        } else {
            figures.never = 1;
        }
        sleep(Duration::from_millis(500));
        figures.wire = self.wire_since(wire);
        self.costs(&nodes, before, figures);
        Ok(())
    }

    fn rename(&self) -> Result<Figures> {
        let (files, bytes) = (100, self.scaled(1024 * MIB) / 100);
        let path = |dir: &str, number: u64| format!("{dir}/call-{number:03}.wav");
        let made: Vec<_> = (0..files).map(|number| (path("day", number), bytes)).collect();
        let nodes = self.with_recordings(&made)?;
        let mut figures = Figures { files, bytes: files * bytes, ..Figures::default() };
        self.act(
            nodes,
            &mut figures,
            |root| Ok(fs::rename(root.join("day"), root.join("archive"))?),
            |root| {
                (0..files).all(|number| {
                    has_len(&root.join(path("archive", number)), bytes)
                        && !root.join(path("day", number)).exists()
                })
            },
        )?;
        Ok(figures)
    }

    fn append(&self) -> Result<Figures> {
        let bytes = self.scaled(1024 * MIB);
        let nodes = self.with_recordings(&[("long.wav".to_owned(), bytes)])?;
        let mut figures = Figures { files: 1, bytes, ..Figures::default() };
        let tail = vec![7; 64 << 10];
        let header =
            u32::try_from(bytes + tail.len() as u64 - 44).unwrap_or(u32::MAX).to_le_bytes();
        self.act(
            nodes,
            &mut figures,
            |root| {
                let file = File::options().write(true).open(root.join("long.wav"))?;
                file.write_all_at(&tail, bytes)?;
                Ok(file.write_all_at(&header, 40)?)
            },
            |root| {
                let there = || -> std::io::Result<bool> {
                    let file = File::open(root.join("long.wav"))?;
                    let mut end = vec![0; tail.len()];
                    let mut start = [0; 4];
                    file.read_exact_at(&mut end, bytes)?;
                    file.read_exact_at(&mut start, 40)?;
                    Ok(end == tail && start == header)
                };
                there().unwrap_or(false)
            },
        )?;
        Ok(figures)
    }

    fn identical(&self) -> Result<Figures> {
        let (files, bytes) = (self.scaled(1_000), 100 * KB);
        let nodes = self.with_recordings(&[("first.wav".to_owned(), 1_000)])?;
        let mut figures = Figures { files, bytes: files * bytes, ..Figures::default() };
        let aside = self.dir.join("aside");
        record(&aside, 0, "message.wav", bytes, &scrap())?;
        let name = |number: u64| format!("copies/{number:04}.wav");
        self.act(
            nodes,
            &mut figures,
            |root| {
                fs::create_dir_all(root.join("copies"))?;
                for number in 0..files {
                    fs::copy(aside.join("message.wav"), root.join(name(number)))?;
                }
                Ok(())
            },
            |root| (0..files).all(|number| has_len(&root.join(name(number)), bytes)),
        )?;
        Ok(figures)
    }

    /// New calls on both nodes while something large is under way.
    fn calls_during(&self, make: impl Fn(&Path) -> Result<Vec<(String, u64)>>) -> Result<Figures> {
        let aside = self.dir.join("aside");
        let bulk = make(&aside)?;
        let mut nodes = self.start(0)?;
        let roots = nodes.roots();
        for entry in fs::read_dir(&aside)? {
            let entry = entry?;
            fs::rename(entry.path(), roots[0].join(entry.file_name()))?;
        }
        let begun = Instant::now();
        let before = nodes.cost();
        let mut left = bulk.iter().rev().peekable();
        let mut number = 0_u32;
        let mut took = None;
        let most = Duration::from_secs_f64(120.0 * self.args.scale.max(0.2));
        while begun.elapsed() < most {
            call(&nodes, number as usize % 2, number, begun)?;
            number += 1;
            nodes.check()?;
            while left.next_if(|(path, bytes)| has_len(&roots[1].join(path), *bytes)).is_some() {}
            if left.peek().is_none() {
                took = Some(begun.elapsed());
                break;
            }
        }
        self.after_calls(nodes, before, Figures { took, ..Figures::default() })
    }

    /// A file and new calls of the same node under a limit: what crosses the wire in [`LIMITED_FOR`].
    fn limited(&self) -> Result<Figures> {
        let mut nodes = self.start(0)?;
        let roots = nodes.roots();
        let before = nodes.cost();
        let wire = self.wire();
        record(&roots[0], 0, "large.wav", LIMIT * LIMITED_FOR.as_secs() * 2, &scrap())?;
        // What was saved up is used, and the file is well under way.
        self.wait(&mut nodes, "under way", PATIENCE, |_| {
            self.wire_since(wire).is_none_or(|bytes| bytes > LIMIT)
        })?;
        let (begun, wire) = (Instant::now(), self.wire());
        for number in (0..).take_while(|&number| CALL_EVERY * number < LIMITED_FOR) {
            call(&nodes, 0, number, begun)?;
        }
        sleep((begun + LIMITED_FOR).saturating_duration_since(Instant::now()));
        let figures = Figures {
            wire: self.wire_since(wire),
            took: Some(begun.elapsed()),
            ..Figures::default()
        };
        self.after_calls(nodes, before, figures)
    }

    /// Waits for the calls, and counts them and what they cost.
    fn after_calls(
        &self,
        mut nodes: Nodes,
        before: [crate::process::Cost; 2],
        mut figures: Figures,
    ) -> Result<Figures> {
        let _late = self
            .wait(&mut nodes, "there", Duration::from_secs(60), |nodes| nodes.ledger.is_settled());
        self.recordings(&nodes, &mut figures);
        self.costs(&nodes, before, &mut figures);
        figures.damage = Some(self.judge(&nodes)?);
        Ok(figures)
    }

    fn many(&self) -> Result<Figures> {
        let files = self.many;
        let mut figures = Figures { files, ..Figures::default() };
        let roots = Pair::roots(&self.dir);
        for root in &roots {
            make_many(root, files)?;
        }
        rustix::fs::sync();
        if self.system == Rsync {
            let wire = self.wire();
            figures.verify = Some((self.rsync_dry(&roots)?, self.wire_since(wire)));
            return Ok(figures);
        }
        let mut nodes = self.start(files)?;
        for node in 0..2 {
            nodes.stop_node(node);
            let begun = Instant::now();
            nodes.start_node(node)?;
            self.wait(&mut nodes, "ready", PATIENCE * 4, |nodes| {
                nodes.are_connected() && nodes.knows(0, files) && nodes.knows(1, files)
            })?;
            figures.start_up = figures.start_up.max(Some(begun.elapsed()));
        }
        sleep(Duration::from_secs(3));
        let before = nodes.cost();
        let quiet = Duration::from_secs(self.args.idle_seconds.into());
        sleep(quiet);
        let after = nodes.cost();
        nodes.check()?;
        figures.idle_cpu_percent = Some(
            [0, 1].map(|node| (after[node].cpu - before[node].cpu) / quiet.as_secs_f64() * 100.0),
        );
        figures.resident_kb = Some(after.map(|cost| cost.memory_kb));
        if let Some(pair) = nodes.pair() {
            let wire = self.wire();
            figures.verify = Some((verify(pair.client(0))?, self.wire_since(wire)));
        }
        figures.peak_kb = Some(nodes.peaks_kb());
        Ok(figures)
    }

    fn rsync_dry(&self, roots: &[PathBuf; 2]) -> Result<Duration> {
        let [port] = peers::free_ports()?;
        let _daemon = self.rsyncd(&roots[1], port)?;
        let begun = Instant::now();
        let target = format!("rsync://127.0.0.1:{port}/{}/", recsync::load::SHARE);
        let source = format!("{}/", roots[0].display());
        let out = Command::new("rsync")
            .args(["-an", "--delete", "--itemize-changes"])
            .arg(source)
            .arg(target)
            .output()?;
        if !out.status.success() {
            return Err(format!("rsync: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        Ok(begun.elapsed())
    }

    fn recordings(&self, nodes: &Nodes, figures: &mut Figures) {
        self.recordings_until(Duration::MAX, nodes, figures);
    }

    /// Counts every recording, and tells the lags of those closed before a time of the ledger's.
    fn recordings_until(&self, ends: Duration, nodes: &Nodes, figures: &mut Figures) {
        let samples = nodes.ledger.samples();
        let within = samples.iter().filter(|sample| sample.since < ends);
        figures.lags = within.map(|sample| sample.lag).collect();
        nodes.ledger.each_outstanding(|_, _, since| {
            figures.never += 1;
            figures.lags.extend((since < ends).then_some(Duration::MAX));
        });
        let recordings = nodes.ledger.recordings();
        figures.files = recordings.len() as u64;
        figures.bytes = recordings.iter().map(|one| one.bytes).sum();
    }

    fn costs(&self, nodes: &Nodes, before: [crate::process::Cost; 2], figures: &mut Figures) {
        let after = nodes.cost();
        figures.cpu = Some([0, 1].map(|node| after[node].cpu - before[node].cpu));
        figures.peak_kb = Some(nodes.peaks_kb());
    }

    fn judge(&self, nodes: &Nodes) -> Result<Damage> {
        judge_all(&nodes.roots(), &nodes.ledger.recordings())
    }

    /// Returns the bytes so far on the loopback interface, if it is ours alone.
    fn wire(&self) -> Option<u64> {
        if !crate::alone::is_inside() {
            return None;
        }
        let text = fs::read_to_string("/proc/net/dev").ok()?;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    fn wire_since(&self, before: Option<u64>) -> Option<u64> {
        Some(self.wire()?.saturating_sub(before?))
    }
}

/// Records a node's next call, as soon as it is due.
fn call(nodes: &Nodes, node: usize, number: u32, begun: Instant) -> Result<()> {
    sleep((begun + CALL_EVERY * number).saturating_duration_since(Instant::now()));
    let path = format!("2026/11/24/{}-{number:05}.wav", NAMES[node]);
    Ok(record(&nodes.roots()[node], node, &path, CALL, &nodes.ledger)?)
}

/// A ledger that nobody reads.
fn scrap() -> Arc<Ledger> {
    Arc::new(Ledger::new(Clock::start()))
}

/// Has the memory that the page cache gets next really be there. The host of a virtual machine may take back what the
/// guest freed; who is given it then waits for every page, and chance would decide which system that is.
fn touch_memory() {
    let Some(free) = page::memory_kib("MemFree:") else {
        println!("SKIPPED touching memory: /proc/meminfo does not say how much is free");
        return;
    };
    // Much more than is needed, since the kernel does not say which it will give.
    let bytes = (free * 1024 / 2).min(TOUCHED_MAX);
    drop(std::hint::black_box(vec![1_u8; usize::try_from(bytes).unwrap_or(0)]));
}

fn has_len(path: &Path, bytes: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.len() == bytes)
}

fn judge_all(roots: &[PathBuf; 2], recordings: &[Recording]) -> Result<Damage> {
    let mut damage = Damage::default();
    for Recording { node, path, bytes } in recordings {
        let near = judge(&roots[*node], path, *bytes)?;
        let far = judge(&roots[1 - *node], path, *bytes)?;
        damage.damaged[0] += u64::from(near == Found::Damaged);
        damage.damaged[1] += u64::from(far == Found::Damaged);
        damage.vanished += u64::from(near == Found::Missing);
        damage.lost += u64::from(far == Found::Missing && near != Found::Missing);
    }
    Ok(damage)
}

fn verify(client: Client) -> Result<Duration> {
    let begun = Instant::now();
    let body = serde_json::json!({ "timeout_ms": 300_000 });
    let report: Value = client.with_timeout(PATIENCE * 2).post("/api/v1/verify", &body)?;
    let took = begun.elapsed();
    if report["consistent"] != true {
        return Err(format!("verify: {report}").into());
    }
    Ok(took)
}

/// Small files with names as long as FusionPBX's, 1,000 a directory, the same on both nodes.
fn make_many(root: &Path, files: u64) -> Result<()> {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for number in 0..files {
        let dir = root.join(format!("2026/{:04}", number / 1_000));
        if number % 1_000 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let file = dir.join(format!("{number:08x}-e29b-41d4-a716-446655440000.wav"));
        fs::write(&file, number.to_le_bytes())?;
        File::options().write(true).open(&file)?.set_modified(time)?;
    }
    Ok(())
}
