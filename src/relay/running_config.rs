//! The configuration in use, and what is built from it, as one value.
//!
//! A session or a delivery attempt loads one [`Snapshot`] when it begins and keeps it to its end,
//! so that no decision mixes two configurations. A reload replaces the snapshot as a whole.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::config::{Config, MailSchedule};
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
    /// The number of the snapshot. It grows by one with each reload.
    generation: u64,
}

impl Snapshot {
    /// Builds the snapshot of `config`; `tls` must have been loaded from it, and `dns` must use its
    /// resolvers.
    #[must_use]
    pub fn new(config: Arc<Config>, tls: Arc<TlsMaterial>, dns: Dns) -> Self {
        let connectors = Arc::new(config.connectors());
        let router = Arc::new(Router::new(&config, dns));
        Self {
            config,
            connectors,
            tls,
            router,
            points: DistributionPoints::default(),
            users: UserStore::none(),
            recipients: Arc::default(),
            logins: Arc::default(),
            generation: 0,
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
    /// The snapshots before it, which sessions may still hold.
    earlier: Mutex<Vec<Weak<Snapshot>>>,
    replaced: Notify,
}

impl RunningConfig {
    /// Creates the handle with its first snapshot, which has generation 0.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(SharedSnapshot {
            current: ArcSwap::from_pointee(snapshot),
            earlier: Mutex::default(),
            replaced: Notify::new(),
        }))
    }

    /// Returns the snapshot in use now.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }

    /// Replaces the snapshot and gives the new one the next generation. Running sessions and
    /// attempts keep the snapshot that they loaded.
    pub fn replace(&self, snapshot: Snapshot) {
        let old = self.load();
        let mut earlier = self.earlier();
        earlier.retain(|earlier| earlier.strong_count() > 0);
        earlier.push(Arc::downgrade(&old));
        drop(earlier);
        self.0.current.store(Arc::new(Snapshot {
            generation: old.generation + 1,
            ..snapshot
        }));
        self.0.replaced.notify_one();
    }

    fn earlier(&self) -> MutexGuard<'_, Vec<Weak<Snapshot>>> {
        // No code panics while it holds the lock.
        self.0
            .earlier
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the CRLs, users and lists of recipients of earlier snapshots again, if their files have
    /// changed, so that sessions from before a reload see them too. Faults are reported for the
    /// snapshot in use alone.
    ///
    /// This reads files and blocks.
    // Rule: policy table (revocation).
    pub fn refresh_earlier(&self) {
        let earlier: Vec<_> = self.earlier().iter().filter_map(Weak::upgrade).collect();
        for snapshot in earlier {
            let _ = snapshot.tls.refresh_crls();
            let _ = snapshot.users.refresh();
            let _ = snapshot.recipients.refresh();
        }
    }

    /// Waits until the snapshot is replaced. Only one task may wait. A replacement before the call,
    /// which nobody has waited for, ends the wait at once.
    pub async fn replaced(&self) {
        self.0.replaced.notified().await;
    }
}
