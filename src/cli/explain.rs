//! `gatepost explain`: what would become of mail to or from somebody, and why.
//!
//! The answer is made in [`crate::explain`]. What domains did before, and the MTA-STS policies that count, are asked
//! of a running daemon, where one answers. Exit status: 0; 1 where mail could not go at all; 2 where arguments or configuration cannot be
//! used.

mod text;

use std::process::ExitCode;

use clap::Args;

use super::socket::{Client, SocketError, percent_encoded};
use super::{ConfigFile, show, show_faults};
use crate::address::{Domain, Host};
use crate::admin::api::{HistoryItem, HistoryPage, KnownHello, KnownHelloPage, KnownPolicy};
use crate::config::{self, AdminSocket, Config};
use crate::connector::MemoryFinding;
use crate::discovery::history::TlsLevel;
use crate::discovery::mta_sts::MtaStsPolicy;
use crate::envelope::TlsRequirement;
use crate::explain::{DaemonPolicies, Explainer, Recollection, Subject};
use crate::handshake::KnownHellos;
use crate::tls::Hello;

/// Hosts of the domain that are asked for at a time.
const PAGE: usize = 500;

/// See which policy applies to mail for somebody, which layer demands what and why, and what would happen
///
/// Nothing is sent but DNS queries and the fetch of an MTA-STS policy; no mail host is dialled. It works from the
/// configuration file, with or without a running daemon; what the domain did before, and which MTA-STS policy mail
/// goes by at this moment, is asked of the daemon, where one answers. Exit status 1 where mail could not go at all.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A recipient (with --sender: a sender), or a domain, or an address literal such as [192.0.2.1]
    #[arg(value_name = "ADDRESS|DOMAIN", value_parser = Subject::parse)]
    subject: Subject,
    /// Explain mail from them: which connector speaks, what a session must show, what it would be answered
    #[arg(long)]
    sender: bool,
    #[command(flatten)]
    message: Message,
    /// Answer with one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// What the message asks of TLS.
#[derive(Debug, Args)]
struct Message {
    /// For a message that was sent with REQUIRETLS (RFC 8689)
    #[arg(long, conflicts_with_all = ["sender", "tls_not_required"])]
    requiretls: bool,
    /// For a message with "TLS-Required: No" (RFC 8689)
    #[arg(long, conflicts_with = "sender")]
    tls_not_required: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (config, explainer) = match load(arguments) {
        Ok(loaded) => loaded,
        Err(faults) => {
            show_faults(&faults);
            return ExitCode::from(2);
        }
    };
    if arguments.sender {
        let answer = explainer.inbound(&arguments.subject);
        show(&if arguments.json { json(&answer) } else { text::inbound(&answer) });
        return if answer.can_come { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let Some(recipient) = explainer.recipient(&arguments.subject) else {
        eprintln!("gatepost explain: no mail goes to <>; with --sender it is the sender of reports");
        return ExitCode::from(2);
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatepost explain: the system gives us no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let answer = runtime.block_on(async {
        let (memory, policies) = recall(&config, &recipient, &explainer.policy_domains(&recipient)).await;
        let explainer = explainer.knowing(policies, hellos(&config).await);
        explainer.outbound(&arguments.subject, &recipient, requirement(&arguments.message), &memory).await
    });
    show(&if arguments.json { json(&answer) } else { text::outbound(&answer) });
    if answer.can_go { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn load(arguments: &Arguments) -> Result<(Config, Explainer), Vec<config::Fault>> {
    let (config, _) = config::read(&arguments.file.config)?;
    Ok((config.clone(), Explainer::new(config)?))
}

fn requirement(message: &Message) -> TlsRequirement {
    if message.requiretls {
        TlsRequirement::Require
    } else if message.tls_not_required {
        TlsRequirement::Relaxed
    } else {
        TlsRequirement::Ordinary
    }
}

fn json(answer: &impl serde::Serialize) -> String {
    // Our own words always have a form in JSON.
    serde_json::to_string_pretty(answer).unwrap_or_default() + "\n"
}

/// What the daemon remembers of a domain, and which policies it has of those domains.
pub(super) async fn recall(config: &Config, domain: &Host, policies: &[Domain]) -> (Recollection, DaemonPolicies) {
    let not_asked = |why: String| (Recollection::NotAsked(why), DaemonPolicies::default());
    let path = match &config.admin.socket.value {
        AdminSocket::Path(path) => path.clone(),
        AdminSocket::Off => return not_asked("[admin] socket is switched off".to_owned()),
    };
    let client = Client::at(path.clone());
    match took_tls(&client, domain).await {
        Ok(finding) => (Recollection::Told(finding), known(&client, policies).await),
        Err(SocketError::NoDaemon { .. }) => not_asked(format!("no running Gatepost answers on {}", path.display())),
        Err(error) => not_asked(error.to_string().replace('\n', " ")),
    }
}

/// The `ClientHello`s that hosts took lately, as the daemon knows them; none where it does not answer.
async fn hellos(config: &Config) -> KnownHellos {
    let known = KnownHellos::default();
    let AdminSocket::Path(path) = &config.admin.socket.value else { return known };
    let told: Result<KnownHelloPage, _> = Client::at(path.clone()).get("/v1/client-hellos").await;
    for KnownHello { host, port, groups, sni } in told.map(|page| page.items).unwrap_or_default() {
        if let Ok(host) = Host::parse(&host) {
            known.learn(host, port, Hello { groups, sni });
        }
    }
    known
}

/// The policies that the daemon goes by. One that it cannot tell of is looked up, as it would look it up itself.
async fn known(client: &Client, domains: &[Domain]) -> DaemonPolicies {
    let mut known = Vec::new();
    for domain in domains {
        let target = format!("/v1/policy?domain={}", percent_encoded(domain.as_str()));
        let told: Result<Option<KnownPolicy>, _> = client.get(&target).await;
        if let Ok(Some(KnownPolicy { id, lines, fetched })) = told {
            known.extend(MtaStsPolicy::from_parts(domain.clone(), &id, &lines.join("\n"), fetched));
        }
    }
    known.into_iter().collect()
}

/// When a host of the domain last took TLS, as far as the list tells.
async fn took_tls(client: &Client, domain: &Host) -> Result<MemoryFinding, SocketError> {
    let target = format!("/v1/history?limit={PAGE}&domain={}", percent_encoded(&domain.to_string()));
    let page: HistoryPage = client.get(&target).await?;
    let last = page.items.iter().filter_map(|item| match item {
        HistoryItem::Host(host) if host.level > TlsLevel::Plain => Some(host.seen),
        HistoryItem::Host(host) if host.best > TlsLevel::Plain => Some(host.last),
        HistoryItem::Host(_) | HistoryItem::Alarm(_) | HistoryItem::Forgotten(_) => None,
    });
    Ok(last.max().map_or(MemoryFinding::Nothing, |last| MemoryFinding::TookTls { last }))
}
