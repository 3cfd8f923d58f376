//! Handshakes as a client.

use std::sync::Arc;

use rustls::client::{ClientConfig, Resumption, Tls12Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::identity::{ClientIdentity, Identity};
use super::tickets::{OneSession, Tickets};
use super::verifier::Remember;
use super::{Against, HandshakeError, Paths, Seen, TrustAnchors, versions};
use crate::address::Host;
use crate::tls::{Acquaintance, TlsVersion, TlsaSet};

/// What outbound handshakes are made with: the client identity of a connector, if any, and its trust; or
/// what is needed for HTTPS.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// It resumes nothing by itself.
    config: Arc<ClientConfig>,
    /// Of all connectors that show the same identity, or none.
    tickets: Tickets,
    trust: Arc<TrustAnchors>,
    default_trust: Arc<TrustAnchors>,
}

impl ClientTls {
    pub(super) fn new(
        (config, tickets): (Arc<ClientConfig>, Tickets),
        trust: Arc<TrustAnchors>,
        default_trust: Arc<TrustAnchors>,
    ) -> Self {
        Self { config, tickets, trust, default_trust }
    }

    /// Shakes hands as a client; SNI is the name where the hop has one. An earlier session with a server of
    /// that name may be taken up where its acquaintance need not be made anew.
    ///
    /// The caller bounds the time.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &Host,
        acquaintance: Acquaintance,
    ) -> Result<(TlsStream<S>, Seen), HandshakeError> {
        let name = match name {
            Host::Domain(domain) => ServerName::try_from(domain.as_str().to_owned())
                .map_err(|_| HandshakeError(format!("{domain} cannot be the name of a TLS server")))?,
            // An address is no SNI (RFC 6066 §3): rustls sends none then.
            Host::Literal(address) => ServerName::IpAddress((*address).into()),
        };
        let (config, session) = match acquaintance {
            Acquaintance::Made => (Arc::clone(&self.config), None),
            Acquaintance::Renewed => {
                let session = self.tickets.for_one_session();
                (self.resuming(Arc::clone(&session)), Some(session))
            }
        };
        let stream = TlsConnector::from(config).connect(name.clone(), stream).await.map_err(|error| {
            self.tickets.forget(&name);
            HandshakeError::of(&error)
        })?;
        let seen = Seen::of(stream.get_ref().1)?;
        if let (Some(session), true) = (session, seen.is_proved()) {
            session.admit();
        }
        Ok((stream, seen))
    }

    /// The settings of one handshake that takes a session up where it can.
    fn resuming(&self, session: Arc<OneSession>) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::store(session).tls12_resumption(Tls12Resumption::Disabled);
        Arc::new(config)
    }

    /// The same trust and no identity, for HTTPS: the protocol is named in the handshake (ALPN,
    /// RFC 7301), so that the host speaks HTTP/1.1 or nothing.
    pub(super) fn for_https(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (trust, default_trust) = (Arc::clone(&self.trust), Arc::clone(&self.default_trust));
        Self { config: Arc::new(config), tickets: self.tickets.clone(), trust, default_trust }
    }

    /// What this connector's peers are held against, all of it; `tlsa` beside it, where their host has any.
    #[must_use]
    pub fn against<'a>(&'a self, tlsa: Option<&'a Arc<TlsaSet>>) -> Against<'a> {
        let paths = Paths { connector: true, default: true };
        Against { trust: &self.trust, default_trust: &self.default_trust, tlsa, paths }
    }
}

/// The settings of handshakes as a client. They are the same for all connectors without an identity.
pub(super) fn config(
    provider: &Arc<CryptoProvider>,
    oldest: TlsVersion,
    identity: Option<&Arc<Identity>>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions(oldest))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Remember::new()));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(ClientIdentity(Arc::clone(identity)))),
        None => builder.with_no_client_auth(),
    };
    // Whoever may take a session up brings the tickets for it.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
