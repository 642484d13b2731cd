//! What a daemon asks of the kernel, as strace sees it, in order; and errors put in its way.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Node, until};

/// One system call, by the lines of the trace in which it began and returned.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) begun: usize,
    pub(crate) ended: usize,
    pub(crate) name: String,
    /// As strace writes them: descriptors with their paths.
    pub(crate) args: String,
    pub(crate) result: String,
}

impl Call {
    pub(crate) fn is_done(&self) -> bool {
        self.result.starts_with("0") || self.result.parse::<u64>().is_ok()
    }

    /// True if it made a file's bytes, or a directory's names, durable.
    pub(crate) fn is_sync(&self) -> bool {
        matches!(&*self.name, "fsync" | "fdatasync") && self.result == "0"
    }

    /// Returns the path of its first descriptor.
    pub(crate) fn path(&self) -> &str {
        self.descriptors().next().unwrap_or_default()
    }

    fn descriptors(&self) -> impl Iterator<Item = &str> {
        self.args.split('<').skip(1).filter_map(|rest| Some(rest.split_once('>')?.0))
    }

    /// Returns the paths that its names have, each below its descriptor.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.args.split('"').skip(1).step_by(2);
        self.descriptors().zip(names).map(|(dir, name)| format!("{dir}/{name}")).collect()
    }

    /// Returns what a daemon marks with `RECSYNC_MARKS`.
    pub(crate) fn mark(&self) -> Option<&str> {
        let is_mark = self.name == "write" && self.path() == "/dev/null";
        is_mark.then(|| self.args.split('"').nth(1)).flatten()
    }
}

/// A tracer of a running daemon; detached when dropped.
pub(crate) struct Strace {
    child: Child,
    output: PathBuf,
}

impl Strace {
    /// Traces a node's daemon, all of its threads, with these further arguments. None, and a line
    /// that says so, where that is not possible.
    pub(crate) fn attach(test: &str, node: &Node, args: &[&str]) -> Option<Strace> {
        let file = |end: &str| node.config().with_file_name(format!("strace{end}"));
        let (output, said) = (file(""), file(".said"));
        let started = Command::new("strace")
            .args(["-f", "-y", "-s", "256", "-p", &node.pid().to_string(), "-o"])
            .arg(&output)
            .args(args)
            .stdin(Stdio::null())
            .stderr(File::create(&said).unwrap())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(why) => {
                eprintln!("SKIPPED {test}: strace cannot be run: {why} (tests/setup.sh)");
                return None;
            }
        };
        let said = || fs::read_to_string(&said).unwrap();
        let attached = until("strace is attached", || {
            if child.try_wait().unwrap().is_some() {
                Ok(false)
            } else if said().contains("attached") {
                Ok(true)
            } else {
                Err(said())
            }
        });
        if !attached {
            eprintln!("SKIPPED {test}: no right to trace processes: {}", said());
            return None;
        }
        Some(Strace { child, output })
    }

    /// Returns what was traced so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        parse(&String::from_utf8_lossy(&fs::read(&self.output).unwrap()))
    }

    /// Returns how many calls got an error of ours instead of being made.
    pub(crate) fn injected(&self) -> usize {
        fs::read_to_string(&self.output).unwrap().matches("(INJECTED)").count()
    }

    /// Lets the daemon go on alone, and returns all that was traced.
    pub(crate) fn detach(mut self) -> Vec<Call> {
        self.end();
        self.calls()
    }

    fn end(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            self.child.wait().unwrap();
        }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.end();
    }
}

/// Puts calls that other threads interrupted together again.
fn parse(trace: &str) -> Vec<Call> {
    const UNFINISHED: &str = " <unfinished ...>";
    let mut calls = Vec::new();
    let mut open = std::collections::BTreeMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let (begun, whole) = if let Some(begin) = rest.strip_suffix(UNFINISHED) {
            open.insert(thread.to_owned(), (number, begin.to_owned()));
            continue;
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((begun, begin)) = open.remove(thread) else { continue };
            let Some((_, end)) = resumed.split_once("resumed>") else { continue };
            (begun, begin + end)
        } else {
            (number, rest.to_owned())
        };
        let Some((name, rest)) = whole.split_once('(') else { continue };
        let Some((args, result)) = rest.rsplit_once(" = ") else { continue };
        let args = args.trim_end().trim_end_matches(')');
        let [name, args, result] = [name, args, result].map(str::to_owned);
        calls.push(Call { begun, ended: number, name, args, result });
    }
    calls
}
