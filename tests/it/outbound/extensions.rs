//! Messages that need an extension which a peer does not offer.

use gatepost::smtp::address::Mailbox;
use gatepost::smtp::envelope::BodyType;

use super::delivery::{plain, smart_hosts};
use crate::support::certificates::{BOTH, server_config};
use crate::support::deliveries::{World, connector, deliver, message, outcome};
use crate::support::peer::{Manner, Nobody, Peer, Starttls};

#[tokio::test]
async fn what_a_peer_cannot_take_is_tried_elsewhere_and_then_bounced() {
    let world = World::new().await;
    let small = || Manner {
        keywords: &["PIPELINING", "SIZE 10"],
        ..plain()
    };
    let mut eight_bit = message(&["b@partner.example"]);
    eight_bit.envelope.needs.eight_bit = true;
    eight_bit.envelope.body = BodyType::EightBitMime;
    let mut utf8 = message(&["b@partner.example"]);
    utf8.envelope.needs.utf8_header = true;
    for (entry, manner, ends) in [
        (message(&["b@partner.example"]), small(), "bounced 5.3.4"),
        (
            eight_bit,
            Manner {
                keywords: &["PIPELINING"],
                ..plain()
            },
            "bounced 5.6.3",
        ),
        (utf8, plain(), "bounced 5.6.7"),
    ] {
        let able = Manner {
            keywords: &["SIZE", "SMTPUTF8", "8BITMIME"],
            ..plain()
        };
        let (first, second) = (Peer::start(manner).await, Peer::start(able).await);
        let alone = world.outbound(&smart_hosts(&[&first]));
        assert_eq!(outcome(&deliver(&alone, entry.clone()).await, 0), ends);
        let both = world.outbound(&smart_hosts(&[&first, &second]));
        let report = deliver(&both, entry).await;
        assert_eq!(
            (outcome(&report, 0).as_str(), report.trail.len()),
            ("delivered", 1)
        );
        alone.close();
        both.close();
        assert!(
            first
                .heard_to_the_end()
                .await
                .iter()
                .all(|heard| !heard.has("MAIL")),
            "MAIL was said for nothing"
        );
    }
}

/// The host that is down may be the one that can take it.
#[tokio::test]
async fn what_a_peer_cannot_take_waits_for_the_host_that_could_not_be_asked() {
    let world = World::new().await;
    let small = || Manner {
        keywords: &["PIPELINING", "SIZE 10"],
        ..plain()
    };
    let nobody = Nobody::at([127, 0, 0, 1]);
    let busy = Peer::start(plain().answer("RCPT", "450 4.2.1 later")).await;
    let (first, second) = (Peer::start(small()).await, Peer::start(small()).await);
    for (hosts, ends) in [
        (
            [nobody.address, first.address, second.address],
            "deferred 4.3.4",
        ),
        (
            [first.address, nobody.address, second.address],
            "deferred 4.3.4",
        ),
        (
            [first.address, second.address, nobody.address],
            "deferred 4.3.4",
        ),
        (
            [busy.address, first.address, second.address],
            "deferred 4.3.4",
        ),
        (
            [first.address, second.address, first.address],
            "bounced 5.3.4",
        ),
    ] {
        let route = hosts.map(|address| format!("mx.partner.example:{}", address.port()));
        let policy = format!("route = {route:?}\ntls = \"opportunistic\"");
        let outbound = world.outbound(&connector("partner", &["partner.example"], &policy));
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), ends, "{report:?}");
    }
}

/// The host that could take it does not meet the policy: what becomes of that is the
/// administrator's to say.
#[tokio::test]
async fn what_a_peer_cannot_take_leaves_a_policy_that_is_not_met_to_on_failure() {
    let world = World::new().await;
    let pair = world.authority.issue(&["mx.partner.example"]);
    let small = Manner::new(Starttls::Tls(server_config(&pair, BOTH).into()));
    let small = Peer::start(Manner {
        keywords: &["SIZE 10"],
        ..small
    })
    .await;
    let clear = Peer::start(plain()).await;
    for (on_failure, ends) in [
        ("defer", "deferred 4.7.4"),
        ("hold", "held 4.7.4"),
        ("bounce", "bounced 5.7.4"),
    ] {
        for peers in [[&small, &clear], [&clear, &small]] {
            let more = format!("verify = \"none\"\non_failure = \"{on_failure}\"");
            let forced =
                smart_hosts(&peers).replace("opportunistic\"", &format!("forced\"\n{more}"));
            let report = deliver(&world.outbound(&forced), message(&["b@partner.example"])).await;
            assert_eq!(outcome(&report, 0), ends, "{report:?}");
            assert!(
                report.trail.len() == 2 && clear.heard().iter().all(|heard| !heard.has("MAIL")),
                "{report:?}"
            );
        }
    }
}

/// A host has said so with one of its addresses, whichever is asked first.
#[tokio::test]
async fn what_a_host_cannot_take_is_final_though_another_address_of_it_is_dead() {
    let world = World::new().await;
    let small = || Manner {
        keywords: &["PIPELINING", "SIZE 10"],
        ..plain()
    };
    let first = Peer::start(small()).await;
    let (_nobody, second) = Nobody::before(small).await;
    for port in [first.address.port(), second.address.port()] {
        let policy = format!("route = [\"two.partner.example:{port}\"]\ntls = \"opportunistic\"");
        let outbound = world.outbound(&connector("partner", &["partner.example"], &policy));
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        assert_eq!(outcome(&report, 0), "bounced 5.3.4", "{report:?}");
    }
}

/// A host's answer for one recipient counts for no other.
#[tokio::test]
async fn what_no_host_can_take_bounces_whatever_becomes_of_others() {
    let world = World::new().await;
    let later = || plain().answer("RCPT TO:<later@", "450 4.2.1 later");
    let (first, second) = (Peer::start(later()).await, Peer::start(later()).await);
    let outbound = world.outbound(&smart_hosts(&[&first, &second]));
    let mut entry = message(&["later@partner.example", "u@partner.example"]);
    entry.envelope.recipients[1].mailbox =
        Mailbox::parse("jürgen@partner.example").expect("a mailbox");
    let report = deliver(&outbound, entry).await;
    assert_eq!(
        [outcome(&report, 0), outcome(&report, 1)],
        ["deferred 4.2.1", "bounced 5.6.7"],
        "{report:?}"
    );
}

#[tokio::test]
async fn only_the_recipient_that_needs_smtputf8_fails_without_it() {
    let world = World::new().await;
    let peer = Peer::start(plain()).await;
    let outbound = world.outbound(&smart_hosts(&[&peer]));
    let mut entry = message(&["b@partner.example", "c@partner.example"]);
    entry.envelope.recipients[1].mailbox =
        Mailbox::parse("jürgen@partner.example").expect("a mailbox");
    let report = deliver(&outbound, entry).await;
    assert_eq!(
        [outcome(&report, 0), outcome(&report, 1)],
        ["delivered", "bounced 5.6.7"]
    );
}
