//! Authorities, certificates, configurations and bare rustls peers for the tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gatepost::config::{
    AdminConfig, AdminHttp, AdminSocket, ClientLimits, Config, ConfigSource, Connector, DnsConfig,
    Dnssec, EvidenceConfig, EvidenceLimit, EvidencePath, IdentityFiles, InboundConfig, Limits,
    Located, Location, LogConfig, LogFormat, NetConfig, OnDowngrade, OnFailure, OutboundConfig,
    QueueConfig, RelayConfig, Route, SendReports, Timeouts, TlsConfig, TlsDemand, TlsrptConfig,
    TransactionMemory, TrustAnchor, TrustSource, WarnAfter,
};
use gatepost::net::tls_io::{CompletedHandshake, HandshakeError, Role, TlsMaterial};
use gatepost::policy::tls::{
    ChainFault, Groups, Handshake, Hello, PeerCertificate, Revocation, Strength, TlsVersion,
};
use gatepost::smtp::address::{Domain, Host, Mailbox};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Long enough for any handshake on loopback; only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A certificate chain and the key of its leaf.
pub(crate) struct Pair {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Vec<u8>,
}

impl Pair {
    /// Without the check that the key belongs to the certificate: some tests want a thief.
    pub(crate) fn certified(&self) -> CertifiedKey {
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let key = provider()
            .key_provider
            .load_private_key(der)
            .expect("a key that rcgen made");
        CertifiedKey::new(self.chain.clone(), key)
    }

    /// Writes `NAME.pem` and `NAME.key`, this readable by its owner only.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> IdentityFiles {
        use std::os::unix::fs::PermissionsExt;
        let (certificate, key) = (
            folder.join(format!("{name}.pem")),
            folder.join(format!("{name}.key")),
        );
        let chain: String = self
            .chain
            .iter()
            .map(|der| pem("CERTIFICATE", der))
            .collect();
        std::fs::write(&certificate, chain).expect("the folder is ours");
        std::fs::write(&key, pem("PRIVATE KEY", &self.key)).expect("the folder is ours");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))
            .expect("the file is ours");
        IdentityFiles {
            certificate: at(certificate, 11),
            key: at(key, 12),
        }
    }
}

/// The key of a certificate, as a configuration pins it.
pub(crate) fn key_pin(certificate: &CertificateDer<'_>) -> String {
    let (_, read) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
    let hash = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, read.public_key().raw);
    let hash: [u8; 32] = hash.as_ref().try_into().expect("SHA-256 has 32 octets");
    gatepost::policy::tls::Pin::new(hash).to_string()
}

/// RFC 7468 §2.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    for group in der.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| {
            bits << 8 | u32::from(group.get(at).copied().unwrap_or(0))
        });
        for at in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize] as char;
            base64.push(if at <= group.len() { letter } else { '=' });
        }
    }
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("ASCII"))
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// A certificate authority.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) certificate: CertificateDer<'static>,
    /// The certificates that a host must send after its own.
    above: Vec<CertificateDer<'static>>,
}

pub(crate) fn common_name(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}

impl Authority {
    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    pub(crate) fn root(name: &str) -> Self {
        Self::root_as(name, |_| {})
    }

    pub(crate) fn root_as(name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, key) = (Self::params(name), KeyPair::generate().expect("a key"));
        edit(&mut params);
        let certificate = params.self_signed(&key).expect("a root").der().clone();
        Self {
            params,
            key,
            certificate,
            above: Vec::new(),
        }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.intermediate_as(name, |_| {})
    }

    pub(crate) fn intermediate_as(
        &self,
        name: &str,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let (mut params, key) = (Self::params(name), KeyPair::generate().expect("a key"));
        edit(&mut params);
        let certificate = self.certify(&params, &key);
        Self {
            params,
            key,
            above: [vec![certificate.clone()], self.above.clone()].concat(),
            certificate,
        }
    }

    /// What signs in its name.
    pub(crate) fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// Another certificate for another authority, by this one.
    pub(crate) fn cross_sign(
        &self,
        other: &Self,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = other.params.clone();
        edit(&mut params);
        self.certify(&params, &other.key)
    }

    fn certify(&self, params: &CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
        let issuer = Issuer::from_params(&self.params, &self.key);
        params
            .signed_by(key, &issuer)
            .expect("an intermediate")
            .der()
            .clone()
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_as(names, |_| {})
    }

    pub(crate) fn issue_as(
        &self,
        names: &[&str],
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let (params, key) = (leaf(names, edit), KeyPair::generate().expect("a key"));
        let issuer = Issuer::from_params(&self.params, &self.key);
        let mut chain = vec![
            params
                .signed_by(&key, &issuer)
                .expect("a leaf")
                .der()
                .clone(),
        ];
        chain.extend(self.above.iter().cloned());
        Pair {
            chain,
            key: key.serialize_der(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// Makes the key of another certificate the one that this authority signs with.
    pub(crate) fn set_key(&mut self, pair: &Pair) {
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.key.clone()));
        self.key = KeyPair::from_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
            .expect("a key of rcgen's");
    }
}

pub(crate) fn self_signed(names: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> Pair {
    let (params, key) = (leaf(names, edit), KeyPair::generate().expect("a key"));
    let certificate = params
        .self_signed(&key)
        .expect("a certificate")
        .der()
        .clone();
    Pair {
        chain: vec![certificate],
        key: key.serialize_der(),
    }
}

fn leaf(names: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("DNS names");
    params.distinguished_name = common_name("a host");
    edit(&mut params);
    params
}

pub(crate) fn at<T>(value: T, line: u32) -> Located<T> {
    Located {
        value,
        location: Location {
            file: Arc::from(Path::new("gatepost.toml")),
            line,
            column: 1,
        },
    }
}

pub(crate) fn host(name: &str) -> Host {
    Host::parse(name).expect(name)
}

/// A connector for outbound handshakes.
pub(crate) fn connector(
    name: &str,
    trust: TrustSource,
    client_identity: Option<IdentityFiles>,
) -> Connector {
    Connector {
        name: name.to_owned(),
        domains: Vec::new(),
        names: Vec::new(),
        trust: at(trust, 40),
        pins: Vec::new(),
        crl: Vec::new(),
        outbound: OutboundConfig {
            route: Route::Mx { port: 25 },
            tls: TlsDemand::Opportunistic,
            discover: Vec::new(),
            downgrade: OnDowngrade::Warn,
            exception: None,
            revocation: Revocation::Off,
            on_failure: OnFailure::Defer,
            client_identity,
            groups: Strength::PostQuantum,
            min_strength: Strength::Classical,
            connections: 1,
            messages_per_connection: 1,
            source: Vec::new(),
            ehlo: None,
            auth: None,
            schedule: gatepost::config::ScheduleOverrides::default(),
        },
        inbound: InboundConfig {
            tls: TlsDemand::Opportunistic,
            revocation: Revocation::Off,
            networks: Vec::new(),
            relay: false,
        },
        floor: None,
    }
}

fn limits() -> Limits {
    Limits {
        message_size: 1,
        recipients: 100,
        clients: ClientLimits::of(1, 1),
        transaction_memory: TransactionMemory {
            all: 0,
            per_session: 1 << 20,
        },
        errors: 1,
        received: 1,
        delivery_attempts: 100,
        delivery_attempt_time: Duration::from_secs(1),
        dsn_per_minute: 1,
        dsn_per_minute_per_domain: 1,
    }
}

/// A configuration with nothing but TLS in it.
pub(crate) fn config(identity: Option<IdentityFiles>, connectors: Vec<Connector>) -> Config {
    let second = Duration::from_secs(1);
    let hostname = Domain::parse("relay.example.com").expect("a domain");
    Config {
        postmaster: Mailbox::postmaster(hostname.clone()),
        tls: TlsConfig {
            identity,
            sni: Vec::new(),
            trust: at(TrustSource::Webpki, 10),
            min_version: TlsVersion::V1_2,
        },
        spool: at(PathBuf::from("spool"), 20),
        database: None,
        listeners: Vec::new(),
        relay: RelayConfig::default(),
        recipients: Vec::new(),
        connectors: connectors.into_iter().map(Arc::new).collect(),
        queue: QueueConfig {
            retry: vec![second],
            expire: second,
            warn_after: WarnAfter::Never,
            dsn_gather: second,
            postmaster_digest: second,
        },
        limits: limits(),
        timeouts: Timeouts {
            command: second,
            data_block: second,
            data_rate: 1,
            message: second,
            handshake: second,
            connect: second,
            reply: second,
            final_reply: second,
            drain: second,
        },
        dns: DnsConfig {
            servers: Vec::new(),
            dnssec: at(Dnssec::Off, 30),
            trust_anchor: TrustAnchor::BuiltIn,
        },
        net: NetConfig::default(),
        users: None,
        evidence: EvidenceConfig {
            path: at(EvidencePath::Off, 30),
            keep: second,
            max_size: EvidenceLimit::Default,
        },
        admin: AdminConfig {
            socket: at(AdminSocket::Off, 30),
            http: at(AdminHttp::Off, 31),
        },
        tlsrpt: TlsrptConfig {
            send: at(SendReports::Off, 30),
            organization: hostname.to_string(),
            contact: Mailbox::postmaster(hostname.clone()),
            submitter: hostname.clone(),
            dkim: None,
        },
        log: LogConfig {
            format: at(LogFormat::Text, 30),
            level: "info".to_owned(),
        },
        source: ConfigSource {
            included: Vec::new(),
            file: Arc::from(Path::new("gatepost.toml")),
            text: Arc::from(""),
            digest: String::new(),
        },
        hostname,
    }
}

/// Shows a chain to a connector that trusts `authority` alone: the verdict on its path.
pub(crate) async fn path_of(authority: &Authority, pair: &Pair) -> Result<(), ChainFault> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trust.pem");
    std::fs::write(&file, authority.pem()).expect("the folder is ours");
    path_under(&file, pair).await
}

/// The same under all that stands in a PEM file.
pub(crate) async fn path_under(file: &Path, pair: &Pair) -> Result<(), ChainFault> {
    let connector = connector("partner", TrustSource::File(file.to_owned()), None);
    let material = load(&config(None, vec![connector.clone()]));
    let (address, peer) = serve(server_config(pair, BOTH), 1).await;
    let seen = connect(&material, &connector, address, "mail.partner.example")
        .await
        .expect("a handshake");
    peer.await.expect("the peer");
    let facts = seen
        .facts(
            material.client(&connector).checks(None),
            Role::Server,
            Timestamp::now(),
        )
        .await;
    let PeerCertificate::Certificate(shown) = facts.certificate else {
        panic!("a certificate was shown")
    };
    shown.chain
}

pub(crate) fn load(config: &Config) -> Arc<TlsMaterial> {
    match TlsMaterial::load(config) {
        Ok((material, _)) => material,
        Err(faults) => panic!(
            "{}",
            faults
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        ),
    }
}

/// TLS material with one connector "partner" that trusts `authority` alone.
pub(crate) fn material_trusting(
    authority: &Authority,
    folder: &Path,
) -> (Arc<TlsMaterial>, Connector) {
    let file = folder.join("trust.pem");
    std::fs::write(&file, authority.pem()).expect("the folder is ours");
    let connector = connector("partner", TrustSource::File(file), None);
    (load(&config(None, vec![connector.clone()])), connector)
}

pub(crate) type Versions<'a> = &'a [&'static SupportedProtocolVersion];
pub(crate) const BOTH: Versions<'static> = rustls::DEFAULT_VERSIONS;
pub(crate) static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
pub(crate) static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// The settings of a bare rustls server.
pub(crate) fn server_config(pair: &Pair, versions: Versions<'_>) -> rustls::ServerConfig {
    rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            pair.certified(),
        )))
}

/// A bare peer's side of a handshake that it completed.
#[derive(Debug, PartialEq)]
pub(crate) struct Other {
    pub(crate) kind: rustls::HandshakeKind,
    pub(crate) sni: Option<String>,
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}

/// Serves handshakes; writes one octet after each, so that tickets, if any, reach the client.
pub(crate) async fn serve(
    config: rustls::ServerConfig,
    times: usize,
) -> (SocketAddr, JoinHandle<Vec<Option<Other>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("loopback");
    let address = listener.local_addr().expect("bound");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let task = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..times {
            let (stream, _) = listener.accept().await.expect("a client");
            seen.push(match acceptor.accept(stream).await {
                Ok(mut stream) => {
                    // The client may have gone already, which is its right.
                    let _ = stream.write_all(b"!").await;
                    let session = stream.get_ref().1;
                    Some(Other {
                        kind: session.handshake_kind().expect("complete"),
                        sni: session.server_name().map(str::to_owned),
                        certificates: session.peer_certificates().unwrap_or_default().to_vec(),
                    })
                }
                Err(_) => None,
            });
        }
        seen
    });
    (address, task)
}

/// Connects as the connector does, and reads the octet of [`serve`].
pub(crate) async fn connect(
    material: &TlsMaterial,
    connector: &Connector,
    address: SocketAddr,
    name: &str,
) -> Result<CompletedHandshake, HandshakeError> {
    connect_by(material, connector, address, name, Handshake::Full).await
}

/// The same, where a resumed handshake is enough.
pub(crate) async fn connect_by(
    material: &TlsMaterial,
    connector: &Connector,
    address: SocketAddr,
    name: &str,
    handshake: Handshake,
) -> Result<CompletedHandshake, HandshakeError> {
    connect_with(material, connector, address, name, (USUAL, handshake)).await
}

/// The ClientHello that a server is shown of which nothing is known.
pub(crate) const USUAL: Hello = Hello {
    groups: Groups::PostQuantumFirst,
    sni: true,
};

/// The same with another ClientHello.
pub(crate) async fn connect_with(
    material: &TlsMaterial,
    connector: &Connector,
    address: SocketAddr,
    name: &str,
    (hello, handshake): (Hello, Handshake),
) -> Result<CompletedHandshake, HandshakeError> {
    let stream = TcpStream::connect(address).await.expect("loopback");
    let name = host(name);
    let handshake = material
        .client(connector)
        .connect(stream, &name, hello, handshake);
    let (mut stream, seen) = tokio::time::timeout(PATIENCE, handshake)
        .await
        .expect("in time")?;
    stream.read_u8().await.expect("the octet");
    Ok(seen)
}
