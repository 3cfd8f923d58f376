//! One message for one recipient domain, and where it goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::Host;
use crate::envelope::{AttemptFailure, QueueId};

use super::Ticket;
use super::share::Share;

/// The peers that share a limit of connections and a back-off.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::scheduler) enum Destination {
    /// The MX hosts of one domain.
    Domain(Host),
    /// The smart hosts of the connector of this name, whatever the recipient's domain.
    SmartHosts(Arc<str>),
}

/// The way that mail for a host takes now.
#[derive(Debug, Clone)]
pub(in crate::scheduler) struct Place {
    pub(in crate::scheduler) destination: Destination,
    /// Attempts that may be made there at the same time.
    pub(in crate::scheduler) limit: u32,
    pub(in crate::scheduler) share: Share,
}

/// One message for one recipient domain, waiting in a lane. `T` is what its owner keeps with it.
#[derive(Debug)]
pub(in crate::scheduler) struct Item<T> {
    pub(in crate::scheduler) id: QueueId,
    pub(in crate::scheduler) host: Host,
    /// The message sets aside what domains publish (`TLS-Required: No`).
    pub(in crate::scheduler) is_relaxed: bool,
    /// The next time at which its age matters, tried or not: a notice to its sender is due, or it expires.
    pub(in crate::scheduler) deadline: Instant,
    pub(in crate::scheduler) expires: Instant,
    /// The `[queue] expire` that `expires` was reckoned with.
    pub(in crate::scheduler) expire: Duration,
    pub(in crate::scheduler) cargo: T,
}

/// A task that a lane has for an item.
#[derive(Debug)]
pub(in crate::scheduler) enum Job<T> {
    /// Try to deliver it; [`super::Lanes::finished`] is owed afterwards.
    Deliver(Ticket, Item<T>),
    /// Its deadline has come, and it cannot be tried now: when it will be, and why not now where its
    /// destination is down.
    Aged(Item<T>, Instant, Option<AttemptFailure>),
}
