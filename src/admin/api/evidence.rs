//! The evidence in the JSON of the admin socket.
//!
//! `POST /v1/evidence/close-day` closes the newest day before its end, so that it can be archived, and
//! responds with a [`ClosedDay`]. Records that follow go to the file of the day after it.
//!
//! `POST /v1/evidence/archived` takes [`ArchivedDays`](crate::storage::evidence::ArchivedDays), removes
//! these days, and responds with an [`EvidenceStatus`], or `null` if no evidence is kept.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// The day that was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedDay {
    /// The day; `null` if there is no record.
    pub day: Option<Date>,
}

/// The size of the evidence and its limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// The size of the records in octets, compressed or not.
    pub octets: u64,
    /// The limit `[evidence] max_size` in octets.
    pub max_octets: u64,
    /// The share of the limit that is used, in percent.
    pub percent: u64,
    /// `normal`; from 80 % on `filling`, from 90 % on `nearly_full`; from 95 % on `rejects_mail`; at
    /// the limit `full`, when deliveries wait as well.
    pub level: String,
    /// True while new mail is rejected because of the limit.
    pub rejects_mail: bool,
    /// True while records wait because they cannot be written.
    pub stuck: bool,
}
