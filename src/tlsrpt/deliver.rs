//! A day's reports, one domain at a time: who wants it, what stands in it, and off it goes.
//!
//! What has been done is noted as it is done, so that a restart sends no destination a second one; where a
//! crash comes between the two, the second has the id of the first (RFC 8460 §5.6).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use tokio::task::JoinSet;

use super::record::{self, Destination, RecordError};
use super::report::{Report, begin, day_of};
use super::store::{Job, Store};
use super::{ENVELOPE_ID, Outbox, Schedule, Submitter, mail};
use crate::address::{Mailbox, ReversePath};
use crate::envelope::{Envelope, Notify, Recipient, TlsRequirement};

/// Reports that are on their way at the same time.
const AT_ONCE: usize = 8;
/// Reports that are read from disk at a time.
const READ: u32 = 64;
/// Waits after failed attempts; the last repeats.
const RETRY: [Duration; 5] = [
    Duration::from_mins(15),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(2),
    Duration::from_hours(4),
];
/// The longest sleep, for clocks that jump; and the wait after trouble of our own.
const NAP: Duration = Duration::from_hours(1);
const TROUBLE: Duration = Duration::from_mins(5);
/// Days that are kept, whatever became of their reports.
const DAYS: i64 = 4;

/// Reports for ever.
pub(super) async fn run(store: Arc<Store>, schedule: Schedule, outbox: Outbox) {
    loop {
        let now = Timestamp::now();
        let next = turn(&store, schedule, &outbox, now).await;
        let wait = Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default();
        tokio::time::sleep(wait.clamp(Duration::from_secs(1), NAP)).await;
    }
}

/// Sends what is due at `now`, and tells when to come again.
pub(super) async fn turn(store: &Arc<Store>, schedule: Schedule, outbox: &Outbox, now: Timestamp) -> Timestamp {
    match try_turn(store, schedule, outbox, now).await {
        Ok(next) => next,
        Err(error) => {
            tracing::error!(%error, "TLS reports are put off");
            later(now, TROUBLE)
        }
    }
}

async fn try_turn(
    store: &Arc<Store>,
    schedule: Schedule,
    outbox: &Outbox,
    now: Timestamp,
) -> Result<Timestamp, String> {
    let submitter = outbox.submitter.load_full();
    let today = day_of(now);
    let planned = blocking(store, move |store| {
        let oldest = today.saturating_sub(DAYS.days());
        let lost = store.forget(oldest)?;
        if lost > 0 {
            tracing::warn!(reports = lost, before = %oldest, "TLS reports are too old to be sent and were dropped");
        }
        store.plan(today, |day| (new_id(day, &submitter), due(day, schedule, now)))
    })
    .await?;
    if planned > 0 {
        tracing::info!(reports = planned, "TLS reports of a day that is over are planned");
    }
    loop {
        let due = blocking(store, move |store| store.due(now, READ)).await?;
        let is_last = due.len() < READ as usize;
        let mut jobs = due.into_iter();
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some(job) = jobs.next()
            {
                under_way.spawn(one(Arc::clone(store), schedule, outbox.clone(), job, now));
            }
            match under_way.join_next().await {
                Some(Ok(done)) => done?,
                Some(Err(death)) => return Err(death.to_string()),
                None => break,
            }
        }
        if is_last {
            break;
        }
    }
    let midnight = begin(today.saturating_add(1.day()));
    let next = blocking(store, Store::next_due).await?;
    Ok(next.map_or(midnight, |next| next.min(midnight)))
}

/// When the report of a day is tried first.
fn due(day: Date, schedule: Schedule, now: Timestamp) -> Timestamp {
    let settled = later(begin(day.saturating_add(1.day())), schedule.settle);
    let spread = u64::try_from(schedule.spread.as_millis()).unwrap_or(u64::MAX);
    let delay = if spread == 0 { 0 } else { u64::from_le_bytes(random()) % spread };
    later(settled.max(now), Duration::from_millis(delay))
}

fn new_id(day: Date, submitter: &Submitter) -> String {
    format!("{day}.{:032x}@{}", u128::from_le_bytes(random()), submitter.domain)
}

fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    // Only fails where the system has no random numbers at all, and then no TLS is possible either.
    let _none = aws_lc_rs::rand::fill(&mut octets);
    octets
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, super::StoreError> + Send + 'static,
) -> Result<T, String> {
    let store = Arc::clone(store);
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(death) => Err(death.to_string()),
    }
}

/// One attempt at one report. An error is trouble with the store.
async fn one(
    store: Arc<Store>,
    schedule: Schedule,
    outbox: Outbox,
    mut job: Job,
    now: Timestamp,
) -> Result<(), String> {
    job.attempts += 1;
    let first = *job.first.get_or_insert(now);
    let name = format!("_smtp._tls.{}", job.domain);
    let trouble = match outbox.network.txt(&name).await {
        Ok(texts) => match record::parse(&texts) {
            Ok(record) => {
                for why in &record.unusable {
                    tracing::info!(domain = %job.domain, destination = why, "destination of TLS reports cannot be used");
                }
                send(&store, &outbox, &mut job, &record.destinations, now).await?
            }
            Err(RecordError::None) => return close(&store, job, "nobody asked for it").await,
            Err(why) => {
                tracing::info!(domain = %job.domain, record = name, %why, "TLS report not sent");
                return close(&store, job, "its record cannot be used").await;
            }
        },
        Err(trouble) => vec![format!("{name} cannot be looked up: {trouble}")],
    };
    if trouble.is_empty() {
        return close(&store, job, "sent").await;
    }
    let trouble = trouble.join("; ");
    if now.duration_since(first) >= SignedDuration::try_from(schedule.patience).unwrap_or(SignedDuration::MAX) {
        tracing::warn!(domain = %job.domain, day = %job.day, trouble, "TLS report given up");
        return close(&store, job, "given up").await;
    }
    let wait = RETRY[usize::try_from(job.attempts - 1).unwrap_or(usize::MAX).min(RETRY.len() - 1)];
    let next = later(now, wait).min(later(first, schedule.patience));
    tracing::info!(domain = %job.domain, day = %job.day, %next, trouble, "TLS report not sent everywhere yet");
    blocking(&store, move |store| store.note(&job).and_then(|()| store.put_off(&job, next))).await
}

async fn close(store: &Arc<Store>, job: Job, why: &'static str) -> Result<(), String> {
    tracing::debug!(domain = %job.domain, day = %job.day, why, "TLS report closed");
    blocking(store, move |store| store.close(&job, why)).await
}

/// Sends a report to each destination that does not have it yet. What fails comes back in words.
async fn send(
    store: &Arc<Store>,
    outbox: &Outbox,
    job: &mut Job,
    destinations: &[Destination],
    now: Timestamp,
) -> Result<Vec<String>, String> {
    let submitter = outbox.submitter.load_full();
    let (report, compressed) = make(store, &submitter, job).await?;
    let mut trouble = Vec::new();
    let (mut mailboxes, mut names) = (Vec::new(), Vec::new());
    for destination in destinations.iter().filter(|one| !job.done.contains(&one.to_string())) {
        if let Destination::Mail(mailbox) = destination {
            mailboxes.push(mailbox.clone());
            names.push(destination.to_string());
        }
    }
    if !mailboxes.is_empty() {
        match queue(outbox, &submitter, &report, &compressed, &mailboxes, now).await {
            Ok(()) => note(store, job, names).await?,
            Err(why) => trouble.push(format!("it could not be queued: {why}")),
        }
    }
    for destination in destinations {
        let Destination::Https(uri) = destination else { continue };
        if job.done.contains(&destination.to_string()) {
            continue;
        }
        match outbox.network.post(uri, compressed.clone()).await {
            Ok(()) => {
                tracing::info!(domain = %report.domain, day = %report.day, report = report.id, to = %uri, "TLS report posted");
                note(store, job, vec![destination.to_string()]).await?;
            }
            Err(why) => trouble.push(format!("{uri}: {why}")),
        }
    }
    Ok(trouble)
}

async fn note(store: &Arc<Store>, job: &mut Job, names: Vec<String>) -> Result<(), String> {
    job.done.extend(names);
    let noted = job.clone();
    blocking(store, move |store| store.note(&noted)).await
}

async fn make(store: &Arc<Store>, submitter: &Arc<Submitter>, job: &Job) -> Result<(Report, Bytes), String> {
    let (submitter, job) = (Arc::clone(submitter), job.clone());
    blocking(store, move |store| {
        let report = Report {
            organization: submitter.organization.clone(),
            contact: submitter.contact.clone(),
            policies: store.counted(&job)?,
            day: job.day,
            id: job.id,
            domain: job.domain,
        };
        let compressed = Bytes::from(report.gzip());
        Ok((report, compressed))
    })
    .await
}

/// Queues the mail that carries a report. When this returns `Ok` it is durable.
async fn queue(
    outbox: &Outbox,
    submitter: &Submitter,
    report: &Report,
    compressed: &[u8],
    to: &[Mailbox],
    now: Timestamp,
) -> Result<(), String> {
    let message = mail::write(report, compressed, &submitter.domain, to, now);
    let mut head = match &submitter.signer {
        Some(signer) => {
            signer.sign(&message.fields, message.body.as_bytes(), now).map_err(|error| error.to_string())?
        }
        None => String::new(),
    };
    for field in &message.fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let text = |error: crate::spool::SpoolError| error.to_string();
    let mut draft = outbox.spool.draft();
    draft.write(head.as_bytes()).await.map_err(text)?;
    draft.write(message.body.as_bytes()).await.map_err(text)?;
    let (receipt, entry) = outbox.spool.commit(draft, envelope(submitter, report, to)).await.map_err(text)?;
    tracing::info!(
        queue_id = %receipt.id(), domain = %report.domain, day = %report.day, report = report.id,
        "TLS report queued"
    );
    // Where the scheduler is gone the process is about to end; the report is in the spool.
    let _ended = outbox.accepted.send(entry).await;
    Ok(())
}

/// Nobody is told where a report cannot be delivered: the next one comes tomorrow.
fn envelope(submitter: &Submitter, report: &Report, to: &[Mailbox]) -> Envelope {
    let recipient = |mailbox: &Mailbox| Recipient { notify: Some(Notify::Never), ..Recipient::new(mailbox.clone()) };
    let mut envelope =
        Envelope::new(ReversePath::Mailbox(submitter.contact.clone()), to.iter().map(recipient).collect());
    let unique = report.id.split('@').next().unwrap_or_default();
    envelope.envid = Some(format!("{ENVELOPE_ID}{unique}"));
    // As its header says.
    envelope.tls = TlsRequirement::Relaxed;
    envelope
}
