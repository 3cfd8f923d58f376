//! Handshakes as a server.

use std::sync::Arc;

use gatepost::config::{Config, SniIdentity};
use gatepost::net::tls_io::{CompletedHandshake, HandshakeError, Role, TlsMaterial};
use gatepost::policy::tls::{ChainFault, NamePattern, PeerCertificate, TlsVersion};
use jiff::Timestamp;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::HandshakeKind;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::certificates::*;

/// A rustls client that trusts `authority` and checks the server's name by the rules of rustls.
pub(crate) fn client_config(
    authority: &Authority,
    versions: Versions<'_>,
    pair: Option<&Pair>,
) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate.clone()).expect("a root");
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    match pair {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(
            rustls::sign::SingleCertAndKey::from(pair.certified()),
        )),
        None => builder.with_no_client_auth(),
    }
}

/// The result of one handshake, for the client and for us.
pub(crate) async fn meet(
    material: &Arc<TlsMaterial>,
    ask: bool,
    client: &Arc<rustls::ClientConfig>,
    name: &str,
) -> (
    std::io::Result<(HandshakeKind, Vec<CertificateDer<'static>>)>,
    Result<CompletedHandshake, HandshakeError>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let material = Arc::clone(material);
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let (mut stream, seen) = material.accept(stream, ask).await?;
        stream.write_all(b"!").await.expect("the client reads");
        stream.shutdown().await.expect("the client reads");
        Ok(seen)
    });
    let client = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut stream = tokio_rustls::TlsConnector::from(Arc::clone(client))
            .connect(name, stream)
            .await?;
        stream.read_u8().await?;
        let session = stream.get_ref().1;
        let shown = session.peer_certificates().unwrap_or_default().to_vec();
        Ok((session.handshake_kind().expect("complete"), shown))
    };
    let theirs = tokio::time::timeout(PATIENCE, client)
        .await
        .expect("in time");
    (
        theirs,
        tokio::time::timeout(PATIENCE, server)
            .await
            .expect("in time")
            .expect("the server"),
    )
}

pub(crate) struct Ours {
    pub(crate) authority: Authority,
    pair: Pair,
    pub(crate) config: Config,
    folder: tempfile::TempDir,
}

/// A relay with a certificate of "Relay CA", which is also the connectors' default trust.
pub(crate) fn ours() -> Ours {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::root("Relay CA");
    let pair = authority
        .intermediate("Relay CA 2")
        .issue(&["relay.example.com"]);
    let mut config = config(Some(pair.write(folder.path(), "relay")), Vec::new());
    let file = folder.path().join("trust.pem");
    std::fs::write(&file, authority.pem()).expect("the folder is ours");
    config.tls.trust.value = gatepost::config::TrustSource::File(file);
    Ours {
        authority,
        pair,
        config,
        folder,
    }
}

pub(crate) fn against(material: &TlsMaterial) -> gatepost::net::tls_io::ChainChecks<'_> {
    material
        .client(&connector(
            "default",
            gatepost::config::TrustSource::Webpki,
            None,
        ))
        .checks(None)
}

#[tokio::test]
async fn a_verifying_client_accepts_us_and_negotiates_the_best() {
    let ours = ours();
    let material = load(&ours.config);
    for (versions, version, key_exchange) in [
        (BOTH, TlsVersion::V1_3, "X25519MLKEM768"),
        (&TLS12, TlsVersion::V1_2, "X25519"),
    ] {
        let client = Arc::new(client_config(&ours.authority, versions, None));
        let (theirs, seen) = meet(&material, true, &client, "relay.example.com").await;
        assert_eq!(theirs.expect("a handshake").1, ours.pair.chain);
        let facts = seen
            .expect("a handshake")
            .facts(against(&material), Role::Client, Timestamp::now())
            .await;
        assert_eq!(
            (facts.version, facts.key_exchange),
            (version, Some(key_exchange))
        );
        assert_eq!(facts.certificate, PeerCertificate::Nothing);
    }
}

/// Our order is AES-256-GCM, AES-128-GCM, ChaCha20-Poly1305.
#[tokio::test]
async fn the_servers_cipher_order_decides() {
    let ours = ours();
    let material = load(&ours.config);
    let order = [
        "AES_256_GCM_SHA384",
        "AES_128_GCM_SHA256",
        "CHACHA20_POLY1305_SHA256",
    ];
    for (versions, prefix) in [(&TLS12, "TLS_ECDHE_ECDSA_WITH"), (&TLS13, "TLS")] {
        for ask in [true, false] {
            for offered in [&[2, 1, 0][..], &[1, 2, 0], &[2, 1], &[2]] {
                let suite = |at: usize| format!("{prefix}_{}", order[at]);
                let mut provider = rustls::crypto::aws_lc_rs::default_provider();
                let named = |name: &String| {
                    let all = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
                    let spelt = |suite: &rustls::CipherSuite| {
                        suite.as_str().expect("a name").replace("TLS13_", "TLS_")
                    };
                    *all.iter()
                        .find(|suite| spelt(&suite.suite()) == *name)
                        .expect("a suite")
                };
                provider.cipher_suites = offered.iter().map(|at| named(&suite(*at))).collect();
                let mut roots = rustls::RootCertStore::empty();
                roots
                    .add(ours.authority.certificate.clone())
                    .expect("a root");
                let client = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
                    .with_protocol_versions(versions)
                    .expect("versions")
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                let (theirs, seen) =
                    meet(&material, ask, &Arc::new(client), "relay.example.com").await;
                theirs.expect("a handshake");
                let facts = seen
                    .expect("a handshake")
                    .facts(against(&material), Role::Client, Timestamp::now())
                    .await;
                let best = *offered.iter().min().expect("one at least");
                assert_eq!(facts.cipher, suite(best), "{offered:?}, asked: {ask}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_offers_other_protocols_alone_is_a_browser() {
    let ours = ours();
    let material = load(&ours.config);
    let why = "the client offers other protocols than SMTP (ALPN), as a browser does";
    for versions in [&TLS12, &TLS13] {
        for (offered, wanted) in [
            (&[][..], None),
            (&["smtp"][..], None),
            (&["h2", "smtp"], None),
            (&["h2", "http/1.1"], Some(why)),
            (&["ftp"], Some(why)),
        ] {
            let mut client = client_config(&ours.authority, versions, None);
            client.alpn_protocols = offered
                .iter()
                .map(|name| name.as_bytes().to_vec())
                .collect();
            for ask in [true, false] {
                let (theirs, seen) = meet(
                    &material,
                    ask,
                    &Arc::new(client.clone()),
                    "relay.example.com",
                )
                .await;
                assert_eq!(theirs.is_ok(), wanted.is_none(), "{offered:?}: {theirs:?}");
                assert_eq!(
                    seen.err().map(|fault| fault.to_string()).as_deref(),
                    wanted,
                    "{offered:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_requested_only_if_configured_and_never_required() {
    let ours = ours();
    let material = load(&ours.config);
    let name = "mail.partner.example";
    let partner = NamePattern::parse(name).expect("a name");
    let only = |usage: ExtendedKeyUsagePurpose| {
        move |params: &mut rcgen::CertificateParams| {
            params.extended_key_usages = vec![usage.clone()];
        }
    };
    let shown = |chain| Some((vec![partner.clone()], chain));
    let for_neither =
        "its extended key usage includes neither TLS clients nor TLS servers".to_owned();
    for versions in [&TLS12, &TLS13] {
        for (pair, ask, wanted) in [
            (Some(ours.authority.issue(&[name])), true, shown(Ok(()))),
            (Some(ours.authority.issue(&[name])), false, None),
            (None, true, None),
            (
                Some(self_signed(&[name], |_| {})),
                true,
                shown(Err(ChainFault::SelfSigned)),
            ),
            (
                Some(
                    ours.authority
                        .issue_as(&[name], only(ExtendedKeyUsagePurpose::ServerAuth)),
                ),
                true,
                shown(Ok(())),
            ),
            (
                Some(
                    ours.authority
                        .issue_as(&[name], only(ExtendedKeyUsagePurpose::CodeSigning)),
                ),
                true,
                shown(Err(ChainFault::Invalid(for_neither.clone()))),
            ),
        ] {
            let client = Arc::new(client_config(&ours.authority, versions, pair.as_ref()));
            let (theirs, seen) = meet(&material, ask, &client, "relay.example.com").await;
            theirs.expect("a handshake");
            let facts = seen
                .expect("a handshake")
                .facts(against(&material), Role::Client, Timestamp::now())
                .await;
            let told = match facts.certificate {
                PeerCertificate::Nothing => None,
                PeerCertificate::Unproved(key) => panic!("it can be checked: {key}"),
                PeerCertificate::Certificate(shown) => Some((shown.names, shown.chain)),
            };
            assert_eq!(told, wanted);
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_hold_the_key_fails_the_handshake() {
    let ours = ours();
    let material = load(&ours.config);
    for versions in [&TLS12, &TLS13] {
        let mut stolen = ours.authority.issue(&["mail.partner.example"]);
        stolen.key = KeyPair::generate().expect("a key").serialize_der();
        let client = Arc::new(client_config(&ours.authority, versions, Some(&stolen)));
        let (theirs, seen) = meet(&material, true, &client, "relay.example.com").await;
        let error = seen.expect_err("no proof");
        assert!(
            error
                .to_string()
                .starts_with("the peer does not prove that it holds its certificate's key"),
            "{error}"
        );
        theirs.expect_err("refused");
    }
}

#[tokio::test]
async fn sni_chooses_among_our_identities() {
    let mut ours = ours();
    let mut add = |file: &str, names: &[&str]| {
        let pair = ours.authority.issue(names);
        let names = names
            .iter()
            .map(|name| NamePattern::parse(name).expect(name))
            .collect();
        ours.config.tls.sni.push(SniIdentity {
            names,
            files: pair.write(ours.folder.path(), file),
        });
        pair.chain
    };
    let exact = add("exact", &["mx.example.net"]);
    let wildcard = add("wildcard", &["*.example.net"]);
    let material = load(&ours.config);
    let default = &ours.pair.chain;
    let client = Arc::new(accepting_client());
    for (name, chain) in [
        ("mx.example.net", &exact),
        ("MX.Example.NET", &exact),
        ("other.example.net", &wildcard),
        ("a.b.example.net", default),
        ("example.net", default),
        ("relay.example.com", default),
        ("127.0.0.1", default),
    ] {
        let (theirs, seen) = meet(&material, false, &client, name).await;
        assert_eq!(&theirs.expect("a handshake").1, chain, "{name}");
        seen.expect("a handshake");
    }
}

/// A client that accepts any certificate, and shows which one it received.
fn accepting_client() -> rustls::ClientConfig {
    #[derive(Debug)]
    struct Any;
    impl rustls::client::danger::ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
    rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(BOTH)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth()
}

#[tokio::test]
async fn a_peer_with_older_versions_has_no_version_in_common() {
    let mut ours = ours();
    ours.config.tls.min_version = TlsVersion::V1_3;
    let material = load(&ours.config);
    let client = Arc::new(client_config(&ours.authority, &TLS12, None));
    let (theirs, seen) = meet(&material, true, &client, "relay.example.com").await;
    assert_eq!(
        seen.expect_err("too old").to_string(),
        "no TLS version in common"
    );
    theirs.expect_err("refused");
}

#[tokio::test]
async fn a_client_without_tls_gives_a_readable_error() {
    let material = load(&ours().config);
    for (says, words) in [
        (
            &b""[..],
            "the peer closed the connection during the handshake",
        ),
        (
            b"EHLO mail.partner.example\r\n",
            "the peer did not speak TLS",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound"))
            .await
            .expect("loopback");
        client.write_all(says).await.expect("the server reads");
        client.shutdown().await.expect("the server reads");
        let (stream, _) = listener.accept().await.expect("a client");
        let handshake = tokio::time::timeout(PATIENCE, material.accept(stream, true))
            .await
            .expect("in time");
        assert_eq!(
            handshake.map(|_| ()).expect_err("no TLS").to_string(),
            words
        );
    }
}

#[tokio::test]
async fn without_a_certificate_every_handshake_fails() {
    let ours = ours();
    let material = load(&config(None, Vec::new()));
    let client = Arc::new(client_config(&ours.authority, BOTH, None));
    let (theirs, seen) = meet(&material, true, &client, "relay.example.com").await;
    assert_eq!(
        seen.expect_err("no identity").to_string(),
        "[tls] has no certificate"
    );
    theirs.expect_err("refused");
}

#[tokio::test]
async fn a_renewed_certificate_is_used_from_the_next_handshake_unless_invalid() {
    let ours = ours();
    let material = load(&ours.config);
    let client = Arc::new(client_config(&ours.authority, BOTH, None));
    let shown = async || {
        meet(&material, false, &client, "relay.example.com")
            .await
            .0
            .expect("a handshake")
            .1
    };
    assert_eq!(material.refresh(), Ok(Vec::new()), "nothing has changed");
    assert_eq!(shown().await, ours.pair.chain);

    let renewed = ours
        .authority
        .issue(&["relay.example.com", "mx.example.com"]);
    let files = renewed.write(ours.folder.path(), "relay");
    let replaced = material.refresh().expect("a good certificate");
    assert_eq!(replaced.len(), 1);
    assert_eq!(replaced[0].names, ["relay.example.com", "mx.example.com"]);
    assert_eq!(replaced, material.identities());
    assert_eq!(shown().await, renewed.chain);
    assert_eq!(
        material.refresh(),
        Ok(Vec::new()),
        "it has been taken already"
    );

    for damage in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n",
        &ours.authority.pem(),
    ] {
        std::fs::write(&files.certificate.value, damage).expect("the folder is ours");
        let faults = material.refresh().expect_err("a bad certificate");
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(shown().await, renewed.chain);
    }
}

/// A `ClientHello` of this version with these cipher suites and no extensions, like those of old
/// devices.
fn old_hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let suites: Vec<u8> = suites
        .iter()
        .flat_map(|suite| suite.to_be_bytes())
        .collect();
    let length = u8::try_from(suites.len()).expect("few");
    let body = [
        &version.to_be_bytes()[..],
        &[7; 32],
        &[0, 0, length],
        &suites,
        &[1, 0],
    ]
    .concat();
    let length = u8::try_from(body.len()).expect("short");
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

#[tokio::test]
async fn an_old_client_gets_the_reason_from_its_offer() {
    let (material, _) = TlsMaterial::load(&ours().config).expect("loads");
    for (hello, words) in [
        (
            old_hello(0x0301, &[0x002f, 0xc013]),
            "no TLS version in common: the client offers TLS 1.0 at most",
        ),
        (
            old_hello(0x0303, &[0x002f, 0x0035, 0x009c]),
            "no cipher suite in common: the client offers static RSA key exchange alone, and ECDHE is needed",
        ),
        (
            vec![0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 16],
            "no TLS version in common: the client begins with SSL 2.0",
        ),
        (
            b"EHLO scanner.example\r\n".to_vec(),
            "the peer did not speak TLS",
        ),
    ] {
        let (mut client, server) = tokio::io::duplex(4096);
        client.write_all(&hello).await.expect("there is room");
        let shaken = tokio::time::timeout(PATIENCE, material.accept(server, true))
            .await
            .expect("in time");
        let Err(error) = shaken else {
            panic!("there is no TLS with {hello:?}")
        };
        assert_eq!(error.to_string(), words);
    }
}
