//! The inspection of content as it arrives: its line ends and size, the servers it has passed, and
//! its demands on the next hop.

use memchr::memchr3;

use super::message_id::MessageId;
use super::tls_required::TlsRequired;
use crate::smtp::envelope::{ContentNeeds, TlsRequirement};
use crate::smtp::reply::{Reply, Status};

/// The faults for which content is rejected.
// Rule: RFC 5321 §4.1.1.4, §4.5.3.1.9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentFault {
    /// A CR without its LF (RFC 5321 §2.3.8).
    #[error("The message has a bare CR; lines end with CR LF, and CR stands nowhere else")]
    BareCr,
    /// A LF without its CR (RFC 5321 §2.3.8).
    #[error("The message has a bare LF; lines end with CR LF, and LF stands nowhere else")]
    BareLf,
    /// A NUL (RFC 5322 §2.2, §2.3). Some servers cut the text there, and would see another message
    /// than was checked.
    #[error("The message has a NUL octet; encode binary content as base64")]
    Nul,
    /// A blank at the start of the first line. The line would continue the Received field that is
    /// put before it, with text of the client. Postfix inserts an empty line, which moves the
    /// client's header into the body: that is not the message that was sent. Gatepost rejects such
    /// content and does not repair it.
    #[error(
        "The first line begins with a blank, and would continue the field that is put before it"
    )]
    BlankStart,
    /// The content is larger than this number of octets.
    #[error("The message is larger than {0} octets, which is the limit")]
    TooLarge(u64),
    /// The header has more than this number of Received fields (RFC 5321 §6.3).
    #[error("The message has passed more than {0} servers: this is a mail loop")]
    Loop(u32),
}

impl ContentFault {
    /// Returns the reply to send at the end of the message.
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

/// The facts found in the content of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentFacts {
    /// The demands of the content on the next hop.
    pub needs: ContentNeeds,
    /// The TLS demand of the header: [`TlsRequirement::Relaxed`] or none. REQUIRETLS is a matter of
    /// the envelope.
    pub tls: TlsRequirement,
    /// The Message-ID, cut to 255 octets.
    pub message_id: Option<Box<str>>,
}

/// A header field that is evaluated here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KnownField {
    /// Received; counted to find loops.
    Received,
    /// TLS-Required (RFC 8689 §3).
    TlsRequired,
    /// Message-ID (RFC 5322 §3.6.4).
    MessageId,
}

impl KnownField {
    /// Returns the name in lower case.
    fn name(self) -> &'static [u8] {
        match self {
            Self::Received => b"received",
            Self::TlsRequired => b"tls-required",
            Self::MessageId => b"message-id",
        }
    }
}

/// A field name so far: the known field that it may become, and the number of matching octets.
/// `None` if it matches no known field.
type FieldMatch = Option<(KnownField, u8)>;

/// The place in the message at which the octets so far have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderState {
    /// Before the first octet.
    Start,
    /// At the start of another line of the header.
    Line,
    /// In a field name.
    FieldMatch(FieldMatch),
    /// After a field name, in the blanks that old mail may have before the colon (RFC 5322 §4.5).
    Gap(FieldMatch),
    /// After the colon, or in a continuation line.
    Value,
    /// In the value of TLS-Required.
    TlsRequired,
    /// In the value of Message-ID.
    MessageId,
    /// In the body.
    Body,
}

/// Inspects content without storing any of it, except for the Message-ID.
#[derive(Debug)]
pub struct Inspector {
    /// Octets that may still come.
    remaining: u64,
    /// The limit of the content's size, in octets.
    limit: u64,
    received: u32,
    received_limit: u32,
    /// True if a missing header will be added to this message.
    completed: bool,
    /// True if the last octet was a CR.
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
            remaining: size_limit,
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

    /// Allows a first line that begins with a blank, for a message without header that a
    /// [`super::HeaderCompleter`] completes.
    #[must_use]
    pub fn with_completion(self, completed: bool) -> Self {
        Self { completed, ..self }
    }

    /// Returns the number of octets that may still come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Inspects the next octets, after dot-unstuffing.
    ///
    /// # Errors
    /// The first [`ContentFault`], independent of how the content is cut. After a fault, no further
    /// call is allowed.
    pub fn push(&mut self, content: &[u8]) -> Result<(), ContentFault> {
        let fits = usize::try_from(self.remaining)
            .map_or(content.len(), |remaining| remaining.min(content.len()));
        self.inspect_lines(&content[..fits])?;
        self.remaining -= fits as u64;
        if fits < content.len() {
            Err(ContentFault::TooLarge(self.limit))
        } else {
            Ok(())
        }
    }

    /// Ends the message and returns the facts found.
    ///
    /// # Errors
    /// [`ContentFault::BareCr`] if the last octet is a CR.
    pub fn finish(mut self) -> Result<ContentFacts, ContentFault> {
        if self.cr {
            return Err(ContentFault::BareCr);
        }
        // A last line without a line end is not a complete field.
        if self.at == HeaderState::Line {
            self.tls_required.end();
        }
        let message_id = self.message_id.value();
        Ok(ContentFacts {
            needs: self.needs,
            tls: self.tls_required.requirement(),
            message_id,
        })
    }

    fn inspect_lines(&mut self, mut rest: &[u8]) -> Result<(), ContentFault> {
        if self.cr && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").ok_or(ContentFault::BareCr)?;
            self.cr = false;
            self.end_line();
        }
        while self.at != HeaderState::Body {
            let end = memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
            self.needs.eight_bit |= !rest[..end].is_ascii();
            self.inspect_text(&rest[..end])?;
            match (rest.get(end), rest.get(end + 1)) {
                (None, _) => return Ok(()),
                (Some(b'\n'), _) => return Err(ContentFault::BareLf),
                (Some(0), _) => return Err(ContentFault::Nul),
                (Some(_), None) => {
                    self.cr = true;
                    return Ok(());
                }
                (Some(_), Some(b'\n')) => {}
                (Some(_), Some(_)) => return Err(ContentFault::BareCr),
            }
            self.end_line();
            rest = &rest[end + 2..];
        }
        self.inspect_body(rest)
    }

    /// Inspects a part of the body, which does not begin between CR and LF. It examines pairs of
    /// octets, and no lines: the compiler makes vector instructions of that.
    fn inspect_body(&mut self, body: &[u8]) -> Result<(), ContentFault> {
        let [first, next @ ..] = body else {
            return Ok(());
        };
        let (mut any, mut fault) = (0, u8::from(*first == b'\n'));
        for (octet, next) in body.iter().zip(next) {
            any |= octet;
            fault |= u8::from(*octet == 0) | u8::from((*octet == b'\r') != (*next == b'\n'));
        }
        let last = next.last().unwrap_or(first);
        if fault != 0 || *last == 0 {
            return Err(first_fault(body));
        }
        self.needs.eight_bit |= !(any | last).is_ascii();
        self.cr = *last == b'\r';
        Ok(())
    }

    /// Moves on to the next line.
    fn end_line(&mut self) {
        self.at = match self.at {
            HeaderState::Value | HeaderState::TlsRequired | HeaderState::MessageId => {
                HeaderState::Line
            }
            // An empty line ends the header, and so does a line that is not a field.
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

    /// Inspects a part of one line, without its line end.
    fn inspect_text(&mut self, text: &[u8]) -> Result<(), ContentFault> {
        if self.at == HeaderState::Body || text.is_empty() {
            return Ok(());
        }
        for octet in text {
            self.at = match (self.at, octet) {
                (HeaderState::Value | HeaderState::Body, _) => break,
                (HeaderState::TlsRequired, _) => self.add_tls_required(*octet),
                (HeaderState::MessageId, _) => self.add_message_id(*octet),
                (HeaderState::Start, b' ' | b'\t') if self.completed => HeaderState::Body,
                (HeaderState::Start, b' ' | b'\t') => return Err(ContentFault::BlankStart),
                (HeaderState::Line, b' ' | b'\t') if self.tls_required.is_open() => {
                    self.add_tls_required(*octet)
                }
                (HeaderState::Line, b' ' | b'\t') if self.message_id.is_open() => {
                    self.add_message_id(*octet)
                }
                (HeaderState::Line, b' ' | b'\t') => HeaderState::Value,
                (HeaderState::FieldMatch(name), b':') => self.begin_value(name, true)?,
                (HeaderState::Gap(name), b':') => self.begin_value(name, false)?,
                (HeaderState::FieldMatch(name) | HeaderState::Gap(name), b' ' | b'\t') => {
                    HeaderState::Gap(name)
                }
                (HeaderState::FieldMatch(name), b'!'..=b'~') => {
                    HeaderState::FieldMatch(match_next(name, *octet))
                }
                (HeaderState::Start | HeaderState::Line, _) => self.begin_line(*octet),
                (HeaderState::FieldMatch(_) | HeaderState::Gap(_), _) => HeaderState::Body,
            };
        }
        if matches!(
            self.at,
            HeaderState::Value | HeaderState::TlsRequired | HeaderState::MessageId
        ) && !text.is_ascii()
        {
            self.needs.utf8_header = true;
        }
        Ok(())
    }

    /// Starts a line that does not continue a field.
    fn begin_line(&mut self, octet: u8) -> HeaderState {
        self.end_field();
        match octet {
            b':' => HeaderState::Body,
            b'!'..=b'~' => HeaderState::FieldMatch(match_first(octet)),
            _ => HeaderState::Body,
        }
    }

    /// Handles the colon after a field name. `as_written` is true if it follows the name at once.
    fn begin_value(
        &mut self,
        name: FieldMatch,
        as_written: bool,
    ) -> Result<HeaderState, ContentFault> {
        match name.filter(|(known, matched)| usize::from(*matched) == known.name().len()) {
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

    /// Ends the current field: the next line does not continue it.
    fn end_field(&mut self) {
        self.tls_required.end();
        self.message_id.end();
    }

    fn add_message_id(&mut self, octet: u8) -> HeaderState {
        self.message_id.octet(octet);
        HeaderState::MessageId
    }

    fn add_tls_required(&mut self, octet: u8) -> HeaderState {
        self.tls_required.octet(octet);
        HeaderState::TlsRequired
    }
}

/// Returns the first fault of octets that have one.
fn first_fault(octets: &[u8]) -> ContentFault {
    let mut rest = octets;
    loop {
        let end = memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
        match (rest.get(end), rest.get(end + 1)) {
            (Some(b'\r'), Some(b'\n')) => rest = &rest[end + 2..],
            (Some(b'\n'), _) => return ContentFault::BareLf,
            (Some(0), _) => return ContentFault::Nul,
            (Some(_) | None, _) => return ContentFault::BareCr,
        }
    }
}

/// Returns the known field whose name begins with this octet.
fn match_first(octet: u8) -> FieldMatch {
    let begins = |known: &KnownField| {
        known
            .name()
            .first()
            .is_some_and(|first| first.eq_ignore_ascii_case(&octet))
    };
    [
        KnownField::Received,
        KnownField::TlsRequired,
        KnownField::MessageId,
    ]
    .into_iter()
    .find(begins)
    .map(|known| (known, 1))
}

/// Extends a field name by one octet.
fn match_next(name: FieldMatch, octet: u8) -> FieldMatch {
    let (known, matched) = name?;
    let wanted = known.name().get(usize::from(matched))?;
    octet
        .eq_ignore_ascii_case(wanted)
        .then_some((known, matched + 1))
}

#[cfg(test)]
mod tests;
