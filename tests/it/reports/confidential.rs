//! Content that had to be sent over TLS does not come back in the clear.

use crate::support::in_process::{World, connector, peer};

const FORCED: &str = "tls = \"forced\"\nverify = \"none\"\non_failure = \"bounce\"";

#[tokio::test]
async fn under_a_forced_policy_header_fields_alone_are_returned() {
    let clear = peer(&[], &[]).await;
    let world = World::start("", &[connector("partner.example", clear.address, FORCED)]).await;
    for (content, subject) in [
        ("Subject: minutes\r\n\r\nThe very words.\r\n", true),
        // Content without a header must not pass for a header.
        ("The very words.\r\nand: more\r\n", false),
        ("\r\nThe very words.\r\n", false),
        ("Subject: minutes\r\nThe very words.\r\nX: y\r\n", true),
        ("", false),
    ] {
        let sent = world.reports().len();
        world
            .sends(
                "<alice@sender.example> RET=FULL",
                &["<bob@partner.example>"],
                content,
            )
            .await;
        world.is_done().await;
        let (_, report) = world.reports().swap_remove(sent);
        report.only("bob@partner.example", "failed", "5.7.4");
        let (kind, returned) = &report.returned;
        assert_eq!(kind, "text/rfc822-headers");
        assert!(
            returned.starts_with("Received: from client.example"),
            "{returned}"
        );
        assert_eq!(
            returned.contains("Subject: minutes\r\n"),
            subject,
            "{returned}"
        );
        assert!(
            !report.whole.contains("very words"),
            "{content:?} came back:\n{}",
            report.whole
        );
    }
    assert!(clear.heard().iter().all(|heard| !heard.has("MAIL")));
    world.ends().await;
}

/// The way in counts as the way out does: who must send to us under TLS is not answered with the
/// content in the clear.
#[tokio::test]
async fn content_that_had_to_come_under_tls_does_not_go_back() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let certs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
    let tls = format!(
        "[tls]\ncertificate = \"{0}/relay.pem\"\nkey = \"{0}/relay.key\"",
        certs.display()
    );
    let partner = "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n[connector.inbound]\ntls = \"forced\"\nverify = \"none\"\n";
    let home = crate::support::in_process::willing().await;
    let route = format!(
        "[connector.outbound]\nroute = [\"{}\"]\ntls = \"off\"\n",
        home.address
    );
    let connectors = [
        connector("bad.example", bad.address, ""),
        format!("{partner}{route}"),
    ];
    let world = World::start_with(home, &tls, &connectors).await;
    let mut client = world.client_under_tls().await;
    client
        .asks("MAIL FROM:<alice@partner.example>", "250")
        .await;
    client.asks("RCPT TO:<bob@bad.example>", "250").await;
    client
        .content("Subject: minutes\r\n\r\nThe very words.\r\n")
        .await;
    world.is_done().await;
    drop(client);
    let report = world.one_report("alice@partner.example");
    report.only("bob@bad.example", "failed", "5.1.1");
    assert_eq!(report.returned.0, "text/rfc822-headers");
    assert!(!report.whole.contains("very words"), "{}", report.whole);
    world.ends().await;
}
