//! `recsync rescan`: a full scan now.

use std::path::Path;

use recsync_proto::ShareName;

use super::{Exit, out};
use crate::serve::Client;
use crate::serve::api::{Rescan, RescanRequest};

/// Has the daemon scan a share, or all of them, from top to bottom now
///
/// Returns at once; `recsync status` shows when it is done. Changes are found by watching; a scan
/// is for what the watcher cannot see, such as writes by another machine to a network filesystem.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this share
    #[arg(long, value_name = "SHARE", value_parser = |name: &str| ShareName::new(name))]
    share: Option<ShareName>,
}

/// Asks and tells.
///
/// # Errors
/// If there is no daemon, or no such share.
pub(super) fn run(control: &Path, args: Args) -> anyhow::Result<Exit> {
    let request = RescanRequest { share: args.share.map(|share| share.to_string()) };
    let Rescan { shares } = Client::new(control).post("/api/v1/rescan", &request)?;
    out::text(match shares.as_slice() {
        [] => "nothing to scan: no share is fit to be scanned, see `recsync status`".to_owned(),
        shares => format!("scanning {}", shares.join(", ")),
    })?;
    Ok(Exit::Well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::testing::{Daemon, Fake};

    #[test]
    fn help() {
        insta::assert_snapshot!(crate::cli::show::help::<Args>("rescan"), @r#"
        Has the daemon scan a share, or all of them, from top to bottom now

        Returns at once; `recsync status` shows when it is done. Changes are found by watching; a scan is
        for what the watcher cannot see, such as writes by another machine to a network filesystem.

        Usage: rescan [OPTIONS]

        Options:
              --share <SHARE>
                  Only this share

          -h, --help
                  Print help (see a summary with '-h')
        "#);
    }

    #[test]
    fn asks_for_one_or_all() {
        let daemon = Daemon::start(Fake::default());
        let rescan = |share: Option<&str>| {
            let share = share.map(|share| ShareName::new(share).unwrap());
            run(&daemon.control(), Args { share })
        };
        assert_eq!(rescan(None).unwrap(), Exit::Well);
        assert_eq!(rescan(Some("prompts")).unwrap(), Exit::Well);
        assert_eq!(rescan(Some("none")).unwrap_err().to_string(), "there is no share none");
        assert_eq!(
            daemon.service.asked(),
            ["rescan None", "rescan Some(prompts)", "rescan Some(none)"]
        );
    }
}
