//! Real nodes for tests: daemons of the real program, on real directories, with real TLS on
//! loopback. Used by `nodes`, `traces`, `crash` and `faults`.
//!
//! Nothing here looks inside the program: nodes are set up by `init` and `peer add`, asked by the
//! commands and over HTTP, and what they did is read from the disk by code of our own.
#![allow(dead_code, unused_imports, reason = "each test program uses its own part of this")]

mod disk;
mod http;
mod loopback;
mod netns;
mod node;
mod pair;
mod proxy;
mod strace;
mod tree;
mod users;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use disk::Disk;
pub(crate) use netns::Netns;
pub(crate) use node::Node;
pub(crate) use pair::Pair;
pub(crate) use proxy::{Line, Proxy};
pub(crate) use strace::{Call, Strace};
pub(crate) use tree::{Object, Tree, hash, unique};
pub(crate) use users::{Journal, LONG, nothing_is_left, under_load};

/// How long anything may take before a test fails: far more than it takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks again and again until `look` finds what it waits for.
///
/// # Panics
/// If it does not within [`PATIENCE`]; with what it saw last.
pub(crate) fn until<T, W: Display>(what: &str, look: impl FnMut() -> Result<T, W>) -> T {
    within(PATIENCE, what, look)
}

/// As [`until`], with a time of its own.
pub(crate) fn within<T, W: Display>(
    time: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, W>,
) -> T {
    let begun = Instant::now();
    let mut rest = LOOK_EVERY;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if begun.elapsed() > time => panic!("not in {time:?}: {what}: {why}"),
            Err(_) => thread::sleep(rest),
        }
        // A look at a large tree is work that the nodes have to wait for.
        rest = (rest * 5 / 4).min(Duration::from_millis(100));
    }
}

/// Watches something for a while that must not change: there is no event to wait for.
pub(crate) fn for_a_while(time: Duration, mut check: impl FnMut()) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        check();
        thread::sleep(LOOK_EVERY);
    }
}

/// True if `yes`, else why not, for [`until`].
pub(crate) fn seen(yes: bool) -> Result<(), &'static str> {
    if yes { Ok(()) } else { Err("not yet") }
}

/// A small file system of its own; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts a tmpfs of a size as `mount` takes it. None, and a line that says so, where that
    /// is not allowed.
    pub(crate) fn tmpfs(test: &str, dir: &Path, size: &str) -> Option<Mount> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "none"]).arg(dir);
        let output = mount.stdin(Stdio::null()).output();
        if output.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Mount(dir.to_owned()));
        }
        eprintln!("skipped: {test}: it must be root to mount a small disk: {output:?}");
        None
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, size: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]).arg(&self.0);
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a daemon may still have it open.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.unwrap().success(), "{} stays mounted", self.0.display());
    }
}
