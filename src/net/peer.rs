//! One task for each configured peer: dials it, judges what it dials, keeps the link in use.
//!
//! All decisions about a peer's connection sets are made here, one after the other: there is nothing
//! to lock and nothing to race with inside a node. What races with the other node is the business of `set.rs`.
//!
//! **Invariant:** for each peer, events come as Up, Down, Up, Down …; a link is closed to its senders before its Down
//! is told, and its Down is told before the next Up.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use recsync_proto::hello::{Hello, Refusal};
use recsync_proto::message::Lane;
use recsync_proto::{Message, codec};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::accept::Offered;
use super::backoff::Backoff;
use super::conn::Conn;
use super::dial::{self, DialError};
use super::link::{self, LANES, Link, Why};
use super::node::Node;
use super::set::{Dialler, Offer, Sets, Verdict};
use super::vitals::Vitals;
use super::{LinkEvent, PeerConfig};

/// Instances of a peer that are remembered after another one came in their place.
const REPLACED_MAX: usize = 8;

/// A step of a dial, done.
enum Step {
    Connected(Result<[Conn; 2], DialError>),
    Answered(Result<([Conn; 2], Hello), DialError>),
}

/// The connection in which one half of an incoming set waits for the other.
struct Half {
    conn: Conn,
    deadline: Instant,
}

/// The link in use.
struct Current {
    link: Link,
    since: Instant,
}

struct Peer {
    node: Arc<Node>,
    config: PeerConfig,
    vitals: Arc<Vitals>,
    sets: Sets,
    half: Option<Half>,
    current: Option<Current>,
    dial: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
    backoff: Backoff,
    next_dial: Instant,
    /// Links that end and refusals under way.
    tasks: JoinSet<()>,
    /// What was last said of a dial that failed, so that it is said once.
    complaint: Option<String>,
    warned_of_name: bool,
    /// Instances of the peer in whose place another one came: they are gone for good, unless two
    /// nodes have one key.
    replaced: VecDeque<u64>,
    warned_of_twin: bool,
}

/// Keeps the link to a peer until the sender of `config` is dropped.
pub(super) async fn run(
    node: Arc<Node>,
    mut config: watch::Receiver<PeerConfig>,
    vitals: Arc<Vitals>,
    mut offers: mpsc::Receiver<Offered>,
) {
    let current = config.borrow_and_update().clone();
    let mut peer = Peer::new(node, current, vitals);
    loop {
        let next_dial = peer.sets.may_dial().then_some(peer.next_dial);
        let half_deadline = peer.half.as_ref().map(|half| half.deadline);
        tokio::select! {
            biased;
            changed = config.changed() => match changed {
                Ok(()) => {
                    let config = config.borrow_and_update().clone();
                    peer.reconfigure(config);
                }
                Err(_) => break,
            },
            why = ended(&peer.current) => peer.ended(why),
            Some(offered) = offers.recv() => peer.offered(offered),
            step = or_never(&mut peer.dial) => peer.stepped(step),
            () = at(half_deadline) => peer.drop_half(),
            () = at(next_dial) => peer.start_dial(),
            Some(_) = peer.tasks.join_next() => {}
        }
    }
    peer.stop().await;
}

async fn ended(current: &Option<Current>) -> Why {
    match current {
        Some(current) => current.link.ended().await,
        None => std::future::pending().await,
    }
}

async fn or_never<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Peer {
    fn new(node: Arc<Node>, config: PeerConfig, vitals: Arc<Vitals>) -> Self {
        Peer {
            backoff: Backoff::new(node.tuning.backoff_first, node.tuning.backoff_max),
            node,
            config,
            vitals,
            sets: Sets::new(),
            half: None,
            current: None,
            dial: None,
            next_dial: Instant::now(),
            tasks: JoinSet::new(),
            complaint: None,
            warned_of_name: false,
            replaced: VecDeque::new(),
            warned_of_twin: false,
        }
    }

    /// A connection that the peer has dialled is here, with its hello.
    fn offered(&mut self, Offered { conn, hello }: Offered) {
        if !self.config.fingerprints.contains(&conn.fingerprint) {
            // Authenticated under a config that has just been replaced.
            return;
        }
        let senior = self.node.identity.fingerprint() < conn.fingerprint;
        let offer = Offer { set: hello.set, lane: hello.lane, instance: hello.instance };
        if let Some(used) = self.sets.in_use().filter(|used| used.instance != offer.instance) {
            if self.replaced.contains(&offer.instance) {
                return self.refuse_twin(conn);
            }
            self.replaced.push_back(used.instance);
            if self.replaced.len() > REPLACED_MAX {
                self.replaced.pop_front();
            }
        }
        let verdict = self.sets.offered(offer, senior);
        if self.sets.in_use().is_none() {
            self.end_current(Why::Restarted, Some(Refusal::Duplicate));
        }
        // The peer is there: no reason to wait with the next dial, should one be needed.
        self.backoff.reset();
        self.next_dial = Instant::now();
        match verdict {
            Verdict::Duplicate => self.refuse(conn, Refusal::Duplicate),
            Verdict::Repeated => {
                self.refuse(conn, Refusal::Protocol("this lane of the set is here already".into()));
            }
            Verdict::Half => {
                let deadline = Instant::now() + self.node.tuning.handshake;
                self.half = Some(Half { conn, deadline });
            }
            Verdict::Taken => self.taken(conn, hello),
        }
    }

    /// An incoming set is complete and in use from now on.
    fn taken(&mut self, conn: Conn, hello: Hello) {
        self.dial = None;
        self.end_current(Why::Replaced, Some(Refusal::Duplicate));
        let half = self.half.take().expect("a set is taken when its second half comes");
        let conns = match hello.lane {
            Lane::Live => [conn, half.conn],
            Lane::Bulk => [half.conn, conn],
        };
        let answer = |lane| codec::encode(&Message::Hello(self.node.hello(hello.set, lane))).ok();
        self.up(conns, LANES.map(answer), &hello, Dialler::Peer);
    }

    fn refuse(&mut self, conn: Conn, refusal: Refusal) {
        self.tasks.spawn(conn.refuse(refusal, self.node.tuning.goodbye));
    }

    /// Keeps two nodes with one key from taking the link from each other in turn.
    fn refuse_twin(&mut self, conn: Conn) {
        if !self.warned_of_twin {
            self.warned_of_twin = true;
            warn!(
                peer = self.name(),
                addr = %conn.addr,
                "two nodes have the key of this peer: the one that is connected keeps the link, the \
                 other one is refused; give that one a key of its own (recsync init) and tell its \
                 peers: recsync peer add"
            );
        }
        self.refuse(conn, Refusal::Twin);
    }

    fn drop_half(&mut self) {
        debug!(peer = self.name(), "one lane of a connection did not come");
        self.half = None;
        self.sets.half_dropped();
    }

    fn start_dial(&mut self) {
        self.sets.dialling();
        let (node, config) = (self.node.clone(), self.config.clone());
        let traffic = self.vitals.traffic.clone();
        self.dial =
            Some(Box::pin(
                async move { Step::Connected(dial::connect(&node, &config, traffic).await) },
            ));
    }

    fn stepped(&mut self, step: Step) {
        self.dial = None;
        match step {
            Step::Connected(Ok(conns)) => {
                let set = crate::sys::random_u64();
                // Else the peer was quicker: the connections close without a hello.
                if self.sets.may_ask(set) {
                    let node = self.node.clone();
                    self.dial = Some(Box::pin(async move {
                        Step::Answered(dial::ask(&node, conns, set).await)
                    }));
                }
            }
            Step::Answered(Ok((conns, hello))) => {
                self.sets.answered(hello.instance);
                self.end_current(Why::Replaced, Some(Refusal::Duplicate));
                self.up(conns, [None, None], &hello, Dialler::Us);
            }
            Step::Connected(Err(error)) | Step::Answered(Err(error)) => {
                self.sets.dial_failed();
                self.next_dial = Instant::now() + self.backoff.next(crate::sys::random_u64());
                self.complain(&error);
            }
        }
    }

    fn complain(&mut self, error: &DialError) {
        let text = error.to_string();
        if matches!(error, DialError::Refused(Refusal::Duplicate)) {
            // The other side has another set in use or is about to: nothing is wrong.
            return debug!(peer = self.name(), "{text}");
        }
        self.vitals.down(text.clone());
        if self.complaint.as_ref() == Some(&text) {
            return debug!(peer = self.name(), "still not connected: {text}");
        }
        warn!(
            peer = self.name(),
            address = self.config.address,
            "not connected: {text}; trying again"
        );
        self.complaint = Some(text);
    }

    fn up(
        &mut self,
        conns: [Conn; 2],
        first: [Option<Vec<u8>>; 2],
        hello: &Hello,
        dialler: Dialler,
    ) {
        let tuning = &self.node.tuning;
        let name = self.config.name.clone();
        let link = Link::new(self.node.next_link(), hello.set, name, conns[0].addr, tuning.queues);
        let version = tuning.versions.common(hello.versions).expect("checked with the hello");
        let dialled = dialler == Dialler::Us;
        self.vitals.up(&link, dialled, version, self.node.clock.now().wall_ns);
        self.check_name(hello);
        self.complaint = None;
        let addr = link.addr();
        info!(peer = self.name(), %addr, dialled, version, set = hello.set, "connected");
        // Told before the first message can be received.
        (self.node.events)(LinkEvent::Up { link: link.clone() });
        let (node, vitals) = (self.node.clone(), self.vitals.clone());
        let bandwidth = self.config.bandwidth;
        self.tasks.spawn(link::run(link.clone(), conns, first, bandwidth, node, vitals));
        self.current = Some(Current { link, since: Instant::now() });
    }

    /// Warns once of a peer whose name is not what this node calls it, or is this node's own.
    fn check_name(&mut self, hello: &Hello) {
        if self.warned_of_name {
            return;
        }
        if hello.node == self.node.name {
            self.warned_of_name = true;
            warn!(
                peer = self.name(),
                "the peer calls itself {} as this node does; give each node a name of its own in \
                 its [node] section: conflict copies are named after it",
                hello.node
            );
        } else if hello.node != self.config.name {
            self.warned_of_name = true;
            warn!(
                peer = self.name(),
                "the peer calls itself {}; conflict copies show that name", hello.node
            );
        }
    }

    /// The link in use has ended by itself.
    fn ended(&mut self, why: Why) {
        self.sets.ended();
        self.down(&why);
    }

    /// Ends the link in use, if there is one; what came in its place is known to `sets` already.
    fn end_current(&mut self, why: Why, farewell: Option<Refusal>) {
        if let Some(current) = &self.current {
            current.link.end(why.clone(), farewell);
            self.down(&why);
        }
    }

    fn down(&mut self, why: &Why) {
        let Some(Current { link, since }) = self.current.take() else { return };
        if since.elapsed() >= self.node.tuning.stable {
            self.backoff.reset();
        }
        self.next_dial = Instant::now() + self.backoff.next(crate::sys::random_u64());
        self.vitals.down(why.to_string());
        match why {
            Why::Stopping | Why::Replaced | Why::Reconfigured => {
                info!(peer = self.name(), "disconnected: {why}");
            }
            _ => warn!(peer = self.name(), "disconnected: {why}; connecting again"),
        }
        (self.node.events)(LinkEvent::Down {
            peer: self.config.name.clone(),
            link: link.id(),
            why: why.clone(),
        });
    }

    /// Starts over under another config of the same name.
    fn reconfigure(&mut self, config: PeerConfig) {
        self.abandon(Why::Reconfigured, None);
        self.config = config;
        self.complaint = None;
        self.warned_of_twin = false;
        self.backoff.reset();
        self.next_dial = Instant::now();
    }

    async fn stop(mut self) {
        self.abandon(Why::Stopping, Some(Refusal::Stopping));
        let goodbyes = async { while self.tasks.join_next().await.is_some() {} };
        timeout(self.node.tuning.goodbye + Duration::from_millis(100), goodbyes)
            .await
            .unwrap_or_default();
    }

    fn abandon(&mut self, why: Why, farewell: Option<Refusal>) {
        self.end_current(why, farewell);
        self.half = None;
        self.dial = None;
        self.sets = Sets::new();
    }

    fn name(&self) -> &str {
        self.config.name.as_str()
    }
}
