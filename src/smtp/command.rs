//! The commands of a client (RFC 5321 §4.1), parsed one line at a time.
//!
//! This module is grammar only: [`super::server`] decides whether a command is allowed now,
//! [`crate::policy::relay_access`] who may send to whom. A line ends with CRLF and nothing else. A
//! command is accepted as written or rejected, and never repaired: the next server could read a
//! repaired command differently. DSN parameters: RFC 3461 §4; SIZE: RFC 1870; SMTPUTF8: RFC 6531
//! §3.4; REQUIRETLS: RFC 8689 §2; BDAT: RFC 3030 §2; AUTH: RFC 4954.

mod arguments;
mod auth;
mod error;
mod lines;
mod params;
#[cfg(test)]
mod tests;
mod xclient;

use memchr::memmem;

use arguments::parse_client_name;
pub use arguments::{ClientName, MailFrom, RcptTo};
pub use auth::AuthCommand;
pub(super) use auth::{SaslLine, split_response};
pub use error::{CommandError, LINE_MAX};
pub(super) use lines::CommandLine;
use lines::split_any_line;
pub use xclient::{Attribute, XClient};

/// The methods of HTTP. A web page can make a browser send them to any port.
const HTTP_METHODS: [&[u8]; 10] = [
    b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE", b"CONNECT", b"PRI",
];
/// The beginnings of PROXY headers of version 1 and version 2 (`HAProxy`'s proxy-protocol.txt).
const PROXY_V1: &[u8] = b"PROXY ";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A command with its arguments.
// Rule: RFC 5321 §4.5.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// EHLO.
    Ehlo(ClientName),
    /// HELO.
    Helo(ClientName),
    /// STARTTLS.
    StartTls,
    /// MAIL FROM.
    Mail(MailFrom),
    /// RCPT TO.
    Rcpt(RcptTo),
    /// DATA.
    Data,
    /// BDAT. The chunk follows its line.
    Bdat {
        /// Octets in the chunk.
        size: u64,
        /// True for BDAT LAST.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY. The argument is ignored.
    Vrfy,
    /// EXPN. The argument is ignored.
    Expn,
    /// HELP. The argument is ignored.
    Help,
    /// XCLIENT.
    XClient(Box<XClient>),
    /// AUTH (RFC 4954 §4).
    Auth(AuthCommand),
}

/// Takes one line from the front of `input`.
///
/// A fault is reported once, as soon as it is seen. The line still ends only at CRLF: a server
/// between the client and this one may have seen a single line here, so this one must not see two.
pub(super) fn split_line(input: &[u8]) -> CommandLine<'_> {
    if input.starts_with(PROXY_V2) {
        return CommandLine::Invalid(CommandError::ProxyHeader, PROXY_V2.len());
    }
    match split_any_line(input, LINE_MAX) {
        // No more octets are examined than a line may have, so that the result does not depend on
        // how much more has arrived.
        CommandLine::Invalid(fault, used) => {
            CommandLine::Invalid(escalate(fault, &input[..input.len().min(LINE_MAX)]), used)
        }
        line @ (CommandLine::Partial | CommandLine::Complete(..)) => line,
    }
}

/// Turns a fault into a fatal one if the following octets must not be read as commands: a chunk
/// follows BDAT even if its line is invalid, and octets that a third party chose follow a line of
/// another protocol.
fn escalate(fault: CommandError, line: &[u8]) -> CommandError {
    let is_bdat = line
        .get(..4)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"));
    match fault {
        _ if is_bdat => CommandError::ChunkSize,
        // The third line of a version 2 header is a NUL.
        _ if line.starts_with(PROXY_V1) || line == b"\0" => CommandError::ProxyHeader,
        _ if is_other_protocol(line) => CommandError::NotSmtp,
        fault => fault,
    }
}

/// Returns true if a connection begins with a PROXY header.
#[must_use]
pub fn is_proxy_header(octets: &[u8]) -> bool {
    octets.starts_with(PROXY_V1) || octets.starts_with(PROXY_V2)
}

/// Returns true if an invalid line belongs to another protocol (Postfix
/// `smtpd_forbidden_commands`): a method of HTTP, a header field, or anything that does not begin
/// with a letter (TLS, or the body of a message).
fn is_other_protocol(line: &[u8]) -> bool {
    let line = line
        .split(|octet| matches!(octet, b'\r' | b'\n'))
        .next()
        .unwrap_or(line);
    let Some(first) = line.first() else {
        return false;
    };
    let word = verb(line);
    let name = word.split(|octet| *octet == b':').next().unwrap_or(word);
    let is_field = name.len() < word.len()
        && name
            .iter()
            .all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-');
    let is_request = HTTP_METHODS
        .iter()
        .any(|method| word.eq_ignore_ascii_case(method))
        || line
            .rsplit(|octet| *octet == b' ')
            .next()
            .is_some_and(|last| last.starts_with(b"HTTP/"));
    is_field || is_request || !(first.is_ascii_alphabetic() || matches!(first, b' ' | b'\t'))
}

/// Finds the end of an invalid line. Returns the number of octets to drop, and true if the end was
/// found.
pub(super) fn skip_line(input: &[u8]) -> (usize, bool) {
    match memmem::find(input, b"\r\n") {
        Some(at) => (at + 2, true),
        None if input.last() == Some(&b'\r') => (input.len() - 1, false),
        None => (input.len(), false),
    }
}

/// Returns the verb of a line, which ends at the first blank.
pub(super) fn verb(line: &[u8]) -> &[u8] {
    line.split(|octet| matches!(octet, b' ' | b'\t'))
        .next()
        .unwrap_or(line)
}

impl Command {
    /// Returns true if the command counts as junk (Postfix `smtpd_junk_command_limit`), however it
    /// is answered: it brings no message forward. MAIL alone does not either, since RSET can undo
    /// it.
    pub(super) fn is_junk(&self) -> bool {
        match self {
            Self::Ehlo(_) | Self::Helo(_) | Self::Mail(_) | Self::Rset | Self::Noop => true,
            Self::Vrfy | Self::Expn | Self::Help | Self::XClient(_) | Self::Auth(_) => true,
            Self::Bdat { size, last } => *size == 0 && !last,
            Self::StartTls | Self::Rcpt(_) | Self::Data | Self::Quit => false,
        }
    }

    /// Parses one line, given without its CRLF.
    ///
    /// # Errors
    /// The fault; [`CommandError::reply`] answers it.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        Self::parse_any(line).map_err(|fault| escalate(fault, line))
    }

    // Rule: RFC 3207 §4; RFC 5321 §2.4, §4.3.2.
    fn parse_any(line: &[u8]) -> Result<Self, CommandError> {
        let text = std::str::from_utf8(line).map_err(|_| CommandError::NotUtf8)?;
        // Trailing white space is tolerated (RFC 5321 §4.1.1).
        let text = text.trim_end_matches([' ', '\t']);
        if text.chars().any(char::is_control) {
            return Err(CommandError::Control);
        }
        let (verb, arguments) = match text.split_once(' ') {
            Some((verb, arguments)) => (verb, Some(arguments)),
            None => (text, None),
        };
        let no_argument = |command: Self, syntax| match arguments {
            None => Ok(command),
            Some(_) => Err(CommandError::Syntax(syntax)),
        };
        let any_argument = |command: Self, syntax| match arguments {
            Some(_) => Ok(command),
            None => Err(CommandError::Syntax(syntax)),
        };
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => parse_client_name(arguments, "EHLO hostname").map(Self::Ehlo),
            "HELO" => parse_client_name(arguments, "HELO hostname").map(Self::Helo),
            "STARTTLS" => no_argument(Self::StartTls, "STARTTLS"),
            "MAIL" => params::parse_mail(arguments.unwrap_or_default()).map(Self::Mail),
            "RCPT" => params::parse_rcpt(arguments.unwrap_or_default()).map(Self::Rcpt),
            "DATA" => no_argument(Self::Data, "DATA"),
            "BDAT" => parse_bdat(arguments.unwrap_or_default()),
            "RSET" => no_argument(Self::Rset, "RSET"),
            "NOOP" => Ok(Self::Noop),
            "QUIT" => no_argument(Self::Quit, "QUIT"),
            "VRFY" => any_argument(Self::Vrfy, "VRFY address"),
            "EXPN" => any_argument(Self::Expn, "EXPN list"),
            "HELP" => Ok(Self::Help),
            "AUTH" => auth::parse(arguments.unwrap_or_default()).map(Self::Auth),
            "XCLIENT" => xclient::parse(arguments.unwrap_or_default())
                .map(|attributes| Self::XClient(Box::new(attributes))),
            _ => Err(CommandError::Unknown),
        }
    }
}

fn parse_bdat(arguments: &str) -> Result<Command, CommandError> {
    let (size, last) = match arguments.split_once(' ') {
        None => (arguments, false),
        Some((size, last)) if last.eq_ignore_ascii_case("LAST") => (size, true),
        Some(_) => return Err(CommandError::ChunkSize),
    };
    let size = params::parse_number(size).ok_or(CommandError::ChunkSize)?;
    Ok(Command::Bdat { size, last })
}
