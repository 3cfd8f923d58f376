//! `gatepost queue retry|hold|release|remove|bounce`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use super::list::Document;
use super::select::{Missing, Selection};
use super::words::count;
use super::{Chosen, Client, QueueError};
use crate::admin::api::{DeliveryState, OrderRequest, OrderResponse, OrderResult, OvertakenBy, QueuedMessage};
use crate::envelope::QueueId;
use crate::scheduler::Order;

/// Messages in one order: each answer comes within a few seconds.
const BATCH: usize = 500;

/// How an order is spoken of: asked for, done, and done to nothing.
fn words(order: Order) -> (&'static str, &'static str) {
    match order {
        Order::Retry => ("Retry", "tried now"),
        Order::Hold => ("Hold", "held"),
        Order::Release => ("Release", "released"),
        Order::Remove => ("Remove", "removed"),
        Order::Bounce => ("Bounce", "bounced"),
    }
}

/// Gives an order, and shows what became of it.
pub(super) async fn run(client: &Client, chosen: &Chosen, order: Order, yes: bool) -> Result<ExitCode, QueueError> {
    let (_, done) = words(order);
    let (report, failed) = carry_out(client, &chosen.selection, chosen.json, order, yes).await?;
    let status = report.end(done);
    // Errors come behind what was done before them.
    failed.map_or(Ok(status), Err)
}

/// Tries everything now, and says nothing of what goes well: there being nothing to try is no failure.
pub(super) async fn flush(client: &Client) -> Result<ExitCode, QueueError> {
    let (report, failed) = carry_out(client, &Selection::everything(), false, Order::Retry, true).await?;
    match failed {
        Some(error) => Err(error),
        None if report.refused > 0 => Ok(ExitCode::FAILURE),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Gives an order to all that is chosen. What was done before an error is reported as well.
async fn carry_out(
    client: &Client,
    selection: &Selection,
    json: bool,
    order: Order,
    yes: bool,
) -> Result<(Report, Option<QueueError>), QueueError> {
    if selection.is_empty() {
        return Err(QueueError::Usage(
            "nothing was chosen: name messages by their ids, choose them with --domain, --sender, --older-than, \
             --state or --connector, or say --all."
                .to_owned(),
        ));
    }
    let ask = matches!(order, Order::Remove | Order::Bounce) && !yes;
    let (verb, _) = words(order);
    if ask && !io::stdin().is_terminal() {
        return Err(QueueError::Usage(format!("nobody can be asked here; say --yes to {} them.", verb.to_lowercase())));
    }
    let Found { ids, missing, trying } = find(client, selection, order).await?;
    if ask && !ids.is_empty() && !confirmed(verb, ids.len()) {
        return Err(QueueError::No("nothing was done.".to_owned()));
    }
    let mut report = Report::begin(order, json, !selection.ids.is_empty(), trying);
    for id in &missing.ids {
        report.take(OrderResult { id: *id, done: false, error: Some(missing.reason().to_owned()), meanwhile: None });
    }
    for batch in ids.chunks(BATCH) {
        let orders = OrderRequest { order, ids: batch.to_vec() };
        let OrderResponse { answers } = match client.post("/v1/queue/orders", &orders).await {
            Ok(answers) => answers,
            Err(error) => return Ok((report, Some(error.into()))),
        };
        for answer in answers {
            report.take(answer);
        }
    }
    Ok((report, None))
}

/// What is chosen.
struct Found {
    ids: Vec<QueueId>,
    missing: Missing,
    /// Messages that are left out because they are being tried at this moment.
    trying: usize,
}

/// The messages that are chosen. Out of a crowd, those that the order means nothing to are left out; one
/// that was named is told why.
async fn find(client: &Client, selection: &Selection, order: Order) -> Result<Found, QueueError> {
    let named = !selection.ids.is_empty();
    let (mut ids, mut trying) = (Vec::new(), 0);
    let take = |page: Vec<QueuedMessage>| {
        for message in page {
            if named || concerns(order, &message) {
                ids.push(message.id);
            } else if order == Order::Retry && message.busy {
                trying += 1;
            }
        }
    };
    let missing = selection.each_page(client, take).await?;
    Ok(Found { ids, missing, trying })
}

fn concerns(order: Order, message: &QueuedMessage) -> bool {
    let some = |state: DeliveryState| message.recipients.iter().any(|recipient| recipient.state == state);
    match order {
        // What is being tried at this moment needs no push.
        Order::Retry => some(DeliveryState::Waiting) && !message.busy,
        Order::Hold => some(DeliveryState::Waiting),
        Order::Release => some(DeliveryState::Held),
        Order::Remove | Order::Bounce => true,
    }
}

/// Asks on the terminal. Everything but a clear yes is a no.
fn confirmed(verb: &str, messages: usize) -> bool {
    eprint!("{verb} {}? [y/N] ", count(messages));
    let _ = io::stderr().flush();
    let mut line = String::new();
    io::stdin().read_line(&mut line).is_ok() && is_yes(&line)
}

fn is_yes(line: &str) -> bool {
    ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str())
}

/// What became of it, told as it comes.
struct Report {
    order: Order,
    document: Document,
    json: bool,
    /// Set where messages were named by their ids: each of these gets an answer.
    named: bool,
    /// Messages that nothing was to be done for: they are being tried.
    trying: usize,
    done: usize,
    refused: usize,
}

impl Report {
    fn begin(order: Order, json: bool, named: bool, trying: usize) -> Self {
        Self { order, document: Document::begin(json), json, named, trying, done: 0, refused: 0 }
    }

    fn take(&mut self, answer: OrderResult) {
        // Out of a crowd, whatever left the queue after the list was made is passed over, and so is what is being
        // tried by now.
        match answer.meanwhile {
            Some(OvertakenBy::Gone) if !self.named => return,
            Some(OvertakenBy::Busy) if !self.named && self.order == Order::Retry => {
                self.trying += 1;
                return;
            }
            Some(OvertakenBy::Gone | OvertakenBy::Busy) | None => {}
        }
        self.document.add(&answer);
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

    fn end(self, done: &str) -> ExitCode {
        self.document.end();
        if !self.json {
            super::super::show(&match (self.done, self.refused) {
                (0, 0) if self.trying > 0 => {
                    format!("{} being tried at this moment, nothing to do\n", count(self.trying))
                }
                (0, 0) => "no message matches\n".to_owned(),
                (some, 0) => format!("{} {done}\n", count(some)),
                (some, refused) => format!("{} {done}, {refused} not\n", count(some)),
            });
        }
        if self.done > 0 && self.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counts of a report: done, refused, and being tried.
    fn counted(named: bool, order: Order) -> (usize, usize, usize) {
        let mut report = Report::begin(order, false, named, 0);
        let id = QueueId::from_number(5).expect("small");
        let answer = |meanwhile| OrderResult { id, done: false, error: Some("no".to_owned()), meanwhile };
        report.take(OrderResult { done: true, error: None, ..answer(None) });
        for meanwhile in [None, Some(OvertakenBy::Gone), Some(OvertakenBy::Busy)] {
            report.take(answer(meanwhile));
        }
        (report.done, report.refused, report.trying)
    }

    #[test]
    fn what_left_the_queue_meanwhile_is_passed_over_unless_it_was_named() {
        assert_eq!(counted(false, Order::Retry), (1, 1, 1));
        assert_eq!(counted(false, Order::Hold), (1, 2, 0));
        for order in [Order::Retry, Order::Hold] {
            assert_eq!(counted(true, order), (1, 3, 0));
        }
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        for line in ["y\n", "Y", " yes \r\n", "YES"] {
            assert!(is_yes(line), "{line:?}");
        }
        for line in ["", "\n", "n\n", "yess", "j", "ye"] {
            assert!(!is_yes(line), "{line:?}");
        }
    }
}
