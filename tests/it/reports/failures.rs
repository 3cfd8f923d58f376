//! The reports about recipients that were refused for good, and about those whose time ran out.

use serde_json::Value;

use crate::support::dsn::Report;
use crate::support::in_process::{World, connector, peer, queue, until};
use crate::support::peer::Nobody;

/// Nothing is missing that the relay would add.
const CONTENT: &str = "From: Alice <alice@sender.example>\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n\
                       Message-ID: <1@sender.example>\r\nSubject: minutes\r\n\r\nThe very words.\r\n";

#[tokio::test]
async fn a_recipient_that_is_refused_is_reported_alone() {
    let bad = peer(
        &["PIPELINING"],
        &[("RCPT TO:<bob@", "550-5.1.1 no such user\r\n550 5.1.1 here")],
    )
    .await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    let id = world
        .sends(
            "<alice@sender.example>",
            &["<bob@bad.example>", "<carol@bad.example>"],
            CONTENT,
        )
        .await;
    let report = world.the_report().await;
    let bob = report.only("bob@bad.example", "failed", "5.1.1");
    assert_eq!(bob.get("Remote-MTA"), "dns; [127.0.0.1]");
    assert_eq!(
        bob.get("Diagnostic-Code"),
        "smtp; 550 5.1.1 no such user / here"
    );
    assert_eq!(bob.find("Original-Recipient"), None, "nobody gave one");
    assert_eq!(report.header.get("To"), "<alice@sender.example>");
    assert_eq!(report.kind, "message/delivery-status");
    for words in [
        &*id,
        "could not be delivered",
        "<bob@bad.example>:",
        "550 5.1.1 no such user",
        "RCPT TO",
    ] {
        assert!(
            report.text.contains(words),
            "{words:?} is missing from\n{}",
            report.text
        );
    }
    assert!(!report.text.contains("carol"), "{}", report.text);
    let (kind, returned) = &report.returned;
    assert_eq!(kind, "message/rfc822");
    assert!(
        returned.starts_with("Received: from client.example"),
        "{returned}"
    );
    assert_eq!(
        &returned[returned.find("From: Alice").expect("a field of hers")..],
        CONTENT
    );
    assert_eq!(bad.messages().len(), 1, "carol has hers");
    let heard = world.home.heard();
    assert!(
        heard[0].has("RCPT TO:<alice@sender.example> NOTIFY=NEVER"),
        "{heard:?}"
    );
    world.ends().await;
}

#[tokio::test]
async fn each_recipient_has_its_own_reason_and_nobody_elses() {
    let names: Vec<String> = (0..40).map(|number| format!("u{number}")).collect();
    let answers: Vec<(&'static str, &'static str)> = names
        .iter()
        .map(|name| {
            let (command, words) = (
                format!("RCPT TO:<{name}@"),
                format!("550 5.1.1 {name}-is-unknown {}", "x".repeat(70)),
            );
            (&*command.leak(), &*words.leak())
        })
        .collect();
    let bad = peer(&["PIPELINING"], &answers).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    let to: Vec<String> = names
        .iter()
        .map(|name| format!("<{name}@bad.example>"))
        .collect();
    world
        .sends(
            "<alice@sender.example>",
            &to.iter().map(String::as_str).collect::<Vec<_>>(),
            CONTENT,
        )
        .await;
    let report = world.the_report().await;
    let told: Vec<&str> = report.text.split("\n<u").skip(1).collect();
    assert_eq!(told.len(), names.len());
    for (told, name) in told.iter().zip(&names) {
        assert!(
            told.starts_with(&format!("{}@bad.example>:", &name[1..])),
            "{told}"
        );
        assert!(told.contains(&format!("{name}-is-unknown")), "{told}");
        assert_eq!(told.matches("-is-unknown").count(), 1, "{told}");
    }
    world.ends().await;
}

#[tokio::test]
async fn content_that_is_refused_is_reported_once_for_all() {
    let bad = peer(&["PIPELINING"], &[(".", "554 5.6.0 we do not like it")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    world
        .sends(
            "<alice@sender.example>",
            &["<bob@bad.example>", "<carol@bad.example>"],
            CONTENT,
        )
        .await;
    let report = world.the_report().await;
    let told = |name: &str| {
        (
            format!("{name}@bad.example"),
            "failed".to_owned(),
            "5.6.0".to_owned(),
        )
    };
    assert_eq!(report.tells(), ["bob", "carol"].map(told));
    assert_eq!(
        report.recipients[1].get("Diagnostic-Code"),
        "smtp; 554 5.6.0 we do not like it"
    );
    assert_eq!(
        bad.heard()[0]
            .commands
            .iter()
            .filter(|line| *line == "DATA")
            .count(),
        1
    );
    world.ends().await;
}

#[tokio::test]
async fn an_expired_message_bounces_with_the_last_reason() {
    let bad = peer(&[], &[("RCPT", "451 4.2.2 the mailbox is full")]).await;
    let down = Nobody::at([127, 0, 0, 1]);
    let connectors = [
        connector("bad.example", bad.address, ""),
        connector("down.example", down.address, ""),
    ];
    let before = "[queue]\nretry = [\"200ms\"]\nexpire = \"2500ms\"\nwarn_after = \"never\"\ndsn_gather = \"10s\"";
    let world = World::start(before, &connectors).await;
    world
        .sends(
            "<alice@sender.example>",
            &["<bob@bad.example>", "<carol@down.example>"],
            CONTENT,
        )
        .await;
    world.is_done().await;
    // Both expire at the same time, and one report names both.
    let report = world.one_report("alice@sender.example");
    let told = |to: &str| (to.to_owned(), "failed".to_owned(), "5.4.7".to_owned());
    assert_eq!(
        report.tells(),
        [told("bob@bad.example"), told("carol@down.example")]
    );
    let [bob, carol] = &report.recipients[..] else {
        panic!("{report:#?}")
    };
    assert_eq!(
        bob.get("Diagnostic-Code"),
        "smtp; 451 4.2.2 the mailbox is full"
    );
    assert!(
        report.text.contains("not delivered within 2s 500ms"),
        "{}",
        report.text
    );
    assert!(
        report.text.contains("451 4.2.2 the mailbox is full"),
        "{}",
        report.text
    );
    assert!(
        carol
            .get("Diagnostic-Code")
            .starts_with("x-gatepost; not delivered within 2s 500ms; ")
    );
    assert!(
        carol.get("Diagnostic-Code").contains("refused"),
        "{carol:?}"
    );
    let heard = bad.heard();
    let tries = heard
        .iter()
        .flat_map(|heard| &heard.commands)
        .filter(|line| line.starts_with("RCPT"));
    assert!(tries.count() > 1, "it was tried again before");
    world.ends().await;
}

#[tokio::test]
async fn three_domains_three_outcomes_and_each_is_reported_once() {
    let good = peer(&["PIPELINING"], &[]).await;
    let bad = peer(&["PIPELINING"], &[("RCPT", "550 5.7.1 go away")]).await;
    let slow = peer(&["PIPELINING"], &[("MAIL", "451 4.3.2 not now")]).await;
    let connectors = [
        connector("good.example", good.address, ""),
        connector("bad.example", bad.address, ""),
        connector("slow.example", slow.address, ""),
    ];
    let before = "[queue]\nretry = [\"200ms\"]\nexpire = \"2500ms\"\nwarn_after = \"100ms\"";
    let world = World::start(before, &connectors).await;
    world
        .sends(
            "<alice@sender.example>",
            &["<a@good.example>", "<b@bad.example>", "<c@slow.example>"],
            CONTENT,
        )
        .await;
    world.is_done().await;
    let mut told: Vec<_> = world
        .reports()
        .iter()
        .flat_map(|(_, report)| report.tells())
        .collect();
    told.sort();
    let fate = |to: &str, action: &str, status: &str| {
        (to.to_owned(), action.to_owned(), status.to_owned())
    };
    let wanted = [
        fate("b@bad.example", "failed", "5.7.1"),
        fate("c@slow.example", "delayed", "4.3.2"),
        fate("c@slow.example", "failed", "5.4.7"),
    ];
    assert_eq!(told, wanted);
    assert_eq!(good.messages().len(), 1);
    world.ends().await;
}

/// A peer's text is its own: it may be long, odd, and in any alphabet.
#[tokio::test]
async fn whatever_a_peer_says_the_report_is_in_order() {
    let words: &'static str =
        Box::leak(format!("550 {}\u{7}{}", "ä".repeat(1500), "x".repeat(900)).into_boxed_str());
    let bad = peer(&[], &[("RCPT", words)]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    world
        .sends("<alice@sender.example>", &["<bob@bad.example>"], CONTENT)
        .await;
    let report = world.the_report().await;
    let bob = report.only("bob@bad.example", "failed", "5.0.0");
    assert!(
        bob.get("Diagnostic-Code").starts_with("smtp; 550 ??"),
        "{bob:?}"
    );
    assert!(
        report.text.contains("ääää"),
        "people may read what was said"
    );
    world.ends().await;
}

/// Waits until the first of three recipients has been tried, the second is held and the third has
/// failed; returns their states.
async fn states_of_three(world: &World, id: &str) -> [Value; 3] {
    until("everybody has been tried", || {
        let queue = queue(world.folder.path());
        let message = queue.iter().find(|(name, _)| name == id)?;
        let state = |at: usize| message.1["recipients"][at]["state"].clone();
        let states = [state(0), state(1), state(2)];
        (states[0]["pending"]["attempts"] == 1
            && states[1].get("held").is_some()
            && states[2] == "failed")
            .then_some(states)
    })
    .await
}

fn the_held_and_the_bounced_are_reported(reports: &[(Vec<String>, Report)]) {
    let find = |subject: &str| {
        &reports
            .iter()
            .find(|(_, report)| report.header.get("Subject").contains(subject))
            .expect(subject)
            .1
    };
    let held = find("held").only("b@hold.example", "delayed", "4.7.4");
    assert_eq!(held.find("Will-Retry-Until"), None, "nobody knows");
    let report = find("Undelivered");
    let fields = report.only("c@bounce.example", "failed", "5.7.4");
    assert!(
        fields
            .get("Diagnostic-Code")
            .contains("does not offer STARTTLS"),
        "{fields:?}"
    );
    assert!(
        report
            .text
            .contains("only encrypted, because its administrators decided so."),
        "{}",
        report.text
    );
    assert!(
        !report.text.contains("A security policy"),
        "the explanation says more: {}",
        report.text
    );
}

#[tokio::test]
async fn a_policy_that_is_not_met_waits_is_held_or_bounces() {
    let clear = peer(&[], &[]).await;
    let on_failure = |domain: &str, what: &str| {
        connector(
            domain,
            clear.address,
            &format!("tls = \"forced\"\nverify = \"none\"\non_failure = \"{what}\""),
        )
    };
    let connectors = [
        on_failure("defer.example", "defer"),
        on_failure("hold.example", "hold"),
        on_failure("bounce.example", "bounce"),
    ];
    let world = World::start("", &connectors).await;
    let to = [
        "<a@defer.example>",
        "<b@hold.example>",
        "<c@bounce.example>",
    ];
    let id = world.sends("<alice@sender.example>", &to, CONTENT).await;
    let states = states_of_three(&world, &id).await;
    assert_eq!(
        states[0]["pending"]["history"][0]["status"], "4.7.4",
        "{states:?}"
    );
    assert_eq!(
        states[1]["held"]["history"][0]["status"], "4.7.4",
        "{states:?}"
    );
    let reports = until("both reports have come", || {
        Some(world.reports()).filter(|reports| reports.len() == 2)
    })
    .await;
    the_held_and_the_bounced_are_reported(&reports);
    assert!(
        clear.heard().iter().all(|heard| !heard.has("MAIL")),
        "{:?}",
        clear.heard()
    );
    world.ends().await;
}
