//! What is in force, and how it is replaced: whole or not at all.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::TestOverrides;
use crate::config::{Config, Fault, ListenAddress, Listener, Place, default_connector, merged};
use crate::connector::Connectors;
use crate::discovery::Discovery;
use crate::discovery::mta_sts::{POLICY_FETCH_TIMEOUT, WebSource};
use crate::dns::Dns;
use crate::evidence::Evidence;
use crate::handshake::Material;
use crate::https::Https;
use crate::inbound;
use crate::monitor::Monitor;
use crate::outbound::{self, Outbound};
use crate::route::Router;
use crate::scheduler;
use crate::tlsrpt::{Reporter, Submitter};

use super::tls_reports::Reports;

/// The configuration in force, as each mover has it.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) inbound: Arc<ArcSwap<inbound::Settings>>,
    pub(super) scheduler: Arc<ArcSwap<scheduler::Settings>>,
    pub(super) outbound: Arc<Outbound>,
    pub(super) evidence: Evidence,
    /// Tells the scheduler that its settings were replaced.
    pub(super) replaced: Arc<Notify>,
    pub(super) reports: Reports,
    pub(super) monitor: Monitor,
    pub(super) test_overrides: TestOverrides,
}

/// The settings of the three movers, all made from one configuration.
struct Parts {
    inbound: inbound::Settings,
    scheduler: scheduler::Settings,
    outbound: Arc<outbound::Settings>,
}

impl Parts {
    fn new(config: &Arc<Config>, tls: Arc<Material>, dns: Dns, monitor: Monitor) -> Self {
        let default = default_connector(&config.tls.trust);
        let connectors = Arc::new(Connectors::new(&config.connectors, default));
        let router = Arc::new(Router::new(config, dns));
        let outbound = outbound::Settings::new(Arc::clone(config), Arc::clone(&tls), router).monitored(monitor);
        Self {
            inbound: inbound::Settings { config: Arc::clone(config), connectors: Arc::clone(&connectors), tls },
            scheduler: scheduler::Settings { config: Arc::clone(config), connectors },
            outbound: Arc::new(outbound),
        }
    }
}

impl InForce {
    pub(super) fn new(
        config: &Arc<Config>,
        tls: Arc<Material>,
        dns: Dns,
        discovery: Discovery,
        (reporter, monitor): (Reporter, Monitor),
        submitter: Submitter,
        test_overrides: TestOverrides,
    ) -> Self {
        let reports = Reports::new(submitter, &tls, dns.clone());
        let Parts { inbound, scheduler, outbound } = Parts::new(config, tls, dns, monitor.clone());
        Self {
            inbound: Arc::new(ArcSwap::from_pointee(inbound)),
            scheduler: Arc::new(ArcSwap::from_pointee(scheduler)),
            outbound: Arc::new(Outbound::new(outbound, discovery, reporter)),
            evidence: Evidence::off(),
            replaced: Arc::default(),
            reports,
            monitor,
            test_overrides,
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inbound.load().config)
    }

    pub(super) fn tls(&self) -> Arc<Material> {
        Arc::clone(&self.inbound.load().tls)
    }

    /// See [`super::RunningDaemon::reload`].
    pub(super) fn replace(&self, config: Config) -> Result<Vec<Fault>, Vec<Fault>> {
        let mut faults = needs_restart(&self.config(), &config);
        let settings = self.outbound.settings();
        let dns = settings.router().dns().with_config(&config.dns).map_err(|error| error.fault(&config.dns));
        let submitter = Submitter::load(&config.tlsrpt);
        let ((tls, mut warnings), dns, (submitter, more)) = match (Material::load(&config), dns, submitter) {
            (Ok(tls), Ok(dns), Ok((submitter, more))) if faults.is_empty() => (tls, dns, (submitter, more)),
            (tls, dns, submitter) => {
                faults.extend(tls.err().into_iter().flatten().chain(dns.err()).chain(submitter.err()));
                return Err(faults);
            }
        };
        warnings.extend(more);
        let config = Arc::new(config);
        self.evidence.keep(config.evidence.keep);
        self.reports.replace(submitter, &tls, dns.clone());
        self.outbound.discovery().mta_sts().replace(web(&tls, &dns, self.test_overrides));
        let Parts { inbound, scheduler, outbound } = Parts::new(&config, tls, dns, self.monitor.clone());
        self.inbound.store(Arc::new(inbound));
        self.scheduler.store(Arc::new(scheduler));
        self.outbound.replace(outbound);
        self.replaced.notify_one();
        Ok(merged(warnings))
    }
}

/// What MTA-STS policies are looked for with.
pub(super) fn web(tls: &Material, dns: &Dns, test_overrides: TestOverrides) -> WebSource {
    WebSource::new(dns.clone(), Https::new(dns.clone(), tls.https().clone()))
        .with_port_and_timeout(test_overrides.policy_port, POLICY_FETCH_TIMEOUT)
}

/// What cannot be changed while a daemon runs that has `old` in force; [`RunningDaemon::reload`](super::RunningDaemon::reload)
/// refuses it.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |place: &Place, what: &str| {
        let remedy = "Restart the daemon for this; nothing of the new configuration is in force yet.".to_owned();
        faults.push(Fault {
            place: place.clone(),
            message: format!("{what} cannot change while the daemon runs"),
            remedy,
        });
    };
    if old.spool.value != new.spool.value {
        fault(&new.spool.place, "[spool] path");
    }
    if old.evidence.path.value != new.evidence.path.value {
        fault(&new.evidence.path.place, "[evidence] path");
    }
    if old.log.format.value != new.log.format.value {
        fault(&new.log.format.place, "[log] format");
    }
    if old.admin.socket.value != new.admin.socket.value {
        fault(&new.admin.socket.place, "[admin] socket");
    }
    if old.tlsrpt.send.value != new.tlsrpt.send.value {
        fault(&new.tlsrpt.send.place, "[tlsrpt] send");
    }
    if old.admin.http.value != new.admin.http.value {
        fault(&new.admin.http.place, "[admin] http");
    }
    if bound(&old.listeners) != bound(&new.listeners) {
        let place = new.listeners.first().and_then(|listener| listener.addresses.first()).map(|first| &first.place);
        fault(place.unwrap_or(&new.spool.place), "the names and addresses of the listeners");
    }
    faults
}

fn bound(listeners: &[Listener]) -> Vec<(&str, Vec<&ListenAddress>)> {
    listeners
        .iter()
        .map(|listener| (listener.name.as_str(), listener.addresses.iter().map(|address| &address.value).collect()))
        .collect()
}
