//! Descriptions of the demand and of the TLS of a session, for observers that write text.

use jiff::Timestamp;

use crate::policy::connector::describe_demand;
use crate::policy::tls::{Clearance, TlsOutcome};

use super::event::RecipientEvent;

/// Describes the demand on the hop where the outcome was decided.
pub(super) fn demand(event: &RecipientEvent<'_>) -> String {
    let policy = event.result.and_then(|result| result.policy.as_deref());
    describe_demand(event.connector, policy, Timestamp::now())
}

/// Describes the TLS of a session: version, cipher suite and authentication, or the reason for
/// none.
pub(super) fn reached(clearance: &Clearance) -> String {
    match clearance.outcome() {
        TlsOutcome::Clear(reason) => format!("none: {reason}"),
        TlsOutcome::Tls(facts) => format!(
            "{} {} {}",
            facts.version,
            facts.cipher,
            clearance.authentication()
        ),
    }
}
