//! Mail by the connector of the user who sent it: its route, and the demands of both connectors.

use gatepost::smtp::envelope::TlsRequirement;
use gatepost::storage::spool::Entry;

use crate::support::certificates::{Authority, self_signed};
use crate::support::deliveries::{World, connector, deliver, failure, message, outcome};
use crate::support::internet::{
    Internet, assert_heard_nothing_of_mail, in_clear, one_host, shows, tlsa,
};
use crate::support::peer::Peer;
use crate::support::zones::Kind;

const TO: &str = "b@partner.example";
const HOST: &str = "mx.good.example";

/// A message of a user whose connector has this name.
fn sent_by_user(name: &str) -> Entry {
    let mut entry = message(&[TO]);
    entry.envelope.connector = Some(name.into());
    entry
}

/// The connector of the recipient's domain and that of the user, each with keys of its own and of its
/// outbound table.
fn connectors(own: (&Peer, &str, &str), user: (&Peer, &str, &str)) -> String {
    let one = |name: &str, domain: &str, (peer, keys, outbound): (&Peer, &str, &str)| {
        format!(
            "[[connector]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\n{keys}\n[connector.outbound]\nroute = [\"{}\"]\n{outbound}\n",
            peer.address
        )
    };
    one("own", "partner.example", own) + &one("smart", "smart.example", user)
}

#[tokio::test]
async fn the_route_is_the_users_and_no_demand_of_the_recipients_connector_is_lowered() {
    let world = World::new().await;
    let trusted = world.authority.issue(&["smart.example"]);
    let untrusted = self_signed(&["smart.example"], |_| {});
    let forced = |verify: &str| format!("tls = \"forced\"\nverify = \"{verify}\"");
    let (none, chain) = (forced("none"), forced("chain"));
    // The demands of the recipient's own connector and of the user's, the certificate that the
    // user's smart host shows, and the outcome.
    for (own, user, certificate, expected) in [
        ("tls = \"off\"", "tls = \"off\"", None, "delivered"),
        ("", "tls = \"off\"", None, "delivered"),
        (&*none, "tls = \"off\"", None, "deferred 4.7.4"),
        (&*none, "tls = \"off\"", Some(&untrusted), "delivered"),
        (&*chain, "", Some(&untrusted), "deferred 4.7.5"),
        (&*chain, "", Some(&trusted), "delivered"),
        ("tls = \"off\"", &*chain, Some(&untrusted), "deferred 4.7.5"),
        ("tls = \"off\"", &*chain, Some(&trusted), "delivered"),
    ] {
        let smart = match certificate {
            Some(pair) => shows(pair).await,
            None => in_clear().await,
        };
        let direct = in_clear().await;
        let text = connectors((&direct, "", own), (&smart, "", user));
        let outbound = world.outbound(&text);
        let report = deliver(&outbound, sent_by_user("smart")).await;
        let case = format!("{own} / {user}");
        assert_eq!(outcome(&report, 0), expected, "{case}: {report:?}");
        assert_eq!(report.connector.name, "smart", "{case}");
        outbound.close();
        assert!(direct.heard().is_empty(), "{case}: not its own way");
        if expected == "delivered" {
            assert_eq!(smart.messages().len(), 1, "{case}");
        } else {
            assert_heard_nothing_of_mail(&smart).await;
        }
    }
}

/// Mail of others for the domain, and mail for the domains of the user's connector, go as before.
#[tokio::test]
async fn a_connector_of_a_user_changes_no_other_mail() {
    let world = World::new().await;
    let (direct, smart) = (in_clear().await, in_clear().await);
    let off = "tls = \"off\"";
    let outbound = world.outbound(&connectors((&direct, "", off), (&smart, "", off)));
    for (entry, ways) in [
        (message(&[TO]), (1, 0)),
        (sent_by_user("smart"), (1, 1)),
        (message(&["c@smart.example"]), (1, 2)),
        (sent_by_user("own"), (2, 2)),
    ] {
        let report = deliver(&outbound, entry).await;
        assert_eq!(outcome(&report, 0), "delivered", "{report:?}");
        assert_eq!((direct.messages().len(), smart.messages().len()), ways);
    }
}

/// An idle connection is used again only for mail whose demands it satisfies, those of the
/// recipient's connector too.
#[tokio::test]
async fn an_idle_connection_is_judged_by_the_recipients_connector_as_well() {
    let world = World::new().await;
    let smart = shows(&self_signed(&["smart.example"], |_| {})).await;
    let direct = in_clear().await;
    let own = "tls = \"forced\"\nverify = \"chain\"";
    let outbound = world.outbound(&connectors((&direct, "", own), (&smart, "", "")));
    let report = deliver(&outbound, message(&["c@smart.example"])).await;
    assert_eq!(outcome(&report, 0), "delivered");
    let report = deliver(&outbound, sent_by_user("smart")).await;
    assert_eq!(outcome(&report, 0), "deferred 4.7.5", "{report:?}");
    assert_eq!(smart.messages().len(), 1);
}

/// The user's smart host is not dialled if the two connectors contradict each other.
#[tokio::test]
async fn what_no_host_can_meet_ends_as_the_stricter_connector_says() {
    let world = World::new().await;
    let (trusted, smart_pin) = (world.authority.issue(&["smart.example"]), "11".repeat(32));
    let other = world.folder().join("other.pem");
    std::fs::write(&other, Authority::root("Another").pem()).expect("our own folder");
    let other = format!("trust = \"{}\"", other.display());
    let pin = |octet: &str| {
        let hash = data_encoding::HEXLOWER
            .decode(octet.as_bytes())
            .expect("hex");
        format!(
            "pins = [\"sha256:{}\"]",
            data_encoding::BASE64.encode(&hash)
        )
    };
    let (ours, theirs) = (pin(&"22".repeat(32)), pin(&smart_pin));
    let pinned = "tls = \"forced\"\nverify = \"pin\"\non_failure = \"bounce\"";
    let chain = "tls = \"forced\"\nverify = \"chain\"\non_failure = \"hold\"";
    for ((own_keys, own), (user_keys, user), expected, reason) in [
        (
            (&*ours, pinned),
            (&*theirs, "tls = \"forced\"\nverify = \"pin\""),
            "bounced 5.7.5",
            "have no pinned key in common",
        ),
        (
            (&*other, chain),
            ("", ""),
            "held 4.7.5",
            "trust different authorities",
        ),
        (
            (&*other, chain),
            (&*theirs, pinned),
            "bounced 5.7.5",
            "trust different authorities",
        ),
    ] {
        let (direct, smart) = (in_clear().await, shows(&trusted).await);
        let text = connectors((&direct, own_keys, own), (&smart, user_keys, user));
        let outbound = world.outbound(&text);
        let report = deliver(&outbound, sent_by_user("smart")).await;
        assert_eq!(outcome(&report, 0), expected, "{report:?}");
        let text = failure(&report, 0).to_string();
        assert!(text.contains(reason), "{text}");
        assert!(text.contains("recipient's connector"), "{text}");
        assert!(smart.heard().is_empty() && direct.heard().is_empty());
    }
}

#[tokio::test]
async fn a_connector_that_is_not_there_any_more_defers() {
    let world = World::new().await;
    let direct = in_clear().await;
    let outbound = world.outbound(&connector(
        "own",
        &["partner.example"],
        &format!("route = [\"{}\"]\ntls = \"off\"", direct.address),
    ));
    let mut entry = sent_by_user("smart");
    entry.envelope.tls = TlsRequirement::Relaxed;
    let report = deliver(&outbound, entry).await;
    assert_eq!(outcome(&report, 0), "deferred 4.3.5", "{report:?}");
    let text = failure(&report, 0).to_string();
    assert!(text.contains("the connector smart of the user"), "{text}");
    assert!(direct.heard().is_empty(), "not by another way");
}

/// A message waives what domains publish, and nothing that a connector demands.
#[tokio::test]
async fn mandatory_dane_of_the_recipients_connector_holds_at_the_users_host() {
    let (shown, other) = (self_signed(&[HOST], |_| {}), self_signed(&[HOST], |_| {}));
    for (published, expected) in [(&shown, "delivered"), (&other, "deferred 4.7.5")] {
        let smart = shows(&shown).await;
        let records = one_host("good.example") + &tlsa(HOST, &smart, published);
        let zones = [("good.example", Kind::Signed, records)];
        let internet = Internet::new(Authority::root("Test"), &zones, &[]).await;
        let route = format!(
            "route = [\"{HOST}:{}\"]\ntls = \"off\"",
            smart.address.port()
        );
        let demand = "tls = \"forced\"\nverify = \"dane\"";
        let text = connector("own", &["partner.example"], demand)
            + &connector("smart", &["smart.example"], &route);
        let outbound = internet.world.outbound(&text);
        let mut entry = sent_by_user("smart");
        entry.envelope.tls = TlsRequirement::Relaxed;
        let report = deliver(&outbound, entry).await;
        assert_eq!(outcome(&report, 0), expected, "{report:?}");
    }
}
