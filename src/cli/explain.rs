//! `gatepost explain`: explains how mail to or from an address would be treated.
//!
//! [`crate::explain`] makes the explanation. If a daemon runs, this module asks it for the
//! downgrade memory, for cached MTA-STS policies and for the `ClientHello`s that hosts accepted.
//! Exit status: 0; 1 if mail could not be delivered at all; 2 for unusable arguments or an unusable
//! configuration.

mod text;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::admin_client::{AdminClient, SocketError, percent_encoded};
use super::config_file::ConfigFile;
use super::format::{plain, width};
use super::output::{show, show_faults};
use super::{json, runtime};
use crate::admin::api::{HistoryItem, HistoryPage, KnownHello, KnownHelloPage, KnownPolicy};
use crate::config::{self, AdminSocket, Config, MailUser};
use crate::discovery::history::TlsLevel;
use crate::discovery::mta_sts::MtaStsPolicy;
use crate::explain::document::OutboundExplanation;
use crate::explain::{DaemonPolicies, Explainer, RememberedTls, Subject};
use crate::net::tls_io::KnownHellos;
use crate::policy::layers::MemoryFinding;
use crate::policy::location::Location;
use crate::policy::tls::Hello;
use crate::smtp::address::{Domain, Host};
use crate::smtp::envelope::TlsRequirement;
use crate::smtp::sasl::prepare_name;

/// The maximum number of hosts of a domain that the daemon is asked for.
const PAGE: usize = 500;

/// Show which TLS policy applies to mail for an address, which layer demands what and why, and what
/// would happen
///
/// No mail host is dialled: the command sends only DNS queries, and fetches an MTA-STS policy. It
/// works from the configuration file. If the daemon runs, the downgrade memory and the MTA-STS
/// policy are those of the daemon. The exit status is 1 if mail could not be delivered at all.
#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// A recipient (with --sender: a sender), a domain, or an address literal such as [192.0.2.1]
    #[arg(value_name = "ADDRESS|DOMAIN", value_parser = Subject::parse)]
    subject: Subject,
    /// Explain mail from them: the connector, its demand, and the reply to each kind of session
    #[arg(long)]
    sender: bool,
    #[command(flatten)]
    message: MessageOptions,
    /// Explain mail that this user sends after a login, and what the user may do
    #[arg(long, value_name = "NAME", conflicts_with = "sender")]
    user: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// The properties of the message that change the TLS policy.
#[derive(Debug, Args)]
struct MessageOptions {
    /// Explain a message with REQUIRETLS (RFC 8689)
    #[arg(long, conflicts_with_all = ["sender", "tls_not_required"])]
    requiretls: bool,
    /// Explain a message with "TLS-Required: No" (RFC 8689)
    #[arg(long, conflicts_with = "sender")]
    tls_not_required: bool,
}

pub(super) fn run(arguments: &ExplainArguments) -> ExitCode {
    let (config, explainer) = match load(arguments) {
        Ok(loaded) => loaded,
        Err(faults) => {
            show_faults(&arguments.file.config, &faults);
            return ExitCode::from(2);
        }
    };
    if arguments.sender {
        let explanation = explainer.inbound(&arguments.subject);
        show(&if arguments.json {
            json::indented(&explanation)
        } else {
            text::inbound(&explanation, width())
        });
        return if explanation.can_come {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let Some(recipient) = explainer.recipient(&arguments.subject) else {
        eprintln!(
            "gatepost explain: no mail goes to <>; with --sender it is the sender of reports"
        );
        return ExitCode::from(2);
    };
    let runtime = match runtime::single_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatepost explain: {error}");
            return ExitCode::FAILURE;
        }
    };
    let explanation = runtime.block_on(explain_outbound(
        explainer,
        &config,
        (&arguments.subject, &recipient),
        requirement(&arguments.message),
    ));
    show(&if arguments.json {
        json::indented(&explanation)
    } else {
        text::outbound(&explanation, width())
    });
    if explanation.can_go {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Explains mail to a recipient domain, with what the running daemon knows.
async fn explain_outbound(
    explainer: Explainer,
    config: &Config,
    (subject, recipient): (&Subject, &Host),
    requirement: TlsRequirement,
) -> OutboundExplanation {
    let (memory, policies) =
        ask_daemon(config, recipient, &explainer.policy_domains(recipient)).await;
    let explainer = explainer.knowing(policies, hellos(config).await);
    explainer
        .outbound(subject, recipient, requirement, &memory)
        .await
}

/// Returns the explanation of ordinary mail to a domain under a configuration, as text.
///
/// # Errors
/// The faults in the files that the configuration names.
pub(super) async fn explained(
    config: &Config,
    domain: &Host,
    width: usize,
) -> Result<String, Vec<config::Fault>> {
    let explainer = Explainer::new(config.clone())?;
    let subject = Subject::Host(domain.clone());
    let asked = (&subject, domain);
    let explanation = explain_outbound(explainer, config, asked, TlsRequirement::Ordinary).await;
    Ok(text::outbound(&explanation, width))
}

fn load(arguments: &ExplainArguments) -> Result<(Config, Explainer), Vec<config::Fault>> {
    let (config, _) = config::read(&arguments.file.config)?;
    let explainer = Explainer::new(config.clone())?;
    let explainer = match &arguments.user {
        Some(name) => explainer.sent_by(user(&config, name)?),
        None => explainer,
    };
    Ok((config, explainer))
}

/// Returns a user of the file of users.
fn user(config: &Config, name: &str) -> Result<Arc<MailUser>, Vec<config::Fault>> {
    let missing = |location, message: String| {
        vec![config::Fault {
            location,
            message,
            remedy: "`gatepost user list` lists all users.".to_owned(),
        }]
    };
    let Some(users) = &config.users else {
        let file = Arc::clone(&config.source.file);
        let location = Location {
            file,
            line: 1,
            column: 1,
        };
        return Err(missing(
            location,
            "the configuration has no [users]".to_owned(),
        ));
    };
    let list = config::read_users(&users.file.value)?;
    let prepared = prepare_name(name).unwrap_or_default();
    let found = list.get(&prepared).cloned();
    found.ok_or_else(|| {
        let message = format!("there is no user {}", plain(name));
        missing(users.file.location.clone(), message)
    })
}

fn requirement(message: &MessageOptions) -> TlsRequirement {
    if message.requiretls {
        TlsRequirement::Require
    } else if message.tls_not_required {
        TlsRequirement::Relaxed
    } else {
        TlsRequirement::Ordinary
    }
}

/// Returns the running daemon's downgrade memory of a domain, and its MTA-STS policies of some
/// domains.
pub(super) async fn ask_daemon(
    config: &Config,
    domain: &Host,
    policies: &[Domain],
) -> (RememberedTls, DaemonPolicies) {
    let unavailable = |why: String| (RememberedTls::Unavailable(why), DaemonPolicies::default());
    let path = match &config.admin.socket.value {
        AdminSocket::Path(path) => path.clone(),
        AdminSocket::Off => return unavailable("[admin] socket is switched off".to_owned()),
    };
    let client = AdminClient::at(path.clone());
    match last_tls(&client, domain).await {
        Ok(finding) => (
            RememberedTls::Known(finding),
            known_policies(&client, policies).await,
        ),
        Err(SocketError::NoDaemon { .. }) => {
            unavailable(format!("no running Gatepost answers on {}", path.display()))
        }
        Err(error) => unavailable(error.to_string().replace('\n', " ")),
    }
}

/// Returns the `ClientHello`s that hosts accepted recently, as the daemon knows them; none if it
/// does not answer.
async fn hellos(config: &Config) -> KnownHellos {
    let known = KnownHellos::default();
    let AdminSocket::Path(path) = &config.admin.socket.value else {
        return known;
    };
    let page: Result<KnownHelloPage, _> =
        AdminClient::at(path.clone()).get("/v1/client-hellos").await;
    for KnownHello {
        host,
        port,
        groups,
        sni,
    } in page.map(|page| page.items).unwrap_or_default()
    {
        if let Ok(host) = Host::parse(&host) {
            known.learn(host, port, Hello { groups, sni });
        }
    }
    known
}

/// Returns the MTA-STS policies that the daemon uses. A policy that it does not have is looked up
/// later, as the daemon itself would do.
async fn known_policies(client: &AdminClient, domains: &[Domain]) -> DaemonPolicies {
    let mut policies = Vec::new();
    for domain in domains {
        let target = format!("/v1/policy?domain={}", percent_encoded(domain.as_str()));
        let answer: Result<Option<KnownPolicy>, _> = client.get(&target).await;
        if let Ok(Some(KnownPolicy { id, lines, fetched })) = answer {
            policies.extend(MtaStsPolicy::from_parts(
                domain.clone(),
                &id,
                &lines.join("\n"),
                fetched,
            ));
        }
    }
    policies.into_iter().collect()
}

/// Returns when a host of the domain last used TLS, from the first page of the daemon's list.
async fn last_tls(client: &AdminClient, domain: &Host) -> Result<MemoryFinding, SocketError> {
    let target = format!(
        "/v1/history?limit={PAGE}&domain={}",
        percent_encoded(&domain.to_string())
    );
    let page: HistoryPage = client.get(&target).await?;
    let last = page.items.iter().filter_map(|item| match item {
        HistoryItem::Host(host) if host.level > TlsLevel::Plain => Some(host.seen),
        HistoryItem::Host(host) if host.best > TlsLevel::Plain => Some(host.last),
        HistoryItem::Host(_) | HistoryItem::Alarm(_) | HistoryItem::Forgotten(_) => None,
    });
    Ok(last
        .max()
        .map_or(MemoryFinding::Nothing, |last| MemoryFinding::TookTls {
            last,
        }))
}
