//! Looks at one path: is it there, is anyone writing it, what does it hold?
//!
//! **Invariant:** `Found` for a file means read whole between two equal stats, no writer before
//! and after, bytes durable; `Absent` only on the kernel's word that there is no such name.
//! **May not:** decide what a finding means; wait.
#![forbid(unsafe_code)]

use std::time::Duration;

use recsync_proto::message::FILE_SIZE_MAX;
use recsync_proto::{Content, SharePath};

use super::read::{ReadError, hash, read_full};
use super::synced::Synced;
use crate::engine::{Hint, Look};
use crate::index::Installed;
use crate::tree::{Fingerprint, Kind, Place, Tree, TreeError, Writer, temporary_of};

/// The blocks in which filesystems lose what was not written when the machine goes down.
const BLOCK_LEN: usize = 4_096;
/// Without the kernel's word on writers, a file that looks unfinished must be this old.
const UNFINISHED_AGE: Duration = Duration::from_secs(600);
/// Without the kernel's word on writers, any other file must be this many settle times old, of this
/// settle time at least.
const WEAK_SETTLES: u32 = 8;
const WEAK_SETTLE_MIN: Duration = Duration::from_millis(20);
/// Longest tick of a filesystem's timestamps on Linux: the timer interrupt at its slowest, 100 Hz
/// (kernels from 6.13 on are finer once a file was looked at). Below the default settle of 20 ms,
/// so it holds up nothing in the normal case.
const TICK: Duration = Duration::from_millis(10);
/// Tick of filesystems that keep whole seconds (ext3, ext4 with small inodes) or two (FAT).
const COARSE_TICK: Duration = Duration::from_secs(2);
/// Other tools' temporary files are left alone until they are this old.
const TEMPORARY_AGE: Duration = Duration::from_secs(3_600);
/// Longest target of a symbolic link that the protocol carries, exclusive.
const TARGET_LEN_END: usize = 4_096;

/// Looks at a path and tells what it shows. Reads a file's bytes only if they may have changed.
///
/// `synced` belongs to this tree; `settle` is the share's settle time; `wall_ns` reads the wall clock,
/// nanoseconds since 1970.
pub fn look<T: Tree>(
    tree: &T,
    synced: &Synced,
    path: &SharePath,
    installed: Option<&Installed>,
    hint: Hint,
    settle: Duration,
    wall_ns: impl Fn() -> i64 + Sync,
) -> Look {
    let place = Place::Share(path.clone());
    let found = match tree.stat(&place) {
        Ok(found) => found,
        Err(error) => return not_there(tree, path, error),
    };
    if tree.ignored_by(path, found.kind == Kind::Dir).is_some() {
        return Look::Ignored;
    }
    if let Some(wait) = temporary_wait(path, &found, &wall_ns) {
        return Look::TooFresh(wait);
    }
    // Whoever closed a file within the tick of the last change, and put its mtime back, left the
    // same stat: after such an event only the bytes tell.
    let closed = hint == Hint::Written && found.kind == Kind::File;
    if !closed && installed.is_some_and(|installed| installed.fingerprint == found) {
        return Look::Unchanged;
    }
    let looked = match found.kind {
        Kind::Special => Ok(Look::Special),
        Kind::Dir => Ok(found_as(tree, Content::Dir, found)),
        Kind::Symlink => look_at_link(tree, &place, &found),
        Kind::File => {
            let unread = installed.filter(|_| hint == Hint::Attributes);
            look_at_file(tree, synced, &place, unread, settle, wall_ns)
        }
    };
    match looked {
        Ok(look) => look,
        // It was there a moment ago and has another kind or is gone now: the next look tells.
        Err(TreeError::NotFound | TreeError::WrongKind) => Look::Unstable,
        Err(error) => Look::Unknown(error),
    }
}

/// Returns how much longer what looks like another tool's temporary file is left alone. After an
/// hour it is one that nobody finished, or a file that only has such a name: synced like any other.
fn temporary_wait(
    path: &SharePath,
    found: &Fingerprint,
    wall_ns: impl Fn() -> i64,
) -> Option<Duration> {
    temporary_of(path.name()).filter(|_| found.kind == Kind::File)?;
    let left = TEMPORARY_AGE.checked_sub(age(found.ctime_ns, wall_ns()))?;
    (!left.is_zero()).then_some(left)
}

/// Tells absence from ignorance.
fn not_there<T: Tree>(tree: &T, path: &SharePath, error: TreeError) -> Look {
    match error {
        TreeError::NotFound => Look::Absent,
        TreeError::Denied | TreeError::Io(_) if mutant!(UnreadableIsAbsent) => Look::Absent,
        // Something above may be no directory now: then nothing can be below it in this share. What
        // a symbolic link points to is no part of it.
        TreeError::WrongKind => {
            let mut above = path.ancestors().map(|dir| tree.stat(&Place::Share(dir)));
            match above.find(|stat| *stat != Err(TreeError::WrongKind)) {
                Some(Ok(found)) if found.kind != Kind::Dir => Look::Absent,
                _ => Look::Unknown(error),
            }
        }
        _ => Look::Unknown(error),
    }
}

fn look_at_link<T: Tree>(tree: &T, place: &Place, before: &Fingerprint) -> Result<Look, TreeError> {
    let target = tree.read_link(place)?;
    let after = tree.stat(place)?;
    if after != *before {
        return Ok(Look::Unstable);
    }
    if target.is_empty() || target.len() >= TARGET_LEN_END || target.contains(&0) {
        return Ok(Look::Unsyncable(format!(
            "the link's target is {} bytes long, at most {} can be synced",
            target.len(),
            TARGET_LEN_END - 1
        )));
    }
    Ok(found_as(tree, Content::Symlink { target }, after))
}

/// `unread` is what the file holds if its bytes did not change and need not be read.
fn look_at_file<T: Tree>(
    tree: &T,
    synced: &Synced,
    place: &Place,
    unread: Option<&Installed>,
    settle: Duration,
    wall_ns: impl Fn() -> i64 + Sync,
) -> Result<Look, TreeError> {
    let file = tree.open(place)?;
    let before = tree.stat_file(&file)?;
    if before.size > FILE_SIZE_MAX {
        return Ok(Look::Unsyncable(format!(
            "the file is {} bytes long, at most {FILE_SIZE_MAX} can be synced",
            before.size
        )));
    }
    let writer = tree.writer(&file)?;
    if writer == Writer::Some && !mutant!(AnnounceOpenFile) {
        return Ok(Look::Busy);
    }
    // A change of mode or owner: the same bytes as far as a stat can tell, so neither their age
    // nor their hash is in question.
    if let Some(installed) = unread.filter(|known| known.fingerprint.same_bytes(&before)) {
        return Ok(found_as(tree, installed.content.clone(), before));
    }
    // Read after the stat: a clock that was read before it could miss a write in between.
    let now_ns = wall_ns();
    if writer == Writer::Unknown {
        let remaining = weak_gate(tree, &file, &before, settle, now_ns)?;
        if let Some(remaining) = remaining {
            return Ok(Look::TooFresh(remaining));
        }
    }
    if !tree.has_exact_times() && is_racy(before.ctime_ns, now_ns) {
        return Ok(Look::Unstable);
    }
    // On its way to the disk while it is read.
    tree.start_sync(&file);
    let hash = match hash(tree, &file, before.size) {
        Ok(hash) => hash,
        Err(ReadError::Short) => return Ok(Look::Unstable),
        Err(ReadError::Tree(error)) => return Err(error),
    };
    let hollow = ends_in_zeros(tree, &file, before.size)?;
    // Before its version can reach a peer's index: after a power cut a file without its bytes
    // would look like a newer version and destroy the good copy there.
    let Place::Share(path) = place else { return Ok(Look::Unstable) };
    synced.sync(tree, path, &wall_ns, || {
        if mutant!(SkipLookSync) { Ok(()) } else { tree.sync(&file) }
    })?;
    // Stores through a mapping need not move the mtime; only a second probe rules them out.
    if tree.writer(&file)? == Writer::Some && !mutant!(AnnounceOpenFile) {
        return Ok(Look::Busy);
    }
    // By its name: it may have been written since the first stat, or its name may be another's.
    if tree.stat(place)? != before {
        return Ok(Look::Unstable);
    }
    let content = Content::File { size: before.size, hash };
    let found = found_as(tree, content, before);
    Ok(if hollow { Look::Hollow(Box::new(found)) } else { found })
}

/// True if the last block of a file, or all of it, is zeros.
fn ends_in_zeros<T: Tree>(tree: &T, file: &T::File, size: u64) -> Result<bool, TreeError> {
    let mut end = [0; BLOCK_LEN];
    let len = usize::try_from(size).map_or(BLOCK_LEN, |size| size.min(BLOCK_LEN));
    let read = read_full(tree, file, size - len as u64, &mut end[..len])?;
    Ok(len > 0 && read == len && end[..len].iter().all(|&byte| byte == 0))
}

fn found_as<T: Tree>(tree: &T, content: Content, fingerprint: Fingerprint) -> Look {
    Look::Found { content, fingerprint, owner: tree.owner(&fingerprint) }
}

/// True if a write now could leave the same ctime as the one that is there: then two equal stats
/// prove nothing (git's "racy clean"). A ctime ahead of the clock is not racy, for a write now
/// would set it back.
pub(super) fn is_racy(ctime_ns: i64, wall_ns: i64) -> bool {
    let coarse = ctime_ns % 1_000_000_000 == 0;
    let tick = if coarse { COARSE_TICK } else { TICK };
    wall_ns >= ctime_ns && age(ctime_ns, wall_ns) < tick
}

/// How far apart a timestamp and the clock are. Both ways: what is being written now has a ctime
/// close to now, and a clock that was set back must not hold a file up for as long as that.
fn age(ctime_ns: i64, wall_ns: i64) -> Duration {
    Duration::from_nanos(wall_ns.abs_diff(ctime_ns))
}

/// Where the kernel does not tell of writers: returns how much longer to wait before a file is
/// trusted to be complete, none if it is old enough.
fn weak_gate<T: Tree>(
    tree: &T,
    file: &T::File,
    stat: &Fingerprint,
    settle: Duration,
    wall_ns: i64,
) -> Result<Option<Duration>, TreeError> {
    // The ctime, not the mtime: every write moves it and nobody can set it back.
    let age = age(stat.ctime_ns, wall_ns);
    let settled = settle.max(WEAK_SETTLE_MIN) * WEAK_SETTLES;
    if age >= settled.max(UNFINISHED_AGE) {
        return Ok(None);
    }
    let needed = if looks_unfinished(tree, file, stat.size)? {
        settled.max(UNFINISHED_AGE)
    } else {
        settled
    };
    Ok(needed.checked_sub(age).filter(|remaining| !remaining.is_zero()))
}

/// True for an empty file, and for a RIFF file whose header tells fewer bytes than there are: a
/// recorder writes the header's sizes when it closes.
fn looks_unfinished<T: Tree>(tree: &T, file: &T::File, size: u64) -> Result<bool, TreeError> {
    let mut header = [0; 8];
    let len = read_full(tree, file, 0, &mut header)?;
    if size == 0 {
        return Ok(true);
    }
    if len < header.len() || &header[..4] != b"RIFF" {
        return Ok(false);
    }
    let told = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    // The size field leaves out the first 8 bytes; chunks are padded to even lengths.
    Ok(u64::from(told).next_multiple_of(2) + 8 < size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ctime_is_racy_while_a_write_could_leave_the_same() {
        let (ms, s) = (1_000_000, 1_000_000_000);
        // (ctime, clock, racy)
        let cases = [
            (5 * s + 1, 5 * s + 1, true),
            (5 * s + 1, 5 * s + 10 * ms, true),
            (5 * s + 1, 5 * s + 10 * ms + 1, false),
            // The clock was set back.
            (5 * s + 1, 5 * s, false),
            // Whole seconds: the filesystem has no others.
            (5 * s, 5 * s + 500 * ms, true),
            (5 * s, 7 * s - 1, true),
            (5 * s, 7 * s, false),
        ];
        for (ctime_ns, wall_ns, racy) in cases {
            assert_eq!(is_racy(ctime_ns, wall_ns), racy, "{ctime_ns} at {wall_ns}");
        }
    }
}
