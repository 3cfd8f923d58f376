//! The decoding of DATA: dot-unstuffing and the search for the end (RFC 5321 §4.5.2).

use memchr::memmem;

/// The meaning of the next octets of DATA.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// All octets were used, and the message goes on.
    More,
    /// Content, after dot-unstuffing.
    Content(&'a [u8]),
    /// The end of the message. Commands follow.
    End,
}

/// The place in a line at which the octets so far have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DecoderState {
    /// After CRLF, or before the first octet.
    LineStart,
    /// After a dot at the start of a line, which is not content.
    Dot,
    /// After such a dot and a CR, which is held back.
    DotCr,
    /// After a CR that was returned as content.
    Cr,
    /// Anywhere else.
    Middle,
}

/// Decodes the octets that follow DATA into content and its end.
///
/// Only CRLF, dot, CRLF ends a message, and only a dot after CRLF is stuffed. A bare CR or LF is
/// content here; [`super::Inspector`] rejects it.
// Rule: RFC 5321 §4.1.1.4, §4.5.2, §4.5.3.1.6.
#[derive(Debug)]
pub struct Decoder {
    at: DecoderState,
}

impl Decoder {
    /// Starts after the CRLF of the DATA command, which counts as a line end (RFC 5321 §4.1.1.4).
    #[must_use]
    pub fn new() -> Self {
        Self {
            at: DecoderState::LineStart,
        }
    }

    /// Takes octets of one kind from the front of `input`. Returns their number and meaning.
    /// Content is never empty, and a slice of `input` wherever possible.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> (usize, Decoded<'a>) {
        let mut used = 0;
        while let Some(first) = input.get(used) {
            match (self.at, first) {
                (DecoderState::LineStart, b'.') => self.at = DecoderState::Dot,
                (DecoderState::Dot, b'\r') => self.at = DecoderState::DotCr,
                (DecoderState::DotCr, b'\n') => return (used + 1, Decoded::End),
                (DecoderState::DotCr, _) => {
                    self.at = DecoderState::Cr;
                    return (used, Decoded::Content(b"\r"));
                }
                (DecoderState::Cr, b'\n') => {
                    self.at = DecoderState::LineStart;
                    return (used + 1, Decoded::Content(&input[used..=used]));
                }
                (
                    DecoderState::LineStart
                    | DecoderState::Dot
                    | DecoderState::Cr
                    | DecoderState::Middle,
                    _,
                ) => {
                    let content = self.content(&input[used..]);
                    return (used + content.len(), Decoded::Content(content));
                }
            }
            used += 1;
        }
        (used, Decoded::More)
    }

    /// Returns the content up to the next dot at the start of a line, or all of it.
    fn content<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        if let Some(line_end) = memmem::find(input, b"\r\n.") {
            self.at = DecoderState::LineStart;
            return &input[..line_end + 2];
        }
        self.at = match input {
            [.., b'\r', b'\n'] => DecoderState::LineStart,
            [.., b'\r'] => DecoderState::Cr,
            _ => DecoderState::Middle,
        };
        input
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Stuffer;
    use super::*;

    /// Returns the content and the octets after its end, or `None` if it does not end.
    fn decoded<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut decoder, mut content, mut rest, mut ended) =
            (Decoder::new(), Vec::new(), Vec::new(), false);
        for mut chunk in chunks {
            while !ended {
                let (used, what) = decoder.decode(chunk);
                chunk = &chunk[used..];
                match what {
                    Decoded::More => break,
                    Decoded::Content(octets) => content.extend_from_slice(octets),
                    Decoded::End => ended = true,
                }
            }
            if ended {
                rest.extend_from_slice(chunk);
            }
        }
        ended.then_some((content, rest))
    }

    fn decoded_text(input: &str) -> Option<(String, String)> {
        let text = |octets| String::from_utf8(octets).expect("test content is UTF-8");
        decoded([input.as_bytes()]).map(|(content, rest)| (text(content), text(rest)))
    }

    #[test]
    fn only_crlf_dot_crlf_ends_a_message() {
        assert_eq!(
            decoded_text(".\r\nQUIT\r\n"),
            Some((String::new(), "QUIT\r\n".into()))
        );
        assert_eq!(
            decoded_text("a\r\n.\r\n"),
            Some(("a\r\n".into(), String::new()))
        );
        for open in [
            "a\n.\n",
            "a\n.\r\n",
            "a\r\n.\n",
            "a\r.\r",
            "a\r.\r\n",
            "a\r\n.\r",
            "a\r\n.\r\r\n",
            "a\r\n..\r\n",
            "a.\r\n",
            ".\n",
            "\n.\r\n",
            "\r.\r\n",
        ] {
            assert_eq!(decoded_text(open), None, "{open:?} ended the message");
        }
    }

    #[test]
    fn input_after_a_false_end_is_content() {
        assert_eq!(
            decoded_text("a\n.\nb\r\n.\r\n"),
            Some(("a\n.\nb\r\n".into(), String::new()))
        );
        assert_eq!(
            decoded_text("a\r\n.\r\r\n.\r\n"),
            Some(("a\r\n\r\r\n".into(), String::new()))
        );
        assert_eq!(
            decoded_text("a\r\n.\nb\r\n.\r\n"),
            Some(("a\r\n\nb\r\n".into(), String::new()))
        );
    }

    #[test]
    fn one_dot_is_removed_at_the_start_of_a_line() {
        assert_eq!(
            decoded_text("..\r\n.a\r\n...\r\nb.\r\n.\r\n"),
            Some((".\r\na\r\n..\r\nb.\r\n".into(), String::new()))
        );
    }

    fn octets() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')],
            0..40,
        )
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_chunk_sizes(mut input in octets(), cuts in proptest::collection::vec(1..6_usize, 1..40)) {
            input.extend(b"\r\n.\r\nNOOP\r\n");
            let mut rest = &input[..];
            let mut chunks = Vec::new();
            for cut in cuts {
                let (chunk, more) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = more;
            }
            chunks.push(rest);
            prop_assert_eq!(decoded(chunks), decoded([&input[..]]));
        }

        #[test]
        fn decoding_reverses_stuffing(lines in proptest::collection::vec("[.a]{0,4}", 0..10)) {
            let content: String = lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect();
            let (mut wire, mut stuffer) = (Vec::new(), Stuffer::new());
            stuffer.push(content.as_bytes(), &mut wire);
            stuffer.finish(&mut wire);
            prop_assert_eq!(decoded([&wire[..]]), Some((content.into_bytes(), Vec::new())));
        }
    }
}
