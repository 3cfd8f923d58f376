//! The users that may log in: the file as it is now, and the checks of passwords.
//!
//! [`UserStore`] belongs to a configuration and is re-read when the file changes, as certificates
//! are. The state about clients (failures, passwords that are being checked) is shared by all
//! configurations and lives in [`Logins`].

mod failures;
mod hourly;
mod logins;
mod password_checks;
mod store;

pub use failures::{FailedTooOften, LoginFailures};
pub use hourly::{HourlyLimitReached, HourlyRate, HourlyRates, LimitedUser};
pub use logins::{LoginResult, Logins, ReleasedUser};
pub use password_checks::{CheckPermit, PasswordChecks};
pub use store::{Decoys, UserStore};
