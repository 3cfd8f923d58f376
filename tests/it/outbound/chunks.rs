//! Content that is sent as a chunk, together with the commands.

use std::time::Duration;

use gatepost::relay::outbound::{AttemptLimit, AttemptResult, Outbound};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::delivery::{plain, smart_hosts};
use crate::support::deliveries::{World, attempt, connector, deliver, failure, message, outcome};
use crate::support::peer::{Manner, Peer};

/// The commands of a peer's connections, each without what follows the first blank.
fn verbs(peer: &Peer) -> Vec<String> {
    let verb = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let heard = peer.heard();
    let commands = heard.iter().flat_map(|heard| &heard.commands);
    commands.map(verb).collect()
}

fn chunking() -> Manner {
    Manner {
        keywords: &["PIPELINING", "CHUNKING"],
        ..plain()
    }
}

#[tokio::test]
async fn content_goes_ahead_only_to_a_peer_that_has_just_accepted_a_message() {
    let world = World::new().await;
    let peer = Peer::start(chunking().answer("RCPT TO:<no@", "550 5.1.1 no such user")).await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    for (to, outcome_begins) in [
        ("b@partner.example", "delivered"),
        ("b@partner.example", "delivered"),
        ("no@partner.example", "bounced"),
        ("no@partner.example", "bounced"),
        ("b@partner.example", "delivered"),
    ] {
        let report = deliver(&outbound, message(&[to])).await;
        assert!(
            outcome(&report, 0).starts_with(outcome_begins),
            "{report:?}"
        );
    }
    let (ahead, later) = (["MAIL", "RCPT", "BDAT"], ["MAIL", "RCPT", "DATA"]);
    let expected = [
        &["EHLO"][..],
        &later,
        &["."],
        &ahead,
        // The one that is refused, and then no content for a peer that refuses.
        &ahead,
        &["RSET"],
        &later,
        &["RSET"],
        &later,
        &["."],
    ]
    .concat();
    assert_eq!(verbs(&peer), expected);
    let messages = peer.messages();
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[0], messages[1], "with DATA and as a chunk");
}

#[tokio::test]
async fn a_chunk_without_an_answer_is_not_sent_to_another_host() {
    let world = World::new().await;
    for (before, lost_at) in [(1, "MAIL"), (0, "RCPT TO:<c@"), (0, "BDAT")] {
        let first = Peer::start(chunking().answer_after(before, lost_at, "")).await;
        let second = Peer::start(chunking()).await;
        let outbound = world.outbound(&smart_hosts(&[&first, &second]));
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
        let to = [
            "b@partner.example",
            "c@partner.example",
            "d@partner.example",
        ];
        let report = deliver(&outbound, message(&to)).await;
        for at in 0..to.len() {
            assert!(outcome(&report, at).starts_with("deferred"), "{report:?}");
        }
        let reason = failure(&report, 1).to_string();
        assert!(reason.contains("may have been delivered"), "{reason}");
        assert_eq!(second.heard().len(), 0, "the other host was asked");
        assert_eq!(first.heard().len(), 1, "it was sent again");
    }
}

#[tokio::test]
async fn a_chunk_is_not_sent_to_another_host_after_421_to_one_of_its_recipients() {
    let world = World::new().await;
    let first = Peer::start(chunking().answer("RCPT TO:<c@", "421 4.3.2 not this one")).await;
    let second = Peer::start(chunking()).await;
    let outbound = world.outbound(&smart_hosts(&[&first, &second]));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    let to = ["b@partner.example", "c@partner.example"];
    let report = deliver(&outbound, message(&to)).await;
    assert!(outcome(&report, 0).starts_with("deferred"), "{report:?}");
    let is_for_b = |line: &String| line.starts_with("RCPT TO:<b@");
    let heard = second.heard();
    assert!(
        !heard.iter().any(|one| one.commands.iter().any(is_for_b)),
        "{heard:?}"
    );
}

/// Delivers one message to this many recipients, and expects an outcome that begins like this for
/// each.
async fn send(outbound: &Outbound, to: &[&str], outcome_begins: &str) -> AttemptResult {
    let report = deliver(outbound, message(to)).await;
    for at in 0..to.len() {
        assert!(
            outcome(&report, at).starts_with(outcome_begins),
            "{report:?}"
        );
    }
    report
}

const WITH_DATA: [&str; 4] = ["MAIL", "RCPT", "DATA", "."];
const AHEAD: [&str; 3] = ["MAIL", "RCPT", "BDAT"];

#[tokio::test]
async fn a_host_that_does_not_know_bdat_gets_data_on_other_connections_from_then_on() {
    let world = World::new().await;
    let peer = Peer::start(chunking().answer("BDAT", "502 5.5.1 not here")).await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    for _ in 0..4 {
        let report = send(&outbound, &["b@partner.example"], "delivered").await;
        assert_eq!(report.trail.len(), 0, "{:?}", report.trail);
    }
    let expected = [
        &["EHLO"][..],
        &WITH_DATA,
        &AHEAD,
        &["QUIT"],
        // Another connection, and no other chunk although the host accepts one message after
        // another.
        &["EHLO"],
        &WITH_DATA,
        &WITH_DATA,
        &WITH_DATA,
    ]
    .concat();
    assert_eq!(verbs(&peer), expected);
}

#[tokio::test]
async fn a_reply_that_belongs_to_another_command_delivers_nothing() {
    let world = World::new().await;
    let first = Peer::start(chunking().answer("BDAT", "250 2.1.5 recipient ok")).await;
    let second = Peer::start(chunking()).await;
    let outbound = world.outbound(&smart_hosts(&[&first, &second]));
    let to = ["b@partner.example"];
    send(&outbound, &to, "delivered").await;
    let report = send(&outbound, &to, "deferred").await;
    let reason = failure(&report, 0).to_string();
    assert!(reason.contains("belongs to another command"), "{reason}");
    assert!(reason.contains("may have been delivered"), "{reason}");
    // The connection is not used again, and the host gets no more chunks.
    send(&outbound, &to, "delivered").await;
    send(&outbound, &to, "delivered").await;
    let expected = [
        &["EHLO"][..],
        &WITH_DATA,
        &AHEAD,
        &["EHLO"],
        &WITH_DATA,
        &WITH_DATA,
    ]
    .concat();
    let verbs: Vec<_> = verbs(&first);
    let without_quit: Vec<_> = verbs.iter().filter(|verb| *verb != "QUIT").collect();
    assert_eq!(without_quit, expected);
    assert_eq!(second.heard().len(), 0, "the other host was asked");
}

#[tokio::test]
async fn content_goes_ahead_only_to_a_peer_whose_replies_differ() {
    let world = World::new().await;
    for (command, reply) in [
        ("MAIL", "250 2.0.0 ok"),
        ("RCPT", "250 ok"),
        (".", "250 2.1.5 ok"),
        (".", "250 ok"),
    ] {
        let peer = Peer::start(chunking().answer(command, reply)).await;
        let outbound = world.outbound(&smart_hosts(&[&peer]));
        for _ in 0..2 {
            send(&outbound, &["b@partner.example"], "delivered").await;
        }
        let expected = [&["EHLO"][..], &WITH_DATA, &WITH_DATA].concat();
        assert_eq!(verbs(&peer), expected, "{command}: {reply}");
    }
}

/// A peer of one connection, which takes a first message with DATA.
struct OnePeer(BufReader<TcpStream>);

impl OnePeer {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut peer = Self(BufReader::new(stream));
        peer.say("220 peer ESMTP").await;
        peer.hear("EHLO").await;
        peer.say("250-peer\r\n250-PIPELINING\r\n250 CHUNKING").await;
        peer.accept_recipient().await;
        peer.hear("DATA").await;
        peer.say("354 go").await;
        while peer.line().await != "." {}
        peer.say("250 2.0.0 queued").await;
        peer
    }

    async fn accept_recipient(&mut self) {
        self.hear("MAIL").await;
        self.say("250 2.1.0 ok").await;
        self.hear("RCPT").await;
        self.say("250 2.1.5 ok").await;
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("a line");
        line.trim_end().to_owned()
    }

    async fn hear(&mut self, command: &str) -> String {
        let line = self.line().await;
        assert!(line.starts_with(command), "{line}");
        line
    }

    /// Reads BDAT and its content.
    async fn hear_chunk(&mut self) {
        let line = self.hear("BDAT").await;
        let size = line.split(' ').nth(1).expect("a size");
        let mut content = vec![0; size.parse().expect("a number")];
        self.0.read_exact(&mut content).await.expect("the content");
    }

    async fn say(&mut self, words: &str) {
        let line = format!("{words}\r\n");
        self.0.write_all(line.as_bytes()).await.expect("sent");
    }
}

/// A listener, and the connector that leads to it.
async fn one_host() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let route = listener.local_addr().expect("bound");
    let lines = format!("route = [\"{route}\"]\ntls = \"opportunistic\"");
    (listener, connector("partner", &["partner.example"], &lines))
}

/// The replies in front of that to the chunk have the usual limit, 2 s here; a host that is slow with
/// them gives way to others, and one that has the whole message does not.
#[tokio::test]
async fn only_the_reply_to_the_chunk_has_the_long_limit() {
    let mut world = World::new().await;
    world.final_reply = "1h";
    for (accepted, ended_by) in [
        (0, "no reply to MAIL FROM within 2 s"),
        (1, "no reply to RCPT TO within 2 s"),
        (0, "the destination was slow"),
        (1, "the destination was slow"),
        (2, ""),
    ] {
        let (listener, connector) = one_host().await;
        let outbound = world.outbound(&connector);
        let limit = AttemptLimit::new(Duration::from_hours(1));
        let peer = async {
            let mut peer = OnePeer::accept(&listener).await;
            peer.hear("MAIL").await;
            peer.hear("RCPT").await;
            peer.hear_chunk().await;
            for reply in ["250 2.1.0 ok", "250 2.1.5 ok"].iter().take(accepted) {
                peer.say(reply).await;
            }
            if accepted == 2 {
                while limit.may_end() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                limit.end();
                peer.say("250 2.0.0 queued").await;
            } else if ended_by.starts_with("the destination") {
                assert!(limit.may_end());
                limit.end();
            }
            peer
        };
        let delivery = async {
            send(&outbound, &["b@partner.example"], "delivered").await;
            let entry = message(&["b@partner.example"]);
            outbound.deliver_within(attempt(entry), &limit).await
        };
        let (report, _peer) = tokio::join!(delivery, peer);
        if accepted == 2 {
            assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
            continue;
        }
        let reason = failure(&report, 0).to_string();
        assert!(reason.contains(ended_by), "{reason}");
        assert!(reason.contains("may have been delivered"), "{reason}");
    }
}

/// No recipient is accepted, so that the host has nothing to do for which it could be awaited.
#[tokio::test]
async fn a_chunk_for_nobody_has_no_long_limit() {
    let mut world = World::new().await;
    world.final_reply = "1h";
    for replies in [
        &["550 5.7.1 not from you", "503 5.5.1 no"][..],
        &["250 2.1.0 ok", "550 5.1.1 no such user"],
    ] {
        let (listener, connector) = one_host().await;
        let outbound = world.outbound(&connector);
        let peer = async {
            let mut peer = OnePeer::accept(&listener).await;
            peer.hear("MAIL").await;
            peer.hear("RCPT").await;
            peer.hear_chunk().await;
            for reply in replies {
                peer.say(reply).await;
            }
            peer
        };
        let delivery = async {
            send(&outbound, &["b@partner.example"], "delivered").await;
            send(&outbound, &["b@partner.example"], "bounced").await
        };
        let (report, _peer) = tokio::join!(delivery, peer);
        let reason = failure(&report, 0).to_string();
        assert!(!reason.contains("may have been delivered"), "{reason}");
    }
}

/// The acceptance comes while content is sent, as if it were that of a message before.
#[tokio::test]
async fn a_reply_before_the_final_dot_delivers_nothing() {
    let world = World::new().await;
    let (listener, connector) = one_host().await;
    let outbound = world.outbound(&connector);
    let peer = async {
        let mut peer = OnePeer::accept(&listener).await;
        peer.accept_recipient().await;
        peer.hear("DATA").await;
        peer.say("354 go").await;
        peer.line().await;
        peer.say("250 2.0.0 queued").await;
        // More than fits in the buffers of both ends, so that the reply is there before the dot.
        let mut block = vec![0; 64 * 1024];
        while peer.0.read(&mut block).await.expect("content") > 0 {}
    };
    let delivery = async {
        send(&outbound, &["b@partner.example"], "delivered").await;
        let mut large = message(&["b@partner.example"]);
        let content = "a line of text\r\n".repeat(4 * 1024 * 1024);
        large.size = content.len() as u64;
        large.body = gatepost::storage::spool::Body::Memory(content.into());
        deliver(&outbound, large).await
    };
    let (report, ()) = tokio::join!(delivery, peer);
    assert!(outcome(&report, 0).starts_with("deferred"), "{report:?}");
    let reason = failure(&report, 0).to_string();
    assert!(reason.contains("belongs to another command"), "{reason}");
}
