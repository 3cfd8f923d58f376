//! The TLS material of one configuration: loaded once and shared by all connections.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::client::ClientConfigs;
use super::identity::{ServerIdentities, TlsIdentity};
use super::server::ServerTls;
use super::{
    ClientTls, CompletedHandshake, HandshakeError, IdentitySummary, RecordedStream, TrustAnchors,
    pem,
};
use crate::config::{Config, Connector, Fault, IdentityFiles, Located, TlsConfig, TrustSource};
use crate::net::revocation::{CrlFile, CrlFileSummary};
use crate::policy::tls::NamePattern;

/// The certificates, keys and trust anchors of one configuration, loaded and checked.
#[derive(Debug)]
pub struct TlsMaterial {
    provider: Arc<CryptoProvider>,
    /// `None` if the configuration has no certificate, and so no listener that offers TLS.
    server: Option<ServerTls>,
    identities: Vec<Arc<TlsIdentity>>,
    /// The settings by connector name.
    clients: HashMap<String, ClientTls>,
    default_client: ClientTls,
    https: ClientTls,
    /// The CRL files of all connectors.
    crl_files: Vec<Arc<CrlFile>>,
}

impl TlsMaterial {
    /// Loads certificates, keys and trust anchors. Returns warnings with them, such as a key that
    /// others can read, or a certificate that has expired or soon will.
    ///
    /// # Errors
    /// All faults of all files, with their locations in the configuration.
    pub fn load(config: &Config) -> Result<(Arc<Self>, Vec<Fault>), Vec<Fault>> {
        let mut loader = Loader::new(&config.tls);
        let server = loader.server(config);
        let default_client = loader.client(&config.tls.trust, None, &[]);
        let clients: HashMap<_, _> = config
            .connectors
            .iter()
            .filter_map(|connector| {
                let client = loader.client(
                    &connector.trust,
                    connector.outbound.client_identity.as_ref(),
                    &connector.crl,
                )?;
                Some((connector.name.clone(), client))
            })
            .collect();
        let Loader {
            provider,
            identities,
            crl_files,
            mut warnings,
            mut faults,
            ..
        } = loader;
        // Sorted by location. A location that is used twice is reported once.
        faults.sort();
        faults.dedup();
        warnings.sort();
        warnings.dedup();
        match default_client {
            Some(default_client) if faults.is_empty() => {
                let https = default_client.for_https();
                Ok((
                    Arc::new(Self {
                        provider,
                        server,
                        identities,
                        clients,
                        default_client,
                        https,
                        crl_files: crl_files.into_values().flatten().collect(),
                    }),
                    warnings,
                ))
            }
            _ => Err(faults),
        }
    }

    /// Loads the settings for HTTPS alone, for commands that may not read our keys.
    ///
    /// # Errors
    /// All faults of `[tls] trust`.
    pub fn load_https(tls: &TlsConfig) -> Result<ClientTls, Vec<Fault>> {
        let mut loader = Loader::new(tls);
        let client = loader.client(&tls.trust, None, &[]);
        client.map(|client| client.for_https()).ok_or(loader.faults)
    }

    /// Loads the settings for an HTTPS server with these trust anchors. Returns warnings with them.
    ///
    /// # Errors
    /// All faults of the trust anchors.
    pub fn load_https_server(
        tls: &TlsConfig,
        trust: &Located<TrustSource>,
    ) -> Result<(ClientTls, Vec<Fault>), Vec<Fault>> {
        let (client, warnings) = Self::load_directory(tls, trust)?;
        Ok((client.for_https(), warnings))
    }

    /// Loads the settings for a directory server with these trust anchors. Returns warnings with
    /// them.
    ///
    /// # Errors
    /// All faults of the trust anchors.
    pub fn load_directory(
        tls: &TlsConfig,
        trust: &Located<TrustSource>,
    ) -> Result<(ClientTls, Vec<Fault>), Vec<Fault>> {
        let mut loader = Loader::new(tls);
        let client = loader.client(trust, None, &[]);
        match client {
            Some(client) => Ok((client, loader.warnings)),
            None => Err(loader.faults),
        }
    }

    /// Returns the settings of a connector, which must be of the configuration that was loaded, or
    /// its built-in default.
    #[must_use]
    pub fn client(&self, connector: &Connector) -> &ClientTls {
        self.clients
            .get(&connector.name)
            .unwrap_or(&self.default_client)
    }

    /// Returns the settings for HTTPS: `[tls] trust`, and no identity.
    #[must_use]
    pub fn https(&self) -> &ClientTls {
        &self.https
    }

    /// Performs a handshake as a server. The caller limits the time.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        request_client_certificate: bool,
    ) -> Result<(TlsStream<RecordedStream<S>>, CompletedHandshake), HandshakeError> {
        match &self.server {
            Some(server) => server.accept(stream, request_client_certificate).await,
            None => Err(HandshakeError::Failed(
                "[tls] has no certificate".to_owned(),
            )),
        }
    }

    /// Our own identities, for `gatepost check`: those of listeners first, then those of
    /// connectors.
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

    /// The CRLs of files, for `gatepost check` and the status.
    #[must_use]
    pub fn crl_files(&self) -> Vec<CrlFileSummary> {
        let mut all: Vec<_> = self
            .crl_files
            .iter()
            .flat_map(|file| file.summaries())
            .collect();
        all.sort_by(|one, other| one.file.cmp(&other.file));
        all
    }

    /// Reads the CRL files that have changed. Returns the CRLs that are new, and a fault for each
    /// file that is invalid and whose old CRLs stay in use.
    ///
    /// This reads files and blocks.
    #[must_use]
    pub fn refresh_crls(&self) -> (Vec<CrlFileSummary>, Vec<Fault>) {
        let (mut replaced, mut faults) = (Vec::new(), Vec::new());
        for file in &self.crl_files {
            match file.refresh() {
                Ok(new) => replaced.extend(new),
                Err(fault) => faults.push(fault),
            }
        }
        (replaced, faults)
    }

    /// Reloads our own certificates whose files have changed, and returns those that were replaced.
    /// If a file is invalid, it is reported and the old identity stays in use.
    ///
    /// This reads files and blocks.
    ///
    /// # Errors
    /// All faults, with their locations in the configuration. The other identities are replaced
    /// nevertheless.
    pub fn refresh(&self) -> Result<Vec<IdentitySummary>, Vec<Fault>> {
        let (mut replaced, mut faults) = (Vec::new(), Vec::new());
        for identity in &self.identities {
            match identity.refresh(&self.provider) {
                Ok(summary) => replaced.extend(summary),
                Err(bad) => faults.extend(bad),
            }
        }
        if let (Some(server), false) = (&self.server, replaced.is_empty()) {
            server.invalidate_tickets();
        }
        if faults.is_empty() {
            Ok(replaced)
        } else {
            Err(faults)
        }
    }
}

/// Loads material and collects faults. Trust anchors that are named twice are loaded once.
struct Loader<'a> {
    tls: &'a TlsConfig,
    provider: Arc<CryptoProvider>,
    now: Timestamp,
    identities: Vec<Arc<TlsIdentity>>,
    /// `None` if the anchors could not be loaded, which has been reported.
    trusts: HashMap<TrustSource, Option<Arc<TrustAnchors>>>,
    /// `None` if the file could not be loaded, which has been reported.
    crl_files: HashMap<PathBuf, Option<Arc<CrlFile>>>,
    anonymous: Option<ClientConfigs>,
    warnings: Vec<Fault>,
    faults: Vec<Fault>,
}

impl<'a> Loader<'a> {
    fn new(tls: &'a TlsConfig) -> Self {
        Self {
            tls,
            provider: Arc::new(aws_lc_rs::default_provider()),
            now: Timestamp::now(),
            identities: Vec::new(),
            trusts: HashMap::new(),
            crl_files: HashMap::new(),
            anonymous: None,
            warnings: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn server(&mut self, config: &Config) -> Option<ServerTls> {
        let default = self
            .tls
            .identity
            .as_ref()
            .and_then(|files| self.identity(files, &[]));
        if let Some(identity) = &default {
            self.warnings
                .extend(identity.warn_unless_named(&config.hostname));
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
            Err(error) => self.report_rustls_error(&error),
        }
    }

    fn client(
        &mut self,
        trust: &Located<TrustSource>,
        files: Option<&IdentityFiles>,
        crl: &[Located<PathBuf>],
    ) -> Option<ClientTls> {
        // All are loaded before an early return, so that the faults of all are reported.
        let trust = self.trust(trust);
        let crl = crl.iter().filter_map(|file| self.crl_file(file)).collect();
        let config = match files {
            Some(files) => {
                let identity = self.identity(files, &[]);
                identity.and_then(|identity| self.client_configs(Some(&identity)))
            }
            None => self.anonymous(),
        };
        // Its faults were reported when it was loaded as the default.
        let default_trust = self.trust(&self.tls.trust);
        Some(ClientTls::new(config?, trust?, default_trust?, crl))
    }

    fn anonymous(&mut self) -> Option<ClientConfigs> {
        if self.anonymous.is_none() {
            self.anonymous = self.client_configs(None);
        }
        self.anonymous.clone()
    }

    fn client_configs(&mut self, identity: Option<&Arc<TlsIdentity>>) -> Option<ClientConfigs> {
        match ClientConfigs::new(&self.provider, self.tls.min_version, identity) {
            Ok(configs) => Some(configs),
            Err(error) => self.report_rustls_error(&error),
        }
    }

    fn identity(
        &mut self,
        files: &IdentityFiles,
        must_carry: &[NamePattern],
    ) -> Option<Arc<TlsIdentity>> {
        match TlsIdentity::load(files, must_carry, &self.provider) {
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

    fn trust(&mut self, trust: &Located<TrustSource>) -> Option<Arc<TrustAnchors>> {
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

    fn crl_file(&mut self, file: &Located<PathBuf>) -> Option<Arc<CrlFile>> {
        if let Some(known) = self.crl_files.get(&file.value) {
            return known.clone();
        }
        let loaded = match CrlFile::load(file, self.now) {
            Ok((loaded, warnings)) => {
                self.warnings.extend(warnings);
                Some(Arc::new(loaded))
            }
            Err(fault) => {
                self.faults.push(fault);
                None
            }
        };
        self.crl_files.insert(file.value.clone(), loaded.clone());
        loaded
    }

    /// Reports an error of rustls as a fault of `[tls]`. It cannot happen, because we choose the
    /// provider and the versions.
    fn report_rustls_error<T>(&mut self, error: &rustls::Error) -> Option<T> {
        self.faults.push(pem::fault(
            &self.tls.trust.location,
            format!("TLS cannot be set up: {error}"),
            "Report this as a defect of Gatepost.",
        ));
        None
    }
}
