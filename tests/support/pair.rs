//! Two nodes that are each other's peers.

use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::node::Node;
use super::proxy::Proxy;
use super::tree::Tree;
use super::{PATIENCE, seen, until, within};

/// Lines of each log that are shown when a test fails.
const LOG_LINES: usize = 120;

/// Two nodes, `fs1` and `fs2`. When a test fails their state and logs are printed.
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) dir: TempDir,
}

impl Pair {
    /// Two nodes that know each other and do not run yet.
    pub(crate) fn new() -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Node::new(dir.path(), "fs1"), Node::new(dir.path(), "fs2"));
        a.pair_with(&b);
        b.pair_with(&a);
        Pair { a, b, dir }
    }

    /// Two nodes that know each other by these lines only, and do not run yet.
    pub(crate) fn over_lines() -> (Pair, [Proxy; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Node::new(dir.path(), "fs1"), Node::new(dir.path(), "fs2"));
        let lines = [Proxy::to(a.listen), Proxy::to(b.listen)];
        a.pair_with_at(&b, lines[1].address);
        b.pair_with_at(&a, lines[0].address);
        (Pair { a, b, dir }, lines)
    }

    /// Two nodes that run and are connected.
    pub(crate) fn started() -> Pair {
        let mut pair = Pair::new();
        pair.start();
        pair
    }

    /// Starts what does not run, and waits until both are ready and connected.
    pub(crate) fn start(&mut self) {
        for node in [&mut self.a, &mut self.b] {
            if !node.is_running() {
                node.spawn();
            }
        }
        for node in [&self.a, &self.b] {
            node.wait_until_ready();
            node.wait_until_connected();
        }
    }

    /// Waits until both trees are the same, both nodes say so and have nothing left to do, and
    /// returns what they hold.
    pub(crate) fn wait_until_consistent(&self) -> Tree {
        self.wait_until_consistent_within(PATIENCE)
    }

    pub(crate) fn wait_until_consistent_within(&self, time: Duration) -> Tree {
        within(time, "both nodes are the same", || {
            let difference = Tree::glance(&self.a.root)
                .without_special()
                .difference(&Tree::glance(&self.b.root).without_special());
            if !difference.is_empty() {
                return Err(difference);
            }
            if let Some(unfinished) = self.a.unfinished().or_else(|| self.b.unfinished()) {
                return Err(unfinished);
            }
            for node in [&self.a, &self.b] {
                self.verify(node)?;
            }
            let (a, b) = (self.a.tree().without_special(), self.b.tree().without_special());
            let difference = a.difference(&b);
            if difference.is_empty() { Ok(a) } else { Err(difference) }
        })
    }

    /// As [`Pair::wait_until_consistent`], and with exactly this tree.
    #[track_caller]
    pub(crate) fn wait_until_both_hold(&self, expected: &Tree) {
        until("fs2 holds what was expected", || {
            let difference = expected.difference(&self.b.tree().without_special());
            if difference.is_empty() { Ok(()) } else { Err(difference) }
        });
        let tree = self.wait_until_consistent();
        assert_eq!(expected.difference(&tree), "", "expected | there is");
    }

    /// Asks one node to verify; fails with its report unless all is well.
    fn verify(&self, node: &Node) -> Result<(), String> {
        let ran = node.run(&["verify", "--json", "--timeout", "2s"]);
        let report: Value = serde_json::from_str(&ran.stdout).map_err(|_| format!("{ran:?}"))?;
        let checks = report["checks"].as_array().unwrap();
        let settled = checks.iter().all(|check| check["in_flight"] == 0);
        if ran.code == Some(0) && report["consistent"] == true && settled && !checks.is_empty() {
            Ok(())
        } else {
            Err(format!("{}: {ran:?}", node.name))
        }
    }

    /// Waits until a path exists on a node, from the other's doing.
    pub(crate) fn wait_for(&self, node: &Node, path: &str) {
        until(&format!("{path} is on {}", node.name), || {
            seen(node.path(path).symlink_metadata().is_ok())
        });
    }

    /// Watches that both nodes stay as they are for `time`.
    pub(crate) fn stays(&self, time: Duration) {
        let before = [self.a.tree(), self.b.tree()];
        let begun = Instant::now();
        while begun.elapsed() < time {
            std::thread::sleep(Duration::from_millis(50));
            for (node, before) in [&self.a, &self.b].into_iter().zip(&before) {
                assert_eq!(before.difference(&node.tree()), "", "{} changed", node.name);
            }
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let nodes = [&self.a, &self.b];
        if std::thread::panicking() {
            for node in nodes {
                let status = node.run(&["status"]);
                eprintln!("=== {} {status:?}\n{}{}", node.name, status.stdout, status.stderr);
                let log = node.log();
                let lines: Vec<_> = log.lines().collect();
                let shown = &lines[lines.len().saturating_sub(LOG_LINES)..];
                eprintln!("=== log of {}\n{}", node.name, shown.join("\n"));
            }
        } else {
            for node in nodes {
                let log = node.log();
                // rustls 0.23 asserts, in debug builds only, that a spoiled record comes alone.
                let ours =
                    |line: &&str| line.contains("panicked") && !line.contains("/rustls-0.23");
                let panicked = log.lines().find(ours);
                assert_eq!(panicked, None, "{} panicked:\n{log}", node.name);
            }
        }
    }
}
