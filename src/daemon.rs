//! The daemon: opens what the configuration names, wires the services together, and ends them in
//! order.
//!
//! It decides nothing about mail. The end comes in this order: listeners, then sessions and running
//! deliveries, and the spool last.

mod crl_expiry;
mod error;
mod exceptions;
mod lease;
mod liveness;
mod loaded;
mod mailbox_servers;
mod metrics;
mod node_config;
mod reload;
mod sockets;
mod spool;
mod test_overrides;
mod tls_reports;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, HttpServer, ReloadOrder, UnixServer};
use crate::config::{self, Config, EvidencePath, Fault};
use crate::discovery::Discovery;
use crate::discovery::history::History;
use crate::discovery::mta_sts::{MtaSts, WebSource};
use crate::net::dns::{Dns, DnsError};
use crate::net::oauth::TokenCaches;
use crate::relay::inbound::{self, Clients, Inbound};
use crate::relay::outbound::DeliveryObserver;
use crate::relay::recipients::RecipientCheck;
use crate::relay::scheduler::{Operator, Scheduler};
use crate::relay::tlsrpt::{ReportService, Reporter};
use crate::storage::evidence::Evidence;
use crate::storage::spool::{Claimed, Entry, Spool, SpoolError};
use crate::telemetry::Monitor;
pub use error::{RunError, StartError};
pub use liveness::{Liveness, LivenessProbe, Unresponsive};
use loaded::{LoadFaults, LoadedFiles};
use mailbox_servers::ConnectorServers;
use node_config::ConfigPublisher;
pub use node_config::published_config;
use reload::ConfiguredServices;
pub use reload::rejected_changes;
use sockets::Bound;
pub use sockets::SystemdSockets;
use spool::{OpenedSpool, WatchedDatabase};
pub use test_overrides::TestOverrides;

/// The number of accepted messages that may wait for the scheduler. Further sessions wait before
/// their final 250.
const ACCEPTED_MAX: usize = 1024;

/// The handle of a running daemon.
#[derive(Debug)]
pub struct RunningDaemon {
    /// Each bound address, with the name of its listener.
    pub addresses: Vec<(String, SocketAddr)>,
    /// The address of the HTTP server for status and metrics.
    pub http: Option<SocketAddr>,
    configured: Arc<ConfiguredServices>,
    publisher: ConfigPublisher,
    liveness: LivenessProbe,
    reporter: Reporter,
    stop: CancellationToken,
    reload_orders: Option<mpsc::Receiver<ReloadOrder>>,
    task: JoinHandle<Result<(), RunError>>,
}

impl RunningDaemon {
    /// Replaces the configuration. Running sessions and deliveries keep the old one.
    ///
    /// Returns warnings.
    ///
    /// # Errors
    /// All faults of the new configuration, and all changes that need a restart. The old
    /// configuration then stays in use.
    pub fn reload(&self, config: Config) -> Result<Vec<Fault>, Vec<Fault>> {
        let replaced = self.configured.replace(config);
        if replaced.is_ok() {
            self.publisher.publish(&self.configured.running.load());
        }
        replaced
    }

    /// Returns the orders of operators to read the configuration again, once. Who takes them must carry
    /// them out; if nobody does, operators hear that they cannot be.
    pub fn take_reload_orders(&mut self) -> Option<mpsc::Receiver<ReloadOrder>> {
        self.reload_orders.take()
    }

    /// Returns the liveness probe.
    #[must_use]
    pub fn liveness(&self) -> LivenessProbe {
        self.liveness.clone()
    }

    /// Returns the observer of sessions for TLS reports.
    #[must_use]
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Stops the daemon: it accepts no more mail and lets running deliveries finish.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the daemon has ended.
    ///
    /// # Errors
    /// [`RunError`] if it ended by itself.
    pub async fn ended(&mut self) -> Result<(), RunError> {
        match (&mut self.task).await {
            Ok(end) => end,
            Err(death) => Err(RunError::Died(death.to_string())),
        }
    }
}

/// Starts a daemon. On return, everything is loaded, opened and bound.
///
/// # Errors
/// [`StartError`]; nothing is left open or bound then.
pub async fn start(
    config: Config,
    observer: Arc<dyn DeliveryObserver>,
) -> Result<RunningDaemon, StartError> {
    let (overrides, sockets) = (TestOverrides::default(), SystemdSockets::default());
    let mut running = start_with(overrides, sockets, config, observer).await?;
    // There is no file that could be read again.
    running.reload_orders = None;
    Ok(running)
}

/// Starts a daemon with the overrides of tests, and with the sockets that systemd passed.
///
/// # Errors
/// [`StartError`]; nothing is left open or bound then.
pub async fn start_with(
    test_overrides: TestOverrides,
    passed: SystemdSockets,
    config: Config,
    observer: Arc<dyn DeliveryObserver>,
) -> Result<RunningDaemon, StartError> {
    let token_caches = Arc::new(TokenCaches::default());
    let mut loaded = load(&config, &token_caches)?;
    let dns = loaded.dns.clone();
    let monitor = Monitor::default();
    let spool = spool::open(&config, loaded.database.take(), &monitor, test_overrides).await?;
    let stores = open_stores(&config, &dns, &monitor, spool).await?;
    let web = reload::web(&config, &loaded.tls, &dns, test_overrides);
    let policies = open_policies(&config, web, stores.database.as_ref()).await?;
    let discovery = Discovery::new(policies, stores.history);
    let sockets = sockets::bind(&config, passed)
        .await
        .map_err(StartError::NotReady)?;
    let addresses = addresses_of(&sockets);
    let not_ready = |fault| StartError::NotReady(vec![fault]);
    let unix_server = UnixServer::open(&config.admin.socket).await;
    let unix_server = unix_server.map_err(not_ready)?;
    let http_server = HttpServer::open(&config.admin.http).await;
    let http_server = http_server.map_err(not_ready)?;
    let http = http_server.as_ref().and_then(HttpServer::address);
    let configured = ConfiguredServices::new(
        Arc::new(config),
        (loaded, token_caches),
        discovery,
        (stores.reporter.clone(), monitor, observer),
        test_overrides,
    );
    let configured = Arc::new(ConfiguredServices {
        evidence: stores.evidence,
        ..configured
    });
    // A resolver without DNSSEC is reported now, and not with the first mail.
    tokio::spawn(async move { dns.probe_dnssec().await });
    let (stop, (orders, reload_orders)) = (CancellationToken::new(), admin::reload_orders());
    let services = Services {
        configured: Arc::clone(&configured),
        reload_orders: orders,
        spool: Arc::clone(&stores.spool),
        database: stores.database,
        stop: stop.clone(),
        clients: Clients::default(),
    };
    let publisher = ConfigPublisher::start(stores.spool.clone(), &configured.running.load());
    let scheduler = services.scheduler();
    let liveness = LivenessProbe::new(
        scheduler.liveness(),
        stores.spool,
        Arc::clone(&configured.outbound),
    );
    let task = tokio::spawn(services.run(
        scheduler,
        sockets,
        (unix_server, http_server),
        stores.reports,
    ));
    Ok(RunningDaemon {
        addresses,
        http,
        configured,
        publisher,
        liveness,
        reporter: stores.reporter,
        stop,
        reload_orders: Some(reload_orders),
        task,
    })
}

/// Returns the addresses of all listeners.
fn addresses_of(sockets: &Bound) -> Vec<(String, SocketAddr)> {
    sockets
        .iter()
        .flat_map(|(name, sockets)| {
            sockets
                .iter()
                .filter_map(|socket| Some((name.clone(), socket.local_addr().ok()?)))
        })
        .collect()
}

async fn open_policies(
    config: &Config,
    web: WebSource,
    database: Option<&WatchedDatabase>,
) -> Result<MtaSts, StartError> {
    if let Some(shared) = database {
        return Ok(MtaSts::open_shared(shared.database(), web).await);
    }
    MtaSts::open(&config.spool.value, web).map_err(|error| StartError::Policies {
        location: config.spool.location.clone(),
        error: Box::new(error),
    })
}

/// Loads the files that the configuration names, and logs the warnings about them.
fn load(config: &Config, token_caches: &TokenCaches) -> Result<LoadedFiles, StartError> {
    let loaded = LoadedFiles::load(config, Dns::new(&config.dns), token_caches);
    let (loaded, warnings) = loaded.map_err(|faults| unusable(faults, config))?;
    for warning in config::merge_warnings(warnings) {
        tracing::warn!(place = %warning.location, remedy = %warning.remedy, "{}", warning.message);
    }
    Ok(loaded)
}

/// The files that the daemon keeps open.
struct Stores {
    spool: Arc<dyn Spool>,
    database: Option<WatchedDatabase>,
    evidence: Evidence,
    history: History,
    reporter: Reporter,
    reports: Option<ReportService>,
}

/// Opens the evidence, the counts for TLS reports and the downgrade memory.
///
/// The spool has been opened first, so that a second instance reports the first one, and not that its
/// ports are in use.
async fn open_stores(
    config: &Config,
    dns: &Dns,
    monitor: &Monitor,
    spool: OpenedSpool,
) -> Result<Stores, StartError> {
    let folder = &config.spool.value;
    let now = jiff::Timestamp::now();
    monitor.restore(folder, now);
    dns.remember_in(folder);
    let shared = spool.database.as_ref();
    let evidence = evidence(config, shared).await?;
    let (reporter, reports) =
        tls_reports::open_service(config, shared.map(WatchedDatabase::database)).map_err(
            |error| StartError::TlsReports {
                location: config.tlsrpt.send.location.clone(),
                error: Box::new(error),
            },
        )?;
    let history = match shared {
        Some(shared) => History::open_shared(shared.database(), now).await,
        None => History::open(folder, now),
    };
    let history = history.map_err(|error| StartError::History {
        location: config.spool.location.clone(),
        error: Box::new(error),
    })?;
    Ok(Stores {
        spool: spool.spool,
        database: spool.database,
        evidence,
        history,
        reporter,
        reports,
    })
}

/// Returns the error for a configuration that cannot be loaded. Another start makes sense only if
/// the DNS error may be temporary and is the only fault.
fn unusable(found: LoadFaults, config: &Config) -> StartError {
    let is_transient =
        found.faults.is_empty() && found.dns.as_ref().is_some_and(DnsError::is_transient);
    let faults = found.all(config);
    if is_transient {
        StartError::NotReady(faults)
    } else {
        StartError::Faults(faults)
    }
}

async fn evidence(
    config: &Config,
    shared: Option<&WatchedDatabase>,
) -> Result<Evidence, StartError> {
    let EvidencePath::Folder(folder) = &config.evidence.path.value else {
        return Ok(Evidence::off());
    };
    let failed = |error| StartError::Evidence {
        location: config.evidence.path.location.clone(),
        error: Box::new(error),
    };
    let keep = config.evidence.keep;
    let evidence = match shared {
        Some(shared) => Evidence::open_shared(shared.database(), shared.node(), keep).await,
        None => Evidence::open(folder, keep),
    };
    let evidence = evidence.map_err(failed)?;
    evidence.set_limit(config.evidence.max_size);
    Ok(evidence)
}

/// The services of the daemon.
struct Services {
    configured: Arc<ConfiguredServices>,
    spool: Arc<dyn Spool>,
    database: Option<WatchedDatabase>,
    stop: CancellationToken,
    clients: Clients,
    reload_orders: mpsc::Sender<ReloadOrder>,
}

impl Services {
    async fn run(
        self,
        scheduler: Scheduler,
        sockets: Bound,
        (unix_server, http_server): (Option<UnixServer>, Option<HttpServer>),
        service: Option<ReportService>,
    ) -> Result<(), RunError> {
        let (accepted, work) = mpsc::channel(ACCEPTED_MAX);
        let operator = scheduler.operator();
        let mut deliveries = tokio::spawn(scheduler.run(work, self.stop.clone()));
        let reports_task =
            self.configured
                .reports
                .start(service, &self.spool, &accepted, &self.stop);
        let mut listeners = self.listen(sockets, accepted);
        let admin = self.admin(operator);
        listeners.spawn(admin::serve_node_orders(admin.clone(), self.stop.clone()));
        if let Some(unix_server) = unix_server {
            listeners.spawn(unix_server.serve(admin.clone(), self.stop.clone()));
        }
        if let Some(http_server) = http_server {
            listeners.spawn(http_server.serve(admin, self.stop.clone()));
        }
        let mut periodic_tasks = self.periodic_tasks();
        let mut lease = JoinSet::new();
        let lease_time = self.database.as_ref().map(WatchedDatabase::lease);
        lease.spawn(lease::keep(Arc::clone(&self.spool), lease_time));
        let end = tokio::select! {
            // `biased`: on shutdown the other branches complete too. They must not be mistaken for
            // failures.
            biased;
            () = self.stop.cancelled() => Ok(()),
            () = self.spool.closed() => Err(RunError::SpoolClosed),
            () = self.configured.evidence.closed() => Err(RunError::EvidenceClosed),
            death = &mut deliveries => Err(scheduler_end(death)),
            Some(Err(death)) = listeners.join_next() => Err(RunError::Died(death.to_string())),
            Some(Err(death)) = periodic_tasks.join_next() => Err(RunError::Died(death.to_string())),
            Some(Err(death)) = lease.join_next() => Err(RunError::Died(death.to_string())),
        };
        periodic_tasks.abort_all();
        self.stop.cancel();
        self.configured.evidence.stop_retrying();
        self.configured.outbound.close();
        // Sessions and deliveries end at the same time: a message that is still accepted waits in
        // the spool.
        let drain = self.configured.config().timeouts.drain;
        let sessions = tokio::time::timeout(drain, async {
            while listeners.join_next().await.is_some() {}
        });
        let deliveries = async {
            if !deliveries.is_finished() {
                // The scheduler itself waits at most `drain`.
                let _ = deliveries.await;
            }
        };
        if tokio::join!(sessions, deliveries).0.is_err() {
            tracing::warn!(
                "sessions were cut short; messages without a final reply are not in the spool"
            );
        }
        drop(listeners);
        // The sessions are over, so all of them can be counted.
        reports_task.end().await;
        metrics::save(&self.configured).await;
        // Until here the lease was renewed: what is under way needs it.
        drop(lease);
        // The spool is closed last, since its lock keeps other processes from the folder.
        self.configured.evidence.close().await;
        self.configured.outbound.discovery().history().close().await;
        let closed = self.spool.close().await;
        end.and(closed.map_err(RunError::Spool))
    }

    fn scheduler(&self) -> Scheduler {
        let ConfiguredServices {
            outbound,
            running,
            evidence,
            ..
        } = &*self.configured;
        let (outbound, running) = (Arc::clone(outbound), running.clone());
        Scheduler::new(Arc::clone(&self.spool), evidence.clone(), outbound, running)
    }

    fn admin(&self, operator: Operator) -> admin::AdminState {
        let ConfiguredServices {
            outbound,
            running,
            monitor,
            evidence,
            ..
        } = &*self.configured;
        let (spool, running) = (Arc::clone(&self.spool), running.clone());
        let (dns, since) = (running.load().router.dns().clone(), jiff::Timestamp::now());
        let known = (outbound.discovery(), outbound.hellos());
        let watched = (monitor.clone(), self.clients.clone());
        admin::AdminState::new(spool, operator, known, dns, running, watched, since)
            .with_evidence(evidence.clone())
            .with_database(self.database.as_ref().map(WatchedDatabase::reading))
            .with_reload_orders(self.reload_orders.clone())
    }

    /// Starts the tasks that run periodically. They never end by themselves: without them,
    /// certificates and policies would become outdated unnoticed.
    fn periodic_tasks(&self) -> JoinSet<()> {
        let mut periodic_tasks = JoinSet::new();
        periodic_tasks.spawn(watch::watch_certificates(Arc::clone(&self.configured)));
        periodic_tasks.spawn(watch::watch_crls(Arc::clone(&self.configured)));
        periodic_tasks.spawn(metrics::round(
            Arc::clone(&self.configured),
            self.clients.clone(),
        ));
        let policies = self.configured.outbound.discovery().mta_sts().clone();
        periodic_tasks.spawn(async move { policies.keep_fresh().await });
        if let Some(database) = self.database.clone() {
            periodic_tasks.spawn(database.watch());
        }
        let points = self.configured.running.load().points.clone();
        periodic_tasks.spawn(async move { points.keep_fresh().await });
        periodic_tasks
    }

    fn recipient_check(&self) -> RecipientCheck {
        let servers = ConnectorServers(Arc::clone(&self.configured.outbound));
        RecipientCheck::new(Some(Arc::new(servers)), self.configured.monitor.clone())
    }

    fn listen(&self, sockets: Bound, accepted: mpsc::Sender<Claimed<Entry>>) -> JoinSet<()> {
        let running = self.configured.running.clone();
        let inbound = Inbound::new(running, Arc::clone(&self.spool), accepted);
        let inbound = inbound
            .with_monitor(self.configured.monitor.clone())
            .with_clients(self.clients.clone())
            .with_evidence(self.configured.evidence.clone())
            .with_recipients(self.recipient_check());
        let inbound = Arc::new(inbound);
        let mut listeners = JoinSet::new();
        for (name, sockets) in sockets {
            listeners.spawn(inbound::serve(
                Arc::clone(&inbound),
                name,
                sockets,
                self.stop.clone(),
            ));
        }
        listeners
    }
}

fn scheduler_end(death: Result<Result<(), SpoolError>, tokio::task::JoinError>) -> RunError {
    match death {
        Ok(Ok(())) => RunError::Died("the scheduler ended".to_owned()),
        Ok(Err(error)) => RunError::Spool(error),
        Err(death) => RunError::Died(death.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_retried_only_if_dns_is_the_only_fault() {
        let text = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n\
                    [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n";
        let (config, _) = config::parse(text, std::path::Path::new("gatepost.toml"))
            .expect("a good configuration");
        let system = || Some(DnsError::SystemConfiguration("no nameservers".into()));
        let unusable = |faults, dns| unusable(LoadFaults { faults, dns }, &config);
        let start = unusable(Vec::new(), system());
        assert!(
            matches!(&start, StartError::NotReady(faults) if faults.len() == 1),
            "{start}"
        );
        let fault = DnsError::Library("of ours".into()).fault(&config.dns);
        let start = unusable(vec![fault], system());
        assert!(
            matches!(&start, StartError::Faults(faults) if faults.len() == 2),
            "{start}"
        );
        let elsewhere = Some(DnsError::NotLoopback([192, 0, 2, 1].into()));
        assert!(matches!(
            unusable(Vec::new(), elsewhere),
            StartError::Faults(_)
        ));
    }
}
