//! The messages that are sent: 4 KiB each, and each with a number of its own, by which the sink tells
//! which one it got. Not a parser of mail: the number stands in the last line, wherever a relay put its fields.

/// The size of a message as the client sends it, header and body, in octets.
pub(crate) const OCTETS: usize = 4096;

/// The envelope of every message, as one pipelined group of commands.
pub(crate) const ENVELOPE: &[u8] = b"MAIL FROM:<sender@bench.example>\r\nRCPT TO:<recipient@sink.example>\r\nDATA\r\n";

/// The domain of the recipient: one for all, so that either relay sees one destination.
pub(crate) const DESTINATION: &str = "sink.example";

/// What ends the content on the wire.
pub(crate) const END: &[u8] = b"\r\n.\r\n";

const MARK: &str = "Number of this message: ";
const DIGITS: usize = 10;

/// One message, made once and sent many times under different numbers.
pub(crate) struct Message {
    octets: Vec<u8>,
    /// Where the number stands: in the Message-ID, and in the last line.
    places: [usize; 2],
}

impl Message {
    /// The message with every field that a relay would add if it were missing.
    pub(crate) fn new() -> Self {
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
        // Lines as people write them: 70 characters, and what is left in a shorter last one.
        while octets.len() + tail < OCTETS {
            let line = (OCTETS - tail - octets.len()).min(72);
            octets.extend(b"The quick brown fox jumps over the lazy dog. ".iter().cycle().take(line.max(2) - 2));
            octets.extend_from_slice(b"\r\n");
        }
        octets.extend_from_slice(MARK.as_bytes());
        let last = octets.len();
        octets.extend_from_slice(&[b'0'; DIGITS]);
        octets.extend_from_slice(END);
        Self { octets, places: [id, last] }
    }

    /// The message under this number, with the dot that ends it.
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

/// The number of a message that arrived, given its content up to the CRLF before the dot, that one left
/// out. `None` if it is none of ours, or came in pieces: a bounce, say.
pub(crate) fn number_of(content: &[u8]) -> Option<usize> {
    // A relay adds to a message; what is shorter has lost something.
    if content.len() + 2 < OCTETS {
        return None;
    }
    let (before, digits) = content.split_last_chunk::<DIGITS>()?;
    before.ends_with(MARK.as_bytes()).then_some(())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
