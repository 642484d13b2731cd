//! Keeps one share running: starts it, and starts it again when its root or index fails it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use recsync_proto::{NodeName, ShareName};

use super::accept::{self, AcceptError};
use super::board::{ShareBoard, Stage};
use super::share::{self, Common, End, Setup, ShareError, ToShare};
use crate::engine::{Event, GuardEvent};
use crate::index::IndexError;
use crate::net::Link;
use crate::telemetry::events::Problem;
use crate::telemetry::metrics::PauseReason;
use crate::tree::RootError;

/// Time between two looks whether a lost root is back.
const ROOT_WAIT: Duration = Duration::from_secs(1);
/// Time between two looks whether a full state directory has room again.
const SPACE_WAIT: Duration = Duration::from_secs(2);
/// First and last time between two tries to start after another failure.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// One share of this node, running or not.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: ShareName,
    pub(super) board: Arc<ShareBoard>,
    setup: Mutex<Setup>,
    hub: Mutex<Hub>,
    wake: Mutex<Option<Sender<Accept>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// An operator's word: the root that is there is the share's from now on.
#[derive(Debug)]
struct Accept {
    /// What was wrong with it when the operator looked.
    seen: RootError,
    answer: Sender<Result<(), AcceptError>>,
}

/// Where a share is reached, and which peers it must hear of when it starts.
#[derive(Debug, Default)]
struct Hub {
    inbox: Option<Sender<ToShare>>,
    links: BTreeMap<NodeName, Link>,
    stopping: bool,
}

impl Hub {
    fn tell(&self, what: ToShare) -> bool {
        self.inbox.as_ref().is_some_and(|inbox| inbox.send(what).is_ok())
    }
}

impl Host {
    /// Starts the thread that runs the share.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub(super) fn start(
        setup: Setup,
        common: Common,
        links: BTreeMap<NodeName, Link>,
    ) -> std::io::Result<Arc<Self>> {
        let (wake, sleeping) = channel();
        let host = Arc::new(Host {
            name: setup.name.clone(),
            board: Arc::new(ShareBoard::new()),
            setup: Mutex::new(setup),
            hub: Mutex::new(Hub { links, ..Hub::default() }),
            wake: Mutex::new(Some(wake)),
            thread: Mutex::new(None),
        });
        let runner = host.clone();
        let name = format!("share-{}", host.name);
        let thread =
            std::thread::Builder::new().name(name).spawn(move || runner.run(&common, &sleeping))?;
        *host.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(host)
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn setup(&self) -> Setup {
        self.setup.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands something to the share. False if it is not running: then it is lost, and what it
    /// was about comes up again when the share opens towards the peers.
    pub(super) fn tell(&self, what: ToShare) -> bool {
        self.hub().tell(what)
    }

    /// Tells the share of a link that came up.
    pub(super) fn link_up(&self, link: Link) {
        let mut hub = self.hub();
        hub.links.insert(link.peer().clone(), link.clone());
        hub.tell(ToShare::LinkUp(link));
    }

    /// Tells the share of a link that went down.
    pub(super) fn link_down(&self, peer: &NodeName, link: u64) {
        let mut hub = self.hub();
        if hub.links.get(peer).is_some_and(|known| known.id() == link) {
            hub.links.remove(peer);
        }
        hub.tell(ToShare::LinkDown(peer.clone(), link));
    }

    /// Takes changed settings.
    pub(super) fn reconfigure(&self, setup: Setup) {
        *self.setup.lock().unwrap_or_else(PoisonError::into_inner) = setup.clone();
        self.tell(ToShare::Settings(Box::new(setup)));
    }

    /// Has the share go on with the root that is there, though it is not the one that the index
    /// knows; waits until that is done.
    ///
    /// # Errors
    /// If it cannot be done, or what is there is not what was `seen` any more.
    pub(super) fn accept_root(&self, seen: RootError) -> Result<(), AcceptError> {
        let (answer, answered) = channel();
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = wake.as_ref().is_some_and(|wake| wake.send(Accept { seen, answer }).is_ok());
        drop(wake);
        if !asked {
            return Err(AcceptError::NoAnswer);
        }
        answered.recv_timeout(accept::ANSWER_TIME).unwrap_or(Err(AcceptError::NoAnswer))
    }

    /// Ends the share.
    pub(super) fn stop(&self) {
        {
            let mut hub = self.hub();
            hub.stopping = true;
            if let Some(inbox) = hub.inbox.take()
                && inbox.send(ToShare::Stop).is_err()
            {
                tracing::debug!(share = %self.name, "the share has stopped already");
            }
        }
        self.wake.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Waits for the end after [`Host::stop`].
    pub(super) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(share = %self.name, "the share's thread panicked");
        }
    }

    fn run(&self, common: &Common, sleeping: &Receiver<Accept>) {
        let mut wait = RETRY_MIN;
        let mut lost: Option<RootError> = None;
        // The state directory is, so that the index cannot be written.
        let mut full = false;
        while !self.hub().stopping {
            let result = share::run(&self.setup(), common, &self.board, |inbox| {
                wait = RETRY_MIN;
                if std::mem::take(&mut full) {
                    tracing::info!(share = %self.name, "there is room for the index again: the share goes on");
                    common.metrics.set_paused(&self.name, PauseReason::NoSpace, false);
                    self.board.set_no_space(None);
                }
                if lost.take().is_some() {
                    self.event(common, &Event::Guard(GuardEvent::RootBack));
                }
                self.connect(inbox)
            });
            self.hub().inbox = None;
            let pause = match result {
                Ok(End::Stopped) => break,
                Ok(End::NewRules) => continue,
                Err(ShareError::Root(error)) => {
                    if lost.is_none() {
                        // What was said of an earlier root does not count for this one.
                        sleeping.try_iter().for_each(drop);
                    }
                    if lost.as_ref() != Some(&error) {
                        self.event(common, &Event::Guard(GuardEvent::RootLost(error.clone())));
                        lost = Some(error.clone());
                    }
                    self.board.lost_root(error, common.clock.now().wall_ns);
                    ROOT_WAIT
                }
                Err(ShareError::Index(error @ IndexError::NoSpace { .. })) => {
                    // It may be freed any moment: to look costs nothing.
                    if !full {
                        full = true;
                        self.problem(
                            common,
                            format!("{error}; the share stops until there is some"),
                        );
                        common.metrics.set_paused(&self.name, PauseReason::NoSpace, true);
                    }
                    self.board.set_no_space(Some(error.to_string()));
                    self.board.set_stage(Stage::Failed(error.to_string()));
                    SPACE_WAIT
                }
                Err(error) => {
                    let message = format!("{error}; the share stops, next try in {wait:?}");
                    self.problem(common, message);
                    self.board.set_stage(Stage::Failed(error.to_string()));
                    let pause = wait;
                    wait = (wait * 2).min(RETRY_MAX);
                    pause
                }
            };
            match sleeping.recv_timeout(pause) {
                Ok(accept) => self.accept(lost.as_ref(), &accept),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    fn accept(&self, lost: Option<&RootError>, accept: &Accept) {
        let result = match lost {
            Some(lost) if *lost == accept.seen => accept::accept(&self.setup(), lost),
            _ => Err(AcceptError::Changed),
        };
        if result.is_ok() {
            tracing::warn!(share = %self.name, was = %accept.seen, "an operator accepted this root; the index starts over");
        }
        if accept.answer.send(result).is_err() {
            tracing::warn!(share = %self.name, "the operator did not wait for the answer");
        }
    }

    fn connect(&self, inbox: Sender<ToShare>) -> Vec<Link> {
        let mut hub = self.hub();
        if hub.stopping && inbox.send(ToShare::Stop).is_err() {
            tracing::debug!(share = %self.name, "the share has stopped already");
        }
        // What was reconfigured while the share was starting could not be told: before any link.
        if inbox.send(ToShare::Settings(Box::new(self.setup()))).is_err() {
            tracing::debug!(share = %self.name, "the share has stopped already");
        }
        hub.inbox = Some(inbox);
        hub.links.values().cloned().collect()
    }

    fn event(&self, common: &Common, event: &Event) {
        common.metrics.record(&self.name, event);
        common.events.record(common.clock.now(), &self.name, event);
    }

    fn problem(&self, common: &Common, message: String) {
        let share = Some(self.name.clone());
        let problem = Problem { kind: "share", share, peer: None, path: None, message };
        common.events.report(common.clock.now(), problem);
    }
}
