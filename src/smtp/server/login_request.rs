//! The questions about a client that logs in, which the driver answers.

use crate::smtp::sasl::scram::ScramVerifier;
use crate::smtp::sasl::{LoginFault, PasswordLogin};

/// A question about a client that logs in.
#[derive(Debug)]
pub enum LoginRequest {
    /// Check this name and password, then call [`super::Server::login`].
    Password(PasswordLogin),
    /// Find the verifier of this user, then call [`super::Server::scram_challenge`].
    Verifier(String),
    /// The client has proved that it knows the password of this user. Decide whether the user may
    /// log in, then call [`super::Server::login`].
    Proved(String),
    /// The login has failed for this reason; the name is that of the client, if it gave one. Call
    /// [`super::Server::login`] with the refusal.
    Failed(LoginFault, Option<String>),
}

/// The verifier of a user, for [`super::Server::scram_challenge`].
#[derive(Debug)]
pub struct FoundVerifier<'a> {
    /// The verifier; for an unknown user, one that stands in for it.
    pub verifier: ScramVerifier,
    /// True if the user exists.
    pub is_genuine: bool,
    /// Our part of the nonce.
    pub nonce: &'a str,
    /// The channel binding of the TLS session; empty if it has none.
    pub binding: &'a [u8],
}
