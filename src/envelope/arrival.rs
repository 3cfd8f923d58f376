//! The way on which a message came in, until the evidence has it.

use serde::{Deserialize, Serialize};

/// The session that brought a message, as JSON that [`crate::evidence`] writes at the 250 and reads once more when it
/// puts the message on record. Until then it is kept, and lost, with the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Arrival(Box<str>);

impl Arrival {
    /// Wraps the JSON.
    #[must_use]
    pub fn new(json: String) -> Self {
        Self(json.into())
    }

    /// The JSON.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.0
    }
}
