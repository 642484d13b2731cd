//! What the threads of one share have in common.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recsync_proto::message::Lane;
use recsync_proto::{Message, NodeName, ShareName, SharePath};

use super::commits::{Commits, Kept};
use super::gate::Gate;
use super::share::ToShare;
use crate::config::MinFree;
use crate::engine::{Hint, Input, Noticed};
use crate::index::{Backlog, IndexError, IndexRead as _, Reader, Store};
use crate::net::{Link, SendError};
use crate::observe::Synced;
use crate::sys::Clock;
use crate::tree::Disk;

/// Room for a thread that syncs a directory.
const STACK_LEN: usize = 256 << 10;

/// One run of one share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) name: ShareName,
    pub(super) tree: Arc<Disk>,
    pub(super) clock: Clock,
    pub(super) readers: Readers,
    pub(super) gate: Gate,
    pub(super) commits: Commits,
    pub(super) synced: Synced,
    backlogs: Mutex<Kept<Vec<(NodeName, Backlog)>>>,
    settle_ns: AtomicU64,
    trash_ns: AtomicU64,
    min_free: Mutex<MinFree>,
    inbox: Sender<ToShare>,
    links: Mutex<BTreeMap<NodeName, Link>>,
    stopping: AtomicBool,
}

impl Site {
    pub(super) fn new(
        name: ShareName,
        tree: Arc<Disk>,
        clock: Clock,
        readers: Readers,
        settle: Duration,
        inbox: Sender<ToShare>,
    ) -> Self {
        let site = Site {
            name,
            tree,
            clock,
            readers,
            gate: Gate::default(),
            commits: Commits::default(),
            synced: Synced::new(at_once),
            backlogs: Mutex::new(Kept::default()),
            settle_ns: AtomicU64::new(0),
            trash_ns: AtomicU64::new(0),
            min_free: Mutex::new(MinFree::Percent(0)),
            inbox,
            links: Mutex::new(BTreeMap::new()),
            stopping: AtomicBool::new(false),
        };
        site.set_settle(settle);
        site
    }

    /// Hands something to the share's loop; lost if the loop has ended, as all of its work is.
    pub(super) fn tell(&self, what: ToShare) {
        if self.inbox.send(what).is_err() {
            self.stopping.store(true, Ordering::Relaxed);
        }
    }

    /// Hands an input to the engine: of a new change, or of the backlog.
    pub(super) fn input(&self, lane: Lane, input: Input) {
        self.tell(ToShare::Input(lane, input));
    }

    /// Tells the engine of a path that may have changed.
    pub(super) fn dirty(&self, path: SharePath, hint: Hint, noticed: Noticed) {
        self.input(noticed.lane(), Input::Dirty { path, hint, noticed });
    }

    /// Notes the link in use to a peer, or that there is none.
    pub(super) fn set_link(&self, peer: &NodeName, link: Option<Link>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        match link {
            Some(link) => links.insert(peer.clone(), link),
            None => links.remove(peer),
        };
    }

    /// Says something to a peer on the link in use, if there is one; waits for room.
    /// False if it was not sent; if it was, and the link goes down, that is told afterwards.
    #[must_use = "whoever waits for an answer would wait for ever"]
    pub(super) fn say(&self, peer: &NodeName, lane: Lane, message: &Message) -> bool {
        is_sent(peer, self.link(peer).map(|link| link.send(lane, message)))
    }

    /// Says something small to a peer, as [`Site::say`], and does not wait for room.
    #[must_use = "whoever waits for an answer would wait for ever"]
    pub(super) fn post(&self, peer: &NodeName, lane: Lane, message: &Message) -> bool {
        is_sent(peer, self.link(peer).map(|link| link.post(lane, message)))
    }

    fn link(&self, peer: &NodeName) -> Option<Link> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    /// Returns what each peer lacks.
    ///
    /// # Errors
    /// If the index does not answer.
    pub(super) fn backlogs(
        &self,
        peers: &[NodeName],
    ) -> Result<Vec<(NodeName, Backlog)>, IndexError> {
        let read = || {
            self.readers.with(|reader| {
                peers.iter().map(|peer| Ok((peer.clone(), reader.backlog(peer)?))).collect()
            })
        };
        let mut kept = self.backlogs.lock().unwrap_or_else(PoisonError::into_inner);
        let backlogs = kept.get(&self.commits, read)?;
        if backlogs.iter().map(|(peer, _)| peer).eq(peers) {
            return Ok(backlogs);
        }
        kept.forget();
        kept.get(&self.commits, read)
    }

    /// How long a path must be quiet.
    pub(super) fn settle(&self) -> Duration {
        Duration::from_nanos(self.settle_ns.load(Ordering::Relaxed))
    }

    pub(super) fn set_settle(&self, settle: Duration) {
        self.settle_ns.store(nanos(settle), Ordering::Relaxed);
    }

    /// How long what peers remove is kept.
    pub(super) fn trash(&self) -> Duration {
        Duration::from_nanos(self.trash_ns.load(Ordering::Relaxed))
    }

    /// How much of the disk is left to others.
    pub(super) fn min_free(&self) -> MinFree {
        *self.min_free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_min_free(&self, min_free: MinFree) {
        *self.min_free.lock().unwrap_or_else(PoisonError::into_inner) = min_free;
    }

    pub(super) fn set_trash(&self, kept: Duration) {
        self.trash_ns.store(nanos(kept), Ordering::Relaxed);
    }

    /// Has all of the share's threads end soon.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.gate.stop();
        self.commits.stop();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

fn is_sent(peer: &NodeName, sent: Option<Result<(), SendError>>) -> bool {
    let is_sent = matches!(sent, Some(Ok(())));
    if !is_sent {
        tracing::trace!(%peer, ?sent, "not sent");
    }
    is_sent
}

/// Does two things at the same time; in turn if the kernel refuses a thread.
fn at_once(one: &mut (dyn FnMut() + Send), other: &mut dyn FnMut()) {
    let one = Mutex::new(one);
    let do_one = || (*one.lock().unwrap_or_else(PoisonError::into_inner))();
    std::thread::scope(|scope| {
        let beside =
            std::thread::Builder::new().stack_size(STACK_LEN).spawn_scoped(scope, do_one).is_ok();
        other();
        if !beside {
            do_one();
        }
    });
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Read-only connections to the index, one for each thread that reads at the same time.
#[derive(Debug)]
pub(super) struct Readers {
    path: std::path::PathBuf,
    idle: Mutex<Vec<Reader>>,
}

impl Readers {
    pub(super) fn new(store: &Store) -> Self {
        Readers { path: store.path().to_owned(), idle: Mutex::new(Vec::new()) }
    }

    /// Runs something with a reader that no other thread has.
    pub(super) fn with<R>(
        &self,
        read: impl FnOnce(&Reader) -> Result<R, IndexError>,
    ) -> Result<R, IndexError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => Reader::open(&self.path)?,
        };
        let result = read(&reader);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        result
    }
}
