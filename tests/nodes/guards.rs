//! What must never look like a delete: lost disks, other disks, and too many deletes at once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::support::{Node, Pair, Tree, for_a_while, seen, unique, until};

const OTHER: &str = "other";

/// Two nodes with two shares, a few files in each, consistent.
fn two_shares() -> Pair {
    let mut pair = Pair::new();
    for node in [&pair.a, &pair.b] {
        add_share(node, OTHER);
    }
    for number in 0..30 {
        fs::write(pair.a.path(format!("{number}.wav")), unique(2_000)).unwrap();
    }
    fs::write(other(&pair.a).join("1"), b"1").unwrap();
    pair.start();
    pair.wait_until_consistent();
    pair
}

fn other(node: &Node) -> std::path::PathBuf {
    node.root.with_file_name(OTHER)
}

fn add_share(node: &Node, name: &str) {
    let path = node.root.with_file_name(name);
    fs::create_dir(&path).unwrap();
    node.run(&["share", "add", &format!("{name}={}", path.display())]).ok();
}

/// A share without its proper root on fs1 stops with this reason and these words; the other share
/// goes on; nothing is deleted on fs2; and when `mend` has put things right, all is well again.
fn stops(pair: &Pair, reason: &str, words: &str, mend: impl FnOnce(&Pair)) {
    let before = pair.b.tree();
    until("the share is paused", || {
        let share = pair.a.share();
        let is_paused = pair.a.pauses() == [reason] && share["state"] == "paused";
        if is_paused && share["paused"].to_string().contains(words) {
            Ok(())
        } else {
            Err(share.to_string())
        }
    });
    let paused = [format!("reason=\"{reason}\""), "share=\"recordings\"".to_owned()];
    assert_eq!(pair.a.metric("recsync_paused", &[&paused[0], &paused[1]]), 1.0);
    let (code, body) = pair.a.get("/healthz").unwrap();
    assert!(code == 503 && body.contains(words), "{code} {body}");
    let health = pair.a.run(&["health"]);
    assert!(health.code == Some(1) && health.stdout.contains(words), "{health:?}");
    pair.a.wait_for_log(&["ERROR", "the share is stopped", words]);

    // fs2 goes on; what it does waits for fs1.
    fs::write(pair.b.path("meanwhile.wav"), b"meanwhile").unwrap();
    fs::write(other(&pair.a).join("2"), b"2").unwrap();
    until("the other share goes on", || seen(other(&pair.b).join("2").exists()));
    let unharmed = || {
        let mut now = pair.b.tree();
        now.0.remove(&b"meanwhile.wav"[..]);
        assert_eq!(before.difference(&now), "", "before | now");
    };
    for_a_while(Duration::from_millis(1_500), unharmed);
    let said = pair.a.log().matches("the share is stopped").count();
    assert_eq!(said, 1, "looked at every second, said once");

    mend(pair);
    let tree = pair.wait_until_consistent();
    unharmed();
    assert!(tree.get("meanwhile.wav").is_some());
    assert_eq!(pair.a.pauses(), [""; 0]);
    assert_eq!(pair.a.get("/healthz").unwrap().0, 200);
    assert_eq!(pair.b.trash().paths(), [""; 0]);
}

#[test]
fn a_share_whose_root_is_missing_stops_until_it_is_back() {
    let pair = two_shares();
    let away = pair.a.root.with_file_name("away");
    fs::rename(&pair.a.root, &away).unwrap();
    stops(&pair, "no_marker", "recordings", |pair| fs::rename(&away, &pair.a.root).unwrap());
}

#[test]
fn a_share_whose_disk_is_unmounted_stops_until_it_is_back() {
    let pair = two_shares();
    let away = pair.a.root.with_file_name("away");
    fs::rename(&pair.a.root, &away).unwrap();
    fs::create_dir(&pair.a.root).unwrap();
    stops(&pair, "no_marker", "has no marker", |pair| {
        fs::remove_dir(&pair.a.root).unwrap();
        fs::rename(&away, &pair.a.root).unwrap();
    });
}

#[test]
fn a_share_whose_disk_is_not_mounted_at_the_start_stops_until_it_is() {
    let mut pair = two_shares();
    pair.a.stop();
    let away = pair.a.root.with_file_name("away");
    fs::rename(&pair.a.root, &away).unwrap();
    fs::create_dir(&pair.a.root).unwrap();
    pair.a.spawn();
    pair.a.wait_until_connected();
    stops(&pair, "no_marker", "has no marker", |pair| {
        fs::remove_dir(&pair.a.root).unwrap();
        fs::rename(&away, &pair.a.root).unwrap();
    });
}

#[test]
fn a_share_that_lost_its_marker_stops_until_it_is_back() {
    let pair = two_shares();
    let away = pair.a.root.with_file_name("away");
    fs::rename(pair.a.marker(), &away).unwrap();
    // Deletes while no one can tell whose disk this is.
    stops(&pair, "no_marker", "has no marker", |pair| fs::rename(&away, pair.a.marker()).unwrap());
}

#[test]
fn a_share_with_the_marker_of_another_disk_stops_until_its_own_is_back() {
    let pair = two_shares();
    let own = fs::read(pair.a.marker()).unwrap();
    // The same share's, of another node: ids of roots are unrelated.
    fs::copy(pair.b.marker(), pair.a.marker()).unwrap();
    stops(&pair, "other_disk", "is another disk", |pair| fs::write(pair.a.marker(), own).unwrap());
}

#[test]
fn a_share_with_the_marker_of_another_share_stops_until_its_own_is_back() {
    let pair = two_shares();
    let own = fs::read(pair.a.marker()).unwrap();
    fs::copy(other(&pair.a).join(".recsync/share.toml"), pair.a.marker()).unwrap();
    stops(&pair, "other_disk", "other", |pair| fs::write(pair.a.marker(), own).unwrap());
}

#[test]
fn a_share_emptied_while_its_marker_was_gone_deletes_nothing_without_a_word() {
    let mut pair = two_shares();
    pair.a.stop();
    // A new file system under the old marker: restored by hand, say.
    for number in 0..30 {
        fs::remove_file(pair.a.path(format!("{number}.wav"))).unwrap();
    }
    pair.start();
    wait_until_held(&pair.a, "mass_delete");
    assert!(pair.b.tree().0.len() > 10, "most are still on fs2");
}

/// Waits until a node holds something back, and returns its id as `confirm` lists it.
fn wait_until_held(node: &Node, reason: &str) -> String {
    until(&format!("{} holds something back", node.name), || {
        let status = node.status();
        let held = status["held"].as_array().unwrap().first().cloned();
        let held = held.ok_or_else(|| status.to_string())?;
        if held["reason"] != reason {
            // A disk that is changed for another one is away for a moment.
            return Err(held.to_string());
        }
        let id = held["id"].as_str().unwrap().to_owned();
        let listed = node.run(&["confirm"]).ok().stdout;
        assert!(listed.contains(&id), "{id}: {listed}");
        let shown = node.run(&["status"]).ok().stdout;
        assert!(shown.contains("confirm"), "{shown}");
        assert_eq!(node.metric("recsync_paused", &[&format!("reason=\"{reason}\"")]), 1.0);
        Ok::<_, String>(id)
    })
}

const CALLS: usize = 60;

/// Two nodes with sixty calls in two directories; all but ten are deleted on fs1, by `rm -rf`.
fn mass_delete() -> (Pair, Tree, String) {
    let pair = Pair::started();
    for (dir, mode) in [("kept", 0o755), ("gone", 0o2770)] {
        fs::create_dir(pair.a.path(dir)).unwrap();
        fs::set_permissions(pair.a.path(dir), fs::Permissions::from_mode(mode)).unwrap();
    }
    for number in 0..CALLS {
        let dir = if number < 10 { "kept" } else { "gone" };
        fs::write(pair.a.path(format!("{dir}/{number}.wav")), unique(3_000)).unwrap();
    }
    let before = pair.wait_until_consistent();
    fs::remove_dir_all(pair.a.path("gone")).unwrap();
    let id = wait_until_held(&pair.a, "mass_delete");
    // New calls go on while it is held.
    fs::write(pair.a.path("kept/new-on-fs1.wav"), b"1").unwrap();
    fs::write(pair.b.path("kept/new-on-fs2.wav"), b"2").unwrap();
    pair.wait_for(&pair.b, "kept/new-on-fs1.wav");
    pair.wait_for(&pair.a, "kept/new-on-fs2.wav");
    // Within ten minutes at most half may go: that is not held.
    let left = pair.b.tree().0.len();
    assert!(left > CALLS / 2, "only {left} are left on fs2");
    (pair, before, id)
}

#[test]
fn a_mass_delete_is_held_and_goes_when_confirmed() {
    let (pair, _, id) = mass_delete();
    pair.a.run(&["confirm", &id]).ok();
    // Judged again where the deletes arrive (contract, `max_delete`).
    let there = wait_until_held(&pair.b, "mass_delete");
    pair.b.run(&["confirm", &there]).ok();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.0.len(), 1 + 10 + 2, "{tree:?}");
    assert_eq!(pair.b.trash().hashes().count(), CALLS - 10, "all are in fs2's trash");
    until("nothing is held", || {
        let status = pair.a.status();
        if status["held"] == serde_json::json!([]) { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(pair.a.pauses(), [""; 0]);
    assert_eq!(pair.a.run(&["confirm"]).ok().stdout.trim(), "nothing is held back");
    let again = pair.a.run(&["confirm", &id]);
    assert!(again.code == Some(2) && again.stderr.contains(&id), "{again:?}");
}

#[test]
fn a_mass_delete_is_undone_when_rejected() {
    let (pair, before, id) = mass_delete();
    undo(&pair, &before, &id, 2);
}

#[test]
fn a_mass_delete_that_is_held_stays_held_over_restarts() {
    let (mut pair, before, _) = mass_delete();
    let left = pair.b.tree().0.len();
    for restart in 1..=3 {
        if restart == 2 {
            pair.a.kill();
        } else {
            pair.a.stop();
        }
        pair.a.start();
        wait_until_held(&pair.a, "mass_delete");
        // What is made after the start's scan arrives behind any delete that it let go.
        let name = format!("kept/after-restart-{restart}.wav");
        fs::write(pair.a.path(&name), unique(1_000)).unwrap();
        pair.wait_for(&pair.b, &name);
        assert_eq!(pair.b.tree().0.len(), left + restart, "nothing more went");
    }
    let id = wait_until_held(&pair.a, "mass_delete");
    undo(&pair, &before, &id, 2 + 3);
}

/// Rejects what is held: all that had not gone yet comes back as it was, directories too, beside
/// `new` files.
fn undo(pair: &Pair, before: &Tree, id: &str, new: usize) {
    pair.a.run(&["confirm", "--reject", id]).ok();
    // Those that had gone before the guard saw how many they were are in fs2's trash.
    let passed = pair.b.trash().hashes().count();
    assert!(passed <= CALLS / 2, "{passed} were let go");
    let tree = until("the files are back on both", || {
        let tree = pair.wait_until_consistent();
        if tree.hashes().count() == CALLS + new - passed {
            Ok(tree)
        } else {
            Err(format!("{tree:?}"))
        }
    });
    for (path, object) in &tree.0 {
        let was = before.get(path);
        assert!(was.is_none_or(|was| was == object), "{object:?}, was {was:?}");
    }
    assert_eq!(pair.a.pauses(), [""; 0]);
}

#[test]
fn a_mass_delete_by_the_peer_is_held_where_it_arrives() {
    let mut pair = Pair::new();
    // fs1 does not mind; fs2 does.
    pair.a.set("max_delete", "\"100%\"");
    pair.start();
    for number in 0..CALLS {
        fs::write(pair.a.path(format!("{number}.wav")), unique(3_000)).unwrap();
    }
    let before = pair.wait_until_consistent();
    for number in 0..CALLS {
        fs::remove_file(pair.a.path(format!("{number}.wav"))).unwrap();
    }
    let id = wait_until_held(&pair.b, "mass_delete");
    assert!(pair.b.tree().0.len() > CALLS / 3, "most stay");
    pair.b.run(&["confirm", "--reject", &id]).ok();
    let tree = pair.wait_until_consistent();
    assert!(tree.0.len() > CALLS / 3, "they are back on fs1: {tree:?}");
    for (path, object) in &tree.0 {
        assert_eq!(before.get(path), Some(object));
    }
}

#[test]
fn few_deletes_and_renames_of_all_are_never_held() {
    let pair = Pair::started();
    fs::create_dir(pair.a.path("old")).unwrap();
    for number in 0..40 {
        fs::write(pair.a.path(format!("old/{number}.wav")), unique(2_000)).unwrap();
    }
    pair.wait_until_consistent();
    fs::rename(pair.a.path("old"), pair.a.path("new")).unwrap();
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.hashes().count(), 40);
    for number in 0..40 {
        let from = pair.a.path(format!("new/{number}.wav"));
        fs::rename(from, pair.a.path(format!("new/archived-{number}.wav"))).unwrap();
    }
    pair.wait_until_consistent();
    for number in 0..19 {
        fs::remove_file(pair.b.path(format!("new/archived-{number}.wav"))).unwrap();
    }
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.hashes().count(), 21);
    assert_eq!(pair.a.status()["held"], serde_json::json!([]));
    assert_eq!(pair.b.status()["held"], serde_json::json!([]));
}

/// Has fs1 go on with what lies at its share's path, as `recsync confirm` lists and says it.
fn accept_root(pair: &Pair, reason: &str) {
    let id = wait_until_held(&pair.a, reason);
    let rejected = pair.a.run(&["confirm", "--reject", &id]);
    assert!(rejected.code == Some(2) && rejected.stderr.contains("stays stopped"), "{rejected:?}");
    assert_eq!(pair.a.pauses(), [reason]);
    let done = pair.a.run(&["confirm", &id]).ok();
    assert!(done.stdout.contains("nothing is deleted"), "{done:?}");
    let again = pair.a.run(&["confirm", &id]);
    assert_eq!(again.code, Some(2), "{again:?}");
}

/// Puts a new directory in the place of fs1's share, with some of its files and one of its own.
fn replace_disk(pair: &Pair) {
    let away = pair.a.root.with_file_name("away");
    fs::rename(&pair.a.root, &away).unwrap();
    fs::create_dir(&pair.a.root).unwrap();
    for number in 0..5 {
        let name = format!("{number}.wav");
        fs::copy(away.join(&name), pair.a.path(&name)).unwrap();
    }
    fs::write(pair.a.path("only-on-the-new-disk.wav"), b"new").unwrap();
}

/// All that fs2 had is on both nodes, and what the new disk held too; nothing was deleted.
fn all_is_on_both(pair: &Pair, before: &Tree) {
    let mut tree = pair.wait_until_consistent();
    assert!(tree.0.remove(&b"only-on-the-new-disk.wav"[..]).is_some());
    let hashes: Vec<_> = tree.hashes().collect();
    for hash in before.hashes() {
        assert!(hashes.contains(&hash), "{before:?}\n{tree:?}");
    }
    assert_eq!(tree.0.len(), before.0.len(), "and no copies: {tree:?}");
    assert_eq!(pair.b.trash().paths(), [""; 0]);
    assert_eq!(pair.a.pauses(), [""; 0]);
    // It is a share like any other again.
    fs::remove_file(pair.a.path("0.wav")).unwrap();
    fs::write(pair.b.path("later.wav"), unique(1_000)).unwrap();
    let tree = pair.wait_until_consistent();
    assert!(tree.get("0.wav").is_none() && tree.get("later.wav").is_some(), "{tree:?}");
}

#[test]
fn a_new_disk_without_a_marker_is_filled_once_it_is_confirmed() {
    let pair = two_shares();
    let before = pair.b.tree();
    replace_disk(&pair);
    accept_root(&pair, "no_marker");
    all_is_on_both(&pair, &before);
}

#[test]
fn a_disk_with_another_marker_is_compared_once_it_is_confirmed() {
    let pair = two_shares();
    let before = pair.b.tree();
    replace_disk(&pair);
    // The same share's, of another node: the disk was moved over.
    fs::create_dir(pair.a.path(".recsync")).unwrap();
    fs::copy(pair.b.marker(), pair.a.marker()).unwrap();
    accept_root(&pair, "other_disk");
    all_is_on_both(&pair, &before);
}

#[test]
fn a_disk_of_another_share_is_taken_over_once_it_is_confirmed() {
    let mut pair = two_shares();
    let before = pair.b.tree();
    // Accepted after a restart: nothing but the index remembers which disk it was.
    pair.a.stop();
    replace_disk(&pair);
    fs::create_dir(pair.a.path(".recsync")).unwrap();
    fs::copy(other(&pair.a).join(".recsync/share.toml"), pair.a.marker()).unwrap();
    pair.a.spawn();
    accept_root(&pair, "other_disk");
    all_is_on_both(&pair, &before);
    let aside = pair.a.path(format!(".recsync/share.toml.of-{OTHER}"));
    assert!(aside.exists(), "the other share's marker is kept aside");
}

#[test]
fn a_path_that_cannot_be_written_waits_and_keeps_nothing_else() {
    let mut pair = Pair::new();
    // Root writes everywhere: the daemon runs as somebody else.
    if rustix::process::getuid().is_root() {
        fs::set_permissions(pair.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        pair.b.set_user(65_534);
    }
    pair.start();
    for dir in ["locked", "open"] {
        fs::create_dir(pair.a.path(dir)).unwrap();
        fs::write(pair.a.path(dir).join("old.wav"), unique(1_000)).unwrap();
    }
    pair.wait_until_consistent();
    let locked = pair.b.path("locked");
    let mode = |mode| fs::set_permissions(&locked, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    // A mode is synced too: that is not what this is about.
    until("fs1 has the mode", || {
        let found = fs::metadata(pair.a.path("locked")).unwrap().permissions().mode() & 0o777;
        if found == 0o555 { Ok(()) } else { Err(format!("{found:o}")) }
    });
    fs::write(pair.a.path("locked/new.wav"), unique(2_000)).unwrap();
    fs::write(pair.a.path("open/new.wav"), unique(2_000)).unwrap();
    pair.wait_for(&pair.b, "open/new.wav");
    let told = until("fs2 says which path waits, why, and what to do", || {
        let errors = pair.b.status()["errors"].to_string();
        let all = ["locked/new.wav", "permission denied", "trying again"];
        if all.iter().all(|word| errors.contains(word)) { Ok(errors) } else { Err(errors) }
    });
    until("it is counted", || seen(pair.b.metric("recsync_quarantined_files", &[]) == 1.0));
    assert_eq!(pair.b.get("/healthz").unwrap().0, 200, "one path makes no node unwell: {told}");
    // Ever more rarely: 1 s, 2 s, 4 s, each one attempt.
    let before = pair.b.metric("recsync_errors_total", &["kind=\"denied\""]);
    for_a_while(Duration::from_secs(2), || {});
    let after = pair.b.metric("recsync_errors_total", &["kind=\"denied\""]);
    assert!(after - before <= 3.0, "{} attempts in 2 s", after - before);
    fs::write(pair.a.path("open/later.wav"), unique(2_000)).unwrap();
    pair.wait_for(&pair.b, "open/later.wav");

    mode(0o755);
    let tree = pair.wait_until_consistent();
    assert!(tree.get("locked/new.wav").is_some(), "{tree:?}");
    until("nothing fails any more", || {
        seen(pair.b.metric("recsync_quarantined_files", &[]) == 0.0)
    });
}
