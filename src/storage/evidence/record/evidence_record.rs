//! One record: a delivery, an accepted message, or an event of the chain itself.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::chain::RecordHash;
use super::DeliveryRecord;
use super::acceptance::AcceptanceRecord;
use super::record_text::RecordText;

/// The content of one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EvidenceRecord {
    /// The result of one attempt for one recipient.
    Delivery(Box<DeliveryRecord>),
    /// A message was accepted.
    Accepted(Box<AcceptanceRecord>),
    /// The first record of a chain.
    Begun {
        /// The version of Gatepost that started the chain.
        gatepost: String,
    },
    /// The incomplete record that a crash left was moved to a file of its own.
    Torn {
        /// The name of that file in the same folder.
        aside: String,
        /// Its size.
        octets: u64,
    },
    /// Files are about to be deleted, and the chain then starts after them: they are older than
    /// `[evidence] keep`, or were archived.
    Dropped {
        /// The number of files.
        files: u64,
        /// The number of the last deleted record.
        last_seq: u64,
        /// The hash of the last deleted record.
        last_hash: RecordHash,
        /// The folder to which the files were archived; empty if it is not known. `None` for
        /// expired files.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        archived_to: Option<String>,
    },
    /// A kind that only a later version knows.
    #[serde(other)]
    Unknown,
}

impl EvidenceRecord {
    /// Returns the record in the form in which it is written, with its time.
    #[must_use]
    pub fn to_text(&self, at: Timestamp) -> RecordText {
        let mut fields = RecordText::begin(at);
        RecordText::append(&mut fields, self);
        RecordText {
            fields,
            is_delivery: matches!(self, Self::Delivery(_)),
        }
    }
}
