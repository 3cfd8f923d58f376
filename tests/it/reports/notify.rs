//! NOTIFY, RET, ENVID and ORCPT: honoured here, or passed on to whoever honours them.

use crate::support::in_process::{SENDER, World, connector, peer};

const CONTENT: &str = "Subject: minutes\r\n\r\nThe very words.\r\n";

#[tokio::test]
async fn failures_are_reported_to_senders_who_want_reports() {
    let bad = peer(&["PIPELINING", "DSN"], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    let to = [
        "<never@bad.example> NOTIFY=NEVER",
        "<success@bad.example> NOTIFY=SUCCESS",
        "<failure@bad.example> NOTIFY=FAILURE",
        "<delay@bad.example> NOTIFY=DELAY",
        "<all@bad.example> NOTIFY=SUCCESS,FAILURE,DELAY",
        "<nothing@bad.example>",
    ];
    world.sends("<alice@sender.example>", &to, CONTENT).await;
    let report = world.the_report().await;
    let told = |name: &str| {
        (
            format!("{name}@bad.example"),
            "failed".to_owned(),
            "5.1.1".to_owned(),
        )
    };
    assert_eq!(report.tells(), ["failure", "all", "nothing"].map(told));
    world.ends().await;
}

#[tokio::test]
async fn no_report_is_sent_where_nobody_wants_one() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    let to = [
        "<a@bad.example> NOTIFY=NEVER",
        "<b@bad.example> NOTIFY=SUCCESS,DELAY",
    ];
    world.sends("<alice@sender.example>", &to, CONTENT).await;
    world.is_done().await;
    assert_eq!(world.home.heard(), []);
    world.ends().await;
}

#[tokio::test]
async fn success_is_reported_as_relayed_where_the_next_hop_offers_no_dsn() {
    let plain = peer(&["PIPELINING"], &[]).await;
    let world = World::start("", &[connector("plain.example", plain.address, "")]).await;
    let to = [
        "<success@plain.example> NOTIFY=SUCCESS ORCPT=rfc822;Suc+2Bcess@origin.example",
        "<failure@plain.example> NOTIFY=FAILURE,DELAY",
        "<never@plain.example> NOTIFY=NEVER",
        "<nothing@plain.example>",
    ];
    world
        .sends(
            "<alice@sender.example> RET=FULL ENVID=QQ+2B314",
            &to,
            CONTENT,
        )
        .await;
    let report = world.the_report().await;
    let fields = report.only("success@plain.example", "relayed", "2.0.0");
    assert_eq!(
        fields.get("Original-Recipient"),
        "rfc822; Suc+cess@origin.example"
    );
    assert_eq!(fields.get("Diagnostic-Code"), "smtp; 250 queued");
    assert_eq!(fields.get("Remote-MTA"), "dns; [127.0.0.1]");
    assert_eq!(report.message.get("Original-Envelope-Id"), "QQ+314");
    assert_eq!(
        report.returned.0, "text/rfc822-headers",
        "a message that is not lost need not come back"
    );
    assert!(report.text.contains("was relayed"), "{}", report.text);
    let commands = plain.heard().remove(0).commands;
    assert!(
        commands
            .iter()
            .all(|line| !line.contains("NOTIFY") && !line.contains("ORCPT")),
        "{commands:?}"
    );
    assert!(
        commands
            .iter()
            .all(|line| !line.contains("RET") && !line.contains("ENVID")),
        "{commands:?}"
    );
    assert_eq!(plain.messages().len(), 1);
    world.ends().await;
}

#[tokio::test]
async fn everything_is_passed_on_to_a_host_that_offers_dsn() {
    let able = peer(&["PIPELINING", "DSN"], &[]).await;
    let world = World::start("", &[connector("able.example", able.address, "")]).await;
    let to = [
        "<success@able.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Suc+2Bcess@origin.example",
        "<never@able.example> NOTIFY=NEVER",
        "<nothing@able.example>",
    ];
    world
        .sends(
            "<alice@sender.example> RET=HDRS ENVID=QQ+2B314",
            &to,
            CONTENT,
        )
        .await;
    world.is_done().await;
    let commands = able.heard().remove(0).commands;
    let has = |line: &str| {
        assert!(
            commands.iter().any(|command| command == line),
            "{line} is not in {commands:?}"
        );
    };
    has("MAIL FROM:<alice@sender.example> RET=HDRS ENVID=QQ+2B314");
    has(
        "RCPT TO:<success@able.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Suc+2Bcess@origin.example",
    );
    has("RCPT TO:<never@able.example> NOTIFY=NEVER");
    has("RCPT TO:<nothing@able.example>");
    assert_eq!(world.home.heard(), [], "whoever has it now tells of it");
    world.ends().await;
}

#[tokio::test]
async fn ret_says_how_much_comes_back() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    let large = format!(
        "Subject: large\r\n\r\n{}",
        "The very words.\r\n".repeat(4000)
    );
    for (ret, content, kind) in [
        (" RET=HDRS", CONTENT, "text/rfc822-headers"),
        (" RET=FULL", CONTENT, "message/rfc822"),
        ("", CONTENT, "message/rfc822"),
        (" RET=FULL", &large, "text/rfc822-headers"),
    ] {
        let sent = world.reports().len();
        world
            .sends(&format!("<{SENDER}>{ret}"), &["<bob@bad.example>"], content)
            .await;
        world.is_done().await;
        let (_, report) = world.reports().swap_remove(sent);
        assert_eq!(report.returned.0, kind, "{ret}");
        assert!(
            report.returned.1.contains("\r\nSubject: "),
            "{}",
            report.returned.1
        );
        assert_eq!(
            report.whole.contains("The very words."),
            kind == "message/rfc822",
            "{ret}"
        );
    }
    world.ends().await;
}
