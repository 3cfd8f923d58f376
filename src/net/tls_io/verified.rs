//! Handshakes with servers of our own (a directory, a database), whose certificate must be trusted
//! and have the name of the host.

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

use super::client::ClientTls;
use super::{CompletedHandshake, HandshakeError, Role};
use crate::policy::tls::{ChainFault, Groups, Handshake, Hello, NamePattern, PeerCertificate};
use crate::smtp::address::Host;

/// The most names of a certificate that an error shows.
const NAMES_SHOWN_MAX: usize = 5;

/// The reason why a server was not proved to be the one that was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnverifiedServer {
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(HandshakeError),
    /// The server has no certificate, or one whose key cannot be checked.
    #[error("the server shows no certificate that can be checked")]
    NoCertificate,
    /// The certificate is not trusted.
    #[error("the certificate is not trusted: {0}")]
    Untrusted(ChainFault),
    /// The certificate is for these other names.
    #[error("the certificate is for {0}")]
    Name(String),
}

impl ClientTls {
    /// Performs a full handshake, and checks that the certificate is trusted and has the name of the
    /// host. An address is no name. The caller limits the time.
    ///
    /// # Errors
    /// [`UnverifiedServer`]; nothing but the handshake was sent then.
    pub async fn connect_verified<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &Host,
        groups: Groups,
    ) -> Result<(TlsStream<S>, CompletedHandshake), UnverifiedServer> {
        let hello = Hello { groups, sni: true };
        let (stream, seen) = self
            .connect(stream, host, hello, Handshake::Full)
            .await
            .map_err(UnverifiedServer::Handshake)?;
        let facts = seen
            .facts(self.checks(None), Role::Server, Timestamp::now())
            .await;
        let PeerCertificate::Certificate(certificate) = facts.certificate else {
            return Err(UnverifiedServer::NoCertificate);
        };
        certificate.chain.map_err(UnverifiedServer::Untrusted)?;
        let wanted = host.domain().cloned().map(NamePattern::Exact);
        let is_named =
            wanted.is_some_and(|wanted| certificate.names.iter().any(|name| wanted.accepts(name)));
        if is_named {
            return Ok((stream, seen));
        }
        let names: Vec<_> = certificate
            .names
            .iter()
            .take(NAMES_SHOWN_MAX)
            .map(ToString::to_string)
            .collect();
        Err(UnverifiedServer::Name(if names.is_empty() {
            "no name".to_owned()
        } else {
            names.join(", ")
        }))
    }
}
