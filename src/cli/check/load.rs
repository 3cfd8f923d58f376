//! Reads a configuration and every file that it names.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

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

/// A configuration, and what the files that it names contain.
pub(super) struct LoadedConfig {
    pub(super) config: Config,
    pub(super) identities: Vec<IdentitySummary>,
    pub(super) crls: Vec<CrlFileSummary>,
    pub(super) submitter: Submitter,
    pub(super) recipients: Arc<RecipientTables>,
    pub(super) warnings: Vec<Fault>,
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
        logins,
    );
    let (
        (material, material_warnings),
        (submitter, submitter_warnings),
        (recipients, table_warnings),
        login_warnings,
    ) = match loaded {
        (Ok(material), Ok(_), Ok(submitter), Ok(_), Ok(recipients), Ok((_, warnings))) => {
            (material, submitter, recipients, warnings)
        }
        (material, dns, submitter, users, recipients, logins) => {
            let faults = material
                .err()
                .into_iter()
                .flatten()
                .chain(dns.err())
                .chain(submitter.err())
                .chain(users.err().into_iter().flatten())
                .chain(recipients.err().into_iter().flatten())
                .chain(logins.err().into_iter().flatten());
            return Err(faults.collect());
        }
    };
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
