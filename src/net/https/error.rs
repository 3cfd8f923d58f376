//! The errors of HTTPS requests.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Url;
use crate::config::ProxyAddress;
use crate::net::tls_io::HandshakeError;
use crate::policy::tls::{ChainFault, NamePattern, UncheckableKey};

/// The maximum number of certificate names in an error text.
const NAMES_SHOWN: usize = 5;

/// The maximum size of a proxy's response header in octets.
pub(super) const HEAD_MAX: usize = 16 * 1024;
/// The status by which a proxy demands a login (RFC 9110 §15.5.8).
pub(super) const LOGIN_DEMANDED: u16 = 407;

/// The failure of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsError {
    /// The URL of the request.
    pub url: Url,
    /// The proxy, if the request went through one.
    pub proxy: Option<ProxyAddress>,
    /// The last address that was tried, if any: that of the proxy, if there is one.
    pub address: Option<SocketAddr>,
    /// The number of addresses that were tried.
    pub tried: usize,
    /// The cause.
    pub fault: HttpsFault,
}

impl std::error::Error for HttpsError {}

impl fmt::Display for HttpsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)?;
        if let Some(proxy) = &self.proxy {
            write!(f, " through the HTTP proxy {proxy}")?;
        }
        if let Some(address) = self.address {
            write!(f, " at {address}")?;
        }
        if self.tried > 1 {
            write!(f, " (the last of {} addresses)", self.tried)?;
        }
        write!(f, ": {}", self.fault)
    }
}

/// The cause of a failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpsFault {
    /// The address lookup failed.
    Lookup(String),
    /// The host has no address.
    NoAddress,
    /// The TCP connection failed.
    Connect(String),
    /// The proxy opens no tunnel to the host.
    Proxy(TunnelFault),
    /// The TLS handshake failed.
    Handshake(HandshakeError),
    /// The host presented no certificate.
    NoCertificate,
    /// The certificate's key uses an algorithm that cannot be checked, so it proves nothing.
    Unproved(UncheckableKey),
    /// The certificate is not valid under the trust anchors.
    Chain(ChainFault),
    /// The certificate is valid for these other names only.
    Name(Vec<NamePattern>),
    /// The response is not valid HTTP/1.1, or broke off.
    Http(String),
    /// The host redirects, with this status. Redirections are never followed.
    Redirect(u16),
    /// The host answered with this error status.
    Status(u16),
    /// The body is longer than this many octets.
    TooLarge(usize),
    /// A step took too long.
    Timeout {
        /// The step.
        step: HttpsStep,
        /// Its time limit.
        limit: Duration,
    },
}

impl HttpsFault {
    /// Returns true if the fault concerns the host's certificate (`sts-webpki-invalid` of RFC 8460
    /// §4.3.2.2).
    #[must_use]
    pub fn is_certificate_fault(&self) -> bool {
        match self {
            Self::NoCertificate | Self::Unproved(_) | Self::Chain(_) | Self::Name(_) => true,
            Self::Lookup(_)
            | Self::NoAddress
            | Self::Connect(_)
            | Self::Proxy(_)
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
            Self::Connect(fault) => write!(f, "connection failed: {fault}"),
            Self::Proxy(fault) => fault.fmt(f),
            Self::Handshake(fault) => write!(f, "the TLS handshake failed: {fault}"),
            Self::NoCertificate => f.write_str("the host presented no certificate"),
            Self::Unproved(key) => write!(
                f,
                "the certificate proves nothing: its key cannot be checked ({key})"
            ),
            Self::Chain(fault) => write!(f, "the certificate is not trusted: {fault}"),
            Self::Name(names) if names.is_empty() => {
                f.write_str("the certificate carries no DNS name")
            }
            Self::Name(names) => {
                let shown: Vec<_> = names
                    .iter()
                    .take(NAMES_SHOWN)
                    .map(ToString::to_string)
                    .collect();
                write!(f, "the certificate is for {}", shown.join(" or "))?;
                match names.len() - shown.len() {
                    0 => f.write_str(", not for the host"),
                    more => write!(f, " or {more} more, not for the host"),
                }
            }
            Self::Http(fault) => write!(f, "invalid HTTP response: {fault}"),
            Self::Redirect(status) => write!(
                f,
                "the host answered {status}; redirections are not followed"
            ),
            Self::Status(status) => write!(f, "the host answered {status}"),
            Self::TooLarge(limit) => write!(f, "the response is longer than {limit} octets"),
            Self::Timeout { step, limit } => write!(f, "{step} took longer than {limit:?}"),
        }
    }
}

/// The reason why a proxy does not open a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelFault {
    /// The lookup of the proxy's own address failed.
    #[error("the address of the proxy is unknown: {0}")]
    Lookup(String),
    /// The proxy closed or reset the connection before the end of its response.
    #[error("the proxy closed the connection before its response was complete")]
    Closed,
    /// The header of the response is too long.
    #[error("the header of the proxy's response has more than {HEAD_MAX} octets")]
    TooLong,
    /// The response is not HTTP/1.1.
    #[error("the response of the proxy is not HTTP/1.1")]
    NotHttp,
    /// The proxy demands a login.
    #[error(
        "the proxy demands a login ({LOGIN_DEMANDED}), which is not supported; let the proxy accept this relay by its \
         address"
    )]
    Login,
    /// The proxy answered with this status.
    #[error("the proxy opens no tunnel to the host: it answered {0}")]
    Status(u16),
}

/// A step of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpsStep {
    /// The address lookup.
    Lookup,
    /// The TCP connection.
    Connect,
    /// The proxy's response to CONNECT.
    Tunnel,
    /// The TLS handshake.
    Handshake,
    /// The transmission of the request, until the head of the response.
    Head,
    /// The body of the response.
    Body,
}

impl fmt::Display for HttpsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "the address lookup",
            Self::Connect => "the TCP connection",
            Self::Tunnel => "the response of the proxy",
            Self::Handshake => "the TLS handshake",
            Self::Head => "the head of the response",
            Self::Body => "the body of the response",
        })
    }
}
