//! The metrics of recipients and delivered messages.

use jiff::Timestamp;

use crate::policy::failure::RecipientOutcome;
use crate::telemetry::{DeliveryResult, Monitor};

use super::event::{DeliveryObserver, EventOrigin, RecipientEvent};

/// Counts the results of attempts.
pub(super) struct RecipientMetrics {
    pub(super) monitor: Monitor,
}

impl DeliveryObserver for RecipientMetrics {
    fn observe_recipients(&self, events: &[RecipientEvent<'_>]) {
        let (mut delivered_with, mut recipients) = (None, 0);
        for event in events
            .iter()
            .filter(|event| event.origin == EventOrigin::Attempt)
        {
            let Some(result) = event.result else { continue };
            let clearance = result.via.as_ref().map(|via| &via.clearance);
            let outcome = match &result.outcome {
                RecipientOutcome::Delivered(_) => {
                    recipients += 1;
                    delivered_with =
                        delivered_with.or(clearance.map(|clearance| (event, clearance)));
                    DeliveryResult::Delivered
                }
                RecipientOutcome::Deferred(_) => DeliveryResult::Deferred,
                RecipientOutcome::Held(_) => DeliveryResult::Held,
                RecipientOutcome::Bounced(_) => DeliveryResult::Bounced,
            };
            self.monitor
                .attempted(&event.connector.name, outcome, clearance, 1);
        }
        if let Some((
            RecipientEvent {
                attempt, connector, ..
            },
            clearance,
        )) = delivered_with
        {
            let age = attempt
                .entry
                .accepted
                .duration_until(Timestamp::now())
                .try_into()
                .unwrap_or_default();
            self.monitor.delivered(
                &connector.name,
                clearance,
                attempt.entry.size,
                recipients,
                age,
            );
        }
    }
}
