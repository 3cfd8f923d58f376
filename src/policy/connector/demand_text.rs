//! The demand for a hop, as one field of a log line.

use jiff::Timestamp;

use super::exception;
use crate::config::{Connector, TlsDemand};
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

    use super::*;
    use crate::policy::tls::{Demand, Verify};

    fn connector(outbound: &str) -> std::sync::Arc<Connector> {
        let text = format!(
            "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n[[listener]]\nname = \"mx\"\naddress = \
             [\"127.0.0.1:0\"]\ntls = \"off\"\n[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n\
             [connector.outbound]\n{outbound}\n"
        );
        let (config, _) = crate::config::parse(&text, Path::new("gatepost.toml")).expect("good");
        std::sync::Arc::clone(&config.connectors[0])
    }

    #[test]
    fn the_text_names_the_level_and_each_layers_demand() {
        let demand = |layer| Demand::new(layer, Verify::None);
        let forced = |layer| TlsPolicy::forced(demand(layer));
        let lowered = |tls: &str| {
            format!(
                "tls = \"forced\"\nverify = \"chain\"\nexception = {{ tls = \"{tls}\", until = \"2027-01-31\", reason = \"x\" }}"
            )
        };
        let (off, clear, any) = (lowered("off"), lowered("opportunistic"), lowered("forced"));
        for (outbound, policy, now, field) in [
            ("tls = \"off\"", Some(TlsPolicy::Off), "2027-01-01", "off"),
            (
                "tls = \"opportunistic\"",
                Some(TlsPolicy::Opportunistic),
                "2027-01-01",
                "opportunistic",
            ),
            (
                "tls = \"forced\"",
                Some(forced(Layer::Connector)),
                "2027-01-01",
                "forced (connector: TLS)",
            ),
            (
                "tls = \"opportunistic\"",
                Some(forced(Layer::DowngradeMemory)),
                "2027-01-01",
                "forced (downgrade memory: TLS)",
            ),
            (
                "tls = \"opportunistic\"",
                Some(forced(Layer::RequireTls)),
                "2027-01-01",
                "forced (REQUIRETLS: TLS)",
            ),
            (
                "tls = \"forced\"",
                Some(
                    forced(Layer::Connector)
                        .raised_by(demand(Layer::Dane))
                        .raised_by(demand(Layer::MtaSts)),
                ),
                "2027-01-01",
                "forced (connector: TLS; DANE: TLS; MTA-STS: TLS)",
            ),
            (
                &*clear,
                Some(TlsPolicy::Opportunistic),
                "2027-01-31",
                "opportunistic (exception until 2027-01-31)",
            ),
            (
                &*off,
                Some(TlsPolicy::Off),
                "2027-01-31",
                "off (exception until 2027-01-31)",
            ),
            (
                &*any,
                Some(forced(Layer::Exception)),
                "2027-01-31",
                "forced (exception until 2027-01-31: TLS)",
            ),
            (
                &*clear,
                Some(forced(Layer::Dane)),
                "2027-01-31",
                "forced (DANE: TLS; exception until 2027-01-31)",
            ),
            // The exception has ended.
            (
                &*clear,
                Some(forced(Layer::Connector)),
                "2027-02-01",
                "forced (connector: TLS)",
            ),
            // The attempt did not get as far as a hop.
            (
                &*clear,
                None,
                "2027-01-31",
                "opportunistic (exception until 2027-01-31)",
            ),
            (&*clear, None, "2027-02-01", "forced (connector)"),
            (
                "tls = \"opportunistic\"",
                None,
                "2027-02-01",
                "opportunistic",
            ),
        ] {
            let now = format!("{now}T12:00:00Z").parse().expect("a time");
            assert_eq!(
                describe_demand(&connector(outbound), policy.as_ref(), now),
                field,
                "{outbound}"
            );
        }
    }
}
