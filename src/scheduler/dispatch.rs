//! Starts a task for each job that is due, up to the limit, and ends slow attempts when other destinations wait.

use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::OnceCell;

use crate::address::Host;
use crate::config::{DomainPattern, Route};
use crate::envelope::QueueId;
use crate::outbound::AttemptLimit;
use crate::running_config::Snapshot;

use super::lanes::{Destination, Job, Place, Share};
use super::{Live, Scheduler, delivery};

/// The most jobs besides attempts: results that are being stored, and messages that have reached a deadline.
const WRITING_MAX: usize = 1000;

impl Scheduler {
    /// Returns true when another job may start. While evidence cannot be written, no job starts beside a running one:
    /// its result could not be stored.
    pub(super) fn may_begin(&self) -> bool {
        let attempts = self.context.running.load().config.limits.delivery_attempts as usize;
        self.jobs < attempts + WRITING_MAX && !(self.jobs > 0 && self.context.evidence.is_stuck())
    }

    /// Starts the jobs that are due, and ends slow attempts that must make room.
    pub(super) fn dispatch(&mut self) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        while self.may_begin() {
            let Some(job) = self.lanes.next(now, |host| place(&settings, host)) else { break };
            let (Job::Deliver(_, item) | Job::Aged(item, _, _)) = &job;
            let live = item.cargo.clone().unwrap_or_else(|| self.live(item.id));
            *self.active.entry(item.id).or_default() += 1;
            self.jobs += 1;
            let limit = AttemptLimit::new(settings.config.limits.delivery_attempt_time);
            if let Job::Deliver(ticket, _) = &job {
                self.limits.insert(ticket.attempt, limit.clone());
            }
            self.tasks.spawn(delivery::work(Arc::clone(&self.context), live, job, limit));
        }
        let ends = self.lanes.choose_to_end(|attempt| self.limits.get(&attempt).is_some_and(AttemptLimit::may_end));
        for attempt in ends {
            if let Some(limit) = self.limits.get(&attempt) {
                limit.end();
            }
        }
        self.usage.note(self.lanes.in_use());
    }

    /// Returns the message with this id, shared with other running jobs on it.
    pub(super) fn live(&mut self, id: QueueId) -> Arc<Live> {
        if let Some(live) = self.live.get(&id).and_then(Weak::upgrade) {
            return live;
        }
        let live = Arc::new(Live::new(id, OnceCell::new(), 0, &self.context));
        self.live.insert(id, Arc::downgrade(&live));
        live
    }
}

/// Returns the destination of mail for a recipient domain, its connection limit and its share of the attempts.
pub(super) fn place(settings: &Snapshot, host: &Host) -> Place {
    let connector = settings.connectors.for_host(host);
    let limit = connector.outbound.connections;
    match &connector.outbound.route {
        Route::SmartHosts(_) => {
            let destination = Destination::SmartHosts(connector.name.as_str().into());
            Place { destination, limit, share: Share::Named }
        }
        Route::Mx { .. } => {
            let share = if connector.domains.iter().all(names_somebody) { Share::Named } else { Share::ByMx };
            Place { destination: Destination::Domain(host.clone()), limit, share }
        }
    }
}

/// Returns true when a pattern names particular domains: not `*`, and not all domains of a top-level domain.
fn names_somebody(pattern: &DomainPattern) -> bool {
    match pattern {
        DomainPattern::Any => false,
        DomainPattern::Below(domain) => domain.parent().is_some(),
        DomainPattern::Exactly(_) => true,
    }
}
