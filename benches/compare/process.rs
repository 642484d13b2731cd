//! Child processes that never outlive this program, and what they cost, as `/proc` tells.

use std::fs;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::Result;

/// The unit of CPU time in `/proc`: 100 on every Linux that recsync runs on (proc(5), USER_HZ).
const USER_HZ: f64 = 100.0;
/// On the machines that this runs on.
const PAGE_KB: u64 = 4;
/// How long a process may take to end before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(8);
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(100);

/// A process and its children, in a process group of their own.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it says goes to a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Process> {
        let out = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .map_err(|why| format!("cannot start {}: {why}", command.get_program().display()))?;
        Ok(Process { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("a daemon ended by itself: {status}").into()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Ok(None) = self.child.try_wait() else { return };
        let pid = Pid::from_child(&self.child);
        let by = Instant::now() + STOP_WAIT;
        let mut ended = kill_process(pid, Signal::TERM).is_err();
        while !ended && Instant::now() < by {
            sleep(Duration::from_millis(10));
            ended = !matches!(self.child.try_wait(), Ok(None));
        }
        // The group is ours: the children that it has left, and itself if it does not listen.
        let _gone = kill_process_group(pid, Signal::KILL);
        let _reaped = self.child.wait();
    }
}

/// What the processes of one node have cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Seconds, children that have ended included.
    pub(crate) cpu: f64,
    /// Resident now, all processes together.
    pub(crate) memory_kb: u64,
}

impl Cost {
    /// Returns what the processes of these groups have cost.
    fn of_groups(groups: &[u32]) -> Cost {
        let mut cost = Cost::default();
        let Ok(entries) = fs::read_dir("/proc") else { return cost };
        for entry in entries.flatten() {
            let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
            if !is_process {
                continue;
            }
            // Processes end while one looks.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            // The name in parentheses may hold anything; after it come state, ppid and pgrp.
            let fields: Vec<&str> =
                stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
            let number =
                |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
            if !number(2).is_some_and(|group| groups.iter().any(|of| u64::from(*of) == group)) {
                continue;
            }
            // utime, stime, cutime, cstime; rss in pages.
            let ticks: u64 = (11..15).filter_map(number).sum();
            cost.cpu += ticks as f64 / USER_HZ;
            cost.memory_kb += number(21).unwrap_or(0) * PAGE_KB;
        }
        cost
    }
}

/// Adds up what each of two nodes costs, over restarts.
#[derive(Debug)]
pub(crate) struct Meter {
    state: Arc<Mutex<[Node; 2]>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Node {
    groups: Vec<u32>,
    before: f64,
    peak_kb: u64,
}

impl Meter {
    pub(crate) fn start() -> Meter {
        let state = Arc::<Mutex<[Node; 2]>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (watched, stopped) = (state.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for node in &mut *watched.lock().unwrap_or_else(PoisonError::into_inner) {
                    let now = Cost::of_groups(&node.groups);
                    node.peak_kb = node.peak_kb.max(now.memory_kb);
                }
                sleep(SAMPLE);
            }
        });
        Meter { state, stop, thread: Some(thread) }
    }

    /// Tells which groups a node consists of from now on.
    pub(crate) fn watch(&self, node: usize, groups: Vec<u32>) {
        let mut nodes = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let node = &mut nodes[node];
        node.before += Cost::of_groups(&node.groups).cpu;
        node.groups = groups;
    }

    /// Returns the cost of both so far.
    pub(crate) fn cost(&self) -> [Cost; 2] {
        let nodes = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        [0, 1].map(|node| {
            let now = Cost::of_groups(&nodes[node].groups);
            Cost { cpu: nodes[node].before + now.cpu, ..now }
        })
    }

    /// Returns the greatest memory of both so far.
    pub(crate) fn peaks_kb(&self) -> [u64; 2] {
        let nodes = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        [0, 1].map(|node| nodes[node].peak_kb)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
