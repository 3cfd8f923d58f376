//! CRLs of distribution points: fetched over plain HTTP, checked, shared, kept and fetched again.

pub(crate) mod host;

mod files;
mod versions;

use gatepost::config::ProxyAddress;
use gatepost::net::dns::Dns;
use gatepost::net::https::PlainHttp;
use gatepost::net::revocation::{DistributionPoints, PointFiles};
use gatepost::relay::outbound::{AttemptResult, Outbound};
use gatepost::relay::running_config::RunningConfig;
use gatepost::relay::tlsrpt::Reporter;
use gatepost::smtp::address::Host;
use rcgen::CustomExtension;

use crate::support::certificates::{Authority, BOTH, Pair, pem, server_config};
use crate::support::crl::{WantedCrl, listing};
use crate::support::deliveries::{World, deliver, failure, message, outcome};
use crate::support::peer::{Manner, Peer, Starttls};
use host::{
    Answer, CrlHost, HOP, RECORDS, client, fetch_again, found, found_with, issued, points, status,
};

/// A relay that demands revocation of one peer, with these CRLs. The peer serves until it is dropped.
async fn relay(
    world: &World,
    pair: &Pair,
    revocation: &str,
    points: &DistributionPoints,
) -> (Outbound, Peer) {
    relay_with(
        world,
        pair,
        &format!("revocation = \"{revocation}\""),
        points,
    )
    .await
}

/// The same with these keys of the connector.
async fn relay_with(
    world: &World,
    pair: &Pair,
    keys: &str,
    points: &DistributionPoints,
) -> (Outbound, Peer) {
    let peer = Peer::start(Manner::new(Starttls::Tls(server_config(pair, BOTH).into()))).await;
    let connector = format!(
        "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n{keys}\n\
         [connector.outbound]\nroute = [\"{HOP}:{}\"]\ntls = \"forced\"\nverify = \"name\"\n",
        peer.address.port()
    );
    let snapshot = world.snapshot(&connector).with_points(points.clone());
    let outbound = Outbound::new(
        RunningConfig::new(snapshot),
        world.discovery(&world.folder()),
        Reporter::off(),
    );
    (outbound, peer)
}

async fn delivered(outbound: &Outbound) -> AttemptResult {
    deliver(outbound, message(&["b@partner.example"])).await
}

/// The outcome of one delivery.
async fn outcome_of(
    world: &World,
    pair: &Pair,
    revocation: &str,
    points: &DistributionPoints,
) -> String {
    let (outbound, _peer) = relay(world, pair, revocation, points).await;
    let report = delivered(&outbound).await;
    outcome(&report, 0).clone()
}

/// The failure of the only distribution point.
fn failure_of(points: &DistributionPoints) -> String {
    let all = points.summaries();
    let [point] = &all[..] else {
        panic!("one point: {all:?}")
    };
    point.failure.clone().unwrap_or_default()
}

#[tokio::test]
async fn a_crl_is_fetched_once_for_all_that_wait_and_decides() {
    let world = World::with(RECORDS).await;
    let authority = &world.authority;
    for is_revoked in [false, true] {
        let host = CrlHost::start(Answer::Silence).await;
        let pair = issued(
            authority,
            &["ldap://ldap.partner.example/cn=ca", &host.url()],
        );
        let revoked = [&pair.chain[0]];
        let crl = listing(authority, if is_revoked { &revoked } else { &[] });
        host.publish(found(&crl));
        let points = points(&world);
        let (outbound, _peer) = relay(&world, &pair, "required", &points).await;
        let (one, other) = tokio::join!(delivered(&outbound), delivered(&outbound));
        let expected = if is_revoked {
            "deferred 4.7.5"
        } else {
            "delivered"
        };
        for report in [one, other, delivered(&outbound).await] {
            assert_eq!(outcome(&report, 0), expected, "{report:?}");
            if is_revoked {
                let text = failure(&report, 0).to_string();
                assert!(
                    text.contains("the certificate was revoked on 2020-12-24"),
                    "{text}"
                );
            }
        }
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            host.heard(),
            [format!(
                "GET /ca.crl HTTP/1.1\r\nhost: crl.partner.example:{}\r\nuser-agent: Gatepost/{version}\r\n\r\n",
                host.port
            )]
        );
        assert_eq!(points.fetches(), (1, 0));
    }
}

/// The answer of the host; the reason. Under `required` nothing is sent, under `if-known` all is.
#[tokio::test]
async fn a_host_that_has_no_usable_crl_is_named_with_the_reason() {
    let world = World::with(RECORDS).await;
    let authority = &world.authority;
    let expired = WantedCrl {
        is_expired: true,
        ..WantedCrl::default()
    };
    let elsewhere = CrlHost::start(found(&listing(authority, &[]))).await;
    let moved = format!("302 Found\r\nLocation: {}", elsewhere.url());
    for (answer, reason) in [
        (status("404 Not Found"), "the host answered 404"),
        (
            status("304 Not Modified"),
            "the host answered 304; redirections are not followed",
        ),
        (
            status(&moved),
            "the host answered 302; redirections are not followed",
        ),
        (found(b"<html><body>Welcome"), "it is a web page, not a CRL"),
        (found(b""), "it is not a CRL in DER or PEM"),
        (
            Answer::Endless,
            "the response is longer than 16777216 octets",
        ),
        (
            Answer::Silence,
            "the head of the response took longer than 6s",
        ),
        (
            Answer::Octets(b"SSH-2.0-server\r\n".to_vec()),
            "invalid HTTP response",
        ),
        (
            found(&listing(&Authority::root("The Test Authority"), &[])),
            "its signature is not by the issuer of the certificate",
        ),
        (
            found(&listing(&Authority::root("Another"), &[])),
            "it is of another issuer (CN=Another)",
        ),
        (
            found(&expired.by(authority)),
            "it expired on 2021-02-01T00:00:00Z",
        ),
    ] {
        let host = CrlHost::start(answer).await;
        let pair = issued(authority, &[&host.url()]);
        let points = points(&world);
        let (outbound, _peer) = relay(&world, &pair, "required", &points).await;
        let report = delivered(&outbound).await;
        assert_eq!(
            outcome(&report, 0),
            "deferred 4.7.5",
            "{reason}: {report:?}"
        );
        let text = failure(&report, 0).to_string();
        assert!(!text.contains(reason), "a peer may read it: {text}");
        let failure = failure_of(&points);
        assert!(
            failure.starts_with(&host.url()) && failure.contains(reason),
            "{reason}: {failure}"
        );
        // It is not asked again at once.
        assert_eq!(
            outcome_of(&world, &pair, "if-known", &points).await,
            "delivered",
            "{reason}"
        );
        assert_eq!(host.requests(), 1, "{reason}");
    }
    assert_eq!(elsewhere.requests(), 0, "redirections are not followed");
}

/// Requests go to no service of this machine, and to no URL of another scheme.
#[tokio::test]
async fn only_http_urls_on_the_internet_are_asked() {
    let world = World::with(RECORDS).await;
    let host = CrlHost::start(found(&listing(&world.authority, &[]))).await;
    let dns = Dns::new(&world.config("").dns).expect("a resolver");
    for (url, reason) in [
        (
            host.url(),
            "the host is at 127.0.0.1, from where no CRL is fetched",
        ),
        (
            format!("http://127.0.0.1:{}/ca.crl", host.port),
            "the host of the URL is not a domain name",
        ),
        (
            format!("http://user@crl.partner.example:{}/ca.crl", host.port),
            "the host of the URL is not a domain name",
        ),
        (
            format!("http://localhost:{}/ca.crl", host.port),
            "localhost is no name of the Internet",
        ),
        (
            "http://crl.partner.example:25/ca.crl".to_owned(),
            "port 25 belongs to another service",
        ),
        (
            format!("https://crl.partner.example:{}/ca.crl", host.port),
            "",
        ),
        ("ldap://crl.partner.example/cn=ca".to_owned(), ""),
    ] {
        let pair = issued(&world.authority, &[&url]);
        let http = PlainHttp::new(dns.clone(), None);
        let points = DistributionPoints::new(PointFiles::none(), Box::new(http));
        let outcome = outcome_of(&world, &pair, "required", &points).await;
        assert_eq!(outcome, "deferred 4.7.5", "{url}");
        if reason.is_empty() {
            assert_eq!(
                (points.summaries(), points.fetches()),
                (vec![], (0, 0)),
                "{url}"
            );
        } else {
            let failure = failure_of(&points);
            assert!(failure.contains(reason), "{url}: {failure}");
        }
    }
    assert_eq!(host.requests(), 0);
}

/// Whoever has no certificate of a trusted authority makes the relay ask nobody, and so does a
/// connector without revocation.
#[tokio::test]
async fn a_stranger_or_a_connector_without_revocation_causes_no_request() {
    let world = World::with(RECORDS).await;
    let host = CrlHost::start(status("404 Not Found")).await;
    let strange = issued(&Authority::root("Stranger"), &[&host.url()]);
    let namesake = issued(&Authority::root("The Test Authority"), &[&host.url()]);
    let known = issued(&world.authority, &[&host.url()]);
    for (pair, revocation, expected) in [
        (&strange, "required", "deferred 4.7.5"),
        (&namesake, "required", "deferred 4.7.5"),
        (&strange, "if-known", "deferred 4.7.5"),
        (&known, "off", "delivered"),
    ] {
        let points = points(&world);
        assert_eq!(
            outcome_of(&world, pair, revocation, &points).await,
            expected
        );
        assert_eq!(points.fetches(), (0, 0));
        assert_eq!(points.summaries(), []);
    }
    assert_eq!(host.requests(), 0);
}

/// What a CRL lists stays refused when the CRL has expired, and when its host is gone.
#[tokio::test]
async fn a_revoked_certificate_stays_revoked_when_its_crl_has_expired() {
    let world = World::with(RECORDS).await;
    let host = CrlHost::start(Answer::Silence).await;
    let pair = issued(&world.authority, &[&host.url()]);
    let expired = WantedCrl {
        revoked: &[&pair.chain[0]],
        is_expired: true,
        ..WantedCrl::default()
    };
    host.publish(found(&expired.by(&world.authority)));
    let points = points(&world);
    let refused = "deferred 4.7.5";
    assert_eq!(
        outcome_of(&world, &pair, "if-known", &points).await,
        refused
    );
    host.publish(status("404 Not Found"));
    fetch_again(&world, &points).await;
    assert_eq!(points.fetches(), (1, 1));
    assert_eq!(
        outcome_of(&world, &pair, "if-known", &points).await,
        refused
    );
}

/// The CRLs that the host has one after the other; the outcome with each.
#[tokio::test]
async fn a_newer_crl_replaces_the_one_that_is_held_and_an_older_one_does_not() {
    let world = World::with(RECORDS).await;
    let host = CrlHost::start(Answer::Silence).await;
    let pair = issued(&world.authority, &[&host.url()]);
    let points = points(&world);
    let of_day = |day, revoked: &[&_]| {
        let wanted = WantedCrl {
            revoked,
            day,
            ..WantedCrl::default()
        };
        found(&wanted.by(&world.authority))
    };
    let own = &pair.chain[0];
    host.publish(of_day(5, &[]));
    assert_eq!(
        outcome_of(&world, &pair, "required", &points).await,
        "delivered"
    );
    for (day, revoked, expected, fault) in [
        (9, &[own][..], "deferred 4.7.5", ""),
        (
            8,
            &[],
            "deferred 4.7.5",
            "it was issued on 2021-01-08T00:00:00Z, before the one that is held (2021-01-09T00:00:00Z)",
        ),
        (9, &[own], "deferred 4.7.5", ""),
        (10, &[], "delivered", ""),
    ] {
        host.publish(of_day(day, revoked));
        fetch_again(&world, &points).await;
        let failure = failure_of(&points);
        assert!(
            failure.ends_with(fault) && failure.is_empty() == fault.is_empty(),
            "{failure}"
        );
        assert_eq!(
            outcome_of(&world, &pair, "required", &points).await,
            expected,
            "{day}"
        );
    }
}

/// The second request has the version of the first response, and 304 keeps the CRL in use.
#[tokio::test]
async fn a_crl_that_has_not_changed_is_not_transferred_again() {
    let world = World::with(RECORDS).await;
    let fields = "ETag: \"5f3-1\"\r\nLast-Modified: Fri, 01 Jan 2021 00:00:00 GMT\r\n";
    let host = CrlHost::start(found_with(fields, &listing(&world.authority, &[]))).await;
    let pair = issued(&world.authority, &[&host.url()]);
    let points = points(&world);
    assert_eq!(
        outcome_of(&world, &pair, "required", &points).await,
        "delivered"
    );
    host.publish(status("304 Not Modified"));
    fetch_again(&world, &points).await;
    let heard = host.heard();
    assert!(!heard[0].contains("if-"), "{heard:?}");
    for line in [
        "if-none-match: \"5f3-1\"\r\n",
        "if-modified-since: Fri, 01 Jan 2021 00:00:00 GMT\r\n",
    ] {
        assert!(heard[1].contains(line), "{heard:?}");
    }
    assert_eq!(
        (failure_of(&points), points.fetches()),
        (String::new(), (2, 0))
    );
    assert_eq!(
        outcome_of(&world, &pair, "required", &points).await,
        "delivered"
    );
    assert_eq!(host.requests(), 2);
}

/// A CRL of some reasons alone, or of another issuer, says nothing that Gatepost could use
/// (RFC 5280 §4.2.1.13).
#[tokio::test]
async fn points_of_some_reasons_or_of_another_issuer_are_not_asked() {
    let world = World::with(RECORDS).await;
    let host = CrlHost::start(found(&listing(&world.authority, &[]))).await;
    let some_reasons = field(0x81, &[6, 0x40]);
    let name = [&[6, 3, 0x55, 4, 3][..], &field(0x0c, b"other")].concat();
    let name = field(0x30, &field(0x31, &field(0x30, &name)));
    let other_issuer = field(0xa2, &field(0xa4, &name));
    for (more, expected) in [
        (some_reasons, ("deferred 4.7.5", 0)),
        (other_issuer, ("deferred 4.7.5", 0)),
        (Vec::new(), ("delivered", 1)),
    ] {
        let url = field(0xa0, &field(0xa0, &field(0x86, host.url().as_bytes())));
        let points_der = field(0x30, &field(0x30, &[url, more].concat()));
        let pair = world.authority.issue_as(&[HOP], |params| {
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 31], points_der);
            params.custom_extensions.push(extension);
        });
        let points = points(&world);
        let outcome = outcome_of(&world, &pair, "required", &points).await;
        assert_eq!((&*outcome, host.requests()), expected);
    }
}

/// Returns a field of DER.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("short");
    let length = if length < 0x80 {
        vec![length]
    } else {
        vec![0x81, length]
    };
    [vec![tag], length, content.to_vec()].concat()
}

/// A partner's certificate that names the distribution point of another partner's authority keeps
/// nobody from that.
#[tokio::test]
async fn two_issuers_at_one_url_do_not_disturb_each_other() {
    let world = World::with(RECORDS).await;
    let host = CrlHost::start(found(&listing(&world.authority, &[]))).await;
    let pair = issued(&world.authority, &[&host.url()]);
    let issuing = world.authority.intermediate("Meddler");
    let meddler = issued(&issuing, &[&host.url()]);
    let points = points(&world);
    assert_eq!(
        outcome_of(&world, &meddler, "required", &points).await,
        "deferred 4.7.5"
    );
    assert_eq!(
        outcome_of(&world, &pair, "required", &points).await,
        "delivered"
    );
    assert_eq!(
        outcome_of(&world, &meddler, "required", &points).await,
        "deferred 4.7.5"
    );
    let failures: Vec<_> = points
        .summaries()
        .into_iter()
        .map(|point| point.failure.is_some())
        .collect();
    assert!(
        failures.contains(&true) && failures.contains(&false),
        "{failures:?}"
    );
    assert_eq!(points.fetches(), (1, 1));
}

#[tokio::test]
async fn the_second_url_is_asked_where_the_first_fails_and_the_third_never() {
    let world = World::with(RECORDS).await;
    let missing = CrlHost::start(status("404 Not Found")).await;
    let good = CrlHost::start(found(&listing(&world.authority, &[]))).await;
    for (urls, expected, requests) in [
        ([missing.url(), good.url(), good.url()], "delivered", (1, 1)),
        (
            [missing.url(), missing.url(), good.url()],
            "deferred 4.7.5",
            (2, 0),
        ),
    ] {
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        let pair = issued(&world.authority, &urls);
        let before = (missing.requests(), good.requests());
        let points = points(&world);
        assert_eq!(
            outcome_of(&world, &pair, "required", &points).await,
            expected
        );
        let asked = (missing.requests() - before.0, good.requests() - before.1);
        assert_eq!(asked, requests);
    }
}

/// The name is in no DNS: the proxy looks it up. The proxy gets the complete URL.
#[tokio::test]
async fn a_proxy_is_asked_for_the_complete_url() {
    let world = World::with("mx.partner.example A 127.0.0.1").await;
    let proxy = CrlHost::start(found(&listing(&world.authority, &[]))).await;
    let http = || {
        let address = ProxyAddress {
            host: Host::parse("[127.0.0.1]").expect("an address"),
            port: proxy.port,
        };
        client(&world, Some(address))
    };
    let pair = issued(&world.authority, &["http://crl.elsewhere.example/ca.crl"]);
    let points = DistributionPoints::new(PointFiles::none(), Box::new(http()));
    assert_eq!(
        outcome_of(&world, &pair, "required", &points).await,
        "delivered"
    );
    let head =
        "GET http://crl.elsewhere.example/ca.crl HTTP/1.1\r\nhost: crl.elsewhere.example\r\n";
    assert!(proxy.heard()[0].starts_with(head), "{:?}", proxy.heard());

    proxy.publish(status("407 Proxy Authentication Required"));
    let points = DistributionPoints::new(PointFiles::none(), Box::new(http()));
    assert_eq!(
        outcome_of(&world, &pair, "required", &points).await,
        "deferred 4.7.5"
    );
    let failure = failure_of(&points);
    assert!(
        failure.contains("the proxy demands a login (407)"),
        "{failure}"
    );
    // The names of the proxy's own machine are not asked for.
    let local = issued(&world.authority, &["http://localhost:8080/ca.crl"]);
    let points = DistributionPoints::new(PointFiles::none(), Box::new(http()));
    assert_eq!(
        outcome_of(&world, &local, "required", &points).await,
        "deferred 4.7.5"
    );
    assert_eq!(proxy.requests(), 2);
}

/// A certificate that `trust` lists itself, and whose issuer is missing: a CRL of its issuer's name
/// counts only if the administrator has put it into `crl`.
#[tokio::test]
async fn a_fetched_crl_of_a_namesake_revokes_no_listed_certificate() {
    let world = World::with(RECORDS).await;
    let listed = Authority::root("The Test Authority").issue(&[HOP]);
    let host = CrlHost::start(found(&listing(&world.authority, &[&listed.chain[0]]))).await;
    let points = points(&world);
    let pair = issued(&world.authority, &[&host.url()]);
    assert_eq!(
        outcome_of(&world, &pair, "required", &points).await,
        "delivered"
    );
    assert_eq!(points.fetches(), (1, 0));
    let file = world.folder().join("listed.pem");
    std::fs::write(&file, pem("CERTIFICATE", &listed.chain[0])).expect("the folder is ours");
    for (revocation, expected) in [("if-known", "delivered"), ("required", "deferred 4.7.5")] {
        let keys = format!(
            "trust = \"{}\"\nrevocation = \"{revocation}\"",
            file.display()
        );
        let (outbound, _peer) = relay_with(&world, &listed, &keys, &points).await;
        let report = delivered(&outbound).await;
        assert_eq!(outcome(&report, 0), expected, "{revocation}: {report:?}");
        if revocation == "required" {
            let text = failure(&report, 0).to_string();
            let reason = "since the certificate of its issuer is missing";
            assert!(text.contains(reason), "{text}");
        }
    }
}
