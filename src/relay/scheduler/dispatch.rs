//! Starts a task for each job that is due, up to the limit, and ends slow attempts when other
//! destinations wait.

use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::OnceCell;

use crate::config::{DomainPattern, Route};
use crate::relay::outbound::AttemptLimit;
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Host;
use crate::smtp::envelope::QueueId;

use super::queues::{Destination, Job, Placement, Share};
use super::{ActiveMessage, Scheduler, delivery};

/// The most jobs besides attempts: results that are being stored, and messages that have reached a
/// deadline.
const WRITING_MAX: usize = 1000;

impl Scheduler {
    /// Returns true when another job may start. While evidence cannot be written, no job starts
    /// beside a running one: its result could not be stored.
    pub(super) fn may_begin(&self) -> bool {
        let attempts = self.context.running.load().config.limits.delivery_attempts as usize;
        self.jobs < attempts + WRITING_MAX && !(self.jobs > 0 && self.context.evidence.is_stuck())
    }

    /// Starts the jobs that are due, and ends slow attempts that must make room.
    pub(super) fn dispatch(&mut self) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        while self.may_begin() {
            let Some(job) = self.queues.next(now, |host| placement(&settings, host)) else {
                break;
            };
            let (Job::Deliver(_, item) | Job::DeadlineReached(item, _, _)) = &job;
            let message = item
                .loaded
                .clone()
                .unwrap_or_else(|| self.active_message(item.id));
            *self.active.entry(item.id).or_default() += 1;
            self.jobs += 1;
            let limit = AttemptLimit::new(settings.config.limits.delivery_attempt_time);
            if let Job::Deliver(token, _) = &job {
                self.limits.insert(token.attempt, limit.clone());
            }
            self.tasks.spawn(delivery::work(
                Arc::clone(&self.context),
                message,
                job,
                limit,
            ));
        }
        let ends = self
            .queues
            .choose_to_end(|attempt| self.limits.get(&attempt).is_some_and(AttemptLimit::may_end));
        for attempt in ends {
            if let Some(limit) = self.limits.get(&attempt) {
                limit.end();
            }
        }
        self.usage.publish(self.queues.in_use());
    }

    /// Returns the message with this id, shared with other running jobs on it.
    pub(super) fn active_message(&mut self, id: QueueId) -> Arc<ActiveMessage> {
        if let Some(message) = self.messages.get(&id).and_then(Weak::upgrade) {
            return message;
        }
        let message = Arc::new(ActiveMessage::new(id, OnceCell::new(), 0, &self.context));
        self.messages.insert(id, Arc::downgrade(&message));
        message
    }
}

/// Returns the destination of mail for a recipient domain, its connection limit and its share of
/// the attempts.
pub(super) fn placement(settings: &Snapshot, host: &Host) -> Placement {
    let connector = settings.connectors.for_host(host);
    let limit = connector.outbound.connections;
    match &connector.outbound.route {
        Route::SmartHosts(_) => {
            let destination = Destination::SmartHosts(connector.name.as_str().into());
            Placement {
                destination,
                limit,
                share: Share::Named,
            }
        }
        Route::Mx { .. } => {
            let share = if connector.domains.iter().all(names_somebody) {
                Share::Named
            } else {
                Share::ByMx
            };
            Placement {
                destination: Destination::Domain(host.clone()),
                limit,
                share,
            }
        }
    }
}

/// Returns true when a pattern names particular domains: not `*`, and not all domains of a
/// top-level domain.
fn names_somebody(pattern: &DomainPattern) -> bool {
    match pattern {
        DomainPattern::Any => false,
        DomainPattern::Below(domain) => domain.parent().is_some(),
        DomainPattern::Exactly(_) => true,
    }
}
