//! The configured peers, as the accepting side and the daemon look them up.
//!
//! **Invariant:** what is found here is configured now; a change is seen whole or not at all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use recsync_proto::NodeName;
use tokio::sync::{mpsc, watch};

use super::PeerConfig;
use super::accept::Offered;
use super::cidr::Cidr;
use super::identity::Fingerprint;
use super::tls::Pins;
use super::vitals::{PeerState, Vitals};
use super::wire::Traffic;

/// One configured peer.
pub(super) struct Entry {
    pub(super) vitals: Arc<Vitals>,
    /// To the peer's task: connections that the peer has dialled.
    pub(super) offers: mpsc::Sender<Offered>,
    /// To the peer's task: its config; the task ends when this is dropped.
    pub(super) config: watch::Sender<PeerConfig>,
}

/// What the accepting side needs of a peer.
pub(super) struct Found {
    pub(super) name: NodeName,
    pub(super) offers: mpsc::Sender<Offered>,
    pub(super) traffic: Arc<Traffic>,
    allow_from: Vec<Cidr>,
}

impl Found {
    /// True if the peer may connect from there.
    pub(super) fn allows(&self, ip: IpAddr) -> bool {
        allows(&self.allow_from, ip)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Registry {
    entries: RwLock<BTreeMap<NodeName, Entry>>,
    /// What the TLS verifier sees.
    pub(super) pins: Arc<Pins>,
}

impl Registry {
    /// Replaces the entries by what `change` makes of them.
    pub(super) fn change(&self, change: impl FnOnce(&mut BTreeMap<NodeName, Entry>)) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut entries);
        let pins = entries.iter().flat_map(|(name, entry)| {
            let fingerprints = entry.config.borrow().fingerprints.clone();
            fingerprints.into_iter().map(|fingerprint| (fingerprint, name.clone()))
        });
        self.pins.set(pins.collect());
    }

    /// True if any peer may connect from there. A node that has no peers yet lets everybody as far
    /// as the handshake: that is how it tells the key of the first one.
    pub(super) fn allows(&self, ip: IpAddr) -> bool {
        let entries = self.entries();
        let allowed = |entry: &Entry| allows(&entry.config.borrow().allow_from, ip);
        entries.is_empty() || entries.values().any(allowed)
    }

    /// Returns the peer whose key this is.
    pub(super) fn peer_of(&self, fingerprint: Fingerprint) -> Option<Found> {
        let name = self.pins.peer(fingerprint)?;
        let entries = self.entries();
        let entry = entries.get(&name)?;
        Some(Found {
            offers: entry.offers.clone(),
            traffic: entry.vitals.traffic.clone(),
            allow_from: entry.config.borrow().allow_from.clone(),
            name,
        })
    }

    /// Returns a peer's vitals.
    pub(super) fn vitals(&self, name: &NodeName) -> Option<Arc<Vitals>> {
        self.entries().get(name).map(|entry| entry.vitals.clone())
    }

    /// Returns what is known of every peer, by name.
    pub(super) fn states(&self) -> Vec<PeerState> {
        let state = |(name, entry): (&NodeName, &Entry)| {
            entry.vitals.state(name, &entry.config.borrow().address)
        };
        self.entries().iter().map(state).collect()
    }

    fn entries(&self) -> RwLockReadGuard<'_, BTreeMap<NodeName, Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No list allows every address.
fn allows(allow_from: &[Cidr], ip: IpAddr) -> bool {
    allow_from.is_empty() || allow_from.iter().any(|network| network.contains(ip))
}
