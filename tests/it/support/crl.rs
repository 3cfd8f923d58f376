//! Certificate revocation lists for the tests.

use std::time::Duration;

use rcgen::{
    CertificateRevocationListParams, CrlIssuingDistributionPoint, KeyIdMethod, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::certificates::Authority;

/// The day from which a CRL of the tests has expired, unless it never does.
pub(crate) const EXPIRED: &str = "2021-02-01T00:00:00Z";
/// The day until which a CRL of the tests is current, if it is.
pub(crate) const CURRENT: &str = "2090-01-01T00:00:00Z";
/// The time of every revocation.
pub(crate) const REVOKED: &str = "2020-12-24T00:00:00Z";

/// A CRL to be made.
pub(crate) struct WantedCrl<'a> {
    pub(crate) revoked: &'a [&'a CertificateDer<'a>],
    /// The day of January 2021 on which it was issued.
    pub(crate) day: u8,
    pub(crate) is_expired: bool,
    /// The second since 1970 from which it has expired, in place of [`EXPIRED`] or [`CURRENT`].
    pub(crate) expires_at: Option<u64>,
    pub(crate) scope: Option<CrlIssuingDistributionPoint>,
}

impl Default for WantedCrl<'_> {
    fn default() -> Self {
        Self {
            revoked: &[],
            day: 1,
            is_expired: false,
            expires_at: None,
            scope: None,
        }
    }
}

impl WantedCrl<'_> {
    /// Makes it, in DER.
    pub(crate) fn by(self, authority: &Authority) -> Vec<u8> {
        let entry = |certificate: &&CertificateDer<'_>| {
            let (_, read) =
                x509_parser::parse_x509_certificate(certificate).expect("a certificate");
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(read.raw_serial()),
                revocation_time: date_time_ymd(2020, 12, 24),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, self.day),
            next_update: match self.expires_at {
                Some(second) => date_time_ymd(1970, 1, 1) + Duration::from_secs(second),
                None if self.is_expired => date_time_ymd(2021, 2, 1),
                None => date_time_ymd(2090, 1, 1),
            },
            crl_number: SerialNumber::from(u64::from(self.day)),
            issuing_distribution_point: self.scope,
            revoked_certs: self.revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params
            .signed_by(&authority.issuer())
            .expect("a CRL")
            .der()
            .to_vec()
    }
}

/// A current CRL that lists these certificates.
pub(crate) fn listing(authority: &Authority, revoked: &[&CertificateDer<'_>]) -> Vec<u8> {
    WantedCrl {
        revoked,
        ..WantedCrl::default()
    }
    .by(authority)
}
