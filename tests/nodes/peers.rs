//! Who may connect, and changes of the config while the daemon runs.

use std::fs;

use rustix::process::Signal;

use crate::support::{Node, Pair, seen, unique, until};

#[test]
fn an_unknown_node_is_refused_and_the_log_says_what_to_do() {
    let mut pair = Pair::started();
    let mut stranger = Node::new(pair.dir.path(), "fs3");
    stranger.pair_with(&pair.a);
    fs::write(stranger.path("strange.wav"), b"strange").unwrap();
    stranger.start();

    let line = pair.a.wait_for_log(&["WARN", &stranger.fingerprint]);
    let command = format!("--fingerprint {}", stranger.fingerprint);
    assert!(line.contains("recsync peer add") && line.contains(&command), "{line}");
    until("the stranger knows that it was refused", || {
        let status = stranger.status();
        let peer = &status["peers"][0];
        let is_told = peer["connected"] == false && !peer["error"].is_null();
        if is_told { Ok(()) } else { Err(status.to_string()) }
    });
    assert!(!pair.a.path("strange.wav").exists());
    assert_eq!(stranger.tree().paths(), ["strange.wav"]);

    // As told.
    pair.a.pair_with(&stranger);
    pair.a.run(&["reload"]).ok();
    pair.wait_for(&pair.a, "strange.wav");
    pair.a.stop();
}

#[test]
fn a_node_with_another_key_than_expected_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, mut b] = ["fs1", "fs2"].map(|name| Node::new(dir.path(), name));
    // fs1 expects the key of a node that is not there.
    let address = b.listen.to_string();
    let wrong = format!("sha256:{}", "ab".repeat(32));
    a.run(&["peer", "add", "fs2", "--address", &address, "--fingerprint", &wrong]).ok();
    b.pair_with(&a);
    fs::write(a.path("secret.wav"), b"secret").unwrap();
    a.start();
    b.start();
    let line = a.wait_for_log(&["WARN", "fs2", &b.fingerprint]);
    assert!(line.contains(&b.listen.to_string()), "{line}");
    for node in [&a, &b] {
        assert_eq!(node.status()["peers"][0]["connected"], false);
    }
    assert_eq!(b.tree().paths(), [""; 0]);
}

#[test]
fn reload_adds_a_peer_and_a_share() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, mut b] = ["fs1", "fs2"].map(|name| Node::new(dir.path(), name));
    a.start();
    b.start();
    fs::write(a.path("1.wav"), unique(1_000)).unwrap();
    a.pair_with(&b);
    let told = a.run(&["reload"]).ok();
    assert!(told.stdout.contains("peer fs2 added"), "{told:?}");
    b.pair_with(&a);
    // The other way to say it.
    b.signal(Signal::HUP);
    let pair = Pair { a, b, dir };
    pair.wait_for(&pair.b, "1.wav");
    pair.wait_until_consistent();

    let extra = |node: &Node| node.root.with_file_name("extra");
    for node in [&pair.a, &pair.b] {
        fs::create_dir(extra(node)).unwrap();
        fs::write(extra(node).join(&node.name), node.name.as_bytes()).unwrap();
        node.run(&["share", "add", &format!("extra={}", extra(node).display())]).ok();
        let told = node.run(&["reload"]).ok();
        assert!(told.stdout.contains("share extra added"), "{told:?}");
    }
    until("the new share is synced", || {
        seen(extra(&pair.a).join("fs2").exists() && extra(&pair.b).join("fs1").exists())
    });
    let told = pair.a.run(&["reload"]).ok();
    assert!(told.stdout.contains("nothing changed"), "{told:?}");
    fs::write(pair.a.path("2.wav"), unique(1_000)).unwrap();
    pair.wait_until_consistent();

    pair.a.run(&["peer", "remove", "fs2"]).ok();
    let told = pair.a.run(&["reload"]).ok();
    assert!(told.stdout.contains("peer fs2 removed"), "{told:?}");
    until("the link is down", || seen(pair.b.status()["peers"][0]["connected"] == false));
}

#[test]
fn an_invalid_config_is_refused_whole_and_the_old_one_stays() {
    let pair = Pair::started();
    let good = fs::read_to_string(pair.a.config()).unwrap();
    fs::write(pair.a.config(), format!("{good}\n[[share]]\nname = \"x\"\npaht = \"/x\"\n"))
        .unwrap();
    let told = pair.a.run(&["reload"]);
    assert!(told.code == Some(1) && told.stderr.contains("paht"), "{told:?}");
    pair.a.signal(Signal::HUP);
    pair.a.wait_for_log(&["ERROR", "the config is not valid"]);
    pair.a.wait_for_log(&["the old config stays in force"]);
    fs::write(pair.a.path("1.wav"), b"1").unwrap();
    pair.wait_until_consistent();
}

#[test]
fn a_peer_that_was_never_there_delays_nothing() {
    let pair = Pair::started();
    let nobody = Node::new(pair.dir.path(), "fs3");
    pair.a.pair_with(&nobody);
    pair.a.run(&["reload"]).ok();
    fs::write(pair.a.path("1.wav"), b"1").unwrap();
    pair.wait_for(&pair.b, "1.wav");
    let status = pair.a.status();
    let peers = status["peers"].as_array().unwrap();
    let there = |name: &str| peers.iter().find(|peer| peer["name"] == name).unwrap();
    assert_eq!(there("fs2")["connected"], true);
    assert_eq!(there("fs3")["connected"], false);
    assert!(there("fs3")["error"].is_string(), "{status}");
    let health = pair.a.run(&["health"]).ok();
    assert_eq!(health.stderr, "", "a dead peer makes no node unhealthy");
    assert_eq!(pair.a.run(&["health", "--require-peer"]).code, Some(0), "one is connected");
    assert_eq!(nobody.run(&["health"]).code, Some(1), "no daemon is not healthy");
}

#[test]
fn three_nodes_agree() {
    let pair = Pair::new();
    let mut third = Node::new(pair.dir.path(), "fs3");
    let mut pair = pair;
    for node in [&pair.a, &pair.b] {
        node.pair_with(&third);
        third.pair_with(node);
    }
    for (node, name) in [(&pair.a, "1.wav"), (&pair.b, "2.wav"), (&third, "3.wav")] {
        fs::write(node.path(name), unique(300_000)).unwrap();
        fs::write(node.path("same-name.wav"), name).unwrap();
    }
    third.spawn();
    pair.start();
    until("all three are the same", || {
        let [a, b, c] = [&pair.a, &pair.b, &third].map(Node::tree);
        let difference = format!("{}{}", a.difference(&b), a.difference(&c));
        // Three versions under one name: one keeps it, two become copies.
        if difference.is_empty() && a.0.len() == 6 {
            Ok(())
        } else {
            Err(format!("{a:?}{difference}"))
        }
    });
    third.stop();
    fs::remove_file(pair.a.path("3.wav")).unwrap();
    fs::rename(pair.b.path("2.wav"), pair.b.path("2-archived.wav")).unwrap();
    until("two are the same", || {
        let difference = pair.a.tree().difference(&pair.b.tree());
        let done = !pair.b.path("3.wav").exists() && pair.a.path("2-archived.wav").exists();
        if difference.is_empty() && done { Ok(()) } else { Err(difference) }
    });
    third.start();
    until("all three are the same again", || {
        let [a, b, c] = [&pair.a, &pair.b, &third].map(Node::tree);
        let difference = format!("{}{}", a.difference(&b), a.difference(&c));
        if difference.is_empty() && a.0.len() == 5 { Ok(()) } else { Err(difference) }
    });
}
