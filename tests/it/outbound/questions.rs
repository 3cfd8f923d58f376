//! Questions about recipients share connections with messages, and each of them is judged by itself.

use gatepost::relay::outbound::Outbound;
use gatepost::relay::recipient_tables::{AnswerResult, RecipientAnswer, TroubleScope};
use gatepost::smtp::address::Mailbox;

use crate::support::certificates::{BOTH, server_config};
use crate::support::deliveries::{World, connector, deliver, message, outcome};
use crate::support::peer::{Heard, Manner, Peer, Starttls};

async fn ask(outbound: &Outbound, to: &str) -> AnswerResult {
    let snapshot = outbound.running().load();
    let mailbox = Mailbox::parse(to).expect("a mailbox");
    outbound.ask(&snapshot, &mailbox).await
}

async fn exists(outbound: &Outbound, to: &str) {
    let answer = ask(outbound, to).await;
    assert_eq!(answer, Ok(RecipientAnswer::Exists), "{to}");
}

async fn send(outbound: &Outbound) {
    let report = deliver(outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
}

/// The connections that a peer heard, each of which had an orderly end.
async fn heard(peer: &Peer, outbound: &Outbound) -> Vec<Heard> {
    outbound.close();
    let all = peer.heard_to_the_end().await;
    for heard in &all {
        assert_eq!(heard.commands.last().map(String::as_str), Some("QUIT"));
    }
    all
}

/// Two domains share a host, and its certificate is good for one of them only: each must prove itself
/// by its own name.
async fn partners(world: &World) -> (Peer, Outbound) {
    let pair = world.authority.issue(&["partner.example"]);
    let tls = Starttls::Tls(server_config(&pair, BOTH).into());
    let peer = Peer::start(Manner::new(tls)).await;
    let demand = "tls = \"forced\"\nverify = \"name\"";
    let lines = format!("port = {}\n{demand}", peer.address.port());
    let domains = ["partner.example", "other.example"];
    let outbound = world.outbound(&connector("partners", &domains, &lines));
    (peer, outbound)
}

#[tokio::test]
async fn a_question_uses_no_connection_that_does_not_prove_its_own_server() {
    let world = World::new().await;
    let (peer, outbound) = partners(&world).await;
    send(&outbound).await;
    let trouble = ask(&outbound, "b@other.example")
        .await
        .expect_err("no answer");
    assert_eq!(trouble.scope, TroubleScope::Source, "{trouble:?}");
    assert!(trouble.reason.contains("not for"), "{trouble:?}");
    exists(&outbound, "b@partner.example").await;
    for heard in heard(&peer, &outbound).await {
        assert!(!heard.has("RCPT TO:<b@other.example>"), "{heard:?}");
    }
}

#[tokio::test]
async fn a_message_uses_no_connection_of_a_question_that_does_not_prove_its_own_server() {
    let world = World::new().await;
    let (peer, outbound) = partners(&world).await;
    exists(&outbound, "b@partner.example").await;
    let report = deliver(&outbound, message(&["b@other.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{report:?}");
    for heard in heard(&peer, &outbound).await {
        assert!(!heard.has("MAIL FROM:<sender"), "{heard:?}");
        assert!(!heard.has("RCPT TO:<b@other.example>"), "{heard:?}");
    }
}

/// A connection that proves its server carries questions and messages in turn.
#[tokio::test]
async fn questions_and_messages_share_a_connection_that_proves_their_server() {
    let world = World::new().await;
    let (peer, outbound) = partners(&world).await;
    exists(&outbound, "a@partner.example").await;
    send(&outbound).await;
    exists(&outbound, "c@partner.example").await;
    let heard = heard(&peer, &outbound).await;
    let messages: Vec<_> = heard.iter().map(|heard| heard.messages.len()).collect();
    assert_eq!(messages, [1], "{heard:?}");
}

/// A rejected question leaves the session as it was. After five rejections, which servers count, it
/// ends in order, and the message that follows has a new one.
#[tokio::test]
async fn a_rejected_question_does_not_spoil_the_message_behind_it() {
    let world = World::new().await;
    for (rejected, connections) in [(1, 1), (4, 1), (5, 2)] {
        let manner = Manner::new(Starttls::NotOffered);
        let peer = Peer::start(manner.answer("RCPT TO:<x", "550 5.1.1 no such user")).await;
        let route = format!("route = [\"mx.partner.example:{}\"]\n", peer.address.port());
        let lines = format!("{route}tls = \"opportunistic\"");
        let outbound = world.outbound(&connector("partner", &["partner.example"], &lines));
        for at in 0..rejected {
            let answer = ask(&outbound, &format!("x{at}@partner.example")).await;
            assert!(
                matches!(answer, Ok(RecipientAnswer::Unknown(_))),
                "{answer:?}"
            );
        }
        send(&outbound).await;
        let heard = heard(&peer, &outbound).await;
        assert_eq!(heard.len(), connections, "{rejected} were rejected");
        let last = heard.last().expect("a connection");
        assert_eq!(last.messages.len(), 1, "{heard:?}");
        assert!(!last.has("HELO"), "{heard:?}");
    }
}
