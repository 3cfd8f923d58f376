//! Mail by the connector of the user who sent it, in the queue and after a restart.

use std::time::Duration;

use crate::support::counting_sink::fill;
use crate::support::in_process::{configured, connector, queue, run, until, willing};

/// The name of the connector is in the spool, so that a restart changes no way.
#[tokio::test]
async fn a_restart_delivers_by_the_same_connector() {
    let (home, own, smart) = (willing().await, willing().await, willing().await);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let connectors = [
        connector("partner.example", own.address, ""),
        connector("smart.example", smart.address, ""),
    ];
    fill(
        &folder.path().join("spool"),
        ["b@partner.example", "c@partner.example"].map(str::to_owned),
        |envelope| {
            if envelope.recipients[0].mailbox.local_part() == "b" {
                envelope.connector = Some("smart.example".into());
            }
        },
    )
    .await;
    let config = configured(folder.path(), home.address, "", &connectors);
    let (_, mut running) = run(config, std::sync::Arc::new(())).await;
    until("both are delivered", || {
        queue(folder.path()).is_empty().then_some(())
    })
    .await;
    for (peer, recipient) in [
        (&smart, "<b@partner.example>"),
        (&own, "<c@partner.example>"),
    ] {
        let heard = peer.heard();
        assert_eq!(peer.messages().len(), 1);
        let is_named =
            |command: &String| command.starts_with("RCPT") && command.contains(recipient);
        assert!(
            heard[0].commands.iter().any(is_named),
            "{:?}",
            heard[0].commands
        );
    }
    running.stop();
    running.ended().await.expect("an orderly end");
}

/// One way that is down holds up no mail for the same domain by another way.
#[tokio::test]
async fn two_ways_to_one_domain_have_a_backoff_each() {
    let (home, own) = (willing().await, willing().await);
    let nobody = crate::support::peer::Nobody::at([127, 0, 0, 1]);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let connectors = [
        connector("partner.example", own.address, ""),
        connector("smart.example", nobody.address, ""),
    ];
    let spool = folder.path().join("spool");
    fill(&spool, ["b@partner.example".to_owned()], |envelope| {
        envelope.connector = Some("smart.example".into());
    })
    .await;
    let before = "[queue]\nretry = [\"1h\"]";
    let config = configured(folder.path(), home.address, before, &connectors);
    let (relay, mut running) = run(config, std::sync::Arc::new(())).await;
    until("the user's way is tried", || {
        let queue = queue(folder.path());
        let state = &queue.first()?.1["recipients"][0]["state"]["pending"];
        (state["attempts"] == 1).then_some(())
    })
    .await;
    crate::support::session::Client::connect(relay)
        .await
        .sends_message("c@partner.example")
        .await;
    until("mail by the domain's own way is delivered", || {
        (own.messages().len() == 1).then_some(())
    })
    .await;
    let waiting = until("the user's message alone waits", || {
        Some(queue(folder.path())).filter(|waiting| waiting.len() == 1)
    })
    .await;
    assert_eq!(waiting[0].1["connector"], "smart.example");
    running.stop();
    tokio::time::timeout(Duration::from_secs(30), running.ended())
        .await
        .expect("in time")
        .expect("an orderly end");
}
