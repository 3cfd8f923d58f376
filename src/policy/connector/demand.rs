//! A connector's own demand in either direction, before any other layer adds to it.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::rules::{Connector, TlsDemand, TlsException, VerifyWanted};
use crate::policy::tls::{
    Demand, Layer, NamePattern, Revocation, Strength, TlsPolicy, Unmeetable, Verify,
};
use crate::smtp::address::Host;

/// The connector's own demand for one hop of a recipient domain, without DANE.
///
/// `smart_host` is the hop if it comes from the connector's route, `None` if it comes from MX.
/// If the connector has no `names`, `verify = "name"` expects the name of the smart host, or
/// else the recipient domain or one label below it.
pub(crate) fn outbound_demand(
    connector: &Connector,
    recipient: &Host,
    smart_host: Option<&Host>,
    now: Timestamp,
) -> TlsPolicy {
    let default_names = || match (smart_host, recipient) {
        (Some(Host::Domain(name)), _) => Verify::Name(vec![NamePattern::Exact(name.clone())]),
        (None, Host::Domain(domain)) => Verify::Name(vec![
            NamePattern::Exact(domain.clone()),
            NamePattern::OneLabelUnder(domain.clone()),
        ]),
        (Some(literal @ Host::Literal(_)), _) | (None, literal @ Host::Literal(_)) => {
            Verify::Impossible(Unmeetable::NoName(literal.clone()))
        }
    };
    let (layer, tls) = match exception(connector, now) {
        Some(exception) => (Layer::Exception, exception.tls),
        None => (Layer::Connector, connector.outbound.tls),
    };
    let own = OwnDemand {
        layer,
        tls,
        min_strength: connector.outbound.min_strength,
        revocation: connector.outbound.revocation,
    };
    own.policy(connector, default_names)
}

/// The connector's exception, if it has not ended. It ends with its last day, in UTC.
// Rule: RFC 7672 §9.1.
#[must_use]
pub fn exception(connector: &Connector, now: Timestamp) -> Option<&TlsException> {
    let today = now.to_zoned_datetime(TimeZone::UTC).date();
    connector
        .outbound
        .exception
        .as_ref()
        .filter(|exception| today <= exception.until)
}

/// The connector's exception, if it has ended. The connector's own demand holds again.
#[must_use]
pub fn ended_exception(connector: &Connector, now: Timestamp) -> Option<&TlsException> {
    match exception(connector, now) {
        Some(_) => None,
        None => connector.outbound.exception.as_ref(),
    }
}

/// Returns true if the connector makes DANE mandatory, and no exception suspends that.
#[must_use]
pub fn demands_dane(connector: &Connector, now: Timestamp) -> bool {
    let mandatory = matches!(
        connector.outbound.tls,
        TlsDemand::Forced {
            verify: VerifyWanted::Dane,
            ..
        }
    );
    mandatory && exception(connector, now).is_none()
}

/// The policy for sessions that bring mail from this connector's domains.
#[must_use]
pub fn inbound_policy(connector: &Connector) -> TlsPolicy {
    // The configuration rejects an inbound `verify = "name"` without `names`.
    let own = OwnDemand {
        layer: Layer::Connector,
        tls: connector.inbound.tls,
        min_strength: Strength::Classical,
        revocation: connector.inbound.revocation,
    };
    own.policy(connector, || Verify::Name(Vec::new()))
}

/// The keys of one direction that make its demand.
struct OwnDemand {
    layer: Layer,
    tls: TlsDemand,
    min_strength: Strength,
    revocation: Revocation,
}

impl OwnDemand {
    /// Makes the policy of one direction. `verify = "dane"` adds no proof here: `layers` adds it,
    /// which knows the TLSA records. Revocation belongs to a path to the connector's anchors.
    // Rule: RFC 7672 §6; policy table (revocation).
    fn policy(self, connector: &Connector, default_names: impl Fn() -> Verify) -> TlsPolicy {
        let (min_version, verify) = match self.tls {
            TlsDemand::Off => return TlsPolicy::Off,
            TlsDemand::Opportunistic => return TlsPolicy::Opportunistic,
            TlsDemand::Forced {
                min_version,
                verify,
            } => (min_version, verify),
        };
        let (verify, revocation) = match verify {
            VerifyWanted::None | VerifyWanted::Dane => (Verify::None, Revocation::Off),
            VerifyWanted::Chain => (Verify::Chain, self.revocation),
            VerifyWanted::Name if connector.names.is_empty() => (default_names(), self.revocation),
            VerifyWanted::Name => (Verify::Name(connector.names.clone()), self.revocation),
            VerifyWanted::Pin => (Verify::Pin(connector.pins.clone()), Revocation::Off),
        };
        TlsPolicy::forced(Demand {
            min_version,
            min_strength: self.min_strength,
            revocation,
            ..Demand::new(self.layer, verify)
        })
    }
}
