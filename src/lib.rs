//! recsync keeps a directory tree of call recordings the same on all of its nodes.
//!
//! The modules, in the order in which data flows through them; a module uses those to its left
//! and the shared `engine`, `tree`, `net`, `sys`, `config` and `telemetry`. ARCHITECTURE.md has
//! the picture.

#[macro_use]
pub mod mutants;

pub mod apply;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod index;
pub mod load;
pub mod net;
pub mod observe;
pub mod serve;
pub mod sys;
pub mod telemetry;
pub mod transfer;
pub mod trash;
pub mod tree;
pub mod verify;
pub mod watch;
