//! The messages of the benchmark, with a number by which the sink identifies them. The number is in
//! the last line, wherever a relay adds its fields.

/// The size of a small message as the client sends it, header and body, in octets.
pub(crate) const SMALL: usize = 4096;
/// The size of a large one.
pub(crate) const LARGE: usize = 5 << 20;

/// The envelope of every message, as one pipelined group of commands.
pub(crate) const ENVELOPE: &[u8] =
    b"MAIL FROM:<sender@bench.example>\r\nRCPT TO:<recipient@sink.example>\r\nDATA\r\n";

/// The domain of the recipients: one for all, so that each relay sees one destination.
pub(crate) const DESTINATION: &str = "sink.example";

/// The end of the content on the wire.
pub(crate) const END: &[u8] = b"\r\n.\r\n";

const MARK: &str = "Number of this message: ";
const DIGITS: usize = 10;

/// A message, made once and sent many times with different numbers.
pub(crate) struct Message {
    octets: Vec<u8>,
    /// The positions of the number: in the Message-ID, and in the last line.
    places: [usize; 2],
}

impl Message {
    /// Creates the message of this size with every field that a relay would add if it were missing.
    pub(crate) fn new(size: usize) -> Self {
        let header = "From: Sender <sender@bench.example>\r\n\
            To: Recipient <recipient@sink.example>\r\n\
            Subject: How fast mail gets through\r\n\
            Date: Mon, 23 Nov 2026 12:00:00 +0000\r\n\
            MIME-Version: 1.0\r\n\
            Content-Type: text/plain; charset=us-ascii\r\n\
            Message-ID: <";
        let mut octets = header.as_bytes().to_vec();
        let id = octets.len();
        octets.extend_from_slice(&[b'0'; DIGITS]);
        octets.extend_from_slice(b"@bench.example>\r\n\r\n");
        let tail = MARK.len() + DIGITS + 2;
        // The lines have 70 characters, and the last one is shorter.
        while octets.len() + tail < size {
            let line = (size - tail - octets.len()).min(72);
            octets.extend(
                b"The quick brown fox jumps over the lazy dog. "
                    .iter()
                    .cycle()
                    .take(line.max(2) - 2),
            );
            octets.extend_from_slice(b"\r\n");
        }
        octets.extend_from_slice(MARK.as_bytes());
        let last = octets.len();
        octets.extend_from_slice(&[b'0'; DIGITS]);
        octets.extend_from_slice(END);
        Self {
            octets,
            places: [id, last],
        }
    }

    /// Returns the message with this number, and the dot that ends it.
    pub(crate) fn numbered(&mut self, number: usize) -> &[u8] {
        for place in self.places {
            let mut rest = number;
            for digit in self.octets[place..place + DIGITS].iter_mut().rev() {
                *digit = b"0123456789"[rest % 10];
                rest /= 10;
            }
        }
        &self.octets
    }
}

/// Returns the number of an arrived message, from its content without the last CRLF. `None` if the
/// message is foreign, such as a bounce, or damaged. `size` is the size of the messages that are
/// sent.
pub(crate) fn number_of(content: &[u8], size: usize) -> Option<usize> {
    // A relay only adds to a message, so a shorter one has lost something.
    if content.len() + 2 < size {
        return None;
    }
    let (before, digits) = content.split_last_chunk::<DIGITS>()?;
    before.ends_with(MARK.as_bytes()).then_some(())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
