//! `recsync wait`: are these files durable on the peers?

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use recsync_proto::NodeName;

use super::named::{in_share, node_name};
use super::{Exit, out};
use crate::serve::Client;
use crate::serve::api::{WaitRequest, Waited};
use crate::serve::client::TIMEOUT;
use crate::sys::Clock;

/// Waits until files, as they are now, are durable on a peer
///
/// Durable: on the peer's disk under their final names, synced, and noted in its index; and so here.
/// A gate for what comes after a recording: uploads, conversions, imports of call records.
/// Without --peer and --all-peers one peer is enough, whichever. A file that changes
/// while it is waited for is waited for as it is then. Exit code 0: all are durable; 1: not in time;
/// 2: it could not be asked, such as a file that is not there or is never synced.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The files
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<OsString>,
    /// On this peer
    #[arg(long, value_name = "PEER", value_parser = node_name, conflicts_with = "all_peers")]
    peer: Option<NodeName>,
    /// On all peers of the config
    #[arg(long)]
    all_peers: bool,
    /// For how long, for all files together
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
}

/// Asks and tells.
///
/// # Errors
/// If there is no daemon or no such peer, or a path names no file that is synced.
pub(super) fn run(control: &Path, args: Args) -> anyhow::Result<Exit> {
    let Args { paths, peer, all_peers, timeout, json } = args;
    // The time begins with it.
    let clock = Clock::start();
    let mut files: Vec<Waited> = Vec::new();
    for path in &paths {
        // When the time is over the others are looked at once each.
        let left = timeout.saturating_sub(clock.now().mono);
        let request = WaitRequest {
            path: in_share(path),
            peer: peer.as_ref().map(ToString::to_string),
            all_peers,
            timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        };
        let client = Client::new(control).with_timeout(left.saturating_add(TIMEOUT));
        let waited = client.post("/api/v1/wait", &request)?;
        if !json {
            out::text(line(&waited))?;
        }
        files.push(waited);
    }
    let durable = files.iter().all(|file| file.durable);
    if json {
        out::json(&serde_json::json!({ "durable": durable, "files": files }))?;
    }
    Ok(if durable { Exit::Well } else { Exit::No })
}

fn line(file: &Waited) -> String {
    let Waited { path, durable, why, peers, .. } = file;
    if let Some(why) = why {
        return format!("{path}: not durable: {why}");
    }
    let (there, missing): (Vec<_>, Vec<_>) = peers.iter().partition(|peer| peer.durable);
    let names = there.iter().map(|peer| peer.peer.as_str()).collect::<Vec<_>>().join(", ");
    if *durable {
        return format!("{path}: durable on {names}");
    }
    let not = missing.iter().map(|peer| match &peer.why {
        Some(why) => format!("not on {}: {why}", peer.peer),
        None => format!("not on {}", peer.peer),
    });
    let on = (!names.is_empty()).then(|| format!("durable on {names}"));
    format!("{path}: {}", on.into_iter().chain(not).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::CommandError;
    use crate::serve::testing::{Daemon, Fake, waited};

    fn args(paths: &[&str], peer: Option<&str>, all_peers: bool) -> Args {
        Args {
            paths: paths.iter().map(OsString::from).collect(),
            peer: peer.map(|peer| NodeName::new(peer).unwrap()),
            all_peers,
            timeout: Duration::ZERO,
            json: false,
        }
    }

    #[test]
    fn help() {
        insta::assert_snapshot!(crate::cli::show::help::<Args>("wait"), @r#"
        Waits until files, as they are now, are durable on a peer

        Durable: on the peer's disk under their final names, synced, and noted in its index; and so here. A
        gate for what comes after a recording: uploads, conversions, imports of call records. Without --peer
        and --all-peers one peer is enough, whichever. A file that changes while it is waited for is waited
        for as it is then. Exit code 0: all are durable; 1: not in time; 2: it could not be asked, such as a
        file that is not there or is never synced.

        Usage: wait [OPTIONS] <PATH>...

        Arguments:
          <PATH>...
                  The files

        Options:
              --peer <PEER>
                  On this peer

              --all-peers
                  On all peers of the config

              --timeout <DURATION>
                  For how long, for all files together

                  [default: 10s]

              --json
                  Prints one JSON document

          -h, --help
                  Print help (see a summary with '-h')
        "#);
    }

    #[test]
    fn tells_a_person() {
        let on_its_way = || {
            let mut waited = waited();
            waited.durable = false;
            waited
        };
        let mut nowhere = on_its_way();
        nowhere.peers.remove(0);
        let open =
            Waited { why: Some("somebody writes to it".into()), peers: vec![], ..on_its_way() };
        let all = [waited(), on_its_way(), nowhere, open];
        insta::assert_snapshot!(all.iter().map(line).collect::<Vec<_>>().join("\n"), @r#"
        2026/11/22/a.wav: durable on fs2
        2026/11/22/a.wav: durable on fs2; not on fs3: it is not connected
        2026/11/22/a.wav: not on fs3: it is not connected
        2026/11/22/a.wav: not durable: somebody writes to it
        "#);
    }

    #[test]
    fn asks_for_each_file() {
        let daemon = Daemon::start(Fake::default());
        let ask = |args| run(&daemon.control(), args).unwrap();
        assert_eq!(ask(args(&["/s/a", "/s/b"], None, false)), Exit::Well);
        assert_eq!(ask(args(&["/s/a"], Some("fs2"), false)), Exit::Well);
        assert_eq!(ask(args(&["/s/a"], None, true)), Exit::Well);
        assert_eq!(
            daemon.service.asked(),
            [
                "wait /s/a Any 0ns",
                "wait /s/b Any 0ns",
                "wait /s/a Peer(fs2) 0ns",
                "wait /s/a All 0ns"
            ]
        );
    }

    #[test]
    fn exit_codes() {
        let late = Waited { durable: false, ..waited() };
        let daemon = Daemon::start(Fake { waited: Ok(late), ..Fake::default() });
        assert_eq!(run(&daemon.control(), args(&["/s/a"], None, false)).unwrap(), Exit::No);

        let gone = CommandError::Unknown("a: there is no such file in recordings".into());
        let daemon = Daemon::start(Fake { waited: Err(gone), ..Fake::default() });
        let error = run(&daemon.control(), args(&["/s/a"], None, false)).unwrap_err();
        assert_eq!(error.to_string(), "a: there is no such file in recordings");
    }
}
