//! Says a thing once: whoever knocks a thousand times gets one line in the log.
//!
//! **Invariant:** bounded in memory and in lines, whatever strangers do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::identity::Fingerprint;

/// How long the same thing is not said again.
const QUIET: Duration = Duration::from_secs(600);
/// Most things said in that time; what is beyond is not said at all.
const NOTICES_MAX: usize = 256;

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// A key that is not configured.
    Key(Fingerprint),
    /// An address that may not connect, or speaks something else.
    Address(IpAddr),
    /// Too many handshakes at once.
    Crowd,
    /// The listener fails.
    Listener,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Notices(Mutex<BTreeMap<About, Duration>>);

impl Notices {
    /// True if this is to be said now, by the monotonic clock.
    pub(super) fn is_due(&self, about: About, now: Duration) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at| now.saturating_sub(*at) < QUIET);
        let due = said.len() < NOTICES_MAX && !said.contains_key(&about);
        if due {
            said.insert(about, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_in_ten_minutes_and_never_too_much() {
        let notices = Notices::default();
        let at = Duration::from_secs;
        assert!(notices.is_due(About::Crowd, at(1)));
        assert!(!notices.is_due(About::Crowd, at(600)));
        assert!(notices.is_due(About::Crowd, at(601)));
        let key = |n: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&n.to_le_bytes());
            About::Key(Fingerprint(bytes))
        };
        let said = (0..10_000).filter(|n| notices.is_due(key(*n), at(700))).count();
        assert_eq!(said, NOTICES_MAX - 1);
        assert!(notices.is_due(key(9_999), at(1_400)));
    }
}
