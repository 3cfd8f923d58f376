//! Sessions over real sockets, with real TLS and a real spool.

mod arrival;
mod balancer;
mod keys;
mod large;
mod limits;
mod login;
mod login_limits;
mod pins;
mod proxy;
mod relay;
mod release;
mod revocation;
mod seats;
mod timeouts;

use std::time::Instant;

use gatepost::smtp::envelope::TlsRequirement;
use gatepost::storage::spool::Spool as _;
use relay::{Relay, Wanted, content};

#[tokio::test]
async fn a_message_is_durable_before_its_250() {
    let mut relay = Relay::start(Wanted {
        at_once: false,
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    client.begins("a@example.org", "b@example.com").await;
    client.says("Subject: a\n\n..b\n.").await;
    client.hears_nothing().await;
    assert!(
        relay.stored().await.is_empty(),
        "the spool has not been let"
    );
    relay.spool.leave.add_permits(1);
    let reply = client.reply().await;
    let entry = relay.entry().await;
    assert_eq!(reply, format!("250 2.0.0 Ok: queued as {}", entry.id));
    assert_eq!(
        relay.spool.load(entry.id).await.expect("stored").envelope,
        entry.envelope
    );
    let (received, rest) = content(&entry).await;
    let begin = format!(
        "Received: from client.example ([127.0.0.1]) by relay.example.com with ESMTP id {} for",
        entry.id
    );
    assert!(received.starts_with(&begin), "{received}");
    assert_eq!(rest, "Subject: a\r\n\r\n.b\r\n");
    client.says("QUIT").await;
    client.hears("221 2.0.0").await;
    client.hears_the_end().await;
    relay.ends().await;
}

/// A transaction that has begun keeps its configuration.
#[tokio::test]
async fn a_reload_holds_from_the_next_mail_of_a_session() {
    let relay = Relay::start(Wanted::default()).await;
    let mut client = relay.client().await;
    client.asks("EHLO client.example", "250").await;
    client.asks("MAIL FROM:<a@example.org>", "250 2.1.0").await;
    relay.reload(&Wanted {
        networks: "\"127.0.0.0/8\"",
        ..Wanted::default()
    });
    client.asks("RCPT TO:<b@example.net>", "550 5.7.1").await;
    client.asks("RSET", "250").await;
    client.asks("MAIL FROM:<a@example.org>", "250 2.1.0").await;
    client.asks("RCPT TO:<b@example.net>", "250 2.1.5").await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn mail_of_our_own_clients_for_this_host_goes_to_the_postmaster() {
    let mut relay = Relay::start(Wanted {
        networks: "\"127.0.0.0/8\"",
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    for to in [
        "root@relay.example.com",
        "root@localhost",
        "root@[127.0.0.1]",
        "b@example.net",
    ] {
        client.begins("a@example.org", to).await;
        client.says("Subject: a\n\nb\n.").await;
        client.hears("250 2.0.0 Ok: queued as").await;
        let wanted = if to == "b@example.net" {
            to
        } else {
            "admin@example.com"
        };
        assert_eq!(
            relay.entry().await.envelope.recipients[0]
                .mailbox
                .to_string(),
            wanted
        );
    }
    drop(client);
    relay.ends().await;
}

/// Content without a header, with half of one, and with all of it; from our own clients, and from
/// others.
#[tokio::test]
async fn what_a_message_lacks_is_added_for_our_own_clients_alone() {
    for (networks, is_ours) in [("\"127.0.0.0/8\"", true), ("", false)] {
        let mut relay = Relay::start(Wanted {
            networks,
            ..Wanted::default()
        })
        .await;
        let mut client = relay.client().await;
        for (sent, before, behind, lacks_date) in [
            (
                "Subject: a\n\nDate: b\n",
                "Subject: a\r\n",
                "\r\nDate: b\r\n",
                true,
            ),
            ("Scan ready\n", "", "\r\nScan ready\r\n", true),
            (
                "DATE: x\nmessage-id: <x@y>\n\nb\n",
                "DATE: x\r\nmessage-id: <x@y>\r\n\r\nb\r\n",
                "",
                false,
            ),
            ("", "", "\r\n", true),
        ] {
            client.begins("a@example.org", "b@example.com").await;
            client.says(&format!("{sent}.")).await;
            client.hears("250 2.0.0 Ok: queued as").await;
            let entry = relay.entry().await;
            let (_, content) = content(&entry).await;
            let id = format!("<{}@relay.example.com>", entry.id);
            if is_ours && lacks_date {
                let added = content
                    .strip_prefix(before)
                    .and_then(|rest| rest.strip_suffix(behind))
                    .expect(&content);
                let date = added
                    .strip_prefix("Date: ")
                    .and_then(|rest| rest.split_once("\r\n"))
                    .expect(&content)
                    .0;
                assert!(jiff::fmt::rfc2822::parse(date).is_ok(), "{date}");
                assert_eq!(added, format!("Date: {date}\r\nMessage-ID: {id}\r\n"));
                assert_eq!(entry.envelope.message_id.as_deref(), Some(id.as_str()));
            } else {
                assert_eq!(content, sent.replace('\n', "\r\n"));
                assert_ne!(entry.envelope.message_id.as_deref(), Some(id.as_str()));
            }
        }
        relay.ends().await;
    }
}

#[tokio::test]
async fn text_that_begins_with_a_blank_is_a_body_for_our_own_clients() {
    let mut relay = Relay::start(Wanted {
        networks: "\"127.0.0.0/8\"",
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    client.says("EHLO x").await;
    client.hears("250-relay").await;
    client
        .says("MAIL FROM:<a@example.org>\nRCPT TO:<b@example.com>\nBDAT 9\n  hello\nBDAT 8 LAST")
        .await;
    client.sends(b" there\r\n").await;
    for words in [
        "250 2.1.0",
        "250 2.1.5",
        "250 2.0.0 Ok: 9",
        "250 2.0.0 Ok: queued",
    ] {
        client.hears(words).await;
    }
    let (received, content) = content(&relay.entry().await).await;
    assert!(
        !received.contains("hello") && content.starts_with("Date: "),
        "{received}{content}"
    );
    assert!(
        content.ends_with(">\r\n\r\n  hello\r\n there\r\n"),
        "{content}"
    );
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn a_message_that_ends_with_bare_lfs_is_refused_with_that_reason() {
    let relay = Relay::start(Wanted::default()).await;
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n"] {
        let mut client = relay.client().await;
        client.begins("a@example.org", "b@example.com").await;
        client
            .sends(format!("Subject: a\n\nb{end}").as_bytes())
            .await;
        client.hears("550 5.6.0 The message has a bare LF").await;
        client.hears_the_end().await;
    }
    assert!(relay.stored().await.is_empty());
    relay.ends().await;
}

#[tokio::test]
async fn a_client_that_stops_in_refused_content_hears_the_reason() {
    let more = "[timeouts]\ndata_block = \"1s\"";
    let relay = Relay::start(Wanted {
        more,
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    client.begins("a@example.org", "b@example.com").await;
    client.sends(b"Subject: a\rb\r\n").await;
    client.hears("550 5.6.0 The message has a bare CR").await;
    client.hears_the_end().await;
    relay.ends().await;
}

#[tokio::test]
async fn a_full_spool_is_our_trouble() {
    let relay = Relay::start(Wanted {
        full: true,
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    client.begins("a@example.org", "b@example.com").await;
    client.says("a\n.").await;
    client.hears("452 4.3.1").await;
    client.says("NOOP").await;
    client.hears("250 2.0.0").await;
    assert!(relay.stored().await.is_empty());
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn a_message_is_answered_for_even_if_nobody_delivers() {
    let mut relay = Relay::start(Wanted::default()).await;
    relay.accepted.close();
    let mut client = relay.client().await;
    client.begins("a@example.org", "b@example.com").await;
    client.says("a\n.").await;
    client.hears("250 2.0.0 Ok: queued as").await;
    assert_eq!(relay.stored().await.len(), 1, "it waits for the next start");
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn a_busy_scheduler_holds_up_the_next_message_not_the_answer() {
    let mut relay = Relay::start(Wanted::default()).await;
    let mut client = relay.client().await;
    for _ in 0..11 {
        client.begins("a@example.org", "b@example.com").await;
        client.says("a\n.").await;
        client.hears("250 2.0.0 Ok: queued as").await;
    }
    client.says("NOOP").await;
    client.hears_nothing().await;
    for _ in 0..11 {
        relay.entry().await;
    }
    client.hears("250 2.0.0").await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn large_content_comes_through_unchanged() {
    let mut relay = Relay::start(Wanted::default()).await;
    let mut client = relay.client().await;
    client.begins("a@example.org", "b@example.com").await;
    let line = format!(".{}\r\n", "x".repeat(97));
    let text = line.repeat(20_000);
    client
        .sends(
            text.replace("\r\n.", "\r\n..")
                .replacen('.', "..", 1)
                .as_bytes(),
        )
        .await;
    client.sends(b".\r\n").await;
    client.hears("250 2.0.0").await;
    let (_, rest) = content(&relay.entry().await).await;
    assert!(
        rest == text,
        "{} octets were sent, and {} have come",
        text.len(),
        rest.len()
    );
    client
        .says("MAIL FROM:<>\nRCPT TO:<postmaster>\nBDAT 3")
        .await;
    client.sends(b"a\r\nBDAT 3 LAST\r\n.\r\n").await;
    for words in [
        "250 2.1.0",
        "250 2.1.5",
        "250 2.0.0 Ok: 3 octets",
        "250 2.0.0 Ok: queued as",
    ] {
        client.hears(words).await;
    }
    let entry = relay.entry().await;
    assert_eq!(
        entry.envelope.recipients[0].mailbox.to_string(),
        "admin@example.com"
    );
    assert_eq!(content(&entry).await.1, "a\r\n.\r\n");
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn the_received_field_names_the_tls_of_the_session() {
    let mut relay = Relay::start(Wanted::default()).await;
    let mut client = relay.secured(false).await;
    client.says("MAIL FROM:<a@example.org>").await;
    client.hears("503 5.5.1 EHLO or HELO first").await;
    client.begins("a@example.org", "b@example.com").await;
    client.says("a\n.").await;
    client.hears("250 2.0.0").await;
    let (received, _) = content(&relay.entry().await).await;
    assert!(received.contains(" with ESMTPS (TLSv1.3 TLS"), "{received}");
    assert!(received.contains("client certificate: none)"), "{received}");
    client.says("QUIT").await;
    client.hears("221 2.0.0").await;
    client.hears_the_end().await;
    relay.ends().await;
}

#[tokio::test]
async fn requiretls_is_offered_under_tls_alone_and_is_kept_with_the_message() {
    let mut relay = Relay::start(Wanted::default()).await;
    let mut clear = relay.client().await;
    clear.says("EHLO client.example").await;
    let offered = clear.reply().await;
    assert!(
        offered.contains("STARTTLS") && !offered.contains("REQUIRETLS"),
        "{offered}"
    );
    clear.says("MAIL FROM:<a@example.org> REQUIRETLS").await;
    clear.hears("555 5.5.4").await;
    let mut client = relay.secured(false).await;
    client.says("EHLO client.example").await;
    let offered = client.reply().await;
    assert!(
        !offered.contains("STARTTLS") && offered.ends_with("250 REQUIRETLS"),
        "{offered}"
    );
    client
        .says("MAIL FROM:<a@example.org> REQUIRETLS\nRCPT TO:<b@example.com>\nDATA")
        .await;
    for words in ["250 2.1.0", "250 2.1.5", "354"] {
        client.hears(words).await;
    }
    client.says("TLS-Required: No\n\na\n.").await;
    client.hears("250 2.0.0").await;
    let entry = relay.entry().await;
    assert_eq!(entry.envelope.tls, TlsRequirement::Require);
    assert_eq!(
        relay.spool.load(entry.id).await.expect("stored").envelope,
        entry.envelope
    );
    assert_eq!(content(&entry).await.1, "TLS-Required: No\r\n\r\na\r\n");
    drop((clear, client));
    relay.ends().await;
}

#[tokio::test]
async fn implicit_tls_comes_before_the_greeting() {
    let mut relay = Relay::start(Wanted {
        tls: "implicit",
        ..Wanted::default()
    })
    .await;
    let mut silent = relay.silent().await;
    silent.hears_nothing().await;
    let mut client = relay.shaken(silent, false).await;
    client.hears("220 relay.example.com").await;
    client.begins("a@example.org", "b@example.com").await;
    client.says("a\n.").await;
    client.hears("250 2.0.0").await;
    relay.entry().await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn clear_text_behind_starttls_ends_the_session() {
    let relay = Relay::start(Wanted::default()).await;
    let mut client = relay.client().await;
    client
        .sends(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n")
        .await;
    client.hears("501 5.5.0").await;
    client.hears_the_end().await;
    // Later, it is no handshake, and nothing is said to it.
    let mut client = relay.client().await;
    client.says("STARTTLS").await;
    client.hears("220 2.0.0").await;
    client.says("EHLO client.example").await;
    client.hears_no_reply().await;
    relay.ends().await;
}

#[tokio::test]
async fn a_partner_is_held_to_its_connector() {
    let mut relay = Relay::start(Wanted::default()).await;
    let mail = "MAIL FROM:<a@domain-c.com>";
    let mut clear = relay.client().await;
    clear.says("EHLO client.example").await;
    clear.hears("250-").await;
    clear.says(mail).await;
    clear
        .hears("530 5.7.0 Must issue a STARTTLS command first")
        .await;
    let mut bare = relay.secured(false).await;
    bare.says("EHLO client.example").await;
    bare.hears("250-").await;
    bare.says(mail).await;
    bare.hears("550 5.7.1 Mail from domain-c.com: TLS with a trusted certificate for mail.domain-c.com is demanded")
        .await;
    // Its own domain's rule does not follow it to others.
    bare.begins("a@example.org", "b@example.com").await;
    drop(bare);
    let mut partner = relay.secured(true).await;
    partner.begins("a@domain-c.com", "b@anywhere.example").await;
    partner.says("a\n.").await;
    partner.hears("250 2.0.0").await;
    let (received, _) = content(&relay.entry().await).await;
    assert!(
        received.contains("client certificate: verified as mail.domain-c.com)"),
        "{received}"
    );
    partner
        .says("MAIL FROM:<a@example.org>\nRCPT TO:<b@anywhere.example>")
        .await;
    partner.hears("250 2.1.0").await;
    partner.hears("550 5.7.1 Relaying denied").await;
    drop((clear, partner));
    relay.ends().await;
}

/// Whoever shows a certificate makes no work where nobody asks for it.
#[tokio::test]
async fn a_certificate_that_no_connector_asks_for_is_not_checked() {
    let mut relay = Relay::start(Wanted::default()).await;
    let mut partner = relay.secured(true).await;
    partner.begins("a@example.org", "b@example.com").await;
    partner.says("a\n.").await;
    partner.hears("250 2.0.0").await;
    let (received, _) = content(&relay.entry().await).await;
    assert!(
        received.contains("client certificate: not checked)"),
        "{received}"
    );
    // For the next sender of the same session it is asked for.
    partner.begins("a@domain-c.com", "b@example.com").await;
    partner.says("a\n.").await;
    partner.hears("250 2.0.0").await;
    let (received, _) = content(&relay.entry().await).await;
    assert!(
        received.contains("client certificate: verified as mail.domain-c.com)"),
        "{received}"
    );
    drop(partner);
    relay.ends().await;
}

#[tokio::test]
async fn strangers_do_not_relay() {
    let relay = Relay::start(Wanted {
        networks: "\"127.0.0.1/32\"",
        ..Wanted::default()
    })
    .await;
    let mut known = relay.client().await;
    known.begins("a@example.org", "b@anywhere.example").await;
    drop(known);
    let mut stranger = relay.from("127.0.0.2").await;
    stranger.hears("220").await;
    stranger.says("EHLO client.example").await;
    stranger.hears("250-").await;
    stranger
        .says("MAIL FROM:<a@elsewhere.example>\nMAIL FROM:<a@example.org>")
        .await;
    stranger
        .hears("550 5.7.1 Mail from elsewhere.example is not taken from 127.0.0.2")
        .await;
    stranger.hears("250 2.1.0").await;
    for path in [
        "b@anywhere.example",
        "b%anywhere.example@example.com",
        "\"b@anywhere.example\"@example.com",
        "b@[127.0.0.9]",
    ] {
        stranger.says(&format!("RCPT TO:<{path}>")).await;
        stranger.hears("550 5.7.1 Relaying denied").await;
    }
    stranger.says("DATA").await;
    stranger.hears("554 5.5.1 No valid recipients").await;
    assert!(relay.stored().await.is_empty());
    drop(stranger);
    relay.ends().await;
}

#[tokio::test]
async fn sessions_are_counted() {
    let more = "[limits]\nconnections = 3\nconnections_per_client = 2";
    let relay = Relay::start(Wanted {
        more,
        ..Wanted::default()
    })
    .await;
    let (mut first, _second) = (relay.client().await, relay.client().await);
    let mut third = relay.silent().await;
    third.hears("421 4.7.0").await;
    third.hears_the_end().await;
    let mut other = relay.from("127.0.0.2").await;
    other.hears("220").await;
    let mut last = relay.from("127.0.0.3").await;
    last.hears_nothing().await;
    first.says("QUIT").await;
    first.hears("221").await;
    first.hears_the_end().await;
    // A client that waits is next.
    last.hears("220").await;
    drop(last);
    // The place is free once the session has ended, a moment after the client has seen it.
    let until = Instant::now() + relay::PATIENCE;
    while relay.silent().await.reply().await.starts_with("421") {
        assert!(Instant::now() < until, "the place was never given back");
        tokio::task::yield_now().await;
    }
    drop(other);
    relay.ends().await;
}

#[tokio::test]
async fn a_stop_waits_for_the_message_that_is_coming_in() {
    let mut relay = Relay::start(Wanted::default()).await;
    let (mut idle, mut busy) = (relay.client().await, relay.client().await);
    busy.begins("a@example.org", "b@example.com").await;
    relay.stop.cancel();
    idle.hears("421 4.3.2").await;
    idle.hears_the_end().await;
    busy.hears_nothing().await;
    busy.says("a\n.").await;
    busy.hears("250 2.0.0 Ok: queued as").await;
    busy.hears("421 4.3.2").await;
    busy.hears_the_end().await;
    relay.entry().await;
    relay.ends().await;
}
