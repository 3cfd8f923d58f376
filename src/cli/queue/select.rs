//! The selection of messages by the options of a command.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::error::QueueError;
use crate::admin::api::{QueuePage, QueuedMessage};
use crate::cli::admin_client::{AdminClient, percent_encoded};
use crate::cli::config_file::ConfigFile;
use crate::config;
use crate::smtp::address::{Host, ReversePath};
use crate::smtp::envelope::QueueId;

/// The number of messages in one request to the daemon.
const PAGE: usize = 500;

/// The options that select messages.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Selection {
    /// Messages, by their ids
    #[arg(value_name = "ID", value_parser = id)]
    pub(super) ids: Vec<QueueId>,
    /// Messages with an open recipient in this domain
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    domain: Option<Host>,
    /// Messages from this address; "" for the null sender of reports
    #[arg(long, value_name = "ADDRESS", value_parser = sender)]
    sender: Option<ReversePath>,
    /// Messages that were accepted longer ago than this: 30m, 2h, 3d
    #[arg(long, value_name = "TIME", value_parser = age)]
    older_than: Option<Duration>,
    /// Messages with an open recipient in this state; with --domain or --connector, the same
    /// recipient must match those
    #[arg(long, value_name = "STATE")]
    state: Option<OpenStateFilter>,
    /// Messages with an open recipient whose domain has this connector
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    connector: Option<String>,
    /// Every message
    #[arg(long, conflicts_with_all = ["ids", "domain", "sender", "older_than", "state", "connector"])]
    pub(super) all: bool,
}

/// The state of a recipient that is still in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OpenStateFilter {
    /// Waits for its next attempt, or is being delivered
    Waiting,
    /// Waits until an operator decides
    Held,
}

impl OpenStateFilter {
    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Held => "held",
        }
    }
}

/// The arguments that select messages.
#[derive(Debug, Args)]
pub(super) struct SelectedMessages {
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Print one JSON document: an array, except for `show` with a single ID
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) file: ConfigFile,
}

fn id(text: &str) -> Result<QueueId, String> {
    QueueId::parse(text).ok_or_else(|| {
        "an id has 13 letters and digits, as `gatepost queue list` shows it".to_owned()
    })
}

fn domain(text: &str) -> Result<Host, String> {
    Host::parse(text).map_err(|error| error.to_string())
}

fn sender(text: &str) -> Result<ReversePath, String> {
    let bare = text
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'))
        .unwrap_or(text);
    ReversePath::parse(bare).map_err(|error| error.to_string())
}

fn age(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
        .ok_or_else(|| "write a number and a unit, such as 30m, 2h or 3d".to_owned())
}

impl Selection {
    /// Returns the selection of every message.
    pub(super) fn everything() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Returns true if no option was given.
    pub(super) fn is_empty(&self) -> bool {
        !self.all && !self.is_filtered()
    }

    /// Returns true if ids or options restrict the selection. To find no message is a failure then.
    pub(super) fn is_filtered(&self) -> bool {
        !self.ids.is_empty() || self.has_filter_options()
    }

    /// Returns true if an option other than the ids restricts the selection.
    fn has_filter_options(&self) -> bool {
        self.domain.is_some()
            || self.sender.is_some()
            || self.older_than.is_some()
            || self.state.is_some()
            || self.connector.is_some()
    }

    /// Requests the selected messages from the daemon and calls `handle_page` with each page.
    /// Returns the ids that were named and not found.
    ///
    /// # Errors
    /// The daemon cannot be asked, or the error of `handle_page`.
    pub(super) async fn each_page(
        &self,
        client: &AdminClient,
        mut handle_page: impl AsyncFnMut(Vec<QueuedMessage>) -> Result<(), QueueError>,
    ) -> Result<MissingIds, QueueError> {
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        ids.dedup();
        let mut missing = MissingIds {
            ids: Vec::new(),
            has_filter_options: self.has_filter_options(),
        };
        for group in ids.chunks(PAGE) {
            let mut unseen = group.to_vec();
            self.pages(client, group, async |messages| {
                unseen.retain(|id| messages.iter().all(|message| message.id != *id));
                handle_page(messages).await
            })
            .await?;
            missing.ids.extend(unseen);
        }
        if ids.is_empty() {
            self.pages(client, &[], handle_page).await?;
        }
        Ok(missing)
    }

    async fn pages(
        &self,
        client: &AdminClient,
        ids: &[QueueId],
        mut handle_page: impl AsyncFnMut(Vec<QueuedMessage>) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        let filter = self.query(ids);
        let mut after: Option<QueueId> = None;
        loop {
            let from = after.map(|id| format!("&after={id}")).unwrap_or_default();
            let page: QueuePage = client
                .get(&format!("/v1/queue?limit={PAGE}{filter}{from}"))
                .await?;
            if !page.messages.is_empty() {
                handle_page(page.messages).await?;
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Returns the query parameters for the daemon.
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
            add("state", state.name().to_owned());
        }
        if let Some(connector) = &self.connector {
            add("connector", connector.clone());
        }
        if !ids.is_empty() {
            add(
                "ids",
                ids.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(","),
            );
        }
        query
    }
}

/// The ids that were named and not found among the selected messages.
pub(super) struct MissingIds {
    pub(super) ids: Vec<QueueId>,
    /// True if the selection has other options as well, which these messages may not match.
    has_filter_options: bool,
}

impl MissingIds {
    /// Prints an error for each id.
    pub(super) fn print(&self) {
        for id in &self.ids {
            eprintln!("{id}: {}", self.reason());
        }
    }

    /// Returns the error for each id.
    pub(super) fn reason(&self) -> &'static str {
        if self.has_filter_options {
            "not in the queue, or does not match the other options"
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
    struct TestCommand {
        #[command(flatten)]
        selection: Selection,
    }

    fn read(arguments: &[&str]) -> Result<Selection, String> {
        let line = TestCommand::try_parse_from(std::iter::once(&"queue").chain(arguments));
        line.map(|line| line.selection)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn options_become_query_parameters() {
        let all = [
            "--domain",
            "bücher.example",
            "--sender",
            "<a+b@example.org>",
            "--older-than",
            "2h",
        ];
        let selection = read(&all).expect("good");
        let query = "&domain=xn--bcher-kva.example&sender=a%2Bb%40example.org&older_than=7200";
        assert_eq!(selection.query(&[]), query);
        let selection = read(&["--state", "held", "--connector", "domain c"]).expect("good");
        assert_eq!(selection.query(&[]), "&state=held&connector=domain%20c");
        assert!(selection.is_filtered());
        for null in [&["--sender", ""][..], &["--sender", "<>"], &["--sender="]] {
            let selection = read(null).expect("good");
            assert_eq!(selection.query(&selection.ids), "&sender=");
            assert!(selection.is_filtered());
        }
        let ids = read(&["000000000000A", "0000000000005"]).expect("good");
        assert_eq!(ids.query(&ids.ids), "&ids=000000000000a%2C0000000000005");
    }

    #[test]
    fn no_option_and_all_differ() {
        let (none, all) = (read(&[]).expect("good"), read(&["--all"]).expect("good"));
        assert!(none.is_empty() && !none.is_filtered());
        assert!(!all.is_empty() && !all.is_filtered());
    }

    #[test]
    fn unusable_options_are_rejected() {
        for (arguments, message) in [
            (&["12"][..], "an id has 13 letters and digits"),
            (&["--domain", "a b"], "is not a domain name"),
            (&["--sender", "alice"], "there is no \"@domain\""),
            (&["--older-than", "5M"], "a number and a unit"),
            (&["--all", "--domain", "example.org"], "cannot be used with"),
            (&["--all", "--state", "held"], "cannot be used with"),
            (
                &["--state", "delivered"],
                "[possible values: waiting, held]",
            ),
            (&["--all", "0000000000005"], "cannot be used with"),
        ] {
            let error = read(arguments).expect_err("bad");
            assert!(error.contains(message), "{arguments:?}: {error}");
        }
    }
}
