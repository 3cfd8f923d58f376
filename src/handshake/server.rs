//! Handshakes as a server.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::ServerIdentities;
use super::verifier::Remember;
use super::{HandshakeError, Seen, versions};
use crate::tls::TlsVersion;

/// The settings of handshakes as a server: without and with a request for the client's certificate.
#[derive(Debug)]
pub(super) struct ServerTls {
    plain: Arc<ServerConfig>,
    asking: Arc<ServerConfig>,
}

impl ServerTls {
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        oldest: TlsVersion,
        identities: ServerIdentities,
    ) -> Result<Self, rustls::Error> {
        let identities = Arc::new(identities);
        let builder =
            || ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions(oldest));
        let verifier = Arc::new(Remember(provider.signature_verification_algorithms));
        let plain = builder()?.with_no_client_auth().with_cert_resolver(identities.clone());
        let asking = builder()?.with_client_cert_verifier(verifier).with_cert_resolver(identities);
        Ok(Self { plain: without_resumption(plain), asking: without_resumption(asking) })
    }

    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        request_client_certificate: bool,
    ) -> Result<(TlsStream<S>, Seen), HandshakeError> {
        let config = if request_client_certificate { &self.asking } else { &self.plain };
        let stream =
            TlsAcceptor::from(Arc::clone(config)).accept(stream).await.map_err(|error| HandshakeError::of(&error))?;
        let seen = Seen::of(stream.get_ref().1)?;
        Ok((stream, seen))
    }
}

/// A resumed session would keep the client certificate of an earlier day.
fn without_resumption(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}
