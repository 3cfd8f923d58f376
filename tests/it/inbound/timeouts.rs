//! The time that a client has: for a command, for a message, for a handshake.

use std::time::{Duration, Instant};

use super::relay::{Relay, Wanted};

#[tokio::test]
async fn a_command_must_be_complete_in_time() {
    let more = "[timeouts]\ncommand = \"1s\"";
    let relay = Relay::start(Wanted {
        more,
        ..Wanted::default()
    })
    .await;
    let mut client = relay.client().await;
    let began = Instant::now();
    // One octet after another is no reason to wait longer.
    for octet in b"NOOP NOOP NOOP" {
        client.sends(&[*octet]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if began.elapsed() > Duration::from_millis(900) {
            break;
        }
    }
    client.hears("421 4.4.2").await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    client.hears_the_end().await;
    relay.ends().await;
}

#[tokio::test]
async fn a_message_must_keep_up() {
    let more = "[timeouts]\ndata_block = \"1s\"\ndata_rate = \"1KiB\"";
    let relay = Relay::start(Wanted {
        more,
        ..Wanted::default()
    })
    .await;
    let (mut silent, mut slow) = (relay.client().await, relay.client().await);
    silent.begins("a@example.org", "b@example.com").await;
    slow.begins("a@example.org", "b@example.com").await;
    let began = Instant::now();
    let trickle = async {
        while began.elapsed() < Duration::from_millis(800) {
            slow.sends(b"a\r\n").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        slow.hears("421 4.4.2").await;
    };
    tokio::join!(trickle, silent.hears("421 4.4.2"));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(relay.stored().await.is_empty());
    drop((silent, slow));
    relay.ends().await;
}

#[tokio::test]
async fn a_handshake_must_end_in_time() {
    let more = "[timeouts]\nhandshake = \"1s\"";
    let relay = Relay::start(Wanted {
        tls: "implicit",
        more,
        ..Wanted::default()
    })
    .await;
    relay.silent().await.hears_the_end().await;
    relay.ends().await;
}
