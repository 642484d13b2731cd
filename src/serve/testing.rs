//! A daemon that is not there, on real sockets; for the tests of this module and of the commands.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use recsync_proto::ShareName;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::api::*;
use super::*;
use crate::telemetry::{Metrics, Timestamp};

/// 2026-11-22T09:00:00Z.
pub(crate) const NOON_NS: i64 = 1_795_338_000_000_000_000;

/// Answers as it is told to, and notes what it is asked to do.
pub(crate) struct Fake {
    pub(crate) status: Status,
    pub(crate) ready: Ready,
    pub(crate) verify: Result<VerifyReport, CommandError>,
    pub(crate) waited: Result<Waited, CommandError>,
    pub(crate) reload: Result<Reloaded, CommandError>,
    pub(crate) trash: Vec<TrashPage>,
    pub(crate) restored: Result<Restored, CommandError>,
    pub(crate) purged: Purged,
    pub(crate) conflicts: ConflictPage,
    pub(crate) conflict: ConflictView,
    pub(crate) resolved: Resolved,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Default for Fake {
    fn default() -> Self {
        Fake {
            status: status(),
            ready: Ready { ready: true, reasons: vec![] },
            verify: Ok(VerifyReport { consistent: true, checks: vec![check()] }),
            waited: Ok(waited()),
            reload: Ok(Reloaded { changes: vec![], at_next_start: vec![] }),
            trash: vec![],
            restored: Ok(Restored::default()),
            purged: Purged::default(),
            conflicts: ConflictPage::default(),
            conflict: ConflictView::default(),
            resolved: Resolved::default(),
            asked: Mutex::default(),
        }
    }
}

impl Fake {
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

impl Service for Fake {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async { self.status.clone() })
    }

    fn health(&self) -> Health {
        self.status.health.clone()
    }

    fn ready(&self) -> Ready {
        self.ready.clone()
    }

    fn metrics_text(&self, format: Format) -> Answer<'_, String> {
        Box::pin(async move { Metrics::new(&[], &[]).text(format) })
    }

    fn rescan(&self, share: Option<ShareName>) -> Answer<'_, Result<Rescan, CommandError>> {
        self.note(format!("rescan {share:?}"));
        let known: Vec<_> = self.status.shares.iter().map(|share| share.name.clone()).collect();
        Box::pin(async move {
            match share {
                None => Ok(Rescan { shares: known }),
                Some(share) if known.iter().any(|known| known == share.as_str()) => {
                    Ok(Rescan { shares: vec![share.to_string()] })
                }
                Some(share) => Err(CommandError::Unknown(format!("there is no share {share}"))),
            }
        })
    }

    fn decide(&self, id: String, decision: Decision) -> Answer<'_, Result<Decided, CommandError>> {
        self.note(format!("{decision:?} {id}"));
        Box::pin(async { Ok(Decided { message: "60 deletes go to fs2".into() }) })
    }

    fn verify(&self, verify: Verify) -> Answer<'_, Result<VerifyReport, CommandError>> {
        self.note(format!("{verify:?}"));
        Box::pin(async { self.verify.clone() })
    }

    fn wait(&self, wait: Wait) -> Answer<'_, Result<Waited, CommandError>> {
        let Wait { path, at, timeout } = wait;
        self.note(format!("wait {} {at:?} {timeout:?}", path.path));
        Box::pin(
            async move { self.waited.clone().map(|waited| Waited { path: path.path, ..waited }) },
        )
    }

    fn reload(&self) -> Answer<'_, Result<Reloaded, CommandError>> {
        self.note("reload".into());
        Box::pin(async { self.reload.clone() })
    }

    /// A page for each question, which goes on with the next one.
    fn trash(&self, query: TrashQuery) -> Answer<'_, Result<TrashPage, CommandError>> {
        let number = query.after.as_ref().map_or(0, |after| usize::try_from(after.id).unwrap());
        self.note(format!("trash {:?} {:?} {number}", query.share, query.path));
        let page = self.trash.get(number).cloned().unwrap_or_default();
        Box::pin(async { Ok(page) })
    }

    fn restore(&self, restore: Restore) -> Answer<'_, Result<Restored, CommandError>> {
        self.note(format!("{restore:?}"));
        Box::pin(async { self.restored.clone() })
    }

    fn conflicts(&self, query: ConflictQuery) -> Answer<'_, Result<ConflictPage, CommandError>> {
        self.note(format!("{query:?}"));
        Box::pin(async { Ok(self.conflicts.clone()) })
    }

    fn conflict(&self, path: Named) -> Answer<'_, Result<ConflictView, CommandError>> {
        self.note(format!("show {path:?}"));
        Box::pin(async { Ok(self.conflict.clone()) })
    }

    fn resolve(&self, resolve: Resolve) -> Answer<'_, Result<Resolved, CommandError>> {
        self.note(format!("{resolve:?}"));
        Box::pin(async { Ok(self.resolved.clone()) })
    }

    fn purge(&self, purge: Purge) -> Answer<'_, Result<Purged, CommandError>> {
        self.note(format!("{purge:?}"));
        Box::pin(async { Ok(self.purged.clone()) })
    }
}

/// Serves a [`Fake`] on a control socket and on TCP until it is dropped.
pub(crate) struct Daemon {
    pub(crate) service: Arc<Fake>,
    pub(crate) address: SocketAddr,
    dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) fn start(service: Fake) -> Self {
        Daemon::with_scope(service, Scope::Loopback)
    }

    /// `scope` is what TCP serves.
    #[expect(clippy::disallowed_methods, reason = "a test's stand-in for the daemon's threads")]
    pub(crate) fn with_scope(service: Fake, scope: Scope) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = Arc::new(service);
        let (stop, stopped) = oneshot::channel();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let control = dir.path().join("control.sock");
        let routers = [Scope::Control, scope].map(|scope| router(service.clone(), scope));
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let socket = ControlSocket::bind(&control).unwrap();
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                let [commands, tcp] = routers;
                tokio::select! {
                    () = socket.serve(commands, std::future::pending()) => {}
                    () = http(listener, tcp, std::future::pending()) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = is_bound.recv().unwrap();
        Daemon { service, address, dir, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

/// A control socket on which no one ever answers, as with a daemon that hangs.
pub(crate) fn hung(dir: &Path) -> (PathBuf, std::os::unix::net::UnixListener) {
    let path = dir.join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    (path, listener)
}

pub(crate) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_ns(NOON_NS + seconds * 1_000_000_000)
}

/// Two shares and two peers, with something of everything.
pub(crate) fn status() -> Status {
    let between = |share: &str, lag: f64, files: u64, bytes: u64| PeerShare {
        share: share.into(),
        lag_seconds: lag,
        peer_lag_seconds: Some(0.0),
        pending_files: files,
        pending_bytes: bytes,
    };
    Status {
        node: "fs1".into(),
        version: "1.2.3".into(),
        uptime_seconds: 273_000.0,
        fingerprint: format!("sha256:{}", "0123456789abcdef".repeat(4)),
        time: time(0),
        health: Health {
            healthy: true,
            reasons: vec![],
            peers: vec![
                PeerHealth {
                    name: "fs2".into(),
                    connected: true,
                    lag_seconds: 0.12,
                    peer_lag_seconds: Some(0.0),
                },
                PeerHealth {
                    name: "fs3".into(),
                    connected: false,
                    lag_seconds: 7_500.0,
                    peer_lag_seconds: None,
                },
            ],
        },
        shares: vec![
            ShareStatus {
                name: "recordings".into(),
                path: "/storage/recordings".into(),
                state: ShareState::Watching,
                paused: vec![],
                files: 1_203_451,
                bytes: 918_273_645_500,
                unwatched_dirs: 0,
                pending_files: 3,
                quarantined_files: 1,
                conflicts: 7,
                conflict_copies: 2,
                skipped: Skipped {
                    count: 12,
                    first: vec![SkippedPath { path: "run/fs.sock".into(), why: "a socket".into() }],
                },
                notes: vec!["owners are not set here: the daemon is not root".into()],
            },
            ShareStatus {
                name: "prompts".into(),
                path: "/storage/prompts".into(),
                state: ShareState::Paused,
                paused: vec![Pause {
                    reason: PauseReason::NoMarker,
                    why: "/storage/prompts has no marker .recsync/share.toml: is the disk mounted?"
                        .into(),
                }],
                files: 240,
                bytes: 81_000_000,
                unwatched_dirs: 4,
                pending_files: 0,
                quarantined_files: 0,
                conflicts: 0,
                conflict_copies: 0,
                skipped: Skipped::default(),
                notes: vec![],
            },
        ],
        peers: vec![
            PeerStatus {
                name: "fs2".into(),
                address: "192.168.1.109:8730".into(),
                connected: true,
                last_seen: Some(time(-1)),
                error: None,
                sent_bytes: 52_000_000_000,
                received_bytes: 48_500_000,
                clock_skew_seconds: Some(0.003),
                shares: vec![
                    between("recordings", 0.12, 2, 1_400_000),
                    between("prompts", 0.0, 0, 0),
                ],
            },
            PeerStatus {
                name: "fs3".into(),
                address: "192.168.1.110:8730".into(),
                connected: false,
                last_seen: None,
                error: Some("connection refused; trying again in 8 s".into()),
                sent_bytes: 0,
                received_bytes: 0,
                clock_skew_seconds: None,
                shares: vec![PeerShare {
                    peer_lag_seconds: None,
                    ..between("recordings", 7_500.0, 120_345, 91_827_364_550)
                }],
            },
        ],
        held: vec![Held {
            id: "1".into(),
            share: "recordings".into(),
            reason: PauseReason::MassDelete,
            since: time(-600),
            message: "60 of 100 files vanished here within 10 minutes".into(),
        }],
        errors: vec![RecentError {
            time: time(-30),
            count: 3,
            kind: "denied".into(),
            share: Some("recordings".into()),
            peer: None,
            path: Some("2026/11/22/a.wav".into()),
            message: "permission denied; trying again in 30s".into(),
        }],
    }
}

pub(crate) fn check() -> VerifyCheck {
    VerifyCheck {
        share: "recordings".into(),
        peer: "fs2".into(),
        files: 120_345,
        bytes: 9_182_736_455,
        in_flight: 0,
        seconds: 1.8,
        differences: vec![],
    }
}

/// Durable on one peer of two.
pub(crate) fn waited() -> Waited {
    let peer = |peer: &str, why: Option<&str>| WaitedPeer {
        peer: peer.into(),
        durable: why.is_none(),
        why: why.map(str::to_owned),
    };
    Waited {
        share: "recordings".into(),
        path: "2026/11/22/a.wav".into(),
        durable: true,
        size: Some(81_964),
        hash: Some("0123456789abcdef".repeat(4)),
        why: None,
        peers: vec![peer("fs2", None), peer("fs3", Some("it is not connected"))],
    }
}
