//! The index on SQLite: what a commit costs, and reads where there is much.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use recsync::index::{Index as _, IndexRead as _, Store, Write};
use recsync_proto::{Epoch, Seq, SharePath};

use crate::{Case, Result, Run, Work, sample, timed};

/// Recordings in the index that is read.
const FILES: u64 = 100_000;
/// One in so many of them is pending.
const PENDING_EVERY: u64 = 10;
/// What the engine reads of the log at once, towards a peer, and of what is pending.
const LOG_CHUNK: usize = 128;
const PENDING_CHUNK: usize = 64;
/// A prime: steps of it come to every number before one comes again.
const STRIDE: u64 = 7_919;

pub(crate) fn cases(scratch: &Path) -> Vec<Case> {
    let mut cases: Vec<_> = [1, 256]
        .into_iter()
        .map(|entries| {
            let run = sample::store(scratch, &format!("commit-{entries}"), Epoch(1))
                .map(|store| commits(store, entries));
            let name = match entries {
                1 => "transaction of 1 entry".to_owned(),
                _ => format!("transaction of {entries} entries"),
            };
            Case::new(name, Work::Items(entries, "entries"), run)
        })
        .collect();
    let full = filled(scratch).map_err(|why| why.to_string());
    let mut read = |name: String, work: Work, run: fn(Rc<Full>) -> Run| {
        cases.push(Case::new(name, work, full.clone().map(run).map_err(Into::into)));
    };
    read("entry of a path".to_owned(), Work::Items(1, "entries"), entries);
    read(format!("log, {LOG_CHUNK} positions"), Work::Items(LOG_CHUNK, "entries"), log);
    read(format!("pending, {PENDING_CHUNK} paths"), Work::Items(PENDING_CHUNK, "entries"), pending);
    cases
}

/// An index with many recordings.
struct Full {
    store: Store,
    paths: Vec<SharePath>,
}

fn filled(scratch: &Path) -> Result<Rc<Full>> {
    let mut store = sample::store(scratch, "full", Epoch(1))?;
    let paths = (0..FILES).map(sample::path).collect::<Result<Vec<_>>>()?;
    for (seq, path) in (1..).map(Seq).zip(&paths) {
        let entry = sample::entry(path, seq, seq.0 % PENDING_EVERY == 0)?;
        store.write(&Write::Entry(path.clone(), entry))?;
        if seq.0 % 10_000 == 0 {
            store.commit()?;
        }
    }
    store.commit()?;
    Ok(Rc::new(Full { store, paths }))
}

/// New recordings, so many in each transaction.
fn commits(mut store: Store, entries: usize) -> Run {
    let mut number = 0;
    Box::new(move |count| {
        let mut took = Duration::ZERO;
        for _ in 0..count {
            let mut writes = Vec::new();
            for _ in 0..entries {
                let path = sample::path(number)?;
                number += 1;
                let entry = sample::entry(&path, Seq(number), false)?;
                writes.push(Write::Entry(path, entry));
            }
            let begun = Instant::now();
            for write in &writes {
                store.write(write)?;
            }
            store.commit()?;
            took += begun.elapsed();
        }
        Ok(took)
    })
}

fn entries(full: Rc<Full>) -> Run {
    let mut paths = scattered(0, FILES);
    Box::new(move |count| {
        timed(count, || {
            let path = &full.paths[usize::try_from(paths())?];
            Ok(full.store.entry(path)?.ok_or("a path has no entry")?)
        })
    })
}

fn log(full: Rc<Full>) -> Run {
    let mut positions = scattered(1, FILES - LOG_CHUNK as u64);
    Box::new(move |count| {
        timed(count, || {
            let chunk = full.store.log(Seq(positions()), Seq(FILES), LOG_CHUNK)?;
            whole(chunk, LOG_CHUNK)
        })
    })
}

fn pending(full: Rc<Full>) -> Run {
    let least = (PENDING_CHUNK as u64 + 1) * PENDING_EVERY;
    let mut positions = scattered(least, FILES - least);
    Box::new(move |count| {
        timed(count, || {
            let chunk = full.store.pending(Seq(positions()), PENDING_CHUNK)?;
            whole(chunk, PENDING_CHUNK)
        })
    })
}

/// Returns numbers from `first` on, below `first + count`, far apart from each other.
fn scattered(first: u64, count: u64) -> impl FnMut() -> u64 {
    let mut at = 0;
    move || {
        at = (at + STRIDE) % count;
        first + at
    }
}

fn whole<T>(chunk: Vec<T>, len: usize) -> Result<Vec<T>> {
    if chunk.len() == len { Ok(chunk) } else { Err("a chunk is not whole".into()) }
}
