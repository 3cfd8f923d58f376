//! The errors of token requests, in the token server's words where it has any.

use std::fmt;

use crate::config::Fault;
use crate::net::https::{HttpsError, Url};

/// The failure to get an access token. All that wait for the token share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenError {
    /// The token endpoint.
    pub token_url: Url,
    /// The cause.
    pub fault: TokenFault,
    /// The remedy, if one is known.
    pub(super) remedy: Option<&'static str>,
}

impl std::error::Error for TokenError {}

impl TokenError {
    /// Returns what the administrator can do, as a sentence.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match (&self.fault, self.remedy) {
            (TokenFault::Secret(fault), _) => Some(fault.remedy.clone()),
            (_, remedy) => remedy.map(str::to_owned),
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no access token: ")?;
        match &self.fault {
            // These name the file or the URL themselves.
            TokenFault::Secret(_) | TokenFault::Https(_) => self.fault.fmt(f)?,
            fault => write!(f, "{}: {fault}", self.token_url)?,
        }
        match self.remedy() {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

/// The cause of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenFault {
    /// A file of the settings cannot be used.
    Secret(Box<Fault>),
    /// The library could not sign an assertion.
    Signing,
    /// The server could not be reached, or sent no response within the limits.
    Https(Box<HttpsError>),
    /// The server refuses, and says why.
    Refused(Box<TokenRefusal>),
    /// The server answered with this error status, and without an explanation in JSON.
    Status(u16),
    /// The response is not a JSON object.
    NotJson {
        /// The type that the server names.
        content_type: Option<String>,
    },
    /// The response has no token.
    NoToken,
    /// The token is empty, too long, or has characters that a token cannot have.
    MalformedToken,
    /// The refresh token is empty, too long, or has characters that a token cannot have.
    MalformedRefreshToken,
    /// The token is not a bearer token.
    TokenType,
    /// The token has already expired.
    Expired,
    /// `expires_in` is not a number of seconds.
    Lifetime,
    /// The fetch was ended with its task.
    Interrupted,
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(fault) => f.write_str(&fault.message),
            Self::Signing => f.write_str("the assertion cannot be signed"),
            Self::Https(error) => error.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Status(status) => {
                write!(f, "the token server answered {status} without an explanation")
            }
            Self::NotJson { content_type } => {
                f.write_str("the token server's answer is not a JSON object")?;
                match content_type {
                    Some(content_type) => write!(f, " but {content_type}"),
                    None => Ok(()),
                }
            }
            Self::NoToken => f.write_str("the token server's answer has no access_token"),
            Self::MalformedToken => f.write_str(
                "the access_token is empty, longer than 8192 octets, or has characters that a token cannot have",
            ),
            Self::MalformedRefreshToken => f.write_str(
                "the refresh_token is empty, longer than 8192 octets, or has characters that a token cannot have",
            ),
            Self::TokenType => f.write_str("the access_token is not of token_type Bearer"),
            Self::Expired => f.write_str("the access_token has already expired (expires_in is 0)"),
            Self::Lifetime => f.write_str("expires_in is not a number of seconds"),
            Self::Interrupted => f.write_str("the request was interrupted"),
        }
    }
}

/// The error response of a token server (RFC 6749 §5.2), on one line and shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRefusal {
    /// The HTTP status.
    pub status: u16,
    /// `error`.
    pub code: String,
    /// `error_description`.
    pub description: Option<String>,
}

impl fmt::Display for TokenRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the token server refuses with {} {}",
            self.status, self.code
        )?;
        match &self.description {
            Some(description) => write!(f, ": {description}"),
            None => Ok(()),
        }
    }
}
