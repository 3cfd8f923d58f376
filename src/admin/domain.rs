//! `/v1/domain`: everything that is known of mail to one domain. It is read from memory and from
//! the queue; nothing is looked up.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use jiff::Timestamp;
use serde::Deserialize;

use super::api::domain::{
    DomainConnector, DomainQueue, DomainStatus, LastAttemptStatus, MtaStsStatus,
};
use super::api::status::ExceptionStatus;
use super::api::{DestinationBackoff, PAGE_MAX, PartBackoff};
use super::state::{AdminState, ErrorResponse};
use super::status::{describe_demand, domain_status};
use super::{history, queue};
use crate::config::{Connector, MailSchedule, OnDowngrade, OnFailure, WarnAfter};
use crate::policy::connector::exception;
use crate::smtp::address::Host;
use crate::telemetry::last_attempts::LastAttempt;

/// The parameters of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainQuery {
    domain: String,
}

/// `GET /v1/domain`.
pub(super) async fn show(
    State(admin): State<AdminState>,
    query: Result<Query<DomainQuery>, QueryRejection>,
) -> Result<Json<DomainStatus>, ErrorResponse> {
    let Query(DomainQuery { domain }) =
        query.map_err(|rejection| ErrorResponse::bad_request(rejection.body_text()))?;
    let domain = history::parse_host("domain", &domain)?;
    let (running, now) = (admin.running.load(), Timestamp::now());
    let page = admin.history.page(Some(&domain), None, PAGE_MAX, now);
    let policy = domain
        .domain()
        .and_then(|domain| admin.policies.cached(domain));
    Ok(Json(DomainStatus {
        domain: domain.to_string(),
        at: now,
        since: admin.since,
        connector: connector(running.connectors.for_host(&domain), now),
        queue: domain_queue(&admin, &domain, running.schedule(&domain, None), now).await?,
        last_attempt: admin
            .monitor
            .last_attempt(&domain)
            .map(|last| last_attempt(&last)),
        memory: page
            .remembered
            .into_iter()
            .map(history::remembered_host)
            .collect(),
        forgotten: page.forgotten.into_iter().map(history::forgotten).collect(),
        mta_sts: policy.map(|policy| MtaStsStatus {
            mode: policy.mode().to_string(),
            mx: policy.mx_lines(),
            id: policy.id().to_string(),
            fetched: policy.fetched(),
            expires: policy.expires(),
        }),
    }))
}

fn connector(connector: &Connector, now: Timestamp) -> DomainConnector {
    let exception = exception(connector, now).map(|exception| ExceptionStatus {
        connector: connector.name.clone(),
        tls: describe_demand(exception.tls),
        until: exception.until,
        reason: exception.reason.clone(),
    });
    let on_failure = match connector.outbound.on_failure {
        OnFailure::Defer => "defer",
        OnFailure::Hold => "hold",
        OnFailure::Bounce => "bounce",
    };
    let downgrade = match connector.outbound.downgrade {
        OnDowngrade::Allow => "allow",
        OnDowngrade::Warn => "warn",
        OnDowngrade::Refuse => "refuse",
    };
    DomainConnector {
        name: connector.name.clone(),
        demand: describe_demand(connector.outbound.tls),
        exception,
        on_failure: on_failure.to_owned(),
        downgrade: downgrade.to_owned(),
    }
}

/// Returns the mail for a domain in the queue.
///
/// # Errors
/// The spool cannot be read.
async fn domain_queue(
    admin: &AdminState,
    domain: &Host,
    schedule: MailSchedule<'_>,
    now: Timestamp,
) -> Result<DomainQueue, ErrorResponse> {
    let stats = admin.queue_counter.stats(&*admin.spool).await?;
    let mail = stats.of_domain(domain);
    // A delay report that would come after the bounce is not sent.
    let warn_after = match schedule.warn_after {
        WarnAfter::Age(age) if age < schedule.expire => Some(age),
        WarnAfter::Age(_) | WarnAfter::Never => None,
    };
    let next_delay_report = warn_after
        .zip(mail.oldest_unreported)
        .and_then(|(age, accepted)| accepted.checked_add(age).ok());
    let reply = domain_status(admin, domain).await;
    let expires = reply
        .as_ref()
        .zip(mail.oldest_waiting)
        .and_then(|(reply, accepted)| Some(reply.expires(reply.messages.first()?, accepted)));
    let messages = reply.into_iter().flat_map(|reply| reply.messages);
    let backoff = messages
        .flat_map(|message| message.destinations)
        .find_map(|destination| destination.backoff);
    let until = backoff
        .as_ref()
        .map(|backoff| backoff.until)
        .filter(|_| mail.waiting > 0);
    let (mut destination_down, mut part_down) = (None, None);
    if let Some(backoff) = backoff {
        let (until, reason) = (backoff.until, queue::reason(&backoff.last));
        match backoff.part {
            None => destination_down = Some(DestinationBackoff { until, reason }),
            Some(part) => {
                part_down = Some(PartBackoff {
                    part,
                    until,
                    reason,
                });
            }
        }
    }
    Ok(DomainQueue {
        counted: stats.at,
        waiting: mail.waiting,
        held: mail.held,
        oldest: mail.oldest,
        next: mail.next.filter(|next| *next > now).max(until),
        expires,
        delays_reported: mail.delays_reported,
        next_delay_report,
        reports_holds: warn_after.is_some(),
        reason: mail.trouble.as_ref().map(queue::reason),
        destination_down,
        part_down,
    })
}

fn last_attempt(last: &LastAttempt) -> LastAttemptStatus {
    LastAttemptStatus {
        at: last.at,
        queue_id: last.queue_id.to_string(),
        outcome: last.outcome.as_str().to_owned(),
        status: last.status.to_string(),
        text: last.text.clone(),
        host: last.host.clone(),
        demand: last.demand.clone(),
        tls: last.tls.clone(),
        explanation: last.explanation.clone(),
        reported: last.reported,
    }
}
