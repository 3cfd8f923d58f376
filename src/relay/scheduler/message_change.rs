//! The change that a job makes to a message, until it is stored.

use std::sync::Arc;

use jiff::Timestamp;

use crate::smtp::address::{Host, Mailbox};
use crate::smtp::envelope::{AttemptFailure, Envelope, Recipient, RecipientState};
use crate::storage::evidence::EvidenceRecord;
use crate::storage::spool::Entry;

/// The change of a message by one job.
pub(super) struct MessageChange {
    /// The message as the job has loaded it.
    pub(super) entry: Arc<Entry>,
    pub(super) recipients: Vec<RecipientChange>,
    /// The evidence of the change, each record with its time.
    pub(super) evidence: Vec<(Timestamp, EvidenceRecord)>,
    /// True if reports must not return content, because a hop of the message required TLS.
    pub(super) is_confidential: bool,
    pub(super) reports: ReportStep,
}

/// The new state of a recipient.
pub(super) struct RecipientChange {
    /// The index of the recipient in the envelope.
    pub(super) at: usize,
    pub(super) state: RecipientState,
    owed: OwedChange,
}

/// The change of the report that is owed about a recipient.
enum OwedChange {
    /// The job changes nothing about it. Another job may have stored the report meanwhile.
    Nothing,
    /// From now on this report is owed, or none.
    Set(Option<Box<AttemptFailure>>),
}

/// The step of a change that concerns the reports which the message owes to its sender.
pub(super) enum ReportStep {
    /// A result: the reports are stored unless recipients of other domains than these may follow.
    AfterResult {
        hosts: Vec<Host>,
        /// The time at which the message expires.
        until: Timestamp,
    },
    /// The reports are due, and the rate limit has admitted the first one.
    Due {
        /// The time at which the message expires.
        until: Timestamp,
    },
    /// The postmaster's digest has these recipients.
    InDigest(Vec<(Mailbox, AttemptFailure)>),
}

/// The result of storing the owed reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreResult {
    /// No report is owed any more.
    All,
    /// The rate limit does not admit a report now.
    OverRate,
    /// The spool could not store a report.
    Failed,
}

/// The result of a write into the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateWrite {
    Done,
    /// The spool has no room. The recipients that have ended are stored; the others are as before, and
    /// are tried again.
    Postponed,
    /// The process is ending, or the message is another owner's.
    Aborted,
}

/// The result of storing a change, and with it the reports that were due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled {
    pub(super) state: StateWrite,
    pub(super) reports: StoreResult,
}

impl RecipientChange {
    /// Returns the change that makes a recipient of the envelope, which was `before`, like this one.
    pub(super) fn between(at: usize, before: Option<&Recipient>, after: Recipient) -> Self {
        let Recipient { state, owed, .. } = after;
        let is_same = before.is_some_and(|before| before.owed == owed);
        // A bounce is reported, whatever was owed before.
        let is_set = !is_same || state == RecipientState::Failed;
        Self {
            at,
            state,
            owed: if is_set {
                OwedChange::Set(owed)
            } else {
                OwedChange::Nothing
            },
        }
    }

    fn apply_to(self, recipient: &mut Recipient) {
        recipient.state = self.state;
        if let OwedChange::Set(owed) = self.owed {
            recipient.owed = owed;
        }
    }
}

impl MessageChange {
    /// Returns a change of nothing but the owed reports.
    pub(super) fn of_reports(entry: &Arc<Entry>, reports: ReportStep) -> Self {
        Self {
            entry: Arc::clone(entry),
            recipients: Vec::new(),
            evidence: Vec::new(),
            is_confidential: false,
            reports,
        }
    }

    /// Adds the change of other recipients by the same result.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.recipients.extend(other.recipients);
        self.evidence.extend(other.evidence);
        self.is_confidential |= other.is_confidential;
        if let (
            ReportStep::AfterResult { hosts, .. },
            ReportStep::AfterResult { hosts: others, .. },
        ) = (&mut self.reports, other.reports)
        {
            hosts.extend(others);
        }
        self
    }

    /// Changes an envelope. Returns the evidence and the step that concerns the reports.
    pub(super) fn apply(
        self,
        envelope: &mut Envelope,
    ) -> (Vec<(Timestamp, EvidenceRecord)>, ReportStep) {
        for change in self.recipients {
            if let Some(recipient) = envelope.recipients.get_mut(change.at) {
                change.apply_to(recipient);
            }
        }
        envelope.confidential |= self.is_confidential;
        if let ReportStep::InDigest(reported) = &self.reports {
            for recipient in &mut envelope.recipients {
                let mailbox = &recipient.mailbox;
                recipient.owed.take_if(|owed| {
                    reported
                        .iter()
                        .any(|(to, last)| to == mailbox && *last == **owed)
                });
            }
        }
        (self.evidence, self.reports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::{EnhancedStatusCode, Status};

    fn recipient(owed: Option<&AttemptFailure>) -> Recipient {
        let mailbox = Mailbox::parse("b@example.net").expect("valid");
        Recipient {
            owed: owed.cloned().map(Box::new),
            ..Recipient::new(mailbox)
        }
    }

    /// While an attempt runs, the report that was owed is stored: its result does not make it owed again.
    #[test]
    fn a_result_changes_nothing_about_a_report_that_it_does_not_owe() {
        let [old, new] = ["later", "never"].map(|text| AttemptFailure {
            at: Timestamp::UNIX_EPOCH,
            status: EnhancedStatusCode::transient(Status(0, 0)),
            text: text.to_owned(),
            explanation: None,
            host: None,
            reply: None,
        });
        // Before the attempt, at its end, whether it failed for good, and what is owed afterwards.
        for (before, after, has_failed, expected) in [
            (Some(&old), Some(&old), false, None),
            (Some(&old), Some(&new), false, Some(&new)),
            (Some(&old), Some(&old), true, Some(&old)),
            (None, Some(&new), false, Some(&new)),
            (None, None, false, None),
            (Some(&old), None, false, None),
        ] {
            let mut ended = recipient(after);
            if has_failed {
                ended.state = RecipientState::Failed;
            }
            let before = recipient(before);
            let change = RecipientChange::between(0, Some(&before), ended);
            // Its report was stored meanwhile.
            let mut stored = recipient(None);
            change.apply_to(&mut stored);
            assert_eq!(stored.owed.as_deref(), expected, "{before:?}");
        }
    }
}
