//! A change of a message that the database does not have and cannot have, since a page of it cannot be
//! read.

use std::sync::Arc;

use super::super::log::EnvelopePart;

/// A change that the database does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeptChange {
    /// The message was removed.
    Removed,
    /// The message has another envelope.
    Envelope {
        /// The envelope as a unit, if that was replaced.
        unit: Option<Arc<str>>,
        /// The parts that were replaced after that.
        parts: Vec<EnvelopePart>,
    },
}
