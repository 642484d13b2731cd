//! A wall clock time as people and scripts read it.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A wall clock time, milliseconds since 1970; RFC 3339 in UTC wherever it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    ms: u64,
}

impl Timestamp {
    /// Takes nanoseconds since 1970; what lies before 1970 becomes 1970.
    pub fn from_ns(wall_ns: i64) -> Self {
        Timestamp { ms: u64::try_from(wall_ns / 1_000_000).unwrap_or(0) }
    }

    /// Returns the seconds since 1970.
    pub fn seconds(self) -> f64 {
        Duration::from_millis(self.ms).as_secs_f64()
    }

    /// Returns the time from `earlier` to this one, zero if the clock went back.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.ms.saturating_sub(earlier.ms))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.ms);
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)?;
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Timestamp::from_ns(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn travels_as_rfc_3339() {
        let time = Timestamp::from_ns(1_795_337_999_123_456_789);
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(text, "\"2026-11-22T08:59:59.123Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), time);
    }

    #[test]
    fn shows_any_clock_however_wrong() {
        assert_eq!(Timestamp::from_ns(i64::MIN).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::from_ns(i64::MAX).to_string(), "2262-04-11T23:47:16.854Z");
    }
}
