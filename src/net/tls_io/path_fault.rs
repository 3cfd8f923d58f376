//! The texts for a path that is not found: what is wrong with which certificate.

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use webpki::Error;
use x509_parser::extensions::X509Extension;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::X509Name;

use super::path_search::{NoPath, PathSearch};
use super::trust::UnusableAnchor;
use super::{algorithm_names, certificate, usage};
use crate::policy::tls::ChainFault;

/// The extensions that rustls-webpki supports or may ignore (RFC 5280 §4.2), by OID. Any other
/// critical extension makes a certificate invalid.
const SUPPORTED_EXTENSIONS: [&str; 6] = [
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.37",
];

/// Converts the result of a failed search. `unusable` are the listed authorities that cannot be
/// anchors.
pub(super) fn describe(
    no_path: &NoPath,
    search: &PathSearch<'_>,
    unusable: &[UnusableAnchor],
) -> ChainFault {
    let Some(leaf) = certificate::parse(search.leaf) else {
        return ChainFault::Invalid("it is malformed".to_owned());
    };
    let chain = FailedChain { leaf, search };
    match no_path {
        NoPath::NotForTls(fault) => ChainFault::Invalid(fault.to_string()),
        NoPath::MayNotIssue(issuer) => ChainFault::Invalid(format!(
            "an issuer of it ({issuer}) may not issue certificates: its key usage lacks keyCertSign"
        )),
        NoPath::Invalid(Error::UnknownIssuer) => chain.unknown_issuer(unusable),
        NoPath::Invalid(Error::CertExpired { not_after, .. }) => {
            chain.expired(timestamp(*not_after))
        }
        NoPath::Invalid(Error::CertNotValidYet { not_before, .. }) => {
            chain.not_yet_valid(timestamp(*not_before))
        }
        NoPath::Invalid(other) => ChainFault::Invalid(chain.describe(other)),
    }
}

/// The chain of a failed search.
struct FailedChain<'a> {
    leaf: X509Certificate<'a>,
    search: &'a PathSearch<'a>,
}

impl FailedChain<'_> {
    /// Finds the issuer where the chain ends: it was not sent, and is not trusted.
    fn unknown_issuer(&self, unusable: &[UnusableAnchor]) -> ChainFault {
        let issuers: Vec<_> = self
            .search
            .issuers
            .certificates()
            .iter()
            .filter_map(certificate::parse)
            .collect();
        let mut top = &self.leaf;
        // No path is longer than the chain that was sent, even if its names form a circle.
        for _ in 0..issuers.len() {
            match issuers
                .iter()
                .find(|other| other.subject().as_raw() == top.issuer().as_raw())
            {
                Some(issuer) if issuer.issuer().as_raw() != issuer.subject().as_raw() => {
                    top = issuer;
                }
                Some(_) | None => break,
            }
        }
        let name = certificate::readable_name(top.issuer());
        if let Some(listed) = unusable
            .iter()
            .find(|listed| listed.subject == top.issuer().as_raw())
        {
            return ChainFault::Invalid(format!(
                "its authority ({name}) cannot be trusted: {}",
                listed.why
            ));
        }
        match self.search.issuers.left_out() {
            0 => ChainFault::UnknownIssuer(name),
            left => ChainFault::UnknownIssuer(format!(
                "{name}; {left} more certificates were sent, but no more than 8 of a chain and two of one subject \
                 are used"
            )),
        }
    }

    fn expired(&self, at: Timestamp) -> ChainFault {
        if certificate::validity(&self.leaf).1 == at {
            ChainFault::Expired(at)
        } else {
            ChainFault::Invalid(format!(
                "the certificate of an issuer of it expired on {at}"
            ))
        }
    }

    fn not_yet_valid(&self, at: Timestamp) -> ChainFault {
        if certificate::validity(&self.leaf).0 == at {
            ChainFault::NotYetValid(at)
        } else {
            ChainFault::Invalid(format!(
                "the certificate of an issuer of it is not valid before {at}"
            ))
        }
    }

    fn describe(&self, error: &Error) -> String {
        match error {
            Error::CaUsedAsEndEntity => "it is the certificate of an authority, not of a host".to_owned(),
            Error::EndEntityUsedAsCa => "an issuer of it is not allowed to issue certificates".to_owned(),
            Error::PathLenConstraintViolated => {
                "there are more authorities between it and its root than one of them allows (pathLenConstraint)"
                    .to_owned()
            }
            Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => self.describe_purpose(),
            Error::NameConstraintViolation => "its names are not among those that its authority may vouch for \
                 (nameConstraints; constraints on directory names are not supported and never met)"
                .to_owned(),
            Error::InvalidSignatureForPublicKey => self.describe_signature(),
            Error::SignatureAlgorithmMismatch => "it, or an issuer of it, names two signature algorithms".to_owned(),
            Error::UnsupportedSignatureAlgorithmContext(context) => {
                unsupported_signature(&context.signature_algorithm_id)
            }
            Error::UnsupportedSignatureAlgorithmForPublicKeyContext(context)
                if algorithm_names::is_known(&context.public_key_algorithm_id, self.search.algorithms) =>
            {
                self.describe_signature()
            }
            Error::UnsupportedSignatureAlgorithmForPublicKeyContext(context) => {
                format!(
                    "the key of an issuer of it is {}, which is not accepted",
                    algorithm_names::key_kind(&context.public_key_algorithm_id)
                )
            }
            Error::UnsupportedCertVersion => "it, or an issuer of it, is not an X.509 version 3 certificate".to_owned(),
            Error::UnsupportedCriticalExtension => self.describe_critical_extension(),
            Error::MaximumPathDepthExceeded => "there are more than 6 authorities between it and its root".to_owned(),
            Error::MaximumPathBuildCallsExceeded | Error::MaximumSignatureChecksExceeded => {
                "too many of the certificates sent with it could be its issuers; the search was stopped".to_owned()
            }
            Error::MaximumNameConstraintComparisonsExceeded => {
                "it has more names than can be held against the constraints of its authority".to_owned()
            }
            Error::CertDistrusted => "its key is known to be bad".to_owned(),
            Error::InvalidCertValidity => "it, or an issuer of it, ends before it begins".to_owned(),
            // The remaining errors concern encodings: TrailingData, BadDer, BadDerTime,
            // MalformedExtensions and the like.
            _ => "it, or an issuer of it, is malformed".to_owned(),
        }
    }

    /// Describes a wrong purpose. rustls-webpki applies the extended key usage of an issuer to the
    /// whole path.
    fn describe_purpose(&self) -> String {
        let role = self.search.role;
        let its = usage::wrong_purpose(role);
        if usage::names_purpose(&self.leaf, role) {
            its.replacen(
                "its extended key usage",
                "the extended key usage of an issuer of it",
                1,
            )
        } else {
            its.to_owned()
        }
    }

    /// Describes a signature that does not match: it is forged, or by a key that is not supported.
    fn describe_signature(&self) -> String {
        let sent: Vec<_> = self
            .search
            .issuers
            .certificates()
            .iter()
            .filter_map(certificate::parse)
            .collect();
        let has_issued = |name: &X509Name<'_>| {
            std::iter::once(&self.leaf)
                .chain(&sent)
                .any(|issued| issued.issuer().as_raw() == name.as_raw())
        };
        let authorities = sent
            .iter()
            .filter(|read| read.issuer().as_raw() != read.subject().as_raw());
        let weak = authorities
            .filter(|read| has_issued(read.subject()))
            .find_map(|read| {
                let why =
                    algorithm_names::unusable_reason(read.public_key(), self.search.algorithms)?;
                Some((certificate::readable_name(read.subject()), why))
            });
        match weak {
            Some((name, why)) => format!("the key of an issuer of it ({name}) is {why}"),
            None => {
                "its signature, or one above it, is not by the authority of that name".to_owned()
            }
        }
    }

    /// Names the certificate whose extension is not supported, and that extension.
    fn describe_critical_extension(&self) -> String {
        let sent = self.search.issuers.certificates();
        let issuers = sent.iter().filter_map(certificate::parse).find_map(|read| {
            let names = unsupported_extensions(&read)?;
            Some((certificate::readable_name(read.subject()), names))
        });
        match (unsupported_extensions(&self.leaf), issuers) {
            (Some(names), _) => {
                format!("it has a critical extension that is not supported ({names})")
            }
            (None, Some((subject, names))) => {
                format!(
                    "an issuer of it ({subject}) has a critical extension that is not supported ({names})"
                )
            }
            (None, None) => {
                "it, or an issuer of it, has a critical extension that is not supported".to_owned()
            }
        }
    }
}

fn unsupported_signature(algorithm: &[u8]) -> String {
    let of_pss =
        "; of RSA-PSS only SHA-256, SHA-384 and SHA-512 with a salt as long as the hash are";
    let name = algorithm_names::signature_algorithm(algorithm);
    let more = if name.starts_with("RSA-PSS") {
        of_pss
    } else {
        ""
    };
    format!("it, or an issuer of it, is signed with {name}, which is not accepted{more}")
}

/// Lists the unsupported critical extensions of a certificate; `None` if it has none.
fn unsupported_extensions(certificate: &X509Certificate<'_>) -> Option<String> {
    let is_unsupported = |extension: &&X509Extension<'_>| {
        extension.critical && !SUPPORTED_EXTENSIONS.contains(&extension.oid.to_id_string().as_str())
    };
    let names: Vec<_> = certificate
        .extensions()
        .iter()
        .filter(is_unsupported)
        .take(3)
        .map(extension_name)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn extension_name(extension: &X509Extension<'_>) -> String {
    match extension.oid.to_id_string().as_str() {
        "2.5.29.18" => "issuerAltName".to_owned(),
        "2.5.29.32" => "certificatePolicies".to_owned(),
        "2.5.29.33" => "policyMappings".to_owned(),
        "2.5.29.36" => "policyConstraints".to_owned(),
        "2.5.29.54" => "inhibitAnyPolicy".to_owned(),
        other => other.chars().take(60).collect(),
    }
}

fn timestamp(time: UnixTime) -> Timestamp {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
}
