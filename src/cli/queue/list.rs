//! `gatepost queue list`.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;

use super::words::{age, brief, count, plain, sender, short, size};
use super::{Chosen, Client, QueueError};
use crate::admin::words::{Message, Recipient, State};

/// Open recipients of a message that are shown; the rest is counted.
const RECIPIENTS_SHOWN: usize = 5;

pub(super) async fn run(client: &Client, chosen: &Chosen) -> Result<ExitCode, QueueError> {
    let (mut messages, mut octets) = (0_usize, 0_u64);
    let mut document = Document::begin(chosen.json);
    let missing = chosen
        .selection
        .each_page(client, |page| {
            messages += page.len();
            octets += page.iter().map(|message| message.size).sum::<u64>();
            if chosen.json {
                for message in &page {
                    document.add(message);
                }
            } else {
                super::super::show(&format!("{}\n", table(&page, Timestamp::now())));
            }
        })
        .await?;
    document.end();
    missing.tell();
    let nothing = messages == 0;
    if !chosen.json {
        super::super::show(&match (nothing, chosen.selection.chooses()) {
            (false, _) => format!("{}, {}\n", count(messages), size(octets)),
            (true, true) => "no message matches\n".to_owned(),
            (true, false) => "the queue is empty\n".to_owned(),
        });
    }
    let no = !missing.0.is_empty() || (nothing && chosen.selection.chooses());
    Ok(if no { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A JSON array that is written as it comes. Where it breaks off it is no array, and nobody can take it for
/// the whole.
pub(super) struct Document {
    wanted: bool,
    filled: bool,
}

impl Document {
    pub(super) fn begin(wanted: bool) -> Self {
        Self { wanted, filled: false }
    }

    pub(super) fn add(&mut self, item: &impl serde::Serialize) {
        if !self.wanted {
            return;
        }
        let before = if self.filled { ",\n" } else { "[\n" };
        self.filled = true;
        // Our own words always have a form in JSON.
        let text = serde_json::to_string(item).unwrap_or_default();
        super::super::show(&format!("{before}{text}"));
    }

    pub(super) fn end(self) {
        if self.wanted {
            super::super::show(if self.filled { "\n]\n" } else { "[]\n" });
        }
        let _ = io::stdout().flush();
    }
}

fn table(messages: &[Message], now: Timestamp) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["id", "age", "size", "from", "to", "state"]);
    if let Some(width) = terminal_width() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for message in messages {
        let open = message.recipients.iter().filter(|one| matches!(one.state, State::Waiting | State::Held));
        let (shown, rest): (Vec<_>, Vec<_>) = open.enumerate().partition(|(at, _)| *at < RECIPIENTS_SHOWN);
        let mut lines: Vec<_> = shown
            .into_iter()
            .map(|(_, one)| (plain(&one.address.to_string()), state(one, message.busy, now)))
            .collect();
        if !rest.is_empty() {
            lines.push((format!("and {} more", rest.len()), String::new()));
        }
        // All is decided, and the entry is about to go.
        if lines.is_empty() {
            lines.push((String::new(), "done".to_owned()));
        }
        for (at, (to, state)) in lines.into_iter().enumerate() {
            let head = if at == 0 {
                [message.id.to_string(), age(message.accepted, now), size(message.size), sender(&message.sender)]
            } else {
                Default::default()
            };
            table.add_row(head.into_iter().chain([to, state]));
        }
    }
    table
}

fn state(recipient: &Recipient, busy: bool, now: Timestamp) -> String {
    let why = recipient.destination_down.as_ref().map(|down| &down.reason).or(recipient.reason.as_ref());
    let why = why.map(|reason| short(&format!(": {} {}", reason.status, reason.text))).unwrap_or_default();
    match (recipient.state, recipient.next) {
        (State::Held, _) => format!("held{why}"),
        (State::Waiting, Some(next)) => format!("next try in {}{why}", brief(now.duration_until(next))),
        (State::Waiting, None) if busy => format!("being tried{why}"),
        (State::Waiting, None) => format!("due{why}"),
        (State::Delivered, _) => "delivered".to_owned(),
        (State::Failed, _) => "given up".to_owned(),
    }
}

/// The width of the terminal that we write to; nothing where it is none.
fn terminal_width() -> Option<u16> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col).filter(|width| *width > 0)
}
