//! The errors of `sendmail`, with the exit statuses that its callers expect (sysexits.h).

/// An exit status of sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Sysexit {
    /// `EX_USAGE`: the arguments are unusable.
    Usage = 64,
    /// `EX_DATAERR`: the message is unusable.
    Data = 65,
    /// `EX_NOUSER`: a recipient is rejected.
    NoUser = 67,
    /// `EX_UNAVAILABLE`: the message is rejected.
    Unavailable = 69,
    /// `EX_OSERR`: the system reports an error.
    System = 71,
    /// `EX_IOERR`: the message cannot be read.
    Io = 74,
    /// `EX_TEMPFAIL`: the caller should try again later.
    TemporaryFailure = 75,
    /// `EX_CONFIG`: the configuration is unusable.
    Config = 78,
}

/// The error of a `sendmail` call. The message was not accepted for any recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct SendmailError {
    pub(super) status: Sysexit,
    message: String,
}

impl SendmailError {
    pub(super) fn new(status: Sysexit, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}
