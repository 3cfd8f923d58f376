//! Demands that no host can meet with the rest of the configuration, and a demand on everybody that leaves
//! opportunistic mail in the clear.

use super::own::{WrittenListener, WrittenTls};
use super::partner::{DEFAULT_NAME, Level, WrittenConnector, WrittenRoute};
use super::place::Notes;
use super::reader::short;
use super::{Dns, Dnssec, DomainPattern, ListenerTls, Publication, VerifyWanted};
use crate::address::Host;
use crate::tls::TlsVersion;

/// DANE needs DNSSEC, and a host with a name.
pub(super) fn dane(connectors: &[WrittenConnector], dns: &Dns, notes: &mut Notes<'_>) {
    let is_off = dns.dnssec.value == Dnssec::Off;
    for connector in connectors {
        let outbound = &connector.outbound;
        let dane = outbound.verify.located().filter(|verify| verify.value == VerifyWanted::Dane);
        let Some(verify) = dane.filter(|_| outbound.tls.value() == Some(&Level::Forced)) else {
            let asked = outbound.discover.located().filter(|asked| asked.value.contains(&Publication::Dane));
            if let Some(asked) = asked.filter(|_| is_off) {
                let message = "discover asks for DANE, but [dns] dnssec = \"off\": no TLSA record is ever used";
                notes.warn(
                    &asked.place,
                    message,
                    "Write dnssec = \"validate\" in [dns], or take \"dane\" out of discover.",
                );
            }
            continue;
        };
        if is_off {
            let message = "verify = \"dane\" can never be met: [dns] dnssec = \"off\" proves no TLSA record";
            notes.fault(&verify.place, message, "Write dnssec = \"validate\" in [dns], or another verify.");
        }
        let Some(WrittenRoute::SmartHosts(hosts)) = outbound.route.value() else { continue };
        for host in hosts.iter().filter(|host| matches!(host.value.host, Host::Literal(_))) {
            let message =
                format!("verify = \"dane\" can never be met: {} is an address, which has no TLSA records", host.value);
            notes.fault(&host.place, message, "Write the smart host by its name, or another verify.");
        }
    }
}

/// Whoever has TLS 1.2 alone has no TLS with us where `[tls] min_version` is 1.3.
pub(super) fn oldest_version(
    tls: &WrittenTls,
    listeners: Option<&[WrittenListener]>,
    connectors: &[WrittenConnector],
    notes: &mut Notes<'_>,
) {
    let Some(version) = tls.min_version.located().filter(|version| version.value == TlsVersion::V1_3) else { return };
    let mut remedy = "Write min_version = \"1.2\" here, and min_version = \"1.3\" in the connectors that force TLS.";
    if let Some(name) = opportunistic(connectors) {
        let message = format!(
            "min_version = \"1.3\": mail by the connector {name} goes in the clear to hosts that have TLS 1.2 alone, for its \
             TLS is opportunistic"
        );
        notes.warn(&version.place, message, remedy);
        return;
    }
    let clear = |listener: &&WrittenListener| {
        listener.tls.meant(ListenerTls::Opportunistic) == Some(ListenerTls::Opportunistic)
    };
    if let Some(listener) = listeners.unwrap_or_default().iter().find(clear) {
        remedy = "Write min_version = \"1.2\" here, or tls = \"forced\" in the listener.";
        let name = listener.name.value().map(|name| short(name)).unwrap_or_default();
        let message = format!(
            "min_version = \"1.3\": clients that have TLS 1.2 alone may send in the clear to the listener \"{name}\", for \
             its TLS is opportunistic"
        );
        notes.warn(&version.place, message, remedy);
    }
}

/// The first connector that sends with opportunistic TLS, in quotes; the built-in one where none speaks for all.
fn opportunistic(connectors: &[WrittenConnector]) -> Option<String> {
    let is_opportunistic = |connector: &&WrittenConnector| {
        let outbound = &connector.outbound;
        let lowered = outbound.exception.value().map(|exception| exception.tls);
        outbound.tls.meant(Level::Opportunistic) == Some(Level::Opportunistic) || lowered == Some(Level::Opportunistic)
    };
    let named = |connector: &WrittenConnector| connector.name.value().map(|name| format!("\"{}\"", short(name)));
    let covers_all = |connector: &WrittenConnector| {
        connector.domains.value().is_none_or(|domains| domains.iter().any(|one| one.value == DomainPattern::Any))
    };
    if let Some(connector) = connectors.iter().find(is_opportunistic) {
        return named(connector);
    }
    (!connectors.iter().any(covers_all)).then(|| format!("\"{DEFAULT_NAME}\" (built in)"))
}
