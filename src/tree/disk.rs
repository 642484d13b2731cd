//! Disk.
/// Disk.
#[derive(Debug)]
pub struct Disk;
