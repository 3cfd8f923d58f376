//! Converts failures of attempts into the form that is stored with the recipient.

use std::sync::Arc;

use jiff::Timestamp;

use crate::policy::failure::{Failure, Persistence, Scope};
use crate::smtp::envelope::AttemptFailure;
use crate::smtp::reply::Status;

/// The most characters of a stored reason.
const REASON_MAX: usize = 2000;

/// Returns the stored form of a failure. Its text has the reasons of every hop that was tried, its
/// own first.
pub(super) fn attempt_failure(
    failure: &Failure,
    trail: &[Arc<Failure>],
    ends_as: Persistence,
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
    AttemptFailure {
        at: Timestamp::now(),
        status: failure.enhanced(ends_as),
        text: text.chars().take(REASON_MAX).collect(),
        host: failure.peer.as_deref().map(host),
        reply: failure.peer_reply().cloned(),
    }
}

/// Returns the host of a peer: of `mx.example.org [192.0.2.1]:25`, of `mx.example.org:25` (not
/// dialled), or of `[192.0.2.1]:25` (no name).
pub(super) fn host(peer: &str) -> String {
    let address = peer.find(' ').or_else(|| peer.find(']').map(|at| at + 1));
    let end = address.or_else(|| peer.rfind(':')).unwrap_or(peer.len());
    peer[..end].to_owned()
}

/// Returns true when a host that rejected a message for good may accept it in another form: it
/// rejected the message itself, or a recipient because of the message's content or size.
pub(super) fn is_of_content(failure: &Failure) -> bool {
    const MESSAGE_TOO_LARGE: Status = Status(3, 4);
    failure.scope == Scope::Message || failure.status.0 == 6 || failure.status == MESSAGE_TOO_LARGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_peer_has_no_address_and_no_port() {
        for (peer, named) in [
            ("mx.example.org [192.0.2.1]:25", "mx.example.org"),
            ("mx.example.org [2001:db8::1]:25", "mx.example.org"),
            ("mx.example.org:25", "mx.example.org"),
            ("[192.0.2.1]:25", "[192.0.2.1]"),
            ("[IPv6:2001:db8::1]:25", "[IPv6:2001:db8::1]"),
        ] {
            assert_eq!(host(peer), named);
        }
    }
}
