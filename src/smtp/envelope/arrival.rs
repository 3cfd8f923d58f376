//! The session in which a message was received, stored until the evidence has recorded it.

use serde::{Deserialize, Serialize};

/// The session in which a message was received, as JSON. [`crate::storage::evidence`] makes it
/// before the final 250, and reads it when it records the message. Until then it is stored with the
/// message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Arrival(Box<str>);

impl Arrival {
    /// Wraps the JSON.
    #[must_use]
    pub fn new(json: String) -> Self {
        Self(json.into())
    }

    /// Returns the JSON.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.0
    }
}
