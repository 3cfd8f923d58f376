//! Hosts that are ourselves under another name or address (RFC 5321 §5.1).

use crate::support::deliveries::{World, connector, deliver, failure, message, outcome};
use crate::support::peer::{Manner, Nobody, Peer, Starttls};

fn plain() -> Manner {
    Manner::new(Starttls::NotOffered)
}

/// A host that greets with the name of the relay under test.
fn ourselves() -> Manner {
    Manner {
        greeting: "220 relay.example.com ESMTP",
        ..plain()
    }
}

fn by_mx(port: u16) -> String {
    connector(
        "partner",
        &["partner.example", "backup.example"],
        &format!("port = {port}\non_failure = \"bounce\""),
    )
}

/// We are the backup under another name, and the better host is down: the message waits for that.
#[tokio::test]
async fn a_greeting_with_our_name_never_bounces() {
    let world = World::new().await;
    let (_nobody, second) = Nobody::before(ourselves).await;
    let outbound = world.outbound(&by_mx(second.address.port()));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.4.1", "{report:?}");
    assert!(
        failure(&report, 0)
            .to_string()
            .starts_with("mx1.partner.example [127.0.0.1]"),
        "{report:?}"
    );
    assert!(
        report.trail[1]
            .to_string()
            .contains("greets with our own name"),
        "{report:?}"
    );
    let heard = second.heard_to_the_end().await;
    assert!(heard.len() == 1 && !heard[0].has("MAIL"), "{heard:?}");
    assert_eq!(heard[0].commands.last().map(String::as_str), Some("QUIT"));
}

/// Its mail would come to us from those behind it, too.
#[tokio::test]
async fn hosts_that_are_not_better_than_ourselves_are_left_out() {
    let world = World::new().await;
    let (first, second) = Peer::twins(ourselves(), plain()).await;
    let outbound = world.outbound(&by_mx(first.address.port()));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.4.6", "{report:?}");
    assert!(second.heard().is_empty(), "{:?}", second.heard());
    let (first, second) = Peer::twins(plain(), ourselves()).await;
    let outbound = world.outbound(&by_mx(first.address.port()));
    assert_eq!(
        outcome(
            &deliver(&outbound, message(&["b@partner.example"])).await,
            0
        ),
        "delivered"
    );
    assert!(second.heard().is_empty(), "{:?}", second.heard());
}

/// `[[listener]] address` is 127.0.0.1:2525 here: DNS proves the loop, and nobody is dialled.
#[tokio::test]
async fn the_best_host_at_our_own_address_is_a_loop() {
    let world = World::new().await;
    let outbound = world.outbound(&by_mx(2525));
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    assert_eq!(outcome(&report, 0), "bounced 5.4.6", "{report:?}");
    let text = failure(&report, 0).to_string();
    assert!(
        text.contains("loops back to myself") && text.contains("127.0.0.1:2525"),
        "{text}"
    );
    // Here it is the second best.
    let report = deliver(&outbound, message(&["b@backup.example"])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.4.1", "{report:?}");
    assert_eq!(report.trail.len(), 2, "{report:?}");
    assert!(
        report.trail[1].to_string().contains("is one of our own"),
        "{report:?}"
    );
}

/// An administrator may route to another relay of the same name.
#[tokio::test]
async fn a_smart_host_may_have_our_name() {
    let world = World::new().await;
    let peer = Peer::start(ourselves()).await;
    let route = format!("route = [\"mx.partner.example:{}\"]", peer.address.port());
    let outbound = world.outbound(&connector("partner", &["partner.example"], &route));
    assert_eq!(
        outcome(
            &deliver(&outbound, message(&["b@partner.example"])).await,
            0
        ),
        "delivered"
    );
}
