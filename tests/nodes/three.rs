//! Three nodes: each the others' peer, and in a line.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{Node, Tree, for_a_while, hash, seen, unique, until, within};

/// Time for three nodes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Three {
    nodes: [Node; 3],
    _dir: TempDir,
}

impl Three {
    /// Three nodes of which these know each other; they do not run yet.
    fn new(links: &[(usize, usize)]) -> Three {
        let dir = tempfile::tempdir().unwrap();
        let nodes = ["fs1", "fs2", "fs3"].map(|name| Node::new(dir.path(), name));
        for (one, two) in links {
            nodes[*one].pair_with(&nodes[*two]);
            nodes[*two].pair_with(&nodes[*one]);
        }
        Three { nodes, _dir: dir }
    }

    fn mesh() -> Three {
        Three::new(&[(0, 1), (1, 2), (0, 2)]).started()
    }

    /// fs1 – fs2 – fs3.
    fn line() -> Three {
        Three::new(&[(0, 1), (1, 2)]).started()
    }

    fn started(mut self) -> Three {
        self.start();
        self
    }

    fn start(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.is_running()) {
            node.spawn();
        }
        for node in &self.nodes {
            node.wait_until_ready();
            node.wait_until_connected();
        }
    }

    /// Waits until those that run hold the same, and have nothing left to do for each other.
    fn wait_until_consistent(&self) -> Tree {
        within(PATIENCE, "all nodes are the same", || {
            let up: Vec<_> = self.nodes.iter().filter(|node| node.is_running()).collect();
            let all_up = up.len() == self.nodes.len();
            if let Some(why) = up.iter().find_map(|node| all_up.then(|| node.unfinished())?) {
                return Err(why);
            }
            let tree = up[0].tree();
            for node in &up[1..] {
                let difference = tree.difference(&node.tree());
                if !difference.is_empty() {
                    return Err(format!("{} | {}{difference}", up[0].name, node.name));
                }
            }
            Ok(tree)
        })
    }
}

/// The names of the peers of which a node speaks.
fn peers_of(node: &Node) -> Vec<String> {
    let status = node.status();
    let peers = status["peers"].as_array().unwrap().iter();
    peers.map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn three_that_know_each_other_get_everything_once() {
    let three = Three::mesh();
    let [a, b, c] = &three.nodes;
    let sizes = [700_000, 100_000];
    let mut total = 0;
    for round in 0..10 {
        for size in sizes {
            fs::write(a.path(format!("{round}-{size}.wav")), unique(size)).unwrap();
            total += size;
        }
        // One after the other, so that every node hears of it while nothing else is under way.
        if round % 3 == 0 {
            three.wait_until_consistent();
        }
    }
    let tree = three.wait_until_consistent();
    assert_eq!(tree.0.len(), 20);
    for node in [b, c] {
        let (_, received) = node.traffic();
        let most = total as f64 * 1.1 + 200_000.0;
        assert!((received as f64) < most, "{} received {received} of {total}", node.name);
    }
    let (_, received) = a.traffic();
    assert!(received < 300_000, "fs1 received {received} bytes of its own files");
    // And nothing goes on circling.
    let before = [a, b, c].map(|node| node.applied("update") + node.applied("create"));
    for_a_while(Duration::from_millis(500), || {
        let now = [a, b, c].map(|node| node.applied("update") + node.applied("create"));
        assert_eq!(before, now);
    });
}

#[test]
fn three_that_changed_one_file_while_apart_agree_on_a_winner_and_two_copies() {
    let mut three = Three::mesh();
    fs::write(three.nodes[0].path("call.wav"), unique(10_000)).unwrap();
    three.wait_until_consistent();
    let versions = [unique(11_000), unique(12_000), unique(13_000)];
    for (node, bytes) in three.nodes.iter_mut().zip(&versions) {
        node.stop();
        fs::write(node.path("call.wav"), bytes).unwrap();
    }
    three.start();
    let tree = three.wait_until_consistent();
    assert_eq!(tree.0.len(), 3, "{tree:?}");
    for bytes in &versions {
        assert!(tree.hashes().any(|found| found == hash(bytes)), "{tree:?}");
    }
    for node in ["fs1", "fs2", "fs3"] {
        let copies = tree.paths().into_iter().filter(|path| path.contains(node)).count();
        assert!(copies <= 1, "one loser each at most: {tree:?}");
    }
}

#[test]
fn in_a_line_everything_passes_through_the_middle() {
    let mut three = Three::line();
    let [a, b, c] = &three.nodes;
    for (node, size) in [(a, 700_000), (b, 90_000), (c, 300_000)] {
        fs::write(node.path(format!("by-{}.wav", node.name)), unique(size)).unwrap();
    }
    fs::create_dir(a.path("day")).unwrap();
    fs::write(a.path("day/1.wav"), unique(1_000)).unwrap();
    let tree = three.wait_until_consistent();
    assert_eq!(tree.0.len(), 5, "{tree:?}");
    assert_eq!(peers_of(a), ["fs2"]);
    assert_eq!(peers_of(c), ["fs2"]);

    // Renames and deletes too, and a rename moves no bytes twice.
    let before = c.traffic().1;
    fs::rename(a.path("by-fs1.wav"), a.path("day/archived.wav")).unwrap();
    fs::remove_file(c.path("by-fs2.wav")).unwrap();
    let tree = three.wait_until_consistent();
    assert_eq!(tree.paths(), ["by-fs3.wav", "day", "day/1.wav", "day/archived.wav"]);
    let moved = c.traffic().1 - before;
    assert!(moved < 100_000, "{moved} bytes came for a rename");

    // Both ends change one file while the middle is down; they never speak to each other.
    three.nodes[1].stop();
    let [a, _, c] = &three.nodes;
    let versions = [unique(2_000), unique(3_000)];
    fs::write(a.path("day/1.wav"), &versions[0]).unwrap();
    fs::write(c.path("day/1.wav"), &versions[1]).unwrap();
    three.start();
    let tree = three.wait_until_consistent();
    assert_eq!(tree.0.len(), 5, "{tree:?}");
    for bytes in &versions {
        assert!(tree.hashes().any(|found| found == hash(bytes)), "{tree:?}");
    }
}

#[test]
fn in_a_line_wait_speaks_of_direct_peers() {
    let mut three = Three::line();
    three.nodes[2].stop();
    let [a, b, _] = &three.nodes;
    fs::write(a.path("call.wav"), unique(300_000)).unwrap();
    let call = |node: &Node| node.path("call.wav").to_str().unwrap().to_owned();
    a.run(&["wait", "--all-peers", "--timeout", "30s", &call(a)]).ok();
    until("fs2 knows that fs3 is gone", || {
        let ran = b.run(&["wait", "--all-peers", "--timeout", "0s", &call(b)]);
        assert_eq!(ran.code, Some(1), "fs3 is a peer of fs2's: {ran:?}");
        seen(ran.stdout.contains("not on fs3: it is not connected"))
    });
    let ran = a.run(&["wait", "--peer", "fs3", &call(a)]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("no peer is called `fs3`"), "{ran:?}");

    three.start();
    let [_, b, c] = &three.nodes;
    b.run(&["wait", "--all-peers", "--timeout", "30s", &call(b)]).ok();
    // It came from fs2, which did not write it, and acknowledges it to nobody: it is asked.
    c.run(&["wait", "--peer", "fs2", "--timeout", "30s", &call(c)]).ok();
}

#[test]
fn in_a_line_lag_speaks_of_direct_peers() {
    let mut three = Three::line();
    fs::write(three.nodes[0].path("gone.wav"), unique(1_000)).unwrap();
    three.wait_until_consistent();
    three.nodes[2].stop();
    let [a, b, c] = &three.nodes;
    fs::write(a.path("late.wav"), unique(50_000)).unwrap();
    fs::remove_file(a.path("gone.wav")).unwrap();
    let lag = |node: &Node, peer: &str| {
        let peer = format!("peer=\"{peer}\"");
        node.metric("recsync_lag_seconds", &[&peer])
    };
    until("fs2 has it", || seen(b.path("late.wav").exists() && !b.path("gone.wav").exists()));
    // fs1 has done its part; what fs3 lacks is the business of fs2.
    until("fs1 has no lag", || {
        let nothing = lag(a, "fs2") == 0.0 && a.unfinished().is_none();
        seen(nothing)
    });
    until("fs2 has a lag towards fs3", || seen(lag(b, "fs3") > 0.0));
    for_a_while(Duration::from_millis(300), || assert_eq!(lag(a, "fs2"), 0.0));
    assert_eq!(lag(b, "fs1"), 0.0);
    a.run(&["health", "--max-lag", "100ms"]).ok();
    assert!(c.path("gone.wav").exists() && !c.path("late.wav").exists());

    // What was deleted while it was away does not come back with it.
    three.start();
    let tree = three.wait_until_consistent();
    assert_eq!(tree.paths(), ["late.wav"]);
}
