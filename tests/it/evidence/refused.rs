//! A partner that answers with the wrong certificate: on record is what it showed, and that it was
//! refused.

use std::path::PathBuf;

use gatepost::storage::evidence::{
    DeliveryRecord, DemandOutcome, RecordedAssurance, RecordedOutcome,
};
use tempfile::TempDir;

use super::daemon::{CERTS, PATIENCE, configure, evidence, is_whole, out, partner, start, told};
use super::world::folder;
use crate::support::client::{Client, Verdict};
use crate::support::message::Message;
use crate::support::peer::{Manner, Peer};
use crate::support::within;

/// Sends a message to a partner that has to show `name`, and shows another one. Returns the one
/// record of it and the folder and configuration of the daemon, which has ended.
async fn refused_for_its_name() -> (DeliveryRecord, TempDir, PathBuf) {
    let folder = folder();
    let peer = Peer::start(Manner::new(partner())).await;
    let connectors = format!(
        "[tls]\ntrust = \"{CERTS}/ca.pem\"\n[[connector]]\nname = \"wrong\"\ndomains = [\"wrong.example\"]\n\
         names = [\"mail.wrong.example\"]\n[connector.outbound]\nroute = [\"{}\"]\ndiscover = []\n\
         tls = \"forced\"\nverify = \"name\"\n",
        peer.address
    );
    let file = configure(folder.path(), "path = \"evidence\"", &connectors);
    let (path, configuration) = (folder.path().to_owned(), file.clone());
    let mut all = tokio::task::spawn_blocking(move || {
        let relay = start(&configuration);
        let message = Message::new("m", &["wrong.example"], 500);
        assert!(matches!(
            Client::connect(relay.address)
                .expect("it listens")
                .send(&message),
            Verdict::Accepted(_)
        ));
        assert!(within(PATIENCE, || !told(&path).is_empty()));
        assert!(
            relay
                .terminate()
                .status
                .is_some_and(|status| status.success())
        );
        is_whole(&path);
        told(&path)
    })
    .await
    .expect("no panic");
    assert!(
        !peer.heard().iter().any(|heard| heard.has("MAIL")),
        "it never heard of the message"
    );
    let record = all.pop().expect("a record");
    assert_eq!(all.len(), 0, "one record and no other");
    (record, folder, file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_with_the_wrong_name_is_on_record_with_its_tls_and_refused() {
    let (record, ..) = refused_for_its_name().await;
    assert_eq!(
        (record.standing, record.outcome),
        (DemandOutcome::Refused, RecordedOutcome::Deferred)
    );
    let unmet = record.unmet.expect("a demand");
    assert_eq!(
        unmet.got,
        "the certificate is for mail.domain-c.com, not for mail.wrong.example"
    );
    let session = record.session.expect("a session");
    assert_eq!(
        (session.level, session.no_tls),
        (RecordedAssurance::Trusted, None)
    );
    let tls = session.tls.expect("TLS");
    assert_eq!(
        (
            tls.version.as_str(),
            tls.authentication.as_str(),
            tls.matched_name
        ),
        ("TLSv1.3", "trusted", None)
    );
    assert!(
        tls.cipher.starts_with("TLS") && tls.key_exchange.is_some(),
        "{:?}",
        tls.cipher
    );
    let shown = tls.certificate.expect("a certificate");
    assert_eq!(
        (&shown.names[..], shown.more_names),
        (&["mail.domain-c.com".to_owned()][..], 0)
    );
    assert!(
        shown.spki.starts_with("sha256:") && !shown.issuer.is_empty(),
        "{shown:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_show_a_certificate_that_was_refused() {
    let (record, _folder, file) = refused_for_its_name().await;
    let show = |arguments: &[&str]| out(&evidence(&file, arguments));
    let list = show(&["list"]);
    assert!(
        list.contains(" TLS, trusted, demand refused; deferred 4.7.5"),
        "{list}"
    );
    let tls = record.session.and_then(|session| session.tls).expect("TLS");
    let shown = tls.certificate.expect("a certificate");
    let csv = show(&["list", "--csv"]);
    for cell in [
        &tls.cipher,
        &shown.spki,
        "mail.domain-c.com",
        &shown.issuer,
        "refused",
    ] {
        assert!(csv.contains(cell), "{cell} is missing from {csv}");
    }
    let summary = show(&["summary", "--csv"]);
    let counted = summary.lines().nth(1);
    assert_eq!(
        counted,
        Some("wrong,wrong.example,0,0,0,0,0,0,0,0,0,1,1,0,0,0"),
        "refused, and under no level"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ehlo_that_is_refused_under_tls_is_on_record_with_its_tls() {
    let folder = folder();
    // In the clear it is answered, under TLS it is not.
    let manner = Manner::new(partner()).answer_after(1, "EHLO", "421 4.7.0 not from you");
    let peer = Peer::start(manner).await;
    let connectors = format!(
        "[tls]\ntrust = \"{CERTS}/ca.pem\"\n[[connector]]\nname = \"named\"\ndomains = [\"named.example\"]\n\
         names = [\"mail.domain-c.com\"]\n[connector.outbound]\nroute = [\"{}\"]\ndiscover = []\n\
         tls = \"forced\"\nverify = \"name\"\n",
        peer.address
    );
    let file = configure(folder.path(), "path = \"evidence\"", &connectors);
    let path = folder.path().to_owned();
    let mut all = tokio::task::spawn_blocking(move || {
        let relay = start(&file);
        let message = Message::new("m", &["named.example"], 500);
        assert!(matches!(
            Client::connect(relay.address)
                .expect("it listens")
                .send(&message),
            Verdict::Accepted(_)
        ));
        assert!(within(PATIENCE, || !told(&path).is_empty()));
        drop(relay);
        told(&path)
    })
    .await
    .expect("no panic");
    assert!(
        !peer.heard().iter().any(|heard| heard.has("MAIL")),
        "it never heard of the message"
    );
    let Some(DeliveryRecord {
        session: Some(session),
        unmet: None,
        standing,
        outcome,
        reply,
        ..
    }) = all.pop()
    else {
        panic!("no session: {all:?}")
    };
    assert_eq!(
        (standing, outcome, reply.as_deref()),
        (
            DemandOutcome::Unreached,
            RecordedOutcome::Deferred,
            Some("421 4.7.0 not from you")
        )
    );
    assert_eq!(
        (session.level, session.no_tls),
        (RecordedAssurance::Verified, None)
    );
    let tls = session.tls.expect("TLS");
    assert_eq!(
        (tls.version.as_str(), tls.matched_name.as_deref()),
        ("TLSv1.3", Some("mail.domain-c.com"))
    );
}
