//! TLS handshakes, either way: rustls with verifiers that remember instead of judging.
//!
//! A handshake here succeeds with whatever certificate the peer shows, as long as the peer proves to
//! hold its key; whether that satisfies anybody is for [`crate::tls::judge`] to say, over the
//! [`TlsFacts`] that [`Seen::facts`] makes. Identities and trust anchors are loaded, and re-read, here.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{client, server};

use crate::address::Host;
use crate::config::{Config, Connector, Fault};
use crate::tls::TlsFacts;

/// Why a handshake did not complete, in words for people: what rustls or the network said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandshakeError(pub String);

/// Trust anchors, loaded.
#[derive(Debug)]
pub struct TrustAnchors;

/// Whose certificate is looked at: it must allow this use (RFC 5280 §4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A server's, seen by us as client.
    Server,
    /// A client's, seen by us as server.
    Client,
}

/// What a completed handshake showed.
#[derive(Debug, Clone)]
pub struct Seen;

impl Seen {
    /// Holds what was shown against trust anchors.
    #[must_use]
    pub fn facts(&self, _trust: &TrustAnchors, _role: Role, _now: Timestamp) -> TlsFacts {
        todo!()
    }
}

/// What one connector brings to outbound handshakes: the client identity, if any, and its trust.
#[derive(Debug)]
pub struct ClientTls;

impl ClientTls {
    /// Shakes hands as a client; SNI is the name where the hop has one. No session is ever resumed.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        _stream: S,
        _name: &Host,
    ) -> Result<(client::TlsStream<S>, Seen), HandshakeError> {
        todo!()
    }

    /// What this connector's peers are held against.
    #[must_use]
    pub fn trust(&self) -> &TrustAnchors {
        todo!()
    }
}

/// Everything that TLS needs of one configuration, loaded and checked.
#[derive(Debug)]
pub struct Material;

impl Material {
    /// Loads certificates, keys and trust anchors. With the material come warnings (a key that others
    /// can read, a certificate that has expired or soon will).
    ///
    /// # Errors
    /// Every fault of every file, each at its place in the configuration.
    pub fn load(_config: &Config) -> Result<(Arc<Self>, Vec<Fault>), Vec<Fault>> {
        todo!()
    }

    /// What a connector brings. The connector must be one of the configuration this was loaded from
    /// or its built-in default.
    #[must_use]
    pub fn client(&self, _connector: &Connector) -> &ClientTls {
        todo!()
    }

    /// Shakes hands as a server.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        _stream: S,
        _request_client_certificate: bool,
    ) -> Result<(server::TlsStream<S>, Seen), HandshakeError> {
        todo!()
    }

    /// Our own identities, for `gatepost check`.
    #[must_use]
    pub fn identities(&self) -> Vec<IdentitySummary> {
        todo!()
    }

    /// Re-reads our own certificates whose files have changed; a file that is bad is reported and the
    /// old identity stays in force. Returns what was replaced.
    ///
    /// # Errors
    /// Every fault, each at its place in the configuration.
    pub fn refresh(&self) -> Result<Vec<IdentitySummary>, Vec<Fault>> {
        todo!()
    }
}

/// One of our own certificates, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySummary {
    /// Its file.
    pub file: std::path::PathBuf,
    /// Its DNS names.
    pub names: Vec<String>,
    /// When it ends.
    pub not_after: Timestamp,
}
