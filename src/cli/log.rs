//! Where logs go: stderr or the systemd journal, filtered by level and module.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::str::FromStr;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Global;

/// What is logged, by level and module.
#[derive(Debug, Clone)]
pub(super) struct Level(Targets);

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // tracing takes a word that is no level for a module's name, and nothing for `error`.
        let misread = text.split(',').any(|word| {
            let level = word.parse::<tracing_subscriber::filter::LevelFilter>();
            word.is_empty() || !word.contains('=') && level.is_err()
        });
        match text.parse() {
            Ok(targets) if !misread => Ok(Level(targets)),
            _ => Err("write error, warn, info, debug or trace, or a list \
                      such as info,recsync::net=debug"
                .to_owned()),
        }
    }
}

/// How it is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    // No doc comments: clap would turn `--help` into pages for them.
    Text,
    Json,
    Journal,
}

/// Starts logging for the rest of the process. A journal that cannot be reached is no reason to
/// stop: then it is text.
pub(super) fn start(global: &Global) {
    let Level(filter) = global.log_level.clone();
    let wanted = global.log_format.unwrap_or(if stderr_is_journal() {
        Format::Journal
    } else {
        Format::Text
    });
    let journal = match wanted {
        // Without a prefix the fields are SHARE=, PEER= and PATH=.
        Format::Journal => {
            Some(tracing_journald::layer().map(|layer| layer.with_field_prefix(None)))
        }
        _ => None,
    };
    let (layer, lost) = match (wanted, journal) {
        (Format::Journal, Some(Ok(journal))) => (journal.boxed(), None),
        (Format::Json, _) => {
            let json = tracing_subscriber::fmt::layer().json().with_writer(io::stderr);
            (json.boxed(), None)
        }
        (_, unreachable) => {
            let text =
                tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours());
            (text.boxed(), unreachable.and_then(Result::err))
        }
    };
    // Only a test that runs two commands in one process gets here twice; the first one holds.
    let _already_set = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    if let Some(why) = lost {
        tracing::warn!("cannot reach the systemd journal: {why}; logging text to stderr");
    }
}

/// True if systemd has connected stderr to the journal: `JOURNAL_STREAM` holds the device and inode
/// of that stream (systemd.exec(5)), and a child's redirected stderr has others.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr().as_fd())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Colours only on a terminal, and where nobody asked for none (no-color.org).
fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_a_list() {
        for good in ["warn", "INFO", "info,recsync::net=debug", "recsync=trace"] {
            assert!(good.parse::<Level>().is_ok(), "{good}");
        }
        for bad in ["loud", "", "info,", "info,debgu", "infos,recsync=debug", "recsync=loud"] {
            assert!(bad.parse::<Level>().is_err(), "{bad}");
        }
    }
}
