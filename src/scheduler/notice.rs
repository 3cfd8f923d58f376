//! Reports to senders: written by [`crate::dsn`], stored and queued here like any other mail.

use std::sync::Arc;

use jiff::Timestamp;

use crate::access::{self, Rules};
use crate::config::{Connector, TlsDemand};
use crate::dsn::{self, About, Action, Refused, Returned, Told};
use crate::envelope::{Envelope, History, ReportForm, Trouble};
use crate::outbound::Attempt;
use crate::spool::{Body, SpoolError};

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
    /// A host refused the message as such, and may take it in another form.
    pub(super) is_of_content: bool,
}

impl Change {
    /// One that is told while the recipient keeps its state.
    pub(super) fn notice(recipient: usize, last: Trouble) -> Self {
        Self { recipient, attempts: 0, history: History::default(), last, is_of_content: false }
    }
}

/// The attempt, or the age of a message, that reports are about.
pub(super) struct Subject<'a> {
    pub(super) settings: &'a Settings,
    pub(super) attempt: &'a Attempt,
    /// The connector under which it was judged.
    pub(super) connector: &'a Connector,
}

/// Stores the report about `changes` and queues it; says whether that went well. Nothing is stored, and
/// all is well, where nobody wants to know or nobody is left to be told.
pub(super) async fn store(
    context: &Arc<Context>,
    subject: &Subject<'_>,
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
    let may_simplify = action == Action::Failed
        && envelope.report == Some(ReportForm::Full)
        && changes.iter().any(|change| change.is_of_content);
    let stored = async {
        if may_simplify && simplify(context, subject, envelope).await? {
            return Ok(());
        }
        compose(context, subject, envelope, action, &told).await
    };
    match stored.await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(queue_id = %subject.attempt.entry.id, %error, "report to the sender not stored; it is tried again");
            false
        }
    }
}

async fn compose(
    context: &Context,
    subject: &Subject<'_>,
    envelope: &Envelope,
    action: Action,
    told: &[Told<'_>],
) -> Result<(), SpoolError> {
    let entry = &subject.attempt.entry;
    let config = &subject.settings.config;
    let failed = || told.iter().map(|told| told.recipient.mailbox.to_string()).collect::<Vec<_>>().join(" ");
    let Some(to) = dsn::addressee(envelope, told, &config.postmaster) else {
        tracing::error!(queue_id = %entry.id, to = failed(), "double bounce: bounce to postmaster failed; discarding it");
        return Ok(());
    };
    // A sender on this host, cron's root for one, has no mailbox here.
    let to = access::local(Rules::new(config, &subject.settings.connectors), &to).unwrap_or(to);
    let returned = dsn::returned(action, envelope, entry.size, is_confidential(subject));
    let original = match returned {
        Returned::Whole => front(&entry.body, usize::MAX).await?,
        Returned::Headers => front(&entry.body, HEADERS_MAX).await?,
    };
    let about = About {
        hostname: &config.hostname,
        id: entry.id,
        accepted: entry.accepted,
        now: Timestamp::now(),
        envelope,
        returned,
        original: &original,
    };
    let draft = context.spool.draft_report();
    let report = dsn::write(&about, action, told, &to, draft.id());
    let report_id = enqueue(context, draft, report).await?;
    if envelope.reverse_path.mailbox().is_some() {
        tracing::info!(queue_id = %entry.id, %report_id, %to, "report to the sender queued");
    } else {
        tracing::warn!(
            queue_id = %entry.id, failed = failed(), %report_id, %to,
            "double bounce: mail from the null sender failed; report to the postmaster queued"
        );
    }
    Ok(())
}

/// Stores a report that was refused once more, as plain text; false where it is no report as we write them.
async fn simplify(context: &Context, subject: &Subject<'_>, envelope: &Envelope) -> Result<bool, SpoolError> {
    let entry = &subject.attempt.entry;
    let report = front(&entry.body, usize::MAX).await?;
    let rejected = Refused { id: entry.id, envelope, content: &report };
    let draft = context.spool.draft_report();
    let written = dsn::plain(&rejected, &subject.settings.config.hostname, Timestamp::now(), draft.id());
    let Some(report) = written else { return Ok(false) };
    let report_id = enqueue(context, draft, report).await?;
    tracing::warn!(queue_id = %entry.id, %report_id, "report refused for its content; sent again as plain text");
    Ok(true)
}

/// Makes a report durable, and hands it to the scheduler; gives its name.
async fn enqueue(
    context: &Context,
    mut draft: crate::spool::Draft,
    report: dsn::Report,
) -> Result<crate::envelope::QueueId, SpoolError> {
    draft.write(&report.content).await?;
    let (receipt, entry) = context.spool.commit(draft, report.envelope).await?;
    // The scheduler is gone only when the process is about to be; the report is in the spool.
    let _ = context.events.send(Event::Report(Box::new(entry)));
    Ok(receipt.id())
}

/// Whether TLS was forced for the way of the message, on this side of us or the other: the report may go
/// another.
fn is_confidential(subject: &Subject<'_>) -> bool {
    let Subject { settings, attempt, connector } = subject;
    let sender = attempt.entry.envelope.reverse_path.mailbox();
    let came = sender.map(|sender| settings.connectors.for_host(sender.host()).inbound.tls);
    let demands = [Some(connector.outbound.tls), came];
    demands.iter().any(|demand| matches!(demand, Some(TlsDemand::Forced { .. })))
}

/// The front of a message, of so many octets at most.
async fn front(body: &Body, most: usize) -> Result<Vec<u8>, SpoolError> {
    let (mut front, mut reader) = (Vec::new(), body.reader().await?);
    while front.len() < most
        && let Some(chunk) = reader.next().await?
    {
        front.extend_from_slice(&chunk);
    }
    front.truncate(most);
    Ok(front)
}
