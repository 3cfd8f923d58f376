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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;

    fn snapshot() -> Snapshot {
        let connector = |name: &str, domain: &str, outbound: &str| {
            format!(
                "[[connector]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\noutbound.{outbound}\n"
            )
        };
        let text = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n\
                    [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n"
            .to_owned()
            + &connector("own", "own.example", "tls = \"opportunistic\"")
            + &connector("port", "port.example", "port = 2525")
            + &connector("smart", "smart.example", "route = [\"127.0.0.1:2626\"]");
        let (config, _) = crate::config::parse(&text, Path::new("gatepost.toml")).expect("good");
        let (tls, _) = crate::net::tls_io::TlsMaterial::load(&config).expect("it names no files");
        let dns = crate::net::dns::Dns::new(&config.dns).expect("a resolver");
        Snapshot::new(Arc::new(config), tls, dns)
    }

    /// Two ways to one domain have a backoff and a concurrency each.
    #[test]
    fn mail_shares_a_destination_only_with_mail_that_goes_the_same_way() {
        let snapshot = snapshot();
        let smart = || Destination::SmartHosts("smart".into());
        for (domain, user_connector, expected) in [
            ("own.example", None, None),
            ("own.example", Some("own"), None),
            ("own.example", Some("port"), Some("port")),
            ("own.example", Some("gone"), Some("gone")),
            ("smart.example", Some("gone"), Some("gone")),
        ] {
            let host = Host::parse(domain).expect("a domain");
            let destination = placement(&snapshot, &host, user_connector).destination;
            let expected = match expected {
                Some(name) => Destination::DomainBy(name.into(), host),
                None => Destination::Domain(host),
            };
            assert_eq!(destination, expected, "{domain} {user_connector:?}");
        }
        for (domain, user_connector) in [
            ("smart.example", None),
            ("smart.example", Some("smart")),
            ("own.example", Some("smart")),
        ] {
            let host = Host::parse(domain).expect("a domain");
            let found = placement(&snapshot, &host, user_connector);
            assert_eq!(found.destination, smart(), "{domain} {user_connector:?}");
        }
    }
}
