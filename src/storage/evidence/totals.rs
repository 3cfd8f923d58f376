//! The totals of selected records: attempts by outcome, and recipients and messages by assurance.

use std::collections::BTreeMap;

use serde::Serialize;

use super::read::MailRecord;
use super::record::{DeliveryRecord, RecordedAssurance, RecordedOutcome, SessionRecord};
use super::summary::AssuranceCounts;

/// The most verified names that are counted one by one.
const NAMES_MAX: usize = 1000;

/// The totals of selected records.
#[derive(Debug, Default, Serialize)]
pub struct Totals {
    /// The delivery records by outcome.
    pub attempts: OutcomeCounts,
    /// The recipients that were delivered.
    pub recipients: AssuranceTotals,
    /// The messages that were accepted.
    pub messages: AssuranceTotals,
}

/// Counts by outcome. Each recipient of each attempt counts as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct OutcomeCounts {
    /// Recipients whose mail was delivered.
    pub delivered: u64,
    /// Recipients whose mail is retried.
    pub deferred: u64,
    /// Recipients whose mail is held until an operator releases it.
    pub held: u64,
    /// Recipients whose mail bounced.
    pub bounced: u64,
    /// Recipients that an operator removed.
    pub removed: u64,
}

/// Counts by the assurance of the session.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct AssuranceTotals {
    /// The number of all.
    pub count: u64,
    /// The numbers by assurance.
    pub levels: AssuranceCounts,
    /// The numbers by the name that was verified, for at most a thousand names.
    pub verified_as: BTreeMap<String, u64>,
}

impl OutcomeCounts {
    /// Returns the number of records.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.all().iter().map(|(_, count)| count).sum()
    }

    /// Returns every outcome with its count.
    #[must_use]
    pub fn all(&self) -> [(RecordedOutcome, u64); 5] {
        [
            (RecordedOutcome::Delivered, self.delivered),
            (RecordedOutcome::Deferred, self.deferred),
            (RecordedOutcome::Held, self.held),
            (RecordedOutcome::Bounced, self.bounced),
            (RecordedOutcome::Removed, self.removed),
        ]
    }

    fn of(&mut self, outcome: RecordedOutcome) -> &mut u64 {
        match outcome {
            RecordedOutcome::Delivered => &mut self.delivered,
            RecordedOutcome::Deferred => &mut self.deferred,
            RecordedOutcome::Held => &mut self.held,
            RecordedOutcome::Bounced => &mut self.bounced,
            RecordedOutcome::Removed => &mut self.removed,
        }
    }
}

impl Totals {
    /// Returns true if no record was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempts.total() == 0 && self.messages.count == 0
    }

    /// Counts one record.
    pub fn add(&mut self, record: &MailRecord) {
        match record {
            MailRecord::Accepted(acceptance) => self.messages.add(&acceptance.by.session),
            MailRecord::Delivery(delivery) => self.add_delivery(delivery),
        }
    }

    fn add_delivery(&mut self, delivery: &DeliveryRecord) {
        *self.attempts.of(delivery.outcome) += 1;
        if delivery.outcome != RecordedOutcome::Delivered {
            return;
        }
        match &delivery.session {
            Some(session) => self.recipients.add(session),
            // Records of a relay always have the session of a delivery.
            None => self.recipients.count += 1,
        }
    }
}

impl AssuranceTotals {
    fn add(&mut self, session: &SessionRecord) {
        self.count += 1;
        *self.levels.of(session.level) += 1;
        let name = session
            .tls
            .as_ref()
            .and_then(|tls| tls.matched_name.as_ref());
        let Some(name) = name.filter(|_| session.level == RecordedAssurance::Verified) else {
            return;
        };
        if let Some(count) = self.verified_as.get_mut(name) {
            *count += 1;
        } else if self.verified_as.len() < NAMES_MAX {
            self.verified_as.insert(name.clone(), 1);
        }
    }
}
