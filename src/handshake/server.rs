//! Handshakes as a server.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::identity::ServerIdentities;
use super::offer::{self, Recorded};
use super::verifier::Remember;
use super::{HandshakeError, Seen, versions};
use crate::tls::TlsVersion;

/// The protocols that a client may offer by ALPN (RFC 7301), as Exim has them. One that offers others alone is a browser,
/// whatever port it was led to: its handshake fails (ALPACA). One that offers nothing is a mail server.
const PROTOCOLS: [&[u8]; 2] = [b"smtp", b"esmtp"];

/// The settings of handshakes as a server: without and with a request for the client's certificate.
#[derive(Debug)]
pub(super) struct ServerTls {
    /// It asks for no certificate, so a resumed session lacks none.
    plain: ArcSwap<ServerConfig>,
    asking: Arc<ServerConfig>,
    /// The cipher suites that are accepted.
    suites: Vec<u16>,
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
        let verifier = Arc::new(Remember::new());
        let mut plain = builder()?.with_no_client_auth().with_cert_resolver(identities.clone());
        let mut asking = builder()?.with_client_cert_verifier(verifier).with_cert_resolver(identities);
        plain.ticketer = aws_lc_rs::Ticketer::new()?;
        plain.send_tls13_tickets = 1;
        // A resumed session would keep the client certificate of an earlier hour.
        asking.send_tls13_tickets = 0;
        for config in [&mut plain, &mut asking] {
            // The strongest suite that both sides have, whatever a client would rather use.
            config.ignore_client_order = true;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        }
        let suites = provider.cipher_suites.iter().map(|suite| suite.suite().into()).collect();
        Ok(Self { plain: ArcSwap::from_pointee(plain), asking: Arc::new(asking), suites })
    }

    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        request_client_certificate: bool,
    ) -> Result<(TlsStream<Recorded<S>>, Seen), HandshakeError> {
        let config = if request_client_certificate { Arc::clone(&self.asking) } else { self.plain.load_full() };
        let accepting = TlsAcceptor::from(config).accept(Recorded::new(stream)).into_fallible();
        let mut stream = accepting.await.map_err(|(error, recorded)| {
            HandshakeError::of_client(&error, || offer::reason(recorded.first(), &self.suites))
        })?;
        stream.get_mut().0.forget();
        let seen = Seen::of(stream.get_ref().1)?;
        Ok((stream, seen))
    }

    /// No ticket given so far counts any more: whoever comes again sees the certificate of today.
    pub(super) fn void_tickets(&self) {
        let mut plain = ServerConfig::clone(&self.plain.load());
        match aws_lc_rs::Ticketer::new() {
            Ok(ticketer) => {
                plain.ticketer = ticketer;
                self.plain.store(Arc::new(plain));
            }
            Err(error) => tracing::warn!(
                %error,
                "clients may resume sessions that began under the old certificate, for 12 hours at most"
            ),
        }
    }
}
