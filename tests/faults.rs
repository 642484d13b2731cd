//! Real daemons and what befalls them: death at every step, links and disks that fail, limits.
//!
//! What needs rights, a tool or a kernel that is not here says SKIPPED, its name and why.
#![expect(clippy::disallowed_methods, reason = "tests are the users: they work on the files")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, not what they call"
)]

#[path = "faults/disks.rs"]
mod disks;
#[path = "faults/failpoints.rs"]
mod failpoints;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/links.rs"]
mod links;
#[path = "faults/order.rs"]
mod order;
mod support;
