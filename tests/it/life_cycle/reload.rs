//! SIGHUP: a good configuration is in force at once for what begins then, a bad one changes
//! nothing.

use super::Wanted;
use crate::support::client::Client;
use crate::support::counting_sink::{Sink, fill};
use crate::support::in_process::until;
use crate::support::message::Message;

/// The name in the answer to EHLO.
fn name(client: &mut Client) -> String {
    let answer = client.command("HELO client.example").expect("a session");
    answer.split(' ').nth(1).expect("a name").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_sessions_have_the_new_one_and_old_ones_keep_theirs() {
    let sink = Sink::start(10).await;
    let (folder, mut relay) = Wanted::mail_to(sink.address).start();
    let mut old = Client::connect(relay.address).expect("a session");
    assert_eq!(name(&mut old), "relay.example.com");
    let log = "format = \"text\"\nlevel = \"debug\"";
    Wanted {
        hostname: "other.example.com",
        log,
        ..Wanted::mail_to(sink.address)
    }
    .write(folder.path());
    relay.signal("HUP");
    relay.hears("configuration reloaded");
    let mut new = Client::connect(relay.address).expect("a session");
    assert_eq!(name(&mut new), "other.example.com");
    relay.hears("DEBUG session opened");
    assert_eq!(name(&mut old), "relay.example.com");
    for client in [&mut old, &mut new] {
        client.send(&Message::new("test", &["a.example"], 500));
    }
    drop((old, new));
    until("both can still send", || (sink.taken() == 2).then_some(())).await;
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_one_changes_nothing_and_says_why() {
    let sink = Sink::start(10).await;
    let good = || Wanted::mail_to(sink.address);
    let (folder, mut relay) = good().start();
    let restart = "Restart the daemon for this";
    for (bad, place, words) in [
        (
            Wanted {
                more: "unknown = 1",
                ..good()
            },
            "18:1",
            "unknown",
        ),
        (
            Wanted {
                more: "[tls]\ntrust = \"missing.pem\"",
                ..good()
            },
            "19:9",
            "missing.pem",
        ),
        (
            Wanted {
                listener: "127.0.0.1:1",
                ..good()
            },
            "5:12",
            restart,
        ),
        (
            Wanted {
                log: "format = \"json\"",
                ..good()
            },
            "15:10",
            restart,
        ),
    ] {
        let bad = Wanted {
            hostname: "other.example.com",
            ..bad
        };
        let file = bad.write(folder.path());
        relay.signal("HUP");
        let fault = relay.hears(&format!("{}:{place}", file.display()));
        assert!(fault.contains(words), "{words:?} is missing from {fault}");
        relay.hears("configuration not reloaded, the running one is unchanged");
        assert_eq!(
            name(&mut Client::connect(relay.address).expect("a session")),
            "relay.example.com"
        );
    }
    std::fs::remove_file(folder.path().join("gatepost.toml")).expect("it is ours");
    relay.signal("HUP");
    relay.hears("configuration not reloaded, the running one is unchanged");
    assert!(
        !relay.said().contains("configuration reloaded"),
        "{}",
        relay.said()
    );
    let mut client = Client::connect(relay.address).expect("a session");
    client.send(&Message::new("test", &["a.example"], 500));
    drop(client);
    until("it works on", || (sink.taken() == 1).then_some(())).await;
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
}

/// Whoever mends a route does not want to wait until the old one's back-off is over, and whoever
/// lowers a limit means the mail that waits, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_waits_goes_the_new_way_within_the_new_limits() {
    let (sink, nobody) = (
        Sink::start(100).await,
        crate::support::peer::Nobody::at([127, 0, 0, 1]),
    );
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    fill(
        &folder.path().join("spool"),
        (0..20).map(|number| format!("b{number}@a.example")),
        |_| (),
    )
    .await;
    let file = Wanted::mail_to(nobody.address).write(folder.path());
    let mut relay = super::Relay::run(&file, &[]).unwrap_or_else(|end| panic!("{}", end.log));
    relay.hears("delivery deferred");
    Wanted {
        outbound: "connections = 1",
        ..Wanted::mail_to(sink.address)
    }
    .write(folder.path());
    relay.signal("HUP");
    relay.hears("configuration reloaded");
    // Five were tried, and wait for an hour of their own.
    until("the others have gone", || {
        (sink.taken() >= 15).then_some(())
    })
    .await;
    sink.seen(|seen| assert_eq!(seen.peak, 1));
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
}

/// Whoever shortens the life of mail means the mail that is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_waits_has_the_new_age() {
    let nobody = crate::support::peer::Nobody::at([127, 0, 0, 1]);
    let (folder, mut relay) = Wanted::mail_to(nobody.address).start();
    let mut client = Client::connect(relay.address).expect("a session");
    client.send(&Message::new("test", &["a.example"], 500));
    drop(client);
    relay.hears("delivery deferred");
    let queue = "retry = [\"100ms\"]\nexpire = \"200ms\"";
    Wanted {
        queue,
        ..Wanted::mail_to(nobody.address)
    }
    .write(folder.path());
    relay.signal("HUP");
    relay.hears("configuration reloaded");
    relay.hears("not delivered within 200ms");
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
}
