//! Tells the service manager how the daemon is doing (`sd_notify`); says nothing where there is none.
//!
//! The environment is read and left as it is: unsetting it is `unsafe`, and recsync starts no
//! children that could be confused by it.
//!
//! **Invariant:** the watchdog is fed only by progress, never by a timer alone.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sd_notify::NotifyState;

/// Says that the daemon is ready: READY=1, which also ends a reload, and a line for `systemctl status`.
///
/// # Errors
/// If there is a service manager and it cannot be told; worth a warning, nothing more.
pub fn ready(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)])
}

/// Says how things are, in one line for `systemctl status`.
///
/// # Errors
/// As [`ready`].
pub fn status(status: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Status(status)])
}

/// Says that the config is being read again; [`ready`] must follow, however it ends.
///
/// # Errors
/// As [`ready`].
pub fn reloading() -> io::Result<()> {
    // Without MONOTONIC_USEC systemd from 253 on would kill a Type=notify-reload service.
    sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
}

/// Says that the daemon is stopping.
///
/// # Errors
/// As [`ready`].
pub fn stopping() -> io::Result<()> {
    sd_notify::notify(&[NotifyState::Stopping])
}

/// Asks the service manager for more time to start, from now on; for a first big scan.
///
/// # Errors
/// As [`ready`].
pub fn extend_timeout(by: Duration) -> io::Result<()> {
    let usec = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
    sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(usec)])
}

/// Feeds the service manager's watchdog for as long as every loop of the daemon makes progress.
pub struct Watchdog {
    timeout: Option<Duration>,
    feed: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
    loops: Mutex<Vec<Watched>>,
}

struct Watched {
    name: String,
    ticks: Weak<AtomicU64>,
    seen: u64,
}

/// Held by a loop that the watchdog watches; dropping it ends the watching.
#[derive(Debug)]
pub struct Heartbeat {
    ticks: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Says that the loop went round once more.
    pub fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Watchdog {
    /// Makes the watchdog that the service manager asks for (`WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub fn from_env() -> Self {
        let feed = || sd_notify::notify(&[NotifyState::Watchdog]);
        Watchdog::new(sd_notify::watchdog_enabled(), feed)
    }

    fn new(
        timeout: Option<Duration>,
        feed: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Watchdog { timeout, feed: Box::new(feed), loops: Mutex::default() }
    }

    /// Returns how often [`Watchdog::feed`] is to be called, and how often at least each loop is
    /// to tick, even an idle one; none if no one watches.
    ///
    /// A third of the timeout: a loop that ticks just after it was looked at has not ticked at
    /// the next look in the worst case, and still the one after comes in time.
    pub fn interval(&self) -> Option<Duration> {
        self.timeout.map(|timeout| timeout / 3)
    }

    /// Has a loop watched from now on, under a name for the log.
    pub fn watch(&self, name: impl Into<String>) -> Heartbeat {
        // The first look finds progress: the loop has just begun.
        let ticks = Arc::new(AtomicU64::new(1));
        let watched = Watched { name: name.into(), ticks: Arc::downgrade(&ticks), seen: 0 };
        self.loops.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
        Heartbeat { ticks }
    }

    /// Tells the service manager that all is well if each loop has ticked since the last time it
    /// was fed. Returns the names of those that have not: it was not told then.
    ///
    /// # Errors
    /// If there is a service manager and it cannot be told.
    pub fn feed(&self) -> io::Result<Vec<String>> {
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.retain(|watched| watched.ticks.strong_count() > 0);
        let ticks =
            |watched: &Watched| watched.ticks.upgrade().map(|ticks| ticks.load(Ordering::Relaxed));
        let stalled: Vec<_> = loops
            .iter()
            .filter(|watched| ticks(watched) == Some(watched.seen))
            .map(|watched| watched.name.clone())
            .collect();
        if stalled.is_empty() {
            for watched in loops.iter_mut() {
                watched.seen = ticks(watched).unwrap_or(watched.seen);
            }
            drop(loops);
            (self.feed)()?;
        }
        Ok(stalled)
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    #[test]
    fn fed_only_if_every_loop_ticked() {
        let fed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&fed);
        let watchdog = Watchdog::new(Some(Duration::from_secs(30)), move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        let is_fed = || {
            let before = fed.load(Ordering::Relaxed);
            let stalled = watchdog.feed().unwrap();
            assert_eq!(fed.load(Ordering::Relaxed) > before, stalled.is_empty());
            stalled
        };
        assert_eq!(watchdog.interval(), Some(Duration::from_secs(10)));
        assert_eq!(is_fed(), Vec::<String>::new());

        let recordings = watchdog.watch("recordings");
        let prompts = watchdog.watch("prompts");
        assert_eq!(is_fed(), Vec::<String>::new(), "loops that have just begun");
        assert_eq!(is_fed(), ["recordings", "prompts"]);
        recordings.tick();
        assert_eq!(is_fed(), ["prompts"]);
        // What ticked since the last feed needs not tick again for the next.
        prompts.tick();
        assert_eq!(is_fed(), Vec::<String>::new());
        recordings.tick();
        drop(prompts);
        assert_eq!(is_fed(), Vec::<String>::new(), "a loop that ended is not watched");
    }

    /// Does nothing unless it is run by the test below, as a service manager would run it.
    #[test]
    fn as_a_service() {
        if std::env::var_os("RECSYNC_TEST_AS_A_SERVICE").is_none() {
            return;
        }
        ready("2 shares").unwrap();
        reloading().unwrap();
        status("1 peer").unwrap();
        extend_timeout(Duration::from_secs(5)).unwrap();
        let watchdog = Watchdog::from_env();
        assert_eq!(watchdog.interval(), Some(Duration::from_secs(1)));
        watchdog.feed().unwrap();
        stopping().unwrap();
    }

    #[test]
    fn the_service_manager_hears() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let service = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "telemetry::notify::tests::as_a_service"])
            .env("RECSYNC_TEST_AS_A_SERVICE", "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "3000000")
            .output()
            .unwrap();
        assert!(service.status.success(), "{}", String::from_utf8_lossy(&service.stdout));

        socket.set_nonblocking(true).unwrap();
        let mut said = Vec::new();
        let mut buffer = [0; 256];
        while let Ok(len) = socket.recv(&mut buffer) {
            said.push(String::from_utf8(buffer[..len].to_vec()).unwrap());
        }
        assert_eq!(said[0], "READY=1\nSTATUS=2 shares\n");
        assert!(said[1].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said:?}");
        assert_eq!(
            said[2..],
            ["STATUS=1 peer\n", "EXTEND_TIMEOUT_USEC=5000000\n", "WATCHDOG=1\n", "STOPPING=1\n"]
        );
    }
}
