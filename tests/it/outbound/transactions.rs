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
