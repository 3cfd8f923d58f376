//! Behind a load balancer: who calls is whom its PROXY header names, and nobody else is believed.

use super::relay::{Relay, Wanted, content};

const BEHIND: &str = "127.0.0.1/32";

#[tokio::test]
async fn the_client_is_the_one_that_the_header_names() {
    let mut relay = Relay::start(Wanted {
        balancers: BEHIND,
        networks: "\"192.0.2.0/24\"",
        ..Wanted::default()
    })
    .await;
    // The connector wants its senders' own network, and that may send anywhere.
    let mut client = relay.silent().await;
    client.says("PROXY TCP4 192.0.2.77 10.0.0.1 40000 25").await;
    client.hears("220").await;
    client.begins("a@elsewhere.example", "b@far.example").await;
    client.says("a\n.").await;
    client.hears("250 2.0.0").await;
    let (received, _) = content(&relay.entry().await).await;
    assert!(received.contains("([192.0.2.77])"), "{received}");

    let mut client = relay.silent().await;
    client
        .says("PROXY TCP4 203.0.113.9 10.0.0.1 40000 25")
        .await;
    client.hears("220").await;
    client.says("EHLO client.example").await;
    client.hears("250").await;
    client.says("MAIL FROM:<a@elsewhere.example>").await;
    client.hears("550 5.7.1").await;
    client.says("MAIL FROM:<a@example.org>").await;
    client.hears("250").await;
    client.says("RCPT TO:<b@far.example>").await;
    client.hears("550 5.7.1").await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn a_balancers_health_check_is_the_balancer_itself() {
    let relay = Relay::start(Wanted {
        balancers: BEHIND,
        ..Wanted::default()
    })
    .await;
    let mut client = relay.silent().await;
    client.says("PROXY UNKNOWN").await;
    client.hears("220").await;
    client.says("QUIT").await;
    client.hears("221 2.0.0").await;
    client.hears_the_end().await;
    relay.ends().await;
}

#[tokio::test]
async fn a_balancer_that_names_nobody_has_no_rights() {
    // Whoever is behind it has not the balancer's rights: it would be an open relay.
    let relay = Relay::start(Wanted {
        balancers: BEHIND,
        networks: "\"127.0.0.0/8\"",
        ..Wanted::default()
    })
    .await;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        local,
    ] {
        let mut client = relay.silent().await;
        client.sends(header).await;
        client.hears("220").await;
        client.says("EHLO client.example").await;
        client.hears("250").await;
        client.says("MAIL FROM:<a@elsewhere.example>").await;
        client
            .hears("550 5.7.1 Mail from elsewhere.example is not taken from an unknown address")
            .await;
        client
            .says("MAIL FROM:<a@example.org>\nRCPT TO:<b@far.example>\nRCPT TO:<b@example.com>")
            .await;
        client.hears("250 2.1.0").await;
        client.hears("550 5.7.1 Relaying denied").await;
        client.hears("250 2.1.5").await;
    }
    // The same balancer's statement about a client of ours still counts.
    let mut client = relay.silent().await;
    client.says("PROXY TCP4 127.0.0.9 127.0.0.1 40000 25").await;
    client.hears("220").await;
    client.begins("a@example.org", "b@far.example").await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn who_comes_without_a_header_hears_nothing() {
    let relay = Relay::start(Wanted {
        balancers: BEHIND,
        ..Wanted::default()
    })
    .await;
    for first in [
        "EHLO client.example",
        "PROXY TCP4 nonsense here 40000 25 and more of it",
    ] {
        let mut client = relay.silent().await;
        client.hears_nothing().await;
        client.says(first).await;
        client.hears_no_reply().await;
    }
    relay.ends().await;
}

#[tokio::test]
async fn who_speaks_before_the_greeting_is_heard_no_further() {
    let relay = Relay::start(Wanted {
        balancers: BEHIND,
        ..Wanted::default()
    })
    .await;
    // In one piece with the header, the command is there before the greeting is due.
    for early in ["EHLO client.example", "POST / HTTP/1.1"] {
        let mut client = relay.silent().await;
        client
            .says(&format!("PROXY TCP4 192.0.2.77 10.0.0.1 40000 25\n{early}"))
            .await;
        client.hears("554 5.5.0 The server speaks first").await;
        client.hears_the_end().await;
    }
    relay.ends().await;
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let relay = Relay::start(Wanted {
        balancers: "192.0.2.1/32",
        ..Wanted::default()
    })
    .await;
    let mut client = relay.silent().await;
    client.hears("220").await;
    client.says("PROXY TCP4 192.0.2.77 10.0.0.1 40000 25").await;
    client.hears("554 5.5.1").await;
    client.hears_the_end().await;
    relay.ends().await;
}

#[tokio::test]
async fn a_crowded_client_is_one_behind_the_balancer() {
    let limits = "[limits]\nconnections_per_client = 1\n";
    let relay = Relay::start(Wanted {
        balancers: BEHIND,
        more: limits,
        ..Wanted::default()
    })
    .await;
    let mut open = Vec::new();
    for (address, heard) in [
        ("192.0.2.1", "220"),
        ("192.0.2.2", "220"),
        ("192.0.2.1", "421 4.7.0"),
    ] {
        let mut client = relay.silent().await;
        client
            .says(&format!("PROXY TCP4 {address} 10.0.0.1 40000 25"))
            .await;
        client.hears(heard).await;
        open.push(client);
    }
    relay.ends().await;
}

#[tokio::test]
async fn tls_from_the_first_byte_begins_behind_the_header() {
    let relay = Relay::start(Wanted {
        tls: "implicit",
        balancers: BEHIND,
        ..Wanted::default()
    })
    .await;
    let mut client = relay.silent().await;
    client
        .says("PROXY TCP6 2001:db8::1 2001:db8::2 40000 465")
        .await;
    let mut client = relay.shaken(client, false).await;
    client.hears("220").await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn a_header_must_come_in_time() {
    let timeouts = "[timeouts]\nhandshake = \"200ms\"\n";
    let relay = Relay::start(Wanted {
        balancers: BEHIND,
        more: timeouts,
        ..Wanted::default()
    })
    .await;
    for begun in ["", "PROXY TCP4 192.0.2.1"] {
        let mut client = relay.silent().await;
        client.sends(begun.as_bytes()).await;
        client.hears_no_reply().await;
    }
    relay.ends().await;
}
