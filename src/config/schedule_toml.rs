//! `retry`, `expire` and `warn_after` of a connector.

use std::time::Duration;

use super::fault_list::FaultList;
use super::reader::{Field, TableReader};
use super::tables::{retry, warn_after, warn_of_one_attempt};
use super::values::duration;
use crate::policy::connector::ScheduleOverrides;

/// Reads the keys, which are those of `[queue]`.
pub(super) fn schedule_overrides(
    table: &mut TableReader<'_>,
    faults: &mut FaultList<'_>,
) -> ScheduleOverrides {
    let retry: Option<Vec<Duration>> = optional(table.read(faults, "retry", retry));
    let expire = table.read(faults, "expire", duration);
    if let (Some(expire), Some(retry)) = (expire.located(), &retry) {
        warn_of_one_attempt(&expire.location, expire.value, retry, faults);
    }
    ScheduleOverrides {
        retry,
        expire: optional(expire),
        warn_after: optional(table.read(faults, "warn_after", warn_after)),
    }
}

fn optional<T>(field: Field<T>) -> Option<T> {
    match field {
        Field::Valid(located) => Some(located.value),
        Field::Absent | Field::Invalid => None,
    }
}
