//! One suite, run on both indexes; random histories, on which both must give equal answers; and
//! what only the database can get wrong.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{Index as Pick, select};
use recsync_proto::{
    Content, Context, Dot, Epoch, Hash, NodeName, Owner, Record, Register, Seq, SharePath, Stamp,
    Value,
};
use tempfile::TempDir;

use super::*;
use crate::tree::{Kind, Place};

const EPOCH: Epoch = Epoch(0xfedc_ba98_7654_3210);
const ALL: usize = usize::MAX;
const END: Seq = Seq(u64::MAX);

fn path(text: &str) -> SharePath {
    if text.is_empty() { SharePath::root() } else { SharePath::new(text).unwrap() }
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn hash(tag: u8) -> Hash {
    Hash([tag; 32])
}

fn file(size: u64, tag: u8) -> Content {
    Content::File { size, hash: hash(tag) }
}

/// A record whose values were written by `writer`, one after the other, all kept.
fn record(writer: u64, contents: &[Content]) -> Record {
    let mut record = Record::default();
    for (content, seq) in contents.iter().zip(1..) {
        let dot = Dot { epoch: Epoch(writer), seq: Seq(seq) };
        let stamp = Stamp { hlc: seq, node: node("fs1") };
        record.context.insert(dot);
        record.values.push(Value {
            dot,
            mtime_ns: Register { value: -1, stamp: stamp.clone() },
            stamp,
            content: content.clone(),
            lacks: BTreeSet::new(),
        });
    }
    record
}

fn tombstone() -> Record {
    let mut context = Context::new();
    context.insert(Dot { epoch: Epoch(1), seq: Seq(9) });
    Record { context, ..Record::default() }
}

fn fingerprint(ino: u64) -> Fingerprint {
    Fingerprint {
        kind: Kind::File,
        fs: u64::MAX,
        ino,
        size: 1 << 40,
        mtime_ns: i64::MIN,
        ctime_ns: i64::MAX,
        mode: 0o7777,
        uid: u32::MAX,
        gid: 0,
        nlink: 1,
    }
}

fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

fn installed(content: Content, ino: u64) -> Installed {
    let owner = Some(owner("freeswitch:daemon"));
    Installed { content, fingerprint: fingerprint(ino), mtime_ns: 7, mode: 0o640, owner }
}

/// A local recording: noted in the log and installed.
fn noted(seq: u64, size: u64, tag: u8) -> Entry {
    Entry {
        record: record(1, &[file(size, tag)]),
        installed: Some(installed(file(size, tag), seq)),
        seq: Seq(seq),
        changed_ns: i64::try_from(seq).unwrap() * 10,
        ..Entry::default()
    }
}

/// A record that came from a peer and waits to be installed.
fn received(seq: u64, via: &str) -> Entry {
    Entry { installed: None, via: Some(node(via)), pending: true, ..noted(seq, 5, 5) }
}

fn gone(seq: u64) -> Entry {
    Entry { record: tombstone(), seq: Seq(seq), ..Entry::default() }
}

fn put(index: &mut impl Index, at: &str, entry: Entry) {
    index.write(&Write::Entry(path(at), entry)).unwrap();
}

fn ack(index: &mut impl Index, peer: &str, seq: u64, held: bool) {
    index.write(&Write::Acked { peer: node(peer), seq: Seq(seq), held }).unwrap();
}

fn cursor(index: &mut impl Index, peer: &str, acked: u64) {
    let cursor = PeerCursor { seen: Some((Epoch(u64::MAX), END)), acked: Seq(acked) };
    index.write(&Write::Peer(node(peer), cursor)).unwrap();
}

fn names(paths: &[SharePath]) -> Vec<String> {
    paths.iter().map(SharePath::to_string).collect()
}

fn logged_names(logged: &[Logged]) -> Vec<String> {
    logged.iter().map(|it| it.path.to_string()).collect()
}

/// What the suite needs beyond the traits.
trait Crash: Index {
    /// Drops what is not committed, as a power cut does.
    fn crash(&mut self);
    fn renew(&mut self, epoch: Epoch);
}

impl Crash for Memory {
    fn crash(&mut self) {
        Memory::crash(self);
    }

    fn renew(&mut self, epoch: Epoch) {
        self.renew_epoch(epoch).unwrap();
    }
}

/// A store that is opened again after a crash.
struct Stored {
    store: Option<Store>,
    dir: TempDir,
}

impl Stored {
    fn new() -> Self {
        let mut stored = Stored { store: None, dir: tempfile::tempdir().unwrap() };
        stored.reopen();
        stored
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("index.db")
    }

    fn reopen(&mut self) {
        self.store = None;
        // A child process that another test is just starting holds the lock until its exec.
        let mut opened = Store::open(&self.file(), || EPOCH);
        while matches!(opened, Err(IndexError::InUse { .. })) {
            std::thread::yield_now();
            opened = Store::open(&self.file(), || EPOCH);
        }
        self.store = Some(opened.unwrap());
    }

    fn get(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn get_mut(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }
}

impl Crash for Store {
    fn crash(&mut self) {
        // Dropped and opened again by the histories below; here only what a failed write does.
        drop(self.write(&Write::Entry(SharePath::root(), Entry::default())));
    }

    fn renew(&mut self, epoch: Epoch) {
        self.renew_epoch(epoch).unwrap();
    }
}

/// Runs each function as a test on both indexes.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $name() { super::$name(&mut super::Memory::new(super::EPOCH)); })*
        }
        mod store {
            $(#[test] fn $name() { super::$name(super::Stored::new().get_mut()); })*
        }
    };
}

on_both! {
    a_new_index_is_empty, an_entry_reads_back, an_entry_that_says_nothing_is_removed,
    head_never_falls, what_is_installed_comes_by_name, directories_that_hold_something_come_by_bytes,
    an_owner_that_is_not_known_is_the_one_of_the_record, below_is_the_subtree_alone,
    installed_files_are_found_and_counted, the_log_holds_each_path_once,
    pending_comes_newest_first, intents_read_back, what_is_not_noted_reads_back, what_guards_remember_reads_back,
    the_clock_never_falls,
    a_cursor_passes_what_is_acked_or_came_from_the_peer, acks_go_with_their_position,
    held_acks_outlive_the_cursor, a_peer_with_another_index_has_acknowledged_nothing, backlog_counts_what_is_lacked,
    tombstones_are_found, conflict_copies_are_found_by_their_names, the_trash_is_found_by_age_and_by_place, what_breaks_a_rule_is_refused_and_undone, a_crash_undoes_all_since_commit,
    another_epoch_keeps_the_contents_and_resets_cursors, positions_beyond_the_log_are_nobodys,
    paths_may_trade_positions,
}

fn a_new_index_is_empty(index: &mut impl Index) {
    assert_eq!(index.epoch(), EPOCH);
    assert_eq!(index.head(), Ok(Seq::ZERO));
    assert_eq!(index.clock(), Ok(0));
    assert_eq!(index.entry(&path("a")), Ok(None));
    assert_eq!(index.entry(&path("")), Ok(None));
    assert_eq!(index.installed_in(&path(""), b"", ALL), Ok(vec![]));
    assert_eq!(index.has_live_below(&path("")), Ok(false));
    assert_eq!(index.installed_files(), Ok((0, 0)));
    assert_eq!(index.peer(&node("fs2")), Ok(PeerCursor::default()));
    assert_eq!(index.acked_through(&node("fs2"), Seq::ZERO), Ok(Seq::ZERO));
    assert_eq!(index.backlog(&node("fs2")), Ok(Backlog::default()));
    assert_eq!(index.commit(), Ok(()));
}

fn conflict_copies_are_found_by_their_names(index: &mut impl Index) {
    let all = ["a.conflict-x.wav", "z.conflict-1", "d/b.conflict-y"];
    for (at, seq) in all.iter().zip(1..) {
        put(index, at, noted(seq, 1, 1));
    }
    put(index, "d/other.wav", noted(8, 1, 1));
    put(index, "d/gone.conflict-z", gone(9));
    let names = |after: &str, limit| logged_names(&index.copies(&path(after), limit).unwrap());
    assert_eq!(names("", ALL), all);
    assert_eq!(names("", 2), all[..2]);
    assert_eq!(names(all[1], ALL), all[2..]);
    assert_eq!(names("a", ALL), all, "a path that is no copy will do");
    assert_eq!(index.copies_count(), Ok(3));
}

fn trashed(since_ns: i64, id: u64, at: &str) -> Trashed {
    Trashed {
        since_ns,
        id,
        day: "2026-11-22".to_owned(),
        at: path(at),
        path: path("a/b"),
        content: Some(file(7, 7)),
        stat: Fingerprint { size: 7, ..fingerprint(id) },
        why: Why::Deleted,
        peer: Some(node("fs2")),
    }
}

fn the_trash_is_found_by_age_and_by_place(index: &mut impl Crash) {
    let link = Content::Symlink { target: b"x".to_vec() };
    let all = [
        trashed(-1, 9, "a/b~9"),
        trashed(1, 1, "a/b~1"),
        Trashed { content: None, why: Why::Found, peer: None, ..trashed(1, 2, "c") },
        Trashed { content: Some(link), why: Why::Replaced, ..trashed(5, 3, "d") },
    ];
    for one in [3, 0, 2, 1] {
        index.write(&Write::Trashed(all[one].clone())).unwrap();
    }
    index.commit().unwrap();
    assert_eq!(index.trash_after(TrashKey::FIRST, ALL), Ok(all.to_vec()));
    assert_eq!(index.trash_after(all[1].key(), 1), Ok(vec![all[2].clone()]));
    let newest_first: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(index.trash_before(TrashKey::LAST, ALL), Ok(newest_first));
    assert_eq!(index.trash_before(all[2].key(), 1), Ok(vec![all[1].clone()]));
    assert_eq!(index.trash_at("2026-11-22", &path("c")), Ok(Some(all[2].clone())));
    assert_eq!(index.trash_at("2026-11-23", &path("c")), Ok(None));
    assert_eq!(index.trash_total(), Ok((4, 28)));

    // The same again, another thing at a known place, and one that goes.
    index.write(&Write::Trashed(all[0].clone())).unwrap();
    index.write(&Write::Trashed(trashed(8, 8, "c"))).unwrap();
    index.write(&Write::TrashGone(all[3].key())).unwrap();
    index.write(&Write::TrashGone(all[3].key())).unwrap();
    assert_eq!(index.trash_total(), Ok((3, 21)));
    assert_eq!(index.trash_at("2026-11-22", &path("c")), Ok(Some(trashed(8, 8, "c"))));
    index.crash();
    assert_eq!(index.trash_after(TrashKey::FIRST, ALL), Ok(all.to_vec()));
    assert_eq!(index.trash_total(), Ok((4, 28)));
}

fn an_entry_reads_back(index: &mut impl Index) {
    let link = Content::Symlink { target: b"\xff/..".to_vec() };
    let mut special = installed(Content::Dir, u64::MAX);
    special.fingerprint.kind = Kind::Special;
    let entries = [
        noted(1, u64::MAX >> 24, 1),
        received(2, "fs2"),
        gone(3),
        Entry { installed: Some(special), ..Entry::default() },
        Entry { installed: Some(installed(link.clone(), 0)), changed_ns: -1, ..received(4, "a") },
        Entry { record: record(u64::MAX, &[Content::Dir, file(1, 1), link]), ..noted(5, 0, 0) },
        Entry {
            record: Record {
                mode: Some(Register {
                    value: 0o600,
                    stamp: Stamp { hlc: u64::MAX, node: node("b") },
                }),
                ..Record::default()
            },
            ..Entry::default()
        },
        Entry {
            record: Record {
                owner: Some(Register {
                    value: owner("freeswitch:daemon"),
                    stamp: Stamp { hlc: 1, node: node("b") },
                }),
                ..Record::default()
            },
            ..Entry::default()
        },
    ];
    let place = SharePath::new(b"d/\xfe\x01 name".to_vec()).unwrap();
    for entry in entries {
        index.write(&Write::Entry(place.clone(), entry.clone())).unwrap();
        assert_eq!(index.entry(&place), Ok(Some(entry.clone())));
        index.commit().unwrap();
        assert_eq!(index.entry(&place), Ok(Some(entry)));
    }
}

fn an_entry_that_says_nothing_is_removed(index: &mut impl Index) {
    put(index, "a", noted(1, 4, 1));
    put(index, "a", Entry { seq: Seq(2), changed_ns: 5, pending: true, ..Entry::default() });
    assert_eq!(index.entry(&path("a")), Ok(None));
    assert_eq!(index.at(Seq(2)), Ok(None));
    assert_eq!(index.has_live_below(&path("")), Ok(false));
    assert_eq!(index.installed_files(), Ok((0, 0)));
    put(index, "never-there", Entry::default());
}

fn head_never_falls(index: &mut impl Index) {
    put(index, "a", noted(7, 4, 1));
    index.commit().unwrap();
    put(index, "a", Entry::default());
    assert_eq!(index.head(), Ok(Seq(7)));
    put(index, "b", noted(3, 4, 1));
    assert_eq!(index.head(), Ok(Seq(7)));
    put(index, "c", Entry { seq: Seq(9), ..Entry::default() });
    assert_eq!(index.head(), Ok(Seq(9)), "a position that was minted is not minted again");
}

fn what_is_installed_comes_by_name(index: &mut impl Index) {
    // Whole paths sort otherwise: `-` and `.` come before `/`, `0` comes after.
    for (at, seq) in ["a/b", "a", "a-b", "a0", "a/b0", "a/b-c", "a/b/c", "a.b/x"].iter().zip(1..) {
        put(index, at, noted(seq, 1, 1));
    }
    put(index, "a/b.gone", gone(20));
    put(index, "a/b.new", received(21, "fs2"));
    let list = |dir: &str, after: &[u8], limit| {
        let installed = index.installed_in(&path(dir), after, limit).unwrap();
        installed.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(list("", b"", ALL), ["a", "a-b", "a0"]);
    assert_eq!(list("a", b"", ALL), ["b", "b-c", "b0"]);
    assert_eq!(list("a/b", b"", ALL), ["c"]);
    assert_eq!(list("a", b"b", 1), ["b-c"]);
    assert_eq!(list("a", b"b.new", ALL), ["b0"]);
    assert_eq!(list("a", b"b0", ALL), [""; 0]);
    assert_eq!(list("a-b", b"", ALL), [""; 0]);
    assert_eq!(list("a", b"", 0), [""; 0]);
}

fn directories_that_hold_something_come_by_bytes(index: &mut impl Index) {
    for (at, seq) in ["a/b/c/x", "a/b/y", "a/b-c/x", "a-b/x", "a0/x", "top"].iter().zip(1..) {
        put(index, at, noted(seq, 1, 1));
    }
    put(index, "a/gone/x", gone(20));
    put(index, "a/told/x", received(21, "fs2"));
    let next = |dir: &str, from: &[u8]| {
        let found = index.next_installed_dir(&path(dir), from).unwrap();
        found.map_or_else(|| "-".to_owned(), |found| found.to_string())
    };
    assert_eq!(next("", b""), "a-b");
    assert_eq!(next("", b"a-b\0"), "a/b");
    assert_eq!(next("a", b""), "a/b");
    assert_eq!(next("a", b"a/b"), "a/b", "inclusive");
    assert_eq!(next("a", b"a/b\0"), "a/b-c");
    assert_eq!(next("a", b"a/b-c\0"), "a/b/c", "the deeper one is later");
    assert_eq!(next("a", b"a/b0"), "-");
    assert_eq!(next("", b"a/b0"), "a0");
    assert_eq!(next("", b"b"), "-", "not the root itself");
    assert_eq!(next("a/b/c", b""), "-", "not the directory itself");
}

fn an_owner_that_is_not_known_is_the_one_of_the_record(index: &mut impl Index) {
    let stamp = Stamp { hlc: 1, node: node("fs2") };
    let told = |entry: Entry| {
        let owner = Some(Register { value: owner("told:told"), stamp: stamp.clone() });
        Entry { record: Record { owner, ..entry.record.clone() }, ..entry }
    };
    let unknown = |entry: Entry| {
        let installed = entry.installed.clone().map(|it| Installed { owner: None, ..it });
        Entry { installed, ..entry }
    };
    put(index, "d/known", told(noted(1, 1, 1)));
    put(index, "d/nobody", unknown(noted(2, 1, 1)));
    put(index, "d/told", unknown(told(noted(3, 1, 1))));
    let found = index.installed_in(&path("d"), b"", ALL).unwrap();
    let owners: Vec<_> = found.iter().map(|(_, it)| it.owner.clone()).collect();
    assert_eq!(owners, [Some(owner("freeswitch:daemon")), None, Some(owner("told:told"))]);
    for (name, installed) in found {
        let entry = index.entry(&path("d").join(&name).unwrap()).unwrap().unwrap();
        let owner = installed.owner.clone();
        assert_eq!(Some(installed), entry.installed.map(|it| Installed { owner, ..it }));
    }
}

fn below_is_the_subtree_alone(index: &mut impl Index) {
    put(index, "d/e/x", noted(1, 1, 1));
    put(index, "d.e", gone(2));
    put(index, "f/x", gone(3));
    put(index, "f0/x", noted(4, 1, 1));
    put(index, "f-/x", noted(10, 1, 1));
    put(index, "g/y", received(5, "fs2"));
    let below = |dir: &str| {
        let dir = path(dir);
        (index.has_live_below(&dir).unwrap(), index.has_installed_below(&dir).unwrap())
    };
    assert_eq!(below(""), (true, true));
    assert_eq!(below("d"), (true, true));
    assert_eq!(below("d/e"), (true, true));
    assert_eq!(below("d/e/x"), (false, false), "not the path itself");
    assert_eq!(below("d.e"), (false, false));
    assert_eq!(below("f"), (false, false), "f0 and f- are no part of f, f/x is gone");
    assert_eq!(below("g"), (true, false));
    put(index, "d/e/x", Entry { record: tombstone(), ..noted(6, 1, 1) });
    assert_eq!(index.has_live_below(&path("d")), Ok(false));
    assert_eq!(index.has_installed_below(&path("d")), Ok(true));
    put(index, "\u{7ff}/x", received(7, "fs2"));
    put(index, "f0/x", gone(8));
    put(index, "f-/x", gone(11));
    put(index, "g/y", gone(9));
    assert_eq!(index.has_live_below(&path("")), Ok(true));
}

fn installed_files_are_found_and_counted(index: &mut impl Index) {
    put(index, "a", noted(1, 10, 1));
    put(index, "b", noted(2, 20, 1));
    put(index, "c", noted(3, 40, 2));
    put(index, "d", Entry { installed: Some(installed(Content::Dir, 1)), ..gone(4) });
    assert_eq!(index.installed_files(), Ok((3, 70)));
    let with = |tag, limit| {
        let mut paths = names(&index.installed_with(&hash(tag), limit).unwrap());
        paths.sort();
        paths
    };
    assert_eq!(with(1, ALL), ["a", "b"]);
    assert_eq!(with(1, 1).len(), 1);
    assert_eq!(with(3, ALL), [""; 0]);
    let mut near = hash(1);
    near.0[31] = 0;
    assert_eq!(index.installed_with(&near, ALL), Ok(vec![]), "the whole hash counts");

    let inode = |fs, ino| {
        let mut paths = names(&index.installed_inode(fs, ino, ALL).unwrap());
        paths.sort();
        paths
    };
    assert_eq!(inode(u64::MAX, 1), ["a", "d"]);
    assert_eq!(inode(0, 1), [""; 0]);

    put(index, "a", Entry { installed: Some(installed(file(5, 2), 77)), ..noted(5, 0, 0) });
    put(index, "b", gone(6));
    assert_eq!(index.installed_files(), Ok((2, 45)));
    assert_eq!(index.installed_with(&hash(1), ALL), Ok(vec![]));
    assert_eq!(names(&index.installed_inode(u64::MAX, 77, ALL).unwrap()), ["a"]);
}

fn the_log_holds_each_path_once(index: &mut impl Index) {
    put(index, "a", noted(1, 1, 1));
    put(index, "b", noted(2, 1, 1));
    put(index, "c", Entry { seq: Seq::ZERO, ..noted(3, 1, 1) });
    put(index, "a", noted(4, 1, 1));
    let log = |from, until, limit| logged_names(&index.log(from, until, limit).unwrap());
    assert_eq!(log(Seq::ZERO, END, ALL), ["b", "a"]);
    assert_eq!(log(Seq(2), Seq(4), ALL), ["b", "a"]);
    assert_eq!(log(Seq(3), Seq(4), ALL), ["a"]);
    assert_eq!(log(Seq(2), Seq(3), ALL), ["b"]);
    assert_eq!(log(Seq::ZERO, END, 1), ["b"]);
    assert_eq!(log(Seq(4), Seq(2), ALL), [""; 0]);
    assert_eq!(index.log(Seq(4), Seq(4), 1).unwrap()[0].entry, noted(4, 1, 1));
    assert_eq!(index.at(Seq(1)), Ok(None));
    assert_eq!(index.at(Seq(4)), Ok(Some(path("a"))));
    assert_eq!(index.at(Seq::ZERO), Ok(None));
}

fn pending_comes_newest_first(index: &mut impl Index) {
    for (at, seq) in ["a", "b", "c"].iter().zip(1..) {
        put(index, at, received(seq, "fs2"));
    }
    put(index, "d", noted(4, 1, 1));
    put(index, "unlogged", Entry { seq: Seq::ZERO, ..received(5, "fs2") });
    let pending = |below, limit| logged_names(&index.pending(below, limit).unwrap());
    assert_eq!(pending(END, ALL), ["c", "b", "a"]);
    assert_eq!(pending(Seq(3), ALL), ["b", "a"]);
    assert_eq!(pending(END, 1), ["c"]);
    assert_eq!(pending(Seq::ZERO, ALL), [""; 0]);
    put(index, "b", Entry { pending: false, ..received(2, "fs2") });
    assert_eq!(logged_names(&index.pending(END, ALL).unwrap()), ["c", "a"]);
}

fn intents_read_back(index: &mut impl Index) {
    let places = [
        Place::Share(path("")),
        Place::Share(path("x/y")),
        Place::Temp("1f".to_owned()),
        Place::Trash { day: "2026-11-22".to_owned(), path: path("x/y~1f") },
    ];
    let staged =
        [None, Some(file(3, 3)), Some(Content::Dir), Some(Content::Symlink { target: vec![b'/'] })];
    let mut told = Vec::new();
    for ((displaced, staged), id) in places.into_iter().zip(staged).zip([u64::MAX, 3, 1, 2]) {
        let (path, made) = (path("x/y"), id == 3);
        let intent = Intent { id, path, expect: fingerprint(id), displaced, staged, made };
        index.write(&Write::Intent(intent.clone())).unwrap();
        told.push(intent);
    }
    told.sort_by_key(|intent| intent.id);
    assert_eq!(index.intents(), Ok(told.clone()));
    index.commit().unwrap();
    index.write(&Write::IntentDone(2)).unwrap();
    index.write(&Write::IntentDone(99)).unwrap();
    told.remove(1);
    assert_eq!(index.intents(), Ok(told.clone()));
    told[0].path = path("z");
    index.write(&Write::Intent(told[0].clone())).unwrap();
    assert_eq!(index.intents(), Ok(told));
}

fn what_is_not_noted_reads_back(index: &mut impl Index) {
    let unnoted = |name: &str, seq, record: &Record| Unnoted {
        path: path(name),
        seq: Seq(seq),
        record: record.clone(),
    };
    let (nothing, known) = (Record::default(), record(1, &[file(3, 3)]));
    let mut told = Vec::new();
    for (name, seq) in [("a", 7), ("a", 2), ("a-b", 1), ("a/b", 0)] {
        let one = unnoted(name, seq, if seq == 0 { &nothing } else { &known });
        index.write(&Write::Unnoted(one.clone())).unwrap();
        told.push(one);
    }
    told.sort_by_key(|one| (one.path.clone(), one.seq));
    assert_eq!(index.unnoted(), Ok(told.clone()));
    index.commit().unwrap();
    index.write(&Write::Noted(path("a"))).unwrap();
    index.write(&Write::Noted(path("b"))).unwrap();
    told.retain(|one| one.path != path("a"));
    assert_eq!(index.unnoted(), Ok(told.clone()));
    told[0].record = record(2, &[file(4, 4)]);
    index.write(&Write::Unnoted(told[0].clone())).unwrap();
    assert_eq!(index.unnoted(), Ok(told));
}

fn what_guards_remember_reads_back(index: &mut impl Index) {
    let tripped = Stand::Tripped { gone: 51, of: 100 };
    index.write(&Write::Stand(Guard::Local, tripped)).unwrap();
    for (guard, second, count) in [
        (Guard::Local, 1_000, 3),
        (Guard::Local, -1, 2),
        (Guard::Remote, 1_000, 9),
        (Guard::Local, 1_001, 1),
        (Guard::Local, 1_000, 4),
        (Guard::Local, 1_001, 0),
    ] {
        index.write(&Write::Passed { guard, second, count }).unwrap();
    }
    let passed = vec![(-1, 2), (1_000, 4)];
    assert_eq!(index.guard(Guard::Local), Ok(GuardState { stand: tripped, passed }));
    let passed = vec![(1_000, 9)];
    assert_eq!(index.guard(Guard::Remote), Ok(GuardState { stand: Stand::Watching, passed }));
}

fn the_clock_never_falls(index: &mut impl Index) {
    for (used, highest) in [(5, 5), (3, 5), (u64::MAX, u64::MAX), (6, u64::MAX)] {
        index.write(&Write::Clock(used)).unwrap();
        assert_eq!(index.clock(), Ok(highest));
    }
}

fn a_cursor_passes_what_is_acked_or_came_from_the_peer(index: &mut impl Index) {
    for (at, seq) in ["a", "b", "c", "d", "e"].iter().zip([1, 2, 4, 5, 8]) {
        put(index, at, noted(seq, 1, 1));
    }
    put(index, "b", received(2, "fs2"));
    let through = |index: &dyn IndexRead, peer: &str, acked| {
        index.acked_through(&node(peer), Seq(acked)).unwrap().0
    };
    assert_eq!(through(index, "fs2", 0), 0);
    assert_eq!(through(index, "unknown", 0), 0);
    ack(index, "fs2", 1, false);
    assert_eq!(through(index, "fs2", 0), 3, "2 came from it, 3 is nobody's");
    assert_eq!(through(index, "fs3", 1), 1, "to others 2 is news");
    ack(index, "fs2", 5, true);
    assert_eq!(through(index, "fs2", 3), 3);
    ack(index, "fs2", 4, false);
    assert_eq!(through(index, "fs2", 3), 7, "held counts");
    ack(index, "fs2", 8, false);
    assert_eq!(through(index, "fs2", 3), 8, "the head");
    assert_eq!(through(index, "fs3", 8), 8);
    assert_eq!(index.is_acked(&node("fs2"), Seq(4)), Ok(true));
    assert_eq!(index.is_acked(&node("fs2"), Seq(5)), Ok(true));
    assert_eq!(index.is_acked(&node("fs2"), Seq(2)), Ok(false));
    assert_eq!(index.is_acked(&node("fs3"), Seq(4)), Ok(false));

    cursor(index, "fs2", 4);
    assert_eq!(index.is_acked(&node("fs2"), Seq(4)), Ok(false), "below the cursor");
    assert_eq!(index.is_acked(&node("fs2"), Seq(8)), Ok(true));
    let told = PeerCursor { seen: Some((Epoch(u64::MAX), END)), acked: Seq(4) };
    assert_eq!(index.peer(&node("fs2")), Ok(told));
    cursor(index, "fs2", 2);
    assert_eq!(index.is_acked(&node("fs2"), Seq(4)), Ok(false), "forgotten for good");
    assert_eq!(index.is_acked(&node("fs2"), Seq(8)), Ok(true));
    ack(index, "fs2", 2, false);
    cursor(index, "fs2", 1);
    assert_eq!(index.is_acked(&node("fs2"), Seq(2)), Ok(false), "a plain ack below it is none");
}

fn acks_go_with_their_position(index: &mut impl Index) {
    put(index, "a", noted(1, 1, 1));
    put(index, "b", noted(2, 1, 1));
    put(index, "c", noted(3, 1, 1));
    ack(index, "fs2", 2, false);
    ack(index, "fs3", 2, false);
    ack(index, "fs2", 3, true);
    ack(index, "fs3", 3, false);
    put(index, "b", Entry { changed_ns: 99, ..noted(2, 1, 1) });
    assert_eq!(index.is_acked(&node("fs2"), Seq(2)), Ok(true), "it has the same position");
    put(index, "b", noted(4, 1, 1));
    put(index, "c", Entry::default());
    index.commit().unwrap();
    ack(index, "fs2", 2, true);
    put(index, "d", noted(2, 1, 1));
    put(index, "e", noted(3, 1, 1));
    for peer in ["fs2", "fs3"] {
        assert_eq!(index.is_acked(&node(peer), Seq(2)), Ok(false));
        assert_eq!(index.is_acked(&node(peer), Seq(3)), Ok(false));
    }
    assert_eq!(index.is_held(&node("fs2"), Seq(2)), Ok(false));
}

fn held_acks_outlive_the_cursor(index: &mut impl Index) {
    let fs2 = node("fs2");
    for (at, seq) in ["a", "b", "c"].iter().zip(1..) {
        put(index, at, noted(seq, 1, 1));
        ack(index, "fs2", seq, seq != 3);
    }
    cursor(index, "fs2", 3);
    let held = |index: &dyn IndexRead, seq| index.is_held(&fs2, Seq(seq)).unwrap();
    assert!(held(index, 1) && held(index, 2) && !held(index, 3));
    assert_eq!(index.is_acked(&fs2, Seq(1)), Ok(false));
    ack(index, "fs2", 1, false);
    assert!(!held(index, 1));
    ack(index, "fs2", 3, true);
    assert!(held(index, 3), "an ack may come late");
    assert_eq!(index.is_held(&node("fs3"), Seq(2)), Ok(false));
    put(index, "b", noted(4, 1, 1));
    assert!(!held(index, 2));
}

fn a_peer_with_another_index_has_acknowledged_nothing(index: &mut impl Index) {
    for (at, seq) in ["a", "b", "c"].iter().zip(1..) {
        put(index, at, noted(seq, 1, 1));
        ack(index, "fs2", seq, seq == 2);
        ack(index, "fs3", seq, true);
    }
    cursor(index, "fs2", 0);
    assert_eq!(index.is_acked(&node("fs2"), Seq(3)), Ok(true), "what comes first is still lacking");
    cursor(index, "fs2", 1);
    index.write(&Write::Unlearned(node("fs2"))).unwrap();
    cursor(index, "fs2", 0);
    for seq in 1..=3 {
        assert_eq!(index.is_acked(&node("fs2"), Seq(seq)), Ok(false));
        assert_eq!(index.is_held(&node("fs2"), Seq(seq)), Ok(false));
        assert_eq!(index.is_held(&node("fs3"), Seq(seq)), Ok(true), "another peer's stay");
    }
}

fn backlog_counts_what_is_lacked(index: &mut impl Index) {
    put(index, "passed", noted(1, 1, 1));
    put(index, "acked", noted(2, 2, 1));
    put(index, "held", noted(3, 4, 1));
    put(index, "from", received(4, "fs2"));
    put(index, "young", noted(6, 16, 1));
    put(index, "old", Entry { changed_ns: 50, ..noted(7, 32, 1) });
    put(index, "gone", gone(8));
    let lost = record(1, &[file(1_000, 1), file(64, 2)]);
    put(index, "concurrent", Entry { record: lost, changed_ns: 90, ..noted(9, 0, 0) });
    let directory = record(1, &[Content::Dir, file(1_000, 1)]);
    put(index, "directory", Entry { record: directory, changed_ns: 90, ..noted(10, 0, 0) });
    put(index, "gone", Entry { changed_ns: 60, ..gone(8) });
    cursor(index, "fs2", 1);
    ack(index, "fs2", 2, false);
    ack(index, "fs2", 3, true);
    let lacked = Backlog { files: 5, bytes: 16 + 32 + 64, oldest_ns: Some(50) };
    assert_eq!(index.backlog(&node("fs2")), Ok(lacked));
    let all = Backlog { files: 9, bytes: 1 + 2 + 4 + 5 + 16 + 32 + 64, oldest_ns: Some(10) };
    assert_eq!(index.backlog(&node("fs3")), Ok(all));
}

fn tombstones_are_found(index: &mut impl Index) {
    put(index, "b", gone(1));
    put(index, "a", gone(2));
    put(index, "c", Entry { installed: Some(installed(file(1, 1), 1)), ..gone(3) });
    put(index, "d", noted(4, 1, 1));
    put(index, "e", gone(5));
    let found = |through, limit| names(&index.tombstones(through, limit).unwrap());
    assert_eq!(found(END, ALL), ["b", "a", "e"]);
    assert_eq!(found(Seq(4), ALL), ["b", "a"]);
    assert_eq!(found(END, 1), ["b"]);
    assert_eq!(found(Seq::ZERO, ALL), [""; 0]);
    put(index, "b", Entry::default());
    assert_eq!(names(&index.tombstones(END, ALL).unwrap()), ["a", "e"]);
}

fn what_breaks_a_rule_is_refused_and_undone(index: &mut impl Index) {
    put(index, "a", noted(1, 1, 1));
    index.commit().unwrap();
    let unsound = Record { context: Context::new(), ..record(1, &[file(1, 1)]) };
    let many = Record {
        context: (1..=257).fold(Context::new(), |mut context, epoch| {
            context.insert(Dot { epoch: Epoch(epoch), seq: Seq(1) });
            context
        }),
        ..Record::default()
    };
    let refused = [
        Write::Entry(path(""), noted(3, 1, 1)),
        Write::Entry(path("x"), noted(1, 1, 1)),
        Write::Entry(path("x"), Entry { seq: END, ..Entry::default() }),
        Write::Entry(path("x"), Entry { record: unsound, ..Entry::default() }),
        Write::Entry(path("x"), Entry { record: many, ..Entry::default() }),
        Write::Acked { peer: node("fs2"), seq: END, held: true },
        Write::Peer(node("fs2"), PeerCursor { seen: None, acked: Seq((1 << 62) + 1) }),
    ];
    for write in refused {
        put(index, "b", noted(2, 1, 1));
        let error = index.write(&write).unwrap_err();
        assert!(matches!(error, IndexError::Other { .. }), "{write:?}: {error}");
        assert_eq!(index.entry(&path("b")), Ok(None), "{write:?} undoes what was before it");
        assert_eq!(index.head(), Ok(Seq(1)));
    }
    put(index, "b", noted(2, 1, 1));
    index.commit().unwrap();
    assert_eq!(index.entry(&path("b")), Ok(Some(noted(2, 1, 1))));
}

fn a_crash_undoes_all_since_commit(index: &mut impl Crash) {
    put(index, "a", noted(1, 1, 1));
    put(index, "b", noted(2, 1, 1));
    ack(index, "fs2", 1, false);
    cursor(index, "fs3", 1);
    index.commit().unwrap();
    let entries: Vec<_> = ["a", "b"].map(|at| index.entry(&path(at)).unwrap()).into();
    put(index, "b", noted(3, 1, 2));
    put(index, "a", Entry::default());
    put(index, "c", received(4, "fs4"));
    cursor(index, "fs2", 1);
    cursor(index, "fs3", 0);
    index.write(&Write::Clock(9)).unwrap();
    index.crash();
    assert_eq!(["a", "b"].map(|at| index.entry(&path(at)).unwrap()), entries[..]);
    assert_eq!(index.entry(&path("c")), Ok(None));
    assert_eq!(index.head(), Ok(Seq(2)));
    assert_eq!(index.clock(), Ok(0));
    assert_eq!(index.is_acked(&node("fs2"), Seq(1)), Ok(true));
    assert_eq!(index.peer(&node("fs3")).unwrap().acked, Seq(1));
    assert_eq!(index.installed_files(), Ok((2, 2)));
}

fn another_epoch_keeps_the_contents_and_resets_cursors(index: &mut impl Crash) {
    put(index, "a", noted(1, 1, 1));
    put(index, "b", noted(2, 1, 1));
    ack(index, "fs2", 2, true);
    cursor(index, "fs3", 1);
    index.renew(Epoch(7));
    index.crash();
    assert_eq!(index.epoch(), Epoch(7));
    assert_eq!(index.head(), Ok(Seq(2)));
    assert_eq!(index.entry(&path("a")), Ok(Some(noted(1, 1, 1))));
    assert_eq!(index.is_held(&node("fs2"), Seq(2)), Ok(false));
    let reset = PeerCursor { seen: Some((Epoch(u64::MAX), END)), acked: Seq::ZERO };
    assert_eq!(index.peer(&node("fs3")), Ok(reset));
}

fn positions_beyond_the_log_are_nobodys(index: &mut impl Index) {
    put(index, "a", Entry { seq: Seq(1 << 62), changed_ns: 0, ..noted(1, 1, 1) });
    let beyond = Seq(1 << 63);
    assert_eq!(index.at(beyond), Ok(None));
    assert_eq!(index.log(beyond, END, ALL), Ok(vec![]));
    assert_eq!(index.is_acked(&node("fs2"), beyond), Ok(false));
    assert_eq!(index.acked_through(&node("fs2"), END), Ok(Seq(1 << 62)));
    assert_eq!(index.log(Seq::ZERO, END, ALL).unwrap().len(), 1);
}

fn paths_may_trade_positions(index: &mut impl Crash) {
    put(index, "a", noted(1, 1, 1));
    index.commit().unwrap();
    put(index, "a", noted(2, 1, 1));
    put(index, "b", noted(1, 1, 1));
    assert_eq!(logged_names(&index.log(Seq(1), END, ALL).unwrap()), ["b", "a"]);
    index.crash();
    assert_eq!(logged_names(&index.log(Seq(1), END, ALL).unwrap()), ["a"]);
}

const PATHS: [&str; 9] = ["a", "a/b", "a/b/c", "a.b", "a/x", "a0", "d/e", "d/\u{fc}", "f/g/h"];
const PEERS: [&str; 3] = ["fs2", "fs3", "fs4"];

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Write(Write),
    /// An entry at the next position, which only the history knows.
    Note(SharePath, Entry),
    Commit,
    Crash,
    Renew(Epoch),
}

fn arb_content() -> impl Strategy<Value = Content> {
    prop_oneof![
        3 => (0..1_u64 << 40, 0..3_u8).prop_map(|(size, tag)| file(size, tag)),
        1 => Just(Content::Dir),
        1 => Just(Content::Symlink { target: b"x".to_vec() }),
    ]
}

fn arb_fingerprint() -> impl Strategy<Value = Fingerprint> {
    let kinds = select(vec![Kind::File, Kind::Dir, Kind::Symlink, Kind::Special]);
    let ids = (kinds, select(vec![1, u64::MAX]), select(vec![1, 2, u64::MAX]), any::<u64>());
    let times = (any::<i64>(), any::<i64>());
    let owner = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    (ids, times, owner).prop_map(|((kind, fs, ino, size), (mtime_ns, ctime_ns), owner)| {
        let (mode, uid, gid, nlink) = owner;
        Fingerprint { kind, fs, ino, size, mtime_ns, ctime_ns, mode, uid, gid, nlink }
    })
}

fn arb_installed() -> impl Strategy<Value = Installed> {
    let owners = select(vec![None, Some(owner("a:b")), Some(owner("1:2"))]);
    (arb_content(), arb_fingerprint(), any::<i64>(), any::<u32>(), owners).prop_map(
        |(content, fingerprint, mtime_ns, mode, owner)| Installed {
            content,
            fingerprint,
            mtime_ns,
            mode,
            owner,
        },
    )
}

fn arb_record() -> impl Strategy<Value = Record> {
    prop_oneof![
        1 => Just(Record::default()),
        2 => Just(tombstone()),
        4 => (1..4_u64, prop::collection::vec(arb_content(), 1..4))
            .prop_map(|(writer, contents)| record(writer, &contents)),
    ]
}

fn arb_path() -> impl Strategy<Value = SharePath> {
    select(PATHS.to_vec()).prop_map(path)
}

fn arb_peer() -> impl Strategy<Value = NodeName> {
    select(PEERS.to_vec()).prop_map(node)
}

/// Small positions, which others may have, none, and impossible ones.
fn arb_seq() -> impl Strategy<Value = Seq> {
    prop_oneof![20 => (0..40_u64).prop_map(Seq), 1 => any::<u64>().prop_map(Seq)]
}

fn arb_entry() -> impl Strategy<Value = Entry> {
    let facts = (any::<i64>(), any::<bool>(), any::<bool>());
    (
        arb_record(),
        prop::option::of(arb_installed()),
        arb_seq(),
        prop::option::of(arb_peer()),
        facts,
    )
        .prop_map(|(record, installed, seq, via, (changed_ns, pending, let_go))| Entry {
            record,
            installed,
            seq,
            via,
            changed_ns,
            pending,
            let_go,
        })
}

fn arb_intent() -> impl Strategy<Value = Intent> {
    let places = prop_oneof![
        arb_path().prop_map(Place::Share),
        "[0-9a-f]{1,8}".prop_map(Place::Temp),
        arb_path().prop_map(|path| Place::Trash { day: "2026-11-22".to_owned(), path }),
    ];
    let ids = select(vec![1, 2, u64::MAX]);
    let staged = prop::option::of(arb_content());
    (ids, arb_path(), arb_fingerprint(), places, staged, any::<bool>()).prop_map(
        |(id, path, expect, displaced, staged, made)| Intent {
            id,
            path,
            expect,
            displaced,
            staged,
            made,
        },
    )
}

fn arb_unnoted() -> impl Strategy<Value = Unnoted> {
    (arb_path(), 0_u64..3, arb_record()).prop_map(|(path, seq, record)| Unnoted {
        path,
        seq: Seq(seq),
        record,
    })
}

fn arb_cursor() -> impl Strategy<Value = PeerCursor> {
    let seen = prop::option::of((any::<u64>(), any::<u64>()));
    (seen, arb_seq()).prop_map(|(seen, acked)| PeerCursor {
        seen: seen.map(|(epoch, head)| (Epoch(epoch), Seq(head))),
        acked,
    })
}

fn arb_guard() -> impl Strategy<Value = Guard> {
    select(vec![Guard::Local, Guard::Remote])
}

fn arb_stand() -> impl Strategy<Value = Stand> {
    let tripped = Stand::Tripped { gone: u64::MAX, of: 7 };
    select(vec![Stand::Watching, tripped, Stand::Released, Stand::Restoring])
}

fn arb_step() -> impl Strategy<Value = Step> {
    let acked = (arb_peer(), arb_seq(), any::<bool>()).prop_map(|(peer, seq, held)| Write::Acked {
        peer,
        seq,
        held,
    });
    prop_oneof![
        12 => (arb_path(), arb_entry()).prop_map(|(path, entry)| Step::Note(path, entry)),
        4 => (arb_path(), arb_entry()).prop_map(|(path, entry)| Step::Write(Write::Entry(path, entry))),
        2 => arb_intent().prop_map(|intent| Step::Write(Write::Intent(intent))),
        1 => select(vec![1, 2, u64::MAX]).prop_map(|id| Step::Write(Write::IntentDone(id))),
        2 => arb_unnoted().prop_map(|unnoted| Step::Write(Write::Unnoted(unnoted))),
        1 => arb_path().prop_map(|path| Step::Write(Write::Noted(path))),
        8 => acked.prop_map(Step::Write),
        4 => (arb_peer(), arb_cursor()).prop_map(|(peer, cursor)| Step::Write(Write::Peer(peer, cursor))),
        1 => any::<u64>().prop_map(|reading| Step::Write(Write::Clock(reading))),
        1 => arb_peer().prop_map(|peer| Step::Write(Write::Unlearned(peer))),
        1 => (arb_guard(), arb_stand()).prop_map(|(guard, stand)| Step::Write(Write::Stand(guard, stand))),
        2 => (arb_guard(), -1_i64..2, 0_u64..3)
            .prop_map(|(guard, second, count)| Step::Write(Write::Passed { guard, second, count })),
        5 => Just(Step::Commit),
        3 => Just(Step::Crash),
        1 => any::<u64>().prop_map(|epoch| Step::Renew(Epoch(epoch))),
    ]
}

fn sorted(mut paths: Vec<SharePath>) -> Vec<SharePath> {
    paths.sort();
    paths
}

/// Asks both everything there is to ask.
fn assert_same(a: &dyn IndexRead, b: &dyn IndexRead, limit: usize) {
    assert_eq!(a.epoch(), b.epoch());
    assert_eq!(a.head(), b.head());
    assert_eq!(a.clock(), b.clock());
    assert_eq!(a.installed_files(), b.installed_files());
    assert_eq!(a.intents(), b.intents());
    assert_eq!(a.unnoted(), b.unnoted());
    for guard in [Guard::Local, Guard::Remote] {
        assert_eq!(a.guard(guard), b.guard(guard));
    }
    for at in PATHS.iter().chain(&["", "d", "f", "f/g"]).map(|text| path(text)) {
        assert_eq!(a.entry(&at), b.entry(&at), "{at}");
        assert_eq!(a.has_live_below(&at), b.has_live_below(&at), "{at}");
        assert_eq!(a.has_installed_below(&at), b.has_installed_below(&at), "{at}");
        for after in [&b""[..], b"a", at.as_bytes(), b"d/e"] {
            assert_eq!(a.next_installed_dir(&at, after), b.next_installed_dir(&at, after), "{at}");
            let installed = |it: &dyn IndexRead| it.installed_in(&at, after, limit);
            assert_eq!(installed(a), installed(b), "{at}");
        }
    }
    for tag in 0..3 {
        let with = |it: &dyn IndexRead| sorted(it.installed_with(&hash(tag), ALL).unwrap());
        assert_eq!(with(a), with(b));
        let few = |it: &dyn IndexRead| it.installed_with(&hash(tag), limit).unwrap().len();
        assert_eq!(few(a), few(b));
    }
    for (fs, ino) in [1, u64::MAX].iter().flat_map(|fs| [1, 2, u64::MAX].map(|ino| (*fs, ino))) {
        let with = |it: &dyn IndexRead| sorted(it.installed_inode(fs, ino, ALL).unwrap());
        assert_eq!(with(a), with(b));
    }
    for seq in (0..45).chain([u64::MAX]).map(Seq) {
        assert_eq!(a.at(seq), b.at(seq));
        for peer in PEERS.map(node) {
            assert_eq!(a.is_acked(&peer, seq), b.is_acked(&peer, seq), "{peer} {seq}");
            assert_eq!(a.is_held(&peer, seq), b.is_held(&peer, seq), "{peer} {seq}");
            assert_eq!(a.acked_through(&peer, seq), b.acked_through(&peer, seq), "{peer} {seq}");
        }
    }
    for seq in [Seq::ZERO, Seq(10), END] {
        assert_eq!(a.log(seq, Seq(20), limit), b.log(seq, Seq(20), limit));
        assert_eq!(a.log(seq, END, ALL), b.log(seq, END, ALL));
        assert_eq!(a.pending(seq, limit), b.pending(seq, limit));
        assert_eq!(a.tombstones(seq, limit), b.tombstones(seq, limit));
    }
    for peer in PEERS.map(node) {
        assert_eq!(a.peer(&peer), b.peer(&peer));
        assert_eq!(a.backlog(&peer), b.backlog(&peer));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn both_tell_the_same_of_any_history(
        steps in prop::collection::vec(arb_step(), 1..60),
        limit in 1..4_usize,
        looks in prop::collection::vec(any::<Pick>(), 4),
    ) {
        let mut memory = Memory::new(EPOCH);
        let mut stored = Stored::new();
        let reader = stored.get().reader().unwrap();
        let mut committed = memory.clone();
        let looks: Vec<_> = looks.iter().map(|pick| pick.index(steps.len())).collect();
        for (at, step) in steps.into_iter().enumerate() {
            let write = match step {
                Step::Write(write) => Some(write),
                Step::Note(path, mut entry) => {
                    entry.seq = memory.head().unwrap().next();
                    Some(Write::Entry(path, entry))
                }
                Step::Commit => {
                    memory.commit().unwrap();
                    stored.get_mut().commit().unwrap();
                    committed = memory.clone();
                    None
                }
                Step::Crash => {
                    memory.crash();
                    stored.reopen();
                    None
                }
                Step::Renew(epoch) => {
                    memory.renew(epoch);
                    stored.get_mut().renew(epoch);
                    committed = memory.clone();
                    None
                }
            };
            if let Some(write) = write {
                let (told, stored) = (memory.write(&write), stored.get_mut().write(&write));
                prop_assert_eq!(told.is_ok(), stored.is_ok(), "{:?}: {:?}, {:?}", write, told, stored);
            }
            if looks.contains(&at) {
                assert_same(&memory, stored.get(), limit);
                if reader.epoch() == committed.epoch() {
                    assert_same(&committed, &reader, limit);
                }
            }
        }
        assert_same(&memory, stored.get(), limit);
        memory.crash();
        stored.reopen();
        assert_same(&memory, stored.get(), limit);
    }
}

#[test]
fn a_store_dropped_within_a_transaction_opens_at_the_last_commit() {
    let mut stored = Stored::new();
    put(stored.get_mut(), "a", noted(1, 1, 1));
    stored.get_mut().commit().unwrap();
    put(stored.get_mut(), "a", noted(2, 1, 1));
    put(stored.get_mut(), "b", noted(3, 1, 1));
    stored.reopen();
    assert_eq!(stored.get().head(), Ok(Seq(1)));
    assert_eq!(stored.get().entry(&path("a")), Ok(Some(noted(1, 1, 1))));
    assert_eq!(stored.get().entry(&path("b")), Ok(None));
}

/// What a killed process leaves: the files as they are, nothing closed.
#[test]
fn the_files_of_a_running_store_hold_what_was_committed() {
    let mut stored = Stored::new();
    for seq in 1..200 {
        put(stored.get_mut(), &format!("d/{seq}"), noted(seq, 1, 1));
        stored.get_mut().commit().unwrap();
    }
    put(stored.get_mut(), "lost", noted(200, 1, 1));
    let left = tempfile::tempdir().unwrap();
    for name in ["index.db", "index.db-wal"] {
        std::fs::copy(stored.dir.path().join(name), left.path().join(name)).unwrap();
    }
    let store = Store::open(&left.path().join("index.db"), || unreachable!("it has one")).unwrap();
    stored.reopen();
    assert_eq!(store.head(), Ok(Seq(199)));
    assert_eq!(store.log(Seq::ZERO, END, ALL), stored.get().log(Seq::ZERO, END, ALL));
}

#[test]
fn a_store_is_opened_once_at_a_time() {
    let stored = Stored::new();
    let again = Store::open(&stored.file(), || EPOCH).unwrap_err();
    insta::assert_snapshot!(
        again.to_string().replace(&stored.file().display().to_string(), "FILE"),
        @"the index at FILE is in use by another recsync"
    );
    let file = stored.file();
    let Stored { store, dir: _dir } = stored;
    drop(store);
    Store::open(&file, || EPOCH).unwrap();
}

#[test]
fn a_reader_sees_commits_and_nothing_else() {
    let mut stored = Stored::new();
    let reader = stored.get().reader().unwrap();
    put(stored.get_mut(), "a", noted(1, 1, 1));
    assert_eq!(reader.entry(&path("a")), Ok(None));
    assert_eq!(reader.head(), Ok(Seq::ZERO));
    stored.get_mut().commit().unwrap();
    assert_eq!(reader.entry(&path("a")), Ok(Some(noted(1, 1, 1))));
    assert_eq!(reader.installed_files(), Ok((1, 1)));
    assert!(reader.conn.execute("DELETE FROM entries", []).is_err());
}

#[test]
fn a_reader_of_nothing_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index.db");
    assert!(matches!(Reader::open(&file), Err(IndexError::Other { .. })));
    assert!(!file.exists());
}

#[test]
fn an_epoch_is_minted_with_the_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index.db");
    assert_eq!(Store::open(&file, || Epoch(5)).unwrap().epoch(), Epoch(5));
    let mut store = Store::open(&file, || unreachable!("it has one")).unwrap();
    assert_eq!(store.epoch(), Epoch(5));
    store.renew_epoch(Epoch(6)).unwrap();
    assert_eq!(store.epoch(), Epoch(6));
    drop(store);
    assert_eq!(Store::open(&file, || Epoch(7)).unwrap().epoch(), Epoch(6));
}

#[test]
fn an_index_that_starts_over_knows_nothing_but_the_time() {
    let stored = Stored::new();
    let file = stored.file();
    let Stored { store, dir: _dir } = stored;
    let mut store = store.unwrap();
    put(&mut store, "a", noted(1, 1, 1));
    put(&mut store, "b", received(2, "fs3"));
    ack(&mut store, "fs2", 1, true);
    cursor(&mut store, "fs2", 1);
    store.write(&Write::Clock(77)).unwrap();
    store.set_root_id("root").unwrap();
    store.begin_run("1").unwrap();
    store.set_witnesses([Some(u64::MAX), Some(2)]).unwrap();
    assert_eq!(store.witnesses(), Ok([Some(u64::MAX), Some(2)]));
    store.start_over(Epoch(9)).unwrap();
    assert_eq!(store.epoch(), Epoch(9));
    drop(store);

    let mut store = Store::open(&file, || unreachable!("it has one")).unwrap();
    assert_eq!((store.epoch(), store.head(), store.clock()), (Epoch(9), Ok(Seq::ZERO), Ok(77)));
    assert_eq!(store.entry(&path("a")), Ok(None));
    assert_eq!(store.peer(&node("fs2")), Ok(PeerCursor::default()));
    assert_eq!(store.is_held(&node("fs2"), Seq(1)), Ok(false));
    assert_eq!(store.pending_files(), Ok(0));
    assert_eq!(store.root_id(), Ok(None));
    assert_eq!(store.witnesses(), Ok([None, None]));
    assert_eq!(store.begin_run("1"), Ok(LastStop::Clean), "no run was cut short");
    put(&mut store, "a", noted(1, 1, 1));
    store.commit().unwrap();
}

#[test]
fn runs_and_the_root_are_remembered() {
    let mut stored = Stored::new();
    let mut memory = Memory::new(EPOCH);
    let story = |begin: &mut dyn FnMut(&str, bool) -> LastStop| {
        [begin("1", true), begin("1", false), begin("1", false), begin("2", true), begin("3", true)]
    };
    let by_memory = story(&mut |boot, end| {
        let clean = memory.begin_run(boot).unwrap();
        if end {
            memory.end_run().unwrap();
        }
        memory.crash();
        clean
    });
    let by_store = story(&mut |boot, end| {
        let clean = stored.get_mut().begin_run(boot).unwrap();
        if end {
            stored.get_mut().end_run().unwrap();
        }
        stored.reopen();
        clean
    });
    let expected =
        [LastStop::Clean, LastStop::Clean, LastStop::Killed, LastStop::Down, LastStop::Clean];
    assert_eq!((by_memory, by_store), (expected, expected));

    assert_eq!((memory.root_id(), stored.get().root_id()), (Ok(None), Ok(None)));
    memory.set_root_id("6f1c").unwrap();
    stored.get_mut().set_root_id("6f1c").unwrap();
    memory.crash();
    stored.reopen();
    let id = Ok(Some("6f1c".to_owned()));
    assert_eq!((memory.root_id(), stored.get().root_id()), (id.clone(), id));
}

#[test]
fn a_machine_that_went_down_is_remembered_until_the_files_were_looked_at() {
    let mut stored = Stored::new();
    let mut memory = Memory::new(EPOCH);
    let mut begin = |boot: &str, set: bool| {
        let index = stored.get_mut();
        let both = (index.begin_run(boot).unwrap(), memory.begin_run(boot).unwrap());
        assert_eq!(both.0, both.1);
        if set {
            index.set_boot(boot).unwrap();
            index.commit().unwrap();
            memory.set_boot(boot).unwrap();
        }
        both.0
    };
    let told = [("1", false), ("1", false), ("2", false), ("2", true), ("2", false)];
    let told = told.map(|(boot, set)| begin(boot, set));
    let expected =
        [LastStop::Clean, LastStop::Killed, LastStop::Down, LastStop::Down, LastStop::Killed];
    assert_eq!(told, expected);
}

#[test]
fn the_files_are_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let mut stored = Stored::new();
    put(stored.get_mut(), "a", noted(1, 1, 1));
    stored.get_mut().commit().unwrap();
    for name in ["index.db", "index.db-wal", "index.db-shm", "index.db.lock"] {
        let file = std::fs::File::options().read(true).open(stored.dir.path().join(name)).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

/// Writes a file that is no index of this version and tells how opening it fails.
fn refusal(make: impl FnOnce(&std::path::Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index.db");
    make(&file);
    let error = Store::open(&file, || unreachable!("it is not made anew")).unwrap_err();
    let read = Reader::open(&file).unwrap_err();
    let show = |error: IndexError| error.to_string().replace(&file.display().to_string(), "FILE");
    format!("{}\n{}", show(error), show(read))
}

fn sqlite(file: &std::path::Path, sql: &str) {
    rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn what_is_no_index_is_left_alone() {
    use std::io::Write as _;
    let text = refusal(|file| {
        let mut text = std::fs::File::options().create_new(true).write(true).open(file).unwrap();
        text.write_all(&b"no database at all; ".repeat(100)).unwrap();
    });
    insta::assert_snapshot!(text, @r"
    the index at FILE is damaged (file is not a database); move it away, recsync will build it again from the share
    the index at FILE is damaged (file is not a database); move it away, recsync will build it again from the share
    ");
    let foreign = refusal(|file| sqlite(file, "CREATE TABLE t (x); PRAGMA user_version = 1"));
    insta::assert_snapshot!(foreign, @r"
    the index at FILE is damaged (it is another program's database); move it away, recsync will build it again from the share
    the index at FILE is damaged (it is another program's database); move it away, recsync will build it again from the share
    ");
    let newer = refusal(|file| {
        drop(Store::open(file, || EPOCH).unwrap());
        sqlite(file, "PRAGMA user_version = 99");
    });
    insta::assert_snapshot!(newer, @r"
    the index at FILE has schema 99, this recsync knows up to 1; upgrade recsync
    the index at FILE has schema 99, this recsync knows up to 1; upgrade recsync
    ");
}

#[test]
fn damage_inside_is_told() {
    let mut stored = Stored::new();
    put(stored.get_mut(), "a", noted(1, 1, 1));
    stored.get_mut().commit().unwrap();
    let spoil = [
        "UPDATE entries SET record = x'ff'",
        "UPDATE entries SET record = x'000000', content = 9",
        "UPDATE entries SET content = 1, hash = x'00'",
        "UPDATE entries SET dir = x'2e2e'",
    ];
    for sql in spoil {
        sqlite(&stored.file(), sql);
        let read = stored.get().log(Seq::ZERO, END, ALL);
        assert!(matches!(read, Err(IndexError::Damaged { .. })), "{sql}: {read:?}");
    }
}

#[test]
fn a_full_disk_undoes_the_transaction_and_is_told() {
    let mut stored = Stored::new();
    put(stored.get_mut(), "kept", noted(1, 1, 1));
    stored.get_mut().commit().unwrap();
    let pages = |stored: &Stored, count: i64| {
        let sql = format!("PRAGMA max_page_count = {count}");
        stored.get().reads.conn.query_row(&sql, [], |_| Ok(())).unwrap();
    };
    pages(&stored, 1);
    let full = (2..10_000).find_map(|seq| {
        let write = Write::Entry(path(&format!("d/{seq}")), noted(seq, 1, 1));
        stored.get_mut().write(&write).err()
    });
    assert!(matches!(full, Some(IndexError::NoSpace { .. })), "{full:?}");
    assert_eq!(stored.get().head(), Ok(Seq(1)));
    assert_eq!(stored.get().entry(&path("d/2")), Ok(None));
    pages(&stored, 1_000_000);
    put(stored.get_mut(), "d/2", noted(2, 1, 1));
    stored.get_mut().commit().unwrap();
    stored.reopen();
    assert_eq!(logged_names(&stored.get().log(Seq::ZERO, END, ALL).unwrap()), ["kept", "d/2"]);
}

/// No read walks the table or sorts: each searches an index, whatever there is in it.
#[test]
fn every_read_searches_an_index() {
    let stored = Stored::new();
    let conn = &stored.get().reads.conn;
    for sql in super::reader::sql::SEARCHES {
        let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let params = vec![rusqlite::types::Null; explain.parameter_count()];
        let plan: Vec<String> = explain
            .query_map(rusqlite::params_from_iter(params), |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let searched = plan.iter().any(|step| step.starts_with("SEARCH "));
        let walks = |step: &String| {
            step.starts_with("SCAN entries")
                || step.starts_with("SCAN acks")
                || step.starts_with("SCAN trash")
                || step.contains("B-TREE")
        };
        assert!(searched && !plan.iter().any(walks), "{sql}: {plan:#?}");
    }
}

/// Planning a statement costs more than most of them take to run: each is planned once.
#[test]
fn a_statement_is_planned_once_whatever_is_asked() {
    let mut stored = Stored::new();
    for seq in 1..=200 {
        put(stored.get_mut(), &format!("d/{seq}"), noted(seq, 1, 1));
    }
    stored.get_mut().commit().unwrap();
    let reader = stored.get().reader().unwrap();
    for index in [&stored.get().reads, &reader] {
        for sql in super::reader::sql::SEARCHES {
            let mut asked = index.conn.prepare(sql).unwrap();
            for number in 0..4_i64 {
                for at in 1..=asked.parameter_count() {
                    asked.raw_bind_parameter(at, number).unwrap();
                }
                let mut rows = asked.raw_query();
                while rows.next().unwrap().is_some() {}
            }
            assert_eq!(asked.get_status(rusqlite::StatementStatus::RePrepare), 0, "{sql}");
        }
    }
}

/// Counts the steps of the database's machine: they must not grow with the tombstones.
#[test]
fn a_directory_of_tombstones_is_seen_to_be_empty_at_once() {
    let mut stored = Stored::new();
    let count = 20_000;
    for seq in 1..=count {
        put(stored.get_mut(), &format!("d/{seq}"), gone(seq));
    }
    put(stored.get_mut(), "e", noted(count + 1, 1, 1));
    stored.get_mut().commit().unwrap();
    assert_eq!(stored.get().has_live_below(&path("d")), Ok(false));
    assert_eq!(stored.get().has_installed_below(&path("d")), Ok(false));
    for sql in [super::reader::sql::LIVE_BELOW, super::reader::sql::INSTALLED_BELOW] {
        let mut ask = stored.get().reads.conn.prepare(sql).unwrap();
        let bounds = rusqlite::params![&b"d"[..], &b"d/"[..], &b"d0"[..]];
        assert!(!ask.query_row(bounds, |row| row.get::<_, bool>(0)).unwrap());
        let steps = ask.get_status(rusqlite::StatementStatus::VmStep);
        assert!(steps < 100, "{steps} steps");
    }
}

/// A file as the first released version made it; see `testdata/1.sql`. Until that is released, it is
/// made anew when the encoding of records changes: each of its records is [`encode_record`] of what
/// [`version_1`] puts there, in hex.
///
/// [`encode_record`]: recsync_proto::codec::encode_record
#[test]
fn a_file_of_version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index.db");
    sqlite(&file, include_str!("testdata/1.sql"));
    let mut store = Store::open(&file, || unreachable!("it has one")).unwrap();
    assert_eq!(store.epoch(), EPOCH);
    assert_eq!(store.root_id(), Ok(Some("6f1c".to_owned())));
    assert_eq!(store.begin_run("1"), Ok(LastStop::Down));
    let mut made = Memory::new(EPOCH);
    version_1(&mut made);
    assert_same(&made, &store, ALL);
    assert_same(&made, &store.reader().unwrap(), ALL);
}

/// What `testdata/1.sql` holds.
fn version_1(index: &mut impl Index) {
    put(index, "a/b", noted(1, 4096, 1));
    put(index, "a/x", received(2, "fs2"));
    put(index, "a0", gone(3));
    let link = Content::Symlink { target: b"x".to_vec() };
    let record = record(2, &[Content::Dir, link.clone(), file(9, 2)]);
    put(index, "d/\u{fc}", Entry { record, installed: Some(installed(link, 2)), ..noted(4, 0, 0) });
    cursor(index, "fs2", 1);
    ack(index, "fs2", 3, false);
    ack(index, "fs3", 1, true);
    index.write(&Write::Clock(u64::MAX)).unwrap();
    let displaced = Place::Trash { day: "2026-11-22".to_owned(), path: path("a/b~1") };
    let intent = Intent {
        id: 1,
        path: path("a/b"),
        expect: fingerprint(1),
        displaced,
        staged: Some(file(4096, 1)),
        made: true,
    };
    index.write(&Write::Intent(intent)).unwrap();
    let Entry { record, seq, .. } = gone(3);
    let unnoted = Unnoted { path: path("a/x"), seq, record };
    index.write(&Write::Unnoted(unnoted)).unwrap();
    let guard = Guard::Remote;
    index.write(&Write::Stand(guard, Stand::Tripped { gone: 51, of: 100 })).unwrap();
    index.write(&Write::Passed { guard, second: 1_795_341_600, count: 50 }).unwrap();
    index.commit().unwrap();
}
