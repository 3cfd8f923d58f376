//! Clients that guess addresses.

use super::world::{Relay, file};

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
