//! Trust anchors: Mozilla's, the operating system's, or those of a PEM file.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use webpki::anchor_from_trusted_cert;

use super::certificate;
use super::pem::{self, fault};
use crate::config::{Fault, Located, Place, Trust};

/// Trust anchors, loaded.
///
/// The certificates of authorities in a PEM file vouch for what was issued under them. Any certificate
/// in it also stands for itself alone, as a partner's self-signed one must.
pub struct TrustAnchors {
    anchors: Vec<TrustAnchor<'static>>,
    /// The DER of every certificate of the PEM file.
    listed: HashSet<Vec<u8>>,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written out, they are hundreds of keys.
        write!(f, "TrustAnchors({} authorities, {} listed)", self.anchors.len(), self.listed.len())
    }
}

impl TrustAnchors {
    /// Loads them, and says what looks wrong with them.
    pub(super) fn load(trust: &Located<Trust>, provider: &CryptoProvider) -> Result<(Self, Vec<Fault>), Vec<Fault>> {
        let algorithms = provider.signature_verification_algorithms.all;
        let mut all = Self { anchors: Vec::new(), listed: HashSet::new(), algorithms };
        let mut warnings = Vec::new();
        match &trust.value {
            Trust::Webpki => all.anchors = webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            Trust::System => all.anchors = of_the_system(&trust.place).map_err(|fault| vec![fault])?,
            Trust::File(path) => {
                warnings = all.add_file(&Located { value: path.clone(), place: trust.place.clone() })?;
            }
        }
        Ok((all, warnings))
    }

    fn add_file(&mut self, file: &Located<PathBuf>) -> Result<Vec<Fault>, Vec<Fault>> {
        let path = file.value.display();
        let (mut faults, mut warnings) = (Vec::new(), Vec::new());
        let certificates = pem::certificates(file).map_err(|fault| vec![fault])?;
        for (number, der) in (1..).zip(&certificates) {
            let Some(read) = certificate::parse(der) else {
                faults.push(fault(
                    &file.place,
                    format!("certificate {number} of {path} is malformed"),
                    "Take it out of the file, or get it again.",
                ));
                continue;
            };
            self.listed.insert(der.to_vec());
            let name = certificate::readable(read.subject());
            if !certificate::is_authority(&read) {
                warnings.push(fault(
                    &file.place,
                    format!("certificate {number} of {path} ({name}) is not a CA certificate: it is trusted itself, and nothing else by it"),
                    "List the certificate of its authority instead, if it has one; else list the new certificate \
                     whenever the partner changes it.",
                ));
                continue;
            }
            match anchor_from_trusted_cert(der) {
                Ok(anchor) => self.anchors.push(anchor.to_owned()),
                Err(error) => faults.push(fault(
                    &file.place,
                    format!("certificate {number} of {path} ({name}) cannot be a trust anchor: {error:?}"),
                    "Take it out of the file.",
                )),
            }
        }
        if faults.is_empty() { Ok(warnings) } else { Err(faults) }
    }

    /// The authorities.
    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Whether this very certificate stands in the PEM file.
    pub(super) fn lists(&self, certificate: &CertificateDer<'_>) -> bool {
        self.listed.contains(certificate.as_ref())
    }

    /// The signature algorithms that certificates may be signed with.
    pub(super) fn algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        self.algorithms
    }
}

/// The operating system's store. Single certificates that cannot be read are left out, as every other
/// program of that system does.
fn of_the_system(place: &Place) -> Result<Vec<TrustAnchor<'static>>, Fault> {
    let found = rustls_native_certs::load_native_certs();
    let anchors: Vec<_> = found
        .certs
        .iter()
        .filter_map(|certificate| anchor_from_trusted_cert(certificate).ok().map(|anchor| anchor.to_owned()))
        .collect();
    if !anchors.is_empty() {
        return Ok(anchors);
    }
    let why = found.errors.first().map_or(String::new(), |error| format!(": {error}"));
    Err(fault(
        place,
        format!("the operating system has no trusted certificates{why}"),
        "Install the package ca-certificates, or write trust = \"webpki\".",
    ))
}
