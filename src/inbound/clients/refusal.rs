//! The answer to a client that a limit holds back.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use super::Limit;
use crate::config::Rate;
use crate::networks::network_text;
use crate::smtp::reply::{Reply, Status};

/// A client is held back by a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::inbound) struct Refusal {
    pub(in crate::inbound) limit: Limit,
    /// Whose share is used up, where it is not everybody's.
    pub(super) network: Option<IpNet>,
    pub(super) most: usize,
    /// After this time it may go on, where that is known.
    pub(super) wait: Option<Duration>,
}

impl Refusal {
    /// The answer: 421 where the session ends with it, else 450.
    pub(in crate::inbound) fn reply(&self, hostname: &impl fmt::Display) -> Reply {
        let who = self.network.as_ref().map(network_text).unwrap_or_default();
        let again = match self.wait {
            Some(wait) => format!("try again in {} s", wait.as_secs() + 1),
            None => "try again later".to_owned(),
        };
        let refused = |code: u16, what: &str| {
            let host = if code == 421 { format!("{hostname} ") } else { String::new() };
            let status = if code == 421 { Status(7, 0) } else { Status(7, 1) };
            Reply::new(code, status, format!("{host}Too many {what} a minute from {who}; {again}"))
        };
        match self.limit {
            Limit::All => Reply::new(421, Status(3, 2), format!("{hostname} Too many connections, try again later")),
            Limit::PerClient => {
                Reply::new(421, Status(7, 0), format!("{hostname} Too many connections from your address"))
            }
            Limit::PerNetwork => {
                Reply::new(421, Status(7, 0), format!("{hostname} Too many connections from your network {who}"))
            }
            Limit::PerMinute(Rate::Connections) => refused(421, "connections"),
            Limit::PerMinute(Rate::Handshakes) => refused(421, "TLS handshakes"),
            Limit::PerMinute(Rate::Messages) => refused(450, "messages"),
            Limit::PerMinute(Rate::Recipients) => refused(450, "recipients"),
            Limit::Memory => {
                Reply::new(452, Status(5, 3), "Too many recipients for the memory that is left; send the others later")
            }
            Limit::MemoryPerSession => {
                Reply::new(452, Status(5, 3), "Too many long recipients; send the others in another transaction")
            }
        }
    }
}
