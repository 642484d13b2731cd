//! How long to wait before the next try: doubling, jittered, so that two nodes do not keep step.

use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Backoff { first, max, failures: 0 }
    }

    /// The next try is the first one again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Returns the time to wait after one more failure: half of it certain, half by `chance`.
    pub(super) fn next(&mut self, chance: u64) -> Duration {
        let whole = self.first.saturating_mul(1 << self.failures.min(16)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        let jitter_ns = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(chance % jitter_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_wait() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(5_000));
        for whole in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let failures = backoff.failures;
            assert_eq!(backoff.next(0), ms(whole / 2));
            backoff.failures = failures;
            let wait = backoff.next(u64::MAX);
            assert!(ms(whole / 2) <= wait && wait < ms(whole), "{wait:?}");
        }
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next(0), ms(2_500));
        backoff.reset();
        assert_eq!(backoff.next(0), ms(50));
    }
}
