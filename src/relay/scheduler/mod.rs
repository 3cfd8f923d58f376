//! The scheduler starts delivery attempts, limits how many run at once, retries and expires
//! messages.
//!
//! One task owns the queue in memory (`queues`). Each attempt is a task of its own (`delivery`),
//! which sends an `Event` when it ends. Every message is in the spool before it is queued here, so
//! a restart rebuilds the queue. The scheduler opens no connection; of the policy it reads only the
//! route and the limits of a connector.

mod active_message;
mod attempt_failure;
mod damage;
mod delivery;
mod delivery_log;
mod dispatch;
mod evidence_records;
mod liveness;
mod orders;
mod query;
mod queues;
mod report_queue;
mod reporting;
mod result;
mod retry_schedule;
mod sender_reports;
mod spool_scan;
mod usage;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{OnceCell, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::relay::outbound::{Attempt, AttemptLimit, AttemptResult, Outbound};
use crate::relay::running_config::{RunningConfig, Snapshot};
use crate::smtp::address::Host;
use crate::smtp::envelope::{QueueId, TlsRequirement};
use crate::storage::evidence::Evidence;
use crate::storage::spool::{Body, ClockJumps, Entry, Spool, SpoolError, StoredMessage};

use active_message::{ActiveMessage, LoadedMessage};
use dispatch::placement;
pub use liveness::{SchedulerProbe, Workload};
pub use orders::{Operator, Order, OrderOutcome, OrderRefused};
pub use query::{BackoffStatus, DestinationStatus, MessageStatus, StatusQuery, StatusReply};
pub use queues::Share;
use queues::{AttemptId, AttemptToken, Destination, DestinationQueues, Health, Item};
pub use report_queue::ReportCounts;
use report_queue::{Limiter, OwedReports, ReportCounters, ReportQueue};
use spool_scan::{PendingDomain, pending_domains};
pub use usage::ShareUsage;
use usage::Usage;

/// The most octets of content that wait in memory for a first attempt. Further content is read from
/// the spool.
const MEMORY_MAX: u64 = 64 << 20;

/// A callback for each attempt, called after the attempt ends and before its result is stored.
pub type Observer = Arc<dyn Fn(&Attempt, &AttemptResult) + Send + Sync>;

/// The parts of the relay that every delivery task uses.
struct Context {
    spool: Arc<dyn Spool>,
    evidence: Evidence,
    outbound: Arc<Outbound>,
    running: RunningConfig,
    observer: Observer,
    events: mpsc::UnboundedSender<Event>,
    /// The rate limit of reports to senders.
    limiter: Mutex<Limiter>,
    /// The counts of reports.
    reports: ReportCounters,
    /// The octets of content in memory, at most [`MEMORY_MAX`].
    in_memory: Arc<AtomicU64>,
    /// Cancelled at shutdown: no job starts any more, and a write that fails is not retried.
    ending: CancellationToken,
}

/// A message from a delivery task to the scheduler. The number of jobs bounds the number of events
/// in the channel.
enum Event {
    /// An attempt has ended, and its connection slot is free.
    Finished(AttemptToken, Health),
    /// The result of a job is stored. The item is queued again for the given time, if recipients
    /// remain.
    Settled(QueueId, Option<(Item<LoadedMessage>, Instant)>),
    /// A report was stored in the spool and is to be delivered.
    Report(Box<Entry>),
    /// The reports that a message owes have changed; the change is stored.
    ReportsOwed(QueueId, OwedReports),
    /// A report task has ended. A time means that a report is still owed and is retried after it.
    Reported(QueueId, Option<Duration>),
    /// A digest task has ended.
    Digested {
        /// The messages that the task worked on.
        ids: Vec<QueueId>,
        /// The messages among them that still need a digest.
        remaining: Vec<QueueId>,
    },
    /// An operator's order on one message has ended.
    Ordered(QueueId, orders::AfterOrder),
}

/// The task that owns the queue.
pub struct Scheduler {
    context: Arc<Context>,
    first_new: QueueId,
    clock_jumps: ClockJumps,
    events: mpsc::UnboundedReceiver<Event>,
    queues: DestinationQueues<LoadedMessage>,
    messages: HashMap<QueueId, Weak<ActiveMessage>>,
    /// The number of running jobs for each message that has any.
    active: HashMap<QueueId, usize>,
    /// The messages with an operator's order in progress.
    ordered: HashSet<QueueId>,
    /// The messages whose reports are not stored yet.
    owed: ReportQueue,
    /// The number of running jobs.
    jobs: usize,
    /// The time limits of the running attempts.
    limits: HashMap<AttemptId, AttemptLimit>,
    /// The use of the attempts, published for status and metrics.
    usage: Usage,
    operator: Operator,
    orders: mpsc::Receiver<orders::Request>,
    liveness: SchedulerProbe,
    probes: mpsc::Receiver<liveness::ProbeReply>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler")
            .field("waiting", &self.queues.len())
            .finish_non_exhaustive()
    }
}

impl Scheduler {
    /// Creates a scheduler with an empty queue. Create it before any message is accepted: messages
    /// with an id below the next free one count as left over from an earlier run.
    #[must_use]
    pub fn new(
        spool: Arc<dyn Spool>,
        evidence: Evidence,
        outbound: Arc<Outbound>,
        running: RunningConfig,
        observer: Observer,
    ) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let attempts = running.load().config.limits.delivery_attempts;
        let queues = DestinationQueues::new(Instant::now(), retry_schedule::spread, attempts);
        let usage = Usage::default();
        let in_memory = Arc::new(AtomicU64::new(0));
        let first_new = spool.draft().id();
        let clock_jumps = spool.clock_jumps();
        let ending = CancellationToken::new();
        let (limiter, reports) = (
            Mutex::new(Limiter::new(Instant::now())),
            ReportCounters::default(),
        );
        let (operator, orders) = orders::channel(usage.clone(), reports.clone());
        let owed = ReportQueue::new(Instant::now(), reports.clone());
        let context = Context {
            spool,
            evidence,
            outbound,
            running,
            observer,
            events: sender,
            limiter,
            reports,
            in_memory,
            ending,
        };
        let (liveness, probes) = liveness::channel();
        Self {
            context: Arc::new(context),
            first_new,
            clock_jumps,
            events,
            queues,
            messages: HashMap::new(),
            active: HashMap::new(),
            ordered: HashSet::new(),
            owed,
            jobs: 0,
            limits: HashMap::new(),
            usage,
            operator,
            orders,
            liveness,
            probes,
            tasks: TaskTracker::new(),
        }
    }

    /// Returns the handle for operators' orders and queries.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// Delivers the messages in the spool and those from `accepted` until `stop`. Then waits for
    /// running attempts, at most `[timeouts] drain`. Undelivered messages stay in the spool.
    ///
    /// # Errors
    /// An error of the spool while it is read at the start.
    pub async fn run(
        mut self,
        mut accepted: mpsc::Receiver<Entry>,
        stop: CancellationToken,
    ) -> Result<(), SpoolError> {
        let mut pages = self.read_spool();
        let mut reading = true;
        let running = self.context.running.clone();
        loop {
            self.dispatch();
            self.begin_reports();
            // When no job may start, the next event wakes the loop.
            let wake = self
                .queues
                .next_wake()
                .into_iter()
                .chain(self.owed.next_wake())
                .min();
            let wake = wake.filter(|_| self.may_begin());
            let wake = wake.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = running.replaced() => self.reload(),
                Some(event) = self.events.recv() => self.handle_event(event),
                page = pages.recv(), if reading => match page {
                    Some(page) => page?.into_iter().for_each(|stored| self.enqueue_stored(&stored)),
                    None => reading = false,
                },
                Some(answer) = self.probes.recv() => self.answer_probe(answer),
                // Orders wait until the whole spool is in memory, since an order works on both.
                Some(request) = self.orders.recv(), if !reading => {
                    while let Ok(entry) = accepted.try_recv() {
                        self.enqueue_entry(entry);
                    }
                    self.handle_request(request);
                }
                entry = accepted.recv() => match entry {
                    Some(entry) => self.enqueue_entry(entry),
                    None => break,
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        // Messages accepted from now on wait in the spool for the next run.
        drop(accepted);
        self.orders.close();
        self.drain().await;
        Ok(())
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Finished(token, health) => {
                self.limits.remove(&token.attempt);
                let settings = self.context.running.load();
                self.queues
                    .finished(token, Instant::now(), health, &settings.config.queue.retry);
            }
            Event::Report(entry) => self.enqueue_entry(*entry),
            Event::ReportsOwed(id, debt) => self.owed.update(id, debt, Instant::now()),
            Event::Reported(id, again) => {
                self.jobs -= 1;
                self.end_job(id);
                self.owed.reported(id, again, Instant::now());
            }
            Event::Digested { ids, remaining } => {
                self.jobs -= 1;
                for id in ids {
                    self.end_job(id);
                }
                self.owed.digested(remaining, Instant::now());
            }
            Event::Settled(id, remaining) => {
                self.jobs -= 1;
                self.end_job(id);
                if let Some((item, due)) = remaining {
                    self.enqueue(item, due);
                }
            }
            Event::Ordered(id, remaining) => {
                self.ordered.remove(&id);
                self.end_job(id);
                match remaining {
                    orders::AfterOrder::Nothing => {}
                    orders::AfterOrder::SameItems(items) => {
                        for (item, due) in items {
                            self.enqueue(item, due);
                        }
                    }
                    orders::AfterOrder::Requeue(stored) => self.enqueue_released(&stored),
                }
            }
        }
    }

    /// Counts the end of a job on a message.
    fn end_job(&mut self, id: QueueId) {
        if let Some(jobs) = self.active.get_mut(&id) {
            *jobs -= 1;
            if *jobs == 0 {
                self.active.remove(&id);
            }
        }
        if self
            .messages
            .get(&id)
            .is_some_and(|message| message.strong_count() == 0)
        {
            self.messages.remove(&id);
        }
    }

    /// Queues a message that an operator released. It is tried at once, even when its destination
    /// is in backoff, and expires no earlier than the whole retry schedule from now, however old it
    /// is.
    fn enqueue_released(&mut self, stored: &StoredMessage) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        let longest = settings.config.queue.retry.iter().sum::<Duration>();
        let expires = self
            .expiry(&settings, now, stored.accepted)
            .max(now + longest);
        self.enqueue_until(stored, &settings, now, expires);
        let is_relaxed = stored.envelope.tls == TlsRequirement::Relaxed;
        for waiting in pending_domains(&stored.envelope) {
            let destination = self.destination(&waiting.host);
            self.queues
                .clear_backoff(&destination, &waiting.host, is_relaxed);
        }
    }

    /// Returns the time at which a message accepted at `accepted` expires.
    fn expiry(&self, settings: &Snapshot, now: Instant, accepted: Timestamp) -> Instant {
        now + settings
            .config
            .queue
            .expire
            .saturating_sub(self.clock_jumps.age(accepted, Timestamp::now()))
    }

    fn enqueue_stored(&mut self, stored: &StoredMessage) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        self.enqueue_until(
            stored,
            &settings,
            now,
            self.expiry(&settings, now, stored.accepted),
        );
    }

    fn enqueue_until(
        &mut self,
        stored: &StoredMessage,
        settings: &Snapshot,
        now: Instant,
        expires: Instant,
    ) {
        self.queue_owed_reports(stored.id, &stored.envelope, stored.size);
        let warn_at = result::warn_at(settings, expires);
        let is_relaxed = stored.envelope.tls == TlsRequirement::Relaxed;
        for PendingDomain { host, next, warned } in pending_domains(&stored.envelope) {
            let due = next
                .map_or(now, |at| {
                    now + retry_schedule::until(at, &settings.config.queue.retry)
                })
                .min(expires);
            let deadline = warn_at.filter(|_| !warned).unwrap_or(expires);
            let expire = settings.config.queue.expire;
            self.enqueue(
                Item {
                    id: stored.id,
                    host,
                    is_relaxed,
                    deadline,
                    expires,
                    expire,
                    loaded: None,
                },
                due,
            );
        }
    }

    /// Queues a message that was just accepted. Its age counts from now, not from its timestamp,
    /// since the system clock may have jumped in between.
    fn enqueue_entry(&mut self, entry: Entry) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        let expires = now + settings.config.queue.expire;
        let hosts = pending_domains(&entry.envelope);
        let is_relaxed = entry.envelope.tls == TlsRequirement::Relaxed;
        let message = self.keep_in_memory(entry);
        if let (Some(message), true) = (&message.1, hosts.len() > 1) {
            self.messages.insert(message.id, Arc::downgrade(message));
        }
        let deadline = result::warn_at(&settings, expires).unwrap_or(expires);
        let expire = settings.config.queue.expire;
        for PendingDomain { host, .. } in hosts {
            let (id, loaded) = (message.0, message.1.clone());
            self.enqueue(
                Item {
                    id,
                    host,
                    is_relaxed,
                    deadline,
                    expires,
                    expire,
                    loaded,
                },
                now,
            );
        }
    }

    /// Keeps a new message in memory for its first attempt, unless [`MEMORY_MAX`] is reached.
    fn keep_in_memory(&self, entry: Entry) -> (QueueId, LoadedMessage) {
        let held = match &entry.body {
            Body::Memory(content) => content.len() as u64,
            Body::File { .. } => 0,
        };
        let held = held
            + entry
                .envelope
                .arrival
                .as_ref()
                .map_or(0, |arrival| arrival.json().len() as u64);
        let in_memory = &self.context.in_memory;
        if in_memory.load(Ordering::Relaxed) + held > MEMORY_MAX {
            return (entry.id, None);
        }
        in_memory.fetch_add(held, Ordering::Relaxed);
        let message = ActiveMessage::new(
            entry.id,
            OnceCell::new_with(Some(Arc::new(entry))),
            held,
            &self.context,
        );
        (message.id, Some(Arc::new(message)))
    }

    fn enqueue(&mut self, mut item: Item<LoadedMessage>, due: Instant) {
        let destination = self.destination(&item.host);
        if item.loaded.is_some()
            && !self
                .queues
                .is_tried_soon(&destination, &item.host, item.is_relaxed)
        {
            // The first attempt is not soon, so the content is read from the spool then.
            item.loaded = None;
        }
        // The configuration may have been replaced while a job had this item.
        let settings = self.context.running.load();
        if item.expire != settings.config.queue.expire {
            result::rebase_deadlines(&settings, &mut item);
        }
        self.queues.push(item, due);
    }

    /// Applies a new configuration to the waiting messages.
    fn reload(&mut self) {
        let settings = self.context.running.load();
        self.queues.resize(settings.config.limits.delivery_attempts);
        self.queues
            .reload(|item| result::rebase_deadlines(&settings, item));
    }

    fn destination(&self, host: &Host) -> Destination {
        placement(&self.context.running.load(), host).destination
    }

    async fn drain(self) {
        self.context.ending.cancel();
        self.tasks.close();
        let patience = self.context.running.load().config.timeouts.drain;
        let waiting = self.tasks.len();
        if waiting > 0 {
            tracing::info!(deliveries = waiting, "waiting for running deliveries");
        }
        if tokio::time::timeout(patience, self.tasks.wait())
            .await
            .is_err()
        {
            let remaining = self.tasks.len();
            tracing::warn!(
                deliveries = remaining,
                "deliveries were cut short; they are retried after the restart"
            );
        }
    }
}
