//! Makes connections to the database: to the first host that can be written.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::Connect;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, Socket};

use super::error::reason;
use super::tls::{DatabaseTlsClient, VerifiedStream};
use crate::net::secret::{SecretFile, first_line};

/// The routine of the server that waits for synchronous standbys. A notice of it says that somebody
/// ended the wait: the commit is on one disk alone, which is not what its client is promised.
const WAIT_FOR_STANDBY: &str = "SyncRepWaitForLSN";

/// A host of the database.
#[derive(Clone)]
pub(super) struct HostSettings {
    /// The host as it is shown.
    pub(super) name: String,
    /// The settings of connections to it, without a password.
    pub(super) config: Config,
    /// The TLS, if it is demanded.
    pub(super) tls: DatabaseTlsClient,
}

/// The reasons of the last try why no host let us in.
#[derive(Debug, Clone, Default)]
pub(super) struct HostFailures(Arc<Mutex<Vec<String>>>);

impl HostFailures {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the reasons, separated by semicolons; `None` if none is known.
    pub(super) fn text(&self) -> Option<String> {
        let failures = self.lock();
        (!failures.is_empty()).then(|| failures.join("; "))
    }
}

/// Makes connections.
pub(super) struct DatabaseConnector {
    hosts: Vec<HostSettings>,
    password: Option<Arc<SecretFile>>,
    /// The time for one host, so that one that hangs does not keep the next from being tried.
    host_time: Duration,
    failures: HostFailures,
}

impl fmt::Debug for DatabaseConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.hosts.iter().map(|host| &host.name).collect();
        f.debug_struct("DatabaseConnector")
            .field("hosts", &names)
            .finish_non_exhaustive()
    }
}

/// A connection with the task that runs it.
type Connected = (Client, JoinHandle<()>);

impl Connect for DatabaseConnector {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<Connected, Error>> + Send + '_>> {
        Box::pin(self.connect_to_any())
    }
}

impl DatabaseConnector {
    pub(super) fn new(
        hosts: Vec<HostSettings>,
        password: Option<Arc<SecretFile>>,
        host_time: Duration,
    ) -> Self {
        Self {
            hosts,
            password,
            host_time,
            failures: HostFailures::default(),
        }
    }

    /// The failures of the last try.
    pub(super) fn failures(&self) -> HostFailures {
        self.failures.clone()
    }

    /// The time in which all hosts are tried.
    pub(super) fn total_time(&self) -> Duration {
        let hosts = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        self.host_time.saturating_mul(hosts) + Duration::from_millis(100)
    }

    /// Tries the hosts in their order.
    async fn connect_to_any(&self) -> Result<Connected, Error> {
        let password = self.password().await;
        let (mut failures, mut last) = (Vec::new(), None);
        for host in &self.hosts {
            let attempt = connect_to(host, password.as_deref());
            let why = match timeout(self.host_time, attempt).await {
                Ok(Ok(connected)) => {
                    self.failures.lock().clear();
                    return Ok(connected);
                }
                Ok(Err(error)) => {
                    let why = reason(&error);
                    last = Some(error);
                    why
                }
                Err(_) => format!("no answer within {} s", self.host_time.as_secs()),
            };
            failures.push(format!("{}: {why}", host.name));
        }
        *self.failures.lock() = failures;
        match last {
            Some(error) => Err(error),
            // No host gave an error that could be returned, and the limit of the pool, which is our
            // total time, has just come.
            None => std::future::pending().await,
        }
    }

    /// Reads the password, which may have been changed. If it cannot be read any more, the old one is
    /// used.
    async fn password(&self) -> Option<Arc<zeroize::Zeroizing<String>>> {
        let file = self.password.as_ref()?;
        let reading = Arc::clone(file);
        if let Ok(Err(fault)) = tokio::task::spawn_blocking(move || reading.refresh()).await {
            tracing::warn!(
                place = %fault.location,
                remedy = %fault.remedy,
                "{}; the password of the database stays as it was",
                fault.message
            );
        }
        Some(file.text())
    }
}

async fn connect_to(
    host: &HostSettings,
    password: Option<&zeroize::Zeroizing<String>>,
) -> Result<Connected, Error> {
    let mut config = host.config.clone();
    if let Some(password) = password {
        config.password(first_line(password));
    }
    let (client, connection) = config.connect(host.tls.clone()).await?;
    let task = tokio::spawn(run(connection, host.name.clone()));
    Ok((client, task))
}

/// Runs a connection to its end. What waits for answers then fails, with an unknown outcome.
async fn run(mut connection: Connection<Socket, VerifiedStream<Socket>>, host: String) {
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            None => return,
            Some(Err(error)) => {
                tracing::debug!(%host, error = reason(&error), "connection to the database ended");
                return;
            }
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!(%host, notice = notice.message(), "notice of the database");
                if notice.routine() == Some(WAIT_FOR_STANDBY) {
                    tracing::warn!(
                        %host,
                        "somebody canceled the wait of a commit for its standby; treating its outcome as unknown"
                    );
                    return;
                }
            }
            Some(Ok(_)) => {}
        }
    }
}
