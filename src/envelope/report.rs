//! What makes a message a report of ours to a sender (RFC 3464).

use serde::{Deserialize, Serialize};

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportForm {
    /// With parts for people and for programs, and with what is returned of the message.
    Full,
    /// Text alone, after a host refused the full form.
    Plain,
}
