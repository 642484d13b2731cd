//! The clock, chance, and the few raw system calls that no crate offers safely.
//!
//! **Invariant:** the only `unsafe` code of the program is in `raw.rs` here, each block with its reason
//! and a test.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
