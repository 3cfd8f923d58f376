//! `gatepost check --against`: compares a configuration with the running one, or with another file.
//!
//! This module reads both configurations and the queue, and formats the result.
//! [`crate::explain::difference`] makes the comparison.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::admin::api::{DeliveryState, QueuePage, RunningConfigText};
use crate::cli::admin_client::{AdminClient, SocketError};
use crate::cli::format::{count, plain, short, wrap};
use crate::cli::runtime::{self, RuntimeError};
use crate::config::{self, AdminSocket, ChangedKey, Config, Fault, SourceFile};
use crate::explain::difference::{
    ConnectorChange, Difference, QueuedDomain, QueuedMessages, SectionChange,
};

/// The number of messages in one request to the daemon.
const PAGE: usize = 1000;

/// The reason why two configurations cannot be compared (exit status 2).
#[derive(Debug, thiserror::Error)]
pub(super) enum CompareError {
    /// The daemon cannot be asked.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// The socket of the daemon is not known.
    #[error(
        "[admin] socket is switched off in the new file: name the daemon's with --socket, or a file to compare with"
    )]
    NoSocket,
    /// The other configuration has errors.
    #[error("{what} cannot be read:\n{}", .faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    OldConfig {
        /// The other configuration, in words.
        what: &'static str,
        /// The errors.
        faults: Vec<Fault>,
    },
    /// The client of the daemon cannot be started.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// The configuration to compare with.
pub(super) enum OldConfig<'a> {
    /// The configuration of the running daemon, on this socket or on that of the new file.
    Running(Option<&'a Path>),
    /// A file.
    File(&'a Path),
}

/// The result of a comparison. The field names are those of the JSON output.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// The file that was checked.
    new: PathBuf,
    /// The file that the old configuration was read from.
    old: PathBuf,
    /// The SHA-256 of the running configuration's text.
    running_sha256: Option<String>,
    /// True if both mean the same.
    same: bool,
    /// True if the queue of the daemon was read.
    queue_asked: bool,
    #[serde(flatten)]
    difference: Difference,
}

impl Comparison {
    /// Returns true if both configurations mean the same.
    pub(super) fn is_same(&self) -> bool {
        self.same
    }
}

/// Compares a configuration with another one.
pub(super) fn compare(new: &Config, old: &OldConfig<'_>) -> Result<Comparison, CompareError> {
    let waiting = QueuedMessages::default();
    let (old, running_sha256, waiting, queue_asked) = match old {
        OldConfig::File(file) => {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
            let read = config::read(&file).map_err(|faults| CompareError::OldConfig {
                what: "the other file",
                faults,
            })?;
            (read.0, None, waiting, false)
        }
        OldConfig::Running(socket) => {
            let client = client(new, *socket)?;
            let ((running, sha256), waiting) = runtime::single_threaded()?.block_on(async {
                Ok::<_, CompareError>((
                    running_config(&client).await?,
                    queue(&client, waiting).await?,
                ))
            })?;
            (running, Some(sha256), waiting, true)
        }
    };
    let difference = Difference::between(&old, new, &waiting);
    let (new, old) = (new.source.file.to_path_buf(), old.source.file.to_path_buf());
    Ok(Comparison {
        new,
        old,
        running_sha256,
        same: difference.is_none(),
        queue_asked,
        difference,
    })
}

/// Returns the configuration that the daemon runs with, and the SHA-256 of its text.
pub(super) async fn running_config(client: &AdminClient) -> Result<(Config, String), CompareError> {
    let running: RunningConfigText = client.get("/v1/config").await?;
    let included = running.included.iter();
    let included = included.map(|included| SourceFile::new(&included.text, &included.file));
    let main = SourceFile::new(&running.text, &running.file);
    let read = config::parse_files(&main, included.collect());
    let (config, _) = read.map_err(|faults| CompareError::OldConfig {
        what: "the running configuration",
        faults,
    })?;
    Ok((config, running.sha256))
}

fn client(new: &Config, socket: Option<&Path>) -> Result<AdminClient, CompareError> {
    match (socket, &new.admin.socket.value) {
        (Some(path), _) => Ok(AdminClient::at(path.to_path_buf())),
        (None, AdminSocket::Path(path)) => Ok(AdminClient::at(path.clone())),
        (None, AdminSocket::Off) => Err(CompareError::NoSocket),
    }
}

/// Reads the queue page by page and adds each message with its open recipients.
async fn queue(
    client: &AdminClient,
    mut waiting: QueuedMessages,
) -> Result<QueuedMessages, SocketError> {
    let mut after = String::new();
    loop {
        let page: QueuePage = client
            .get(&format!("/v1/queue?limit={PAGE}{after}"))
            .await?;
        for message in &page.messages {
            let open = message
                .recipients
                .iter()
                .filter(|recipient| match recipient.state {
                    DeliveryState::Waiting | DeliveryState::Held => true,
                    DeliveryState::Delivered | DeliveryState::Failed => false,
                });
            waiting.add(message.id, open.map(|recipient| recipient.address.host()));
        }
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(waiting),
        }
    }
}

/// Returns the comparison as text, in lines of at most `width` columns.
pub(super) fn text(report: &Comparison, width: usize) -> String {
    let (new, old) = (report.new.display(), report.old.display());
    let title = match report.running_sha256 {
        Some(_) => format!("{new} against the running configuration, read from {old}"),
        None => format!("{new} against {old}"),
    };
    let mut text = String::new();
    wrap(&mut text, "", "  ", &title, width);
    let Difference {
        changes,
        winners,
        queued,
        queued_more,
    } = &report.difference;
    if report.same {
        text.push_str("no difference: both mean the same\n");
    }
    for change in changes {
        section(&mut text, change, width);
    }
    if !winners.is_empty() {
        text.push_str("\nDomains with another connector\n");
    }
    for ConnectorChange { pattern, old, new } in winners {
        let _ = writeln!(text, "  {pattern}: {old} -> {new}");
    }
    match (queued.is_empty(), report.queue_asked) {
        (true, true) => text.push_str("\nNo message in the queue would be treated differently.\n"),
        (true, false) => text.push_str("\nThe queue is not compared: files have none.\n"),
        (false, _) => text.push_str("\nMessages in the queue that would be treated differently\n"),
    }
    for domain in queued {
        queued_domain(&mut text, domain, width);
    }
    if *queued_more > 0 {
        let _ = writeln!(
            text,
            "  and those for {}",
            count(*queued_more, "more domain")
        );
    }
    text
}

fn section(text: &mut String, change: &SectionChange, width: usize) {
    let table = if change.table.is_empty() {
        "before the first table"
    } else {
        &change.table
    };
    let _ = writeln!(text, "\n{table}: {}", change.what);
    keys(text, "  ", &change.keys, width);
}

fn keys(text: &mut String, indent: &str, keys: &[ChangedKey], width: usize) {
    let next = format!("{indent}  ");
    for ChangedKey { key, old, new } in keys {
        let line = format!("{key}: {} -> {}", short(old), short(new));
        wrap(text, indent, &next, &line, width);
    }
}

fn queued_domain(text: &mut String, queued: &QueuedDomain, width: usize) {
    let QueuedDomain {
        domain,
        old,
        new,
        keys: changed,
        messages,
        ids,
    } = queued;
    let by = if old == new {
        old.clone()
    } else {
        format!("{old} -> {new}")
    };
    let ids_shown: Vec<_> = ids.iter().map(ToString::to_string).collect();
    let more = if *messages > ids.len() { " …" } else { "" };
    let messages = count(*messages, "message");
    let line = format!(
        "{}: {messages} ({by}): {}{more}",
        plain(domain),
        ids_shown.join(" ")
    );
    wrap(text, "  ", "    ", &line, width);
    keys(text, "    ", changed, width);
}
