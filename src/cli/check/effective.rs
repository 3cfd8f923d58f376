//! The effective settings of a connector: every value, with the place that it comes from.

use std::sync::Arc;

use jiff::Timestamp;

use super::words;
use crate::cli::connector_name;
use crate::config::{
    Config, Connector, DomainPattern, KeyLocations, Location, Route, SettingValue, TlsDemand,
    VerifyWanted, connector_section,
};
use crate::explain::document::ExceptionNote;
use crate::policy::connector::exception;
use crate::smtp::address::Domain;

/// The most patterns of other connectors that are listed for a domain.
const OTHERS_MAX: usize = 10;

/// A connector with its effective settings.
pub(super) struct EffectiveConnector {
    pub(super) connector: Arc<Connector>,
    /// The place of its table; `None` for the built-in default.
    pub(super) location: Option<Location>,
    /// The settings for both directions.
    pub(super) both: Vec<EffectiveSetting>,
    pub(super) outbound: Vec<EffectiveSetting>,
    pub(super) inbound: Vec<EffectiveSetting>,
    /// The exception, in force or ended.
    pub(super) exception: Option<ExceptionNote>,
    pub(super) domains: Vec<EffectiveDomain>,
}

/// A setting with its effective value.
pub(super) struct EffectiveSetting {
    /// The key without its table.
    pub(super) key: &'static str,
    /// The key with its table, such as `outbound.tls`.
    pub(super) path: &'static str,
    pub(super) value: SettingValue,
    pub(super) origin: SettingOrigin,
}

/// The place that a value comes from.
pub(super) enum SettingOrigin {
    /// The key is written here.
    Written(Location),
    /// The key is not written, and the same key of `[tls]` is, here.
    Tls(Location),
    /// The key is not written: the value is the default, or there is none.
    Default,
}

/// The rules for the domains of one pattern of a connector.
pub(super) struct EffectiveDomain {
    pub(super) pattern: DomainPattern,
    /// The names that a certificate must carry, in words; `None` if the demand does not verify a
    /// name.
    pub(super) certificate: Option<String>,
    /// True if any client may send to these domains.
    pub(super) any_client: bool,
    /// More specific patterns, with the connectors that they belong to.
    pub(super) others: Vec<(DomainPattern, String)>,
    /// The number of further ones.
    pub(super) more_others: usize,
}

impl EffectiveConnector {
    /// Resolves a connector of a configuration.
    pub(super) fn new(
        config: &Config,
        keys: &KeyLocations,
        connector: &Arc<Connector>,
        now: Timestamp,
    ) -> Self {
        let section = connector_section(connector);
        let title = section.title;
        let (mut both, mut outbound, mut inbound) = (Vec::new(), Vec::new(), Vec::new());
        for (path, value) in section.pairs {
            let origin = origin(keys, &title, path, &value);
            let (group, key) = match (
                path.strip_prefix("outbound."),
                path.strip_prefix("inbound."),
            ) {
                (Some(key), _) => (&mut outbound, key),
                (None, Some(key)) => (&mut inbound, key),
                (None, None) => (&mut both, path),
            };
            group.push(EffectiveSetting {
                key,
                path,
                value,
                origin,
            });
        }
        Self {
            connector: Arc::clone(connector),
            location: keys.table(&title).cloned(),
            both,
            outbound,
            inbound,
            exception: ExceptionNote::of(connector, now),
            domains: connector
                .domains
                .iter()
                .map(|pattern| domain(config, connector, pattern, now))
                .collect(),
        }
    }
}

/// Returns the place of a connector's setting. Trust anchors and oldest version come from `[tls]`
/// where a connector has none of its own.
fn origin(keys: &KeyLocations, title: &str, path: &str, value: &SettingValue) -> SettingOrigin {
    // What a connector writes for both directions counts as written.
    let written = keys.get(title, path).or_else(|| match path {
        "outbound.revocation" | "inbound.revocation" if !value.is_unset() => {
            keys.get(title, "revocation")
        }
        _ => None,
    });
    let inherited = match path {
        "trust" => keys.get("[tls]", "trust"),
        "outbound.min_version" | "inbound.min_version" => keys.get("[tls]", "min_version"),
        _ => None,
    };
    match (written, inherited) {
        (Some(location), _) => SettingOrigin::Written(location.clone()),
        (None, Some(location)) if !value.is_unset() => SettingOrigin::Tls(location.clone()),
        (None, _) => SettingOrigin::Default,
    }
}

fn domain(
    config: &Config,
    connector: &Arc<Connector>,
    pattern: &DomainPattern,
    now: Timestamp,
) -> EffectiveDomain {
    let mut others = Vec::new();
    for other in connector_name::all(config)
        .iter()
        .filter(|other| other.name != connector.name)
    {
        // Only the built-in connector has a pattern that another one may have as well.
        let is_other = |inner: &&DomainPattern| *inner != pattern || connector.is_built_in();
        let inside = other
            .domains
            .iter()
            .filter(|inner| covers(pattern, inner))
            .filter(is_other);
        others.extend(inside.map(|inner| (inner.clone(), other.name.clone())));
    }
    let more_others = others.len().saturating_sub(OTHERS_MAX);
    others.truncate(OTHERS_MAX);
    EffectiveDomain {
        pattern: pattern.clone(),
        certificate: certificate(connector, pattern, now),
        any_client: config
            .relay
            .domains
            .iter()
            .any(|ours| covers(ours, pattern)),
        others,
        more_others,
    }
}

/// Returns true if each domain of the inner pattern is one of the outer pattern.
fn covers(outer: &DomainPattern, inner: &DomainPattern) -> bool {
    let below = |name: &Domain, base: &Domain| name.is_below(base);
    match (outer, inner) {
        (DomainPattern::Any, _) => true,
        (_, DomainPattern::Any) | (DomainPattern::Exactly(_), DomainPattern::Below(_)) => false,
        (DomainPattern::Below(base), DomainPattern::Below(inner)) => {
            inner == base || below(inner, base)
        }
        (DomainPattern::Below(base), DomainPattern::Exactly(inner)) => below(inner, base),
        (DomainPattern::Exactly(name), DomainPattern::Exactly(inner)) => name == inner,
    }
}

/// Returns the names that the certificate of a host for these domains must carry.
fn certificate(connector: &Connector, pattern: &DomainPattern, now: Timestamp) -> Option<String> {
    let demand =
        exception(connector, now).map_or(connector.outbound.tls, |exception| exception.tls);
    if !matches!(
        demand,
        TlsDemand::Forced {
            verify: VerifyWanted::Name,
            ..
        }
    ) {
        return None;
    }
    let names = |names: Vec<String>| Some(names.join(" or "));
    if !connector.names.is_empty() {
        return names(connector.names.iter().map(ToString::to_string).collect());
    }
    match (&connector.outbound.route, pattern) {
        (Route::SmartHosts(hosts), _) => {
            names(hosts.iter().map(|smart| smart.host.to_string()).collect())
        }
        (Route::Mx { .. }, DomainPattern::Exactly(domain)) => {
            Some(format!("{domain} or *.{domain}"))
        }
        (route @ Route::Mx { .. }, DomainPattern::Below(_) | DomainPattern::Any) => {
            Some(words::default_name(route).to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pattern covers another one if all of its domains are its own.
    #[test]
    fn a_pattern_covers_those_inside_of_it() {
        let pattern = |text: &str| match text.strip_prefix("*.") {
            Some(base) => DomainPattern::Below(Domain::parse(base).expect("a domain")),
            None if text == "*" => DomainPattern::Any,
            None => DomainPattern::Exactly(Domain::parse(text).expect("a domain")),
        };
        for (outer, inner, inside) in [
            ("*", "*", true),
            ("*", "example.org", true),
            ("*.example.org", "*.example.org", true),
            ("*.example.org", "*.a.example.org", true),
            ("*.example.org", "a.example.org", true),
            ("example.org", "example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "*", false),
            ("*.a.example.org", "*.example.org", false),
            ("example.org", "*.example.org", false),
            ("example.org", "a.example.org", false),
            ("*.example.org", "badexample.org", false),
        ] {
            assert_eq!(
                covers(&pattern(outer), &pattern(inner)),
                inside,
                "{outer} {inner}"
            );
        }
    }
}
