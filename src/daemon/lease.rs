//! Keeps the lease of the spool, and logs when it is over.
//!
//! The spool and its users act on the lease by themselves; here it is only renewed in time, by a clock
//! that counts through suspend.

use std::sync::Arc;
use std::time::Duration;

use crate::storage::spool::{BootTime, HeldLease, Lease, Spool, SpoolError};

/// The interval at which the lease is renewed. A short lease is renewed at a sixth of its time.
const RENEWAL: Duration = Duration::from_secs(5);
/// The longest interval of checks for the end of the lease and for the next renewal: timers stand still
/// while the system is suspended.
const CHECK: Duration = Duration::from_secs(1);

/// Renews the lease for as long as the daemon runs. `lease_time` is the time for which it holds after
/// each renewal, if it has an end. A renewal that takes long is waited for, so that
/// those of a disk that hangs do not pile up.
pub(super) async fn keep(spool: Arc<dyn Spool>, lease_time: Option<Duration>) {
    let interval = renewal_interval(lease_time);
    let lease = spool.lease();
    let mut logged = LeaseLog::default();
    loop {
        let due = BootTime::now() + interval;
        let mut renewal = spool.renew();
        let mut is_over = false;
        while !is_over || BootTime::now() < due {
            tokio::select! {
                renewed = &mut renewal, if !is_over => {
                    logged.log_renewal(&renewed);
                    is_over = true;
                }
                () = tokio::time::sleep(CHECK.min(interval)) => {}
            }
            logged.log_state(&lease);
        }
    }
}

fn renewal_interval(lease_time: Option<Duration>) -> Duration {
    lease_time.map_or(RENEWAL, |time| (time / 6).min(RENEWAL))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_lease_is_renewed_six_times_in_its_time() {
        for (lease, interval) in [
            (None, 5_000),
            (Some(3), 500),
            (Some(30), 5_000),
            (Some(600), 5_000),
        ] {
            let found = renewal_interval(lease.map(Duration::from_secs));
            assert_eq!(found, Duration::from_millis(interval), "{lease:?}");
        }
    }
}
