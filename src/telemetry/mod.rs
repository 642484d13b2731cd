//! What the daemon tells of itself: metrics, log lines, recent errors, and its service manager.
//!
//! **Invariant:** labels come from closed sets, never a path; everything kept is bounded.
//! **May not:** decide anything, or read a clock: the time is an argument.
#![forbid(unsafe_code)]

pub mod events;
mod limit;
pub mod metrics;
pub mod notify;
mod timestamp;

pub use events::Events;
pub use metrics::{Format, Metrics};
pub use timestamp::Timestamp;
