//! Links to the peers: authenticated, encrypted, kept alive; two lanes each.
//!
//! [`Links`] dials every configured peer and takes its dials, keeps one connection set for each
//! (the rule and its races: `set.rs`), and tells when a [`Link`] is up or down. Messages go out by
//! [`Link::send`], [`Link::try_send`] and [`Link::post`], and come in by [`Link::receive`]: all four are for plain
//! threads. Both directions are queues bounded in bytes, so that a slow side is felt by the one that
//! feeds it and never by memory. tokio stays inside.
//!
//! ```text
//!  threads            tasks                                     the peer
//!  send ─▶ outbox ─▶ writer ─▶ TLS ══ lane live ══▶ TLS ─▶ reader ─▶ inbox ─▶ receive
//!  receive ◀─ inbox ◀─ reader ◀─ …                                (and the same for lane bulk)
//! ```
//!
//! **Invariant:** an unknown key gets a handshake with a deadline and nothing else; every frame received
//! came from a key in the config; for each peer at most one link is up.
//! **May not:** know what is in a share, touch a share's files, block the caller of anything but `send`, `receive` and `stop`.
#![forbid(unsafe_code)]

mod accept;
mod backoff;
mod bucket;
mod cidr;
mod conn;
mod dial;
mod frame;
mod identity;
mod link;
mod node;
mod notices;
mod peer;
mod queue;
mod registry;
mod set;
mod tls;
mod vitals;
mod wire;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recsync_proto::NodeName;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use cidr::{Cidr, CidrError};
pub use identity::{CERT_FILE, Fingerprint, FingerprintError, Identity, IdentityError, KEY_FILE};
pub use link::{Link, SendError, Why};
pub use node::{Events, Lag};
pub use vitals::PeerState;

use crate::sys::Clock;
use node::{Node, Tuning};
use registry::{Entry, Registry};
use vitals::Vitals;

/// How long [`Links::stop`] waits for goodbyes.
const STOP_WAIT: Duration = Duration::from_secs(1);
/// Connections that may wait for a peer's task.
const OFFERS_MAX: usize = 4;

/// A peer, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name here; that of its own config may differ.
    pub name: NodeName,
    /// Where it is dialled: `HOST:PORT`.
    pub address: String,
    /// The keys that it may have: at least one, and none that another peer has.
    pub fingerprints: Vec<Fingerprint>,
    /// Networks that it may connect from; empty for any.
    pub allow_from: Vec<Cidr>,
    /// Bytes a second on the wire, each way; none for no limit.
    pub bandwidth: Option<NonZeroU64>,
}

/// What [`Links`] needs to start.
pub struct Setup {
    /// This node's key.
    pub identity: Identity,
    /// This node's name.
    pub node: NodeName,
    /// Where peers connect; port 0 for any.
    pub listen: SocketAddr,
    /// The peers.
    pub peers: Vec<PeerConfig>,
    /// The clock of keep-alives and log rates.
    pub clock: Clock,
    /// What keep-alives tell of this node's lag.
    pub lag: Arc<Lag>,
    /// Who is told what happens.
    pub events: Arc<Events>,
}

/// What happened to a link.
#[derive(Debug, Clone)]
pub enum LinkEvent {
    /// A peer is connected. Its messages wait in the link.
    Up {
        /// The way to and from it.
        link: Link,
    },
    /// A link has ended; comes after its Up and before the next one's.
    Down {
        /// Whose.
        peer: NodeName,
        /// Which: [`Link::id`].
        link: u64,
        /// Why.
        why: Why,
    },
    /// An incoming connection was refused. Told at most once in ten minutes for the same key or
    /// address; it is in the log already.
    Refused {
        /// The peer, if its key was known.
        peer: Option<NodeName>,
        /// Where it came from.
        addr: SocketAddr,
        /// Why, and what to do.
        why: String,
    },
}

/// Why the links could not be started.
#[derive(Debug, Error)]
pub enum NetError {
    /// The address to listen on is not to be had.
    #[error(
        "cannot listen on {addr}: {source}; is another recsync running, and is the address one of this machine?"
    )]
    Listen {
        /// As configured.
        addr: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The links to all peers. Dropping it cuts them; [`Links::stop`] says goodbye first.
pub struct Links {
    node: Arc<Node>,
    registry: Arc<Registry>,
    local_addr: SocketAddr,
    tasks: Mutex<Tasks>,
}

struct Tasks {
    handle: Handle,
    set: JoinSet<()>,
    /// Dropped to stop the listener.
    listening: Option<watch::Sender<()>>,
    /// Given to every task: when all are gone, so is the receiver's last sender.
    alive: Option<Sender<Infallible>>,
    gone: Receiver<Infallible>,
}

impl Links {
    /// Listens, and starts to dial the peers, on the given runtime.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub fn start(setup: Setup, handle: &Handle) -> Result<Self, NetError> {
        Links::start_with(setup, handle, Tuning::default())
    }

    fn start_with(setup: Setup, handle: &Handle, tuning: Tuning) -> Result<Self, NetError> {
        let Setup { identity, node, listen, peers, clock, lag, events } = setup;
        let registry = Arc::new(Registry::default());
        let config = tls::server_config(&identity, registry.pins.clone())?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let unable = |source| NetError::Listen { addr: listen, source };
        let listener = std::net::TcpListener::bind(listen).map_err(unable)?;
        listener.set_nonblocking(true).map_err(unable)?;
        let local_addr = listener.local_addr().map_err(unable)?;
        let listener = {
            let _runtime = handle.enter();
            tokio::net::TcpListener::from_std(listener).map_err(unable)?
        };
        let node = Arc::new(Node::new(identity, node, clock, lag, events, tuning));
        let (listening, stop) = watch::channel(());
        let mut tasks = Tasks::new(handle.clone(), listening);
        tasks.spawn(accept::run(listener, acceptor, node.clone(), registry.clone(), stop));
        let links = Links { node, registry, local_addr, tasks: Mutex::new(tasks) };
        links.set_peers(peers);
        Ok(links)
    }

    /// Returns the address that peers can connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Replaces the peers: new ones are dialled, gone ones are told goodbye, changed ones are
    /// connected anew, and the links of all others stay as they are.
    pub fn set_peers(&self, peers: Vec<PeerConfig>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wanted: BTreeMap<NodeName, PeerConfig> =
            peers.into_iter().map(|peer| (peer.name.clone(), peer)).collect();
        self.registry.change(|entries| {
            entries.retain(|name, entry| match wanted.remove(name) {
                None => false,
                Some(config) => {
                    entry.config.send_if_modified(|old| {
                        let differs = *old != config;
                        *old = config;
                        differs
                    });
                    true
                }
            });
            for (name, config) in wanted {
                let vitals = Arc::new(Vitals::default());
                let (offers, incoming) = mpsc::channel(OFFERS_MAX);
                let (config, configured) = watch::channel(config);
                tasks.spawn(peer::run(self.node.clone(), configured, vitals.clone(), incoming));
                entries.insert(name, Entry { vitals, offers, config });
            }
        });
    }

    /// Returns what is known of every configured peer, by name.
    pub fn peers(&self) -> Vec<PeerState> {
        self.registry.states()
    }

    /// Returns the link to a peer, if one is up.
    pub fn link(&self, peer: &NodeName) -> Option<Link> {
        self.registry.vitals(peer)?.link()
    }

    /// Tells every peer that this node stops, and closes all links within a second. Every link that is up gets its
    /// Down. Blocks the thread; not for tasks of the runtime.
    pub fn stop(&self) {
        self.registry.change(BTreeMap::clear);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.listening = None;
        tasks.alive = None;
        match tasks.gone.recv_timeout(STOP_WAIT) {
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
            Ok(never) => match never {},
        }
        tasks.set.abort_all();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        // Frees threads that wait in a link: its tasks end with this without having told it.
        for link in self.peers().into_iter().filter_map(|peer| peer.link) {
            link.end(Why::Stopping, None);
        }
    }
}

impl Tasks {
    fn new(handle: Handle, listening: watch::Sender<()>) -> Self {
        let (alive, gone) = channel();
        let set = JoinSet::new();
        Tasks { handle, set, listening: Some(listening), alive: Some(alive), gone }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        // Tasks of peers that were removed are forgotten here; nothing else waits for them.
        while self.set.try_join_next().is_some() {}
        // After the stop nothing starts.
        let Some(alive) = self.alive.clone() else { return };
        let task = async move {
            task.await;
            drop(alive);
        };
        self.set.spawn_on(task, &self.handle);
    }
}

#[cfg(test)]
mod tests;
