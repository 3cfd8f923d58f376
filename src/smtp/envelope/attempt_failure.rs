//! A failure of the delivery to one recipient, in its stored form.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::smtp::reply::{EnhancedStatusCode, Reply};

/// A failed attempt for one recipient, for the queue and for reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFailure {
    /// The time of the failure.
    pub at: Timestamp,
    /// The enhanced status code, such as `4.7.5`.
    #[serde(with = "enhanced_as_text")]
    pub status: EnhancedStatusCode,
    /// A description that names host and address.
    pub text: String,
    /// The explanation for the sender, if a TLS policy was not met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// The host, if the attempt came so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The reply of the host, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
mod enhanced_as_text {
    use super::EnhancedStatusCode;
    use serde::Deserialize as _;

    pub(super) fn serialize<S: serde::Serializer>(
        code: &EnhancedStatusCode,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(code)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<EnhancedStatusCode, D::Error> {
        let text = String::deserialize(from)?;
        EnhancedStatusCode::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("not an enhanced status code"))
    }
}
