//! Daemons killed without warning, again and again, while calls come in: nothing is lost, and
//! nothing that was acknowledged is sent again.
#![expect(clippy::disallowed_methods, reason = "tests are the users: they work on the files")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, not what they call"
)]

mod support;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use support::{Node, Pair, seen, under_load, unique, until};

/// Waits until a node has applied something since it was started: a kill hits work.
fn until_it_works(node: &Node) {
    until("it applies what comes", || seen(node.metric("recsync_files_applied_total", &[]) >= 3.0));
}

/// Kills of each test here: ten, or as many as `RECSYNC_KILLS` says, for the long form.
fn kills() -> u64 {
    std::env::var("RECSYNC_KILLS").map_or(10, |count| count.parse().unwrap())
}

fn survives_kills(victim: fn(&mut Pair) -> &mut Node) {
    let mut pair = Pair::new();
    // Deletes are few here; the guard counts anew after each restart, and is no matter.
    for node in [&pair.a, &pair.b] {
        node.set("max_delete", "\"100%\"");
    }
    pair.start();
    let tree = under_load(&mut pair, |pair| {
        for kill in 0..kills() {
            until_it_works(victim(pair));
            // Not always at the same place of what it does.
            thread::sleep(Duration::from_millis(kill % 10 * 7));
            victim(pair).kill();
            victim(pair).start();
        }
    });
    assert!(tree.0.len() > 20, "there was hardly any load: {tree:?}");
}

#[test]
fn the_first_node_is_killed_under_load() {
    survives_kills(|pair| &mut pair.a);
}

#[test]
fn the_second_node_is_killed_under_load() {
    survives_kills(|pair| &mut pair.b);
}

#[test]
fn both_nodes_are_killed_under_load_in_turn_even_while_they_start() {
    let mut pair = Pair::started();
    under_load(&mut pair, |pair| {
        for kill in 0..kills() {
            let node = if kill % 2 == 0 { &mut pair.a } else { &mut pair.b };
            node.kill();
            node.spawn();
            // Into its recovery, its first scan, its handshake.
            thread::sleep(Duration::from_millis(kill % 10 * 11));
            let other = if kill % 2 == 0 { &mut pair.b } else { &mut pair.a };
            other.kill();
            other.spawn();
        }
    });
}

#[test]
fn a_node_that_is_down_for_long_gets_everything() {
    let mut pair = Pair::started();
    under_load(&mut pair, |pair| {
        pair.b.kill();
        // What its own users do meanwhile is not seen by anybody.
        let begun = Instant::now();
        until("much has happened", || seen(begun.elapsed() > Duration::from_secs(2)));
        pair.b.start();
    });
}

#[test]
fn a_restart_sends_nothing_again() {
    let mut pair = Pair::started();
    for number in 0..200 {
        fs::write(pair.a.path(format!("{number}-1.wav")), unique(20_000)).unwrap();
        fs::write(pair.b.path(format!("{number}-2.wav")), unique(20_000)).unwrap();
    }
    fs::write(pair.a.path("large.wav"), unique(5_000_000)).unwrap();
    let before = pair.wait_until_consistent();
    let check = |pair: &Pair, what: &str| {
        let after = pair.wait_until_consistent();
        assert_eq!(before.difference(&after), "", "{what}");
        for node in [&pair.a, &pair.b] {
            let (_, received) = node.traffic();
            // Handshakes, greetings, and the digests of the verifications.
            assert!(received < 150_000, "{what}: {} received {received} bytes", node.name);
            assert_eq!(node.metric("recsync_files_applied_total", &[]), 0.0, "{what}");
        }
    };

    pair.a.stop();
    pair.b.stop();
    pair.start();
    check(&pair, "after a clean stop of both");

    // Acknowledged is acknowledged, also if the one who heard it, or said it, is killed.
    pair.a.kill();
    pair.b.kill();
    pair.start();
    check(&pair, "after a kill of both");
}

#[test]
fn a_kill_between_two_changes_of_one_file_keeps_the_last() {
    let mut pair = Pair::started();
    for round in 0..6_u8 {
        let bytes = [unique(30_000), vec![round]].concat();
        fs::write(pair.a.path("call.wav"), &bytes).unwrap();
        if round % 2 == 0 {
            pair.a.kill();
        } else {
            pair.b.kill();
        }
        let last = [unique(30_000), vec![round]].concat();
        fs::write(pair.a.path("call.wav"), &last).unwrap();
        pair.start();
        let tree = pair.wait_until_consistent();
        assert!(fs::read(pair.b.path("call.wav")).unwrap() == last, "round {round}");
        assert_eq!(tree.paths(), ["call.wav"], "one writer makes no conflict");
    }
}
