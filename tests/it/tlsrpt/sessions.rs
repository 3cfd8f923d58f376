//! Real deliveries, and what the domain's report says of their sessions.

use gatepost::relay::tlsrpt::Bounds;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::service::{AT_ONCE, ServiceFixture, folder};
use crate::support::certificates::{Authority, BOTH, server_config};
use crate::support::deliveries::{World, connector, deliver, message, outcome};
use crate::support::internet::{Internet, one_host};
use crate::support::peer::{Manner, Peer, Starttls};
use crate::support::picky::{Does, Over, Picky};
use crate::support::zones::{Fault, Kind};

/// Delivers once to partner.example by MX, and reads the policies of the day's report.
async fn reported(world: &World, manner: Manner, policy: &str, wanted: &str) -> Vec<Value> {
    let folder = folder();
    let mut fixture = ServiceFixture::open(folder.path(), Bounds::default(), AT_ONCE, None);
    fixture
        .network
        .publishes("v=TLSRPTv1; rua=https://collector.example/v1");
    let peer = Peer::start(manner).await;
    let route = format!("route = \"mx\"\nport = {}\n{policy}", peer.address.port());
    let outbound = world.observed(
        &connector("partner", &["partner.example"], &route),
        fixture.reporter.clone(),
    );
    let report = deliver(&outbound, message(&["b@partner.example"])).await;
    outbound.close();
    assert_eq!(outcome(&report, 0), wanted, "{policy}");
    fixture.service.count().await;
    let tomorrow = Timestamp::now() + SignedDuration::from_hours(25);
    fixture.reports(&tomorrow.to_string()).await;
    fixture
        .network
        .posts()
        .first()
        .map(|(_, report)| report["policies"].as_array().expect("a list").clone())
        .unwrap_or_default()
}

#[tokio::test]
async fn a_session_over_tls_is_a_success_whatever_our_own_demand_was() {
    let world = World::new().await;
    let good = server_config(&world.authority.issue(&["mx1.partner.example"]), BOTH);
    let wrong = server_config(&world.authority.issue(&["mx.stranger.example"]), BOTH);
    for (config, policy, outcome) in [
        (good, "tls = \"opportunistic\"", "delivered"),
        // Nothing is published, so a certificate of another name is nobody's fault but by our own
        // rule.
        (wrong, "tls = \"opportunistic\"", "delivered"),
    ] {
        let policies = reported(
            &world,
            Manner::new(Starttls::Tls(config.into())),
            policy,
            outcome,
        )
        .await;
        let [told] = policies.as_slice() else {
            panic!("{policies:#?}")
        };
        assert_eq!(told["policy"]["policy-type"], "no-policy-found");
        assert_eq!(
            told["summary"],
            json!({"total-successful-session-count": 1, "total-failure-session-count": 0})
        );
    }
}

/// A session that came about at the second try is one session.
#[tokio::test]
async fn a_handshake_that_was_cut_short_and_tried_again_is_no_failure() {
    let world = World::new().await;
    let config = server_config(&world.authority.issue(&["mx1.partner.example"]), BOTH);
    let does = Does::Resets;
    for (over, policy, outcome, counts) in [
        (Over::Large, "tls = \"opportunistic\"", "delivered", (1, 0)),
        (
            Over::Large,
            "tls = \"forced\"\nverify = \"chain\"",
            "delivered",
            (1, 0),
        ),
        (Over::Every, "tls = \"opportunistic\"", "delivered", (0, 1)),
        (Over::Every, "tls = \"forced\"", "deferred 4.7.5", (0, 1)),
    ] {
        let manner = Manner::new(Starttls::Picky(Picky { over, does }, config.clone().into()));
        let policies = reported(&world, manner, policy, outcome).await;
        let [told] = policies.as_slice() else {
            panic!("{policies:#?}")
        };
        let (good, bad) = counts;
        let summary =
            json!({"total-successful-session-count": good, "total-failure-session-count": bad});
        assert_eq!(told["summary"], summary, "{over:?}, {policy}");
    }
}

#[tokio::test]
async fn a_session_without_tls_is_a_failure_whether_or_not_mail_went() {
    let world = World::new().await;
    for (policy, outcome, sessions) in [
        ("tls = \"opportunistic\"", "delivered", 1),
        ("tls = \"forced\"", "deferred 4.7.4", 1),
    ] {
        let policies = reported(&world, Manner::new(Starttls::NotOffered), policy, outcome).await;
        let [told] = policies.as_slice() else {
            panic!("{policies:#?}")
        };
        assert_eq!(
            told["summary"]["total-failure-session-count"], sessions,
            "{policy}: {told:#?}"
        );
        let detail = &told["failure-details"][0];
        assert_eq!(detail["result-type"], "starttls-not-supported");
        assert_eq!(detail["receiving-mx-hostname"], "mx1.partner.example");
        assert_eq!(detail["receiving-ip"], "127.0.0.1");
    }
}

#[tokio::test]
async fn what_fell_short_of_our_own_demand_alone_is_not_reported() {
    let world = World::new().await;
    let wrong = server_config(&world.authority.issue(&["mx.stranger.example"]), BOTH);
    let policy = "tls = \"forced\"\nverify = \"name\"";
    let policies = reported(
        &world,
        Manner::new(Starttls::Tls(wrong.into())),
        policy,
        "deferred 4.7.5",
    )
    .await;
    assert_eq!(policies, Vec::<Value>::new());
}

#[tokio::test]
async fn that_we_want_no_tls_is_not_reported() {
    let world = World::new().await;
    let policies = reported(
        &world,
        Manner::new(Starttls::NotOffered),
        "tls = \"off\"",
        "delivered",
    )
    .await;
    assert_eq!(policies, Vec::<Value>::new());
}

/// RFC 8460 §4.3.2.1: nobody was dialled, and to the domain that is a session that failed.
#[tokio::test]
async fn a_host_whose_tlsa_records_cannot_be_proved_is_a_failure_by_that_name() {
    let tlsa = format!(
        "_25._tcp.mx.partner.example TLSA 3 1 1 {}\n",
        "ab".repeat(32)
    );
    for broken in [None, Some(Fault::ServFail)] {
        let mut zones = vec![("partner.example", Kind::Signed, one_host("partner.example"))];
        if broken.is_none() {
            // In a zone whose signatures are over.
            zones.push(("_tcp.mx.partner.example", Kind::Expired, tlsa.clone()));
        }
        let internet = Internet::new(Authority::root("Test"), &zones, &[]).await;
        if let Some(fault) = broken {
            internet.names.fail("_tcp.mx.partner.example", None, fault);
        }
        let manner = Manner::new(Starttls::NotOffered);
        let policies = reported(
            &internet.world,
            manner,
            "tls = \"opportunistic\"",
            "deferred 4.7.5",
        )
        .await;
        let [told] = policies.as_slice() else {
            panic!("{broken:?}: {policies:#?}")
        };
        assert_eq!(told["policy"]["policy-type"], "tlsa");
        assert_eq!(told["policy"]["policy-domain"], "mx.partner.example");
        assert_eq!(
            told["summary"],
            json!({"total-successful-session-count": 0, "total-failure-session-count": 1})
        );
        let [detail] = told["failure-details"]
            .as_array()
            .expect("a list")
            .as_slice()
        else {
            panic!("{told:#?}")
        };
        assert_eq!(detail["result-type"], "dnssec-invalid");
        assert_eq!(detail["receiving-mx-hostname"], "mx.partner.example");
        assert_eq!(detail.get("receiving-ip"), None, "nobody was dialled");
    }
}
