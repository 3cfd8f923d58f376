//! `gatepost connector`: new connectors, from what a partner's hosts show.
//!
//! Exit status: 0; 1 if there is no file, since the domain has a connector, the file exists, or the
//! hosts show nothing that a connector could demand; 2 for unusable arguments or an unusable
//! configuration.

mod file_place;
mod file_text;
mod proposal;
mod survey;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::config_file::ConfigFile;
use super::explain::explained;
use super::format::{INDENT, plain, width, wrap};
use super::output::{show, show_faults, show_warnings};
use super::probe::{DomainProbe, ProbeContext, brief, probe_domain};
use super::runtime;
use crate::config::{
    self, Config, DomainPattern, Fault, KeyLocations, Route, SourceFile, parse_files,
};
use crate::smtp::address::{Domain, Host};
use file_place::{FilePlace, FilePlaceError, write_new};
use file_text::NewConnector;
use proposal::{NoProposal, Proposal};
use survey::survey;

/// Write a connector for a partner from what its hosts show
#[derive(Debug, Args)]
pub(super) struct ConnectorArguments {
    #[command(subcommand)]
    command: ConnectorCommand,
}

#[derive(Debug, Subcommand)]
enum ConnectorCommand {
    Add(AddConnectorArguments),
}

/// Probe a domain, and write a commented file with a connector that forces TLS with its hosts
///
/// The hosts are dialled as `gatepost probe` does; no mail is sent. The connector demands what they
/// showed: DANE where all of them have it, the names of trusted certificates, or else the keys, with
/// a caution. Before anything is written, the connector is read together with the present
/// configuration, the hosts are dialled once more and judged by it, and its explanation is shown.
/// The file goes to the first folder of include that reads files such as DOMAIN.toml. It is never
/// overwritten, and has the permissions of its neighbours. Then run `gatepost check` and `gatepost
/// reload`.
#[derive(Debug, Args)]
struct AddConnectorArguments {
    /// The partner's mail domain
    #[arg(value_name = "DOMAIN", value_parser = mail_domain)]
    domain: Domain,
    /// The name of the connector; without this option, the domain
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A smart host for the domain, in the form of route, in place of its MX records; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    route: Vec<String>,
    /// Dial the MX hosts, even if mail for the domain goes to a smart host now
    #[arg(long, conflicts_with = "route")]
    mx: bool,
    /// Print the file, and write none
    #[arg(long, conflicts_with = "output")]
    stdout: bool,
    /// Write this file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
}

/// Parses the domain of a partner, alone or after the "@" of an address.
fn mail_domain(text: &str) -> Result<Domain, String> {
    match super::probe::host(text.strip_suffix('.').unwrap_or(text))? {
        Host::Domain(domain) => Ok(domain),
        literal @ Host::Literal(_) => Err(format!(
            "{literal} is an address, and connectors are for domains"
        )),
    }
}

/// The reason why no connector is written.
#[derive(Debug, thiserror::Error)]
enum AddError {
    /// A file has faults.
    #[error("{} faults", .1.len())]
    Faults(PathBuf, Vec<Fault>),
    /// The faults have been printed.
    #[error("the configuration is unusable")]
    Reported(ExitCode),
    /// A connector has the domain.
    #[error(
        "{place}connector \"{name}\" has {domain} already, by its pattern \"{pattern}\".\nChange it there; `gatepost check --connector` shows it."
    )]
    HasConnector {
        /// The file and the line, with a colon.
        place: String,
        name: String,
        domain: Domain,
        pattern: DomainPattern,
    },
    /// Mail for the domain goes to a smart host.
    #[error(
        "mail for {domain} goes to the smart hosts of connector \"{name}\" now, which would show their own certificates.\nUse --mx to dial the partner's MX hosts, or --route to name smart hosts."
    )]
    SmartHost { domain: Domain, name: String },
    #[error(transparent)]
    Place(#[from] FilePlaceError),
    #[error(
        "{domain} has no hosts for mail: {why}.\nCheck the name; `gatepost probe {domain}` shows more."
    )]
    NoHosts { domain: Domain, why: String },
    #[error(transparent)]
    NoProposal(#[from] NoProposal),
    /// The hosts do not meet the connector that was made for them.
    #[error(
        "the hosts of {domain} do not meet the connector that follows from them: {why}.\nNo file is written; `gatepost probe {domain}` shows each host."
    )]
    Unmet { domain: Domain, why: String },
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
}

pub(super) fn run(arguments: &ConnectorArguments) -> ExitCode {
    let ConnectorCommand::Add(arguments) = &arguments.command;
    let error = match add(arguments) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    match &error {
        AddError::Reported(status) => return *status,
        AddError::Faults(file, faults) => {
            show_faults(file, faults);
            return ExitCode::from(2);
        }
        _ => {}
    }
    eprintln!("gatepost connector add: {error}");
    match &error {
        AddError::Place(error) => ExitCode::from(error.exit_status()),
        AddError::SmartHost { .. } => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}

fn add(arguments: &AddConnectorArguments) -> Result<(), AddError> {
    let file = &arguments.file.config;
    let faults = |faults| AddError::Faults(file.clone(), faults);
    let (config, _) = config::read(file).map_err(faults)?;
    let domain = &arguments.domain;
    let (connector, other) = new_connector(arguments, &config)?;
    let destination = if arguments.stdout {
        FilePlace::Stdout
    } else {
        FilePlace::find(&config.source, domain.as_str(), arguments.output.as_deref())?
    };
    let path = destination.path(&config.source, domain.as_str());
    let runtime = runtime::multi_threaded()?;
    let written = runtime.block_on(async {
        let (bare, _) = with_file(&config, &path, &connector.without_demand())?;
        let probe = probe_under(bare, domain).await?;
        let hosts = survey(&probe.probe).map_err(|failure| AddError::NoHosts {
            domain: domain.clone(),
            why: plain(&failure.to_string()),
        })?;
        let proposal = Proposal::new(domain.as_str(), &hosts)?;
        let today = Timestamp::now().to_zoned_datetime(TimeZone::UTC).date();
        let text = connector.text(&proposal, &hosts, other.as_deref(), today);
        let (config, warnings) = with_file(&config, &path, &text)?;
        let explanation = explained(&config, &Host::Domain(domain.clone()), width()).await;
        let explanation = explanation.map_err(|faults| AddError::Faults(path.clone(), faults))?;
        let judged = probe_under(config, domain).await?;
        if judged.fails() {
            let (_, why) = brief(&judged.probe.prospect);
            let domain = domain.clone();
            return Err(AddError::Unmet { domain, why });
        }
        Ok(Written {
            text,
            explanation,
            warnings: warnings
                .into_iter()
                .filter(|warning| *warning.location.file == *path)
                .collect(),
            is_pinned: matches!(proposal, Proposal::Pins(_)),
        })
    });
    // The program must not wait for lookups that are still running.
    runtime.shutdown_background();
    finish(&written?, &destination, &config)
}

/// A connector that is ready to be written.
struct Written {
    text: String,
    explanation: String,
    /// The warnings about the new file.
    warnings: Vec<Fault>,
    is_pinned: bool,
}

/// Returns the new connector, and the name of the configured one that has the domain's mail now.
fn new_connector(
    arguments: &AddConnectorArguments,
    config: &Config,
) -> Result<(NewConnector, Option<String>), AddError> {
    let domain = &arguments.domain;
    let connectors = config.connectors();
    let present = connectors.matches_for(&Host::Domain(domain.clone())).winner;
    let name = &present.connector.name;
    if present.pattern != DomainPattern::Any {
        let locations = KeyLocations::of(&config.source);
        let place = locations.get(&format!("[[connector]] {name}"), "domains");
        return Err(AddError::HasConnector {
            place: place.map(|place| format!("{place}: ")).unwrap_or_default(),
            name: name.clone(),
            domain: domain.clone(),
            pattern: present.pattern,
        });
    }
    let port = match &present.connector.outbound.route {
        Route::Mx { port } => *port,
        Route::SmartHosts(_) if arguments.mx || !arguments.route.is_empty() => 25,
        Route::SmartHosts(_) => {
            return Err(AddError::SmartHost {
                domain: domain.clone(),
                name: name.clone(),
            });
        }
    };
    let connector = NewConnector {
        name: arguments.name.clone().unwrap_or_else(|| domain.to_string()),
        domain: domain.to_string(),
        route: arguments.route.clone(),
        port,
    };
    let is_configured = !present.connector.is_built_in();
    Ok((connector, is_configured.then(|| name.clone())))
}

/// Returns the configuration with one more file, and its warnings.
fn with_file(config: &Config, path: &Path, text: &str) -> Result<(Config, Vec<Fault>), AddError> {
    let source = &config.source;
    let main = SourceFile::new(&source.text, &source.file);
    let mut included = source.included.clone();
    included.push(SourceFile::new(text, path));
    parse_files(&main, included).map_err(|faults| AddError::Faults(path.to_owned(), faults))
}

/// Probes the domain under a configuration.
async fn probe_under(config: Config, domain: &Domain) -> Result<DomainProbe, AddError> {
    let context = ProbeContext::new(&Arc::new(config)).map_err(AddError::Reported)?;
    let recipient = Host::Domain(domain.clone());
    let connector = Arc::clone(context.snapshot.connectors.for_host(&recipient));
    Ok(probe_domain(&context, recipient, connector).await)
}

/// Prints or writes the file, and says what comes next.
fn finish(written: &Written, destination: &FilePlace, config: &Config) -> Result<(), AddError> {
    show_warnings(&written.warnings);
    let FilePlace::File { path, is_included } = destination else {
        eprint!("{}", written.explanation);
        show(&written.text);
        return Ok(());
    };
    write_new(path, &written.text, &config.source)?;
    let width = width();
    let mut text = written.explanation.clone();
    text.push('\n');
    let mut line = |line: &str| wrap(&mut text, "", INDENT, line, width);
    line(&format!("{} is written.", path.display()));
    if written.is_pinned {
        line(
            "CAUTION: the keys in it were seen once. Compare them with the partner before you rely on them.",
        );
    }
    if !is_included {
        line(&format!(
            "{} does not include it: add \"{}\" to the list `include` at its top.",
            config.source.file.display(),
            path.display()
        ));
    }
    line("Next: read it, then run `gatepost check` and `gatepost reload`.");
    show(&text);
    Ok(())
}
