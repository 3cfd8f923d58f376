//! Addresses and header fields beyond ASCII (RFC 6531, RFC 6533).

use crate::support::in_process::{World, connector, peer};

const CONTENT: &str =
    "From: =?utf-8?q?J=C3=BCrgen?= <alice@sender.example>\r\nSubject: minutes\r\n\r\nbody\r\n";
const GLOBAL: &str =
    "From: Jürgen <jürgen@sender.example>\r\nSubject: Protokoll für bö\r\n\r\nWörter\r\n";

/// The sender's host may take seven bits only; RFC 6533 §3 has a form for that.
#[tokio::test]
async fn a_recipient_outside_ascii_is_named_in_seven_bits() {
    let bad = peer(
        &["8BITMIME", "SMTPUTF8"],
        &[("RCPT", "550 5.1.1 kein Benutzer für Sie")],
    )
    .await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    let from = "<alice@sender.example> SMTPUTF8";
    world
        .sends(
            from,
            &["<bö@bad.example> ORCPT=utf-8;b\\x{F6}@bad.example"],
            CONTENT,
        )
        .await;
    let report = world.the_report().await;
    let fields = report.only("b\\x{F6}@bad.example", "failed", "5.1.1");
    assert_eq!(report.kind, "message/delivery-status");
    assert_eq!(fields.get("Final-Recipient"), "utf-8; b\\x{F6}@bad.example");
    assert_eq!(
        fields.get("Original-Recipient"),
        "utf-8; b\\x{F6}@bad.example"
    );
    assert_eq!(
        fields.get("Diagnostic-Code"),
        "smtp; 550 5.1.1 kein Benutzer f?r Sie"
    );
    assert!(
        report.text.contains("<bö@bad.example>:") && report.text.contains("für Sie"),
        "{}",
        report.text
    );
    assert_eq!(
        report.returned.0, "message/rfc822",
        "the message itself has nothing beyond ASCII"
    );
    let heard = world.home.heard();
    assert!(
        heard[0].has("MAIL FROM:<>")
            && !heard[0]
                .commands
                .iter()
                .any(|line| line.contains("BODY=8BITMIME"))
    );
    assert!(
        !heard[0]
            .commands
            .iter()
            .any(|line| line.contains("SMTPUTF8")),
        "no address or field of it needs that"
    );
    world.ends().await;
}

/// Whoever takes mail for such a sender takes eight bits.
#[tokio::test]
async fn a_sender_outside_ascii_has_the_recipient_named_as_it_is() {
    let bad = peer(
        &["8BITMIME", "SMTPUTF8"],
        &[("RCPT", "550 5.1.1 kein Benutzer für Sie")],
    )
    .await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    world
        .sends(
            "<jürgen@sender.example> SMTPUTF8",
            &["<bö@bad.example> ORCPT=utf-8;b\\x{F6}@bad.example"],
            CONTENT,
        )
        .await;
    world.is_done().await;
    let report = world.one_report("jürgen@sender.example");
    let fields = report.only("bö@bad.example", "failed", "5.1.1");
    assert_eq!(report.kind, "message/global-delivery-status");
    assert_eq!(
        fields.get("Original-Recipient"),
        "utf-8; b\\x{F6}@bad.example"
    );
    assert_eq!(
        fields.get("Diagnostic-Code"),
        "smtp; 550 5.1.1 kein Benutzer für Sie"
    );
    assert!(
        world.home.heard()[0]
            .commands
            .iter()
            .any(|line| line.contains("BODY=8BITMIME"))
    );
    world.ends().await;
}

#[tokio::test]
async fn a_sender_outside_ascii_gets_its_report_under_smtputf8() {
    let bad = peer(&["8BITMIME", "SMTPUTF8"], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    for (ret, kind) in [
        ("", "message/global"),
        (" RET=HDRS", "message/global-headers"),
    ] {
        let sent = world.reports().len();
        world
            .sends(
                &format!("<jürgen@sender.example> SMTPUTF8 BODY=8BITMIME{ret}"),
                &["<bob@bad.example>"],
                GLOBAL,
            )
            .await;
        world.is_done().await;
        let (to, report) = world.reports().swap_remove(sent);
        assert_eq!(to, ["jürgen@sender.example"]);
        report.only("bob@bad.example", "failed", "5.1.1");
        assert_eq!(
            report.kind, "message/delivery-status",
            "nothing in it is beyond ASCII"
        );
        assert_eq!(report.header.get("To"), "<jürgen@sender.example>");
        assert_eq!(report.returned.0, kind);
        assert!(report.returned.1.contains("Subject: Protokoll für bö\r\n"));
        assert_eq!(report.whole.contains("Wörter"), kind == "message/global");
    }
    let mail: Vec<_> = world
        .home
        .heard()
        .into_iter()
        .flat_map(|heard| heard.commands)
        .collect();
    let mail = mail.iter().filter(|line| line.starts_with("MAIL"));
    assert!(
        mail.clone().count() == 2 && mail.clone().all(|line| line.contains("SMTPUTF8")),
        "{:?}",
        mail.collect::<Vec<_>>()
    );
    world.ends().await;
}

#[tokio::test]
async fn mail_that_an_ascii_only_host_cannot_accept_bounces_to_its_sender() {
    let old = peer(&["8BITMIME"], &[]).await;
    let world = World::start("", &[connector("old.example", old.address, "")]).await;
    world
        .sends(
            "<alice@sender.example> SMTPUTF8",
            &["<bö@old.example>"],
            CONTENT,
        )
        .await;
    let report = world.the_report().await;
    let fields = report.only("b\\x{F6}@old.example", "failed", "5.6.7");
    assert!(
        fields.get("Diagnostic-Code").starts_with("x-gatepost; "),
        "{fields:?}"
    );
    assert!(
        fields.get("Diagnostic-Code").contains("no SMTPUTF8"),
        "{fields:?}"
    );
    assert!(!old.heard()[0].has("MAIL"), "{:?}", old.heard());
    world.ends().await;
}

/// Octets above 127 without SMTPUTF8 are nothing that a report could do without: it has them in a
/// form that passes.
#[tokio::test]
async fn eight_bits_in_a_header_are_returned_in_seven() {
    let bad = peer(&["8BITMIME"], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    let from = "<alice@sender.example> BODY=8BITMIME RET=HDRS";
    world
        .sends(
            from,
            &["<bob@bad.example>"],
            "Subject: für bö\r\n\r\nWörter\r\n",
        )
        .await;
    let report = world.the_report().await;
    assert_eq!(report.returned.0, "text/rfc822-headers");
    assert!(
        report.returned.1.contains("Subject: für bö\r\n") && !report.returned.1.contains("Wörter")
    );
    assert!(
        !world.home.heard()[0]
            .commands
            .iter()
            .any(|line| line.contains("BODY=8BITMIME"))
    );
    world.ends().await;
}
