//! The rules of connectors and of the check of recipients in words.

use std::fmt::Display;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::{
    Connector, DatabaseConfig, OnDowngrade, OnFailure, OnTrouble, Publication, RecipientRules,
    RecipientSource, Route, TlsDemand, TlsException, TrustSource, VerifyWanted, WarnAfter,
    write_duration,
};
use crate::policy::connector::exception;
use crate::policy::directory::DirectoryTls;
use crate::policy::tls::{Revocation, Strength, TlsVersion};
use crate::relay::recipient_tables::TableReading;

/// Returns the items with commas between them, or `none`.
pub(super) fn listed<T: Display>(items: &[T], none: &str) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns the check of recipients of one table, in parts.
pub(super) fn recipients(table: &TableReading) -> Vec<String> {
    let rules = &table.rules;
    match &rules.source {
        RecipientSource::File(file) => {
            let (addresses, domains) = table.listed.unwrap_or_default();
            vec![
                file.value.display().to_string(),
                format!("addresses: {addresses}"),
                format!("domains: {domains}"),
                tags(rules).to_owned(),
            ]
        }
        RecipientSource::Ask => {
            let asked = "the mailbox server is asked, by the connector of the domain";
            [vec![asked.to_owned()], answers(rules)].concat()
        }
        RecipientSource::Ldap(directory) => {
            let tls = match directory.url.value.tls {
                DirectoryTls::Implicit => "LDAPS",
                DirectoryTls::StartTls => "LDAP with STARTTLS",
                DirectoryTls::Off => "LDAP in the clear, on this machine",
            };
            let login = directory.login.as_ref();
            let parts = vec![
                format!("{} is searched", directory.url.value),
                tls.to_owned(),
                format!("base {}", directory.base),
                format!("filter {}", directory.filter.as_str()),
                login.map_or_else(
                    || "anonymous".to_owned(),
                    |login| format!("as {}", login.bind_dn),
                ),
                tags(rules).to_owned(),
            ];
            [parts, answers(rules)].concat()
        }
    }
}

/// Returns the meaning of a plus-tag.
fn tags(rules: &RecipientRules) -> &'static str {
    if rules.plus_tags {
        "user+tag exists where user does"
    } else {
        "user+tag must exist itself"
    }
}

/// Returns what happens to answers, and without one.
fn answers(rules: &RecipientRules) -> Vec<String> {
    vec![
        format!("a yes is kept for {}", write_duration(rules.cache)),
        format!("a no for {}", write_duration(rules.cache_of_no())),
        match rules.on_trouble {
            OnTrouble::Defer => "451 without an answer".to_owned(),
            OnTrouble::Accept => "accepted without an answer".to_owned(),
        },
    ]
}

/// Returns the rules for mail to the connector's domains, in parts.
pub(super) fn outbound(connector: &Connector, now: Timestamp) -> Vec<String> {
    let outbound = &connector.outbound;
    let mut parts = vec![route(&outbound.route)];
    parts.extend(demand(
        connector,
        outbound.tls,
        outbound.revocation,
        default_name(&outbound.route),
    ));
    parts.extend(other_layers(connector));
    parts.extend(
        outbound
            .exception
            .as_ref()
            .map(|found| exception_text(found, now)),
    );
    if let Some(files) = &outbound.client_identity {
        parts.push(format!("we show {}", files.certificate.value.display()));
    }
    parts.extend(on_failure(connector));
    let (connections, messages) = (outbound.connections, outbound.messages_per_connection);
    parts.push(format!(
        "{connections} connections, {messages} messages each"
    ));
    if !outbound.source.is_empty() {
        parts.push(format!("from {}", listed(&outbound.source, "any address")));
    }
    let schedule = &outbound.schedule;
    if let Some(retry) = &schedule.retry {
        let steps: Vec<_> = retry.iter().map(|step| write_duration(*step)).collect();
        parts.push(format!("retry after {}", steps.join(", ")));
    }
    let expire = schedule.expire.map(write_duration);
    parts.extend(expire.map(|age| format!("expires after {age}")));
    parts.extend(schedule.warn_after.map(|warn_after| match warn_after {
        WarnAfter::Never => "no report of a delay".to_owned(),
        WarnAfter::Age(age) => format!("report of a delay after {}", write_duration(age)),
    }));
    parts.extend(outbound.ehlo.as_ref().map(|name| format!("EHLO {name}")));
    parts.extend(
        outbound
            .auth
            .as_ref()
            .map(|auth| format!("login as {} with {}", auth.user, auth.secret)),
    );
    parts
}

/// Returns the rules for mail from the connector's domains, in parts.
pub(super) fn inbound(connector: &Connector) -> Vec<String> {
    let mut parts = inbound_demand(connector);
    if !connector.inbound.networks.is_empty() {
        parts.push(format!(
            "only from {}",
            listed(&connector.inbound.networks, "no network")
        ));
    }
    if connector.inbound.relay {
        parts.push("may relay to any domain".to_owned());
    }
    parts
}

/// Returns the demand on mail to the connector's domains, in parts. An exception replaces it while
/// it is in force.
pub(super) fn outbound_demand(connector: &Connector, now: Timestamp) -> Vec<String> {
    let outbound = &connector.outbound;
    let (demanded, revocation) = match exception(connector, now) {
        Some(exception) => (exception.tls, Revocation::Off),
        None => (outbound.tls, outbound.revocation),
    };
    demand(
        connector,
        demanded,
        revocation,
        default_name(&outbound.route),
    )
}

/// Returns the connector's own demand on mail to its domains, in parts; `None` if it is in force,
/// because no exception is.
pub(super) fn demand_after_exception(connector: &Connector, now: Timestamp) -> Option<Vec<String>> {
    exception(connector, now)?;
    Some(demand(
        connector,
        connector.outbound.tls,
        connector.outbound.revocation,
        default_name(&connector.outbound.route),
    ))
}

/// Returns the demand on mail from the connector's domains, in parts.
pub(super) fn inbound_demand(connector: &Connector) -> Vec<String> {
    // The configuration requires `names` for an inbound `verify = "name"`: the default name is
    // never used.
    let inbound = &connector.inbound;
    demand(connector, inbound.tls, inbound.revocation, "no name")
}

/// Returns the next hop.
pub(super) fn route(route: &Route) -> String {
    match route {
        Route::Mx { port: 25 } => "by MX".to_owned(),
        Route::Mx { port } => format!("by MX, port {port}"),
        Route::SmartHosts(hosts) => {
            format!(
                "by {}",
                hosts
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", then ")
            )
        }
    }
}

/// Returns the names that count if the connector has no `names`.
pub(super) fn default_name(route: &Route) -> &'static str {
    match route {
        Route::Mx { .. } => "the recipient domain or *. of it",
        Route::SmartHosts(_) => "the smart host's own name",
    }
}

/// Returns the connector's demand in one direction, in parts. `default_name` describes the names
/// that count if the connector has no `names`.
fn demand(
    connector: &Connector,
    demand: TlsDemand,
    revocation: Revocation,
    default_name: &str,
) -> Vec<String> {
    let (min_version, verify) = match demand {
        TlsDemand::Off => return vec!["TLS off".to_owned()],
        TlsDemand::Opportunistic => return vec!["TLS opportunistic".to_owned()],
        TlsDemand::Forced {
            min_version,
            verify,
        } => (min_version, verify),
    };
    let mut parts = vec![match min_version {
        TlsVersion::V1_2 => "TLS forced".to_owned(),
        TlsVersion::V1_3 => "TLS forced, 1.3".to_owned(),
    }];
    match verify {
        VerifyWanted::None => parts.push("any certificate".to_owned()),
        VerifyWanted::Chain => parts.push(format!(
            "certificate trusted by {}",
            trust(&connector.trust.value)
        )),
        VerifyWanted::Name => {
            let names = connector
                .names
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" or ");
            parts.push(format!(
                "certificate for {}",
                if names.is_empty() {
                    default_name
                } else {
                    &names
                }
            ));
            parts.push(format!("trusted by {}", trust(&connector.trust.value)));
        }
        VerifyWanted::Dane => {
            parts.push("certificate that matches the TLSA records (DANE)".to_owned());
        }
        VerifyWanted::Pin => parts.extend(connector.pins.iter().map(|pin| format!("key {pin}"))),
    }
    match revocation {
        Revocation::Off => {}
        Revocation::IfKnown => parts.push("not revoked by a known CRL".to_owned()),
        Revocation::Required => parts.push("not revoked, by current CRLs".to_owned()),
    }
    parts
}

/// Returns the other layers and settings that change the connector's outbound demand: key exchange,
/// published policies and downgrade memory.
pub(super) fn other_layers(connector: &Connector) -> Vec<String> {
    let outbound = &connector.outbound;
    let mut parts = Vec::new();
    match (outbound.groups, outbound.min_strength) {
        (_, Strength::PostQuantum) => parts.push("post-quantum key exchange required".to_owned()),
        (Strength::Classical, Strength::Classical) => {
            parts.push("classical key exchange only".to_owned());
        }
        (Strength::PostQuantum, Strength::Classical) => {}
    }
    let published: Vec<_> = outbound
        .discover
        .iter()
        .map(|publication| match publication {
            Publication::Dane => "DANE",
            Publication::MtaSts => "MTA-STS",
        })
        .collect();
    match (published.is_empty(), outbound.tls) {
        (true, TlsDemand::Off) => {}
        (true, TlsDemand::Opportunistic | TlsDemand::Forced { .. }) => {
            parts.push("DANE and MTA-STS are not looked up".to_owned());
        }
        (false, _) => parts.push(format!("raised by {}", published.join(" and "))),
    }
    match outbound.downgrade {
        OnDowngrade::Warn => {}
        OnDowngrade::Allow => parts.push("no warning of a downgrade".to_owned()),
        OnDowngrade::Refuse => parts.push("forced once they have used TLS".to_owned()),
    }
    parts
}

/// Returns the fate of mail whose demand is not met; `None` if the connector itself demands
/// nothing.
pub(super) fn on_failure(connector: &Connector) -> Option<String> {
    let fate = match connector.outbound.on_failure {
        OnFailure::Defer => "if not met: defer and retry",
        OnFailure::Hold => "if not met: hold until an operator decides",
        OnFailure::Bounce => "if not met: bounce at once",
    };
    matches!(connector.outbound.tls, TlsDemand::Forced { .. }).then(|| fate.to_owned())
}

/// Returns an exception with its end.
pub(super) fn exception_text(exception: &TlsException, now: Timestamp) -> String {
    let TlsException {
        tls,
        until,
        reason,
        location: _,
    } = exception;
    let level = match tls {
        TlsDemand::Off => "off",
        TlsDemand::Opportunistic => "opportunistic",
        TlsDemand::Forced { .. } => "forced, any certificate",
    };
    if now.to_zoned_datetime(TimeZone::UTC).date() <= *until {
        format!("EXCEPTION: TLS {level} until {until} ({reason})")
    } else {
        format!("the exception ended on {until} ({reason})")
    }
}

/// Returns the database of a spool that several relays share, in parts, without a secret.
pub(super) fn database(database: &DatabaseConfig) -> Vec<String> {
    let url = &database.url.value;
    let tls = if url.uses_tls() {
        format!(
            "TLS verified by name, trust {}",
            trust(&database.trust.value)
        )
    } else {
        "in the clear, on this machine".to_owned()
    };
    let password = database.password_file.as_ref();
    vec![
        format!("{} at {}", url.database, listed(&url.hosts, "no host")),
        format!("as {}", url.user),
        password.map_or_else(
            || "without a password".to_owned(),
            |file| format!("password in {}", file.value),
        ),
        tls,
    ]
}

/// Returns the trust anchors.
pub(super) fn trust(trust: &TrustSource) -> String {
    match trust {
        TrustSource::Webpki => "webpki (Mozilla's roots)".to_owned(),
        TrustSource::System => "the system's roots".to_owned(),
        TrustSource::File(file) => file.display().to_string(),
    }
}
