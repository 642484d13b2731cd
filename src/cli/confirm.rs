//! `recsync confirm`: what a guard holds back, and what becomes of it.

use std::path::Path;

use super::show::{Style, plain, seconds};
use super::{Exit, out};
use crate::serve::Client;
use crate::serve::api::{DecideRequest, Decided, Held, Status};

/// Lists what a guard holds back (mass delete, replaced disk), lets it go or undoes it
///
/// Without arguments it lists what waits, each with its id. `confirm ID` lets it go; `confirm
/// --reject ID` undoes it: files whose deletes are rejected come back.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to let go
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// What to undo instead
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    reject: Option<String>,
}

/// Asks and tells.
///
/// # Errors
/// If there is no daemon, or nothing waits under this id.
pub(super) fn run(control: &Path, args: Args) -> anyhow::Result<Exit> {
    let client = Client::new(control);
    let request = match (args.id, args.reject) {
        (Some(id), _) => DecideRequest { id, reject: false },
        (None, Some(id)) => DecideRequest { id, reject: true },
        (None, None) => {
            out::text(list(&client.get("/api/v1/status")?, Style::of_stdout()))?;
            return Ok(Exit::Well);
        }
    };
    let Decided { message } = client.post("/api/v1/confirm", &request)?;
    out::text(message)?;
    Ok(Exit::Well)
}

fn list(status: &Status, style: Style) -> String {
    if status.held.is_empty() {
        return "nothing is held back".to_owned();
    }
    let row = |held: &Held| {
        let age = seconds(status.time.since(held.since).as_secs_f64());
        [&held.id, &held.share, &age, &held.message].map(plain)
    };
    let rows: Vec<_> = status.held.iter().map(row).collect();
    let table = style.table(["ID", "SHARE", "FOR", "WHAT"], &rows);
    format!("{table}\n`recsync confirm ID` lets it go, `recsync confirm --reject ID` undoes it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::testing::{Daemon, Fake, status};

    #[test]
    fn help() {
        insta::assert_snapshot!(crate::cli::show::help::<Args>("confirm"), @r#"
        Lists what a guard holds back (mass delete, replaced disk), lets it go or undoes it

        Without arguments it lists what waits, each with its id. `confirm ID` lets it go; `confirm --reject
        ID` undoes it: files whose deletes are rejected come back.

        Usage: confirm [OPTIONS] [ID]

        Arguments:
          [ID]
                  What to let go

        Options:
              --reject <ID>
                  What to undo instead

          -h, --help
                  Print help (see a summary with '-h')
        "#);
    }

    #[test]
    fn lists_what_waits() {
        let mut status = status();
        insta::assert_snapshot!(list(&status, Style { colours: false }), @r#"
        ID  SHARE       FOR         WHAT
        1   recordings  10 min 0 s  60 of 100 files vanished here within 10 minutes

        `recsync confirm ID` lets it go, `recsync confirm --reject ID` undoes it
        "#);
        status.held.clear();
        assert_eq!(list(&status, Style { colours: false }), "nothing is held back");
    }

    #[test]
    fn decides() {
        let daemon = Daemon::start(Fake::default());
        let decide = |id: Option<&str>, reject: Option<&str>| {
            let args = Args { id: id.map(str::to_owned), reject: reject.map(str::to_owned) };
            assert_eq!(run(&daemon.control(), args).unwrap(), Exit::Well);
        };
        decide(None, None);
        decide(Some("1"), None);
        decide(None, Some("2"));
        assert_eq!(daemon.service.asked(), ["Confirm 1", "Reject 2"]);
    }
}
