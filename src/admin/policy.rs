//! `/v1/policy`: the MTA-STS policy that deliveries to a domain go by at this moment. Nobody is asked for it.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::words::KnownPolicy;
use super::{Desk, Problem};
use crate::address::Domain;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    domain: String,
}

pub(super) async fn known(
    State(desk): State<Desk>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Option<KnownPolicy>>, Problem> {
    let Query(Asked { domain }) = query.map_err(|rejection| Problem::bad(rejection.body_text()))?;
    let domain = Domain::parse(&domain).map_err(|error| Problem::bad(format!("domain: {error}")))?;
    Ok(Json(desk.policies.cached(&domain).map(|policy| KnownPolicy {
        id: policy.id().to_string(),
        lines: policy.lines(),
        fetched: policy.fetched(),
    })))
}
