//! Frames on a byte stream.
//!
//! **Invariant:** a frame's announced length is checked before room is made for it; a reader that
//! hears no byte for its patience gives up, however slow each frame is.
//! **May not:** know what a message means.

use std::io::{self, IoSlice};
use std::time::Duration;

use recsync_proto::Message;
use recsync_proto::codec::{self, CodecError, FRAME_LEN_MAX, HELLO_LEN_MAX, PREFIX_LEN};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes asked of the stream at once, at least: four TLS records.
const READ_LEN: usize = 64 << 10;
/// Most frames handed to one vectored write.
const SLICES_MAX: usize = 64;

/// Why no frame could be read.
#[derive(Debug, Error)]
pub(super) enum FrameError {
    /// The stream ended between two frames.
    #[error("it closed the connection")]
    Ended,
    /// The stream ended within a frame.
    #[error("the connection ended within a frame")]
    Cut,
    /// Nothing was heard for this long.
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are no frame.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Reads frames; keeps one buffer for all of them.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    io: R,
    buffer: Vec<u8>,
    /// What has been read and not yet returned is `buffer[start..end]`.
    start: usize,
    end: usize,
    len_max: usize,
    patience: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Returns a reader that takes only frames as short as a hello's, until [`FrameReader::open`].
    pub(super) fn new(io: R, patience: Duration) -> Self {
        FrameReader { io, buffer: Vec::new(), start: 0, end: 0, len_max: HELLO_LEN_MAX, patience }
    }

    /// Takes frames of every legal length from now on.
    pub(super) fn open(&mut self) {
        self.len_max = FRAME_LEN_MAX;
    }

    /// Returns the next message and its frame's length. If dropped while it waits, no byte is lost.
    pub(super) async fn next(&mut self) -> Result<(Message, usize), FrameError> {
        loop {
            let wanted = match self.buffer[self.start..self.end].first_chunk::<PREFIX_LEN>() {
                None => PREFIX_LEN,
                Some(prefix) => PREFIX_LEN + codec::body_len(*prefix, self.len_max)?,
            };
            if wanted > PREFIX_LEN && self.end - self.start >= wanted {
                let frame = &self.buffer[self.start..self.start + wanted];
                let message = codec::decode(&frame[PREFIX_LEN..])?;
                self.start += wanted;
                return Ok((message, wanted));
            }
            if wanted == PREFIX_LEN && self.end - self.start >= PREFIX_LEN {
                return Err(CodecError::Malformed("an empty frame".to_owned()).into());
            }
            self.fill(wanted).await?;
        }
    }

    /// Reads once, with room for a frame of `wanted` bytes.
    async fn fill(&mut self, wanted: usize) -> Result<(), FrameError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let room = wanted.max(READ_LEN.min(PREFIX_LEN + self.len_max));
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let read = self.io.read(&mut self.buffer[self.end..]);
        let count = match tokio::time::timeout(self.patience, read).await {
            // How rustls tells of an end without a TLS goodbye: a process that was killed.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(FrameError::Cut);
            }
            Ok(count) => count?,
            Err(_) => return Err(FrameError::Silent(self.patience)),
        };
        match count {
            0 if self.end == 0 => Err(FrameError::Ended),
            0 => Err(FrameError::Cut),
            _ => {
                self.end += count;
                Ok(())
            }
        }
    }

    /// Reads and forgets until the stream ends: closing with unread bytes would reset the
    /// connection, and the last frame sent would be lost with it.
    pub(super) async fn drain(&mut self) {
        self.buffer.resize(READ_LEN, 0);
        while let Ok(1..) = self.io.read(&mut self.buffer).await {}
    }
}

/// Writes whole frames, as they are, without copying them together, and flushes.
pub(super) async fn write<W: AsyncWrite + Unpin>(io: &mut W, frames: &[Vec<u8>]) -> io::Result<()> {
    for frames in frames.chunks(SLICES_MAX) {
        let mut slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let written = io.write_vectored(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, written);
        }
    }
    io.flush().await
}

#[cfg(test)]
mod tests {
    use recsync_proto::hello::Refusal;
    use recsync_proto::message::{Bytes, Ping, ShareMessage};
    use recsync_proto::{Message, ShareName};

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(future)
    }

    fn reader(bytes: &[u8]) -> FrameReader<&[u8]> {
        FrameReader::new(bytes, Duration::from_secs(60))
    }

    fn ping(wall_ms: i64) -> Message {
        Message::Ping(Ping { wall_ms, lag_ms: Vec::new() })
    }

    fn block(len: usize) -> Message {
        let body = ShareMessage::Block { id: 1, index: 0, bytes: Bytes(vec![7; len]) };
        Message::Share { share: ShareName::new("recordings").unwrap(), body }
    }

    #[test]
    fn frames_arrive_whole_whatever_the_pieces() {
        let messages: Vec<Message> =
            (0..200).map(|i| if i % 50 == 0 { block(1 << 20) } else { ping(i) }).collect();
        let frames: Vec<Vec<u8>> = messages.iter().map(|m| codec::encode(m).unwrap()).collect();
        for pipe_len in [1 << 20, 4_099] {
            let (mut near, far) = tokio::io::duplex(pipe_len);
            block_on(async {
                let mut reader = FrameReader::new(far, Duration::from_secs(60));
                reader.open();
                let read = async {
                    for (message, frame) in messages.iter().zip(&frames) {
                        let (got, len) = reader.next().await.unwrap();
                        assert_eq!((&got, len), (message, frame.len()));
                    }
                };
                let ((), written) = tokio::join!(read, write(&mut near, &frames));
                written.unwrap();
                drop(near);
                assert!(matches!(reader.next().await, Err(FrameError::Ended)));
            });
        }
    }

    #[test]
    fn a_stranger_cannot_make_it_allocate() {
        let long = u32::try_from(HELLO_LEN_MAX + 1).unwrap().to_le_bytes();
        for prefix in [long, u32::MAX.to_le_bytes()] {
            let mut reader = reader(&prefix);
            let error = block_on(reader.next()).unwrap_err();
            assert!(matches!(error, FrameError::Codec(CodecError::TooLong { .. })), "{error}");
            assert!(reader.buffer.capacity() <= PREFIX_LEN + HELLO_LEN_MAX);
        }
        let mut opened = reader(&[]);
        opened.open();
        opened.io = &[0xff; 4];
        assert!(block_on(opened.next()).is_err());
        assert!(opened.buffer.capacity() <= READ_LEN);
    }

    #[test]
    fn ends_and_nonsense() {
        assert!(matches!(block_on(reader(&[]).next()), Err(FrameError::Ended)));
        assert!(matches!(block_on(reader(&[1, 0]).next()), Err(FrameError::Cut)));
        assert!(matches!(block_on(reader(&[2, 0, 0, 0, 1]).next()), Err(FrameError::Cut)));
        let empty = block_on(reader(&[0, 0, 0, 0]).next());
        assert!(matches!(empty, Err(FrameError::Codec(CodecError::Malformed(_)))));
        let unknown = block_on(reader(&[1, 0, 0, 0, 99]).next());
        assert!(matches!(unknown, Err(FrameError::Codec(CodecError::Malformed(_)))));
        let stopping = codec::encode(&Message::Refuse(Refusal::Stopping)).unwrap();
        assert_eq!(
            block_on(reader(&stopping).next()).unwrap().0,
            Message::Refuse(Refusal::Stopping)
        );
    }

    #[test]
    fn silence_ends_a_reader() {
        let (_near, far) = tokio::io::duplex(64);
        let mut reader = FrameReader::new(far, Duration::from_millis(1));
        assert!(matches!(block_on(reader.next()), Err(FrameError::Silent(_))));
    }
}
