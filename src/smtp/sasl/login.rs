//! A login by name and password, and the reasons why a login fails.

use super::prepared::{Password, PrepareError, prepare_name};

/// The reason why a login failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginFault {
    /// A line is not base64.
    #[error("a line is not base64")]
    NotBase64,
    /// A message does not follow the mechanism.
    #[error("a message does not follow the mechanism")]
    Malformed,
    /// Name or password are wrong.
    #[error("wrong name or password")]
    Credentials,
    /// The client wants to act as another user.
    #[error("the client wants to act as another user")]
    OtherIdentity,
    /// The channel binding is not that of this connection.
    #[error("the channel binding is not that of this TLS session")]
    ChannelBinding,
    /// The client was not shown the offer of a channel binding.
    #[error(
        "the client was not shown SCRAM-SHA-256-PLUS, which is offered: somebody may intercept the session"
    )]
    Downgrade,
    /// The nonce is not that of this exchange.
    #[error("the nonce is not that of this exchange")]
    Nonce,
}

impl LoginFault {
    /// Returns true for a fault in the form of the messages, which is no guess at a password.
    #[must_use]
    pub fn is_syntax(self) -> bool {
        matches!(self, Self::NotBase64 | Self::Malformed)
    }
}

/// A name and a password, which the driver must check.
#[derive(Debug, Clone)]
pub struct PasswordLogin {
    /// The name in the form in which it is compared.
    pub name: String,
    /// The password.
    pub password: Password,
}

impl PasswordLogin {
    pub(super) fn new(
        name: &str,
        password: Result<Password, PrepareError>,
    ) -> Result<Self, LoginFault> {
        match (prepare_name(name), password) {
            (Ok(name), Ok(password)) => Ok(Self { name, password }),
            _ => Err(LoginFault::Malformed),
        }
    }
}
