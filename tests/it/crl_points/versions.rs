//! The version of a CRL that is held, by which its host recognises that nothing has changed.

use super::host::{CrlHost, RECORDS, fetch_again, found, found_with, issued, points, status};
use super::outcome_of;
use crate::support::crl::{WantedCrl, listing};
use crate::support::deliveries::World;

/// A host that answered 304 about an expired CRL would keep it in use.
#[tokio::test]
async fn a_crl_that_has_expired_is_transferred_again() {
    let world = World::with(RECORDS).await;
    let expired = WantedCrl {
        is_expired: true,
        ..WantedCrl::default()
    };
    let expired = expired.by(&world.authority);
    let host = CrlHost::start(found_with("ETag: \"1\"\r\n", &expired)).await;
    let pair = issued(&world.authority, &[&host.url()]);
    let points = points(&world);
    assert_eq!(
        outcome_of(&world, &pair, "required", &points).await,
        "deferred 4.7.5"
    );
    host.publish(found(&listing(&world.authority, &[])));
    fetch_again(&world, &points).await;
    assert_eq!(
        outcome_of(&world, &pair, "required", &points).await,
        "delivered"
    );
    let heard = host.heard();
    assert!(
        heard.len() == 2 && heard.iter().all(|head| !head.contains("if-")),
        "{heard:?}"
    );
}

/// Two URLs may have the same version of different content.
#[tokio::test]
async fn a_version_is_named_to_the_url_that_it_came_from_alone() {
    let world = World::with(RECORDS).await;
    let crl = listing(&world.authority, &[]);
    let first = CrlHost::start(found_with("ETag: \"1\"\r\n", &crl)).await;
    let second = CrlHost::start(found_with("ETag: \"2\"\r\n", &crl)).await;
    let pair = issued(&world.authority, &[&first.url(), &second.url()]);
    let points = points(&world);
    assert_eq!(
        outcome_of(&world, &pair, "required", &points).await,
        "delivered"
    );
    first.publish(status("404 Not Found"));
    fetch_again(&world, &points).await;
    fetch_again(&world, &points).await;
    let named = |host: &CrlHost| -> Vec<bool> {
        let heard = host.heard();
        heard.iter().map(|head| head.contains("if-")).collect()
    };
    assert_eq!(
        (named(&first), named(&second)),
        (vec![false, true, false], vec![false, false])
    );
}
