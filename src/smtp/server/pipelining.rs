//! Commands that were sent before they were allowed (RFC 2920).

use super::Server;
use crate::smtp::command::{Command, CommandError};

impl Server {
    /// Returns true if more octets came after a command whose reply the client must await: EHLO and
    /// HELO are the last of their group (RFC 2920 §3.1), and before a reply to EHLO has offered
    /// PIPELINING, so is every command. Octets sent blindly may belong to another protocol (Postfix
    /// `smtpd_forbid_unauth_pipelining`).
    // Rule: RFC 5321 §4.3.1.
    pub(super) fn violates_pipelining(
        &self,
        parsed: &Result<Command, CommandError>,
        behind: &[u8],
    ) -> bool {
        let is_offered = self.helo.as_ref().is_some_and(|helo| helo.esmtp);
        match parsed {
            // These faults have replies of their own.
            Err(fault) if fault.is_fatal() => false,
            Ok(Command::Ehlo(_) | Command::Helo(_) | Command::XClient(_)) => !behind.is_empty(),
            // These commands check the following octets themselves.
            Ok(Command::StartTls | Command::Data | Command::Quit) => false,
            Ok(Command::Bdat { size, .. }) => !is_offered && behind.len() as u64 > *size,
            Ok(_) | Err(_) => !is_offered && !behind.is_empty(),
        }
    }
}
