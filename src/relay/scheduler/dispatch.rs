//! Starts a task for each job that is due, up to the limit, and ends slow attempts when other
//! destinations wait.

use std::sync::Arc;
use std::time::Instant;

use crate::relay::outbound::AttemptLimit;

use super::delivery;
use super::placement::placement_of;
use super::queues::Job;
use super::state::SchedulerState;

impl SchedulerState {
    /// Starts the jobs that are due, and ends slow attempts that must give way to other
    /// destinations.
    pub(super) fn dispatch(&mut self) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        let share = self.context.spool.cluster_share();
        if self.queues.set_cluster_share(share) {
            self.context.outbound.set_cluster_share(share);
        }
        while self.may_begin() {
            let Some(job) = self.queues.next(now, |item| placement_of(&settings, item)) else {
                break;
            };
            let (Job::Deliver(_, item) | Job::DeadlineReached(item, _, _)) = &job;
            let message = item
                .loaded
                .clone()
                .unwrap_or_else(|| self.active_message(item.claim));
            let id = item.id();
            *self.active.entry(id).or_default() += 1;
            self.jobs += 1;
            let time = settings.config.limits.delivery_attempt_time;
            let limit = AttemptLimit::of_owner(time, self.lease.clone());
            if let Job::Deliver(token, _) = &job {
                self.limits.insert(token.attempt, (id, limit.clone()));
            }
            let context = Arc::clone(&self.context);
            // Boxed: the task is moved several times until it runs.
            let work = Box::pin(delivery::work(context, message, job, limit));
            self.tasks.spawn(work);
        }
        let may_end = |attempt| {
            let limit = self.limits.get(&attempt);
            limit.is_some_and(|(_, limit)| limit.may_end())
        };
        for attempt in self.queues.choose_to_end(may_end) {
            if let Some((_, limit)) = self.limits.get(&attempt) {
                limit.end();
            }
        }
        self.usage.publish(self.queues.in_use());
    }
}
