//! The watch over files that are renewed while the daemon runs: certificates, users, secrets and CRLs;
//! and over exceptions that expire.

use std::sync::Arc;
use std::time::Duration;

use super::crl_expiry::{CrlExpiries, WatchedCrl};
use super::exceptions::AnnouncedExpiries;
use super::reload::ConfiguredServices;

/// The interval at which our certificate files are checked for changes, and exceptions for their
/// expiry.
const WATCH_INTERVAL: Duration = Duration::from_mins(1);
/// The interval of the check of CRL files.
const CRL_INTERVAL: Duration = Duration::from_secs(20);

/// Loads renewed certificates, as ACME clients write them, without a restart, and logs exceptions
/// that have expired.
pub(super) async fn watch_certificates(configured: Arc<ConfiguredServices>) {
    let mut expiries = AnnouncedExpiries::default();
    loop {
        expiries.log_expired(&configured.config().connectors, jiff::Timestamp::now());
        tokio::time::sleep(WATCH_INTERVAL).await;
        refresh_users(&configured).await;
        refresh_recipients(&configured).await;
        refresh_logins(&configured).await;
        let tls = configured.tls();
        let result = match tokio::task::spawn_blocking(move || tls.refresh()).await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "cannot check our certificates; retrying in a minute");
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
                    tracing::error!(place = %fault.location, remedy = %fault.remedy, "certificate not replaced; the old one stays in use: {}", fault.message);
                }
            }
        }
    }
}

/// Reads the users again if their file has changed.
async fn refresh_users(configured: &ConfiguredServices) {
    let users = Arc::clone(&configured.running.load().users);
    match tokio::task::spawn_blocking(move || users.refresh()).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(count))) => tracing::info!(count, "users replaced"),
        Ok(Err(faults)) => {
            for fault in faults {
                tracing::error!(place = %fault.location, remedy = %fault.remedy, "users not replaced; the old ones stay in use: {}", fault.message);
            }
        }
        Err(error) => tracing::error!(%error, "cannot check the users; retrying in a minute"),
    }
}

/// Reads the secrets of logins at smart hosts again if their files have changed.
async fn refresh_logins(configured: &ConfiguredServices) {
    let logins = Arc::clone(configured.running.load().logins());
    let (replaced, faults) = match tokio::task::spawn_blocking(move || logins.refresh()).await {
        Ok(refreshed) => refreshed,
        Err(error) => {
            tracing::error!(%error, "cannot check the secrets of logins; retrying in a minute");
            return;
        }
    };
    for connector in replaced {
        tracing::info!(connector, "secret of the login at the smart host replaced");
    }
    for fault in faults {
        tracing::error!(place = %fault.location, remedy = %fault.remedy, "secret of a login not replaced; the old one stays in use: {}", fault.message);
    }
}

/// Reads the CRL files that have changed, so that a revoked certificate is refused within a minute.
pub(super) async fn watch_crls(configured: Arc<ConfiguredServices>) {
    let (mut reported, mut expiries) = (Vec::new(), CrlExpiries::default());
    loop {
        expiries.log(crls_in_use(&configured), jiff::Timestamp::now());
        tokio::time::sleep(CRL_INTERVAL).await;
        let running = configured.running.clone();
        let refresh = move || running.load().tls.refresh_crls();
        let (replaced, faults) = match tokio::task::spawn_blocking(refresh).await {
            Ok(refreshed) => refreshed,
            Err(error) => {
                tracing::error!(%error, "cannot check the CRL files; trying again");
                continue;
            }
        };
        for crl in replaced {
            tracing::info!(
                file = %crl.file.display(), issuer = crl.issuer, entries = crl.entries, next_update = %crl.next_update,
                "CRL replaced"
            );
        }
        for fault in faults.iter().filter(|fault| !reported.contains(*fault)) {
            tracing::error!(place = %fault.location, remedy = %fault.remedy, "CRL not replaced; the old one stays in use: {}", fault.message);
        }
        reported = faults;
    }
}

/// Returns the CRLs of files, and those of distribution points that sessions need.
fn crls_in_use(configured: &ConfiguredServices) -> Vec<WatchedCrl> {
    let running = configured.running.load();
    let files = running.tls.crl_files().into_iter().map(|crl| WatchedCrl {
        source: crl.file.display().to_string(),
        issuer: crl.issuer,
        this_update: crl.this_update,
        next_update: crl.next_update,
    });
    let points = running.points.summaries().into_iter();
    let points = points.filter(|point| point.is_used).filter_map(|point| {
        let crl = point.crl?;
        Some(WatchedCrl {
            source: point.url,
            issuer: crl.issuer,
            this_update: crl.this_update,
            next_update: crl.next_update,
        })
    });
    files.chain(points).collect()
}

/// Reads the lists of recipients again if their files have changed.
async fn refresh_recipients(configured: &ConfiguredServices) {
    let tables = Arc::clone(configured.running.load().recipients());
    let (replaced, faults) = match tokio::task::spawn_blocking(move || tables.refresh()).await {
        Ok(refreshed) => refreshed,
        Err(error) => {
            tracing::error!(%error, "cannot check the lists of recipients; retrying in a minute");
            return;
        }
    };
    for list in replaced {
        tracing::info!(
            file = %list.file.display(), addresses = list.addresses, domains = list.domains,
            "list of recipients replaced"
        );
    }
    for fault in faults {
        tracing::error!(place = %fault.location, remedy = %fault.remedy, "list of recipients not replaced; the old one stays in use: {}", fault.message);
    }
}
