//! `recsync wait`: until a file, as it is now, is durable on peers.
//!
//! The file is looked at first, then the index: if that has the very stat for what is installed, it knows of all that was
//! written until then, and it is durable here. That a peer has it is known once it was told (it acknowledged that position of
//! the log, or the record came from it), and has said what it has there: an acknowledgement speaks of a moment that is past,
//! and of a merged record. A peer that is away is taken at its word.
//!
//! A version that loses its name to a peer's meanwhile is followed to its conflict copy.
//!
//! **Invariant:** a peer is told to have what it said to have, or acknowledged as durable before it went away.
//! **May not:** hold a thread, but for a peer's answer: whoever asked may be gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recsync_proto::message::DigestKind;
use recsync_proto::{Content, NodeName, Seq, SharePath};
use tokio::time::{sleep, timeout};

use super::board::Running;
use super::conflicts::hash_of;
use super::host::Host;
use super::service::{on_thread, unready};
use super::trash::read;
use super::{Node, lock};
use crate::engine::{conflict, version};
use crate::index::{Entry, IndexRead as _, Installed};
use crate::serve::api::{Waited, WaitedPeer};
use crate::serve::{CommandError, Wait, Whereabouts};
use crate::tree::{Kind, Place, Tree as _, TreeError};

/// Time between two looks, however much is committed.
const LOOKS_APART: Duration = Duration::from_millis(20);
/// Time between two looks where nothing here tells when there is something new: at what a peer has, and at a share that
/// does not run.
const QUESTIONS_APART: Duration = Duration::from_millis(250);
/// Time for a peer's answer, at most and at least: however short the time is, what is so now can be told.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
const ANSWER_WAIT_MIN: Duration = Duration::from_millis(300);
/// A wait without end.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// What is waited for, and what was seen of it.
#[derive(Debug, Clone)]
struct Sought {
    path: SharePath,
    /// The version that was there, and the names of the copy that it is kept as if it loses the name.
    version: Option<(Content, [SharePath; 2])>,
    looked: bool,
}

/// What a look found.
struct Seen {
    sought: Sought,
    waited: Waited,
    /// Nothing here tells when that changes.
    unheard: bool,
}

impl Node {
    /// Waits. Dropped if the one who asked hangs up.
    pub(super) async fn wait(self: Arc<Self>, wait: Wait) -> Result<Waited, CommandError> {
        let Ok(_room) = self.waits.try_acquire() else {
            let why = "too many wait already; ask again, or for several files one after the other";
            return Err(CommandError::Refused(why.to_owned()));
        };
        let deadline = self.clock.now().mono + wait.timeout.min(YEAR);
        let (node, named) = (self.clone(), wait.path);
        let (host, path) = on_thread(move || node.locate(None, &named)).await?;
        let share = host.name.clone();
        let mut sought = Sought { path, version: None, looked: false };
        loop {
            if self.stopping.load(Ordering::Relaxed) {
                return Err(CommandError::Refused("the daemon is stopping".to_owned()));
            }
            // The config may have changed.
            let host = self.host(&share)?;
            let left = deadline.saturating_sub(self.clock.now().mono);
            let running = host.board.get().running.filter(|it| !it.site.is_stopping());
            let changes = running.as_ref().map(|running| running.site.commits.changes());
            let seen = match running {
                Some(running) => {
                    let (node, at, before) = (self.clone(), wait.at.clone(), sought.clone());
                    let patience = left.clamp(ANSWER_WAIT_MIN, ANSWER_WAIT);
                    let look = move || {
                        Look { node: &node, host: &host, running, patience }.at(before, &at)
                    };
                    on_thread(look).await?
                }
                None => {
                    let why =
                        unready(&host).unwrap_or_else(|| "the share is being stopped".to_owned());
                    let waited = Waited { why: Some(why), ..unknown(&host, &sought.path) };
                    Seen { sought, waited, unheard: true }
                }
            };
            sought = seen.sought;
            let left = deadline.saturating_sub(self.clock.now().mono);
            if seen.waited.durable || left.is_zero() {
                return Ok(seen.waited);
            }
            sleep(LOOKS_APART.min(left)).await;
            let until = if seen.unheard { QUESTIONS_APART.min(left) } else { left };
            match changes {
                // With news or without, it is looked at again.
                Some(mut changes) => drop(timeout(until, changes.changed()).await),
                None => sleep(until).await,
            }
        }
    }
}

fn unknown(host: &Host, path: &SharePath) -> Waited {
    Waited {
        share: host.name.to_string(),
        path: path.to_string(),
        durable: false,
        size: None,
        hash: None,
        why: None,
        peers: Vec::new(),
    }
}

/// How a file is on this node.
enum Here {
    /// Synced and noted as it is.
    Durable(Box<Entry>, Installed),
    /// A peer's version is about to take its place.
    Outdated(Box<Entry>),
    /// Changed since it was noted, or never noted.
    Changed,
    Gone,
}

/// One look.
struct Look<'a> {
    node: &'a Node,
    host: &'a Host,
    running: Running,
    /// Time for a peer's answer.
    patience: Duration,
}

impl Look<'_> {
    fn at(&self, mut sought: Sought, at: &Whereabouts) -> Result<Seen, CommandError> {
        let kept = self.follow(&mut sought)?;
        let path = &sought.path;
        let mut waited = unknown(self.host, path);
        let first = !std::mem::replace(&mut sought.looked, true);
        let here = self.here(path)?;
        let why = match here {
            _ if !kept => {
                "it lost its name to a peer's version, and its conflict copy is not there yet"
            }
            Here::Durable(entry, installed) => {
                sought.version = version_of(path, &entry);
                return self.on_peers(sought, waited, at, &entry, &installed);
            }
            Here::Outdated(entry) => {
                sought.version = version_of(path, &entry);
                "a newer version of a peer's is about to take its place"
            }
            Here::Changed => {
                "somebody has it open for writing, or it has not been looked at since its last change"
            }
            Here::Gone if first => {
                let share = &self.host.name;
                let why = format!("{path}: there is no such file in {share}");
                return Err(CommandError::Unknown(why));
            }
            Here::Gone => "it is gone",
        };
        waited.why = Some(why.to_owned());
        Ok(Seen { sought, waited, unheard: !kept })
    }

    /// Tells where a file that is durable here is durable too.
    fn on_peers(
        &self,
        sought: Sought,
        mut waited: Waited,
        at: &Whereabouts,
        entry: &Entry,
        installed: &Installed,
    ) -> Result<Seen, CommandError> {
        let path = &sought.path;
        waited.size = Some(installed.content.size());
        waited.hash = hash_of(installed);
        let peers = self.node.peers_of(match at {
            Whereabouts::Peer(peer) => Some(peer),
            Whereabouts::Any | Whereabouts::All => None,
        })?;
        let (mut unheard, mut enough) = (false, false);
        for peer in peers {
            let (why, asked) = self.lacks(&peer, path, entry, installed)?;
            unheard |= asked;
            waited.peers.push(WaitedPeer { peer: peer.to_string(), durable: why.is_none(), why });
            let mut durable = waited.peers.iter().map(|peer| peer.durable);
            enough = match at {
                Whereabouts::Any => durable.any(|yes| yes),
                Whereabouts::Peer(_) | Whereabouts::All => durable.all(|yes| yes),
            };
            if enough && *at == Whereabouts::Any {
                break;
            }
        }
        // A position of the log is never used again: what was said was said of this state.
        let same = self.entry(path)?.seq == entry.seq;
        waited.durable = enough && same;
        Ok(Seen { sought, waited, unheard: unheard || !same })
    }

    /// Goes on with the conflict copy if the version that was there has lost its name. False if there is no copy yet.
    fn follow(&self, sought: &mut Sought) -> Result<bool, CommandError> {
        let Some((content, copies)) = &sought.version else { return Ok(true) };
        let holds =
            |entry: &Entry| entry.installed.as_ref().is_some_and(|it| it.content == *content);
        let named = self.entry(&sought.path)?;
        if holds(&named) {
            return Ok(true);
        }
        for copy in copies {
            if holds(&self.entry(copy)?) {
                sought.path = copy.clone();
                sought.version = None;
                return Ok(true);
            }
        }
        // Otherwise whoever changed it knew it.
        Ok(!version::holds(&named.record, content))
    }

    fn entry(&self, path: &SharePath) -> Result<Entry, CommandError> {
        Ok(read(&self.running.site, |index| index.entry(path))?.unwrap_or_default())
    }

    /// Looks at the file, then at what is known of it.
    fn here(&self, path: &SharePath) -> Result<Here, CommandError> {
        let tree = &self.running.site.tree;
        let not = |why: String| CommandError::Invalid(format!("{path}: {why}"));
        let above = path.ancestors().find_map(|dir| tree.ignored_by(&dir, true));
        if let Some(rule) = above.or_else(|| tree.ignored_by(path, false)) {
            return Err(not(format!("it is never synced: {rule}")));
        }
        let found = match tree.stat(&Place::Share(path.clone())) {
            Ok(found) => found,
            Err(TreeError::NotFound) => return Ok(Here::Gone),
            Err(why) => return Err(CommandError::Failed(format!("{path}: {why}"))),
        };
        match found.kind {
            Kind::File | Kind::Symlink => {}
            Kind::Dir => return Err(not("it is a directory: name the files".to_owned())),
            Kind::Special => {
                return Err(not("it is never synced: no file or symbolic link".to_owned()));
            }
        }
        let entry = self.entry(path)?;
        Ok(match entry.installed.clone() {
            Some(installed) if installed.fingerprint == found && entry.seq > Seq::ZERO => {
                let entry = Box::new(entry);
                if entry.pending { Here::Outdated(entry) } else { Here::Durable(entry, installed) }
            }
            _ => Here::Changed,
        })
    }

    /// Returns why a peer has not got what is here, none if it has; and whether it was asked.
    fn lacks(
        &self,
        peer: &NodeName,
        path: &SharePath,
        entry: &Entry,
        installed: &Installed,
    ) -> Result<(Option<String>, bool), CommandError> {
        let connected = lock(&self.node.links_up).contains_key(peer);
        let came = entry.via.as_ref() == Some(peer);
        let (durable, held) = read(&self.running.site, |index| {
            let acked = index.peer(peer)?.acked;
            let durable = !came && index.is_durable(peer, acked, entry.seq)?;
            Ok((durable, index.is_held(peer, entry.seq)?))
        })?;
        let why = match connected {
            // What was held there may be in place by now.
            true if came || durable || held => {
                return Ok((self.ask(peer, path, installed, held), true));
            }
            true => "it is on its way",
            false if durable => return Ok((None, false)),
            false => "it is not connected",
        };
        Ok((Some(why.to_owned()), false))
    }

    /// Asks a peer whether it has what is here; returns why not.
    fn ask(
        &self,
        peer: &NodeName,
        path: &SharePath,
        installed: &Installed,
        held: bool,
    ) -> Option<String> {
        let there = match self.running.desk.ask(peer, path, self.patience) {
            Ok(there) => there,
            Err(why) => return Some(why.to_owned()),
        };
        let same = match (there, &installed.content) {
            (Some(DigestKind::File { hash: Some(there), .. }), Content::File { hash, .. }) => {
                there == *hash
            }
            (Some(DigestKind::Symlink { target: there, .. }), Content::Symlink { target }) => {
                there == *target
            }
            _ => false,
        };
        let why = if held {
            "it knows of it, and holds it back: `recsync status` there may tell why"
        } else {
            "it knows of it, and has something else there now, or nothing"
        };
        (!same).then(|| why.to_owned())
    }
}

/// Returns the version that is installed, with the names of the copy that it is kept as if it loses its name.
fn version_of(path: &SharePath, entry: &Entry) -> Option<(Content, [SharePath; 2])> {
    let content = entry.installed.as_ref()?.content.clone();
    let value = version::loser(&entry.record, &content)?;
    Some((content, conflict::copy_paths(path, value)))
}
