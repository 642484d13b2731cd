//! Bytes: frames to and from types, and hashes of files.

use std::path::Path;
use std::rc::Rc;

use recsync::load::{Ledger, record};
use recsync::observe::blocks::outline;
use recsync::observe::hash;
use recsync::sys::Clock;
use recsync::tree::{Disk, Place, Tree, create_marker};
use recsync_proto::codec::{PREFIX_LEN, decode, encode};
use recsync_proto::message::{Announcement, Bytes, ShareMessage};
use recsync_proto::{Message, Seq, ShareName, SharePath};

use crate::{Case, Result, Run, Work, sample, timed};

const SHARE: &str = "recordings";

pub(crate) fn codec() -> Vec<Case> {
    let with_none = ("an announcement", 0);
    let with_bytes = ("an announcement with 100 kB inside", sample::RECORDING);
    let mut cases = Vec::new();
    for (name, inline) in [with_none, with_bytes] {
        let frame = frame(inline).map_err(|why| why.to_string());
        let work = Work::Bytes(frame.as_ref().map_or(0, |(_, frame)| frame.len() as u64));
        let mut add = |verb: &str, run: fn(Message, Vec<u8>) -> Run| {
            let run = frame.clone().map(|(message, frame)| run(message, frame));
            cases.push(Case::new(format!("{verb} {name}"), work, run.map_err(Into::into)));
        };
        add("encode", |message, _| Box::new(move |count| timed(count, || Ok(encode(&message)?))));
        add("decode", |_, frame| {
            Box::new(move |count| timed(count, || Ok(decode(&frame[PREFIX_LEN..])?)))
        });
    }
    cases
}

/// Returns a message with one announcement, and its frame.
fn frame(inline: u64) -> Result<(Message, Vec<u8>)> {
    let path = sample::path(1)?;
    let announcement = Announcement {
        seq: Seq(100_000),
        record: sample::record(0, &path, Seq(100_000))?,
        path,
        inline: (inline > 0).then(|| Bytes((0..inline).map(|at| at.to_le_bytes()[0]).collect())),
        moved_from: None,
    };
    let body = ShareMessage::Announce(vec![announcement]);
    let message = Message::Share { share: ShareName::new(SHARE)?, body };
    let frame = encode(&message)?;
    Ok((message, frame))
}

pub(crate) fn hashing(scratch: &Path) -> Vec<Case> {
    let disk = disk(scratch);
    let mut cases = Vec::new();
    for (name, bytes) in [("100 kB", sample::RECORDING), ("1 MiB", 1 << 20), ("64 MiB", 64 << 20)] {
        let file = match &disk {
            Ok(disk) => recorded(disk, &scratch.join(SHARE), bytes).map_err(|why| why.to_string()),
            Err(why) => Err(why.to_string()),
        };
        let mut add = |what: &str, run: fn(Recording) -> Run| {
            let run = file.clone().map(run).map_err(Into::into);
            cases.push(Case::new(format!("{what} of {name}"), Work::Bytes(bytes), run));
        };
        add("hash", |Recording { disk, file, bytes }| {
            Box::new(move |count| timed(count, || Ok(hash(&*disk, &file, bytes)?)))
        });
        add("hash and block hashes", |Recording { disk, file, bytes }| {
            Box::new(move |count| timed(count, || Ok(outline(&*disk, &file, bytes)?)))
        });
    }
    cases
}

/// An open file of a share.
#[derive(Clone)]
struct Recording {
    disk: Rc<Disk>,
    file: Rc<<Disk as Tree>::File>,
    bytes: u64,
}

fn disk(scratch: &Path) -> Result<Rc<Disk>> {
    let (root, share) = (scratch.join(SHARE), ShareName::new(SHARE)?);
    std::fs::create_dir_all(&root)?;
    create_marker(&root, &share)?;
    Ok(Rc::new(Disk::open(&root, &share, None)?))
}

/// Makes a file as a recorder leaves it: just written, it is in the page cache.
fn recorded(disk: &Rc<Disk>, root: &Path, bytes: u64) -> Result<Recording> {
    let name = format!("{bytes}.wav");
    record(root, 0, &name, bytes, &Ledger::new(Clock::start()))?;
    let file = disk.open(&Place::Share(SharePath::new(name)?))?;
    // What is still to be written would be, while others are measured.
    disk.sync(&file)?;
    Ok(Recording { disk: disk.clone(), file: Rc::new(file), bytes })
}
