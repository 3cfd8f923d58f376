//! `gatepost queue list`.

use std::process::ExitCode;

use jiff::Timestamp;

use super::error::QueueError;
use super::select::Selection;
use crate::admin::api::{DeliveryState, QueuedMessage, QueuedRecipient};
use crate::cli::admin_client::AdminClient;
use crate::cli::format::{Table, age, brief, count, plain, sender, short, size, width};
use crate::cli::json::JsonArray;
use crate::cli::output::show;

/// The maximum number of open recipients that are listed for a message; further ones are counted.
const RECIPIENTS_MAX: usize = 5;

/// Prints the selected messages page by page, and their total.
pub(super) async fn run(
    client: &AdminClient,
    selection: &Selection,
    json: bool,
) -> Result<ExitCode, QueueError> {
    let (mut messages, mut octets) = (0_usize, 0_u64);
    let mut array = JsonArray::begin(json);
    let missing = selection
        .each_page(client, async |page| {
            messages += page.len();
            octets += page.iter().map(|message| message.size).sum::<u64>();
            if json {
                for message in &page {
                    array.add(message);
                }
            } else {
                show(&table(&page, Timestamp::now()).render(width()));
            }
            Ok(())
        })
        .await?;
    array.end();
    missing.print();
    let is_empty = messages == 0;
    if !json {
        show(&match (is_empty, selection.is_filtered()) {
            (false, _) => format!("{}, {}\n", count(messages, "message"), size(octets)),
            (true, true) => "no message matches\n".to_owned(),
            (true, false) => "the queue is empty\n".to_owned(),
        });
    }
    let not_found = !missing.ids.is_empty() || (is_empty && selection.is_filtered());
    Ok(if not_found {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Returns a table with a row for each recipient, and below it the reason for its state, as Postfix
/// has it. A reason that adjacent recipients of a message share is given once, below the last of
/// them.
fn table(messages: &[QueuedMessage], now: Timestamp) -> Table {
    let mut table = Table::new(&["id", "node", "age", "size", "sender", "recipient", "state"]);
    for message in messages {
        let mut rows = rows(message, now).into_iter().peekable();
        let mut message_cells = [
            message.id.to_string(),
            plain(message.node.as_deref().unwrap_or_default()),
            age(message.accepted, now),
            size(message.size),
            sender(&message.sender),
        ];
        while let Some(row) = rows.next() {
            table.row(
                std::mem::take(&mut message_cells)
                    .into_iter()
                    .chain([row.recipient, row.state]),
            );
            if rows.peek().is_none_or(|next| next.reason != row.reason) {
                table.note(row.reason);
            }
        }
    }
    table
}

/// A recipient in the list.
struct RecipientRow {
    recipient: String,
    state: String,
    /// The reason for the state; empty if there is none.
    reason: String,
}

/// Returns the open recipients of a message. A bounced recipient counts as open, and has a reason,
/// until the report to its sender is stored.
fn rows(message: &QueuedMessage, now: Timestamp) -> Vec<RecipientRow> {
    let is_open = |recipient: &&QueuedRecipient| match recipient.state {
        DeliveryState::Waiting | DeliveryState::Held => true,
        DeliveryState::Failed => recipient.reason.is_some(),
        DeliveryState::Delivered => false,
    };
    let open = message.recipients.iter().filter(is_open);
    let mut rows: Vec<_> = open
        .clone()
        .take(RECIPIENTS_MAX)
        .map(|recipient| RecipientRow {
            recipient: plain(&recipient.address.to_string()),
            state: state(recipient, message.busy, now),
            reason: reason(recipient),
        })
        .collect();
    let more = open.count() - rows.len();
    if more > 0 {
        rows.push(RecipientRow {
            recipient: format!("and {more} more"),
            state: String::new(),
            reason: String::new(),
        });
    }
    // Without open recipients the message is about to leave the queue.
    if rows.is_empty() {
        rows.push(RecipientRow {
            recipient: String::new(),
            state: "done".to_owned(),
            reason: String::new(),
        });
    }
    rows
}

fn state(recipient: &QueuedRecipient, busy: bool, now: Timestamp) -> String {
    match (recipient.state, recipient.next) {
        (DeliveryState::Held, _) => "held".to_owned(),
        (DeliveryState::Waiting, Some(next)) => {
            format!("next attempt in {}", brief(now.duration_until(next)))
        }
        (DeliveryState::Waiting, None) if busy => "being delivered".to_owned(),
        (DeliveryState::Waiting, None) => "due".to_owned(),
        (DeliveryState::Delivered, _) => "delivered".to_owned(),
        (DeliveryState::Failed, _) if recipient.reason.is_some() => {
            "bounced, report pending".to_owned()
        }
        (DeliveryState::Failed, _) => "bounced".to_owned(),
    }
}

/// Returns the reason for the backoff of the recipient's destination or of its part, or else for
/// its last failure.
fn reason(recipient: &QueuedRecipient) -> String {
    let destination = recipient.destination_down.as_ref().map(|down| &down.reason);
    let part = recipient.part_down.as_ref().map(|down| &down.reason);
    let reason = destination.or(part).or(recipient.reason.as_ref());
    reason
        .map(|reason| short(&format!("{} {}", reason.status, reason.text)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> QueuedMessage {
        serde_json::from_str(json).expect("a message")
    }

    #[test]
    fn relays_that_share_a_spool_have_a_column() {
        let message = |id: u8, node: &str| {
            message(&format!(
                r#"{{"id":"000000000000{id}"{node},"accepted":"2026-11-23T00:00:00Z","expires":"2026-11-28T00:00:00Z",
                "size":9,"sender":"","busy":false,"recipients":[]}}"#
            ))
        };
        let now = "2026-11-23T00:05:00Z".parse().expect("a time");
        let messages = [message(1, r#","node":"relay-1""#), message(2, "")];
        assert_eq!(
            table(&messages, now).render(80),
            "id             node     age  size  sender  state\n\
             0000000000001  relay-1  5m   9 B   <>      done\n\
             0000000000002           5m   9 B   <>      done\n"
        );
    }

    #[test]
    fn recipients_have_a_line_each_and_share_a_reason() {
        let recipient = |to: &str, state: &str, text: &str| {
            format!(
                r#"{{"address":"{to}","state":"{state}","connector":"c","attempts":1,"next":null,"destination_down":null,
                "reason":{{"at":"2026-11-23T00:00:00Z","status":"4.4.1","text":"{text}","host":null,"reply":null}}}}"#
            )
        };
        let many: Vec<_> = (0..7)
            .map(|at| recipient(&format!("r{at}@a.example"), "waiting", "down"))
            .collect();
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
            table(&[of(&mixed), of(&many)], now).render(80),
            "id             age  size  sender  recipient     state\n\
             0000000000005  5m   9 B   <>      a@a.example   held\n    4.4.1 no TLS\n\
             \x20                                 c@c.example   due\n    4.4.1 down\n\
             \x20                                 d@d.example   bounced, report pending\n    4.4.1 gone\n\
             0000000000005  5m   9 B   <>      r0@a.example  due\n\
             \x20                                 r1@a.example  due\n\
             \x20                                 r2@a.example  due\n\
             \x20                                 r3@a.example  due\n\
             \x20                                 r4@a.example  due\n    4.4.1 down\n\
             \x20                                 and 2 more\n"
        );
    }
}
