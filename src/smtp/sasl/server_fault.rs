//! The faults for which we end an exchange as its client.

/// The most characters of a server's own words that are kept.
const WORDS_MAX: usize = 100;

/// The reason why we end an exchange: the server does not follow the mechanism, or does not prove
/// that it knows our password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerFault {
    /// A challenge is not base64.
    #[error("its challenge is not base64")]
    NotBase64,
    /// The server asks for more than the mechanism has.
    #[error("it asks for more than the mechanism has")]
    TooMany,
    /// The first message of SCRAM cannot be accepted.
    #[error(
        "its first message is malformed, does not extend our nonce, or asks for fewer than 4096 or more than 1000000 iterations"
    )]
    FirstMessage,
    /// The server ended SCRAM with an error of its own.
    #[error("it answered {0:?}")]
    Refusal(String),
    /// The server does not prove that it knows the password.
    #[error("it does not prove that it knows our password (wrong or malformed signature)")]
    Signature,
    /// The server accepted the login too early.
    #[error("it accepted the login before it could check our password or prove that it knows it")]
    NoProof,
}

/// Returns the beginning of a server's words, for a report.
pub(super) fn shortened(words: &str) -> String {
    words
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(WORDS_MAX)
        .collect()
}
