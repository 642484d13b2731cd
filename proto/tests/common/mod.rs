//! Every legal message, for property tests.
#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use recsync_proto::hello::{Refusal, Versions};
use recsync_proto::message::{
    Ack, AckState, Announcement, BLOCKS_MAX, Bytes, DigestEntry, DigestKind, FILE_SIZE_MAX,
    FileRef, Lane, Moved, OUTLINE_PAGE_MAX, Open, Ping, ShareMessage, block_count,
};
use recsync_proto::path::RESERVED;
use recsync_proto::{
    Account, Content, Context, Dot, Epoch, Hash, Hello, Lack, Message, NodeName, Owner, Record,
    Register, Seq, ShareName, SharePath, Stamp, Value,
};

pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        hello().prop_map(Message::Hello),
        refusal().prop_map(Message::Refuse),
        ping().prop_map(Message::Ping),
        (share_name(), share_message()).prop_map(|(share, body)| Message::Share { share, body }),
    ]
}

fn share_message() -> impl Strategy<Value = ShareMessage> {
    prop_oneof![
        open().prop_map(ShareMessage::Open),
        vec(announcement(), 0..4).prop_map(ShareMessage::Announce),
        seq().prop_map(|through| ShareMessage::CaughtUp { through }),
        vec(ack(), 0..100).prop_map(ShareMessage::Acks),
        (any::<u32>(), range(OUTLINE_PAGE_MAX)).prop_map(|(id, (file, first, count))| {
            ShareMessage::GetOutline { id, file, first, count }
        }),
        (any::<u32>(), range(BLOCKS_MAX)).prop_map(|(id, (file, first, count))| {
            ShareMessage::GetBlocks { id, file, first, count }
        }),
        (any::<u32>(), vec(hash(), 0..100))
            .prop_map(|(id, blocks)| ShareMessage::Outline { id, blocks }),
        (any::<u32>(), any::<u32>(), vec(any::<u8>(), 0..2_000))
            .prop_map(|(id, index, bytes)| ShareMessage::Block { id, index, bytes: Bytes(bytes) }),
        any::<u32>().prop_map(|id| ShareMessage::Gone { id }),
        (any::<u32>(), dir(), prop_oneof![Just(Vec::new()), component()])
            .prop_map(|(id, dir, after)| ShareMessage::GetDigests { id, dir, after }),
        (any::<u32>(), dir(), btree_map(component(), digest_kind(), 0..10), any::<bool>())
            .prop_map(|(id, dir, entries, more)| {
                let entry = |(name, kind)| DigestEntry { name, kind };
                let entries = entries.into_iter().map(entry).collect();
                ShareMessage::Digests { id, dir, entries, more }
            }),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let versions = (any::<u16>(), any::<u16>()).prop_map(|(min, max)| Versions { min, max });
    let lane = prop_oneof![Just(Lane::Live), Just(Lane::Bulk)];
    (versions, vec(".{0,20}", 0..4), node_name(), any::<u64>(), any::<u64>(), lane).prop_map(
        |(versions, capabilities, node, instance, set, lane)| Hello {
            versions,
            capabilities,
            node,
            instance,
            set,
            lane,
        },
    )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        (any::<u16>(), any::<u16>()).prop_map(|(min, max)| Refusal::Version(Versions { min, max })),
        Just(Refusal::Duplicate),
        Just(Refusal::Myself),
        Just(Refusal::Stopping),
        Just(Refusal::Twin),
        ".{0,2000}".prop_map(|how| Refusal::protocol(&how)),
    ]
}

fn ping() -> impl Strategy<Value = Ping> {
    (any::<i64>(), vec((share_name(), any::<u64>()), 0..10))
        .prop_map(|(wall_ms, lag_ms)| Ping { wall_ms, lag_ms })
}

fn open() -> impl Strategy<Value = Open> {
    (epoch(), seq(), option::of((epoch(), seq())), any::<u64>(), option::of(any::<u64>())).prop_map(
        |(epoch, head, seen, number, answers)| Open { epoch, head, seen, number, answers },
    )
}

fn announcement() -> impl Strategy<Value = Announcement> {
    let inline = option::of(vec(any::<u8>(), 0..1_000));
    let moved =
        (seq(), path(), record()).prop_map(|(seq, path, record)| Moved { seq, path, record });
    (seq(), path(), record(), inline, option::of(moved)).prop_map(
        |(seq, path, record, inline, moved_from)| Announcement {
            seq,
            path,
            record,
            inline: inline.map(Bytes),
            moved_from,
        },
    )
}

fn ack() -> impl Strategy<Value = Ack> {
    let state = prop_oneof![Just(AckState::Held), Just(AckState::Durable)];
    (seq(), state).prop_map(|(seq, state)| Ack { seq, state })
}

fn range(most: u32) -> impl Strategy<Value = (FileRef, u32, u32)> {
    (path(), 0..=FILE_SIZE_MAX, hash(), any::<u32>(), any::<u32>()).prop_map(
        move |(path, size, hash, first, count)| {
            let blocks = u32::try_from(block_count(size)).unwrap();
            let first = first % blocks;
            let count = 1 + count % most.min(blocks - first);
            (FileRef { path, size, hash }, first, count)
        },
    )
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    let mode = option::of(register(0..=0o7777_u32));
    let owner = option::of(register(owner()));
    let dots = || btree_set((epoch(), seq()), 0..4);
    (dots(), vec(value(), 0..4), mode, owner, dots()).prop_map(
        |(known, values, mode, owner, lost)| {
            let mut context = Context::new();
            for (epoch, seq) in known {
                context.insert(Dot { epoch, seq });
            }
            let lost = lost.into_iter().map(|(epoch, seq)| Dot { epoch, seq }).collect();
            let mut record = Record { context, values, mode, owner, lost };
            record.values.sort_by_key(|value| value.dot);
            record.values.dedup_by_key(|value| value.dot);
            for value in &record.values {
                record.context.insert(value.dot);
                record.lost.remove(&value.dot);
            }
            for &dot in &record.lost {
                record.context.insert(dot);
            }
            record
        },
    )
}

fn value() -> impl Strategy<Value = Value> {
    let lack = || (node_name(), node_name()).prop_map(|(node, peer)| Lack { node, peer });
    let lacks = btree_set(lack(), 0..4);
    (epoch(), seq(), stamp(), content(), register(any::<i64>()), lacks).prop_map(
        |(epoch, seq, stamp, content, mtime_ns, lacks)| Value {
            dot: Dot { epoch, seq },
            stamp,
            content,
            mtime_ns,
            lacks,
        },
    )
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Dir),
        (0..=FILE_SIZE_MAX, hash()).prop_map(|(size, hash)| Content::File { size, hash }),
        target().prop_map(|target| Content::Symlink { target }),
    ]
}

fn digest_kind() -> impl Strategy<Value = DigestKind> {
    let mode = || 0..=0o7777_u32;
    prop_oneof![
        (mode(), option::of(owner()), hash(), any::<u64>(), any::<u64>()).prop_map(
            |(mode, owner, digest, files, bytes)| DigestKind::Dir {
                mode,
                owner,
                digest,
                files,
                bytes
            }
        ),
        (mode(), option::of(owner()), any::<u64>(), any::<i64>(), option::of(hash())).prop_map(
            |(mode, owner, size, mtime_ns, hash)| DigestKind::File {
                mode,
                owner,
                size,
                mtime_ns,
                hash
            }
        ),
        (target(), any::<i64>(), option::of(owner())).prop_map(|(target, mtime_ns, owner)| {
            DigestKind::Symlink { target, mtime_ns, owner }
        }),
        Just(DigestKind::Unreadable),
    ]
}

fn register<T: std::fmt::Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Register<T>> {
    (value, stamp()).prop_map(|(value, stamp)| Register { value, stamp })
}

fn owner() -> impl Strategy<Value = Owner> {
    let account = || "[^:/\\p{Cc}]{1,20}".prop_map(|name| Account::new(name).unwrap());
    (account(), account()).prop_map(|(user, group)| Owner { user, group })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (any::<u64>(), node_name()).prop_map(|(hlc, node)| Stamp { hlc, node })
}

fn target() -> impl Strategy<Value = Vec<u8>> {
    vec(1..=255_u8, 1..100)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    prop_oneof![0..4_u64, any::<u64>()].prop_map(Epoch)
}

fn seq() -> impl Strategy<Value = Seq> {
    prop_oneof![0..300_u64, 0..=Seq::MAX.0].prop_map(Seq)
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn component() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![1..=46_u8, 48..=255_u8];
    let legal = |name: &Vec<u8>| name != b"." && name != b".." && name != RESERVED;
    vec(byte, 1..40).prop_filter("a name", legal)
}

fn path() -> impl Strategy<Value = SharePath> {
    vec(component(), 1..4).prop_map(|names| SharePath::new(names.join(&b'/')).unwrap())
}

fn dir() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), path().prop_map(|path| path.as_bytes().to_vec())]
}

fn node_name() -> impl Strategy<Value = NodeName> {
    "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,31}".prop_map(|name| NodeName::new(name).unwrap())
}

fn share_name() -> impl Strategy<Value = ShareName> {
    "[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,31}".prop_map(|name| ShareName::new(name).unwrap())
}
