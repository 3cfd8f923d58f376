//! `gatepost queue retry|hold|release|remove|bounce`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use super::error::QueueError;
use super::select::{MissingIds, SelectedMessages, Selection};
use crate::admin::api::{
    DeliveryState, OrderRequest, OrderResponse, OrderResult, OvertakenBy, QueuedMessage,
};
use crate::cli::admin_client::AdminClient;
use crate::cli::format::count;
use crate::cli::json::JsonArray;
use crate::cli::output::show;
use crate::relay::scheduler::Order;
use crate::smtp::envelope::QueueId;

/// The maximum number of messages in one request, small enough for an answer within a few seconds.
const BATCH: usize = 500;

/// Returns the imperative and the past participle of an order.
fn verb_forms(order: Order) -> (&'static str, &'static str) {
    match order {
        Order::Retry => ("Retry", "retried"),
        Order::Hold => ("Hold", "held"),
        Order::Release => ("Release", "released"),
        Order::Remove => ("Remove", "removed"),
        Order::Bounce => ("Bounce", "bounced"),
    }
}

/// Applies an order to the selected messages and prints the results.
pub(super) async fn run(
    client: &AdminClient,
    chosen: &SelectedMessages,
    order: Order,
    yes: bool,
) -> Result<ExitCode, QueueError> {
    let (_, participle) = verb_forms(order);
    let (report, error) = apply(client, &chosen.selection, chosen.json, order, yes).await?;
    let status = report.end(participle);
    // The error is printed after the results before it.
    error.map_or(Ok(status), Err)
}

/// Retries all messages and prints only errors. An empty queue is a success.
pub(super) async fn flush(client: &AdminClient) -> Result<ExitCode, QueueError> {
    let (report, error) =
        apply(client, &Selection::everything(), false, Order::Retry, true).await?;
    match error {
        Some(error) => Err(error),
        None if report.refused > 0 => Ok(ExitCode::FAILURE),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Applies an order to the selected messages in batches. If a batch fails, the results of those
/// before it are returned with the error. A retry of messages that are not named orders the first
/// before the last are listed.
async fn apply(
    client: &AdminClient,
    selection: &Selection,
    json: bool,
    order: Order,
    yes: bool,
) -> Result<(OrderReport, Option<QueueError>), QueueError> {
    if selection.is_empty() {
        return Err(QueueError::Usage(
            "no message selected: name messages by their ids, select them with --domain, --sender, --older-than, \
             --state or --connector, or use --all."
                .to_owned(),
        ));
    }
    let ask = matches!(order, Order::Remove | Order::Bounce) && !yes;
    let (verb, _) = verb_forms(order);
    if ask && !io::stdin().is_terminal() {
        let verb = verb.to_lowercase();
        return Err(QueueError::Usage(format!(
            "cannot ask without a terminal; add --yes to {verb} them."
        )));
    }
    // Other orders make reports, which must not be among the messages of a later page.
    if order == Order::Retry && selection.ids.is_empty() {
        return apply_by_page(client, selection, json, order).await;
    }
    let Targets {
        ids,
        missing,
        already_trying,
    } = find_targets(client, selection, order).await?;
    if ask && !ids.is_empty() && !confirm(verb, ids.len()) {
        return Err(QueueError::Failed("nothing was done.".to_owned()));
    }
    let mut report = OrderReport::begin(order, json, !selection.ids.is_empty(), already_trying);
    for id in &missing.ids {
        report.add(OrderResult {
            id: *id,
            done: false,
            error: Some(missing.reason().to_owned()),
            meanwhile: None,
        });
    }
    let ended = send_orders(client, order, &ids, &mut report).await;
    Ok((report, ended.err()))
}

/// Applies an order to one page of the selected messages after the other.
async fn apply_by_page(
    client: &AdminClient,
    selection: &Selection,
    json: bool,
    order: Order,
) -> Result<(OrderReport, Option<QueueError>), QueueError> {
    let mut report = OrderReport::begin(order, json, false, 0);
    let mut is_begun = false;
    let apply_to = async |page: Vec<QueuedMessage>| {
        is_begun = true;
        let mut ids = Vec::new();
        for message in page {
            if applies_to(order, &message) {
                ids.push(message.id);
            } else if order == Order::Retry && message.busy {
                report.already_trying += 1;
            }
        }
        send_orders(client, order, &ids, &mut report).await
    };
    match selection.each_page(client, apply_to).await {
        Ok(_) => Ok((report, None)),
        Err(error) if is_begun => Ok((report, Some(error))),
        Err(error) => Err(error),
    }
}

/// Sends an order for these messages, in batches, and adds the results to the report.
async fn send_orders(
    client: &AdminClient,
    order: Order,
    ids: &[QueueId],
    report: &mut OrderReport,
) -> Result<(), QueueError> {
    for batch in ids.chunks(BATCH) {
        let orders = OrderRequest {
            order,
            ids: batch.to_vec(),
        };
        let OrderResponse { answers } = client.post("/v1/queue/orders", &orders).await?;
        for answer in answers {
            report.add(answer);
        }
    }
    Ok(())
}

/// The messages that an order is sent for.
struct Targets {
    ids: Vec<QueueId>,
    missing: MissingIds,
    /// The number of messages that are not sent a retry because they are being delivered already.
    already_trying: usize,
}

/// Finds the selected messages. Messages that are selected by options are left out if the order
/// does not apply to them. A message that is named by its id is always included, so that the
/// daemon's error for it is printed.
async fn find_targets(
    client: &AdminClient,
    selection: &Selection,
    order: Order,
) -> Result<Targets, QueueError> {
    let named = !selection.ids.is_empty();
    let (mut ids, mut already_trying) = (Vec::new(), 0);
    let add_page = async |page: Vec<QueuedMessage>| {
        for message in page {
            if named || applies_to(order, &message) {
                ids.push(message.id);
            } else if order == Order::Retry && message.busy {
                already_trying += 1;
            }
        }
        Ok(())
    };
    let missing = selection.each_page(client, add_page).await?;
    Ok(Targets {
        ids,
        missing,
        already_trying,
    })
}

/// Returns true if an order changes anything for a message.
fn applies_to(order: Order, message: &QueuedMessage) -> bool {
    let has_state = |state: DeliveryState| {
        message
            .recipients
            .iter()
            .any(|recipient| recipient.state == state)
    };
    match order {
        Order::Retry => has_state(DeliveryState::Waiting) && !message.busy,
        Order::Hold => has_state(DeliveryState::Waiting),
        Order::Release => has_state(DeliveryState::Held),
        Order::Remove | Order::Bounce => true,
    }
}

/// Asks for confirmation on the terminal. Every answer but "y" or "yes" is a no.
fn confirm(verb: &str, messages: usize) -> bool {
    eprint!("{verb} {}? [y/N] ", count(messages, "message"));
    let _ = io::stderr().flush();
    let mut line = String::new();
    io::stdin().read_line(&mut line).is_ok() && is_yes(&line)
}

fn is_yes(line: &str) -> bool {
    ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str())
}

/// Prints the result for each message as it arrives, and counts the results.
struct OrderReport {
    order: Order,
    array: JsonArray,
    json: bool,
    /// True if the messages were named by their ids. Each of them has a result then.
    named: bool,
    /// The number of messages that are being delivered already, so that a retry is not needed.
    already_trying: usize,
    done: usize,
    refused: usize,
}

impl OrderReport {
    fn begin(order: Order, json: bool, named: bool, already_trying: usize) -> Self {
        Self {
            order,
            array: JsonArray::begin(json),
            json,
            named,
            already_trying,
            done: 0,
            refused: 0,
        }
    }

    fn add(&mut self, answer: OrderResult) {
        // The queue changes between the list and the order. Messages that were not named and have
        // left the queue, or are being delivered by now, are not failures.
        match answer.meanwhile {
            Some(OvertakenBy::Gone) if !self.named => return,
            Some(OvertakenBy::Busy) if !self.named && self.order == Order::Retry => {
                self.already_trying += 1;
                return;
            }
            Some(OvertakenBy::Gone | OvertakenBy::Busy) | None => {}
        }
        self.array.add(&answer);
        match answer.error {
            None if answer.done => self.done += 1,
            error => {
                self.refused += 1;
                if !self.json {
                    eprintln!("{}: {}", answer.id, error.unwrap_or_default());
                }
            }
        }
    }

    /// Prints the totals. `participle` is that of the order.
    fn end(self, participle: &str) -> ExitCode {
        self.array.end();
        if !self.json {
            let done = count(self.done, "message");
            show(&match (self.done, self.refused) {
                (0, 0) if self.already_trying > 0 => {
                    format!(
                        "{} being delivered already, nothing to do\n",
                        count(self.already_trying, "message")
                    )
                }
                (0, 0) => "no message matches\n".to_owned(),
                (_, 0) => format!("{done} {participle}\n"),
                (_, refused) => format!("{done} {participle}, {refused} not\n"),
            });
        }
        if self.done > 0 && self.refused == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the counts of a report: done, refused, and already being delivered.
    fn counts(named: bool, order: Order) -> (usize, usize, usize) {
        let mut report = OrderReport::begin(order, false, named, 0);
        let id = QueueId::from_number(5).expect("small");
        let answer = |meanwhile| OrderResult {
            id,
            done: false,
            error: Some("no".to_owned()),
            meanwhile,
        };
        report.add(OrderResult {
            done: true,
            error: None,
            ..answer(None)
        });
        for meanwhile in [None, Some(OvertakenBy::Gone), Some(OvertakenBy::Busy)] {
            report.add(answer(meanwhile));
        }
        (report.done, report.refused, report.already_trying)
    }

    #[test]
    fn messages_that_left_the_queue_are_failures_only_if_they_were_named() {
        assert_eq!(counts(false, Order::Retry), (1, 1, 1));
        assert_eq!(counts(false, Order::Hold), (1, 2, 0));
        for order in [Order::Retry, Order::Hold] {
            assert_eq!(counts(true, order), (1, 3, 0));
        }
    }

    #[test]
    fn only_y_and_yes_confirm() {
        for line in ["y\n", "Y", " yes \r\n", "YES"] {
            assert!(is_yes(line), "{line:?}");
        }
        for line in ["", "\n", "n\n", "yess", "j", "ye"] {
            assert!(!is_yes(line), "{line:?}");
        }
    }
}
