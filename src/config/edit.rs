//! Changes to the text of a config file that leave every other byte of it alone.
//!
//! A block is added as text at the end and removed by the lines on which it stands, so comments
//! stay where they were: a document model would count the comment lines after a block's last key to
//! the next block, and lose them with it.
//!
//! **May not:** read or write files.
#![forbid(unsafe_code)]

use std::path::Path;

use recsync_proto::{NodeName, ShareName};
use thiserror::Error;

use super::checked::{Config, Fingerprint, HostPort};
use super::{Mistakes, raw, template};

/// Why a text cannot be changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EditError {
    /// No block has that name.
    #[error("there is no {what} `{name}` in it; there is {there}")]
    NoSuch {
        /// `peer` or `share`.
        what: &'static str,
        /// As it was named.
        name: String,
        /// Names that there are.
        there: String,
    },
    /// A block has that name already.
    #[error("there is a {what} `{name}` in it already; remove or edit that one")]
    Taken {
        /// `peer` or `share`.
        what: &'static str,
        /// As it was named.
        name: String,
    },
    /// The block is written in a way that only its author can change.
    #[error("`{name}` is not written as a [[{what}]] block; change it by hand")]
    NotABlock {
        /// `peer` or `share`.
        what: &'static str,
        /// As it was named.
        name: String,
    },
    /// What would come out has mistakes.
    #[error("the change would make it invalid:\n{0}")]
    WouldNotCheck(Mistakes),
}

/// Returns the text with one more `[[peer]]` at its end.
///
/// # Errors
/// If the name is taken.
pub fn add_peer(
    text: &str,
    config: &Config,
    name: &NodeName,
    address: &HostPort,
    fingerprints: &[Fingerprint],
) -> Result<String, EditError> {
    if config.peers.iter().any(|peer| peer.name == *name) {
        return Err(EditError::Taken { what: "peer", name: name.to_string() });
    }
    Ok(append(text, &template::peer_block(name, address, fingerprints)))
}

/// Returns the text with one more `[[share]]` at its end.
///
/// # Errors
/// If the name is taken.
pub fn add_share(
    text: &str,
    config: &Config,
    name: &ShareName,
    path: &Path,
) -> Result<String, EditError> {
    if config.shares.iter().any(|share| share.name == *name) {
        return Err(EditError::Taken { what: "share", name: name.to_string() });
    }
    Ok(append(text, &template::share_block(name, path)))
}

/// Returns the text without the lines from the peer's `[[peer]]` to its last key. Comments before
/// and after stay.
///
/// # Errors
/// If there is no such peer, or it is written as an inline table.
pub fn remove_peer(text: &str, config: &Config, name: &NodeName) -> Result<String, EditError> {
    let Some(index) = config.peers.iter().position(|peer| peer.name == *name) else {
        let names: Vec<_> = config.peers.iter().map(|peer| peer.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(EditError::NoSuch { what: "peer", name: name.to_string(), there });
    };
    let Some(span) = raw::block_span(text, "peer", index) else {
        return Err(EditError::NotABlock { what: "peer", name: name.to_string() });
    };
    let start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[span.end..].find('\n').map_or(text.len(), |newline| span.end + newline + 1);
    let (mut before, after) = (&text[..start], &text[end..]);
    // Of the blank lines around the block, one stays between what was before and what follows.
    if after.is_empty() || after.starts_with(['\n', '\r']) {
        before = strip_blank_line(before);
    }
    Ok(format!("{before}{after}"))
}

/// Puts a block at the end, after a blank line, with the line ends of the text.
fn append(text: &str, block: &str) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut out = text.to_owned();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push_str(newline);
    }
    if !out.is_empty() {
        out.push_str(newline);
    }
    out.push_str(&block.replace('\n', newline));
    out
}

fn strip_blank_line(text: &str) -> &str {
    let without = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n'));
    without.filter(|text| text.is_empty() || text.ends_with('\n')).unwrap_or(text)
}
