//! The session that brought a message travels with it, for the evidence.

use gatepost::storage::evidence::{DemandOutcome, InboundSession, RecordedAssurance};
use gatepost::storage::spool::Entry;

use super::relay::{Relay, Wanted};

/// Returns the session that is stored with a message.
pub(super) fn by(entry: &Entry) -> InboundSession {
    let arrival = entry.envelope.arrival.as_ref();
    let arrival = arrival.expect("it travels with the message");
    serde_json::from_str(arrival.json()).expect("a session")
}

#[tokio::test]
async fn a_partner_is_on_record_with_its_tls_its_name_and_the_demand() {
    let mut relay = Relay::start(Wanted::default()).await;
    let mut client = relay.secured(true).await;
    client.begins("a@domain-c.com", "b@example.com").await;
    client.says("a\n.").await;
    client.hears("250 2.0.0").await;
    let by = by(&relay.entry().await);
    assert_eq!(
        (
            by.listener.as_str(),
            by.connector.as_str(),
            by.hello.as_deref()
        ),
        ("test", "domain-c", Some("client.example"))
    );
    assert_eq!(by.protocol.as_deref(), Some("ESMTPS"));
    assert_eq!(
        (by.session.level, by.standing),
        (RecordedAssurance::Verified, DemandOutcome::Met)
    );
    let tls = by.session.tls.expect("TLS");
    assert_eq!(
        (tls.version.as_str(), tls.matched_name.as_deref()),
        ("TLSv1.3", Some("mail.domain-c.com"))
    );
    assert!(
        tls.cipher.starts_with("TLS") && tls.key_exchange.is_some(),
        "{tls:?}"
    );
    assert!(
        tls.certificate
            .is_some_and(|shown| shown.spki.starts_with("sha256:"))
    );
    let demands = &by.policy.demands;
    assert_eq!(
        (
            by.policy.tls.as_str(),
            demands.len(),
            demands[0].layer.as_str()
        ),
        ("forced", 1, "connector")
    );
    assert_eq!(demands[0].level, RecordedAssurance::Verified);
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn who_shows_no_certificate_is_on_record_with_its_tls() {
    let mut relay = Relay::start(Wanted::default()).await;
    let mut client = relay.secured(false).await;
    client.begins("a@example.org", "b@example.com").await;
    client.says("a\n.").await;
    client.hears("250 2.0.0").await;
    let by = by(&relay.entry().await);
    assert_eq!(
        (by.session.level, by.standing, by.policy.tls.as_str()),
        (
            RecordedAssurance::Tls,
            DemandOutcome::Exceeded,
            "opportunistic"
        )
    );
    assert!(
        by.session
            .tls
            .is_some_and(|tls| tls.certificate.is_none() && tls.matched_name.is_none())
    );
    drop(client);
    relay.ends().await;
}

/// Without evidence the queue alone shows who sent a message.
#[tokio::test]
async fn without_evidence_the_session_goes_with_its_message_in_short() {
    let mut relay = Relay::start(Wanted {
        more: "[evidence]\npath = \"\"",
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    client.says("HELO old.example").await;
    client.hears("250").await;
    client.asks("MAIL FROM:<a@example.org>", "250").await;
    client.asks("RCPT TO:<b@example.com>", "250").await;
    client.content("a\r\n").await;
    let entry = relay.entry().await;
    assert_eq!(entry.envelope.arrival, None);
    let received = entry
        .envelope
        .reception()
        .expect("it goes with the message");
    assert_eq!(
        (
            received.protocol.as_deref(),
            received.hello.as_deref(),
            received.listener.as_str(),
            received.user.as_deref()
        ),
        (Some("SMTP"), Some("old.example"), "test", None)
    );
    let client_address = received.client.as_deref().unwrap_or_default();
    assert!(client_address.starts_with("127.0.0.1:"), "{received:?}");
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn behind_a_balancer_the_client_is_the_one_that_it_names() {
    let mut relay = Relay::start(Wanted {
        balancers: "127.0.0.1/32",
        ..Wanted::default()
    })
    .await;
    for (header, client, balancer) in [
        (
            "PROXY TCP4 192.0.2.77 10.0.0.1 40000 25",
            Some("192.0.2.77:40000"),
            false,
        ),
        ("PROXY UNKNOWN", None, true),
    ] {
        let mut session = relay.silent().await;
        session.says(header).await;
        session.hears("220").await;
        session.begins("a@example.org", "b@example.com").await;
        session.says("a\n.").await;
        session.hears("250 2.0.0").await;
        let by = by(&relay.entry().await);
        assert_eq!(
            (by.client.as_deref(), by.via.is_some()),
            (client, balancer),
            "{header}"
        );
    }
    relay.ends().await;
}
