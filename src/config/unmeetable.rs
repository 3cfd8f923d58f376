//! Demands that no host can satisfy under the rest of the configuration, and a minimum version that
//! leaves opportunistic mail in the clear.

use super::connector_toml::{ConnectorToml, RouteToml};
use super::fault_list::FaultList;
use super::settings::{DnsConfig, Dnssec, ListenerTls};
use super::spelling::shorten;
use super::tls_level::WrittenTlsLevel;
use super::tls_toml::{ListenerToml, TlsToml};
use crate::policy::connector::{DEFAULT_NAME, DomainPattern, Publication, VerifyWanted};
use crate::policy::tls::TlsVersion;
use crate::smtp::address::Host;

/// Rejects mandatory DANE without DNSSEC, or to a smart host without a name.
pub(super) fn check_dane(
    connectors: &[ConnectorToml],
    dns: &DnsConfig,
    faults: &mut FaultList<'_>,
) {
    let is_off = dns.dnssec.value == Dnssec::Off;
    for connector in connectors {
        let outbound = &connector.outbound;
        let dane = outbound
            .verify
            .located()
            .filter(|verify| verify.value == VerifyWanted::Dane);
        let Some(verify) = dane.filter(|_| outbound.tls.value() == Some(&WrittenTlsLevel::Forced))
        else {
            let asked = outbound
                .discover
                .located()
                .filter(|asked| asked.value.contains(&Publication::Dane));
            if let Some(asked) = asked.filter(|_| is_off) {
                let message = "discover asks for DANE, but [dns] dnssec = \"off\": no TLSA record is ever used";
                faults.warn(
                    &asked.location,
                    message,
                    "Write dnssec = \"validate\" in [dns], or remove \"dane\" from discover.",
                );
            }
            continue;
        };
        if is_off {
            let message =
                "verify = \"dane\" can never be met: [dns] dnssec = \"off\" proves no TLSA record";
            faults.add(
                &verify.location,
                message,
                "Write dnssec = \"validate\" in [dns], or another verify.",
            );
        }
        let Some(RouteToml::SmartHosts(hosts)) = outbound.route.value() else {
            continue;
        };
        for host in hosts
            .iter()
            .filter(|host| matches!(host.value.host, Host::Literal(_)))
        {
            let message = format!(
                "verify = \"dane\" can never be met: {} is an address, which has no TLSA records",
                host.value
            );
            faults.add(
                &host.location,
                message,
                "Write the smart host by its name, or another verify.",
            );
        }
    }
}

/// Warns that `[tls] min_version = "1.3"` leaves peers with TLS 1.2 in the clear, where TLS is
/// opportunistic.
pub(super) fn warn_of_old_peers(
    tls: &TlsToml,
    listeners: Option<&[ListenerToml]>,
    connectors: &[ConnectorToml],
    faults: &mut FaultList<'_>,
) {
    let Some(version) = tls
        .min_version
        .located()
        .filter(|version| version.value == TlsVersion::V1_3)
    else {
        return;
    };
    let mut remedy = "Write min_version = \"1.2\" here, and min_version = \"1.3\" in the connectors that force TLS.";
    if let Some(name) = opportunistic(connectors) {
        let message = format!(
            "min_version = \"1.3\": mail by the connector {name} goes in the clear to hosts that have TLS 1.2 alone, for its \
             TLS is opportunistic"
        );
        faults.warn(&version.location, message, remedy);
        return;
    }
    let clear = |listener: &&ListenerToml| {
        listener.tls.resolve(ListenerTls::Opportunistic) == Some(ListenerTls::Opportunistic)
    };
    if let Some(listener) = listeners.unwrap_or_default().iter().find(clear) {
        remedy = "Write min_version = \"1.2\" here, or tls = \"forced\" in the listener.";
        let name = listener
            .name
            .value()
            .map(|name| shorten(name))
            .unwrap_or_default();
        let message = format!(
            "min_version = \"1.3\": clients that have TLS 1.2 alone may send in the clear to the listener \"{name}\", for \
             its TLS is opportunistic"
        );
        faults.warn(&version.location, message, remedy);
    }
}

/// The first connector that sends with opportunistic TLS, in quotes; the built-in one if no
/// connector covers all domains.
fn opportunistic(connectors: &[ConnectorToml]) -> Option<String> {
    let is_opportunistic = |connector: &&ConnectorToml| {
        let outbound = &connector.outbound;
        let lowered = outbound.exception.value().map(|exception| exception.tls);
        outbound.tls.resolve(WrittenTlsLevel::Opportunistic) == Some(WrittenTlsLevel::Opportunistic)
            || lowered == Some(WrittenTlsLevel::Opportunistic)
    };
    let named = |connector: &ConnectorToml| {
        connector
            .name
            .value()
            .map(|name| format!("\"{}\"", shorten(name)))
    };
    let covers_all = |connector: &ConnectorToml| {
        connector
            .domains
            .value()
            .is_none_or(|domains| domains.iter().any(|one| one.value == DomainPattern::Any))
    };
    if let Some(connector) = connectors.iter().find(is_opportunistic) {
        return named(connector);
    }
    (!connectors.iter().any(covers_all)).then(|| format!("\"{DEFAULT_NAME}\" (built in)"))
}
