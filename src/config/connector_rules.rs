//! Rules between the keys of a `[[connector]]` table, and between the tables.

use std::net::SocketAddr;

use super::auth_rules::check_auth;
use super::connector_toml::{ConnectorToml, InboundToml, OutboundToml, RouteToml};
use super::fault_list::FaultList;
use super::hosts::covers_everything;
use super::reader::Field;
use super::route_rules::check_route_tls;
use super::rules::{bind_address, reject_duplicates};
use super::settings::ListenAddress;
use super::spelling::shorten;
use super::tls_level::WrittenTlsLevel;
use super::tls_toml::{ListenerToml, TlsToml};
use crate::policy::connector::{DEFAULT_NAME, HopProtocol, Publication, TrustSource, VerifyWanted};
use crate::policy::location::Located;
use crate::policy::tls::{NamePattern, Revocation, Strength, TlsVersion};
use crate::smtp::address::Host;

/// Checks each connector, and all of them for duplicates.
pub(super) fn check_connectors(
    connectors: &[ConnectorToml],
    tls: &TlsToml,
    listeners: Option<&[ListenerToml]>,
    faults: &mut FaultList<'_>,
) {
    let names = connectors
        .iter()
        .filter_map(|connector| connector.name.located());
    reject_duplicates(
        names
            .clone()
            .map(|name| (name.value.as_str(), &name.location)),
        faults,
        |name| {
            (
                format!("there is a connector \"{}\" already", shorten(name)),
                "Give each connector a name of its own.".to_owned(),
            )
        },
    );
    for name in names.filter(|name| name.value == DEFAULT_NAME) {
        let message = "\"default\" is the name of the built-in connector";
        faults.add(
            &name.location,
            message,
            "Give this connector another name, such as \"internet\".",
        );
    }
    let patterns = connectors
        .iter()
        .filter_map(|connector| connector.domains.value())
        .flatten();
    reject_duplicates(
        patterns.map(|pattern| (&pattern.value, &pattern.location)),
        faults,
        |pattern| {
            let remedy = "Remove the pattern here or there: only one connector can have it.";
            (
                format!("a connector already covers \"{pattern}\""),
                remedy.to_owned(),
            )
        },
    );
    for connector in connectors {
        check_identification(connector, faults);
        check_outbound(connector, tls, faults);
        check_inbound(connector, tls, listeners, faults);
        if let Some(listeners) = listeners {
            reject_loops(&connector.outbound, listeners, faults);
        }
    }
}

/// Returns the verification that a direction demands, which is [`VerifyWanted::None`] unless `tls`
/// is forced. Returns `None` if a value is invalid.
fn verifies(tls: &Field<WrittenTlsLevel>, verify: &Field<VerifyWanted>) -> Option<VerifyWanted> {
    match tls.resolve(WrittenTlsLevel::Opportunistic)? {
        WrittenTlsLevel::Off | WrittenTlsLevel::Opportunistic => Some(VerifyWanted::None),
        WrittenTlsLevel::Forced => verify.resolve(VerifyWanted::None),
    }
}

/// Rejects `names`, `trust` and `pins` that no direction uses, and `verify = "pin"` without pins.
fn check_identification(connector: &ConnectorToml, faults: &mut FaultList<'_>) {
    let outbound = verifies(&connector.outbound.tls, &connector.outbound.verify);
    let inbound = verifies(&connector.inbound.tls, &connector.inbound.verify);
    let (Some(outbound), Some(inbound)) = (outbound, inbound) else {
        return;
    };
    if let Some(names) = connector
        .names
        .located()
        .filter(|_| ![outbound, inbound].contains(&VerifyWanted::Name))
    {
        let remedy =
            "Write tls = \"forced\" and verify = \"name\" in a direction, or remove names.";
        faults.add(
            &names.location,
            "names is used by neither direction of this connector",
            remedy,
        );
    }
    let follows = |verify| matches!(verify, VerifyWanted::Chain | VerifyWanted::Name);
    if let Some(trust) = connector
        .trust
        .located()
        .filter(|_| !follows(outbound) && !follows(inbound))
    {
        let remedy = "Write tls = \"forced\" and verify = \"name\" or \"chain\" in a direction, or remove trust.";
        faults.add(
            &trust.location,
            "trust is used by neither direction of this connector",
            remedy,
        );
    }
    reject_unused_revocation(connector, outbound, inbound, faults);
    if let Some(pins) = connector
        .pins
        .located()
        .filter(|_| ![outbound, inbound].contains(&VerifyWanted::Pin))
    {
        let remedy = "Write tls = \"forced\" and verify = \"pin\" in a direction, or remove pins.";
        faults.add(
            &pins.location,
            "pins is used by neither direction of this connector",
            remedy,
        );
    }
    if connector.pins.is_absent() {
        for verify in [&connector.outbound.verify, &connector.inbound.verify] {
            if let Some(verify) = verify
                .located()
                .filter(|verify| verify.value == VerifyWanted::Pin)
            {
                let remedy = "Add pins to the connector: [\"sha256:…\"]; `gatepost probe` prints that of a server.";
                faults.add(&verify.location, "verify = \"pin\" needs pins", remedy);
            }
        }
    }
    for pattern in connector.names.value().into_iter().flatten() {
        if matches!(&pattern.value, NamePattern::OneLabelUnder(base) if base.parent().is_none()) {
            let message = format!(
                "\"{}\" accepts the certificate of every domain under it",
                pattern.value
            );
            faults.warn(
                &pattern.location,
                message,
                "Write the names that this partner's certificates carry.",
            );
        }
    }
}

/// Rejects `revocation` where no path to a trust anchor is demanded, and `crl` that no direction
/// consults. A pinned key is trusted by itself, and so is a certificate that a TLSA record names;
/// without a proof of identity there is no certificate to judge.
fn reject_unused_revocation(
    connector: &ConnectorToml,
    outbound: VerifyWanted,
    inbound: VerifyWanted,
    faults: &mut FaultList<'_>,
) {
    let follows = |verify| matches!(verify, VerifyWanted::Chain | VerifyWanted::Name);
    let is_on = |field: &Field<Revocation>| {
        field
            .located()
            .filter(|revocation| revocation.value != Revocation::Off)
            .map(|revocation| revocation.location.clone())
    };
    let mut is_consulted = false;
    for (own, verify) in [
        (&connector.outbound.revocation, outbound),
        (&connector.inbound.revocation, inbound),
    ] {
        let wanted = own.resolve(Revocation::Off);
        let for_both = connector.revocation.resolve(Revocation::Off);
        let level = if own.is_absent() { for_both } else { wanted };
        // An invalid value has been reported.
        is_consulted |= follows(verify) && level != Some(Revocation::Off);
        if let Some(location) = is_on(own).filter(|_| !follows(verify)) {
            let (message, remedy) = match verify {
                VerifyWanted::Pin => (
                    "revocation has no meaning with verify = \"pin\": a pinned key is trusted whoever issued its certificate",
                    "Remove revocation; to revoke a pinned key, remove it from pins.",
                ),
                VerifyWanted::Dane => (
                    "revocation has no meaning with verify = \"dane\": the TLSA records alone say which certificates hold",
                    "Remove revocation; the owner of the records revokes a certificate by removing its record.",
                ),
                VerifyWanted::None | VerifyWanted::Chain | VerifyWanted::Name => (
                    "revocation has no meaning here: this direction demands no certificate of an authority",
                    "Write tls = \"forced\" and verify = \"name\" or \"chain\" in this direction, or remove revocation.",
                ),
            };
            faults.add(&location, message, remedy);
        }
    }
    let is_used = follows(outbound) || follows(inbound);
    if let Some(location) = is_on(&connector.revocation).filter(|_| !is_used) {
        let remedy = "Write tls = \"forced\" and verify = \"name\" or \"chain\" in a direction, or remove revocation.";
        faults.add(
            &location,
            "revocation is used by neither direction of this connector",
            remedy,
        );
    }
    if let Some(crl) = connector.crl.located().filter(|_| !is_consulted) {
        let remedy = "Write revocation = \"if-known\" or \"required\" beside it, with verify = \"name\" or \"chain\" in a direction.";
        faults.add(
            &crl.location,
            "crl is used by neither direction of this connector",
            remedy,
        );
    }
}

/// Rejects a key that has an effect in a forced direction only.
fn reject_unless_forced<T>(
    key: &str,
    given: &Field<T>,
    tls: &Field<WrittenTlsLevel>,
    faults: &mut FaultList<'_>,
) {
    let level = tls.resolve(WrittenTlsLevel::Opportunistic);
    let (Some(given), Some(level @ (WrittenTlsLevel::Off | WrittenTlsLevel::Opportunistic))) =
        (given.located(), level)
    else {
        return;
    };
    let level = if level == WrittenTlsLevel::Off {
        "off"
    } else {
        "opportunistic"
    };
    let message = format!("{key} demands something, but tls = \"{level}\" demands nothing");
    faults.add(
        &given.location,
        message,
        format!("Write tls = \"forced\" in this direction, or remove {key}."),
    );
}

fn check_outbound(connector: &ConnectorToml, tls: &TlsToml, faults: &mut FaultList<'_>) {
    let outbound = &connector.outbound;
    reject_unless_forced("verify", &outbound.verify, &outbound.tls, faults);
    reject_unless_forced("min_version", &outbound.min_version, &outbound.tls, faults);
    reject_unless_forced(
        "min_strength",
        &outbound.min_strength,
        &outbound.tls,
        faults,
    );
    check_key_exchange(outbound, faults);
    check_published(outbound, faults);
    check_route_tls(outbound, faults);
    check_auth(outbound, faults);
    let newest = tls.min_version.value() == Some(&TlsVersion::V1_3);
    if let Some(version) = outbound
        .min_version
        .located()
        .filter(|version| newest && version.value == TlsVersion::V1_2)
    {
        let remedy = "Remove it here, or lower [tls] min_version.";
        faults.add(
            &version.location,
            "min_version is older than that of [tls], which applies to all peers",
            remedy,
        );
    }
    let hosts = match outbound.route.value() {
        Some(RouteToml::SmartHosts(hosts)) => hosts.as_slice(),
        Some(RouteToml::Mx) | None => &[],
    };
    if let Some(port) = outbound.port.located().filter(|_| !hosts.is_empty()) {
        let remedy = "Remove port: each smart host in route has its own.";
        faults.add(
            &port.location,
            "port is that of MX hosts, but route names smart hosts",
            remedy,
        );
    }
    if let Some(files) = outbound
        .client_identity
        .located()
        .filter(|_| outbound.tls.value() == Some(&WrittenTlsLevel::Off))
    {
        let remedy = "Remove client_certificate and client_key, or write tls = \"opportunistic\" or \"forced\".";
        faults.add(
            &files.location,
            "a client certificate is never shown with tls = \"off\"",
            remedy,
        );
    }
    let wants_name = verifies(&outbound.tls, &outbound.verify) == Some(VerifyWanted::Name);
    if wants_name && connector.names.is_absent() {
        for host in hosts
            .iter()
            .filter(|host| matches!(host.value.host, Host::Literal(_)))
            .filter(|host| !matches!(host.value.protocol, HopProtocol::LmtpSocket(_)))
        {
            let message = format!(
                "verify = \"name\" needs names: {} is an address",
                host.value
            );
            let remedy =
                "Add names to the connector: those that the smart host's certificate carries.";
            faults.add(&host.location, message, remedy);
        }
    }
}

fn check_inbound(
    connector: &ConnectorToml,
    tls: &TlsToml,
    listeners: Option<&[ListenerToml]>,
    faults: &mut FaultList<'_>,
) {
    let inbound = &connector.inbound;
    reject_unless_forced("verify", &inbound.verify, &inbound.tls, faults);
    let verifies = verifies(&inbound.tls, &inbound.verify);
    let demand = inbound
        .verify
        .located()
        .map_or(&inbound.location, |verify| &verify.location);
    if verifies == Some(VerifyWanted::Name) && connector.names.is_absent() {
        let remedy =
            "Add names to the connector: those that the partner's client certificate carries.";
        faults.add(demand, "inbound verify = \"name\" needs names", remedy);
    }
    if let (Some(forced), Some(listeners)) = (inbound.tls.located(), listeners)
        && forced.value == WrittenTlsLevel::Forced
        && !listeners.is_empty()
    {
        if !listeners.iter().any(ListenerToml::offers_tls) {
            let remedy = "Let a listener offer TLS, or write tls = \"opportunistic\" here.";
            faults.add(
                &forced.location,
                "tls = \"forced\" can never be met: no listener offers TLS",
                remedy,
            );
        } else if matches!(
            verifies,
            Some(VerifyWanted::Chain | VerifyWanted::Name | VerifyWanted::Pin)
        ) && !listeners.iter().any(ListenerToml::asks_for_certificate)
        {
            let remedy = "Write request_client_certificate = true in a listener that offers TLS.";
            faults.add(
                demand,
                "verify can never be met: no listener asks clients for a certificate",
                remedy,
            );
        }
    }
    if let Some(relay) = inbound.relay.located().filter(|relay| relay.value) {
        let trust = if connector.trust.is_absent() {
            &tls.trust
        } else {
            &connector.trust
        };
        reject_open_relay(relay, inbound, verifies, trust, faults);
    }
}

/// Checks `groups` and `min_strength`.
fn check_key_exchange(outbound: &OutboundToml, faults: &mut FaultList<'_>) {
    if let Some(groups) = outbound
        .groups
        .located()
        .filter(|_| outbound.tls.value() == Some(&WrittenTlsLevel::Off))
    {
        let remedy = "Remove groups, or write tls = \"opportunistic\" or \"forced\".";
        faults.add(
            &groups.location,
            "groups has no effect: with tls = \"off\" there is no handshake",
            remedy,
        );
    }
    let classical = outbound.groups.value() == Some(&Strength::Classical);
    let demanded = outbound.min_strength.located();
    if let Some(demanded) =
        demanded.filter(|demanded| classical && demanded.value == Strength::PostQuantum)
    {
        let message = "min_strength = \"post-quantum\" can never be met: groups = \"classical\" does not offer it";
        faults.add(
            &demanded.location,
            message,
            "Remove groups, or lower min_strength to \"classical\".",
        );
    }
}

/// Checks `discover`, `downgrade` and `exception`.
fn check_published(outbound: &OutboundToml, faults: &mut FaultList<'_>) {
    let off = outbound.tls.value() == Some(&WrittenTlsLevel::Off);
    if let Some(discover) = outbound
        .discover
        .located()
        .filter(|discover| off && !discover.value.is_empty())
    {
        let remedy = "Remove discover, or write tls = \"opportunistic\" or \"forced\".";
        faults.add(
            &discover.location,
            "discover raises demands, but with tls = \"off\" TLS is not tried",
            remedy,
        );
    }
    if let Some(downgrade) = outbound.downgrade.located().filter(|_| off) {
        let remedy = "Remove downgrade, or write tls = \"opportunistic\" or \"forced\".";
        faults.add(
            &downgrade.location,
            "downgrade has no effect: with tls = \"off\" TLS is not tried",
            remedy,
        );
    }
    let dane = outbound
        .verify
        .located()
        .filter(|verify| verify.value == VerifyWanted::Dane);
    let looked_up = outbound.discover.resolve(vec![Publication::Dane]);
    if let (Some(verify), Some(looked_up)) = (dane, looked_up)
        && !looked_up.contains(&Publication::Dane)
    {
        let remedy = "Add \"dane\" to discover, or write another verify.";
        faults.add(
            &verify.location,
            "verify = \"dane\" can never be met: discover does not include it",
            remedy,
        );
    }
    let Some(exception) = outbound.exception.located() else {
        return;
    };
    let (Some(tls), Some(verify)) = (
        outbound.tls.resolve(WrittenTlsLevel::Opportunistic),
        outbound.verify.resolve(VerifyWanted::None),
    ) else {
        return;
    };
    let lowers = match (tls, exception.value.tls) {
        (WrittenTlsLevel::Forced, WrittenTlsLevel::Forced) => verify != VerifyWanted::None,
        (WrittenTlsLevel::Forced, WrittenTlsLevel::Off | WrittenTlsLevel::Opportunistic)
        | (WrittenTlsLevel::Opportunistic, WrittenTlsLevel::Off) => true,
        (
            WrittenTlsLevel::Opportunistic,
            WrittenTlsLevel::Opportunistic | WrittenTlsLevel::Forced,
        )
        | (WrittenTlsLevel::Off, _) => false,
    };
    if !lowers {
        let remedy = "Remove the exception, or write a lower tls in it than the connector's.";
        faults.add(
            &exception.value.tls_location,
            "the exception does not lower what the connector demands",
            remedy,
        );
    }
}

/// Rejects `relay = true` if the demand does not identify the client.
fn reject_open_relay(
    relay: &Located<bool>,
    inbound: &InboundToml,
    verifies: Option<VerifyWanted>,
    trust: &Field<TrustSource>,
    faults: &mut FaultList<'_>,
) {
    let networks = match &inbound.networks {
        Field::Invalid => return,
        Field::Absent => None,
        Field::Valid(networks) => Some(covers_everything(&networks.value)),
    };
    let public = matches!(
        trust.resolve(TrustSource::Webpki),
        Some(TrustSource::Webpki | TrustSource::System)
    );
    let why = match verifies {
        _ if networks == Some(false) => return,
        Some(VerifyWanted::None) if networks == Some(true) => "its networks are the whole Internet",
        Some(VerifyWanted::None) => "nothing here proves who the client is",
        Some(VerifyWanted::Chain) if public => {
            "anybody can have a certificate of a public authority"
        }
        // A server's TLSA records do not identify a client.
        Some(VerifyWanted::Chain | VerifyWanted::Name | VerifyWanted::Pin | VerifyWanted::Dane)
        | None => return,
    };
    let remedy = "Write tls = \"forced\" with verify = \"name\" (or \"chain\" with the partner's own authority as trust), \
                  or networks that are the partner's.";
    faults.add(
        &relay.location,
        format!("relay = true is an open relay: {why}"),
        remedy,
    );
}

/// Rejects a smart host that is one of our own listeners, because each message would loop until its
/// Received limit.
fn reject_loops(outbound: &OutboundToml, listeners: &[ListenerToml], faults: &mut FaultList<'_>) {
    let Some(RouteToml::SmartHosts(hosts)) = outbound.route.value() else {
        return;
    };
    for host in hosts {
        let Host::Literal(address) = &host.value.host else {
            continue;
        };
        if matches!(host.value.protocol, HopProtocol::LmtpSocket(_)) {
            continue;
        }
        let target = SocketAddr::new(*address, host.value.port);
        let addresses = listeners
            .iter()
            .filter_map(|listener| listener.addresses.value())
            .flatten();
        let is_target =
            |own: &ListenAddress| bind_address(own).is_some_and(|own| reaches(target, own));
        if let Some(own) = addresses.into_iter().find(|own| is_target(&own.value)) {
            let message = format!(
                "{} is our own listener ({}): mail would go round in a loop",
                host.value, own.location
            );
            faults.add(
                &host.location,
                message,
                "Write the address of the server that the mail is for.",
            );
        }
    }
}

/// Returns true if a connection to `target` certainly ends at a socket bound to `own`.
fn reaches(target: SocketAddr, own: SocketAddr) -> bool {
    let everywhere = own.ip().is_unspecified() && (own.is_ipv6() || target.is_ipv4());
    let here = target.ip() == own.ip() || (everywhere && target.ip().is_loopback());
    here && target.port() == own.port()
}
