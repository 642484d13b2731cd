//! The bytes of version 1, one frame for each variant, prefix included. A change here is a change of
//! the protocol: old and new nodes talk to each other during an upgrade (PROTOCOL.md, "Versions").
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::collections::BTreeSet;
use std::fmt::Write;

use recsync_proto::codec::{self, PREFIX_LEN};
use recsync_proto::hello::{Refusal, Versions};
use recsync_proto::message::{
    Ack, AckState, Announcement, Bytes, DigestEntry, DigestKind, FileRef, Lane, Moved, Open, Ping,
    ShareMessage,
};
use recsync_proto::{
    Content, Dot, Epoch, Hash, Hello, Lack, Message, NodeName, Owner, Record, Register, Seq,
    ShareName, SharePath, Stamp, Value,
};

fn share(body: ShareMessage) -> Message {
    Message::Share { share: ShareName::new("r").unwrap(), body }
}

fn path(path: &str) -> SharePath {
    SharePath::new(path).unwrap()
}

fn stamp(hlc: u64) -> Stamp {
    Stamp { hlc, node: NodeName::new("n1").unwrap() }
}

fn file() -> FileRef {
    FileRef { path: path("d/f"), size: 1 << 20, hash: Hash([0xaa; 32]) }
}

fn dot(epoch: u64, seq: u64) -> Dot {
    Dot { epoch: Epoch(epoch), seq: Seq(seq) }
}

fn record(contents: &[Content]) -> Record {
    let mut record = Record::default();
    record.context.insert(dot(1, 9));
    for (n, content) in (2..).zip(contents) {
        let dot = dot(n, n);
        record.context.insert(dot);
        let mtime_ns = Register { value: -1, stamp: stamp(0x1_0000) };
        record.values.push(Value {
            dot,
            stamp: stamp(0x1_0000),
            content: content.clone(),
            mtime_ns,
            lacks: BTreeSet::new(),
        });
    }
    if let Some(value) = record.values.first_mut() {
        let node = |name: &str| NodeName::new(name).unwrap();
        value.lacks.insert(Lack { node: node("n1"), peer: node("n2") });
        record.lost.insert(dot(1, 8));
    }
    record.mode = (!contents.is_empty()).then(|| Register { value: 0o644, stamp: stamp(0) });
    record.owner = (!contents.is_empty()).then(|| Register { value: owner(), stamp: stamp(0) });
    record
}

fn owner() -> Owner {
    "fs:33".parse().unwrap()
}

fn hello(lane: Lane) -> Message {
    Message::Hello(Hello {
        versions: Versions { min: 1, max: 300 },
        capabilities: vec!["x".to_owned()],
        node: NodeName::new("fs1").unwrap(),
        instance: u64::MAX,
        set: 250,
        lane,
    })
}

fn digests() -> Vec<DigestEntry> {
    let entry = |name: &str, kind| DigestEntry { name: name.as_bytes().to_vec(), kind };
    let digest = Hash([0xbb; 32]);
    let target = b"../t".to_vec();
    vec![
        entry(
            "a",
            DigestKind::Dir {
                mode: 0o755,
                owner: Some(owner()),
                digest,
                files: 251,
                bytes: 1 << 32,
            },
        ),
        entry(
            "b",
            DigestKind::File {
                mode: 0o644,
                owner: Some(owner()),
                size: 3,
                mtime_ns: 1,
                hash: Some(digest),
            },
        ),
        entry(
            "c",
            DigestKind::File { mode: 0, owner: None, size: 0, mtime_ns: i64::MIN, hash: None },
        ),
        entry("d", DigestKind::Symlink { target, mtime_ns: 0, owner: None }),
        entry("e", DigestKind::Unreadable),
    ]
}

/// Every variant of version 1 with its bytes.
fn golden() -> Vec<(&'static str, Message, &'static str)> {
    let contents = [
        Content::Dir,
        Content::File { size: 5, hash: Hash([0xcc; 32]) },
        Content::Symlink { target: b"t".to_vec() },
    ];
    let announced = Announcement {
        seq: Seq(9),
        path: path("new"),
        record: record(&contents),
        inline: Some(Bytes(b"bytes".to_vec())),
        moved_from: Some(Moved { seq: Seq(8), path: path("old"), record: record(&[]) }),
    };
    let forgotten = Announcement {
        seq: Seq(300),
        path: path("x"),
        record: Record::default(),
        inline: None,
        moved_from: None,
    };
    let acks = vec![
        Ack { seq: Seq(1), state: AckState::Held },
        Ack { seq: Seq::MAX, state: AckState::Durable },
    ];
    let lag_ms = vec![(ShareName::new("r").unwrap(), 1_000)];
    let opened = Open {
        epoch: Epoch(7),
        head: Seq(70_000),
        seen: Some((Epoch(8), Seq(0))),
        number: 5,
        answers: Some(251),
    };
    let fresh =
        Open { epoch: Epoch(u64::MAX), head: Seq(0), seen: None, number: 70_000, answers: None };
    vec![
        (
            "hello, live",
            hello(Lane::Live),
            "170000000001fb2c0101017803667331fdfffffffffffffffffa00",
        ),
        (
            "hello, bulk",
            hello(Lane::Bulk),
            "170000000001fb2c0101017803667331fdfffffffffffffffffa01",
        ),
        (
            "refuse version",
            Message::Refuse(Refusal::Version(Versions { min: 2, max: 3 })),
            "0400000001000203",
        ),
        ("refuse duplicate", Message::Refuse(Refusal::Duplicate), "020000000101"),
        ("refuse myself", Message::Refuse(Refusal::Myself), "020000000102"),
        ("refuse stopping", Message::Refuse(Refusal::Stopping), "020000000103"),
        ("refuse twin", Message::Refuse(Refusal::Twin), "020000000105"),
        ("refuse protocol", Message::Refuse(Refusal::protocol("how")), "06000000010403686f77"),
        (
            "ping",
            Message::Ping(Ping { wall_ms: 1_700_000_000_000, lag_ms }),
            "1000000002fd00d0ca9f17030000010172fbe803",
        ),
        (
            "ping before 1970",
            Message::Ping(Ping { wall_ms: -1, lag_ms: Vec::new() }),
            "03000000020100",
        ),
        ("open", share(ShareMessage::Open(opened)), "120000000301720007fc701101000108000501fbfb00"),
        (
            "open, first",
            share(ShareMessage::Open(fresh)),
            "1500000003017200fdffffffffffffffff0000fc7011010000",
        ),
        (
            "announce",
            share(ShareMessage::Announce(vec![announced, forgotten])),
            "\
             b2000000030172010209036e6577040109020203030404030202fc00000100026e3100\
             01fc00000100026e3101026e31026e320303fc00000100026e310105cccccccccccccc\
             cccccccccccccccccccccccccccccccccccccccccccccccccc01fc00000100026e3100\
             0404fc00000100026e3102017401fc00000100026e310001fba40100026e3101026673\
             02333300026e31010108010562797465730108036f6c6401010900000000fb2c010178\
             00000000000000",
        ),
        ("caught up", share(ShareMessage::CaughtUp { through: Seq(0) }), "050000000301720200"),
        ("acks", share(ShareMessage::Acks(acks)), "1100000003017203020100fd000000000000004001"),
        (
            "get outline",
            share(ShareMessage::GetOutline { id: 1, file: file(), first: 0, count: 4 }),
            "\
             30000000030172040103642f66fc00001000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
             aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0004",
        ),
        (
            "get blocks",
            share(ShareMessage::GetBlocks { id: 1, file: file(), first: 2, count: 2 }),
            "\
             30000000030172050103642f66fc00001000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
             aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0202",
        ),
        (
            "outline",
            share(ShareMessage::Outline { id: 1, blocks: vec![Hash([0xdd; 32])] }),
            "\
             26000000030172060101dddddddddddddddddddddddddddddddddddddddddddddddddd\
             dddddddddddddd",
        ),
        (
            "block",
            share(ShareMessage::Block { id: 1, index: 3, bytes: Bytes(vec![1, 2]) }),
            "09000000030172070103020102",
        ),
        ("gone", share(ShareMessage::Gone { id: u32::MAX }), "0900000003017208fcffffffff"),
        (
            "get digests",
            share(ShareMessage::GetDigests { id: 1, dir: b"d".to_vec(), after: Vec::new() }),
            "080000000301720901016400",
        ),
        (
            "digests",
            share(ShareMessage::Digests { id: 1, dir: Vec::new(), entries: digests(), more: true }),
            "\
             8e0000000301720a010005016100fbed0101026673023333bbbbbbbbbbbbbbbbbbbbbb\
             bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbfbfb00fd00000000010000000162\
             01fba40101026673023333030201bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\
             bbbbbbbbbbbbbbbbbbbbbb016301000000fdffffffffffffffff00016402042e2e2f74\
             000001650301",
        ),
    ]
}

/// Names every variant; a new one does not compile until it is named here.
fn variant(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "hello",
        Message::Refuse(refusal) => match refusal {
            Refusal::Version(_) => "refuse version",
            Refusal::Duplicate => "refuse duplicate",
            Refusal::Myself => "refuse myself",
            Refusal::Stopping => "refuse stopping",
            Refusal::Twin => "refuse twin",
            Refusal::Protocol(_) => "refuse protocol",
        },
        Message::Ping(_) => "ping",
        Message::Share { body, .. } => match body {
            ShareMessage::Open(_) => "open",
            ShareMessage::Announce(_) => "announce",
            ShareMessage::CaughtUp { .. } => "caught up",
            ShareMessage::Acks(_) => "acks",
            ShareMessage::GetOutline { .. } => "get outline",
            ShareMessage::GetBlocks { .. } => "get blocks",
            ShareMessage::Outline { .. } => "outline",
            ShareMessage::Block { .. } => "block",
            ShareMessage::Gone { .. } => "gone",
            ShareMessage::GetDigests { .. } => "get digests",
            ShareMessage::Digests { .. } => "digests",
        },
    }
}

/// How many names [`variant`] has.
const VARIANTS: usize = 19;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes all");
        hex
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(pair).collect()
}

#[test]
fn every_variant_has_the_bytes_of_version_1() {
    for (name, message, expected) in golden() {
        let expected: String = expected.split_whitespace().collect();
        assert_eq!(hex(&codec::encode(&message).unwrap()), expected, "{name}");
        let body = &bytes(&expected)[PREFIX_LEN..];
        assert_eq!(codec::decode(body), Ok(message), "{name}");
    }
}

#[test]
fn no_variant_is_forgotten() {
    let named: BTreeSet<_> = golden().iter().map(|(_, message, _)| variant(message)).collect();
    assert_eq!(named.len(), VARIANTS, "{named:?}");
}

#[test]
fn every_cut_and_every_surplus_is_refused() {
    for (name, message, _) in golden() {
        let mut body = codec::encode(&message).unwrap().split_off(PREFIX_LEN);
        for len in 0..body.len() {
            assert!(codec::decode(&body[..len]).is_err(), "{name}: {len} of {} bytes", body.len());
        }
        body.push(0);
        assert!(codec::decode(&body).is_err(), "{name}: a byte too many");
    }
}

/// A forged length where any byte is now must neither be believed nor made room for: 2^62 bytes would
/// abort the process, 2^31 would show in its address space.
#[test]
fn forged_lengths_allocate_nothing() {
    let before_kb = peak_kb();
    for (name, message, _) in golden() {
        let body = codec::encode(&message).unwrap().split_off(PREFIX_LEN);
        for at in 0..body.len() {
            for exponent in [31, 62] {
                let forged = (1_u64 << exponent).to_le_bytes();
                for tagged in [&[&[253], &forged[..]].concat(), &[&[252], &forged[..4]].concat()] {
                    let body = [&body[..at], tagged, &body[at + 1..]].concat();
                    // A number elsewhere than in a length may be legal.
                    if let Ok(message) = codec::decode(&body) {
                        assert!(codec::encode(&message).is_ok(), "{name} at {at}");
                    }
                }
            }
        }
    }
    let grown_kb = peak_kb() - before_kb;
    assert!(grown_kb < 1 << 20, "{grown_kb} KiB");
}

/// Returns the most address space that this process has ever had, in KiB.
#[expect(clippy::disallowed_methods, reason = "the kernel's view of this process, no share")]
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}
