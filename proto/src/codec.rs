//! Bytes to messages and back: `u32` length (little endian), then bincode (standard, varint).
//!
//! **Invariant:** a length is checked before anything is read or allocated for it; a decoded
//! message fills its frame exactly and satisfies every limit of its type.
//! The only place that names bincode, so that it can be replaced here alone.

use bincode::de::Decoder;
use bincode::de::read::Reader as _;
use bincode::error::DecodeError;
use bincode::{Decode, config};
use thiserror::Error;

use crate::hello::{REASON_LEN_MAX, Refusal};
use crate::message::{
    ACKS_MAX, ANNOUNCEMENTS_MAX, Announcement, BLOCK_LEN_MAX, BLOCKS_MAX, Bytes, CAPABILITIES_MAX,
    DIGESTS_MAX, DigestEntry, DigestKind, FILE_SIZE_MAX, FileRef, INLINE_LEN_MAX, LACKS_MAX,
    LAGS_MAX, LOST_MAX, Message, OUTLINE_PAGE_MAX, SYMLINK_LEN_MAX, ShareMessage, VERSIONS_MAX,
    block_count,
};
use crate::path::{RESERVED, check_component, check_path};
use crate::record::{Content, Record, Value};

/// Longest body of a frame: one block of the largest size, or a full page of anything else.
pub const FRAME_LEN_MAX: usize = 2 << 20;
/// Longest body of a frame before the hello is done.
pub const HELLO_LEN_MAX: usize = 4 << 10;
/// Bytes of the length prefix.
pub const PREFIX_LEN: usize = 4;

/// Announcements' bytes per frame stop here, so that one frame never exceeds [`FRAME_LEN_MAX`].
pub const ANNOUNCE_LEN_TARGET: usize = 1 << 20;

const CODEC: config::Configuration<
    config::LittleEndian,
    config::Varint,
    config::Limit<{ FRAME_LEN_MAX * 2 }>,
> = config::standard().with_limit::<{ FRAME_LEN_MAX * 2 }>();

/// Why bytes are not a frame of this protocol, or a message cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The length prefix is over the limit.
    #[error("a frame of {len} bytes is over the limit of {max}")]
    TooLong {
        /// As announced.
        len: usize,
        /// As allowed now.
        max: usize,
    },
    /// The bytes do not decode.
    #[error("a frame does not decode: {0}")]
    Malformed(String),
    /// The message decodes but breaks a limit.
    #[error("a frame breaks a limit: {0}")]
    Limit(&'static str),
}

/// Returns a whole frame, prefix included.
///
/// # Errors
/// If the message is longer than a frame may be, or breaks a limit, so that every peer would refuse
/// it: a bug of the caller.
pub fn encode(message: &Message) -> Result<Vec<u8>, CodecError> {
    check(message)?;
    let mut frame = Vec::with_capacity(PREFIX_LEN + roughly(message));
    frame.extend([0; PREFIX_LEN]);
    bincode::encode_into_std_write(message, &mut frame, CODEC)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    let len = frame.len() - PREFIX_LEN;
    if len > FRAME_LEN_MAX {
        return Err(CodecError::TooLong { len, max: FRAME_LEN_MAX });
    }
    let prefix = u32::try_from(len).expect("FRAME_LEN_MAX fits u32");
    frame[..PREFIX_LEN].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

/// Returns about how many bytes a message has, so that files' bytes are copied into its frame once.
fn roughly(message: &Message) -> usize {
    const REST: usize = 512;
    let files = |announcement: &Announcement| {
        announcement.inline.as_ref().map_or(0, |Bytes(bytes)| bytes.len())
    };
    match message {
        Message::Share { body: ShareMessage::Announce(announcements), .. } => {
            announcements.iter().map(|announcement| files(announcement) + REST).sum()
        }
        Message::Share { body: ShareMessage::Block { bytes, .. }, .. } => bytes.0.len() + REST,
        _ => REST,
    }
}

/// Returns the length of the body that a prefix announces.
///
/// # Errors
/// If it is over `max`.
pub fn body_len(prefix: [u8; PREFIX_LEN], max: usize) -> Result<usize, CodecError> {
    let len = u32::from_le_bytes(prefix) as usize;
    if len > max { Err(CodecError::TooLong { len, max }) } else { Ok(len) }
}

/// Decodes a frame's body.
///
/// # Errors
/// If the bytes are no message, too many, too few, or break a limit.
pub fn decode(body: &[u8]) -> Result<Message, CodecError> {
    if body.len() > FRAME_LEN_MAX {
        return Err(CodecError::TooLong { len: body.len(), max: FRAME_LEN_MAX });
    }
    let message = decode_exact(body)?;
    check(&message)?;
    Ok(message)
}

/// Returns a record's bytes, as the index keeps it.
pub fn encode_record(record: &Record) -> Vec<u8> {
    bincode::encode_to_vec(record, CODEC).expect("a record is far below the limit")
}

/// Decodes what [`encode_record`] made.
///
/// # Errors
/// If the bytes are no sound record.
pub fn decode_record(bytes: &[u8]) -> Result<Record, CodecError> {
    let record = decode_exact(bytes)?;
    check_record(&record)?;
    Ok(record)
}

/// Returns the bytes of a digest entry, over which the digest of its directory is taken.
pub fn encode_digest_entry(entry: &DigestEntry) -> Vec<u8> {
    bincode::encode_to_vec(entry, CODEC).expect("an entry is far below the limit")
}

fn decode_exact<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::decode_from_slice(bytes, CODEC)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if used == bytes.len() {
        Ok(value)
    } else {
        Err(CodecError::Malformed(format!("{} bytes too many", bytes.len() - used)))
    }
}

/// As a `Vec<u8>`, which would be decoded into room that is filled with zeros first. From a slice only, as all here is.
impl<Context> Decode<Context> for Bytes {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = u64::decode(decoder)?;
        let len = usize::try_from(len).map_err(|_| DecodeError::OutsideUsizeRange(len))?;
        decoder.claim_container_read::<u8>(len)?;
        let Some(bytes) = decoder.reader().peek_read(len).map(<[u8]>::to_vec) else {
            return Err(DecodeError::UnexpectedEnd { additional: len });
        };
        decoder.reader().consume(len);
        Ok(Bytes(bytes))
    }
}

bincode::impl_borrow_decode!(Bytes);

fn check(message: &Message) -> Result<(), CodecError> {
    match message {
        Message::Hello(hello) => {
            limit(hello.capabilities.len() <= CAPABILITIES_MAX, "capabilities in a hello")
        }
        Message::Refuse(Refusal::Protocol(how)) => {
            limit(how.len() <= REASON_LEN_MAX, "a refusal's length")
        }
        Message::Refuse(_) => Ok(()),
        Message::Ping(ping) => limit(ping.lag_ms.len() <= LAGS_MAX, "shares in a ping"),
        Message::Share { body, .. } => check_body(body),
    }
}

fn check_body(body: &ShareMessage) -> Result<(), CodecError> {
    match body {
        ShareMessage::Open(_) | ShareMessage::CaughtUp { .. } | ShareMessage::Gone { .. } => Ok(()),
        ShareMessage::Announce(announcements) => {
            limit(announcements.len() <= ANNOUNCEMENTS_MAX, "announcements in a frame")?;
            announcements.iter().try_for_each(check_announcement)
        }
        ShareMessage::Acks(acks) => limit(acks.len() <= ACKS_MAX, "acks in a frame"),
        ShareMessage::GetOutline { file, first, count, .. } => {
            limit((1..=OUTLINE_PAGE_MAX).contains(count), "block hashes asked for")?;
            check_range(file, *first, *count)
        }
        ShareMessage::GetBlocks { file, first, count, .. } => {
            limit((1..=BLOCKS_MAX).contains(count), "blocks asked for")?;
            check_range(file, *first, *count)
        }
        ShareMessage::Outline { blocks, .. } => {
            limit(blocks.len() <= OUTLINE_PAGE_MAX as usize, "block hashes in a frame")
        }
        ShareMessage::Block { bytes, .. } => {
            limit(bytes.0.len() <= BLOCK_LEN_MAX, "bytes of a block")
        }
        ShareMessage::GetDigests { dir, after, .. } => {
            check_dir(dir)?;
            limit(after.is_empty() || check_component(after).is_ok(), "a name")
        }
        ShareMessage::Digests { dir, entries, .. } => {
            check_dir(dir)?;
            limit(entries.len() <= DIGESTS_MAX, "digests in a frame")?;
            limit(entries.is_sorted_by(|a, b| a.name < b.name), "digests out of order")?;
            entries.iter().try_for_each(|entry| check_digest(dir, entry))
        }
    }
}

fn check_announcement(announcement: &Announcement) -> Result<(), CodecError> {
    let inline_len = announcement.inline.as_ref().map_or(0, |Bytes(bytes)| bytes.len());
    limit(inline_len as u64 <= INLINE_LEN_MAX, "bytes inside an announcement")?;
    if let Some(moved) = &announcement.moved_from {
        check_record(&moved.record)?;
    }
    check_record(&announcement.record)
}

/// Checks a record against the limits that a decoder enforces: one that fails can neither be sent
/// nor read back from an index.
///
/// # Errors
/// Names the limit that the record breaks.
pub fn check_record(record: &Record) -> Result<(), CodecError> {
    limit(record.is_sound(), "a record whose values do not fit its context")?;
    let versions = record.context.len().max(record.values.len());
    limit(versions <= VERSIONS_MAX, "versions of one path")?;
    limit(record.mode.as_ref().is_none_or(|mode| mode.value <= 0o7777), "permission bits")?;
    limit(record.lost.len() <= LOST_MAX, "versions given up")?;
    let lacks = |value: &Value| value.lacks.len() <= LACKS_MAX;
    limit(record.values.iter().all(lacks), "nodes that lack a version")?;
    record.values.iter().try_for_each(|value| match &value.content {
        Content::Dir => Ok(()),
        Content::File { size, .. } => limit(*size <= FILE_SIZE_MAX, "a file's size"),
        Content::Symlink { target } => check_target(target),
    })
}

fn check_range(file: &FileRef, first: u32, count: u32) -> Result<(), CodecError> {
    limit(file.size <= FILE_SIZE_MAX, "a file's size")?;
    let end = u64::from(first) + u64::from(count);
    limit(end <= block_count(file.size), "blocks beyond the file's end")
}

fn check_dir(dir: &[u8]) -> Result<(), CodecError> {
    limit(dir.is_empty() || check_path(dir).is_ok(), "a directory's path")
}

fn check_digest(dir: &[u8], entry: &DigestEntry) -> Result<(), CodecError> {
    let reserved = dir.is_empty() && entry.name == RESERVED;
    limit(!reserved && check_component(&entry.name).is_ok(), "a name")?;
    match &entry.kind {
        // A file may be of any size: one that is too large to be synced is compared all the same.
        DigestKind::Dir { mode, .. } | DigestKind::File { mode, .. } => {
            limit(*mode <= 0o7777, "permission bits")
        }
        DigestKind::Symlink { target, .. } => check_target(target),
        DigestKind::Unreadable => Ok(()),
    }
}

fn check_target(target: &[u8]) -> Result<(), CodecError> {
    let sound = (1..=SYMLINK_LEN_MAX).contains(&target.len()) && !target.contains(&0);
    limit(sound, "a symbolic link's target")
}

fn limit(holds: bool, what: &'static str) -> Result<(), CodecError> {
    if holds { Ok(()) } else { Err(CodecError::Limit(what)) }
}

#[cfg(test)]
mod tests;
