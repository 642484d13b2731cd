//! The daemon: reads the config, starts the threads, answers questions, and stops cleanly.
//!
//! ```text
//!  signals ─▶ Node ─▶ Host (one a share) ─▶ share loop ─▶ workers, lanes, fetcher, scanner, watcher
//!               ├──▶ Links (tokio) ─▶ two reader threads a link ─▶ share loop
//!               └──▶ HTTP and control socket (tokio) ─▶ Service
//! ```
//!
//! **Invariant:** the only place that spawns threads; whatever is started is stopped within five
//! seconds of SIGTERM, and a stop at any moment loses nothing.
#![forbid(unsafe_code)]

mod accept;
mod board;
mod changes;
mod commits;
mod conflicts;
mod credit;
mod desk;
mod gate;
mod host;
mod inbox;
mod keeper;
mod lag;
mod lane;
mod locate;
mod pool;
mod scanner;
mod service;
mod share;
mod site;
mod trash;
mod waiting;
mod witness;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use recsync_proto::message::Lane;
use recsync_proto::{Message, NodeName, ShareName};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch as cell};

use crate::config::{self, Config, ConfigError};
use crate::engine;
use crate::net::{Identity, IdentityError, Link, LinkEvent, Links, NetError, PeerConfig};
use crate::serve::{self, ControlError, ControlSocket, Scope};
use crate::sys::{self, Clock};
use crate::telemetry::events::Problem;
use crate::telemetry::notify::{self, Watchdog};
use crate::telemetry::{Events, Metrics};

use credit::Credit;
use host::Host;
use lag::LagBoard;
use pool::Pool;
use service::Door;
use share::{Common, Setup, ToShare};

/// Messages of one lane that may wait for a share's loop.
const WAITING_MAX: usize = 256;
/// Who may wait for files at the same time: half of the connections that the control socket has.
const WAITS_MAX: usize = 32;
/// How often what peers lack is brought up to date and the watchdog is fed.
const GAUGES: Duration = Duration::from_secs(1);

/// Why the daemon does not run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The link address.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// An address that does not resolve or cannot be listened on.
    #[error("{what} {address}: {why}; correct it in {}", file.display())]
    Listen {
        /// Which listener.
        what: &'static str,
        /// As configured.
        address: String,
        /// The kernel's words.
        why: String,
        /// The config file.
        file: PathBuf,
    },
    /// The kernel refused something that every program needs.
    #[error("the kernel refused {what}: {why}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Its words.
        why: std::io::Error,
    },
}

impl DaemonError {
    fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |why| DaemonError::System { what, why }
    }
}

/// The running daemon.
struct Node {
    clock: Clock,
    config: Mutex<Config>,
    fingerprint: String,
    common: Common,
    hosts: Mutex<BTreeMap<ShareName, Arc<Host>>>,
    /// The links in use, for shares that start later.
    links_up: Mutex<BTreeMap<NodeName, Link>>,
    links: OnceLock<Links>,
    lag: LagBoard,
    /// Room for those who wait for files: the control socket is the operators' too.
    waits: Semaphore,
    stopping: AtomicBool,
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start. Later failures of a share, a peer or a path are reported, and it goes on.
pub fn run(file: &Path) -> Result<(), DaemonError> {
    let config = config::load(file)?;
    let identity = Identity::load(&config.node.state_dir)?;
    sys::ignore_lease_signals();
    sys::keep_freed_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("net")
        .enable_all()
        .build()
        .map_err(DaemonError::system("threads"))?;
    let signals = Signals::listen(&runtime).map_err(DaemonError::system("signals"))?;
    let clock = Clock::start();
    let pool = Pool::start(clock).map_err(DaemonError::system("threads"))?;
    let node = Arc::new(Node::new(config, identity.fingerprint().to_string(), clock, &pool));
    let (stop, stopped) = cell::channel(false);

    let result = node.start(identity, &runtime, &stopped).and_then(|()| {
        let (wake, asleep) = channel();
        let gauges = node.clone();
        let thread = std::thread::Builder::new()
            .name("gauges".to_owned())
            .spawn(move || gauges.gauges(&asleep))
            .map_err(DaemonError::system("threads"))?;
        tell_manager(notify::ready(&node.summary()));
        runtime.block_on(node.heed(signals));
        drop(wake);
        if thread.join().is_err() {
            tracing::error!("the gauges' thread panicked");
        }
        Ok(())
    });

    tell_manager(notify::stopping());
    node.stopping.store(true, Ordering::Relaxed);
    stop.send_replace(true);
    node.stop();
    pool.stop();
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

/// The signals that the daemon heeds, from before it starts anything: until then they end it at once.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen(runtime: &tokio::runtime::Runtime) -> std::io::Result<Self> {
        let _inside = runtime.enter();
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

fn tell_manager(told: std::io::Result<()>) {
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

impl Node {
    fn new(config: Config, fingerprint: String, clock: Clock, pool: &Pool) -> Self {
        let shares: Vec<_> = config.shares.iter().map(|share| share.name.clone()).collect();
        let peers: Vec<_> = config.peers.iter().map(|peer| peer.name.clone()).collect();
        let common = Common {
            clock,
            pool: pool.handle(),
            metrics: Arc::new(Metrics::new(&shares, &peers)),
            events: Arc::new(Events::new()),
        };
        Node {
            clock,
            config: Mutex::new(config),
            fingerprint,
            common,
            hosts: Mutex::default(),
            links_up: Mutex::default(),
            links: OnceLock::new(),
            lag: LagBoard::default(),
            waits: Semaphore::new(WAITS_MAX),
            stopping: AtomicBool::new(false),
        }
    }

    /// Starts everything that the config names.
    fn start(
        self: &Arc<Self>,
        identity: Identity,
        runtime: &tokio::runtime::Runtime,
        stopped: &cell::Receiver<bool>,
    ) -> Result<(), DaemonError> {
        let config = self.config();
        self.serve(&config, runtime, stopped)?;
        for share in &config.shares {
            self.start_share(&config, share)?;
        }
        let (events, lag) = (Arc::downgrade(self), Arc::downgrade(self));
        let links = Links::start(
            crate::net::Setup {
                identity,
                node: config.node.name.clone(),
                listen: resolve("listen on", &config.node.listen, &config.file)?,
                peers: peer_configs(&config),
                clock: self.clock,
                lag: Arc::new(move |peer| {
                    lag.upgrade().map_or_else(Vec::new, |node| node.lag_to(peer))
                }),
                events: Arc::new(move |event| {
                    if let Some(node) = events.upgrade() {
                        node.link_event(event);
                    }
                }),
            },
            runtime.handle(),
        )?;
        if self.links.set(links).is_err() {
            tracing::error!("the links were started twice");
        }
        tracing::info!(node = %config.node.name, listen = config.node.listen.as_str(), shares = config.shares.len(), peers = config.peers.len(), "running");
        Ok(())
    }

    /// Opens the control socket and, if configured, the HTTP listener.
    fn serve(
        self: &Arc<Self>,
        config: &Config,
        runtime: &tokio::runtime::Runtime,
        stopped: &cell::Receiver<bool>,
    ) -> Result<(), DaemonError> {
        let _inside = runtime.enter();
        let control = ControlSocket::bind(&config.node.control)?;
        let until_stopped = |mut stopped: cell::Receiver<bool>| async move {
            // A sender that is gone means the same.
            let _stopped = stopped.wait_for(|stopped| *stopped).await.is_ok();
        };
        let router = serve::router(Arc::new(Door(self.clone())), Scope::Control);
        runtime.spawn(control.serve(router, until_stopped(stopped.clone())));
        if let Some(http) = &config.http {
            let address = resolve("serve HTTP on", &http.listen, &config.file)?;
            let listener = runtime.block_on(tokio::net::TcpListener::bind(address));
            let listener = listener.map_err(|why| DaemonError::Listen {
                what: "cannot serve HTTP on",
                address: http.listen.as_str().to_owned(),
                why: why.to_string(),
                file: config.file.clone(),
            })?;
            let router =
                serve::router(Arc::new(Door(self.clone())), Scope::of_listener(address, http.api));
            runtime.spawn(serve::http(listener, router, until_stopped(stopped.clone())));
        }
        Ok(())
    }

    fn start_share(&self, config: &Config, share: &config::Share) -> Result<(), DaemonError> {
        let links = lock(&self.links_up).clone();
        let host = Host::start(setup(config, share), self.common.clone(), links)
            .map_err(DaemonError::system("threads"))?;
        lock(&self.hosts).insert(share.name.clone(), host);
        Ok(())
    }

    fn config(&self) -> Config {
        lock(&self.config).clone()
    }

    /// Returns the shares in the order of the config.
    fn hosts(&self) -> Vec<Arc<Host>> {
        let hosts = lock(&self.hosts);
        let config = lock(&self.config);
        config.shares.iter().filter_map(|share| hosts.get(&share.name).cloned()).collect()
    }

    fn summary(&self) -> String {
        let config = lock(&self.config);
        format!("{} shares, {} peers", config.shares.len(), config.peers.len())
    }

    /// Waits for signals; returns at SIGTERM or SIGINT.
    async fn heed(self: &Arc<Self>, mut signals: Signals) {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.hang_up.recv() => {
                    let node = self.clone();
                    let reloaded = tokio::task::spawn_blocking(move || node.reload_config()).await;
                    match reloaded {
                        Ok(Ok(reloaded)) => tracing::info!(changes = ?reloaded.changes, "the config was read again"),
                        Ok(Err(error)) => tracing::error!("{error}"),
                        Err(error) => tracing::error!(%error, "reading the config failed"),
                    }
                }
            }
        }
    }

    fn stop(&self) {
        let hosts: Vec<_> = lock(&self.hosts).values().cloned().collect();
        for host in &hosts {
            host.stop();
        }
        if let Some(links) = self.links.get() {
            links.stop();
        }
        for host in &hosts {
            host.join();
        }
    }

    fn link_event(self: Arc<Self>, event: LinkEvent) {
        match event {
            LinkEvent::Up { link } => {
                lock(&self.links_up).insert(link.peer().clone(), link.clone());
                for host in lock(&self.hosts).values() {
                    host.link_up(link.clone());
                }
                for lane in [Lane::Live, Lane::Bulk] {
                    self.listen(&link, lane);
                }
            }
            LinkEvent::Down { peer, link, .. } => {
                let mut up = lock(&self.links_up);
                if up.get(&peer).is_some_and(|known| known.id() == link) {
                    up.remove(&peer);
                }
                drop(up);
                for host in lock(&self.hosts).values() {
                    host.link_down(&peer, link);
                }
            }
            LinkEvent::Refused { peer, why, .. } => {
                let problem =
                    Problem { kind: "refused", share: None, peer, path: None, message: why };
                self.common.events.report(self.clock.now(), problem);
            }
        }
    }

    /// Starts the thread that takes a lane's messages to the shares; it lives as long as the link.
    fn listen(self: &Arc<Self>, link: &Link, lane: Lane) {
        let (node, listening) = (self.clone(), link.clone());
        let listen = move || {
            let credit = Credit::new(WAITING_MAX);
            while let Some(message) = listening.receive(lane) {
                let Message::Share { share, body: message } = message else { continue };
                let host = lock(&node.hosts).get(&share).cloned();
                // A share that only the peer has: status shows it there as never opened.
                let Some(host) = host else { continue };
                let (peer, pass) = (listening.peer().clone(), credit.take());
                host.tell(ToShare::Heard { link: listening.id(), peer, lane, message, pass });
            }
        };
        let name = format!("hear-{}", link.peer());
        if let Err(error) = std::thread::Builder::new().name(name).spawn(listen) {
            link.refuse("this node has no thread to hear it with".to_owned());
            tracing::error!(%error, "the kernel refused a thread");
        }
    }

    /// Brings the gauges up to date and feeds the watchdog, until the sender is gone.
    fn gauges(&self, asleep: &Receiver<Infallible>) {
        let watchdog = Watchdog::from_env();
        let mut beats = BTreeMap::new();
        let (mut jobs, mut keeps) = (0, true);
        while let Err(RecvTimeoutError::Timeout) = asleep.recv_timeout(GAUGES) {
            self.refresh_lag();
            // A burst of work is over.
            let worked = std::mem::replace(&mut jobs, self.common.pool.jobs()) != jobs;
            if !worked && keeps {
                sys::return_freed_memory();
            }
            keeps = worked;
            for host in self.hosts() {
                let (beat, seen) = beats
                    .entry(host.name.clone())
                    .or_insert_with(|| (watchdog.watch(host.name.as_str()), 0));
                // A share's loop goes round at least once a second, even with nothing to do;
                // one that has no root to run on is not stuck.
                let batches = host.board.batches();
                if batches != *seen || host.board.get().running.is_none() {
                    *seen = batches;
                    beat.tick();
                }
            }
            if watchdog.interval().is_some() {
                match watchdog.feed() {
                    Ok(stuck) if stuck.is_empty() => {}
                    Ok(stuck) => tracing::error!(?stuck, "no progress"),
                    Err(error) => tracing::warn!(%error, "the watchdog could not be fed"),
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn resolve(
    what: &'static str,
    address: &config::HostPort,
    file: &Path,
) -> Result<SocketAddr, DaemonError> {
    let found = address.as_str().to_socket_addrs().map(|mut found| found.next());
    let why = match found {
        Ok(Some(found)) => return Ok(found),
        Ok(None) => "the name has no address".to_owned(),
        Err(error) => error.to_string(),
    };
    let (address, file) = (address.as_str().to_owned(), file.to_owned());
    Err(DaemonError::Listen { what, address, why, file })
}

fn peer_configs(config: &Config) -> Vec<PeerConfig> {
    let peer = |peer: &config::Peer| PeerConfig {
        name: peer.name.clone(),
        address: peer.address.as_str().to_owned(),
        fingerprints: peer.fingerprints.clone(),
        allow_from: peer.allow_from.clone(),
        bandwidth: config.limits.bandwidth,
    };
    config.peers.iter().map(peer).collect()
}

fn setup(config: &Config, share: &config::Share) -> Setup {
    Setup {
        name: share.name.clone(),
        path: share.path.clone(),
        index: config.node.state_dir.join(format!("{}.index", share.name)),
        settings: engine::Settings {
            node: config.node.name.clone(),
            settle: share.settle,
            max_delete: share.max_delete,
            peers: config.peers.iter().map(|peer| peer.name.clone()).collect(),
            owner: share.owner,
            deletes: share.deletes,
            ignore: share.ignore.clone(),
        },
        scan_interval: share.scan_interval,
        trash: share.trash,
        min_free: share.min_free,
    }
}
