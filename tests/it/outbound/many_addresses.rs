//! Second tries with hosts of many addresses.

use std::fmt::Write as _;

use super::second_try::{FORCED, HOP, HYBRID, NAMELESS, OPPORTUNISTIC, TO, hellos, manner, send};
use crate::support::deliveries::{World, connector, deliver, message, outcome};
use crate::support::peer::Peer;
use crate::support::picky::{Does, Over};

/// The second tries of an attempt count as connections to further addresses do.
#[tokio::test]
async fn a_host_with_many_addresses_that_breaks_each_handshake_costs_an_attempt_no_more_than_before()
 {
    let mut records = String::new();
    for host in 1..=6 {
        writeln!(
            records,
            "partner.example MX {host} mx{host}.partner.example"
        )
        .expect("a String grows");
        for number in 1..=10 {
            writeln!(records, "mx{host}.partner.example A 127.0.{host}.{number}")
                .expect("a String grows");
        }
    }
    let world = World::with(&records).await;
    let peer = Peer::everywhere(manner(
        &world.authority.issue(&[HOP]),
        Over::Every,
        Does::Resets,
    ))
    .await;
    let policy = format!("port = {}\n{FORCED}", peer.address.port());
    let outbound = world.outbound(&connector("partner", &["partner.example"], &policy));
    let report = deliver(&outbound, message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5");
    let heard = peer.heard_to_the_end().await;
    assert_eq!(heard.len(), 50);
    assert!(heard.iter().all(|heard| !heard.has("MAIL")));
    assert_eq!(report.trail.len(), 25, "{:?}", report.trail);
}

/// With several addresses each has its part of the time of an attempt.
#[tokio::test]
async fn two_handshakes_that_are_swallowed_leave_time_for_clear_text() {
    let mut records = String::from("partner.example MX 10 mx.partner.example\n");
    for number in 1..=4 {
        writeln!(records, "{HOP} A 127.0.9.{number}").expect("a String grows");
    }
    let world = World::with(&records).await;
    let peer = Peer::everywhere(manner(
        &world.authority.issue(&[HOP]),
        Over::Every,
        Does::Swallows,
    ))
    .await;
    let policy = format!("port = {}\n{OPPORTUNISTIC}", peer.address.port());
    let connectors = connector("partner", &["partner.example"], &policy);
    let outbound = world.outbound(&format!(
        "{connectors}[limits]\ndelivery_attempt_time = \"12s\"\n"
    ));
    send(&outbound).await;
    outbound.close();
    let heard = peer.heard_to_the_end().await;
    assert_eq!((heard.len(), hellos(&heard)), (3, vec![HYBRID, NAMELESS]));
}
