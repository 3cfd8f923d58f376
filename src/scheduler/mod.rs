//! The scheduler: who is due, how many at once, and when it is too late.
//!
//! One task owns the queue in memory (`lanes`); every attempt is a task of its own (`delivery`)
//! that reports back. What is in the queue is in the spool first: were this task lost, a restart
//! takes everything up again. It opens no connection and reads no policy but the connector's limits.

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
use crate::outbound::{Attempt, AttemptLimit, Outbound, Report};
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

/// Octets of content that may wait in memory for their first attempt; what is over is read again.
const MEMORY_MAX: u64 = 64 << 20;

/// Is told of every attempt, after it ended and before its result is written down.
pub type Observer = Arc<dyn Fn(&Attempt, &Report) + Send + Sync>;

/// What every delivery needs.
struct Context {
    spool: Arc<dyn Spool>,
    evidence: Evidence,
    outbound: Arc<Outbound>,
    running: RunningConfig,
    observer: Observer,
    events: mpsc::UnboundedSender<Event>,
    /// The rate of reports to senders.
    limiter: Mutex<Limiter>,
    /// The reports that were made.
    reports: Counts,
    /// Octets of content that wait in memory.
    in_memory: Arc<AtomicU64>,
    /// Nothing is begun any more, and nothing that fails is tried again.
    ending: CancellationToken,
}

/// What a delivery tells the scheduler. Their number is bounded by that of the jobs.
enum Event {
    /// The connection is free again.
    Finished(Ticket, Health),
    /// The result is written down; what is left to do, and when.
    Settled(QueueId, Option<(Item<Cargo>, Instant)>),
    /// A report was committed.
    Report(Box<Entry>),
    /// What is owed about a message has changed, and is durable.
    Owes(QueueId, Debt),
    /// The work on the report about a message has ended; what is owed still is tried again after this time.
    Reported(QueueId, Option<Duration>),
    /// The work on a digest has ended.
    Digested {
        /// The messages that it was about.
        ids: Vec<QueueId>,
        /// Those of them that are owed still.
        left: Vec<QueueId>,
    },
    /// An operator's order was carried out, or refused.
    Ordered(QueueId, orders::Left),
}

/// The queue.
pub struct Scheduler {
    context: Arc<Context>,
    first_new: QueueId,
    clock_jumps: ClockJumps,
    events: mpsc::UnboundedReceiver<Event>,
    lanes: Lanes<Cargo>,
    live: HashMap<QueueId, Weak<Live>>,
    /// Messages that are being worked on, and by how many jobs.
    active: HashMap<QueueId, usize>,
    /// Messages that an operator's order is being carried out on.
    ordered: HashSet<QueueId>,
    /// Messages whose reports are not stored yet.
    owed: Owed,
    /// Jobs under way.
    jobs: usize,
    /// The limits of the attempts under way.
    limits: HashMap<AttemptId, AttemptLimit>,
    /// How much of the attempts is in use, for those who watch.
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
    /// Makes a scheduler with an empty queue. It must exist before anything is accepted: what has a smaller
    /// id than the next one is taken to be from an earlier run.
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

    /// A hand on the queue, for operators.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// Delivers what the spool holds and what `accepted` brings, until `stop`; then waits for the
    /// attempts that are under way, `[timeouts] drain` at most. What they leave undone is in the spool.
    ///
    /// # Errors
    /// Whatever keeps the spool from being read at the start.
    pub async fn run(mut self, mut accepted: mpsc::Receiver<Entry>, stop: CancellationToken) -> Result<(), SpoolError> {
        let mut pages = self.read_spool();
        let mut reading = true;
        let running = self.context.running.clone();
        loop {
            self.dispatch();
            self.begin_reports();
            // With every attempt taken, the next one that ends wakes us.
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
                // What the spool holds is complete in memory first: an order works on both.
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
        // What is still accepted waits in the spool for the next run, and no order is taken any more.
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

    /// One job on a message has ended.
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

    /// A message that an operator lets go is tried at once, whatever is known of its destination, and
    /// has time for more than one try, however old it is.
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

    /// When a message that was accepted then is given up.
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

    /// Takes up a message that has just come in. Its age is zero, whatever the clock says: it may have jumped since the
    /// message was accepted.
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

    /// Keeps a fresh message in memory, so that its first attempt need not read it back.
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
            // Its content need not wait in memory.
            item.cargo = None;
        }
        // It may have been on its way while the settings were replaced.
        let settings = self.context.running.load();
        if item.expire != settings.config.queue.expire {
            settle::reckon(&settings, &mut item);
        }
        self.lanes.push(item, due);
    }

    /// There are other settings: they hold for the mail that waits, too.
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
            tracing::info!(deliveries = waiting, "waiting for deliveries in flight");
        }
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            let left = self.tasks.len();
            tracing::warn!(deliveries = left, "deliveries were cut short; they start again with the next run");
        }
    }
}
