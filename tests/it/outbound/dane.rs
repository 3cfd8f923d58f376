//! Deliveries to domains with TLSA records (RFC 7672): who gets the message, and who never hears of
//! it.

use gatepost::discovery::history::TlsLevel;
use gatepost::smtp::address::Host;
use hickory_resolver::proto::rr::RecordType;
use jiff::Timestamp;

use crate::support::certificates::{Authority, BOTH, Pair, self_signed, server_config};
use crate::support::deliveries::{connector, deliver, failure, message, outcome};
use crate::support::internet::{
    Internet, assert_heard_nothing_of_mail, in_clear, known_as, one_host, shows, tls, tlsa,
};
use crate::support::peer::{Manner, Peer, Starttls};
use crate::support::uncheckable::{self, RSA_1024};
use crate::support::zones::{Fault, Kind};

const DOMAIN: &str = "good.example";
const HOST: &str = "mx.good.example";
const TO: &str = "b@good.example";

fn own(name: &str) -> Pair {
    self_signed(&[name], |_| {})
}

/// The domain with one host that has these TLSA records.
async fn internet(records: &str) -> Internet {
    let zones = [(DOMAIN, Kind::Signed, one_host(DOMAIN) + records)];
    Internet::new(Authority::root("Test"), &zones, &[]).await
}

#[tokio::test]
async fn the_certificate_of_the_record_is_enough() {
    let pair = own("anything.example");
    let peer = shows(&pair).await;
    let internet = internet(&tlsa(HOST, &peer, &pair)).await;
    let outbound = internet.outbound(&peer, "");
    let report = deliver(&outbound, message(&[TO])).await;
    assert_eq!(
        (outcome(&report, 0).as_str(), report.trail.len()),
        ("delivered", 0),
        "{report:?}"
    );
    assert!(
        known_as(&report).starts_with("authenticated by DANE (3 0 1 "),
        "{}",
        known_as(&report)
    );
    let commands = &peer.heard()[0].commands;
    let at = |word: &str| {
        commands
            .iter()
            .position(|line| line.starts_with(word))
            .expect("it was said")
    };
    assert!(at("(TLS)") < at("MAIL"), "{commands:?}");
    let best = outbound
        .discovery()
        .history()
        .best(&host(DOMAIN), &host(HOST), Timestamp::now());
    assert_eq!(best.map(|best| best.level), Some(TlsLevel::Dane));
}

fn host(name: &str) -> Host {
    Host::parse(name).expect(name)
}

#[tokio::test]
async fn another_certificate_hears_nothing_however_trusted_it_is() {
    let authority = Authority::root("Test");
    let (pair, published) = (authority.issue(&[HOST]), own(HOST));
    let peer = shows(&pair).await;
    let zones = [(
        DOMAIN,
        Kind::Signed,
        one_host(DOMAIN) + &tlsa(HOST, &peer, &published),
    )];
    let internet = Internet::new(authority, &zones, &[]).await;
    let report = deliver(&internet.outbound(&peer, ""), message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5");
    let text = failure(&report, 0).to_string();
    assert!(
        text.starts_with(&format!("{HOST} [127.0.0.1]:{}: ", peer.address.port())),
        "{text}"
    );
    assert!(
        text.contains("DANE") && text.contains("is not the one that the TLSA record names"),
        "{text}"
    );
    assert_eq!(peer.heard().len(), 1);
    assert_heard_nothing_of_mail(&peer).await;
}

/// Anybody can show the certificate of the record: without its key it is nobody's.
#[tokio::test]
async fn the_certificate_of_the_record_with_a_key_that_cannot_be_checked_is_not_enough() {
    let pair = Pair {
        chain: vec![uncheckable::certificate(RSA_1024)],
        key: Vec::new(),
    };
    let peer = Peer::start(Manner::new(Starttls::Tls(
        uncheckable::server(RSA_1024, BOTH).into(),
    )))
    .await;
    let internet = internet(&tlsa(HOST, &peer, &pair)).await;
    let report = deliver(&internet.outbound(&peer, ""), message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5");
    let text = failure(&report, 0).to_string();
    assert!(
        text.contains("its key cannot be checked (RSA key of 1024 bits)"),
        "{text}"
    );
    assert_heard_nothing_of_mail(&peer).await;
}

#[tokio::test]
async fn a_host_without_starttls_hears_nothing() {
    let peer = in_clear().await;
    let internet = internet(&tlsa(HOST, &peer, &own(HOST))).await;
    let report = deliver(&internet.outbound(&peer, ""), message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.4");
    assert_heard_nothing_of_mail(&peer).await;
}

/// RFC 7672 §2.2: secure records of which none can be used still say that there is TLS.
#[tokio::test]
async fn unusable_records_demand_tls_without_authentication() {
    let pair = own("anything.example");
    for (peer, ends) in [
        (shows(&pair).await, "delivered"),
        (in_clear().await, "deferred 4.7.4"),
    ] {
        let record = tlsa(HOST, &peer, &pair).replace("TLSA 3 0 1", "TLSA 1 0 1");
        let internet = internet(&record).await;
        let report = deliver(&internet.outbound(&peer, ""), message(&[TO])).await;
        assert_eq!(outcome(&report, 0), ends, "{report:?}");
        assert_eq!(peer.messages().len(), usize::from(ends == "delivered"));
    }
}

#[tokio::test]
async fn a_domain_that_proves_to_have_no_records_gets_what_it_got_before() {
    let peer = in_clear().await;
    let internet = internet("").await;
    let report = deliver(&internet.outbound(&peer, ""), message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "delivered");
    let name = format!("_{}._tcp.{HOST}", peer.address.port());
    assert_eq!(internet.names.asked(&name, RecordType::TLSA), 1);
}

/// Two hosts of one domain, at 127.0.0.1 and 127.0.0.2, on the same port; the second has good
/// records.
async fn two_hosts(broken: Option<Fault>) -> (Internet, Peer, Peer) {
    let pair = own("anything.example");
    let (first, second) = Peer::twins(tls(&pair), tls(&pair)).await;
    let mut records = "good.example MX 10 mx1.good.example\ngood.example MX 20 mx2.good.example\n\
                       mx1.good.example A 127.0.0.1\nmx2.good.example A 127.0.0.2\n"
        .to_owned();
    records += &tlsa("mx2.good.example", &second, &pair);
    let mut zones = vec![(DOMAIN, Kind::Signed, records)];
    if broken.is_none() {
        // In a zone whose signatures are over.
        zones.push((
            "_tcp.mx1.good.example",
            Kind::Expired,
            tlsa("mx1.good.example", &first, &pair),
        ));
    }
    let internet = Internet::new(Authority::root("Test"), &zones, &[]).await;
    if let Some(fault) = broken {
        internet.names.fail("_tcp.mx1.good.example", None, fault);
    }
    (internet, first, second)
}

#[tokio::test]
async fn a_host_whose_records_cannot_be_had_is_passed_over() {
    for broken in [None, Some(Fault::ServFail), Some(Fault::Refused)] {
        let (internet, first, second) = two_hosts(broken).await;
        let outbound = internet.outbound(&first, "");
        let report = deliver(&outbound, message(&[TO])).await;
        assert_eq!(
            (outcome(&report, 0).as_str(), report.trail.len()),
            ("delivered", 1),
            "{broken:?} {report:?}"
        );
        assert!(known_as(&report).starts_with("authenticated by DANE"));
        assert!(
            first.heard().is_empty(),
            "{broken:?}: nobody dials a host whose records are not known"
        );
        assert_eq!(second.messages().len(), 1);
    }
}

#[tokio::test]
async fn a_lookup_that_hangs_ends_and_holds_up_no_other_host() {
    let (internet, first, second) = two_hosts(Some(Fault::Silence)).await;
    let outbound = internet.outbound(&first, "");
    let hangs = deliver(&outbound, message(&[TO]));
    tokio::pin!(hangs);
    // The second host is known by its own domain as well.
    tokio::select! {
        biased;
        report = &mut hangs => panic!("that was first: {report:?}"),
        report = deliver(&outbound, message(&["b@mx2.good.example"])) => {
            assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
        }
    }
    let report = hangs.await;
    assert_eq!(
        (outcome(&report, 0).as_str(), report.trail.len()),
        ("delivered", 1),
        "{report:?}"
    );
    assert!(
        report.trail[0].to_string().starts_with("mx1.good.example:"),
        "{report:?}"
    );
    assert!(first.heard().is_empty());
    assert_eq!(second.messages().len(), 2);
}

#[tokio::test]
async fn where_no_other_host_is_left_the_message_waits_and_the_host_is_named() {
    for broken in [None, Some(Fault::ServFail)] {
        let (internet, first, second) = two_hosts(broken).await;
        internet
            .names
            .fail("_tcp.mx2.good.example", None, Fault::ServFail);
        let report = deliver(
            &internet.outbound(&first, "on_failure = \"bounce\""),
            message(&[TO]),
        )
        .await;
        assert_eq!(
            (outcome(&report, 0).as_str(), report.trail.len()),
            ("deferred 4.7.5", 2),
            "{report:?}"
        );
        let told: Vec<String> = report.trail.iter().map(ToString::to_string).collect();
        for (host, text) in ["mx1.good.example:", "mx2.good.example:"].iter().zip(&told) {
            assert!(
                text.starts_with(host) && text.contains("TLSA lookup"),
                "{told:?}"
            );
        }
        assert!(first.heard().is_empty() && second.heard().is_empty());
    }
}

/// RFC 7672 §2.2.1: anybody could have named the host, so DANE says who it is and not whose.
#[tokio::test]
async fn unsigned_mx_records_to_a_host_with_records_are_held_to_them_and_remembered_as_less() {
    let (pair, other) = (own("anything.example"), own(HOST));
    for (shown, ends) in [(&pair, "delivered"), (&other, "deferred 4.7.5")] {
        let peer = shows(shown).await;
        let zones = [
            (
                DOMAIN,
                Kind::Signed,
                one_host(DOMAIN) + &tlsa(HOST, &peer, &pair),
            ),
            (
                "plain.example",
                Kind::Unsigned,
                format!("plain.example MX 10 {HOST}"),
            ),
        ];
        let internet = Internet::new(Authority::root("Test"), &zones, &[]).await;
        let outbound = internet.outbound(&peer, "");
        let report = deliver(&outbound, message(&["b@plain.example"])).await;
        assert_eq!(outcome(&report, 0), ends, "{report:?}");
        let best = outbound.discovery().history().best(
            &host("plain.example"),
            &host(HOST),
            Timestamp::now(),
        );
        if ends == "delivered" {
            let via = report.results[0].via.as_ref().expect("a session");
            let authentication = format!("{:?}", via.clearance.authentication());
            assert!(authentication.contains("scope: Host"), "{authentication}");
            assert_eq!(best.map(|best| best.level), Some(TlsLevel::Verified));
        } else {
            assert_heard_nothing_of_mail(&peer).await;
        }
    }
}

#[tokio::test]
async fn mandatory_dane_dials_nobody_without_records() {
    let pair = own(HOST);
    let forced = "tls = \"forced\"\nverify = \"dane\"";
    for (kind, words) in [
        (Kind::Signed, "DNSSEC proves that"),
        (
            Kind::Unsigned,
            "the MX records of good.example are not signed with DNSSEC",
        ),
    ] {
        let peer = shows(&pair).await;
        let zones = [(DOMAIN, kind, one_host(DOMAIN))];
        let internet = Internet::new(Authority::root("Test"), &zones, &[]).await;
        let report = deliver(&internet.outbound(&peer, forced), message(&[TO])).await;
        assert_eq!(outcome(&report, 0), "deferred 4.7.5");
        assert!(
            failure(&report, 0).to_string().contains(words),
            "{}",
            failure(&report, 0)
        );
        assert!(peer.heard().is_empty());
    }
    let peer = shows(&pair).await;
    let internet = internet(&tlsa(HOST, &peer, &pair)).await;
    assert_eq!(
        outcome(
            &deliver(&internet.outbound(&peer, forced), message(&[TO])).await,
            0
        ),
        "delivered"
    );
}

/// Whoever forges unsigned MX records names a signed host of his own: mandatory DANE means the
/// domain. What the domain publishes raises the demand all the same (RFC 7672 §2.2.1), and a route
/// of the connector's own is trusted.
#[tokio::test]
async fn mandatory_dane_is_not_content_with_a_host_that_unsigned_mx_records_name() {
    const PLAIN: &str = "b@plain.example";
    let pair = own(HOST);
    let peer = shows(&pair).await;
    let zones = [
        (
            "plain.example",
            Kind::Unsigned,
            format!("plain.example MX 10 {HOST}\n"),
        ),
        (
            DOMAIN,
            Kind::Signed,
            one_host(DOMAIN) + &tlsa(HOST, &peer, &pair),
        ),
    ];
    let internet = Internet::new(Authority::root("Test"), &zones, &[]).await;
    let forced = "tls = \"forced\"\nverify = \"dane\"";
    let report = deliver(&internet.outbound(&peer, forced), message(&[PLAIN])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5");
    let text = failure(&report, 0).to_string();
    let words = "TLS authenticated by DANE is demanded, but the MX records of plain.example are not signed with DNSSEC, \
                 so that the host may be anybody's";
    assert!(text.contains(words), "{text}");
    assert!(peer.heard().is_empty());
    let route = format!("route = [\"{HOST}:{}\"]\n{forced}", peer.address.port());
    let routed = internet
        .world
        .outbound(&connector("plain", &["plain.example"], &route));
    for outbound in [routed, internet.outbound(&peer, "")] {
        let report = deliver(&outbound, message(&[PLAIN])).await;
        assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
        assert!(
            known_as(&report).starts_with("authenticated by DANE"),
            "{}",
            known_as(&report)
        );
    }
}

#[tokio::test]
async fn who_does_not_discover_does_not_ask() {
    let peer = in_clear().await;
    let internet = internet(&tlsa(HOST, &peer, &own(HOST))).await;
    let report = deliver(
        &internet.outbound(&peer, "discover = [\"mta-sts\"]"),
        message(&[TO]),
    )
    .await;
    assert_eq!(outcome(&report, 0), "delivered");
    assert_eq!(
        internet.names.asked(
            &format!("_{}._tcp.{HOST}", peer.address.port()),
            RecordType::TLSA
        ),
        0
    );
}

/// A certificate that is shown only to who asks for its name.
fn only_for(name: &str, pair: &Pair) -> Manner {
    let mut names = rustls::server::ResolvesServerCertUsingSni::new();
    names
        .add(name, pair.certified())
        .expect("the certificate is for the name");
    let mut config = server_config(pair, BOTH);
    config.cert_resolver = std::sync::Arc::new(names);
    Manner::new(Starttls::Tls(config.into()))
}

/// RFC 7672 §8.1: the name that the TLSA records stand under is the one that the host is asked for.
#[tokio::test]
async fn the_host_behind_an_alias_is_asked_for_by_the_name_that_has_the_records() {
    const REAL: &str = "real.good.example";
    let pair = own(REAL);
    let peer = Peer::start(only_for(REAL, &pair)).await;
    let records = format!("{DOMAIN} MX 10 {HOST}\n{HOST} CNAME {REAL}\n{REAL} A 127.0.0.1\n")
        + &tlsa(REAL, &peer, &pair);
    let internet = Internet::new(
        Authority::root("Test"),
        &[(DOMAIN, Kind::Signed, records)],
        &[],
    )
    .await;
    let report = deliver(&internet.outbound(&peer, ""), message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
}
