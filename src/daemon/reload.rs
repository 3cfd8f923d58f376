//! The reload: the configuration in use and the parts that depend on it, replaced together or not
//! at all.

use std::sync::Arc;

use super::TestOverrides;
use crate::config::{
    Config, DatabaseConfig, Fault, ListenAddress, ListenerConfig, Location, lost_files,
    merge_warnings,
};
use crate::discovery::Discovery;
use crate::discovery::mta_sts::{POLICY_FETCH_TIMEOUT, WebSource};
use crate::net::dns::Dns;
use crate::net::https::{Https, PlainHttp};
use crate::net::oauth::TokenCaches;
use crate::net::revocation::{DistributionPoints, FetchCrl, PointFiles};
use crate::net::tls_io::TlsMaterial;
use crate::relay::outbound::{DeliveryObserver, Outbound};
use crate::relay::running_config::{RunningConfig, Snapshot};
use crate::relay::tlsrpt::{Reporter, Submitter};
use crate::storage::evidence::Evidence;
use crate::telemetry::Monitor;

use super::loaded::LoadedFiles;
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

impl ConfiguredServices {
    pub(super) fn new(
        config: Arc<Config>,
        (loaded, token_caches): (LoadedFiles, Arc<TokenCaches>),
        discovery: Discovery,
        (reporter, monitor, observer): (Reporter, Monitor, Arc<dyn DeliveryObserver>),
        test_overrides: TestOverrides,
    ) -> Self {
        let dns = loaded.dns.clone();
        let https = https(&config, &loaded.tls, &dns);
        let points = DistributionPoints::new(
            PointFiles::below(&config.spool.value),
            crl_fetcher(&config, &dns, test_overrides),
        );
        let (snapshot, submitter) = loaded.into_snapshot(config);
        let snapshot = snapshot.with_points(points);
        let reports = Reports::new(submitter, https, dns);
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
        let dns = self.running.load().router.dns().with_config(&config.dns);
        let (loaded, warnings) = match LoadedFiles::load(&config, dns, &self.token_caches) {
            Ok(loaded) if faults.is_empty() => loaded,
            Ok(_) => return Err(faults),
            Err(found) => {
                faults.extend(found.all(&config));
                return Err(faults);
            }
        };
        let (snapshot, submitter) = loaded.into_snapshot(Arc::new(config));
        let snapshot = snapshot.with_points(self.running.load().points.clone());
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
    for (key, location) in changed_database_keys(old, new) {
        fault(location, key);
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

/// Returns the keys about the database that have changed, with the place of each in the new
/// configuration; of one that is not there any more, that of the spool.
fn changed_database_keys<'a>(old: &Config, new: &'a Config) -> Vec<(&'static str, &'a Location)> {
    let (old, spool) = (old.database.as_ref(), &new.spool.location);
    let Some(new) = &new.database else {
        return old.map(|_| ("[spool] url", spool)).into_iter().collect();
    };
    let Some(old) = old else {
        return vec![("[spool] url", &new.url.location)];
    };
    let place = |database: &DatabaseConfig| {
        let password = database.password_file.as_ref();
        password.map(|file| file.value.clone())
    };
    let password = new.password_file.as_ref();
    let (url, node) = (&new.url.location, &new.node.location);
    let has_changed = [
        ("[spool] url", url, old.url.value != new.url.value),
        (
            "[spool] password_file",
            password.map_or(url, |file| &file.location),
            place(old) != place(new),
        ),
        (
            "the trust of the database",
            &new.trust.location,
            new.url.value.uses_tls() && old.trust.value != new.trust.value,
        ),
        ("[cluster] node", node, old.node.value != new.node.value),
        ("[cluster] lease", node, old.lease != new.lease),
    ];
    let changed = has_changed.into_iter().filter(|(.., changed)| *changed);
    changed.map(|(key, location, _)| (key, location)).collect()
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
