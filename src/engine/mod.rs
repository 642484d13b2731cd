//! Decides. (being written)
#![forbid(unsafe_code)]

pub mod effect;

pub use effect::{
    Action, Announce, AppliedKind, Done, Effect, Event, GuardEvent, Hint, Input, Look, Noticed,
    Now, Op, Outcome, Saved, Source,
};
