//! A TCP connection that counts what passes, and keeps to a limit, below TLS: the bytes that a line is
//! billed for.
//!
//! **Invariant:** a peer's counters only grow, over all its connections, also those that ended.

use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use recsync_proto::message::Lane;

use super::bucket::Bucket;
use crate::sys::Clock;

/// Bytes that passed, both ways.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// What both lanes of a link may send and receive.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    sent: Arc<Mutex<Bucket>>,
    received: Arc<Mutex<Bucket>>,
    clock: Clock,
}

impl Limits {
    pub(super) fn new(bytes_per_s: NonZeroU64, clock: Clock) -> Self {
        let bucket = || Arc::new(Mutex::new(Bucket::new(bytes_per_s)));
        Limits { sent: bucket(), received: bucket(), clock }
    }
}

/// The limits of a connection from when it is a lane on, if there are any.
pub(super) type Limited = Arc<OnceLock<(Lane, Limits)>>;

/// One direction's wait.
#[derive(Debug, Default)]
struct Turn(Option<Pin<Box<Sleep>>>);

impl Turn {
    /// Returns how many bytes may pass now, once any may.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        limits: Option<&(Lane, Limits)>,
        way: impl Fn(&Limits) -> &Mutex<Bucket>,
    ) -> Poll<usize> {
        let Some((lane, limits)) = limits else { return Poll::Ready(usize::MAX) };
        loop {
            if let Some(sleep) = &mut self.0 {
                ready!(sleep.as_mut().poll(cx));
                self.0 = None;
            }
            let bucket = way(limits).lock().unwrap_or_else(PoisonError::into_inner);
            let wait = bucket.wait(*lane, limits.clock.now().mono);
            if wait.is_zero() {
                return Poll::Ready(bucket.piece());
            }
            self.0 = Some(Box::pin(sleep_until(Instant::now() + wait)));
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Wire {
    tcp: TcpStream,
    traffic: Arc<Traffic>,
    limits: Limited,
    to_send: Turn,
    to_receive: Turn,
}

impl Wire {
    /// Wraps a connection and makes it send small frames at once.
    pub(super) fn new(tcp: TcpStream, traffic: Arc<Traffic>) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let (to_send, to_receive) = (Turn::default(), Turn::default());
        Ok(Wire { tcp, traffic, limits: Limited::default(), to_send, to_receive })
    }

    /// Returns where limits can be set later.
    pub(super) fn limits(&self) -> Limited {
        self.limits.clone()
    }

    fn sent(&self, bytes: usize) {
        self.traffic.sent.fetch_add(bytes as u64, Relaxed);
        self.took(bytes, |limits| &limits.sent);
    }

    fn received(&self, bytes: usize) {
        self.traffic.received.fetch_add(bytes as u64, Relaxed);
        self.took(bytes, |limits| &limits.received);
    }

    fn took(&self, bytes: usize, way: impl Fn(&Limits) -> &Mutex<Bucket>) {
        if let Some((lane, limits)) = self.limits.get() {
            let now = limits.clock.now().mono;
            way(limits).lock().unwrap_or_else(PoisonError::into_inner).take(*lane, now, bytes);
        }
    }

    /// Counts for somebody else from now on, what was counted so far included: who the other side
    /// is turns out only after the handshake.
    pub(super) fn count_for(&mut self, traffic: Arc<Traffic>) {
        traffic.sent.fetch_add(self.traffic.sent.load(Relaxed), Relaxed);
        traffic.received.fetch_add(self.traffic.received.load(Relaxed), Relaxed);
        self.traffic = traffic;
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let most = ready!(this.to_receive.poll(cx, this.limits.get(), |limits| &limits.received));
        let room = buf.initialize_unfilled();
        let most = most.min(room.len());
        let mut piece = ReadBuf::new(&mut room[..most]);
        ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut piece))?;
        let read = piece.filled().len();
        buf.advance(read);
        this.received(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let most = ready!(this.to_send.poll(cx, this.limits.get(), |limits| &limits.sent));
        let piece = &buf[..buf.len().min(most)];
        let written = ready!(Pin::new(&mut this.tcp).poll_write(cx, piece))?;
        this.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.limits.get().is_some() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.poll_write(cx, first);
        }
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs))?;
        this.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
