//! The errors of the database, by what helps against them.

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

/// The errors of the database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The server cannot be reached, is starting or stopping, or is a standby. It is tried again. If
    /// the connection broke while a statement ran, it is unknown if the statement took effect.
    #[error("cannot reach the database: {0}")]
    Unreachable(String),
    /// The server has no disk space or memory for the change.
    #[error("the database is full: {0}")]
    Full(String),
    /// The database has a newer schema than this version knows.
    #[error(
        "the database has schema version {found}, and this version of Gatepost knows {known}; install the newer Gatepost"
    )]
    Newer {
        /// The version of the database.
        found: i32,
        /// The version of this program.
        known: i32,
    },
    /// The database refuses a statement.
    #[error("the database refuses a statement: {0}")]
    Refused(String),
    /// The server or the database is not fit for a queue.
    #[error("the database is not fit for a queue: {0}")]
    Unfit(String),
    /// The connections cannot be set up.
    #[error("cannot set up the connections to the database: {0}")]
    Setup(String),
}

impl DatabaseError {
    /// Returns whether another try may succeed without a change by an administrator.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Full(_))
    }
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(database) = error.as_db_error() else {
            return Self::Unreachable(reason(&error));
        };
        let (state, text) = (database.code(), database.message().to_owned());
        match state {
            // Class 53: insufficient resources.
            _ if state.code().starts_with("53") && *state != SqlState::TOO_MANY_CONNECTIONS => {
                Self::Full(text)
            }
            // Class 08: connection exceptions. Class 57: the server stops or starts. Class 40: the
            // transaction was rolled back in favour of another.
            _ if ["08", "57", "40"]
                .iter()
                .any(|class| state.code().starts_with(class)) =>
            {
                Self::Unreachable(text)
            }
            // A lock is waited for again, as a server that hangs.
            &SqlState::TOO_MANY_CONNECTIONS
            | &SqlState::READ_ONLY_SQL_TRANSACTION
            | &SqlState::LOCK_NOT_AVAILABLE => Self::Unreachable(text),
            _ => Self::Refused(format!("{text} (SQLSTATE {})", state.code())),
        }
    }
}

/// Returns the reason of an error, with the remedy if one is known.
pub(super) fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(database) = error.as_db_error() {
        let remedy = match *database.code() {
            SqlState::INVALID_PASSWORD => "; see [spool] password_file",
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION => "; see pg_hba.conf and [spool] url",
            _ => "",
        };
        return format!("{}{remedy}", database.message());
    }
    let source = std::error::Error::source(error).map(ToString::to_string);
    match source.as_deref() {
        // The texts of the library.
        Some("password missing") => {
            "the server asks for a password; add [spool] password_file".to_owned()
        }
        Some("server does not support TLS") => {
            "the server has no TLS; set ssl = on in its postgresql.conf".to_owned()
        }
        Some(text) => text.to_owned(),
        None => error.to_string(),
    }
}

impl From<PoolError> for DatabaseError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(_) => {
                Self::Unreachable("no connection is free or can be made in time".to_owned())
            }
            PoolError::Closed => Self::Unreachable("the connections are closed".to_owned()),
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                Self::Setup(error.to_string())
            }
        }
    }
}
