//! Reads a configuration and every file that it names.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cli::runtime;
use crate::config::{self, Config, Connector, Fault};
use crate::net::dns::Dns;
use crate::net::oauth::TokenCaches;
use crate::net::revocation::CrlFileSummary;
use crate::net::tls_io::{IdentitySummary, TlsMaterial};
use crate::policy::connector::ended_exception;
use crate::relay::recipient_tables::RecipientTables;
use crate::relay::smart_host_logins::SmartHostLogins;
use crate::relay::tlsrpt::Submitter;
use crate::relay::users::UserStore;
use crate::storage::postgresql::{
    DatabaseAccess, DatabaseDurability, DatabaseError, read_durability,
};

/// A configuration, and what the files that it names contain.
pub(super) struct LoadedConfig {
    pub(super) config: Config,
    pub(super) identities: Vec<IdentitySummary>,
    pub(super) crls: Vec<CrlFileSummary>,
    pub(super) submitter: Submitter,
    pub(super) recipients: Arc<RecipientTables>,
    pub(super) warnings: Vec<Fault>,
    database: Option<DatabaseAccess>,
    /// The durability of the database, if it has been reached.
    pub(super) durability: Option<DatabaseDurability>,
}

impl LoadedConfig {
    /// Asks the database, if there is one, for the durability of commits. That it cannot be reached
    /// from here is a warning.
    ///
    /// # Errors
    /// The fault of a database with which the daemon would not start.
    pub(super) fn ask_database(mut self) -> Result<Self, Vec<Fault>> {
        let (Some(access), Some(settings)) = (&self.database, &self.config.database) else {
            return Ok(self);
        };
        let location = settings.url.location.clone();
        let fault = |error: &DatabaseError, remedy: &str| Fault {
            location: location.clone(),
            message: error.to_string(),
            remedy: remedy.to_owned(),
        };
        let asked = runtime::single_threaded()
            .map(|runtime| runtime.block_on(async { read_durability(&access.database()?).await }));
        match asked {
            Ok(Ok(durability)) => {
                if let Err(error @ DatabaseError::Unfit(_)) = durability.check(false) {
                    let remedy = "The daemon does not start with this database.";
                    return Err(vec![fault(&error, remedy)]);
                }
                let warnings = durability.warnings();
                let warnings = warnings.into_iter().map(|(message, remedy)| Fault {
                    location: location.clone(),
                    message: message.to_owned(),
                    remedy: format!("{}.", capitalized(remedy)),
                });
                self.warnings.extend(warnings);
                self.durability = Some(durability);
            }
            Ok(Err(error)) => {
                let remedy =
                    "If the daemon is to reach it from here, as its own user, see that it can.";
                self.warnings.push(fault(&error, remedy));
            }
            // The rest of the configuration has been checked.
            Err(error) => eprintln!("gatepost check: the database was not asked: {error}"),
        }
        Ok(self)
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// Reads a configuration and the files that it names.
pub(super) fn load(file: &Path) -> Result<LoadedConfig, Vec<Fault>> {
    let (config, mut warnings) = config::read(file)?;
    let dns = Dns::new(&config.dns).map_err(|error| error.fault(&config.dns));
    let logins = match &dns {
        Ok(dns) => SmartHostLogins::load(&config, dns, &TokenCaches::default()),
        Err(_) => Ok((Arc::default(), Vec::new())),
    };
    let loaded = (
        TlsMaterial::load(&config),
        dns,
        Submitter::load(&config.tlsrpt),
        UserStore::load(&config),
        RecipientTables::load(&config),
        (logins, DatabaseAccess::load(&config)),
    );
    let (
        (material, material_warnings),
        (submitter, submitter_warnings),
        (recipients, table_warnings),
        (mut login_warnings, database),
    ) = match loaded {
        (
            Ok(material),
            Ok(_),
            Ok(submitter),
            Ok(_),
            Ok(recipients),
            (Ok((_, logins)), Ok(database)),
        ) => (material, submitter, recipients, (logins, database)),
        (material, dns, submitter, users, recipients, (logins, database)) => {
            let faults = material
                .err()
                .into_iter()
                .flatten()
                .chain(dns.err())
                .chain(submitter.err())
                .chain(users.err().into_iter().flatten())
                .chain(recipients.err().into_iter().flatten())
                .chain(logins.err().into_iter().flatten())
                .chain(database.err().into_iter().flatten());
            return Err(faults.collect());
        }
    };
    let (database, database_warnings) = database;
    login_warnings.extend(database_warnings);
    warnings.extend(material_warnings.into_iter().chain(submitter_warnings));
    warnings.extend(table_warnings.into_iter().chain(login_warnings));
    let now = Timestamp::now();
    warnings.extend(
        config
            .connectors
            .iter()
            .filter_map(|connector| ended_exception_warning(connector, now)),
    );
    let warnings = config::merge_warnings(warnings);
    Ok(LoadedConfig {
        identities: material.identities(),
        crls: material.crl_files(),
        config,
        submitter,
        recipients,
        warnings,
        database,
        durability: None,
    })
}

/// Returns a warning if the connector has an exception that has ended.
fn ended_exception_warning(connector: &Connector, now: Timestamp) -> Option<Fault> {
    ended_exception(connector, now).map(|exception| Fault {
        location: exception.location.clone(),
        message: format!(
            "the exception of the connector \"{}\" ended on {} ({})",
            connector.name, exception.until, exception.reason
        ),
        remedy: "The connector's own demand is in force again. Remove the exception, or set a later day.".to_owned(),
    })
}
