//! All metrics of the daemon, declared in one place.
//!
//! **Invariant:** every family has its series for each configured share and peer from the start,
//! at zero, so that a rule over it never sees a gap; a series of what is no longer configured goes.
//! **May not:** hold a label that is not from a closed set (configured names, enums).

mod labels;
mod series;
#[cfg(test)]
mod tests;
mod text;

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use recsync_proto::{NodeName, ShareName};

use crate::engine::effect::{AppliedKind, Event, GuardEvent, Saved};
use crate::tree::RootError;

pub use labels::{Applied, Build, Errors, PauseReason, Paused, Peer, SavedBy, Share, SharePeer};
pub use series::Series;
pub use text::Format;

/// A gauge of things that are counted.
pub type Count = Gauge<u64, AtomicU64>;
/// A gauge of seconds.
pub type Seconds = Gauge<f64, AtomicU64>;

/// The kinds of errors that the engine tells of; others may be added by who counts them.
const ERROR_KINDS: [&str; 5] = ["io", "space", "denied", "name", "source"];

/// Upper bounds in seconds from "as soon as it can be" to "someone should have been called".
const REPLICATION_BUCKETS: [f64; 14] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Upper bounds in seconds from a handful of files to ten million on a slow disk.
const SCAN_BUCKETS: [f64; 10] = [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];

/// The metrics. Handles are shared: a series may be kept and used without looking it up again.
///
/// Durations are in seconds, sizes in bytes, timestamps in seconds since 1970 (0 for never).
#[derive(Debug)]
#[expect(missing_docs, reason = "the help text beside each name in `new` says what it is")]
pub struct Metrics {
    registry: Registry,
    pub lag_seconds: Series<SharePeer, Seconds>,
    pub replication_seconds: Series<SharePeer, Histogram>,
    pub pending_files: Series<SharePeer, Count>,
    pub pending_bytes: Series<SharePeer, Count>,
    pub peer_connected: Series<Peer, Count>,
    pub peer_last_seen_timestamp_seconds: Series<Peer, Seconds>,
    pub sent_bytes: Series<Peer, Counter>,
    pub received_bytes: Series<Peer, Counter>,
    pub files_applied: Series<Applied, Counter>,
    pub saved_bytes: Series<SavedBy, Counter>,
    pub conflicts: Series<Share, Counter>,
    pub conflict_copies: Series<Share, Count>,
    pub crowded_paths: Series<Share, Count>,
    pub errors: Series<Errors, Counter>,
    pub watch_overflows: Series<Share, Counter>,
    pub scans: Series<Share, Counter>,
    pub scan_seconds: Series<Share, Histogram>,
    pub echoes_suppressed: Series<Share, Counter>,
    pub inotify_watches: Count,
    pub inotify_watches_limit: Count,
    pub paused: Series<Paused, Count>,
    pub quarantined_files: Series<Share, Count>,
    pub peer_clock_skew_seconds: Series<Peer, Seconds>,
    pub trash_bytes: Series<Share, Count>,
    pub share_files: Series<Share, Count>,
    pub share_bytes: Series<Share, Count>,
    pub share_available: Series<Share, Count>,
    /// `recsync_share_gate_weak`
    pub share_gate_weak: Series<Share, Count>,
    pub last_verify_timestamp_seconds: Series<SharePeer, Seconds>,
    pub last_verify_differences: Series<SharePeer, Count>,
}

impl Metrics {
    /// Declares the metrics of this version of recsync, with series for these shares and peers.
    pub fn new(shares: &[ShareName], peers: &[NodeName]) -> Self {
        let mut registry = Registry::with_prefix("recsync");
        let mut declare = Declare(&mut registry);
        let d = &mut declare;
        // The last dot of each text is prometheus-client's.
        let build_info: Series<Build, Count> =
            d.family("build_info", "Always 1; the version that runs");
        let metrics = Metrics {
            lag_seconds: d.family(
                "lag_seconds",
                "Age of the oldest change made here that is not yet durable on the peer, 0 if none",
            ),
            replication_seconds: d.histogram(
                "replication_seconds",
                "Time from close, rename or delete here until it was durable on the peer",
                || Histogram::new(REPLICATION_BUCKETS),
            ),
            pending_files: d.family(
                "pending_files",
                "Paths whose latest version is not yet durable on the peer",
            ),
            pending_bytes: d.family(
                "pending_bytes",
                "Size of the files whose latest version is not yet durable on the peer",
            ),
            peer_connected: d.family("peer_connected", "1 while there is a link to the peer"),
            peer_last_seen_timestamp_seconds: d.family(
                "peer_last_seen_timestamp_seconds",
                "When the peer was last heard, 0 for never since the start",
            ),
            sent_bytes: d.family("sent_bytes", "Bytes sent to the peer, on the wire"),
            received_bytes: d.family("received_bytes", "Bytes received from the peer, on the wire"),
            files_applied: d.family(
                "files_applied",
                "Changes by a peer that were applied here; no peer if it is not known which one told",
            ),
            saved_bytes: d.family("saved_bytes", "Bytes that did not have to cross the wire"),
            conflicts: d.family("conflicts", "Clashes of two versions, both of which were kept"),
            conflict_copies: d.family(
                "conflict_copies",
                "Conflict copies in the share that nobody has resolved",
            ),
            crowded_paths: d.family(
                "crowded_paths",
                "Paths with ten conflict copies or more",
            ),
            errors: d.family("errors", "Paths that could not be looked at or changed, each attempt"),
            watch_overflows: d.family(
                "watch_overflows",
                "Times that the kernel dropped file events, each followed by a scan",
            ),
            scans: d.family("scans", "Full scans of the share that ended"),
            scan_seconds: d.histogram("scan_seconds", "Time that a full scan took", || {
                Histogram::new(SCAN_BUCKETS)
            }),
            echoes_suppressed: d.family(
                "echoes_suppressed",
                "File events that recsync itself had caused and found to be nothing new",
            ),
            inotify_watches: d.single("inotify_watches", "Directories watched"),
            inotify_watches_limit: d.single(
                "inotify_watches_limit",
                "Directories that this user may watch, fs.inotify.max_user_watches",
            ),
            paused: d.family("paused", "1 while something keeps the share from being synced"),
            quarantined_files: d.family(
                "quarantined_files",
                "Paths that keep failing and are tried again with growing delays",
            ),
            peer_clock_skew_seconds: d.family(
                "peer_clock_skew_seconds",
                "How far the peer's clock is ahead of the one here, negative if behind",
            ),
            trash_bytes: d.family(
                "trash_bytes",
                "Size of what peers deleted and replaced here and is still kept",
            ),
            share_files: d.family("share_files", "Files in the share, as the index knows them"),
            share_bytes: d.family("share_bytes", "Size of the files in the share"),
            share_available: d.family(
                "share_available",
                "1 while the share's directory is there and is the right one",
            ),
            share_gate_weak: d.family(
                "share_gate_weak",
                "1 while the kernel does not say who writes to the share's files",
            ),
            last_verify_timestamp_seconds: d.family(
                "last_verify_timestamp_seconds",
                "When the share was last verified against the peer, 0 for never since the start",
            ),
            last_verify_differences: d.family(
                "last_verify_differences",
                "Differences that the last verify found",
            ),
            registry,
        };
        build_info.with(Build::this()).set(1);
        metrics.configure(shares, peers);
        metrics
    }

    /// Makes the series of these shares and peers, and drops those of all others; what stays
    /// keeps its value.
    pub fn configure(&self, shares: &[ShareName], peers: &[NodeName]) {
        let share_is_known = |share: &ShareName| shares.contains(share);
        let peer_is_known = |peer: &NodeName| peers.contains(peer);
        let pair_is_known =
            |pair: &SharePeer| share_is_known(pair.share()) && peer_is_known(pair.peer());

        let of_shares = shares.iter().cloned().map(Share::new);
        let by_share = || of_shares.clone();
        for counters in
            [&self.conflicts, &self.watch_overflows, &self.scans, &self.echoes_suppressed]
        {
            counters.keep(|share| share_is_known(share.share()), by_share());
        }
        self.scan_seconds.keep(|share| share_is_known(share.share()), by_share());
        for gauges in [
            &self.trash_bytes,
            &self.conflict_copies,
            &self.crowded_paths,
            &self.quarantined_files,
            &self.share_files,
            &self.share_bytes,
            &self.share_available,
            &self.share_gate_weak,
        ] {
            gauges.keep(|share| share_is_known(share.share()), by_share());
        }

        let by_peer = || peers.iter().cloned().map(Peer::new);
        self.peer_connected.keep(|peer| peer_is_known(peer.peer()), by_peer());
        for gauges in [&self.peer_last_seen_timestamp_seconds, &self.peer_clock_skew_seconds] {
            gauges.keep(|peer| peer_is_known(peer.peer()), by_peer());
        }
        for counters in [&self.sent_bytes, &self.received_bytes] {
            counters.keep(|peer| peer_is_known(peer.peer()), by_peer());
        }

        let by_pair = || {
            shares.iter().flat_map(|share| {
                peers.iter().map(|peer| SharePeer::new(share.clone(), peer.clone()))
            })
        };
        for gauges in [&self.lag_seconds, &self.last_verify_timestamp_seconds] {
            gauges.keep(pair_is_known, by_pair());
        }
        self.replication_seconds.keep(pair_is_known, by_pair());
        for gauges in [&self.pending_files, &self.pending_bytes, &self.last_verify_differences] {
            gauges.keep(pair_is_known, by_pair());
        }

        let tellers = || peers.iter().cloned().map(Some).chain([None]);
        self.files_applied.keep(
            |applied| share_is_known(applied.share()) && applied.peer().is_none_or(peer_is_known),
            shares.iter().flat_map(|share| {
                tellers().flat_map(move |peer| {
                    AppliedKind::ALL.map(|kind| Applied::new(share.clone(), peer.clone(), kind))
                })
            }),
        );
        self.saved_bytes.keep(
            |saved| share_is_known(saved.share()),
            shares.iter().flat_map(|share| Saved::ALL.map(|how| SavedBy::new(share.clone(), how))),
        );
        self.errors.keep(
            |errors| share_is_known(errors.share()),
            shares
                .iter()
                .flat_map(|share| ERROR_KINDS.map(|kind| Errors::new(share.clone(), kind))),
        );
        self.paused.keep(
            |paused| share_is_known(paused.share()),
            shares.iter().flat_map(|share| {
                PauseReason::ALL.map(|reason| Paused::new(share.clone(), reason))
            }),
        );
    }

    /// Counts what a share's engine tells of.
    pub fn record(&self, share: &ShareName, event: &Event) {
        let share = || share.clone();
        match event {
            Event::EchoSuppressed => {
                self.echoes_suppressed.with(Share::new(share())).inc();
            }
            Event::Replicated { peer, took: Some(took), .. } => {
                let pair = SharePeer::new(share(), peer.clone());
                self.replication_seconds.with(pair).observe(took.as_secs_f64());
            }
            Event::Applied { peer, kind, saved, .. } => {
                self.files_applied.with(Applied::new(share(), peer.clone(), *kind)).inc();
                if let Some((how, bytes)) = saved {
                    self.saved_bytes.with(SavedBy::new(share(), *how)).inc_by(*bytes);
                }
            }
            Event::Conflict { .. } => {
                self.conflicts.with(Share::new(share())).inc();
            }
            Event::Trouble { kind, .. } => {
                self.errors.with(Errors::new(share(), kind)).inc();
            }
            Event::GivenUp { .. } => {
                self.errors.with(Errors::new(share(), "lost")).inc();
            }
            Event::Guard(guard) => self.guard(share(), guard),
            // Neither has a metric of its own: the one shows as lag, the others in the status.
            Event::Noted { .. }
            | Event::Replicated { took: None, .. }
            | Event::Skipped { .. }
            | Event::OwnerLeft { .. }
            | Event::Suspect { .. }
            | Event::PeerReset { .. } => {}
        }
    }

    /// Says that a share is, or is no longer, paused for a reason.
    pub fn set_paused(&self, share: &ShareName, reason: PauseReason, paused: bool) {
        self.paused.with(Paused::new(share.clone(), reason)).set(paused.into());
    }

    /// Returns all metrics as text.
    pub fn text(&self, format: Format) -> String {
        text::encode(&self.registry, format)
    }

    fn guard(&self, share: ShareName, event: &GuardEvent) {
        match event {
            GuardEvent::RootLost(error) => {
                let reason = PauseReason::of_root(error);
                for root in [PauseReason::NoMarker, PauseReason::OtherDisk] {
                    self.set_paused(&share, root, root == reason);
                }
                self.share_available.with(Share::new(share)).set(0);
            }
            GuardEvent::RootBack => {
                self.set_paused(&share, PauseReason::NoMarker, false);
                self.set_paused(&share, PauseReason::OtherDisk, false);
                self.share_available.with(Share::new(share)).set(1);
            }
            GuardEvent::DeletesHeld { .. } => {
                self.set_paused(&share, PauseReason::MassDelete, true);
            }
            GuardEvent::DeletesReleased { .. } => {
                self.set_paused(&share, PauseReason::MassDelete, false);
            }
        }
    }
}

impl PauseReason {
    /// Returns the reason that stands for a root that is not fit to be touched.
    pub fn of_root(error: &RootError) -> Self {
        match error {
            RootError::OtherRoot { .. } => PauseReason::OtherDisk,
            // Whatever hides the marker, the share cannot be recognised.
            RootError::NoRoot { .. }
            | RootError::NoMarker { .. }
            | RootError::Unsupported { .. } => PauseReason::NoMarker,
        }
    }
}

/// Registers metrics as they are made, so that none can be forgotten.
struct Declare<'a>(&'a mut Registry);

impl Declare<'_> {
    fn family<L, M>(&mut self, name: &str, help: &str) -> Series<L, M>
    where
        M: Default,
        Series<L, M>: Metric,
    {
        self.add(name, help, Series::new(M::default))
    }

    fn histogram<L>(
        &mut self,
        name: &str,
        help: &str,
        new: fn() -> Histogram,
    ) -> Series<L, Histogram>
    where
        Series<L, Histogram>: Metric,
    {
        self.add(name, help, Series::new(new))
    }

    fn single<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.add(name, help, M::default())
    }

    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}
