//! Token requests (RFC 6749 §4.4, §6; RFC 7521; RFC 7523): the secrets of the settings, read anew
//! for each request, and the form that is sent.

use std::path::PathBuf;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::assertion::{AssertionKey, AssertionParties, key_file_warning};
use super::error::TokenFault;
use super::form::{Form, encode};
use super::refresh_token::RefreshTokenFile;
use crate::config::{Fault, Located};
use crate::net::secret::{read_secret, secret_warning};
use crate::policy::connector::{ClientProof, TokenGrant, TokenSettings};

/// The type of a client assertion (RFC 7523 §2.2).
const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The grant type of an assertion (RFC 7523 §2.1).
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A request that can be sent.
pub(super) struct TokenRequest {
    pub(super) form: Form,
    /// The secrets in the form, which must not be shown.
    pub(super) secrets: Vec<Zeroizing<String>>,
    /// The refresh token, if the grant has one.
    pub(super) refresh: Option<RefreshTokenUse>,
}

/// The refresh token of a request.
pub(super) struct RefreshTokenUse {
    /// The one that the administrator has written.
    pub(super) configured: Zeroizing<String>,
    /// The one that is sent.
    pub(super) sent: Zeroizing<String>,
}

/// A refresh token that has replaced a configured one and could not be stored.
#[derive(Clone)]
pub(super) struct UnsavedToken {
    pub(super) configured: Zeroizing<String>,
    pub(super) token: Zeroizing<String>,
}

impl TokenRequest {
    /// Reads the secrets and makes the request. This reads files and blocks.
    // Rule: RFC 6749 §4.4, §6.
    pub(super) fn prepare(
        settings: &TokenSettings,
        stored: &RefreshTokenFile,
        unsaved: Option<&UnsavedToken>,
        now: Timestamp,
    ) -> Result<Self, TokenFault> {
        let mut request = Self {
            form: Form::default(),
            secrets: Vec::new(),
            refresh: None,
        };
        let audience = settings.token_url.value.to_string();
        match &settings.grant {
            TokenGrant::ClientCredentials { client_id, proof } => {
                request.form.add("grant_type", "client_credentials");
                request.form.add("client_id", client_id);
                request.add_proof(client_id, proof, &audience, now)?;
                request.add_scope(settings);
            }
            TokenGrant::RefreshToken {
                client_id,
                proof,
                refresh_token_file,
            } => {
                let configured = secret(refresh_token_file, REFRESH_TOKEN)?;
                let sent = unsaved
                    .filter(|unsaved| unsaved.configured == configured)
                    .map(|unsaved| unsaved.token.clone())
                    .or_else(|| stored.load(&configured))
                    .unwrap_or_else(|| configured.clone());
                request.form.add("grant_type", "refresh_token");
                request.add_secret("refresh_token", &sent);
                request.form.add("client_id", client_id);
                if let Some(proof) = proof {
                    request.add_proof(client_id, proof, &audience, now)?;
                }
                request.add_scope(settings);
                request.refresh = Some(RefreshTokenUse { configured, sent });
            }
            TokenGrant::JwtBearer {
                key_file,
                issuer,
                subject,
            } => {
                let (key, _) = AssertionKey::of_issuer(key_file, issuer).map_err(boxed)?;
                let parties = AssertionParties {
                    issuer,
                    subject,
                    audience: &audience,
                };
                let assertion = key.grant_assertion(&parties, settings.scope.as_deref(), now)?;
                request.form.add("grant_type", JWT_BEARER);
                request.add_secret("assertion", &assertion);
            }
        }
        Ok(request)
    }

    fn add_secret(&mut self, name: &str, secret: &Zeroizing<String>) {
        self.form.add(name, secret);
        self.secrets.push(secret.clone());
        let encoded = encode(secret);
        if encoded != *secret {
            self.secrets.push(encoded);
        }
    }

    /// Adds the proof of the client: a secret in the form, as Entra ID and Google document it, or
    /// an assertion.
    // Rule: RFC 6749 §2.3.1; RFC 7521 §4.2; RFC 7523 §2.2.
    fn add_proof(
        &mut self,
        client_id: &str,
        proof: &ClientProof,
        audience: &str,
        now: Timestamp,
    ) -> Result<(), TokenFault> {
        match proof {
            ClientProof::Secret(file) => {
                let secret = secret(file, CLIENT_SECRET)?;
                self.add_secret("client_secret", &secret);
            }
            ClientProof::Certificate(files) => {
                let key = AssertionKey::of_client(files).map_err(boxed)?;
                let assertion = key.client_assertion(client_id, audience, now)?;
                self.form
                    .add("client_assertion_type", CLIENT_ASSERTION_TYPE);
                self.add_secret("client_assertion", &assertion);
            }
        }
        Ok(())
    }

    fn add_scope(&mut self, settings: &TokenSettings) {
        if let Some(scope) = &settings.scope {
            self.form.add("scope", scope);
        }
    }
}

const CLIENT_SECRET: &str = "a client secret";
const REFRESH_TOKEN: &str = "a refresh token";

fn secret(file: &Located<PathBuf>, what: &str) -> Result<Zeroizing<String>, TokenFault> {
    read_secret(file, what).map_err(boxed)
}

fn boxed(fault: Fault) -> TokenFault {
    TokenFault::Secret(Box::new(fault))
}

/// Reads all files of the settings once, for the start and `gatepost check`. Returns warnings about
/// them. This blocks.
///
/// # Errors
/// The faults of the files.
pub fn check_token_files(settings: &TokenSettings) -> Result<Vec<Fault>, Vec<Fault>> {
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    let mut secret = |file: &Located<PathBuf>, what| {
        faults.extend(read_secret(file, what).err());
        warnings.extend(secret_warning(file, what));
    };
    let proof = match &settings.grant {
        TokenGrant::ClientCredentials { proof, .. } => Some(proof),
        TokenGrant::RefreshToken {
            proof,
            refresh_token_file,
            ..
        } => {
            secret(refresh_token_file, REFRESH_TOKEN);
            proof.as_ref()
        }
        TokenGrant::JwtBearer {
            key_file, issuer, ..
        } => {
            match AssertionKey::of_issuer(key_file, issuer) {
                Ok((_, warning)) => warnings.extend(warning),
                Err(fault) => faults.push(fault),
            }
            warnings.extend(key_file_warning(key_file));
            None
        }
    };
    match proof {
        Some(ClientProof::Secret(file)) => {
            faults.extend(read_secret(file, CLIENT_SECRET).err());
            warnings.extend(secret_warning(file, CLIENT_SECRET));
        }
        Some(ClientProof::Certificate(files)) => {
            faults.extend(AssertionKey::of_client(files).err());
            warnings.extend(key_file_warning(&files.key));
        }
        None => {}
    }
    if faults.is_empty() {
        Ok(warnings)
    } else {
        Err(faults)
    }
}
