//! The reports about a message that required TLS (RFC 8689 §5).

use crate::support::in_process::{World, connector, peer, queue, until, willing};

const CONTENT: &str = "Subject: minutes\r\n\r\nThe very words.\r\n";

/// A relay that offers STARTTLS, with this home, and these partners in the clear.
async fn started(home: crate::support::peer::Peer, connectors: &[String]) -> World {
    let certs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
    let tls = format!(
        "[tls]\ncertificate = \"{0}/relay.pem\"\nkey = \"{0}/relay.key\"",
        certs.display()
    );
    World::start_with(home, &tls, connectors).await
}

#[tokio::test]
async fn a_message_that_required_tls_and_found_none_bounces_at_once_without_its_content() {
    let clear = peer(&["PIPELINING", "REQUIRETLS"], &[]).await;
    let world = started(
        willing().await,
        &[connector("partner.example", clear.address, "")],
    )
    .await;
    let mut client = world.client_under_tls().await;
    client
        .asks(
            "MAIL FROM:<alice@sender.example> RET=FULL REQUIRETLS",
            "250",
        )
        .await;
    client.asks("RCPT TO:<bob@partner.example>", "250").await;
    client.content(CONTENT).await;
    drop(client);
    let report = world.the_report().await;
    let bob = report.only("bob@partner.example", "failed", "5.7.10");
    assert!(bob.get("Diagnostic-Code").contains("REQUIRETLS"), "{bob:?}");
    for words in [
        "You, or the program that sent your message, asked that it travel only encrypted",
        "But relay.example.com is set up to send to partner.example without encryption. If the message may travel without that",
    ] {
        assert!(
            report.text.replace('\n', " ").contains(words),
            "{words:?} is missing from\n{}",
            report.text
        );
    }
    assert_eq!(report.returned.0, "text/rfc822-headers");
    assert!(
        report.returned.1.contains("Subject: minutes\r\n"),
        "{}",
        report.returned.1
    );
    assert!(!report.whole.contains("very words"), "{}", report.whole);
    assert!(
        clear.heard().is_empty(),
        "the connector has TLS off: {:?}",
        clear.heard()
    );
    // Home is in the clear: nothing may be promised there, and the report is not lost for that.
    assert!(world.home.heard().iter().all(|heard| {
        !heard
            .commands
            .iter()
            .any(|line| line.contains("REQUIRETLS"))
    }));
    world.ends().await;
}

/// Whatever the failure, the report keeps the demand, and so would the next relay.
#[tokio::test]
async fn a_report_about_it_requires_tls_as_well() {
    let home = peer(&["8BITMIME"], &[("MAIL", "451 4.3.2 not now")]).await;
    let clear = peer(&["PIPELINING"], &[]).await;
    let world = started(home, &[connector("partner.example", clear.address, "")]).await;
    let mut client = world.client_under_tls().await;
    client
        .asks("MAIL FROM:<alice@sender.example> REQUIRETLS", "250")
        .await;
    client.asks("RCPT TO:<bob@partner.example>", "250").await;
    client.content(CONTENT).await;
    drop(client);
    let tls = until("the report waits in the queue", || {
        let queued = queue(world.folder.path());
        let report = queued
            .iter()
            .find(|(_, envelope)| envelope["reverse_path"] == "")?;
        Some(report.1["tls"].clone())
    });
    assert_eq!(tls.await, "require");
    world.ends().await;
}

#[tokio::test]
async fn a_message_with_tls_required_no_comes_back_complete_and_asks_for_nothing() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    let content = format!("TLS-Required: No\r\n{CONTENT}");
    world
        .sends("<alice@sender.example>", &["<bob@bad.example>"], &content)
        .await;
    let report = world.the_report().await;
    assert_eq!(
        report.header.find("TLS-Required"),
        None,
        "the sender's own domain is another matter"
    );
    assert!(
        report.returned.1.contains("TLS-Required: No\r\n") && report.whole.contains("very words")
    );
    world.ends().await;
}
