//! The arguments of EHLO, MAIL and RCPT.

use std::fmt;

use super::error::CommandError;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::envelope::{BodyType, Notify, Ret};

/// The name that a client gives in EHLO or HELO: printable, at most 255 octets. No decision depends
/// on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientName(pub(super) Box<str>);

impl ClientName {
    /// Returns the name as the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientName {
    /// Writes the name in a form that has no meaning in a header field: letters, digits and
    /// `.-_:[]` as they are, every other octet as `%` and two hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for octet in self.0.bytes() {
            if octet.is_ascii_alphanumeric() || b".-_:[]".contains(&octet) {
                write!(f, "{}", char::from(octet))?;
            } else {
                write!(f, "%{octet:02X}")?;
            }
        }
        Ok(())
    }
}

/// The MAIL command and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailFrom {
    /// The reverse-path.
    pub reverse_path: ReversePath,
    /// SIZE: the client's estimate, in octets.
    pub size: Option<u64>,
    /// BODY.
    pub body: BodyType,
    /// SMTPUTF8.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID as the client wrote it, in xtext.
    pub envid: Option<String>,
    /// REQUIRETLS.
    pub require_tls: bool,
    /// AUTH (RFC 4954 §5): true if it was given. The value is not kept, as if it were `<>`: it is
    /// passed on to nobody.
    pub auth: bool,
}

/// The RCPT command and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptTo {
    /// The forward-path.
    pub forward_path: ForwardPath,
    /// NOTIFY.
    pub notify: Option<Notify>,
    /// ORCPT as the client wrote it, `type;xtext`.
    pub orcpt: Option<String>,
    /// True if the command contains characters outside ASCII, which need a transaction with
    /// SMTPUTF8.
    pub utf8: bool,
}

// Rule: RFC 5321 §4.1.4.
pub(super) fn parse_client_name(
    argument: Option<&str>,
    syntax: &'static str,
) -> Result<ClientName, CommandError> {
    let name = argument.unwrap_or_default().trim_start_matches(' ');
    if (1..=NAME_MAX).contains(&name.len()) {
        Ok(ClientName(name.into()))
    } else {
        Err(CommandError::Syntax(syntax))
    }
}

/// The longest argument of EHLO and HELO in octets, which is the longest domain name.
pub(super) const NAME_MAX: usize = 255;
