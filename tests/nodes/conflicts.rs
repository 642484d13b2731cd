//! Conflict copies as their owner deals with them: listed, compared, resolved.

use std::fs;

use serde_json::Value;

use crate::support::{Node, Pair, seen, unique, until};

const ON_FS1: &[u8] = b"written on fs1";
const ON_FS2: &[u8] = b"written on fs2, later";

/// Two nodes that wrote some files while apart; fs2 was later, so its versions have the names.
fn clash(paths: &[&str]) -> Pair {
    let mut pair = Pair::new();
    for path in paths {
        fs::create_dir_all(pair.a.path(path).parent().unwrap()).unwrap();
        fs::create_dir_all(pair.b.path(path).parent().unwrap()).unwrap();
        fs::write(pair.a.path(path), ON_FS1).unwrap();
        until("the clock moves on", || {
            fs::write(pair.b.path(path), ON_FS2).unwrap();
            let time = |node: &Node| node.path(path).metadata().unwrap().modified().unwrap();
            let ms = |node| time(node).duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
            seen(ms(&pair.b) > ms(&pair.a))
        });
    }
    pair.start();
    pair.wait_until_consistent();
    pair
}

/// Returns what `conflicts list --json` shows.
fn listed(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let ran = node.run(&[&["conflicts", "list", "--json"], arguments].concat()).ok();
    let list: Value = serde_json::from_str(&ran.stdout).unwrap();
    list["copies"].as_array().unwrap().clone()
}

fn only_copy(node: &Node) -> String {
    let list = listed(node, &[]);
    assert_eq!(list.len(), 1, "{list:?}");
    list[0]["copy"].as_str().unwrap().to_owned()
}

fn none_left(pair: &Pair) {
    for node in [&pair.a, &pair.b] {
        assert_eq!(listed(node, &[]), [Value::Null; 0]);
        assert_eq!(node.run(&["conflicts"]).ok().stdout.trim(), "there are no conflict copies");
    }
}

#[test]
fn a_conflict_is_listed_and_both_versions_are_shown() {
    let pair = clash(&["2026/a.wav"]);
    for node in [&pair.a, &pair.b] {
        let list = listed(node, &["2026"]);
        assert_eq!(list.len(), 1, "{list:?}");
        assert_eq!(list[0]["path"], "2026/a.wav");
        assert_eq!((&list[0]["node"], &list[0]["size"]), (&"fs1".into(), &ON_FS1.len().into()));
        let copy = list[0]["copy"].as_str().unwrap();
        assert_eq!(fs::read(node.path(copy)).unwrap(), ON_FS1);

        // By the name of either.
        for path in ["2026/a.wav", copy] {
            let shown = node.run(&["conflicts", "show", path, "--json"]).ok().stdout;
            let shown: Value = serde_json::from_str(&shown).unwrap();
            let [winner, loser] = &shown["sides"].as_array().unwrap()[..] else {
                panic!("{shown}")
            };
            assert_eq!((&winner["role"], &winner["node"]), (&"winner".into(), &"fs2".into()));
            assert_eq!((&loser["role"], &loser["node"]), (&"copy".into(), &"fs1".into()));
            assert_eq!(loser["same"], false);
            assert_ne!(loser["hash"], winner["hash"]);
        }
        until("status counts it", || seen(node.share()["conflict_copies"] == 1));
        assert_eq!(node.metric("recsync_conflict_copies", &[]), 1.0);
    }
    let none = pair.a.run(&["conflicts", "show", "2026/none.wav"]);
    assert!(none.code == Some(2) && none.stderr.contains("no conflict copy"), "{none:?}");
}

#[test]
fn keeping_the_winner_sends_the_copy_to_the_trash() {
    let pair = clash(&["a.wav"]);
    let copy = only_copy(&pair.a);
    let done = pair.a.run(&["conflicts", "resolve", "a.wav", "--keep", "winner"]).ok();
    assert!(done.stdout.contains(&copy), "{done:?}");
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.paths(), ["a.wav"]);
    none_left(&pair);
    for node in [&pair.a, &pair.b] {
        assert_eq!(node.trash().hashes().count(), 1, "{:?}", node.trash());
    }
    // A wrong decision is no loss.
    pair.a.run(&["trash", "restore", &copy]).ok();
    pair.wait_for(&pair.b, &copy);
    pair.wait_until_consistent();
    assert_eq!(fs::read(pair.b.path(&copy)).unwrap(), ON_FS1);
}

#[test]
fn keeping_the_copy_gives_it_the_name_and_the_winner_goes_to_the_trash() {
    let pair = clash(&["a.wav"]);
    pair.b.run(&["conflicts", "resolve", "a.wav", "--keep", "copy"]).ok();
    until("fs1 has the copy under the name", || {
        seen(fs::read(pair.a.path("a.wav")).is_ok_and(|bytes| bytes == ON_FS1))
    });
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.paths(), ["a.wav"]);
    none_left(&pair);
    let trash = pair.b.trash();
    assert!(trash.hashes().any(|hash| hash == crate::support::hash(ON_FS2)), "{trash:?}");
}

#[test]
fn keeping_both_gives_the_copies_ordinary_names_in_one_command() {
    let pair = clash(&["2026/a.wav", "2026/b.wav"]);
    assert_eq!(listed(&pair.a, &[]).len(), 2);
    let one_of_two = pair.a.run(&["conflicts", "resolve", "2026", "--keep", "copy"]);
    assert!(one_of_two.code == Some(2) && one_of_two.stderr.contains("2 copies"), "{one_of_two:?}");
    pair.a.run(&["conflicts", "resolve", "2026", "--keep", "both"]).ok();
    let tree = until("both are renamed on fs2", || {
        let tree = pair.wait_until_consistent();
        let renamed = tree.paths().iter().filter(|path| path.contains("-fs1-")).count();
        if renamed == 2 { Ok(tree) } else { Err(format!("{tree:?}")) }
    });
    assert_eq!(tree.hashes().count(), 4, "{tree:?}");
    none_left(&pair);
    assert_eq!(pair.a.trash().paths(), [""; 0]);
}

#[test]
fn a_copy_that_is_the_only_version_left_is_not_thrown_away() {
    let pair = clash(&["a.wav"]);
    fs::remove_file(pair.a.path("a.wav")).unwrap();
    pair.wait_until_consistent();
    let refused = pair.a.run(&["conflicts", "resolve", "a.wav", "--keep", "winner"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.contains("only version"), "{refused:?}");
    pair.a.run(&["conflicts", "resolve", "a.wav", "--keep", "copy"]).ok();
    pair.wait_for(&pair.b, "a.wav");
    pair.wait_until_consistent();
    assert_eq!(fs::read(pair.b.path("a.wav")).unwrap(), ON_FS1);
    none_left(&pair);
}

#[test]
fn many_copies_of_one_path_are_told_of_once_and_cleared_in_one_command() {
    let pair = Pair::started();
    fs::write(pair.a.path("a.wav"), b"the winner").unwrap();
    for number in 0..10 {
        let name = format!("a.conflict-fs2-20261122T09000{number}Z-b34ceaa{number}.wav");
        fs::write(pair.a.path(name), unique(1_000)).unwrap();
    }
    pair.wait_until_consistent();
    for node in [&pair.a, &pair.b] {
        node.wait_for_log(&["a.wav has 10 conflict copies", "recsync conflicts resolve a.wav"]);
        until("the metric tells", || seen(node.metric("recsync_crowded_paths", &[]) == 1.0));
        let shown = node.run(&["status"]).ok().stdout;
        assert!(shown.contains("a.wav has 10 conflict copies"), "{shown}");
    }
    fs::write(pair.a.path("a.conflict-fs2-20261122T090010Z-b34ceaab.wav"), unique(1_000)).unwrap();
    until("status counts on", || {
        let shown = pair.a.run(&["status"]).ok().stdout;
        if shown.contains("a.wav has 11 conflict copies") { Ok(()) } else { Err(shown) }
    });
    let said = pair
        .a
        .log()
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("conflict copies:"))
        .count();
    assert_eq!(said, 1, "{}", pair.a.log());

    pair.a.run(&["conflicts", "resolve", "a.wav", "--keep", "winner"]).ok();
    until("they are gone", || seen(pair.b.tree().paths() == ["a.wav"]));
    pair.wait_until_consistent();
    none_left(&pair);
    until("the metric tells", || seen(pair.a.metric("recsync_crowded_paths", &[]) == 0.0));
    until("status has no word of them", || {
        let share = pair.a.share();
        seen(!share["notes"].to_string().contains("conflict copies"))
    });
}
