//! A connector's own demand in either direction, before any other layer adds to it.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::rules::{Connector, TlsDemand, TlsException, VerifyWanted};
use crate::policy::tls::{Demand, Layer, NamePattern, Strength, TlsPolicy, Unmeetable, Verify};
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
    let (layer, demand) = match exception(connector, now) {
        Some(exception) => (Layer::Exception, exception.tls),
        None => (Layer::Connector, connector.outbound.tls),
    };
    floor(
        connector,
        layer,
        demand,
        connector.outbound.min_strength,
        default_names,
    )
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
    floor(
        connector,
        Layer::Connector,
        connector.inbound.tls,
        Strength::Classical,
        || Verify::Name(Vec::new()),
    )
}

/// Makes the policy of one direction. `verify = "dane"` adds no proof here: `layers` adds it, which
/// knows the TLSA records.
// Rule: RFC 7672 §6.
fn floor(
    connector: &Connector,
    layer: Layer,
    demand: TlsDemand,
    min_strength: Strength,
    default_names: impl Fn() -> Verify,
) -> TlsPolicy {
    match demand {
        TlsDemand::Off => TlsPolicy::Off,
        TlsDemand::Opportunistic => TlsPolicy::Opportunistic,
        TlsDemand::Forced {
            min_version,
            verify,
        } => {
            let verify = match verify {
                VerifyWanted::None => Verify::None,
                VerifyWanted::Chain => Verify::Chain,
                VerifyWanted::Name if connector.names.is_empty() => default_names(),
                VerifyWanted::Name => Verify::Name(connector.names.clone()),
                VerifyWanted::Pin => Verify::Pin(connector.pins.clone()),
                VerifyWanted::Dane => Verify::None,
            };
            TlsPolicy::forced(Demand {
                min_version,
                min_strength,
                ..Demand::new(layer, verify)
            })
        }
    }
}
