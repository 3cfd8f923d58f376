//! What is ours: `[tls]`, `[[listener]]` and `[relay]` as written.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::clients::COUNT_MAX;
use super::hosts::{domain_pattern, is_everybody, listen_address, name_pattern, network};
use super::place::Notes;
use super::reader::{Given, Table};
use super::values::{boolean, choice, count, full_list, label, list, path, trust, version};
use super::{
    DomainPattern, IdentityFiles, ListenAddress, Listener, ListenerTls, Located, OwnTls, Place, Relay, SniIdentity,
    Trust, without_places,
};
use crate::tls::{NamePattern, TlsVersion};

/// `[tls]` as written.
pub(super) struct WrittenTls {
    pub(super) place: Place,
    pub(super) identity: Given<IdentityFiles>,
    /// Nothing where the list itself is bad.
    pub(super) sni: Option<Vec<WrittenSni>>,
    pub(super) trust: Given<Trust>,
    pub(super) min_version: Given<TlsVersion>,
}

/// `[[tls.sni]]` as written.
pub(super) struct WrittenSni {
    pub(super) names: Given<Vec<Located<NamePattern>>>,
    pub(super) identity: Given<IdentityFiles>,
    pub(super) place: Place,
}

impl WrittenTls {
    pub(super) fn read(mut table: Table<'_>, notes: &mut Notes<'_>) -> Self {
        let identity = identity(&mut table, notes, "certificate", "key");
        let trust = table.read(notes, "trust", trust);
        let min_version = table.read(notes, "min_version", version);
        let sni = table.tables(notes, "sni", "[[tls.sni]]");
        let sni = sni.map(|sni| sni.into_iter().map(|table| WrittenSni::read(table, notes)).collect());
        let place = table.place().clone();
        table.finish(notes);
        Self { place, identity, sni, trust, min_version }
    }

    pub(super) fn meant(self) -> OwnTls {
        let sni = self.sni.unwrap_or_default().into_iter().filter_map(|sni| {
            let Given::Good(files) = sni.identity else { return None };
            Some(SniIdentity { names: without_places(sni.names.or(Vec::new())), files: files.value })
        });
        OwnTls {
            sni: sni.collect(),
            trust: match self.trust {
                Given::Good(trust) => trust,
                Given::Absent | Given::Bad => Located { value: Trust::Webpki, place: self.place },
            },
            min_version: self.min_version.or(TlsVersion::V1_2),
            identity: match self.identity {
                Given::Good(files) => Some(files.value),
                Given::Absent | Given::Bad => None,
            },
        }
    }
}

impl WrittenSni {
    fn read(mut table: Table<'_>, notes: &mut Notes<'_>) -> Self {
        let names = table.required(notes, "names", "names = [\"mx.example.net\"]", |value, notes| {
            full_list(value, notes, "Write the host names that this certificate answers to.", name_pattern)
        });
        let identity = identity(&mut table, notes, "certificate", "key");
        let place = table.place().clone();
        if identity.is_absent() {
            let remedy = "Add certificate and key, the PEM files that these names are answered with.";
            notes.fault(&place, "certificate and key are missing in [[tls.sni]]", remedy);
        }
        table.finish(notes);
        Self { names, identity, place }
    }
}

/// A certificate and its key: both or neither.
pub(super) fn identity(
    table: &mut Table<'_>,
    notes: &mut Notes<'_>,
    certificate_key: &'static str,
    key_key: &'static str,
) -> Given<IdentityFiles> {
    let certificate: Given<PathBuf> = table.read(notes, certificate_key, path);
    let key: Given<PathBuf> = table.read(notes, key_key, path);
    let (has, lacks, place) = match (certificate, key) {
        (Given::Absent, Given::Absent) => return Given::Absent,
        (Given::Good(certificate), Given::Good(key)) => {
            let place = certificate.place.clone();
            return Given::Good(Located { value: IdentityFiles { certificate, key }, place });
        }
        (Given::Good(certificate), Given::Absent) => (certificate_key, key_key, certificate.place),
        (Given::Absent, Given::Good(key)) => (key_key, certificate_key, key.place),
        (Given::Bad, _) | (_, Given::Bad) => return Given::Bad,
    };
    let remedy = format!("Add {lacks}, the other PEM file of the pair, or remove {has}.");
    notes.fault(&place, format!("{has} stands without {lacks}"), remedy);
    Given::Bad
}

/// `[[listener]]` as written.
pub(super) struct WrittenListener {
    pub(super) place: Place,
    pub(super) name: Given<String>,
    pub(super) addresses: Given<Vec<Located<ListenAddress>>>,
    pub(super) tls: Given<ListenerTls>,
    pub(super) request_client_certificate: Given<bool>,
    pub(super) proxy_protocol: Given<Vec<IpNet>>,
    pub(super) xclient: Given<Vec<IpNet>>,
    pub(super) connections: Given<u32>,
}

impl WrittenListener {
    pub(super) fn read(mut table: Table<'_>, notes: &mut Notes<'_>) -> Self {
        let name = table.required(notes, "name", "name = \"mx\"", label);
        let addresses = table.required(notes, "address", "address = [\"[::]:25\"]", |value, notes| {
            full_list(value, notes, "Write where to listen, such as [\"[::]:25\"].", listen_address)
        });
        let tls = table.read(notes, "tls", |value, notes| {
            let words = [
                ("off", ListenerTls::Off),
                ("opportunistic", ListenerTls::Opportunistic),
                ("forced", ListenerTls::Forced),
                ("implicit", ListenerTls::Implicit),
            ];
            choice(value, notes, &words)
        });
        let request_client_certificate = table.read(notes, "request_client_certificate", boolean);
        let mut proxies = |key: &'static str| {
            let networks = table.read(notes, key, |value, notes| list(value, notes, network).map(without_places));
            if let Some(open) = networks.located().filter(|networks| is_everybody(&networks.value)) {
                let message = format!("{key} lets the whole Internet say which address it has");
                notes.fault(&open.place, message, "List the addresses of your own load balancers only.");
            }
            networks
        };
        let (proxy_protocol, xclient) = (proxies("proxy_protocol"), proxies("xclient"));
        let connections = table.read(notes, "connections", |value, notes| count(value, notes, COUNT_MAX));
        let place = table.place().clone();
        table.finish(notes);
        Self { place, name, addresses, tls, request_client_certificate, proxy_protocol, xclient, connections }
    }

    /// Whether a session here can have TLS; yes where that is unknown.
    pub(super) fn offers_tls(&self) -> bool {
        self.tls.meant(ListenerTls::Opportunistic) != Some(ListenerTls::Off)
    }

    /// Whether a client here can show a certificate; yes where that is unknown.
    pub(super) fn asks_for_certificate(&self) -> bool {
        self.offers_tls() && self.request_client_certificate.meant(true) != Some(false)
    }

    pub(super) fn meant(self) -> Listener {
        Listener {
            name: self.name.or(String::new()),
            addresses: self.addresses.or(Vec::new()),
            tls: self.tls.or(ListenerTls::Opportunistic),
            request_client_certificate: self.request_client_certificate.or(true),
            proxy_protocol: self.proxy_protocol.or(Vec::new()),
            xclient: self.xclient.or(Vec::new()),
            connections: self.connections.value().map(|connections| *connections as usize),
        }
    }
}

/// `[relay]`. What would let everybody send anywhere is refused.
pub(super) fn relay(mut table: Table<'_>, notes: &mut Notes<'_>) -> Relay {
    let networks = table.read(notes, "networks", |value, notes| list(value, notes, network).map(without_places));
    let domains = table.read(notes, "domains", |value, notes| list(value, notes, domain_pattern));
    if let Some(open) = networks.located().filter(|networks| is_everybody(&networks.value)) {
        let remedy = "List the networks of your own clients only. Mail to your own domains needs no entry here: \
                      that is what [relay] domains is for.";
        notes.fault(&open.place, "networks lets the whole Internet send to any domain: an open relay", remedy);
    }
    for domain in domains.value().into_iter().flatten().filter(|domain| domain.value == DomainPattern::Any) {
        let remedy = "List the domains whose mailboxes are yours.";
        notes.fault(&domain.place, "domains = \"*\" lets anybody send to any domain: an open relay", remedy);
    }
    table.finish(notes);
    let loopback =
        || vec![Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(), Ipv6Net::from(Ipv6Addr::LOCALHOST).into()];
    Relay {
        networks: match networks {
            Given::Good(networks) => networks.value,
            Given::Absent | Given::Bad => loopback(),
        },
        domains: without_places(domains.or(Vec::new())),
    }
}
