//! One node: its directories, its config, and its daemon while that runs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::tree::Tree;
use super::{http, loopback, seen, until, within};

/// The one share that every node has.
pub(crate) const SHARE: &str = "recordings";
/// How long a daemon may take to end after SIGTERM (contract).
const STOP_TIME: Duration = Duration::from_secs(5);

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// # Panics
    /// If it did not end with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Ran {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// A node. Its daemon is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    /// The directory of the share [`SHARE`].
    pub(crate) root: PathBuf,
    pub(crate) listen: SocketAddr,
    http: SocketAddr,
    pub(crate) fingerprint: String,
    env: BTreeMap<String, String>,
    uid: Option<u32>,
    /// What runs the daemon: a command that ends by executing its arguments.
    wrapper: Vec<String>,
    child: Option<Child>,
}

impl Node {
    /// Sets a node up in a directory of its own in `dir`; its daemon is not started.
    pub(crate) fn new(dir: &Path, name: &str) -> Node {
        Node::listening(dir, name, addresses())
    }

    /// As [`Node::new`], with these addresses, for peers and for HTTP.
    pub(crate) fn listening(dir: &Path, name: &str, addresses: [SocketAddr; 2]) -> Node {
        let home = dir.join(name);
        let root = home.join(SHARE);
        fs::create_dir_all(&root).unwrap();
        let [listen, http] = addresses;
        let mut node = Node {
            name: name.to_owned(),
            home,
            root,
            listen,
            http,
            fingerprint: String::new(),
            env: BTreeMap::new(),
            uid: None,
            wrapper: Vec::new(),
            child: None,
        };
        node.set_up();
        node
    }

    fn set_up(&mut self) {
        let share = format!("{SHARE}={}", self.root.display());
        let (listen, http) = (self.listen.to_string(), self.http.to_string());
        let name = &self.name;
        let init =
            ["init", "--name", name, "--share", &share, "--listen", &listen, "--http", &http];
        self.run(&init).ok();
        let identity: Value =
            serde_json::from_str(&self.run(&["identity", "--json"]).ok().stdout).unwrap();
        self.fingerprint = identity["fingerprint"].as_str().unwrap().to_owned();
    }

    /// Makes another node known to this one.
    pub(crate) fn pair_with(&self, other: &Node) {
        self.pair_with_at(other, other.listen);
    }

    /// Makes another node known to this one, at an address that is not its own.
    pub(crate) fn pair_with_at(&self, other: &Node, address: SocketAddr) {
        let address = address.to_string();
        let add = [
            "peer",
            "add",
            &other.name,
            "--address",
            &address,
            "--fingerprint",
            &other.fingerprint,
        ];
        self.run(&add).ok();
    }

    /// Returns a path in the share.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.home.join("etc/recsync.toml")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.home.join("etc/state").join(format!("{SHARE}.index"))
    }

    pub(crate) fn marker(&self) -> PathBuf {
        self.path(".recsync/share.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Returns all that the daemon has logged, over all of its runs.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// Sets a key of the share's block in the config file, for the next start or reload.
    pub(crate) fn set(&self, key: &str, value: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        let at = text.find("[[share]]").unwrap() + "[[share]]".len();
        let text = format!("{}\n{key} = {value}{}", &text[..at], &text[at..]);
        fs::write(self.config(), text).unwrap();
    }

    /// Has it listen elsewhere for its peers, from the next start on.
    pub(crate) fn set_listen(&self, listen: SocketAddr) {
        self.edit(&self.listen.to_string(), &listen.to_string());
    }

    /// Has it answer everything over HTTP, wherever it listens.
    pub(crate) fn allow_api(&self) {
        self.edit("# api = false", "api = true");
    }

    fn edit(&self, old: &str, new: &str) {
        let text = fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(old), "{old}: {text}");
        fs::write(self.config(), text.replacen(old, new, 1)).unwrap();
    }

    /// Sets a variable of the daemon's environment, from the next start on.
    pub(crate) fn set_env(&mut self, key: &str, value: impl Into<String>) {
        self.env.insert(key.to_owned(), value.into());
    }

    /// Has the daemon run as another user, from the next start on, who gets all of its files.
    pub(crate) fn set_user(&mut self, uid: u32) {
        self.uid = Some(uid);
        let mut all = vec![self.home.clone()];
        while let Some(path) = all.pop() {
            std::os::unix::fs::lchown(&path, Some(uid), Some(uid)).unwrap();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                all.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }

    /// Has the daemon run by a command that ends by executing its arguments, from the next start on.
    pub(crate) fn set_wrapper(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
    }

    fn command(&self) -> Command {
        self.command_by(&[])
    }

    fn command_by(&self, wrapper: &[String]) -> Command {
        let program = env!("CARGO_BIN_EXE_recsync");
        let mut words = wrapper.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .env("RECSYNC_CONFIG", self.config())
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of this node.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        let output = self.command().args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Unsets a variable again.
    pub(crate) fn unset_env(&mut self, key: &str) {
        self.env.remove(key);
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn spawn(&mut self) {
        self.launch();
        until(&format!("{} answers", self.name), || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert_eq!(ended, None, "{} did not start", self.name);
            self.get("/healthz").map(drop)
        });
    }

    /// Starts the daemon.
    pub(crate) fn launch(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().append(true).create(true).open(self.log_path()).unwrap();
        let mut command = self.command_by(&self.wrapper);
        command
            .args(["--log-level", "info,recsync=debug", "--log-format", "text", "run"])
            .envs(&self.env)
            .env("NO_COLOR", "1")
            .stdout(File::create(self.home.join("stdout")).unwrap())
            .stderr(log);
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Tells whether the daemon has been killed; if so, it can be started again.
    ///
    /// # Panics
    /// If it ended in another way.
    pub(crate) fn was_killed(&mut self) -> bool {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
        if let Some(status) = ended {
            assert_eq!(status.signal(), Some(9), "{} was to be killed: {status}", self.name);
            self.child = None;
        }
        ended.is_some()
    }

    /// Starts the daemon and waits until all shares are scanned and watched.
    pub(crate) fn start(&mut self) {
        self.spawn();
        self.wait_until_ready();
    }

    pub(crate) fn wait_until_ready(&self) {
        until(&format!("{} is ready", self.name), || match self.get("/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    pub(crate) fn wait_until_connected(&self) {
        until(&format!("{} is connected", self.name), || {
            seen(
                self.status()["peers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|peer| peer["connected"] == true),
            )
        });
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Stops the daemon as systemd does; it must end well and in time.
    pub(crate) fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let begun = Instant::now();
        let status = self.wait(STOP_TIME + Duration::from_secs(5));
        assert!(begun.elapsed() < STOP_TIME, "{} took {:?} to stop", self.name, begun.elapsed());
        assert_eq!(status.code(), Some(0), "{} was to stop cleanly: {status}", self.name);
    }

    /// Kills the daemon without any warning.
    pub(crate) fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        let status = self.wait(Duration::from_secs(10));
        assert_eq!(status.signal(), Some(9), "{} had ended before: {status}", self.name);
    }

    /// Stops the daemon cleanly and starts it again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait(&mut self, time: Duration) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > time {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{} did not end within {time:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns status code and body of the answer over HTTP.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, String), String> {
        self.get_with(path, "").map(|(code, _, body)| (code, body))
    }

    /// As [`Node::get`], with request headers, and with the answer's headers.
    pub(crate) fn get_with(
        &self,
        path: &str,
        headers: &str,
    ) -> Result<(u16, String, String), String> {
        http::get(self.http, path, headers).map_err(|error| error.to_string())
    }

    /// Returns what `recsync status --json` prints.
    pub(crate) fn status(&self) -> Value {
        let (code, body) = self.get("/api/v1/status").unwrap();
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Returns the status of the share [`SHARE`].
    pub(crate) fn share(&self) -> Value {
        self.share_named(SHARE)
    }

    pub(crate) fn share_named(&self, name: &str) -> Value {
        let mut status = self.status();
        let shares = status["shares"].as_array_mut().unwrap();
        let at = shares.iter().position(|share| share["name"] == name).unwrap();
        shares.swap_remove(at)
    }

    /// Returns why the share [`SHARE`] is paused.
    pub(crate) fn pauses(&self) -> Vec<String> {
        let share = self.share();
        let pauses = share["paused"].as_array().unwrap().iter();
        pauses.map(|pause| pause["reason"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns the sum of all series of a metric whose labels contain all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (code, text) = self.get("/metrics").unwrap();
        assert_eq!(code, 200, "{text}");
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, of) = series.split_once('{').unwrap_or((series, ""));
            let wanted = found == name && labels.iter().all(|label| of.contains(label));
            wanted.then(|| value.parse::<f64>().unwrap())
        });
        series.sum()
    }

    /// Returns how many bytes have been sent and received, on the wire, since the start.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let status = self.status();
        let sum = |key: &str| {
            status["peers"].as_array().unwrap().iter().map(|peer| peer[key].as_u64().unwrap()).sum()
        };
        (sum("sent_bytes"), sum("received_bytes"))
    }

    /// Returns how many operations of a kind this daemon has applied for its peers.
    pub(crate) fn applied(&self, kind: &str) -> f64 {
        self.metric("recsync_files_applied_total", &[&format!("kind=\"{kind}\"")])
    }

    /// Returns everything in the share, with its bytes.
    pub(crate) fn tree(&self) -> Tree {
        Tree::read(&self.root)
    }

    /// Returns the files in the trash, with their hashes.
    pub(crate) fn trash(&self) -> Tree {
        Tree::read(&self.path(".recsync/trash"))
    }

    /// Returns nothing if this node has nothing to do any more, else what.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let status = self.status();
        let count = |value: &Value, key: &str| value[key].as_u64().unwrap();
        for share in status["shares"].as_array().unwrap() {
            if count(share, "pending_files") > 0 {
                return Some(format!("{} has to install: {share}", self.name));
            }
        }
        for peer in status["peers"].as_array().unwrap() {
            for share in peer["shares"].as_array().unwrap() {
                if count(share, "pending_files") > 0 || share["lag_seconds"].as_f64().unwrap() > 0.0
                {
                    return Some(format!("{} has to ship: {share}", self.name));
                }
            }
        }
        None
    }

    /// Waits for a line in the log that contains all of `words`; returns it.
    pub(crate) fn wait_for_log(&self, words: &[&str]) -> String {
        within(super::PATIENCE, &format!("{} logs {words:?}", self.name), || {
            let log = self.log();
            let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
            line.map(str::to_owned).ok_or("not yet")
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _killed = child.kill().is_ok();
            let _reaped = child.wait().is_ok();
        }
    }
}

/// Returns two addresses that are this node's alone.
fn addresses() -> [SocketAddr; 2] {
    let host = loopback::address();
    let both = [(); 2].map(|()| TcpListener::bind((host, 0)).unwrap());
    both.map(|listener| listener.local_addr().unwrap())
}
