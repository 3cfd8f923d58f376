//! `/v1/policy`: the MTA-STS policy that deliveries to a domain use now. It is read from the cache.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::api::KnownPolicy;
use super::state::{AdminState, ErrorResponse};
use crate::smtp::address::Domain;

/// The parameters of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyQuery {
    domain: String,
}

/// `GET /v1/policy`.
pub(super) async fn known(
    State(admin): State<AdminState>,
    query: Result<Query<PolicyQuery>, QueryRejection>,
) -> Result<Json<Option<KnownPolicy>>, ErrorResponse> {
    let Query(PolicyQuery { domain }) =
        query.map_err(|rejection| ErrorResponse::bad_request(rejection.body_text()))?;
    let domain = Domain::parse(&domain)
        .map_err(|error| ErrorResponse::bad_request(format!("domain: {error}")))?;
    Ok(Json(admin.policies.cached(&domain).map(|policy| {
        KnownPolicy {
            id: policy.id().to_string(),
            lines: policy.lines(),
            fetched: policy.fetched(),
        }
    })))
}
