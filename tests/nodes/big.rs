//! Large files: in verified blocks, resumed, and for the price of what changed.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use crate::support::{Pair, seen, unique, until, within};

const LEN: u64 = 50_000_000;

fn pair_with(bytes: &[u8]) -> Pair {
    let pair = Pair::started();
    fs::write(pair.a.path("long.wav"), bytes).unwrap();
    pair.wait_until_consistent();
    pair
}

#[test]
fn a_large_file_is_resumed_where_a_kill_interrupted_it() {
    for victim in ["receiver", "sender"] {
        let mut pair = Pair::new();
        pair.start();
        let bytes = unique(LEN as usize);
        fs::write(pair.a.path("long.wav"), &bytes).unwrap();
        within(Duration::from_secs(60), "a third of it is on the way", || {
            seen(pair.b.traffic().1 > LEN / 3)
        });
        assert!(!pair.b.path("long.wav").exists(), "it came whole before the kill");
        let mut moved = 0;
        if victim == "receiver" {
            pair.b.kill();
        } else {
            moved += pair.b.traffic().1;
            pair.a.kill();
        }
        pair.start();
        pair.wait_until_consistent();
        assert!(fs::read(pair.b.path("long.wav")).unwrap() == bytes);
        // What was sent in total: by the sender that lived, or to the receiver that lived.
        moved =
            if victim == "receiver" { pair.a.traffic().0 } else { moved.max(pair.b.traffic().1) };
        assert!(moved < LEN * 13 / 10, "{victim} killed: {moved} bytes went over the wire");
        let temporary = fs::read_dir(pair.b.path(".recsync/tmp")).unwrap().count();
        assert_eq!(temporary, 0, "nothing is left behind");
    }
}

#[test]
fn an_append_costs_what_was_appended() {
    let bytes = unique(LEN as usize);
    let pair = pair_with(&bytes);
    let before = pair.b.traffic().1;
    let more = unique(64 << 10);
    let mut file = File::options().append(true).open(pair.a.path("long.wav")).unwrap();
    file.write_all(&more).unwrap();
    drop(file);
    pair.wait_until_consistent();
    let moved = pair.b.traffic().1 - before;
    assert!(moved < 3_000_000, "{moved} bytes for an append of {}", more.len());
    assert!(fs::read(pair.b.path("long.wav")).unwrap() == [bytes, more].concat());
    assert!(pair.b.metric("recsync_saved_bytes_total", &["how=\"delta\""]) > 40e6);
}

#[test]
fn a_patched_header_costs_a_block() {
    let bytes = unique(20_000_000);
    let pair = pair_with(&bytes);
    let before = pair.b.traffic().1;
    let file = File::options().write(true).open(pair.a.path("long.wav")).unwrap();
    file.write_all_at(b"RIFF", 0).unwrap();
    drop(file);
    pair.wait_until_consistent();
    let moved = pair.b.traffic().1 - before;
    assert!(moved < 3_000_000, "{moved} bytes for a patch of four");
}

#[test]
fn a_copy_of_what_is_there_costs_nothing() {
    let bytes = unique(20_000_000);
    let pair = pair_with(&bytes);
    let before = pair.b.traffic().1;
    fs::copy(pair.a.path("long.wav"), pair.a.path("copy.wav")).unwrap();
    pair.wait_until_consistent();
    let moved = pair.b.traffic().1 - before;
    assert!(moved < 200_000, "{moved} bytes for a copy");
    assert!(pair.b.metric("recsync_saved_bytes_total", &["how=\"dedup\""]) >= 20e6);
}

#[test]
fn a_large_file_does_not_hold_up_small_ones() {
    let pair = Pair::started();
    fs::write(pair.a.path("long.wav"), unique(3 * LEN as usize)).unwrap();
    until("it is on the way", || seen(pair.b.traffic().1 > 1_000_000));
    fs::write(pair.a.path("call.wav"), unique(100_000)).unwrap();
    pair.wait_for(&pair.b, "call.wav");
    assert!(!pair.b.path("long.wav").exists(), "the call came after the long one");
    pair.wait_until_consistent();
}

#[test]
fn a_large_file_that_vanishes_on_the_way_leaves_nothing_behind() {
    let pair = Pair::started();
    fs::write(pair.a.path("long.wav"), unique(LEN as usize)).unwrap();
    until("it is on the way", || seen(pair.b.traffic().1 > 1_000_000));
    fs::remove_file(pair.a.path("long.wav")).unwrap();
    fs::write(pair.a.path("after"), b"1").unwrap();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.paths(), ["after"]);
}
