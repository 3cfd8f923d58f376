//! The items of the queues: one message for one recipient domain, and its destination.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::smtp::address::Host;
use crate::smtp::envelope::{AttemptFailure, QueueId};
use crate::storage::spool::Claim;

use super::ids::{AttemptToken, Millis};
use super::share::Share;

/// A destination: the peers that share a connection limit and a backoff.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::relay::scheduler) enum Destination {
    /// The MX hosts of one domain.
    Domain(Host),
    /// The MX hosts of one domain, for mail by the connector with this name, which is that of the
    /// user who sent it.
    DomainBy(Arc<str>, Host),
    /// The smart hosts of the connector with this name, for every recipient domain.
    SmartHosts(Arc<str>),
}

/// The destination of mail for a domain, with its limits.
#[derive(Debug, Clone)]
pub(in crate::relay::scheduler) struct Placement {
    pub(in crate::relay::scheduler) destination: Destination,
    /// The most concurrent attempts (`connections` of the connector).
    pub(in crate::relay::scheduler) limit: u32,
    pub(in crate::relay::scheduler) share: Share,
}

/// One message for one recipient domain. `T` is the data that the scheduler keeps with it.
#[derive(Debug)]
pub(in crate::relay::scheduler) struct Item<T> {
    /// The claim on the message, which its changes need.
    pub(in crate::relay::scheduler) claim: Claim,
    pub(in crate::relay::scheduler) host: Host,
    /// The name of the connector of the user who sent the message, if the user has one.
    pub(in crate::relay::scheduler) user_connector: Option<Arc<str>>,
    /// True for a message with `TLS-Required: No`, to which DANE and MTA-STS do not apply.
    pub(in crate::relay::scheduler) is_relaxed: bool,
    /// Its place among the recipient domains of its message, counted from 0.
    pub(in crate::relay::scheduler) place: u16,
    /// The next deadline: the report of delay to the sender, or `expires`.
    pub(in crate::relay::scheduler) deadline: Instant,
    pub(in crate::relay::scheduler) expires: Instant,
    /// The `[queue] expire` that `expires` was computed with.
    pub(in crate::relay::scheduler) expire: Duration,
    pub(in crate::relay::scheduler) loaded: T,
}

/// The time in milliseconds for which each further recipient domain of a message gives way to mail
/// that is due later.
const GIVES_WAY: Millis = 10;
/// The longest time in milliseconds for which an item gives way.
const GIVES_WAY_MAX: Millis = 10_000;

impl<T> Item<T> {
    /// Returns the queue id of the message.
    pub(in crate::relay::scheduler) fn id(&self) -> QueueId {
        self.claim.id()
    }

    /// Returns the time for which it gives way: while other mail waits for the same places, a
    /// message to many domains does not delay it.
    pub(super) fn gives_way(&self) -> Millis {
        (GIVES_WAY * Millis::from(self.place)).min(GIVES_WAY_MAX)
    }
}

/// A job for an item.
#[derive(Debug)]
pub(in crate::relay::scheduler) enum Job<T> {
    /// Deliver it. Call [`super::DestinationQueues::finished`] when the attempt ends.
    Deliver(AttemptToken, Item<T>),
    /// Its deadline has passed and it cannot be tried now. The time is that of the next attempt;
    /// the failure is the reason of the destination's backoff, if it is in one.
    DeadlineReached(Item<T>, Instant, Option<AttemptFailure>),
}
