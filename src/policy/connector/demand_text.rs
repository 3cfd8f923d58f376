//! The demand for a hop, as one field of a log line.

use jiff::Timestamp;

use super::exception;
use super::rules::{Connector, TlsDemand};
use crate::policy::tls::{Layer, TlsPolicy};

/// Describes the demand in force for a hop: its level, and each demand with its layer, as in
/// `forced (connector: TLS; DANE: TLS with …)`. An exception in force is named with its last day.
///
/// Without a policy the attempt did not get as far as a hop, and only the connector's own level is
/// known.
#[must_use]
pub fn describe_demand(
    connector: &Connector,
    policy: Option<&TlsPolicy>,
    now: Timestamp,
) -> String {
    let exception = exception(connector, now);
    let until = exception.map(|exception| format!("exception until {}", exception.until));
    let (level, mut layers) = match policy {
        Some(policy) => (policy.level(), layers(policy, until.as_deref())),
        None => {
            connector_level(exception.map_or(connector.outbound.tls, |exception| exception.tls))
        }
    };
    if let Some(until) = until
        && !layers.iter().any(|layer| layer.starts_with(&until))
    {
        layers.push(until);
    }
    if layers.is_empty() {
        level.to_owned()
    } else {
        format!("{level} ({})", layers.join("; "))
    }
}

fn layers(policy: &TlsPolicy, until: Option<&str>) -> Vec<String> {
    let layers = policy.demands().map(|demand| match (demand.layer, until) {
        (Layer::Exception, Some(until)) => format!("{until}: {demand}"),
        (layer, _) => format!("{layer}: {demand}"),
    });
    layers.collect()
}

fn connector_level(tls: TlsDemand) -> (&'static str, Vec<String>) {
    match tls {
        TlsDemand::Off => ("off", Vec::new()),
        TlsDemand::Opportunistic => ("opportunistic", Vec::new()),
        TlsDemand::Forced { .. } => ("forced", vec![Layer::Connector.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::identity_files::TrustSource;
    use super::super::rules::{TlsException, VerifyWanted, default_connector};
    use super::*;
    use crate::policy::location::{Located, Location};
    use crate::policy::tls::{Demand, TlsVersion, Verify};

    /// A connector by its level, such as `forced`, or `forced except off` with an exception.
    fn connector(outbound: &str) -> Connector {
        let location = Location {
            file: Arc::from(Path::new("gatepost.toml")),
            line: 1,
            column: 1,
        };
        let default = default_connector(&Located {
            value: TrustSource::Webpki,
            location: location.clone(),
        });
        let level = |word: &str| match word {
            "off" => TlsDemand::Off,
            "opportunistic" => TlsDemand::Opportunistic,
            _ => TlsDemand::Forced {
                min_version: TlsVersion::V1_2,
                verify: VerifyWanted::None,
            },
        };
        let (own, lowered) = outbound.split_once(" except ").unwrap_or((outbound, ""));
        let mut connector = (*default).clone();
        connector.outbound.tls = level(own);
        connector.outbound.exception = (!lowered.is_empty()).then(|| TlsException {
            tls: level(lowered),
            until: jiff::civil::date(2027, 1, 31),
            reason: "x".to_owned(),
            location,
        });
        connector
    }

    /// One case: the connector, the policy of the hop, the day, and the text.
    type Case = (&'static str, Option<TlsPolicy>, &'static str, &'static str);

    fn demand(layer: Layer) -> Demand {
        Demand::new(layer, Verify::None)
    }

    fn forced(layer: Layer) -> TlsPolicy {
        TlsPolicy::forced(demand(layer))
    }

    fn check(cases: impl IntoIterator<Item = Case>) {
        for (outbound, policy, now, field) in cases {
            let now = format!("{now}T12:00:00Z").parse().expect("a time");
            let text = describe_demand(&connector(outbound), policy.as_ref(), now);
            assert_eq!(text, field, "{outbound}");
        }
    }

    #[test]
    fn the_text_names_the_level_and_each_layers_demand() {
        check([
            ("off", Some(TlsPolicy::Off), "2027-01-01", "off"),
            (
                "opportunistic",
                Some(TlsPolicy::Opportunistic),
                "2027-01-01",
                "opportunistic",
            ),
            (
                "forced",
                Some(forced(Layer::Connector)),
                "2027-01-01",
                "forced (connector: TLS)",
            ),
            (
                "opportunistic",
                Some(forced(Layer::DowngradeMemory)),
                "2027-01-01",
                "forced (downgrade memory: TLS)",
            ),
            (
                "opportunistic",
                Some(forced(Layer::RequireTls)),
                "2027-01-01",
                "forced (REQUIRETLS: TLS)",
            ),
            (
                "forced",
                Some(
                    forced(Layer::Connector)
                        .raised_by(demand(Layer::Dane))
                        .raised_by(demand(Layer::MtaSts)),
                ),
                "2027-01-01",
                "forced (connector: TLS; DANE: TLS; MTA-STS: TLS)",
            ),
            ("opportunistic", None, "2027-02-01", "opportunistic"),
        ]);
    }

    #[test]
    fn the_text_names_an_exception_until_its_last_day() {
        check([
            (
                "forced except opportunistic",
                Some(TlsPolicy::Opportunistic),
                "2027-01-31",
                "opportunistic (exception until 2027-01-31)",
            ),
            (
                "forced except off",
                Some(TlsPolicy::Off),
                "2027-01-31",
                "off (exception until 2027-01-31)",
            ),
            (
                "forced except forced",
                Some(forced(Layer::Exception)),
                "2027-01-31",
                "forced (exception until 2027-01-31: TLS)",
            ),
            (
                "forced except opportunistic",
                Some(forced(Layer::Dane)),
                "2027-01-31",
                "forced (DANE: TLS; exception until 2027-01-31)",
            ),
            // The exception has ended.
            (
                "forced except opportunistic",
                Some(forced(Layer::Connector)),
                "2027-02-01",
                "forced (connector: TLS)",
            ),
            // The attempt did not get as far as a hop.
            (
                "forced except opportunistic",
                None,
                "2027-01-31",
                "opportunistic (exception until 2027-01-31)",
            ),
            (
                "forced except opportunistic",
                None,
                "2027-02-01",
                "forced (connector)",
            ),
        ]);
    }
}
