//! Links that are cut, silent, slow or spoiled, and nodes that are stopped and go on, under load.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Line, Netns, Node, Pair, Proxy, seen, under_load, unique, until};

fn applied(node: &Node) -> f64 {
    node.metric("recsync_files_applied_total", &[])
}

/// Waits until both have applied more than now: the link works.
fn until_it_works(pair: &Pair) {
    let before = [applied(&pair.a), applied(&pair.b)];
    until("both apply what comes", || {
        seen(applied(&pair.a) > before[0] + 3.0 && applied(&pair.b) > before[1] + 3.0)
    });
}

fn until_not_connected(node: &Node) {
    until(&format!("{} notices", node.name), || {
        seen(node.metric("recsync_peer_connected", &[]) == 0.0)
    });
}

fn under_load_over(test: impl FnOnce(&mut Pair, &dyn Fn(Line))) {
    let (mut pair, lines) = Pair::over_lines();
    pair.start();
    under_load(&mut pair, |pair| {
        let set = |line| lines.iter().for_each(|proxy: &Proxy| proxy.set(line));
        test(pair, &set);
        set(Line::Good);
    });
}

#[test]
fn a_link_that_is_cut_again_and_again() {
    under_load_over(|pair, set| {
        for _ in 0..10 {
            until_it_works(pair);
            set(Line::Cut);
            until_not_connected(&pair.a);
            set(Line::Good);
        }
    });
}

#[test]
fn a_link_that_falls_silent_is_given_up_by_both() {
    under_load_over(|pair, set| {
        for line in [Line::Swallows, Line::SwallowsAnswers] {
            until_it_works(pair);
            set(line);
            until_not_connected(&pair.a);
            until_not_connected(&pair.b);
            set(Line::Good);
        }
    });
}

#[test]
fn a_link_that_spoils_what_it_carries_is_given_up() {
    under_load_over(|pair, set| {
        for every in [40_000, 3_000, 200] {
            until_it_works(pair);
            set(Line::Spoils(every));
            until_not_connected(&pair.a);
            set(Line::Good);
        }
    });
}

#[test]
fn a_slow_link_delivers() {
    under_load_over(|pair, set| {
        set(Line::Delays(Duration::from_millis(100)));
        until_it_works(pair);
        set(Line::Throttles(100_000));
        until_it_works(pair);
    });
}

#[test]
fn a_share_that_stops_while_its_file_is_fetched_is_asked_again() {
    let (mut pair, lines) = Pair::over_lines();
    pair.start();
    lines.iter().for_each(|line| line.set(Line::Throttles(4_000_000)));
    fs::write(pair.b.path("large.wav"), unique(48_000_000)).unwrap();
    let part = pair.a.path(".recsync/tmp");
    until("fs1 has a part of it", || {
        let mut files = fs::read_dir(&part).unwrap().map(|file| file.unwrap().metadata());
        seen(files.any(|file| file.is_ok_and(|file| file.len() > 0)))
    });

    // The link stays up all the time: nothing but the share's word tells that a question was lost.
    let away = pair.dir.path().join("marker");
    let paused = ["reason=\"no_marker\""];
    fs::rename(pair.b.marker(), &away).unwrap();
    until("it stops", || seen(pair.b.metric("recsync_paused", &paused) == 1.0));
    fs::rename(&away, pair.b.marker()).unwrap();
    until("it goes on", || seen(pair.b.metric("recsync_paused", &paused) == 0.0));
    lines.iter().for_each(|line| line.set(Line::Good));
    pair.wait_until_consistent();
}

#[test]
fn a_node_that_is_stopped_goes_on_where_it_was() {
    let mut pair = Pair::started();
    under_load(&mut pair, |pair| {
        for round in 0..4 {
            until_it_works(pair);
            let (stopped, other) =
                if round % 2 == 0 { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
            stopped.signal(Signal::STOP);
            if round < 2 {
                // For as long as the other one waits for it.
                until_not_connected(other);
            }
            stopped.signal(Signal::CONT);
        }
    });
}

#[test]
fn a_cable_that_is_pulled_and_loses_and_mixes_up_packets() {
    let test = "a_cable_that_is_pulled_and_loses_and_mixes_up_packets";
    let Some(cable) = Netns::new(test) else { return };
    let mut pair = cable.pair();
    pair.start();
    under_load(&mut pair, |pair| {
        until_it_works(pair);
        cable.pull();
        until_not_connected(&pair.a);
        cable.plug();
        until_it_works(pair);
        let how = "delay 40ms 20ms loss 3% duplicate 2% corrupt 1% reorder 10%";
        if cable.disturb(test, how) {
            until_it_works(pair);
            cable.disturb(test, "delay 0ms");
        }
    });
}
