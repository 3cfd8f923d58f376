//! Bounces messages whose content was damaged on disk.
//!
//! The spool has quarantined the content; the envelope is sound. The acceptance is recorded in the
//! evidence, the open recipients bounce, and the sender gets a report.

use std::sync::Arc;

use crate::policy::failure::{Failure, Scope};
use crate::smtp::reply::Status;
use crate::storage::spool::StoredMessage;

use super::active_message::ActiveMessage;
use super::attempt::PlannedAttempt;
use super::context::Context;
use super::result::{self, RemainingWork};

/// Bounces every open recipient of a damaged message. Returns no attempt, since nothing can be
/// delivered.
///
/// # Errors
/// The work that remains when the result could not be stored.
pub(super) async fn give_up(
    context: &Arc<Context>,
    message: &ActiveMessage,
    remaining: StoredMessage,
) -> Result<Option<PlannedAttempt>, RemainingWork> {
    let entry = Arc::new(remaining.without_content());
    let text = "its content was damaged on the disk of the relay, and what is left of it was quarantined there";
    let failure = Failure::permanent(Scope::Message, Status(3, 0), text);
    match result::give_up(context, message, &entry, &failure).await {
        RemainingWork::Nothing => Ok(None),
        remaining => Err(remaining),
    }
}
