//! Whole recsync clusters in one thread: the production engine, observe, apply and transfer code on
//! a simulated disk, network and clock, all from one seed.
//!
//! A seed is a *history*: some nodes, what their users do, and which faults happen. After it the
//! world heals and must come to rest with nothing lost, torn, brought back or different.
//! **Invariant:** a seed replays exactly; nothing here reads a clock, draws other chance, or spawns.
//! **May not:** have an engine, merge, apply or transfer code of its own.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod disk;
pub mod fs;
pub mod history;
pub mod invariants;
pub mod machine;
pub mod net;
pub mod node;
pub mod oracle;
pub mod rng;
pub mod rows;
pub mod shrink;
pub mod story;
pub mod user;
pub mod watcher;
pub mod world;
