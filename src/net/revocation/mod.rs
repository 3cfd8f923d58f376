//! Revocation: certificate revocation lists (CRLs, RFC 5280 §5) and the status that they give to the
//! certificates of a path (RFC 5280 §6.3). The TLS judge decides what follows from it.
//!
//! A CRL counts for a certificate if its issuer has the same name as that of the certificate and
//! has signed it, and if its scope covers the certificate. Of several, the newest counts. Delta
//! CRLs, indirect CRLs and CRLs for some reasons alone are not supported.
//!
//! CRLs come from files of the administrator, and from the distribution points of certificates.

mod changes;
mod crl;
mod crl_error;
mod fetch;
mod file;
mod names;
mod path_certificate;
mod point_files;
mod points;
mod status;

pub use changes::crl_changes;
pub use crl::Crl;
pub use crl_error::CrlError;
pub use fetch::{
    CrlFuture, CrlRequest, CrlResponse, CrlValidators, FETCHED_OCTETS_MAX, FetchCrl, Reach,
    TransferError,
};
pub use file::{CrlFile, CrlFileSummary};
pub use path_certificate::PathCertificate;
pub use point_files::PointFiles;
pub(crate) use points::no_crl;
pub use points::{DistributionPoints, PointCrlSummary, PointSummary};
pub use status::{is_revoked, path_status};
