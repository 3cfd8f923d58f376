//! The schedule, the identity and the means by which reports are sent.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::dkim::Signer;
use super::network::Network;
use crate::config::{self, Fault};
use crate::smtp::address::{Domain, Mailbox};
use crate::smtp::envelope::Envelope;
use crate::storage::spool::{Claimed, Entry, Spool};

/// The prefix of the envelope id of a report.
pub(super) const ENVELOPE_ID: &str = "gatepost-tlsrpt-";

/// Returns whether a message is a report of ours, whose own sessions are not observed.
#[must_use]
pub fn is_report(envelope: &Envelope) -> bool {
    envelope
        .envid
        .as_deref()
        .is_some_and(|id| id.starts_with(ENVELOPE_ID))
}

/// The times at which reports are sent.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The time after the end of a day during which its last sessions may still be counted.
    pub delay: Duration,
    /// The period over which reports are then spread at random, so that not all relays of the world
    /// report to a domain at midnight (RFC 8460 §4.1).
    pub spread: Duration,
    /// The time for which a destination is tried (RFC 8460 §5.5).
    pub give_up_after: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            delay: Duration::from_mins(10),
            spread: Duration::from_hours(4),
            give_up_after: Duration::from_hours(24),
        }
    }
}

/// The identity of the reporting relay.
#[derive(Debug)]
pub struct Submitter {
    /// The name of the organization.
    pub organization: String,
    /// The sender and contact address of reports.
    pub contact: Mailbox,
    /// The domain of the contact address.
    pub domain: Domain,
    /// The DKIM key that signs reports by mail, if there is one.
    pub signer: Option<Signer>,
}

impl Submitter {
    /// Loads the identity that `[tlsrpt]` configures. Also returns warnings.
    ///
    /// # Errors
    /// The fault of the DKIM key, with its location in the configuration.
    pub fn load(config: &config::TlsrptConfig) -> Result<(Self, Vec<Fault>), Fault> {
        let (signer, warning) = match &config.dkim {
            Some(key) => Signer::load(key).map(|(signer, warning)| (Some(signer), warning))?,
            None => (None, None),
        };
        let submitter = Self {
            organization: config.organization.clone(),
            contact: config.contact.clone(),
            domain: config.submitter.clone(),
            signer,
        };
        Ok((submitter, warning.into_iter().collect()))
    }
}

/// The means by which reports are sent.
#[derive(Clone)]
pub struct ReportSender {
    /// The identity of the relay; can be replaced while the service runs.
    pub submitter: Arc<ArcSwap<Submitter>>,
    /// The spool that stores reports by mail.
    pub spool: Arc<dyn Spool>,
    /// The channel to the scheduler, which delivers them.
    pub accepted: mpsc::Sender<Claimed<Entry>>,
    /// DNS and HTTPS.
    pub network: Arc<dyn Network>,
}
