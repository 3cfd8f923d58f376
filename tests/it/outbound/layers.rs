//! Layers that meet: what a message asks beside what its domain publishes, exceptions beside the
//! connector's demand, and connections that were cleared under another policy.

use gatepost::smtp::envelope::TlsRequirement;
use gatepost::storage::spool::Entry;
use hickory_resolver::proto::rr::RecordType;

use crate::support::certificates::{Authority, Pair, self_signed};
use crate::support::deliveries::{World, connector, deliver, failure, message, outcome};
use crate::support::internet::{
    Internet, assert_heard_nothing_of_mail, in_clear, known_as, one_host, policy, shows, sts, tls,
    tlsa,
};
use crate::support::peer::{Manner, Peer, Starttls};
use crate::support::zones::{Fault, Kind};

const DOMAIN: &str = "good.example";
const HOST: &str = "mx.good.example";
const TO: &str = "b@good.example";
const PROMISES: &[&str] = &["PIPELINING", "SIZE", "REQUIRETLS"];

fn asking(tls: TlsRequirement) -> Entry {
    let mut entry = message(&[TO]);
    entry.envelope.tls = tls;
    entry
}

fn own(name: &str) -> Pair {
    self_signed(&[name], |_| {})
}

/// RFC 8689 §4.2.2: the sender sets aside what domains publish.
#[tokio::test]
async fn tls_required_no_sets_dane_and_mta_sts_aside_and_asks_for_neither() {
    let published = own(HOST);
    for (kind, peer) in [
        (Kind::Signed, in_clear().await),
        (Kind::Unsigned, in_clear().await),
    ] {
        let records = one_host(DOMAIN) + &sts(DOMAIN, "1") + &tlsa(HOST, &peer, &published);
        let internet = Internet::new(
            Authority::root("Test"),
            &[(DOMAIN, kind, records)],
            &[DOMAIN],
        )
        .await;
        internet
            .policies
            .publish(DOMAIN, &policy("enforce", &[HOST]));
        let outbound = internet.outbound(&peer, "");
        assert_eq!(
            outcome(
                &deliver(&outbound, asking(TlsRequirement::Relaxed)).await,
                0
            ),
            "delivered"
        );
        let tlsa = format!("_{}._tcp.{HOST}", peer.address.port());
        assert_eq!(
            internet.names.asked(&tlsa, RecordType::TLSA) + internet.policies.requests(DOMAIN),
            0
        );
        // Any other message is held to it.
        let report = deliver(&outbound, asking(TlsRequirement::Ordinary)).await;
        assert_eq!(outcome(&report, 0), "deferred 4.7.4", "{report:?}");
        assert_eq!(peer.messages().len(), 1);
    }
}

#[tokio::test]
async fn tls_required_no_never_sets_the_connectors_own_demand_aside() {
    let (pair, other) = (own(HOST), own(HOST));
    for demand in [
        "verify = \"none\"",
        "verify = \"name\"",
        "verify = \"dane\"",
    ] {
        let peer = if demand.contains("none") {
            in_clear().await
        } else {
            shows(&other).await
        };
        let records = one_host(DOMAIN) + &tlsa(HOST, &peer, &pair);
        let internet = Internet::new(
            Authority::root("Test"),
            &[(DOMAIN, Kind::Signed, records)],
            &[],
        )
        .await;
        let outbound = internet.outbound(&peer, &format!("tls = \"forced\"\n{demand}"));
        let report = deliver(&outbound, asking(TlsRequirement::Relaxed)).await;
        assert!(
            outcome(&report, 0).starts_with("deferred 4.7."),
            "{demand} {report:?}"
        );
        outbound.close();
        assert_heard_nothing_of_mail(&peer).await;
    }
}

/// RFC 8689 §4.2.1, step 2: DNSSEC or MTA-STS must say that the host is the domain's.
#[tokio::test]
async fn what_requires_tls_goes_where_dnssec_or_mta_sts_prove_the_way() {
    for (kind, mode, ends) in [
        (Kind::Signed, None, "delivered"),
        (Kind::Unsigned, Some("enforce"), "delivered"),
        (Kind::Unsigned, Some("testing"), "delivered"),
        (Kind::Unsigned, None, "bounced 5.7.10"),
    ] {
        let authority = Authority::root("Test");
        let pair = authority.issue(&[HOST]);
        let peer = Peer::start(Manner {
            keywords: PROMISES,
            ..tls(&pair)
        })
        .await;
        let mut records = one_host(DOMAIN);
        if mode.is_some() {
            records += &sts(DOMAIN, "1");
        }
        let internet = Internet::new(authority, &[(DOMAIN, kind, records)], &[DOMAIN]).await;
        internet
            .policies
            .publish(DOMAIN, &policy(mode.unwrap_or("none"), &[HOST]));
        let report = deliver(
            &internet.outbound(&peer, ""),
            asking(TlsRequirement::Require),
        )
        .await;
        assert_eq!(outcome(&report, 0), ends, "{kind:?} {mode:?} {report:?}");
        let heard = peer.heard();
        if ends == "delivered" {
            assert!(
                heard[0]
                    .commands
                    .contains(&"MAIL FROM:<sender@example.com> SIZE=37 REQUIRETLS".to_owned())
            );
        } else {
            assert!(heard.is_empty(), "nobody is dialled");
        }
    }
}

/// RFC 8689 §4.2.1, step 2: a policy that cannot be looked up may prove the host later, so the
/// message waits.
#[tokio::test]
async fn a_proof_that_cannot_be_looked_up_defers_what_requires_tls() {
    let authority = Authority::root("Test");
    let pair = authority.issue(&[HOST]);
    let peer = Peer::start(Manner {
        keywords: PROMISES,
        ..tls(&pair)
    })
    .await;
    let records = one_host(DOMAIN) + &sts(DOMAIN, "1");
    let internet = Internet::new(authority, &[(DOMAIN, Kind::Unsigned, records)], &[DOMAIN]).await;
    internet
        .names
        .fail("_mta-sts.good.example", None, Fault::ServFail);
    let report = deliver(
        &internet.outbound(&peer, ""),
        asking(TlsRequirement::Require),
    )
    .await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{report:?}");
    assert!(
        failure(&report, 0).to_string().contains("REQUIRETLS"),
        "{report:?}"
    );
    assert!(peer.heard().is_empty(), "nobody is dialled");
}

/// DNSSEC proves the host already, so the message does not wait for a policy.
#[tokio::test]
async fn a_host_that_dnssec_proves_needs_no_policy_for_what_requires_tls() {
    let authority = Authority::root("Test");
    let pair = authority.issue(&[HOST]);
    let peer = Peer::start(Manner {
        keywords: PROMISES,
        ..tls(&pair)
    })
    .await;
    let records = one_host(DOMAIN) + &sts(DOMAIN, "1");
    let internet = Internet::new(authority, &[(DOMAIN, Kind::Signed, records)], &[DOMAIN]).await;
    internet
        .names
        .fail("_mta-sts.good.example", None, Fault::ServFail);
    let report = deliver(
        &internet.outbound(&peer, ""),
        asking(TlsRequirement::Require),
    )
    .await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
}

#[tokio::test]
async fn dane_authenticates_for_what_requires_tls() {
    let pair = own("anything.example");
    let peer = Peer::start(Manner {
        keywords: PROMISES,
        ..tls(&pair)
    })
    .await;
    let records = one_host(DOMAIN) + &tlsa(HOST, &peer, &pair);
    let internet = Internet::new(
        Authority::root("Test"),
        &[(DOMAIN, Kind::Signed, records)],
        &[],
    )
    .await;
    let report = deliver(
        &internet.outbound(&peer, ""),
        asking(TlsRequirement::Require),
    )
    .await;
    assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
    assert!(known_as(&report).starts_with("authenticated by DANE"));
}

const FORCED: &str = "tls = \"forced\"\nverify = \"name\"\n";

fn exception(tls: &str, until: &str) -> String {
    format!("exception = {{ tls = \"{tls}\", until = {until}, reason = \"ticket 4711\" }}")
}

#[tokio::test]
async fn an_exception_stands_in_for_the_connectors_demand_until_it_ends() {
    let world = World::new().await;
    for (exception, ends) in [
        (String::new(), "deferred 4.7.4"),
        (exception("opportunistic", "2200-01-31"), "delivered"),
        (exception("off", "2200-01-31"), "delivered"),
        (exception("forced", "2200-01-31"), "deferred 4.7.4"),
        (exception("opportunistic", "2020-01-31"), "deferred 4.7.4"),
    ] {
        let peer = in_clear().await;
        let route = format!(
            "route = [\"mx.partner.example:{}\"]\n{FORCED}{exception}",
            peer.address.port()
        );
        let outbound = world.outbound(&connector("partner", &["partner.example"], &route));
        let report = deliver(&outbound, message(&["b@partner.example"])).await;
        outbound.close();
        assert_eq!(outcome(&report, 0), ends, "{exception}");
        if ends == "delivered" {
            let asked_for_tls = peer.heard()[0].has("STARTTLS");
            assert_eq!(
                (peer.messages().len(), asked_for_tls),
                (1, false),
                "{exception}"
            );
        } else {
            assert_heard_nothing_of_mail(&peer).await;
        }
    }
}

#[tokio::test]
async fn an_exception_does_not_set_aside_what_the_domain_publishes() {
    let peer = in_clear().await;
    let records = one_host(DOMAIN) + &tlsa(HOST, &peer, &own(HOST));
    let internet = Internet::new(
        Authority::root("Test"),
        &[(DOMAIN, Kind::Signed, records)],
        &[],
    )
    .await;
    let outbound = internet.outbound(
        &peer,
        &format!("{FORCED}{}", exception("opportunistic", "2200-01-31")),
    );
    let report = deliver(&outbound, message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.4", "{report:?}");
    assert!(
        failure(&report, 0).to_string().contains("DANE"),
        "{}",
        failure(&report, 0)
    );
    assert_heard_nothing_of_mail(&peer).await;
}

/// A connection that was cleared for mail that sets TLSA records aside was never held against them.
#[tokio::test]
async fn a_connection_cleared_for_less_is_not_used_for_more() {
    let (published, other) = (own(HOST), own(HOST));
    for (shown, ends) in [(&published, "delivered"), (&other, "deferred 4.7.5")] {
        let peer = shows(shown).await;
        let records = one_host(DOMAIN) + &tlsa(HOST, &peer, &published);
        let internet = Internet::new(
            Authority::root("Test"),
            &[(DOMAIN, Kind::Signed, records)],
            &[],
        )
        .await;
        let outbound = internet.outbound(&peer, "");
        for requirement in [TlsRequirement::Relaxed, TlsRequirement::Relaxed] {
            assert_eq!(
                outcome(&deliver(&outbound, asking(requirement)).await, 0),
                "delivered"
            );
        }
        assert_eq!(peer.heard().len(), 1, "the first connection was used again");
        let report = deliver(&outbound, asking(TlsRequirement::Ordinary)).await;
        assert_eq!(outcome(&report, 0), ends, "{report:?}");
        outbound.close();
        let heard = peer.heard_to_the_end().await;
        let messages: Vec<usize> = heard.iter().map(|heard| heard.messages.len()).collect();
        assert_eq!(messages, [2, usize::from(ends == "delivered")], "{heard:?}");
        assert_eq!(heard[1].has("MAIL"), ends == "delivered");
    }
}

/// In the clear, for a message that does not care; the next one's domain demands TLS.
#[tokio::test]
async fn a_connection_in_the_clear_carries_nothing_that_needs_tls() {
    let peer = Peer::start(Manner::new(Starttls::NotOffered)).await;
    let authority = Authority::root("Test");
    let zones = [(DOMAIN, Kind::Unsigned, one_host(DOMAIN) + &sts(DOMAIN, "1"))];
    let internet = Internet::new(authority, &zones, &[DOMAIN]).await;
    internet
        .policies
        .publish(DOMAIN, &policy("enforce", &[HOST]));
    let outbound = internet.outbound(&peer, "");
    assert_eq!(
        outcome(
            &deliver(&outbound, asking(TlsRequirement::Relaxed)).await,
            0
        ),
        "delivered"
    );
    assert_eq!(
        outcome(
            &deliver(&outbound, asking(TlsRequirement::Ordinary)).await,
            0
        ),
        "deferred 4.7.4"
    );
    outbound.close();
    let mails: Vec<bool> = peer
        .heard_to_the_end()
        .await
        .iter()
        .map(|heard| heard.has("MAIL"))
        .collect();
    assert_eq!(mails, [true, false]);
}
