//! What is in an index of recordings, and where an index may lie that is to be measured.

use std::collections::BTreeSet;
use std::path::Path;

use recsync::index::{Entry, Installed, Store};
use recsync::tree::{Fingerprint, Kind};
use recsync_proto::record::hash_of;
use recsync_proto::{
    Content, Context, Dot, Epoch, NodeName, Owner, Record, Register, Seq, SharePath, Stamp, Value,
};

use crate::Result;

/// The size of every recording: small enough to travel inside its announcement.
pub(crate) const RECORDING: u64 = 100_000;
/// 2026-11-22T10:00:00Z.
pub(crate) const START_NS: i64 = 1_795_341_600 * 1_000_000_000;
const NODES: [&str; 2] = ["fs1", "fs2"];
/// `f_type` of tmpfs (statfs(2)).
const TMPFS: i128 = 0x0102_1994;

pub(crate) fn node(number: usize) -> Result<NodeName> {
    Ok(NodeName::new(NODES[number % NODES.len()])?)
}

/// Returns a name as long as FusionPBX's, 1,000 to a directory.
pub(crate) fn path(number: u64) -> Result<SharePath> {
    let name = format!("2026/{:04}/{number:08x}-e29b-41d4-a716-446655440000.wav", number / 1_000);
    Ok(SharePath::new(name)?)
}

pub(crate) fn content(path: &SharePath) -> Content {
    Content::File { size: RECORDING, hash: hash_of(path.as_bytes()) }
}

pub(crate) fn owner() -> Result<Owner> {
    Ok("freeswitch:freeswitch".parse()?)
}

/// Returns how something stands on the disk.
pub(crate) fn fingerprint(content: &Content, ino: u64, time_ns: i64) -> Fingerprint {
    let (kind, mode) = if content.is_dir() { (Kind::Dir, 0o750) } else { (Kind::File, 0o640) };
    Fingerprint {
        kind,
        fs: 1,
        ino,
        size: content.size(),
        mtime_ns: time_ns,
        ctime_ns: time_ns,
        mode,
        uid: 999,
        gid: 999,
        nlink: 1,
    }
}

/// Returns the record of a recording that a node made at a position of its log.
pub(crate) fn record(by: usize, path: &SharePath, seq: Seq) -> Result<Record> {
    let time_ns = START_NS + i64::try_from(seq.0)? * 20_000_000;
    let stamp = Stamp::at(time_ns / 1_000_000, node(by)?);
    let dot = Dot { epoch: Epoch(by as u64 + 1), seq };
    let mut context = Context::new();
    context.insert(dot);
    let value = Value {
        dot,
        stamp: stamp.clone(),
        content: content(path),
        mtime_ns: Register { value: time_ns, stamp: stamp.clone() },
        lacks: BTreeSet::new(),
    };
    let mode = Register { value: 0o640, stamp: stamp.clone() };
    let owner = Register { value: owner()?, stamp };
    let (mode, owner) = (Some(mode), Some(owner));
    Ok(Record { context, values: vec![value], mode, owner, lost: BTreeSet::new() })
}

/// Returns what an index holds of a recording; one that is pending is not there yet.
pub(crate) fn entry(path: &SharePath, seq: Seq, pending: bool) -> Result<Entry> {
    let record = record(0, path, seq)?;
    let content = content(path);
    let time_ns = START_NS + i64::try_from(seq.0)? * 20_000_000;
    let installed = Installed {
        fingerprint: fingerprint(&content, seq.0, time_ns),
        content,
        mtime_ns: time_ns,
        mode: 0o640,
        owner: Some(owner()?),
    };
    Ok(Entry {
        record,
        installed: (!pending).then_some(installed),
        seq,
        changed_ns: time_ns,
        pending,
        ..Entry::default()
    })
}

/// Makes an index on the disk.
pub(crate) fn store(scratch: &Path, name: &str, epoch: Epoch) -> Result<Store> {
    if i128::from(rustix::fs::statfs(scratch)?.f_type) == TMPFS {
        return Err(
            "the scratch directory is on tmpfs, where a sync costs nothing; --dir names another"
                .into(),
        );
    }
    Ok(Store::open(&scratch.join(name), || epoch)?)
}
