//! Storing what is owed to senders and to the postmaster, once it is due.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::access::{self, RelayRules};
use crate::address::{Mailbox, ReversePath};
use crate::dsn::{self, DigestEntry, Excerpt};
use crate::envelope::{AttemptFailure, ClientOrigin, Envelope, QueueId, ReportForm};
use crate::running_config::Snapshot;
use crate::spool::{Entry, SpoolError};

use super::owed::{Addressee, Debt, Rates};
use super::settle::write_down;
use super::waits::wait;
use super::witness::{evidence_flows, put_on_record};
use super::{Context, Event, Live, notice};

/// The wait after a message could not be read from the spool.
const SPOOL_PAUSE: Duration = Duration::from_mins(1);
/// Octets of a failed message that are looked at for the digest.
const FRONT_MAX: usize = 64 * 1024;

/// Returns what is owed about a message of `octets`. `wait`: how long its report waits for those about its other
/// recipients.
pub(super) fn debt(envelope: &Envelope, octets: u64, settings: &Snapshot, wait: Duration) -> Debt {
    let owed = || envelope.recipients.iter().filter_map(|recipient| recipient.owed.as_deref());
    match (&envelope.reverse_path, owed().map(|last| last.at).min()) {
        (_, None) => Debt::Nothing,
        (ReversePath::Mailbox(sender), Some(_)) => {
            let to = Addressee { host: sender.host().clone(), origin: envelope.origin };
            let is_over = !envelope.recipients.iter().any(|recipient| recipient.state.is_open());
            let kept = (is_over && envelope.origin == ClientOrigin::Stranger).then_some(octets);
            Debt::Report { to, wait, kept }
        }
        (ReversePath::Null, Some(since)) => {
            let age = Duration::try_from(since.duration_until(Timestamp::now())).unwrap_or_default();
            Debt::Digest { wait: settings.config.queue.postmaster_digest.saturating_sub(age), octets }
        }
    }
}

/// A job in hand. Should the work on it die, it is done again later.
enum Duty {
    Report(QueueId),
    Digest(Vec<QueueId>),
}

struct Charge {
    context: Arc<Context>,
    duty: Option<Duty>,
}

impl Charge {
    fn end(mut self, event: Event) {
        self.duty = None;
        // The scheduler is gone only when the process is about to be.
        let _ = self.context.events.send(event);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // A runtime that ends drops its work half way, too: then the next start does it.
        let Some(duty) = self.duty.take().filter(|_| std::thread::panicking()) else { return };
        tracing::error!("the work on a report died, and is done again later");
        let event = match duty {
            Duty::Report(id) => Event::Reported(id, Some(SPOOL_PAUSE)),
            Duty::Digest(ids) => Event::Digested { ids: ids.clone(), left: ids },
        };
        let _ = self.context.events.send(event);
    }
}

impl super::Scheduler {
    /// Begins to store the reports that are due.
    pub(super) fn begin_reports(&mut self) {
        let (now, rates) = (Instant::now(), Rates::of(&self.context.running.load().config.limits));
        while self.may_begin() {
            let next = {
                let mut limiter = self.context.limiter.lock().unwrap_or_else(PoisonError::into_inner);
                self.owed.next_report(now, &mut limiter, rates, |id| self.ordered.contains(&id))
            };
            let Some(id) = next else { break };
            let live = self.begin(id);
            self.jobs += 1;
            self.tasks.spawn(report(Arc::clone(&self.context), live));
        }
        if self.may_begin()
            && let Some(ids) = self.owed.next_digest(now, |id| self.ordered.contains(&id))
        {
            let lives = ids.iter().map(|id| self.begin(*id)).collect();
            self.jobs += 1;
            self.tasks.spawn(digest(Arc::clone(&self.context), lives));
        }
    }

    /// The message behind an id, which has one more job.
    fn begin(&mut self, id: QueueId) -> Arc<Live> {
        *self.active.entry(id).or_default() += 1;
        self.live(id)
    }

    /// Notes what a message in the spool still owes.
    pub(super) fn note_debt(&mut self, id: QueueId, envelope: &Envelope, octets: u64) {
        let debt = debt(envelope, octets, &self.context.running.load(), Duration::ZERO);
        if !matches!(debt, Debt::Nothing) {
            self.owed.note(id, debt, Instant::now());
        }
    }
}

/// Stores the reports about one message.
async fn report(context: Arc<Context>, live: Arc<Live>) {
    let charge = Charge { context: Arc::clone(&context), duty: Some(Duty::Report(live.id)) };
    let id = live.id;
    let again = match live.entry.get_or_try_init(|| super::delivery::load(&context, &live)).await {
        Ok(entry) => store(&context, &live, entry).await,
        // Its report returns nothing. Recipients that are still to be served are an attempt's affair.
        Err(SpoolError::Damaged { remaining: Some(left), .. }) => store(&context, &live, &left.without_content()).await,
        // It was set aside, or an operator removed it.
        Err(SpoolError::Damaged { remaining: None, .. } | SpoolError::Missing(_) | SpoolError::Closed) => None,
        Err(error) => {
            tracing::error!(queue_id = %id, %error, "report to the sender not stored; it is tried again");
            Some(SPOOL_PAUSE)
        }
    };
    // Nobody else holds it any more when the scheduler hears of this.
    drop(live);
    charge.end(Event::Reported(id, again));
}

async fn store(context: &Context, live: &Live, entry: &Entry) -> Option<Duration> {
    let mut state = live.envelope.lock().await;
    let envelope = state.get_or_insert_with(|| entry.envelope.clone());
    let is_owed = envelope.recipients.iter().any(|recipient| recipient.owed.is_some());
    if !is_owed || !evidence_flows(context).await {
        return None;
    }
    let settings = context.running.load();
    let until = context.spool.clock_jumps().deadline(entry.accepted, settings.config.queue.expire, Timestamp::now());
    let stored = notice::store(context, &settings, entry, envelope, until, notice::Room::Taken).await;
    // Before the queue may forget the message.
    if !put_on_record(context, entry, envelope).await {
        return None;
    }
    // What was stored is not told once more by an attempt that is written down later, even where this is not.
    write_down(context, entry.id, envelope).await;
    match stored {
        notice::Stored::All => None,
        notice::Stored::OverRate => Some(Duration::ZERO),
        notice::Stored::Failed => Some(wait(&settings.config.queue.retry, 1)),
    }
}

/// Stores the digest about some messages.
async fn digest(context: Arc<Context>, lives: Vec<Arc<Live>>) {
    let ids: Vec<_> = lives.iter().map(|live| live.id).collect();
    let charge = Charge { context: Arc::clone(&context), duty: Some(Duty::Digest(ids.clone())) };
    let (mut lost, mut told, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for live in &lives {
        match lost_of(&context, live).await {
            Ok(Some(one)) => {
                told.push(live);
                lost.push(one);
            }
            Ok(None) | Err(SpoolError::Damaged { .. } | SpoolError::Missing(_) | SpoolError::Closed) => {}
            Err(error) => {
                tracing::error!(queue_id = %live.id, %error, "a failed message cannot be read; it goes into the next digest");
                left.push(live.id);
            }
        }
    }
    if !lost.is_empty() && evidence_flows(&context).await {
        match store_digest(&context, &lost).await {
            Ok(()) => {
                for (live, lost) in told.into_iter().zip(&lost) {
                    clear(&context, live, &lost.recipients).await;
                }
            }
            Err(error) => {
                tracing::error!(%error, "digest for the postmaster not stored; it is tried again");
                left.extend(lost.iter().map(|lost| lost.id));
            }
        }
    }
    drop(lives);
    charge.end(Event::Digested { ids, left });
}

/// A message as the digest tells of it; nothing where it has no more to tell.
async fn lost_of(context: &Context, live: &Live) -> Result<Option<DigestEntry>, SpoolError> {
    let mut state = live.envelope.lock().await;
    let entry = match live.entry.get() {
        Some(entry) => Arc::clone(entry),
        // Its content is not kept in memory: there may be many.
        None => Arc::new(match context.spool.load(live.id).await {
            Err(SpoolError::Damaged { remaining: Some(left), .. }) => left.without_content(),
            loaded => loaded?,
        }),
    };
    let envelope = state.get_or_insert_with(|| entry.envelope.clone());
    let owed = envelope.recipients.iter().filter_map(|recipient| {
        let last = recipient.owed.as_deref()?;
        Some((recipient.mailbox.clone(), last.clone()))
    });
    let recipients: Vec<_> = owed.collect();
    if recipients.is_empty() {
        return Ok(None);
    }
    let report: Option<ReportForm> = envelope.report;
    let sender = envelope.reverse_path.mailbox().cloned();
    if !put_on_record(context, &entry, envelope).await {
        return Err(SpoolError::Closed);
    }
    drop(state);
    let front = notice::readable(&entry, FRONT_MAX).await?;
    let excerpt = Excerpt::of(entry.id, report, &front);
    Ok(Some(DigestEntry { id: entry.id, accepted: entry.accepted, sender, recipients, excerpt }))
}

/// The mailbox that mail for the postmaster goes to.
pub(super) fn postmaster(settings: &Snapshot) -> Mailbox {
    let config = &settings.config;
    let local = access::local_mailbox(RelayRules::new(config, &settings.connectors), &config.postmaster);
    local.unwrap_or_else(|| config.postmaster.clone())
}

async fn store_digest(context: &Context, lost: &[DigestEntry]) -> Result<(), SpoolError> {
    let settings = context.running.load();
    let to = postmaster(&settings);
    let draft = context.spool.draft_report();
    let report = dsn::write_digest(&settings.config.hostname, Timestamp::now(), &to, lost, draft.id());
    let report_id = notice::enqueue(context, draft, report).await?;
    context.reports.digest();
    tracing::warn!(messages = lost.len(), %report_id, %to, "digest of failed mail queued for the postmaster");
    Ok(())
}

/// Takes off a message's debt what the digest tells.
async fn clear(context: &Context, live: &Live, told: &[(Mailbox, AttemptFailure)]) {
    let mut state = live.envelope.lock().await;
    let Some(envelope) = state.as_mut() else { return };
    for recipient in &mut envelope.recipients {
        let mailbox = &recipient.mailbox;
        recipient.owed.take_if(|owed| told.iter().any(|(to, last)| to == mailbox && *last == **owed));
    }
    write_down(context, live.id, envelope).await;
}
