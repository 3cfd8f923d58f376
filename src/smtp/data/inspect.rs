//! Content looked at as it streams by: is it whole lines, how large, how far has it travelled, and
//! what does it need and ask of the next hop?

use memchr::memchr3;

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
    /// An octet that no message has (RFC 5322 §2.2, §2.3): some servers cut the text there, and see another message
    /// than was checked.
    #[error("The message has a NUL octet; encode binary content as base64")]
    Nul,
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
            Self::BareCr | Self::BareLf | Self::Nul | Self::BlankStart => (550, Status(6, 0)),
            Self::TooLarge(_) => (552, Status(3, 4)),
            Self::Loop(_) => (554, Status(4, 6)),
        };
        Reply::new(code, status, self.to_string())
    }
}

/// What was found in a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentFacts {
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
enum KnownField {
    /// Its number tells a loop.
    Received,
    /// RFC 8689 §3.
    TlsRequired,
    /// RFC 5322 §3.6.4.
    MessageId,
}

impl KnownField {
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
type FieldMatch = Option<(KnownField, u8)>;

/// Where in the message the octets so far have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderState {
    /// Before the first octet.
    Start,
    /// HeaderState the start of another line of the header.
    Line,
    /// In a field name.
    FieldMatch(FieldMatch),
    /// Behind a field name, in the blanks that old mail may have before the colon (RFC 5322 §4.5).
    Gap(FieldMatch),
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
    /// Whether a header that is missing is added behind us.
    completed: bool,
    /// Whether the last octet was a CR.
    cr: bool,
    at: HeaderState,
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
            completed: false,
            cr: false,
            at: HeaderState::Start,
            needs: ContentNeeds::default(),
            tls_required: TlsRequired::default(),
            message_id: MessageId::default(),
        }
    }

    /// Lets the first line begin with a blank, for a message that a [`super::Completer`] completes: it has no header.
    #[must_use]
    pub fn completed(self, completed: bool) -> Self {
        Self { completed, ..self }
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
    pub fn finish(mut self) -> Result<ContentFacts, ContentFault> {
        if self.cr {
            return Err(ContentFault::BareCr);
        }
        // Nothing continues the last line. One that has no end of its own is no whole field.
        if self.at == HeaderState::Line {
            self.tls_required.end();
        }
        let message_id = self.message_id.value();
        Ok(ContentFacts { needs: self.needs, tls: self.tls_required.requirement(), message_id })
    }

    fn lines(&mut self, mut rest: &[u8]) -> Result<(), ContentFault> {
        if self.cr && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").ok_or(ContentFault::BareCr)?;
            self.cr = false;
            self.line_end();
        }
        self.needs.eight_bit = self.needs.eight_bit || !rest.is_ascii();
        while let Some(end) = memchr3(b'\r', b'\n', 0, rest) {
            self.text(&rest[..end])?;
            match (rest[end], rest.get(end + 1)) {
                (b'\n', _) => return Err(ContentFault::BareLf),
                (0, _) => return Err(ContentFault::Nul),
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
            HeaderState::Value | HeaderState::TlsRequired | HeaderState::MessageId => HeaderState::Line,
            // An empty line ends the header, and so does one that is no field.
            HeaderState::Start
            | HeaderState::Line
            | HeaderState::FieldMatch(_)
            | HeaderState::Gap(_)
            | HeaderState::Body => {
                self.end_field();
                HeaderState::Body
            }
        };
    }

    /// Part of a line, without its end.
    fn text(&mut self, text: &[u8]) -> Result<(), ContentFault> {
        if self.at == HeaderState::Body || text.is_empty() {
            return Ok(());
        }
        for octet in text {
            self.at = match (self.at, octet) {
                (HeaderState::Value | HeaderState::Body, _) => break,
                (HeaderState::TlsRequired, _) => self.value(*octet),
                (HeaderState::MessageId, _) => self.id(*octet),
                (HeaderState::Start, b' ' | b'\t') if self.completed => HeaderState::Body,
                (HeaderState::Start, b' ' | b'\t') => return Err(ContentFault::BlankStart),
                (HeaderState::Line, b' ' | b'\t') if self.tls_required.is_open() => self.value(*octet),
                (HeaderState::Line, b' ' | b'\t') if self.message_id.is_open() => self.id(*octet),
                (HeaderState::Line, b' ' | b'\t') => HeaderState::Value,
                (HeaderState::FieldMatch(name), b':') => self.field(name, true)?,
                (HeaderState::Gap(name), b':') => self.field(name, false)?,
                (HeaderState::FieldMatch(name) | HeaderState::Gap(name), b' ' | b'\t') => HeaderState::Gap(name),
                (HeaderState::FieldMatch(name), b'!'..=b'~') => HeaderState::FieldMatch(longer(name, *octet)),
                (HeaderState::Start | HeaderState::Line, _) => self.first(*octet),
                (HeaderState::FieldMatch(_) | HeaderState::Gap(_), _) => HeaderState::Body,
            };
        }
        if matches!(self.at, HeaderState::Value | HeaderState::TlsRequired | HeaderState::MessageId) && !text.is_ascii()
        {
            self.needs.utf8_header = true;
        }
        Ok(())
    }

    /// The first octet of a line that continues no field.
    fn first(&mut self, octet: u8) -> HeaderState {
        self.end_field();
        match octet {
            b':' => HeaderState::Body,
            b'!'..=b'~' => HeaderState::FieldMatch(first(octet)),
            _ => HeaderState::Body,
        }
    }

    /// The colon behind a name. `as_written`: it follows the name at once.
    fn field(&mut self, name: FieldMatch, as_written: bool) -> Result<HeaderState, ContentFault> {
        match name.filter(|(known, so_far)| usize::from(*so_far) == known.name().len()) {
            Some((KnownField::Received, _)) => {
                self.received += 1;
                if self.received > self.received_limit {
                    return Err(ContentFault::Loop(self.received_limit));
                }
                Ok(HeaderState::Value)
            }
            Some((KnownField::TlsRequired, _)) => {
                self.tls_required.begin(as_written);
                Ok(HeaderState::TlsRequired)
            }
            Some((KnownField::MessageId, _)) => {
                self.message_id.begin();
                Ok(HeaderState::MessageId)
            }
            None => Ok(HeaderState::Value),
        }
    }

    /// What follows does not continue the field that came before.
    fn end_field(&mut self) {
        self.tls_required.end();
        self.message_id.end();
    }

    fn id(&mut self, octet: u8) -> HeaderState {
        self.message_id.octet(octet);
        HeaderState::MessageId
    }

    fn value(&mut self, octet: u8) -> HeaderState {
        self.tls_required.octet(octet);
        HeaderState::TlsRequired
    }
}

/// A name that begins like this.
fn first(octet: u8) -> FieldMatch {
    let begins = |known: &KnownField| known.name().first().is_some_and(|first| first.eq_ignore_ascii_case(&octet));
    [KnownField::Received, KnownField::TlsRequired, KnownField::MessageId]
        .into_iter()
        .find(begins)
        .map(|known| (known, 1))
}

/// A name with one more octet.
fn longer(name: FieldMatch, octet: u8) -> FieldMatch {
    let (known, so_far) = name?;
    let wanted = known.name().get(usize::from(so_far))?;
    octet.eq_ignore_ascii_case(wanted).then_some((known, so_far + 1))
}

#[cfg(test)]
mod tests;
