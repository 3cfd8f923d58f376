//! The result of one session: domain, policy and outcome (RFC 8460 §4.3).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::smtp::address::Domain;

/// The result of one session with a host that accepts mail for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The time of the session. Its UTC day is the day under which it is counted.
    pub at: Timestamp,
    /// The domain that the mail was for, or the domain of the smart host. Its TLSRPT record names
    /// the destinations of the report.
    pub domain: Domain,
    /// The policy that was applied.
    pub policy: Arc<AppliedPolicy>,
    /// The outcome.
    pub session: SessionResult,
}

/// A policy that was applied to a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppliedPolicy {
    /// The policy domain (RFC 8460 §1.1): for DANE the TLSA base domain of the host, otherwise the
    /// recipient domain.
    pub domain: Domain,
    /// The published policy.
    pub found: ReportedPolicy,
}

/// The policy that a domain publishes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReportedPolicy {
    /// TLSA records, each in its presentation form (RFC 6698 §2.2).
    Tlsa(Vec<String>),
    /// An MTA-STS policy (RFC 8461 §3.2).
    Sts {
        /// The lines of the policy.
        lines: Vec<String>,
        /// The MX patterns of the policy.
        mx: Vec<String>,
    },
    /// Neither TLSA records nor an MTA-STS policy.
    Nothing,
}

impl ReportedPolicy {
    /// Returns the `policy-type` of a report.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tlsa(_) => "tlsa",
            Self::Sts { .. } => "sts",
            Self::Nothing => "no-policy-found",
        }
    }
}

/// The outcome of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionResult {
    /// TLS was negotiated, and the session met the policy.
    Succeeded,
    /// The session did not meet the policy, whether or not mail was delivered.
    Failed(SessionFailure),
}

/// The known facts of a failed session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionFailure {
    /// The result type.
    pub result: ResultType,
    /// Our address.
    pub sending_ip: Option<IpAddr>,
    /// The MX host that was to be reached.
    pub mx: Option<String>,
    /// The name in the greeting of the host.
    pub helo: Option<String>,
    /// The address of the host.
    pub receiving_ip: Option<IpAddr>,
    /// A failure reason code, if the result type is not specific enough.
    pub reason: Option<String>,
    /// Additional information, as text or URI.
    pub information: Option<String>,
}

impl SessionFailure {
    /// Returns a failure without further facts.
    #[must_use]
    pub fn new(result: ResultType) -> Self {
        Self {
            result,
            sending_ip: None,
            mx: None,
            helo: None,
            receiving_ip: None,
            reason: None,
            information: None,
        }
    }
}

/// The result types of RFC 8460 §4.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResultType {
    /// The host does not offer STARTTLS.
    StartTlsNotSupported,
    /// The certificate is for another name.
    CertificateHostMismatch,
    /// The certificate has expired.
    CertificateExpired,
    /// The certificate is not issued by a trusted authority.
    CertificateNotTrusted,
    /// Any other TLS failure.
    ValidationFailure,
    /// TLSA records that are unusable or that the certificate does not match.
    TlsaInvalid,
    /// The records could not be validated with DNSSEC.
    DnssecInvalid,
    /// DANE is required by us, and the domain has no TLSA records.
    DaneRequired,
    /// An MTA-STS policy is announced and could not be fetched.
    StsPolicyFetchError,
    /// The fetched MTA-STS policy is invalid.
    StsPolicyInvalid,
    /// The certificate of the policy host is not trusted.
    StsWebpkiInvalid,
}

impl ResultType {
    /// All result types.
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

    /// Returns the name in a report.
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
