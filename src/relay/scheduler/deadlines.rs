//! The deadlines of a message: the report of delay, and the end of its time.

use std::time::Instant;

use crate::config::WarnAfter;
use crate::relay::running_config::Snapshot;

use super::queues::Item;

/// Returns the time of the report of delay for a message that expires at `expires`, if one is due
/// before that.
pub(super) fn warn_at(settings: &Snapshot, expires: Instant) -> Option<Instant> {
    let queue = &settings.config.queue;
    match queue.warn_after {
        WarnAfter::Age(age) if age < queue.expire => {
            // A time before the start of the machine counts as now.
            Some(
                expires
                    .checked_sub(queue.expire.saturating_sub(age))
                    .unwrap_or_else(Instant::now),
            )
        }
        WarnAfter::Age(_) | WarnAfter::Never => None,
    }
}

/// Recomputes the deadlines of an item after `[queue] expire` changed. An item that is now expired
/// gets a last attempt.
pub(super) fn rebase_deadlines<T>(settings: &Snapshot, item: &mut Item<T>) {
    let (before, expire) = (item.expire, settings.config.queue.expire);
    let awaits_notice = item.deadline < item.expires;
    let later = item.expires + expire.saturating_sub(before);
    // A time before the start of the machine counts as now.
    item.expires = later
        .checked_sub(before.saturating_sub(expire))
        .unwrap_or_else(Instant::now);
    item.expire = expire;
    item.deadline = warn_at(settings, item.expires)
        .filter(|_| awaits_notice)
        .unwrap_or(item.expires);
}
