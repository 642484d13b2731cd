//! (being written)
#![forbid(unsafe_code)]

pub mod confirm;
pub mod health;
mod out;
pub mod reload;
pub mod rescan;
mod show;
pub mod status;
pub mod verify;

/// How a command ends: a part of the contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Well = 0,
    /// The answer is no: differences, unhealthy, an invalid config.
    No = 1,
    /// It could not be done or could not be asked: usage, I/O, no daemon, no peer.
    CouldNot = 2,
}
