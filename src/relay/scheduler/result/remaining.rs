//! The work that remains for the recipients of an attempt after its result is stored.

use std::time::Instant;

/// The work that remains for the recipients of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay::scheduler) enum RemainingWork {
    /// No recipient is pending.
    Nothing,
    /// The process is ending and the result could not be stored. The next start continues from the
    /// earlier state.
    NotStored,
    /// Another attempt.
    Retry {
        /// The time of the attempt.
        due: Instant,
        /// The next deadline: a report of delay, or the end of the message's time.
        deadline: Instant,
    },
}

impl RemainingWork {
    /// Joins the work that remains for other recipients; the earlier times win.
    pub(super) fn or(self, other: Self) -> Self {
        match other {
            Self::Nothing | Self::NotStored => self,
            Self::Retry { due, deadline } => self.and(due, deadline),
        }
    }

    /// Adds an attempt at `due` with a deadline; the earlier times win.
    pub(super) fn and(self, due: Instant, deadline: Instant) -> Self {
        match self {
            Self::Nothing | Self::NotStored => Self::Retry { due, deadline },
            Self::Retry {
                due: earlier,
                deadline: sooner,
            } => Self::Retry {
                due: due.min(earlier),
                deadline: deadline.min(sooner),
            },
        }
    }
}
