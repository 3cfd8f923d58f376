//! Writing down what an attempt came to: states, the next time, reports, removal.
//!
//! The order keeps the promise: a report is durable before the recipient it tells of is marked as
//! failed, and a message is removed only when nothing of it is left to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::TlsDemand;
use crate::dsn::{self, About, Failed, Returned};
use crate::envelope::{Envelope, QueueId, RecipientState, Trouble};
use crate::outbound::{Attempt, RecipientResult, Report};
use crate::outcome::{Failure, Outcome, Persistence};
use crate::smtp::reply::{EnhancedStatusCode, Status};
use crate::spool::SpoolError;

use super::{Context, Event, Live, Settings};

/// Characters of a reason that are kept, at most.
const REASON_MAX: usize = 2000;
/// Octets of header fields that a report returns, at most.
const HEADERS_MAX: usize = 64 * 1024;

/// What an attempt leaves to do for its recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// Another attempt at this time.
    Until(Instant),
}

impl Left {
    /// Another attempt at `due`, or earlier where that is already so.
    fn and(self, due: Instant) -> Self {
        match self {
            Self::Until(earlier) if earlier < due => self,
            Self::Until(_) | Self::Nothing => Self::Until(due),
        }
    }
}

/// Writes an attempt's result into the spool. Whatever cannot be written is tried again: the message
/// may then arrive twice, but it is never lost.
pub(super) async fn settle(
    context: &Arc<Context>,
    live: &Live,
    attempt: &Attempt,
    report: &Report,
    expires: Instant,
) -> Left {
    let settings = context.settings.load_full();
    let entry = &attempt.entry;
    let mut state = live.envelope.lock().await;
    let envelope = state.get_or_insert_with(|| entry.envelope.clone());
    let mut books =
        Books { settings: &settings, attempt, trail: &report.trail, expires, left: Left::Nothing, failed: Vec::new() };
    for result in &report.results {
        books.enter(envelope, result);
    }
    let Books { mut left, failed, .. } = books;
    if !failed.is_empty() {
        let told = report_failure(context, &settings, attempt, envelope, &failed).await;
        if let Err(error) = &told {
            tracing::error!(queue_id = %entry.id, %error, "a failure report could not be stored; its recipients stay in the queue");
            left = left.and(Instant::now() + wait(&settings.config.queue.retry, 1));
        }
        for GivenUp { recipient, attempts, trouble } in failed {
            if let Some(recipient) = envelope.recipients.get_mut(recipient) {
                recipient.state = match told {
                    Ok(()) => RecipientState::Failed,
                    Err(_) => RecipientState::Pending { attempts, next: None, last: Some(trouble) },
                };
            }
        }
    }
    let written = if envelope.is_pending() {
        context.spool.record(entry.id, envelope.clone()).await
    } else {
        context.spool.remove(entry.id).await
    };
    if let Err(error) = written {
        tracing::error!(queue_id = %entry.id, %error, "the result of an attempt could not be written; it may be repeated after a restart");
    }
    left
}

/// A recipient that is being given up.
struct GivenUp {
    recipient: usize,
    attempts: u32,
    trouble: Trouble,
}

/// The entries that one attempt makes in the state of its recipients.
struct Books<'a> {
    settings: &'a Settings,
    attempt: &'a Attempt,
    trail: &'a [Failure],
    expires: Instant,
    left: Left,
    failed: Vec<GivenUp>,
}

impl Books<'_> {
    fn enter(&mut self, envelope: &mut Envelope, result: &RecipientResult) {
        let Some(recipient) = envelope.recipients.get_mut(result.recipient) else { return };
        let attempts = match &recipient.state {
            RecipientState::Pending { attempts, .. } => attempts.saturating_add(1),
            RecipientState::Delivered | RecipientState::Failed => return,
        };
        match &result.outcome {
            Outcome::Delivered(reply) => {
                recipient.state = RecipientState::Delivered;
                log_delivered(self.attempt, result, &recipient.mailbox, reply);
            }
            Outcome::Bounced(failure) => {
                let trouble = trouble(failure, self.trail, Persistence::Permanent);
                log_failed(self.attempt, &recipient.mailbox, &trouble);
                self.failed.push(GivenUp { recipient: result.recipient, attempts, trouble });
            }
            Outcome::Deferred(failure) if Instant::now() >= self.expires => {
                let trouble = expired(failure, self.trail, self.settings);
                log_failed(self.attempt, &recipient.mailbox, &trouble);
                self.failed.push(GivenUp { recipient: result.recipient, attempts, trouble });
            }
            Outcome::Deferred(failure) => {
                let trouble = trouble(failure, self.trail, Persistence::Transient);
                let wait = wait(&self.settings.config.queue.retry, attempts);
                let due = (Instant::now() + wait).min(self.expires);
                let next = Timestamp::now() + due.saturating_duration_since(Instant::now());
                log_deferred(self.attempt, &recipient.mailbox, &trouble, next);
                recipient.state = RecipientState::Pending { attempts, next: Some(next), last: Some(trouble) };
                self.left = self.left.and(due);
            }
        }
    }
}

/// The wait after so many attempts, and up to a tenth more, so that what failed together does not come
/// back together.
fn wait(retry: &[Duration], attempts: u32) -> Duration {
    let at = (attempts.max(1) as usize - 1).min(retry.len().saturating_sub(1));
    let wait = retry.get(at).copied().unwrap_or(Duration::from_secs(3600));
    let jitter = Timestamp::now().subsec_nanosecond().unsigned_abs() % 1000;
    wait + wait.mul_f64(f64::from(jitter) / 10_000.0)
}

/// A failure as the queue remembers it: with the reason of every hop that was tried.
pub(super) fn trouble(failure: &Failure, trail: &[Failure], ends_as: Persistence) -> Trouble {
    let mut text = String::new();
    for earlier in trail.iter().filter(|earlier| *earlier != failure) {
        text.push_str(&earlier.to_string());
        text.push_str("; ");
    }
    text.push_str(&failure.to_string());
    Trouble {
        at: Timestamp::now(),
        status: failure.enhanced(ends_as),
        text: text.chars().take(REASON_MAX).collect(),
        host: failure.peer.as_deref().and_then(|peer| peer.split(' ').next()).map(str::to_owned),
        reply: failure.peer_reply().cloned(),
    }
}

/// The failure of a message whose time is over: 4.4.7 made permanent, with the last reason.
fn expired(failure: &Failure, trail: &[Failure], settings: &Settings) -> Trouble {
    let last = trouble(failure, trail, Persistence::Transient);
    let age = humantime::format_duration(settings.config.queue.expire);
    Trouble {
        status: EnhancedStatusCode::permanent(Status(4, 7)),
        text: format!("not delivered within {age}; the last attempt failed because: {} ({})", last.text, last.status),
        ..last
    }
}

/// Stores the report about recipients that were given up, and queues it. Nothing is stored where
/// nobody wants to know, or nobody is left to be told.
async fn report_failure(
    context: &Context,
    settings: &Settings,
    attempt: &Attempt,
    envelope: &Envelope,
    failed: &[GivenUp],
) -> Result<(), SpoolError> {
    let entry = &attempt.entry;
    let wanted: Vec<Failed<'_>> = failed
        .iter()
        .filter_map(|up| Some(Failed { recipient: envelope.recipients.get(up.recipient)?, trouble: &up.trouble }))
        .filter(|failed| dsn::wants_failure(failed.recipient))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let config = &settings.config;
    let Some(to) = dsn::addressee(envelope, &wanted, &config.postmaster) else {
        tracing::error!(queue_id = %entry.id, "a report could not be delivered to the postmaster; nobody is left to be told");
        return Ok(());
    };
    let confidential = matches!(attempt.connector.outbound.tls, TlsDemand::Forced { .. });
    let about = About {
        hostname: &config.hostname,
        id: entry.id,
        accepted: entry.accepted,
        envelope,
        size: entry.size,
        confidential,
    };
    let mut draft = context.spool.draft();
    let report = dsn::failure(&about, &wanted, &to, draft.id(), Timestamp::now());
    draft.write(report.head.as_bytes()).await?;
    let mut original = entry.body.reader().await?;
    match report.returned {
        Returned::Whole => {
            while let Some(chunk) = original.next().await? {
                draft.write(&chunk).await?;
            }
        }
        Returned::Headers => draft.write(&header_fields(&mut original).await?).await?,
    }
    draft.write(report.tail.as_bytes()).await?;
    let (receipt, report) = context.spool.commit(draft, report.envelope).await?;
    tracing::info!(queue_id = %entry.id, report_id = %receipt.id(), %to, "failure report queued");
    let _ = context.events.send(Event::Report(Box::new(report)));
    Ok(())
}

/// The header fields of a message, up to a bound.
async fn header_fields(original: &mut crate::spool::BodyReader) -> Result<Vec<u8>, SpoolError> {
    let mut fields = Vec::new();
    while let Some(chunk) = original.next().await? {
        fields.extend_from_slice(&chunk);
        if let Some(end) = memchr::memmem::find(&fields, b"\r\n\r\n") {
            fields.truncate(end + 2);
            break;
        }
        if fields.len() > HEADERS_MAX {
            let end = fields[..HEADERS_MAX].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            fields.truncate(end);
            break;
        }
    }
    Ok(fields)
}

fn log_delivered(
    attempt: &Attempt,
    result: &RecipientResult,
    to: &crate::address::Mailbox,
    reply: &crate::smtp::reply::Reply,
) {
    let (peer, tls) = match &result.via {
        Some(via) => (via.peer.as_str(), settled_tls(&via.clearance)),
        None => ("", String::new()),
    };
    let id: QueueId = attempt.entry.id;
    let age = attempt.entry.accepted.duration_until(Timestamp::now());
    tracing::info!(
        queue_id = %id, %to, connector = %attempt.connector.name, peer, tls.got = %tls, reply = %reply,
        delay_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX), "message delivered"
    );
}

/// What a session reached, for a log line.
fn settled_tls(clearance: &crate::tls::Clearance) -> String {
    match clearance.outcome() {
        crate::tls::TlsOutcome::Clear(reason) => format!("none: {reason}"),
        crate::tls::TlsOutcome::Tls(facts) => {
            format!("{} {} {}", facts.version, facts.cipher, clearance.authentication())
        }
    }
}

fn log_deferred(attempt: &Attempt, to: &crate::address::Mailbox, trouble: &Trouble, next: Timestamp) {
    tracing::warn!(
        queue_id = %attempt.entry.id, %to, connector = %attempt.connector.name, status = %trouble.status,
        reason = %trouble.text, %next, "delivery deferred"
    );
}

fn log_failed(attempt: &Attempt, to: &crate::address::Mailbox, trouble: &Trouble) {
    tracing::warn!(
        queue_id = %attempt.entry.id, %to, connector = %attempt.connector.name, status = %trouble.status,
        reason = %trouble.text, "delivery failed for good"
    );
}
