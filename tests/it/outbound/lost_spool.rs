//! A relay whose spool is not its own any more begins no transaction.

use std::path::Path;
use std::time::Duration;

use gatepost::relay::outbound::{Attempt, AttemptLimit, AttemptResult};
use gatepost::storage::spool::{HeldLease, Spool as _, SqliteSpool};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::support::deliveries::{World, attempt, connector, message, outcome};
use crate::support::peer::{Manner, Peer, Starttls};

/// A spool, and its folder under another name.
async fn lost(folder: &Path) -> (SqliteSpool, HeldLease) {
    let (path, away) = (folder.join("spool"), folder.join("away"));
    let spool = SqliteSpool::open(&path).expect("a spool");
    std::fs::rename(&path, away).expect("moved");
    let lease = spool.lease();
    assert!(lease.holds(), "it was not examined yet");
    spool.renew().await.expect_err("it was moved");
    assert!(!lease.holds());
    (spool, lease)
}

fn limit(lease: HeldLease) -> AttemptLimit {
    AttemptLimit::of_owner(Duration::from_mins(1), lease)
}

#[tokio::test]
async fn no_mail_from_is_sent_when_the_lease_is_over() {
    let world = World::new().await;
    let peer = Peer::start(Manner::new(Starttls::NotOffered)).await;
    let route = connector(
        "partner",
        &["partner.example"],
        &format!("route = [\"{}\"]\ntls = \"off\"", peer.address),
    );
    let outbound = world.outbound(&route);
    let folder = tempfile::tempdir().expect("a folder");
    let (_spool, lease) = lost(folder.path()).await;
    let report = outbound
        .deliver_within(attempt(message(&["b@partner.example"])), &limit(lease))
        .await;
    assert_eq!(outcome(&report, 0), "deferred 4.3.0", "{report:?}");
    outbound.close();
    for heard in peer.heard_to_the_end().await {
        let begun = heard
            .commands
            .iter()
            .any(|command| command.starts_with("MAIL"));
        assert!(!begun, "{:?}", heard.commands);
    }
    assert!(peer.messages().is_empty());
}

/// A peer that lets the spool be moved away before it answers one line. Returns the commands that it
/// got.
async fn slow_peer(
    listener: TcpListener,
    line_of_move: &str,
    move_away: impl AsyncFnOnce(),
) -> Vec<String> {
    let (stream, _) = listener.accept().await.expect("a connection");
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 peer\r\n").await.expect("sent");
    let (mut commands, mut in_content, mut move_away) = (Vec::new(), false, Some(move_away));
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.expect("a line") == 0 {
            return commands;
        }
        let line = line.trim_end();
        if in_content && line != "." {
            continue;
        }
        if line == line_of_move
            && let Some(move_away) = move_away.take()
        {
            move_away().await;
        }
        let reply = match line {
            "DATA" => "354 go on\r\n",
            _ => "250 fine\r\n",
        };
        in_content = line == "DATA";
        commands.push(line.to_owned());
        stream.write_all(reply.as_bytes()).await.expect("sent");
    }
}

/// Delivers to two recipients, the second in a transaction of its own. The spool is moved away before the
/// peer answers a line. Returns the report, and the commands that the peer got.
async fn deliver_with_move_at(line: &str) -> (AttemptResult, Vec<String>) {
    let world = World::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (path, away) = (folder.path().join("spool"), folder.path().join("away"));
    let spool = SqliteSpool::open(&path).expect("a spool");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("an address");
    let peer = slow_peer(listener, line, async || {
        std::fs::rename(&path, &away).expect("moved");
        spool.renew().await.expect_err("it was moved");
    });
    let outbound = world.outbound(&connector(
        "partner",
        &["partner.example"],
        &format!("route = [\"{address}\"]\ntls = \"off\""),
    ));
    let attempt = Attempt {
        apart: vec![1],
        ..attempt(message(&["b@partner.example", "c@partner.example"]))
    };
    let limit = limit(spool.lease());
    let delivery = async {
        let report = outbound.deliver_within(attempt, &limit).await;
        outbound.close();
        report
    };
    tokio::join!(delivery, peer)
}

/// Returns the numbers of the commands MAIL and RCPT, and of the final dots.
fn count_steps(commands: &[String]) -> [usize; 3] {
    ["MAIL", "RCPT", "."].map(|word| {
        let begins = |line: &&String| line.starts_with(word);
        commands.iter().filter(begins).count()
    })
}

#[tokio::test]
async fn what_has_its_final_dot_when_the_lease_ends_is_finished_and_nothing_begins_after_it() {
    let (report, commands) = deliver_with_move_at(".").await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    assert_eq!(outcome(&report, 1), "deferred 4.3.0", "{report:?}");
    assert_eq!(count_steps(&commands), [1, 1, 1], "{commands:?}");
}

/// Another relay may be sending the message by then.
#[tokio::test]
async fn no_final_dot_is_sent_when_the_lease_is_over() {
    let (report, commands) = deliver_with_move_at("DATA").await;
    assert_eq!(outcome(&report, 0), "deferred 4.3.0", "{report:?}");
    assert!(outcome(&report, 1).starts_with("deferred"), "{report:?}");
    assert_eq!(count_steps(&commands), [1, 1, 0], "{commands:?}");
}
