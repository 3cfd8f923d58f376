//! Seats while others want them: who waits, who makes room, and what nobody loses by it.

use std::time::{Duration, Instant};

use super::relay::{Relay, Wanted};

/// Two seats of strangers, and one that is reserved.
const THREE: &str = "[limits]\nconnections = 3\nconnections_reserved = 1";
const OURS: &str = "\"127.0.1.0/24\"";

#[tokio::test]
async fn refused_content_keeps_no_seat() {
    let relay = Relay::start(Wanted {
        more: THREE,
        networks: OURS,
        ..Wanted::default()
    })
    .await;
    let mut refused = relay.client().await;
    refused.begins("a@example.org", "b@example.com").await;
    refused.sends(b"\0\r\n").await;
    let mut idle = relay.from("127.0.0.2").await;
    idle.hears("220").await;
    let mut newcomer = relay.from("127.0.0.3").await;
    let began = Instant::now();
    for _ in 0..3 {
        newcomer.hears_nothing().await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        // So much content of a message that is accepted would keep the seat.
        refused.sends(&b"0123456789\r\n".repeat(8 << 10)).await;
    }
    newcomer.hears("220").await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    // It hears what is wrong, and has no reason to send all of it again.
    refused.hears("550 5.6.0").await;
    refused.hears_the_end().await;
    idle.says("NOOP").await;
    idle.hears("250 2.0.0").await;
    assert!(relay.stored().await.is_empty());
    drop((idle, newcomer));
    relay.ends().await;
}

#[tokio::test]
async fn content_that_is_accepted_keeps_the_seat() {
    let relay = Relay::start(Wanted {
        more: THREE,
        networks: OURS,
        ..Wanted::default()
    })
    .await;
    let mut busy = relay.client().await;
    busy.begins("a@example.org", "b@example.com").await;
    let mut idle = relay.from("127.0.0.2").await;
    idle.hears("220").await;
    let mut newcomer = relay.from("127.0.0.3").await;
    newcomer.hears_nothing().await;
    busy.sends(&b"0123456789\r\n".repeat(8 << 10)).await;
    newcomer.hears("220").await;
    idle.hears("421 4.3.2 relay.example.com Too busy, other clients are waiting; try again later")
        .await;
    idle.hears_the_end().await;
    busy.says(".").await;
    busy.hears("250 2.0.0 Ok: queued").await;
    drop((busy, newcomer));
    relay.ends().await;
}

#[tokio::test]
async fn a_session_that_loses_its_seat_while_its_message_is_stored_hears_250() {
    let mut relay = Relay::start(Wanted {
        more: THREE,
        networks: OURS,
        at_once: false,
        ..Wanted::default()
    })
    .await;
    let mut first = relay.client().await;
    let mut second = relay.from("127.0.0.2").await;
    second.hears("220").await;
    first.begins("a@example.org", "b@example.com").await;
    first.says("Subject: a\n\nb\n.").await;
    first.hears_nothing().await;
    let mut ours = Vec::new();
    for address in ["127.0.1.1", "127.0.1.2"] {
        let mut client = relay.from(address).await;
        client.hears("220").await;
        ours.push(client);
    }
    first.hears_nothing().await;
    relay.spool.leave.add_permits(1);
    first.hears("250 2.0.0 Ok: queued").await;
    first.hears("421 4.3.2 relay.example.com Too busy").await;
    first.hears_the_end().await;
    relay.entry().await;
    second.says("NOOP").await;
    second.hears("250 2.0.0").await;
    drop(second);
    relay.ends().await;
}

#[tokio::test]
async fn the_check_of_a_balancer_is_answered_when_all_seats_are_in_use() {
    let balancers = "127.0.0.9/32";
    let relay = Relay::start(Wanted {
        more: THREE,
        networks: OURS,
        balancers,
        ..Wanted::default()
    })
    .await;
    let (mut first, mut second) = (relay.client().await, relay.from("127.0.0.2").await);
    second.hears("220").await;
    let mut ours = relay.from("127.0.1.1").await;
    ours.hears("220").await;
    let mut checks = Vec::new();
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut check = relay.from("127.0.0.9").await;
        check.sends(header).await;
        check.hears("220").await;
        check.says("EHLO client.example").await;
        check.hears("250-").await;
        checks.push(check);
    }
    // With mail, it is a stranger like others, and waits for a seat like others.
    let mut mail = checks.pop().expect("two");
    mail.says("MAIL FROM:<a@example.org>").await;
    mail.hears_nothing().await;
    for client in [&mut first, &mut second, &mut ours, &mut checks[0]] {
        client.says("NOOP").await;
        client.hears("250 2.0.0").await;
    }
    drop(first);
    mail.hears("250 2.1.0").await;
    drop((second, ours));
    relay.ends().await;
}

#[tokio::test]
async fn a_proxy_takes_nobodys_seat_before_it_has_named_its_client() {
    let proxies = "127.0.0.9/32";
    let relay = Relay::start(Wanted {
        more: THREE,
        networks: OURS,
        proxies,
        ..Wanted::default()
    })
    .await;
    let (mut first, mut second) = (relay.client().await, relay.from("127.0.0.2").await);
    second.hears("220").await;
    let mut third = relay.from("127.0.1.1").await;
    third.hears("220").await;
    let mut stranger = relay.from("127.0.0.9").await;
    let mut ours = relay.from("127.0.0.9").await;
    let mut own = relay.from("127.0.0.9").await;
    for client in [&mut stranger, &mut ours, &mut own] {
        client.hears("220").await;
    }
    // The client is judged as what it is: a stranger waits, and one of ours makes a stranger go.
    stranger.says("XCLIENT ADDR=192.0.2.1").await;
    stranger.hears_nothing().await;
    // Mail of the proxy itself is a stranger's, too.
    own.says("EHLO proxy.example").await;
    own.hears("250-").await;
    own.says("MAIL FROM:<a@example.org>").await;
    own.hears_nothing().await;
    for client in [&mut first, &mut second, &mut third] {
        client.says("NOOP").await;
        client.hears("250 2.0.0").await;
    }
    ours.says("XCLIENT ADDR=127.0.1.2").await;
    ours.hears("220").await;
    first
        .hears("421 4.3.2 relay.example.com Too busy, other clients are waiting; try again later")
        .await;
    // A seat that is free goes to the site that had none before.
    drop(second);
    drop(third);
    stranger.hears("220").await;
    own.hears("250 2.1.0").await;
    drop((first, stranger, ours, own));
    relay.ends().await;
}

/// A message counts as activity: of two sessions, the one that has sent nothing makes room.
#[tokio::test]
async fn a_stored_message_keeps_the_seat() {
    let relay = Relay::start(Wanted {
        more: THREE,
        networks: OURS,
        ..Wanted::default()
    })
    .await;
    let mut busy = relay.client().await;
    let mut idle = relay.from("127.0.0.2").await;
    idle.hears("220").await;
    busy.begins("a@example.org", "b@example.com").await;
    busy.says("Subject: a\n\nb\n.").await;
    busy.hears("250 2.0.0 Ok: queued").await;
    let mut newcomer = relay.from("127.0.0.3").await;
    newcomer.hears("220").await;
    idle.hears("421 4.3.2 relay.example.com Too busy, other clients are waiting; try again later")
        .await;
    busy.says("NOOP").await;
    busy.hears("250 2.0.0").await;
    relay.ends().await;
}

/// No session of our own clients makes room for another of ours, so nobody waits for that.
#[tokio::test]
async fn a_client_of_ours_is_refused_at_once_when_ours_have_every_seat() {
    let relay = Relay::start(Wanted {
        more: THREE,
        networks: OURS,
        ..Wanted::default()
    })
    .await;
    let mut ours = Vec::new();
    for address in ["127.0.1.1", "127.0.1.2", "127.0.1.3"] {
        let mut client = relay.from(address).await;
        client.hears("220").await;
        ours.push(client);
    }
    let mut next = relay.from("127.0.1.4").await;
    next.hears("421 4.3.2 relay.example.com Too many connections, try again later")
        .await;
    next.hears_the_end().await;
    for client in &mut ours {
        client.says("NOOP").await;
        client.hears("250 2.0.0").await;
    }
    relay.ends().await;
}
