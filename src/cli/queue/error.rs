//! The error of a queue command.

use crate::cli::admin_client::SocketError;
use crate::cli::runtime::DaemonCommandError;

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueueError {
    /// The arguments are unusable (exit status 2).
    #[error("{0}")]
    Usage(String),
    /// The daemon cannot be asked.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The command was not carried out.
    #[error("{0}")]
    Failed(String),
}

impl DaemonCommandError for QueueError {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Socket(_) | Self::Failed(_) => 1,
        }
    }
}
