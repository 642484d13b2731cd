//! SQLite.
/// Store.
#[derive(Debug)]
pub struct Store;
/// Reader.
#[derive(Debug)]
pub struct Reader;
