//! Replies of a server (RFC 5321 §4.2) and their enhanced status codes (RFC 2034, RFC 3463).
//!
//! The basic code and the enhanced status of a [`Reply`] share one severity, so "451 5.x.x" cannot
//! be written. [`ReplyParser`] reads the replies of a peer within limits, and accepts an enhanced
//! status only if it agrees with the basic code. [`crate::policy::failure`] decides what a reply
//! means for a message.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest reply line in octets, with its line end. RFC 5321 §4.5.3.1.5 says 512, but some
/// peers send more, and RFC 1869 allowed 1,000 and above.
const LINE_MAX: usize = 4096;
/// The largest number of lines in one reply. EHLO answers have about twenty.
const LINES_MAX: usize = 128;
/// The octets of text that are kept of one reply of a peer. An EHLO answer has a tenth of that.
/// Lines that do not fit are dropped.
const TEXT_MAX: usize = 8 * 1024;
/// The octets of a reply's text that are kept after the session, with each recipient it was for and
/// in the log.
const SHORTENED_MAX: usize = 1024;

/// The class of a reply: the first digit of both of its codes.
// Rule: RFC 5321 §4.2, §4.3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// 2xx: the command succeeded.
    Success,
    /// 3xx: the server waits for more input.
    Intermediate,
    /// 4xx: the command failed, and may succeed later.
    Transient,
    /// 5xx: the command failed for good.
    Permanent,
}

impl Severity {
    fn digit(self) -> u16 {
        match self {
            Self::Success => 2,
            Self::Intermediate => 3,
            Self::Transient => 4,
            Self::Permanent => 5,
        }
    }

    fn of_digit(digit: u16) -> Option<Self> {
        match digit {
            2 => Some(Self::Success),
            3 => Some(Self::Intermediate),
            4 => Some(Self::Transient),
            5 => Some(Self::Permanent),
            _ => None,
        }
    }
}

/// A three-digit reply code, 200 to 599 (RFC 5321 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplyCode(u16);

impl ReplyCode {
    /// Returns the code, or `None` outside 200–599.
    #[must_use]
    pub fn new(code: u16) -> Option<Self> {
        (200..=599).contains(&code).then_some(Self(code))
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// Returns the class that the first digit stands for.
    #[must_use]
    pub fn severity(self) -> Severity {
        // Invariant of the type: 200 to 599.
        Severity::of_digit(self.0 / 100).unwrap_or(Severity::Permanent)
    }
}

impl ReplyCode {
    /// Returns the three digits.
    fn digits(self) -> [u8; 3] {
        // Invariant of the type: 200 to 599.
        [self.0 / 100 % 10, self.0 / 10 % 10, self.0 % 10].map(digit)
    }
}

/// Returns the character of a number below 10.
fn digit(number: u16) -> u8 {
    b'0' + u8::try_from(number).unwrap_or_default()
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

/// The subject and detail of an enhanced status code, without its class (RFC 3463 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Status(pub u16, pub u16);

/// An enhanced status code, `class.subject.detail` (RFC 3463 §2).
// Rule: RFC 5321 §4.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnhancedStatusCode {
    /// The class; never [`Severity::Intermediate`].
    severity: Severity,
    status: Status,
}

impl EnhancedStatusCode {
    /// Returns the transient status `4.subject.detail`.
    #[must_use]
    pub const fn transient(status: Status) -> Self {
        Self {
            severity: Severity::Transient,
            status,
        }
    }

    /// Returns the permanent status `5.subject.detail`.
    #[must_use]
    pub const fn permanent(status: Status) -> Self {
        Self {
            severity: Severity::Permanent,
            status,
        }
    }

    /// Returns the success status `2.subject.detail`.
    #[must_use]
    pub const fn success(status: Status) -> Self {
        Self {
            severity: Severity::Success,
            status,
        }
    }

    /// Returns the class.
    #[must_use]
    pub fn severity(self) -> Severity {
        self.severity
    }

    /// Returns subject and detail.
    #[must_use]
    pub fn status(self) -> Status {
        self.status
    }

    /// Parses a text like `5.7.1`. `None` if it is not an enhanced status code (RFC 3463 §2: class
    /// 2, 4 or 5, then up to three digits twice).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let mut number = |max_len: usize| {
            let part = parts.next()?;
            let digits =
                (1..=max_len).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            if digits {
                part.parse::<u16>().ok()
            } else {
                None
            }
        };
        let severity = Severity::of_digit(number(1)?).filter(|s| *s != Severity::Intermediate)?;
        let status = Status(number(3)?, number(3)?);
        parts.next().is_none().then_some(Self { severity, status })
    }
}

/// The text of an [`EnhancedStatusCode`].
struct EnhancedText {
    /// Two numbers of up to five digits, a digit, and two dots.
    octets: [u8; 13],
    length: usize,
}

impl EnhancedText {
    fn of(code: EnhancedStatusCode) -> Self {
        let mut text = Self {
            octets: [0; 13],
            length: 0,
        };
        text.push(digit(code.severity.digit()));
        for number in [code.status.0, code.status.1] {
            text.push(b'.');
            let digits = [10_000, 1000, 100, 10, 1].map(|place| number / place);
            let first = digits.iter().position(|&front| front > 0).unwrap_or(4);
            for front in &digits[first..] {
                text.push(digit(front % 10));
            }
        }
        text
    }

    fn push(&mut self, octet: u8) {
        if let Some(place) = self.octets.get_mut(self.length) {
            *place = octet;
            self.length += 1;
        }
    }

    fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

impl fmt::Display for EnhancedStatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = EnhancedText::of(*self);
        f.write_str(std::str::from_utf8(text.octets()).unwrap_or_default())
    }
}

/// One reply, of this server or of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    code: ReplyCode,
    status: Option<Status>,
    /// At least one line, without codes and line ends. No line has CR, LF or another control
    /// character.
    lines: Vec<Cow<'static, str>>,
}

impl Reply {
    /// Makes a reply without an enhanced status: greeting, EHLO, HELP, 221 before EHLO, 354 and
    /// similar.
    ///
    /// # Panics
    /// In debug builds, if `code` is not a reply code. Codes are literals in this program.
    #[must_use]
    pub fn bare(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        debug_assert!(ReplyCode::new(code).is_some(), "{code} is no reply code");
        Self {
            code: ReplyCode(code),
            status: None,
            lines: vec![one_line(text.into())],
        }
    }

    /// Makes a reply with an enhanced status, whose class follows from `code`.
    #[must_use]
    pub fn new(code: u16, status: Status, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: Some(status),
            ..Self::bare(code, text)
        }
    }

    /// Makes a reply of several lines. An empty list yields one empty line.
    #[must_use]
    pub fn multiline(code: u16, lines: Vec<Cow<'static, str>>) -> Self {
        let mut reply = Self::bare(code, "");
        if !lines.is_empty() {
            reply.lines = lines.into_iter().map(one_line).collect();
        }
        reply
    }

    /// Returns the basic code.
    #[must_use]
    pub fn code(&self) -> ReplyCode {
        self.code
    }

    /// Returns the class that the first digit stands for.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }

    /// Returns the enhanced status if the reply has one.
    #[must_use]
    pub fn enhanced(&self) -> Option<EnhancedStatusCode> {
        let severity = self.severity();
        self.status
            .filter(|_| severity != Severity::Intermediate)
            .map(|status| EnhancedStatusCode { severity, status })
    }

    /// Returns the lines without codes.
    #[must_use]
    pub fn lines(&self) -> &[Cow<'static, str>] {
        &self.lines
    }

    /// Shortens the text to the part that is kept after the session.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        let (mut remaining, mut kept) = (SHORTENED_MAX, 0);
        for line in &mut self.lines {
            if kept > 0 && remaining == 0 {
                break;
            }
            kept += 1;
            if line.len() > remaining {
                *line = cut(line, remaining);
                break;
            }
            remaining -= line.len();
        }
        if kept < self.lines.len() {
            self.lines.truncate(kept);
            self.lines.shrink_to_fit();
        }
        self
    }

    /// Appends the reply in its form on the wire (RFC 5321 §4.2.1), with the enhanced status on
    /// every line (RFC 2034 §4).
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let status = self.enhanced().map(EnhancedText::of);
        for (at, line) in self.lines.iter().enumerate() {
            let is_last = at + 1 == self.lines.len();
            out.extend_from_slice(&self.code.digits());
            out.push(if is_last { b' ' } else { b'-' });
            if let Some(status) = &status {
                out.extend_from_slice(status.octets());
                out.push(b' ');
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl fmt::Display for Reply {
    /// Writes the reply in one line for people and logs: `550 5.1.1 no such user`, further lines
    /// after " / ".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        if let Some(status) = self.enhanced() {
            f.write_str(" ")?;
            status.fmt(f)?;
        }
        for (at, line) in self.lines.iter().enumerate() {
            f.write_str(if at == 0 { " " } else { " / " })?;
            f.write_str(line)?;
        }
        Ok(())
    }
}

/// Replaces control characters, so that no text can end a reply or a log line early.
fn one_line(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.chars().any(char::is_control) {
        text.chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect::<String>()
            .into()
    } else {
        text
    }
}

/// Returns the front of a line, at most `most` octets.
fn cut(line: &str, most: usize) -> Cow<'static, str> {
    Cow::Owned(line[..line.floor_char_boundary(most)].to_owned())
}

/// The reasons why a peer's bytes are not a reply.
// Rule: RFC 5321 §4.2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The line does not begin with three digits and a space, hyphen or line end.
    #[error("the peer's answer is not an SMTP reply: {0:?}")]
    NotAReply(String),
    /// The lines of one reply have different codes (RFC 5321 §4.2.1).
    #[error("the peer's answer changes its code from {first} to {then}")]
    CodeChanged {
        /// The code of the first line.
        first: u16,
        /// The code of the line that differs.
        then: u16,
    },
    /// A line or the whole reply is longer than the limits.
    #[error("the peer's answer is longer than {LINES_MAX} lines or {LINE_MAX} octets a line")]
    TooLong,
}

/// Parses one reply at a time from the bytes of a peer. A bare LF is accepted as a line end too:
/// unlike in a message, it cannot be used to smuggle anything.
#[derive(Debug, Default)]
pub struct ReplyParser {
    partial: Option<PartialReply>,
}

/// A reply whose last line has not come yet.
#[derive(Debug)]
struct PartialReply {
    reply: Reply,
    /// The number of lines so far, and the octets of text that are kept of them.
    lines: usize,
    octets: usize,
}

impl ReplyParser {
    /// Takes complete lines from the front of `input` until a reply is complete. Returns the number
    /// of bytes used, with the reply, or with `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`ReplyError`]. The connection must then be closed.
    pub fn parse(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let Some(end) = memchr::memchr(b'\n', rest) else {
                return if rest.len() > LINE_MAX {
                    Err(ReplyError::TooLong)
                } else {
                    Ok((used, None))
                };
            };
            if end > LINE_MAX {
                return Err(ReplyError::TooLong);
            }
            used += end + 1;
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            if let Some(reply) = self.parse_line(line)? {
                return Ok((used, Some(reply)));
            }
        }
    }

    /// Parses one line. Returns the reply if the line is its last.
    // Rule: RFC 5321 §4.2, §4.2.1.
    fn parse_line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let text = String::from_utf8_lossy(line);
        let not_a_reply = || ReplyError::NotAReply(text.chars().take(200).collect());
        let digits = line
            .get(..3)
            .filter(|digits| digits.iter().all(u8::is_ascii_digit))
            .ok_or_else(not_a_reply)?;
        let number = digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        let code = ReplyCode::new(number).ok_or_else(not_a_reply)?;
        let last = match line.get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(not_a_reply()),
        };
        let (status, words) = split_status(code, text.get(4..).unwrap_or(""));
        let words = one_line(Cow::Owned(words.to_owned()));
        let partial = match self.partial.take() {
            None => {
                let words = if words.len() > TEXT_MAX {
                    cut(&words, TEXT_MAX)
                } else {
                    words
                };
                PartialReply {
                    lines: 1,
                    octets: words.len(),
                    reply: Reply {
                        code,
                        status,
                        lines: vec![words],
                    },
                }
            }
            Some(PartialReply { reply: first, .. }) if first.code != code => {
                return Err(ReplyError::CodeChanged {
                    first: first.code.get(),
                    then: code.get(),
                });
            }
            Some(first) if first.lines >= LINES_MAX => return Err(ReplyError::TooLong),
            Some(mut first) => {
                first.lines += 1;
                // Only complete lines are kept: a cut one could have another meaning, such as SIZE
                // 10 in place of SIZE 1000.
                if first.octets + words.len() <= TEXT_MAX {
                    first.octets += words.len();
                    first.reply.lines.push(words);
                }
                first
            }
        };
        if last {
            return Ok(Some(partial.reply));
        }
        self.partial = Some(partial);
        Ok(None)
    }
}

/// Splits an enhanced status off a line, if it has the same class as the code.
fn split_status(code: ReplyCode, words: &str) -> (Option<Status>, &str) {
    let (first, rest) = words.split_once(' ').unwrap_or((words, ""));
    match EnhancedStatusCode::parse(first) {
        Some(enhanced) if enhanced.severity == code.severity() => (Some(enhanced.status), rest),
        _ => (None, words),
    }
}

#[cfg(test)]
mod tests;
