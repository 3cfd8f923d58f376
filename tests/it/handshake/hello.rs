//! The contents of our ClientHello, and their effect on a session.

use std::sync::Arc;

use gatepost::config::Connector;
use gatepost::net::tls_io::{HandshakeError, Role, TlsMaterial};
use gatepost::policy::tls::{Groups, Handshake, Hello, TlsFacts};
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::sign::SingleCertAndKey;
use rustls::{NamedGroup, SignatureScheme};
use tokio::net::TcpListener;

use crate::support::certificates::*;
use crate::support::picky::{SEGMENT, Waiting};

const NAME: &str = "mail.partner.example";

const fn hello(groups: Groups, sni: bool) -> Hello {
    Hello { groups, sni }
}

/// The ClientHello that a server receives.
async fn shown(material: &TlsMaterial, connector: &Connector, with: (Hello, Handshake)) -> Waiting {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        Waiting::on(&stream).await.expect("a ClientHello")
    });
    assert!(
        connect_with(material, connector, address, NAME, with)
            .await
            .is_err(),
        "the server goes"
    );
    server.await.expect("the server")
}

#[tokio::test]
async fn each_client_hello_has_its_groups_and_a_classical_one_fits_into_a_segment() {
    use Groups::{Classical, ClassicalAllCurves, PostQuantumFirst, PostQuantumOnly};
    let folder = tempfile::tempdir().expect("a folder");
    let (material, connector) = material_trusting(&Authority::root("Partner CA"), folder.path());
    for (hello, words, is_large) in [
        (USUAL, "(hello hybrid+classical sni)", true),
        (
            hello(PostQuantumFirst, false),
            "(hello hybrid+classical)",
            true,
        ),
        (hello(Classical, true), "(hello classical sni)", false),
        (hello(Classical, false), "(hello classical)", false),
        (
            hello(ClassicalAllCurves, true),
            "(hello classical+curves sni)",
            false,
        ),
        (
            hello(ClassicalAllCurves, false),
            "(hello classical+curves)",
            false,
        ),
        (hello(PostQuantumOnly, true), "(hello hybrid sni)", true),
        (hello(PostQuantumOnly, false), "(hello hybrid)", true),
    ] {
        for handshake in [Handshake::Full, Handshake::Resumed] {
            let shown = shown(&material, &connector, (hello, handshake)).await;
            assert_eq!(shown.words(), words);
            assert_eq!(
                shown.octets > SEGMENT,
                is_large,
                "{hello}: {}",
                shown.octets
            );
            // The longest host name has 253 octets.
            assert!(
                is_large || shown.octets + 253 < SEGMENT,
                "{hello}: {}",
                shown.octets
            );
        }
    }
}

/// The curves for servers' keys make no other ClientHello larger.
#[tokio::test]
async fn curves_and_schemes_for_servers_keys_come_last_in_one_client_hello() {
    let folder = tempfile::tempdir().expect("a folder");
    let (material, connector) = material_trusting(&Authority::root("Partner CA"), folder.path());
    let of = async |groups| {
        shown(
            &material,
            &connector,
            (hello(groups, true), Handshake::Resumed),
        )
        .await
    };
    let (usual, classical) = (
        of(Groups::PostQuantumFirst).await,
        of(Groups::Classical).await,
    );
    let (only, all) = (
        of(Groups::PostQuantumOnly).await,
        of(Groups::ClassicalAllCurves).await,
    );
    let used = [
        NamedGroup::X25519,
        NamedGroup::secp256r1,
        NamedGroup::secp384r1,
    ];
    let hybrid = [NamedGroup::X25519MLKEM768];
    assert_eq!(usual.groups, [&hybrid[..], &used].concat());
    assert_eq!(
        (&classical.groups[..], &only.groups[..]),
        (&used[..], &hybrid[..])
    );
    let checked = provider()
        .signature_verification_algorithms
        .supported_schemes();
    for hello in [&usual, &classical, &only] {
        assert_eq!(hello.schemes, checked);
    }
    // P-521, three brainpool curves, secp256k1 and P-224.
    let curves = [25, 28, 27, 26, 22, 21].map(NamedGroup::from);
    assert_eq!(all.groups, [&used[..], &curves].concat());
    let schemes =
        [0x0808, 0x0809, 0x080a, 0x080b, 0x081a, 0x081b, 0x081c].map(SignatureScheme::from);
    assert_eq!(all.schemes, [&checked[..], &schemes].concat());
    assert_eq!(
        all.octets,
        classical.octets + 2 * (curves.len() + schemes.len())
    );
}

/// A group whose keys have the form of P-256 keys.
#[derive(Debug)]
struct Foreign(NamedGroup);

impl SupportedKxGroup for Foreign {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        Ok(Box::new(Begun(self.0, kx_group::SECP256R1.start()?)))
    }

    fn name(&self) -> NamedGroup {
        self.0
    }
}

struct Begun(NamedGroup, Box<dyn ActiveKeyExchange>);

impl ActiveKeyExchange for Begun {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
        self.1.complete(peer)
    }

    fn pub_key(&self) -> &[u8] {
        self.1.pub_key()
    }

    fn group(&self) -> NamedGroup {
        self.0
    }
}

/// A server that prefers such a curve for the key exchange gets no session, and the reason is
/// reported.
#[tokio::test]
async fn a_curve_for_keys_cannot_be_used_for_key_exchange() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&authority, folder.path());
    for (number, name) in [(25, "P-521"), (26, "brainpoolP256r1"), (22, "secp256k1")] {
        let group: &'static Foreign = Box::leak(Box::new(Foreign(NamedGroup::from(number))));
        let with_it = rustls::crypto::CryptoProvider {
            kx_groups: vec![group],
            ..aws_lc_rs::default_provider()
        };
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(with_it))
            .with_protocol_versions(&TLS12)
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(
                authority.issue(&[NAME]).certified(),
            )));
        let (address, _peer) = serve(config, 1).await;
        let with = (hello(Groups::ClassicalAllCurves, true), Handshake::Resumed);
        let error = connect_with(&material, &connector, address, NAME, with)
            .await
            .expect_err("no session");
        let words = format!(
            "the peer chose {name} for the key exchange, which Gatepost lists for the peer's "
        );
        assert_eq!(
            error,
            HandshakeError::Failed(format!("{words}certificate alone"))
        );
    }
}

/// Only TLS 1.3 sessions are resumed, with a key exchange of their own (RFC 8446 §2.2).
#[tokio::test]
async fn a_resumed_session_has_a_key_exchange_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&authority, folder.path());
    for (groups, group) in [
        (Groups::PostQuantumFirst, "X25519MLKEM768"),
        (Groups::PostQuantumOnly, "X25519MLKEM768"),
        (Groups::Classical, "X25519"),
    ] {
        let (address, _peer) = serve(server_config(&authority.issue(&[NAME]), &TLS13), 2).await;
        let mut seen: Vec<TlsFacts> = Vec::new();
        for _ in 0..2 {
            let with = (hello(groups, true), Handshake::Resumed);
            let session = connect_with(&material, &connector, address, NAME, with)
                .await
                .expect("a handshake");
            let against = material.client(&connector).checks(None);
            seen.push(session.facts(against, Role::Server, Timestamp::now()).await);
        }
        // A ticket from one set of groups is not used with another.
        let handshakes = [&seen[0], &seen[1]].map(|facts| facts.handshake);
        assert_eq!(
            handshakes,
            [Handshake::Full, Handshake::Resumed],
            "{groups:?}"
        );
        assert!(
            seen.iter().all(|facts| facts.key_exchange == Some(group)),
            "{groups:?}: {seen:?}"
        );
    }
}
