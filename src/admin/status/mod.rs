//! How things stand, put together from the spool, the monitor, the memories and the configuration in force:
//! one struct for `gatepost status`, the status page and the metrics.

mod process;
mod survey;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};

use super::words::status::{
    Attempts, Certificate, Clients, Connector, Destination, Downgrade, Exception, Owner, Queue, Refusal, Reports,
    Status,
};
use super::{Desk, Problem, history, queue};
use crate::address::Host;
use crate::config::{self, Config, TlsDemand, VerifyWanted};
use crate::connector::{Connectors, exception};
use crate::discovery::history::AlarmKind;
use crate::envelope::TlsRequirement;
use crate::handshake::Material;
use crate::inbound::{Occupancy, Settings};
use crate::monitor::labels::Direction;
use crate::monitor::{AttemptsReading, ClientReading, QueueReading, Reading, ReportsReading};
use crate::scheduler::{Asked, ReportCounts, ShareUsage};
pub(in crate::admin) use survey::Surveyor;
use survey::{Load, Survey};

/// Of each list, at most so many are told.
const TOLD: usize = 100;
/// The scheduler is waited for no longer than this.
const SCHEDULER_TIME: Duration = Duration::from_secs(1);

/// `GET /v1/status`.
pub(super) async fn status(State(desk): State<Desk>) -> Result<Json<Status>, Problem> {
    Ok(Json(of(&desk).await?))
}

/// How things stand now.
///
/// # Errors
/// The spool cannot be read.
pub(super) async fn of(desk: &Desk) -> Result<Status, Problem> {
    let survey = desk.surveyor.survey(&*desk.spool).await?;
    let (settings, now) = (desk.settings.load_full(), Timestamp::now());
    let (mut troubles, more_troubles) = first(troubles(&survey, &settings.connectors, now));
    put_off(desk, &mut troubles).await;
    let all = all_connectors(&settings);
    let (connectors, more_connectors) = first(connectors(desk, &all, now));
    let (certificates, more_certificates) = first(certificates(desk, &settings.tls, now));
    let alarms = desk.history.alarms(now).into_iter().map(history::alarm).collect();
    let noted = desk.monitor.troubles();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: settings.config.hostname.to_string(),
        since: desk.since,
        at: now,
        queue: queue(&survey),
        attempts: attempts(desk),
        reports: reports(desk),
        troubles,
        more_troubles,
        connectors,
        more_connectors,
        certificates,
        more_certificates,
        exceptions: exceptions(&settings.config, now),
        refusals: noted.refusals().map(refusal).collect(),
        downgrades: noted.downgrades(now).map(downgrade).collect(),
        alarms,
        clients: clients(desk, &settings.config),
    })
}

fn clients(desk: &Desk, config: &Config) -> Clients {
    let Occupancy { sessions, strangers, short, memory, .. } = desk.clients.occupancy();
    let (held, more_held) = first(desk.clients.held().iter().map(super::clients::held).collect());
    let limits = &config.limits.clients;
    Clients {
        sessions,
        sessions_max: limits.connections,
        strangers,
        strangers_max: limits.connections.saturating_sub(limits.connections_reserved),
        transaction_memory: memory as u64,
        short: short.iter().map(ToString::to_string).collect(),
        held,
        more_held,
    }
}

/// What metrics show beside what is counted all the time.
///
/// # Errors
/// The spool cannot be read.
pub(super) async fn reading(desk: &Desk) -> Result<Reading, Problem> {
    let survey = desk.surveyor.survey(&*desk.spool).await?;
    let (settings, now) = (desk.settings.load_full(), Timestamp::now());
    let on = desk.history.alarms(now);
    let lost = on.iter().any(|alarm| matches!(alarm.kind, AlarmKind::TlsLost));
    let issuer = on.iter().any(|alarm| matches!(alarm.kind, AlarmKind::NewIssuer(_)));
    Ok(Reading {
        queue: queue_readings(&survey, &settings, now),
        attempts: desk.operator.usage().iter().map(attempts_reading).collect(),
        reports: reports_reading(desk.operator.reports()),
        troubled: survey.loads().filter(|load| load.trouble.is_some()).count(),
        certificates: certificate_readings(certificates(desk, &settings.tls, now)),
        policies: desk.policies.count(),
        alarms: vec![("tls_lost", lost), ("new_issuer", issuer)],
        clients: client_reading(desk, &settings.config),
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        process: process::read(),
    })
}

fn client_reading(desk: &Desk, config: &Config) -> ClientReading {
    let occupancy = desk.clients.occupancy();
    let limits = &config.limits.clients;
    let is_short = |name: &str| occupancy.short.iter().any(|short| **short == *name);
    let listeners = config.listeners.iter().map(|listener| (listener.name.clone(), is_short(&listener.name)));
    ClientReading {
        sessions: [occupancy.sessions - occupancy.strangers, occupancy.strangers],
        seats: [limits.connections, limits.connections.saturating_sub(limits.connections_reserved)],
        short: listeners.collect(),
        held: occupancy.held,
        transaction_memory: occupancy.memory,
    }
}

fn first<T>(mut all: Vec<T>) -> (Vec<T>, usize) {
    let more = all.len().saturating_sub(TOLD);
    all.truncate(TOLD);
    (all, more)
}

fn queue(survey: &Survey) -> Queue {
    let sum = |count: fn(&Load) -> u64| survey.loads().map(count).sum();
    Queue {
        messages: survey.messages,
        octets: survey.octets,
        waiting: sum(|load| load.waiting),
        held: sum(|load| load.held),
        oldest: survey.oldest,
        counted: Some(survey.at),
    }
}

/// The shares of the delivery attempts.
pub(super) fn attempts(desk: &Desk) -> Vec<Attempts> {
    let told = desk.operator.usage().into_iter().map(|usage| Attempts {
        share: usage.share.word().to_owned(),
        most: usage.most,
        running: usage.running,
        slow: usage.slow,
        waiting: usage.waiting as u64,
        full_seconds: usage.full_for.map(|time| time.as_secs()),
    });
    told.collect()
}

fn attempts_reading(usage: &ShareUsage) -> AttemptsReading {
    AttemptsReading {
        share: usage.share.word(),
        most: usage.most.into(),
        running: usage.running.into(),
        slow: usage.slow.into(),
        waiting: usage.waiting as u64,
    }
}

fn reports(desk: &Desk) -> Reports {
    let ReportCounts { waiting, for_digest, stored, delayed, merged, digests } = desk.operator.reports();
    Reports { waiting, for_digest, stored, delayed, merged, digests }
}

fn reports_reading(counts: ReportCounts) -> ReportsReading {
    let ReportCounts { waiting, for_digest, stored, delayed, merged, digests } = counts;
    ReportsReading { waiting, for_digest, stored, delayed, merged, digests }
}

fn troubles(survey: &Survey, connectors: &Connectors, now: Timestamp) -> Vec<Destination> {
    let troubled = survey.domains.iter().filter_map(|(host, load)| {
        Some(Destination {
            domain: host.to_string(),
            connector: connectors.for_host(host).name.clone(),
            waiting: load.waiting,
            held: load.held,
            oldest: load.oldest?,
            reason: queue::reason(load.trouble.as_ref()?),
            next: load.next.filter(|next| *next > now),
        })
    });
    let mut all: Vec<Destination> = troubled.collect();
    all.sort_by(|one, other| {
        (other.waiting + other.held).cmp(&(one.waiting + one.held)).then_with(|| one.domain.cmp(&other.domain))
    });
    all
}

/// Puts the next attempts off for as long as the destinations are left alone. Where the scheduler does not answer in
/// time, the times are those of the messages alone.
async fn put_off(desk: &Desk, troubles: &mut [Destination]) {
    let hosts = troubles.iter().filter_map(|one| Host::parse(&one.domain).ok()).collect::<Vec<_>>();
    if hosts.len() != troubles.len() || hosts.is_empty() {
        return;
    }
    let asked = vec![Asked { id: None, hosts, tls: TlsRequirement::Ordinary }];
    let answer = tokio::time::timeout(SCHEDULER_TIME, desk.operator.outlook(asked)).await;
    let Some(prospect) = answer.ok().flatten().and_then(|outlook| outlook.messages.into_iter().next()) else { return };
    for (one, way) in troubles.iter_mut().zip(prospect.ways) {
        let until = way.pause.map(|pause| pause.until).filter(|_| one.waiting > 0);
        one.next = one.next.max(until);
    }
}

/// Those of the configuration, and the built-in default where none of them speaks for every domain.
fn all_connectors(settings: &Settings) -> Vec<std::sync::Arc<config::Connector>> {
    let mut all = settings.config.connectors.clone();
    let any = settings.connectors.catch_all();
    if !all.iter().any(|connector| connector.name == any.name) {
        all.push(std::sync::Arc::clone(any));
    }
    all
}

fn connectors(desk: &Desk, all: &[std::sync::Arc<config::Connector>], now: Timestamp) -> Vec<Connector> {
    let coverage = desk.monitor.coverage();
    let told = all.iter().map(|connector| Connector {
        name: connector.name.clone(),
        outbound: demand(exception(connector, now).map_or(connector.outbound.tls, |exception| exception.tls)),
        inbound: demand(connector.inbound.tls),
        sent: coverage.days(&connector.name, Direction::Outbound, now),
        received: coverage.days(&connector.name, Direction::Inbound, now),
    });
    told.collect()
}

/// A demand in a few words.
fn demand(tls: TlsDemand) -> String {
    let verify = match tls {
        TlsDemand::Off => return "no TLS".to_owned(),
        TlsDemand::Opportunistic => return "TLS if offered".to_owned(),
        TlsDemand::Forced { verify, .. } => verify,
    };
    let whom = match verify {
        VerifyWanted::None => "whoever answers",
        VerifyWanted::Chain => "a trusted certificate",
        VerifyWanted::Name => "a trusted certificate with the right name",
        VerifyWanted::Dane => "authenticated by DANE",
        VerifyWanted::Pin => "a pinned key",
    };
    format!("TLS forced, {whom}")
}

fn exceptions(config: &Config, now: Timestamp) -> Vec<Exception> {
    let told = config.connectors.iter().filter_map(|connector| {
        let exception = exception(connector, now)?;
        Some(Exception {
            connector: connector.name.clone(),
            tls: demand(exception.tls),
            until: exception.until,
            reason: exception.reason.clone(),
        })
    });
    told.take(TOLD).collect()
}

/// Our own, and the partners', what ends first first.
fn certificates(desk: &Desk, tls: &Material, now: Timestamp) -> Vec<Certificate> {
    let mut all: Vec<Certificate> = tls
        .identities()
        .into_iter()
        .map(|own| Certificate {
            owner: Owner::Own,
            place: own.file.display().to_string(),
            connector: None,
            names: own.names,
            not_after: own.not_after,
            days_left: days_left(own.not_after, now),
            refused: None,
        })
        .collect();
    let watched = desk.monitor.certificates();
    all.extend(watched.partners().map(|(_, connector, host, partner)| Certificate {
        owner: Owner::Partner,
        place: host.to_owned(),
        connector: Some(connector.to_owned()),
        names: partner.shown.names.clone(),
        not_after: partner.shown.not_after,
        days_left: days_left(partner.shown.not_after, now),
        refused: partner.refused.clone(),
    }));
    all.sort_by_key(|certificate| (certificate.owner != Owner::Own, certificate.not_after));
    all
}

fn days_left(not_after: Timestamp, now: Timestamp) -> i64 {
    (not_after.as_second() - now.as_second()).div_euclid(86_400)
}

/// One for each of our own files, and one for each connector: the first to end.
fn certificate_readings(certificates: Vec<Certificate>) -> Vec<(&'static str, String, Timestamp)> {
    let mut first = BTreeMap::new();
    for certificate in certificates {
        let owner = match certificate.owner {
            Owner::Own => "own",
            Owner::Partner => "partner",
        };
        let ends = first.entry((owner, certificate.connector.unwrap_or(certificate.place))).or_insert(Timestamp::MAX);
        *ends = certificate.not_after.min(*ends);
    }
    first.into_iter().map(|((owner, which), ends)| (owner, which, ends)).collect()
}

fn queue_readings(survey: &Survey, settings: &Settings, now: Timestamp) -> Vec<QueueReading> {
    let mut by_connector: BTreeMap<String, Load> = BTreeMap::new();
    // Each connector is told, so that no line comes and goes with the mail.
    for connector in all_connectors(settings) {
        by_connector.entry(connector.name.clone()).or_default();
    }
    let named = survey.domains.iter().map(|(host, load)| (settings.connectors.for_host(host), load));
    for (connector, load) in named.chain(std::iter::once((settings.connectors.catch_all(), &survey.others))) {
        let sum = by_connector.entry(connector.name.clone()).or_default();
        sum.waiting += load.waiting;
        sum.held += load.held;
        sum.oldest = sum.oldest.into_iter().chain(load.oldest).min();
    }
    let age = |load: &Load| load.oldest.map_or(SignedDuration::ZERO, |oldest| oldest.duration_until(now));
    let readings = by_connector.into_iter().map(|(connector, load)| {
        let oldest = u64::try_from(age(&load).as_secs()).unwrap_or(0);
        QueueReading { connector, waiting: load.waiting, held: load.held, oldest }
    });
    readings.collect()
}

fn refusal(one: &crate::monitor::troubles::Refusal) -> Refusal {
    Refusal {
        at: one.at,
        direction: one.direction.word().to_owned(),
        connector: one.connector.clone(),
        peer: one.peer.clone(),
        reason: one.reason.clone(),
        times: one.times,
    }
}

fn downgrade(one: &crate::monitor::troubles::Downgrade) -> Downgrade {
    Downgrade {
        at: one.at,
        connector: one.connector.clone(),
        domain: one.domain.clone(),
        host: one.host.clone(),
        was: one.was.clone(),
        got: one.got.clone(),
    }
}
