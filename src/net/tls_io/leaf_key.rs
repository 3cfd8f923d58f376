//! The public key of a peer's own certificate, with which handshake signatures can be checked or
//! not.
//!
//! The key alone decides. The verifier checks the signature of every [`CheckableKey`]. For any
//! other key the handshake goes on, and [`CompletedHandshake`](super::CompletedHandshake), which
//! reads the same certificate in the same way, provides no key, chain or name of that peer to the
//! judge.

use std::sync::LazyLock;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs as provider};
use rustls::pki_types::{AlgorithmIdentifier, CertificateDer, SubjectPublicKeyInfoDer, alg_id};
use x509_parser::asn1_rs::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::certificate::key_hash;
use super::{algorithm_names, certificate};
use crate::policy::tls::{Pin, UncheckableKey};

/// The signature algorithms that the TLS library can check.
pub(super) static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| provider::default_provider().signature_verification_algorithms);

/// The most characters in the name of a kind of key, since it may be an object identifier of the
/// peer's choice.
const KIND_SHOWN_MAX: usize = 80;

/// The public key of a peer's certificate.
#[derive(Debug)]
pub(super) enum LeafKey {
    /// The peer must prove that it holds the key, or the handshake fails.
    Checkable(CheckableKey),
    /// The key proves nothing.
    Uncheckable(UncheckableKey),
}

/// A public key with which handshake signatures are checked.
#[derive(Debug)]
pub(super) struct CheckableKey(SubjectPublicKeyInfoDer<'static>);

impl CheckableKey {
    /// The whole `SubjectPublicKeyInfo`.
    pub(super) fn spki(&self) -> &SubjectPublicKeyInfoDer<'static> {
        &self.0
    }
}

impl LeafKey {
    /// Reads the key of a certificate.
    pub(super) fn of(leaf: &CertificateDer<'_>) -> Self {
        let Some(spki) = certificate::public_key(leaf) else {
            return Self::Uncheckable(UncheckableKey::Unreadable);
        };
        match check_key(&spki) {
            Ok(()) => Self::Checkable(CheckableKey(spki)),
            Err(key) => Self::Uncheckable(key),
        }
    }
}

/// The parsers for the keys of supported algorithms, with the algorithm's name. Keys that are not
/// listed (ML-DSA) are octet strings of a fixed length, which cannot be malformed otherwise.
static PARSERS: [(AlgorithmIdentifier, &dyn VerificationAlgorithm, &str); 5] = [
    (alg_id::RSA_ENCRYPTION, &RSA_PKCS1_2048_8192_SHA256, "RSA"),
    (alg_id::ECDSA_P256, &ECDSA_P256_SHA256_ASN1, "P-256"),
    (alg_id::ECDSA_P384, &ECDSA_P384_SHA384_ASN1, "P-384"),
    (alg_id::ECDSA_P521, &ECDSA_P521_SHA512_ASN1, "P-521"),
    (alg_id::ED25519, &ED25519, "Ed25519"),
];

fn check_key(spki: &SubjectPublicKeyInfoDer<'_>) -> Result<(), UncheckableKey> {
    let (_, read) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| UncheckableKey::Unreadable)?;
    let identifier = algorithm_names::identifier(&read).ok_or(UncheckableKey::Unreadable)?;
    if !algorithm_names::is_known(identifier, ALGORITHMS.all) {
        return Err(UncheckableKey::Kind(
            algorithm_names::key_kind(identifier)
                .chars()
                .take(KIND_SHOWN_MAX)
                .collect(),
        ));
    }
    let octets: &[u8] = &read.subject_public_key.data;
    if *identifier == *alg_id::RSA_ENCRYPTION {
        let (_, rsa) =
            RSAPublicKey::from_der(octets).map_err(|_| UncheckableKey::Malformed("RSA"))?;
        let bits = bit_length(rsa.modulus);
        if !algorithm_names::RSA_BITS.contains(&bits) {
            return Err(UncheckableKey::RsaSize(bits));
        }
    }
    match PARSERS
        .iter()
        .find(|(known, ..)| known.as_ref() == identifier)
    {
        Some((_, algorithm, name)) => ParsedPublicKey::new(*algorithm, octets)
            .map(|_| ())
            .map_err(|_| UncheckableKey::Malformed(name)),
        None => Ok(()),
    }
}

/// Returns the length of an unsigned integer in bits, without leading zeros.
fn bit_length(integer: &[u8]) -> usize {
    match integer.iter().position(|octet| *octet != 0) {
        Some(first) => (integer.len() - first) * 8 - integer[first].leading_zeros() as usize,
        None => 0,
    }
}

/// Returns the hash by which a public key is pinned.
pub(crate) fn pin(key: &CheckableKey) -> Pin {
    key_hash(key.spki())
}
