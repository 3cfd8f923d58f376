//! Messages whose content was damaged on the disk: nothing of them can be delivered, and nobody is left without a word.
//!
//! The spool has quarantined the content. What the envelope says is sound: the record that the message came in
//! is written, the recipients that were still to be served are given up, and the sender gets its report.

use std::sync::Arc;

use crate::failure::{Failure, Scope};
use crate::outbound::Attempt;
use crate::smtp::reply::Status;
use crate::spool::StoredMessage;

use super::settle::Left;
use super::{Context, Live, orders};

/// Gives up every recipient of a damaged message whose fate is open: as the attempt that is made of it, nothing, or what
/// is left to do.
pub(super) async fn give_up(context: &Arc<Context>, live: &Live, left: StoredMessage) -> Result<Option<Attempt>, Left> {
    let entry = Arc::new(left.without_content());
    let text = "its content was damaged on the disk of the relay, and what is left of it was quarantined there";
    let failure = Failure::permanent(Scope::Message, Status(3, 0), text);
    match orders::give_up(context, live, &entry, &failure).await {
        Left::Nothing => Ok(None),
        left => Err(left),
    }
}
