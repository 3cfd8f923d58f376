//! The reasons why we could not log in at a smart host. Each may pass, whatever the reply: it is about
//! us and not about the message.

use std::fmt;

use crate::smtp::reply::{Reply, Severity, Status};
use crate::smtp::sasl::ServerFault;

/// The reason why we could not log in at a host. Its text never has the user name, since it also goes
/// to senders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginProblem {
    /// The session does not prove who the host is, since an exception lowers the demand.
    Unproven,
    /// The password cannot be read.
    NoSecret,
    /// There is no access token, for this reason.
    NoToken(String),
    /// The host does not offer AUTH.
    NotOffered,
    /// The host offers none of the mechanisms that can be used.
    NoMechanism {
        /// Their names.
        names: &'static str,
    },
    /// The host rejected the login.
    Rejected {
        /// The mechanism.
        mechanism: &'static str,
        /// The reply.
        reply: Reply,
        /// The reason that the host gave before its reply.
        status: Option<String>,
        /// The remedy, if one is known.
        remedy: Option<&'static str>,
    },
    /// We ended the exchange, because the host does not follow the mechanism.
    Cancelled {
        /// The mechanism.
        mechanism: &'static str,
        /// The reason.
        fault: ServerFault,
    },
}

impl LoginProblem {
    /// Returns subject and detail of the enhanced status (RFC 4954 §6).
    #[must_use]
    pub fn status(&self) -> Status {
        const SECURITY: Status = Status(7, 0);
        const CREDENTIALS: Status = Status(7, 8);
        match self {
            Self::Rejected { reply, .. } => match reply.enhanced() {
                Some(enhanced) => enhanced.status(),
                None if reply.severity() == Severity::Permanent => CREDENTIALS,
                None => SECURITY,
            },
            Self::Unproven
            | Self::NoSecret
            | Self::NoToken(_)
            | Self::NotOffered
            | Self::NoMechanism { .. }
            | Self::Cancelled { .. } => SECURITY,
        }
    }

    /// Returns the reply of the host, if it rejected the login.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Rejected { reply, .. } => Some(reply),
            Self::Unproven
            | Self::NoSecret
            | Self::NoToken(_)
            | Self::NotOffered
            | Self::NoMechanism { .. }
            | Self::Cancelled { .. } => None,
        }
    }
}

impl fmt::Display for LoginProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unproven => f.write_str(
                "a login is needed, and impossible while the exception holds: the secret goes only to a host that proves \
                 its identity as the connector demands",
            ),
            Self::NoSecret => f.write_str("a login is needed, and its password cannot be read"),
            Self::NotOffered => f.write_str("a login is needed, but the host does not offer AUTH"),
            Self::NoToken(reason) => write!(f, "a login is needed, and there is {reason}"),
            Self::NoMechanism { names } => {
                write!(f, "a login is needed, but the host offers neither {names}")
            }
            Self::Rejected {
                mechanism,
                reply,
                status,
                remedy,
            } => {
                write!(f, "rejected our login ({mechanism}) with: {reply}")?;
                if let Some(status) = status {
                    write!(f, "; status {status}")?;
                }
                match remedy {
                    Some(remedy) => write!(f, " ({remedy})"),
                    None => Ok(()),
                }
            }
            Self::Cancelled { mechanism, fault } => {
                write!(f, "we ended the login ({mechanism}): {fault}")
            }
        }
    }
}
