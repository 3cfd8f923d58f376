//! Clients that guess addresses.

use super::questions::SlowServer;
use super::world::{Relay, ask, file, mailboxes_at, mailboxes_to};
use crate::support::in_process::until;
use crate::support::peer::{Manner, Peer, Starttls};

const LIMITS: &str = "[limits]\nunknown_recipients_per_minute = 3\n";

async fn stranger(
    address: &str,
    relay: &Relay,
) -> crate::support::session::Client<tokio::net::TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    let from: std::net::IpAddr = address.parse().expect("an address");
    socket.bind((from, 0).into()).expect("all of 127/8 is ours");
    let stream = socket.connect(relay.address).await.expect("a connection");
    let mut client = crate::support::session::Client::new(stream);
    client.hears("220").await;
    client.asks("EHLO client.example", "250").await;
    client.asks("MAIL FROM:<a@sender.example>", "250").await;
    client
}

/// Above the limit, a client hears the same about every address, on each of its connections.
#[tokio::test]
async fn a_client_that_guesses_addresses_learns_nothing_more() {
    let tables = format!("{}{LIMITS}", file("user@example.com\n"));
    let relay = Relay::start_for("", &tables, &[]).await;
    let mut client = stranger("127.0.0.1", &relay).await;
    for at in 0..3 {
        client
            .asks(&format!("RCPT TO:<guess{at}@example.com>"), "550 5.1.1")
            .await;
    }
    let refused = "450 4.7.1 Too many unknown recipients a minute from 127.0.0.1";
    for to in ["guess3@example.com", "user@example.com"] {
        client.asks(&format!("RCPT TO:<{to}>"), refused).await;
    }
    // What is not checked says nothing about addresses.
    client
        .asks("RCPT TO:<user@unchecked.example>", "250 2.1.5")
        .await;
    client
        .asks("RCPT TO:<postmaster@example.com>", "250 2.1.5")
        .await;
    let mut again = stranger("127.0.0.1", &relay).await;
    again.asks("RCPT TO:<user@example.com>", refused).await;
    let mut other = stranger("127.0.9.1", &relay).await;
    other.asks("RCPT TO:<user@example.com>", "250 2.1.5").await;
    drop((client, again, other));
    relay.ends().await;
}

#[tokio::test]
async fn the_clients_of_one_network_share_a_limit() {
    let limits = "[limits]\nunknown_recipients_per_minute = 1\n";
    let tables = format!("{}{limits}", file("user@example.com\n"));
    let relay = Relay::start_for("", &tables, &[]).await;
    for client in 1..=5 {
        let mut client = stranger(&format!("127.0.0.{client}"), &relay).await;
        client
            .asks("RCPT TO:<guess@example.com>", "550 5.1.1")
            .await;
    }
    let mut client = stranger("127.0.0.6", &relay).await;
    client
        .asks(
            "RCPT TO:<user@example.com>",
            "450 4.7.1 Too many unknown recipients a minute from 127.0.0.0/24",
        )
        .await;
    drop(client);
    relay.ends().await;
}

/// A recipient counts as unknown while it is asked about, so that many sessions at once ask no more
/// than one after another.
#[tokio::test]
async fn a_recipient_counts_as_unknown_until_a_yes() {
    let server = SlowServer::start().await;
    let tables = format!("{}{LIMITS}", ask(""));
    let relay = Relay::start_for("", &tables, &[mailboxes_at(server.address, "")]).await;
    let mut waiting = Vec::new();
    for at in 0..3 {
        let mut client = stranger("127.0.0.1", &relay).await;
        client
            .says(&format!("RCPT TO:<user{at}@example.com>"))
            .await;
        waiting.push(client);
        until("the server is asked", || {
            (server.asked().len() == at + 1).then_some(())
        })
        .await;
    }
    let refused = "450 4.7.1 Too many unknown recipients a minute from 127.0.0.1";
    let mut client = stranger("127.0.0.1", &relay).await;
    client.asks("RCPT TO:<user9@example.com>", refused).await;
    assert_eq!(server.asked().len(), 3, "it is not asked about");
    server.leave.add_permits(3);
    for client in &mut waiting {
        client.hears("250 2.1.5").await;
    }
    client
        .asks("RCPT TO:<nobody@example.com>", "550 5.1.1")
        .await;
    drop((waiting, client));
    relay.ends().await;
}

/// A recipient that is not asked about, since the client waits for too many answers, does not count.
#[tokio::test]
async fn a_recipient_that_is_not_asked_about_does_not_count() {
    let server = SlowServer::start().await;
    let limits = "[limits]\nunknown_recipients_per_minute = 6\n";
    let tables = format!("{}{limits}", ask(""));
    let relay = Relay::start_for("", &tables, &[mailboxes_at(server.address, "")]).await;
    let mut waiting = Vec::new();
    for at in 0..4 {
        let mut client = stranger("127.0.0.1", &relay).await;
        client
            .says(&format!("RCPT TO:<user{at}@example.com>"))
            .await;
        waiting.push(client);
        until("the server is asked", || {
            (server.asked().len() == at + 1).then_some(())
        })
        .await;
    }
    let mut client = stranger("127.0.0.1", &relay).await;
    for at in 4..12 {
        client
            .asks(&format!("RCPT TO:<user{at}@example.com>"), "451 4.4.3")
            .await;
    }
    assert_eq!(server.asked().len(), 4, "no more is asked");
    server.leave.add_permits(5);
    for client in &mut waiting {
        client.hears("250 2.1.5").await;
    }
    client
        .asks("RCPT TO:<user4@example.com>", "250 2.1.5")
        .await;
    drop((waiting, client));
    relay.ends().await;
}

/// A no counts. A yes does not, and neither does trouble with the source: that has a limit of its
/// own.
#[tokio::test]
async fn recipients_that_do_not_exist_count_and_others_do_not() {
    let server = Manner::new(Starttls::NotOffered)
        .answer("RCPT TO:<user", "250 2.1.5 ok")
        .answer("RCPT TO:<odd", "450 4.2.1 busy")
        .answer("RCPT", "550 5.1.1 no such user");
    let server = Peer::start(server).await;
    let tables = format!("{}{LIMITS}", ask("on_trouble = \"accept\""));
    let relay = Relay::start_for("", &tables, &[mailboxes_to(&server)]).await;
    let mut client = stranger("127.0.0.1", &relay).await;
    for at in 0..12 {
        for to in ["user", "odd"] {
            client
                .asks(&format!("RCPT TO:<{to}{at}@example.com>"), "250 2.1.5")
                .await;
        }
    }
    for (to, wanted) in [
        ("nobody1@example.com", "550 5.1.1"),
        ("nobody2@example.com", "550 5.1.1"),
        ("nobody3@example.com", "550 5.1.1"),
        ("odd1@example.com", "450 4.7.1"),
        ("user1@example.com", "450 4.7.1"),
    ] {
        client.asks(&format!("RCPT TO:<{to}>"), wanted).await;
    }
    drop(client);
    relay.ends().await;
}

/// A relay whose mailbox server has an answer about `user@example.com` alone. It knows the mailbox.
async fn in_trouble(networks: &str, on_trouble: &str) -> (Relay, Peer) {
    let server = Manner::new(Starttls::NotOffered)
        .answer("RCPT TO:<user", "250 2.1.5 ok")
        .answer("RCPT", "530 5.7.0 authenticate");
    let server = Peer::start(server).await;
    let limits =
        "[limits]\nunchecked_recipients_per_minute = 3\nunknown_recipients_per_minute = 1\n";
    let list = file("known@all.example.com\n").replace(
        "\"example.com\", \"all.example.com\"",
        "\"all.example.com\"",
    );
    let table = ask(&format!("on_trouble = \"{on_trouble}\""));
    let tables = format!("{table}{list}{limits}");
    let relay = Relay::start_for(networks, &tables, &[mailboxes_to(&server)]).await;
    let mut client = stranger("127.0.200.1", &relay).await;
    client.asks("RCPT TO:<user@example.com>", "250 2.1.5").await;
    (relay, server)
}

/// While the mailbox server is in trouble, a client that guesses learns neither who is remembered
/// nor, from bounces, much about others. It is not held to have guessed.
#[tokio::test]
async fn trouble_of_the_source_is_no_way_to_guess() {
    for (on_trouble, without_an_answer) in [("accept", "250 2.1.5"), ("defer", "451 4.4.3")] {
        let (relay, _server) = in_trouble("", on_trouble).await;
        let mut client = stranger("127.0.0.1", &relay).await;
        for at in 0..3 {
            client
                .asks(
                    &format!("RCPT TO:<guess{at}@example.com>"),
                    without_an_answer,
                )
                .await;
            if at < 2 {
                client.asks("RCPT TO:<user@example.com>", "250 2.1.5").await;
            }
        }
        let refused = "451 4.4.3 The recipient cannot be checked at present; try again later";
        for to in ["guess3@example.com", "user@example.com"] {
            client.asks(&format!("RCPT TO:<{to}>"), refused).await;
        }
        let mut again = stranger("127.0.0.1", &relay).await;
        again.asks("RCPT TO:<user@example.com>", refused).await;
        // A list in a file is in no trouble, and the client has named no unknown recipient yet.
        for (to, wanted) in [
            ("known@all.example.com", "250 2.1.5"),
            ("nobody@all.example.com", "550 5.1.1"),
            ("known@all.example.com", "450 4.7.1 Too many unknown"),
        ] {
            again.asks(&format!("RCPT TO:<{to}>"), wanted).await;
        }
        let mut other = stranger("127.0.9.1", &relay).await;
        other
            .asks("RCPT TO:<guess9@example.com>", without_an_answer)
            .await;
        other.asks("RCPT TO:<user@example.com>", "250 2.1.5").await;
        drop((client, again, other));
        relay.ends().await;
    }
}

#[tokio::test]
async fn our_own_clients_have_no_limit_in_trouble() {
    let (relay, _server) = in_trouble("\"127.0.0.0/8\"", "accept").await;
    let mut client = stranger("127.0.0.1", &relay).await;
    for at in 0..12 {
        client
            .asks(&format!("RCPT TO:<guess{at}@example.com>"), "250 2.1.5")
            .await;
    }
    client.asks("RCPT TO:<user@example.com>", "250 2.1.5").await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn our_own_clients_have_no_limit_but_that_of_errors() {
    let tables = format!("{}{LIMITS}", file("user@example.com\n"));
    let relay = Relay::start(&tables, &[]).await;
    let mut client = relay.client().await;
    client.asks("MAIL FROM:<a@sender.example>", "250").await;
    for at in 0..20 {
        client
            .asks(&format!("RCPT TO:<guess{at}@example.com>"), "550 5.1.1")
            .await;
    }
    client
        .asks(
            "RCPT TO:<user@example.com>",
            "421 4.7.0 relay.example.com Too many errors",
        )
        .await;
    client.hears_the_end().await;
    relay.ends().await;
}
