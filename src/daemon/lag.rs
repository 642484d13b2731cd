//! What peers lack of each share, brought up to date once a second and when someone asks, and the other
//! gauges, when someone asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use recsync_proto::{NodeName, ShareName};

use super::Node;
use super::board::Stage;
use crate::index::{Backlog, IndexRead as _};
use crate::telemetry::metrics::{Peer, Share, SharePeer};
use crate::watch::watch_limit;

/// What each peer lacks of each share.
#[derive(Debug, Default)]
pub(super) struct LagBoard {
    backlogs: Mutex<BTreeMap<(ShareName, NodeName), Backlog>>,
}

impl LagBoard {
    pub(super) fn get(&self, share: &ShareName, peer: &NodeName) -> Backlog {
        let key = (share.clone(), peer.clone());
        let backlogs = self.backlogs.lock().unwrap_or_else(PoisonError::into_inner);
        backlogs.get(&key).copied().unwrap_or_default()
    }

    fn set(&self, share: &ShareName, peer: &NodeName, backlog: Backlog) {
        let key = (share.clone(), peer.clone());
        self.backlogs.lock().unwrap_or_else(PoisonError::into_inner).insert(key, backlog);
    }
}

/// Returns the age of the oldest change that a peer lacks; zero if it lacks none.
pub(super) fn age(backlog: &Backlog, wall_ns: i64) -> Duration {
    let oldest = backlog.oldest_ns.map_or(0, |oldest| wall_ns.saturating_sub(oldest));
    Duration::from_nanos(u64::try_from(oldest).unwrap_or(0))
}

impl Node {
    /// Returns the lag towards a peer, in milliseconds, of each share.
    pub(super) fn lag_to(&self, peer: &NodeName) -> Vec<(ShareName, u64)> {
        let wall_ns = self.clock.now().wall_ns;
        let shares = self.config().shares;
        let lag = |share: ShareName| {
            let age = age(&self.lag.get(&share, peer), wall_ns);
            (share, u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
        };
        shares.into_iter().map(|share| lag(share.name)).collect()
    }

    /// Brings what peers lack up to date: they are told of it, asked for or not.
    pub(super) fn refresh_lag(&self) {
        let peers: Vec<NodeName> = self.config().peers.into_iter().map(|peer| peer.name).collect();
        for host in self.hosts() {
            let Some(running) = host.board.get().running else { continue };
            match running.site.backlogs(&peers) {
                Ok(backlogs) => {
                    for (peer, backlog) in backlogs {
                        self.lag.set(&host.name, &peer, backlog);
                    }
                }
                Err(error) => tracing::warn!(share = %host.name, %error, "the lag is old"),
            }
        }
    }

    /// Brings every gauge up to date.
    pub(super) fn refresh(&self) {
        self.refresh_lag();
        let config = self.config();
        let metrics = &self.common.metrics;
        let wall_ns = self.clock.now().wall_ns;
        let mut watches = 0;
        for host in self.hosts() {
            let state = host.board.get();
            let label = Share::new(host.name.clone());
            let available = matches!(state.stage, Stage::Scanning | Stage::Watching);
            metrics.share_available.with(label.clone()).set(available.into());
            metrics.quarantined_files.with(label.clone()).set(state.load.failing as u64);
            let Some(running) = state.running else { continue };
            watches += running.watch.watched();
            let read = running
                .site
                .readers
                .with(|reader| Ok((reader.installed_files()?, reader.trash_total()?)));
            let ((files, bytes), (_, trash_bytes)) = match read {
                Ok(read) => read,
                Err(error) => {
                    tracing::warn!(share = %host.name, %error, "the gauges are old");
                    continue;
                }
            };
            let weak = running.site.tree.weak_probe().is_some();
            metrics.share_gate_weak.with(label.clone()).set(weak.into());
            metrics.share_files.with(label.clone()).set(files);
            metrics.share_bytes.with(label.clone()).set(bytes);
            metrics.trash_bytes.with(label).set(trash_bytes);
            for peer in &config.peers {
                let backlog = self.lag.get(&host.name, &peer.name);
                let label = SharePeer::new(host.name.clone(), peer.name.clone());
                metrics.lag_seconds.with(label.clone()).set(age(&backlog, wall_ns).as_secs_f64());
                metrics.pending_files.with(label.clone()).set(backlog.files);
                metrics.pending_bytes.with(label).set(backlog.bytes);
            }
        }
        metrics.inotify_watches.set(watches as u64);
        metrics.inotify_watches_limit.set(watch_limit().unwrap_or(0));
        self.refresh_peers();
    }

    fn refresh_peers(&self) {
        let metrics = &self.common.metrics;
        for peer in self.links.get().map(|links| links.peers()).unwrap_or_default() {
            let label = Peer::new(peer.name.clone());
            metrics.peer_connected.with(label.clone()).set(peer.link.is_some().into());
            if let Some(seen) = peer.last_seen_ns {
                let seen = crate::telemetry::Timestamp::from_ns(seen).seconds();
                metrics.peer_last_seen_timestamp_seconds.with(label.clone()).set(seen);
            }
            if let Some(skew) = peer.clock_skew_ms {
                #[expect(clippy::cast_precision_loss, reason = "milliseconds of clock skew")]
                let skew = skew as f64 / 1e3;
                metrics.peer_clock_skew_seconds.with(label.clone()).set(skew);
            }
            let sent = metrics.sent_bytes.with(label.clone());
            sent.inc_by(peer.sent_bytes.saturating_sub(sent.get()));
            let received = metrics.received_bytes.with(label);
            received.inc_by(peer.received_bytes.saturating_sub(received.get()));
        }
    }
}
