//! Reports to senders: written by [`crate::dsn`], stored and queued here like any other mail.

use std::sync::Arc;

use jiff::Timestamp;

use crate::access::{self, Rules};
use crate::config::TlsDemand;
use crate::dsn::{self, About, Action, Returned, Told};
use crate::envelope::{Envelope, History, Trouble};
use crate::outbound::Attempt;
use crate::spool::{BodyReader, SpoolError};

use super::{Context, Event, Settings};

/// Octets of header fields that a report returns, at most.
const HEADERS_MAX: usize = 64 * 1024;

/// A recipient of whom something is to be told.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) recipient: usize,
    pub(super) attempts: u32,
    /// What had happened before.
    pub(super) history: History,
    pub(super) last: Trouble,
}

/// Stores the report about `changes` and queues it; says whether that went well. Nothing is stored, and
/// all is well, where nobody wants to know or nobody is left to be told.
pub(super) async fn store(
    context: &Arc<Context>,
    settings: &Settings,
    attempt: &Attempt,
    envelope: &Envelope,
    action: Action,
    changes: &[Change],
) -> bool {
    let told: Vec<Told<'_>> = changes
        .iter()
        .filter_map(|change| Some(Told { recipient: envelope.recipients.get(change.recipient)?, last: &change.last }))
        .filter(|told| dsn::is_wanted(&envelope.reverse_path, told.recipient, action))
        .collect();
    if told.is_empty() {
        return true;
    }
    match compose(context, settings, attempt, envelope, action, &told).await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(queue_id = %attempt.entry.id, %error, "a report to the sender could not be stored");
            false
        }
    }
}

async fn compose(
    context: &Context,
    settings: &Settings,
    attempt: &Attempt,
    envelope: &Envelope,
    action: Action,
    told: &[Told<'_>],
) -> Result<(), SpoolError> {
    let entry = &attempt.entry;
    let config = &settings.config;
    let Some(to) = dsn::addressee(envelope, told, &config.postmaster) else {
        tracing::error!(queue_id = %entry.id, "a report could not be delivered to the postmaster; nobody is left to be told");
        return Ok(());
    };
    // A sender on this host, cron's root for one, has no mailbox here.
    let to = access::local(Rules::new(config, &settings.connectors), &to).unwrap_or(to);
    let returned = dsn::returned(action, envelope, entry.size, is_confidential(settings, attempt));
    let mut original = entry.body.reader().await?;
    let fields = match returned {
        Returned::Whole => None,
        Returned::Headers => Some(header_fields(&mut original).await?),
    };
    let about = About {
        hostname: &config.hostname,
        id: entry.id,
        accepted: entry.accepted,
        now: Timestamp::now(),
        envelope,
        returned,
        eight_bit: fields.as_ref().map_or(envelope.needs.eight_bit, |fields| !fields.is_ascii()),
    };
    let mut draft = context.spool.draft_report();
    let report = dsn::write(&about, action, told, &to, draft.id());
    draft.write(report.head.as_bytes()).await?;
    match fields {
        Some(fields) => draft.write(&fields).await?,
        None => {
            while let Some(chunk) = original.next().await? {
                draft.write(&chunk).await?;
            }
        }
    }
    draft.write(report.tail.as_bytes()).await?;
    let (receipt, report) = context.spool.commit(draft, report.envelope).await?;
    tracing::info!(queue_id = %entry.id, report_id = %receipt.id(), %to, "report to the sender queued");
    // The scheduler is gone only when the process is about to be; the report is in the spool.
    let _ = context.events.send(Event::Report(Box::new(report)));
    Ok(())
}

/// Whether TLS was forced for the way of the message, on this side of us or the other: the report may go
/// another.
fn is_confidential(settings: &Settings, attempt: &Attempt) -> bool {
    let sender = attempt.entry.envelope.reverse_path.mailbox();
    let came = sender.map(|sender| settings.connectors.for_host(sender.host()).inbound.tls);
    let demands = [Some(attempt.connector.outbound.tls), came];
    demands.iter().any(|demand| matches!(demand, Some(TlsDemand::Forced { .. })))
}

/// The header fields of a message, up to a bound.
async fn header_fields(original: &mut BodyReader) -> Result<Vec<u8>, SpoolError> {
    let mut front = Vec::new();
    while let Some(chunk) = original.next().await? {
        front.extend_from_slice(&chunk);
        if front.len() >= HEADERS_MAX || memchr::memmem::find(&chunk, b"\r\n\r\n").is_some() {
            break;
        }
    }
    front.truncate(HEADERS_MAX);
    Ok(dsn::header_fields(&front).to_vec())
}
