//! What DNS says, in words of our own: answers with their security, and why there is none.

use std::fmt;
use std::time::Instant;

use crate::address::Domain;

/// What DNSSEC says about an answer (RFC 4035 §4.3, as RFC 7672 §2.1.1 uses the words).
///
/// There is no "bogus" and no "indeterminate" here: both are a [`LookupError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Every record of the answer, each CNAME on the way to it included, is signed, with an unbroken
    /// chain up to a trust anchor; a denial likewise.
    Secure,
    /// It may be a forgery, and nobody could tell.
    Insecure(InsecureReason),
}

/// Why an answer is insecure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsecureReason {
    /// A zone on the way is provably not signed.
    Unsigned,
    /// With `dnssec = "trust-resolver"`: the resolver does not vouch for the answer.
    NoAdBit,
    /// The resolver does not pass DNSSEC on, so that nothing can be validated.
    ResolverStrips,
    /// With `dnssec = "off"`: nothing is validated.
    Off,
}

impl Security {
    /// Whether it is secure.
    #[must_use]
    pub fn is_secure(self) -> bool {
        match self {
            Self::Secure => true,
            Self::Insecure(_) => false,
        }
    }

    /// The weaker of two links of one chain; the first where both are insecure.
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
            Self::ResolverStrips => "not validated, because the resolver does not pass DNSSEC on",
            Self::Off => "not validated, because [dns] dnssec is \"off\"",
        })
    }
}

/// An answer to one question, its CNAMEs followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsAnswer<T> {
    /// What was found.
    pub found: AnswerRecords<T>,
    /// The weakest link of the whole chain: every CNAME, and the records or their denial at its end.
    pub security: Security,
    /// The name that was asked for itself: the security of its CNAME where it is an alias, else the same
    /// as `security` (RFC 7672 §2.2.2 wants to know both).
    pub first_link: Security,
    /// The name at the end of the CNAME chain, lower case, in A-labels, without a dot at the end. It
    /// need not be a host name: `_25._tcp.mx.example.org`.
    pub name: String,
    /// Until when this may be believed.
    pub expires: Instant,
}

impl<T> DnsAnswer<T> {
    /// The name at the end of the CNAME chain, where it is a host name.
    #[must_use]
    pub fn domain(&self) -> Option<Domain> {
        Domain::parse(&self.name).ok()
    }

    /// The records; none where there is no such record, or no such name.
    #[must_use]
    pub fn records(&self) -> &[T] {
        match &self.found {
            AnswerRecords::Records(records) => records,
            AnswerRecords::NoData | AnswerRecords::NoDomain => &[],
        }
    }
}

/// How far DNS vouches for where a name leads: what is left of an [`DnsAnswer`] once its records are taken out.
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
        Self { security: answer.security, first_link: answer.first_link, name: answer.name }
    }
}

impl CnameChain {
    /// The name at the end of the CNAME chain, where it is a host name.
    #[must_use]
    pub fn domain(&self) -> Option<Domain> {
        Domain::parse(&self.name).ok()
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerRecords<T> {
    /// At least one record.
    Records(Vec<T>),
    /// The name exists, and has no record of this type.
    NoData,
    /// There is no such name (NXDOMAIN).
    NoDomain,
}

/// Why a question has no answer. None of these says anything about what exists, and none is cached for long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// DNSSEC validation failed: signatures that are wrong, expired or missing. What came may be forged.
    #[error("DNSSEC validation failed: {0}")]
    Bogus(String),
    /// A server answered that it cannot answer (SERVFAIL, REFUSED …), or with nonsense.
    #[error("{0}")]
    Server(String),
    /// Nobody answered in time.
    #[error("no name server answered in time")]
    Timeout,
}

/// An MX record (RFC 5321 §5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// Lower is better.
    pub preference: u16,
    /// Whom it names.
    pub exchange: Exchange,
}

/// Whom an MX record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// A host.
    Host(Domain),
    /// The root: no mail is wanted (RFC 7505).
    Null,
    /// Something that cannot be a host's name.
    NotAHost(String),
}

/// A TLSA record as it came (RFC 6698 §2.1); nothing is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsaRecord {
    /// Certificate usage.
    pub usage: u8,
    /// Selector.
    pub selector: u8,
    /// Matching type.
    pub matching: u8,
    /// Certificate association data.
    pub data: Vec<u8>,
}
