//! Two real daemons on loopback, set up and started as an operator would.

use std::collections::VecDeque;
use std::fs::DirBuilder;
use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recsync_proto::{NodeName, ShareName};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::{Ledger, LoadError};
use crate::config::{self, HostPort, Template};
use crate::engine::effect::AppliedKind;
use crate::net::Identity;
use crate::serve::Client;
use crate::serve::api::{ShareState, ShareStatus, Status};
use crate::telemetry::events;
use crate::tree;

/// What the nodes are called.
pub const NAMES: [&str; 2] = ["fs1", "fs2"];
/// What the share is called.
pub const SHARE: &str = "recordings";

/// How long a daemon may take to end: it promises five seconds.
const STOP_WAIT: Duration = Duration::from_secs(8);
/// How long a status may take while the machine is busy.
const STATUS_WAIT: Duration = Duration::from_secs(10);
/// Lines of a daemon's log that are kept to explain its end.
const SAID_MAX: usize = 10;

/// Two daemons; both are ended when this is dropped.
#[derive(Debug)]
pub struct Pair {
    daemons: Vec<Daemon>,
    program: PathBuf,
    ledger: Arc<Ledger>,
}

#[derive(Debug)]
struct Daemon {
    name: &'static str,
    dir: PathBuf,
    child: Child,
    /// Ended because it was told to.
    halted: bool,
    /// Ends with the daemon's log, so with the daemon.
    log_ended: Receiver<()>,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Pair {
    /// Makes two nodes below `dir`, with an empty share each, and pairs them, as `recsync init` and
    /// `recsync peer add` would.
    ///
    /// # Errors
    /// If a node cannot be set up.
    pub fn set_up(dir: &Path) -> Result<(), LoadError> {
        // Held until both have one, so that they differ.
        let ports = [free_port()?, free_port()?];
        let mut made = Vec::new();
        for ((_, address), name) in ports.iter().zip(NAMES) {
            made.push((make_node(dir, name, address)?, name, address));
        }
        for (node, other) in [(0, 1), (1, 0)] {
            let (fingerprint, name, address) = &made[other];
            let failed = set_up_failed(made[node].1);
            let name = NodeName::new(*name).map_err(|error| failed(error.to_string()))?;
            config::edit(&dir.join(made[node].1).join("recsync.toml"), |text, config| {
                config::edit::add_peer(
                    text,
                    config,
                    &name,
                    address,
                    std::slice::from_ref(fingerprint),
                )
            })
            .map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }

    /// Starts `program run` for both nodes below `dir`. What they say of files goes into the ledger.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn start(program: &Path, dir: &Path, ledger: &Arc<Ledger>) -> Result<Self, LoadError> {
        let (program, ledger) = (program.to_owned(), ledger.clone());
        let mut pair = Pair { daemons: Vec::new(), program, ledger };
        for (node, name) in NAMES.into_iter().enumerate() {
            let (program, ledger) = (&pair.program, pair.ledger.clone());
            pair.daemons.push(Daemon::start(program, dir.join(name), node, ledger)?);
        }
        Ok(pair)
    }

    /// Ends one node, as if its machine went down in an orderly way; until [`Pair::resume`].
    pub fn halt(&mut self, node: usize) {
        let daemon = &mut self.daemons[node];
        daemon.halted = true;
        daemon.terminate();
        let _ended = daemon.wait();
    }

    /// Starts a node again that was halted.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn resume(&mut self, node: usize) -> Result<(), LoadError> {
        let dir = self.daemons[node].dir.clone();
        self.daemons[node] = Daemon::start(&self.program, dir, node, self.ledger.clone())?;
        Ok(())
    }

    /// Kills a node's daemon without any warning, and starts `program run` for it again.
    ///
    /// # Errors
    /// If it had ended by itself before, or cannot be started.
    pub fn kill_and_start(
        &mut self,
        node: usize,
        program: &Path,
        ledger: &Arc<Ledger>,
    ) -> Result<(), LoadError> {
        let daemon = &mut self.daemons[node];
        daemon.check()?;
        daemon.child.kill().map_err(LoadError::system("the kill of a daemon"))?;
        daemon.child.wait().map_err(LoadError::system("the wait for a daemon"))?;
        let dir = daemon.dir.clone();
        *daemon = Daemon::start(program, dir, node, ledger.clone())?;
        Ok(())
    }

    /// Returns the roots of the share on both nodes, for a pair below `dir`.
    pub fn roots(dir: &Path) -> [PathBuf; 2] {
        NAMES.map(|name| dir.join(name).join(SHARE))
    }

    /// Returns the way to ask a node.
    pub fn client(&self, node: usize) -> Client {
        Client::new(&self.daemons[node].dir.join("control.sock"))
    }

    /// Returns the process of a node, for figures in `/proc`.
    pub fn process(&self, node: usize) -> u32 {
        self.daemons[node].child.id()
    }

    /// Returns what each node answers to `status`; none while one of them does not.
    pub fn status(&self) -> Option<[Status; 2]> {
        Some([self.status_of(0)?, self.status_of(1)?])
    }

    /// Returns what one node answers.
    pub fn status_of(&self, node: usize) -> Option<Status> {
        self.client(node).with_timeout(STATUS_WAIT).get("/api/v1/status").ok()
    }

    /// True once both have scanned and watch their share, and are connected.
    pub fn is_ready(&self) -> bool {
        let ready = |status: &Status| {
            let watching = |share: &ShareStatus| share.state == ShareState::Watching;
            status.shares.iter().all(watching) && status.peers.iter().all(|peer| peer.connected)
        };
        self.status().is_some_and(|nodes| nodes.iter().all(ready))
    }

    /// Looks whether both still run.
    ///
    /// # Errors
    /// If one ended by itself.
    pub fn check(&mut self) -> Result<(), LoadError> {
        self.daemons.iter_mut().try_for_each(Daemon::check)
    }

    /// Returns the last warnings and errors of both.
    pub fn said(&self) -> Vec<String> {
        let said = |daemon: &Daemon| -> Vec<String> {
            let lines = daemon.said.lock().unwrap_or_else(PoisonError::into_inner);
            lines.iter().map(|line| format!("{}: {line}", daemon.name)).collect()
        };
        self.daemons.iter().flat_map(said).collect()
    }

    /// Ends both, and returns whether both ended well.
    pub fn stop(mut self) -> bool {
        self.end()
    }

    fn end(&mut self) -> bool {
        let mut daemons = std::mem::take(&mut self.daemons);
        // Both at once: neither is to wait for the other.
        daemons.iter_mut().for_each(Daemon::terminate);
        let ended: Vec<_> = daemons.iter_mut().map(Daemon::wait).collect();
        ended.iter().all(|status| status.is_some_and(|status| status.success()))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.end();
    }
}

impl Daemon {
    fn start(
        program: &Path,
        dir: PathBuf,
        node: usize,
        ledger: Arc<Ledger>,
    ) -> Result<Self, LoadError> {
        let mut child = Command::new(program)
            .arg("--config")
            .arg(dir.join("recsync.toml"))
            .args(["--log-format", "json", "--log-level", &log_level(), "run"])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            // Ctrl-C is ours to hear: they end when we say so.
            .process_group(0)
            .spawn()
            .map_err(LoadError::system("a daemon"))?;
        let said = Arc::<Mutex<VecDeque<String>>>::default();
        let (ended, log_ended) = channel();
        let log = child.stderr.take();
        let heard = said.clone();
        let name = NAMES[node];
        let daemon = Daemon { name, dir, child, halted: false, log_ended, said };
        std::thread::Builder::new()
            .name(format!("log-{}", NAMES[node]))
            .spawn(move || {
                if let Some(log) = log {
                    listen(log, node, &ledger, &heard);
                }
                drop(ended);
            })
            .map_err(LoadError::system("a thread for its log"))?;
        Ok(daemon)
    }

    fn check(&mut self) -> Result<(), LoadError> {
        if self.halted {
            return Ok(());
        }
        let status = self.child.try_wait().map_err(LoadError::system("a look at a daemon"))?;
        status.map_or(Ok(()), |status| {
            // All that it said is there once its log has ended.
            let _ended = self.log_ended.recv_timeout(STOP_WAIT).is_ok();
            let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let said = said.iter().map(|line| format!("  {line}\n")).collect();
            Err(LoadError::Ended { node: self.name, status: status.to_string(), said })
        })
    }

    fn terminate(&mut self) {
        // A child that was not yet waited for keeps its number, even if it has ended.
        if let Ok(None) = self.child.try_wait()
            && let Err(why) = kill_process(Pid::from_child(&self.child), Signal::TERM)
        {
            tracing::warn!(node = self.name, %why, "cannot be told to end");
        }
    }

    /// Waits for the end after [`Daemon::terminate`]; kills the process if it takes too long.
    fn wait(&mut self) -> Option<ExitStatus> {
        // Nothing is ever sent: what comes is the end of the log, or of the time.
        if self.log_ended.recv_timeout(STOP_WAIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(node = self.name, "did not end within {STOP_WAIT:?}: killed");
            if let Err(why) = self.child.kill() {
                tracing::warn!(node = self.name, %why, "cannot be killed");
            }
        }
        self.child.wait().ok()
    }
}

fn free_port() -> Result<(TcpListener, HostPort), LoadError> {
    let bind = || {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?.to_string();
        let address = address.parse::<HostPort>().map_err(std::io::Error::other)?;
        Ok((listener, address))
    };
    bind().map_err(LoadError::system("a listener on loopback"))
}

fn make_node(
    dir: &Path,
    name: &'static str,
    address: &HostPort,
) -> Result<config::Fingerprint, LoadError> {
    let dir = dir.join(name);
    let root = dir.join(SHARE);
    DirBuilder::new()
        .recursive(true)
        .create(&root)
        .map_err(LoadError::file("make the directory", &root))?;
    let make = || -> Result<_, Box<dyn std::error::Error>> {
        let share = ShareName::new(SHARE)?;
        let file = dir.join("recsync.toml");
        let text = Template {
            name: NodeName::new(name)?,
            listen: Some(address.clone()),
            state_dir: None,
            control: None,
            http: None,
            shares: vec![(share.clone(), root.clone())],
        }
        .text(&file);
        let identity = Identity::create(&dir.join("state"), &NodeName::new(name)?)?;
        tree::create_marker(&root, &share)?;
        config::create(&file, &text)?;
        Ok(identity.fingerprint())
    };
    make().map_err(|error| set_up_failed(name)(error.to_string()))
}

fn set_up_failed(node: &'static str) -> impl Fn(String) -> LoadError {
    move |why| LoadError::SetUp { node, why }
}

/// A line of a daemon's log, `--log-format json`.
#[derive(Deserialize)]
struct Line {
    level: String,
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    message: String,
    #[serde(default)]
    path: Option<String>,
}

/// Warnings, and [`events::LOOKED_FOR`]: nothing else is written.
fn log_level() -> String {
    format!("warn,{}=debug", events::LOOKED_FOR)
}

/// Reads a daemon's log to its end.
fn listen(log: impl Read, node: usize, ledger: &Ledger, said: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        let parsed = serde_json::from_str::<Line>(&line).ok();
        if let Some(Line { level, fields: Fields { message, path } }) = parsed
            && matches!(level.as_str(), "DEBUG" | "TRACE")
        {
            match path {
                Some(path) if message == events::DURABLE => ledger.durable(node, &path),
                Some(_) if is_rename(&message) => ledger.applied_rename(node),
                _ => {}
            }
            continue;
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == SAID_MAX {
            said.pop_front();
        }
        said.push_back(line);
    }
}

fn is_rename(message: &str) -> bool {
    let kind = message.strip_prefix(events::APPLIED);
    kind.is_some_and(|kind| kind.trim_start_matches([':', ' ']) == AppliedKind::Rename.as_str())
}

#[cfg(test)]
mod tests {
    use std::io;

    use recsync_proto::SharePath;
    use tracing_subscriber::Layer as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::engine::effect::{Event, Saved};
    use crate::sys::Clock;
    use crate::telemetry::Events;

    #[derive(Clone, Default)]
    struct Bytes(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Bytes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what a daemon with our options writes when this happens in it.
    fn log_of(act: impl FnOnce()) -> Vec<u8> {
        let bytes = Bytes::default();
        let writer = bytes.clone();
        let json = tracing_subscriber::fmt::layer().json().with_writer(move || writer.clone());
        let filter: tracing_subscriber::filter::Targets = log_level().parse().unwrap();
        let subscriber = tracing_subscriber::registry().with(json.with_filter(filter));
        tracing::subscriber::with_default(subscriber, act);
        std::mem::take(&mut *bytes.0.lock().unwrap())
    }

    #[test]
    fn understands_what_a_daemon_says() {
        let clock = Clock::start();
        let ledger = Ledger::new(clock);
        for name in ["a.wav", "b.wav"] {
            ledger.begun(0);
            ledger.closing(0, name, 1);
        }
        let (share, peer) = (ShareName::new(SHARE).unwrap(), NodeName::new("fs2").unwrap());
        let log = log_of(|| {
            let events = Events::new();
            let path = |name| SharePath::new(name).unwrap();
            let tell = |event| events.record(clock.now(), &share, &event);
            tell(Event::Replicated { peer: peer.clone(), path: path("b.wav"), took: None });
            for kind in [AppliedKind::Rename, AppliedKind::Create] {
                let saved = Some((Saved::Rename, 1));
                tell(Event::Applied { peer: Some(peer.clone()), path: path("c.wav"), kind, saved });
            }
            tracing::warn!("a warning");
            tracing::info!("of no interest");
        });
        let said = Mutex::default();
        listen(&log[..], 0, &ledger, &said);
        assert_eq!(ledger.outstanding(), 1);
        let tally = ledger.tallies()[0];
        assert_eq!((tally.shipped, tally.applied_as_renames), (1, 1));
        let said = said.into_inner().unwrap();
        assert!(said.len() == 1 && said[0].contains("a warning"), "{said:?}");
    }

    #[test]
    fn a_daemon_that_does_not_run_is_an_error_with_its_last_words() {
        let scratch = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::new(Clock::start()));
        Pair::set_up(scratch.path()).unwrap();
        let mut pair = Pair::start(Path::new("/bin/false"), scratch.path(), &ledger).unwrap();
        let error = loop {
            if let Err(error) = pair.check() {
                break error;
            }
            std::thread::yield_now();
        };
        assert!(matches!(error, LoadError::Ended { .. }), "{error}");
        assert!(!pair.stop());
    }
}
