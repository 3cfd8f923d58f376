//! `gatepost probe`: dials the hosts that accept a domain's mail and judges their TLS as a delivery
//! would. No mail is sent.
//!
//! Exit status: 0 if mail would be delivered today; 1 if not; 2 for unusable arguments or an
//! unusable configuration. The command works without a running daemon and writes no file of it.

mod all;
mod context;
mod expiry;
mod json;
mod text;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use jiff::civil::Date;

use super::explain::ask_daemon;
use super::{ConfigFile, connector_name, runtime, show, show_faults};
use crate::config::{self, Connector, OutboundConfig};
use crate::discovery::Discovery;
use crate::explain::{DaemonPolicies, RememberedTls, Sources, policy_domains};
use crate::policy::connector::exception;
use crate::policy::tls::TlsOutcome;
use crate::relay::outbound::probe::{PredictedOutcome, Probe, ProbeQuery, probe};
use crate::smtp::address::{Host, Mailbox};
use context::ProbeContext;

/// Dial the hosts that accept a domain's mail, and judge them as a delivery would; no mail is sent
///
/// The command sends EHLO, STARTTLS, EHLO and QUIT to each address of each host. It shows every
/// demand with its verdict, the certificates with their expiry and pins ready to paste, and the
/// result that mail would have today. If an exception of the connector is in force, it also shows
/// the result after the exception has ended. The exit status is 1 if mail would not be delivered
/// today.
#[derive(Debug, Args)]
pub(super) struct ProbeArguments {
    /// The recipient domain, or an address at it
    #[arg(value_name = "DOMAIN|ADDRESS", value_parser = host, required_unless_present = "all", conflicts_with = "all")]
    domain: Option<Host>,
    /// Use this connector in place of the domain's own
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    connector: Option<String>,
    /// Probe the domains of every connector that forces TLS, and warn of what ends within 30 days
    #[arg(long)]
    all: bool,
    /// Print one JSON document: an array for --all
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Parses a domain or address literal, alone or after the "@" of an address.
fn host(text: &str) -> Result<Host, String> {
    if text.contains('@') {
        return Mailbox::parse(text)
            .map(|mailbox| mailbox.host().clone())
            .map_err(|error| error.to_string());
    }
    Host::parse(text).map_err(|error| error.to_string())
}

/// The result of probing one domain.
pub(super) struct DomainProbe {
    /// The recipient domain.
    recipient: Host,
    connector: Arc<Connector>,
    remembered: RememberedTls,
    /// The MTA-STS policies of the running daemon.
    known: DaemonPolicies,
    probe: Probe,
    after: Option<AfterException>,
}

/// The result of a second probe as if the connector's exception, which is in force, had ended.
pub(super) struct AfterException {
    /// The last day of the exception.
    until: Date,
    probe: Probe,
}

impl DomainProbe {
    /// Returns true if mail would not be delivered today.
    fn fails(&self) -> bool {
        fails(&self.probe.prospect)
    }

    /// Returns true if mail would be delivered in the clear today.
    fn is_clear(&self) -> bool {
        match &self.probe.prospect {
            PredictedOutcome::Sent { clearance, .. } => {
                matches!(clearance.outcome(), TlsOutcome::Clear(_))
            }
            PredictedOutcome::Deferred(_)
            | PredictedOutcome::Held(_)
            | PredictedOutcome::Bounced(_) => false,
        }
    }

    /// Returns true if mail would not be delivered after the exception has ended.
    fn fails_later(&self) -> bool {
        self.after
            .as_ref()
            .is_some_and(|after| fails(&after.probe.prospect))
    }
}

fn fails(prospect: &PredictedOutcome) -> bool {
    match prospect {
        PredictedOutcome::Sent { .. } => false,
        PredictedOutcome::Deferred(_)
        | PredictedOutcome::Held(_)
        | PredictedOutcome::Bounced(_) => true,
    }
}

pub(super) fn run(arguments: &ProbeArguments) -> ExitCode {
    let config = match config::read(&arguments.file.config) {
        Ok((config, _)) => Arc::new(config),
        Err(faults) => {
            show_faults(&arguments.file.config, &faults);
            return ExitCode::from(2);
        }
    };
    let connector = match arguments
        .connector
        .as_deref()
        .map(|name| connector_name::find(&config, name))
        .transpose()
    {
        Ok(connector) => connector,
        Err(text) => {
            eprintln!("gatepost probe: {text}");
            return ExitCode::from(2);
        }
    };
    let runtime = match runtime::multi_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatepost probe: {error}");
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(async {
        let context = match ProbeContext::new(&config) {
            Ok(context) => context,
            Err(status) => return status,
        };
        match &arguments.domain {
            Some(recipient) => run_one(&context, recipient, connector, arguments.json).await,
            None => all::run(&context, arguments.json).await,
        }
    });
    // The program must not wait for lookups that are still running.
    runtime.shutdown_background();
    status
}

/// Probes one domain and prints the result.
async fn run_one(
    context: &ProbeContext,
    recipient: &Host,
    connector: Option<Arc<Connector>>,
    json: bool,
) -> ExitCode {
    let connector =
        connector.unwrap_or_else(|| Arc::clone(context.snapshot.connectors.for_host(recipient)));
    let result = probe_domain(context, recipient.clone(), connector).await;
    let expiries = expiry::upcoming(&result, context);
    if json {
        show(&super::json::indented(&json::document(&result, &expiries)));
    } else {
        show(&text::report(&result, &context.snapshot.config));
        show(&expiry::lines(&expiries));
    }
    if result.fails() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Probes one domain.
async fn probe_domain(
    context: &ProbeContext,
    recipient: Host,
    connector: Arc<Connector>,
) -> DomainProbe {
    let policies = policy_domains(&recipient, &connector.outbound.route);
    let (remembered, known) = ask_daemon(&context.snapshot.config, &recipient, &policies).await;
    let discovery = Discovery::with_policies(Sources::new(
        context.web.clone(),
        &remembered,
        known.clone(),
    ));
    let ask = async |connector: &Connector| {
        probe(
            &context.snapshot,
            &discovery,
            ProbeQuery {
                recipient: &recipient,
                connector,
            },
        )
        .await
    };
    let probe = ask(&connector).await;
    let after = match exception(&connector, Timestamp::now()) {
        Some(exception) => Some(AfterException {
            until: exception.until,
            probe: ask(&without_exception(&connector)).await,
        }),
        None => None,
    };
    DomainProbe {
        recipient,
        connector,
        remembered,
        known,
        probe,
        after,
    }
}

fn without_exception(connector: &Connector) -> Connector {
    let outbound = OutboundConfig {
        exception: None,
        ..connector.outbound.clone()
    };
    Connector {
        outbound,
        ..connector.clone()
    }
}
