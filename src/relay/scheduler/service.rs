//! The task that owns the queue: it waits for events, and starts what is due.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::relay::outbound::Outbound;
use crate::relay::running_config::RunningConfig;
use crate::smtp::envelope::QueueId;
use crate::storage::evidence::Evidence;
use crate::storage::spool::{Claimed, Entry, Spool, SpoolError};

use super::context::{AfterOrder, Context, Event};
use super::liveness::{self, SchedulerProbe, Workload};
use super::operator::{self, Operator};
use super::ownership::{OwnershipEvent, follow_ownership};
use super::recorded_acceptances::RecordedAcceptances;
use super::report_queue::{Limiter, ReportCounters};
use super::state::SchedulerState;
use super::usage::Usage;
use super::waiting_results::WaitingResults;

/// The wait before the scheduler checks again that jobs may start.
const BLOCKED_PAUSE: Duration = Duration::from_secs(1);

/// The task that owns the queue.
pub struct Scheduler {
    state: SchedulerState,
    events: mpsc::UnboundedReceiver<Event>,
    operator: Operator,
    orders: mpsc::Receiver<operator::Request>,
    liveness: SchedulerProbe,
    probes: mpsc::Receiver<liveness::ProbeReply>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler")
            .field("waiting", &self.state.queues.len())
            .finish_non_exhaustive()
    }
}

impl Scheduler {
    /// Creates a scheduler with an empty queue.
    #[must_use]
    pub fn new(
        spool: Arc<dyn Spool>,
        evidence: Evidence,
        outbound: Arc<Outbound>,
        running: RunningConfig,
    ) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let (usage, reports) = (Usage::default(), ReportCounters::default());
        let (operator, orders) = operator::channel(usage.clone(), reports.clone());
        let (liveness, probes) = liveness::channel();
        let context = Context {
            spool,
            evidence,
            outbound,
            running,
            events: sender,
            waiting_results: WaitingResults::default(),
            acceptances: RecordedAcceptances::default(),
            limiter: Mutex::new(Limiter::new(Instant::now())),
            reports,
            marked_report: Mutex::new(None),
            in_memory: Arc::new(AtomicU64::new(0)),
            ending: CancellationToken::new(),
        };
        let state = SchedulerState::new(context, usage);
        Self {
            state,
            events,
            operator,
            orders,
            liveness,
            probes,
        }
    }

    /// Returns the handle for operators' orders and queries.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// Returns the liveness probe of this scheduler.
    #[must_use]
    pub fn liveness(&self) -> SchedulerProbe {
        self.liveness.clone()
    }

    /// Claims the messages in the spool that nobody owns, whenever there may be some, and delivers them
    /// and those from `accepted` until `stop`. Forgets those that other relays have claimed. Then waits for running attempts, at most `[timeouts] drain`, and releases the
    /// messages that wait. Undelivered messages stay in the spool.
    ///
    /// # Errors
    /// An error of the spool while messages are claimed at the start, except that its lease is over:
    /// the claim goes on when that holds again.
    pub async fn run(
        mut self,
        mut accepted: mpsc::Receiver<Claimed<Entry>>,
        stop: CancellationToken,
    ) -> Result<(), SpoolError> {
        let mut ownership = follow_ownership(&self.state.context.spool);
        // True until the whole spool has been read once.
        let mut reading = true;
        let running = self.state.context.running.clone();
        loop {
            self.state.dispatch();
            self.state.begin_reports();
            self.state.begin_quarantine_report();
            // When no job may start, the next event wakes the loop, or the pause if there is none.
            let wake = self
                .state
                .queues
                .next_wake()
                .into_iter()
                .chain(self.state.owed.next_wake())
                .chain(self.state.quarantine_report.next_wake())
                .min();
            let wake = match wake {
                Some(at) if self.state.may_begin() => at,
                Some(at) if self.state.is_blocked() => at.max(Instant::now() + BLOCKED_PAUSE),
                Some(_) | None => Instant::now() + Duration::from_hours(1),
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = running.replaced() => self.state.reload(),
                Some(event) = self.events.recv() => self.handle_event(event),
                Some(event) = ownership.recv() => match event {
                    OwnershipEvent::Failed(error) => return Err(error),
                    OwnershipEvent::Lost(ids, done) => {
                        // What was accepted before is among it, perhaps.
                        while let Ok(entry) = accepted.try_recv() {
                            self.state.enqueue_entry(entry);
                        }
                        self.lose(ids);
                        drop(done);
                    }
                    OwnershipEvent::HandOver => self.state.begin_hand_over(),
                    OwnershipEvent::Searching => self.state.is_claiming = true,
                    OwnershipEvent::Claimed(page) => {
                        for stored in page {
                            self.state.enqueue_claimed(stored);
                        }
                    }
                    OwnershipEvent::Searched => {
                        (self.state.is_claiming, reading) = (false, false);
                        self.state.quarantine_report.spool_read();
                    }
                },
                Some(answer) = self.probes.recv() => self.answer_probe(answer),
                // Orders wait until the whole spool is in memory, since an order works on both.
                Some(request) = self.orders.recv(), if !reading => {
                    while let Ok(entry) = accepted.try_recv() {
                        self.state.enqueue_entry(entry);
                    }
                    self.state.handle_request(request);
                }
                entry = accepted.recv() => match entry {
                    Some(entry) => self.state.enqueue_entry(entry),
                    None => break,
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        // Messages accepted from now on wait in the spool for the next run.
        accepted.close();
        while let Ok(entry) = accepted.try_recv() {
            self.state.enqueue_entry(entry);
        }
        drop(accepted);
        self.orders.close();
        self.drain(ownership).await;
        Ok(())
    }

    /// Forgets messages that others have claimed while the lease was over.
    fn lose(&mut self, ids: Vec<QueueId>) {
        let messages = ids.len();
        tracing::warn!(
            messages,
            "other relays have claimed messages of this one, since its lease was over; they deliver them"
        );
        self.state.lose(&ids.into_iter().collect());
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Finished(token, host, user_connector, health) => {
                self.state.limits.remove(&token.attempt);
                let settings = self.state.context.running.load();
                self.state.queues.finished(
                    token,
                    Instant::now(),
                    health,
                    settings.schedule(&host, user_connector.as_deref()).retry,
                );
            }
            Event::Report(entry) => self.state.enqueue_entry(*entry),
            Event::ReportsOwed(claim, _) if self.state.disowned.has_jobs(claim.id()) => {}
            Event::ReportsOwed(claim, debt) => self.state.owed.update(claim, debt, Instant::now()),
            Event::Reported(id, again) => {
                self.state.jobs -= 1;
                self.state.owed.reported(id, again, Instant::now());
                self.state.end_job(id);
            }
            Event::Digested { ids, mut remaining } => {
                self.state.jobs -= 1;
                remaining.retain(|claim| !self.state.disowned.has_jobs(claim.id()));
                self.state.owed.digested(remaining, Instant::now());
                for id in ids {
                    self.state.end_job(id);
                }
            }
            Event::Settled(id, remaining) => {
                self.state.jobs -= 1;
                let remaining = remaining.filter(|_| !self.state.disowned.has_jobs(id));
                if let Some((item, due)) = remaining {
                    self.state.enqueue(item, due);
                }
                self.state.end_job(id);
            }
            Event::QuarantineReported(is_stored) => self.state.quarantine_reported(is_stored),
            Event::HandedOver(end) => self.state.handed_over(end),
            // Jobs from before the message was lost, and perhaps claimed again, say nothing new.
            Event::NotOwner(id) if self.state.disowned.has_jobs(id) => {}
            Event::NotOwner(id) => self.state.lose(&HashSet::from([id])),
            Event::Ordered(id, remaining) => {
                self.state.ordered.remove(&id);
                if !self.state.disowned.has_jobs(id) {
                    self.requeue(remaining);
                }
                self.state.end_job(id);
            }
        }
    }

    /// Queues the work that remains for a message after an order.
    fn requeue(&mut self, remaining: AfterOrder) {
        match remaining {
            AfterOrder::Nothing => {}
            AfterOrder::SameItems(items) => {
                for (item, due) in items {
                    self.state.enqueue(item, due);
                }
            }
            AfterOrder::Requeue(stored) => self.state.enqueue_released(&stored),
        }
    }

    /// Answers a liveness probe.
    fn answer_probe(&self, answer: liveness::ProbeReply) {
        // The caller may have given up waiting.
        let _ = answer.send(Workload {
            waiting: self.state.queues.len(),
            under_way: self.state.jobs,
        });
    }

    /// Waits for the running deliveries. Those of messages that others claim meanwhile end.
    async fn drain(mut self, mut ownership: mpsc::Receiver<OwnershipEvent>) {
        self.state.context.ending.cancel();
        self.state.tasks.close();
        self.state.release_waiting().await;
        let patience = self.state.context.running.load().config.timeouts.drain;
        let waiting = self.state.tasks.len();
        if waiting > 0 {
            tracing::info!(deliveries = waiting, "waiting for running deliveries");
        }
        let tasks = self.state.tasks.clone();
        let ended = async {
            loop {
                tokio::select! {
                    () = tasks.wait() => return,
                    // The lease holds again when these are forgotten; results are stored then.
                    Some(event) = ownership.recv() => if let OwnershipEvent::Lost(ids, _) = event {
                        self.lose(ids);
                    },
                }
            }
        };
        if tokio::time::timeout(patience, ended).await.is_err() {
            let remaining = self.state.tasks.len();
            tracing::warn!(
                deliveries = remaining,
                "deliveries were cut short; they are retried after the restart"
            );
        }
    }
}
