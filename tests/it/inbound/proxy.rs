//! Behind a proxy that says XCLIENT: the client is whom it names, with that client's rights and no
//! others.

use gatepost::storage::evidence::RecordedAssurance;

use super::arrival::by;
use super::login::{Users, log_in, secured};
use super::relay::{Relay, Wanted, content};

const FROM_HERE: &str = "127.0.0.1/32";

#[tokio::test]
async fn the_client_and_its_rights_are_those_that_xclient_names() {
    let mut relay = Relay::start(Wanted {
        proxies: FROM_HERE,
        networks: "\"192.0.2.0/24\"",
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    client.says("EHLO proxy.example").await;
    assert!(
        client
            .reply()
            .await
            .contains("250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN\r\n")
    );
    client
        .says("XCLIENT NAME=client.example ADDR=192.0.2.77 PORT=4711 LOGIN=alice")
        .await;
    client.hears("220 relay.example.com ESMTP Gatepost").await;
    // The connector wants its senders' own network, and that may send anywhere.
    client.begins("a@elsewhere.example", "b@far.example").await;
    client.says("a\n.").await;
    client.hears("250 2.0.0").await;
    let entry = relay.entry().await;
    let (received, rest) = content(&entry).await;
    assert!(
        received.starts_with("Received: from client.example (client.example [192.0.2.77]) by"),
        "{received}"
    );
    assert!(rest.starts_with("Date: "), "a client of ours: {rest}");
    let by = by(&entry);
    assert_eq!(
        (by.client.as_deref(), by.client_name.as_deref()),
        (Some("192.0.2.77:4711"), Some("client.example"))
    );
    assert!(by.via.is_some_and(|proxy| proxy.starts_with("127.0.0.1:")));

    let mut client = relay.client().await;
    client
        .says("XCLIENT ADDR=IPV6:2001:db8::1 NAME=[TEMPUNAVAIL]")
        .await;
    client.hears("220").await;
    client.says("EHLO client.example").await;
    assert!(
        !client.reply().await.contains("XCLIENT"),
        "it is another's address now"
    );
    client.says("MAIL FROM:<a@elsewhere.example>").await;
    client
        .hears("550 5.7.1 Mail from elsewhere.example is not taken from 2001:db8::1")
        .await;
    client
        .says("MAIL FROM:<a@example.org>\nRCPT TO:<b@far.example>\nRCPT TO:<b@example.com>\nDATA")
        .await;
    for words in ["250", "550 5.7.1 Relaying denied", "250", "354"] {
        client.hears(words).await;
    }
    client.says("Subject: a\n\nb\n.").await;
    client.hears("250 2.0.0").await;
    let (received, rest) = content(&relay.entry().await).await;
    assert!(
        received.starts_with("Received: from client.example ([IPv6:2001:db8::1]) by"),
        "{received}"
    );
    assert_eq!(
        rest, "Subject: a\r\n\r\nb\r\n",
        "nothing is added for strangers"
    );
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn a_client_whose_address_the_proxy_does_not_know_has_no_rights() {
    let relay = Relay::start(Wanted {
        proxies: FROM_HERE,
        networks: "\"127.0.0.0/8\"",
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    client
        .says("XCLIENT ADDR=[UNAVAILABLE] NAME=[UNAVAILABLE]")
        .await;
    client.hears("220").await;
    client.says("EHLO client.example").await;
    client.hears("250").await;
    client.says("MAIL FROM:<a@elsewhere.example>").await;
    client
        .hears("550 5.7.1 Mail from elsewhere.example is not taken from an unknown address")
        .await;
    client
        .says("MAIL FROM:<a@example.org>\nRCPT TO:<b@far.example>")
        .await;
    client.hears("250").await;
    client.hears("550 5.7.1 Relaying denied").await;
    client.says("RSET").await;
    client.hears("250").await;
    client.says("XCLIENT ADDR=127.0.0.1").await;
    client.hears("550 5.7.0").await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn strangers_are_not_offered_it_and_not_believed() {
    let relay = Relay::start(Wanted {
        proxies: "192.0.2.1/32",
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    client.says("EHLO client.example").await;
    assert!(!client.reply().await.contains("XCLIENT"));
    client.says("XCLIENT ADDR=192.0.2.1").await;
    client
        .hears("550 5.7.0 XCLIENT is not taken from this address")
        .await;
    client.says("MAIL FROM:<a@elsewhere.example>").await;
    client.hears("550 5.7.1").await;
    drop(client);
    relay.ends().await;
}

/// A proxy that shows a partner's certificate does not lend it to everybody behind it.
#[tokio::test]
async fn the_certificate_of_the_proxy_is_not_its_clients() {
    let mut relay = Relay::start(Wanted {
        proxies: FROM_HERE,
        ..Wanted::default()
    })
    .await;
    let mut client = relay.secured(true).await;
    client.begins("a@domain-c.com", "b@far.example").await;
    client.says("a\n.").await;
    client.hears("250 2.0.0").await;
    relay.entry().await;
    client.says("XCLIENT ADDR=192.0.2.77").await;
    client.hears("220").await;
    client.says("EHLO client.example").await;
    client.hears("250").await;
    client.says("MAIL FROM:<a@domain-c.com>").await;
    client.hears("550 5.7.1 Mail from domain-c.com: ").await;
    client.begins("a@example.org", "b@example.com").await;
    client.says("a\n.").await;
    client.hears("250 2.0.0").await;
    let entry = relay.entry().await;
    let by = by(&entry);
    assert_eq!(by.session.level, RecordedAssurance::Tls);
    assert!(by.session.tls.is_some_and(|tls| tls.certificate.is_none()));
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn behind_a_balancer_the_address_in_its_header_counts() {
    let here = Wanted {
        balancers: FROM_HERE,
        proxies: "192.0.2.1/32",
        ..Wanted::default()
    };
    let relay = Relay::start(here).await;
    for (header, reply) in [
        ("PROXY TCP4 192.0.2.1 10.0.0.1 40000 25", "220"),
        ("PROXY TCP4 192.0.2.2 10.0.0.1 40000 25", "550 5.7.0"),
        ("PROXY UNKNOWN", "550 5.7.0"),
    ] {
        let mut client = relay.silent().await;
        client.says(header).await;
        client.hears("220").await;
        client.says("XCLIENT ADDR=203.0.113.9").await;
        client.hears(reply).await;
    }
    relay.ends().await;
}

#[tokio::test]
async fn a_proxy_header_that_nobody_asked_for_ends_the_session() {
    for tls in ["opportunistic", "forced", "implicit"] {
        let relay = Relay::start(Wanted {
            tls,
            balancers: "192.0.2.1/32",
            ..Wanted::default()
        })
        .await;
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x01\x04\xd2\0\x19";
        for header in [&b"PROXY TCP4 192.0.2.77 10.0.0.1 40000 25\r\n"[..], v2] {
            let mut client = relay.silent().await;
            if tls == "implicit" {
                client.sends(header).await;
                client.hears_no_reply().await;
                continue;
            }
            client.hears("220").await;
            client.sends(header).await;
            client
                .hears("554 5.5.1 No PROXY header is taken from this address")
                .await;
            client.hears_the_end().await;
        }
        relay.ends().await;
    }
}

#[tokio::test]
async fn the_handshakes_of_a_proxy_are_not_those_of_one_client() {
    let more = "[limits]\nhandshakes_per_minute = 1\n";
    let relay = Relay::start(Wanted {
        proxies: FROM_HERE,
        more,
        ..Wanted::default()
    })
    .await;
    for at in 1..=3 {
        let mut client = relay.secured(false).await;
        client.says(&format!("XCLIENT ADDR=192.0.2.{at}")).await;
        client.hears("220").await;
    }
    relay.ends().await;
}

#[tokio::test]
async fn a_crowded_client_is_one_behind_the_proxy() {
    let limits = "[limits]\nconnections_per_client = 1\n";
    let relay = Relay::start(Wanted {
        proxies: FROM_HERE,
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
        let mut client = relay.client().await;
        client.says(&format!("XCLIENT ADDR={address}")).await;
        client.hears(heard).await;
        if heard == "220" {
            open.push(client);
        } else {
            client.hears_the_end().await;
        }
    }
    // The proxy's own are as many as it likes, until it says whose they are.
    open.push(relay.client().await);
    open.push(relay.client().await);
    relay.ends().await;
}

/// The proxy itself may connect as often as it has clients; each of these has its own allowance.
#[tokio::test]
async fn a_connection_counts_for_the_client_that_the_proxy_names() {
    let relay = Relay::start(Wanted {
        proxies: FROM_HERE,
        more: "[limits]\nconnections_per_minute = 2",
        ..Wanted::default()
    })
    .await;
    for (address, words) in [
        ("192.0.2.1", "220"),
        ("192.0.2.1", "220"),
        (
            "192.0.2.1",
            "421 4.7.0 relay.example.com Too many connections a minute from 192.0.2.1; try again in",
        ),
        ("192.0.2.2", "220"),
    ] {
        let mut client = relay.client().await;
        client.says(&format!("XCLIENT ADDR={address}")).await;
        client.hears(words).await;
    }
    relay.ends().await;
}

/// The login was the proxy's own. It grants nothing to the client that the proxy names, which may
/// log in itself.
#[tokio::test]
async fn a_login_ends_where_the_proxy_names_its_client() {
    let users = Users::of(&[("proxy", ""), ("scanner", "")]);
    let more = format!("[users]\nfile = \"{}\"\n", users.path().display());
    let mut relay = Relay::start(Wanted {
        proxies: FROM_HERE,
        listener: "auth = [\"plain\"]",
        more: &more,
        ..Wanted::default()
    })
    .await;
    let mut client = secured(&relay).await;
    log_in(&mut client, "proxy").await;
    client.asks("XCLIENT ADDR=192.0.2.77", "220").await;
    client.asks("EHLO client.example", "250-").await;
    client.asks("MAIL FROM:<a@example.org>", "250").await;
    client
        .asks("RCPT TO:<b@far.example>", "550 5.7.1 Relaying denied")
        .await;
    client.asks("RCPT TO:<b@example.com>", "250").await;
    client.content("a\r\n").await;
    assert_eq!(by(&relay.entry().await).user, None);
    log_in(&mut client, "scanner").await;
    client.asks("MAIL FROM:<a@example.org>", "250").await;
    client.asks("RCPT TO:<b@far.example>", "250").await;
    client.content("a\r\n").await;
    let by = by(&relay.entry().await);
    assert_eq!(by.user.as_deref(), Some("scanner"));
    assert!(
        by.client
            .is_some_and(|client| client.starts_with("192.0.2.77"))
    );
    drop(client);
    relay.ends().await;
}
