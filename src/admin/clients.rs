//! `/v1/clients`: the clients held back by a limit, and their release.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use ipnet::IpNet;
use jiff::Timestamp;

use super::api::{HeldClient, ReleaseRequest, ReleaseResponse};
use super::state::{AdminState, ErrorResponse, PeerUid};
use crate::policy::networks::{self, network_text};
use crate::relay::inbound::{Clients, HeldNetwork};
use crate::relay::users::{LimitedUser, ReleasedUser};
use crate::smtp::sasl::prepare_name;

pub(super) async fn list(State(admin): State<AdminState>) -> Json<Vec<HeldClient>> {
    Json(all_held(&admin.clients))
}

pub(super) async fn release(
    State(admin): State<AdminState>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    request: Result<Json<ReleaseRequest>, JsonRejection>,
) -> Result<Json<ReleaseResponse>, ErrorResponse> {
    let Json(ReleaseRequest { client, user }) =
        request.map_err(|rejection| ErrorResponse(rejection.status(), rejection.body_text()))?;
    let users = match (&client, &user) {
        (Some(_), Some(_)) => {
            return Err(ErrorResponse::bad_request(
                "name a client or a user, not both".to_owned(),
            ));
        }
        (None, Some(user)) => released_user(&admin, user)?,
        (Some(_), None) => Vec::new(),
        (None, None) => admin
            .clients
            .logins()
            .limited()
            .iter()
            .map(limited)
            .collect(),
    };
    for user in &users {
        tracing::info!(
            client = user.client, limit = user.limit, times = user.times, uid = ?uid,
            "client released by an operator"
        );
    }
    if user.is_some() {
        return Ok(Json(ReleaseResponse { released: users }));
    }
    let network = client.as_deref().map(parse_network).transpose()?;
    let released = admin.clients.release(network.as_ref());
    for client in &released {
        tracing::info!(
            client = network_text(&client.network), limit = client.limit.key(), times = client.times, uid = ?uid,
            "client released by an operator"
        );
    }
    Ok(Json(ReleaseResponse {
        released: released.iter().map(held).chain(users).collect(),
    }))
}

/// Releases a user, and returns the limits that held it back.
fn released_user(admin: &AdminState, name: &str) -> Result<Vec<HeldClient>, ErrorResponse> {
    let prepared =
        prepare_name(name).map_err(|error| ErrorResponse::bad_request(format!("user: {error}")))?;
    let ReleasedUser { limits, failures } = admin.clients.logins().release(&prepared);
    let now = Timestamp::now();
    let failed = failures.map(|times| HeldClient {
        client: format!("user {name}"),
        limit: "failed_logins".to_owned(),
        since: now,
        last: now,
        times,
    });
    Ok(limits.iter().map(limited).chain(failed).collect())
}

/// Parses a network, or the address of a client, which stands for the client's network.
fn parse_network(text: &str) -> Result<IpNet, ErrorResponse> {
    let client = text.parse().map(networks::client).ok();
    let network = client.or_else(|| text.parse().ok().map(|network: IpNet| network.trunc()));
    network.ok_or_else(|| {
        ErrorResponse::bad_request(format!(
            "client: \"{text}\" is neither an address nor a network"
        ))
    })
}

/// Returns the clients and users that were held back in the last hour, the latest first.
pub(super) fn all_held(clients: &Clients) -> Vec<HeldClient> {
    let mut all: Vec<_> = clients.held().iter().map(held).collect();
    all.extend(clients.logins().limited().iter().map(limited));
    all.sort_by_key(|held| std::cmp::Reverse(held.last));
    all
}

fn limited(user: &LimitedUser) -> HeldClient {
    HeldClient {
        client: format!("user {}", user.name),
        limit: user.rate.key().to_owned(),
        since: user.since,
        last: user.last,
        times: user.times,
    }
}

fn held(held: &HeldNetwork) -> HeldClient {
    HeldClient {
        client: network_text(&held.network),
        limit: held.limit.key().to_owned(),
        since: held.since,
        last: held.last,
        times: held.times,
    }
}
