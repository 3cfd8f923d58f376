//! The `[tls]`, `[[listener]]` and `[relay]` tables as written, and their resolution.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::client_limits::COUNT_MAX;
use super::fault_list::FaultList;
use super::hosts::{covers_everything, domain_pattern, listen_address, name_pattern, network};
use super::reader::{Field, TableReader, TomlValue};
use super::settings::{ListenAddress, ListenerConfig, ListenerTls, SniIdentity, TlsConfig};
use super::values::{
    boolean, choice, count, full_list, label, list, path, trust, version, without_locations,
};
use crate::policy::connector::{DomainPattern, IdentityFiles, TrustSource};
use crate::policy::location::{Located, Location};
use crate::policy::relay_access::RelayConfig;
use crate::policy::tls::{NamePattern, TlsVersion};
use crate::smtp::sasl::{Mechanism, OfferedMechanisms};

/// The `[tls]` table, as written.
pub(super) struct TlsToml {
    pub(super) location: Location,
    pub(super) identity: Field<IdentityFiles>,
    /// `None` if the list itself is invalid.
    pub(super) sni: Option<Vec<SniToml>>,
    pub(super) trust: Field<TrustSource>,
    pub(super) min_version: Field<TlsVersion>,
}

/// A `[[tls.sni]]` table, as written.
pub(super) struct SniToml {
    pub(super) names: Field<Vec<Located<NamePattern>>>,
    pub(super) identity: Field<IdentityFiles>,
    pub(super) location: Location,
}

impl TlsToml {
    pub(super) fn read(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let identity = identity(&mut table, faults, "certificate", "key");
        let trust = table.read(faults, "trust", trust);
        let min_version = table.read(faults, "min_version", version);
        let sni = table.tables(faults, "sni", "[[tls.sni]]");
        let sni = sni.map(|sni| {
            sni.into_iter()
                .map(|table| SniToml::read(table, faults))
                .collect()
        });
        let location = table.location().clone();
        table.finish(faults);
        Self {
            location,
            identity,
            sni,
            trust,
            min_version,
        }
    }

    pub(super) fn resolve(self) -> TlsConfig {
        let sni = self.sni.unwrap_or_default().into_iter().filter_map(|sni| {
            let Field::Valid(files) = sni.identity else {
                return None;
            };
            Some(SniIdentity {
                names: without_locations(sni.names.or(Vec::new())),
                files: files.value,
            })
        });
        TlsConfig {
            sni: sni.collect(),
            trust: match self.trust {
                Field::Valid(trust) => trust,
                Field::Absent | Field::Invalid => Located {
                    value: TrustSource::Webpki,
                    location: self.location,
                },
            },
            min_version: self.min_version.or(TlsVersion::V1_2),
            identity: match self.identity {
                Field::Valid(files) => Some(files.value),
                Field::Absent | Field::Invalid => None,
            },
        }
    }
}

impl SniToml {
    fn read(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let names = table.required(
            faults,
            "names",
            "names = [\"mx.example.net\"]",
            |value, faults| {
                full_list(
                    value,
                    faults,
                    "Write the host names for which this certificate is used.",
                    name_pattern,
                )
            },
        );
        let identity = identity(&mut table, faults, "certificate", "key");
        let location = table.location().clone();
        if identity.is_absent() {
            let remedy = "Add certificate and key, the PEM files for these names.";
            faults.add(
                &location,
                "certificate and key are missing in [[tls.sni]]",
                remedy,
            );
        }
        table.finish(faults);
        Self {
            names,
            identity,
            location,
        }
    }
}

/// Reads a certificate and its key. Both must be present, or neither.
pub(super) fn identity(
    table: &mut TableReader<'_>,
    faults: &mut FaultList<'_>,
    certificate_key: &'static str,
    key_key: &'static str,
) -> Field<IdentityFiles> {
    let certificate: Field<PathBuf> = table.read(faults, certificate_key, path);
    let key: Field<PathBuf> = table.read(faults, key_key, path);
    let (has, lacks, location) = match (certificate, key) {
        (Field::Absent, Field::Absent) => return Field::Absent,
        (Field::Valid(certificate), Field::Valid(key)) => {
            let location = certificate.location.clone();
            return Field::Valid(Located {
                value: IdentityFiles { certificate, key },
                location,
            });
        }
        (Field::Valid(certificate), Field::Absent) => {
            (certificate_key, key_key, certificate.location)
        }
        (Field::Absent, Field::Valid(key)) => (key_key, certificate_key, key.location),
        (Field::Invalid, _) | (_, Field::Invalid) => return Field::Invalid,
    };
    let remedy = format!("Add {lacks}, the other PEM file of the pair, or remove {has}.");
    faults.add(&location, format!("{has} is set without {lacks}"), remedy);
    Field::Invalid
}

/// A `[[listener]]` table, as written.
// Rule: RFC 3207 §4.
pub(super) struct ListenerToml {
    pub(super) location: Location,
    pub(super) name: Field<String>,
    pub(super) addresses: Field<Vec<Located<ListenAddress>>>,
    pub(super) tls: Field<ListenerTls>,
    pub(super) request_client_certificate: Field<bool>,
    pub(super) proxy_protocol: Field<Vec<IpNet>>,
    pub(super) xclient: Field<Vec<IpNet>>,
    pub(super) connections: Field<u32>,
    pub(super) auth: Field<Vec<Located<Mechanism>>>,
    pub(super) auth_required: Field<bool>,
}

impl ListenerToml {
    pub(super) fn read(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let name = table.required(faults, "name", "name = \"mx\"", label);
        let addresses = table.required(
            faults,
            "address",
            "address = [\"[::]:25\"]",
            |value, faults| {
                full_list(
                    value,
                    faults,
                    "Write where to listen, such as [\"[::]:25\"].",
                    listen_address,
                )
            },
        );
        let tls = table.read(faults, "tls", |value, faults| {
            let words = [
                ("off", ListenerTls::Off),
                ("opportunistic", ListenerTls::Opportunistic),
                ("forced", ListenerTls::Forced),
                ("implicit", ListenerTls::Implicit),
            ];
            choice(value, faults, &words)
        });
        let request_client_certificate = table.read(faults, "request_client_certificate", boolean);
        let mut proxies = |key: &'static str| {
            let networks = table.read(faults, key, |value, faults| {
                list(value, faults, network).map(without_locations)
            });
            if let Some(open) = networks
                .located()
                .filter(|networks| covers_everything(&networks.value))
            {
                let message = format!("{key} lets the whole Internet claim any client address");
                faults.add(
                    &open.location,
                    message,
                    "List the addresses of your own load balancers only.",
                );
            }
            networks
        };
        let (proxy_protocol, xclient) = (proxies("proxy_protocol"), proxies("xclient"));
        let connections = table.read(faults, "connections", |value, faults| {
            count(value, faults, COUNT_MAX)
        });
        let auth = table.read(faults, "auth", |value, faults| {
            list(value, faults, mechanism)
        });
        let auth_required = table.read(faults, "auth_required", boolean);
        let location = table.location().clone();
        table.finish(faults);
        Self {
            location,
            name,
            addresses,
            tls,
            request_client_certificate,
            proxy_protocol,
            xclient,
            connections,
            auth,
            auth_required,
        }
    }

    /// Returns true if a session here can have TLS, or if that is not known.
    pub(super) fn offers_tls(&self) -> bool {
        self.tls.resolve(ListenerTls::Opportunistic) != Some(ListenerTls::Off)
    }

    /// Returns true if a client here can present a certificate, or if that is not known.
    pub(super) fn asks_for_certificate(&self) -> bool {
        self.offers_tls() && self.request_client_certificate.resolve(true) != Some(false)
    }

    pub(super) fn resolve(self) -> ListenerConfig {
        ListenerConfig {
            name: self.name.or(String::new()),
            addresses: self.addresses.or(Vec::new()),
            tls: self.tls.or(ListenerTls::Opportunistic),
            request_client_certificate: self.request_client_certificate.or(true),
            proxy_protocol: self.proxy_protocol.or(Vec::new()),
            xclient: self.xclient.or(Vec::new()),
            connections: self
                .connections
                .value()
                .map(|connections| *connections as usize),
            auth: offered(self.auth.or(Vec::new())),
            auth_required: self.auth_required.or(false),
        }
    }
}

/// Reads the name of a mechanism.
fn mechanism(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Mechanism> {
    let words = [
        ("scram-sha-256", Mechanism::ScramSha256),
        ("scram-sha-256-plus", Mechanism::ScramSha256Plus),
        ("plain", Mechanism::Plain),
        ("login", Mechanism::Login),
    ];
    choice(value, faults, &words)
}

/// Returns the mechanisms that a listener offers. With SCRAM-SHA-256 it offers the bound variant,
/// which proves more.
fn offered(listed: Vec<Located<Mechanism>>) -> OfferedMechanisms {
    let mut mechanisms = without_locations(listed);
    if mechanisms.contains(&Mechanism::ScramSha256) {
        mechanisms.push(Mechanism::ScramSha256Plus);
    }
    OfferedMechanisms::of(&mechanisms)
}

/// Reads `[relay]`. Rejects what would make an open relay.
pub(super) fn relay(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> RelayConfig {
    let networks = table.read(faults, "networks", |value, faults| {
        list(value, faults, network).map(without_locations)
    });
    let domains = table.read(faults, "domains", |value, faults| {
        list(value, faults, domain_pattern)
    });
    if let Some(open) = networks
        .located()
        .filter(|networks| covers_everything(&networks.value))
    {
        let remedy = "List the networks of your own clients only. Mail to your own domains needs no entry here: \
                      that is what [relay] domains is for.";
        faults.add(
            &open.location,
            "networks lets the whole Internet send to any domain: an open relay",
            remedy,
        );
    }
    for domain in domains
        .value()
        .into_iter()
        .flatten()
        .filter(|domain| domain.value == DomainPattern::Any)
    {
        let remedy = "List the domains whose mailboxes are yours.";
        faults.add(
            &domain.location,
            "domains = \"*\" lets anybody send to any domain: an open relay",
            remedy,
        );
    }
    table.finish(faults);
    let loopback = || {
        vec![
            Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
            Ipv6Net::from(Ipv6Addr::LOCALHOST).into(),
        ]
    };
    RelayConfig {
        networks: match networks {
            Field::Valid(networks) => networks.value,
            Field::Absent | Field::Invalid => loopback(),
        },
        domains: without_locations(domains.or(Vec::new())),
    }
}
