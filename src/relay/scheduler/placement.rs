//! The destination of a recipient domain, as the connector of the mail says.

use crate::config::{DomainPattern, Route};
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Host;

use super::queues::{Destination, Item, Placement, Share};

/// Returns the destination of an item, its connection limit and its share of the attempts.
pub(super) fn placement_of<T>(settings: &Snapshot, item: &Item<T>) -> Placement {
    placement(settings, &item.host, item.user_connector.as_deref())
}

/// Returns the destination of mail for a recipient domain, its connection limit and its share of
/// the attempts. Mail by the connector of a user shares a destination with other mail only if it
/// takes the same way.
pub(super) fn placement(
    settings: &Snapshot,
    host: &Host,
    user_connector: Option<&str>,
) -> Placement {
    let own = settings.connectors.for_host(host);
    let connector = settings.connectors.routing(host, user_connector);
    let limit = connector.outbound.connections;
    let by_user = user_connector.filter(|name| *name != own.name);
    let is_missing = settings.connectors.missing(user_connector).is_some();
    let destination = match (&connector.outbound.route, by_user) {
        (Route::SmartHosts(_), _) if !is_missing => {
            Destination::SmartHosts(connector.name.as_str().into())
        }
        (_, Some(name)) => Destination::DomainBy(name.into(), host.clone()),
        (_, None) => Destination::Domain(host.clone()),
    };
    let share = match destination {
        Destination::SmartHosts(_) => Share::Named,
        Destination::Domain(_) | Destination::DomainBy(..) => {
            if connector.domains.iter().all(names_somebody) {
                Share::Named
            } else {
                Share::ByMx
            }
        }
    };
    Placement {
        destination,
        limit,
        share,
    }
}

/// Returns true when a pattern names particular domains: not `*`, and not all domains of a
/// top-level domain.
fn names_somebody(pattern: &DomainPattern) -> bool {
    match pattern {
        DomainPattern::Any => false,
        DomainPattern::Below(domain) => domain.parent().is_some(),
        DomainPattern::Exactly(_) => true,
    }
}
