//! The clock, chance, the few raw system calls that no crate offers safely, and the hooks of tests.
//!
//! **Invariant:** the only `unsafe` code of the program is in `raw.rs` here, each block with its reason
//! and a test.

mod accounts;
mod hook;
mod raw;

use std::os::fd::BorrowedFd;
use std::sync::Once;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

pub use self::accounts::Accounts;
pub use self::hook::{Failpoint, mark};
use crate::engine::Now;

/// Reads the machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Returns a clock whose monotonic time begins now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    pub fn start() -> Self {
        Clock { start: Instant::now() }
    }

    /// Returns the time.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    pub fn now(&self) -> Now {
        let wall_ns = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
        };
        Now { wall_ns, mono: self.start.elapsed() }
    }

    /// Returns the monotonic time as an [`Instant`], for timers of other libraries.
    pub fn instant(&self, mono: Duration) -> Instant {
        self.start + mono
    }
}

/// Returns 64 random bits from the kernel.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        // Interrupted calls are repeated; getrandom(2) has no other failure once the pool is ready.
        if let Ok(count) =
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
        {
            filled += count;
        }
    }
    u64::from_le_bytes(bytes)
}

/// Returns what the kernel calls this boot of the machine; where it does not tell, something that
/// no other call returns, so that a stop counts as the machine's: the cautious guess.
#[expect(clippy::disallowed_methods, reason = "a file of the kernel's, in no share")]
pub fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => id.trim().to_owned(),
        Err(_) => format!("unknown-{:016x}", random_u64()),
    }
}

/// Makes lease signals harmless: from here on the process ignores SIGIO.
///
/// Who opens a file for writing in the microseconds in which [`probe_read_lease`] holds its lease
/// makes the kernel send this process SIGIO, whose default action is to end it. Children inherit
/// the ignored signal, which none of ours minds. Called by the probe itself; later calls do nothing.
pub fn ignore_lease_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(raw::ignore_sigio);
}

/// Takes a read lease on a file opened read-only, and gives it back at once: the kernel's word on
/// whether anyone has the file open for writing or maps it so. Never waits; but who opens it for
/// writing in that instant waits for its end, or with `O_NONBLOCK` gets `EWOULDBLOCK`.
///
/// # Errors
/// `EAGAIN` if there is a writer; others if the kernel does not say: `EACCES` for a file that is
/// not ours without `CAP_LEASE`, `EINVAL` on filesystems without leases.
pub fn probe_read_lease(file: BorrowedFd<'_>) -> Result<(), Errno> {
    ignore_lease_signals();
    raw::take_read_lease(file)?;
    match raw::drop_lease(file) {
        // EAGAIN: another thread probed through the same descriptor, and gave back for both.
        Ok(()) | Err(Errno::AGAIN) => Ok(()),
        Err(other) => Err(other),
    }
}

/// Starts writing a file's dirty pages and does not wait for them: a hint without an outcome, so
/// that a later `fsync` of many files waits once.
pub fn start_writeback(file: BorrowedFd<'_>) {
    // What goes wrong here, the fsync that follows will say.
    let _unsupported = raw::start_writeback(file);
}

/// Has the process keep memory that it frees until [`return_freed_memory`]: buffers of small files come and go by
/// the thousand, and the kernel hands each page out anew, cleared. Where the C library takes no advice, it does as it
/// likes.
pub fn keep_freed_memory() {
    /// At the end of each heap: about what is under way of a backlog.
    const KEPT: i32 = 32 << 20;
    /// Else there are eight for each CPU.
    const ARENAS: i32 = 4;
    /// The longest frame.
    const HEAP_MAX: i32 = 2 << 20;
    let _unsupported = raw::keep_freed_memory(KEPT, ARENAS, HEAP_MAX);
}

/// Gives the memory back that was freed, after work is done: it takes some milliseconds.
pub fn return_freed_memory() {
    raw::return_freed_memory();
}

/// Has the calling thread step back behind others, for CPU time and, where the disk's scheduler heeds
/// it, for the disk: for work that nobody waits for. A hint without an outcome.
pub fn step_back() {
    /// A third of what the others get: on a machine with too much to do a backlog must still end.
    const NICE: i32 = 5;
    // Linux gives each thread a nice value of its own (sched(7)).
    let _unsupported = rustix::process::setpriority_process(None, NICE);
    let _unsupported = raw::lower_io_priority();
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel's, in no share")]
    fn freed_memory_is_kept_until_it_is_returned() {
        const INSIDE: &str = "RECSYNC_TEST_MEMORY";
        if std::env::var_os(INSIDE).is_none() {
            // In a process where no other test takes memory meanwhile.
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sys::tests::freed_memory_is_kept_until_it_is_returned"])
                .env(INSIDE, "")
                .status();
            assert!(status.unwrap().success());
            return;
        }
        let resident = || -> usize {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        keep_freed_memory();
        let buffers: Vec<_> = (0..100_u8).map(|number| vec![number; 100_000]).collect();
        let used = resident();
        drop(buffers);
        let kept = resident();
        assert!(kept + 5_000_000 > used, "{used} {kept}");
        return_freed_memory();
        let left = resident();
        assert!(left + 5_000_000 < kept, "{kept} {left}");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test makes its own files")]
    fn openers_that_race_with_probes_get_the_file_and_kill_no_one() {
        const INSIDE: &str = "RECSYNC_TEST_INSIDE";
        if std::env::var_os(INSIDE).is_none() {
            // In a process where no other test has made the signal harmless.
            let status = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "sys::tests::openers_that_race_with_probes_get_the_file_and_kill_no_one",
                ])
                .env(INSIDE, "")
                .status();
            return assert!(status.unwrap().success());
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"bytes").unwrap();
        let open = |flags| openat(CWD, &path, flags | OFlags::CLOEXEC, Mode::empty());
        let done = AtomicBool::new(false);
        let met = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let file = open(OFlags::RDONLY).unwrap();
                    while !done.load(Ordering::Relaxed) {
                        let answer = probe_read_lease(file.as_fd());
                        assert!(matches!(answer, Ok(()) | Err(Errno::AGAIN)), "{answer:?}");
                    }
                });
            }
            // One waits for the end of a probe, the other is told that there is one.
            let patient = scope.spawn(|| (0..10_000).all(|_| open(OFlags::WRONLY).is_ok()));
            let hasty = scope.spawn(|| {
                (0..5_000_000)
                    .map(|_| open(OFlags::WRONLY | OFlags::NONBLOCK).err())
                    .filter(|refused| *refused == Some(Errno::WOULDBLOCK))
                    .take(100)
                    .count()
            });
            let met = (patient.join(), hasty.join());
            done.store(true, Ordering::Relaxed);
            met
        });
        assert!(matches!(met, (Ok(true), Ok(100))), "{met:?}");
        assert_eq!(
            probe_read_lease(open(OFlags::RDONLY).unwrap().as_fd()),
            Ok(()),
            "no lease is left"
        );
    }
}
