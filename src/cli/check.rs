//! `gatepost check`: reads the configuration and every file that it names, and shows the result
//! with all defaults.
//!
//! It binds no address, sends no DNS query and does not open the spool. With `--against` it shows
//! the differences from another configuration instead; with `--reload` it also rejects changes that
//! need a restart.

mod against;
mod reload;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{ConfigFile, json, show, show_faults, show_warnings};
use crate::config::{
    self, Config, Connector, EvidencePath, InboundConfig, ListenerConfig, ListenerTls, OnDowngrade,
    OnFailure, OutboundConfig, Publication, Route, SendReports, TlsDemand, TlsException,
    TrustSource, VerifyWanted,
};
use crate::net::dns::Dns;
use crate::net::tls_io::{IdentitySummary, TlsMaterial};
use crate::policy::connector::ended_exception;
use crate::policy::tls::{Strength, TlsVersion};
use crate::relay::tlsrpt::Submitter;
use against::Baseline;

/// Check the configuration and the files that it names, and show what it means
///
/// Prints listeners, relay rules, connectors and certificates with every default filled in. If
/// there are errors, prints each of them with its line and remedy; the exit status is 1 then.
///
/// With --against, prints the differences from another configuration: tables and keys, domains that
/// another connector is responsible for, and messages in the queue that are treated differently.
/// The exit status then is 0 for no difference, 1 for some, and 2 if the two cannot be compared.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Also reject changes that need a restart of the running daemon, as `systemctl reload` does
    #[arg(long, conflicts_with = "against")]
    reload: bool,
    /// Compare with the running daemon's configuration and queue, or with another FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    #[allow(
        clippy::option_option,
        reason = "given or not, and if given with a file or not: what clap makes of it"
    )]
    against: Option<Option<PathBuf>>,
    /// The running daemon's admin socket, if the file names another
    #[arg(long, value_name = "PATH", requires = "against")]
    socket: Option<PathBuf>,
    /// Answer with one JSON document
    #[arg(long, requires = "against")]
    json: bool,
}

pub(super) fn run(arguments: &CheckArguments) -> ExitCode {
    let file = &arguments.file.config;
    match (&arguments.against, &arguments.socket) {
        (None, _) => check(file, arguments.reload),
        (Some(Some(old)), None) => compare(arguments, &Baseline::File(old)),
        (Some(Some(_)), Some(_)) => {
            eprintln!(
                "gatepost check: --socket compares with the running daemon, --against FILE with a file: give one of them"
            );
            ExitCode::from(2)
        }
        (Some(None), socket) => compare(arguments, &Baseline::Running(socket.as_deref())),
    }
}

/// Compares the file with another configuration and prints the differences.
fn compare(arguments: &CheckArguments, old: &Baseline<'_>) -> ExitCode {
    let file = &arguments.file.config;
    // Relative paths in the file start from its folder: they are comparable only if that is
    // absolute.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
    let loaded = match load(&file) {
        Ok(loaded) => loaded,
        Err(faults) => {
            show_faults(&file, &faults);
            return ExitCode::from(2);
        }
    };
    show_warnings(&loaded.warnings);
    match against::compare(&loaded.config, old) {
        Ok(comparison) => {
            show(&if arguments.json {
                json::indented(&comparison)
            } else {
                against::text(&comparison)
            });
            if comparison.is_same() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("gatepost check: {error}");
            ExitCode::from(2)
        }
    }
}

/// Checks the file and prints its content, or its errors.
fn check(file: &Path, reload: bool) -> ExitCode {
    // The paths of the running configuration, with which this one is compared, are absolute.
    let absolute = if reload {
        std::path::absolute(file).ok()
    } else {
        None
    };
    let loaded = load(absolute.as_deref().unwrap_or(file)).and_then(|loaded| {
        let faults = if reload {
            reload::faults(&loaded.config)
        } else {
            Vec::new()
        };
        if faults.is_empty() {
            Ok(loaded)
        } else {
            Err(faults)
        }
    });
    match loaded {
        Ok(loaded) => {
            show(&report(&loaded));
            show_warnings(&loaded.warnings);
            show(&format!("\n{}: OK\n", file.display()));
            ExitCode::SUCCESS
        }
        Err(faults) => {
            show_faults(file, &faults);
            ExitCode::FAILURE
        }
    }
}

/// A configuration, and what the files that it names contain.
struct LoadedConfig {
    config: Config,
    identities: Vec<IdentitySummary>,
    submitter: Submitter,
    warnings: Vec<config::Fault>,
}

/// Reads a configuration and the files that it names.
fn load(file: &Path) -> Result<LoadedConfig, Vec<config::Fault>> {
    let (config, mut warnings) = config::read(file)?;
    let dns = Dns::new(&config.dns).map_err(|error| error.fault(&config.dns));
    let loaded = (
        TlsMaterial::load(&config),
        dns,
        Submitter::load(&config.tlsrpt),
    );
    let ((material, material_warnings), (submitter, submitter_warnings)) = match loaded {
        (Ok(material), Ok(_), Ok(submitter)) => (material, submitter),
        (material, dns, submitter) => {
            let faults = material
                .err()
                .into_iter()
                .flatten()
                .chain(dns.err())
                .chain(submitter.err());
            return Err(faults.collect());
        }
    };
    warnings.extend(material_warnings.into_iter().chain(submitter_warnings));
    let now = Timestamp::now();
    warnings.extend(
        config
            .connectors
            .iter()
            .filter_map(|connector| ended_exception_warning(connector, now)),
    );
    let warnings = config::merge_warnings(warnings);
    Ok(LoadedConfig {
        identities: material.identities(),
        config,
        submitter,
        warnings,
    })
}

/// Returns a warning if the connector has an exception that has ended.
fn ended_exception_warning(connector: &Connector, now: Timestamp) -> Option<config::Fault> {
    ended_exception(connector, now).map(|exception| config::Fault {
        location: exception.location.clone(),
        message: format!(
            "the exception of the connector \"{}\" ended on {} ({})",
            connector.name, exception.until, exception.reason
        ),
        remedy: "The connector's own demand is in force again. Remove the exception, or set a later day.".to_owned(),
    })
}

/// Returns the configuration as text, with all defaults.
fn report(
    LoadedConfig {
        config,
        identities,
        submitter,
        ..
    }: &LoadedConfig,
) -> String {
    let sections = [
        format!(
            "Relay {}\n  postmaster {}\n  spool {}\n  evidence {}\n",
            config.hostname,
            config.postmaster,
            config.spool.value.display(),
            evidence(&config.evidence)
        ),
        section("Listeners", &listeners(&config.listeners)),
        format!(
            "Relay rules\n  clients in {} may send to any domain\n  any client may send to {}\n",
            listed(&config.relay.networks, "no network"),
            listed(&config.relay.domains, "no domain")
        ),
        section(
            "Connectors (for each domain the most specific pattern wins)",
            &connectors(config),
        ),
        tls_reports(config.tlsrpt.send.value, submitter),
        section("Our certificates", &certificates(identities)),
    ];
    sections.join("\n")
}

fn evidence(evidence: &config::EvidenceConfig) -> String {
    match &evidence.path.value {
        EvidencePath::Off => "off".to_owned(),
        EvidencePath::Folder(folder) => {
            format!(
                "{}, kept for {}",
                folder.display(),
                config::write_duration(evidence.keep)
            )
        }
    }
}

fn tls_reports(send: SendReports, submitter: &Submitter) -> String {
    let Submitter {
        organization,
        contact,
        signer,
        ..
    } = submitter;
    let signed = match signer {
        Some(signer) => format!(
            "signed; publish the key as\n  {} TXT \"{}\"",
            signer.record_name(),
            signer.record()
        ),
        None => "not signed".to_owned(),
    };
    match send {
        SendReports::Off => "TLS reports are not sent\n".to_owned(),
        SendReports::Daily => {
            format!("TLS reports are sent by {organization}, {contact}; by mail: {signed}\n")
        }
    }
}

fn section(title: &str, table: &Table) -> String {
    format!("{title}\n{table}\n")
}

/// Returns an empty table with a frame.
fn framed_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL)
        .set_header(header.to_vec());
    table
}

/// Returns the items with commas between them, or `none`.
fn listed<T: Display>(items: &[T], none: &str) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns the items one a line, for a cell of a table.
fn stacked<T: Display>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

fn listeners(listeners: &[ListenerConfig]) -> Table {
    let behind_balancers = listeners
        .iter()
        .any(|listener| !listener.proxy_protocol.is_empty());
    let mut headings = vec!["name", "address", "TLS", "client certificate"];
    headings.extend(behind_balancers.then_some("PROXY header from"));
    let behind_proxies = listeners
        .iter()
        .any(|listener| !listener.xclient.is_empty());
    headings.extend(behind_proxies.then_some("XCLIENT from"));
    let mut table = framed_table(&headings);
    for listener in listeners {
        let addresses: Vec<_> = listener
            .addresses
            .iter()
            .map(|address| &address.value)
            .collect();
        let tls = match listener.tls {
            ListenerTls::Off => "off",
            ListenerTls::Opportunistic => "opportunistic",
            ListenerTls::Forced => "forced",
            ListenerTls::Implicit => "implicit, from the first byte",
        };
        let certificate = match (listener.tls, listener.request_client_certificate) {
            (ListenerTls::Off, _) => "-",
            (_, true) => "requested",
            (_, false) => "not requested",
        };
        let mut row = vec![
            listener.name.clone(),
            stacked(&addresses),
            tls.to_owned(),
            certificate.to_owned(),
        ];
        let proxies = |networks: &[ipnet::IpNet]| {
            if networks.is_empty() {
                "-".to_owned()
            } else {
                stacked(networks)
            }
        };
        row.extend(behind_balancers.then(|| proxies(&listener.proxy_protocol)));
        row.extend(behind_proxies.then(|| proxies(&listener.xclient)));
        table.add_row(row);
    }
    table
}

fn connectors(config: &Config) -> Table {
    let mut table = framed_table(&["name", "domains", "we send to them", "they send to us"]);
    let default = config::default_connector(&config.tls.trust);
    let covers_all =
        |connector: &Connector| connector.domains.contains(&config::DomainPattern::Any);
    let built_in = if config
        .connectors
        .iter()
        .any(|connector| covers_all(connector))
    {
        None
    } else {
        Some(&default)
    };
    for connector in config.connectors.iter().chain(built_in) {
        let name = if built_in.is_some_and(|built_in| built_in.name == connector.name) {
            format!("{} (built in)", connector.name)
        } else {
            connector.name.clone()
        };
        table.add_row([
            name,
            stacked(&connector.domains),
            outbound(connector),
            inbound(connector, &connector.inbound),
        ]);
    }
    table
}

fn outbound(connector: &Connector) -> String {
    let outbound = &connector.outbound;
    let route = match &outbound.route {
        Route::Mx { port: 25 } => "by MX".to_owned(),
        Route::Mx { port } => format!("by MX, port {port}"),
        Route::SmartHosts(hosts) => {
            format!(
                "by {}",
                hosts
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", then ")
            )
        }
    };
    let mut lines = vec![route];
    let default_name = match &outbound.route {
        Route::Mx { .. } => "the recipient domain or *. of it",
        Route::SmartHosts(_) => "the smart host's own name",
    };
    lines.extend(demand(connector, outbound.tls, default_name));
    match (outbound.groups, outbound.min_strength) {
        (_, Strength::PostQuantum) => lines.push("post-quantum key exchange required".to_owned()),
        (Strength::Classical, Strength::Classical) => {
            lines.push("classical key exchange only".to_owned())
        }
        (Strength::PostQuantum, Strength::Classical) => {}
    }
    lines.extend(other_layers(outbound, Timestamp::now()));
    if let Some(files) = &outbound.client_identity {
        lines.push(format!("we show {}", files.certificate.value.display()));
    }
    if matches!(outbound.tls, TlsDemand::Forced { .. }) {
        lines.push(match outbound.on_failure {
            OnFailure::Defer => "if not met: defer and retry".to_owned(),
            OnFailure::Hold => "if not met: hold until an operator decides".to_owned(),
            OnFailure::Bounce => "if not met: bounce at once".to_owned(),
        });
    }
    let (connections, messages) = (outbound.connections, outbound.messages_per_connection);
    lines.push(format!(
        "{connections} connections, {messages} messages each"
    ));
    lines.join("\n")
}

fn inbound(connector: &Connector, inbound: &InboundConfig) -> String {
    // The configuration requires `names` for an inbound `verify = "name"`: the default name is
    // never used.
    let mut lines = demand(connector, inbound.tls, "no name");
    if !inbound.networks.is_empty() {
        lines.push(format!(
            "only from {}",
            listed(&inbound.networks, "no network")
        ));
    }
    if inbound.relay {
        lines.push("may relay to any domain".to_owned());
    }
    lines.join("\n")
}

/// Returns the connector's demand in one direction, a line for each part. `default_name` describes
/// the names that count if the connector has no `names`.
fn demand(connector: &Connector, demand: TlsDemand, default_name: &str) -> Vec<String> {
    let (min_version, verify) = match demand {
        TlsDemand::Off => return vec!["TLS off".to_owned()],
        TlsDemand::Opportunistic => return vec!["TLS opportunistic".to_owned()],
        TlsDemand::Forced {
            min_version,
            verify,
        } => (min_version, verify),
    };
    let mut lines = vec![match min_version {
        TlsVersion::V1_2 => "TLS forced".to_owned(),
        TlsVersion::V1_3 => "TLS forced, 1.3".to_owned(),
    }];
    match verify {
        VerifyWanted::None => lines.push("any certificate".to_owned()),
        VerifyWanted::Chain => lines.push(format!(
            "certificate trusted by {}",
            trust(&connector.trust.value)
        )),
        VerifyWanted::Name => {
            let names = connector
                .names
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" or ");
            lines.push(format!(
                "certificate for {}",
                if names.is_empty() {
                    default_name
                } else {
                    &names
                }
            ));
            lines.push(format!("trusted by {}", trust(&connector.trust.value)));
        }
        VerifyWanted::Dane => {
            lines.push("certificate that matches the TLSA records (DANE)".to_owned())
        }
        VerifyWanted::Pin => lines.extend(connector.pins.iter().map(|pin| format!("key {pin}"))),
    }
    lines
}

/// Returns the other layers that change the connector's demand: published policies, downgrade
/// memory and exception.
fn other_layers(outbound: &OutboundConfig, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    let published: Vec<_> = outbound
        .discover
        .iter()
        .map(|publication| match publication {
            Publication::Dane => "DANE",
            Publication::MtaSts => "MTA-STS",
        })
        .collect();
    match (published.is_empty(), outbound.tls) {
        (true, TlsDemand::Off) => {}
        (true, TlsDemand::Opportunistic | TlsDemand::Forced { .. }) => {
            lines.push("DANE and MTA-STS are not looked up".to_owned());
        }
        (false, _) => lines.push(format!("raised by {}", published.join(" and "))),
    }
    match outbound.downgrade {
        OnDowngrade::Warn => {}
        OnDowngrade::Allow => lines.push("no warning of a downgrade".to_owned()),
        OnDowngrade::Refuse => lines.push("forced once they have used TLS".to_owned()),
    }
    if let Some(TlsException {
        tls,
        until,
        reason,
        location: _,
    }) = &outbound.exception
    {
        let level = match tls {
            TlsDemand::Off => "off",
            TlsDemand::Opportunistic => "opportunistic",
            TlsDemand::Forced { .. } => "forced, any certificate",
        };
        lines.push(if now.to_zoned_datetime(TimeZone::UTC).date() <= *until {
            format!("EXCEPTION: TLS {level} until {until} ({reason})")
        } else {
            format!("the exception ended on {until} ({reason})")
        });
    }
    lines
}

fn trust(trust: &TrustSource) -> String {
    match trust {
        TrustSource::Webpki => "webpki (Mozilla's roots)".to_owned(),
        TrustSource::System => "the system's roots".to_owned(),
        TrustSource::File(file) => file.display().to_string(),
    }
}

fn certificates(identities: &[IdentitySummary]) -> Table {
    let mut table = framed_table(&["file", "names", "expires"]);
    for identity in identities {
        table.add_row([
            identity.file.display().to_string(),
            stacked(&identity.names),
            expiry(identity.not_after),
        ]);
    }
    table
}

fn expiry(not_after: Timestamp) -> String {
    let days = not_after.duration_since(Timestamp::now()).as_hours() / 24;
    let date = not_after.to_zoned_datetime(TimeZone::UTC).date();
    match days {
        ..0 => format!("{date}, {} days ago", -days),
        0.. => format!("{date}, in {days} days"),
    }
}
