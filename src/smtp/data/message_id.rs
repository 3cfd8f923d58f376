//! The header field `Message-ID` (RFC 5322 §3.6.4), read from a header octet by octet.
//!
//! It identifies the message in records, and no decision depends on it. The first such field
//! counts; blanks and control characters are removed, and its length is limited.

/// The longest stored value in octets.
const MAX: usize = 255;

/// The reader of the field.
#[derive(Debug, Default)]
pub(super) struct MessageId {
    is_open: bool,
    has_ended: bool,
    kept: Vec<u8>,
}

impl MessageId {
    /// Begins a field, after its colon.
    pub(super) fn begin(&mut self) {
        self.is_open = !self.has_ended;
    }

    /// Returns true within the field, and at the end of a line that may be continued.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Adds one octet of the value. Line ends are not passed.
    pub(super) fn octet(&mut self, octet: u8) {
        if self.is_open && self.kept.len() < MAX && matches!(octet, b'!'..=b'~' | 0x80..) {
            self.kept.push(octet);
        }
    }

    /// Ends the field if one is open.
    pub(super) fn end(&mut self) {
        self.has_ended |= self.is_open;
        self.is_open = false;
    }

    /// Returns the value.
    pub(super) fn value(&self) -> Option<Box<str>> {
        let text = String::from_utf8_lossy(&self.kept);
        (!text.is_empty()).then(|| {
            if text.chars().any(char::is_control) {
                let printable = text.chars().filter(|c| !c.is_control());
                return printable.collect::<String>().into();
            }
            text.into()
        })
    }
}
