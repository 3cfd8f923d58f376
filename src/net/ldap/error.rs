//! The errors of a directory search.

use std::time::Duration;

use crate::net::tls_io::{HandshakeError, UnverifiedServer};
use crate::policy::directory::ber::BerError;
use crate::policy::tls::ChainFault;

/// The result codes of a search that are about the server, the login or the base, and not about the
/// value that is searched: operationsError, strongerAuthRequired, referral,
/// confidentialityRequired, noSuchObject, invalidCredentials, insufficientAccessRights, busy and
/// unavailable (RFC 4511 §4.1.9).
const ABOUT_SERVER: [u32; 9] = [1, 8, 10, 13, 32, 49, 50, 51, 52];

/// The reason why a directory gives no answer about a mailbox.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum DirectoryError {
    /// There is no connection, or no login.
    #[error(transparent)]
    Session(LdapError),
    /// The search failed.
    #[error(transparent)]
    Search(LdapError),
}

impl DirectoryError {
    /// Returns true if the directory would answer no search at present. Everything else at a search
    /// may depend on the address, which a client has chosen.
    #[must_use]
    pub fn is_general(&self) -> bool {
        match self {
            Self::Session(_) => true,
            Self::Search(LdapError::Refused { code, .. }) => ABOUT_SERVER.contains(code),
            Self::Search(_) => false,
        }
    }
}

/// The errors of an LDAP session.
#[derive(Debug, thiserror::Error)]
pub enum LdapError {
    /// The host has no address.
    #[error("cannot find the address of the server: {0}")]
    Lookup(String),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(std::io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server did not answer in time.
    #[error("no answer to {step} within {} s", limit.as_secs())]
    Timeout {
        /// The step.
        step: &'static str,
        /// Its time limit.
        limit: Duration,
    },
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(HandshakeError),
    /// The server has no certificate, or one whose key cannot be checked.
    #[error("the server shows no certificate that can be checked")]
    NoCertificate,
    /// The certificate is not trusted.
    #[error("the certificate is not trusted: {0}; see trust in [[recipients]]")]
    Untrusted(ChainFault),
    /// The certificate is for another name.
    #[error("the certificate is for {0}")]
    Name(String),
    /// The server refused an operation.
    #[error("the server answered {operation} with {code} {text}{}", remedy(*code))]
    Refused {
        /// The operation.
        operation: &'static str,
        /// The result code (RFC 4511 §4.1.9).
        code: u32,
        /// The server's text.
        text: String,
    },
    /// The server sent something that is not LDAP, or too much.
    #[error(transparent)]
    Malformed(#[from] BerError),
    /// The server sent more than a search can need.
    #[error("the answer is too long")]
    TooLong,
    /// Something came in the clear after the answer to STARTTLS.
    #[error("the server sent clear text after agreeing to StartTLS")]
    SpokeBeforeHandshake,
}

/// Returns what an administrator should look at.
fn remedy(code: u32) -> &'static str {
    match code {
        1 => " (Active Directory: a bind is needed, see bind_dn)",
        8 | 13 => " (the server wants TLS or another login)",
        10 => " (a referral, which is not followed: name the right server in url)",
        32 => " (base does not exist)",
        49 => " (see bind_dn and password_file)",
        50 => " (the login may not search)",
        _ => "",
    }
}

impl From<UnverifiedServer> for LdapError {
    fn from(error: UnverifiedServer) -> Self {
        match error {
            UnverifiedServer::Handshake(error) => Self::Handshake(error),
            UnverifiedServer::NoCertificate => Self::NoCertificate,
            UnverifiedServer::Untrusted(fault) => Self::Untrusted(fault),
            UnverifiedServer::Name(names) => Self::Name(names),
        }
    }
}

impl PartialEq for LdapError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}
