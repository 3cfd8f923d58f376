//! Reports to senders that never sent: how many there are, what they bring back, and what becomes
//! of those that must wait.

use std::sync::Arc;

use crate::support::in_process::{
    SENDER, World, configured, connector, peer, queue, run, until, willing,
};
use crate::support::session::Client;

const CONTENT: &str = "Subject: minutes\r\n\r\nThe very words.\r\n";

/// The messages that wait for their report alone, as the next start would find them.
fn owed(world: &World) -> Vec<String> {
    let all = queue(world.folder.path()).into_iter();
    let is_owed = |envelope: &serde_json::Value| {
        let recipients = envelope["recipients"].as_array().expect("a list");
        recipients.iter().all(|recipient| {
            recipient["state"] == "failed" && recipient["owed"]["status"] == "5.1.1"
        })
    };
    all.filter(|(_, envelope)| is_owed(envelope))
        .map(|(id, _)| id)
        .collect()
}

/// Ends the relay and starts it again with what stands before its connectors.
pub(crate) async fn restarted(world: World, before: &str, connectors: &[String]) -> World {
    let (folder, home) = world.ends().await;
    let config = configured(folder.path(), home.address, before, connectors);
    let (address, running) = run(config, Arc::new(())).await;
    World {
        home,
        address,
        folder,
        running,
    }
}

#[tokio::test]
async fn one_message_to_two_hundred_domains_makes_one_report() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let all = format!(
        "[[connector]]\nname = \"bad\"\ndomains = [\"*.bad.example\"]\n[connector.outbound]\nroute = [\"{}\"]\ntls = \"off\"\n",
        bad.address
    );
    let world = World::start("[queue]\ndsn_gather = \"1h\"", &[all]).await;
    let to: Vec<String> = (0..200)
        .map(|number| format!("<b@d{number}.bad.example>"))
        .collect();
    world
        .sends(
            "<alice@sender.example>",
            &to.iter().map(String::as_str).collect::<Vec<_>>(),
            CONTENT,
        )
        .await;
    let report = world.the_report().await;
    let told: Vec<_> = report
        .tells()
        .into_iter()
        .map(|(to, ..)| format!("<{to}>"))
        .collect();
    assert_eq!(told, to);
    world.ends().await;
}

#[tokio::test]
async fn while_others_may_follow_a_report_waits_for_them_and_not_for_ever() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let slow = peer(&[], &[("RCPT", "451 4.2.1 later")]).await;
    let connectors = [
        connector("bad.example", bad.address, ""),
        connector("worse.example", bad.address, ""),
        connector("slow.example", slow.address, ""),
        connector("slower.example", slow.address, ""),
    ];
    let world = World::start(
        "[queue]\nretry = [\"1h\"]\ndsn_gather = \"3s\"",
        &connectors,
    )
    .await;
    let to = [
        "<a@bad.example>",
        "<b@worse.example>",
        "<c@slow.example>",
        "<d@slower.example>",
    ];
    let id = world.sends("<alice@sender.example>", &to, CONTENT).await;
    let states = |wanted: fn(&serde_json::Value) -> bool| {
        let all = queue(world.folder.path());
        let (_, envelope) = all
            .iter()
            .find(|(name, _)| *name == id)
            .expect("two recipients wait");
        let recipients = envelope["recipients"].as_array().expect("a list");
        recipients[..2].iter().all(wanted).then_some(())
    };
    until("both are owed", || {
        states(|recipient| recipient["state"] == "failed" && recipient["owed"].is_object())
    })
    .await;
    assert!(world.reports().is_empty(), "there may be more to tell");
    until("the report has come", || world.reports().pop()).await;
    let report = world.one_report(SENDER);
    let told = |to: &str| (to.to_owned(), "failed".to_owned(), "5.1.1".to_owned());
    assert_eq!(
        report.tells(),
        [told("a@bad.example"), told("b@worse.example")]
    );
    until("nothing is owed", || {
        states(|recipient| recipient["owed"].is_null())
    })
    .await;
    world.ends().await;
}

#[tokio::test]
async fn what_is_over_the_rate_waits_in_the_queue_and_survives_a_restart() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let connectors = [connector("bad.example", bad.address, "")];
    let before = "[limits]\ndsn_per_minute_per_domain = 2";
    let world = World::start(before, &connectors).await;
    for from in [SENDER, SENDER, SENDER, SENDER, "bob@other.example"] {
        world
            .sends(&format!("<{from}>"), &["<b@bad.example>"], CONTENT)
            .await;
    }
    until("three reports have come", || {
        (world.reports().len() >= 3).then_some(())
    })
    .await;
    until("two are owed", || (owed(&world).len() == 2).then_some(())).await;
    let mut told: Vec<_> = world
        .reports()
        .into_iter()
        .map(|(to, _)| to.join(" "))
        .collect();
    told.sort();
    assert_eq!(told, [SENDER, SENDER, "bob@other.example"]);

    let world = restarted(world, before, &connectors).await;
    world.is_done().await;
    let reports = world.reports();
    assert_eq!(reports.len(), 5, "{reports:#?}");
    for (_, report) in &reports {
        report.only("b@bad.example", "failed", "5.1.1");
    }
    world.ends().await;
}

#[tokio::test]
async fn mail_from_a_stranger_comes_back_without_its_content() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let (folder, home) = (
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder"),
        willing().await,
    );
    let before = "domains = [\"bad.example\"]";
    let connectors = [connector("bad.example", bad.address, "")];
    let mut config = configured(folder.path(), home.address, before, &connectors);
    config.relay.networks.clear();
    let (address, running) = run(config, Arc::new(())).await;
    let world = World {
        home,
        address,
        folder,
        running,
    };
    world
        .sends(
            "<alice@sender.example> RET=FULL",
            &["<b@bad.example>"],
            CONTENT,
        )
        .await;
    let report = world.the_report().await;
    report.only("b@bad.example", "failed", "5.1.1");
    assert_eq!(report.returned.0, "text/rfc822-headers");
    assert!(
        report.returned.1.contains("Subject: minutes\r\n"),
        "{}",
        report.returned.1
    );
    assert!(!report.whole.contains("very words"), "{}", report.whole);
    world.ends().await;
}

/// The digests that have come, as text.
fn digests(world: &World) -> Vec<String> {
    world
        .home
        .messages()
        .into_iter()
        .map(|message| String::from_utf8(message).expect("ASCII"))
        .collect()
}

#[tokio::test]
async fn failures_of_mail_from_nobody_become_one_digest_also_over_a_restart() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let connectors = [connector("bad.example", bad.address, "")];
    let world = World::start("[queue]\npostmaster_digest = \"1h\"", &connectors).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.sends("<>", &["<b@bad.example>"], CONTENT).await);
    }
    until("all are owed", || (owed(&world) == ids).then_some(())).await;
    assert!(digests(&world).is_empty(), "an hour is not over");

    let world = restarted(world, "[queue]\npostmaster_digest = \"1s\"", &connectors).await;
    world.is_done().await;
    let digests = digests(&world);
    let [digest] = &digests[..] else {
        panic!("{digests:#?}")
    };
    assert!(
        digest.contains("Subject: Undelivered mail without a sender: 3 messages\r\n"),
        "{digest}"
    );
    for id in &ids {
        assert!(
            digest.contains(&format!("\r\n{id}, accepted here on ")),
            "{digest}"
        );
    }
    world.ends().await;
}

#[tokio::test]
async fn a_hundred_failures_of_mail_from_nobody_do_not_wait_for_the_hour() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start(
        "[queue]\npostmaster_digest = \"1h\"",
        &[connector("bad.example", bad.address, "")],
    )
    .await;
    let mut client = Client::connect(world.address).await;
    for _ in 0..100 {
        client.asks("MAIL FROM:<>", "250").await;
        client.asks("RCPT TO:<b@bad.example>", "250").await;
        client.content(CONTENT).await;
    }
    drop(client);
    world.is_done().await;
    let digests = digests(&world);
    let [digest] = &digests[..] else {
        panic!("{digests:#?}")
    };
    assert!(
        digest.contains("Subject: Undelivered mail without a sender: 100 messages\r\n"),
        "{digest}"
    );
    assert_eq!(digest.matches(", accepted here on ").count(), 100);
    world.ends().await;
}
