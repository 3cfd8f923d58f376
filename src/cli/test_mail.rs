//! `gatepost test-mail`: sends a message through the running relay, and shows what becomes of it.
//!
//! Exit status: 0 if it was delivered; 1 if it was rejected, bounced or removed, is still in the
//! queue at the end of the time, or if its end is not known; 2 for unusable arguments or an unusable
//! configuration.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::admin_client::{AdminClient, SocketError};
use super::config_file::ConfigFile;
use super::format::{INDENT, plain, time_and_wait, width, wrap};
use super::output::{show, show_faults};
use super::{runtime, sendmail};
use crate::admin::api::{DeliveryState, QueuedMessage, QueuedRecipient};
use crate::config::{self, AdminSocket, Config, EvidencePath};
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::envelope::QueueId;
use crate::storage::evidence::{DeliveryRecord, MailRecord, Period, RecordedOutcome, records};

/// The time between two looks into the queue.
const PAUSE: Duration = Duration::from_millis(250);
/// The time by which the clock may have been set back since the message was accepted.
const CLOCK_SLACK: Duration = Duration::from_hours(1);

/// Send a test message through the running relay, and show what becomes of it
///
/// The message enters by a listener and is subject to every rule, as any other mail. Each attempt is
/// shown with its reason, until the message is delivered or has bounced, or until --wait is over; then
/// it stays in the queue as any other. What it was delivered with is read from the evidence.
#[derive(Debug, Args)]
pub(super) struct TestMailArguments {
    /// The recipient
    #[arg(value_name = "ADDRESS", value_parser = recipient)]
    address: Mailbox,
    /// The sender, to which reports go; the postmaster by default, `<>` for the null sender
    #[arg(long, value_name = "ADDRESS", value_parser = reverse_path)]
    from: Option<ReversePath>,
    /// The longest time to wait for the end
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    wait: Duration,
    #[command(flatten)]
    file: ConfigFile,
}

fn recipient(text: &str) -> Result<Mailbox, String> {
    Mailbox::parse(text).map_err(|error| error.to_string())
}

fn reverse_path(text: &str) -> Result<ReversePath, String> {
    let text = if text == "<>" { "" } else { text };
    ReversePath::parse(text).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "a time is written as 30s, 5m or 1h".to_owned())
}

pub(super) fn run(arguments: &TestMailArguments) -> ExitCode {
    let file = &arguments.file.config;
    let config = match config::read(file) {
        Ok((config, _)) => config,
        Err(faults) => {
            show_faults(file, &faults);
            return ExitCode::from(2);
        }
    };
    let AdminSocket::Path(socket) = &config.admin.socket.value else {
        eprintln!(
            "gatepost test-mail: [admin] socket is switched off in {}; set it to a path and restart the daemon.",
            file.display()
        );
        return ExitCode::from(2);
    };
    let client = AdminClient::at(socket.clone());
    match send_and_follow(arguments, &config, &client) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("gatepost test-mail: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The error of the command.
#[derive(Debug, thiserror::Error)]
enum TestMailError {
    /// The relay did not accept the message.
    #[error("{0}")]
    Submission(String),
    /// The daemon cannot be asked.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No runtime could be started.
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
}

fn send_and_follow(
    arguments: &TestMailArguments,
    config: &Config,
    client: &AdminClient,
) -> Result<ExitCode, TestMailError> {
    let sender = arguments
        .from
        .clone()
        .unwrap_or_else(|| ReversePath::Mailbox(config.postmaster.clone()));
    let started = Timestamp::now();
    let id = sendmail::submit_test(config, sender, arguments.address.clone())
        .map_err(TestMailError::Submission)?;
    show(&format!("accepted as {id}\n"));
    let runtime = runtime::single_threaded()?;
    let followed =
        runtime.block_on(async { tokio::time::timeout(arguments.wait, follow(client, id)).await });
    if let Ok(last) = followed {
        return Ok(show_end(config, id, started, last?));
    }
    show(&format!(
        "still in the queue; see `gatepost queue show {id}`, or try it again with `gatepost queue retry {id}`\n"
    ));
    Ok(ExitCode::FAILURE)
}

/// Shows each change of a message until no more attempts follow. Returns the state of its recipient
/// that was seen last; `None` if it had left the queue before.
async fn follow(client: &AdminClient, id: QueueId) -> Result<Option<DeliveryState>, SocketError> {
    let (mut shown, mut last) = (String::new(), None);
    loop {
        match client.get(&format!("/v1/queue/{id}")).await {
            Ok(QueuedMessage { recipients, .. }) => {
                let state: String = recipients.iter().map(state_text).collect();
                if state != shown {
                    show(&state);
                    shown = state;
                }
                last = recipients.first().map(|one| one.state);
                // A message that has failed may wait for the report about it.
                if recipients.iter().all(|one| is_final(one.state)) {
                    return Ok(last);
                }
            }
            Err(SocketError::Missing(_)) => return Ok(last),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_final(state: DeliveryState) -> bool {
    match state {
        DeliveryState::Waiting | DeliveryState::Held => false,
        DeliveryState::Delivered | DeliveryState::Failed => true,
    }
}

/// Returns the state of a recipient after an attempt; nothing before the first one.
fn state_text(recipient: &QueuedRecipient) -> String {
    let mut text = String::new();
    let Some(reason) = &recipient.reason else {
        return text;
    };
    let state = match recipient.state {
        DeliveryState::Waiting => "deferred",
        DeliveryState::Held => "held until it is released",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Failed => "bounced",
    };
    let next = match (recipient.state, recipient.next) {
        (DeliveryState::Waiting, Some(next)) => {
            format!("; next attempt {}", time_and_wait(next, Timestamp::now()))
        }
        _ => String::new(),
    };
    let (status, cause) = (&reason.status, &reason.text);
    let line = format!("{state}: {status} {cause}{next}");
    wrap(&mut text, "", INDENT, &plain(&line), width());
    text
}

/// Shows what became of a message in the end, as the evidence has it; without evidence, as the queue
/// had it.
fn show_end(
    config: &Config,
    id: QueueId,
    started: Timestamp,
    last: Option<DeliveryState>,
) -> ExitCode {
    let EvidencePath::Folder(folder) = &config.evidence.path.value else {
        let (end, is_delivered) = end_without_evidence(last);
        show(&format!(
            "{end}; there is no evidence ([evidence] path is \"\"), so see the log: journalctl -u gatepost | grep {id}\n"
        ));
        return if is_delivered {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    };
    match last_record(folder, id, started) {
        Ok(Some(record)) => {
            let mut text = String::new();
            wrap(
                &mut text,
                "",
                INDENT,
                &plain(&record_text(&record)),
                width(),
            );
            show(&text);
            match record.outcome {
                RecordedOutcome::Delivered => ExitCode::SUCCESS,
                RecordedOutcome::Deferred
                | RecordedOutcome::Held
                | RecordedOutcome::Bounced
                | RecordedOutcome::Removed => ExitCode::FAILURE,
            }
        }
        Ok(None) => {
            eprintln!(
                "gatepost test-mail: there are no more attempts, but {} has no record of {id}; see `gatepost evidence verify`",
                folder.display()
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!(
                "gatepost test-mail: there are no more attempts; the evidence, which has the result, cannot be read: {error}"
            );
            ExitCode::FAILURE
        }
    }
}

/// Returns the end of a message as the queue shows it, and true if it was delivered. What has left
/// the queue unseen may have bounced.
fn end_without_evidence(last: Option<DeliveryState>) -> (&'static str, bool) {
    match last {
        Some(DeliveryState::Delivered) => ("delivered", true),
        Some(DeliveryState::Failed) => ("bounced", false),
        Some(DeliveryState::Waiting | DeliveryState::Held) | None => (
            "there are no more attempts, and it is not known whether it was delivered",
            false,
        ),
    }
}

/// Returns the last record of a message that was accepted after `started`.
fn last_record(
    folder: &Path,
    id: QueueId,
    started: Timestamp,
) -> Result<Option<DeliveryRecord>, crate::storage::evidence::EvidenceError> {
    let (id, mut last) = (id.to_string(), None);
    let period = Period {
        from: started.checked_sub(CLOCK_SLACK).ok(),
        until: None,
    };
    records(folder, period, |_, _, record| match record {
        MailRecord::Delivery(delivery) if delivery.queue_id == id => last = Some(*delivery),
        MailRecord::Delivery(_) | MailRecord::Accepted(_) => {}
    })?;
    Ok(last)
}

/// Returns the outcome of an attempt, its host and its TLS.
fn record_text(record: &DeliveryRecord) -> String {
    let outcome = record.outcome.as_str();
    let host = match (&record.host, &record.address) {
        (Some(host), Some(address)) => format!(" by {host} ({address})"),
        (Some(host), None) | (None, Some(host)) => format!(" by {host}"),
        (None, None) => String::new(),
    };
    let tls = record
        .session
        .as_ref()
        .map(|session| format!(", {}", session.level))
        .unwrap_or_default();
    let (connector, standing) = (&record.connector, record.standing.as_str());
    let answer = match (&record.reason, &record.reply) {
        (Some(reason), _) => format!("; {} {reason}", record.status),
        (None, Some(reply)) => format!("; {reply}"),
        (None, None) => String::new(),
    };
    format!("{outcome}{host}{tls}, connector {connector}, its demand: {standing}{answer}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_evidence_a_message_counts_as_delivered_if_the_queue_showed_it() {
        for (last, end, is_delivered) in [
            (Some(DeliveryState::Delivered), "delivered", true),
            (Some(DeliveryState::Failed), "bounced", false),
            (Some(DeliveryState::Waiting), "not known", false),
            (Some(DeliveryState::Held), "not known", false),
            (None, "not known", false),
        ] {
            let (text, counts) = end_without_evidence(last);
            assert!(text.contains(end), "{last:?}: {text}");
            assert_eq!(counts, is_delivered, "{last:?}");
        }
    }
}
