//! The completion of messages of our own clients: Date and Message-ID are added if missing (RFC
//! 6409 §8.2, §8.3), and after them an empty line if the message has no header.
//!
//! The fields are added at the end of the header. Content is never changed, and copied only within
//! the header. The beginning of a line is held back until it is known to be a field.

use memchr::memchr;

/// The length within which a field name must end with a colon: the longest line (RFC 5322 §2.1.1).
const NAME_MAX: usize = 998;

/// The place in the message at which the octets so far have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderPosition {
    /// In a line of the header that may still turn out to be part of the body.
    Line,
    /// In a line that belongs to a field.
    Field,
    /// In the body.
    Body,
}

/// The kind of a header line, judged by its octets alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderLine {
    /// Not decided yet.
    Open,
    /// The beginning of a field.
    Field,
    /// A continuation of the field before.
    Continued,
    /// The empty line at the end of the header.
    End,
    /// A line of the body: the header has ended without an empty line.
    Body,
}

/// Completes the header of one message.
#[derive(Debug)]
pub struct HeaderCompleter {
    at: HeaderPosition,
    /// The beginning of the undecided line.
    line: Vec<u8>,
    has_fields: bool,
    has_date: bool,
    has_id: bool,
    date: String,
    id: String,
}

impl HeaderCompleter {
    /// Starts a message. `date` and `id` become its Date and Message-ID if it has none.
    #[must_use]
    pub fn new(date: String, id: String) -> Self {
        Self {
            at: HeaderPosition::Line,
            line: Vec::new(),
            has_fields: false,
            has_date: false,
            has_id: false,
            date,
            id,
        }
    }

    /// Takes the next content, with CRLF line ends. Returns the octets to store in its place: a
    /// copied part with the added fields, followed by the remainder of `content`.
    pub fn push<'a>(&mut self, content: &'a [u8]) -> (Vec<u8>, &'a [u8]) {
        let (mut made, mut rest) = (Vec::new(), content);
        while let [octet, more @ ..] = rest {
            match self.at {
                HeaderPosition::Body => break,
                HeaderPosition::Field => {
                    let end = memchr(b'\n', rest).map_or(rest.len(), |end| {
                        self.at = HeaderPosition::Line;
                        end + 1
                    });
                    made.extend_from_slice(&rest[..end]);
                    rest = &rest[end..];
                }
                HeaderPosition::Line => {
                    self.line.push(*octet);
                    rest = more;
                    self.advance(&mut made);
                }
            }
        }
        (made, rest)
    }

    /// Ends the message. Returns the octets still to store, and the Message-ID if it was added.
    #[must_use]
    pub fn finish(mut self) -> (Vec<u8>, Option<String>) {
        let mut made = Vec::new();
        match self.at {
            HeaderPosition::Body => {}
            HeaderPosition::Field => {
                if !(self.has_date && self.has_id) {
                    made.extend_from_slice(b"\r\n");
                }
                self.add_fields(&mut made);
            }
            HeaderPosition::Line if self.has_fields && self.line.is_empty() => {
                self.add_fields(&mut made);
            }
            HeaderPosition::Line => self.end_header(&mut made),
        }
        (made, Some(self.id).filter(|_| !self.has_id))
    }

    /// Decides on the line after its latest octet.
    fn advance(&mut self, made: &mut Vec<u8>) {
        match self.kind() {
            HeaderLine::Open => return,
            HeaderLine::Field => {
                let name = self.line[..self.line.len() - 1].trim_ascii_end();
                self.has_date |= name.eq_ignore_ascii_case(b"Date");
                self.has_id |= name.eq_ignore_ascii_case(b"Message-ID");
                self.has_fields = true;
                self.at = HeaderPosition::Field;
            }
            HeaderLine::Continued => self.at = HeaderPosition::Field,
            HeaderLine::End => {
                self.add_fields(made);
                self.at = HeaderPosition::Body;
            }
            HeaderLine::Body => return self.end_header(made),
        }
        made.append(&mut self.line);
    }

    /// Returns the kind of the line so far.
    fn kind(&self) -> HeaderLine {
        let is_blank = |octet: &u8| matches!(octet, b' ' | b'\t');
        match self.line.as_slice() {
            [b'\r'] => HeaderLine::Open,
            b"\r\n" => HeaderLine::End,
            [first, ..] if is_blank(first) => {
                if self.has_fields {
                    HeaderLine::Continued
                } else {
                    HeaderLine::Body
                }
            }
            [_, .., b':'] => HeaderLine::Field,
            [name @ .., b'!'..=b'9' | b';'..=b'~']
                if name.len() < NAME_MAX && !name.last().is_some_and(is_blank) =>
            {
                HeaderLine::Open
            }
            // Old mail may have blanks before the colon (RFC 5322 §4.5).
            [_, .., b' ' | b'\t'] if self.line.len() < NAME_MAX => HeaderLine::Open,
            _ => HeaderLine::Body,
        }
    }

    /// Ends a header that lacks its empty line. The octets held back belong to the body.
    fn end_header(&mut self, made: &mut Vec<u8>) {
        self.add_fields(made);
        made.extend_from_slice(b"\r\n");
        made.append(&mut self.line);
        self.at = HeaderPosition::Body;
    }

    /// Appends the missing fields.
    fn add_fields(&self, made: &mut Vec<u8>) {
        for (is_there, name, value) in [
            (self.has_date, "Date", &self.date),
            (self.has_id, "Message-ID", &self.id),
        ] {
            if !is_there {
                made.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Inspector;
    use super::*;

    const DATE: &str = "Date: now\r\n";
    const ID: &str = "Message-ID: <a@b>\r\n";

    fn completed<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (String, bool) {
        let (mut completer, mut output) = (
            HeaderCompleter::new("now".to_owned(), "<a@b>".to_owned()),
            Vec::new(),
        );
        for chunk in chunks {
            let (made, rest) = completer.push(chunk);
            output.extend_from_slice(&made);
            output.extend_from_slice(rest);
        }
        let (made, id) = completer.finish();
        output.extend_from_slice(&made);
        (String::from_utf8(output).expect("text"), id.is_some())
    }

    fn completed_text(content: &str) -> String {
        completed([content.as_bytes()]).0
    }

    #[test]
    fn fields_are_added_at_the_end_of_the_header() {
        for (content, wanted) in [
            (
                "Subject: a\r\n\r\nb\r\n",
                format!("Subject: a\r\n{DATE}{ID}\r\nb\r\n"),
            ),
            (
                "date : x\r\nSubject: a\r\n folded\r\n\r\n",
                format!("date : x\r\nSubject: a\r\n folded\r\n{ID}\r\n"),
            ),
            (
                "MESSAGE-ID: x\r\n\r\nDate: b\r\n",
                format!("MESSAGE-ID: x\r\n{DATE}\r\nDate: b\r\n"),
            ),
            (
                "X-Date: x\r\n Date: y\r\nDates: z\r\n\r\n",
                format!("X-Date: x\r\n Date: y\r\nDates: z\r\n{DATE}{ID}\r\n"),
            ),
            // A header without a body.
            ("Subject: a\r\n", format!("Subject: a\r\n{DATE}{ID}")),
            ("Subject: a", format!("Subject: a\r\n{DATE}{ID}")),
        ] {
            assert_eq!(completed_text(content), wanted, "{content:?}");
        }
    }

    #[test]
    fn a_message_without_header_gets_an_empty_line() {
        for content in [
            "",
            "hello\r\n",
            "hello there: x\r\n",
            ": x\r\n",
            " indented\r\nSubject: a\r\n",
            "hello",
            "\u{fc}: x\r\n",
            "hello\r\nSubject: a\r\n\r\nb\r\n",
        ] {
            assert_eq!(
                completed_text(content),
                format!("{DATE}{ID}\r\n{content}"),
                "{content:?}"
            );
        }
        // This message has its empty line.
        assert_eq!(completed_text("\r\nb\r\n"), format!("{DATE}{ID}\r\nb\r\n"));
        assert_eq!(
            completed_text("Subject: a\r\nhello\r\n"),
            format!("Subject: a\r\n{DATE}{ID}\r\nhello\r\n")
        );
        let long = "x".repeat(2 * NAME_MAX);
        assert_eq!(
            completed_text(&format!("{long}: a\r\n")),
            format!("{DATE}{ID}\r\n{long}: a\r\n")
        );
    }

    #[test]
    fn a_complete_message_stays_unchanged() {
        for content in [
            "Date: x\r\nMessage-ID: y\r\n\r\nb\r\n",
            "message-id:\r\n y\r\nDATE\t: x\r\n\r\n",
            "Date:\r\nMessage-ID:\r\n",
        ] {
            assert_eq!(
                completed([content.as_bytes()]),
                (content.to_owned(), false),
                "{content:?}"
            );
        }
        assert!(completed([&b"Date: x\r\n\r\n"[..]]).1);
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_chunk_sizes(
            pieces in proptest::collection::vec(
                prop_oneof![
                    4 => Just("\r\n"), 3 => Just("Date"), 3 => Just("Message-ID"), 4 => Just(":"), 2 => Just("x"),
                    2 => Just(" "), 1 => Just("\u{fc}")
                ],
                0..30,
            ),
            size in 1..5_usize,
        ) {
            let content = pieces.concat();
            let (output, added) = completed([content.as_bytes()]);
            let cut = completed(content.as_bytes().chunks(size));
            prop_assert_eq!(&cut, &(output.clone(), added));
            // A completed message stays as it is, and the inspector sees the added field.
            prop_assert_eq!(completed([output.as_bytes()]), (output.clone(), false));
            let mut inspector = Inspector::new(10_000, 2);
            inspector.push(output.as_bytes()).expect("whole lines");
            let id = inspector.finish().expect("whole lines").message_id;
            prop_assert!(!added || id.as_deref() == Some("<a@b>"), "{:?}: {:?}", output, id);
        }
    }
}
