//! Content looked at as it streams by: is it whole lines, how large, how far has it travelled, and
//! what does it need and ask of the next hop?

use memchr::memchr2;

use super::message_id::MessageId;
use super::tls_required::TlsRequired;
use crate::envelope::{ContentNeeds, TlsRequirement};
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
    /// A first line that would continue our Received field, and put a client's words into it. Postfix parts the two
    /// with an empty line, which makes the client's header a part of the body: another message than was sent. What a
    /// client says is refused here, never repaired.
    #[error("The first line begins with a blank, and would continue the field that is put before it")]
    BlankStart,
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
            Self::BareCr | Self::BareLf | Self::BlankStart => (550, Status(6, 0)),
            Self::TooLarge(_) => (552, Status(3, 4)),
            Self::Loop(_) => (554, Status(4, 6)),
        };
        Reply::new(code, status, self.to_string())
    }
}

/// What was found in a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// What the content needs of the next hop.
    pub needs: ContentNeeds,
    /// What its header asks of TLS: [`TlsRequirement::Relaxed`], or nothing. REQUIRETLS is said in the
    /// envelope, never in a header.
    pub tls: TlsRequirement,
    /// Its Message-ID, where it has one; cut to 255 octets.
    pub message_id: Option<Box<str>>,
}

/// A field that means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Its number tells a loop.
    Received,
    /// RFC 8689 §3.
    TlsRequired,
    /// RFC 5322 §3.6.4.
    MessageId,
}

impl Known {
    /// In lower case.
    fn name(self) -> &'static [u8] {
        match self {
            Self::Received => b"received",
            Self::TlsRequired => b"tls-required",
            Self::MessageId => b"message-id",
        }
    }
}

/// A field name so far: how many of its octets are those of a field that we know; nothing, where it is none.
type Name = Option<(Known, u8)>;

/// Where in the message the octets so far have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first octet.
    Start,
    /// At the start of another line of the header.
    Line,
    /// In a field name.
    Name(Name),
    /// Behind a field name, in the blanks that old mail may have before the colon (RFC 5322 §4.5).
    Gap(Name),
    /// Behind the colon, or in a folded line.
    Value,
    /// The same, of TLS-Required.
    TlsRequired,
    /// The same, of Message-ID.
    MessageId,
    /// In the body.
    Body,
}

/// Looks at content without keeping any of it, but for its Message-ID.
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
    tls_required: TlsRequired,
    message_id: MessageId,
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
            at: At::Start,
            needs: ContentNeeds::default(),
            tls_required: TlsRequired::default(),
            message_id: MessageId::default(),
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

    /// Ends the message, and tells what was found.
    ///
    /// # Errors
    /// [`ContentFault::BareCr`] where the last octet is one.
    pub fn finish(mut self) -> Result<Findings, ContentFault> {
        if self.cr {
            return Err(ContentFault::BareCr);
        }
        // Nothing continues the last line. One that has no end of its own is no whole field.
        if self.at == At::Line {
            self.tls_required.end();
        }
        let message_id = self.message_id.value();
        Ok(Findings { needs: self.needs, tls: self.tls_required.requirement(), message_id })
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
            At::Value | At::TlsRequired | At::MessageId => At::Line,
            // An empty line ends the header, and so does one that is no field.
            At::Start | At::Line | At::Name(_) | At::Gap(_) | At::Body => {
                self.end_field();
                At::Body
            }
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
                (At::TlsRequired, _) => self.value(*octet),
                (At::MessageId, _) => self.id(*octet),
                (At::Start, b' ' | b'\t') => return Err(ContentFault::BlankStart),
                (At::Line, b' ' | b'\t') if self.tls_required.is_open() => self.value(*octet),
                (At::Line, b' ' | b'\t') if self.message_id.is_open() => self.id(*octet),
                (At::Line, b' ' | b'\t') => At::Value,
                (At::Name(name), b':') => self.field(name, true)?,
                (At::Gap(name), b':') => self.field(name, false)?,
                (At::Name(name) | At::Gap(name), b' ' | b'\t') => At::Gap(name),
                (At::Name(name), b'!'..=b'~') => At::Name(longer(name, *octet)),
                (At::Start | At::Line, _) => self.first(*octet),
                (At::Name(_) | At::Gap(_), _) => At::Body,
            };
        }
        if matches!(self.at, At::Value | At::TlsRequired | At::MessageId) && !text.is_ascii() {
            self.needs.utf8_header = true;
        }
        Ok(())
    }

    /// The first octet of a line that continues no field.
    fn first(&mut self, octet: u8) -> At {
        self.end_field();
        match octet {
            b':' => At::Body,
            b'!'..=b'~' => At::Name(first(octet)),
            _ => At::Body,
        }
    }

    /// The colon behind a name. `as_written`: it follows the name at once.
    fn field(&mut self, name: Name, as_written: bool) -> Result<At, ContentFault> {
        match name.filter(|(known, so_far)| usize::from(*so_far) == known.name().len()) {
            Some((Known::Received, _)) => {
                self.received += 1;
                if self.received > self.received_limit {
                    return Err(ContentFault::Loop(self.received_limit));
                }
                Ok(At::Value)
            }
            Some((Known::TlsRequired, _)) => {
                self.tls_required.begin(as_written);
                Ok(At::TlsRequired)
            }
            Some((Known::MessageId, _)) => {
                self.message_id.begin();
                Ok(At::MessageId)
            }
            None => Ok(At::Value),
        }
    }

    /// What follows does not continue the field that came before.
    fn end_field(&mut self) {
        self.tls_required.end();
        self.message_id.end();
    }

    fn id(&mut self, octet: u8) -> At {
        self.message_id.octet(octet);
        At::MessageId
    }

    fn value(&mut self, octet: u8) -> At {
        self.tls_required.octet(octet);
        At::TlsRequired
    }
}

/// A name that begins like this.
fn first(octet: u8) -> Name {
    let begins = |known: &Known| known.name().first().is_some_and(|first| first.eq_ignore_ascii_case(&octet));
    [Known::Received, Known::TlsRequired, Known::MessageId].into_iter().find(begins).map(|known| (known, 1))
}

/// A name with one more octet.
fn longer(name: Name, octet: u8) -> Name {
    let (known, so_far) = name?;
    let wanted = known.name().get(usize::from(so_far))?;
    octet.eq_ignore_ascii_case(wanted).then_some((known, so_far + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inspected<'a>(limit: u64, chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Findings, ContentFault> {
        let mut inspector = Inspector::new(limit, 2);
        for chunk in chunks {
            inspector.push(chunk)?;
        }
        inspector.finish()
    }

    fn whole(content: &str) -> Result<Findings, ContentFault> {
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
            assert_eq!(whole(content), Ok(Findings::default()), "{content:?}");
        }
    }

    #[test]
    fn the_first_line_continues_nothing() {
        for content in [" a: b\r\n", "\ta", " ", " \r\n\r\n"] {
            assert_eq!(whole(content), Err(ContentFault::BlankStart), "{content:?}");
        }
        for content in ["a: b\r\n c\r\n", "\r\n a\r\n", "a\r\n b\r\n"] {
            assert_eq!(whole(content), Ok(Findings::default()), "{content:?}");
        }
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        assert_eq!(inspected(4, [&b"ab\r\n"[..]]), Ok(Findings::default()));
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
        let needs = |eight_bit, utf8_header| {
            let needs = ContentNeeds { eight_bit, utf8_header };
            Ok(Findings { needs, ..Findings::default() })
        };
        assert_eq!(whole("Subject: a\r\n\r\nb\r\n"), needs(false, false));
        assert_eq!(whole("Subject: a\r\n\r\n\u{fc}\r\n"), needs(true, false));
        assert_eq!(whole("Subject: \u{fc}\r\n\r\nb\r\n"), needs(true, true));
        assert_eq!(whole("Subject: a\r\n \u{fc}\r\n\r\nb\r\n"), needs(true, true));
        assert_eq!(whole("\u{fc}: no field\r\n"), needs(true, false));
    }

    #[test]
    fn the_first_message_id_is_kept_and_bounded() {
        let kept = |content: &str| inspected(2000, [content.as_bytes()]).expect(content).message_id;
        for (content, id) in [
            ("Message-ID: <a@b>\r\n\r\nMessage-ID: <body>\r\n", Some("<a@b>")),
            ("Received: by a\r\nmessage-id:\r\n\t<a@b>\r\nMessage-ID: <c@d>\r\n\r\n", Some("<a@b>")),
            ("Message-Id: <a\r\n b>\r\nSubject: c\r\n\r\n", Some("<ab>")),
            ("Message-ID: <\u{1b}[1m\u{fc}>\r\n\r\n", Some("<[1m\u{fc}>")),
            ("Message-ID:\r\nSubject: <a@b>\r\n\r\n", None),
            ("X-Message-ID: <a@b>\r\nReceived: by a\r\n Message-ID: <a@b>\r\n\r\n", None),
        ] {
            assert_eq!(kept(content).as_deref(), id, "{content:?}");
        }
        let long = kept(&format!("Message-ID: {}\r\n\r\n", "x".repeat(900))).expect("one");
        assert_eq!(long.len(), 255);
    }

    #[test]
    fn tls_required_counts_as_the_rfc_writes_it_and_no_other_way() {
        for header in [
            "TLS-Required: No\r\n",
            "tls-required:nO\r\n",
            "TLS-Required:\t \tNO\r\n",
            "TLS-Required:\r\n No\r\n",
            "Received: by a\r\nTLS-Required: No\r\nSubject: a\r\n",
            "TLS-Required: No\r\nX-TLS-Required: Yes\r\nTLS-Require: Yes\r\n",
        ] {
            for content in [header.to_owned(), format!("{header}\r\nbody\r\n"), format!("{header}no field\r\n")] {
                assert_eq!(whole(&content).expect(&content).tls, TlsRequirement::Relaxed, "{content:?}");
            }
        }
        for content in [
            "Subject: a\r\n\r\nTLS-Required: No\r\n",
            "no field\r\nTLS-Required: No\r\n",
            "TLS-Required: Yes\r\n",
            "TLS-Required:\r\n",
            "TLS-Required: N\r\n",
            "TLS-Required: None\r\n",
            "TLS-Required: N o\r\n",
            "TLS-Required: No \r\n",
            "TLS-Required: No\r\n \r\n",
            "TLS-Required: No\r\n way\r\n",
            "TLS-Required: No (please)\r\n",
            "TLS-Required: \"No\"\r\n",
            "TLS-Required: No; Yes\r\n",
            "TLS-Required : No\r\n",
            "X-TLS-Required: No\r\n",
            "TLS-Required-: No\r\n",
            "Received: by a\r\n TLS-Required: No\r\n",
            "TLS-Required: No\r\nTLS-Required: No\r\n",
            "TLS-Required: No\r\nSubject: a\r\nTLS-Required: Yes\r\n",
            "TLS-Required: Yes\r\nTLS-Required: No\r\n",
            "TLS-Required: No",
        ] {
            assert_eq!(whole(content).expect(content).tls, TlsRequirement::Ordinary, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn where_the_content_is_cut_makes_no_difference(
            pieces in proptest::collection::vec(
                prop_oneof![
                    4 => Just("\r\n"), 1 => Just("\r"), 1 => Just("\n"), 3 => Just("Received:"), 3 => Just("TLS-Required:"),
                    3 => Just("Message-ID:"),
                    2 => Just("No"), 2 => Just("x"),
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
