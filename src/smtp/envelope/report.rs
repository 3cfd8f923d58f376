//! The marks of a message that is a report of ours to a sender (RFC 3464).

use serde::{Deserialize, Serialize};

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportForm {
    /// A report with parts for people and for programs, and with the returned content.
    Full,
    /// Plain text only, after a host rejected the full form.
    Plain,
}
