//! The state of the `[[recipients]]` tables.

use crate::admin::api::recipients::RecipientsStatus;
use crate::relay::recipient_tables::{RecipientTables, TableReading};
use crate::telemetry::RecipientReading;

/// Returns the state of each table, for status and page.
pub(super) fn status(tables: &RecipientTables) -> Vec<RecipientsStatus> {
    tables.readings().iter().map(table).collect()
}

fn table(reading: &TableReading) -> RecipientsStatus {
    let rules = &reading.rules;
    RecipientsStatus {
        domains: rules.domains.iter().map(ToString::to_string).collect(),
        from: rules.source.key().to_owned(),
        addresses: reading.listed.map(|(addresses, _)| addresses as u64),
        known: reading.known as u64,
        unknown: reading.unknown as u64,
        pending: reading.pending as u64,
        trouble: reading.trouble.as_ref().map(ToString::to_string),
        on_trouble: rules.on_trouble.as_str().to_owned(),
        unchecked: reading
            .accepts_any
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

/// Returns the state of each table, for the metrics.
pub(super) fn readings(tables: &RecipientTables) -> Vec<RecipientReading> {
    let reading = |reading: &TableReading| RecipientReading {
        domains: reading.rules.label(),
        remembered: (reading.known + reading.unknown) as u64,
        pending: reading.pending as u64,
        is_in_trouble: reading.trouble.is_some(),
        unchecked_domains: reading.accepts_any.len() as u64,
    };
    tables.readings().iter().map(reading).collect()
}
