//! The database of a configuration, with the files that it names.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio_postgres::Config as LibraryConfig;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};

use super::connect::{DatabaseConnector, HostSettings};
use super::connections::Database;
use super::error::DatabaseError;
use super::session::SessionTimes;
use super::tls::DatabaseTlsClient;
use crate::config::{Config, DatabaseConfig, DatabaseHost, Fault};
use crate::net::secret::{SecretFile, SecretKind, first_line};
use crate::net::tls_io::TlsMaterial;
use crate::smtp::address::Host;

/// The longest name of an application in octets: the server cuts longer ones off.
const APPLICATION_MAX: usize = 63;
/// The password of a role.
const PASSWORD: SecretKind = SecretKind {
    name: "the password of the database",
    check: |text| match first_line(text) {
        "" => Err("has no password".to_owned()),
        _ => Ok(()),
    },
};

/// A database with its password and its trust anchors, as their files are.
pub struct DatabaseAccess {
    config: DatabaseConfig,
    password: Option<Arc<SecretFile>>,
    tls: Option<DatabaseTlsClient>,
}

impl fmt::Debug for DatabaseAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the password.
        f.debug_struct("DatabaseAccess")
            .field("url", &self.config.url.value)
            .finish_non_exhaustive()
    }
}

impl DatabaseAccess {
    /// Reads the password and the trust anchors of the database, if the configuration has one. Returns
    /// warnings with them. Blocks.
    ///
    /// # Errors
    /// All faults of the files.
    pub fn load(config: &Config) -> Result<(Option<Self>, Vec<Fault>), Vec<Fault>> {
        let Some(database) = &config.database else {
            return Ok((None, Vec::new()));
        };
        let (mut warnings, mut faults) = (Vec::new(), Vec::new());
        let mut password = None;
        if let Some(place) = &database.password_file {
            match SecretFile::load(place, PASSWORD) {
                Ok((file, warning)) => {
                    password = Some(Arc::new(file));
                    warnings.extend(warning);
                }
                Err(fault) => faults.push(fault),
            }
        }
        let mut tls = None;
        if database.url.value.uses_tls() {
            match TlsMaterial::load_directory(&config.tls, &database.trust) {
                Ok((client, more)) => {
                    tls = Some(DatabaseTlsClient::new(client));
                    warnings.extend(more);
                }
                Err(more) => faults.extend(more),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let config = database.clone();
        let access = Self {
            config,
            password,
            tls,
        };
        Ok((Some(access), warnings))
    }

    /// Creates the connections, none of which is made yet.
    ///
    /// # Errors
    /// [`DatabaseError::Setup`] if no runtime for timers is there.
    pub fn database(&self) -> Result<Database, DatabaseError> {
        let times = SessionTimes::of(self.config.lease);
        let hosts = &self.config.url.value.hosts;
        let hosts = hosts.iter().map(|host| self.settings(host, times));
        let connector =
            DatabaseConnector::new(hosts.collect(), self.password.clone(), times.connect);
        Database::connected_by(connector, times)
    }

    /// Returns the settings of connections to one host.
    fn settings(&self, host: &DatabaseHost, times: SessionTimes) -> HostSettings {
        let url = &self.config.url.value;
        let mut config = LibraryConfig::new();
        match host {
            DatabaseHost::Network { host, port } => config.host(plain(host)).port(*port),
            DatabaseHost::Socket { folder, port } => config.host_path(folder).port(*port),
        };
        let mut application = format!("gatepost {}", self.config.node.value);
        // The name of a host is ASCII, as is that of a node.
        application.truncate(APPLICATION_MAX);
        config
            .user(&url.user)
            .dbname(&url.database)
            .application_name(application)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        times.apply(&mut config);
        let tls = self.tls.clone().filter(|_| url.needs_tls(host));
        config.ssl_mode(match tls {
            Some(_) => SslMode::Require,
            None => SslMode::Disable,
        });
        HostSettings {
            name: host.to_string(),
            config,
            tls: tls.unwrap_or_else(DatabaseTlsClient::none),
        }
    }
}

/// Returns a host without the brackets of an address literal.
fn plain(host: &Host) -> String {
    match host {
        Host::Domain(name) => name.to_string(),
        Host::Literal(IpAddr::V4(address)) => address.to_string(),
        Host::Literal(IpAddr::V6(address)) => address.to_string(),
    }
}
