//! The configuration in use, and what is built from it, as one value.
//!
//! A transaction or a delivery attempt loads one [`Snapshot`] when it begins and keeps it to its end,
//! so that no decision mixes two configurations. A reload replaces the snapshot as a whole. Peers'
//! certificates alone are judged by the trust anchors and CRLs in use, also in an attempt that began
//! before: [`Snapshot::judging_tls`].

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::config::{Config, Connector, MailSchedule};
use crate::net::dns::Dns;
use crate::net::revocation::DistributionPoints;
use crate::net::route::Router;
use crate::net::tls_io::TlsMaterial;
use crate::policy::connector::Connectors;
use crate::relay::recipient_tables::RecipientTables;
use crate::relay::smart_host_logins::SmartHostLogins;
use crate::relay::users::UserStore;
use crate::smtp::address::Host;

/// One configuration, with the connectors, certificates and router that belong to it.
pub struct Snapshot {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its connectors, the built-in default among them.
    pub connectors: Arc<Connectors>,
    /// Its certificates, keys and trust anchors.
    pub tls: Arc<TlsMaterial>,
    /// The router that finds hops and addresses for it.
    pub router: Arc<Router>,
    /// The CRLs of distribution points, which all snapshots share.
    pub points: DistributionPoints,
    /// Its users, as their file is now.
    pub users: Arc<UserStore>,
    /// Its `[[recipients]]` tables, with their lists and answers.
    recipients: Arc<RecipientTables>,
    /// Its logins at smart hosts, with the secrets as their files are now.
    logins: Arc<SmartHostLogins>,
    /// The connectors and TLS material in use, which the snapshots of one [`RunningConfig`] share.
    in_use: Arc<ArcSwap<JudgingTls>>,
    /// The number of the snapshot. It grows by one with each reload.
    generation: u64,
}

/// The TLS material by which peers are judged, with the connectors that it was loaded for.
struct JudgingTls {
    connectors: Arc<Connectors>,
    tls: Arc<TlsMaterial>,
}

impl Snapshot {
    /// Builds the snapshot of `config`; `tls` must have been loaded from it, and `dns` must use its
    /// resolvers.
    #[must_use]
    pub fn new(config: Arc<Config>, tls: Arc<TlsMaterial>, dns: Dns) -> Self {
        let connectors = Arc::new(config.connectors());
        let router = Arc::new(Router::new(&config, dns));
        let in_use = ArcSwap::from_pointee(JudgingTls {
            connectors: Arc::clone(&connectors),
            tls: Arc::clone(&tls),
        });
        Self {
            config,
            connectors,
            tls,
            router,
            points: DistributionPoints::default(),
            users: UserStore::none(),
            recipients: Arc::default(),
            logins: Arc::default(),
            in_use: Arc::new(in_use),
            generation: 0,
        }
    }

    /// Returns the TLS material whose trust anchors and CRLs judge the peers of a connector: that in
    /// use now, or that of this snapshot if a reload has removed the connector.
    // Rule: policy table (revocation).
    #[must_use]
    pub fn judging_tls(&self, connector: &Connector) -> Arc<TlsMaterial> {
        let in_use = self.in_use.load();
        match in_use.connectors.named(&connector.name) {
            Some(_) => Arc::clone(&in_use.tls),
            None => Arc::clone(&self.tls),
        }
    }

    /// Returns the schedule of mail for a recipient domain. `user_connector` is the connector of the
    /// user who sent the mail, if the user has one.
    #[must_use]
    pub fn schedule(&self, host: &Host, user_connector: Option<&str>) -> MailSchedule<'_> {
        let connector = self.connectors.routing(host, user_connector);
        self.config.queue.schedule(connector)
    }

    /// Gives the snapshot its users, which must have been loaded from its configuration.
    #[must_use]
    pub fn with_users(self, users: Arc<UserStore>) -> Self {
        Self { users, ..self }
    }

    /// Adds the CRLs of distribution points. Without them none are fetched.
    #[must_use]
    pub fn with_points(self, points: DistributionPoints) -> Self {
        Self { points, ..self }
    }

    /// Adds the `[[recipients]]` tables, which must have been loaded from the same configuration.
    #[must_use]
    pub fn with_recipients(self, recipients: Arc<RecipientTables>) -> Self {
        Self { recipients, ..self }
    }

    /// The `[[recipients]]` tables, with their lists and answers.
    #[must_use]
    pub fn recipients(&self) -> &Arc<RecipientTables> {
        &self.recipients
    }

    /// Adds the logins at smart hosts, which must have been loaded from the same configuration.
    #[must_use]
    pub fn with_logins(self, logins: Arc<SmartHostLogins>) -> Self {
        Self { logins, ..self }
    }

    /// The logins at smart hosts.
    #[must_use]
    pub fn logins(&self) -> &Arc<SmartHostLogins> {
        &self.logins
    }

    /// The number of the snapshot. It grows by one with each reload.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("hostname", &self.config.hostname)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// A shared handle to the snapshot in use. Clones share one snapshot.
#[derive(Debug, Clone)]
pub struct RunningConfig(Arc<SharedSnapshot>);

/// The state behind all clones of the handle.
#[derive(Debug)]
struct SharedSnapshot {
    current: ArcSwap<Snapshot>,
    replaced: Notify,
}

impl RunningConfig {
    /// Creates the handle with its first snapshot, which has generation 0.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(SharedSnapshot {
            current: ArcSwap::from_pointee(snapshot),
            replaced: Notify::new(),
        }))
    }

    /// Returns the snapshot in use now.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }

    /// Replaces the snapshot and gives the new one the next generation. Running transactions and
    /// attempts keep the snapshot that they loaded.
    pub fn replace(&self, snapshot: Snapshot) {
        let old = self.load();
        let new = Arc::new(Snapshot {
            generation: old.generation + 1,
            in_use: Arc::clone(&old.in_use),
            ..snapshot
        });
        self.0.current.store(Arc::clone(&new));
        new.in_use.store(Arc::new(JudgingTls {
            connectors: Arc::clone(&new.connectors),
            tls: Arc::clone(&new.tls),
        }));
        self.0.replaced.notify_one();
    }

    /// Waits until the snapshot is replaced. Only one task may wait. A replacement before the call,
    /// which nobody has waited for, ends the wait at once.
    pub async fn replaced(&self) {
        self.0.replaced.notified().await;
    }
}
