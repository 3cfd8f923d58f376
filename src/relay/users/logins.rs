//! Logins of all listeners: failures, and the checks of passwords.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnet::IpNet;
use jiff::Timestamp;

use super::failures::{FailedTooOften, LoginFailures};
use super::hourly::{HourlyLimitReached, HourlyRate, HourlyRates, LimitedUser};
use super::password_checks::PasswordChecks;
use super::store::fill;
use super::{CheckPermit, UserStore};
use crate::smtp::sasl::{PasswordLogin, prepare_name};

/// The size of our part of a nonce in octets.
const NONCE_SIZE: usize = 18;

/// The state about clients that log in. Clones share it.
#[derive(Debug, Clone)]
pub struct Logins(Arc<LoginState>);

#[derive(Debug)]
struct LoginState {
    start: Instant,
    failures: Mutex<LoginFailures>,
    hourly: Mutex<HourlyRates>,
    checks: PasswordChecks,
}

impl Default for Logins {
    fn default() -> Self {
        Self(Arc::new(LoginState {
            start: Instant::now(),
            failures: Mutex::default(),
            hourly: Mutex::default(),
            checks: PasswordChecks::default(),
        }))
    }
}

/// The result of a check of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginResult {
    /// The password is right.
    Right,
    /// The password is wrong, or there is no such user.
    Wrong,
    /// Too many passwords are being checked.
    Busy,
}

/// The limits that held a user back until it was released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasedUser {
    /// The limits of an hour that it had reached.
    pub limits: Vec<LimitedUser>,
    /// The number of failed logins, if they had reached their limit.
    pub failures: Option<u64>,
}

impl Logins {
    /// Checks the limits on failures before a login is checked.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn may_try(&self, client: IpAddr, name: &str) -> Result<(), FailedTooOften> {
        self.failures().check(client, name, self.0.start.elapsed())
    }

    /// Counts a failed login.
    pub fn failed(&self, client: IpAddr, name: &str) {
        self.failures().failed(client, name, self.0.start.elapsed());
    }

    /// Records a login.
    pub fn succeeded(&self, client: IpAddr, name: &str) {
        self.failures()
            .succeeded(client, name, self.0.start.elapsed());
    }

    /// Checks a password outside of the runtime's threads. The work is the same for names that no
    /// user has.
    pub async fn check(
        &self,
        users: &UserStore,
        client: IpAddr,
        login: PasswordLogin,
    ) -> LoginResult {
        let is_known = self
            .failures()
            .is_known(client, &login.name, self.0.start.elapsed());
        let Some(permit) = self.0.checks.permit(is_known).await else {
            return LoginResult::Busy;
        };
        let (stored, is_user) = users.password(&login.name);
        let checked = tokio::task::spawn_blocking(move || {
            let is_right = stored.is_of(&login.password);
            drop::<CheckPermit>(permit);
            is_right && is_user
        });
        match checked.await {
            Ok(true) => LoginResult::Right,
            Ok(false) => LoginResult::Wrong,
            // Fails only while the runtime shuts down.
            Err(_) => LoginResult::Busy,
        }
    }

    /// Counts an event of a user against its limit of an hour.
    ///
    /// # Errors
    /// The limit that is reached; the event is not counted then.
    pub fn count_hourly(
        &self,
        name: &str,
        rate: HourlyRate,
        most: u32,
    ) -> Result<(), HourlyLimitReached> {
        let now = self.0.start.elapsed();
        self.hourly()
            .count(name, (rate, most), now, Timestamp::now())
    }

    /// Returns the users that have reached a limit within the last hour, the latest first.
    #[must_use]
    pub fn limited(&self) -> Vec<LimitedUser> {
        self.hourly().limited(self.0.start.elapsed())
    }

    /// Forgets the events of the last hour of all users.
    pub fn forget_hours(&self) {
        self.hourly().clear();
    }

    /// Forgets the events and the failed logins of one user, by its name in the form of
    /// [`crate::smtp::sasl::prepare_name`].
    #[must_use]
    pub fn release(&self, prepared: &str) -> ReleasedUser {
        let now = self.0.start.elapsed();
        let is_user = |name: &str| prepare_name(name).is_ok_and(|name| name == prepared);
        ReleasedUser {
            limits: self.hourly().release(is_user, now),
            failures: self.failures().forget_account(prepared, now),
        }
    }

    /// Forgets the failed logins of clients within a network, and of the networks that contain it;
    /// all if `network` is `None`.
    pub fn forget_failures(&self, network: Option<&IpNet>) {
        self.failures().forget_clients(network);
    }

    fn hourly(&self) -> MutexGuard<'_, HourlyRates> {
        self.0.hourly.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns our part of a nonce for SCRAM.
    #[must_use]
    pub fn nonce(&self) -> String {
        let mut octets = [0; NONCE_SIZE];
        fill(&mut octets);
        data_encoding::BASE64.encode(&octets)
    }

    fn failures(&self) -> MutexGuard<'_, LoginFailures> {
        self.0
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
