//! From what is due to tasks at work: begins jobs while there may be more, and ends slow attempts where others find
//! no place.

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

/// Jobs under way beside the attempts: results that are being written down, and messages whose time has come.
const WRITING_MAX: usize = 1000;

impl Scheduler {
    /// Whether another job may begin. One whose evidence cannot be written would only be done again; the first that
    /// can be finished wakes us.
    pub(super) fn may_begin(&self) -> bool {
        let attempts = self.context.running.load().config.limits.delivery_attempts as usize;
        self.jobs < attempts + WRITING_MAX && !(self.jobs > 0 && self.context.evidence.is_stuck())
    }

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

    /// The message behind an id: the one that other jobs are working on, if any are.
    pub(super) fn live(&mut self, id: QueueId) -> Arc<Live> {
        if let Some(live) = self.live.get(&id).and_then(Weak::upgrade) {
            return live;
        }
        let live = Arc::new(Live::new(id, OnceCell::new(), 0, &self.context));
        self.live.insert(id, Arc::downgrade(&live));
        live
    }
}

/// Where mail for a host goes, how many attempts may be made there at the same time, and of which share they are.
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

/// Whether a pattern names somebody: any domain may be anybody's, and so may any under a top-level domain.
fn names_somebody(pattern: &DomainPattern) -> bool {
    match pattern {
        DomainPattern::Any => false,
        DomainPattern::Below(domain) => domain.parent().is_some(),
        DomainPattern::Exactly(_) => true,
    }
}
