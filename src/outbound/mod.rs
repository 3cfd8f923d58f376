//! One attempt to deliver one message to one destination: hops, TLS, transaction.
//!
//! What becomes of the recipients afterwards (retry, report, removal) is the scheduler's affair, and so
//! is how many attempts go on at the same time. RFC 5321 §5.1 orders the hops; what each of them must
//! show is said by [`crate::connector`] and judged by [`crate::tls`]; what a failure means is judged by
//! [`crate::failure`].
//!
//! A connection goes one way through this room: `wire` opens it, `dial` leads it to the judge, and only
//! what the judge cleared becomes a `Cleared` connection, on which alone MAIL FROM can be written.
//! `second_try` is made where a peer cuts the handshake short. `pool` keeps such connections for the next message,
//! `deliver` goes from hop to hop. What the message itself asks of TLS (RFC 8689) is in `requirement`, how long it
//! all may take in `limit`. Who only wants to see what a message would meet gets
//! as far as the judge, with [`probe`].

mod cleared;
mod deliver;
mod dial;
mod forecast;
mod limit;
mod look;
mod memory;
mod plan;
mod pool;
pub mod probe;
mod requirement;
mod second_try;
mod seen;
mod settle;
mod watched;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::address::Host;
use crate::config::Connector;
use crate::discovery::Discovery;
use crate::discovery::history::TlsLevel;
use crate::failure::{Failure, RecipientOutcome};
use crate::handshake::KnownHellos;
use crate::monitor::Monitor;
use crate::running_config::{RunningConfig, Snapshot};
use crate::spool::Entry;
use crate::tls::{Clearance, TlsPolicy};
use crate::tlsrpt::Reporter;
pub use forecast::{Ending, Prospect, forecast, hellos, not_dialled};
pub use limit::AttemptLimit;
pub use plan::{NoPlan, Plan, Purpose};
use pool::Pool;

/// One message, one destination.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The message.
    pub entry: Arc<Entry>,
    /// Which of its recipients, by index: all have `host` right of the "@". At least one.
    pub recipients: Vec<usize>,
    /// Those of them with which sessions ended: each goes into a transaction of its own, behind the others.
    pub apart: Vec<usize>,
    /// The recipient domain.
    pub host: Host,
    /// Whether it may be the last one: the message expires, or is about to.
    pub may_be_last: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Report {
    /// One result for each recipient of the attempt.
    pub results: Vec<RecipientResult>,
    /// Every failure on the way, hop by hop, those that the next hop made good included.
    pub trail: Vec<Arc<Failure>>,
    /// The connector that spoke for the domain.
    pub connector: Arc<Connector>,
    /// The configuration under which the attempt was made, from its beginning to its end.
    pub snapshot: Arc<Snapshot>,
}

/// How an attempt ended for one recipient.
#[derive(Debug)]
pub struct RecipientResult {
    /// Its index in the envelope.
    pub recipient: usize,
    /// How it ended.
    pub outcome: RecipientOutcome,
    /// The session on which it was decided; `None` where no session got as far as a clearance.
    pub via: Option<Arc<Via>>,
    /// What the hop where it was decided had to show; `None` where it did not come as far as that.
    pub policy: Option<Arc<TlsPolicy>>,
    /// What failed for this recipient on the way, hop by hop, the end included; nothing of what failed for others
    /// alone. Not told of who has the message.
    pub trail: Vec<Arc<Failure>>,
    /// Whether a session ended with its answer, or while that was awaited, in this attempt or before.
    pub apart: bool,
}

/// A cleared session, for the record.
#[derive(Debug, Clone)]
pub struct Via {
    /// `mx.example.org [192.0.2.1]:25`.
    pub peer: String,
    /// The host of that.
    pub host: Host,
    /// Its address.
    pub address: SocketAddr,
    /// Under which clearance.
    pub clearance: Clearance,
    /// Whether the peer offers DSN (RFC 3461), so that what the sender wants reported was passed on.
    pub offers_dsn: bool,
    /// What the domain had shown before, where this is less and the connector minds.
    pub was: Option<TlsLevel>,
}

/// Delivers. One for the process: it keeps the connections that can be used again.
#[derive(Debug)]
pub struct Outbound {
    running: RunningConfig,
    discovery: Discovery,
    reporter: Reporter,
    monitor: Monitor,
    /// The `ClientHello`s of hosts that do not accept the usual one, under any configuration.
    hellos: KnownHellos,
    pool: Pool,
}

impl Outbound {
    /// Starts without any connection. Nothing is dialled before [`Outbound::deliver`].
    #[must_use]
    pub fn new(running: RunningConfig, discovery: Discovery, reporter: Reporter) -> Self {
        let (monitor, hellos, pool) = (Monitor::default(), KnownHellos::default(), Pool::default());
        Self { running, discovery, reporter, monitor, hellos, pool }
    }

    /// Reports the results of sessions with next hops to this monitor.
    #[must_use]
    pub fn monitored(self, monitor: Monitor) -> Self {
        Self { monitor, ..self }
    }

    /// What is known of domains beside their connectors.
    #[must_use]
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// The `ClientHello`s that hosts accepted lately in the place of the usual one.
    #[must_use]
    pub fn hellos(&self) -> &KnownHellos {
        &self.hellos
    }

    /// The configuration in use.
    #[must_use]
    pub fn running(&self) -> &RunningConfig {
        &self.running
    }

    /// Closes idle connections that were judged under a configuration that is no longer in use.
    pub fn close_replaced(&self) {
        self.pool.close_older(self.running.load().generation());
    }

    /// Makes one attempt, in the time that `[limits] delivery_attempt_time` allows.
    ///
    /// Where the connection breaks after the message and before its answer, the recipients are deferred:
    /// such a message may arrive twice, for the alternative is that it may not arrive.
    pub async fn deliver(&self, attempt: Attempt) -> Report {
        let limit = AttemptLimit::new(self.running.load().config.limits.delivery_attempt_time);
        self.deliver_within(attempt, &limit).await
    }

    /// Makes one attempt that others may end. What is left of it then is deferred.
    pub async fn deliver_within(&self, attempt: Attempt, limit: &AttemptLimit) -> Report {
        deliver::deliver(self, self.running.load(), &attempt, limit).await
    }

    /// Says goodbye on all idle connections. What is delivered afterwards keeps none.
    pub fn close(&self) {
        self.pool.close();
    }
}
