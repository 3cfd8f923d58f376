//! `gatepost reload`: has the running daemon read its configuration again, and shows what came of it.
//!
//! Exit status: 0; 1 if the daemon keeps its old configuration, or none answers; 2 for unusable
//! arguments or an unusable configuration.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use super::admin_client::{AdminClient, SocketError};
use super::config_file::ConfigFile;
use super::format::plain;
use super::output::show;
use super::runtime::run_with_daemon;
use crate::admin::api::{ConfigFault, ReloadOutcome};

/// Have the running daemon read its configuration again, and show what came of it
///
/// Sessions and deliveries that are under way keep the configuration with which they began. If there
/// is any fault, or a change that needs a restart, the daemon keeps the configuration that it has.
/// SIGHUP and `systemctl reload gatepost` do the same, but only the log says what came of it.
#[derive(Debug, Args)]
pub(super) struct ReloadArguments {
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: &ReloadArguments) -> ExitCode {
    run_with_daemon("reload", &arguments.file.config, reload)
}

async fn reload(daemon: AdminClient) -> Result<ExitCode, SocketError> {
    let outcome: ReloadOutcome = daemon.post("/v1/reload", &()).await?;
    let (text, status) = report(&outcome);
    if status == ExitCode::SUCCESS {
        show(&text);
    } else {
        eprint!("{text}");
    }
    Ok(status)
}

/// Returns what is shown of an outcome, and the exit status.
fn report(outcome: &ReloadOutcome) -> (String, ExitCode) {
    let mut text = String::new();
    let mut list = |kind: &str, faults: &[ConfigFault]| {
        for ConfigFault {
            place,
            message,
            remedy,
        } in faults
        {
            let (place, message, remedy) = (plain(place), plain(message), plain(remedy));
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{place}: {kind}{message}\n    {remedy}");
        }
    };
    list("warning: ", &outcome.warnings);
    list("", &outcome.faults);
    let file = plain(&outcome.file.to_string_lossy());
    if outcome.faults.is_empty() {
        let included = match outcome.included {
            0 => String::new(),
            1 => " and 1 included file".to_owned(),
            many => format!(" and {many} included files"),
        };
        let _ = writeln!(text, "reloaded {file}{included}");
        (text, ExitCode::SUCCESS)
    } else {
        let _ = writeln!(
            text,
            "gatepost reload: {file} is not in use, the daemon keeps the configuration that it has"
        );
        (text, ExitCode::FAILURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(message: &str) -> ConfigFault {
        ConfigFault {
            place: "d/a.toml:4:1".to_owned(),
            message: message.to_owned(),
            remedy: "Do it.".to_owned(),
        }
    }

    #[test]
    fn the_report_names_each_fault_and_what_is_in_use() {
        let outcome = |included, faults, warnings| ReloadOutcome {
            file: "/etc/gatepost.toml".into(),
            included,
            faults,
            warnings,
        };
        for (outcome, text, status) in [
            (
                outcome(0, vec![], vec![]),
                "reloaded /etc/gatepost.toml\n",
                ExitCode::SUCCESS,
            ),
            (
                outcome(2, vec![], vec![fault("odd")]),
                "d/a.toml:4:1: warning: odd\n    Do it.\nreloaded /etc/gatepost.toml and 2 included files\n",
                ExitCode::SUCCESS,
            ),
            (
                outcome(0, vec![fault("bad")], vec![]),
                "d/a.toml:4:1: bad\n    Do it.\ngatepost reload: /etc/gatepost.toml is not in use, the daemon keeps the configuration that it has\n",
                ExitCode::FAILURE,
            ),
        ] {
            assert_eq!(report(&outcome), (text.to_owned(), status));
        }
    }
}
