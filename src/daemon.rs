//! The daemon: opens what the configuration names, wires the services together, and ends them in order.
//!
//! It decides nothing about mail. What it starts, it ends: listeners first, then sessions and deliveries
//! in flight, the spool last.

mod exceptions;
mod liveness;
mod metrics;
mod reload;
mod sockets;
mod tls_reports;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, HttpServer, UnixServer};
use crate::config::{self, Config, EvidencePath, Fault};
use crate::discovery::Discovery;
use crate::discovery::history::{History, HistoryError};
use crate::discovery::mta_sts::{MtaSts, PolicyStoreError};
use crate::dns::{Dns, DnsError};
use crate::evidence::{Evidence, EvidenceError};
use crate::handshake::TlsMaterial;
use crate::https;
use crate::inbound::{self, Clients, Inbound};
use crate::monitor::Monitor;
use crate::scheduler::{Observer, Operator, Scheduler};
use crate::spool::{self, SpoolError, SqliteSpool};
use crate::tlsrpt::{Desk, Reporter, Submitter};
use exceptions::AnnouncedExpiries;
pub use liveness::{Liveness, LivenessProbe, Unresponsive};
use reload::InForce;
pub use reload::needs_restart;
use sockets::Bound;
pub use sockets::SystemdSockets;

/// How often our own certificate files are looked at for a change, and exceptions for their end.
const WATCH: Duration = Duration::from_mins(1);
/// Accepted messages between inbound sessions and the scheduler; what is beyond waits in its session.
const ACCEPTED_MAX: usize = 1024;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration names something that cannot be used; every such thing.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<Fault>),
    /// Something around us is in the way, and may be gone at the next start: addresses that are taken, an admin
    /// socket that cannot be made, a system without a resolver.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Now(Vec<Fault>),
    /// The spool cannot be opened.
    #[error("{location}: the spool cannot be opened: {error}")]
    Spool {
        /// Where the configuration names it.
        location: crate::config::Location,
        /// Why.
        error: SpoolError,
    },
    /// Evidence cannot be kept where the configuration says.
    #[error("{location}: {error}")]
    Evidence {
        /// Where the configuration names its folder.
        location: crate::config::Location,
        /// Why.
        error: EvidenceError,
    },
    /// The cache of MTA-STS policies is of another version.
    #[error("{location}: the MTA-STS policies cannot be opened: {error}")]
    Policies {
        /// Where the configuration names its folder, which is the spool's.
        location: crate::config::Location,
        /// Why.
        error: PolicyStoreError,
    },
    /// The memory of what domains showed before can be neither opened nor set aside.
    #[error("{location}: cannot open the downgrade memory: {error}")]
    History {
        /// Where the configuration names its folder, which is the spool's.
        location: crate::config::Location,
        /// Why.
        error: HistoryError,
    },
}

/// Why the daemon ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The spool's writer has ended, so nothing can be accepted or recorded any more.
    #[error("the spool can no longer be written; the reason is in the log above")]
    SpoolClosed,
    /// The writer of the evidence has ended, so no delivery can be finished any more.
    #[error("the evidence can no longer be written; the reason is in the log above")]
    EvidenceClosed,
    /// The spool could not be read at the start.
    #[error("the spool could not be read: {0}")]
    Spool(SpoolError),
    /// A part of the daemon panicked.
    #[error("a part of the daemon died: {0}")]
    Died(String),
}

/// A daemon that is running.
#[derive(Debug)]
pub struct RunningDaemon {
    /// Each bound address with the name of its listener.
    pub addresses: Vec<(String, SocketAddr)>,
    /// Where status and metrics are shown, unless nowhere.
    pub http: Option<SocketAddr>,
    in_force: Arc<InForce>,
    pulse: LivenessProbe,
    reporter: Reporter,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl RunningDaemon {
    /// Puts another configuration in force. Sessions and deliveries in flight keep the old one.
    ///
    /// Returns warnings.
    ///
    /// # Errors
    /// Every fault of what the configuration names, and everything that only a restart can change; the
    /// old configuration then stays in force, whole.
    pub fn reload(&self, config: Config) -> Result<Vec<Fault>, Vec<Fault>> {
        self.in_force.replace(config)
    }

    /// A hand on its pulse.
    #[must_use]
    pub fn pulse(&self) -> LivenessProbe {
        self.pulse.clone()
    }

    /// Where sessions are observed for TLS reports.
    #[must_use]
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Asks the daemon to stop: it takes no more mail and lets deliveries in flight finish.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the daemon has ended.
    ///
    /// # Errors
    /// [`RunError`] where it ended by itself.
    pub async fn ended(&mut self) -> Result<(), RunError> {
        match (&mut self.task).await {
            Ok(end) => end,
            Err(death) => Err(RunError::Died(death.to_string())),
        }
    }
}

/// What lies around the daemon and is not for an administrator to choose. Plays and tests put peers on this
/// machine in the place of the world, where they cannot have its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestOverrides {
    /// The port at which MTA-STS policy hosts are asked: 443 (RFC 8461 §3.3).
    pub policy_port: u16,
}

impl Default for TestOverrides {
    fn default() -> Self {
        Self { policy_port: https::DEFAULT_PORT }
    }
}

/// Starts a daemon: everything is loaded, opened and bound when this returns.
///
/// # Errors
/// [`StartError`]; nothing is left open or bound then.
pub async fn start(config: Config, observer: Observer) -> Result<RunningDaemon, StartError> {
    start_with(TestOverrides::default(), SystemdSockets::default(), config, observer).await
}

/// The same, in other test_overrides than the world, and with sockets that listeners may name.
///
/// # Errors
/// [`StartError`]; nothing is left open or bound then.
pub async fn start_with(
    test_overrides: TestOverrides,
    passed: SystemdSockets,
    config: Config,
    observer: Observer,
) -> Result<RunningDaemon, StartError> {
    let loaded = (TlsMaterial::load(&config), Dns::new(&config.dns), Submitter::load(&config.tlsrpt));
    let ((tls, warnings), dns, (submitter, more)) = match loaded {
        (Ok(tls), Ok(dns), Ok(submitter)) => (tls, dns, submitter),
        (tls, dns, submitter) => {
            let faults = tls.err().into_iter().flatten().chain(submitter.err()).collect();
            return Err(unusable(faults, dns.err(), &config.dns));
        }
    };
    for warning in config::merge_warnings(warnings.into_iter().chain(more).collect()) {
        tracing::warn!(place = %warning.location, remedy = %warning.remedy, "{}", warning.message);
    }
    // The spool first: a second instance hears that there is a first, not that its ports are taken.
    let spool_error = |error| StartError::Spool { location: config.spool.location.clone(), error };
    let monitor = Monitor::default();
    let options = spool::Options { monitor: monitor.clone(), ..spool::Options::default() };
    let spool = Arc::new(SqliteSpool::open_with(&config.spool.value, &options).map_err(spool_error)?);
    monitor.restore(&config.spool.value, jiff::Timestamp::now());
    dns.remember_in(&config.spool.value);
    let evidence = evidence(&config)?;
    let (reporter, desk) = tls_reports::open_service(&config);
    let history_error = |error| StartError::History { location: config.spool.location.clone(), error };
    let history = History::open(&config.spool.value, jiff::Timestamp::now()).map_err(history_error)?;
    let policies_error = |error| StartError::Policies { location: config.spool.location.clone(), error };
    let web = reload::web(&tls, &dns, test_overrides);
    let policies = MtaSts::open(&config.spool.value, web).map_err(policies_error)?;
    let discovery = Discovery::new(policies, history);
    let sockets = sockets::bind(&config, passed).await.map_err(StartError::Now)?;
    let addresses = sockets
        .iter()
        .flat_map(|(name, sockets)| sockets.iter().filter_map(|socket| Some((name.clone(), socket.local_addr().ok()?))))
        .collect();
    let unix_server = UnixServer::open(&config.admin.socket).await.map_err(|fault| StartError::Now(vec![fault]))?;
    let http_server = HttpServer::open(&config.admin.http).await.map_err(|fault| StartError::Now(vec![fault]))?;
    let http = http_server.as_ref().and_then(HttpServer::address);
    let config = Arc::new(config);
    let watched = (reporter.clone(), monitor);
    let in_force = InForce::new(&config, tls, dns.clone(), discovery, watched, submitter, test_overrides);
    let in_force = Arc::new(InForce { evidence, ..in_force });
    // A resolver that cannot do what is expected of it is told of now, not when the first mail comes.
    tokio::spawn(async move { dns.probe_dnssec().await });
    let stop = CancellationToken::new();
    let (refused, observer) = liveness::count_refusals(observer);
    let (held, kept, ending) = (Arc::clone(&in_force), Arc::clone(&spool), stop.clone());
    let services = Services { in_force: held, spool: kept, observer, stop: ending, clients: Clients::default() };
    let scheduler = services.scheduler();
    let pulse = LivenessProbe::new(scheduler.pulse(), spool, refused);
    let task = tokio::spawn(services.run(scheduler, sockets, (unix_server, http_server), desk));
    Ok(RunningDaemon { addresses, http, in_force, pulse, reporter, stop, task })
}

/// Why what the configuration names cannot be loaded. Another start is worth it only where that alone may mend it.
fn unusable(mut faults: Vec<Fault>, dns: Option<DnsError>, config: &config::DnsConfig) -> StartError {
    let is_transient = faults.is_empty() && dns.as_ref().is_some_and(DnsError::is_transient);
    faults.extend(dns.map(|error| error.fault(config)));
    if is_transient { StartError::Now(faults) } else { StartError::Faults(faults) }
}

fn evidence(config: &Config) -> Result<Evidence, StartError> {
    let EvidencePath::Folder(folder) = &config.evidence.path.value else { return Ok(Evidence::off()) };
    let failed = |error| StartError::Evidence { location: config.evidence.path.location.clone(), error };
    Evidence::open(folder, config.evidence.keep).map_err(failed)
}

/// Everything that runs.
struct Services {
    in_force: Arc<InForce>,
    spool: Arc<SqliteSpool>,
    observer: Observer,
    stop: CancellationToken,
    clients: Clients,
}

impl Services {
    async fn run(
        self,
        scheduler: Scheduler,
        sockets: Bound,
        (unix_server, http_server): (Option<UnixServer>, Option<HttpServer>),
        desk: Option<Desk>,
    ) -> Result<(), RunError> {
        let (accepted, work) = mpsc::channel(ACCEPTED_MAX);
        let operator = scheduler.operator();
        let mut deliveries = tokio::spawn(scheduler.run(work, self.stop.clone()));
        let counting = self.in_force.reports.start(desk, &self.spool, &accepted, &self.stop);
        let mut listeners = self.listen(sockets, accepted);
        let admin = self.admin(operator);
        if let Some(unix_server) = unix_server {
            listeners.spawn(unix_server.serve(admin.clone(), self.stop.clone()));
        }
        if let Some(http_server) = http_server {
            listeners.spawn(http_server.serve(admin, self.stop.clone()));
        }
        let mut periodic_tasks = self.periodic_tasks();
        let end = tokio::select! {
            // In this order: when we are told to stop, the others end by themselves. That is no death.
            biased;
            () = self.stop.cancelled() => Ok(()),
            () = self.spool.closed() => Err(RunError::SpoolClosed),
            () = self.in_force.evidence.closed() => Err(RunError::EvidenceClosed),
            death = &mut deliveries => Err(scheduler_end(death)),
            Some(Err(death)) = listeners.join_next() => Err(RunError::Died(death.to_string())),
            Some(Err(death)) = periodic_tasks.join_next() => Err(RunError::Died(death.to_string())),
        };
        periodic_tasks.abort_all();
        self.stop.cancel();
        self.in_force.evidence.hurry();
        self.in_force.outbound.close();
        // Sessions and deliveries end side by side: what is still accepted waits in the spool.
        let drain = self.in_force.config().timeouts.drain;
        let sessions = tokio::time::timeout(drain, async { while listeners.join_next().await.is_some() {} });
        let deliveries = async {
            if !deliveries.is_finished() {
                // The scheduler itself waits no longer than `drain`.
                let _ = deliveries.await;
            }
        };
        if tokio::join!(sessions, deliveries).0.is_err() {
            tracing::warn!("sessions were cut short; what they had not been answered for is not in the spool");
        }
        drop(listeners);
        // The last sessions are over: what was seen of them is counted before the end.
        counting.end().await;
        metrics::save(&self.in_force).await;
        // The spool's lock keeps others from the folder: it goes last.
        self.in_force.evidence.close().await;
        self.in_force.outbound.discovery().history().close().await;
        let closed = self.spool.close().await;
        end.and(closed.map_err(RunError::Spool))
    }

    fn scheduler(&self) -> Scheduler {
        let InForce { outbound, running, evidence, .. } = &*self.in_force;
        let (outbound, running) = (Arc::clone(outbound), running.clone());
        let observer = metrics::observer(self.in_force.monitor.clone(), Arc::clone(&self.observer));
        Scheduler::new(Arc::clone(&self.spool) as _, evidence.clone(), outbound, running, observer)
    }

    fn admin(&self, operator: Operator) -> admin::AdminState {
        let InForce { outbound, running, monitor, .. } = &*self.in_force;
        let (spool, running) = (Arc::clone(&self.spool) as _, running.clone());
        let (dns, since) = (running.load().router.dns().clone(), jiff::Timestamp::now());
        let known = (outbound.discovery(), outbound.hellos());
        let watched = (monitor.clone(), self.clients.clone());
        admin::AdminState::new(spool, operator, known, dns, running, watched, since)
    }

    /// What is done from time to time. These never end by themselves; without them certificates and policies would
    /// grow old in silence.
    fn periodic_tasks(&self) -> JoinSet<()> {
        let mut periodic_tasks = JoinSet::new();
        periodic_tasks.spawn(watch(Arc::clone(&self.in_force)));
        periodic_tasks.spawn(metrics::round(Arc::clone(&self.in_force), self.clients.clone()));
        let policies = self.in_force.outbound.discovery().mta_sts().clone();
        periodic_tasks.spawn(async move { policies.keep_fresh().await });
        periodic_tasks
    }

    fn listen(&self, sockets: Bound, accepted: mpsc::Sender<crate::spool::Entry>) -> JoinSet<()> {
        let running = self.in_force.running.clone();
        let inbound = Inbound::new(running, Arc::clone(&self.spool) as _, accepted);
        let inbound = inbound.monitored(self.in_force.monitor.clone()).with_clients(self.clients.clone());
        let inbound = Arc::new(inbound);
        let mut listeners = JoinSet::new();
        for (name, sockets) in sockets {
            listeners.spawn(inbound::serve(Arc::clone(&inbound), name, sockets, self.stop.clone()));
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

/// Takes up renewed certificates, as ACME clients leave them, without a restart; and says when a connector's
/// exception has ended.
async fn watch(in_force: Arc<InForce>) {
    let mut ended = AnnouncedExpiries::default();
    loop {
        ended.tell(&in_force.config().connectors, jiff::Timestamp::now());
        tokio::time::sleep(WATCH).await;
        let tls = in_force.tls();
        let result = match tokio::task::spawn_blocking(move || tls.refresh()).await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "our certificates could not be looked at; it is tried again in a minute");
                continue;
            }
        };
        match result {
            Ok(replaced) => {
                for identity in replaced {
                    tracing::info!(
                        file = %identity.file.display(), names = identity.names.join(" "), expires = %identity.not_after,
                        "certificate replaced"
                    );
                }
            }
            Err(faults) => {
                for fault in faults {
                    tracing::error!(place = %fault.location, remedy = %fault.remedy, "certificate not replaced, the old one stays: {}", fault.message);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_start_is_worth_it_where_only_the_surroundings_are_at_fault() {
        let text = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n\
                    [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n";
        let (config, _) = config::parse(text, std::path::Path::new("gatepost.toml")).expect("a good configuration");
        let system = || Some(DnsError::SystemConfiguration("no nameservers".to_owned()));
        let start = unusable(Vec::new(), system(), &config.dns);
        assert!(matches!(&start, StartError::Now(faults) if faults.len() == 1), "{start}");
        let fault = DnsError::Library("of ours".to_owned()).fault(&config.dns);
        let start = unusable(vec![fault], system(), &config.dns);
        assert!(matches!(&start, StartError::Faults(faults) if faults.len() == 2), "{start}");
        let elsewhere = Some(DnsError::NotLoopback([192, 0, 2, 1].into()));
        assert!(matches!(unusable(Vec::new(), elsewhere, &config.dns), StartError::Faults(_)));
    }
}
