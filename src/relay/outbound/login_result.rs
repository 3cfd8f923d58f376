//! The results of our logins at smart hosts, as logs, metrics and evidence record them.

use std::fmt;
use std::sync::Arc;

use crate::policy::failure::{Cause, Failure, LoginProblem};

/// A login that succeeded, as logs and evidence record it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLogin {
    /// The user.
    pub user: Arc<str>,
    /// The mechanism.
    pub mechanism: &'static str,
}

/// A login of ours at a smart host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAttempt {
    /// The user.
    pub user: Arc<str>,
    /// The mechanism; `None` if none was tried.
    pub mechanism: Option<&'static str>,
    /// The result.
    pub verdict: LoginVerdict,
}

/// The result of a login of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginVerdict {
    /// We were logged in.
    Accepted,
    /// The host rejected the login.
    Rejected,
    /// The exchange broke off.
    Failed,
    /// No login was tried: the session does not prove who the host is, or there is no mechanism.
    Impossible,
}

impl LoginVerdict {
    pub(super) fn of(result: &Result<(), Failure>) -> Self {
        let problem = match result.as_ref().map_err(|failure| &failure.cause) {
            Ok(()) => return Self::Accepted,
            Err(Cause::Login(problem)) => &**problem,
            Err(_) => return Self::Failed,
        };
        match problem {
            LoginProblem::Rejected { .. } => Self::Rejected,
            LoginProblem::Cancelled { .. } => Self::Failed,
            LoginProblem::Unproven
            | LoginProblem::NoSecret
            | LoginProblem::NoToken(_)
            | LoginProblem::NotOffered
            | LoginProblem::NoMechanism { .. } => Self::Impossible,
        }
    }

    /// Returns the word for it, as in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Impossible => "impossible",
        }
    }
}

/// Writes `as relay@example.com by SCRAM-SHA-256: accepted`.
impl fmt::Display for LoginAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "as {}", self.user)?;
        if let Some(mechanism) = self.mechanism {
            write!(f, " by {mechanism}")?;
        }
        write!(f, ": {}", self.verdict.as_str())
    }
}

impl LoginAttempt {
    /// Returns the login, if it succeeded.
    pub(super) fn session_login(&self) -> Option<SessionLogin> {
        match (self.verdict, self.mechanism) {
            (LoginVerdict::Accepted, Some(mechanism)) => Some(SessionLogin {
                user: Arc::clone(&self.user),
                mechanism,
            }),
            _ => None,
        }
    }
}
