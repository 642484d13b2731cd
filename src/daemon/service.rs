//! Answers what people, scripts and monitoring ask.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use recsync_proto::message::{DigestEntry, DigestKind, Lane};
use recsync_proto::{NodeName, Owner, ShareName, SharePath};

use super::accept::{self, AcceptError};
use super::board::{BoardState, Stage};
use super::desk::Check;
use super::host::Host;
use super::lag::age;
use super::scanner::MOUNTED;
use super::share::ToShare;
use super::{Node, lock, peer_configs, setup};
use crate::config;
use crate::engine::Input;
use crate::index::IndexRead as _;
use crate::serve::api::{
    ConflictPage, ConflictView, Decided, Difference, DifferenceKind, Health, Held, Pause,
    PauseReason, PeerHealth, PeerShare, PeerStatus, Purged, Ready, Reloaded, Rescan, Resolved,
    Restored, ShareState, ShareStatus, Status, TrashPage, VerifyCheck, VerifyReport, VerifySide,
    Waited,
};
use crate::serve::{
    Answer, CommandError, ConflictQuery, Decision, Named, Purge, Resolve, Restore, Service,
    TrashQuery, Verify, Wait,
};
use crate::telemetry::metrics::{Share, SharePeer};
use crate::telemetry::{Format, Timestamp};
use crate::tree::RootError;
use crate::verify;

/// How often a share that is asked to verify is looked for if it is not running yet.
const UNASKED: &str = "recsync status shows why";

/// The node as `serve` sees it.
pub(super) struct Door(pub(super) Arc<Node>);

impl Service for Door {
    fn status(&self) -> Answer<'_, Status> {
        let node = self.0.clone();
        Box::pin(async move { on_thread(move || node.tell_status()).await })
    }

    fn health(&self) -> Health {
        self.0.tell_health()
    }

    fn ready(&self) -> Ready {
        let reasons: Vec<String> = self.0.hosts().iter().filter_map(|host| unready(host)).collect();
        Ready { ready: reasons.is_empty(), reasons }
    }

    fn metrics_text(&self, format: Format) -> Answer<'_, String> {
        let node = self.0.clone();
        Box::pin(async move {
            on_thread(move || {
                node.refresh();
                node.common.metrics.text(format)
            })
            .await
        })
    }

    fn rescan(&self, share: Option<ShareName>) -> Answer<'_, Result<Rescan, CommandError>> {
        let result = self.0.select(share.as_ref()).and_then(|hosts| {
            let mut shares = Vec::new();
            for host in hosts {
                if !host.tell(ToShare::Rescan) {
                    let why = unready(&host).unwrap_or_default();
                    return Err(CommandError::Refused(format!(
                        "{} cannot be scanned now: {why}; {UNASKED}",
                        host.name
                    )));
                }
                shares.push(host.name.to_string());
            }
            Ok(Rescan { shares })
        });
        Box::pin(std::future::ready(result))
    }

    fn decide(&self, id: String, decision: Decision) -> Answer<'_, Result<Decided, CommandError>> {
        let held = |host: Arc<Host>| {
            let held = host.held().into_iter().find(|held| held.id == id)?;
            Some((host, held))
        };
        let Some((host, held)) = self.0.hosts().into_iter().find_map(held) else {
            let why = format!("nothing waits under `{id}`; `recsync confirm` lists what does");
            return Box::pin(std::future::ready(Err(CommandError::Unknown(why))));
        };
        Box::pin(async move { on_thread(move || host.decide(&held, decision)).await })
    }

    fn verify(&self, verify: Verify) -> Answer<'_, Result<VerifyReport, CommandError>> {
        let node = self.0.clone();
        Box::pin(async move { on_thread(move || node.run_verify(&verify)).await })
    }

    fn wait(&self, wait: Wait) -> Answer<'_, Result<Waited, CommandError>> {
        Box::pin(self.0.clone().wait(wait))
    }

    fn reload(&self) -> Answer<'_, Result<Reloaded, CommandError>> {
        let node = self.0.clone();
        Box::pin(async move { on_thread(move || node.reload_config()).await })
    }

    fn trash(&self, query: TrashQuery) -> Answer<'_, Result<TrashPage, CommandError>> {
        let node = self.0.clone();
        Box::pin(async move { on_thread(move || node.trash_page(&query)).await })
    }

    fn restore(&self, restore: Restore) -> Answer<'_, Result<Restored, CommandError>> {
        let node = self.0.clone();
        Box::pin(async move { on_thread(move || node.restore(&restore)).await })
    }

    fn conflicts(&self, query: ConflictQuery) -> Answer<'_, Result<ConflictPage, CommandError>> {
        let node = self.0.clone();
        Box::pin(async move { on_thread(move || node.conflict_page(&query)).await })
    }

    fn conflict(&self, path: Named) -> Answer<'_, Result<ConflictView, CommandError>> {
        let node = self.0.clone();
        Box::pin(async move { on_thread(move || node.conflict_view(&path)).await })
    }

    fn resolve(&self, resolve: Resolve) -> Answer<'_, Result<Resolved, CommandError>> {
        let node = self.0.clone();
        Box::pin(async move { on_thread(move || node.resolve(&resolve)).await })
    }

    fn purge(&self, purge: Purge) -> Answer<'_, Result<Purged, CommandError>> {
        let node = self.0.clone();
        Box::pin(async move { on_thread(move || node.purge(&purge)).await })
    }
}

/// Says that a path has many conflict copies.
pub(super) fn crowded(path: &SharePath, copies: u64) -> String {
    let path = path.to_string();
    format!(
        "{path} has {copies} conflict copies: look at them with `recsync conflicts show {path}`, and \
         clear them with `recsync conflicts resolve {path} --keep winner`"
    )
}

pub(super) async fn on_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Returns why a share is not scanned and watched.
pub(super) fn unready(host: &Host) -> Option<String> {
    let state = host.board.get();
    let why = match state.stage {
        Stage::Starting => "it is being started".to_owned(),
        Stage::Scanning => "its first scan is under way".to_owned(),
        Stage::NoRoot(error) => error.to_string(),
        Stage::Failed(why) => why,
        Stage::Watching => return None,
    };
    Some(format!("{}: {why}", host.name))
}

impl Host {
    fn decide(&self, held: &Held, decision: Decision) -> Result<Decided, CommandError> {
        let name = &self.name;
        let confirm = decision == Decision::Confirm;
        if held.reason == PauseReason::MassDelete {
            self.tell(ToShare::Input(Lane::Live, Input::Decide { confirm }));
            let message = if confirm {
                format!("{name}: the deletes go on")
            } else {
                format!("{name}: the files are put back, here and on the peers")
            };
            return Ok(Decided { message });
        }
        if !confirm {
            let why = "it stays stopped until the right disk is back, there is nothing to undo";
            return Err(CommandError::Refused(format!("{name}: {why}")));
        }
        let accepted = match self.board.get().stage {
            Stage::NoRoot(seen) if accept::can_be(&seen) => self.accept_root(seen),
            _ => Err(AcceptError::Changed),
        };
        match accepted {
            Ok(()) => {
                let what = "it is compared with the peers by content, and nothing is deleted";
                Ok(Decided { message: format!("{name}: this disk is the share's now; {what}") })
            }
            Err(error) => Err(CommandError::Failed(format!("{name}: not accepted: {error}"))),
        }
    }

    /// Returns what waits for the operator.
    fn held(&self) -> Vec<Held> {
        let state = self.board.get();
        if let Stage::NoRoot(error) = &state.stage {
            return self.held_root(&state, error).into_iter().collect();
        }
        let [local, remote] = state.held;
        let name = &self.name;
        let since = Timestamp::from_ns(state.held_since_ns.unwrap_or(0));
        let held = |what: &str, (gone, of): (u64, u64), message: String| Held {
            id: format!("{name}-{what}"),
            share: name.to_string(),
            reason: PauseReason::MassDelete,
            since,
            message: format!("{message} ({gone} so far, of {of} files)"),
        };
        let local = local.map(|counts| {
            let message = "files vanished here, more than max_delete allows: the peers keep theirs until you confirm; rejecting fetches them back".to_owned();
            held("local", counts, message)
        });
        let remote = remote.map(|counts| {
            let message = "peers want files deleted here, more than max_delete allows: they stay until you confirm; rejecting brings them back to the peers".to_owned();
            held("remote", counts, message)
        });
        local.into_iter().chain(remote).collect()
    }

    /// Returns the disk that waits to be accepted, if an operator can accept it.
    fn held_root(&self, state: &BoardState, error: &RootError) -> Option<Held> {
        accept::can_be(error).then(|| Held {
            id: format!("{}-root", self.name),
            share: self.name.to_string(),
            reason: PauseReason::of_root(error),
            since: Timestamp::from_ns(state.root_lost_ns.unwrap_or(0)),
            message: format!("{error} (nothing is sent, applied or deleted until the share's own disk is back; confirm if this is its disk from now on: what is missing on it then comes back from the peers)"),
        })
    }
}

impl Node {
    pub(super) fn select(&self, share: Option<&ShareName>) -> Result<Vec<Arc<Host>>, CommandError> {
        match share {
            Some(share) => Ok(vec![self.host(share)?]),
            None => Ok(self.hosts()),
        }
    }

    pub(super) fn host(&self, share: &ShareName) -> Result<Arc<Host>, CommandError> {
        self.hosts().into_iter().find(|host| host.name == *share).ok_or_else(|| {
            CommandError::Unknown(format!(
                "no share is called `{share}`; `recsync share list` shows them"
            ))
        })
    }

    fn tell_health(&self) -> Health {
        let mut reasons = Vec::new();
        for host in self.hosts() {
            let state = host.board.get();
            match state.stage {
                Stage::NoRoot(error) => reasons.push(format!("{}: {error}", host.name)),
                Stage::Failed(why) => reasons.push(format!("{}: {why}", host.name)),
                Stage::Starting | Stage::Scanning | Stage::Watching => {}
            }
        }
        let wall_ns = self.clock.now().wall_ns;
        let shares: Vec<ShareName> = self.hosts().iter().map(|host| host.name.clone()).collect();
        let peers = self.links.get().map(|links| links.peers()).unwrap_or_default();
        let peers = peers.into_iter().map(|peer| {
            let lags = shares.iter().map(|share| age(&self.lag.get(share, &peer.name), wall_ns));
            let heard = peer.lag_ms.iter().map(|(_, ms)| Duration::from_millis(*ms)).max();
            PeerHealth {
                connected: peer.link.is_some(),
                lag_seconds: lags.max().unwrap_or_default().as_secs_f64(),
                peer_lag_seconds: heard.map(|heard| heard.as_secs_f64()),
                name: peer.name.to_string(),
            }
        });
        Health { healthy: reasons.is_empty(), peers: peers.collect(), reasons }
    }

    fn tell_status(&self) -> Status {
        self.refresh();
        let config = self.config();
        let now = self.clock.now();
        let hosts = self.hosts();
        Status {
            node: config.node.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.mono.as_secs_f64(),
            fingerprint: self.fingerprint.clone(),
            time: Timestamp::from_ns(now.wall_ns),
            health: self.tell_health(),
            shares: hosts.iter().map(|host| self.share_status(&config, host)).collect(),
            peers: self.peer_status(&config, now.wall_ns),
            held: hosts.iter().flat_map(|host| host.held()).collect(),
            errors: self.common.events.errors(),
        }
    }

    fn share_status(&self, config: &config::Config, host: &Host) -> ShareStatus {
        let state = host.board.get();
        let share = config.shares.iter().find(|share| share.name == host.name);
        let label = Share::new(host.name.clone());
        let metrics = &self.common.metrics;
        let paused = pauses(host, &state);
        let shown = match state.stage {
            Stage::NoRoot(_) | Stage::Failed(_) => ShareState::Paused,
            _ if !paused.is_empty() => ShareState::Paused,
            Stage::Starting | Stage::Scanning => ShareState::Scanning,
            Stage::Watching => ShareState::Watching,
        };
        let mut skipped = self.common.events.skipped(&host.name);
        // A scan names only the first few that it found.
        skipped.count =
            skipped.count.max(usize::try_from(state.scan.special).unwrap_or(usize::MAX));
        let pending = state
            .running
            .as_ref()
            .map(|running| running.site.readers.with(|reader| reader.pending_files()).unwrap_or(0));
        let weak = state.running.as_ref().and_then(|running| running.site.tree.weak_probe());
        let crowded = state.crowded.iter().map(|(path, copies)| crowded(path, *copies));
        let notes = crowded.chain(state.unwatched_why).chain(weak.map(str::to_owned));
        let notes = notes.chain(self.common.events.owners_left(&host.name));
        let mounts = state.scan.mounts().into_iter();
        let notes = notes.chain(mounts.map(|path| format!("{path}: {MOUNTED}")));
        let ignored = state.scan.ignored.iter();
        let notes = notes.chain(ignored.map(|(rule, count)| format!("{count} left alone: {rule}")));
        ShareStatus {
            name: host.name.to_string(),
            path: share.map(|share| share.path.display().to_string()).unwrap_or_default(),
            state: shown,
            paused,
            files: metrics.share_files.with(label.clone()).get(),
            bytes: metrics.share_bytes.with(label.clone()).get(),
            unwatched_dirs: state.unwatched as u64,
            pending_files: pending.unwrap_or(0),
            quarantined_files: state.load.failing as u64,
            conflicts: metrics.conflicts.with(label.clone()).get(),
            conflict_copies: metrics.conflict_copies.with(label).get(),
            skipped,
            notes: notes.collect(),
        }
    }

    fn peer_status(&self, config: &config::Config, wall_ns: i64) -> Vec<PeerStatus> {
        let known = self.links.get().map(|links| links.peers()).unwrap_or_default();
        let status = |peer: &config::Peer| {
            let state = known.iter().find(|state| state.name == peer.name);
            let lag = |share: &ShareName| {
                let heard = state?.lag_ms.iter().find(|(name, _)| name == share)?.1;
                Some(Duration::from_millis(heard).as_secs_f64())
            };
            let shares = config.shares.iter().map(|share| {
                let backlog = self.lag.get(&share.name, &peer.name);
                PeerShare {
                    share: share.name.to_string(),
                    lag_seconds: age(&backlog, wall_ns).as_secs_f64(),
                    peer_lag_seconds: lag(&share.name),
                    pending_files: backlog.files,
                    pending_bytes: backlog.bytes,
                }
            });
            let connected = state.is_some_and(|state| state.link.is_some());
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of clock skew")]
            let skew = state.and_then(|state| state.clock_skew_ms).map(|ms| ms as f64 / 1e3);
            PeerStatus {
                name: peer.name.to_string(),
                address: peer.address.as_str().to_owned(),
                connected,
                last_seen: state.and_then(|state| state.last_seen_ns).map(Timestamp::from_ns),
                error: state.filter(|_| !connected).and_then(|state| state.last_error.clone()),
                sent_bytes: state.map_or(0, |state| state.sent_bytes),
                received_bytes: state.map_or(0, |state| state.received_bytes),
                clock_skew_seconds: skew,
                shares: shares.collect(),
            }
        };
        config.peers.iter().map(status).collect()
    }

    fn run_verify(&self, wanted: &Verify) -> Result<VerifyReport, CommandError> {
        let hosts = self.select(wanted.share.as_ref())?;
        let peers = self.peers_of(wanted.peer.as_ref())?;
        let mut checks = Vec::new();
        for host in &hosts {
            for peer in &peers {
                checks.push(self.verify_one(host, peer, wanted.timeout)?);
            }
        }
        let consistent = checks.iter().all(|check| check.differences.is_empty());
        Ok(VerifyReport { consistent, checks })
    }

    /// Returns the peer of a name, or all.
    pub(super) fn peers_of(&self, name: Option<&NodeName>) -> Result<Vec<NodeName>, CommandError> {
        let mut peers: Vec<_> = self.config().peers.into_iter().map(|peer| peer.name).collect();
        if peers.is_empty() {
            let why = "there is no peer; add one with `recsync peer add`";
            return Err(CommandError::Refused(why.to_owned()));
        }
        if let Some(name) = name {
            peers.retain(|known| known == name);
            if peers.is_empty() {
                return Err(CommandError::Unknown(format!(
                    "no peer is called `{name}`; `recsync peer list` shows them"
                )));
            }
        }
        Ok(peers)
    }

    fn verify_one(
        &self,
        host: &Host,
        peer: &NodeName,
        timeout: Duration,
    ) -> Result<VerifyCheck, CommandError> {
        let share = &host.name;
        let Some(running) = host.board.get().running else {
            let why = unready(host).unwrap_or_default();
            return Err(CommandError::Refused(format!("cannot verify {why}; {UNASKED}")));
        };
        if !lock(&self.links_up).contains_key(peer) {
            return Err(CommandError::Refused(format!(
                "cannot verify {share}: {peer} is not connected; {UNASKED}"
            )));
        }
        let begun = self.clock.now();
        let check = running.desk.check(peer, timeout).map_err(|error| {
            CommandError::Failed(format!("cannot verify {share} with {peer}: {error}"))
        })?;
        let now = self.clock.now();
        let Check { files, bytes, in_flight, differences } = check;
        let label = SharePeer::new(share.clone(), peer.clone());
        let metrics = &self.common.metrics;
        let seconds = Timestamp::from_ns(now.wall_ns).seconds();
        metrics.last_verify_timestamp_seconds.with(label.clone()).set(seconds);
        metrics.last_verify_differences.with(label).set(differences.len() as u64);
        Ok(VerifyCheck {
            share: share.to_string(),
            peer: peer.to_string(),
            files,
            bytes,
            in_flight,
            seconds: now.mono.saturating_sub(begun.mono).as_secs_f64(),
            differences: differences.into_iter().map(difference).collect(),
        })
    }

    /// Reads the config again and takes what can change while running.
    pub(super) fn reload_config(&self) -> Result<Reloaded, CommandError> {
        let old = self.config();
        let new = config::load(&old.file).map_err(|error| {
            CommandError::Invalid(format!("{error}\nthe old config stays in force"))
        })?;
        let mut changes = Vec::new();
        let mut at_next_start = Vec::new();
        if new.node != old.node {
            at_next_start.push("[node]".to_owned());
        }
        if new.http != old.http {
            at_next_start.push("[http]".to_owned());
        }
        let (had, has) = (names(&old.peers, |p| &p.name), names(&new.peers, |p| &p.name));
        changes.extend(has.difference(&had).map(|name| format!("peer {name} added")));
        changes.extend(had.difference(&has).map(|name| format!("peer {name} removed")));
        let altered = new
            .peers
            .iter()
            .filter(|peer| old.peers.iter().any(|known| known.name == peer.name && known != *peer));
        changes.extend(altered.map(|peer| format!("peer {} changed", peer.name)));
        if new.limits != old.limits {
            changes.push("[limits] changed".to_owned());
        }
        let mut running = new.clone();
        (running.node, running.http) = (old.node.clone(), old.http.clone());
        let mut started = Vec::new();
        for share in &mut running.shares {
            match old.shares.iter().find(|known| known.name == share.name) {
                None => {
                    changes.push(format!("share {} added", share.name));
                    started.push(share.clone());
                }
                Some(known) if known.path != share.path => {
                    at_next_start.push(format!("path of share {}", share.name));
                    share.path.clone_from(&known.path);
                }
                Some(known) if known != share => {
                    changes.push(format!("share {} changed", share.name));
                }
                Some(_) => {}
            }
        }
        let (had, has) = (names(&old.shares, |s| &s.name), names(&new.shares, |s| &s.name));
        let gone: Vec<ShareName> = had.difference(&has).cloned().collect();
        changes.extend(gone.iter().map(|name| format!("share {name} removed")));

        *lock(&self.config) = running.clone();
        let shares: Vec<_> = running.shares.iter().map(|share| share.name.clone()).collect();
        let peers: Vec<_> = running.peers.iter().map(|peer| peer.name.clone()).collect();
        self.common.metrics.configure(&shares, &peers);
        let removed: Vec<_> = {
            let mut hosts = lock(&self.hosts);
            gone.iter().filter_map(|name| hosts.remove(name)).collect()
        };
        for host in removed {
            host.stop();
            host.join();
        }
        for share in &running.shares {
            if let Some(host) = lock(&self.hosts).get(&share.name) {
                host.reconfigure(setup(&running, share));
            }
        }
        for share in &started {
            let started = self.start_share(&running, share);
            started.map_err(|error| CommandError::Failed(error.to_string()))?;
        }
        if let Some(links) = self.links.get() {
            links.set_peers(peer_configs(&running));
        }
        Ok(Reloaded { changes, at_next_start })
    }
}

fn names<T, N: Ord + Clone>(of: &[T], name: impl Fn(&T) -> &N) -> BTreeSet<N> {
    of.iter().map(|one| name(one).clone()).collect()
}

fn pauses(host: &Host, state: &BoardState) -> Vec<Pause> {
    let mut pauses = Vec::new();
    if let Stage::NoRoot(error) = &state.stage
        && !accept::can_be(error)
    {
        let why = format!("{error}; nothing is sent, applied or deleted until it is back");
        pauses.push(Pause { reason: PauseReason::of_root(error), why });
    }
    if let Some(why) = &state.no_space {
        pauses.push(Pause { reason: PauseReason::NoSpace, why: why.clone() });
    }
    pauses.extend(host.held().into_iter().map(|held| {
        let why = format!("{}; `recsync confirm {}`", held.message, held.id);
        Pause { reason: held.reason, why }
    }));
    pauses
}

fn difference(found: verify::Difference) -> Difference {
    Difference {
        path: found.path.to_string(),
        kind: match found.kind {
            verify::DifferenceKind::MissingHere => DifferenceKind::MissingHere,
            verify::DifferenceKind::MissingOnPeer => DifferenceKind::MissingOnPeer,
            verify::DifferenceKind::Content => DifferenceKind::Content,
            verify::DifferenceKind::Metadata => DifferenceKind::Metadata,
            verify::DifferenceKind::Type => DifferenceKind::Type,
            verify::DifferenceKind::Unreadable => DifferenceKind::Unreadable,
        },
        local: found.here.map(side),
        peer: found.there.map(side),
    }
}

fn side(entry: DigestEntry) -> VerifySide {
    let shown = |owner: Option<Owner>| owner.map(|owner| owner.to_string());
    match entry.kind {
        DigestKind::File { mode, owner, size, mtime_ns, hash } => {
            let (hash, owner) = (hash.map(|hash| hash.to_string()), shown(owner));
            VerifySide { size, mtime_ns, mode, owner, hash }
        }
        DigestKind::Dir { mode, owner, bytes, .. } => {
            VerifySide { size: bytes, mtime_ns: 0, mode, owner: shown(owner), hash: None }
        }
        DigestKind::Symlink { target, mtime_ns, owner } => {
            let (size, owner) = (target.len() as u64, shown(owner));
            VerifySide { size, mtime_ns, mode: 0o777, owner, hash: None }
        }
        DigestKind::Unreadable => {
            VerifySide { size: 0, mtime_ns: 0, mode: 0, owner: None, hash: None }
        }
    }
}
