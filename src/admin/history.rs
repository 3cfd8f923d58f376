//! `/v1/history` and `/v1/dnssec`: the memory of the TLS that domains offered, and orders to
//! forget.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use super::api::{
    ActiveAlarm, ForgetDnssecRequest, ForgetRequest, ForgottenDnssec, ForgottenDomain, HistoryItem,
    HistoryPage, PAGE_MAX, REASON_MAX, RememberedHost,
};
use super::state::{AdminState, ErrorResponse, PeerUid};
use crate::discovery::history::{Alarm, AlarmKind, ForgetEntry, HostHistory};
use crate::smtp::address::Host;

/// The default length of a page.
const DEFAULT_LIMIT: usize = 500;

/// The parameters of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    domain: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /v1/history`.
pub(super) async fn list(
    State(admin): State<AdminState>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<HistoryPage>, ErrorResponse> {
    let Query(query) =
        query.map_err(|rejection| ErrorResponse::bad_request(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if limit == 0 || limit > PAGE_MAX {
        return Err(ErrorResponse::bad_request(format!(
            "limit must be from 1 to {PAGE_MAX}"
        )));
    }
    let domain = query
        .domain
        .as_deref()
        .map(|text| parse_host("domain", text))
        .transpose()?;
    let after = query
        .after
        .as_deref()
        .map(|text| parse_host("after", text))
        .transpose()?;
    let now = Timestamp::now();
    let page = admin
        .history
        .page(domain.as_ref(), after.as_ref(), limit, now);
    let mut items = Vec::new();
    if domain.is_none() && after.is_none() {
        items.extend(
            admin
                .history
                .alarms(now)
                .into_iter()
                .map(|one| HistoryItem::Alarm(alarm(one))),
        );
    }
    items.extend(
        page.remembered
            .into_iter()
            .map(|one| HistoryItem::Host(remembered_host(one))),
    );
    items.extend(
        page.forgotten
            .into_iter()
            .map(|one| HistoryItem::Forgotten(forgotten(one))),
    );
    Ok(Json(HistoryPage {
        items,
        next: page.next.map(|next| next.to_string()),
    }))
}

/// `POST /v1/history/forget`.
pub(super) async fn forget(
    State(admin): State<AdminState>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    request: Result<Json<ForgetRequest>, JsonRejection>,
) -> Result<Json<ForgottenDomain>, ErrorResponse> {
    let Json(ForgetRequest { domain, reason }) =
        request.map_err(|rejection| ErrorResponse(rejection.status(), rejection.body_text()))?;
    let reason = check_reason(&reason)?;
    let domain = parse_host("domain", &domain)?;
    let who = operator_name(uid);
    let at = Timestamp::now();
    match admin.history.forget(&domain, &reason, &who, at).await {
        Ok(0) => Err(ErrorResponse(
            StatusCode::NOT_FOUND,
            format!("nothing is remembered of {domain}"),
        )),
        Ok(hosts) => {
            admin.monitor.end_downgrades(&domain);
            Ok(Json(forgotten(ForgetEntry {
                domain,
                at,
                reason,
                who,
                hosts,
            })))
        }
        Err(error) => Err(ErrorResponse(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}

/// `POST /v1/dnssec/forget`: forgets that DNSSEC validation has worked on this machine.
pub(super) async fn forget_dnssec(
    State(admin): State<AdminState>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    request: Result<Json<ForgetDnssecRequest>, JsonRejection>,
) -> Result<Json<ForgottenDnssec>, ErrorResponse> {
    let Json(ForgetDnssecRequest { reason }) =
        request.map_err(|rejection| ErrorResponse(rejection.status(), rejection.body_text()))?;
    let (reason, who, at) = (check_reason(&reason)?, operator_name(uid), Timestamp::now());
    let forgotten = tokio::task::spawn_blocking(move || admin.dns.forget_dnssec()).await;
    match forgotten.unwrap_or_else(|died| Err(std::io::Error::other(died))) {
        Ok(true) => {
            tracing::warn!(who, reason, "an operator cleared the memory of DNSSEC");
            Ok(Json(ForgottenDnssec { at, reason, who }))
        }
        Ok(false) => Err(ErrorResponse(
            StatusCode::NOT_FOUND,
            "DNSSEC validation has not worked here before".to_owned(),
        )),
        Err(error) => {
            let sentence = format!("cannot remove dnssec.json in the spool's folder: {error}");
            Err(ErrorResponse(StatusCode::INTERNAL_SERVER_ERROR, sentence))
        }
    }
}

/// Checks the reason that an operator gives.
fn check_reason(reason: &str) -> Result<String, ErrorResponse> {
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_MAX {
        return Err(ErrorResponse::bad_request(format!(
            "a reason has 1 to {REASON_MAX} characters"
        )));
    }
    Ok(reason.to_owned())
}

/// Names the operator by the user id.
fn operator_name(uid: Option<u32>) -> String {
    uid.map_or_else(|| "unknown".to_owned(), |uid| format!("uid {uid}"))
}

pub(super) fn parse_host(what: &str, text: &str) -> Result<Host, ErrorResponse> {
    Host::parse(text).map_err(|error| ErrorResponse::bad_request(format!("{what}: {error}")))
}

pub(super) fn remembered_host(one: HostHistory) -> RememberedHost {
    RememberedHost {
        domain: one.domain.to_string(),
        host: one.host.to_string(),
        best: one.best.level,
        first: one.best.first,
        last: one.best.last,
        seen: one.seen,
        level: one.level,
        worse: one.level < one.best.level,
        issuer: one.issuer.map(|issuer| issuer.to_string()),
    }
}

pub(super) fn forgotten(one: ForgetEntry) -> ForgottenDomain {
    let ForgetEntry {
        domain,
        at,
        reason,
        who,
        hosts,
    } = one;
    ForgottenDomain {
        domain: domain.to_string(),
        at,
        reason,
        who,
        hosts,
    }
}

pub(super) fn alarm(one: Alarm) -> ActiveAlarm {
    let (what, issuer) = match one.kind {
        AlarmKind::TlsLost => ("tls_lost", None),
        AlarmKind::NewIssuer(issuer) => ("new_issuer", Some(issuer.to_string())),
    };
    ActiveAlarm {
        what: what.to_owned(),
        issuer,
        since: one.since,
        domains: one.domains,
        of: one.of,
        examples: one.examples.iter().map(ToString::to_string).collect(),
    }
}
