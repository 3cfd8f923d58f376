//! The public key of a peer's own certificate: one that handshake signatures can be checked with, or not.
//!
//! The key alone decides. The verifier checks the signature of every [`CheckableKey`]; for any other key it
//! lets the handshake go on, and [`Seen`](super::Seen), by the same reading of the same certificate, holds no
//! key, no chain and no name of such a peer that could be judged.

use std::sync::LazyLock;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs as provider};
use rustls::pki_types::{AlgorithmIdentifier, CertificateDer, SubjectPublicKeyInfoDer, alg_id};
use x509_parser::asn1_rs::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{certificate, key};
use crate::tls::UncheckableKey;

/// The signatures that the TLS library can check.
pub(super) static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| provider::default_provider().signature_verification_algorithms);

/// Characters of the name of a kind of key, at most: it may be an object identifier of the peer's choice.
const KIND_SHOWN: usize = 80;

/// The public key of a peer's certificate.
#[derive(Debug)]
pub(super) enum LeafKey {
    /// One that the peer proves to hold, or the handshake fails.
    Checkable(CheckableKey),
    /// One that proves nothing.
    Uncheckable(UncheckableKey),
}

/// A public key that handshake signatures are checked with.
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
        let Some(spki) = certificate::public_key(leaf) else { return Self::Uncheckable(UncheckableKey::Unreadable) };
        match check(&spki) {
            Ok(()) => Self::Checkable(CheckableKey(spki)),
            Err(key) => Self::Uncheckable(key),
        }
    }
}

/// The parsers of keys, by supported algorithm, each with the algorithm's name. A key that is not listed here
/// (ML-DSA) is a string of octets of a fixed length, with which nothing else can be wrong.
static PARSERS: [(AlgorithmIdentifier, &dyn VerificationAlgorithm, &str); 5] = [
    (alg_id::RSA_ENCRYPTION, &RSA_PKCS1_2048_8192_SHA256, "RSA"),
    (alg_id::ECDSA_P256, &ECDSA_P256_SHA256_ASN1, "P-256"),
    (alg_id::ECDSA_P384, &ECDSA_P384_SHA384_ASN1, "P-384"),
    (alg_id::ECDSA_P521, &ECDSA_P521_SHA512_ASN1, "P-521"),
    (alg_id::ED25519, &ED25519, "Ed25519"),
];

fn check(spki: &SubjectPublicKeyInfoDer<'_>) -> Result<(), UncheckableKey> {
    let (_, read) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| UncheckableKey::Unreadable)?;
    let identifier = key::identifier(&read).ok_or(UncheckableKey::Unreadable)?;
    if !key::is_known(identifier, ALGORITHMS.all) {
        return Err(UncheckableKey::Kind(key::kind(identifier).chars().take(KIND_SHOWN).collect()));
    }
    let octets: &[u8] = &read.subject_public_key.data;
    if *identifier == *alg_id::RSA_ENCRYPTION {
        let (_, rsa) = RSAPublicKey::from_der(octets).map_err(|_| UncheckableKey::Malformed("RSA"))?;
        let bits = bits(rsa.modulus);
        if !key::RSA_BITS.contains(&bits) {
            return Err(UncheckableKey::RsaSize(bits));
        }
    }
    match PARSERS.iter().find(|(known, ..)| known.as_ref() == identifier) {
        Some((_, algorithm, name)) => {
            ParsedPublicKey::new(*algorithm, octets).map(|_| ()).map_err(|_| UncheckableKey::Malformed(name))
        }
        None => Ok(()),
    }
}

/// The length of an unsigned integer without its leading zeros.
fn bits(integer: &[u8]) -> usize {
    match integer.iter().position(|octet| *octet != 0) {
        Some(first) => (integer.len() - first) * 8 - integer[first].leading_zeros() as usize,
        None => 0,
    }
}
