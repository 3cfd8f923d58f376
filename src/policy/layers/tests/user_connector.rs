//! The connector of a user with that of the recipient as its floor, for every pair of demands.

use super::*;
use crate::policy::connector::{Connectors, DomainPattern, default_connector};

/// The connector for mail of a user whose connector demands `user`, to a domain whose own connector
/// demands `own`.
fn joined(user: Connector, own: Connector) -> Arc<Connector> {
    let domain = Domain::parse("example.org").expect("a domain");
    let own = Connector {
        name: "own".to_owned(),
        domains: vec![DomainPattern::Exactly(domain)],
        ..own
    };
    let user = Connector {
        name: "user".to_owned(),
        ..user
    };
    let default = default_connector(&own.trust);
    let connectors = Connectors::new(&[Arc::new(own), Arc::new(user)], default);
    connectors.for_mail(&host("example.org"), Some("user"))
}

fn policy(connector: &Connector, facts: &HopFacts) -> TlsPolicy {
    let recipient = host("example.org");
    let ordinary = TlsRequirement::Ordinary;
    outbound_policy(connector, &recipient, &hop(), facts, ordinary, NOW)
}

/// The hop is the user's smart host, which has TLSA records or not.
fn facts() -> [HopFacts; 2] {
    [
        DaneFinding::Usable(set(DaneScope::Domain)),
        DaneFinding::Absent("its zone is not signed".to_owned()),
    ]
    .map(|dane| HopFacts {
        dane,
        mta_sts: MtaStsFinding::None("no record".to_owned()),
        host_proof: HostProof::SmartHost,
        memory: MemoryFinding::Nothing,
    })
}

#[test]
fn each_demand_of_both_connectors_stays() {
    let warn = OnDowngrade::Warn;
    for (user_word, user) in floors() {
        for (own_word, own) in floors() {
            for facts in facts() {
                let case = format!("{user_word} / {own_word}");
                let got = policy(&joined(connector(user, warn), connector(own, warn)), &facts);
                let of = |tls, layer| {
                    let alone = policy(&connector(tls, warn), &facts);
                    let own = |demand: &&Demand| demand.layer == Layer::Connector;
                    let demand = |demand: &Demand| Demand {
                        layer,
                        ..demand.clone()
                    };
                    alone.demands().filter(own).map(demand).collect::<Vec<_>>()
                };
                let all = of(user, Layer::Connector)
                    .into_iter()
                    .chain(of(own, Layer::RecipientConnector));
                for demand in all {
                    assert!(
                        got.demands().any(|one| *one == demand),
                        "{case}: {demand:?}"
                    );
                }
                let is_off = user == TlsDemand::Off && own == TlsDemand::Off;
                assert_eq!(got == TlsPolicy::Off, is_off, "{case}");
            }
        }
    }
}

#[test]
fn what_is_looked_up_and_done_is_what_the_stricter_says() {
    let strict = |tls, downgrade, on_failure, discover: &[Publication]| {
        let mut connector = connector(tls, downgrade);
        connector.outbound.on_failure = on_failure;
        connector.outbound.discover = discover.to_vec();
        connector
    };
    let (none, pin) = (forced(VerifyWanted::None), forced(VerifyWanted::Pin));
    let (bounce, hold) = (OnFailure::Bounce, OnFailure::Hold);
    for (user, own, on_failure) in [(pin, none, bounce), (none, pin, hold), (pin, pin, hold)] {
        let user = strict(user, OnDowngrade::Allow, bounce, &[Publication::MtaSts]);
        let own = strict(own, OnDowngrade::Refuse, hold, &[Publication::Dane]);
        let outbound = &joined(user, own).outbound;
        assert_eq!(outbound.on_failure, on_failure);
        assert_eq!(outbound.downgrade, OnDowngrade::Refuse);
        let both = [Publication::Dane, Publication::MtaSts];
        assert_eq!(outbound.discover, both);
    }
}

/// The same connector twice is one, and a connector that is missing stands for nothing.
#[test]
fn a_floor_is_another_connector() {
    let off = || connector(TlsDemand::Off, OnDowngrade::Warn);
    let default = default_connector(&off().trust);
    let connectors = Connectors::new(&[Arc::new(off())], default);
    let recipient = host("example.org");
    for (name, is_missing, has_floor) in [
        (None, false, false),
        (Some("default"), false, false),
        (Some("partner"), false, true),
        (Some("gone"), true, false),
    ] {
        let found = connectors.for_mail(&recipient, name);
        assert_eq!(found.name, name.unwrap_or("default"));
        assert_eq!(found.floor.is_some(), has_floor, "{name:?}");
        assert_eq!(connectors.missing(name).is_some(), is_missing, "{name:?}");
    }
}
