//! What a config has left alone, and deletes that stay at home.

use std::fs;

use crate::support::{Pair, seen, unique, until};

fn notes(node: &crate::support::Node) -> String {
    node.share()["notes"].to_string()
}

#[test]
fn what_is_ignored_stays_on_its_node_and_holds_nothing_up() {
    let mut pair = Pair::new();
    for node in [&pair.a, &pair.b] {
        node.set("ignore", "[\"/scratch/\", \"*.tmp\", \"!keep.tmp\"]");
    }
    pair.start();
    fs::create_dir_all(pair.a.path("scratch/deep")).unwrap();
    for name in ["scratch/deep/a", "b.tmp", "keep.tmp", "call.wav"] {
        fs::write(pair.a.path(name), unique(1_000)).unwrap();
    }
    pair.wait_for(&pair.b, "call.wav");
    pair.wait_for(&pair.b, "keep.tmp");
    until("nothing is under way", || pair.a.unfinished().map_or(Ok(()), Err));
    assert!(!pair.b.path("scratch").exists() && !pair.b.path("b.tmp").exists());
    assert_eq!(pair.a.metric("recsync_lag_seconds", &[]), 0.0);
    pair.a.run(&["verify"]).ok();
    pair.b.run(&["verify"]).ok();
    pair.a.run(&["rescan"]).ok();
    until("status counts by rule", || {
        let notes = notes(&pair.a);
        seen(notes.contains("1 left alone: *.tmp") && notes.contains("1 left alone: /scratch/"))
    });
    assert!(pair.a.path("scratch/deep/a").exists() && pair.a.path("b.tmp").exists());
}

#[test]
fn only_one_node_ignores_and_neither_waits_for_the_other() {
    let mut pair = Pair::new();
    pair.b.set("ignore", "[\"*.tmp\"]");
    pair.start();
    fs::write(pair.a.path("a.tmp"), unique(1_000)).unwrap();
    fs::write(pair.a.path("large.tmp"), unique(700_000)).unwrap();
    fs::write(pair.a.path("call.wav"), unique(1_000)).unwrap();
    pair.wait_for(&pair.b, "call.wav");
    for node in [&pair.a, &pair.b] {
        until("nothing is under way", || node.unfinished().map_or(Ok(()), Err));
    }
    assert!(!pair.b.path("a.tmp").exists() && !pair.b.path("large.tmp").exists());
    assert_eq!(pair.a.metric("recsync_pending_files", &[]), 0.0);
    // The node that wants them not does not miss them.
    pair.b.run(&["verify"]).ok();
}

#[test]
fn rules_that_change_take_effect_on_reload_and_delete_nothing() {
    let mut pair = Pair::new();
    pair.b.set("ignore", "[\"*.tmp\"]");
    pair.start();
    fs::write(pair.a.path("a.tmp"), unique(1_000)).unwrap();
    fs::write(pair.b.path("b.tmp"), unique(1_000)).unwrap();
    fs::create_dir(pair.b.path("d.tmp")).unwrap();
    fs::write(pair.b.path("d.tmp/inside"), unique(1_000)).unwrap();
    fs::write(pair.a.path("call.wav"), unique(1_000)).unwrap();
    pair.wait_for(&pair.b, "call.wav");
    let config = fs::read_to_string(pair.b.config()).unwrap();
    fs::write(pair.b.config(), config.replace("ignore = [\"*.tmp\"]", "ignore = [\"*.wav\"]"))
        .unwrap();
    pair.b.run(&["reload"]).ok();
    pair.wait_for(&pair.b, "a.tmp");
    pair.wait_for(&pair.a, "b.tmp");
    pair.wait_for(&pair.a, "d.tmp/inside");
    // What is new in a directory that was not watched before is noticed.
    fs::write(pair.b.path("d.tmp/later"), unique(1_000)).unwrap();
    pair.wait_for(&pair.a, "d.tmp/later");
    // What is ignored now stays, and deletes of it stay at home.
    assert!(pair.b.path("call.wav").exists());
    fs::remove_file(pair.b.path("call.wav")).unwrap();
    fs::write(pair.b.path("last"), unique(10)).unwrap();
    pair.wait_for(&pair.a, "last");
    assert!(pair.a.path("call.wav").exists());
}

#[test]
fn other_tools_temporary_files_are_left_alone_while_they_are_young() {
    let pair = Pair::started();
    let names = [".call.wav.Xy12Zz", ".syncthing.call.wav.tmp", ".unison.c.5f1c.unison.tmp"];
    for name in names {
        fs::write(pair.a.path(name), unique(1_000)).unwrap();
    }
    fs::write(pair.a.path("call.wav"), unique(1_000)).unwrap();
    pair.wait_for(&pair.b, "call.wav");
    pair.a.run(&["rescan"]).ok();
    until("status counts them", || {
        let notes = notes(&pair.a);
        seen(notes.contains("1 left alone: a temporary file of rsync") && notes.contains("Unison"))
    });
    for name in names {
        assert!(!pair.b.path(name).exists(), "{name}");
    }
    // The tool is done: the file has its name.
    fs::rename(pair.a.path(names[0]), pair.a.path("copied.wav")).unwrap();
    pair.wait_for(&pair.b, "copied.wav");
}

#[test]
fn a_recorder_that_keeps_its_deletes_to_itself_has_an_archive_on_the_other_node() {
    let mut pair = Pair::new();
    pair.a.set("deletes", "\"keep\"");
    pair.start();
    fs::create_dir(pair.a.path("2026")).unwrap();
    for name in ["2026/a.wav", "2026/b.wav", "c.part"] {
        fs::write(pair.a.path(name), unique(1_000)).unwrap();
    }
    pair.wait_until_consistent();
    fs::remove_dir_all(pair.a.path("2026")).unwrap();
    fs::rename(pair.a.path("c.part"), pair.a.path("c.wav")).unwrap();
    pair.wait_for(&pair.b, "c.wav");
    until("the rename is one there too", || seen(!pair.b.path("c.part").exists()));
    // Over a restart and a scan of either node.
    for _ in 0..2 {
        until("nothing is under way", || pair.a.unfinished().map_or(Ok(()), Err));
        assert!(!pair.a.path("2026").exists(), "it does not come back");
        assert!(pair.b.path("2026/a.wav").exists() && pair.b.path("2026/b.wav").exists());
        pair.a.run(&["verify"]).ok();
        pair.a.stop();
        pair.b.stop();
        pair.start();
    }
    // The archive's own deletes are deletes.
    fs::remove_file(pair.b.path("c.wav")).unwrap();
    until("c.wav is gone on fs1", || seen(!pair.a.path("c.wav").exists()));
    // A new recording of an old name is new.
    fs::create_dir(pair.a.path("2026")).unwrap();
    let bytes = unique(2_000);
    fs::write(pair.a.path("2026/a.wav"), &bytes).unwrap();
    until("the new one is there", || seen(fs::read(pair.b.path("2026/a.wav")).unwrap() == bytes));
}
