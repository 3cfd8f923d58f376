//! Delivers messages: one attempt takes one message to one destination, with hops, TLS and the
//! transaction.
//!
//! The scheduler decides what happens to the recipients afterwards (retry, report, removal) and how
//! many attempts run at the same time. The hops are tried in the order of RFC 5321 §5.1.
//! [`crate::policy::connector`] joins the demands on each hop, [`crate::policy::tls`] judges the
//! session, and [`crate::policy::failure`] judges a failure.
//!
//! A connection passes through these modules: `wire` opens it, `dial` leads it to the TLS judge,
//! and only a connection with the judge's clearance becomes a `Cleared` connection, the only kind
//! on which MAIL FROM can be written. `second_try` repeats a handshake that the peer cut short.
//! `pool` keeps cleared connections for the next message. `deliver` goes from hop to hop.
//! `requirement` applies what the message itself demands of TLS (RFC 8689), and `limit` bounds the
//! time of an attempt. [`probe`] goes as far as the judge and sends no message.

mod cleared;
mod deliver;
mod dial;
mod downgrade;
mod forecast;
mod limit;
mod metrics;
mod plan;
mod pool;
pub mod probe;
mod probe_result;
mod recipients;
mod requirement;
mod second_try;
mod tls_report;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Connector;
use crate::discovery::Discovery;
use crate::discovery::history::TlsLevel;
use crate::net::tls_io::KnownHellos;
use crate::policy::failure::{Failure, RecipientOutcome};
use crate::policy::tls::{Clearance, TlsPolicy};
use crate::relay::running_config::{RunningConfig, Snapshot};
use crate::relay::tlsrpt::Reporter;
use crate::smtp::address::Host;
use crate::storage::spool::Entry;
use crate::telemetry::Monitor;
pub use forecast::{DeliveryForecast, PeerOutcome, forecast, hellos, undialled_reason};
pub use limit::AttemptLimit;
pub use plan::{HopPlan, HopUnusable, MailContext};
use pool::Pool;

/// The task of one attempt: one message and one destination.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The message.
    pub entry: Arc<Entry>,
    /// The indices in the envelope of the recipients at `host`; at least one.
    pub recipients: Vec<usize>,
    /// The recipients at which a session ended before. Each gets a transaction of its own, after
    /// the others.
    pub apart: Vec<usize>,
    /// The recipient domain.
    pub host: Host,
    /// True if this may be the last attempt: the message expires, or is about to.
    pub may_be_last: bool,
}

/// The result of an attempt.
#[derive(Debug)]
pub struct AttemptResult {
    /// One result for each recipient of the attempt.
    pub results: Vec<RecipientResult>,
    /// Every failure of the attempt, hop by hop, including those after which a later hop accepted
    /// the message.
    pub trail: Vec<Arc<Failure>>,
    /// The connector of the recipient domain.
    pub connector: Arc<Connector>,
    /// The configuration that the whole attempt used.
    pub snapshot: Arc<Snapshot>,
}

/// The result of an attempt for one recipient.
#[derive(Debug)]
pub struct RecipientResult {
    /// The index of the recipient in the envelope.
    pub recipient: usize,
    /// The outcome for this recipient.
    pub outcome: RecipientOutcome,
    /// The session that decided the outcome; `None` if no session got a clearance.
    pub via: Option<Arc<Via>>,
    /// The TLS policy of the hop that decided the outcome; `None` if the attempt failed before the
    /// policy was known.
    pub policy: Option<Arc<TlsPolicy>>,
    /// The failures of this recipient, hop by hop, the deciding one included. Failures of other
    /// recipients are not listed. Empty for a delivered recipient.
    pub trail: Vec<Arc<Failure>>,
    /// True if a session ended with the reply to this recipient, or while that reply was awaited,
    /// in this attempt or an earlier one.
    pub apart: bool,
}

/// A cleared session, as logs and evidence record it.
#[derive(Debug, Clone)]
pub struct Via {
    /// The peer, as `mx.example.org [192.0.2.1]:25`.
    pub peer: String,
    /// The host name of the peer.
    pub host: Host,
    /// The IP address and port of the peer.
    pub address: SocketAddr,
    /// The clearance of the session.
    pub clearance: Clearance,
    /// True if the peer offers DSN (RFC 3461), so that the sender's wishes for reports were passed
    /// on.
    pub offers_dsn: bool,
    /// The TLS level that the domain showed before, if this session shows less and the connector
    /// warns of that.
    pub was: Option<TlsLevel>,
}

/// The service that delivers messages. There is one for the process; it keeps the idle connections.
#[derive(Debug)]
pub struct Outbound {
    running: RunningConfig,
    discovery: Discovery,
    reporter: Reporter,
    monitor: Monitor,
    /// The `ClientHello`s of hosts that do not accept the usual one; kept across reloads.
    hellos: KnownHellos,
    pool: Pool,
}

impl Outbound {
    /// Creates the service without any connection. It connects only in [`Outbound::deliver`].
    #[must_use]
    pub fn new(running: RunningConfig, discovery: Discovery, reporter: Reporter) -> Self {
        let (monitor, hellos, pool) = (Monitor::default(), KnownHellos::default(), Pool::default());
        Self {
            running,
            discovery,
            reporter,
            monitor,
            hellos,
            pool,
        }
    }

    /// Reports the results of sessions with next hops to this monitor.
    #[must_use]
    pub fn monitored(self, monitor: Monitor) -> Self {
        Self { monitor, ..self }
    }

    /// The discovery service: DANE, MTA-STS and the downgrade memory.
    #[must_use]
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// The `ClientHello`s that hosts accepted lately in place of the usual one.
    #[must_use]
    pub fn hellos(&self) -> &KnownHellos {
        &self.hellos
    }

    /// The configuration in use.
    #[must_use]
    pub fn running(&self) -> &RunningConfig {
        &self.running
    }

    /// Closes the idle connections that were judged under a replaced configuration.
    pub fn close_replaced(&self) {
        self.pool.close_older(self.running.load().generation());
    }

    /// Makes one attempt, within `[limits] delivery_attempt_time`.
    ///
    /// If the connection breaks after the content and before its reply, the recipients are
    /// deferred. Such a message may arrive twice; the alternative is that it may not arrive at all.
    pub async fn deliver(&self, attempt: Attempt) -> AttemptResult {
        let limit = AttemptLimit::new(self.running.load().config.limits.delivery_attempt_time);
        self.deliver_within(attempt, &limit).await
    }

    /// Makes one attempt that can be ended early through `limit`. Recipients without an outcome are
    /// deferred then.
    pub async fn deliver_within(&self, attempt: Attempt, limit: &AttemptLimit) -> AttemptResult {
        deliver::deliver(self, self.running.load(), &attempt, limit).await
    }

    /// Closes all idle connections with QUIT. Later attempts keep no connection.
    pub fn close(&self) {
        self.pool.close();
    }
}
