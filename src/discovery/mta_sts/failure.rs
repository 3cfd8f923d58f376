//! Why a domain has no policy for us, or why a newer one cannot be had.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::policy::PolicyFault;
use super::record::RecordFault;
use crate::https::HttpsError;

/// Why there is no policy to apply: mail to the domain goes as if it published none (RFC 8461 §3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPolicy {
    /// The domain has no record of MTA-STS.
    NoRecord,
    /// It has records, and they name no policy, which counts as none (RFC 8461 §3.1).
    Unusable(RecordFault),
    /// It may have a policy, which cannot be had; and none is in the cache.
    Failed(Arc<StsFailure>),
}

impl NoPolicy {
    /// What a TLS report says of it (RFC 8460 §4.3.2.2); `None` where the domain just publishes nothing.
    #[must_use]
    pub fn kind(&self) -> Option<StsFailureKind> {
        match self {
            Self::NoRecord => None,
            Self::Unusable(_) => Some(StsFailureKind::Invalid),
            Self::Failed(failure) => Some(failure.kind()),
        }
    }
}

impl fmt::Display for NoPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecord => f.write_str("the domain publishes no MTA-STS policy"),
            Self::Unusable(fault) => write!(f, "the domain publishes no usable MTA-STS policy: {fault}"),
            Self::Failed(failure) => write!(f, "the domain's MTA-STS policy cannot be fetched: {failure}"),
        }
    }
}

/// Why a policy cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StsFailure {
    /// DNS gave no answer about the record.
    Lookup(String),
    /// The policy host did not answer with a policy.
    Fetch(Box<HttpsError>),
    /// The policy host answered with something that is not plain text (RFC 8461 §3.2); what it calls it.
    ContentType(Option<String>),
    /// What it answered is not a policy.
    Invalid(PolicyFault),
    /// Record and policy together took longer than this.
    Overrun(Duration),
    /// The search was cut short on our side.
    CutShort,
}

impl StsFailure {
    /// What a TLS report says of it (RFC 8460 §4.3.2.2).
    #[must_use]
    pub fn kind(&self) -> StsFailureKind {
        match self {
            Self::Fetch(error) if error.fault.is_certificate_fault() => StsFailureKind::WebPkiInvalid,
            Self::Lookup(_) | Self::Fetch(_) | Self::Overrun(_) | Self::CutShort => StsFailureKind::FetchError,
            Self::ContentType(_) | Self::Invalid(_) => StsFailureKind::Invalid,
        }
    }
}

impl fmt::Display for StsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(fault) => write!(f, "the lookup of its TXT record failed: {fault}"),
            Self::Fetch(error) => error.fmt(f),
            Self::ContentType(None) => f.write_str("the policy host sends no Content-Type; it must be text/plain"),
            Self::ContentType(Some(kind)) => {
                write!(f, "the policy host sends Content-Type {kind:?}; it must be text/plain")
            }
            Self::Invalid(fault) => write!(f, "the policy is invalid: {fault}"),
            Self::Overrun(limit) => write!(f, "no result within {limit:?}"),
            Self::CutShort => f.write_str("the lookup was interrupted"),
        }
    }
}

/// The words of TLS reports for policies that cannot be had (RFC 8460 §4.3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StsFailureKind {
    /// The policy could not be retrieved.
    FetchError,
    /// It could be, and is none.
    Invalid,
    /// The policy host's certificate is not in order.
    WebPkiInvalid,
}

impl StsFailureKind {
    /// As a report has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FetchError => "sts-policy-fetch-error",
            Self::Invalid => "sts-policy-invalid",
            Self::WebPkiInvalid => "sts-webpki-invalid",
        }
    }
}

impl fmt::Display for StsFailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
