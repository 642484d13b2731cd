//! One authenticated connection before it becomes a lane: a hello or a refusal each way.

use std::net::SocketAddr;
use std::time::Duration;

use recsync_proto::hello::Refusal;
use recsync_proto::{Message, codec};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_rustls::TlsStream;

use super::frame::{self, FrameReader};
use super::identity::Fingerprint;
use super::tls::TlsError;
use super::wire::{Limited, Wire};

/// See the module.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) reader: FrameReader<ReadHalf<TlsStream<Wire>>>,
    pub(super) writer: WriteHalf<TlsStream<Wire>>,
    /// Where the lane's limits go.
    pub(super) limits: Limited,
    /// The other end.
    pub(super) addr: SocketAddr,
    /// The other side's key, proved.
    pub(super) fingerprint: Fingerprint,
}

impl Conn {
    /// Takes a stream whose handshake is done; a reader of it gives up after `patience` of silence.
    ///
    /// # Errors
    /// If the other side showed no certificate.
    pub(super) fn new(
        stream: TlsStream<Wire>,
        addr: SocketAddr,
        patience: Duration,
    ) -> Result<Self, TlsError> {
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let Some(certificate) = certificates.first() else {
            return Err(TlsError::Foreign("it showed no certificate".to_owned()));
        };
        let fingerprint =
            Fingerprint::of(certificate).map_err(|error| TlsError::Foreign(error.to_string()))?;
        let limits = stream.get_ref().0.limits();
        let (reader, writer) = tokio::io::split(stream);
        Ok(Conn { reader: FrameReader::new(reader, patience), writer, limits, addr, fingerprint })
    }

    /// Says why this connection is not used, and closes it; at most `deadline`.
    pub(super) async fn refuse(mut self, refusal: Refusal, deadline: Duration) {
        let farewell = async {
            say_goodbye(&mut self.writer, Some(refusal)).await;
            self.reader.drain().await;
        };
        // A peer that does not listen to its refusal misses nothing but the reason.
        tokio::time::timeout(deadline, farewell).await.unwrap_or_default();
    }
}

/// Writes a last frame, if there is one, and ends the sending side of a connection. Failures do
/// not matter: the connection is over.
pub(super) async fn say_goodbye(writer: &mut WriteHalf<TlsStream<Wire>>, refusal: Option<Refusal>) {
    if let Some(frame) = refusal.and_then(|refusal| codec::encode(&Message::Refuse(refusal)).ok()) {
        frame::write(writer, &[frame]).await.unwrap_or_default();
    }
    writer.shutdown().await.unwrap_or_default();
}
