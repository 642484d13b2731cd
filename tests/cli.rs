//! The command line as people and scripts meet it: the real program, its output and exit codes.
#![expect(clippy::disallowed_methods, reason = "tests prepare and read files of their own")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, not what they call"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use insta::assert_snapshot;

const PRINT: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A directory with room for one node and its recordings.
struct Scratch {
    dir: tempfile::TempDir,
}

/// What a command left behind.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("rec")).unwrap();
        Scratch { dir }
    }

    /// A node that `init` has set up, with the share `recordings`.
    fn node() -> Self {
        let scratch = Scratch::new();
        let ran = scratch.init();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("node/recsync.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    fn init(&self) -> Ran {
        let config = self.config();
        let config = config.to_str().unwrap();
        self.run(&["--config", config, "init", "--name", "fs1", "--share", "recordings=rec"])
    }

    /// Runs `recsync` in the directory, with the node's config named by the environment.
    fn run(&self, args: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_recsync"))
            .args(args)
            .current_dir(self.dir.path())
            .env("RECSYNC_CONFIG", self.config())
            .env_remove("JOURNAL_STREAM")
            .env_remove("COLUMNS")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| self.without_what_varies(&String::from_utf8(bytes).unwrap());
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Hides the directory, and the random fingerprint if there is one.
    fn without_what_varies(&self, text: &str) -> String {
        let mut text = text.replace(self.dir.path().to_str().unwrap(), "[DIR]");
        let is_ours = |print: &str| {
            print.bytes().all(|byte| byte.is_ascii_hexdigit()) && !PRINT.ends_with(print)
        };
        let start = text.match_indices("sha256:").map(|(at, prefix)| at + prefix.len());
        let ours = start.filter_map(|at| text.get(at..at + 64)).find(|print| is_ours(print));
        if let Some(ours) = ours.map(str::to_owned) {
            text = text.replace(&ours, "[OURS]");
        }
        text
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

#[test]
fn help_lists_the_commands() {
    let ran = Scratch::new().run(&["--help"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_snapshot!(ran.stdout, @"
    Keeps directories of call recordings the same on all nodes, within a fraction of a second

    Usage: recsync [OPTIONS] <COMMAND>

    Commands:
      init       Makes this node's config file, its key and certificate, and each share's root marker
      identity   Prints this node's name and fingerprint, for `recsync peer add` on the other nodes
      peer       Adds, removes or lists the nodes that this one is paired with
      share      Adds or lists the directory trees that are kept in step
      check      Reads the config as `run` would and reports every mistake with file, line and column
      run        Run the daemon in the foreground, until SIGTERM or Ctrl-C
      verify     Compares the shares with the peers' as they are on disk now
      status     Shows peers, shares, lag, queues, throughput, recent errors and conflicts
      health     Says whether the daemon does its job, for Keepalived's track_script and container
                 probes
      wait       Waits until files, as they are now, are durable on a peer
      confirm    Lists what a guard holds back (mass delete, replaced disk), lets it go or undoes it
      trash      Lists, puts back or erases what peers' deletes and overwrites removed here
      conflicts  Lists conflict copies, shows how they differ, and resolves them
      rescan     Has the daemon scan a share, or all of them, from top to bottom now
      reload     Has the daemon read its config again, and prints what changed
      demo       Shows two real daemons at work: calls are recorded on both sides, then both are
                 compared
      help       Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Global options:
          --config <FILE>        The config file [default: RECSYNC_CONFIG, else
                                 /etc/recsync/recsync.toml]
          --log-level <LEVEL>    What is logged: error, warn, info, debug, trace, or a list such as
                                 `info,recsync::net=debug` [default: info]
          --log-format <FORMAT>  How it is logged [default: journal under systemd, else text] [possible
                                 values: text, json, journal]
    ");
}

#[test]
fn help_of_init_says_every_default() {
    assert_snapshot!(Scratch::new().run(&["init", "--help"]).stdout, @"
    Makes this node's config file, its key and certificate, and each share's root marker

    Prints the node's fingerprint and what to do next. Never overwrites anything: a key and markers that
    are there already are kept.

    Usage: recsync init [OPTIONS] --name <NAME>

    Options:
          --name <NAME>
              What this node is to be called

          --share <NAME=PATH>
              A directory to keep in step, under the name that it has on all nodes; may be repeated

          --listen <ADDR>
              Where peers connect [default: 0.0.0.0:8730]

          --http <ADDR>
              Where metrics, health and the status page are served [default: nowhere]

          --state-dir <DIR>
              For key, certificate and index [default: /var/lib/recsync for a config under /etc, else
              `state` beside the config file]

          --control <PATH>
              The control socket [default: /run/recsync/control.sock for a config under /etc, else
              `control.sock` beside the config file]

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              The config file [default: RECSYNC_CONFIG, else /etc/recsync/recsync.toml]

          --log-level <LEVEL>
              What is logged: error, warn, info, debug, trace, or a list such as
              `info,recsync::net=debug`
              
              [default: info]

          --log-format <FORMAT>
              How it is logged [default: journal under systemd, else text]
              
              [possible values: text, json, journal]
    ");
}

#[test]
fn version_is_one_line() {
    let ran = Scratch::new().run(&["--version"]);
    assert_eq!(ran.stdout, concat!("recsync ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn usage_errors_are_2() {
    let scratch = Scratch::new();
    for args in [
        &["frobnicate"][..],
        &[],
        &["check", "--zebra"],
        &["init", "--name", "not a name"],
        &["init", "--name", "fs1", "--share", "recordings"],
        &["init", "--name", "fs1", "--listen", "8730"],
        &["peer", "add", "fs2", "--address", "h:1"],
        &["peer", "add", "fs2", "--address", "h:1", "--fingerprint", "sha256:00"],
        &["--log-level", "loud", "check"],
    ] {
        let ran = scratch.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?} {ran:?}");
        assert_ne!(ran.stderr, "", "{args:?}");
    }
}

#[test]
fn init_says_what_it_made_and_what_comes_next() {
    let scratch = Scratch::new();
    let ran = scratch.init();
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_snapshot!(ran.stdout, @"
    Node fs1 is set up.
      config       [DIR]/node/recsync.toml
      state        [DIR]/node/state
      fingerprint  sha256:[OURS]
      share        recordings [DIR]/rec

    Next:
      1. On the other node, unless it is set up:
           recsync init --name OTHER --share recordings=[DIR]/rec
      2. On the other node, make this one known:
           recsync peer add fs1 --address ADDRESS-OF-fs1:8730 --fingerprint sha256:[OURS]
      3. Here, make the other one known, with the fingerprint that `recsync identity` prints there:
           recsync --config [DIR]/node/recsync.toml peer add OTHER --address ADDRESS-OF-OTHER:8730 --fingerprint sha256:...
      4. On both:
           recsync --config [DIR]/node/recsync.toml check
           recsync --config [DIR]/node/recsync.toml run
    ");
    assert_eq!(mode(&scratch.path("node/state")), 0o700);
    assert_eq!(mode(&scratch.path("node/state/key.pem")), 0o600);
    assert!(scratch.path("rec/.recsync/share.toml").is_file());
}

#[test]
fn init_overwrites_nothing() {
    let scratch = Scratch::node();
    let files = [
        "node/recsync.toml",
        "node/state/key.pem",
        "node/state/cert.pem",
        "rec/.recsync/share.toml",
    ];
    let read = || files.map(|file| fs::read(scratch.path(file)).unwrap());
    let before = read();

    let again = scratch.init();
    assert_eq!((again.code, again.stdout.as_str()), (Some(2), ""));
    assert_snapshot!(again.stderr, @"recsync: [DIR]/node/recsync.toml is there already and is never overwritten; edit it, or move it away first");
    assert_eq!(read(), before);

    // A node that lost its config keeps its key and its markers.
    fs::remove_file(scratch.config()).unwrap();
    assert_eq!(scratch.init().code, Some(0));
    assert_eq!(read(), before);
}

#[test]
fn init_refuses_what_cannot_be_a_share() {
    let scratch = Scratch::new();
    fs::write(scratch.path("file"), "").unwrap();
    let init = |share: &str| scratch.run(&["init", "--name", "fs1", "--share", share]);
    let ran = [init("a=missing"), init("a=file"), init("a=/")];
    for ran in &ran {
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""));
    }
    assert_snapshot!(ran.map(|ran| ran.stderr).concat(), @"
    recsync: share a: cannot look at [DIR]/missing; make the directory or mount the disk, and try again: No such file or directory (os error 2)
    recsync: share a: [DIR]/file is no directory; give the directory that is to be kept in step
    recsync: these arguments make no valid config:
    [DIR]/node/recsync.toml:36:8: share.path: the control socket, [DIR]/node/control.sock, lies in this share and would go to the peers; move one of them
    [DIR]/node/recsync.toml:36:8: share.path: the state directory, [DIR]/node/state, lies in this share and would go to the peers; move one of them
    [DIR]/node/recsync.toml:36:8: share.path: this config file, [DIR]/node/recsync.toml, lies in this share and would go to the peers; move one of them
    ");
    assert!(!scratch.path("node").exists(), "nothing is made before all is known to be fine");

    // A root of one share is not taken for another.
    assert_eq!(scratch.init().code, Some(0));
    fs::remove_file(scratch.config()).unwrap();
    let other = init("faxes=rec");
    assert_eq!(other.code, Some(2));
    assert!(other.stderr.contains("has a marker already"), "{other:?}");
    assert!(!scratch.config().exists());
}

#[test]
fn identity_is_a_line_or_a_document() {
    let scratch = Scratch::node();
    assert_eq!(scratch.run(&["identity"]).stdout, "fs1 sha256:[OURS]\n");
    assert_snapshot!(scratch.run(&["identity", "--json"]).stdout, @r#"
    {
      "fingerprint": "sha256:[OURS]",
      "name": "fs1"
    }
    "#);
    fs::remove_file(scratch.path("node/state/key.pem")).unwrap();
    let ran = scratch.run(&["identity"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""));
    assert_snapshot!(ran.stderr, @"recsync: [DIR]/node/state/key.pem is missing: this node has no key yet; run `recsync init`");
}

#[test]
fn peers_come_and_go() {
    let scratch = Scratch::node();
    let text = format!("# Ours.\n{}# The end.\n", scratch.text());
    fs::write(scratch.config(), &text).unwrap();
    fs::set_permissions(scratch.config(), fs::Permissions::from_mode(0o640)).unwrap();

    assert_eq!(
        scratch.run(&["peer", "list"]).stdout,
        "No peers; add one with `recsync peer add`.\n"
    );
    let add = ["peer", "add", "fs2", "--address", "192.168.1.109:8730", "--fingerprint", PRINT];
    let ran = scratch.run(&add);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_snapshot!(ran.stdout, @"
    Peer fs2 is in [DIR]/node/recsync.toml.
    A running daemon takes it up with: systemctl reload recsync (or SIGHUP)
    ");
    assert!(scratch.text().starts_with(&text), "comments and order are kept");
    assert_eq!(mode(&scratch.config()), 0o640);
    assert_snapshot!(scratch.run(&["peer", "list"]).stdout, @"
    NAME  ADDRESS             FINGERPRINT
    fs2   192.168.1.109:8730  sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
    ");
    assert_snapshot!(scratch.run(&["peer", "list", "--json"]).stdout, @r#"
    {
      "peers": [
        {
          "address": "192.168.1.109:8730",
          "allow_from": [],
          "fingerprints": [
            "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
          ],
          "name": "fs2"
        }
      ]
    }
    "#);

    let again = scratch.run(&add);
    assert_eq!(again.code, Some(2));
    assert_snapshot!(again.stderr, @"recsync: [DIR]/node/recsync.toml is as it was: there is a peer `fs2` in it already; remove or edit that one");

    let ran = scratch.run(&["peer", "remove", "fs2"]);
    assert_eq!(ran.code, Some(0));
    assert_snapshot!(ran.stdout, @"
    Peer fs2 is no longer in [DIR]/node/recsync.toml.
    A running daemon takes it up with: systemctl reload recsync (or SIGHUP)
    ");
    assert_eq!(scratch.text(), text);
    let ran = scratch.run(&["peer", "remove", "fs2"]);
    assert_eq!(ran.code, Some(2));
    assert_snapshot!(ran.stderr, @"recsync: [DIR]/node/recsync.toml is as it was: there is no peer `fs2` in it; there is none");
}

#[test]
fn a_node_cannot_be_its_own_peer() {
    let scratch = Scratch::node();
    let before = scratch.text();
    let own = Command::new(env!("CARGO_BIN_EXE_recsync"))
        .args(["--config".as_ref(), scratch.config().as_os_str(), "identity".as_ref()])
        .output()
        .unwrap();
    let own = String::from_utf8(own.stdout).unwrap();
    let own = own.trim().rsplit(' ').next().unwrap();
    let add = |name: &str, print: &str| {
        scratch.run(&["peer", "add", name, "--address", "h:1", "--fingerprint", print])
    };
    let (by_key, by_name) = (add("fs2", own), add("fs1", PRINT));
    assert_eq!((by_key.code, by_name.code), (Some(2), Some(2)));
    assert_snapshot!([by_key.stderr, by_name.stderr].concat(), @"
    recsync: peer fs2: this is the fingerprint of this node itself; give the one that `recsync identity` prints on fs2
    recsync: [DIR]/node/recsync.toml is as it was: the change would make it invalid:
    [DIR]/node/recsync.toml:57:8: peer.name: `fs1` is this node; a node is not its own peer
    ");
    assert_eq!(scratch.text(), before);

    // Written by hand, `check` finds it.
    let by_hand =
        format!("{before}[[peer]]\nname = \"fs2\"\naddress = \"h:1\"\nfingerprint = \"{own}\"\n");
    fs::write(scratch.config(), by_hand).unwrap();
    let ran = scratch.run(&["check"]);
    assert_eq!(ran.code, Some(1));
    assert_snapshot!(ran.stdout, @"[DIR]/node/recsync.toml:58:15: peer.fingerprint: this is the fingerprint of this node itself; take the one that `recsync identity` prints on fs2");
}

#[test]
fn shares_are_added_with_their_marker() {
    let scratch = Scratch::node();
    fs::create_dir_all(scratch.path("rec/inner")).unwrap();
    fs::create_dir_all(scratch.path("faxes")).unwrap();
    let ran = scratch.run(&["share", "add", "faxes=faxes"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_snapshot!(ran.stdout, @"
    Share faxes, [DIR]/faxes, is in [DIR]/node/recsync.toml.
    A running daemon takes it up with: systemctl reload recsync (or SIGHUP)
    ");
    assert!(scratch.path("faxes/.recsync/share.toml").is_file());
    assert_snapshot!(scratch.run(&["share", "list"]).stdout, @"
    NAME        PATH
    recordings  [DIR]/rec
    faxes       [DIR]/faxes
    ");
    assert_snapshot!(scratch.run(&["share", "list", "--json"]).stdout, @r#"
    {
      "shares": [
        {
          "max_delete": {
            "count": null,
            "percent": 50
          },
          "min_free": "2%",
          "name": "recordings",
          "path": "[DIR]/rec",
          "scan_interval_seconds": 86400.0,
          "settle_seconds": 0.02,
          "trash_seconds": 604800.0
        },
        {
          "max_delete": {
            "count": null,
            "percent": 50
          },
          "min_free": "2%",
          "name": "faxes",
          "path": "[DIR]/faxes",
          "scan_interval_seconds": 86400.0,
          "settle_seconds": 0.02,
          "trash_seconds": 604800.0
        }
      ]
    }
    "#);

    // One that was written by hand, or that lost its marker, gets it the same way.
    let text = scratch.text();
    fs::remove_file(scratch.path("faxes/.recsync/share.toml")).unwrap();
    let ran = scratch.run(&["share", "add", "faxes=faxes"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_snapshot!(ran.stdout, @"Share faxes, [DIR]/faxes, was in [DIR]/node/recsync.toml already; its marker is in place.");
    assert_eq!(scratch.text(), text);
    assert!(scratch.path("faxes/.recsync/share.toml").is_file());

    let ran = scratch.run(&["share", "add", "inner=rec/inner"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("overlap"), "{ran:?}");
    assert!(!scratch.path("rec/inner/.recsync").exists());
}

#[test]
fn check_tells_what_would_run() {
    let scratch = Scratch::node();
    let ran = scratch.run(&["check"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_snapshot!(ran.stdout, @r#"
    [DIR]/node/recsync.toml is valid. It runs:
      node   fs1, peers connect to 0.0.0.0:8730, sha256:[OURS]
      state  [DIR]/node/state, control socket [DIR]/node/control.sock
      share  recordings in [DIR]/rec, settle 20ms, trash 7days, max_delete "50%", scan every 1day, min_free 2%
    [DIR]/node/recsync.toml:1:1: warning: peer: there is no peer, so nothing goes anywhere; add one with `recsync peer add`
    "#);
}

#[test]
fn check_warns_of_what_will_not_stop_it() {
    let scratch = Scratch::node();
    fs::remove_file(scratch.path("rec/.recsync/share.toml")).unwrap();
    let http = "[http]\nlisten = \"0.0.0.0:9873\"\napi = true\n";
    fs::write(scratch.config(), format!("{}{http}", scratch.text())).unwrap();
    let ran = scratch.run(&["check"]);
    assert_eq!(ran.code, Some(0));
    assert_snapshot!(ran.stdout, @r#"
    [DIR]/node/recsync.toml is valid. It runs:
      node   fs1, peers connect to 0.0.0.0:8730, sha256:[OURS]
      state  [DIR]/node/state, control socket [DIR]/node/control.sock
      http   0.0.0.0:9873, all pages
      share  recordings in [DIR]/rec, settle 20ms, trash 7days, max_delete "50%", scan every 1day, min_free 2%
    [DIR]/node/recsync.toml:1:1: warning: peer: there is no peer, so nothing goes anywhere; add one with `recsync peer add`
    [DIR]/node/recsync.toml:36:8: warning: share.path: [DIR]/rec has no marker .recsync/share.toml: is the disk mounted? The share waits until it is back; if this directory never had one, `recsync share add` makes it
    [DIR]/node/recsync.toml:57:7: warning: http.api: whoever reaches 0.0.0.0:9873 sees the status page and the API, without a password: the paths of recordings (names hold telephone numbers), peers, errors; leave it out unless a firewall or a proxy guards it
    "#);
}

#[test]
fn check_finds_what_would_stop_it() {
    let scratch = Scratch::node();
    fs::remove_dir_all(scratch.path("rec")).unwrap();
    let key = scratch.path("node/state/key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = scratch.run(&["check"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
    assert_snapshot!(ran.stdout, @"
    [DIR]/node/recsync.toml:4:1: node.state_dir: [DIR]/node/state/key.pem has mode 0644: others may read this node's private key; run `chmod 600 [DIR]/node/state/key.pem`, and make a new key if anybody else has had it
    [DIR]/node/recsync.toml:36:8: share.path: the share's directory [DIR]/rec cannot be opened: No such file or directory (os error 2)
    [DIR]/node/recsync.toml:1:1: warning: peer: there is no peer, so nothing goes anywhere; add one with `recsync peer add`
    ");
}

#[test]
fn an_invalid_config_is_1_for_check_and_for_who_needs_it() {
    let scratch = Scratch::node();
    fs::write(scratch.config(), "[node]\nname = \"fs1\"\nlisten = 8730\nzebra = 1\n").unwrap();
    let check = scratch.run(&["check"]);
    assert_eq!((check.code, check.stderr.as_str()), (Some(1), ""));
    assert_snapshot!(check.stdout, @"
    [DIR]/node/recsync.toml:3:10: node.listen: this is an integer; write a text in quotes
    [DIR]/node/recsync.toml:4:1: node.zebra: not known to this version; remove it
    ");
    let list = scratch.run(&["peer", "list"]);
    assert_eq!((list.code, list.stdout.as_str()), (Some(1), ""));
    assert_snapshot!(list.stderr, @"
    recsync: the config is not valid:
    [DIR]/node/recsync.toml:3:10: node.listen: this is an integer; write a text in quotes
    [DIR]/node/recsync.toml:4:1: node.zebra: not known to this version; remove it
    ");
    // The service manager does not try this one again.
    let run = scratch.run(&["run"]);
    assert_eq!((run.code, run.stderr), (Some(1), list.stderr));
}

#[test]
fn a_missing_config_is_2_and_says_what_to_do() {
    let ran = Scratch::new().run(&["check"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""));
    assert_snapshot!(ran.stderr, @"recsync: there is no config file [DIR]/node/recsync.toml; make one with `recsync init`, or name another with --config");
}

#[test]
fn a_reader_that_has_had_enough_is_no_news() {
    let scratch = Scratch::node();
    // A pipe that nobody reads any more, as in `recsync check | true`.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = Command::new(env!("CARGO_BIN_EXE_recsync"))
        .args(["--config".as_ref(), scratch.config().as_os_str(), "check".as_ref()])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(ran.stderr).unwrap(), "");
    assert_eq!(ran.status.code(), Some(2));
}

#[test]
fn without_a_daemon() {
    let node = Scratch::node();
    let health = node.run(&["health"]);
    assert_eq!((health.code, health.stderr.as_str()), (Some(1), ""));
    assert_snapshot!(health.stdout, @"unhealthy: no recsync daemon answers at [DIR]/node/control.sock: is it running? start it with `systemctl start recsync`");
    for command in ["status", "verify", "confirm", "rescan", "reload"] {
        let ran = node.run(&[command]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{command}");
        assert!(
            ran.stderr.contains("no recsync daemon answers at [DIR]/node/control.sock"),
            "{ran:?}"
        );
    }
}

#[test]
fn health_is_2_for_usage_alone() {
    let scratch = Scratch::new();
    assert_eq!(scratch.run(&["health", "--max-lag", "soon"]).code, Some(2));
    assert_eq!(scratch.run(&["health", "--max-lags", "30s"]).code, Some(2));
    let no_config = scratch.run(&["health"]);
    assert_eq!(no_config.code, Some(1), "{no_config:?}");
    assert_eq!(no_config.stdout.lines().count(), 1, "{no_config:?}");
}
