//! `gatepost history`: lists the downgrade memory, that is, the best TLS that each domain and host
//! has shown, and removes domains from it.
//!
//! It asks the running daemon over the admin socket. Exit status: 0; 1 if the domain is not in the
//! memory or no daemon answers; 2 for unusable arguments or an unusable configuration.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::admin_client::{AdminClient, SocketError, percent_encoded};
use super::config_file::ConfigFile;
use super::format::{Table, count, plain, short, width, wrap};
use super::json::{self, JsonArray};
use super::output::show;
use super::runtime::run_with_daemon;
use crate::admin::api::{
    ActiveAlarm, ForgetDnssecRequest, ForgetRequest, ForgottenDnssec, ForgottenDomain, HistoryItem,
    HistoryPage, REASON_MAX, RememberedHost,
};
use crate::smtp::address::Host;

/// The number of hosts in one request to the daemon.
const PAGE: usize = 500;

/// List the downgrade memory, or remove a domain from it
///
/// For 90 days, the downgrade memory has the best TLS that each recipient domain and host has
/// shown; a connector's `downgrade` says what happens when it gets worse. The commands ask the
/// running daemon over its admin socket.
#[derive(Debug, Args)]
pub(super) struct HistoryArguments {
    #[command(subcommand)]
    command: HistoryCommand,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    /// List domains and hosts with the best TLS they have shown, and those that are worse now
    List {
        /// Only this domain
        #[arg(long, value_name = "DOMAIN", value_parser = domain)]
        domain: Option<Host>,
        #[command(flatten)]
        options: HistoryOptions,
    },
    /// Forget a domain, so that its next TLS is accepted whatever it is; or forget DNSSEC
    Forget {
        /// The domain
        #[arg(value_name = "DOMAIN", value_parser = domain, required_unless_present = "dnssec")]
        domain: Option<Host>,
        /// Forget that DNSSEC validation has worked here: a resolver without DNSSEC is accepted
        /// again
        #[arg(long, conflicts_with = "domain")]
        dnssec: bool,
        /// The reason; it is logged, stored and listed
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        #[command(flatten)]
        options: HistoryOptions,
    },
}

#[derive(Debug, Args)]
struct HistoryOptions {
    /// Print one JSON document: an array for `list`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

fn domain(text: &str) -> Result<Host, String> {
    Host::parse(text).map_err(|error| error.to_string())
}

/// Checks the argument of `--reason`.
fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_valid = !text.is_empty() && text.chars().count() <= REASON_MAX;
    is_valid
        .then(|| text.to_owned())
        .ok_or_else(|| format!("a reason has 1 to {REASON_MAX} characters"))
}

pub(super) fn run(arguments: &HistoryArguments) -> ExitCode {
    let (HistoryCommand::List { options, .. } | HistoryCommand::Forget { options, .. }) =
        &arguments.command;
    run_with_daemon(
        "history",
        &options.file.config,
        async |client| match &arguments.command {
            HistoryCommand::List { domain, options } => {
                list(&client, domain.as_ref(), options.json).await
            }
            HistoryCommand::Forget {
                domain: Some(domain),
                reason,
                options,
                ..
            } => forget(&client, domain, reason, options.json).await,
            HistoryCommand::Forget {
                domain: None,
                reason,
                options,
                ..
            } => forget_dnssec(&client, reason, options.json).await,
        },
    )
}

async fn list(
    client: &AdminClient,
    domain: Option<&Host>,
    json: bool,
) -> Result<ExitCode, SocketError> {
    let mut array = JsonArray::begin(json);
    let mut totals = HistoryTotals::default();
    let mut forgotten = Vec::new();
    let filter = domain
        .map(|domain| format!("&domain={}", percent_encoded(&domain.to_string())))
        .unwrap_or_default();
    let mut query = filter.clone();
    loop {
        let page: HistoryPage = client
            .get(&format!("/v1/history?limit={PAGE}{query}"))
            .await?;
        let mut hosts = Vec::new();
        for item in page.items {
            array.add(&item);
            match item {
                HistoryItem::Alarm(alarm) if !json => show(&alarm_lines(&alarm, width())),
                HistoryItem::Alarm(_) => {}
                HistoryItem::Host(host) => hosts.push(host),
                HistoryItem::Forgotten(domain) => forgotten.push(domain),
            }
        }
        totals.add(&hosts);
        if !json && !hosts.is_empty() {
            show(&table(&hosts).render(width()));
        }
        match page.next {
            Some(next) => query = format!("{filter}&after={}", percent_encoded(&next)),
            None => break,
        }
    }
    array.end();
    if !json {
        show(&totals.line(domain));
        show(&forgotten_lines(&forgotten, width()));
    }
    let not_found = domain.is_some() && totals.hosts == 0 && forgotten.is_empty();
    Ok(if not_found {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn forget(
    client: &AdminClient,
    domain: &Host,
    reason: &str,
    json: bool,
) -> Result<ExitCode, SocketError> {
    let order = ForgetRequest {
        domain: domain.to_string(),
        reason: reason.to_owned(),
    };
    let forgotten: ForgottenDomain = client.post("/v1/history/forget", &order).await?;
    if json {
        show(&json::line(&forgotten));
    } else {
        show(&format!(
            "{} forgotten, {}\n",
            forgotten.domain,
            count(forgotten.hosts, "host")
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn forget_dnssec(
    client: &AdminClient,
    reason: &str,
    json: bool,
) -> Result<ExitCode, SocketError> {
    let order = ForgetDnssecRequest {
        reason: reason.to_owned(),
    };
    let forgotten: ForgottenDnssec = client.post("/v1/dnssec/forget", &order).await?;
    if json {
        show(&json::line(&forgotten));
    } else {
        show("DNSSEC forgotten; it is remembered again once validation works\n");
    }
    Ok(ExitCode::SUCCESS)
}

/// The totals of a list.
#[derive(Default)]
struct HistoryTotals {
    hosts: usize,
    domains: usize,
    worse: usize,
}

impl HistoryTotals {
    /// Adds a page of the list. The hosts of a domain are adjacent, and never on two pages.
    fn add(&mut self, page: &[RememberedHost]) {
        self.hosts += page.len();
        self.domains += page.chunk_by(|one, next| one.domain == next.domain).count();
        self.worse += page.iter().filter(|host| host.worse).count();
    }

    fn line(&self, domain: Option<&Host>) -> String {
        match (self.hosts, domain) {
            (0, Some(domain)) => format!("nothing is remembered of {domain}\n"),
            (0, None) => "nothing is remembered yet\n".to_owned(),
            (hosts, _) => {
                let (hosts, domains) = (count(hosts, "host"), count(self.domains, "domain"));
                format!("{hosts} of {domains}, {} worse than before\n", self.worse)
            }
        }
    }
}

fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// Returns a table with a line for each host.
pub(super) fn table(hosts: &[RememberedHost]) -> Table {
    let mut table = Table::new(&["domain", "host", "best", "since", "last", "seen", "now"]);
    for host in hosts {
        let now = if host.worse {
            format!("WORSE: {}", host.level)
        } else {
            "as good".to_owned()
        };
        table.row([
            plain(&host.domain),
            plain(&host.host),
            host.best.to_string(),
            date(host.first),
            date(host.last),
            date(host.seen),
            now,
        ]);
    }
    table
}

fn forgotten_lines(forgotten: &[ForgottenDomain], width: usize) -> String {
    let mut text = String::new();
    for entry in forgotten {
        let (at, domain, user) = (date(entry.at), plain(&entry.domain), plain(&entry.who));
        let (hosts, reason) = (count(entry.hosts, "host"), short(&entry.reason));
        let line = format!("forgotten {at}: {domain}, {hosts}, by {user}: {reason}");
        wrap(&mut text, "", "    ", &line, width);
    }
    text
}

/// Returns the lines about a downgrade of many domains at once.
pub(super) fn alarm_lines(alarm: &ActiveAlarm, width: usize) -> String {
    let change = match &alarm.issuer {
        None => "that used TLS before no longer do".to_owned(),
        Some(issuer) => format!(
            "show certificates of an issuer that is new to them ({})",
            short(issuer)
        ),
    };
    let at = alarm.since.strftime("%Y-%m-%d %H:%M UTC");
    let examples: Vec<_> = alarm.examples.iter().map(|domain| plain(domain)).collect();
    let (changed, all, examples) = (alarm.domains, alarm.of, examples.join(", "));
    let line = format!(
        "ALARM since {at}: {changed} of {all} unrelated domains {change}: {examples} … Check the network between this \
         machine and the Internet."
    );
    let mut text = String::new();
    wrap(&mut text, "", "    ", &line, width);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_worse_tls_are_marked() {
        let host = |domain: &str, level: &str, worse: bool| -> RememberedHost {
            let text = format!(
                r#"{{"domain":"{domain}","host":"mx.{domain}","best":"verified","first":"2026-09-01T10:00:00Z",
                "last":"2026-11-20T10:00:00Z","seen":"2026-11-25T10:00:00Z","level":"{level}","worse":{worse},"issuer":null}}"#
            );
            serde_json::from_str(&text).expect("a host")
        };
        let two = [
            host("a.example", "verified", false),
            host("b.example", "plain", true),
        ];
        assert_eq!(
            table(&two).render(120),
            "domain     host          best                since       last        seen        now\n\
             a.example  mx.a.example  TLS, name verified  2026-09-01  2026-11-20  2026-11-25  as good\n\
             b.example  mx.b.example  TLS, name verified  2026-09-01  2026-11-20  2026-11-25  WORSE: no TLS\n"
        );
        let mut totals = HistoryTotals::default();
        totals.add(&two);
        assert_eq!(
            totals.line(None),
            "2 hosts of 2 domains, 1 worse than before\n"
        );
    }
}
