//! `recsync health`: a yes or no for Keepalived and container probes, in under a second.

use std::path::Path;
use std::time::Duration;

use super::show;
use super::{Exit, out};
use crate::serve::Client;
use crate::serve::api::Health;

/// Keepalived and container probes wait a second; what takes longer is a no.
const TIMEOUT: Duration = Duration::from_millis(900);

/// Says whether the daemon does its job, for Keepalived's track_script and container probes
///
/// Prints one line and exits with 0 (healthy) or 1 (unhealthy, no daemon, or no answer within 900
/// ms). By default neither lag nor a dead peer makes a node unhealthy: when one node is lost, the
/// one that is left must not demote itself.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Unhealthy too if anything waits for longer than this to be durable on a peer, or here, as
    /// far as the peer last told; for example 30s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_lag: Option<Duration>,
    /// Unhealthy too if no peer is connected
    #[arg(long)]
    require_peer: bool,
}

/// Asks and tells.
///
/// # Errors
/// If stdout cannot be written; that there is no daemon is an answer.
pub(super) fn run(control: &Path, args: Args) -> anyhow::Result<Exit> {
    let reasons = match Client::new(control).with_timeout(TIMEOUT).health() {
        Ok(health) => reasons(health, &args),
        Err(error) => vec![error.to_string()],
    };
    if reasons.is_empty() {
        out::text("healthy")?;
        return Ok(Exit::Well);
    }
    unhealthy(&reasons)
}

/// Tells why not.
///
/// # Errors
/// As [`run`].
pub(super) fn unhealthy(reasons: &[String]) -> anyhow::Result<Exit> {
    out::text(one_line(reasons))?;
    Ok(Exit::No)
}

fn one_line(reasons: &[String]) -> String {
    format!("unhealthy: {}", reasons.join("; ")).replace(char::is_control, " ")
}

/// Returns why a node is not healthy in the eyes of who asked.
fn reasons(health: Health, args: &Args) -> Vec<String> {
    let mut reasons = health.reasons;
    if !health.healthy && reasons.is_empty() {
        reasons.push("the daemon does not say why".to_owned());
    }
    if args.require_peer && !health.peers.iter().any(|peer| peer.connected) {
        reasons.push("no peer is connected".to_owned());
    }
    if let Some(max) = args.max_lag {
        let over = |lag: f64| lag > max.as_secs_f64();
        let allowed = humantime::format_duration(max);
        for peer in &health.peers {
            if over(peer.lag_seconds) {
                let lag = show::seconds(peer.lag_seconds);
                reasons.push(format!("lag to {} is {lag}, more than {allowed}", peer.name));
            }
            if let Some(lag) = peer.peer_lag_seconds.filter(|lag| over(*lag)) {
                let lag = show::seconds(lag);
                reasons.push(format!("lag from {} is {lag}, more than {allowed}", peer.name));
            }
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::api::PeerHealth;
    use crate::serve::testing::{Daemon, Fake, hung, status};

    fn args(max_lag: Option<u64>, require_peer: bool) -> Args {
        Args { max_lag: max_lag.map(Duration::from_secs), require_peer }
    }

    fn check(peers: &[(bool, f64, Option<f64>)], args: &Args, expected: &[&str]) {
        let peers = peers.iter().zip(["fs2", "fs3"]).map(|(peer, name)| PeerHealth {
            name: name.into(),
            connected: peer.0,
            lag_seconds: peer.1,
            peer_lag_seconds: peer.2,
        });
        let health = Health { healthy: true, reasons: vec![], peers: peers.collect() };
        assert_eq!(reasons(health, args), expected);
    }

    #[test]
    fn help() {
        insta::assert_snapshot!(crate::cli::show::help::<Args>("health"), @r#"
        Says whether the daemon does its job, for Keepalived's track_script and container probes

        Prints one line and exits with 0 (healthy) or 1 (unhealthy, no daemon, or no answer within 900 ms).
        By default neither lag nor a dead peer makes a node unhealthy: when one node is lost, the one that
        is left must not demote itself.

        Usage: health [OPTIONS]

        Options:
              --max-lag <DURATION>
                  Unhealthy too if anything waits for longer than this to be durable on a peer, or here, as
                  far as the peer last told; for example 30s

              --require-peer
                  Unhealthy too if no peer is connected

          -h, --help
                  Print help (see a summary with '-h')
        "#);
    }

    #[test]
    fn a_survivor_is_healthy_unless_asked_for_more() {
        let dead = [(false, 7_500.0, Some(40.0))];
        check(&dead, &args(None, false), &[]);
        check(&dead, &args(None, true), &["no peer is connected"]);
        check(&dead, &args(Some(60), false), &["lag to fs2 is 2 h 5 min, more than 1m"]);
        check(
            &dead,
            &args(Some(30), true),
            &[
                "no peer is connected",
                "lag to fs2 is 2 h 5 min, more than 30s",
                "lag from fs2 is 40.0 s, more than 30s",
            ],
        );
        check(&[], &args(Some(0), false), &[]);
        check(&[(true, 0.0, None)], &args(Some(0), true), &[]);
        check(&[(false, 0.0, None), (true, 0.0, None)], &args(None, true), &[]);
        check(&[(true, 30.0, Some(30.0))], &args(Some(30), false), &[]);
    }

    #[test]
    fn exit_codes() {
        let daemon = Daemon::start(Fake::default());
        assert_eq!(run(&daemon.control(), args(None, true)).unwrap(), Exit::Well);
        assert_eq!(run(&daemon.control(), args(Some(60), false)).unwrap(), Exit::No);

        let mut sick = status();
        sick.health.healthy = false;
        let daemon = Daemon::start(Fake { status: sick, ..Fake::default() });
        assert_eq!(run(&daemon.control(), args(None, false)).unwrap(), Exit::No);
        let control = daemon.control();
        drop(daemon);
        assert_eq!(run(&control, args(None, false)).unwrap(), Exit::No, "no daemon");
    }

    #[test]
    fn a_daemon_that_hangs_is_a_no() {
        let dir = tempfile::tempdir().unwrap();
        let (control, _listener) = hung(dir.path());
        assert_eq!(run(&control, args(None, false)).unwrap(), Exit::No);
    }

    #[test]
    fn one_line_whatever_the_reason() {
        let reasons = ["a\nb".to_owned(), "c\x1b[31m".to_owned()];
        assert_eq!(one_line(&reasons), "unhealthy: a b; c [31m");
    }
}
