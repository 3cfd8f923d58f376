//! Handshakes as a client.

use std::sync::Arc;

use gatepost::config::TrustSource;
use gatepost::net::tls_io::Role;
use gatepost::policy::tls::{ChainFault, NamePattern, PeerCertificate, TlsVersion};
use jiff::Timestamp;
use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair, SigningKey,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::certificates::*;

fn names(all: &[&str]) -> Vec<NamePattern> {
    all.iter()
        .map(|name| NamePattern::parse(name).expect(name))
        .collect()
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// DER demands the shortest form of a length (X.690 §10.1).
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).expect("small").to_be_bytes();
    let length = match (high, low) {
        (0, low @ 0..0x80) => vec![low],
        (0, low) => vec![0x81, low],
        (high, low) => vec![0x82, high, low],
    };
    [vec![tag], length, content.to_vec()].concat()
}

/// A self-signed X.509 version 1 certificate, which libraries no longer write (RFC 5280 §4.1).
pub(crate) fn version_1() -> Pair {
    let key = KeyPair::generate().expect("a key");
    let template = self_signed_with(&key);
    let (_, template) = x509_parser::parse_x509_certificate(&template).expect("rcgen writes DER");
    // The content of ecdsa-with-SHA256 (RFC 5758 §3.2).
    let algorithm = tlv(
        0x30,
        &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
    );
    let validity = tlv(
        0x30,
        &[tlv(0x17, b"200101000000Z"), tlv(0x17, b"490101000000Z")].concat(),
    );
    let parts: [&[u8]; 6] = [
        &tlv(0x02, &[1]),
        &algorithm,
        template.issuer().as_raw(),
        &validity,
        template.subject().as_raw(),
        template.public_key().raw,
    ];
    let signed = tlv(0x30, &parts.concat());
    let mut signature = vec![0];
    signature.extend(key.sign(&signed).expect("a signature"));
    let certificate = tlv(0x30, &[signed, algorithm, tlv(0x03, &signature)].concat());
    Pair {
        chain: vec![CertificateDer::from(certificate)],
        key: key.serialize_der(),
    }
}

fn self_signed_with(key: &KeyPair) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = common_name("an old host");
    params
        .self_signed(key)
        .expect("a certificate")
        .der()
        .to_vec()
}

/// A certificate, and the facts that must be reported of it.
type Row = (
    &'static str,
    Pair,
    &'static [&'static str],
    Result<(), ChainFault>,
);

const NAME: &str = "mail.partner.example";

fn invalid<T>(words: &str) -> Result<T, ChainFault> {
    Err(ChainFault::Invalid(words.to_owned()))
}

/// Certificates of the trusted authority, some of them not valid for a host today.
fn of_the_authority(trusted: &Authority) -> Vec<Row> {
    let with = |edit: fn(&mut CertificateParams)| trusted.issue_as(&[NAME], edit);
    let ended = with(|params| params.not_after = date_time_ymd(2021, 2, 3));
    let begins = with(|params| params.not_before = date_time_ymd(2090, 2, 3));
    let for_clients =
        with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let for_issuing =
        with(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let unknown_extension = with(|params| {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    let two_names = trusted.issue(&[NAME, "*.partner.example"]);
    let by_intermediate = trusted.intermediate("Partner CA 2").issue(&[NAME]);
    vec![
        ("good", two_names, &[NAME, "*.partner.example"], Ok(())),
        ("by an intermediate", by_intermediate, &[NAME], Ok(())),
        (
            "another name",
            trusted.issue(&["other.example"]),
            &["other.example"],
            Ok(()),
        ),
        ("no DNS name", trusted.issue(&[]), &[], Ok(())),
        (
            "expired",
            ended,
            &[NAME],
            Err(ChainFault::Expired(time("2021-02-03T00:00:00Z"))),
        ),
        (
            "not yet valid",
            begins,
            &[NAME],
            Err(ChainFault::NotYetValid(time("2090-02-03T00:00:00Z"))),
        ),
        (
            "for clients",
            for_clients,
            &[NAME],
            invalid("its extended key usage does not include TLS servers"),
        ),
        (
            "an authority's",
            for_issuing,
            &[NAME],
            invalid("it is the certificate of an authority, not of a host"),
        ),
        (
            "an unknown critical extension",
            unknown_extension,
            &[NAME],
            invalid("it has a critical extension that is not supported (1.3.6.1.4.1.99999.1)"),
        ),
    ]
}

/// Certificates of unknown issuers.
fn of_strangers(trusted: &Authority) -> Vec<Row> {
    let stranger = Authority::root("Stranger CA");
    let far = stranger.intermediate("Stranger CA 2").issue(&[NAME]);
    let mut alone = trusted.intermediate("Partner CA 2").issue(&[NAME]);
    alone.chain.truncate(1);
    let impostor = Authority::root("Partner CA").issue(&[NAME]);
    let self_made = self_signed(&[NAME], |_| {});
    let by_openssl = self_signed(&[NAME], |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let unknown = |issuer: &str| Err(ChainFault::UnknownIssuer(format!("CN={issuer}")));
    vec![
        (
            "an unknown authority",
            stranger.issue(&[NAME]),
            &[NAME],
            unknown("Stranger CA"),
        ),
        (
            "an unknown authority over an intermediate",
            far,
            &[NAME],
            unknown("Stranger CA"),
        ),
        (
            "the intermediate missing",
            alone,
            &[NAME],
            unknown("Partner CA 2"),
        ),
        (
            "an authority that takes the name of ours",
            impostor,
            &[NAME],
            invalid("its signature, or one above it, is not by the authority of that name"),
        ),
        (
            "self-signed",
            self_made,
            &[NAME],
            Err(ChainFault::SelfSigned),
        ),
        (
            "self-signed and an authority, as openssl makes them",
            by_openssl,
            &[NAME],
            Err(ChainFault::SelfSigned),
        ),
        (
            "X.509 version 1",
            version_1(),
            &[],
            Err(ChainFault::SelfSigned),
        ),
    ]
}

#[tokio::test]
async fn every_certificate_completes_the_handshake_and_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&trusted, folder.path());
    for versions in [&TLS12, &TLS13] {
        for (what, pair, wanted_names, wanted_chain) in of_the_authority(&trusted)
            .into_iter()
            .chain(of_strangers(&trusted))
        {
            let (address, peer) = serve(server_config(&pair, versions), 1).await;
            let seen = connect(&material, &connector, address, "mail.partner.example")
                .await
                .expect(what);
            peer.await.expect("the peer");
            let facts = seen
                .facts(
                    material.client(&connector).checks(None),
                    Role::Server,
                    Timestamp::now(),
                )
                .await;
            let PeerCertificate::Certificate(shown) = facts.certificate else {
                panic!("{what}: nothing was shown")
            };
            assert_eq!(
                (shown.names, shown.chain),
                (names(wanted_names), wanted_chain),
                "{what}, {versions:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_peer_that_does_not_hold_the_key_fails_the_handshake() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&trusted, folder.path());
    for versions in [&TLS12, &TLS13] {
        for mut stolen in [trusted.issue(&["mail.partner.example"]), version_1()] {
            stolen.key = KeyPair::generate().expect("a key").serialize_der();
            let (address, peer) = serve(server_config(&stolen, versions), 1).await;
            let error = connect(&material, &connector, address, "mail.partner.example")
                .await
                .expect_err("no proof");
            assert!(
                error
                    .to_string()
                    .starts_with("the peer does not prove that it holds its certificate's key"),
                "{error}"
            );
            assert_eq!(peer.await.expect("the peer"), [None]);
        }
    }
}

#[tokio::test]
async fn negotiated_parameters_have_their_iana_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&trusted, folder.path());
    let pair = trusted.issue(&["mail.partner.example"]);
    for (versions, version, cipher, key_exchange) in [
        (
            BOTH,
            TlsVersion::V1_3,
            "TLS_AES_256_GCM_SHA384",
            "X25519MLKEM768",
        ),
        (
            &TLS12,
            TlsVersion::V1_2,
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "X25519",
        ),
    ] {
        let (address, peer) = serve(server_config(&pair, versions), 1).await;
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
        assert_eq!(
            (facts.version, facts.cipher, facts.key_exchange),
            (version, cipher, Some(key_exchange))
        );
    }
}

#[tokio::test]
async fn sni_is_the_name_of_the_hop_and_never_an_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&trusted, folder.path());
    let pair = trusted.issue(&["mail.partner.example"]);
    for (name, sni) in [
        ("mx.partner.example", Some("mx.partner.example")),
        ("[127.0.0.1]", None),
        ("[IPv6:::1]", None),
    ] {
        let (address, peer) = serve(server_config(&pair, BOTH), 1).await;
        connect(&material, &connector, address, name)
            .await
            .expect("a handshake");
        let seen = peer.await.expect("the peer");
        assert_eq!(
            seen[0].as_ref().expect("complete").sni.as_deref(),
            sni,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_listed_certificate_is_trusted_itself_until_it_expires() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "mail.partner.example";
    let authority = |params: &mut rcgen::CertificateParams| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    let ended =
        |params: &mut rcgen::CertificateParams| params.not_after = date_time_ymd(2021, 2, 3);
    for (listed, chain) in [
        (self_signed(&[name], |_| {}), Ok(())),
        (self_signed(&[name], authority), Ok(())),
        (Authority::root("Unlisted CA").issue(&[name]), Ok(())),
        (version_1(), Ok(())),
        (
            self_signed(&[name], ended),
            Err(ChainFault::Expired(time("2021-02-03T00:00:00Z"))),
        ),
    ] {
        let file = folder.path().join("listed.pem");
        std::fs::write(&file, pem("CERTIFICATE", &listed.chain[0])).expect("the folder is ours");
        let connector = connector("partner", TrustSource::File(file), None);
        let material = load(&config(None, vec![connector.clone()]));
        let (address, peer) = serve(server_config(&listed, BOTH), 1).await;
        let seen = connect(&material, &connector, address, name)
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
        let PeerCertificate::Certificate(certificate) = facts.certificate else {
            panic!("no certificate")
        };
        assert_eq!(certificate.chain, chain);
    }
}

#[tokio::test]
async fn a_listed_host_certificate_is_no_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    // A partner's host issues certificates with its own key, although its certificate does not
    // allow that.
    let mut rogue = Authority::root("A host");
    let listed = self_signed(&["mail.partner.example"], |params| {
        params.distinguished_name = common_name("A host");
    });
    rogue.set_key(&listed);
    let file = folder.path().join("listed.pem");
    std::fs::write(&file, pem("CERTIFICATE", &listed.chain[0])).expect("the folder is ours");
    let connector = connector("partner", TrustSource::File(file), None);
    let material = load(&config(None, vec![connector.clone()]));
    let (address, peer) = serve(server_config(&rogue.issue(&["mail.bank.example"]), BOTH), 1).await;
    let seen = connect(&material, &connector, address, "mail.bank.example")
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
    let PeerCertificate::Certificate(certificate) = facts.certificate else {
        panic!("no certificate")
    };
    assert_eq!(
        certificate.chain,
        Err(ChainFault::UnknownIssuer("CN=A host".to_owned()))
    );
}

#[tokio::test]
async fn our_client_certificate_is_sent_to_a_server_that_requests_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = Authority::root("Partner CA");
    let ours = trusted.issue(&["relay.example.com"]);
    let with = connector(
        "with",
        TrustSource::Webpki,
        Some(ours.write(folder.path(), "client")),
    );
    let without = connector("without", TrustSource::Webpki, None);
    let material = load(&config(None, vec![with.clone(), without.clone()]));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.certificate.clone()).expect("a root");
    for (connector, shown) in [(with, ours.chain), (without, Vec::new())] {
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots.clone()),
            provider(),
        )
        .allow_unauthenticated()
        .build()
        .expect("a verifier");
        let asking = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(BOTH)
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                trusted.issue(&["x.example"]).certified(),
            )));
        let (address, peer) = serve(asking, 1).await;
        connect(&material, &connector, address, "mail.partner.example")
            .await
            .expect("a handshake");
        let seen = peer.await.expect("the peer");
        assert_eq!(seen[0].as_ref().expect("complete").certificates, shown);
    }
}

#[tokio::test]
async fn a_peer_with_older_versions_has_no_version_in_common() {
    let pair = Authority::root("Partner CA").issue(&["mail.partner.example"]);
    let connector = connector("partner", TrustSource::Webpki, None);
    let mut config = config(None, vec![connector.clone()]);
    config.tls.min_version = TlsVersion::V1_3;
    let material = load(&config);
    let (address, peer) = serve(server_config(&pair, &TLS12), 1).await;
    let error = connect(&material, &connector, address, "mail.partner.example")
        .await
        .expect_err("too old");
    assert!(
        error.to_string().starts_with("no TLS version in common"),
        "{error}"
    );
    assert_eq!(peer.await.expect("the peer"), [None]);
}

#[tokio::test]
async fn a_peer_without_tls_gives_a_readable_error() {
    let connector = connector("partner", TrustSource::Webpki, None);
    let material = load(&config(None, vec![connector.clone()]));
    for (says, words) in [
        (
            &b""[..],
            "the peer closed the connection during the handshake",
        ),
        (
            b"220 mail.partner.example ESMTP\r\n",
            "the peer did not speak TLS",
        ),
        (
            b"\x15\x03\x03\x00\x02\x02\x28",
            "the peer sent the alert handshake_failure",
        ),
        (
            b"\x15\x03\x01\x00\x02\x02\x46",
            "no TLS version in common: the peer sent the alert protocol_version",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            // The complete ClientHello is read first; unread data would turn the close into a
            // reset.
            let mut hello = vec![0; 5];
            stream.read_exact(&mut hello).await.expect("a record");
            let mut hello = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
            stream.read_exact(&mut hello).await.expect("a record");
            stream.write_all(says).await.expect("the client reads");
        });
        let error = connect(&material, &connector, address, "mail.partner.example")
            .await
            .expect_err("no TLS");
        assert_eq!(error.to_string(), words);
        peer.await.expect("the peer");
    }
}
