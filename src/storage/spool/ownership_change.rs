//! A change of ownership that did not come from the owner itself.

use crate::smtp::envelope::QueueId;

/// A change of which messages are whose, made by another owner or by its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnershipChange {
    /// There may be messages that nobody alive owns. [`super::Spool::claim`] finds them.
    Claimable,
    /// This owner drains, and is to hand over what waits ([`super::Spool::hand_over`]).
    HandOver,
    /// Others have claimed these messages while the lease of this owner was over. They are no longer
    /// its own: what waits is forgotten, and what is under way begins nothing new.
    Lost(Vec<QueueId>),
}
