//! Everything that is loaded from the files that a configuration names, at the start and at a reload.

use std::sync::Arc;

use crate::config::{Config, Fault};
use crate::net::dns::{Dns, DnsError};
use crate::net::oauth::TokenCaches;
use crate::net::tls_io::TlsMaterial;
use crate::relay::recipient_tables::RecipientTables;
use crate::relay::running_config::Snapshot;
use crate::relay::smart_host_logins::SmartHostLogins;
use crate::relay::tlsrpt::Submitter;
use crate::relay::users::UserStore;
use crate::storage::postgresql::DatabaseAccess;

/// Certificates, trust anchors and keys, the resolver, users, lists of recipients, and secrets.
pub(super) struct LoadedFiles {
    pub(super) tls: Arc<TlsMaterial>,
    pub(super) dns: Dns,
    submitter: Submitter,
    users: Arc<UserStore>,
    recipients: Arc<RecipientTables>,
    logins: Arc<SmartHostLogins>,
    /// The database with the queue. It is opened at the start alone.
    pub(super) database: Option<DatabaseAccess>,
}

/// The reasons why the files of a configuration cannot be used.
#[derive(Debug)]
pub(super) struct LoadFaults {
    pub(super) faults: Vec<Fault>,
    /// The fault of the resolver, which may pass by itself.
    pub(super) dns: Option<DnsError>,
}

impl LoadFaults {
    /// Returns all of them.
    pub(super) fn all(self, config: &Config) -> Vec<Fault> {
        let of_dns = self.dns.map(|error| error.fault(&config.dns));
        self.faults.into_iter().chain(of_dns).collect()
    }
}

impl LoadedFiles {
    /// Loads everything, with this resolver. Returns warnings with it. Blocks.
    ///
    /// # Errors
    /// All faults of all files.
    pub(super) fn load(
        config: &Config,
        dns: Result<Dns, DnsError>,
        token_caches: &TokenCaches,
    ) -> Result<(Self, Vec<Fault>), LoadFaults> {
        let mut found = Findings::default();
        let tls = found.all(TlsMaterial::load(config));
        let submitter = Submitter::load(&config.tlsrpt).map_err(|fault| vec![fault]);
        let submitter = found.all(submitter);
        let users = UserStore::load(config).map(|users| (users, Vec::new()));
        let users = found.all(users);
        let recipients = found.all(RecipientTables::load(config));
        let database = found.all(DatabaseAccess::load(config));
        // Without DNS the configuration is not used, and there are no logins.
        let logins = match &dns {
            Ok(dns) => found.all(SmartHostLogins::load(config, dns, token_caches)),
            Err(_) => None,
        };
        let Findings { faults, warnings } = found;
        let services = (users, recipients, logins, database);
        match (tls, dns, submitter, services) {
            (
                Some(tls),
                Ok(dns),
                Some(submitter),
                (Some(users), Some(recipients), Some(logins), Some(database)),
            ) => {
                let loaded = Self {
                    tls,
                    dns,
                    submitter,
                    users,
                    recipients,
                    logins,
                    database,
                };
                Ok((loaded, warnings))
            }
            (_, dns, ..) => Err(LoadFaults {
                faults,
                dns: dns.err(),
            }),
        }
    }

    /// Makes the configuration in use of it, with what sends reports.
    pub(super) fn into_snapshot(self, config: Arc<Config>) -> (Snapshot, Submitter) {
        let snapshot = Snapshot::new(config, self.tls, self.dns)
            .with_users(self.users)
            .with_recipients(self.recipients)
            .with_logins(self.logins);
        (snapshot, self.submitter)
    }
}

/// The faults and warnings of all files.
#[derive(Default)]
struct Findings {
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Findings {
    /// Adds those of one kind of files, and returns what was loaded.
    fn all<T, W>(&mut self, loaded: Result<(T, W), Vec<Fault>>) -> Option<T>
    where
        W: IntoIterator<Item = Fault>,
    {
        match loaded {
            Ok((value, warnings)) => {
                self.warnings.extend(warnings);
                Some(value)
            }
            Err(faults) => {
                self.faults.extend(faults);
                None
            }
        }
    }
}
