//! Revocation: certificate revocation lists (CRLs, RFC 5280 §5) and the status that they give to the
//! certificates of a path (RFC 5280 §6.3). The TLS judge decides what follows from it.
//!
//! A CRL counts for a certificate if its issuer has the same name as that of the certificate and
//! has signed it, and if its scope covers the certificate. Of several, the newest counts. Delta
//! CRLs, indirect CRLs and CRLs for some reasons alone are not supported.

mod crl;
mod crl_error;
mod file;
mod names;
mod path_certificate;
mod status;

pub use crl::Crl;
pub use crl_error::CrlError;
pub use file::{CrlFile, CrlFileSummary};
pub use path_certificate::PathCertificate;
pub use status::{is_revoked, path_status};
