//! What an unclean stop leaves of files: of the machine, and of the daemon alone.

use std::fs;

use crate::support::{Pair, hash, seen, unique, until};

/// Two nodes of which fs1 was stopped without a word, and its machine too if `down`; then three of its
/// recordings became empty, shorter, and zeros at their ends. Returns what they held, by name.
fn damaged(down: bool) -> (Pair, Vec<(&'static str, Vec<u8>)>) {
    let mut pair = Pair::started();
    let names = ["empty.wav", "shorter.wav", "zeros.wav", "whole.wav"];
    let files: Vec<_> = names.map(|name| (name, unique(300_000))).into();
    for (name, bytes) in &files {
        fs::write(pair.a.path(name), bytes).unwrap();
    }
    pair.wait_until_consistent();
    pair.a.kill();
    if down {
        let index = rusqlite::Connection::open(pair.a.index()).unwrap();
        index.execute("UPDATE state SET boot = 'the one before'", []).unwrap();
    }
    fs::write(pair.a.path("empty.wav"), b"").unwrap();
    fs::write(pair.a.path("shorter.wav"), &files[1].1[..100_000]).unwrap();
    let mut zeros = files[2].1.clone();
    zeros[200_000..].fill(0);
    fs::write(pair.a.path("zeros.wav"), zeros).unwrap();
    pair.start();
    (pair, files)
}

#[test]
fn recordings_that_lost_bytes_in_a_power_cut_come_back_from_the_peer() {
    let (mut pair, files) = damaged(true);
    until("all are whole again", || {
        let whole =
            |(name, bytes): &(&str, Vec<u8>)| fs::read(pair.a.path(name)).unwrap() == *bytes;
        seen(files.iter().all(whole))
    });
    let tree = pair.wait_until_consistent();
    // What was there is kept beside them, but for nothing at all.
    assert_eq!(tree.0.len(), files.len() + 2, "{tree:?}");
    assert!(tree.hashes().any(|kept| kept == hash(&files[1].1[..100_000])), "{tree:?}");
    for (name, bytes) in &files {
        assert_eq!(fs::read(pair.b.path(name)).unwrap(), *bytes, "{name}");
    }
    assert_eq!(pair.a.trash().hashes().count(), 1, "{:?}", pair.a.trash());
    assert_eq!(pair.b.trash().paths(), [""; 0], "fs2 has lost nothing");
    pair.a.wait_for_log(&["its bytes are others than recorded", "shorter.wav"]);

    // Once they have been looked at, a file that gets shorter is news again, over a stop too.
    pair.a.kill();
    fs::write(pair.a.path("whole.wav"), b"cut short by its owner").unwrap();
    pair.start();
    until("the news is on fs2", || {
        seen(fs::read(pair.b.path("whole.wav")).unwrap() == b"cut short by its owner")
    });
    pair.wait_until_consistent();
}

#[test]
fn recordings_that_got_shorter_while_the_daemon_was_killed_are_news() {
    let (pair, files) = damaged(false);
    until("the news is on fs2", || seen(fs::read(pair.b.path("empty.wav")).unwrap().is_empty()));
    pair.wait_until_consistent();
    assert_eq!(fs::read(pair.b.path("shorter.wav")).unwrap(), files[1].1[..100_000]);
    assert_eq!(pair.b.trash().hashes().count(), 3, "what was replaced is kept");
}
