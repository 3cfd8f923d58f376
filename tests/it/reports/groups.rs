//! One recipient's answer is that recipient's, also where it ends the session.

use crate::support::in_process::{World, connector, peer};

const CONTENT: &str = "Subject: minutes\r\n\r\nThe very words.\r\n";
const QUEUE: &str = "[queue]\nretry = [\"200ms\"]\nexpire = \"6s\"\nwarn_after = \"never\"";

/// Whoever stands behind such a recipient, or before it, is delivered by the attempt that follows.
#[tokio::test]
async fn a_recipient_that_ends_every_session_keeps_nobody_else_from_delivery() {
    let of = |keywords: &'static [&'static str]| {
        ["421 4.7.0 not for this one", ""].map(|answer| (keywords, answer))
    };
    let cases = [of(&["PIPELINING"]), of(&[])].concat();
    let each = cases.into_iter().map(async |(keywords, answer)| {
        let odd = peer(keywords, &[("RCPT TO:<b@", answer)]).await;
        let world = World::start(QUEUE, &[connector("odd.example", odd.address, "")]).await;
        let to = ["<a@odd.example>", "<b@odd.example>", "<c@odd.example>"];
        world.sends("<alice@sender.example>", &to, CONTENT).await;
        let report = world.the_report().await;
        let fields = report.only("b@odd.example", "failed", "5.4.7");
        assert_eq!(
            fields.get("Diagnostic-Code").starts_with("smtp; 421 4.7.0"),
            !answer.is_empty(),
            "{fields:?}"
        );
        let heard = odd.heard();
        let ends: Vec<_> = heard
            .iter()
            .filter(|heard| !heard.messages.is_empty())
            .collect();
        assert_eq!(ends.len(), 1, "{keywords:?}, {answer:?}: {heard:?}");
        for name in ["RCPT TO:<a@", "RCPT TO:<c@"] {
            let asked = heard.iter().filter(|heard| heard.has(name)).count();
            assert!(
                (1..=2).contains(&asked) && ends[0].has(name),
                "{name}: {heard:?}"
            );
        }
        world.ends().await;
    });
    futures_util::future::join_all(each).await;
}

/// A host that ends each session at its second recipient, whoever that is, has them one by one.
#[tokio::test]
async fn a_host_that_ends_sessions_at_the_second_recipient_gets_them_one_by_one() {
    let narrow = peer(
        &[],
        &[
            ("RCPT TO:<b@", "421 4.5.3 too many"),
            ("RCPT TO:<c@", "421 4.5.3 too many"),
        ],
    )
    .await;
    let world = World::start(QUEUE, &[connector("narrow.example", narrow.address, "")]).await;
    let to = [
        "<a@narrow.example>",
        "<b@narrow.example>",
        "<c@narrow.example>",
    ];
    world.sends("<alice@sender.example>", &to, CONTENT).await;
    world.is_done().await;
    let heard = narrow.heard();
    let taken = heard.iter().filter(|heard| !heard.messages.is_empty());
    assert_eq!(
        taken.filter(|heard| heard.has("RCPT TO:<a@")).count(),
        1,
        "{heard:?}"
    );
    let told: Vec<_> = world
        .reports()
        .iter()
        .flat_map(|(_, report)| report.tells())
        .map(|told| told.0)
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        ["b@narrow.example", "c@narrow.example"]
            .iter()
            .all(|name| told.iter().any(|told| told == name))
    );
    world.ends().await;
}
