//! What recsync nodes say to each other: the types, their limits and their bytes.
//!
//! PROTOCOL.md, beside this crate, describes the protocol so that a second implementation can be
//! written from it. The engine uses the path, version and record types directly.
//!
//! **Invariant:** a value of a type here is valid; a decoder refuses what no type can hold.
//! **May not:** do input or output, read a clock, know tokio.
#![forbid(unsafe_code)]

pub mod codec;
pub mod hello;
pub mod message;
pub mod owner;
pub mod path;
pub mod record;
pub mod version;

pub use hello::Hello;
pub use message::Message;
pub use owner::{Account, Owner};
pub use path::{NodeName, PathError, ShareName, SharePath};
pub use record::{Content, Hash, Lack, Record, Register, Value};
pub use version::{Context, Dot, Epoch, Seq, Stamp};
