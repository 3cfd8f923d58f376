//! Lines of a client: they end with CRLF, and have a limit.

use memchr::memchr2;

use super::error::CommandError;

/// The front of a client's input.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::smtp) enum CommandLine<'a> {
    /// The line is not complete yet.
    Partial,
    /// A line without its CRLF, and the number of octets including the CRLF.
    Complete(&'a [u8], usize),
    /// An invalid line. After this number of octets, the driver drops the remainder of the line
    /// with [`super::skip_line`].
    Invalid(CommandError, usize),
}

/// Takes one line of at most `most` octets, without the check for other protocols.
pub(super) fn split_any_line(input: &[u8], most: usize) -> CommandLine<'_> {
    let front = &input[..input.len().min(most)];
    let Some(at) = memchr2(b'\r', b'\n', front) else {
        return if input.len() < most {
            CommandLine::Partial
        } else {
            CommandLine::Invalid(CommandError::LineTooLong, most)
        };
    };
    match (front[at], input.get(at + 1)) {
        (b'\n', _) => CommandLine::Invalid(CommandError::BareLf, at + 1),
        _ if at + 2 > most => CommandLine::Invalid(CommandError::LineTooLong, at),
        (_, None) => CommandLine::Partial,
        (_, Some(b'\n')) => CommandLine::Complete(&input[..at], at + 2),
        (_, Some(_)) => CommandLine::Invalid(CommandError::BareCr, at + 1),
    }
}
