//! The index in SQLite: one file for each share, one writer, any number of readers.
//!
//! **Invariant:** one process has the writer, by a lock on a file beside the database; what
//! `commit` returned for survives a power cut (WAL, synchronous=FULL).
//! **May not:** hold more of the index in memory than its page cache, the entries that came up last, the totals
//! and the numbers of the peers.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use recsync_proto::codec::encode_record;
use recsync_proto::{Content, Epoch, Hash, NodeName, Seq, SharePath};
use rusqlite::{Connection, OpenFlags, Params, params, params_from_iter};
use rustix::fs::{FlockOperation, flock};

use super::error::{from_sqlite, other};
use super::reader::{Reader, Totals, connect, key_id, position};
use super::{
    Backlog, Entry, Guard, GuardState, Index, IndexError, IndexRead, Installed, Intent, LastStop,
    Logged, PeerCursor, Stand, TrashKey, Trashed, Unnoted, Write, migrate, row, rules,
};

/// Page cache of the writer, KiB.
const WRITER_CACHE_KIB: i64 = 8 << 10;
/// Pages of 4 KiB in the write-ahead log before it is moved into the database.
const CHECKPOINT_PAGES: i64 = 1_000;
/// What is left of a write-ahead log that a slow reader or a burst made longer, bytes.
const WAL_LEN_KEPT: i64 = 16 << 20;
/// Entries kept in memory, and names without any below: more than a node has recordings that grow.
const LATELY_MAX: usize = 4_096;

/// The durable index of one share.
///
/// A transaction begins with the first write after a commit. Dropped without a commit, what was
/// written since the last one is gone.
#[derive(Debug)]
pub struct Store {
    /// The reads over the writer's own connection: they see the open transaction.
    pub(super) reads: Reader,
    /// Entries that were read or written lately, as the open transaction has them: while a path is under way it
    /// comes up again and again, and the names above it with each. All are forgotten when they are too many.
    lately: RefCell<BTreeMap<SharePath, Option<Entry>>>,
    /// Names below which nothing lives, of those that were asked for lately: most are files.
    leaves: RefCell<BTreeSet<SharePath>>,
    /// The totals as the open transaction has them, once they were read, and whether the database has others:
    /// nearly every write moves them, so they are written once, with the commit.
    totals: Cell<Option<Totals>>,
    totals_moved: Cell<bool>,
    /// The rows of peers that came up.
    peers: RefCell<BTreeMap<NodeName, i64>>,
    /// Keeps other processes out for as long as it is open. After the connection: dropped last.
    _lock: File,
}

impl Store {
    /// True if something was written since the last commit.
    pub fn has_changes(&self) -> bool {
        !self.reads.conn.is_autocommit()
    }

    /// Returns the database's file, for [`Reader::open`].
    pub fn path(&self) -> &Path {
        &self.reads.path
    }

    /// Opens the index at `path`, or makes one with the epoch that `fresh_epoch` mints.
    ///
    /// The directory must exist. Beside the database lie its `-wal` and `-shm` files and `.lock`.
    ///
    /// # Errors
    /// `InUse` if a process, this one included, has it open; `Damaged` if the file is no index;
    /// `Newer` if its schema is unknown here.
    pub fn open(path: &Path, fresh_epoch: impl FnOnce() -> Epoch) -> Result<Self, IndexError> {
        let lock = lock(path)?;
        create(path)?;
        let mut conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)?;
        // Before the first write: a file that is not ours is not touched.
        migrate::version(&conn, path)?;
        configure(&conn, path)?;
        make_durable(&conn, path)?;
        migrate::migrate(&mut conn, path, fresh_epoch)?;
        Ok(Store {
            reads: Reader::over(conn, path)?,
            lately: RefCell::default(),
            leaves: RefCell::default(),
            totals: Cell::default(),
            totals_moved: Cell::default(),
            peers: RefCell::default(),
            _lock: lock,
        })
    }

    /// Opens a reader for another thread.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn reader(&self) -> Result<Reader, IndexError> {
        Reader::open(&self.reads.path)
    }

    /// Returns the id of the share's root as last set.
    ///
    /// # Errors
    /// If the database fails.
    pub fn root_id(&self) -> Result<Option<String>, IndexError> {
        self.reads.one("SELECT root_id FROM state", [], |row| row.get(0))
    }

    /// Returns the rules by which it was worked out what is pending, as last set.
    ///
    /// # Errors
    /// If the database fails.
    pub fn rules(&self) -> Result<Option<String>, IndexError> {
        self.reads.one("SELECT rules FROM state", [], |row| row.get(0))
    }

    /// Stores those rules, durably, together with what was written before.
    ///
    /// # Errors
    /// As [`Index::commit`].
    pub fn set_rules(&mut self, rules: &str) -> Result<(), IndexError> {
        self.transact(|store| store.run("UPDATE state SET rules = ?1", [rules]).map(drop))?;
        self.commit()
    }

    /// Stores the id of the share's root, durably, together with what was written before.
    ///
    /// # Errors
    /// As [`Index::commit`].
    pub fn set_root_id(&mut self, id: &str) -> Result<(), IndexError> {
        self.transact(|store| store.run("UPDATE state SET root_id = ?1", [id]).map(drop))?;
        self.commit()
    }

    /// Notes, durably, that a run began on this boot of the machine, and tells how the one before
    /// ended.
    ///
    /// # Errors
    /// As [`Index::commit`].
    pub fn begin_run(&mut self, boot: &str) -> Result<LastStop, IndexError> {
        let (clean, then): (bool, Option<String>) =
            self.reads
                .one("SELECT clean, boot FROM state", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let last = LastStop::of(clean, then.as_deref(), boot);
        self.transact(|store| {
            store.run("UPDATE state SET clean = 0", [])?;
            match last {
                LastStop::Down => Ok(()),
                _ => store.run("UPDATE state SET boot = ?1", [boot]).map(drop),
            }
        })?;
        self.commit()?;
        Ok(last)
    }

    /// Notes, with what is written in the open transaction, that after [`LastStop::Down`] all files
    /// were looked at on this boot.
    ///
    /// # Errors
    /// As [`Index::write`].
    pub fn set_boot(&mut self, boot: &str) -> Result<(), IndexError> {
        self.transact(|store| store.run("UPDATE state SET boot = ?1", [boot]).map(drop))
    }

    /// Notes, durably, that the run ended properly.
    ///
    /// # Errors
    /// As [`Index::commit`].
    pub fn end_run(&mut self) -> Result<(), IndexError> {
        self.transact(|store| store.run("UPDATE state SET clean = 1", []).map(drop))?;
        self.commit()
    }

    /// Gives a rolled-back or cloned index another epoch, durably: contents and head stay, every
    /// peer's cursor goes back to zero. Readers that are open keep telling the old epoch.
    ///
    /// # Errors
    /// As [`Index::commit`].
    pub fn renew_epoch(&mut self, epoch: Epoch) -> Result<(), IndexError> {
        self.transact(|store| {
            store.run("UPDATE state SET epoch = ?1", [epoch.0.cast_signed()])?;
            store.run("UPDATE peers SET acked = 0", [])?;
            store.run("DELETE FROM acks", []).map(drop)
        })?;
        self.commit()?;
        self.reads.epoch = epoch;
        Ok(())
    }

    /// Forgets all that is known of the share, its root and the peers, in one durable step, under
    /// another epoch: for a root of which this index knows nothing. The clock stays, so that no
    /// stamp is used twice.
    ///
    /// # Errors
    /// As [`Index::commit`].
    pub fn start_over(&mut self, epoch: Epoch) -> Result<(), IndexError> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'state'";
        let tables: Vec<String> = self.reads.all(sql, [], |row| row.get(0))?;
        let clock = self.totals()?.clock.cast_signed();
        self.transact(|store| {
            store.forget();
            for table in &tables {
                store.run(&format!("DELETE FROM {table}"), [])?;
            }
            store.run("DELETE FROM state", [])?;
            let row = "INSERT INTO state (only, epoch, clock) VALUES (1, ?1, ?2)";
            store.run(row, [epoch.0.cast_signed(), clock]).map(drop)
        })?;
        self.commit()?;
        self.reads.epoch = epoch;
        Ok(())
    }

    /// Returns the numbers of which the root shows one if it is of the same time as this index:
    /// the one that it had, and the one that it was to have next.
    ///
    /// # Errors
    /// If the database fails.
    pub fn witnesses(&self) -> Result<[Option<u64>; 2], IndexError> {
        let number = |number: Option<i64>| number.map(i64::cast_unsigned);
        self.reads.one("SELECT witness, witness_next FROM state", [], |row| {
            Ok([number(row.get(0)?), number(row.get(1)?)])
        })
    }

    /// Stores what [`Store::witnesses`] returns, durably.
    ///
    /// # Errors
    /// As [`Index::commit`].
    pub fn set_witnesses(&mut self, witnesses: [Option<u64>; 2]) -> Result<(), IndexError> {
        let numbers = witnesses.map(|number| number.map(u64::cast_signed));
        let sql = "UPDATE state SET witness = ?1, witness_next = ?2";
        self.transact(|store| store.run(sql, numbers).map(drop))?;
        self.commit()
    }

    /// Runs writes in the open transaction, beginning one if there is none; after an error there
    /// is none.
    fn transact(
        &mut self,
        writes: impl FnOnce(&Self) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let begun = match self.has_changes() {
            true => Ok(()),
            false => self.run("BEGIN IMMEDIATE", []).map(drop),
        };
        let done = begun.and_then(|()| writes(self));
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    fn remember(&self, path: &SharePath, entry: Option<Entry>) {
        let mut lately = self.lately.borrow_mut();
        if lately.len() >= LATELY_MAX {
            lately.clear();
        }
        lately.insert(path.clone(), entry);
    }

    /// Forgets what is kept in memory of the database and the open transaction.
    fn forget(&self) {
        self.lately.borrow_mut().clear();
        self.leaves.borrow_mut().clear();
        self.totals.set(None);
        self.totals_moved.set(false);
        self.peers.borrow_mut().clear();
    }

    fn roll_back(&self) {
        self.forget();
        // Some errors have ended the transaction already. ROLLBACK ends it even where it reports an
        // error, and the caller has one to tell that says more.
        if self.has_changes() {
            drop(self.run("ROLLBACK", []));
        }
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<usize, IndexError> {
        let done = self.reads.conn.prepare_cached(sql).and_then(|mut it| it.execute(params));
        done.map_err(|error| from_sqlite(&self.reads.path, error))
    }

    fn put_entry(&self, path: &SharePath, entry: &Entry) -> Result<(), IndexError> {
        rules::check_entry(path, entry).map_err(|why| other(&self.reads.path, why))?;
        let (dir, name) = path.split();
        let (seq_before, file_before) = self.place_of(path)?;
        let mut totals = self.totals()?;
        let moves = entry.seq != seq_before && entry.seq > Seq::ZERO;
        if moves && entry.seq <= totals.head && self.reads.at(entry.seq)?.is_some() {
            return Err(other(&self.reads.path, rules::position_taken(entry.seq, path)));
        }
        let removed = rules::says_nothing(entry);
        if removed {
            self.run("DELETE FROM entries WHERE dir = ?1 AND name = ?2", params![dir, name])?;
        } else {
            let via = entry.via.as_ref().map(|peer| self.peer_row(peer)).transpose()?;
            self.run(row::PUT_ENTRY, params_from_iter(row::entry_params(path, entry, via)))?;
        }
        if seq_before > Seq::ZERO && (removed || entry.seq != seq_before) {
            self.run("DELETE FROM acks WHERE seq = ?1", [position(seq_before)])?;
        }
        if !entry.record.is_tombstone() {
            let mut leaves = self.leaves.borrow_mut();
            for above in path.ancestors() {
                leaves.remove(&above);
            }
        }
        totals.head = totals.head.max(entry.seq);
        totals.count_file(file_before, installed_file(entry));
        self.move_totals(totals);
        self.remember(path, (!removed).then(|| entry.clone()));
        Ok(())
    }

    /// Returns a path's position in the log and the size of the file that is installed there.
    fn place_of(&self, path: &SharePath) -> Result<(Seq, Option<u64>), IndexError> {
        if let Some(entry) = self.lately.borrow().get(path) {
            return Ok(entry.as_ref().map(|it| (it.seq, installed_file(it))).unwrap_or_default());
        }
        let (dir, name) = path.split();
        let place = self.reads.maybe(
            "SELECT seq, content = 1, content_size FROM entries WHERE dir = ?1 AND name = ?2",
            params![dir, name],
            |row| {
                let seq: Option<i64> = row.get(0)?;
                let file: Option<bool> = row.get(1)?;
                let size: Option<i64> = row.get(2)?;
                let bytes = (file == Some(true)).then(|| size.unwrap_or(0).cast_unsigned());
                Ok((Seq(seq.unwrap_or(0).cast_unsigned()), bytes))
            },
        )?;
        Ok(place.unwrap_or_default())
    }

    fn totals(&self) -> Result<Totals, IndexError> {
        if let Some(totals) = self.totals.get() {
            return Ok(totals);
        }
        let totals = self.reads.totals()?;
        self.totals.set(Some(totals));
        Ok(totals)
    }

    fn move_totals(&self, totals: Totals) {
        if self.totals.replace(Some(totals)) != Some(totals) {
            self.totals_moved.set(true);
        }
    }

    fn store_totals(&self) -> Result<(), IndexError> {
        if self.totals_moved.get() {
            let Totals { head, clock, files, bytes } = self.totals()?;
            let sql = "UPDATE state SET head = ?1, clock = ?2, installed_files = ?3, installed_bytes = ?4";
            self.run(sql, [head.0, clock, files, bytes].map(u64::cast_signed))?;
            self.totals_moved.set(false);
        }
        Ok(())
    }

    fn note_ack(&self, peer: &NodeName, seq: Seq, held: bool) -> Result<(), IndexError> {
        rules::check_position(seq).map_err(|why| other(&self.reads.path, why))?;
        let id = self.peer_row(peer)?;
        let told = self.reads.at(seq)?.is_some();
        let passed = seq <= self.reads.peer(peer)?.acked;
        if told && (held || !passed) {
            let sql = "INSERT OR REPLACE INTO acks (seq, peer, held) VALUES (?1, ?2, ?3)";
            self.run(sql, params![position(seq), id, held]).map(drop)
        } else {
            let sql = "DELETE FROM acks WHERE seq = ?1 AND peer = ?2";
            self.run(sql, params![position(seq), id]).map(drop)
        }
    }

    fn put_cursor(&self, peer: &NodeName, cursor: &PeerCursor) -> Result<(), IndexError> {
        rules::check_position(cursor.acked).map_err(|why| other(&self.reads.path, why))?;
        let id = self.peer_row(peer)?;
        let before = position(self.reads.peer(peer)?.acked);
        let acked = position(cursor.acked);
        let (epoch, head) =
            cursor.seen.map(|(epoch, head)| (epoch.0.cast_signed(), head.0.cast_signed())).unzip();
        self.run(
            "UPDATE peers SET epoch = ?2, head = ?3, acked = ?4 WHERE id = ?1",
            params![id, epoch, head, acked],
        )?;
        // At or below the cursor as it was there are only held ones.
        let sql = "DELETE FROM acks WHERE seq > ?2 AND seq <= ?3 AND peer = ?1 AND NOT held";
        self.run(sql, [id, before, acked]).map(drop)
    }

    /// Returns the number of a peer's row, which is made if there is none.
    fn peer_row(&self, peer: &NodeName) -> Result<i64, IndexError> {
        if let Some(id) = self.peers.borrow().get(peer) {
            return Ok(*id);
        }
        let find = "SELECT id FROM peers WHERE name = ?1";
        let id = match self.reads.maybe(find, [peer.as_str()], |row| row.get(0))? {
            Some(id) => id,
            None => {
                self.run("INSERT INTO peers (name) VALUES (?1)", [peer.as_str()])?;
                self.reads.conn.last_insert_rowid()
            }
        };
        self.peers.borrow_mut().insert(peer.clone(), id);
        Ok(id)
    }

    fn put_stand(&self, guard: Guard, stand: Stand) -> Result<(), IndexError> {
        let (stand, gone, of) = row::stand_columns(stand);
        let sql = "INSERT OR REPLACE INTO guards (guard, stand, gone, files)
            VALUES (?1, ?2, ?3, ?4)";
        let numbers = [row::guard_number(guard), stand, gone.cast_signed(), of.cast_signed()];
        self.run(sql, numbers).map(drop)
    }

    fn put_passed(&self, guard: Guard, second: i64, count: u64) -> Result<(), IndexError> {
        let guard = row::guard_number(guard);
        if count == 0 {
            let sql = "DELETE FROM passed WHERE guard = ?1 AND second = ?2";
            return self.run(sql, [guard, second]).map(drop);
        }
        let sql = "INSERT OR REPLACE INTO passed (guard, second, count) VALUES (?1, ?2, ?3)";
        self.run(sql, [guard, second, count.cast_signed()]).map(drop)
    }

    fn put_trashed(&self, trashed: &Trashed) -> Result<(), IndexError> {
        self.forget_trashed(trashed.key())?;
        if let Some(before) = self.reads.trash_at(&trashed.day, &trashed.at)? {
            self.forget_trashed(before.key())?;
        }
        self.run(row::PUT_TRASHED, params_from_iter(row::trashed_params(trashed)))?;
        let count =
            "UPDATE state SET trash_files = trash_files + 1, trash_bytes = trash_bytes + ?1";
        self.run(count, [sized(trashed.stat.size)]).map(drop)
    }

    fn forget_trashed(&self, key: TrashKey) -> Result<(), IndexError> {
        let params = params![key.since_ns, key_id(key)];
        let sql = "DELETE FROM trash WHERE since_ns = ?1 AND id = ?2 RETURNING size";
        let size = self.reads.maybe(sql, params, |row| row.get::<_, i64>(0))?;
        let Some(size) = size else { return Ok(()) };
        let count =
            "UPDATE state SET trash_files = trash_files - 1, trash_bytes = trash_bytes - ?1";
        self.run(count, [sized(size.cast_unsigned())]).map(drop)
    }

    fn raise_clock(&self, reading: u64) -> Result<(), IndexError> {
        let totals = self.totals()?;
        self.move_totals(Totals { clock: totals.clock.max(reading), ..totals });
        Ok(())
    }
}

impl Index for Store {
    fn write(&mut self, write: &Write) -> Result<(), IndexError> {
        self.transact(|store| match write {
            Write::Entry(path, entry) => store.put_entry(path, entry),
            Write::Intent(intent) => {
                store.run(row::PUT_INTENT, params_from_iter(row::intent_params(intent))).map(drop)
            }
            Write::IntentDone(id) => {
                store.run("DELETE FROM intents WHERE id = ?1", [id.cast_signed()]).map(drop)
            }
            Write::Unnoted(unnoted) => {
                let sql = "INSERT OR REPLACE INTO unnoted (path, seq, record) VALUES (?1, ?2, ?3)";
                let Unnoted { path, seq, record } = unnoted;
                let record = encode_record(record);
                store.run(sql, params![path.as_bytes(), position(*seq), record]).map(drop)
            }
            Write::Noted(path) => {
                store.run("DELETE FROM unnoted WHERE path = ?1", [path.as_bytes()]).map(drop)
            }
            Write::Acked { peer, seq, held } => store.note_ack(peer, *seq, *held),
            Write::Peer(peer, cursor) => store.put_cursor(peer, cursor),
            Write::Unlearned(peer) => {
                store.lately.borrow_mut().clear();
                let unlearn =
                    "UPDATE entries SET via = NULL WHERE via = (SELECT id FROM peers WHERE name = ?1)";
                store.run(unlearn, [peer.as_str()])?;
                let forget = "DELETE FROM acks WHERE peer = (SELECT id FROM peers WHERE name = ?1)";
                store.run(forget, [peer.as_str()]).map(drop)
            }
            Write::Clock(reading) => store.raise_clock(*reading),
            Write::Stand(guard, stand) => store.put_stand(*guard, *stand),
            Write::Passed { guard, second, count } => store.put_passed(*guard, *second, *count),
            Write::Trashed(trashed) => store.put_trashed(trashed),
            Write::TrashGone(key) => store.forget_trashed(*key),
        })
    }

    fn commit(&mut self) -> Result<(), IndexError> {
        if !self.has_changes() {
            return Ok(());
        }
        let done = self.store_totals().and_then(|()| self.run("COMMIT", []).map(drop));
        if done.is_err() {
            self.roll_back();
        }
        done
    }
}

impl IndexRead for Store {
    fn epoch(&self) -> Epoch {
        self.reads.epoch()
    }

    fn head(&self) -> Result<Seq, IndexError> {
        Ok(self.totals()?.head)
    }

    fn clock(&self) -> Result<u64, IndexError> {
        Ok(self.totals()?.clock)
    }

    fn entry(&self, path: &SharePath) -> Result<Option<Entry>, IndexError> {
        if let Some(entry) = self.lately.borrow().get(path) {
            return Ok(entry.clone());
        }
        let entry = self.reads.entry(path)?;
        self.remember(path, entry.clone());
        Ok(entry)
    }

    fn installed_in(
        &self,
        dir: &SharePath,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Installed)>, IndexError> {
        self.reads.installed_in(dir, after, limit)
    }

    fn has_live_below(&self, dir: &SharePath) -> Result<bool, IndexError> {
        if self.leaves.borrow().contains(dir) {
            return Ok(false);
        }
        let has = self.reads.has_live_below(dir)?;
        if !has && !dir.is_root() {
            let mut leaves = self.leaves.borrow_mut();
            if leaves.len() >= LATELY_MAX {
                leaves.clear();
            }
            leaves.insert(dir.clone());
        }
        Ok(has)
    }

    fn has_installed_below(&self, dir: &SharePath) -> Result<bool, IndexError> {
        self.reads.has_installed_below(dir)
    }

    fn next_installed_dir(
        &self,
        dir: &SharePath,
        from: &[u8],
    ) -> Result<Option<SharePath>, IndexError> {
        self.reads.next_installed_dir(dir, from)
    }

    fn installed_with(&self, hash: &Hash, limit: usize) -> Result<Vec<SharePath>, IndexError> {
        self.reads.installed_with(hash, limit)
    }

    fn installed_inode(
        &self,
        fs: u64,
        ino: u64,
        limit: usize,
    ) -> Result<Vec<SharePath>, IndexError> {
        self.reads.installed_inode(fs, ino, limit)
    }

    fn log(&self, from: Seq, until: Seq, limit: usize) -> Result<Vec<Logged>, IndexError> {
        self.reads.log(from, until, limit)
    }

    fn at(&self, seq: Seq) -> Result<Option<SharePath>, IndexError> {
        self.reads.at(seq)
    }

    fn pending(&self, below: Seq, limit: usize) -> Result<Vec<Logged>, IndexError> {
        self.reads.pending(below, limit)
    }

    fn pending_files(&self) -> Result<u64, IndexError> {
        self.reads.pending_files()
    }

    fn installed_files(&self) -> Result<(u64, u64), IndexError> {
        let totals = self.totals()?;
        Ok((totals.files, totals.bytes))
    }

    fn intents(&self) -> Result<Vec<Intent>, IndexError> {
        self.reads.intents()
    }

    fn unnoted(&self) -> Result<Vec<Unnoted>, IndexError> {
        self.reads.unnoted()
    }

    fn guard(&self, guard: Guard) -> Result<GuardState, IndexError> {
        self.reads.guard(guard)
    }

    fn peer(&self, peer: &NodeName) -> Result<PeerCursor, IndexError> {
        self.reads.peer(peer)
    }

    fn is_acked(&self, peer: &NodeName, seq: Seq) -> Result<bool, IndexError> {
        self.reads.is_acked(peer, seq)
    }

    fn is_held(&self, peer: &NodeName, seq: Seq) -> Result<bool, IndexError> {
        self.reads.is_held(peer, seq)
    }

    fn acked_through(&self, peer: &NodeName, acked: Seq) -> Result<Seq, IndexError> {
        self.reads.acked_until(peer, acked)?.map_or_else(|| self.head(), Ok)
    }

    fn backlog(&self, peer: &NodeName) -> Result<Backlog, IndexError> {
        self.reads.backlog(peer)
    }

    fn tombstones(&self, through: Seq, limit: usize) -> Result<Vec<SharePath>, IndexError> {
        self.reads.tombstones(through, limit)
    }

    fn copies(&self, after: &SharePath, limit: usize) -> Result<Vec<Logged>, IndexError> {
        self.reads.copies(after, limit)
    }

    fn copies_count(&self) -> Result<u64, IndexError> {
        self.reads.copies_count()
    }

    fn trash_after(&self, after: TrashKey, limit: usize) -> Result<Vec<Trashed>, IndexError> {
        self.reads.trash_after(after, limit)
    }

    fn trash_before(&self, before: TrashKey, limit: usize) -> Result<Vec<Trashed>, IndexError> {
        self.reads.trash_before(before, limit)
    }

    fn trash_at(&self, day: &str, at: &SharePath) -> Result<Option<Trashed>, IndexError> {
        self.reads.trash_at(day, at)
    }

    fn trash_total(&self) -> Result<(u64, u64), IndexError> {
        self.reads.trash_total()
    }
}

/// Returns a size as the counter of the trash takes it: no disk holds so much that sums overflow.
fn sized(size: u64) -> i64 {
    size.min(1 << 50).cast_signed()
}

/// Returns the size of the file that is installed, if one is.
fn installed_file(entry: &Entry) -> Option<u64> {
    match entry.installed.as_ref()?.content {
        Content::File { size, .. } => Some(size),
        Content::Dir | Content::Symlink { .. } => None,
    }
}

/// Takes the lock that keeps a second process out.
fn lock(path: &Path) -> Result<File, IndexError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = private().create(true).truncate(false).open(PathBuf::from(name));
    let lock = lock.map_err(|error| other(path, format!("its lock cannot be opened: {error}")))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(IndexError::InUse { path: path.display().to_string() })
        }
        Err(errno) => Err(other(path, format!("its lock cannot be taken: {errno}"))),
    }
}

/// Makes an empty database file if there is none, unreadable to others: it holds telephone numbers.
///
/// A file that is there is not opened: closing it would drop the database's own locks (fcntl(2)).
fn create(path: &Path) -> Result<(), IndexError> {
    match private().create_new(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::StorageFull => {
            Err(IndexError::NoSpace { path: path.display().to_string() })
        }
        Err(error) => Err(other(path, format!("it cannot be made: {error}"))),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Sets what makes a commit durable and keeps the write-ahead log short.
fn configure(conn: &Connection, path: &Path) -> Result<(), IndexError> {
    let set = || {
        let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        conn.pragma_update(None, "journal_size_limit", WAL_LEN_KEPT)?;
        Ok(mode)
    };
    match set().map_err(|error| from_sqlite(path, error))?.as_str() {
        "wal" => Ok(()),
        mode => Err(other(path, format!("its filesystem allows no WAL, only {mode}"))),
    }
}

/// Makes what the write-ahead log holds durable: a process that was killed, or whose sync failed,
/// may have written it only. Moved into the database, it is written anew, and synced.
fn make_durable(conn: &Connection, path: &Path) -> Result<(), IndexError> {
    let busy = conn.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get(0));
    match busy.map_err(|error| from_sqlite(path, error))? {
        false => Ok(()),
        true => Err(other(path, "a reader keeps its log from being moved into it")),
    }
}
