//! Mail from nobody: it is never bounced, and our own postmaster hears of what is lost.

use crate::world::{World, connector, peer};

const CONTENT: &str = "Subject: a report of somebody's\r\n\r\nIts words.\r\n";

#[tokio::test]
async fn a_message_from_nobody_is_told_to_the_postmaster_alone() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    world.sends("<>", &["<bob@bad.example> NOTIFY=NEVER"], CONTENT).await;
    world.is_done().await;
    let report = world.one_report("postmaster@example.com");
    report.only("bob@bad.example", "failed", "5.1.1");
    assert!(report.text.contains("Nobody but you"), "{}", report.text);
    world.ends().await;
}

#[tokio::test]
async fn a_report_to_a_user_of_this_host_goes_to_the_postmaster() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start("", &[connector("bad.example", bad.address, "")]).await;
    world.sends("<root@relay.example.com>", &["<bob@bad.example>"], CONTENT).await;
    world.is_done().await;
    world.one_report("postmaster@example.com").only("bob@bad.example", "failed", "5.1.1");
    world.ends().await;
}

#[tokio::test]
async fn a_report_that_cannot_be_delivered_goes_to_the_postmaster() {
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let gone = peer(&["8BITMIME", "DSN"], &[("RCPT", "550 5.1.6 alice has moved")]).await;
    let connectors = [connector("bad.example", bad.address, ""), connector("sender.example", gone.address, "")];
    let world = World::start("", &connectors).await;
    world.sends("<alice@sender.example>", &["<bob@bad.example>"], CONTENT).await;
    world.is_done().await;
    assert!(gone.heard()[0].has("MAIL FROM:<>"), "{:?}", gone.heard());
    let report = world.one_report("postmaster@example.com");
    report.only("alice@sender.example", "failed", "5.1.6");
    // What is returned is the report that was lost, and in it the message that it told of.
    assert_eq!(report.returned.0, "message/rfc822");
    for words in
        ["Subject: Undelivered mail returned to sender", "Final-Recipient: rfc822; bob@bad.example", "Its words."]
    {
        assert!(report.returned.1.contains(words), "{words:?} is missing from\n{}", report.returned.1);
    }
    world.ends().await;
}

#[tokio::test]
async fn where_the_postmaster_cannot_be_reached_it_ends() {
    let home = peer(&["8BITMIME"], &[("RCPT", "550 5.2.1 disabled")]).await;
    let bad = peer(&[], &[("RCPT", "550 5.1.1 nobody")]).await;
    let world = World::start_with(home, "", &[connector("bad.example", bad.address, "")]).await;
    world.sends("<alice@sender.example>", &["<bob@bad.example>"], CONTENT).await;
    world.is_done().await;
    let heard = world.home.heard();
    let to: Vec<_> = heard.iter().flat_map(|heard| &heard.commands).filter(|line| line.starts_with("RCPT")).collect();
    assert_eq!(to, ["RCPT TO:<alice@sender.example>", "RCPT TO:<postmaster@example.com>"]);
    world.ends().await;
}
