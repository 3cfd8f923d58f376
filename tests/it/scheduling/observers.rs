//! Observers of deliveries: each sees every session and every recipient once.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use gatepost::relay::outbound::{
    DeliveryObserver, EventOrigin, RecipientEnding, RecipientEvent, SessionEvent, SessionOutcome,
};

use crate::support::in_process::{SENDER, configured, connector, peer, queue, run, until, willing};
use crate::support::peer::Nobody;
use crate::support::session::Client;

/// Records the sessions and the recipients of mail that is not for the sender.
#[derive(Default)]
struct Recorder {
    sessions: Mutex<Vec<String>>,
    recipients: Mutex<Vec<String>>,
}

impl DeliveryObserver for Recorder {
    fn observe_session(&self, event: &SessionEvent<'_>) {
        let outcome = match event.outcome {
            SessionOutcome::Cleared(_) => "cleared",
            SessionOutcome::Reused(_) => "reused",
            SessionOutcome::Failed(_) => "failed",
            SessionOutcome::Unmeetable(_) => "unmeetable",
            SessionOutcome::Unusable(_) => "unusable",
        };
        let (host, peer) = (
            &event.attempt.host,
            event.peer.map(|peer| peer.address.to_string()),
        );
        if host.to_string() != "sender.example" {
            let line = format!("{host} {outcome} {}", peer.unwrap_or_default());
            self.sessions
                .lock()
                .expect("no panic")
                .push(line.trim_end().to_owned());
        }
    }

    fn observe_recipients(&self, events: &[RecipientEvent<'_>]) {
        for event in events {
            let ending = match &event.ending {
                RecipientEnding::Delivered(_) => "delivered".to_owned(),
                RecipientEnding::Deferred { last, .. } => format!("deferred {}", last.status),
                RecipientEnding::Held { last } => format!("held {}", last.status),
                RecipientEnding::Bounced { last, .. } => format!("bounced {}", last.status),
            };
            if event.mailbox.to_string() != SENDER {
                assert_eq!(event.origin, EventOrigin::Attempt);
                let line = format!("{} {ending} after {}", event.mailbox, event.attempts);
                self.recipients.lock().expect("no panic").push(line);
            }
        }
    }
}

impl Recorder {
    fn sorted(lines: &Mutex<Vec<String>>) -> Vec<String> {
        let mut lines = lines.lock().expect("no panic").clone();
        lines.sort_unstable();
        lines
    }
}

/// Returns the connectors of a domain with one host, of one with two hosts, the first of which is
/// down, and of one whose host has no TLS although it must.
fn connectors(one: SocketAddr, down: SocketAddr, second: SocketAddr) -> [String; 3] {
    let two = format!(
        "[[connector]]\nname = \"two\"\ndomains = [\"two.example\"]\n[connector.outbound]\n\
         route = [\"{down}\", \"{second}\"]\ntls = \"off\"\n"
    );
    let forced = "tls = \"forced\"\nverify = \"none\"\non_failure = \"bounce\"";
    [
        connector("one.example", one, ""),
        two,
        connector("bare.example", second, forced),
    ]
}

/// One event for each recipient of each attempt; one for each address that is dialled, and for each
/// message on an idle connection.
#[tokio::test]
async fn each_recipient_and_each_session_has_one_event() {
    let (home, nobody) = (willing().await, Nobody::at([127, 0, 0, 1]));
    let picky = peer(
        &["PIPELINING"],
        &[("RCPT TO:<b@", "550 5.1.1 no such user")],
    )
    .await;
    let second = peer(&["PIPELINING"], &[]).await;
    let connectors = connectors(picky.address, nobody.address, second.address);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let config = configured(
        folder.path(),
        home.address,
        "[queue]\nretry = [\"1h\"]",
        &connectors,
    );
    let recorder = Arc::new(Recorder::default());
    let (relay, mut running) = run(config, Arc::clone(&recorder) as _).await;

    let mut client = Client::connect(relay).await;
    client.asks(&format!("MAIL FROM:<{SENDER}>"), "250").await;
    for recipient in [
        "a@one.example",
        "b@one.example",
        "c@two.example",
        "d@bare.example",
    ] {
        client.asks(&format!("RCPT TO:<{recipient}>"), "250").await;
    }
    client.content("Subject: test\r\n\r\nbody\r\n").await;
    // The connection is idle then.
    let is_tried = || {
        recorder
            .recipients
            .lock()
            .expect("no panic")
            .iter()
            .any(|line| line.starts_with("a@one"))
    };
    until("the first message was tried", || is_tried().then_some(())).await;
    client.sends_message("e@one.example").await;
    drop(client);
    until("the queue is empty", || {
        queue(folder.path()).is_empty().then_some(())
    })
    .await;
    running.stop();
    running.ended().await.expect("an orderly end");

    let (one, two, three) = (picky.address, nobody.address, second.address);
    assert_eq!(
        Recorder::sorted(&recorder.sessions),
        [
            format!("bare.example failed {three}"),
            format!("one.example cleared {one}"),
            format!("one.example reused {one}"),
            format!("two.example cleared {three}"),
            format!("two.example failed {two}"),
        ]
    );
    assert_eq!(
        Recorder::sorted(&recorder.recipients),
        [
            "a@one.example delivered after 1",
            "b@one.example bounced 5.1.1 after 1",
            "c@two.example delivered after 1",
            "d@bare.example bounced 5.7.4 after 1",
            "e@one.example delivered after 1",
        ]
    );
}
