//! The deadlines of a message: the report of delay, and the end of its time.

use std::time::Instant;

use crate::config::{MailSchedule, WarnAfter};
use crate::relay::running_config::Snapshot;

use super::queues::Item;

/// Returns the time of the report of delay for a message that expires at `expires`, if one is due
/// before that.
pub(super) fn warn_at(schedule: MailSchedule<'_>, expires: Instant) -> Option<Instant> {
    match schedule.warn_after {
        WarnAfter::Age(age) if age < schedule.expire => {
            // A time before the start of the machine counts as now.
            Some(
                expires
                    .checked_sub(schedule.expire.saturating_sub(age))
                    .unwrap_or_else(Instant::now),
            )
        }
        WarnAfter::Age(_) | WarnAfter::Never => None,
    }
}

/// Recomputes the deadlines of an item after `expire` changed. An item that is now expired
/// gets a last attempt.
pub(super) fn rebase_deadlines<T>(settings: &Snapshot, item: &mut Item<T>) {
    let schedule = settings.schedule(&item.host, item.user_connector.as_deref());
    let (before, expire) = (item.expire, schedule.expire);
    let awaits_notice = item.deadline < item.expires;
    let later = item.expires + expire.saturating_sub(before);
    // A time before the start of the machine counts as now.
    item.expires = later
        .checked_sub(before.saturating_sub(expire))
        .unwrap_or_else(Instant::now);
    item.expire = expire;
    item.deadline = warn_at(schedule, item.expires)
        .filter(|_| awaits_notice)
        .unwrap_or(item.expires);
}
