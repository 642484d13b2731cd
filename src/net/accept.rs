//! Takes connections: an unknown address or key gets nothing, a stranger a handshake with a
//! deadline, a peer's hello is handed to that peer's task.
//!
//! **Invariant:** the number of connections that are not yet authenticated is bounded, in all and for
//! each address; each of them ends within the handshake's deadline; nothing they do is logged more than once.
//! **May not:** decide which connection set is used.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recsync_proto::hello::{Hello, Refusal};
use recsync_proto::{Message, NodeName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::conn::Conn;
use super::frame::FrameError;
use super::node::Node;
use super::notices::About;
use super::tls::TlsError;
use super::wire::{Traffic, Wire};
use super::{LinkEvent, Registry};

/// How long the listener rests when the kernel gives it no connection (out of file descriptors):
/// there is no event to wait for.
const REST: Duration = Duration::from_millis(100);
/// Bytes of a refused stranger that are read and forgotten, so that the refusal reaches it.
const FAREWELL_LEN_MAX: u64 = 64 << 10;

/// A peer's connection with the hello that it opened with.
pub(super) struct Offered {
    pub(super) conn: Conn,
    pub(super) hello: Hello,
}

/// Takes connections until `stop` is told or dropped.
pub(super) async fn run(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    node: Arc<Node>,
    registry: Arc<Registry>,
    mut stop: watch::Receiver<()>,
) {
    let port = listener.local_addr().map_or(0, |addr| addr.port());
    let door = Arc::new(Door { acceptor, node, registry, port, inside: Mutex::default() });
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.changed() => return,
            Some(_) = handshakes.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, addr)) => {
                if let Some(place) = door.enter(addr) {
                    handshakes.spawn(admit(door.clone(), place, tcp, addr));
                }
            }
            Err(error) => {
                let now = door.node.clock.now().mono;
                if door.node.notices.is_due(About::Listener, now) {
                    warn!("cannot take connections: {error}; trying again");
                }
                tokio::time::sleep(REST).await;
            }
        }
    }
}

struct Door {
    acceptor: TlsAcceptor,
    node: Arc<Node>,
    registry: Arc<Registry>,
    /// This node's own port: most likely the peer's too.
    port: u16,
    /// Handshakes under way, by address.
    inside: Mutex<BTreeMap<IpAddr, usize>>,
}

/// A place among the handshakes under way.
struct Place {
    door: Arc<Door>,
    ip: IpAddr,
}

impl Door {
    /// Returns a place for a connection, or none: then it is closed without a word.
    fn enter(self: &Arc<Self>, addr: SocketAddr) -> Option<Place> {
        let ip = addr.ip().to_canonical();
        if !self.registry.allows(ip) {
            self.refused(
                None,
                addr,
                About::Address(ip),
                format!("{ip} is in no peer's `allow_from`; add it there if it belongs to a peer"),
            );
            return None;
        }
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = inside.values().sum();
        let from_there = inside.get(&ip).copied().unwrap_or(0);
        let tuning = &self.node.tuning;
        if all >= tuning.handshakes_max || from_there >= tuning.handshakes_per_address_max {
            drop(inside);
            let why = format!(
                "{all} connections, {from_there} of them from {ip}, are in their handshake; \
                 `allow_from` in the [[peer]] entries keeps strangers out"
            );
            self.refused(None, addr, About::Crowd, why);
            return None;
        }
        *inside.entry(ip).or_default() += 1;
        Some(Place { door: self.clone(), ip })
    }

    /// Tells of a refused connection, once.
    fn refused(&self, peer: Option<NodeName>, addr: SocketAddr, about: About, why: String) {
        if self.node.notices.is_due(about, self.node.clock.now().mono) {
            warn!(peer = peer.as_ref().map(NodeName::as_str), %addr, "refused a connection: {why}");
            (self.node.events)(LinkEvent::Refused { peer, addr, why });
        } else {
            debug!(%addr, "refused a connection: {why}");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.door.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = inside.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.ip);
            }
        }
    }
}

/// Authenticates one connection, reads its hello and hands it to its peer's task.
async fn admit(door: Arc<Door>, place: Place, tcp: TcpStream, addr: SocketAddr) {
    let deadline = door.node.tuning.handshake;
    match timeout(deadline, greet(&door, tcp, addr)).await {
        Ok(Some((offers, offered))) => {
            // A peer that is being removed takes no more: its connection closes.
            offers.send(offered).await.unwrap_or_default();
        }
        Ok(None) => {}
        Err(_) => debug!(%addr, "a connection said nothing of use within {deadline:?}"),
    }
    drop(place);
}

async fn greet(
    door: &Door,
    tcp: TcpStream,
    addr: SocketAddr,
) -> Option<(mpsc::Sender<Offered>, Offered)> {
    let (node, ip) = (&door.node, addr.ip().to_canonical());
    let mut conn = handshake(door, tcp, addr).await?;
    if conn.fingerprint == node.identity.fingerprint() {
        door.refused(None, addr, About::Key(conn.fingerprint), Refusal::Myself.to_string());
        conn.refuse(Refusal::Myself, node.tuning.goodbye).await;
        return None;
    }
    // Gone again since the handshake: then so is the peer.
    let peer = door.registry.peer_of(conn.fingerprint)?;
    let about = About::Key(conn.fingerprint);
    if !peer.allows(ip) {
        let why = format!("{ip} is not in its `allow_from`; add it there if the peer may use it");
        door.refused(Some(peer.name), addr, about, why.clone());
        conn.refuse(Refusal::protocol(&why), node.tuning.goodbye).await;
        return None;
    }
    let hello = match conn.reader.next().await {
        Ok((Message::Hello(hello), _)) => hello,
        Ok(_) => {
            let why = "its first frame is no hello".to_owned();
            door.refused(Some(peer.name), addr, about, why.clone());
            conn.refuse(Refusal::protocol(&why), node.tuning.goodbye).await;
            return None;
        }
        // A dial that was given up: the peer has another connection.
        Err(FrameError::Ended) => return None,
        Err(error) => {
            debug!(peer = peer.name.as_str(), %addr, "no hello: {error}");
            return None;
        }
    };
    let (theirs, ours) = (hello.versions, node.tuning.versions);
    if ours.common(theirs).is_none() {
        let why = format!(
            "it speaks protocol version {theirs}, this node {ours}; upgrade the older of the two"
        );
        door.refused(Some(peer.name), addr, about, why);
        conn.refuse(Refusal::Version(ours), node.tuning.goodbye).await;
        return None;
    }
    Some((peer.offers, Offered { conn, hello }))
}

/// Returns the connection once its key is proved to be a peer's or, by mistake, this node's own.
async fn handshake(door: &Door, tcp: TcpStream, addr: SocketAddr) -> Option<Conn> {
    let wire = Wire::new(tcp, Arc::new(Traffic::default())).ok()?;
    match door.acceptor.accept(wire).into_fallible().await {
        Ok(mut stream) => {
            let key = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let peer = key.and_then(|key| super::Fingerprint::of(key).ok());
            if let Some(peer) = peer.and_then(|key| door.registry.peer_of(key)) {
                stream.get_mut().0.count_for(peer.traffic);
            }
            Conn::new(stream.into(), addr, door.node.tuning.dead).ok()
        }
        Err((error, wire)) => {
            tell(door, addr, TlsError::of(&error));
            part(wire).await;
            None
        }
    }
}

/// Tells the operator of a handshake that failed, where there is something to be done.
fn tell(door: &Door, addr: SocketAddr, error: TlsError) {
    match error {
        TlsError::UnknownKey(fingerprint) => {
            let why = format!(
                "the key {fingerprint} is no peer's; to allow it: \
                 recsync peer add NAME --address {} --fingerprint {fingerprint}",
                SocketAddr::new(addr.ip().to_canonical(), door.port)
            );
            door.refused(None, addr, About::Key(fingerprint), why);
        }
        // The dialling side refused this node's key and says so in its own log, with what to do.
        TlsError::NotAccepted => {
            let why = format!("it does not accept this node's key; {}", door.node.how_to_add_us());
            door.refused(None, addr, About::Address(addr.ip().to_canonical()), why);
        }
        other => debug!(%addr, "a handshake failed: {other}"),
    }
}

/// Ends a refused stranger's connection so that the alert reaches it: closing with unread bytes would
/// reset the connection. The caller's deadline bounds it.
async fn part(mut wire: Wire) {
    if wire.shutdown().await.is_ok() {
        let mut rest = wire.take(FAREWELL_LEN_MAX);
        let read: io::Result<u64> = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        read.map(drop).unwrap_or_default();
    }
}
