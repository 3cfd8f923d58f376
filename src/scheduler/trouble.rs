//! A failure as the queue remembers it.

use std::sync::Arc;

use jiff::Timestamp;

use crate::envelope::AttemptFailure;
use crate::failure::{Failure, Persistence, Scope};
use crate::smtp::reply::Status;

/// Characters of a reason that are kept, at most.
const REASON_MAX: usize = 2000;

/// A failure as the queue remembers it: with the reason of every hop that was tried, its own first.
pub(super) fn trouble(failure: &Failure, trail: &[Arc<Failure>], ends_as: Persistence) -> AttemptFailure {
    let mut text = failure.to_string();
    for earlier in trail.iter().filter(|earlier| (&earlier.peer, &earlier.cause) != (&failure.peer, &failure.cause)) {
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

/// The host of `mx.example.org [192.0.2.1]:25`, of `mx.example.org:25` where it was not dialled or, where it has
/// no name, of `[192.0.2.1]:25`.
pub(super) fn host(peer: &str) -> String {
    let address = peer.find(' ').or_else(|| peer.find(']').map(|at| at + 1));
    let end = address.or_else(|| peer.rfind(':')).unwrap_or(peer.len());
    peer[..end].to_owned()
}

/// Whether a host that refused a message for good may take it in another form: it refused the message as such, or
/// a recipient for what the message is.
pub(super) fn is_of_content(failure: &Failure) -> bool {
    const MESSAGE_TOO_LARGE: Status = Status(3, 4);
    failure.scope == Scope::Message || failure.status.0 == 6 || failure.status == MESSAGE_TOO_LARGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_without_address_and_port() {
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
