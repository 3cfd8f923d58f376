//! Connectors by name, as users type them.

use std::sync::Arc;

use super::format::short;
use crate::config::{Config, Connector, DomainPattern, default_connector, nearest_word};

/// The most names that an error lists.
const LISTED_MAX: usize = 20;

/// The error for a name that no connector has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no connector \"{name}\"{}", hint(.nearest.as_deref(), .names))]
pub(super) struct UnknownConnector {
    name: String,
    nearest: Option<String>,
    names: Vec<String>,
}

fn hint(nearest: Option<&str>, names: &[String]) -> String {
    let names = match names.len() {
        0..=LISTED_MAX => format!("there are: {}", names.join(", ")),
        count => format!("`gatepost check` shows all {count}"),
    };
    match nearest {
        Some(nearest) => format!("; did you mean \"{nearest}\"? ({names})"),
        None => format!("; {names}"),
    }
}

/// Returns all connectors, the built-in default last.
pub(super) fn all(config: &Config) -> Vec<Arc<Connector>> {
    let built_in = default_connector(&config.tls.trust);
    config
        .connectors
        .iter()
        .cloned()
        .chain([built_in])
        .collect()
}

/// Returns the connectors that have domains: without the built-in default if another one has the
/// pattern `*`.
pub(super) fn in_force(config: &Config) -> Vec<Arc<Connector>> {
    let mut all = all(config);
    if config
        .connectors
        .iter()
        .any(|connector| connector.domains.contains(&DomainPattern::Any))
    {
        all.pop();
    }
    all
}

/// Returns the connector with a name, also the built-in one.
pub(super) fn find(config: &Config, name: &str) -> Result<Arc<Connector>, UnknownConnector> {
    let all = all(config);
    if let Some(connector) = all.iter().find(|connector| connector.name == name) {
        return Ok(Arc::clone(connector));
    }
    let names = all.iter().map(|connector| connector.name.clone()).collect();
    Err(unknown(name, names))
}

/// Returns the error about a name that none of the existing connectors has.
pub(super) fn unknown(name: &str, names: Vec<String>) -> UnknownConnector {
    let lower: Vec<_> = names.iter().map(|name| name.to_lowercase()).collect();
    let nearest = nearest_word(name, &lower.iter().map(String::as_str).collect::<Vec<_>>());
    let nearest = nearest
        .and_then(|near| lower.iter().position(|name| name == near))
        .map(|at| names[at].clone());
    UnknownConnector {
        name: short(name),
        nearest,
        names,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A connector is found by its name alone, the built-in one too; a misspelt name leads to the
    /// nearest.
    #[test]
    fn a_misspelt_name_leads_to_the_nearest_connector() {
        let connector = |name: &str| {
            format!("[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\n")
        };
        let text = format!(
            "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n[[listener]]\nname = \"mx\"\naddress = \
             [\"127.0.0.1:0\"]\ntls = \"off\"\n{}{}",
            connector("Hospital"),
            connector("lawyers")
        );
        let (config, _) = crate::config::parse(&text, Path::new("gatepost.toml")).expect("good");
        for name in ["Hospital", "lawyers", "default"] {
            assert_eq!(
                find(&config, name)
                    .map(|connector| connector.name.clone())
                    .as_deref(),
                Ok(name)
            );
        }
        for (name, hint) in [
            (
                "hospitl",
                "; did you mean \"Hospital\"? (there are: Hospital, lawyers, default)",
            ),
            (
                "lawers",
                "; did you mean \"lawyers\"? (there are: Hospital, lawyers, default)",
            ),
            ("bank", "; there are: Hospital, lawyers, default"),
        ] {
            let error = find(&config, name)
                .expect_err("an unknown name")
                .to_string();
            assert_eq!(error, format!("there is no connector \"{name}\"{hint}"));
        }
        assert_eq!(in_force(&config).len(), 3);
        assert!(!hint(None, &vec!["a".to_owned(); 21]).contains("a, a"));
    }
}
