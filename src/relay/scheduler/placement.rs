//! The destination of a recipient domain, as its connector says.

use crate::config::{DomainPattern, Route};
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Host;

use super::queues::{Destination, Placement, Share};

/// Returns the destination of mail for a recipient domain, its connection limit and its share of
/// the attempts.
pub(super) fn placement(settings: &Snapshot, host: &Host) -> Placement {
    let connector = settings.connectors.for_host(host);
    let limit = connector.outbound.connections;
    match &connector.outbound.route {
        Route::SmartHosts(_) => {
            let destination = Destination::SmartHosts(connector.name.as_str().into());
            Placement {
                destination,
                limit,
                share: Share::Named,
            }
        }
        Route::Mx { .. } => {
            let share = if connector.domains.iter().all(names_somebody) {
                Share::Named
            } else {
                Share::ByMx
            };
            Placement {
                destination: Destination::Domain(host.clone()),
                limit,
                share,
            }
        }
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
