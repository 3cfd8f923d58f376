//! The users of a file, and what each may do.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use super::password::{PasswordCost, StoredPassword};
use crate::config::fault::Fault;
use crate::config::spelling::shorten;
use crate::policy::connector::Connectors;
use crate::policy::location::{Located, Location};
use crate::smtp::address::{Domain, Host, Mailbox, ReversePath};
use crate::smtp::sasl::scram::ScramVerifier;

/// A user that may log in.
#[derive(Debug, Clone)]
pub struct MailUser {
    /// The name as written.
    pub name: String,
    /// The name in the form of [`crate::smtp::sasl::prepare_name`], by which it is found.
    pub prepared: String,
    /// The hash of the password.
    pub password: StoredPassword,
    /// The keys for SCRAM; `None` if the user cannot use it.
    pub scram: Option<ScramVerifier>,
    /// True if the user may not log in.
    pub disabled: bool,
    /// The senders that the user may use; `None` for all.
    pub senders: Option<Vec<SenderPattern>>,
    /// True if the user may use the null sender.
    pub null_sender: bool,
    /// True if the addresses in the From field must be among `senders`.
    pub check_from: bool,
    /// The networks from which the user may log in; empty for all.
    pub networks: Vec<IpNet>,
    /// The most messages in an hour.
    pub messages_per_hour: Option<u32>,
    /// The most recipients in an hour.
    pub recipients_per_hour: Option<u32>,
    /// The name of the connector by which the user's mail goes; `None` for the recipients' own.
    pub connector: Option<Located<String>>,
    /// The position in the file.
    pub location: Location,
}

impl MailUser {
    /// Returns true if both have the same password and keys.
    #[must_use]
    pub fn has_keys_of(&self, other: &Self) -> bool {
        self.password == other.password && self.scram == other.scram
    }

    /// Returns true if the user may send from this address.
    #[must_use]
    pub fn may_send_from(&self, sender: &ReversePath) -> bool {
        match (sender.mailbox(), &self.senders) {
            (None, _) => self.null_sender,
            (Some(_), None) => true,
            (Some(mailbox), Some(senders)) => senders.iter().any(|sender| sender.covers(mailbox)),
        }
    }

    /// Returns true if the From field may have this address.
    #[must_use]
    pub fn may_write_as(&self, author: &Mailbox) -> bool {
        let senders = self.senders.as_ref();
        senders.is_none_or(|senders| senders.iter().any(|sender| sender.covers(author)))
    }

    /// Returns true if the user may log in from this address, which is `None` if a load balancer
    /// does not know it.
    #[must_use]
    pub fn may_log_in_from(&self, client: Option<IpAddr>) -> bool {
        let client = client.map(|client| client.to_canonical());
        self.networks.is_empty()
            || client.is_some_and(|client| {
                self.networks
                    .iter()
                    .any(|network| network.contains(&client))
            })
    }
}

/// A sender that a user may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderPattern {
    /// One address. The local part is compared without regard to case.
    Address(Mailbox),
    /// `*@example.org`: every address of this very domain.
    Domain(Domain),
}

impl SenderPattern {
    /// Returns true if this is a pattern for the address.
    #[must_use]
    pub fn covers(&self, mailbox: &Mailbox) -> bool {
        match (self, mailbox.host()) {
            (Self::Address(address), host) => {
                address.host() == host
                    && address.local_part().to_lowercase() == mailbox.local_part().to_lowercase()
            }
            (Self::Domain(domain), Host::Domain(host)) => domain == host,
            (Self::Domain(_), Host::Literal(_)) => false,
        }
    }
}

impl fmt::Display for SenderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(mailbox) => mailbox.fmt(f),
            Self::Domain(domain) => write!(f, "*@{domain}"),
        }
    }
}

/// The users of a file.
#[derive(Clone, Default)]
pub struct UserList {
    pub(super) users: HashMap<String, Arc<MailUser>>,
    /// `salt_secret`: the secret from which the salts of unknown users are made.
    pub salt_secret: Option<Vec<u8>>,
    /// The cost of the passwords, if there are any.
    pub cost: Option<PasswordCost>,
}

/// Shows no user and no secret.
impl fmt::Debug for UserList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserList")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

impl UserList {
    /// Returns the fault of a file in which users have keys for SCRAM, and whose salts of unknown
    /// names would be others after each start.
    #[must_use]
    pub fn missing_secret(&self, file: &Path) -> Option<Fault> {
        let has_scram = self.users.values().any(|user| user.scram.is_some());
        (has_scram && self.salt_secret.is_none()).then(|| Fault {
            location: Location {
                file: Arc::from(file),
                line: 1,
                column: 1,
            },
            message: "salt_secret is missing: SCRAM would show which users exist".to_owned(),
            remedy: "Change the file by a command, such as `gatepost user passwd NAME`, which writes it."
                .to_owned(),
        })
    }

    /// Returns the user of a name in the form of [`crate::smtp::sasl::prepare_name`].
    #[must_use]
    pub fn get(&self, prepared: &str) -> Option<&Arc<MailUser>> {
        self.users.get(prepared)
    }

    /// Returns all users, sorted by name.
    #[must_use]
    pub fn sorted(&self) -> Vec<&Arc<MailUser>> {
        let mut users: Vec<_> = self.users.values().collect();
        users.sort_by(|one, other| one.name.cmp(&other.name));
        users
    }

    /// Returns the faults of users whose connector is not among those of the configuration.
    #[must_use]
    pub fn unknown_connectors(&self, connectors: &Connectors) -> Vec<Fault> {
        let named = self
            .users
            .values()
            .filter_map(|user| user.connector.as_ref());
        let mut faults: Vec<_> = named
            .filter(|name| connectors.named(&name.value).is_none())
            .map(|name| Fault {
                location: name.location.clone(),
                message: format!(
                    "connector: the configuration has no connector \"{}\"",
                    shorten(&name.value)
                ),
                remedy: "Write the name of a [[connector]] of the configuration, or remove the key for the recipients' own."
                    .to_owned(),
            })
            .collect();
        faults.sort();
        faults
    }

    /// Returns the number of users.
    #[must_use]
    pub fn count(&self) -> usize {
        self.users.len()
    }
}
