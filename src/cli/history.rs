//! `gatepost history`: what domains' TLS was like before, and having one of them forgotten.
//!
//! It asks a running daemon over the admin socket. Exit status: 0; 1 where nothing is remembered of the
//! domain or no daemon answers; 2 where arguments or configuration cannot be used.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use jiff::Timestamp;

use super::queue::list::Document;
use super::queue::words::{plain, short};
use super::socket::{Client, SocketError, percent_encoded};
use super::{ConfigFile, show};
use crate::address::Host;
use crate::admin::api::{
    ActiveAlarm, ForgetDnssecRequest, ForgetRequest, ForgottenDnssec, ForgottenDomain, HistoryItem, HistoryPage,
    REASON_MAX, RememberedHost,
};

/// Hosts that are asked for at a time.
const PAGE: usize = 500;

/// See what domains' TLS was like before, or have a domain forgotten
///
/// For each recipient domain and host Gatepost remembers the best TLS it has shown, for 90 days; a connector's
/// `downgrade` says what happens when it gets worse. The commands speak to the running daemon over its admin
/// socket.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List domains, hosts, the best they have shown, and what is worse now
    List {
        /// Only this domain
        #[arg(long, value_name = "DOMAIN", value_parser = domain)]
        domain: Option<Host>,
        #[command(flatten)]
        how: How,
    },
    /// ForgetRequest a domain, so that whatever it shows next is accepted; or forget DNSSEC
    ForgetRequest {
        /// The domain
        #[arg(value_name = "DOMAIN", value_parser = domain, required_unless_present = "dnssec")]
        domain: Option<Host>,
        /// ForgetRequest that DNSSEC validation has worked here: a resolver without DNSSEC is accepted again
        #[arg(long, conflicts_with = "domain")]
        dnssec: bool,
        /// Why; it is logged, kept and listed
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Args)]
struct How {
    /// Answer with one JSON document: an array for `list`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

fn domain(text: &str) -> Result<Host, String> {
    Host::parse(text).map_err(|error| error.to_string())
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_good = !text.is_empty() && text.chars().count() <= REASON_MAX;
    is_good.then(|| text.to_owned()).ok_or_else(|| format!("a reason has 1 to {REASON_MAX} characters"))
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (Command::List { how, .. } | Command::ForgetRequest { how, .. }) = &arguments.command;
    let client = match Client::of(&how.file.config, "history") {
        Ok(client) => client,
        Err(status) => return status,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatepost history: the system gives us no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match &arguments.command {
            Command::List { domain, how } => list(&client, domain.as_ref(), how.json).await,
            Command::ForgetRequest { domain: Some(domain), reason, how, .. } => {
                forget(&client, domain, reason, how.json).await
            }
            Command::ForgetRequest { domain: None, reason, how, .. } => forget_dnssec(&client, reason, how.json).await,
        }
    });
    done.unwrap_or_else(|error| {
        eprintln!("gatepost history: {error}");
        ExitCode::FAILURE
    })
}

async fn list(client: &Client, domain: Option<&Host>, json: bool) -> Result<ExitCode, SocketError> {
    let mut document = Document::begin(json);
    let mut tally = Tally::default();
    let mut forgotten = Vec::new();
    let chosen = domain.map(|domain| format!("&domain={}", percent_encoded(&domain.to_string()))).unwrap_or_default();
    let mut query = chosen.clone();
    loop {
        let page: HistoryPage = client.get(&format!("/v1/history?limit={PAGE}{query}")).await?;
        let mut hosts = Vec::new();
        for item in page.items {
            document.add(&item);
            match item {
                HistoryItem::Alarm(alarm) if !json => show(&alarm_line(&alarm)),
                HistoryItem::Alarm(_) => {}
                HistoryItem::Host(host) => hosts.push(host),
                HistoryItem::Forgotten(one) => forgotten.push(one),
            }
        }
        tally.count(&hosts);
        if !json && !hosts.is_empty() {
            show(&table(&hosts));
        }
        match page.next {
            Some(next) => query = format!("{chosen}&after={}", percent_encoded(&next)),
            None => break,
        }
    }
    document.end();
    if !json {
        show(&tally.line(domain));
        show(&forgotten_lines(&forgotten));
    }
    let no = domain.is_some() && tally.hosts == 0 && forgotten.is_empty();
    Ok(if no { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn forget(client: &Client, domain: &Host, reason: &str, json: bool) -> Result<ExitCode, SocketError> {
    let order = ForgetRequest { domain: domain.to_string(), reason: reason.to_owned() };
    let done: ForgottenDomain = client.post("/v1/history/forget", &order).await?;
    if json {
        // Our own words always have a form in JSON.
        show(&format!("{}\n", serde_json::to_string(&done).unwrap_or_default()));
    } else {
        show(&format!("{} forgotten, {}\n", done.domain, hosts(done.hosts)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn forget_dnssec(client: &Client, reason: &str, json: bool) -> Result<ExitCode, SocketError> {
    let order = ForgetDnssecRequest { reason: reason.to_owned() };
    let done: ForgottenDnssec = client.post("/v1/dnssec/forget", &order).await?;
    if json {
        // Our own words always have a form in JSON.
        show(&format!("{}\n", serde_json::to_string(&done).unwrap_or_default()));
    } else {
        show("DNSSEC forgotten; it is remembered again once validation works\n");
    }
    Ok(ExitCode::SUCCESS)
}

/// What the list comes to.
#[derive(Default)]
struct Tally {
    hosts: usize,
    domains: usize,
    worse: usize,
}

impl Tally {
    /// Domains stand together, and none is on two pages.
    fn count(&mut self, hosts: &[RememberedHost]) {
        self.hosts += hosts.len();
        self.domains += hosts.chunk_by(|one, other| one.domain == other.domain).count();
        self.worse += hosts.iter().filter(|host| host.worse).count();
    }

    fn line(&self, domain: Option<&Host>) -> String {
        match (self.hosts, domain) {
            (0, Some(domain)) => format!("nothing is remembered of {domain}\n"),
            (0, None) => "nothing is remembered yet\n".to_owned(),
            (some, _) => {
                let domains =
                    if self.domains == 1 { "1 domain".to_owned() } else { format!("{} domains", self.domains) };
                format!("{} of {domains}, {} worse than before\n", hosts(some), self.worse)
            }
        }
    }
}

fn hosts(number: usize) -> String {
    if number == 1 { "1 host".to_owned() } else { format!("{number} hosts") }
}

fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// One line for each host.
fn table(hosts: &[RememberedHost]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["domain", "host", "best", "since", "last", "seen", "now"]);
    for host in hosts {
        let now = if host.worse { format!("WORSE: {}", host.level) } else { "as good".to_owned() };
        table.add_row([
            plain(&host.domain),
            plain(&host.host),
            host.best.to_string(),
            date(host.first),
            date(host.last),
            date(host.seen),
            now,
        ]);
    }
    // There is no frame, nor should there be blanks in its place.
    let rows = table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned() + "\n");
    rows.collect()
}

fn forgotten_lines(forgotten: &[ForgottenDomain]) -> String {
    let lines = forgotten.iter().map(|one| {
        let (at, domain, who) = (date(one.at), plain(&one.domain), plain(&one.who));
        format!("forgotten {at}: {domain}, {}, by {who}: {}\n", hosts(one.hosts), short(&one.reason))
    });
    lines.collect()
}

pub(super) fn alarm_line(alarm: &ActiveAlarm) -> String {
    let what = match &alarm.issuer {
        None => "that took TLS before no longer do".to_owned(),
        Some(issuer) => format!("show certificates of an issuer that was new to them ({})", short(issuer)),
    };
    let at = alarm.since.strftime("%Y-%m-%d %H:%M UTC");
    let examples: Vec<_> = alarm.examples.iter().map(|domain| plain(domain)).collect();
    format!(
        "ALARM since {at}: {} of {} unrelated domains {what}: {} …\n      Look at the network between this machine and \
         the Internet.\n",
        alarm.domains,
        alarm.of,
        examples.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worse_stands_out() {
        let host = |domain: &str, level: &str, worse: bool| -> RememberedHost {
            let text = format!(
                r#"{{"domain":"{domain}","host":"mx.{domain}","best":"verified","first":"2026-09-01T10:00:00Z",
                "last":"2026-11-20T10:00:00Z","seen":"2026-11-25T10:00:00Z","level":"{level}","worse":{worse},"issuer":null}}"#
            );
            serde_json::from_str(&text).expect("a host")
        };
        let two = [host("a.example", "verified", false), host("b.example", "plain", true)];
        assert_eq!(
            table(&two),
            "domain     host          best                since       last        seen        now\n\
             a.example  mx.a.example  TLS, name verified  2026-09-01  2026-11-20  2026-11-25  as good\n\
             b.example  mx.b.example  TLS, name verified  2026-09-01  2026-11-20  2026-11-25  WORSE: no TLS\n"
        );
        let mut tally = Tally::default();
        tally.count(&two);
        assert_eq!(tally.line(None), "2 hosts of 2 domains, 1 worse than before\n");
    }
}
