//! Two nodes of any system, started and looked at in the same way.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use recsync::load::{Ledger, NAMES, Pair};
use recsync::serve::api::Status;
use recsync::sys::Clock;

use crate::Result;
use crate::peers::{self, Lsyncd, Syncthing};
use crate::process::{Cost, Meter, Process};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum System {
    /// recsync with its defaults.
    Recsync,
    /// recsync that waits for nothing.
    Recsync0,
    /// recsync with a bandwidth limit.
    Limited,
    /// TLS 1.3 on loopback into fsynced files, in Rust: what the machine can do.
    Floor,
    /// `cp`, and an fsync a file.
    Cp,
    /// `rsync --fsync`, once.
    RsyncFsync,
    /// rsync, once: not durable.
    Rsync,
    /// lsyncd and rsyncd, the usual two-way config.
    Lsyncd5,
    /// lsyncd and rsyncd as fast as is sensible.
    Lsyncd0,
    /// Syncthing as fast as is sensible.
    Syncthing,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Recsync => "recsync",
            System::Recsync0 => "recsync, settle 0",
            System::Limited => "recsync, limited",
            System::Floor => "floor: TLS + fsync",
            System::Cp => "floor: cp + fsync",
            System::RsyncFsync => "rsync --fsync, once",
            System::Rsync => "rsync, once",
            System::Lsyncd5 => "lsyncd + rsyncd, delay 5",
            System::Lsyncd0 => "lsyncd + rsyncd, delay 0",
            System::Syncthing => "Syncthing",
        }
    }

    /// What it waits for, and what "arrived" means for it.
    pub(crate) fn settings(self) -> String {
        let text = match self {
            System::Recsync => "settle = \"20ms\" (default); durable and acknowledged",
            System::Recsync0 => "settle = \"0ms\"; durable and acknowledged",
            System::Limited => {
                "bandwidth = \"20MB/s\", settle = \"20ms\" (default); durable and acknowledged"
            }
            System::Floor => "no delay, no watching, no index; durable",
            System::Cp => "no network, no watching, no index; durable",
            System::RsyncFsync => {
                "-a --fsync, run once over rsyncd on loopback; durable but for directories"
            }
            System::Rsync => "-a, run once over rsyncd on loopback; NOT durable",
            System::Lsyncd5 => {
                "delay = 5, update = true, lsyncd's default delete = true; plain text; NOT durable"
            }
            System::Lsyncd0 => {
                "delay = 0, update = true, delete = 'running'; plain text; NOT durable"
            }
            System::Syncthing => {
                return format!(
                    "fsWatcherDelayS = {}; complete at the peer",
                    peers::syncthing_delay()
                );
            }
        };
        text.to_owned()
    }

    /// Returns its version, or what is missing.
    pub(crate) fn version(self) -> std::result::Result<String, String> {
        let of = |program, argument| {
            peers::version(program, argument).ok_or_else(|| format!("{program} is not installed"))
        };
        match self {
            System::Recsync | System::Recsync0 | System::Limited => {
                Ok(env!("CARGO_PKG_VERSION").to_owned())
            }
            System::Floor | System::Cp => Ok("-".to_owned()),
            System::RsyncFsync | System::Rsync => of("rsync", "--version"),
            System::Lsyncd5 | System::Lsyncd0 => {
                Ok(format!("{} + {}", of("lsyncd", "--version")?, of("rsync", "--version")?))
            }
            System::Syncthing => of("syncthing", "--version"),
        }
    }

    pub(crate) fn is_lsyncd(self) -> bool {
        matches!(self, System::Lsyncd5 | System::Lsyncd0)
    }

    fn lsyncd(self) -> Lsyncd {
        match self {
            System::Lsyncd5 => Lsyncd { delay: 5, delete: "true" },
            _ => Lsyncd { delay: 0, delete: "'running'" },
        }
    }

    /// How long it may need after a change before it has even noticed it.
    pub(crate) fn delay(self) -> Duration {
        Duration::from_secs(if self == System::Lsyncd5 { 7 } else { 2 })
    }
}

/// Two nodes that sync both ways.
pub(crate) struct Nodes {
    pub(crate) system: System,
    pub(crate) ledger: Arc<Ledger>,
    dir: PathBuf,
    meter: Meter,
    running: Running,
    observer: Option<Observer>,
}

enum Running {
    Recsync(Pair),
    Lsyncd { ports: [u16; 2], daemons: [Vec<Process>; 2] },
    Syncthing { nodes: [Syncthing; 2], daemons: [Option<Process>; 2] },
}

impl Nodes {
    /// Sets two nodes up below `dir`; the roots may hold files already.
    pub(crate) fn start(system: System, program: &Path, dir: &Path) -> Result<Nodes> {
        let ledger = Arc::new(Ledger::new(Clock::start()));
        let meter = Meter::start();
        for root in Pair::roots(dir) {
            fs::create_dir_all(root)?;
        }
        let running = match system {
            System::Recsync | System::Recsync0 | System::Limited => {
                Pair::set_up(dir)?;
                match system {
                    System::Recsync0 => {
                        set(dir, "# settle = \"20ms\"", "settle = \"0ms\"")?;
                    }
                    System::Limited => {
                        set(dir, "# [limits]", "[limits]")?;
                        set(dir, "# bandwidth = \"50MB/s\"", "bandwidth = \"20MB/s\"")?;
                    }
                    _ => {}
                }
                Running::Recsync(Pair::start(program, dir, &ledger)?)
            }
            System::Lsyncd5 | System::Lsyncd0 => {
                Running::Lsyncd { ports: peers::free_ports()?, daemons: [Vec::new(), Vec::new()] }
            }
            System::Syncthing => {
                let ports = peers::free_ports::<4>()?;
                let [one, other] = Pair::roots(dir);
                let one = Syncthing::new(&dir.join(NAMES[0]), &one, [ports[0], ports[1]])?;
                let other = Syncthing::new(&dir.join(NAMES[1]), &other, [ports[2], ports[3]])?;
                one.pair_with(&other)?;
                other.pair_with(&one)?;
                Running::Syncthing { nodes: [one, other], daemons: [None, None] }
            }
            _ => return Err(format!("{} has no daemons", system.name()).into()),
        };
        let mut nodes =
            Nodes { system, ledger, dir: dir.to_owned(), meter, running, observer: None };
        for node in 0..2 {
            match &nodes.running {
                Running::Recsync(pair) => nodes.meter.watch(node, vec![pair.process(node)]),
                _ => nodes.start_node(node)?,
            }
        }
        if !nodes.is_recsync() {
            nodes.observer = Some(Observer::start(nodes.roots(), nodes.ledger.clone()));
        }
        Ok(nodes)
    }

    fn is_recsync(&self) -> bool {
        matches!(self.running, Running::Recsync(_))
    }

    pub(crate) fn roots(&self) -> [PathBuf; 2] {
        Pair::roots(&self.dir)
    }

    /// Starts a node that does not run.
    pub(crate) fn start_node(&mut self, node: usize) -> Result<()> {
        let [one, other] = self.roots();
        let root = if node == 0 { one } else { other };
        let dir = self.dir.join(NAMES[node]);
        let groups = match &mut self.running {
            Running::Recsync(pair) => {
                pair.resume(node)?;
                vec![pair.process(node)]
            }
            Running::Lsyncd { ports, daemons } => {
                let how = self.system.lsyncd();
                daemons[node].push(peers::start_rsyncd(&dir, &root, ports[node])?);
                // lsyncd begins with an rsync, so both rsyncds are there first.
                peers::wait_for_port(ports[node])?;
                daemons[node].push(peers::start_lsyncd(&dir, &root, ports[1 - node], how)?);
                daemons[node].iter().map(Process::id).collect()
            }
            Running::Syncthing { nodes, daemons } => {
                let daemon = nodes[node].start()?;
                let id = daemon.id();
                daemons[node] = Some(daemon);
                vec![id]
            }
        };
        self.meter.watch(node, groups);
        Ok(())
    }

    /// Ends a node in an orderly way.
    pub(crate) fn stop_node(&mut self, node: usize) {
        self.meter.watch(node, Vec::new());
        match &mut self.running {
            Running::Recsync(pair) => pair.halt(node),
            Running::Lsyncd { daemons, .. } => {
                while let Some(daemon) = daemons[node].pop() {
                    drop(daemon);
                }
            }
            Running::Syncthing { daemons, .. } => drop(daemons[node].take()),
        }
    }

    /// Fails if a daemon has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match &mut self.running {
            Running::Recsync(pair) => pair.check()?,
            Running::Lsyncd { daemons, .. } => {
                daemons.iter_mut().flatten().try_for_each(Process::check)?;
            }
            Running::Syncthing { daemons, .. } => {
                daemons.iter_mut().flatten().try_for_each(Process::check)?;
            }
        }
        Ok(())
    }

    /// True once a node has looked through its files and knows `files`, as far as it can be asked.
    pub(crate) fn knows(&self, node: usize, files: u64) -> bool {
        match &self.running {
            Running::Recsync(pair) => {
                let share = |status: &Status| {
                    status.shares.iter().all(|share| {
                        share.files == files
                            && share.pending_files == 0
                            && share.state == recsync::serve::api::ShareState::Watching
                    })
                };
                pair.status_of(node).as_ref().is_some_and(share)
            }
            Running::Lsyncd { .. } => peers::lsyncd_has_started(&self.dir.join(NAMES[node])),
            Running::Syncthing { nodes, .. } => nodes[node].idle_with() == Some(files),
        }
    }

    /// True once both are connected.
    pub(crate) fn are_connected(&self) -> bool {
        match &self.running {
            Running::Recsync(pair) => pair.is_ready(),
            Running::Lsyncd { .. } => true,
            Running::Syncthing { nodes: [one, other], .. } => {
                one.is_connected(other) && other.is_connected(one)
            }
        }
    }

    /// True if recsync has nothing on the way; the others cannot be asked.
    pub(crate) fn is_in_step(&self) -> bool {
        let Running::Recsync(pair) = &self.running else { return true };
        let done = |node: &Status| {
            node.shares.iter().all(|share| share.pending_files == 0)
                && node.peers.iter().flat_map(|peer| &peer.shares).all(|one| one.pending_files == 0)
        };
        pair.status().is_some_and(|nodes| nodes.iter().all(done))
    }

    /// The pair, if this is recsync.
    pub(crate) fn pair(&self) -> Option<&Pair> {
        match &self.running {
            Running::Recsync(pair) => Some(pair),
            _ => None,
        }
    }

    pub(crate) fn cost(&self) -> [Cost; 2] {
        self.meter.cost()
    }

    pub(crate) fn peaks_kb(&self) -> [u64; 2] {
        self.meter.peaks_kb()
    }
}

/// Sets in both configs what the template has as a comment.
fn set(dir: &Path, comment: &str, line: &str) -> Result<()> {
    for name in NAMES {
        let file = dir.join(name).join("recsync.toml");
        let text = fs::read_to_string(&file)?;
        let changed = text.replace(comment, line);
        if changed == text {
            return Err(format!("the template of the config has no line {comment:?}").into());
        }
        fs::write(&file, changed)?;
    }
    Ok(())
}

/// Looks for recordings on the other node, for systems that do not say when a file has arrived.
///
/// A recording has arrived when its name there holds its full size and its final header; the time is that
/// of the inode's last change, which is its rename to that name. So it may be looked for at times
/// that grow with its age, a twentieth each, and the look costs little.
struct Observer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

const TICK: Duration = Duration::from_millis(2);

impl Observer {
    fn start(roots: [PathBuf; 2], ledger: Arc<Ledger>) -> Observer {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let sizes = Mutex::<(usize, BTreeMap<String, u64>)>::default();
        let clock = Clock::start();
        let thread = std::thread::spawn(move || {
            let mut last = ledger.now();
            while !stopped.load(Ordering::Relaxed) {
                let now = ledger.now();
                let mut due = Vec::new();
                ledger.each_outstanding(|path, node, since| {
                    if is_due(last.saturating_sub(since), now.saturating_sub(since)) {
                        due.push((path.to_owned(), node, since));
                    }
                });
                last = now;
                let mut sizes = sizes.lock().unwrap_or_else(PoisonError::into_inner);
                let recordings = ledger.recordings_from(sizes.0);
                sizes.0 += recordings.len();
                sizes.1.extend(recordings.into_iter().map(|one| (one.path, one.bytes)));
                for (path, node, since) in due {
                    let Some(bytes) = sizes.1.get(&path) else { continue };
                    if let Some(changed_ns) = arrived(&roots[1 - node].join(&path), *bytes) {
                        let age_ns = clock.now().wall_ns.saturating_sub(changed_ns).max(0);
                        let age = Duration::from_nanos(u64::try_from(age_ns).unwrap_or(0));
                        let at = ledger.now().saturating_sub(age).max(since);
                        ledger.arrived(node, &path, at);
                    }
                }
                sleep(TICK);
            }
        });
        Observer { stop, thread: Some(thread) }
    }
}

/// Whether a look is due between two ages.
fn is_due(before: Duration, now: Duration) -> bool {
    let step = |age: Duration| (age.as_secs_f64().max(0.01).ln() * 20.0).floor();
    before < Duration::from_millis(200) || step(before) < step(now)
}

/// Returns when a file got its name, if it is complete.
fn arrived(path: &Path, bytes: u64) -> Option<i64> {
    let stat = fs::symlink_metadata(path).ok()?;
    if stat.len() != bytes {
        return None;
    }
    let mut header = [0; 44];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    let data_len = u32::from_le_bytes([header[40], header[41], header[42], header[43]]);
    (u64::from(data_len) + 44 == bytes).then(|| stat.ctime() * 1_000_000_000 + stat.ctime_nsec())
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
