//! Keeps the lease of the spool, and logs when it is over.
//!
//! The spool and its users act on the lease by themselves; here it is only renewed in time, by a clock
//! that counts through suspend.

use std::sync::Arc;
use std::time::Duration;

use crate::storage::spool::{BootTime, HeldLease, Lease, Spool, SpoolError};

/// The interval at which the lease is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
/// The interval of checks for the end of the lease and for the next renewal: timers stand still
/// while the system is suspended.
const CHECK: Duration = Duration::from_secs(1);

/// Renews the lease for as long as the daemon runs. A renewal that takes long is waited for, so that
/// those of a disk that hangs do not pile up.
pub(super) async fn keep(spool: Arc<dyn Spool>) {
    let lease = spool.lease();
    let mut logged = LeaseLog::default();
    loop {
        let due = BootTime::now() + RENEWAL;
        let mut renewal = spool.renew();
        let mut is_over = false;
        while !is_over || BootTime::now() < due {
            tokio::select! {
                renewed = &mut renewal, if !is_over => {
                    logged.log_renewal(&renewed);
                    is_over = true;
                }
                () = tokio::time::sleep(CHECK) => {}
            }
            logged.log_state(&lease);
        }
    }
}

/// The state of the lease that was logged last.
#[derive(Debug, Default)]
struct LeaseLog {
    is_lost: bool,
    /// True after a renewal that failed for another reason than the end of the lease.
    has_failed: bool,
}

impl LeaseLog {
    /// Logs a renewal that failed, once.
    fn log_renewal(&mut self, renewed: &Result<Lease, SpoolError>) {
        let failed = match renewed {
            Ok(_) | Err(SpoolError::NotOwner(_)) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = failed.filter(|_| !self.has_failed) {
            tracing::error!(%error, "cannot find out whether the spool is still this relay's; retrying");
        }
        self.has_failed = failed.is_some();
    }

    /// Logs that the lease is over, or that it holds again.
    fn log_state(&mut self, lease: &HeldLease) {
        match lease.check() {
            Err(error) if !self.is_lost => {
                tracing::error!(%error, "spool lost: new mail is rejected with 451 and no delivery starts");
                self.is_lost = true;
            }
            Ok(()) if self.is_lost => {
                tracing::info!(
                    "spool is this relay's again: mail is accepted and delivered as before"
                );
                self.is_lost = false;
            }
            Ok(()) | Err(_) => {}
        }
    }
}
