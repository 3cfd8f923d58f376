//! Commands that come before they may (RFC 2920).

use super::Server;
use crate::smtp::command::{Command, CommandError};

impl Server {
    /// Returns whether commands came behind one that must be answered first: EHLO and HELO are the last of their group
    /// (RFC 2920 §3.1), and without an answer to EHLO nothing has been offered. What a client sends blindly may be
    /// another protocol's (Postfix's `smtpd_forbid_unauth_pipelining`).
    pub(super) fn violates_pipelining(&self, parsed: &Result<Command, CommandError>, behind: &[u8]) -> bool {
        let is_offered = self.client.as_ref().is_some_and(|client| client.esmtp);
        match parsed {
            // The fault has a reply of its own.
            Err(fault) if fault.is_fatal() => false,
            Ok(Command::Ehlo(_) | Command::Helo(_) | Command::XClient(_)) => !behind.is_empty(),
            // These look themselves at what is behind them.
            Ok(Command::StartTls | Command::Data | Command::Quit) => false,
            Ok(Command::Bdat { size, .. }) => !is_offered && behind.len() as u64 > *size,
            Ok(_) | Err(_) => !is_offered && !behind.is_empty(),
        }
    }
}
