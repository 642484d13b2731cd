//! Two real nodes, and all that users, programs and accidents do to their files.
#![expect(clippy::disallowed_methods, reason = "tests are the users: they work on the files")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, not what they call"
)]

#[path = "nodes/apart.rs"]
mod apart;
#[path = "nodes/big.rs"]
mod big;
#[path = "nodes/clocks.rs"]
mod clocks;
#[path = "nodes/conflicts.rs"]
mod conflicts;
#[path = "nodes/files.rs"]
mod files;
#[path = "nodes/guards.rs"]
mod guards;
#[path = "nodes/layout.rs"]
mod layout;
#[path = "nodes/names.rs"]
mod names;
#[path = "nodes/others.rs"]
mod others;
#[path = "nodes/owners.rs"]
mod owners;
#[path = "nodes/peers.rs"]
mod peers;
#[path = "nodes/restored.rs"]
mod restored;
#[path = "nodes/rules.rs"]
mod rules;
#[path = "nodes/service.rs"]
mod service;
#[path = "nodes/space.rs"]
mod space;
#[path = "nodes/stops.rs"]
mod stops;
#[path = "nodes/storms.rs"]
mod storms;
mod support;
#[path = "nodes/three.rs"]
mod three;
#[path = "nodes/trash.rs"]
mod trash;
#[path = "nodes/waiting.rs"]
mod waiting;
#[path = "nodes/writers.rs"]
mod writers;
