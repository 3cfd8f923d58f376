//! Names for the public keys and signature algorithms of certificates, and the reasons why some
//! cannot be checked.

use rustls::pki_types::SignatureVerificationAlgorithm;
use x509_parser::asn1_rs::{Any, FromDer, Oid};
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The lengths of RSA keys with which signatures are checked (RFC 9325 §4.5 demands at least 2048).
pub(super) const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Returns the reason why no signature by this key can be checked; `None` if it can.
pub(super) fn unusable_reason(
    key: &SubjectPublicKeyInfo<'_>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> Option<String> {
    if let Ok(PublicKey::RSA(rsa)) = key.parsed()
        && !RSA_BITS.contains(&rsa.key_size())
    {
        let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
        return Some(format!(
            "RSA of {} bits, and only {least} to {most} are accepted",
            rsa.key_size()
        ));
    }
    let identifier = identifier(key).unwrap_or_default();
    (!is_known(identifier, algorithms))
        .then(|| format!("{}, which is not accepted", key_kind(identifier)))
}

/// Returns true if keys with this content of the `AlgorithmIdentifier` are supported.
pub(super) fn is_known(
    identifier: &[u8],
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> bool {
    algorithms
        .iter()
        .any(|algorithm| algorithm.public_key_alg_id().as_ref() == identifier)
}

/// Returns the content of the `AlgorithmIdentifier` at the start of a key.
pub(super) fn identifier<'a>(key: &SubjectPublicKeyInfo<'a>) -> Option<&'a [u8]> {
    fn content(octets: &[u8]) -> Option<&[u8]> {
        let (_, any) = Any::from_der(octets).ok()?;
        Some(any.data)
    }
    content(content(key.raw)?)
}

/// Names a kind of key, by the content of its `AlgorithmIdentifier`.
pub(super) fn key_kind(identifier: &[u8]) -> String {
    let Ok((parameters, algorithm)) = Oid::from_der(identifier) else {
        return "of an unknown kind".to_owned();
    };
    match algorithm.to_id_string().as_str() {
        // The usual encoding is supported, and does not get here.
        "1.2.840.113549.1.1.1" => "RSA, encoded without the NULL of RFC 3279".to_owned(),
        "1.2.840.113549.1.1.10" => "RSA for RSA-PSS alone".to_owned(),
        "1.2.840.10040.4.1" => "DSA".to_owned(),
        "1.2.840.10045.2.1" => match Oid::from_der(parameters) {
            Ok((_, curve)) => format!("ECDSA on {}", curve_name(&curve.to_id_string())),
            Err(_) => "ECDSA on a curve without a name".to_owned(),
        },
        "1.3.101.113" => "Ed448".to_owned(),
        other => format!("of an unknown kind ({other})"),
    }
}

fn curve_name(curve: &str) -> &str {
    match curve {
        "1.2.840.10045.3.1.1" => "P-192",
        "1.3.132.0.33" => "P-224",
        "1.3.132.0.10" => "secp256k1",
        "1.3.36.3.3.2.8.1.1.7" => "brainpoolP256r1",
        "1.3.36.3.3.2.8.1.1.11" => "brainpoolP384r1",
        "1.3.36.3.3.2.8.1.1.13" => "brainpoolP512r1",
        other => other,
    }
}

/// Names a signature algorithm, by the content of its `AlgorithmIdentifier`.
pub(super) fn signature_algorithm(identifier: &[u8]) -> String {
    let Ok((parameters, algorithm)) = Oid::from_der(identifier) else {
        return "an unknown algorithm".to_owned();
    };
    match algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.2" => "RSA and MD2".to_owned(),
        "1.2.840.113549.1.1.4" => "RSA and MD5".to_owned(),
        "1.2.840.113549.1.1.5" => "RSA and SHA-1".to_owned(),
        "1.2.840.113549.1.1.11" => "RSA and SHA-256".to_owned(),
        "1.2.840.113549.1.1.12" => "RSA and SHA-384".to_owned(),
        "1.2.840.113549.1.1.13" => "RSA and SHA-512".to_owned(),
        "1.2.840.113549.1.1.14" => "RSA and SHA-224".to_owned(),
        "1.2.840.113549.1.1.10" => rsa_pss(parameters),
        "1.2.840.10040.4.3" => "DSA and SHA-1".to_owned(),
        "2.16.840.1.101.3.4.3.2" => "DSA and SHA-256".to_owned(),
        "1.2.840.10045.4.1" => "ECDSA and SHA-1".to_owned(),
        "1.2.840.10045.4.3.1" => "ECDSA and SHA-224".to_owned(),
        "1.2.840.10045.4.3.2" => "ECDSA and SHA-256".to_owned(),
        "1.2.840.10045.4.3.3" => "ECDSA and SHA-384".to_owned(),
        "1.2.840.10045.4.3.4" => "ECDSA and SHA-512".to_owned(),
        "1.3.101.112" => "Ed25519".to_owned(),
        "1.3.101.113" => "Ed448".to_owned(),
        other => format!("an algorithm that is not known here ({other})"),
    }
}

/// Names RSA-PSS with its parameters (RFC 4055 §3.1).
fn rsa_pss(parameters: &[u8]) -> String {
    let read = || {
        let (_, any) = Any::from_der(parameters).ok()?;
        let read = RsaSsaPssParams::try_from(&any).ok()?;
        Some((
            hash_name(&read.hash_algorithm_oid().to_id_string()),
            read.salt_length(),
        ))
    };
    match read() {
        Some((hash, salt)) => format!("RSA-PSS with {hash} and a salt of {salt} octets"),
        None => "RSA-PSS with unreadable parameters".to_owned(),
    }
}

fn hash_name(hash: &str) -> String {
    match hash {
        "1.3.14.3.2.26" => "SHA-1".to_owned(),
        "2.16.840.1.101.3.4.2.1" => "SHA-256".to_owned(),
        "2.16.840.1.101.3.4.2.2" => "SHA-384".to_owned(),
        "2.16.840.1.101.3.4.2.3" => "SHA-512".to_owned(),
        "2.16.840.1.101.3.4.2.4" => "SHA-224".to_owned(),
        other => other.to_owned(),
    }
}
