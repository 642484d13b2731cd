//! `recsync trash`: what peers' deletes and overwrites removed here, put back or erased.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use recsync_proto::ShareName;

use super::named::in_share;
use super::show::{Paint, Style, bytes, count, plain, things};
use super::{Exit, out};
use crate::serve::Client;
use crate::serve::api::{
    PurgeRequest, Purged, RestoreRequest, Restored, TrashEntry, TrashKind, TrashPage, TrashRequest,
    TrashWhy,
};

/// Paths that are named after a command; more are counted.
const NAMED_MAX: usize = 20;
/// Time for putting back or erasing a million files.
const LONG: Duration = Duration::from_secs(3_600);

/// Lists, puts back or erases what peers' deletes and overwrites removed here
///
/// Each node has a trash of its own, in .recsync/trash of the share: what a delete or an overwrite
/// that was made on another node removed on this one. It is kept for `trash` of the config (7 days)
/// and never synced.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(List),
    Restore(RestoreArgs),
    Purge(PurgeArgs),
}

/// Lists what is in the trash of this node, the newest first
#[derive(Debug, clap::Args)]
struct List {
    /// Only what was this, or lay below it
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// Only of this share
    #[arg(long, value_name = "SHARE", value_parser = |name: &str| ShareName::new(name))]
    share: Option<ShareName>,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
}

/// Puts a file back, or all that lay below a directory
///
/// It becomes an ordinary change of this node and goes to the peers. Of several that had one path the
/// one removed last is taken. Nothing that is there is overwritten: exit code 1 if something stays
/// in the trash because of that.
#[derive(Debug, clap::Args)]
struct RestoreArgs {
    /// The path that it had: from /, from here, or from the top of the share
    #[arg(value_name = "PATH")]
    path: OsString,
    /// Which of several, as `trash list` shows it
    #[arg(long, value_name = "ID")]
    at: Option<String>,
    /// Another path for it, or a directory to put it in
    #[arg(long, value_name = "PATH")]
    to: Option<OsString>,
    /// Its share, if the path does not say
    #[arg(long, value_name = "SHARE", value_parser = |name: &str| ShareName::new(name))]
    share: Option<ShareName>,
}

/// Erases for good: a path's versions, what is older than an age, or everything
///
/// Only what is in the trash of this node; run it on every node for data that must be erased. The
/// files are removed as `rm` does it; their blocks on the disk are not overwritten.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
struct PurgeArgs {
    /// The file or directory that it was
    #[arg(value_name = "PATH", group = "what")]
    path: Option<OsString>,
    /// Everything
    #[arg(long, group = "what", conflicts_with_all = ["path", "older_than"])]
    all: bool,
    /// What has been in the trash for so long, for example 30d
    #[arg(long, value_name = "DURATION", group = "what", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Which of several, as `trash list` shows it
    #[arg(long, value_name = "ID", requires = "path")]
    at: Option<String>,
    /// Only of this share
    #[arg(long, value_name = "SHARE", value_parser = |name: &str| ShareName::new(name))]
    share: Option<ShareName>,
}

/// Asks and tells.
///
/// # Errors
/// If there is no daemon, the path lies in no share, or nothing of it is in the trash.
pub(super) fn run(control: &Path, args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(control);
    match args.command {
        Command::List(args) => list(&client, args),
        Command::Restore(args) => restore(&client.with_timeout(LONG), args),
        Command::Purge(args) => purge(&client.with_timeout(LONG), args),
    }
}

fn list(client: &Client, args: List) -> anyhow::Result<Exit> {
    let List { path, share, json } = args;
    let mut request = TrashRequest {
        share: share.map(|share| share.to_string()),
        path: path.as_deref().map(in_share),
        after: None,
    };
    let style = Style::of_stdout();
    let mut all = Vec::new();
    let (mut files, mut size) = (0, 0);
    loop {
        let page: TrashPage = client.post("/api/v1/trash/list", &request)?;
        files += page.entries.len() as u64;
        size += page.entries.iter().map(|entry| entry.size).sum::<u64>();
        if json {
            all.extend(page.entries);
        } else if !page.entries.is_empty() {
            // A page at a time: a trash of a million files is no reason to wait, or to hold them.
            out::text(table(&page.entries, style))?;
        }
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    if json {
        let document = serde_json::json!({ "files": files, "bytes": size, "entries": all });
        out::json(&document)?;
    } else {
        out::text(match files {
            0 => "nothing is in the trash of this node".to_owned(),
            _ => format!(
                "\n{}, {}; `recsync trash restore PATH` puts one back",
                things(files, "file"),
                bytes(size)
            ),
        })?;
    }
    Ok(Exit::Well)
}

fn table(entries: &[TrashEntry], style: Style) -> String {
    let row = |entry: &TrashEntry| {
        let by = entry.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let why = match entry.why {
            TrashWhy::Deleted => format!("deleted{by}"),
            TrashWhy::Replaced => format!("replaced{by}"),
            TrashWhy::Resolved => "conflict resolved".to_owned(),
            TrashWhy::Found => "not known".to_owned(),
        };
        let size = match entry.kind {
            TrashKind::File => bytes(entry.size),
            TrashKind::Symlink => "link".to_owned(),
        };
        // To the second: the id tells apart what is of one second.
        let time = entry.time.to_string();
        let time = time.split('.').next().unwrap_or(&time).replace('T', " ");
        [
            (Paint::Plain, time),
            plain(size),
            plain(why),
            plain(&entry.id),
            plain(&entry.share),
            plain(&entry.path),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    style.table(["REMOVED (UTC)", "SIZE", "WHY", "ID", "SHARE", "PATH"], &rows)
}

fn restore(client: &Client, args: RestoreArgs) -> anyhow::Result<Exit> {
    let request = RestoreRequest {
        share: args.share.map(|share| share.to_string()),
        path: in_share(&args.path),
        at: args.at,
        to: args.to.as_deref().map(in_share),
    };
    let restored: Restored = client.post("/api/v1/trash/restore", &request)?;
    out::text(restored_text(&restored))?;
    Ok(if restored.failed_count == 0 { Exit::Well } else { Exit::No })
}

fn restored_text(restored: &Restored) -> String {
    let mut lines = Vec::new();
    lines.extend(restored.paths.iter().take(NAMED_MAX).map(|path| format!("back: {path}")));
    let shown = restored.paths.len().min(NAMED_MAX) as u64;
    if restored.count > shown {
        lines.push(format!("and {} more", count(restored.count - shown)));
    }
    let failed = restored.failed.iter().take(NAMED_MAX);
    lines.extend(failed.map(|failed| {
        format!("still in the trash: {} ({}): {}", failed.path, failed.id, failed.why)
    }));
    let shown = restored.failed.len().min(NAMED_MAX) as u64;
    if restored.failed_count > shown {
        lines.push(format!("and {} more", count(restored.failed_count - shown)));
    }
    if restored.failed_count > 0 {
        lines.push("`--to PATH` puts it under another name".to_owned());
    }
    lines.join("\n")
}

fn purge(client: &Client, args: PurgeArgs) -> anyhow::Result<Exit> {
    let of_path = args.path.is_some();
    let request = PurgeRequest {
        share: args.share.map(|share| share.to_string()),
        path: args.path.as_deref().map(in_share),
        at: args.at,
        older_than_seconds: args.older_than.map(|age| age.as_secs()),
        all: args.all,
    };
    let purged: Purged = client.post("/api/v1/trash/purge", &request)?;
    if !purged.failed.is_empty() {
        bail!("could not erase all of it: {}", purged.failed.join("; "));
    }
    out::text(match purged.count {
        0 => "nothing of it is in the trash of this node".to_owned(),
        files => format!("erased on this node: {}, {}", things(files, "file"), bytes(purged.bytes)),
    })?;
    // Who has data to erase wants to know that it was not here.
    Ok(if purged.count == 0 && of_path { Exit::No } else { Exit::Well })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::serve::api::{NotRestored, TrashCursor};
    use crate::serve::testing::{Daemon, Fake, time};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, String> {
        let words = std::iter::once("trash").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
    }

    fn entry(path: &str, size: u64, why: TrashWhy, by: Option<&str>) -> TrashEntry {
        TrashEntry {
            id: "189a5d7c1b2e3f40".into(),
            share: "recordings".into(),
            path: path.into(),
            kind: TrashKind::File,
            size,
            hash: None,
            time: time(0),
            why,
            by: by.map(str::to_owned),
            file: format!(".recsync/trash/2026-11-22/{path}~189a5d7c1b2e3f40"),
        }
    }

    #[test]
    fn help() {
        insta::assert_snapshot!(crate::cli::show::help::<List>("list"), @r"
        Lists what is in the trash of this node, the newest first

        Usage: list [OPTIONS] [PATH]

        Arguments:
          [PATH]
                  Only what was this, or lay below it

        Options:
              --share <SHARE>
                  Only of this share

              --json
                  Prints one JSON document

          -h, --help
                  Print help
        ");
        insta::assert_snapshot!(crate::cli::show::help::<RestoreArgs>("restore"), @r"
        Puts a file back, or all that lay below a directory

        It becomes an ordinary change of this node and goes to the peers. Of several that had one path the
        one removed last is taken. Nothing that is there is overwritten: exit code 1 if something stays in
        the trash because of that.

        Usage: restore [OPTIONS] <PATH>

        Arguments:
          <PATH>
                  The path that it had: from /, from here, or from the top of the share

        Options:
              --at <ID>
                  Which of several, as `trash list` shows it

              --to <PATH>
                  Another path for it, or a directory to put it in

              --share <SHARE>
                  Its share, if the path does not say

          -h, --help
                  Print help (see a summary with '-h')
        ");
        insta::assert_snapshot!(crate::cli::show::help::<PurgeArgs>("purge"), @r"
        Erases for good: a path's versions, what is older than an age, or everything

        Only what is in the trash of this node; run it on every node for data that must be erased. The files
        are removed as `rm` does it; their blocks on the disk are not overwritten.

        Usage: purge [OPTIONS] <PATH|--all|--older-than <DURATION>>

        Arguments:
          [PATH]
                  The file or directory that it was

        Options:
              --all
                  Everything

              --older-than <DURATION>
                  What has been in the trash for so long, for example 30d

              --at <ID>
                  Which of several, as `trash list` shows it

              --share <SHARE>
                  Only of this share

          -h, --help
                  Print help (see a summary with '-h')
        ");
    }

    #[test]
    fn a_list_is_a_table() {
        let entries = [
            entry("2026/11/22/a.wav", 1_400_000, TrashWhy::Deleted, Some("fs2")),
            entry("b", 0, TrashWhy::Found, None),
            TrashEntry { kind: TrashKind::Symlink, ..entry("c", 3, TrashWhy::Replaced, None) },
        ];
        insta::assert_snapshot!(table(&entries, Style { colours: false }), @r"
        REMOVED (UTC)        SIZE    WHY             ID                SHARE       PATH
        2026-11-22 09:00:00  1.4 MB  deleted by fs2  189a5d7c1b2e3f40  recordings  2026/11/22/a.wav
        2026-11-22 09:00:00  0 B     not known       189a5d7c1b2e3f40  recordings  b
        2026-11-22 09:00:00  link    replaced        189a5d7c1b2e3f40  recordings  c
        ");
    }

    #[test]
    fn what_came_back_and_what_did_not() {
        let mut restored =
            Restored { count: 1, paths: vec!["a.wav".into()], ..Restored::default() };
        insta::assert_snapshot!(restored_text(&restored), @"back: a.wav");
        restored.failed_count = 1;
        restored.failed.push(NotRestored {
            path: "b.wav".into(),
            id: "18".into(),
            why: "b.wav is there already, and nothing is overwritten".into(),
        });
        (restored.count, restored.paths) = (31, vec!["a".into(); 25]);
        insta::assert_snapshot!(restored_text(&restored), @r"
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        back: a
        and 11 more
        still in the trash: b.wav (18): b.wav is there already, and nothing is overwritten
        `--to PATH` puts it under another name
        ");
    }

    #[test]
    fn asks_page_by_page_and_for_one_thing() {
        let next = |id| Some(TrashCursor { share: "recordings".into(), since_ns: 0, id });
        let page = |next| TrashPage { entries: vec![entry("a", 1, TrashWhy::Deleted, None)], next };
        let fake = Fake { trash: vec![page(next(1)), page(None)], ..Fake::default() };
        let daemon = Daemon::start(fake);
        for line in ["list", "list --json --share prompts", "restore /s/a --at 1f --to b"] {
            assert_eq!(run(&daemon.control(), parse(line).unwrap()).unwrap(), Exit::Well, "{line}");
        }
        assert_eq!(run(&daemon.control(), parse("purge --all").unwrap()).unwrap(), Exit::Well);
        assert_eq!(run(&daemon.control(), parse("purge /s/a").unwrap()).unwrap(), Exit::No);
        let asked = daemon.service.asked().join("\n");
        let from = std::env::current_dir().unwrap().display().to_string();
        insta::assert_snapshot!(asked.replace(&from, "HERE"), @r#"
        trash None None 0
        trash None None 1
        trash Some(prompts) None 0
        trash Some(prompts) None 1
        Restore { share: None, path: Named { path: "/s/a", from: Some("HERE") }, at: Some(31), to: Some(Named { path: "b", from: Some("HERE") }) }
        Purge { share: None, path: None, at: None, older_than: None }
        Purge { share: None, path: Some(Named { path: "/s/a", from: Some("HERE") }), at: None, older_than: None }
        "#);
        let error = run(&daemon.control(), parse("restore a --at x").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "`x` is no id; `recsync trash list` shows them");
    }

    #[test]
    fn purging_nothing_in_particular_is_refused() {
        for line in ["purge", "purge --at 1", "purge a --all", "purge --all --older-than 1d"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("purge a --older-than 30d").is_ok());
    }
}
