//! Sessions that are resumed, and those that must not be.

use std::sync::Arc;

use gatepost::config::Connector;
use gatepost::net::tls_io::{Role, TlsMaterial};
use gatepost::policy::tls::{Handshake, PeerCertificate};
use jiff::Timestamp;
use rustls::HandshakeKind;
use rustls::crypto::aws_lc_rs::Ticketer;

use super::inbound::{client_config, meet, ours};
use crate::support::certificates::*;

const NAME: &str = "mail.partner.example";

/// A partner's server that sends tickets in every version, and our client.
struct Partner {
    authority: Authority,
    material: Arc<TlsMaterial>,
    connector: Connector,
    _folder: tempfile::TempDir,
}

impl Partner {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::root("Partner CA");
        let (material, connector) = material_trusting(&authority, folder.path());
        Self {
            authority,
            material,
            connector,
            _folder: folder,
        }
    }

    fn server(&self, versions: Versions<'_>) -> rustls::ServerConfig {
        let mut server = server_config(&self.authority.issue(&[NAME]), versions);
        server.ticketer = Ticketer::new().expect("a ticketer");
        server
    }

    /// Runs two sessions in a row. Returns the server's view and our facts of each.
    async fn twice(
        &self,
        versions: Versions<'_>,
        wanted: [Handshake; 2],
    ) -> Vec<(HandshakeKind, Handshake)> {
        let (address, peer) = serve(self.server(versions), wanted.len()).await;
        let mut told = Vec::new();
        for handshake in wanted {
            let seen = connect_by(&self.material, &self.connector, address, NAME, handshake).await;
            let against = self.material.client(&self.connector).checks(None);
            let facts = seen
                .expect("a handshake")
                .facts(against, Role::Server, Timestamp::now())
                .await;
            let PeerCertificate::Certificate(certificate) = &facts.certificate else {
                panic!("the certificate is told, whenever it was shown: {facts:?}")
            };
            assert_eq!(
                (certificate.chain.clone(), certificate.names.len()),
                (Ok(()), 1)
            );
            told.push(facts.handshake);
        }
        let kinds = peer
            .await
            .expect("the peer")
            .into_iter()
            .map(|session| session.expect("complete").kind);
        kinds.zip(told).collect()
    }
}

const ANEW: (HandshakeKind, Handshake) = (HandshakeKind::Full, Handshake::Full);
const RESUMED: (HandshakeKind, Handshake) = (HandshakeKind::Resumed, Handshake::Resumed);

#[tokio::test]
async fn a_session_is_resumed_if_no_identity_is_demanded() {
    let partner = Partner::new();
    assert_eq!(
        partner.twice(&TLS13, [Handshake::Resumed; 2]).await,
        [ANEW, RESUMED]
    );
}

#[tokio::test]
async fn a_demanded_certificate_needs_a_full_handshake_despite_a_ticket() {
    use Handshake::{Full, Resumed};
    for wanted in [[Full, Full], [Resumed, Full], [Full, Resumed]] {
        for versions in [&TLS12, &TLS13] {
            assert_eq!(
                Partner::new().twice(versions, wanted).await,
                [ANEW, ANEW],
                "{wanted:?}, {versions:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_tls_1_2_session_is_never_resumed() {
    assert_eq!(
        Partner::new().twice(&TLS12, [Handshake::Resumed; 2]).await,
        [ANEW, ANEW]
    );
}

#[tokio::test]
async fn an_unknown_ticket_leads_to_a_full_handshake() {
    let partner = Partner::new();
    assert_eq!(
        partner.twice(&TLS13, [Handshake::Resumed; 2]).await,
        [ANEW, RESUMED]
    );
    // Another server of that name, with other ticket keys.
    assert_eq!(
        partner.twice(&TLS13, [Handshake::Resumed; 2]).await[0],
        ANEW
    );
}

#[tokio::test]
async fn a_failed_handshake_removes_the_tickets() {
    let partner = Partner::new();
    let (address, _peer) = serve(partner.server(&TLS13), 2).await;
    let connect = |address| {
        connect_by(
            &partner.material,
            &partner.connector,
            address,
            NAME,
            Handshake::Resumed,
        )
    };
    connect(address)
        .await
        .expect("a handshake, and two tickets");
    // A server of that name that supports only TLS 1.2, and fails on a ClientHello with a ticket.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback");
    let closing = listener.local_addr().expect("bound");
    let closed = tokio::spawn(async move { drop(listener.accept().await.expect("a client")) });
    connect(closing).await.expect_err("closed");
    closed.await.expect("the listener");
    let seen = connect(address).await.expect("a handshake");
    let facts = seen
        .facts(
            partner.material.client(&partner.connector).checks(None),
            Role::Server,
            Timestamp::now(),
        )
        .await;
    assert_eq!(facts.handshake, Handshake::Full);
}

#[tokio::test]
async fn clients_resume_sessions_only_if_no_certificate_is_requested() {
    let ours = ours();
    let material = load(&ours.config);
    for (ask, wanted) in [(false, HandshakeKind::Resumed), (true, HandshakeKind::Full)] {
        // One configuration, and so one session store, for both connections.
        let client = Arc::new(client_config(&ours.authority, &TLS13, None));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (theirs, seen) = meet(&material, ask, &client, "relay.example.com").await;
            kinds.push(theirs.expect("a handshake").0);
            seen.expect("a handshake");
        }
        assert_eq!(kinds, [HandshakeKind::Full, wanted], "asked: {ask}");
    }
}

#[tokio::test]
async fn tickets_end_with_their_configuration() {
    let ours = ours();
    let client = Arc::new(client_config(&ours.authority, &TLS13, None));
    for _ in 0..2 {
        let (theirs, _) = meet(&load(&ours.config), false, &client, "relay.example.com").await;
        assert_ne!(theirs.expect("a handshake").0, HandshakeKind::Resumed);
    }
}
