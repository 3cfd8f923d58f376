//! DKIM signatures for our own reports (RFC 6376; Ed25519: RFC 8463): relaxed/relaxed, SHA-256, no
//! `l=`.
//!
//! Signs only; it verifies nothing. Hashes and signatures come from aws-lc, the library that TLS
//! uses.

mod canon;
#[cfg(test)]
mod tests;

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use rustls::pki_types::PrivateKeyDer;

use crate::config::{DkimKey, Fault};
use crate::net::tls_io::{key_warning, private_key};
use crate::smtp::address::Domain;

/// The number of characters of a signature on one line.
const LINE: usize = 64;

/// A signing key, with the domain and selector under which its public key is published.
#[derive(Debug)]
pub struct Signer {
    domain: Domain,
    selector: Domain,
    key: SigningKey,
}

enum SigningKey {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm())
    }
}

impl SigningKey {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "rsa-sha256",
            Self::Ed25519(_) => "ed25519-sha256",
        }
    }

    /// Signs the canonical form of the header fields. Ed25519 signs the hash, not the text (RFC
    /// 8463 §3).
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, SignError> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    text,
                    &mut signature,
                )
                .map_err(|_| SignError)?;
                Ok(signature)
            }
            Self::Ed25519(key) => Ok(key.sign(digest(&SHA256, text).as_ref()).as_ref().to_vec()),
        }
    }
}

/// The error of the cryptographic library when signing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot sign the report with the DKIM key")]
pub struct SignError;

/// The reason why a private key cannot sign mail.
#[derive(Debug, thiserror::Error)]
enum DkimKeyError {
    /// The key is of another kind.
    #[error("it is neither an RSA nor an Ed25519 key")]
    Kind,
    /// The library does not accept the key.
    #[error("it is neither Ed25519 nor RSA of 2048 to 8192 bits ({0})")]
    Rejected(KeyRejected),
    /// The RSA key has fewer bits than RFC 8301 §3.2 requires.
    #[error("it has {bits} bits, and at least 2048 are required")]
    TooShort {
        /// The length of the key.
        bits: usize,
    },
}

impl Signer {
    /// Loads the key that `[tlsrpt]` configures. Also returns a warning if other users can read the
    /// file.
    ///
    /// # Errors
    /// The fault of the file with its location: not readable, or neither RSA of 2048 to 8192 bits
    /// nor Ed25519.
    pub fn load(config: &DkimKey) -> Result<(Self, Option<Fault>), Fault> {
        let der = private_key(&config.file)?;
        let key = parse_key(&der).map_err(|reason| Fault {
            location: config.file.location.clone(),
            message: format!("{} cannot sign mail: {reason}", config.file.value.display()),
            remedy: "Make one: openssl genrsa -out dkim.pem 2048".to_owned(),
        })?;
        let signer = Self {
            domain: config.domain.clone(),
            selector: config.selector.clone(),
            key,
        };
        Ok((signer, key_warning(&config.file)))
    }

    /// Returns the DNS name at which the public key is published.
    #[must_use]
    pub fn record_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// Returns the TXT record to publish at `SELECTOR._domainkey.DOMAIN`, for TLS reports only (RFC
    /// 8460 §3).
    #[must_use]
    pub fn record(&self) -> String {
        let (kind, public) = match &self.key {
            SigningKey::Rsa(key) => ("rsa", subject_public_key_info(key)),
            SigningKey::Ed25519(key) => ("ed25519", key.public_key().as_ref().to_vec()),
        };
        format!("v=DKIM1; k={kind}; s=tlsrpt; p={}", BASE64.encode(public))
    }

    /// Returns the `DKIM-Signature` field of a message, with its line end, to be put above the
    /// other fields. `fields` are the header fields without line ends, each name once.
    ///
    /// # Errors
    /// [`SignError`] if the library cannot sign.
    pub fn sign(&self, fields: &[String], body: &[u8], at: Timestamp) -> Result<String, SignError> {
        let names: Vec<&str> = fields
            .iter()
            .filter_map(|field| field.split(':').next())
            .collect();
        let (d, s, a) = (&self.domain, &self.selector, self.key.algorithm());
        // `From` is listed once more than it occurs, so that another one cannot be added without
        // breaking the signature (§8.15).
        let unsigned = format!(
            "DKIM-Signature: v=1; a={a}; c=relaxed/relaxed; d={d}; s={s};\r\n t={t}; h={h}:From;\r\n bh={bh};\r\n b=",
            t = at.as_second(),
            h = names.join(":\r\n  "),
            bh = BASE64.encode(digest(&SHA256, &canon::body(body))),
        );
        let signature = BASE64.encode(self.key.sign(signed_text(fields, &unsigned).as_bytes())?);
        let mut signed = unsigned;
        for (at, character) in signature.chars().enumerate() {
            if at > 0 && at % LINE == 0 {
                signed.push_str("\r\n  ");
            }
            signed.push(character);
        }
        signed.push_str("\r\n");
        Ok(signed)
    }
}

/// Returns the signed text (§3.7): the header fields, and the signature field with nothing after
/// `b=`.
fn signed_text(fields: &[String], unsigned: &str) -> String {
    let mut text: String = fields
        .iter()
        .map(|field| canon::header(field) + "\r\n")
        .collect();
    text.push_str(&canon::header(unsigned));
    text
}

fn parse_key(der: &PrivateKeyDer<'_>) -> Result<SigningKey, DkimKeyError> {
    let rsa = match der {
        PrivateKeyDer::Pkcs8(pkcs8) => {
            if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.secret_pkcs8_der()) {
                return Ok(SigningKey::Ed25519(key));
            }
            RsaKeyPair::from_pkcs8(pkcs8.secret_pkcs8_der())
        }
        PrivateKeyDer::Pkcs1(pkcs1) => RsaKeyPair::from_der(pkcs1.secret_pkcs1_der()),
        _ => return Err(DkimKeyError::Kind),
    };
    let key = rsa.map_err(DkimKeyError::Rejected)?;
    // The minimum of RFC 8301 §3.2.
    if key.public_modulus_len() < KeySize::Rsa2048.len() {
        return Err(DkimKeyError::TooShort {
            bits: key.public_modulus_len() * 8,
        });
    }
    Ok(SigningKey::Rsa(Box::new(key)))
}

/// Returns the form that RFC 6376 §3.6.1 requires of an RSA key.
fn subject_public_key_info(key: &RsaKeyPair) -> Vec<u8> {
    use aws_lc_rs::encoding::AsDer as _;
    let der: Result<aws_lc_rs::encoding::PublicKeyX509Der<'_>, _> = key.public_key().as_der();
    der.map(|der| der.as_ref().to_vec()).unwrap_or_default()
}
