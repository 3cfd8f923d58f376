//! `gatepost demo`: plays the scenarios of opportunistic and forced TLS.

use std::process::ExitCode;

/// Exit status 0 only where every outcome is what its policy promises.
#[must_use]
pub(super) fn run(keep: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatepost demo: the system gives us no threads: {error}");
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
