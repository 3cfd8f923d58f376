//! DNS zones under a signed root of their own, and a server that answers like a recursive resolver.
//!
//! The parent of each zone delegates to it, with a DS record as the zone's [`Kind`] says. Proofs of
//! absence are NSEC records, with wildcards and empty non-terminals as in RFC 4035 §3.1.3. The
//! server is meant for the demo and for tests: the zones are small and do not change.

mod answer;
mod error;
mod kind;
mod record;
mod serve;
mod sign;

use hickory_resolver::proto::op::{Message, Query};

pub use error::ZoneError;
pub use kind::Kind;
pub use record::full_name;
pub use serve::{DnsTransport, Resolver, serve};
use sign::DemoZone;

/// Signed and unsigned zones, under one signed root.
pub struct Zones {
    /// The zones, with the root first.
    zones: Vec<DemoZone>,
}

impl std::fmt::Debug for Zones {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zones")
            .field("count", &self.zones.len())
            .finish_non_exhaustive()
    }
}

impl Zones {
    /// Builds and signs zones from their origins and records. There is one record on each line,
    /// with complete names, for example `example.test MX 10 mx.example.test`; A, AAAA, MX, CNAME,
    /// TXT, TLSA and DS are supported.
    ///
    /// # Errors
    /// [`ZoneError`].
    pub fn new<T: AsRef<str>>(written: &[(T, Kind, T)]) -> Result<Self, ZoneError> {
        Ok(Self {
            zones: sign::build_zones(written)?,
        })
    }

    /// Returns the root's key as a line of a trust anchor file, in the form of a DNSKEY record.
    #[must_use]
    pub fn anchor_dnskey(&self) -> String {
        self.zones[0].anchor_dnskey()
    }

    /// Returns the root's key as a line of a trust anchor file, in the form of a DS record.
    ///
    /// # Errors
    /// [`ZoneError`].
    pub fn anchor_ds(&self) -> Result<String, ZoneError> {
        self.zones[0].anchor_ds()
    }

    /// Fills a reply. With `dnssec`, it includes signatures and proofs. With `validates`, secure
    /// answers have the AD bit, and bogus ones become SERVFAIL.
    ///
    /// # Errors
    /// [`ZoneError::Dns`] if the name is so long that no wildcard name can be formed beside it.
    pub fn answer(
        &self,
        reply: &mut Message,
        query: &Query,
        dnssec: bool,
        validates: bool,
    ) -> Result<(), ZoneError> {
        answer::fill(reply, &self.zones, query, dnssec, validates)
    }
}
