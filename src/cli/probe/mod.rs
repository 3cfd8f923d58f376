//! `gatepost probe`: dials the hosts that accept a domain's mail and judges their TLS as a delivery
//! would. No mail is sent.
//!
//! Exit status: 0 if mail would be delivered today; 1 if not; 2 for unusable arguments or an
//! unusable configuration. The command works without a running daemon, and writes none of the
//! daemon's files.

mod all;
mod context;
mod domain_probe;
mod expiry;
mod json;
mod text;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::config_file::ConfigFile;
use super::format::width;
use super::output::{show, show_faults};
use super::{connector_name, runtime};
use crate::config::{self, Connector};
use crate::smtp::address::{Host, Mailbox};
pub(super) use context::ProbeContext;
pub(super) use domain_probe::{DomainProbe, probe_domain};
pub(super) use text::brief;

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
pub(super) fn host(text: &str) -> Result<Host, String> {
    if text.contains('@') {
        return Mailbox::parse(text)
            .map(|mailbox| mailbox.host().clone())
            .map_err(|error| error.to_string());
    }
    Host::parse(text).map_err(|error| error.to_string())
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
    let points = context.snapshot.points.summaries();
    if json {
        show(&super::json::indented(&json::document(
            &result, &expiries, &points,
        )));
    } else {
        let width = width();
        show(&text::report(
            &result,
            &context.snapshot.config,
            &points,
            width,
        ));
        show(&expiry::lines(&expiries, width));
    }
    if result.fails() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
