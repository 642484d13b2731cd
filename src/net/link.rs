//! A link: the connection set in use between this node and a peer.
//!
//! Four tasks, a reader and a writer for each lane, stand between two byte-counted queues for each lane
//! (`queue.rs`) and the two connections. The daemon's threads push and pop at the other ends of the queues and
//! never touch a socket. A reader that finds no room stops reading: back-pressure reaches the peer through TCP.
//!
//! Keep-alive: each writer sends a `Ping` every second, ahead of what is queued; each reader that
//! hears no byte for four seconds ends the link. A writer takes what waits, up to [`BATCH_LEN`], writes it in one go and
//! flushes. A bandwidth limit holds below TLS (`wire.rs`), by one bucket for both lanes (`bucket.rs`).
//!
//! **Invariant:** within a lane, messages arrive in the order in which they were sent; once a link has
//! ended, nothing is sent or received through it, also not by a sender that does not know yet.
//! **May not:** know what a message about a share means.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recsync_proto::codec::{self, CodecError};
use recsync_proto::hello::Refusal;
use recsync_proto::message::{LAGS_MAX, Lane, Ping};
use recsync_proto::{Message, NodeName};
use thiserror::Error;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsStream;

use super::conn::{Conn, say_goodbye};
use super::frame::{self, FrameError, FrameReader};
use super::node::Node;
use super::queue::{Pushed, Queue};
use super::vitals::Vitals;
use super::wire::{Limits, Wire};

/// Bytes that a writer takes at once, unless one frame is longer.
const BATCH_LEN: usize = 256 << 10;
/// Bytes of a lane's queue from which on even [`Link::post`] gives up: the peer asks without reading.
const POST_LEN_MAX: usize = 32 << 20;

/// Both lanes, in the order in which arrays here hold them.
pub(super) const LANES: [Lane; 2] = [Lane::Live, Lane::Bulk];

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Why {
    /// The peer closed the connection without a word: its process ended.
    #[error("the peer closed the connection")]
    Closed,
    /// Nothing was heard on a lane for this long: the peer or the line is dead.
    #[error("nothing was heard from the peer for {0:?}")]
    Silent(Duration),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Failed(String),
    /// The peer ended it and said why.
    #[error("the peer ended the connection: {0}")]
    Refused(Refusal),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}; upgrade the older of the two, or see its log")]
    Protocol(String),
    /// A newer connection set took its place.
    #[error("a newer connection took its place")]
    Replaced,
    /// The peer's daemon has started anew.
    #[error("the peer has restarted")]
    Restarted,
    /// The peer's entry in the config was changed or removed.
    #[error("the peer's configuration was changed")]
    Reconfigured,
    /// This daemon is stopping.
    #[error("this node is stopping")]
    Stopping,
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The link has ended; a new one announces itself.
    #[error("the link has ended")]
    Closed,
    /// There is no room now; only [`Link::try_send`] says so.
    #[error("the lane is full")]
    Full,
    /// The message is longer than a frame may be, or breaks a limit: a bug of the caller.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The connection set in use between this node and a peer; a handle, cheap to clone.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    id: u64,
    set: u64,
    peer: NodeName,
    addr: SocketAddr,
    /// By lane, in the order of [`LANES`].
    lanes: [LaneQueues; 2],
    ending: Mutex<Option<Ending>>,
    ended: watch::Sender<bool>,
}

#[derive(Clone)]
struct Ending {
    why: Why,
    farewell: Option<Refusal>,
}

struct LaneQueues {
    outbox: Queue<Vec<u8>>,
    inbox: Queue<Message>,
}

impl Link {
    pub(super) fn new(
        id: u64,
        set: u64,
        peer: NodeName,
        addr: SocketAddr,
        limits: QueueLimits,
    ) -> Self {
        let queues = |_| LaneQueues {
            outbox: Queue::new(limits.outbox_len),
            inbox: Queue::new(limits.inbox_len),
        };
        Link(Arc::new(Inner {
            id,
            set,
            peer,
            addr,
            lanes: LANES.map(queues),
            ending: Mutex::new(None),
            ended: watch::Sender::new(false),
        }))
    }

    /// Returns the link's number: unique in this run of the daemon, ascending.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Returns the connection set's number: both nodes know it by the same.
    pub fn set(&self) -> u64 {
        self.0.set
    }

    /// Returns the peer's name in this node's config.
    pub fn peer(&self) -> &NodeName {
        &self.0.peer
    }

    /// Returns the peer's address as this connection has it.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// Sends a message that is large or one of many (announcements, blocks): waits while the lane is full.
    /// Blocks the thread; not for tasks of a runtime.
    ///
    /// # Errors
    /// If the link has ended, or the message cannot be sent at all.
    pub fn send(&self, lane: Lane, message: &Message) -> Result<(), SendError> {
        let frame = codec::encode(message)?;
        let len = frame.len();
        answer(self.queues(lane).outbox.push_blocking(frame, len))
    }

    /// Sends a message as [`Link::send`], but does not wait.
    ///
    /// # Errors
    /// [`SendError::Full`] if the lane is full now, else as [`Link::send`].
    pub fn try_send(&self, lane: Lane, message: &Message) -> Result<(), SendError> {
        let frame = codec::encode(message)?;
        let len = frame.len();
        answer(self.queues(lane).outbox.try_push(frame, len))
    }

    /// Sends a small message whose number the protocol's windows bound (acks, opens, requests): queues it
    /// even when the lane is full, and never waits. A peer that lets 32 MiB pile up breaks the protocol and loses the link.
    ///
    /// # Errors
    /// If the link has ended, or the message cannot be sent at all.
    pub fn post(&self, lane: Lane, message: &Message) -> Result<(), SendError> {
        let frame = codec::encode(message)?;
        let len = frame.len();
        let pushed = self.queues(lane).outbox.post(frame, len, POST_LEN_MAX);
        if pushed == Pushed::Full {
            self.end_for_breach("it asks for more than it reads".to_owned());
            return Err(SendError::Closed);
        }
        answer(pushed)
    }

    /// Returns the bytes that wait to be sent on a lane.
    pub fn queued(&self, lane: Lane) -> usize {
        self.queues(lane).outbox.bytes()
    }

    /// Returns the bytes received on a lane that nobody has taken yet.
    pub fn unread(&self, lane: Lane) -> usize {
        self.queues(lane).inbox.bytes()
    }

    /// Returns the next message about a share on a lane; blocks the thread until there is one.
    /// None once the link has ended: what was received and not taken by then is dropped, for the peer
    /// sends again what was not acknowledged. Meant for one thread a lane, which lives as long as the link.
    pub fn receive(&self, lane: Lane) -> Option<Message> {
        self.queues(lane).inbox.pop_blocking()
    }

    /// Ends the link because the peer broke the protocol, and tells it how.
    pub fn refuse(&self, how: String) {
        self.end_for_breach(how);
    }

    fn end_for_breach(&self, how: String) {
        let farewell = Refusal::protocol(&how);
        self.end(Why::Protocol(how), Some(farewell));
    }

    /// Ends the link; the first reason stands. The peer is told `farewell` if it still listens.
    pub(super) fn end(&self, why: Why, farewell: Option<Refusal>) {
        let mut ending = self.ending();
        if ending.is_some() {
            return;
        }
        *ending = Some(Ending { why, farewell });
        drop(ending);
        for queues in &self.0.lanes {
            queues.outbox.close();
            queues.inbox.close();
        }
        self.0.ended.send_replace(true);
    }

    /// Waits until the link has ended and returns why.
    pub(super) async fn ended(&self) -> Why {
        let mut ended = self.0.ended.subscribe();
        ended.wait_for(|ended| *ended).await.map(drop).expect("the sender lives in self");
        self.ending().as_ref().map(|ending| ending.why.clone()).expect("set before it is told")
    }

    fn ending(&self) -> std::sync::MutexGuard<'_, Option<Ending>> {
        self.0.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queues(&self, lane: Lane) -> &LaneQueues {
        match lane {
            Lane::Live => &self.0.lanes[0],
            Lane::Bulk => &self.0.lanes[1],
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {} to {}", self.0.id, self.0.peer)
    }
}

fn answer(pushed: Pushed) -> Result<(), SendError> {
    match pushed {
        Pushed::Yes => Ok(()),
        Pushed::Full => Err(SendError::Full),
        Pushed::Closed => Err(SendError::Closed),
    }
}

/// How much may wait in a lane's queues.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    /// Bytes to be sent.
    pub(super) outbox_len: usize,
    /// Bytes received.
    pub(super) inbox_len: usize,
}

/// Runs a link until it has ended and its goodbye is said. `first` is written first on both lanes;
/// `bandwidth` is for both lanes together, each way.
pub(super) async fn run(
    link: Link,
    conns: [Conn; 2],
    first: [Option<Vec<u8>>; 2],
    bandwidth: Option<NonZeroU64>,
    node: Arc<Node>,
    vitals: Arc<Vitals>,
) {
    let goodbye = node.tuning.goodbye;
    let mut tasks = JoinSet::new();
    let limits = bandwidth.map(|bytes_per_s| Limits::new(bytes_per_s, node.clock));
    for ((lane, conn), first) in LANES.into_iter().zip(conns).zip(first) {
        if let Some(limits) = &limits {
            conn.limits.get_or_init(|| (lane, limits.clone()));
        }
        let mut reader = conn.reader;
        reader.open();
        tasks.spawn(read(link.clone(), lane, reader, node.clone(), vitals.clone()));
        tasks.spawn(write(link.clone(), lane, conn.writer, first, node.clone()));
    }
    link.ended().await;
    // Whoever is not done by then is aborted with the set: the other side does not listen.
    let all_done = async { while tasks.join_next().await.is_some() {} };
    timeout(goodbye, all_done).await.unwrap_or_default();
}

async fn read(
    link: Link,
    lane: Lane,
    mut reader: FrameReader<ReadHalf<TlsStream<Wire>>>,
    node: Arc<Node>,
    vitals: Arc<Vitals>,
) {
    loop {
        match reader.next().await {
            Ok((Message::Ping(ping), _)) => vitals.pinged(lane, ping, node.clock.now().wall_ns),
            Ok((Message::Refuse(refusal), _)) => link.end(Why::Refused(refusal), None),
            Ok((Message::Hello(_), _)) => link.refuse("a second hello on a lane".to_owned()),
            Ok((message @ Message::Share { .. }, len)) => {
                vitals.heard(node.clock.now().wall_ns);
                if link.queues(lane).inbox.push(message, len).await == Pushed::Closed {
                    return reader.drain().await;
                }
            }
            Err(FrameError::Ended | FrameError::Cut) => return link.end(Why::Closed, None),
            Err(FrameError::Silent(time)) => return link.end(Why::Silent(time), None),
            Err(FrameError::Io(error)) => return link.end(Why::Failed(error.to_string()), None),
            Err(FrameError::Codec(error)) => {
                link.refuse(error.to_string());
                return reader.drain().await;
            }
        }
    }
}

async fn write(
    link: Link,
    lane: Lane,
    mut writer: WriteHalf<TlsStream<Wire>>,
    first: Option<Vec<u8>>,
    node: Arc<Node>,
) {
    let mut tick = interval(node.tuning.ping);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch: Vec<Vec<u8>> = first.into_iter().collect();
    let outbox = &link.queues(lane).outbox;
    loop {
        tokio::select! {
            biased;
            _ = tick.tick() => batch.extend(ping(&link, lane, &node)),
            open = outbox.pop_batch(&mut batch, BATCH_LEN) => if !open { break },
        }
        if let Err(error) = frame::write(&mut writer, &batch).await {
            return link.end(Why::Failed(error.to_string()), None);
        }
        batch.clear();
    }
    let farewell = link.ending().as_ref().and_then(|ending| ending.farewell.clone());
    say_goodbye(&mut writer, farewell).await;
}

/// Returns a keep-alive's frame. Only the live lane's tells the lag: it is the one that is never late.
fn ping(link: &Link, lane: Lane, node: &Node) -> Option<Vec<u8>> {
    let mut lag_ms = if lane == Lane::Live { (node.lag)(link.peer()) } else { Vec::new() };
    lag_ms.truncate(LAGS_MAX);
    let wall_ms = node.clock.now().wall_ns / 1_000_000;
    codec::encode(&Message::Ping(Ping { wall_ms, lag_ms })).ok()
}
