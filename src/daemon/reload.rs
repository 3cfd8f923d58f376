//! The reload: the configuration in use and the parts that depend on it, replaced together or not
//! at all.

use std::sync::Arc;

use super::TestOverrides;
use crate::config::{
    Config, Fault, ListenAddress, ListenerConfig, Location, lost_files, merge_warnings,
};
use crate::discovery::Discovery;
use crate::discovery::mta_sts::{POLICY_FETCH_TIMEOUT, WebSource};
use crate::net::dns::Dns;
use crate::net::https::{Https, PlainHttp};
use crate::net::oauth::TokenCaches;
use crate::net::revocation::{DistributionPoints, FetchCrl, PointFiles};
use crate::net::tls_io::TlsMaterial;
use crate::relay::outbound::{DeliveryObserver, Outbound};
use crate::relay::recipient_tables::RecipientTables;
use crate::relay::running_config::{RunningConfig, Snapshot};
use crate::relay::smart_host_logins::SmartHostLogins;
use crate::relay::tlsrpt::{Reporter, Submitter};
use crate::relay::users::UserStore;
use crate::storage::evidence::Evidence;
use crate::telemetry::Monitor;

use super::tls_reports::Reports;

/// The configuration in use, and the services that a reload must inform.
#[derive(Debug)]
pub(super) struct ConfiguredServices {
    pub(super) running: RunningConfig,
    pub(super) outbound: Arc<Outbound>,
    pub(super) evidence: Evidence,
    pub(super) reports: Reports,
    pub(super) monitor: Monitor,
    pub(super) test_overrides: TestOverrides,
    /// The access tokens for smart hosts, which outlive a reload.
    pub(super) token_caches: Arc<TokenCaches>,
}

/// The logins at smart hosts, and the tokens of those that have some.
pub(super) type LoadedLogins = (Arc<SmartHostLogins>, Arc<TokenCaches>);

impl ConfiguredServices {
    pub(super) fn new(
        config: &Arc<Config>,
        (tls, dns, recipients): (Arc<TlsMaterial>, Dns, Arc<RecipientTables>),
        discovery: Discovery,
        (reporter, monitor, observer): (Reporter, Monitor, Arc<dyn DeliveryObserver>),
        (submitter, users, (logins, token_caches)): (Submitter, Arc<UserStore>, LoadedLogins),
        test_overrides: TestOverrides,
    ) -> Self {
        let reports = Reports::new(submitter, https(config, &tls, &dns), dns.clone());
        let points = DistributionPoints::new(
            PointFiles::below(&config.spool.value),
            crl_fetcher(config, &dns, test_overrides),
        );
        let snapshot = Snapshot::new(Arc::clone(config), tls, dns)
            .with_points(points)
            .with_users(users)
            .with_recipients(recipients)
            .with_logins(logins);
        let running = RunningConfig::new(snapshot);
        let outbound = Outbound::new(running.clone(), discovery, reporter);
        let outbound = outbound.monitored(monitor.clone()).observed_by(observer);
        Self {
            running,
            outbound: Arc::new(outbound),
            evidence: Evidence::off(),
            reports,
            monitor,
            test_overrides,
            token_caches,
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.running.load().config)
    }

    pub(super) fn tls(&self) -> Arc<TlsMaterial> {
        Arc::clone(&self.running.load().tls)
    }

    /// Replaces the configuration; see [`super::RunningDaemon::reload`].
    pub(super) fn replace(&self, config: Config) -> Result<Vec<Fault>, Vec<Fault>> {
        let mut faults = rejected_changes(&self.config(), &config);
        let dns = self
            .running
            .load()
            .router
            .dns()
            .with_config(&config.dns)
            .map_err(|error| error.fault(&config.dns));
        let submitter = Submitter::load(&config.tlsrpt);
        let users = UserStore::load(&config);
        let recipients = RecipientTables::load(&config);
        let logins = load_logins(&config, dns.as_ref().ok(), &self.token_caches);
        let (
            (tls, mut warnings),
            dns,
            (submitter, more),
            users,
            (recipients, of_tables),
            (logins, of_logins),
        ) = match (
            TlsMaterial::load(&config),
            dns,
            submitter,
            users,
            recipients,
            logins,
        ) {
            (Ok(tls), Ok(dns), Ok(submitter), Ok(users), Ok(recipients), Ok(logins))
                if faults.is_empty() =>
            {
                (tls, dns, submitter, users, recipients, logins)
            }
            (tls, dns, submitter, users, recipients, logins) => {
                faults.extend(
                    tls.err()
                        .into_iter()
                        .flatten()
                        .chain(dns.err())
                        .chain(submitter.err())
                        .chain(users.err().into_iter().flatten())
                        .chain(recipients.err().into_iter().flatten())
                        .chain(logins.err().into_iter().flatten()),
                );
                return Err(faults);
            }
        };
        warnings.extend(more.into_iter().chain(of_tables).chain(of_logins));
        let snapshot = Snapshot::new(Arc::new(config), tls, dns)
            .with_points(self.running.load().points.clone())
            .with_users(users)
            .with_recipients(recipients)
            .with_logins(logins);
        self.apply(snapshot, submitter);
        Ok(merge_warnings(warnings))
    }

    /// Puts a configuration into force.
    fn apply(&self, snapshot: Snapshot, submitter: Submitter) {
        let (config, tls, dns) = (&snapshot.config, &snapshot.tls, snapshot.router.dns());
        self.evidence.set_keep(config.evidence.keep);
        self.evidence.set_limit(config.evidence.max_size);
        self.reports
            .replace(submitter, https(config, tls, dns), dns.clone());
        self.outbound
            .discovery()
            .mta_sts()
            .replace(web(config, tls, dns, self.test_overrides));
        snapshot
            .points
            .replace(crl_fetcher(config, dns, self.test_overrides));
        self.running.replace(snapshot);
        self.outbound.close_replaced();
    }
}

/// Loads the logins at smart hosts. Without DNS the configuration is not used, and there are none.
pub(super) fn load_logins(
    config: &Config,
    dns: Option<&Dns>,
    token_caches: &TokenCaches,
) -> Result<(Arc<SmartHostLogins>, Vec<Fault>), Vec<Fault>> {
    match dns {
        Some(dns) => SmartHostLogins::load(config, dns, token_caches),
        None => Ok((Arc::default(), Vec::new())),
    }
}

/// Returns the source from which MTA-STS policies are fetched.
pub(super) fn web(
    config: &Config,
    tls: &TlsMaterial,
    dns: &Dns,
    test_overrides: TestOverrides,
) -> WebSource {
    WebSource::new(dns.clone(), https(config, tls, dns))
        .with_port_and_timeout(test_overrides.policy_port, POLICY_FETCH_TIMEOUT)
}

/// Returns the client by which CRLs are fetched.
fn crl_fetcher(config: &Config, dns: &Dns, test_overrides: TestOverrides) -> Box<dyn FetchCrl> {
    let http = PlainHttp::new(dns.clone(), config.net.http_proxy.clone());
    Box::new(http.with_loopback(test_overrides.crls_from_loopback))
}

/// Returns the HTTPS client of a configuration.
fn https(config: &Config, tls: &TlsMaterial, dns: &Dns) -> Https {
    Https::new(dns.clone(), tls.https().clone()).with_proxy(config.net.http_proxy.clone())
}

/// Returns a fault for each change from `old` to `new` for which
/// [`RunningDaemon::reload`](super::RunningDaemon::reload) rejects a configuration that is good in
/// itself: what needs a restart, and included files that are gone.
#[must_use]
pub fn rejected_changes(old: &Config, new: &Config) -> Vec<Fault> {
    let mut faults = lost_files(&old.source, &new.source);
    faults.extend(needs_restart(old, new));
    faults
}

fn needs_restart(old: &Config, new: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |location: &Location, what: &str| {
        let remedy =
            "Restart the daemon for this; nothing of the new configuration is in force yet."
                .to_owned();
        faults.push(Fault {
            location: location.clone(),
            message: format!("{what} cannot change while the daemon runs"),
            remedy,
        });
    };
    if old.spool.value != new.spool.value {
        fault(&new.spool.location, "[spool] path");
    }
    if old.evidence.path.value != new.evidence.path.value {
        fault(&new.evidence.path.location, "[evidence] path");
    }
    if old.log.format.value != new.log.format.value {
        fault(&new.log.format.location, "[log] format");
    }
    if old.admin.socket.value != new.admin.socket.value {
        fault(&new.admin.socket.location, "[admin] socket");
    }
    if old.tlsrpt.send.value != new.tlsrpt.send.value {
        fault(&new.tlsrpt.send.location, "[tlsrpt] send");
    }
    if old.admin.http.value != new.admin.http.value {
        fault(&new.admin.http.location, "[admin] http");
    }
    if bound(&old.listeners) != bound(&new.listeners) {
        let location = new
            .listeners
            .first()
            .and_then(|listener| listener.addresses.first())
            .map(|first| &first.location);
        fault(
            location.unwrap_or(&new.spool.location),
            "the names and addresses of the listeners",
        );
    }
    faults
}

fn bound(listeners: &[Arc<ListenerConfig>]) -> Vec<(&str, Vec<&ListenAddress>)> {
    listeners
        .iter()
        .map(|listener| {
            (
                listener.name.as_str(),
                listener
                    .addresses
                    .iter()
                    .map(|address| &address.value)
                    .collect(),
            )
        })
        .collect()
}
