//! `recsync status`: how everything is, on one screen.

use std::path::Path;
use std::time::Duration;

use super::show::{Cell, Paint, Style, bytes, count, doubtful, plain, seconds, things};
use super::{Exit, out};
use crate::serve::Client;
use crate::serve::api::{Health, PeerShare, PeerStatus, ShareState, ShareStatus, Status};

/// Recent errors that are shown to a person; all are in `--json`.
const ERRORS_SHOWN: usize = 8;

/// Time between two looks with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// A clock that is off by more than this is worth a look: it may decide which of two versions wins.
const SKEW_DOUBTFUL_SECONDS: f64 = 1.0;

/// Lag that is worth a look: the aim is a fraction of a second.
const LAG_DOUBTFUL_SECONDS: f64 = 5.0;

/// Shows peers, shares, lag, queues, throughput, recent errors and conflicts
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prints one JSON document, the same as GET /api/v1/status
    #[arg(long)]
    json: bool,
    /// Shows it again every second, with throughput, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// Asks and tells.
///
/// # Errors
/// If there is no daemon.
pub(super) fn run(control: &Path, args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(control);
    let status: Status = client.get("/api/v1/status")?;
    if args.json {
        out::json(&serde_json::to_value(&status)?)?;
    } else if args.watch {
        watch(&client, status)?;
    } else {
        out::text(text(&status, None, Style::of_stdout()))?;
    }
    Ok(Exit::Well)
}

/// Shows the status again and again; ends with Ctrl-C, or when stdout is closed.
fn watch(client: &Client, mut last: Status) -> anyhow::Result<()> {
    let style = Style::of_stdout();
    // Home, and clear to the end of the screen.
    let clear = if style.colours { "\x1b[H\x1b[J" } else { "" };
    out::text(format!("{clear}{}", text(&last, None, style)))?;
    loop {
        std::thread::sleep(WATCH_INTERVAL);
        match client.get::<Status>("/api/v1/status") {
            Ok(status) => {
                out::text(format!("{clear}{}", text(&status, Some(&last), style)))?;
                last = status;
            }
            // It may be restarting: who watches wants to see it come back.
            Err(error) => out::text(format!("{clear}{error}"))?,
        }
    }
}

/// Returns the screen; with an earlier status, throughput since then is shown too.
fn text(status: &Status, earlier: Option<&Status>, style: Style) -> String {
    let sections = [
        head(status, style),
        shares(status, style),
        peers(status, earlier, style),
        held(status, style),
        notes(status, style),
        errors(status, style),
    ];
    let sections: Vec<_> = sections.into_iter().filter(|section| !section.is_empty()).collect();
    sections.join("\n")
}

fn head(status: &Status, style: Style) -> String {
    let Status { node, version, fingerprint, .. } = status;
    let health = match &status.health {
        Health { healthy: true, .. } => style.paint(Paint::Good, "healthy"),
        Health { reasons, .. } => {
            style.paint(Paint::Bad, &format!("UNHEALTHY: {}", reasons.join("; ")))
        }
    };
    let node = style.paint(Paint::Bold, node);
    let up = seconds(status.uptime_seconds);
    format!("{node}, recsync {version}, up {up}, {health}\n{fingerprint}\n")
}

fn shares(status: &Status, style: Style) -> String {
    if status.shares.is_empty() {
        return "no shares: add one with `recsync share add NAME=PATH`\n".to_owned();
    }
    let row = |share: &ShareStatus| {
        [
            plain(&share.name),
            state(share),
            plain(count(share.files)),
            plain(bytes(share.bytes)),
            plain(count(share.pending_files)),
            doubtful(share.quarantined_files),
            doubtful(share.conflict_copies),
            doubtful(share.unwatched_dirs),
        ]
    };
    let rows: Vec<_> = status.shares.iter().map(row).collect();
    let header =
        ["SHARE", "STATE", "FILES", "SIZE", "TO INSTALL", "FAILING", "CONFLICTS", "UNWATCHED DIRS"];
    style.table(header, &rows)
}

fn state(share: &ShareStatus) -> Cell {
    match share.state {
        ShareState::Watching => (Paint::Good, "watching".to_owned()),
        ShareState::Scanning => (Paint::Doubtful, "scanning".to_owned()),
        ShareState::Paused => {
            let reasons: Vec<_> = share.paused.iter().map(|pause| pause.reason.as_str()).collect();
            (Paint::Bad, format!("PAUSED {}", reasons.join(", ")).trim_end().to_owned())
        }
    }
}

fn peers(status: &Status, earlier: Option<&Status>, style: Style) -> String {
    if status.peers.is_empty() {
        return "no peers: add one with `recsync peer add`\n".to_owned();
    }
    let mut rows = Vec::new();
    for peer in &status.peers {
        let before = earlier.and_then(|earlier| {
            let peer = earlier.peers.iter().find(|before| before.name == peer.name)?;
            Some((peer, status.time.since(earlier.time)))
        });
        let moved = |total: fn(&PeerStatus) -> u64| match before {
            Some((before, span)) if !span.is_zero() => {
                let new = total(peer).saturating_sub(total(before));
                let rate = bytes((new as f64 / span.as_secs_f64()).round() as u64);
                format!("{} ({rate}/s)", bytes(total(peer)))
            }
            _ => bytes(total(peer)),
        };
        let sent = moved(|peer| peer.sent_bytes);
        let received = moved(|peer| peer.received_bytes);
        let own = [plain(&peer.name), link(status, peer)];
        let totals = [plain(sent), plain(received), skew(peer)];
        let blank = || (own.clone().map(|_| plain("")), totals.clone().map(|_| plain("")));
        let none = [plain("no share"), plain(""), plain(""), plain("")];
        let between = peer.shares.iter().map(between).chain(peer.shares.is_empty().then_some(none));
        for (line, [share, lag, to_send, its_lag]) in between.enumerate() {
            // The peer's own columns stand on its first line only.
            let ([name, link], [sent, received, skew]) =
                if line == 0 { (own.clone(), totals.clone()) } else { blank() };
            rows.push([name, link, share, lag, to_send, its_lag, sent, received, skew]);
        }
    }
    let header =
        ["PEER", "LINK", "SHARE", "LAG", "TO SEND", "ITS LAG", "SENT", "RECEIVED", "CLOCK"];
    let mut text = style.table(header, &rows);
    for peer in status.peers.iter().filter(|peer| !peer.connected) {
        if let Some(error) = &peer.error {
            let PeerStatus { name, address, .. } = peer;
            let line = format!("  {name} at {address}: {error}");
            text.push_str(&style.paint(Paint::Bad, &line));
            text.push('\n');
        }
    }
    text
}

fn link(status: &Status, peer: &PeerStatus) -> Cell {
    match peer.last_seen {
        _ if peer.connected => (Paint::Good, "connected".to_owned()),
        Some(last_seen) => {
            let ago = seconds(status.time.since(last_seen).as_secs_f64());
            (Paint::Bad, format!("DOWN, seen {ago} ago"))
        }
        None => (Paint::Bad, "DOWN, never seen".to_owned()),
    }
}

fn between(share: &PeerShare) -> [Cell; 4] {
    let lag = |lag: f64| {
        let late = lag > LAG_DOUBTFUL_SECONDS;
        (if late { Paint::Doubtful } else { Paint::Plain }, seconds(lag))
    };
    let to_send = match share.pending_files {
        0 => "nothing".to_owned(),
        files => format!("{}, {}", things(files, "file"), bytes(share.pending_bytes)),
    };
    [
        plain(&share.share),
        lag(share.lag_seconds),
        plain(to_send),
        share.peer_lag_seconds.map_or_else(|| plain("?"), lag),
    ]
}

fn skew(peer: &PeerStatus) -> Cell {
    match peer.clock_skew_seconds {
        Some(skew) => {
            let sign = if skew < 0.0 { "-" } else { "+" };
            let off = skew.abs() > SKEW_DOUBTFUL_SECONDS;
            let paint = if off { Paint::Doubtful } else { Paint::Plain };
            (paint, format!("{sign}{}", seconds(skew.abs())))
        }
        None => plain("?"),
    }
}

fn held(status: &Status, style: Style) -> String {
    let line = |held: &crate::serve::api::Held| {
        let age = seconds(status.time.since(held.since).as_secs_f64());
        format!("  {}: {}, for {age}: {}\n", held.id, held.share, held.message)
    };
    section(
        &style
            .paint(Paint::Bad, "Waiting for `recsync confirm ID` or `recsync confirm --reject ID`"),
        status.held.iter().map(line),
    )
}

fn notes(status: &Status, style: Style) -> String {
    let mut lines = Vec::new();
    for share in &status.shares {
        let mut note = |text: &str| lines.push(format!("  {}: {text}\n", share.name));
        for pause in &share.paused {
            note(&pause.why);
        }
        if let Some(first) = share.skipped.first.first() {
            let number = share.skipped.count as u64;
            let more = if number > 1 { ", ..." } else { "" };
            let objects = things(number, "object");
            note(&format!("{objects} never synced: {} ({}){more}", first.path, first.why));
        }
        for text in &share.notes {
            note(text);
        }
    }
    section(&style.paint(Paint::Bold, "To know"), lines)
}

fn errors(status: &Status, style: Style) -> String {
    let lines = status.errors.iter().take(ERRORS_SHOWN).map(|error| {
        let ago = seconds(status.time.since(error.time).as_secs_f64());
        let places = [&error.share, &error.peer, &error.path];
        let place: String = places.into_iter().flatten().map(|one| format!(" {one}")).collect();
        let comma = if place.is_empty() { "" } else { "," };
        let times = match error.count {
            1 => String::new(),
            count => format!(" ({count} times)"),
        };
        format!("  {ago} ago{comma}{place}: {}{times}\n", error.message)
    });
    let more = status.errors.len().saturating_sub(ERRORS_SHOWN);
    let more = (more > 0).then(|| format!("  and {more} more: `--json` has all\n"));
    section(&style.paint(Paint::Bold, "Recent errors"), lines.chain(more))
}

fn section(title: &str, lines: impl IntoIterator<Item = String>) -> String {
    let lines: String = lines.into_iter().collect();
    if lines.is_empty() { lines } else { format!("{title}\n{lines}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::testing::{Daemon, Fake, status, time};

    const PLAIN: Style = Style { colours: false };

    #[test]
    fn help() {
        insta::assert_snapshot!(crate::cli::show::help::<Args>("status"), @r#"
        Shows peers, shares, lag, queues, throughput, recent errors and conflicts

        Usage: status [OPTIONS]

        Options:
              --json
                  Prints one JSON document, the same as GET /api/v1/status

              --watch
                  Shows it again every second, with throughput, until Ctrl-C

          -h, --help
                  Print help
        "#);
    }

    #[test]
    fn one_screen() {
        insta::assert_snapshot!(text(&status(), None, PLAIN), @r#"
        fs1, recsync 1.2.3, up 3 d 3 h, healthy
        sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

        SHARE       STATE             FILES      SIZE      TO INSTALL  FAILING  CONFLICTS  UNWATCHED DIRS
        recordings  watching          1,203,451  918.3 GB  3           1        2          0
        prompts     PAUSED no_marker  240        81.0 MB   0           0        0          4

        PEER  LINK              SHARE       LAG        TO SEND                 ITS LAG  SENT     RECEIVED  CLOCK
        fs2   connected         recordings  120 ms     2 files, 1.4 MB         0 s      52.0 GB  48.5 MB   +3 ms
                                prompts     0 s        nothing                 0 s
        fs3   DOWN, never seen  recordings  2 h 5 min  120,345 files, 91.8 GB  ?        0 B      0 B       ?
          fs3 at 192.168.1.110:8730: connection refused; trying again in 8 s

        Waiting for `recsync confirm ID` or `recsync confirm --reject ID`
          1: recordings, for 10 min 0 s: 60 of 100 files vanished here within 10 minutes

        To know
          recordings: 12 objects never synced: run/fs.sock (a socket), ...
          recordings: owners are not set here: the daemon is not root
          prompts: /storage/prompts has no marker .recsync/share.toml: is the disk mounted?

        Recent errors
          30.0 s ago, recordings 2026/11/22/a.wav: permission denied; trying again in 30s (3 times)
        "#);
    }

    #[test]
    fn a_new_node() {
        let mut status = status();
        status.shares.clear();
        status.peers.clear();
        status.held.clear();
        status.errors.clear();
        status.health.healthy = false;
        status.health.reasons = vec!["the index cannot be written".into()];
        insta::assert_snapshot!(text(&status, None, PLAIN), @r#"
        fs1, recsync 1.2.3, up 3 d 3 h, UNHEALTHY: the index cannot be written
        sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

        no shares: add one with `recsync share add NAME=PATH`

        no peers: add one with `recsync peer add`
        "#);
    }

    #[test]
    fn throughput_between_two_looks() {
        let earlier = status();
        let mut now = status();
        now.time = time(2);
        now.peers[0].sent_bytes += 26_000_000;
        let text = text(&now, Some(&earlier), PLAIN);
        assert!(text.contains("52.0 GB (13.0 MB/s)  48.5 MB (0 B/s)"), "{text}");
    }

    #[test]
    fn colours_only_where_asked_for() {
        assert!(!text(&status(), None, PLAIN).contains('\x1b'));
        let painted = text(&status(), None, Style { colours: true });
        assert!(painted.contains("\x1b[31mPAUSED no_marker\x1b[0m"), "{painted}");
    }

    #[test]
    fn asks_the_daemon() {
        let daemon = Daemon::start(Fake::default());
        for json in [false, true] {
            let exit = run(&daemon.control(), Args { json, watch: false }).unwrap();
            assert_eq!(exit, Exit::Well);
        }
        let control = daemon.control();
        drop(daemon);
        let error = run(&control, Args { json: true, watch: false }).unwrap_err().to_string();
        assert!(error.contains("systemctl start recsync"), "{error}");
    }
}
