//! A record of everything that the hosts have seen. It is compared with the daemon's own account.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::world::Shown;

/// TLS as the host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) shown: Shown,
    pub(crate) version: String,
    pub(crate) cipher: String,
    /// The hash of the key it showed.
    pub(crate) key: String,
}

/// A session as the host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) site: usize,
    /// The connection to that host, counted from 0.
    pub(crate) connection: u64,
    /// The name in EHLO: each start of the daemon has its own.
    pub(crate) life: String,
    pub(crate) tls: Option<Tls>,
}

/// A command that names who gets or sends mail.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) session: Arc<Session>,
    /// The recipient; nothing for MAIL FROM.
    pub(crate) recipient: Option<String>,
    pub(crate) at: Instant,
}

/// The answer to the final dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not at all, or by half: the message may come again.
    Lost,
    /// With a complete 250, at this time.
    Taken(Instant),
    /// With an error: the host does not have the message.
    Refused,
}

/// A complete message for one recipient.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) session: Arc<Session>,
    pub(crate) recipient: String,
    /// The time at which the dot was read.
    pub(crate) at: Instant,
    pub(crate) answer: Answer,
    /// The name of the message, or what is wrong with its content.
    pub(crate) content: Result<String, String>,
}

/// A report's statement on one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) recipient: String,
    pub(crate) action: String,
    pub(crate) status: String,
    /// The Message-ID of the report.
    pub(crate) id: String,
    pub(crate) at: Instant,
}

/// All of it, in the order in which it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) named: Vec<Named>,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) reports: Vec<Reported>,
}

/// Everything that the hosts have seen so far.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Seen>);

impl Ledger {
    pub(crate) fn note<T>(&self, note: impl FnOnce(&mut Seen) -> T) -> T {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reported {
    /// The recipients of a report: a group of fields for each (RFC 3464 §2.3).
    pub(crate) fn read(content: &[u8], at: Instant) -> Vec<Self> {
        let text = String::from_utf8_lossy(content);
        let mut reported: Vec<Self> = Vec::new();
        let id = text
            .split("\r\n")
            .find_map(|line| line.strip_prefix("Message-ID: "))
            .unwrap_or_default();
        for group in text.split("\r\n\r\n") {
            let field = |name: &str| {
                group
                    .split("\r\n")
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::trim)
            };
            let Some(recipient) = field("Final-Recipient: rfc822;") else {
                continue;
            };
            reported.push(Self {
                recipient: recipient.to_owned(),
                action: field("Action:").unwrap_or_default().to_owned(),
                status: field("Status:").unwrap_or_default().to_owned(),
                id: id.to_owned(),
                at,
            });
        }
        reported
    }
}
