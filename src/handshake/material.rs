//! Everything that TLS needs of one configuration: loaded once, shared by every connection.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::client::Offers;
use super::identity::{Identity, ServerIdentities};
use super::server::ServerTls;
use super::{ClientTls, HandshakeError, IdentitySummary, Recorded, Seen, TrustAnchors, pem};
use crate::config::{Config, Connector, Fault, IdentityFiles, Located, OwnTls, Trust};
use crate::tls::NamePattern;

/// Everything that TLS needs of one configuration, loaded and checked.
#[derive(Debug)]
pub struct Material {
    provider: Arc<CryptoProvider>,
    /// `None` where the configuration has no certificate, and so no listener that offers TLS.
    server: Option<ServerTls>,
    identities: Vec<Arc<Identity>>,
    /// By connector name.
    clients: HashMap<String, ClientTls>,
    default_client: ClientTls,
    https: ClientTls,
}

impl Material {
    /// Loads certificates, keys and trust anchors. With the material come warnings (a key that others
    /// can read, a certificate that has expired or soon will).
    ///
    /// # Errors
    /// Every fault of every file, each at its place in the configuration.
    pub fn load(config: &Config) -> Result<(Arc<Self>, Vec<Fault>), Vec<Fault>> {
        let mut loader = Loader::new(&config.tls);
        let server = loader.server(config);
        let default_client = loader.client(&config.tls.trust, None);
        let clients: HashMap<_, _> = config
            .connectors
            .iter()
            .filter_map(|connector| {
                let client = loader.client(&connector.trust, connector.outbound.client_identity.as_ref())?;
                Some((connector.name.clone(), client))
            })
            .collect();
        let Loader { provider, identities, mut warnings, mut faults, .. } = loader;
        // By place, as they are read; two uses of one place need not say it twice.
        faults.sort();
        faults.dedup();
        warnings.sort();
        warnings.dedup();
        match default_client {
            Some(default_client) if faults.is_empty() => {
                let https = default_client.for_https();
                Ok((Arc::new(Self { provider, server, identities, clients, default_client, https }), warnings))
            }
            _ => Err(faults),
        }
    }

    /// What HTTPS requests are made with, and nothing else: for commands, which may not read our keys.
    ///
    /// # Errors
    /// Every fault of `[tls] trust`.
    pub fn load_https(tls: &OwnTls) -> Result<ClientTls, Vec<Fault>> {
        let mut loader = Loader::new(tls);
        let client = loader.client(&tls.trust, None);
        client.map(|client| client.for_https()).ok_or(loader.faults)
    }

    /// What a connector brings. The connector must be one of the configuration this was loaded from
    /// or its built-in default.
    #[must_use]
    pub fn client(&self, connector: &Connector) -> &ClientTls {
        self.clients.get(&connector.name).unwrap_or(&self.default_client)
    }

    /// What HTTPS requests are made with: `[tls] trust`, and no identity of ours.
    #[must_use]
    pub fn https(&self) -> &ClientTls {
        &self.https
    }

    /// Shakes hands as a server. The caller bounds the time.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        request_client_certificate: bool,
    ) -> Result<(TlsStream<Recorded<S>>, Seen), HandshakeError> {
        match &self.server {
            Some(server) => server.accept(stream, request_client_certificate).await,
            None => Err(HandshakeError::Failed("we have no certificate: [tls] names none".to_owned())),
        }
    }

    /// Our own identities, for `gatepost check`: as server first, then those that connectors show.
    #[must_use]
    pub fn identities(&self) -> Vec<IdentitySummary> {
        let mut all: Vec<IdentitySummary> = Vec::new();
        for summary in self.identities.iter().map(|identity| identity.summary()) {
            if !all.contains(&summary) {
                all.push(summary);
            }
        }
        all
    }

    /// Re-reads our own certificates whose files have changed; a file that is bad is reported and the
    /// old identity stays in force. Returns what was replaced.
    ///
    /// This reads files: it is not for a thread that drives other tasks.
    ///
    /// # Errors
    /// Every fault, each at its place in the configuration. The other identities are replaced all the
    /// same.
    pub fn refresh(&self) -> Result<Vec<IdentitySummary>, Vec<Fault>> {
        let (mut replaced, mut faults) = (Vec::new(), Vec::new());
        for identity in &self.identities {
            match identity.refresh(&self.provider) {
                Ok(summary) => replaced.extend(summary),
                Err(bad) => faults.extend(bad),
            }
        }
        if let (Some(server), false) = (&self.server, replaced.is_empty()) {
            server.void_tickets();
        }
        if faults.is_empty() { Ok(replaced) } else { Err(faults) }
    }
}

/// Gathers material and faults; what is named twice is loaded once.
struct Loader<'a> {
    tls: &'a OwnTls,
    provider: Arc<CryptoProvider>,
    now: Timestamp,
    identities: Vec<Arc<Identity>>,
    /// `None` where it could not be loaded, which has been reported.
    trusts: HashMap<Trust, Option<Arc<TrustAnchors>>>,
    anonymous: Option<Offers>,
    warnings: Vec<Fault>,
    faults: Vec<Fault>,
}

impl<'a> Loader<'a> {
    fn new(tls: &'a OwnTls) -> Self {
        Self {
            tls,
            provider: Arc::new(aws_lc_rs::default_provider()),
            now: Timestamp::now(),
            identities: Vec::new(),
            trusts: HashMap::new(),
            anonymous: None,
            warnings: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn server(&mut self, config: &Config) -> Option<ServerTls> {
        let default = self.tls.identity.as_ref().and_then(|files| self.identity(files, &[]));
        if let Some(identity) = &default {
            self.warnings.extend(identity.warn_unless_carries(&config.hostname));
        }
        let mut identities = ServerIdentities::new(default);
        for sni in &self.tls.sni {
            if let Some(identity) = self.identity(&sni.files, &sni.names) {
                identities.add(&sni.names, &identity);
            }
        }
        if identities.is_empty() {
            return None;
        }
        match ServerTls::new(&self.provider, self.tls.min_version, identities) {
            Ok(server) => Some(server),
            Err(error) => self.refused_by_rustls(&error),
        }
    }

    fn client(&mut self, trust: &Located<Trust>, files: Option<&IdentityFiles>) -> Option<ClientTls> {
        // Both are loaded before either can end this, so that the faults of both are reported.
        let trust = self.trust(trust);
        let config = match files {
            Some(files) => {
                let identity = self.identity(files, &[]);
                identity.and_then(|identity| self.client_config(Some(&identity)))
            }
            None => self.anonymous(),
        };
        // What it has to say about faults has been said when it was loaded for the default.
        let default_trust = self.trust(&self.tls.trust);
        Some(ClientTls::new(config?, trust?, default_trust?))
    }

    fn anonymous(&mut self) -> Option<Offers> {
        if self.anonymous.is_none() {
            self.anonymous = self.client_config(None);
        }
        self.anonymous.clone()
    }

    fn client_config(&mut self, identity: Option<&Arc<Identity>>) -> Option<Offers> {
        match Offers::new(&self.provider, self.tls.min_version, identity) {
            Ok(offers) => Some(offers),
            Err(error) => self.refused_by_rustls(&error),
        }
    }

    fn identity(&mut self, files: &IdentityFiles, must_carry: &[NamePattern]) -> Option<Arc<Identity>> {
        match Identity::load(files, must_carry, &self.provider) {
            Ok(identity) => {
                self.warnings.extend(identity.warnings(self.now));
                let identity = Arc::new(identity);
                self.identities.push(Arc::clone(&identity));
                Some(identity)
            }
            Err(faults) => {
                self.faults.extend(faults);
                None
            }
        }
    }

    fn trust(&mut self, trust: &Located<Trust>) -> Option<Arc<TrustAnchors>> {
        if let Some(known) = self.trusts.get(&trust.value) {
            return known.clone();
        }
        let loaded = match TrustAnchors::load(trust, &self.provider, self.now) {
            Ok((anchors, warnings)) => {
                self.warnings.extend(warnings);
                Some(Arc::new(anchors))
            }
            Err(faults) => {
                self.faults.extend(faults);
                None
            }
        };
        self.trusts.insert(trust.value.clone(), loaded.clone());
        loaded
    }

    /// The provider and the versions are ours, so rustls has no ground to refuse them; were it to, it
    /// would be reported as a fault of `[tls]`.
    fn refused_by_rustls<T>(&mut self, error: &rustls::Error) -> Option<T> {
        self.faults.push(pem::fault(
            &self.tls.trust.place,
            format!("TLS cannot be set up: {error}"),
            "Report this as a defect of Gatepost.",
        ));
        None
    }
}
