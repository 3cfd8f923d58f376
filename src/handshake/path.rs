//! The search for a path from a certificate to a trust anchor (RFC 5280 §6.1). Every path in the program is found
//! here: over a bounded number of certificates, none of which lacks keyCertSign where its key usage is stated.

use std::cell::RefCell;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, VerifiedPath};

use super::{Role, certificate, usage};

/// Certificates of a chain that are looked at, the peer's own among them, at most.
const CERTIFICATES_MAX: usize = 8;
/// Certificates of one subject among the issuers, at most: an authority's own and one that cross-signs it. Each
/// further one doubles the work, and the peer decides how many it sends.
const SAME_SUBJECT_MAX: usize = 2;

/// The certificates that a peer sent above its own, those that are looked at.
#[derive(Debug)]
pub(super) struct Issuers<'a> {
    certificates: Vec<CertificateDer<'a>>,
    /// How many were left out.
    left_out: usize,
}

impl<'a> Issuers<'a> {
    /// Takes the first certificates of those that were sent; a repeated one counts once.
    pub(super) fn of(sent: &'a [CertificateDer<'_>]) -> Self {
        let mut certificates: Vec<CertificateDer<'a>> = Vec::new();
        let mut subjects: Vec<Vec<u8>> = Vec::new();
        let mut left_out = 0;
        for der in sent {
            if certificates.iter().any(|known| known.as_ref() == der.as_ref()) {
                continue;
            }
            if certificates.len() + 1 == CERTIFICATES_MAX {
                left_out += 1;
                continue;
            }
            // What cannot be parsed is no issuer; it stays in for the sake of the error that it leads to.
            let subject = EndEntityCert::try_from(der).map_or_else(|_| der.to_vec(), |read| read.subject().to_vec());
            if subjects.iter().filter(|known| **known == subject).count() == SAME_SUBJECT_MAX {
                left_out += 1;
                continue;
            }
            subjects.push(subject);
            certificates.push(CertificateDer::from(der.as_ref()));
        }
        Self { certificates, left_out }
    }

    /// The certificates.
    pub(super) fn certificates(&self) -> &[CertificateDer<'a>] {
        &self.certificates
    }

    /// How many certificates were sent that are not looked at.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }
}

/// The reason why there is no path.
#[derive(Debug)]
pub(super) enum NoPath {
    /// The reason that rustls-webpki gives.
    Invalid(Error),
    /// A path was found, but this issuer in it may not issue certificates by its key usage.
    MayNotIssue(String),
    /// A path was found, but the certificate at its beginning may not be used so; the reason, in words.
    NotForTls(&'static str),
}

/// A search: what is looked for, and among what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) issuers: &'a Issuers<'a>,
    /// Made by [`super::anchor`], so that each of them may issue.
    pub(super) anchors: &'a [TrustAnchor<'static>],
    pub(super) algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    pub(super) role: Role,
    pub(super) now: Timestamp,
}

impl Search<'_> {
    /// Finds a path, and returns the position of the anchor that it leads to.
    ///
    /// # Errors
    /// [`NoPath`].
    pub(super) fn run(&self) -> Result<usize, NoPath> {
        let anchor = match self.role {
            Role::Server => self.find(KeyUsage::server_auth()),
            // A mail server that calls us shows the certificate that it has as a server, and public
            // authorities no longer issue them for clients.
            Role::Client => self.find(KeyUsage::client_auth()).or_else(|fault| match fault {
                NoPath::Invalid(Error::RequiredEkuNotFoundContext(_)) => self.find(KeyUsage::server_auth()),
                other => Err(other),
            }),
        }?;
        let leaf = certificate::parse(self.leaf).ok_or(NoPath::Invalid(Error::BadDer))?;
        usage::allows_tls(&leaf, self.role).map_err(NoPath::NotForTls)?;
        Ok(anchor)
    }

    fn find(&self, purpose: KeyUsage) -> Result<usize, NoPath> {
        // Before 1970 no certificate is valid, so 0 will do for all of that time.
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(self.now.as_second()).unwrap_or(0)));
        let leaf = EndEntityCert::try_from(self.leaf).map_err(NoPath::Invalid)?;
        let forbidden = RefCell::new(None);
        // An error makes the search go on: another path may do.
        let check = |path: &VerifiedPath<'_>| {
            let not_allowed = |issuer: &&webpki::Cert<'_>| !usage::der_may_issue(&issuer.der());
            match path.intermediate_certificates().find(not_allowed) {
                None => Ok(()),
                Some(issuer) => {
                    forbidden.replace(Some(certificate::subject(&issuer.der())));
                    Err(Error::EndEntityUsedAsCa)
                }
            }
        };
        let (anchors, sent) = (self.anchors, self.issuers.certificates());
        let found = leaf.verify_for_usage(self.algorithms, anchors, sent, time, purpose, None, Some(&check));
        match found {
            Ok(path) => anchors
                .iter()
                .position(|anchor| std::ptr::eq(anchor, path.anchor()))
                .ok_or(NoPath::Invalid(Error::UnknownIssuer)),
            // Everything else was in order with that path.
            Err(fault) => Err(forbidden.into_inner().map_or(NoPath::Invalid(fault), NoPath::MayNotIssue)),
        }
    }
}
