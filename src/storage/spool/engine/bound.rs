//! The bound of the log: the sizes from which on mail, attempts and states have to wait.
//!
//! A log that is worked off stays below the first of them. No size of the log holds removals up: there
//! is at most one for each message and each recipient.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::log::LogFolder;
use crate::telemetry::Monitor;

/// The number of segments up to which the log takes new mail.
const MAIL: u64 = 4;
/// The number of segments above which delivery attempts start one at a time.
const ATTEMPTS: u64 = 6;
/// The number of segments up to which the log takes states and reports. The attempts that run when
/// the log has reached [`ATTEMPTS`] have the rest.
const STATES: u64 = 8;

/// The kinds of operations, by the size of the log up to which they are written. A batch is of the
/// greatest kind in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LogShare {
    /// Removals, and states that do nothing but end recipients.
    Removals,
    /// States of messages, and reports.
    States,
    /// New mail.
    Mail,
}

impl LogShare {
    /// Returns the size in octets up to which the log grows for this kind.
    pub(super) fn bound(self, log: &LogFolder) -> u64 {
        match self {
            Self::Removals => u64::MAX,
            Self::States => STATES * log.segment_size(),
            Self::Mail => MAIL * log.segment_size(),
        }
    }
}

/// The room for states: scarce while the log is long, or while states are rejected because the disk
/// is full.
#[derive(Debug, Default)]
pub(super) struct StateRoom {
    reasons: Mutex<ScarceReasons>,
    is_scarce: AtomicBool,
}

/// The reasons why the room for states is scarce.
#[derive(Debug, Default, Clone, Copy)]
struct ScarceReasons {
    is_log_long: bool,
    is_rejecting: bool,
}

impl StateRoom {
    /// Returns whether an attempt that starts now may find no room for its result.
    pub(super) fn is_scarce(&self) -> bool {
        self.is_scarce.load(Ordering::Relaxed)
    }

    /// Sets the size of the log in octets.
    pub(super) fn set_log(&self, octets: u64, log: &LogFolder, monitor: &Monitor) {
        let is_long = octets > ATTEMPTS * log.segment_size();
        self.change(monitor, |reasons| reasons.is_log_long = is_long);
    }

    /// Sets whether the latest state was rejected because the disk or the log is full.
    pub(super) fn set_rejecting(&self, is_rejecting: bool, monitor: &Monitor) {
        self.change(monitor, |reasons| reasons.is_rejecting = is_rejecting);
    }

    fn change(&self, monitor: &Monitor, change: impl FnOnce(&mut ScarceReasons)) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut reasons);
        let is_scarce = reasons.is_log_long || reasons.is_rejecting;
        if self.is_scarce.swap(is_scarce, Ordering::Relaxed) == is_scarce {
            return;
        }
        monitor.spool_scarce(is_scarce);
        if is_scarce {
            tracing::error!(
                "spool has hardly any room for the results of deliveries; attempts start one at a time, and bounces wait, until it has"
            );
        } else {
            tracing::info!(
                "spool has room for the results of deliveries again; attempts start as before"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long log and a full disk make room scarce independently of each other.
    #[test]
    fn room_is_scarce_for_as_long_as_there_is_a_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogFolder::existing(folder.path()).with_segments_of(100);
        let (room, monitor) = (StateRoom::default(), Monitor::default());
        for (octets, is_rejecting, is_scarce) in [
            (600, false, false),
            (601, false, true),
            (601, true, true),
            (600, true, true),
            (600, false, false),
        ] {
            room.set_log(octets, &log, &monitor);
            room.set_rejecting(is_rejecting, &monitor);
            assert_eq!(room.is_scarce(), is_scarce, "{octets} {is_rejecting}");
        }
    }
}
