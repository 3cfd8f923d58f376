//! Why a message was not taken, with the exit status that callers of sendmail expect (sysexits.h).

/// An exit status of sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Sysexit {
    /// `EX_USAGE`: the arguments.
    Usage = 64,
    /// `EX_DATAERR`: the message.
    Data = 65,
    /// `EX_NOUSER`: a recipient.
    NoUser = 67,
    /// `EX_UNAVAILABLE`: it was refused for good.
    Unavailable = 69,
    /// `EX_OSERR`: the system.
    System = 71,
    /// `EX_IOERR`: the message could not be read.
    Io = 74,
    /// `EX_TEMPFAIL`: the same again later may do.
    TemporaryFailure = 75,
    /// `EX_CONFIG`: the configuration.
    Config = 78,
}

/// A message that was not taken: nobody will get it, and whoever wanted to send it is to know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Unsent {
    pub(super) status: Sysexit,
    message: String,
}

impl Unsent {
    pub(super) fn new(status: Sysexit, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}
