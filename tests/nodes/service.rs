//! The daemon as service managers, monitoring and scripts see it.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Node, PATIENCE, Pair, seen, unique, until};

#[test]
fn sigterm_under_load_ends_well_and_in_time() {
    let mut pair = Pair::started();
    let stop = AtomicBool::new(false);
    let Pair { a, b, .. } = &mut pair;
    let (root, stop_writing) = (a.root.clone(), &stop);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0.. {
                if stop_writing.load(Ordering::Relaxed) {
                    break;
                }
                let len = if number % 40 == 0 { 8_000_000 } else { 50_000 };
                fs::write(root.join(format!("{}.wav", number % 500)), unique(len)).unwrap();
                // Leave the nodes some of the two cores.
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        for _ in 0..2 {
            until("much is under way", || seen(b.traffic().1 > 3_000_000));
            // Both check the exit code and the time that it took.
            a.stop();
            b.stop();
            b.start();
            a.start();
        }
        stop.store(true, Ordering::Relaxed);
    });
    pair.start();
    pair.wait_until_consistent_within(Duration::from_secs(60));
}

#[test]
fn sigterm_during_the_first_scan_and_without_peers() {
    let mut pair = Pair::new();
    for number in 0..300 {
        fs::write(pair.a.path(format!("{number}.wav")), unique(1_000)).unwrap();
    }
    pair.a.spawn();
    pair.a.stop();
    pair.start();
    pair.wait_until_consistent();
}

#[test]
fn signals_are_heeded_from_the_first_moment_on() {
    let mut pair = Pair::new();
    for signal in [Signal::TERM, Signal::HUP].repeat(5) {
        pair.a.launch();
        // Bound before the shares are started.
        let control = pair.a.home.join("etc/control.sock");
        until("it begins to listen", || UnixStream::connect(&control).map(drop));
        pair.a.signal(signal);
        if signal == Signal::HUP {
            pair.a.wait_until_ready();
        }
        pair.a.stop();
    }
}

#[test]
fn sigint_is_a_clean_end_too() {
    let mut pair = Pair::started();
    let pid = rustix::process::Pid::from_raw(pair.b.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    // The second signal finds it stopping, and changes nothing.
    pair.b.stop();
}

#[test]
fn metrics_health_and_readiness_are_served() {
    let mut pair = Pair::started();
    fs::write(pair.a.path("call.wav"), unique(100_000)).unwrap();
    pair.wait_until_consistent();

    let (code, head, text) = pair.a.get_with("/metrics", "").unwrap();
    assert!(code == 200 && head.to_lowercase().contains("text/plain; version=0.0.4"), "{head}");
    for name in [
        "recsync_lag_seconds",
        "recsync_replication_seconds_bucket",
        "recsync_replication_seconds_count",
        "recsync_pending_files",
        "recsync_pending_bytes",
        "recsync_peer_connected",
        "recsync_peer_last_seen_timestamp_seconds",
        "recsync_sent_bytes_total",
        "recsync_received_bytes_total",
        "recsync_watch_overflows_total",
        "recsync_scans_total",
        "recsync_scan_seconds_count",
        "recsync_inotify_watches",
        "recsync_paused",
        "recsync_quarantined_files",
        "recsync_share_files",
        "recsync_share_bytes",
        "recsync_build_info",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing:\n{text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit_once(' ').unwrap().1;
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(!line.contains("call.wav"), "a path in a label: {line}");
    }
    let openmetrics = "Accept: application/openmetrics-text; version=1.0.0\r\n";
    let (_, head, text) = pair.a.get_with("/metrics", openmetrics).unwrap();
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(text.trim_end().ends_with("# EOF"), "{text}");

    assert_eq!(pair.a.metric("recsync_peer_connected", &["peer=\"fs2\""]), 1.0);
    assert_eq!(pair.a.metric("recsync_share_files", &[]), 1.0);
    assert_eq!(pair.a.metric("recsync_share_bytes", &[]), 100_000.0);
    assert_eq!(pair.a.metric("recsync_replication_seconds_count", &[]), 1.0);
    assert_eq!(pair.a.metric("recsync_lag_seconds", &[]), 0.0);
    assert_eq!(pair.b.applied("create"), 1.0);

    for path in ["/healthz", "/readyz", "/api/v1/status"] {
        let (code, body) = pair.a.get(path).unwrap();
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str::<serde_json::Value>(&body).unwrap();
    }
    let (code, _) = pair.a.get("/api/v1/nothing").unwrap();
    assert_eq!(code, 404);
    // What does something is not served over TCP.
    let (code, _) = pair.a.get("/api/v1/rescan").unwrap();
    assert_eq!(code, 404);

    assert_eq!(pair.a.run(&["health", "--require-peer", "--max-lag", "1m"]).code, Some(0));
    pair.b.stop();
    until("fs1 knows that fs2 is gone", || {
        seen(pair.a.metric("recsync_peer_connected", &["peer=\"fs2\""]) == 0.0)
    });
    assert_eq!(pair.a.get("/healthz").unwrap().0, 200, "a dead peer makes no node unhealthy");
    assert_eq!(pair.a.run(&["health"]).code, Some(0));
    assert_eq!(pair.a.run(&["health", "--require-peer"]).code, Some(1));
}

#[test]
fn lag_grows_while_the_peer_is_away_and_falls_when_it_is_back() {
    let mut pair = Pair::started();
    pair.b.stop();
    fs::write(pair.a.path("call.wav"), unique(7_000)).unwrap();
    until("fs1 has lag", || seen(pair.a.metric("recsync_lag_seconds", &[]) > 0.2));
    assert_eq!(pair.a.metric("recsync_pending_files", &[]), 1.0);
    assert_eq!(pair.a.metric("recsync_pending_bytes", &[]), 7_000.0);
    assert_eq!(pair.a.run(&["health"]).code, Some(0));
    let health = pair.a.run(&["health", "--max-lag", "100ms"]);
    assert!(health.code == Some(1) && health.stdout.lines().count() == 1, "{health:?}");

    // It survives a restart: a crash must not hide that something is not safe yet.
    pair.a.kill();
    pair.a.start();
    until("fs1 still has lag", || seen(pair.a.metric("recsync_lag_seconds", &[]) > 0.4));
    pair.start();
    pair.wait_until_consistent();
    assert_eq!(pair.a.metric("recsync_lag_seconds", &[]), 0.0);
    assert_eq!(pair.a.metric("recsync_pending_files", &[]), 0.0);
}

#[test]
fn the_service_manager_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "fs1");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    node.set_env("NOTIFY_SOCKET", path.to_str().unwrap());
    node.set_env("WATCHDOG_USEC", "3000000");
    node.start();
    let mut buffer = [0; 4_096];
    let mut next = |what: &str| {
        let begun = Instant::now();
        loop {
            let len = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if text.lines().any(|line| line == what) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        }
    };
    next("READY=1");
    // Three times in a row, an idle daemon feeds its watchdog in time.
    for _ in 0..3 {
        let took = next("WATCHDOG=1");
        assert!(took < Duration::from_secs(3), "systemd had killed it: {took:?}");
    }
    node.stop();
    next("STOPPING=1");
    assert!(!node.log().contains("no progress"), "{}", node.log());
}

#[test]
fn the_watchdog_is_fed_without_a_root_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "fs1");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    node.set_env("NOTIFY_SOCKET", path.to_str().unwrap());
    node.set_env("WATCHDOG_USEC", "3000000");
    fs::rename(&node.root, dir.path().join("away")).unwrap();
    node.spawn();
    let mut buffer = [0; 4_096];
    let mut fed = 0;
    while fed < 2 {
        let len = socket.recv(&mut buffer).unwrap();
        fed += usize::from(buffer[..len].starts_with(b"WATCHDOG=1"));
    }
    node.stop();
}

#[test]
fn two_quiet_nodes_say_nothing_and_write_nothing() {
    let pair = Pair::started();
    for number in 0..50 {
        fs::write(pair.a.path(format!("{number}-fs1.wav")), unique(2_000)).unwrap();
        fs::write(pair.b.path(format!("{number}-fs2.wav")), unique(2_000)).unwrap();
        fs::rename(pair.a.path(format!("{number}-fs1.wav")), pair.a.path(format!("{number}.wav")))
            .unwrap();
    }
    pair.wait_until_consistent();

    let index = |node: &Node| -> u64 {
        let size = |suffix: &str| {
            let mut path = node.index().into_os_string();
            path.push(suffix);
            fs::metadata(Path::new(&path)).map_or(0, |found| found.len())
        };
        size("") + size("-wal")
    };
    let changes = |node: &Node| node.log().matches("changed here").count();
    let look = |node: &Node| {
        let applied = node.metric("recsync_files_applied_total", &[]);
        (node.traffic(), index(node), changes(node), applied, pair.a.tree() == pair.b.tree())
    };
    // The last acknowledgements and notices of the verification above may still be on their way.
    std::thread::sleep(Duration::from_millis(500));
    let before = [look(&pair.a), look(&pair.b)];
    pair.stays(Duration::from_secs(4));
    for (node, before) in [&pair.a, &pair.b].into_iter().zip(before) {
        let now = look(node);
        let traffic = now.0.0 - before.0.0 + now.0.1 - before.0.1;
        // Keep-alives.
        assert!(traffic < 2_000, "{} moved {traffic} bytes", node.name);
        assert_eq!((now.1, now.2, now.3), (before.1, before.2, before.3), "{}", node.name);
    }
    // A rename is one change more, or two, if the file was noted before; none here but fs2's own.
    assert!((50..=150).contains(&changes(&pair.a)), "{} changes on fs1", changes(&pair.a));
    assert_eq!(changes(&pair.b), 50, "an echo was taken for a change");
}

#[test]
fn a_config_or_state_that_cannot_be_used_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path(), "fs1");
    let key = node.config().parent().unwrap().join("state/key.pem");
    fs::rename(&key, dir.path().join("key")).unwrap();
    let ran = node.run(&["run"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("key.pem"), "{ran:?}");
    fs::rename(dir.path().join("key"), &key).unwrap();
    // Another program has the address.
    let _taken = std::net::TcpListener::bind(node.listen).unwrap();
    let ran = node.run(&["run"]);
    assert!(ran.code == Some(2) && ran.stderr.contains(&node.listen.to_string()), "{ran:?}");
}

#[test]
fn a_second_daemon_of_the_same_node_does_not_start() {
    let pair = Pair::started();
    let ran = pair.a.run(&["run"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    fs::write(pair.a.path("call.wav"), b"1").unwrap();
    pair.wait_until_consistent();
    pair.a.run(&["status"]).ok();
}
