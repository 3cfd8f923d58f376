//! DNS answers with their security, and lookup errors.

use std::fmt;
use std::time::Instant;

use crate::smtp::address::Domain;

/// The DNSSEC status of an answer (RFC 4035 §4.3, in the terms of RFC 7672 §2.1.1).
///
/// "Bogus" and "indeterminate" answers are a [`LookupError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// An unbroken chain of signatures leads from a trust anchor to every record of the answer:
    /// each CNAME, and the records at the end or the proof that there are none.
    Secure,
    /// The answer is not protected: a forgery would not be noticed.
    Insecure(InsecureReason),
}

/// The reason why an answer is insecure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsecureReason {
    /// A zone between the root and the name is proved to be unsigned.
    Unsigned,
    /// With `dnssec = "trust-resolver"`, the answer came without the AD bit.
    NoAdBit,
    /// The resolver does not return DNSSEC records, so nothing can be validated.
    ResolverStrips,
    /// With `dnssec = "off"`, nothing is validated.
    Off,
}

impl Security {
    /// Returns true if the answer is secure.
    #[must_use]
    pub fn is_secure(self) -> bool {
        match self {
            Self::Secure => true,
            Self::Insecure(_) => false,
        }
    }

    /// Returns the weaker of two links of a chain; `self` if both are insecure.
    #[must_use]
    pub fn weakest(self, other: Self) -> Self {
        match self {
            Self::Secure => other,
            Self::Insecure(_) => self,
        }
    }
}

impl fmt::Display for InsecureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsigned => "not signed with DNSSEC",
            Self::NoAdBit => "not validated by the resolver",
            Self::ResolverStrips => "not validated, because the resolver returns no DNSSEC records",
            Self::Off => "not validated, because [dns] dnssec is \"off\"",
        })
    }
}

/// The answer to one query after following CNAMEs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsAnswer<T> {
    /// The records, or the kind of their absence.
    pub found: AnswerRecords<T>,
    /// The security of the weakest link: every CNAME, and the records or their denial at the end.
    pub security: Security,
    /// The security of the first link: that of the CNAME if the name is an alias, else the same as
    /// `security`. RFC 7672 §2.2.2 needs both.
    pub first_link: Security,
    /// The name at the end of the CNAME chain, in lower case, in A-labels and without a final dot.
    /// It may be a name that no host can have, such as `_25._tcp.mx.example.org`.
    pub name: String,
    /// The time at which the answer expires.
    pub expires: Instant,
}

impl<T> DnsAnswer<T> {
    /// Returns the name at the end of the CNAME chain if it is a host name.
    #[must_use]
    pub fn domain(&self) -> Option<Domain> {
        Domain::parse(&self.name).ok()
    }

    /// Returns the records; empty if there are none.
    #[must_use]
    pub fn records(&self) -> &[T] {
        match &self.found {
            AnswerRecords::Records(records) => records,
            AnswerRecords::NoData | AnswerRecords::NoDomain => &[],
        }
    }
}

/// The CNAME chain that an answer was found by, without its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CnameChain {
    /// As in [`DnsAnswer::security`].
    pub security: Security,
    /// As in [`DnsAnswer::first_link`].
    pub first_link: Security,
    /// The name at the end of the CNAME chain, as in [`DnsAnswer::name`].
    pub name: String,
}

impl<T> From<DnsAnswer<T>> for CnameChain {
    fn from(answer: DnsAnswer<T>) -> Self {
        Self {
            security: answer.security,
            first_link: answer.first_link,
            name: answer.name,
        }
    }
}

impl CnameChain {
    /// Returns the name at the end of the CNAME chain if it is a host name.
    #[must_use]
    pub fn domain(&self) -> Option<Domain> {
        Domain::parse(&self.name).ok()
    }
}

/// The records of an answer, or the kind of their absence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerRecords<T> {
    /// At least one record.
    Records(Vec<T>),
    /// The name exists but has no record of this type.
    NoData,
    /// The name does not exist (NXDOMAIN).
    NoDomain,
}

/// The reason why a lookup has no answer. It says nothing about the records of the name and is
/// cached for seconds only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// DNSSEC validation failed: signatures are wrong, expired or missing. The answer may be
    /// forged.
    #[error("DNSSEC validation failed: {0}")]
    Bogus(String),
    /// The server returned an error code (SERVFAIL, REFUSED …) or a malformed response.
    #[error("{0}")]
    Server(String),
    /// No server answered in time.
    #[error("no name server answered in time")]
    Timeout,
}

/// An MX record (RFC 5321 §5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// The preference; lower is better.
    pub preference: u16,
    /// The host that the record names.
    pub exchange: Exchange,
}

/// The exchange field of an MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// A host name.
    Host(Domain),
    /// The root: the domain accepts no mail (null MX, RFC 7505).
    Null,
    /// A name that no host can have.
    NotAHost(String),
}

/// A TLSA record as received, unchecked (RFC 6698 §2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsaRecord {
    /// The certificate usage.
    pub usage: u8,
    /// The selector.
    pub selector: u8,
    /// The matching type.
    pub matching: u8,
    /// The certificate association data.
    pub data: Vec<u8>,
}
