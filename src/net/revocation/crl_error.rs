//! The reasons why octets are not a usable CRL.

use webpki::Error;

/// The most octets of a CRL. The largest of public authorities have a few MiB.
pub(super) const OCTETS_MAX: usize = 32 << 20;

/// The reason why octets are not a usable CRL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// They are a web page.
    #[error("it is a web page, not a CRL")]
    WebPage,
    /// They are not a CRL in DER or PEM.
    #[error("it is not a CRL in DER or PEM")]
    NotCrl,
    /// They are a delta CRL (RFC 5280 §5.2.4).
    #[error("it is a delta CRL, which is not supported; use the complete one")]
    Delta,
    /// They are an indirect CRL (RFC 5280 §5.2.5), which lists certificates of other issuers.
    #[error("it is an indirect CRL, which is not supported")]
    Indirect,
    /// They list certificates that were revoked for some reasons alone.
    #[error("it covers some reasons for revocation alone, which is not supported")]
    SomeReasons,
    /// They are a CRL of version 1, or one without nextUpdate or extensions, which RFC 5280 §5.1
    /// demands.
    #[error("it is not a CRL of version 2 with nextUpdate, as RFC 5280 demands")]
    Profile,
    /// They have a critical extension that is not supported.
    #[error("it has a critical extension that is not supported")]
    CriticalExtension,
    /// They are larger than a CRL may be.
    #[error("it is larger than {} MiB", OCTETS_MAX >> 20)]
    TooLarge,
}

impl CrlError {
    /// Converts an error of rustls-webpki about a CRL.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::UnsupportedDeltaCrl => Self::Delta,
            Error::UnsupportedIndirectCrl => Self::Indirect,
            Error::UnsupportedRevocationReasonsPartitioning
            | Error::UnsupportedRevocationReason
            | Error::UnsupportedCrlIssuingDistributionPoint => Self::SomeReasons,
            Error::UnsupportedCrlVersion | Error::MalformedExtensions => Self::Profile,
            Error::UnsupportedCriticalExtension => Self::CriticalExtension,
            _ => Self::NotCrl,
        }
    }
}
