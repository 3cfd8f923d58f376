//! The messages that are being handed to other relays.

use std::collections::HashSet;
use std::time::Instant;

use super::active_message::LoadedMessage;
use super::queues::Item;
use crate::smtp::envelope::QueueId;

/// The state of the hand-over.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    /// True while a page is being handed over.
    pub(super) is_running: bool,
    /// The messages of that page. One that is claimed again meanwhile is taken off.
    pub(super) under_way: HashSet<QueueId>,
    /// The messages that no other relay may have.
    pub(super) kept: HashSet<QueueId>,
    /// The time at which the first of them was found to stay.
    pub(super) kept_since: Option<Instant>,
}

/// The end of the hand-over of a page.
pub(super) struct HandOverEnd {
    pub(super) ids: Vec<QueueId>,
    /// The items that waited of these messages.
    pub(super) items: Vec<(Item<LoadedMessage>, Instant)>,
    /// The messages that stay this relay's. The others are not its own any more.
    pub(super) kept: HashSet<QueueId>,
}
