//! The asynchronous runtimes of the commands.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

use super::admin_client::{AdminClient, SocketError};

/// The system does not give the threads or file descriptors that a runtime needs.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the asynchronous runtime: {0}")]
pub(super) struct RuntimeError(#[from] io::Error);

/// Starts a runtime on the calling thread alone.
pub(super) fn single_threaded() -> Result<Runtime, RuntimeError> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Starts a runtime with one thread for each core.
pub(super) fn multi_threaded() -> Result<Runtime, RuntimeError> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

/// An error that ends a command, with its exit status.
pub(super) trait DaemonCommandError: Display {
    /// The exit status; 1 unless the error has another.
    fn exit_status(&self) -> u8 {
        1
    }
}

impl DaemonCommandError for SocketError {}

/// Runs a command that asks the daemon of a configuration file, prints its error to standard error,
/// and returns the exit status.
pub(super) fn run_with_daemon<E: DaemonCommandError>(
    name: &str,
    config: &Path,
    command: impl AsyncFnOnce(AdminClient) -> Result<ExitCode, E>,
) -> ExitCode {
    let client = match AdminClient::for_config(config, name) {
        Ok(client) => client,
        Err(status) => return status,
    };
    let runtime = match single_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatepost {name}: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(command(client)).unwrap_or_else(|error| {
        eprintln!("gatepost {name}: {error}");
        ExitCode::from(error.exit_status())
    })
}
