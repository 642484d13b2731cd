//! The other systems, set up as their users would, on loopback only.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use recsync::load::Scratch;
use serde_json::Value;

use crate::Result;
use crate::process::Process;

/// How long an answer of Syncthing may take.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// The folder and module are called as the share.
const SHARE: &str = recsync::load::SHARE;

/// Returns ports of loopback that nobody has, different from each other.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Returns the first line of what a program says of itself; none if there is no such program.
pub(crate) fn version(program: &str, argument: &str) -> Option<String> {
    let out = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().next()?.to_owned();
    // "rsync  version 3.5.0  protocol version 32", "Version: 2.2.3", "syncthing v1.19.2-ds1 ..."
    line.split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .map(str::to_owned)
}

/// rsyncd on one node: a module that may be written to.
pub(crate) fn start_rsyncd(dir: &Path, root: &Path, port: u16) -> Result<Process> {
    let config = dir.join("rsyncd.conf");
    let owner = if rustix::process::geteuid().is_root() { "uid = root\ngid = root\n" } else { "" };
    fs::write(
        &config,
        format!(
            "address = 127.0.0.1\nport = {port}\nuse chroot = no\nmax connections = 0\n\
             log file = {log}\nlock file = {lock}\n[{SHARE}]\npath = {root}\nread only = no\n{owner}",
            log = dir.join("rsyncd.log").display(),
            lock = dir.join("rsyncd.lock").display(),
            root = root.display(),
        ),
    )?;
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach"]).arg(format!("--config={}", config.display()));
    Process::start(&mut command, &dir.join("rsyncd.out"))
}

/// Waits until somebody listens there.
pub(crate) fn wait_for_port(port: u16) -> Result<()> {
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(10));
    }
    Err("rsyncd does not listen".into())
}

/// How lsyncd is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lsyncd {
    /// Seconds in which events are collected.
    pub(crate) delay: u32,
    /// What happens to files of the target that the source lacks: lsyncd's default is `true`, also at its start.
    pub(crate) delete: &'static str,
}

/// lsyncd on one node, towards the rsyncd of the other.
pub(crate) fn start_lsyncd(dir: &Path, root: &Path, to_port: u16, how: Lsyncd) -> Result<Process> {
    let config = dir.join("lsyncd.lua");
    let Lsyncd { delay, delete } = how;
    fs::write(
        &config,
        format!(
            "settings {{ nodaemon = true, insist = true, statusFile = '{status}', logfile = '{log}' }}\n\
             sync {{ default.rsync, source = '{root}/', target = 'rsync://127.0.0.1:{to_port}/{SHARE}/',\n\
             delay = {delay}, delete = {delete}, rsync = {{ archive = true, update = true }} }}\n",
            status = dir.join("lsyncd.status").display(),
            log = dir.join("lsyncd.log").display(),
            root = root.display(),
        ),
    )?;
    Process::start(Command::new("lsyncd").arg(&config), &dir.join("lsyncd.out"))
}

/// True once lsyncd's first rsync is done.
pub(crate) fn lsyncd_has_started(dir: &Path) -> bool {
    let log = fs::read_to_string(dir.join("lsyncd.log")).unwrap_or_default();
    let last = log.rsplit_once("recursive startup rsync").map_or("", |(_, rest)| rest);
    last.contains("Startup of") && last.contains("finished")
}

/// Returns the least `fsWatcherDelayS` that this Syncthing understands: older ones take whole seconds only.
pub(crate) fn syncthing_delay() -> &'static str {
    static LEAST: OnceLock<&str> = OnceLock::new();
    LEAST.get_or_init(|| {
        let takes = |delay| -> Result<bool> {
            let scratch = Scratch::new(&std::env::temp_dir())?;
            let one = Syncthing::new(scratch.path(), &scratch.path().join(SHARE), free_ports()?)?;
            one.configure(&one, delay)?;
            let mut daemon = one.start()?;
            for _ in 0..200 {
                if daemon.check().is_err() {
                    return Ok(false);
                }
                if one.idle_with().is_some() {
                    return Ok(true);
                }
                sleep(Duration::from_millis(50));
            }
            Ok(false)
        };
        if takes("0.01").unwrap_or(false) { "0.01" } else { "1" }
    })
}

/// Syncthing on one node.
#[derive(Debug, Clone)]
pub(crate) struct Syncthing {
    home: PathBuf,
    root: PathBuf,
    id: String,
    port: u16,
    gui: u16,
}

const KEY: &str = "compare";

impl Syncthing {
    /// Makes its key.
    pub(crate) fn new(dir: &Path, root: &Path, [port, gui]: [u16; 2]) -> Result<Syncthing> {
        let home = dir.join("syncthing");
        let run = |arguments: &[&str]| -> Result<String> {
            let home = format!("--home={}", home.display());
            let out = Command::new("syncthing").args(arguments).arg(home).output()?;
            if !out.status.success() {
                return Err(format!("syncthing: {}", String::from_utf8_lossy(&out.stderr)).into());
            }
            Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        run(&["generate", "--no-default-folder"])?;
        let id = run(&["serve", "--device-id"])?;
        fs::create_dir_all(root.join(".stfolder"))?;
        Ok(Syncthing { home, root: root.to_owned(), id, port, gui })
    }

    /// Writes its config: nothing but loopback, no discovery, no reports, and the least delays.
    pub(crate) fn pair_with(&self, other: &Syncthing) -> Result<()> {
        self.configure(other, syncthing_delay())
    }

    fn configure(&self, other: &Syncthing, delay: &str) -> Result<()> {
        let device = |one: &Syncthing| {
            format!(
                "<device id=\"{}\" name=\"{}\" compression=\"never\"><address>tcp4://127.0.0.1:{}</address></device>\n",
                one.id, one.port, one.port
            )
        };
        let member = |one: &Syncthing| format!("<device id=\"{}\"></device>\n", one.id);
        let text = format!(
            "<configuration version=\"36\">\n\
             <folder id=\"{SHARE}\" path=\"{root}\" type=\"sendreceive\" rescanIntervalS=\"3600\" \
             fsWatcherEnabled=\"true\" fsWatcherDelayS=\"{delay}\">\n{members}</folder>\n{devices}\
             <gui enabled=\"true\" tls=\"false\"><address>127.0.0.1:{gui}</address><apikey>{KEY}</apikey></gui>\n\
             <options><listenAddress>tcp4://127.0.0.1:{port}</listenAddress>\
             <globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled>\
             <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><startBrowser>false</startBrowser>\
             <reconnectionIntervalS>5</reconnectionIntervalS><urAccepted>-1</urAccepted>\
             <autoUpgradeIntervalH>0</autoUpgradeIntervalH><crashReportingEnabled>false</crashReportingEnabled>\
             <stunKeepaliveStartS>0</stunKeepaliveStartS><setLowPriority>false</setLowPriority>\
             <progressUpdateIntervalS>-1</progressUpdateIntervalS></options>\n</configuration>\n",
            root = self.root.display(),
            members =
                member(self) + &if other.id == self.id { String::new() } else { member(other) },
            devices =
                device(self) + &if other.id == self.id { String::new() } else { device(other) },
            gui = self.gui,
            port = self.port,
        );
        Ok(fs::write(self.home.join("config.xml"), text)?)
    }

    pub(crate) fn start(&self) -> Result<Process> {
        let mut command = Command::new("syncthing");
        command
            .args(["serve", "--no-browser", "--no-restart", "--no-upgrade", "--skip-port-probing"])
            .arg(format!("--home={}", self.home.display()))
            .env("HOME", &self.home)
            .env("STNOUPGRADE", "1");
        Process::start(&mut command, &self.home.join("log"))
    }

    /// Files that it knows, if it has scanned its folder and has nothing to do.
    pub(crate) fn idle_with(&self) -> Option<u64> {
        let status = self.get(&format!("/rest/db/status?folder={SHARE}"))?;
        let is_idle = status["state"] == "idle" && status["needTotalItems"] == 0;
        is_idle.then(|| status["localFiles"].as_u64()).flatten()
    }

    pub(crate) fn is_connected(&self, other: &Syncthing) -> bool {
        let connections = self.get("/rest/system/connections");
        connections.is_some_and(|all| all["connections"][&other.id]["connected"] == true)
    }

    fn get(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.gui)).ok()?;
        stream.set_read_timeout(Some(ANSWER_WAIT)).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nX-API-Key: {KEY}\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }
}
