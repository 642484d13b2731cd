//! In-memory twin.
/// Memory.
#[derive(Debug)]
pub struct Memory;
