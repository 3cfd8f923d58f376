//! Converts failures of attempts into the form that is stored with the recipient.

use std::sync::Arc;

use jiff::Timestamp;

use crate::config::Connector;
use crate::policy::failure::for_sender::explain_to_sender;
use crate::policy::failure::{FailedHost, Failure, Persistence, Scope};
use crate::smtp::address::{Domain, Host};
use crate::smtp::envelope::AttemptFailure;
use crate::smtp::reply::Status;

/// The most characters of a stored reason.
const REASON_MAX: usize = 2000;

/// Returns the stored form of a failure. Its text has the reasons of every hop that was tried, its
/// own first. `recipient` is the domain that it concerns; `None` for several domains. `relay` is
/// our host name.
pub(super) fn attempt_failure(
    failure: &Failure,
    trail: &[Arc<Failure>],
    ends_as: Persistence,
    connector: &Connector,
    recipient: Option<&Host>,
    relay: &Domain,
) -> AttemptFailure {
    let mut text = failure.to_string();
    for earlier in trail
        .iter()
        .filter(|earlier| (&earlier.peer, &earlier.cause) != (&failure.peer, &failure.cause))
    {
        if text.len() >= REASON_MAX {
            break;
        }
        text.push_str("; ");
        text.push_str(&earlier.to_string());
    }
    let now = Timestamp::now();
    AttemptFailure {
        at: now,
        status: failure.enhanced(ends_as),
        text: text.chars().take(REASON_MAX).collect(),
        explanation: explain_to_sender(failure, recipient, connector, relay, now),
        host: failure.peer.as_ref().map(FailedHost::host_name),
        reply: failure.peer_reply().cloned(),
    }
}

/// Returns true when a host that rejected a message for good may accept it in another form: it
/// rejected the message itself, or a recipient because of the message's content or size.
pub(super) fn is_of_content(failure: &Failure) -> bool {
    const MESSAGE_TOO_LARGE: Status = Status(3, 4);
    failure.scope == Scope::Message || failure.status.0 == 6 || failure.status == MESSAGE_TOO_LARGE
}
