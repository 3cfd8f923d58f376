//! Content looked at as it streams by: is it whole lines, how large, how far has it travelled, and
//! what does it need of the next hop?

use memchr::memchr2;

use crate::envelope::ContentNeeds;
use crate::smtp::reply::{Reply, Status};

/// Why content is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentFault {
    /// A CR without its LF (RFC 5321 §2.3.8).
    #[error("The message has a bare CR; lines end with CR LF, and CR stands nowhere else")]
    BareCr,
    /// A LF without its CR (RFC 5321 §2.3.8).
    #[error("The message has a bare LF; lines end with CR LF, and LF stands nowhere else")]
    BareLf,
    /// Over this many octets.
    #[error("The message is larger than {0} octets, which is the limit")]
    TooLarge(u64),
    /// Over this many Received fields (RFC 5321 §6.3).
    #[error("The message has passed more than {0} servers: this is a mail loop")]
    Loop(u32),
}

impl ContentFault {
    /// The answer, once the message has ended.
    #[must_use]
    pub fn reply(self) -> Reply {
        let (code, status) = match self {
            Self::BareCr | Self::BareLf => (550, Status(6, 0)),
            Self::TooLarge(_) => (552, Status(3, 4)),
            Self::Loop(_) => (554, Status(4, 6)),
        };
        Reply::new(code, status, self.to_string())
    }
}

/// The field whose number tells a loop, in lower case.
const RECEIVED: &[u8] = b"received";

/// Where in the message the octets so far have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At the start of a line of the header.
    Line,
    /// In a field name; this many of its octets are those of [`RECEIVED`], or one is not.
    Name(Option<usize>),
    /// Behind a field name, in the blanks that old mail may have before the colon (RFC 5322 §4.5).
    Gap(Option<usize>),
    /// Behind the colon, or in a folded line.
    Value,
    /// In the body.
    Body,
}

/// Looks at content without keeping any of it.
#[derive(Debug)]
pub struct Inspector {
    /// Octets that may still come, and how many there could be from the start.
    room: u64,
    limit: u64,
    received: u32,
    received_limit: u32,
    /// Whether the last octet was a CR.
    cr: bool,
    at: At,
    needs: ContentNeeds,
}

impl Inspector {
    /// Starts a message of at most `size_limit` octets and `received_limit` Received fields.
    #[must_use]
    pub fn new(size_limit: u64, received_limit: u32) -> Self {
        Self {
            room: size_limit,
            limit: size_limit,
            received: 0,
            received_limit,
            cr: false,
            at: At::Line,
            needs: ContentNeeds::default(),
        }
    }

    /// Octets that may still come.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Looks at the next octets, unstuffed.
    ///
    /// # Errors
    /// The first [`ContentFault`], wherever the content is cut; nothing may be pushed after it.
    pub fn push(&mut self, content: &[u8]) -> Result<(), ContentFault> {
        let fits = usize::try_from(self.room).map_or(content.len(), |room| room.min(content.len()));
        self.lines(&content[..fits])?;
        self.room -= fits as u64;
        if fits < content.len() { Err(ContentFault::TooLarge(self.limit)) } else { Ok(()) }
    }

    /// Ends the message, and tells what its content needs.
    ///
    /// # Errors
    /// [`ContentFault::BareCr`] where the last octet is one.
    pub fn finish(self) -> Result<ContentNeeds, ContentFault> {
        if self.cr { Err(ContentFault::BareCr) } else { Ok(self.needs) }
    }

    fn lines(&mut self, mut rest: &[u8]) -> Result<(), ContentFault> {
        if self.cr && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").ok_or(ContentFault::BareCr)?;
            self.cr = false;
            self.line_end();
        }
        self.needs.eight_bit = self.needs.eight_bit || !rest.is_ascii();
        while let Some(end) = memchr2(b'\r', b'\n', rest) {
            self.text(&rest[..end])?;
            match (rest[end], rest.get(end + 1)) {
                (b'\n', _) => return Err(ContentFault::BareLf),
                (_, None) => {
                    self.cr = true;
                    return Ok(());
                }
                (_, Some(b'\n')) => {}
                (_, Some(_)) => return Err(ContentFault::BareCr),
            }
            self.line_end();
            rest = &rest[end + 2..];
        }
        self.text(rest)
    }

    fn line_end(&mut self) {
        self.at = match self.at {
            At::Value => At::Line,
            // An empty line ends the header, and so does one that is no field.
            At::Line | At::Name(_) | At::Gap(_) | At::Body => At::Body,
        };
    }

    /// Part of a line, without its end.
    fn text(&mut self, text: &[u8]) -> Result<(), ContentFault> {
        if self.at == At::Body || text.is_empty() {
            return Ok(());
        }
        for octet in text {
            self.at = match (self.at, octet) {
                (At::Value | At::Body, _) => break,
                (At::Line, b' ' | b'\t') => At::Value,
                (At::Line, b':') => At::Body,
                (At::Name(Some(8)) | At::Gap(Some(8)), b':') => {
                    self.received += 1;
                    if self.received > self.received_limit {
                        return Err(ContentFault::Loop(self.received_limit));
                    }
                    At::Value
                }
                (At::Name(_) | At::Gap(_), b':') => At::Value,
                (At::Name(matched) | At::Gap(matched), b' ' | b'\t') => At::Gap(matched),
                (At::Line, b'!'..=b'~') => At::Name(matches_at(0, *octet)),
                (At::Name(matched), b'!'..=b'~') => At::Name(matched.and_then(|so_far| matches_at(so_far, *octet))),
                (At::Line | At::Name(_) | At::Gap(_), _) => At::Body,
            };
        }
        if self.at == At::Value && !text.is_ascii() {
            self.needs.utf8_header = true;
        }
        Ok(())
    }
}

/// One more octet of [`RECEIVED`] matched, or none of it.
fn matches_at(so_far: usize, octet: u8) -> Option<usize> {
    RECEIVED.get(so_far).filter(|wanted| octet.eq_ignore_ascii_case(wanted)).map(|_| so_far + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inspected<'a>(limit: u64, chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<ContentNeeds, ContentFault> {
        let mut inspector = Inspector::new(limit, 2);
        for chunk in chunks {
            inspector.push(chunk)?;
        }
        inspector.finish()
    }

    fn whole(content: &str) -> Result<ContentNeeds, ContentFault> {
        inspected(1000, [content.as_bytes()])
    }

    #[test]
    fn lines_are_whole() {
        for (content, fault) in [
            ("a\rb\r\n", ContentFault::BareCr),
            ("a\r\r\n", ContentFault::BareCr),
            ("a\r", ContentFault::BareCr),
            ("a\nb\r\n", ContentFault::BareLf),
            ("\n", ContentFault::BareLf),
            ("a\r\n\n", ContentFault::BareLf),
        ] {
            assert_eq!(whole(content), Err(fault), "{content:?}");
        }
        for content in ["", "a", "a\r\n", "\r\n\r\n", "a: b\r\n\r\nc"] {
            assert_eq!(whole(content), Ok(ContentNeeds::default()), "{content:?}");
        }
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        assert_eq!(inspected(4, [&b"ab\r\n"[..]]), Ok(ContentNeeds::default()));
        assert_eq!(inspected(3, [&b"ab\r\n"[..]]), Err(ContentFault::TooLarge(3)));
        assert_eq!(inspected(4, [&b"ab\r\n"[..], b"c"]), Err(ContentFault::TooLarge(4)));
    }

    #[test]
    fn received_fields_count_in_the_header_alone() {
        let field = "rECEIVED: by a\r\n";
        assert!(whole(&format!("{field}{field}\r\n{field}")).is_ok(), "the body does not count");
        assert!(whole(&format!("{field}{field}no field\r\n{field}")).is_ok(), "neither does a body without header");
        assert!(whole(&format!("{field}{field}X:\r\n {field}Received-SPF: a\r\nReceive: d\r\n")).is_ok());
        assert_eq!(whole(&format!("{field}X: y\r\n{field} folded\r\nReceived : by b\r\n")), Err(ContentFault::Loop(2)));
    }

    #[test]
    fn needs_tell_header_from_body() {
        let needs = |eight_bit, utf8_header| Ok(ContentNeeds { eight_bit, utf8_header });
        assert_eq!(whole("Subject: a\r\n\r\nb\r\n"), needs(false, false));
        assert_eq!(whole("Subject: a\r\n\r\n\u{fc}\r\n"), needs(true, false));
        assert_eq!(whole("Subject: \u{fc}\r\n\r\nb\r\n"), needs(true, true));
        assert_eq!(whole("Subject: a\r\n \u{fc}\r\n\r\nb\r\n"), needs(true, true));
        assert_eq!(whole("\u{fc}: no field\r\n"), needs(true, false));
    }

    proptest! {
        #[test]
        fn where_the_content_is_cut_makes_no_difference(
            pieces in proptest::collection::vec(
                prop_oneof![
                    4 => Just("\r\n"), 1 => Just("\r"), 1 => Just("\n"), 3 => Just("Received:"), 2 => Just("x"),
                    2 => Just(" "), 1 => Just("\u{fc}"), 1 => Just(":")
                ],
                0..30,
            ),
            limit in 10..80_u64,
            size in 1..5_usize,
        ) {
            let content = pieces.concat();
            let whole = inspected(limit, [content.as_bytes()]);
            prop_assert_eq!(inspected(limit, content.as_bytes().chunks(size)), whole);
        }
    }
}
