//! The retry schedule: the wait before the next attempt, with a random part.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use jiff::Timestamp;

/// Returns the wait after so many attempts, with the random part of [`spread`].
// Rule: RFC 5321 §4.5.4.1.
pub(super) fn wait(retry: &[Duration], attempts: u32) -> Duration {
    let at = (attempts.max(1) as usize - 1).min(retry.len().saturating_sub(1));
    spread(retry.get(at).copied().unwrap_or(Duration::from_hours(1)))
}

/// Adds a random part of up to a tenth to a wait, so that messages that failed together are not
/// retried together.
pub(super) fn spread(wait: Duration) -> Duration {
    // Each `RandomState` has random keys. The value need not be secret.
    let dice = RandomState::new().build_hasher().finish() % 1001;
    wait + wait.mul_f64(f64::from(u32::try_from(dice).unwrap_or(0)) / 10_000.0)
}

/// Returns the longest wait that [`wait`] can return.
fn longest(retry: &[Duration]) -> Duration {
    let step = retry
        .iter()
        .max()
        .copied()
        .unwrap_or(Duration::from_hours(1));
    step + step / 10
}

/// Returns the time left until a stored timestamp, zero if it is past. The longest wait of the
/// schedule is the upper limit, in case the clock was set back.
pub(super) fn until(at: Timestamp, retry: &[Duration]) -> Duration {
    let wait = Duration::try_from(Timestamp::now().duration_until(at)).unwrap_or_default();
    wait.min(longest(retry))
}
