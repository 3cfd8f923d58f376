//! AUTH and the lines of its exchange (RFC 4954 §4).

use std::fmt;

use super::error::CommandError;
use super::lines::{CommandLine, split_any_line};

/// The longest line of an exchange in octets, with its CRLF (RFC 4954 §4).
const RESPONSE_MAX: usize = 12_288;
/// The longest name of a mechanism (RFC 4422 §3.1).
const MECHANISM_MAX: usize = 20;

const SYNTAX: CommandError = CommandError::Syntax("AUTH mechanism [initial-response]");

/// The AUTH command. Its response is never shown, since it may have a password.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthCommand {
    /// The name of the mechanism, in capitals.
    pub mechanism: String,
    /// The initial response in base64, if there is one.
    pub initial: Option<String>,
}

impl fmt::Debug for AuthCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthCommand")
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

/// Parses the arguments of AUTH.
// Rule: RFC 4954 §4.
pub(super) fn parse(arguments: &str) -> Result<AuthCommand, CommandError> {
    let mut words = arguments.split(' ').filter(|word| !word.is_empty());
    let mechanism = words.next().ok_or(SYNTAX)?;
    let initial = words.next();
    let is_name = mechanism.len() <= MECHANISM_MAX
        && mechanism
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet));
    if !is_name || words.next().is_some() {
        return Err(SYNTAX);
    }
    Ok(AuthCommand {
        mechanism: mechanism.to_ascii_uppercase(),
        initial: initial.map(str::to_owned),
    })
}

/// A line of the client within an exchange.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::smtp) enum SaslLine<'a> {
    /// The line is not complete yet.
    Partial,
    /// A response in base64, and the number of octets of the line.
    Response(&'a [u8], usize),
    /// `*`: the client cancels the exchange.
    Cancelled(usize),
    /// The line is longer than the limit. Its remainder must be skipped.
    TooLong(usize),
    /// The line has a fault, and its remainder must be skipped.
    Invalid(CommandError, usize),
}

/// Takes one line of an exchange from the front of `input`.
// Rule: RFC 4954 §4.
pub(in crate::smtp) fn split_response(input: &[u8]) -> SaslLine<'_> {
    match split_any_line(input, RESPONSE_MAX) {
        CommandLine::Partial => SaslLine::Partial,
        CommandLine::Complete(b"*", used) => SaslLine::Cancelled(used),
        CommandLine::Complete(line, used) => SaslLine::Response(line, used),
        CommandLine::Invalid(CommandError::LineTooLong, used) => SaslLine::TooLong(used),
        CommandLine::Invalid(fault, used) => SaslLine::Invalid(fault, used),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_a_mechanism_and_perhaps_a_response() {
        let good = |mechanism: &str, initial: Option<&str>| {
            Ok(AuthCommand {
                mechanism: mechanism.to_owned(),
                initial: initial.map(str::to_owned),
            })
        };
        for (arguments, parsed) in [
            ("plain", good("PLAIN", None)),
            ("LOGIN dGlt", good("LOGIN", Some("dGlt"))),
            ("EXTERNAL =", good("EXTERNAL", Some("="))),
            ("SCRAM-SHA-256-PLUS", good("SCRAM-SHA-256-PLUS", None)),
            ("", Err(SYNTAX)),
            ("PLAIN a b", Err(SYNTAX)),
            ("PLAIN;x", Err(SYNTAX)),
            ("AAAAAAAAAAAAAAAAAAAAA", Err(SYNTAX)),
        ] {
            assert_eq!(parse(arguments), parsed, "{arguments:?}");
        }
        let shown = format!("{:?}", parse("PLAIN c2VjcmV0"));
        assert!(!shown.contains("c2VjcmV0"), "{shown}");
    }

    #[test]
    fn lines_of_an_exchange_have_their_own_limit() {
        let line = |octets: usize| [vec![b'A'; octets], b"\r\n".to_vec()].concat();
        assert!(matches!(
            split_response(&line(12_286)),
            SaslLine::Response(_, 12_288)
        ));
        assert!(matches!(
            split_response(&line(12_287)),
            SaslLine::TooLong(_)
        ));
        assert!(matches!(
            split_response(&vec![b'A'; 20_000]),
            SaslLine::TooLong(12_288)
        ));
        assert_eq!(split_response(b"*\r\nNOOP\r\n"), SaslLine::Cancelled(3));
        assert_eq!(split_response(b"**\r"), SaslLine::Partial);
        assert_eq!(
            split_response(b"AA\n"),
            SaslLine::Invalid(CommandError::BareLf, 3)
        );
    }
}
