//! The shared state of the handlers, and the errors that they return.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::database::DatabaseReading;
use super::reload_order::ReloadOrder;
use super::status::QueueCounter;
use crate::discovery::Discovery;
use crate::discovery::history::History;
use crate::discovery::mta_sts::MtaSts;
use crate::net::dns::Dns;
use crate::net::tls_io::KnownHellos;
use crate::relay::inbound::Clients;
use crate::relay::running_config::RunningConfig;
use crate::relay::scheduler::Operator;
use crate::storage::evidence::Evidence;
use crate::storage::spool::{Spool, SpoolError};
use crate::telemetry::Monitor;

/// The state that the handlers share.
#[derive(Clone)]
pub struct AdminState {
    pub(super) spool: Arc<dyn Spool>,
    pub(super) operator: Operator,
    pub(super) history: History,
    pub(super) policies: MtaSts,
    pub(super) dns: Dns,
    pub(super) hellos: KnownHellos,
    pub(super) running: RunningConfig,
    pub(super) monitor: Monitor,
    pub(super) clients: Clients,
    pub(super) queue_counter: Arc<QueueCounter>,
    pub(super) since: Timestamp,
    pub(super) evidence: Evidence,
    pub(super) reload_orders: Option<mpsc::Sender<ReloadOrder>>,
    pub(super) database: Option<DatabaseReading>,
}

impl AdminState {
    /// Gathers the sources of the API: the spool, the scheduler through its operator, the memories
    /// of domains and hosts, a resolver that shares the memory of DNSSEC, the configuration in use,
    /// and the monitor with the table of clients. The daemon was started at `since`.
    #[must_use]
    pub fn new(
        spool: Arc<dyn Spool>,
        operator: Operator,
        (discovery, hellos): (&Discovery, &KnownHellos),
        dns: Dns,
        running: RunningConfig,
        (monitor, clients): (Monitor, Clients),
        since: Timestamp,
    ) -> Self {
        let (history, policies, hellos) = (
            discovery.history().clone(),
            discovery.mta_sts().clone(),
            hellos.clone(),
        );
        let queue_counter = Arc::default();
        Self {
            spool,
            operator,
            history,
            policies,
            dns,
            hellos,
            running,
            monitor,
            clients,
            queue_counter,
            since,
            evidence: Evidence::off(),
            reload_orders: None,
            database: None,
        }
    }

    /// Shows the state of this evidence.
    #[must_use]
    pub fn with_evidence(self, evidence: Evidence) -> Self {
        Self { evidence, ..self }
    }

    /// Shows the database with the queue, if there is one.
    #[must_use]
    pub fn with_database(self, database: Option<DatabaseReading>) -> Self {
        Self { database, ..self }
    }

    /// Sends orders to read the configuration again to this channel.
    #[must_use]
    pub fn with_reload_orders(self, orders: mpsc::Sender<ReloadOrder>) -> Self {
        Self {
            reload_orders: Some(orders),
            ..self
        }
    }
}

/// The user id of the client, if the system reports it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerUid(pub(super) Option<u32>);

/// A negative response, with its sentence.
#[derive(Debug)]
pub(super) struct ErrorResponse(pub(super) StatusCode, pub(super) String);

impl ErrorResponse {
    pub(super) fn bad_request(sentence: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, sentence.into())
    }

    pub(super) fn stopping() -> Self {
        Self(
            StatusCode::SERVICE_UNAVAILABLE,
            "the daemon is stopping".to_owned(),
        )
    }
}

impl From<SpoolError> for ErrorResponse {
    fn from(error: SpoolError) -> Self {
        let status = match &error {
            SpoolError::Missing(_) => StatusCode::NOT_FOUND,
            SpoolError::Closed => return Self::stopping(),
            SpoolError::NotOwner(_) | SpoolError::OfAnother(_) | SpoolError::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            SpoolError::Full(_) | SpoolError::Damaged { .. } | SpoolError::Io(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        (self.0, Json(super::api::ApiError { error: self.1 })).into_response()
    }
}
