//! Trust anchors: Mozilla's, the operating system's, or those of a PEM file.

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
use crate::config::{Fault, Located, Place, Trust};

/// Trust anchors, loaded.
///
/// The certificates of authorities in a PEM file vouch for what was issued under them. Any certificate
/// in it also stands for itself alone, as a partner's self-signed one must.
pub struct TrustAnchors {
    anchors: Vec<TrustAnchor<'static>>,
    /// The DER of every certificate of the PEM file.
    listed: HashSet<Vec<u8>>,
    unfit: Vec<Unfit>,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

/// An authority that is listed and cannot be a trust anchor.
#[derive(Debug)]
pub(super) struct Unfit {
    /// Its name, as it stands in what it has issued.
    pub(super) subject: Vec<u8>,
    /// The reason, as a sentence about "it".
    pub(super) why: String,
}

impl fmt::Debug for TrustAnchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written out, they are hundreds of keys.
        write!(f, "TrustAnchors({} authorities, {} listed)", self.anchors.len(), self.listed.len())
    }
}

impl TrustAnchors {
    /// Loads them, with warnings about what is wrong with some of them.
    pub(super) fn load(
        trust: &Located<Trust>,
        provider: &CryptoProvider,
        now: Timestamp,
    ) -> Result<(Self, Vec<Fault>), Vec<Fault>> {
        let algorithms = provider.signature_verification_algorithms.all;
        let mut all = Self { anchors: Vec::new(), listed: HashSet::new(), unfit: Vec::new(), algorithms };
        match &trust.value {
            Trust::Webpki => all.anchors = webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            Trust::System => all.add_system(&trust.place).map_err(|fault| vec![fault])?,
            Trust::File(path) => {
                let file = Located { value: path.clone(), place: trust.place.clone() };
                let warnings =
                    TrustFile { file: &file, now, problems: Vec::new(), errors: Vec::new() }.add(&mut all)?;
                return Ok((all, warnings));
            }
        }
        Ok((all, Vec::new()))
    }

    /// The operating system's store. Single certificates that cannot be used are left out, as every other
    /// program of that system does.
    fn add_system(&mut self, place: &Place) -> Result<(), Fault> {
        let found = rustls_native_certs::load_native_certs();
        for der in &found.certs {
            if let Some(read) = certificate::parse(der) {
                // What cannot be used is reported where it is missing.
                let _ = self.add(der, &read);
            }
        }
        if !self.anchors.is_empty() {
            return Ok(());
        }
        let why = found.errors.first().map_or(String::new(), |error| format!(": {error}"));
        Err(fault(
            place,
            format!("the operating system has no trusted certificates{why}"),
            "Install the package ca-certificates, or write trust = \"webpki\".",
        ))
    }

    fn add(&mut self, der: &CertificateDer<'_>, read: &X509Certificate<'_>) -> Result<(), AnchorFault> {
        match anchor::of(der, read, self.algorithms) {
            Ok(anchor) => {
                self.anchors.push(anchor);
                Ok(())
            }
            Err(why) => {
                self.unfit.push(Unfit { subject: read.subject().as_raw().to_vec(), why: why.words() });
                Err(why)
            }
        }
    }

    /// The authorities.
    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The authorities that are listed and cannot be used.
    pub(super) fn unfit(&self) -> &[Unfit] {
        &self.unfit
    }

    /// Tells whether this very certificate stands in the PEM file.
    pub(super) fn lists(&self, certificate: &CertificateDer<'_>) -> bool {
        self.listed.contains(certificate.as_ref())
    }

    /// The signature algorithms that certificates may be signed with.
    pub(super) fn algorithms(&self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        self.algorithms
    }
}

/// A PEM file of trust anchors while it is read.
struct TrustFile<'a> {
    file: &'a Located<PathBuf>,
    now: Timestamp,
    /// Warnings, unless nothing else in the file can be used.
    problems: Vec<Fault>,
    errors: Vec<Fault>,
}

impl TrustFile<'_> {
    fn add(mut self, all: &mut TrustAnchors) -> Result<Vec<Fault>, Vec<Fault>> {
        let (certificates, left_out) = pem::trusted(self.file).map_err(|fault| vec![fault])?;
        self.problems = left_out;
        let (mut warnings, mut is_of_use) = (Vec::new(), false);
        for (number, der) in (1..).zip(&certificates) {
            let Some(read) = certificate::parse(der) else {
                self.problem(&format!("certificate {number}"), "is malformed");
                continue;
            };
            all.listed.insert(der.to_vec());
            let which = format!("certificate {number}");
            let is_authority = certificate::is_authority(&read);
            if is_authority {
                match all.add(der, &read) {
                    Ok(()) => is_of_use = true,
                    Err(why) => {
                        self.unfit(&which, &read, &why);
                        continue;
                    }
                }
            } else {
                is_of_use = true;
                warnings.push(self.not_an_authority(&which, &read));
            }
            warnings.extend(self.date(&which, &read, is_authority));
        }
        if !is_of_use {
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
        let (path, name) = (self.file.value.display(), certificate::readable(read.subject()));
        fault(&self.file.place, format!("{which} of {path} ({name}) {what}"), remedy)
    }

    fn problem(&mut self, which: &str, what: &str) {
        let message = format!("{which} of {} {what}", self.file.value.display());
        self.problems.push(fault(&self.file.place, message, "Take it out of the file, or get it again."));
    }

    fn unfit(&mut self, which: &str, read: &X509Certificate<'_>, why: &AnchorFault) {
        let what = format!("cannot be a trust anchor: {}", why.words());
        match why {
            AnchorFault::MayNotIssue => {
                let remedy = "Get the authority's own certificate; to trust a single host by this one, pin its key.";
                let fault = self.fault(which, read, &what, remedy);
                self.errors.push(fault);
            }
            AnchorFault::Key(_) | AnchorFault::Encoding => {
                let fault = self.fault(which, read, &what, "Take it out of the file, and get a newer one.");
                self.problems.push(fault);
            }
        }
    }

    fn not_an_authority(&self, which: &str, read: &X509Certificate<'_>) -> Fault {
        self.fault(
            which,
            read,
            "is not a CA certificate: it is trusted itself, and nothing else by it",
            "List the certificate of its authority instead, if it has one; else list the new certificate \
             whenever the partner changes it.",
        )
    }

    /// A warning about a certificate that has ended or has not begun. RFC 5280 §6.1.1 (d) gives a trust anchor no
    /// dates, so an authority still vouches for others then; a single certificate does not even for itself.
    fn date(&self, which: &str, read: &X509Certificate<'_>, is_authority: bool) -> Option<Fault> {
        let (begins, ends) = certificate::validity(read);
        let date = if self.now > ends {
            format!("expired on {ends}")
        } else if self.now < begins {
            format!("is not valid before {begins}")
        } else {
            return None;
        };
        let effect = if is_authority {
            "what it has issued is trusted all the same"
        } else {
            "the host that shows it is not trusted"
        };
        Some(self.fault(which, read, &format!("{date}; {effect}"), "Get the new certificate, and take this one out."))
    }
}
