//! Real nodes on loopback, with real TLS.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use recsync_proto::hello::{Refusal, Versions};
use recsync_proto::message::{Bytes, Lane, ShareMessage};
use recsync_proto::{Message, Seq, ShareName};
use tokio::runtime::Runtime;

use super::*;

/// Longer than anything takes, also on a busy machine: only a test that fails waits so long.
const LONG: Duration = Duration::from_secs(60);

/// One node. Its identity outlives its runs.
struct TestNode {
    name: NodeName,
    identity: Identity,
    runtime: Runtime,
}

/// A node that runs.
struct Running {
    links: Links,
    events: mpsc::Receiver<LinkEvent>,
}

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// An address where nothing listens.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind(any_port()).unwrap();
    listener.local_addr().unwrap().to_string()
}

impl TestNode {
    fn new(node: &str) -> Self {
        let state_dir = tempfile::tempdir().unwrap();
        let identity = Identity::create(state_dir.path(), &name(node)).unwrap();
        TestNode { name: name(node), identity, runtime: runtime() }
    }

    /// Ends the node as `kill -9` would: nobody says goodbye, the kernel closes its sockets.
    fn kill(self, running: Running) -> Self {
        drop(running);
        drop(self.runtime);
        TestNode { runtime: runtime(), ..self }
    }

    /// Returns two nodes, the one with the smaller fingerprint first.
    fn pair() -> (TestNode, TestNode) {
        let (one, two) = (TestNode::new("one"), TestNode::new("two"));
        if one.fingerprint() < two.fingerprint() { (one, two) } else { (two, one) }
    }

    fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    fn run(&self) -> Running {
        self.run_with(any_port(), Tuning::default())
    }

    fn run_with(&self, listen: SocketAddr, tuning: Tuning) -> Running {
        let (tell, events) = mpsc::channel();
        let setup = Setup {
            identity: self.identity.clone(),
            node: self.name.clone(),
            listen,
            peers: Vec::new(),
            clock: Clock::start(),
            lag: Arc::new(|_| vec![(share(), 1_234)]),
            events: Arc::new(move |event| tell.send(event).unwrap_or_default()),
        };
        let links = Links::start_with(setup, self.runtime.handle(), tuning).unwrap();
        Running { links, events }
    }

    fn as_peer_at(&self, address: String) -> PeerConfig {
        PeerConfig {
            name: self.name.clone(),
            address,
            fingerprints: vec![self.fingerprint()],
            allow_from: Vec::new(),
            bandwidth: None,
        }
    }
}

impl Running {
    fn address(&self) -> String {
        self.links.local_addr().to_string()
    }

    fn next(&self) -> LinkEvent {
        self.events.recv_timeout(LONG).expect("an event")
    }

    /// Waits for a link, past links that did not last: two nodes that dial at once may replace one.
    fn up(&self) -> Link {
        loop {
            if let LinkEvent::Up { link } = self.next() {
                return link;
            }
        }
    }

    fn down(&self) -> Why {
        loop {
            if let LinkEvent::Down { why, .. } = self.next() {
                return why;
            }
        }
    }

    fn refused(&self) -> String {
        loop {
            if let LinkEvent::Refused { why, .. } = self.next() {
                return why;
            }
        }
    }

    fn state(&self) -> PeerState {
        self.links.peers().into_iter().next().unwrap()
    }

    /// Waits until something holds that no event tells of.
    fn until(&self, what: &str, holds: impl Fn(&PeerState) -> bool) -> PeerState {
        let start = Clock::start();
        loop {
            let state = self.state();
            if holds(&state) {
                return state;
            }
            assert!(start.now().mono < LONG, "never: {what}; {state:?}");
            thread::yield_now();
        }
    }
}

fn share() -> ShareName {
    ShareName::new("recordings").unwrap()
}

fn caught_up(seq: u64) -> Message {
    Message::Share { share: share(), body: ShareMessage::CaughtUp { through: Seq(seq) } }
}

fn block(index: u32, len: usize) -> Message {
    let bytes = vec![index.to_le_bytes()[0]; len];
    Message::Share {
        share: share(),
        body: ShareMessage::Block { id: 1, index, bytes: Bytes(bytes) },
    }
}

/// Lets two running nodes know each other; both dial.
fn introduce((one, a): (&TestNode, &Running), (two, b): (&TestNode, &Running)) {
    a.links.set_peers(vec![two.as_peer_at(b.address())]);
    b.links.set_peers(vec![one.as_peer_at(a.address())]);
}

/// Returns the links of both once they are the two ends of one connection set, and forgets the
/// events before that: nodes that dial at once may replace a link.
fn common_link(a: &Running, b: &Running) -> (Link, Link) {
    let start = Clock::start();
    let (left, right) = loop {
        if let (Some(left), Some(right)) = (a.state().link, b.state().link)
            && left.set() == right.set()
        {
            break (left, right);
        }
        assert!(start.now().mono < LONG, "never connected: {:?} {:?}", a.state(), b.state());
        thread::yield_now();
    };
    while a.up().id() != left.id() {}
    while b.up().id() != right.id() {}
    (left, right)
}

#[test]
fn two_nodes_find_each_other_and_talk_in_order() {
    let (one, two) = TestNode::pair();
    let (a, b) = (one.run(), two.run());
    introduce((&one, &a), (&two, &b));
    let (left, right) = common_link(&a, &b);
    assert_eq!((left.peer(), right.peer()), (&two.name, &one.name));
    thread::scope(|scope| {
        for lane in link::LANES {
            for (from, to) in [(&left, &right), (&right, &left)] {
                scope.spawn(move || {
                    for seq in 0..1_000 {
                        from.send(lane, &caught_up(seq)).unwrap();
                    }
                });
                scope.spawn(move || {
                    for seq in 0..1_000 {
                        assert_eq!(to.receive(lane), Some(caught_up(seq)));
                    }
                });
            }
        }
    });
    let state = a.until("a keep-alive", |state| !state.lag_ms.is_empty());
    assert_eq!(state.lag_ms, [(share(), 1_234)]);
    assert!(state.clock_skew_ms.is_some() && state.last_seen_ns.is_some());
    assert!(state.sent_bytes > 10_000 && state.received_bytes > 10_000, "{state:?}");
    assert_eq!((state.version, state.last_error), (Some(1), None));
}

#[test]
fn frames_of_every_size_pass() {
    let (one, two) = TestNode::pair();
    let (a, b) = (one.run(), two.run());
    introduce((&one, &a), (&two, &b));
    let (left, right) = common_link(&a, &b);
    let sizes = [0, 1, 100, 16 << 10, (64 << 10) + 1, 256 << 10, 1 << 20];
    thread::scope(|scope| {
        scope.spawn(|| {
            for (index, len) in (0..).zip(sizes) {
                left.send(Lane::Bulk, &block(index, len)).unwrap();
            }
        });
        for (index, len) in (0..).zip(sizes) {
            assert_eq!(right.receive(Lane::Bulk), Some(block(index, len)));
        }
    });
    assert!(matches!(left.send(Lane::Bulk, &block(0, 3 << 20)), Err(SendError::Codec(_))));
    left.send(Lane::Bulk, &caught_up(1)).unwrap();
    assert_eq!(right.receive(Lane::Bulk), Some(caught_up(1)), "a bug here does not cost the link");
}

#[test]
fn a_flood_waits_and_does_not_grow() {
    let (one, two) = TestNode::pair();
    let (a, b) = (one.run(), two.run());
    introduce((&one, &a), (&two, &b));
    let (left, right) = common_link(&a, &b);
    let limits = Tuning::default().queues;
    let (message, mut sent) = (block(7, 1 << 20), 0_u32);
    // Nobody receives: the peer's queue, both sockets and this queue fill up, then there is no room for good.
    let mut quiet = 0;
    while quiet < 50 {
        match left.try_send(Lane::Bulk, &message) {
            Ok(()) => (sent, quiet) = (sent + 1, 0),
            Err(SendError::Full) => {
                quiet += 1;
                thread::sleep(Duration::from_millis(10));
            }
            Err(other) => panic!("{other}"),
        }
        assert!(left.queued(Lane::Bulk) <= limits.outbox_len + (2 << 20));
        assert!(right.unread(Lane::Bulk) <= limits.inbox_len + (2 << 20));
    }
    // The other lane is not held up, a small message is always queued, and all of it arrives.
    left.send(Lane::Live, &caught_up(1)).unwrap();
    assert_eq!(right.receive(Lane::Live), Some(caught_up(1)));
    left.post(Lane::Bulk, &caught_up(2)).unwrap();
    for _ in 0..sent {
        assert_eq!(right.receive(Lane::Bulk), Some(block(7, 1 << 20)));
    }
    assert_eq!(right.receive(Lane::Bulk), Some(caught_up(2)));
}

#[test]
fn within_a_limit_the_live_lane_goes_before_the_bulk_lane() {
    const BLOCKS: u32 = 24;
    const LEN: usize = 64 << 10;
    let (one, two) = TestNode::pair();
    let (a, b) = (one.run(), two.run());
    let slow = |peer: PeerConfig| PeerConfig { bandwidth: NonZeroU64::new(2_000_000), ..peer };
    a.links.set_peers(vec![slow(two.as_peer_at(b.address()))]);
    b.links.set_peers(vec![slow(one.as_peer_at(a.address()))]);
    let (left, right) = common_link(&a, &b);
    let sender = left.clone();
    let bulk = thread::Builder::new().spawn(move || {
        (0..BLOCKS).for_each(|index| sender.send(Lane::Bulk, &block(index, LEN)).unwrap());
    });
    assert_eq!(right.receive(Lane::Bulk), Some(block(0, LEN)));
    left.send(Lane::Live, &caught_up(1)).unwrap();
    assert_eq!(right.receive(Lane::Live), Some(caught_up(1)));
    let came = b.state().received_bytes;
    assert!(came < u64::from(BLOCKS) * LEN as u64 / 2, "{came} bytes came before it");
    for index in 1..BLOCKS {
        assert_eq!(right.receive(Lane::Bulk), Some(block(index, LEN)), "in order, and whole");
    }
    bulk.unwrap().join().unwrap();
}

#[test]
fn who_asks_without_reading_loses_the_link() {
    let (one, two) = TestNode::pair();
    let (a, b) = (one.run(), two.run());
    introduce((&one, &a), (&two, &b));
    let (left, _right) = common_link(&a, &b);
    let message = block(7, 1 << 20);
    while left.post(Lane::Bulk, &message).is_ok() {}
    assert!(matches!(a.down(), Why::Protocol(_)));
    assert_eq!(left.queued(Lane::Bulk), 0);
}

#[test]
fn an_unknown_key_is_refused_and_both_sides_say_what_to_do() {
    let (one, two) = TestNode::pair();
    let (a, b) = (one.run(), two.run());
    a.links.set_peers(vec![two.as_peer_at(b.address())]);
    let told = b.refused();
    let fingerprint = one.fingerprint();
    let port = b.links.local_addr().port();
    let command =
        format!("recsync peer add NAME --address 127.0.0.1:{port} --fingerprint {fingerprint}");
    assert!(told.contains(&command), "{told}");
    let state = a.until("a failed dial", |state| state.last_error.is_some());
    let error = state.last_error.unwrap();
    let name = &one.name;
    let command =
        format!("recsync peer add {name} --address HOST:PORT --fingerprint {fingerprint}");
    assert!(error.contains("does not accept this node's key"), "{error}");
    assert!(error.contains(&command), "{error}");
    // Configured at last, it is connected, with the key tried all along.
    b.links.set_peers(vec![one.as_peer_at(nowhere())]);
    assert_eq!(a.up().peer(), &two.name);
    let again = b.events.try_iter().filter(|event| matches!(event, LinkEvent::Refused { .. }));
    assert_eq!(again.count(), 0, "told once");
}

#[test]
fn a_peer_with_another_key_is_not_talked_to() {
    let (one, two) = TestNode::pair();
    let impostor = TestNode::new("two");
    let (a, c) = (one.run(), impostor.run());
    c.links.set_peers(vec![one.as_peer_at(nowhere())]);
    a.links.set_peers(vec![two.as_peer_at(c.address())]);
    let state = a.until("a failed dial", |state| state.last_error.is_some());
    let error = state.last_error.unwrap();
    assert!(error.contains(&impostor.fingerprint().to_string()), "{error}");
    assert!(c.refused().contains("does not accept this node's key"));
    assert!(a.links.link(&two.name).is_none());
}

#[test]
fn a_new_key_beside_the_old_one_is_accepted() {
    let (one, two) = TestNode::pair();
    let old = TestNode::new("old");
    let (a, b) = (one.run(), two.run());
    let mut peer = two.as_peer_at(b.address());
    peer.fingerprints.insert(0, old.fingerprint());
    a.links.set_peers(vec![peer]);
    b.links.set_peers(vec![one.as_peer_at(nowhere())]);
    assert_eq!(a.up().peer(), &two.name);
}

#[test]
fn no_common_version_is_refused_with_both_ranges() {
    let (one, two) = TestNode::pair();
    let tuning = |min, max| Tuning { versions: Versions { min, max }, ..Tuning::default() };
    let (a, b) = (one.run_with(any_port(), tuning(1, 2)), two.run_with(any_port(), tuning(3, 5)));
    a.links.set_peers(vec![two.as_peer_at(b.address())]);
    b.links.set_peers(vec![one.as_peer_at(nowhere())]);
    let told = b.refused();
    assert!(told.contains("version 1 to 2, this node 3 to 5; upgrade the older"), "{told}");
    let state = a.until("a failed dial", |state| state.last_error.is_some());
    let error = state.last_error.unwrap();
    assert!(error.contains("version 3 to 5, this node 1 to 2; upgrade the older"), "{error}");
}

#[test]
fn overlapping_versions_use_the_newest_in_common() {
    let (one, two) = TestNode::pair();
    let tuning = |min, max| Tuning { versions: Versions { min, max }, ..Tuning::default() };
    let (a, b) = (one.run_with(any_port(), tuning(1, 3)), two.run_with(any_port(), tuning(2, 9)));
    introduce((&one, &a), (&two, &b));
    common_link(&a, &b);
    assert_eq!((a.state().version, b.state().version), (Some(3), Some(3)));
}

#[test]
fn a_node_that_is_its_own_peer_is_told() {
    let one = TestNode::new("one");
    let a = one.run();
    let mut peer = one.as_peer_at(a.address());
    peer.name = name("other");
    a.links.set_peers(vec![peer]);
    let state = a.until("a failed dial", |state| state.last_error.is_some());
    let error = state.last_error.unwrap();
    assert!(error.contains("both ends have the same key"), "{error}");
}

#[test]
fn an_address_outside_allow_from_is_dropped() {
    let (one, two) = TestNode::pair();
    let (a, b) = (one.run(), two.run());
    let mut peer = one.as_peer_at(nowhere());
    peer.allow_from = vec!["192.0.2.0/24".parse().unwrap()];
    b.links.set_peers(vec![peer.clone()]);
    a.links.set_peers(vec![two.as_peer_at(b.address())]);
    assert!(b.refused().contains("in no peer's `allow_from`"));
    // Another peer may connect from here, so TLS begins; this one may not.
    let other = TestNode::new("other").as_peer_at(nowhere());
    b.links.set_peers(vec![peer.clone(), other]);
    assert!(b.refused().contains("not in its `allow_from`"));
    a.until("told why", |state| {
        state.last_error.as_ref().is_some_and(|error| error.contains("allow_from"))
    });
    peer.allow_from.push("127.0.0.0/8".parse().unwrap());
    b.links.set_peers(vec![peer]);
    assert_eq!(a.up().peer(), &two.name);
}

#[test]
fn strangers_do_not_keep_peers_out() {
    let (one, two) = TestNode::pair();
    let tuning = Tuning { handshake: Duration::from_millis(200), ..Tuning::default() };
    let (a, b) = (one.run(), two.run_with(any_port(), tuning));
    b.links.set_peers(vec![one.as_peer_at(nowhere())]);
    // They say nothing, or nonsense, or too much, and are all gone after the deadline.
    let mut strangers: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(b.links.local_addr()).unwrap()).collect();
    for stranger in strangers.iter_mut().step_by(3) {
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap_or_default();
    }
    assert!(b.refused().contains("in their handshake"));
    for mut stranger in strangers {
        stranger.set_read_timeout(Some(LONG)).unwrap();
        let mut rest = Vec::new();
        match stranger.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    a.links.set_peers(vec![two.as_peer_at(b.address())]);
    assert_eq!(a.up().peer(), &two.name);
}

#[test]
fn tls_below_1_3_is_refused() {
    use std::process::{Command, Stdio};
    let two = TestNode::new("two");
    let b = two.run();
    let mut peer = TestNode::new("one").as_peer_at(nowhere());
    peer.allow_from = Vec::new();
    b.links.set_peers(vec![peer]);
    let s_client = |version: &str| {
        let output = Command::new("openssl")
            .args(["s_client", version, "-connect", &b.address()])
            .stdin(Stdio::null())
            .output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // Without openssl on the machine there is nobody here who speaks TLS 1.2.
    let (Ok(new), Ok(old)) = (s_client("-tls1_3"), s_client("-tls1_2")) else { return };
    assert!(new.contains("BEGIN CERTIFICATE"), "{new}");
    assert!(!old.contains("BEGIN CERTIFICATE"), "{old}");
}

#[test]
fn a_restarted_peer_is_connected_again() {
    for senior_restarts in [true, false] {
        let (one, two) = TestNode::pair();
        let (a, b) = (one.run(), two.run());
        introduce((&one, &a), (&two, &b));
        let (left, right) = common_link(&a, &b);
        let (gone, stays, node, peer) =
            if senior_restarts { (a, b, &one, &two) } else { (b, a, &two, &one) };
        let address = gone.links.local_addr();
        gone.links.stop();
        assert_eq!(gone.down(), Why::Stopping);
        assert_eq!(stays.down(), Why::Refused(Refusal::Stopping));
        for link in [left, right] {
            assert_eq!(link.send(Lane::Live, &caught_up(1)), Err(SendError::Closed));
            assert_eq!(link.receive(Lane::Live), None);
        }
        drop(gone);
        let again = node.run_with(address, Tuning::default());
        again.links.set_peers(vec![peer.as_peer_at(stays.address())]);
        common_link(&again, &stays);
    }
}

#[test]
fn a_peer_that_is_cut_off_without_a_word_is_replaced() {
    let (one, two) = TestNode::pair();
    let (a, b) = (one.run(), two.run());
    introduce((&one, &a), (&two, &b));
    common_link(&a, &b);
    let address = a.links.local_addr();
    let one = one.kill(a);
    assert!(matches!(b.down(), Why::Closed | Why::Failed(_)));
    let again = one.run_with(address, Tuning::default());
    again.links.set_peers(vec![two.as_peer_at(b.address())]);
    common_link(&again, &b);
}

/// A line that can go dead: a TCP proxy that stops forwarding and keeps its connections open.
struct Line {
    address: String,
    dead: Arc<AtomicBool>,
}

impl Line {
    fn to(target: String) -> Line {
        let listener = std::net::TcpListener::bind(any_port()).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dead = Arc::new(AtomicBool::new(false));
        let is_dead = dead.clone();
        #[expect(clippy::disallowed_methods, reason = "a fake line lives as long as its sockets")]
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(&target) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let is_dead = is_dead.clone();
                    thread::spawn(move || forward(from, to, &is_dead));
                }
            }
        });
        Line { address, dead }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, dead: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if dead.load(Ordering::SeqCst) {
            // What comes now vanishes.
            continue;
        }
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    if !dead.load(Ordering::SeqCst) {
        to.shutdown(Shutdown::Write).unwrap_or_default();
    }
}

#[test]
fn a_silent_peer_is_found_dead_on_both_sides() {
    for dialler_is_senior in [true, false] {
        let (one, two) = TestNode::pair();
        let (one, two) = if dialler_is_senior { (one, two) } else { (two, one) };
        let tuning = Tuning {
            ping: Duration::from_millis(100),
            dead: Duration::from_secs(1),
            ..Tuning::default()
        };
        let (a, b) = (one.run_with(any_port(), tuning.clone()), two.run_with(any_port(), tuning));
        let line = Line::to(b.address());
        a.links.set_peers(vec![two.as_peer_at(line.address.clone())]);
        b.links.set_peers(vec![one.as_peer_at(nowhere())]);
        let (left, _) = common_link(&a, &b);
        assert_eq!(left.addr().to_string(), line.address);
        line.dead.store(true, Ordering::SeqCst);
        assert_eq!(a.down(), Why::Silent(Duration::from_secs(1)));
        assert_eq!(b.down(), Why::Silent(Duration::from_secs(1)));
        line.dead.store(false, Ordering::SeqCst);
        common_link(&a, &b);
    }
}

#[test]
fn one_side_gives_up_and_dials_the_other_way() {
    // The senior's set is half-open: only the junior notices, and its dial is refused until the
    // senior notices too. Or the junior's set, which the senior may replace at once.
    for dialler_is_senior in [true, false] {
        let (one, two) = TestNode::pair();
        let (one, two) = if dialler_is_senior { (one, two) } else { (two, one) };
        let tuning = |dead| Tuning {
            ping: Duration::from_millis(100),
            dead: Duration::from_millis(dead),
            backoff_max: Duration::from_millis(200),
            ..Tuning::default()
        };
        let a = one.run_with(any_port(), tuning(3_000));
        let b = two.run_with(any_port(), tuning(1_000));
        let line = Line::to(b.address());
        a.links.set_peers(vec![two.as_peer_at(line.address.clone())]);
        b.links.set_peers(vec![one.as_peer_at(a.address())]);
        // Through the line or directly, by whichever was quicker: only the first can go dead.
        let (left, _) = common_link(&a, &b);
        if left.addr().to_string() != line.address {
            continue;
        }
        line.dead.store(true, Ordering::SeqCst);
        assert!(matches!(b.down(), Why::Silent(_)));
        common_link(&a, &b);
    }
}

#[test]
fn a_reload_leaves_unchanged_peers_alone() {
    let (one, two) = TestNode::pair();
    let three = TestNode::new("three");
    let (a, b, c) = (one.run(), two.run(), three.run());
    let (to_two, to_three) = (two.as_peer_at(b.address()), three.as_peer_at(c.address()));
    b.links.set_peers(vec![one.as_peer_at(nowhere())]);
    c.links.set_peers(vec![one.as_peer_at(nowhere())]);
    a.links.set_peers(vec![to_two.clone()]);
    let first = a.up();
    a.links.set_peers(vec![to_two.clone(), to_three.clone()]);
    assert_eq!(a.up().peer(), &three.name);
    a.links.set_peers(vec![to_two.clone()]);
    assert_eq!(a.down(), Why::Stopping);
    assert_eq!(a.links.link(&two.name).map(|link| link.id()), Some(first.id()));
    let mut changed = to_two;
    changed.allow_from = vec!["127.0.0.1".parse().unwrap()];
    a.links.set_peers(vec![changed]);
    assert_eq!(a.down(), Why::Reconfigured);
    assert_ne!(a.up().id(), first.id());
    a.links.set_peers(Vec::new());
    assert_eq!(a.down(), Why::Stopping);
    assert!(a.links.peers().is_empty());
}

#[test]
fn a_stop_frees_all_who_wait() {
    let (one, two) = TestNode::pair();
    let (a, b) = (one.run(), two.run());
    introduce((&one, &a), (&two, &b));
    let (left, right) = common_link(&a, &b);
    thread::scope(|scope| {
        let receives = scope.spawn(|| left.receive(Lane::Live));
        let sends = scope.spawn(|| while left.send(Lane::Bulk, &block(1, 1 << 20)).is_ok() {});
        a.links.stop();
        assert_eq!(receives.join().unwrap(), None);
        sends.join().unwrap();
    });
    assert_eq!(a.down(), Why::Stopping);
    b.down();
    assert_eq!(right.receive(Lane::Bulk), None);
}

#[test]
fn a_link_that_the_daemon_refuses_ends_with_its_reason() {
    let (one, two) = TestNode::pair();
    let (a, b) = (one.run(), two.run());
    introduce((&one, &a), (&two, &b));
    let (left, _right) = common_link(&a, &b);
    left.refuse("a frame before `Open`".to_owned());
    assert_eq!(a.down(), Why::Protocol("a frame before `Open`".to_owned()));
    assert_eq!(b.down(), Why::Refused(Refusal::Protocol("a frame before `Open`".to_owned())));
}

#[test]
fn an_address_in_use_is_said() {
    let one = TestNode::new("one");
    let a = one.run();
    let setup = Setup {
        identity: one.identity.clone(),
        node: one.name.clone(),
        listen: a.links.local_addr(),
        peers: Vec::new(),
        clock: Clock::start(),
        lag: Arc::new(|_| Vec::new()),
        events: Arc::new(|_| {}),
    };
    let error = Links::start(setup, one.runtime.handle()).err().unwrap().to_string();
    assert!(error.contains(&a.address()) && error.contains("in use"), "{error}");
    assert_eq!(a.links.local_addr().ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
}
