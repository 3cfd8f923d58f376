//! The connector of a user, with the demands of the recipient's own connector as its floor.
//!
//! The user's connector says which way the mail goes. The recipient's own still says what that way
//! must be worth: its demands join as every layer does, and none is lowered.

use jiff::Timestamp;

use super::demand::outbound_demand;
use super::rules::{
    Connector, OnDowngrade, OnFailure, OutboundConfig, Publication, TlsDemand, VerifyWanted,
};
use crate::policy::tls::{Demand, Layer, Pin, Revocation, TlsPolicy, Unmeetable, Verify};
use crate::smtp::address::Host;

/// Returns the connector of a user with the recipient's own connector as its floor. What is looked
/// up, remembered and decided after a refusal is what the stricter of the two says.
pub(super) fn with_floor(routing: &Connector, own: &std::sync::Arc<Connector>) -> Connector {
    let (route, floor) = (&routing.outbound, &own.outbound);
    let discover = [Publication::Dane, Publication::MtaSts]
        .into_iter()
        .filter(|one| route.discover.contains(one) || floor.discover.contains(one))
        .collect();
    Connector {
        outbound: OutboundConfig {
            discover,
            downgrade: stricter(route.downgrade, floor.downgrade),
            on_failure: on_failure(route, floor),
            ..route.clone()
        },
        floor: Some(std::sync::Arc::clone(own)),
        ..routing.clone()
    }
}

fn stricter(one: OnDowngrade, other: OnDowngrade) -> OnDowngrade {
    match (one, other) {
        (OnDowngrade::Refuse, _) | (_, OnDowngrade::Refuse) => OnDowngrade::Refuse,
        (OnDowngrade::Warn, _) | (_, OnDowngrade::Warn) => OnDowngrade::Warn,
        (OnDowngrade::Allow, OnDowngrade::Allow) => OnDowngrade::Allow,
    }
}

/// Returns `on_failure` of the connector that demands more; of two alike, of the recipient's own.
fn on_failure(route: &OutboundConfig, floor: &OutboundConfig) -> OnFailure {
    if rank(route.tls) > rank(floor.tls) {
        route.on_failure
    } else {
        floor.on_failure
    }
}

/// Returns the rank of a demand among the others.
fn rank(tls: TlsDemand) -> u8 {
    match tls {
        TlsDemand::Off => 0,
        TlsDemand::Opportunistic => 1,
        TlsDemand::Forced { verify, .. } => match verify {
            VerifyWanted::None => 2,
            VerifyWanted::Chain => 3,
            VerifyWanted::Name => 4,
            VerifyWanted::Dane | VerifyWanted::Pin => 5,
        },
    }
}

/// Returns the demand of a connector's floor for one hop, without DANE. A demand that no session
/// over the connector's route can meet is unmeetable.
// Rule: policy table (layers).
pub(crate) fn floor_demand(
    connector: &Connector,
    recipient: &Host,
    smart_host: Option<&Host>,
    now: Timestamp,
) -> Option<TlsPolicy> {
    let floor = connector.floor.as_deref()?;
    let policy = outbound_demand(floor, recipient, smart_host, now);
    Some(policy.map_demands(|demand| Demand {
        layer: Layer::RecipientConnector,
        verify: match contradiction(connector, floor, &demand) {
            Some(why) => Verify::Impossible(Unmeetable::Contradiction(why)),
            None => demand.verify,
        },
        ..demand
    }))
}

/// Returns the reason why no session over a connector's route can meet a demand of its floor: its
/// certificates are checked with the connector's own authorities and revocation lists alone, and a
/// peer has one key.
fn contradiction(connector: &Connector, floor: &Connector, demand: &Demand) -> Option<String> {
    let (one, other) = (&connector.name, &floor.name);
    match &demand.verify {
        Verify::Chain | Verify::Name(_) => {
            if connector.trust.value != floor.trust.value {
                return Some(format!(
                    "the connectors {one} and {other} trust different authorities (`trust`)"
                ));
            }
            let lists = |connector: &Connector| -> Vec<_> {
                connector
                    .crl
                    .iter()
                    .map(|file| file.value.clone())
                    .collect()
            };
            let differ = demand.revocation != Revocation::Off && lists(connector) != lists(floor);
            differ.then(|| {
                format!("the connectors {one} and {other} have different revocation lists (`crl`)")
            })
        }
        Verify::Pin(pins) => {
            let is_pinned = |pin: &Pin| pins.contains(pin);
            let contradicts = matches!(
                connector.outbound.tls,
                TlsDemand::Forced {
                    verify: VerifyWanted::Pin,
                    ..
                }
            ) && !connector.pins.iter().any(is_pinned);
            contradicts.then(|| {
                format!("the connectors {one} and {other} have no pinned key in common (`pin`)")
            })
        }
        Verify::None | Verify::Published(_) | Verify::Dane(_) | Verify::Impossible(_) => None,
    }
}
