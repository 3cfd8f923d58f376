//! The reasons why a domain has no policy in force, or why a newer one cannot be fetched.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::policy::PolicyFault;
use super::record::RecordFault;
use crate::net::https::HttpsError;

/// The reason why no policy is in force. Mail is delivered as if the domain published none (RFC
/// 8461 §3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPolicy {
    /// The domain has no MTA-STS record.
    NoRecord,
    /// The MTA-STS records are malformed, which counts as none (RFC 8461 §3.1).
    Unusable(RecordFault),
    /// A policy may exist but cannot be fetched, and none is cached.
    Failed(Arc<MtaStsFailure>),
}

impl NoPolicy {
    /// Returns the result type for a TLS report (RFC 8460 §4.3.2.2); `None` if the domain publishes
    /// nothing.
    #[must_use]
    pub fn kind(&self) -> Option<MtaStsFailureKind> {
        match self {
            Self::NoRecord => None,
            Self::Unusable(_) => Some(MtaStsFailureKind::Invalid),
            Self::Failed(failure) => Some(failure.kind()),
        }
    }
}

impl fmt::Display for NoPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecord => f.write_str("the domain publishes no MTA-STS policy"),
            Self::Unusable(fault) => {
                write!(f, "the domain publishes no usable MTA-STS policy: {fault}")
            }
            Self::Failed(failure) => write!(
                f,
                "the domain's MTA-STS policy cannot be fetched: {failure}"
            ),
        }
    }
}

/// The reason why a policy cannot be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MtaStsFailure {
    /// The lookup of the record failed.
    Lookup(String),
    /// The policy host did not return a policy.
    Fetch(Box<HttpsError>),
    /// The policy host returned this Content-Type in place of text/plain (RFC 8461 §3.2).
    ContentType(Option<String>),
    /// The policy is invalid.
    Invalid(PolicyFault),
    /// The lookup and the fetch together exceeded this time limit.
    Overrun(Duration),
    /// The fetch was interrupted on our side.
    CutShort,
}

impl MtaStsFailure {
    /// Returns the result type for a TLS report (RFC 8460 §4.3.2.2).
    #[must_use]
    pub fn kind(&self) -> MtaStsFailureKind {
        match self {
            Self::Fetch(error) if error.fault.is_certificate_fault() => {
                MtaStsFailureKind::WebPkiInvalid
            }
            Self::Lookup(_) | Self::Fetch(_) | Self::Overrun(_) | Self::CutShort => {
                MtaStsFailureKind::FetchError
            }
            Self::ContentType(_) | Self::Invalid(_) => MtaStsFailureKind::Invalid,
        }
    }
}

impl fmt::Display for MtaStsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup(fault) => write!(f, "the lookup of its TXT record failed: {fault}"),
            Self::Fetch(error) => error.fmt(f),
            Self::ContentType(None) => {
                f.write_str("the policy host sends no Content-Type; it must be text/plain")
            }
            Self::ContentType(Some(kind)) => {
                write!(
                    f,
                    "the policy host sends Content-Type {kind:?}; it must be text/plain"
                )
            }
            Self::Invalid(fault) => write!(f, "the policy is invalid: {fault}"),
            Self::Overrun(limit) => write!(f, "no result within {limit:?}"),
            Self::CutShort => f.write_str("the lookup was interrupted"),
        }
    }
}

/// The result types of TLS reports for policies that cannot be fetched (RFC 8460 §4.3.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MtaStsFailureKind {
    /// The policy could not be retrieved.
    FetchError,
    /// The policy is invalid.
    Invalid,
    /// The certificate of the policy host is invalid.
    WebPkiInvalid,
}

impl MtaStsFailureKind {
    /// Returns the result type as written in a report.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FetchError => "sts-policy-fetch-error",
            Self::Invalid => "sts-policy-invalid",
            Self::WebPkiInvalid => "sts-webpki-invalid",
        }
    }
}

impl fmt::Display for MtaStsFailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
