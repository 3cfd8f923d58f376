//! Trust anchors made from certificates. Every trust anchor except the built-in ones is made and
//! checked here.

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use webpki::anchor_from_trusted_cert;
use x509_parser::prelude::X509Certificate;

use super::{algorithm_names, usage};

/// The reason why an authority's certificate cannot be a trust anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AnchorFault {
    /// Its key usage lacks keyCertSign (RFC 5280 §4.2.1.3).
    MayNotIssue,
    /// Its key cannot be used; the reason.
    Key(String),
    /// Its encoding is not accepted by rustls-webpki.
    Encoding,
}

impl AnchorFault {
    /// Describes the fault, as a sentence about "it".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::MayNotIssue => {
                "its key usage lacks keyCertSign, so it may not issue certificates".to_owned()
            }
            Self::Key(why) => format!("its key is {why}"),
            Self::Encoding => "it is not encoded as RFC 5280 says".to_owned(),
        }
    }
}

/// Makes a trust anchor from an authority's certificate, given both in DER and parsed.
///
/// # Errors
/// [`AnchorFault`]: no certificate under this one may be trusted.
pub(super) fn from_certificate(
    der: &CertificateDer<'_>,
    read: &X509Certificate<'_>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> Result<TrustAnchor<'static>, AnchorFault> {
    if !usage::may_issue(read) {
        return Err(AnchorFault::MayNotIssue);
    }
    if let Some(why) = algorithm_names::unusable_reason(read.public_key(), algorithms) {
        return Err(AnchorFault::Key(why));
    }
    anchor_from_trusted_cert(der)
        .map(|anchor| anchor.to_owned())
        .map_err(|_| AnchorFault::Encoding)
}
