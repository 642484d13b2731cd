//! `recsync verify`: are the trees the same?

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use recsync_proto::{NodeName, ShareName};

use super::show::{bytes, count, seconds, things};
use super::{Exit, out};
use crate::serve::Client;
use crate::serve::api::{DifferenceKind, VerifyCheck, VerifyReport, VerifyRequest, VerifySide};

/// Differences of one check that are shown to a person; all are in `--json`.
const SHOWN_MAX: usize = 50;

/// Time for the comparison itself, which reads the whole tree: a person or a script that waits for
/// less can end it at any time.
const COMPARE_MAX: Duration = Duration::from_secs(3600);

/// Compares the shares with the peers' as they are on disk now
///
/// By path, kind, size, mtime, mode, owner and indexed hash. What is on its way is looked at again
/// until it has arrived or the timeout is over, and is no difference. Exit code 0: consistent;
/// 1: differences; 2: it could not be checked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this share
    #[arg(long, value_name = "SHARE", value_parser = |name: &str| ShareName::new(name))]
    share: Option<ShareName>,
    /// Only with this peer
    #[arg(long, value_name = "PEER", value_parser = |name: &str| NodeName::new(name))]
    peer: Option<NodeName>,
    /// How long to wait for what is on its way
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
}

/// Asks and tells.
///
/// # Errors
/// If there is no daemon, no such share or peer, or a peer cannot be asked.
pub(super) fn run(control: &Path, args: Args) -> anyhow::Result<Exit> {
    let request = VerifyRequest {
        share: args.share.map(|share| share.to_string()),
        peer: args.peer.map(|peer| peer.to_string()),
        timeout_ms: u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let client = Client::new(control).with_timeout(args.timeout.saturating_add(COMPARE_MAX));
    let report: VerifyReport = client.post("/api/v1/verify", &request)?;
    if args.json {
        out::json(&serde_json::to_value(&report)?)?;
    } else {
        out::text(text(&report))?;
    }
    Ok(exit(&report))
}

fn exit(report: &VerifyReport) -> Exit {
    if report.checks.iter().any(|check| !check.differences.is_empty()) {
        Exit::No
    } else if report.consistent && !report.checks.is_empty() {
        Exit::Well
    } else {
        // Nothing to compare with, or not in time.
        Exit::CouldNot
    }
}

fn text(report: &VerifyReport) -> String {
    if report.checks.is_empty() {
        return "nothing was compared: there is no share or no peer; see `recsync status`"
            .to_owned();
    }
    report.checks.iter().map(check).collect()
}

fn check(check: &VerifyCheck) -> String {
    let VerifyCheck { share, peer, in_flight, differences, .. } = check;
    let found = match (differences.len(), *in_flight) {
        (0, 0) => "consistent".to_owned(),
        (0, _) => "no differences yet".to_owned(),
        (number, _) => things(number as u64, "difference"),
    };
    let compared = format!(
        "{}, {} compared in {}",
        things(check.files, "file"),
        bytes(check.bytes),
        seconds(check.seconds)
    );
    let mut text = format!("{share} with {peer}: {found} ({compared})\n");
    let mut line = |line: String| writeln!(text, "  {line}").expect("a string takes all");
    for difference in differences.iter().take(SHOWN_MAX) {
        let what = match difference.kind {
            DifferenceKind::MissingHere => "missing here".to_owned(),
            DifferenceKind::MissingOnPeer => format!("missing on {peer}"),
            DifferenceKind::Content => "other content".to_owned(),
            DifferenceKind::Metadata => "other metadata".to_owned(),
            DifferenceKind::Type => "other type".to_owned(),
            DifferenceKind::Unreadable => "unreadable".to_owned(),
        };
        let sides = sides(difference.local.as_ref(), difference.peer.as_ref(), peer);
        line(format!("{what}: {}{sides}", difference.path));
    }
    if let Some(more @ 1..) = differences.len().checked_sub(SHOWN_MAX) {
        line(format!("and {} more: `--json` has all", count(more as u64)));
    }
    if *in_flight > 0 {
        line(format!(
            "{} still on the way when the time was over: ask again, or with a longer --timeout",
            things(*in_flight, "path")
        ));
    }
    text
}

/// Says wherein two objects differ, as far as a few words can.
fn sides(here: Option<&VerifySide>, there: Option<&VerifySide>, peer: &str) -> String {
    let (Some(here), Some(there)) = (here, there) else { return String::new() };
    let mut parts = Vec::new();
    if here.size != there.size {
        parts.push(format!("{} B here, {} B on {peer}", count(here.size), count(there.size)));
    }
    if let (Some(owner), Some(other)) = (&here.owner, &there.owner)
        && owner != other
    {
        parts.push(format!("of {owner} here, of {other} on {peer}"));
    }
    if here.mode != there.mode {
        parts.push(format!("mode {:04o} here, {:04o} on {peer}", here.mode, there.mode));
    }
    if here.mtime_ns != there.mtime_ns {
        let by = Duration::from_nanos(here.mtime_ns.abs_diff(there.mtime_ns));
        let by = seconds(by.as_secs_f64());
        parts.push(if here.mtime_ns > there.mtime_ns {
            format!("modified {by} later here")
        } else {
            format!("modified {by} later on {peer}")
        });
    }
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::CommandError;
    use crate::serve::api::Difference;
    use crate::serve::testing::{self, Daemon, Fake};

    fn side(size: u64, mtime_ns: i64, mode: u32) -> Option<VerifySide> {
        Some(VerifySide { size, mtime_ns, mode, owner: None, hash: None })
    }

    fn differing() -> VerifyReport {
        let difference =
            |path: &str, kind, local, peer| Difference { path: path.into(), kind, local, peer };
        let differences = vec![
            difference("a.wav", DifferenceKind::MissingOnPeer, side(1, 1, 0o644), None),
            difference("b.wav", DifferenceKind::MissingHere, None, side(1, 1, 0o644)),
            difference(
                "c.wav",
                DifferenceKind::Content,
                side(81_964, 5_000_000_000, 0o644),
                side(44, 1_000_000_000, 0o644),
            ),
            difference("d", DifferenceKind::Metadata, side(0, 1, 0o755), side(0, 2, 0o700)),
            difference("e", DifferenceKind::Type, side(7, 1, 0o644), side(7, 1, 0o644)),
        ];
        let check = testing::check;
        VerifyReport {
            consistent: false,
            checks: vec![
                check(),
                VerifyCheck { peer: "fs3".into(), differences, in_flight: 2, ..check() },
                VerifyCheck { peer: "fs4".into(), in_flight: 1, files: 1, ..check() },
            ],
        }
    }

    #[test]
    fn help() {
        insta::assert_snapshot!(crate::cli::show::help::<Args>("verify"), @r#"
        Compares the shares with the peers' as they are on disk now

        By path, kind, size, mtime, mode, owner and indexed hash. What is on its way is looked at again
        until it has arrived or the timeout is over, and is no difference. Exit code 0: consistent; 1:
        differences; 2: it could not be checked.

        Usage: verify [OPTIONS]

        Options:
              --share <SHARE>
                  Only this share

              --peer <PEER>
                  Only with this peer

              --timeout <DURATION>
                  How long to wait for what is on its way

                  [default: 60s]

              --json
                  Prints one JSON document

          -h, --help
                  Print help (see a summary with '-h')
        "#);
    }

    #[test]
    fn tells_a_person() {
        insta::assert_snapshot!(text(&differing()), @r#"
        recordings with fs2: consistent (120,345 files, 9.2 GB compared in 1.8 s)
        recordings with fs3: 5 differences (120,345 files, 9.2 GB compared in 1.8 s)
          missing on fs3: a.wav
          missing here: b.wav
          other content: c.wav (81,964 B here, 44 B on fs3; modified 4.0 s later here)
          other metadata: d (mode 0755 here, 0700 on fs3; modified 1 ms later on fs3)
          other type: e
          2 paths still on the way when the time was over: ask again, or with a longer --timeout
        recordings with fs4: no differences yet (1 file, 9.2 GB compared in 1.8 s)
          1 path still on the way when the time was over: ask again, or with a longer --timeout
        "#);
    }

    #[test]
    fn does_not_flood_the_screen() {
        let difference = Difference {
            path: "a.wav".into(),
            kind: DifferenceKind::Unreadable,
            local: None,
            peer: None,
        };
        let differences = vec![difference; SHOWN_MAX + 1200];
        let text = check(&VerifyCheck { differences, ..testing::check() });
        assert_eq!(text.lines().count(), SHOWN_MAX + 2);
        assert!(text.ends_with("and 1,200 more: `--json` has all\n"), "{text}");
    }

    #[test]
    fn exit_codes() {
        let clean = testing::check;
        let late = || VerifyCheck { in_flight: 1, ..clean() };
        for (consistent, checks, expected) in [
            (true, vec![clean()], Exit::Well),
            (true, vec![], Exit::CouldNot),
            (false, vec![clean(), late()], Exit::CouldNot),
            (false, differing().checks, Exit::No),
        ] {
            assert_eq!(exit(&VerifyReport { consistent, checks }), expected);
        }
    }

    #[test]
    fn asks_the_daemon() {
        let ask = |verify, json| {
            let daemon = Daemon::start(Fake { verify, ..Fake::default() });
            let args = Args {
                share: Some(ShareName::new("recordings").unwrap()),
                peer: None,
                timeout: Duration::from_secs(60),
                json,
            };
            let exit = run(&daemon.control(), args);
            assert_eq!(
                daemon.service.asked(),
                ["Verify { share: Some(recordings), peer: None, timeout: 60s }"]
            );
            exit
        };
        assert_eq!(ask(Ok(differing()), true).unwrap(), Exit::No);
        let error = CommandError::Refused("fs2 is not connected".into());
        assert_eq!(ask(Err(error), false).unwrap_err().to_string(), "fs2 is not connected");
    }
}
