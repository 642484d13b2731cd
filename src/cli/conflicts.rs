//! `recsync conflicts`: the versions that lost a name, and what becomes of them.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use recsync_proto::ShareName;

use super::named::in_share;
use super::show::{Style, bytes, count, plain, things};
use super::{Exit, out};
use crate::serve::Client;
use crate::serve::api::{
    ConflictCopy, ConflictPage, ConflictRequest, ConflictRole, ConflictSide, ConflictView,
    ConflictsRequest, Keep, ResolveRequest, Resolved,
};

/// Paths that are named after a command; more are counted.
const NAMED_MAX: usize = 20;
/// Time for resolving a great many.
const LONG: Duration = Duration::from_secs(3_600);

/// Lists conflict copies, shows how they differ, and resolves them
///
/// Two nodes that write one path at the same time make a conflict: the later version keeps the name,
/// the other one stays beside it as stem.conflict-NODE-TIME-VERSION.ext, on every node, until somebody
/// decides. Without a command: list.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Resolve(ResolveArgs),
}

/// Lists conflict copies
#[derive(Debug, Default, clap::Args)]
struct List {
    /// Only of this file, or below this directory
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
    /// Only in this share
    #[arg(long, value_name = "SHARE", value_parser = |name: &str| ShareName::new(name))]
    share: Option<ShareName>,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
}

/// Shows all versions of a path: size, time, node, and whether the content is the same
#[derive(Debug, clap::Args)]
struct Show {
    /// The file, or a copy of it
    #[arg(value_name = "PATH")]
    path: OsString,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
}

/// Resolves a conflict: what is not kept goes to the trash
///
/// It is an ordinary change of this node and goes to the peers. Exit code 1 if a copy is as it was, with
/// the reason.
#[derive(Debug, clap::Args)]
struct ResolveArgs {
    /// A copy; or a file, for all of its copies; or a directory, for all below it
    #[arg(value_name = "PATH")]
    path: OsString,
    /// winner: what has the name, the copies go; copy: the copy gets the name, what has it goes;
    /// both: the copies stay, under ordinary names
    #[arg(long, value_name = "WHAT", value_enum)]
    keep: What,
    /// Its share, if the path does not say
    #[arg(long, value_name = "SHARE", value_parser = |name: &str| ShareName::new(name))]
    share: Option<ShareName>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    Winner,
    Copy,
    Both,
}

/// Asks and tells.
///
/// # Errors
/// If there is no daemon, the path lies in no share, or has no conflict copy.
pub(super) fn run(control: &Path, args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(control);
    match args.command.unwrap_or(Command::List(List::default())) {
        Command::List(args) => list(&client, args),
        Command::Show(args) => show(&client, &args),
        Command::Resolve(args) => resolve(&client.with_timeout(LONG), args),
    }
}

fn list(client: &Client, args: List) -> anyhow::Result<Exit> {
    let List { path, share, json } = args;
    let mut request = ConflictsRequest {
        share: share.map(|share| share.to_string()),
        path: path.as_deref().map(in_share),
        after: None,
    };
    let (mut all, mut copies) = (Vec::new(), 0);
    loop {
        let page: ConflictPage = client.post("/api/v1/conflicts/list", &request)?;
        copies += page.copies.len() as u64;
        if json {
            all.extend(page.copies);
        } else if !page.copies.is_empty() {
            out::text(table(&page.copies, Style::of_stdout()))?;
        }
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    if json {
        out::json(&serde_json::json!({ "copies": all }))?;
    } else {
        out::text(match copies {
            0 => "there are no conflict copies".to_owned(),
            1 => {
                "\n1 conflict copy; `recsync conflicts show PATH` compares the versions".to_owned()
            }
            _ => format!(
                "\n{} conflict copies; `recsync conflicts show PATH` compares the versions",
                count(copies)
            ),
        })?;
    }
    Ok(Exit::Well)
}

fn table(copies: &[ConflictCopy], style: Style) -> String {
    let row = |copy: &ConflictCopy| {
        let time = second(&copy.mtime.to_string());
        [
            plain(time),
            plain(bytes(copy.size)),
            plain(&copy.node),
            plain(&copy.share),
            plain(&copy.path),
            plain(copy.copy.rsplit('/').next().unwrap_or(&copy.copy)),
        ]
    };
    let rows: Vec<_> = copies.iter().map(row).collect();
    style.table(["WRITTEN (UTC)", "SIZE", "BY", "SHARE", "PATH", "COPY"], &rows)
}

/// Returns a time to the second.
fn second(rfc3339: &str) -> String {
    rfc3339.split('.').next().unwrap_or(rfc3339).replace('T', " ")
}

fn show(client: &Client, args: &Show) -> anyhow::Result<Exit> {
    let request = ConflictRequest { path: in_share(&args.path) };
    let view: ConflictView = client.post("/api/v1/conflicts/show", &request)?;
    if args.json {
        out::json(&serde_json::to_value(&view)?)?;
    } else {
        out::text(view_text(&view, Style::of_stdout()))?;
    }
    Ok(Exit::Well)
}

fn view_text(view: &ConflictView, style: Style) -> String {
    let row = |side: &ConflictSide| {
        let (role, content) = match (side.role, side.same) {
            (ConflictRole::Winner, _) => ("winner", "\u{2013}"),
            (ConflictRole::Copy, Some(true)) => ("copy", "the same"),
            (ConflictRole::Copy, Some(false)) => ("copy", "another"),
            (ConflictRole::Copy, None) => ("copy", "the only one"),
        };
        let hash = side.hash.as_deref().unwrap_or("").get(..16).unwrap_or("");
        [
            plain(role),
            plain(second(&side.mtime.to_string())),
            plain(format!("{} B", count(side.size))),
            plain(side.node.as_deref().unwrap_or("?")),
            plain(content),
            plain(hash),
            plain(&side.path),
        ]
    };
    let rows: Vec<_> = view.sides.iter().map(row).collect();
    let header = ["VERSION", "WRITTEN (UTC)", "SIZE", "BY", "CONTENT", "HASH", "PATH"];
    let table = style.table(header, &rows);
    let gone = match view.sides.iter().any(|side| side.role == ConflictRole::Winner) {
        true => "",
        false => "; nothing has the name now",
    };
    format!(
        "{}: {}{gone}\n\n{table}\n`recsync conflicts resolve PATH --keep winner|copy|both`; what is not kept \
         goes to the trash",
        view.share, view.path
    )
}

fn resolve(client: &Client, args: ResolveArgs) -> anyhow::Result<Exit> {
    let request = ResolveRequest {
        share: args.share.map(|share| share.to_string()),
        path: in_share(&args.path),
        keep: match args.keep {
            What::Winner => Keep::Winner,
            What::Copy => Keep::Copy,
            What::Both => Keep::Both,
        },
    };
    let resolved: Resolved = client.post("/api/v1/conflicts/resolve", &request)?;
    out::text(resolved_text(&resolved))?;
    Ok(if resolved.failed.is_empty() { Exit::Well } else { Exit::No })
}

fn resolved_text(resolved: &Resolved) -> String {
    let mut lines = Vec::new();
    let mut part = |all: Vec<String>| {
        let more = all.len().saturating_sub(NAMED_MAX);
        lines.extend(all.into_iter().take(NAMED_MAX));
        if more > 0 {
            lines.push(format!("and {} more", things(more as u64, "file")));
        }
    };
    part(resolved.kept.iter().map(|path| format!("{path}: the copy has the name now")).collect());
    part(resolved.trashed.iter().map(|path| format!("to the trash: {path}")).collect());
    part(resolved.renamed.iter().map(|one| format!("{} is now {}", one.from, one.to)).collect());
    part(
        resolved.failed.iter().map(|one| format!("as it was: {}: {}", one.path, one.why)).collect(),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::serve::api::{NotResolved, Renamed};
    use crate::serve::testing::{Daemon, Fake, time};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    const COPY: &str = "2026/a.conflict-fs2-20261122T090000Z-b34ceaa8.wav";

    fn page() -> ConflictPage {
        let copy = ConflictCopy {
            share: "recordings".into(),
            path: "2026/a.wav".into(),
            copy: COPY.into(),
            node: "fs2".into(),
            size: 1_400_000,
            mtime: time(0),
            hash: Some("12".repeat(32)),
        };
        ConflictPage { copies: vec![copy], next: None }
    }

    fn view() -> ConflictView {
        let side = |role, path: &str, node: Option<&str>, same| ConflictSide {
            role,
            path: path.into(),
            node: node.map(str::to_owned),
            size: 1_400_000,
            mtime: time(0),
            hash: Some("12".repeat(32)),
            same,
        };
        ConflictView {
            share: "recordings".into(),
            path: "2026/a.wav".into(),
            sides: vec![
                side(ConflictRole::Winner, "2026/a.wav", None, None),
                side(ConflictRole::Copy, COPY, Some("fs2"), Some(false)),
            ],
        }
    }

    #[test]
    fn help() {
        insta::assert_snapshot!(crate::cli::show::help::<List>("list"), @"
        Lists conflict copies

        Usage: list [OPTIONS] [PATH]

        Arguments:
          [PATH]
                  Only of this file, or below this directory

        Options:
              --share <SHARE>
                  Only in this share

              --json
                  Prints one JSON document

          -h, --help
                  Print help
        ");
        insta::assert_snapshot!(crate::cli::show::help::<Show>("show"), @"
        Shows all versions of a path: size, time, node, and whether the content is the same

        Usage: show [OPTIONS] <PATH>

        Arguments:
          <PATH>
                  The file, or a copy of it

        Options:
              --json
                  Prints one JSON document

          -h, --help
                  Print help
        ");
        insta::assert_snapshot!(crate::cli::show::help::<ResolveArgs>("resolve"), @"
        Resolves a conflict: what is not kept goes to the trash

        It is an ordinary change of this node and goes to the peers. Exit code 1 if a copy is as it was,
        with the reason.

        Usage: resolve [OPTIONS] --keep <WHAT> <PATH>

        Arguments:
          <PATH>
                  A copy; or a file, for all of its copies; or a directory, for all below it

        Options:
              --keep <WHAT>
                  winner: what has the name, the copies go; copy: the copy gets the name, what has it goes;
                  both: the copies stay, under ordinary names

                  [possible values: winner, copy, both]

              --share <SHARE>
                  Its share, if the path does not say

          -h, --help
                  Print help (see a summary with '-h')
        ");
    }

    #[test]
    fn what_a_person_sees() {
        let plain = Style { colours: false };
        insta::assert_snapshot!(table(&page().copies, plain), @"
        WRITTEN (UTC)        SIZE    BY   SHARE       PATH        COPY
        2026-11-22 09:00:00  1.4 MB  fs2  recordings  2026/a.wav  a.conflict-fs2-20261122T090000Z-b34ceaa8.wav
        ");
        insta::assert_snapshot!(view_text(&view(), plain), @"
        recordings: 2026/a.wav

        VERSION  WRITTEN (UTC)        SIZE         BY   CONTENT  HASH              PATH
        winner   2026-11-22 09:00:00  1,400,000 B  ?    –        1212121212121212  2026/a.wav
        copy     2026-11-22 09:00:00  1,400,000 B  fs2  another  1212121212121212  2026/a.conflict-fs2-20261122T090000Z-b34ceaa8.wav

        `recsync conflicts resolve PATH --keep winner|copy|both`; what is not kept goes to the trash
        ");
        let resolved = Resolved {
            kept: vec!["a.wav".into()],
            trashed: vec![COPY.into(); 22],
            renamed: vec![Renamed { from: COPY.into(), to: "2026/a-fs2.wav".into() }],
            failed: vec![NotResolved { path: "b".into(), why: "somebody writes to it".into() }],
        };
        let text = resolved_text(&resolved);
        let few: Vec<_> = text.lines().filter(|line| !line.starts_with("to the trash")).collect();
        insta::assert_snapshot!(few.join("\n"), @"
        a.wav: the copy has the name now
        and 2 files more
        2026/a.conflict-fs2-20261122T090000Z-b34ceaa8.wav is now 2026/a-fs2.wav
        as it was: b: somebody writes to it
        ");
    }

    #[test]
    fn asks() {
        let fake = Fake { conflicts: page(), conflict: view(), ..Fake::default() };
        let daemon = Daemon::start(fake);
        for line in ["", "list --json", "show /s/a --json", "show /s/a", "resolve /s/a --keep both"]
        {
            let words = std::iter::once("conflicts").chain(line.split_whitespace());
            let args = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args;
            assert_eq!(run(&daemon.control(), args).unwrap(), Exit::Well, "{line}");
        }
        let from = std::env::current_dir().unwrap().display().to_string();
        insta::assert_snapshot!(daemon.service.asked().join("\n").replace(&from, "HERE"), @r#"
        ConflictQuery { share: None, path: None, after: None, limit: 1000 }
        ConflictQuery { share: None, path: None, after: None, limit: 1000 }
        show Named { path: "/s/a", from: Some("HERE") }
        show Named { path: "/s/a", from: Some("HERE") }
        Resolve { share: None, path: Named { path: "/s/a", from: Some("HERE") }, keep: Both }
        "#);
    }
}
