//! Searches in LDAP directories (RFC 4511): does an entry for an address exist?
//!
//! A client of our own, for three reasons: the certificate is judged as everywhere, against `trust`
//! of the table; names are looked up by our resolver; and what the server sends is bounded. It
//! knows bind, search and STARTTLS. Referrals are not followed.

mod connection;
mod error;
mod message;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::config::{Fault, Located, SecretPlace};
use crate::net::dns::Dns;
use crate::net::secret::{SecretFile, SecretKind, first_line};
use crate::net::tls_io::ClientTls;
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
/// The password of a bind.
const PASSWORD: SecretKind = SecretKind {
    name: "a password",
    check: check_password,
};

/// A directory that is searched, with the connections that are kept.
pub struct Directory {
    rules: DirectoryRules,
    tls: ClientTls,
    password: Option<SecretFile>,
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
                let place = Located {
                    value: SecretPlace::File(login.password_file.value.clone()),
                    location: login.password_file.location.clone(),
                };
                let (password, warning) = SecretFile::load(&place, PASSWORD)?;
                (Some(password), warning)
            }
            None => (None, None),
        };
        let directory = Self {
            rules: rules.clone(),
            tls,
            password,
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
    /// The fault of the password file, once; the old password stays in use.
    pub fn refresh(&self) -> Result<(), Fault> {
        match &self.password {
            Some(password) => password.refresh().map(|_| ()),
            None => Ok(()),
        }
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
            if let (Some(login), Some(password)) = (&self.rules.login, &self.password) {
                let password = password.text();
                let password = first_line(&password);
                connection.bind(&login.bind_dn, password).await?;
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

/// Returns why a text is no password. An empty one would make an anonymous login of a bind (RFC 4513
/// §5.1.2).
fn check_password(text: &str) -> Result<(), String> {
    match first_line(text).len() {
        0 => Err("has no password on its first line".to_owned()),
        1..=PASSWORD_MAX => Ok(()),
        _ => Err(format!(
            "has a password that is longer than {PASSWORD_MAX} octets"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_of_a_bind_is_neither_empty_nor_endless() {
        for (text, is_password) in [
            ("secret", true),
            ("secret\r\na note\n", true),
            ("", false),
            ("\nsecret\n", false),
        ] {
            assert_eq!(check_password(text).is_ok(), is_password, "{text:?}");
        }
        for (length, is_password) in [(PASSWORD_MAX, true), (PASSWORD_MAX + 1, false)] {
            assert_eq!(check_password(&"x".repeat(length)).is_ok(), is_password);
        }
    }
}
