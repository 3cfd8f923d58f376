//! The report to the postmaster about quarantined messages whose envelopes cannot be read, so that
//! their senders cannot be informed. Those that are found within `[queue] postmaster_digest` of the
//! first one are in one report.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::smtp::dsn::{self, QuarantinedMessage};
use crate::smtp::envelope::QueueId;
use crate::storage::spool::{SetAside, SpoolError};

use super::context::{Context, Event};
use super::result::{self, postmaster};
use super::state::SchedulerState;

/// The wait after a report that could not be stored.
const FAILED_PAUSE: Duration = Duration::from_mins(1);

/// A guard of a running task. The scheduler hears of its end even if it panics.
struct QuarantineGuard {
    context: Arc<Context>,
    is_stored: bool,
}

impl Drop for QuarantineGuard {
    fn drop(&mut self) {
        // The channel is closed only when the process ends.
        let _ = self
            .context
            .events
            .send(Event::QuarantineReported(self.is_stored));
    }
}

impl SchedulerState {
    /// Starts a task for the report, if it is due.
    pub(super) fn begin_quarantine_report(&mut self) {
        if !self.context.spool.has_set_aside() {
            self.quarantine_report.forget();
            return;
        }
        let wait = self.context.running.load().config.queue.postmaster_digest;
        if !self.quarantine_report.is_due(Instant::now(), wait) || !self.may_begin() {
            return;
        }
        self.quarantine_report.begin();
        self.jobs += 1;
        self.tasks.spawn(report_set_aside(QuarantineGuard {
            context: Arc::clone(&self.context),
            is_stored: false,
        }));
    }

    /// Records the end of the task.
    pub(super) fn quarantine_reported(&mut self, is_stored: bool) {
        self.jobs -= 1;
        let again = (!is_stored).then(|| Instant::now() + FAILED_PAUSE);
        self.quarantine_report.end(again);
    }
}

async fn report_set_aside(mut guard: QuarantineGuard) {
    match store(&guard.context).await {
        Ok(()) => guard.is_stored = true,
        Err(error) => {
            tracing::error!(%error, "cannot store the report about quarantined messages for the postmaster; retrying");
        }
    }
}

/// Writes, stores and queues the report. If the process ends before the spool knows of it, the next
/// start makes another one.
async fn store(context: &Context) -> Result<(), SpoolError> {
    let marked = marked_report(context).take();
    if let Some((report_id, entries)) = marked {
        return remove_marks(context, report_id, entries).await;
    }
    let entries = context.spool.set_aside().await?;
    if entries.is_empty() {
        return Ok(());
    }
    let messages: Vec<_> = entries
        .iter()
        .map(|entry| QuarantinedMessage {
            name: &entry.name,
            fault: &entry.fault,
            files: &entry.files,
        })
        .collect();
    let settings = context.running.load();
    let (host, to) = (&settings.config.hostname, postmaster(&settings));
    let draft = context.spool.draft_report();
    let report = dsn::write_quarantine_report(host, Timestamp::now(), &to, &messages, draft.id());
    let report_id = result::enqueue_report(context, draft, report).await?;
    tracing::warn!(messages = entries.len(), %report_id, %to, "report about quarantined messages queued for the postmaster");
    remove_marks(context, report_id, entries).await
}

/// Removes the marks of the messages in a stored report. If that fails, the next attempt does it and
/// makes no other report.
async fn remove_marks(
    context: &Context,
    report_id: QueueId,
    entries: Vec<SetAside>,
) -> Result<(), SpoolError> {
    let kept = entries.clone();
    let removed = context.spool.set_aside_reported(report_id, entries).await;
    if removed.is_err() {
        *marked_report(context) = Some((report_id, kept));
    }
    removed
}

fn marked_report(context: &Context) -> MutexGuard<'_, Option<(QueueId, Vec<SetAside>)>> {
    let report = context.marked_report.lock();
    report.unwrap_or_else(PoisonError::into_inner)
}
