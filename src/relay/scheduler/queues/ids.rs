//! The identifiers of destination queues and attempts, and the keys of due items.

/// A time in milliseconds since the queues were created: half the size of an `Instant`.
pub(super) type Millis = u64;

/// The id of a destination queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DestinationId(pub(super) u64);

/// The id of a running attempt. Ids grow with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::relay::scheduler) struct AttemptId(pub(super) u64);

/// Identifies a running attempt when it reports back. Results from before the last reload
/// (`generation`) are ignored.
#[derive(Debug, Clone, Copy)]
pub(in crate::relay::scheduler) struct AttemptToken {
    pub(super) queue: DestinationId,
    pub(in crate::relay::scheduler) attempt: AttemptId,
    pub(super) generation: u64,
}

#[cfg(test)]
impl AttemptId {
    pub(super) const NONE: Self = Self(0);
}

#[cfg(test)]
impl AttemptToken {
    pub(super) const NONE: Self = Self {
        queue: DestinationId(0),
        attempt: AttemptId::NONE,
        generation: 0,
    };
}

/// A position in a wait list: by turn, then by the order of joining.
pub(super) type WaitPosition = (Millis, u64);

/// The key of a due item: by queue, then by its turn, then by arrival. The turn is the time at which
/// it was due, or of its deadline, and later by the time for which it gives way. One map for all queues costs the
/// same for each message, for one destination or for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DueKey {
    pub(super) queue: DestinationId,
    pub(super) at: Millis,
    pub(super) serial: u64,
}
