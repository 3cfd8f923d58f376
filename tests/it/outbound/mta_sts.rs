//! Deliveries to domains with MTA-STS policies (RFC 8461), found by real DNS at a real policy host.

use gatepost::relay::outbound::{Attempt, Outbound};
use gatepost::relay::running_config::RunningConfig;
use gatepost::relay::tlsrpt::Reporter;

use crate::support::certificates::{Authority, Pair, self_signed};
use crate::support::deliveries::{attempt, deliver, failure, message, outcome};
use crate::support::internet::{
    Internet, assert_heard_nothing_of_mail, by_mx, in_clear, known_as, one_host, policy, shows,
    sts, tls, tlsa,
};
use crate::support::peer::Peer;
use crate::support::zones::{Fault, Kind};

const DOMAIN: &str = "plain.example";
const HOST: &str = "mx.plain.example";
const TO: &str = "b@plain.example";

async fn internet(authority: Authority, mode: &str, hosts: &[&str]) -> Internet {
    let zones = [(DOMAIN, Kind::Unsigned, one_host(DOMAIN) + &sts(DOMAIN, "1"))];
    let internet = Internet::new(authority, &zones, &[DOMAIN]).await;
    internet.policies.publish(DOMAIN, &policy(mode, hosts));
    internet
}

/// Every way to be a listed host.
async fn peers(authority: &Authority) -> [(Peer, &'static str); 4] {
    [
        (shows(&authority.issue(&[HOST])).await, "delivered"),
        (
            shows(&authority.issue(&["mx.other.example"])).await,
            "deferred 4.7.5",
        ),
        (shows(&self_signed(&[HOST], |_| {})).await, "deferred 4.7.5"),
        (in_clear().await, "deferred 4.7.4"),
    ]
}

#[tokio::test]
async fn an_enforced_policy_wants_a_listed_host_with_a_trusted_certificate_for_its_own_name() {
    let authority = Authority::root("Test");
    let peers = peers(&authority).await;
    let internet = internet(authority, "enforce", &["*.plain.example"]).await;
    for (peer, ends) in peers {
        let outbound = internet.outbound(&peer, "");
        let report = deliver(&outbound, message(&[TO])).await;
        outbound.close();
        assert_eq!(outcome(&report, 0), ends, "{report:?}");
        if ends == "delivered" {
            assert_eq!(known_as(&report), format!("verified as {HOST}"));
        } else {
            assert!(
                failure(&report, 0).to_string().contains("MTA-STS"),
                "{}",
                failure(&report, 0)
            );
            assert_heard_nothing_of_mail(&peer).await;
        }
    }
}

#[tokio::test]
async fn an_underscore_in_the_name_of_a_host_is_matched_by_policy_and_certificate() {
    const NAME: &str = "mail_1.plain.example";
    let authority = Authority::root("Test");
    let records = format!(
        "{DOMAIN} MX 10 {NAME}\n{NAME} A 127.0.0.1\n{}",
        sts(DOMAIN, "1")
    );
    let (right, wrong) = (
        authority.issue(&[NAME]),
        authority.issue(&["mail-1.plain.example"]),
    );
    let internet = Internet::new(authority, &[(DOMAIN, Kind::Unsigned, records)], &[DOMAIN]).await;
    internet
        .policies
        .publish(DOMAIN, &policy("enforce", &[NAME]));
    for (pair, ends) in [(right, "delivered"), (wrong, "deferred 4.7.5")] {
        let peer = shows(&pair).await;
        let report = deliver(&internet.outbound(&peer, ""), message(&[TO])).await;
        assert_eq!(outcome(&report, 0), ends, "{report:?}");
        if ends == "delivered" {
            assert_eq!(known_as(&report), format!("verified as {NAME}"));
        } else {
            assert_heard_nothing_of_mail(&peer).await;
        }
    }
}

#[tokio::test]
async fn a_policy_that_is_tested_or_withdrawn_refuses_nobody() {
    for (mode, hosts) in [
        ("testing", &[HOST][..]),
        ("testing", &["other.plain.example"]),
        ("none", &[HOST]),
    ] {
        let authority = Authority::root("Test");
        let peers = peers(&authority).await;
        let internet = internet(authority, mode, hosts).await;
        for (peer, _) in peers {
            let report = deliver(&internet.outbound(&peer, ""), message(&[TO])).await;
            assert_eq!(
                (outcome(&report, 0).as_str(), peer.messages().len()),
                ("delivered", 1),
                "{mode}"
            );
        }
        assert!(
            internet.policies.requests(DOMAIN) > 0,
            "{mode}: it was known"
        );
    }
}

#[tokio::test]
async fn a_host_that_is_not_listed_is_not_dialled_and_the_next_one_is() {
    let authority = Authority::root("Test");
    let pair = authority.issue(&["mx1.plain.example", "mx2.plain.example"]);
    let (first, second) = Peer::twins(tls(&pair), tls(&pair)).await;
    let records = "plain.example MX 10 mx1.plain.example\nplain.example MX 20 mx2.plain.example\n\
                   mx1.plain.example A 127.0.0.1\nmx2.plain.example A 127.0.0.2\n";
    let zones = [(
        DOMAIN,
        Kind::Unsigned,
        records.to_owned() + &sts(DOMAIN, "1"),
    )];
    let internet = Internet::new(authority, &zones, &[DOMAIN]).await;
    internet
        .policies
        .publish(DOMAIN, &policy("enforce", &["mx2.plain.example"]));
    let report = deliver(&internet.outbound(&first, ""), message(&[TO])).await;
    assert_eq!(
        (outcome(&report, 0).as_str(), report.trail.len()),
        ("delivered", 1),
        "{report:?}"
    );
    let text = report.trail[0].to_string();
    assert!(
        text.contains("mx1.plain.example is not among the hosts listed: mx2.plain.example"),
        "{text}"
    );
    assert!(first.heard().is_empty());
    assert_eq!(second.messages().len(), 1);
}

/// RFC 8461 §3.2: a line that cannot be used matches nothing, and the policy stays in force; also
/// where no line can.
#[tokio::test]
async fn a_line_that_cannot_be_used_voids_no_policy() {
    let listed = [HOST, "192.0.2.1", "mx.elsewhere.example."];
    for (hosts, ends, words) in [
        (&listed[..], "delivered", ""),
        (
            &listed[1..],
            "deferred 4.7.5",
            "mx.plain.example is not listed: the policy has no mx line that can be used",
        ),
        (
            &["mx.plain.example."],
            "deferred 4.7.5",
            "no mx line that can be used",
        ),
        (
            &["127.0.0.1", "mx.other.example"],
            "deferred 4.7.5",
            "is not among the hosts listed: mx.other.example",
        ),
    ] {
        let authority = Authority::root("Test");
        let peer = shows(&authority.issue(&[HOST])).await;
        let internet = internet(authority, "enforce", hosts).await;
        let report = deliver(&internet.outbound(&peer, ""), message(&[TO])).await;
        assert_eq!(outcome(&report, 0), ends, "{hosts:?}: {report:?}");
        if ends == "delivered" {
            assert_eq!(known_as(&report), format!("verified as {HOST}"));
        } else {
            let text = failure(&report, 0).to_string();
            assert!(
                text.contains("MTA-STS") && text.contains(words),
                "{hosts:?}: {text}"
            );
            assert!(peer.heard().is_empty(), "{hosts:?}");
        }
    }
}

/// RFC 8461 §2: where DANE authenticates the host, it alone counts, for better and for worse.
#[tokio::test]
async fn a_policy_never_overrides_dane() {
    let own = self_signed(&["anything.example"], |_| {});
    for (hosts, meets_dane) in [(["other.good.example"], true), (["mx.good.example"], false)] {
        let authority = Authority::root("Test");
        let trusted = authority.issue(&["mx.good.example"]);
        let peer = shows(if meets_dane { &own } else { &trusted }).await;
        let records = one_host("good.example")
            + &sts("good.example", "1")
            + &tlsa("mx.good.example", &peer, &own);
        let zones = [("good.example", Kind::Signed, records)];
        let internet = Internet::new(authority, &zones, &["good.example"]).await;
        internet
            .policies
            .publish("good.example", &policy("enforce", &hosts));
        let report = deliver(&internet.outbound(&peer, ""), message(&["b@good.example"])).await;
        if meets_dane {
            assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
            assert!(known_as(&report).starts_with("authenticated by DANE"));
        } else {
            assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{report:?}");
            assert!(
                failure(&report, 0).to_string().contains("DANE"),
                "{}",
                failure(&report, 0)
            );
            assert_heard_nothing_of_mail(&peer).await;
        }
    }
}

#[tokio::test]
async fn a_policy_that_cannot_be_had_holds_up_nothing() {
    let authority = Authority::root("Test");
    let internet = internet(authority, "enforce", &[HOST]).await;
    internet
        .names
        .fail("mta-sts.plain.example", None, Fault::ServFail);
    let peer = in_clear().await;
    assert_eq!(
        outcome(
            &deliver(&internet.outbound(&peer, ""), message(&[TO])).await,
            0
        ),
        "delivered"
    );
    assert_eq!(internet.policies.requests(DOMAIN), 0);
}

/// A relay that learned an old policy, which lists another host, and whose administrator wants
/// failures to bounce.
async fn with_old_policy(
    peer: &Peer,
    now: &[crate::support::internet::Written<'_>],
) -> (Internet, Outbound) {
    with_old_policy_of(
        Authority::root("Test"),
        peer,
        now,
        ("bounce", "bounced 5.7.5"),
    )
    .await
}

/// The same for domains whose certificates are of this authority, and with another `on_failure`.
async fn with_old_policy_of(
    authority: Authority,
    peer: &Peer,
    now: &[crate::support::internet::Written<'_>],
    (on_failure, ends): (&str, &str),
) -> (Internet, Outbound) {
    let mut internet = internet(authority, "enforce", &["old.plain.example"]).await;
    let (folder, connectors) = (
        internet.world.folder(),
        by_mx(peer, &format!("on_failure = \"{on_failure}\"")),
    );
    {
        let outbound = Outbound::new(
            RunningConfig::new(internet.world.snapshot(&connectors)),
            internet.world.discovery(&folder),
            Reporter::off(),
        );
        let report = deliver(&outbound, message(&[TO])).await;
        assert_eq!(
            outcome(&report, 0),
            ends,
            "a policy that is confirmed is final: {report:?}"
        );
        outbound.discovery().history().close().await;
    }
    internet.rename(now).await;
    internet
        .policies
        .publish(DOMAIN, &policy("enforce", &[HOST]));
    let outbound = Outbound::new(
        RunningConfig::new(internet.world.snapshot(&connectors)),
        internet.world.discovery(&folder),
        Reporter::off(),
    );
    (internet, outbound)
}

/// RFC 8461 §5.1: a policy of ours that is out of date must not bounce mail.
#[tokio::test]
async fn a_policy_that_has_changed_bounces_nothing() {
    let pair: Pair = self_signed(&[HOST], |_| {});
    let peer = shows(&pair).await;
    let now = [(DOMAIN, Kind::Unsigned, one_host(DOMAIN) + &sts(DOMAIN, "2"))];
    let (internet, outbound) = with_old_policy(&peer, &now).await;
    let report = deliver(&outbound, message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{report:?}");
    let text = failure(&report, 0).to_string();
    assert!(
        text.contains("old.plain.example")
            && text.contains("has changed its MTA-STS policy meanwhile"),
        "{text}"
    );
    assert!(peer.heard().is_empty());
    assert_eq!(internet.policies.requests(DOMAIN), 2);
    // Under the new policy the host is listed, and its certificate is not good enough: that is
    // confirmed.
    let report = deliver(&outbound, message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "bounced 5.7.5", "{report:?}");
    assert_heard_nothing_of_mail(&peer).await;
}

/// Nobody tries again what is held, so nobody would see that the policy is another one.
#[tokio::test]
async fn a_policy_that_has_changed_or_cannot_be_confirmed_holds_nothing() {
    for (answers, words) in [
        (true, "has changed its MTA-STS policy meanwhile"),
        (false, "cannot fetch its MTA-STS policy again"),
    ] {
        let authority = Authority::root("Test");
        let peer = shows(&authority.issue(&[HOST])).await;
        let now = [(DOMAIN, Kind::Unsigned, one_host(DOMAIN) + &sts(DOMAIN, "2"))];
        let (internet, outbound) =
            with_old_policy_of(authority, &peer, &now, ("hold", "held 4.7.5")).await;
        if !answers {
            internet
                .names
                .fail("mta-sts.plain.example", None, Fault::ServFail);
        }
        let report = deliver(&outbound, message(&[TO])).await;
        assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{report:?}");
        assert!(
            failure(&report, 0).to_string().contains(words),
            "{}",
            failure(&report, 0)
        );
        let again = deliver(&outbound, message(&[TO])).await;
        assert_eq!(outcome(&again, 0) == "delivered", answers, "{again:?}");
        if !answers {
            let last = Attempt {
                may_be_last: true,
                ..attempt(message(&[TO]))
            };
            assert_eq!(
                outcome(&outbound.deliver(last).await, 0),
                "held 4.7.5",
                "otherwise it would bounce now"
            );
        }
    }
}

/// Mail that waits until it expires is not given up under a policy that was replaced.
#[tokio::test]
async fn the_last_attempt_is_made_under_the_policy_of_its_time() {
    let authority = Authority::root("Test");
    let peer = shows(&authority.issue(&[HOST])).await;
    let now = [(DOMAIN, Kind::Unsigned, one_host(DOMAIN) + &sts(DOMAIN, "2"))];
    let (internet, outbound) =
        with_old_policy_of(authority, &peer, &now, ("defer", "deferred 4.7.5")).await;
    let before = internet.policies.requests(DOMAIN);
    let last = Attempt {
        may_be_last: true,
        ..attempt(message(&[TO]))
    };
    let report = outbound.deliver(last).await;
    assert_eq!(
        (outcome(&report, 0).as_str(), report.trail.len()),
        ("delivered", 0),
        "{report:?}"
    );
    assert_eq!(internet.policies.requests(DOMAIN), before + 1);
    // One that cannot be had changes nothing.
    internet
        .names
        .fail("mta-sts.plain.example", None, Fault::ServFail);
    let last = Attempt {
        may_be_last: true,
        ..attempt(message(&[TO]))
    };
    assert_eq!(outcome(&outbound.deliver(last).await, 0), "delivered");
}

#[tokio::test]
async fn a_policy_that_cannot_be_confirmed_bounces_nothing() {
    let peer = in_clear().await;
    let now = [(DOMAIN, Kind::Unsigned, one_host(DOMAIN) + &sts(DOMAIN, "2"))];
    let (internet, outbound) = with_old_policy(&peer, &now).await;
    internet
        .names
        .fail("mta-sts.plain.example", None, Fault::ServFail);
    let report = deliver(&outbound, message(&[TO])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{report:?}");
    assert!(
        failure(&report, 0)
            .to_string()
            .contains("cannot fetch its MTA-STS policy again"),
        "{}",
        failure(&report, 0)
    );
    assert!(peer.heard().is_empty());
}
