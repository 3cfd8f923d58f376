//! Handshakes as a client.

use std::sync::Arc;

use rustls::client::{ClientConfig, Resumption, Tls12Resumption};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::curves::{CURVES, SCHEMES};
use super::identity::{ClientIdentity, Identity};
use super::tickets::{OneSession, Tickets};
use super::verifier::Remember;
use super::{Against, HandshakeError, Paths, Seen, TrustAnchors, versions};
use crate::address::Host;
use crate::tls::{Groups, Handshake, Hello, Strength, TlsVersion, TlsaSet};

/// What outbound handshakes are made with: the client identity of a connector, if any, and its trust; or
/// what is needed for HTTPS.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// Those of all connectors that show the same identity, or none.
    offers: Offers,
    trust: Arc<TrustAnchors>,
    default_trust: Arc<TrustAnchors>,
}

impl ClientTls {
    pub(super) fn new(offers: Offers, trust: Arc<TrustAnchors>, default_trust: Arc<TrustAnchors>) -> Self {
        Self { offers, trust, default_trust }
    }

    /// Makes a handshake as a client, with this `ClientHello`; SNI is the name where the hop has one. An earlier
    /// session with a server of that name may be resumed where no certificate is demanded.
    ///
    /// The caller bounds the time.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &Host,
        hello: Hello,
        handshake: Handshake,
    ) -> Result<(TlsStream<S>, Seen), HandshakeError> {
        let name = match name {
            Host::Domain(domain) => ServerName::try_from(domain.as_str().to_owned())
                .map_err(|_| HandshakeError::Failed(format!("{domain} cannot be the name of a TLS server")))?,
            // An address is no SNI (RFC 6066 §3): rustls sends none then.
            Host::Literal(address) => ServerName::IpAddress((*address).into()),
        };
        let offer = self.offers.of(hello.groups);
        let session = match handshake {
            Handshake::Full => None,
            Handshake::Resumed => Some(offer.tickets.for_one_session()),
        };
        let config = offer.config(hello, session.as_ref());
        let stream = TlsConnector::from(config).connect(name.clone(), stream).await.map_err(|error| {
            offer.tickets.forget(&name);
            HandshakeError::of(&error)
        })?;
        let seen = Seen::of(stream.get_ref().1)?;
        if let (Some(session), true) = (session, seen.is_proved()) {
            session.admit();
        }
        Ok((stream, seen))
    }

    /// The same trust and no identity, for HTTPS: the protocol is named in the handshake (ALPN,
    /// RFC 7301), so that the host speaks HTTP/1.1 or nothing.
    pub(super) fn for_https(&self) -> Self {
        let Self { offers, trust, default_trust } = self.clone();
        let speaking_http = |mut offer: Offer| {
            let mut config = ClientConfig::clone(&offer.config);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            offer.config = Arc::new(config);
            offer
        };
        let offers = Offers {
            post_quantum_first: speaking_http(offers.post_quantum_first),
            classical: speaking_http(offers.classical),
            classical_all_curves: speaking_http(offers.classical_all_curves),
            post_quantum_only: speaking_http(offers.post_quantum_only),
        };
        Self { offers, trust, default_trust }
    }

    /// What this connector's peers are held against, all of it; `tlsa` beside it, where their host has any.
    #[must_use]
    pub fn against<'a>(&'a self, tlsa: Option<&'a Arc<TlsaSet>>) -> Against<'a> {
        let paths = Paths { connector: true, default: true };
        Against { trust: &self.trust, default_trust: &self.default_trust, tlsa, paths }
    }
}

/// The settings of handshakes as a client, for each set of key exchange groups. They are the same for all connectors
/// without an identity.
#[derive(Debug, Clone)]
pub(super) struct Offers {
    post_quantum_first: Offer,
    classical: Offer,
    classical_all_curves: Offer,
    post_quantum_only: Offer,
}

impl Offers {
    pub(super) fn new(
        provider: &CryptoProvider,
        oldest: TlsVersion,
        identity: Option<&Arc<Identity>>,
    ) -> Result<Self, rustls::Error> {
        let strength = |group: &&'static dyn SupportedKxGroup| {
            group.name().as_str().map_or(Strength::Classical, Strength::of_group)
        };
        let only = |wanted: Strength| {
            provider.kx_groups.iter().copied().filter(|group| strength(group) == wanted).collect::<Vec<_>>()
        };
        let (hybrid, classical) = (only(Strength::PostQuantum), only(Strength::Classical));
        let offer = |kx_groups, oldest, verifier| {
            Offer::new(CryptoProvider { kx_groups, ..provider.clone() }, oldest, verifier, identity)
        };
        Ok(Self {
            post_quantum_first: offer([&hybrid[..], &classical].concat(), oldest, Remember::new())?,
            classical_all_curves: offer([&classical[..], &CURVES].concat(), oldest, Remember::listing(&SCHEMES))?,
            classical: offer(classical, oldest, Remember::new())?,
            // No older version knows hybrids.
            post_quantum_only: offer(hybrid, TlsVersion::V1_3, Remember::new())?,
        })
    }

    fn of(&self, groups: Groups) -> &Offer {
        match groups {
            Groups::PostQuantumFirst => &self.post_quantum_first,
            Groups::Classical => &self.classical,
            Groups::ClassicalAllCurves => &self.classical_all_curves,
            Groups::PostQuantumOnly => &self.post_quantum_only,
        }
    }
}

/// The settings of handshakes with one set of groups.
#[derive(Debug, Clone)]
struct Offer {
    /// It resumes nothing by itself.
    config: Arc<ClientConfig>,
    /// Of this set alone: they keep the group that each server chose, and it is offered first the next time.
    tickets: Tickets,
}

impl Offer {
    fn new(
        provider: CryptoProvider,
        oldest: TlsVersion,
        verifier: Remember,
        identity: Option<&Arc<Identity>>,
    ) -> Result<Self, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions(oldest))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(ClientIdentity(Arc::clone(identity)))),
            None => builder.with_no_client_auth(),
        };
        // A handshake that may resume a session brings the tickets for it.
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), tickets: Tickets::new() })
    }

    /// The settings of one handshake, which resumes a session where it has a ticket for it.
    fn config(&self, hello: Hello, session: Option<&Arc<OneSession>>) -> Arc<ClientConfig> {
        if hello.sni && session.is_none() {
            return Arc::clone(&self.config);
        }
        let mut config = ClientConfig::clone(&self.config);
        config.enable_sni = hello.sni;
        if let Some(session) = session {
            let store = Resumption::store(Arc::clone(session) as _);
            config.resumption = store.tls12_resumption(Tls12Resumption::Disabled);
        }
        Arc::new(config)
    }
}
