//! What is seen of one session: for whom, under which policy, and how it went (RFC 8460 §4.3).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::address::Domain;

/// One session with a host that mail for a domain goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// When the session was; its UTC day is the day it counts for.
    pub at: Timestamp,
    /// The domain that mail was for (of a smart host: the smart host's). Its record says who is told.
    pub domain: Domain,
    /// What was asked of the session.
    pub policy: Arc<Policy>,
    /// How it went.
    pub session: Session,
}

/// A policy that was applied to a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The policy domain (RFC 8460 §1.1): for MTA-STS and where nothing was found the domain itself, for
    /// DANE the TLSA base domain of the host.
    pub domain: Domain,
    /// What was published.
    pub found: Found,
}

/// What a domain was found to publish.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Found {
    /// TLSA records, each in its presentation form (RFC 6698 §2.2).
    Tlsa(Vec<String>),
    /// An MTA-STS policy (RFC 8461 §3.2).
    Sts {
        /// Its lines.
        lines: Vec<String>,
        /// Its MX patterns.
        mx: Vec<String>,
    },
    /// Neither.
    Nothing,
}

impl Found {
    /// Its name in a report.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tlsa(_) => "tlsa",
            Self::Sts { .. } => "sts",
            Self::Nothing => "no-policy-found",
        }
    }
}

/// How a session went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Session {
    /// TLS was negotiated, and everything that the policy demands was met.
    Succeeded,
    /// Something was missing, whether or not mail was delivered all the same.
    Failed(Failure),
}

/// A failed session, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    /// What was wrong.
    pub result: ResultType,
    /// Our address.
    pub sending_ip: Option<IpAddr>,
    /// The host that was meant to be reached.
    pub mx: Option<String>,
    /// What it called itself in its greeting.
    pub helo: Option<String>,
    /// Its address.
    pub receiving_ip: Option<IpAddr>,
    /// A word for what went wrong, where the result does not say it all.
    pub reason: Option<String>,
    /// More, in words or as a URI.
    pub information: Option<String>,
}

impl Failure {
    /// A failure of which nothing more is known.
    #[must_use]
    pub fn new(result: ResultType) -> Self {
        Self { result, sending_ip: None, mx: None, helo: None, receiving_ip: None, reason: None, information: None }
    }
}

/// Result types (RFC 8460 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResultType {
    /// The host does not offer STARTTLS.
    StartTlsNotSupported,
    /// The certificate is for another name.
    CertificateHostMismatch,
    /// The certificate's time is over.
    CertificateExpired,
    /// The certificate is not under a trusted authority.
    CertificateNotTrusted,
    /// Anything else about TLS.
    ValidationFailure,
    /// TLSA records that cannot be used, or that the certificate does not match.
    TlsaInvalid,
    /// DNSSEC could not prove the records.
    DnssecInvalid,
    /// DANE was demanded by us, and the domain has none.
    DaneRequired,
    /// An MTA-STS policy was announced and could not be fetched.
    StsPolicyFetchError,
    /// The MTA-STS policy that was fetched is none.
    StsPolicyInvalid,
    /// The policy host's certificate is not trusted.
    StsWebpkiInvalid,
}

impl ResultType {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::StartTlsNotSupported,
        Self::CertificateHostMismatch,
        Self::CertificateExpired,
        Self::CertificateNotTrusted,
        Self::ValidationFailure,
        Self::TlsaInvalid,
        Self::DnssecInvalid,
        Self::DaneRequired,
        Self::StsPolicyFetchError,
        Self::StsPolicyInvalid,
        Self::StsWebpkiInvalid,
    ];

    /// Its name in a report.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StartTlsNotSupported => "starttls-not-supported",
            Self::CertificateHostMismatch => "certificate-host-mismatch",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateNotTrusted => "certificate-not-trusted",
            Self::ValidationFailure => "validation-failure",
            Self::TlsaInvalid => "tlsa-invalid",
            Self::DnssecInvalid => "dnssec-invalid",
            Self::DaneRequired => "dane-required",
            Self::StsPolicyFetchError => "sts-policy-fetch-error",
            Self::StsPolicyInvalid => "sts-policy-invalid",
            Self::StsWebpkiInvalid => "sts-webpki-invalid",
        }
    }
}

impl fmt::Display for ResultType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
