//! One lane of one share on one link: announcements, answers and the rest, in order.
//!
//! A thread of its own, because reading files and waiting for room on the link are not the share
//! loop's business, and because order within a lane matters. It lives as long as the link, so
//! nothing of an old link is ever said on a new one.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use recsync_proto::message::{Announcement, Bytes, Lane, ShareMessage};
use recsync_proto::{Message, SharePath};

use super::site::Site;
use crate::engine::{Announce, Hint, Noticed};
use crate::net::{Link, SendError};
use crate::sys::{self, mark};
use crate::transfer::{self, Outlines};
use crate::verify::{self, VerifyError};

/// Entries that may wait in a lane when a peer asks for yet more bytes.
const REQUESTS_MAX: usize = 4_096;
/// Announcements travel together up to this many, and this many bytes.
const TOGETHER_MAX: usize = 64;
const TOGETHER_BYTES: usize = 256 << 10;

/// What goes down a lane.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A record, with its bytes read now.
    Announce(Box<Announce>),
    /// A message as it is.
    Say(ShareMessage),
    /// The answer to a `GetOutline`, a `GetBlocks`, or a `GetDigests` about one name.
    Answer(ShareMessage),
}

/// The sending end of a lane's thread.
#[derive(Debug)]
pub(super) struct LaneThread {
    queue: Sender<Outgoing>,
    waiting: Arc<AtomicUsize>,
    link: Link,
    thread: JoinHandle<()>,
}

impl LaneThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub(super) fn start(
        site: Arc<Site>,
        link: Link,
        outlines: Arc<Outlines>,
        lane: Lane,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let worker = Worker { site, link: link.clone(), outlines, lane, waiting: waiting.clone() };
        let name =
            format!("{}-{}", if lane == Lane::Live { "live" } else { "bulk" }, worker.link.peer());
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            if lane == Lane::Bulk {
                sys::step_back();
            }
            worker.run(&jobs);
        })?;
        Ok(LaneThread { queue, waiting, link, thread })
    }

    /// Queues something; lost if the thread has ended, as the share or the link has then.
    pub(super) fn push(&self, what: Outgoing) {
        let is_request = matches!(what, Outgoing::Answer(_));
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        // A peer that keeps to the protocol has only few requests under way.
        if is_request && waiting > REQUESTS_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.link.refuse("it asks for more than it may have under way".to_owned());
        } else if self.queue.send(what).is_err() {
            tracing::debug!("a lane of a stopping share takes nothing more");
        }
    }

    /// Has the thread end: at once if the share stops or the link is down. What waits is dropped.
    pub(super) fn stop(self) -> JoinHandle<()> {
        self.thread
    }
}

struct Worker {
    site: Arc<Site>,
    link: Link,
    outlines: Arc<Outlines>,
    lane: Lane,
    waiting: Arc<AtomicUsize>,
}

impl Worker {
    fn run(&self, jobs: &Receiver<Outgoing>) {
        while let Ok(first) = jobs.recv() {
            let mut next = Some(first);
            // Announcements that wait together travel together.
            let mut together = Vec::new();
            let mut bytes = 0;
            while let Some(what) = next.take() {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                if self.site.is_stopping() {
                    return;
                }
                match what {
                    Outgoing::Announce(announce) => {
                        let one = self.announcement(*announce);
                        bytes += one.inline.as_ref().map_or(256, |inline| inline.0.len() + 256);
                        together.push(one);
                        if bytes < TOGETHER_BYTES && together.len() < TOGETHER_MAX {
                            next = jobs.try_recv().ok();
                        }
                    }
                    Outgoing::Say(body) => {
                        self.say_all(&mut together);
                        self.say(body);
                    }
                    Outgoing::Answer(question) => {
                        self.say_all(&mut together);
                        self.answer(&question);
                    }
                }
            }
            self.say_all(&mut together);
        }
    }

    fn say_all(&self, together: &mut Vec<Announcement>) {
        if !together.is_empty() {
            self.say(ShareMessage::Announce(std::mem::take(together)));
        }
    }

    /// False if the link is down.
    fn say(&self, body: ShareMessage) -> bool {
        mark_said(&body);
        let message = Message::Share { share: self.site.name.clone(), body };
        let sent = self.link.send(self.lane, &message);
        match &sent {
            Ok(()) => {}
            Err(SendError::Codec(error)) => {
                tracing::error!(share = %self.site.name, peer = %self.link.peer(), %error, "a message cannot be encoded");
            }
            // The link is down: the log and the index know what is still to be said.
            Err(error) => tracing::trace!(peer = %self.link.peer(), %error, "not sent"),
        }
        sent.is_ok()
    }

    fn announcement(&self, announce: Announce) -> Announcement {
        let Announce { seq, path, record, inline, moved_from, .. } = announce;
        let inline = inline.and_then(|installed| {
            let bytes = transfer::read_inline(&*self.site.tree, &path, &installed);
            if bytes.is_none() {
                self.look_again(path.clone());
            }
            bytes
        });
        Announcement { seq, path, record, inline: inline.map(Bytes), moved_from }
    }

    fn answer(&self, question: &ShareMessage) {
        if let ShareMessage::GetDigests { id, dir, after } = question {
            return self.tell_of(*id, dir, after);
        }
        let mut send = |body: ShareMessage| {
            if self.say(body) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let served = self.site.readers.with(|reader| {
            Ok(transfer::serve(&*self.site.tree, reader, &self.outlines, question, &mut send))
        });
        match served {
            Ok(None) => {}
            Ok(Some(path)) => self.look_again(path),
            Err(error) => {
                tracing::warn!(share = %self.site.name, %error, "cannot serve a file");
            }
        }
    }

    /// Answers what is there under a name of a directory.
    fn tell_of(&self, id: u32, dir: &[u8], name: &[u8]) {
        let above = if dir.is_empty() { Ok(SharePath::root()) } else { SharePath::new(dir) };
        let seen = match above.and_then(|above| above.join(name)) {
            // No name of a share.
            Err(_) => Ok(None),
            Ok(path) => self
                .site
                .readers
                .with(|reader| Ok(verify::look_at(&*self.site.tree, reader, path)))
                .map_err(VerifyError::from)
                .and_then(|seen| seen),
        };
        match seen {
            Ok(entry) => {
                let (dir, entries) = (dir.to_vec(), entry.into_iter().collect());
                self.say(ShareMessage::Digests { id, dir, entries, more: false });
            }
            Err(error) => {
                tracing::warn!(share = %self.site.name, %error, "cannot tell a peer of a path");
            }
        }
    }

    fn look_again(&self, path: SharePath) {
        self.site.dirty(path, Hint::Written, Noticed::Scan);
    }
}

/// Tells a tracer what is said, before it is on its way.
fn mark_said(body: &ShareMessage) {
    match body {
        ShareMessage::Announce(announcements) => {
            for Announcement { seq, path, .. } in announcements {
                mark(|| format!("announce {} {path}", seq.0));
            }
        }
        ShareMessage::Acks(acks) => {
            for ack in acks {
                mark(|| format!("ack {} {:?}", ack.seq.0, ack.state));
            }
        }
        _ => {}
    }
}
