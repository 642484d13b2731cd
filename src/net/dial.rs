//! Connects to a peer and asks it to use the new connection set.
//!
//! Two steps, so that the rule in `set.rs` can be asked in between: [`connect`] brings up both
//! lanes as far as TLS, [`ask`] sends the hellos and waits for the answers.
//!
//! **Invariant:** each step ends within the handshake's deadline; dropping it closes what it opened.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use recsync_proto::hello::{Hello, Refusal, Versions};
use recsync_proto::message::Lane;
use recsync_proto::{Message, codec};
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::PeerConfig;
use super::conn::Conn;
use super::frame::{self, FrameError};
use super::link::LANES;
use super::node::Node;
use super::tls::{self, TlsError};
use super::wire::{Traffic, Wire};

/// Why a dial came to nothing.
#[derive(Debug, Error)]
pub(super) enum DialError {
    #[error("its address cannot be resolved: {0}; check `address` in the config and the DNS")]
    Resolve(io::Error),
    #[error("cannot connect to {addr}: {source}")]
    Connect { addr: SocketAddr, source: io::Error },
    #[error("it did not answer within {0:?}")]
    Timeout(Duration),
    #[error(
        "it has the key {0}, which is not its key in this node's config; if that is its new key, put it into its `fingerprint`"
    )]
    UnknownKey(super::Fingerprint),
    #[error("it does not accept this node's key; {how}")]
    NotAccepted { how: String },
    #[error("the TLS handshake failed: {0}; is it recsync that listens there?")]
    Tls(TlsError),
    #[error("it has this node's own key: {0}")]
    Myself(Refusal),
    #[error("it speaks protocol version {theirs}, this node {ours}; upgrade the older of the two")]
    Version { theirs: Versions, ours: Versions },
    #[error("it refused the connection: {0}")]
    Refused(Refusal),
    #[error("it broke the protocol: {0}; upgrade the older of the two")]
    Protocol(String),
    #[error("the connection failed: {0}")]
    Failed(String),
}

/// Connects both lanes to the same address of the peer.
pub(super) async fn connect(
    node: &Node,
    peer: &PeerConfig,
    traffic: Arc<Traffic>,
) -> Result<[Conn; 2], DialError> {
    let deadline = node.tuning.handshake;
    let attempt = async {
        let config = tls::client_config(&node.identity, peer.fingerprints.clone())
            .map_err(|error| DialError::Tls(TlsError::Foreign(error.to_string())))?;
        let connector = TlsConnector::from(Arc::new(config));
        let (tcp, addr) = first_reachable(&peer.address, deadline).await?;
        let live = secure(node, &connector, tcp, addr, traffic.clone());
        let bulk = async {
            let tcp = open(addr).await?;
            secure(node, &connector, tcp, addr, traffic.clone()).await
        };
        let (live, bulk) = tokio::try_join!(live, bulk)?;
        Ok([live, bulk])
    };
    timeout(deadline, attempt).await.unwrap_or(Err(DialError::Timeout(deadline)))
}

/// Tries the addresses in the order of the resolver, each for its share of half the deadline.
async fn first_reachable(
    address: &str,
    deadline: Duration,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let addrs: Vec<SocketAddr> = lookup_host(address).await.map_err(DialError::Resolve)?.collect();
    let each = (deadline / 2) / u32::try_from(addrs.len().max(1)).unwrap_or(u32::MAX);
    let mut last = DialError::Resolve(io::Error::other("it has no address"));
    for addr in addrs {
        match timeout(each, open(addr)).await {
            Ok(Ok(tcp)) => return Ok((tcp, addr)),
            Ok(Err(error)) => last = error,
            Err(_) => {
                let source = io::Error::from(io::ErrorKind::TimedOut);
                last = DialError::Connect { addr, source };
            }
        }
    }
    Err(last)
}

async fn open(addr: SocketAddr) -> Result<TcpStream, DialError> {
    TcpStream::connect(addr).await.map_err(|source| DialError::Connect { addr, source })
}

async fn secure(
    node: &Node,
    connector: &TlsConnector,
    tcp: TcpStream,
    addr: SocketAddr,
    traffic: Arc<Traffic>,
) -> Result<Conn, DialError> {
    let wire = Wire::new(tcp, traffic).map_err(|source| DialError::Connect { addr, source })?;
    let stream = connector
        .connect(tls::server_name(), wire)
        .await
        .map_err(|error| meaning(node, TlsError::of(&error)))?;
    let conn = Conn::new(stream.into(), addr, node.tuning.dead).map_err(DialError::Tls)?;
    if conn.fingerprint == node.identity.fingerprint() {
        return Err(DialError::Myself(Refusal::Myself));
    }
    Ok(conn)
}

/// Sends the hellos of `set` and returns the peer's answer once both lanes have it.
pub(super) async fn ask(
    node: &Node,
    [mut live, mut bulk]: [Conn; 2],
    set: u64,
) -> Result<([Conn; 2], Hello), DialError> {
    let deadline = node.tuning.handshake;
    let [first, second] = LANES;
    let both = async {
        tokio::try_join!(
            ask_lane(node, &mut live, set, first),
            ask_lane(node, &mut bulk, set, second)
        )
    };
    let answers = timeout(deadline, both).await.unwrap_or(Err(DialError::Timeout(deadline)));
    let (hello, other) = answers?;
    if hello.instance != other.instance {
        return Err(DialError::Protocol("two instances answered one set".to_owned()));
    }
    Ok(([live, bulk], hello))
}

async fn ask_lane(node: &Node, conn: &mut Conn, set: u64, lane: Lane) -> Result<Hello, DialError> {
    let hello = codec::encode(&Message::Hello(node.hello(set, lane)))
        .map_err(|error| DialError::Protocol(error.to_string()))?;
    let written = frame::write(&mut conn.writer, &[hello]).await;
    // Even if writing failed: what the peer said before it closed tells why.
    let answer = match conn.reader.next().await {
        Ok((answer, _)) => answer,
        Err(FrameError::Io(error)) => return Err(meaning(node, TlsError::of(&error))),
        Err(FrameError::Codec(error)) => return Err(DialError::Protocol(error.to_string())),
        Err(other) => {
            let why = written.err().map_or_else(|| other.to_string(), |error| error.to_string());
            return Err(DialError::Failed(why));
        }
    };
    match answer {
        Message::Hello(hello) if hello.set == set && hello.lane == lane => {
            let (theirs, ours) = (hello.versions, node.tuning.versions);
            match ours.common(theirs) {
                Some(_) => Ok(hello),
                None => Err(DialError::Version { theirs, ours }),
            }
        }
        Message::Refuse(Refusal::Version(theirs)) => {
            Err(DialError::Version { theirs, ours: node.tuning.versions })
        }
        Message::Refuse(refusal) => Err(DialError::Refused(refusal)),
        _ => Err(DialError::Protocol("its answer is not to what was asked".to_owned())),
    }
}

fn meaning(node: &Node, error: TlsError) -> DialError {
    match error {
        TlsError::UnknownKey(fingerprint) => DialError::UnknownKey(fingerprint),
        TlsError::NotAccepted => DialError::NotAccepted { how: node.how_to_add_us() },
        TlsError::Io(why) => DialError::Failed(why),
        foreign @ TlsError::Foreign(_) => DialError::Tls(foreign),
    }
}
