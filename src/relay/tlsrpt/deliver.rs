//! Sends the reports of a day, one domain at a time: looks up the TLSRPT record, builds the report
//! and sends it.
//!
//! Each step is stored when it is done, so that after a restart no destination gets a report again.
//! Of nodes that share the counts, the one that sends a report claims it first; the claim of a node
//! that dies ends after ten minutes.
//! If a crash comes between a step and its record, the repeated report has the same id (RFC 8460
//! §5.6).

use std::time::Duration;

use bytes::Bytes;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use tokio::task::JoinSet;

use super::count_access::CountAccess;
use super::dkim::SignError;
use super::mail;
use super::record::{self, ReportDestination, TlsRptRecordError};
use super::report::{TlsReport, day_of, day_start};
use super::sender::{ENVELOPE_ID, ReportSender, Schedule, Submitter};
use super::store::{CountStoreError, KEEP_DAYS, ReportJob};
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::envelope::{Envelope, Notify, Recipient, TlsRequirement};
use crate::storage::spool::SpoolError;

/// The number of reports that are sent at the same time.
const CONCURRENT_MAX: usize = 8;
/// The number of reports that are read from disk at a time.
const READ_MAX: u32 = 64;
/// The waiting times after failed attempts. The last one repeats.
const RETRY_DELAYS: [Duration; 5] = [
    Duration::from_mins(15),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(2),
    Duration::from_hours(4),
];
/// The longest sleep, in case the clock jumps.
const SLEEP_MAX: Duration = Duration::from_hours(1);
/// The waiting time after an error of our own store.
const ERROR_DELAY: Duration = Duration::from_mins(5);

/// The reason why a round of reports ends early; the next round goes on.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    /// The counts cannot be read or written.
    #[error(transparent)]
    Store(#[from] CountStoreError),
    /// A task of the round panicked or was cancelled.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// The reason why a report could not be queued as mail.
#[derive(Debug, thiserror::Error)]
enum QueueReportError {
    /// The DKIM signature cannot be made.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The spool did not store the mail.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Sends reports for ever.
pub(super) async fn run(store: CountAccess, schedule: Schedule, sender: ReportSender) {
    loop {
        let now = Timestamp::now();
        let next = send_due(&store, schedule, &sender, now).await;
        let wait = Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default();
        tokio::time::sleep(wait.clamp(Duration::from_secs(1), SLEEP_MAX)).await;
    }
}

/// Sends the reports that are due at `now` and returns the time of the next call.
pub(super) async fn send_due(
    store: &CountAccess,
    schedule: Schedule,
    sender: &ReportSender,
    now: Timestamp,
) -> Timestamp {
    match try_send_due(store, schedule, sender, now).await {
        Ok(next) => next,
        Err(error) => {
            tracing::error!(%error, "cannot send TLS reports, trying again later");
            after(now, ERROR_DELAY)
        }
    }
}

async fn try_send_due(
    store: &CountAccess,
    schedule: Schedule,
    sender: &ReportSender,
    now: Timestamp,
) -> Result<Timestamp, RoundError> {
    let submitter = sender.submitter.load_full();
    let today = day_of(now);
    let oldest = today.saturating_sub(KEEP_DAYS.days());
    let deleted = store.delete_before(oldest).await?;
    if deleted > 0 {
        tracing::warn!(reports = deleted, before = %oldest, "TLS reports not sent for days, dropped");
    }
    let draw = move |day| (new_id(day, &submitter), due(day, schedule, now));
    let planned = store.plan(today, draw).await?;
    if planned > 0 {
        tracing::info!(reports = planned, "TLS reports planned");
    }
    loop {
        let due = store.due(now, READ_MAX).await?;
        let is_last = due.len() < READ_MAX as usize;
        let mut jobs = due.into_iter();
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < CONCURRENT_MAX
                && let Some(job) = jobs.next()
            {
                under_way.spawn(attempt(store.clone(), schedule, sender.clone(), job, now));
            }
            match under_way.join_next().await {
                Some(Ok(done)) => done?,
                Some(Err(death)) => return Err(death.into()),
                None => break,
            }
        }
        if is_last {
            break;
        }
    }
    let midnight = day_start(today.saturating_add(1.day()));
    let next = store.next_due(now).await?;
    Ok(next.map_or(midnight, |next| next.min(midnight)))
}

/// Returns the time of the first attempt to send the report of a day.
fn due(day: Date, schedule: Schedule, now: Timestamp) -> Timestamp {
    let earliest = after(day_start(day.saturating_add(1.day())), schedule.delay);
    let spread = u64::try_from(schedule.spread.as_millis()).unwrap_or(u64::MAX);
    let delay = if spread == 0 {
        0
    } else {
        u64::from_le_bytes(random()) % spread
    };
    after(earliest.max(now), Duration::from_millis(delay))
}

fn new_id(day: Date, submitter: &Submitter) -> String {
    format!(
        "{day}.{:032x}@{}",
        u128::from_le_bytes(random()),
        submitter.domain
    )
}

fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    // Fails only if the system has no random numbers, and then TLS is not possible either.
    let _none = aws_lc_rs::rand::fill(&mut octets);
    octets
}

fn after(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Makes one attempt to send one report. An error is an error of the store.
async fn attempt(
    store: CountAccess,
    schedule: Schedule,
    sender: ReportSender,
    job: ReportJob,
    now: Timestamp,
) -> Result<(), RoundError> {
    let Some(mut job) = store.claim(job, now).await? else {
        return Ok(());
    };
    job.attempts += 1;
    let first = *job.first.get_or_insert(now);
    let name = format!("_smtp._tls.{}", job.domain);
    let failures = match sender.network.txt(&name).await {
        Ok(texts) => match record::parse(&texts) {
            Ok(record) => {
                for unusable in &record.unusable {
                    tracing::info!(domain = %job.domain, destination = %unusable, "unusable destination for TLS reports");
                }
                match send(&store, &sender, &mut job, &record.destinations, now).await? {
                    Some(failures) => failures,
                    None => return Ok(()),
                }
            }
            Err(TlsRptRecordError::None) => {
                return close_report(&store, job, "not requested").await;
            }
            Err(why) => {
                tracing::info!(domain = %job.domain, record = name, %why, "TLS report not sent");
                return close_report(&store, job, "unusable record").await;
            }
        },
        Err(trouble) => vec![format!("cannot look up {name}: {trouble}")],
    };
    if failures.is_empty() {
        return close_report(&store, job, "sent").await;
    }
    let trouble = failures.join("; ");
    if now.duration_since(first)
        >= SignedDuration::try_from(schedule.give_up_after).unwrap_or(SignedDuration::MAX)
    {
        tracing::warn!(domain = %job.domain, day = %job.day, trouble, "TLS report not sent, giving up");
        return close_report(&store, job, "given up").await;
    }
    let wait = RETRY_DELAYS[usize::try_from(job.attempts - 1)
        .unwrap_or(usize::MAX)
        .min(RETRY_DELAYS.len() - 1)];
    let next = after(now, wait).min(after(first, schedule.give_up_after));
    tracing::info!(domain = %job.domain, day = %job.day, %next, trouble, "TLS report not sent to all destinations, trying again later");
    Ok(store.postpone(job, next).await?)
}

async fn close_report(
    store: &CountAccess,
    job: ReportJob,
    why: &'static str,
) -> Result<(), RoundError> {
    tracing::debug!(domain = %job.domain, day = %job.day, why, "TLS report closed");
    Ok(store.close(job, why).await?)
}

/// Sends a report to each destination that does not have it yet. Returns a description of each
/// failure, or `None` if the claim on the report has ended: another node may send it then.
async fn send(
    store: &CountAccess,
    sender: &ReportSender,
    job: &mut ReportJob,
    destinations: &[ReportDestination],
    now: Timestamp,
) -> Result<Option<Vec<String>>, RoundError> {
    let submitter = sender.submitter.load_full();
    let (report, compressed) = build_report(store, &submitter, job).await?;
    let mut failures = Vec::new();
    let (mut mailboxes, mut names) = (Vec::new(), Vec::new());
    for destination in destinations
        .iter()
        .filter(|one| !job.done.contains(&one.to_string()))
    {
        if let ReportDestination::Mail(mailbox) = destination {
            mailboxes.push(mailbox.clone());
            names.push(destination.to_string());
        }
    }
    if !mailboxes.is_empty() {
        if !store.renew(job).await? {
            return Ok(None);
        }
        match queue_mail(sender, &submitter, &report, &compressed, &mailboxes, now).await {
            Ok(()) => record_sent(store, job, names).await?,
            Err(why) => failures.push(format!("cannot queue the report: {why}")),
        }
    }
    for destination in destinations {
        let ReportDestination::Https(uri) = destination else {
            continue;
        };
        if job.done.contains(&destination.to_string()) {
            continue;
        }
        if !store.renew(job).await? {
            return Ok(None);
        }
        match sender.network.post(uri, compressed.clone()).await {
            Ok(()) => {
                tracing::info!(domain = %report.domain, day = %report.day, report = report.id, to = %uri, "TLS report posted");
                record_sent(store, job, vec![destination.to_string()]).await?;
            }
            Err(why) => failures.push(format!("{uri}: {why}")),
        }
    }
    Ok(Some(failures))
}

async fn record_sent(
    store: &CountAccess,
    job: &mut ReportJob,
    names: Vec<String>,
) -> Result<(), RoundError> {
    job.done.extend(names);
    Ok(store.save_progress(job).await?)
}

async fn build_report(
    store: &CountAccess,
    submitter: &Submitter,
    job: &ReportJob,
) -> Result<(TlsReport, Bytes), RoundError> {
    let report = TlsReport {
        organization: submitter.organization.clone(),
        contact: submitter.contact.clone(),
        policies: store.policy_counts(job).await?,
        day: job.day,
        id: job.id.clone(),
        domain: job.domain.clone(),
    };
    let compress = move || {
        let compressed = Bytes::from(report.to_gzip());
        (report, compressed)
    };
    Ok(tokio::task::spawn_blocking(compress).await?)
}

/// Queues the mail that carries a report. When this returns `Ok`, the mail is durable.
async fn queue_mail(
    sender: &ReportSender,
    submitter: &Submitter,
    report: &TlsReport,
    compressed: &[u8],
    to: &[Mailbox],
    now: Timestamp,
) -> Result<(), QueueReportError> {
    let message = mail::write(report, compressed, &submitter.domain, to, now);
    let mut head = match &submitter.signer {
        Some(signer) => signer.sign(&message.fields, message.body.as_bytes(), now)?,
        None => String::new(),
    };
    for field in &message.fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut draft = sender.spool.draft();
    draft.write(head.as_bytes()).await?;
    draft.write(message.body.as_bytes()).await?;
    let (receipt, entry) = sender
        .spool
        .commit(draft, envelope(submitter, report, to))
        .await?;
    tracing::info!(
        queue_id = %receipt.id(), domain = %report.domain, day = %report.day, report = report.id,
        "TLS report queued"
    );
    // The scheduler is gone only if the process is about to end; the report is in the spool.
    let _ended = sender.accepted.send(entry).await;
    Ok(())
}

/// Builds the envelope of a report. It requests no DSN: the next report comes tomorrow.
fn envelope(submitter: &Submitter, report: &TlsReport, to: &[Mailbox]) -> Envelope {
    let recipient = |mailbox: &Mailbox| Recipient {
        notify: Some(Notify::Never),
        ..Recipient::new(mailbox.clone())
    };
    let mut envelope = Envelope::new(
        ReversePath::Mailbox(submitter.contact.clone()),
        to.iter().map(recipient).collect(),
    );
    let unique = report.id.split('@').next().unwrap_or_default();
    envelope.envid = Some(format!("{ENVELOPE_ID}{unique}"));
    // As the header field TLS-Required says.
    envelope.tls = TlsRequirement::Relaxed;
    envelope
}
