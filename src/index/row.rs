//! Entries and intents as rows of the database, and back.
//!
//! **Invariant:** what is written reads back equal; a row that cannot be is an error, never a guess.
//! **May not:** run a query.
#![forbid(unsafe_code)]

use recsync_proto::codec::{decode_record, encode_record};
use recsync_proto::{Content, Hash, NodeName, Owner, Seq, SharePath};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Result, Row};

use super::error::bad_column;
use super::{Entry, Guard, Installed, Intent, Logged, Stand, Trashed, Unnoted, Why, rules};
use crate::tree::{Fingerprint, Kind, Place};

/// The statement that stores an entry: [`entry_params`] are its parameters.
pub(super) const PUT_ENTRY: &str = "
    INSERT INTO entries (dir, name, record, seq, via, changed_ns, pending, live, winner_bytes,
        content, content_size, hash, target,
        kind, fs, ino, size, mtime_ns, ctime_ns, mode, uid, gid, nlink, want_mtime_ns, want_mode, want_owner,
        let_go)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (dir, name) DO UPDATE SET
        record = excluded.record, seq = excluded.seq, via = excluded.via,
        changed_ns = excluded.changed_ns, pending = excluded.pending, live = excluded.live,
        winner_bytes = excluded.winner_bytes,
        content = excluded.content, content_size = excluded.content_size,
        hash = excluded.hash, target = excluded.target,
        kind = excluded.kind, fs = excluded.fs, ino = excluded.ino, size = excluded.size,
        mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, mode = excluded.mode,
        uid = excluded.uid, gid = excluded.gid, nlink = excluded.nlink,
        want_mtime_ns = excluded.want_mtime_ns, want_mode = excluded.want_mode,
        want_owner = excluded.want_owner, let_go = excluded.let_go";

/// The statement that stores an intent: [`intent_params`] are its parameters.
pub(super) const PUT_INTENT: &str = "
    INSERT OR REPLACE INTO intents (id, path,
        kind, fs, ino, size, mtime_ns, ctime_ns, mode, uid, gid, nlink,
        place, place_path, place_text, content, content_size, hash, target, made)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Begins a query of whole entries, to be read by [`logged`].
macro_rules! select_entries {
    ($rest:literal) => {
        concat!(
            "SELECT dir, name, record, seq, (SELECT name FROM peers WHERE peers.id = via), ",
            "changed_ns, pending, content, content_size, hash, target, ",
            "kind, fs, ino, size, mtime_ns, ctime_ns, mode, uid, gid, nlink, ",
            "want_mtime_ns, want_mode, want_owner, let_go FROM entries ",
            $rest
        )
    };
}
pub(super) use select_entries;

/// Reads all intents, to be read by [`intent`].
pub(super) const SELECT_INTENTS: &str = "
    SELECT id, path, kind, fs, ino, size, mtime_ns, ctime_ns, mode, uid, gid, nlink,
        place, place_path, place_text, content, content_size, hash, target, made
    FROM intents";

/// The statement that stores what lies in the trash: [`trashed_params`] are its parameters.
pub(super) const PUT_TRASHED: &str = "
    INSERT INTO trash (since_ns, id, day, at, path, content, content_size, hash, target,
        kind, fs, ino, size, mtime_ns, ctime_ns, mode, uid, gid, nlink, why, peer)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Begins a query of what lies in the trash, to be read by [`trashed`].
macro_rules! select_trash {
    ($rest:literal) => {
        concat!(
            "SELECT since_ns, id, day, at, path, content, content_size, hash, target, ",
            "kind, fs, ino, size, mtime_ns, ctime_ns, mode, uid, gid, nlink, why, peer FROM trash ",
            $rest
        )
    };
}
pub(super) use select_trash;

/// Returns a path's entry as parameters; `via` is the peer's row.
pub(super) fn entry_params<'a>(
    path: &'a SharePath,
    entry: &'a Entry,
    via: Option<i64>,
) -> Vec<ToSqlOutput<'a>> {
    let (dir, name) = path.split();
    let record = &entry.record;
    let mut params = Vec::with_capacity(27);
    params.extend([blob(dir), blob(name)]);
    params.push(ToSqlOutput::Owned(Value::Blob(encode_record(record))));
    params.push(if entry.seq > Seq::ZERO { bits(entry.seq.0) } else { null() });
    params.extend([via.map_or_else(null, int), int(entry.changed_ns)]);
    params.extend([int(entry.pending.into()), int((!record.is_tombstone()).into())]);
    params.push(int(rules::winner_bytes(record).min(i64::MAX.unsigned_abs()).cast_signed()));
    match &entry.installed {
        Some(installed) => {
            params.extend(content_params(&installed.content));
            params.extend(fingerprint_params(&installed.fingerprint));
            params.extend([int(installed.mtime_ns), int(installed.mode.into())]);
            let owner = installed.owner.as_ref().map(ToString::to_string);
            params.push(ToSqlOutput::Owned(owner.map_or(Value::Null, Value::Text)));
        }
        None => params.extend(std::iter::repeat_with(null).take(17)),
    }
    params.push(int(entry.let_go.into()));
    params
}

/// Returns an intent as parameters.
pub(super) fn intent_params(intent: &Intent) -> Vec<ToSqlOutput<'_>> {
    let mut params = Vec::with_capacity(20);
    params.extend([bits(intent.id), blob(intent.path.as_bytes())]);
    params.extend(fingerprint_params(&intent.expect));
    params.extend(match &intent.displaced {
        Place::Share(path) => [int(1), blob(path.as_bytes()), null()],
        Place::Temp(name) => [int(2), null(), text(name)],
        Place::Trash { day, path } => [int(3), blob(path.as_bytes()), text(day)],
    });
    match &intent.staged {
        Some(content) => params.extend(content_params(content)),
        None => params.extend(std::iter::repeat_with(null).take(4)),
    }
    params.push(int(intent.made.into()));
    params
}

/// Returns what lies in the trash as parameters.
pub(super) fn trashed_params(trashed: &Trashed) -> Vec<ToSqlOutput<'_>> {
    let mut params = Vec::with_capacity(21);
    params.extend([int(trashed.since_ns), bits(trashed.id), text(&trashed.day)]);
    params.extend([blob(trashed.at.as_bytes()), blob(trashed.path.as_bytes())]);
    match &trashed.content {
        Some(content) => params.extend(content_params(content)),
        None => params.extend(std::iter::repeat_with(null).take(4)),
    }
    params.extend(fingerprint_params(&trashed.stat));
    let why = match trashed.why {
        Why::Deleted => 1,
        Why::Replaced => 2,
        Why::Found => 3,
        Why::Resolved => 4,
    };
    params.extend([int(why), trashed.peer.as_ref().map_or_else(null, |peer| text(peer.as_str()))]);
    params
}

/// Reads a row of [`select_trash`].
pub(super) fn trashed(row: &Row<'_>) -> Result<Trashed> {
    let why = match row.get(19)? {
        1 => Why::Deleted,
        2 => Why::Replaced,
        3 => Why::Found,
        4 => Why::Resolved,
        unknown => return Err(bad_column(19, format!("{unknown} is no reason"))),
    };
    let peer: Option<String> = row.get(20)?;
    Ok(Trashed {
        since_ns: row.get(0)?,
        id: row.get::<_, i64>(1)?.cast_unsigned(),
        day: row.get(2)?,
        at: whole_path(row, 3)?,
        path: whole_path(row, 4)?,
        content: content(row, 5)?,
        stat: fingerprint(row, 9)?,
        why,
        peer: peer.map(NodeName::new).transpose().map_err(|error| bad_column(20, error))?,
    })
}

/// Reads a row of [`select_entries`].
pub(super) fn logged(row: &Row<'_>) -> Result<Logged> {
    let record = decode_record(row.get_ref(2)?.as_blob()?).map_err(|error| bad_column(2, error))?;
    let seq: Option<i64> = row.get(3)?;
    let via: Option<String> = row.get(4)?;
    let installed =
        content(row, 7)?.map(|content| installed(row, 7, content, owner)).transpose()?;
    Ok(Logged {
        path: path(row, 0)?,
        entry: Entry {
            record,
            installed,
            seq: Seq(seq.unwrap_or(0).cast_unsigned()),
            via: via.map(NodeName::new).transpose().map_err(|error| bad_column(4, error))?,
            changed_ns: row.get(5)?,
            pending: row.get(6)?,
            let_go: row.get(24)?,
        },
    })
}

/// Begins a query of what is installed, to be read by [`named`].
macro_rules! select_installed {
    ($rest:literal) => {
        concat!(
            "SELECT name, content, content_size, hash, target, ",
            "kind, fs, ino, size, mtime_ns, ctime_ns, mode, uid, gid, nlink, ",
            "want_mtime_ns, want_mode, want_owner, record FROM entries ",
            $rest
        )
    };
}
pub(super) use select_installed;

/// Reads rows of [`select_installed`] that follow each other: most of a directory have one owner,
/// which is read once.
pub(super) fn named() -> impl FnMut(&Row<'_>) -> Result<(Vec<u8>, Installed)> {
    let mut last: Option<(Box<str>, Owner)> = None;
    move |row| {
        let owner = |row: &Row<'_>, at: usize| {
            let Some(text) = row.get_ref(at)?.as_str_or_null()? else {
                let record = decode_record(row.get_ref(at + 1)?.as_blob()?);
                return Ok(rules::told_owner(&record.map_err(|error| bad_column(at + 1, error))?));
            };
            if last.as_ref().is_none_or(|(known, _)| **known != *text) {
                let owner = text.parse().map_err(|error| bad_column(at, error))?;
                last = Some((text.into(), owner));
            }
            Ok(last.as_ref().map(|(_, owner)| owner.clone()))
        };
        let content = content(row, 1)?.ok_or_else(|| bad_column(1, "nothing is installed"))?;
        Ok((row.get(0)?, installed(row, 1, content, owner)?))
    }
}

/// Reads the columns behind those of the content that is installed, the owner by `owner`.
fn installed(
    row: &Row<'_>,
    at: usize,
    content: Content,
    owner: impl FnOnce(&Row<'_>, usize) -> Result<Option<Owner>>,
) -> Result<Installed> {
    Ok(Installed {
        content,
        fingerprint: fingerprint(row, at + 4)?,
        mtime_ns: row.get(at + 14)?,
        mode: row.get(at + 15)?,
        owner: owner(row, at + 16)?,
    })
}

/// Reads a row of [`SELECT_INTENTS`].
pub(super) fn intent(row: &Row<'_>) -> Result<Intent> {
    let displaced = match row.get(12)? {
        1 => Place::Share(whole_path(row, 13)?),
        2 => Place::Temp(row.get(14)?),
        3 => Place::Trash { day: row.get(14)?, path: whole_path(row, 13)? },
        unknown => return Err(bad_column(12, format!("{unknown} is no kind of place"))),
    };
    Ok(Intent {
        id: row.get::<_, i64>(0)?.cast_unsigned(),
        path: whole_path(row, 1)?,
        expect: fingerprint(row, 2)?,
        displaced,
        staged: content(row, 15)?,
        made: row.get(19)?,
    })
}

/// Reads a path, a position and a record.
pub(super) fn unnoted(row: &Row<'_>) -> Result<Unnoted> {
    let record = decode_record(row.get_ref(2)?.as_blob()?).map_err(|error| bad_column(2, error))?;
    let seq = Seq(row.get::<_, i64>(1)?.cast_unsigned());
    Ok(Unnoted { path: whole_path(row, 0)?, seq, record })
}

/// Reads `USER:GROUP`, or nothing.
fn owner(row: &Row<'_>, at: usize) -> Result<Option<Owner>> {
    let text: Option<String> = row.get(at)?;
    text.map(|text| text.parse().map_err(|error| bad_column(at, error))).transpose()
}

/// Reads the path in the columns `dir` and `name`.
pub(super) fn path(row: &Row<'_>, at: usize) -> Result<SharePath> {
    let dir = row.get_ref(at)?.as_blob()?;
    let name = row.get_ref(at + 1)?.as_blob()?;
    let bytes = if dir.is_empty() { name.to_vec() } else { [dir, name].join(&b'/') };
    SharePath::new(bytes).map_err(|error| bad_column(at, error))
}

/// Reads a path, or the root, in one column.
pub(super) fn whole_path(row: &Row<'_>, at: usize) -> Result<SharePath> {
    match row.get_ref(at)?.as_blob()? {
        [] => Ok(SharePath::root()),
        bytes => SharePath::new(bytes).map_err(|error| bad_column(at, error)),
    }
}

fn content_params(content: &Content) -> [ToSqlOutput<'_>; 4] {
    match content {
        Content::File { size, hash } => [int(1), bits(*size), blob(&hash.0), null()],
        Content::Dir => [int(2), null(), null(), null()],
        Content::Symlink { target } => [int(3), null(), null(), blob(target)],
    }
}

fn content(row: &Row<'_>, at: usize) -> Result<Option<Content>> {
    Ok(match row.get(at)? {
        None => None,
        Some(1) => Some(Content::File {
            size: row.get::<_, i64>(at + 1)?.cast_unsigned(),
            hash: Hash(row.get(at + 2)?),
        }),
        Some(2) => Some(Content::Dir),
        Some(3) => Some(Content::Symlink { target: row.get(at + 3)? }),
        Some(unknown) => return Err(bad_column(at, format!("{unknown} is no kind of content"))),
    })
}

fn fingerprint_params(stat: &Fingerprint) -> [ToSqlOutput<'static>; 10] {
    let kind = match stat.kind {
        Kind::File => 1,
        Kind::Dir => 2,
        Kind::Symlink => 3,
        Kind::Special => 4,
    };
    [
        int(kind),
        bits(stat.fs),
        bits(stat.ino),
        bits(stat.size),
        int(stat.mtime_ns),
        int(stat.ctime_ns),
        int(stat.mode.into()),
        int(stat.uid.into()),
        int(stat.gid.into()),
        int(stat.nlink.into()),
    ]
}

fn fingerprint(row: &Row<'_>, at: usize) -> Result<Fingerprint> {
    let kind = match row.get(at)? {
        1 => Kind::File,
        2 => Kind::Dir,
        3 => Kind::Symlink,
        4 => Kind::Special,
        unknown => return Err(bad_column(at, format!("{unknown} is no kind of object"))),
    };
    Ok(Fingerprint {
        kind,
        fs: row.get::<_, i64>(at + 1)?.cast_unsigned(),
        ino: row.get::<_, i64>(at + 2)?.cast_unsigned(),
        size: row.get::<_, i64>(at + 3)?.cast_unsigned(),
        mtime_ns: row.get(at + 4)?,
        ctime_ns: row.get(at + 5)?,
        mode: row.get(at + 6)?,
        uid: row.get(at + 7)?,
        gid: row.get(at + 8)?,
        nlink: row.get(at + 9)?,
    })
}

/// Returns a guard's number.
pub(super) fn guard_number(guard: Guard) -> i64 {
    match guard {
        Guard::Local => 1,
        Guard::Remote => 2,
    }
}

/// Returns what a guard is about to do, and the two numbers that belong to it.
pub(super) fn stand_columns(stand: Stand) -> (i64, u64, u64) {
    match stand {
        Stand::Watching => (0, 0, 0),
        Stand::Tripped { gone, of } => (1, gone, of),
        Stand::Released => (2, 0, 0),
        Stand::Restoring => (3, 0, 0),
    }
}

/// Reads what a guard is about to do.
pub(super) fn stand(row: &Row<'_>) -> Result<Stand> {
    let number = |at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.cast_unsigned());
    match row.get(0)? {
        0 => Ok(Stand::Watching),
        1 => Ok(Stand::Tripped { gone: number(1)?, of: number(2)? }),
        2 => Ok(Stand::Released),
        3 => Ok(Stand::Restoring),
        unknown => Err(bad_column(0, format!("{unknown} is nothing that a guard does"))),
    }
}

fn int(value: i64) -> ToSqlOutput<'static> {
    ToSqlOutput::Owned(Value::Integer(value))
}

fn bits(value: u64) -> ToSqlOutput<'static> {
    int(value.cast_signed())
}

fn blob(bytes: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Blob(bytes))
}

fn text(text: &str) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
}

fn null<'a>() -> ToSqlOutput<'a> {
    ToSqlOutput::Owned(Value::Null)
}
