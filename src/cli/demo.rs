//! `gatepost demo`: plays the scenarios of opportunistic and forced TLS, or the death of one of several
//! relays.

use std::fmt::Display;
use std::process::ExitCode;

use clap::Args;

use super::runtime;

/// Play the scenarios of opportunistic and forced TLS with built-in peers, and show each outcome
#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Leave relay and peers running afterwards, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Play the death of one of three relays that share a queue instead
    ///
    /// Starts a PostgreSQL server of its own, as the user postgres if this is root, and three relays.
    /// One of them is killed while it has mail, and the others deliver it. Needs the server programs
    /// of PostgreSQL (Debian: package postgresql).
    #[arg(long, conflicts_with = "keep")]
    cluster: bool,
}

/// Plays. The exit status is 0 if every outcome is what was promised.
#[must_use]
pub(super) fn run(arguments: &DemoArguments) -> ExitCode {
    let runtime = match runtime::multi_threaded() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    if arguments.cluster {
        return status(runtime.block_on(crate::demo::play_cluster()));
    }
    status(runtime.block_on(crate::demo::play(arguments.keep)))
}

fn status<E: Display>(played: Result<bool, E>) -> ExitCode {
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn Display) -> ExitCode {
    eprintln!("gatepost demo: {error}");
    ExitCode::FAILURE
}
