//! What a scraper reads.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use recsync_proto::{NodeName, Seq, ShareName, SharePath};

use super::*;

fn share() -> ShareName {
    ShareName::new("recordings").unwrap()
}

fn peer() -> NodeName {
    NodeName::new("fs2").unwrap()
}

fn path() -> SharePath {
    SharePath::new(b"2026/a.wav").unwrap()
}

fn busy() -> Metrics {
    let metrics = Metrics::new(&[share()], &[peer()]);
    for event in [
        Event::Noted { path: path(), seq: Seq(1) },
        Event::EchoSuppressed,
        Event::Replicated { peer: peer(), path: path(), took: Some(Duration::from_millis(40)) },
        Event::Replicated { peer: peer(), path: path(), took: None },
        Event::Applied {
            peer: Some(peer()),
            path: path(),
            kind: AppliedKind::Rename,
            saved: Some((Saved::Rename, 4096)),
        },
        Event::Applied { peer: None, path: path(), kind: AppliedKind::Create, saved: None },
        Event::Conflict { path: path(), copy: path() },
        Event::Trouble {
            path: path(),
            why: "no space left".into(),
            retry: Duration::from_secs(1),
            kind: "space",
        },
        Event::Skipped { path: path(), why: "a socket".into() },
        Event::Guard(GuardEvent::RootBack),
        Event::Guard(GuardEvent::DeletesHeld { gone: 60, of: 100 }),
        Event::PeerReset { peer: peer(), why: "rolled back".into() },
    ] {
        metrics.record(&share(), &event);
    }
    metrics.lag_seconds.with(SharePeer::new(share(), peer())).set(0.25);
    metrics.sent_bytes.with(Peer::new(peer())).inc_by(1_048_576);
    metrics.inotify_watches.set(12);
    metrics
}

/// Samples that are not zero, without the buckets.
fn told(metrics: &Metrics) -> String {
    let text = metrics.text(Format::Prometheus);
    let told = text.lines().filter(|line| {
        let zero = line.ends_with(" 0") || line.ends_with(" 0.0");
        !line.starts_with('#') && !line.contains("_bucket") && !zero
    });
    told.collect::<Vec<_>>().join("\n").replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn counts_what_the_engine_tells() {
    insta::assert_snapshot!(told(&busy()), @r#"
    recsync_build_info{version="VERSION"} 1
    recsync_lag_seconds{share="recordings",peer="fs2"} 0.25
    recsync_replication_seconds_sum{share="recordings",peer="fs2"} 0.04
    recsync_replication_seconds_count{share="recordings",peer="fs2"} 1
    recsync_sent_bytes_total{peer="fs2"} 1048576
    recsync_files_applied_total{share="recordings",peer="",kind="create"} 1
    recsync_files_applied_total{share="recordings",peer="fs2",kind="rename"} 1
    recsync_saved_bytes_total{share="recordings",how="rename"} 4096
    recsync_conflicts_total{share="recordings"} 1
    recsync_errors_total{share="recordings",kind="space"} 1
    recsync_echoes_suppressed_total{share="recordings"} 1
    recsync_inotify_watches 12
    recsync_paused{share="recordings",reason="mass_delete"} 1
    recsync_share_available{share="recordings"} 1
    "#);
}

#[test]
fn a_lost_root_has_one_reason_at_a_time() {
    let metrics = busy();
    let lose = |error| metrics.record(&share(), &Event::Guard(GuardEvent::RootLost(error)));
    let paused = || {
        PauseReason::ALL
            .into_iter()
            .filter(|reason| metrics.paused.with(Paused::new(share(), *reason)).get() == 1)
            .map(PauseReason::as_str)
            .collect::<Vec<_>>()
    };
    let disk = || "/storage".to_owned();

    lose(RootError::NoMarker { path: disk() });
    assert_eq!(paused(), ["no_marker", "mass_delete"]);
    lose(RootError::OtherRoot { path: disk(), found: "b".into(), expected: "a".into() });
    assert_eq!(paused(), ["other_disk", "mass_delete"]);
    assert_eq!(metrics.share_available.with(Share::new(share())).get(), 0);

    metrics.record(&share(), &Event::Guard(GuardEvent::RootBack));
    metrics.record(&share(), &Event::Guard(GuardEvent::DeletesReleased { confirmed: true }));
    assert_eq!(paused(), Vec::<&str>::new());
    assert_eq!(metrics.share_available.with(Share::new(share())).get(), 1);
}

#[test]
fn a_reload_keeps_values_and_drops_what_is_gone() {
    let metrics = busy();
    let third = NodeName::new("fs3").unwrap();
    metrics.configure(&[share()], &[third.clone(), peer()]);
    assert_eq!(metrics.sent_bytes.with(Peer::new(peer())).get(), 1_048_576);
    assert!(
        metrics
            .text(Format::Prometheus)
            .contains("recsync_lag_seconds{share=\"recordings\",peer=\"fs3\"} 0.0")
    );

    metrics.configure(&[share()], &[third]);
    assert!(!metrics.text(Format::Prometheus).contains("fs2"));
    metrics.configure(&[], &[]);
    insta::assert_snapshot!(told(&metrics), @r#"
    recsync_build_info{version="VERSION"} 1
    recsync_inotify_watches 12
    "#);
}

#[test]
fn text_0_0_4() {
    let text = Metrics::new(&[share()], &[peer()]).text(Format::Prometheus);
    let text = text.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(text, @r#"
    # HELP recsync_build_info Always 1; the version that runs.
    # TYPE recsync_build_info gauge
    recsync_build_info{version="VERSION"} 1
    # HELP recsync_lag_seconds Age of the oldest change made here that is not yet durable on the peer, 0 if none.
    # TYPE recsync_lag_seconds gauge
    recsync_lag_seconds{share="recordings",peer="fs2"} 0.0
    # HELP recsync_replication_seconds Time from close, rename or delete here until it was durable on the peer.
    # TYPE recsync_replication_seconds histogram
    recsync_replication_seconds_sum{share="recordings",peer="fs2"} 0.0
    recsync_replication_seconds_count{share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="0.01",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="0.025",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="0.05",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="0.1",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="0.25",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="0.5",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="1.0",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="2.5",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="5.0",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="10.0",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="30.0",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="60.0",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="120.0",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="300.0",share="recordings",peer="fs2"} 0
    recsync_replication_seconds_bucket{le="+Inf",share="recordings",peer="fs2"} 0
    # HELP recsync_pending_files Paths whose latest version is not yet durable on the peer.
    # TYPE recsync_pending_files gauge
    recsync_pending_files{share="recordings",peer="fs2"} 0
    # HELP recsync_pending_bytes Size of the files whose latest version is not yet durable on the peer.
    # TYPE recsync_pending_bytes gauge
    recsync_pending_bytes{share="recordings",peer="fs2"} 0
    # HELP recsync_peer_connected 1 while there is a link to the peer.
    # TYPE recsync_peer_connected gauge
    recsync_peer_connected{peer="fs2"} 0
    # HELP recsync_peer_last_seen_timestamp_seconds When the peer was last heard, 0 for never since the start.
    # TYPE recsync_peer_last_seen_timestamp_seconds gauge
    recsync_peer_last_seen_timestamp_seconds{peer="fs2"} 0.0
    # HELP recsync_sent_bytes_total Bytes sent to the peer, on the wire.
    # TYPE recsync_sent_bytes_total counter
    recsync_sent_bytes_total{peer="fs2"} 0
    # HELP recsync_received_bytes_total Bytes received from the peer, on the wire.
    # TYPE recsync_received_bytes_total counter
    recsync_received_bytes_total{peer="fs2"} 0
    # HELP recsync_files_applied_total Changes by a peer that were applied here; no peer if it is not known which one told.
    # TYPE recsync_files_applied_total counter
    recsync_files_applied_total{share="recordings",peer="",kind="create"} 0
    recsync_files_applied_total{share="recordings",peer="",kind="update"} 0
    recsync_files_applied_total{share="recordings",peer="",kind="delete"} 0
    recsync_files_applied_total{share="recordings",peer="",kind="rename"} 0
    recsync_files_applied_total{share="recordings",peer="",kind="metadata"} 0
    recsync_files_applied_total{share="recordings",peer="fs2",kind="create"} 0
    recsync_files_applied_total{share="recordings",peer="fs2",kind="update"} 0
    recsync_files_applied_total{share="recordings",peer="fs2",kind="delete"} 0
    recsync_files_applied_total{share="recordings",peer="fs2",kind="rename"} 0
    recsync_files_applied_total{share="recordings",peer="fs2",kind="metadata"} 0
    # HELP recsync_saved_bytes_total Bytes that did not have to cross the wire.
    # TYPE recsync_saved_bytes_total counter
    recsync_saved_bytes_total{share="recordings",how="dedup"} 0
    recsync_saved_bytes_total{share="recordings",how="rename"} 0
    recsync_saved_bytes_total{share="recordings",how="delta"} 0
    # HELP recsync_conflicts_total Clashes of two versions, both of which were kept.
    # TYPE recsync_conflicts_total counter
    recsync_conflicts_total{share="recordings"} 0
    # HELP recsync_conflict_copies Conflict copies in the share that nobody has resolved.
    # TYPE recsync_conflict_copies gauge
    recsync_conflict_copies{share="recordings"} 0
    # HELP recsync_crowded_paths Paths with ten conflict copies or more.
    # TYPE recsync_crowded_paths gauge
    recsync_crowded_paths{share="recordings"} 0
    # HELP recsync_errors_total Paths that could not be looked at or changed, each attempt.
    # TYPE recsync_errors_total counter
    recsync_errors_total{share="recordings",kind="denied"} 0
    recsync_errors_total{share="recordings",kind="io"} 0
    recsync_errors_total{share="recordings",kind="name"} 0
    recsync_errors_total{share="recordings",kind="source"} 0
    recsync_errors_total{share="recordings",kind="space"} 0
    # HELP recsync_watch_overflows_total Times that the kernel dropped file events, each followed by a scan.
    # TYPE recsync_watch_overflows_total counter
    recsync_watch_overflows_total{share="recordings"} 0
    # HELP recsync_scans_total Full scans of the share that ended.
    # TYPE recsync_scans_total counter
    recsync_scans_total{share="recordings"} 0
    # HELP recsync_scan_seconds Time that a full scan took.
    # TYPE recsync_scan_seconds histogram
    recsync_scan_seconds_sum{share="recordings"} 0.0
    recsync_scan_seconds_count{share="recordings"} 0
    recsync_scan_seconds_bucket{le="0.01",share="recordings"} 0
    recsync_scan_seconds_bucket{le="0.1",share="recordings"} 0
    recsync_scan_seconds_bucket{le="0.5",share="recordings"} 0
    recsync_scan_seconds_bucket{le="1.0",share="recordings"} 0
    recsync_scan_seconds_bucket{le="5.0",share="recordings"} 0
    recsync_scan_seconds_bucket{le="15.0",share="recordings"} 0
    recsync_scan_seconds_bucket{le="60.0",share="recordings"} 0
    recsync_scan_seconds_bucket{le="300.0",share="recordings"} 0
    recsync_scan_seconds_bucket{le="900.0",share="recordings"} 0
    recsync_scan_seconds_bucket{le="3600.0",share="recordings"} 0
    recsync_scan_seconds_bucket{le="+Inf",share="recordings"} 0
    # HELP recsync_echoes_suppressed_total File events that recsync itself had caused and found to be nothing new.
    # TYPE recsync_echoes_suppressed_total counter
    recsync_echoes_suppressed_total{share="recordings"} 0
    # HELP recsync_inotify_watches Directories watched.
    # TYPE recsync_inotify_watches gauge
    recsync_inotify_watches 0
    # HELP recsync_inotify_watches_limit Directories that this user may watch, fs.inotify.max_user_watches.
    # TYPE recsync_inotify_watches_limit gauge
    recsync_inotify_watches_limit 0
    # HELP recsync_paused 1 while something keeps the share from being synced.
    # TYPE recsync_paused gauge
    recsync_paused{share="recordings",reason="no_marker"} 0
    recsync_paused{share="recordings",reason="other_disk"} 0
    recsync_paused{share="recordings",reason="mass_delete"} 0
    recsync_paused{share="recordings",reason="no_space"} 0
    recsync_paused{share="recordings",reason="read_only"} 0
    recsync_paused{share="recordings",reason="operator"} 0
    # HELP recsync_quarantined_files Paths that keep failing and are tried again with growing delays.
    # TYPE recsync_quarantined_files gauge
    recsync_quarantined_files{share="recordings"} 0
    # HELP recsync_peer_clock_skew_seconds How far the peer's clock is ahead of the one here, negative if behind.
    # TYPE recsync_peer_clock_skew_seconds gauge
    recsync_peer_clock_skew_seconds{peer="fs2"} 0.0
    # HELP recsync_trash_bytes Size of what peers deleted and replaced here and is still kept.
    # TYPE recsync_trash_bytes gauge
    recsync_trash_bytes{share="recordings"} 0
    # HELP recsync_share_files Files in the share, as the index knows them.
    # TYPE recsync_share_files gauge
    recsync_share_files{share="recordings"} 0
    # HELP recsync_share_bytes Size of the files in the share.
    # TYPE recsync_share_bytes gauge
    recsync_share_bytes{share="recordings"} 0
    # HELP recsync_share_available 1 while the share's directory is there and is the right one.
    # TYPE recsync_share_available gauge
    recsync_share_available{share="recordings"} 0
    # HELP recsync_share_gate_weak 1 while the kernel does not say who writes to the share's files.
    # TYPE recsync_share_gate_weak gauge
    recsync_share_gate_weak{share="recordings"} 0
    # HELP recsync_last_verify_timestamp_seconds When the share was last verified against the peer, 0 for never since the start.
    # TYPE recsync_last_verify_timestamp_seconds gauge
    recsync_last_verify_timestamp_seconds{share="recordings",peer="fs2"} 0.0
    # HELP recsync_last_verify_differences Differences that the last verify found.
    # TYPE recsync_last_verify_differences gauge
    recsync_last_verify_differences{share="recordings",peer="fs2"} 0
    "#);
}

#[test]
fn text_open_metrics() {
    let text = busy().text(Format::OpenMetrics);
    assert!(text.ends_with("# EOF\n"));
    let counter: Vec<_> = text.lines().filter(|line| line.contains("sent_bytes")).collect();
    insta::assert_snapshot!(counter.join("\n"), @r#"
    # HELP recsync_sent_bytes Bytes sent to the peer, on the wire.
    # TYPE recsync_sent_bytes counter
    recsync_sent_bytes_total{peer="fs2"} 1048576
    "#);
}

#[test]
fn promtool_finds_it_clean() {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => {
            // Not `eprintln`, which the test runner would swallow.
            let skipped = format!("SKIPPED promtool_finds_it_clean: no promtool: {error}\n");
            std::io::stderr().write_all(skipped.as_bytes()).unwrap();
            return;
        }
    };
    let text = busy().text(Format::Prometheus);
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    assert_eq!(String::from_utf8_lossy(&said), "");
}
