//! The records of the log for what operations write.

use std::sync::Arc;

use super::super::draft::DraftContent;
use super::super::log::{ContentPlace, LogRecord, LoggedMessage};
use super::queue::{NewMessage, Op};
use super::row::EnvelopeUpdate;
use crate::smtp::envelope::QueueId;

/// Returns the record of a new message, and whether it has a body file.
pub(super) fn record_of(message: &NewMessage) -> (LogRecord, bool) {
    let content = match &message.content {
        DraftContent::Row(octets) => ContentPlace::Here(octets.clone()),
        DraftContent::File(..) => ContentPlace::BodyFile,
    };
    let has_body_file = content == ContentPlace::BodyFile;
    let logged = LoggedMessage {
        id: message.id,
        accepted: message.accepted,
        size: message.size,
        content_crc: message.content_crc,
        envelope: Arc::clone(&message.envelope.json),
        content,
    };
    (LogRecord::Message(logged), has_body_file)
}

/// Returns the records of the reports that are stored with an operation.
pub(super) fn report_records(op: &Op) -> Vec<LogRecord> {
    match op {
        Op::Settle(settlement, _) => {
            let records = settlement.reports.iter().map(record_of);
            records.map(|(record, _)| record).collect()
        }
        Op::Commit(..) | Op::Remove(..) | Op::Ping(_) => Vec::new(),
    }
}

/// Returns the record of a new state.
pub(super) fn update_record(id: QueueId, update: &EnvelopeUpdate) -> LogRecord {
    match update {
        EnvelopeUpdate::Unit(envelope) => LogRecord::Envelope {
            id,
            envelope: Arc::clone(&envelope.json),
        },
        EnvelopeUpdate::Parts(parts) => LogRecord::Parts {
            id,
            parts: parts.clone(),
        },
    }
}
