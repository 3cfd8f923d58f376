//! A failure of one recipient's delivery, as it is stored.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::smtp::reply::{EnhancedStatusCode, Reply};

/// A failure as the queue remembers it and reports tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When it happened.
    pub at: Timestamp,
    /// Its status, `4.7.5` and the like.
    #[serde(with = "enhanced_as_text")]
    pub status: EnhancedStatusCode,
    /// What happened, in words, naming host and address.
    pub text: String,
    /// The host that was spoken to, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What the peer said, where it said something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
mod enhanced_as_text {
    use super::EnhancedStatusCode;
    use serde::Deserialize as _;

    pub(super) fn serialize<S: serde::Serializer>(code: &EnhancedStatusCode, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(code)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<EnhancedStatusCode, D::Error> {
        let text = String::deserialize(from)?;
        EnhancedStatusCode::parse(&text).ok_or_else(|| serde::de::Error::custom("not an enhanced status code"))
    }
}
