//! `gatepost probe`: dials the hosts that take a domain's mail and judges them as a delivery would, without
//! a word of mail.
//!
//! Exit status: 0 where mail would go on today; 1 where it would not; 2 where arguments or configuration
//! cannot be used. Nothing is written that the daemon reads, and the daemon need not run.

mod all;
mod apart;
mod json;
mod soon;
mod text;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use jiff::civil::Date;

use super::explain::recall;
use super::{ConfigFile, show, show_faults};
use crate::address::{Host, Mailbox};
use crate::config::{self, Connector, OutboundConfig, default_connector};
use crate::connector::exception;
use crate::discovery::Discovery;
use crate::explain::{DaemonPolicies, Recollection, Sources, policy_domains};
use crate::outbound::probe::{Probe, Prospect, Question, probe};
use crate::tls::TlsOutcome;
use apart::Apart;

/// Dial the hosts that take a domain's mail, and judge them as a delivery would; no mail is sent
///
/// Each address of each host hears EHLO, STARTTLS, EHLO and QUIT. Shown are every demand with its verdict, the
/// certificates with their expiry and pins ready to paste, and what would become of mail today; where the connector has
/// an exception in force, also what becomes of it once that has ended. Exit status 1 where it would not go on today.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The recipient domain, or an address at it
    #[arg(value_name = "DOMAIN|ADDRESS", value_parser = host, required_unless_present = "all", conflicts_with = "all")]
    domain: Option<Host>,
    /// Try the demands of this connector on it, whoever speaks for the domain
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    connector: Option<String>,
    /// Probe the domains of every connector that forces TLS, and tell what will break within 30 days
    #[arg(long)]
    all: bool,
    /// Answer with one JSON document: an array for --all
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// What stands right of the "@", or alone.
fn host(text: &str) -> Result<Host, String> {
    if text.contains('@') {
        return Mailbox::parse(text).map(|mailbox| mailbox.host().clone()).map_err(|error| error.to_string());
    }
    Host::parse(text).map_err(|error| error.to_string())
}

/// One probe, done.
pub(super) struct Done {
    /// The recipient domain.
    recipient: Host,
    connector: Arc<Connector>,
    remembered: Recollection,
    /// Policies that are the daemon's.
    known: DaemonPolicies,
    probe: Probe,
    after: Option<After>,
}

/// The same without the exception that lowers the connector's demand today.
pub(super) struct After {
    /// The last day of the exception.
    until: Date,
    probe: Probe,
}

impl Done {
    /// Whether mail would not go on today.
    fn fails(&self) -> bool {
        fails(&self.probe.prospect)
    }

    /// Returns true where mail would go on today, in clear.
    fn is_clear(&self) -> bool {
        match &self.probe.prospect {
            Prospect::GoesOn { clearance, .. } => matches!(clearance.outcome(), TlsOutcome::Clear(_)),
            Prospect::Deferred(_) | Prospect::Held(_) | Prospect::Bounced(_) => false,
        }
    }

    /// Returns true where mail would not go on once the exception of today has ended.
    fn fails_later(&self) -> bool {
        self.after.as_ref().is_some_and(|after| fails(&after.probe.prospect))
    }
}

fn fails(prospect: &Prospect) -> bool {
    match prospect {
        Prospect::GoesOn { .. } => false,
        Prospect::Deferred(_) | Prospect::Held(_) | Prospect::Bounced(_) => true,
    }
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let config = match config::read(&arguments.file.config) {
        Ok((config, _)) => Arc::new(config),
        Err(faults) => {
            show_faults(&faults);
            return ExitCode::from(2);
        }
    };
    let connector = match arguments.connector.as_deref().map(|name| named(&config, name)).transpose() {
        Ok(connector) => connector,
        Err(text) => {
            eprintln!("gatepost probe: {text}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatepost probe: the system gives us no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let end = runtime.block_on(async {
        let apart = match Apart::new(&config) {
            Ok(apart) => apart,
            Err(status) => return status,
        };
        match &arguments.domain {
            Some(recipient) => one(&apart, recipient, connector, arguments.json).await,
            None => all::run(&apart, arguments.json).await,
        }
    });
    // A lookup that is still under way must not hold up the end.
    runtime.shutdown_background();
    end
}

/// The connector of a name.
fn named(config: &config::Config, name: &str) -> Result<Arc<Connector>, String> {
    let built_in = default_connector(&config.tls.trust);
    let mut all = config.connectors.iter().chain([&built_in]);
    if let Some(connector) = all.find(|connector| connector.name == name) {
        return Ok(Arc::clone(connector));
    }
    let names: Vec<_> = config.connectors.iter().chain([&built_in]).map(|connector| connector.name.as_str()).collect();
    Err(format!("there is no connector \"{name}\"; there are: {}", names.join(", ")))
}

async fn one(apart: &Apart, recipient: &Host, connector: Option<Arc<Connector>>, json: bool) -> ExitCode {
    let speaks = connector.unwrap_or_else(|| Arc::clone(apart.snapshot.connectors.for_host(recipient)));
    let done = look(apart, recipient.clone(), speaks).await;
    let soon = soon::of(&done, apart);
    if json {
        show(&json::document(&json::done(&done, &soon)));
    } else {
        show(&text::report(&done, &apart.snapshot.config));
        show(&soon::lines(&soon));
    }
    if done.fails() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Makes one probe.
async fn look(apart: &Apart, recipient: Host, connector: Arc<Connector>) -> Done {
    let policies = policy_domains(&recipient, &connector.outbound.route);
    let (remembered, known) = recall(&apart.snapshot.config, &recipient, &policies).await;
    let discovery = Discovery::with_policies(Sources::new(apart.web.clone(), &remembered, known.clone()));
    let ask = async |connector: &Connector| {
        probe(&apart.snapshot, &discovery, Question { recipient: &recipient, connector }).await
    };
    let probe = ask(&connector).await;
    let after = match exception(&connector, Timestamp::now()) {
        Some(exception) => Some(After { until: exception.until, probe: ask(&without_exception(&connector)).await }),
        None => None,
    };
    Done { recipient, connector, remembered, known, probe, after }
}

fn without_exception(connector: &Connector) -> Connector {
    let outbound = OutboundConfig { exception: None, ..connector.outbound.clone() };
    Connector { outbound, ..connector.clone() }
}
