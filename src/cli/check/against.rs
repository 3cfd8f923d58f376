//! `gatepost check --against`: what a configuration would treat differently from the running one, or from
//! another file.
//!
//! The comparison is made in [`crate::explain::difference`]; here both sides of it and the queue are fetched,
//! and the answer is shown.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::admin::api::{DeliveryState, QueuePage, RunningConfigText};
use crate::cli::queue::words::{plain, short};
use crate::cli::socket::{Client, SocketError};
use crate::config::{self, AdminSocket, ChangedKey, Config, Fault};
use crate::explain::difference::{Change, Difference, Queued, Waiting, Winner};

/// Messages that are asked for at a time.
const PAGE: usize = 1000;

/// Why there is no comparison: exit status 2.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgainstError {
    /// The daemon gives no answer.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// Nobody can be asked.
    #[error(
        "[admin] socket is switched off in the new file: name the daemon's with --socket, or a file to compare with"
    )]
    NoSocket,
    /// The other side cannot be read.
    #[error("{what} cannot be compared with:\n{}", .faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Old {
        /// What.
        what: &'static str,
        /// Why.
        faults: Vec<Fault>,
    },
    /// The system refuses.
    #[error("the system gives us no threads: {0}")]
    System(std::io::Error),
}

/// What is compared with.
pub(super) enum Old<'a> {
    /// The running daemon, on this socket or that of the new file.
    Running(Option<&'a Path>),
    /// This file.
    File(&'a Path),
}

/// The answer, as JSON has it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The file that was checked.
    new: PathBuf,
    /// The file that the old configuration was read from.
    old: PathBuf,
    /// The SHA-256 of the running configuration's text.
    running_sha256: Option<String>,
    /// Whether both mean the same.
    same: bool,
    /// Whether the queue was asked.
    queue_asked: bool,
    #[serde(flatten)]
    difference: Difference,
}

impl Report {
    pub(super) fn is_same(&self) -> bool {
        self.same
    }
}

/// Compares.
pub(super) fn compare(new: &Config, old: &Old<'_>) -> Result<Report, AgainstError> {
    let waiting = Waiting::default();
    let (old, running_sha256, waiting, queue_asked) = match old {
        Old::File(file) => {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
            let read = config::read(&file).map_err(|faults| AgainstError::Old { what: "the other file", faults })?;
            (read.0, None, waiting, false)
        }
        Old::Running(socket) => {
            let client = client(new, *socket)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(AgainstError::System)?;
            let ((running, sha256), waiting) = runtime.block_on(async {
                Ok::<_, AgainstError>((in_force(&client).await?, queue(&client, waiting).await?))
            })?;
            (running, Some(sha256), waiting, true)
        }
    };
    let difference = Difference::between(&old, new, &waiting);
    let (new, old) = (new.source.file.to_path_buf(), old.source.file.to_path_buf());
    Ok(Report { new, old, running_sha256, same: difference.is_none(), queue_asked, difference })
}

/// The configuration that the daemon has in force, and the SHA-256 of its text.
pub(super) async fn in_force(client: &Client) -> Result<(Config, String), AgainstError> {
    let RunningConfigText { file, sha256, text } = client.get("/v1/config").await?;
    let read = config::parse(&text, &file);
    let (config, _) = read.map_err(|faults| AgainstError::Old { what: "the running configuration", faults })?;
    Ok((config, sha256))
}

fn client(new: &Config, socket: Option<&Path>) -> Result<Client, AgainstError> {
    match (socket, &new.admin.socket.value) {
        (Some(path), _) => Ok(Client::at(path.to_path_buf())),
        (None, AdminSocket::Path(path)) => Ok(Client::at(path.clone())),
        (None, AdminSocket::Off) => Err(AgainstError::NoSocket),
    }
}

/// Counts what waits, page by page.
async fn queue(client: &Client, mut waiting: Waiting) -> Result<Waiting, SocketError> {
    let mut after = String::new();
    loop {
        let page: QueuePage = client.get(&format!("/v1/queue?limit={PAGE}{after}")).await?;
        for message in &page.messages {
            let open = message.recipients.iter().filter(|recipient| match recipient.state {
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

pub(super) fn json(report: &Report) -> String {
    // Our own words always have a form in JSON.
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}

pub(super) fn text(report: &Report) -> String {
    let (new, old) = (report.new.display(), report.old.display());
    let mut text = match report.running_sha256 {
        Some(_) => format!("{new} against the running configuration, which was read from {old}\n"),
        None => format!("{new} against {old}\n"),
    };
    let Difference { changes, winners, queued, queued_more } = &report.difference;
    if report.same {
        text.push_str("no difference: both mean the same\n");
    }
    for change in changes {
        table(&mut text, change);
    }
    if !winners.is_empty() {
        text.push_str("\nAnother connector speaks for\n");
    }
    for Winner { pattern, old, new } in winners {
        let _ = writeln!(text, "  {pattern}: {old} -> {new}");
    }
    match (queued.is_empty(), report.queue_asked) {
        (true, true) => text.push_str("\nNo message in the queue would be treated differently.\n"),
        (true, false) => text.push_str("\nThe queue was not asked: a file has none.\n"),
        (false, _) => text.push_str("\nMessages in the queue that would be treated differently\n"),
    }
    for domain in queued {
        waiting(&mut text, domain);
    }
    if *queued_more > 0 {
        let _ = writeln!(text, "  and those for {queued_more} more domains");
    }
    text
}

fn table(text: &mut String, change: &Change) {
    let table = if change.table.is_empty() { "before the first table" } else { &change.table };
    let _ = writeln!(text, "\n{table}: {}", change.what);
    keys(text, 2, &change.keys);
}

fn keys(text: &mut String, indent: usize, keys: &[ChangedKey]) {
    for ChangedKey { key, old, new } in keys {
        let _ = writeln!(text, "{:indent$}{key}: {} -> {}", "", short(old), short(new));
    }
}

fn waiting(text: &mut String, queued: &Queued) {
    let Queued { domain, old, new, keys: changed, messages, ids } = queued;
    let by = if old == new { old.clone() } else { format!("{old} -> {new}") };
    let count = if *messages == 1 { "1 message".to_owned() } else { format!("{messages} messages") };
    let shown: Vec<_> = ids.iter().map(ToString::to_string).collect();
    let more = if *messages > ids.len() { " …" } else { "" };
    let _ = writeln!(text, "  {}: {count} ({by}): {}{more}", plain(domain), shown.join(" "));
    keys(text, 4, changed);
}
