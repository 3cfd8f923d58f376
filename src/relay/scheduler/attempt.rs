//! Builds an attempt for the recipients of one domain, and runs it in [`crate::relay::outbound`].

use std::sync::Arc;

use crate::relay::outbound::{Attempt, AttemptLimit, AttemptResult};
use crate::smtp::address::Host;
use crate::smtp::envelope::{Envelope, Recipient, RecipientState};
use crate::storage::spool::Entry;

use super::context::{Context, Event};
use super::queues::{AttemptToken, Health, Item};

/// An attempt, with what the queue knows of its recipients.
pub(super) struct PlannedAttempt {
    pub(super) attempt: Attempt,
    /// The number of earlier attempts for each of its recipients, in their order.
    earlier: Vec<u32>,
}

impl PlannedAttempt {
    /// Returns the number of this attempt for a recipient, counted from 1.
    pub(super) fn number(&self, recipient: usize) -> u32 {
        let at = self
            .attempt
            .recipients
            .iter()
            .position(|one| *one == recipient);
        at.and_then(|at| self.earlier.get(at))
            .map_or(1, |earlier| earlier.saturating_add(1))
    }
}

/// Returns the attempt for the pending recipients of one domain.
pub(super) fn of_pending(entry: &Arc<Entry>, envelope: &Envelope, host: &Host) -> PlannedAttempt {
    of_recipients(entry, envelope, host, RecipientState::is_pending)
}

/// Returns the attempt for the open recipients of one domain, held ones included.
pub(super) fn of_open(entry: &Arc<Entry>, envelope: &Envelope, host: &Host) -> PlannedAttempt {
    of_recipients(entry, envelope, host, RecipientState::is_open)
}

/// Returns the attempt for the recipients of one domain whose state satisfies `which`.
fn of_recipients(
    entry: &Arc<Entry>,
    envelope: &Envelope,
    host: &Host,
    which: impl Fn(&RecipientState) -> bool,
) -> PlannedAttempt {
    let apart = |at: &usize| {
        matches!(
            envelope.recipients[*at].state,
            RecipientState::Pending { apart: true, .. }
        )
    };
    let mine = |(at, recipient): (usize, &Recipient)| {
        (which(&recipient.state) && recipient.mailbox.host() == host).then_some(at)
    };
    let recipients: Vec<usize> = envelope
        .recipients
        .iter()
        .enumerate()
        .filter_map(mine)
        .collect();
    let apart = recipients.iter().copied().filter(apart).collect();
    let earlier = |at: &usize| match &envelope.recipients[*at].state {
        RecipientState::Pending { attempts, .. } | RecipientState::Held { attempts, .. } => {
            *attempts
        }
        RecipientState::Delivered | RecipientState::Failed => 0,
    };
    let earlier = recipients.iter().map(earlier).collect();
    let attempt = Attempt {
        entry: Arc::clone(entry),
        recipients,
        apart,
        host: host.clone(),
        may_be_last: false,
    };
    PlannedAttempt { attempt, earlier }
}

/// The connection slot of an attempt. It is given back on drop, even when the attempt panics.
pub(super) struct AttemptSlot {
    context: Arc<Context>,
    /// The attempt, the recipient domain, and the connector of the user who sent the message.
    token: Option<(AttemptToken, Host, Option<Arc<str>>)>,
}

impl AttemptSlot {
    pub(super) fn new<T>(context: &Arc<Context>, token: AttemptToken, item: &Item<T>) -> Self {
        Self {
            context: Arc::clone(context),
            token: Some((token, item.host.clone(), item.user_connector.clone())),
        }
    }

    /// Gives the slot back, with the health of the destination that the attempt showed.
    pub(super) fn give_back(mut self, health: Health) {
        self.finish(health);
    }

    fn finish(&mut self, health: Health) {
        if let Some((token, host, user_connector)) = self.token.take() {
            // The channel is closed only when the process ends.
            let _ = self
                .context
                .events
                .send(Event::Finished(token, host, user_connector, health));
        }
    }
}

impl Drop for AttemptSlot {
    fn drop(&mut self) {
        self.finish(Health::Unknown);
    }
}

/// Runs an attempt. The caller gives its slot back.
pub(super) async fn run(
    context: &Context,
    planned: &PlannedAttempt,
    limit: &AttemptLimit,
) -> AttemptResult {
    context
        .outbound
        .deliver_within(planned.attempt.clone(), limit)
        .await
}
