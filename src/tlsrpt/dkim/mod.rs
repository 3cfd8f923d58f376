//! DKIM signatures for our own reports (RFC 6376; Ed25519: RFC 8463): relaxed/relaxed, SHA-256, no `l=`.
//!
//! Signs, and verifies nothing. The hashes and signatures are those of aws-lc, which TLS brings along.

mod canon;
#[cfg(test)]
mod tests;

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use rustls::pki_types::PrivateKeyDer;

use crate::address::Domain;
use crate::config::{DkimKey, Fault};
use crate::handshake::{key_warning, private_key};

/// Characters of a signature on one line.
const LINE: usize = 64;

/// A key, and under which name it is published.
#[derive(Debug)]
pub struct Signer {
    domain: Domain,
    selector: Domain,
    key: Key,
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm())
    }
}

impl Key {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "rsa-sha256",
            Self::Ed25519(_) => "ed25519-sha256",
        }
    }

    /// Signs what the header fields canonicalize to. RFC 8463 §3: Ed25519 signs the hash, not the text.
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, SignError> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).map_err(|_| SignError)?;
                Ok(signature)
            }
            Self::Ed25519(key) => Ok(key.sign(digest(&SHA256, text).as_ref()).as_ref().to_vec()),
        }
    }
}

/// The library refused to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the report could not be signed with the DKIM key")]
pub struct SignError;

impl Signer {
    /// Loads the key that `[tlsrpt]` names. With it comes a warning where others can read it.
    ///
    /// # Errors
    /// The fault of the file, at its location: not readable, or neither RSA of 2048 to 8192 bits nor Ed25519.
    pub fn load(config: &DkimKey) -> Result<(Self, Option<Fault>), Fault> {
        let der = private_key(&config.file)?;
        let key = read(&der).map_err(|reason| Fault {
            location: config.file.location.clone(),
            message: format!("{} cannot sign mail: {reason}", config.file.value.display()),
            remedy: "Make one: openssl genrsa -out dkim.pem 2048".to_owned(),
        })?;
        let signer = Self { domain: config.domain.clone(), selector: config.selector.clone(), key };
        Ok((signer, key_warning(&config.file)))
    }

    /// Where the public key is looked for.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// The TXT record to publish at `SELECTOR._domainkey.DOMAIN`, for TLS reports alone (RFC 8460 §3).
    #[must_use]
    pub fn record(&self) -> String {
        let (kind, public) = match &self.key {
            Key::Rsa(key) => ("rsa", subject_public_key_info(key)),
            Key::Ed25519(key) => ("ed25519", key.public_key().as_ref().to_vec()),
        };
        format!("v=DKIM1; k={kind}; s=tlsrpt; p={}", BASE64.encode(public))
    }

    /// The `DKIM-Signature` field of a message, with its line end: to be written above the others.
    /// `fields` are its header fields, without line ends behind them, each name once.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, fields: &[String], body: &[u8], at: Timestamp) -> Result<String, SignError> {
        let names: Vec<&str> = fields.iter().filter_map(|field| field.split(':').next()).collect();
        let (d, s, a) = (&self.domain, &self.selector, self.key.algorithm());
        // From once more than it is there: nobody can add another without breaking the signature (§8.15).
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

/// §3.7: the signed header fields, and the signature's own with nothing behind `b=`.
fn signed_text(fields: &[String], unsigned: &str) -> String {
    let mut text: String = fields.iter().map(|field| canon::header(field) + "\r\n").collect();
    text.push_str(&canon::header(unsigned));
    text
}

fn read(der: &PrivateKeyDer<'_>) -> Result<Key, String> {
    let rsa = match der {
        PrivateKeyDer::Pkcs8(pkcs8) => {
            if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.secret_pkcs8_der()) {
                return Ok(Key::Ed25519(key));
            }
            RsaKeyPair::from_pkcs8(pkcs8.secret_pkcs8_der())
        }
        PrivateKeyDer::Pkcs1(pkcs1) => RsaKeyPair::from_der(pkcs1.secret_pkcs1_der()),
        _ => return Err("it is neither an RSA nor an Ed25519 key".to_owned()),
    };
    let key = rsa.map_err(|reason| format!("it is neither Ed25519 nor RSA of 2048 to 8192 bits ({reason})"))?;
    // RFC 8301 §3.2.
    if key.public_modulus_len() < KeySize::Rsa2048.len() {
        return Err(format!("its {} bits are too few; 2048 are wanted", key.public_modulus_len() * 8));
    }
    Ok(Key::Rsa(Box::new(key)))
}

/// RFC 6376 §3.6.1 takes an RSA key as a `SubjectPublicKeyInfo`.
fn subject_public_key_info(key: &RsaKeyPair) -> Vec<u8> {
    use aws_lc_rs::encoding::AsDer as _;
    let der: Result<aws_lc_rs::encoding::PublicKeyX509Der<'_>, _> = key.public_key().as_der();
    der.map(|der| der.as_ref().to_vec()).unwrap_or_default()
}
