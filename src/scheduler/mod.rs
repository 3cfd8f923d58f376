//! The scheduler starts delivery attempts, limits how many run at once, retries and expires messages.
//!
//! One task owns the queue in memory (`lanes`). Each attempt is a task of its own (`delivery`), which sends an
//! [`Event`] when it ends. Every message is in the spool before it is queued here, so a restart rebuilds the queue.
//! The scheduler opens no connection; of the policy it reads only the route and the limits of a connector.

mod backlog;
mod damage;
mod delivery;
mod dispatch;
mod journal;
mod lanes;
mod live;
mod notice;
mod orders;
mod outlook;
mod owed;
mod pulse;
mod reporting;
mod settle;
mod trouble;
mod usage;
mod waits;
mod witness;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{OnceCell, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::Host;
use crate::envelope::{QueueId, TlsRequirement};
use crate::evidence::Evidence;
use crate::outbound::{Attempt, AttemptLimit, AttemptResult, Outbound};
use crate::running_config::{RunningConfig, Snapshot};
use crate::spool::{Body, ClockJumps, Entry, Spool, SpoolError, StoredMessage};

use backlog::{Waiting, destinations};
use dispatch::place;
pub use lanes::Share;
use lanes::{AttemptId, Destination, Health, Item, Lanes, Ticket};
use live::{Cargo, Live};
pub use orders::{Answer, Operator, Order, Refused};
pub use outlook::{Asked, Outlook, Pause, Prospect, Way};
pub use owed::ReportCounts;
use owed::{Counts, Debt, Limiter, Owed};
pub use pulse::{Pulse, Work};
pub use usage::ShareUsage;
use usage::Usage;

/// The most octets of content that wait in memory for a first attempt. Further content is read from the spool.
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
    reports: Counts,
    /// The octets of content in memory, at most [`MEMORY_MAX`].
    in_memory: Arc<AtomicU64>,
    /// Cancelled at shutdown: no job starts any more, and a write that fails is not retried.
    ending: CancellationToken,
}

/// A message from a delivery task to the scheduler. The number of jobs bounds the number of events in the channel.
enum Event {
    /// An attempt has ended, and its connection slot is free.
    Finished(Ticket, Health),
    /// The result of a job is stored. The item is queued again for the given time, if recipients remain.
    Settled(QueueId, Option<(Item<Cargo>, Instant)>),
    /// A report was stored in the spool and is to be delivered.
    Report(Box<Entry>),
    /// The reports that a message owes have changed; the change is stored.
    Owes(QueueId, Debt),
    /// A report task has ended. A time means that a report is still owed and is retried after it.
    Reported(QueueId, Option<Duration>),
    /// A digest task has ended.
    Digested {
        /// The messages that the task worked on.
        ids: Vec<QueueId>,
        /// The messages among them that still need a digest.
        left: Vec<QueueId>,
    },
    /// An operator's order on one message has ended.
    Ordered(QueueId, orders::Left),
}

/// The task that owns the queue.
pub struct Scheduler {
    context: Arc<Context>,
    first_new: QueueId,
    clock_jumps: ClockJumps,
    events: mpsc::UnboundedReceiver<Event>,
    lanes: Lanes<Cargo>,
    live: HashMap<QueueId, Weak<Live>>,
    /// The number of running jobs for each message that has any.
    active: HashMap<QueueId, usize>,
    /// The messages with an operator's order in progress.
    ordered: HashSet<QueueId>,
    /// The messages whose reports are not stored yet.
    owed: Owed,
    /// The number of running jobs.
    jobs: usize,
    /// The time limits of the running attempts.
    limits: HashMap<AttemptId, AttemptLimit>,
    /// The use of the attempts, published for status and metrics.
    usage: Usage,
    operator: Operator,
    orders: mpsc::Receiver<orders::Request>,
    pulse: Pulse,
    felt: mpsc::Receiver<pulse::Feel>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("waiting", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl Scheduler {
    /// Creates a scheduler with an empty queue. Create it before any message is accepted: messages with an id below
    /// the next free one count as left over from an earlier run.
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
        let lanes = Lanes::new(Instant::now(), waits::spread, attempts);
        let usage = Usage::default();
        let in_memory = Arc::new(AtomicU64::new(0));
        let first_new = spool.draft().id();
        let clock_jumps = spool.clock_jumps();
        let ending = CancellationToken::new();
        let (limiter, reports) = (Mutex::new(Limiter::new(Instant::now())), Counts::default());
        let (operator, orders) = orders::channel(usage.clone(), reports.clone());
        let owed = Owed::new(Instant::now(), reports.clone());
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
        let (pulse, felt) = pulse::channel();
        Self {
            context: Arc::new(context),
            first_new,
            clock_jumps,
            events,
            lanes,
            live: HashMap::new(),
            active: HashMap::new(),
            ordered: HashSet::new(),
            owed,
            jobs: 0,
            limits: HashMap::new(),
            usage,
            operator,
            orders,
            pulse,
            felt,
            tasks: TaskTracker::new(),
        }
    }

    /// Returns the handle for operators' orders and queries.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// Delivers the messages in the spool and those from `accepted` until `stop`. Then waits for running attempts,
    /// at most `[timeouts] drain`. Undelivered messages stay in the spool.
    ///
    /// # Errors
    /// An error of the spool while it is read at the start.
    pub async fn run(mut self, mut accepted: mpsc::Receiver<Entry>, stop: CancellationToken) -> Result<(), SpoolError> {
        let mut pages = self.read_spool();
        let mut reading = true;
        let running = self.context.running.clone();
        loop {
            self.dispatch();
            self.begin_reports();
            // When no job may start, the next event wakes the loop.
            let wake = self.lanes.next_wake().into_iter().chain(self.owed.next_wake()).min();
            let wake = wake.filter(|_| self.may_begin());
            let wake = wake.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = running.replaced() => self.begin_anew(),
                Some(event) = self.events.recv() => self.take_event(event),
                page = pages.recv(), if reading => match page {
                    Some(page) => page?.into_iter().for_each(|stored| self.enqueue_stored(&stored)),
                    None => reading = false,
                },
                Some(answer) = self.felt.recv() => self.beat(answer),
                // Orders wait until the whole spool is in memory, since an order works on both.
                Some(request) = self.orders.recv(), if !reading => {
                    while let Ok(entry) = accepted.try_recv() {
                        self.enqueue_entry(entry);
                    }
                    self.take_request(request);
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

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Finished(ticket, health) => {
                self.limits.remove(&ticket.attempt);
                let settings = self.context.running.load();
                self.lanes.finished(ticket, Instant::now(), health, &settings.config.queue.retry);
            }
            Event::Report(entry) => self.enqueue_entry(*entry),
            Event::Owes(id, debt) => self.owed.note(id, debt, Instant::now()),
            Event::Reported(id, again) => {
                self.jobs -= 1;
                self.rest(id);
                self.owed.reported(id, again, Instant::now());
            }
            Event::Digested { ids, left } => {
                self.jobs -= 1;
                for id in ids {
                    self.rest(id);
                }
                self.owed.digested(left, Instant::now());
            }
            Event::Settled(id, left) => {
                self.jobs -= 1;
                self.rest(id);
                if let Some((item, due)) = left {
                    self.enqueue(item, due);
                }
            }
            Event::Ordered(id, left) => {
                self.ordered.remove(&id);
                self.rest(id);
                match left {
                    orders::Left::Nothing => {}
                    orders::Left::AsBefore(items) => {
                        for (item, due) in items {
                            self.enqueue(item, due);
                        }
                    }
                    orders::Left::Anew(stored) => self.enqueue_released(&stored),
                }
            }
        }
    }

    /// Counts the end of a job on a message.
    fn rest(&mut self, id: QueueId) {
        if let Some(jobs) = self.active.get_mut(&id) {
            *jobs -= 1;
            if *jobs == 0 {
                self.active.remove(&id);
            }
        }
        if self.live.get(&id).is_some_and(|live| live.strong_count() == 0) {
            self.live.remove(&id);
        }
    }

    /// Queues a message that an operator released. It is tried at once, even when its destination is in backoff, and
    /// expires no earlier than the whole retry schedule from now, however old it is.
    fn enqueue_released(&mut self, stored: &StoredMessage) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        let longest = settings.config.queue.retry.iter().sum::<Duration>();
        let expires = self.expiry(&settings, now, stored.accepted).max(now + longest);
        self.enqueue_until(stored, &settings, now, expires);
        let is_relaxed = stored.envelope.tls == TlsRequirement::Relaxed;
        for waiting in destinations(&stored.envelope) {
            let destination = self.destination(&waiting.host);
            self.lanes.revive(&destination, &waiting.host, is_relaxed);
        }
    }

    /// Returns the time at which a message accepted at `accepted` expires.
    fn expiry(&self, settings: &Snapshot, now: Instant, accepted: Timestamp) -> Instant {
        now + settings.config.queue.expire.saturating_sub(self.clock_jumps.age(accepted, Timestamp::now()))
    }

    fn enqueue_stored(&mut self, stored: &StoredMessage) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        self.enqueue_until(stored, &settings, now, self.expiry(&settings, now, stored.accepted));
    }

    fn enqueue_until(&mut self, stored: &StoredMessage, settings: &Snapshot, now: Instant, expires: Instant) {
        self.note_debt(stored.id, &stored.envelope, stored.size);
        let warn_at = settle::warn_at(settings, expires);
        let is_relaxed = stored.envelope.tls == TlsRequirement::Relaxed;
        for Waiting { host, next, warned } in destinations(&stored.envelope) {
            let due = next.map_or(now, |at| now + waits::until(at, &settings.config.queue.retry)).min(expires);
            let deadline = warn_at.filter(|_| !warned).unwrap_or(expires);
            let expire = settings.config.queue.expire;
            self.enqueue(Item { id: stored.id, host, is_relaxed, deadline, expires, expire, cargo: None }, due);
        }
    }

    /// Queues a message that was just accepted. Its age counts from now, not from its timestamp, since the system
    /// clock may have jumped in between.
    fn enqueue_entry(&mut self, entry: Entry) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        let expires = now + settings.config.queue.expire;
        let hosts = destinations(&entry.envelope);
        let is_relaxed = entry.envelope.tls == TlsRequirement::Relaxed;
        let live = self.keep(entry);
        if let (Some(live), true) = (&live.1, hosts.len() > 1) {
            self.live.insert(live.id, Arc::downgrade(live));
        }
        let deadline = settle::warn_at(&settings, expires).unwrap_or(expires);
        let expire = settings.config.queue.expire;
        for Waiting { host, .. } in hosts {
            let (id, cargo) = (live.0, live.1.clone());
            self.enqueue(Item { id, host, is_relaxed, deadline, expires, expire, cargo }, now);
        }
    }

    /// Keeps a new message in memory for its first attempt, unless [`MEMORY_MAX`] is reached.
    fn keep(&self, entry: Entry) -> (QueueId, Cargo) {
        let held = match &entry.body {
            Body::Memory(content) => content.len() as u64,
            Body::File { .. } => 0,
        };
        let held = held + entry.envelope.arrival.as_ref().map_or(0, |arrival| arrival.json().len() as u64);
        let in_memory = &self.context.in_memory;
        if in_memory.load(Ordering::Relaxed) + held > MEMORY_MAX {
            return (entry.id, None);
        }
        in_memory.fetch_add(held, Ordering::Relaxed);
        let live = Live::new(entry.id, OnceCell::new_with(Some(Arc::new(entry))), held, &self.context);
        (live.id, Some(Arc::new(live)))
    }

    fn enqueue(&mut self, mut item: Item<Cargo>, due: Instant) {
        let destination = self.destination(&item.host);
        if item.cargo.is_some() && !self.lanes.is_prompt(&destination, &item.host, item.is_relaxed) {
            // The first attempt is not soon, so the content is read from the spool then.
            item.cargo = None;
        }
        // The configuration may have been replaced while a job had this item.
        let settings = self.context.running.load();
        if item.expire != settings.config.queue.expire {
            settle::reckon(&settings, &mut item);
        }
        self.lanes.push(item, due);
    }

    /// Applies a new configuration to the waiting messages.
    fn begin_anew(&mut self) {
        let settings = self.context.running.load();
        self.lanes.resize(settings.config.limits.delivery_attempts);
        self.lanes.begin_anew(|item| settle::reckon(&settings, item));
    }

    fn destination(&self, host: &Host) -> Destination {
        place(&self.context.running.load(), host).destination
    }

    async fn drain(self) {
        self.context.ending.cancel();
        self.tasks.close();
        let patience = self.context.running.load().config.timeouts.drain;
        let waiting = self.tasks.len();
        if waiting > 0 {
            tracing::info!(deliveries = waiting, "waiting for running deliveries");
        }
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            let left = self.tasks.len();
            tracing::warn!(deliveries = left, "deliveries were cut short; they are retried after the restart");
        }
    }
}
