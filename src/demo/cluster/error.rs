//! The errors of the demo of several relays.

use super::super::error::DemoError;

/// The reason why the demo of several relays could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterDemoError {
    /// The server programs of PostgreSQL are not installed.
    #[error(
        "PostgreSQL's server programs are missing: there is no initdb in /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin or PATH; install them (Debian: apt install postgresql) and run the demo again"
    )]
    NoPrograms,
    /// The demo runs as root, and there is no other user for the server.
    #[error(
        "PostgreSQL does not run as root, and there is no user postgres in /etc/passwd; run the demo as another user, or install Debian's package postgresql, which makes that user"
    )]
    NoUser,
    /// The network, the temporary folder or a process reports an error.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A certificate cannot be created.
    #[error("{0}")]
    Certificates(#[from] DemoError),
    /// A process failed, or was not ready in time.
    #[error("{name} {fault}; the end of its log:\n{log}")]
    Process {
        /// The process.
        name: String,
        /// The failure, as a verb and the rest of the sentence.
        fault: &'static str,
        /// The last lines of its log.
        log: String,
    },
    /// A relay rejected a message.
    #[error("{relay} did not accept a message: {reply}")]
    Rejected {
        /// The relay.
        relay: String,
        /// Its last reply.
        reply: String,
    },
    /// A relay did not list the nodes.
    #[error("cannot list the nodes: {0}")]
    NodeList(String),
    /// Something did not happen within its time limit.
    #[error("{0} within a minute")]
    TooLate(&'static str),
    /// The demo was interrupted.
    #[error("interrupted; everything that was started has been stopped")]
    Interrupted,
}
