//! Connections that are used again, and those that must not be.

use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::support::certificates::{BOTH, server_config};
use crate::support::deliveries::{World, attempt, connector, deliver, message, outcome, reload};
use crate::support::peer::{Manner, Peer, Starttls};

fn plain() -> Manner {
    Manner::new(Starttls::NotOffered)
}

fn smart_host(peer: &Peer, more: &str) -> String {
    let route = format!(
        "route = [\"mx.partner.example:{}\"]\n{more}",
        peer.address.port()
    );
    connector("partner", &["partner.example"], &route)
}

async fn send(outbound: &gatepost::relay::outbound::Outbound, times: usize) {
    for _ in 0..times {
        let report = deliver(outbound, message(&["b@partner.example"])).await;
        assert_eq!(
            (outcome(&report, 0).as_str(), report.trail.len()),
            ("delivered", 0),
            "{report:?}"
        );
    }
}

#[tokio::test]
async fn a_connection_carries_many_messages_and_no_more_than_it_may() {
    let world = World::new().await;
    let pair = world.authority.issue(&["mx.partner.example"]);
    for starttls in [
        Starttls::NotOffered,
        Starttls::Tls(server_config(&pair, BOTH).into()),
    ] {
        let peer = Peer::start(Manner::new(starttls)).await;
        let outbound = world.outbound(&smart_host(
            &peer,
            "tls = \"opportunistic\"\nmessages_per_connection = 3",
        ));
        send(&outbound, 7).await;
        outbound.close();
        let messages: Vec<usize> = peer
            .heard_to_the_end()
            .await
            .iter()
            .map(|heard| heard.messages.len())
            .collect();
        assert_eq!(messages, [3, 3, 1]);
        assert!(
            peer.heard()
                .iter()
                .all(|heard| heard.commands.last().is_some_and(|last| last == "QUIT"))
        );
    }
}

/// Servers count the errors of a session, and slow it down or end it after some.
#[tokio::test]
async fn a_connection_with_many_rejections_is_not_used_again() {
    let world = World::new().await;
    for (rejected, connections) in [(1, 1), (4, 1), (5, 2), (9, 2)] {
        let peer = Peer::start(plain().answer("RCPT TO:<x", "550 5.1.1 no such user")).await;
        let outbound = world.outbound(&smart_host(&peer, "tls = \"opportunistic\""));
        let mut all: Vec<_> = (0..rejected)
            .map(|at| format!("x{at}@partner.example"))
            .collect();
        all.push("b@partner.example".to_owned());
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let report = deliver(&outbound, message(&all)).await;
        assert_eq!(outcome(&report, 0), "bounced 5.1.1", "{report:?}");
        assert_eq!(outcome(&report, rejected), "delivered", "{report:?}");
        send(&outbound, 1).await;
        outbound.close();
        let heard = peer.heard_to_the_end().await;
        assert_eq!(heard.len(), connections, "{rejected} were rejected");
        for heard in heard {
            assert_eq!(heard.commands.last().map(String::as_str), Some("QUIT"));
        }
    }
}

/// The rejections of several messages add up, as they do at the server.
#[tokio::test]
async fn the_rejections_of_all_messages_of_a_connection_count() {
    let world = World::new().await;
    let peer = Peer::start(plain().answer("RCPT", "550 5.1.1 no such user")).await;
    let outbound = world.outbound(&smart_host(&peer, "tls = \"opportunistic\""));
    for _ in 0..6 {
        let report = deliver(&outbound, message(&["x@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "bounced 5.1.1", "{report:?}");
    }
    outbound.close();
    let heard = peer.heard_to_the_end().await;
    assert!((2..=3).contains(&heard.len()), "{heard:?}");
}

#[tokio::test]
async fn a_connection_given_up_by_the_peer_is_no_failure() {
    let world = World::new().await;
    let quiet = |farewell| Manner {
        farewell: Some(farewell),
        ..plain()
    };
    // The second of these commands that it hears is answered so, and no other.
    let once_to = |at, answer| {
        plain()
            .answer_after(2, at, "250 ok")
            .answer_after(1, at, answer)
    };
    let once = |answer| once_to("MAIL", answer);
    for (way, manner) in [
        ("closed", quiet("")),
        ("closed with a 421", quiet("421 4.4.2 idle")),
        ("closed at the next MAIL", once("")),
        ("421 to the next MAIL", once("421 4.4.2 idle for too long")),
        (
            "421 to the next RCPT",
            once_to("RCPT", "421 4.4.2 idle for too long"),
        ),
    ] {
        let peer = Peer::start(manner).await;
        let outbound = world.outbound(&smart_host(&peer, "tls = \"opportunistic\""));
        send(&outbound, 1).await;
        let second = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(
            (outcome(&second, 0).as_str(), second.trail.len()),
            ("delivered", 0),
            "{way}: {second:?}"
        );
        assert_eq!(peer.messages().len(), 2, "{way}");
        outbound.close();
        let connections = peer.heard_to_the_end().await;
        assert_eq!(connections.len(), 2, "{way}: {connections:?}");
    }
}

#[tokio::test]
async fn a_fresh_connection_lost_at_mail_is_a_failure() {
    let world = World::new().await;
    let peer = Peer::start(plain().answer("MAIL", "")).await;
    let outbound = world.outbound(&smart_host(&peer, "tls = \"opportunistic\""));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(
        (outcome(&report, 0).as_str(), report.trail.len()),
        ("deferred 4.4.2", 1)
    );
    assert_eq!(peer.heard_to_the_end().await.len(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_few_seconds() {
    let world = World::new().await;
    let peer = Peer::start(plain()).await;
    let outbound = world.outbound(&smart_host(&peer, "tls = \"opportunistic\""));
    send(&outbound, 1).await;
    let heard = peer.heard_to_the_end().await;
    assert_eq!(heard[0].commands.last().map(String::as_str), Some("QUIT"));
}

#[tokio::test]
async fn a_fallback_in_the_clear_is_not_used_again() {
    let world = World::new().await;
    let peer = Peer::start(Manner::new(Starttls::Closes)).await;
    let outbound = world.outbound(&smart_host(&peer, "tls = \"opportunistic\""));
    send(&outbound, 2).await;
    outbound.close();
    let heard = peer.heard_to_the_end().await;
    let messages: Vec<usize> = heard.iter().map(|heard| heard.messages.len()).collect();
    assert_eq!(
        messages,
        [0, 0, 1, 0, 0, 1],
        "TLS is tried for each message: {heard:?}"
    );
}

/// Two domains share a host, and its certificate is good for one of them only.
#[tokio::test]
async fn a_connection_is_used_again_only_where_its_own_handshake_satisfies_the_demand() {
    let world = World::new().await;
    let pair = world.authority.issue(&["partner.example"]);
    let peer = Peer::start(Manner::new(Starttls::Tls(
        server_config(&pair, BOTH).into(),
    )))
    .await;
    let policy = format!(
        "port = {}\ntls = \"forced\"\nverify = \"name\"",
        peer.address.port()
    );
    let outbound = world.outbound(&connector(
        "partners",
        &["partner.example", "other.example"],
        &policy,
    ));
    send(&outbound, 2).await;
    let report = deliver(&outbound, message(&["b@other.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5");
    send(&outbound, 1).await;
    outbound.close();
    let heard = peer.heard_to_the_end().await;
    assert!(
        !heard
            .iter()
            .any(|heard| heard.has("RCPT TO:<b@other.example>")),
        "{heard:?}"
    );
    let messages: Vec<usize> = heard.iter().map(|heard| heard.messages.len()).collect();
    assert_eq!(messages, [2, 0, 1]);
}

#[tokio::test]
async fn connectors_share_no_connection() {
    let world = World::new().await;
    let peer = Peer::start(plain()).await;
    let route = format!("route = [\"mx.partner.example:{}\"]\n", peer.address.port());
    let off = connector(
        "off",
        &["partner.example"],
        &format!("{route}tls = \"off\""),
    );
    let opportunistic = connector(
        "if-offered",
        &["other.example"],
        &format!("{route}tls = \"opportunistic\""),
    );
    let outbound = world.outbound(&format!("{off}{opportunistic}"));
    send(&outbound, 1).await;
    let report = deliver(&outbound, message(&["b@other.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered");
    outbound.close();
    assert_eq!(peer.heard_to_the_end().await.len(), 2);
}

#[tokio::test]
async fn replaced_settings_are_in_force_at_once() {
    let world = World::new().await;
    let peer = Peer::start(plain()).await;
    let outbound = Arc::new(world.outbound(&smart_host(&peer, "tls = \"opportunistic\"")));
    send(&outbound, 1).await;
    // Planned under the old settings, made under the new ones.
    let planned = attempt(message(&["b@partner.example"]));
    reload(
        &outbound,
        world.snapshot(&smart_host(&peer, "tls = \"forced\"\nverify = \"none\"")),
    );
    let report = outbound.deliver(planned).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.4");
    outbound.close();
    let heard = peer.heard_to_the_end().await;
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(
        heard[0].commands.last().map(String::as_str),
        Some("QUIT"),
        "the old connection was closed"
    );
    assert!(!heard[1].has("MAIL"));
}

#[tokio::test]
async fn a_reload_in_the_middle_of_a_delivery_changes_nothing_of_it() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let route = format!("route = [\"{}\"]\n", listener.local_addr().expect("bound"));
    let way = |tls: &str| connector("partner", &["partner.example"], &format!("{route}{tls}"));
    let outbound = world.outbound(&way("tls = \"opportunistic\""));
    let mut forced = Some(world.snapshot(&way("tls = \"forced\"\nverify = \"none\"")));
    let peer = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 peer ESMTP\r\n").await.expect("sent");
        let mut line = String::new();
        while stream.read_line(&mut line).await.expect("read") > 0 {
            let answer = match line.trim_end() {
                "DATA" => "354 go on\r\n",
                "." => "250 2.0.0 Ok\r\n",
                "QUIT" => break,
                line if line.starts_with("EHLO") => {
                    reload(&outbound, forced.take().expect("one session"));
                    "250 peer\r\n"
                }
                line if line.starts_with("MAIL") || line.starts_with("RCPT") => "250 2.1.0 Ok\r\n",
                _ => "",
            };
            stream.write_all(answer.as_bytes()).await.expect("sent");
            line.clear();
        }
    };
    let delivery = async {
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        outbound.close();
        report
    };
    let (report, ()) = tokio::join!(delivery, peer);
    assert_eq!(outcome(&report, 0), "delivered");
    assert_eq!(report.snapshot.generation(), 0);
    assert_eq!(
        report.connector.outbound.tls,
        report.snapshot.config.connectors[0].outbound.tls
    );
    assert_eq!(outbound.running().load().generation(), 1);
}
