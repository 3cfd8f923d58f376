//! Handshakes as a client.

use std::sync::Arc;

use rustls::client::{ClientConfig, Resumption, Tls12Resumption};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::curves::{CURVES, SCHEMES};
use super::identity::{ClientIdentity, TlsIdentity};
use super::tickets::{SessionTickets, Tickets};
use super::verifier::RecordingVerifier;
use super::{ChainChecks, CompletedHandshake, HandshakeError, PathChecks, TrustAnchors, versions};
use crate::net::revocation::CrlFile;
use crate::policy::tls::{Groups, Handshake, Hello, Strength, TlsVersion, TlsaSet};
use crate::smtp::address::Host;

/// The settings of outbound handshakes: the connector's client identity and trust anchors. HTTPS
/// has settings of its own.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// The configurations of rustls, shared by all connectors with the same identity, or without
    /// one.
    configs: ClientConfigs,
    trust: Arc<TrustAnchors>,
    default_trust: Arc<TrustAnchors>,
    crl: Arc<[Arc<CrlFile>]>,
}

impl ClientTls {
    pub(super) fn new(
        configs: ClientConfigs,
        trust: Arc<TrustAnchors>,
        default_trust: Arc<TrustAnchors>,
        crl: Arc<[Arc<CrlFile>]>,
    ) -> Self {
        Self {
            configs,
            trust,
            default_trust,
            crl,
        }
    }

    /// Performs a handshake as a client, with this `ClientHello`. SNI is `name`, unless that is an
    /// address. With [`Handshake::Resumed`] an earlier session with the same server may be resumed.
    ///
    /// The caller limits the time.
    ///
    /// # Errors
    /// [`HandshakeError`].
    // Rule: RFC 8461 §7.1.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &Host,
        hello: Hello,
        handshake: Handshake,
    ) -> Result<(TlsStream<S>, CompletedHandshake), HandshakeError> {
        let name = match name {
            Host::Domain(domain) => {
                ServerName::try_from(domain.as_str().to_owned()).map_err(|_| {
                    HandshakeError::Failed(format!("{domain} cannot be the name of a TLS server"))
                })?
            }
            // An address cannot be sent as SNI (RFC 6066 §3); rustls then sends none.
            Host::Literal(address) => ServerName::IpAddress((*address).into()),
        };
        let group_config = self.configs.for_groups(hello.groups);
        let session = match handshake {
            Handshake::Full => None,
            Handshake::Resumed => Some(group_config.tickets.for_one_session()),
        };
        let config = group_config.config(hello, session.as_ref());
        let stream = TlsConnector::from(config)
            .connect(name.clone(), stream)
            .await
            .map_err(|error| {
                group_config.tickets.forget(&name);
                HandshakeError::of(&error)
            })?;
        let completed = CompletedHandshake::of(stream.get_ref().1)?;
        if let (Some(session), true) = (session, completed.is_proved()) {
            session.admit();
        }
        Ok((stream, completed))
    }

    /// Returns the same trust anchors without an identity, for HTTPS. The protocol is negotiated by
    /// ALPN (RFC 7301), so that the host speaks HTTP/1.1 or the handshake fails.
    pub(super) fn for_https(&self) -> Self {
        let Self {
            configs,
            trust,
            default_trust,
            crl,
        } = self.clone();
        let with_http_alpn = |mut group_config: GroupConfig| {
            let mut config = ClientConfig::clone(&group_config.config);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            group_config.config = Arc::new(config);
            group_config
        };
        let configs = ClientConfigs {
            post_quantum_first: with_http_alpn(configs.post_quantum_first),
            classical: with_http_alpn(configs.classical),
            classical_all_curves: with_http_alpn(configs.classical_all_curves),
            post_quantum_only: with_http_alpn(configs.post_quantum_only),
        };
        Self {
            configs,
            trust,
            default_trust,
            crl,
        }
    }

    /// Returns all checks except revocation for peers of this connector. `tlsa` holds the TLSA records of the host,
    /// if it has any.
    #[must_use]
    pub fn checks<'a>(&'a self, tlsa: Option<&'a Arc<TlsaSet>>) -> ChainChecks<'a> {
        let paths = PathChecks {
            connector: true,
            default: true,
            revocation: false,
        };
        ChainChecks {
            trust: &self.trust,
            default_trust: &self.default_trust,
            crl: &self.crl,
            points: None,
            tlsa,
            paths,
        }
    }
}

/// The client configurations of rustls, one for each set of key exchange groups. All connectors
/// without an identity share them.
#[derive(Debug, Clone)]
pub(super) struct ClientConfigs {
    post_quantum_first: GroupConfig,
    classical: GroupConfig,
    classical_all_curves: GroupConfig,
    post_quantum_only: GroupConfig,
}

impl ClientConfigs {
    pub(super) fn new(
        provider: &CryptoProvider,
        oldest: TlsVersion,
        identity: Option<&Arc<TlsIdentity>>,
    ) -> Result<Self, rustls::Error> {
        let strength = |group: &&'static dyn SupportedKxGroup| {
            group
                .name()
                .as_str()
                .map_or(Strength::Classical, Strength::of_group)
        };
        let only = |wanted: Strength| {
            provider
                .kx_groups
                .iter()
                .copied()
                .filter(|group| strength(group) == wanted)
                .collect::<Vec<_>>()
        };
        let (hybrid, classical) = (only(Strength::PostQuantum), only(Strength::Classical));
        let group_config = |kx_groups, oldest, verifier| {
            GroupConfig::new(
                CryptoProvider {
                    kx_groups,
                    ..provider.clone()
                },
                oldest,
                verifier,
                identity,
            )
        };
        Ok(Self {
            post_quantum_first: group_config(
                [&hybrid[..], &classical].concat(),
                oldest,
                RecordingVerifier::new(),
            )?,
            classical_all_curves: group_config(
                [&classical[..], &CURVES].concat(),
                oldest,
                RecordingVerifier::listing(&SCHEMES),
            )?,
            classical: group_config(classical, oldest, RecordingVerifier::new())?,
            // Older versions have no hybrid groups.
            post_quantum_only: group_config(hybrid, TlsVersion::V1_3, RecordingVerifier::new())?,
        })
    }

    fn for_groups(&self, groups: Groups) -> &GroupConfig {
        match groups {
            Groups::PostQuantumFirst => &self.post_quantum_first,
            Groups::Classical => &self.classical,
            Groups::ClassicalAllCurves => &self.classical_all_curves,
            Groups::PostQuantumOnly => &self.post_quantum_only,
        }
    }
}

/// The configuration for one set of groups.
#[derive(Debug, Clone)]
struct GroupConfig {
    /// The base configuration, which resumes no sessions.
    config: Arc<ClientConfig>,
    /// The tickets for this set of groups. They include the group that each server chose, which is
    /// offered first the next time.
    tickets: Tickets,
}

impl GroupConfig {
    fn new(
        provider: CryptoProvider,
        oldest: TlsVersion,
        verifier: RecordingVerifier,
        identity: Option<&Arc<TlsIdentity>>,
    ) -> Result<Self, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions(oldest))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(ClientIdentity(Arc::clone(identity))))
            }
            None => builder.with_no_client_auth(),
        };
        // The session tickets are set for each handshake that may resume a session.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            tickets: Tickets::new(),
        })
    }

    /// Returns the configuration for one handshake. With `session` it may resume an earlier
    /// session.
    fn config(&self, hello: Hello, session: Option<&Arc<SessionTickets>>) -> Arc<ClientConfig> {
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
