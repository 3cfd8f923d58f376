//! Why an HTTPS request was not answered as it should, in words for people.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Url;
use crate::handshake::HandshakeError;
use crate::tls::{ChainFault, NamePattern, UncheckableKey};

/// Names of a certificate that are shown, at most.
const NAMES_SHOWN: usize = 5;

/// A request that came to nothing: where it went, and what happened there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsError {
    /// What was asked.
    pub url: Url,
    /// Who was asked, where it came to that; the last one where several were tried.
    pub address: Option<SocketAddr>,
    /// How many addresses were tried.
    pub tried: usize,
    /// What happened.
    pub fault: HttpsFault,
}

impl std::error::Error for HttpsError {}

impl fmt::Display for HttpsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)?;
        if let Some(address) = self.address {
            write!(f, " at {address}")?;
        }
        if self.tried > 1 {
            write!(f, " (the last of {} addresses)", self.tried)?;
        }
        write!(f, ": {}", self.fault)
    }
}

/// What happened to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpsFault {
    /// DNS gave no answer about the host.
    Lookup(String),
    /// The host has no address.
    NoAddress,
    /// No TCP connection came about.
    Connect(String),
    /// The TLS handshake failed.
    Handshake(HandshakeError),
    /// The host showed no certificate.
    NoCertificate,
    /// Its certificate proves nothing: the key cannot be checked.
    Unproved(UncheckableKey),
    /// Its certificate does not stand under our trust anchors.
    Chain(ChainFault),
    /// Its certificate is for others.
    Name(Vec<NamePattern>),
    /// What it sent is not HTTP/1.1, or stopped in the middle.
    Http(String),
    /// It wants us to ask elsewhere, which is never done.
    Redirect(u16),
    /// It answered with this status.
    Status(u16),
    /// The body is longer than this many octets.
    TooLarge(usize),
    /// A step was not done in time.
    Timeout {
        /// What was waited for.
        step: HttpsStep,
        /// How long.
        limit: Duration,
    },
}

impl HttpsFault {
    /// Whether it is about the host's certificate (`sts-webpki-invalid` of RFC 8460 §4.3.2.2).
    #[must_use]
    pub fn is_certificate_fault(&self) -> bool {
        match self {
            Self::NoCertificate | Self::Unproved(_) | Self::Chain(_) | Self::Name(_) => true,
            Self::Lookup(_)
            | Self::NoAddress
            | Self::Connect(_)
            | Self::Handshake(_)
            | Self::Http(_)
            | Self::Redirect(_)
            | Self::Status(_)
            | Self::TooLarge(_)
            | Self::Timeout { .. } => false,
        }
    }
}

impl fmt::Display for HttpsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(fault) => write!(f, "the address lookup failed: {fault}"),
            Self::NoAddress => f.write_str("the host has no address"),
            Self::Connect(fault) => write!(f, "no connection: {fault}"),
            Self::Handshake(fault) => write!(f, "the TLS handshake failed: {fault}"),
            Self::NoCertificate => f.write_str("the host showed no certificate"),
            Self::Unproved(key) => write!(f, "the certificate proves nothing: its key cannot be checked ({key})"),
            Self::Chain(fault) => write!(f, "the certificate is not trusted: {fault}"),
            Self::Name(names) if names.is_empty() => f.write_str("the certificate carries no DNS name at all"),
            Self::Name(names) => {
                let shown: Vec<_> = names.iter().take(NAMES_SHOWN).map(ToString::to_string).collect();
                write!(f, "the certificate is for {}", shown.join(" or "))?;
                match names.len() - shown.len() {
                    0 => f.write_str(", not for the host"),
                    more => write!(f, " or {more} more, not for the host"),
                }
            }
            Self::Http(fault) => write!(f, "no proper HTTP answer: {fault}"),
            Self::Redirect(status) => write!(f, "it answered {status}, a redirection, and none is followed"),
            Self::Status(status) => write!(f, "it answered {status}"),
            Self::TooLarge(limit) => write!(f, "the answer is longer than {limit} octets"),
            Self::Timeout { step, limit } => write!(f, "{step} took longer than {limit:?}"),
        }
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpsStep {
    /// The addresses of the host.
    Lookup,
    /// The TCP connection.
    Connect,
    /// The TLS handshake.
    Handshake,
    /// The request to be taken, and the head of the answer.
    Head,
    /// The body of the answer.
    Body,
}

impl fmt::Display for HttpsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "the address lookup",
            Self::Connect => "the TCP connection",
            Self::Handshake => "the TLS handshake",
            Self::Head => "the head of the answer",
            Self::Body => "the body of the answer",
        })
    }
}
