//! What all of `net` knows of the node that it runs on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use recsync_proto::hello::{Hello, VERSIONS, Versions};
use recsync_proto::message::Lane;
use recsync_proto::{NodeName, ShareName};

use super::LinkEvent;
use super::identity::Identity;
use super::link::QueueLimits;
use super::notices::Notices;
use crate::sys::Clock;

/// Tells the lag towards a peer, by share, in milliseconds. Called once a second for each peer, on a
/// thread of the runtime: must not block.
pub type Lag = dyn Fn(&NodeName) -> Vec<(ShareName, u64)> + Send + Sync;

/// Takes what happens to links, in order for each peer. Called on a thread of the runtime: must not block.
pub type Events = dyn Fn(LinkEvent) + Send + Sync;

/// What is fixed in a release and smaller in tests.
#[derive(Debug, Clone)]
pub(super) struct Tuning {
    pub(super) versions: Versions,
    /// For TCP and TLS, and again for the hellos.
    pub(super) handshake: Duration,
    /// Between two keep-alives.
    pub(super) ping: Duration,
    /// Without a byte received, after which a peer is dead.
    pub(super) dead: Duration,
    /// Before the second dial; doubles with each one that fails.
    pub(super) backoff_first: Duration,
    pub(super) backoff_max: Duration,
    /// A link that lasted this long lets the backoff begin anew.
    pub(super) stable: Duration,
    /// To say why a connection ends.
    pub(super) goodbye: Duration,
    pub(super) queues: QueueLimits,
    /// Connections in their handshake at once, from all addresses and from one.
    pub(super) handshakes_max: usize,
    pub(super) handshakes_per_address_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            versions: VERSIONS,
            handshake: Duration::from_secs(5),
            ping: Duration::from_secs(1),
            dead: Duration::from_secs(4),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            stable: Duration::from_secs(5),
            goodbye: Duration::from_millis(500),
            queues: QueueLimits { outbox_len: 2 << 20, inbox_len: 4 << 20 },
            handshakes_max: 64,
            handshakes_per_address_max: 16,
        }
    }
}

/// See the module.
pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) name: NodeName,
    /// Random: this start of the daemon.
    pub(super) instance: u64,
    pub(super) clock: Clock,
    pub(super) lag: Arc<Lag>,
    pub(super) events: Arc<Events>,
    pub(super) tuning: Tuning,
    pub(super) notices: Notices,
    links: AtomicU64,
}

impl Node {
    pub(super) fn new(
        identity: Identity,
        name: NodeName,
        clock: Clock,
        lag: Arc<Lag>,
        events: Arc<Events>,
        tuning: Tuning,
    ) -> Self {
        Node {
            identity,
            name,
            instance: crate::sys::random_u64(),
            clock,
            lag,
            events,
            tuning,
            notices: Notices::default(),
            links: AtomicU64::new(1),
        }
    }

    /// Returns the number of the next link.
    pub(super) fn next_link(&self) -> u64 {
        self.links.fetch_add(1, Relaxed)
    }

    /// Returns this node's hello for one lane of a set.
    pub(super) fn hello(&self, set: u64, lane: Lane) -> Hello {
        Hello {
            versions: self.tuning.versions,
            capabilities: Vec::new(),
            node: self.name.clone(),
            instance: self.instance,
            set,
            lane,
        }
    }

    /// Returns what to do on a peer so that it accepts this node.
    pub(super) fn how_to_add_us(&self) -> String {
        format!(
            "run there: recsync peer add {} --address HOST:PORT --fingerprint {}",
            self.name,
            self.identity.fingerprint()
        )
    }
}
