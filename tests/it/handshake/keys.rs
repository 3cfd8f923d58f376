//! Certificates with keys that the TLS library cannot check: the handshake succeeds, and they prove
//! nothing.

use std::sync::Arc;

use gatepost::net::tls_io::Role;
use gatepost::policy::tls::{Groups, Handshake, Hello, PeerCertificate};
use jiff::Timestamp;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{HandshakeKind, SignatureScheme};

use super::inbound::{client_config, meet, ours};
use crate::support::certificates::*;
use crate::support::uncheckable::{
    KINDS, Kind, Pretender, RSA_1024, certificate, certified, server, showing,
};

const NAME: &str = "mail.partner.example";

fn unproved(presented: &PeerCertificate) -> String {
    match presented {
        PeerCertificate::Unproved(key) => key.to_string(),
        PeerCertificate::Nothing | PeerCertificate::Certificate(_) => {
            panic!("nothing was proved: {presented:?}")
        }
    }
}

/// A client that presents this certificate and trusts `authority`.
fn client(authority: &Authority, versions: Versions<'_>, kind: Kind) -> Arc<rustls::ClientConfig> {
    let mut config = client_config(authority, versions, None);
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified(kind)));
    Arc::new(config)
}

#[tokio::test]
async fn a_server_with_a_key_that_cannot_be_checked_proves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&authority, folder.path());
    for versions in [&TLS12, &TLS13] {
        for kind in KINDS {
            let (address, _peer) = serve(server(kind, versions), 1).await;
            let seen = connect(&material, &connector, address, NAME)
                .await
                .expect(kind.words);
            let against = material.client(&connector).checks(None);
            let facts = seen.facts(against, Role::Server, Timestamp::now()).await;
            assert_eq!(unproved(&facts.certificate), kind.words);
            assert_eq!(
                seen.chain(),
                [certificate(kind)],
                "for people, as it was sent"
            );
        }
    }
}

#[tokio::test]
async fn a_client_with_a_key_that_cannot_be_checked_proves_nothing_and_gets_no_ticket() {
    let ours = ours();
    let material = load(&ours.config);
    for versions in [&TLS12, &TLS13] {
        for kind in KINDS {
            let client = client(&ours.authority, versions, kind);
            for _ in 0..2 {
                let (theirs, seen) = meet(&material, true, &client, "relay.example.com").await;
                let seen = seen.expect(kind.words);
                let default = connector("default", gatepost::config::TrustSource::Webpki, None);
                let against = material.client(&default).checks(None);
                let facts = seen.facts(against, Role::Client, Timestamp::now()).await;
                assert_eq!(unproved(&facts.certificate), kind.words);
                assert_eq!(theirs.expect("a handshake").0, HandshakeKind::Full);
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_proved_nothing_is_never_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&authority, folder.path());
    let (address, peer) = serve(server(RSA_1024, &TLS13), 3).await;
    for _ in 0..3 {
        connect_by(&material, &connector, address, NAME, Handshake::Resumed)
            .await
            .expect("a handshake");
    }
    let kinds: Vec<_> = peer
        .await
        .expect("the peer")
        .into_iter()
        .map(|seen| seen.expect("complete").kind)
        .collect();
    assert_eq!(kinds, [HandshakeKind::Full; 3]);
}

/// A key on a brainpool curve has a signature scheme of its own under TLS 1.3 (RFC 8734), as have
/// RSA-PSS and Ed448. A server uses it only if it is offered.
#[tokio::test]
async fn an_uncheckable_scheme_proves_nothing_and_is_offered_at_the_second_try_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&authority, folder.path());
    for (file, scheme) in [
        ("brainpool-p256", 0x081a),
        ("rsassa-pss", 0x0809),
        ("ed448", 0x0808),
    ] {
        let kind = KINDS
            .into_iter()
            .find(|kind| kind.file == file)
            .expect("a kind");
        let kind = Kind {
            scheme: SignatureScheme::from(scheme),
            ..kind
        };
        let all_curves = Hello {
            groups: Groups::ClassicalAllCurves,
            sni: false,
        };
        let (address, peer) = serve(server(kind, &TLS13), 2).await;
        for _ in 0..2 {
            let with = (all_curves, Handshake::Resumed);
            let seen = connect_with(&material, &connector, address, NAME, with)
                .await
                .expect(kind.words);
            let against = material.client(&connector).checks(None);
            let facts = seen.facts(against, Role::Server, Timestamp::now()).await;
            assert_eq!(unproved(&facts.certificate), kind.words);
            assert_eq!(facts.handshake, Handshake::Full, "never resumed");
        }
        peer.await.expect("the peer");
        let (address, _peer) = serve(server(kind, &TLS13), 1).await;
        let error = connect(&material, &connector, address, NAME)
            .await
            .expect_err("not offered");
        assert!(
            error
                .to_string()
                .starts_with("the peer breaks the TLS protocol"),
            "{error}"
        );
    }
}

/// A key that can be checked is checked: a wrong signature fails the handshake.
#[tokio::test]
async fn a_wrong_signature_by_a_checkable_key_fails_the_handshake() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&authority, folder.path());
    let chain = authority.issue(&[NAME]).chain;
    for versions in [&TLS12, &TLS13] {
        let forged = CertifiedKey::new(
            chain.clone(),
            Arc::new(Pretender(SignatureScheme::ECDSA_NISTP256_SHA256)),
        );
        let (address, _peer) = serve(showing(forged, versions), 1).await;
        let error = connect(&material, &connector, address, NAME)
            .await
            .expect_err("no proof");
        assert_eq!(
            error.to_string(),
            "the peer does not prove that it holds its certificate's key"
        );
    }
}

#[tokio::test]
async fn an_unoffered_scheme_fails_the_handshake_whatever_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&authority, folder.path());
    for versions in [&TLS12, &TLS13] {
        let sha1 = Kind {
            scheme: SignatureScheme::RSA_PKCS1_SHA1,
            ..RSA_1024
        };
        let (address, _peer) = serve(server(sha1, versions), 1).await;
        let error = connect(&material, &connector, address, NAME)
            .await
            .expect_err("not offered");
        assert!(
            error
                .to_string()
                .starts_with("the peer breaks the TLS protocol"),
            "{error}"
        );
    }
}
