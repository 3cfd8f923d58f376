//! Handshakes as a server.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client_hello::{self, RecordedStream};
use super::identity::ServerIdentities;
use super::verifier::RecordingVerifier;
use super::{CompletedHandshake, HandshakeError, versions};
use crate::policy::tls::TlsVersion;

/// The protocols that a client may offer by ALPN (RFC 7301), as in Exim. If a client offers only
/// others, it is a browser that was redirected to our port (ALPACA), and the handshake fails. A
/// client that offers none is a mail server.
const PROTOCOLS: [&[u8]; 2] = [b"smtp", b"esmtp"];

/// The settings of handshakes as a server, with and without a request for the client's certificate.
#[derive(Debug)]
pub(super) struct ServerTls {
    /// Without a request. Such sessions have no client certificate, so they may be resumed.
    plain: ArcSwap<ServerConfig>,
    requesting: Arc<ServerConfig>,
    /// The accepted cipher suites.
    suites: Vec<u16>,
}

impl ServerTls {
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        oldest: TlsVersion,
        identities: ServerIdentities,
    ) -> Result<Self, rustls::Error> {
        let identities = Arc::new(identities);
        let builder = || {
            ServerConfig::builder_with_provider(Arc::clone(provider))
                .with_protocol_versions(versions(oldest))
        };
        let verifier = Arc::new(RecordingVerifier::new());
        let mut plain = builder()?
            .with_no_client_auth()
            .with_cert_resolver(identities.clone());
        let mut requesting = builder()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(identities);
        plain.ticketer = aws_lc_rs::Ticketer::new()?;
        plain.send_tls13_tickets = 1;
        // A resumed session would keep the client certificate of an earlier session.
        requesting.send_tls13_tickets = 0;
        for config in [&mut plain, &mut requesting] {
            // The server's order decides: the strongest common suite.
            config.ignore_client_order = true;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        }
        let suites = provider
            .cipher_suites
            .iter()
            .map(|suite| suite.suite().into())
            .collect();
        Ok(Self {
            plain: ArcSwap::from_pointee(plain),
            requesting: Arc::new(requesting),
            suites,
        })
    }

    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        request_client_certificate: bool,
    ) -> Result<(TlsStream<RecordedStream<S>>, CompletedHandshake), HandshakeError> {
        let config = if request_client_certificate {
            Arc::clone(&self.requesting)
        } else {
            self.plain.load_full()
        };
        let accepting = TlsAcceptor::from(config)
            .accept(RecordedStream::new(stream))
            .into_fallible();
        let mut stream = accepting.await.map_err(|(error, recorded)| {
            HandshakeError::of_client(&error, || {
                client_hello::reason(recorded.first(), &self.suites)
            })
        })?;
        stream.get_mut().0.forget();
        let completed = CompletedHandshake::of(stream.get_ref().1)?;
        Ok((stream, completed))
    }

    /// Makes all earlier tickets invalid, so that clients see the present certificate.
    pub(super) fn invalidate_tickets(&self) {
        let mut plain = ServerConfig::clone(&self.plain.load());
        match aws_lc_rs::Ticketer::new() {
            Ok(ticketer) => {
                plain.ticketer = ticketer;
                self.plain.store(Arc::new(plain));
            }
            Err(error) => tracing::warn!(
                %error,
                "cannot make new ticket keys; clients may resume sessions with the old certificate for up to 12 hours"
            ),
        }
    }
}
