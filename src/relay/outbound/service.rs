//! The service that delivers messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::discovery::Discovery;
use crate::net::tls_io::KnownHellos;
use crate::relay::running_config::RunningConfig;
use crate::relay::tlsrpt::Reporter;
use crate::storage::spool::ClusterShare;
use crate::telemetry::Monitor;

use super::attempt::{Attempt, AttemptResult};
use super::chunk_memory::ChunkMemory;
use super::deliver::{DeliveryServices, deliver};
use super::limit::AttemptLimit;
use super::observe::{DeliveryObserver, Observers};
use super::pool::Pool;

/// The service that delivers messages. There is one for the process; it keeps the idle connections.
#[derive(Debug)]
pub struct Outbound {
    running: RunningConfig,
    discovery: Discovery,
    reporter: Reporter,
    monitor: Monitor,
    /// The `ClientHello`s of hosts that do not accept the usual one; kept across reloads.
    hellos: KnownHellos,
    /// The hosts that are sent no chunks; kept across reloads.
    chunks: ChunkMemory,
    pool: Pool,
    observers: Observers,
    /// The observers that were added to those of the service itself.
    added: Vec<Arc<dyn DeliveryObserver>>,
    /// The attempts since the start that a TLS policy refused.
    refused: Arc<AtomicU64>,
}

impl Outbound {
    /// Creates the service without any connection. It connects only in [`Outbound::deliver`].
    #[must_use]
    pub fn new(running: RunningConfig, discovery: Discovery, reporter: Reporter) -> Self {
        let unlisted = Self {
            running,
            discovery,
            reporter,
            monitor: Monitor::default(),
            hellos: KnownHellos::default(),
            chunks: ChunkMemory::default(),
            pool: Pool::default(),
            observers: Observers::default(),
            added: Vec::new(),
            refused: Arc::default(),
        };
        unlisted.listed()
    }

    /// Reports the results of sessions with next hops to this monitor.
    #[must_use]
    pub fn monitored(self, monitor: Monitor) -> Self {
        Self { monitor, ..self }.listed()
    }

    /// Adds an observer of sessions and recipients, after those of the service itself.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn DeliveryObserver>) -> Self {
        self.added.push(observer);
        self.listed()
    }

    /// Lists the observers again.
    fn listed(self) -> Self {
        let Self {
            discovery,
            reporter,
            monitor,
            refused,
            added,
            ..
        } = &self;
        let observers = Observers::list(discovery.history(), reporter, monitor, refused, added);
        Self { observers, ..self }
    }

    /// The observers of sessions and recipients.
    #[must_use]
    pub fn observers(&self) -> &Observers {
        &self.observers
    }

    /// Returns the number of attempts since the start that a TLS policy refused.
    #[must_use]
    pub fn refused_attempts(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
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

    /// The monitor of sessions with next hops.
    pub(super) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// The idle connections.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
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

    /// Changes this node's part of the connection limits, and closes the idle connections that are more.
    pub fn set_cluster_share(&self, share: ClusterShare) {
        self.pool.set_cluster_share(share);
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
        deliver(self.services(), self.running.load(), &attempt, limit).await
    }

    fn services(&self) -> DeliveryServices<'_> {
        let Self {
            discovery,
            monitor,
            hellos,
            chunks,
            pool,
            observers,
            ..
        } = self;
        DeliveryServices {
            discovery,
            monitor,
            hellos,
            chunks,
            pool,
            observers,
        }
    }

    /// Closes all idle connections with QUIT. Later attempts keep no connection.
    pub fn close(&self) {
        self.pool.close();
    }
}
