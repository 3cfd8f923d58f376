//! The JSON output of `gatepost check`. The field names are those of the other JSON documents, and
//! for settings those of the configuration: a released name keeps its meaning, and new ones may be
//! added.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::effective::{EffectiveConnector, EffectiveDomain, EffectiveSetting, SettingOrigin};
use super::load::LoadedConfig;
use super::words;
use crate::cli::connector_name;
use crate::config::{
    Config, Fault, KeyLocations, ListenerConfig, ListenerTls, Location, SettingValue, sections,
};
use crate::explain::document::ExceptionNote;
use crate::net::revocation::CrlFileSummary;
use crate::net::tls_io::IdentitySummary;
use crate::smtp::sasl::Mechanism;

/// The document that `check --json` prints.
#[derive(Serialize)]
pub(super) struct CheckDocument {
    /// The file that was checked.
    file: String,
    /// True if there is no error.
    ok: bool,
    errors: Vec<FaultDocument>,
    warnings: Vec<FaultDocument>,
    /// The configuration; left out if there are errors.
    #[serde(flatten)]
    configuration: Option<ConfigDocument>,
}

/// An error or a warning.
#[derive(Serialize)]
struct FaultDocument {
    #[serde(flatten)]
    location: LocationDocument,
    message: String,
    remedy: String,
}

/// A place in the file.
#[derive(Serialize)]
struct LocationDocument {
    file: String,
    line: u32,
    column: u32,
}

/// The configuration with all defaults.
#[derive(Serialize)]
struct ConfigDocument {
    /// The SHA-256 of the file.
    sha256: String,
    /// The keys before the first table, and the tables without brackets.
    #[serde(flatten, serialize_with = "as_map")]
    tables: Vec<(String, SettingValue)>,
    listeners: Vec<ListenerDocument>,
    connectors: Vec<ConnectorDocument>,
    certificates: Vec<OwnCertificateDocument>,
    /// The CRLs of files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    crls: Vec<CrlDocument>,
}

/// A listener.
#[derive(Serialize)]
struct ListenerDocument {
    name: String,
    addresses: Vec<String>,
    tls: &'static str,
    /// True if clients are asked for a certificate.
    client_certificate: bool,
    proxy_protocol: Vec<String>,
    xclient: Vec<String>,
    /// The mechanisms by which clients can log in, under TLS alone.
    auth: Vec<&'static str>,
    /// True if clients must log in before they send mail.
    auth_required: bool,
    /// The most sessions of clients outside of `[relay] networks`.
    connections: usize,
}

/// One connector, with the file and the warnings.
#[derive(Serialize)]
pub(super) struct OneConnectorDocument {
    file: String,
    ok: bool,
    warnings: Vec<FaultDocument>,
    connector: ConnectorDocument,
}

/// A connector.
#[derive(Serialize)]
struct ConnectorDocument {
    name: String,
    built_in: bool,
    /// The place of its table.
    location: Option<LocationDocument>,
    domains: Vec<DomainRulesDocument>,
    #[serde(flatten, serialize_with = "as_map")]
    settings: Vec<(String, SettingValue)>,
    outbound: DirectionDocument,
    inbound: DirectionDocument,
    /// The exception, in force or ended.
    exception: Option<ExceptionNote>,
    /// The outbound demand after an exception that is in force, in words.
    after_exception: Option<String>,
    /// The places of the settings that are written. All others have their default.
    written: BTreeMap<&'static str, WrittenSetting>,
}

/// One direction of a connector.
#[derive(Serialize)]
struct DirectionDocument {
    /// The demand, in words.
    demand: String,
    #[serde(flatten, serialize_with = "as_map")]
    settings: Vec<(String, SettingValue)>,
}

/// A setting that is written in the file.
#[derive(Serialize)]
struct WrittenSetting {
    /// The table of the key: `[[connector]]`, or `[tls]` for a setting that the connector has from
    /// there.
    table: &'static str,
    #[serde(flatten)]
    location: LocationDocument,
}

/// The rules for the domains of one pattern.
#[derive(Serialize)]
struct DomainRulesDocument {
    pattern: String,
    /// The names that a certificate must carry, in words; `null` if the demand does not verify a
    /// name.
    certificate: Option<String>,
    /// True if any client may send to these domains.
    any_client: bool,
    /// More specific patterns of other connectors.
    others: Vec<OtherPattern>,
    more_others: usize,
}

/// A more specific pattern, and its connector.
#[derive(Serialize)]
struct OtherPattern {
    name: String,
    pattern: String,
}

/// A certificate of this relay.
#[derive(Serialize)]
struct OwnCertificateDocument {
    /// The file.
    place: String,
    names: Vec<String>,
    not_after: Timestamp,
    days_left: i64,
}

/// A CRL of a file.
#[derive(Serialize)]
struct CrlDocument {
    file: String,
    issuer: String,
    entries: usize,
    this_update: Timestamp,
    next_update: Timestamp,
}

impl CrlDocument {
    fn of(crl: &CrlFileSummary) -> Self {
        Self {
            file: crl.file.display().to_string(),
            issuer: crl.issuer.clone(),
            entries: crl.entries,
            this_update: crl.this_update,
            next_update: crl.next_update,
        }
    }
}

impl CheckDocument {
    /// Makes the document of a configuration without errors.
    pub(super) fn of(file: &Path, loaded: &LoadedConfig, now: Timestamp) -> Self {
        let LoadedConfig {
            config,
            identities,
            crls,
            warnings,
            ..
        } = loaded;
        let keys = KeyLocations::of(&config.source);
        let connectors = connector_name::in_force(config);
        let connectors = connectors
            .iter()
            .map(|connector| EffectiveConnector::new(config, &keys, connector, now));
        let configuration = ConfigDocument {
            sha256: config.source.digest.clone(),
            tables: tables(config),
            listeners: config
                .listeners
                .iter()
                .map(|listener| ListenerDocument::of(config, listener))
                .collect(),
            connectors: connectors
                .map(|connector| ConnectorDocument::of(connector, now))
                .collect(),
            certificates: identities
                .iter()
                .map(|identity| OwnCertificateDocument::of(identity, now))
                .collect(),
            crls: crls.iter().map(CrlDocument::of).collect(),
        };
        Self {
            file: file.display().to_string(),
            ok: true,
            errors: Vec::new(),
            warnings: faults(warnings),
            configuration: Some(configuration),
        }
    }

    /// Makes the document of a configuration with errors.
    pub(super) fn of_errors(file: &Path, errors: &[Fault]) -> Self {
        let errors = faults(errors);
        Self {
            file: file.display().to_string(),
            ok: false,
            errors,
            warnings: Vec::new(),
            configuration: None,
        }
    }
}

impl OneConnectorDocument {
    /// Makes the document of one connector.
    pub(super) fn of(
        file: &Path,
        warnings: &[Fault],
        connector: EffectiveConnector,
        now: Timestamp,
    ) -> Self {
        Self {
            file: file.display().to_string(),
            ok: true,
            warnings: faults(warnings),
            connector: ConnectorDocument::of(connector, now),
        }
    }
}

fn faults(faults: &[Fault]) -> Vec<FaultDocument> {
    let document = |Fault {
                        location,
                        message,
                        remedy,
                    }: &Fault| FaultDocument {
        location: location.into(),
        message: message.clone(),
        remedy: remedy.clone(),
    };
    faults.iter().map(document).collect()
}

/// Returns the keys before the first table, and each table under its name.
fn tables(config: &Config) -> Vec<(String, SettingValue)> {
    let (mut tables, mut recipients) = (Vec::new(), Vec::new());
    for section in sections(config) {
        let title = section.title.as_str();
        match title
            .strip_prefix('[')
            .and_then(|title| title.strip_suffix(']'))
        {
            Some(name) => tables.push((name.to_owned(), SettingValue::Table(section.pairs))),
            None if title.is_empty() => tables.extend(pairs(section.pairs)),
            None if title.starts_with("[[recipients]]") => {
                recipients.push(SettingValue::Table(section.pairs));
            }
            // Listeners and connectors have documents of their own.
            None => {}
        }
    }
    tables.push(("recipients".to_owned(), SettingValue::List(recipients)));
    tables
}

fn pairs(pairs: Vec<(&'static str, SettingValue)>) -> impl Iterator<Item = (String, SettingValue)> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
}

fn as_map<S: Serializer>(
    pairs: &[(String, SettingValue)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

impl From<&Location> for LocationDocument {
    fn from(location: &Location) -> Self {
        Self {
            file: location.file.display().to_string(),
            line: location.line,
            column: location.column,
        }
    }
}

impl ListenerDocument {
    fn of(config: &Config, listener: &ListenerConfig) -> Self {
        let (tls, offers_tls) = match listener.tls {
            ListenerTls::Off => ("off", false),
            ListenerTls::Opportunistic => ("opportunistic", true),
            ListenerTls::Forced => ("forced", true),
            ListenerTls::Implicit => ("implicit", true),
        };
        Self {
            name: listener.name.clone(),
            addresses: listener
                .addresses
                .iter()
                .map(|address| address.value.to_string())
                .collect(),
            tls,
            client_certificate: offers_tls && listener.request_client_certificate,
            proxy_protocol: listener
                .proxy_protocol
                .iter()
                .map(ToString::to_string)
                .collect(),
            xclient: listener.xclient.iter().map(ToString::to_string).collect(),
            auth: listener.auth.iter().map(Mechanism::name).collect(),
            auth_required: listener.auth_required,
            connections: config.seats(listener),
        }
    }
}

impl ConnectorDocument {
    fn of(effective: EffectiveConnector, now: Timestamp) -> Self {
        let EffectiveConnector {
            connector,
            location,
            both,
            outbound,
            inbound,
            exception,
            domains,
        } = effective;
        let all = || both.iter().chain(&outbound).chain(&inbound);
        let written = all()
            .filter_map(|setting| Some((setting.path, WrittenSetting::of(&setting.origin)?)))
            .collect();
        Self {
            name: connector.name.clone(),
            built_in: connector.is_built_in(),
            location: location.as_ref().map(Into::into),
            domains: domains.into_iter().map(Into::into).collect(),
            // The domains have documents of their own.
            settings: values(&both).filter(|(key, _)| key != "domains").collect(),
            outbound: DirectionDocument {
                demand: words::outbound_demand(&connector, now).join(", "),
                settings: values(&outbound).collect(),
            },
            inbound: DirectionDocument {
                demand: words::inbound_demand(&connector).join(", "),
                settings: values(&inbound).collect(),
            },
            exception,
            after_exception: words::demand_after_exception(&connector, now)
                .map(|demand| demand.join(", ")),
            written,
        }
    }
}

fn values(settings: &[EffectiveSetting]) -> impl Iterator<Item = (String, SettingValue)> {
    settings
        .iter()
        .map(|setting| (setting.key.to_owned(), setting.value.clone()))
}

impl WrittenSetting {
    fn of(origin: &SettingOrigin) -> Option<Self> {
        match origin {
            SettingOrigin::Written(location) => Some(Self {
                table: "[[connector]]",
                location: location.into(),
            }),
            SettingOrigin::Tls(location) => Some(Self {
                table: "[tls]",
                location: location.into(),
            }),
            SettingOrigin::Default => None,
        }
    }
}

impl From<EffectiveDomain> for DomainRulesDocument {
    fn from(domain: EffectiveDomain) -> Self {
        let EffectiveDomain {
            pattern,
            certificate,
            any_client,
            others,
            more_others,
        } = domain;
        let others = others.into_iter().map(|(pattern, name)| OtherPattern {
            name,
            pattern: pattern.to_string(),
        });
        Self {
            pattern: pattern.to_string(),
            certificate,
            any_client,
            others: others.collect(),
            more_others,
        }
    }
}

impl OwnCertificateDocument {
    fn of(identity: &IdentitySummary, now: Timestamp) -> Self {
        Self {
            place: identity.file.display().to_string(),
            names: identity.names.clone(),
            not_after: identity.not_after,
            days_left: identity.not_after.duration_since(now).as_hours() / 24,
        }
    }
}
