//! The `recsync` program: arguments, logging, exit code.
fn main() {}
