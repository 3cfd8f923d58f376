//! `gatepost check`: reads the configuration and every file that it names, and shows the result
//! with all defaults.
//!
//! It binds no address and does not open the spool. It sends no DNS query, except to find the database
//! of `[spool] url`, which it asks for the durability of commits. With `--connector` it shows
//! one connector, with the place that each value comes from. With `--against` it shows the
//! differences from another configuration instead; with `--reload` it also rejects changes that
//! need a restart.

mod against;
mod connector;
mod document;
mod effective;
mod layout;
mod load;
mod reload;
mod report;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::config_file::ConfigFile;
use super::format::width;
use super::output::{show, show_faults, show_warnings};
use super::{connector_name, json};
use crate::config::KeyLocations;
use against::OldConfig;
use document::{CheckDocument, OneConnectorDocument};
use effective::EffectiveConnector;
use load::{LoadedConfig, load};

/// Check the configuration and the files that it names, and show what it means
///
/// Prints listeners, relay rules, connectors, queue, limits, timeouts, DNS and certificates with
/// every default filled in. If there are errors, prints each of them with its line and remedy; the
/// exit status is 1 then.
///
/// With --connector, prints one connector: each effective value in both directions with the line
/// that it comes from, the demand in words, the exception with its end, and what applies to each of
/// its domains. The exit status is 2 if there is no connector of that name.
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
    /// Show one connector: every value with the line that it comes from
    #[arg(long, value_name = "NAME", conflicts_with = "against")]
    connector: Option<String>,
    /// Compare with the running daemon's configuration and queue, or with another FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    #[allow(
        clippy::option_option,
        reason = "clap's type for an option that may be given without a value"
    )]
    against: Option<Option<PathBuf>>,
    /// The running daemon's admin socket, if the file names another
    #[arg(long, value_name = "PATH", requires = "against")]
    socket: Option<PathBuf>,
    /// Print one JSON document, errors and warnings included
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &CheckArguments) -> ExitCode {
    match (&arguments.against, &arguments.socket) {
        (None, _) => check(arguments),
        (Some(Some(old)), None) => compare(arguments, &OldConfig::File(old)),
        (Some(Some(_)), Some(_)) => {
            eprintln!(
                "gatepost check: --socket compares with the running daemon, --against FILE with a file: give one of them"
            );
            ExitCode::from(2)
        }
        (Some(None), socket) => compare(arguments, &OldConfig::Running(socket.as_deref())),
    }
}

/// Compares the file with another configuration and prints the differences.
fn compare(arguments: &CheckArguments, old: &OldConfig<'_>) -> ExitCode {
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
                against::text(&comparison, width())
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
fn check(arguments: &CheckArguments) -> ExitCode {
    let file = &arguments.file.config;
    // The paths of the running configuration, with which this one is compared, are absolute.
    let absolute = if arguments.reload {
        std::path::absolute(file).ok()
    } else {
        None
    };
    let loaded = load(absolute.as_deref().unwrap_or(file)).and_then(|loaded| {
        let faults = if arguments.reload {
            reload::faults(&loaded.config)
        } else {
            Vec::new()
        };
        if !faults.is_empty() {
            Err(faults)
        } else if arguments.connector.is_some() {
            Ok(loaded)
        } else {
            loaded.ask_database()
        }
    });
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(faults) => {
            if arguments.json {
                show(&json::indented(&CheckDocument::of_errors(file, &faults)));
            } else {
                show_faults(file, &faults);
            }
            return ExitCode::FAILURE;
        }
    };
    if let Some(name) = &arguments.connector {
        return show_connector(file, &loaded, name, arguments.json);
    }
    let now = Timestamp::now();
    if arguments.json {
        show(&json::indented(&CheckDocument::of(file, &loaded, now)));
        return ExitCode::SUCCESS;
    }
    show(&report::text(&loaded, now, width()));
    show_warnings(&loaded.warnings);
    show(&format!("\n{}: OK\n", file.display()));
    ExitCode::SUCCESS
}

/// Prints one connector of a configuration without errors.
fn show_connector(file: &Path, loaded: &LoadedConfig, name: &str, as_json: bool) -> ExitCode {
    let LoadedConfig {
        config, warnings, ..
    } = loaded;
    let connector = match connector_name::find(config, name) {
        Ok(connector) => connector,
        Err(error) => {
            eprintln!("gatepost check: {error}");
            return ExitCode::from(2);
        }
    };
    let now = Timestamp::now();
    let effective =
        EffectiveConnector::new(config, &KeyLocations::of(&config.source), &connector, now);
    if as_json {
        show(&json::indented(&OneConnectorDocument::of(
            file, warnings, effective, now,
        )));
    } else {
        show(&connector::text(config, &effective, now, width()));
        show_warnings(warnings);
    }
    ExitCode::SUCCESS
}
