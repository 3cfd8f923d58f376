//! The users that may log in: the file `[users] file`, read into valid values or all its faults.

mod edit;
mod password;
mod read;
mod scram_text;
#[cfg(test)]
mod tests;
mod user;
mod user_toml;

pub use edit::{UserKey, add_user, remove_user, set_keys};
pub use password::{PasswordCost, StoredPassword};
pub use read::{parse_users, read_users, read_users_text};
pub use scram_text::{ITERATIONS, write_verifier};
pub use user::{MailUser, SenderPattern, UserList};
