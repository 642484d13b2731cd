//! What both indexes check and derive before they store, so that they cannot differ.
//!
//! **Invariant:** what passes here can be stored without loss and read back.
//! **May not:** store anything.
#![forbid(unsafe_code)]

use recsync_proto::codec::check_record;
use recsync_proto::{Content, Owner, Record, Seq, SharePath};

use super::{Backlog, Entry};

/// The last position that a log may have: far beyond any use, and `i64` holds it with room for sums.
const POSITION_MAX: u64 = 1 << 62;

/// Checks that an entry may be stored for a path.
///
/// # Errors
/// Says why not, for a person.
pub(super) fn check_entry(path: &SharePath, entry: &Entry) -> Result<(), String> {
    if path.is_root() {
        return Err("the share's root can have no entry".to_owned());
    }
    check_position(entry.seq)?;
    check_record(&entry.record).map_err(|error| format!("the record of {path} is refused: {error}"))
}

/// Checks that a position can be one of a log.
///
/// # Errors
/// Says why not, for a person.
pub(super) fn check_position(seq: Seq) -> Result<(), String> {
    if seq.0 <= POSITION_MAX { Ok(()) } else { Err(format!("{seq} is no position of a log")) }
}

/// Returns the refusal of a position that another path has.
pub(super) fn position_taken(seq: Seq, path: &SharePath) -> String {
    format!("log position {seq}, meant for {path}, is another path's")
}

/// True if the entry knows nothing: no event ever, and nothing installed.
pub(super) fn says_nothing(entry: &Entry) -> bool {
    entry.installed.is_none()
        && entry.record.context.is_empty()
        && entry.record.values.is_empty()
        && entry.record.mode.is_none()
        && entry.record.owner.is_none()
}

/// True if the path is gone everywhere as far as known: there is nothing to install or remove.
pub(super) fn is_spent(entry: &Entry) -> bool {
    entry.record.is_tombstone() && entry.installed.is_none()
}

/// Returns the bytes that a peer without the record has to get: those of the winning file. A
/// directory that is only implied by what lies below it is not known here.
pub(super) fn winner_bytes(record: &Record) -> u64 {
    if record.values.iter().any(|value| value.content.is_dir()) {
        return 0;
    }
    let files = record.values.iter().filter(|value| matches!(value.content, Content::File { .. }));
    files.max_by_key(|value| (&value.stamp, value.dot)).map_or(0, |value| value.content.size())
}

/// Returns the owner that a record tells.
pub(super) fn told_owner(record: &Record) -> Option<Owner> {
    record.owner.as_ref().map(|owner| owner.value.clone())
}

impl Backlog {
    /// Counts one more record.
    pub(super) fn add(&mut self, bytes: u64, changed_ns: i64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.oldest_ns = Some(self.oldest_ns.map_or(changed_ns, |oldest| oldest.min(changed_ns)));
    }
}
