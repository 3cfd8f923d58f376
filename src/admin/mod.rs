//! The operator's door: HTTP and JSON over a unix socket (`[admin] socket`), for `gatepost queue`, `gatepost
//! history` and whoever else may open the socket.
//!
//! It tells what the spool holds, the scheduler knows, the downgrade memory remembers, and which MTA-STS policies
//! and which configuration are in force, and hands orders to them. It changes nothing itself, and who may do what is decided by the
//! rights of the socket alone: owner and group may do everything. RFC 9112 (HTTP/1.1), one request for each connection.
//! Beside it is a window for everybody who can reach its address (`[admin] http`): metrics, health and the
//! status page.

mod clients;
mod config;
mod content;
mod filter;
mod hellos;
mod history;
mod http;
mod page;
mod policy;
mod queue;
mod socket;
mod status;
pub mod words;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{DefaultBodyLimit, Extension, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::discovery::Discovery;
use crate::discovery::history::History;
use crate::discovery::mta_sts::MtaSts;
use crate::dns::Dns;
use crate::handshake::KnownHellos;
use crate::inbound::{Clients, Settings};
use crate::monitor::Monitor;
use crate::scheduler::Operator;
use crate::spool::{Spool, SpoolError};

pub use http::Window;
pub use socket::Door;
use status::Surveyor;

/// Connections at the same time; what is beyond waits in the socket's own queue.
const CONNECTIONS_MAX: usize = 32;
/// Octets in the head of a request, at most: enough for a thousand ids.
const HEAD_MAX: usize = 64 * 1024;
/// Octets in the body of a request, at most.
const BODY_MAX: usize = 64 * 1024;
/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a request may take until its answer begins.
pub const ANSWER_TIME: Duration = Duration::from_mins(2);
/// How long a connection may take in all: a reader may pause over a long message, but not for ever.
const CONNECTION_TIME: Duration = Duration::from_mins(15);
/// How long requests under way may take once we are told to stop.
const STOP_TIME: Duration = Duration::from_secs(5);

/// What the handlers work with.
#[derive(Clone)]
pub struct Desk {
    spool: Arc<dyn Spool>,
    operator: Operator,
    history: History,
    policies: MtaSts,
    dns: Dns,
    hellos: KnownHellos,
    settings: Arc<ArcSwap<Settings>>,
    monitor: Monitor,
    clients: Clients,
    surveyor: Arc<Surveyor>,
    since: Timestamp,
}

impl Desk {
    /// Brings together what is asked: the spool, the scheduler by its operator, what is known of domains and hosts, a
    /// resolver that shares the memory of DNSSEC, the configuration in force, and the monitor with the table of
    /// clients. The daemon was started at `since`.
    #[must_use]
    pub fn new(
        spool: Arc<dyn Spool>,
        operator: Operator,
        (discovery, hellos): (&Discovery, &KnownHellos),
        dns: Dns,
        settings: Arc<ArcSwap<Settings>>,
        (monitor, clients): (Monitor, Clients),
        since: Timestamp,
    ) -> Self {
        let (history, policies, hellos) = (discovery.history().clone(), discovery.mta_sts().clone(), hellos.clone());
        let surveyor = Arc::default();
        Self { spool, operator, history, policies, dns, hellos, settings, monitor, clients, surveyor, since }
    }
}

/// Who asks: the user id of the other end, where the system tells it.
#[derive(Debug, Clone, Copy)]
struct Asker(Option<u32>);

/// A request that is not answered as wished, in a sentence.
#[derive(Debug)]
struct Problem(StatusCode, String);

impl Problem {
    fn bad(sentence: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, sentence.into())
    }

    fn stopping() -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".to_owned())
    }
}

impl From<SpoolError> for Problem {
    fn from(error: SpoolError) -> Self {
        let status = match &error {
            SpoolError::Missing(_) => StatusCode::NOT_FOUND,
            SpoolError::Closed => return Self::stopping(),
            SpoolError::Full(_) | SpoolError::Damaged { .. } | SpoolError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(words::Complaint { error: self.1 })).into_response()
    }
}

impl Door {
    /// Answers until `stop`, then gives requests under way a few seconds.
    pub async fn serve(self, desk: Desk, stop: CancellationToken) {
        let router = router(desk);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(end) = connections.join_next() => if let Err(death) = end {
                    tracing::error!(error = %death, "an operator's request died");
                },
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(converse(stream, router.clone()))),
                    Err(error) => {
                        tracing::error!(%error, "the admin socket takes no connection at the moment");
                        // Out of descriptors, most likely: trying again at once would only turn in circles.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
            }
        }
        // Nobody new finds the socket; what is still under way is cut off by the drop.
        drop(self);
        let finished = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_TIME, finished).await;
    }
}

async fn converse(stream: UnixStream, router: Router) {
    let asker = Asker(stream.peer_cred().ok().map(|peer| peer.uid()));
    let service = TowerToHyperService::new(router.layer(Extension(asker)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        // Mostly a client that went away, as with `| head`.
        Ok(Err(error)) => tracing::debug!(%error, "an operator's connection broke"),
        Err(_) => tracing::warn!("an operator's connection was ended after a quarter of an hour"),
    }
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route("/v1/queue", get(queue::list))
        .route("/v1/queue/orders", post(queue::order))
        .route("/v1/queue/{id}", get(queue::show))
        .route("/v1/queue/{id}/content", get(content::content))
        .route("/v1/status", get(status::status))
        .route("/v1/config", get(config::in_force))
        .route("/v1/policy", get(policy::known))
        .route("/v1/client-hellos", get(hellos::list))
        .route("/v1/clients", get(clients::list))
        .route("/v1/clients/release", post(clients::release))
        .route("/v1/history", get(history::list))
        .route("/v1/history/forget", post(history::forget))
        .route("/v1/dnssec/forget", post(history::forget_dnssec))
        .fallback(|| async { Problem(StatusCode::NOT_FOUND, "there is nothing under this path".to_owned()) })
        .method_not_allowed_fallback(|| async {
            Problem(StatusCode::METHOD_NOT_ALLOWED, "this path is not asked in this way".to_owned())
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(in_time))
        .with_state(desk)
}

async fn in_time(request: Request, next: Next) -> Response {
    tokio::time::timeout(ANSWER_TIME, next.run(request)).await.unwrap_or_else(|_| {
        let sentence = "the daemon could not answer in time; an order that was given may still be carried out";
        Problem(StatusCode::GATEWAY_TIMEOUT, sentence.to_owned()).into_response()
    })
}
