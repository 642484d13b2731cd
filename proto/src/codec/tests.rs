//! Every limit: what is just within it passes, what is just beyond is refused.

use std::collections::BTreeSet;

use super::*;
use crate::hello::{Hello, VERSIONS};
use crate::message::{Ack, AckState, Lane, Moved, Open, Ping};
use crate::path::{NodeName, PATH_LEN_MAX, ShareName, SharePath};
use crate::record::{Hash, Lack, Register, Value};
use crate::version::{Context, Dot, Epoch, Seq, Stamp};

/// Returns what a peer that knows no limits would send.
fn raw(value: impl bincode::Encode) -> Vec<u8> {
    bincode::encode_to_vec(value, CODEC).unwrap()
}

fn passes(what: &str, message: Message) {
    let frame = encode(&message).unwrap();
    assert_eq!(decode(&frame[PREFIX_LEN..]), Ok(message), "{what}");
}

fn breaks(limit: &'static str, message: Message) {
    assert_eq!(decode(&raw(message)), Err(CodecError::Limit(limit)));
}

fn share(body: ShareMessage) -> Message {
    Message::Share { share: ShareName::new("recordings").unwrap(), body }
}

fn path(path: impl Into<Vec<u8>>) -> SharePath {
    SharePath::new(path).unwrap()
}

fn stamp() -> Stamp {
    Stamp { hlc: 1, node: NodeName::new("fs1").unwrap() }
}

fn value(seq: u64, content: Content) -> Value {
    let dot = Dot { epoch: Epoch(seq), seq: Seq(seq) };
    let mtime_ns = Register { value: 0, stamp: stamp() };
    Value { dot, stamp: stamp(), content, mtime_ns, lacks: BTreeSet::new() }
}

fn record(values: Vec<Value>) -> Record {
    let mut record = Record { values, ..Record::default() };
    for value in &record.values {
        record.context.insert(value.dot);
    }
    record
}

/// So many nodes with names of the greatest length that lack a version.
fn lacks(count: u64) -> BTreeSet<Lack> {
    let node = |n: u64| NodeName::new(format!("n{n:031}")).unwrap();
    (0..count).map(|n| Lack { node: node(n), peer: node(n + 1) }).collect()
}

/// A version that no [`value`] is, known from the value of that number on.
fn given_up(n: u64) -> Dot {
    Dot { epoch: Epoch(n), seq: Seq(n - 1) }
}

fn announce(record: Record, inline: Option<Vec<u8>>) -> Message {
    let announcement = Announcement {
        seq: Seq(1),
        path: path("a"),
        record,
        inline: inline.map(Bytes),
        moved_from: None,
    };
    share(ShareMessage::Announce(vec![announcement]))
}

#[test]
fn lengths_of_frames() {
    let prefix = |len: usize| u32::try_from(len).unwrap().to_le_bytes();
    assert_eq!(body_len(prefix(HELLO_LEN_MAX), HELLO_LEN_MAX), Ok(HELLO_LEN_MAX));
    for (len, max) in [
        (HELLO_LEN_MAX + 1, HELLO_LEN_MAX),
        (FRAME_LEN_MAX + 1, FRAME_LEN_MAX),
        (u32::MAX as usize, FRAME_LEN_MAX),
    ] {
        assert_eq!(body_len(prefix(len), max), Err(CodecError::TooLong { len, max }));
    }
    let len = FRAME_LEN_MAX + 1;
    let too_long = CodecError::TooLong { len, max: FRAME_LEN_MAX };
    assert_eq!(decode(&vec![0; len]), Err(too_long));
    assert!(matches!(decode(&[]), Err(CodecError::Malformed(_))));
}

#[test]
fn the_greatest_legal_messages_pass() {
    let full = |n: u64| Announcement {
        seq: Seq(n),
        path: path(vec![b'x'; 255]),
        record: record(vec![value(n, Content::File { size: 1, hash: Hash([1; 32]) })]),
        inline: None,
        moved_from: None,
    };
    let announcements = (1..=ANNOUNCEMENTS_MAX as u64).map(full).collect();
    passes("announcements", share(ShareMessage::Announce(announcements)));
    let inline = Some(vec![7; usize::try_from(INLINE_LEN_MAX).unwrap()]);
    passes("inline", announce(record(Vec::new()), inline));
    let ack = Ack { seq: Seq::MAX, state: AckState::Durable };
    passes("acks", share(ShareMessage::Acks(vec![ack; ACKS_MAX])));
    let blocks = vec![Hash([1; 32]); OUTLINE_PAGE_MAX as usize];
    passes("outline", share(ShareMessage::Outline { id: 1, blocks }));
    let bytes = vec![0; BLOCK_LEN_MAX];
    passes("block", share(ShareMessage::Block { id: 1, index: 0, bytes: Bytes(bytes) }));
    let versions = (1..=VERSIONS_MAX as u64).map(|n| value(n, Content::Dir)).collect();
    passes("versions", announce(record(versions), None));
    // The longest record, with the bytes of a small file.
    let target = vec![b'x'; SYMLINK_LEN_MAX];
    let link = |n| Value {
        lacks: lacks(LACKS_MAX as u64),
        ..value(n, Content::Symlink { target: target.clone() })
    };
    let mut longest = record((1..=VERSIONS_MAX as u64).map(link).collect());
    longest.lost = (1..=LOST_MAX as u64).map(given_up).collect();
    longest.context = Context::new();
    for n in 1..=VERSIONS_MAX as u64 {
        longest.context.insert(Dot { epoch: Epoch(n), seq: Seq::MAX });
    }
    let inline = Some(vec![7; usize::try_from(INLINE_LEN_MAX).unwrap()]);
    passes("the longest record", announce(longest, inline));
    let digest = |n: usize| DigestEntry {
        name: format!("{n:0200}").into_bytes(),
        kind: DigestKind::File {
            mode: 0o7777,
            owner: None,
            size: FILE_SIZE_MAX,
            mtime_ns: 0,
            hash: None,
        },
    };
    let entries = (0..DIGESTS_MAX).map(digest).collect();
    passes("digests", share(ShareMessage::Digests { id: 1, dir: Vec::new(), entries, more: true }));
    let lag = (ShareName::new("x".repeat(32)).unwrap(), u64::MAX);
    passes("lags", Message::Ping(Ping { wall_ms: 0, lag_ms: vec![lag; LAGS_MAX] }));
}

#[test]
fn too_many_or_too_long() {
    let hello = Hello {
        versions: VERSIONS,
        capabilities: vec![String::new(); CAPABILITIES_MAX + 1],
        node: NodeName::new("fs1").unwrap(),
        instance: 1,
        set: 1,
        lane: Lane::Live,
    };
    breaks("capabilities in a hello", Message::Hello(hello));
    let how = "x".repeat(REASON_LEN_MAX + 1);
    breaks("a refusal's length", Message::Refuse(Refusal::Protocol(how)));
    let lag = (ShareName::new("r").unwrap(), 0);
    let ping = Ping { wall_ms: 0, lag_ms: vec![lag; LAGS_MAX + 1] };
    breaks("shares in a ping", Message::Ping(ping));
    let forgotten = Announcement {
        seq: Seq(1),
        path: path("a"),
        record: Record::default(),
        inline: None,
        moved_from: None,
    };
    let announcements = vec![forgotten; ANNOUNCEMENTS_MAX + 1];
    breaks("announcements in a frame", share(ShareMessage::Announce(announcements)));
    let inline = vec![7; usize::try_from(INLINE_LEN_MAX + 1).unwrap()];
    breaks("bytes inside an announcement", announce(Record::default(), Some(inline)));
    let ack = Ack { seq: Seq(1), state: AckState::Durable };
    breaks("acks in a frame", share(ShareMessage::Acks(vec![ack; ACKS_MAX + 1])));
    let blocks = vec![Hash([1; 32]); OUTLINE_PAGE_MAX as usize + 1];
    breaks("block hashes in a frame", share(ShareMessage::Outline { id: 1, blocks }));
    let bytes = vec![0; BLOCK_LEN_MAX + 1];
    breaks("bytes of a block", share(ShareMessage::Block { id: 1, index: 0, bytes: Bytes(bytes) }));
}

#[test]
fn unsound_records() {
    let unknown = Record { values: vec![value(1, Content::Dir)], ..Record::default() };
    let mut twice = record(vec![value(1, Content::Dir), value(2, Content::Dir)]);
    twice.values[1].dot = twice.values[0].dot;
    let mut backwards = record(vec![value(1, Content::Dir), value(2, Content::Dir)]);
    backwards.values.reverse();
    let unheard_of = Record { lost: [given_up(1)].into(), ..Record::default() };
    let mut alive = record(vec![value(1, Content::Dir)]);
    alive.lost.insert(alive.values[0].dot);
    for unsound in [unknown, twice, backwards, unheard_of, alive] {
        let limit = "a record whose values do not fit its context";
        assert_eq!(decode_record(&raw(&unsound)), Err(CodecError::Limit(limit)));
        breaks(limit, announce(unsound.clone(), None));
        let moved = Moved { seq: Seq(1), path: path("b"), record: unsound };
        let announcement = Announcement {
            seq: Seq(1),
            path: path("a"),
            record: Record::default(),
            inline: None,
            moved_from: Some(moved),
        };
        breaks(limit, share(ShareMessage::Announce(vec![announcement])));
    }
    let versions = |count| (1..=count).map(|n| value(n, Content::Dir)).collect();
    breaks("versions of one path", announce(record(versions(VERSIONS_MAX as u64 + 1)), None));
    let mut many = record(vec![value(u64::from(u32::MAX), Content::Dir)]);
    many.lost = (0..=LOST_MAX as u64).map(|n| Dot { seq: Seq(n), ..many.values[0].dot }).collect();
    breaks("versions given up", announce(many, None));
    let lacked = Value { lacks: lacks(LACKS_MAX as u64 + 1), ..value(1, Content::Dir) };
    breaks("nodes that lack a version", announce(record(vec![lacked]), None));
    let mode = Some(Register { value: 0o10000, stamp: stamp() });
    breaks("permission bits", announce(Record { mode, ..Record::default() }, None));
    let file = Content::File { size: FILE_SIZE_MAX + 1, hash: Hash([0; 32]) };
    breaks("a file's size", announce(record(vec![value(1, file)]), None));
    for target in [Vec::new(), b"a\0b".to_vec(), vec![b'x'; SYMLINK_LEN_MAX + 1]] {
        let link = Content::Symlink { target };
        breaks("a symbolic link's target", announce(record(vec![value(1, link)]), None));
    }
}

#[test]
fn ranges_of_blocks() {
    let file = |size| FileRef { path: path("a"), size, hash: Hash([0; 32]) };
    let blocks = |size, first, count| {
        share(ShareMessage::GetBlocks { id: 1, file: file(size), first, count })
    };
    let outline = |size, first, count| {
        share(ShareMessage::GetOutline { id: 1, file: file(size), first, count })
    };
    let block_len = crate::message::block_size(1);
    passes("the empty file has a block", blocks(0, 0, 1));
    passes("the last block", blocks(block_len * 20, 4, 16));
    passes(
        "all block hashes",
        outline(FILE_SIZE_MAX, (1 << 20) - OUTLINE_PAGE_MAX, OUTLINE_PAGE_MAX),
    );
    breaks("blocks asked for", blocks(block_len, 0, 0));
    breaks("blocks asked for", blocks(FILE_SIZE_MAX, 0, BLOCKS_MAX + 1));
    breaks("block hashes asked for", outline(FILE_SIZE_MAX, 0, 0));
    breaks("block hashes asked for", outline(FILE_SIZE_MAX, 0, OUTLINE_PAGE_MAX + 1));
    for (size, first, count) in [(0, 0, 2), (0, 1, 1), (block_len, 1, 1), (1, u32::MAX, 16)] {
        breaks("blocks beyond the file's end", blocks(size, first, count));
        breaks("blocks beyond the file's end", outline(size, first, count));
    }
    breaks("a file's size", blocks(FILE_SIZE_MAX + 1, 0, 1));
}

#[test]
fn digests_name_only_what_lies_in_the_directory() {
    let digests = |dir: &[u8], names: &[&[u8]]| {
        let entry =
            |name: &&[u8]| DigestEntry { name: name.to_vec(), kind: DigestKind::Unreadable };
        let entries = names.iter().map(entry).collect();
        share(ShareMessage::Digests { id: 1, dir: dir.to_vec(), entries, more: false })
    };
    passes("names", digests(b"d", &[b".recsync", b"a", b"b"]));
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'x'; 256]] {
        breaks("a name", digests(b"d", &[name]));
    }
    breaks("a name", digests(b"", &[b".recsync"]));
    breaks("digests out of order", digests(b"", &[b"b", b"a"]));
    breaks("digests out of order", digests(b"", &[b"a", b"a"]));
    for dir in [&b"/"[..], b"..", b"a/../b", b".recsync/trash", b"a//b"] {
        breaks("a directory's path", digests(dir, &[]));
        let dir = dir.to_vec();
        let ask = ShareMessage::GetDigests { id: 1, dir, after: Vec::new() };
        breaks("a directory's path", share(ask));
    }
    let after = b"a/b".to_vec();
    breaks("a name", share(ShareMessage::GetDigests { id: 1, dir: Vec::new(), after }));
}

/// Paths, names and sequence numbers cannot be built wrong, so their bytes are forged.
#[test]
fn what_no_type_can_hold_does_not_decode() {
    let prefix = raw((1_u32, 1_u64, 1_u64));
    let announce = |path: &[u8]| {
        // Share (3) "r", Announce (1) of one: sequence number, path, an empty record, no bytes.
        let rest = [0_u8; 7];
        [&raw((3_u32, "r", 1_u32, 1_u64, 1_u64, path)), &rest[..]].concat()
    };
    assert_eq!(prefix.len(), 3, "numbers below 251 are one byte");
    assert!(decode(&announce(b"2026/11/a.wav")).is_ok());
    assert!(decode(&announce(b"a/.recsync")).is_ok(), "reserved at the root only");
    let long = [b"x".repeat(255).as_slice(); 17].join(&b'/');
    assert!(long.len() > PATH_LEN_MAX);
    for path in [
        &b""[..],
        b"/etc/passwd",
        b"../a",
        b"a/../b",
        b"a/..",
        b"./a",
        b"a/",
        b"a//b",
        b"a\0b",
        b".recsync",
        b".recsync/tmp/x",
        &[b'x'; 256],
        &long,
    ] {
        assert!(matches!(decode(&announce(path)), Err(CodecError::Malformed(_))), "{path:?}");
    }
    for share in ["", ".", "..", "-a", "a/b", "a b", "é", &"x".repeat(33)] {
        let gone = raw((3_u32, share, 8_u32, 1_u32));
        assert!(matches!(decode(&gone), Err(CodecError::Malformed(_))), "{share}");
    }
    let caught_up = |seq: u64| raw((3_u32, "r", 2_u32, seq));
    assert!(decode(&caught_up(Seq::MAX.0)).is_ok());
    for seq in [Seq::MAX.0 + 1, u64::MAX] {
        assert!(matches!(decode(&caught_up(seq)), Err(CodecError::Malformed(_))), "{seq}");
    }
    // An option that is neither, a lane that is none, a text that is no UTF-8.
    let open = Open { epoch: Epoch(1), head: Seq(1), seen: None, number: 1, answers: None };
    let mut bytes = raw(share(ShareMessage::Open(open)));
    *bytes.last_mut().unwrap() = 2;
    assert!(matches!(decode(&bytes), Err(CodecError::Malformed(_))));
    assert!(matches!(decode(&raw((1_u32, 4_u32, vec![0xff_u8]))), Err(CodecError::Malformed(_))));
    assert!(matches!(decode(&raw(99_u32)), Err(CodecError::Malformed(_))));
}
