//! The recipients of a transaction, and the transactions of a connection.

use super::delivery::{heard_of, plain, smart_hosts};
use crate::support::deliveries::{World, deliver, failure, message, outcome};
use crate::support::peer::{Manner, Peer};

#[tokio::test]
async fn too_many_recipients_go_in_further_transactions_on_one_connection() {
    let world = World::new().await;
    let manner = plain()
        .answer_after(1, "RCPT TO:<c@", "250 ok")
        .answer("RCPT TO:<c@", "452 4.5.3 too many");
    let peer = Peer::start(manner).await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    let report = deliver(
        &outbound,
        message(&["b@partner.example", "c@partner.example"]),
    )
    .await;
    assert_eq!(
        [outcome(&report, 0), outcome(&report, 1)],
        ["delivered", "delivered"]
    );
    outbound.close();
    let heard = peer.heard_to_the_end().await;
    assert_eq!((heard.len(), heard[0].messages.len()), (1, 2));
}

#[tokio::test]
async fn no_connection_carries_more_transactions_than_messages_are_allowed_on_it() {
    let world = World::new().await;
    // Takes one recipient at a time.
    let accept_one = |manner: Manner, name| {
        manner
            .answer_after(1, name, "250 ok")
            .answer(name, "452 4.5.3 too many")
    };
    let manner = accept_one(plain(), "RCPT TO:<c@").answer_after(2, "RCPT TO:<d@", "250 ok");
    let peer = Peer::start(manner.answer("RCPT TO:<d@", "452 4.5.3 too many")).await;
    let outbound = world.outbound(&format!(
        "{}\nmessages_per_connection = 2",
        smart_hosts(&[&peer])
    ));
    let to = [
        "a@partner.example",
        "b@partner.example",
        "c@partner.example",
        "d@partner.example",
    ];
    assert_eq!(
        outcome(&deliver(&outbound, message(&to[..1])).await, 0),
        "delivered"
    );
    let report = deliver(&outbound, message(&to[1..])).await;
    assert_eq!(
        [0, 1, 2].map(|at| outcome(&report, at)),
        ["delivered", "delivered", "delivered"],
        "{report:?}"
    );
    assert_eq!(report.trail.len(), 0, "{:?}", report.trail);
    outbound.close();
    let messages: Vec<usize> = peer
        .heard_to_the_end()
        .await
        .iter()
        .map(|heard| heard.messages.len())
        .collect();
    assert_eq!(
        messages,
        [2, 2],
        "the first message, and the second in three transactions"
    );
}

#[tokio::test]
async fn a_connection_in_the_place_of_a_spent_one_is_for_the_rest_alone() {
    let world = World::new().await;
    let first = plain()
        .answer("RCPT TO:<later@", "450 4.2.1 later")
        .answer_after(1, "RCPT TO:<c@", "250 ok")
        .answer("RCPT TO:<c@", "452 4.5.3 too many");
    let (first, second) = (Peer::start(first).await, Peer::start(plain()).await);
    let outbound = world.outbound(&format!(
        "{}\nmessages_per_connection = 1",
        smart_hosts(&[&first, &second])
    ));
    let to = [
        "later@partner.example",
        "b@partner.example",
        "c@partner.example",
    ];
    let report = deliver(&outbound, message(&to)).await;
    assert_eq!(
        [0, 1, 2].map(|at| outcome(&report, at)),
        ["delivered", "delivered", "delivered"],
        "{report:?}"
    );
    assert_eq!((first.messages().len(), second.messages().len()), (2, 1));
    assert_eq!(
        heard_of(&first, "RCPT TO:<later@"),
        1,
        "it was asked again what it had answered"
    );
}

#[tokio::test]
async fn who_could_not_be_named_any_more_is_not_forgotten() {
    let world = World::new().await;
    // The farewell may come along with the answer to the dot, and the close as a reset.
    let early = "the peer ended the session before the remaining recipients could be named";
    let reset = "the connection broke before the reply to MAIL FROM";
    for (farewell, words) in [
        (
            "",
            "the peer closed the connection instead of replying to MAIL FROM",
        ),
        ("421 4.3.2 bye", "MAIL FROM with: 421 4.3.2 bye"),
    ] {
        let manner = plain().answer("RCPT TO:<c@", "452 4.5.3 too many");
        let peer = Peer::start(Manner {
            farewell: Some(farewell),
            ..manner
        })
        .await;
        let outbound = world.outbound(&smart_hosts(&[&peer]));
        let report = deliver(
            &outbound,
            message(&["b@partner.example", "c@partner.example"]),
        )
        .await;
        assert_eq!(outcome(&report, 0), "delivered");
        let reason = failure(&report, 1).to_string();
        assert!(
            [words, early, reset]
                .iter()
                .any(|words| reason.contains(words)),
            "{reason}"
        );
        assert!(outcome(&report, 1).starts_with("deferred 4."));
    }
}

#[tokio::test]
async fn a_thousand_recipients_go_in_one_transaction() {
    let world = World::new().await;
    let peer = Peer::start(plain()).await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    let recipients: Vec<String> = (0..1000)
        .map(|at| format!("u{at}@partner.example"))
        .collect();
    let report = deliver(
        &outbound,
        message(&recipients.iter().map(String::as_str).collect::<Vec<_>>()),
    )
    .await;
    assert!((0..1000).all(|at| outcome(&report, at) == "delivered"));
    assert_eq!(peer.messages().len(), 1);
}

/// The commands of a peer's only connection, each without what follows the first blank.
fn verbs(peer: &Peer) -> Vec<String> {
    let heard = peer.heard();
    assert_eq!(heard.len(), 1, "{heard:?}");
    let verb = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    heard[0].commands.iter().map(verb).collect()
}

fn chunking() -> Manner {
    Manner {
        keywords: &["PIPELINING", "CHUNKING"],
        ..plain()
    }
}

#[tokio::test]
async fn content_goes_ahead_only_to_a_peer_that_has_just_accepted_a_message() {
    let world = World::new().await;
    let peer = Peer::start(chunking().answer("RCPT TO:<no@", "550 5.1.1 no such user")).await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    for (to, outcome_begins) in [
        ("b@partner.example", "delivered"),
        ("b@partner.example", "delivered"),
        ("no@partner.example", "bounced"),
        ("no@partner.example", "bounced"),
        ("b@partner.example", "delivered"),
    ] {
        let report = deliver(&outbound, message(&[to])).await;
        assert!(
            outcome(&report, 0).starts_with(outcome_begins),
            "{report:?}"
        );
    }
    let (ahead, later) = (["MAIL", "RCPT", "BDAT"], ["MAIL", "RCPT", "DATA"]);
    let expected = [
        &["EHLO"][..],
        &later,
        &["."],
        &ahead,
        // The one that is refused, and then no content for a peer that refuses.
        &ahead,
        &["RSET"],
        &later,
        &["RSET"],
        &later,
        &["."],
    ]
    .concat();
    assert_eq!(verbs(&peer), expected);
    let messages = peer.messages();
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[0], messages[1], "with DATA and as a chunk");
}

#[tokio::test]
async fn a_peer_that_does_not_know_bdat_gets_data() {
    let world = World::new().await;
    let peer = Peer::start(chunking().answer("BDAT", "502 5.5.1 not here")).await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    for _ in 0..3 {
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    }
    let with_data = ["MAIL", "RCPT", "DATA", "."];
    let expected = [
        &["EHLO"][..],
        &with_data,
        &["MAIL", "RCPT", "BDAT", "RSET"],
        &with_data,
        &with_data,
    ]
    .concat();
    assert_eq!(verbs(&peer), expected);
}

#[tokio::test]
async fn a_chunk_without_an_answer_is_not_sent_to_another_host() {
    let world = World::new().await;
    for (before, lost_at) in [(1, "MAIL"), (0, "RCPT TO:<c@"), (0, "BDAT")] {
        let first = Peer::start(chunking().answer_after(before, lost_at, "")).await;
        let second = Peer::start(chunking()).await;
        let outbound = world.outbound(&smart_hosts(&[&first, &second]));
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
        let to = [
            "b@partner.example",
            "c@partner.example",
            "d@partner.example",
        ];
        let report = deliver(&outbound, message(&to)).await;
        for at in 0..to.len() {
            assert!(outcome(&report, at).starts_with("deferred"), "{report:?}");
        }
        let reason = failure(&report, 1).to_string();
        assert!(reason.contains("may have been delivered"), "{reason}");
        assert_eq!(second.heard().len(), 0, "the other host was asked");
        assert_eq!(first.heard().len(), 1, "it was sent again");
    }
}

#[tokio::test]
async fn a_chunk_is_not_sent_to_another_host_after_421_to_one_of_its_recipients() {
    let world = World::new().await;
    let first = Peer::start(chunking().answer("RCPT TO:<c@", "421 4.3.2 not this one")).await;
    let second = Peer::start(chunking()).await;
    let outbound = world.outbound(&smart_hosts(&[&first, &second]));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    let to = ["b@partner.example", "c@partner.example"];
    let report = deliver(&outbound, message(&to)).await;
    assert!(outcome(&report, 0).starts_with("deferred"), "{report:?}");
    let is_for_b = |line: &String| line.starts_with("RCPT TO:<b@");
    let heard = second.heard();
    assert!(
        !heard.iter().any(|one| one.commands.iter().any(is_for_b)),
        "{heard:?}"
    );
}
