//! Recipients that exist: `[[recipients]]` at RCPT, with a file, and with a mailbox server that
//! answers, refuses, lies or hangs.

mod configured;
mod directory;
mod files;
mod harvest;
mod hostile;
mod questions;
mod service;
mod world;

use gatepost::relay::recipient_tables::RecipientTables;

use crate::support::peer::{Manner, Peer, Starttls};
use world::{Relay, ask, file, mailboxes_to};

/// A mailbox server that has the mailbox `user@example.com` alone.
async fn mailbox_server() -> Peer {
    Peer::start(mailbox_manner()).await
}

fn mailbox_manner() -> Manner {
    Manner::new(Starttls::NotOffered)
        .answer("RCPT TO:<user@example.com>", "250 2.1.5 ok")
        .answer("RCPT", "550 5.1.1 no such user")
}

#[tokio::test]
async fn recipients_in_a_file_exist_and_no_others() {
    let relay = Relay::start(&file("user@example.com\n@all.example.com\n"), &[]).await;
    let mut client = relay.client().await;
    client.asks("MAIL FROM:<a@sender.example>", "250").await;
    for (to, wanted) in [
        ("user@example.com", "250 2.1.5"),
        ("User+tag@example.com", "250 2.1.5"),
        ("nobody@example.com", "550 5.1.1 Unknown recipient"),
        ("anybody@all.example.com", "250 2.1.5"),
        // No table decides about this domain.
        ("nobody@unchecked.example", "250 2.1.5"),
        ("postmaster@example.com", "250 2.1.5"),
        ("Postmaster@all.example.com", "250 2.1.5"),
    ] {
        client.asks(&format!("RCPT TO:<{to}>"), wanted).await;
    }
    client.asks("RCPT TO:<Postmaster>", "250 2.1.5").await;
    client.asks("RSET", "250").await;
    client.asks("MAIL FROM:<>", "250").await;
    client
        .asks("RCPT TO:<nobody@example.com>", "550 5.1.1")
        .await;
    drop(client);
    relay.ends().await;
}

/// Clients of ours and a stranger hear the same about the domains that are checked, and a stranger
/// learns nothing about others.
#[tokio::test]
async fn relay_access_is_decided_first() {
    let relay = Relay::start_for(
        "",
        &format!("{}{}", file("user@example.com\n"), file_of_elsewhere()),
        &[],
    )
    .await;
    let mut client = relay.client().await;
    client.asks("MAIL FROM:<a@sender.example>", "250").await;
    for (to, wanted) in [
        ("nobody@example.com", "550 5.1.1"),
        ("user@example.com", "250 2.1.5"),
        ("known@elsewhere.example", "550 5.7.1 Relaying denied"),
        ("nobody@elsewhere.example", "550 5.7.1 Relaying denied"),
    ] {
        client.asks(&format!("RCPT TO:<{to}>"), wanted).await;
    }
    drop(client);
    relay.ends().await;
}

/// A table for a domain that strangers may not send to.
fn file_of_elsewhere() -> String {
    file("known@elsewhere.example\n").replace(
        "\"example.com\", \"all.example.com\"",
        "\"elsewhere.example\"",
    )
}

#[tokio::test]
async fn a_mailbox_server_is_asked_and_nothing_is_sent() {
    let server = mailbox_server().await;
    let relay = Relay::start(&ask(""), &[mailboxes_to(&server)]).await;
    let mut client = relay.client().await;
    client.asks("MAIL FROM:<a@sender.example>", "250").await;
    for _ in 0..3 {
        client.asks("RCPT TO:<user@example.com>", "250 2.1.5").await;
        client
            .asks("RCPT TO:<nobody@example.com>", "550 5.1.1")
            .await;
    }
    drop(client);
    relay.ends().await;
    let heard = server.heard_to_the_end().await;
    let commands: Vec<_> = heard.iter().flat_map(|heard| &heard.commands).collect();
    let count = |command: &str| {
        commands
            .iter()
            .filter(|line| line.starts_with(command))
            .count()
    };
    // Each is asked about once, and one random address.
    assert_eq!(count("RCPT TO:<user@"), 1, "{commands:?}");
    assert_eq!(count("RCPT TO:<nobody@"), 1, "{commands:?}");
    assert_eq!(count("RCPT TO:<gatepost-"), 1, "{commands:?}");
    assert_eq!(count("MAIL FROM:<>"), 3, "{commands:?}");
    assert_eq!((count("RSET"), count("DATA"), count("BDAT")), (3, 0, 0));
}

#[tokio::test]
async fn a_message_goes_to_the_recipients_that_exist() {
    let server = mailbox_server().await;
    let relay = Relay::start(&ask(""), &[mailboxes_to(&server)]).await;
    let mut client = relay.client().await;
    client.asks("MAIL FROM:<a@sender.example>", "250").await;
    client
        .asks("RCPT TO:<nobody@example.com>", "550 5.1.1")
        .await;
    client.asks("RCPT TO:<user@example.com>", "250 2.1.5").await;
    client.content("Subject: test\r\n\r\nbody\r\n").await;
    drop(client);
    crate::support::in_process::until("the message arrives", || {
        (server.messages().len() == 1).then_some(())
    })
    .await;
    relay.ends().await;
}

#[tokio::test]
async fn a_reload_changes_the_check() {
    let server = mailbox_server().await;
    let relay = Relay::start(&ask(""), &[mailboxes_to(&server)]).await;
    let hears = async |relay: &Relay, wanted: &str| {
        let mut client = relay.client().await;
        client.asks("MAIL FROM:<a@sender.example>", "250").await;
        client.asks("RCPT TO:<nobody@example.com>", wanted).await;
    };
    hears(&relay, "550 5.1.1").await;
    relay.reload("", &[mailboxes_to(&server)]);
    hears(&relay, "250 2.1.5").await;
    relay.reload(&file("nobody@example.com\n"), &[mailboxes_to(&server)]);
    hears(&relay, "250 2.1.5").await;
    relay.reload(&file("user@example.com\n"), &[mailboxes_to(&server)]);
    hears(&relay, "550 5.1.1").await;
    relay.ends().await;
}

/// Returns the tables of a configuration.
fn tables(config: &gatepost::config::Config) -> std::sync::Arc<RecipientTables> {
    let (tables, _) = RecipientTables::load(config).unwrap_or_else(|faults| panic!("{faults:#?}"));
    tables
}
