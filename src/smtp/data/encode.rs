//! The encoding of content for DATA: dot-stuffing and the final dot (RFC 5321 §4.5.2).

use memchr::memmem;

/// Encodes content as the client side of DATA must send it.
///
/// The input is content as the spool stores it, with CRLF line ends and without dot-stuffing. A dot
/// is doubled after *any* LF: even content that broke this rule could not end the message early at
/// a careless server.
// Rule: RFC 5321 §4.1.1.4, §4.5.2.
#[derive(Debug)]
pub struct Stuffer {
    /// The last two octets pushed. They start as a line end, since the content begins a line.
    last: [u8; 2],
}

impl Stuffer {
    /// Starts a message.
    #[must_use]
    pub fn new() -> Self {
        Self { last: *b"\r\n" }
    }

    /// Appends the next part of the content to `out`, dot-stuffed.
    pub fn push(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let [.., last] = content else { return };
        let before = content.iter().nth_back(1).unwrap_or(&self.last[1]);
        let is_line_start = self.last[1] == b'\n';
        self.last = [*before, *last];
        out.reserve(content.len() + 1);
        if is_line_start && content[0] == b'.' {
            out.push(b'.');
        }
        let mut copied = 0;
        for line_end in memmem::find_iter(content, b"\n.") {
            out.extend_from_slice(&content[copied..=line_end]);
            out.push(b'.');
            copied = line_end + 1;
        }
        out.extend_from_slice(&content[copied..]);
    }

    /// Ends the message: appends the CRLF of the last line if it is missing, then `.` and CRLF.
    ///
    /// A message received by BDAT may lack its last CRLF, which DATA cannot express (RFC 3030 §3).
    pub fn finish(self, out: &mut Vec<u8>) {
        let end: &[u8] = match self.last {
            [b'\r', b'\n'] => b".\r\n",
            [_, b'\r'] => b"\n.\r\n",
            _ => b"\r\n.\r\n",
        };
        out.extend_from_slice(end);
    }
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuffed(chunks: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut stuffer = Stuffer::new();
        for chunk in chunks {
            stuffer.push(chunk, &mut out);
        }
        stuffer.finish(&mut out);
        String::from_utf8(out).expect("test content is ASCII")
    }

    #[test]
    fn every_line_that_begins_with_a_dot_gets_another() {
        assert_eq!(
            stuffed(&[b".a\r\nb.\r\n.\r\n..\r\n"]),
            "..a\r\nb.\r\n..\r\n...\r\n.\r\n"
        );
    }

    #[test]
    fn a_missing_last_line_end_is_added() {
        assert_eq!(stuffed(&[]), ".\r\n");
        assert_eq!(stuffed(&[b"a"]), "a\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\r\n", b""]), "a\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\r"]), "a\r\n.\r\n");
        // A bare LF ends no line. The dot after it would end no message, and the server would wait
        // for ever.
        assert_eq!(stuffed(&[b"a\n"]), "a\n\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\r", b"\n"]), "a\r\n.\r\n");
        assert_eq!(stuffed(&[b"a", b"\n"]), "a\n\r\n.\r\n");
    }

    #[test]
    fn the_result_does_not_depend_on_chunk_sizes() {
        let content = b".\r\n..\r\na.b\r\n\r\n.\r\n.x";
        let whole = stuffed(&[content]);
        for cut in 0..=content.len() {
            assert_eq!(
                stuffed(&[&content[..cut], &content[cut..]]),
                whole,
                "cut at {cut}"
            );
        }
        let single: Vec<&[u8]> = content.chunks(1).collect();
        assert_eq!(stuffed(&single), whole);
    }
}
