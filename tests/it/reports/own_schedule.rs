//! The schedule of a connector, in place of that of `[queue]`.

use crate::support::in_process::{SENDER, World, connector, peer, queue, until};
use crate::support::peer::Nobody;

/// With this, nothing is tried a second time, reported or bounced while a test runs.
const QUEUE: &str = "[queue]\nretry = [\"1h\"]\nexpire = \"5d\"\nwarn_after = \"never\"";

#[tokio::test]
async fn a_connector_has_a_time_for_delay_reports_of_its_own() {
    let down = Nobody::at([127, 0, 0, 1]);
    let lines = "expire = \"2d\"\nwarn_after = \"300ms\"";
    let connectors = [connector("down.example", down.address, lines)];
    let world = World::start(QUEUE, &connectors).await;
    world
        .sends(
            "<alice@sender.example>",
            &["<bob@down.example>"],
            "Subject: x\r\n\r\nx\r\n",
        )
        .await;
    until("the notice has come", || world.reports().pop()).await;
    let report = world.one_report(SENDER);
    let bob = report.only("bob@down.example", "delayed", "4.4.1");
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).expect("a date").timestamp();
    let left =
        date(bob.get("Will-Retry-Until")).duration_since(date(report.message.get("Arrival-Date")));
    assert!((left.as_secs() - 2 * 24 * 3600).abs() < 60, "{left:?}");
    world.ends().await;
}

#[tokio::test]
async fn a_connector_has_retries_and_an_age_of_its_own() {
    let slow = peer(&[], &[("RCPT", "451 4.2.1 later")]).await;
    let other = peer(&[], &[("RCPT", "451 4.2.1 later")]).await;
    let lines = "retry = [\"100ms\"]\nexpire = \"1500ms\"";
    let connectors = [
        connector("slow.example", slow.address, lines),
        connector("other.example", other.address, ""),
    ];
    let world = World::start(QUEUE, &connectors).await;
    let to = ["<bob@slow.example>", "<carol@other.example>"];
    world
        .sends("<alice@sender.example>", &to, "Subject: x\r\n\r\nx\r\n")
        .await;
    until("the bounce has come", || world.reports().pop()).await;
    let report = world.one_report(SENDER);
    report.only("bob@slow.example", "failed", "5.4.7");
    assert!(
        report.text.contains("not delivered within 1s 500ms"),
        "{}",
        report.text
    );
    let tries = |heard: Vec<crate::support::peer::Heard>| {
        let commands = heard.into_iter().flat_map(|heard| heard.commands);
        commands.filter(|line| line.starts_with("RCPT")).count()
    };
    assert!(tries(slow.heard()) > 1, "it was tried again before");
    assert_eq!(tries(other.heard()), 1, "the other domain has an hour");
    world.ends().await;
}

/// The backoff of a host that is down would otherwise last an hour.
#[tokio::test]
async fn a_backoff_follows_the_retries_of_the_connector() {
    let down = Nobody::at([127, 0, 0, 1]);
    let connectors = [connector(
        "down.example",
        down.address,
        "retry = [\"100ms\"]",
    )];
    let world = World::start(QUEUE, &connectors).await;
    let to = ["<bob@down.example>"];
    world
        .sends("<alice@sender.example>", &to, "Subject: x\r\n\r\nx\r\n")
        .await;
    until("it was tried three times", || {
        let (_, message) = queue(world.folder.path()).pop()?;
        let pending = &message["recipients"][0]["state"]["pending"];
        (pending["attempts"].as_u64()? >= 3).then_some(())
    })
    .await;
    world.ends().await;
}
