//! The admin API: HTTP and JSON over a unix socket (`[admin] socket`), for `gatepost queue`,
//! `gatepost history` and any other program that may open the socket.
//!
//! It reports the contents of the spool, the state of the scheduler, the downgrade memory, the
//! MTA-STS policies and the configuration in use, and passes an operator's orders on to these
//! parts. It changes nothing itself. Access is decided by the permissions of the socket alone:
//! owner and group may do everything. The protocol is HTTP/1.1 (RFC 9112), with one request on each
//! connection. A second server, for everybody who can reach its address (`[admin] http`), offers
//! metrics, health and the status page.

pub mod api;
mod clients;
mod config;
mod connections;
mod content;
mod database;
mod domain;
mod evidence;
mod filter;
mod hellos;
mod history;
mod http;
mod nodes;
mod orders;
mod page;
mod policy;
mod queue;
mod readiness;
mod reload;
mod reload_order;
mod socket;
mod state;
mod status;

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;

use connections::{HttpConnections, HttpLimits};
pub use database::DatabaseReading;
pub use http::HttpServer;
pub use orders::serve_node_orders;
pub use reload_order::{ReloadOrder, reload_orders};
pub use socket::UnixServer;
pub use state::AdminState;
use state::{ErrorResponse, PeerUid};

/// The limits of the admin socket. A request head of this size can list a thousand ids. An operator
/// may take up to `time` to read a long message.
const LIMITS: HttpLimits = HttpLimits {
    server: "admin socket",
    connections: 32,
    head: 64 * 1024,
    head_time: Duration::from_secs(10),
    time: Duration::from_mins(15),
    reading: None,
};
/// The largest body of a request in octets.
const BODY_MAX: usize = 64 * 1024;
/// The time in which the response to a request must begin.
pub const ANSWER_TIME: Duration = Duration::from_mins(2);
/// The time that running requests get after the daemon was asked to stop.
const STOP_TIME: Duration = Duration::from_secs(5);

impl UnixServer {
    /// Serves requests until `stop`, then gives running requests a few seconds.
    pub async fn serve(self, admin: AdminState, stop: CancellationToken) {
        let router = router(admin);
        let mut connections = HttpConnections::new(LIMITS);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let peer_uid = PeerUid(stream.peer_cred().ok().map(|peer| peer.uid()));
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = connections.wait_for_slot() => {
                            connections.serve(stream, router.clone().layer(Extension(peer_uid)));
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections on the admin socket; retrying");
                    // Most likely the process has run out of file descriptors, so an immediate
                    // retry would fail again.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        // The socket disappears, so no new client connects.
        drop(self);
        connections.finish(STOP_TIME).await;
    }
}

fn router(admin: AdminState) -> Router {
    Router::new()
        .route("/v1/queue", get(queue::list))
        .route("/v1/queue/orders", post(orders::order))
        .route("/v1/queue/{id}", get(queue::show))
        .route("/v1/queue/{id}/content", get(content::content))
        .route("/v1/status", get(status::status))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/drain", post(nodes::drain))
        .route("/v1/nodes/remove", post(nodes::remove))
        .route("/v1/ready", get(readiness::show))
        .route("/v1/config", get(config::show_running))
        .route("/v1/reload", post(reload::reload))
        .route("/v1/domain", get(domain::show))
        .route("/v1/policy", get(policy::known))
        .route("/v1/client-hellos", get(hellos::list))
        .route("/v1/clients", get(clients::list))
        .route("/v1/clients/release", post(clients::release))
        .route("/v1/evidence/close-day", post(evidence::close_day))
        .route("/v1/evidence/archived", post(evidence::remove_archived))
        .route("/v1/history", get(history::list))
        .route("/v1/history/forget", post(history::forget))
        .route("/v1/dnssec/forget", post(history::forget_dnssec))
        .fallback(|| async { ErrorResponse(StatusCode::NOT_FOUND, "no such path".to_owned()) })
        .method_not_allowed_fallback(|| async {
            ErrorResponse(
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed on this path".to_owned(),
            )
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(limit_answer_time))
        .with_state(admin)
}

async fn limit_answer_time(request: Request, next: Next) -> Response {
    tokio::time::timeout(ANSWER_TIME, next.run(request)).await.unwrap_or_else(|_| {
        let sentence = "the daemon did not answer in time; an order that was sent may still be carried out";
        ErrorResponse(StatusCode::GATEWAY_TIMEOUT, sentence.to_owned()).into_response()
    })
}
