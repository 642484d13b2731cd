//! Keeps a flood of equal log lines from filling the journal.

use std::time::Duration;

/// Lets through at most [`Limit::LINES`] lines in each [`Limit::WINDOW`] and counts the others.
#[derive(Debug, Default)]
pub(super) struct Limit {
    /// Monotonic time at which the window opened.
    opened: Duration,
    passed: u32,
    left_out: u64,
}

impl Limit {
    /// Lines for each window: enough to see what is going on, little enough for a day of it.
    pub(super) const LINES: u32 = 10;
    /// The window, journald's own default interval for rate limits being 30 s.
    pub(super) const WINDOW: Duration = Duration::from_secs(60);

    /// Asks to write a line at the monotonic time `now`. Returns how many lines before it were
    /// left out since the last one, or none if it is to be left out itself.
    pub(super) fn pass(&mut self, now: Duration) -> Option<u64> {
        if now.saturating_sub(self.opened) >= Self::WINDOW {
            self.opened = now;
            self.passed = 0;
        }
        if self.passed == Self::LINES {
            self.left_out += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_left_out() {
        let mut limit = Limit::default();
        let second = Duration::from_secs(100);
        for _ in 0..Limit::LINES {
            assert_eq!(limit.pass(second), Some(0));
        }
        assert_eq!(limit.pass(second), None);
        assert_eq!(limit.pass(second + Limit::WINDOW - Duration::from_nanos(1)), None);
        assert_eq!(limit.pass(second + Limit::WINDOW), Some(2));
        assert_eq!(limit.pass(second + Limit::WINDOW), Some(0));
    }
}
