//! Signed assertions (RFC 7515, RFC 7519, RFC 7523): the proof of a client by its certificate, and
//! the grant of a service account.
//!
//! A client proves itself as Entra ID asks for it, with PS256 and the SHA-256 of its certificate;
//! a grant is signed as Google asks for it, with RS256. Keys are RSA.

use std::fmt;
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::error::TokenFault;
use crate::config::{Fault, IdentityFiles, Located};
use crate::net::secret::{read_secret_text, secret_warning};
use crate::net::tls_io::{certificates, private_key};

/// The time for which an assertion is valid, in seconds.
const LIFETIME: i64 = 300;
/// The shortest RSA key in bits (RFC 7518 §3.3).
const BITS_MIN: usize = 2048;

/// A key that signs assertions, with the header field that names it.
pub(super) struct AssertionKey {
    key: RsaKeyPair,
    /// The header field with its value; `None` if the server knows one key only.
    id: Option<(&'static str, String)>,
}

impl fmt::Debug for AssertionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssertionKey")
    }
}

/// The key file of a Google service account.
#[derive(Deserialize)]
struct ServiceAccountJson {
    private_key: String,
    private_key_id: Option<String>,
    client_email: Option<String>,
}

/// The parties of an assertion.
pub(super) struct AssertionParties<'a> {
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    pub(super) audience: &'a str,
}

impl AssertionKey {
    /// Loads the certificate and the key of a client.
    pub(super) fn of_client(files: &IdentityFiles) -> Result<Self, Fault> {
        let chain = certificates(&files.certificate)?;
        let key = rsa_key(&private_key(&files.key)?, &files.key)?;
        // `certificates` returns at least one.
        let leaf = &chain[0];
        if !belongs(&key, leaf) {
            return Err(Fault {
                location: files.key.location.clone(),
                message: format!(
                    "{} is not the key of the certificate in {}",
                    files.key.value.display(),
                    files.certificate.value.display()
                ),
                remedy: "Name the key that the certificate was made for.".to_owned(),
            });
        }
        let thumbprint = BASE64URL_NOPAD.encode(digest(&SHA256, leaf).as_ref());
        Ok(Self {
            key,
            id: Some(("x5t#S256", thumbprint)),
        })
    }

    /// Loads the key of an issuer, from a PEM file or the JSON file of a Google service account.
    /// Returns a warning if that is the file of another account.
    pub(super) fn of_issuer(
        file: &Located<PathBuf>,
        issuer: &str,
    ) -> Result<(Self, Option<Fault>), Fault> {
        let text = read_secret_text(file, "a private key")?;
        if !text.trim_start().starts_with('{') {
            let key = rsa_key(&private_key(file)?, file)?;
            return Ok((Self { key, id: None }, None));
        }
        let path = file.value.display();
        let fault = |message: String, remedy: &str| Fault {
            location: file.location.clone(),
            message,
            remedy: remedy.to_owned(),
        };
        let damaged = || {
            fault(
                format!("{path} is not the key file of a service account"),
                "Create a key of type JSON in the Google Cloud console, or name a PEM file.",
            )
        };
        let account: ServiceAccountJson = serde_json::from_str(&text).map_err(|_| damaged())?;
        let pem = Zeroizing::new(account.private_key);
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| damaged())?;
        let key = rsa_key(&der, file)?;
        let warning = account
            .client_email
            .filter(|owner| owner != issuer)
            .map(|owner| {
                fault(
                    format!(
                        "{path} is the key of {}, and issuer is {issuer}",
                        owner.escape_debug()
                    ),
                    "Write the service account that the key belongs to in issuer.",
                )
            });
        let id = account.private_key_id.map(|id| ("kid", id));
        Ok((Self { key, id }, warning))
    }

    /// Makes an assertion by which a client proves itself.
    // Rule: RFC 7523 §2.2, §3.
    pub(super) fn client_assertion(
        &self,
        client: &str,
        audience: &str,
        now: Timestamp,
    ) -> Result<Zeroizing<String>, TokenFault> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| TokenFault::Signing)?;
        let issued = now.as_second();
        let claims = json!({
            "iss": client,
            "sub": client,
            "aud": audience,
            "jti": HEXLOWER.encode(&id),
            "iat": issued,
            "nbf": issued,
            "exp": issued + LIFETIME,
        });
        self.sign("PS256", &claims)
    }

    /// Makes an assertion that is a grant. The scope is a claim, as Google wants it.
    // Rule: RFC 7523 §2.1, §3.
    pub(super) fn grant_assertion(
        &self,
        parties: &AssertionParties<'_>,
        scope: Option<&str>,
        now: Timestamp,
    ) -> Result<Zeroizing<String>, TokenFault> {
        let issued = now.as_second();
        let mut claims = json!({
            "iss": parties.issuer,
            "sub": parties.subject,
            "aud": parties.audience,
            "iat": issued,
            "exp": issued + LIFETIME,
        });
        if let Some(scope) = scope {
            claims["scope"] = json!(scope);
        }
        self.sign("RS256", &claims)
    }

    /// Makes a JWT in the compact form (RFC 7515 §7.1).
    fn sign(
        &self,
        algorithm: &str,
        claims: &serde_json::Value,
    ) -> Result<Zeroizing<String>, TokenFault> {
        let mut header = json!({ "alg": algorithm, "typ": "JWT" });
        if let Some((name, value)) = &self.id {
            header[*name] = json!(value);
        }
        let part = |value: &serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&header), part(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let padding = if algorithm == "PS256" {
            &RSA_PSS_SHA256
        } else {
            &RSA_PKCS1_SHA256
        };
        self.key
            .sign(
                padding,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|_| TokenFault::Signing)?;
        let signature = BASE64URL_NOPAD.encode(&signature);
        Ok(Zeroizing::new(format!("{signed}.{signature}")))
    }
}

/// Returns the warnings about the file of a key.
pub(super) fn key_file_warning(file: &Located<PathBuf>) -> Option<Fault> {
    secret_warning(file, "a private key")
}

fn rsa_key(der: &PrivateKeyDer<'_>, file: &Located<PathBuf>) -> Result<RsaKeyPair, Fault> {
    let parsed = match der {
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
        _ => None,
    };
    parsed
        .filter(|key| key.public_modulus_len() * 8 >= BITS_MIN)
        .ok_or_else(|| Fault {
            location: file.location.clone(),
            message: format!(
                "{} is not an RSA key of 2048 to 8192 bits, and so cannot sign assertions",
                file.value.display()
            ),
            remedy: "Make one for Entra ID: openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=gatepost \
                     -keyout key.pem -out certificate.pem"
                .to_owned(),
        })
}

/// Returns true if the certificate has the public half of the key.
fn belongs(key: &RsaKeyPair, certificate: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, read)| {
        *read.public_key().subject_public_key.data == *key.public_key().as_ref()
    })
}
