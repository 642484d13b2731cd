//! `recsync demo` as a user meets it: two real daemons, a verdict, and nothing left behind.
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, not what they call"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn demo(dir: &Path, seconds: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recsync"));
    command.args(["demo", "--seconds", seconds, "--dir"]).arg(dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Returns the processes whose working directory is below this one, as the daemons' are, as long
/// as they run.
fn processes_below(dir: &Path) -> Vec<String> {
    let processes = Path::new("/proc").read_dir().unwrap();
    let below = processes.filter_map(Result::ok).filter(|process| {
        let cwd = process.path().join("cwd").read_link();
        cwd.is_ok_and(|cwd| cwd.starts_with(dir))
    });
    below.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

fn assert_nothing_is_left(dir: &Path) {
    assert_eq!(processes_below(dir), Vec::<String>::new());
    let left: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn ends_consistent_with_a_summary() {
    let scratch = tempfile::tempdir().unwrap();
    let output = demo(scratch.path(), "3").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    for expected in [
        "Two nodes, fs1 and fs2",
        "calls growing",
        "renames carried",
        "conversions carried",
        "deletes carried",
        "LAG OF",
        "recsync verify: no differences, ",
        "byte for byte, without recsync: no differences, ",
    ] {
        assert!(stdout.contains(expected), "no {expected:?} in:\n{stdout}");
    }
    assert!(stdout.ends_with("\nResult: consistent\n"), "{stdout}");
    assert!(!stdout.contains('\x1b'), "no escape codes in a pipe: {stdout}");
    assert_eq!(stderr, "");
    assert_nothing_is_left(scratch.path());
}

#[test]
fn signals_end_it_without_litter() {
    for signal in [Signal::INT, Signal::TERM] {
        let scratch = tempfile::tempdir().unwrap();
        let mut child = Ends(demo(scratch.path(), "300").spawn().unwrap());
        let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
        // The second line is there when calls are being recorded.
        let mut line = String::new();
        for _ in 0..2 {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it ended by itself");
        }
        assert!(line.contains("calls growing"), "{line}");
        assert_eq!(processes_below(scratch.path()).len(), 2, "two daemons");
        kill_process(Pid::from_child(&child.0), signal).unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(130));
        assert_nothing_is_left(scratch.path());
    }
}

#[test]
fn says_what_it_cannot_do() {
    let scratch = tempfile::tempdir().unwrap();
    let code = |command: &mut Command| command.output().unwrap().status.code();
    assert_eq!(code(&mut demo(&scratch.path().join("nowhere"), "3")), Some(2));
    assert_eq!(code(&mut demo(scratch.path(), "0")), Some(2));
    assert_eq!(code(demo(scratch.path(), "3").args(["--rate", "4"])), Some(2));
    assert_nothing_is_left(scratch.path());
}

/// A child that does not outlive a test that fails.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // Not killed: it has two daemons to end.
        if let Ok(None) = self.0.try_wait()
            && kill_process(Pid::from_child(&self.0), Signal::TERM).is_ok()
        {
            self.0.wait().unwrap();
        }
    }
}
