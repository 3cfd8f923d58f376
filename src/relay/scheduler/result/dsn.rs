//! The reports that a message owes to its sender: what is owed, and how it is stored and queued.
//! [`crate::smtp::dsn`] writes them.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::{Connector, TlsDemand};
use crate::policy::relay_access;
use crate::relay::running_config::Snapshot;
use crate::relay::scheduler::context::{Context, Event};
use crate::relay::scheduler::message_change::StoreResult;
use crate::relay::scheduler::report_queue::{Addressee, OwedReports, ReportRates};
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::dsn::{
    self, Action, RejectedReport, ReportContext, ReportedRecipient, ReturnedContent,
};
use crate::smtp::envelope::{
    AttemptFailure, ClientOrigin, Envelope, FailureHistory, QueueId, RecipientState,
};
use crate::storage::spool::{Body, Claimed, Draft, Entry, SpoolError};

/// The most octets of header fields that a report returns.
const HEADERS_MAX: usize = 64 * 1024;

/// A recipient with a report to the sender.
#[derive(Debug)]
pub(in crate::relay::scheduler) struct ReportCandidate {
    pub(in crate::relay::scheduler) recipient: usize,
    pub(in crate::relay::scheduler) attempts: u32,
    /// The earlier failures.
    pub(in crate::relay::scheduler) history: FailureHistory,
    pub(in crate::relay::scheduler) last: AttemptFailure,
    /// True if a host rejected the message for its content, and may accept it in another form.
    pub(in crate::relay::scheduler) is_of_content: bool,
}

impl ReportCandidate {
    /// Creates a report for a recipient that does not bounce.
    pub(in crate::relay::scheduler) fn notice(recipient: usize, last: AttemptFailure) -> Self {
        Self {
            recipient,
            attempts: 0,
            history: FailureHistory::default(),
            last,
            is_of_content: false,
        }
    }
}

/// The state of the rate check for the first report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay::scheduler) enum RateCheck {
    /// The rate limit is still to be checked.
    Needed,
    /// The rate limit has already admitted it.
    Done,
}

/// Returns the reports owed about a message of `octets`. `wait` is the time for which its report
/// waits for reports about its other recipients.
// Rule: RFC 5321 §4.5.4.
pub(in crate::relay::scheduler) fn owed_reports(
    envelope: &Envelope,
    octets: u64,
    settings: &Snapshot,
    wait: Duration,
) -> OwedReports {
    let owed = || {
        envelope
            .recipients
            .iter()
            .filter_map(|recipient| recipient.owed.as_deref())
    };
    match (&envelope.reverse_path, owed().map(|last| last.at).min()) {
        (_, None) => OwedReports::Nothing,
        (ReversePath::Mailbox(sender), Some(_)) => {
            let to = Addressee {
                host: sender.host().clone(),
                origin: envelope.origin,
            };
            let is_over = !envelope
                .recipients
                .iter()
                .any(|recipient| recipient.state.is_open());
            let kept = (is_over && envelope.origin == ClientOrigin::Stranger).then_some(octets);
            OwedReports::Report { to, wait, kept }
        }
        (ReversePath::Null, Some(since)) => {
            let age =
                Duration::try_from(since.duration_until(Timestamp::now())).unwrap_or_default();
            OwedReports::Digest {
                wait: settings.config.queue.postmaster_digest.saturating_sub(age),
                octets,
            }
        }
    }
}

/// Returns the mailbox for mail to the postmaster.
pub(in crate::relay::scheduler) fn postmaster(settings: &Snapshot) -> Mailbox {
    let config = &settings.config;
    let local =
        relay_access::local_mailbox(config.relay_rules(&settings.connectors), &config.postmaster);
    local.unwrap_or_else(|| config.postmaster.clone())
}

/// A report that is written and not stored yet.
pub(super) struct WrittenReport {
    draft: Draft,
    envelope: Envelope,
    about: ReportedRecipients,
}

/// The recipients that a report is about, with the failures that it reports.
pub(super) struct ReportedRecipients {
    to: Mailbox,
    action: Action,
    owed: Vec<(usize, Box<AttemptFailure>)>,
}

impl WrittenReport {
    /// Returns the report, and the recipients that it is about.
    pub(super) fn split(self) -> ((Draft, Envelope), ReportedRecipients) {
        ((self.draft, self.envelope), self.about)
    }
}

impl ReportedRecipients {
    /// Takes these recipients' reports out of an envelope.
    fn take(envelope: &mut Envelope, action: Action, owed: Vec<usize>, to: Mailbox) -> Self {
        let take = |at: usize| Some((at, envelope.recipients.get_mut(at)?.owed.take()?));
        let owed = owed.into_iter().filter_map(take).collect();
        Self { to, action, owed }
    }

    /// Hands the report about them, which is stored, to the scheduler. `id` is their message.
    pub(super) fn queue(self, context: &Context, id: QueueId, report: Claimed<Entry>) {
        let Self { to, owed, .. } = self;
        context.reports.stored(owed.len());
        tracing::info!(queue_id = %id, report_id = %report.id, %to, recipients = owed.len(), "report to the sender queued");
        // The channel is closed only when the process ends; the report is in the spool.
        let _ = context.events.send(Event::Report(Box::new(report)));
    }

    /// Makes the envelope owe the report again, because it could not be stored. Failures are
    /// reported however late; delays, holds and relaying are not after `expire`.
    pub(super) fn owe(self, envelope: &mut Envelope, id: QueueId, expire: Duration) {
        for (at, last) in self.owed {
            let Some(recipient) = envelope.recipients.get_mut(at) else {
                continue;
            };
            if self.action != Action::Failed && age(&last) > expire {
                let to = &recipient.mailbox;
                tracing::error!(queue_id = %id, %to, "cannot store report to the sender within [queue] expire; discarding it");
            } else {
                recipient.owed = Some(last);
            }
        }
    }
}

/// Writes the reports that a message owes to its sender, one for each action (RFC 3464 §2.3.3), and
/// clears them from `envelope`. `until` is the time at which the message expires.
pub(super) async fn write(
    context: &Context,
    settings: &Snapshot,
    entry: &Entry,
    envelope: &mut Envelope,
    until: Timestamp,
    mut rate_check: RateCheck,
) -> (Vec<WrittenReport>, StoreResult) {
    let mut written = Vec::new();
    let Some(sender) = envelope.reverse_path.mailbox().cloned() else {
        return (written, StoreResult::All);
    };
    for action in [
        Action::Failed,
        Action::Delayed(Some(until)),
        Action::Delayed(None),
        Action::Relayed,
    ] {
        let owed = take_wanted(envelope, action, until);
        if owed.is_empty() {
            continue;
        }
        if rate_check == RateCheck::Needed && !take_rate(context, settings, envelope) {
            return (written, StoreResult::OverRate);
        }
        rate_check = RateCheck::Needed;
        // A sender on this host (root of cron, for example) has no mailbox here.
        let rules = settings.config.relay_rules(&settings.connectors);
        let to = relay_access::local_mailbox(rules, &sender).unwrap_or_else(|| sender.clone());
        let report = compose(context, settings, entry, (envelope, &to), action, &owed).await;
        let about = ReportedRecipients::take(envelope, action, owed, to);
        match report {
            Ok((draft, envelope)) => written.push(WrittenReport {
                draft,
                envelope,
                about,
            }),
            Err(error) => {
                tracing::error!(queue_id = %entry.id, %error, "cannot store report to the sender; retrying");
                about.owe(envelope, entry.id, settings.config.queue.expire);
                return (written, StoreResult::Failed);
            }
        }
    }
    (written, StoreResult::All)
}

/// Returns the time since a failure.
fn age(last: &AttemptFailure) -> Duration {
    Duration::try_from(last.at.duration_until(Timestamp::now())).unwrap_or_default()
}

/// Returns the recipients that owe this report, and clears reports that the sender did not request.
fn take_wanted(envelope: &mut Envelope, action: Action, until: Timestamp) -> Vec<usize> {
    let Envelope {
        reverse_path,
        recipients,
        ..
    } = envelope;
    let mut owed = Vec::new();
    for (at, recipient) in recipients.iter_mut().enumerate() {
        if recipient.owed.is_none() || action_of(&recipient.state, until) != action {
            continue;
        }
        if dsn::is_requested(reverse_path, recipient, action) {
            owed.push(at);
        } else {
            recipient.owed = None;
        }
    }
    owed
}

/// Returns the kind of report for a recipient in this state.
fn action_of(state: &RecipientState, until: Timestamp) -> Action {
    match state {
        RecipientState::Pending { .. } => Action::Delayed(Some(until)),
        RecipientState::Held { .. } => Action::Delayed(None),
        RecipientState::Delivered => Action::Relayed,
        RecipientState::Failed => Action::Failed,
    }
}

/// Returns true when the rate limit admits a report to the sender of this message now, and counts
/// it.
fn take_rate(context: &Context, settings: &Snapshot, envelope: &Envelope) -> bool {
    let Some(sender) = envelope.reverse_path.mailbox() else {
        return true;
    };
    let to = Addressee {
        host: sender.host().clone(),
        origin: envelope.origin,
    };
    let mut limiter = context
        .limiter
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    limiter.take(
        &to,
        ReportRates::of(&settings.config.limits),
        Instant::now(),
    )
}

/// Writes one report to the sender, whose mailbox is `to`.
async fn compose(
    context: &Context,
    settings: &Snapshot,
    entry: &Entry,
    (envelope, to): (&Envelope, &Mailbox),
    action: Action,
    owed: &[usize],
) -> Result<(Draft, Envelope), SpoolError> {
    let config = &settings.config;
    let reported = owed.iter().filter_map(|at| {
        let recipient = envelope.recipients.get(*at)?;
        Some(ReportedRecipient {
            recipient,
            last: recipient.owed.as_deref()?,
        })
    });
    let reported: Vec<ReportedRecipient<'_>> = reported.collect();
    let (returned, original) = match dsn::content_to_return(action, envelope, entry.size) {
        ReturnedContent::Nothing => (ReturnedContent::Nothing, Vec::new()),
        ReturnedContent::Full => (ReturnedContent::Full, read_front(entry, usize::MAX).await?),
        ReturnedContent::Headers => (
            ReturnedContent::Headers,
            read_front(entry, HEADERS_MAX).await?,
        ),
    };
    // A report without the original is better than none.
    let returned = if original.is_empty() && entry.size > 0 {
        ReturnedContent::Nothing
    } else {
        returned
    };
    let about = ReportContext {
        hostname: &config.hostname,
        id: entry.id,
        accepted: entry.accepted,
        now: Timestamp::now(),
        postmaster: &config.postmaster,
        envelope,
        returned,
        original: &original,
    };
    let mut draft = context.spool.draft_report();
    let report = dsn::write(&about, action, &reported, to, draft.id());
    draft.write(&report.content).await?;
    Ok((draft, report.envelope))
}

/// Stores a rejected report of ours again, as plain text. Returns false when the message is not
/// such a report.
pub(in crate::relay::scheduler) async fn resend_as_text(
    context: &Context,
    settings: &Snapshot,
    entry: &Entry,
    envelope: &Envelope,
) -> Result<bool, SpoolError> {
    let report = read_front(entry, usize::MAX).await?;
    let rejected = RejectedReport {
        id: entry.id,
        envelope,
        content: &report,
    };
    let draft = context.spool.draft_report();
    let written = dsn::write_text_only(
        &rejected,
        &settings.config.hostname,
        Timestamp::now(),
        draft.id(),
    );
    let Some(report) = written else {
        return Ok(false);
    };
    let report_id = enqueue(context, draft, report).await?;
    tracing::warn!(queue_id = %entry.id, %report_id, "report refused for its content; sent again as plain text");
    Ok(true)
}

/// Stores a report and hands it to the scheduler. Returns its queue id.
pub(in crate::relay::scheduler) async fn enqueue(
    context: &Context,
    mut draft: Draft,
    report: dsn::ReportMessage,
) -> Result<QueueId, SpoolError> {
    draft.write(&report.content).await?;
    let (receipt, entry) = context.spool.commit(draft, report.envelope).await?;
    // The channel is closed only when the process ends; the report is in the spool.
    let _ = context.events.send(Event::Report(Box::new(entry)));
    Ok(receipt.id())
}

/// Returns true when `tls = "forced"` applied to the message, inbound or outbound. A report may
/// take a route without TLS, so it must not return the content then. `connector` is the one that
/// the attempt used.
pub(in crate::relay::scheduler) fn is_confidential(
    settings: &Snapshot,
    envelope: &Envelope,
    connector: &Connector,
) -> bool {
    let sender = envelope.reverse_path.mailbox();
    let came = sender.map(|sender| settings.connectors.for_host(sender.host()).inbound.tls);
    let went = connector.with_floor().map(|one| one.outbound.tls);
    went.chain(came)
        .any(|demand| matches!(demand, TlsDemand::Forced { .. }))
}

/// Returns at most `most` octets from the front of a message; none when its content is damaged.
pub(in crate::relay::scheduler) async fn read_front(
    entry: &Entry,
    most: usize,
) -> Result<Vec<u8>, SpoolError> {
    match front(&entry.body, most).await {
        // The spool has quarantined it and logged it.
        Err(SpoolError::Damaged { .. } | SpoolError::Missing(_)) => Ok(Vec::new()),
        front => front,
    }
}

/// Reads at most `most` octets of a body.
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
