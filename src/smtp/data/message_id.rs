//! The header field `Message-ID` (RFC 5322 §3.6.4), told from the octets of a header as they pass.
//!
//! It names the message in records and nothing hangs on it, so it is taken as it stands: the first such
//! field, without its blanks and whatever a line of text must not have, and cut to a length.

/// Octets that are kept, at most.
const MAX: usize = 255;

/// What has been seen of such fields.
#[derive(Debug, Default)]
pub(super) struct MessageId {
    is_open: bool,
    has_ended: bool,
    kept: Vec<u8>,
}

impl MessageId {
    /// A field begins behind its colon.
    pub(super) fn begin(&mut self) {
        self.is_open = !self.has_ended;
    }

    /// Whether a field is passing, or has come to the end of a line that may be continued.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// One more octet of the value; line ends are left out.
    pub(super) fn octet(&mut self, octet: u8) {
        if self.is_open && self.kept.len() < MAX && matches!(octet, b'!'..=b'~' | 0x80..) {
            self.kept.push(octet);
        }
    }

    /// The field, where one is open, has ended.
    pub(super) fn end(&mut self) {
        self.has_ended |= self.is_open;
        self.is_open = false;
    }

    /// The value.
    pub(super) fn value(&self) -> Option<Box<str>> {
        let text = String::from_utf8_lossy(&self.kept);
        (!text.is_empty()).then(|| text.chars().filter(|c| !c.is_control()).collect::<String>().into())
    }
}
