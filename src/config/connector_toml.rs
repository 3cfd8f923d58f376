//! The `[[connector]]` tables as written, and their resolution. Rules between keys are in
//! [`super::connector_rules`].

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use super::auth_toml::auth;
use super::exception_toml::ExceptionToml;
use super::fault_list::FaultList;
use super::hosts::{domain, domain_pattern, name_pattern, network, smart_host};
use super::reader::{Field, TableReader, TomlValue};
use super::schedule_toml::schedule_overrides;
use super::settings::TlsConfig;
use super::source_address::source;
use super::spelling::shorten;
use super::tls_level::WrittenTlsLevel;
use super::tls_toml::identity;
use super::values::{
    boolean, choice, count, full_list, label, list, path, pin, port, text, trust, version,
    without_locations,
};
use crate::policy::connector::{
    CONNECTIONS, Connector, DomainPattern, EVERYTHING, IdentityFiles, InboundConfig,
    MESSAGES_PER_CONNECTION, MX_PORT, OnDowngrade, OnFailure, OutboundConfig, Publication, Route,
    ScheduleOverrides, SmartHost, SmartHostAuth, TlsDemand, TrustSource, VerifyWanted,
};
use crate::policy::location::{Located, Location};
use crate::policy::tls::{NamePattern, Pin, Revocation, Strength, TlsVersion};
use crate::smtp::address::Domain;

const COUNT_MAX: u32 = 1_000_000;

/// The values of `verify` in both directions.
const VERIFY: [(&str, VerifyWanted); 4] = [
    ("none", VerifyWanted::None),
    ("chain", VerifyWanted::Chain),
    ("name", VerifyWanted::Name),
    ("pin", VerifyWanted::Pin),
];

/// The names of key exchange strengths.
const STRENGTHS: [(&str, Strength); 2] = [
    ("post-quantum", Strength::PostQuantum),
    ("classical", Strength::Classical),
];

/// The values of `revocation`.
const REVOCATION: [(&str, Revocation); 3] = [
    ("off", Revocation::Off),
    ("if-known", Revocation::IfKnown),
    ("required", Revocation::Required),
];

/// `route`, as written.
#[derive(Debug, Clone)]
pub(super) enum RouteToml {
    Mx,
    SmartHosts(Vec<Located<SmartHost>>),
}

/// A `[[connector]]` table, as written.
pub(super) struct ConnectorToml {
    pub(super) name: Field<String>,
    pub(super) domains: Field<Vec<Located<DomainPattern>>>,
    pub(super) names: Field<Vec<Located<NamePattern>>>,
    pub(super) trust: Field<TrustSource>,
    pub(super) pins: Field<Vec<Located<Pin>>>,
    pub(super) crl: Field<Vec<Located<PathBuf>>>,
    pub(super) revocation: Field<Revocation>,
    pub(super) outbound: OutboundToml,
    pub(super) inbound: InboundToml,
}

/// A `[connector.outbound]` table, as written.
pub(super) struct OutboundToml {
    pub(super) route: Field<RouteToml>,
    pub(super) port: Field<u16>,
    pub(super) tls: Field<WrittenTlsLevel>,
    pub(super) verify: Field<VerifyWanted>,
    pub(super) min_version: Field<TlsVersion>,
    pub(super) discover: Field<Vec<Publication>>,
    pub(super) downgrade: Field<OnDowngrade>,
    pub(super) exception: Field<ExceptionToml>,
    pub(super) revocation: Field<Revocation>,
    pub(super) on_failure: Field<OnFailure>,
    pub(super) client_identity: Field<IdentityFiles>,
    pub(super) groups: Field<Strength>,
    pub(super) min_strength: Field<Strength>,
    connections: u32,
    messages_per_connection: u32,
    source: Field<Vec<IpAddr>>,
    ehlo: Field<Domain>,
    pub(super) auth: Field<SmartHostAuth>,
    schedule: ScheduleOverrides,
}

/// A `[connector.inbound]` table, as written.
pub(super) struct InboundToml {
    pub(super) location: Location,
    pub(super) tls: Field<WrittenTlsLevel>,
    pub(super) verify: Field<VerifyWanted>,
    pub(super) revocation: Field<Revocation>,
    pub(super) networks: Field<Vec<IpNet>>,
    pub(super) relay: Field<bool>,
}

impl ConnectorToml {
    pub(super) fn read(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let name = table.required(faults, "name", "name = \"partner\"", label);
        let domains = table.required(
            faults,
            "domains",
            "domains = [\"example.org\"]",
            |value, faults| {
                full_list(
                    value,
                    faults,
                    "Write the domains that it covers; [\"*\"] for all others.",
                    domain_pattern,
                )
            },
        );
        let names = table.read(faults, "names", |value, faults| {
            full_list(
                value,
                faults,
                "Write the names that the partner's certificates carry, or remove it.",
                name_pattern,
            )
        });
        let trust = table.read(faults, "trust", trust);
        let pins = table.read(faults, "pins", |value, faults| {
            full_list(
                value,
                faults,
                "Write the partner's keys: [\"sha256:…\"]; or remove it.",
                pin,
            )
        });
        let crl = table.read(faults, "crl", |value, faults| {
            full_list(
                value,
                faults,
                "Write the files with the CRLs of the partner's authorities: [\"partner.crl\"]; or remove it.",
                path,
            )
        });
        let revocation = table.read(faults, "revocation", revocation);
        let outbound = table.table(faults, "outbound", "[connector.outbound]");
        let outbound = OutboundToml::read(outbound, faults);
        let inbound = table.table(faults, "inbound", "[connector.inbound]");
        let inbound = InboundToml::read(inbound, faults);
        table.finish(faults);
        Self {
            name,
            domains,
            names,
            trust,
            pins,
            crl,
            revocation,
            outbound,
            inbound,
        }
    }

    pub(super) fn resolve(self, own: &TlsConfig) -> Arc<Connector> {
        let revocation = self.revocation.or(Revocation::Off);
        Arc::new(Connector {
            name: self.name.or(String::new()),
            domains: without_locations(self.domains.or(Vec::new())),
            names: without_locations(self.names.or(Vec::new())),
            trust: match self.trust {
                Field::Valid(trust) => trust,
                Field::Absent | Field::Invalid => own.trust.clone(),
            },
            pins: without_locations(self.pins.or(Vec::new())),
            crl: self.crl.or(Vec::new()),
            outbound: self.outbound.resolve(own, revocation),
            inbound: self.inbound.resolve(own, revocation),
            floor: None,
        })
    }
}

impl OutboundToml {
    fn read(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let written = Self {
            route: table.read(faults, "route", route),
            port: table.read(faults, "port", port),
            tls: table.read(faults, "tls", |value, faults| {
                choice(value, faults, &WrittenTlsLevel::OUTBOUND)
            }),
            verify: table.read(faults, "verify", |value, faults| {
                choice(
                    value,
                    faults,
                    &[VERIFY.as_slice(), &[("dane", VerifyWanted::Dane)]].concat(),
                )
            }),
            min_version: table.read(faults, "min_version", version),
            discover: table.read(faults, "discover", discover),
            downgrade: table.read(faults, "downgrade", |value, faults| {
                let ways = [
                    ("allow", OnDowngrade::Allow),
                    ("warn", OnDowngrade::Warn),
                    ("refuse", OnDowngrade::Refuse),
                ];
                choice(value, faults, &ways)
            }),
            exception: ExceptionToml::read(&mut table, faults),
            revocation: table.read(faults, "revocation", revocation),
            on_failure: table.read(faults, "on_failure", |value, faults| {
                let ways = [
                    ("defer", OnFailure::Defer),
                    ("hold", OnFailure::Hold),
                    ("bounce", OnFailure::Bounce),
                ];
                choice(value, faults, &ways)
            }),
            client_identity: identity(&mut table, faults, "client_certificate", "client_key"),
            groups: table.read(faults, "groups", |value, faults| {
                choice(value, faults, &STRENGTHS)
            }),
            min_strength: table.read(faults, "min_strength", |value, faults| {
                choice(value, faults, &STRENGTHS)
            }),
            connections: table.read_or(faults, "connections", CONNECTIONS, |value, faults| {
                count(value, faults, COUNT_MAX)
            }),
            messages_per_connection: table.read_or(
                faults,
                "messages_per_connection",
                MESSAGES_PER_CONNECTION,
                |value, faults| count(value, faults, COUNT_MAX),
            ),
            source: table.read(faults, "source", source),
            ehlo: table.read(faults, "ehlo", domain),
            auth: auth(&mut table, faults),
            schedule: schedule_overrides(&mut table, faults),
        };
        table.finish(faults);
        written
    }

    fn resolve(self, own: &TlsConfig, revocation: Revocation) -> OutboundConfig {
        let min_version = self.min_version.or(own.min_version);
        let route = match self.route.or(RouteToml::Mx) {
            RouteToml::Mx => Route::Mx {
                port: self.port.or(MX_PORT),
            },
            RouteToml::SmartHosts(hosts) => Route::SmartHosts(without_locations(hosts)),
        };
        let exception = match self.exception {
            Field::Valid(exception) => {
                Some(exception.value.resolve(min_version, exception.location))
            }
            Field::Absent | Field::Invalid => None,
        };
        let tls = demand(self.tls, self.verify, min_version);
        OutboundConfig {
            route,
            tls,
            discover: self.discover.or(if tls == TlsDemand::Off {
                Vec::new()
            } else {
                EVERYTHING.to_vec()
            }),
            downgrade: self.downgrade.or(OnDowngrade::Warn),
            exception,
            revocation: revocation_of(self.revocation.or(revocation), tls),
            on_failure: self.on_failure.or(OnFailure::Defer),
            client_identity: match self.client_identity {
                Field::Valid(files) => Some(files.value),
                Field::Absent | Field::Invalid => None,
            },
            groups: self.groups.or(Strength::PostQuantum),
            min_strength: self.min_strength.or(Strength::Classical),
            connections: self.connections,
            messages_per_connection: self.messages_per_connection,
            source: self.source.or(Vec::new()),
            ehlo: match self.ehlo {
                Field::Valid(name) => Some(name.value),
                Field::Absent | Field::Invalid => None,
            },
            auth: match self.auth {
                Field::Valid(auth) => Some(auth.value),
                Field::Absent | Field::Invalid => None,
            },
            schedule: self.schedule,
        }
    }
}

impl InboundToml {
    fn read(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let written = Self {
            location: table.location().clone(),
            tls: table.read(faults, "tls", |value, faults| {
                choice(value, faults, &WrittenTlsLevel::INBOUND)
            }),
            verify: table.read(faults, "verify", |value, faults| {
                choice(value, faults, &VERIFY)
            }),
            revocation: table.read(faults, "revocation", revocation),
            networks: table.read(faults, "networks", |value, faults| {
                let remedy =
                    "Write the networks that their mail comes from, or remove it for anywhere.";
                full_list(value, faults, remedy, network).map(without_locations)
            }),
            relay: table.read(faults, "relay", boolean),
        };
        table.finish(faults);
        written
    }

    fn resolve(self, own: &TlsConfig, revocation: Revocation) -> InboundConfig {
        let tls = demand(self.tls, self.verify, own.min_version);
        InboundConfig {
            tls,
            revocation: revocation_of(self.revocation.or(revocation), tls),
            networks: self.networks.or(Vec::new()),
            relay: self.relay.or(false),
        }
    }
}

fn demand(
    tls: Field<WrittenTlsLevel>,
    verify: Field<VerifyWanted>,
    min_version: TlsVersion,
) -> TlsDemand {
    match tls.or(WrittenTlsLevel::Opportunistic) {
        WrittenTlsLevel::Off => TlsDemand::Off,
        WrittenTlsLevel::Opportunistic => TlsDemand::Opportunistic,
        WrittenTlsLevel::Forced => TlsDemand::Forced {
            min_version,
            verify: verify.or(VerifyWanted::None),
        },
    }
}

/// Returns the revocation of a direction: off unless its demand searches for a path to a trust
/// anchor.
fn revocation_of(wanted: Revocation, tls: TlsDemand) -> Revocation {
    match tls {
        TlsDemand::Forced {
            verify: VerifyWanted::Chain | VerifyWanted::Name,
            ..
        } => wanted,
        TlsDemand::Forced {
            verify: VerifyWanted::None | VerifyWanted::Dane | VerifyWanted::Pin,
            ..
        }
        | TlsDemand::Opportunistic
        | TlsDemand::Off => Revocation::Off,
    }
}

/// Reads `revocation`.
fn revocation(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Revocation> {
    choice(value, faults, &REVOCATION)
}

/// Reads `discover`.
fn discover(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Vec<Publication>> {
    let ways = [
        ("dane", Publication::Dane),
        ("mta-sts", Publication::MtaSts),
    ];
    list(value, faults, |value, faults| choice(value, faults, &ways)).map(without_locations)
}

/// Reads `route`: `"mx"` or a list of smart hosts.
fn route(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<RouteToml> {
    if value.raw.is_array() {
        let remedy = "Write smart hosts in order of preference, or route = \"mx\".";
        return full_list(value, faults, remedy, smart_host).map(RouteToml::SmartHosts);
    }
    let word = text(value, faults)?;
    if word == "mx" {
        return Some(RouteToml::Mx);
    }
    let example = if word.contains(':') {
        shorten(word)
    } else {
        "mx1.example.org:25".to_owned()
    };
    let remedy = format!("Write \"mx\", or a list of smart hosts: [\"{example}\"].");
    faults.add(
        &value.location,
        format!("route cannot be \"{}\"", shorten(word)),
        remedy,
    );
    None
}
