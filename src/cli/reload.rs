//! `recsync reload`: the config read again.

use std::io::{self, Write as _};
use std::path::Path;

use super::{Exit, out};
use crate::serve::api::Reloaded;
use crate::serve::{Client, ClientError};

/// Has the daemon read its config again, and prints what changed
///
/// The same as SIGHUP. A config with a mistake is refused as a whole and the old one stays: exit
/// code 1.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Asks and tells.
///
/// # Errors
/// If there is no daemon, or it could not read its config.
pub(super) fn run(control: &Path, _args: Args) -> anyhow::Result<Exit> {
    match Client::new(control).post::<Reloaded>("/api/v1/reload", &()) {
        Ok(reloaded) => {
            out::text(text(&reloaded))?;
            Ok(Exit::Well)
        }
        Err(ClientError::Refused { status: 400, message }) => {
            writeln!(io::stderr(), "recsync: {message}")?;
            Ok(Exit::No)
        }
        Err(error) => Err(error.into()),
    }
}

fn text(reloaded: &Reloaded) -> String {
    let later = reloaded.at_next_start.iter().map(|change| format!("at the next start: {change}"));
    let lines: Vec<_> = reloaded.changes.iter().cloned().chain(later).collect();
    if lines.is_empty() { "nothing changed".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::CommandError;
    use crate::serve::testing::{Daemon, Fake};

    #[test]
    fn help() {
        insta::assert_snapshot!(crate::cli::show::help::<Args>("reload"), @r#"
        Has the daemon read its config again, and prints what changed

        The same as SIGHUP. A config with a mistake is refused as a whole and the old one stays: exit code
        1.

        Usage: reload

        Options:
          -h, --help
                  Print help (see a summary with '-h')
        "#);
    }

    #[test]
    fn says_what_changed_and_when() {
        let mut reloaded = Reloaded { changes: vec![], at_next_start: vec![] };
        assert_eq!(text(&reloaded), "nothing changed");
        reloaded.changes.push("peer fs3 added".into());
        reloaded.at_next_start.push("[node] listen".into());
        assert_eq!(text(&reloaded), "peer fs3 added\nat the next start: [node] listen");
    }

    #[test]
    fn an_invalid_config_is_a_no() {
        for (reload, exit) in [
            (Ok(Reloaded { changes: vec![], at_next_start: vec![] }), Some(Exit::Well)),
            (Err(CommandError::Invalid("line 3: no such key".into())), Some(Exit::No)),
            (Err(CommandError::Failed("cannot read it".into())), None),
        ] {
            let daemon = Daemon::start(Fake { reload, ..Fake::default() });
            assert_eq!(run(&daemon.control(), Args {}).ok(), exit);
        }
    }
}
