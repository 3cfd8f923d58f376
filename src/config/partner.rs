//! `[[connector]]` as written, and how it becomes what is meant. What its keys may not say together
//! stands in [`super::rules`].

use std::sync::Arc;

use ipnet::IpNet;

use super::exception::WrittenException;
use super::hosts::{domain_pattern, name_pattern, network, smart_host};
use super::own::identity;
use super::place::Notes;
use super::reader::{Given, Table, Value, short};
use super::values::{boolean, choice, count, full_list, label, list, pin, port, text, trust, version};
use super::{
    Connector, DomainPattern, Downgrade, IdentityFiles, Inbound, Located, OnFailure, Outbound, OwnTls, Place,
    Publication, Route, SmartHost, TlsDemand, Trust, VerifyWanted, without_places,
};
use crate::tls::{NamePattern, Pin, Strength, TlsVersion};

/// The name of the connector that speaks where no other does.
pub(super) const DEFAULT_NAME: &str = "default";

const MX_PORT: u16 = 25;
const CONNECTIONS: u32 = 20;
const MESSAGES_PER_CONNECTION: u32 = 100;
const COUNT_MAX: u32 = 1_000_000;

/// Everything that can be published.
const EVERYTHING: [Publication; 2] = [Publication::Dane, Publication::MtaSts];
/// What either direction can verify.
const VERIFY: [(&str, VerifyWanted); 4] = [
    ("none", VerifyWanted::None),
    ("chain", VerifyWanted::Chain),
    ("name", VerifyWanted::Name),
    ("pin", VerifyWanted::Pin),
];

/// The words for a key exchange.
const STRENGTHS: [(&str, Strength); 2] = [("post-quantum", Strength::PostQuantum), ("classical", Strength::Classical)];

/// `tls` of a direction as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Off,
    Opportunistic,
    Forced,
}

/// `route` as written.
#[derive(Debug, Clone)]
pub(super) enum WrittenRoute {
    Mx,
    SmartHosts(Vec<Located<SmartHost>>),
}

/// `[[connector]]` as written.
pub(super) struct WrittenConnector {
    pub(super) name: Given<String>,
    pub(super) domains: Given<Vec<Located<DomainPattern>>>,
    pub(super) names: Given<Vec<Located<NamePattern>>>,
    pub(super) trust: Given<Trust>,
    pub(super) pins: Given<Vec<Located<Pin>>>,
    pub(super) outbound: WrittenOutbound,
    pub(super) inbound: WrittenInbound,
}

/// `[connector.outbound]` as written.
pub(super) struct WrittenOutbound {
    pub(super) route: Given<WrittenRoute>,
    pub(super) port: Given<u16>,
    pub(super) tls: Given<Level>,
    pub(super) verify: Given<VerifyWanted>,
    pub(super) min_version: Given<TlsVersion>,
    pub(super) discover: Given<Vec<Publication>>,
    pub(super) downgrade: Given<Downgrade>,
    pub(super) exception: Given<WrittenException>,
    pub(super) on_failure: Given<OnFailure>,
    pub(super) client_identity: Given<IdentityFiles>,
    pub(super) groups: Given<Strength>,
    pub(super) min_strength: Given<Strength>,
    connections: u32,
    messages_per_connection: u32,
}

/// `[connector.inbound]` as written.
pub(super) struct WrittenInbound {
    pub(super) place: Place,
    pub(super) tls: Given<Level>,
    pub(super) verify: Given<VerifyWanted>,
    pub(super) networks: Given<Vec<IpNet>>,
    pub(super) relay: Given<bool>,
}

impl WrittenConnector {
    pub(super) fn read(mut table: Table<'_>, notes: &mut Notes<'_>) -> Self {
        let name = table.required(notes, "name", "name = \"partner\"", label);
        let domains = table.required(notes, "domains", "domains = [\"example.org\"]", |value, notes| {
            full_list(value, notes, "Write the domains it speaks for; [\"*\"] for every other.", domain_pattern)
        });
        let names = table.read(notes, "names", |value, notes| {
            full_list(
                value,
                notes,
                "Write the names that the partner's certificates carry, or remove it.",
                name_pattern,
            )
        });
        let trust = table.read(notes, "trust", trust);
        let pins = table.read(notes, "pins", |value, notes| {
            full_list(value, notes, "Write the partner's keys: [\"sha256:…\"]; or remove it.", pin)
        });
        let outbound = table.table(notes, "outbound", "[connector.outbound]");
        let outbound = WrittenOutbound::read(outbound, notes);
        let inbound = table.table(notes, "inbound", "[connector.inbound]");
        let inbound = WrittenInbound::read(inbound, notes);
        table.finish(notes);
        Self { name, domains, names, trust, pins, outbound, inbound }
    }

    pub(super) fn meant(self, own: &OwnTls) -> Arc<Connector> {
        Arc::new(Connector {
            name: self.name.or(String::new()),
            domains: without_places(self.domains.or(Vec::new())),
            names: without_places(self.names.or(Vec::new())),
            trust: match self.trust {
                Given::Good(trust) => trust,
                Given::Absent | Given::Bad => own.trust.clone(),
            },
            pins: without_places(self.pins.or(Vec::new())),
            outbound: self.outbound.meant(own),
            inbound: self.inbound.meant(own),
        })
    }
}

impl WrittenOutbound {
    fn read(mut table: Table<'_>, notes: &mut Notes<'_>) -> Self {
        let levels = [("off", Level::Off), ("opportunistic", Level::Opportunistic), ("forced", Level::Forced)];
        let written = Self {
            route: table.read(notes, "route", route),
            port: table.read(notes, "port", port),
            tls: table.read(notes, "tls", |value, notes| choice(value, notes, &levels)),
            verify: table.read(notes, "verify", |value, notes| {
                choice(value, notes, &[VERIFY.as_slice(), &[("dane", VerifyWanted::Dane)]].concat())
            }),
            min_version: table.read(notes, "min_version", version),
            discover: table.read(notes, "discover", discover),
            downgrade: table.read(notes, "downgrade", |value, notes| {
                let ways = [("allow", Downgrade::Allow), ("warn", Downgrade::Warn), ("refuse", Downgrade::Refuse)];
                choice(value, notes, &ways)
            }),
            exception: WrittenException::take(&mut table, notes),
            on_failure: table.read(notes, "on_failure", |value, notes| {
                let ways = [("defer", OnFailure::Defer), ("hold", OnFailure::Hold), ("bounce", OnFailure::Bounce)];
                choice(value, notes, &ways)
            }),
            client_identity: identity(&mut table, notes, "client_certificate", "client_key"),
            groups: table.read(notes, "groups", |value, notes| choice(value, notes, &STRENGTHS)),
            min_strength: table.read(notes, "min_strength", |value, notes| choice(value, notes, &STRENGTHS)),
            connections: table.or(notes, "connections", CONNECTIONS, |value, notes| count(value, notes, COUNT_MAX)),
            messages_per_connection: table.or(
                notes,
                "messages_per_connection",
                MESSAGES_PER_CONNECTION,
                |value, notes| count(value, notes, COUNT_MAX),
            ),
        };
        table.finish(notes);
        written
    }

    fn meant(self, own: &OwnTls) -> Outbound {
        let min_version = self.min_version.or(own.min_version);
        let route = match self.route.or(WrittenRoute::Mx) {
            WrittenRoute::Mx => Route::Mx { port: self.port.or(MX_PORT) },
            WrittenRoute::SmartHosts(hosts) => Route::SmartHosts(without_places(hosts)),
        };
        let exception = match self.exception {
            Given::Good(exception) => Some(exception.value.meant(min_version, exception.place)),
            Given::Absent | Given::Bad => None,
        };
        let tls = demand(self.tls, self.verify, min_version);
        Outbound {
            route,
            tls,
            discover: self.discover.or(if tls == TlsDemand::Off { Vec::new() } else { EVERYTHING.to_vec() }),
            downgrade: self.downgrade.or(Downgrade::Warn),
            exception,
            on_failure: self.on_failure.or(OnFailure::Defer),
            client_identity: match self.client_identity {
                Given::Good(files) => Some(files.value),
                Given::Absent | Given::Bad => None,
            },
            groups: self.groups.or(Strength::PostQuantum),
            min_strength: self.min_strength.or(Strength::Classical),
            connections: self.connections,
            messages_per_connection: self.messages_per_connection,
        }
    }
}

impl WrittenInbound {
    fn read(mut table: Table<'_>, notes: &mut Notes<'_>) -> Self {
        let levels = [("opportunistic", Level::Opportunistic), ("forced", Level::Forced)];
        let written = Self {
            place: table.place().clone(),
            tls: table.read(notes, "tls", |value, notes| choice(value, notes, &levels)),
            verify: table.read(notes, "verify", |value, notes| choice(value, notes, &VERIFY)),
            networks: table.read(notes, "networks", |value, notes| {
                let remedy = "Write the networks that their mail comes from, or remove it for anywhere.";
                full_list(value, notes, remedy, network).map(without_places)
            }),
            relay: table.read(notes, "relay", boolean),
        };
        table.finish(notes);
        written
    }

    fn meant(self, own: &OwnTls) -> Inbound {
        Inbound {
            tls: demand(self.tls, self.verify, own.min_version),
            networks: self.networks.or(Vec::new()),
            relay: self.relay.or(false),
        }
    }
}

fn demand(tls: Given<Level>, verify: Given<VerifyWanted>, min_version: TlsVersion) -> TlsDemand {
    match tls.or(Level::Opportunistic) {
        Level::Off => TlsDemand::Off,
        Level::Opportunistic => TlsDemand::Opportunistic,
        Level::Forced => TlsDemand::Forced { min_version, verify: verify.or(VerifyWanted::None) },
    }
}

/// What may be published and is looked up.
fn discover(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<Vec<Publication>> {
    let ways = [("dane", Publication::Dane), ("mta-sts", Publication::MtaSts)];
    list(value, notes, |value, notes| choice(value, notes, &ways)).map(without_places)
}

/// `"mx"` or a list of smart hosts.
fn route(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<WrittenRoute> {
    if value.raw.is_array() {
        let remedy = "Write smart hosts in order of preference, or route = \"mx\".";
        return full_list(value, notes, remedy, smart_host).map(WrittenRoute::SmartHosts);
    }
    let word = text(value, notes)?;
    if word == "mx" {
        return Some(WrittenRoute::Mx);
    }
    let example = if word.contains(':') { short(word) } else { "mx1.example.org:25".to_owned() };
    let remedy = format!("Write \"mx\", or a list of smart hosts: [\"{example}\"].");
    notes.fault(&value.place, format!("route cannot be \"{}\"", short(word)), remedy);
    None
}

impl Connector {
    /// Whether it is [`default_connector`], which stands in no file.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        // The configuration gives that name to no other.
        self.name == DEFAULT_NAME
    }
}

/// The connector for every domain that no other speaks for: opportunistic both ways, by MX.
#[must_use]
pub fn default_connector(trust: &Located<Trust>) -> Arc<Connector> {
    Arc::new(Connector {
        name: DEFAULT_NAME.to_owned(),
        domains: vec![DomainPattern::Any],
        names: Vec::new(),
        trust: trust.clone(),
        pins: Vec::new(),
        outbound: Outbound {
            route: Route::Mx { port: MX_PORT },
            tls: TlsDemand::Opportunistic,
            discover: EVERYTHING.to_vec(),
            downgrade: Downgrade::Warn,
            exception: None,
            on_failure: OnFailure::Defer,
            client_identity: None,
            groups: Strength::PostQuantum,
            min_strength: Strength::Classical,
            connections: CONNECTIONS,
            messages_per_connection: MESSAGES_PER_CONNECTION,
        },
        inbound: Inbound { tls: TlsDemand::Opportunistic, networks: Vec::new(), relay: false },
    })
}
