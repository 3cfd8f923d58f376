//! Peers with certificates whose keys the TLS library cannot check. They hold no key at all:
//! whatever they are asked to sign, they answer with the same octets.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion};

/// A certificate by its file in `tests/it/support/keys`, how its key is named, and a scheme that
/// the peer signs with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) file: &'static str,
    pub(crate) words: &'static str,
    pub(crate) scheme: SignatureScheme,
}

const fn kind(file: &'static str, words: &'static str, scheme: SignatureScheme) -> Kind {
    Kind {
        file,
        words,
        scheme,
    }
}

pub(crate) const RSA_1024: Kind = kind(
    "rsa-1024",
    "RSA key of 1024 bits",
    SignatureScheme::RSA_PSS_SHA256,
);

/// Every kind; the last is no certificate.
pub(crate) const KINDS: [Kind; 9] = [
    RSA_1024,
    kind(
        "rsa-without-null",
        "RSA, encoded without the NULL of RFC 3279",
        SignatureScheme::RSA_PSS_SHA256,
    ),
    kind(
        "rsassa-pss",
        "RSA for RSA-PSS alone",
        SignatureScheme::RSA_PSS_SHA256,
    ),
    kind(
        "secp256k1",
        "ECDSA on secp256k1",
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ),
    kind(
        "brainpool-p256",
        "ECDSA on brainpoolP256r1",
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ),
    kind(
        "p-224",
        "ECDSA on P-224",
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ),
    kind(
        "explicit",
        "ECDSA on a curve without a name",
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ),
    kind("ed448", "Ed448", SignatureScheme::ED25519),
    kind(
        "",
        "malformed certificate",
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ),
];

/// The certificate of such a peer.
pub(crate) fn certificate(kind: Kind) -> CertificateDer<'static> {
    if kind.file.is_empty() {
        return CertificateDer::from(vec![0x30, 3, 2, 1, 5]);
    }
    let file = format!(
        "{}/tests/it/support/keys/{}.pem",
        env!("CARGO_MANIFEST_DIR"),
        kind.file
    );
    CertificateDer::from_pem_file(file).expect("a certificate")
}

/// The certificate of such a peer, and what stands in for its key.
pub(crate) fn certified(kind: Kind) -> CertifiedKey {
    CertifiedKey::new(vec![certificate(kind)], Arc::new(Pretender(kind.scheme)))
}

/// The settings of a server that shows it.
pub(crate) fn server(
    kind: Kind,
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ServerConfig {
    showing(certified(kind), versions)
}

pub(crate) fn showing(
    certified: CertifiedKey,
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ServerConfig {
    rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
}

#[derive(Debug)]
pub(crate) struct Pretender(pub(crate) SignatureScheme);

impl SigningKey for Pretender {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self(self.0)))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0 {
            SignatureScheme::RSA_PSS_SHA256 | SignatureScheme::RSA_PKCS1_SHA1 => {
                SignatureAlgorithm::RSA
            }
            SignatureScheme::ED25519 => SignatureAlgorithm::ED25519,
            _ => SignatureAlgorithm::ECDSA,
        }
    }
}

impl Signer for Pretender {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(vec![0x30; 70])
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}
