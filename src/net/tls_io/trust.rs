//! Trust anchors: Mozilla's, those of the operating system, or those of a PEM file.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use x509_parser::prelude::X509Certificate;

use super::anchor::{self, AnchorFault};
use super::certificate;
use super::pem::{self, fault};
use crate::config::{Fault, Located, Location, TrustSource};
use crate::net::revocation::Reach;

/// Loaded trust anchors.
///
/// The authorities in a PEM file vouch for the certificates that they issued. Any certificate in
/// the file is also trusted itself, such as a partner's self-signed one.
pub struct TrustAnchors {
    anchors: Vec<TrustAnchor<'static>>,
    /// The DER of every certificate in the PEM file.
    listed: HashSet<Vec<u8>>,
    unusable: Vec<UnusableAnchor>,
    /// The addresses from which CRLs of certificates below these anchors may be fetched.
    reach: Reach,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

/// A listed authority that cannot be a trust anchor.
#[derive(Debug)]
pub(super) struct UnusableAnchor {
    /// The subject's name, in DER.
    pub(super) subject: Vec<u8>,
    /// The reason, as a sentence about "it".
    pub(super) why: String,
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys would fill pages.
        write!(
            f,
            "TrustAnchors({} authorities, {} listed)",
            self.anchors.len(),
            self.listed.len()
        )
    }
}

impl TrustAnchors {
    /// Loads the anchors. Returns warnings about some of them.
    pub(super) fn load(
        trust: &Located<TrustSource>,
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Result<(Self, Vec<Fault>), Vec<Fault>> {
        let algorithms = provider.signature_verification_algorithms.all;
        let mut all = Self {
            anchors: Vec::new(),
            listed: HashSet::new(),
            unusable: Vec::new(),
            reach: match &trust.value {
                TrustSource::File(_) => Reach::Private,
                TrustSource::Webpki | TrustSource::System => Reach::Public,
            },
            algorithms,
        };
        match &trust.value {
            TrustSource::Webpki => all.anchors = webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            TrustSource::System => all
                .add_system(&trust.location)
                .map_err(|fault| vec![fault])?,
            TrustSource::File(path) => {
                let file = Located {
                    value: path.clone(),
                    location: trust.location.clone(),
                };
                let warnings = TrustFile {
                    file: &file,
                    now,
                    problems: Vec::new(),
                    errors: Vec::new(),
                }
                .add_to(&mut all)?;
                return Ok((all, warnings));
            }
        }
        Ok((all, Vec::new()))
    }

    /// Adds the certificates of the operating system. Those that cannot be used are left out, as
    /// other programs do.
    fn add_system(&mut self, location: &Location) -> Result<(), Fault> {
        let found = rustls_native_certs::load_native_certs();
        for der in &found.certs {
            if let Some(read) = certificate::parse(der) {
                // An unusable anchor is reported when a chain ends at it.
                let _ = self.add(der, &read);
            }
        }
        if !self.anchors.is_empty() {
            return Ok(());
        }
        let why = found
            .errors
            .first()
            .map_or(String::new(), |error| format!(": {error}"));
        Err(fault(
            location,
            format!("the operating system has no trusted certificates{why}"),
            "Install the package ca-certificates, or write trust = \"webpki\".",
        ))
    }

    fn add(
        &mut self,
        der: &CertificateDer<'_>,
        read: &X509Certificate<'_>,
    ) -> Result<(), AnchorFault> {
        match anchor::from_certificate(der, read, self.algorithms) {
            Ok(anchor) => {
                self.anchors.push(anchor);
                Ok(())
            }
            Err(why) => {
                self.unusable.push(UnusableAnchor {
                    subject: read.subject().as_raw().to_vec(),
                    why: why.describe(),
                });
                Err(why)
            }
        }
    }

    /// The authorities.
    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The listed authorities that cannot be used.
    pub(super) fn unusable(&self) -> &[UnusableAnchor] {
        &self.unusable
    }

    /// Returns true if the PEM file contains this very certificate.
    pub(super) fn lists(&self, certificate: &CertificateDer<'_>) -> bool {
        self.listed.contains(certificate.as_ref())
    }

    /// The addresses from which CRLs of certificates below these anchors may be fetched: those of
    /// private networks only if an administrator has named the authorities in a file.
    // Rule: policy table (revocation).
    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// The signature algorithms that are accepted in chains.
    pub(super) fn algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        self.algorithms
    }
}

/// A PEM file of trust anchors that is being read.
struct TrustFile<'a> {
    file: &'a Located<PathBuf>,
    now: Timestamp,
    /// The problems: warnings, or errors if nothing else in the file is usable.
    problems: Vec<Fault>,
    errors: Vec<Fault>,
}

impl TrustFile<'_> {
    fn add_to(mut self, all: &mut TrustAnchors) -> Result<Vec<Fault>, Vec<Fault>> {
        let (certificates, left_out) =
            pem::trust_anchors(self.file).map_err(|fault| vec![fault])?;
        self.problems = left_out;
        let (mut warnings, mut is_usable) = (Vec::new(), false);
        for (number, der) in (1..).zip(&certificates) {
            let Some(read) = certificate::parse(der) else {
                self.report_problem(&format!("certificate {number}"), "is malformed");
                continue;
            };
            all.listed.insert(der.to_vec());
            let which = format!("certificate {number}");
            let is_authority = certificate::is_authority(&read);
            if is_authority {
                match all.add(der, &read) {
                    Ok(()) => is_usable = true,
                    Err(why) => {
                        self.report_unusable(&which, &read, &why);
                        continue;
                    }
                }
            } else {
                is_usable = true;
                warnings.push(self.host_certificate_warning(&which, &read));
            }
            warnings.extend(self.date_warning(&which, &read, is_authority));
        }
        if !is_usable {
            self.errors.append(&mut self.problems);
        }
        if self.errors.is_empty() {
            warnings.append(&mut self.problems);
            Ok(warnings)
        } else {
            Err(self.errors)
        }
    }

    fn fault(&self, which: &str, read: &X509Certificate<'_>, what: &str, remedy: &str) -> Fault {
        let (path, name) = (
            self.file.value.display(),
            certificate::readable_name(read.subject()),
        );
        fault(
            &self.file.location,
            format!("{which} of {path} ({name}) {what}"),
            remedy,
        )
    }

    fn report_problem(&mut self, which: &str, what: &str) {
        let message = format!("{which} of {} {what}", self.file.value.display());
        self.problems.push(fault(
            &self.file.location,
            message,
            "Remove it from the file, or get a new copy.",
        ));
    }

    fn report_unusable(&mut self, which: &str, read: &X509Certificate<'_>, why: &AnchorFault) {
        let what = format!("cannot be a trust anchor: {}", why.describe());
        match why {
            AnchorFault::MayNotIssue => {
                let remedy = "Get the authority's own certificate; to trust a single host by this one, pin its key.";
                let fault = self.fault(which, read, &what, remedy);
                self.errors.push(fault);
            }
            AnchorFault::Key(_) | AnchorFault::Encoding => {
                let fault = self.fault(
                    which,
                    read,
                    &what,
                    "Remove it from the file, and get a newer one.",
                );
                self.problems.push(fault);
            }
        }
    }

    fn host_certificate_warning(&self, which: &str, read: &X509Certificate<'_>) -> Fault {
        self.fault(
            which,
            read,
            "is not a CA certificate: only this certificate itself is trusted",
            "List the certificate of its authority instead, if it has one; else list the new certificate \
             whenever the partner changes it.",
        )
    }

    /// Warns of a certificate that has expired or is not yet valid. RFC 5280 §6.1.1 (d) gives a
    /// trust anchor no validity period, so an authority remains trusted; a host's own certificate
    /// does not.
    fn date_warning(
        &self,
        which: &str,
        read: &X509Certificate<'_>,
        is_authority: bool,
    ) -> Option<Fault> {
        let (begins, ends) = certificate::validity(read);
        let date = if self.now > ends {
            format!("expired on {ends}")
        } else if self.now < begins {
            format!("is not valid before {begins}")
        } else {
            return None;
        };
        let effect = if is_authority {
            "certificates that it issued are still trusted"
        } else {
            "the host that shows it is not trusted"
        };
        Some(self.fault(
            which,
            read,
            &format!("{date}; {effect}"),
            "Get the new certificate, and remove this one.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Public authorities sign what strangers want to have in their certificates.
    #[test]
    fn private_networks_are_within_reach_of_the_authorities_of_a_file_alone() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/certs/ca.pem");
        for (source, reach) in [
            (TrustSource::Webpki, Reach::Public),
            (TrustSource::File(file.into()), Reach::Private),
        ] {
            let trust = Located {
                value: source,
                location: Location {
                    file: Path::new("gatepost.toml").into(),
                    line: 1,
                    column: 1,
                },
            };
            let loaded = TrustAnchors::load(&trust, &provider, Timestamp::now());
            let (anchors, _) = loaded.expect("sound anchors");
            assert_eq!(anchors.reach(), reach);
        }
    }
}
