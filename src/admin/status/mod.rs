//! The state of the relay, from the spool, the scheduler, the monitor, the downgrade memory, the
//! policy cache and the configuration in use. `gatepost status`, the status page and the metrics
//! show it.

mod crls;
mod process;
mod queue_stats;
mod recipients;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};

use super::api::status::{
    AttemptsStatus, CertificateOwner, CertificateStatus, ClientsStatus, ConnectorStatus,
    ExceptionStatus, FailingDestination, QueueStatus, RecentDowngrade, RecentRefusal, RelayStatus,
    ReportsStatus,
};
use super::state::{AdminState, ErrorResponse};
use super::{evidence, history, queue};
use crate::config::{self, Config, TlsDemand, VerifyWanted};
use crate::discovery::history::AlarmKind;
use crate::net::tls_io::TlsMaterial;
use crate::policy::connector::{Connectors, exception};
use crate::relay::inbound::Occupancy;
use crate::relay::running_config::Snapshot;
use crate::relay::scheduler::{ReportCounts, ShareUsage, StatusQuery, StatusReply};
use crate::smtp::address::Host;
use crate::smtp::envelope::TlsRequirement;
use crate::telemetry::labels::Direction;
use crate::telemetry::{
    AttemptsReading, ClientReading, MetricsReading, QueueReading, ReportsReading,
};
pub(in crate::admin) use queue_stats::QueueCounter;
use queue_stats::{DomainStats, QueueStats};

/// The most entries of each list.
const LIST_MAX: usize = 100;
/// The time to wait for the scheduler.
const SCHEDULER_TIME: Duration = Duration::from_secs(1);

/// `GET /v1/status`.
pub(super) async fn status(
    State(admin): State<AdminState>,
) -> Result<Json<RelayStatus>, ErrorResponse> {
    Ok(Json(collect(&admin).await?))
}

/// Returns the present state.
///
/// # Errors
/// The spool cannot be read.
pub(super) async fn collect(admin: &AdminState) -> Result<RelayStatus, ErrorResponse> {
    let stats = admin.queue_counter.stats(&*admin.spool).await?;
    let (settings, now) = (admin.running.load(), Timestamp::now());
    let (mut troubles, more_troubles) =
        limit_list(failing_destinations(&stats, &settings.connectors, now));
    add_backoff(admin, &mut troubles).await;
    let all = all_connectors(&settings);
    let (connectors, more_connectors) = limit_list(connectors(admin, &all, now));
    let (certificates, more_certificates) = limit_list(certificates(admin, &settings.tls, now));
    let (crls, more_crls) = limit_list(crls::statuses(&settings));
    let alarms = admin
        .history
        .alarms(now)
        .into_iter()
        .map(history::alarm)
        .collect();
    let recent = admin.monitor.recent_events();
    Ok(RelayStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: settings.config.hostname.to_string(),
        since: admin.since,
        at: now,
        queue: queue(&stats),
        attempts: attempts(admin),
        reports: reports(admin),
        evidence: evidence::status(admin),
        spool_lost: admin
            .spool
            .lease()
            .check()
            .err()
            .map(|error| error.to_string()),
        database: admin
            .database
            .as_ref()
            .map(|reading| reading.status(&*admin.spool)),
        troubles,
        more_troubles,
        connectors,
        more_connectors,
        certificates,
        more_certificates,
        crls,
        more_crls,
        exceptions: exceptions(&settings.config, now),
        refusals: recent.refusals().map(refusal).collect(),
        downgrades: recent.downgrades(now).map(downgrade).collect(),
        alarms,
        clients: clients(admin, &settings.config),
        recipients: recipients::status(settings.recipients()),
    })
}

fn clients(admin: &AdminState, config: &Config) -> ClientsStatus {
    let Occupancy {
        sessions,
        strangers,
        short,
        memory,
        ..
    } = admin.clients.occupancy();
    let (held, more_held) = limit_list(super::clients::all_held(&admin.clients));
    let limits = &config.limits.clients;
    ClientsStatus {
        sessions,
        sessions_max: limits.connections,
        strangers,
        strangers_max: limits
            .connections
            .saturating_sub(limits.connections_reserved),
        transaction_memory: memory as u64,
        short: short.iter().map(ToString::to_string).collect(),
        held,
        more_held,
    }
}

/// Returns the values that metrics show besides the counters.
///
/// # Errors
/// The spool cannot be read.
pub(super) async fn reading(admin: &AdminState) -> Result<MetricsReading, ErrorResponse> {
    let stats = admin.queue_counter.stats(&*admin.spool).await?;
    let (settings, now) = (admin.running.load(), Timestamp::now());
    let on = admin.history.alarms(now);
    let lost = on
        .iter()
        .any(|alarm| matches!(alarm.kind, AlarmKind::TlsLost));
    let issuer = on
        .iter()
        .any(|alarm| matches!(alarm.kind, AlarmKind::NewIssuer(_)));
    Ok(MetricsReading {
        queue: queue_readings(&stats, &settings, now),
        attempts: admin
            .operator
            .usage()
            .iter()
            .map(attempts_reading)
            .collect(),
        reports: reports_reading(admin.operator.reports()),
        evidence: evidence::reading(admin),
        owns_spool: admin.spool.lease().holds(),
        troubled: stats
            .domain_stats()
            .filter(|domain| domain.trouble.is_some())
            .count(),
        certificates: certificate_readings(certificates(admin, &settings.tls, now)),
        policies: admin.policies.count(),
        crls: crls::readings(&settings),
        alarms: vec![("tls_lost", lost), ("new_issuer", issuer)],
        clients: client_reading(admin, &settings.config),
        recipients: recipients::readings(settings.recipients()),
        tasks: tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks(),
        process: process::read(),
    })
}

fn client_reading(admin: &AdminState, config: &Config) -> ClientReading {
    let occupancy = admin.clients.occupancy();
    let limits = &config.limits.clients;
    let is_short = |name: &str| occupancy.short.iter().any(|short| **short == *name);
    let listeners = config
        .listeners
        .iter()
        .map(|listener| (listener.name.clone(), is_short(&listener.name)));
    ClientReading {
        sessions: [
            occupancy.sessions - occupancy.strangers,
            occupancy.strangers,
        ],
        seats: [
            limits.connections,
            limits
                .connections
                .saturating_sub(limits.connections_reserved),
        ],
        short: listeners.collect(),
        held: occupancy.held,
        transaction_memory: occupancy.memory,
    }
}

/// Cuts a list to [`LIST_MAX`] entries, and returns the number of those left out.
fn limit_list<T>(mut all: Vec<T>) -> (Vec<T>, usize) {
    let more = all.len().saturating_sub(LIST_MAX);
    all.truncate(LIST_MAX);
    (all, more)
}

fn queue(stats: &QueueStats) -> QueueStatus {
    let sum = |count: fn(&DomainStats) -> u64| stats.domain_stats().map(count).sum();
    QueueStatus {
        messages: stats.messages,
        octets: stats.octets,
        waiting: sum(|domain| domain.waiting),
        held: sum(|domain| domain.held),
        oldest: stats.oldest,
        counted: Some(stats.at),
    }
}

/// Returns the two shares of the delivery attempts.
pub(super) fn attempts(admin: &AdminState) -> Vec<AttemptsStatus> {
    let entries = admin
        .operator
        .usage()
        .into_iter()
        .map(|usage| AttemptsStatus {
            share: usage.share.name().to_owned(),
            most: usage.most,
            running: usage.running,
            slow: usage.slow,
            waiting: usage.waiting as u64,
            full_seconds: usage.full_for.map(|time| time.as_secs()),
        });
    entries.collect()
}

fn attempts_reading(usage: &ShareUsage) -> AttemptsReading {
    AttemptsReading {
        share: usage.share.name(),
        most: usage.most.into(),
        running: usage.running.into(),
        slow: usage.slow.into(),
        waiting: usage.waiting as u64,
    }
}

fn reports(admin: &AdminState) -> ReportsStatus {
    let ReportCounts {
        waiting,
        for_digest,
        stored,
        delayed,
        merged,
        digests,
        diverted,
    } = admin.operator.reports();
    ReportsStatus {
        waiting,
        for_digest,
        stored,
        delayed,
        merged,
        digests,
        diverted,
    }
}

fn reports_reading(counts: ReportCounts) -> ReportsReading {
    let ReportCounts {
        waiting,
        for_digest,
        stored,
        delayed,
        merged,
        digests,
        diverted,
    } = counts;
    ReportsReading {
        waiting,
        for_digest,
        stored,
        delayed,
        merged,
        digests,
        diverted,
    }
}

/// Returns the destinations whose last attempt failed.
fn failing_destinations(
    stats: &QueueStats,
    connectors: &Connectors,
    now: Timestamp,
) -> Vec<FailingDestination> {
    let troubled = stats.domains.iter().filter_map(|((host, way), domain)| {
        Some(FailingDestination {
            domain: host.to_string(),
            connector: way
                .as_deref()
                .unwrap_or(&connectors.for_host(host).name)
                .to_owned(),
            waiting: domain.waiting,
            held: domain.held,
            oldest: domain.oldest?,
            reason: queue::reason(domain.trouble.as_ref()?),
            next: domain.next.filter(|next| *next > now),
        })
    });
    let mut all: Vec<FailingDestination> = troubled.collect();
    all.sort_by(|one, other| {
        (other.waiting + other.held)
            .cmp(&(one.waiting + one.held))
            .then_with(|| one.domain.cmp(&other.domain))
    });
    all
}

/// Sets the reported time of each next attempt to the end of the destination's backoff where that
/// is later. If the scheduler does not answer in time, the times are those of the messages alone.
async fn add_backoff(admin: &AdminState, troubles: &mut [FailingDestination]) {
    let connectors = std::sync::Arc::clone(&admin.running.load().connectors);
    let question = |one: &FailingDestination| {
        let host = Host::parse(&one.domain).ok()?;
        let is_own = connectors.for_host(&host).name == one.connector;
        Some(StatusQuery {
            id: None,
            user_connector: (!is_own).then(|| one.connector.as_str().into()),
            hosts: vec![host],
            tls: TlsRequirement::Ordinary,
        })
    };
    let questions: Option<Vec<_>> = troubles.iter().map(question).collect();
    let Some(questions) = questions.filter(|questions| !questions.is_empty()) else {
        return;
    };
    let answer = tokio::time::timeout(SCHEDULER_TIME, admin.operator.status(questions)).await;
    let Some(reply) = answer.ok().flatten() else {
        return;
    };
    let destinations = reply.messages.into_iter().flat_map(|one| one.destinations);
    for (one, destination) in troubles.iter_mut().zip(destinations) {
        let until = destination
            .backoff
            .map(|pause| pause.until)
            .filter(|_| one.waiting > 0);
        one.next = one.next.max(until);
    }
}

/// Returns the scheduler's status of ordinary mail for a domain; `None` if the scheduler does not
/// answer in time.
pub(super) async fn domain_status(admin: &AdminState, domain: &Host) -> Option<StatusReply> {
    let question = vec![StatusQuery {
        id: None,
        hosts: vec![domain.clone()],
        user_connector: None,
        tls: TlsRequirement::Ordinary,
    }];
    let answer = tokio::time::timeout(SCHEDULER_TIME, admin.operator.status(question)).await;
    answer.ok().flatten()
}

/// Returns the connectors of the configuration, and the built-in default if none of them is for all
/// domains.
fn all_connectors(settings: &Snapshot) -> Vec<std::sync::Arc<config::Connector>> {
    let mut all = settings.config.connectors.clone();
    let any = settings.connectors.catch_all();
    if !all.iter().any(|connector| connector.name == any.name) {
        all.push(std::sync::Arc::clone(any));
    }
    all
}

fn connectors(
    admin: &AdminState,
    all: &[std::sync::Arc<config::Connector>],
    now: Timestamp,
) -> Vec<ConnectorStatus> {
    let coverage = admin.monitor.coverage();
    let entries = all.iter().map(|connector| ConnectorStatus {
        name: connector.name.clone(),
        outbound: describe_demand(
            exception(connector, now).map_or(connector.outbound.tls, |exception| exception.tls),
        ),
        inbound: describe_demand(connector.inbound.tls),
        sent: coverage.days(&connector.name, Direction::Outbound, now),
        received: coverage.days(&connector.name, Direction::Inbound, now),
    });
    entries.collect()
}

/// Describes a demand in a few words.
pub(super) fn describe_demand(tls: TlsDemand) -> String {
    let verify = match tls {
        TlsDemand::Off => return "TLS off".to_owned(),
        TlsDemand::Opportunistic => return "TLS opportunistic".to_owned(),
        TlsDemand::Forced { verify, .. } => verify,
    };
    let whom = match verify {
        VerifyWanted::None => "any certificate",
        VerifyWanted::Chain => "a trusted certificate",
        VerifyWanted::Name => "a trusted certificate with the right name",
        VerifyWanted::Dane => "authenticated by DANE",
        VerifyWanted::Pin => "a pinned key",
    };
    format!("TLS forced, {whom}")
}

fn exceptions(config: &Config, now: Timestamp) -> Vec<ExceptionStatus> {
    let entries = config.connectors.iter().filter_map(|connector| {
        let exception = exception(connector, now)?;
        Some(ExceptionStatus {
            connector: connector.name.clone(),
            tls: describe_demand(exception.tls),
            until: exception.until,
            reason: exception.reason.clone(),
        })
    });
    entries.take(LIST_MAX).collect()
}

/// Returns our own certificates, then those of partners; the next to expire comes first.
fn certificates(admin: &AdminState, tls: &TlsMaterial, now: Timestamp) -> Vec<CertificateStatus> {
    let mut all: Vec<CertificateStatus> = tls
        .identities()
        .into_iter()
        .map(|own| CertificateStatus {
            owner: CertificateOwner::Own,
            place: own.file.display().to_string(),
            connector: None,
            names: own.names,
            not_after: own.not_after,
            days_left: days_left(own.not_after, now),
            refused: None,
        })
        .collect();
    let watched = admin.monitor.certificates();
    all.extend(
        watched
            .partners()
            .map(|(_, connector, host, partner)| CertificateStatus {
                owner: CertificateOwner::Partner,
                place: host.to_owned(),
                connector: Some(connector.to_owned()),
                names: partner.shown.names.clone(),
                not_after: partner.shown.not_after,
                days_left: days_left(partner.shown.not_after, now),
                refused: partner.refused.clone(),
            }),
    );
    all.sort_by_key(|certificate| {
        (
            certificate.owner != CertificateOwner::Own,
            certificate.not_after,
        )
    });
    all
}

fn days_left(not_after: Timestamp, now: Timestamp) -> i64 {
    (not_after.as_second() - now.as_second()).div_euclid(86_400)
}

/// Returns the time of expiry of each of our own certificate files, and for each connector the
/// earliest one of its partners' certificates.
fn certificate_readings(
    certificates: Vec<CertificateStatus>,
) -> Vec<(&'static str, String, Timestamp)> {
    let mut first = BTreeMap::new();
    for certificate in certificates {
        let owner = match certificate.owner {
            CertificateOwner::Own => "own",
            CertificateOwner::Partner => "partner",
        };
        let ends = first
            .entry((owner, certificate.connector.unwrap_or(certificate.place)))
            .or_insert(Timestamp::MAX);
        *ends = certificate.not_after.min(*ends);
    }
    first
        .into_iter()
        .map(|((owner, which), ends)| (owner, which, ends))
        .collect()
}

/// Sums up the queue of each connector. The mail of domains that are not counted one by one is
/// added to the connector for all domains.
fn queue_readings(stats: &QueueStats, settings: &Snapshot, now: Timestamp) -> Vec<QueueReading> {
    let mut by_connector: BTreeMap<String, DomainStats> = BTreeMap::new();
    // Every connector has a value, so that no metric appears and disappears with the mail.
    for connector in all_connectors(settings) {
        by_connector.entry(connector.name.clone()).or_default();
    }
    let named = stats.domains.iter().map(|((host, way), domain)| {
        let connector = settings.connectors.routing(host, way.as_deref());
        (connector, domain)
    });
    for (connector, domain) in named.chain(std::iter::once((
        settings.connectors.catch_all(),
        &stats.others,
    ))) {
        let sum = by_connector.entry(connector.name.clone()).or_default();
        sum.waiting += domain.waiting;
        sum.held += domain.held;
        sum.oldest = sum.oldest.into_iter().chain(domain.oldest).min();
    }
    let age = |domain: &DomainStats| {
        domain
            .oldest
            .map_or(SignedDuration::ZERO, |oldest| oldest.duration_until(now))
    };
    let readings = by_connector.into_iter().map(|(connector, domain)| {
        let oldest = u64::try_from(age(&domain).as_secs()).unwrap_or(0);
        QueueReading {
            connector,
            waiting: domain.waiting,
            held: domain.held,
            oldest,
        }
    });
    readings.collect()
}

fn refusal(one: &crate::telemetry::recent::ListedRefusal) -> RecentRefusal {
    RecentRefusal {
        at: one.at,
        direction: one.direction.as_str().to_owned(),
        connector: one.connector.clone(),
        peer: one.peer.clone(),
        reason: one.reason.clone(),
        times: one.times,
    }
}

fn downgrade(one: &crate::telemetry::recent::ListedDowngrade) -> RecentDowngrade {
    RecentDowngrade {
        at: one.at,
        connector: one.connector.clone(),
        domain: one.domain.clone(),
        host: one.host.clone(),
        was: one.was.clone(),
        got: one.got.clone(),
    }
}
