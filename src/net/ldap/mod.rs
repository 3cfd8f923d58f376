//! Searches in LDAP directories (RFC 4511): does an entry for an address exist?
//!
//! A client of our own, for three reasons: the certificate is judged as everywhere, against `trust`
//! of the table; names are looked up by our resolver; and what the server sends is bounded. It
//! knows bind, search and STARTTLS. Referrals are not followed.

mod connection;
mod error;
mod message;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::{Instant, timeout};

use crate::config::{Fault, Located};
use crate::net::dns::Dns;
use crate::net::tls_io::{ClientTls, key_warning};
use crate::policy::directory::{DirectoryRules, DirectoryUrl};
use crate::smtp::address::Mailbox;
use connection::LdapConnection;
pub use error::{DirectoryError, LdapError};

/// The time limit of a new connection, with all addresses, TLS and the login.
const SESSION_TIME: Duration = Duration::from_secs(8);
/// The most connections that are kept.
const IDLE_MAX: usize = 4;
/// The time for which a connection is kept.
const IDLE_TIME: Duration = Duration::from_mins(1);
/// The longest password in octets.
const PASSWORD_MAX: usize = 1024;

/// A directory that is searched, with the connections that are kept.
pub struct Directory {
    rules: DirectoryRules,
    tls: ClientTls,
    password: ArcSwapOption<String>,
    idle: Mutex<Vec<(Instant, LdapConnection)>>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password.
        f.debug_struct("Directory")
            .field("url", &self.rules.url.value)
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// Prepares a directory: reads the password. `tls` has the trust anchors of the table. Returns
    /// a warning if others can read the password.
    ///
    /// # Errors
    /// The fault of the password file.
    pub fn load(rules: &DirectoryRules, tls: ClientTls) -> Result<(Self, Option<Fault>), Fault> {
        let (password, warning) = match &rules.login {
            Some(login) => {
                let password = read_password(&login.password_file)?;
                let warning = key_warning(&login.password_file).map(|fault| Fault {
                    message: fault.message.replace("a private key", "a password"),
                    ..fault
                });
                (Some(Arc::new(password)), warning)
            }
            None => (None, None),
        };
        let directory = Self {
            rules: rules.clone(),
            tls,
            password: ArcSwapOption::new(password),
            idle: Mutex::default(),
        };
        Ok((directory, warning))
    }

    /// The server.
    #[must_use]
    pub fn url(&self) -> &DirectoryUrl {
        &self.rules.url.value
    }

    /// Reads the password again. This reads a file and blocks.
    ///
    /// # Errors
    /// The fault of the password file; the old password stays in use.
    pub fn refresh(&self) -> Result<(), Fault> {
        if let Some(login) = &self.rules.login {
            let password = read_password(&login.password_file)?;
            self.password.store(Some(Arc::new(password)));
        }
        Ok(())
    }

    /// Searches for a mailbox, and with `plus_tags`, if it is not found, for that without its tag.
    /// The caller limits the time.
    ///
    /// # Errors
    /// [`DirectoryError`] if there is no answer.
    pub async fn has(
        &self,
        dns: &Dns,
        mailbox: &Mailbox,
        plus_tags: bool,
    ) -> Result<bool, DirectoryError> {
        while let Some(mut connection) = self.take() {
            match self.search(&mut connection, mailbox, plus_tags).await {
                Ok(found) => {
                    self.keep(connection);
                    return Ok(found);
                }
                // A new connection shows whether the server hangs, or is slow with this search.
                Err(LdapError::Timeout { .. }) => break,
                // The server may close a connection that is idle, or restart.
                Err(_) => {}
            }
        }
        let mut connection = self.open(dns).await.map_err(DirectoryError::Session)?;
        let found = self.search(&mut connection, mailbox, plus_tags).await;
        let found = found.map_err(DirectoryError::Search)?;
        self.keep(connection);
        Ok(found)
    }

    async fn search(
        &self,
        connection: &mut LdapConnection,
        mailbox: &Mailbox,
        plus_tags: bool,
    ) -> Result<bool, LdapError> {
        let (base, filter) = (&self.rules.base, &self.rules.filter);
        if connection.search(base, filter, mailbox).await? {
            return Ok(true);
        }
        match mailbox.without_tag().filter(|_| plus_tags) {
            Some(untagged) => connection.search(base, filter, &untagged).await,
            None => Ok(false),
        }
    }

    /// Connects and logs in. The time limit is short enough for the search after it.
    async fn open(&self, dns: &Dns) -> Result<LdapConnection, LdapError> {
        let opening = async {
            let url = &self.rules.url.value;
            let mut connection = LdapConnection::open(url, &self.tls, dns).await?;
            if let (Some(login), Some(password)) = (&self.rules.login, self.password.load_full()) {
                connection.bind(&login.bind_dn, &password).await?;
            }
            Ok(connection)
        };
        let late = LdapError::Timeout {
            step: "the connection and the login",
            limit: SESSION_TIME,
        };
        timeout(SESSION_TIME, opening).await.unwrap_or(Err(late))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Instant, LdapConnection)>> {
        // No code panics while it holds the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<LdapConnection> {
        let mut idle = self.idle();
        idle.retain(|(since, _)| since.elapsed() < IDLE_TIME);
        idle.pop().map(|(_, connection)| connection)
    }

    fn keep(&self, connection: LdapConnection) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push((Instant::now(), connection));
        }
    }
}

/// Reads a password: the first line of a file. An empty password would make an anonymous login of it
/// (RFC 4513 §5.1.2).
fn read_password(file: &Located<std::path::PathBuf>) -> Result<String, Fault> {
    let fault = |message: String, remedy: &str| Fault {
        location: file.location.clone(),
        message,
        remedy: remedy.to_owned(),
    };
    let path: &Path = &file.value;
    let text = std::fs::read_to_string(path).map_err(|error| {
        fault(
            format!("{} cannot be read: {error}", path.display()),
            "Let the user gatepost read it, and nobody else.",
        )
    })?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() || password.len() > PASSWORD_MAX {
        return Err(fault(
            format!("{} has no password", path.display()),
            "Write the password on the first line.",
        ));
    }
    Ok(password.to_owned())
}
