//! The order of system calls, and errors of some of them.
//!
//! What a daemon says to a peer is encrypted when it leaves. So it marks, in a debug build and with
//! `RECSYNC_MARKS` set, each announcement and each acknowledgement by a write to `/dev/null` just
//! before it queues it for its link: what was not done before the mark was not done before the
//! message left either.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::support::{Call, Node, Pair, Strace, seen, unique, until};

const CALLS: &str = "trace=fsync,fdatasync,renameat2,mkdirat,write";
const FILES: usize = 1_000;

fn marked() -> Option<Pair> {
    if !cfg!(debug_assertions) {
        eprintln!("SKIPPED tests by strace: a release build marks nothing");
        return None;
    }
    let mut pair = Pair::new();
    pair.a.set_env("RECSYNC_MARKS", "1");
    pair.b.set_env("RECSYNC_MARKS", "1");
    pair.start();
    Some(pair)
}

/// Positions in a trace of the calls that made paths durable.
struct Syncs(BTreeMap<String, Vec<(usize, usize)>>);

impl Syncs {
    fn of(calls: &[Call]) -> Syncs {
        let mut syncs = BTreeMap::<_, Vec<_>>::new();
        for call in calls.iter().filter(|call| call.is_sync()) {
            syncs.entry(call.path().to_owned()).or_default().push((call.begun, call.ended));
        }
        Syncs(syncs)
    }

    /// Returns when the first sync of a path was over that began after `position`.
    fn first_after(&self, path: &str, position: usize) -> Option<usize> {
        let syncs = self.0.get(path)?.iter().filter(|(begun, _)| *begun > position);
        syncs.map(|(_, ended)| *ended).min()
    }

    fn count(&self, path: &str) -> usize {
        self.0.get(path).map_or(0, Vec::len)
    }
}

fn wal(node: &Node) -> String {
    format!("{}-wal", node.index().display())
}

/// Positions of the marks that begin with a word, with what follows it: a number and a text.
fn marks(calls: &[Call], word: &str) -> Vec<(usize, u64, String)> {
    let parse = |call: &Call| {
        let (number, text) = call.mark()?.strip_prefix(word)?.trim_start().split_once(' ')?;
        Some((call.begun, number.parse().ok()?, text.to_owned()))
    };
    calls.iter().filter_map(parse).collect()
}

#[test]
fn nothing_is_said_before_it_is_durable() {
    let Some(pair) = marked() else { return };
    let test = "nothing_is_said_before_it_is_durable";
    let Some(at_a) = Strace::attach(test, &pair.a, &["-e", CALLS]) else { return };
    let Some(at_b) = Strace::attach(test, &pair.b, &["-e", CALLS]) else { return };
    for number in 0..FILES {
        let dir = pair.a.path(format!("{}", number % 20));
        fs::create_dir_all(&dir).unwrap();
        // Some are fetched, the others travel with their announcement.
        let len = if number % 100 == 7 { 400_000 } else { 2_000 };
        fs::write(dir.join(format!("{number}.wav")), unique(len)).unwrap();
    }
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.hashes().count(), FILES);
    let (at_a, at_b) = (at_a.detach(), at_b.detach());

    let announced = check_origin(&pair.a, &at_a);
    check_receiver(&pair.b, &at_b, &announced);
}

/// Checks that each file was announced after it, its name and its record were durable; returns
/// the paths by their positions in the log.
fn check_origin(node: &Node, calls: &[Call]) -> BTreeMap<u64, String> {
    let syncs = Syncs::of(calls);
    let mut announced = BTreeMap::new();
    for (said, seq, path) in marks(calls, "announce") {
        let file = node.path(&path);
        if file.is_file() {
            let check = |what: &str, done: Option<usize>| match done {
                Some(done) if done < said => done,
                other => panic!("{path} announced at line {said}, but {what}: {other:?}"),
            };
            let synced = check("file", syncs.first_after(file.to_str().unwrap(), 0));
            check("directory", syncs.first_after(file.parent().unwrap().to_str().unwrap(), 0));
            check("commit", syncs.first_after(&wal(node), synced));
        }
        announced.insert(seq, path);
    }
    let files = announced.values().filter(|path| node.path(path).is_file()).count();
    assert!(files >= FILES, "only {files} files were announced");
    announced
}

/// Checks that each acknowledgement followed the syncs of the file, of its name and of its record.
fn check_receiver(node: &Node, calls: &[Call], announced: &BTreeMap<u64, String>) {
    let syncs = Syncs::of(calls);
    // Where each path's object got its name, and from which temporary.
    let mut placed = BTreeMap::new();
    for call in calls.iter().filter(|call| call.is_done()) {
        match (&*call.name, call.names().as_slice()) {
            ("renameat2", [from, to]) => {
                placed.insert(to.clone(), (call.begun, call.ended, Some(from.clone())));
            }
            ("mkdirat", [made]) => {
                placed.insert(made.clone(), (call.begun, call.ended, None));
            }
            _ => {}
        }
    }
    let mut files = 0;
    for (said, seq, state) in marks(calls, "ack") {
        assert_eq!(state, "Durable", "nothing is held here");
        let path = &announced[&seq];
        let full = node.path(path);
        let (begun, named, from) = &placed[full.to_str().unwrap()];
        if let Some(temp) = from.as_ref().filter(|_| full.is_file()) {
            let synced = syncs.first_after(temp, 0);
            assert!(
                synced.is_some_and(|synced| synced < *begun),
                "{path}: file {synced:?} {begun}"
            );
            files += 1;
        }
        let dir = syncs.first_after(full.parent().unwrap().to_str().unwrap(), *named);
        let committed = dir.and_then(|dir| syncs.first_after(&wal(node), dir));
        assert!(
            committed.is_some_and(|committed| committed < said),
            "{path}: name at {named}, directory {dir:?}, commit {committed:?}, said {said}"
        );
    }
    assert!(files >= FILES, "only {files} files were acknowledged");
    // Grouped: far fewer waits for the disk than files.
    let commits = syncs.count(&wal(node));
    assert!(commits < FILES, "{commits} commits of {FILES} files");
}

const SYNC_FAILS: &str = "inject=fsync,fdatasync:error=EIO";

/// Makes calls of a node's daemon fail, all or those on certain paths, while the other one's users write; nothing may be said of
/// it until they succeed again, and then all is well without anybody's help.
fn survives(test: &str, inject: &str, paths: impl Fn(&Node) -> Vec<PathBuf>, at_receiver: bool) {
    let Some(pair) = marked() else { return };
    fs::create_dir(pair.a.path("dir")).unwrap();
    fs::write(pair.a.path("dir/old.wav"), unique(10_000)).unwrap();
    pair.wait_until_consistent();
    let node = if at_receiver { &pair.b } else { &pair.a };
    let mut args = vec!["-e".to_owned(), CALLS.to_owned(), "-e".to_owned(), inject.to_owned()];
    let mut paths = paths(node);
    if !paths.is_empty() {
        // For the marks.
        paths.push("/dev/null".into());
    }
    args.extend(paths.iter().flat_map(|path| ["-P".to_owned(), path.display().to_string()]));
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let Some(strace) = Strace::attach(test, node, &args) else { return };
    fs::write(pair.a.path("dir/new.wav"), unique(20_000)).unwrap();
    fs::write(pair.a.path("dir/large.wav"), unique(600_000)).unwrap();
    fs::write(pair.a.path("dir/old.wav"), unique(20_000)).unwrap();
    // More than once: it is tried again.
    until("it fails, and is tried again", || match strace.injected() {
        0..4 => Err(format!("{:?}", strace.calls())),
        count => Ok(count),
    });
    let word = if at_receiver { "ack" } else { "announce" };
    let calls = strace.detach();
    let said = marks(&calls, word);
    let of_files = said.iter().filter(|(_, _, what)| what == "Durable" || what.ends_with(".wav"));
    assert_eq!(
        of_files.collect::<Vec<_>>(),
        Vec::<&(usize, u64, String)>::new(),
        "said too early: {calls:#?}"
    );
    let tree = pair.wait_until_consistent();
    assert_eq!(tree.hashes().count(), 3);
    until("the old one is in the trash", || seen(pair.b.trash().hashes().count() >= 1));
}

#[test]
fn a_receiver_whose_files_cannot_be_synced_acknowledges_nothing() {
    let test = "a_receiver_whose_files_cannot_be_synced_acknowledges_nothing";
    survives(test, SYNC_FAILS, |_| Vec::new(), true);
}

#[test]
fn a_receiver_whose_directory_cannot_be_synced_acknowledges_nothing() {
    let test = "a_receiver_whose_directory_cannot_be_synced_acknowledges_nothing";
    survives(test, SYNC_FAILS, |node| vec![node.path("dir")], true);
}

#[test]
fn a_receiver_whose_index_cannot_be_synced_acknowledges_nothing() {
    let test = "a_receiver_whose_index_cannot_be_synced_acknowledges_nothing";
    survives(test, SYNC_FAILS, |node| vec![wal(node).into()], true);
}

#[test]
fn a_receiver_that_cannot_rename_acknowledges_nothing() {
    let test = "a_receiver_that_cannot_rename_acknowledges_nothing";
    survives(test, "inject=renameat2:error=EIO", |_| Vec::new(), true);
}

#[test]
fn an_origin_whose_files_cannot_be_synced_announces_nothing() {
    let test = "an_origin_whose_files_cannot_be_synced_announces_nothing";
    survives(test, SYNC_FAILS, |_| Vec::new(), false);
}

#[test]
fn an_origin_whose_index_cannot_be_synced_announces_nothing() {
    let test = "an_origin_whose_index_cannot_be_synced_announces_nothing";
    survives(test, SYNC_FAILS, |node| vec![wal(node).into()], false);
}
