//! Finds out what is on the disk: one path at a time ([`look()`]), a whole directory ([`scan()`]), and
//! a file's blocks ([`blocks`]).
//!
//! Blocking code over [`crate::tree::Tree`], so that the simulator runs it too.
//!
//! **Invariant:** a file that is reported was read whole between two equal stats, had no writer
//! as far as the kernel tells, and its bytes are durable.
//! **May not:** change a share's files, or decide what a finding means.
#![forbid(unsafe_code)]

pub mod blocks;
#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
pub(crate) mod fixture;
mod look;
mod names;
mod read;
mod scan;
mod synced;
#[cfg(test)]
mod tests;

pub use look::look;
pub use names::{Named, Names, list};
pub use read::{ReadError, hash, is_hash_of, read_full};
pub use scan::{ScanError, ScanItem, ScanReport, Unreadable, scan};
pub use synced::{Both, Synced};
