//! The search for a path from a certificate to a trust anchor (RFC 5280 §6.1). Every path is found
//! here. The number of certificates is limited, and an issuer whose key usage lacks keyCertSign is
//! not accepted.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, VerifiedPath};

use super::usage::UsageFault;
use super::{Role, certificate, usage};
use crate::net::revocation::{Crl, PathCertificate, is_revoked};

/// The most certificates of a chain that are used, including the peer's own.
const CERTIFICATES_MAX: usize = 8;
/// The most issuers with the same subject: an authority's own certificate and one that cross-signs
/// it. Each further one doubles the work, and the peer decides how many it sends.
const SAME_SUBJECT_MAX: usize = 2;

/// The certificates that a peer sent above its own, as far as they are used.
#[derive(Debug)]
pub(super) struct Issuers<'a> {
    certificates: Vec<CertificateDer<'a>>,
    /// The number of unused certificates.
    left_out: usize,
}

impl<'a> Issuers<'a> {
    /// Takes the first certificates of a chain, without duplicates.
    pub(super) fn of(sent: &'a [CertificateDer<'_>]) -> Self {
        let mut certificates: Vec<CertificateDer<'a>> = Vec::new();
        let mut subjects: Vec<Vec<u8>> = Vec::new();
        let mut left_out = 0;
        for der in sent {
            if certificates
                .iter()
                .any(|known| known.as_ref() == der.as_ref())
            {
                continue;
            }
            if certificates.len() + 1 == CERTIFICATES_MAX {
                left_out += 1;
                continue;
            }
            // A certificate that cannot be parsed is no issuer, but stays for the error that it
            // causes.
            let subject = EndEntityCert::try_from(der)
                .map_or_else(|_| der.to_vec(), |read| read.subject().to_vec());
            if subjects.iter().filter(|known| **known == subject).count() == SAME_SUBJECT_MAX {
                left_out += 1;
                continue;
            }
            subjects.push(subject);
            certificates.push(CertificateDer::from(der.as_ref()));
        }
        Self {
            certificates,
            left_out,
        }
    }

    /// The certificates.
    pub(super) fn certificates(&self) -> &[CertificateDer<'a>] {
        &self.certificates
    }

    /// The number of certificates that were sent but are not used.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }
}

/// The reason why no path is found.
#[derive(Debug)]
pub(super) enum NoPath {
    /// The error of rustls-webpki.
    Invalid(Error),
    /// A path was found, but the key usage of this issuer does not allow it to issue certificates.
    MayNotIssue(String),
    /// A path was found, but the peer's certificate does not allow this use.
    NotForTls(UsageFault),
}

/// The input of a path search.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathSearch<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    pub(super) issuers: &'a Issuers<'a>,
    /// The anchors, made by [`super::anchor`], so that each of them may issue certificates.
    pub(super) anchors: &'a [TrustAnchor<'static>],
    pub(super) algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    pub(super) role: Role,
    pub(super) now: Timestamp,
    /// The known CRLs, if revocation matters. A path with a revoked certificate is then found only
    /// if there is no other.
    pub(super) crls: Option<&'a [Arc<Crl>]>,
}

/// A path that was found.
#[derive(Debug, Clone)]
pub(super) struct FoundPath {
    /// The index of its anchor.
    pub(super) anchor: usize,
    /// The certificates below the anchor; empty unless revocation matters.
    pub(super) certificates: Vec<PathCertificate>,
}

impl PathSearch<'_> {
    /// Finds a path.
    ///
    /// # Errors
    /// [`NoPath`].
    pub(super) fn run(&self) -> Result<FoundPath, NoPath> {
        let found = match self.role {
            Role::Server => self.find_path(KeyUsage::server_auth()),
            // A mail server that connects to us presents its server certificate, and public
            // authorities no longer issue client certificates.
            Role::Client => self
                .find_path(KeyUsage::client_auth())
                .or_else(|fault| match fault {
                    NoPath::Invalid(Error::RequiredEkuNotFoundContext(_)) => {
                        self.find_path(KeyUsage::server_auth())
                    }
                    other => Err(other),
                }),
        }?;
        let leaf = certificate::parse(self.leaf).ok_or(NoPath::Invalid(Error::BadDer))?;
        usage::allows_tls(&leaf, self.role).map_err(NoPath::NotForTls)?;
        Ok(found)
    }

    fn find_path(&self, purpose: KeyUsage) -> Result<FoundPath, NoPath> {
        // No certificate is valid before 1970, so 0 stands for all earlier times.
        let time = UnixTime::since_unix_epoch(Duration::from_secs(
            u64::try_from(self.now.as_second()).unwrap_or(0),
        ));
        let leaf = EndEntityCert::try_from(self.leaf).map_err(NoPath::Invalid)?;
        let (forbidden, revoked) = (RefCell::new(None), RefCell::new(None));
        // An error here makes the search continue with another path.
        let check = |path: &VerifiedPath<'_>| {
            let not_allowed = |issuer: &&webpki::Cert<'_>| !usage::der_may_issue(&issuer.der());
            match path.intermediate_certificates().find(not_allowed) {
                None => self.avoid_revoked(path, &revoked),
                Some(issuer) => {
                    forbidden.replace(Some(certificate::subject_name(&issuer.der())));
                    Err(Error::EndEntityUsedAsCa)
                }
            }
        };
        let (anchors, sent) = (self.anchors, self.issuers.certificates());
        let found = leaf.verify_for_usage(
            self.algorithms,
            anchors,
            sent,
            time,
            purpose,
            None,
            Some(&check),
        );
        match found {
            Ok(path) => self.found(&path),
            // These paths had no other fault.
            Err(fault) => match (revoked.into_inner(), forbidden.into_inner()) {
                (Some(found), _) => found,
                (None, Some(issuer)) => Err(NoPath::MayNotIssue(issuer)),
                (None, None) => Err(NoPath::Invalid(fault)),
            },
        }
    }

    /// Keeps the first path with a revoked certificate in `revoked`, and lets the search continue.
    // Rule: RFC 5280 §6.3; policy table (revocation).
    fn avoid_revoked(
        &self,
        path: &VerifiedPath<'_>,
        revoked: &RefCell<Option<Result<FoundPath, NoPath>>>,
    ) -> Result<(), Error> {
        let Some(crls) = self.crls else {
            return Ok(());
        };
        if !is_revoked(&PathCertificate::of_path(path), crls, self.algorithms) {
            return Ok(());
        }
        revoked.borrow_mut().get_or_insert_with(|| self.found(path));
        Err(Error::CertRevoked)
    }

    fn found(&self, path: &VerifiedPath<'_>) -> Result<FoundPath, NoPath> {
        let anchor = self
            .anchors
            .iter()
            .position(|anchor| std::ptr::eq(anchor, path.anchor()))
            .ok_or(NoPath::Invalid(Error::UnknownIssuer))?;
        let certificates = match self.crls {
            Some(_) => PathCertificate::of_path(path),
            None => Vec::new(),
        };
        Ok(FoundPath {
            anchor,
            certificates,
        })
    }
}
