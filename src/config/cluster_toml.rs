//! The `[spool]` and `[cluster]` tables.

use std::path::PathBuf;
use std::time::Duration;

use super::database_url::{DatabaseUrl, DatabaseUrlError};
use super::fault_list::FaultList;
use super::reader::{Field, TableReader, TomlValue};
use super::secret_place::secret_place;
use super::settings::{DatabaseConfig, TlsConfig};
use super::spelling::shorten;
use super::values::{duration, path, text, trust};
use crate::policy::connector::{SecretPlace, TrustSource};
use crate::policy::location::{Located, Location};
use crate::smtp::address::Domain;

/// The default of `[spool] path`.
const SPOOL: &str = "/var/spool/gatepost";
/// The default of `[cluster] lease`.
const LEASE: Duration = Duration::from_secs(30);
const SHORTEST_LEASE: Duration = Duration::from_secs(3);
const LONGEST_LEASE: Duration = Duration::from_mins(10);
/// The most characters in the name of a node: with "gatepost " it is the application name of its
/// connections, of which PostgreSQL keeps 63.
const NODE_MAX: usize = 54;

/// The keys of `[spool]` and of `[cluster]`, as written.
pub(super) struct SpoolToml {
    location: Location,
    cluster: ClusterToml,
    path: Field<PathBuf>,
    url: Field<DatabaseUrl>,
    password_file: Field<SecretPlace>,
    trust: Field<TrustSource>,
}

/// The keys of `[cluster]`, as written.
struct ClusterToml {
    /// The place of the table, if it is there.
    location: Option<Location>,
    node: Field<String>,
    lease: Field<Duration>,
}

impl SpoolToml {
    /// Reads both tables, and checks their keys against each other.
    pub(super) fn read(root: &mut TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let mut table = root.table(faults, "spool", "[spool]");
        let spool = Self {
            location: table.location().clone(),
            cluster: ClusterToml::read(root.table(faults, "cluster", "[cluster]"), faults),
            path: table.read(faults, "path", path),
            url: table.read(faults, "url", url),
            password_file: table.read(faults, "password_file", secret_place),
            trust: table.read(faults, "trust", trust),
        };
        table.finish(faults);
        spool.check(faults);
        spool
    }

    fn check(&self, faults: &mut FaultList<'_>) {
        if self.url.is_absent() {
            let password = self.password_file.located().map(|it| &it.location);
            let trust = self.trust.located().map(|it| &it.location);
            for (key, location) in [("password_file", password), ("trust", trust)] {
                if let Some(location) = location {
                    faults.add(
                        location,
                        format!("{key} has no use in [spool] without url"),
                        "Add url = \"postgresql://…\" to keep the queue in a database, or remove it.",
                    );
                }
            }
            if let Some(location) = &self.cluster.location {
                faults.add(
                    location,
                    "[cluster] has no use without [spool] url: the queue is in the folder of this relay alone",
                    "Add to [spool]: url = \"postgresql://gatepost@db.example.com/gatepost\", or remove [cluster].",
                );
            }
        }
        if let (Some(url), Some(trust)) = (self.url.value(), self.trust.located())
            && !url.uses_tls()
        {
            faults.add(
                &trust.location,
                "trust has no use: the database is on this machine, without TLS",
                "Remove it, or add sslmode=verify-full to the URL.",
            );
        }
    }

    /// Returns the folder, and the database if there is one. The name of the node is that of the host
    /// by default.
    pub(super) fn resolve(
        self,
        hostname: &Domain,
        tls: &TlsConfig,
    ) -> (Located<PathBuf>, Option<DatabaseConfig>) {
        let database = self.url.located().map(|url| DatabaseConfig {
            url: url.clone(),
            password_file: self.password_file.located().cloned(),
            trust: self.trust.located().unwrap_or(&tls.trust).clone(),
            node: self
                .cluster
                .node
                .located()
                .cloned()
                .unwrap_or_else(|| Located {
                    value: hostname.to_string(),
                    location: url.location.clone(),
                }),
            lease: self.cluster.lease.value().copied().unwrap_or(LEASE),
        });
        let default = || Located {
            value: SPOOL.into(),
            location: self.location.clone(),
        };
        let folder = self.path.located().cloned().unwrap_or_else(default);
        (folder, database)
    }
}

impl ClusterToml {
    fn read(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let cluster = Self {
            location: (!table.is_absent()).then(|| table.location().clone()),
            node: table.read(faults, "node", node),
            lease: table.read(faults, "lease", lease),
        };
        table.finish(faults);
        cluster
    }
}

/// Reads the URL of a database. Faults do not repeat it, since they are logged and it may have a
/// password.
fn url(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<DatabaseUrl> {
    match DatabaseUrl::parse(text(value, faults)?) {
        Ok(url) => Some(url),
        Err(error) => {
            let message = match error {
                DatabaseUrlError::Scheme => {
                    "url is not the URL of a PostgreSQL database: it does not begin with postgresql://"
                        .to_owned()
                }
                _ => format!("url cannot be used: {error}"),
            };
            faults.add(&value.location, message, error.remedy());
            None
        }
    }
}

/// Reads the name of a node.
fn node(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<String> {
    let name = text(value, faults)?;
    let is_name = (1..=NODE_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if is_name {
        return Some(name.to_owned());
    }
    faults.add(
        &value.location,
        format!("node: \"{}\" is not the name of a node", shorten(name)),
        format!(
            "Write 1 to {NODE_MAX} letters, digits, dots, dashes and underscores, such as \"relay-1\"."
        ),
    );
    None
}

/// Reads the lease.
fn lease(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Duration> {
    let lease = duration(value, faults)?;
    let (why, remedy) = if lease < SHORTEST_LEASE {
        (
            "is too short: one slow answer of the database would end the lease, and others would take the node for dead",
            "Write \"3s\" at least; the default is \"30s\".",
        )
    } else if lease > LONGEST_LEASE {
        (
            "is too long: the mail of a node that dies would wait for that time",
            "Write \"10m\" at most; the default is \"30s\".",
        )
    } else {
        return Some(lease);
    };
    faults.add(&value.location, format!("lease {why}"), remedy);
    None
}
