//! Builds the event of each recipient: of the result of an attempt, or of a deadline.

use std::time::Instant;

use jiff::Timestamp;

use crate::config::{Connector, MailSchedule, write_duration};
use crate::policy::failure::{Failure, Persistence, RecipientOutcome};
use crate::relay::outbound::{
    Attempt, AttemptResult, EventOrigin, RecipientEnding, RecipientEvent, RecipientResult,
};
use crate::relay::running_config::Snapshot;
use crate::smtp::envelope::AttemptFailure;
use crate::smtp::reply::{EnhancedStatusCode, Status};

use super::attempt::PlannedAttempt;
use super::attempt_failure::{attempt_failure, is_of_content};
use super::retry_schedule::wait;

/// The schedule of a message at the time of its events.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageSchedule<'a> {
    /// The configuration in use, which may be newer than that of the attempt.
    pub(super) settings: &'a Snapshot,
    /// The schedule of mail for the recipient domain.
    pub(super) times: MailSchedule<'a>,
    pub(super) now: Instant,
    pub(super) expires: Instant,
}

impl MessageSchedule<'_> {
    /// Returns true when the message has expired.
    pub(super) fn is_over(&self) -> bool {
        self.now >= self.expires
    }

    /// Returns the failure of an expired message: 5.4.7, with the last reason.
    fn expired(&self, last: AttemptFailure) -> AttemptFailure {
        let age = write_duration(self.times.expire);
        AttemptFailure {
            status: EnhancedStatusCode::permanent(Status(4, 7)),
            text: format!(
                "not delivered within {age}; the last attempt failed because: {} ({})",
                last.text, last.status
            ),
            ..last
        }
    }
}

/// Returns the events of an attempt, one for each recipient.
pub(super) fn of_attempt<'a>(
    schedule: MessageSchedule<'_>,
    planned: &'a PlannedAttempt,
    report: &'a AttemptResult,
    origin: EventOrigin,
) -> Vec<RecipientEvent<'a>> {
    let attempt = &planned.attempt;
    let event = |result: &'a RecipientResult| {
        let attempts = planned.number(result.recipient);
        Some(RecipientEvent {
            attempt,
            recipient: result.recipient,
            mailbox: &attempt
                .entry
                .envelope
                .recipients
                .get(result.recipient)?
                .mailbox,
            origin,
            snapshot: &report.snapshot,
            connector: &report.connector,
            attempts,
            result: Some(result),
            ending: ending(schedule, planned, report, result),
        })
    };
    report.results.iter().filter_map(event).collect()
}

/// Returns the event of a recipient whose message has expired without another attempt, after this
/// failure.
pub(super) fn of_expiry<'a>(
    schedule: MessageSchedule<'a>,
    (attempt, connector): (&'a Attempt, &'a Connector),
    recipient: usize,
    last: AttemptFailure,
) -> Option<RecipientEvent<'a>> {
    let settings = schedule.settings;
    Some(RecipientEvent {
        attempt,
        recipient,
        mailbox: &attempt.entry.envelope.recipients.get(recipient)?.mailbox,
        origin: EventOrigin::Deadline,
        snapshot: settings,
        connector,
        attempts: 0,
        result: None,
        ending: RecipientEnding::Bounced {
            last: schedule.expired(last),
            is_of_content: false,
        },
    })
}

/// Returns the outcome in the queue.
fn ending<'a>(
    schedule: MessageSchedule<'_>,
    planned: &PlannedAttempt,
    report: &AttemptResult,
    result: &'a RecipientResult,
) -> RecipientEnding<'a> {
    let stored = |failure: &Failure, ends_as| {
        let recipient = Some(&planned.attempt.host);
        attempt_failure(
            failure,
            &result.trail,
            ends_as,
            &report.connector,
            recipient,
            &report.snapshot.config.hostname,
        )
    };
    match &result.outcome {
        RecipientOutcome::Delivered(reply) => RecipientEnding::Delivered(reply),
        RecipientOutcome::Bounced(failure) => RecipientEnding::Bounced {
            last: stored(failure, Persistence::Permanent),
            is_of_content: is_of_content(failure) && result.via.is_some(),
        },
        RecipientOutcome::Held(failure) => RecipientEnding::Held {
            last: stored(failure, Persistence::Transient),
        },
        RecipientOutcome::Deferred(failure) => {
            let last = stored(failure, Persistence::Transient);
            if schedule.is_over() {
                return RecipientEnding::Bounced {
                    last: schedule.expired(last),
                    is_of_content: false,
                };
            }
            let MessageSchedule {
                times,
                now,
                expires,
                ..
            } = schedule;
            let attempts = planned.number(result.recipient);
            let due = (now + wait(times.retry, attempts)).min(expires);
            let next = Timestamp::now() + due.saturating_duration_since(now);
            RecipientEnding::Deferred { last, due, next }
        }
    }
}
