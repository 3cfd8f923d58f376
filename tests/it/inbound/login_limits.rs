//! What a user may send: how much in an hour, and with which addresses in the From field.

use super::login::{Users, log_in, secured};

#[tokio::test]
async fn a_user_at_its_limit_waits_and_the_postmaster_hears_of_it_once() {
    let users = Users::of(&[
        ("scanner", "messages_per_hour = 2\nrecipients_per_hour = 5"),
        ("other", ""),
    ]);
    let mut relay = users.relay("auth = [\"plain\"]").await;
    let mut client = secured(&relay).await;
    log_in(&mut client, "scanner").await;
    for _ in 0..2 {
        client.sends_message("b@anywhere.example").await;
        let entry = relay.entry().await;
        assert_eq!(
            entry.envelope.recipients[0].mailbox.to_string(),
            "b@anywhere.example"
        );
    }
    for _ in 0..3 {
        let mail = "MAIL FROM:<a@example.org>";
        client
            .asks(
                mail,
                "450 4.7.1 Too many messages an hour with your login; try again in ",
            )
            .await;
    }
    let notice = relay.entry().await;
    assert_eq!(
        notice.envelope.recipients[0].mailbox.to_string(),
        "admin@example.com"
    );
    assert_eq!(notice.envelope.reverse_path.to_string(), "");
    let mut reader = notice.body.reader().await.expect("readable");
    let text = String::from_utf8(reader.next().await.expect("whole").expect("text").to_vec())
        .expect("text");
    assert!(
        text.contains("Subject: A user has reached a limit: messages_per_hour"),
        "{text}"
    );
    assert!(
        text.contains("scanner") && !text.contains("secret"),
        "{text}"
    );
    let mut neighbour = secured(&relay).await;
    log_in(&mut neighbour, "other").await;
    neighbour.sends_message("b@anywhere.example").await;
    let next = relay.entry().await;
    assert_eq!(
        next.envelope.recipients[0].mailbox.to_string(),
        "b@anywhere.example",
        "there is one notice"
    );
    drop((client, neighbour));
    relay.ends().await;
}

#[tokio::test]
async fn recipients_of_a_user_are_counted_by_themselves() {
    let users = Users::of(&[("scanner", "recipients_per_hour = 2")]);
    let relay = users.relay("auth = [\"plain\"]").await;
    let mut client = secured(&relay).await;
    log_in(&mut client, "scanner").await;
    client.asks("MAIL FROM:<a@example.org>", "250").await;
    for answer in [
        "250",
        "250",
        "450 4.7.1 Too many recipients an hour with your login",
    ] {
        client.asks("RCPT TO:<b@anywhere.example>", answer).await;
    }
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn the_from_field_is_held_to_the_senders_of_a_user() {
    let users = Users::of(&[(
        "scanner",
        "senders = [\"scan@example.org\"]\ncheck_from = true",
    )]);
    let mut relay = users.relay("auth = [\"plain\"]").await;
    let mut client = secured(&relay).await;
    log_in(&mut client, "scanner").await;
    for (header, answer) in [
        (
            "From: Boss <boss@example.org>",
            "550 5.7.1 From address rejected: your login does not allow boss@example.org",
        ),
        (
            "From: scan@example.org, boss@example.org",
            "550 5.7.1 From address rejected",
        ),
        (
            "From: scan@example.org\nFrom: boss@example.org",
            "550 5.7.1 From address rejected",
        ),
        (
            "Subject: none",
            "550 5.7.1 The message has no From field with an address",
        ),
        (
            "From: \"scan",
            "550 5.7.1 The From field of the message cannot be read",
        ),
        (
            "From: \"The boss\" <SCAN@example.org>",
            "250 2.0.0 Ok: queued as",
        ),
    ] {
        client.asks("MAIL FROM:<scan@example.org>", "250").await;
        client.asks("RCPT TO:<b@anywhere.example>", "250").await;
        client.asks("DATA", "354").await;
        client.asks(&format!("{header}\n\nbody\n."), answer).await;
    }
    relay.entry().await;
    assert_eq!(
        relay.stored().await.len(),
        1,
        "what was refused is not stored"
    );
    drop(client);
    relay.ends().await;
}
