//! The queue in memory: the waiting messages, the running jobs, and the reports that are owed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;

use crate::config::MailSchedule;
use crate::relay::outbound::AttemptLimit;
use crate::relay::running_config::Snapshot;
use crate::smtp::address::Host;
use crate::smtp::envelope::{Envelope, QueueId, TlsRequirement};
use crate::storage::spool::{Body, Claim, Claimed, ClockJumps, Entry, HeldLease, StoredMessage};

use super::active_message::{ActiveMessage, LoadedMessage, MEMORY_MAX};
use super::context::Context;
use super::deadlines::{rebase_deadlines, warn_at};
use super::disowned::DisownedMessages;
use super::hand_over_page::HandOver;
use super::pending_domains::{PendingDomain, pending_domains};
use super::placement::placement;
use super::quarantine_due::QuarantineReport;
use super::queues::{AttemptId, Destination, DestinationQueues, Item};
use super::report_queue::{OwedReports, ReportQueue};
use super::result::owed_reports;
use super::retry_schedule;
use super::usage::Usage;

/// The most jobs besides attempts: results that are being stored, and messages that have reached a
/// deadline.
const WRITING_MAX: usize = 1000;
/// The number of messages that are given back at a time.
const RELEASED: usize = 1000;

/// The state of the scheduler, which its loop alone changes.
pub(super) struct SchedulerState {
    pub(super) context: Arc<Context>,
    pub(super) clock_jumps: ClockJumps,
    /// The lease of the spool.
    pub(super) lease: HeldLease,
    pub(super) queues: DestinationQueues<LoadedMessage>,
    /// The messages with running jobs.
    pub(super) messages: HashMap<QueueId, Weak<ActiveMessage>>,
    /// The number of running jobs for each message that has any.
    pub(super) active: HashMap<QueueId, usize>,
    /// The messages with an operator's order in progress.
    pub(super) ordered: HashSet<QueueId>,
    /// The messages that were forgotten since others have them, and that still have jobs.
    pub(super) disowned: DisownedMessages,
    /// True while messages that nobody owns are being claimed.
    pub(super) is_claiming: bool,
    /// The hand-over to other relays while this one drains.
    pub(super) hand_over: HandOver,
    /// The messages whose reports are not stored yet.
    pub(super) owed: ReportQueue,
    /// The next report about quarantined messages.
    pub(super) quarantine_report: QuarantineReport,
    /// The number of running jobs.
    pub(super) jobs: usize,
    /// The messages of the running attempts, and their time limits.
    pub(super) limits: HashMap<AttemptId, (QueueId, AttemptLimit)>,
    /// The use of the attempts, published for status and metrics.
    pub(super) usage: Usage,
    pub(super) tasks: TaskTracker,
}

impl SchedulerState {
    /// Creates the state of an empty queue.
    pub(super) fn new(context: Context, usage: Usage) -> Self {
        let attempts = context.running.load().config.limits.delivery_attempts;
        let now = Instant::now();
        Self {
            clock_jumps: context.spool.clock_jumps(),
            lease: context.spool.lease(),
            queues: DestinationQueues::new(now, retry_schedule::spread, attempts),
            messages: HashMap::new(),
            active: HashMap::new(),
            ordered: HashSet::new(),
            disowned: DisownedMessages::default(),
            is_claiming: true,
            hand_over: HandOver::default(),
            owed: ReportQueue::new(now, context.reports.clone()),
            quarantine_report: QuarantineReport::new(),
            jobs: 0,
            limits: HashMap::new(),
            usage,
            tasks: TaskTracker::new(),
            context: Arc::new(context),
        }
    }

    /// Counts the end of a job on a message. Call it after the work that remains is queued or dropped.
    pub(super) fn end_job(&mut self, id: QueueId) {
        if let Some(jobs) = self.active.get_mut(&id) {
            *jobs -= 1;
            if *jobs == 0 {
                self.active.remove(&id);
                if let Some(reclaimed) = self.disowned.end_jobs(id) {
                    self.enqueue_stored(&reclaimed);
                }
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
    pub(super) fn enqueue_released(&mut self, stored: &Claimed<StoredMessage>) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        let age = self.age(stored.accepted);
        self.enqueue_until(stored, &settings, now, |schedule| {
            let longest = schedule.retry.iter().sum::<Duration>();
            now + schedule.expire.saturating_sub(age).max(longest)
        });
        let is_relaxed = stored.envelope.tls == TlsRequirement::Relaxed;
        let user_connector = stored.envelope.connector.as_deref();
        for waiting in pending_domains(&stored.envelope) {
            let destination = self.destination(&waiting.host, user_connector);
            self.queues
                .clear_backoff(&destination, &waiting.host, is_relaxed);
        }
    }

    /// Returns the age of a message accepted at `accepted`.
    fn age(&self, accepted: Timestamp) -> Duration {
        self.clock_jumps.age(accepted, Timestamp::now())
    }

    pub(super) fn enqueue_stored(&mut self, stored: &Claimed<StoredMessage>) {
        let (now, settings) = (Instant::now(), self.context.running.load());
        let age = self.age(stored.accepted);
        self.enqueue_until(stored, &settings, now, |schedule| {
            now + schedule.expire.saturating_sub(age)
        });
    }

    fn enqueue_until(
        &mut self,
        stored: &Claimed<StoredMessage>,
        settings: &Snapshot,
        now: Instant,
        end_of: impl Fn(MailSchedule<'_>) -> Instant,
    ) {
        self.queue_owed_reports(stored.claim, &stored.envelope, stored.size);
        let is_relaxed = stored.envelope.tls == TlsRequirement::Relaxed;
        let user_connector: Option<Arc<str>> = stored.envelope.connector.as_deref().map(Arc::from);
        for (place, domain) in places(pending_domains(&stored.envelope)) {
            let PendingDomain { host, next, warned } = domain;
            let schedule = settings.schedule(&host, user_connector.as_deref());
            let expires = end_of(schedule);
            let due = next
                .map_or(now, |at| now + retry_schedule::until(at, schedule.retry))
                .min(expires);
            let deadline = warn_at(schedule, expires)
                .filter(|_| !warned)
                .unwrap_or(expires);
            let expire = schedule.expire;
            self.enqueue(
                Item {
                    claim: stored.claim,
                    host,
                    user_connector: user_connector.clone(),
                    is_relaxed,
                    place,
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
    pub(super) fn enqueue_entry(&mut self, entry: Claimed<Entry>) {
        if self.disowned.was_lost_unseen(entry.claim.id()) {
            return;
        }
        let (now, settings) = (Instant::now(), self.context.running.load());
        let hosts = pending_domains(&entry.envelope);
        let is_relaxed = entry.envelope.tls == TlsRequirement::Relaxed;
        let user_connector: Option<Arc<str>> = entry.envelope.connector.as_deref().map(Arc::from);
        let message = self.keep_in_memory(entry);
        if let (Some(message), true) = (&message.1, hosts.len() > 1) {
            self.messages.insert(message.id(), Arc::downgrade(message));
        }
        for (place, PendingDomain { host, .. }) in places(hosts) {
            let (claim, loaded) = (message.0, message.1.clone());
            let schedule = settings.schedule(&host, user_connector.as_deref());
            let expire = schedule.expire;
            let expires = now + expire;
            let deadline = warn_at(schedule, expires).unwrap_or(expires);
            self.enqueue(
                Item {
                    claim,
                    host,
                    user_connector: user_connector.clone(),
                    is_relaxed,
                    place,
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
    fn keep_in_memory(&self, entry: Claimed<Entry>) -> (Claim, LoadedMessage) {
        let held = match &entry.body {
            Body::Memory(content) => content.len() as u64,
            Body::File(_) | Body::Pieces(_) => 0,
        };
        let held = held
            + entry
                .envelope
                .arrival
                .as_ref()
                .map_or(0, |arrival| arrival.json().len() as u64);
        let in_memory = &self.context.in_memory;
        if in_memory.load(Ordering::Relaxed) + held > MEMORY_MAX {
            return (entry.claim, None);
        }
        in_memory.fetch_add(held, Ordering::Relaxed);
        let message = ActiveMessage::new(
            entry.claim,
            OnceCell::new_with(Some(Arc::new(entry.message))),
            held,
            in_memory,
        );
        (message.claim, Some(Arc::new(message)))
    }

    pub(super) fn enqueue(&mut self, mut item: Item<LoadedMessage>, due: Instant) {
        let destination = self.destination(&item.host, item.user_connector.as_deref());
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
        let schedule = settings.schedule(&item.host, item.user_connector.as_deref());
        if item.expire != schedule.expire {
            rebase_deadlines(&settings, &mut item);
        }
        self.queues.push(item, due);
    }

    /// Gives back the messages that wait and on which no job works, so that they can be claimed. Those
    /// of running jobs stay this relay's: their results are still to be stored.
    pub(super) async fn release_waiting(&self) {
        let waiting = self.queues.claims().chain(self.owed.claims());
        let is_free = |claim: &Claim| !self.active.contains_key(&claim.id());
        let mut claims: Vec<Claim> = waiting.filter(is_free).collect();
        // A message waits once for each of its recipient domains.
        claims.sort_unstable_by_key(Claim::id);
        claims.dedup();
        for page in claims.chunks(RELEASED) {
            if let Err(error) = self.context.spool.release(page.to_vec()).await {
                tracing::warn!(%error, "cannot give back the waiting messages; they are this relay's until it starts again");
                return;
            }
        }
    }

    /// Applies a new configuration to the waiting messages.
    pub(super) fn reload(&mut self) {
        let settings = self.context.running.load();
        self.queues.resize(settings.config.limits.delivery_attempts);
        self.queues.reload(|item| rebase_deadlines(&settings, item));
    }

    pub(super) fn destination(&self, host: &Host, user_connector: Option<&str>) -> Destination {
        placement(&self.context.running.load(), host, user_connector).destination
    }

    /// Returns true when another job may start. None does while the lease of the spool is over. While evidence cannot be written, or the spool has
    /// hardly any room, no job starts beside a running one: its result could not be stored.
    pub(super) fn may_begin(&self) -> bool {
        let attempts = self.context.running.load().config.limits.delivery_attempts as usize;
        self.lease.holds()
            && self.jobs < attempts + WRITING_MAX
            && !(self.jobs > 0 && self.is_stuck())
    }

    /// Returns true while jobs wait for something whose end does not wake the scheduler.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_stuck() || !self.lease.holds()
    }

    /// Returns true while evidence cannot be written, or the spool has hardly any room.
    fn is_stuck(&self) -> bool {
        self.context.evidence.is_stuck() || self.context.spool.is_stuck()
    }

    /// Returns the message of this claim, shared with other running jobs on it.
    pub(super) fn active_message(&mut self, claim: Claim) -> Arc<ActiveMessage> {
        let id = claim.id();
        if let Some(message) = self.messages.get(&id).and_then(Weak::upgrade) {
            return message;
        }
        let message = Arc::new(ActiveMessage::new(
            claim,
            OnceCell::new(),
            0,
            &self.context.in_memory,
        ));
        self.messages.insert(id, Arc::downgrade(&message));
        message
    }

    /// Queues the reports that a message from the spool still owes. While recipients are pending,
    /// their reports may follow.
    fn queue_owed_reports(&mut self, claim: Claim, envelope: &Envelope, octets: u64) {
        let settings = self.context.running.load();
        let is_pending = envelope
            .recipients
            .iter()
            .any(|recipient| recipient.state.is_pending());
        let wait = if is_pending {
            settings.config.queue.dsn_gather
        } else {
            Duration::ZERO
        };
        let owed = owed_reports(envelope, octets, &settings, wait);
        if !matches!(owed, OwedReports::Nothing) {
            self.owed.update(claim, owed, Instant::now());
        }
    }

    /// Counts another job on a message and returns the message.
    pub(super) fn begin_job(&mut self, claim: Claim) -> Arc<ActiveMessage> {
        *self.active.entry(claim.id()).or_default() += 1;
        self.active_message(claim)
    }
}

/// Returns the recipient domains of a message, each with its place among them.
fn places(domains: Vec<PendingDomain>) -> impl Iterator<Item = (u16, PendingDomain)> {
    let numbers = (0..u16::MAX).chain(std::iter::repeat(u16::MAX));
    numbers.zip(domains)
}
