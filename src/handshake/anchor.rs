//! Trust anchors made of certificates: each one in the program comes from here, checked.

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use webpki::anchor_from_trusted_cert;
use x509_parser::prelude::X509Certificate;

use super::{key, usage};

/// The reason why the certificate of an authority cannot be a trust anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AnchorFault {
    /// Its key usage lacks keyCertSign (RFC 5280 §4.2.1.3).
    MayNotIssue,
    /// Its key is of no use here; the reason, in words.
    Key(String),
    /// It is encoded in a way that rustls-webpki does not accept.
    Encoding,
}

impl AnchorFault {
    /// The fault in words, as a sentence about "it".
    pub(super) fn words(&self) -> String {
        match self {
            Self::MayNotIssue => "its key usage lacks keyCertSign, so it may not issue certificates".to_owned(),
            Self::Key(why) => format!("its key is {why}"),
            Self::Encoding => "it is not encoded as RFC 5280 says".to_owned(),
        }
    }
}

/// Makes an anchor of the certificate of an authority, given in DER and parsed.
///
/// # Errors
/// [`AnchorFault`]: nothing that stands under this certificate is to be trusted.
pub(super) fn of(
    der: &CertificateDer<'_>,
    read: &X509Certificate<'_>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> Result<TrustAnchor<'static>, AnchorFault> {
    if !usage::may_issue(read) {
        return Err(AnchorFault::MayNotIssue);
    }
    if let Some(why) = key::unusable(read.public_key(), algorithms) {
        return Err(AnchorFault::Key(why));
    }
    anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()).map_err(|_| AnchorFault::Encoding)
}
