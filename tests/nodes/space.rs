//! Disks that fill up: the share's, and the state directory's.

use std::fs;
use std::time::Duration;

use crate::support::{Mount, Node, Pair, for_a_while, seen, unique, until};

/// Two nodes of which fs2 has a small disk, with these settings.
fn small_disk(test: &str, size: &str, settings: &[(&str, &str)]) -> Option<(Pair, Mount)> {
    let mut pair = Pair::new();
    let marker = fs::read(pair.b.marker()).unwrap();
    let disk = Mount::tmpfs(test, &pair.b.root, size)?;
    fs::create_dir(pair.b.path(".recsync")).unwrap();
    fs::write(pair.b.marker(), marker).unwrap();
    for (key, value) in settings {
        pair.b.set(key, value);
    }
    pair.start();
    Some((pair, disk))
}

fn is_paused(node: &Node) -> bool {
    node.pauses() == ["no_space"]
}

fn paused_metric(node: &Node) -> f64 {
    node.metric("recsync_paused", &["reason=\"no_space\""])
}

#[test]
fn a_share_short_of_space_stops_receiving_and_goes_on_by_itself() {
    let test = "a_share_short_of_space_stops_receiving_and_goes_on_by_itself";
    let Some((pair, disk)) = small_disk(test, "10m", &[("min_free", "\"40%\"")]) else { return };
    fs::write(pair.a.path("old.wav"), unique(100_000)).unwrap();
    pair.wait_until_consistent();
    // Somebody else fills the disk.
    let filler = pair.b.path("filler.wav");
    fs::write(&filler, unique(7_000_000)).unwrap();
    until("fs2 stops receiving", || seen(is_paused(&pair.b)));
    assert_eq!(paused_metric(&pair.b), 1.0);
    let shown = pair.b.run(&["status"]).ok().stdout;
    assert!(shown.contains("PAUSED no_space") && shown.contains("min_free = \"40%\""), "{shown}");
    assert!(shown.contains("it goes on by itself once"), "{shown}");
    assert_eq!(pair.b.run(&["health"]).code, Some(0), "it does its job");

    // What is recorded here and deleted there goes on; new content waits, and is no lag.
    fs::write(pair.a.path("new.wav"), unique(100_000)).unwrap();
    fs::write(pair.b.path("local.wav"), b"recorded on fs2").unwrap();
    fs::remove_file(pair.a.path("old.wav")).unwrap();
    pair.wait_for(&pair.a, "local.wav");
    until("the delete is applied", || seen(!pair.b.path("old.wav").exists()));
    until("there is no lag", || seen(pair.a.unfinished().is_none()));
    for_a_while(Duration::from_millis(500), || assert!(!pair.b.path("new.wav").exists()));

    // A little more room is not enough: it would stop again with the next file.
    disk.resize("11900k");
    for_a_while(Duration::from_millis(2500), || assert!(is_paused(&pair.b)));
    fs::remove_file(&filler).unwrap();
    pair.wait_for(&pair.b, "new.wav");
    pair.wait_until_consistent();
    assert_eq!((pair.b.pauses(), paused_metric(&pair.b)), (vec![], 0.0));
    pair.b.wait_for_log(&["there is room again"]);
}

#[test]
fn the_trash_goes_before_anything_else_when_space_is_short() {
    let test = "the_trash_goes_before_anything_else_when_space_is_short";
    let Some((pair, _disk)) = small_disk(test, "10m", &[("min_free", "\"40%\"")]) else { return };
    for number in 0..4 {
        fs::write(pair.a.path(format!("{number}.wav")), unique(1_000_000)).unwrap();
        pair.wait_until_consistent();
        fs::remove_file(pair.a.path(format!("{number}.wav"))).unwrap();
        pair.wait_until_consistent();
    }
    assert_eq!(pair.b.trash().hashes().count(), 4);
    fs::write(pair.a.path("new.wav"), unique(3_500_000)).unwrap();
    pair.wait_for(&pair.b, "new.wav");
    pair.wait_until_consistent();
    until("the trash makes room", || seen(pair.b.trash().hashes().count() < 4));
    pair.b.wait_for_log(&["the oldest in the trash go"]);
    assert_eq!(pair.b.pauses(), [""; 0]);
}

#[test]
fn a_full_state_directory_stops_the_share_until_there_is_room() {
    let test = "a_full_state_directory_stops_the_share_until_there_is_room";
    let mut pair = Pair::new();
    let state = pair.b.index().parent().unwrap().to_owned();
    let kept: Vec<_> = ["key.pem", "cert.pem"]
        .map(|name| (state.join(name), fs::read(state.join(name)).unwrap()))
        .into();
    let Some(_disk) = Mount::tmpfs(test, &state, "24m") else { return };
    for (file, bytes) in kept {
        fs::write(&file, bytes).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    pair.start();
    fs::write(pair.a.path("before.wav"), unique(1_000)).unwrap();
    pair.wait_until_consistent();
    let filler = state.join("filler");
    let _fills_the_disk = fs::write(&filler, vec![1; 30_000_000]).is_err();
    fs::create_dir(pair.a.path("d")).unwrap();
    for number in 0..2_000 {
        fs::write(pair.a.path(format!("d/{number}")), number.to_string()).unwrap();
    }
    until("fs2's share stops", || seen(is_paused(&pair.b)));
    let health = pair.b.run(&["health"]);
    assert!(health.code == Some(1) && health.stdout.contains("no space left"), "{health:?}");
    assert_eq!(paused_metric(&pair.b), 1.0);
    fs::write(pair.b.path("meanwhile.wav"), b"recorded meanwhile").unwrap();
    fs::remove_file(&filler).unwrap();
    pair.wait_for(&pair.a, "meanwhile.wav");
    pair.wait_until_consistent();
    assert_eq!((pair.b.pauses(), paused_metric(&pair.b)), (vec![], 0.0));
}
