//! Limits on clients: seats, rates and patience, as clients hear of them. Who is counted how stands
//! in tables beside the code.

use std::time::{Duration, Instant};

use super::relay::{PATIENCE, Relay, Wanted};

const OURS: &str = "\"127.0.0.9/32\"";

#[tokio::test]
async fn a_stranger_has_so_many_messages_and_recipients_a_minute() {
    let more = "[limits]\nmessages_per_minute = 2\nrecipients_per_minute = 3";
    let relay = Relay::start(Wanted {
        more,
        networks: OURS,
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    client.says("EHLO client.example").await;
    client.hears("250-").await;
    let recipient = "RCPT TO:<b@example.com>";
    client
        .says(&format!(
            "MAIL FROM:<a@example.org>{}",
            format!("\n{recipient}").repeat(4)
        ))
        .await;
    for words in ["250 2.1.0", "250 2.1.5", "250 2.1.5", "250 2.1.5"] {
        client.hears(words).await;
    }
    client
        .hears("450 4.7.1 Too many recipients a minute from 127.0.0.1; try again in")
        .await;
    client.says("DATA").await;
    client.hears("354").await;
    client
        .says("a\n.\nMAIL FROM:<a@example.org>\nRSET\nMAIL FROM:<a@example.org>")
        .await;
    for words in ["250 2.0.0 Ok: queued", "250 2.1.0", "250 2.0.0"] {
        client.hears(words).await;
    }
    client
        .hears("450 4.7.1 Too many messages a minute from 127.0.0.1; try again in")
        .await;
    // Another session of the same client is no way around it, and others are served.
    let mut again = relay.client().await;
    again.says("EHLO client.example").await;
    again.hears("250-").await;
    again.says("MAIL FROM:<a@example.org>").await;
    again.hears("450 4.7.1").await;
    let mut ours = relay.from("127.0.0.9").await;
    ours.hears("220").await;
    ours.says("EHLO client.example").await;
    ours.hears("250-").await;
    for _ in 0..5 {
        ours.says(&format!(
            "MAIL FROM:<a@example.org>\n{recipient}\n{recipient}\nRSET"
        ))
        .await;
        for words in ["250 2.1.0", "250 2.1.5", "250 2.1.5", "250 2.0.0"] {
            ours.hears(words).await;
        }
    }
    drop((client, again, ours));
    relay.ends().await;
}

#[tokio::test]
async fn a_stranger_has_so_many_connections_and_handshakes_a_minute() {
    let more = "[limits]\nconnections_per_minute = 3\nhandshakes_per_minute = 1";
    let relay = Relay::start(Wanted {
        more,
        networks: OURS,
        ..Wanted::default()
    })
    .await;
    drop(relay.secured(false).await);
    let mut second = relay.client().await;
    second.says("STARTTLS").await;
    second.hears("421 4.7.0 relay.example.com Too many TLS handshakes a minute from 127.0.0.1; try again in").await;
    second.hears_the_end().await;
    let mut third = relay.client().await;
    third.says("EHLO client.example").await;
    third.hears("250-").await;
    let mut fourth = relay.silent().await;
    fourth.hears("421 4.7.0 relay.example.com Too many connections a minute from 127.0.0.1; try again in").await;
    fourth.hears_the_end().await;
    for _ in 0..5 {
        relay.from("127.0.0.9").await.hears("220").await;
    }
    drop(third);
    relay.ends().await;
}

#[tokio::test]
async fn where_tls_comes_first_a_handshake_too_many_is_not_answered() {
    let more = "[limits]\nhandshakes_per_minute = 1";
    let relay = Relay::start(Wanted {
        tls: "implicit",
        more,
        networks: OURS,
        ..Wanted::default()
    })
    .await;
    let first = relay.silent().await;
    relay.shaken(first, false).await.hears("220").await;
    relay.silent().await.hears_the_end().await;
    relay.ends().await;
}

#[tokio::test]
async fn a_network_has_its_share_of_seats() {
    let more = "[limits]\nconnections_per_client = 1\nconnections_per_network = 2";
    let relay = Relay::start(Wanted {
        more,
        networks: OURS,
        ..Wanted::default()
    })
    .await;
    let mut open = Vec::new();
    for (address, words) in [
        ("127.0.0.1", "220"),
        (
            "127.0.0.1",
            "421 4.7.0 relay.example.com Too many connections from your address",
        ),
        ("127.0.0.2", "220"),
        (
            "127.0.0.3",
            "421 4.7.0 relay.example.com Too many connections from your network 127.0.0.0/24",
        ),
        ("127.0.1.3", "220"),
        ("127.0.0.9", "220"),
    ] {
        let mut client = relay.from(address).await;
        client.hears(words).await;
        open.push(client);
    }
    relay.ends().await;
}

#[tokio::test]
async fn a_stranger_gives_way_to_a_client_of_ours() {
    let more = "[limits]\nconnections = 3\nconnections_reserved = 1";
    let relay = Relay::start(Wanted {
        more,
        networks: "\"127.0.1.0/24\"",
        ..Wanted::default()
    })
    .await;
    let (mut first, mut second) = (relay.client().await, relay.from("127.0.0.2").await);
    second.hears("220").await;
    // Strangers have not been here for long: another of them has to wait.
    let mut third = relay.from("127.0.0.3").await;
    third.hears_nothing().await;
    let mut ours = Vec::new();
    for address in ["127.0.1.1", "127.0.1.2"] {
        let mut client = relay.from(address).await;
        client.hears("220").await;
        ours.push(client);
    }
    first
        .hears("421 4.3.2 relay.example.com Too busy, other clients are waiting; try again later")
        .await;
    first.hears_the_end().await;
    second.says("NOOP").await;
    second.hears("250 2.0.0").await;
    third.hears_nothing().await;
    drop((second, third));
    relay.ends().await;
}

#[tokio::test]
async fn a_listener_has_its_own_seats() {
    let more = "[[listener]]\nname = \"other\"\naddress = [\"127.0.0.1:2526\"]\n[limits]\nconnections = 9\n\
                connections_reserved = 1";
    let relay = Relay::start(Wanted {
        more,
        networks: OURS,
        ..Wanted::default()
    })
    .await;
    // Eight are not reserved, and one listener of two has three quarters of them.
    let mut open = Vec::new();
    for client in 1..=6 {
        let mut client = relay.from(&format!("127.0.0.1{client}")).await;
        client.hears("220").await;
        open.push(client);
    }
    let mut next = relay.from("127.0.0.17").await;
    next.hears_nothing().await;
    relay.from("127.0.0.9").await.hears("220").await;
    // A client that has a seat does not wait for another.
    let mut again = relay.from("127.0.0.11").await;
    again
        .hears("421 4.3.2 relay.example.com Too many connections, try again later")
        .await;
    again.hears_the_end().await;
    open.pop();
    next.hears("220").await;
    drop(next);
    relay.ends().await;
}

#[tokio::test]
async fn a_session_that_brings_no_message_comes_to_an_end() {
    let more = "[timeouts]\nmessage = \"1s\"";
    let relay = Relay::start(Wanted {
        more,
        ..Wanted::default()
    })
    .await;
    for keeps_busy in ["NOOP", "MAIL FROM:<a@example.org>\nRSET"] {
        let mut client = relay.client().await;
        client.says("EHLO client.example").await;
        client.hears("250-").await;
        let began = Instant::now();
        let end = loop {
            client.says(keeps_busy).await;
            let mut reply = String::new();
            for _ in keeps_busy.lines() {
                reply = client.reply().await;
                if reply.starts_with("421") {
                    break;
                }
            }
            if !reply.starts_with("250") || began.elapsed() > PATIENCE {
                break reply;
            }
            // At the limit, the reply is waited for.
            if began.elapsed() > Duration::from_millis(900) {
                break client.reply().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert!(
            end.starts_with("421 4.4.2 relay.example.com No message for too long"),
            "{end}"
        );
        client.hears_the_end().await;
    }
    relay.ends().await;
}

/// Says RCPT with long addresses until one is refused; how many were taken, and the refusal.
async fn fill(
    client: &mut crate::inbound::relay::Client<tokio::net::TcpStream>,
) -> (usize, String) {
    client.says("MAIL FROM:<a@example.org>").await;
    client.hears("250 2.1.0").await;
    for taken in 0.. {
        client
            .says(&format!("RCPT TO:<{}{taken}@example.com>", "x".repeat(200)))
            .await;
        let reply = client.reply().await;
        if !reply.starts_with("250 2.1.5") {
            return (taken, reply);
        }
    }
    unreachable!("it is endless")
}

#[tokio::test]
async fn the_recipients_of_a_transaction_have_so_much_memory() {
    let more = "[limits]\ntransaction_memory_per_session = \"4KiB\"";
    let mut relay = Relay::start(Wanted {
        more,
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    client.says("EHLO client.example").await;
    client.hears("250-").await;
    let (first, refusal) = fill(&mut client).await;
    assert_eq!(
        refusal,
        "452 4.5.3 Too many long recipients; send the others in another transaction"
    );
    assert!((4..20).contains(&first), "{first} recipients");
    // Those that were taken have their message. Whatever ends the transaction gives its memory
    // back.
    client.says("DATA").await;
    client.hears("354").await;
    client.says("a\n.").await;
    client.hears("250 2.0.0 Ok: queued").await;
    assert_eq!(relay.entry().await.envelope.recipients.len(), first);
    for end in ["RSET", "EHLO client.example", "DATA", "QUIT"] {
        assert_eq!(
            fill(&mut client).await,
            (first, refusal.clone()),
            "before {end}"
        );
        client.says(end).await;
        match end {
            "DATA" => {
                client.hears("354").await;
                client.says("a\0\n.").await;
                client.hears("550 5.6.0").await;
            }
            "QUIT" => client.hears("221").await,
            _ => client.hears("250").await,
        }
    }
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn long_lists_share_memory_and_usual_mail_waits_for_nobody() {
    let more =
        "[limits]\ntransaction_memory = \"64KiB\"\ntransaction_memory_per_session = \"256KiB\"";
    let relay = Relay::start(Wanted {
        more,
        networks: OURS,
        ..Wanted::default()
    })
    .await;
    let mut open = Vec::new();
    let mut taken = Vec::new();
    for address in ["127.0.0.1", "127.0.0.2", "127.0.0.9"] {
        let mut client = relay.from(address).await;
        client.hears("220").await;
        client.says("EHLO client.example").await;
        client.hears("250-").await;
        let (count, refusal) = fill(&mut client).await;
        assert_eq!(
            refusal,
            "452 4.5.3 Too many recipients for the memory that is left; send the others later"
        );
        taken.push(count);
        open.push(client);
    }
    // 80 KiB for the first, which has all that strangers may share; 32 for the second; 48 for our
    // own client.
    let [first, second, ours] = taken[..] else {
        panic!("{taken:?}")
    };
    assert!(
        second > 50 && first > 2 * second && second < ours && ours < first,
        "{taken:?}"
    );
    // A session that is over has given its share back, a moment later.
    drop(open.remove(0));
    let mut again = relay.from("127.0.0.3").await;
    again.hears("220").await;
    again.says("EHLO client.example").await;
    again.hears("250-").await;
    let began = Instant::now();
    while fill(&mut again).await.0 != first {
        assert!(began.elapsed() < PATIENCE, "it was never given back");
        again.says("RSET").await;
        again.hears("250").await;
    }
    drop(again);
    relay.ends().await;
}

/// A session that goes on after its transaction keeps none of the shared memory.
#[tokio::test]
async fn an_ended_transaction_gives_its_memory_back_at_once() {
    let more =
        "[limits]\ntransaction_memory = \"64KiB\"\ntransaction_memory_per_session = \"256KiB\"";
    let relay = Relay::start(Wanted {
        more,
        ..Wanted::default()
    })
    .await;
    let (mut one, mut other) = (relay.client().await, relay.from("127.0.0.2").await);
    other.hears("220").await;
    for client in [&mut one, &mut other] {
        client.says("EHLO client.example").await;
        client.hears("250-").await;
    }
    let (all, _) = fill(&mut one).await;
    for end in ["RSET", "EHLO client.example", "a\n."] {
        if end.ends_with('.') {
            one.says("DATA").await;
            one.hears("354").await;
        }
        one.says(end).await;
        one.hears("250").await;
        let began = Instant::now();
        while fill(&mut other).await.0 != all {
            assert!(began.elapsed() < PATIENCE, "{end:?} gives nothing back");
            other.says("RSET").await;
            other.hears("250").await;
        }
        other.says("RSET").await;
        other.hears("250").await;
        assert_eq!(fill(&mut one).await.0, all, "after {end:?}");
    }
    relay.ends().await;
}
