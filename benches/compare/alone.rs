//! A network, and a process table, of this program's own: what it counts on the loopback interface is its own
//! traffic, nothing that it starts can reach another machine, and nothing outlives it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, Stdio};

const INSIDE: &str = "RECSYNC_COMPARE_ALONE";

/// True if this process is in namespaces of its own.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again in namespaces of its own; none if that cannot be had, or is so already.
pub(crate) fn run_inside() -> Option<ExitCode> {
    if is_inside() {
        return None;
    }
    let mut namespaces =
        vec!["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !rustix::process::geteuid().is_root() {
        namespaces.splice(0..0, ["--user", "--map-root-user"]);
    }
    let up = ["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"];
    let can = Command::new("unshare")
        .args(&namespaces)
        .args(up)
        .arg("true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !can.is_ok_and(|status| status.success()) {
        return None;
    }
    let program = std::env::current_exe().ok()?;
    let status = Command::new("unshare")
        .args(&namespaces)
        .args(up)
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .ok()?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(2);
    Some(ExitCode::from(u8::try_from(code).unwrap_or(2)))
}
