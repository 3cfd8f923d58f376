//! How long is waited: the schedule of retries, spread, and as it is read back from the spool.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use jiff::Timestamp;

/// The wait after so many attempts; see [`spread`].
pub(super) fn wait(retry: &[Duration], attempts: u32) -> Duration {
    let at = (attempts.max(1) as usize - 1).min(retry.len().saturating_sub(1));
    spread(retry.get(at).copied().unwrap_or(Duration::from_hours(1)))
}

/// A wait, and up to a tenth more, so that what failed together does not come back together.
pub(super) fn spread(wait: Duration) -> Duration {
    // Each `RandomState` has keys of its own; nothing secret hangs on them.
    let dice = RandomState::new().build_hasher().finish() % 1001;
    wait + wait.mul_f64(f64::from(u32::try_from(dice).unwrap_or(0)) / 10_000.0)
}

/// The longest wait that [`wait`] gives.
fn longest(retry: &[Duration]) -> Duration {
    let step = retry.iter().max().copied().unwrap_or(Duration::from_hours(1));
    step + step / 10
}

/// How long it is until a stored time; what is past is now. Where the clock was set in between, a message
/// still waits no longer than the schedule lets any message wait.
pub(super) fn until(at: Timestamp, retry: &[Duration]) -> Duration {
    let wait = Duration::try_from(Timestamp::now().duration_until(at)).unwrap_or_default();
    wait.min(longest(retry))
}
