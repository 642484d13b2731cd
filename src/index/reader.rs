//! The reads of the index over one connection.
//!
//! **Invariant:** each answer comes from one statement, so from one state of the index (`acked_through` reads the
//! head first, and may tell of an earlier one); each
//! statement names the SQL index that it walks, so that none can quietly become a scan.
//! **May not:** write.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use recsync_proto::path::COMPONENT_LEN_MAX;
use recsync_proto::{Epoch, Hash, NodeName, Seq, SharePath};
use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension, Params, Row, params};

use super::error::{from_sqlite, other};
use super::row::{self, select_entries, select_installed, select_trash};
use super::{
    Backlog, Entry, Guard, GuardState, IndexError, IndexRead, Installed, Intent, Logged,
    PeerCursor, TrashKey, Trashed, Unnoted, migrate,
};

/// Page cache of a reader, KiB.
const READER_CACHE_KIB: i64 = 2 << 10;
/// How long a connection waits for another one's lock: an operator's `sqlite3`, or recovery.
const BUSY: Duration = Duration::from_secs(5);
/// Statements kept prepared: all that there are.
const STATEMENTS: usize = 64;

/// A read-only view of the index for another thread, always of the last commit.
#[derive(Debug)]
pub struct Reader {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
    pub(super) epoch: Epoch,
}

/// What the index counts in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// The greatest position that the log has had.
    pub(super) head: Seq,
    /// The greatest clock reading that was stored.
    pub(super) clock: u64,
    /// Files that are installed.
    pub(super) files: u64,
    /// Their bytes, modulo 2^64: taking away undoes adding whatever the sizes are.
    pub(super) bytes: u64,
}

impl Totals {
    /// Moves them from what a path held to what it holds: a file of so many bytes or none.
    pub(super) fn count_file(&mut self, before: Option<u64>, after: Option<u64>) {
        let moved = |sum: u64, before, after| sum.wrapping_sub(before).wrapping_add(after);
        self.files = moved(self.files, before.is_some().into(), after.is_some().into());
        self.bytes = moved(self.bytes, before.unwrap_or(0), after.unwrap_or(0));
    }
}

impl Reader {
    /// Opens an index that a [`super::Store`] made, read-only.
    ///
    /// # Errors
    /// If there is none, or it is not of this version.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY, READER_CACHE_KIB)?;
        match migrate::version(&conn, path)? {
            migrate::KNOWN => Reader::over(conn, path),
            found => Err(other(
                path,
                format!("it has schema {found}, not {}; start recsync once", migrate::KNOWN),
            )),
        }
    }

    /// Takes a connection to a database of the current schema.
    pub(super) fn over(conn: Connection, path: &Path) -> Result<Self, IndexError> {
        let epoch = conn
            .query_row("SELECT epoch FROM state", [], |row| row.get::<_, i64>(0))
            .map_err(|error| from_sqlite(path, error))?;
        Ok(Reader { conn, path: path.to_owned(), epoch: Epoch(epoch.cast_unsigned()) })
    }

    pub(super) fn totals(&self) -> Result<Totals, IndexError> {
        self.one(sql::TOTALS, [], |row| {
            let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
            Ok(Totals {
                head: Seq(number(0)?),
                clock: number(1)?,
                files: number(2)?,
                bytes: number(3)?,
            })
        })
    }

    /// Returns the position before the first above `acked` that a peer lacks; none if it lacks nothing.
    pub(super) fn acked_until(
        &self,
        peer: &NodeName,
        acked: Seq,
    ) -> Result<Option<Seq>, IndexError> {
        let params = params![peer.as_str(), position(acked)];
        self.maybe(sql::FIRST_LACKED, params, |row| seq(row, 0))
    }

    /// Returns the only row of an answer.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        let answer = self.conn.prepare_cached(sql).and_then(|mut it| it.query_row(params, read));
        answer.map_err(|error| from_sqlite(&self.path, error))
    }

    /// Returns the only row of an answer, if there is one.
    pub(super) fn maybe<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, IndexError> {
        let answer = self.conn.prepare_cached(sql).and_then(|mut it| it.query_row(params, read));
        answer.optional().map_err(|error| from_sqlite(&self.path, error))
    }

    /// Returns all rows of an answer.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, IndexError> {
        let rows = |mut it: CachedStatement<'_>| it.query_map(params, read)?.collect();
        let answer = self.conn.prepare_cached(sql).and_then(rows);
        answer.map_err(|error| from_sqlite(&self.path, error))
    }
}

/// Opens a connection of modest appetite.
pub(super) fn connect(
    path: &Path,
    access: OpenFlags,
    cache_kib: i64,
) -> Result<Connection, IndexError> {
    let open = || {
        let conn = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        conn.busy_timeout(BUSY)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        conn.pragma_update(None, "cache_size", -cache_kib)?;
        conn.pragma_update(None, "mmap_size", 0)?;
        // Built with STAT4, the planner looks at the values of a range and plans the statement anew
        // whenever one is bound; there are no statistics that could change a plan.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(conn)
    };
    open().map_err(|error| from_sqlite(path, error))
}

/// The statements of the reads.
pub(super) mod sql {
    use super::{select_entries, select_installed, select_trash};

    pub(crate) const TOTALS: &str =
        "SELECT head, clock, installed_files, installed_bytes FROM state";
    pub(crate) const ENTRY: &str = select_entries!("INDEXED BY path WHERE dir = ?1 AND name = ?2");
    pub(crate) const INSTALLED_IN: &str = select_installed!(
        "INDEXED BY path WHERE dir = ?1 AND name > ?2 AND content IS NOT NULL
         ORDER BY name LIMIT ?3"
    );
    pub(crate) const LIVE_BELOW: &str = "
        SELECT EXISTS (SELECT 1 FROM entries INDEXED BY live WHERE live AND dir = ?1)
            OR EXISTS (SELECT 1 FROM entries INDEXED BY live
                       WHERE live AND dir >= ?2 AND dir < ?3)";
    pub(crate) const INSTALLED_BELOW: &str = "
        SELECT EXISTS (SELECT 1 FROM entries INDEXED BY installed
                       WHERE content IS NOT NULL AND dir = ?1)
            OR EXISTS (SELECT 1 FROM entries INDEXED BY installed
                       WHERE content IS NOT NULL AND dir >= ?2 AND dir < ?3)";
    pub(crate) const NEXT_INSTALLED_DIR: &str = "
        SELECT dir FROM entries INDEXED BY installed
        WHERE content IS NOT NULL AND dir >= ?1 AND dir < ?2 ORDER BY dir LIMIT 1";
    pub(crate) const INSTALLED_WITH: &str = "
        SELECT dir, name FROM entries INDEXED BY installed_hash
        WHERE substr(hash, 1, 8) = substr(?1, 1, 8) AND hash = ?1 LIMIT ?2";
    pub(crate) const INSTALLED_INODE: &str = "
        SELECT dir, name FROM entries INDEXED BY installed_inode
        WHERE ino = ?2 AND fs = ?1 LIMIT ?3";
    pub(crate) const LOG: &str =
        select_entries!("INDEXED BY log WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq LIMIT ?3");
    pub(crate) const AT: &str = "SELECT dir, name FROM entries INDEXED BY log WHERE seq = ?1";
    pub(crate) const PENDING: &str =
        select_entries!("INDEXED BY pending WHERE pending AND seq < ?1 ORDER BY seq DESC LIMIT ?2");
    pub(crate) const PENDING_FILES: &str =
        "SELECT COUNT(*) FROM entries INDEXED BY pending WHERE pending";
    pub(crate) const UNNOTED: &str = "SELECT path, seq, record FROM unnoted";
    pub(crate) const PEER: &str = "SELECT epoch, head, acked FROM peers WHERE name = ?1";
    pub(crate) const STAND: &str = "SELECT stand, gone, files FROM guards WHERE guard = ?1";
    pub(crate) const PASSED: &str =
        "SELECT second, count FROM passed WHERE guard = ?1 ORDER BY second";
    pub(crate) const IS_ACKED: &str = "
        SELECT EXISTS (SELECT 1 FROM peers JOIN acks ON acks.seq = ?2 AND acks.peer = peers.id
                       WHERE peers.name = ?1 AND peers.acked < ?2)";
    pub(crate) const IS_HELD: &str = "
        SELECT EXISTS (SELECT 1 FROM peers JOIN acks ON acks.seq = ?2 AND acks.peer = peers.id
                       WHERE peers.name = ?1 AND acks.held)";
    // A peer without a row is number -1, which is nobody's.
    pub(crate) const FIRST_LACKED: &str = "
        WITH whom AS MATERIALIZED (
            SELECT coalesce((SELECT id FROM peers WHERE name = ?1), -1) AS id)
        SELECT seq - 1 FROM entries INDEXED BY log
        WHERE seq > ?2 AND via IS NOT (SELECT id FROM whom) AND NOT EXISTS (
            SELECT 1 FROM acks WHERE acks.seq = entries.seq
                                 AND acks.peer = (SELECT id FROM whom))
        ORDER BY seq LIMIT 1";
    pub(crate) const LACKED: &str = "
        WITH whom AS MATERIALIZED (
            SELECT coalesce((SELECT id FROM peers WHERE name = ?1), -1) AS id)
        SELECT winner_bytes, changed_ns FROM entries INDEXED BY log
        WHERE seq > coalesce((SELECT acked FROM peers WHERE name = ?1), 0)
            AND via IS NOT (SELECT id FROM whom) AND NOT EXISTS (
                SELECT 1 FROM acks WHERE acks.seq = entries.seq
                                     AND acks.peer = (SELECT id FROM whom))";
    pub(crate) const TOMBSTONES: &str = "
        SELECT dir, name FROM entries INDEXED BY spent
        WHERE NOT live AND content IS NULL AND seq <= ?1 ORDER BY seq LIMIT ?2";

    pub(crate) const TRASH_AFTER: &str =
        select_trash!("WHERE (since_ns, id) > (?1, ?2) ORDER BY since_ns, id LIMIT ?3");
    pub(crate) const TRASH_BEFORE: &str =
        select_trash!("WHERE (since_ns, id) < (?1, ?2) ORDER BY since_ns DESC, id DESC LIMIT ?3");
    pub(crate) const TRASH_AT: &str =
        select_trash!("INDEXED BY trash_place WHERE day = ?1 AND at = ?2");
    pub(crate) const COPIES: &str = select_entries!(
        "INDEXED BY copies
         WHERE content IS NOT NULL AND instr(name, x'2e636f6e666c6963742d') > 0
             AND (dir, name) > (?1, ?2)
         ORDER BY dir, name LIMIT ?3"
    );
    // Walks the copies alone.
    pub(crate) const COPIES_COUNT: &str = "SELECT COUNT(*) FROM entries INDEXED BY copies
        WHERE content IS NOT NULL AND instr(name, x'2e636f6e666c6963742d') > 0";
    pub(crate) const TRASH_TOTAL: &str = "SELECT trash_files, trash_bytes FROM state";

    /// Those that must not walk a table.
    #[cfg(test)]
    pub(crate) const SEARCHES: [&str; 22] = [
        ENTRY,
        INSTALLED_IN,
        LIVE_BELOW,
        INSTALLED_BELOW,
        NEXT_INSTALLED_DIR,
        INSTALLED_WITH,
        INSTALLED_INODE,
        LOG,
        AT,
        PENDING,
        PEER,
        STAND,
        PASSED,
        IS_ACKED,
        IS_HELD,
        FIRST_LACKED,
        LACKED,
        TOMBSTONES,
        COPIES,
        TRASH_AFTER,
        TRASH_BEFORE,
        TRASH_AT,
    ];
}

impl IndexRead for Reader {
    /// Returns the epoch as it was when the reader was opened.
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn head(&self) -> Result<Seq, IndexError> {
        Ok(self.totals()?.head)
    }

    fn clock(&self) -> Result<u64, IndexError> {
        Ok(self.totals()?.clock)
    }

    fn entry(&self, path: &SharePath) -> Result<Option<Entry>, IndexError> {
        let (dir, name) = path.split();
        self.maybe(sql::ENTRY, params![dir, name], |row| Ok(row::logged(row)?.entry))
    }

    fn installed_in(
        &self,
        dir: &SharePath,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Installed)>, IndexError> {
        let params = params![dir.as_bytes(), after, count(limit)];
        self.all(sql::INSTALLED_IN, params, row::named())
    }

    fn has_live_below(&self, dir: &SharePath) -> Result<bool, IndexError> {
        let (first, end) = subdirectories(dir);
        self.one(sql::LIVE_BELOW, params![dir.as_bytes(), first, end], |row| row.get(0))
    }

    fn has_installed_below(&self, dir: &SharePath) -> Result<bool, IndexError> {
        let (first, end) = subdirectories(dir);
        self.one(sql::INSTALLED_BELOW, params![dir.as_bytes(), first, end], |row| row.get(0))
    }

    fn next_installed_dir(
        &self,
        dir: &SharePath,
        from: &[u8],
    ) -> Result<Option<SharePath>, IndexError> {
        let (first, end) = subdirectories(dir);
        let from = from.max(&first);
        self.maybe(sql::NEXT_INSTALLED_DIR, params![from, end], |row| row::whole_path(row, 0))
    }

    fn installed_with(&self, hash: &Hash, limit: usize) -> Result<Vec<SharePath>, IndexError> {
        let params = params![&hash.0[..], count(limit)];
        self.all(sql::INSTALLED_WITH, params, |row| row::path(row, 0))
    }

    fn installed_inode(
        &self,
        fs: u64,
        ino: u64,
        limit: usize,
    ) -> Result<Vec<SharePath>, IndexError> {
        let params = params![fs.cast_signed(), ino.cast_signed(), count(limit)];
        self.all(sql::INSTALLED_INODE, params, |row| row::path(row, 0))
    }

    fn log(&self, from: Seq, until: Seq, limit: usize) -> Result<Vec<Logged>, IndexError> {
        let params = params![position(from), position(until), count(limit)];
        self.all(sql::LOG, params, row::logged)
    }

    fn at(&self, seq: Seq) -> Result<Option<SharePath>, IndexError> {
        self.maybe(sql::AT, [position(seq)], |row| row::path(row, 0))
    }

    fn pending(&self, below: Seq, limit: usize) -> Result<Vec<Logged>, IndexError> {
        self.all(sql::PENDING, params![position(below), count(limit)], row::logged)
    }

    fn pending_files(&self) -> Result<u64, IndexError> {
        self.one(sql::PENDING_FILES, [], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))
    }

    fn installed_files(&self) -> Result<(u64, u64), IndexError> {
        let totals = self.totals()?;
        Ok((totals.files, totals.bytes))
    }

    fn intents(&self) -> Result<Vec<Intent>, IndexError> {
        let mut intents = self.all(row::SELECT_INTENTS, [], row::intent)?;
        // The database orders the numbers with their sign.
        intents.sort_by_key(|intent| intent.id);
        Ok(intents)
    }

    fn unnoted(&self) -> Result<Vec<Unnoted>, IndexError> {
        let mut unnoted = self.all(sql::UNNOTED, [], row::unnoted)?;
        // Bytes are not path order.
        unnoted.sort_by(|one, other| (&one.path, one.seq).cmp(&(&other.path, other.seq)));
        Ok(unnoted)
    }

    fn guard(&self, guard: Guard) -> Result<GuardState, IndexError> {
        let number = row::guard_number(guard);
        let stand = self.maybe(sql::STAND, [number], row::stand)?.unwrap_or_default();
        let passed = self.all(sql::PASSED, [number], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        Ok(GuardState { stand, passed })
    }

    fn peer(&self, peer: &NodeName) -> Result<PeerCursor, IndexError> {
        let cursor = self.maybe(sql::PEER, [peer.as_str()], |row| {
            let seen: (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
            let seen = seen.0.zip(seen.1);
            Ok(PeerCursor {
                seen: seen
                    .map(|(epoch, head)| (Epoch(epoch.cast_unsigned()), Seq(head.cast_unsigned()))),
                acked: seq(row, 2)?,
            })
        })?;
        Ok(cursor.unwrap_or_default())
    }

    fn is_acked(&self, peer: &NodeName, seq: Seq) -> Result<bool, IndexError> {
        self.one(sql::IS_ACKED, params![peer.as_str(), position(seq)], |row| row.get(0))
    }

    fn is_held(&self, peer: &NodeName, seq: Seq) -> Result<bool, IndexError> {
        self.one(sql::IS_HELD, params![peer.as_str(), position(seq)], |row| row.get(0))
    }

    fn acked_through(&self, peer: &NodeName, acked: Seq) -> Result<Seq, IndexError> {
        // First: what is logged after it was read may be lacked.
        let head = self.head()?;
        Ok(self.acked_until(peer, acked)?.unwrap_or(head))
    }

    fn backlog(&self, peer: &NodeName) -> Result<Backlog, IndexError> {
        let mut backlog = Backlog::default();
        // Summed here and not by the database: its sum fails where a hostile peer's sizes overflow.
        self.all(sql::LACKED, [peer.as_str()], |row| {
            backlog.add(row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?);
            Ok(())
        })?;
        Ok(backlog)
    }

    fn tombstones(&self, through: Seq, limit: usize) -> Result<Vec<SharePath>, IndexError> {
        let params = params![position(through), count(limit)];
        self.all(sql::TOMBSTONES, params, |row| row::path(row, 0))
    }

    fn copies(&self, after: &SharePath, limit: usize) -> Result<Vec<Logged>, IndexError> {
        let (dir, name) = after.split();
        self.all(sql::COPIES, params![dir, name, count(limit)], row::logged)
    }

    fn copies_count(&self) -> Result<u64, IndexError> {
        self.one(sql::COPIES_COUNT, [], |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))
    }

    fn trash_after(&self, after: TrashKey, limit: usize) -> Result<Vec<Trashed>, IndexError> {
        let params = params![after.since_ns, key_id(after), count(limit)];
        self.all(sql::TRASH_AFTER, params, row::trashed)
    }

    fn trash_before(&self, before: TrashKey, limit: usize) -> Result<Vec<Trashed>, IndexError> {
        let params = params![before.since_ns, key_id(before), count(limit)];
        self.all(sql::TRASH_BEFORE, params, row::trashed)
    }

    fn trash_at(&self, day: &str, at: &SharePath) -> Result<Option<Trashed>, IndexError> {
        self.maybe(sql::TRASH_AT, params![day, at.as_bytes()], row::trashed)
    }

    fn trash_total(&self) -> Result<(u64, u64), IndexError> {
        self.one(sql::TRASH_TOTAL, [], |row| {
            let (files, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok((files.cast_unsigned(), bytes.cast_unsigned()))
        })
    }
}

/// Returns an operation's number as a bound or key: they begin at the wall clock's nanoseconds.
pub(super) fn key_id(key: TrashKey) -> i64 {
    i64::try_from(key.id).unwrap_or(i64::MAX)
}

/// Returns the bounds, the second exclusive, of the directories below a directory.
fn subdirectories(dir: &SharePath) -> (Vec<u8>, Vec<u8>) {
    if dir.is_root() {
        // No byte of a path is 0, and no component is so long: around every path, whatever its bytes.
        return (vec![1], vec![0xff; COMPONENT_LEN_MAX + 1]);
    }
    let beside = |byte: u8| [dir.as_bytes(), &[byte]].concat();
    (beside(b'/'), beside(b'/' + 1))
}

/// Returns a position as a bound or key: one beyond every log finds what lies before it, or nothing.
pub(super) fn position(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

fn seq(row: &Row<'_>, at: usize) -> rusqlite::Result<Seq> {
    Ok(Seq(row.get::<_, i64>(at)?.cast_unsigned()))
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
