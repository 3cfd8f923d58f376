//! The reports about one message to many domains, which become one report of each kind.

use std::time::Duration;

use tokio::time::timeout;

use super::backscatter::restarted;
use crate::support::dsn::Report;
use crate::support::in_process::{PATIENCE, SENDER, World, connector, peer, queue, until};
use crate::support::peer::Peer;

const CONTENT: &str = "Subject: minutes\r\n\r\nThe very words.\r\n";

/// The connector for every domain below `many.example`.
fn many(to: &Peer) -> String {
    format!(
        "[[connector]]\nname = \"many\"\ndomains = [\"*.many.example\"]\n[connector.outbound]\nroute = [\"{}\"]\ntls = \"off\"\n",
        to.address
    )
}

/// Sends a message to `b` at so many domains. Returns the addresses.
async fn sends_to(world: &World, domains: u32) -> Vec<String> {
    let to: Vec<String> = (0..domains)
        .map(|number| format!("b@d{number}.many.example"))
        .collect();
    let paths: Vec<String> = to.iter().map(|to| format!("<{to}>")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    world.sends(&format!("<{SENDER}>"), &paths, CONTENT).await;
    to
}

/// Asserts that a report names these recipients, each with this action and status.
fn assert_names(report: &Report, to: &[String], action: &str, status: &str) {
    let expected: Vec<_> = to
        .iter()
        .map(|to| (to.clone(), action.to_owned(), status.to_owned()))
        .collect();
    assert_eq!(report.tells(), expected);
}

#[tokio::test]
async fn a_thousand_domains_that_reject_make_one_report_of_bounded_size() {
    let words: &str = Box::leak(format!("550 5.1.1 {}", "nobody ".repeat(60)).into_boxed_str());
    let bad = peer(&[], &[("RCPT", words)]).await;
    let world = World::start("[queue]\ndsn_gather = \"1h\"", &[many(&bad)]).await;
    let to = sends_to(&world, 1000).await;
    // A thousand attempts take a busy machine a while.
    let is_done = async {
        while !queue(world.folder.path()).is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(4 * PATIENCE, is_done).await.expect("in time");
    let report = world.the_report().await;
    assert_names(&report, &to, "failed", "5.1.1");
    assert!(
        report.whole.len() < 1 << 20,
        "{} octets",
        report.whole.len()
    );
    world.ends().await;
}

#[tokio::test]
async fn domains_that_are_late_make_one_notice() {
    let late = peer(&[], &[("RCPT", "451 4.2.1 later")]).await;
    let gather = |time: &str| {
        format!(
            "[queue]\nretry = [\"1h\"]\nexpire = \"1d\"\nwarn_after = \"2s\"\ndsn_gather = \"{time}\""
        )
    };
    let world = World::start(&gather("1h"), &[many(&late)]).await;
    let to = sends_to(&world, 50).await;
    let all_are = |world: &World, wanted: fn(&serde_json::Value) -> bool| {
        let all = queue(world.folder.path());
        let recipients = all[0].1["recipients"].as_array().expect("a list");
        recipients.iter().all(wanted).then_some(())
    };
    let is_owed = |recipient: &serde_json::Value| recipient["owed"].is_object();
    until("every notice is owed", || all_are(&world, is_owed)).await;
    assert!(world.reports().is_empty(), "they are gathered for an hour");
    let world = restarted(world, &gather("1s"), &[many(&late)]).await;
    until("a notice has come", || world.reports().pop()).await;
    let is_reported = |recipient: &serde_json::Value| {
        recipient["state"]["pending"]["warned"] == true && recipient["owed"].is_null()
    };
    until("nothing is owed", || all_are(&world, is_reported)).await;
    assert_names(&world.one_report(SENDER), &to, "delayed", "4.2.1");
    world.ends().await;
}

#[tokio::test]
async fn domains_that_expire_make_one_report() {
    let late = peer(&[], &[("RCPT", "451 4.2.1 later")]).await;
    let before =
        "[queue]\nretry = [\"1h\"]\nexpire = \"2s\"\nwarn_after = \"never\"\ndsn_gather = \"1h\"";
    let world = World::start(before, &[many(&late)]).await;
    let to = sends_to(&world, 50).await;
    assert_names(&world.the_report().await, &to, "failed", "5.4.7");
    world.ends().await;
}

#[tokio::test]
async fn after_a_restart_a_report_waits_for_the_domains_that_are_left() {
    let (bad, late) = (
        peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await,
        peer(&[], &[("RCPT", "451 4.2.1 later")]).await,
    );
    let before = "[queue]\nretry = [\"1s\"]\nwarn_after = \"never\"\ndsn_gather = \"1h\"";
    let first = connector("bad.example", bad.address, "");
    let connectors = [
        first.clone(),
        connector("late.example", late.address, ""),
        connector("later.example", late.address, ""),
    ];
    let world = World::start(before, &connectors).await;
    let to = ["<b@bad.example>", "<b@late.example>", "<b@later.example>"];
    world.sends(&format!("<{SENDER}>"), &to, CONTENT).await;
    until("one has failed and the others wait", || {
        let all = queue(world.folder.path());
        let recipients = &all[0].1["recipients"];
        let waits = |at: usize| recipients[at]["state"]["pending"]["next"].is_string();
        (recipients[0]["owed"].is_object() && waits(1) && waits(2)).then_some(())
    })
    .await;
    let connectors = [
        first,
        connector("late.example", bad.address, ""),
        connector("later.example", bad.address, ""),
    ];
    let world = restarted(world, before, &connectors).await;
    let to = ["b@bad.example", "b@late.example", "b@later.example"].map(str::to_owned);
    assert_names(&world.the_report().await, &to, "failed", "5.1.1");
    world.ends().await;
}
