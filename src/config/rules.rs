//! Rules between keys: combinations that are rejected or warned of, each with its remedy. Those of
//! connectors are in [`super::connector_rules`].
//!
//! A rule that depends on an invalid value is skipped, so that one mistake gives one fault.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::fault_list::FaultList;
use super::reader::Field;
use super::settings::{ListenAddress, ListenerTls};
use super::spelling::shorten;
use super::tls_toml::{ListenerToml, TlsToml};
use crate::policy::location::Location;
use crate::smtp::address::Domain;

/// Warns of a host name that others cannot look up, or do not accept in EHLO.
pub(super) fn check_hostname(hostname: &Field<Domain>, faults: &mut FaultList<'_>) {
    let Some(hostname) = hostname.located() else {
        return;
    };
    let name = &hostname.value;
    let remedy = "Write the name that DNS knows this host by, such as \"relay.example.com\".";
    if name.parent().is_none() {
        let message =
            format!("hostname \"{name}\" is not fully qualified; many servers refuse mail from it");
        faults.warn(&hostname.location, message, remedy);
    }
    if name.as_str().contains('_') {
        let message = format!(
            "hostname \"{name}\" has an underscore; some servers refuse it in EHLO (Exim by default)"
        );
        faults.warn(&hostname.location, message, remedy);
    }
}

/// Rejects every repeated item, naming the first location.
pub(super) fn reject_duplicates<'a, T: Eq + Hash + 'a>(
    items: impl IntoIterator<Item = (T, &'a Location)>,
    faults: &mut FaultList<'_>,
    describe: impl Fn(&T) -> (String, String),
) {
    let mut seen: HashMap<T, &Location> = HashMap::new();
    for (item, location) in items {
        if let Some(first) = seen.get(&item) {
            let (message, remedy) = describe(&item);
            faults.add(location, format!("{message} at {first}"), remedy);
        } else {
            seen.insert(item, location);
        }
    }
}

/// Checks `[tls]` and the listeners.
pub(super) fn check_tls_and_listeners(
    tls: &TlsToml,
    listeners: Option<&[ListenerToml]>,
    faults: &mut FaultList<'_>,
) {
    let sni = tls.sni.as_deref().unwrap_or_default();
    if let Some(first) = sni.first().filter(|_| tls.identity.is_absent()) {
        let remedy = "Add certificate and key to [tls]: clients that send no name, or another, are shown those.";
        faults.add(
            &first.location,
            "[[tls.sni]] is set without a certificate in [tls]",
            remedy,
        );
    }
    let names = sni.iter().filter_map(|sni| sni.names.value()).flatten();
    let names = names.map(|name| (name.value.to_string(), &name.location));
    reject_duplicates(names, faults, |name| {
        (
            format!("\"{name}\" is already listed"),
            "Remove it here or there.".to_owned(),
        )
    });

    let Some(listeners) = listeners else { return };
    if listeners.is_empty() {
        let remedy = "Add one: [[listener]] with name = \"mx\" and address = [\"[::]:25\"].";
        let top = faults.location(0);
        faults.add(
            &top,
            "there is no [[listener]]: no mail can be received",
            remedy,
        );
    }
    let names = listeners
        .iter()
        .filter_map(|listener| listener.name.located());
    reject_duplicates(
        names.map(|name| (name.value.as_str(), &name.location)),
        faults,
        |name| {
            (
                format!("there is a listener \"{}\" already", shorten(name)),
                "Give each listener a name of its own.".to_owned(),
            )
        },
    );
    let addresses = listeners
        .iter()
        .filter_map(|listener| listener.addresses.value())
        .flatten();
    // Port 0 is a different port each time.
    let addresses = addresses
        .filter(|address| bind_address(&address.value).is_none_or(|address| address.port() != 0));
    reject_duplicates(
        addresses.map(|address| (&address.value, &address.location)),
        faults,
        |address| {
            (
                format!("{address} already has a listener"),
                "Remove it here or there.".to_owned(),
            )
        },
    );
    for listener in listeners {
        check_listener(listener, tls, faults);
    }
}

/// Warns of load balancers and proxies that are also clients in `[relay] networks`: a stranger who
/// connects through one without a PROXY header or XCLIENT gets the same rights.
pub(super) fn warn_of_trusted_proxies(
    listeners: &[ListenerToml],
    relay: &[IpNet],
    faults: &mut FaultList<'_>,
) {
    let overlap = |networks: &[IpNet]| {
        let pairs = networks
            .iter()
            .flat_map(|one| relay.iter().map(move |other| (*one, *other)));
        pairs
            .into_iter()
            .find(|(one, other)| one.contains(other) || other.contains(one))
    };
    for listener in listeners {
        for (key, field, route, kind) in [
            (
                "proxy_protocol",
                &listener.proxy_protocol,
                "reaches another listener through that balancer",
                "balancer",
            ),
            (
                "xclient",
                &listener.xclient,
                "comes by that proxy without XCLIENT",
                "proxy",
            ),
        ] {
            let Some(networks) = field.located() else {
                continue;
            };
            let Some((ours, network)) = overlap(&networks.value) else {
                continue;
            };
            let message = format!(
                "{key} {ours} overlaps [relay] networks {network}: a client that {route} may send to any domain"
            );
            let remedy = format!(
                "Name in [relay] networks the clients alone, without the {kind}; where the key is missing, all of \
                 127.0.0.0/8 and ::1 are clients."
            );
            faults.warn(&networks.location, message, remedy);
        }
    }
}

fn check_listener(listener: &ListenerToml, tls: &TlsToml, faults: &mut FaultList<'_>) {
    let location = listener
        .tls
        .located()
        .map_or(&listener.location, |tls| &tls.location);
    if tls.identity.is_absent() && listener.offers_tls() && !matches!(listener.tls, Field::Invalid)
    {
        let remedy = "Add certificate and key to [tls], or write tls = \"off\" here.";
        faults.add(
            location,
            "this listener offers TLS, but [tls] has no certificate",
            remedy,
        );
    }
    let Some(request) = listener
        .request_client_certificate
        .located()
        .filter(|request| request.value)
    else {
        return;
    };
    if listener.tls.value() == Some(&ListenerTls::Off) {
        let remedy = "Remove request_client_certificate, or let the listener offer TLS.";
        faults.add(
            &request.location,
            "a client can show no certificate to a listener with tls = \"off\"",
            remedy,
        );
    }
}

/// The address, if we bind it ourselves. Only systemd knows the address of a socket that it passes.
pub(super) fn bind_address(address: &ListenAddress) -> Option<SocketAddr> {
    match address {
        ListenAddress::Bind(address) => Some(*address),
        ListenAddress::Systemd(_) => None,
    }
}
