//! Which messages a command is about, and how they are asked for.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::QueueError;
use crate::address::{Host, ReversePath};
use crate::admin::api::{QueuePage, QueuedMessage};
use crate::cli::socket::{Client, percent_encoded};
use crate::config;
use crate::envelope::QueueId;

/// Messages that are asked for at a time.
const PAGE: usize = 500;

#[derive(Debug, Clone, Default, Args)]
pub(super) struct Selection {
    /// Messages, by their ids
    #[arg(value_name = "ID", value_parser = id)]
    pub(super) ids: Vec<QueueId>,
    /// Messages with an open recipient in this domain
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    domain: Option<Host>,
    /// Messages from this address; "" for reports, which have none
    #[arg(long, value_name = "ADDRESS", value_parser = sender)]
    sender: Option<ReversePath>,
    /// Messages that came in longer ago than this: 30m, 2h, 3d
    #[arg(long, value_name = "TIME", value_parser = age)]
    older_than: Option<Duration>,
    /// Messages with an open recipient in this state; with --domain or --connector, one that meets those as well
    #[arg(long, value_name = "STATE")]
    state: Option<OpenState>,
    /// Messages with an open recipient for whom this connector speaks
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    connector: Option<String>,
    /// Every message
    #[arg(long, conflicts_with_all = ["ids", "domain", "sender", "older_than", "state", "connector"])]
    pub(super) all: bool,
}

/// The state of a recipient who is still in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OpenState {
    /// Waits for its next attempt, or is being tried
    Waiting,
    /// Waits until an operator decides
    Held,
}

impl OpenState {
    fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Held => "held",
        }
    }
}

fn id(text: &str) -> Result<QueueId, String> {
    QueueId::parse(text).ok_or_else(|| "an id has 13 letters and digits, as `gatepost queue list` shows it".to_owned())
}

fn domain(text: &str) -> Result<Host, String> {
    Host::parse(text).map_err(|error| error.to_string())
}

fn sender(text: &str) -> Result<ReversePath, String> {
    let bare = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
    ReversePath::parse(bare).map_err(|error| error.to_string())
}

fn age(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "write a number and a unit, such as 30m, 2h or 3d".to_owned())
}

impl Selection {
    /// Every message.
    pub(super) fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whether anything was said at all.
    pub(super) fn is_empty(&self) -> bool {
        !self.all && !self.chooses()
    }

    /// Whether some messages are chosen out of the queue, so that finding none is an answer of no.
    pub(super) fn chooses(&self) -> bool {
        !self.ids.is_empty() || self.filters()
    }

    /// Whether more is asked of messages than their ids.
    fn filters(&self) -> bool {
        self.domain.is_some()
            || self.sender.is_some()
            || self.older_than.is_some()
            || self.state.is_some()
            || self.connector.is_some()
    }

    /// Asks for the messages, page by page.
    ///
    /// # Errors
    /// What keeps the daemon from answering, and what `take` says.
    pub(super) async fn each_page(
        &self,
        client: &Client,
        mut take: impl FnMut(Vec<QueuedMessage>),
    ) -> Result<Missing, QueueError> {
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        ids.dedup();
        let mut missing = Missing { ids: Vec::new(), chosen: self.filters() };
        for group in ids.chunks(PAGE) {
            let mut unseen = group.to_vec();
            self.pages(client, group, |messages| {
                unseen.retain(|id| messages.iter().all(|message| message.id != *id));
                take(messages);
            })
            .await?;
            missing.ids.extend(unseen);
        }
        if ids.is_empty() {
            self.pages(client, &[], take).await?;
        }
        Ok(missing)
    }

    async fn pages(
        &self,
        client: &Client,
        ids: &[QueueId],
        mut take: impl FnMut(Vec<QueuedMessage>),
    ) -> Result<(), QueueError> {
        let filter = self.query(ids);
        let mut after: Option<QueueId> = None;
        loop {
            let from = after.map(|id| format!("&after={id}")).unwrap_or_default();
            let page: QueuePage = client.get(&format!("/v1/queue?limit={PAGE}{filter}{from}")).await?;
            if !page.messages.is_empty() {
                take(page.messages);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn query(&self, ids: &[QueueId]) -> String {
        let mut query = String::new();
        let mut add = |name: &str, value: String| {
            // Writing into a String cannot fail.
            let _ = write!(query, "&{name}={}", percent_encoded(&value));
        };
        if let Some(domain) = &self.domain {
            add("domain", domain.to_string());
        }
        if let Some(sender) = &self.sender {
            add("sender", sender.to_string());
        }
        if let Some(age) = self.older_than {
            add("older_than", age.as_secs().to_string());
        }
        if let Some(state) = self.state {
            add("state", state.word().to_owned());
        }
        if let Some(connector) = &self.connector {
            add("connector", connector.clone());
        }
        if !ids.is_empty() {
            add("ids", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        }
        query
    }
}

/// Ids that were named and are not to be found, or not among what else was asked.
pub(super) struct Missing {
    pub(super) ids: Vec<QueueId>,
    /// Whether anything else was asked.
    chosen: bool,
}

impl Missing {
    /// Tells of each.
    pub(super) fn tell(&self) {
        for id in &self.ids {
            eprintln!("{id}: {}", self.reason());
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        if self.chosen {
            "not in the queue, or not among what else was asked for"
        } else {
            "no such message in the queue"
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        selection: Selection,
    }

    fn read(arguments: &[&str]) -> Result<Selection, String> {
        let line = Line::try_parse_from(std::iter::once(&"queue").chain(arguments));
        line.map(|line| line.selection).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_said_becomes_a_query() {
        let all = ["--domain", "bücher.example", "--sender", "<a+b@example.org>", "--older-than", "2h"];
        let selection = read(&all).expect("good");
        let query = "&domain=xn--bcher-kva.example&sender=a%2Bb%40example.org&older_than=7200";
        assert_eq!(selection.query(&[]), query);
        let selection = read(&["--state", "held", "--connector", "domain c"]).expect("good");
        assert_eq!(selection.query(&[]), "&state=held&connector=domain%20c");
        assert!(selection.chooses());
        for null in [&["--sender", ""][..], &["--sender", "<>"], &["--sender="]] {
            let selection = read(null).expect("good");
            assert_eq!(selection.query(&selection.ids), "&sender=");
            assert!(selection.chooses());
        }
        let ids = read(&["000000000000A", "0000000000005"]).expect("good");
        assert_eq!(ids.query(&ids.ids), "&ids=000000000000a%2C0000000000005");
    }

    #[test]
    fn nothing_and_everything_are_not_the_same() {
        let (nothing, all) = (read(&[]).expect("good"), read(&["--all"]).expect("good"));
        assert!(nothing.is_empty() && !nothing.chooses());
        assert!(!all.is_empty() && !all.chooses());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (arguments, said) in [
            (&["12"][..], "an id has 13 letters and digits"),
            (&["--domain", "a b"], "is not a domain name"),
            (&["--sender", "alice"], "there is no \"@domain\""),
            (&["--older-than", "5M"], "a number and a unit"),
            (&["--all", "--domain", "example.org"], "cannot be used with"),
            (&["--all", "--state", "held"], "cannot be used with"),
            (&["--state", "delivered"], "[possible values: waiting, held]"),
            (&["--all", "0000000000005"], "cannot be used with"),
        ] {
            let error = read(arguments).expect_err("bad");
            assert!(error.contains(said), "{arguments:?}: {error}");
        }
    }
}
