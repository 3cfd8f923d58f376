//! The results of recipients: answers, splits, lost connections, peers that cannot take a message.

use bytes::Bytes;
use gatepost::policy::failure::RecipientOutcome;
use gatepost::smtp::address::Mailbox;
use gatepost::storage::spool::{Body, Spool as _, SqliteSpool};

use crate::support::deliveries::{World, connector, deliver, failure, message, outcome, result};
use crate::support::peer::{Manner, Nobody, Peer, Starttls};

pub(crate) fn plain() -> Manner {
    Manner::new(Starttls::NotOffered)
}

pub(crate) fn smart_hosts(peers: &[&Peer]) -> String {
    let hosts: Vec<String> = peers
        .iter()
        .map(|peer| format!("mx.partner.example:{}", peer.address.port()))
        .collect();
    connector(
        "partner",
        &["partner.example"],
        &format!("route = {hosts:?}\ntls = \"opportunistic\""),
    )
}

#[tokio::test]
async fn each_recipient_has_its_own_result() {
    let world = World::new().await;
    let manner = plain()
        .answer("RCPT TO:<gone@", "550 5.1.1 no such user")
        .answer("RCPT TO:<later@", "450 4.2.1 later")
        .answer(".", "250 2.0.0 queued as 42");
    let peer = Peer::start(manner).await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    let report = deliver(
        &outbound,
        message(&[
            "gone@partner.example",
            "b@partner.example",
            "later@partner.example",
        ]),
    )
    .await;
    let outcomes: Vec<String> = (0..3).map(|at| outcome(&report, at)).collect();
    assert_eq!(outcomes, ["bounced 5.1.1", "delivered", "deferred 4.2.1"]);
    let peer_name = format!("mx.partner.example [127.0.0.1]:{}", peer.address.port());
    assert_eq!(
        failure(&report, 0).to_string(),
        format!("{peer_name}: answered RCPT TO with: 550 5.1.1 no such user")
    );
    assert_eq!(
        result(&report, 1)
            .via
            .as_ref()
            .map(|via| via.peer.to_string()),
        Some(peer_name)
    );
}

/// A thousand recipients may each have an answer, and the queue keeps them for days.
#[tokio::test]
async fn the_beginning_of_an_answer_is_kept_however_long_it_is() {
    let world = World::new().await;
    let long = |code: &str| -> &'static str {
        format!(
            "{}{code} end",
            format!("{code}-{}\r\n", "x".repeat(4000)).repeat(20)
        )
        .leak()
    };
    let peer = Peer::start(
        plain()
            .answer("RCPT TO:<gone@", long("550"))
            .answer(".", long("250")),
    )
    .await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    let report = deliver(
        &outbound,
        message(&["gone@partner.example", "b@partner.example"]),
    )
    .await;
    assert_eq!(
        [outcome(&report, 0), outcome(&report, 1)],
        ["bounced 5.0.0", "delivered"]
    );
    let RecipientOutcome::Delivered(taken) = &result(&report, 1).outcome else {
        panic!("it was delivered")
    };
    for reply in [failure(&report, 0).peer_reply().expect("a reply"), taken] {
        let lengths: Vec<usize> = reply.lines().iter().map(|line| line.len()).collect();
        assert_eq!(lengths, [1024]);
    }
    let greeted = Peer::start(Manner {
        greeting: long("554"),
        ..plain()
    })
    .await;
    let report = deliver(
        &world.outbound(&smart_hosts(&[&greeted])),
        message(&["b@partner.example"]),
    )
    .await;
    assert_eq!(
        failure(&report, 0)
            .peer_reply()
            .expect("a reply")
            .lines()
            .len(),
        1
    );
}

#[tokio::test]
async fn who_may_do_better_elsewhere_is_tried_elsewhere() {
    let world = World::new().await;
    let first = Peer::start(plain().answer("RCPT TO:<later@", "450 4.2.1 later")).await;
    let second = Peer::start(plain()).await;
    let outbound = world.outbound(&smart_hosts(&[&first, &second]));
    let report = deliver(
        &outbound,
        message(&["b@partner.example", "later@partner.example"]),
    )
    .await;
    assert_eq!(
        [outcome(&report, 0), outcome(&report, 1)],
        ["delivered", "delivered"]
    );
    outbound.close();
    let heard = second.heard_to_the_end().await;
    assert!(
        heard[0].has("RCPT TO:<later@partner.example>") && !heard[0].has("RCPT TO:<b@"),
        "{heard:?}"
    );
    assert_eq!((first.messages().len(), second.messages().len()), (1, 1));
}

#[tokio::test]
async fn a_failed_hop_is_reported_for_the_recipients_it_failed_for() {
    let world = World::new().await;
    let first = plain()
        .answer("RCPT TO:<b@", "450 4.2.1 b is away")
        .answer("RCPT TO:<c@", "450 4.2.1 c is away");
    let second = plain()
        .answer("RCPT TO:<c@", "550 5.1.1 c is gone")
        .answer(".", "451 4.3.0 not now");
    let (first, second) = (Peer::start(first).await, Peer::start(second).await);
    let outbound = world.outbound(&smart_hosts(&[&first, &second]));
    let report = deliver(
        &outbound,
        message(&["b@partner.example", "c@partner.example"]),
    )
    .await;
    let told = |at| {
        result(&report, at)
            .trail
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let ends = |told: &[String], ends: [&str; 2]| {
        told.len() == 2 && (0..2).all(|at| told[at].ends_with(ends[at]))
    };
    assert!(
        ends(&told(0), ["450 4.2.1 b is away", "451 4.3.0 not now"]),
        "{:?}",
        told(0)
    );
    assert!(
        ends(&told(1), ["450 4.2.1 c is away", "550 5.1.1 c is gone"]),
        "{:?}",
        told(1)
    );
    assert_eq!(report.trail.len(), 4, "{:?}", report.trail);
}

pub(crate) fn heard_of(peer: &Peer, command: &str) -> usize {
    peer.heard()
        .iter()
        .filter(|heard| heard.has(command))
        .count()
}

/// A message that greylisting, or a full disk behind all hosts, puts off is not sent to each of
/// them.
#[tokio::test]
async fn a_recipient_deferred_twice_is_not_tried_at_every_other_host() {
    let world = World::new().await;
    for at in ["MAIL", "RCPT", "DATA", "."] {
        for answer in ["450 4.7.1 not now", "421 4.7.1 not now"] {
            let start = || Peer::start(plain().answer(at, answer));
            let peers = [start().await, start().await, start().await, start().await];
            let outbound = world.outbound(&smart_hosts(&peers.each_ref()));
            let report = deliver(&outbound, message(&["b@partner.example"])).await;
            assert_eq!(outcome(&report, 0), "deferred 4.7.1", "{answer} to {at}");
            assert_eq!(
                peers.map(|peer| heard_of(&peer, at)),
                [1, 1, 0, 0],
                "{answer} to {at}"
            );
        }
    }
}

/// Those who were put off wait; those whom nobody has answered go on to the end of the list.
#[tokio::test]
async fn who_was_not_answered_goes_on_however_many_others_were() {
    let world = World::new().await;
    let later = || plain().answer("RCPT TO:<later@", "450 4.2.1 later");
    let nobody = Nobody::at([127, 0, 0, 1]);
    let lost = Peer::start(plain().answer("MAIL", "")).await;
    let narrow = [Peer::start(later()).await, Peer::start(later()).await];
    let wide = Manner {
        keywords: &["PIPELINING", "SMTPUTF8", "8BITMIME"],
        ..plain()
    };
    let wide = Peer::start(wide).await;
    let addresses = [
        nobody.address,
        lost.address,
        narrow[0].address,
        narrow[1].address,
        wide.address,
    ];
    let hosts = addresses.map(|address| format!("mx.partner.example:{}", address.port()));
    let route = format!("route = {hosts:?}\ntls = \"opportunistic\"");
    let outbound = world.outbound(&connector("partner", &["partner.example"], &route));
    let mut entry = message(&["later@partner.example", "u@partner.example"]);
    entry.envelope.recipients[1].mailbox =
        Mailbox::parse("jürgen@partner.example").expect("a mailbox");
    let report = deliver(&outbound, entry).await;
    assert_eq!(
        [outcome(&report, 0), outcome(&report, 1)],
        ["deferred 4.2.1", "delivered"],
        "{report:?}"
    );
    assert_eq!(
        narrow.map(|peer| heard_of(&peer, "RCPT TO:<later@")),
        [1, 1]
    );
    assert!(heard_of(&wide, "RCPT TO:<jürgen@") == 1 && heard_of(&wide, "RCPT TO:<later@") == 0);
}

/// A host that takes some and puts one off has put off once, in however many sessions it did so.
#[tokio::test]
async fn sessions_that_put_nobody_off_do_not_count() {
    let world = World::new().await;
    let first = plain()
        .answer_after(1, "RCPT TO:<b@", "250 ok")
        .answer("RCPT TO:<b@", "452 4.5.3 too many")
        .answer_after(2, "RCPT TO:<c@", "450 4.2.1 later")
        .answer("RCPT TO:<c@", "452 4.5.3 too many");
    let (first, second) = (Peer::start(first).await, Peer::start(plain()).await);
    let outbound = world.outbound(&format!(
        "{}\nmessages_per_connection = 1",
        smart_hosts(&[&first, &second])
    ));
    let to = [
        "a@partner.example",
        "b@partner.example",
        "c@partner.example",
    ];
    let report = deliver(&outbound, message(&to)).await;
    assert_eq!(
        [0, 1, 2].map(|at| outcome(&report, at)),
        ["delivered", "delivered", "delivered"],
        "{report:?}"
    );
    assert_eq!((first.messages().len(), second.messages().len()), (2, 1));
}

#[tokio::test]
async fn a_session_has_ended_before_the_next_host_is_dialled() {
    let world = World::new().await;
    let small = Manner {
        keywords: &["SIZE 10"],
        ..plain()
    };
    for manner in [
        plain().answer("RCPT", "450 4.2.1 later"),
        plain().answer(".", "450 4.2.1 later"),
        small,
    ] {
        let (first, second) = (Peer::start(manner).await, Peer::start(plain()).await);
        let outbound = world.outbound(&smart_hosts(&[&first, &second]));
        assert_eq!(
            outcome(
                &deliver(&outbound, message(&["b@partner.example"])).await,
                0
            ),
            "delivered"
        );
        let heard = first.heard();
        assert_eq!(
            heard[0].commands.last().map(String::as_str),
            Some("QUIT"),
            "{heard:?}"
        );
        assert!(
            !second.heard()[0].has("QUIT"),
            "it waits for the next message"
        );
    }
}

#[tokio::test]
async fn a_permanent_answer_is_final_whatever_hops_are_left() {
    let world = World::new().await;
    for (stage, words) in [
        ("MAIL", "MAIL FROM"),
        ("DATA", "DATA"),
        (".", "the end of the message"),
    ] {
        let first = Peer::start(plain().answer(stage, "554 5.7.1 no")).await;
        let second = Peer::start(plain()).await;
        let outbound = world.outbound(&smart_hosts(&[&first, &second]));
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "bounced 5.7.1");
        assert!(
            failure(&report, 0)
                .to_string()
                .contains(&format!("answered {words} with: 554 5.7.1 no"))
        );
        assert!(second.heard().is_empty());
    }
}

#[tokio::test]
async fn a_host_that_takes_no_mail_at_all_bounces_nothing() {
    let world = World::new().await;
    let peer = Peer::start(Manner {
        greeting: "554 5.3.2 no service",
        ..plain()
    })
    .await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.3.2");
}

#[tokio::test]
async fn without_an_answer_to_the_dot_no_other_hop_is_tried() {
    let world = World::new().await;
    let first = Peer::start(plain().answer(".", "")).await;
    let second = Peer::start(plain()).await;
    let outbound = world.outbound(&smart_hosts(&[&first, &second]));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.4.2");
    assert!(
        failure(&report, 0)
            .to_string()
            .contains("may be delivered again"),
        "{}",
        failure(&report, 0)
    );
    assert!(second.heard().is_empty(), "a second copy was sent");
}

#[tokio::test]
async fn a_connection_lost_before_the_dot_leads_to_the_next_hop() {
    let world = World::new().await;
    for at in ["EHLO", "MAIL", "RCPT", "DATA"] {
        let first = Peer::start(plain().answer(at, "")).await;
        let second = Peer::start(plain()).await;
        let outbound = world.outbound(&smart_hosts(&[&first, &second]));
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(
            (outcome(&report, 0).as_str(), report.trail.len()),
            ("delivered", 1),
            "lost at {at}"
        );
        assert_eq!(second.messages().len(), 1, "lost at {at}");
    }
}

#[tokio::test]
async fn a_silent_peer_is_left_after_the_time_limit() {
    let world = World::new().await;
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback");
    let route = format!(
        "route = [\"[127.0.0.1]:{}\"]",
        mute.local_addr().expect("bound").port()
    );
    let outbound = world.outbound(&connector("partner", &["partner.example"], &route));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.4.2");
    assert!(
        failure(&report, 0)
            .to_string()
            .ends_with("no reply to the connection within 2 s")
    );
}

#[tokio::test]
async fn a_refused_connection_is_named_as_such() {
    let world = World::new().await;
    let (first, _second) = Nobody::twins();
    let port = first.address.port();
    let policy = format!("port = {port}");
    let outbound = world.outbound(&connector("partner", &["partner.example"], &policy));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.4.1");
    assert_eq!(
        report.trail.len(),
        2,
        "one for each MX host: {:?}",
        report.trail
    );
    let text = report.trail[0].to_string();
    assert!(
        text.starts_with(&format!(
            "mx1.partner.example [127.0.0.1]:{port}: cannot connect: "
        )),
        "{text}"
    );
}

#[tokio::test]
async fn a_domain_without_mail_bounces_at_once() {
    let world = World::new().await;
    let outbound = world.outbound("");
    for (recipient, ends) in [
        ("b@null.example", "bounced 5.1.10"),
        ("b@absent.example", "bounced 5.1.2"),
    ] {
        assert_eq!(
            outcome(&deliver(&outbound, message(&[recipient])).await, 0),
            ends
        );
    }
}

#[tokio::test]
async fn the_second_mx_host_takes_what_the_first_cannot() {
    let world = World::new().await;
    let (_nobody, backup) = Nobody::before(plain).await;
    let outbound = world.outbound(&connector(
        "partner",
        &["partner.example"],
        &format!("port = {}", backup.address.port()),
    ));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(
        (outcome(&report, 0).as_str(), report.trail.len()),
        ("delivered", 1)
    );
}

#[tokio::test]
async fn a_large_message_arrives_as_it_is() {
    let world = World::new().await;
    let peer = Peer::start(plain()).await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    let content: Vec<u8> = b"Subject: large\r\n\r\n"
        .iter()
        .copied()
        .chain(b"..dots\r\n.\r\n..\r\nx\r\n".repeat(100_000))
        .collect();
    let mut entry = message(&["b@partner.example"]);
    entry.size = content.len() as u64;
    entry.body = Body::Memory(Bytes::from(content.clone()));
    assert_eq!(outcome(&deliver(&outbound, entry).await, 0), "delivered");
    assert!(
        peer.messages() == [content],
        "the content was changed on the way"
    );
}

/// The fault shows only when the last chunk is read: by then most of the message has been sent.
#[tokio::test]
async fn half_a_message_never_passes_for_a_complete_one() {
    for lines in [20_000, 100_000] {
        half_a_message(lines).await;
    }
}

async fn half_a_message(lines: usize) {
    let world = World::new().await;
    let (first, second) = (Peer::start(plain()).await, Peer::start(plain()).await);
    let outbound = world.outbound(&smart_hosts(&[&first, &second]));
    let folder = tempfile::tempdir().expect("a folder");
    let spool = SqliteSpool::open(folder.path()).expect("a spool");
    let mut draft = spool.draft();
    draft
        .write(&b"a line of the message\r\n".repeat(lines))
        .await
        .expect("written");
    let (_, entry) = spool
        .commit(draft, message(&["b@partner.example"]).envelope)
        .await
        .expect("durable");
    let Body::File(file) = &entry.body else {
        panic!("a large message has a file of its own")
    };
    let mut stored = std::fs::read(file.path()).expect("readable");
    *stored.last_mut().expect("not empty") ^= 1;
    std::fs::write(file.path(), stored).expect("writable");

    let report = deliver(&outbound, entry.message).await;
    assert_eq!(outcome(&report, 0), "deferred 4.3.0");
    let heard = first.heard_to_the_end().await;
    assert_eq!(
        heard[0].commands.last().map(String::as_str),
        Some("(half a message)"),
        "{heard:?}"
    );
    assert!(heard[0].messages.is_empty() && second.heard().is_empty());
}
