//! DNS zones with a signed root of their own, and a server that answers about them as a recursive resolver does.
//!
//! The parent of each zone delegates to it and vouches for it (DS) as its [`Kind`] says. Proofs of absence are
//! NSEC, with wildcards and empty non-terminals as RFC 4035 §3.1.3 wants them. It is no name server for
//! anybody else: zones are small, written by whoever starts it, and never change.

mod answer;
mod record;
mod serve;
mod sign;

use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::dnssec::DnsSecError;
use hickory_resolver::proto::op::{Message, Query};

pub use record::full_name;
pub use serve::{Over, Resolver, serve};
use sign::Zone;

/// How a zone is signed, and what its parent says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it should be.
    Signed,
    /// Signed, for so many seconds from now on.
    SignedFor(u32),
    /// Not at all, and the parent proves it.
    Unsigned,
    /// It is signed, and the parent does not know.
    Island,
    /// The parent's DS means another key.
    WrongKey,
    /// All signatures are over.
    Expired,
    /// The parent says that it is signed, and there are no signatures.
    SignaturesLost,
}

impl Kind {
    /// Whether a validator takes it for secure.
    fn is_good(self) -> bool {
        matches!(self, Self::Signed | Self::SignedFor(_))
    }
}

/// Why zones cannot be made of what is written.
#[derive(Debug, thiserror::Error)]
pub enum ZoneError {
    /// A record that is none, or that is not in its zone.
    #[error("no record of a zone can be made of {0:?}")]
    Record(String),
    /// A name or a message.
    #[error("{0}")]
    Dns(#[from] ProtoError),
    /// A key or a signature.
    #[error("{0}")]
    Dnssec(#[from] DnsSecError),
    /// Signatures have dates from 1970 to 2106.
    #[error("the clock shows a time that no signature can have")]
    Clock,
}

/// Signed and unsigned zones, under one signed root.
pub struct Zones {
    /// The root first.
    zones: Vec<Zone>,
}

impl std::fmt::Debug for Zones {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zones").field("count", &self.zones.len()).finish_non_exhaustive()
    }
}

impl Zones {
    /// Makes and signs them: each with its origin and its records, one a line, with complete names:
    /// `example.test MX 10 mx.example.test`. A, AAAA, MX, CNAME, TXT, TLSA and DS can be written.
    ///
    /// # Errors
    /// [`ZoneError`].
    pub fn new<T: AsRef<str>>(written: &[(T, Kind, T)]) -> Result<Self, ZoneError> {
        Ok(Self { zones: sign::house(written)? })
    }

    /// The root's key as a line of a trust anchor file: a DNSKEY record.
    #[must_use]
    pub fn anchor_dnskey(&self) -> String {
        self.zones[0].anchor_dnskey()
    }

    /// The same as a DS record.
    ///
    /// # Errors
    /// [`ZoneError`].
    pub fn anchor_ds(&self) -> Result<String, ZoneError> {
        self.zones[0].anchor_ds()
    }

    /// Fills a reply; with `dnssec`, signatures and proofs come along. With `validates`, good answers have the AD
    /// bit and bogus ones become SERVFAIL.
    ///
    /// # Errors
    /// [`ZoneError::Dns`] for a name that is too long to have a wildcard beside it.
    pub fn answer(&self, reply: &mut Message, query: &Query, dnssec: bool, validates: bool) -> Result<(), ZoneError> {
        answer::fill(reply, &self.zones, query, dnssec, validates)
    }
}
