//! Verification at a running share: answers peers' questions for digests, and asks them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use recsync_proto::message::{DigestKind, Lane, ONE_NAME, ShareMessage};
use recsync_proto::{Message, NodeName, SharePath};

use super::site::Site;
use crate::index::{IndexError, IndexRead as _};
use crate::sys;
use crate::verify::{
    Comparison, Difference, DifferenceKind, Digests, Far, Page, VerifyError, compare, recheck,
};

/// Walks kept for questions to come, the newest.
const WALKS_KEPT: usize = 4;
/// How long a peer may take for its walk and its first answer.
const ANSWER_WAIT: Duration = Duration::from_secs(300);
/// Time between two looks at what still differs, at first and at most.
const ROUND_MIN: Duration = Duration::from_millis(100);
const ROUND_MAX: Duration = Duration::from_secs(2);
/// Looks at what is in flight on the other side before it is let be: an open recording may be
/// in flight for an hour.
const IN_FLIGHT_ROUNDS: u32 = 8;
/// Looks at what differs although the peer acknowledged it.
const SETTLED_ROUNDS: u32 = 6;

/// One share's verification.
#[derive(Debug)]
pub(super) struct Desk {
    site: Arc<Site>,
    questions: Mutex<Option<Sender<Question>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Where the answers to our questions go.
    waiting: Mutex<BTreeMap<u32, (NodeName, Sender<Answer>)>>,
    next_id: AtomicU32,
}

#[derive(Debug)]
struct Question {
    peer: NodeName,
    id: u32,
    dir: Vec<u8>,
    after: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    dir: Vec<u8>,
    page: Page,
}

/// What a comparison with one peer found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// Regular files here.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Paths that were still being written or on their way.
    pub(super) in_flight: u64,
    /// What differs for good.
    pub(super) differences: Vec<Difference>,
}

impl Desk {
    /// Starts the thread that answers.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub(super) fn start(site: Arc<Site>) -> std::io::Result<Arc<Self>> {
        let (questions, waiting) = channel();
        let desk = Arc::new(Desk {
            site,
            questions: Mutex::new(Some(questions)),
            thread: Mutex::new(None),
            waiting: Mutex::new(BTreeMap::new()),
            next_id: AtomicU32::new(1),
        });
        let name = format!("verify-{}", desk.site.name);
        let worker = desk.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            sys::step_back();
            worker.answer_all(&waiting);
        })?;
        *desk.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(desk)
    }

    /// Ends the thread, and every comparison under way.
    pub(super) fn stop(&self) {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the verification thread panicked");
        }
    }

    /// Takes a peer's question, or its answer to one of ours.
    pub(super) fn take(&self, peer: NodeName, message: ShareMessage) {
        match message {
            ShareMessage::GetDigests { id, dir, after } => {
                let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
                let question = Question { peer, id, dir, after };
                if questions.as_ref().is_none_or(|queue| queue.send(question).is_err()) {
                    tracing::debug!("a stopping share answers no questions");
                }
            }
            ShareMessage::Digests { id, dir, entries, more } => {
                let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = Answer { dir, page: Page { entries, more } };
                let asker = waiting.get(&id).filter(|(asked, _)| *asked == peer);
                if asker.is_none_or(|(_, asker)| asker.send(answer).is_err()) {
                    tracing::debug!(%peer, id, "an answer to nobody's question");
                }
            }
            _ => {}
        }
    }

    /// Ends the comparisons with a peer whose link is down.
    pub(super) fn peer_down(&self, peer: &NodeName) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (asked, _)| asked != peer);
    }

    fn answer_all(&self, questions: &Receiver<Question>) {
        let mut walks: Vec<((NodeName, u32), Digests)> = Vec::new();
        while let Ok(Question { peer, id, dir, after }) = questions.recv() {
            if self.site.is_stopping() {
                return;
            }
            let key = (peer.clone(), id);
            let page = self.site.readers.with(|reader| {
                if !walks.iter().any(|(known, _)| *known == key) {
                    walks.truncate(WALKS_KEPT - 1);
                    match Digests::walk(&*self.site.tree, reader) {
                        Ok(walk) => walks.insert(0, (key.clone(), walk)),
                        Err(error) => return Ok(Err(error)),
                    }
                }
                let path = match dir.as_slice() {
                    [] => SharePath::root(),
                    bytes => match SharePath::new(bytes) {
                        Ok(path) => path,
                        Err(_) => return Ok(Ok(Page::default())),
                    },
                };
                let walk = walks.iter().find(|(known, _)| *known == key);
                let walk = walk.map(|(_, walk)| walk);
                Ok(walk.map_or(Ok(Page::default()), |walk| {
                    walk.page(&*self.site.tree, reader, &path, &after)
                }))
            });
            match flatten(page) {
                Ok(Page { entries, more }) => {
                    if !self.say(&peer, ShareMessage::Digests { id, dir, entries, more }) {
                        tracing::debug!(%peer, "a verification ends with its link");
                    }
                }
                Err(error) => tracing::warn!(%peer, %error, "cannot answer a verification"),
            }
        }
    }

    fn say(&self, peer: &NodeName, body: ShareMessage) -> bool {
        let message = Message::Share { share: self.site.name.clone(), body };
        self.site.say(peer, Lane::Bulk, &message)
    }

    /// Asks a peer what it has at a path now; none if nothing is there. Blocks for `patience` at most.
    ///
    /// # Errors
    /// If the peer does not answer in that time: why, for a person.
    pub(super) fn ask(
        &self,
        peer: &NodeName,
        path: &SharePath,
        patience: Duration,
    ) -> Result<Option<DigestKind>, &'static str> {
        let id = ONE_NAME | self.next_id.fetch_add(1, Ordering::Relaxed);
        let waiting = || self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (asker, answers) = channel();
        waiting().insert(id, (peer.clone(), asker));
        let (dir, name) = (path.parent().as_bytes().to_vec(), path.name().to_vec());
        let body = ShareMessage::GetDigests { id, dir, after: name.clone() };
        let question = Message::Share { share: self.site.name.clone(), body };
        let answer = if self.site.post(peer, Lane::Live, &question) {
            answers.recv_timeout(patience)
        } else {
            Err(RecvTimeoutError::Disconnected)
        };
        waiting().remove(&id);
        match answer {
            Ok(Answer { page, .. }) => {
                let mut entries = page.entries.into_iter();
                Ok(entries.find(|entry| entry.name == name).map(|entry| entry.kind))
            }
            Err(RecvTimeoutError::Timeout) => Err("it does not say what it has there"),
            Err(RecvTimeoutError::Disconnected) => Err("the link to it went down just now"),
        }
    }

    /// Compares this share with a peer's, and waits up to `timeout` for what is on its way.
    /// Blocks.
    ///
    /// # Errors
    /// If the peer does not answer or this side cannot be read.
    pub(super) fn check(&self, peer: &NodeName, timeout: Duration) -> Result<Check, VerifyError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) % ONE_NAME;
        let (asker, answers) = channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, (peer.clone(), asker));
        let mut far = Asker { desk: self, peer, id, answers: &answers };
        let result = self.compare(&mut far, peer, timeout);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        result
    }

    fn compare(
        &self,
        far: &mut Asker<'_>,
        peer: &NodeName,
        timeout: Duration,
    ) -> Result<Check, VerifyError> {
        let clock = self.site.clock;
        let deadline = clock.now().mono + timeout;
        // Both sides walk at the same time.
        far.ask(&SharePath::root(), &[]);
        let tree = &*self.site.tree;
        let digests = flatten(self.site.readers.with(|reader| Ok(Digests::walk(tree, reader))))?;
        far.wait(&[])?;
        let (files, bytes) = digests.totals();
        let with_index = |far: &mut Asker<'_>, suspects: Option<&[Difference]>| {
            flatten(self.site.readers.with(|index| {
                let near = Comparison { tree, index, digests: &digests };
                Ok(match suspects {
                    None => compare(&near, far),
                    Some(suspects) => recheck(&near, far, suspects),
                })
            }))
        };
        let mut suspects = with_index(far, None)?;
        let mut wait = ROUND_MIN;
        let mut round = 0;
        loop {
            let (in_flight, rest): (Vec<_>, Vec<_>) =
                suspects.iter().cloned().partition(Difference::is_in_flight);
            let under_way = self.count_under_way(peer, &rest)?;
            let now = clock.now().mono;
            let settled = (in_flight.is_empty() || round >= IN_FLIGHT_ROUNDS)
                && (rest.is_empty() || under_way == 0 && round >= SETTLED_ROUNDS);
            if settled || now >= deadline {
                let in_flight = in_flight.len() as u64;
                return Ok(Check { files, bytes, in_flight, differences: rest });
            }
            far.rest(wait.min(deadline - now))?;
            wait = (wait * 2).min(ROUND_MAX);
            round += 1;
            suspects = with_index(far, Some(&suspects))?;
        }
    }

    /// Returns how many of these paths are still on their way, as far as this node knows: to be
    /// installed here, or not yet acknowledged by the peer.
    fn count_under_way(
        &self,
        peer: &NodeName,
        suspects: &[Difference],
    ) -> Result<usize, VerifyError> {
        let counted = self.site.readers.with(|index| {
            let acked = index.peer(peer)?.acked;
            let mut count = 0;
            for one in suspects {
                // What the peer alone has may be news that has not come yet.
                let Some(entry) = index.entry(&one.path)? else {
                    count += usize::from(one.kind == DifferenceKind::MissingHere);
                    continue;
                };
                let told = entry.seq <= acked
                    || entry.via.as_ref() == Some(peer)
                    || index.is_acked(peer, entry.seq)?;
                count += usize::from(entry.pending || !told);
            }
            Ok(count)
        });
        counted.map_err(|error| VerifyError::Here(error.to_string()))
    }
}

fn flatten<R>(result: Result<Result<R, VerifyError>, IndexError>) -> Result<R, VerifyError> {
    result.unwrap_or_else(|error| Err(VerifyError::Here(error.to_string())))
}

/// Asks a peer for pages.
struct Asker<'a> {
    desk: &'a Desk,
    peer: &'a NodeName,
    id: u32,
    answers: &'a Receiver<Answer>,
}

impl Asker<'_> {
    fn ask(&self, dir: &SharePath, after: &[u8]) {
        let (dir, after) = (dir.as_bytes().to_vec(), after.to_vec());
        if !self.desk.say(self.peer, ShareMessage::GetDigests { id: self.id, dir, after }) {
            // The word that the link is down may have come before the question.
            self.desk.peer_down(self.peer);
        }
    }

    fn wait(&self, dir: &[u8]) -> Result<Page, VerifyError> {
        let there = |why: &str| VerifyError::There(format!("{}: {why}", self.peer));
        loop {
            match self.answers.recv_timeout(ANSWER_WAIT) {
                Ok(answer) if answer.dir == dir => return Ok(answer.page),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(there("no answer in five minutes")),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(there("the link or the share went down meanwhile"));
                }
            }
        }
    }

    /// Waits between two rounds, unless the share stops.
    fn rest(&self, time: Duration) -> Result<(), VerifyError> {
        match self.answers.recv_timeout(time) {
            Ok(_) | Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                Err(VerifyError::Here("the share was stopped meanwhile".to_owned()))
            }
        }
    }
}

impl Far for Asker<'_> {
    fn page(&mut self, dir: &SharePath, after: &[u8]) -> Result<Page, VerifyError> {
        self.ask(dir, after);
        let page = self.wait(dir.as_bytes())?;
        // Names that do not go on from where they were asked for would never end.
        let first = page.entries.first().map(|entry| entry.name.as_slice());
        if first.is_some_and(|first| first <= after)
            || !page.entries.is_sorted_by(|a, b| a.name < b.name)
        {
            let why = format!("{}: its answer for {dir} is out of order", self.peer);
            return Err(VerifyError::There(why));
        }
        Ok(page)
    }
}
