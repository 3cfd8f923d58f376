//! Splits a message from the spool into its recipient domains.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::smtp::address::Host;
use crate::smtp::envelope::{Envelope, RecipientState};

/// A recipient domain with pending recipients.
pub(super) struct PendingDomain {
    pub(super) host: Host,
    /// The earliest due time of its recipients.
    pub(super) next: Option<Timestamp>,
    /// True when the delay of all its recipients has been reported.
    pub(super) warned: bool,
}

/// Returns the recipient domains of a message that have pending recipients, in the order of their
/// first recipients.
pub(super) fn pending_domains(envelope: &Envelope) -> Vec<PendingDomain> {
    let mut all: Vec<PendingDomain> = Vec::new();
    let mut places: HashMap<&Host, usize> = HashMap::new();
    for recipient in &envelope.recipients {
        let RecipientState::Pending { next, warned, .. } = &recipient.state else {
            continue;
        };
        let host = recipient.mailbox.host();
        let place = *places.entry(host).or_insert(all.len());
        match all.get_mut(place) {
            Some(waiting) => {
                waiting.next = waiting.next.min(*next);
                waiting.warned &= warned;
            }
            None => all.push(PendingDomain {
                host: host.clone(),
                next: *next,
                warned: *warned,
            }),
        }
    }
    all
}
