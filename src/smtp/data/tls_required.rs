//! The header field `TLS-Required: No` (RFC 8689 §3), told from the octets of a header as they pass.
//!
//! It lowers a guard, so it counts only as the RFC writes it: one field, blanks, "No" in any case, and
//! nothing else, neither a comment nor a blank behind it. A message with two such fields has none.

use crate::envelope::TlsRequirement;

/// What has been seen of such fields.
#[derive(Debug, Default)]
pub(super) struct TlsRequired {
    fields: u8,
    /// The value of the field that is passing.
    open: Option<Value>,
    says_no: bool,
}

/// How far a value has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Blank,
    N,
    No,
    Other,
}

impl TlsRequired {
    /// A field begins behind its colon. `as_written`: the colon followed its name at once.
    pub(super) fn begin(&mut self, as_written: bool) {
        self.fields = self.fields.saturating_add(1);
        self.open = Some(if as_written { Value::Blank } else { Value::Other });
    }

    /// Whether a field is passing, or has come to the end of a line that may be continued.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// One more octet of the value; line ends are left out.
    pub(super) fn octet(&mut self, octet: u8) {
        let Some(value) = &mut self.open else { return };
        *value = match (*value, octet) {
            (Value::Blank, b' ' | b'\t') => Value::Blank,
            (Value::Blank, b'N' | b'n') => Value::N,
            (Value::N, b'O' | b'o') => Value::No,
            (Value::Blank | Value::N | Value::No | Value::Other, _) => Value::Other,
        };
    }

    /// The field, where one is open, has ended: what follows its line end does not continue it.
    pub(super) fn end(&mut self) {
        if let Some(value) = self.open.take() {
            self.says_no = value == Value::No;
        }
    }

    /// What the fields ask for.
    pub(super) fn requirement(&self) -> TlsRequirement {
        if self.fields == 1 && self.says_no { TlsRequirement::Relaxed } else { TlsRequirement::Ordinary }
    }
}
