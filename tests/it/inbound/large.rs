//! Large messages of fast clients, which have large buffers meanwhile.

use super::relay::{Relay, Wanted, content};

/// The commands behind a message: more than a TLS record.
const NOOPS: usize = 40;

/// Under TLS more is read from the connection than the message: the next commands are behind it.
#[tokio::test]
async fn commands_behind_a_large_message_under_tls_are_not_lost() {
    let mut relay = Relay::start(Wanted::default()).await;
    let mut client = relay.secured(false).await;
    let text = format!("{}\r\n", "x".repeat(98)).repeat(40_000);
    for turn in 0..2 {
        client.begins("a@example.org", "b@example.com").await;
        // The last of them are in a TLS record of their own.
        let behind = format!("NOOP {}\r\n", "x".repeat(490)).repeat(NOOPS);
        let sent = format!("{text}.\r\n{behind}VRFY <b@example.com>\r\n");
        client.sends(sent.as_bytes()).await;
        client.hears("250 2.0.0 Ok: queued as").await;
        for _ in 0..NOOPS {
            client.hears("250 2.0.0").await;
        }
        client.hears("252").await;
        let (_, rest) = content(&relay.entry().await).await;
        assert!(
            rest == text,
            "in turn {turn}, {} octets were sent, and {} have come",
            text.len(),
            rest.len()
        );
    }
    client.says("QUIT").await;
    client.hears("221 2.0.0").await;
    client.hears_the_end().await;
    relay.ends().await;
}

/// A chunk ends within what was read at once, and so does the next one.
#[tokio::test]
async fn large_chunks_of_bdat_come_through_unchanged() {
    let mut relay = Relay::start(Wanted::default()).await;
    let mut client = relay.secured(false).await;
    client.says("EHLO client.example").await;
    client.hears("250-relay.example.com").await;
    client
        .says("MAIL FROM:<a@example.org>\nRCPT TO:<b@example.com>")
        .await;
    let text = format!("{}\r\n", "x".repeat(98)).repeat(20_000);
    let (first, last) = text.split_at(1_500_001);
    for (part, end) in [(first, ""), (last, " LAST")] {
        client
            .sends(format!("BDAT {}{end}\r\n", part.len()).as_bytes())
            .await;
        client.sends(part.as_bytes()).await;
    }
    while !client.reply().await.contains("queued as") {}
    let (_, rest) = content(&relay.entry().await).await;
    assert!(rest == text, "{} octets have come", rest.len());
    drop(client);
    relay.ends().await;
}
