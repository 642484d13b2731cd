//! Real nodes for tests: daemons of the real program, on real directories, with real TLS on
//! loopback. Used by `nodes`, `traces` and `crash`.
//!
//! Nothing here looks inside the program: nodes are set up by `init` and `peer add`, asked by the
//! commands and over HTTP, and what they did is read from the disk by code of our own.
#![allow(dead_code, reason = "each test program uses its own part of this")]

mod http;
mod node;
mod pair;
mod tree;

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use node::Node;
pub(crate) use pair::Pair;
pub(crate) use tree::{Object, Tree, hash, unique};

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
