//! What is known of a peer's well-being: for status, metrics and health.
//!
//! **Invariant:** readers never wait for the network.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recsync_proto::message::{Lane, Ping};
use recsync_proto::{NodeName, ShareName};

use super::link::Link;
use super::wire::Traffic;

/// What is known of a peer, over all its links of this run of the daemon.
#[derive(Debug, Clone)]
pub struct PeerState {
    /// Its name in this node's config.
    pub name: NodeName,
    /// Where it is dialled, as configured.
    pub address: String,
    /// The link in use, if it is connected.
    pub link: Option<Link>,
    /// Who dialled the link in use: true if this node did.
    pub dialled: bool,
    /// The address that the last link had.
    pub addr: Option<SocketAddr>,
    /// The version of the protocol that the last link spoke.
    pub version: Option<u16>,
    /// When anything was last received, nanoseconds since 1970.
    pub last_seen_ns: Option<i64>,
    /// Bytes on the wire to the peer, TLS included.
    pub sent_bytes: u64,
    /// Bytes on the wire from the peer, TLS included.
    pub received_bytes: u64,
    /// The peer's clock less this node's when its last keep-alive arrived, milliseconds; less than
    /// the true skew by the time on the way.
    pub clock_skew_ms: Option<i64>,
    /// The peer's lag towards this node by share, milliseconds, as last heard; kept while it is away.
    pub lag_ms: Vec<(ShareName, u64)>,
    /// Why it is not connected, or was not last time.
    pub last_error: Option<String>,
}

/// The part of [`PeerState`] that links and dials write.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    pub(super) traffic: Arc<Traffic>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Link>,
    dialled: bool,
    addr: Option<SocketAddr>,
    version: Option<u16>,
    last_seen_ns: Option<i64>,
    clock_skew_ms: Option<i64>,
    lag_ms: Vec<(ShareName, u64)>,
    last_error: Option<String>,
}

impl Vitals {
    /// A link is up.
    pub(super) fn up(&self, link: &Link, dialled: bool, version: u16, wall_ns: i64) {
        let mut state = self.lock();
        state.link = Some(link.clone());
        state.dialled = dialled;
        state.addr = Some(link.addr());
        state.version = Some(version);
        state.last_seen_ns = Some(wall_ns);
        state.last_error = None;
    }

    /// There is no link, and why.
    pub(super) fn down(&self, why: String) {
        let mut state = self.lock();
        state.link = None;
        state.last_error = Some(why);
    }

    /// Something other than a keep-alive was received.
    pub(super) fn heard(&self, wall_ns: i64) {
        self.lock().last_seen_ns = Some(wall_ns);
    }

    /// A keep-alive was received.
    pub(super) fn pinged(&self, lane: Lane, ping: Ping, wall_ns: i64) {
        let mut state = self.lock();
        state.last_seen_ns = Some(wall_ns);
        if lane == Lane::Live {
            state.clock_skew_ms = Some(ping.wall_ms.saturating_sub(wall_ns / 1_000_000));
            state.lag_ms = ping.lag_ms;
        }
    }

    /// Returns the link in use.
    pub(super) fn link(&self) -> Option<Link> {
        self.lock().link.clone()
    }

    pub(super) fn state(&self, name: &NodeName, address: &str) -> PeerState {
        let state = self.lock();
        PeerState {
            name: name.clone(),
            address: address.to_owned(),
            link: state.link.clone(),
            dialled: state.dialled,
            addr: state.addr,
            version: state.version,
            last_seen_ns: state.last_seen_ns,
            sent_bytes: self.traffic.sent.load(Relaxed),
            received_bytes: self.traffic.received.load(Relaxed),
            clock_skew_ms: state.clock_skew_ms,
            lag_ms: state.lag_ms.clone(),
            last_error: state.last_error.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
