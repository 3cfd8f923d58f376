//! The header field `TLS-Required: No` (RFC 8689 §3), read from a header octet by octet.
//!
//! The field lowers the protection of a message, so it counts only exactly as the RFC writes it:
//! one field, blanks, "No" in any case, and neither a comment nor a blank after it. In a message
//! with two such fields, none counts.

use crate::smtp::envelope::TlsRequirement;

/// The reader of the field.
// Rule: RFC 8689 §3.
#[derive(Debug, Default)]
pub(super) struct TlsRequired {
    fields: u8,
    /// The value of the open field.
    open: Option<TlsRequiredValue>,
    says_no: bool,
}

/// The value so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TlsRequiredValue {
    Blank,
    N,
    No,
    Other,
}

impl TlsRequired {
    /// Begins a field, after its colon. `as_written` is true if the colon follows the name at once.
    pub(super) fn begin(&mut self, as_written: bool) {
        self.fields = self.fields.saturating_add(1);
        self.open = Some(if as_written {
            TlsRequiredValue::Blank
        } else {
            TlsRequiredValue::Other
        });
    }

    /// Returns true within a field, and at the end of a line that may be continued.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Adds one octet of the value. Line ends are not passed.
    pub(super) fn octet(&mut self, octet: u8) {
        let Some(value) = &mut self.open else { return };
        *value = match (*value, octet) {
            (TlsRequiredValue::Blank, b' ' | b'\t') => TlsRequiredValue::Blank,
            (TlsRequiredValue::Blank, b'N' | b'n') => TlsRequiredValue::N,
            (TlsRequiredValue::N, b'O' | b'o') => TlsRequiredValue::No,
            (
                TlsRequiredValue::Blank
                | TlsRequiredValue::N
                | TlsRequiredValue::No
                | TlsRequiredValue::Other,
                _,
            ) => TlsRequiredValue::Other,
        };
    }

    /// Ends the field if one is open: the next line does not continue it.
    pub(super) fn end(&mut self) {
        if let Some(value) = self.open.take() {
            self.says_no = value == TlsRequiredValue::No;
        }
    }

    /// Returns the TLS requirement of the header.
    pub(super) fn requirement(&self) -> TlsRequirement {
        if self.fields == 1 && self.says_no {
            TlsRequirement::Relaxed
        } else {
            TlsRequirement::Ordinary
        }
    }
}
