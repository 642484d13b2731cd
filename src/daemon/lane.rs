//! One lane of one share towards one peer: announcements, answers and the rest, in order.
//!
//! A thread of its own, because reading files and waiting for room on the link are not the share
//! loop's business, and because order within a lane matters.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use recsync_proto::message::{Announcement, FileRef, Lane, ShareMessage};
use recsync_proto::{Message, NodeName};

use super::site::Site;
use crate::engine::{Announce, Hint, Input, Noticed};
use crate::net::Links;
use crate::transfer::{self, Outlines};

/// What goes down a lane.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A record, with its bytes read now.
    Announce(Announce),
    /// A message as it is.
    Say(ShareMessage),
    /// The answer to a request for block hashes.
    Outline { id: u32, file: FileRef, first: u32, count: u32 },
    /// The answer to a request for blocks.
    Blocks { id: u32, file: FileRef, first: u32, count: u32 },
}

/// The sending end of a lane's thread.
#[derive(Debug)]
pub(super) struct LaneThread {
    queue: Sender<Outgoing>,
    thread: JoinHandle<()>,
}

impl LaneThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub(super) fn start(
        site: Arc<Site>,
        links: Arc<Links>,
        outlines: Arc<Outlines>,
        peer: NodeName,
        lane: Lane,
    ) -> std::io::Result<Self> {
        let (queue, waiting) = channel();
        let worker = Worker { site, links, outlines, peer, lane };
        let name = format!("{}-{}", if lane == Lane::Live { "live" } else { "bulk" }, worker.peer);
        let thread =
            std::thread::Builder::new().name(name).spawn(move || worker.run(&waiting))?;
        Ok(LaneThread { queue, thread })
    }

    /// Queues something; lost if the thread has ended, which it does only when the share stops.
    pub(super) fn push(&self, what: Outgoing) {
        if self.queue.send(what).is_err() {
            tracing::debug!("a lane of a stopping share takes nothing more");
        }
    }

    /// Ends the thread; what waits is dropped.
    pub(super) fn stop(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("a lane's thread panicked");
        }
    }
}

struct Worker {
    site: Arc<Site>,
    links: Arc<Links>,
    outlines: Arc<Outlines>,
    peer: NodeName,
    lane: Lane,
}

impl Worker {
    fn run(&self, waiting: &Receiver<Outgoing>) {
        while let Ok(first) = waiting.recv() {
            let mut next = Some(first);
            // Announcements that wait together travel together.
            let mut together = Vec::new();
            let mut bytes = 0;
            while let Some(what) = next.take() {
                if self.site.is_stopping() {
                    return;
                }
                match what {
                    Outgoing::Announce(announce) => {
                        let one = self.announcement(announce);
                        bytes += one.inline.as_ref().map_or(256, |inline| inline.len() + 256);
                        together.push(one);
                        if bytes < transfer::ANNOUNCE_TOGETHER && together.len() < 64 {
                            next = waiting.try_recv().ok();
                        }
                    }
                    other => {
                        self.say_all(&mut together);
                        self.answer(other);
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

    fn say(&self, body: ShareMessage) {
        let message = Message::Share { share: self.site.name.clone(), body };
        if let Err(error) = self.links.send(&self.peer, self.lane, message) {
            // The link is down: the log and the index know what is still to be said.
            tracing::trace!(peer = %self.peer, %error, "not sent");
        }
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
        Announcement { seq, path, record, inline, moved_from }
    }

    fn answer(&self, what: Outgoing) {
        let tree = &*self.site.tree;
        let mut send = |body| self.say(body);
        let (path, answered) = match what {
            Outgoing::Say(body) => return self.say(body),
            Outgoing::Announce(_) => return,
            Outgoing::Outline { id, file, first, count } => {
                let answered = self.site.readers.with(|reader| {
                    transfer::serve_outline(tree, reader, &self.outlines, id, &file, first, count, &mut send)
                });
                (file.path, answered)
            }
            Outgoing::Blocks { id, file, first, count } => {
                let answered = self.site.readers.with(|reader| {
                    transfer::serve_blocks(tree, reader, id, &file, first, count, &mut send)
                });
                (file.path, answered)
            }
        };
        match answered {
            Ok(true) => {}
            // Gone: if the file is another one now, the look will tell the peer.
            Ok(false) => self.look_again(path),
            Err(error) => tracing::warn!(%path, %error, "cannot serve a file"),
        }
    }

    fn look_again(&self, path: recsync_proto::SharePath) {
        let noticed = Noticed::Scan;
        self.site.input(Input::Dirty { path, hint: Hint::Written, noticed });
    }
}
