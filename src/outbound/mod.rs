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

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::address::Host;
use crate::config::{Config, Connector, default_connector};
use crate::connector::Connectors;
use crate::discovery::Discovery;
use crate::discovery::history::TlsLevel;
use crate::failure::{Failure, RecipientOutcome};
use crate::handshake::{KnownHellos, Material};
use crate::monitor::Monitor;
use crate::route::Router;
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
    /// The connector that speaks for it, from [`Settings::connectors`]. Where the settings have been
    /// replaced since, the connector that speaks for `host` now is taken instead.
    pub connector: Arc<Connector>,
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
    /// The configuration that it is of.
    pub config: Arc<Config>,
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

/// What deliveries need of one configuration; all parts come from the same one.
pub struct Settings {
    config: Arc<Config>,
    tls: Arc<Material>,
    router: Arc<Router>,
    connectors: Connectors,
    monitor: Monitor,
}

impl Settings {
    /// Gathers what belongs to `config`: `tls` and `router` must have been made from it.
    #[must_use]
    pub fn new(config: Arc<Config>, tls: Arc<Material>, router: Arc<Router>) -> Self {
        let connectors = Connectors::new(&config.connectors, default_connector(&config.tls.trust));
        Self { config, tls, router, connectors, monitor: Monitor::default() }
    }

    /// Tells this monitor what sessions with next hops come to.
    #[must_use]
    pub fn monitored(self, monitor: Monitor) -> Self {
        Self { monitor, ..self }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Finds hops and addresses.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Its connectors, the built-in default among them.
    #[must_use]
    pub fn connectors(&self) -> &Connectors {
        &self.connectors
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("hostname", &self.config.hostname).finish_non_exhaustive()
    }
}

/// Delivers. One for the process: it keeps the connections that can be used again.
#[derive(Debug)]
pub struct Outbound {
    current: ArcSwap<Snapshot>,
    discovery: Discovery,
    reporter: Reporter,
    hellos: KnownHellos,
}

/// Settings, and the connections that were judged under them.
#[derive(Debug)]
struct Snapshot {
    settings: Arc<Settings>,
    discovery: Discovery,
    reporter: Reporter,
    /// The `ClientHello`s of hosts that do not take the usual one, whatever the settings.
    hellos: KnownHellos,
    pool: Pool,
}

impl Snapshot {
    fn new(settings: Arc<Settings>, discovery: &Discovery, reporter: &Reporter, hellos: &KnownHellos) -> Self {
        let (discovery, reporter, hellos) = (discovery.clone(), reporter.clone(), hellos.clone());
        Self { settings, discovery, reporter, hellos, pool: Pool::default() }
    }
}

impl Outbound {
    /// Starts without any connection. Nothing is dialled before [`Outbound::deliver`].
    #[must_use]
    pub fn new(settings: Arc<Settings>, discovery: Discovery, reporter: Reporter) -> Self {
        let hellos = KnownHellos::default();
        let snapshot = Snapshot::new(settings, &discovery, &reporter, &hellos);
        Self { current: ArcSwap::from_pointee(snapshot), discovery, reporter, hellos }
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

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.current.load().settings)
    }

    /// Puts other settings in force. Deliveries in flight end under those they began with; idle
    /// connections are closed, for they were judged under the old ones.
    pub fn replace(&self, settings: Arc<Settings>) {
        let old = self.current.swap(Arc::new(Snapshot::new(settings, &self.discovery, &self.reporter, &self.hellos)));
        old.pool.close();
    }

    /// Makes one attempt, in the time that `[limits] delivery_attempt_time` allows.
    ///
    /// Where the connection breaks after the message and before its answer, the recipients are deferred:
    /// such a message may arrive twice, for the alternative is that it may not arrive.
    pub async fn deliver(&self, attempt: Attempt) -> Report {
        let limit = AttemptLimit::new(self.settings().config.limits.delivery_attempt_time);
        self.deliver_within(attempt, &limit).await
    }

    /// Makes one attempt that others may end. What is left of it then is deferred.
    pub async fn deliver_within(&self, attempt: Attempt, limit: &AttemptLimit) -> Report {
        let snapshot = self.current.load_full();
        deliver::deliver(&snapshot, &attempt, limit).await
    }

    /// Says goodbye on all idle connections. What is delivered afterwards keeps none.
    pub fn close(&self) {
        self.current.load().pool.close();
    }
}
