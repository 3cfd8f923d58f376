//! Mailbox servers that answer nothing, and those that say yes to everybody.

use super::world::{Relay, ask, mailboxes_at, mailboxes_to};
use super::{mailbox_manner, mailbox_server};
use crate::support::peer::{Manner, Peer, Starttls};

/// Servers whose session says nothing about the recipient.
fn troubles() -> Vec<(&'static str, Manner)> {
    let manner = || Manner::new(Starttls::NotOffered);
    let greeting = |greeting| Manner {
        greeting,
        ..manner()
    };
    vec![
        ("a greeting of 421", greeting("421 4.3.2 busy")),
        ("a greeting of 554", greeting("554 5.7.1 go away")),
        ("no answer to EHLO", manner().answer("EHLO", "")),
        (
            "a rejected MAIL",
            manner().answer("MAIL", "550 5.7.1 no null senders"),
        ),
        ("421 to RCPT", manner().answer("RCPT", "421 4.3.2 closing")),
        ("the end at RCPT", manner().answer("RCPT", "")),
        (
            "450 to RCPT",
            manner().answer("RCPT", "450 4.2.1 greylisted"),
        ),
        (
            "530 to RCPT",
            manner().answer("RCPT", "530 5.7.0 authenticate"),
        ),
        ("no SMTP", greeting("HTTP/1.1 400 Bad Request")),
    ]
}

#[tokio::test]
async fn without_an_answer_on_trouble_decides() {
    for (what, manner) in troubles() {
        for (on_trouble, wanted) in [
            ("", "451 4.4.3 The recipient cannot be checked"),
            ("on_trouble = \"accept\"", "250 2.1.5"),
        ] {
            let server = Peer::start(manner.clone()).await;
            let relay = Relay::start(&ask(on_trouble), &[mailboxes_to(&server)]).await;
            let reply = relay.rcpt("user@example.com").await;
            assert!(reply.starts_with(wanted), "{what}, {on_trouble}: {reply}");
            relay.ends().await;
            let heard = server.heard_to_the_end().await;
            assert!(!heard.iter().any(|heard| heard.has("DATA")), "{what}");
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_listen_is_trouble() {
    let server = mailbox_server().await;
    let connector = mailboxes_to(&server);
    drop(server);
    let relay = Relay::start(&ask(""), &[connector]).await;
    let reply = relay.rcpt("user@example.com").await;
    assert!(reply.starts_with("451 4.4.3"), "{reply}");
    relay.ends().await;
}

/// A table may have domains of several mailbox servers. One in trouble is no trouble of the others.
#[tokio::test]
async fn trouble_of_one_server_is_not_that_of_another() {
    let server = mailbox_server().await;
    let gone = mailbox_server().await;
    let elsewhere = crate::support::in_process::connector("all.example.com", gone.address, "");
    drop(gone);
    let table = ask("").replace("\"example.com\"", "\"all.example.com\", \"example.com\"");
    let relay = Relay::start(&table, &[mailboxes_to(&server), elsewhere]).await;
    for _ in 0..2 {
        for (to, wanted) in [
            ("user@all.example.com", "451 4.4.3"),
            ("user@example.com", "250 2.1.5"),
            ("nobody@example.com", "550 5.1.1"),
        ] {
            let reply = relay.rcpt(to).await;
            assert!(reply.starts_with(wanted), "{to}: {reply}");
        }
    }
    relay.ends().await;
}

/// The TLS demand of the connector holds for questions too.
#[tokio::test]
async fn a_server_that_does_not_meet_the_demand_hears_no_mail() {
    let server = mailbox_server().await;
    let demand = "tls = \"forced\"\nverify = \"none\"";
    let relay = Relay::start(&ask(""), &[mailboxes_at(server.address, demand)]).await;
    let reply = relay.rcpt("user@example.com").await;
    assert!(reply.starts_with("451 4.4.3"), "{reply}");
    relay.ends().await;
    let heard = server.heard_to_the_end().await;
    assert!(!heard.is_empty());
    for heard in heard {
        assert!(!heard.has("MAIL") && !heard.has("RCPT"), "{heard:?}");
    }
}

/// A server that accepts a random address says nothing by its yes. It is not asked again.
#[tokio::test]
async fn a_server_that_says_yes_to_everybody_counts_as_no_check() {
    let server = Peer::start(Manner::new(Starttls::NotOffered)).await;
    let relay = Relay::start(&ask(""), &[mailboxes_to(&server)]).await;
    for to in ["one@example.com", "two@example.com", "one@example.com"] {
        let reply = relay.rcpt(to).await;
        assert!(reply.starts_with("250 2.1.5"), "{to}: {reply}");
    }
    relay.ends().await;
    let heard = server.heard_to_the_end().await;
    let asked: Vec<_> = heard
        .iter()
        .flat_map(|heard| &heard.commands)
        .filter(|command| command.starts_with("RCPT"))
        .collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].starts_with("RCPT TO:<one@"), "{asked:?}");
    assert!(asked[1].starts_with("RCPT TO:<gatepost-"), "{asked:?}");
}

/// A connection that the server closed while it was idle is no trouble.
#[tokio::test]
async fn a_kept_connection_that_has_ended_is_replaced() {
    let manner = Manner {
        farewell: Some("421 4.4.2 idle"),
        ..mailbox_manner()
    };
    let server = Peer::start(manner.answer_after(2, "MAIL", "421 4.4.2 idle")).await;
    let relay = Relay::start(&ask(""), &[mailboxes_to(&server)]).await;
    // The first question, and that about a random address.
    assert!(relay.rcpt("user@example.com").await.starts_with("250"));
    // The kept connection answers MAIL with 421, and so does the next one: that is trouble.
    let reply = relay.rcpt("nobody@example.com").await;
    assert!(reply.starts_with("451"), "{reply}");
    relay.ends().await;
    let heard = server.heard_to_the_end().await;
    assert_eq!(heard.len(), 2, "a fresh connection was tried: {heard:?}");
}

/// The server's own reason is passed on where it is not that the mailbox does not exist.
#[tokio::test]
async fn a_rejection_for_another_reason_keeps_its_status() {
    let server = Peer::start(
        Manner::new(Starttls::NotOffered)
            .answer("RCPT TO:<group@", "550 5.7.1 RESOLVER.RST.AuthRequired")
            .answer("RCPT TO:<full@", "552 5.2.2 mailbox full")
            .answer(
                "RCPT TO:<gone@",
                "550 5.1.10 RESOLVER.ADR.RecipientNotFound",
            )
            .answer("RCPT", "550 5.1.1 no"),
    )
    .await;
    let relay = Relay::start(&ask(""), &[mailboxes_to(&server)]).await;
    for (to, wanted) in [
        ("group@example.com", "550 5.7.1 Recipient rejected"),
        ("full@example.com", "550 5.2.2 Recipient rejected"),
        ("gone@example.com", "550 5.1.1 Unknown recipient"),
    ] {
        let reply = relay.rcpt(to).await;
        assert!(reply.starts_with(wanted), "{to}: {reply}");
    }
    relay.ends().await;
}

/// A client chooses the address that is asked about. However the server answers to an odd one, it is
/// asked about others.
#[tokio::test]
async fn what_a_server_answers_about_one_mailbox_is_no_trouble_with_others() {
    for (answer, wanted) in [
        ("", "250 2.1.5"),
        ("421 4.7.0 too many unknown users", "250 2.1.5"),
        ("450 4.2.1 greylisted", "250 2.1.5"),
        ("500 5.5.2 line too long", "250 2.1.5"),
        ("502 5.5.1 not implemented", "250 2.1.5"),
        ("503 5.5.1 bad sequence", "250 2.1.5"),
        ("504 5.5.2 fully qualified, please", "250 2.1.5"),
        // These are about the session.
        ("530 5.7.0 authenticate", "451 4.4.3"),
        ("535 5.7.8 authenticate", "451 4.4.3"),
        ("521 5.3.2 no mail here", "451 4.4.3"),
    ] {
        let server = mailbox_manner();
        let server = Manner {
            answers: [vec![("RCPT TO:<odd@", 0, answer)], server.answers].concat(),
            ..server
        };
        let server = Peer::start(server).await;
        let relay = Relay::start(&ask(""), &[mailboxes_to(&server)]).await;
        let reply = relay.rcpt("odd@example.com").await;
        assert!(reply.starts_with("451 4.4.3"), "{answer}: {reply}");
        let reply = relay.rcpt("user@example.com").await;
        assert!(reply.starts_with(wanted), "{answer}: {reply}");
        relay.ends().await;
    }
}

/// The domain has two servers. The one that closes at an odd address answers about others; that the
/// other one is down is no reason to ask neither.
#[tokio::test]
async fn a_server_that_is_down_beside_another_is_no_trouble_of_both() {
    let mut server = mailbox_manner();
    server.answers.insert(0, ("RCPT TO:<odd@", 0, ""));
    let server = Peer::start(server).await;
    let down = mailbox_server().await;
    let (up, gone) = (server.address, down.address);
    drop(down);
    let both = mailboxes_to(&server).replace(
        &format!("route = [\"{up}\"]"),
        &format!("route = [\"{up}\", \"{gone}\"]"),
    );
    assert!(both.contains(&gone.to_string()), "{both}");
    let relay = Relay::start(&ask(""), &[both]).await;
    for (to, wanted) in [
        ("odd@example.com", "451 4.4.3"),
        ("user@example.com", "250 2.1.5"),
    ] {
        let reply = relay.rcpt(to).await;
        assert!(reply.starts_with(wanted), "{to}: {reply}");
    }
    relay.ends().await;
}

/// The reply to RCPT is an answer, also if the server ends the session with it.
#[tokio::test]
async fn an_answer_counts_if_the_session_ends_with_it() {
    let server = Peer::start(mailbox_manner().answer("RSET", "")).await;
    let relay = Relay::start(&ask(""), &[mailboxes_to(&server)]).await;
    for (to, wanted) in [
        ("nobody@example.com", "550 5.1.1"),
        ("user@example.com", "250 2.1.5"),
    ] {
        let reply = relay.rcpt(to).await;
        assert!(reply.starts_with(wanted), "{to}: {reply}");
    }
    relay.ends().await;
}

/// Servers count the errors of a session, and slow it down or end it after some. A delivery must not
/// get such a session.
#[tokio::test]
async fn a_session_with_many_rejections_is_not_kept() {
    let server = mailbox_server().await;
    let relay = Relay::start(&ask(""), &[mailboxes_to(&server)]).await;
    for at in 0..12 {
        let reply = relay.rcpt(&format!("guess{at}@example.com")).await;
        assert!(reply.starts_with("550 5.1.1"), "{reply}");
    }
    relay.ends().await;
    let heard = server.heard_to_the_end().await;
    let asked = |heard: &crate::support::peer::Heard| {
        let rcpt = heard
            .commands
            .iter()
            .filter(|line| line.starts_with("RCPT"));
        rcpt.count()
    };
    let asked: Vec<_> = heard.iter().map(asked).collect();
    assert_eq!(asked, [5, 5, 2]);
    for heard in heard {
        assert_eq!(heard.commands.last().map(String::as_str), Some("QUIT"));
    }
}
