//! Moves the bytes of files between nodes: [`serve()`] answers questions, a [`Fetcher`] asks them.
//!
//! **Invariant:** every block is verified on arrival against the announced hash; a file that is
//! handed on is complete.
//! **May not:** put anything under a name of the share.
#![forbid(unsafe_code)]

mod fetch;
mod local;
mod serve;
#[cfg(test)]
mod tests;
mod want;

pub use fetch::Fetcher;
pub use serve::{Outlines, read_inline, serve};
pub use want::{FetchError, FetchOutput, Want};

use recsync_proto::{Hash, Seq};

/// Returns the name in `.recsync/tmp` of a file that is being fetched: it depends on the bytes
/// alone, so that a transfer that was interrupted is found again.
pub fn transfer_name(hash: &Hash) -> String {
    format!("{hash}.part")
}

/// Returns the name of a complete file that waits for the operation that it was fetched for, the
/// one with the record at `seq`.
pub fn whole_name(hash: &Hash, seq: Seq) -> String {
    format!("{hash}-{seq}.part")
}

/// Returns the name of the transfer to which a temporary belongs, whether it is complete or not;
/// none if it is no transfer's.
pub fn transfer_of(name: &str) -> Option<String> {
    let (hash, seq) = name.strip_suffix(".part")?.split_at_checked(HASH_DIGITS)?;
    let is_seq = |text: &str| text.strip_prefix('-').is_some_and(|seq| seq.parse::<u64>().is_ok());
    let is_hash = hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_hash && (seq.is_empty() || is_seq(seq))).then(|| format!("{hash}.part"))
}

/// Hexadecimal digits of a hash.
const HASH_DIGITS: usize = 64;
