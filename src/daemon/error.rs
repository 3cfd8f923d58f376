//! The reasons why the daemon does not start, or ends by itself.

use crate::config::Fault;
use crate::discovery::history::HistoryError;
use crate::discovery::mta_sts::PolicyStoreError;
use crate::relay::tlsrpt::CountStoreError;
use crate::storage::evidence::EvidenceError;
use crate::storage::postgresql::DatabaseError;
use crate::storage::spool::SpoolError;

/// The reasons why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration names files or values that cannot be used. All of them are listed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<Fault>),
    /// The system is not ready, which may be different at the next start: an address is in use, the
    /// admin socket cannot be made, or there is no resolver.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    NotReady(Vec<Fault>),
    /// The spool cannot be opened.
    #[error("{location}: the spool cannot be opened: {error}")]
    Spool {
        /// The location of its path in the configuration.
        location: crate::config::Location,
        /// The reason.
        error: Box<SpoolError>,
    },
    /// The database with the queue cannot be reached, or is not fit for it.
    #[error("{location}: {error}")]
    Database {
        /// The location of its URL in the configuration.
        location: crate::config::Location,
        /// The reason.
        error: Box<DatabaseError>,
    },
    /// The evidence cannot be opened.
    #[error("{location}: {error}")]
    Evidence {
        /// The location of its folder in the configuration.
        location: crate::config::Location,
        /// The reason.
        error: Box<EvidenceError>,
    },
    /// The cache of MTA-STS policies is of another version or program.
    #[error("{location}: the MTA-STS policies cannot be opened: {error}")]
    Policies {
        /// The location of its folder in the configuration, which is that of the spool.
        location: crate::config::Location,
        /// The reason.
        error: Box<PolicyStoreError>,
    },
    /// The counts for TLS reports are of another version or program.
    #[error(
        "{location}: cannot open the counts for TLS reports: {error}; or write [tlsrpt] send = false"
    )]
    TlsReports {
        /// The location of the key that asks for reports.
        location: crate::config::Location,
        /// The reason.
        error: Box<CountStoreError>,
    },
    /// The downgrade memory can be neither opened nor quarantined.
    #[error("{location}: cannot open the downgrade memory: {error}")]
    History {
        /// The location of its folder in the configuration, which is that of the spool.
        location: crate::config::Location,
        /// The reason.
        error: Box<HistoryError>,
    },
}

/// The reasons why the daemon ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The spool's writer has ended, so nothing more can be accepted or recorded.
    #[error("the spool can no longer be written; the reason is in the log above")]
    SpoolClosed,
    /// The evidence writer has ended, so no delivery can be completed.
    #[error("the evidence can no longer be written; the reason is in the log above")]
    EvidenceClosed,
    /// The spool could not be read at the start.
    #[error("the spool could not be read: {0}")]
    Spool(SpoolError),
    /// A service panicked or ended.
    #[error("a part of the daemon died: {0}")]
    Died(String),
}
