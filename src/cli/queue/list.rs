//! `gatepost queue list`.

use std::process::ExitCode;

use comfy_table::{Table, presets};
use jiff::Timestamp;

use super::words::{age, brief, count, plain, sender, short, size};
use super::{Client, QueueError, Selection};
use crate::admin::api::{DeliveryState, QueuedMessage, QueuedRecipient};

/// Open recipients of a message that are shown; the rest is counted.
const RECIPIENTS_SHOWN: usize = 5;

pub(super) async fn run(client: &Client, selection: &Selection, json: bool) -> Result<ExitCode, QueueError> {
    let (mut messages, mut octets) = (0_usize, 0_u64);
    let mut document = Document::begin(json);
    let missing = selection
        .each_page(client, |page| {
            messages += page.len();
            octets += page.iter().map(|message| message.size).sum::<u64>();
            if json {
                for message in &page {
                    document.add(message);
                }
            } else {
                super::super::show(&lines(&page, Timestamp::now()));
            }
        })
        .await?;
    document.end();
    missing.tell();
    let nothing = messages == 0;
    if !json {
        super::super::show(&match (nothing, selection.chooses()) {
            (false, _) => format!("{}, {}\n", count(messages), size(octets)),
            (true, true) => "no message matches\n".to_owned(),
            (true, false) => "the queue is empty\n".to_owned(),
        });
    }
    let no = !missing.ids.is_empty() || (nothing && selection.chooses());
    Ok(if no { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A JSON array that is written as it comes. Where it breaks off it is no array, and nobody can take it for
/// the whole.
pub(in crate::cli) struct Document {
    wanted: bool,
    filled: bool,
}

impl Document {
    pub(in crate::cli) fn begin(wanted: bool) -> Self {
        Self { wanted, filled: false }
    }

    pub(in crate::cli) fn add(&mut self, item: &impl serde::Serialize) {
        if !self.wanted {
            return;
        }
        let before = if self.filled { ",\n" } else { "[\n" };
        self.filled = true;
        // Our own words always have a form in JSON.
        let text = serde_json::to_string(item).unwrap_or_default();
        super::super::show(&format!("{before}{text}"));
    }

    pub(in crate::cli) fn end(self) {
        if self.wanted {
            super::super::show(if self.filled { "\n]\n" } else { "[]\n" });
        }
    }
}

/// One line for each recipient, and below it, as Postfix shows it, the reason: once where neighbours share it.
fn lines(messages: &[QueuedMessage], now: Timestamp) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["id", "age", "size", "from", "to", "state"]);
    let mut reasons = Vec::new();
    for message in messages {
        for (at, row) in rows(message, now).into_iter().enumerate() {
            let head = if at == 0 {
                [message.id.to_string(), age(message.accepted, now), size(message.size), sender(&message.sender)]
            } else {
                // The reason that was noted last is this message's.
                if reasons.last() == Some(&row.reason) {
                    reasons.pop();
                    reasons.push(String::new());
                }
                Default::default()
            };
            table.add_row(head.into_iter().chain([row.to, row.state]));
            reasons.push(row.reason);
        }
    }
    // A cell is one line, so a row is; and there is no frame, nor should there be blanks in its place.
    let mut rows = table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned());
    let mut text = rows.next().unwrap_or_default() + "\n";
    for (row, reason) in rows.zip(reasons) {
        text.push_str(&row);
        text.push('\n');
        if !reason.is_empty() {
            text.push_str("    ");
            text.push_str(&reason);
            text.push('\n');
        }
    }
    text
}

/// A recipient's place in the list.
struct Row {
    to: String,
    state: String,
    /// Why it waits; empty for no reason.
    reason: String,
}

fn rows(message: &QueuedMessage, now: Timestamp) -> Vec<Row> {
    // A recipient that is given up has a reason as long as its sender is not told.
    let is_open = |one: &&QueuedRecipient| match one.state {
        DeliveryState::Waiting | DeliveryState::Held => true,
        DeliveryState::Failed => one.reason.is_some(),
        DeliveryState::Delivered => false,
    };
    let open = message.recipients.iter().filter(is_open);
    let mut rows: Vec<_> = open
        .clone()
        .take(RECIPIENTS_SHOWN)
        .map(|one| Row {
            to: plain(&one.address.to_string()),
            state: state(one, message.busy, now),
            reason: reason(one),
        })
        .collect();
    let rest = open.count() - rows.len();
    if rest > 0 {
        rows.push(Row { to: format!("and {rest} more"), state: String::new(), reason: String::new() });
    }
    // All is decided, and the entry is about to go.
    if rows.is_empty() {
        rows.push(Row { to: String::new(), state: "done".to_owned(), reason: String::new() });
    }
    rows
}

fn state(recipient: &QueuedRecipient, busy: bool, now: Timestamp) -> String {
    match (recipient.state, recipient.next) {
        (DeliveryState::Held, _) => "held".to_owned(),
        (DeliveryState::Waiting, Some(next)) => format!("next try in {}", brief(now.duration_until(next))),
        (DeliveryState::Waiting, None) if busy => "being tried".to_owned(),
        (DeliveryState::Waiting, None) => "due".to_owned(),
        (DeliveryState::Delivered, _) => "delivered".to_owned(),
        (DeliveryState::Failed, _) if recipient.reason.is_some() => "given up, report waits".to_owned(),
        (DeliveryState::Failed, _) => "given up".to_owned(),
    }
}

fn reason(recipient: &QueuedRecipient) -> String {
    let down = recipient.destination_down.as_ref().map(|down| &down.reason);
    let part = recipient.part_down.as_ref().map(|down| &down.reason);
    let reason = down.or(part).or(recipient.reason.as_ref());
    reason.map(|reason| short(&format!("{} {}", reason.status, reason.text))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> QueuedMessage {
        serde_json::from_str(json).expect("a message")
    }

    #[test]
    fn recipients_have_a_line_each_and_share_a_reason() {
        let recipient = |to: &str, state: &str, text: &str| {
            format!(
                r#"{{"address":"{to}","state":"{state}","connector":"c","attempts":1,"next":null,"destination_down":null,
                "reason":{{"at":"2026-11-23T00:00:00Z","status":"4.4.1","text":"{text}","host":null,"reply":null}}}}"#
            )
        };
        let many: Vec<_> = (0..7).map(|at| recipient(&format!("r{at}@a.example"), "waiting", "down")).collect();
        let of = |recipients: &[String]| {
            message(&format!(
                r#"{{"id":"0000000000005","accepted":"2026-11-23T00:00:00Z","expires":"2026-11-28T00:00:00Z","size":9,
                "sender":"","busy":false,"recipients":[{}]}}"#,
                recipients.join(",")
            ))
        };
        let mixed = [
            recipient("a@a.example", "held", "no TLS"),
            recipient("b@b.example", "delivered", ""),
            recipient("c@c.example", "waiting", "down"),
            recipient("d@d.example", "failed", "gone"),
        ];
        let now = "2026-11-23T00:05:00Z".parse().expect("a time");
        assert_eq!(
            lines(&[of(&mixed), of(&many)], now),
            "id             age  size  from  to            state\n\
             0000000000005  5m   9 B   <>    a@a.example   held\n    4.4.1 no TLS\n\
             \x20                               c@c.example   due\n    4.4.1 down\n\
             \x20                               d@d.example   given up, report waits\n    4.4.1 gone\n\
             0000000000005  5m   9 B   <>    r0@a.example  due\n\
             \x20                               r1@a.example  due\n\
             \x20                               r2@a.example  due\n\
             \x20                               r3@a.example  due\n\
             \x20                               r4@a.example  due\n    4.4.1 down\n\
             \x20                               and 2 more\n"
        );
    }
}
