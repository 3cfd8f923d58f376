//! The compact form of items that are not due; there may be hundreds of thousands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::smtp::address::Host;
use crate::storage::spool::Claim;

use super::ids::Millis;
use super::item::Item;

/// An [`Item`] that is not due, with its times in milliseconds since the queues were created.
#[derive(Debug)]
pub(super) struct Parked<T> {
    pub(super) claim: Claim,
    host: Host,
    user_connector: Option<Arc<str>>,
    is_relaxed: bool,
    place: u16,
    /// The time of its next attempt, which may be after its deadline.
    due: Millis,
    deadline: Millis,
    expires: Millis,
    expire: Millis,
    loaded: T,
}

impl<T> Parked<T> {
    /// Packs an item that is due at `due`.
    pub(super) fn new(item: Item<T>, due: Millis, millis: impl Fn(Instant) -> Millis) -> Self {
        let Item {
            claim,
            host,
            user_connector,
            is_relaxed,
            place,
            deadline,
            expires,
            expire,
            loaded,
        } = item;
        let expire = expire.as_millis().try_into().unwrap_or(Millis::MAX);
        Self {
            claim,
            host,
            user_connector,
            is_relaxed,
            place,
            due,
            deadline: millis(deadline),
            expires: millis(expires),
            expire,
            loaded,
        }
    }

    /// Returns the next time at which it needs a job.
    pub(super) fn at(&self) -> Millis {
        self.due.min(self.deadline)
    }

    /// Returns the item and its due time.
    pub(super) fn item(self, instant: impl Fn(Millis) -> Instant) -> (Item<T>, Millis) {
        let Self {
            claim,
            host,
            user_connector,
            is_relaxed,
            place,
            due,
            deadline,
            expires,
            expire,
            loaded,
        } = self;
        let (deadline, expires) = (instant(deadline), instant(expires));
        (
            Item {
                claim,
                host,
                user_connector,
                is_relaxed,
                place,
                deadline,
                expires,
                expire: Duration::from_millis(expire),
                loaded,
            },
            due,
        )
    }
}
