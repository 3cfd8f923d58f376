//! The session in which a message was received, stored until the evidence has recorded it.

use serde::{Deserialize, Serialize};

use super::Reception;

/// The session in which a message was received, as JSON. [`crate::storage::evidence`] makes it
/// before the final 250, and reads it when it records the message. Until then it is stored with the
/// message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Arrival {
    json: Box<str>,
    /// True if this process has made the JSON; false if it was stored, maybe by another version.
    #[serde(skip)]
    is_new: bool,
}

/// Sessions with the same JSON are equal.
impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl Eq for Arrival {}

impl Arrival {
    /// Wraps JSON that this process has made.
    #[must_use]
    pub fn new(json: String) -> Self {
        Self {
            json: json.into(),
            is_new: true,
        }
    }

    /// Returns the JSON.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Returns the session in short; `None` if another version has stored what this one cannot read.
    #[must_use]
    pub fn reception(&self) -> Option<Reception> {
        serde_json::from_str(&self.json).ok()
    }

    /// Returns true if this process has made the JSON; false if it was stored, maybe by another
    /// version.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}
