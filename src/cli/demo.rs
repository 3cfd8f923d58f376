//! `gatepost demo`: plays the scenarios of opportunistic and forced TLS.

use std::process::ExitCode;

use super::runtime;

/// Plays the scenarios. The exit status is 0 if every outcome is what its policy promises.
#[must_use]
pub(super) fn run(keep: bool) -> ExitCode {
    let runtime = match runtime::multi_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatepost demo: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(crate::demo::play(keep)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gatepost demo: {error}");
            ExitCode::FAILURE
        }
    }
}
