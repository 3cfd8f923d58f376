//! The tasks that store reports to senders, and the digest to the postmaster, when they are due.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::smtp::dsn::{self, DigestEntry, Excerpt};
use crate::smtp::envelope::ReportForm;
use crate::storage::spool::{Claim, Entry, SpoolError};

use super::active_message::ActiveMessage;
use super::context::{Context, Event};
use super::message_change::{MessageChange, ReportStep, StateWrite, StoreResult};
use super::report_queue::ReportRates;
use super::result::{self, postmaster, wait_for_evidence};
use super::retry_schedule::wait;
use super::state::SchedulerState;

/// The wait before a message is read again that could not be read from the spool.
const SPOOL_PAUSE: Duration = Duration::from_mins(1);
/// The most octets of a failed message that are read for the digest.
const FRONT_MAX: usize = 64 * 1024;

/// The subject of a running report task.
enum ReportSubject {
    Report(Claim),
    Digest(Vec<Claim>),
}

/// A guard of a running report task. If the task panics, the guard schedules it again.
struct ReportGuard {
    context: Arc<Context>,
    job: Option<ReportSubject>,
}

impl ReportGuard {
    /// Ends the task with its event.
    fn end(mut self, event: Event) {
        self.job = None;
        // The channel is closed only when the process ends.
        let _ = self.context.events.send(event);
    }
}

impl Drop for ReportGuard {
    fn drop(&mut self) {
        // A runtime that shuts down drops tasks too; the next start stores the report.
        let Some(job) = self.job.take().filter(|_| std::thread::panicking()) else {
            return;
        };
        tracing::error!("report task panicked, a bug in Gatepost; retrying later");
        let event = match job {
            ReportSubject::Report(claim) => Event::Reported(claim.id(), Some(SPOOL_PAUSE)),
            ReportSubject::Digest(claims) => Event::Digested {
                ids: claims.iter().map(Claim::id).collect(),
                remaining: claims,
            },
        };
        let _ = self.context.events.send(event);
    }
}

impl SchedulerState {
    /// Starts tasks for the reports and the digest that are due.
    // Rule: RFC 5321 §4.1.1.4.
    pub(super) fn begin_reports(&mut self) {
        let (now, rates) = (
            Instant::now(),
            ReportRates::of(&self.context.running.load().config.limits),
        );
        while self.may_begin() {
            let next = {
                let mut limiter = self
                    .context
                    .limiter
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                self.owed
                    .next_report(now, &mut limiter, rates, |id| self.ordered.contains(&id))
            };
            let Some(claim) = next else { break };
            let message = self.begin_job(claim);
            self.jobs += 1;
            self.tasks.spawn(report(Arc::clone(&self.context), message));
        }
        if self.may_begin()
            && let Some(claims) = self.owed.next_digest(now, |id| self.ordered.contains(&id))
        {
            let messages = claims.iter().map(|claim| self.begin_job(*claim)).collect();
            self.jobs += 1;
            self.tasks
                .spawn(digest(Arc::clone(&self.context), messages));
        }
    }
}

/// Stores the reports about one message.
async fn report(context: Arc<Context>, message: Arc<ActiveMessage>) {
    let guard = ReportGuard {
        context: Arc::clone(&context),
        job: Some(ReportSubject::Report(message.claim)),
    };
    let id = message.id();
    let again = match message.load(&*context.spool).await {
        Ok(entry) => store(&context, &message, entry).await,
        // The report returns no content. The next attempt bounces the pending recipients.
        Err(SpoolError::Damaged {
            remaining: Some(remaining),
            ..
        }) => store(&context, &message, &Arc::new(remaining.without_content())).await,
        // It was quarantined, or an operator removed it.
        Err(
            SpoolError::Damaged {
                remaining: None, ..
            }
            | SpoolError::Missing(_)
            | SpoolError::Closed,
        ) => None,
        Err(error) => {
            tracing::error!(queue_id = %id, %error, "cannot store report to the sender; retrying");
            Some(SPOOL_PAUSE)
        }
    };
    // Dropped before the event, so that the scheduler finds the last reference gone.
    drop(message);
    guard.end(Event::Reported(id, again));
}

/// Stores the reports that a message owes. Returns the wait before the next attempt, if some are
/// still owed.
async fn store(context: &Context, message: &ActiveMessage, entry: &Arc<Entry>) -> Option<Duration> {
    let current = message.envelope();
    let envelope = current.as_deref().unwrap_or(&entry.envelope);
    let is_owed = envelope
        .recipients
        .iter()
        .any(|recipient| recipient.owed.is_some());
    if !is_owed {
        return None;
    }
    let settings = context.running.load();
    let until = context.spool.clock_jumps().deadline(
        entry.accepted,
        settings.config.queue.expire,
        Timestamp::now(),
    );
    let due = MessageChange::of_reports(entry, ReportStep::Due { until });
    match result::settle(context, message, due).await {
        // The next start or the owner stores them; while the lease is over, the write waits.
        Some(settled) if settled.state == StateWrite::Aborted => None,
        Some(settled) => match settled.reports {
            StoreResult::All => None,
            StoreResult::OverRate => Some(Duration::ZERO),
            StoreResult::Failed => Some(wait(&settings.config.queue.retry, 1)),
        },
        None => Some(SPOOL_PAUSE),
    }
}

/// Stores the digest about some messages.
async fn digest(context: Arc<Context>, messages: Vec<Arc<ActiveMessage>>) {
    let claims: Vec<_> = messages.iter().map(|message| message.claim).collect();
    let guard = ReportGuard {
        context: Arc::clone(&context),
        job: Some(ReportSubject::Digest(claims.clone())),
    };
    let (mut lost, mut reported, mut remaining) = (Vec::new(), Vec::new(), Vec::new());
    for message in &messages {
        match digest_entry(&context, message).await {
            Ok(Some((entry, one))) => {
                reported.push((message, entry));
                lost.push(one);
            }
            Ok(None)
            | Err(SpoolError::Damaged { .. } | SpoolError::Missing(_) | SpoolError::Closed) => {}
            Err(error) => {
                tracing::error!(queue_id = %message.id(), %error, "cannot read failed message; it goes into the next digest");
                remaining.push(message.claim);
            }
        }
    }
    if !lost.is_empty() && wait_for_evidence(&context).await {
        match store_digest(&context, &lost).await {
            Ok(()) => {
                for ((message, entry), lost) in reported.into_iter().zip(&lost) {
                    let reports = ReportStep::InDigest(lost.recipients.clone());
                    let change = MessageChange::of_reports(&entry, reports);
                    // If that fails, the process is ending, or the message is another owner's. The
                    // next digest of its owner has it again.
                    let _ = result::settle(&context, message, change).await;
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot store digest for the postmaster; retrying");
                remaining.extend(reported.iter().map(|(message, _)| message.claim));
            }
        }
    }
    drop(messages);
    let ids = claims.iter().map(Claim::id).collect();
    guard.end(Event::Digested { ids, remaining });
}

/// Returns the message and its entry in the digest, or `None` when nothing is owed about it.
async fn digest_entry(
    context: &Context,
    message: &ActiveMessage,
) -> Result<Option<(Arc<Entry>, DigestEntry)>, SpoolError> {
    let entry = match message.entry.get() {
        Some(entry) => Arc::clone(entry),
        // The content is not kept in memory, since there may be many messages.
        None => Arc::new(match context.spool.load(message.id()).await {
            Err(SpoolError::Damaged {
                remaining: Some(remaining),
                ..
            }) => remaining.without_content(),
            loaded => loaded?,
        }),
    };
    let current = message.envelope();
    let envelope = current.as_deref().unwrap_or(&entry.envelope);
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
    let front = result::read_front(&entry, FRONT_MAX).await?;
    let excerpt = Excerpt::of(entry.id, report, &front);
    let lost = DigestEntry {
        id: entry.id,
        accepted: entry.accepted,
        sender,
        recipients,
        excerpt,
    };
    Ok(Some((entry, lost)))
}

/// Writes, stores and queues a digest.
async fn store_digest(context: &Context, lost: &[DigestEntry]) -> Result<(), SpoolError> {
    let settings = context.running.load();
    let to = postmaster(&settings);
    let draft = context.spool.draft_report();
    let report = dsn::write_digest(
        &settings.config.hostname,
        Timestamp::now(),
        &to,
        lost,
        draft.id(),
    );
    let report_id = result::enqueue_report(context, draft, report).await?;
    context.reports.digest();
    tracing::warn!(messages = lost.len(), %report_id, %to, "digest of failed mail queued for the postmaster");
    Ok(())
}
