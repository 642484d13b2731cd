//! A token bucket that both lanes of a link share, in one direction.
//!
//! It keeps, instead of tokens, the time at which all bytes so far are paid for at the rate: one for the
//! live lane alone, and one for both. The live lane waits for its own bytes only, the bulk lane for all of
//! them: so bulk takes what live leaves, and never stands before it. A small part is the bulk
//! lane's in any case, or its keep-alives would come too late; live pays for that.
//!
//! **Invariant:** over any time, what is taken is at most the rate times that time, [`BURST`] more, and one piece.
//! **May not:** read a clock; `now` is an argument.

use std::num::NonZeroU64;
use std::time::Duration;

use recsync_proto::message::Lane;

/// What was not used may be made up for within this time: a timer is late on a busy machine.
const BURST: Duration = Duration::from_millis(100);
/// One part of so many is the bulk lane's, whatever the live lane needs.
const BULK_PART: u32 = 64;
/// A piece should take this long, and be within these sizes.
const PIECE_TIME_MS: u64 = 5;
const PIECE_MIN: usize = 4 << 10;
const PIECE_MAX: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Bucket {
    bytes_per_s: NonZeroU64,
    live: Duration,
    bulk: Duration,
    both: Duration,
}

impl Bucket {
    pub(super) fn new(bytes_per_s: NonZeroU64) -> Self {
        let paid = Duration::ZERO;
        Bucket { bytes_per_s, live: paid, bulk: paid, both: paid }
    }

    /// Returns how many bytes should be taken at once.
    pub(super) fn piece(&self) -> usize {
        let bytes = self.bytes_per_s.get() / 1_000 * PIECE_TIME_MS;
        usize::try_from(bytes).unwrap_or(PIECE_MAX).clamp(PIECE_MIN, PIECE_MAX)
    }

    /// Returns how long a lane has to wait before it may take anything.
    pub(super) fn wait(&self, lane: Lane, now: Duration) -> Duration {
        let paid = match lane {
            Lane::Live => self.live,
            Lane::Bulk => self.both.min(self.bulk),
        };
        paid.saturating_sub(now)
    }

    /// Notes bytes that a lane has taken.
    pub(super) fn take(&mut self, lane: Lane, now: Duration, bytes: usize) {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_s.get());
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let out_of_turn = lane == Lane::Bulk && self.both > now;
        pay(&mut self.both, now, time);
        if lane == Lane::Live || out_of_turn {
            pay(&mut self.live, now, time);
        }
        if out_of_turn {
            pay(&mut self.bulk, now, time * BULK_PART);
        }
    }
}

fn pay(paid: &mut Duration, now: Duration, time: Duration) {
    *paid = (*paid).max(now.saturating_sub(BURST)) + time;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Lets each lane take whenever it may, in steps of a millisecond, for `time`; a lane wants as many
    /// bytes as `wants` has given it until then. Returns what each took, and the live lane's longest wait.
    fn play(rate: u64, time: Duration, wants: [u64; 2]) -> ([u64; 2], Duration) {
        let mut bucket = Bucket::new(NonZeroU64::new(rate).unwrap());
        let (mut taken, mut longest, mut since) = ([0, 0], Duration::ZERO, None);
        let start = 7 * SECOND;
        let mut now = start;
        while now < start + time {
            for (index, lane) in [Lane::Live, Lane::Bulk].into_iter().enumerate() {
                loop {
                    let given = u128::from(wants[index]) * (now - start).as_nanos() / 1_000_000_000;
                    let left = given.saturating_sub(u128::from(taken[index]));
                    let piece = left.min(bucket.piece() as u128) as usize;
                    let may = bucket.wait(lane, now).is_zero();
                    if index == 0 {
                        let begun = since.take();
                        if piece > 0 && !may {
                            since = begun.or(Some(now));
                            longest = longest.max(now - begun.unwrap_or(now));
                        }
                    }
                    if piece == 0 || !may {
                        break;
                    }
                    bucket.take(lane, now, piece);
                    taken[index] += piece as u64;
                }
            }
            now += Duration::from_millis(1);
        }
        (taken, longest)
    }

    #[test]
    fn is_exact_at_any_rate_and_whoever_sends() {
        for rate in [100_000, 1_000_000, 50_000_000, 1_000_000_000] {
            for (wants, name) in [
                ([u64::MAX / 4, 0], "live alone"),
                ([0, u64::MAX / 4], "bulk alone"),
                ([u64::MAX / 4, u64::MAX / 4], "both"),
                ([rate / 2, u64::MAX / 4], "half of it live"),
            ] {
                let (taken, _) = play(rate, 10 * SECOND, wants);
                let sum = taken.iter().sum::<u64>() as f64 / (rate as f64 * 10.0);
                assert!((0.97..=1.03).contains(&sum), "{name} at {rate}: {sum}");
            }
        }
    }

    #[test]
    fn bulk_takes_what_live_leaves_and_does_not_delay_it() {
        let rate = 10_000_000;
        let ([live, bulk], longest) = play(rate, 10 * SECOND, [rate / 2, u64::MAX / 4]);
        assert!((live as f64 / 5e7 - 1.0).abs() < 0.01, "live got {live}");
        assert!((bulk as f64 / 5e7 - 1.0).abs() < 0.05, "bulk got {bulk}");
        assert_eq!(longest, Duration::ZERO);
    }

    #[test]
    fn bulk_is_never_starved() {
        let rate = 10_000_000;
        let ([_, bulk], _) = play(rate, 10 * SECOND, [u64::MAX / 4, u64::MAX / 4]);
        let part = bulk as f64 / (rate as f64 * 10.0);
        assert!((0.01..0.03).contains(&part), "{part}");
    }

    #[test]
    fn time_that_was_not_used_is_lost_but_for_a_little() {
        let mut bucket = Bucket::new(NonZeroU64::new(1_000_000).unwrap());
        bucket.take(Lane::Bulk, SECOND, 1);
        let mut taken = 0;
        while bucket.wait(Lane::Bulk, 100 * SECOND).is_zero() {
            bucket.take(Lane::Bulk, 100 * SECOND, 1_000);
            taken += 1_000;
        }
        // And the bulk lane's part out of turn.
        assert!((100_000..=104_000).contains(&taken), "{taken}");
    }
}
