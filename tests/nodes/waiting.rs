//! `recsync wait`: the gate for what comes after a recording.

use std::fs::{self, File};
use std::io::Write as _;

use serde_json::Value;

use crate::support::{Node, Pair, hash, seen, unique, until};

/// Runs `recsync wait` and returns its exit code and what it told.
fn wait(node: &Node, args: &[&str], path: &str) -> (i32, String) {
    let path = node.path(path).to_str().unwrap().to_owned();
    let ran = node.run(&[&["wait"], args, &[path.as_str()]].concat());
    (ran.code.unwrap(), format!("{}{}", ran.stdout, ran.stderr))
}

/// Waits for as long as it takes.
fn wait_long(node: &Node, path: &str) {
    let (code, told) = wait(node, &["--timeout", "60s"], path);
    assert_eq!(code, 0, "{told}");
}

#[test]
fn wait_returns_when_a_file_is_durable_on_the_peer() {
    let pair = Pair::started();
    let bytes = unique(3_000_000);
    fs::write(pair.a.path("call.wav"), &bytes).unwrap();
    wait_long(&pair.a, "call.wav");
    assert_eq!(fs::read(pair.b.path("call.wav")).unwrap(), bytes, "it is there now");

    // As it is now, not as it was.
    let bytes = unique(3_100_000);
    fs::write(pair.a.path("call.wav"), &bytes).unwrap();
    let (code, told) = wait(&pair.a, &["--timeout", "60s", "--json"], "call.wav");
    assert_eq!(code, 0, "{told}");
    assert_eq!(fs::read(pair.b.path("call.wav")).unwrap(), bytes);
    let told: Value = serde_json::from_str(&told).unwrap();
    let file = &told["files"][0];
    assert_eq!((&told["durable"], &file["durable"]), (&true.into(), &true.into()), "{told}");
    assert_eq!((&file["share"], &file["size"]), (&"recordings".into(), &3_100_000.into()));
    let hex: String = hash(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(file["hash"], *hex);
    assert_eq!(file["peers"], serde_json::json!([{"peer": "fs2", "durable": true, "why": null}]));

    // Where it came from it is durable too; so is each name of it, and a link to it.
    wait_long(&pair.b, "call.wav");
    fs::hard_link(pair.a.path("call.wav"), pair.a.path("same.wav")).unwrap();
    std::os::unix::fs::symlink("call.wav", pair.a.path("link.wav")).unwrap();
    for name in ["same.wav", "link.wav", "call.wav"] {
        wait_long(&pair.a, name);
        assert_eq!(fs::read(pair.b.path(name)).unwrap(), bytes, "{name}");
    }
}

#[test]
fn wait_waits_for_the_writer_and_for_the_peer() {
    let mut pair = Pair::started();
    let (begin, end) = (unique(100_000), unique(100_000));
    let mut call = File::create(pair.a.path("call.wav")).unwrap();
    call.write_all(&begin).unwrap();
    let (code, told) = wait(&pair.a, &["--timeout", "300ms"], "call.wav");
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("call.wav: not durable: somebody has it open for writing"), "{told}");

    std::thread::scope(|scope| {
        let Pair { a, .. } = &pair;
        let waiting = scope.spawn(|| wait_long(a, "call.wav"));
        call.write_all(&end).unwrap();
        drop(call);
        waiting.join().unwrap();
    });
    assert_eq!(fs::read(pair.b.path("call.wav")).unwrap(), [begin, end].concat());

    pair.b.stop();
    until("fs1 knows that fs2 is gone", || {
        seen(pair.a.metric("recsync_peer_connected", &["peer=\"fs2\""]) == 0.0)
    });
    fs::write(pair.a.path("late.wav"), unique(100_000)).unwrap();
    let (code, told) = wait(&pair.a, &["--timeout", "1s"], "late.wav");
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("late.wav: not on fs2: it is not connected"), "{told}");
    wait_long(&pair.a, "call.wav");
    std::thread::scope(|scope| {
        let Pair { a, b, .. } = &mut pair;
        let waiting = scope.spawn(|| wait_long(a, "late.wav"));
        b.start();
        waiting.join().unwrap();
    });
    assert!(pair.b.path("late.wav").exists());
}

#[test]
fn wait_takes_no_merged_record_for_a_durable_file() {
    let mut pair = Pair::new();
    pair.b.set("min_free", "\"100%\"");
    pair.start();
    fs::write(pair.a.path("call.wav"), unique(1_000_000)).unwrap();
    let kept_out = "it knows of it, and holds it back";
    until("fs2 has said that it holds it back", || {
        let (code, told) = wait(&pair.a, &["--timeout", "1s"], "call.wav");
        assert_eq!(code, 1, "{told}");
        if told.contains(kept_out) { Ok(()) } else { Err(told) }
    });
    let config = fs::read_to_string(pair.b.config()).unwrap().replace("\"100%\"", "\"0%\"");
    fs::write(pair.b.config(), config).unwrap();
    // Started anew, it has forgotten to whom it owes the word that it is there.
    pair.b.restart();
    wait_long(&pair.a, "call.wav");
    assert!(pair.b.path("call.wav").exists());
}

#[test]
fn wait_asks_the_peer_where_nothing_was_acknowledged() {
    let mut pair = Pair::started();
    fs::write(pair.a.path("call.wav"), unique(1_000_000)).unwrap();
    fs::write(pair.a.path("other.wav"), unique(1_000)).unwrap();
    pair.wait_until_consistent();
    // A new index hears of all files from the peer, which wrote none of them.
    pair.a.stop();
    fs::remove_file(pair.a.index()).unwrap();
    pair.a.start();
    pair.wait_until_consistent();
    for name in ["call.wav", "other.wav"] {
        wait_long(&pair.a, name);
        wait_long(&pair.b, name);
    }
}

#[test]
fn wait_says_what_cannot_be_waited_for() {
    let mut pair = Pair::new();
    pair.a.set("ignore", "[\"/scratch/**\"]");
    pair.start();
    fs::create_dir_all(pair.a.path("scratch/deep")).unwrap();
    fs::write(pair.a.path("scratch/deep/a.tmp"), b"x").unwrap();
    fs::write(pair.a.path("call.wav"), b"x").unwrap();
    for (args, path, expected) in [
        (&[][..], "none.wav", "none.wav: there is no such file in recordings"),
        (&[], "scratch", "scratch: it is a directory: name the files"),
        (&[], "scratch/deep/a.tmp", "scratch/deep/a.tmp: it is never synced: "),
        (&[], ".recsync/share.toml", "share.toml"),
        (&[], "/etc/passwd", "/etc/passwd lies in no share"),
        (&["--peer", "fs9"], "call.wav", "no peer is called `fs9`"),
        (&["--peer", "fs2", "--all-peers"], "call.wav", "cannot be used with"),
    ] {
        let (code, told) = wait(&pair.a, args, path);
        assert!(code == 2 && told.contains(expected), "{path} {args:?}: {code} {told}");
    }
    wait_long(&pair.a, "call.wav");
}

#[test]
fn wait_follows_a_file_that_loses_its_name_to_its_conflict_copy() {
    let mut pair = Pair::started();
    pair.b.stop();
    let (lost, won) = (unique(400_000), unique(400_000));
    fs::write(pair.a.path("call.wav"), &lost).unwrap();
    std::thread::scope(|scope| {
        let Pair { a, b, .. } = &mut pair;
        let begun = a.metric("recsync_scans_total", &[]);
        assert!(begun >= 1.0, "fs1 has been scanned");
        let waiting = scope.spawn(|| wait(a, &["--timeout", "60s", "--json"], "call.wav"));
        until("fs1 has noted it", || {
            let (_, told) = wait(a, &["--timeout", "0s"], "call.wav");
            if told.contains("it is not connected") { Ok(()) } else { Err(told) }
        });
        // The later version wins.
        fs::write(b.path("call.wav"), &won).unwrap();
        b.start();
        let (code, told) = waiting.join().unwrap();
        assert_eq!(code, 0, "{told}");
        let told: Value = serde_json::from_str(&told).unwrap();
        let path = told["files"][0]["path"].as_str().unwrap();
        assert!(path.starts_with("call.conflict-fs1-"), "{told}");
        assert_eq!(fs::read(b.path(path)).unwrap(), lost, "what was waited for is there now");
        assert_eq!(fs::read(b.path("call.wav")).unwrap(), won);
    });
}

#[test]
fn wait_does_not_believe_what_a_peer_said_before_its_file_went() {
    let mut pair = Pair::new();
    pair.b.set("deletes", "\"keep\"");
    pair.start();
    fs::write(pair.a.path("call.wav"), unique(100_000)).unwrap();
    wait_long(&pair.a, "call.wav");
    fs::remove_file(pair.b.path("call.wav")).unwrap();
    let (code, told) = wait(&pair.a, &["--timeout", "0s"], "call.wav");
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("not on fs2: it knows of it, and has something else"), "{told}");
}
