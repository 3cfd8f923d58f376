//! `/v1/clients`: who is held back by a limit, and letting somebody go on.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, State};
use ipnet::IpNet;

use super::words::{HeldClient, Release, Released};
use super::{Asker, Desk, Problem};
use crate::inbound::Held;
use crate::networks::{self, written};

pub(super) async fn list(State(desk): State<Desk>) -> Json<Vec<HeldClient>> {
    Json(desk.clients.held().iter().map(held).collect())
}

pub(super) async fn release(
    State(desk): State<Desk>,
    Extension(Asker(uid)): Extension<Asker>,
    asked: Result<Json<Release>, JsonRejection>,
) -> Result<Json<Released>, Problem> {
    let Json(Release { client }) = asked.map_err(|rejection| Problem(rejection.status(), rejection.body_text()))?;
    let network = client.as_deref().map(network).transpose()?;
    let released = desk.clients.release(network.as_ref());
    for one in &released {
        tracing::info!(
            client = written(&one.network), limit = one.limit.key(), times = one.times, uid = ?uid,
            "client released by an operator"
        );
    }
    Ok(Json(Released { released: released.iter().map(held).collect() }))
}

/// A network, or the client that an address belongs to.
fn network(text: &str) -> Result<IpNet, Problem> {
    let client = text.parse().map(networks::client).ok();
    let network = client.or_else(|| text.parse().ok().map(|network: IpNet| network.trunc()));
    network.ok_or_else(|| Problem::bad(format!("client: \"{text}\" is neither an address nor a network")))
}

pub(super) fn held(held: &Held) -> HeldClient {
    HeldClient {
        client: written(&held.network),
        limit: held.limit.key().to_owned(),
        since: held.since,
        last: held.last,
        times: held.times,
    }
}
