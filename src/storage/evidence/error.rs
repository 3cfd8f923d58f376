//! The errors of the evidence.

use std::path::Path;

/// The error of writing or reading evidence: what failed, where, and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EvidenceError(pub(super) String);

impl EvidenceError {
    pub(super) fn new(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self(format!("cannot {what} {}: {error}", path.display()))
    }
}

/// The error of a record that was not written because the process is about to end. Its delivery
/// must be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the evidence has been closed")]
pub struct NotWritten;
