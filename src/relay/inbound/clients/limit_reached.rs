//! The reply to a client that has reached a limit.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use super::limit::Limit;
use crate::config::Rate;
use crate::policy::networks::network_text;
use crate::smtp::reply::{Reply, Status};

/// The status while no directory answers (RFC 3463 §3.5).
const DIRECTORY_FAILURE: Status = Status(4, 3);

/// A limit that a client has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay::inbound) struct LimitReached {
    pub(in crate::relay::inbound) limit: Limit,
    /// The client or network whose share is used up, or `None` if the limit applies to all clients
    /// together.
    pub(super) network: Option<IpNet>,
    pub(super) most: usize,
    /// The time after which the client may try again, if it is known.
    pub(super) wait: Option<Duration>,
}

impl LimitReached {
    /// Returns the reply: 421 if the session ends with it, otherwise 450 or 452.
    pub(in crate::relay::inbound) fn reply(&self, hostname: &impl fmt::Display) -> Reply {
        let name = self.network.as_ref().map(network_text).unwrap_or_default();
        let again = match self.wait {
            Some(wait) => format!("try again in {} s", wait.as_secs() + 1),
            None => "try again later".to_owned(),
        };
        let refused = |code: u16, what: &str| {
            let host = if code == 421 {
                format!("{hostname} ")
            } else {
                String::new()
            };
            let status = if code == 421 {
                Status(7, 0)
            } else {
                Status(7, 1)
            };
            Reply::new(
                code,
                status,
                format!("{host}Too many {what} a minute from {name}; {again}"),
            )
        };
        match self.limit {
            Limit::All => Reply::new(
                421,
                Status(3, 2),
                format!("{hostname} Too many connections, try again later"),
            ),
            Limit::PerClient => Reply::new(
                421,
                Status(7, 0),
                format!("{hostname} Too many connections from your address"),
            ),
            Limit::PerNetwork => Reply::new(
                421,
                Status(7, 0),
                format!("{hostname} Too many connections from your network {name}"),
            ),
            Limit::PerMinute(Rate::Connections) => refused(421, "connections"),
            Limit::PerMinute(Rate::Handshakes) => refused(421, "TLS handshakes"),
            Limit::PerMinute(Rate::Messages) => refused(450, "messages"),
            Limit::PerMinute(Rate::Recipients) => refused(450, "recipients"),
            Limit::PerMinute(Rate::UnknownRecipients) => refused(450, "unknown recipients"),
            Limit::PerMinute(Rate::UncheckedRecipients) => cannot_be_checked(),
            Limit::Memory => Reply::new(
                452,
                Status(5, 3),
                "Too many recipients for the memory that is left; send the others later",
            ),
            Limit::MemoryPerSession => Reply::new(
                452,
                Status(5, 3),
                "Too many long recipients; send the others in another transaction",
            ),
        }
    }
}

/// Returns the reply about a recipient that cannot be checked. It is the same at the limit of such
/// recipients, so that it says nothing about the recipient.
pub(in crate::relay::inbound) fn cannot_be_checked() -> Reply {
    let text = "The recipient cannot be checked at present; try again later";
    Reply::new(451, DIRECTORY_FAILURE, text)
}
