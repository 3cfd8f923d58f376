//! What may not stand together: rules over a configuration as written, each with its remedy.
//!
//! A rule that depends on a value which is itself bad stays silent, so that one slip is one fault.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::hosts::is_everybody;
use super::own::{WrittenListener, WrittenTls};
use super::partner::{DEFAULT_NAME, Level, WrittenConnector, WrittenInbound, WrittenOutbound, WrittenRoute};
use super::place::Notes;
use super::reader::{Given, short};
use super::{ListenAddress, ListenerTls, Located, Place, Publication, Trust, VerifyWanted};
use crate::address::{Domain, Host};
use crate::tls::{NamePattern, Strength, TlsVersion};

/// Our own name: one that others can look up, and accept in EHLO.
pub(super) fn hostname(hostname: &Given<Domain>, notes: &mut Notes<'_>) {
    let Some(hostname) = hostname.located() else { return };
    let name = &hostname.value;
    let remedy = "Write the name that DNS knows this host by, such as \"relay.example.com\".";
    if name.parent().is_none() {
        let message = format!("hostname \"{name}\" is not fully qualified; many servers refuse mail from it");
        notes.warn(&hostname.place, message, remedy);
    }
    if name.as_str().contains('_') {
        let message =
            format!("hostname \"{name}\" has an underscore; some servers refuse it in EHLO (Exim by default)");
        notes.warn(&hostname.place, message, remedy);
    }
}

/// Notes everything that stands twice, naming the first place.
fn twice<'a, T: Eq + Hash + 'a>(
    items: impl IntoIterator<Item = (T, &'a Place)>,
    notes: &mut Notes<'_>,
    describe: impl Fn(&T) -> (String, String),
) {
    let mut seen: HashMap<T, &Place> = HashMap::new();
    for (item, place) in items {
        if let Some(first) = seen.get(&item) {
            let (message, remedy) = describe(&item);
            notes.fault(place, format!("{message} at {first}"), remedy);
        } else {
            seen.insert(item, place);
        }
    }
}

/// `[tls]` and the listeners.
pub(super) fn own(tls: &WrittenTls, listeners: Option<&[WrittenListener]>, notes: &mut Notes<'_>) {
    let sni = tls.sni.as_deref().unwrap_or_default();
    if let Some(first) = sni.first().filter(|_| tls.identity.is_absent()) {
        let remedy = "Add certificate and key to [tls]: clients that send no name, or another, are shown those.";
        notes.fault(&first.place, "[[tls.sni]] stands without a certificate in [tls]", remedy);
    }
    let names = sni.iter().filter_map(|sni| sni.names.value()).flatten();
    let names = names.map(|name| (name.value.to_string(), &name.place));
    twice(names, notes, |name| (format!("\"{name}\" is answered already"), "Remove it here or there.".to_owned()));

    let Some(listeners) = listeners else { return };
    if listeners.is_empty() {
        let remedy = "Add one: [[listener]] with name = \"mx\" and address = [\"[::]:25\"].";
        let top = notes.place(0);
        notes.fault(&top, "there is no [[listener]]: nobody could hand us mail", remedy);
    }
    let names = listeners.iter().filter_map(|listener| listener.name.located());
    twice(names.map(|name| (name.value.as_str(), &name.place)), notes, |name| {
        (format!("there is a listener \"{}\" already", short(name)), "Give each listener a name of its own.".to_owned())
    });
    let addresses = listeners.iter().filter_map(|listener| listener.addresses.value()).flatten();
    // Port 0 is a different port each time.
    let addresses = addresses.filter(|address| bound(&address.value).is_none_or(|address| address.port() != 0));
    twice(addresses.map(|address| (&address.value, &address.place)), notes, |address| {
        (format!("{address} is listened on already"), "Remove it here or there.".to_owned())
    });
    for listener in listeners {
        one_listener(listener, tls, notes);
    }
}

/// A load balancer or a proxy with the rights of a client lends them to whoever reaches us through it without its header,
/// or without XCLIENT.
pub(super) fn balancers(listeners: &[WrittenListener], relay: &[IpNet], notes: &mut Notes<'_>) {
    let overlap = |networks: &[IpNet]| {
        let pairs = networks.iter().flat_map(|one| relay.iter().map(move |other| (*one, *other)));
        pairs.into_iter().find(|(one, other)| one.contains(other) || other.contains(one))
    };
    for listener in listeners {
        for (key, given, lent, who) in [
            ("proxy_protocol", &listener.proxy_protocol, "reaches another listener through that balancer", "balancer"),
            ("xclient", &listener.xclient, "comes by that proxy without XCLIENT", "proxy"),
        ] {
            let Some(networks) = given.located() else { continue };
            let Some((ours, network)) = overlap(&networks.value) else { continue };
            let message = format!(
                "{key} {ours} overlaps [relay] networks {network}: a client that {lent} may send to any domain"
            );
            let remedy = format!(
                "Name in [relay] networks the clients alone, without the {who}; where the key is missing, all of \
                 127.0.0.0/8 and ::1 are clients."
            );
            notes.warn(&networks.place, message, remedy);
        }
    }
}

fn one_listener(listener: &WrittenListener, tls: &WrittenTls, notes: &mut Notes<'_>) {
    let place = listener.tls.located().map_or(&listener.place, |tls| &tls.place);
    if tls.identity.is_absent() && listener.offers_tls() && !matches!(listener.tls, Given::Bad) {
        let remedy = "Add certificate and key to [tls], or write tls = \"off\" here.";
        notes.fault(place, "this listener offers TLS, but [tls] has no certificate", remedy);
    }
    let Some(request) = listener.request_client_certificate.located().filter(|request| request.value) else { return };
    if listener.tls.value() == Some(&ListenerTls::Off) {
        let remedy = "Remove request_client_certificate, or let the listener offer TLS.";
        notes.fault(&request.place, "a client can show no certificate to a listener with tls = \"off\"", remedy);
    }
}

/// The connectors, each alone and among each other.
pub(super) fn connectors(
    connectors: &[WrittenConnector],
    tls: &WrittenTls,
    listeners: Option<&[WrittenListener]>,
    notes: &mut Notes<'_>,
) {
    let names = connectors.iter().filter_map(|connector| connector.name.located());
    twice(names.clone().map(|name| (name.value.as_str(), &name.place)), notes, |name| {
        (
            format!("there is a connector \"{}\" already", short(name)),
            "Give each connector a name of its own.".to_owned(),
        )
    });
    for name in names.filter(|name| name.value == DEFAULT_NAME) {
        let message = "\"default\" is the name of the built-in connector";
        notes.fault(&name.place, message, "Give this connector another name, such as \"internet\".");
    }
    let patterns = connectors.iter().filter_map(|connector| connector.domains.value()).flatten();
    twice(patterns.map(|pattern| (&pattern.value, &pattern.place)), notes, |pattern| {
        let remedy = "Remove the pattern here or there: only one connector can speak for it.";
        (format!("a connector speaks for \"{pattern}\" already"), remedy.to_owned())
    });
    for connector in connectors {
        identification(connector, notes);
        outbound(connector, tls, notes);
        inbound(connector, tls, listeners, notes);
        if let Some(listeners) = listeners {
            loops(&connector.outbound, listeners, notes);
        }
    }
}

/// What a direction verifies: nothing where it is not forced, unknown where it is bad.
fn verifies(tls: &Given<Level>, verify: &Given<VerifyWanted>) -> Option<VerifyWanted> {
    match tls.meant(Level::Opportunistic)? {
        Level::Off | Level::Opportunistic => Some(VerifyWanted::None),
        Level::Forced => verify.meant(VerifyWanted::None),
    }
}

/// `names` and `trust` must matter to a direction.
fn identification(connector: &WrittenConnector, notes: &mut Notes<'_>) {
    let outbound = verifies(&connector.outbound.tls, &connector.outbound.verify);
    let inbound = verifies(&connector.inbound.tls, &connector.inbound.verify);
    let (Some(outbound), Some(inbound)) = (outbound, inbound) else { return };
    if let Some(names) = connector.names.located().filter(|_| ![outbound, inbound].contains(&VerifyWanted::Name)) {
        let remedy = "Write tls = \"forced\" and verify = \"name\" in a direction, or remove names.";
        notes.fault(&names.place, "names is used by neither direction of this connector", remedy);
    }
    let follows = |verify| matches!(verify, VerifyWanted::Chain | VerifyWanted::Name);
    if let Some(trust) = connector.trust.located().filter(|_| !follows(outbound) && !follows(inbound)) {
        let remedy = "Write tls = \"forced\" and verify = \"name\" or \"chain\" in a direction, or remove trust.";
        notes.fault(&trust.place, "trust is used by neither direction of this connector", remedy);
    }
    if let Some(pins) = connector.pins.located().filter(|_| ![outbound, inbound].contains(&VerifyWanted::Pin)) {
        let remedy = "Write tls = \"forced\" and verify = \"pin\" in a direction, or remove pins.";
        notes.fault(&pins.place, "pins is used by neither direction of this connector", remedy);
    }
    if connector.pins.is_absent() {
        for verify in [&connector.outbound.verify, &connector.inbound.verify] {
            if let Some(verify) = verify.located().filter(|verify| verify.value == VerifyWanted::Pin) {
                let remedy = "Add pins to the connector: [\"sha256:…\"]; `gatepost probe` prints that of a server.";
                notes.fault(&verify.place, "verify = \"pin\" has no pin to look for", remedy);
            }
        }
    }
    for pattern in connector.names.value().into_iter().flatten() {
        if matches!(&pattern.value, NamePattern::OneLabelUnder(base) if base.parent().is_none()) {
            let message = format!("\"{}\" accepts the certificate of every domain under it", pattern.value);
            notes.warn(&pattern.place, message, "Write the names that this partner's certificates carry.");
        }
    }
}

/// A key that makes sense in a forced direction only.
fn only_where_forced<T>(key: &str, given: &Given<T>, tls: &Given<Level>, notes: &mut Notes<'_>) {
    let level = tls.meant(Level::Opportunistic);
    let (Some(given), Some(level @ (Level::Off | Level::Opportunistic))) = (given.located(), level) else { return };
    let level = if level == Level::Off { "off" } else { "opportunistic" };
    let message = format!("{key} demands something, but tls = \"{level}\" demands nothing");
    notes.fault(&given.place, message, format!("Write tls = \"forced\" in this direction, or remove {key}."));
}

fn outbound(connector: &WrittenConnector, tls: &WrittenTls, notes: &mut Notes<'_>) {
    let outbound = &connector.outbound;
    only_where_forced("verify", &outbound.verify, &outbound.tls, notes);
    only_where_forced("min_version", &outbound.min_version, &outbound.tls, notes);
    only_where_forced("min_strength", &outbound.min_strength, &outbound.tls, notes);
    key_exchange(outbound, notes);
    published(outbound, notes);
    let newest = tls.min_version.value() == Some(&TlsVersion::V1_3);
    if let Some(version) = outbound.min_version.located().filter(|version| newest && version.value == TlsVersion::V1_2)
    {
        let remedy = "Remove it here, or lower [tls] min_version.";
        notes.fault(&version.place, "min_version is older than that of [tls], which holds for everybody", remedy);
    }
    let hosts = match outbound.route.value() {
        Some(WrittenRoute::SmartHosts(hosts)) => hosts.as_slice(),
        Some(WrittenRoute::Mx) | None => &[],
    };
    if let Some(port) = outbound.port.located().filter(|_| !hosts.is_empty()) {
        let remedy = "Remove port: each smart host in route has its own.";
        notes.fault(&port.place, "port is that of MX hosts, but route names smart hosts", remedy);
    }
    if let Some(files) = outbound.client_identity.located().filter(|_| outbound.tls.value() == Some(&Level::Off)) {
        let remedy = "Remove client_certificate and client_key, or write tls = \"opportunistic\" or \"forced\".";
        notes.fault(&files.place, "a client certificate is never shown with tls = \"off\"", remedy);
    }
    let wants_name = verifies(&outbound.tls, &outbound.verify) == Some(VerifyWanted::Name);
    if wants_name && connector.names.is_absent() {
        for host in hosts.iter().filter(|host| matches!(host.value.host, Host::Literal(_))) {
            let message = format!("verify = \"name\" has no name to look for: {} is an address", host.value);
            let remedy = "Add names to the connector: those that the smart host's certificate carries.";
            notes.fault(&host.place, message, remedy);
        }
    }
}

fn inbound(
    connector: &WrittenConnector,
    tls: &WrittenTls,
    listeners: Option<&[WrittenListener]>,
    notes: &mut Notes<'_>,
) {
    let inbound = &connector.inbound;
    only_where_forced("verify", &inbound.verify, &inbound.tls, notes);
    let verifies = verifies(&inbound.tls, &inbound.verify);
    let demand = inbound.verify.located().map_or(&inbound.place, |verify| &verify.place);
    if verifies == Some(VerifyWanted::Name) && connector.names.is_absent() {
        let remedy = "Add names to the connector: those that the partner's client certificate carries.";
        notes.fault(demand, "inbound verify = \"name\" has no name to look for", remedy);
    }
    if let (Some(forced), Some(listeners)) = (inbound.tls.located(), listeners)
        && forced.value == Level::Forced
        && !listeners.is_empty()
    {
        if !listeners.iter().any(WrittenListener::offers_tls) {
            let remedy = "Let a listener offer TLS, or write tls = \"opportunistic\" here.";
            notes.fault(&forced.place, "tls = \"forced\" can never be met: no listener offers TLS", remedy);
        } else if matches!(verifies, Some(VerifyWanted::Chain | VerifyWanted::Name | VerifyWanted::Pin))
            && !listeners.iter().any(WrittenListener::asks_for_certificate)
        {
            let remedy = "Write request_client_certificate = true in a listener that offers TLS.";
            notes.fault(demand, "verify can never be met: no listener asks clients for a certificate", remedy);
        }
    }
    if let Some(relay) = inbound.relay.located().filter(|relay| relay.value) {
        let trust = if connector.trust.is_absent() { &tls.trust } else { &connector.trust };
        relays(relay, inbound, verifies, trust, notes);
    }
}

/// `groups` and `min_strength`.
fn key_exchange(outbound: &WrittenOutbound, notes: &mut Notes<'_>) {
    if let Some(groups) = outbound.groups.located().filter(|_| outbound.tls.value() == Some(&Level::Off)) {
        let remedy = "Remove groups, or write tls = \"opportunistic\" or \"forced\".";
        notes.fault(&groups.place, "groups is what a handshake offers, but with tls = \"off\" there is none", remedy);
    }
    let classical = outbound.groups.value() == Some(&Strength::Classical);
    let demanded = outbound.min_strength.located();
    if let Some(demanded) = demanded.filter(|demanded| classical && demanded.value == Strength::PostQuantum) {
        let message = "min_strength = \"post-quantum\" can never be met: groups = \"classical\" does not offer it";
        notes.fault(&demanded.place, message, "Remove groups, or lower min_strength to \"classical\".");
    }
}

/// What domains publish, what they did before, and what stands in for the demand for a time.
fn published(outbound: &WrittenOutbound, notes: &mut Notes<'_>) {
    let off = outbound.tls.value() == Some(&Level::Off);
    if let Some(discover) = outbound.discover.located().filter(|discover| off && !discover.value.is_empty()) {
        let remedy = "Remove discover, or write tls = \"opportunistic\" or \"forced\".";
        notes.fault(&discover.place, "discover raises demands, but with tls = \"off\" TLS is not even tried", remedy);
    }
    if let Some(downgrade) = outbound.downgrade.located().filter(|_| off) {
        let remedy = "Remove downgrade, or write tls = \"opportunistic\" or \"forced\".";
        notes.fault(
            &downgrade.place,
            "downgrade has nothing to watch: with tls = \"off\" TLS is not even tried",
            remedy,
        );
    }
    let dane = outbound.verify.located().filter(|verify| verify.value == VerifyWanted::Dane);
    let looked_up = outbound.discover.meant(vec![Publication::Dane]);
    if let (Some(verify), Some(looked_up)) = (dane, looked_up)
        && !looked_up.contains(&Publication::Dane)
    {
        let remedy = "Add \"dane\" to discover, or write another verify.";
        notes.fault(&verify.place, "verify = \"dane\" can never be met: discover does not look for it", remedy);
    }
    let Some(exception) = outbound.exception.located() else { return };
    let (Some(tls), Some(verify)) =
        (outbound.tls.meant(Level::Opportunistic), outbound.verify.meant(VerifyWanted::None))
    else {
        return;
    };
    let lowers = match (tls, exception.value.tls) {
        (Level::Forced, Level::Forced) => verify != VerifyWanted::None,
        (Level::Forced, Level::Off | Level::Opportunistic) | (Level::Opportunistic, Level::Off) => true,
        (Level::Opportunistic, Level::Opportunistic | Level::Forced) | (Level::Off, _) => false,
    };
    if !lowers {
        let remedy = "Remove the exception, or write a tls in it that demands less than the connector does.";
        notes.fault(&exception.value.tls_place, "the exception does not lower what the connector demands", remedy);
    }
}

/// `relay = true` must ask for something that not everybody has.
fn relays(
    relay: &Located<bool>,
    inbound: &WrittenInbound,
    verifies: Option<VerifyWanted>,
    trust: &Given<Trust>,
    notes: &mut Notes<'_>,
) {
    let networks = match &inbound.networks {
        Given::Bad => return,
        Given::Absent => None,
        Given::Good(networks) => Some(is_everybody(&networks.value)),
    };
    let public = matches!(trust.meant(Trust::Webpki), Some(Trust::Webpki | Trust::System));
    let why = match verifies {
        _ if networks == Some(false) => return,
        Some(VerifyWanted::None) if networks == Some(true) => "its networks are the whole Internet",
        Some(VerifyWanted::None) => "nothing here proves who the client is",
        Some(VerifyWanted::Chain) if public => "anybody can have a certificate of a public authority",
        // A server's TLSA records say nothing about a client.
        Some(VerifyWanted::Chain | VerifyWanted::Name | VerifyWanted::Pin | VerifyWanted::Dane) | None => return,
    };
    let remedy = "Write tls = \"forced\" with verify = \"name\" (or \"chain\" with the partner's own authority as trust), \
                  or networks that are the partner's.";
    notes.fault(&relay.place, format!("relay = true is an open relay: {why}"), remedy);
}

/// A smart host that is our own listener would hand each message back to us until its hops are up.
fn loops(outbound: &WrittenOutbound, listeners: &[WrittenListener], notes: &mut Notes<'_>) {
    let Some(WrittenRoute::SmartHosts(hosts)) = outbound.route.value() else { return };
    for host in hosts {
        let Host::Literal(address) = &host.value.host else { continue };
        let target = SocketAddr::new(*address, host.value.port);
        let addresses = listeners.iter().filter_map(|listener| listener.addresses.value()).flatten();
        let reached = |own: &ListenAddress| bound(own).is_some_and(|own| reaches(target, own));
        if let Some(own) = addresses.into_iter().find(|own| reached(&own.value)) {
            let message = format!("{} is our own listener ({}): mail would go round in a loop", host.value, own.place);
            notes.fault(&host.place, message, "Write the address of the server that takes the mail.");
        }
    }
}

/// The address that we bind ourselves. Which one a passed socket has is known to systemd alone.
fn bound(address: &ListenAddress) -> Option<SocketAddr> {
    match address {
        ListenAddress::Bind(address) => Some(*address),
        ListenAddress::Passed(_) => None,
    }
}

/// Whether a connection to `target` surely ends at a socket bound to `own`.
fn reaches(target: SocketAddr, own: SocketAddr) -> bool {
    let everywhere = own.ip().is_unspecified() && (own.is_ipv6() || target.is_ipv4());
    let here = target.ip() == own.ip() || (everywhere && target.ip().is_loopback());
    here && target.port() == own.port()
}
