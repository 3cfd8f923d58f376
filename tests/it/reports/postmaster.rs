//! Mail from nobody: it is never bounced, and our own postmaster hears of what is lost.

use std::sync::Arc;

use gatepost::smtp::address::Mailbox;

use crate::support::in_process::{World, configured, connector, peer, run, until, willing};

const CONTENT: &str = "Subject: a report of somebody's\r\n\r\nIts words.\r\n";

/// The one digest there is, as text with unfolded lines; it went to the postmaster.
fn the_digest(world: &World) -> String {
    let heard = world.home.heard();
    let to: Vec<_> = heard
        .iter()
        .flat_map(|heard| &heard.commands)
        .filter(|line| line.starts_with("RCPT"))
        .collect();
    assert_eq!(to, ["RCPT TO:<postmaster@example.com> NOTIFY=NEVER"]);
    let digest = String::from_utf8(world.home.messages().remove(0)).expect("ASCII");
    assert!(
        digest.is_ascii() && digest.contains("\r\nContent-Type: multipart/mixed;\r\n"),
        "{digest}"
    );
    digest.replace("\r\n    ", " ")
}

#[tokio::test]
async fn failures_of_mail_from_nobody_go_to_the_postmaster_alone() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    let id = world
        .sends("<>", &["<bob@bad.example> NOTIFY=NEVER"], CONTENT)
        .await;
    world.is_done().await;
    let digest = the_digest(&world);
    for words in [
        "Subject: Undelivered mail without a sender: 1 message\r\n",
        "nobody but you, the postmaster",
        &format!("\r\n{id}, accepted here on "),
        "\r\n<bob@bad.example>: ",
        "550 5.1.1 nobody",
        "Content-Type: text/rfc822-headers\r\n",
        "Subject: a report of somebody's\r\n",
    ] {
        assert!(
            digest.contains(words),
            "{words:?} is missing from\n{digest}"
        );
    }
    assert!(!digest.contains("Its words."), "{digest}");
    world.ends().await;
}

#[tokio::test]
async fn a_report_to_a_user_of_this_host_goes_to_the_postmaster() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    world
        .sends("<root@relay.example.com>", &["<bob@bad.example>"], CONTENT)
        .await;
    world.is_done().await;
    world
        .one_report("postmaster@example.com")
        .only("bob@bad.example", "failed", "5.1.1");
    world.ends().await;
}

#[tokio::test]
async fn a_report_that_cannot_be_delivered_goes_to_the_postmaster() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let gone = peer(
        &["8BITMIME", "DSN"],
        &[("RCPT", "550 5.1.6 alice has moved")],
    )
    .await;
    let connectors = [
        connector("bad.example", bad.address, ""),
        connector("sender.example", gone.address, ""),
    ];
    let world = World::start("", &connectors).await;
    world
        .sends("<alice@sender.example>", &["<bob@bad.example>"], CONTENT)
        .await;
    world.is_done().await;
    assert!(gone.heard()[0].has("MAIL FROM:<>"), "{:?}", gone.heard());
    let digest = the_digest(&world);
    // In it is the text of the report that was lost, which names the message that it reported.
    for words in [
        "<alice@sender.example>: ",
        "550 5.1.6 alice has moved",
        "<bob@bad.example>: ",
        "550 5.1.1 nobody",
    ] {
        assert!(
            digest.contains(words),
            "{words:?} is missing from\n{digest}"
        );
    }
    assert!(!digest.contains("Its words."), "{digest}");
    world.ends().await;
}

#[tokio::test]
async fn where_the_postmaster_cannot_be_reached_it_ends() {
    let home = peer(&["8BITMIME"], &[("RCPT", "550 5.2.1 disabled")]).await;
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start_with(home, "", &[connector("bad.example", bad.address, "")]).await;
    world
        .sends("<alice@sender.example>", &["<bob@bad.example>"], CONTENT)
        .await;
    world.is_done().await;
    let heard = world.home.heard();
    let to: Vec<_> = heard
        .iter()
        .flat_map(|heard| &heard.commands)
        .filter(|line| line.starts_with("RCPT"))
        .collect();
    assert_eq!(
        to,
        [
            "RCPT TO:<alice@sender.example>",
            "RCPT TO:<postmaster@example.com>"
        ]
    );
    world.ends().await;
}

/// Its address is another spelling of one that a connector leads to, and the digest goes there.
#[tokio::test]
async fn a_digest_that_fails_is_known_as_ours_whatever_the_postmasters_address() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let connectors = [
        connector("bad.example", bad.address, ""),
        connector("relay.example.com", bad.address, ""),
    ];
    let (folder, home) = (
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder"),
        willing().await,
    );
    let mut config = configured(folder.path(), home.address, "", &connectors);
    config.postmaster = Mailbox::parse("root@localhost").expect("an address");
    let (address, running) = run(config, Arc::new(())).await;
    let world = World {
        home,
        address,
        folder,
        running,
    };
    world.sends("<>", &["<bob@bad.example>"], CONTENT).await;
    let rcpts = || {
        bad.heard()
            .iter()
            .flat_map(|heard| &heard.commands)
            .filter(|line| line.starts_with("RCPT"))
            .count()
    };
    until("the digest is refused", || (rcpts() == 2).then_some(())).await;
    world.is_done().await;
    assert_eq!((rcpts(), world.home.messages().len()), (2, 0));
    world.ends().await;
}
