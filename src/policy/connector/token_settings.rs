//! The settings of OAuth 2.0 access tokens (RFC 6749), as `oauth2` in the `auth` of a connector
//! states them. The secrets stay in their files: only the paths are here.

use std::path::PathBuf;

use super::identity_files::{IdentityFiles, TrustSource};
use crate::policy::https_url::Url;
use crate::policy::location::{Located, Location};

/// The `oauth2` table: how access tokens for a login at a smart host are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    /// The location of the table.
    pub location: Location,
    /// The token endpoint (RFC 6749 §3.2).
    pub token_url: Located<Url>,
    /// The trust anchors for its certificate; `None` for those of `[tls]`.
    pub trust: Option<Located<TrustSource>>,
    /// The scope that is asked for (RFC 6749 §3.3); `None` for the server's default.
    pub scope: Option<String>,
    /// The grant.
    pub grant: TokenGrant,
}

/// `grant`: what a token is given for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenGrant {
    /// `"client_credentials"`: the client itself (RFC 6749 §4.4).
    ClientCredentials {
        /// The name of the client.
        client_id: String,
        /// Its proof.
        proof: ClientProof,
    },
    /// `"refresh_token"`: a user who has once agreed (RFC 6749 §6).
    RefreshToken {
        /// The name of the client.
        client_id: String,
        /// Its proof; `None` for a public client.
        proof: Option<ClientProof>,
        /// The file of the first refresh token. The server may replace the token with each use.
        refresh_token_file: Located<PathBuf>,
    },
    /// `"jwt_bearer"`: an assertion about a user (RFC 7523 §2.1).
    JwtBearer {
        /// The file of the key that signs: PEM, or the JSON file of a Google service account.
        key_file: Located<PathBuf>,
        /// The name of the signer, such as a service account.
        issuer: String,
        /// The user that the token is for.
        subject: String,
    },
}

/// The proof that a client is who it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientProof {
    /// A secret, in this file (RFC 6749 §2.3.1).
    Secret(Located<PathBuf>),
    /// A signature with the key of a certificate that the server knows (RFC 7523 §2.2).
    Certificate(IdentityFiles),
}

impl TokenGrant {
    /// Returns the name of the grant in a configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ClientCredentials { .. } => "client_credentials",
            Self::RefreshToken { .. } => "refresh_token",
            Self::JwtBearer { .. } => "jwt_bearer",
        }
    }
}
